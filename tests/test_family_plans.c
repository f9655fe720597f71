/* Every collective by every algorithm that serves it: the plans of all ranks bring its flows about,
 * alone, again and again, one collective behind another with another root, in eager calls and
 * replayed from graphs; and a plan that lacks a step, has one twice or two in the wrong order is
 * found out. Nothing here names a collective or an algorithm: new ones are taken from the tables.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support_layouts.h"
#include "support_ranks.h"
#include "verify/verify.h"

enum { BYTES = 48, SCRATCH = 4096, BOUNCE = 20, RING = 32, CALLS_MOST = 6 };

/* What one call of a team is made from. */
struct kind {
    const struct zc_collective *collective;
    const struct zc_algorithm *algorithm;
    enum shape shape;
    bool in_place, bounced, grouped;
    uint64_t bytes, block;
    uint32_t node_ranks; /* 0: all ranks are on one node */
};

struct call {
    struct team_layouts layouts;
    struct zc_plan *plans[LAYOUT_RANKS_MOST];
    uint32_t ranks;
};

/* ---- Making calls ---- */

/* False: the algorithm cannot do that, and says so. */
static bool make_call(struct call *call, const struct kind *kind, uint32_t ranks, uint32_t number,
                      struct zc_request request)
{
    bool can = true;

    call->ranks = ranks;
    memset(call->plans, 0, sizeof call->plans);
    make_layouts(&call->layouts, kind->collective, ranks, kind->bytes, kind->shape, number);
    request.algorithm = kind->algorithm;
    request.scratch_bytes = SCRATCH * LAYOUT_RANKS_MOST;
    request.bounce_bytes = BOUNCE;
    request.host_bytes = SCRATCH * LAYOUT_RANKS_MOST;
    request.ring_bytes = (uint64_t)RING * ranks;
    request.bounced = kind->bounced;
    request.grouped = kind->grouped;
    request.block_bytes = kind->block;
    request.node_ranks = kind->node_ranks;
    request.chunks = kind->node_ranks == 0 ? 0 : 2;
    for (uint32_t rank = 0; rank < ranks && can; rank++) {
        request.layout = &call->layouts.of[rank];
        request.rank = rank;
        request.in_place = kind->in_place && can_be_in_place(request.layout, rank);
        can = zc_request_defect(&request) == NULL;
        if (can)
            assert_int_equal(zc_plan_make(&request, &call->plans[rank]), ZCTA_OK);
    }
    return can;
}

static void free_call(struct call *call)
{
    for (uint32_t rank = 0; rank < call->ranks; rank++)
        zc_plan_destroy(call->plans[rank]);
}

static struct zc_request plain(uint32_t i)
{
    return (struct zc_request){.half = i % 2, .lanes = 1 + i % 2};
}

static zcta_status verify(const struct call *calls, uint32_t count, bool replayed, char *text)
{
    const struct zc_verify_options options = {.replayed = replayed};
    struct zc_verify_call given[CALLS_MOST];

    for (uint32_t i = 0; i < count; i++)
        given[i].plans = (const struct zc_plan *const *)calls[i].plans;
    return zc_verify(given, count, &options, text, 256);
}

static void expect_right(const struct call *calls, uint32_t count, bool replayed,
                         const struct kind *kind)
{
    char text[256] = "";

    if (verify(calls, count, replayed, text) != ZCTA_OK)
        fail_msg("%s by %s, %u ranks (%u a node), shape %d, %s%s%s%s: %s", kind->collective->name,
                 kind->algorithm->name, calls[0].ranks, kind->node_ranks, (int)kind->shape,
                 kind->in_place ? "in place" : "out of place", kind->bounced ? ", bounced" : "",
                 kind->grouped ? ", grouped" : "", replayed ? ", replayed" : "", text);
}

/* ---- Walking through the tables ---- */

typedef void kind_fn(const struct kind *kind, void *data);

static bool makes_sense(const struct kind *kind)
{
    const struct zc_algorithm *algorithm = kind->algorithm;
    const bool uneven = (kind->collective->traits & ZC_UNEVEN) != 0;

    return zc_algorithm_serves(algorithm, kind->collective) && !zc_has(algorithm, ZC_OPENS) &&
           (uneven || kind->shape == SHAPE_EVEN) &&
           (!kind->bounced || zc_has(algorithm, ZC_BOUNCES_OWN)) &&
           (!kind->grouped || zc_has(algorithm, ZC_GROUPS));
}

