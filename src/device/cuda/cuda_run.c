/* Programs on streams: lane 0 is the caller's stream, further lanes are streams of the team's.
 *
 * Who waits for what: a stream wait ends when its word has counted far enough; the word is written
 * by the peer's signal, a 4-byte copy that stands behind the peer's data in the same stream. Where
 * the word lies on this very GPU a copy would need an SM, so there the signal is a stream write.
 *
 * Values in a graph are the same at every replay, so a captured program cannot count on. It has
 * words of its own, counts within itself, and puts each word back to zero behind its last wait for
 * it. No signal of a peer's next captured program may come before that. It does not where, for each
 * flow from one rank to another, *done* is sent behind the wait for *ready*:
 *   - the next *ready* is sent when the receiver's present program has ended, so when *done* has
 * reached it, which stands behind the putting back of the present *ready* in the sender's stream;
 *   - the next *done* is sent behind the wait for the next *ready*, and that one the receiver sends
 * when its present program has ended, and with it every putting back.
 * So whatever captured programs follow each other, and however often, a word is zero when the first
 * signal of a program reaches it. zc_verify() proves that of every plan that can be captured. */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "device/cuda/cuda_team.h"

#define NAP_NS 20000
/* Room for a program's waits, for each rank and each of the programs that may be under way; and for
 * each rank where the pads are with the host, and a program may wait twice for each chunk of a
 * stream. */
enum { WAITS_A_RANK = 8, STREAM_WAITS_A_RANK = 32768 };

#define LEAVE_PATIENCE_NS   UINT64_C(2000000000)
#define DRAIN_PATIENCE_NS   UINT64_C(10000000000) /* once a team has failed */
#define TROUBLE_PATIENCE_NS UINT64_C(1000000000)
#define SLOWEST_BYTE_NS     10 /* 100 MB/s */

static bool is_lost(const struct zc_device *device)
{
    return atomic_load_explicit(&device->lost, memory_order_acquire);
}

static void lose(struct zc_device *device)
{
    atomic_store_explicit(&device->lost, true, memory_order_release);
}

zcta_status zc_cuda_enter(struct zc_device *device)
{
    return zc_cuda_status(device->driver, device->diag,
                          device->driver->cuCtxPushCurrent(device->context), "cuCtxPushCurrent",
                          "making the GPU's context current");
}

void zc_cuda_leave(struct zc_device *device)
{
    zc_cu_context popped;

    device->driver->cuCtxPopCurrent(&popped);
}

/* ---- Attaching ---- */

static void destroy_handles(struct zc_cuda_team *team)
{
    const struct zc_cuda_driver *driver = team->device->driver;

    for (int set = 0; set < 2; set++) {
        for (uint32_t i = 0; i < ZC_CUDA_LANES; i++) {
            if (team->lanes[set][i] != NULL)
                driver->cuStreamDestroy(team->lanes[set][i]);
            if (team->joins[set][i] != NULL)
                driver->cuEventDestroy(team->joins[set][i]);
        }
        if (team->fork[set] != NULL)
            driver->cuEventDestroy(team->fork[set]);
    }
}

static void free_team(struct zc_cuda_team *team)
{
    destroy_handles(team);
    for (int i = 0; i < ZC_CUDA_WATCHERS; i++) {
        free(team->views[i].words);
        free(team->views[i].oldest);
        free(team->views[i].pending);
        free(team->views[i].visited);
        free(team->views[i].came);
        free(team->views[i].marked);
    }
    free(team->runs);
    free(team->waits);
    free(team);
}

static bool allocate_view(const struct zc_guard *guard, struct zc_cuda_view *view)
{
    view->words = calloc(1, guard->pad_bytes);
    view->oldest = calloc(guard->slot_count, sizeof *view->oldest);
    view->pending = calloc(guard->slot_count, sizeof *view->pending);
    view->visited = calloc(guard->rank_count, sizeof *view->visited);
    view->came = calloc(guard->rank_count, sizeof *view->came);
    view->marked = calloc(guard->rank_count, sizeof *view->marked);
    return view->words != NULL && view->oldest != NULL && view->pending != NULL &&
           view->visited != NULL && view->came != NULL && view->marked != NULL;
}

static bool allocate(const struct zc_guard *guard, struct zc_cuda_team *team)
{
    team->waits_room = (guard->pads_at_host ? STREAM_WAITS_A_RANK : WAITS_A_RANK * ZC_CUDA_RUNS) *
                       (guard->rank_count + 1);
    team->runs = calloc(ZC_CUDA_RUNS, sizeof *team->runs);
    team->waits = calloc(team->waits_room, sizeof *team->waits);
    return team->runs != NULL && team->waits != NULL && allocate_view(guard, &team->views[0]) &&
           allocate_view(guard, &team->views[1]);
}

