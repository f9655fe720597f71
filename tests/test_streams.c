/* Streams of the host device: work runs in the order in which it was enqueued, collectives of a
 * team stay ordered across streams, and whatever is freed waits for the work that uses it. */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>

#include <cmocka.h>

#include "api/objects.h"
#include "support_ranks.h"

enum { SHARE = 3000, RANKS = 3 };

struct fixture {
    zcta_context *context;
    zcta_team *world;
    zcta_window *window;
    unsigned char *recv, *own;
    uint32_t rank, count;
    zcta_host_stream *stream;
};

static struct fixture make_fixture(zcta_context *context)
{
    struct fixture f = {.context = context, .world = zcta_world(context)};

    f.rank = zcta_team_rank(f.world);
    f.count = zcta_team_rank_count(f.world);
    EXPECT_OK(context, zcta_window_alloc(f.world, 1 << 20, &f.window));
    f.recv = zcta_window_base(f.window);
    f.own = f.recv + f.rank * SHARE;
    EXPECT_OK(context, zcta_host_stream_create(context, &f.stream));
    return f;
}

static void pause_briefly(void *data)
{
    (void)data;
    sleep_ms(20);
}

static void pause_long(void *data)
{
    (void)data;
    sleep_ms(200 * SLOWNESS);
}

static void count_one(void *data)
{
    atomic_fetch_add((atomic_uint *)data, 1);
}

/* ---- Order ---- */

struct turn {
    const struct fixture *f;
    uint32_t call;
};

static void fill_turn(void *data)
{
    const struct turn *turn = data;

    model_fill(turn->f->own, turn->call, turn->f->rank, SHARE);
}

static void check_turn(void *data)
{
    const struct turn *turn = data;

    EXPECT(model_wrong(turn->f->recv, turn->call, turn->f->count, SHARE) == 0);
}

static void enqueue_turns(zcta_context *context, void *data)
{
    enum { CALLS = 200 };
    const struct fixture f = make_fixture(context);
    struct turn turns[CALLS];

    (void)data;
    for (uint32_t call = 0; call < CALLS; call++) {
        turns[call] = (struct turn){&f, call};
        EXPECT_OK(context, zcta_host_stream_call(f.stream, fill_turn, &turns[call]));
        EXPECT_OK(context, zcta_all_gather(f.world, f.own, f.recv, SHARE, f.stream, NULL));
        EXPECT_OK(context, zcta_host_stream_call(f.stream, check_turn, &turns[call]));
    }
    EXPECT_OK(context, zcta_host_stream_synchronize(f.stream));
    check_turn(&turns[CALLS - 1]);
}

static void a_stream_runs_collectives_and_callbacks_in_order(void **state)
{
    (void)state;
    run_as_threads(RANKS, enqueue_turns, NULL);
    run_as_processes(RANKS, enqueue_turns, NULL);
}

/* Each rank holds up another of its streams; the collectives keep their order all the same. */
static void use_two_streams(zcta_context *context, void *data)
{
    struct fixture f = make_fixture(context);
    zcta_host_stream *streams[2] = {f.stream, NULL};
    unsigned char *sends = malloc(40 * SHARE);

    (void)data;
    EXPECT(sends != NULL);
    EXPECT_OK(context, zcta_host_stream_create(context, &streams[1]));
    for (uint32_t call = 0; call < 40; call++) {
        model_fill(sends + call * SHARE, call, f.rank, SHARE);
        if (call % 10 == 0)
            EXPECT_OK(context, zcta_host_stream_call(streams[(call / 10 + f.rank) % 2],
                                                     pause_briefly, NULL));
        /* All into the same output: the last must win. */
        EXPECT_OK(context, zcta_all_gather(f.world, sends + call * SHARE, f.recv, SHARE,
                                           streams[call % 2], NULL));
    }
    EXPECT_OK(context, zcta_host_stream_synchronize(streams[1]));
    EXPECT(model_wrong(f.recv, 39, f.count, SHARE) == 0);
    EXPECT_OK(context, zcta_host_stream_synchronize(streams[0]));
    EXPECT(model_wrong(f.recv, 39, f.count, SHARE) == 0);
    free(sends);
}

