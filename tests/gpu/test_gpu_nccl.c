/* NCCL as an engine on real GPUs: copy_engine_all_gather, with evidence of what ran, and a rank
 * that dies among gathers. Skipped where there are not two GPUs, or no NCCL that has copy engines.
 */
#include <pthread.h>
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

/* Both buffers are found in our address map, each in its own window. NCCL gets to know the one of
 * recv only: it gathers in place there, whatever `send` is. */
static void check_windows(zcta_context *context, const void *in, const void *out, uint32_t count)
{
    zcta_window *first = NULL, *second = NULL;
    uint64_t offset = 1;

    EXPECT(zc_map_find(&context->map, in, SHARE, &first, &offset) == ZC_FOUND && offset == 0);
    EXPECT(zc_map_find(&context->map, out, (uint64_t)count * SHARE, &second, &offset) == ZC_FOUND &&
           offset == 0);
    EXPECT(first != second);
}

/* What a team's first gather leaves in NCCL's log, of all ranks together: they are threads of this
 * process, and stay together from before it until all have looked. */
static pthread_barrier_t all;

static void expect_log(const struct zc_nccl *nccl, size_t mark, uint32_t count, bool no_sm)
{
    char line[40];

    EXPECT(zc_nccl_log_count(mark, no_sm ? "CTA policy flags set to 2\n"
                                         : "CTA policy flags set to 0\n") == count);
    EXPECT(zc_nccl_log_count(mark, "CTA policy flags set to ") == count);
    EXPECT(zc_nccl_log_count(mark, "CTAPolicy reset to ") == 0);
    for (uint32_t rank = 0; rank < count; rank++) {
        snprintf(line, sizeof line, "Init CE, rank %u ", rank);
        EXPECT(zc_nccl_log_count(mark, line) == no_sm);
    }
    /* Under ZERO recv's window, and the one that NCCL makes for its copy engines' own signals. */
    if (nccl->version >= 22902)
        EXPECT((zc_nccl_log_count(mark, "into address map") >= count) == no_sm);
}

/* One team's first gather: its bytes, its path, and exactly its lines. */
static void gather_as(zcta_context *context, struct zc_gpu *gpu, zcta_team *team, char *own,
                      char *out, const char *path)
{
    const uint32_t rank = zcta_team_rank(team), count = zcta_team_rank_count(team);
    const bool no_sm = zcta_team_policy(team) != ZCTA_POLICY_DEFAULT;
    size_t mark;

    pthread_barrier_wait(&all);
    mark = zc_nccl_log_mark();
    pthread_barrier_wait(&all);
    fill(gpu, out, 0xee, (size_t)count * SHARE);
    fill(gpu, own, (unsigned char)(rank + 1), SHARE);
    EXPECT_OK(context, zcta_all_gather(team, own, out, SHARE, gpu->stream, NULL));
    EXPECT(zc_gpu_synchronize(gpu));
    EXPECT_OK(context, zcta_team_status(team));
    check_slices(gpu, out, count);
    pthread_barrier_wait(&all);
    expect_log(&context->knowledge.nccl, mark, count, no_sm);
    EXPECT(path_calls(team, path, NULL) == 1);
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
    gather_as(context, gpu, thrifty, in, out, "all_gather/nccl/copy-engine");
    gather_as(context, gpu, zero, out + rank * SHARE, out, "all_gather/nccl/copy-engine");
    gather_as(context, gpu, beside, out + rank * SHARE, out, "all_gather/nccl/kernels");
    EXPECT(path_calls(beside, "all_gather/nccl/copy-engine", NULL) == 0);
    zc_gpu_close(gpu);
}

static uint32_t rank_count;

/* The evidence is NCCL's log, which all ranks of a process share. */
static void copy_engine_all_gather(void **state)
{
    struct zc_diag diag;
    struct zc_nccl nccl;

    (void)state;
    zc_diag_init(&diag);
    assert_int_equal(zc_nccl_load(&diag, &nccl), ZCTA_OK);
    assert_true(zc_nccl_log_is_ours());
    assert_int_equal(pthread_barrier_init(&all, NULL, rank_count), 0);
    run_as_threads_with(rank_count, &on_gpus, gather_slices, NULL);
    pthread_barrier_destroy(&all);
    zc_nccl_unload(&nccl);
}

/* ---- A rank that dies ---- */

/* What the ranks say before the parent ends them. */
struct last_words {
    _Atomic bool returned[RANKS_MOST]; /* every call that this rank made */
    zcta_policy policy;
    bool heedless; /* no abort ends what is under way */
};

static bool has_drained(struct zc_gpu *gpu)
{
    const uint64_t begin = now_ns();
    zc_cu_result result = ZC_CU_ERROR_NOT_READY;

    while (result == ZC_CU_ERROR_NOT_READY && now_ns() - begin < UINT64_C(10000000000)) {
        sleep_ms(1);
        result = gpu->driver.cuStreamQuery(gpu->stream);
    }
    return result == ZC_CU_SUCCESS;
}

