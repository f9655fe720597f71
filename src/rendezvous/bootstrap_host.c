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
#include "base/fd.h"
#include "base/patience.h"
#include "rendezvous/bootstrap.h"
#include "rendezvous/claim.h"
#include "rendezvous/handshake.h"
#include "rendezvous/net.h"
#include "rendezvous/text.h"

#define REJOIN_NS  UINT64_C(1000000000)
#define STARVED_NS UINT64_C(3000000000)

enum seat_state {
    SEAT_EMPTY,
    SEAT_TAKEN,
    SEAT_LEFT, /* its connection closed: it comes again within REJOIN_NS, or it is dead */
    SEAT_TOLD, /* it knows that the job has failed */
};

/* Its connection is bootstrap->lines[rank]. */
struct seat {
    enum seat_state state;
    uint64_t rejoin_by;
};

struct reception {
    struct zc_bootstrap *bootstrap;
    struct zc_acceptor acceptor;
    struct seat *seats;
    struct pollfd *set;
    uint32_t taken;
    uint64_t starved_until; /* 0: there are descriptors for who comes */
    zcta_status failure;    /* of what a connection or a seated rank brought, already said */
    bool said;              /* for whom it waits */
};

static void leave_seat(struct reception *reception, uint32_t rank)
{
    struct zc_line *line = &reception->bootstrap->lines[rank];
    struct seat *seat = &reception->seats[rank];

    close(line->fd);
    line->fd = -1;
    seat->state = SEAT_LEFT;
    seat->rejoin_by = zc_deadline_in(REJOIN_NS);
    reception->taken--;
}

/* A seated rank says nothing before it has the table, unless it fails: whatever else can be read is
 * its end. */
static void hear_seated(struct reception *reception, uint32_t rank)
{
    struct zc_bootstrap *bootstrap = reception->bootstrap;
    zcta_error error;

    if (zc_line_hear(&bootstrap->lines[rank], bootstrap->key, &error) != ZC_NEWS_FAILED)
        leave_seat(reception, rank);
    else if (reception->failure == ZCTA_OK)
        reception->failure = zc_bootstrap_fail_as(bootstrap, &error);
}

static bool same_instance(const struct zc_address *one, const struct zc_address *other)
{
    return memcmp(one->name, other->name, sizeof one->name) == 0;
}

/* The seat is free, or becomes so: whoever had it has gone, or comes again because its connection
 * was cut. Else there are two of one rank, and no way to tell which of them belongs to the others:
 * whoever came first may be the wrong one. */
static bool is_free(struct reception *reception, const struct zc_hello *hello)
{
    struct zc_bootstrap *bootstrap = reception->bootstrap;
    const struct zc_address *seated = &bootstrap->table[hello->rank];
    const struct zc_line *line = &bootstrap->lines[hello->rank];
    struct pollfd one = {.fd = line->fd, .events = POLLIN};

    if (reception->seats[hello->rank].state != SEAT_TAKEN)
        return true;
    if (same_instance(seated, &hello->address))
        leave_seat(reception, hello->rank);
    else if (zc_net_poll(&one, 1, 0) > 0)
        hear_seated(reception, hello->rank);
    if (reception->seats[hello->rank].state != SEAT_TAKEN)
        return true;
    if (reception->failure == ZCTA_OK)
        reception->failure = zc_claim_fail(bootstrap->diag, hello->rank, bootstrap->job->root,
                                           seated->pid, hello->address.pid);
    return false;
}

static enum zc_reply_code seat_connection(void *data, int fd, const struct zc_hello *hello,
                                          const uint8_t session[ZC_WIRE_SESSION])
{
    struct reception *reception = data;
    struct zc_bootstrap *bootstrap = reception->bootstrap;
    struct zc_line *line = &bootstrap->lines[hello->rank];

    if (hello->address.version != bootstrap->mine.version) {
        if (reception->failure == ZCTA_OK)
            reception->failure = zc_bootstrap_fail_version(
                bootstrap, hello->rank, hello->address.version, bootstrap->mine.version);
        return ZC_REPLY_VERSION;
    }
    if (!is_free(reception, hello))
        return ZC_REPLY_DUPLICATE;
    reception->seats[hello->rank].state = SEAT_TAKEN;
    *line = (struct zc_line){.fd = fd, .rank = hello->rank};
    memcpy(line->session, session, sizeof line->session);
    bootstrap->table[hello->rank] = hello->address;
    reception->taken++;
    reception->starved_until = 0;
    return ZC_REPLY_WELCOME;
}

