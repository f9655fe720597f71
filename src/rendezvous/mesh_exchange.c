/* One round of an exchange: sends to everybody without letting a slow peer hold up the others, and
 * collects what the monitor has put into the mailboxes. Never reads a socket itself. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/patience.h"
#include "rendezvous/mesh.h"
#include "rendezvous/net.h"
#include "rendezvous/text.h"

/* A rank that sees a death reports it and leaves, maybe before the next rank has seen the same
 * death. For this long a farewell is not taken for the cause. */
#define BLAME_GRACE_NS UINT64_C(50000000)

/* How soon a peer is tried again that has no room for its part, or while the kernel passes on no
 * more descriptors: nothing tells when that changes. Longer and longer, so that those who have to
 * make room get to run. */
#define RESEND_FIRST_NS UINT64_C(2000000)
#define RESEND_LAST_NS  UINT64_C(32000000)

/* Not everybody who says that a round is over wakes those who wait in it. */
#define OVER_LOOK_NS UINT64_C(20000000)
/* Who meets others waits a little longer than who still waits for one to join: a rank that is
 * missed here may be missing another one there, and then says so. */
#define HEARSAY_NS UINT64_C(50000000)
/* How long the monitor may take to have read what has come, at most; mostly it takes microseconds.
 */
#define CATCH_UP_NS UINT64_C(2000000000)

/* What has been done with one rank of the round. */
enum { SENT = 1, THERE = 2, DONE = SENT | THERE };

struct round {
    struct zc_mesh *mesh;
    const struct zc_exchange *exchange;
    bool stands;     /* zc_mesh_join() */
    uint8_t *steps;  /* for each entry of exchange->ranks */
    uint32_t left;   /* entries that are not DONE */
    uint32_t unsent; /* entries without SENT */
    uint32_t cursor;
    uint64_t start, longest, resend_ns;
    uint64_t limit;
    uint32_t asked;        /* of the monitor, when the limit was over; 0: it was not */
    uint64_t own_deadline; /* for what keeps this rank itself from going on */
    int send_error;      /* why this rank's part did not go when last tried, but for want of room */
    uint64_t say_at;     /* when to say for whom this rank waits; UINT64_MAX: it has */
    zcta_status failure; /* a message came that cannot be used; the round goes on to its end, so
                            that nothing of it is left for the next one */
};

static void mark(struct round *round, uint32_t index, uint8_t step)
{
    uint8_t *steps = &round->steps[index];

    assert((*steps & step) == 0);
    *steps |= step;
    round->unsent -= (step & SENT) != 0;
    round->left -= *steps == DONE;
}

static int send_once(const struct round *round, uint32_t index)
{
    const struct zc_exchange *exchange = round->exchange;
    const uint32_t rank = exchange->ranks[index];
    const struct zc_frame frame = {.kind = ZC_FRAME_EXCHANGE,
                                   .stands = round->stands,
                                   .bytes = (uint32_t)exchange->bytes,
                                   .tag = exchange->tag,
                                   .number = exchange->number,
                                   .topic = exchange->topic};
    const bool needs_fd = !exchange->fd_afar || !zc_mesh_same_process(round->mesh, rank);

    return zc_mesh_send(round->mesh, rank, &frame, exchange->mine, needs_fd ? exchange->fd : -1);
}

static zcta_status fail_send(const struct round *round, uint32_t rank, int error)
{
    return zc_fail(round->mesh->diag, ZCTA_ERR_SYSTEM, round->exchange->call, error,
                   "rank %" PRIu32 " cannot send to rank %" PRIu32 ": %s", round->mesh->rank, rank,
                   strerror(error));
}

/* To everybody who has room now: a peer that does not read costs the others nothing. A peer that is
 * gone is no error here: whether the round can still be completed depends on what it had sent
 * before. While too many descriptors are under way from this user none can go to anybody. */
