/* Plans become programs. */
#include "engine/program.h"

#include <assert.h>
#include <stdlib.h>

size_t zc_pad_bytes(uint32_t rank_count, size_t slot_bytes, size_t pad_head_bytes)
{
    return pad_head_bytes + slot_bytes * rank_count * ZC_CHANNELS;
}

static char *buffer_base(const struct zc_binding *binding, const struct zc_place *place)
{
    switch (place->buffer) {
    case ZC_SEND:
        return (char *)(uintptr_t)binding->send;
    case ZC_RECV:
        return binding->recv[place->rank];
    case ZC_SCRATCH:
        return binding->scratch[place->rank];
    case ZC_HOST:
        return binding->host[place->rank];
    case ZC_BUFFERS:
        break;
    }
    return NULL;
}

/* Forms every address, and checks it before it adds. */
static void *address(const struct zc_plan *plan, const struct zc_binding *binding,
                     const struct zc_place *place, uint64_t bytes)
{
    const uint64_t size = zc_plan_buffer_bytes(&plan->request, place->buffer);
    char *base = buffer_base(binding, place);

    (void)size;
    (void)bytes;
    assert(base != NULL);
    assert(place->offset <= size);
    assert(bytes <= size - place->offset);
    return base + place->offset;
}

/* The slot in `owner`'s pad that `sender` raises. */
static void *slot(const struct zc_plan *plan, const struct zc_binding *binding, uint32_t owner,
                  uint32_t sender, enum zc_channel channel)
{
    const size_t index = zc_counter_index(plan->request.layout->ranks, sender, channel);

    assert(owner < plan->request.layout->ranks && sender < plan->request.layout->ranks);
    return (char *)binding->pads[owner] + binding->pad_head_bytes + index * binding->slot_bytes;
}

/* A rank sends as many releases as it may await, so these are counted once, with those awaited. A
 * plan awaits its own latest, whose number its signal left behind. */
static _Atomic uint32_t *counter(const struct zc_binding *binding, _Atomic uint32_t *counters,
                                 uint32_t ranks, const struct zc_step *step)
{
    const size_t index = zc_counter_index(ranks, step->peer, step->channel);

    if (step->channel != ZC_CHANNEL_RELEASED)
        return &counters[index];
    assert(binding->released != NULL);
    return step->kind == ZC_STEP_SIGNAL ? &binding->seen[index] : &binding->released[step->peer];
}

static struct zc_op resolve(const struct zc_plan *plan, const struct zc_binding *binding,
                            const struct zc_step *step)
{
    const uint32_t self = plan->request.rank, ranks = plan->request.layout->ranks;
    struct zc_op op = {.peer = step->peer};

    switch (step->kind) {
    case ZC_STEP_COPY:
        op.kind = ZC_OP_COPY;
        op.copy.from = address(plan, binding, &step->from, step->bytes);
        op.copy.to = address(plan, binding, &step->to, step->bytes);
        op.copy.bytes = step->bytes;
        op.copy.rows = step->rows;
        op.copy.stride = step->stride;
        op.copy.streamed = binding->stream_bytes != 0 && step->to.buffer == ZC_RECV &&
                           zc_plan_buffer_bytes(&plan->request, ZC_RECV) >= binding->stream_bytes;
        break;
    case ZC_STEP_SIGNAL:
        op.kind = ZC_OP_SIGNAL;
        op.flag.word = slot(plan, binding, step->peer, self, step->channel);
        op.flag.pad = binding->pads[step->peer];
        op.flag.count = counter(binding, binding->sent, ranks, step);
        op.flag.of_host = step->channel == ZC_CHANNEL_FILLED;
        op.flag.note = step->channel == ZC_CHANNEL_RELEASED ? &binding->released[step->peer] : NULL;
        break;
    case ZC_STEP_WAIT:
        op.kind = ZC_OP_WAIT;
        op.flag.word = slot(plan, binding, self, step->peer, step->channel);
        op.flag.pad = binding->pads[self];
        op.flag.count = counter(binding, binding->seen, ranks, step);
        break;
    case ZC_STEP_NET_SEND:
    case ZC_STEP_NET_RECV:
        op.kind = ZC_OP_NETWORK;
        op.network.enqueue = binding->enqueue;
        op.network.data = binding->enqueue_data;
        break;
    case ZC_STEP_FORK:
        op.kind = ZC_OP_FORK;
        break;
    case ZC_STEP_JOIN:
        op.kind = ZC_OP_JOIN;
        break;
    case ZC_STEP_KINDS:
        assert(false && "a plan has no such step");
        break;
    }
    return op;
}

/* Per slot, by zc_counter_index(). */
struct tally {
    uint32_t *sent, *awaited; /* in the ops so far */
    uint32_t *waits;          /* in the whole plan */
};

static void count_flag(const struct zc_plan *plan, const struct zc_step *step,
                       const struct tally *tally, struct zc_op *op)
{
    const size_t index = zc_counter_index(plan->request.layout->ranks, step->peer, step->channel);

    op->flag.turn = step->kind == ZC_STEP_SIGNAL ? ++tally->sent[index] : ++tally->awaited[index];
    op->flag.last = step->kind == ZC_STEP_WAIT && op->flag.turn == tally->waits[index];
}