static void collectives_of_a_team_are_ordered_across_streams(void **state)
{
    (void)state;
    run_as_threads(RANKS, use_two_streams, NULL);
    run_as_processes(RANKS, use_two_streams, NULL);
}

static void call_after_stream(zcta_context *context, void *data)
{
    const struct fixture f = make_fixture(context);
    unsigned char *const other = f.recv + (1 << 19), send[SHARE];

    (void)data;
    for (uint32_t call = 0; call < 5; call++) {
        if (f.rank == call % f.count)
            EXPECT_OK(context, zcta_host_stream_call(f.stream, pause_briefly, NULL));
        model_fill(f.own, call, f.rank, SHARE);
        model_fill(send, call + 100, f.rank, SHARE);
        EXPECT_OK(context, zcta_all_gather(f.world, f.own, f.recv, SHARE, f.stream, NULL));
        EXPECT_OK(context, zcta_all_gather(f.world, send, other, SHARE, NULL, NULL));
        /* The earlier one has finished too. */
        EXPECT(model_wrong(f.recv, call, f.count, SHARE) == 0);
        EXPECT(model_wrong(other, call + 100, f.count, SHARE) == 0);
    }
}

static void a_call_without_a_stream_waits_for_those_on_streams(void **state)
{
    (void)state;
    run_as_threads(RANKS, call_after_stream, NULL);
    run_as_processes(RANKS, call_after_stream, NULL);
}

static void synchronize_empty(zcta_context *context, void *data)
{
    const struct fixture f = make_fixture(context);
    zcta_host_stream *stream = f.stream;
    atomic_uint calls = 0;

    (void)data;
    EXPECT_OK(context, zcta_host_stream_synchronize(stream));
    EXPECT_OK(context, zcta_host_stream_synchronize(stream));
    for (int i = 0; i < 10; i++) {
        EXPECT_OK(context,
                  zcta_host_stream_call(stream, i == 0 ? pause_briefly : count_one, &calls));
    }
    EXPECT_OK(context, zcta_host_stream_destroy(&stream));
    EXPECT(stream == NULL && atomic_load(&calls) == 9);
}

static void destroy_runs_what_was_enqueued(void **state)
{
    (void)state;
    run_as_threads(2, synchronize_empty, NULL);
}

static void overfill(zcta_context *context, void *data)
{
    const struct fixture f = make_fixture(context);
    atomic_uint calls = 0;

    (void)data;
    EXPECT_OK(context, zcta_host_stream_call(f.stream, pause_briefly, NULL));
    for (int i = 0; i < 5000; i++)
        EXPECT_OK(context, zcta_host_stream_call(f.stream, count_one, &calls));
    EXPECT_OK(context, zcta_host_stream_call(f.stream, pause_briefly, NULL));
    for (uint32_t i = 0; i < 3000; i++)
        EXPECT_OK(context, zcta_all_gather(f.world, f.own, f.recv, SHARE, f.stream, NULL));
    for (int i = 0; i < 1500; i++)
        EXPECT_OK(context, zcta_barrier(f.world, f.stream));
    EXPECT_OK(context, zcta_host_stream_synchronize(f.stream));
    EXPECT(atomic_load(&calls) == 5000);
}

static void more_work_than_the_queue_holds_is_run_all_the_same(void **state)
{
    (void)state;
    run_as_threads(2, overfill, NULL);
    run_as_processes(2, overfill, NULL);
}

