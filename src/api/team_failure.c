/* How a team fails: once, with one sentence, on all its ranks.
 *
 * Whose sentence a failure carries. Whoever sees a cause first says it: the sentence is given to
 * zc_team_fail() as a value, never read from what some thread has said last. Ranks of one host that
 * see different causes at once decide on the board (rendezvous/board.h) whose counts, so that all
 * of them name the same rank; between hosts the first word to arrive counts. A rank that is told
 * passes the word on before it can be seen to leave: what its peers see next may be its own end,
 * and they would blame it. Nothing here waits: the monitor and the watchdog run it. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "api/objects.h"
#include "base/number.h"
#include "base/patience.h"

/* A peer's word on its part in a team. Sent under the team's identity, numbered by the sender's
 * attempt at that team; number 0: it could not even begin. */
struct team_notice {
    uint64_t tag; /* of the team, under which the sender sends nothing any more; 0: it had none */
    uint32_t status, rank; /* status OK: no failure, the attempt has ended */
    uint64_t cause;        /* an enum zc_cause */
    uint64_t joined;       /* 1: the attempt had met all ranks */
    char message[sizeof((zcta_error *)0)->message];
};

const char *zc_team_title(const zcta_team *team)
{
    return team->name[0] != '\0' ? team->name : "(unnamed)";
}

/* What the team's other ranks get as a status: of this rank's own troubles, that a peer has failed.
 */
static zcta_status status_for_others(zcta_status status)
{
    return status == ZCTA_ERR_TIMEOUT || status == ZCTA_ERR_MISMATCH || status == ZCTA_OK
               ? status
               : ZCTA_ERR_PEER;
}

void zc_team_tell(const zcta_team *team, const zcta_error *failure)
{
    /* Without a failure the others may still be about to take what this rank has sent. */
    struct team_notice notice = {.tag = failure->status == ZCTA_OK ? 0 : team->group.tag,
                                 .status = (uint32_t)status_for_others(failure->status),
                                 .rank = failure->rank,
                                 .cause = team->cause,
                                 .joined = team->joined};

    memcpy(notice.message, failure->message, sizeof notice.message);
    for (uint32_t i = 0; i < team->group.count; i++)
        if (i != team->group.self)
            zc_mesh_notify(team->group.mesh, team->ranks[i], team->identity, team->attempt, &notice,
                           sizeof notice);
}

bool zc_team_go_back(zcta_team *team)
{
    zcta_context *context = team->context;
    struct team_notice nothing = {.status = ZCTA_OK, .rank = context->job.rank};
    bool again;

    pthread_mutex_lock(&context->lock);
    pthread_mutex_lock(&team->failure_lock);
    again = team->stale && team->failure.status == ZCTA_OK;
    nothing.tag = team->group.tag;
    if (again) {
        team->stale = team->joined = false;
        team->group.tag = 0;
        team->rounds = 0;
        atomic_store_explicit(&team->interrupted, 0, memory_order_relaxed);
    }
    pthread_mutex_unlock(&team->failure_lock);
    pthread_mutex_unlock(&context->lock);
    /* What was sent for the team that does not come to be is nobody's. This attempt still holds. */
    for (uint32_t i = 0; again && i < team->group.count; i++) {
        zc_mesh_drop(context->mesh, team->ranks[i], nothing.tag, UINT32_MAX);
        if (i != team->group.self)
            zc_mesh_notify(context->mesh, team->ranks[i], team->identity, team->attempt - 1,
                           &nothing, sizeof nothing);
    }
    return again;
}

void zc_team_refuse(zcta_context *context, const uint32_t *ranks, uint32_t count, uint64_t identity)
{
    struct team_notice notice = {.status = ZCTA_ERR_PEER, .rank = context->job.rank};
    zcta_error error;

    zc_diag_last(&context->diag, &error);
    memcpy(notice.message, error.message, sizeof notice.message);
    for (uint32_t i = 0; i < count; i++)
        if (ranks[i] != context->job.rank)
            zc_mesh_notify(context->mesh, ranks[i], identity, 0, &notice, sizeof notice);
}

