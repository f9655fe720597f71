/* Programs on streams: lane 0 is the caller's stream, further lanes are streams of the team's.
 *
 * Who waits for what: a stream wait ends when its word has counted far enough; the word is written
 * by the peer's signal, a 4-byte copy that stands behind the peer's data in the same stream. Where
 * the word lies on this very GPU a copy would need an SM, so there the signal is a stream write.
 *
 * Values in a graph are the same at every replay, so a captured program cannot count on. It has
 * words of its own, counts within itself, and puts each word back to zero behind its last wait for
 * it. No signal of a peer's next captured program may come before that: every program sends *ready*
 * to a peer first, and *done* to it behind the wait for that peer's *ready*, so that
 *   - a *ready* of the peer's next program is sent when its present one has ended, so when our
 * *done* has reached it, which stands behind the putting back of its *ready* in our stream;
 *   - a *done* of the peer's next program is sent behind its wait for our next *ready*, and that
 * one we send when our present program has ended, and with it every putting back. So whatever
 * captured programs follow each other, and however often, a word is zero when the first signal of a
 * program reaches it. zc_verify() proves that of every plan that can be captured. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "device/cuda/cuda_team.h"

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

    for (uint32_t i = 0; i < ZC_CUDA_LANES; i++) {
        if (team->lanes[i] != NULL)
            driver->cuStreamDestroy(team->lanes[i]);
        if (team->joins[i] != NULL)
            driver->cuEventDestroy(team->joins[i]);
    }
    if (team->fork != NULL)
        driver->cuEventDestroy(team->fork);
}

static void free_team(struct zc_cuda_team *team)
{
    destroy_handles(team);
    free(team->words);
    free(team->runs);
    free(team->waits);
    free(team->awaited);
    free(team->came);
    free(team);
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
    made->words = calloc(1, guard->pad_bytes);
    made->runs = calloc(ZC_CUDA_RUNS, sizeof *made->runs);
    made->waits = calloc((size_t)ZC_CUDA_RUNS * guard->slot_count, sizeof *made->waits);
    made->awaited = calloc(guard->rank_count, sizeof *made->awaited);
    made->came = calloc(guard->rank_count, sizeof *made->came);
    if (made->words == NULL || made->runs == NULL || made->waits == NULL || made->awaited == NULL ||
        made->came == NULL) {
        status = zc_fail(device->diag, ZCTA_ERR_NO_MEMORY, "calloc", ENOMEM, "out of memory");
        goto fail;
    }
    status = zc_cuda_enter(device);
    if (status != ZCTA_OK)
        goto fail;
    status = create_event(device, &made->fork);
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

void zc_cuda_detach(struct zc_device *device, struct zc_guard *guard)
{
    struct zc_cuda_team *team = guard->device_data;

    if (team == NULL)
        return;
    pthread_mutex_lock(&device->lock);
    for (struct zc_cuda_team **at = &device->teams; *at != NULL; at = &(*at)->next)
        if (*at == team) {
            *at = team->next;
            break;
        }
    /* The watchdog may still be telling the team's owner, who must not go before that. */
    while (device->reported == team)
        pthread_cond_wait(&device->changed, &device->lock);
    pthread_mutex_unlock(&device->lock);
    guard->device_data = NULL;
    free_team(team);
}

/* ---- Binding ---- */

static zcta_status create_lane(struct zc_cuda_team *team, uint32_t lane)
{
    struct zc_device *device = team->device;
    zcta_status status = ZCTA_OK;

    if (team->lanes[lane] == NULL)
        status = zc_cuda_status(
            device->driver, device->diag,
            device->driver->cuStreamCreate(&team->lanes[lane], ZC_CU_STREAM_NON_BLOCKING),
            "cuStreamCreate", "preparing a lane");
    if (status == ZCTA_OK && team->joins[lane] == NULL)
        status = create_event(device, &team->joins[lane]);
    return status;
}

/* A signal behind data goes as a copy: it follows the data on the same engine, with no change from
 * the one to the other between them. A signal that follows nothing goes as a stream write, together
 * with the wait behind it; so does one to this very GPU, where a copy would need an SM. */
