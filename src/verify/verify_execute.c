/* The verifier: executing all ranks' plans, in some order that they allow, and the same each time.
 */
#include "verify/verify_internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- Begin and end ---- */

static bool begin_ranks(struct zc_execution *e)
{
    for (uint32_t rank = 0; rank < e->v->ranks; rank++) {
        struct zc_rank_state *state = &e->ranks[rank];

        state->inbox_end = &state->inbox;
        state->group.clock = calloc(e->width, sizeof *state->group.clock);
        if (state->group.clock == NULL)
            return false;
    }
    return true;
}

bool zc_execution_begin(struct zc_execution *e, struct zc_verifier *v, uint32_t width)
{
    const size_t ranks = v->ranks, lanes = ranks * v->lanes;

    e->v = v;
    e->width = width;
    e->sent.stride = sizeof(struct zc_sent_signal) + width * sizeof(uint32_t);
    e->ticks = calloc(lanes, sizeof *e->ticks);
    e->clocks = calloc(lanes * width, sizeof *e->clocks);
    e->ranks = calloc(ranks, sizeof *e->ranks);
    e->channels = calloc(ranks * ranks * ZC_CHANNELS, sizeof *e->channels);
    e->ahead = calloc(ranks * ranks, sizeof *e->ahead);
    if (e->ticks == NULL || e->clocks == NULL || e->ranks == NULL || e->channels == NULL ||
        e->ahead == NULL || !begin_ranks(e)) {
        v->status = ZCTA_ERR_NO_MEMORY;
        return false;
    }
    return true;
}

void zc_execution_end(struct zc_execution *e)
{
    zc_network_end(e);
    for (uint32_t rank = 0; e->ranks != NULL && rank < e->v->ranks; rank++)
        free(e->ranks[rank].group.clock);
    for (uint32_t i = 0; i < e->sent.block_count; i++)
        free(e->sent.blocks[i]);
    free(e->sent.blocks);
    free(e->ticks);
    free(e->clocks);
    free(e->ranks);
    free(e->channels);
    free(e->ahead);
}

/* ---- Steps ---- */

/* The next step of a lane, or NULL at its end. Leaves the cursor on it. */
static const struct zc_step *next_step(struct zc_execution *e, uint32_t rank, uint32_t lane)
{
    struct zc_rank_state *state = &e->ranks[rank];
    const struct zc_plan *plan = zc_plan_of(e->v, state->call, rank);
    uint32_t *cursor = &state->cursor[lane];

    while (*cursor < plan->step_count && plan->steps[*cursor].lane != lane)
        (*cursor)++;
    return *cursor < plan->step_count ? &plan->steps[*cursor] : NULL;
}

static void run_copy(struct zc_execution *e, uint32_t lane, uint32_t call, uint32_t at,
                     const struct zc_step *step)
{
    const struct zc_mark mark = {.event = {lane, zc_order_tick(e, lane)}, .call = call, .step = at};

    if (e->answers == NULL)
        zc_bytes_copy(e->v, step, mark);
}

static enum zc_progress_kind run_step(struct zc_execution *e, uint32_t rank, uint32_t lane,
                                      const struct zc_step *step)
{
    struct zc_rank_state *state = &e->ranks[rank];
    const uint32_t home = rank * e->v->lanes, here = home + lane;

    switch (step->kind) {
    case ZC_STEP_COPY:
        run_copy(e, here, state->call, state->cursor[lane], step);
        return ZC_PASSED;
    case ZC_STEP_NET_SEND:
    case ZC_STEP_NET_RECV:
        return zc_network_run(e, rank, lane);
    case ZC_STEP_SIGNAL:
        zc_order_signal(e, here, rank, step, state->call);
        return ZC_PASSED;
    case ZC_STEP_WAIT:
        return zc_order_wait(e, here, rank, step, state->call) ? ZC_PASSED : ZC_STUCK;
    case ZC_STEP_FORK:
        zc_order_fork(e, here, home + step->peer);
        state->running[step->peer] = true;
        return ZC_PASSED;
    case ZC_STEP_JOIN:
        if (next_step(e, rank, step->peer) != NULL)
            return ZC_STUCK;
        zc_order_join(e, here, home + step->peer);
        return ZC_PASSED;
    case ZC_STEP_KINDS:
        break;
    }
    return ZC_PASSED;
}

static bool goes_on(const struct zc_execution *e)
{
    return e->v->status == ZCTA_OK && (e->answers == NULL || !zc_answers_complete(e->answers));
}

