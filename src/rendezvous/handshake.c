/* The lobby and the caller; see handshake.h. Must never wait, and never let one stranger cost more
 * than its slot: strangers are limited in number and in time. */
#include "rendezvous/handshake.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "rendezvous/net.h"

#define MILLISECOND UINT64_C(1000000)

enum {
    GUESTS = 512,      /* strangers at one time, beside the ranks that are expected */
    ACCEPT_BURST = 32, /* accepted in one turn, so that guests with a hello are not kept waiting */
    PROOF_MS = 2000,   /* a guest has this long to prove the key */
    GRACE_MS = 50,     /* and is not dropped for newer ones before this */
    STARVED_MS = 10,   /* pause when there is no descriptor and nobody to drop */
    HOUSEKEEPING_MS = 100,
};

bool zc_lobby_open(struct zc_lobby *lobby)
{
    lobby->limit = GUESTS + lobby->rank_count;
    lobby->count = 0;
    lobby->guests = calloc(lobby->limit, sizeof *lobby->guests);
    return lobby->guests != NULL;
}

void zc_lobby_close(struct zc_lobby *lobby)
{
    for (uint32_t i = 0; i < lobby->count; i++)
        close(lobby->guests[i].fd);
    free(lobby->guests);
    lobby->guests = NULL;
    lobby->count = 0;
}

static void forget(struct zc_lobby *lobby, uint32_t index)
{
    lobby->guests[index] = lobby->guests[--lobby->count];
}

static void drop(struct zc_lobby *lobby, uint32_t index)
{
    lobby->strangers++;
    close(lobby->guests[index].fd);
    forget(lobby, index);
}

/* Drops the oldest guest. If even that one is too young to have had its chance, newcomers wait in
 * the listener's queue instead. */
static bool make_room(struct zc_lobby *lobby)
{
    const uint64_t now = zc_now_ns();
    uint32_t oldest = 0;

    if (lobby->count == 0) {
        lobby->paused_until = now + STARVED_MS * MILLISECOND;
        return false;
    }
    for (uint32_t i = 1; i < lobby->count; i++)
        if (lobby->guests[i].since < lobby->guests[oldest].since)
            oldest = i;
    if (now < lobby->guests[oldest].since + GRACE_MS * MILLISECOND) {
        lobby->paused_until = lobby->guests[oldest].since + GRACE_MS * MILLISECOND;
        return false;
    }
    drop(lobby, oldest);
    return true;
}

bool zc_lobby_relieve(struct zc_lobby *lobby)
{
    lobby->starved = true;
    if (lobby->count == 0)
        return false;
    (void)make_room(lobby);
    return true;
}

static void greet(struct zc_lobby *lobby, int fd)
{
    struct zc_guest *guest = &lobby->guests[lobby->count];
    uint8_t nonce[ZC_WIRE_NONCE];
    const int on = 1;

    assert(lobby->count < lobby->limit);
    if (lobby->purpose != ZC_WIRE_MESH)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    *guest = (struct zc_guest){.fd = fd, .since = zc_now_ns()};
    randombytes_buf(nonce, sizeof nonce);
    zc_wire_greeting_make(guest->greeting, lobby->purpose, nonce);
    lobby->count++;
    if (!zc_net_send_small(fd, guest->greeting, sizeof guest->greeting))
        drop(lobby, lobby->count - 1);
}

/* Only processes of the same user may sit at a Unix socket's table. */
static bool same_user(const struct zc_lobby *lobby, int fd)
{
    int64_t pid;
    uint32_t uid;

    if (lobby->purpose != ZC_WIRE_MESH)
        return true;
    return zc_net_peer(fd, &pid, &uid) && uid == geteuid();
}

static void accept_guests(struct zc_lobby *lobby)
{
    for (int turn = 0; turn < ACCEPT_BURST; turn++) {
        if (lobby->count == lobby->limit && !make_room(lobby))
            return;

        const int fd =
            zc_fd_lift(accept4(lobby->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC));

        if (fd >= 0 && same_user(lobby, fd)) {
            greet(lobby, fd);
        } else if (fd >= 0) {
            lobby->strangers++;
            close(fd);
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return;
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            lobby->starved = true;
            if (!make_room(lobby))
                return;
        }
        /* Any other error concerns the one connection that was about to be accepted. */
    }
}

/* The hello is complete: proves it, has it judged, answers. The guest leaves the lobby. */
static void answer(struct zc_lobby *lobby, uint32_t index)
{
    const struct zc_guest guest = lobby->guests[index];
    struct zc_verdict verdict = {.code = ZC_VERDICT_TOKEN, .count = lobby->rank_count};
    uint8_t session[ZC_WIRE_SESSION], bytes[ZC_WIRE_VERDICT];
    struct zc_hello hello;

    zc_wire_session(session, guest.greeting, guest.hello);
    if (zc_wire_hello_open(guest.hello, guest.greeting, lobby->key, &hello) != ZC_WIRE_OK) {
        lobby->strangers++;
    } else if (hello.rank_count != lobby->rank_count) {
        verdict.code = ZC_VERDICT_RANK_COUNT;
    } else if (hello.purpose != lobby->purpose || hello.target != lobby->rank) {
        verdict.code = ZC_VERDICT_TARGET;
    } else {
        verdict.rank = hello.rank;
        verdict.code = lobby->judge(lobby->judge_data, guest.fd, &hello, session);
        if (verdict.code == ZC_VERDICT_VERSION)
            verdict.count = zcta_version();
    }
    zc_wire_verdict_seal(bytes, &verdict, session, lobby->key);
    /* A fresh socket has room for it. If it failed, whoever owns the socket will see it closed. */
    (void)zc_net_send_small(guest.fd, bytes, sizeof bytes);
    if (verdict.code != ZC_VERDICT_WELCOME)
        close(guest.fd);
    forget(lobby, index);
}

