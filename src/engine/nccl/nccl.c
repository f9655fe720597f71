/* The nccl engine: collectives by NCCL, in the order and under the watch of the team's programs.
 *
 * Besides one between nodes a team has up to three communicators, each made on its first use: one
 * with CTA policy ZERO for calls that shall take no SM, and two with policy DEFAULT for the others,
 * of which one never gets to know a window. Nothing is inherited from anywhere.
 *
 * NCCL picks its way from facts that it does not compare between ranks, one of them whether `send`
 * lies in a window, which our callers may do as they like, each rank for itself. So what its copy
 * engines can do NCCL only sees in place: where the caller's call is not, the own share is copied
 * into the output first. What remains is the output's window, which all ranks have in common. All
 * other collectives run on a communicator without windows: NCCL has been seen to hang in
 * rooted ones whose `send` lay in a window on the root only.
 *
 * In symmetric windows NCCL waits in ways that its own abort does not end: its copy engines in
 * stream memory operations, its symmetric kernels in loops that do not look at the abort flag. A
 * rank that dies there leaves the others with a stream, and a GPU, that nobody lets go. So NCCL
 * gets to know a window only where that was asked for: by a call that takes no SM, or by
 * ZEROCTA_NCCL_SYMMETRIC=1. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/nccl/nccl.h"
#include "engine/nccl/nccl_comm.h"
#include "engine/nccl/nccl_log.h"
#include "engine/program.h"

enum { KERNELS, NO_SM, NODES, PLAIN, COMMS };

struct zc_engine {
    struct zc_group group;
    struct zc_guard *guard;
    struct zc_nccl nccl; /* loaded as long as the engine is there */
    struct zc_nccl_comm *_Atomic comms[COMMS];
    struct zc_group rail; /* those of the same local rank on all nodes; once joined */
    uint32_t rail_rounds;
    uint32_t *rail_ranks;
    bool looked;               /* for evidence of the communicator without SMs */
    enum zc_evidence evidence; /* what was found; SURE until then, and where none is needed */
    int told_unproved;         /* 1: as information; 2: as a warning */
    _Atomic bool heedless;     /* calls have run that an abort does not end */
};

struct zc_prepared {
    struct zc_engine *engine;
    const struct zc_layout *layout;
    const void *send;
    void *recv;
    bool fills; /* the own share is copied to its place first */
    struct zc_region window;
    bool no_sm, strict, symmetric;
    bool ready; /* communicator and window are there */
    /* The call in the caller's stream, and in a lane of its own beside it. */
    struct zc_program *program, *aside;
};

/* ---- Opening ---- */

static zcta_status nccl_open(const struct zc_group *group, struct zc_guard *guard,
                             struct zc_engine **engine)
{
    struct zc_engine *made = calloc(1, sizeof *made);
    zcta_status status;

    if (made == NULL)
        return zc_fail(group->diag, ZCTA_ERR_NO_MEMORY, "NCCL", ENOMEM, "out of memory");
    made->group = *group;
    made->guard = guard;
    status = zc_nccl_load(group->diag, &made->nccl);
    if (status != ZCTA_OK) {
        free(made);
        return status;
    }
    *engine = made;
    return ZCTA_OK;
}

static void nccl_close(struct zc_engine *engine)
{
    if (engine == NULL)
        return;
    for (int i = 0; i < COMMS; i++)
        zc_nccl_comm_close(engine->comms[i]);
    zc_nccl_unload(&engine->nccl);
    free(engine->rail_ranks);
    free(engine);
}

static void nccl_abort(struct zc_engine *engine)
{
    for (int i = 0; i < COMMS; i++) {
        struct zc_nccl_comm *comm = atomic_load_explicit(&engine->comms[i], memory_order_seq_cst);

        if (comm != NULL)
            zc_nccl_comm_abort(comm);
    }
}

static void nccl_deregister(struct zc_engine *engine, const void *base)
{
    for (int i = 0; i < COMMS; i++) {
        struct zc_nccl_comm *comm = atomic_load_explicit(&engine->comms[i], memory_order_seq_cst);

        if (comm != NULL)
            zc_nccl_comm_deregister(comm, base);
    }
}

