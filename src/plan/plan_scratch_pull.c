/* Scratch-pull, for every collective but those of which a rank knows its own flows only: small
 * inputs are posted in the scratch window, and whoever gets something of them fetches it. One
 * crossing, no ready. */
#include "plan/plan.h"

static const char *needs_room(const struct zc_request *request)
{
    return request->layout->sent > request->scratch_bytes
               ? "the input does not fit into the scratch window"
               : NULL;
}

struct range {
    uint64_t begin, end;
};

/* From where to where others read this rank's input between these bounds; empty if they do not. */
static struct range find_read(const struct zc_plan *plan, uint64_t from, uint64_t to)
{
    struct range range = {to, from};

    for (uint32_t peer = 0; peer < plan->request.layout->ranks; peer++) {
        const struct zc_flow flow = zc_plan_out(plan, peer);
        const uint64_t begin = flow.from_at < from ? from : flow.from_at;
        const uint64_t end = flow.from_at + flow.bytes > to ? to : flow.from_at + flow.bytes;

        if (peer == plan->request.rank || begin >= end)
            continue;
        range.begin = begin < range.begin ? begin : range.begin;
        range.end = end > range.end ? end : range.end;
    }
    return range;
}

static void post_range(struct zc_plan *plan, uint64_t half, uint64_t from, uint64_t to)
{
    const struct range range = find_read(plan, from, to);

    if (range.begin < range.end)
        zc_plan_copy(plan, 0, zc_plan_input(plan, range.begin),
                     zc_at(plan->request.rank, ZC_SCRATCH, half + range.begin),
                     range.end - range.begin);
}

/* What others get of this rank's input. In place the own share lies in the output, so there it is
 * posted in three parts: before that, that, and behind it. */
static void post(struct zc_plan *plan, uint64_t half)
{
    const struct zc_flow own = zc_plan_out(plan, plan->request.rank);

    if (!plan->request.in_place) {
        post_range(plan, half, 0, UINT64_MAX);
        return;
    }
    post_range(plan, half, 0, own.from_at);
    post_range(plan, half, own.from_at, own.from_at + own.bytes);
    post_range(plan, half, own.from_at + own.bytes, UINT64_MAX);
}

/* A peer's signal of call k proves that it has finished call k-1 and so has read everything posted
 * in call k-2, whose half is written now. So every rank tells every other, also whom it has nothing
 * for. */
static void pull_from_scratch(struct zc_plan *plan)
{
    const struct zc_request *request = &plan->request;
    const uint32_t ranks = request->layout->ranks, rank = request->rank;
    const uint64_t half = request->half * request->scratch_bytes;

    post(plan, half);
    for (uint32_t hop = 1; hop < ranks; hop++)
        zc_plan_signal(plan, 0, (rank + hop) % ranks, ZC_CHANNEL_DONE);
    zc_plan_copy_own(plan, 0, 0, UINT64_MAX);
    for (uint32_t hop = 1; hop < ranks; hop++) {
        const uint32_t peer = (rank + ranks - hop) % ranks;
        const struct zc_flow flow = zc_plan_in(plan, peer);

        zc_plan_wait(plan, 0, peer, ZC_CHANNEL_DONE);
        if (flow.bytes > 0)
            zc_plan_copy(plan, 0, zc_at(peer, ZC_SCRATCH, half + flow.from_at),
                         zc_at(rank, ZC_RECV, flow.to_at), flow.bytes);
    }
}

/* It signals first of all, and takes the halves of its window in turn, so a graph cannot hold it.
 */
const struct zc_algorithm zc_scratch_pull = {
    .name = "scratch-pull",
    .lacks = ZC_NO_DATA | ZC_PARTNERS,
    .traits = ZC_USES_SCRATCH | ZC_ALTERNATES | ZC_EAGER_ONLY | ZC_COPIES_OWN,
    .cannot = needs_room,
    .make = pull_from_scratch,
};
