/* Connects one rank to all the others: it calls at every lower rank's Unix socket, or TCP port if
 * that one is on another host, and receives the higher ones at its own. All of it runs in one poll
 * loop, so no rank waits for another's turn and strangers delay nobody. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/patience.h"
#include "rendezvous/handshake.h"
#include "rendezvous/mesh.h"
#include "rendezvous/net.h"
#include "rendezvous/text.h"

#define RETRY_MS   2
#define STARVED_NS UINT64_C(3000000000)

/* Without a connection to rank 0 that would tell, a rank that waits for others looks itself whether
 * they are still there: after this long, and then twice as long each time. */
#define FIRST_LOOK_NS UINT64_C(50000000)
#define LAST_LOOK_NS  UINT64_C(1000000000)

struct call {
    bool open;        /* a socket is connected, or about to be, and the handshake is under way */
    uint64_t next_ns; /* not again before this */
    struct zc_caller caller;
};

struct connecting;

/* Where this rank receives: its Unix socket, and the port for other hosts if it has one. */
struct door {
    struct connecting *connecting;
    bool tcp;
    struct zc_acceptor acceptor;
};

struct connecting {
    struct zc_mesh *mesh;
    struct zc_bootstrap *bootstrap;
    struct door doors[2];
    uint32_t door_count;
    struct call *calls; /* one to each lower rank */
    struct pollfd *set;
    uint32_t connected;
    uint64_t look_at, look_pause;
    uint64_t starved_until; /* 0: it has the descriptors that it needs */
};

/* The kernel vouches for a process on this host; of one on another its word counts. */
static void take_peer(struct connecting *connecting, uint32_t rank, int fd, int64_t pid)
{
    struct zc_peer *peer = &connecting->mesh->peers[rank];

    peer->fd = fd;
    peer->pid = pid;
    if (peer->stream != NULL) {
        peer->stream->fd = fd;
        peer->pid = connecting->bootstrap->table[rank].pid;
        zc_net_configure_tcp(fd);
    }
    connecting->connected++;
    connecting->starved_until = 0;
}

static enum zc_reply_code receive_peer(void *data, int fd, const struct zc_hello *hello,
                                       const uint8_t session[ZC_WIRE_SESSION])
{
    const struct door *door = data;
    const struct zc_peer *peer = &door->connecting->mesh->peers[hello->rank];
    int64_t pid = 0;
    uint32_t uid;

    (void)session; /* nothing more is hashed on this socket */
    if (hello->rank < door->connecting->mesh->rank || door->tcp != (peer->stream != NULL))
        return ZC_REPLY_TARGET;
    if (peer->fd >= 0)
        return ZC_REPLY_DUPLICATE;
    if (!door->tcp)
        (void)zc_net_peer(fd, &pid, &uid);
    take_peer(door->connecting, hello->rank, fd, pid);
    return ZC_REPLY_WELCOME;
}

/* Strangers at this rank's doors may hold what it needs itself: the oldest have to go. If that does
 * not help for a while, it is the ranks' connections that are too many. */
static zcta_status fail_descriptors(struct connecting *connecting, int error)
{
    const struct zc_mesh *mesh = connecting->mesh;

    if (connecting->starved_until == 0)
        connecting->starved_until = zc_deadline_in(STARVED_NS);
    for (uint32_t i = 0; i < connecting->door_count; i++)
        if (zc_time_left_ns(connecting->starved_until) > 0 &&
            zc_acceptor_relieve(&connecting->doors[i].acceptor))
            return ZCTA_OK;
    return zc_fail(mesh->diag, ZCTA_ERR_SYSTEM, "zcta_init", error,
                   "rank %" PRIu32 " cannot open a socket to each of %" PRIu32
                   " ranks: %s; raise `ulimit -n`",
                   mesh->rank, mesh->rank_count, strerror(error));
}