static zcta_status create_event(struct zc_device *device, zc_cu_event *event)
{
    return zc_cuda_status(device->driver, device->diag,
                          device->driver->cuEventCreate(event, ZC_CU_EVENT_DISABLE_TIMING),
                          "cuEventCreate", "preparing a team");
}

static void list_team(struct zc_cuda_team *team)
{
    struct zc_device *device = team->device;

    pthread_mutex_lock(&device->lock);
    team->next = device->teams;
    device->teams = team;
    pthread_mutex_unlock(&device->lock);
}

zcta_status zc_cuda_attach(struct zc_device *device, struct zc_guard *guard)
{
    struct zc_cuda_team *made = calloc(1, sizeof *made);
    zcta_status status;

    if (made == NULL)
        return zc_fail(device->diag, ZCTA_ERR_NO_MEMORY, "calloc", ENOMEM, "out of memory");
    made->device = device;
    made->guard = guard;
    if (!allocate(guard, made)) {
        status = zc_fail(device->diag, ZCTA_ERR_NO_MEMORY, "calloc", ENOMEM, "out of memory");
        goto fail;
    }
    status = zc_cuda_enter(device);
    if (status != ZCTA_OK)
        goto fail;
    status = create_event(device, &made->fork[0]);
    if (status == ZCTA_OK)
        status = create_event(device, &made->fork[1]);
    zc_cuda_leave(device);
    if (status != ZCTA_OK)
        goto fail;
    guard->device_data = made;
    list_team(made);
    return ZCTA_OK;
fail:
    free_team(made);
    return status;
}

/* Waits for watchers that look after the team, unless one is held in the driver with it. The lock
 * is held. */
static void await_visitors(struct zc_cuda_team *team)
{
    struct zc_device *device = team->device;
    const uint64_t until_ns =
        zc_deadline_in(zc_after_ns(LEAVE_PATIENCE_NS, team->guard->timeout_ns));
    const struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000u),
                                   .tv_nsec = (long)(until_ns % 1000000000u)};

    while (team->visitors > 0 && !is_lost(device) &&
           pthread_cond_timedwait(&device->changed, &device->lock, &until) == 0)
        continue;
    if (team->visitors > 0)
        lose(device);
}

static void unlist_team(struct zc_cuda_team *team)
{
    struct zc_cuda_team **at = &team->device->teams;

    while (*at != team)
        at = &(*at)->next;
    *at = team->next;
}

/* What is lost stays listed, as failed: the watchers go on letting go what a stuck stream may come
 * to one day. */
static void keep(struct zc_cuda_team *team)
{
    uint32_t well = ZCTA_OK;

    team->guard->kept = true;
    atomic_compare_exchange_strong_explicit(&team->guard->failed, &well, ZCTA_ERR_PEER,
                                            memory_order_release, memory_order_relaxed);
}

void zc_cuda_detach(struct zc_device *device, struct zc_guard *guard)
{
    struct zc_cuda_team *team = guard->device_data;

    if (team == NULL)
        return;
    guard->device_data = NULL;
    pthread_mutex_lock(&device->lock);
    team->leaving = true;
    await_visitors(team);
    if (is_lost(device))
        keep(team);
    else
        unlist_team(team);
    pthread_mutex_unlock(&device->lock);
    if (!guard->kept)
        free_team(team);
}

/* ---- Binding ---- */

static zcta_status create_lane(struct zc_cuda_team *team, int set, uint32_t lane)
{
    struct zc_device *device = team->device;
    zc_cu_stream *stream = &team->lanes[set][lane];
    zcta_status status = ZCTA_OK;

    if (*stream == NULL)
        status = zc_cuda_status(device->driver, device->diag,
                                device->driver->cuStreamCreate(stream, ZC_CU_STREAM_NON_BLOCKING),
                                "cuStreamCreate", "preparing a lane");
    if (status == ZCTA_OK && team->joins[set][lane] == NULL)
        status = create_event(device, &team->joins[set][lane]);
    return status;
}

/* A signal behind data goes as a copy: it follows the data on the same engine, with no change from
 * the one to the other between them. A signal that follows nothing goes as a stream write, together
 * with the wait behind it; so does one to this very GPU, where a copy would need an SM, and one to
 * the host. */
static zcta_status bind_signal(struct zc_device *device, const struct zc_guard *guard,
                               struct zc_op *op, bool follows_copy)
{
    int ordinal = -1;
    zcta_status status;

