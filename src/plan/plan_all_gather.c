/* The allgather's algorithms: every rank's share ends in every rank's output. */
#include "plan/plan.h"

/* Where this rank's own share is read from. */
static struct zc_place own_share(const struct zc_request *request, uint64_t offset)
{
    if (request->in_place)
        return zc_at(request->rank, ZC_RECV, request->rank * request->bytes + offset);
    return zc_at(request->rank, ZC_SEND, offset);
}

/* Where this rank's share belongs in `rank`'s output. */
static struct zc_place placed_share(const struct zc_request *request, uint32_t rank,
                                    uint64_t offset)
{
    return zc_at(rank, ZC_RECV, request->rank * request->bytes + offset);
}

static void copy_own(struct zc_plan *plan, uint32_t lane, uint64_t offset, uint64_t bytes)
{
    zc_plan_copy(plan, lane, own_share(&plan->request, offset),
                 placed_share(&plan->request, plan->request.rank, offset), bytes);
}

/* What is done with every peer, in this order. */
enum push { AWAIT = 1, COPY = 2, TELL = 4 };

static void with_peers(struct zc_plan *plan, unsigned what, uint64_t offset, uint64_t bytes)
{
    const struct zc_request *request = &plan->request;

    for (uint32_t step = 1; step < request->rank_count; step++) {
        const uint32_t peer = (request->rank + step) % request->rank_count;

        if ((what & AWAIT) != 0)
            zc_plan_wait(plan, 0, peer, request->released ? ZC_CHANNEL_RELEASED : ZC_CHANNEL_READY);
        if ((what & COPY) != 0)
            zc_plan_copy(plan, 0, own_share(request, offset), placed_share(request, peer, offset),
                         bytes);
        if ((what & TELL) != 0)
            zc_plan_signal(plan, 0, peer, ZC_CHANNEL_DONE);
    }
}

/* One block of this rank's share goes to every peer, in the order rank+1, rank+2, ..., so that no
 * two ranks push to the same peer at once. A peer is awaited before its first block and told after
 * its last. Going block by block keeps the source in the cache of a CPU that copies. Grouped, all
 * peers are awaited before the first push and told after the last: a device that changes between
 * copies and waits at a price pays it once. */
static void push_block(struct zc_plan *plan, uint64_t offset, uint64_t bytes)
{
    const struct zc_request *request = &plan->request;
    const unsigned before = offset == 0 ? AWAIT : 0;
    const unsigned after = offset + bytes == request->bytes ? TELL : 0;

    if (!request->grouped) {
        with_peers(plan, before | COPY | after, offset, bytes);
        return;
    }
    with_peers(plan, before, offset, bytes);
    with_peers(plan, COPY, offset, bytes);
    with_peers(plan, after, offset, bytes);
}

/* Tell every peer that this rank's output may be written, unless a release has. */
static void signal_ready(struct zc_plan *plan)
{
    const struct zc_request *request = &plan->request;

    for (uint32_t step = 1; !request->released && step < request->rank_count; step++)
        zc_plan_signal(plan, 0, (request->rank + step) % request->rank_count, ZC_CHANNEL_READY);
}

/* What a released plan's run leaves out, sent on its own as soon as the output may be written. */
void zc_plan_early_ready(struct zc_plan *plan)
{
    const struct zc_request *request = &plan->request;

    for (uint32_t step = 1; step < request->rank_count; step++)
        zc_plan_signal(plan, 0, (request->rank + step) % request->rank_count, ZC_CHANNEL_RELEASED);
}

/* The device's block, or a larger one where there would be too many of it. */
static uint64_t block_of(const struct zc_request *request)
{
    const uint64_t least = (request->bytes + ZC_MAX_BLOCKS - 1) / ZC_MAX_BLOCKS;

    if (request->block_bytes == 0)
        return request->bytes;
    return request->block_bytes < least ? least : request->block_bytes;
}

/* Tell every peer that this rank's output may be written, push the own share to each peer as soon
 * as that one is ready (grouped: as all are), tell each when its share has gone, and wait for
 * everybody's. The own-share
 * copy runs on a lane of its own where the device has one, never between the pushes. */
void zc_plan_direct_push(struct zc_plan *plan)
{
    const struct zc_request *request = &plan->request;
    const uint32_t ranks = request->rank_count;
    const uint64_t block = block_of(request);
    const bool own_copy = !request->in_place, own_lane = own_copy && request->lanes > 1;

    signal_ready(plan);
    if (own_lane) {
        zc_plan_fork(plan, 1);
        copy_own(plan, 1, 0, request->bytes);
    }
    for (uint64_t offset = 0; offset < request->bytes;) {
        const uint64_t left = request->bytes - offset, bytes = left < block ? left : block;

        if (own_copy && !own_lane)
            copy_own(plan, 0, offset, bytes);
        push_block(plan, offset, bytes);
        offset += bytes;
    }
    for (uint32_t step = 1; step < ranks; step++)
        zc_plan_wait(plan, 0, (request->rank + ranks - step) % ranks, ZC_CHANNEL_DONE);
    if (own_lane)
        zc_plan_join(plan, 1);
}

