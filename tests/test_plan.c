/* Every algorithm's plans are right: for every team size to 17 and some large ones, for odd and
 * zero sizes, in place and not, with and without lanes and blocks, and for calls that directly
 * follow each other on the same buffers. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "support_plans.h"

static const uint64_t sizes[] = {0, 1, 3, 64, 1000, 4097};

static void expect_right(const struct zc_request *request, uint32_t calls)
{
    struct team_plans teams[3] = {0};
    struct zc_request call = *request;
    char text[256] = "";

    for (uint32_t i = 0; i < calls; i++) {
        call.half = i % 2;
        make_plans(&teams[i], call);
    }
    if (verify_calls(teams, calls, text, sizeof text) != ZCTA_OK)
        fail_msg("%s, %u ranks, %llu bytes, in place %d, lanes %u, block %llu, %u calls: %s",
                 call.algorithm->name, call.layout->ranks, (unsigned long long)call.layout->bytes,
                 call.in_place, call.lanes, (unsigned long long)call.block_bytes, calls, text);
    for (uint32_t i = 0; i < calls; i++)
        free_plans(&teams[i]);
}

static void expect_all_variants(const struct zc_algorithm *algorithm, uint32_t ranks,
                                uint64_t bytes)
{
    static const uint64_t blocks[] = {0, 7, 1000};
    const struct zc_layout layout = even_layout(usual_collective(algorithm), ranks, bytes, 0);
    const bool pushes = zc_has(algorithm, ZC_GROUPS);

    if (zc_has(algorithm, ZC_RETURNS_OWN) && ranks == 1)
        return; /* nobody is there to push back */
    for (uint32_t variant = 0; variant < (pushes ? 8 : 4); variant++)
        for (uint32_t block = 0; block < 3; block++) {
            struct zc_request request = usual_request(algorithm, &layout, variant & 1);

            request.lanes = variant & 2 ? 2 : 1;
            request.grouped = (variant & 4) != 0;
            request.block_bytes = bytes <= 1000 ? blocks[block] : blocks[block] * 100;
            expect_right(&request, 3);
        }
}

/* A release is a part of the call that follows it. */
static bool stands_alone(const struct zc_algorithm *algorithm)
{
    return !zc_has(algorithm, ZC_OPENS);
}

static bool moves_nothing(const struct zc_algorithm *algorithm)
{
    return (usual_collective(algorithm)->traits & ZC_NO_DATA) != 0;
}

static void plans_are_right_for_every_team_size_to_17(void **state)
{
    (void)state;
    for (uint32_t algorithm = 0; algorithm < ZC_ALGORITHMS; algorithm++)
        for (uint32_t ranks = 1; ranks <= 17; ranks++)
            for (size_t size = 0; size < sizeof sizes / sizeof sizes[0]; size++)
                if (stands_alone(zc_algorithms[algorithm]) &&
                    (!moves_nothing(zc_algorithms[algorithm]) || sizes[size] == 0))
                    expect_all_variants(zc_algorithms[algorithm], ranks, sizes[size]);
}

static void closed_barriers_are_right(void **state)
{
    (void)state;
    for (uint32_t ranks = 1; ranks <= 17; ranks++) {
        const struct zc_layout layout = even_layout(&zc_barrier, ranks, 0, 0);
        struct zc_request request = usual_request(&zc_flags, &layout, true);

        request.closed = true;
        expect_right(&request, 3);
    }
}

static void plans_are_right_for_large_teams(void **state)
{
    static const uint32_t counts[] = {24, 32, 63, 72, 100};

    (void)state;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        for (uint32_t number = 0; number < ZC_ALGORITHMS; number++) {
            const struct zc_algorithm *algorithm = zc_algorithms[number];
            const struct zc_layout layout = even_layout(usual_collective(algorithm), counts[i],
                                                        moves_nothing(algorithm) ? 0 : 12345, 0);

            for (int in_place = 0; in_place < 2 && stands_alone(algorithm); in_place++) {
                struct zc_request request = usual_request(algorithm, &layout, in_place);

                expect_right(&request, 2);
            }
        }
}