static bool is_flag(const struct zc_step *step)
{
    return step->kind == ZC_STEP_SIGNAL || step->kind == ZC_STEP_WAIT;
}

/* Adds a send or receive to the group whose op this is. */
static void add_transfer(const struct zc_plan *plan, const struct zc_binding *binding,
                         const struct zc_step *step, struct zc_transfer *transfer,
                         struct zc_op_network *network)
{
    const bool sends = step->kind == ZC_STEP_NET_SEND;

    *transfer = (struct zc_transfer){
        .peer = step->peer,
        .sends = sends,
        .address = address(plan, binding, sends ? &step->from : &step->to, step->bytes),
        .bytes = step->bytes};
    if (network->count++ == 0)
        network->transfers = transfer;
    network->bytes += step->bytes;
}

/* Whether the step is one op with the one before it on its lane. */
static bool joins(const struct zc_step *before, const struct zc_step *step)
{
    return before != NULL && zc_steps_are_grouped(before, step);
}

/* One lane's steps in their order, from op `count` on; steps over the network that stand together
 * are one op. Returns where the next lane begins. */
static uint32_t resolve_lane(const struct zc_plan *plan, const struct zc_binding *binding,
                             const struct tally *tally, uint32_t lane, uint32_t count,
                             struct zc_program *program)
{
    const struct zc_step *before = NULL;

    for (uint32_t i = 0; i < plan->step_count; i++) {
        const struct zc_step *step = &plan->steps[i];

        if (step->lane != lane)
            continue;
        if (!joins(before, step))
            program->ops[count++] = resolve(plan, binding, step);
        if (is_flag(step))
            count_flag(plan, step, tally, &program->ops[count - 1]);
        if (zc_step_is_network(step))
            add_transfer(plan, binding, step, &program->transfers[program->transfer_count++],
                         &program->ops[count - 1].network);
        before = step;
    }
    return count;
}

static void resolve_lanes(const struct zc_plan *plan, const struct zc_binding *binding,
                          const struct tally *tally, struct zc_program *program)
{
    uint32_t count = 0;

    for (uint32_t lane = 0; lane < plan->lane_count; lane++) {
        program->lane_begin[lane] = count;
        count = resolve_lane(plan, binding, tally, lane, count, program);
    }
    program->lane_begin[plan->lane_count] = count;
    assert(count <= plan->step_count);
}

static void list_order(const struct zc_plan *plan, struct zc_program *program)
{
    const struct zc_step *before[ZC_MAX_LANES] = {NULL};
    uint32_t count = 0;

    for (uint32_t i = 0; i < plan->step_count; i++) {
        const struct zc_step *step = &plan->steps[i];

        if (!joins(before[step->lane], step))
            program->order[count++] = (uint8_t)step->lane;
        before[step->lane] = step;
    }
    assert(count == program->lane_begin[plan->lane_count]);
}

static zcta_status resolve_all(const struct zc_plan *plan, const struct zc_binding *binding,
                               struct zc_program *program)
{
    const size_t ranks = plan->request.layout->ranks, slots = ranks * ZC_CHANNELS;
    uint32_t *counts = calloc(3 * slots, sizeof *counts);
    struct tally tally;

    if (counts == NULL)
        return ZCTA_ERR_NO_MEMORY;
    tally = (struct tally){counts, counts + slots, counts + 2 * slots};
    for (uint32_t i = 0; i < plan->step_count; i++)
        if (plan->steps[i].kind == ZC_STEP_WAIT)
            tally.waits[zc_counter_index((uint32_t)ranks, plan->steps[i].peer,
                                         plan->steps[i].channel)]++;
    resolve_lanes(plan, binding, &tally, program);
    list_order(plan, program);
    free(counts);
    return ZCTA_OK;
}

static size_t count_transfers(const struct zc_plan *plan)
{
    size_t count = 0;

    for (uint32_t i = 0; i < plan->step_count; i++)
        count += zc_step_is_network(&plan->steps[i]);
    return count;
}

zcta_status zc_program_make(const struct zc_plan *plan, const struct zc_binding *binding,
                            struct zc_guard *guard, struct zc_program **program)
{
    struct zc_program *made = calloc(1, sizeof *made);

    if (made == NULL)
        return ZCTA_ERR_NO_MEMORY;
    made->guard = guard;
    made->numbers = binding->numbers;
    made->digest = zc_call_digest(&binding->numbers);
    made->call = plan->request.layout->collective->name;
    made->lane_count = plan->lane_count;
    made->lane_begin = calloc(plan->lane_count + 1, sizeof *made->lane_begin);
    made->ops = calloc(plan->step_count + 1, sizeof *made->ops);
    made->order = calloc(plan->step_count + 1, sizeof *made->order);
    made->transfers = calloc(count_transfers(plan) + 1, sizeof *made->transfers);
    if (made->lane_begin == NULL || made->ops == NULL || made->order == NULL ||
        made->transfers == NULL || resolve_all(plan, binding, made) != ZCTA_OK) {
        zc_program_destroy(made);
        return ZCTA_ERR_NO_MEMORY;
    }
    *program = made;
    return ZCTA_OK;
}

void zc_program_destroy(struct zc_program *program)
{
    if (program == NULL)
        return;
    free(program->lane_begin);
    free(program->ops);
    free(program->order);
    free(program->transfers);
    free(program);
}
