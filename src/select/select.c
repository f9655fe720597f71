/* The selector. */
#include "select/select.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/number.h"

/* Up to which share a call goes through the scratch window, by device and number of ranks: the
 * first row that fits counts. Measured, see docs/performance.md. */
static const struct {
    const char *device;
    uint32_t ranks_up_to;
    uint64_t share_up_to;
} scratch_thresholds[] = {
    {"host", UINT32_MAX, 16384},
};

/* Over several nodes; not measured yet. */
#define LEAST_CHUNK ((uint64_t)256 << 10)

static uint64_t scratch_threshold(const struct zc_facts *facts)
{
    const size_t rows = sizeof scratch_thresholds / sizeof scratch_thresholds[0];

    for (size_t i = 0; i < rows; i++)
        if (strcmp(scratch_thresholds[i].device, facts->caps->name) == 0 &&
            facts->rank_count <= scratch_thresholds[i].ranks_up_to)
            return scratch_thresholds[i].share_up_to < facts->caps->scratch_bytes
                       ? scratch_thresholds[i].share_up_to
                       : facts->caps->scratch_bytes;
    return 0;
}

/* Whether a path can run at all; the reason if not, or why one would want it. */
struct verdict {
    bool possible, wanted, sms;
    char reason[sizeof((struct zcta_report_path *)0)->reason];
};

__attribute__((format(printf, 2, 3))) static void because(struct verdict *verdict,
                                                          const char *format, ...)
{
    va_list args;

    va_start(args, format);
    zc_format_list(verdict->reason, sizeof verdict->reason, format, args);
    va_end(args);
}

static bool has_nodes(const struct zc_facts *facts)
{
    return facts->node_ranks != 0 || facts->uneven_nodes;
}

/* Where there are several nodes, most plans end at their borders. */
static bool stays_on_its_node(const struct zc_facts *facts, struct verdict *verdict)
{
    if (!has_nodes(facts))
        return false;
    verdict->possible = verdict->wanted = false;
    because(verdict, "the ranks are on several nodes, and do not reach each other's memory");
    return true;
}

static void judge_direct_push(const struct zc_facts *facts, struct verdict *verdict)
{
    verdict->sms = facts->caps->local_copy_needs_sm && (!facts->in_place || facts->shared_gpu);
    if (stays_on_its_node(facts, verdict))
        return;
    verdict->possible = verdict->wanted = true;
    because(verdict, "%" PRIu64 " bytes a rank are pushed once, straight into every output",
            facts->bytes);
}

/* Out of place without SMs, where the own-share copy would need some. */
static void judge_push_back(const struct zc_facts *facts, struct verdict *verdict)
{
    verdict->sms = facts->caps->local_copy_needs_sm && facts->shared_gpu;
    if (stays_on_its_node(facts, verdict))
        return;
    verdict->possible = facts->rank_count > 1;
    verdict->wanted = facts->caps->local_copy_needs_sm && !facts->in_place && !verdict->sms &&
                      facts->policy != ZCTA_POLICY_DEFAULT;
    if (!verdict->possible)
        because(verdict, "a rank alone has no neighbour");
    else if (verdict->wanted)
        because(verdict, "the next rank pushes the own share back, so that no SM copies it");
    else if (!facts->caps->local_copy_needs_sm || facts->in_place)
        because(verdict, "the own share needs no copy by SMs, so nobody has to push it back");
    else
        because(verdict, "policy DEFAULT lets SMs copy the own share, which is faster");
}

