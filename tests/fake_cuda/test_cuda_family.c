/* Every collective on GPUs: eager, prepared, released, and captured and replayed, in place and not,
 * under every policy. Under ZERO and EFFICIENCY no copy stays within one GPU. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "support_fake.h"
#include "support_family.h"

enum { REPLAYS = UNDER_THREAD_SANITIZER ? 5 : 20 };

static fake_cuda_local_copies_fn *local_copies;

static int load_fake(void **state)
{
    (void)state;
    find_fake(open_fake(), "fake_cuda_local_copies", &local_copies);
    return 0;
}

struct rank {
    struct seat seat;
    zcta_window *input;
    struct family_call call;
    uint32_t round;
};

static void take_place(struct rank *r, zcta_context *context)
{
    *r = (struct rank){.seat = take_seat(context, FAMILY_ROOM)};
    EXPECT_OK(context, zcta_window_alloc(r->seat.world, FAMILY_ROOM, &r->input));
    r->call.ranks = r->seat.count;
    r->call.rank = r->seat.rank;
    r->call.window = zcta_window_base(r->seat.recv);
    r->call.input = zcta_window_base(r->input);
}

/* All ranks have looked, or filled; none is ahead. */
static void meet(struct rank *r)
{
    uint32_t mine = 0, all[FAMILY_RANKS_MOST];

    synchronize(&r->seat);
    EXPECT_OK(r->seat.context, zcta_team_exchange(r->seat.world, &mine, all, sizeof mine));
}

enum manner { EAGER, PREPARED, RELEASED, REPLAYED, MANNERS };

static void run_manner(struct rank *r, enum manner manner)
{
    const struct seat *s = &r->seat;
    zcta_plan *plan = NULL;
    zc_cu_graph_exec exec = NULL;

    if (manner == PREPARED || manner == RELEASED)
        EXPECT_OK(s->context, zcta_plan_make(s->world, &r->call.call, &plan));
    if (manner == REPLAYED) {
        begin_capture(s);
        EXPECT_OK(s->context, zcta_run(s->world, &r->call.call, s->stream));
        exec = end_capture(s);
    }
    for (uint32_t i = 0; i < 2; i++) {
        const uint32_t round = r->round++;

        memset(r->call.window, (int)round, FAMILY_ROOM);
        family_fill(&r->call, round);
        meet(r);
        if (manner == RELEASED)
            EXPECT_OK(s->context, zcta_release(plan, s->stream));
        if (manner == EAGER)
            EXPECT_OK(s->context, zcta_run(s->world, &r->call.call, s->stream));
        else if (manner == REPLAYED)
            for (uint32_t j = 0; j < REPLAYS; j++)
                replay(s, exec);
        else
            EXPECT_OK(s->context, zcta_plan_run(plan, s->stream));
        synchronize(s);
        family_expect(&r->call, round);
        meet(r);
    }
    if (plan != NULL)
        EXPECT_OK(s->context, zcta_plan_free(&plan));
    if (exec != NULL)
        driver.cuGraphExecDestroy(exec);
}

/* ---- Right bytes ---- */

static void run_all(zcta_context *context, void *data)
{
    const size_t bytes = *(const size_t *)data;
    struct rank r;
    uint32_t traits, i = 0;

    take_place(&r, context);
    FOR_EACH_COLLECTIVE(id, traits)
    {
        for (int policy = ZCTA_POLICY_DEFAULT; policy <= ZCTA_POLICY_ZERO; policy++)
            for (int manner = 0; manner < MANNERS; manner++, i++) {
                const bool uneven = (traits & ZCTA_COLLECTIVE_UNEVEN) != 0;

                family_make(&r.call, (zcta_collective)id, bytes,
                            uneven ? (enum family_shape)(i % FAMILY_SHAPES) : EVEN, i);
                r.call.call.policy = (zcta_policy)policy;
                run_manner(&r, (enum manner)manner);
                if (family_put_in_place(&r.call))
                    run_manner(&r, (enum manner)manner);
            }
    }
    EXPECT_OK(context, zcta_team_status(r.seat.world));
    leave_seat(&r.seat);
}

