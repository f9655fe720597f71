/* NCCL as an engine on real GPUs: copy_engine_all_gather, with evidence of what ran, and a rank
 * that dies among gathers. Skipped where there are not two GPUs, or no NCCL that has copy engines.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "api/objects.h"
#include "engine/nccl/nccl_log.h"
#include "gpu.h"
#include "support_ranks.h"

enum { SKIPPED = 77, RANKS_MOST = 8, SHARE = 1 << 20 };

static const struct ranks_options on_gpus = {.device = ZCTA_DEVICE_CUDA};

/* What is here, asked in a process of its own: a process that has used CUDA cannot fork ranks that
 * do. 0: not what these tests need. */
static uint32_t count_gpus(void)
{
    int status = 0;
    const pid_t pid = fork();

    if (pid == 0) {
        struct zc_cuda_driver driver;
        struct zc_nccl nccl;
        struct zc_diag diag;
        int count = 0;

        zc_diag_init(&diag);
        if (zc_cuda_driver_load(&diag, &driver) == ZCTA_OK)
            driver.cuDeviceGetCount(&count);
        if (count > 0 &&
            (zc_nccl_load(&diag, &nccl) != ZCTA_OK || nccl.version < ZC_NCCL_HAS_COPY_ENGINES))
            count = 0;
        _exit(count < RANKS_MOST ? count : RANKS_MOST);
    }
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? (uint32_t)WEXITSTATUS(status) : 0;
}

static zcta_team *team_with(zcta_context *context, zcta_policy policy, const char *name)
{
    const zcta_team_params params = {
        .size = sizeof params, .policy = policy, .engine = ZCTA_ENGINE_NCCL, .name = name};
    const uint32_t count = zcta_team_rank_count(zcta_world(context));
    uint32_t ranks[RANKS_MOST];
    zcta_team *team = NULL;

    for (uint32_t i = 0; i < count; i++)
        ranks[i] = i;
    EXPECT_OK(context, zcta_team_get(context, ranks, count, &params, &team));
    return team;
}

static uint64_t count_calls(zcta_team *team, const char *path)
{
    zcta_path_counter counters[16];
    uint32_t count = 16;

    EXPECT(zcta_team_counters(team, counters, &count) == ZCTA_OK && count <= 16);
    for (uint32_t i = 0; i < count; i++)
        if (strcmp(counters[i].path, path) == 0)
            return counters[i].calls;
    return 0;
}

/* ---- copy_engine_all_gather ---- */

static void fill(struct zc_gpu *gpu, void *at, unsigned char value, size_t bytes)
{
    unsigned char *host = malloc(bytes);

    EXPECT(host != NULL);
    memset(host, value, bytes);
    EXPECT(zc_gpu_put(gpu, at, host, bytes));
    free(host);
}

/* Slice r of the output holds r + 1, every byte of it. */
static void check_slices(struct zc_gpu *gpu, const void *out, uint32_t count)
{
    unsigned char *host = malloc((size_t)count * SHARE);

    EXPECT(host != NULL);
    EXPECT(zc_gpu_get(gpu, host, out, (size_t)count * SHARE));
    for (size_t i = 0; i < (size_t)count * SHARE; i++)
        EXPECT(host[i] == i / SHARE + 1);
    free(host);
}

/* Both buffers are found in the address map, each in its own window. */
static void check_windows(zcta_context *context, const void *in, const void *out, uint32_t count)
{
    zcta_window *first = NULL, *second = NULL;
    uint64_t offset = 1;

    EXPECT(zc_map_find(&context->map, in, SHARE, &first, &offset) == ZC_FOUND && offset == 0);
    EXPECT(zc_map_find(&context->map, out, (uint64_t)count * SHARE, &second, &offset) == ZC_FOUND &&
           offset == 0);
    EXPECT(first != second);
}

static void gather_slices(zcta_context *context, void *data)
{
    zcta_team *thrifty = team_with(context, ZCTA_POLICY_EFFICIENCY, "thrifty");
    zcta_team *zero = team_with(context, ZCTA_POLICY_ZERO, "zero");
    zcta_team *beside = team_with(context, ZCTA_POLICY_DEFAULT, "beside");
    const uint32_t rank = zcta_team_rank(zero), count = zcta_team_rank_count(zero);
    zcta_window *in_window = NULL, *out_window = NULL;
    struct zc_gpu *gpu = NULL;
    char *in, *out;

    (void)data;
    EXPECT(zc_gpu_open("test", zcta_context_gpu(context), &gpu));
    EXPECT_OK(context, zcta_window_alloc(zcta_world(context), SHARE, &in_window));
    EXPECT_OK(context, zcta_window_alloc(zcta_world(context), (size_t)count * SHARE, &out_window));
    in = zcta_window_base(in_window);
    out = zcta_window_base(out_window);
    check_windows(context, in, out, count);
    for (int turn = 0; turn < 3; turn++) {
        zcta_team *team = turn == 0 ? thrifty : turn == 1 ? zero : beside;
        char *own = turn == 0 ? in : out + rank * SHARE;

        fill(gpu, out, 0xee, (size_t)count * SHARE);
        fill(gpu, own, (unsigned char)(rank + 1), SHARE);
        EXPECT_OK(context, zcta_all_gather(team, own, out, SHARE, gpu->stream, NULL));
        EXPECT(zc_gpu_synchronize(gpu));
        EXPECT_OK(context, zcta_team_status(team));
        check_slices(gpu, out, count);
    }
    EXPECT(count_calls(thrifty, "all_gather/nccl/copy-engine") == 1);
    EXPECT(count_calls(zero, "all_gather/nccl/copy-engine") == 1);
    EXPECT(count_calls(beside, "all_gather/nccl/kernels") == 1);
    EXPECT(count_calls(beside, "all_gather/nccl/copy-engine") == 0);
    zc_gpu_close(gpu);
}