static void watch_seats(struct reception *reception, const struct pollfd *set)
{
    size_t at = 0;

    for (uint32_t rank = 1; rank < reception->bootstrap->job->rank_count; rank++)
        if (reception->seats[rank].state == SEAT_TAKEN && set[at++].revents != 0)
            hear_seated(reception, rank);
}

/* Tells the seated ranks why there will be no table, so that all ranks name the same one. */
static void tell_seated(struct reception *reception, enum zc_reply_code code, uint32_t rank,
                        uint32_t count)
{
    const struct zc_reply reply = {.code = code, .rank = rank, .count = count};
    uint8_t bytes[ZC_WIRE_REPLY];

    for (uint32_t i = 1; i < reception->bootstrap->job->rank_count; i++) {
        struct zc_line *line = &reception->bootstrap->lines[i];

        if (reception->seats[i].state != SEAT_TAKEN)
            continue;
        zc_wire_reply_seal(bytes, &reply, line->session, reception->bootstrap->key);
        (void)zc_net_send_small(line->fd, bytes, sizeof bytes);
        close(line->fd);
        line->fd = -1;
    }
}

/* Who has not come; returns the first of them, and ZCTA_NO_RANK without memory. */
static uint32_t find_missing(const struct reception *reception, char who[120], uint32_t *count)
{
    const uint32_t rank_count = reception->bootstrap->job->rank_count;
    uint32_t *missing = calloc(rank_count, sizeof *missing);
    uint32_t first;

    *count = 0;
    if (missing == NULL)
        return ZCTA_NO_RANK;
    /* Who came and left has given up before this one did, and not for a reason of its own: it is
     * named only if nobody else is missing. */
    for (enum seat_state state = SEAT_EMPTY; *count == 0 && state <= SEAT_LEFT; state++)
        for (uint32_t rank = 1; state != SEAT_TAKEN && rank < rank_count; rank++)
            if (reception->seats[rank].state == state)
                missing[(*count)++] = rank;
    zc_text_ranks(who, missing, *count);
    first = missing[0];
    free(missing);
    return first;
}

static zcta_status fail_missing(struct reception *reception)
{
    struct zc_bootstrap *bootstrap = reception->bootstrap;
    const struct zc_acceptor *acceptor = &reception->acceptor;
    char who[120], within[24], strangers[96] = "";
    uint32_t count;
    const uint32_t first = find_missing(reception, who, &count);

    if (first == ZCTA_NO_RANK)
        return zc_fail(bootstrap->diag, ZCTA_ERR_NO_MEMORY, "zcta_init", 0,
                       "no memory to list the ranks that did not come");
    zc_text_seconds(within, (reception->starved_until == 0 ? bootstrap->deadline : zc_now_ns()) -
                                bootstrap->start);
    if (acceptor->strangers > 0)
        snprintf(strangers, sizeof strangers,
                 "; %" PRIu64 " connections there did not prove the job's token",
                 acceptor->strangers);
    tell_seated(reception, ZC_REPLY_MISSING, first, count);
    return zc_fail_rank(
        bootstrap->diag, ZCTA_ERR_TIMEOUT, first, "zcta_init", 0,
        "%s did not come to rank 0 at %s within %s: were all %" PRIu32
        " ranks started with the same root and token?%s%s",
        who, bootstrap->job->root, within, bootstrap->job->rank_count, strangers,
        acceptor->starved ? "; rank 0 ran out of file descriptors, raise `ulimit -n`" : "");
}

