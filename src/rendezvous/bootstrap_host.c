/* Rank 0's side of the TCP bootstrap: seats the ranks that come to the root's port, then gives all
 * of them the table. One poll loop serves everybody, so nobody who connects can delay a rank. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "rendezvous/bootstrap.h"
#include "rendezvous/handshake.h"
#include "rendezvous/net.h"
#include "rendezvous/text.h"

#define REJOIN_NS UINT64_C(1000000000)

enum seat_state {
    SEAT_EMPTY,
    SEAT_TAKEN,
    SEAT_LEFT, /* its connection closed: it comes again within REJOIN_NS, or it is dead */
};

struct seat {
    enum seat_state state;
    int fd;
    uint64_t rejoin_by;
    uint8_t session[ZC_WIRE_SESSION];
};

struct reception {
    struct zc_bootstrap *bootstrap;
    struct zc_lobby lobby;
    struct seat *seats;
    struct pollfd *set;
    uint32_t taken;
};

static enum zc_verdict_code seat_guest(void *data, int fd, const struct zc_hello *hello,
                                       const uint8_t session[ZC_WIRE_SESSION])
{
    struct reception *reception = data;
    struct seat *seat = &reception->seats[hello->rank];

    if (seat->state == SEAT_TAKEN)
        return ZC_VERDICT_DUPLICATE;
    seat->state = SEAT_TAKEN;
    seat->fd = fd;
    memcpy(seat->session, session, sizeof seat->session);
    reception->bootstrap->table[hello->rank] = hello->address;
    reception->taken++;
    return ZC_VERDICT_WELCOME;
}

static void leave_seat(struct reception *reception, struct seat *seat)
{
    close(seat->fd);
    seat->fd = -1;
    seat->state = SEAT_LEFT;
    seat->rejoin_by = zc_deadline_in(REJOIN_NS);
    reception->taken--;
}

/* A seated rank says nothing before it has the table: whatever can be read is its end. */
static void watch_seats(struct reception *reception, const struct pollfd *set)
{
    size_t at = 0;

    for (uint32_t rank = 1; rank < reception->bootstrap->job->rank_count; rank++) {
        struct seat *seat = &reception->seats[rank];

        if (seat->state == SEAT_TAKEN && set[at++].revents != 0)
            leave_seat(reception, seat);
    }
}

/* Tells the seated ranks why there will be no table, so that all ranks name the same one. */
static void tell_seated(struct reception *reception, enum zc_verdict_code code, uint32_t rank,
                        uint32_t count)
{
    const struct zc_verdict verdict = {.code = code, .rank = rank, .count = count};
    uint8_t bytes[ZC_WIRE_VERDICT];

    for (uint32_t i = 1; i < reception->bootstrap->job->rank_count; i++) {
        const struct seat *seat = &reception->seats[i];

        if (seat->state != SEAT_TAKEN)
            continue;
        zc_wire_verdict_seal(bytes, &verdict, seat->session, reception->bootstrap->key);
        (void)zc_net_send_small(seat->fd, bytes, sizeof bytes);
    }
}

static zcta_status fail_missing(struct reception *reception)
{
    struct zc_bootstrap *bootstrap = reception->bootstrap;
    const uint32_t rank_count = bootstrap->job->rank_count;
    const struct zc_lobby *lobby = &reception->lobby;
    uint32_t *missing = calloc(rank_count, sizeof *missing);
    uint32_t count = 0;
    char who[120], within[24], strangers[96] = "";
    zcta_status status;

    if (missing == NULL)
        return zc_fail(bootstrap->diag, ZCTA_ERR_NO_MEMORY, "zcta_init", 0,
                       "no memory to list the ranks that did not come");
    for (uint32_t rank = 1; rank < rank_count; rank++)
        if (reception->seats[rank].state != SEAT_TAKEN)
            missing[count++] = rank;
    zc_text_ranks(who, missing, count);
    zc_text_seconds(within, bootstrap->deadline - bootstrap->start);
    if (lobby->strangers > 0)
        snprintf(strangers, sizeof strangers,
                 "; %" PRIu64 " connections there did not prove the job's token", lobby->strangers);
    tell_seated(reception, ZC_VERDICT_MISSING, missing[0], count);
    status = zc_fail_rank(bootstrap->diag, ZCTA_ERR_TIMEOUT, missing[0], "zcta_init", 0,
                          "%s did not come to rank 0 at %s within %s: were all %" PRIu32
                          " ranks started with the same root and token?%s%s",
                          who, bootstrap->job->root, within, rank_count, strangers,
                          lobby->starved ? "; rank 0 ran out of file descriptors, raise `ulimit -n`"
                                         : "");
    free(missing);
    return status;
}

