/* The verifier: judges the plans of all ranks together. What it proves stands at zc_verify().
 *
 * Waits are satisfied by count, so one execution in any order that the plans allow fixes the whole
 * partial order of steps. The verifier carries it in vector clocks, one entry a lane of a rank:
 * step a happens before step b if b's clock has counted a on a's lane. While executing it follows
 * where every byte came from. Afterwards it looks at all accesses to the same bytes. */
#include "plan/plan.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of known origin: `origin_offset` into rank `origin`'s share of call `call`. */
struct segment {
    uint64_t offset, bytes;
    uint32_t origin, call;
    uint64_t origin_offset;
};

/* What a buffer holds: segments in ascending order; gaps hold unknown bytes. */
struct content {
    struct segment *segments;
    uint32_t count, capacity;
};

struct access {
    uint64_t offset, bytes;
    uint32_t rank; /* whose buffer */
    enum zc_buffer buffer;
    uint32_t actor;      /* rank that copies */
    uint32_t call, step; /* of the actor's plan */
    uint32_t lane, tick; /* global lane, and the event's number on it */
    uint32_t snapshot;   /* index of its clock */
    bool write;
};

/* Signals under way on one channel between two ranks: their clocks in order. */
struct queue {
    uint32_t *clocks;
    uint32_t head, count, capacity;
    uint32_t signal_lane, signal_tick, wait_lane, wait_tick; /* the last of each */
};

/* A rank's coming to an exchange: its clock and its own row. Two at most are under way: nobody
 * comes to the next but one before all have left this one. */
struct post {
    uint32_t *clock;
    struct content row;
    uint64_t bytes;
};

enum { POSTS = 2 };

struct rank_state {
    uint32_t call;
    bool inside;
    uint32_t cursor[ZC_MAX_LANES];
    bool running[ZC_MAX_LANES];
    uint64_t written;           /* bytes written to its output in this call */
    uint32_t posted, exchanged; /* exchanges it has come to, and left */
    uint32_t posting_lane;      /* of the one that it is in */
    struct post posts[POSTS];
};

struct verifier {
    const struct zc_verify_call *calls;
    uint32_t call_count, ranks, lanes, width; /* width = ranks * lanes: entries of a clock */
    uint32_t *clocks;                         /* the current clock of each global lane */
    struct rank_state *state;
    struct queue *queues;
    struct content *contents; /* [rank][buffer] */
    uint32_t *enter_tick;     /* [call][rank], on the rank's lane 0 */
    uint32_t *leave_clock;    /* [call][rank][width] */
    uint32_t *snapshots;
    uint32_t snapshot_count, snapshot_capacity;
    struct access *accesses;
    uint32_t access_count, access_capacity;
    zcta_status status;
    char *text;
    size_t text_bytes;
};

__attribute__((format(printf, 2, 3))) static void defect(struct verifier *v, const char *format,
                                                         ...)
{
    va_list args;

    if (v->status != ZCTA_OK)
        return;
    v->status = ZCTA_ERR_INVALID;
    va_start(args, format);
    vsnprintf(v->text, v->text_bytes, format, args);
    va_end(args);
}

/* Makes room for one more element in the array whose pointer stands at `array`; on failure
 * remembers it and returns false. The pointer is copied bytewise, because its type differs from
 * call to call. */
static bool reserve(struct verifier *v, void *array, uint32_t count, uint32_t *capacity,
                    size_t size)
{
    void *held, *grown;

    if (count < *capacity)
        return true;
    memcpy(&held, array, sizeof held);
    *capacity = *capacity == 0 ? 16 : *capacity * 2;
    grown = realloc(held, *capacity * size);
    if (grown == NULL) {
        v->status = ZCTA_ERR_NO_MEMORY;
        return false;
    }
    memcpy(array, &grown, sizeof grown);
    return true; /* cppcheck-suppress memleak ; kept through `array` */
}

static const struct zc_plan *plan_of(const struct verifier *v, uint32_t call, uint32_t rank)
{
    return v->calls[call].plans[rank];
}