static void judge_scratch_pull(const struct zc_facts *facts, struct verdict *verdict)
{
    const uint64_t threshold = scratch_threshold(facts);

    verdict->sms = facts->caps->local_copy_needs_sm;
    if (stays_on_its_node(facts, verdict))
        return;
    verdict->possible = facts->bytes <= facts->caps->scratch_bytes && facts->caps->pull_small;
    verdict->wanted = facts->bytes <= threshold;
    if (!facts->caps->pull_small)
        because(verdict, "small copies from a peer are slow on this device");
    else if (!verdict->possible)
        because(verdict, "%" PRIu64 " bytes a rank do not fit into the scratch window's %zu bytes",
                facts->bytes, facts->caps->scratch_bytes);
    else if (verdict->wanted)
        because(verdict,
                "up to %" PRIu64
                " bytes a rank, one crossing and a second copy are faster than two "
                "crossings",
                threshold);
    else
        because(verdict,
                "above %" PRIu64 " bytes a rank the second copy costs more than the crossing it "
                "saves",
                threshold);
}

/* ---- NCCL ---- */

/* Why engine auto does not take it unless there is nothing else. */
#define HEEDLESS "; if a rank dies, nobody can let it go, and this process has to end"

/* What keeps NCCL from moving this team's data at all; false if nothing does. */
static bool nccl_cannot(const struct zc_facts *facts, struct verdict *verdict)
{
    const struct zc_nccl_facts *nccl = facts->nccl;

    if (strcmp(facts->caps->name, "cuda") != 0)
        because(verdict, "NCCL moves GPU memory, and this context's memory is the host's");
    else if (nccl == NULL || nccl->version == 0)
        because(verdict, "%s",
                nccl == NULL || nccl->why[0] == '\0'
                    ? "NCCL has not been loaded: give the team or the call engine nccl"
                    : nccl->why);
    else
        return false;
    return true;
}

/* The same for one communicator of all ranks. */
static bool nccl_cannot_all(const struct zc_facts *facts, struct verdict *verdict)
{
    if (nccl_cannot(facts, verdict))
        return true;
    if (facts->shared_gpu)
        because(verdict, "some ranks share a GPU, which NCCL refuses");
    return facts->shared_gpu;
}

static void judge_nccl_no_sm(const struct zc_facts *facts, struct verdict *verdict)
{
    const struct zc_nccl_facts *nccl = facts->nccl;
    char version[16];

    verdict->sms = !facts->in_place;
    if (nccl_cannot_all(facts, verdict))
        return;
    if (nccl->version < ZC_NCCL_HAS_COPY_ENGINES)
        because(verdict, "NCCL %s has no copy engines; 2.28 is the first that has",
                zc_nccl_version_text(nccl->version, version));
    else if (facts->caps->driver_version < ZC_NCCL_DRIVER_OLDEST)
        because(verdict, "the CUDA driver is %d.%d; NCCL's copy engines need 12.5",
                facts->caps->driver_version / 1000, facts->caps->driver_version % 1000 / 10);
    else if (nccl->forced_policy >= 0 && nccl->forced_policy != ZC_NCCL_POLICY_ZERO)
        because(verdict, "NCCL_CTA_POLICY=%d in the environment overrides the team's policy",
                nccl->forced_policy);
    else if (nccl->switch_off != NULL)
        because(verdict, "%s in the environment keeps NCCL from symmetric windows",
                nccl->switch_off);
    else if (facts->unlike_window)
        because(verdict, "recv's window was registered at places of the ranks' allocations that "
                         "differ or are no multiple of 4096; NCCL's copy engines need the same");
    else if (facts->policy == ZCTA_POLICY_DEFAULT)
        because(verdict, "policy DEFAULT: NCCL takes its kernels%s",
                nccl->forced_policy == ZC_NCCL_POLICY_ZERO
                    ? ", or not: NCCL_CTA_POLICY=2 in the environment"
                    : "");
    else if (has_nodes(facts) && nccl->version < ZC_NCCL_HAS_ZERO_NETWORK)
        because(verdict, "NCCL %s has no copy engines over several nodes; 2.30.6 is the first",
                zc_nccl_version_text(nccl->version, version));
    else {
        verdict->possible = verdict->wanted = true;
        because(verdict, "NCCL %s with CTA policy ZERO%s" HEEDLESS,
                zc_nccl_version_text(nccl->version, version),
                facts->in_place ? "" : "; SMs copy the own share into its place first");
    }
}

