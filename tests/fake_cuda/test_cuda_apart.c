/* GPUs that do not all reach each other: four, of which 0 and 1 do, and 2 and 3. The world goes
 * through the host's memory; those that do reach each other make teams that do not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "support_fake.h"

enum { RANKS = 4, SMALL = 3000, REPLAYS = 3 };
/* Some chunks, and a rest. */
#define LARGE (((size_t)9 << 20) + 5)

static const struct ranks_options options = {.device = ZCTA_DEVICE_CUDA};

static int load_fake(void **state)
{
    (void)state;
    setenv("FAKE_CUDA_LACKS", "islands", 1);
    open_fake();
    return 0;
}

/* All ranks have looked, or filled. */
static void meet(const struct seat *s)
{
    uint32_t mine = 0, all[RANKS];

    synchronize(s);
    EXPECT_OK(s->context, zcta_team_exchange(s->world, &mine, all, sizeof mine));
}

static void gather_in(const struct seat *s, zcta_team *team, uint32_t call)
{
    fill_share(s, call);
    meet(s);
    EXPECT_OK(s->context, zcta_all_gather(team, zcta_window_base(s->send),
                                          zcta_window_base(s->recv), s->share, s->stream, NULL));
    meet(s);
}

/* ---- Who reaches whom ---- */

static void gather_in_islands(zcta_context *context, void *data)
{
    struct seat s = take_seat(context, SMALL);
    const zcta_team_params params = {.size = sizeof params, .policy = ZCTA_POLICY_ZERO};
    const unsigned char *recv = zcta_window_base(s.recv);
    zcta_team *island = NULL;
    const void *view;
    size_t stride;

    (void)data;
    gather_in(&s, s.world, 1);
    expect_shares(&s, 1);
    EXPECT(path_calls(s.world, "all_gather/ce/host-pull", NULL) == 1);
    for (uint32_t rank = 0; rank < RANKS; rank++)
        EXPECT((zcta_window_peer(s.recv, rank) != NULL) == (rank / 2 == s.rank / 2));
    expect_error(context, zcta_window_view(s.recv, &view, &stride), ZCTA_ERR_UNSUPPORTED,
                 "does not reach");
    /* In the same window, straight into each other's memory. */
    EXPECT_OK(context, zcta_team_split(s.world, (int32_t)(s.rank / 2), 0, &params, &island));
    gather_in(&s, island, 2);
    for (uint32_t i = 0; i < 2 * SMALL; i++)
        EXPECT(recv[i] == model_byte(2, s.rank / 2 * 2 + i / SMALL, i % SMALL));
    EXPECT(path_calls(island, "all_gather/ce/push-back", NULL) == 1);
    EXPECT_OK(context, zcta_team_destroy(&island));
    leave_seat(&s);
}

static void who_reaches_each_other_does_not_go_through_the_host(void **state)
{
    (void)state;
    run_as_threads_with(RANKS, &options, gather_in_islands, NULL);
}

/* ---- Long streams ---- */

static void expect_stream(const struct seat *s, uint32_t call)
{
    synchronize(s);
    expect_shares(s, call);
    meet(s);
}

/* Eager, prepared, and replayed, all of several chunks. */
static void stream(zcta_context *context, void *data)
{
    struct seat s = take_seat(context, LARGE);
    const zcta_call call = {.size = sizeof call,
                            .collective = ZCTA_ALL_GATHER,
                            .send = zcta_window_base(s.send),
                            .recv = zcta_window_base(s.recv),
                            .bytes = LARGE,
                            .policy = ZCTA_POLICY_ZERO};
    zcta_plan *plan = NULL;
    zc_cu_graph_exec exec;

    (void)data;
    fill_share(&s, 1);
    meet(&s);
    EXPECT_OK(context, zcta_run(s.world, &call, s.stream));
    expect_stream(&s, 1);
    EXPECT_OK(context, zcta_plan_make(s.world, &call, &plan));
    begin_capture(&s);
    EXPECT_OK(context, zcta_plan_run(plan, s.stream));
    exec = end_capture(&s);
    for (uint32_t i = 0; i < REPLAYS; i++) {
        fill_share(&s, 2 + i);
        meet(&s);
        if (i % 2 == 0)
            replay(&s, exec);
        else
            EXPECT_OK(context, zcta_plan_run(plan, s.stream));
        expect_stream(&s, 2 + i);
    }
    EXPECT(path_calls(s.world, "all_gather/ce/host-stream", NULL) > 0);
    driver.cuGraphExecDestroy(exec);
    EXPECT_OK(context, zcta_plan_free(&plan));
    leave_seat(&s);
}