/* At a door nobody sees that there is no descriptor for who waits outside. */
static zcta_status look_for_descriptors(struct connecting *connecting)
{
    bool starved = false;
    int fd;

    for (uint32_t i = 0; i < connecting->door_count; i++)
        starved = starved || connecting->doors[i].acceptor.starved;
    if (starved && connecting->starved_until == 0)
        connecting->starved_until = zc_deadline_in(STARVED_NS);
    if (connecting->starved_until == 0 || zc_time_left_ns(connecting->starved_until) > 0)
        return ZCTA_OK;
    fd = zc_fd_lift(dup(connecting->doors[0].acceptor.listener));
    if (fd < 0)
        return fail_descriptors(connecting, errno);
    close(fd);
    connecting->starved_until = 0;
    return ZCTA_OK;
}

static void begin_call(struct connecting *connecting, uint32_t rank, int fd)
{
    const struct zc_mesh *mesh = connecting->mesh;
    struct call *call = &connecting->calls[rank];
    const struct zc_hello hello = {.purpose = mesh->peers[rank].stream != NULL ? ZC_WIRE_MESH_TCP
                                                                               : ZC_WIRE_MESH,
                                   .rank = mesh->rank,
                                   .rank_count = mesh->rank_count,
                                   .target = rank,
                                   .address = connecting->bootstrap->mine};

    call->open = true;
    zc_caller_start(&call->caller, fd, &hello, connecting->bootstrap->key);
}

static zcta_status dial_unix(struct connecting *connecting, uint32_t rank)
{
    const struct zc_bootstrap *bootstrap = connecting->bootstrap;
    struct zc_mesh *mesh = connecting->mesh;
    int64_t pid;
    uint32_t uid;
    int fd;
    const int error = zc_net_connect_unix(bootstrap->table[rank].name, &fd);

    if (error == EAGAIN || error == EINTR) /* its queue is full: later */
        return ZCTA_OK;
    if (error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM)
        return fail_descriptors(connecting, error);
    if (error != 0)
        return zc_fail_rank(mesh->diag, ZCTA_ERR_RENDEZVOUS, rank, "zcta_init", error,
                            "rank %" PRIu32 " (pid %" PRId64
                            ") is no longer there: %s; see its own output",
                            rank, bootstrap->table[rank].pid, strerror(error));
    if (!zc_net_peer(fd, &pid, &uid) || uid != geteuid()) {
        close(fd);
        return zc_fail_rank(mesh->diag, ZCTA_ERR_RENDEZVOUS, rank, "zcta_init", 0,
                            "rank %" PRIu32 " runs as another user: start all ranks of a job as "
                            "the same user",
                            rank);
    }
    mesh->peers[rank].pid = pid;
    begin_call(connecting, rank, fd);
    return ZCTA_OK;
}

static zcta_status fail_unreachable(const struct connecting *connecting, uint32_t rank, int error)
{
    const struct zc_address *address = &connecting->bootstrap->table[rank];
    struct zc_endpoint endpoint;
    char text[64];

    zc_net_unpack(address->ip, address->port, &endpoint);
    zc_net_text(&endpoint, text);
    return zc_fail_rank(connecting->mesh->diag, ZCTA_ERR_RENDEZVOUS, rank, "zcta_init", error,
                        "rank %" PRIu32 " (pid %" PRId64 ") cannot be reached at %s: %s; it has "
                        "ended, a firewall is between, or it needs ZEROCTA_ADDRESS, its address "
                        "in the network that all machines share",
                        rank, address->pid, text, strerror(error));
}

/* An acceptor that makes room resets connections; ports for outgoing ones may run out for a while.
 */
static bool is_final(int error)
{
    return error != 0 && error != EAGAIN && error != EINTR && error != ECONNRESET &&
           error != ECONNABORTED && error != EADDRNOTAVAIL;
}

static zcta_status dial_tcp(struct connecting *connecting, uint32_t rank)
{
    const struct zc_address *address = &connecting->bootstrap->table[rank];
    struct zc_endpoint endpoint;
    int error, fd;

    zc_net_unpack(address->ip, address->port, &endpoint);
    error = zc_net_start_tcp(&endpoint, &fd);
    if (error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM)
        return fail_descriptors(connecting, error);
    if (is_final(error))
        return fail_unreachable(connecting, rank, error);
    if (error == 0)
        begin_call(connecting, rank, fd);
    return ZCTA_OK;
}

