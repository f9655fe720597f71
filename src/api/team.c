/* Teams: found, split, asked, given back. Making is in team_make.c, failing in team_failure.c, what
 * concerns NCCL in team_nccl.c. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "api/objects.h"

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
        if (team->made && is_same(team, ranks, count, params)) {
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
    status = zc_check_process(&context->diag, "zcta_team_get");
    if (status == ZCTA_OK)
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
        status = zc_group_give_up(&team->group, status);
        goto out;
    }
    status = zc_group_exchange(&team->group, "zcta_team_split", "did not split the team",
                               ZC_TOPIC_SPLIT, &mine, entries, sizeof mine);
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

/* Drops one use; true if it was the last. From then on a rank that goes is missed only if it owes
 * its part of the round in which the team is given back. */
static bool last_use(zcta_team *team)
{
    bool last;

    pthread_mutex_lock(&team->context->lock);
    last = --team->uses == 0;
    team->leaving = last;
    pthread_mutex_unlock(&team->context->lock);
    return last;
}

zcta_status zcta_team_destroy(zcta_team **handle)
{
    zcta_team *team = handle == NULL ? NULL : *handle;
    zcta_status status;

    if (team == NULL)
        return zc_fail_null(NULL, "zcta_team_destroy", "team, or what it points to,");
    status = zc_check_process(team->group.diag, "zcta_team_destroy");
    if (status != ZCTA_OK)
        return status;
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

static void write_counter(const zcta_team *team, uint32_t collective, uint32_t path,
                          zcta_path_counter *counter)
{
    const struct zc_team_counters *counters = &team->counters[collective][path];
    zcta_path_counter made = {.calls = atomic_load_explicit(&counters->calls, memory_order_relaxed),
                              .bytes = atomic_load_explicit(&counters->bytes, memory_order_relaxed),
                              .fallbacks =
                                  atomic_load_explicit(&counters->fallbacks, memory_order_relaxed)};

    snprintf(made.path, sizeof made.path, "%s/%s/%s",
             zc_collective_of((zcta_collective)collective)->name,
             zc_path_engine((enum zc_path)path), zc_path_name((enum zc_path)path));
    zc_params_write(counter, &made, sizeof made);
}

static bool has_run(const zcta_team *team, uint32_t collective, uint32_t path)
{
    return atomic_load_explicit(&team->counters[collective][path].calls, memory_order_relaxed) > 0;
}

/* The next of the caller's structs, which are as large as its header has them. */
static zcta_path_counter *next_counter(zcta_path_counter *counter)
{
    return (zcta_path_counter *)((char *)counter + counter->size);
}

static zcta_status check_counters(const zcta_team *team, const char *call,
                                  zcta_path_counter *counters, uint32_t count)
{
    zcta_status status = ZCTA_OK;

    for (zcta_path_counter *at = counters; count > 0 && status == ZCTA_OK;
         count--, at = next_counter(at))
        status = zc_check_size(team->group.diag, call, at->size);
    return status;
}

zcta_status zcta_team_counters(zcta_team *team, zcta_path_counter *counters, uint32_t *count)
{
    static const char call[] = "zcta_team_counters";
    uint32_t known = 0, room;
    zcta_status status;

    if (team == NULL || count == NULL)
        return zc_fail_null(team != NULL ? team->group.diag : NULL, call,
                            team == NULL ? "team" : "count");
    status = zc_check_process(team->group.diag, call);
    if (status != ZCTA_OK)
        return status;
    for (uint32_t i = 0; i < ZC_COLLECTIVE_IDS * ZC_PATHS; i++)
        known += has_run(team, i / ZC_PATHS, i % ZC_PATHS);
    room = counters == NULL ? 0 : *count < known ? *count : known;
    status = check_counters(team, call, counters, room);
    if (status != ZCTA_OK)
        return status;
    for (uint32_t i = 0; i < ZC_COLLECTIVE_IDS * ZC_PATHS && room > 0; i++)
        if (has_run(team, i / ZC_PATHS, i % ZC_PATHS)) {
            write_counter(team, i / ZC_PATHS, i % ZC_PATHS, counters);
            counters = next_counter(counters);
            room--;
        }
    *count = known;
    return ZCTA_OK;
}

/* What has come is the caller's only when all of it is there. */
static zcta_status exchange(zcta_team *team, const char *call, const void *mine, void *all,
                            size_t bytes)
{
    void *came = malloc(bytes > 0 ? bytes * team->group.count : 1);
    zcta_status status;

    if (came == NULL) {
        status = zc_fail(team->group.diag, ZCTA_ERR_NO_MEMORY, call, ENOMEM, "out of memory");
        return zc_group_give_up(&team->group, status);
    }
    status = zc_group_exchange(&team->group, call, "did not come to the exchange", ZC_TOPIC_USER,
                               mine, came, bytes);
    if (status == ZCTA_OK && bytes > 0)
        memcpy(all, came, bytes * team->group.count);
    free(came);
    return status;
}

zcta_status zcta_team_exchange(zcta_team *team, const void *mine, void *all, size_t bytes)
{
    enum { BYTES_MOST = ZC_MAX_MESSAGE };
    static const char call[] = "zcta_team_exchange";
    zcta_status status;

    if (team == NULL || (bytes > 0 && (mine == NULL || all == NULL)))
        return zc_fail_null(team != NULL ? team->group.diag : NULL, call,
                            team == NULL   ? "team"
                            : mine == NULL ? "mine"
                                           : "all");
    status = zc_team_check(team, call);
    if (status == ZCTA_OK && bytes > BYTES_MOST)
        status = zc_fail(team->group.diag, ZCTA_ERR_INVALID, call, 0,
                         "%zu bytes a rank are more than %d; move data with a collective", bytes,
                         BYTES_MOST);
    return status == ZCTA_OK ? exchange(team, call, mine, all, bytes) : status;
}
