/* The allgather on GPUs, one rank a GPU: bytes, streams, graphs, registered memory, views, many
 * small calls, and a rank that dies. Skipped where there are not two GPUs. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "gpu.h"
#include "support_ranks.h"

static const struct ranks_options on_gpus = {.device = ZCTA_DEVICE_CUDA};

/* Asked in a process of its own: a process that has used CUDA cannot fork ranks that do. */
static uint32_t count_gpus(void)
{
    int status = 0;
    const pid_t pid = fork();

    if (pid == 0) {
        struct zc_cuda_driver driver;
        struct zc_diag diag;
        int count = 0;

        zc_diag_init(&diag);
        if (zc_cuda_driver_load(&diag, &driver) == ZCTA_OK)
            driver.cuDeviceGetCount(&count);
        _exit(count);
    }
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? (uint32_t)WEXITSTATUS(status) : 0;
}

/* A rank's means: GPU, team, a window for the output, a share. */
struct fixture {
    zcta_context *context;
    zcta_team *world;
    uint32_t rank, count;
    struct zc_gpu *gpu;
    zcta_window *recv, *send;
    size_t room; /* of a share */
    unsigned char *bytes;
};

static struct fixture setup(zcta_context *context, size_t room)
{
    struct fixture f = {.context = context, .world = zcta_world(context), .room = room};

    f.rank = zcta_team_rank(f.world);
    f.count = zcta_team_rank_count(f.world);
    EXPECT(zc_gpu_open("test", zcta_context_gpu(context), &f.gpu));
    EXPECT_OK(context, zcta_window_alloc(f.world, room * f.count, &f.recv));
    EXPECT_OK(context, zcta_window_alloc(f.world, room, &f.send));
    f.bytes = malloc(room * f.count);
    EXPECT(f.bytes != NULL);
    return f;
}

static void teardown(struct fixture *f)
{
    EXPECT(zc_gpu_synchronize(f->gpu));
    EXPECT_OK(f->context, zcta_window_free(&f->send));
    EXPECT_OK(f->context, zcta_window_free(&f->recv));
    free(f->bytes);
    zc_gpu_close(f->gpu);
}

static char *own_share(const struct fixture *f, size_t share, bool in_place)
{
    return in_place ? (char *)zcta_window_base(f->recv) + f->rank * share
                    : (char *)zcta_window_base(f->send);
}

static void fill(const struct fixture *f, uint32_t call, size_t share, bool in_place)
{
    memset(f->bytes, 0xee, share * f->count);
    EXPECT(zc_gpu_put(f->gpu, zcta_window_base(f->recv), f->bytes, share * f->count));
    model_fill(f->bytes, call, f->rank, share);
    EXPECT(zc_gpu_put(f->gpu, own_share(f, share, in_place), f->bytes, share));
}

static void expect_gathered(const struct fixture *f, uint32_t call, size_t share)
{
    EXPECT(zc_gpu_get(f->gpu, f->bytes, zcta_window_base(f->recv), share * f->count));
    EXPECT(model_wrong(f->bytes, call, f->count, share) == 0);
}

static void gather(const struct fixture *f, size_t share, bool in_place, zcta_policy policy,
                   zcta_stream stream)
{
    const zcta_call_params params = {.size = sizeof params, .policy = policy};

    EXPECT_OK(f->context, zcta_all_gather(f->world, own_share(f, share, in_place),
                                          zcta_window_base(f->recv), share, stream, &params));
}

/* ---- Bytes and streams ---- */

static void gather_on_streams(zcta_context *context, void *data)
{
    static const size_t shares[] = {1, 3, 1000, 65536, 3000001};
    struct fixture f = setup(context, 3000001);
    /* The legacy stream, the thread's own default stream, a stream that blocks nobody. */
    const zcta_stream streams[] = {NULL, (zcta_stream)2, (zcta_stream)f.gpu->stream};
    uint32_t call = 0;

    (void)data;
    for (int place = 0; place < 2; place++)
        for (int policy = ZCTA_POLICY_DEFAULT; policy <= ZCTA_POLICY_ZERO; policy++)
            for (size_t s = 0; s < 3; s++)
                for (size_t i = 0; i < sizeof shares / sizeof shares[0]; i++) {
                    fill(&f, ++call, shares[i], place == 0);
                    gather(&f, shares[i], place == 0, (zcta_policy)policy, streams[s]);
                    EXPECT(zc_gpu_ok(f.gpu, f.gpu->driver.cuStreamSynchronize(streams[s]), "sync"));
                    expect_gathered(&f, call, shares[i]);
                }
    teardown(&f);
}

