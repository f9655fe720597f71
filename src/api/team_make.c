/* Making teams. The ranks of a team may come to it at different times, give up and come again, and
 * a rank may hear of another's end at any moment of it. So a team is listed from the beginning, and
 * its making begins with a word that stands (zc_mesh_join()): «I make this team, for the n-th
 * time». The attempts of all ranks together name the team on the mesh. A rank that gives an attempt
 * up says so, which takes its word back and ends the attempts that were built on it; who still
 * waits to join goes on waiting, and meets the next attempt. */
#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "api/objects.h"

static const char *const policy_names[] = {"unset", "DEFAULT", "EFFICIENCY", "ZERO"};
static const char *const engine_names[] = {"auto", "ce", "nccl"};

/* ---- Joining ---- */

/* The same on all ranks for the same list, policy, engine and name; different for any two others.
 */
static uint64_t identity_of(const uint32_t *ranks, uint32_t count, const zcta_team_params *params)
{
    const uint32_t choices[3] = {count, params->policy, params->engine};
    char name[ZC_NAME_BYTES] = "";
    crypto_generichash_state state;
    unsigned char hash[16];
    uint64_t identity;

    if (params->name != NULL)
        memcpy(name, params->name, strlen(params->name));
    crypto_generichash_init(&state, NULL, 0, sizeof hash);
    crypto_generichash_update(&state, (const unsigned char *)choices, sizeof choices);
    crypto_generichash_update(&state, (const unsigned char *)ranks, count * sizeof *ranks);
    crypto_generichash_update(&state, (const unsigned char *)name, sizeof name);
    crypto_generichash_final(&state, hash, sizeof hash);
    memcpy(&identity, hash, sizeof identity);
    return identity;
}

/* The tag of a team that was made by these attempts. Never 0. */
static uint64_t tag_of(const zcta_team *team)
{
    unsigned char hash[16];
    uint64_t tag;

    crypto_generichash(hash, sizeof hash, (const unsigned char *)team->attempts,
                       team->group.count * sizeof *team->attempts,
                       (const unsigned char *)&team->identity, sizeof team->identity);
    memcpy(&tag, hash, sizeof tag);
    return tag | 1;
}

static zcta_status fail_stale(const zcta_team *team)
{
    return zc_fail(team->group.diag, ZCTA_ERR_PEER, "zcta_team_get", 0,
                   "a rank gave up making team %s while this one joined it", zc_team_title(team));
}

/* Whether all attempts still hold; from here on what ends one ends the team. */
static zcta_status resolve_attempts(zcta_team *team, const uint32_t *attempts)
{
    zcta_context *context = team->context;
    zcta_error failure = {.status = ZCTA_ERR_PEER, .call = "zcta_team_get"};
    bool stale = false;

    pthread_mutex_lock(&context->lock);
    memcpy(team->attempts, attempts, team->group.count * sizeof *attempts);
    team->joined = true;
    pthread_mutex_lock(&team->failure_lock);
    team->group.tag = tag_of(team);
    pthread_mutex_unlock(&team->failure_lock);
    for (uint32_t i = 0; i < team->group.count && failure.message[0] == '\0'; i++) {
        const bool over = team->over[i].number >= attempts[i];

        stale = stale || (over && !team->over[i].joined);
        if (over && team->over[i].joined) {
            failure.rank = team->ranks[i];
            snprintf(failure.message, sizeof failure.message,
                     "rank %" PRIu32 " gave up making team %s: its own output says why",
                     team->ranks[i], zc_team_title(team));
            stale = false;
        }
    }
    team->stale = stale;
    if (!stale)
        team->given_up.status = ZCTA_OK; /* all had come */
    pthread_mutex_unlock(&context->lock);
    if (failure.message[0] != '\0')
        return zc_team_broken(team, &failure);
    return stale ? fail_stale(team) : zc_team_check(team, failure.call);
}