/* Over several nodes: every way to split the ranks, chunks that divide the share or not, and more
 * chunks than lanes or bytes. */
static void plans_over_nodes_are_right(void **state)
{
    static const uint32_t chunks[] = {0, 1, 3, 16};

    (void)state;
    for (uint32_t ranks = 1; ranks <= 16; ranks++)
        for (uint32_t size = 1; size <= ranks; size++)
            for (uint32_t variant = 0; variant < 16 && ranks % size == 0; variant++) {
                const struct zc_layout gathered =
                    even_layout(&zc_all_gather, ranks, sizes[variant % 6], 0);
                const struct zc_layout nothing = even_layout(&zc_barrier, ranks, 0, 0);
                struct zc_request request = usual_request(&zc_hierarchical, &gathered, variant & 1);
                struct zc_request barrier = usual_request(&zc_flags, &nothing, false);

                request.node_ranks = size;
                request.chunks = chunks[variant / 4];
                request.lanes = variant & 2 ? 16 : 2;
                barrier.node_ranks = size;
                barrier.scratch_bytes = 128;
                expect_right(&barrier, 3);
                expect_right(&request, 3);
            }
}

static void expect_pair_right(struct zc_request first, struct zc_request second)
{
    struct team_plans teams[4];
    char text[256] = "";

    /* There and back again: each is followed by the other. */
    second.half = 1;
    make_plans(&teams[0], first);
    make_plans(&teams[1], second);
    first.half = first.algorithm == second.algorithm ? 0 : 1;
    make_plans(&teams[2], first);
    second.half = first.algorithm == second.algorithm ? 1 : 0;
    make_plans(&teams[3], second);
    if (verify_calls(teams, 4, text, sizeof text) != ZCTA_OK)
        fail_msg("%s then %s, %u ranks: %s", first.algorithm->name, second.algorithm->name,
                 first.layout->ranks, text);
    for (uint32_t i = 0; i < 4; i++)
        free_plans(&teams[i]);
}

static struct zc_layout layout_of_96(const struct zc_algorithm *algorithm, uint32_t ranks)
{
    return even_layout(usual_collective(algorithm), ranks, moves_nothing(algorithm) ? 0 : 96, 0);
}

static void expect_both_orders_right(const struct zc_algorithm *first,
                                     const struct zc_algorithm *second, uint32_t ranks)
{
    const struct zc_layout firsts = layout_of_96(first, ranks);
    const struct zc_layout seconds = layout_of_96(second, ranks);

    for (int place = 0; place < 4; place++) {
        struct zc_request a = usual_request(first, &firsts, place & 1);
        struct zc_request b = usual_request(second, &seconds, place & 2);

        a.scratch_bytes = b.scratch_bytes = 96;
        expect_pair_right(a, b);
    }
}

static void different_collectives_follow_each_other_on_the_same_buffers(void **state)
{
    (void)state;
    for (uint32_t first = 0; first < ZC_ALGORITHMS; first++)
        for (uint32_t second = 0; second < ZC_ALGORITHMS; second++)
            for (uint32_t ranks = 2; ranks <= 9; ranks++)
                if (stands_alone(zc_algorithms[first]) && stands_alone(zc_algorithms[second]))
                    expect_both_orders_right(zc_algorithms[first], zc_algorithms[second], ranks);
}

static void expect_released_right(struct zc_request request)
{
    const struct zc_request release = zc_request_early_ready(&request);
    const struct zc_request released = zc_request_released(&request);
    struct team_plans teams[6];
    char text[256] = "";

    for (uint32_t i = 0; i < 6; i++)
        make_plans(&teams[i], i == 0 || i == 5 ? request : i % 2 == 1 ? release : released);
    if (verify_calls(teams, 6, text, sizeof text) != ZCTA_OK)
        fail_msg("%s, released, %u ranks, %llu bytes, in place %d: %s", request.algorithm->name,
                 request.layout->ranks, (unsigned long long)request.layout->bytes, request.in_place,
                 text);
    for (uint32_t i = 0; i < 6; i++)
        free_plans(&teams[i]);
}