/* Gathers until the team fails; rank 1 dies on the way. The stream is asked, never waited for. */
static zcta_status gather_until_it_fails(zcta_team *team, struct zc_gpu *gpu, char *out)
{
    const uint32_t rank = zcta_team_rank(team);
    zcta_status status = ZCTA_OK;

    for (uint32_t call = 0; status == ZCTA_OK && call < 100000; call++) {
        if (rank == 1 && call == 50)
            raise(SIGKILL);
        status = zcta_all_gather(team, out + rank * SHARE, out, SHARE, gpu->stream, NULL);
        if (status == ZCTA_OK && call % 8 == 7)
            has_drained(gpu);
        if (status == ZCTA_OK)
            status = zcta_team_status(team);
    }
    return status;
}

static void expect_told(zcta_team *team, const struct last_words *words)
{
    zcta_error error;

    EXPECT(zcta_team_failure(team, &error) == ZCTA_OK && error.rank == 1);
    fprintf(stderr, "survivor: %s\n", error.message);
    if (words->heedless)
        EXPECT(strstr(error.message, "this process has to end") != NULL);
}

/* Ordinary kernels are let go, and the survivor goes on. What heeds no abort holds up no call of
 * ours; then the process ends without a word to CUDA, which would wait. */
static void outlive(zcta_context *context, void *data)
{
    struct last_words *words = data;
    zcta_team *team = team_with(context, words->policy, "mortal"), *alone = NULL;
    const uint32_t rank = zcta_team_rank(team), count = zcta_team_rank_count(team);
    const uint64_t begin = now_ns();
    zcta_window *window = NULL, *own = NULL;
    struct zc_gpu *gpu = NULL;
    char *out;

    EXPECT(zc_gpu_open("test", zcta_context_gpu(context), &gpu));
    EXPECT_OK(context, zcta_window_alloc(zcta_world(context), (size_t)count * SHARE, &window));
    EXPECT_OK(context, zcta_window_alloc(team, SHARE, &own));
    out = zcta_window_base(window);
    EXPECT(gather_until_it_fails(team, gpu, out) == ZCTA_ERR_PEER);
    expect_told(team, words);
    zcta_window_free(&own);
    fprintf(stderr, "survivor: its calls took %.2f s\n", (double)(now_ns() - begin) / 1e9);
    if (words->heedless) {
        atomic_store(&words->returned[rank], true);
        _exit(0);
    }
    EXPECT(has_drained(gpu));
    EXPECT_OK(context, zcta_team_get(context, &rank, 1, NULL, &alone));
    EXPECT_OK(context, zcta_all_gather(alone, out, out, SHARE, gpu->stream, NULL));
    EXPECT(has_drained(gpu));
    zc_gpu_close(gpu);
    atomic_store(&words->returned[rank], true);
}

/* A process whose GPU is stuck may not come to its end by itself. */
static void end_process(pid_t pid, double seconds, bool may_be_stuck)
{
    const uint64_t end = now_ns() + (uint64_t)(seconds * 1e9);
    int status = 0;

    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (now_ns() > end) {
            kill(pid, SIGKILL);
            assert_int_equal(waitpid(pid, &status, 0), pid);
            assert_true(may_be_stuck);
            fprintf(stderr, "survivor: had to be killed\n");
            return;
        }
        sleep_ms(5);
    }
    assert_int_equal(status, 0);
}

static void lose_rank_1(zcta_policy policy, bool heedless)
{
    static const struct ranks_options bereaved = {
        .device = ZCTA_DEVICE_CUDA, .timeout_ns = 5000000000, .may_fail_to_finalize = true};
    struct last_words *words = shared_zeroed(sizeof *words);
    pid_t pids[RANKS_MOST];

    words->policy = policy;
    words->heedless = heedless;
    start_processes(rank_count, &bereaved, outlive, words, pids);
    assert_int_equal(wait_process(pids[1], 60), 256 + SIGKILL);
    for (uint32_t rank = 0; rank < rank_count; rank++)
        if (rank != 1) {
            end_process(pids[rank], 40, heedless);
            assert_true(atomic_load(&words->returned[rank]));
        }
}

static void a_rank_killed_among_ordinary_kernels(void **state)
{
    (void)state;
    lose_rank_1(ZCTA_POLICY_DEFAULT, false);
}

static void a_rank_killed_among_symmetric_kernels(void **state)
{
    (void)state;
    setenv("ZEROCTA_NCCL_SYMMETRIC", "1", 1);
    lose_rank_1(ZCTA_POLICY_DEFAULT, true);
    unsetenv("ZEROCTA_NCCL_SYMMETRIC");
}

static void a_rank_killed_among_copy_engines(void **state)
{
    (void)state;
    lose_rank_1(ZCTA_POLICY_ZERO, true);
}

int main(void)
{
    /* Processes first: they cannot be forked once this one has used CUDA. */
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_rank_killed_among_ordinary_kernels),
                                       cmocka_unit_test(a_rank_killed_among_symmetric_kernels),
                                       cmocka_unit_test(a_rank_killed_among_copy_engines),
                                       cmocka_unit_test(copy_engine_all_gather)};
    const struct CMUnitTest in_one_process[] = {cmocka_unit_test(copy_engine_all_gather)};

    rank_count = count_gpus();
    if (rank_count < 2) {
        puts("skipped: these tests need two GPUs, and NCCL 2.28 or newer");
        return SKIPPED;
    }
    /* The ranks of the fake NCCL are threads. */
    if (getenv("FAKE_NCCL") != NULL)
        return cmocka_run_group_tests(in_one_process, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
