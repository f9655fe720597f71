/* A rank that does not come to a collective over nodes: whoever can see it names it, also where the
 * others wait in NCCL. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "../fake_cuda/support_fake.h"

enum { RANKS = 4, NODE_RANKS = 2, SHARE = 5000 };

static int load_fake(void **state)
{
    (void)state;
    open_fake();
    return 0;
}

static void expect_timeout(const struct seat *s, uint32_t rank)
{
    zcta_error error;

    EXPECT(await_failure(s->world) == ZCTA_ERR_TIMEOUT);
    EXPECT_OK(s->context, zcta_last_error(s->context, &error));
    if (error.rank != rank)
        fprintf(stderr, "rank %u: %s\n", s->rank, error.message);
    EXPECT(error.rank == rank);
    synchronize(s);
}

struct absence {
    uint32_t rank;
    _Atomic uint32_t arrived;
};

static void stay_away(zcta_context *context, void *data)
{
    struct absence *absence = data;
    const uint32_t absent = absence->rank;
    struct seat s = take_seat(context, SHARE);

    for (uint32_t call = 0; call < 2; call++) {
        fill_share(&s, call);
        EXPECT_OK(context, gather(&s, ZCTA_POLICY_DEFAULT));
        synchronize(&s);
        expect_shares(&s, call);
    }
    if (s.rank != absent)
        EXPECT_OK(context, gather(&s, ZCTA_POLICY_DEFAULT));
    expect_timeout(&s, absent);
    await_all(&s, &absence->arrived);
    leave_seat(&s);
}

static void a_rank_that_does_not_come_over_nodes_is_named(void **state)
{
    const struct ranks_options options = {.device = ZCTA_DEVICE_CUDA,
                                          .node_ranks = NODE_RANKS,
                                          .timeout_ns = SLOWNESS * UINT64_C(1000000000),
                                          .may_fail_to_finalize = true};

    (void)state;
    for (uint32_t rank = 0; rank < RANKS; rank++) {
        struct absence absence = {rank, 0};

        run_as_threads_with(RANKS, &options, stay_away, &absence);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rank_that_does_not_come_over_nodes_is_named),
    };

    return cmocka_run_group_tests(tests, load_fake, NULL);
}