static void every_collective_in_every_manner(void **state)
{
    const struct ranks_options options = {.device = ZCTA_DEVICE_CUDA};
    size_t bytes = 600;

    (void)state;
    for (uint32_t ranks = 2; ranks <= 4; ranks++)
        run_as_threads_with(ranks, &options, run_all, &bytes);
    bytes = 100000;
    run_as_threads_with(3, &options, run_all, &bytes);
}

/* ---- No SM ---- */

static void count_local_copies(zcta_context *context, void *data)
{
    struct rank r;
    uint32_t traits;
    uint64_t before;

    (void)data;
    take_place(&r, context);
    FOR_EACH_COLLECTIVE(id, traits)
    {
        for (uint32_t root = 0; root < r.seat.count; root++) {
            family_make(&r.call, (zcta_collective)id, 5000, SCATTERED, root);
            r.call.call.policy = ZCTA_POLICY_ZERO;
            meet(&r);
            before = local_copies();
            meet(&r);
            run_manner(&r, EAGER);
            EXPECT(local_copies() == before);
            meet(&r);
        }
    }
    leave_seat(&r.seat);
}

static void zero_copies_nothing_within_a_gpu(void **state)
{
    const struct ranks_options options = {.device = ZCTA_DEVICE_CUDA};

    (void)state;
    run_as_threads_with(2, &options, count_local_copies, NULL);
    run_as_threads_with(4, &options, count_local_copies, NULL);
}

/* A rank alone has no neighbour to take its share through. */
static void run_alone(zcta_context *context, void *data)
{
    struct rank r;

    (void)data;
    take_place(&r, context);
    family_make(&r.call, ZCTA_ALL_TO_ALL, 600, EVEN, 0);
    r.call.call.policy = ZCTA_POLICY_ZERO;
    expect_error(context, zcta_run(r.seat.world, &r.call.call, r.seat.stream), ZCTA_ERR_POLICY,
                 "needs SMs");
    leave_seat(&r.seat);
}

static void zero_is_refused_to_a_rank_alone(void **state)
{
    const struct ranks_options options = {.device = ZCTA_DEVICE_CUDA};

    (void)state;
    run_as_threads_with(1, &options, run_alone, NULL);
}

/* ---- Large ---- */

/* A chain of many chunks, more than there are slots: each is awaited, and the watchers know of
 * each. The window alone is touched, and the root is in place, so that it costs no more than that.
 */
static void run_large(zcta_context *context, void *data)
{
    const size_t bytes = *(const size_t *)data;
    struct seat s = take_seat(context, bytes / 3 + 1);
    uint32_t *recv = zcta_window_base(s.recv);
    const size_t last = bytes / sizeof *recv - 1;

    for (uint32_t round = 0; round < 3; round++) {
        uint32_t mine = 0, all[FAMILY_RANKS_MOST];

        recv[0] = recv[last / 2] = recv[last] = s.rank == 1 ? 7 + round : 0;
        synchronize(&s);
        EXPECT_OK(context, zcta_team_exchange(s.world, &mine, all, sizeof mine));
        EXPECT_OK(context, zcta_broadcast(s.world, s.rank == 1 ? recv : NULL, recv, bytes, 1,
                                          s.stream, NULL));
        synchronize(&s);
        EXPECT(recv[0] == 7 + round && recv[last / 2] == 7 + round && recv[last] == 7 + round);
        EXPECT_OK(context, zcta_team_exchange(s.world, &mine, all, sizeof mine));
    }
    EXPECT(path_calls(s.world, "broadcast/ce/chain", NULL) == 3);
    EXPECT(path_calls(s.world, "broadcast/ce/scatter-allgather", NULL) == 0);
    leave_seat(&s);
}

static void the_largest_broadcasts_go_in_a_chain(void **state)
{
    const struct ranks_options options = {.device = ZCTA_DEVICE_CUDA};
    size_t bytes = (size_t)128 << 20;

    (void)state;
    if (are_kept_apart())
        skip();
    run_as_threads_with(3, &options, run_large, &bytes);
}

/* ---- Watched ---- */

enum { DEADLINE_MS = 2000, BROADCASTS_MS = 5000 };

static const struct ranks_options hasty = {.device = ZCTA_DEVICE_CUDA,
                                           .timeout_ns = DEADLINE_MS * UINT64_C(1000000),
                                           .may_fail_to_finalize = true};

