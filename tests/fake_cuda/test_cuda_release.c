/* Releases on the fake driver, whose words count to 65536 as a GPU's do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "support_fake.h"

enum {
    SHARE = 600,
    /* As many numbers as are told apart, and some around that. */
    BETWEEN = UNDER_THREAD_SANITIZER ? 100 : 32770,
};

static const struct ranks_options on_gpus = {.device = ZCTA_DEVICE_CUDA};

static int load_fake(void **state)
{
    (void)state;
    open_fake();
    return 0;
}

static zcta_plan *plan_into(const struct seat *s, zcta_window *recv)
{
    zcta_plan *plan = NULL;

    EXPECT_OK(s->context, plan_all_gather(s->world, zcta_window_base(s->send),
                                          zcta_window_base(recv), SHARE, NULL, &plan));
    return plan;
}

/* The output may be the peers' to write already; the own share is not. */
static void run_and_check(const struct seat *s, zcta_plan *plan, uint32_t call)
{
    model_fill(zcta_window_base(s->send), call, s->rank, SHARE);
    EXPECT_OK(s->context, zcta_plan_run(plan, s->stream));
    synchronize(s);
    EXPECT_OK(s->context, zcta_team_status(s->world));
    expect_shares(s, call);
}

/* One plan is released and left alone while another one is released and run. */
static void release_long_before(zcta_context *context, void *data)
{
    struct seat s = take_seat(context, SHARE);
    zcta_window *other = NULL;
    zcta_plan *seldom, *often;

    (void)data;
    EXPECT_OK(context, zcta_window_alloc(s.world, SHARE * s.count, &other));
    seldom = plan_into(&s, s.recv);
    often = plan_into(&s, other);
    run_and_check(&s, seldom, 1);
    EXPECT_OK(context, zcta_release(seldom, s.stream));
    for (uint32_t i = 0; i < BETWEEN; i++) {
        EXPECT_OK(context, zcta_release(often, s.stream));
        EXPECT_OK(context, zcta_plan_run(often, s.stream));
        if (i % 16 == 0)
            synchronize(&s);
    }
    EXPECT_OK(context, zcta_plan_run(seldom, s.stream));
    synchronize(&s);
    EXPECT_OK(context, zcta_team_status(s.world));
    for (uint32_t call = 2; call < 6; call++) {
        EXPECT_OK(context, zcta_barrier(s.world, s.stream));
        synchronize(&s);
        run_and_check(&s, seldom, call);
        if (call % 2 == 0)
            EXPECT_OK(context, zcta_release(seldom, s.stream));
    }
    EXPECT_OK(context, zcta_plan_free(&seldom));
    EXPECT_OK(context, zcta_plan_free(&often));
    leave_seat(&s);
}

static void a_release_may_lie_back_as_far_as_it_likes(void **state)
{
    (void)state;
    run_as_threads_with(2, &on_gpus, release_long_before, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_release_may_lie_back_as_far_as_it_likes),
    };

    return cmocka_run_group_tests(tests, load_fake, NULL);
}