/* Each collective by each algorithm, in every shape, place and manner. */
static void for_each_kind(kind_fn *function, void *data)
{
    for (int id = 1; id < ZC_COLLECTIVE_IDS; id++)
        for (uint32_t i = 0; i < ZC_ALGORITHMS * SHAPES * 8; i++) {
            const struct kind kind = {.collective = zc_collective_of((zcta_collective)id),
                                      .algorithm = zc_algorithms[i / (SHAPES * 8)],
                                      .shape = (enum shape)(i / 8 % SHAPES),
                                      .in_place = i % 2 != 0,
                                      .bounced = i / 2 % 2 != 0,
                                      .grouped = i / 4 % 2 != 0,
                                      .bytes = BYTES,
                                      .block = i / 4 % 2 != 0 ? 0 : 32};

            if (makes_sense(&kind))
                function(&kind, data);
        }
}

/* ---- Alone, and again and again ---- */

static void check_sequences(const struct kind *kind, void *data)
{
    const uint32_t step = kind->node_ranks == 0 ? 1 : kind->node_ranks;
    struct call *calls = data;

    for (uint32_t ranks = step; ranks <= LAYOUT_RANKS_MOST; ranks += step) {
        uint32_t made = 0;

        while (made < 4 && make_call(&calls[made], kind, ranks, made, plain(made)))
            made++;
        if (made == 4) {
            expect_right(calls, 1, false, kind);
            expect_right(calls, 4, false, kind);
            if (!zc_has(kind->algorithm, ZC_EAGER_ONLY | ZC_CLOSES))
                expect_right(calls, 4, true, kind);
        } else if (ranks > 1 && !(kind->bounced && kind->in_place)) {
            fail_msg("%s by %s refuses %u ranks", kind->collective->name, kind->algorithm->name,
                     ranks);
        }
        for (uint32_t i = 0; i <= made && i < 4; i++)
            free_call(&calls[i]);
    }
}

static void every_collective_by_every_algorithm(void **state)
{
    struct call *calls = calloc(4, sizeof *calls);

    (void)state;
    for_each_kind(check_sequences, calls);
    free(calls);
}

/* Each kind whose algorithm goes from node to node, on nodes of 1 to 3 ranks. */
static void on_nodes(const struct kind *kind, kind_fn *function, void *data)
{
    struct kind over = *kind;

    for (over.node_ranks = 1; over.node_ranks <= 3; over.node_ranks++)
        if (zc_has(kind->algorithm, ZC_CROSSES))
            function(&over, data);
}

static void check_over_nodes(const struct kind *kind, void *data)
{
    on_nodes(kind, check_sequences, data);
}

static void what_crosses_goes_over_nodes(void **state)
{
    struct call *calls = calloc(4, sizeof *calls);

    (void)state;
    for_each_kind(check_over_nodes, calls);
    free(calls);
}

/* Without data there is nothing to do and nothing to go wrong; with one byte there is. */
static void empty_and_single_bytes(void **state)
{
    struct call *calls = calloc(2, sizeof *calls);

    (void)state;
    for (int id = 1; id < ZC_COLLECTIVE_IDS; id++)
        for (uint32_t i = 0; i < ZC_ALGORITHMS; i++)
            for (uint64_t bytes = 0; bytes < 2; bytes++) {
                const struct kind kind = {.collective = zc_collective_of((zcta_collective)id),
                                          .algorithm = zc_algorithms[i],
                                          .bytes = bytes};

                if (!makes_sense(&kind))
                    continue;
                assert_true(make_call(&calls[0], &kind, 3, 1, plain(0)));
                assert_true(make_call(&calls[1], &kind, 3, 2, plain(1)));
                expect_right(calls, 2, false, &kind);
                free_call(&calls[0]);
                free_call(&calls[1]);
            }
    free(calls);
}

/* ---- On streams that share a queue ---- */

/* The same steps one behind the other, as they stand. */
static void put_on_one_lane(struct zc_plan *plan)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < plan->step_count; i++) {
        if (plan->steps[i].kind == ZC_STEP_FORK || plan->steps[i].kind == ZC_STEP_JOIN)
            continue;
        plan->steps[count] = plan->steps[i];
        plan->steps[count++].lane = 0;
    }
    plan->step_count = count;
    plan->lane_count = 1;
}

