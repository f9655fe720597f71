/* Host-stream, for every collective: each flow goes out into its sender's host memory and in from
 * there, in chunks, so that ranks whose GPUs do not reach each other make a team like others. Two
 * slots a flow, so that a chunk goes out while the one before comes in. */
#include "plan/plan.h"

enum { SLOTS = 2, CHUNKS_MOST = 1 << 14 };

/* Smaller ones leave the way in and the way out waiting for each other; larger ones make the first
 * and the last wait longer. Measured on GPUs, see docs/performance.md. */
#define CHUNK_MOST ((uint64_t)4 << 20)

/* What goes to all alike lies there once. */
static bool is_shared(const struct zc_request *request)
{
    return (request->layout->collective->traits & ZC_SAME_FOR_ALL) != 0;
}

/* A rank has one to its partner, and one to itself. */
static bool has_partners(const struct zc_request *request)
{
    return (request->layout->collective->traits & ZC_PARTNERS) != 0;
}

/* How many flows of a rank's have slots of their own. */
static uint32_t flows_of(const struct zc_request *request)
{
    return is_shared(request) ? 1 : has_partners(request) ? 2 : request->layout->ranks;
}

/* By what all ranks know alike, though some may have less to send. In whole pages, if there is room
 * for one. */
static uint64_t chunk_of(const struct zc_request *request)
{
    enum { PAGE = 4096 };
    const uint64_t room = request->ring_bytes / SLOTS / flows_of(request);
    const uint64_t whole = room < PAGE ? room : room / PAGE * PAGE;

    return whole < CHUNK_MOST ? whole : CHUNK_MOST;
}

static const char *needs_a_ring(const struct zc_request *request)
{
    const uint64_t chunk = chunk_of(request);

    return chunk == 0 || request->layout->share / chunk >= CHUNKS_MOST
               ? "the team has too little host memory for shares of that size"
               : NULL;
}

/* Where in its sender's host memory chunk `number` of the flow lies. */
static struct zc_place slot_of(const struct zc_request *request, uint32_t from, uint32_t to,
                               uint32_t number)
{
    const uint64_t flow = is_shared(request) ? 0 : has_partners(request) ? to == from : to;

    return zc_at(from, ZC_HOST,
                 2 * request->host_bytes + (flow * SLOTS + number % SLOTS) * chunk_of(request));
}

/* Bytes of that chunk; 0: the flow has ended. */
static uint64_t bytes_of(const struct zc_request *request, const struct zc_flow *flow,
                         uint32_t number)
{
    const uint64_t chunk = chunk_of(request), offset = number * chunk;

    if (offset >= flow->bytes)
        return 0;
    return flow->bytes - offset < chunk ? flow->bytes - offset : chunk;
}

static void copy_out(struct zc_plan *plan, uint32_t to, uint32_t number, uint64_t bytes)
{
    const struct zc_request *request = &plan->request;
    const struct zc_flow flow = zc_plan_out(plan, to);

    zc_plan_copy(plan, 0, zc_plan_input(plan, flow.from_at + number * chunk_of(request)),
                 slot_of(request, request->rank, to, number), bytes);
}

static void copy_in(struct zc_plan *plan, uint32_t lane, uint32_t from, uint32_t number,
                    uint64_t bytes)
{
    const struct zc_request *request = &plan->request;
    const struct zc_flow flow = zc_plan_in(plan, from);

    zc_plan_copy(plan, lane, slot_of(request, from, request->rank, number),
                 zc_at(request->rank, ZC_RECV, flow.to_at + number * chunk_of(request)), bytes);
}

/* A slot is its owner's again when whoever took from it says so. */
static void await_emptied(struct zc_plan *plan, uint32_t number)
{
    const uint32_t ranks = plan->request.layout->ranks;

    for (uint32_t hop = 1; hop < ranks; hop++) {
        const uint32_t peer = (plan->request.rank + hop) % ranks;
        const struct zc_flow flow = zc_plan_out(plan, peer);

        if (bytes_of(&plan->request, &flow, number) > 0)
            zc_plan_wait(plan, 0, peer, ZC_CHANNEL_EMPTIED);
    }
}

/* Out and, bounced, back: both copies are this rank's, so their order is its stream's. */
static void move_own(struct zc_plan *plan, uint32_t number, bool is_out)
{
    const struct zc_request *request = &plan->request;
    const struct zc_flow own = zc_plan_out(plan, request->rank);
    const uint64_t bytes = bytes_of(request, &own, number);

    if (bytes == 0 || request->in_place)
        return;
    if (!request->bounced) {
        zc_plan_copy_own(plan, 0, number * chunk_of(request), bytes);
        return;
    }
    if (!is_out)
        copy_out(plan, request->rank, number, bytes);
    copy_in(plan, 0, request->rank, number, bytes);
}

static void send_chunk(struct zc_plan *plan, uint32_t number)
{
    const struct zc_request *request = &plan->request;
    const uint32_t ranks = request->layout->ranks;
    bool is_out = false;

    if (number >= SLOTS)
        await_emptied(plan, number - SLOTS);
    for (uint32_t hop = 1; hop < ranks; hop++) {
        const uint32_t peer = (request->rank + hop) % ranks;
        const struct zc_flow flow = zc_plan_out(plan, peer);
        const uint64_t bytes = bytes_of(request, &flow, number);

        if (bytes == 0)
            continue;
        if (!is_out)
            copy_out(plan, peer, number, bytes);
        is_out = is_shared(request);
        zc_plan_signal(plan, 0, peer, ZC_CHANNEL_FILLED);
    }
    move_own(plan, number, is_out);
}

static void take_chunk(struct zc_plan *plan, uint32_t lane, uint32_t number)
{
    const struct zc_request *request = &plan->request;
    const uint32_t ranks = request->layout->ranks;

    for (uint32_t hop = 1; hop < ranks; hop++) {
        const uint32_t peer = (request->rank + ranks - hop) % ranks;
        const struct zc_flow flow = zc_plan_in(plan, peer);
        const uint64_t bytes = bytes_of(request, &flow, number);

        if (bytes == 0)
            continue;
        zc_plan_wait(plan, lane, peer, ZC_CHANNEL_FILLED);
        copy_in(plan, lane, peer, number, bytes);
        zc_plan_signal(plan, lane, peer, ZC_CHANNEL_EMPTIED);
    }
}

/* Chunk i goes out when i - 2 has been taken, and is taken when it has gone out, by every rank: so
 * some rank can always go on, also where both ways are one lane. At the end all slots have been
 * given back: the next call begins with empty ones, whichever it is. */
static void stream(struct zc_plan *plan)
{
    const struct zc_request *request = &plan->request;
    const uint64_t chunk = chunk_of(request), share = request->layout->share;
    const uint32_t chunks = (uint32_t)((share + chunk - 1) / chunk);
    const bool aside = request->lanes > 1 && request->layout->ranks > 1;

    if (aside)
        zc_plan_fork(plan, 1);
    for (uint32_t i = 0; i < chunks; i++) {
        send_chunk(plan, i);
        take_chunk(plan, aside ? 1 : 0, i);
    }
    for (uint32_t i = chunks < SLOTS ? 0 : chunks - SLOTS; i < chunks; i++)
        await_emptied(plan, i);
    if (aside)
        zc_plan_join(plan, 1);
}

const struct zc_algorithm zc_host_stream = {
    .name = "host-stream",
    .lacks = ZC_NO_DATA,
    .traits = ZC_USES_HOST | ZC_COPIES_OWN | ZC_BOUNCES_OWN,
    .cannot = needs_a_ring,
    .make = stream,
};