/* NCCL's kernels wait for ever for a rank that is gone; only NCCL can end them. Under the lock the
 * engine cannot be closed meanwhile. */
static void abort_nccl(zcta_team *team)
{
    pthread_mutex_lock(&team->failure_lock);
    if (team->nccl != NULL)
        zc_engine_nccl.abort(team->nccl);
    pthread_mutex_unlock(&team->failure_lock);
}

/* Some of NCCL's work heeds no abort. The lock is held. */
static void add_advice(const zcta_team *team, zcta_error *failure)
{
    const size_t at = strlen(failure->message);
    const bool under_way = atomic_load_explicit(&team->guard.finished, memory_order_acquire) !=
                           zc_guard_submitted(&team->guard);

    if (team->nccl != NULL && under_way && zc_nccl_is_heedless(team->nccl))
        snprintf(failure->message + at, sizeof failure->message - at,
                 "; NCCL's copy engines and symmetric kernels do not end when aborted, so this "
                 "process has to end if its streams do not drain");
}

/* How the end of a rank is told. */
static zcta_error gone_failure(const zcta_context *context, uint32_t rank, bool left)
{
    zcta_error failure = {.status = ZCTA_ERR_PEER, .rank = rank, .call = "collective"};

    snprintf(failure.message, sizeof failure.message, "rank %" PRIu32 " (pid %" PRId64 ") %s", rank,
             zc_mesh_pid(context->mesh, rank),
             left ? "left the job while this team still had it"
                  : "ended without leaving the job; its connection has closed");
    return failure;
}

/* How a loss is told. */
static zcta_error failure_by(const zcta_context *context, const struct zc_loss *loss)
{
    zcta_error failure = {
        .status = ZCTA_ERR_SYSTEM, .rank = context->job.rank, .call = "collective"};

    if (!loss->unable)
        return gone_failure(context, loss->rank, loss->left);
    snprintf(failure.message, sizeof failure.message,
             "rank %" PRIu32 " could not take a message of rank %" PRIu32 ", because the system "
             "refused it",
             context->job.rank, loss->rank);
    return failure;
}

/* Somebody was waited for in vain. */
static zcta_error missing_failure(const zcta_team *team, uint32_t rank)
{
    const double seconds = (double)team->guard.timeout_ns / 1e9;
    zcta_error failure = {.status = ZCTA_ERR_TIMEOUT, .rank = rank, .call = "collective"};

    if (rank == ZCTA_NO_RANK)
        zc_format(
            failure.message, sizeof failure.message,
            "a collective of team %s that NCCL performs has not finished within %.3g s, though "
            "all ranks%s have begun it",
            zc_team_title(team), seconds, team->node_ranks == 0 ? "" : " of this node");
    else
        zc_format(failure.message, sizeof failure.message,
                  "rank %" PRIu32 " (pid %" PRId64
                  ") did not take part in a collective of team %s within "
                  "%.3g s; it is stopped, busy elsewhere, or made another call or one with other "
                  "arguments (ZEROCTA_CHECK=1 compares them)",
                  rank, zc_mesh_pid(team->group.mesh, rank), zc_team_title(team), seconds);
    return failure;
}

/* The sentence for a cause that another rank of this host met first. */
static zcta_error cause_of(const zcta_team *team, zcta_status status, uint32_t rank,
                           enum zc_cause how)
{
    zcta_error cause = {.status = status, .rank = rank, .call = "collective"};

    if (status == ZCTA_ERR_TIMEOUT)
        return missing_failure(team, rank);
    if (how != ZC_CAUSE_OTHER)
        return gone_failure(team->context, rank, how == ZC_CAUSE_LEAVE);
    snprintf(cause.message, sizeof cause.message,
             "rank %" PRIu32 " (pid %" PRId64 ") %s in team %s, as another rank saw first; see "
             "rank %" PRIu32 "'s own output",
             rank, zc_mesh_pid(team->group.mesh, rank),
             status == ZCTA_ERR_MISMATCH ? "makes another call than others" : "has failed",
             zc_team_title(team), rank);
    return cause;
}

