/* Running a call that was resolved: agreement, engine, counters, evidence. */
#include <inttypes.h>

#include "api/objects.h"

/* ---- Refusal ---- */

/* A collective that breaks off on one rank, for no fault of its arguments, never ends on the
 * others; and what was enqueued of it cannot be taken back. */
static void fail_if_broken(zcta_team *team, zcta_status status)
{
    if (status == ZCTA_ERR_DEVICE || status == ZCTA_ERR_NO_MEMORY || status == ZCTA_ERR_TIMEOUT ||
        status == ZCTA_ERR_PEER)
        (void)zc_group_give_up(&team->group, status);
}

zcta_status zc_run_refuse(zcta_team *team, const struct zc_asked *asked, zcta_status status)
{
    const struct zc_resolved refused = {.asked = *asked};

    fail_if_broken(team, status);
    if (!team->context->check || asked->told || zc_team_failed(team))
        return status;
    return zc_agree(team, &refused, asked->call, false, status);
}

/* ---- Running ---- */

static void tell_first_use(zcta_team *team, const struct zc_resolved *resolved, enum zc_path path)
{
    struct zc_diag *diag = team->group.diag;
    const bool nccl = zc_path_is_nccl(path);

    zc_log(diag, ZC_LOG_INFO, "%s [%s]: %" PRIu32 " ranks x %" PRIu64 " bytes, %s, signals %s, %s",
           resolved->layout->collective->title, nccl ? "NCCL" : team->context->caps.title,
           team->group.count, resolved->layout->share, zc_path_name(path),
           nccl ? "NCCL's" : team->context->caps.signals,
           path == ZC_PATH_NCCL_KERNELS ? "SMs"
           : resolved->crosses          ? "SMs between the nodes"
           : resolved->sms              ? "SMs for the own share"
                                        : "0 SMs");
    if (resolved->fallback)
        zc_log(diag, ZC_LOG_WARN, "%s [Fallback]: %s", resolved->layout->collective->title,
               path == ZC_PATH_NCCL_KERNELS ? "NCCL takes its kernels"
               : resolved->crosses          ? "NCCL takes its kernels between the nodes"
                                            : "the copy within this rank's device needs SMs");
}

/* What ran, which is what was chosen unless the engine knows better. */
static enum zc_path path_run(const struct zc_resolved *resolved)
{
    if (resolved->path != ZC_PATH_NCCL_NO_SM && resolved->path == resolved->captured_path)
        return resolved->path;
    switch (resolved->ops->evidence(resolved->engine, resolved->prepared)) {
    case ZC_EVIDENCE_CAPTURED:
        return resolved->captured_path;
    case ZC_EVIDENCE_AGAINST:
        return ZC_PATH_NCCL_KERNELS;
    case ZC_EVIDENCE_MISSING:
        return ZC_PATH_NCCL_UNPROVED;
    case ZC_EVIDENCE_SURE:
    case ZC_EVIDENCE_PROVED:
        break;
    }
    return resolved->path;
}

void zc_run_count(zcta_team *team, const struct zc_resolved *resolved)
{
    const enum zc_path path = path_run(resolved);
    struct zc_team_counters *counters = &team->counters[resolved->layout->collective->id][path];

    if (atomic_fetch_add_explicit(&counters->calls, 1, memory_order_relaxed) == 0)
        tell_first_use(team, resolved, path);
    atomic_fetch_add_explicit(&counters->bytes, resolved->received, memory_order_relaxed);
    if (resolved->fallback || (path != resolved->path && zc_path_is_nccl(path)))
        atomic_fetch_add_explicit(&counters->fallbacks, path != ZC_PATH_NCCL_UNPROVED,
                                  memory_order_relaxed);
}

zcta_status zc_run_begin(zcta_team *team, const struct zc_resolved *resolved, const char *call,
                         zcta_stream stream)
{
    const struct zc_group *group = &team->group;
    zcta_status status = zc_team_check(team, call);
    bool captured = false;

    if (status != ZCTA_OK || !team->context->check)
        return status;
    status = group->ops->is_capturing(group->device, stream, &captured);
    return zc_agree(team, resolved, call, captured, status);
}

zcta_status zc_run_end(zcta_team *team, struct zc_resolved *resolved, const char *call,
                       zcta_stream stream, zcta_status status)
{
    const bool ran = stream == NULL && team->context->caps.runs_at_once;
    zcta_status failure;

    resolved->ticket = zc_guard_submitted(&team->guard);
    /* What has been done is done, though the team may have failed by now. */
    if (ran && status == ZCTA_OK)
        return ZCTA_OK;
    fail_if_broken(team, status);
    /* Why the team failed says more than what that led to here. */
    failure = zc_team_check(team, call);
    return failure == ZCTA_OK ? status : failure;
}

zcta_status zc_run_resolved(zcta_team *team, struct zc_resolved *resolved, const char *call,
                            zcta_stream stream)
{
    zcta_status status = zc_run_begin(team, resolved, call, stream);

    if (status != ZCTA_OK || resolved->prepared == NULL)
        return status;
    if (resolved->crosses)
        status = zc_nccl_join_nodes(team->nccl, team->node_ranks, stream);
    if (status == ZCTA_OK)
        status = resolved->ops->run(resolved->engine, resolved->prepared, stream);
    if (status == ZCTA_OK)
        zc_run_count(team, resolved);
    return zc_run_end(team, resolved, call, stream, status);
}
