/* Scratch-pull and host-pull, for every collective but those of which a rank knows its own flows
 * only: small inputs are posted in memory of the team's, and whoever gets something of them fetches
 * it. One crossing, no ready. */
#include "plan/plan.h"

static const char *needs_scratch(const struct zc_request *request)
{
    return request->layout->sent > request->scratch_bytes
               ? "the input does not fit into the scratch window"
               : NULL;
}

static const char *needs_host_memory(const struct zc_request *request)
{
    return request->layout->input > request->host_bytes
               ? "the input does not fit into the team's host memory"
               : NULL;
}

struct range {
    uint64_t begin, end;
};

/* From where to where this rank's input is read between these bounds; empty if nobody does. */
static struct range find_read(const struct zc_plan *plan, uint64_t from, uint64_t to, bool own)
{
    struct range range = {to, from};

    for (uint32_t peer = 0; peer < plan->request.layout->ranks; peer++) {
        const struct zc_flow flow = zc_plan_out(plan, peer);
        const uint64_t begin = flow.from_at < from ? from : flow.from_at;
        const uint64_t end = flow.from_at + flow.bytes > to ? to : flow.from_at + flow.bytes;

        if ((peer == plan->request.rank && !own) || begin >= end)
            continue;
        range.begin = begin < range.begin ? begin : range.begin;
        range.end = end > range.end ? end : range.end;
    }
    return range;
}

static void post_range(struct zc_plan *plan, enum zc_buffer buffer, uint64_t half, uint64_t from,
                       uint64_t to, bool own)
{
    const struct range range = find_read(plan, from, to, own);

    if (range.begin < range.end)
        zc_plan_copy(plan, 0, zc_plan_input(plan, range.begin),
                     zc_at(plan->request.rank, buffer, half + range.begin),
                     range.end - range.begin);
}

/* In place the own share lies in the output, so there the input is posted in three parts: before
 * that, that, and behind it. */
static void post(struct zc_plan *plan, enum zc_buffer buffer, uint64_t half, bool bounced)
{
    const struct zc_flow own = zc_plan_out(plan, plan->request.rank);

    if (!plan->request.in_place) {
        post_range(plan, buffer, half, 0, UINT64_MAX, bounced);
        return;
    }
    post_range(plan, buffer, half, 0, own.from_at, false);
    post_range(plan, buffer, half, own.from_at, own.from_at + own.bytes, false);
    post_range(plan, buffer, half, own.from_at + own.bytes, UINT64_MAX, false);
}

/* A peer's signal of call k proves that it has finished call k-1 and so has read everything posted
 * in call k-2, whose half is written now. So every rank tells every other, also whom it has nothing
 * for. */
static void post_and_pull(struct zc_plan *plan, enum zc_buffer buffer, enum zc_channel channel)
{
    const struct zc_request *request = &plan->request;
    const uint32_t ranks = request->layout->ranks, rank = request->rank;
    const uint64_t half =
        request->half * (buffer == ZC_HOST ? request->host_bytes : request->scratch_bytes);
    const struct zc_flow own = zc_plan_out(plan, rank);
    const bool bounced = request->bounced && !request->in_place && own.bytes > 0;

    post(plan, buffer, half, bounced);
    for (uint32_t hop = 1; hop < ranks; hop++)
        zc_plan_signal(plan, 0, (rank + hop) % ranks, channel);
    if (bounced)
        zc_plan_copy(plan, 0, zc_at(rank, buffer, half + own.from_at),
                     zc_at(rank, ZC_RECV, own.to_at), own.bytes);
    else
        zc_plan_copy_own(plan, 0, 0, UINT64_MAX);
    for (uint32_t hop = 1; hop < ranks; hop++) {
        const uint32_t peer = (rank + ranks - hop) % ranks;
        const struct zc_flow flow = zc_plan_in(plan, peer);

        zc_plan_wait(plan, 0, peer, channel);
        if (flow.bytes > 0)
            zc_plan_copy(plan, 0, zc_at(peer, buffer, half + flow.from_at),
                         zc_at(rank, ZC_RECV, flow.to_at), flow.bytes);
    }
}

static void pull_from_scratch(struct zc_plan *plan)
{
    post_and_pull(plan, ZC_SCRATCH, ZC_CHANNEL_DONE);
}

static void pull_from_host_memory(struct zc_plan *plan)
{
    post_and_pull(plan, ZC_HOST, ZC_CHANNEL_FILLED);
}

/* They signal first of all, and take the halves in turn, so a graph cannot hold them. */
const struct zc_algorithm zc_scratch_pull = {
    .name = "scratch-pull",
    .lacks = ZC_NO_DATA | ZC_PARTNERS,
    .traits = ZC_USES_SCRATCH | ZC_ALTERNATES | ZC_EAGER_ONLY | ZC_COPIES_OWN,
    .cannot = needs_scratch,
    .make = pull_from_scratch,
};

const struct zc_algorithm zc_host_pull = {
    .name = "host-pull",
    .lacks = ZC_NO_DATA | ZC_PARTNERS,
    .traits = ZC_USES_HOST | ZC_ALTERNATES | ZC_EAGER_ONLY | ZC_COPIES_OWN | ZC_BOUNCES_OWN,
    .cannot = needs_host_memory,
    .make = pull_from_host_memory,
};
