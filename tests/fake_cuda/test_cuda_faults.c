/* Whatever call of the driver fails: every call of the library returns, nothing is left behind, and
 * where all calls said OK the bytes are right. Two ranks as threads, on the made-up driver. */
#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "device/cuda/cuda_driver.h"
#include "fake_cuda.h"
#include "support_ports.h"
#include "support_ranks.h"

enum {
    RANKS = 2,
    SHARE = 3000,
    /* Nobody is late by himself, but who is left alone shall not wait for long. */
    LONG_MS = 20000,
    SHORT_MS = 200,
    /* Of the calls one in so many fails in turn; all of them take too long there. */
    STRIDE = UNDER_THREAD_SANITIZER ? 7 : 1,
};

struct fake {
    fake_cuda_fail_fn *break_at;
    fake_cuda_calls_fn *calls;
    fake_cuda_failed_fn *failed;
    fake_cuda_alive_fn *alive;
};

static struct fake fake;
static struct zc_cuda_driver driver;

static void find(void *library, const char *name, void *member)
{
    void *function = dlsym(library, name);

    assert_non_null(function);
    memcpy(member, &function, sizeof function);
}

static int load_fake(void **state)
{
    static struct zc_diag diag;
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);

    (void)state;
    assert_non_null(library);
    find(library, "fake_cuda_fail", &fake.break_at);
    find(library, "fake_cuda_calls", &fake.calls);
    find(library, "fake_cuda_failed", &fake.failed);
    find(library, "fake_cuda_alive", &fake.alive);
    zc_diag_init(&diag);
    return zc_cuda_driver_load(&diag, &driver) == ZCTA_OK ? 0 : -1;
}

struct rank {
    uint32_t rank;
    const char *root;
    uint64_t timeout_ms;
    zc_cu_context gpu;
    bool all_ok;
    size_t wrong;
    zcta_error error; /* the first */
};

/* Remembers the first failure. */
static bool ok(struct rank *r, zcta_context *context, zcta_status status)
{
    if (status != ZCTA_OK && r->all_ok) {
        r->all_ok = false;
        zcta_last_error(context, &r->error);
    }
    return status == ZCTA_OK;
}

/* Until the team's work has run or has been let go. */
static void synchronize(void)
{
    while (driver.cuStreamSynchronize(NULL) != 0)
        continue;
}

static void gather(struct rank *r, zcta_context *context, zcta_window *recv, zcta_window *send,
                   uint32_t call)
{
    unsigned char *out = zcta_window_base(recv), *own = zcta_window_base(send);

    if (call % 2 == 0)
        own = out + r->rank * SHARE;
    memset(out, 0xee, RANKS * SHARE);
    model_fill(own, call, r->rank, SHARE);
    if (!ok(r, context, zcta_all_gather(zcta_world(context), own, out, SHARE, NULL, NULL)))
        return;
    synchronize();
    if (ok(r, context, zcta_team_status(zcta_world(context))))
        r->wrong += model_wrong(out, call, RANKS, SHARE);
}

static void release_and_run(struct rank *r, zcta_context *context, zcta_window *recv)
{
    unsigned char *out = zcta_window_base(recv);
    zcta_plan *plan = NULL;

    if (!ok(r, context,
            zcta_plan_all_gather(zcta_world(context), out + r->rank * SHARE, out, SHARE, NULL,
                                 &plan)))
        return;
    model_fill(out + r->rank * SHARE, 9, r->rank, SHARE);
    if (ok(r, context, zcta_release(plan, NULL)) && ok(r, context, zcta_plan_run(plan, NULL))) {
        synchronize();
        if (ok(r, context, zcta_team_status(zcta_world(context))))
            r->wrong += model_wrong(out, 9, RANKS, SHARE);
    }
    ok(r, context, zcta_plan_free(&plan));
}

/* What the test itself asks of the driver may be what fails: then it asks again. */
static void enter_gpu(struct rank *r)
{
    zc_cu_context context = NULL;

    while (driver.cuDevicePrimaryCtxRetain(&context, (zc_cu_device)r->rank) != 0)
        continue;
    while (driver.cuCtxPushCurrent(context) != 0)
        continue;
    r->gpu = context;
}

