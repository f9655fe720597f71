/* Requests: what a plan is made from. Which make sense, and what follows from them. */
#include "plan/plan.h"

bool zc_algorithm_serves(const struct zc_algorithm *algorithm,
                         const struct zc_collective *collective)
{
    return (collective->traits & algorithm->needs) == algorithm->needs &&
           (collective->traits & algorithm->lacks) == 0;
}

uint32_t zc_request_node_ranks(const struct zc_request *request)
{
    return request->node_ranks == 0 ? request->layout->ranks : request->node_ranks;
}

uint32_t zc_request_nodes(const struct zc_request *request)
{
    return request->layout->ranks / zc_request_node_ranks(request);
}

static const char *option_defect(const struct zc_request *request)
{
    const struct zc_algorithm *algorithm = request->algorithm;

    if (request->released && !zc_has(algorithm, ZC_SAYS_READY))
        return "the algorithm never says ready, so nothing can be released for it";
    if (request->grouped && !zc_has(algorithm, ZC_GROUPS))
        return "the algorithm has no pushes to group";
    if (request->closed && !zc_has(algorithm, ZC_CLOSES))
        return "only what moves no data is closed by a round of done";
    if (request->bounced && !zc_has(algorithm, ZC_BOUNCES_OWN))
        return "the algorithm does not take the own share out and back";
    if (request->bounced && !zc_has(algorithm, ZC_USES_HOST) &&
        (request->layout->ranks == 1 || request->bounce_bytes == 0))
        return "there is no neighbour, or no room there, to take the own share through";
    return algorithm->cannot == NULL ? NULL : algorithm->cannot(request);
}

const char *zc_request_defect(const struct zc_request *request)
{
    const struct zc_layout *layout = request->layout;

    if (layout == NULL || layout->collective == NULL || request->algorithm == NULL)
        return "unknown collective or algorithm";
    if (!zc_algorithm_serves(request->algorithm, layout->collective))
        return "the algorithm belongs to another collective";
    if (layout->ranks == 0 || request->rank >= layout->ranks)
        return "the rank is not below the number of ranks";
    if (layout->share > (uint64_t)INT64_MAX / layout->ranks)
        return "the output is larger than 63 bits can count";
    if (layout->ranks % zc_request_node_ranks(request) != 0)
        return "the nodes are not equally large";
    if (!zc_has(request->algorithm, ZC_CROSSES) && zc_request_nodes(request) > 1)
        return "the algorithm does not go from node to node";
    if (request->lanes == 0 || request->lanes > ZC_MAX_LANES)
        return "the number of lanes is out of range";
    if (request->half > 1 || request->scratch_bytes > (uint64_t)INT64_MAX / 4 ||
        request->bounce_bytes > (uint64_t)INT64_MAX / 4)
        return "the scratch window is out of range";
    if (request->host_bytes > (uint64_t)INT64_MAX / 4 ||
        request->ring_bytes > (uint64_t)INT64_MAX / 4)
        return "the host memory is out of range";
    return option_defect(request);
}

uint64_t zc_plan_buffer_bytes(const struct zc_request *request, enum zc_buffer buffer)
{
    const struct zc_layout *layout = request->layout;

    switch (buffer) {
    case ZC_SEND:
        return layout->input;
    case ZC_RECV:
        return layout->output;
    case ZC_SCRATCH:
        return request->scratch_bytes * 2 + request->bounce_bytes;
    case ZC_HOST:
        return request->host_bytes * 2 + request->ring_bytes;
    case ZC_BUFFERS:
        break;
    }
    return 0;
}
