/* Scatter-allgather, for what the root gives to all alike: each rank gets a part of the share from
 * the root and passes it on to all others. The root sends hardly more than the share once, and
 * every link carries its part. */
#include "plan/plan.h"

/* The part that `rank` passes on; the last ones may be smaller, or empty. */
static struct zc_flow part_of(const struct zc_plan *plan, uint32_t rank)
{
    const struct zc_layout *layout = plan->request.layout;
    const struct zc_flow flow = zc_flow_between(layout, layout->root, rank);
    const uint64_t part = (layout->share + layout->ranks - 1) / layout->ranks;
    const uint64_t begin = rank * part < layout->share ? rank * part : layout->share;
    const uint64_t end = layout->share - begin < part ? layout->share : begin + part;

    return (struct zc_flow){
        .from_at = flow.from_at + begin, .to_at = flow.to_at + begin, .bytes = end - begin};
}

/* A part to one peer, which is known to be ready. */
static void push_part(struct zc_plan *plan, struct zc_place from, const struct zc_flow *part,
                      uint32_t peer)
{
    zc_plan_copy(plan, 0, from, zc_at(peer, ZC_RECV, part->to_at), part->bytes);
    zc_plan_signal(plan, 0, peer, ZC_CHANNEL_DONE);
}

/* Everybody is awaited before the first part goes: then whoever has got a part knows that all are
 * ready, and asks nobody. First everybody's own part, so that they can go on, then the root's. */
static void give(struct zc_plan *plan)
{
    const uint32_t ranks = plan->request.layout->ranks, root = plan->request.rank;
    const struct zc_flow own = part_of(plan, root);

    for (uint32_t hop = 1; hop < ranks; hop++)
        zc_plan_wait(plan, 0, (root + hop) % ranks, ZC_CHANNEL_READY);
    for (uint32_t hop = 1; hop < ranks; hop++) {
        const uint32_t peer = (root + hop) % ranks;
        const struct zc_flow part = part_of(plan, peer);

        if (part.bytes > 0)
            push_part(plan, zc_plan_input(plan, part.from_at), &part, peer);
    }
    for (uint32_t hop = 1; hop < ranks && own.bytes > 0; hop++)
        push_part(plan, zc_plan_input(plan, own.from_at), &own, (root + hop) % ranks);
}

/* Everybody who has a part pushes it to everybody else but the root. */
static void pass_on(struct zc_plan *plan)
{
    const uint32_t ranks = plan->request.layout->ranks, rank = plan->request.rank;
    const uint32_t root = plan->request.layout->root;
    const struct zc_flow own = part_of(plan, rank);

    zc_plan_signal(plan, 0, root, ZC_CHANNEL_READY);
    if (own.bytes > 0)
        zc_plan_wait(plan, 0, root, ZC_CHANNEL_DONE);
    for (uint32_t hop = 1; hop < ranks && own.bytes > 0; hop++) {
        const uint32_t peer = (rank + hop) % ranks;

        if (peer != root)
            push_part(plan, zc_at(rank, ZC_RECV, own.to_at), &own, peer);
    }
    for (uint32_t hop = 1; hop < ranks; hop++) {
        const uint32_t peer = (rank + ranks - hop) % ranks;

        if (part_of(plan, peer).bytes > 0)
            zc_plan_wait(plan, 0, peer, ZC_CHANNEL_DONE);
    }
}

static void scatter_and_gather(struct zc_plan *plan)
{
    const bool aside = zc_plan_copy_own_aside(plan);

    if (plan->request.rank == plan->request.layout->root)
        give(plan);
    else
        pass_on(plan);
    zc_plan_finish_own(plan, aside);
}

const struct zc_algorithm zc_scatter_allgather = {
    .name = "scatter-allgather",
    .needs = ZC_ROOTED | ZC_SAME_FOR_ALL,
    .traits = ZC_COPIES_OWN | ZC_BOUNCES_OWN | ZC_TABLED,
    .make = scatter_and_gather,
};