/* ---- Preparing ---- */

static struct zc_flow own_flow(const struct zc_prepared *prepared)
{
    const uint32_t self = prepared->engine->group.self;

    return zc_flow_between(prepared->layout, self, self);
}

/* Which communicator performs it. */
static int comm_of(const struct zc_prepared *prepared)
{
    if (prepared->no_sm)
        return NO_SM;
    return prepared->symmetric && !prepared->layout->collective->nccl_copies ? PLAIN : KERNELS;
}

/* What the device calls between a program's marks. */
static zcta_status enqueue(const struct zc_op_network *network, zcta_stream stream)
{
    const struct zc_prepared *prepared = network->data;
    const struct zc_flow own = own_flow(prepared);

    return zc_nccl_comm_run(prepared->engine->comms[comm_of(prepared)], prepared->layout,
                            prepared->layout->collective->nccl_copies
                                ? (const char *)prepared->recv + own.to_at
                                : prepared->send,
                            prepared->recv, stream);
}

/* The own share to its place, and the call, on lane `lane`. */
static void fill_program(const struct zc_prepared *prepared, uint32_t lane,
                         struct zc_program *program)
{
    const struct zc_layout *layout = prepared->layout;
    const struct zc_flow own = own_flow(prepared);
    uint32_t count = 0;

    if (prepared->fills)
        program->ops[count++] =
            (struct zc_op){.kind = ZC_OP_COPY,
                           .copy = {.to = (char *)prepared->recv + own.to_at,
                                    .from = (const char *)prepared->send + own.from_at,
                                    .bytes = own.bytes,
                                    .rows = 1}};
    if (lane > 0) {
        program->ops[count++] = (struct zc_op){.kind = ZC_OP_FORK, .peer = lane};
        program->order[count] = (uint8_t)lane; /* between the two */
        program->ops[count++] = (struct zc_op){.kind = ZC_OP_JOIN, .peer = lane};
        program->lane_begin[lane] = count;
    }
    program->ops[count++] = (struct zc_op){
        .kind = ZC_OP_NETWORK,
        .network = {.enqueue = enqueue,
                    .data = (void *)prepared,
                    .bytes = layout->output > layout->input ? layout->output : layout->input}};
    program->lane_begin[lane + 1] = count;
}

static zcta_status make_program(struct zc_engine *engine, const struct zc_prepared *prepared,
                                uint32_t lane, struct zc_program **program)
{
    enum { OPS_MOST = 4 };
    struct zc_program *made = calloc(1, sizeof *made);
    zcta_status status = ZCTA_ERR_NO_MEMORY;

    if (made == NULL)
        return status;
    made->guard = engine->guard;
    made->call = prepared->layout->collective->name;
    made->lane_count = lane + 1;
    made->lane_begin = calloc(made->lane_count + 1, sizeof *made->lane_begin);
    made->ops = calloc(OPS_MOST, sizeof *made->ops);
    made->order = calloc(OPS_MOST, sizeof *made->order);
    if (made->lane_begin == NULL || made->ops == NULL || made->order == NULL)
        goto fail;
    fill_program(prepared, lane, made);
    status = engine->group.ops->bind(engine->group.device, made);
    if (status != ZCTA_OK)
        goto fail;
    *program = made;
    return ZCTA_OK;
fail:
    zc_program_destroy(made);
    return status;
}

static void nccl_release(struct zc_engine *engine, struct zc_prepared *prepared)
{
    (void)engine;
    if (prepared == NULL)
        return;
    zc_program_destroy(prepared->program);
    zc_program_destroy(prepared->aside);
    free(prepared);
}

static zcta_status nccl_prepare(struct zc_engine *engine, const struct zc_call *call,
                                struct zc_prepared **prepared)
{
    struct zc_prepared *made = calloc(1, sizeof *made);
    zcta_status status;