static void check_one_lane(const struct kind *kind, void *data)
{
    struct call *calls = data;

    for (uint32_t ranks = 2; ranks <= 5; ranks++) {
        uint32_t made = 0;

        while (made < 2 && make_call(&calls[made], kind, ranks, made,
                                     (struct zc_request){.half = made, .lanes = 4}))
            made++;
        for (uint32_t i = 0; made == 2 && i < 2 * ranks; i++)
            put_on_one_lane(calls[i / ranks].plans[i % ranks]);
        if (made == 2)
            expect_right(calls, 2, false, kind);
        for (uint32_t i = 0; i <= made && i < 2; i++)
            free_call(&calls[i]);
    }
}

/* Nothing waits for what stands behind it on another lane. */
static void lanes_may_be_one(void **state)
{
    struct call *calls = calloc(2, sizeof *calls);

    (void)state;
    for_each_kind(check_one_lane, calls);
    free(calls);
}

/* ---- One behind another ---- */

struct pairs {
    struct call *calls; /* [3] */
    const struct kind *first;
    uint32_t ranks, tried;
};

/* First, second and first again: the second must not disturb the first, nor the first the second.
 */
static void check_pair(const struct kind *second, void *data)
{
    struct pairs *pairs = data;
    const struct kind *kinds[3] = {pairs->first, second, pairs->first};
    bool replays = true, made = true;
    uint32_t half = 0, count = 0;

    for (; count < 3 && made; count++) {
        struct zc_request request = plain(0);

        request.half = half % 2;
        request.closed = zc_has(kinds[count]->algorithm, ZC_CLOSES);
        made = make_call(&pairs->calls[count], kinds[count], pairs->ranks, count, request);
        half += zc_has(kinds[count]->algorithm, ZC_ALTERNATES) &&
                !zc_layout_is_empty(&pairs->calls[count].layouts.of[0]);
        replays = replays && !zc_has(kinds[count]->algorithm, ZC_EAGER_ONLY);
    }
    if (made) {
        expect_right(pairs->calls, 3, false, second);
        if (replays)
            expect_right(pairs->calls, 3, true, second);
        pairs->tried++;
    }
    for (uint32_t i = 0; i < count; i++)
        free_call(&pairs->calls[i]);
}

static bool is_usual(const struct kind *kind)
{
    return (kind->shape == SHAPE_EVEN || kind->shape == SHAPE_RANDOM) && !kind->grouped;
}

static void check_usual_pair(const struct kind *second, void *data)
{
    if (is_usual(second))
        check_pair(second, data);
}

static void check_all_behind(const struct kind *first, void *data)
{
    struct pairs *pairs = data;

    if (!is_usual(first))
        return;
    pairs->first = first;
    for_each_kind(check_usual_pair, pairs);
}

static void every_collective_behind_every_other(void **state)
{
    static const uint32_t counts[] = {2, 3, 5};
    struct pairs pairs = {.calls = calloc(3, sizeof *pairs.calls)};

    (void)state;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        pairs.ranks = counts[i];
        for_each_kind(check_all_behind, &pairs);
    }
    assert_true(pairs.tried > 1000);
    free(pairs.calls);
}

/* ---- Released ---- */

/* What says ready early, and the run that relies on it, between plain runs: four calls, which are
 * the caller's to free either way. False: the algorithm cannot do that. */
static bool make_released(struct call *calls, const struct kind *kind, uint32_t ranks)
{
    struct zc_request released = plain(0);
    struct kind early = *kind;

    released.released = true;
    early.algorithm = &zc_early_ready;
    early.bounced = early.grouped = false;
    return make_call(&calls[0], kind, ranks, 1, plain(0)) &&
           make_call(&calls[1], &early, ranks, 1, plain(0)) &&
           make_call(&calls[2], kind, ranks, 1, released) &&
           make_call(&calls[3], kind, ranks, 1, plain(0));
}

static void check_release(const struct kind *kind, void *data)
{
    struct call *calls = data;

    if (!zc_has(kind->algorithm, ZC_SAYS_READY))
        return;
    for (uint32_t ranks = 2; ranks <= 6; ranks++) {
        if (make_released(calls, kind, ranks))
            expect_right(calls, 4, false, kind);
        for (uint32_t i = 0; i < 4; i++)
            free_call(&calls[i]);
    }
}

