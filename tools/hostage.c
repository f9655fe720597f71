/* zerocta hostage: shows which paths need an SM. A kernel takes every SM hostage; the collective
 * either finishes meanwhile or waits until the kernel lets go. The kernel lets go by itself after
 * some seconds, whatever happens to this program. */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "alone.h"
#include "base/clock.h"
#include "choices.h"
#include "collective.h"
#include "commands.h"
#include "contents.h"
#include "gpu.h"
#include "launch.h"
#include "option_rows.h"
#include "options.h"

/* Every thread spins until the flag is raised or its time is up; the first says that it has begun.
 * PTX, so that no CUDA compiler is needed. */
static const char kernel_text[] = ".version 7.0\n"
                                  ".target sm_70\n"
                                  ".address_size 64\n"
                                  ".visible .entry hold(.param .u64 flag, .param .u64 begun,\n"
                                  "                     .param .u64 limit)\n"
                                  "{\n"
                                  "    .reg .pred %p<4>;\n"
                                  "    .reg .b32 %r<4>;\n"
                                  "    .reg .b64 %d<6>;\n"
                                  "    ld.param.u64 %d0, [flag];\n"
                                  "    ld.param.u64 %d1, [begun];\n"
                                  "    ld.param.u64 %d2, [limit];\n"
                                  "    mov.u64 %d3, %globaltimer;\n"
                                  "    add.u64 %d4, %d3, %d2;\n"
                                  "    mov.u32 %r0, 1;\n"
                                  "    st.volatile.global.u32 [%d1], %r0;\n"
                                  "spin:\n"
                                  "    ld.volatile.global.u32 %r1, [%d0];\n"
                                  "    setp.ne.u32 %p0, %r1, 0;\n"
                                  "    @%p0 bra done;\n"
                                  "    mov.u64 %d3, %globaltimer;\n"
                                  "    setp.lt.u64 %p1, %d3, %d4;\n"
                                  "    @%p1 bra spin;\n"
                                  "done:\n"
                                  "    ret;\n"
                                  "}\n";

enum {
    BLOCK_THREADS = 1024,
    BLOCKS_PER_SM = 8,   /* four times what fits, so that nothing else is ever next in line */
    SETTLE_NS = 20000000 /* until the first wave sits on all SMs */
};

#define HOLD_LIMIT_NS UINT64_C(4000000000) /* the kernel's own end */
#define PATIENCE_NS   UINT64_C(500000000)  /* how long a collective may take with every SM held */

struct hostage {
    uint64_t rank_count, bytes_max;
    uint64_t engine; /* a zcta_engine */
    struct zc_shape shapes[ZC_COLLECTIVE_COUNT];
    uint32_t shape_count;
};

/* One rank's means. */
struct rank {
    zcta_context *context;
    zcta_team *world;
    uint32_t rank, rank_count;
    struct zc_gpu *gpu;
    zc_cu_module module;
    zc_cu_function kernel;
    zc_cu_stream kernel_stream;
    _Atomic uint32_t *flags; /* [0] raised: let go; [1]: begun. Pinned, so the GPU sees them */
    int sms;
};

static const struct zc_option options[] = {
    ZC_ROW_RANKS(offsetof(struct hostage, rank_count),
                 "how many ranks to start, one a GPU; 2 if not given", 2, ZC_MAX_RANKS),
    ZC_ROW_MAX(offsetof(struct hostage, bytes_max), "256M", 1024),
    ZC_ROW_ENGINE(
        offsetof(struct hostage, engine),
        "auto, ce or nccl; auto if not given. What NCCL's kernels do is shown, but is no failure"),
};

static const struct zc_command_line line = {
    .command = "hostage",
    .synopsis = "COLLECTIVE... [OPTIONS]",
    .purpose = "Holds every SM with a spinning kernel and runs a collective meanwhile, in place "
               "where it can be and out of place, under each policy. What is said to need no SM, "
               "under policy ZERO everything, must finish while the SMs are held. Needs GPUs.",
    .options = options,
    .option_count = sizeof options / sizeof options[0],
    .operands_min = 1,
    .operands_max = ZC_COLLECTIVE_COUNT,
    .operand_name = "a collective, or all,",
    .operand_words = ZC_COLLECTIVE_WORDS,
    .notes = ZC_NOTE_COLLECTIVES "            several, or all\n" ZC_NOTE_SIZE,
    .exit_status = "0 if every call that is to need no SM finished while the SMs were held, with "
                   "the right bytes; 1 if not or if it could not run",
};

/* ---- The kernel ---- */

