/* Programs on streams: lane 0 is the caller's stream, further lanes are streams of the team's.
 *
 * Who waits for what: a stream wait ends when its word has counted far enough; the word is written
 * by the peer's signal, a 4-byte copy that stands behind the peer's data in the same stream. Where
 * the word lies on this very GPU a copy would need an SM, so there the signal is a stream write. */
#include <errno.h>
#include <stdlib.h>

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
    for (uint32_t i = 0; i < ZC_CUDA_RUNS; i++) {
        if (team->runs[i].begin != NULL)
            driver->cuEventDestroy(team->runs[i].begin);
        if (team->runs[i].end != NULL)
            driver->cuEventDestroy(team->runs[i].end);
    }
    if (team->fork != NULL)
        driver->cuEventDestroy(team->fork);
}

static void free_team(struct zc_cuda_team *team)
{
    if (zc_cuda_enter(team->device) == ZCTA_OK) {
        destroy_handles(team);
        zc_cuda_leave(team->device);
    }
    free(team->words);
    free(team);
}

static zcta_status create_event(struct zc_device *device, zc_cu_event *event)
{
    return zc_cuda_status(device->driver, device->diag,
                          device->driver->cuEventCreate(event, ZC_CU_EVENT_DISABLE_TIMING),
                          "cuEventCreate", "preparing a team");
}