static zcta_status check_departed(struct reception *reception)
{
    struct zc_bootstrap *bootstrap = reception->bootstrap;

    for (uint32_t rank = 1; rank < bootstrap->job->rank_count; rank++) {
        const struct seat *seat = &reception->seats[rank];

        if (seat->state != SEAT_LEFT || zc_time_left_ns(seat->rejoin_by) > 0)
            continue;
        tell_seated(reception, ZC_REPLY_DIED, rank, 1);
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

/* Ranks that are threads of one process belong together, whatever else says so. */
static bool is_one_process(const struct zc_bootstrap *bootstrap)
{
    bool one = true;

    for (uint32_t rank = 1; rank < bootstrap->job->rank_count; rank++)
        one = one && bootstrap->table[rank].pid == bootstrap->mine.pid &&
              memcmp(bootstrap->table[rank].host, bootstrap->mine.host,
                     sizeof bootstrap->mine.host) == 0;
    return one;
}

/* For whom rank 0 waits: once, long before the deadline. */
static void say_missing(struct reception *reception)
{
    const struct zc_bootstrap *bootstrap = reception->bootstrap;
    const uint64_t longest = bootstrap->deadline - bootstrap->start;
    const uint64_t waited = zc_now_ns() - bootstrap->start;
    char who[120];
    uint32_t count;

    if (reception->said || waited < zc_first_word_ns(longest))
        return;
    reception->said = true;
    if (find_missing(reception, who, &count) != ZCTA_NO_RANK)
        zc_say_waiting(bootstrap->diag, who, "zcta_init", waited, longest);
}

/* One look at the door and at who is seated. */
static zcta_status receive_some(struct reception *reception, uint64_t until)
{
    struct zc_bootstrap *bootstrap = reception->bootstrap;
    int timeout_ms = zc_net_poll_ms(until, 500);
    const size_t connections =
        zc_acceptor_poll_set(&reception->acceptor, reception->set, &timeout_ms);
    size_t count = connections;
    struct pollfd *claim;

    /* Seats behind the acceptor: if one rank's end and its successor are seen at once, the end is.
     */
    for (uint32_t rank = 1; rank < bootstrap->job->rank_count; rank++)
        if (reception->seats[rank].state == SEAT_TAKEN)
            reception->set[count++] =
                (struct pollfd){.fd = bootstrap->lines[rank].fd, .events = POLLIN};
    claim = &reception->set[count++];
    *claim = (struct pollfd){.fd = bootstrap->claim_fd, .events = POLLIN};
    zc_net_poll(reception->set, count, timeout_ms);
    if (claim->revents != 0)
        reception->failure = zc_claim_look(bootstrap->job, bootstrap->diag, bootstrap->claim_fd);
    /* Seats before the acceptor: serving that one changes who is seated. */
    watch_seats(reception, reception->set + connections);
    zc_acceptor_serve(&reception->acceptor, reception->set);
    return reception->failure != ZCTA_OK ? reception->failure : check_departed(reception);
}

/* Ranks are waiting at the door, and there have been no descriptors for them for a while. */
static bool is_starved(struct reception *reception)
{
    int fd;

    if (reception->acceptor.starved && reception->starved_until == 0)
        reception->starved_until = zc_deadline_in(STARVED_NS);
    if (reception->starved_until == 0 || zc_time_left_ns(reception->starved_until) > 0)
        return false;
    fd = zc_fd_lift(dup(reception->acceptor.listener));
    if (fd >= 0) {
        close(fd);
        reception->starved_until = 0;
    }
    return fd < 0;
}

/* Everybody's seat is taken, perhaps by ranks of two launches. Where nothing names the launch,
 * those of the other one are on their way: for a while rank 0 looks whether one comes. */
static zcta_status receive_all(struct reception *reception)
{
    const struct zc_job *job = reception->bootstrap->job;
    struct zc_limit limit = {.at = patience(reception->bootstrap)};
    uint64_t settled_at = UINT64_MAX;
    zcta_status status = ZCTA_OK;

    while (status == ZCTA_OK) {
        const bool complete = reception->taken + 1 == job->rank_count;

        if (complete && (job->settle_ns == 0 || is_one_process(reception->bootstrap) ||
                         zc_time_left_ns(settled_at) == 0))
            return ZCTA_OK;
        if (complete && settled_at == UINT64_MAX)
            settled_at = zc_deadline_in(job->settle_ns);
        else if (!complete)
            settled_at = UINT64_MAX;
        if (!complete && (zc_limit_is_over(&limit) || is_starved(reception)))
            return fail_missing(reception);
        if (!complete)
            say_missing(reception);
        status = receive_some(reception, complete ? settled_at : limit.at);
    }
    return status;
}

static uint32_t tell_failure(struct reception *reception, const zcta_error *why)
{
    const struct zc_bootstrap *bootstrap = reception->bootstrap;
    uint32_t told = 0;

    for (uint32_t rank = 1; rank < bootstrap->job->rank_count; rank++) {
        struct zc_line *line = &bootstrap->lines[rank];

        if (reception->seats[rank].state == SEAT_TAKEN) {
            zc_line_tell(line, bootstrap->key, why);
            close(line->fd);
            line->fd = -1;
            reception->seats[rank].state = SEAT_TOLD;
        }
        told += reception->seats[rank].state == SEAT_TOLD;
    }
    return told;
}

/* The job has failed. Who has not come yet would look for rank 0 until its deadline, which may be
 * far: for a moment rank 0 stays to tell. Where two launches met, those it has told may be of the
 * other one, and its own are still to come; and another rank 0 has to find this one's claim. */
static zcta_status linger(struct reception *reception, zcta_status status)
{
    struct zc_bootstrap *bootstrap = reception->bootstrap;
    const uint64_t soon = zc_deadline_in(bootstrap->job->linger_ns);
    const uint64_t until = soon < bootstrap->deadline ? soon : bootstrap->deadline;
    zcta_error why;

    zc_diag_last(bootstrap->diag, &why);
    reception->failure = status;
    while ((tell_failure(reception, &why) + 1 < bootstrap->job->rank_count ||
            why.native == ZC_CLAIM_TAKEN) &&
           zc_time_left_ns(until) > 0)
        (void)receive_some(reception, until);
    zc_diag_repeat(bootstrap->diag, &why);
    return status;
}

static zcta_status send_table(struct reception *reception)
{
    struct zc_bootstrap *bootstrap = reception->bootstrap;
    const uint32_t rank_count = bootstrap->job->rank_count;
    const size_t table_bytes = (size_t)rank_count * ZC_WIRE_ADDRESS;
    const size_t bytes = ZC_WIRE_REPLY + zc_bootstrap_table_bytes(bootstrap);
    const struct zc_reply reply = {.code = ZC_REPLY_TABLE, .count = rank_count};
    uint8_t *message = malloc(bytes);
    zcta_status status = ZCTA_OK;

    if (message == NULL)
        return zc_fail(bootstrap->diag, ZCTA_ERR_NO_MEMORY, "zcta_init", 0,
                       "no memory for the addresses of %" PRIu32 " ranks", rank_count);
    for (uint32_t rank = 0; rank < rank_count; rank++)
        zc_wire_address_encode(message + ZC_WIRE_REPLY + (size_t)rank * ZC_WIRE_ADDRESS,
                               &bootstrap->table[rank]);
    for (uint32_t rank = 1; rank < rank_count && status == ZCTA_OK; rank++) {
        const struct zc_line *line = &bootstrap->lines[rank];
        int error;

        zc_wire_reply_seal(message, &reply, line->session, bootstrap->key);
        zc_wire_table_mac(message + ZC_WIRE_REPLY + table_bytes, message + ZC_WIRE_REPLY,
                          table_bytes, line->session, bootstrap->key);
        error = zc_net_write(line->fd, message, bytes, bootstrap->deadline);
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
    reception.acceptor = (struct zc_acceptor){.listener = listener,
                                              .purpose = ZC_WIRE_BOOTSTRAP,
                                              .rank = 0,
                                              .rank_count = job->rank_count,
                                              .key = bootstrap->key,
                                              .decide = seat_connection,
                                              .decide_data = &reception};
    status = zc_bootstrap_open_lines(bootstrap, job->rank_count);
    if (status != ZCTA_OK)
        goto out;
    reception.seats = calloc(job->rank_count, sizeof *reception.seats);
    if (reception.seats != NULL && zc_acceptor_open(&reception.acceptor))
        reception.set = calloc(zc_acceptor_poll_limit(&reception.acceptor) + job->rank_count,
                               sizeof *reception.set);
    if (reception.set == NULL) {
        status = zc_fail(bootstrap->diag, ZCTA_ERR_NO_MEMORY, "zcta_init", 0,
                         "no memory to receive %" PRIu32 " ranks", job->rank_count);
        goto out;
    }
    bootstrap->table[0] = bootstrap->mine;
    status = bootstrap->declines ? bootstrap->failed : receive_all(&reception);
    if (status == ZCTA_OK && job->nameless && !is_one_process(bootstrap))
        zc_log(bootstrap->diag, ZC_LOG_WARN,
               "nothing names this launch: ranks of another one that uses %s could be taken for "
               "its own; set ZEROCTA_JOB, to another value for each launch",
               job->root);
    if (status != ZCTA_OK)
        status = linger(&reception, status);
    if (status == ZCTA_OK)
        status = send_table(&reception);
    if (status == ZCTA_OK)
        bootstrap->awaited = job->rank_count - 1;

out:
    zc_acceptor_close(&reception.acceptor);
    free(reception.set);
    free(reception.seats);
    if (listener != job->listen_fd)
        close(listener);
    return status;
}