static uint32_t *clock_of(struct verifier *v, uint32_t lane)
{
    return v->clocks + (size_t)lane * v->width;
}

static uint32_t tick(struct verifier *v, uint32_t lane)
{
    return ++clock_of(v, lane)[lane];
}

static void merge(struct verifier *v, uint32_t *into, const uint32_t *from)
{
    for (uint32_t i = 0; i < v->width; i++)
        if (into[i] < from[i])
            into[i] = from[i];
}

static struct content *content_of(struct verifier *v, uint32_t rank, enum zc_buffer buffer)
{
    return &v->contents[rank * ZC_BUFFERS + buffer];
}

/* ---- Where bytes came from ---- */

static void push_segment(struct verifier *v, struct content *content, struct segment segment)
{
    struct segment *last = content->count > 0 ? &content->segments[content->count - 1] : NULL;

    if (segment.bytes == 0)
        return;
    if (last != NULL && last->offset + last->bytes == segment.offset &&
        last->origin == segment.origin && last->call == segment.call &&
        last->origin_offset + last->bytes == segment.origin_offset) {
        last->bytes += segment.bytes;
        return;
    }
    if (reserve(v, &content->segments, content->count, &content->capacity, sizeof segment))
        content->segments[content->count++] = segment;
}

/* The part of `segment` inside [begin, end), moved by `shift`; of zero bytes if there is none. */
static struct segment clip(struct segment segment, uint64_t begin, uint64_t end, uint64_t shift)
{
    const uint64_t from = segment.offset > begin ? segment.offset : begin;
    const uint64_t last = segment.offset + segment.bytes;
    const uint64_t to = last < end ? last : end;

    if (from >= to)
        return (struct segment){0};
    segment.origin_offset += from - segment.offset;
    segment.offset = from + shift;
    segment.bytes = to - from;
    return segment;
}

/* Replaces [offset, offset + bytes) of `to` by the bytes of `from` at from_offset. */
static void content_copy(struct verifier *v, struct content *to, uint64_t offset,
                         const struct content *from, uint64_t from_offset, uint64_t bytes)
{
    struct content made = {0};

    for (uint32_t i = 0; i < to->count; i++)
        push_segment(v, &made, clip(to->segments[i], 0, offset, 0));
    for (uint32_t i = 0; i < from->count; i++)
        push_segment(
            v, &made,
            clip(from->segments[i], from_offset, from_offset + bytes, offset - from_offset));
    for (uint32_t i = 0; i < to->count; i++)
        push_segment(v, &made, clip(to->segments[i], offset + bytes, UINT64_MAX, 0));
    free(to->segments);
    *to = made;
}

/* Between calls the caller rewrites its buffers: what was gathered before is stale now. A released
 * output is the peers' from the release on, but for this rank's own share. */
static void reset_contents(struct verifier *v, const struct zc_request *request, uint32_t call)
{
    struct segment own = {.bytes = request->bytes, .origin = request->rank, .call = call};
    struct content *recv = content_of(v, request->rank, ZC_RECV);
    struct content *send = content_of(v, request->rank, ZC_SEND);

    if (!request->released)
        recv->count = 0;
    send->count = 0;
    if (request->in_place) {
        own.offset = request->rank * request->bytes;
        content_copy(v, recv, own.offset, &(struct content){.segments = &own, .count = 1},
                     own.offset, own.bytes);
    } else {
        push_segment(v, send, own);
    }
}

static void check_output(struct verifier *v, const struct zc_request *request, uint32_t call)
{
    const struct content *recv = content_of(v, request->rank, ZC_RECV);
    const uint64_t owed = request->rank_count - (request->in_place ? 1 : 0);

    if (request->collective != ZC_COLLECTIVE_ALL_GATHER || request->bytes == 0)
        return;
    for (uint32_t origin = 0; origin < request->rank_count; origin++) {
        const struct segment *s = origin < recv->count ? &recv->segments[origin] : NULL;

        if (s == NULL || s->offset != origin * request->bytes || s->bytes != request->bytes ||
            s->origin != origin || s->call != call || s->origin_offset != 0) {
            defect(v, "call %u: rank %u leaves without the right bytes of rank %u's share", call,
                   request->rank, origin);
            return;
        }
    }
    if (v->state[request->rank].written != owed * request->bytes)
        defect(v, "call %u: rank %u's output is written more than once", call, request->rank);
}