/* Of several causes at once the first one on the board counts for all; *how becomes that one's. */
static zcta_error agreed_cause(const zcta_team *team, const zcta_error *seen, enum zc_cause *how)
{
    const uint64_t proposal =
        (uint64_t)*how << 48 | (uint64_t)status_for_others(seen->status) << 32 | seen->rank;
    const uint64_t decided = zc_mesh_decide(team->group.mesh, team->group.tag, proposal);
    const zcta_status status = (zcta_status)(decided >> 32 & 0xffff);
    const uint32_t rank = (uint32_t)decided;
    zcta_error cause = *seen;

    /* Who differs from whom is told by the sentence; ranks may have met different pairs. */
    if (seen->status == ZCTA_ERR_MISMATCH && status == ZCTA_ERR_MISMATCH) {
        cause.rank = rank;
        return cause;
    }
    if (rank == seen->rank)
        return *seen;
    *how = (enum zc_cause)(decided >> 48);
    return cause_of(team, status, rank, *how);
}

/* Whether a team of all ranks has failed, as the world does with the first rank that dies. */
static bool is_bereaved(const zcta_context *context)
{
    const zcta_team *team = context->teams;

    while (team != NULL && (team->group.count < context->job.rank_count || !zc_team_failed(team)))
        team = team->next;
    return team != NULL;
}

/* Once the world has failed its ranks do not meet before they go, so that one is the first. That it
 * goes is no news to a team that has nothing under way; a later call would tell. With the context's
 * lock held, if a rank left. */
static enum zc_log_level loudness(const zcta_team *team, enum zc_cause how)
{
    const bool idle = zc_guard_counted(&team->guard, zc_guard_submitted(&team->guard));

    return how == ZC_CAUSE_LEAVE && idle && is_bereaved(team->context) ? ZC_LOG_INFO : ZC_LOG_WARN;
}

/* `tell`: the others do not see the cause for themselves. The context's lock is held where a rank
 * that left the job is the cause. */
static void fail(zcta_team *team, const zcta_error *seen, bool tell, enum zc_cause how)
{
    const bool locked = how == ZC_CAUSE_LEAVE;
    zcta_context *context = team->context;
    zcta_error failure;
    bool first, runs;

    pthread_mutex_lock(&team->failure_lock);
    first = team->failure.status == ZCTA_OK;
    runs = team->made;
    if (first) {
        failure = team->group.tag != 0 ? agreed_cause(team, seen, &how) : *seen;
        team->failure = failure;
        team->cause = how;
        if (tell)
            zc_team_tell(team, &failure);
        add_advice(team, &failure);
        team->failure = failure;
        /* Who sees the status finds the sentence. */
        zc_diag_post(&context->diag, &failure);
        /* Pairs with the acquire of whoever runs or awaits a program of this team, and comes before
         * abort() looks for communicators; see keep_comm(). */
        atomic_store_explicit(&team->guard.failed, (uint32_t)failure.status, memory_order_seq_cst);
        atomic_store_explicit(&team->interrupted, 1, memory_order_release);
    }
    pthread_mutex_unlock(&team->failure_lock);
    if (!first)
        return;
    zc_mesh_wake(context->mesh);
    /* Nothing runs before the team has been made, and zc_team_make() looks again then. */
    if (runs)
        context->ops->wake(context->device, &team->guard);
    abort_nccl(team);
    zc_log(&context->diag, loudness(team, locked ? how : ZC_CAUSE_OTHER), "team %s has failed: %s",
           zc_team_title(team), failure.message);
}

void zc_team_fail(zcta_team *team, const zcta_error *failure)
{
    fail(team, failure, true, ZC_CAUSE_OTHER);
}

