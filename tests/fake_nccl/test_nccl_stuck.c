/* NCCL that does not come back from being loaded holds up who asked for it, and nobody else. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>

#include <cmocka.h>

#include "support_ranks.h"

static _Atomic bool loading, opened;

__attribute__((visibility("default"))) void stuck_nccl_gate(void);

void stuck_nccl_gate(void)
{
    atomic_store(&loading, true);
    while (!atomic_load(&opened))
        sleep_ms(1);
}

static const uint32_t alone[] = {0};

static void *ask_for_nccl(void *data)
{
    const zcta_team_params params = {
        .size = sizeof params, .engine = ZCTA_ENGINE_NCCL, .name = "slow"};
    zcta_team *team = NULL;

    zcta_team_get(data, alone, 1, &params, &team);
    return NULL;
}

static _Atomic bool made;

static void *ask_for_another(void *data)
{
    const zcta_team_params params = {
        .size = sizeof params, .engine = ZCTA_ENGINE_CE, .name = "own"};
    zcta_team *team = NULL;

    EXPECT_OK(data, zcta_team_get(data, alone, 1, &params, &team));
    EXPECT_OK(data, zcta_team_destroy(&team));
    atomic_store(&made, true);
    return NULL;
}

static void await(const _Atomic bool *flag)
{
    const uint64_t end = now_ns() + UINT64_C(20000000000);

    while (!atomic_load(flag) && now_ns() < end)
        sleep_ms(1);
}

static void who_does_not_ask_for_nccl_does_not_wait_for_it(void **state)
{
    const zcta_init_params params = {
        .size = sizeof params, .rank_count = 1, .device = ZCTA_DEVICE_CUDA};
    zcta_context *context = NULL;
    const char *library;
    pthread_t slow, quick;
    bool in_time;

    (void)state;
    assert_int_equal(zcta_init(&params, &context), ZCTA_OK);
    /* Where it is named from the beginning the world's making loads it. */
    library = getenv("ZEROCTA_TEST_STUCK_NCCL");
    assert_non_null(library);
    assert_int_equal(setenv("ZEROCTA_NCCL_LIBRARY", library != NULL ? library : "", 1), 0);
    assert_int_equal(pthread_create(&slow, NULL, ask_for_nccl, context), 0);
    await(&loading);
    assert_true(atomic_load(&loading));
    assert_int_equal(pthread_create(&quick, NULL, ask_for_another, context), 0);
    await(&made);
    in_time = atomic_load(&made);
    atomic_store(&opened, true);
    pthread_join(slow, NULL);
    pthread_join(quick, NULL);
    assert_true(in_time);
    assert_int_equal(zcta_finalize(&context), ZCTA_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_does_not_ask_for_nccl_does_not_wait_for_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
