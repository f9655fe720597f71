/* What a failing rank leaves behind on real GPUs: whoever is left learns it in time, and its
 * streams drain, whatever else the program does on its GPU. Skipped where there are not two GPUs.
 *
 * Nothing here waits for a stream without an end: survivors ask the driver until a time has passed,
 * and a rank that hangs in the driver is killed by the parent. What it took is told on stderr. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "gpu.h"
#include "support_ranks.h"

enum { SKIPPED = 77, SHARE = 64 << 10, STREAMS = 40, RANK_SECONDS = 45 };

#define TIMEOUT_NS UINT64_C(3000000000)
#define DRAIN_NS   UINT64_C(15000000000)

static const struct ranks_options left_alone = {
    .device = ZCTA_DEVICE_CUDA, .may_fail_to_finalize = true, .timeout_ns = TIMEOUT_NS};

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

struct means {
    zcta_context *context;
    zcta_team *world;
    uint32_t rank, count;
    struct zc_gpu *gpu;
    zcta_window *window;
};

static struct means open_means(zcta_context *context)
{
    struct means m = {.context = context, .world = zcta_world(context)};

    m.rank = zcta_team_rank(m.world);
    m.count = zcta_team_rank_count(m.world);
    EXPECT(zc_gpu_open("test", zcta_context_gpu(context), &m.gpu));
    EXPECT_OK(context, zcta_window_alloc(m.world, (size_t)SHARE * m.count, &m.window));
    EXPECT_OK(context, zcta_barrier(m.world, m.gpu->stream));
    EXPECT(zc_gpu_synchronize(m.gpu));
    return m;
}

static zcta_status gather(const struct means *m)
{
    char *all = zcta_window_base(m->window);

    return zcta_all_gather(m->world, all + (size_t)m->rank * SHARE, all, SHARE, m->gpu->stream,
                           NULL);
}

static double seconds_since(uint64_t begin)
{
    return (double)(now_ns() - begin) / 1e9;
}

static void expect_drained(const struct means *m, zc_cu_stream stream)
{
    const uint64_t begin = now_ns();

    while (m->gpu->driver.cuStreamQuery(stream) == ZC_CU_ERROR_NOT_READY &&
           now_ns() - begin < DRAIN_NS)
        sleep_ms(1);
    EXPECT(m->gpu->driver.cuStreamQuery(stream) == ZC_CU_SUCCESS);
}

static void expect_failed(const struct means *m, zcta_status status, uint32_t rank)
{
    zcta_error error;

    EXPECT(await_failure(m->world) == status);
    EXPECT_OK(m->context, zcta_team_failure(m->world, &error));
    EXPECT(error.rank == rank);
}

/* The survivor goes on without the others. */
static void expect_alive(const struct means *m)
{
    zcta_team *alone = NULL;

    EXPECT_OK(m->context, zcta_team_get(m->context, &m->rank, 1, NULL, &alone));
    EXPECT_OK(m->context, zcta_all_gather(alone, zcta_window_base(m->window),
                                          zcta_window_base(m->window), 4096, m->gpu->stream, NULL));
    expect_drained(m, m->gpu->stream);
}

/* ---- What holds up the GPU while a rank is missing ---- */

enum { NOTHING = 0, STREAMS_BEHIND = 1, KERNEL_LOADING = 2 };

static void *launch(void *data)
{
    static const char image[] = ".version 7.0\n.target sm_70\n.address_size 64\n"
                                ".visible .entry late()\n{\n    ret;\n}\n";
    const struct means *m = data;
    const struct zc_cuda_driver *d = &m->gpu->driver;
    zc_cu_module module = NULL;
    zc_cu_function late = NULL;
    zc_cu_stream stream = NULL;

    EXPECT(d->cuCtxPushCurrent(m->gpu->context) == 0);
    EXPECT(d->cuStreamCreate(&stream, ZC_CU_STREAM_NON_BLOCKING) == 0);
    EXPECT(zc_gpu_ok(m->gpu, d->cuModuleLoadData(&module, image), "cuModuleLoadData"));
    EXPECT(d->cuModuleGetFunction(&late, module, "late") == 0);
    EXPECT(d->cuLaunchKernel(late, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL) == 0);
    EXPECT(d->cuStreamSynchronize(stream) == 0);
    d->cuStreamDestroy(stream);
    return NULL;
}