static void bytes_are_right_on_every_stream_and_under_every_policy(void **state)
{
    (void)state;
    run_as_processes_with(2, &on_gpus, gather_on_streams, NULL);
}

/* Small calls by the batch, each with contents and an output of its own, checked after each batch.
 */
enum { SMALL = 64, SLOTS = 32 };

static void fill_slots(const struct fixture *f, uint32_t call)
{
    const size_t output = (size_t)SMALL * f->count;
    unsigned char shares[SLOTS * SMALL];

    memset(f->bytes, 0xee, SLOTS * output);
    for (uint32_t i = 0; i < SLOTS; i++) {
        model_fill(shares + i * (size_t)SMALL, call + i, f->rank, SMALL);
        if (i % 2 == 0)
            memcpy(f->bytes + i * output + f->rank * (size_t)SMALL, shares + i * (size_t)SMALL,
                   SMALL);
    }
    EXPECT(zc_gpu_put(f->gpu, zcta_window_base(f->recv), f->bytes, SLOTS * output));
    EXPECT(zc_gpu_put(f->gpu, zcta_window_base(f->send), shares, sizeof shares));
}

static void gather_often(zcta_context *context, void *data)
{
    struct fixture f = setup(context, SLOTS * SMALL);
    const size_t output = (size_t)SMALL * f.count;
    const uint32_t calls = *(const uint32_t *)data;

    for (uint32_t call = 0; call < calls; call += SLOTS) {
        fill_slots(&f, call);
        for (uint32_t i = 0; i < SLOTS; i++) {
            char *recv = (char *)zcta_window_base(f.recv) + i * output;
            const char *send = i % 2 == 0 ? recv + f.rank * (size_t)SMALL
                                          : (char *)zcta_window_base(f.send) + i * (size_t)SMALL;

            EXPECT_OK(context, zcta_all_gather(f.world, send, recv, SMALL,
                                               (zcta_stream)f.gpu->stream, NULL));
        }
        EXPECT(zc_gpu_get(f.gpu, f.bytes, zcta_window_base(f.recv), SLOTS * output));
        for (uint32_t i = 0; i < SLOTS; i++)
            EXPECT(model_wrong(f.bytes + i * output, call + i, f.count, SMALL) == 0);
    }
    teardown(&f);
}

static void a_million_small_calls_stay_right(void **state)
{
    const char *fewer = getenv("ZEROCTA_TEST_CALLS"); /* where there is only a fake driver */
    uint32_t calls = fewer == NULL ? 1000000 : (uint32_t)strtoul(fewer, NULL, 10);

    (void)state;
    run_as_processes_with(2, &on_gpus, gather_often, &calls);
}

/* ---- Eight ranks, whatever GPUs there are ---- */

static void gather_some(zcta_context *context, void *data)
{
    static const size_t shares[] = {1, 4096, 100001, 1 << 20};
    struct fixture f = setup(context, 1 << 20);
    uint32_t call = 0;

    (void)data;
    for (int place = 0; place < 2; place++)
        for (size_t i = 0; i < sizeof shares / sizeof shares[0]; i++)
            for (uint32_t again = 0; again < 5; again++) {
                fill(&f, ++call, shares[i], place == 0);
                gather(&f, shares[i], place == 0, ZCTA_POLICY_DEFAULT, (zcta_stream)f.gpu->stream);
                expect_gathered(&f, call, shares[i]);
            }
    teardown(&f);
}

static void eight_ranks_as_processes_share_the_gpus(void **state)
{
    (void)state;
    run_as_processes_with(8, &on_gpus, gather_some, NULL);
}

