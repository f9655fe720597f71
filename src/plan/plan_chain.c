/* Chain, for what the root gives to all alike: the share goes from rank to rank in chunks, so that
 * all links work at once, and the root sends it only once. */
#include "plan/plan.h"

/* A longer chain is worth more chunks: each hop adds one to the time. */
static uint64_t chunk_of(const struct zc_plan *plan)
{
    enum { LEAST = 1 << 18 };
    const uint64_t share = plan->request.layout->share;
    const uint64_t chunk =
        (share + 4ull * plan->request.layout->ranks - 1) / (4ull * plan->request.layout->ranks);

    return chunk < LEAST ? LEAST : chunk;
}

/* From this rank to the next: what it has itself, or, of every chunk that has come, that. */
static void relay(struct zc_plan *plan, bool first, bool last)
{
    const struct zc_request *request = &plan->request;
    const uint32_t ranks = request->layout->ranks, rank = request->rank;
    const uint32_t next = (rank + 1) % ranks, previous = (rank + ranks - 1) % ranks;
    const struct zc_flow flow = zc_plan_in(plan, request->layout->root);
    const uint64_t share = request->layout->share, chunk = chunk_of(plan);

    if (!first)
        zc_plan_signal(plan, 0, previous, ZC_CHANNEL_READY);
    for (uint64_t offset = 0; offset < share; offset += chunk) {
        const uint64_t bytes = share - offset < chunk ? share - offset : chunk;

        if (!first)
            zc_plan_wait(plan, 0, previous, ZC_CHANNEL_DONE);
        if (last)
            continue;
        if (offset == 0)
            zc_plan_wait(plan, 0, next, ZC_CHANNEL_READY);
        zc_plan_copy(plan, 0,
                     first ? zc_plan_input(plan, flow.from_at + offset)
                           : zc_at(rank, ZC_RECV, flow.to_at + offset),
                     zc_at(next, ZC_RECV, flow.to_at + offset), bytes);
        zc_plan_signal(plan, 0, next, ZC_CHANNEL_DONE);
    }
}

static void pass_on(struct zc_plan *plan)
{
    const struct zc_request *request = &plan->request;
    const uint32_t ranks = request->layout->ranks, root = request->layout->root;
    const uint32_t hop = (request->rank + ranks - root) % ranks;
    const bool aside = zc_plan_copy_own_aside(plan);

    relay(plan, hop == 0, hop + 1 == ranks);
    zc_plan_finish_own(plan, aside);
}

const struct zc_algorithm zc_chain = {
    .name = "chain",
    .needs = ZC_ROOTED | ZC_SAME_FOR_ALL,
    .traits = ZC_COPIES_OWN | ZC_BOUNCES_OWN | ZC_TABLED,
    .make = pass_on,
};