static zcta_status send_all(struct round *round)
{
    const uint32_t before = round->unsent;
    int error = 0;

    round->send_error = 0;

    for (uint32_t i = 0; i < round->exchange->count && error != ETOOMANYREFS; i++) {
        if ((round->steps[i] & SENT) != 0)
            continue;
        error = send_once(round, i);
        if (error == 0 || zc_mesh_is_gone(error))
            mark(round, i, SENT);
        else if (!zc_mesh_is_later(error))
            return fail_send(round, round->exchange->ranks[i], error);
        else if (error != EAGAIN) /* which is the peer's doing, who does not read */
            round->send_error = error;
    }
    if (round->unsent < before)
        round->resend_ns = RESEND_FIRST_NS;
    else if (round->resend_ns < RESEND_LAST_NS)
        round->resend_ns *= 2;
    return ZCTA_OK;
}

/* Who only meets has no bytes, and no memory for them. */
static void place(const struct zc_exchange *exchange, uint32_t index, const void *data)
{
    if (exchange->bytes > 0)
        memmove((uint8_t *)exchange->all + exchange->bytes * index, data, exchange->bytes);
}

/* Copies a message to its place in the round. */
static zcta_status open_message(struct round *round, uint32_t index, struct zc_message *message)
{
    const struct zc_exchange *exchange = round->exchange;
    const uint32_t rank = exchange->ranks[index], own = round->mesh->rank;

    if (message->topic != exchange->topic)
        return zc_fail_rank(round->mesh->diag, ZCTA_ERR_MISMATCH, rank, exchange->call, 0,
                            "rank %" PRIu32 " makes another call than rank %" PRIu32
                            ", which is in %s: the ranks of a team make the same calls in the same "
                            "order",
                            rank, own, exchange->call);
    if (message->bytes != exchange->bytes)
        return zc_fail_rank(round->mesh->diag, ZCTA_ERR_MISMATCH, rank, exchange->call, 0,
                            "rank %" PRIu32 " sent %" PRIu32 " bytes where rank %" PRIu32
                            " sent %zu: the ranks do not make the same call",
                            rank, message->bytes, own, exchange->bytes);
    place(exchange, index, message->data);
    if (exchange->fds != NULL && message->fd_lost)
        return zc_fail(round->mesh->diag, ZCTA_ERR_SYSTEM, exchange->call, EMFILE,
                       "a file descriptor from rank %" PRIu32
                       " could not be received: rank %" PRIu32 " has none free; raise `ulimit -n`",
                       rank, own);
    if (exchange->fds != NULL) {
        exchange->fds[index] = message->fd;
        message->fd = -1;
    }
    return ZCTA_OK;
}

/* Of two rounds of one tag: whether `number` is that of an earlier one. */
static bool is_earlier(uint32_t number, uint32_t than)
{
    return (int32_t)(number - than) < 0;
}

/* With the lock held: the rank's part in this round, or one of a later round. What was left of
 * earlier ones, which this rank did not finish, goes. */
static struct zc_message *take_part(const struct round *round, uint32_t rank)
{
    struct zc_mailbox *mailbox = &round->mesh->peers[rank].mailbox;
    struct zc_message *message = zc_mailbox_take(mailbox, round->exchange->tag);

    while (message != NULL && is_earlier(message->number, round->exchange->number)) {
        zc_message_destroy(message);
        message = zc_mailbox_take(mailbox, round->exchange->tag);
    }
    return message;
}

/* With the lock held: a message that the round waits for, and whose entry it is, or NULL if none is
 * there. Goes on where it stopped, so that a round looks at each entry a few times at most. */
static struct zc_message *take_message(struct round *round, uint32_t *index)
{
    const struct zc_exchange *exchange = round->exchange;

    for (uint32_t i = 0; i < exchange->count; i++) {
        const uint32_t at = round->cursor;
        struct zc_message *message = NULL;

        round->cursor = at + 1 < exchange->count ? at + 1 : 0;
        if ((round->steps[at] & THERE) == 0)
            message = take_part(round, exchange->ranks[at]);
        if (message != NULL) {
            *index = at;
            return message;
        }
    }
    return NULL;
}

/* With the lock held: places what stands if all of it does. A rank may take its word back and give
 * another, so only what stands together counts. */
