/* Running programs in the simulation, one op of one lane at a time. Two schedulers share everything
 * else: one draws among the lanes that can run, one takes the earliest in virtual time. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "device/sim/sim_internal.h"

static uint32_t global_lane(const struct zc_device *rank, uint32_t lane)
{
    return rank->rank * ZC_SIM_MAX_LANES + lane;
}

static struct zc_sim_lane *lane_of(struct zc_sim *sim, uint32_t global)
{
    return &sim->ranks[global / ZC_SIM_MAX_LANES].lanes[global % ZC_SIM_MAX_LANES];
}

/* ---- The heap of the timed scheduler ---- */

static bool earlier(struct zc_sim *sim, uint32_t a, uint32_t b)
{
    const double left = lane_of(sim, a)->time, right = lane_of(sim, b)->time;

    return left < right || (left == right && a < b);
}

static void heap_push(struct zc_sim *sim, uint32_t global)
{
    struct zc_sim_heap *heap = &sim->heap;
    uint32_t at;

    if (lane_of(sim, global)->queued)
        return;
    lane_of(sim, global)->queued = true;
    at = heap->count++;
    while (at > 0 && earlier(sim, global, heap->lanes[(at - 1) / 2])) {
        heap->lanes[at] = heap->lanes[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap->lanes[at] = global;
}

static uint32_t heap_pop(struct zc_sim *sim)
{
    struct zc_sim_heap *heap = &sim->heap;
    const uint32_t top = heap->lanes[0], last = heap->lanes[--heap->count];
    uint32_t at = 0, child;

    while ((child = at * 2 + 1) < heap->count) {
        if (child + 1 < heap->count && earlier(sim, heap->lanes[child + 1], heap->lanes[child]))
            child++;
        if (!earlier(sim, heap->lanes[child], last))
            break;
        heap->lanes[at] = heap->lanes[child];
        at = child;
    }
    heap->lanes[at] = last;
    lane_of(sim, top)->queued = false;
    return top;
}

/* ---- Programs ---- */

static const struct zc_program *program_of(const struct zc_device *rank)
{
    return rank->queue[rank->head];
}

static bool has_program(const struct zc_device *rank)
{
    return rank->head < rank->count && rank->ops_left > 0;
}

static bool guard_failed(const struct zc_device *rank)
{
    return zc_guard_failed(program_of(rank)->guard);
}

static void start_lane(struct zc_device *rank, uint32_t lane, double time)
{
    rank->lanes[lane].running = true;
    rank->lanes[lane].time = time;
    if (rank->sim->params.timed)
        heap_push(rank->sim, global_lane(rank, lane));
}

static void start_program(struct zc_device *rank)
{
    const struct zc_program *program = program_of(rank);

    assert(program->lane_count <= ZC_SIM_MAX_LANES);
    for (uint32_t lane = 0; lane < program->lane_count; lane++)
        rank->lanes[lane] = (struct zc_sim_lane){.next = program->lane_begin[lane],
                                                 .queued = rank->lanes[lane].queued};
    rank->in_group = false;
    rank->started = true;
    start_lane(rank, 0, rank->time);
}

static bool lane_ended(const struct zc_device *rank, uint32_t lane)
{
    return rank->lanes[lane].next == program_of(rank)->lane_begin[lane + 1];
}

/* Ends the program at the head, done or abandoned. */
static void finish_program(struct zc_device *rank)
{
    struct zc_guard *guard = program_of(rank)->guard;

    rank->time = rank->lanes[0].time;
    if (rank->sim->end < rank->time)
        rank->sim->end = rank->time;
    atomic_fetch_add_explicit(&guard->finished, 1, memory_order_release);
    rank->started = false;
    rank->head++;
}

/* Starts what can start and ends what has ended or failed; true if anything changed. */
static bool start_and_finish(struct zc_device *rank)
{
    bool changed = false;

    while (has_program(rank)) {
        if (guard_failed(rank) || (rank->started && lane_ended(rank, 0)))
            finish_program(rank);
        else if (!rank->started)
            start_program(rank);
        else
            break;
        changed = true;
    }
    return changed;
}

/* ---- Ops ---- */

static bool reached(const struct zc_op *op)
{
    const struct zc_sim_slot *slot = op->flag.word;

    const uint32_t seen = atomic_load_explicit(op->flag.count, memory_order_relaxed);

    return (int32_t)(slot->value - (seen + 1)) >= 0;
}

static const struct zc_op *next_op(const struct zc_device *rank, uint32_t lane)
{
    return &program_of(rank)->ops[rank->lanes[lane].next];
}

/* ---- The network ---- */

void zc_sim_drop_messages(struct zc_device *device)
{
    while (device->inbox != NULL) {
        struct zc_sim_message *message = device->inbox;

        device->inbox = message->next;
        free(message->data);
        free(message);
    }
}

static bool can_run(const struct zc_device *rank, uint32_t lane)
{
    const struct zc_op *op;

    if (lane >= program_of(rank)->lane_count || !rank->lanes[lane].running ||
        lane_ended(rank, lane))
        return false;
    op = next_op(rank, lane);
    if (op->kind == ZC_OP_WAIT)
        return reached(op);
    if (op->kind == ZC_OP_NETWORK)
        return !rank->in_group || (rank->group_lane == lane && rank->unmet == 0);
    return op->kind != ZC_OP_JOIN || lane_ended(rank, op->peer);
}

/* One half of every row at a time, so that who looks too early sees torn data. */
static void copy_half(const struct zc_op *op, bool second)
{
    const size_t half = op->copy.bytes / 2, begin = second ? half : 0;

    for (uint32_t row = 0; row < op->copy.rows; row++)
        memcpy((char *)op->copy.to + row * op->copy.stride + begin,
               (const char *)op->copy.from + row * op->copy.stride + begin,
               second ? op->copy.bytes - half : half);
}

/* False: not yet all of it. */
static bool run_copy(struct zc_device *rank, struct zc_sim_lane *lane, const struct zc_op *op)
{
    if (!rank->sim->params.moves_data)
        return true;
    copy_half(op, lane->half_copied);
    lane->half_copied = !lane->half_copied;
    return !lane->half_copied;
}

/* The engines to and from the host are others than those between devices. */
static void time_host_copy(struct zc_device *rank, struct zc_sim_lane *lane, const struct zc_op *op,
                           bool out)
{
    const struct zc_sim_cost *cost = rank->sim->params.cost;
    double begin = lane->time + cost->host_copy_ns;

    if (begin < rank->host_free[out])
        begin = rank->host_free[out];
    lane->time = begin + (double)op->copy.bytes * op->copy.rows / cost->host_bytes_per_ns;
    rank->host_free[out] = lane->time;
}

static void time_copy(struct zc_device *rank, struct zc_sim_lane *lane, const struct zc_op *op)
{
    const struct zc_sim_cost *cost = rank->sim->params.cost;
    const uint32_t from = zc_sim_owner(rank->sim, op->copy.from, rank->rank);
    const uint32_t to = zc_sim_owner(rank->sim, op->copy.to, rank->rank);
    struct zc_device *source, *target;
    double begin = lane->time + cost->copy_ns;

    if (from == ZC_SIM_HOST || to == ZC_SIM_HOST) {
        time_host_copy(rank, lane, op, to == ZC_SIM_HOST);
        return;
    }
    source = &rank->sim->ranks[from];
    target = &rank->sim->ranks[to];
    if (from == to) {
        lane->time = begin + (double)op->copy.bytes * op->copy.rows / cost->local_bytes_per_ns;
        return;
    }
    if (begin < source->out_free)
        begin = source->out_free;
    if (begin < target->in_free)
        begin = target->in_free;
    lane->time = begin + (double)op->copy.bytes * op->copy.rows / cost->copy_bytes_per_ns;
    source->out_free = target->in_free = lane->time;
}

static void run_signal(struct zc_device *rank, struct zc_sim_lane *lane, const struct zc_op *op)
{
    struct zc_sim *sim = rank->sim;
    struct zc_sim_slot *slot = op->flag.word;

    slot->value = zc_op_number(op);
    if (!sim->params.timed)
        return;
    lane->time += sim->params.cost->signal_ns;
    slot->at = lane->time + sim->params.cost->crossing_ns;
    if (slot->waiter != 0) {
        heap_push(sim, slot->waiter - 1);
        slot->waiter = 0;
    }
}

/* `batched`: directly behind another wait, with which it goes to the driver. */
static void run_wait(struct zc_device *rank, struct zc_sim_lane *lane, const struct zc_op *op,
                     bool batched)
{
    const struct zc_sim_slot *slot = op->flag.word;
    const struct zc_sim_cost *cost = rank->sim->params.cost;

    zc_op_number(op);
    if (!rank->sim->params.timed)
        return;
    if (lane->time < slot->at)
        lane->time = slot->at;
    lane->time += batched ? cost->wait_more_ns : cost->wait_ns;
}

/* A copy of what is sent goes to the peer. Without memory it arrives without contents, which the
 * checks of contents see. */
static void send(struct zc_device *rank, const struct zc_transfer *t, double time)
{
    struct zc_device *peer = &rank->sim->ranks[t->peer];
    struct zc_sim_message *made = calloc(1, sizeof *made);

    if (made == NULL)
        return;
    made->from = rank->rank;
    made->time = time;
    if (rank->sim->params.moves_data)
        made->data = malloc(t->bytes);
    if (made->data != NULL)
        memcpy(made->data, t->address, t->bytes);
    *peer->inbox_end = made;
    peer->inbox_end = &made->next;
}

/* Counts the begin of one send or receive. True: the other side had begun it before. */
static bool meets(const struct zc_device *rank, const struct zc_transfer *t)
{
    const size_t ranks = rank->sim->params.rank_count;
    int32_t *ahead = t->sends ? &rank->sim->ahead[rank->rank * ranks + t->peer]
                              : &rank->sim->ahead[t->peer * ranks + rank->rank];

    *ahead += t->sends ? 1 : -1;
    return t->sends ? *ahead <= 0 : *ahead >= 0;
}

/* The rank begins the group. Whoever waited for that alone goes on. */
static void begin_group(struct zc_device *rank, uint32_t lane, const struct zc_op_network *network)
{
    rank->in_group = true;
    rank->group_lane = lane;
    rank->unmet = 0;
    for (uint32_t i = 0; i < network->count; i++) {
        const struct zc_transfer *t = &network->transfers[i];
        struct zc_device *peer = &rank->sim->ranks[t->peer];

        if (t->sends)
            send(rank, t, rank->lanes[lane].time);
        if (!meets(rank, t))
            rank->unmet++;
        else if (--peer->unmet == 0 && rank->sim->params.timed)
            heap_push(rank->sim, global_lane(peer, peer->group_lane));
    }
    if (rank->unmet == 0 && rank->sim->params.timed)
        heap_push(rank->sim, global_lane(rank, lane));
}

/* The first message of that rank, which is the caller's then. */
static struct zc_sim_message *take_message(struct zc_device *rank, uint32_t from)
{
    struct zc_sim_message **at = &rank->inbox, *taken;

    while (*at != NULL && (*at)->from != from)
        at = &(*at)->next;
    taken = *at;
    if (taken != NULL && rank->inbox_end == &taken->next)
        rank->inbox_end = at;
    if (taken != NULL)
        *at = taken->next;
    return taken;
}

/* All comes in; it takes as long as the card is busy once the last sender has come. */
static void end_group(struct zc_device *rank, struct zc_sim_lane *lane,
                      const struct zc_op_network *network)
{
    const struct zc_sim_params *params = &rank->sim->params;
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < network->count; i++) {
        const struct zc_transfer *t = &network->transfers[i];
        struct zc_sim_message *message = t->sends ? NULL : take_message(rank, t->peer);

        if (message == NULL)
            continue;
        if (message->data != NULL)
            memcpy(t->address, message->data, t->bytes);
        if (lane->time < message->time)
            lane->time = message->time;
        bytes += t->bytes;
        free(message->data);
        free(message);
    }
    if (params->timed)
        lane->time +=
            params->cost->exchange_ns + (double)bytes / params->cost->network_bytes_per_ns;
    rank->in_group = false;
}

/* False: the group has only begun. */
static bool run_network(struct zc_device *rank, uint32_t lane, const struct zc_op *op)
{
    if (!rank->in_group) {
        begin_group(rank, lane, &op->network);
        return false;
    }
    end_group(rank, &rank->lanes[lane], &op->network);
    return true;
}

/* Whether the next op of the lane is its first. */
static bool is_first(const struct zc_device *rank, uint32_t lane)
{
    const struct zc_program *program = rank->queue[rank->head];

    return next_op(rank, lane) == &program->ops[program->lane_begin[lane]];
}

/* Runs the next op of a lane that can run. */
static void run_op(struct zc_device *rank, uint32_t index)
{
    struct zc_sim_lane *lane = &rank->lanes[index];
    const struct zc_op *op = next_op(rank, index);

    rank->sim->steps++;
    rank->ops_left--;
    switch (op->kind) {
    case ZC_OP_COPY:
        if (!run_copy(rank, lane, op))
            return;
        if (rank->sim->params.timed)
            time_copy(rank, lane, op);
        break;
    case ZC_OP_SIGNAL:
        run_signal(rank, lane, op);
        break;
    case ZC_OP_WAIT:
        run_wait(rank, lane, op, !is_first(rank, index) && op[-1].kind == ZC_OP_WAIT);
        break;
    case ZC_OP_FORK:
        start_lane(rank, op->peer, lane->time);
        break;
    case ZC_OP_JOIN:
        if (lane->time < rank->lanes[op->peer].time)
            lane->time = rank->lanes[op->peer].time;
        break;
    case ZC_OP_NETWORK:
        if (!run_network(rank, index, op))
            return;
        break;
    }
    lane->next++;
}

/* ---- Schedulers ---- */

static uint64_t draw(struct zc_sim *sim)
{
    sim->random ^= sim->random << 13;
    sim->random ^= sim->random >> 7;
    sim->random ^= sim->random << 17;
    return sim->random;
}

static bool start_and_finish_all(struct zc_sim *sim)
{
    bool changed = false;

    for (uint32_t i = 0; i < sim->params.rank_count; i++)
        changed |= start_and_finish(&sim->ranks[i]);
    return changed;
}

/* Runs one op of a lane drawn among all that can run: reservoir sampling, one pass. */
static bool run_random(struct zc_sim *sim)
{
    struct zc_device *chosen = NULL;
    uint32_t chosen_lane = 0;
    uint64_t seen = 0;

    for (uint32_t i = 0; i < sim->params.rank_count; i++)
        for (uint32_t lane = 0; has_program(&sim->ranks[i]) && lane < ZC_SIM_MAX_LANES; lane++)
            if (can_run(&sim->ranks[i], lane) && draw(sim) % ++seen == 0) {
                chosen = &sim->ranks[i];
                chosen_lane = lane;
            }
    if (chosen == NULL)
        return false;
    run_op(chosen, chosen_lane);
    start_and_finish(chosen);
    return true;
}

/* A lane that cannot run leaves the heap; what it waits for brings it back. */
static void park(struct zc_device *rank, uint32_t lane)
{
    const struct zc_op *op = lane_ended(rank, lane) ? NULL : next_op(rank, lane);

    if (op != NULL && op->kind == ZC_OP_WAIT)
        ((struct zc_sim_slot *)op->flag.word)->waiter = global_lane(rank, lane) + 1;
}

/* The lane that was joined too early is lane 0, parked by nobody: the end of a lane looks for it.
 */
static void unpark_joiner(struct zc_sim *sim, struct zc_device *rank, uint32_t ended)
{
    if (ended != 0 && rank->started && !lane_ended(rank, 0) &&
        next_op(rank, 0)->kind == ZC_OP_JOIN && next_op(rank, 0)->peer == ended)
        heap_push(sim, global_lane(rank, 0));
}

static bool run_earliest(struct zc_sim *sim)
{
    while (sim->heap.count > 0) {
        const uint32_t global = heap_pop(sim), lane = global % ZC_SIM_MAX_LANES;
        struct zc_device *rank = &sim->ranks[global / ZC_SIM_MAX_LANES];

        if (!has_program(rank) || !rank->started)
            continue;
        if (!can_run(rank, lane)) {
            park(rank, lane);
            continue;
        }
        run_op(rank, lane);
        if (!lane_ended(rank, lane))
            heap_push(sim, global);
        else
            unpark_joiner(sim, rank, lane);
        start_and_finish(rank);
        return true;
    }
    return false;
}

/* ---- When nothing moves ---- */

static const struct zc_op *blocked_wait(const struct zc_device *rank)
{
    for (uint32_t lane = 0; lane < program_of(rank)->lane_count; lane++)
        if (rank->lanes[lane].running && !lane_ended(rank, lane) &&
            next_op(rank, lane)->kind == ZC_OP_WAIT)
            return next_op(rank, lane);
    return NULL;
}

/* What a deadline does. True if some guard has failed of it. */
static bool expire(struct zc_sim *sim)
{
    bool expired = false;

    for (uint32_t i = 0; i < sim->params.rank_count; i++) {
        struct zc_device *rank = &sim->ranks[i];
        const struct zc_op *op = has_program(rank) ? blocked_wait(rank) : NULL;
        struct zc_guard *guard = op != NULL ? program_of(rank)->guard : NULL;

        if (guard == NULL || guard->on_missing == NULL)
            continue;
        guard->on_missing(guard->data, op->peer);
        expired |= guard_failed(rank);
    }
    return expired;
}

static void report_stuck(const struct zc_sim *sim, struct zc_sim_result *result)
{
    for (uint32_t i = 0; i < sim->params.rank_count && result->finished; i++) {
        const struct zc_device *rank = &sim->ranks[i];
        const struct zc_op *op;

        if (!has_program(rank))
            continue;
        op = blocked_wait(rank);
        result->finished = false;
        result->stuck_rank = i;
        result->stuck_peer = op == NULL ? i : op->peer;
    }
}

void zc_sim_run(struct zc_sim *sim, struct zc_sim_result *result)
{
    const uint64_t steps = sim->steps;
    bool moved = true;

    while (moved) {
        moved = start_and_finish_all(sim);
        while (sim->params.timed ? run_earliest(sim) : run_random(sim)) {
            zc_progress_step(sim->params.progress, sim->steps, 0);
            moved = true;
        }
        if (!moved)
            moved = expire(sim);
    }
    *result = (struct zc_sim_result){
        .finished = true, .time_ns = (uint64_t)sim->end, .steps = sim->steps - steps};
    report_stuck(sim, result);
}

/* ---- Entries of the device table ---- */

zcta_status zc_sim_submit(struct zc_device *device, const struct zc_program *program,
                          zcta_stream stream)
{
    (void)stream;
    if (device->count == device->capacity) {
        const uint32_t capacity = device->capacity == 0 ? 16 : device->capacity * 2;
        const struct zc_program **grown = realloc(device->queue, capacity * sizeof(*grown));

        if (grown == NULL)
            return zc_fail(&device->sim->diag, ZCTA_ERR_NO_MEMORY, "submit", ENOMEM,
                           "out of memory");
        device->queue = grown;
        device->capacity = capacity;
    }
    zc_count_next(&program->guard->submitted);
    device->queue[device->count++] = program;
    return ZCTA_OK;
}

void zc_sim_wake(struct zc_device *device, struct zc_guard *guard)
{
    /* A failed guard is looked at before every op. */
    (void)device;
    (void)guard;
}

void zc_sim_drain(struct zc_device *device, struct zc_guard *guard)
{
    struct zc_sim_result result;

    (void)guard;
    zc_sim_run(device->sim, &result);
}
