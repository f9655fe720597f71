/* Plans: appending steps, and what makes the steps of one plan well formed. */
#include "plan/plan.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

void zc_plan_destroy(struct zc_plan *plan)
{
    if (plan == NULL)
        return;
    free(plan->steps);
    free(plan->parsed);
    free(plan);
}

/* ---- Appending ---- */

static void append(struct zc_plan *plan, const struct zc_step *step)
{
    if (plan->step_count == plan->capacity) {
        const uint32_t capacity = plan->capacity == 0 ? 64 : plan->capacity * 2;
        struct zc_step *steps = NULL;

        if (plan->capacity <= UINT32_MAX / 2 && !plan->out_of_memory)
            steps = realloc(plan->steps, capacity * sizeof *steps);
        if (steps == NULL) {
            plan->out_of_memory = true;
            return;
        }
        plan->steps = steps;
        plan->capacity = capacity;
    }
    plan->steps[plan->step_count++] = *step;
}

struct zc_place zc_at(uint32_t rank, enum zc_buffer buffer, uint64_t offset)
{
    return (struct zc_place){.rank = rank, .buffer = buffer, .offset = offset};
}

void zc_plan_copy(struct zc_plan *plan, uint32_t lane, struct zc_place from, struct zc_place to,
                  uint64_t bytes)
{
    zc_plan_copy_rows(plan, lane, from, to, bytes, 1, 0);
}

void zc_plan_copy_rows(struct zc_plan *plan, uint32_t lane, struct zc_place from,
                       struct zc_place to, uint64_t bytes, uint32_t rows, uint64_t stride)
{
    append(plan, &(struct zc_step){.kind = ZC_STEP_COPY,
                                   .lane = lane,
                                   .from = from,
                                   .to = to,
                                   .bytes = bytes,
                                   .rows = rows,
                                   .stride = rows == 1 ? 0 : stride});
}

void zc_plan_exchange_rows(struct zc_plan *plan, uint32_t lane, struct zc_place at, uint64_t bytes,
                           uint64_t stride)
{
    const uint32_t size = zc_request_node_ranks(&plan->request);
    const uint32_t nodes = zc_request_nodes(&plan->request), own = plan->request.rank / size;

    for (uint32_t hop = 1; hop < nodes; hop++) {
        const uint32_t to = (own + hop) % nodes, from = (own + nodes - hop) % nodes;
        struct zc_place sent = at, received = at;

        sent.offset += own * stride;
        received.offset += from * stride;
        append(plan, &(struct zc_step){.kind = ZC_STEP_NET_SEND,
                                       .lane = lane,
                                       .peer = to * size + plan->request.rank % size,
                                       .from = sent,
                                       .bytes = bytes,
                                       .rows = 1});
        append(plan, &(struct zc_step){.kind = ZC_STEP_NET_RECV,
                                       .lane = lane,
                                       .peer = from * size + plan->request.rank % size,
                                       .to = received,
                                       .bytes = bytes,
                                       .rows = 1});
    }
}

void zc_plan_signal(struct zc_plan *plan, uint32_t lane, uint32_t peer, enum zc_channel channel)
{
    append(plan, &(struct zc_step){
                     .kind = ZC_STEP_SIGNAL, .lane = lane, .peer = peer, .channel = channel});
}

void zc_plan_wait(struct zc_plan *plan, uint32_t lane, uint32_t peer, enum zc_channel channel)
{
    append(plan,
           &(struct zc_step){.kind = ZC_STEP_WAIT, .lane = lane, .peer = peer, .channel = channel});
}

void zc_plan_fork(struct zc_plan *plan, uint32_t lane)
{
    if (lane >= plan->lane_count)
        plan->lane_count = lane + 1;
    append(plan, &(struct zc_step){.kind = ZC_STEP_FORK, .peer = lane});
}

void zc_plan_join(struct zc_plan *plan, uint32_t lane)
{
    append(plan, &(struct zc_step){.kind = ZC_STEP_JOIN, .peer = lane});
}

void zc_plan_with_node(struct zc_plan *plan, enum zc_channel channel, zc_plan_flag_fn *flag)
{
    const struct zc_request *request = &plan->request;
    const uint32_t size = zc_request_node_ranks(request), local = request->rank % size;

    for (uint32_t i = 1; i < size; i++)
        flag(plan, 0, request->rank - local + (local + i) % size, channel);
}