static zc_cu_graph_exec capture(struct rank *r)
{
    begin_capture(&r->seat);
    EXPECT_OK(r->seat.context, zcta_run(r->seat.world, &r->call.call, r->seat.stream));
    return end_capture(&r->seat);
}

/* The root is the last one each time, so that at every look the others wait, and nobody has
 * anything for them but the root. */
static void replay_slowly(zcta_context *context, void *data)
{
    const zcta_collective collective = *(const zcta_collective *)data;
    const uint64_t end = now_ns() + BROADCASTS_MS * UINT64_C(1000000);
    struct rank r;
    zc_cu_graph_exec exec;
    uint32_t go = 1, all[FAMILY_RANKS_MOST];

    take_place(&r, context);
    family_make(&r.call, collective, 600, EVEN, 0);
    exec = capture(&r);
    while (go) {
        if (r.seat.rank == 0)
            sleep_ms(20);
        replay(&r.seat, exec);
        synchronize(&r.seat);
        go = now_ns() < end;
        EXPECT_OK(context, zcta_team_exchange(r.seat.world, &go, all, sizeof go));
        go = all[0];
    }
    EXPECT_OK(context, zcta_team_status(r.seat.world));
    driver.cuGraphExecDestroy(exec);
    leave_seat(&r.seat);
}

static void replays_that_go_on_are_not_late(void **state)
{
    zcta_collective collective = ZCTA_BROADCAST;

    (void)state;
    run_as_threads_with(3, &hasty, replay_slowly, &collective);
    collective = ZCTA_SCATTER;
    run_as_threads_with(3, &hasty, replay_slowly, &collective);
}

/* Rank 2 replays once less; the others name it, whoever waits for whom in the collective. */
static void replay_without_one(zcta_context *context, void *data)
{
    static _Atomic uint32_t arrived;
    struct rank r;
    zc_cu_graph_exec exec;
    zcta_error failure;

    (void)data;
    take_place(&r, context);
    family_make(&r.call, ZCTA_BROADCAST, 600, EVEN, 0);
    exec = capture(&r);
    replay(&r.seat, exec);
    meet(&r);
    if (r.seat.rank != 2)
        replay(&r.seat, exec);
    EXPECT(await_failure(r.seat.world) == ZCTA_ERR_TIMEOUT);
    EXPECT_OK(context, zcta_team_failure(r.seat.world, &failure));
    EXPECT(failure.rank == 2);
    await_all(&r.seat, &arrived);
    synchronize(&r.seat);
    driver.cuGraphExecDestroy(exec);
    leave_seat(&r.seat);
}

/* Rank 1 does not call: the root waits for it, rank 2 for the root, and all name rank 1. */
static void broadcast_without_one(zcta_context *context, void *data)
{
    static _Atomic uint32_t arrived;
    struct rank r;
    zcta_error failure;

    (void)data;
    take_place(&r, context);
    family_make(&r.call, ZCTA_BROADCAST, 600, EVEN, 0);
    meet(&r);
    if (r.seat.rank != 1)
        EXPECT_OK(context, zcta_run(r.seat.world, &r.call.call, r.seat.stream));
    EXPECT(await_failure(r.seat.world) == ZCTA_ERR_TIMEOUT);
    EXPECT_OK(context, zcta_team_failure(r.seat.world, &failure));
    EXPECT(failure.rank == 1);
    await_all(&r.seat, &arrived);
    leave_seat(&r.seat);
}

static void who_holds_up_all_is_named(void **state)
{
    (void)state;
    run_as_threads_with(3, &hasty, broadcast_without_one, NULL);
}

static void a_rank_that_does_not_replay_is_named(void **state)
{
    (void)state;
    run_as_threads_with(3, &hasty, replay_without_one, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_collective_in_every_manner),
        cmocka_unit_test(zero_copies_nothing_within_a_gpu),
        cmocka_unit_test(zero_is_refused_to_a_rank_alone),
        cmocka_unit_test(the_largest_broadcasts_go_in_a_chain),
        cmocka_unit_test(replays_that_go_on_are_not_late),
        cmocka_unit_test(a_rank_that_does_not_replay_is_named),
        cmocka_unit_test(who_holds_up_all_is_named),
    };

    return cmocka_run_group_tests(tests, load_fake, NULL);
}
