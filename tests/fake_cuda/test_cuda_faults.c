/* Whatever call of the driver fails: every call of the library returns, nothing is left behind, and
 * where all calls said OK the bytes are right. Two ranks as threads and as processes, on the
 * fake driver. */
#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>

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
    STRIDE = UNDER_THREAD_SANITIZER ? 17 : 1,
    STRIDE_APART = 3,
    MEMORY = 1 << 20,
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

    EXPECT(function != NULL);
    memcpy(member, &function, sizeof function);
}

static int load_fake(void **state)
{
    static struct zc_diag diag;
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);

    (void)state;
    EXPECT(library != NULL);
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
    zc_cu_context gpu, current; /* its own, and the one that is current: the other rank's */
    zc_cu_stream stream;
    /* Memory of the caller's own. */
    zc_cu_allocation handle;
    zc_cu_pointer memory;
    bool all_ok;
    size_t wrong;
    zcta_error error; /* the first */
    /* As a process. */
    uint64_t calls;
    int64_t left;
    char failed[64];
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
static void synchronize(const struct rank *r)
{
    while (driver.cuStreamSynchronize(r->stream) != 0)
        continue;
}

/* In place, out of place, and pushed back. */
static void gather(struct rank *r, zcta_context *context, unsigned char *out, zcta_window *send,
                   uint32_t call)
{
    const zcta_call_params params = {
        .size = sizeof params, .policy = call % 3 == 2 ? ZCTA_POLICY_ZERO : ZCTA_POLICY_DEFAULT};
    unsigned char *own = call % 3 == 0 ? out + r->rank * SHARE : zcta_window_base(send);

    memset(out, 0xee, RANKS * SHARE);
    model_fill(own, call, r->rank, SHARE);
    if (!ok(r, context, zcta_all_gather(zcta_world(context), own, out, SHARE, r->stream, &params)))
        return;
    synchronize(r);
    if (ok(r, context, zcta_team_status(zcta_world(context))))
        r->wrong += model_wrong(out, call, RANKS, SHARE);
}

/* The caller's own memory as a window, and a view of everybody's. */
static void register_and_view(struct rank *r, zcta_context *context, zcta_window *send)
{
    unsigned char *out = (unsigned char *)(uintptr_t)r->memory;
    const void *view = NULL;
    size_t stride = 0;
    zcta_window *window = NULL;

    if (!ok(r, context, zcta_window_register(zcta_world(context), out, RANKS * SHARE, &window)))
        return;
    gather(r, context, out, send, 5);
    if (r->all_ok && ok(r, context, zcta_window_view(send, &view, &stride)))
        for (uint32_t i = 0; i < RANKS; i++)
            r->wrong += ((const unsigned char *)view)[i * stride] != model_byte(5, i, 0);
    /* Before that nobody writes his part again. */
    if (r->all_ok)
        ok(r, context, zcta_barrier(zcta_world(context), r->stream));
    synchronize(r);
    ok(r, context, zcta_team_status(zcta_world(context)));
}

/* Whatever fails, the capture is ended; only a whole one is replayed. */
static void capture_and_replay(struct rank *r, zcta_context *context, unsigned char *out,
                               zcta_window *send)
{
    const zcta_call_params zero = {.size = sizeof zero, .policy = ZCTA_POLICY_ZERO};
    zcta_team *world = zcta_world(context);
    zc_cu_graph graph = NULL;
    zc_cu_graph_exec exec = NULL;

    memset(out, 0xee, RANKS * SHARE);
    model_fill(zcta_window_base(send), 8, r->rank, SHARE);
    while (driver.cuStreamBeginCapture(r->stream, 1) != 0)
        continue;
    if (ok(r, context,
           zcta_all_gather(world, zcta_window_base(send), out, SHARE, r->stream, &zero)))
        ok(r, context, zcta_barrier(world, r->stream));
    EXPECT(driver.cuStreamEndCapture(r->stream, &graph) == 0);
    while (driver.cuGraphInstantiateWithFlags(&exec, graph, 0) != 0)
        continue;
    driver.cuGraphDestroy(graph);
    for (uint32_t i = 0; i < 3 && r->all_ok; i++)
        while (driver.cuGraphLaunch(exec, r->stream) != 0)
            continue;
    synchronize(r);
    if (ok(r, context, zcta_team_status(world)) && r->all_ok)
        r->wrong += model_wrong(out, 8, RANKS, SHARE);
    driver.cuGraphExecDestroy(exec);
}

