/* The ce engine: plans, run by the context's device. Holds a team's pads and scratch windows and
 * its counters of signals. */
#include <errno.h>
#include <stdlib.h>

#include "engine/engine.h"
#include "engine/program.h"

struct zc_engine {
    struct zc_group group;
    struct zc_guard *guard;
    struct zc_device_caps caps;
    /* Each part: a pad, the two halves of a scratch window, and the bounce slot of the rank before.
     * Where ranks do not reach each other: a pad and the host memory. */
    struct zc_symmetric *memory;
    struct zc_symmetric *host; /* the host memory of a team whose ranks do; NULL: it has none */
    void **pads, **scratch, **room; /* every rank's, into these; NULL: of one on another node */
    _Atomic uint32_t *sent, *seen;
    bool attached;     /* the guard, to the device */
    uint32_t half;     /* of the scratch window, for the next call that uses it */
    uint32_t releases; /* so far; the same on all ranks */
};

/* Of the 2^15 numbers that a device may tell apart as older and newer, half are for peers that are
 * ahead of this rank. */
enum { RELEASES_MOST = 1 << 14 };

struct zc_prepared {
    struct zc_program *programs[2]; /* one for each half of the scratch window, or the same twice */
    bool alternates;
    struct zc_program *captured; /* into a graph, where that takes another plan; else NULL */
    bool was_captured;           /* the last time */
    /* Where ready can be said early: what says it, and what runs after that. */
    struct zc_program *early_ready, *released_run;
    _Atomic uint32_t *released; /* by rank: see zc_binding */
    bool is_released;
    uint32_t release; /* the engine's count then */
};

static void ce_close(struct zc_engine *engine)
{
    if (engine == NULL)
        return;
    if (engine->attached)
        engine->group.ops->detach(engine->group.device, engine->guard);
    if (engine->guard->kept)
        return;
    zc_symmetric_release(engine->memory);
    zc_symmetric_release(engine->host);
    free(engine->pads);
    free(engine->scratch);
    free(engine->room);
    free(engine->sent);
    free(engine->seen);
    free(engine);
}

static size_t whole_lines(size_t bytes)
{
    return (bytes + 127) / 128 * 128;
}

static zcta_status allocate(struct zc_engine *engine)
{
    const size_t count = engine->group.count;

    engine->pads = calloc(count, sizeof *engine->pads);
    engine->scratch = calloc(count, sizeof *engine->scratch);
    engine->room = calloc(count, sizeof *engine->room);
    engine->sent = calloc(count * ZC_CHANNELS, sizeof *engine->sent);
    engine->seen = calloc(count * ZC_CHANNELS, sizeof *engine->seen);
    if (engine->pads == NULL || engine->scratch == NULL || engine->room == NULL ||
        engine->sent == NULL || engine->seen == NULL)
        return zc_fail(engine->group.diag, ZCTA_ERR_NO_MEMORY, "zcta_team_get", ENOMEM,
                       "out of memory");
    return ZCTA_OK;
}

/* Tells the guard of this rank's pad, and the device of the guard. */
static zcta_status attach(struct zc_engine *engine, size_t pad_bytes)
{
    struct zc_guard *guard = engine->guard;
    zcta_status status;

    guard->pad = engine->pads[engine->group.self];
    guard->pads = engine->pads;
    guard->self = engine->group.self;
    guard->pad_bytes = pad_bytes;
    guard->pad_head_bytes = engine->caps.pad_head_bytes;
    guard->slot_bytes = engine->caps.slot_bytes;
    guard->slot_count = engine->group.count * ZC_CHANNELS;
    guard->rank_count = engine->group.count;
    guard->graph_offset = engine->caps.graph_slots ? guard->slot_bytes * guard->slot_count : 0;
    guard->seen = engine->seen;
    guard->pads_at_host = engine->group.apart;
    status = engine->group.ops->attach(engine->group.device, guard);
    engine->attached = status == ZCTA_OK;
    return status;
}

/* Ranks that do not reach each other have the host's memory in common and nothing else: signals go
 * through it, too. */
struct zc_host_room zc_host_room_of(const struct zc_device_caps *caps, bool apart, uint32_t ranks,
                                    bool several_hosts)
{
    struct zc_host_room room = {0};

    if (several_hosts || (!apart && (caps->host_ranks == 0 || ranks < caps->host_ranks)))
        return room;
    room.half = caps->host_bytes;
    room.ring = apart ? caps->ring_bytes : 0;
    return room;
}

