/* What a team has of NCCL: the facts that its ranks compare, its engine, and the orders in which
 * windows and engines go. A call opens the engine while it is resolved; and an engine that goes
 * takes with it what was resolved for it: so this file and call_resolve.c call each other. */
#include <errno.h>
#include <stdlib.h>

#include "api/objects.h"

void zc_team_read_nccl(const zcta_team *team, struct zc_rank_facts *mine)
{
    zc_nccl_tell(zc_load_nccl(team->context), team->context->caps.driver_version, &mine->nccl);
}

/* One NCCL for all, or none for all. */
void zc_team_compare_facts(zcta_team *team, const struct zc_rank_facts *facts)
{
    for (uint32_t i = 1; i < team->group.count && team->nccl_facts != NULL; i++)
        if (!zc_nccl_fits(&facts[0].nccl, team->ranks[0], &facts[i].nccl, team->ranks[i],
                          team->no_nccl.why)) {
            team->nccl_facts = &team->no_nccl;
            break;
        }
}

zcta_status zc_team_compare_nccl(zcta_team *team, const char *call)
{
    struct zc_rank_facts mine = {0}, *all = NULL;
    zcta_status status = zc_team_check(team, call);

    /* Under check a rank that refuses the call tells the others so. */
    if (status != ZCTA_OK || team->nccl_facts != NULL || team->context->check ||
        team->context->caps.gpu_id == 0)
        return status;
    all = calloc(team->group.count, sizeof *all);
    if (all == NULL) {
        status = zc_fail(team->group.diag, ZCTA_ERR_NO_MEMORY, call, ENOMEM, "out of memory");
        return zc_group_give_up(&team->group, status);
    }
    zc_team_read_nccl(team, &mine);
    status = zc_group_exchange(&team->group, call, "did not come to the first call by NCCL",
                               ZC_TOPIC_FACTS, &mine, all, sizeof mine);
    if (status == ZCTA_OK) {
        team->nccl_facts = zc_load_nccl(team->context);
        zc_team_compare_facts(team, all);
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

void zc_team_close_nccl(zcta_team *team)
{
    zc_engine_nccl.close(take_nccl(team));
}

/* The team with the lowest tag above `above`: the tags are the same on all ranks, the list is not.
 * It is visited until leave_team(). */
static zcta_team *visit_next(zcta_context *context, uint64_t above, bool first)
{
    zcta_team *lowest = NULL;

    pthread_mutex_lock(&context->lock);
    for (zcta_team *team = context->teams; team != NULL; team = team->next)
        if (team->made && (first || team->group.tag > above) &&
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

void zc_teams_deregister(zcta_context *context, const void *base)
{
    uint64_t tag = 0;

    for (zcta_team *team = visit_next(context, 0, true); team != NULL;
         team = visit_next(context, tag, false)) {
        struct zc_engine *nccl = nccl_of(team);

        if (nccl != NULL)
            zc_engine_nccl.deregister(nccl, base);
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
                zc_resolved_free(&team->cache[i]);
        zc_engine_nccl.close(nccl);
        tag = leave_team(team);
    }
}
