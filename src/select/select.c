/* The selector: the choice among what the engines' paths can do. */
#include "select/select.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/number.h"

/* ---- Paths ---- */

const char *zc_path_engine(enum zc_path path)
{
    return zc_path_is_nccl(path) ? "nccl" : "ce";
}

const char *zc_path_name(enum zc_path path)
{
    switch (path) {
    case ZC_PATH_NCCL_NO_SM:
        return "copy-engine";
    case ZC_PATH_NCCL_UNPROVED:
        return "unproved";
    case ZC_PATH_NCCL_KERNELS:
        return "kernels";
    case ZC_PATHS:
        break;
    }
    return zc_algorithms[path]->name;
}

/* Whether the path is one of the collective's, and one to choose: what is said early goes with
 * another path, and whether NCCL proves its way shows only when it has run. */
static bool is_candidate(const struct zc_facts *facts, enum zc_path path)
{
    const struct zc_collective *collective = facts->layout->collective;

    if (zc_path_is_nccl(path))
        return path != ZC_PATH_NCCL_UNPROVED && (collective->traits & ZC_NO_DATA) == 0;
    if (zc_has(zc_algorithms[path], ZC_CROSSES) && (collective->traits & ZC_NO_DATA) == 0 &&
        !zc_has_nodes(facts))
        return false;
    return zc_algorithm_serves(zc_algorithms[path], collective) &&
           !zc_has(zc_algorithms[path], ZC_OPENS);
}

/* NCCL's copy engines cross nodes, but copy no own share. */
static const char *why_sms(const struct zc_facts *facts, enum zc_path path)
{
    if (path == ZC_PATH_NCCL_KERNELS)
        return "kernels run on SMs";
    if (facts->node_ranks != 0 && path != ZC_PATH_NCCL_NO_SM)
        return "between the nodes NCCL takes kernels, which run on SMs";
    return facts->shared_gpu ? "ranks share a GPU, and a copy within one GPU needs SMs"
                             : "the copy of the own share within its GPU needs SMs";
}

static struct zc_assessment assess(const struct zc_facts *facts, enum zc_path path)
{
    struct zc_assessment assessment = {0};
    const bool nccl = zc_path_is_nccl(path);
    const bool other = nccl ? facts->engine == ZCTA_ENGINE_CE : facts->engine == ZCTA_ENGINE_NCCL;

    if (nccl)
        zc_assess_nccl(facts, path, &assessment);
    else
        zc_assess_ce(facts, zc_algorithms[path], &assessment);
    if (other) {
        assessment.possible = false;
        zc_because(&assessment, "engine %s was asked for", nccl ? "ce" : "nccl");
    } else if (assessment.possible && assessment.sms && facts->policy == ZCTA_POLICY_ZERO) {
        assessment.possible = false;
        zc_because(&assessment, "policy ZERO: %s", why_sms(facts, path));
    }
    return assessment;
}

/* ---- The choice ---- */

/* The first of an engine's paths that is wanted; ZC_PATHS if none is. */
static uint32_t best_of(const struct zc_facts *facts, const struct zc_assessment *all, bool nccl)
{
    uint32_t path = 0;

    while (path < ZC_PATHS &&
           (zc_path_is_nccl((enum zc_path)path) != nccl ||
            !is_candidate(facts, (enum zc_path)path) || !all[path].possible || !all[path].wanted))
        path++;
    return path;
}

/* Between the engines: ours, unless it cannot, or measurements on this machine speak for NCCL. The
 * other one's assessment then says so. */
static uint32_t best(const struct zc_facts *facts, struct zc_assessment *all)
{
    const uint32_t ce = best_of(facts, all, false), nccl = best_of(facts, all, true);
    const struct zc_layout *layout = facts->layout;
    /* Measured were ranks of one node that reach each other; and where a rank knows its own flows
     * only, their size is no fact that all agree on. */
    const bool counts =
        !zc_has_nodes(facts) && !facts->apart && (layout->collective->traits & ZC_PARTNERS) == 0;
    const struct zc_tuned_row *row = NULL;
    bool prefers_nccl;

    if (ce == ZC_PATHS || nccl == ZC_PATHS)
        return ce == ZC_PATHS ? nccl : ce;
    if (nccl == ZC_PATH_NCCL_NO_SM) {
        zc_because(&all[nccl],
                   "possible, but if a rank dies nobody can let it go; engine nccl asks for it");
        return ce;
    }
    if (facts->policy != ZCTA_POLICY_DEFAULT && all[nccl].sms && !all[ce].sms) {
        zc_because(&all[nccl], "possible, but it needs SMs, and %s/%s does not",
                   zc_path_engine((enum zc_path)ce), zc_path_name((enum zc_path)ce));
        return ce;
    }
    if (facts->node_ranks != 0 && layout->share < ZC_LEAST_CHUNK) {
        zc_because(&all[ce],
                   "possible, but below %" PRIu64
                   " bytes a rank one call of NCCL's is one step less",
                   ZC_LEAST_CHUNK);
        return nccl;
    }
    prefers_nccl =
        zc_tuned_prefers_nccl(counts ? facts->tuned : NULL, layout->collective->id, layout->ranks,
                              facts->policy, facts->in_place, layout->share, &row);
    if (row == NULL)
        zc_because(
            &all[nccl],
            "possible, but nothing was measured that speaks for it (`zerocta tune` measures)");
    else
        zc_because(&all[prefers_nccl ? ce : nccl],
                   "possible, but the slower one when measured: at %" PRIu64
                   " bytes a rank ce took %.1f us, nccl %.1f",
                   row->bytes, row->ce_us, row->nccl_us);
    return prefers_nccl ? nccl : ce;
}