zcta_status zc_team_broken(void *data, const zcta_error *why)
{
    zcta_team *team = data;
    bool innocent;

    /* A rank that leaves the job says so by leaving: those who still work with it are not to blame.
     * And a team that is to be made with other attempts has not failed. */
    pthread_mutex_lock(&team->context->lock);
    innocent = team->context->finalizing || team->stale;
    pthread_mutex_unlock(&team->context->lock);
    if (innocent && !zc_team_failed(team))
        return why->status;
    zc_team_fail(team, why);
    return zc_team_check(team, why->call);
}

zcta_status zc_team_check(zcta_team *team, const char *call)
{
    zcta_error failure;

    if (!zc_team_failed(team) || !zc_diag_is_here(team->group.diag))
        return zc_check_process(team->group.diag, call);
    pthread_mutex_lock(&team->failure_lock);
    failure = team->failure;
    pthread_mutex_unlock(&team->failure_lock);
    snprintf(failure.call, sizeof failure.call, "%s", call);
    zc_diag_repeat(&team->context->diag, &failure);
    return failure.status;
}

/* ---- What the device says ---- */

/* A wait has outlasted the team's timeout. */
void zc_team_on_missing(void *data, uint32_t peer)
{
    zcta_team *team = data;
    const zcta_error failure =
        missing_failure(team, peer == ZCTA_NO_RANK ? ZCTA_NO_RANK : team->ranks[peer]);

    zc_team_fail(team, &failure);
}

/* A wait has lasted long, though not yet too long. */
void zc_team_on_late(void *data, uint32_t peer, const char *call, uint64_t waited_ns)
{
    zcta_team *team = data;
    char whom[64] = "another library's work, which all ranks have begun", where[128];

    if (peer != ZCTA_NO_RANK)
        snprintf(whom, sizeof whom, "rank %" PRIu32 " (pid %" PRId64 ")", team->ranks[peer],
                 zc_mesh_pid(team->group.mesh, team->ranks[peer]));
    snprintf(where, sizeof where, "%s of team %s", call == NULL ? "a collective" : call,
             zc_team_title(team));
    zc_say_waiting(team->group.diag, whom, where, waited_ns, team->guard.timeout_ns);
}

/* NCCL has broken off, on this rank. */
void zc_team_on_broken(void *data, const char *why)
{
    zcta_team *team = data;
    const uint32_t rank = team->ranks[team->group.self];
    zcta_error failure = {.status = ZCTA_ERR_DEVICE, .rank = rank, .call = "NCCL"};

    snprintf(failure.message, sizeof failure.message, "rank %" PRIu32 ", team %s: %.380s", rank,
             zc_team_title(team), why);
    zc_team_fail(team, &failure);
}

/* ---- What the mesh says ---- */

/* The rank's index in the team; the number of ranks if it has none. */
static uint32_t index_of(const zcta_team *team, uint32_t rank)
{
    uint32_t at = 0;

    while (at < team->group.count && team->ranks[at] != rank)
        at++;
    return at;
}

static bool has_rank(const zcta_team *team, uint32_t rank)
{
    return index_of(team, rank) < team->group.count;
}

/* While a team is in the making, a rank that leaves may have found out before this one that nothing
 * will come of it: the round that tells is still to be read. A part that it owes is missed there.
 */
static bool is_hit(const zcta_team *team, const struct zc_loss *loss, bool made)
{
    return !team->leaving && has_rank(team, loss->rank) && has_rank(team, loss->teller) &&
           (made || !loss->left);
}

static enum zc_cause cause_of_loss(const struct zc_loss *loss)
{
    return loss->unable ? ZC_CAUSE_OTHER : loss->left ? ZC_CAUSE_LEAVE : ZC_CAUSE_END;
}

/* Fails the teams that lack a rank from now on, and keeps it in mind for those that are to come: of
 * a team's ranks the one that was lost first is the cause, and who follows it may only have seen
 * that. One word for all teams is enough: everybody learns the same from it. */