/* Nobody came in time. Who gave up before knows better for whom it had waited than who waits last,
 * and finds those gone, too. */
static void name_absent(zcta_team *team)
{
    zcta_error given_up;

    pthread_mutex_lock(&team->context->lock);
    given_up = team->given_up;
    pthread_mutex_unlock(&team->context->lock);
    if (given_up.status != ZCTA_OK)
        zc_diag_repeat(team->group.diag, &given_up);
}

static zcta_status join(zcta_team *team, uint64_t begun)
{
    uint32_t *attempts = calloc(team->group.count, sizeof *attempts);
    const struct zc_exchange exchange = {.ranks = team->ranks,
                                         .count = team->group.count,
                                         .tag = team->identity,
                                         .number = team->attempt,
                                         .mine = &team->attempt,
                                         .all = attempts,
                                         .bytes = sizeof team->attempt,
                                         .fd = -1,
                                         .since = begun,
                                         .deadline = zc_after_ns(begun, team->group.timeout_ns),
                                         .over = team->group.over,
                                         .call = "zcta_team_get",
                                         .what = "did not join the team"};
    zcta_status status;

    if (attempts == NULL) {
        status =
            zc_fail(team->group.diag, ZCTA_ERR_NO_MEMORY, "zcta_team_get", ENOMEM, "out of memory");
        return zc_group_give_up(&team->group, status);
    }
    status = zc_mesh_join(team->group.mesh, &exchange);
    if (status == ZCTA_ERR_TIMEOUT)
        name_absent(team);
    if (status != ZCTA_OK)
        status = zc_group_give_up(&team->group, status);
    else
        status = resolve_attempts(team, attempts);
    free(attempts);
    return status;
}

/* ---- The team itself ---- */

static zcta_status fill(zcta_team *team, const uint32_t *ranks, uint32_t count,
                        const zcta_team_params *params)
{
    zcta_context *context = team->context;

    team->ranks = calloc(count, sizeof *team->ranks);
    team->attempts = calloc(count, sizeof *team->attempts);
    team->over = calloc(count, sizeof *team->over);
    if (team->ranks == NULL || team->attempts == NULL || team->over == NULL)
        return zc_fail(&context->diag, ZCTA_ERR_NO_MEMORY, "zcta_team_get", ENOMEM,
                       "out of memory");
    memcpy(team->ranks, ranks, count * sizeof *ranks);
    team->policy = params->policy;
    team->engine_choice = params->engine;
    if (params->name != NULL)
        memcpy(team->name, params->name, strlen(params->name));
    team->uses = 1;
    team->identity = identity_of(ranks, count, params);
    team->group = (struct zc_group){.mesh = context->mesh,
                                    .ops = context->ops,
                                    .device = context->device,
                                    .diag = &context->diag,
                                    .ranks = team->ranks,
                                    .count = count,
                                    .rounds = &team->rounds,
                                    .over = &team->interrupted,
                                    .timeout_ns = params->timeout_ns != 0 ? params->timeout_ns
                                                                          : context->timeout_ns,
                                    .broken = zc_team_broken,
                                    .broken_data = team};
    while (ranks[team->group.self] != context->job.rank)
        team->group.self++;
    team->guard.timeout_ns = team->group.timeout_ns;
    team->guard.on_missing = zc_team_on_missing;
    team->guard.on_late = zc_team_on_late;
    team->guard.on_mismatch = zc_on_mismatch;
    team->guard.on_broken = zc_team_on_broken;
    team->guard.data = team;
    team->guard.failure = &team->failure;
    return ZCTA_OK;
}

/* From here on events reach the team; a rank that went before is noticed now. */
static void list(zcta_team *team)
{
    zcta_context *context = team->context;

    pthread_mutex_lock(&context->lock);
    team->attempt = ++context->attempts;
    team->next = context->teams;
    context->teams = team;
    zc_team_notice_endings(team);
    zc_team_notice_losses(team, false);
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
            return ZC_UNEVEN_NODES;
        for (uint32_t j = 0; j < i - i % size; j++)
            if (nodes[team->ranks[i]] == nodes[team->ranks[j]])
                return ZC_UNEVEN_NODES;
    }
    return size;
}