static void released_calls_are_right_among_others(void **state)
{
    (void)state;
    for (uint32_t algorithm = 0; algorithm < ZC_ALGORITHMS; algorithm++)
        for (uint32_t ranks = 2; ranks <= 17; ranks++)
            for (uint32_t variant = 0; variant < 4; variant++) {
                const struct zc_layout layout =
                    even_layout(usual_collective(zc_algorithms[algorithm]), ranks, 1000, 0);
                struct zc_request request =
                    usual_request(zc_algorithms[algorithm], &layout, variant & 1);

                request.lanes = variant & 2 ? 2 : 1;
                if (zc_has(request.algorithm, ZC_SAYS_READY))
                    expect_released_right(request);
            }
}

/* ---- Replayed from graphs ---- */

/* What is replayed: the first, the second and the first again, whatever was captured with what. */
static zcta_status replay_pair(const struct zc_request *first, const struct zc_request *second,
                               char *text, size_t bytes)
{
    struct team_plans teams[3];
    zcta_status status;

    for (uint32_t i = 0; i < 3; i++)
        make_plans(&teams[i], zc_request_captured(i == 1 ? second : first));
    status = verify_replayed(teams, 3, text, bytes);
    for (uint32_t i = 0; i < 3; i++)
        free_plans(&teams[i]);
    return status;
}

static struct zc_request captured_request(const struct zc_algorithm *algorithm,
                                          const struct zc_layout *layout, uint32_t variant)
{
    struct zc_request request = usual_request(algorithm, layout, (variant & 1) != 0);

    request.scratch_bytes = 96;
    request.lanes = variant & 2 ? 2 : 1;
    request.grouped = variant & 4 && zc_has(algorithm, ZC_GROUPS);
    request.block_bytes = variant & 4 ? 40 : 0;
    return request;
}

static bool replays(const struct zc_algorithm *algorithm)
{
    return !zc_has(algorithm, ZC_EAGER_ONLY);
}

static void expect_pair_replays(const struct zc_algorithm *first, const struct zc_algorithm *second,
                                uint32_t ranks)
{
    const struct zc_layout firsts = layout_of_96(first, ranks);
    const struct zc_layout seconds = layout_of_96(second, ranks);
    char text[256] = "";

    for (uint32_t variant = 0; variant < 64; variant++) {
        const struct zc_request a = captured_request(first, &firsts, variant % 8);
        const struct zc_request b = captured_request(second, &seconds, variant / 8);

        if (replay_pair(&a, &b, text, sizeof text) != ZCTA_OK)
            fail_msg("%s, %s, %u ranks: %s", first->name, second->name, ranks, text);
    }
}

static void whatever_is_captured_can_be_replayed_after_whatever_else(void **state)
{
    (void)state;
    for (uint32_t first = 0; first < ZC_ALGORITHMS; first++)
        for (uint32_t second = 0; second < ZC_ALGORITHMS; second++)
            for (uint32_t ranks = 2; ranks <= 7; ranks++)
                if (replays(zc_algorithms[first]) && replays(zc_algorithms[second]))
                    expect_pair_replays(zc_algorithms[first], zc_algorithms[second], ranks);
}

static void what_is_captured_over_nodes_can_be_replayed(void **state)
{
    char text[256] = "";

    (void)state;
    for (uint32_t size = 1; size <= 4; size++)
        for (uint32_t variant = 0; variant < 8; variant++) {
            const struct zc_layout gathered = layout_of_96(&zc_hierarchical, 3 * size);
            const struct zc_layout nothing = layout_of_96(&zc_flags, 3 * size);
            struct zc_request gather = captured_request(&zc_hierarchical, &gathered, variant);
            struct zc_request barrier = captured_request(&zc_flags, &nothing, 0);

            gather.node_ranks = barrier.node_ranks = size;
            gather.chunks = 1 + variant / 4;
            if (replay_pair(&gather, &barrier, text, sizeof text) != ZCTA_OK ||
                replay_pair(&barrier, &gather, text, sizeof text) != ZCTA_OK ||
                replay_pair(&gather, &gather, text, sizeof text) != ZCTA_OK)
                fail_msg("nodes of %u: %s", size, text);
        }
}