    if (made == NULL)
        return zc_fail(engine->group.diag, ZCTA_ERR_NO_MEMORY, "prepare", ENOMEM, "out of memory");
    made->engine = engine;
    made->send = call->send;
    made->recv = call->recv[engine->group.self];
    made->layout = call->request.layout;
    made->fills = made->layout->collective->nccl_copies && !call->request.in_place;
    made->window = call->window;
    made->no_sm = call->no_sm;
    made->strict = call->strict;
    made->symmetric = call->symmetric;
    status = make_program(engine, made, 0, &made->program);
    if (status == ZCTA_OK && made->no_sm && engine->nccl.version < ZC_NCCL_HAS_NULL_STREAM)
        status = make_program(engine, made, 1, &made->aside);
    if (status != ZCTA_OK) {
        zc_fail(engine->group.diag, status, "prepare", 0, "cannot prepare a call of NCCL: %s",
                zcta_status_text(status));
        nccl_release(engine, made);
        return status;
    }
    *prepared = made;
    return ZCTA_OK;
}

/* ---- The first run ---- */

static zcta_status refuse_capture(const struct zc_engine *engine, zcta_stream stream)
{
    bool capturing = false;
    const zcta_status status =
        engine->group.ops->is_capturing(engine->group.device, stream, &capturing);

    if (status == ZCTA_OK && capturing)
        return zc_fail(engine->group.diag, ZCTA_ERR_UNSUPPORTED, "NCCL", 0,
                       "the stream is being captured, and the first run of a call by NCCL sets "
                       "things up, which cannot be; run it once outside");
    return status;
}

/* A team that fails aborts the communicators that it finds. One that comes while it fails is
 * aborted here: either its making saw the failure, or the abort sees the communicator. Both sides
 * are sequentially consistent; the partner is zc_team_fail(). */
static void keep_comm(struct zc_engine *engine, int which, struct zc_nccl_comm *comm)
{
    atomic_store_explicit(&engine->comms[which], comm, memory_order_seq_cst);
    if (atomic_load_explicit(&engine->guard->failed, memory_order_seq_cst) != ZCTA_OK)
        zc_nccl_comm_abort(comm);
}

/* NCCL finds a peer's part of a window by the own part's place in its allocation, so it gets none
 * whose parts lie in different places, and none off a page, which it refuses. Nor does it where it
 * is known to take kernels although it was asked for its copy engines. */
static bool wants_window(const struct zc_engine *engine, const struct zc_prepared *prepared)
{
    const bool copies = prepared->no_sm && engine->evidence != ZC_EVIDENCE_AGAINST;

    return engine->nccl.version >= ZC_NCCL_HAS_WINDOWS && prepared->window.same_layout &&
           prepared->layout->collective->nccl_copies && (copies || prepared->symmetric);
}

/* Where NCCL's own settings rule ZERO out, all ranks hear so: who insists is refused, then and
 * later; for the others it is kernels. */
static zcta_status open_comm(struct zc_engine *engine, const struct zc_prepared *prepared,
                             struct zc_nccl_comm **comm)
{
    zcta_status status =
        zc_nccl_comm_open(&engine->group, engine->guard,
                          prepared->no_sm ? ZC_NCCL_POLICY_ZERO : ZC_NCCL_POLICY_DEFAULT, comm);

    if (status != ZCTA_ERR_POLICY)
        return status;
    engine->evidence = ZC_EVIDENCE_AGAINST;
    engine->looked = true;
    return prepared->strict
               ? status
               : zc_nccl_comm_open(&engine->group, engine->guard, ZC_NCCL_POLICY_DEFAULT, comm);
}

/* A rank that captures what the others do not has nothing to make up for as long as nothing has to
 * be made: all have made the same. */
static zcta_status make_ready(struct zc_engine *engine, struct zc_prepared *prepared,
                              zcta_stream stream)
{
    const int which = comm_of(prepared);
    struct zc_nccl_comm *comm = engine->comms[which];
    zcta_status status = ZCTA_OK;

    if (comm == NULL ||
        (wants_window(engine, prepared) && !zc_nccl_comm_has_window(comm, prepared->window.base)))
        status = refuse_capture(engine, stream);
    if (status == ZCTA_OK && comm == NULL) {
        status = open_comm(engine, prepared, &comm);
        if (status == ZCTA_OK)
            keep_comm(engine, which, comm);
    }
    if (status == ZCTA_OK && wants_window(engine, prepared))
        status = zc_nccl_comm_register(comm, prepared->window.base, prepared->window.bytes);
    prepared->ready = status == ZCTA_OK;
    return status;
}