/* ---- Executing ---- */

static bool ordered_after(struct verifier *v, uint32_t lane, uint32_t other, uint32_t other_tick)
{
    return clock_of(v, lane)[other] >= other_tick;
}

/* The call with whose entering a rank opened its buffer for this one. */
static uint32_t opening_call(const struct verifier *v, uint32_t call, const struct zc_place *place)
{
    const struct zc_request *request = &plan_of(v, call, place->rank)->request;

    return request->released && place->buffer == ZC_RECV && call > 0 &&
                   plan_of(v, call - 1, place->rank)->request.collective == ZC_COLLECTIVE_RELEASE
               ? call - 1
               : call;
}

static void record_access(struct verifier *v, struct access access, const struct zc_place *place,
                          bool write)
{
    const uint32_t home = place->rank * v->lanes;
    const uint32_t opened = opening_call(v, access.call, place);

    access.rank = place->rank;
    access.buffer = place->buffer;
    access.offset = place->offset;
    access.write = write;
    if (place->buffer != ZC_SCRATCH && place->rank != access.actor &&
        (v->state[place->rank].call < opened ||
         v->enter_tick[opened * v->ranks + place->rank] == 0 ||
         !ordered_after(v, access.lane, home, v->enter_tick[opened * v->ranks + place->rank])))
        defect(v, "call %u: rank %u, step %u touches rank %u's buffer before that rank has entered",
               access.call, access.actor, access.step, place->rank);
    if (write && place->buffer == ZC_RECV)
        v->state[place->rank].written += access.bytes;
    if (reserve(v, &v->accesses, v->access_count, &v->access_capacity, sizeof access))
        v->accesses[v->access_count++] = access;
}

/* Remembers the lane's clock with a new tick: what an access is compared by. */
static bool take_snapshot(struct verifier *v, struct access *access)
{
    if (!reserve(v, &v->snapshots, v->snapshot_count, &v->snapshot_capacity,
                 v->width * sizeof *v->snapshots))
        return false;
    access->snapshot = v->snapshot_count++;
    access->tick = tick(v, access->lane);
    memcpy(v->snapshots + (size_t)access->snapshot * v->width, clock_of(v, access->lane),
           v->width * sizeof *v->snapshots);
    return true;
}

static void run_copy(struct verifier *v, const struct zc_step *step, struct access access)
{
    if (!take_snapshot(v, &access))
        return;
    access.bytes = step->bytes;
    for (uint32_t row = 0; row < step->rows && v->status == ZCTA_OK; row++) {
        struct zc_place from = step->from, to = step->to;

        from.offset += row * step->stride;
        to.offset += row * step->stride;
        record_access(v, access, &from, false);
        record_access(v, access, &to, true);
        content_copy(v, content_of(v, to.rank, to.buffer), to.offset,
                     content_of(v, from.rank, from.buffer), from.offset, step->bytes);
    }
}

/* ---- Exchanges ---- */

/* The rank that is in this rank's place on node `node`. */
static uint32_t partner(const struct zc_request *request, uint32_t node)
{
    const uint32_t size = zc_request_node_ranks(request);

    return node * size + request->rank % size;
}

/* The rank has come: from now on its own row is read. */
static void post(struct verifier *v, const struct zc_step *step, struct access access)
{
    struct rank_state *state = &v->state[access.actor];
    struct post *made = &state->posts[state->posted % POSTS];

    if (!take_snapshot(v, &access))
        return;
    access.bytes = step->bytes;
    record_access(v, access, &step->from, false);
    made->bytes = step->bytes;
    content_copy(v, &made->row, 0, content_of(v, access.actor, step->from.buffer),
                 step->from.offset, step->bytes);
    memcpy(made->clock, clock_of(v, access.lane), v->width * sizeof *made->clock);
    state->posting_lane = access.lane;
    state->posted++;
}