static zcta_status compare_ranks(zcta_team *team, const struct zc_rank_facts *facts)
{
    zcta_status status = ZCTA_OK;
    bool same = facts[0].tuned != 0;

    for (uint32_t i = 0; i < team->group.count && status == ZCTA_OK; i++) {
        same = same && facts[i].tuned == facts[0].tuned;
        for (uint32_t j = 0; j < i && status == ZCTA_OK; j++)
            if (facts[i].gpu_id == facts[j].gpu_id) {
                team->shared_gpu = true;
                team->rail_shared |= team->node_ranks != 0 && team->node_ranks != ZC_UNEVEN_NODES &&
                                     i % team->node_ranks == j % team->node_ranks;
                status = check_sharing(team, j, i);
            }
    }
    team->tuned = same ? zc_load_tuned(team->context) : NULL;
    if (team->tuned != NULL)
        team->nccl_facts = zc_load_nccl(team->context);
    zc_team_compare_facts(team, facts);
    return status;
}

static zcta_status tell_facts(zcta_team *team)
{
    const bool automatic = team->engine_choice == ZCTA_ENGINE_AUTO;
    struct zc_rank_facts mine = {.gpu_id = team->context->caps.gpu_id}, *all = NULL;
    zcta_status status;

    if (mine.gpu_id == 0)
        return ZCTA_OK;
    if (team->engine_choice == ZCTA_ENGINE_NCCL || team->node_ranks != 0)
        team->nccl_facts = zc_load_nccl(team->context);
    mine.tuned = automatic ? zc_tuned_digest(zc_load_tuned(team->context)) : 0;
    if (team->nccl_facts != NULL || mine.tuned != 0)
        zc_team_read_nccl(team, &mine);
    all = calloc(team->group.count, sizeof *all);
    if (all == NULL) {
        status =
            zc_fail(team->group.diag, ZCTA_ERR_NO_MEMORY, "zcta_team_get", ENOMEM, "out of memory");
        return zc_group_give_up(&team->group, status);
    }
    status = zc_group_exchange(&team->group, "zcta_team_get", "did not join the team",
                               ZC_TOPIC_FACTS, &mine, all, sizeof mine);
    if (status == ZCTA_OK)
        status = compare_ranks(team, all);
    free(all);
    return status;
}

/* It is everybody's to find from now on. The words that it began with need not stand any longer. */
static zcta_status publish(zcta_team *team)
{
    zcta_context *context = team->context;
    bool stale;

    pthread_mutex_lock(&context->lock);
    stale = team->stale;
    if (!stale)
        zc_team_notice_losses(team, true);
    pthread_mutex_lock(&team->failure_lock);
    team->made = !stale && team->failure.status == ZCTA_OK;
    if (team->made)
        zc_team_forget_endings(context, team->identity);
    pthread_mutex_unlock(&team->failure_lock);
    pthread_mutex_unlock(&context->lock);
    if (stale)
        return fail_stale(team);
    for (uint32_t i = 0; i < team->group.count; i++)
        zc_mesh_drop(context->mesh, team->ranks[i], team->identity, team->attempts[i]);
    return zc_team_check(team, "zcta_team_get");
}

static bool has_ranks_apart(const zcta_team *team)
{
    const zcta_context *context = team->context;
    bool apart = false;

    for (uint32_t i = 0; context->reach != NULL && i < team->group.count; i++)
        for (uint32_t j = 0; j < i; j++)
            apart = apart || !zc_reach_of(context, team->ranks[i])[team->ranks[j]];
    return apart;
}