static zcta_status dial(struct connecting *connecting, uint32_t rank)
{
    struct call *call = &connecting->calls[rank];

    if (zc_time_left_ns(call->next_ns) > 0)
        return ZCTA_OK;
    call->next_ns = zc_deadline_in(RETRY_MS * UINT64_C(1000000));
    return connecting->mesh->peers[rank].stream != NULL ? dial_tcp(connecting, rank)
                                                        : dial_unix(connecting, rank);
}

static zcta_status go_on(struct connecting *connecting, uint32_t rank)
{
    struct zc_mesh *mesh = connecting->mesh;
    struct call *call = &connecting->calls[rank];
    const int error = mesh->peers[rank].stream != NULL ? zc_net_error(call->caller.fd) : 0;

    if (is_final(error)) {
        call->open = false;
        close(call->caller.fd);
        return fail_unreachable(connecting, rank, error);
    }
    switch (zc_caller_advance(&call->caller)) {
    case ZC_CALLER_GREETING:
    case ZC_CALLER_REPLY:
        return ZCTA_OK;
    case ZC_CALLER_WELCOME:
        call->open = false;
        take_peer(connecting, rank, call->caller.fd, mesh->peers[rank].pid);
        return ZCTA_OK;
    case ZC_CALLER_CLOSED: /* it made room for others, or it ended: dialling again tells */
        call->open = false;
        close(call->caller.fd);
        return ZCTA_OK;
    case ZC_CALLER_REFUSED:
    case ZC_CALLER_FOREIGN:
    case ZC_CALLER_VERSION:
    case ZC_CALLER_FORGED:
        break;
    }
    call->open = false;
    close(call->caller.fd);
    return zc_fail_rank(mesh->diag, ZCTA_ERR_RENDEZVOUS, rank, "zcta_init", call->caller.reply.code,
                        "rank %" PRIu32 " (pid %" PRId64
                        ") refused the connection: the ranks are not of one job (reply %d)",
                        rank, mesh->peers[rank].pid, (int)call->caller.reply.code);
}

static bool is_starved(const struct connecting *connecting)
{
    bool starved = false;

    for (uint32_t i = 0; i < connecting->door_count; i++)
        starved = starved || connecting->doors[i].acceptor.starved;
    return starved;
}

static zcta_status fail_missing(const struct connecting *connecting)
{
    const struct zc_bootstrap *bootstrap = connecting->bootstrap;
    const struct zc_mesh *mesh = connecting->mesh;
    uint32_t *missing;
    uint32_t count = 0;
    char who[120], within[24];
    zcta_status status;

    if (connecting->connected + 1 == mesh->rank_count)
        return zc_bootstrap_fail_awaited(bootstrap);
    missing = calloc((size_t)mesh->rank_count + 1, sizeof *missing);
    if (missing == NULL)
        return zc_fail(mesh->diag, ZCTA_ERR_NO_MEMORY, "zcta_init", 0,
                       "no memory to list the ranks that did not connect");
    for (uint32_t rank = 0; rank < mesh->rank_count; rank++)
        if (rank != mesh->rank && mesh->peers[rank].fd < 0)
            missing[count++] = rank;
    zc_text_ranks(who, missing, count);
    zc_text_seconds(within, bootstrap->deadline - bootstrap->start);
    status = zc_fail_rank(
        mesh->diag, ZCTA_ERR_TIMEOUT, missing[0], "zcta_init", 0,
        "%s did not connect to rank %" PRIu32 " within %s (the first has pid %" PRId64
        "%s): stopped, or very slow?%s",
        who, mesh->rank, within, bootstrap->table[missing[0]].pid,
        mesh->peers[missing[0]].stream == NULL ? ""
                                               : ", on another machine; a firewall may be between",
        is_starved(connecting) ? " This rank ran out of file descriptors: raise `ulimit -n`" : "");
    free(missing);
    return status;
}

/* A rank that has failed or ended closes its connections, and its socket, at which the lower ranks
 * do not call otherwise. */