/* Direct push for devices on which a copy within the device is not free of SMs: nobody copies its
 * own share. The next rank, which has received it, pushes it back into its owner's output, and says
 * *done* a second time. Costs one share more on the way out and one crossing. */
void zc_plan_push_back(struct zc_plan *plan)
{
    const struct zc_request *request = &plan->request;
    const uint32_t ranks = request->rank_count, rank = request->rank;
    const uint32_t next = (rank + 1) % ranks, previous = (rank + ranks - 1) % ranks;
    const uint64_t at = previous * request->bytes;

    signal_ready(plan);
    push_block(plan, 0, request->bytes);
    zc_plan_wait(plan, 0, previous, ZC_CHANNEL_DONE);
    if (!request->in_place) {
        zc_plan_copy(plan, 0, zc_at(rank, ZC_RECV, at), zc_at(previous, ZC_RECV, at),
                     request->bytes);
        zc_plan_signal(plan, 0, previous, ZC_CHANNEL_DONE);
    }
    for (uint32_t step = 2; step < ranks; step++)
        zc_plan_wait(plan, 0, (rank + ranks - step) % ranks, ZC_CHANNEL_DONE);
    if (!request->in_place)
        zc_plan_wait(plan, 0, next, ZC_CHANNEL_DONE);
}

/* Post the own share in one half of the own scratch window, tell everybody, and fetch everybody
 * else's. One crossing, no ready: a peer's signal of call k proves that it has finished call k-1
 * and so has read everything posted in call k-2, whose half is written now. */
void zc_plan_scratch_pull(struct zc_plan *plan)
{
    const struct zc_request *request = &plan->request;
    const uint32_t ranks = request->rank_count, rank = request->rank;
    const uint64_t half = request->half * request->scratch_bytes;

    if (ranks > 1)
        zc_plan_copy(plan, 0, own_share(request, 0), zc_at(rank, ZC_SCRATCH, half), request->bytes);
    for (uint32_t step = 1; step < ranks; step++)
        zc_plan_signal(plan, 0, (rank + step) % ranks, ZC_CHANNEL_DONE);
    if (!request->in_place)
        zc_plan_copy(plan, 0, own_share(request, 0), placed_share(request, rank, 0),
                     request->bytes);
    for (uint32_t step = 1; step < ranks; step++) {
        const uint32_t peer = (rank + ranks - step) % ranks;

        zc_plan_wait(plan, 0, peer, ZC_CHANNEL_DONE);
        zc_plan_copy(plan, 0, zc_at(peer, ZC_SCRATCH, half),
                     zc_at(rank, ZC_RECV, peer * request->bytes), request->bytes);
    }
}

/* This rank's rows of one chunk, its own and those that came over the network, go to every other
 * rank of its node. */
static void push_rows(struct zc_plan *plan, uint32_t lane, uint64_t offset, uint64_t bytes)
{
    const struct zc_request *request = &plan->request;
    const uint32_t size = zc_request_node_ranks(request), position = request->rank % size;
    const uint32_t first = request->rank - position;
    const uint64_t at = position * request->bytes + offset;

    for (uint32_t step = 1; step < size; step++) {
        const uint32_t peer = first + (position + step) % size;

        zc_plan_copy_rows(plan, lane, zc_at(request->rank, ZC_RECV, at), zc_at(peer, ZC_RECV, at),
                          bytes, zc_request_nodes(request), size * request->bytes);
    }
}

/* Over several nodes: each rank exchanges its share with the ranks of its position on the other
 * nodes, so that every network card works, and pushes what it then has to the ranks of its own
 * node. In chunks: while one is pushed, on a lane of its own, the next is under way on the network.
 */
void zc_plan_by_nodes(struct zc_plan *plan)
{
    const struct zc_request *request = &plan->request;
    const uint32_t size = zc_request_node_ranks(request), position = request->rank % size;
    const uint32_t most = request->chunks < request->lanes ? request->chunks : request->lanes;
    const uint32_t chunks = most == 0 ? 1 : most;
    const uint64_t chunk = (request->bytes + chunks - 1) / chunks;
    uint32_t lane = 0;

    zc_plan_with_node(plan, ZC_CHANNEL_READY, zc_plan_signal);
    if (!request->in_place)
        copy_own(plan, 0, 0, request->bytes);
    for (uint64_t offset = 0; offset < request->bytes; offset += chunk) {
        const uint64_t left = request->bytes - offset, bytes = left < chunk ? left : chunk;

        if (zc_request_nodes(request) > 1)
            zc_plan_exchange(plan, 0,
                             zc_at(request->rank, ZC_RECV, position * request->bytes + offset),
                             bytes, size * request->bytes);
        if (offset == 0)
            zc_plan_with_node(plan, ZC_CHANNEL_READY, zc_plan_wait);
        if (left > chunk && size > 1)
            zc_plan_fork(plan, ++lane);
        push_rows(plan, left > chunk ? lane : 0, offset, bytes);
    }
    for (uint32_t i = 1; i <= lane; i++)
        zc_plan_join(plan, i);
    zc_plan_with_node(plan, ZC_CHANNEL_DONE, zc_plan_signal);
    zc_plan_with_node(plan, ZC_CHANNEL_DONE, zc_plan_wait);
}
