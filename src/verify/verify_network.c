/* The verifier: sends and receives over the network. What a group sends is under way once the group
 * has begun; the group ends when the other side of all that it sends and receives has been begun.
 * A send that has ended tells nothing about its receiver, since a network may hold what it was
 * given: only receiving makes an order. */
#include "verify/verify_internal.h"

#include <stdlib.h>
#include <string.h>

static int32_t *ahead_of(const struct zc_execution *e, uint32_t from, uint32_t to)
{
    return &e->ahead[(size_t)from * e->v->ranks + to];
}

static const struct zc_step *step_at(const struct zc_execution *e, uint32_t rank, uint32_t at)
{
    const struct zc_plan *plan = zc_plan_of(e->v, e->ranks[rank].call, rank);

    return at < plan->step_count ? &plan->steps[at] : NULL;
}

/* The step behind `at` in its group; the number of steps: `at` is the last. */
static uint32_t next_in_group(const struct zc_execution *e, uint32_t rank, uint32_t at)
{
    const struct zc_plan *plan = zc_plan_of(e->v, e->ranks[rank].call, rank);
    const struct zc_step *last = &plan->steps[at];

    for (at++; at < plan->step_count; at++)
        if (plan->steps[at].lane == last->lane)
            return zc_steps_are_grouped(last, &plan->steps[at]) ? at : plan->step_count;
    return at;
}

/* ---- Messages ---- */

static void send(struct zc_execution *e, uint32_t rank, const struct zc_step *step)
{
    const struct zc_rank_state *state = &e->ranks[rank];
    struct zc_rank_state *peer = &e->ranks[step->peer];
    struct zc_message *made = calloc(1, sizeof *made + e->width * sizeof *made->clock);

    if (made == NULL) {
        e->v->status = ZCTA_ERR_NO_MEMORY;
        return;
    }
    made->from = rank;
    made->call = state->call;
    made->bytes = step->bytes;
    made->event = state->group.event;
    memcpy(made->clock, state->group.clock, e->width * sizeof *made->clock);
    if (e->answers == NULL)
        zc_bytes_take(e->v, step, made);
    *peer->inbox_end = made;
    peer->inbox_end = &made->next;
}

/* The first message from that rank, which is the caller's then. */
static struct zc_message *take(struct zc_rank_state *state, uint32_t from)
{
    struct zc_message **at = &state->inbox, *taken;

    while ((*at)->from != from)
        at = &(*at)->next;
    taken = *at;
    if (state->inbox_end == &taken->next)
        state->inbox_end = at;
    *at = taken->next;
    taken->next = NULL;
    return taken;
}

static void check_message(struct zc_verifier *v, const struct zc_message *message, uint32_t rank,
                          uint64_t bytes, uint32_t call)
{
    if (message->call != call)
        zc_verify_defect(v, "call %u: rank %u receives what rank %u sends in call %u", call, rank,
                         message->from, message->call);
    else if (message->bytes != bytes)
        zc_verify_defect(
            v, "call %u: rank %u receives %llu bytes from rank %u, which sends it %llu", call, rank,
            (unsigned long long)bytes, message->from, (unsigned long long)message->bytes);
}

/* ---- Groups ---- */

static void begin(struct zc_execution *e, uint32_t rank, uint32_t lane, uint32_t first)
{
    struct zc_group *group = &e->ranks[rank].group;
    const struct zc_step *step;

    group->begun = true;
    zc_order_begin_group(e, lane, group);
    for (uint32_t at = first; (step = step_at(e, rank, at)) != NULL;
         at = next_in_group(e, rank, at))
        if (step->kind == ZC_STEP_NET_SEND) {
            (*ahead_of(e, rank, step->peer))++;
            send(e, rank, step);
        } else {
            (*ahead_of(e, step->peer, rank))--;
        }
}

/* The other side of this step has been begun. */
static bool is_met(const struct zc_execution *e, uint32_t rank, const struct zc_step *step)
{
    return step->kind == ZC_STEP_NET_SEND ? *ahead_of(e, rank, step->peer) <= 0
                                          : *ahead_of(e, step->peer, rank) >= 0;
}