/* What is said not to replay does not, so that the proof is not one of anything. */
static void what_must_not_be_captured_is_no_plan_to_replay(void **state)
{
    const struct zc_layout gathered = even_layout(&zc_all_gather, 3, 96, 0);
    const struct zc_layout nothing = even_layout(&zc_barrier, 3, 0, 0);
    struct zc_request pull = usual_request(&zc_scratch_pull, &gathered, true);
    struct zc_request barrier = usual_request(&zc_flags, &nothing, true);
    struct team_plans teams[3];
    char text[256] = "";

    (void)state;
    for (uint32_t i = 0; i < 3; i++) {
        pull.half = i % 2;
        make_plans(&teams[i], pull);
    }
    assert_int_equal(verify_calls(teams, 3, text, sizeof text), ZCTA_OK);
    assert_int_equal(verify_replayed(teams, 3, text, sizeof text), ZCTA_ERR_INVALID);
    assert_non_null(strstr(text, "replayed, it would write a word that is put back after that"));
    for (uint32_t i = 0; i < 3; i++)
        free_plans(&teams[i]);
    /* A barrier that is not closed for it. */
    for (uint32_t i = 0; i < 3; i++)
        make_plans(&teams[i], barrier);
    assert_int_equal(verify_calls(teams, 3, text, sizeof text), ZCTA_OK);
    assert_int_equal(verify_replayed(teams, 3, text, sizeof text), ZCTA_ERR_INVALID);
    for (uint32_t i = 0; i < 3; i++)
        free_plans(&teams[i]);
}

static void expect_refused(const struct zc_request *request)
{
    struct zc_plan *plan = NULL;

    assert_int_equal(zc_plan_make(request, &plan), ZCTA_ERR_INVALID);
    assert_null(plan);
}

static void a_request_that_names_no_plan_is_refused(void **state)
{
    const struct zc_layout layout = even_layout(&zc_all_gather, 4, 64, 0);
    const struct zc_layout alone = even_layout(&zc_all_gather, 1, 64, 0);
    const struct zc_layout nothing = even_layout(&zc_barrier, 4, 0, 0);
    const struct zc_layout empty = {0};
    struct zc_request good = usual_request(&zc_direct_push, &layout, false), bad;

    (void)state;
#define EXPECT_REFUSED(change) (bad = good, (void)(change), expect_refused(&bad))
    EXPECT_REFUSED(bad.rank = 4);
    EXPECT_REFUSED((bad.algorithm = &zc_scratch_pull, bad.released = true));
    EXPECT_REFUSED(bad.closed = true);
    EXPECT_REFUSED((bad.algorithm = &zc_scratch_pull, bad.grouped = true));
    EXPECT_REFUSED(bad.lanes = 0);
    EXPECT_REFUSED(bad.lanes = ZC_MAX_LANES + 1);
    EXPECT_REFUSED(bad.half = 2);
    EXPECT_REFUSED(bad.layout = NULL);
    EXPECT_REFUSED(bad.layout = &empty);
    EXPECT_REFUSED(bad.layout = &nothing);
    EXPECT_REFUSED(bad.algorithm = &zc_flags);
    EXPECT_REFUSED(bad.algorithm = NULL);
    EXPECT_REFUSED((bad.algorithm = &zc_push_back, bad.layout = &alone));
    EXPECT_REFUSED((bad.algorithm = &zc_scratch_pull, bad.scratch_bytes = 63));
    EXPECT_REFUSED(bad.bounced = true);
    EXPECT_REFUSED((bad.bounced = true, bad.bounce_bytes = 64, bad.layout = &alone));
    EXPECT_REFUSED((bad.algorithm = &zc_push_back, bad.bounced = true, bad.bounce_bytes = 64));
    EXPECT_REFUSED(bad.node_ranks = 2);
    EXPECT_REFUSED((bad.algorithm = &zc_hierarchical, bad.node_ranks = 3));
    EXPECT_REFUSED((bad.algorithm = &zc_hierarchical, bad.node_ranks = 8));
#undef EXPECT_REFUSED
}