static void look_at_standing(struct round *round)
{
    const struct zc_exchange *exchange = round->exchange;

    round->left = 0;
    for (uint32_t i = 0; i < exchange->count; i++) {
        const struct zc_mailbox *mailbox = &round->mesh->peers[exchange->ranks[i]].mailbox;
        const struct zc_message *message = zc_mailbox_find(mailbox, exchange->tag);
        const bool there = message != NULL && message->stands && message->bytes == exchange->bytes;

        if (exchange->ranks[i] == round->mesh->rank)
            continue;
        round->steps[i] = (uint8_t)((round->steps[i] & SENT) | (there ? THERE : 0));
        if (there)
            place(exchange, i, message->data);
        round->left += round->steps[i] != DONE;
    }
}

/* With the lock held, after a look that found nothing: a peer in `state` with which the round is
 * not done, or ZCTA_NO_RANK. */
static uint32_t find_gone(const struct round *round, enum zc_peer_state state)
{
    for (uint32_t i = 0; i < round->exchange->count; i++)
        if ((round->stands || round->steps[i] != DONE) &&
            round->mesh->peers[round->exchange->ranks[i]].state == state)
            return round->exchange->ranks[i];
    return ZCTA_NO_RANK;
}

static zcta_status fail_gone(const struct round *round, uint32_t rank)
{
    const struct zc_peer *peer = &round->mesh->peers[rank];
    const char *why;

    pthread_mutex_lock(&round->mesh->lock);
    why = peer->why;
    pthread_mutex_unlock(&round->mesh->lock);
    return zc_fail_rank(round->mesh->diag, ZCTA_ERR_PEER, rank, round->exchange->call, 0,
                        "rank %" PRIu32 " (pid %" PRId64 ") %s and %s", rank, peer->pid, why,
                        round->exchange->what);
}

/* The ranks that the round waits for. */
struct late {
    uint32_t first, count;
    char who[120];
};

static bool find_late(const struct round *round, struct late *late)
{
    const struct zc_exchange *exchange = round->exchange;
    uint32_t *ranks = calloc((size_t)exchange->count + 1, sizeof *ranks);

    if (ranks == NULL)
        return false;
    late->count = 0;
    for (uint32_t i = 0; i < exchange->count; i++)
        if (round->steps[i] != DONE)
            ranks[late->count++] = exchange->ranks[i];
    assert(late->count > 0);
    late->first = ranks[0];
    zc_text_ranks(late->who, ranks, late->count);
    free(ranks);
    return true;
}

static zcta_status fail_late(const struct round *round)
{
    const struct zc_exchange *exchange = round->exchange;
    struct late late;
    char within[24];

    if (!find_late(round, &late))
        return zc_fail(round->mesh->diag, ZCTA_ERR_NO_MEMORY, exchange->call, 0,
                       "no memory to list the ranks that are late");
    zc_text_seconds(within, round->longest);
    if (late.count == 1)
        return zc_fail_rank(round->mesh->diag, ZCTA_ERR_TIMEOUT, late.first, exchange->call, 0,
                            "%s (pid %" PRId64 ") %s within %s: it is stopped, very slow, or "
                            "makes another call",
                            late.who, round->mesh->peers[late.first].pid, exchange->what, within);
    return zc_fail_rank(round->mesh->diag, ZCTA_ERR_TIMEOUT, late.first, exchange->call, 0,
                        "%s %s within %s (the first has pid %" PRId64
                        "): they are stopped, very slow, or make another call",
                        late.who, exchange->what, within, round->mesh->peers[late.first].pid);
}

/* Long before the deadline, and once. */
static void say_late(struct round *round)
{
    const uint64_t waited = zc_now_ns() - round->start;
    struct late late;
    char whom[160];

    round->say_at = UINT64_MAX;
    if (!find_late(round, &late))
        return;
    snprintf(whom, sizeof whom, "%s (%spid %" PRId64 ")", late.who,
             late.count == 1 ? "" : "the first has ", round->mesh->peers[late.first].pid);
    zc_say_waiting(round->mesh->diag, whom, round->exchange->call, waited, round->longest);
}

static void wait_for_change(struct zc_mesh *mesh, uint64_t until)
{
    const struct timespec time = {.tv_sec = (time_t)(until / 1000000000u),
                                  .tv_nsec = (long)(until % 1000000000u)};

    pthread_cond_timedwait(&mesh->changed, &mesh->lock, &time);
}

/* Why this rank itself keeps the round from its end: the system does not let it send, or receive.
 * An errno, or 0. */