    op->flag.by_write = true;
    if (guard->pads_at_host)
        return ZCTA_OK;
    status = zc_cuda_status(
        device->driver, device->diag,
        device->driver->cuPointerGetAttribute(&ordinal, ZC_CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL,
                                              (uintptr_t)op->flag.word),
        "cuPointerGetAttribute", "finding a signal's GPU");

    op->flag.by_write = ordinal == device->ordinal || (device->remote_writes && !follows_copy);
    return status;
}

static zcta_status bind_lane(struct zc_device *device, struct zc_program *program, uint32_t lane)
{
    zcta_status status = ZCTA_OK;
    bool follows_copy = false;

    for (uint32_t i = program->lane_begin[lane];
         i < program->lane_begin[lane + 1] && status == ZCTA_OK; i++) {
        struct zc_op *op = &program->ops[i];

        if (op->kind == ZC_OP_SIGNAL)
            status = bind_signal(device, program->guard, op, follows_copy);
        follows_copy = op->kind == ZC_OP_COPY || (op->kind == ZC_OP_SIGNAL && follows_copy);
    }
    return status;
}

/* The watchers keep so many of a program. */
static zcta_status count_waits(const struct zc_cuda_team *team, struct zc_program *program)
{
    program->wait_count = 0;
    for (uint32_t i = 0; i < program->lane_begin[program->lane_count]; i++)
        program->wait_count += program->ops[i].kind == ZC_OP_WAIT;
    if (program->wait_count <= team->waits_room)
        return ZCTA_OK;
    return zc_fail(team->device->diag, ZCTA_ERR_UNSUPPORTED, program->call, 0,
                   "the plan waits %" PRIu32 " times, and more than %" PRIu32 " cannot be watched",
                   program->wait_count, team->waits_room);
}

zcta_status zc_cuda_bind(struct zc_device *device, struct zc_program *program)
{
    struct zc_cuda_team *team = program->guard->device_data;
    zcta_status status = count_waits(team, program);

    if (status == ZCTA_OK)
        status = zc_cuda_enter(device);
    if (status != ZCTA_OK)
        return status;
    for (uint32_t lane = 0; lane < program->lane_count && status == ZCTA_OK; lane++) {
        if (lane > 0)
            status = create_lane(team, 0, lane);
        if (lane > 0 && status == ZCTA_OK)
            status = create_lane(team, 1, lane);
        if (status == ZCTA_OK)
            status = bind_lane(device, program, lane);
    }
    zc_cuda_leave(device);
    return status;
}

/* ---- Submitting ---- */

/* One submit under way. Memory operations are gathered and go to the driver together. */
struct emission {
    struct zc_cuda_team *team;
    const struct zc_program *program;
    zc_cu_stream streams[ZC_CUDA_LANES];
    bool captured; /* into a graph: values are baked in, so words of their own are used and reset */
    bool marked;   /* for the watchers, as begun */
    uint32_t waits;    /* so far, of a captured program */
    uint32_t signals;  /* so far */
    bool barred;       /* nothing was copied behind the latest barrier */
    bool marks_replay; /* a captured program that waits before it has signalled all */
    uint32_t open;     /* bit i: lane i has been forked and not joined */
    uint32_t ticket;
    uint32_t sent[ZC_CUDA_LANES]; /* the lane's latest signal, see struct zc_cuda_wait */
    uint32_t op_count;
    union zc_cu_mem_op ops[ZC_CUDA_BATCH];
};

static zcta_status driver_status(const struct emission *e, zc_cu_result result, const char *what)
{
    const struct zc_device *device = e->team->device;

    return zc_cuda_status(device->driver, device->diag, result, what, "enqueueing a collective");
}

static zcta_status flush(struct emission *e, uint32_t lane)
{
    const uint32_t count = e->op_count;

    e->op_count = 0;
    if (count == 0)
        return ZCTA_OK;
    return driver_status(
        e, e->team->device->driver->cuStreamBatchMemOp(e->streams[lane], count, e->ops, 0),
        "cuStreamBatchMemOp");
}

static zcta_status add_mem_op(struct emission *e, uint32_t lane, int operation, zc_cu_pointer word,
                              uint64_t value)
{
    zcta_status status = ZCTA_OK;

    if (e->op_count == ZC_CUDA_BATCH)
        status = flush(e, lane);
    e->ops[e->op_count++] =
        (union zc_cu_mem_op){.value = {.operation = operation, .address = word, .value = value}};
    return status;
}