static void every_collective_that_says_ready_can_be_released(void **state)
{
    struct call *calls = calloc(4, sizeof *calls);

    (void)state;
    for_each_kind(check_release, calls);
    free(calls);
}

/* ---- Mutations ---- */

struct mutants {
    struct call *calls; /* [4] */
    uint32_t count;     /* of them */
    bool replayed;
    uint32_t tried, survived;
};

static void expect_caught(struct mutants *mutants, const struct kind *kind, const char *how,
                          uint32_t rank, uint32_t step)
{
    char text[256] = "";

    mutants->tried++;
    if (verify(mutants->calls, mutants->count, mutants->replayed, text) != ZCTA_ERR_INVALID) {
        mutants->survived++;
        print_message("%s by %s (shape %d, %s%s%s%s), %u ranks: step %u of rank %u %s, and nobody "
                      "minds\n",
                      kind->collective->name, kind->algorithm->name, (int)kind->shape,
                      kind->in_place ? "in place" : "out of place",
                      kind->bounced ? ", bounced" : "", mutants->replayed ? ", replayed" : "",
                      mutants->count > 3 ? ", released" : "", mutants->calls[1].ranks, step, rank,
                      how);
    }
}

static bool writes(const struct zc_step *step, uint32_t rank)
{
    return step->kind == ZC_STEP_COPY && step->to.rank == rank;
}

static bool overlap(const struct zc_place *a, const struct zc_step *of_a, const struct zc_place *b,
                    const struct zc_step *of_b)
{
    bool found = false;

    for (uint32_t i = 0; i < of_a->rows * of_b->rows; i++) {
        const uint64_t at = a->offset + i / of_b->rows * of_a->stride;
        const uint64_t other = b->offset + i % of_b->rows * of_b->stride;

        found |= a->rank == b->rank && a->buffer == b->buffer && at < other + of_b->bytes &&
                 other < at + of_a->bytes;
    }
    return found;
}

/* How often its peer hears the same later. */
static uint32_t count_later(const struct zc_plan *plan, const struct zc_step *step)
{
    uint32_t count = 0;

    for (const struct zc_step *later = step + 1; later < plan->steps + plan->step_count; later++)
        count += later->kind == ZC_STEP_SIGNAL && later->peer == step->peer &&
                 later->channel == step->channel;
    return count;
}

/* Whether the step is the last word to its peer that something is there. */
static bool is_last_word(const struct zc_plan *plan, const struct zc_step *step)
{
    return step->channel == ZC_CHANNEL_DONE && count_later(plan, step) == 0;
}

/* Whether its peer said the same before: of what lies in its place all is there from the first time
 * on. */
static bool is_told_again(const struct zc_plan *plan, const struct zc_step *step)
{
    for (const struct zc_step *earlier = plan->steps; earlier < step; earlier++)
        if (earlier->kind == ZC_STEP_WAIT && earlier->peer == step->peer &&
            earlier->channel == step->channel)
            return true;
    return false;
}

/* Whether the copy before `taken` must stay before it: what else the rank says later may make up
 * for a word that was said too early, unless the slot is filled again within the call, or that word
 * is the lane's last. */
static bool is_taken_before(const struct zc_plan *plan, const struct zc_step *taken)
{
    const struct zc_step *end = plan->steps + plan->step_count;
    const uint32_t later = count_later(plan, taken);
    bool last = true;

    for (const struct zc_step *step = taken + 1; step < end; step++)
        last = last && step->lane != taken->lane;
    return later > 1 || (later == 0 && last);
}

/* Whether the copy writes some of what that rank gives to this one. */
static bool brings(const struct zc_plan *plan, const struct zc_step *copy, uint32_t from)
{
    const struct zc_flow flow = zc_flow_between(plan->request.layout, from, plan->request.rank);

    return copy->to.buffer == ZC_RECV && flow.to_at < copy->to.offset + copy->bytes &&
           copy->to.offset < flow.to_at + flow.bytes;
}

/* The same of what goes through host memory: a wait stays before the copy that it is for, and a
 * copy before the word that the chunk is there, or taken. */