static void queue_behind(const struct means *m, zc_cu_stream *streams)
{
    const struct zc_cuda_driver *d = &m->gpu->driver;
    zc_cu_event event = NULL;

    EXPECT(d->cuEventCreate(&event, ZC_CU_EVENT_DISABLE_TIMING) == 0);
    EXPECT(d->cuEventRecord(event, m->gpu->stream) == 0);
    for (uint32_t i = 0; i < STREAMS; i++) {
        EXPECT(d->cuStreamCreate(&streams[i], ZC_CU_STREAM_NON_BLOCKING) == 0);
        EXPECT(d->cuStreamWaitEvent(streams[i], event, 0) == 0);
    }
}

static void wait_in_vain(const struct means *m, int what)
{
    zc_cu_stream streams[STREAMS] = {NULL};
    const uint64_t begin = now_ns();
    double failed_after;
    pthread_t launcher;

    EXPECT_OK(m->context, gather(m));
    if ((what & STREAMS_BEHIND) != 0)
        queue_behind(m, streams);
    if ((what & KERNEL_LOADING) != 0)
        EXPECT(pthread_create(&launcher, NULL, launch, (void *)m) == 0);
    expect_failed(m, ZCTA_ERR_TIMEOUT, 1);
    failed_after = seconds_since(begin);
    /* A deadline may be told a quarter late; the other three are for a busy machine. */
    EXPECT(failed_after < 2 * (double)TIMEOUT_NS / 1e9);
    expect_drained(m, m->gpu->stream);
    if ((what & KERNEL_LOADING) != 0)
        EXPECT(pthread_join(launcher, NULL) == 0);
    for (uint32_t i = 0; i < STREAMS && (what & STREAMS_BEHIND) != 0; i++)
        expect_drained(m, streams[i]);
    fprintf(stderr, "deadline %.1f s: failed after %.2f s, all drained after %.2f s\n",
            (double)TIMEOUT_NS / 1e9, failed_after, seconds_since(begin));
    expect_alive(m);
}

/* Rank 1 never calls. */
static void miss_rank(zcta_context *context, void *data)
{
    const int *what = data;
    struct means m = open_means(context);

    if (m.rank == 0)
        wait_in_vain(&m, *what);
    else
        EXPECT(await_failure(m.world) != ZCTA_OK);
}

static void run_without_rank_1(const char *connections, int what)
{
    pid_t pids[2];

    setenv("CUDA_MODULE_LOADING", "LAZY", 1);
    if (connections != NULL)
        setenv("CUDA_DEVICE_MAX_CONNECTIONS", connections, 1);
    start_processes(2, &left_alone, miss_rank, &what, pids);
    for (int i = 0; i < 2; i++)
        assert_int_equal(wait_process(pids[i], RANK_SECONDS), 0);
    unsetenv("CUDA_DEVICE_MAX_CONNECTIONS");
}

static void a_missing_rank_with_one_hardware_queue(void **state)
{
    (void)state;
    run_without_rank_1("1", NOTHING);
}

static void a_missing_rank_with_many_streams_behind(void **state)
{
    (void)state;
    run_without_rank_1(NULL, STREAMS_BEHIND);
}

static void a_missing_rank_while_a_kernel_is_loaded(void **state)
{
    (void)state;
    run_without_rank_1(NULL, KERNEL_LOADING);
}

static void a_missing_rank_with_all_of_that(void **state)
{
    (void)state;
    run_without_rank_1("1", STREAMS_BEHIND | KERNEL_LOADING);
}

/* ---- A rank that is killed ---- */