static void lose(zcta_context *context, const struct zc_loss *loss)
{
    const zcta_error failure = failure_by(context, loss);
    struct zc_loss *grown =
        realloc(context->losses, (context->loss_count + 1) * sizeof *context->losses);

    if (grown != NULL) {
        grown[context->loss_count++] = *loss;
        context->losses = grown;
    }
    for (zcta_team *team = context->teams; team != NULL; team = team->next)
        if (is_hit(team, loss, team->made))
            fail(team, &failure, loss->unable, cause_of_loss(loss));
}

/* Whether a loss of that rank is on record; `unheard`: only one because of which this rank could
 * not hear it any more. */
static bool has_loss(const zcta_context *context, uint32_t rank, bool unheard)
{
    uint32_t at = 0;

    while (at < context->loss_count &&
           (context->losses[at].rank != rank || (unheard && !context->losses[at].unable)))
        at++;
    return at < context->loss_count;
}

bool zc_team_is_lost(const zcta_context *context, uint32_t rank)
{
    return has_loss(context, rank, false);
}

static void on_gone(zcta_context *context, uint32_t rank, bool left)
{
    const struct zc_loss loss = {.rank = rank, .teller = context->job.rank, .left = left};

    pthread_mutex_lock(&context->lock);
    context->gone[rank] = true;
    if ((!context->finalizing || !left) && !has_loss(context, rank, true)) {
        zc_mesh_tell_gone(context->mesh, rank, context->job.rank, left);
        lose(context, &loss);
    }
    pthread_mutex_unlock(&context->lock);
}

/* Another rank has lost one: what they have together cannot go on. The first word of that is passed
 * on, before this rank can be seen to leave because of it. */
static void on_told(zcta_context *context, uint32_t teller, uint32_t rank, bool left)
{
    const struct zc_loss loss = {.rank = rank, .teller = teller, .left = left};

    pthread_mutex_lock(&context->lock);
    if ((!context->finalizing || !left) && !context->gone[rank]) {
        if (!zc_team_is_lost(context, rank))
            zc_mesh_tell_gone(context->mesh, rank, teller, left);
        lose(context, &loss);
    }
    pthread_mutex_unlock(&context->lock);
}

/* This rank could not take a message: what it has together with the sender cannot go on, and it is
 * this rank's own affair. */
static void on_unable(zcta_context *context, uint32_t sender)
{
    const struct zc_loss loss = {.rank = sender, .teller = context->job.rank, .unable = true};

    pthread_mutex_lock(&context->lock);
    lose(context, &loss);
    pthread_mutex_unlock(&context->lock);
}

void zc_team_notice_losses(zcta_team *team, bool made)
{
    const zcta_context *context = team->context;

    for (uint32_t i = 0; i < context->loss_count; i++) {
        const struct zc_loss *loss = &context->losses[i];
        const zcta_error failure = failure_by(context, loss);

        if (is_hit(team, loss, made))
            fail(team, &failure, loss->unable, cause_of_loss(loss));
    }
}

/* Of those who gave up the first one says most. */
static void note_ending(zcta_team *team, uint32_t index, struct zc_over over,
                        const zcta_error *failure)
{
    if (over.number > team->over[index].number)
        team->over[index] = over;
    /* Whoever had joined for good had met all: now that rank alone is missing. */
    if ((!team->joined || team->stale) && team->given_up.status == ZCTA_OK)
        team->given_up = *failure;
}

/* This rank has joined with an attempt that another had given up by then: its next one counts. */
static void become_stale(zcta_team *team)
{
    team->stale = true;
    atomic_store_explicit(&team->interrupted, 1, memory_order_release);
    zc_mesh_wake(team->context->mesh);
}

/* A rank's attempt at a team is over. What was made, or is being made, with that attempt fails,
 * too, if that rank had met all the others; if it had given up waiting for them it may come again.
 * (What was made with an earlier one has ended by common consent, or that rank would have said so.)
 * A rank that could not even begin (number 0) is not waited for. Who waits for others to join goes
 * on, and knows whom to name if nobody comes. False if it means nothing to this team. */