static bool must_stay_in_host_memory(const struct zc_plan *plan, const struct zc_step *first)
{
    const struct zc_step *second = first + 1, *third = first + 2;
    const uint32_t self = plan->request.rank;

    if (first->kind == ZC_STEP_WAIT && second->kind == ZC_STEP_COPY)
        return first->channel == ZC_CHANNEL_FILLED
                   ? second->from.buffer == ZC_HOST && brings(plan, second, first->peer)
                   : second->to.buffer == ZC_HOST && third < plan->steps + plan->step_count &&
                         third->kind == ZC_STEP_SIGNAL && third->peer == first->peer;
    if (first->kind == ZC_STEP_COPY && second->kind == ZC_STEP_SIGNAL)
        return second->channel == ZC_CHANNEL_FILLED
                   ? first->to.buffer == ZC_HOST &&
                         zc_flow_between(plan->request.layout, self, second->peer).bytes > 0
                   : first->from.buffer == ZC_HOST && first->from.rank == second->peer &&
                         is_taken_before(plan, second);
    return false;
}

/* Whoever has said done has begun the call, so that its output is open. */
static bool has_begun(const struct zc_plan *plan, const struct zc_step *before)
{
    for (const struct zc_step *step = plan->steps; step < before; step++)
        if (step->kind == ZC_STEP_WAIT && step->peer == before->peer &&
            step->channel == ZC_CHANNEL_DONE)
            return true;
    return false;
}

/* Whether a step must stay before the next one: a wait for leave to write, or for what is read,
 * before the copy; a copy before the last word that it is there, and before what reads or sends its
 * bytes; what is received before what reads it.
 * All else may change places. */
static bool must_stay(const struct zc_plan *plan, const struct zc_step *first, bool in_place)
{
    const struct zc_step *second = first + 1;
    const uint32_t self = plan->request.rank;

    if (first->lane != second->lane)
        return false;
    if (zc_has(plan->request.algorithm, ZC_USES_HOST) &&
        (first->kind == ZC_STEP_WAIT || second->kind == ZC_STEP_SIGNAL))
        return must_stay_in_host_memory(plan, first);
    if (first->kind == ZC_STEP_WAIT && second->kind == ZC_STEP_COPY)
        return first->channel == ZC_CHANNEL_DONE
                   ? second->from.rank == first->peer && !(in_place && is_told_again(plan, first))
                   : writes(second, first->peer) && !has_begun(plan, first);
    if (first->kind == ZC_STEP_COPY && second->kind == ZC_STEP_SIGNAL)
        return is_last_word(plan, second) &&
               (first->to.rank == second->peer ||
                (first->to.rank == self && first->to.buffer == ZC_SCRATCH &&
                 zc_flow_between(plan->request.layout, self, second->peer).bytes > 0));
    if (first->kind == ZC_STEP_COPY && second->kind == ZC_STEP_COPY)
        return overlap(&first->to, first, &second->from, second) ||
               overlap(&first->from, first, &second->to, second);
    if (first->kind == ZC_STEP_COPY && second->kind == ZC_STEP_NET_SEND)
        return overlap(&first->to, first, &second->from, second);
    if (first->kind == ZC_STEP_NET_RECV && second->kind == ZC_STEP_COPY)
        return overlap(&first->to, first, &second->from, second);
    return false;
}

/* Breaks that rank's plan of that call in every way. */
static void break_plan(struct mutants *mutants, const struct kind *kind, uint32_t broken,
                       uint32_t rank)
{
    struct zc_plan *plan = mutants->calls[broken].plans[rank];
    const struct zc_plan whole = *plan;
    struct zc_step *steps = calloc(whole.step_count + 1, sizeof *steps);

    plan->steps = steps;
    for (uint32_t i = 0; i < whole.step_count; i++) {
        memcpy(steps, whole.steps, i * sizeof *steps);
        memcpy(steps + i, whole.steps + i + 1, (whole.step_count - i - 1) * sizeof *steps);
        plan->step_count = whole.step_count - 1;
        expect_caught(mutants, kind, "is missing", rank, i);
        memcpy(steps, whole.steps, (i + 1) * sizeof *steps);
        memcpy(steps + i + 1, whole.steps + i, (whole.step_count - i) * sizeof *steps);
        plan->step_count = whole.step_count + 1;
        expect_caught(mutants, kind, "stands twice", rank, i);
        if (i + 1 == whole.step_count || !must_stay(&whole, &whole.steps[i], kind->in_place))
            continue;
        memcpy(steps, whole.steps, whole.step_count * sizeof *steps);
        steps[i] = whole.steps[i + 1];
        steps[i + 1] = whole.steps[i];
        plan->step_count = whole.step_count;
        expect_caught(mutants, kind, "stands behind the next", rank, i);
    }
    free(steps);
    *plan = whole;
}

