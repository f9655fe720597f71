/* Recv-pull, for what the root gives to all alike: the root puts its share into its own output, as
 * it has to anyway, and the others fetch it from there. So no copy is made that a push would not
 * make, and they all copy at once, which is worth it where copies are the CPUs' work. */
#include "plan/plan.h"

/* How many pieces the share goes in, so that the others begin before the root has done. */
#define PIECES 8

static uint64_t piece_of(const struct zc_plan *plan)
{
    const uint64_t share = plan->request.layout->share, block = zc_plan_block(plan);
    const uint64_t piece = (share + PIECES - 1) / PIECES;

    return piece < block ? block : (piece + block - 1) / block * block;
}

/* Done tells of each piece, and ready, when it comes back, that the piece's reader has it all: the
 * root's output is the root's again. */
static void give(struct zc_plan *plan, uint64_t piece)
{
    const uint32_t ranks = plan->request.layout->ranks, rank = plan->request.rank;
    const uint64_t share = plan->request.layout->share;

    for (uint64_t offset = 0; offset < share; offset += piece) {
        zc_plan_copy_own(plan, 0, offset, piece);
        for (uint32_t hop = 1; hop < ranks; hop++)
            zc_plan_signal(plan, 0, (rank + hop) % ranks, ZC_CHANNEL_DONE);
    }
    for (uint32_t hop = 1; hop < ranks; hop++)
        zc_plan_wait(plan, 0, (rank + hop) % ranks, ZC_CHANNEL_READY);
}

static void fetch(struct zc_plan *plan, uint64_t piece)
{
    const uint32_t root = plan->request.layout->root;
    const uint64_t share = plan->request.layout->share;
    const struct zc_flow flow = zc_plan_in(plan, root);

    for (uint64_t offset = 0; offset < share; offset += piece) {
        const uint64_t bytes = share - offset < piece ? share - offset : piece;

        zc_plan_wait(plan, 0, root, ZC_CHANNEL_DONE);
        zc_plan_copy(plan, 0, zc_at(root, ZC_RECV, flow.to_at + offset),
                     zc_at(plan->request.rank, ZC_RECV, flow.to_at + offset), bytes);
    }
    zc_plan_signal(plan, 0, root, ZC_CHANNEL_READY);
}

static void pull_from_output(struct zc_plan *plan)
{
    const uint64_t piece = piece_of(plan);

    if (plan->request.rank == plan->request.layout->root)
        give(plan, piece);
    else
        fetch(plan, piece);
}

/* The last ready is awaited behind nothing of the reader's, so a graph cannot hold it. */
const struct zc_algorithm zc_recv_pull = {
    .name = "recv-pull",
    .needs = ZC_ROOTED | ZC_SAME_FOR_ALL,
    .traits = ZC_COPIES_OWN | ZC_TABLED | ZC_EAGER_ONLY,
    .make = pull_from_output,
};