enum { DIES_AFTER = 20, MOST = 20000, AT_ONCE = 4 };

static zc_cu_graph_exec capture(const struct means *m)
{
    const struct zc_cuda_driver *d = &m->gpu->driver;
    zc_cu_graph graph = NULL;
    zc_cu_graph_exec exec = NULL;

    EXPECT(zc_gpu_ok(m->gpu, d->cuStreamBeginCapture(m->gpu->stream, 1), "begin"));
    for (int i = 0; i < 3; i++)
        EXPECT_OK(m->context, gather(m));
    EXPECT(zc_gpu_ok(m->gpu, d->cuStreamEndCapture(m->gpu->stream, &graph), "end"));
    EXPECT(zc_gpu_ok(m->gpu, d->cuGraphInstantiateWithFlags(&exec, graph, 0), "instantiate"));
    d->cuGraphDestroy(graph);
    return exec;
}

static zcta_status replay(struct means *m, void *exec)
{
    EXPECT(zc_gpu_ok(m->gpu, m->gpu->driver.cuGraphLaunch(exec, m->gpu->stream), "launch"));
    return zcta_team_status(m->world);
}

static zcta_status release_and_run(struct means *m, void *plan)
{
    const zcta_status status = zcta_release(plan, m->gpu->stream);

    return status == ZCTA_OK ? zcta_plan_run(plan, m->gpu->stream) : status;
}

/* Rank 1 dies among runs; the others run on until they hear of it. */
static void die_among(struct means *m, zcta_status (*run)(struct means *m, void *what), void *what)
{
    zcta_status status = ZCTA_OK;
    uint64_t begin;

    for (uint32_t i = 0; i < MOST && status == ZCTA_OK; i++) {
        if (m->rank == 1 && i == DIES_AFTER)
            raise(SIGKILL);
        status = run(m, what);
        if (i % AT_ONCE == AT_ONCE - 1)
            expect_drained(m, m->gpu->stream);
    }
    expect_failed(m, ZCTA_ERR_PEER, 1);
    begin = now_ns();
    expect_drained(m, m->gpu->stream);
    fprintf(stderr, "drained %.2f s after the failure\n", seconds_since(begin));
    expect_alive(m);
}

static void die_among_replays(zcta_context *context, void *data)
{
    struct means m = open_means(context);

    (void)data;
    die_among(&m, replay, capture(&m));
}

static void die_among_released_runs(zcta_context *context, void *data)
{
    struct means m = open_means(context);
    char *all = zcta_window_base(m.window);
    zcta_plan *plan = NULL;

    (void)data;
    EXPECT_OK(context,
              plan_all_gather(m.world, all + (size_t)m.rank * SHARE, all, SHARE, NULL, &plan));
    EXPECT_OK(context, zcta_plan_run(plan, m.gpu->stream));
    die_among(&m, release_and_run, plan);
}

static void run_and_lose_rank_1(rank_fn *function)
{
    pid_t pids[2];

    start_processes(2, &left_alone, function, NULL, pids);
    assert_int_equal(wait_process(pids[0], RANK_SECONDS), 0);
    assert_int_equal(wait_process(pids[1], RANK_SECONDS), 256 + SIGKILL);
}

static void a_rank_killed_among_replays(void **state)
{
    (void)state;
    run_and_lose_rank_1(die_among_replays);
}

static void a_rank_killed_among_released_runs(void **state)
{
    (void)state;
    run_and_lose_rank_1(die_among_released_runs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_missing_rank_with_one_hardware_queue),
        cmocka_unit_test(a_missing_rank_with_many_streams_behind),
        cmocka_unit_test(a_missing_rank_while_a_kernel_is_loaded),
        cmocka_unit_test(a_missing_rank_with_all_of_that),
        cmocka_unit_test(a_rank_killed_among_replays),
        cmocka_unit_test(a_rank_killed_among_released_runs),
    };

    if (count_gpus() < 2) {
        puts("skipped: these tests need two GPUs");
        return SKIPPED;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