static uint32_t rank_count;

/* The evidence is NCCL's log, which all ranks of a process share. */
static void copy_engine_all_gather(void **state)
{
    struct zc_diag diag;
    struct zc_nccl nccl;
    size_t mark;

    (void)state;
    zc_diag_init(&diag);
    assert_int_equal(zc_nccl_load(&diag, &nccl), ZCTA_OK);
    assert_true(zc_nccl_log_is_ours());
    mark = zc_nccl_log_mark();
    run_as_threads_with(rank_count, &on_gpus, gather_slices, NULL);
    /* Two teams without SMs and one with: each communicator has its own team's policy. */
    assert_int_equal(zc_nccl_log_count(mark, "CTA policy flags set to 2"), 2 * rank_count);
    assert_int_equal(zc_nccl_log_count(mark, "CTA policy flags set to 0"), rank_count);
    for (uint32_t rank = 0; rank < rank_count; rank++) {
        char line[40];

        snprintf(line, sizeof line, "Init CE, rank %u ", rank);
        assert_int_equal(zc_nccl_log_count(mark, line), 2);
    }
    if (nccl.version >= 22902)
        assert_true(zc_nccl_log_count(mark, "into address map") >= 2 * rank_count);
    zc_nccl_unload(&nccl);
}

/* ---- A rank that dies ---- */

static const struct ranks_options bereaved = {.device = ZCTA_DEVICE_CUDA,
                                              .may_fail_to_finalize = true};

/* Rank 1 dies among gathers by NCCL's kernels; the others learn who it was, their streams drain,
 * and they go on without it. */
static void outlive(zcta_context *context, void *data)
{
    zcta_team *team = team_with(context, ZCTA_POLICY_DEFAULT, "mortal"), *alone = NULL;
    const uint32_t rank = zcta_team_rank(team), count = zcta_team_rank_count(team);
    zcta_window *window = NULL;
    struct zc_gpu *gpu = NULL;
    zcta_status status = ZCTA_OK;
    zcta_error error;
    char *out;

    (void)data;
    EXPECT(zc_gpu_open("test", zcta_context_gpu(context), &gpu));
    EXPECT_OK(context, zcta_window_alloc(zcta_world(context), (size_t)count * SHARE, &window));
    out = zcta_window_base(window);
    for (uint32_t call = 0; status == ZCTA_OK && call < 100000; call++) {
        if (rank == 1 && call == 50)
            raise(SIGKILL);
        status = zcta_all_gather(team, out + rank * SHARE, out, SHARE, gpu->stream, NULL);
        if (status == ZCTA_OK && call % 8 == 7)
            zc_gpu_synchronize(gpu);
        if (status == ZCTA_OK)
            status = zcta_team_status(team);
    }
    EXPECT(status == ZCTA_ERR_PEER);
    EXPECT(zcta_last_error(context, &error) == ZCTA_OK && error.rank == 1);
    EXPECT(zc_gpu_synchronize(gpu));
    EXPECT_OK(context, zcta_team_get(context, &rank, 1, NULL, &alone));
    EXPECT_OK(context, zcta_all_gather(alone, out, out, SHARE, gpu->stream, NULL));
    EXPECT(zc_gpu_synchronize(gpu));
    zc_gpu_close(gpu);
}

static void a_rank_killed_among_gathers(void **state)
{
    pid_t pids[RANKS_MOST];

    (void)state;
    start_processes(rank_count, &bereaved, outlive, NULL, pids);
    for (uint32_t rank = 0; rank < rank_count; rank++)
        assert_int_equal(wait_process(pids[rank], 60), rank == 1 ? 256 + SIGKILL : 0);
}

int main(void)
{
    /* Processes first: they cannot be forked once this one has used CUDA. */
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_rank_killed_among_gathers),
                                       cmocka_unit_test(copy_engine_all_gather)};
    const struct CMUnitTest in_one_process[] = {cmocka_unit_test(copy_engine_all_gather)};

    rank_count = count_gpus();
    if (rank_count < 2) {
        puts("skipped: these tests need two GPUs, and NCCL 2.28 or newer");
        return SKIPPED;
    }
    /* The ranks of the made-up NCCL are threads. */
    if (getenv("FAKE_NCCL") != NULL)
        return cmocka_run_group_tests(in_one_process, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