static void large_shares_go_in_chunks(void **state)
{
    (void)state;
    run_as_threads_with(3, &options, stream, NULL);
}

/* ---- Watched ---- */

static const struct ranks_options hasty = {
    .device = ZCTA_DEVICE_CUDA, .timeout_ns = UINT64_C(1500000000), .may_fail_to_finalize = true};

struct absence {
    zcta_collective collective;
    _Atomic uint32_t arrived;
};

/* Rank 1 does not call. Of a stream each rank waits on two lanes, and has sent nothing on one. */
static void stream_without_one(zcta_context *context, void *data)
{
    struct absence *absence = data;
    struct seat s = take_seat(context, LARGE);
    const uint32_t next = (s.rank + 1) % s.count, previous = (s.rank + s.count - 1) % s.count;
    const zcta_call call = {.size = sizeof call,
                            .collective = absence->collective,
                            .send = zcta_window_base(s.send),
                            .recv = zcta_window_base(s.recv),
                            .bytes = LARGE / s.count,
                            .to = next,
                            .from = previous,
                            .from_bytes = LARGE / s.count};
    zcta_error failure;

    meet(&s);
    if (s.rank != 1)
        EXPECT_OK(context, zcta_run(s.world, &call, s.stream));
    EXPECT(await_failure(s.world) == ZCTA_ERR_TIMEOUT);
    EXPECT_OK(context, zcta_team_failure(s.world, &failure));
    EXPECT(failure.rank == 1);
    EXPECT(zcta_window_peer(s.recv, next) == NULL);
    await_all(&s, &absence->arrived);
    leave_seat(&s);
}

static void who_does_not_come_to_a_stream_is_named(void **state)
{
    static const zcta_collective collectives[] = {ZCTA_ALL_GATHER, ZCTA_ALL_TO_ALL, ZCTA_SEND_RECV};

    (void)state;
    /* What is let go copies in no order, and what it copies is worth nothing. */
    if (UNDER_THREAD_SANITIZER)
        skip();
    setenv("ZEROCTA_P2P", "0", 1); /* two are apart as well */
    for (size_t i = 0; i < sizeof collectives / sizeof *collectives; i++)
        for (uint32_t ranks = 2; ranks <= 3; ranks++) {
            struct absence absence = {.collective = collectives[i]};

            run_as_threads_with(ranks, &hasty, stream_without_one, &absence);
        }
    unsetenv("ZEROCTA_P2P");
}

/* ---- A capture between two calls ---- */

enum { ROUNDS = 300, PLACES = 2 };

/* The second call must not post where others still read what was posted for the first one, though a
 * call that goes another way was captured in between. */
static void capture_between(zcta_context *context, void *data)
{
    struct seat s = take_seat(context, PLACES * SMALL);
    unsigned char *send = zcta_window_base(s.send), *recv = zcta_window_base(s.recv);

    (void)data;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        for (uint32_t i = 0; i < PLACES; i++)
            model_fill(send + i * SMALL, round + i, s.rank, SMALL);
        meet(&s);
        EXPECT_OK(context, zcta_all_gather(s.world, send, recv, SMALL, s.stream, NULL));
        begin_capture(&s);
        EXPECT_OK(context, zcta_all_gather(s.world, send, recv, SMALL, s.stream, NULL));
        driver.cuGraphExecDestroy(end_capture(&s));
        EXPECT_OK(context, zcta_all_gather(s.world, send + SMALL, recv + s.count * SMALL, SMALL,
                                           s.stream, NULL));
        synchronize(&s);
        for (uint32_t i = 0; i < PLACES; i++)
            EXPECT(model_wrong(recv + i * s.count * SMALL, round + i, s.count, SMALL) == 0);
    }
    EXPECT(path_calls(s.world, "all_gather/ce/host-pull", NULL) == PLACES * ROUNDS);
    EXPECT(path_calls(s.world, "all_gather/ce/host-stream", NULL) == ROUNDS);
    leave_seat(&s);
}

static void a_capture_leaves_the_halves_in_turn(void **state)
{
    (void)state;
    run_as_threads_with(RANKS, &options, capture_between, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_reaches_each_other_does_not_go_through_the_host),
        cmocka_unit_test(large_shares_go_in_chunks),
        cmocka_unit_test(who_does_not_come_to_a_stream_is_named),
        cmocka_unit_test(a_capture_leaves_the_halves_in_turn),
    };

    return cmocka_run_group_tests(tests, load_fake, NULL);
}
