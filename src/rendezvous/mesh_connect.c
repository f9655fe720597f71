/* Connects one rank to all the others: it calls at every lower rank's Unix socket and receives the
 * higher ones at its own. Both directions run in one poll loop, so no rank waits for another's turn
 * and strangers at the socket delay nobody. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "rendezvous/handshake.h"
#include "rendezvous/mesh.h"
#include "rendezvous/net.h"
#include "rendezvous/text.h"

#define RETRY_MS 2

struct call {
    bool open; /* a socket is connected and the handshake is under way */
    struct zc_caller caller;
};

struct connecting {
    struct zc_mesh *mesh;
    const struct zc_bootstrap *bootstrap;
    struct zc_lobby lobby;
    struct call *calls; /* one to each lower rank */
    struct pollfd *set;
    uint32_t connected;
};

static void take_peer(struct connecting *connecting, uint32_t rank, int fd, int64_t pid)
{
    connecting->mesh->peers[rank].fd = fd;
    connecting->mesh->peers[rank].pid = pid;
    connecting->connected++;
}

static enum zc_verdict_code receive_peer(void *data, int fd, const struct zc_hello *hello,
                                         const uint8_t session[ZC_WIRE_SESSION])
{
    struct connecting *connecting = data;
    int64_t pid = 0;
    uint32_t uid;

    (void)session; /* nothing more is hashed on this socket */
    if (hello->rank < connecting->mesh->rank)
        return ZC_VERDICT_TARGET;
    if (connecting->mesh->peers[hello->rank].fd >= 0)
        return ZC_VERDICT_DUPLICATE;
    (void)zc_net_peer(fd, &pid, &uid);
    take_peer(connecting, hello->rank, fd, pid);
    return ZC_VERDICT_WELCOME;
}

static zcta_status fail_descriptors(const struct connecting *connecting, int error)
{
    const struct zc_mesh *mesh = connecting->mesh;

    return zc_fail(mesh->diag, ZCTA_ERR_SYSTEM, "zcta_init", error,
                   "rank %" PRIu32 " cannot open a socket to each of %" PRIu32
                   " ranks: %s; raise `ulimit -n`",
                   mesh->rank, mesh->rank_count, strerror(error));
}

static zcta_status dial(struct connecting *connecting, uint32_t rank)
{
    const struct zc_bootstrap *bootstrap = connecting->bootstrap;
    struct zc_mesh *mesh = connecting->mesh;
    struct call *call = &connecting->calls[rank];
    const struct zc_hello hello = {.purpose = ZC_WIRE_MESH,
                                   .rank = mesh->rank,
                                   .rank_count = mesh->rank_count,
                                   .target = rank,
                                   .address = bootstrap->mine};
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
    call->open = true;
    zc_caller_start(&call->caller, fd, &hello, bootstrap->key);
    return ZCTA_OK;
}