/* ---- Between nodes ---- */

/* The group of this rank's rail: the ranks at the same place on their nodes. It talks under a tag
 * of its own. */
static zcta_status find_rail(struct zc_engine *engine, uint32_t node_ranks)
{
    const struct zc_group *group = &engine->group;
    const uint32_t nodes = group->count / node_ranks;

    engine->rail_ranks = calloc(nodes, sizeof *engine->rail_ranks);
    if (engine->rail_ranks == NULL)
        return zc_fail(group->diag, ZCTA_ERR_NO_MEMORY, "NCCL", ENOMEM, "out of memory");
    for (uint32_t i = 0; i < nodes; i++)
        engine->rail_ranks[i] = group->ranks[i * node_ranks + group->self % node_ranks];
    engine->rail = *group;
    engine->rail.ranks = engine->rail_ranks;
    engine->rail.count = nodes;
    engine->rail.self = group->self / node_ranks;
    engine->rail.tag = group->tag ^ UINT64_C(0x9d39247e33776d41);
    engine->rail.rounds = &engine->rail_rounds;
    return ZCTA_OK;
}

zcta_status zc_nccl_join_nodes(struct zc_engine *engine, uint32_t node_ranks, zcta_stream stream)
{
    struct zc_nccl_comm *comm = engine->comms[NODES];
    zcta_status status;

    if (comm != NULL)
        return ZCTA_OK;
    status = refuse_capture(engine, stream);
    if (status == ZCTA_OK && engine->rail_ranks == NULL)
        status = find_rail(engine, node_ranks);
    if (status == ZCTA_OK)
        status = zc_nccl_comm_open(&engine->rail, engine->guard, ZC_NCCL_POLICY_DEFAULT, &comm);
    if (status == ZCTA_OK)
        keep_comm(engine, NODES, comm);
    return status;
}

zcta_status zc_nccl_transfer(const struct zc_op_network *network, zcta_stream stream)
{
    struct zc_engine *engine = network->data;

    return zc_nccl_comm_transfer(engine->comms[NODES], network->transfers, network->count,
                                 engine->group.count / engine->rail.count, stream);
}

/* ---- Evidence ---- */

/* What NCCL says on any rank counts on all: paths must not differ. */
static zcta_status weigh_evidence(struct zc_engine *engine, const char *title, enum zc_evidence own)
{
    const struct zc_group *group = &engine->group;
    const uint64_t mine = own;
    uint64_t *all = calloc(group->count, sizeof *all), worst = mine;
    zcta_status status;

    if (all == NULL)
        return zc_fail(group->diag, ZCTA_ERR_NO_MEMORY, "NCCL", ENOMEM, "out of memory");
    status = zc_group_exchange(group, "NCCL", "did not tell which way NCCL took", ZC_TOPIC_NCCL,
                               &mine, all, sizeof mine);
    for (uint32_t i = 0; i < group->count && status == ZCTA_OK; i++)
        worst = all[i] > worst ? all[i] : worst;
    free(all);
    if (status != ZCTA_OK)
        return status;
    engine->evidence = (enum zc_evidence)worst;
    if (worst == ZC_EVIDENCE_AGAINST)
        zc_log(group->diag, ZC_LOG_WARN,
               "%s [NCCL, Fallback]: CTA policy ZERO, but NCCL's log tells of no copy "
               "engines: it took kernels",
               title);
    if (worst == ZC_EVIDENCE_PROVED)
        zc_log(group->diag, ZC_LOG_INFO, "%s [NCCL, Copy Engine]: proved by NCCL's log", title);
    return ZCTA_OK;
}

/* Once, and for who insists as a warning: it may have been kernels. */
static void tell_unproved(struct zc_engine *engine, const struct zc_prepared *prepared)
{
    if (engine->evidence != ZC_EVIDENCE_MISSING || engine->told_unproved >= 1 + prepared->strict)
        return;
    engine->told_unproved = 1 + prepared->strict;
    zc_log(engine->group.diag, prepared->strict ? ZC_LOG_WARN : ZC_LOG_INFO,
           "%s [NCCL, Copy Engine]: not proved, because NCCL's log goes elsewhere, or another "
           "team began at the same time: let zerocta be the first to use NCCL in this process, and "
           "leave NCCL_DEBUG unset",
           prepared->layout->collective->title);
}

