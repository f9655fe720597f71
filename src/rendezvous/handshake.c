/* The acceptor and the caller; see handshake.h. Must never wait, and never let one stranger cost
 * more than its slot: strangers are limited in number and in time. */
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
    CONNECTIONS = 512, /* strangers at one time, beside the ranks that are expected */
    ACCEPT_BURST =
        32, /* accepted in one turn, so that connections with a hello are not kept waiting */
    PROOF_MS = 2000, /* a connection has this long to prove the key */
    GRACE_MS = 50,   /* and is not dropped for newer ones before this */
    STARVED_MS = 10, /* pause when there is no descriptor and nobody to drop */
    HOUSEKEEPING_MS = 100,
};

bool zc_acceptor_open(struct zc_acceptor *acceptor)
{
    acceptor->limit = CONNECTIONS + acceptor->rank_count;
    acceptor->count = 0;
    acceptor->connections = calloc(acceptor->limit, sizeof *acceptor->connections);
    return acceptor->connections != NULL;
}

void zc_acceptor_close(struct zc_acceptor *acceptor)
{
    for (uint32_t i = 0; i < acceptor->count; i++)
        close(acceptor->connections[i].fd);
    free(acceptor->connections);
    acceptor->connections = NULL;
    acceptor->count = 0;
}

static void forget(struct zc_acceptor *acceptor, uint32_t index)
{
    acceptor->connections[index] = acceptor->connections[--acceptor->count];
}

static void drop(struct zc_acceptor *acceptor, uint32_t index)
{
    acceptor->strangers++;
    close(acceptor->connections[index].fd);
    forget(acceptor, index);
}

/* Drops the oldest connection. If even that one is too young to have had its chance, newcomers wait
 * in the listener's queue instead. */
static bool make_room(struct zc_acceptor *acceptor)
{
    const uint64_t now = zc_now_ns();
    uint32_t oldest = 0;

    if (acceptor->count == 0) {
        acceptor->paused_until = now + STARVED_MS * MILLISECOND;
        return false;
    }
    for (uint32_t i = 1; i < acceptor->count; i++)
        if (acceptor->connections[i].since < acceptor->connections[oldest].since)
            oldest = i;
    if (now < acceptor->connections[oldest].since + GRACE_MS * MILLISECOND) {
        acceptor->paused_until = acceptor->connections[oldest].since + GRACE_MS * MILLISECOND;
        return false;
    }
    drop(acceptor, oldest);
    return true;
}

bool zc_acceptor_relieve(struct zc_acceptor *acceptor)
{
    acceptor->starved = true;
    if (acceptor->count == 0)
        return false;
    (void)make_room(acceptor);
    return true;
}

static void greet(struct zc_acceptor *acceptor, int fd)
{
    struct zc_connection *connection = &acceptor->connections[acceptor->count];
    uint8_t nonce[ZC_WIRE_NONCE];
    const int on = 1;

    assert(acceptor->count < acceptor->limit);
    if (acceptor->purpose != ZC_WIRE_MESH)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    *connection = (struct zc_connection){.fd = fd, .since = zc_now_ns()};
    randombytes_buf(nonce, sizeof nonce);
    zc_wire_greeting_make(connection->greeting, acceptor->purpose, nonce);
    acceptor->count++;
    if (!zc_net_send_small(fd, connection->greeting, sizeof connection->greeting))
        drop(acceptor, acceptor->count - 1);
}

/* Only processes of the same user may sit at a Unix socket's table. */
static bool same_user(const struct zc_acceptor *acceptor, int fd)
{
    int64_t pid;
    uint32_t uid;

    if (acceptor->purpose != ZC_WIRE_MESH)
        return true;
    return zc_net_peer(fd, &pid, &uid) && uid == geteuid();
}

static void accept_guests(struct zc_acceptor *acceptor)
{
    for (int turn = 0; turn < ACCEPT_BURST; turn++) {
        if (acceptor->count == acceptor->limit && !make_room(acceptor))
            return;

        const int fd =
            zc_fd_lift(accept4(acceptor->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC));

        if (fd >= 0 && same_user(acceptor, fd)) {
            greet(acceptor, fd);
        } else if (fd >= 0) {
            acceptor->strangers++;
            close(fd);
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return;
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            acceptor->starved = true;
            if (!make_room(acceptor))
                return;
        }
        /* Any other error concerns the one connection that was about to be accepted. */
    }
}

