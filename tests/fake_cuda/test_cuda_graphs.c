/* Captured collectives, replayed: no signal is lost, however the replays of the ranks meet. Ranks
 * as threads on the fake driver, three and more, as two ranks meet in too few ways. */
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

/* ---- Beside a capture ---- */

/* The same team gathers on another stream while it is being captured, out of place both times, so
 * that both use lanes. */
static void gather_amid_capture(zcta_context *context, void *data)
{
    struct seat s = take_seat(context, SHARE);
    zc_cu_stream captured = s.stream;
    zc_cu_stream beside = NULL;
    zc_cu_graph_exec exec;

    (void)data;
    EXPECT(driver.cuStreamCreate(&beside, ZC_CU_STREAM_NON_BLOCKING) == 0);
    begin_capture(&s);
    EXPECT_OK(context, gather(&s, ZCTA_POLICY_DEFAULT));
    s.stream = beside;
    fill_share(&s, 1);
    EXPECT_OK(context, gather(&s, ZCTA_POLICY_DEFAULT));
    synchronize(&s);
    expect_shares(&s, 1);
    EXPECT_OK(context, zcta_barrier(s.world, s.stream));
    synchronize(&s);
    s.stream = captured;
    EXPECT_OK(context, gather(&s, ZCTA_POLICY_DEFAULT));
    exec = end_capture(&s);
    for (uint32_t call = 2; call < 5; call++) {
        fill_share(&s, call);
        replay(&s, exec);
        synchronize(&s);
        expect_shares(&s, call);
    }
    EXPECT_OK(context, zcta_team_status(s.world));
    driver.cuGraphExecDestroy(exec);
    driver.cuStreamDestroy(beside);
    leave_seat(&s);
}

static void a_call_may_run_while_another_one_is_captured(void **state)
{
    (void)state;
    run_as_threads_with(3, &on_gpus, gather_amid_capture, NULL);
}

/* ---- Deadlines ---- */

static const struct ranks_options hasty = {.device = ZCTA_DEVICE_CUDA,
                                           .timeout_ns = SLOWNESS * UINT64_C(500000000),
                                           .may_fail_to_finalize = true};

enum content { GATHER, PUSH_BACK, BARRIER, CONTENTS };

static zc_cu_graph_exec capture(const struct seat *s, enum content content)
{
    begin_capture(s);
    if (content == BARRIER)
        EXPECT_OK(s->context, zcta_barrier(s->world, s->stream));
    else
        EXPECT_OK(s->context,
                  gather(s, content == GATHER ? ZCTA_POLICY_DEFAULT : ZCTA_POLICY_ZERO));
    return end_capture(s);
}

struct absence {
    uint32_t rank;
    enum content content;
    _Atomic uint32_t arrived;
};

/* One rank, alive, replays no more. */
static void stop_replaying(zcta_context *context, void *data)
{
    struct absence *absent = data;
    struct seat s = take_seat(context, SHARE);
    zc_cu_graph_exec exec = capture(&s, absent->content);
    zcta_error error;
    uint64_t begin;

    replay(&s, exec);
    replay(&s, exec);
    synchronize(&s);
    begin = now_ns();
    for (uint32_t i = 0; i < 3 && s.rank != absent->rank; i++)
        replay(&s, exec);
    synchronize(&s);
    EXPECT(await_failure(s.world) == ZCTA_ERR_TIMEOUT);
    EXPECT(now_ns() - begin < 4 * hasty.timeout_ns);
    EXPECT_OK(context, zcta_last_error(context, &error));
    EXPECT(error.rank == absent->rank);
    await_all(&s, &absent->arrived);
    driver.cuGraphExecDestroy(exec);
    leave_seat(&s);
}

static void who_stops_replaying_is_named(void **state)
{
    (void)state;
    for (uint32_t rank = 0; rank < 3; rank++)
        for (int content = 0; content < CONTENTS; content++) {
            struct absence absent = {rank, (enum content)content, 0};

            run_as_threads_with(3, &hasty, stop_replaying, &absent);
        }
}

/* A slow rank looks absent most of the time, and is not. */
static void replay_slowly(zcta_context *context, void *data)
{
    struct seat s = take_seat(context, SHARE);
    zc_cu_graph_exec exec = capture(&s, *(const enum content *)data);

    for (uint32_t i = 0; i < 30; i++) {
        if (s.rank == 1)
            sleep_ms(50 * SLOWNESS);
        replay(&s, exec);
        if (s.rank == 1)
            synchronize(&s);
    }
    synchronize(&s);
    EXPECT_OK(context, zcta_team_status(s.world));
    driver.cuGraphExecDestroy(exec);
    leave_seat(&s);
}

static void who_is_slow_is_not_named(void **state)
{
    (void)state;
    for (int content = 0; content < CONTENTS; content++)
        run_as_threads_with(3, &hasty, replay_slowly, &content);
}

static void one_captures(zcta_context *context, void *data)
{
    struct seat s = take_seat(context, SHARE);
    const bool captures = s.rank == 1;
    zc_cu_graph_exec exec;

    (void)data;
    if (captures)
        begin_capture(&s);
    expect_error(context, gather(&s, ZCTA_POLICY_DEFAULT), ZCTA_ERR_MISMATCH,
                 "do not agree on the capture into a graph: rank 1 says 1");
    if (captures) {
        exec = end_capture(&s);
        driver.cuGraphExecDestroy(exec);
    }
    leave_seat(&s);
}

static void who_captures_alone_is_named_under_check(void **state)
{
    const struct ranks_options options = {.device = ZCTA_DEVICE_CUDA, .check = 1};

    (void)state;
    run_as_threads_with(3, &options, one_captures, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_captures_alone_is_named_under_check),
        cmocka_unit_test(replays_of_gathers_are_right),
        cmocka_unit_test(replays_that_push_back_are_right),
        cmocka_unit_test(replays_of_barriers_end),
        cmocka_unit_test(a_call_may_run_while_another_one_is_captured),
        cmocka_unit_test(who_stops_replaying_is_named),
        cmocka_unit_test(who_is_slow_is_not_named),
    };

    return cmocka_run_group_tests(tests, load_fake, NULL);
}