static zcta_status check_departed(struct reception *reception)
{
    struct zc_bootstrap *bootstrap = reception->bootstrap;

    for (uint32_t rank = 1; rank < bootstrap->job->rank_count; rank++) {
        const struct seat *seat = &reception->seats[rank];

        if (seat->state != SEAT_LEFT || zc_time_left_ns(seat->rejoin_by) > 0)
            continue;
        tell_seated(reception, ZC_VERDICT_DIED, rank, 1);
        return zc_fail_rank(bootstrap->diag, ZCTA_ERR_RENDEZVOUS, rank, "zcta_init", 0,
                            "rank %" PRIu32 " (pid %" PRId64
                            ") came and ended before all ranks had come: see its own output",
                            rank, bootstrap->table[rank].pid);
    }
    return ZCTA_OK;
}

/* Rank 0 gives up a little before the deadline that all ranks have, so that the others hear from it
 * who is missing and do not have to guess. */
static uint64_t patience(const struct zc_bootstrap *bootstrap)
{
    const uint64_t share = (bootstrap->deadline - bootstrap->start) / 20;

    return bootstrap->deadline - (share < 250000000u ? share : 250000000u);
}

static zcta_status receive_all(struct reception *reception)
{
    const uint32_t rank_count = reception->bootstrap->job->rank_count;
    const uint64_t until = patience(reception->bootstrap);
    zcta_status status = ZCTA_OK;

    while (status == ZCTA_OK && reception->taken + 1 < rank_count) {
        int timeout_ms = zc_net_poll_ms(until, 500);
        const size_t guests = zc_lobby_poll_set(&reception->lobby, reception->set, &timeout_ms);
        size_t count = guests;

        if (zc_time_left_ns(until) == 0)
            return fail_missing(reception);
        for (uint32_t rank = 1; rank < rank_count; rank++)
            if (reception->seats[rank].state == SEAT_TAKEN)
                reception->set[count++] =
                    (struct pollfd){.fd = reception->seats[rank].fd, .events = POLLIN};
        zc_net_poll(reception->set, count, timeout_ms);
        /* Seats before the lobby: serving that one changes who is seated. */
        watch_seats(reception, reception->set + guests);
        zc_lobby_serve(&reception->lobby, reception->set);
        status = check_departed(reception);
    }
    return status;
}

static zcta_status send_table(struct reception *reception)
{
    struct zc_bootstrap *bootstrap = reception->bootstrap;
    const uint32_t rank_count = bootstrap->job->rank_count;
    const size_t table_bytes = (size_t)rank_count * ZC_WIRE_ADDRESS;
    const size_t bytes = ZC_WIRE_VERDICT + zc_bootstrap_table_bytes(bootstrap);
    const struct zc_verdict verdict = {.code = ZC_VERDICT_TABLE, .count = rank_count};
    uint8_t *message = malloc(bytes);
    zcta_status status = ZCTA_OK;

    if (message == NULL)
        return zc_fail(bootstrap->diag, ZCTA_ERR_NO_MEMORY, "zcta_init", 0,
                       "no memory for the addresses of %" PRIu32 " ranks", rank_count);
    for (uint32_t rank = 0; rank < rank_count; rank++)
        zc_wire_address_encode(message + ZC_WIRE_VERDICT + (size_t)rank * ZC_WIRE_ADDRESS,
                               &bootstrap->table[rank]);
    for (uint32_t rank = 1; rank < rank_count && status == ZCTA_OK; rank++) {
        const struct seat *seat = &reception->seats[rank];
        int error;

        zc_wire_verdict_seal(message, &verdict, seat->session, bootstrap->key);
        zc_wire_table_mac(message + ZC_WIRE_VERDICT + table_bytes, message + ZC_WIRE_VERDICT,
                          table_bytes, seat->session, bootstrap->key);
        error = zc_net_write(seat->fd, message, bytes, bootstrap->deadline);
        if (error != 0)
            status = zc_fail_rank(bootstrap->diag,
                                  error == ETIMEDOUT ? ZCTA_ERR_TIMEOUT : ZCTA_ERR_RENDEZVOUS, rank,
                                  "zcta_init", error,
                                  "rank %" PRIu32 " (pid %" PRId64
                                  ") did not take the list of all ranks from rank 0: %s",
                                  rank, bootstrap->table[rank].pid, strerror(error));
    }
    free(message);
    return status;
}