/* The hello is complete: proves it, has it decided on, answers. The connection leaves the acceptor.
 */
static void answer(struct zc_acceptor *acceptor, uint32_t index)
{
    const struct zc_connection connection = acceptor->connections[index];
    struct zc_reply reply = {.code = ZC_REPLY_TOKEN, .count = acceptor->rank_count};
    uint8_t session[ZC_WIRE_SESSION], bytes[ZC_WIRE_REPLY];
    struct zc_hello hello;

    zc_wire_session(session, connection.greeting, connection.hello);
    if (zc_wire_hello_open(connection.hello, connection.greeting, acceptor->key, &hello) !=
        ZC_WIRE_OK) {
        acceptor->strangers++;
    } else if (hello.rank_count != acceptor->rank_count) {
        reply.code = ZC_REPLY_RANK_COUNT;
    } else if (hello.purpose != acceptor->purpose || hello.target != acceptor->rank) {
        reply.code = ZC_REPLY_TARGET;
    } else {
        reply.rank = hello.rank;
        reply.code = acceptor->decide(acceptor->decide_data, connection.fd, &hello, session);
        if (reply.code == ZC_REPLY_VERSION)
            reply.count = zcta_version();
    }
    zc_wire_reply_seal(bytes, &reply, session, acceptor->key);
    /* A fresh socket has room for it. If it failed, whoever owns the socket will see it closed. */
    (void)zc_net_send_small(connection.fd, bytes, sizeof bytes);
    if (reply.code != ZC_REPLY_WELCOME)
        close(connection.fd);
    forget(acceptor, index);
}

static void listen_to(struct zc_acceptor *acceptor, uint32_t index)
{
    struct zc_connection *connection = &acceptor->connections[index];
    const long got = zc_net_receive(connection->fd, connection->hello + connection->have,
                                    ZC_WIRE_HELLO - connection->have);

    if (got < 0) {
        drop(acceptor, index);
        return;
    }
    connection->have += (size_t)got;
    if (connection->have == ZC_WIRE_HELLO)
        answer(acceptor, index);
}

size_t zc_acceptor_poll_limit(const struct zc_acceptor *acceptor)
{
    return 1 + acceptor->limit;
}

size_t zc_acceptor_poll_set(const struct zc_acceptor *acceptor, struct pollfd *set, int *timeout_ms)
{
    const bool paused = zc_time_left_ns(acceptor->paused_until) > 0;
    int wake_ms = *timeout_ms;

    set[0] = (struct pollfd){.fd = paused ? -1 : acceptor->listener, .events = POLLIN};
    for (uint32_t i = 0; i < acceptor->count; i++)
        set[1 + i] = (struct pollfd){.fd = acceptor->connections[i].fd, .events = POLLIN};
    if (acceptor->count > 0 && wake_ms > HOUSEKEEPING_MS)
        wake_ms = HOUSEKEEPING_MS;
    if (paused)
        wake_ms = zc_net_poll_ms(acceptor->paused_until, wake_ms);
    *timeout_ms = wake_ms;
    return 1 + acceptor->count;
}

void zc_acceptor_serve(struct zc_acceptor *acceptor, const struct pollfd *set)
{
    const uint64_t now = zc_now_ns();

    /* Backwards: a connection that leaves is replaced by the last one, which has been served. */
    for (uint32_t i = acceptor->count; i-- > 0;) {
        if (set[1 + i].revents != 0)
            listen_to(acceptor, i);
        if (i < acceptor->count && now > acceptor->connections[i].since + PROOF_MS * MILLISECOND)
            drop(acceptor, i);
    }
    if (set[0].revents != 0)
        accept_guests(acceptor);
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
    return zc_net_send_small(caller->fd, hello, sizeof hello) ? ZC_CALLER_REPLY : ZC_CALLER_CLOSED;
}

static enum zc_caller_state hear_reply(struct zc_caller *caller)
{
    switch (zc_wire_reply_open(caller->answer, caller->session, caller->key, &caller->reply)) {
    case ZC_WIRE_OK:
        return caller->reply.code == ZC_REPLY_WELCOME ? ZC_CALLER_WELCOME : ZC_CALLER_REFUSED;
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
    if (caller->state == ZC_CALLER_REPLY && fill(caller, caller->answer, sizeof caller->answer))
        caller->state = hear_reply(caller);
    return caller->state;
}
