/* The selector: the ce engine's paths, by the traits of their algorithms. */
#include <inttypes.h>
#include <string.h>

#include "select/select.h"

/* Where an algorithm is the faster one, by device, number of ranks and size of the share: the first
 * row that fits counts, and an algorithm without one is taken where nothing else is. Host:
 * measured. GPUs: simulated, because more than two were not at hand. See docs/performance.md. */
struct rule {
    const char *device;
    const struct zc_algorithm *algorithm;
    uint32_t ranks_from, ranks_up_to;
    uint64_t share_from, share_up_to;
};

#define MANY UINT32_MAX
#define KIB  ((uint64_t)1 << 10)
#define MIB  ((uint64_t)1 << 20)
#define ANY  UINT64_MAX

static const struct rule rules[] = {
    {"host", &zc_scratch_pull, 1, 2, 0, 1 * KIB},
    {"host", &zc_scratch_pull, 3, MANY, 0, 4 * KIB},
    {"host", &zc_recv_pull, 2, 2, 512 * KIB + 1, ANY},
    {"host", &zc_recv_pull, 3, MANY, 128 * KIB + 1, ANY},
    {"cuda", &zc_host_pull, 1, MANY, 0, 64 * KIB}, /* of those that have host memory */
    {"cuda", &zc_chain, 3, 8, 128 * MIB, ANY},
    {"cuda", &zc_chain, 9, 32, 512 * MIB, ANY},
    {"cuda", &zc_scatter_allgather, 3, MANY, 4 * MIB, ANY},
};

/* NULL: there is none for so many ranks here. */
static const struct rule *find_rule(const struct zc_facts *facts,
                                    const struct zc_algorithm *algorithm)
{
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (rules[i].algorithm == algorithm && strcmp(rules[i].device, facts->caps->name) == 0 &&
            facts->layout->ranks >= rules[i].ranks_from &&
            facts->layout->ranks <= rules[i].ranks_up_to)
            return &rules[i];
    return NULL;
}

static uint64_t scratch_threshold(const struct zc_facts *facts)
{
    const struct rule *rule = find_rule(facts, &zc_scratch_pull);

    if (rule == NULL)
        return 0;
    return rule->share_up_to < facts->caps->scratch_bytes ? rule->share_up_to
                                                          : facts->caps->scratch_bytes;
}

static bool collective_has(const struct zc_facts *facts, enum zc_collective_trait trait)
{
    return (facts->layout->collective->traits & (unsigned)trait) != 0;
}

/* Whether some rank may have to copy its own share within its memory, by SMs. Where a rank knows
 * its own flows only, and where each decides for itself whether it is in place, it may. */
static bool own_needs_sm(const struct zc_facts *facts)
{
    const bool unknown = collective_has(facts, ZC_PARTNERS) && facts->layout->ranks > 1;
    const bool has_own = unknown || facts->layout->own > 0;

    return facts->caps->local_copy_needs_sm && has_own && !facts->in_place;
}

bool zc_ce_bounces(const struct zc_facts *facts, const struct zc_algorithm *algorithm)
{
    /* Small ones lie in the host's memory anyway. */
    if (zc_has(algorithm, ZC_USES_HOST))
        return own_needs_sm(facts) &&
               (zc_has(algorithm, ZC_ALTERNATES) || facts->policy != ZCTA_POLICY_DEFAULT);
    return zc_has(algorithm, ZC_BOUNCES_OWN) && !collective_has(facts, ZC_REPLICATES) &&
           own_needs_sm(facts) && facts->policy != ZCTA_POLICY_DEFAULT &&
           facts->caps->bounce_bytes > 0 && facts->layout->ranks > 1 && !facts->shared_gpu;
}

/* What needs NCCL between the nodes. */
static bool cannot_cross(const struct zc_facts *facts, struct zc_assessment *assessment)
{
    if (zc_nccl_cannot(facts, assessment))
        return true;
    if (facts->uneven_nodes)
        zc_because(assessment,
                   "the nodes have not equally many ranks each, or not one after the other");
    else if (facts->rail_shared)
        zc_because(
            assessment,
            "ranks of one rail (the same place on their nodes) share a GPU, which NCCL refuses");
    else
        return false;
    return true;
}