static void listen_to(struct zc_lobby *lobby, uint32_t index)
{
    struct zc_guest *guest = &lobby->guests[index];
    const long got =
        zc_net_receive(guest->fd, guest->hello + guest->have, ZC_WIRE_HELLO - guest->have);

    if (got < 0) {
        drop(lobby, index);
        return;
    }
    guest->have += (size_t)got;
    if (guest->have == ZC_WIRE_HELLO)
        answer(lobby, index);
}

size_t zc_lobby_poll_limit(const struct zc_lobby *lobby)
{
    return 1 + lobby->limit;
}

size_t zc_lobby_poll_set(const struct zc_lobby *lobby, struct pollfd *set, int *timeout_ms)
{
    const bool paused = zc_time_left_ns(lobby->paused_until) > 0;
    int wake_ms = *timeout_ms;

    set[0] = (struct pollfd){.fd = paused ? -1 : lobby->listener, .events = POLLIN};
    for (uint32_t i = 0; i < lobby->count; i++)
        set[1 + i] = (struct pollfd){.fd = lobby->guests[i].fd, .events = POLLIN};
    if (lobby->count > 0 && wake_ms > HOUSEKEEPING_MS)
        wake_ms = HOUSEKEEPING_MS;
    if (paused)
        wake_ms = zc_net_poll_ms(lobby->paused_until, wake_ms);
    *timeout_ms = wake_ms;
    return 1 + lobby->count;
}

void zc_lobby_serve(struct zc_lobby *lobby, const struct pollfd *set)
{
    const uint64_t now = zc_now_ns();

    /* Backwards: a guest that leaves is replaced by the last one, which has been served. */
    for (uint32_t i = lobby->count; i-- > 0;) {
        if (set[1 + i].revents != 0)
            listen_to(lobby, i);
        if (i < lobby->count && now > lobby->guests[i].since + PROOF_MS * MILLISECOND)
            drop(lobby, i);
    }
    if (set[0].revents != 0)
        accept_guests(lobby);
}

void zc_caller_start(struct zc_caller *caller, int fd, const struct zc_hello *hello,
                     const uint8_t *key)
{
    *caller =
        (struct zc_caller){.fd = fd, .state = ZC_CALLER_GREETING, .key = key, .hello = *hello};
    randombytes_buf(caller->hello.nonce, sizeof caller->hello.nonce);
}

static enum zc_caller_state say_hello(struct zc_caller *caller)
{
    uint8_t hello[ZC_WIRE_HELLO];

    switch (zc_wire_greeting_check(caller->greeting, caller->hello.purpose)) {
    case ZC_WIRE_OK:
        break;
    case ZC_WIRE_VERSION:
        return ZC_CALLER_VERSION;
    case ZC_WIRE_FOREIGN:
    case ZC_WIRE_FORGED:
    case ZC_WIRE_MALFORMED:
        return ZC_CALLER_FOREIGN;
    }
    zc_wire_hello_seal(hello, &caller->hello, caller->greeting, caller->key);
    zc_wire_session(caller->session, caller->greeting, hello);
    caller->have = 0;
    return zc_net_send_small(caller->fd, hello, sizeof hello) ? ZC_CALLER_VERDICT
                                                              : ZC_CALLER_CLOSED;
}

static enum zc_caller_state hear_verdict(struct zc_caller *caller)
{
    switch (zc_wire_verdict_open(caller->answer, caller->session, caller->key, &caller->verdict)) {
    case ZC_WIRE_OK:
        return caller->verdict.code == ZC_VERDICT_WELCOME ? ZC_CALLER_WELCOME : ZC_CALLER_REFUSED;
    case ZC_WIRE_FORGED:
        return ZC_CALLER_FORGED;
    case ZC_WIRE_FOREIGN:
    case ZC_WIRE_VERSION:
    case ZC_WIRE_MALFORMED:
        break;
    }
    return ZC_CALLER_FOREIGN;
}

/* Reads on until `wanted` bytes are at `bytes`; true when they are. */
static bool fill(struct zc_caller *caller, uint8_t *bytes, size_t wanted)
{
    while (caller->have < wanted) {
        const long got = zc_net_receive(caller->fd, bytes + caller->have, wanted - caller->have);

        if (got < 0)
            caller->state = ZC_CALLER_CLOSED;
        if (got <= 0)
            return false;
        caller->have += (size_t)got;
    }
    return true;
}

enum zc_caller_state zc_caller_advance(struct zc_caller *caller)
{
    if (caller->state == ZC_CALLER_GREETING &&
        fill(caller, caller->greeting, sizeof caller->greeting))
        caller->state = say_hello(caller);
    if (caller->state == ZC_CALLER_VERDICT && fill(caller, caller->answer, sizeof caller->answer))
        caller->state = hear_verdict(caller);
    return caller->state;
}