/* More different calls than are remembered, all still queued when they are replaced. */
static void enqueue_different_calls(zcta_context *context, void *data)
{
    enum { CALLS = 200, BYTES = 100 };
    const struct fixture f = make_fixture(context);

    (void)data;
    for (uint32_t call = 0; call < CALLS; call++) {
        unsigned char *recv = f.recv + call * BYTES * f.count;

        model_fill(recv + f.rank * BYTES, call, f.rank, BYTES);
        EXPECT_OK(context,
                  zcta_all_gather(f.world, recv + f.rank * BYTES, recv, BYTES, f.stream, NULL));
    }
    EXPECT_OK(context, zcta_host_stream_synchronize(f.stream));
    for (uint32_t call = 0; call < CALLS; call++)
        EXPECT(model_wrong(f.recv + call * BYTES * f.count, call, f.count, BYTES) == 0);
}

static void many_different_calls_are_queued_at_once(void **state)
{
    (void)state;
    run_as_threads(RANKS, enqueue_different_calls, NULL);
}

/* ---- Overlap ---- */

static void set_flag(void *data)
{
    atomic_store((atomic_uint *)data, 1);
}

/* The caller calls nothing of the library until its collective has finished. */
static void compute_meanwhile(zcta_context *context, void *data)
{
    const struct fixture f = make_fixture(context);
    const size_t bytes = 200000;
    unsigned char *own = f.recv + f.rank * bytes;
    const uint64_t end = now_ns() + UINT64_C(10000000000);
    atomic_uint finished = 0;

    (void)data;
    model_fill(own, 1, f.rank, bytes);
    EXPECT_OK(context, zcta_all_gather(f.world, own, f.recv, bytes, f.stream, NULL));
    EXPECT_OK(context, zcta_host_stream_call(f.stream, set_flag, &finished));
    while (atomic_load(&finished) == 0)
        EXPECT(now_ns() < end);
    EXPECT(model_wrong(f.recv, 1, f.count, bytes) == 0);
    EXPECT_OK(context, zcta_host_stream_synchronize(f.stream));
}

static void a_collective_goes_on_while_the_caller_computes(void **state)
{
    (void)state;
    run_as_threads(RANKS, compute_meanwhile, NULL);
    run_as_processes(RANKS, compute_meanwhile, NULL);
}

static void enqueue_slowly(zcta_context *context, void *data)
{
    const struct fixture f = make_fixture(context);
    const uint64_t start = now_ns();

    (void)data;
    EXPECT_OK(context, zcta_host_stream_call(f.stream, pause_long, NULL));
    EXPECT_OK(context, zcta_all_gather(f.world, f.own, f.recv, SHARE, f.stream, NULL));
    EXPECT_OK(context, zcta_barrier(f.world, f.stream));
    EXPECT(now_ns() - start < 150000000 * SLOWNESS);
    EXPECT_OK(context, zcta_host_stream_synchronize(f.stream));
    EXPECT(now_ns() - start >= 200000000 * SLOWNESS);
}

static void enqueueing_does_not_wait_for_the_work(void **state)
{
    (void)state;
    run_as_threads(2, enqueue_slowly, NULL);
}

struct other_team {
    zcta_context *context;
    zcta_team *team;
};

static void meet_in_another_team(void *data)
{
    const struct other_team *other = data;

    EXPECT_OK(other->context, zcta_barrier(other->team, NULL));
}

static void call_from_a_callback(zcta_context *context, void *data)
{
    static const uint32_t ranks[] = {0, 1};
    const struct fixture f = make_fixture(context);
    struct other_team other = {.context = context};

    (void)data;
    EXPECT_OK(context, zcta_team_get(context, ranks, 2, NULL, &other.team));
    for (uint32_t call = 0; call < 20; call++) {
        EXPECT_OK(context, zcta_all_gather(f.world, f.own, f.recv, SHARE, f.stream, NULL));
        EXPECT_OK(context, zcta_host_stream_call(f.stream, meet_in_another_team, &other));
    }
    EXPECT_OK(context, zcta_host_stream_synchronize(f.stream));
}