static void assess_between_nodes(const struct zc_facts *facts, struct zc_assessment *assessment)
{
    char version[16];

    assessment->sms = true;
    if (cannot_cross(facts, assessment))
        return;
    if (facts->apart) {
        zc_because(assessment, "some ranks of a node do not reach each other's memory");
        return;
    }
    assessment->possible = true;
    assessment->wanted = facts->node_ranks > 1;
    if (facts->node_ranks == 1)
        zc_because(assessment, "a node is one rank, so there is nothing to push");
    else
        zc_because(assessment,
                   "NCCL %s along each rail (ranks of the same place on their nodes), in chunks, "
                   "and pushes within the nodes of "
                   "%" PRIu32 " ranks meanwhile",
                   zc_nccl_version_text(facts->nccl->version, version), facts->node_ranks);
}

/* Nothing moves, and nobody's memory is copied. */
static void assess_flags(const struct zc_facts *facts, struct zc_assessment *assessment)
{
    const bool crosses = zc_has_nodes(facts);

    assessment->sms = crosses;
    if (crosses && cannot_cross(facts, assessment))
        return;
    assessment->possible = assessment->wanted = true;
    zc_because(assessment, "one signal to each of %u peers and one from each%s",
               (crosses ? facts->node_ranks : facts->layout->ranks) - 1,
               crosses ? ", and NCCL between the nodes" : "");
}

/* Small inputs go through the scratch window. */
static void assess_scratch(const struct zc_facts *facts, struct zc_assessment *assessment)
{
    const struct zc_layout *layout = facts->layout;
    const uint64_t threshold = scratch_threshold(facts);

    assessment->sms = facts->caps->local_copy_needs_sm;
    assessment->possible = layout->sent <= facts->caps->scratch_bytes && facts->caps->pull_small;
    assessment->wanted = layout->share <= threshold;
    if (!facts->caps->pull_small)
        zc_because(assessment, "small copies from a peer are slow on this device");
    else if (!assessment->possible)
        zc_because(assessment,
                   "a rank's %" PRIu64 " bytes do not fit into the scratch window's %zu bytes",
                   layout->sent, facts->caps->scratch_bytes);
    else if (assessment->wanted)
        zc_because(assessment,
                   "up to shares of %" PRIu64
                   " bytes, one crossing and a second copy are faster than two crossings",
                   threshold);
    else
        zc_because(assessment,
                   "above shares of %" PRIu64
                   " bytes the second copy costs more than the crossing it saves",
                   threshold);
}

/* Whether what comes to a rank comes from the host by one copy: of one root, or, where all get the
 * same, in a row. Where every rank gets something else from every other there is nothing to gain.
 */
static bool comes_by_one_copy(const struct zc_facts *facts)
{
    const bool root_gives =
        collective_has(facts, ZC_ROOTED) && facts->layout->input > facts->layout->output;

    return collective_has(facts, ZC_SAME_FOR_ALL) || root_gives;
}

/* Out into the host's memory and in from there. */
static void assess_host(const struct zc_facts *facts, const struct zc_algorithm *algorithm,
                        struct zc_assessment *assessment)
{
    const struct zc_host_room room = zc_facts_room(facts);
    const struct zc_request request = {.layout = facts->layout,
                                       .algorithm = algorithm,
                                       .host_bytes = room.half,
                                       .ring_bytes = room.ring};
    const struct rule *rule = find_rule(facts, algorithm);
    const char *defect = algorithm->cannot(&request);
    const bool small = zc_has(algorithm, ZC_ALTERNATES);
    /* A copy between two ranks on one GPU takes SMs. */
    const bool frees_sms = small && facts->shared_gpu && facts->policy != ZCTA_POLICY_DEFAULT;

    assessment->sms = own_needs_sm(facts) && !zc_ce_bounces(facts, algorithm);
    assessment->possible = room.half > 0 && defect == NULL;
    assessment->wanted = facts->apart || frees_sms ||
                         (rule != NULL && !facts->shared_gpu && comes_by_one_copy(facts) &&
                          facts->layout->share <= rule->share_up_to);
    if (room.half == 0 || (!facts->apart && !small))
        zc_because(assessment, "the ranks reach each other's memory, so that nothing has to go "
                               "through the host's");
    else if (!assessment->possible)
        zc_because(assessment, "%s", defect);
    else if (facts->apart)
        zc_because(assessment,
                   "through the host's memory%s, because some ranks do not reach each "
                   "other's",
                   small ? "" : " in chunks");
    else if (frees_sms)
        zc_because(assessment, "ranks share a GPU, and through the host's memory no SM is needed");
    else if (assessment->wanted)
        zc_because(assessment,
                   "up to shares of %" PRIu64 " bytes two copies through the host's memory are "
                   "faster than a push for each of %" PRIu32 " peers",
                   rule->share_up_to, facts->layout->ranks - 1);
    else
        zc_because(assessment,
                   "the ranks reach each other's memory, and pushes are no slower here");
}