static zcta_status bind_signal(struct zc_device *device, struct zc_op *op, bool follows_copy)
{
    int ordinal = -1;
    const zcta_status status = zc_cuda_status(
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
            status = bind_signal(device, op, follows_copy);
        follows_copy = op->kind == ZC_OP_COPY || (op->kind == ZC_OP_SIGNAL && follows_copy);
    }
    return status;
}

zcta_status zc_cuda_bind(struct zc_device *device, struct zc_program *program)
{
    struct zc_cuda_team *team = program->guard->device_data;
    zcta_status status = zc_cuda_enter(device);

    if (status != ZCTA_OK)
        return status;
    for (uint32_t lane = 0; lane < program->lane_count && status == ZCTA_OK; lane++) {
        if (lane > 0)
            status = create_lane(team, lane);
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
    bool begun;    /* told by a signal or a mark */
    bool marked;   /* by a mark */
    uint32_t open; /* bit i: lane i has been forked and not joined */
    uint32_t ticket;
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

/* The word an op uses: eager calls count on, captured ones use a set of words of their own. */
static zc_cu_pointer word_of(const struct emission *e, const struct zc_op *op)
{
    return (uintptr_t)op->flag.word + (e->captured ? e->program->guard->graph_offset : 0);
}

/* For the watchdogs. */
static zcta_status mark_begun(struct emission *e, uint32_t lane)
{
    zcta_status status = ZCTA_OK;

    if (!e->captured && !e->marked)
        status =
            add_mem_op(e, lane, ZC_CU_MEM_OP_WRITE_VALUE_32,
                       zc_cuda_mark(e->team, offsetof(struct zc_cuda_marks, begun)), e->ticket);
    e->begun = e->marked = true;
    return status;
}

/* For the watchdog, which has to say for whom the program waits. */
static void note_wait(const struct emission *e, const struct zc_op *op, uint32_t value)
{
    const struct zc_guard *guard = e->team->guard;
    struct zc_cuda_run *run = &e->team->runs[e->ticket % ZC_CUDA_RUNS];
    const uint32_t at = atomic_load_explicit(&run->wait_count, memory_order_relaxed);
    const size_t place = (uintptr_t)op->flag.word - (uintptr_t)guard->pad - guard->pad_head_bytes;
    const uint32_t slot = (uint32_t)(place / guard->slot_bytes);

    assert(at < guard->slot_count && slot < guard->slot_count && slot <= UINT16_MAX);
    atomic_store_explicit(
        &e->team->waits[(size_t)(e->ticket % ZC_CUDA_RUNS) * guard->slot_count + at], value | slot,
        memory_order_release);
    atomic_store_explicit(&run->wait_count, at + 1, memory_order_release);
}

static zcta_status put_back(struct emission *e, uint32_t lane, zc_cu_pointer word)
{
    if (e->team->device->wide_writes)
        return add_mem_op(e, lane, ZC_CU_MEM_OP_WRITE_VALUE_64, word, ZC_CUDA_PUT_BACK);
    return add_mem_op(e, lane, ZC_CU_MEM_OP_WRITE_VALUE_32, word, 0);
}

static zcta_status emit_wait(struct emission *e, uint32_t lane, const struct zc_op *op)
{
    const uint32_t count = e->captured ? op->flag.turn : zc_op_number(op);
    /* Needed only where no signal tells that the program has begun. */
    zcta_status status = e->begun ? ZCTA_OK : mark_begun(e, lane);

    if (!e->captured)
        note_wait(e, op, zc_cuda_epoch(count));
    if (status == ZCTA_OK)
        status =
            add_mem_op(e, lane, ZC_CU_MEM_OP_WAIT_VALUE_32, word_of(e, op), zc_cuda_epoch(count));
    if (e->captured && op->flag.last && status == ZCTA_OK)
        status = put_back(e, lane, word_of(e, op));
    return status;
}

/* Whose first signal tells that the program has begun; 0: a mark does. */
static void note_begin(struct emission *e, zc_cu_pointer word, uint32_t value)
{
    struct zc_cuda_run *run = &e->team->runs[e->ticket % ZC_CUDA_RUNS];

    atomic_store_explicit(&run->value, value, memory_order_release);
    atomic_store_explicit(&run->word, word, memory_order_release);
}

static zcta_status emit_signal(struct emission *e, uint32_t lane, const struct zc_op *op)
{
    const uint32_t count = e->captured ? op->flag.turn : zc_op_number(op);
    const struct zc_device *device = e->team->device;
    zcta_status status;

    if (!e->captured && !e->begun)
        note_begin(e, word_of(e, op), zc_cuda_epoch(count));
    e->begun = true;

    if (op->flag.by_write)
        return add_mem_op(e, lane, ZC_CU_MEM_OP_WRITE_VALUE_32, word_of(e, op),
                          zc_cuda_epoch(count));
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
static zcta_status emit_exchange(struct emission *e, uint32_t lane, const struct zc_op *op)
{
    zcta_status status = mark_begun(e, lane);

    if (!e->captured)
        atomic_store_explicit(&e->team->runs[e->ticket % ZC_CUDA_RUNS].calls, true,
                              memory_order_release);
    if (status == ZCTA_OK)
        status = flush(e, lane);
    return status == ZCTA_OK ? op->exchange.enqueue(&op->exchange, e->streams[lane]) : status;
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
    const zcta_status status = order(e, e->team->fork, 0, lane);

    if (status == ZCTA_OK)
        e->open |= 1u << lane;
    return status;
}

static zcta_status emit_join(struct emission *e, uint32_t lane)
{
    const zcta_status status = order(e, e->team->joins[lane], lane, 0);

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
    if (op->kind == ZC_OP_EXCHANGE)
        return emit_exchange(e, lane, op);
    status = flush(e, lane);
    if (status != ZCTA_OK)
        return status;
    if (op->kind == ZC_OP_FORK)
        return emit_fork(e, op->peer);
    if (op->kind == ZC_OP_JOIN)
        return emit_join(e, op->peer);
    return emit_copy(e, lane, op);
}

static zcta_status emit_side_lane(struct emission *e, uint32_t lane)
{
    zcta_status status = ZCTA_OK;

    for (uint32_t i = e->program->lane_begin[lane];
         i < e->program->lane_begin[lane + 1] && status == ZCTA_OK; i++)
        status = emit_op(e, lane, &e->program->ops[i]);
    return status == ZCTA_OK ? flush(e, lane) : status;
}

/* After a failure. What a lane has got already goes on, and nobody would wait for it. */
static void join_open_lanes(struct emission *e)
{
    for (uint32_t lane = 1; lane < e->program->lane_count; lane++)
        if ((e->open & 1u << lane) != 0)
            emit_join(e, lane);
}

/* Lane 0 in order; a forked lane is enqueued whole where it is forked. */
static zcta_status emit(struct emission *e)
{
    const uint32_t *begin = e->program->lane_begin;
    zcta_status status = ZCTA_OK;

    for (uint32_t i = begin[0]; i < begin[1] && status == ZCTA_OK; i++) {
        const struct zc_op *op = &e->program->ops[i];

        status = emit_op(e, 0, op);
        if (op->kind == ZC_OP_FORK && status == ZCTA_OK)
            status = emit_side_lane(e, op->peer);
    }
    join_open_lanes(e);
    return status;
}

zcta_status zc_cuda_look(struct zc_cuda_team *team, struct zc_cuda_marks *marks)
{
    struct zc_device *device = team->device;
    const struct zc_cuda_driver *driver = device->driver;
    uint32_t told = atomic_load_explicit(&team->guard->finished, memory_order_relaxed);
    zcta_status status;

    status = zc_cuda_status(
        driver, device->diag,
        driver->cuMemcpyDtoHAsync(marks, zc_cuda_mark(team, 0), sizeof *marks, device->stream),
        "cuMemcpyDtoHAsync", "looking how far collectives have got");
    if (status == ZCTA_OK)
        status = zc_cuda_status(driver, device->diag, driver->cuStreamSynchronize(device->stream),
                                "cuStreamSynchronize", "looking how far collectives have got");
    while (status == ZCTA_OK && (int32_t)(marks->finished - told) > 0 &&
           !atomic_compare_exchange_weak_explicit(&team->guard->finished, &told, marks->finished,
                                                  memory_order_release, memory_order_relaxed))
        continue;
    return status;
}

static bool failed(const struct zc_guard *guard)
{
    return atomic_load_explicit(&guard->failed, memory_order_acquire) != ZCTA_OK;
}

/* Waits until at most `left` programs are under way. What is stuck is let go by the watchdog; a GPU
 * that is broken itself says so when asked; what another library does not let go once the team has
 * failed is waited for as long as a wait may last. */
static zcta_status wait_until(struct zc_cuda_team *team, uint32_t left)
{
    const struct zc_guard *guard = team->guard;
    const struct timespec nap = {.tv_nsec = 20000};
    uint64_t deadline = 0;
    struct zc_cuda_marks marks;
    zcta_status status = ZCTA_OK;

    while (status == ZCTA_OK &&
           zc_guard_submitted(guard) -
                   atomic_load_explicit(&guard->finished, memory_order_acquire) >
               left) {
        if (deadline == 0 && failed(guard))
            deadline = zc_deadline_in(guard->timeout_ns);
        else if (deadline != 0 && zc_time_left_ns(deadline) == 0)
            return zc_fail(team->device->diag, ZCTA_ERR_TIMEOUT, "drain", 0,
                           "work that was enqueued before its team failed does not end; its stream "
                           "is lost, end the process");
        status = zc_cuda_look(team, &marks);
        if (status == ZCTA_OK && zc_guard_submitted(guard) - marks.finished > left)
            nanosleep(&nap, NULL);
    }
    return status;
}

/* Orders this program behind the team's last one if that may be on another stream. */
static zcta_status begin_run(struct emission *e)
{
    struct zc_cuda_team *team = e->team;
    const uint32_t before = zc_guard_submitted(team->guard);
    unsigned long long id = 0;
    /* With this one ZC_CUDA_RUNS are under way, and each has a slot of its own in runs[]. */
    zcta_status status = wait_until(team, ZC_CUDA_RUNS - 1);

    if (status == ZCTA_OK)
        status = driver_status(e, team->device->driver->cuStreamGetId(e->streams[0], &id),
                               "cuStreamGetId");
    if (status == ZCTA_OK && id != team->last_stream)
        status = add_mem_op(e, 0, ZC_CU_MEM_OP_WAIT_VALUE_32,
                            zc_cuda_mark(team, offsetof(struct zc_cuda_marks, finished)), before);
    team->last_stream = id;
    e->ticket = before + 1;
    note_begin(e, 0, 0);
    atomic_store_explicit(&team->runs[e->ticket % ZC_CUDA_RUNS].wait_count, 0,
                          memory_order_release);
    atomic_store_explicit(&team->runs[e->ticket % ZC_CUDA_RUNS].calls, false, memory_order_release);
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

    if (status != ZCTA_OK)
        mark_finished(e);
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

static zcta_status run_captured(struct emission *e)
{
    zcta_status status;

    if (e->program->eager_only)
        return zc_fail(e->team->device->diag, ZCTA_ERR_UNSUPPORTED, "zcta_release", 0,
                       "the stream is being captured into a graph, and neither a release nor the "
                       "run of a released plan can be: run the plan once outside, or do not "
                       "release it");
    if (has_telling_words(e->team))
        atomic_store_explicit(&e->team->has_graphs, true, memory_order_relaxed);
    status = emit(e);
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
    e.begun = e.marked = false;
    e.open = 0;
    e.streams[0] = stream;
    for (uint32_t lane = 1; lane < program->lane_count; lane++)
        e.streams[lane] = team->lanes[lane];
    status = driver_status(&e, team->device->driver->cuStreamIsCapturing(stream, &capturing),
                           "cuStreamIsCapturing");
    if (status != ZCTA_OK)
        return status;
    e.captured = capturing != ZC_CU_STREAM_CAPTURE_NONE;
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

/* Where this thread cannot ask the GPU, the watchdog may still, for as long as a wait may take. */
static void await_watchdog(const struct zc_guard *guard)
{
    const struct timespec nap = {.tv_nsec = 1000000};
    const uint64_t deadline = zc_deadline_in(guard->timeout_ns);

    while (atomic_load_explicit(&guard->finished, memory_order_acquire) !=
               zc_guard_submitted(guard) &&
           zc_time_left_ns(deadline) > 0)
        nanosleep(&nap, NULL);
}

void zc_cuda_drain(struct zc_device *device, struct zc_guard *guard)
{
    zcta_status status;

    if (guard->device_data == NULL)
        return;
    status = zc_cuda_enter(device);
    if (status == ZCTA_OK) {
        status = wait_until(guard->device_data, 0);
        zc_cuda_leave(device);
    }
    if (status != ZCTA_OK)
        await_watchdog(guard);
}
