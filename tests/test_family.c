/* Every collective on the host device, through the public API alone: which bytes must be where
 * follows from zcta_call_flow(), so nothing here names a collective but where one is special.
 * Eager, on streams, prepared, released; in place and not; with empty shares, every root, uneven
 * counts, and one collective behind another into the same buffers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support_family.h"

/* ---- Running ---- */

enum manner { EAGER, ON_STREAM, PREPARED, RELEASED, MANNERS };

struct bench {
    zcta_context *context;
    zcta_team *team;
    zcta_host_stream *stream;
    unsigned char *expected;
    struct family_call call;
    uint32_t round;
};

static zcta_status run(struct bench *b, enum manner manner, zcta_plan *plan)
{
    zcta_status status;

    switch (manner) {
    case EAGER:
        return zcta_run(b->team, &b->call.call, NULL);
    case ON_STREAM:
        status = zcta_run(b->team, &b->call.call, b->stream);
        return status == ZCTA_OK ? zcta_host_stream_synchronize(b->stream) : status;
    case PREPARED:
    case RELEASED:
        return zcta_plan_run(plan, NULL);
    case MANNERS:
        break;
    }
    return ZCTA_ERR_INVALID;
}

/* Three rounds, the contents of each its own. All ranks meet between a round's check and the next
 * one's filling, for another rank may be ahead and push. */
static void run_rounds(struct bench *b, enum manner manner)
{
    struct family_call *c = &b->call;
    zcta_plan *plan = NULL;

    if (manner >= PREPARED)
        EXPECT_OK(b->context, zcta_plan_make(b->team, &c->call, &plan));
    for (uint32_t i = 0; i < 3; i++) {
        const uint32_t round = b->round++;

        memset(c->window, (int)(7 + round), FAMILY_ROOM);
        family_fill(c, round);
        memcpy(b->expected, c->window, FAMILY_ROOM);
        EXPECT_OK(b->context, zcta_barrier(b->team, NULL));
        if (manner == RELEASED)
            EXPECT_OK(b->context, zcta_release(plan, NULL));
        EXPECT_OK(b->context, run(b, manner, plan));
        if (c->call.recv == c->window + FAMILY_MARGIN)
            family_expect_window(c, round, b->expected);
        else
            family_expect(c, round);
        EXPECT_OK(b->context, zcta_barrier(b->team, NULL));
    }
    if (plan != NULL)
        EXPECT_OK(b->context, zcta_plan_free(&plan));
}

static void open_bench(struct bench *b, zcta_context *context, zcta_window **window)
{
    *b = (struct bench){.context = context, .team = zcta_world(context)};
    EXPECT_OK(context, zcta_window_alloc(b->team, FAMILY_ROOM, window));
    EXPECT_OK(context, zcta_host_stream_create(context, &b->stream));
    b->call.ranks = zcta_team_rank_count(b->team);
    b->call.rank = zcta_team_rank(b->team);
    b->call.window = zcta_window_base(*window);
    b->call.input = malloc(FAMILY_ROOM);
    b->expected = malloc(FAMILY_ROOM);
    EXPECT(b->call.input != NULL && b->expected != NULL);
}

static void close_bench(struct bench *b, zcta_window **window)
{
    EXPECT_OK(b->context, zcta_host_stream_destroy(&b->stream));
    EXPECT_OK(b->context, zcta_window_free(window));
    free(b->call.input);
    free(b->expected);
}

/* ---- The tests ---- */

static void all_manners(zcta_context *context, void *data)
{
    static const size_t sizes[] = {1, 1000, 70000};
    zcta_window *window = NULL;
    struct bench b;
    uint32_t traits;

    (void)data;
    open_bench(&b, context, &window);
    FOR_EACH_COLLECTIVE(id, traits)
    {
        const bool uneven = (traits & ZCTA_COLLECTIVE_UNEVEN) != 0;

        for (uint32_t i = 0; i < 3 * MANNERS; i++) {
            const size_t bytes = sizes[i / MANNERS];
            const enum family_shape shape =
                uneven ? (enum family_shape)((i + (uint32_t)id) % FAMILY_SHAPES) : EVEN;

            family_make(&b.call, (zcta_collective)id, bytes, shape, i);
            run_rounds(&b, (enum manner)(i % MANNERS));
            if (family_put_in_place(&b.call))
                run_rounds(&b, (enum manner)(i % MANNERS));
        }
    }
    close_bench(&b, &window);
}

static void every_collective_in_every_manner(void **state)
{
    (void)state;
    for (uint32_t ranks = 1; ranks <= FAMILY_RANKS_MOST; ranks += 2)
        run_as_threads(ranks, all_manners, NULL);
    run_as_processes(4, all_manners, NULL);
}

static void all_roots_and_shapes(zcta_context *context, void *data)
{
    zcta_window *window = NULL;
    struct bench b;
    uint32_t traits;

    (void)data;
    open_bench(&b, context, &window);
    FOR_EACH_COLLECTIVE(id, traits)
    {
        for (uint32_t i = 0; i < FAMILY_RANKS_MOST * FAMILY_SHAPES; i++) {
            if (i >= FAMILY_RANKS_MOST && (traits & ZCTA_COLLECTIVE_UNEVEN) == 0)
                break;
            family_make(&b.call, (zcta_collective)id, 333,
                        (enum family_shape)(i / FAMILY_RANKS_MOST), i);
            run_rounds(&b, EAGER);
        }
    }
    close_bench(&b, &window);
}

static void every_root_shape_and_distance(void **state)
{
    (void)state;
    run_as_threads(4, all_roots_and_shapes, NULL);
}