static bool all_have_come(const struct verifier *v, const struct zc_request *request)
{
    const uint32_t wanted = v->state[request->rank].exchanged + 1;

    for (uint32_t node = 0; node < zc_request_nodes(request); node++)
        if (v->state[partner(request, node)].posted < wanted)
            return false;
    return true;
}

/* All are there: their rows come in. */
static void receive(struct verifier *v, const struct zc_request *request,
                    const struct zc_step *step, struct access access)
{
    struct rank_state *state = &v->state[access.actor];
    const uint32_t number = state->exchanged++;

    for (uint32_t node = 0; node < step->rows; node++)
        merge(v, clock_of(v, access.lane),
              v->state[partner(request, node)].posts[number % POSTS].clock);
    if (!take_snapshot(v, &access))
        return;
    access.bytes = step->bytes;
    for (uint32_t node = 0; node < step->rows && v->status == ZCTA_OK; node++) {
        const struct post *theirs = &v->state[partner(request, node)].posts[number % POSTS];
        struct zc_place to = step->to;

        to.offset += node * step->stride;
        if (partner(request, node) == access.actor)
            continue;
        if (theirs->bytes != step->bytes)
            defect(v, "call %u: rank %u, step %u exchanges another size than rank %u", access.call,
                   access.actor, access.step, partner(request, node));
        record_access(v, access, &to, true);
        content_copy(v, content_of(v, to.rank, to.buffer), to.offset, &theirs->row, 0, step->bytes);
    }
}

enum progress { STUCK, MOVED, PASSED };

static enum progress run_exchange(struct verifier *v, const struct zc_step *step,
                                  struct access access)
{
    const struct zc_request *request = &plan_of(v, access.call, access.actor)->request;
    struct rank_state *state = &v->state[access.actor];

    if (state->posted == state->exchanged) {
        post(v, step, access);
        return MOVED;
    }
    if (state->posting_lane != access.lane) {
        defect(v, "call %u: rank %u is in two exchanges at once", access.call, access.actor);
        return STUCK;
    }
    if (!all_have_come(v, request))
        return STUCK;
    receive(v, request, step, access);
    return PASSED;
}

static struct queue *queue_of(struct verifier *v, uint32_t from, uint32_t to, uint32_t channel)
{
    return &v->queues[((size_t)from * v->ranks + to) * ZC_CHANNELS + channel];
}

static void run_signal(struct verifier *v, struct queue *queue, uint32_t lane, uint32_t rank)
{
    if (!ordered_after(v, lane, queue->signal_lane, queue->signal_tick))
        defect(v, "rank %u sends two signals on one channel in no order", rank);
    queue->signal_lane = lane;
    queue->signal_tick = tick(v, lane);
    if (!reserve(v, &queue->clocks, queue->head + queue->count, &queue->capacity,
                 v->width * sizeof *queue->clocks))
        return;
    memcpy(queue->clocks + (size_t)(queue->head + queue->count) * v->width, clock_of(v, lane),
           v->width * sizeof *queue->clocks);
    queue->count++;
}

static void run_wait(struct verifier *v, struct queue *queue, uint32_t lane, uint32_t rank)
{
    if (!ordered_after(v, lane, queue->wait_lane, queue->wait_tick))
        defect(v, "rank %u waits twice on one channel in no order", rank);
    merge(v, clock_of(v, lane), queue->clocks + (size_t)queue->head * v->width);
    queue->head++;
    queue->count--;
    if (queue->count == 0)
        queue->head = 0;
    queue->wait_lane = lane;
    queue->wait_tick = tick(v, lane);
}

/* The next step of a lane, or NULL at its end. Leaves the cursor on it. */
static const struct zc_step *next_step(struct verifier *v, uint32_t rank, uint32_t lane)
{
    struct rank_state *state = &v->state[rank];
    const struct zc_plan *plan = plan_of(v, state->call, rank);
    uint32_t *cursor = &state->cursor[lane];

    while (*cursor < plan->step_count && plan->steps[*cursor].lane != lane)
        (*cursor)++;
    return *cursor < plan->step_count ? &plan->steps[*cursor] : NULL;
}

