/* The other ranks' side of the TCP bootstrap: finds rank 0, proves the key both ways, takes the
 * table. Trusts nothing that answers at the port before it has proved the key. */
#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/patience.h"
#include "rendezvous/bootstrap.h"
#include "rendezvous/claim.h"
#include "rendezvous/handshake.h"
#include "rendezvous/net.h"
#include "rendezvous/text.h"

#define ATTEMPT_NS     UINT64_C(5000000000) /* one connection's greeting and reply */
#define FIRST_PAUSE_NS UINT64_C(500000)
#define LAST_PAUSE_NS  UINT64_C(50000000)

/* What the attempts so far have met, for the sentence that is said in the end. */
struct search {
    struct zc_bootstrap *bootstrap;
    int last_error;  /* of connect(), 0 once something answered */
    const char *odd; /* what answered instead of rank 0, or NULL */
    bool said;       /* that rank 0 does not answer */
};

static zcta_status fail_refused(const struct search *search, const struct zc_reply *reply)
{
    const struct zc_bootstrap *bootstrap = search->bootstrap;
    const struct zc_job *job = bootstrap->job;

    switch (reply->code) {
    case ZC_REPLY_TOKEN:
        return zc_fail(bootstrap->diag, ZCTA_ERR_RENDEZVOUS, "zcta_init", 0,
                       "rank 0 at %s refused this rank's token: %s, or another job has this port; "
                       "give all ranks of the job the same token, or set ZEROCTA_PORT to another "
                       "port on all of them",
                       job->root,
                       job->has_token ? "rank 0 was started with another one"
                                      : "rank 0 has one and this rank has none, or they were "
                                        "started as different jobs");
    case ZC_REPLY_RANK_COUNT:
        return zc_fail(bootstrap->diag, ZCTA_ERR_RENDEZVOUS, "zcta_init", 0,
                       "rank 0 at %s was started with %" PRIu32 " ranks, rank %" PRIu32
                       " with %" PRIu32 ": start all ranks with the same number",
                       job->root, reply->count, job->rank, job->rank_count);
    case ZC_REPLY_DUPLICATE:
        return zc_claim_fail(bootstrap->diag, job->rank, job->root, 0, 0);
    case ZC_REPLY_VERSION:
        return zc_bootstrap_fail_version(bootstrap, job->rank, bootstrap->mine.version,
                                         reply->count);
    case ZC_REPLY_WELCOME:
    case ZC_REPLY_TARGET:
    case ZC_REPLY_TABLE:
    case ZC_REPLY_MISSING:
    case ZC_REPLY_DIED:
    case ZC_REPLY_READY:
    case ZC_REPLY_FAILED:
    case ZC_REPLY_CODES:
        break;
    }
    return zc_fail(bootstrap->diag, ZCTA_ERR_RENDEZVOUS, "zcta_init", reply->code,
                   "rank 0 at %s gave an answer that makes no sense here (%d): run the same "
                   "zerocta on all ranks",
                   job->root, (int)reply->code);
}

/* That this rank gives up is no news for the others: it leaves, and rank 0 says who is missing. */
static void leave(struct zc_bootstrap *bootstrap)
{
    close(bootstrap->lines[0].fd);
    bootstrap->lines[0].fd = -1;
}

static zcta_status fail_lost(struct zc_bootstrap *bootstrap, int error)
{
    char within[24];

    leave(bootstrap);
    zc_text_seconds(within, bootstrap->deadline - bootstrap->start);
    if (error == ETIMEDOUT)
        return zc_fail_rank(bootstrap->diag, ZCTA_ERR_TIMEOUT, 0, "zcta_init", 0,
                            "rank 0 at %s took this rank in but did not send the list of all ranks "
                            "within %s: some rank is missing, rank 0's output names it",
                            bootstrap->job->root, within);
    return zc_fail_rank(bootstrap->diag, ZCTA_ERR_RENDEZVOUS, 0, "zcta_init", error,
                        "rank 0 at %s ended before all ranks had come: see its own output",
                        bootstrap->job->root);
}

static zcta_status fail_told(const struct zc_bootstrap *bootstrap, const struct zc_reply *reply)
{
    char within[24], more[48] = "";

    if (reply->code == ZC_REPLY_DIED)
        return zc_fail_rank(bootstrap->diag, ZCTA_ERR_RENDEZVOUS, reply->rank, "zcta_init", 0,
                            "rank %" PRIu32 " came to rank 0 and ended before all ranks had come: "
                            "see its own output",
                            reply->rank);
    zc_text_seconds(within, bootstrap->deadline - bootstrap->start);
    if (reply->count > 1)
        snprintf(more, sizeof more, " and %" PRIu32 " more", reply->count - 1);
    return zc_fail_rank(bootstrap->diag, ZCTA_ERR_TIMEOUT, reply->rank, "zcta_init", 0,
                        "rank %" PRIu32 "%s did not come to rank 0 at %s within %s, says rank 0",
                        reply->rank, more, bootstrap->job->root, within);
}

