/* Requests: what a plan is made from. Which name one, what follows from them, and the requests of
 * what goes with a call beside its own plan. */
#include "plan/plan.h"

bool zc_algorithm_says_ready(enum zc_algorithm algorithm)
{
    return algorithm == ZC_ALGORITHM_DIRECT_PUSH || algorithm == ZC_ALGORITHM_PUSH_BACK;
}

bool zc_algorithm_alternates(enum zc_algorithm algorithm)
{
    return algorithm == ZC_ALGORITHM_SCRATCH_PULL;
}

/* Scratch-pull signals first of all, and takes the halves of its window in turn; releases are
 * numbered for as long as the team lives. */
bool zc_algorithm_replays(enum zc_algorithm algorithm)
{
    return algorithm != ZC_ALGORITHM_SCRATCH_PULL && algorithm != ZC_ALGORITHM_EARLY_READY;
}

uint32_t zc_request_node_ranks(const struct zc_request *request)
{
    return request->node_ranks == 0 ? request->rank_count : request->node_ranks;
}

uint32_t zc_request_nodes(const struct zc_request *request)
{
    return request->rank_count / zc_request_node_ranks(request);
}

const char *zc_request_defect(const struct zc_request *request)
{
    if (request->collective >= ZC_COLLECTIVES || request->algorithm >= ZC_ALGORITHMS)
        return "unknown collective or algorithm";
    if (zc_algorithm_collective(request->algorithm) != request->collective)
        return "the algorithm belongs to another collective";
    if (request->rank_count == 0 || request->rank >= request->rank_count)
        return "the rank is not below the number of ranks";
    if (request->bytes > (uint64_t)INT64_MAX / request->rank_count)
        return "the output is larger than 63 bits can count";
    if (request->rank_count % zc_request_node_ranks(request) != 0)
        return "the nodes are not equally large";
    if (request->algorithm != ZC_ALGORITHM_BY_NODES && zc_request_nodes(request) > 1 &&
        request->collective == ZC_COLLECTIVE_ALL_GATHER)
        return "the algorithm does not go from node to node";
    if (request->lanes == 0 || request->lanes > ZC_MAX_LANES)
        return "the number of lanes is out of range";
    if (request->half > 1 || request->scratch_bytes > (uint64_t)INT64_MAX / 2)
        return "the scratch window is out of range";
    if (request->released && !zc_algorithm_says_ready(request->algorithm))
        return "the algorithm never says ready, so nothing can be released for it";
    if (request->grouped && request->algorithm != ZC_ALGORITHM_DIRECT_PUSH &&
        request->algorithm != ZC_ALGORITHM_PUSH_BACK)
        return "only direct-push and push-back have pushes to group";
    if (request->closed && request->algorithm != ZC_ALGORITHM_FLAGS)
        return "only a barrier is closed by a round of done";
    if (request->algorithm == ZC_ALGORITHM_PUSH_BACK && request->rank_count == 1)
        return "a rank alone has no neighbour to push its share back";
    if (request->algorithm == ZC_ALGORITHM_SCRATCH_PULL && request->bytes > request->scratch_bytes)
        return "the share does not fit into the scratch window";
    return NULL;
}

uint64_t zc_plan_buffer_bytes(const struct zc_request *request, enum zc_buffer buffer)
{
    switch (buffer) {
    case ZC_SEND:
        return request->in_place ? 0 : request->bytes;
    case ZC_RECV:
        return request->bytes * request->rank_count;
    case ZC_SCRATCH:
        return request->scratch_bytes * 2;
    case ZC_BUFFERS:
        break;
    }
    return 0;
}

/* ---- Of what goes with a call ---- */

/* A release has nothing of the algorithm of the call that it is for. */
struct zc_request zc_request_early_ready(const struct zc_request *call)
{
    return (struct zc_request){.collective = ZC_COLLECTIVE_RELEASE,
                               .algorithm = ZC_ALGORITHM_EARLY_READY,
                               .rank_count = call->rank_count,
                               .rank = call->rank,
                               .bytes = call->bytes,
                               .in_place = call->in_place,
                               .lanes = 1};
}

struct zc_request zc_request_released(const struct zc_request *call)
{
    struct zc_request run = *call;

    run.released = true;
    return run;
}

/* The words of captured programs are put back, so that a rank must not leave one before its peers
 * have put back theirs: what it sends next would be lost. An allgather ends with *done* of
 * everybody anyway. The verifier proves it. */
struct zc_request zc_request_captured(const struct zc_request *call)
{
    struct zc_request captured = *call;

    captured.closed = call->algorithm == ZC_ALGORITHM_FLAGS;
    return captured;
}