static bool load_kernel(struct rank *w)
{
    const struct zc_cuda_driver *d = &w->gpu->driver;
    void *flags = NULL;

    if (!zc_gpu_ok(w->gpu, d->cuModuleLoadData(&w->module, kernel_text), "cuModuleLoadData") ||
        !zc_gpu_ok(w->gpu, d->cuModuleGetFunction(&w->kernel, w->module, "hold"),
                   "cuModuleGetFunction") ||
        !zc_gpu_ok(w->gpu, d->cuStreamCreate(&w->kernel_stream, ZC_CU_STREAM_NON_BLOCKING),
                   "cuStreamCreate") ||
        !zc_gpu_ok(w->gpu, d->cuMemHostAlloc(&flags, 2 * sizeof(uint32_t), 0), "cuMemHostAlloc") ||
        !zc_gpu_ok(w->gpu,
                   d->cuDeviceGetAttribute(&w->sms, ZC_CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
                                           w->gpu->device),
                   "cuDeviceGetAttribute"))
        return false;
    w->flags = flags;
    return true;
}

static void unload_kernel(struct rank *w)
{
    const struct zc_cuda_driver *d;

    if (w->gpu == NULL)
        return;
    d = &w->gpu->driver;
    if (w->flags != NULL) {
        atomic_store(&w->flags[0], 1);
        d->cuStreamSynchronize(w->kernel_stream);
        d->cuMemFreeHost((void *)(uintptr_t)w->flags);
    }
    if (w->kernel_stream != NULL)
        d->cuStreamDestroy(w->kernel_stream);
    if (w->module != NULL)
        d->cuModuleUnload(w->module);
}

static void pause_ns(uint64_t ns)
{
    const struct timespec pause = {.tv_nsec = (long)ns};

    nanosleep(&pause, NULL);
}

/* Returns when every SM is held. */
static bool hold(struct rank *w)
{
    const struct zc_cuda_driver *d = &w->gpu->driver;
    uint64_t flag = (uintptr_t)&w->flags[0], begun = (uintptr_t)&w->flags[1], limit = HOLD_LIMIT_NS;
    void *parameters[] = {&flag, &begun, &limit};
    const uint64_t deadline = zc_deadline_in(PATIENCE_NS);

    atomic_store(&w->flags[0], 0);
    atomic_store(&w->flags[1], 0);
    if (!zc_gpu_ok(w->gpu,
                   d->cuLaunchKernel(w->kernel, (unsigned)w->sms * BLOCKS_PER_SM, 1, 1,
                                     BLOCK_THREADS, 1, 1, 0, w->kernel_stream, parameters, NULL),
                   "cuLaunchKernel"))
        return false;
    while (atomic_load(&w->flags[1]) == 0 && zc_time_left_ns(deadline) > 0)
        pause_ns(100000);
    pause_ns(SETTLE_NS);
    return atomic_load(&w->flags[1]) != 0;
}

static bool let_go(struct rank *w)
{
    atomic_store(&w->flags[0], 1);
    return zc_gpu_ok(w->gpu, w->gpu->driver.cuStreamSynchronize(w->kernel_stream),
                     "cuStreamSynchronize") &&
           zc_gpu_synchronize(w->gpu);
}

/* ---- One case ---- */

struct test {
    const struct zc_shape *shape;
    bool in_place;
    zcta_policy policy;
    zcta_engine engine;
    struct zc_sized sized;
    struct zc_contents contents;
    zcta_call call;
    uint64_t serial;
};

struct outcome {
    uint64_t waited; /* 1: it did not finish while the SMs were held */
    uint64_t wrong;  /* bytes */
    uint64_t time_ns;
};

static zcta_status run(const struct rank *w, const struct test *test)
{
    return zcta_run(w->world, &test->call, (zcta_stream)w->gpu->stream);
}

static bool fill(struct rank *w, struct test *test)
{
    return zc_contents_prepare(&test->contents, ++test->serial) && zc_gpu_synchronize(w->gpu);
}

/* Runs the collective with every SM held, and waits for it no longer than PATIENCE_NS. */
static bool run_held(struct rank *w, const struct test *test, struct outcome *outcome)
{
    const struct zc_cuda_driver *d = &w->gpu->driver;
    uint64_t begin, deadline;
    bool finished = false;

    if (!hold(w))
        return false;
    begin = zc_now_ns();
    deadline = zc_deadline_in(PATIENCE_NS);
    if (run(w, test) != ZCTA_OK || !zc_gpu_mark(w->gpu, w->gpu->end))
        return false;
    while (!finished && zc_time_left_ns(deadline) > 0)
        finished = d->cuEventQuery(w->gpu->end) == ZC_CU_SUCCESS;
    outcome->time_ns = zc_now_ns() - begin;
    outcome->waited = !finished;
    return true;
}