/* Rank 0 has said that an error follows, which may be any rank's. */
static zcta_status take_failure(struct zc_bootstrap *bootstrap, const struct zc_caller *caller)
{
    uint8_t body[ZC_WIRE_FAILURE];
    zcta_error told;
    const int error = zc_net_read(caller->fd, body, sizeof body, bootstrap->deadline);

    if (error != 0 || zc_wire_failure_open(body, caller->session, caller->key, &told) != ZC_WIRE_OK)
        return fail_lost(bootstrap, error != 0 ? error : ECONNRESET);
    return zc_bootstrap_fail_as(bootstrap, &told);
}

/* After the welcome: one more reply, and if that says so the table. */
static zcta_status take_table(struct zc_bootstrap *bootstrap, const struct zc_caller *caller)
{
    const uint32_t rank_count = bootstrap->job->rank_count;
    const size_t bytes = zc_bootstrap_table_bytes(bootstrap), body = bytes - ZC_WIRE_MAC;
    uint8_t head[ZC_WIRE_REPLY], mac[ZC_WIRE_MAC];
    uint8_t *table = NULL;
    struct zc_reply reply;
    zcta_status status = zc_bootstrap_wait(bootstrap, caller->fd, bootstrap->deadline);
    bool good;
    int error;

    if (status != ZCTA_OK)
        return status;
    error = zc_net_read(caller->fd, head, sizeof head, bootstrap->deadline);
    if (error != 0)
        return fail_lost(bootstrap, error);
    if (zc_wire_reply_open(head, caller->session, caller->key, &reply) != ZC_WIRE_OK)
        reply.code = ZC_REPLY_CODES;
    if (reply.code == ZC_REPLY_MISSING || reply.code == ZC_REPLY_DIED)
        return fail_told(bootstrap, &reply);
    if (reply.code == ZC_REPLY_FAILED)
        return take_failure(bootstrap, caller);
    table = malloc(bytes);
    if (table == NULL)
        return zc_fail(bootstrap->diag, ZCTA_ERR_NO_MEMORY, "zcta_init", 0,
                       "no memory for the addresses of %" PRIu32 " ranks", rank_count);
    good = reply.code == ZC_REPLY_TABLE && reply.count == rank_count;
    error = good ? zc_net_read(caller->fd, table, bytes, bootstrap->deadline) : 0;
    if (error != 0) {
        status = fail_lost(bootstrap, error);
        goto out;
    }
    if (good) {
        zc_wire_table_mac(mac, table, body, caller->session, caller->key);
        good = sodium_memcmp(mac, table + body, sizeof mac) == 0;
    }
    for (uint32_t rank = 0; good && rank < rank_count; rank++)
        good = zc_wire_address_decode(table + (size_t)rank * ZC_WIRE_ADDRESS,
                                      &bootstrap->table[rank]) == ZC_WIRE_OK;
    bootstrap->awaited = 1;
    status = good ? ZCTA_OK
                  : zc_fail_rank(bootstrap->diag, ZCTA_ERR_RENDEZVOUS, 0, "zcta_init", 0,
                                 "rank 0 at %s sent a list of ranks that is not one: run the same "
                                 "zerocta on all ranks",
                                 bootstrap->job->root);
out:
    free(table);
    return status;
}

/* An attempt that was cut short says less than one that was answered. */
static void note_unless_known(struct search *search, const char *odd)
{
    if (search->odd == NULL)
        search->odd = odd;
}

/* What came of one handshake. Sets *settled unless it is worth another try. */
static zcta_status settle(struct search *search, const struct zc_caller *caller, bool *settled)
{
    struct zc_bootstrap *bootstrap = search->bootstrap;
    char theirs[16], ours[16];

    switch (caller->state) {
    case ZC_CALLER_WELCOME:
        *settled = true;
        return bootstrap->declines ? ZCTA_OK : take_table(bootstrap, caller);
    case ZC_CALLER_REFUSED:
        *settled = true;
        return fail_refused(search, &caller->reply);
    case ZC_CALLER_VERSION:
        *settled = true;
        zc_text_version(theirs, zc_wire_greeting_version(caller->greeting));
        zc_text_version(ours, bootstrap->mine.version);
        return zc_fail(bootstrap->diag, ZCTA_ERR_RENDEZVOUS, "zcta_init", 0,
                       "what answers at %s is zerocta %s and rank %" PRIu32 " runs zerocta %s: run "
                       "the same version on all ranks, or set ZEROCTA_PORT to another port on all "
                       "of them",
                       bootstrap->job->root, theirs, bootstrap->job->rank, ours);
    case ZC_CALLER_GREETING:
    case ZC_CALLER_REPLY:
        note_unless_known(search, "something took the connection and said nothing");
        break;
    case ZC_CALLER_CLOSED:
        note_unless_known(search, "something took the connection and closed it");
        break;
    case ZC_CALLER_FOREIGN:
        search->odd = "what answers there is not zerocta";
        break;
    case ZC_CALLER_FORGED:
        search->odd = "what answers there does not have this job's token";
        break;
    }
    return ZCTA_OK;
}