static int own_trouble(const struct round *round)
{
    return round->unsent > 0 && round->send_error != 0
               ? round->send_error
               : atomic_load_explicit(&round->mesh->deaf, memory_order_relaxed);
}

static zcta_status fail_unable(const struct round *round, int error)
{
    const bool sending = round->unsent > 0 && round->send_error != 0;

    return zc_fail(round->mesh->diag, ZCTA_ERR_SYSTEM, round->exchange->call, error,
                   "rank %" PRIu32 " cannot %s other ranks: %s%s", round->mesh->rank,
                   sending ? "send to" : "hear", strerror(error),
                   error == ETOOMANYREFS
                       ? "; too many descriptors of this user are under way, raise "
                         "`ulimit -n`"
                       : "");
}

/* What the round waits for next, with the lock held. */
enum outcome { WAIT, GONE, UNABLE, LATE, OVER };

/* Whether the time is up, and nothing of what is missed lies there unread: this process may have
 * been stopped, or had no CPU, while others sent it. With the lock held. */
static bool is_late(struct round *round)
{
    const bool up = zc_time_left_ns(round->limit) == 0;

    if (round->asked != 0)
        return up || zc_mesh_has_answered(round->mesh, round->asked);
    if (!up || round->longest == 0)
        return up;
    round->asked = zc_mesh_ask_monitor(round->mesh);
    round->limit = zc_deadline_in(CATCH_UP_NS);
    return false;
}

static enum outcome assess(struct round *round, uint64_t *blame_at, uint32_t *gone)
{
    const _Atomic uint32_t *over = round->exchange->over;