static bool is_gone(const struct connecting *connecting, uint32_t rank)
{
    const struct zc_mesh *mesh = connecting->mesh;
    struct pollfd one = {.fd = mesh->peers[rank].fd, .events = POLLRDHUP};
    int error, fd;

    if (one.fd >= 0)
        return zc_net_poll(&one, 1, 0) > 0;
    if (rank <= mesh->rank || mesh->peers[rank].stream != NULL)
        return false;
    error = zc_net_connect_unix(connecting->bootstrap->table[rank].name, &fd);
    if (error == 0)
        close(fd);
    return error == ECONNREFUSED || error == ENOENT;
}

static zcta_status look_for_gone(struct connecting *connecting, int *timeout_ms)
{
    const struct zc_mesh *mesh = connecting->mesh;

    if (connecting->bootstrap->line_count > 0)
        return ZCTA_OK;
    if (zc_time_left_ns(connecting->look_at) == 0) {
        for (uint32_t rank = 0; rank < mesh->rank_count; rank++)
            if (rank != mesh->rank && is_gone(connecting, rank))
                return zc_fail_rank(mesh->diag, ZCTA_ERR_RENDEZVOUS, rank, "zcta_init", 0,
                                    "rank %" PRIu32 " (pid %" PRId64
                                    ") failed or ended before all ranks were connected: see its "
                                    "own output",
                                    rank, connecting->bootstrap->table[rank].pid);
        if (connecting->look_pause < LAST_LOOK_NS)
            connecting->look_pause *= 2;
        connecting->look_at = zc_deadline_in(connecting->look_pause);
    }
    *timeout_ms = zc_net_poll_ms(connecting->look_at, *timeout_ms);
    return ZCTA_OK;
}

/* Dials whom it has not reached. */
static zcta_status dial_missing(struct connecting *connecting)
{
    const struct zc_mesh *mesh = connecting->mesh;
    zcta_status status = ZCTA_OK;

    for (uint32_t rank = 0; rank < mesh->rank && status == ZCTA_OK; rank++)
        if (mesh->peers[rank].fd < 0 && !connecting->calls[rank].open)
            status = dial(connecting, rank);
    return status;
}

/* Fills the poll set behind the doors' entries. */
static size_t add_calls(const struct connecting *connecting, size_t count, int *timeout_ms)
{
    const struct zc_mesh *mesh = connecting->mesh;

    for (uint32_t rank = 0; rank < mesh->rank; rank++) {
        const struct call *call = &connecting->calls[rank];

        if (call->open)
            connecting->set[count++] = (struct pollfd){.fd = call->caller.fd, .events = POLLIN};
        else if (mesh->peers[rank].fd < 0 && *timeout_ms > RETRY_MS)
            *timeout_ms = RETRY_MS;
    }
    return count;
}

/* The doors' entries first, one door's behind the other's. */
static size_t open_doors(const struct connecting *connecting, int *timeout_ms)
{
    size_t count = 0;

    for (uint32_t i = 0; i < connecting->door_count; i++)
        count += zc_acceptor_poll_set(&connecting->doors[i].acceptor, connecting->set + count,
                                      timeout_ms);
    return count;
}

/* The acceptors still have as many connections as when the set was made. */
static void serve_doors(struct connecting *connecting)
{
    size_t at = 0;

    for (uint32_t i = 0; i < connecting->door_count; i++) {
        struct zc_acceptor *acceptor = &connecting->doors[i].acceptor;
        const size_t entries = 1 + acceptor->count;

        zc_acceptor_serve(acceptor, connecting->set + at);
        at += entries;
    }
}