/* Everybody's outcome is everybody's: one that waited or is wrong decides. */
static bool share_outcome(const struct rank *w, struct outcome *outcome)
{
    struct outcome *all = calloc(w->rank_count, sizeof *all);
    const struct outcome mine = *outcome;
    bool shared = all != NULL && zcta_team_exchange(w->world, &mine, all, sizeof mine) == ZCTA_OK;

    *outcome = (struct outcome){0};
    for (uint32_t i = 0; i < w->rank_count && shared; i++) {
        outcome->waited |= all[i].waited;
        outcome->wrong += all[i].wrong;
        outcome->time_ns = all[i].time_ns > outcome->time_ns ? all[i].time_ns : outcome->time_ns;
    }
    free(all);
    return shared;
}

static bool meet(const struct rank *w)
{
    struct outcome none = {0};

    return share_outcome(w, &none);
}

/* NULL: the call would be refused, on all ranks alike. */
static const struct zcta_report_path *path_of(const struct rank *w, const struct test *test,
                                              zcta_report *report)
{
    *report = (zcta_report){.size = sizeof *report};
    if (zcta_explain(w->world, &test->call, report) != ZCTA_OK ||
        report->chosen >= report->path_count)
        return NULL;
    return &report->paths[report->chosen];
}

static void print_row(const struct rank *w, const struct test *test,
                      const struct zcta_report_path *path, const struct outcome *outcome)
{
    if (w->rank != 0)
        return;
    printf("%-12s %11" PRIu64 "  %-5s  %-10s  %-20s  ", test->shape->info.name, test->sized.bytes,
           test->in_place ? "in" : "out", zc_policy_choices[test->policy - 1],
           path == NULL ? "-" : path->path);
    if (path == NULL)
        printf("refused\n");
    else
        printf("%-28s %10.0f %8" PRIu64 "\n",
               outcome->waited ? "waits for an SM" : "finishes with every SM held",
               (double)outcome->time_ns / 1e3, outcome->wrong);
    fflush(stdout);
}

/* How often tests ran, and whether one failed. */
struct tally {
    uint32_t ran;
    bool failed;
};

/* One case on all ranks. False if it could not be run. */
static bool run_test(struct rank *w, struct test *test, struct tally *tally)
{
    struct outcome outcome = {0};
    zcta_report report;
    const struct zcta_report_path *path = path_of(w, test, &report);

    /* Once before, so that nothing has to be prepared while the SMs are held. */
    if (path != NULL &&
        (!fill(w, test) || run(w, test) != ZCTA_OK || !zc_gpu_synchronize(w->gpu) ||
         !fill(w, test) || !meet(w) || !run_held(w, test, &outcome) || !meet(w) || !let_go(w) ||
         !zc_contents_check(&test->contents, test->serial, &outcome.wrong) ||
         !share_outcome(w, &outcome)))
        return false;
    tally->ran += path != NULL;
    tally->failed |= outcome.wrong != 0 || (path != NULL && path->sms == 0 && outcome.waited);
    print_row(w, test, path, &outcome);
    return true;
}

static int fail_test(const struct rank *w)
{
    zcta_error error = {0};

    /* What went wrong outside the library has been said where it did. */
    if (zcta_last_error(w->context, &error) != ZCTA_OK || error.status == ZCTA_OK)
        return zc_failure(line.command, "rank %" PRIu32 ": the test could not be run", w->rank);
    return zc_failure(line.command, "rank %" PRIu32 ": the test could not be run: %s (%s)", w->rank,
                      error.message, zcta_status_name(error.status));
}

/* One size of a collective in one place, under each policy. */
static bool run_policies(struct rank *w, const struct hostage *settings,
                         const struct zc_arena *arena, struct test *test, uint64_t bytes,
                         struct tally *tally)
{
    bool ran;

    if (zc_sized_make(w->world, test->shape, bytes, test->in_place, &test->sized) != ZCTA_OK)
        return false;
    ran = zc_contents_open(&test->sized, arena, &test->contents);
    test->call = test->contents.call;
    test->call.engine = (zcta_engine)settings->engine;
    for (int policy = ZCTA_POLICY_DEFAULT; ran && policy <= ZCTA_POLICY_ZERO; policy++) {
        test->policy = test->call.policy = (zcta_policy)policy;
        ran = run_test(w, test, tally);
    }
    zc_contents_close(&test->contents);
    zc_sized_free(&test->sized);
    return ran;
}