static zcta_status check_strict(const struct zc_engine *engine, const struct zc_prepared *prepared)
{
    if (!prepared->strict || engine->evidence != ZC_EVIDENCE_AGAINST)
        return ZCTA_OK;
    return zc_fail(engine->group.diag, ZCTA_ERR_POLICY, "NCCL", 0,
                   "policy ZERO: NCCL was asked for its copy engines and took kernels, as its log "
                   "shows; use engine ce, or policy EFFICIENCY");
}

static enum zc_evidence nccl_evidence(const struct zc_engine *engine,
                                      const struct zc_prepared *prepared)
{
    return prepared->no_sm ? engine->evidence : ZC_EVIDENCE_SURE;
}

/* ---- Running ---- */

/* Before 2.29.7 the copy engines refuse the NULL stream, by either of its names, so there the call
 * goes beside it. */
static const struct zc_program *program_for(const struct zc_prepared *prepared, zcta_stream stream)
{
    const bool is_null = stream == NULL || stream == ZC_NCCL_STREAM_LEGACY;

    return is_null && prepared->aside != NULL ? prepared->aside : prepared->program;
}

/* The communicator's first call, and what NCCL says of it. Where it took kernels the window that
 * it got for its copy engines is taken back. */
static zcta_status run_and_look(struct zc_engine *engine, const struct zc_prepared *prepared,
                                const struct zc_program *program, zcta_stream stream)
{
    const struct zc_group *group = &engine->group;
    struct zc_nccl_look look;
    enum zc_evidence found;
    zcta_status status;

    zc_nccl_look_begin(&look, group->self);
    status = group->ops->submit(group->device, program, stream);
    found = zc_nccl_look_end(&look);
    if (status == ZCTA_OK)
        status = weigh_evidence(engine, prepared->layout->collective->title, found);
    engine->looked = status == ZCTA_OK;
    if (status == ZCTA_OK && !wants_window(engine, prepared)) {
        group->ops->drain(group->device, engine->guard);
        nccl_deregister(engine, prepared->window.base);
    }
    return status;
}

bool zc_nccl_is_heedless(const struct zc_engine *engine)
{
    return atomic_load_explicit(&engine->heedless, memory_order_relaxed);
}

static zcta_status nccl_run(struct zc_engine *engine, struct zc_prepared *prepared,
                            zcta_stream stream)
{
    const struct zc_program *program = program_for(prepared, stream);
    bool look; /* of a rank alone NCCL moves nothing in place, and says nothing */
    zcta_status status = check_strict(engine, prepared);

    if (status == ZCTA_OK && !prepared->ready)
        status = make_ready(engine, prepared, stream);
    if (status == ZCTA_OK && wants_window(engine, prepared))
        atomic_store_explicit(&engine->heedless, true, memory_order_relaxed);
    look = prepared->no_sm && !engine->looked && engine->group.count > 1;
    if (status == ZCTA_OK)
        status = look ? run_and_look(engine, prepared, program, stream)
                      : engine->group.ops->submit(engine->group.device, program, stream);
    if (status == ZCTA_OK && look)
        status = check_strict(engine, prepared);
    if (status == ZCTA_OK)
        tell_unproved(engine, prepared);
    return status;
}

/* NCCL meets anew in every call. */
static zcta_status nccl_say_ready(struct zc_engine *engine, struct zc_prepared *prepared,
                                  zcta_stream stream, bool *said)
{
    (void)engine, (void)prepared, (void)stream;
    *said = false;
    return ZCTA_OK;
}

const struct zc_engine_ops zc_engine_nccl = {
    .name = "nccl",
    .open = nccl_open,
    .close = nccl_close,
    .prepare = nccl_prepare,
    .run = nccl_run,
    .evidence = nccl_evidence,
    .say_ready = nccl_say_ready,
    .release = nccl_release,
    .deregister = nccl_deregister,
    .abort = nccl_abort,
};