static zcta_status connect_all(struct connecting *connecting)
{
    const struct zc_mesh *mesh = connecting->mesh;
    struct zc_limit limit = {.at = connecting->bootstrap->deadline};
    zcta_status status = ZCTA_OK;

    while (status == ZCTA_OK && (connecting->connected + 1 < mesh->rank_count ||
                                 !zc_bootstrap_is_settled(connecting->bootstrap))) {
        int timeout_ms;
        size_t count, at, calls;

        if (zc_limit_is_over(&limit))
            return fail_missing(connecting);
        timeout_ms = zc_net_poll_ms(limit.at, 500);
        status = dial_missing(connecting);
        if (status == ZCTA_OK)
            status = look_for_gone(connecting, &timeout_ms);
        if (status == ZCTA_OK)
            status = look_for_descriptors(connecting);
        if (status != ZCTA_OK)
            return status;
        at = open_doors(connecting, &timeout_ms);
        calls = count = add_calls(connecting, at, &timeout_ms);
        count += zc_bootstrap_poll_set(connecting->bootstrap,
                                       connecting->connected + 1 == mesh->rank_count,
                                       connecting->set + count, &timeout_ms);
        zc_net_poll(connecting->set, count, timeout_ms);
        for (uint32_t rank = 0; rank < mesh->rank && status == ZCTA_OK; rank++)
            if (connecting->calls[rank].open && connecting->set[at++].revents != 0)
                status = go_on(connecting, rank);
        serve_doors(connecting);
        if (status == ZCTA_OK)
            status = zc_bootstrap_serve(connecting->bootstrap, connecting->set + calls);
    }
    return status;
}

static bool same_host(const struct zc_bootstrap *bootstrap, uint32_t a, uint32_t b)
{
    return memcmp(bootstrap->table[a].host, bootstrap->table[b].host,
                  sizeof bootstrap->table[a].host) == 0;
}

/* Who is on which host, and streams for those on others. */
static zcta_status find_hosts(struct zc_mesh *mesh, const struct zc_bootstrap *bootstrap)
{
    for (uint32_t rank = 0; rank < mesh->rank_count; rank++) {
        struct zc_peer *peer = &mesh->peers[rank];

        while (!same_host(bootstrap, peer->host, rank))
            peer->host++;
        if (same_host(bootstrap, mesh->rank, rank))
            continue;
        if (bootstrap->table[rank].port == 0 || bootstrap->mine.port == 0)
            return zc_fail_rank(mesh->diag, ZCTA_ERR_RENDEZVOUS, rank, "zcta_init", 0,
                                "rank %" PRIu32 " runs on another machine or in another network "
                                "namespace than rank %" PRIu32 ", and one of them has no port for "
                                "the other: set ZEROCTA_REMOTE=1, ZEROCTA_TOKEN to a secret, and "
                                "ZEROCTA_ADDRESS where there is no other interface, on all ranks; "
                                "where ZEROCTA_NODE tells them apart, set that on all",
                                rank, mesh->rank);
        peer->stream = zc_stream_create();
        if (peer->stream == NULL)
            return zc_fail(mesh->diag, ZCTA_ERR_NO_MEMORY, "zcta_init", ENOMEM,
                           "no memory for the connections to %" PRIu32 " ranks", mesh->rank_count);
    }
    return ZCTA_OK;
}

/* How many ranks of this host say that they are of that rank's user. */
static uint32_t count_of_user(const struct zc_mesh *mesh, const struct zc_bootstrap *bootstrap,
                              uint32_t of)
{
    uint32_t count = 0;

    for (uint32_t rank = 0; rank < mesh->rank_count; rank++)
        count += same_host(bootstrap, of, rank) &&
                 bootstrap->table[rank].uid == bootstrap->table[of].uid;
    return count;
}

/* Ranks of one host that are of different users cannot connect. All of them find the same one to
 * differ, whoever would have met whom first: the first rank whose user has the fewest. */
static zcta_status check_users(const struct zc_mesh *mesh, const struct zc_bootstrap *bootstrap)
{
    const struct zc_address *table = bootstrap->table;
    uint32_t most, fewest;
    bool differ = false;

    for (uint32_t rank = 0; rank < mesh->rank_count; rank++)
        differ = differ || (same_host(bootstrap, mesh->rank, rank) &&
                            table[rank].uid != table[mesh->rank].uid);
    if (!differ)
        return ZCTA_OK;
    most = fewest = mesh->peers[mesh->rank].host;
    for (uint32_t rank = most; rank < mesh->rank_count; rank++) {
        if (!same_host(bootstrap, mesh->rank, rank))
            continue;
        if (count_of_user(mesh, bootstrap, rank) > count_of_user(mesh, bootstrap, most))
            most = rank;
        if (count_of_user(mesh, bootstrap, rank) < count_of_user(mesh, bootstrap, fewest) ||
            (fewest == most && table[rank].uid != table[most].uid))
            fewest = rank;
    }
    return zc_fail_rank(mesh->diag, ZCTA_ERR_RENDEZVOUS, fewest, "zcta_init", 0,
                        "rank %" PRIu32 " runs as user %" PRIu32 ", and rank %" PRIu32
                        " as user %" PRIu32 ": start all ranks of a job as the same user",
                        fewest, table[fewest].uid, most, table[most].uid);
}