/* All sizes of a collective in one place, in memory of their own. */
static bool run_sizes(struct rank *w, const struct hostage *settings, const struct zc_shape *shape,
                      bool in_place, struct tally *tally)
{
    const bool moves = !zc_shape_has(shape, ZCTA_COLLECTIVE_NO_DATA);
    struct test test = {.shape = shape, .in_place = in_place};
    const struct zc_mover mover = zc_gpu_mover(w->gpu);
    struct zc_arena arena = {.recv = NULL};
    struct zc_sized largest;
    bool ran;

    if (zc_sized_make(w->world, shape, moves ? settings->bytes_max : 0, in_place, &largest) !=
        ZCTA_OK)
        return false;
    ran = zc_arena_open(w->world, &largest, &mover, &arena) == ZCTA_OK;
    if (!moves)
        ran = ran && run_policies(w, settings, &arena, &test, 0, tally);
    for (uint64_t bytes = 1024; moves && ran && bytes <= settings->bytes_max; bytes *= 64)
        ran = run_policies(w, settings, &arena, &test, bytes, tally);
    zc_sized_free(&largest);
    if (ran)
        zc_arena_close(&arena);
    return ran;
}

static int run_tests(struct rank *w, const struct hostage *settings)
{
    struct tally tally = {0};

    if (w->rank == 0)
        printf("%-12s %11s  %-5s  %-10s  %-20s  %-28s %10s %8s\n%-12s %11s  %-5s  %-10s  %-20s  "
               "%-28s  %10s %8s\n",
               "collective", "bytes", "place", "policy", "path", "with every SM held", "time",
               "wrong", "", "", "", "", "", "", "µs", "bytes");
    for (uint32_t i = 0; i < settings->shape_count; i++)
        for (int place = 0; place < 2; place++)
            if ((place == 1 || zc_in_place_defect(&settings->shapes[i]) == NULL) &&
                !run_sizes(w, settings, &settings->shapes[i], place == 0, &tally))
                return fail_test(w);
    if (w->rank == 0)
        printf("\nresult: %s\n", tally.ran == 0 ? "nothing could run"
                                 : tally.failed ? "FAILED"
                                                : "OK, what is to need no SM needs none");
    return tally.failed || tally.ran == 0 ? ZC_EXIT_FAILED : ZC_EXIT_OK;
}

/* ---- One rank ---- */

struct identity {
    uint64_t uuid[2];
};

/* Two ranks on one GPU would each hold the other's SMs. False too if it cannot be told, which has
 * been said where it was found. */
static bool each_has_a_gpu(const struct rank *w)
{
    struct identity *all = calloc(w->rank_count, sizeof *all), mine = {{0}};
    bool each = all != NULL &&
                zc_gpu_ok(w->gpu, w->gpu->driver.cuDeviceGetUuid(mine.uuid, w->gpu->device),
                          "cuDeviceGetUuid") &&
                zcta_team_exchange(w->world, &mine, all, sizeof mine) == ZCTA_OK;

    for (uint32_t i = 0; i < w->rank_count && each; i++)
        for (uint32_t j = i + 1; j < w->rank_count && each; j++)
            if (memcmp(&all[i], &all[j], sizeof *all) == 0)
                each =
                    zc_failure(line.command,
                               "ranks %" PRIu32 " and %" PRIu32 " are on one GPU; start one a GPU",
                               i, j) == ZC_EXIT_OK;
    free(all);
    return each;
}

static int run_rank(const struct hostage *settings)
{
    zcta_error error = {0};
    const zcta_init_params params = {
        .size = sizeof params, .device = ZCTA_DEVICE_CUDA, .error = &error};
    struct rank w = {0};
    int status = ZC_EXIT_FAILED;

    if (zcta_init(&params, &w.context) != ZCTA_OK)
        return zc_failure(line.command, "%s", error.message);
    w.world = zcta_world(w.context);
    w.rank = zcta_team_rank(w.world);
    w.rank_count = zcta_team_rank_count(w.world);
    if (!zc_gpu_open(line.command, zcta_context_gpu(w.context), &w.gpu))
        status = fail_test(&w);
    else if (each_has_a_gpu(&w))
        status = load_kernel(&w) ? run_tests(&w, settings) : fail_test(&w);
    unload_kernel(&w);
    if (zcta_finalize(&w.context) != ZCTA_OK)
        status = ZC_EXIT_FAILED;
    zc_gpu_close(w.gpu);
    return status;
}

int zc_command_hostage(int argc, char **argv)
{
    struct hostage settings = {.rank_count = 2, .bytes_max = (uint64_t)256 << 20};
    int first, status;

    if (!zc_options_parse(&line, argc, argv, &settings, &first, &status))
        return status;
    settings.shape_count =
        zc_shapes_read(line.command, argv + first, argc - first, settings.shapes);
    if (settings.shape_count == 0)
        return ZC_EXIT_USAGE;
    if (zc_launch_is_rank())
        return run_rank(&settings);
    status = zc_try_device(line.command, ZCTA_DEVICE_CUDA, "");
    if (status != ZC_EXIT_OK)
        return status;
    return zc_launch_self(line.command, (uint32_t)settings.rank_count, argc, argv);
}