/* Three calls, of which the second is broken. */
static void check_mutants(const struct kind *kind, void *data)
{
    struct mutants *mutants = data;

    if (mutants->replayed && zc_has(kind->algorithm, ZC_EAGER_ONLY))
        return;
    mutants->count = 3;
    for (uint32_t ranks = 2; ranks <= 4; ranks++) {
        uint32_t made = 0;

        if (kind->node_ranks != 0 && ranks % kind->node_ranks != 0)
            continue;
        /* The last call waits for as little as it can. */
        while (made < 3 &&
               make_call(&mutants->calls[made], kind, ranks, 1,
                         (struct zc_request){.half = made % 2,
                                             .lanes = made == 0 ? 1 : 2,
                                             .closed = mutants->replayed &&
                                                       zc_has(kind->algorithm, ZC_CLOSES)}))
            made++;
        for (uint32_t rank = 0; made == 3 && rank < ranks; rank++)
            break_plan(mutants, kind, 1, rank);
        for (uint32_t i = 0; i <= made && i < 3; i++)
            free_call(&mutants->calls[i]);
    }
}

/* What says ready early, and the run that relies on it: each is broken. */
static void check_released_mutants(const struct kind *kind, void *data)
{
    struct mutants *mutants = data;

    if (!zc_has(kind->algorithm, ZC_SAYS_READY))
        return;
    mutants->count = 4;
    for (uint32_t ranks = 2; ranks <= 4; ranks++) {
        const bool made = make_released(mutants->calls, kind, ranks);

        for (uint32_t rank = 0; made && rank < ranks; rank++) {
            break_plan(mutants, kind, 1, rank);
            break_plan(mutants, kind, 2, rank);
        }
        for (uint32_t i = 0; i < 4; i++)
            free_call(&mutants->calls[i]);
    }
}

static void check_mutants_over_nodes(const struct kind *kind, void *data)
{
    on_nodes(kind, check_mutants, data);
}

static void every_broken_plan_is_caught(void **state)
{
    struct mutants mutants = {.calls = calloc(4, sizeof *mutants.calls)};

    (void)state;
    for_each_kind(check_mutants, &mutants);
    for_each_kind(check_mutants_over_nodes, &mutants);
    for_each_kind(check_released_mutants, &mutants);
    mutants.replayed = true;
    for_each_kind(check_mutants, &mutants);
    print_message("%u broken plans, %u of them not noticed\n", mutants.tried, mutants.survived);
    assert_true(mutants.tried > 1000);
    assert_int_equal(mutants.survived, 0);
    free(mutants.calls);
}

/* ---- Partners ---- */

/* Two ranks that mean different flows are no call. */
static void partners_that_do_not_match(void **state)
{
    struct call *call = calloc(1, sizeof *call);
    char text[256] = "";

    (void)state;
    for (int id = 1; id < ZC_COLLECTIVE_IDS; id++) {
        const struct kind kind = {.collective = zc_collective_of((zcta_collective)id),
                                  .algorithm = &zc_direct_push,
                                  .bytes = BYTES};

        if ((kind.collective->traits & ZC_PARTNERS) == 0)
            continue;
        assert_true(make_call(call, &kind, 3, 1, plain(0)));
        call->layouts.of[1].to_bytes++;
        assert_int_equal(verify(call, 1, false, text), ZCTA_ERR_INVALID);
        assert_non_null(strstr(text, "the same flow"));
        free_call(call);
    }
    free(call);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_collective_by_every_algorithm),
        cmocka_unit_test(what_crosses_goes_over_nodes),
        cmocka_unit_test(empty_and_single_bytes),
        cmocka_unit_test(lanes_may_be_one),
        cmocka_unit_test(every_collective_behind_every_other),
        cmocka_unit_test(every_collective_that_says_ready_can_be_released),
        cmocka_unit_test(every_broken_plan_is_caught),
        cmocka_unit_test(partners_that_do_not_match),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
