/* The agreement check: ranks that do not make the same call are told so, all of them, with the name
 * of the one that differs, before anything has run; and can go on. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "api/objects.h"
#include "support_ranks.h"

enum { RANKS = 3, SHARE = 200 };

static const struct ranks_options checked = {.check = 1};

struct fixture {
    zcta_context *context;
    zcta_team *world;
    zcta_window *window;
    char *recv, *own; /* own: this rank's place in recv */
    uint32_t rank;
};

static struct fixture make_fixture(zcta_context *context)
{
    struct fixture f = {.context = context, .world = zcta_world(context)};

    f.rank = zcta_team_rank(f.world);
    EXPECT_OK(context, zcta_window_alloc(f.world, 8192, &f.window));
    f.recv = zcta_window_base(f.window);
    f.own = f.recv + f.rank * SHARE;
    return f;
}

/* Every rank got a mismatch that names `odd`; nothing was written; the team works as before. */
static void expect_mismatch(const struct fixture *f, zcta_status status, uint32_t odd,
                            const char *text)
{
    zcta_error error;

    expect_error(f->context, status, ZCTA_ERR_MISMATCH, text);
    EXPECT_OK(f->context, zcta_last_error(f->context, &error));
    EXPECT(error.rank == odd);
    EXPECT(zcta_team_status(f->world) == ZCTA_OK);
    gather_checked(f->context, f->world, f->recv, SHARE, odd);
    EXPECT_OK(f->context, zcta_barrier(f->world, NULL));
}

static void differ_in_bytes(const struct fixture *f, uint32_t odd)
{
    const size_t bytes = f->rank == odd ? SHARE - 1 : SHARE;

    memset(f->recv, 0x77, 4096);
    expect_mismatch(f,
                    zcta_all_gather(f->world, f->recv + 4096 + f->rank, f->recv, bytes, NULL, NULL),
                    odd, "bytes of a share");
}

static void differ_in_place(const struct fixture *f, uint32_t odd)
{
    char *send = f->rank == odd ? f->own : f->recv + 4096;

    expect_mismatch(f, zcta_all_gather(f->world, send, f->recv, SHARE, NULL, NULL), odd,
                    "in place");
}

static void differ_in_collective(const struct fixture *f, uint32_t odd)
{
    const zcta_status status = f->rank == odd
                                   ? zcta_barrier(f->world, NULL)
                                   : zcta_all_gather(f->world, f->own, f->recv, SHARE, NULL, NULL);

    expect_mismatch(f, status, odd, "collective");
}

static void differ_in_policy(const struct fixture *f, uint32_t odd)
{
    const zcta_call_params params = {
        .size = sizeof params, .policy = f->rank == odd ? ZCTA_POLICY_ZERO : ZCTA_POLICY_DEFAULT};

    expect_mismatch(f, zcta_all_gather(f->world, f->own, f->recv, SHARE, NULL, &params), odd,
                    "policy");
}

static void differ_in_engine(const struct fixture *f, uint32_t odd)
{
    const zcta_call_params params = {.size = sizeof params,
                                     .engine = f->rank == odd ? ZCTA_ENGINE_CE : ZCTA_ENGINE_AUTO};

    expect_mismatch(f, zcta_all_gather(f->world, f->own, f->recv, SHARE, NULL, &params), odd,
                    "engine");
}

static void differ_in_offset(const struct fixture *f, uint32_t odd)
{
    const size_t shift = f->rank == odd ? 1 : 0;

    expect_mismatch(f,
                    zcta_all_gather(f->world, f->own + shift, f->recv + shift, SHARE, NULL, NULL),
                    odd, "offset of recv");
}

static void differ_in_window(const struct fixture *f, uint32_t odd)
{
    zcta_window *second = NULL;
    char *recv;

    EXPECT_OK(f->context, zcta_window_alloc(f->world, 8192, &second));
    recv = f->rank == odd ? zcta_window_base(second) : f->recv;
    expect_mismatch(f, zcta_all_gather(f->world, recv + f->rank * SHARE, recv, SHARE, NULL, NULL),
                    odd, "recv's window");
    EXPECT_OK(f->context, zcta_window_free(&second));
}