static zcta_status open_listener(const struct zc_bootstrap *bootstrap, int *listener)
{
    const struct zc_job *job = bootstrap->job;
    int error;

    if (job->listen_fd >= 0) {
        const int flags = fcntl(job->listen_fd, F_GETFL);

        if (flags < 0 || fcntl(job->listen_fd, F_SETFL, flags | O_NONBLOCK) != 0)
            return zc_fail(bootstrap->diag, ZCTA_ERR_SYSTEM, "zcta_init", errno,
                           "the launcher's listening socket cannot be used: %s", strerror(errno));
        *listener = job->listen_fd;
        return ZCTA_OK;
    }
    error = zc_net_listen_tcp(&bootstrap->root, listener);
    if (error == EMFILE || error == ENFILE)
        return zc_fail(bootstrap->diag, ZCTA_ERR_SYSTEM, "zcta_init", error,
                       "rank 0 cannot open a socket: %s; raise `ulimit -n`", strerror(error));
    if (error != 0)
        return zc_fail(bootstrap->diag, ZCTA_ERR_RENDEZVOUS, "zcta_init", error,
                       "rank 0 cannot listen at %s: %s (errno %d); end the program that has this "
                       "port, or set ZEROCTA_PORT to a free one on all ranks",
                       job->root, strerror(error), error);
    return ZCTA_OK;
}

zcta_status zc_bootstrap_host(struct zc_bootstrap *bootstrap)
{
    const struct zc_job *job = bootstrap->job;
    struct reception reception = {.bootstrap = bootstrap};
    struct zc_endpoint here;
    int listener = -1;
    zcta_status status = open_listener(bootstrap, &listener);

    if (status != ZCTA_OK)
        return status;
    status = zc_bootstrap_open_port(bootstrap, zc_net_here(listener, &here) ? &here : NULL);
    if (status != ZCTA_OK)
        goto out;
    reception.lobby = (struct zc_lobby){.listener = listener,
                                        .purpose = ZC_WIRE_BOOTSTRAP,
                                        .rank = 0,
                                        .rank_count = job->rank_count,
                                        .key = bootstrap->key,
                                        .judge = seat_guest,
                                        .judge_data = &reception};
    reception.seats = calloc(job->rank_count, sizeof *reception.seats);
    if (reception.seats != NULL && zc_lobby_open(&reception.lobby))
        reception.set =
            calloc(zc_lobby_poll_limit(&reception.lobby) + job->rank_count, sizeof *reception.set);
    if (reception.set == NULL) {
        status = zc_fail(bootstrap->diag, ZCTA_ERR_NO_MEMORY, "zcta_init", 0,
                         "no memory to receive %" PRIu32 " ranks", job->rank_count);
        goto out;
    }
    bootstrap->table[0] = bootstrap->mine;
    status = receive_all(&reception);
    if (status == ZCTA_OK)
        status = send_table(&reception);

out:
    for (uint32_t rank = 1; reception.seats != NULL && rank < job->rank_count; rank++)
        if (reception.seats[rank].state == SEAT_TAKEN)
            close(reception.seats[rank].fd);
    zc_lobby_close(&reception.lobby);
    free(reception.set);
    free(reception.seats);
    if (listener != job->listen_fd)
        close(listener);
    return status;
}