/* The index of a word among its pad's slots. */
static uint32_t slot_of(const struct zc_guard *guard, const struct zc_op *op)
{
    const size_t place = (uintptr_t)op->flag.word - (uintptr_t)op->flag.pad - guard->pad_head_bytes;
    const uint32_t slot = (uint32_t)(place / guard->slot_bytes);

    assert(slot < guard->slot_count && slot < ZC_CUDA_NO_SIGNAL);
    return slot;
}

/* The word an op uses: eager calls count on, captured ones use a set of words of their own. */
static zc_cu_pointer word_of(const struct emission *e, const struct zc_op *op)
{
    return (uintptr_t)op->flag.word + (e->captured ? e->program->guard->graph_offset : 0);
}

/* For the watchers. */
static zcta_status mark_begun(struct emission *e, uint32_t lane)
{
    zcta_status status = ZCTA_OK;

    if (!e->captured && !e->marked)
        status =
            add_mem_op(e, lane, ZC_CU_MEM_OP_WRITE_VALUE_32,
                       zc_cuda_mark(e->team, offsetof(struct zc_cuda_marks, begun)), e->ticket);
    e->marked = true;
    return status;
}

/* For the watchers, which have to see that the stream stands there, and to say for whom. */
static void note_wait(const struct emission *e, uint32_t lane, uint32_t slot, uint32_t value)
{
    struct zc_cuda_run *run = zc_cuda_run_of(e->team, e->ticket);
    const uint32_t at = atomic_load_explicit(&run->wait_count, memory_order_relaxed);
    struct zc_cuda_wait *wait = zc_cuda_wait_of(e->team, e->ticket, at);

    assert(at < e->team->waits_room);
    atomic_store_explicit(&wait->awaited, value | slot, memory_order_release);
    atomic_store_explicit(&wait->before, e->sent[lane], memory_order_release);
    atomic_store_explicit(&run->wait_count, at + 1, memory_order_release);
    e->team->waits_noted++;
}

static zcta_status put_back(struct emission *e, uint32_t lane, zc_cu_pointer word)
{
    if (e->team->device->wide_writes)
        return add_mem_op(e, lane, ZC_CU_MEM_OP_WRITE_VALUE_64, word, ZC_CUDA_PUT_BACK);
    return add_mem_op(e, lane, ZC_CU_MEM_OP_WRITE_VALUE_32, word, 0);
}

/* For a program that waits before it has signalled all other ranks. The others need none: whoever
 * has not come has a signal of theirs lying. Together with the first and, on a single lane, the
 * last wait, so that it costs no node of its own. */
static zcta_status mark_replaying(struct emission *e, uint32_t lane, uint32_t value)
{
    return add_mem_op(e, lane, ZC_CU_MEM_OP_WRITE_VALUE_32,
                      zc_cuda_mark(e->team, offsetof(struct zc_cuda_marks, replaying)), value);
}

static zcta_status emit_wait(struct emission *e, uint32_t lane, const struct zc_op *op)
{
    const struct zc_guard *guard = e->team->guard;
    const uint32_t count = e->captured ? op->flag.turn : zc_op_number(op);
    const uint32_t slot = slot_of(guard, op);
    const bool marks = e->captured && e->waits == 0 && e->signals < guard->rank_count - 1;
    /* Needed only where no signal before it tells that the stream has got so far. */
    zcta_status status = e->sent[lane] != ZC_CUDA_NO_SIGNAL ? ZCTA_OK : mark_begun(e, lane);

    if (marks && status == ZCTA_OK)
        status = mark_replaying(e, lane, 1);
    e->marks_replay |= marks;

    if (!e->captured)
        note_wait(e, lane, slot, zc_cuda_epoch(count));
    if (status == ZCTA_OK)
        status =
            add_mem_op(e, lane, ZC_CU_MEM_OP_WAIT_VALUE_32, word_of(e, op), zc_cuda_epoch(count));
    if (status == ZCTA_OK && e->team->device->flushes && slot >= guard->rank_count)
        e->ops[e->op_count - 1].value.flags |= ZC_CU_WAIT_VALUE_FLUSH;
    if (e->captured && op->flag.last && status == ZCTA_OK)
        status = put_back(e, lane, word_of(e, op));
    if (e->captured && status == ZCTA_OK && ++e->waits == e->program->wait_count &&
        e->marks_replay && e->program->lane_count == 1)
        status = mark_replaying(e, lane, 0);
    return status;
}

/* A stream write waits until all that was written before it can be seen, also in the host's memory,
 * where a copy between GPUs may get past a copy to the host. Once behind such copies. */