/* Empty calls return, change nothing, and leave the others in step. */
static void nothing_to_move(zcta_context *context, void *data)
{
    zcta_window *window = NULL;
    struct bench b;
    uint32_t traits;

    (void)data;
    open_bench(&b, context, &window);
    FOR_EACH_COLLECTIVE(id, traits)
    {
        family_make(&b.call, (zcta_collective)id, 0, EVEN, 1);
        run_rounds(&b, EAGER);
        run_rounds(&b, PREPARED);
        family_make(&b.call, (zcta_collective)id, 100, EVEN, 1);
        run_rounds(&b, EAGER);
    }
    close_bench(&b, &window);
}

static void empty_calls(void **state)
{
    (void)state;
    run_as_threads(3, nothing_to_move, NULL);
}

/* Collectives of all kinds behind each other, without a meeting between them, into outputs that lie
 * side by side: each call finds its own bytes, however far ranks are apart. */
static void mixed(zcta_context *context, void *data)
{
    enum { ROUNDS = 40, BYTES = 700, PLACE = 8192 };
    zcta_window *window = NULL;
    struct bench b;
    uint32_t traits, at = 0;

    (void)data;
    open_bench(&b, context, &window);
    memset(b.call.window, 0, FAMILY_ROOM);
    for (uint32_t round = 0; round < ROUNDS; round++)
        FOR_EACH_COLLECTIVE(id, traits)
        {
            struct family_call *c = &b.call;

            family_make(c, (zcta_collective)id, BYTES, (enum family_shape)(round % FAMILY_SHAPES),
                        round);
            c->call.recv = c->window + at++ % 64 * PLACE;
            family_fill(c, round);
            EXPECT_OK(context, zcta_run(b.team, &c->call, NULL));
            family_expect(c, round);
        }
    EXPECT_OK(context, zcta_barrier(b.team, NULL));
    close_bench(&b, &window);
}

static void one_behind_another(void **state)
{
    (void)state;
    run_as_threads(3, mixed, NULL);
    run_as_processes(5, mixed, NULL);
}

/* What a test does with one call that has a matrix. */
typedef void matrix_fn(struct bench *b, uint32_t shape);

/* Each collective that has a share for each pair of ranks, in each shape. */
static void for_each_matrix(zcta_context *context, matrix_fn *function)
{
    zcta_window *window = NULL;
    struct bench b;
    uint32_t traits;

    open_bench(&b, context, &window);
    FOR_EACH_COLLECTIVE(id, traits)
    {
        if ((traits & ZCTA_COLLECTIVE_BY_PAIRS) == 0)
            continue;
        for (uint32_t shape = 0; shape < FAMILY_SHAPES; shape++) {
            family_make(&b.call, (zcta_collective)id, 500, (enum family_shape)shape, 0);
            function(&b, shape);
        }
    }
    close_bench(&b, &window);
}

/* What no matrix is given for is found by meeting, and is the same. */
static void run_own_rows(struct bench *b, uint32_t shape)
{
    struct family_call *c = &b->call;
    const size_t row = (size_t)c->rank * c->ranks;
    const zcta_call whole = c->call;

    memset(c->window, 3, FAMILY_ROOM);
    memset(b->expected, 3, FAMILY_ROOM);
    family_fill(c, shape);
    EXPECT_OK(b->context, zcta_barrier(b->team, NULL));
    c->call.matrix = 0;
    c->call.send_bytes += row;
    c->call.recv_bytes += row;
    c->call.send_offsets += row;
    c->call.recv_offsets += row;
    EXPECT_OK(b->context, zcta_run(b->team, &c->call, NULL));
    c->call = whole;
    family_expect_window(c, shape, b->expected);
    EXPECT_OK(b->context, zcta_barrier(b->team, NULL));
}

static void own_rows(zcta_context *context, void *data)
{
    (void)data;
    for_each_matrix(context, run_own_rows);
}

static void rows_are_gathered_by_meeting(void **state)
{
    (void)state;
    run_as_threads(4, own_rows, NULL);
}

/* The flows are the same without recv_bytes, and, if the shares lie one behind the other anyway,
 * without offsets. */
static void expect_derived(const struct family_call *whole, bool without_offsets)
{
    struct family_call derived = *whole;

    derived.call.recv_bytes = NULL;
    if (without_offsets)
        derived.call.send_offsets = derived.call.recv_offsets = NULL;
    for (uint32_t from = 0; from < whole->ranks; from++)
        for (uint32_t to = 0; to < whole->ranks; to++) {
            const zcta_flow a = family_flow(whole, from, to), b = family_flow(&derived, from, to);

            EXPECT(a.from_at == b.from_at && a.to_at == b.to_at && a.bytes == b.bytes);
        }
}

/* With a matrix the sizes need not be said twice, and each row has its running sums for offsets. */
static void run_derived(struct bench *b, uint32_t shape)
{
    expect_derived(&b->call, shape != SCATTERED);
    b->call.call.recv_bytes = NULL;
    run_rounds(b, EAGER);
    run_rounds(b, PREPARED);
}

static void derived_matrix(zcta_context *context, void *data)
{
    (void)data;
    for_each_matrix(context, run_derived);
}

static void what_a_matrix_says_is_not_needed_twice(void **state)
{
    (void)state;
    run_as_threads(3, derived_matrix, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_collective_in_every_manner),
        cmocka_unit_test(every_root_shape_and_distance),
        cmocka_unit_test(empty_calls),
        cmocka_unit_test(one_behind_another),
        cmocka_unit_test(rows_are_gathered_by_meeting),
        cmocka_unit_test(what_a_matrix_says_is_not_needed_twice),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