/* ---- What algorithms share ---- */

struct zc_flow zc_plan_out(const struct zc_plan *plan, uint32_t peer)
{
    return zc_flow_between(plan->request.layout, plan->request.rank, peer);
}

struct zc_flow zc_plan_in(const struct zc_plan *plan, uint32_t peer)
{
    return zc_flow_between(plan->request.layout, peer, plan->request.rank);
}

/* In place the own share, and what others get of it, lies in the output. */
struct zc_place zc_plan_input(const struct zc_plan *plan, uint64_t at)
{
    const struct zc_request *request = &plan->request;
    const struct zc_flow own = zc_plan_out(plan, request->rank);

    if (request->in_place && at >= own.from_at && at - own.from_at < own.bytes)
        return zc_at(request->rank, ZC_RECV, own.to_at + (at - own.from_at));
    return zc_at(request->rank, ZC_SEND, at);
}

uint64_t zc_plan_block(const struct zc_plan *plan)
{
    const struct zc_request *request = &plan->request;
    const uint64_t share = request->layout->share;
    const uint64_t least = (share + ZC_MAX_BLOCKS - 1) / ZC_MAX_BLOCKS;

    if (request->block_bytes == 0)
        return share;
    return request->block_bytes < least ? least : request->block_bytes;
}

void zc_plan_copy_own(struct zc_plan *plan, uint32_t lane, uint64_t offset, uint64_t bytes)
{
    const uint32_t rank = plan->request.rank;
    const struct zc_flow own = zc_plan_out(plan, rank);

    if (plan->request.in_place || offset >= own.bytes)
        return;
    if (bytes > own.bytes - offset)
        bytes = own.bytes - offset;
    zc_plan_copy(plan, lane, zc_at(rank, ZC_SEND, own.from_at + offset),
                 zc_at(rank, ZC_RECV, own.to_at + offset), bytes);
}

bool zc_plan_copy_own_aside(struct zc_plan *plan)
{
    const struct zc_request *request = &plan->request;

    if (request->in_place || request->bounced || request->lanes == 1 ||
        zc_plan_out(plan, request->rank).bytes == 0)
        return false;
    zc_plan_fork(plan, 1);
    zc_plan_copy_own(plan, 1, 0, UINT64_MAX);
    return true;
}

/* Where a copy within one rank's memory is not free of SMs, the own share goes out into the next
 * rank's bounce slot, which is this rank's alone, and comes back from there. Both copies are this
 * rank's, so their order is its stream's, and nobody needs to be told. */
void zc_plan_bounce_own(struct zc_plan *plan)
{
    const struct zc_request *request = &plan->request;
    const struct zc_flow own = zc_plan_out(plan, request->rank);
    const struct zc_place slot =
        zc_at((request->rank + 1) % request->layout->ranks, ZC_SCRATCH, 2 * request->scratch_bytes);

    for (uint64_t offset = 0; offset < own.bytes && !request->in_place;) {
        const uint64_t left = own.bytes - offset;
        const uint64_t bytes = left < request->bounce_bytes ? left : request->bounce_bytes;

        zc_plan_copy(plan, 0, zc_at(request->rank, ZC_SEND, own.from_at + offset), slot, bytes);
        zc_plan_copy(plan, 0, slot, zc_at(request->rank, ZC_RECV, own.to_at + offset), bytes);
        offset += bytes;
    }
}

void zc_plan_finish_own(struct zc_plan *plan, bool aside)
{
    if (aside)
        zc_plan_join(plan, 1);
    else if (plan->request.bounced)
        zc_plan_bounce_own(plan);
    else
        zc_plan_copy_own(plan, 0, 0, UINT64_MAX);
}

void zc_plan_say_ready(struct zc_plan *plan)
{
    const uint32_t ranks = plan->request.layout->ranks;

    for (uint32_t hop = 1; !plan->request.released && hop < ranks; hop++) {
        const uint32_t peer = (plan->request.rank + hop) % ranks;

        if (zc_plan_in(plan, peer).bytes > 0)
            zc_plan_signal(plan, 0, peer, ZC_CHANNEL_READY);
    }
}

/* What is done with a peer, in this order. */
enum push { AWAIT = 1, COPY = 2, TELL = 4 };