/* A connection to every rank, and from every other rank of this host a descriptor of its memory,
 * which may all be here at once. */
static zcta_status check_files(const struct zc_mesh *mesh, const struct zc_bootstrap *bootstrap)
{
    uint32_t needed = mesh->rank_count - 1;

    for (uint32_t rank = 0; rank < mesh->rank_count; rank++)
        needed += mesh->peers[rank].stream == NULL && bootstrap->table[rank].pid != getpid();
    return zc_mesh_check_files(bootstrap, needed);
}

static bool add_door(struct connecting *connecting, int listener, enum zc_wire_purpose purpose)
{
    struct door *door = &connecting->doors[connecting->door_count++];

    *door = (struct door){.connecting = connecting,
                          .tcp = purpose == ZC_WIRE_MESH_TCP,
                          .acceptor = {.listener = listener,
                                       .purpose = purpose,
                                       .rank = connecting->mesh->rank,
                                       .rank_count = connecting->mesh->rank_count,
                                       .key = connecting->bootstrap->key,
                                       .decide = receive_peer,
                                       .decide_data = door}};
    return zc_acceptor_open(&door->acceptor);
}

static zcta_status prepare(struct connecting *connecting, int listener)
{
    const struct zc_mesh *mesh = connecting->mesh;
    const int port_fd = connecting->bootstrap->port_fd;
    size_t entries = (size_t)mesh->rank_count + 1 + zc_bootstrap_poll_limit(connecting->bootstrap);
    bool good;

    connecting->calls = calloc(mesh->rank_count, sizeof *connecting->calls);
    good = add_door(connecting, listener, ZC_WIRE_MESH);
    if (good && port_fd >= 0)
        good = add_door(connecting, port_fd, ZC_WIRE_MESH_TCP);
    for (uint32_t i = 0; i < connecting->door_count; i++)
        entries += zc_acceptor_poll_limit(&connecting->doors[i].acceptor);
    connecting->set = calloc(entries, sizeof *connecting->set);
    if (!good || connecting->calls == NULL || connecting->set == NULL)
        return zc_fail(mesh->diag, ZCTA_ERR_NO_MEMORY, "zcta_init", 0,
                       "no memory to connect %" PRIu32 " ranks", mesh->rank_count);
    return ZCTA_OK;
}

zcta_status zc_mesh_connect(struct zc_mesh *mesh, struct zc_bootstrap *bootstrap, int listener)
{
    struct connecting connecting = {.mesh = mesh,
                                    .bootstrap = bootstrap,
                                    .look_at = zc_deadline_in(FIRST_LOOK_NS),
                                    .look_pause = FIRST_LOOK_NS};
    zcta_status status = find_hosts(mesh, bootstrap);

    if (status == ZCTA_OK)
        status = check_users(mesh, bootstrap);
    if (status == ZCTA_OK)
        status = check_files(mesh, bootstrap);
    if (status == ZCTA_OK)
        status = prepare(&connecting, listener);
    if (status == ZCTA_OK)
        status = connect_all(&connecting);
    if (status != ZCTA_OK)
        status = zc_bootstrap_better_word(bootstrap, status);
    for (uint32_t rank = 0; connecting.calls != NULL && rank < mesh->rank; rank++)
        if (connecting.calls[rank].open)
            close(connecting.calls[rank].caller.fd);
    for (uint32_t i = 0; i < connecting.door_count; i++)
        zc_acceptor_close(&connecting.doors[i].acceptor);
    free(connecting.set);
    free(connecting.calls);
    return status;
}