static void a_callback_may_use_another_team(void **state)
{
    (void)state;
    run_as_threads(2, call_from_a_callback, NULL);
}

/* ---- Freeing while work is queued ---- */

static void free_plan_and_window_early(zcta_context *context, void *data)
{
    struct fixture f = make_fixture(context);

    (void)data;
    for (uint32_t call = 0; call < 4; call++) {
        const size_t bytes = call % 2 ? 100 : 50000;
        zcta_window *window = NULL;
        zcta_plan *plan = NULL;
        unsigned char *recv;

        EXPECT_OK(context, zcta_window_alloc(f.world, bytes * f.count, &window));
        recv = zcta_window_base(window);
        EXPECT_OK(context,
                  plan_all_gather(f.world, recv + f.rank * bytes, recv, bytes, NULL, &plan));
        EXPECT_OK(context, zcta_host_stream_call(f.stream, pause_briefly, NULL));
        model_fill(recv + f.rank * bytes, call, f.rank, bytes);
        EXPECT_OK(context, zcta_plan_run(plan, f.stream));
        EXPECT_OK(context, zcta_plan_free(&plan));
        EXPECT(model_wrong(recv, call, f.count, bytes) == 0);
        EXPECT_OK(context, zcta_host_stream_call(f.stream, pause_briefly, NULL));
        EXPECT_OK(context,
                  zcta_all_gather(f.world, recv + f.rank * bytes, recv, bytes, f.stream, NULL));
        EXPECT_OK(context, zcta_window_free(&window));
    }
    EXPECT_OK(context, zcta_host_stream_synchronize(f.stream));
}

static void freeing_a_plan_or_window_waits_for_its_runs(void **state)
{
    (void)state;
    run_as_threads(RANKS, free_plan_and_window_early, NULL);
    run_as_processes(RANKS, free_plan_and_window_early, NULL);
}

static void destroy_team_early(zcta_context *context, void *data)
{
    static const uint32_t ranks[] = {0, 1, 2};
    struct fixture f = make_fixture(context);

    (void)data;
    for (uint32_t call = 0; call < 3; call++) {
        zcta_team *team = NULL;

        EXPECT_OK(context, zcta_team_get(context, ranks, RANKS, NULL, &team));
        EXPECT_OK(context, zcta_host_stream_call(f.stream, pause_briefly, NULL));
        model_fill(f.own, call, f.rank, SHARE);
        EXPECT_OK(context, zcta_all_gather(team, f.own, f.recv, SHARE, f.stream, NULL));
        EXPECT_OK(context, zcta_team_destroy(&team));
        EXPECT(model_wrong(f.recv, call, f.count, SHARE) == 0);
    }
}

static void giving_a_team_back_waits_for_its_work(void **state)
{
    (void)state;
    run_as_threads(RANKS, destroy_team_early, NULL);
    run_as_processes(RANKS, destroy_team_early, NULL);
}

static void check_and_free_turn(void *data)
{
    struct turn *turn = data;

    check_turn(turn);
    free((void *)(uintptr_t)turn->f);
    free(turn);
}

/* Collectives and callbacks are still queued when the rank's function returns to zcta_finalize();
 * the last callback reads the window. */
static void finalize_early(zcta_context *context, void *data)
{
    struct fixture *f = malloc(sizeof *f);
    struct turn *turn = malloc(sizeof *turn);

    (void)data;
    EXPECT(f != NULL && turn != NULL);
    *f = make_fixture(context);
    *turn = (struct turn){f, 7};
    model_fill(f->own, 7, f->rank, SHARE);
    EXPECT_OK(context, zcta_host_stream_call(f->stream, pause_briefly, NULL));
    EXPECT_OK(context, zcta_all_gather(f->world, f->own, f->recv, SHARE, f->stream, NULL));
    EXPECT_OK(context, zcta_host_stream_call(f->stream, pause_long, NULL));
    EXPECT_OK(context, zcta_host_stream_call(f->stream, check_and_free_turn, turn));
}