/* A peer is awaited before its first block and told after its last. */
static void push_to(struct zc_plan *plan, unsigned what, uint32_t peer, uint64_t offset,
                    uint64_t block)
{
    const struct zc_flow flow = zc_plan_out(plan, peer);
    uint64_t bytes = block;

    if (offset >= flow.bytes)
        return;
    if (bytes > flow.bytes - offset)
        bytes = flow.bytes - offset;
    if ((what & AWAIT) != 0 && offset == 0)
        zc_plan_wait(plan, 0, peer,
                     plan->request.released ? ZC_CHANNEL_RELEASED : ZC_CHANNEL_READY);
    if ((what & COPY) != 0)
        zc_plan_copy(plan, 0, zc_plan_input(plan, flow.from_at + offset),
                     zc_at(peer, ZC_RECV, flow.to_at + offset), bytes);
    if ((what & TELL) != 0 && offset + bytes == flow.bytes)
        zc_plan_signal(plan, 0, peer, ZC_CHANNEL_DONE);
}

static void push_to_all(struct zc_plan *plan, unsigned what, uint64_t offset, uint64_t block)
{
    const uint32_t ranks = plan->request.layout->ranks;

    for (uint32_t hop = 1; hop < ranks; hop++)
        push_to(plan, what, (plan->request.rank + hop) % ranks, offset, block);
}

/* In the order rank+1, rank+2, ..., so that no two ranks push to the same peer at once. Going block
 * by block, the own share's first, keeps the source in the cache of a CPU that copies; a single
 * block goes to the others first. Grouped, all peers are awaited
 * before the first push and told after the last: a device that changes between copies and waits at
 * a price pays it once. */
void zc_plan_push(struct zc_plan *plan, bool own)
{
    const uint64_t share = plan->request.layout->share, block = zc_plan_block(plan);

    for (uint64_t offset = 0; offset < share; offset += block) {
        if (own && block < share)
            zc_plan_copy_own(plan, 0, offset, block);
        if (!plan->request.grouped) {
            push_to_all(plan, AWAIT | COPY | TELL, offset, block);
            continue;
        }
        push_to_all(plan, AWAIT, offset, block);
        push_to_all(plan, COPY, offset, block);
        push_to_all(plan, TELL, offset, block);
    }
    if (own && block >= share)
        zc_plan_copy_own(plan, 0, 0, block);
}

/* Ready that was said early by a peer that this rank pushes nothing to is awaited here, where it
 * has long come: see zc_early_ready. */
void zc_plan_await_done(struct zc_plan *plan, uint32_t peer)
{
    if (zc_plan_in(plan, peer).bytes == 0)
        return;
    zc_plan_wait(plan, 0, peer, ZC_CHANNEL_DONE);
    if (plan->request.released && zc_plan_out(plan, peer).bytes == 0)
        zc_plan_wait(plan, 0, peer, ZC_CHANNEL_RELEASED);
}

/* ---- Well formed in itself ---- */

/* `place` is the first of `rows` rows. */
static const char *place_defect(const struct zc_request *request, const struct zc_place *place,
                                uint64_t bytes, uint32_t rows, uint64_t stride)
{
    uint64_t room;

    if (place->rank >= request->layout->ranks)
        return "names a rank outside the team";
    if (place->buffer >= ZC_BUFFERS)
        return "names no buffer";
    if (place->buffer == ZC_SEND && place->rank != request->rank)
        return "touches another rank's send buffer, which has no address here";
    room = zc_plan_buffer_bytes(request, place->buffer);
    if (place->offset > room || bytes > room - place->offset)
        return "reaches past the end of a buffer";
    room -= place->offset + bytes;
    if (rows > 1 && (stride == 0 || stride < bytes || rows - 1 > room / stride))
        return "has rows that overlap or reach past the end of a buffer";
    return NULL;
}

static const char *copy_defect(const struct zc_request *request, const struct zc_step *step)
{
    const char *defect = place_defect(request, &step->from, step->bytes, step->rows, step->stride);

    if (defect == NULL)
        defect = place_defect(request, &step->to, step->bytes, step->rows, step->stride);
    if (defect == NULL && step->to.buffer == ZC_SEND)
        defect = "writes to the send buffer";
    if (defect == NULL && (step->bytes == 0 || step->rows == 0))
        defect = "copies nothing";
    if (defect == NULL && step->to.rank / zc_request_node_ranks(request) !=
                              step->from.rank / zc_request_node_ranks(request))
        defect = "copies from node to node";
    if (defect == NULL && step->to.rank / zc_request_node_ranks(request) !=
                              request->rank / zc_request_node_ranks(request))
        defect = "copies within another node";
    return defect;
}

