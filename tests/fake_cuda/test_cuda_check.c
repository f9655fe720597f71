/* Ranks that do not call alike where the way depends on it: on GPUs, under a policy that avoids
 * SMs, a call in place goes another way than one out of place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "support_fake.h"

enum { SHARE = 600, RANKS = 3 };

static int load_fake(void **state)
{
    (void)state;
    open_fake();
    return 0;
}

static zcta_status gather_placed(const struct seat *s, bool in_place, zcta_policy policy)
{
    const zcta_call_params params = {.size = sizeof params, .policy = policy};
    unsigned char *recv = zcta_window_base(s->recv);
    const void *mine = in_place ? recv + s->rank * s->share : zcta_window_base(s->send);

    return zcta_all_gather(s->world, mine, recv, s->share, s->stream, &params);
}

/* ---- Under check ---- */

static void mix_under_check(zcta_context *context, void *data)
{
    struct seat s = take_seat(context, SHARE);
    zcta_error error;

    (void)data;
    for (int policy = ZCTA_POLICY_DEFAULT; policy <= ZCTA_POLICY_ZERO; policy++)
        for (uint32_t odd = 0; odd < RANKS; odd++)
            for (int place = 0; place < 2; place++) {
                expect_error(
                    context,
                    gather_placed(&s, (s.rank == odd) == (place == 1), (zcta_policy)policy),
                    ZCTA_ERR_MISMATCH, "do not agree on the place of send");
                EXPECT_OK(context, zcta_last_error(context, &error));
                EXPECT(error.rank == odd);
                fill_share(&s, odd);
                EXPECT_OK(context, gather(&s, (zcta_policy)policy));
                synchronize(&s);
                expect_shares(&s, odd);
            }
    EXPECT_OK(context, zcta_team_status(s.world));
    leave_seat(&s);
}

static void who_mixes_in_place_is_named_under_check(void **state)
{
    const struct ranks_options options = {.device = ZCTA_DEVICE_CUDA, .check = 1};

    (void)state;
    run_as_threads_with(RANKS, &options, mix_under_check, NULL);
}

/* ---- Without ---- */

static void mix_unseen(zcta_context *context, void *data)
{
    struct seat s = take_seat(context, SHARE);
    zcta_status status = ZCTA_OK;
    zcta_error failure;

    for (uint32_t call = 0; call < 4 && status == ZCTA_OK; call++)
        status = gather_placed(&s, s.rank == 0, ZCTA_POLICY_ZERO);
    synchronize(&s);
    EXPECT(await_failure(s.world) == ZCTA_ERR_TIMEOUT);
    EXPECT_OK(context, zcta_team_failure(s.world, &failure));
    EXPECT(strstr(failure.message, "with other arguments (ZEROCTA_CHECK=1 compares them)") != NULL);
    await_all(&s, data);
    leave_seat(&s);
}

/* The header forbids it, and nothing sees it; but it ends, and the sentence says what would. */
static void mixing_in_place_unseen_ends_by_the_deadline(void **state)
{
    const struct ranks_options hasty = {.device = ZCTA_DEVICE_CUDA,
                                        .timeout_ns = SLOWNESS * UINT64_C(500000000),
                                        .may_fail_to_finalize = true};
    _Atomic uint32_t arrived = 0;

    (void)state;
    run_as_threads_with(RANKS, &hasty, mix_unseen, &arrived);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_mixes_in_place_is_named_under_check),
        cmocka_unit_test(mixing_in_place_unseen_ends_by_the_deadline),
    };

    return cmocka_run_group_tests(tests, load_fake, NULL);
}
