/* Captured collectives, replayed: no signal is lost, however the replays of the ranks meet. Ranks
 * as threads on the made-up driver, three and more, as two ranks meet in too few ways. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "support_fake.h"

enum { SHARE = 600, ROUNDS = 6, REPLAYS = UNDER_THREAD_SANITIZER ? 20 : 100 };

static const struct ranks_options on_gpus = {.device = ZCTA_DEVICE_CUDA};

static int load_fake(void **state)
{
    (void)state;
    open_fake();
    return 0;
}

/* ---- Bytes ---- */

/* Under ZERO the share is pushed back, with two *done* from one peer. */
static void capture_and_replay(zcta_context *context, void *data)
{
    const zcta_policy policy = *(const zcta_policy *)data;
    struct seat s = take_seat(context, SHARE);
    zc_cu_graph_exec exec;

    begin_capture(&s);
    EXPECT_OK(context, gather(&s, policy));
    EXPECT_OK(context, zcta_barrier(s.world, s.stream));
    EXPECT_OK(context, gather(&s, policy));
    exec = end_capture(&s);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        fill_share(&s, round);
        for (uint32_t i = 0; i < REPLAYS; i++)
            replay(&s, exec);
        synchronize(&s);
        expect_shares(&s, round);
        fill_share(&s, round + ROUNDS);
        EXPECT_OK(context, zcta_barrier(s.world, s.stream));
        EXPECT_OK(context, gather(&s, policy));
        synchronize(&s);
        expect_shares(&s, round + ROUNDS);
    }
    EXPECT_OK(context, zcta_team_status(s.world));
    driver.cuGraphExecDestroy(exec);
    leave_seat(&s);
}

static void replays_of_gathers_are_right(void **state)
{
    zcta_policy policy = ZCTA_POLICY_DEFAULT;

    (void)state;
    run_as_threads_with(3, &on_gpus, capture_and_replay, &policy);
    run_as_threads_with(4, &on_gpus, capture_and_replay, &policy);
}

static void replays_that_push_back_are_right(void **state)
{
    zcta_policy policy = ZCTA_POLICY_ZERO;

    (void)state;
    run_as_threads_with(2, &on_gpus, capture_and_replay, &policy);
    run_as_threads_with(3, &on_gpus, capture_and_replay, &policy);
    run_as_threads_with(4, &on_gpus, capture_and_replay, &policy);
}

/* A barrier and nothing else, so that nothing but itself holds a fast rank back. */
static void replay_barriers(zcta_context *context, void *data)
{
    struct seat s = take_seat(context, SHARE);
    zc_cu_graph_exec exec;

    (void)data;
    begin_capture(&s);
    EXPECT_OK(context, zcta_barrier(s.world, s.stream));
    exec = end_capture(&s);
    for (uint32_t i = 0; i < ROUNDS * REPLAYS; i++) {
        replay(&s, exec);
        if (i % 50 == 49)
            EXPECT_OK(context, zcta_barrier(s.world, s.stream));
    }
    synchronize(&s);
    EXPECT_OK(context, zcta_team_status(s.world));
    driver.cuGraphExecDestroy(exec);
    leave_seat(&s);
}

static void replays_of_barriers_end(void **state)
{
    (void)state;
    run_as_threads_with(3, &on_gpus, replay_barriers, NULL);
    run_as_threads_with(4, &on_gpus, replay_barriers, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replays_of_gathers_are_right),
        cmocka_unit_test(replays_that_push_back_are_right),
        cmocka_unit_test(replays_of_barriers_end),
    };

    return cmocka_run_group_tests(tests, load_fake, NULL);
}