static void release_and_run(struct rank *r, zcta_context *context, zcta_window *recv)
{
    unsigned char *out = zcta_window_base(recv);
    zcta_plan *plan = NULL;

    if (!ok(r, context,
            plan_all_gather(zcta_world(context), out + r->rank * SHARE, out, SHARE, NULL, &plan)))
        return;
    model_fill(out + r->rank * SHARE, 9, r->rank, SHARE);
    if (ok(r, context, zcta_release(plan, r->stream)) &&
        ok(r, context, zcta_plan_run(plan, r->stream))) {
        synchronize(r);
        if (ok(r, context, zcta_team_status(zcta_world(context))))
            r->wrong += model_wrong(out, 9, RANKS, SHARE);
    }
    ok(r, context, zcta_plan_free(&plan));
}

/* What the test itself asks of the driver may be what fails: then it asks again. */
static void retain(zc_cu_context *context, uint32_t gpu)
{
    while (driver.cuDevicePrimaryCtxRetain(context, (zc_cu_device)gpu) != 0)
        continue;
}

static void allocate(struct rank *r)
{
    const struct zc_cu_allocation_prop prop = {
        .type = ZC_CU_MEM_ALLOCATION_PINNED,
        .handle_types = ZC_CU_MEM_HANDLE_POSIX_FD,
        .location = {ZC_CU_MEM_LOCATION_DEVICE, (int)r->rank}};
    const struct zc_cu_access access = {prop.location, ZC_CU_MEM_ACCESS_READWRITE};

    while (driver.cuMemCreate(&r->handle, MEMORY, &prop, 0) != 0)
        continue;
    while (driver.cuMemAddressReserve(&r->memory, MEMORY, 0, 0, 0) != 0)
        continue;
    while (driver.cuMemMap(r->memory, MEMORY, 0, r->handle, 0) != 0)
        continue;
    while (driver.cuMemSetAccess(r->memory, MEMORY, &access, 1) != 0)
        continue;
}

static void enter_gpu(struct rank *r)
{
    zc_cu_context popped = NULL;

    retain(&r->gpu, r->rank);
    retain(&r->current, RANKS - 1 - r->rank);
    while (driver.cuCtxPushCurrent(r->gpu) != 0)
        continue;
    while (driver.cuStreamCreate(&r->stream, ZC_CU_STREAM_NON_BLOCKING) != 0)
        continue;
    allocate(r);
    driver.cuCtxPopCurrent(&popped);
    while (driver.cuCtxPushCurrent(r->current) != 0)
        continue;
}

/* The library leaves the caller's current context as it was. */
static void leave_gpu(const struct rank *r)
{
    zc_cu_context current = NULL;

    while (driver.cuCtxPopCurrent(&current) != 0)
        continue;
    EXPECT(current == r->current);
    EXPECT(driver.cuCtxPopCurrent(&current) != 0);
    driver.cuStreamDestroy(r->stream);
    driver.cuDevicePrimaryCtxRelease((zc_cu_device)r->rank);
    driver.cuDevicePrimaryCtxRelease((zc_cu_device)(RANKS - 1 - r->rank));
}

/* Once no rank runs any more: after a failure a peer may still be pushing. */
static void release_memory(const struct rank *r)
{
    driver.cuMemUnmap(r->memory, MEMORY);
    driver.cuMemAddressFree(r->memory, MEMORY);
    driver.cuMemRelease(r->handle);
}