static void judge_nccl_kernels(const struct zc_facts *facts, struct verdict *verdict)
{
    const struct zc_nccl_facts *nccl = facts->nccl;
    char version[16];

    verdict->sms = true;
    if (nccl_cannot_all(facts, verdict))
        return;
    verdict->possible = verdict->wanted = true;
    zc_nccl_version_text(nccl->version, version);
    if (nccl->forced_policy > ZC_NCCL_POLICY_DEFAULT)
        because(verdict,
                "NCCL %s; NCCL_CTA_POLICY=%d in the environment overrides CTA policy DEFAULT",
                version, nccl->forced_policy);
    else if (nccl->symmetric && nccl->version >= ZC_NCCL_HAS_WINDOWS && !facts->unlike_window)
        because(verdict, "NCCL %s with CTA policy DEFAULT, on symmetric windows" HEEDLESS, version);
    else
        because(verdict, "NCCL %s with CTA policy DEFAULT", version);
}

/* ---- Both ---- */

/* What needs NCCL between the nodes. */
static bool cannot_cross(const struct zc_facts *facts, struct verdict *verdict)
{
    verdict->sms = true;
    if (nccl_cannot(facts, verdict))
        return true;
    if (facts->uneven_nodes)
        because(verdict, "the nodes have not equally many ranks each, or not one after the other");
    else if (facts->position_shared)
        because(verdict, "ranks of equal position on their nodes share a GPU, which NCCL refuses");
    else
        return false;
    return true;
}

static void judge_by_nodes(const struct zc_facts *facts, struct verdict *verdict)
{
    char version[16];

    if (!has_nodes(facts)) {
        because(verdict, "all ranks are on one node");
        return;
    }
    if (cannot_cross(facts, verdict))
        return;
    verdict->possible = true;
    verdict->wanted = facts->node_ranks > 1;
    if (facts->node_ranks == 1)
        because(verdict, "a node is one rank, so there is nothing to push");
    else
        because(
            verdict,
            "NCCL %s between ranks of equal position, in chunks, and pushes within the nodes of "
            "%" PRIu32 " ranks meanwhile",
            zc_nccl_version_text(facts->nccl->version, version), facts->node_ranks);
}

static void judge_flags(const struct zc_facts *facts, struct verdict *verdict)
{
    const bool crosses = has_nodes(facts);

    if (crosses && cannot_cross(facts, verdict))
        return;
    verdict->possible = verdict->wanted = true;
    verdict->sms = crosses;
    because(verdict, "one signal to each of %u peers and one from each%s",
            (crosses ? facts->node_ranks : facts->rank_count) - 1,
            crosses ? ", and NCCL between the nodes" : "");
}

/* ---- The choice ---- */

static void (*const judges[ZC_PATHS])(const struct zc_facts *, struct verdict *) = {
    [ZC_ALGORITHM_DIRECT_PUSH] = judge_direct_push,
    [ZC_ALGORITHM_PUSH_BACK] = judge_push_back,
    [ZC_ALGORITHM_SCRATCH_PULL] = judge_scratch_pull,
    [ZC_ALGORITHM_BY_NODES] = judge_by_nodes,
    [ZC_ALGORITHM_FLAGS] = judge_flags,
    [ZC_PATH_NCCL_NO_SM] = judge_nccl_no_sm,
    [ZC_PATH_NCCL_KERNELS] = judge_nccl_kernels,
};

/* Within an engine, in the order in which paths are preferred where several are wanted. */
static const enum zc_path preference[] = {
    (enum zc_path)ZC_ALGORITHM_SCRATCH_PULL,
    (enum zc_path)ZC_ALGORITHM_PUSH_BACK,
    (enum zc_path)ZC_ALGORITHM_DIRECT_PUSH,
    (enum zc_path)ZC_ALGORITHM_BY_NODES,
    (enum zc_path)ZC_ALGORITHM_FLAGS,
    ZC_PATH_NCCL_NO_SM,
    ZC_PATH_NCCL_KERNELS,
};