/* Without SMs where the own-share copy would need some: a peer brings the share back. */
static void assess_return(const struct zc_facts *facts, struct zc_assessment *assessment)
{
    assessment->sms = facts->caps->local_copy_needs_sm && facts->shared_gpu;
    assessment->possible = facts->layout->ranks > 1;
    assessment->wanted =
        own_needs_sm(facts) && !assessment->sms && facts->policy != ZCTA_POLICY_DEFAULT;
    if (!assessment->possible)
        zc_because(assessment, "a rank alone has no neighbour");
    else if (assessment->wanted)
        zc_because(assessment, "the next rank pushes the own share back, so that no SM copies it");
    else if (!own_needs_sm(facts))
        zc_because(assessment, "the own share needs no copy by SMs, so nobody has to push it back");
    else
        zc_because(assessment, "policy DEFAULT lets SMs copy the own share, which is faster");
}

/* What a table says of sizes; whether SMs are needed, and that it can run, is known. */
static void assess_by_rule(const struct zc_facts *facts, const struct zc_algorithm *algorithm,
                           struct zc_assessment *assessment)
{
    const struct rule *rule = find_rule(facts, algorithm);
    const uint64_t share = facts->layout->share;

    assessment->wanted = rule != NULL && share >= rule->share_from && share <= rule->share_up_to;
    if (assessment->wanted)
        zc_because(assessment,
                   "faster than pushes of the root alone for shares from %" PRIu64 " bytes on",
                   rule->share_from);
    else if (rule == NULL)
        zc_because(assessment, "with %" PRIu32 " ranks on this device it is not known to be faster",
                   facts->layout->ranks);
    else
        zc_because(assessment,
                   "known to be faster only for shares of %" PRIu64 " to %" PRIu64 " bytes",
                   rule->share_from, rule->share_up_to);
}

static void assess_push(const struct zc_facts *facts, const struct zc_algorithm *algorithm,
                        struct zc_assessment *assessment)
{
    const bool bounces = zc_ce_bounces(facts, algorithm);

    assessment->sms = (own_needs_sm(facts) && !bounces) ||
                      (facts->caps->local_copy_needs_sm && facts->shared_gpu);
    assessment->possible = assessment->wanted = true;
    if (zc_has(algorithm, ZC_TABLED)) {
        assess_by_rule(facts, algorithm, assessment);
        return;
    }
    zc_because(assessment, "shares of up to %" PRIu64 " bytes go once, straight into the output%s",
               facts->layout->share,
               bounces ? "; the own one through a neighbour, so that no SM copies it" : "");
}

void zc_assess_ce(const struct zc_facts *facts, const struct zc_algorithm *algorithm,
                  struct zc_assessment *assessment)
{
    if (zc_has(algorithm, ZC_CLOSES)) {
        assess_flags(facts, assessment);
    } else if (zc_has(algorithm, ZC_CROSSES)) {
        assess_between_nodes(facts, assessment);
    } else if (zc_has_nodes(facts)) {
        assessment->sms = facts->caps->local_copy_needs_sm;
        zc_because(assessment,
                   "the ranks are on several nodes, and do not reach each other's memory");
    } else if (zc_has(algorithm, ZC_USES_HOST)) {
        assess_host(facts, algorithm, assessment);
    } else if (facts->apart) {
        assessment->sms = facts->caps->local_copy_needs_sm;
        zc_because(assessment,
                   "some ranks do not reach each other's memory: their GPUs have neither "
                   "NVLink nor peer access, or ZEROCTA_P2P=0 forbids it");
    } else if (zc_has(algorithm, ZC_USES_SCRATCH)) {
        assess_scratch(facts, assessment);
    } else if (zc_has(algorithm, ZC_RETURNS_OWN)) {
        assess_return(facts, assessment);
    } else {
        assess_push(facts, algorithm, assessment);
    }
}