/* Ends at the first failure: a rank whose call has failed is out of step with the other. */
static void work(struct rank *r, zcta_context *context)
{
    zcta_window *recv = NULL, *send = NULL;
    unsigned char *out;

    if (!ok(r, context, zcta_window_alloc(zcta_world(context), RANKS * SHARE, &recv)) ||
        !ok(r, context, zcta_window_alloc(zcta_world(context), SHARE, &send)))
        return;
    out = zcta_window_base(recv);
    for (uint32_t call = 0; call < 3 && r->all_ok; call++)
        gather(r, context, out, send, call);
    if (r->all_ok)
        release_and_run(r, context, recv);
    if (r->all_ok)
        register_and_view(r, context, send);
    if (r->all_ok)
        capture_and_replay(r, context, out, send);
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

    enter_gpu(r);
    r->all_ok = zcta_init(&params, &context) == ZCTA_OK;
    if (r->all_ok) {
        work(r, context);
        synchronize(r);
        zcta_finalize(&context);
    }
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
    for (uint32_t i = 0; i < RANKS; i++)
        release_memory(&ranks[i]);
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

/* ---- Ranks as processes: memory comes as a descriptor ---- */

static void run_apart(uint64_t k, int error, struct rank *r)
{
    load_fake(NULL);
    fake.break_at(r->rank == 1 ? k : 0, error);
    run_rank(r);
    release_memory(r);
    r->calls = fake.calls();
    r->left = fake.alive();
    snprintf(r->failed, sizeof r->failed, "%s", fake.failed());
    _exit(0);
}

/* Rank 1's k-th call fails. */
static void run_both_apart(uint64_t k, int error, struct rank *ranks)
{
    pid_t pids[RANKS];
    char root[32];

    snprintf(root, sizeof root, "127.0.0.1:%u", free_port());
    for (uint32_t i = 0; i < RANKS; i++) {
        ranks[i] = (struct rank){
            .rank = i, .root = root, .timeout_ms = k == 0 ? LONG_MS : SHORT_MS * SLOWNESS};
        pids[i] = fork();
        if (pids[i] == 0)
            run_apart(k, error, &ranks[i]);
    }
    for (uint32_t i = 0; i < RANKS; i++)
        assert_int_equal(wait_process(pids[i], 60), 0);
    for (uint32_t i = 0; i < RANKS; i++)
        if (ranks[i].left != 0 || ranks[i].wrong != 0)
            fail_msg(
                "call %u (%s) failed: rank %u has %lld things left, %zu wrong bytes, error: %s",
                (unsigned)k, ranks[1].failed, i, (long long)ranks[i].left, ranks[i].wrong,
                ranks[i].error.message);
}

static void any_failing_call_is_an_error_between_processes(void **state)
{
    struct rank *ranks = shared_zeroed(RANKS * sizeof *ranks);
    bool imports = false;
    uint64_t calls;

    (void)state;
    run_both_apart(0, 0, ranks);
    assert_true(ranks[0].all_ok && ranks[1].all_ok);
    calls = ranks[1].calls;
    setenv("ZEROCTA_LOG", "off", 1);
    for (uint64_t k = 1; k <= calls; k += STRIDE_APART) {
        run_both_apart(k, k % 2 == 0 ? 2 : 719, ranks);
        if (strcmp(ranks[1].failed, "cuMemImportFromShareableHandle") == 0) {
            assert_false(ranks[0].all_ok || ranks[1].all_ok);
            imports = true;
        }
    }
    unsetenv("ZEROCTA_LOG");
    assert_true(imports);
    munmap(ranks, RANKS * sizeof *ranks);
}

int main(void)
{
    /* Processes first: they cannot be forked once this one has used CUDA. */
    const struct CMUnitTest apart[] = {
        cmocka_unit_test(any_failing_call_is_an_error_between_processes),
    };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_fails_by_itself),
        cmocka_unit_test(any_failing_call_is_an_error_and_leaves_nothing),
    };

    if (!UNDER_THREAD_SANITIZER && cmocka_run_group_tests(apart, NULL, NULL) != 0)
        return 1;
    return cmocka_run_group_tests(tests, load_fake, NULL);
}