static zcta_status bar(struct emission *e, uint32_t lane)
{
    if (e->barred)
        return ZCTA_OK;
    e->barred = true;
    return add_mem_op(e, lane, ZC_CU_MEM_OP_WRITE_VALUE_32,
                      zc_cuda_mark(e->team, offsetof(struct zc_cuda_marks, barrier)), 0);
}

static zcta_status emit_signal(struct emission *e, uint32_t lane, const struct zc_op *op)
{
    const uint32_t count = e->captured ? op->flag.turn : zc_op_number(op);
    const struct zc_guard *guard = e->team->guard;
    const struct zc_device *device = e->team->device;
    zcta_status status;

    e->signals++;
    e->sent[lane] = zc_cuda_epoch(count) | (slot_of(guard, op) - guard->self + op->peer);
    if (op->flag.by_write)
        return add_mem_op(e, lane, ZC_CU_MEM_OP_WRITE_VALUE_32, word_of(e, op),
                          zc_cuda_epoch(count));
    status = op->flag.of_host ? bar(e, lane) : ZCTA_OK;
    if (status == ZCTA_OK)
        status = flush(e, lane);
    if (status != ZCTA_OK)
        return status;
    return driver_status(
        e,
        device->driver->cuMemcpyAsync(word_of(e, op),
                                      device->epochs + sizeof(uint32_t) * (count % ZC_CUDA_EPOCHS),
                                      sizeof(uint32_t), e->streams[lane]),
        "cuMemcpyAsync");
}

static zcta_status order(const struct emission *e, zc_cu_event event, uint32_t before,
                         uint32_t after)
{
    const struct zc_cuda_driver *driver = e->team->device->driver;
    zcta_status status =
        driver_status(e, driver->cuEventRecord(event, e->streams[before]), "cuEventRecord");

    if (status == ZCTA_OK)
        status = driver_status(e, driver->cuStreamWaitEvent(e->streams[after], event, 0),
                               "cuStreamWaitEvent");
    return status;
}

static zcta_status emit_flags(struct emission *e, uint32_t lane, const struct zc_op *op)
{
    return op->kind == ZC_OP_WAIT ? emit_wait(e, lane, op) : emit_signal(e, lane, op);
}

/* The mark is for the other ranks: what they wait for in there no signal tells them. */
static zcta_status emit_network(struct emission *e, uint32_t lane, const struct zc_op *op)
{
    struct zc_cuda_run *run = zc_cuda_run_of(e->team, e->ticket);
    zcta_status status = mark_begun(e, lane);

    if (!e->captured) {
        atomic_fetch_add_explicit(&run->copying_ns, op->network.bytes * SLOWEST_BYTE_NS,
                                  memory_order_release);
        atomic_store_explicit(&run->calls, true, memory_order_release);
    }
    if (status == ZCTA_OK)
        status = flush(e, lane);
    return status == ZCTA_OK ? op->network.enqueue(&op->network, e->streams[lane]) : status;
}

/* Rows go in one strided copy: the copy engines know such. */
static zcta_status emit_copy(struct emission *e, uint32_t lane, const struct zc_op *op)
{
    const struct zc_cuda_driver *driver = e->team->device->driver;
    const struct zc_cu_copy_2d rows = {.from_type = ZC_CU_MEMORY_DEVICE,
                                       .from = (uintptr_t)op->copy.from,
                                       .from_pitch = op->copy.stride,
                                       .to_type = ZC_CU_MEMORY_DEVICE,
                                       .to = (uintptr_t)op->copy.to,
                                       .to_pitch = op->copy.stride,
                                       .width = op->copy.bytes,
                                       .height = op->copy.rows};

    if (op->copy.rows == 1)
        return driver_status(e,
                             driver->cuMemcpyAsync((uintptr_t)op->copy.to, (uintptr_t)op->copy.from,
                                                   op->copy.bytes, e->streams[lane]),
                             "cuMemcpyAsync");
    return driver_status(e, driver->cuMemcpy2DAsync(&rows, e->streams[lane]), "cuMemcpy2DAsync");
}

static zcta_status emit_fork(struct emission *e, uint32_t lane)
{
    const zcta_status status = order(e, e->team->fork[e->captured], 0, lane);

    e->sent[lane] = e->sent[0];
    if (status == ZCTA_OK)
        e->open |= 1u << lane;
    return status;
}

static zcta_status emit_join(struct emission *e, uint32_t lane)
{
    const zcta_status status = order(e, e->team->joins[e->captured][lane], lane, 0);

    if (status == ZCTA_OK)
        e->open &= ~(1u << lane);
    return status;
}