static void differ_in_plans(const struct fixture *f, uint32_t odd)
{
    const size_t bytes = f->rank == odd ? 10 : 11;
    zcta_plan *plan = NULL;

    EXPECT_OK(f->context, plan_all_gather(f->world, f->recv + 4096, f->recv, bytes, NULL, &plan));
    expect_mismatch(f, zcta_plan_run(plan, NULL), odd, "bytes of a share");
    EXPECT_OK(f->context, zcta_plan_free(&plan));
}

/* As the libraries of ranks might that are not the same. */
static void differ_in_path(const struct fixture *f, uint32_t odd)
{
    zcta_plan *plan = NULL;

    EXPECT_OK(f->context, plan_all_gather(f->world, f->recv + 4096, f->recv, SHARE, NULL, &plan));
    if (f->rank == odd)
        plan->resolved.path = (enum zc_path)ZC_ALGORITHM_DIRECT_PUSH;
    expect_mismatch(f, zcta_plan_run(plan, NULL), odd, "says direct-push");
    EXPECT_OK(f->context, zcta_plan_free(&plan));
}

static void differ_by_nothing(const struct fixture *f, uint32_t odd)
{
    /* Zero bytes take part in the comparison like any other number. */
    expect_mismatch(
        f, zcta_all_gather(f->world, f->own, f->recv, f->rank == odd ? 0 : SHARE, NULL, NULL), odd,
        "bytes of a share");
}

static void differ(zcta_context *context, void *data)
{
    static void (*const ways[])(const struct fixture *, uint32_t) = {
        differ_in_bytes,  differ_in_place,  differ_in_collective, differ_in_policy,
        differ_in_engine, differ_in_offset, differ_in_window,     differ_in_plans,
        differ_in_path,   differ_by_nothing};
    const struct fixture f = make_fixture(context);

    (void)data;
    for (size_t way = 0; way < sizeof ways / sizeof *ways; way++)
        for (uint32_t odd = 0; odd < RANKS; odd++)
            ways[way](&f, odd);
}

static void all_ranks_are_told_who_differs_and_can_go_on(void **state)
{
    (void)state;
    run_as_threads_with(RANKS, &checked, differ, NULL);
    run_as_processes_with(RANKS, &checked, differ, NULL);
}

/* With two ranks nobody is in the minority; both still name the same one. */
static void differ_between_two(zcta_context *context, void *data)
{
    const struct fixture f = make_fixture(context);

    (void)data;
    differ_in_bytes(&f, 1);
    differ_in_place(&f, 1);
    differ_in_offset(&f, 1);
}

static void two_ranks_that_differ_name_the_same_one(void **state)
{
    (void)state;
    run_as_threads_with(2, &checked, differ_between_two, NULL);
}

/* A rank whose own arguments are refused does not leave the others waiting. */
static void refuse_on_one_rank(zcta_context *context, void *data)
{
    const struct fixture f = make_fixture(context);
    const zcta_call_params bad = {.size = 3};
    const uint64_t start = now_ns();

    (void)data;
    for (uint32_t odd = 0; odd < RANKS; odd++) {
        const bool is_odd = f.rank == odd;
        zcta_status status;

        status = zcta_all_gather(f.world, f.recv + 4096, f.recv, is_odd ? 8192 : SHARE, NULL, NULL);
        if (is_odd)
            expect_error(context, status, ZCTA_ERR_INVALID, "overlap");
        else
            expect_mismatch(&f, status, odd, "refused its arguments");
        if (is_odd)
            gather_checked(context, f.world, f.recv, SHARE, odd);
        if (is_odd)
            EXPECT_OK(context, zcta_barrier(f.world, NULL));
        status = zcta_all_gather(f.world, f.recv + 4096, f.recv, SHARE, NULL, is_odd ? &bad : NULL);
        if (is_odd)
            expect_error(context, status, ZCTA_ERR_INVALID, "size field is 3");
        else
            expect_error(context, status, ZCTA_ERR_MISMATCH, "refused its arguments");
    }
    EXPECT(now_ns() - start < UINT64_C(5000000000) * SLOWNESS);
    gather_checked(context, f.world, f.recv, SHARE, 9);
}