/* Only what cannot reach its peer's memory goes over the network. */
static const char *network_defect(const struct zc_request *request, const struct zc_step *step)
{
    const uint32_t size = zc_request_node_ranks(request);
    const struct zc_place *place = step->kind == ZC_STEP_NET_SEND ? &step->from : &step->to;
    const char *defect = place_defect(request, place, step->bytes, 1, 0);

    if (defect == NULL && step->bytes == 0)
        defect = "sends or receives nothing";
    if (defect == NULL && place->rank != request->rank)
        defect = "sends from, or receives into, another rank's memory";
    if (defect == NULL && step->kind == ZC_STEP_NET_RECV && place->buffer == ZC_SEND)
        defect = "writes to the send buffer";
    if (defect == NULL &&
        (step->peer >= request->layout->ranks || step->peer / size == request->rank / size))
        defect = "sends to, or receives from, no rank of another node";
    return defect;
}

enum lane_state { LANE_UNUSED, LANE_RUNNING, LANE_JOINED };

static const char *fork_defect(const struct zc_step *step, uint32_t lane_count,
                               enum lane_state *lanes)
{
    if (step->lane != 0 || step->peer == 0 || step->peer >= lane_count)
        return "forks or joins a lane that lane 0 cannot";
    if (lanes[step->peer] != (step->kind == ZC_STEP_FORK ? LANE_UNUSED : LANE_RUNNING))
        return "forks a lane twice, or joins one that does not run";
    lanes[step->peer] = step->kind == ZC_STEP_FORK ? LANE_RUNNING : LANE_JOINED;
    return NULL;
}

static const char *step_defect(const struct zc_plan *plan, const struct zc_step *step,
                               enum lane_state *lanes)
{
    const struct zc_request *request = &plan->request;

    if (step->lane >= plan->lane_count || lanes[step->lane] != LANE_RUNNING)
        return "stands on a lane that does not run";
    if (zc_has(request->algorithm, ZC_OPENS) && step->kind != ZC_STEP_SIGNAL)
        return "does something else in a release than to signal";
    switch (step->kind) {
    case ZC_STEP_COPY:
        return copy_defect(request, step);
    case ZC_STEP_NET_SEND:
    case ZC_STEP_NET_RECV:
        return network_defect(request, step);
    case ZC_STEP_SIGNAL:
    case ZC_STEP_WAIT:
        if (step->peer >= request->layout->ranks || step->peer == request->rank ||
            step->peer / zc_request_node_ranks(request) !=
                request->rank / zc_request_node_ranks(request))
            return "signals or awaits a rank that is no peer";
        return step->channel < ZC_CHANNELS ? NULL : "names no channel";
    case ZC_STEP_FORK:
    case ZC_STEP_JOIN:
        return fork_defect(step, plan->lane_count, lanes);
    case ZC_STEP_KINDS:
        break;
    }
    return "is of no known kind";
}

const char *zc_plan_defect(const struct zc_plan *plan, char *text, size_t bytes)
{
    enum lane_state lanes[ZC_MAX_LANES] = {[0] = LANE_RUNNING};
    const char *defect = zc_request_defect(&plan->request);

    if (defect == NULL && (plan->lane_count == 0 || plan->lane_count > ZC_MAX_LANES))
        defect = "the number of lanes is out of range";
    if (defect != NULL) {
        snprintf(text, bytes, "rank %u: %s", plan->request.rank, defect);
        return text;
    }
    for (uint32_t i = 0; i < plan->step_count; i++) {
        defect = step_defect(plan, &plan->steps[i], lanes);
        if (defect != NULL) {
            snprintf(text, bytes, "rank %u, step %u %s", plan->request.rank, i, defect);
            return text;
        }
    }
    for (uint32_t lane = 1; lane < plan->lane_count; lane++)
        if (lanes[lane] == LANE_RUNNING) {
            snprintf(text, bytes, "rank %u: lane %u is never joined", plan->request.rank, lane);
            return text;
        }
    return NULL;
}