/* Executes one step of a lane, if it can run now. */
static bool advance_lane(struct verifier *v, uint32_t rank, uint32_t lane)
{
    struct rank_state *state = &v->state[rank];
    const struct zc_step *step = state->running[lane] ? next_step(v, rank, lane) : NULL;
    const uint32_t home = rank * v->lanes, here = home + lane;
    const struct access access = {
        .actor = rank, .call = state->call, .step = state->cursor[lane], .lane = here};
    enum progress progress;

    if (step == NULL)
        return false;
    switch (step->kind) {
    case ZC_STEP_COPY:
        run_copy(v, step, access);
        break;
    case ZC_STEP_EXCHANGE:
        progress = run_exchange(v, step, access);
        if (progress != PASSED)
            return progress == MOVED;
        break;
    case ZC_STEP_SIGNAL:
        run_signal(v, queue_of(v, rank, step->peer, step->channel), here, rank);
        break;
    case ZC_STEP_WAIT:
        if (queue_of(v, step->peer, rank, step->channel)->count == 0)
            return false;
        run_wait(v, queue_of(v, step->peer, rank, step->channel), here, rank);
        break;
    case ZC_STEP_FORK:
        tick(v, here);
        merge(v, clock_of(v, home + step->peer), clock_of(v, here));
        state->running[step->peer] = true;
        break;
    case ZC_STEP_JOIN:
        if (next_step(v, rank, step->peer) != NULL)
            return false;
        merge(v, clock_of(v, here), clock_of(v, home + step->peer));
        tick(v, here);
        break;
    case ZC_STEP_KINDS:
        break;
    }
    state->cursor[lane]++;
    return true;
}

static void enter(struct verifier *v, uint32_t rank)
{
    struct rank_state *state = &v->state[rank];

    memset(state->cursor, 0, sizeof state->cursor);
    memset(state->running, 0, sizeof state->running);
    state->running[0] = true;
    state->inside = true;
    if (!plan_of(v, state->call, rank)->request.released)
        state->written = 0;
    v->enter_tick[state->call * v->ranks + rank] = tick(v, rank * v->lanes);
    reset_contents(v, &plan_of(v, state->call, rank)->request, state->call);
}

static void leave(struct verifier *v, uint32_t rank)
{
    struct rank_state *state = &v->state[rank];
    const struct zc_request *request = &plan_of(v, state->call, rank)->request;
    const uint32_t home = rank * v->lanes;

    tick(v, home);
    memcpy(v->leave_clock + ((size_t)state->call * v->ranks + rank) * v->width, clock_of(v, home),
           v->width * sizeof *v->leave_clock);
    check_output(v, request, state->call);
    state->inside = false;
    state->call++;
}

/* Runs as much of a rank as can run now; false if that was nothing. */
static bool advance_rank(struct verifier *v, uint32_t rank)
{
    struct rank_state *state = &v->state[rank];
    bool progress = false, moved = true;

    if (state->call == v->call_count)
        return false;
    if (!state->inside) {
        enter(v, rank);
        progress = true;
    }
    while (moved && v->status == ZCTA_OK) {
        moved = false;
        for (uint32_t lane = 0; lane < v->lanes; lane++)
            while (v->status == ZCTA_OK && advance_lane(v, rank, lane))
                moved = true;
        progress |= moved;
    }
    if (v->status == ZCTA_OK && next_step(v, rank, 0) == NULL) {
        leave(v, rank);
        progress = true;
    }
    return progress;
}

static void report_stuck(struct verifier *v, uint32_t rank)
{
    const struct rank_state *state = &v->state[rank];

    for (uint32_t lane = 0; lane < v->lanes; lane++) {
        const struct zc_step *step = state->running[lane] ? next_step(v, rank, lane) : NULL;

        if (step != NULL && step->kind == ZC_STEP_WAIT)
            defect(v, "call %u: rank %u, step %u waits for rank %u for ever", state->call, rank,
                   state->cursor[lane], step->peer);
        else if (step != NULL && step->kind == ZC_STEP_EXCHANGE)
            defect(v, "call %u: rank %u, step %u waits in an exchange for ever", state->call, rank,
                   state->cursor[lane]);
    }
    defect(v, "call %u: rank %u cannot go on", state->call, rank);
}

