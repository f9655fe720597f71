/* Prepared calls: the public plans, and what is released of them. */
#include <errno.h>
#include <stdlib.h>

#include "api/objects.h"

static void count_window_plans(const struct zc_resolved *resolved, uint32_t change)
{
    if (resolved->recv_window != NULL)
        atomic_fetch_add_explicit(&resolved->recv_window->plan_count, change, memory_order_acq_rel);
    if (resolved->send_window != NULL)
        atomic_fetch_add_explicit(&resolved->send_window->plan_count, change, memory_order_acq_rel);
}

/* What NCCL is to be asked for depends on what all ranks have of it, and preparing meets nobody. */
static zcta_status check_nccl(const zcta_team *team, const struct zc_asked *asked)
{
    if (asked->engine != ZCTA_ENGINE_NCCL || team->nccl_facts != NULL ||
        team->context->caps.gpu_id == 0)
        return ZCTA_OK;
    return zc_fail(team->group.diag, ZCTA_ERR_UNSUPPORTED, asked->call, 0,
                   "the ranks of team %s have not compared what they have of NCCL; run a call with "
                   "engine nccl first, or make the team with that engine",
                   zc_team_title(team));
}

zcta_status zcta_plan_make(zcta_team *team, const zcta_call *call, zcta_plan **plan)
{
    static const char name[] = "zcta_plan_make";
    struct zc_asked asked = {.call = name};
    zcta_plan *made = NULL;
    zcta_status status;

    if (team == NULL || call == NULL || plan == NULL)
        return zc_fail_null(team != NULL ? team->group.diag : NULL, name,
                            team == NULL   ? "team"
                            : call == NULL ? "call"
                                           : "plan");
    status = zc_check_process(team->group.diag, name);
    if (status == ZCTA_OK)
        status = zc_call_read(team, name, call, &asked);
    if (status == ZCTA_OK)
        status = check_nccl(team, &asked);
    if (status != ZCTA_OK)
        goto fail;
    made = calloc(1, sizeof *made);
    if (made == NULL) {
        status = zc_fail(team->group.diag, ZCTA_ERR_NO_MEMORY, name, ENOMEM, "out of memory");
        goto fail;
    }
    made->team = team;
    status = zc_resolve(team, &asked, true, &made->resolved);
    if (status != ZCTA_OK)
        goto fail;
    count_window_plans(&made->resolved, 1);
    made->next = team->plans;
    team->plans = made;
    team->plan_count++;
    *plan = made;
    return ZCTA_OK;
fail:
    zc_asked_free(&asked);
    free(made);
    return status;
}

zcta_status zcta_plan_run(zcta_plan *plan, zcta_stream stream)
{
    return plan == NULL ? zc_fail_null(NULL, "zcta_plan_run", "plan")
                        : zc_run_resolved(plan->team, &plan->resolved, "zcta_plan_run", stream);
}

zcta_status zcta_release(zcta_plan *plan, zcta_stream stream)
{
    static const char call[] = "zcta_release";
    struct zc_resolved release;
    bool said = false;
    zcta_status status;

    if (plan == NULL)
        return zc_fail_null(NULL, call, "plan");
    release = plan->resolved;
    release.path = (enum zc_path)ZC_ALGORITHM_EARLY_READY;
    release.sms = release.fallback = false;
    release.received = 0;
    status = zc_run_begin(plan->team, &release, call, stream);
    if (status != ZCTA_OK || release.prepared == NULL)
        return status;
    status = release.ops->say_ready(release.engine, release.prepared, stream, &said);
    if (status == ZCTA_OK && said)
        zc_run_count(plan->team, &release);
    return zc_run_end(plan->team, &plan->resolved, call, stream, status);
}

zcta_status zcta_plan_free(zcta_plan **handle)
{
    zcta_plan *plan = handle == NULL ? NULL : *handle;
    zcta_team *team;

    if (plan == NULL)
        return zc_fail_null(NULL, "zcta_plan_free", "plan, or what it points to,");
    team = plan->team;
    if (!zc_diag_is_here(team->group.diag))
        return zc_check_process(team->group.diag, "zcta_plan_free");
    *handle = NULL;
    team->group.ops->drain(team->group.device, &team->guard);
    for (zcta_plan **at = &team->plans; *at != NULL; at = &(*at)->next)
        if (*at == plan) {
            *at = plan->next;
            team->plan_count--;
            break;
        }
    count_window_plans(&plan->resolved, UINT32_MAX);
    zc_resolved_free(&plan->resolved);
    free(plan);
    return ZCTA_OK;
}
