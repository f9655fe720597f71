/* The selector. */
#include "select/select.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Up to which share a call goes through the scratch window, by device and number of ranks: the
 * first row that fits counts. Measured, see docs/performance.md. */
static const struct {
    const char *device;
    uint32_t ranks_up_to;
    uint64_t share_up_to;
} scratch_thresholds[] = {
    {"host", UINT32_MAX, 16384},
};

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
    vsnprintf(verdict->reason, sizeof verdict->reason, format, args);
    va_end(args);
}

static void judge_direct_push(const struct zc_facts *facts, struct verdict *verdict)
{
    verdict->sms = facts->caps->local_copy_needs_sm && (!facts->in_place || facts->shared_gpu);
    verdict->possible = verdict->wanted = true;
    because(verdict, "%" PRIu64 " bytes a rank are pushed once, straight into every output",
            facts->bytes);
}

/* Out of place without SMs, where the own-share copy would need some. */
static void judge_push_back(const struct zc_facts *facts, struct verdict *verdict)
{
    verdict->sms = facts->caps->local_copy_needs_sm && facts->shared_gpu;
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

static void judge_flags(const struct zc_facts *facts, struct verdict *verdict)
{
    verdict->possible = verdict->wanted = true;
    because(verdict, "one signal to each of %u peers and one from each", facts->rank_count - 1);
}

static void (*const judges[ZC_ALGORITHMS])(const struct zc_facts *, struct verdict *) = {
    [ZC_ALGORITHM_DIRECT_PUSH] = judge_direct_push,
    [ZC_ALGORITHM_PUSH_BACK] = judge_push_back,
    [ZC_ALGORITHM_SCRATCH_PULL] = judge_scratch_pull,
    [ZC_ALGORITHM_FLAGS] = judge_flags,
};

/* Algorithms in the order in which they are preferred where several are wanted. */
static const enum zc_algorithm preference[] = {ZC_ALGORITHM_SCRATCH_PULL, ZC_ALGORITHM_PUSH_BACK,
                                               ZC_ALGORITHM_DIRECT_PUSH, ZC_ALGORITHM_FLAGS};

static struct zcta_report_path *add_path(zcta_report *report, const char *engine, const char *name)
{
    struct zcta_report_path *path = &report->paths[report->path_count++];

    snprintf(path->path, sizeof path->path, "%s%s%s", engine, name[0] == '\0' ? "" : "/", name);
    return path;
}

static void add_nccl(const struct zc_facts *facts, zcta_report *report)
{
    struct zcta_report_path *path = add_path(report, "nccl", "");

    path->sms = 1;
    snprintf(path->reason, sizeof path->reason, "%s",
             strcmp(facts->caps->name, "host") == 0
                 ? "NCCL moves GPU memory, and this context's memory is the host's"
                 : "this build has no NCCL engine");
}

static struct verdict judge(const struct zc_facts *facts, enum zc_algorithm algorithm)
{
    struct verdict verdict = {0};

    judges[algorithm](facts, &verdict);
    if (facts->engine == ZCTA_ENGINE_NCCL) {
        verdict.possible = false;
        because(&verdict, "engine nccl was asked for");
    } else if (verdict.possible && verdict.sms && facts->policy == ZCTA_POLICY_ZERO) {
        verdict.possible = false;
        because(&verdict, "policy ZERO: %s",
                facts->shared_gpu ? "ranks share a GPU, and a copy within one GPU needs SMs"
                                  : "the copy of the own share within its GPU needs SMs");
    }
    return verdict;
}

struct zc_choice zc_select(const struct zc_facts *facts, zcta_report *report)
{
    struct zc_choice choice = {0};

    memset(report, 0, sizeof *report);
    report->policy = facts->policy;
    report->chosen = UINT32_MAX;
    for (size_t i = 0; i < sizeof preference / sizeof preference[0]; i++) {
        const enum zc_algorithm algorithm = preference[i];
        struct verdict verdict;
        struct zcta_report_path *path;

        if (zc_algorithm_collective(algorithm) != facts->collective)
            continue;
        verdict = judge(facts, algorithm);
        path = add_path(report, "ce", zc_algorithm_name(algorithm));
        path->sms = verdict.sms;
        path->possible = verdict.possible;
        if (!choice.found && verdict.possible && verdict.wanted) {
            choice = (struct zc_choice){.found = true, .algorithm = algorithm};
            report->chosen = report->path_count - 1;
        } else if (verdict.possible && verdict.wanted) {
            because(&verdict, "possible, but %s is faster at this size",
                    report->paths[report->chosen].path);
        }
        snprintf(path->reason, sizeof path->reason, "%s", verdict.reason);
    }
    add_nccl(facts, report);
    if (!choice.found)
        report->chosen = report->path_count;
    return choice;
}

struct zc_request zc_select_request(const struct zc_facts *facts, enum zc_algorithm algorithm,
                                    uint32_t rank)
{
    return (struct zc_request){.collective = facts->collective,
                               .algorithm = algorithm,
                               .rank_count = facts->rank_count,
                               .rank = rank,
                               .bytes = facts->bytes,
                               .in_place = facts->in_place,
                               .scratch_bytes = facts->caps->scratch_bytes,
                               .lanes = facts->caps->lanes,
                               .block_bytes = facts->caps->block_bytes};
}