static void execute(struct verifier *v)
{
    bool progress = true;

    while (progress && v->status == ZCTA_OK) {
        progress = false;
        for (uint32_t rank = 0; rank < v->ranks && v->status == ZCTA_OK; rank++)
            progress |= advance_rank(v, rank);
    }
    for (uint32_t rank = 0; rank < v->ranks && v->status == ZCTA_OK; rank++)
        if (v->state[rank].call < v->call_count)
            report_stuck(v, rank);
    for (uint32_t from = 0; from < v->ranks && v->status == ZCTA_OK; from++)
        for (uint32_t to = 0; to < v->ranks; to++)
            for (uint32_t channel = 0; channel < ZC_CHANNELS; channel++)
                if (queue_of(v, from, to, channel)->count > 0)
                    defect(v, "a signal from rank %u to rank %u is never waited for", from, to);
}

/* ---- Afterwards ---- */

/* Nobody touches a rank's buffers after it left: its leaving has counted all that did. */
static void check_leaving(struct verifier *v)
{
    for (uint32_t i = 0; i < v->access_count && v->status == ZCTA_OK; i++) {
        const struct access *a = &v->accesses[i];
        const uint32_t *leaving =
            v->leave_clock + ((size_t)a->call * v->ranks + a->rank) * v->width;

        if (a->buffer != ZC_SCRATCH && leaving[a->lane] < a->tick)
            defect(v, "call %u: rank %u, step %u may touch rank %u's buffer after that rank left",
                   a->call, a->actor, a->step, a->rank);
    }
}

/* A barrier holds everybody until everybody came. */
static void check_barriers(struct verifier *v)
{
    for (uint32_t call = 0; call < v->call_count; call++)
        for (uint32_t rank = 0; rank < v->ranks && v->status == ZCTA_OK; rank++) {
            const uint32_t *leaving = v->leave_clock + ((size_t)call * v->ranks + rank) * v->width;

            if (plan_of(v, call, rank)->request.collective != ZC_COLLECTIVE_BARRIER)
                continue;
            for (uint32_t other = 0; other < v->ranks; other++)
                if (leaving[other * v->lanes] < v->enter_tick[call * v->ranks + other])
                    defect(v, "call %u: rank %u may leave the barrier before rank %u has come",
                           call, rank, other);
        }
}

static int by_place(const void *left, const void *right)
{
    const struct access *a = left, *b = right;

    if (a->rank != b->rank)
        return a->rank < b->rank ? -1 : 1;
    if (a->buffer != b->buffer)
        return a->buffer < b->buffer ? -1 : 1;
    if (a->offset != b->offset)
        return a->offset < b->offset ? -1 : 1;
    return 0;
}

static bool happens_before(const struct verifier *v, const struct access *a, const struct access *b)
{
    return v->snapshots[(size_t)b->snapshot * v->width + a->lane] >= a->tick;
}

static void check_races(struct verifier *v)
{
    if (v->access_count > 0)
        qsort(v->accesses, v->access_count, sizeof *v->accesses, by_place);
    for (uint32_t i = 0; i < v->access_count; i++)
        for (uint32_t j = i + 1; j < v->access_count; j++) {
            const struct access *a = &v->accesses[i], *b = &v->accesses[j];

            if (a->rank != b->rank || a->buffer != b->buffer || b->offset >= a->offset + a->bytes)
                break;
            if ((a->write || b->write) &&
                (a->snapshot == b->snapshot ||
                 (!happens_before(v, a, b) && !happens_before(v, b, a)))) {
                defect(v,
                       "rank %u (call %u, step %u) and rank %u (call %u, step %u) touch the same "
                       "bytes of rank %u in no order",
                       a->actor, a->call, a->step, b->actor, b->call, b->step, a->rank);
                return;
            }
        }
}

/* ---- Frame ---- */