    if (over != NULL && atomic_load_explicit(over, memory_order_acquire) != 0)
        return OVER;
    *gone = find_gone(round, ZC_PEER_LOST);
    if (*gone != ZCTA_NO_RANK)
        return GONE;
    *gone = find_gone(round, ZC_PEER_LEFT);
    if (*gone != ZCTA_NO_RANK && *blame_at == UINT64_MAX)
        *blame_at = zc_deadline_in(BLAME_GRACE_NS);
    if (*gone != ZCTA_NO_RANK && zc_time_left_ns(*blame_at) == 0)
        return GONE;
    /* Who knows that the trouble is its own says so before the others name whomever they miss. */
    if (own_trouble(round) != 0 && zc_time_left_ns(round->own_deadline) == 0)
        return UNABLE;
    return is_late(round) ? LATE : WAIT;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* When to look again though nobody says that anything has changed. */
static uint64_t next_look(const struct round *round)
{
    if (round->unsent > 0)
        return zc_deadline_in(round->resend_ns);
    if (round->exchange->over != NULL)
        return zc_deadline_in(OVER_LOOK_NS);
    return zc_time_left_ns(round->own_deadline) > 0 ? round->own_deadline : UINT64_MAX;
}

/* One step forward, called and left with the lock held, which is given up meanwhile. */
static zcta_status advance(struct round *round, bool *received)
{
    struct zc_mesh *mesh = round->mesh;
    zcta_status status = ZCTA_OK;
    struct zc_message *message = NULL;
    uint32_t index = 0;

    *received = false;
    if (round->unsent > 0) {
        pthread_mutex_unlock(&mesh->lock);
        status = send_all(round);
        pthread_mutex_lock(&mesh->lock);
        if (status != ZCTA_OK)
            return status;
    }
    if (round->stands)
        look_at_standing(round);
    else
        message = take_message(round, &index);
    if (message == NULL)
        return ZCTA_OK;
    *received = true;
    pthread_mutex_unlock(&mesh->lock);
    if (message->number != round->exchange->number) {
        status = zc_fail_rank(
            mesh->diag, ZCTA_ERR_PEER, round->exchange->ranks[index], round->exchange->call, 0,
            "rank %" PRIu32 " has gone on without its part in %s: a message of it "
            "was lost",
            round->exchange->ranks[index], round->exchange->call);
    } else {
        const zcta_status opened = open_message(round, index, message);

        if (round->failure == ZCTA_OK)
            round->failure = opened;
        mark(round, index, THERE);
    }
    zc_message_destroy(message);
    pthread_mutex_lock(&mesh->lock);
    return status;
}

static zcta_status finish(struct round *round)
{
    struct zc_mesh *mesh = round->mesh;
    uint64_t blame_at = UINT64_MAX;
    uint32_t gone = ZCTA_NO_RANK;
    enum outcome outcome = WAIT;
    zcta_status status = ZCTA_OK;

    pthread_mutex_lock(&mesh->lock);
    while (status == ZCTA_OK && round->left > 0 && outcome == WAIT) {
        bool received;

        status = advance(round, &received);
        /* Only a look that found no message, with the lock held since, may blame anybody. */
        if (status != ZCTA_OK || received || round->left == 0)
            continue;
        outcome = assess(round, &blame_at, &gone);
        if (outcome == WAIT && zc_time_left_ns(round->say_at) == 0) {
            pthread_mutex_unlock(&mesh->lock);
            say_late(round);
            pthread_mutex_lock(&mesh->lock);
        } else if (outcome == WAIT) {
            wait_for_change(mesh, earlier(earlier(round->limit, blame_at),
                                          earlier(next_look(round), round->say_at)));
        }
    }
    pthread_mutex_unlock(&mesh->lock);
    if (status != ZCTA_OK || outcome == WAIT)
        return status;
    if (outcome == OVER)
        return zc_fail(mesh->diag, ZCTA_ERR_PEER, round->exchange->call, 0,
                       "the team failed while its ranks were to meet");
    if (outcome == UNABLE)
        return fail_unable(round, own_trouble(round));
    return outcome == GONE ? fail_gone(round, gone) : fail_late(round);
}

static void close_fds(const struct zc_exchange *exchange)
{
    for (uint32_t i = 0; exchange->fds != NULL && i < exchange->count; i++) {
        if (exchange->fds[i] >= 0)
            close(exchange->fds[i]);
        exchange->fds[i] = -1;
    }
}

static zcta_status run(struct zc_mesh *mesh, const struct zc_exchange *exchange, bool stands)
{
    struct round round = {.mesh = mesh,
                          .exchange = exchange,
                          .stands = stands,
                          .start = exchange->since != 0 ? exchange->since : zc_now_ns(),
                          .limit = zc_after_ns(exchange->deadline, stands ? 0 : HEARSAY_NS),
                          .resend_ns = RESEND_FIRST_NS};
    zcta_status status;

    assert(exchange->bytes <= ZC_MAX_MESSAGE);
    round.longest = exchange->deadline > round.start ? exchange->deadline - round.start : 0;
    round.own_deadline = zc_after_ns(round.start, round.longest / 4 * 3);
    round.say_at = zc_after_ns(round.start, zc_first_word_ns(round.longest));
    if (exchange->finished != NULL)
        *exchange->finished = false;
    round.steps = calloc(exchange->count, sizeof *round.steps);
    if (round.steps == NULL)
        return zc_fail(mesh->diag, ZCTA_ERR_NO_MEMORY, exchange->call, 0,
                       "no memory for an exchange among %" PRIu32 " ranks", exchange->count);
    round.left = round.unsent = exchange->count;
    for (uint32_t i = 0; i < exchange->count; i++) {
        assert(exchange->ranks[i] < mesh->rank_count);
        if (exchange->fds != NULL)
            exchange->fds[i] = -1;
        if (exchange->ranks[i] != mesh->rank)
            continue;
        place(exchange, i, exchange->mine);
        mark(&round, i, SENT);
        mark(&round, i, THERE);
    }
    assert(round.left < exchange->count);
    status = send_all(&round);
    if (status == ZCTA_OK)
        status = finish(&round);
    if (status == ZCTA_OK && exchange->finished != NULL)
        *exchange->finished = true;
    if (status == ZCTA_OK)
        status = round.failure;
    if (status != ZCTA_OK)
        close_fds(exchange);
    free(round.steps);
    return status;
}

zcta_status zc_mesh_exchange(struct zc_mesh *mesh, const struct zc_exchange *exchange)
{
    return run(mesh, exchange, false);
}

zcta_status zc_mesh_join(struct zc_mesh *mesh, const struct zc_exchange *exchange)
{
    assert(exchange->fd < 0 && exchange->fds == NULL);
    return run(mesh, exchange, true);
}