enum { PREFERENCES = sizeof preference / sizeof preference[0] };

const char *zc_path_engine(enum zc_path path)
{
    return (uint32_t)path < ZC_ALGORITHMS ? "ce" : "nccl";
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
    default:
        return zc_algorithm_name((enum zc_algorithm)path);
    }
}

enum zc_collective zc_path_collective(enum zc_path path)
{
    return (uint32_t)path < ZC_ALGORITHMS ? zc_algorithm_collective((enum zc_algorithm)path)
                                          : ZC_COLLECTIVE_ALL_GATHER;
}

static bool is_nccl(enum zc_path path)
{
    return (uint32_t)path >= ZC_ALGORITHMS;
}

static struct verdict judge(const struct zc_facts *facts, enum zc_path path)
{
    struct verdict verdict = {0};
    const bool other =
        is_nccl(path) ? facts->engine == ZCTA_ENGINE_CE : facts->engine == ZCTA_ENGINE_NCCL;

    judges[path](facts, &verdict);
    if (other) {
        verdict.possible = false;
        because(&verdict, "engine %s was asked for", is_nccl(path) ? "ce" : "nccl");
    } else if (verdict.possible && verdict.sms && facts->policy == ZCTA_POLICY_ZERO) {
        verdict.possible = false;
        because(&verdict, "policy ZERO: %s",
                path == ZC_PATH_NCCL_KERNELS ? "kernels run on SMs"
                : facts->node_ranks != 0 ? "between the nodes NCCL takes kernels, which run on SMs"
                : facts->shared_gpu      ? "ranks share a GPU, and a copy within one GPU needs SMs"
                                         : "the copy of the own share within its GPU needs SMs");
    }
    return verdict;
}

/* The first of an engine's paths that is wanted; PREFERENCES if none is. */
static size_t best_of(const struct zc_facts *facts, const struct verdict *verdicts, bool nccl)
{
    size_t at = 0;

    while (at < PREFERENCES && (is_nccl(preference[at]) != nccl ||
                                zc_path_collective(preference[at]) != facts->collective ||
                                !verdicts[at].possible || !verdicts[at].wanted))
        at++;
    return at;
}

/* Between the engines: ours, unless it cannot, or measurements on this machine speak for NCCL. The
 * other one's verdict then says so. */
static size_t best(const struct zc_facts *facts, struct verdict *verdicts)
{
    const size_t ce = best_of(facts, verdicts, false), nccl = best_of(facts, verdicts, true);
    const struct zc_tuned_row *row = NULL;
    bool prefers_nccl;

    if (ce == PREFERENCES || nccl == PREFERENCES)
        return ce == PREFERENCES ? nccl : ce;
    if (preference[nccl] == ZC_PATH_NCCL_NO_SM) {
        because(&verdicts[nccl],
                "possible, but if a rank dies nobody can let it go; engine nccl asks for it");
        return ce;
    }
    if (facts->policy != ZCTA_POLICY_DEFAULT && verdicts[nccl].sms && !verdicts[ce].sms) {
        because(&verdicts[nccl], "possible, but it needs SMs, and %s/%s does not",
                zc_path_engine(preference[ce]), zc_path_name(preference[ce]));
        return ce;
    }
    if (facts->node_ranks != 0 && facts->bytes < LEAST_CHUNK) {
        because(&verdicts[ce],
                "possible, but below %" PRIu64 " bytes a rank one call of NCCL's is one step less",
                LEAST_CHUNK);
        return nccl;
    }
    /* Measured were ranks of one node. */
    prefers_nccl = zc_tuned_prefers_nccl(has_nodes(facts) ? NULL : facts->tuned, facts->rank_count,
                                         facts->policy, facts->in_place, facts->bytes, &row);
    if (row == NULL)
        because(&verdicts[nccl],
                "possible, but nothing was measured that speaks for it (`zerocta tune` measures)");
    else
        because(&verdicts[prefers_nccl ? ce : nccl],
                "possible, but the slower one when measured: at %" PRIu64
                " bytes a rank ce took %.1f us, nccl %.1f",
                row->bytes, row->ce_us, row->nccl_us);
    return prefers_nccl ? nccl : ce;
}