/* What a request cannot say any more, because its layout cannot be derived. */
static void numbers_that_make_no_layout_are_refused(void **state)
{
    const struct zc_layout good = {.collective = &zc_all_gather, .ranks = 4, .bytes = 64};
    struct zc_layout bad;

    (void)state;
#define EXPECT_REFUSED(change) (bad = good, (void)(change), assert_non_null(zc_layout_derive(&bad)))
    EXPECT_REFUSED(bad.ranks = 0);
    EXPECT_REFUSED(bad.bytes = UINT64_MAX);
    EXPECT_REFUSED(bad.bytes = (uint64_t)INT64_MAX / 4 + 1);
    EXPECT_REFUSED((bad.collective = &zc_broadcast, bad.root = 4));
#undef EXPECT_REFUSED
    bad = good;
    bad.bytes = (uint64_t)INT64_MAX / 4;
    assert_null(zc_layout_derive(&bad));
}

static void zero_bytes_make_an_empty_plan(void **state)
{
    const struct zc_layout layout = even_layout(&zc_all_gather, 8, 0, 0);
    struct zc_request request = usual_request(&zc_direct_push, &layout, false);
    struct zc_plan *plan = NULL;

    (void)state;
    assert_int_equal(zc_plan_make(&request, &plan), ZCTA_OK);
    assert_int_equal(plan->step_count, 0);
    zc_plan_destroy(plan);
}

static void the_largest_share_makes_a_plan_of_bounded_length(void **state)
{
    const struct zc_layout layout = even_layout(&zc_all_gather, 2, INT64_MAX / 2, 0);
    struct zc_request request = usual_request(&zc_direct_push, &layout, false);
    struct zc_plan *plan = NULL;
    char text[256];

    (void)state;
    request.scratch_bytes = 0;
    request.block_bytes = 1;
    request.lanes = 1;
    assert_int_equal(zc_plan_make(&request, &plan), ZCTA_OK);
    assert_in_range(plan->step_count, ZC_MAX_BLOCKS, 3 * ZC_MAX_BLOCKS);
    assert_null(zc_plan_defect(plan, text, sizeof text));
    zc_plan_destroy(plan);
}

/* The order rank+1, rank+2, ... keeps any two ranks from pushing to the same peer at once. */
static void pushes_go_out_in_rotated_order(void **state)
{
    const struct zc_layout layout = even_layout(&zc_all_gather, 8, 64, 0);
    struct zc_request request = usual_request(&zc_direct_push, &layout, true);
    struct zc_plan *plan = NULL;
    uint32_t expected = 6;

    (void)state;
    request.rank = 5;
    assert_int_equal(zc_plan_make(&request, &plan), ZCTA_OK);
    for (uint32_t i = 0; i < plan->step_count; i++)
        if (plan->steps[i].kind == ZC_STEP_COPY) {
            assert_int_equal(plan->steps[i].to.rank, expected);
            expected = (expected + 1) % 8;
        }
    assert_int_equal(expected, 5);
    zc_plan_destroy(plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plans_are_right_for_every_team_size_to_17),
        cmocka_unit_test(closed_barriers_are_right),
        cmocka_unit_test(plans_are_right_for_large_teams),
        cmocka_unit_test(plans_over_nodes_are_right),
        cmocka_unit_test(different_collectives_follow_each_other_on_the_same_buffers),
        cmocka_unit_test(released_calls_are_right_among_others),
        cmocka_unit_test(whatever_is_captured_can_be_replayed_after_whatever_else),
        cmocka_unit_test(what_is_captured_over_nodes_can_be_replayed),
        cmocka_unit_test(what_must_not_be_captured_is_no_plan_to_replay),
        cmocka_unit_test(a_request_that_names_no_plan_is_refused),
        cmocka_unit_test(numbers_that_make_no_layout_are_refused),
        cmocka_unit_test(zero_bytes_make_an_empty_plan),
        cmocka_unit_test(the_largest_share_makes_a_plan_of_bounded_length),
        cmocka_unit_test(pushes_go_out_in_rotated_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