/* What the team has in common, and where each rank's parts of it begin. */
static zcta_status make_memory(struct zc_engine *engine, size_t pad_bytes)
{
    static const char call[] = "zcta_team_get", what[] = "did not join the team";
    const struct zc_group *group = &engine->group;
    const struct zc_device_caps *caps = &engine->caps;
    const struct zc_host_room room =
        zc_host_room_of(caps, group->apart, group->count, zc_group_has_hosts(group));
    const size_t room_bytes = 2 * room.half + room.ring;
    const size_t scratch_bytes = 2 * caps->scratch_bytes + caps->bounce_bytes;
    zcta_status status;

    status = zc_symmetric_make(group, group->apart ? ZC_ON_HOST : ZC_ON_DEVICE, NULL,
                               pad_bytes + (group->apart ? room_bytes : scratch_bytes), call, what,
                               &engine->memory);
    if (status == ZCTA_OK && !group->apart && room_bytes > 0)
        status = zc_symmetric_make(group, ZC_ON_HOST, NULL, room_bytes, call, what, &engine->host);
    for (uint32_t i = 0; i < group->count && status == ZCTA_OK; i++) {
        char *base = engine->memory->parts[i] == NULL ? NULL : engine->memory->parts[i]->base;

        if (base == NULL)
            continue;
        engine->pads[i] = base;
        if (group->apart)
            engine->room[i] = base + pad_bytes;
        else
            engine->scratch[i] = base + pad_bytes;
        if (engine->host != NULL)
            engine->room[i] = engine->host->parts[i]->base;
    }
    return status;
}

static zcta_status ce_open(const struct zc_group *group, struct zc_guard *guard,
                           struct zc_engine **engine)
{
    struct zc_engine *made = calloc(1, sizeof *made);
    size_t pad_bytes;
    zcta_status status;

    if (made == NULL) {
        status = zc_fail(group->diag, ZCTA_ERR_NO_MEMORY, "zcta_team_get", ENOMEM, "out of memory");
        return zc_group_give_up(group, status);
    }
    made->group = *group;
    made->guard = guard;
    group->ops->describe(group->device, &made->caps);
    pad_bytes = whole_lines(zc_pad_bytes(group->count * (made->caps.graph_slots ? 2 : 1),
                                         made->caps.slot_bytes, made->caps.pad_head_bytes));
    status = allocate(made);
    if (status != ZCTA_OK) {
        status = zc_group_give_up(group, status);
        goto fail;
    }
    status = make_memory(made, pad_bytes);
    if (status != ZCTA_OK)
        goto fail;
    status = attach(made, pad_bytes);
    if (status != ZCTA_OK) {
        status = zc_group_give_up(group, status);
        goto fail;
    }
    *engine = made;
    return ZCTA_OK;
fail:
    ce_close(made);
    return status;
}

static void ce_release(struct zc_engine *engine, struct zc_prepared *prepared)
{
    (void)engine;
    if (prepared == NULL)
        return;
    if (prepared->programs[1] != prepared->programs[0])
        zc_program_destroy(prepared->programs[1]);
    zc_program_destroy(prepared->programs[0]);
    zc_program_destroy(prepared->captured);
    zc_program_destroy(prepared->early_ready);
    zc_program_destroy(prepared->released_run);
    free(prepared->released);
    free(prepared);
}

static zcta_status make_program(struct zc_engine *engine, const struct zc_call *call,
                                const struct zc_request *request, _Atomic uint32_t *released,
                                struct zc_program **program)
{
    const struct zc_binding binding = {.send = call->send,
                                       .recv = call->recv,
                                       .scratch = engine->scratch,
                                       .host = engine->room,
                                       .pads = engine->pads,
                                       .sent = engine->sent,
                                       .seen = engine->seen,
                                       .released = released,
                                       .enqueue = call->enqueue,
                                       .enqueue_data = call->enqueue_data,
                                       .numbers = call->numbers,
                                       .slot_bytes = engine->caps.slot_bytes,
                                       .pad_head_bytes = engine->caps.pad_head_bytes,
                                       .stream_bytes = engine->caps.stream_bytes};
    struct zc_plan *plan = NULL;
    zcta_status status;

    status = zc_plan_make(request, &plan);
    if (status == ZCTA_OK)
        status = zc_program_make(plan, &binding, engine->guard, program);
    if (status == ZCTA_OK) {
        (*program)->eager_only = request->released || zc_has(request->algorithm, ZC_EAGER_ONLY);
        status = engine->group.ops->bind(engine->group.device, *program);
    } else {
        zc_fail(engine->group.diag, status, request->layout->collective->name, 0,
                "cannot prepare %s: %s", request->algorithm->name,
                status == ZCTA_ERR_INVALID ? zc_request_defect(request) : zcta_status_text(status));
    }
    zc_plan_destroy(plan);
    return status;
}

static zcta_status make_halves(struct zc_engine *engine, const struct zc_call *call,
                               struct zc_prepared *prepared)
{
    struct zc_request request = call->request;
    zcta_status status;

    prepared->alternates = zc_has(request.algorithm, ZC_ALTERNATES);
    request.half = 0;
    status = make_program(engine, call, &request, NULL, &prepared->programs[0]);
    prepared->programs[1] = prepared->programs[0];
    request.half = 1;
    if (status == ZCTA_OK && prepared->alternates)
        status = make_program(engine, call, &request, NULL, &prepared->programs[1]);
    return status;
}

