/* Teams: made once and found again, watched, failed, given back. */
#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "api/objects.h"
#include "base/patience.h"

/* A peer's word that a team has failed. */
struct failure_notice {
    uint32_t status, rank;
    char message[sizeof((zcta_error *)0)->message];
};

/* ---- Failure ---- */

const char *zc_team_title(const zcta_team *team)
{
    return team->name[0] != '\0' ? team->name : "(unnamed)";
}

static void tell_failure(const zcta_team *team, const zcta_error *failure)
{
    struct failure_notice notice = {.status = (uint32_t)failure->status, .rank = failure->rank};

    memcpy(notice.message, failure->message, sizeof notice.message);
    for (uint32_t i = 0; i < team->group.count; i++)
        if (i != team->group.self)
            zc_mesh_notify(team->group.mesh, team->ranks[i], team->group.tag, &notice,
                           sizeof notice);
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

/* The team's engine, for the caller to close: nobody else has it any more. */
static struct zc_engine *take_nccl(zcta_team *team)
{
    struct zc_engine *nccl;

    pthread_mutex_lock(&team->failure_lock);
    nccl = team->nccl;
    team->nccl = NULL;
    pthread_mutex_unlock(&team->failure_lock);
    return nccl;
}

void zc_team_fail(zcta_team *team, const zcta_error *failure)
{
    zcta_context *context = team->context;
    bool first;

    /* The others are told before anybody here can see the failure and end the process, whoever
     * comes second included: what they see next is this rank's socket closing, and they would blame
     * it. */
    pthread_mutex_lock(&team->failure_lock);
    first = team->failure.status == ZCTA_OK;
    if (first) {
        team->failure = *failure;
        tell_failure(team, failure);
        /* Who sees the status finds the sentence. */
        zc_diag_post(&context->diag, failure);
        /* Pairs with the acquire of whoever runs or awaits a program of this team, and comes before
         * abort() looks for communicators; see keep_comm(). */
        atomic_store_explicit(&team->guard.failed, (uint32_t)failure->status, memory_order_seq_cst);
    }
    pthread_mutex_unlock(&team->failure_lock);
    if (!first)
        return;
    context->ops->wake(context->device, &team->guard);
    abort_nccl(team);
    zc_log(&context->diag, ZC_LOG_WARN, "team %s has failed: %s", zc_team_title(team),
           failure->message);
}

zcta_status zc_team_check(zcta_team *team, const char *call)
{
    zcta_error failure;

    if (!zc_team_failed(team))
        return ZCTA_OK;
    pthread_mutex_lock(&team->failure_lock);
    failure = team->failure;
    pthread_mutex_unlock(&team->failure_lock);
    snprintf(failure.call, sizeof failure.call, "%s", call);
    zc_diag_repeat(&team->context->diag, &failure);
    return failure.status;
}

zcta_status zc_team_round(zcta_team *team, const char *call, zcta_status status)
{
    zcta_error failure;

    if (status != ZCTA_ERR_TIMEOUT && status != ZCTA_ERR_PEER)
        return status;
    zc_diag_last(&team->context->diag, &failure);
    failure.status = status;
    zc_team_fail(team, &failure);
    return zc_team_check(team, call);
}

/* A wait has outlasted the team's timeout. */
static void on_missing(void *data, uint32_t peer)
{
    zcta_team *team = data;
    const uint32_t rank = peer == ZCTA_NO_RANK ? ZCTA_NO_RANK : team->ranks[peer];
    const double seconds = (double)team->guard.timeout_ns / 1e9;
    zcta_error failure = {.status = ZCTA_ERR_TIMEOUT, .rank = rank, .call = "collective"};

    if (rank == ZCTA_NO_RANK)
        snprintf(
            failure.message, sizeof failure.message,
            "a collective of team %s that NCCL performs has not finished within %.3g s, though "
            "all ranks%s have begun it",
            zc_team_title(team), seconds, team->node_ranks == 0 ? "" : " of this node");
    else
        snprintf(failure.message, sizeof failure.message,
                 "rank %" PRIu32 " (pid %" PRId64
                 ") did not take part in a collective of team %s within "
                 "%.3g s; it is stopped, busy elsewhere, or made another call or one with other "
                 "arguments (ZEROCTA_CHECK=1 compares them)",
                 rank, zc_mesh_pid(team->group.mesh, rank), zc_team_title(team), seconds);
    zc_team_fail(team, &failure);
}

/* A wait has lasted long, though not yet too long. */
static void on_late(void *data, uint32_t peer, const char *call, uint64_t waited_ns)
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
static void on_broken(void *data, const char *why)
{
    zcta_team *team = data;
    const uint32_t rank = team->ranks[team->group.self];
    zcta_error failure = {.status = ZCTA_ERR_DEVICE, .rank = rank, .call = "NCCL"};

    snprintf(failure.message, sizeof failure.message, "rank %" PRIu32 ", team %s: %.380s", rank,
             zc_team_title(team), why);
    zc_team_fail(team, &failure);
}

static bool has_rank(const zcta_team *team, uint32_t rank)
{
    for (uint32_t i = 0; i < team->group.count; i++)
        if (team->ranks[i] == rank)
            return true;
    return false;
}

static zcta_error gone_failure(const zcta_context *context, uint32_t rank, bool left)
{
    zcta_error failure = {.status = ZCTA_ERR_PEER, .rank = rank, .call = "collective"};

    snprintf(failure.message, sizeof failure.message, "rank %" PRIu32 " (pid %" PRId64 ") %s", rank,
             zc_mesh_pid(context->mesh, rank),
             left ? "left the job while this team still had it"
                  : "ended without leaving the job; its connection has closed");
    return failure;
}

static void on_gone(zcta_context *context, uint32_t rank, bool left)
{
    zcta_error failure;

    pthread_mutex_lock(&context->lock);
    context->gone[rank] = true;
    if (!context->finalizing) {
        failure = gone_failure(context, rank, left);
        for (zcta_team *team = context->teams; team != NULL; team = team->next)
            if (has_rank(team, rank))
                zc_team_fail(team, &failure);
    }
    pthread_mutex_unlock(&context->lock);
}

static void on_notice(zcta_context *context, const struct zc_mesh_event *event)
{
    struct failure_notice notice;
    zcta_error failure = {.call = "collective"};

    if (event->bytes != sizeof notice)
        return;
    memcpy(&notice, event->data, sizeof notice);
    notice.message[sizeof notice.message - 1] = '\0';
    failure.status = notice.status == ZCTA_ERR_TIMEOUT ? ZCTA_ERR_TIMEOUT : ZCTA_ERR_PEER;
    failure.rank = notice.rank;
    memcpy(failure.message, notice.message, sizeof failure.message);
    pthread_mutex_lock(&context->lock);
    /* Passed on: this rank may leave before the first one's word has reached everybody, and would
     * be blamed for it. */
    for (zcta_team *team = context->teams; team != NULL; team = team->next)
        if (team->group.tag == event->tag && has_rank(team, event->rank))
            zc_team_fail(team, &failure);
    pthread_mutex_unlock(&context->lock);
}

void zc_team_event(void *data, const struct zc_mesh_event *event)
{
    zcta_context *context = data;

    switch (event->kind) {
    case ZC_MESH_LOST:
    case ZC_MESH_LEFT:
        on_gone(context, event->rank, event->kind == ZC_MESH_LEFT);
        break;
    case ZC_MESH_NOTICE:
        on_notice(context, event);
        break;
    }
}

/* ---- Making ---- */

/* Counts this attempt at a team of that identity. */
static zcta_status count_attempt(zcta_context *context, uint64_t identity, uint64_t *attempt)
{
    struct zc_attempt *grown;
    zcta_status status = ZCTA_OK;
    uint32_t at = 0;

    pthread_mutex_lock(&context->lock);
    while (at < context->attempt_count && context->attempts[at].identity != identity)
        at++;
    if (at == context->attempt_count) {
        grown = realloc(context->attempts, (at + 1) * sizeof *grown);
        if (grown == NULL) {
            status = zc_fail(&context->diag, ZCTA_ERR_NO_MEMORY, "zcta_team_get", ENOMEM,
                             "out of memory");
            goto out;
        }
        context->attempts = grown;
        context->attempts[context->attempt_count++] = (struct zc_attempt){.identity = identity};
    }
    *attempt = ++context->attempts[at].count;
out:
    pthread_mutex_unlock(&context->lock);
    return status;
}

/* The same on all ranks of a team, different for any two teams. */
static uint64_t identity(const zcta_team *team)
{
    const uint32_t choices[3] = {team->group.count, team->policy, team->engine_choice};
    crypto_generichash_state state;
    uint64_t tag = 0;

    crypto_generichash_init(&state, NULL, 0, 16);
    crypto_generichash_update(&state, (const unsigned char *)choices, sizeof choices);
    crypto_generichash_update(&state, (const unsigned char *)team->ranks,
                              team->group.count * sizeof *team->ranks);
    crypto_generichash_update(&state, (const unsigned char *)team->name, sizeof team->name);
    unsigned char hash[16];
    crypto_generichash_final(&state, hash, sizeof hash);
    memcpy(&tag, hash, sizeof tag);
    return tag;
}

static zcta_status fill(zcta_team *team, const uint32_t *ranks, uint32_t count,
                        const zcta_team_params *params)
{
    zcta_context *context = team->context;
    const uint64_t odd = UINT64_C(0xd1342543de82ef95);
    uint64_t name, attempt = 0;
    zcta_status status;

    team->ranks = calloc(count, sizeof *team->ranks);
    if (team->ranks == NULL)
        return zc_fail(&context->diag, ZCTA_ERR_NO_MEMORY, "zcta_team_get", ENOMEM,
                       "out of memory");
    memcpy(team->ranks, ranks, count * sizeof *ranks);
    team->policy = params->policy == ZCTA_POLICY_UNSET ? ZCTA_POLICY_DEFAULT : params->policy;
    team->engine_choice = params->engine;
    if (params->name != NULL)
        memcpy(team->name, params->name, strlen(params->name));
    team->uses = 1;
    team->group = (struct zc_group){.mesh = context->mesh,
                                    .ops = context->ops,
                                    .device = context->device,
                                    .diag = &context->diag,
                                    .ranks = team->ranks,
                                    .nodes = context->nodes,
                                    .count = count,
                                    .timeout_ns = params->timeout_ns != 0 ? params->timeout_ns
                                                                          : context->timeout_ns};
    while (ranks[team->group.self] != context->job.rank)
        team->group.self++;
    name = identity(team);
    /* The k-th attempt on one rank belongs to the k-th on the others: messages of a team that some
     * rank gave up, or that was given back, are never taken for the next one's. */
    status = count_attempt(context, name, &attempt);
    if (status != ZCTA_OK)
        return status;
    team->group.tag = name + attempt * odd;
    team->guard.timeout_ns = team->group.timeout_ns;
    team->guard.on_missing = on_missing;
    team->guard.on_late = on_late;
    team->guard.on_broken = on_broken;
    team->guard.data = team;
    team->guard.failure = &team->failure;
    return ZCTA_OK;
}

/* From here on events reach the team; a rank that went before is noticed now. */
static void list(zcta_team *team)
{
    zcta_context *context = team->context;

    pthread_mutex_lock(&context->lock);
    team->next = context->teams;
    context->teams = team;
    for (uint32_t i = 0; i < team->group.count; i++)
        if (context->gone[team->ranks[i]]) {
            const zcta_error failure = gone_failure(context, team->ranks[i], false);

            zc_team_fail(team, &failure);
        }
    pthread_mutex_unlock(&context->lock);
}

static void unlist(zcta_team *team)
{
    zcta_context *context = team->context;

    pthread_mutex_lock(&context->lock);
    while (team->visits > 0)
        pthread_cond_wait(&team->left, &context->lock);
    for (zcta_team **at = &context->teams; *at != NULL; at = &(*at)->next)
        if (*at == team) {
            *at = team->next;
            break;
        }
    pthread_mutex_unlock(&context->lock);
}

static const char *const policy_names[] = {"unset", "DEFAULT", "EFFICIENCY", "ZERO"};
static const char *const engine_names[] = {"auto", "ce", "nccl"};

/* Two ranks of a team may share a GPU as processes, which take turns on it. The streams of one
 * process share the GPU's queues, and a wait of one rank may stand in front of the very copy that
 * it waits for. */
static zcta_status check_sharing(const zcta_team *team, uint32_t a, uint32_t b)
{
    const struct zc_mesh *mesh = team->group.mesh;
    const int64_t pid = zc_mesh_pid(mesh, team->ranks[a]);

    if (pid != zc_mesh_pid(mesh, team->ranks[b]) ||
        zc_mesh_host(mesh, team->ranks[a]) != zc_mesh_host(mesh, team->ranks[b]))
        return ZCTA_OK;
    return zc_fail_rank(team->group.diag, ZCTA_ERR_UNSUPPORTED, team->ranks[b], "zcta_team_get", 0,
                        "ranks %" PRIu32 " and %" PRIu32 " are threads of one process (pid %" PRId64
                        ") and on one GPU, where their streams would wait for each other for ever; "
                        "give each a GPU of its own, or make them processes",
                        team->ranks[a], team->ranks[b], pid);
}

/* How many ranks make a node of this team, if nodes are equally many ranks that follow each other.
 */
static uint32_t node_ranks_of(const zcta_team *team)
{
    const uint64_t *nodes = team->context->nodes;
    const uint32_t count = team->group.count;
    uint32_t size = 1;

    if (nodes == NULL)
        return 0;
    while (size < count && nodes[team->ranks[size]] == nodes[team->ranks[0]])
        size++;
    if (size == count)
        return 0;
    for (uint32_t i = 0; i < count; i++) {
        /* Within a node all are one's own; a node that comes twice has too many ranks. */
        if (count % size != 0 || nodes[team->ranks[i]] != nodes[team->ranks[i - i % size]])
            return ZC_UNEVEN;
        for (uint32_t j = 0; j < i - i % size; j++)
            if (nodes[team->ranks[i]] == nodes[team->ranks[j]])
                return ZC_UNEVEN;
    }
    return size;
}

/* What the paths are chosen from, and may differ between ranks: all must know what all have. */
struct rank_facts {
    uint64_t unit, tuned;
    uint64_t nccl, nccl_policy, nccl_off; /* its version, and what the environment does to it */
    uint64_t old_driver;                  /* CUDA's is too old for NCCL's copy engines */
};

static void read_nccl(const zcta_team *team, struct rank_facts *mine)
{
    const struct zc_nccl_facts *nccl = zc_know_nccl(team->context);

    mine->nccl = (uint64_t)nccl->version;
    mine->nccl_policy = (uint64_t)(uint32_t)nccl->forced_policy;
    mine->nccl_off = nccl->switch_off != NULL;
    mine->old_driver = team->context->caps.driver_version < ZC_NCCL_DRIVER_OLDEST;
}

/* One NCCL for all, or none for all. */
static void compare_nccl(zcta_team *team, const struct rank_facts *facts)
{
    const struct rank_facts *first = &facts[0];
    char mine[16], theirs[16];

    for (uint32_t i = 1; i < team->group.count && team->nccl_facts != NULL; i++) {
        const struct rank_facts *other = &facts[i];

        if (other->nccl != first->nccl)
            snprintf(team->no_nccl.why, sizeof team->no_nccl.why,
                     "rank %" PRIu32 " has NCCL %s, rank %" PRIu32
                     " has %s (0.0.0: none that can be used); make them alike",
                     team->ranks[0], zc_nccl_version_text((int)first->nccl, mine), team->ranks[i],
                     zc_nccl_version_text((int)other->nccl, theirs));
        else if (other->nccl_policy != first->nccl_policy || other->nccl_off != first->nccl_off ||
                 other->old_driver != first->old_driver)
            snprintf(team->no_nccl.why, sizeof team->no_nccl.why,
                     "ranks %" PRIu32 " and %" PRIu32 " have different %s; make them alike",
                     team->ranks[0], team->ranks[i],
                     other->old_driver != first->old_driver
                         ? "CUDA drivers, one older than 12.5 and one not"
                         : "NCCL_* variables");
        else
            continue;
        team->nccl_facts = &team->no_nccl;
        return;
    }
}

static zcta_status compare_ranks(zcta_team *team, const struct rank_facts *facts)
{
    zcta_status status = ZCTA_OK;
    bool same = facts[0].tuned != 0;

    for (uint32_t i = 0; i < team->group.count && status == ZCTA_OK; i++) {
        same = same && facts[i].tuned == facts[0].tuned;
        for (uint32_t j = 0; j < i && status == ZCTA_OK; j++)
            if (facts[i].unit == facts[j].unit) {
                team->shared_gpu = true;
                team->position_shared |= team->node_ranks != 0 && team->node_ranks != ZC_UNEVEN &&
                                         i % team->node_ranks == j % team->node_ranks;
                status = check_sharing(team, j, i);
            }
    }
    team->tuned = same ? zc_know_tuned(team->context) : NULL;
    if (team->tuned != NULL)
        team->nccl_facts = zc_know_nccl(team->context);
    compare_nccl(team, facts);
    return status;
}

static zcta_status tell_facts(zcta_team *team)
{
    const bool automatic = team->engine_choice == ZCTA_ENGINE_AUTO;
    struct rank_facts mine = {.unit = team->context->caps.unit}, *all = NULL;
    zcta_status status;

    if (mine.unit == 0)
        return ZCTA_OK;
    if (team->engine_choice == ZCTA_ENGINE_NCCL || team->node_ranks != 0)
        team->nccl_facts = zc_know_nccl(team->context);
    mine.tuned = automatic ? zc_tuned_digest(zc_know_tuned(team->context)) : 0;
    if (team->nccl_facts != NULL || mine.tuned != 0)
        read_nccl(team, &mine);
    all = calloc(team->group.count, sizeof *all);
    if (all == NULL)
        return zc_fail(team->group.diag, ZCTA_ERR_NO_MEMORY, "zcta_team_get", ENOMEM,
                       "out of memory");
    status = zc_group_exchange(&team->group, "zcta_team_get", "did not join the team",
                               ZC_TOPIC_UNITS, &mine, all, sizeof mine);
    if (status == ZCTA_OK)
        status = compare_ranks(team, all);
    free(all);
    return status;
}

zcta_status zc_team_make(zcta_context *context, const uint32_t *ranks, uint32_t count,
                         const zcta_team_params *params, zcta_team **team)
{
    zcta_team *made = calloc(1, sizeof *made);
    zcta_status status;

    if (made == NULL)
        return zc_fail(&context->diag, ZCTA_ERR_NO_MEMORY, "zcta_team_get", ENOMEM,
                       "out of memory");
    made->context = context;
    pthread_mutex_init(&made->failure_lock, NULL);
    pthread_cond_init(&made->left, NULL);
    status = fill(made, ranks, count, params);
    if (status != ZCTA_OK)
        goto fail;
    made->node_ranks = node_ranks_of(made);
    status = zc_engine_ce.open(&made->group, &made->guard, &made->ce);
    if (status == ZCTA_OK)
        status = tell_facts(made);
    if (status != ZCTA_OK)
        goto fail;
    list(made);
    zc_log(&context->diag, ZC_LOG_INFO, "team %s: %" PRIu32 " ranks, engine %s, CTA policy %s",
           zc_team_title(made), count, engine_names[made->engine_choice],
           policy_names[made->policy]);
    *team = made;
    return ZCTA_OK;
fail:
    zc_team_free(made);
    return status;
}

void zc_team_free(zcta_team *team)
{
    if (team == NULL)
        return;
    unlist(team);
    for (uint32_t i = 0; i < ZC_CACHE_ENTRIES; i++)
        zc_unsettle(team, &team->cache[i]);
    zc_engine_nccl.close(take_nccl(team));
    zc_engine_ce.close(team->ce);
    pthread_cond_destroy(&team->left);
    pthread_mutex_destroy(&team->failure_lock);
    free(team->ranks);
    free(team);
}

/* ---- NCCL ---- */

zcta_status zc_team_compare_nccl(zcta_team *team)
{
    struct rank_facts mine = {0}, *all = NULL;
    zcta_status status = zc_team_check(team, "zcta_all_gather");

    /* Under check a rank that refuses the call tells the others so. */
    if (status != ZCTA_OK || team->nccl_facts != NULL || team->context->check ||
        team->context->caps.unit == 0)
        return status;
    all = calloc(team->group.count, sizeof *all);
    if (all == NULL)
        return zc_fail(team->group.diag, ZCTA_ERR_NO_MEMORY, "zcta_all_gather", ENOMEM,
                       "out of memory");
    read_nccl(team, &mine);
    status = zc_team_round(team, "zcta_all_gather",
                           zc_group_exchange(&team->group, "zcta_all_gather",
                                             "did not come to the first call by NCCL",
                                             ZC_TOPIC_UNITS, &mine, all, sizeof mine));
    if (status == ZCTA_OK) {
        team->nccl_facts = zc_know_nccl(team->context);
        compare_nccl(team, all);
    }
    free(all);
    return status;
}

zcta_status zc_team_nccl(zcta_team *team, struct zc_engine **engine)
{
    struct zc_engine *made = NULL;
    zcta_status status = ZCTA_OK;

    /* Only the team's own thread, which is this one, opens and closes it. */
    if (team->nccl == NULL) {
        status = zc_engine_nccl.open(&team->group, &team->guard, &made);
        pthread_mutex_lock(&team->failure_lock);
        team->nccl = made;
        pthread_mutex_unlock(&team->failure_lock);
    }
    *engine = team->nccl;
    return status;
}

/* The team with the lowest tag above `above`: the tags are the same on all ranks, the list is not.
 * It is visited until leave_team(). */
static zcta_team *visit_next(zcta_context *context, uint64_t above, bool first)
{
    zcta_team *lowest = NULL;

    pthread_mutex_lock(&context->lock);
    for (zcta_team *team = context->teams; team != NULL; team = team->next)
        if ((first || team->group.tag > above) &&
            (lowest == NULL || team->group.tag < lowest->group.tag))
            lowest = team;
    if (lowest != NULL)
        lowest->visits++;
    pthread_mutex_unlock(&context->lock);
    return lowest;
}

/* Returns the team's tag; it may be gone afterwards. */
static uint64_t leave_team(zcta_team *team)
{
    zcta_context *context = team->context;
    const uint64_t tag = team->group.tag;

    pthread_mutex_lock(&context->lock);
    team->visits--;
    pthread_cond_broadcast(&team->left);
    pthread_mutex_unlock(&context->lock);
    return tag;
}

/* The engine stays while its team is visited: it is closed after the team has been unlisted. */
static struct zc_engine *nccl_of(zcta_team *team)
{
    struct zc_engine *nccl;

    pthread_mutex_lock(&team->failure_lock);
    nccl = team->nccl;
    pthread_mutex_unlock(&team->failure_lock);
    return nccl;
}

void zc_teams_forget(zcta_context *context, const void *base)
{
    uint64_t tag = 0;

    for (zcta_team *team = visit_next(context, 0, true); team != NULL;
         team = visit_next(context, tag, false)) {
        struct zc_engine *nccl = nccl_of(team);

        if (nccl != NULL)
            zc_engine_nccl.forget(nccl, base);
        tag = leave_team(team);
    }
}

void zc_teams_end_nccl(zcta_context *context)
{
    uint64_t tag = 0;

    for (zcta_team *team = visit_next(context, 0, true); team != NULL;
         team = visit_next(context, tag, false)) {
        struct zc_engine *nccl = take_nccl(team);

        for (uint32_t i = 0; i < ZC_CACHE_ENTRIES && nccl != NULL; i++)
            if (team->cache[i].engine == nccl)
                zc_unsettle(team, &team->cache[i]);
        zc_engine_nccl.close(nccl);
        tag = leave_team(team);
    }
}

/* ---- Public ---- */

static zcta_status check_ranks(zcta_context *context, const uint32_t *ranks, uint32_t count)
{
    const uint32_t world = context->job.rank_count;
    bool *seen = NULL;
    bool own = false;
    zcta_status status = ZCTA_OK;

    if (ranks == NULL || count == 0 || count > world)
        return zc_fail(&context->diag, ZCTA_ERR_INVALID, "zcta_team_get", 0,
                       "a team has 1 to %" PRIu32 " ranks, not %" PRIu32, world,
                       ranks == NULL ? 0 : count);
    seen = calloc(world, sizeof *seen);
    if (seen == NULL)
        return zc_fail(&context->diag, ZCTA_ERR_NO_MEMORY, "zcta_team_get", ENOMEM,
                       "out of memory");
    for (uint32_t i = 0; i < count && status == ZCTA_OK; i++) {
        if (ranks[i] >= world)
            status = zc_fail(&context->diag, ZCTA_ERR_INVALID, "zcta_team_get", 0,
                             "rank %" PRIu32 " is unknown: the world has ranks 0 to %" PRIu32,
                             ranks[i], world - 1);
        else if (seen[ranks[i]])
            status = zc_fail(&context->diag, ZCTA_ERR_INVALID, "zcta_team_get", 0,
                             "rank %" PRIu32 " is listed twice", ranks[i]);
        else
            seen[ranks[i]] = true;
        own |= ranks[i] == context->job.rank;
    }
    if (status == ZCTA_OK && !own)
        status =
            zc_fail(&context->diag, ZCTA_ERR_INVALID, "zcta_team_get", 0,
                    "the caller, rank %" PRIu32 ", is not in the list; only members make a team",
                    context->job.rank);
    free(seen);
    return status;
}

static zcta_status read_params(zcta_context *context, const char *call,
                               const zcta_team_params *given, zcta_team_params *params)
{
    zcta_status status = zc_params_read(&context->diag, call, given, params, sizeof *params);

    if (status != ZCTA_OK)
        return status;
    if ((uint32_t)params->policy > ZCTA_POLICY_ZERO || (uint32_t)params->engine > ZCTA_ENGINE_NCCL)
        return zc_fail(&context->diag, ZCTA_ERR_INVALID, call, 0,
                       "policy %d or engine %d does not exist", (int)params->policy,
                       (int)params->engine);
    if (params->name != NULL && strnlen(params->name, ZC_NAME_BYTES) >= ZC_NAME_BYTES)
        return zc_fail(&context->diag, ZCTA_ERR_INVALID, call, 0,
                       "a team's name has at most %d bytes", ZC_NAME_BYTES - 1);
    return ZCTA_OK;
}

static bool is_same(const zcta_team *team, const uint32_t *ranks, uint32_t count,
                    const zcta_team_params *params)
{
    const zcta_policy policy =
        params->policy == ZCTA_POLICY_UNSET ? ZCTA_POLICY_DEFAULT : params->policy;

    return team->group.count == count && memcmp(team->ranks, ranks, count * sizeof *ranks) == 0 &&
           team->policy == policy && team->engine_choice == params->engine &&
           strcmp(team->name, params->name == NULL ? "" : params->name) == 0;
}

static zcta_team *find(zcta_context *context, const uint32_t *ranks, uint32_t count,
                       const zcta_team_params *params)
{
    zcta_team *team;

    pthread_mutex_lock(&context->lock);
    for (team = context->teams; team != NULL; team = team->next)
        if (is_same(team, ranks, count, params)) {
            team->uses++;
            break;
        }
    pthread_mutex_unlock(&context->lock);
    return team;
}

zcta_status zcta_team_get(zcta_context *context, const uint32_t *ranks, uint32_t rank_count,
                          const zcta_team_params *given, zcta_team **team)
{
    zcta_team_params params;
    zcta_team *found;
    zcta_status status;

    if (context == NULL || team == NULL)
        return zc_fail_null(context != NULL ? &context->diag : NULL, "zcta_team_get",
                            context == NULL ? "context" : "team");
    status = read_params(context, "zcta_team_get", given, &params);
    if (status == ZCTA_OK)
        status = check_ranks(context, ranks, rank_count);
    if (status != ZCTA_OK)
        return status;
    found = find(context, ranks, rank_count, &params);
    if (found == NULL)
        return zc_team_make(context, ranks, rank_count, &params, team);
    *team = found;
    return ZCTA_OK;
}

struct split_entry {
    int32_t color, key;
};

/* The world ranks of those with the caller's color, ordered by key, then by rank. */
static uint32_t gather_color(const zcta_team *team, const struct split_entry *entries,
                             uint32_t *ranks)
{
    const struct split_entry own = entries[team->group.self];
    uint32_t count = 0;

    for (uint32_t i = 0; i < team->group.count; i++) {
        uint32_t at = count;

        if (entries[i].color != own.color)
            continue;
        /* Insertion keeps equal keys in the order of ranks. */
        while (at > 0 && entries[ranks[at - 1]].key > entries[i].key) {
            ranks[at] = ranks[at - 1];
            at--;
        }
        ranks[at] = i;
        count++;
    }
    for (uint32_t i = 0; i < count; i++)
        ranks[i] = team->ranks[ranks[i]];
    return count;
}

zcta_status zcta_team_split(zcta_team *team, int32_t color, int32_t key,
                            const zcta_team_params *params, zcta_team **part)
{
    const struct split_entry mine = {.color = color, .key = key};
    struct split_entry *entries = NULL;
    uint32_t *ranks = NULL;
    zcta_status status;

    if (team == NULL || part == NULL)
        return zc_fail_null(team != NULL ? team->group.diag : NULL, "zcta_team_split",
                            team == NULL ? "team" : "part");
    status = zc_team_check(team, "zcta_team_split");
    if (status != ZCTA_OK)
        return status;
    entries = calloc(team->group.count, sizeof *entries);
    ranks = calloc(team->group.count, sizeof *ranks);
    if (entries == NULL || ranks == NULL) {
        status = zc_fail(team->group.diag, ZCTA_ERR_NO_MEMORY, "zcta_team_split", ENOMEM,
                         "out of memory");
        goto out;
    }
    status =
        zc_team_round(team, "zcta_team_split",
                      zc_group_exchange(&team->group, "zcta_team_split", "did not split the team",
                                        ZC_TOPIC_SPLIT, &mine, entries, sizeof mine));
    if (status != ZCTA_OK)
        goto out;
    if (color < 0)
        *part = NULL;
    else
        status =
            zcta_team_get(team->context, ranks, gather_color(team, entries, ranks), params, part);
out:
    free(ranks);
    free(entries);
    return status;
}

/* Drops one use; true if it was the last. */
static bool last_use(zcta_team *team)
{
    bool last;

    pthread_mutex_lock(&team->context->lock);
    last = --team->uses == 0;
    pthread_mutex_unlock(&team->context->lock);
    return last;
}

zcta_status zcta_team_destroy(zcta_team **handle)
{
    zcta_team *team = handle == NULL ? NULL : *handle;
    zcta_status status;

    if (team == NULL)
        return zc_fail_null(NULL, "zcta_team_destroy", "team, or what it points to,");
    if (team == team->context->world)
        return zc_fail(team->group.diag, ZCTA_ERR_INVALID, "zcta_team_destroy", 0,
                       "the world ends with zcta_finalize()");
    if (team->uses == 1 && (team->window_count > 0 || team->plan_count > 0))
        return zc_fail(team->group.diag, ZCTA_ERR_BUSY, "zcta_team_destroy", 0,
                       "team %s still has %" PRIu32 " windows and %" PRIu32
                       " plans; free them first",
                       zc_team_title(team), team->window_count, team->plan_count);
    *handle = NULL;
    if (!last_use(team))
        return ZCTA_OK;
    team->group.ops->drain(team->group.device, &team->guard);
    status = zc_team_failed(team)
                 ? ZCTA_OK
                 : zc_group_exchange(&team->group, "zcta_team_destroy",
                                     "did not give the team back", ZC_TOPIC_FREE, NULL, NULL, 0);
    zc_team_free(team);
    return status;
}

uint32_t zcta_team_rank(const zcta_team *team)
{
    return team == NULL ? ZCTA_NO_RANK : team->group.self;
}

uint32_t zcta_team_rank_count(const zcta_team *team)
{
    return team == NULL ? 0 : team->group.count;
}

uint32_t zcta_team_world_rank(const zcta_team *team, uint32_t rank)
{
    return team == NULL || rank >= team->group.count ? ZCTA_NO_RANK : team->ranks[rank];
}

zcta_policy zcta_team_policy(const zcta_team *team)
{
    return team == NULL ? ZCTA_POLICY_UNSET : team->policy;
}

zcta_engine zcta_team_engine(const zcta_team *team)
{
    return team == NULL ? ZCTA_ENGINE_AUTO : team->engine_choice;
}

zcta_status zcta_team_status(zcta_team *team)
{
    return team == NULL ? zc_fail_null(NULL, "zcta_team_status", "team")
                        : zc_team_check(team, "zcta_team_status");
}

zcta_status zcta_team_failure(zcta_team *team, zcta_error *error)
{
    if (team == NULL || error == NULL)
        return zc_fail_null(team != NULL ? team->group.diag : NULL, "zcta_team_failure",
                            team == NULL ? "team" : "error");
    pthread_mutex_lock(&team->failure_lock);
    *error = team->failure;
    pthread_mutex_unlock(&team->failure_lock);
    return ZCTA_OK;
}

zcta_status zcta_team_counters(zcta_team *team, zcta_path_counter *counters, uint32_t *count)
{
    uint32_t written = 0;

    if (team == NULL || count == NULL)
        return zc_fail_null(team != NULL ? team->group.diag : NULL, "zcta_team_counters",
                            team == NULL ? "team" : "count");
    for (uint32_t i = 0; counters != NULL && i < ZC_PATHS && written < *count; i++) {
        const enum zc_path path = (enum zc_path)i;
        zcta_path_counter *counter = &counters[written++];

        snprintf(counter->path, sizeof counter->path, "%s/%s/%s",
                 zc_collective_name(zc_path_collective(path)), zc_path_engine(path),
                 zc_path_name(path));
        counter->calls = atomic_load_explicit(&team->counters[i].calls, memory_order_relaxed);
        counter->bytes = atomic_load_explicit(&team->counters[i].bytes, memory_order_relaxed);
        counter->fallbacks =
            atomic_load_explicit(&team->counters[i].fallbacks, memory_order_relaxed);
    }
    *count = ZC_PATHS;
    return ZCTA_OK;
}