/* One connection to the root. *settled tells whether the status is final; if not, try again. */
static zcta_status attempt(struct search *search, bool *settled)
{
    struct zc_bootstrap *bootstrap = search->bootstrap;
    const struct zc_job *job = bootstrap->job;
    struct zc_hello hello = {.purpose = ZC_WIRE_BOOTSTRAP,
                             .rank = job->rank,
                             .rank_count = job->rank_count,
                             .target = 0};
    struct zc_endpoint here;
    uint64_t until = zc_deadline_in(ATTEMPT_NS);
    enum zc_caller_state state;
    struct zc_caller caller;
    zcta_status status = ZCTA_OK;
    int fd;

    *settled = false;
    if (until > bootstrap->deadline)
        until = bootstrap->deadline;
    search->last_error = zc_net_connect_tcp(&bootstrap->root, until, &fd);
    if (search->last_error == EMFILE || search->last_error == ENFILE) {
        *settled = true;
        return zc_fail(bootstrap->diag, ZCTA_ERR_SYSTEM, "zcta_init", search->last_error,
                       "rank %" PRIu32 " cannot open a socket: %s; raise `ulimit -n`", job->rank,
                       strerror(search->last_error));
    }
    if (search->last_error != 0)
        return ZCTA_OK;
    status = zc_bootstrap_open_port(bootstrap, zc_net_here(fd, &here) ? &here : NULL);
    if (status != ZCTA_OK) {
        *settled = true;
        close(fd);
        return status;
    }
    hello.address = bootstrap->mine;
    zc_caller_start(&caller, fd, &hello, bootstrap->key);
    do {
        status = zc_bootstrap_wait(bootstrap, fd, until);
        state = zc_caller_advance(&caller);
    } while (status == ZCTA_OK && zc_time_left_ns(until) > 0 &&
             (state == ZC_CALLER_GREETING || state == ZC_CALLER_REPLY));
    /* Seated: the connection stays open, for what comes after the table. */
    if (state == ZC_CALLER_WELCOME) {
        bootstrap->lines[0] = (struct zc_line){.fd = fd, .rank = 0};
        memcpy(bootstrap->lines[0].session, caller.session, sizeof caller.session);
    }
    if (status == ZCTA_OK)
        status = settle(search, &caller, settled);
    else
        *settled = true;
    if (state != ZC_CALLER_WELCOME)
        close(fd);
    return status;
}

static zcta_status fail_not_found(const struct search *search)
{
    const struct zc_bootstrap *bootstrap = search->bootstrap;
    char within[24];

    zc_text_seconds(within, bootstrap->deadline - bootstrap->start);
    if (search->odd != NULL)
        return zc_fail_rank(bootstrap->diag, ZCTA_ERR_RENDEZVOUS, 0, "zcta_init", 0,
                            "rank 0 did not answer at %s within %s: %s; end the program that has "
                            "this port, or set ZEROCTA_PORT to a free one on all ranks",
                            bootstrap->job->root, within, search->odd);
    return zc_fail_rank(bootstrap->diag, ZCTA_ERR_TIMEOUT, 0, "zcta_init", search->last_error,
                        "rank 0 did not answer at %s within %s (%s): is rank 0 running, with the "
                        "same root?",
                        bootstrap->job->root, within, strerror(search->last_error));
}

/* That rank 0 is awaited: once, long before the deadline. */
static void say_not_found(struct search *search)
{
    const struct zc_bootstrap *bootstrap = search->bootstrap;
    const uint64_t longest = bootstrap->deadline - bootstrap->start;
    const uint64_t waited = zc_now_ns() - bootstrap->start;
    char whom[256];

    if (search->said || waited < zc_first_word_ns(longest))
        return;
    search->said = true;
    snprintf(whom, sizeof whom, "rank 0 at %s, which does not answer,", bootstrap->job->root);
    zc_say_waiting(bootstrap->diag, whom, "zcta_init", waited, longest);
}

zcta_status zc_bootstrap_join(struct zc_bootstrap *bootstrap)
{
    struct search search = {.bootstrap = bootstrap};
    uint64_t pause = FIRST_PAUSE_NS;
    zcta_status status = zc_bootstrap_open_lines(bootstrap, 1);

    if (status != ZCTA_OK)
        return status;
    for (;;) {
        bool settled;
        uint64_t left;

        status = attempt(&search, &settled);
        left = zc_time_left_ns(bootstrap->deadline);
        if (settled)
            return status;
        if (left == 0)
            return fail_not_found(&search);
        say_not_found(&search);
        /* Rank 0 may start later. */
        status = zc_bootstrap_wait(bootstrap, -1, zc_deadline_in(pause < left ? pause : left));
        if (status != ZCTA_OK)
            return status;
        pause = 2 * pause < LAST_PAUSE_NS ? 2 * pause : LAST_PAUSE_NS;
    }
}
