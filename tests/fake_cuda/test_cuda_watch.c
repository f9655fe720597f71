/* The watchdog on the made-up driver: whom it names, and that it harms nobody. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "support_fake.h"

enum { SHARE = 600 };

static const struct ranks_options hasty = {.device = ZCTA_DEVICE_CUDA,
                                           .timeout_ns = SLOWNESS * UINT64_C(500000000),
                                           .may_fail_to_finalize = true};

static int load_fake(void **state)
{
    (void)state;
    open_fake();
    return 0;
}

/* ---- Whom it names ---- */

struct absence {
    uint32_t absent, calls;
    zcta_policy policy;
};

static void expect_named(const struct seat *s, uint32_t rank)
{
    zcta_error error;

    EXPECT(await_failure(s->world) == ZCTA_ERR_TIMEOUT);
    EXPECT(zcta_team_status(s->world) == ZCTA_ERR_TIMEOUT);
    EXPECT_OK(s->context, zcta_last_error(s->context, &error));
    if (error.rank != rank)
        fprintf(stderr, "rank %u: %s\n", s->rank, error.message);
    EXPECT(error.rank == rank);
}

/* One rank stops calling; the others have many calls queued, and wait for each other too. */
static void stop_calling(zcta_context *context, void *data)
{
    const struct absence *absence = data;
    struct seat s = take_seat(context, SHARE);
    zcta_status status = ZCTA_OK;

    for (uint32_t call = 0; call < 3; call++) {
        fill_share(&s, call);
        EXPECT_OK(context, gather(&s, absence->policy));
        synchronize(&s);
        expect_shares(&s, call);
    }
    for (uint32_t i = 0; i < absence->calls && s.rank != absence->absent && status == ZCTA_OK; i++)
        status = i % 3 == 2 ? zcta_barrier(s.world, s.stream) : gather(&s, absence->policy);
    EXPECT(status == ZCTA_OK || status == ZCTA_ERR_TIMEOUT);
    synchronize(&s);
    expect_named(&s, absence->absent);
    leave_seat(&s);
}

static void who_stops_calling_is_named_by_all(void **state)
{
    (void)state;
    for (uint32_t absent = 0; absent < 3; absent++)
        for (uint32_t calls = 1; calls <= 7; calls += 3)
            for (int zero = 0; zero < 2; zero++) {
                struct absence absence = {absent, calls,
                                          zero ? ZCTA_POLICY_ZERO : ZCTA_POLICY_DEFAULT};

                run_as_threads_with(3, &hasty, stop_calling, &absence);
            }
}

/* More than can be under way at once: the last submit waits, and the stuck stream is let go. */
static void a_full_queue_is_let_go(void **state)
{
    struct absence absence = {2, 1200, ZCTA_POLICY_DEFAULT};

    (void)state;
    run_as_threads_with(3, &hasty, stop_calling, &absence);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_stops_calling_is_named_by_all),
        cmocka_unit_test(a_full_queue_is_let_go),
    };

    return cmocka_run_group_tests(tests, load_fake, NULL);
}