static zcta_status create_events(struct zc_cuda_team *team)
{
    zcta_status status = create_event(team->device, &team->fork);

    for (uint32_t i = 0; i < ZC_CUDA_RUNS && status == ZCTA_OK; i++) {
        status = create_event(team->device, &team->runs[i].begin);
        if (status == ZCTA_OK)
            status = create_event(team->device, &team->runs[i].end);
    }
    return status;
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
    if (made->words == NULL) {
        status = zc_fail(device->diag, ZCTA_ERR_NO_MEMORY, "calloc", ENOMEM, "out of memory");
        goto fail;
    }
    status = zc_cuda_enter(device);
    if (status != ZCTA_OK)
        goto fail;
    status = create_events(made);
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

static zcta_status bind_signal(struct zc_device *device, struct zc_op *op)
{
    int ordinal = -1;
    const zcta_status status = zc_cuda_status(
        device->driver, device->diag,
        device->driver->cuPointerGetAttribute(&ordinal, ZC_CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL,
                                              (uintptr_t)op->flag.word),
        "cuPointerGetAttribute", "finding a signal's GPU");

    op->flag.local = ordinal == device->ordinal;
    return status;
}

zcta_status zc_cuda_bind(struct zc_device *device, struct zc_program *program)
{
    struct zc_cuda_team *team = program->guard->device_data;
    zcta_status status = zc_cuda_enter(device);

    if (status != ZCTA_OK)
        return status;
    for (uint32_t lane = 1; lane < program->lane_count && status == ZCTA_OK; lane++)
        status = create_lane(team, lane);
    for (uint32_t i = 0; i < program->lane_begin[program->lane_count] && status == ZCTA_OK; i++)
        if (program->ops[i].kind == ZC_OP_SIGNAL)
            status = bind_signal(device, &program->ops[i]);
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
                              uint32_t value)
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

static zcta_status emit_wait(struct emission *e, uint32_t lane, const struct zc_op *op)
{
    const uint32_t count = e->captured ? 1 : zc_count_next(op->flag.count);
    zcta_status status =
        add_mem_op(e, lane, ZC_CU_MEM_OP_WAIT_VALUE_32, word_of(e, op), zc_cuda_epoch(count));

    if (e->captured && status == ZCTA_OK)
        status = add_mem_op(e, lane, ZC_CU_MEM_OP_WRITE_VALUE_32, word_of(e, op), 0);
    return status;
}

static zcta_status emit_signal(struct emission *e, uint32_t lane, const struct zc_op *op)
{
    const uint32_t count = e->captured ? 1 : zc_count_next(op->flag.count);
    const struct zc_device *device = e->team->device;
    zcta_status status;

    if (op->flag.local)
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

/* Ops of a lane other than 0: such lanes fork nothing. */
static zcta_status emit_op(struct emission *e, uint32_t lane, const struct zc_op *op)
{
    zcta_status status;

    if (op->kind == ZC_OP_WAIT || op->kind == ZC_OP_SIGNAL)
        return emit_flags(e, lane, op);
    status = flush(e, lane);
    if (status != ZCTA_OK)
        return status;
    if (op->kind == ZC_OP_FORK)
        return order(e, e->team->fork, lane, op->peer);
    if (op->kind == ZC_OP_JOIN)
        return order(e, e->team->joins[op->peer], op->peer, lane);
    return driver_status(e,
                         e->team->device->driver->cuMemcpyAsync((uintptr_t)op->copy.to,
                                                                (uintptr_t)op->copy.from,
                                                                op->copy.bytes, e->streams[lane]),
                         "cuMemcpyAsync");
}

static zcta_status emit_side_lane(struct emission *e, uint32_t lane)
{
    zcta_status status = ZCTA_OK;

    for (uint32_t i = e->program->lane_begin[lane];
         i < e->program->lane_begin[lane + 1] && status == ZCTA_OK; i++)
        status = emit_op(e, lane, &e->program->ops[i]);
    return status == ZCTA_OK ? flush(e, lane) : status;
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
    return status == ZCTA_OK ? flush(e, 0) : status;
}

/* Orders this program behind the team's last one, and marks where it begins. */
static zcta_status begin_run(struct emission *e)
{
    struct zc_cuda_team *team = e->team;
    struct zc_guard *guard = team->guard;
    const struct zc_cuda_driver *driver = team->device->driver;
    const uint32_t ticket = zc_guard_submitted(guard) + 1;
    const struct zc_cuda_run *last = &team->runs[(ticket - 1) % ZC_CUDA_RUNS];
    const struct zc_cuda_run *run = &team->runs[ticket % ZC_CUDA_RUNS];
    zcta_status status = ZCTA_OK;

    if (run->used) {
        status = driver_status(e, driver->cuEventSynchronize(run->end), "cuEventSynchronize");
        zc_cuda_finished(guard, ticket - ZC_CUDA_RUNS);
    }
    if (status == ZCTA_OK && last->used && team->last_stream != e->streams[0])
        status = driver_status(e, driver->cuStreamWaitEvent(e->streams[0], last->end, 0),
                               "cuStreamWaitEvent");
    if (status == ZCTA_OK)
        status =
            driver_status(e, driver->cuEventRecord(run->begin, e->streams[0]), "cuEventRecord");
    return status;
}

static zcta_status end_run(struct emission *e)
{
    struct zc_cuda_team *team = e->team;
    const uint32_t ticket = zc_guard_submitted(team->guard) + 1;
    struct zc_cuda_run *run = &team->runs[ticket % ZC_CUDA_RUNS];
    const zcta_status status = driver_status(
        e, team->device->driver->cuEventRecord(run->end, e->streams[0]), "cuEventRecord");

    if (status == ZCTA_OK) {
        run->used = true;
        team->last_stream = e->streams[0];
        atomic_store_explicit(&team->guard->submitted, ticket, memory_order_release);
    }
    return status;
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
    e.streams[0] = stream;
    for (uint32_t lane = 1; lane < program->lane_count; lane++)
        e.streams[lane] = team->lanes[lane];
    status = driver_status(&e, team->device->driver->cuStreamIsCapturing(stream, &capturing),
                           "cuStreamIsCapturing");
    e.captured = capturing != ZC_CU_STREAM_CAPTURE_NONE;
    if (status == ZCTA_OK && !e.captured)
        status = begin_run(&e);
    if (status == ZCTA_OK)
        status = emit(&e);
    if (status == ZCTA_OK && !e.captured)
        status = end_run(&e);
    return status;
}

zcta_status zc_cuda_submit(struct zc_device *device, const struct zc_program *program,
                           zcta_stream stream)
{
    struct zc_cuda_team *team = program->guard->device_data;
    zcta_status status = zc_cuda_enter(device);

    if (status != ZCTA_OK)
        return status;
    status = submit(team, program, (zc_cu_stream)stream);
    zc_cuda_leave(device);
    return status;
}

void zc_cuda_wake(struct zc_device *device, struct zc_guard *guard)
{
    (void)guard;
    pthread_mutex_lock(&device->lock);
    pthread_cond_broadcast(&device->changed);
    pthread_mutex_unlock(&device->lock);
}

void zc_cuda_drain(struct zc_device *device, struct zc_guard *guard)
{
    struct zc_cuda_team *team = guard->device_data;

    const uint32_t ticket = zc_guard_submitted(guard);

    if (team == NULL || !team->runs[ticket % ZC_CUDA_RUNS].used || zc_cuda_enter(device) != ZCTA_OK)
        return;
    device->driver->cuEventSynchronize(team->runs[ticket % ZC_CUDA_RUNS].end);
    zc_cuda_finished(guard, ticket);
    zc_cuda_leave(device);
}