static void arguments_refused_on_one_rank_are_known_to_all(void **state)
{
    (void)state;
    run_as_threads_with(RANKS, &checked, refuse_on_one_rank, NULL);
}

static void agree(zcta_context *context, void *data)
{
    const struct fixture f = make_fixture(context);
    zcta_plan *plan = NULL;

    (void)data;
    EXPECT_OK(context, plan_all_gather(f.world, f.own, f.recv, SHARE, NULL, &plan));
    for (uint32_t call = 0; call < 100; call++) {
        gather_checked(context, f.world, f.recv + call, 1 + call, call);
        EXPECT_OK(context, zcta_all_gather(f.world, NULL, NULL, 0, NULL, NULL));
        EXPECT_OK(context, zcta_barrier(f.world, NULL));
        model_fill((unsigned char *)f.own, call, f.rank, SHARE);
        EXPECT_OK(context, zcta_plan_run(plan, NULL));
        EXPECT(model_wrong((unsigned char *)f.recv, call, RANKS, SHARE) == 0);
    }
    EXPECT_OK(context, zcta_plan_free(&plan));
}

static void ranks_that_agree_are_not_disturbed(void **state)
{
    (void)state;
    run_as_threads_with(RANKS, &checked, agree, NULL);
    run_as_processes_with(RANKS, &checked, agree, NULL);
    setenv("ZEROCTA_CHECK", "1", 1);
    run_as_threads(RANKS, agree, NULL);
    unsetenv("ZEROCTA_CHECK");
}

static void differ_under_the_variable(zcta_context *context, void *data)
{
    const struct fixture f = make_fixture(context);

    (void)data;
    differ_in_bytes(&f, 2);
}

static void the_environment_switches_the_check_on(void **state)
{
    (void)state;
    setenv("ZEROCTA_CHECK", "1", 1);
    run_as_threads(RANKS, differ_under_the_variable, NULL);
    unsetenv("ZEROCTA_CHECK");
}

/* A rank that makes no call at all fails the check in time, and with it the team. */
static void make_no_call(zcta_context *context, void *data)
{
    const zcta_team_params params = {.size = sizeof params, .timeout_ns = 200000000 * SLOWNESS};
    static const uint32_t ranks[] = {0, 1, 2};
    zcta_team *world = zcta_world(context), *team = NULL;

    (void)data;
    EXPECT_OK(context, zcta_team_get(context, ranks, RANKS, &params, &team));
    if (zcta_team_rank(world) != 1)
        expect_error(context, zcta_barrier(team, NULL), ZCTA_ERR_TIMEOUT, "rank 1 ");
    EXPECT_OK(context, zcta_barrier(world, NULL));
    EXPECT(await_failure(team) == ZCTA_ERR_TIMEOUT);
    expect_error(context, zcta_barrier(team, NULL), ZCTA_ERR_TIMEOUT, "rank 1 ");
}

static void a_rank_that_makes_no_call_is_named_in_time(void **state)
{
    (void)state;
    run_as_threads_with(RANKS, &checked, make_no_call, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_ranks_are_told_who_differs_and_can_go_on),
        cmocka_unit_test(two_ranks_that_differ_name_the_same_one),
        cmocka_unit_test(arguments_refused_on_one_rank_are_known_to_all),
        cmocka_unit_test(ranks_that_agree_are_not_disturbed),
        cmocka_unit_test(the_environment_switches_the_check_on),
        cmocka_unit_test(a_rank_that_makes_no_call_is_named_in_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
