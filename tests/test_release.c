/* Saying ready early: a released plan's next run finds its peers' outputs free, whatever else the
 * team does between, and what may not be released is refused. On the host device. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "support_ranks.h"

/* Large enough for the path that waits for ready. */
enum { BYTES = 40000, ROUNDS = 40 };

struct pair {
    zcta_window *window;
    unsigned char *recv[2];
    zcta_plan *plans[2];
    uint32_t rank, count;
};

static void prepare(zcta_context *context, struct pair *p, size_t bytes)
{
    zcta_team *world = zcta_world(context);

    p->rank = zcta_team_rank(world);
    p->count = zcta_team_rank_count(world);
    EXPECT_OK(context, zcta_window_alloc(world, 2 * bytes * p->count, &p->window));
    for (uint32_t i = 0; i < 2; i++) {
        p->recv[i] = (unsigned char *)zcta_window_base(p->window) + i * bytes * p->count;
        EXPECT_OK(context, plan_all_gather(world, p->recv[i] + p->rank * bytes, p->recv[i], bytes,
                                           NULL, &p->plans[i]));
    }
}

static void finish(zcta_context *context, struct pair *p)
{
    for (uint32_t i = 0; i < 2; i++)
        EXPECT_OK(context, zcta_plan_free(&p->plans[i]));
    EXPECT_OK(context, zcta_window_free(&p->window));
}

static void run_and_check(zcta_context *context, struct pair *p, uint32_t plan, uint32_t call)
{
    model_fill(p->recv[plan] + p->rank * (size_t)BYTES, call, p->rank, BYTES);
    EXPECT_OK(context, zcta_plan_run(p->plans[plan], NULL));
    EXPECT(model_wrong(p->recv[plan], call, p->count, BYTES) == 0);
}

/* Some runs released and some not, in the order of the releases and against it, with a barrier and
 * another path between. */
static void mix(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context);
    struct pair p;
    uint32_t call = 0;

    (void)data;
    prepare(context, &p, BYTES);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        run_and_check(context, &p, 0, call++);
        run_and_check(context, &p, 1, call++);
        EXPECT_OK(context, zcta_release(p.plans[0], NULL));
        if (round % 3 != 0)
            EXPECT_OK(context, zcta_release(p.plans[1], NULL));
        if (round % 4 == 0)
            EXPECT_OK(context, zcta_barrier(world, NULL));
        run_and_check(context, &p, round % 2, call++);
        run_and_check(context, &p, 1 - round % 2, call++);
    }
    finish(context, &p);
}

static void released_runs_are_right_in_every_order(void **state)
{
    (void)state;
    for (uint32_t count = 1; count <= 5; count++)
        run_as_threads(count, mix, NULL);
    run_as_processes(2, mix, NULL);
    run_as_processes(8, mix, NULL);
}

/* Rank 0's share arrives in rank 1's output before rank 1 has entered the run: the crossing that a
 * run without a release makes first is saved. */
static void save_a_crossing(zcta_context *context, void *data)
{
    const uint64_t give_up = now_ns() + UINT64_C(10000000000);
    struct pair p;

    (void)data;
    prepare(context, &p, BYTES);
    memset(p.recv[0], 0xee, (size_t)BYTES * p.count);
    EXPECT_OK(context, zcta_release(p.plans[0], NULL));
    if (p.rank == 1) {
        const volatile unsigned char *last = p.recv[0] + BYTES - 1;

        while (*last != model_byte(7, 0, BYTES - 1) && now_ns() < give_up)
            sleep_ms(1);
        EXPECT(*last == model_byte(7, 0, BYTES - 1));
    }
    run_and_check(context, &p, 0, 7);
    finish(context, &p);
}

static void a_released_output_is_written_before_its_owner_runs(void **state)
{
    (void)state;
    /* Reading the byte meanwhile is what this test is about; ThreadSanitizer would call it a race.
     */
    run_as_processes(2, save_a_crossing, NULL);
}

static void release_wrongly(zcta_context *context, void *data)
{
    struct pair p;

    (void)data;
    EXPECT(zcta_release(NULL, NULL) == ZCTA_ERR_INVALID);
    prepare(context, &p, BYTES);
    EXPECT_OK(context, zcta_release(p.plans[0], NULL));
    expect_error(context, zcta_release(p.plans[0], NULL), ZCTA_ERR_INVALID, "released before");
    run_and_check(context, &p, 0, 1);
    EXPECT(path_calls(zcta_world(context), "all_gather/ce/early-ready", NULL) == 1);
    finish(context, &p);
}

static void a_second_release_is_refused_and_each_is_counted_once(void **state)
{
    (void)state;
    run_as_threads(3, release_wrongly, NULL);
}

/* The path of small shares waits for nobody's output. */
static void release_small(zcta_context *context, void *data)
{
    enum { SMALL = 64 };
    struct pair p;

    (void)data;
    prepare(context, &p, SMALL);
    for (uint32_t call = 0; call < 10; call++) {
        EXPECT_OK(context, zcta_release(p.plans[0], NULL));
        model_fill(p.recv[0] + p.rank * (size_t)SMALL, call, p.rank, SMALL);
        EXPECT_OK(context, zcta_plan_run(p.plans[0], NULL));
        EXPECT(model_wrong(p.recv[0], call, p.count, SMALL) == 0);
    }
    finish(context, &p);
}

static void a_release_that_is_of_no_use_does_no_harm(void **state)
{
    (void)state;
    run_as_threads(3, release_small, NULL);
}

static void release_alone(zcta_context *context, void *data)
{
    struct pair p;
    zcta_status status;

    (void)data;
    prepare(context, &p, BYTES);
    status = p.rank == 1 ? zcta_plan_run(p.plans[0], NULL) : zcta_release(p.plans[0], NULL);
    expect_error(context, status, ZCTA_ERR_MISMATCH, "says early-ready");
    finish(context, &p);
}

static void a_release_that_one_rank_does_not_make_is_found_under_check(void **state)
{
    const struct ranks_options checked = {.check = 1};

    (void)state;
    run_as_threads_with(3, &checked, release_alone, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(released_runs_are_right_in_every_order),
        cmocka_unit_test(a_released_output_is_written_before_its_owner_runs),
        cmocka_unit_test(a_second_release_is_refused_and_each_is_counted_once),
        cmocka_unit_test(a_release_that_is_of_no_use_does_no_harm),
        cmocka_unit_test(a_release_that_one_rank_does_not_make_is_found_under_check),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