/* Lanes fork and are joined on lane 0 alone. */
static zcta_status emit_op(struct emission *e, uint32_t lane, const struct zc_op *op)
{
    zcta_status status;

    if (op->kind == ZC_OP_WAIT || op->kind == ZC_OP_SIGNAL)
        return emit_flags(e, lane, op);
    if (op->kind == ZC_OP_NETWORK)
        return emit_network(e, lane, op);
    status = flush(e, lane);
    if (status != ZCTA_OK)
        return status;
    if (op->kind == ZC_OP_FORK)
        return emit_fork(e, op->peer);
    if (op->kind == ZC_OP_JOIN)
        return emit_join(e, op->peer);
    e->barred = false;
    return emit_copy(e, lane, op);
}

/* After a failure. What a lane has got already goes on, and nobody would wait for it. */
static void join_open_lanes(struct emission *e)
{
    for (uint32_t lane = 1; lane < e->program->lane_count; lane++)
        if ((e->open & 1u << lane) != 0)
            emit_join(e, lane);
}

/* In the order of the plan: streams may share a hardware queue, which goes in its order, so that an
 * op may stand behind whatever was enqueued before it on any lane. */
static zcta_status emit(struct emission *e)
{
    const struct zc_program *program = e->program;
    uint32_t next[ZC_CUDA_LANES], last = 0;
    zcta_status status = ZCTA_OK;

    memcpy(next, program->lane_begin, program->lane_count * sizeof *next);
    for (uint32_t i = 0; i < program->lane_begin[program->lane_count] && status == ZCTA_OK; i++) {
        const uint32_t lane = program->order == NULL ? 0 : program->order[i];

        if (lane != last)
            status = flush(e, last);
        last = lane;
        if (status == ZCTA_OK)
            status = emit_op(e, lane, &program->ops[next[lane]++]);
    }
    if (last != 0 && status == ZCTA_OK)
        status = flush(e, last);
    join_open_lanes(e);
    return status;
}

static uint32_t under_way(const struct zc_guard *guard)
{
    return zc_guard_submitted(guard) - atomic_load_explicit(&guard->finished, memory_order_acquire);
}

/* For how long nothing may end. Waits of ours end by their deadline, and a little later the team
 * has failed; then what is stuck is let go, and what another library has enqueued is aborted. */
static uint64_t drain_patience_ns(const struct zc_guard *guard)
{
    if (zc_guard_failed(guard))
        return LEAVE_PATIENCE_NS +
               (guard->timeout_ns < DRAIN_PATIENCE_NS ? guard->timeout_ns : DRAIN_PATIENCE_NS);
    return zc_after_ns(LEAVE_PATIENCE_NS, zc_after_ns(guard->timeout_ns, guard->timeout_ns));
}

/* The program's own work is in the way, or another library's. A team that goes on would be out of
 * step with the others. */
static zcta_status give_up(struct zc_cuda_team *team)
{
    struct zc_guard *guard = team->guard;
    char why[240];

    if (zc_guard_failed(guard))
        return zc_fail(team->device->diag, ZCTA_ERR_TIMEOUT, "drain", 0,
                       "work that was enqueued before its team failed does not end; its stream "
                       "is lost, end the process");
    snprintf(why, sizeof why,
             "a stream has not come to the end of a collective within %.3g s, though no rank is "
             "missing: other work ahead of it in the stream, or beside it, does not end",
             (double)drain_patience_ns(guard) / 1e9);
    guard->on_broken(guard->data, why);
    return zc_fail(team->device->diag, ZCTA_ERR_TIMEOUT, "drain", 0, "%s", why);
}

/* A look that fails once may be followed by one that does not. */
static zcta_status check_trouble(struct zc_cuda_team *team, uint64_t *since)
{
    const int trouble = atomic_load_explicit(&team->trouble, memory_order_acquire);

    if (trouble == ZC_CU_SUCCESS || *since == 0)
        *since = zc_now_ns();
    if (zc_time_left_ns(zc_after_ns(*since, TROUBLE_PATIENCE_NS)) > 0)
        return ZCTA_OK;
    return zc_cuda_status(team->device->driver, team->device->diag, trouble, "cuMemcpyDtoHAsync",
                          "looking how far collectives have got");
}

/* Waits until at most `left` programs are under way, as the watchers see it: the driver might not
 * let this thread go again. */
