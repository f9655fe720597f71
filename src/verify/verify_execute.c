/* The verifier: executing all ranks' plans, in some order that they allow, and the same each time.
 */
#include "verify/verify_internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- Begin and end ---- */

static bool begin_posts(struct zc_execution *e)
{
    for (uint32_t i = 0; i < e->v->ranks * ZC_POSTS; i++) {
        struct zc_post *post = &e->ranks[i / ZC_POSTS].posts[i % ZC_POSTS];

        post->clock = calloc(e->width, sizeof *post->clock);
        if (post->clock == NULL)
            return false;
    }
    return true;
}

bool zc_execution_begin(struct zc_execution *e, struct zc_verifier *v, uint32_t width)
{
    const size_t ranks = v->ranks, lanes = ranks * v->lanes;

    e->v = v;
    e->width = width;
    e->letters.stride = sizeof(struct zc_letter) + width * sizeof(uint32_t);
    e->ticks = calloc(lanes, sizeof *e->ticks);
    e->clocks = calloc(lanes * width, sizeof *e->clocks);
    e->ranks = calloc(ranks, sizeof *e->ranks);
    e->channels = calloc(ranks * ranks * ZC_CHANNELS, sizeof *e->channels);
    if (e->ticks == NULL || e->clocks == NULL || e->ranks == NULL || e->channels == NULL ||
        !begin_posts(e)) {
        v->status = ZCTA_ERR_NO_MEMORY;
        return false;
    }
    return true;
}

void zc_execution_end(struct zc_execution *e)
{
    for (uint32_t i = 0; e->ranks != NULL && i < e->v->ranks * ZC_POSTS; i++) {
        struct zc_post *post = &e->ranks[i / ZC_POSTS].posts[i % ZC_POSTS];

        free(post->clock);
        zc_content_free(&post->row);
    }
    for (uint32_t i = 0; i < e->letters.block_count; i++)
        free(e->letters.blocks[i]);
    free(e->letters.blocks);
    free(e->ticks);
    free(e->clocks);
    free(e->ranks);
    free(e->channels);
}

/* ---- Exchanges ---- */

uint32_t zc_verify_partner(const struct zc_request *request, uint32_t node)
{
    const uint32_t size = zc_request_node_ranks(request);

    return node * size + request->rank % size;
}

static void come(struct zc_execution *e, uint32_t rank, uint32_t lane, const struct zc_step *step)
{
    struct zc_rank_state *state = &e->ranks[rank];
    struct zc_post *post = &state->posts[state->posted % ZC_POSTS];

    zc_order_post(e, lane, post);
    post->lane = lane;
    post->call = state->call;
    post->bytes = step->bytes;
    if (e->answers == NULL)
        zc_bytes_post(e->v, step, post);
    state->posted++;
}

static bool all_have_come(const struct zc_execution *e, const struct zc_request *request)
{
    const uint32_t wanted = e->ranks[request->rank].exchanged + 1;

    for (uint32_t node = 0; node < zc_request_nodes(request); node++)
        if (e->ranks[zc_verify_partner(request, node)].posted < wanted)
            return false;
    return true;
}

static void check_partner(struct zc_verifier *v, const struct zc_post *post, uint32_t rank,
                          uint32_t partner, uint64_t bytes, uint32_t call)
{
    if (post->call != call)
        zc_verify_defect(v, "call %u: rank %u exchanges with rank %u, which is in call %u", call,
                         rank, partner, post->call);
    else if (post->bytes != bytes)
        zc_verify_defect(v, "call %u: rank %u exchanges another size than rank %u", call, rank,
                         partner);
}

/* The rows of all have come in, each some time after its rank and this one had come. */
static void leave_exchange(struct zc_execution *e, uint32_t rank, uint32_t lane,
                           const struct zc_step *step)
{
    struct zc_rank_state *state = &e->ranks[rank];
    const struct zc_request *request = &zc_plan_of(e->v, state->call, rank)->request;
    const uint32_t number = state->exchanged++;
    struct zc_mark mark = {.call = state->call, .step = state->cursor[lane % e->v->lanes]};

    for (uint32_t node = 0; node < step->rows; node++) {
        const uint32_t partner = zc_verify_partner(request, node);
        const struct zc_post *post = &e->ranks[partner].posts[number % ZC_POSTS];

        check_partner(e->v, post, rank, partner, step->bytes, state->call);
        zc_order_received(e, lane, post);
    }
    mark.event = (struct zc_event){lane, zc_order_tick(e, lane)};
    if (e->answers == NULL)
        zc_bytes_receive(e->v, step, number, mark);
}

enum progress { STUCK, MOVED, PASSED };

static enum progress run_exchange(struct zc_execution *e, uint32_t rank, uint32_t lane,
                                  const struct zc_step *step)
{
    struct zc_rank_state *state = &e->ranks[rank];

    if (state->posted == state->exchanged) {
        come(e, rank, lane, step);
        return MOVED;
    }
    if (state->posts[state->exchanged % ZC_POSTS].lane != lane) {
        zc_verify_defect(e->v, "call %u: rank %u is in two exchanges at once", state->call, rank);
        return STUCK;
    }
    if (!all_have_come(e, &zc_plan_of(e->v, state->call, rank)->request))
        return STUCK;
    leave_exchange(e, rank, lane, step);
    return PASSED;
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

static enum progress run_step(struct zc_execution *e, uint32_t rank, uint32_t lane,
                              const struct zc_step *step)
{
    struct zc_rank_state *state = &e->ranks[rank];
    const uint32_t home = rank * e->v->lanes, here = home + lane;

    switch (step->kind) {
    case ZC_STEP_COPY:
        run_copy(e, here, state->call, state->cursor[lane], step);
        return PASSED;
    case ZC_STEP_EXCHANGE:
        return run_exchange(e, rank, here, step);
    case ZC_STEP_SIGNAL:
        zc_order_signal(e, here, rank, step, state->call);
        return PASSED;
    case ZC_STEP_WAIT:
        return zc_order_wait(e, here, rank, step, state->call) ? PASSED : STUCK;
    case ZC_STEP_FORK:
        zc_order_fork(e, here, home + step->peer);
        state->running[step->peer] = true;
        return PASSED;
    case ZC_STEP_JOIN:
        if (next_step(e, rank, step->peer) != NULL)
            return STUCK;
        zc_order_join(e, here, home + step->peer);
        return PASSED;
    case ZC_STEP_KINDS:
        break;
    }
    return PASSED;
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
    const enum progress progress = step == NULL ? STUCK : run_step(e, rank, lane, step);

    if (progress == PASSED) {
        state->cursor[lane]++;
        zc_verify_count_step(e->v);
    }
    return progress != STUCK;
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

/* A barrier holds everybody until everybody came. */
static void check_barrier(struct zc_execution *e, uint32_t rank, uint32_t call)
{
    const struct zc_view now = zc_view_now(e, rank * e->v->lanes);
    const struct zc_subject subject = {.kind = ZC_ASK_BARRIER, .call = {call, call}};

    for (uint32_t other = 0; other < e->v->ranks; other++) {
        const struct zc_rank_state *state = &e->ranks[other];

        if (state->call < call || (state->call == call && !state->inside))
            zc_verify_defect(e->v, "call %u: rank %u may leave the barrier before rank %u has come",
                             call, rank, other);
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
            check_barrier(e, rank, state->call);
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
        else if (step != NULL && step->kind == ZC_STEP_EXCHANGE)
            zc_verify_defect(e->v, "call %u: rank %u, step %u waits in an exchange for ever",
                             state->call, rank, state->cursor[lane]);
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
