/* The public verbs on a call: run it, explain it, and what is known of it beforehand. */
#include <string.h>

#include "api/objects.h"

/* Runs what was read; what is in *asked is gone afterwards. */
static zcta_status run(zcta_team *team, struct zc_asked *asked, zcta_stream stream)
{
    const char *name = asked->call; /* the same call may have been resolved under another one */
    struct zc_resolved *resolved = NULL;
    zcta_status status = ZCTA_OK;

    if (asked->engine == ZCTA_ENGINE_NCCL)
        status = zc_team_compare_nccl(team, name);
    if (status == ZCTA_OK)
        status = zc_cache_find(team, asked, &resolved);
    return status == ZCTA_OK ? zc_run_resolved(team, resolved, name, stream)
                             : zc_run_refuse(team, asked, status);
}

zcta_status zc_call_run(zcta_team *team, const char *name, const zcta_call *call,
                        zcta_stream stream)
{
    struct zc_asked asked = {.call = name};
    zcta_status status;

    if (team == NULL)
        return zc_fail_null(NULL, name, "team");
    status = zc_check_process(team->group.diag, name);
    if (status != ZCTA_OK)
        return status;
    status = call == NULL ? zc_fail_null(team->group.diag, name, "call")
                          : zc_call_read(team, name, call, &asked);
    status = status == ZCTA_OK ? run(team, &asked, stream) : zc_run_refuse(team, &asked, status);
    zc_asked_free(&asked);
    return status;
}

zcta_status zcta_run(zcta_team *team, const zcta_call *call, zcta_stream stream)
{
    return zc_call_run(team, "zcta_run", call, stream);
}

zcta_status zcta_explain(zcta_team *team, const zcta_call *call, zcta_report *report)
{
    static const char name[] = "zcta_explain";
    struct zc_asked asked = {.call = name};
    zcta_report made;
    zcta_status status;

    if (team == NULL || call == NULL || report == NULL)
        return zc_fail_null(team != NULL ? team->group.diag : NULL, name,
                            team == NULL   ? "team"
                            : call == NULL ? "call"
                                           : "report");
    status = zc_check_process(team->group.diag, name);
    if (status == ZCTA_OK)
        status = zc_check_size(team->group.diag, name, report->size);
    if (status == ZCTA_OK)
        status = zc_call_read(team, name, call, &asked);
    if (status == ZCTA_OK)
        status = zc_explain(team, &asked, &made);
    if (status == ZCTA_OK)
        zc_params_write(report, &made, sizeof made);
    zc_asked_free(&asked);
    return status;
}

/* ---- What is known beforehand ---- */

zcta_status zcta_collective_find(zcta_collective collective, const char *name,
                                 zcta_collective_info *info)
{
    static const char call[] = "zcta_collective_find";
    static const uint32_t told = ZC_UNEVEN | ZC_BY_PAIRS | ZC_ROOTED | ZC_PARTNERS | ZC_NO_DATA;
    const struct zc_collective *found =
        name != NULL ? zc_collective_named(name, strlen(name)) : zc_collective_of(collective);
    zcta_collective_info made;
    zcta_status status;

    if (info == NULL)
        return zc_fail_null(NULL, call, "info");
    status = zc_check_size(NULL, call, info->size);
    if (status != ZCTA_OK)
        return status;
    if (found == NULL)
        return zc_fail(NULL, ZCTA_ERR_INVALID, call, 0,
                       name != NULL ? "there is no collective \"%s\""
                                    : "there is no collective of that number",
                       name);
    made = (zcta_collective_info){.size = info->size,
                                  .collective = found->id,
                                  .name = found->name,
                                  .title = found->title,
                                  .traits = found->traits & told};
    zc_params_write(info, &made, sizeof made);
    return ZCTA_OK;
}