static zcta_status go_on(struct connecting *connecting, uint32_t rank)
{
    struct zc_mesh *mesh = connecting->mesh;
    struct call *call = &connecting->calls[rank];

    switch (zc_caller_advance(&call->caller)) {
    case ZC_CALLER_GREETING:
    case ZC_CALLER_VERDICT:
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
    return zc_fail_rank(mesh->diag, ZCTA_ERR_RENDEZVOUS, rank, "zcta_init",
                        call->caller.verdict.code,
                        "rank %" PRIu32 " (pid %" PRId64
                        ") refused the connection: the ranks are not of one job (verdict %d)",
                        rank, mesh->peers[rank].pid, (int)call->caller.verdict.code);
}

static zcta_status fail_missing(const struct connecting *connecting)
{
    const struct zc_bootstrap *bootstrap = connecting->bootstrap;
    const struct zc_mesh *mesh = connecting->mesh;
    uint32_t *missing = calloc(mesh->rank_count, sizeof *missing);
    uint32_t count = 0;
    char who[120], within[24];
    zcta_status status;

    if (missing == NULL)
        return zc_fail(mesh->diag, ZCTA_ERR_NO_MEMORY, "zcta_init", 0,
                       "no memory to list the ranks that did not connect");
    for (uint32_t rank = 0; rank < mesh->rank_count; rank++)
        if (rank != mesh->rank && mesh->peers[rank].fd < 0)
            missing[count++] = rank;
    zc_text_ranks(who, missing, count);
    zc_text_seconds(within, bootstrap->deadline - bootstrap->start);
    status = zc_fail_rank(mesh->diag, ZCTA_ERR_TIMEOUT, missing[0], "zcta_init", 0,
                          "%s did not connect to rank %" PRIu32
                          " within %s (the first has pid %" PRId64 "): stopped, or very slow?%s",
                          who, mesh->rank, within, bootstrap->table[missing[0]].pid,
                          connecting->lobby.starved
                              ? " This rank ran out of file descriptors: raise `ulimit -n`"
                              : "");
    free(missing);
    return status;
}

/* Dials whom it has not reached, and fills the poll set behind the lobby's entries. */
static zcta_status dial_missing(struct connecting *connecting, struct pollfd *set, size_t *count,
                                int *timeout_ms)
{
    const struct zc_mesh *mesh = connecting->mesh;

    for (uint32_t rank = 0; rank < mesh->rank; rank++) {
        struct call *call = &connecting->calls[rank];

        if (mesh->peers[rank].fd >= 0)
            continue;
        if (!call->open) {
            const zcta_status status = dial(connecting, rank);

            if (status != ZCTA_OK)
                return status;
        }
        if (call->open)
            set[(*count)++] = (struct pollfd){.fd = call->caller.fd, .events = POLLIN};
        else if (*timeout_ms > RETRY_MS)
            *timeout_ms = RETRY_MS;
    }
    return ZCTA_OK;
}

static zcta_status connect_all(struct connecting *connecting)
{
    const struct zc_mesh *mesh = connecting->mesh;
    const uint64_t deadline = connecting->bootstrap->deadline;
    zcta_status status = ZCTA_OK;

    while (status == ZCTA_OK && connecting->connected + 1 < mesh->rank_count) {
        int timeout_ms = zc_net_poll_ms(deadline, 500);
        const size_t guests = zc_lobby_poll_set(&connecting->lobby, connecting->set, &timeout_ms);
        size_t count = guests, at = guests;

        if (zc_time_left_ns(deadline) == 0)
            return fail_missing(connecting);
        status = dial_missing(connecting, connecting->set, &count, &timeout_ms);
        if (status != ZCTA_OK)
            return status;
        zc_net_poll(connecting->set, count, timeout_ms);
        for (uint32_t rank = 0; rank < mesh->rank && status == ZCTA_OK; rank++)
            if (connecting->calls[rank].open && connecting->set[at++].revents != 0)
                status = go_on(connecting, rank);
        zc_lobby_serve(&connecting->lobby, connecting->set);
    }
    return status;
}

/* Unix sockets reach no further than one machine and one network namespace. */
static zcta_status check_hosts(const struct zc_mesh *mesh, const struct zc_bootstrap *bootstrap)
{
    for (uint32_t rank = 0; rank < mesh->rank_count; rank++)
        if (memcmp(bootstrap->table[rank].host, bootstrap->mine.host,
                   sizeof bootstrap->mine.host) != 0)
            return zc_fail_rank(mesh->diag, ZCTA_ERR_RENDEZVOUS, rank, "zcta_init", 0,
                                "rank %" PRIu32 " runs on another machine or in another network "
                                "namespace than rank %" PRIu32
                                ": this version connects the ranks of one machine only",
                                rank, mesh->rank);
    return ZCTA_OK;
}

zcta_status zc_mesh_connect(struct zc_mesh *mesh, const struct zc_bootstrap *bootstrap,
                            int listener)
{
    struct connecting connecting = {.mesh = mesh, .bootstrap = bootstrap};
    zcta_status status = check_hosts(mesh, bootstrap);

    if (status != ZCTA_OK)
        return status;
    connecting.lobby = (struct zc_lobby){.listener = listener,
                                         .purpose = ZC_WIRE_MESH,
                                         .rank = mesh->rank,
                                         .rank_count = mesh->rank_count,
                                         .key = bootstrap->key,
                                         .judge = receive_peer,
                                         .judge_data = &connecting};
    connecting.calls = calloc(mesh->rank_count, sizeof *connecting.calls);
    if (connecting.calls != NULL && zc_lobby_open(&connecting.lobby))
        connecting.set = calloc(zc_lobby_poll_limit(&connecting.lobby) + mesh->rank_count,
                                sizeof *connecting.set);
    if (connecting.set == NULL)
        status = zc_fail(mesh->diag, ZCTA_ERR_NO_MEMORY, "zcta_init", 0,
                         "no memory to connect %" PRIu32 " ranks", mesh->rank_count);
    else
        status = connect_all(&connecting);
    for (uint32_t rank = 0; connecting.calls != NULL && rank < mesh->rank; rank++)
        if (connecting.calls[rank].open)
            close(connecting.calls[rank].caller.fd);
    zc_lobby_close(&connecting.lobby);
    free(connecting.set);
    free(connecting.calls);
    return status;
}