/* Executes one step of a lane, if it can run now. */
static bool advance_lane(struct zc_execution *e, uint32_t rank, uint32_t lane)
{
    struct zc_rank_state *state = &e->ranks[rank];
    const struct zc_step *step = state->running[lane] ? next_step(e, rank, lane) : NULL;
    const enum zc_progress_kind progress = step == NULL ? ZC_STUCK : run_step(e, rank, lane, step);

    if (progress == ZC_PASSED) {
        state->cursor[lane]++;
        zc_verify_count_step(e->v);
    }
    return progress != ZC_STUCK;
}

/* ---- Calls ---- */

static void enter(struct zc_execution *e, uint32_t rank)
{
    struct zc_rank_state *state = &e->ranks[rank];

    memset(state->cursor, 0, sizeof state->cursor);
    memset(state->running, 0, sizeof state->running);
    state->running[0] = true;
    state->inside = true;
    e->v->entered[(size_t)state->call * e->v->ranks + rank] = zc_order_tick(e, rank * e->v->lanes);
    if (e->answers == NULL)
        zc_bytes_enter(e->v, rank, state->call);
}

/* What moves no data holds everybody until everybody came. */
static void check_meeting(struct zc_execution *e, uint32_t rank, uint32_t call)
{
    const struct zc_view now = zc_view_now(e, rank * e->v->lanes);
    const struct zc_subject subject = {.kind = ZC_ASK_MEETING, .call = {call, call}};

    for (uint32_t other = 0; other < e->v->ranks; other++) {
        const struct zc_rank_state *state = &e->ranks[other];

        if (state->call < call || (state->call == call && !state->inside))
            zc_verify_defect(e->v, "call %u: rank %u may leave before rank %u has come", call, rank,
                             other);
        else if (other != rank)
            zc_order_ask(e->v,
                         (struct zc_event){other * e->v->lanes,
                                           e->v->entered[(size_t)call * e->v->ranks + other]},
                         &now, 1, subject);
    }
}

static void leave(struct zc_execution *e, uint32_t rank)
{
    struct zc_rank_state *state = &e->ranks[rank];
    const struct zc_layout *layout = zc_plan_of(e->v, state->call, rank)->request.layout;

    zc_order_tick(e, rank * e->v->lanes);
    if (e->answers == NULL) {
        if ((layout->collective->traits & ZC_NO_DATA) != 0)
            check_meeting(e, rank, state->call);
        zc_bytes_leave(e->v, rank, state->call);
    }
    state->inside = false;
    state->call++;
}

/* Runs as much of a rank's call as can run now; false if that was nothing. */
static bool advance_rank(struct zc_execution *e, uint32_t rank)
{
    struct zc_rank_state *state = &e->ranks[rank];
    bool progress = false, moved = true;

    if (state->call == e->v->call_count)
        return false;
    if (!state->inside) {
        enter(e, rank);
        progress = true;
    }
    while (moved && goes_on(e)) {
        moved = false;
        for (uint32_t lane = 0; lane < e->v->lanes; lane++)
            while (goes_on(e) && advance_lane(e, rank, lane))
                moved = true;
        progress |= moved;
    }
    if (goes_on(e) && next_step(e, rank, 0) == NULL) {
        leave(e, rank);
        progress = true;
    }
    return progress;
}

static void report_stuck(struct zc_execution *e, uint32_t rank)
{
    const struct zc_rank_state *state = &e->ranks[rank];

    for (uint32_t lane = 0; lane < e->v->lanes; lane++) {
        const struct zc_step *step = state->running[lane] ? next_step(e, rank, lane) : NULL;

        if (step != NULL && step->kind == ZC_STEP_WAIT)
            zc_verify_defect(e->v, "call %u: rank %u, step %u waits for rank %u for ever",
                             state->call, rank, state->cursor[lane], step->peer);
        else if (step != NULL && zc_step_is_network(step))
            zc_network_report_stuck(e, rank, lane);
    }
    zc_verify_defect(e->v, "call %u: rank %u cannot go on", state->call, rank);
}

void zc_execute(struct zc_execution *e)
{
    bool progress = true;

    while (progress && goes_on(e)) {
        progress = false;
        for (uint32_t rank = 0; rank < e->v->ranks && goes_on(e); rank++)
            progress |= advance_rank(e, rank);
    }
    if (e->answers != NULL)
        return;
    for (uint32_t rank = 0; rank < e->v->ranks && e->v->status == ZCTA_OK; rank++)
        if (e->ranks[rank].call < e->v->call_count)
            report_stuck(e, rank);
    if (e->v->status == ZCTA_OK)
        zc_order_check_channels(e);
}