/* The path that one would have thought of first: over nodes one that crosses them. Engine ce tells
 * of another where none does; those that do stand last. */
static enum zc_path telling_path(const struct zc_facts *facts)
{
    const bool crosses = zc_has_nodes(facts) && facts->engine != ZCTA_ENGINE_CE;
    enum zc_path last = ZC_PATH_NCCL_KERNELS;

    if (facts->engine == ZCTA_ENGINE_NCCL)
        return facts->policy == ZCTA_POLICY_DEFAULT ? ZC_PATH_NCCL_KERNELS : ZC_PATH_NCCL_NO_SM;
    for (uint32_t path = 0; path < ZC_ALGORITHMS; path++)
        if (is_candidate(facts, (enum zc_path)path) &&
            (facts->apart || !zc_has(zc_algorithms[path], ZC_USES_HOST)) &&
            (!crosses || zc_has(zc_algorithms[path], ZC_CROSSES)))
            last = (enum zc_path)path;
    return last;
}

_Static_assert((int)ZC_PATHS <= ZCTA_REPORT_PATHS, "a report has room for every path");

static void add_path(zcta_report *report, enum zc_path path, const struct zc_assessment *assessment)
{
    struct zcta_report_path *added = &report->paths[report->path_count++];

    snprintf(added->path, sizeof added->path, "%s/%s", zc_path_engine(path), zc_path_name(path));
    added->sms = assessment->sms;
    added->possible = assessment->possible;
    snprintf(added->reason, sizeof added->reason, "%s", assessment->reason);
}

struct zc_choice zc_select(const struct zc_facts *facts, zcta_report *report)
{
    struct zc_assessment all[ZC_PATHS];
    struct zc_choice choice = {.path = telling_path(facts)};
    uint32_t chosen;

    memset(report, 0, sizeof *report);
    report->size = sizeof *report;
    report->policy = facts->policy;
    for (uint32_t path = 0; path < ZC_PATHS; path++)
        if (is_candidate(facts, (enum zc_path)path))
            all[path] = assess(facts, (enum zc_path)path);
    chosen = best(facts, all);
    if (chosen < ZC_PATHS)
        choice = (struct zc_choice){.found = true, .path = (enum zc_path)chosen};
    report->chosen = UINT32_MAX;
    for (uint32_t path = 0; path < ZC_PATHS; path++) {
        if (!is_candidate(facts, (enum zc_path)path))
            continue;
        if (path == chosen)
            report->chosen = report->path_count;
        else if (choice.found && path > chosen && all[path].possible && all[path].wanted &&
                 zc_path_is_nccl((enum zc_path)path) == zc_path_is_nccl(choice.path))
            zc_because(&all[path], "possible, but %s/%s %s", zc_path_engine(choice.path),
                       zc_path_name(choice.path),
                       all[path].sms && !all[chosen].sms ? "needs no SM"
                       : zc_path_is_nccl(choice.path)    ? "is what the policy asks for"
                                                         : "is faster at this size");
        add_path(report, (enum zc_path)path, &all[path]);
    }
    if (!choice.found)
        report->chosen = report->path_count;
    return choice;
}

/* ---- The request ---- */

/* As many chunks as there are lanes, but none so small that starting it costs more than it saves.
 */
static uint32_t chunks_of(const struct zc_facts *facts)
{
    const uint64_t most = facts->layout->share / ZC_LEAST_CHUNK;

    return most == 0 ? 1 : most < facts->caps->lanes ? (uint32_t)most : facts->caps->lanes;
}

/* Lanes are for the own share, for chunks on a network, and for the way out and the way in through
 * the host. */
static uint32_t lanes_of(const struct zc_facts *facts, const struct zc_algorithm *algorithm)
{
    const bool for_own = algorithm == NULL || !zc_has(algorithm, ZC_CROSSES | ZC_USES_HOST);

    return for_own && facts->layout->share <= facts->caps->lane_bytes ? 1 : facts->caps->lanes;
}

struct zc_request zc_select_request(const struct zc_facts *facts, enum zc_path path, uint32_t rank,
                                    bool in_place)
{
    const struct zc_algorithm *algorithm = zc_path_is_nccl(path) ? NULL : zc_algorithms[path];
    const struct zc_layout *layout = facts->layout;
    const struct zc_host_room room = zc_facts_room(facts);

    return (struct zc_request){.layout = layout,
                               .algorithm = algorithm,
                               .rank = rank,
                               .in_place = in_place,
                               .bounced = algorithm != NULL && zc_ce_bounces(facts, algorithm),
                               .scratch_bytes = facts->caps->scratch_bytes,
                               .bounce_bytes = facts->caps->bounce_bytes,
                               .host_bytes = room.half,
                               .ring_bytes = room.ring,
                               .lanes = lanes_of(facts, algorithm),
                               .block_bytes = facts->caps->block_bytes,
                               .node_ranks = facts->node_ranks,
                               .chunks = chunks_of(facts),
                               /* With one peer there is nothing to group. */
                               .grouped = algorithm != NULL && zc_has(algorithm, ZC_GROUPS) &&
                                          layout->ranks > 2 &&
                                          layout->share <= facts->caps->group_bytes};
}