static void finalize_waits_for_everything_that_is_queued(void **state)
{
    (void)state;
    run_as_threads(RANKS, finalize_early, NULL);
    run_as_processes(RANKS, finalize_early, NULL);
}

/* ---- Errors ---- */

static void fail_on_a_stream(zcta_context *context, void *data)
{
    static const uint32_t ranks[] = {0, 1, 2};
    const zcta_team_params params = {.size = sizeof params, .timeout_ns = 300000000 * SLOWNESS};
    struct fixture f = make_fixture(context);
    zcta_team *team = NULL;
    atomic_uint calls = 0;
    uint64_t start;

    (void)data;
    EXPECT_OK(context, zcta_team_get(context, ranks, RANKS, &params, &team));
    start = now_ns();
    if (f.rank != 2) {
        EXPECT_OK(context, zcta_all_gather(team, f.own, f.recv, SHARE, f.stream, NULL));
        EXPECT_OK(context, zcta_barrier(team, f.stream));
        EXPECT_OK(context, zcta_host_stream_call(f.stream, count_one, &calls));
        expect_error(context, zcta_host_stream_synchronize(f.stream), ZCTA_ERR_TIMEOUT, "rank 2 ");
        EXPECT(now_ns() - start < UINT64_C(3000000000) * SLOWNESS && atomic_load(&calls) == 1);
        /* Told once; the team stays failed, the stream works for other teams. */
        EXPECT_OK(context, zcta_host_stream_synchronize(f.stream));
        expect_error(context, zcta_barrier(team, f.stream), ZCTA_ERR_TIMEOUT, "rank 2 ");
    }
    EXPECT_OK(context, zcta_barrier(f.world, f.stream));
    EXPECT_OK(context, zcta_host_stream_destroy(&f.stream));
    EXPECT(await_failure(team) == ZCTA_ERR_TIMEOUT);
    EXPECT_OK(context, zcta_team_destroy(&team));
}

static void a_failure_is_told_at_the_next_synchronize(void **state)
{
    (void)state;
    run_as_threads(RANKS, fail_on_a_stream, NULL);
    run_as_processes(RANKS, fail_on_a_stream, NULL);
}

static void look_where_bound(void *data)
{
    EXPECT(sched_getaffinity(0, sizeof(cpu_set_t), data) == 0);
}

/* Nobody but the program and its launcher knows who else is on a core. */
static void run_where_the_creator_may(zcta_context *context, void *data)
{
    zcta_host_stream *stream = NULL;
    cpu_set_t own, worker, last;
    size_t cpu = CPU_SETSIZE - 1;

    (void)data;
    EXPECT(sched_getaffinity(0, sizeof own, &own) == 0);
    while (!CPU_ISSET(cpu, &own))
        cpu--;
    CPU_ZERO(&last);
    CPU_SET(cpu, &last);
    EXPECT(sched_setaffinity(0, sizeof last, &last) == 0);
    EXPECT_OK(context, zcta_host_stream_create(context, &stream));
    EXPECT(sched_setaffinity(0, sizeof own, &own) == 0);
    EXPECT_OK(context, zcta_host_stream_call(stream, look_where_bound, &worker));
    EXPECT_OK(context, zcta_host_stream_destroy(&stream));
    EXPECT(CPU_EQUAL(&worker, &last));
    EXPECT_OK(context, zcta_host_stream_create(context, &stream));
    EXPECT_OK(context, zcta_host_stream_call(stream, look_where_bound, &worker));
    EXPECT_OK(context, zcta_host_stream_destroy(&stream));
    EXPECT(CPU_EQUAL(&worker, &own));
}

static void a_worker_may_run_where_its_creator_may(void **state)
{
    (void)state;
    run_as_processes(2, run_where_the_creator_may, NULL);
}

/* ---- A callback that does not return ---- */

struct gate {
    atomic_uint open, passed;
};