/* A process that has used CUDA cannot fork ranks that do, so threads get one of their own. */
static void run_as_threads_of_a_child(uint32_t count, const struct ranks_options *options,
                                      rank_fn *function)
{
    const pid_t pid = fork();
    int status = 0;

    if (pid == 0) {
        run_as_threads_with(count, options, function, NULL);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void ranks_as_threads_have_a_gpu_each(void **state)
{
    (void)state;
    run_as_threads_of_a_child(count_gpus(), &on_gpus, gather_some);
}

/* ---- Graphs ---- */

static zc_cu_graph_exec capture(const struct fixture *f, size_t share, bool in_place)
{
    const struct zc_cuda_driver *d = &f->gpu->driver;
    zc_cu_graph graph = NULL;
    zc_cu_graph_exec exec = NULL;

    EXPECT(zc_gpu_ok(f->gpu, d->cuStreamBeginCapture(f->gpu->stream, 1), "begin"));
    gather(f, share, in_place, ZCTA_POLICY_DEFAULT, (zcta_stream)f->gpu->stream);
    gather(f, share, in_place, ZCTA_POLICY_DEFAULT, (zcta_stream)f->gpu->stream);
    EXPECT(zc_gpu_ok(f->gpu, d->cuStreamEndCapture(f->gpu->stream, &graph), "end"));
    EXPECT(zc_gpu_ok(f->gpu, d->cuGraphInstantiateWithFlags(&exec, graph, 0), "instantiate"));
    EXPECT(zc_gpu_ok(f->gpu, d->cuGraphDestroy(graph), "destroy"));
    return exec;
}

static void replay(zcta_context *context, void *data)
{
    const size_t share = 5000;
    struct fixture f = setup(context, share);

    (void)data;
    for (int place = 0; place < 2; place++) {
        zc_cu_graph_exec exec = capture(&f, share, place == 0);

        for (uint32_t round = 1; round <= 7; round++) {
            for (uint32_t i = 0; i < round; i++) {
                fill(&f, round * 10 + i, share, place == 0);
                EXPECT(
                    zc_gpu_ok(f.gpu, f.gpu->driver.cuGraphLaunch(exec, f.gpu->stream), "launch"));
                expect_gathered(&f, round * 10 + i, share);
            }
            /* Between replays, an eager call. */
            fill(&f, round * 1000, share, place == 0);
            gather(&f, share, place == 0, ZCTA_POLICY_DEFAULT, (zcta_stream)f.gpu->stream);
            expect_gathered(&f, round * 1000, share);
        }
        for (uint32_t i = 0; i < 100; i++) /* without a pause */
            EXPECT(zc_gpu_ok(f.gpu, f.gpu->driver.cuGraphLaunch(exec, f.gpu->stream), "launch"));
        EXPECT(zc_gpu_synchronize(f.gpu));
        EXPECT(zc_gpu_ok(f.gpu, f.gpu->driver.cuGraphExecDestroy(exec), "destroy"));
    }
    teardown(&f);
}

static void a_captured_call_is_replayed_any_number_of_times_between_eager_ones(void **state)
{
    (void)state;
    run_as_processes_with(2, &on_gpus, replay, NULL);
}

/* ---- Memory ---- */

static void view_parts(zcta_context *context, void *data)
{
    struct fixture f = setup(context, 4096);
    const void *base = NULL;
    size_t stride = 0;

    (void)data;
    fill(&f, 5, 4096, false);
    EXPECT_OK(context, zcta_barrier(f.world, (zcta_stream)f.gpu->stream));
    EXPECT_OK(context, zcta_window_view(f.send, &base, &stride));
    for (uint32_t rank = 0; rank < f.count; rank++)
        EXPECT(zc_gpu_get(f.gpu, f.bytes + rank * 4096, (const char *)base + rank * stride, 4096));
    EXPECT(model_wrong(f.bytes, 5, f.count, 4096) == 0);
    EXPECT_OK(context, zcta_barrier(f.world, (zcta_stream)f.gpu->stream));
    teardown(&f);
}

static void a_view_shows_every_ranks_part(void **state)
{
    (void)state;
    run_as_processes_with(2, &on_gpus, view_parts, NULL);
}

/* Memory of the caller's own, in two mappings of one allocation each. */
static void register_memory(zcta_context *context, void *data)
{
    struct fixture f = setup(context, 4096);
    const struct zc_cuda_driver *d = &f.gpu->driver;
    const struct zc_cu_allocation_prop prop = {
        .type = ZC_CU_MEM_ALLOCATION_PINNED,
        .handle_types = ZC_CU_MEM_HANDLE_POSIX_FD,
        .location = {ZC_CU_MEM_LOCATION_DEVICE, zcta_context_gpu(context)}};
    const struct zc_cu_access access = {prop.location, ZC_CU_MEM_ACCESS_READWRITE};
    const size_t size = (size_t)4 << 20;
    zc_cu_allocation handle = 0;
    zc_cu_pointer at = 0;
    zcta_window *window = NULL;
    char *recv;

    (void)data;
    EXPECT(zc_gpu_ok(f.gpu, d->cuMemCreate(&handle, size, &prop, 0), "cuMemCreate"));
    EXPECT(zc_gpu_ok(f.gpu, d->cuMemAddressReserve(&at, size, 0, 0, 0), "reserve"));
    EXPECT(zc_gpu_ok(f.gpu, d->cuMemMap(at, size, 0, handle, 0), "map"));
    EXPECT(zc_gpu_ok(f.gpu, d->cuMemSetAccess(at, size, &access, 1), "access"));
    recv = (char *)(uintptr_t)at + 8192;
    EXPECT_OK(context, zcta_window_register(f.world, recv, 2 * 4096, &window));
    model_fill(f.bytes, 9, f.rank, 4096);
    EXPECT(zc_gpu_put(f.gpu, recv + f.rank * 4096, f.bytes, 4096));
    EXPECT_OK(context, zcta_all_gather(f.world, recv + f.rank * 4096, recv, 4096,
                                       (zcta_stream)f.gpu->stream, NULL));
    EXPECT(zc_gpu_get(f.gpu, f.bytes, recv, 2 * 4096));
    EXPECT(model_wrong(f.bytes, 9, f.count, 4096) == 0);
    EXPECT_OK(context, zcta_window_free(&window));
    d->cuMemUnmap(at, size);
    d->cuMemAddressFree(at, size);
    d->cuMemRelease(handle);
    teardown(&f);
}

static void memory_of_the_callers_own_can_be_registered(void **state)
{
    (void)state;
    run_as_processes_with(2, &on_gpus, register_memory, NULL);
}

/* As PyTorch's expandable segments are: allocations mapped one behind the other, as many as a rank
 * happens to have. */
static void register_segments(zcta_context *context, void *data)
{
    enum { SEGMENTS = 3, SHARE = 3 << 20 };
    struct fixture f = setup(context, SHARE);
    const struct zc_cuda_driver *d = &f.gpu->driver;
    const struct zc_cu_allocation_prop prop = {
        .type = ZC_CU_MEM_ALLOCATION_PINNED,
        .handle_types = ZC_CU_MEM_HANDLE_POSIX_FD,
        .location = {ZC_CU_MEM_LOCATION_DEVICE, zcta_context_gpu(context)}};
    const struct zc_cu_access access = {prop.location, ZC_CU_MEM_ACCESS_READWRITE};
    const size_t segment = f.rank == 0 ? (size_t)4 << 20 : (size_t)12 << 20;
    const uint32_t count = f.rank == 0 ? SEGMENTS : 1;
    zc_cu_allocation handles[SEGMENTS];
    zc_cu_pointer at = 0;
    zcta_window *window = NULL;
    char *recv;

    (void)data;
    EXPECT(zc_gpu_ok(f.gpu, d->cuMemAddressReserve(&at, segment * count, 0, 0, 0), "reserve"));
    for (uint32_t i = 0; i < count; i++) {
        EXPECT(zc_gpu_ok(f.gpu, d->cuMemCreate(&handles[i], segment, &prop, 0), "cuMemCreate"));
        EXPECT(zc_gpu_ok(f.gpu, d->cuMemMap(at + i * segment, segment, 0, handles[i], 0), "map"));
    }
    EXPECT(zc_gpu_ok(f.gpu, d->cuMemSetAccess(at, segment * count, &access, 1), "access"));
    recv = (char *)(uintptr_t)at + ((size_t)3 << 20) + 4096;
    expect_error(context, zcta_window_register(f.world, recv, (size_t)12 << 20, &window),
                 ZCTA_ERR_UNSUPPORTED, NULL);
    EXPECT_OK(context, zcta_window_register(f.world, recv, 2 * (size_t)SHARE, &window));
    for (uint32_t call = 0; call < 3; call++) {
        model_fill(f.bytes, call, f.rank, SHARE);
        EXPECT(zc_gpu_put(f.gpu, recv + f.rank * (size_t)SHARE, f.bytes, SHARE));
        EXPECT_OK(context, zcta_all_gather(f.world, recv + f.rank * (size_t)SHARE, recv, SHARE,
                                           (zcta_stream)f.gpu->stream, NULL));
        EXPECT(zc_gpu_get(f.gpu, f.bytes, recv, 2 * (size_t)SHARE));
        EXPECT(model_wrong(f.bytes, call, f.count, SHARE) == 0);
    }
    EXPECT_OK(context, zcta_window_free(&window));
    for (uint32_t i = 0; i < count; i++) {
        d->cuMemUnmap(at + i * segment, segment);
        d->cuMemRelease(handles[i]);
    }
    d->cuMemAddressFree(at, segment * count);
    teardown(&f);
}

static void memory_in_several_allocations_can_be_registered(void **state)
{
    (void)state;
    run_as_processes_with(2, &on_gpus, register_segments, NULL);
}

static void register_plain(zcta_context *context, void *data)
{
    struct fixture f = setup(context, 64);
    zc_cu_pointer plain = 0;
    zcta_window *window = NULL;

    (void)data;
    EXPECT(zc_gpu_ok(f.gpu, f.gpu->driver.cuMemAlloc(&plain, 4096), "cuMemAlloc"));
    expect_error(context, zcta_window_register(f.world, (void *)(uintptr_t)plain, 4096, &window),
                 ZCTA_ERR_UNSUPPORTED, NULL);
    EXPECT(window == NULL);
    f.gpu->driver.cuMemFree(plain);
    teardown(&f);
}

static void plain_memory_is_refused(void **state)
{
    (void)state;
    run_as_processes_with(2, &on_gpus, register_plain, NULL);
}

/* ---- A rank dies ---- */

/* Rank 1 dies in the middle of a stream of collectives; rank 0's streams drain, it learns who it
 * was, and goes on with a team of its own. */
static void lose_rank(zcta_context *context, void *data)
{
    struct fixture f = setup(context, 1 << 20);
    const uint32_t self = 0;
    zcta_team *alone = NULL;
    zcta_error error;
    zcta_status status = ZCTA_OK;

    (void)data;
    for (uint32_t i = 0; i < 50 && f.rank == 1; i++)
        gather(&f, 1 << 20, true, ZCTA_POLICY_ZERO, (zcta_stream)f.gpu->stream);
    if (f.rank == 1)
        raise(SIGKILL);
    for (uint32_t i = 0; i < 20000 && status == ZCTA_OK; i++)
        status = zcta_all_gather(f.world, own_share(&f, 1 << 20, true), zcta_window_base(f.recv),
                                 1 << 20, (zcta_stream)f.gpu->stream, NULL);
    EXPECT(zc_gpu_synchronize(f.gpu));
    expect_error(context, zcta_team_status(f.world), ZCTA_ERR_PEER, "rank 1");
    EXPECT_OK(context, zcta_last_error(context, &error));
    EXPECT(error.rank == 1);
    EXPECT_OK(context, zcta_team_get(context, &self, 1, NULL, &alone));
    EXPECT_OK(context, zcta_all_gather(alone, zcta_window_base(f.send), zcta_window_base(f.recv),
                                       4096, (zcta_stream)f.gpu->stream, NULL));
    EXPECT(zc_gpu_synchronize(f.gpu));
    free(f.bytes);
    zc_gpu_close(f.gpu);
}

static void a_dead_rank_is_named_and_the_streams_drain(void **state)
{
    static const struct ranks_options options = {
        .device = ZCTA_DEVICE_CUDA, .may_fail_to_finalize = true, .timeout_ns = 10000000000};

    (void)state;
    run_as_processes_with(2, &options, lose_rank, NULL);
}

/* Rank 1 never calls; rank 0's wait ends at its deadline. */
static void miss_rank(zcta_context *context, void *data)
{
    struct fixture f = setup(context, 4096);

    (void)data;
    if (f.rank == 0)
        gather(&f, 4096, true, ZCTA_POLICY_ZERO, (zcta_stream)f.gpu->stream);
    EXPECT(zc_gpu_synchronize(f.gpu));
    if (f.rank == 0)
        expect_error(context, zcta_team_status(f.world), ZCTA_ERR_TIMEOUT, "rank 1");
    else
        EXPECT(await_failure(f.world) != ZCTA_OK);
    free(f.bytes);
    zc_gpu_close(f.gpu);
}

static void a_rank_that_never_calls_is_named_at_the_deadline(void **state)
{
    static const struct ranks_options options = {
        .device = ZCTA_DEVICE_CUDA, .may_fail_to_finalize = true, .timeout_ns = 1500000000};

    (void)state;
    run_as_processes_with(2, &options, miss_rank, NULL);
}

enum { SKIPPED = 77 }; /* what CMake's SKIP_RETURN_CODE says */

/* ---- Early ready ---- */

/* Runs of a plan, each but the first released, now and then with another call between. */
static void release_and_run(zcta_context *context, void *data)
{
    enum { SHARE = 50000, CALLS = 500 };
    struct fixture f = setup(context, SHARE);
    zcta_plan *plan = NULL;

    (void)data;
    EXPECT_OK(context, plan_all_gather(f.world, own_share(&f, SHARE, true),
                                       zcta_window_base(f.recv), SHARE, NULL, &plan));
    for (uint32_t call = 0; call < CALLS; call++) {
        model_fill(f.bytes, call, f.rank, SHARE);
        EXPECT(zc_gpu_put(f.gpu, own_share(&f, SHARE, true), f.bytes, SHARE));
        if (call % 7 == 0)
            EXPECT_OK(context, zcta_barrier(f.world, f.gpu->stream));
        EXPECT_OK(context, zcta_plan_run(plan, f.gpu->stream));
        expect_gathered(&f, call, SHARE);
        if (call % 5 != 0)
            EXPECT_OK(context, zcta_release(plan, call % 2 ? f.gpu->stream : NULL));
    }
    EXPECT_OK(context, zcta_plan_free(&plan));
    teardown(&f);
}

static void released_runs_are_right(void **state)
{
    (void)state;
    run_as_processes_with(2, &on_gpus, release_and_run, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_right_on_every_stream_and_under_every_policy),
        cmocka_unit_test(a_million_small_calls_stay_right),
        cmocka_unit_test(eight_ranks_as_processes_share_the_gpus),
        cmocka_unit_test(ranks_as_threads_have_a_gpu_each),
        cmocka_unit_test(a_captured_call_is_replayed_any_number_of_times_between_eager_ones),
        cmocka_unit_test(released_runs_are_right),
        cmocka_unit_test(a_view_shows_every_ranks_part),
        cmocka_unit_test(memory_of_the_callers_own_can_be_registered),
        cmocka_unit_test(memory_in_several_allocations_can_be_registered),
        cmocka_unit_test(plain_memory_is_refused),
        cmocka_unit_test(a_dead_rank_is_named_and_the_streams_drain),
        cmocka_unit_test(a_rank_that_never_calls_is_named_at_the_deadline),
    };

    if (count_gpus() < 2) {
        puts("skipped: these tests need two GPUs");
        return SKIPPED;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