/* Where its ranks are; the first team, the world, finds that out. */
static zcta_status find_places(zcta_team *team)
{
    zcta_context *context = team->context;
    zcta_status status = context->world == NULL ? zc_learn_places(team) : ZCTA_OK;

    if (status != ZCTA_OK)
        return status;
    team->group.nodes = context->nodes;
    team->group.reach = zc_reach_of(context, context->job.rank);
    team->group.apart = has_ranks_apart(team);
    team->node_ranks = node_ranks_of(team);
    return ZCTA_OK;
}

/* One try; after one that has failed another may follow, see zc_team_go_back(). */
static zcta_status put_together(zcta_team *team, uint64_t begun)
{
    zcta_status status = join(team, begun);

    /* Of the try before. */
    zc_engine_ce.close(team->ce);
    team->ce = NULL;
    if (status == ZCTA_OK)
        status = find_places(team);
    if (status == ZCTA_OK)
        status = zc_engine_ce.open(&team->group, &team->guard, &team->ce);
    if (status == ZCTA_OK)
        status = tell_facts(team);
    if (status == ZCTA_OK)
        status = publish(team);
    return status;
}

zcta_status zc_team_make(zcta_context *context, const uint32_t *ranks, uint32_t count,
                         const zcta_team_params *given, zcta_team **team)
{
    static const zcta_error none = {.rank = ZCTA_NO_RANK};
    zcta_team_params params = *given;
    zcta_team *made = calloc(1, sizeof *made);
    zcta_status status;
    uint64_t begun;

    if (params.policy == ZCTA_POLICY_UNSET)
        params.policy = ZCTA_POLICY_DEFAULT;
    if (made == NULL) {
        status =
            zc_fail(&context->diag, ZCTA_ERR_NO_MEMORY, "zcta_team_get", ENOMEM, "out of memory");
        goto refuse;
    }
    made->context = context;
    pthread_mutex_init(&made->failure_lock, NULL);
    pthread_cond_init(&made->left, NULL);
    status = fill(made, ranks, count, &params);
    if (status != ZCTA_OK) {
        zc_team_free(made);
        goto refuse;
    }
    list(made);
    begun = zc_now_ns();
    do
        status = put_together(made, begun);
    while (status != ZCTA_OK && zc_team_go_back(made));
    /* What it was interrupted by says more than that it was. */
    if (status != ZCTA_OK && zc_team_failed(made))
        status = zc_team_check(made, "zcta_team_get");
    if (status != ZCTA_OK) {
        /* What all ranks have found out together fails no team, but this attempt has ended. */
        if (!zc_team_failed(made))
            zc_team_tell(made, &none);
        zc_team_free(made);
        return status;
    }
    zc_log(&context->diag, ZC_LOG_INFO, "team %s: %" PRIu32 " ranks, engine %s, CTA policy %s",
           zc_team_title(made), count, engine_names[made->engine_choice],
           policy_names[made->policy]);
    *team = made;
    return ZCTA_OK;
refuse:
    zc_team_refuse(context, ranks, count, identity_of(ranks, count, &params));
    return status;
}

void zc_team_free(zcta_team *team)
{
    if (team == NULL)
        return;
    unlist(team);
    for (uint32_t i = 0; i < ZC_CACHE_ENTRIES; i++)
        zc_resolved_free(&team->cache[i]);
    zc_team_close_nccl(team);
    zc_engine_ce.close(team->ce);
    if (zc_team_failed(team)) {
        /* Said once more, behind all that this rank has sent for the team: now nothing of it is
         * under way any more, here or there. */
        zc_team_tell(team, &team->failure);
        for (uint32_t i = 0; i < team->group.count; i++)
            zc_mesh_drop(team->group.mesh, team->ranks[i], team->group.tag, UINT32_MAX);
    }
    if (team->guard.kept)
        return;
    pthread_cond_destroy(&team->left);
    pthread_mutex_destroy(&team->failure_lock);
    free(team->over);
    free(team->attempts);
    free(team->ranks);
    free(team);
}