/* Passes by itself after a time that no test takes. */
static void wait_at_gate(void *data)
{
    struct gate *gate = data;

    for (uint32_t i = 0; i < 60000 && atomic_load(&gate->open) == 0; i++)
        sleep_ms(1);
    atomic_store(&gate->passed, 1);
}

static void fail_behind_a_callback(zcta_context *context, void *data)
{
    static const uint32_t ranks[] = {0, 1};
    struct gate *gate = data;
    struct fixture f = make_fixture(context);
    zcta_window *window = NULL;
    zcta_team *team = NULL;
    zcta_plan *plan = NULL;
    unsigned char *recv, *own;

    EXPECT_OK(context, zcta_team_get(context, ranks, 2, NULL, &team));
    EXPECT_OK(context, zcta_window_alloc(team, 2 * SHARE, &window));
    recv = zcta_window_base(window);
    own = recv + f.rank * SHARE;
    EXPECT_OK(context, plan_all_gather(team, own, recv, SHARE, NULL, &plan));
    EXPECT_OK(context, zcta_barrier(f.world, NULL));
    /* From here on, so that making it depends on nobody's speed. */
    team->guard.timeout_ns = 100000000;
    if (f.rank == 1) {
        expect_error(context, zcta_plan_run(plan, NULL), ZCTA_ERR_TIMEOUT, "rank 0 ");
    } else {
        EXPECT_OK(context, zcta_host_stream_call(f.stream, wait_at_gate, gate));
        EXPECT_OK(context, zcta_plan_run(plan, f.stream));
        EXPECT_OK(context, zcta_all_gather(team, own, recv, SHARE, f.stream, NULL));
        /* Waits for its turn behind both. */
        EXPECT(zcta_barrier(team, NULL) == ZCTA_ERR_TIMEOUT);
    }
    EXPECT_OK(context, zcta_plan_free(&plan));
    EXPECT_OK(context, zcta_window_free(&window));
    EXPECT_OK(context, zcta_team_destroy(&team));
    EXPECT(f.rank == 1 || atomic_load(&gate->passed) == 0);
    if (f.rank == 0) {
        atomic_store(&gate->open, 1);
        expect_error(context, zcta_host_stream_synchronize(f.stream), ZCTA_ERR_TIMEOUT, "rank 0 ");
    }
    /* The stream and the world are as good as before. */
    EXPECT_OK(context, zcta_all_gather(f.world, f.own, f.recv, SHARE, f.stream, NULL));
    EXPECT_OK(context, zcta_host_stream_destroy(&f.stream));
}

static void a_failed_team_waits_for_no_callback(void **state)
{
    struct gate gate = {0};

    (void)state;
    run_as_threads(2, fail_behind_a_callback, &gate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_runs_collectives_and_callbacks_in_order),
        cmocka_unit_test(collectives_of_a_team_are_ordered_across_streams),
        cmocka_unit_test(a_call_without_a_stream_waits_for_those_on_streams),
        cmocka_unit_test(destroy_runs_what_was_enqueued),
        cmocka_unit_test(more_work_than_the_queue_holds_is_run_all_the_same),
        cmocka_unit_test(many_different_calls_are_queued_at_once),
        cmocka_unit_test(a_collective_goes_on_while_the_caller_computes),
        cmocka_unit_test(enqueueing_does_not_wait_for_the_work),
        cmocka_unit_test(a_callback_may_use_another_team),
        cmocka_unit_test(freeing_a_plan_or_window_waits_for_its_runs),
        cmocka_unit_test(giving_a_team_back_waits_for_its_work),
        cmocka_unit_test(finalize_waits_for_everything_that_is_queued),
        cmocka_unit_test(a_failure_is_told_at_the_next_synchronize),
        cmocka_unit_test(a_worker_may_run_where_its_creator_may),
        cmocka_unit_test(a_failed_team_waits_for_no_callback),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
