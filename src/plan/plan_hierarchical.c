/* Hierarchical, for what every rank gets of every rank alike: over a network between the nodes, by
 * pushes within each. */
#include "plan/plan.h"

/* This rank's rows of one chunk, its own and those that came over the network, go to every other
 * rank of its node. */
static void push_rows(struct zc_plan *plan, uint32_t lane, uint64_t offset, uint64_t bytes)
{
    const struct zc_request *request = &plan->request;
    const uint64_t share = request->layout->bytes;
    const uint32_t size = zc_request_node_ranks(request), local = request->rank % size;
    const uint32_t first = request->rank - local;
    const uint64_t at = local * share + offset;

    for (uint32_t hop = 1; hop < size; hop++) {
        const uint32_t peer = first + (local + hop) % size;

        zc_plan_copy_rows(plan, lane, zc_at(request->rank, ZC_RECV, at), zc_at(peer, ZC_RECV, at),
                          bytes, zc_request_nodes(request), size * share);
    }
}

/* Each rank exchanges its share with the ranks of its rail on the other nodes, so that every
 * network card works, and pushes what it then has to the ranks of its own node. In chunks: while
 * one is pushed, on a lane of its own, the next is under way on the network. */
static void go_hierarchical(struct zc_plan *plan)
{
    const struct zc_request *request = &plan->request;
    const uint64_t share = request->layout->bytes;
    const uint32_t size = zc_request_node_ranks(request), local = request->rank % size;
    const uint32_t most = request->chunks < request->lanes ? request->chunks : request->lanes;
    const uint32_t chunks = most == 0 ? 1 : most;
    const uint64_t chunk = (share + chunks - 1) / chunks;
    uint32_t lane = 0;

    zc_plan_with_node(plan, ZC_CHANNEL_READY, zc_plan_signal);
    zc_plan_copy_own(plan, 0, 0, UINT64_MAX);
    for (uint64_t offset = 0; offset < share; offset += chunk) {
        const uint64_t left = share - offset, bytes = left < chunk ? left : chunk;

        if (zc_request_nodes(request) > 1)
            zc_plan_exchange_rows(plan, 0, zc_at(request->rank, ZC_RECV, local * share + offset),
                                  bytes, size * share);
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

const struct zc_algorithm zc_hierarchical = {
    .name = "hierarchical",
    .needs = ZC_REPLICATES,
    .lacks = ZC_UNEVEN,
    .traits = ZC_CROSSES | ZC_COPIES_OWN,
    .make = go_hierarchical,
};