static bool end_attempt(zcta_team *team, uint32_t index, struct zc_over over,
                        const zcta_error *failure, enum zc_cause how)
{
    const bool with_it = team->joined && team->attempts[index] == over.number;
    const bool stale = with_it && !team->made && !over.joined;
    const bool never = over.number == 0 && (!team->joined || team->stale);

    /* All had come since whoever gave up before. */
    if (stale && !team->stale)
        team->given_up.status = ZCTA_OK;
    if (stale)
        become_stale(team);
    if (stale || (!team->joined && !never))
        note_ending(team, index, over, failure);
    else if (with_it || never)
        fail(team, failure, true, how);
    return with_it || never || !team->joined;
}

void zc_team_forget_endings(zcta_context *context, uint64_t identity)
{
    for (uint32_t i = 0; i < ZC_ENDINGS; i++)
        if (context->endings[i].identity == identity)
            context->endings[i].identity = 0;
}

void zc_team_notice_endings(zcta_team *team)
{
    zcta_context *context = team->context;

    for (uint32_t i = 0; i < ZC_ENDINGS; i++) {
        const struct zc_ending *ending = &context->endings[(context->next_ending + i) % ZC_ENDINGS];

        if (ending->identity == team->identity && has_rank(team, ending->rank))
            note_ending(team, index_of(team, ending->rank), ending->over, &ending->failure);
    }
}

/* A rank's latest word counts. */
static void keep_ending(zcta_context *context, const struct zc_ending *ending)
{
    for (uint32_t i = 0; i < ZC_ENDINGS; i++)
        if (context->endings[i].identity == ending->identity &&
            context->endings[i].rank == ending->rank) {
            context->endings[i] = *ending;
            return;
        }
    context->endings[context->next_ending++ % ZC_ENDINGS] = *ending;
}

/* What another rank says ends its attempt for a reason. */
static void hear_why(zcta_context *context, const struct zc_mesh_event *event,
                     const struct team_notice *notice)
{
    const struct zc_over over = {.number = event->number, .joined = notice->joined != 0};
    zcta_error failure = {.status = status_for_others((zcta_status)notice->status),
                          .rank = notice->rank,
                          .call = "collective"};
    bool found = false;

    memcpy(failure.message, notice->message, sizeof failure.message);
    pthread_mutex_lock(&context->lock);
    for (zcta_team *team = context->teams; team != NULL; team = team->next)
        if (team->identity == event->tag && has_rank(team, event->rank))
            found |= end_attempt(team, index_of(team, event->rank), over, &failure,
                                 (enum zc_cause)notice->cause);
    if (!found)
        keep_ending(context, &(struct zc_ending){.identity = event->tag,
                                                 .rank = event->rank,
                                                 .over = over,
                                                 .failure = failure});
    pthread_mutex_unlock(&context->lock);
}

/* The reason is known before that rank's word is gone: who waits for it until just now finds either
 * the word or the reason. */
static void on_notice(zcta_context *context, const struct zc_mesh_event *event)
{
    struct team_notice notice;

    if (event->bytes != sizeof notice)
        return;
    memcpy(&notice, event->data, sizeof notice);
    if (notice.cause > ZC_CAUSE_LEAVE)
        return;
    notice.message[sizeof notice.message - 1] = '\0';
    if (notice.status != ZCTA_OK)
        hear_why(context, event, &notice);
    zc_mesh_drop(context->mesh, event->rank, event->tag, event->number);
    if (notice.tag != 0)
        zc_mesh_drop(context->mesh, event->rank, notice.tag, UINT32_MAX);
}

void zc_team_event(void *data, const struct zc_mesh_event *event)
{
    zcta_context *context = data;

    switch (event->kind) {
    case ZC_MESH_LOST:
    case ZC_MESH_LEFT:
        on_gone(context, event->rank, event->kind == ZC_MESH_LEFT);
        break;
    case ZC_MESH_UNABLE:
        on_unable(context, event->rank);
        break;
    case ZC_MESH_TOLD:
        on_told(context, event->rank, event->gone, event->left);
        break;
    case ZC_MESH_NOTICE:
        on_notice(context, event);
        break;
    }
}