static zcta_status wait_until(struct zc_cuda_team *team, uint32_t left)
{
    const struct timespec nap = {.tv_nsec = NAP_NS};
    const struct zc_guard *guard = team->guard;
    uint32_t before = under_way(guard);
    uint64_t since = zc_now_ns(), troubled = 0;
    bool had_failed = zc_guard_failed(guard);
    zcta_status status = ZCTA_OK;

    if (before <= left)
        return ZCTA_OK;
    zc_cuda_ask(team->device, true);
    while (under_way(guard) > left && status == ZCTA_OK) {
        if (under_way(guard) != before || zc_guard_failed(guard) != had_failed)
            since = zc_now_ns();
        before = under_way(guard);
        had_failed = zc_guard_failed(guard);
        if (is_lost(team->device) ||
            zc_time_left_ns(zc_after_ns(since, drain_patience_ns(guard))) == 0)
            status = give_up(team);
        else
            status = check_trouble(team, &troubled);
        if (status == ZCTA_OK)
            nanosleep(&nap, NULL);
    }
    zc_cuda_ask(team->device, false);
    return status;
}

static void enter_run(struct emission *e)
{
    struct zc_cuda_run *run = zc_cuda_run_of(e->team, e->ticket);

    atomic_store_explicit(&run->call, e->program->call, memory_order_release);
    atomic_store_explicit(&run->first_wait, e->team->waits_noted, memory_order_release);
    atomic_store_explicit(&run->wait_count, 0, memory_order_release);
    atomic_store_explicit(&run->calls, false, memory_order_release);
    atomic_store_explicit(&run->copying_ns, 0, memory_order_release);
    atomic_store_explicit(&e->team->entered, e->ticket, memory_order_release);
}

/* Whether so many waits can be noted beside those of the programs under way. */
static bool has_room(const struct zc_cuda_team *team, uint32_t waits)
{
    const struct zc_guard *guard = team->guard;
    const uint32_t oldest = atomic_load_explicit(&guard->finished, memory_order_acquire) + 1;
    uint64_t first;

    if (zc_guard_submitted(guard) == oldest - 1)
        return true;
    first = atomic_load_explicit(&zc_cuda_run_of(team, oldest)->first_wait, memory_order_acquire);
    return waits <= team->waits_room - (team->waits_noted - first);
}

/* Orders this program behind the team's last one if that may be on another stream. */
static zcta_status begin_run(struct emission *e)
{
    struct zc_cuda_team *team = e->team;
    const uint32_t before = zc_guard_submitted(team->guard);
    unsigned long long id = 0;
    /* With this one ZC_CUDA_RUNS are under way, and each has an entry of its own in runs[]. */
    zcta_status status = wait_until(team, ZC_CUDA_RUNS - 1);

    while (status == ZCTA_OK && !has_room(team, e->program->wait_count))
        status = wait_until(team, under_way(team->guard) - 1);
    if (status == ZCTA_OK)
        status = driver_status(e, team->device->driver->cuStreamGetId(e->streams[0], &id),
                               "cuStreamGetId");
    if (status != ZCTA_OK)
        return status;
    e->ticket = before + 1;
    enter_run(e);
    if (id != team->last_stream)
        status = add_mem_op(e, 0, ZC_CU_MEM_OP_WAIT_VALUE_32,
                            zc_cuda_mark(team, offsetof(struct zc_cuda_marks, finished)), before);
    team->last_stream = id;
    return status;
}

static zcta_status mark_finished(struct emission *e)
{
    zcta_status status =
        add_mem_op(e, 0, ZC_CU_MEM_OP_WRITE_VALUE_32,
                   zc_cuda_mark(e->team, offsetof(struct zc_cuda_marks, finished)), e->ticket);

    if (status == ZCTA_OK)
        status = flush(e, 0);
    if (status == ZCTA_OK)
        atomic_store_explicit(&e->team->guard->submitted, e->ticket, memory_order_release);
    return status;
}

/* Also after a failure, and again if it is this that fails: what was enqueued before ends some
 * time, and whoever frees the memory has to wait until then. */
static zcta_status end_run(struct emission *e)
{
    const zcta_status status = mark_finished(e);

    if (status != ZCTA_OK && mark_finished(e) != ZCTA_OK)
        atomic_store_explicit(&e->team->entered, zc_guard_submitted(e->team->guard),
                              memory_order_release);
    return status;
}

static zcta_status run_eager(struct emission *e)
{
    zcta_status status = begin_run(e), ended;

    if (status != ZCTA_OK)
        return status;
    status = emit(e);
    ended = end_run(e);
    return status == ZCTA_OK ? ended : status;
}

/* Over nodes a rank may wait within another library, where no word tells. */
static bool has_telling_words(const struct zc_cuda_team *team)
{
    const struct zc_guard *guard = team->guard;

    for (uint32_t i = 0; i < guard->rank_count; i++)
        if (guard->pads[i] == NULL)
            return false;
    return team->device->wide_writes;
}