/* The library leaves the caller's current context as it was. */
static void leave_gpu(const struct rank *r)
{
    zc_cu_context current = NULL;

    while (driver.cuCtxPopCurrent(&current) != 0)
        continue;
    EXPECT(current == r->gpu);
    EXPECT(driver.cuCtxPopCurrent(&current) != 0);
    driver.cuDevicePrimaryCtxRelease((zc_cu_device)r->rank);
}

static void *run_rank(void *data)
{
    struct rank *r = data;
    const zcta_init_params params = {.size = sizeof params,
                                     .rank = r->rank,
                                     .rank_count = RANKS,
                                     .root = r->root,
                                     .token = "faults",
                                     .device = ZCTA_DEVICE_CUDA,
                                     .gpu = r->rank + 1,
                                     .timeout_ns = r->timeout_ms * UINT64_C(1000000),
                                     .error = &r->error};
    zcta_context *context = NULL;
    zcta_window *recv = NULL, *send = NULL;

    enter_gpu(r);
    r->all_ok = zcta_init(&params, &context) == ZCTA_OK;
    if (!r->all_ok)
        goto out;
    if (ok(r, context, zcta_window_alloc(zcta_world(context), RANKS * SHARE, &recv)) &&
        ok(r, context, zcta_window_alloc(zcta_world(context), SHARE, &send))) {
        /* A rank whose call has failed is out of step with the others. */
        for (uint32_t call = 0; call < 3 && r->all_ok; call++)
            gather(r, context, recv, send, call);
        if (r->all_ok)
            release_and_run(r, context, recv);
    }
    synchronize();
    zcta_finalize(&context);
out:
    leave_gpu(r);
    return NULL;
}

/* Runs both ranks with the k-th call from now on failing; 0: none. */
static void run_both(uint64_t k, int error, struct rank ranks[RANKS])
{
    pthread_t threads[RANKS];
    char root[32];

    snprintf(root, sizeof root, "127.0.0.1:%u", free_port());
    fake.break_at(k, error);
    for (uint32_t i = 0; i < RANKS; i++) {
        ranks[i] = (struct rank){
            .rank = i, .root = root, .timeout_ms = k == 0 ? LONG_MS : SHORT_MS * SLOWNESS};
        assert_int_equal(pthread_create(&threads[i], NULL, run_rank, &ranks[i]), 0);
    }
    for (uint32_t i = 0; i < RANKS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    if (fake.alive() != 0)
        fail_msg("call %u (%s) failed: %lld things are left, errors: %s / %s", (unsigned)k,
                 fake.failed(), (long long)fake.alive(), ranks[0].error.message,
                 ranks[1].error.message);
}

static uint64_t count_calls(void)
{
    struct rank ranks[RANKS];

    run_both(0, 0, ranks);
    for (uint32_t i = 0; i < RANKS; i++) {
        if (!ranks[i].all_ok)
            fail_msg("rank %u: %s", i, ranks[i].error.message);
        assert_int_equal(ranks[i].wrong, 0);
    }
    return fake.calls();
}

static void nothing_fails_by_itself(void **state)
{
    (void)state;
    assert_true(count_calls() > 100);
}

/* A failure is told by its driver function or by the rank that had it. */
static void any_failing_call_is_an_error_and_leaves_nothing(void **state)
{
    static const int errors[] = {2, 719}; /* out of memory, launch failed */
    const uint64_t calls = count_calls();
    uint32_t noticed = 0;

    (void)state;
    setenv("ZEROCTA_LOG", "off", 1);
    for (uint64_t k = 1; k <= calls; k += STRIDE) {
        struct rank ranks[RANKS];

        run_both(k, errors[k % 2], ranks);
        for (uint32_t i = 0; i < RANKS; i++) {
            if (ranks[i].wrong != 0)
                fail_msg("call %u (%s) failed: rank %u has %zu wrong bytes", (unsigned)k,
                         fake.failed(), i, ranks[i].wrong);
            if (!ranks[i].all_ok)
                assert_true(strlen(ranks[i].error.message) > 10);
        }
        noticed += !ranks[0].all_ok || !ranks[1].all_ok;
    }
    unsetenv("ZEROCTA_LOG");
    /* The others were the watchdog's and the test's own looks, which are made again. */
    assert_true(noticed > calls / STRIDE / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_fails_by_itself),
        cmocka_unit_test(any_failing_call_is_an_error_and_leaves_nothing),
    };

    return cmocka_run_group_tests(tests, load_fake, NULL);
}