/* The first step of the group whose other side is missing; NULL: none is. */
static const struct zc_step *unmet(const struct zc_execution *e, uint32_t rank, uint32_t first)
{
    const struct zc_step *step;

    for (uint32_t at = first; (step = step_at(e, rank, at)) != NULL;
         at = next_in_group(e, rank, at))
        if (!is_met(e, rank, step))
            return step;
    return NULL;
}

/* Takes what the group receives, in the order of its steps. */
static struct zc_message *receive_all(struct zc_execution *e, uint32_t rank, uint32_t lane,
                                      uint32_t first)
{
    struct zc_rank_state *state = &e->ranks[rank];
    struct zc_message *taken = NULL, **last = &taken;
    const struct zc_step *step;

    for (uint32_t at = first; (step = step_at(e, rank, at)) != NULL;
         at = next_in_group(e, rank, at))
        if (step->kind == ZC_STEP_NET_RECV) {
            *last = take(state, step->peer);
            check_message(e->v, *last, rank, step->bytes, state->call);
            zc_order_receive(e, lane, *last);
            last = &(*last)->next;
        }
    return taken;
}

/* What the group has read and written when it ends. */
static void touch(struct zc_execution *e, uint32_t rank, uint32_t first, struct zc_mark mark,
                  const struct zc_message *received)
{
    const struct zc_group *group = &e->ranks[rank].group;
    const struct zc_step *step;

    for (uint32_t at = first; (step = step_at(e, rank, at)) != NULL;
         at = next_in_group(e, rank, at)) {
        mark.step = at;
        if (step->kind == ZC_STEP_NET_SEND) {
            zc_bytes_send(e->v, step, group, mark);
        } else if (received != NULL) {
            zc_bytes_receive(e->v, step, group, received, mark);
            received = received->next;
        }
    }
}

static void drop_all(struct zc_message *messages)
{
    while (messages != NULL) {
        struct zc_message *next = messages->next;

        zc_content_free(&messages->content);
        free(messages);
        messages = next;
    }
}

/* The cursor comes to stand on the group's last step. */
static void end(struct zc_execution *e, uint32_t rank, uint32_t lane, uint32_t *cursor)
{
    struct zc_rank_state *state = &e->ranks[rank];
    struct zc_message *received = receive_all(e, rank, lane, *cursor);
    const struct zc_mark mark = {.event = {lane, zc_order_tick(e, lane)}, .call = state->call};
    uint32_t next = next_in_group(e, rank, *cursor);

    if (e->answers == NULL)
        touch(e, rank, *cursor, mark, received);
    drop_all(received);
    for (; step_at(e, rank, next) != NULL; next = next_in_group(e, rank, next)) {
        *cursor = next;
        zc_verify_count_step(e->v);
    }
    state->group.begun = false;
}

enum zc_progress_kind zc_network_run(struct zc_execution *e, uint32_t rank, uint32_t lane)
{
    struct zc_rank_state *state = &e->ranks[rank];
    const uint32_t here = rank * e->v->lanes + lane;

    if (!state->group.begun) {
        begin(e, rank, here, state->cursor[lane]);
        return ZC_MOVED;
    }
    if (state->group.event.lane != here) {
        zc_verify_defect(e->v, "call %u: rank %u is on the network in two lanes at once",
                         state->call, rank);
        return ZC_STUCK;
    }
    if (unmet(e, rank, state->cursor[lane]) != NULL)
        return ZC_STUCK;
    end(e, rank, here, &state->cursor[lane]);
    return ZC_PASSED;
}

void zc_network_report_stuck(struct zc_execution *e, uint32_t rank, uint32_t lane)
{
    const struct zc_rank_state *state = &e->ranks[rank];
    const struct zc_step *step = unmet(e, rank, state->cursor[lane]);

    if (step == NULL)
        return;
    zc_verify_defect(e->v,
                     step->kind == ZC_STEP_NET_SEND
                         ? "call %u: rank %u, step %u sends to rank %u, which never receives it"
                         : "call %u: rank %u, step %u receives from rank %u, which never sends it",
                     state->call, rank,
                     (uint32_t)(step - zc_plan_of(e->v, state->call, rank)->steps), step->peer);
}

void zc_network_end(struct zc_execution *e)
{
    for (uint32_t rank = 0; e->ranks != NULL && rank < e->v->ranks; rank++)
        drop_all(e->ranks[rank].inbox);
}