/* Where a graph takes another plan than a call outside. */
static zcta_status make_captured(struct zc_engine *engine, const struct zc_call *call,
                                 struct zc_prepared *prepared)
{
    const struct zc_request request = zc_request_captured(&call->request);

    if (!engine->caps.graph_slots ||
        (request.closed == call->request.closed && request.algorithm == call->request.algorithm &&
         request.lanes == call->request.lanes))
        return ZCTA_OK;
    return make_program(engine, call, &request, NULL, &prepared->captured);
}

static zcta_status make_early(struct zc_engine *engine, const struct zc_call *call,
                              struct zc_prepared *prepared)
{
    const struct zc_request early = zc_request_early_ready(&call->request);
    const struct zc_request run = zc_request_released(&call->request);
    zcta_status status;

    prepared->released = calloc(engine->group.count, sizeof *prepared->released);
    if (prepared->released == NULL)
        return zc_fail(engine->group.diag, ZCTA_ERR_NO_MEMORY, "prepare", ENOMEM, "out of memory");
    status = make_program(engine, call, &early, prepared->released, &prepared->early_ready);
    if (status == ZCTA_OK)
        status = make_program(engine, call, &run, prepared->released, &prepared->released_run);
    return status;
}

static zcta_status ce_prepare(struct zc_engine *engine, const struct zc_call *call,
                              struct zc_prepared **prepared)
{
    struct zc_prepared *made = calloc(1, sizeof *made);
    zcta_status status;

    if (made == NULL)
        return zc_fail(engine->group.diag, ZCTA_ERR_NO_MEMORY, "prepare", ENOMEM, "out of memory");
    status = make_halves(engine, call, made);
    if (status == ZCTA_OK)
        status = make_captured(engine, call, made);
    if (status == ZCTA_OK && call->releasable && zc_has(call->request.algorithm, ZC_SAYS_READY))
        status = make_early(engine, call, made);
    if (status != ZCTA_OK)
        goto fail;
    *prepared = made;
    return ZCTA_OK;
fail:
    ce_release(engine, made);
    return status;
}

/* A release that lies too far back for its number to be compared is as good as none: the run says
 * ready and awaits it. All ranks release and run in one order, so they count alike. */
static bool counts(const struct zc_engine *engine, const struct zc_prepared *prepared)
{
    return prepared->is_released && prepared->released_run != NULL &&
           engine->releases - prepared->release < RELEASES_MOST;
}

static zcta_status ce_run(struct zc_engine *engine, struct zc_prepared *prepared,
                          zcta_stream stream)
{
    const struct zc_device_ops *ops = engine->group.ops;
    const struct zc_program *program =
        counts(engine, prepared) ? prepared->released_run : prepared->programs[engine->half];
    zcta_status status = ZCTA_OK;
    bool capturing = false;

    if (prepared->captured != NULL)
        status = ops->is_capturing(engine->group.device, stream, &capturing);
    if (status == ZCTA_OK)
        status =
            ops->submit(engine->group.device, capturing ? prepared->captured : program, stream);
    prepared->was_captured = capturing;
    /* What was captured goes another way. */
    if (status == ZCTA_OK && prepared->alternates && !capturing)
        engine->half ^= 1;
    if (status == ZCTA_OK)
        prepared->is_released = false;
    return status;
}

static zcta_status ce_say_ready(struct zc_engine *engine, struct zc_prepared *prepared,
                                zcta_stream stream, bool *said)
{
    zcta_status status = ZCTA_OK;

    *said = prepared->early_ready != NULL;
    if (prepared->is_released)
        return zc_fail(engine->group.diag, ZCTA_ERR_INVALID, "zcta_release", 0,
                       "the plan has been released before and has not run since; release it once "
                       "after each run");
    if (*said) {
        status = engine->group.ops->submit(engine->group.device, prepared->early_ready, stream);
        prepared->release = ++engine->releases;
    }
    prepared->is_released = status == ZCTA_OK;
    return status;
}

static enum zc_evidence ce_evidence(const struct zc_engine *engine,
                                    const struct zc_prepared *prepared)
{
    (void)engine;
    return prepared->was_captured ? ZC_EVIDENCE_CAPTURED : ZC_EVIDENCE_SURE;
}

/* Plans hold addresses, nothing of a window. */
static void ce_deregister(struct zc_engine *engine, const void *base)
{
    (void)engine, (void)base;
}

/* The device's watchdog lets every wait of a plan go. */
static void ce_abort(struct zc_engine *engine)
{
    (void)engine;
}

const struct zc_engine_ops zc_engine_ce = {
    .name = "ce",
    .open = ce_open,
    .close = ce_close,
    .prepare = ce_prepare,
    .run = ce_run,
    .say_ready = ce_say_ready,
    .evidence = ce_evidence,
    .release = ce_release,
    .deregister = ce_deregister,
    .abort = ce_abort,
};
