/* Scratch-pull and host-pull, for every collective but those of which a rank knows its own flows
 * only: small inputs are posted in memory of the team's, and whoever gets something of them fetches
 * it. One crossing, no ready. */
#include "plan/plan.h"

/* Where inputs are posted, and what tells of it. */
struct post {
    enum zc_buffer buffer;
    enum zc_channel channel;
    uint64_t half; /* offset of the half whose turn it is */
    /* What all ranks get alike is posted in rank 0's part, in the order in which it lies in the
     * outputs, so that it comes in by one copy, not one a rank. */
    bool together;
};

static bool goes_together(const struct zc_request *request)
{
    return (request->layout->collective->traits & ZC_SAME_FOR_ALL) != 0;
}

static const char *needs_scratch(const struct zc_request *request)
{
    return request->layout->sent > request->scratch_bytes
               ? "the input does not fit into the scratch window"
               : NULL;
}

static const char *needs_host_memory(const struct zc_request *request)
{
    const struct zc_layout *layout = request->layout;

    return (goes_together(request) ? layout->output : layout->input) > request->host_bytes
               ? "the data does not fit into the team's host memory"
               : NULL;
}

/* Where a flow's bytes are posted. */
static struct zc_place posted(const struct post *post, uint32_t from, const struct zc_flow *flow)
{
    return post->together ? zc_at(0, post->buffer, post->half + flow->to_at)
                          : zc_at(from, post->buffer, post->half + flow->from_at);
}

/* ---- Posting ---- */

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

static void post_range(struct zc_plan *plan, const struct post *post, uint64_t from, uint64_t to,
                       bool own)
{
    const struct range range = find_read(plan, from, to, own);

    if (range.begin < range.end)
        zc_plan_copy(plan, 0, zc_plan_input(plan, range.begin),
                     zc_at(plan->request.rank, post->buffer, post->half + range.begin),
                     range.end - range.begin);
}

/* In place the own share lies in the output, so there the input is posted in three parts: before
 * that, that, and behind it. */
static void post_input(struct zc_plan *plan, const struct post *post, bool own)
{
    const struct zc_flow kept = zc_plan_out(plan, plan->request.rank);

    if (post->together) {
        if (kept.bytes > 0)
            zc_plan_copy(plan, 0, zc_plan_input(plan, kept.from_at),
                         posted(post, plan->request.rank, &kept), kept.bytes);
    } else if (!plan->request.in_place) {
        post_range(plan, post, 0, UINT64_MAX, own);
    } else {
        post_range(plan, post, 0, kept.from_at, false);
        post_range(plan, post, kept.from_at, kept.from_at + kept.bytes, false);
        post_range(plan, post, kept.from_at + kept.bytes, UINT64_MAX, false);
    }
}

/* ---- Fetching ---- */

static void fetch(struct zc_plan *plan, const struct post *post, uint32_t from,
                  const struct zc_flow *flow)
{
    if (flow->bytes > 0)
        zc_plan_copy(plan, 0, posted(post, from, flow),
                     zc_at(plan->request.rank, ZC_RECV, flow->to_at), flow->bytes);
}

/* Shares that adjoin come by one copy; in place the own one does not. */
static void fetch_together(struct zc_plan *plan, const struct post *post)
{
    struct zc_flow run = {0};

    for (uint32_t from = 0; from < plan->request.layout->ranks; from++) {
        const struct zc_flow flow = zc_plan_in(plan, from);

        if (flow.bytes == 0 || (from == plan->request.rank && plan->request.in_place))
            continue;
        if (run.to_at + run.bytes != flow.to_at) {
            fetch(plan, post, 0, &run);
            run = (struct zc_flow){.to_at = flow.to_at};
        }
        run.bytes += flow.bytes;
    }
    fetch(plan, post, 0, &run);
}

/* A peer's signal of call k proves that it has finished call k-1 and so has read everything posted
 * in call k-2, whose half is written now. So every rank tells every other, also whom it has nothing
 * for. */
static void post_and_pull(struct zc_plan *plan, const struct post *post)
{
    const struct zc_request *request = &plan->request;
    const uint32_t ranks = request->layout->ranks, rank = request->rank;
    const struct zc_flow own = zc_plan_out(plan, rank);
    const bool bounced = request->bounced && !request->in_place;

    post_input(plan, post, bounced);
    for (uint32_t hop = 1; hop < ranks; hop++)
        zc_plan_signal(plan, 0, (rank + hop) % ranks, post->channel);
    if (bounced && !post->together)
        fetch(plan, post, rank, &own);
    else if (!post->together)
        zc_plan_copy_own(plan, 0, 0, UINT64_MAX);
    for (uint32_t hop = 1; hop < ranks; hop++) {
        const uint32_t peer = (rank + ranks - hop) % ranks;
        const struct zc_flow flow = zc_plan_in(plan, peer);

        zc_plan_wait(plan, 0, peer, post->channel);
        if (!post->together)
            fetch(plan, post, peer, &flow);
    }
    if (post->together)
        fetch_together(plan, post);
}

static void pull_from_scratch(struct zc_plan *plan)
{
    const struct zc_request *request = &plan->request;

    post_and_pull(plan, &(struct post){.buffer = ZC_SCRATCH,
                                       .channel = ZC_CHANNEL_DONE,
                                       .half = request->half * request->scratch_bytes});
}

static void pull_from_host_memory(struct zc_plan *plan)
{
    const struct zc_request *request = &plan->request;

    post_and_pull(plan, &(struct post){.buffer = ZC_HOST,
                                       .channel = ZC_CHANNEL_FILLED,
                                       .half = request->half * request->host_bytes,
                                       .together = goes_together(request)});
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