/* What a replay's copies may take does not count as waiting. One thread at a time submits. */
static void note_replay(struct emission *e)
{
    const uint32_t count = e->program->lane_begin[e->program->lane_count];
    uint64_t ns = 0;

    for (uint32_t i = 0; i < count; i++)
        if (e->program->ops[i].kind == ZC_OP_COPY)
            ns += e->program->ops[i].copy.bytes * e->program->ops[i].copy.rows * SLOWEST_BYTE_NS;
    if (ns > atomic_load_explicit(&e->team->replay_copying_ns, memory_order_relaxed))
        atomic_store_explicit(&e->team->replay_copying_ns, ns, memory_order_relaxed);
}

static zcta_status run_captured(struct emission *e)
{
    zcta_status status;

    if (e->program->eager_only)
        return zc_fail(e->team->device->diag, ZCTA_ERR_UNSUPPORTED, "zcta_release", 0,
                       "the stream is being captured into a graph, and neither a release nor the "
                       "run of a released plan can be: run the plan once outside, or do not "
                       "release it");
    note_replay(e);
    if (has_telling_words(e->team))
        atomic_store_explicit(&e->team->has_graphs, true, memory_order_relaxed);
    status = emit(e);
    /* Of several lanes nobody knows which wait will be the last. */
    if (status == ZCTA_OK && e->marks_replay && e->program->lane_count > 1)
        status = mark_replaying(e, 0, 0);
    return status == ZCTA_OK ? flush(e, 0) : status;
}

static zcta_status submit(struct zc_cuda_team *team, const struct zc_program *program,
                          zc_cu_stream stream)
{
    struct emission e;
    int capturing = ZC_CU_STREAM_CAPTURE_NONE;
    zcta_status status;

    e.team = team;
    e.program = program;
    e.op_count = 0;
    e.marked = false;
    e.waits = e.signals = 0;
    e.barred = e.marks_replay = false;
    e.open = 0;
    e.streams[0] = stream;
    e.sent[0] = ZC_CUDA_NO_SIGNAL;
    status = driver_status(&e, team->device->driver->cuStreamIsCapturing(stream, &capturing),
                           "cuStreamIsCapturing");
    if (status != ZCTA_OK)
        return status;
    e.captured = capturing != ZC_CU_STREAM_CAPTURE_NONE;
    for (uint32_t lane = 1; lane < program->lane_count; lane++)
        e.streams[lane] = team->lanes[e.captured][lane];
    return e.captured ? run_captured(&e) : run_eager(&e);
}

static bool is_current(const struct zc_device *device)
{
    zc_cu_context current = NULL;

    return device->driver->cuCtxGetCurrent(&current) == ZC_CU_SUCCESS && current == device->context;
}

zcta_status zc_cuda_submit(struct zc_device *device, const struct zc_program *program,
                           zcta_stream stream)
{
    struct zc_cuda_team *team = program->guard->device_data;
    zcta_status status;

    if (is_current(device))
        return submit(team, program, (zc_cu_stream)stream);
    status = zc_cuda_enter(device);
    if (status != ZCTA_OK)
        return status;
    status = submit(team, program, (zc_cu_stream)stream);
    zc_cuda_leave(device);
    return status;
}

zcta_status zc_cuda_is_capturing(struct zc_device *device, zcta_stream stream, bool *capturing)
{
    const bool entering = !is_current(device);
    int state = ZC_CU_STREAM_CAPTURE_NONE;
    zcta_status status = entering ? zc_cuda_enter(device) : ZCTA_OK;

    if (status != ZCTA_OK)
        return status;
    status = zc_cuda_status(device->driver, device->diag,
                            device->driver->cuStreamIsCapturing((zc_cu_stream)stream, &state),
                            "cuStreamIsCapturing", "asking whether a stream is being captured");
    if (entering)
        zc_cuda_leave(device);
    *capturing = state != ZC_CU_STREAM_CAPTURE_NONE;
    return status;
}

void zc_cuda_wake(struct zc_device *device, struct zc_guard *guard)
{
    (void)guard;
    pthread_mutex_lock(&device->lock);
    pthread_cond_broadcast(&device->changed);
    pthread_mutex_unlock(&device->lock);
}

/* What is still under way after that may go on one day, so that nothing it uses may go. */
void zc_cuda_drain(struct zc_device *device, struct zc_guard *guard)
{
    if (guard->device_data != NULL && wait_until(guard->device_data, 0) != ZCTA_OK)
        lose(device);
}