/* The requests of one call differ in nothing but the rank. */
static bool same_request(const struct zc_request *a, const struct zc_request *b)
{
    return a->collective == b->collective && a->algorithm == b->algorithm &&
           a->rank_count == b->rank_count && a->bytes == b->bytes && a->half == b->half &&
           a->scratch_bytes == b->scratch_bytes && a->released == b->released &&
           a->node_ranks == b->node_ranks && a->chunks == b->chunks;
}

static void check_each(struct verifier *v)
{
    char why[256];

    for (uint32_t call = 0; call < v->call_count; call++)
        for (uint32_t rank = 0; rank < v->ranks && v->status == ZCTA_OK; rank++) {
            const struct zc_plan *plan = plan_of(v, call, rank), *first = plan_of(v, call, 0);

            if (zc_plan_defect(plan, why, sizeof why) != NULL)
                defect(v, "call %u: %s", call, why);
            else if (plan->request.rank != rank || plan->request.rank_count != v->ranks ||
                     !same_request(&plan->request, &first->request))
                defect(v, "call %u: the plan given for rank %u is not of the same call", call,
                       rank);
            if (v->lanes < plan->lane_count)
                v->lanes = plan->lane_count;
        }
    v->width = v->ranks * v->lanes;
}

static void allocate(struct verifier *v)
{
    const size_t ranks = v->ranks, calls = v->call_count;

    if (v->status != ZCTA_OK)
        return;
    v->clocks = calloc((size_t)v->width * v->width, sizeof *v->clocks);
    v->state = calloc(ranks, sizeof *v->state);
    v->queues = calloc(ranks * ranks * ZC_CHANNELS, sizeof *v->queues);
    v->contents = calloc(ranks * ZC_BUFFERS, sizeof *v->contents);
    v->enter_tick = calloc(calls * ranks, sizeof *v->enter_tick);
    v->leave_clock = calloc(calls * ranks * v->width, sizeof *v->leave_clock);
    for (size_t i = 0; v->state != NULL && i < ranks * POSTS; i++)
        if ((v->state[i / POSTS].posts[i % POSTS].clock = calloc(v->width, sizeof *v->clocks)) ==
            NULL)
            v->status = ZCTA_ERR_NO_MEMORY;
    if (v->clocks == NULL || v->state == NULL || v->queues == NULL || v->contents == NULL ||
        v->enter_tick == NULL || v->leave_clock == NULL)
        v->status = ZCTA_ERR_NO_MEMORY;
}

static void release(struct verifier *v)
{
    for (size_t i = 0; v->queues != NULL && i < (size_t)v->ranks * v->ranks * ZC_CHANNELS; i++)
        free(v->queues[i].clocks);
    for (size_t i = 0; v->contents != NULL && i < (size_t)v->ranks * ZC_BUFFERS; i++)
        free(v->contents[i].segments);
    for (size_t i = 0; v->state != NULL && i < (size_t)v->ranks * POSTS; i++) {
        free(v->state[i / POSTS].posts[i % POSTS].clock);
        free(v->state[i / POSTS].posts[i % POSTS].row.segments);
    }
    free(v->clocks);
    free(v->state);
    free(v->queues);
    free(v->contents);
    free(v->enter_tick);
    free(v->leave_clock);
    free(v->snapshots);
    free(v->accesses);
}

zcta_status zc_verify(const struct zc_verify_call *calls, uint32_t call_count,
                      char *text, /* NOLINT(readability-non-const-parameter): kept in v */
                      size_t bytes)
{
    struct verifier v = {.calls = calls,
                         .call_count = call_count,
                         .ranks = call_count > 0 ? calls[0].plans[0]->request.rank_count : 0,
                         .lanes = 1,
                         .text = text,
                         .text_bytes = bytes};

    if (v.ranks == 0)
        return ZCTA_ERR_INVALID;
    check_each(&v);
    allocate(&v);
    if (v.status == ZCTA_OK)
        execute(&v);
    if (v.status == ZCTA_OK)
        check_leaving(&v);
    if (v.status == ZCTA_OK)
        check_barriers(&v);
    if (v.status == ZCTA_OK)
        check_races(&v);
    release(&v);
    return v.status;
}