static void add_path(zcta_report *report, enum zc_path path, const struct verdict *verdict)
{
    struct zcta_report_path *added = &report->paths[report->path_count++];

    snprintf(added->path, sizeof added->path, "%s/%s", zc_path_engine(path), zc_path_name(path));
    added->sms = verdict->sms;
    added->possible = verdict->possible;
    snprintf(added->reason, sizeof added->reason, "%s", verdict->reason);
}

struct zc_choice zc_select(const struct zc_facts *facts, zcta_report *report)
{
    struct verdict verdicts[PREFERENCES];
    struct zc_choice choice = {0};
    size_t chosen;

    memset(report, 0, sizeof *report);
    report->policy = facts->policy;
    for (size_t i = 0; i < PREFERENCES; i++)
        verdicts[i] = judge(facts, preference[i]);
    chosen = best(facts, verdicts);
    if (chosen < PREFERENCES)
        choice = (struct zc_choice){.found = true, .path = preference[chosen]};
    report->chosen = UINT32_MAX;
    for (size_t i = 0; i < PREFERENCES; i++) {
        if (zc_path_collective(preference[i]) != facts->collective ||
            (preference[i] == (enum zc_path)ZC_ALGORITHM_BY_NODES && !has_nodes(facts)))
            continue;
        if (i == chosen)
            report->chosen = report->path_count;
        else if (i > chosen && is_nccl(preference[i]) == is_nccl(preference[chosen]) &&
                 verdicts[i].possible && verdicts[i].wanted)
            because(&verdicts[i], "possible, but %s/%s is %s", zc_path_engine(choice.path),
                    zc_path_name(choice.path),
                    is_nccl(choice.path) ? "what the policy wants" : "faster at this size");
        add_path(report, preference[i], &verdicts[i]);
    }
    if (!choice.found)
        report->chosen = report->path_count;
    return choice;
}

/* As many chunks as there are lanes, but none so small that starting it costs more than it saves.
 */
static uint32_t chunks_of(const struct zc_facts *facts)
{
    const uint64_t most = facts->bytes / LEAST_CHUNK;

    return most == 0 ? 1 : most < facts->caps->lanes ? (uint32_t)most : facts->caps->lanes;
}

static bool groups(const struct zc_facts *facts, enum zc_path path)
{
    const bool pushes = path == (enum zc_path)ZC_ALGORITHM_DIRECT_PUSH ||
                        path == (enum zc_path)ZC_ALGORITHM_PUSH_BACK;

    /* With one peer there is nothing to group. */
    return pushes && facts->rank_count > 2 && facts->bytes <= facts->caps->group_bytes;
}

struct zc_request zc_select_request(const struct zc_facts *facts, enum zc_path path, uint32_t rank)
{
    return (struct zc_request){.collective = facts->collective,
                               .algorithm = is_nccl(path) ? ZC_ALGORITHMS : (enum zc_algorithm)path,
                               .rank_count = facts->rank_count,
                               .rank = rank,
                               .bytes = facts->bytes,
                               .in_place = facts->in_place,
                               .scratch_bytes = facts->caps->scratch_bytes,
                               .lanes = facts->caps->lanes,
                               .block_bytes = facts->caps->block_bytes,
                               .node_ranks = facts->node_ranks,
                               .chunks = chunks_of(facts),
                               .grouped = groups(facts, path)};
}
