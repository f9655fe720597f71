/* The nccl engine on the fake NCCL: results, policies, versions, order, refusals, failures. */
#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "device/cuda/cuda_driver.h"
#include "engine/nccl/nccl_library.h"
#include "engine/nccl/nccl_log.h"
#include "fake_nccl.h"
#include "support_ranks.h"

enum { RANKS = 4, SHARE = 5000, MIB = 1 << 20 };

static struct {
    fake_nccl_be_fn *be;
    fake_nccl_trip_fn *trip;
    fake_nccl_break_fn *break_off;
    fake_nccl_story_fn *story;
    fake_nccl_begin_fn *begin;
    fake_nccl_alive_fn *alive;
} fake;
static struct zc_cuda_driver driver;
static int (*nccl_mem_alloc)(void **memory, size_t bytes);
static int (*nccl_mem_free)(void *memory);

static void find(void *library, const char *name, void *member)
{
    void *function = dlsym(library, name);

    assert_non_null(function);
    memcpy(member, &function, sizeof function);
}

static int load_fake(void **state)
{
    static struct zc_diag diag;
    void *library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);

    (void)state;
    assert_non_null(library);
    find(library, "fake_nccl_be", &fake.be);
    find(library, "fake_nccl_trip", &fake.trip);
    find(library, "fake_nccl_break", &fake.break_off);
    find(library, "fake_nccl_story", &fake.story);
    find(library, "fake_nccl_begin", &fake.begin);
    find(library, "fake_nccl_alive", &fake.alive);
    find(library, "ncclMemAlloc", &nccl_mem_alloc);
    find(library, "ncclMemFree", &nccl_mem_free);
    zc_diag_init(&diag);
    return zc_cuda_driver_load(&diag, &driver) == ZCTA_OK ? 0 : -1;
}

static int begin(void **state)
{
    (void)state;
    fake.be(22803);
    fake.begin();
    return 0;
}

static const struct ranks_options on_gpus = {.device = ZCTA_DEVICE_CUDA};
static const struct ranks_options hasty = {.device = ZCTA_DEVICE_CUDA,
                                           .timeout_ns = UINT64_C(1500000000)};
static const struct ranks_options hasty_may_fail = {
    .device = ZCTA_DEVICE_CUDA, .timeout_ns = UINT64_C(1500000000), .may_fail_to_finalize = true};

/* What a failure must say; a rank that saw another one's trouble first refers to its words. */
static bool says(const zcta_error *error, const char *text)
{
    return strstr(error->message, text) != NULL ||
           strstr(error->message, "as another rank saw first; see rank ") != NULL;
}

static void run(rank_fn *function)
{
    run_as_threads_with(RANKS, &on_gpus, function, NULL);
    assert_int_equal(fake.alive(), 0);
}

/* ---- What a rank does ---- */

static zcta_team *team_with(zcta_context *context, zcta_policy policy, const char *name)
{
    const zcta_team_params params = {
        .size = sizeof params, .policy = policy, .engine = ZCTA_ENGINE_NCCL, .name = name};
    const uint32_t ranks[RANKS] = {0, 1, 2, 3};
    zcta_team *team = NULL;

    EXPECT_OK(context, zcta_team_get(context, ranks, RANKS, &params, &team));
    return team;
}

static zcta_window *window_of(zcta_context *context, size_t bytes)
{
    zcta_window *window = NULL;

    EXPECT_OK(context, zcta_window_alloc(zcta_world(context), bytes, &window));
    return window;
}

static void enter_gpu(zcta_context *context)
{
    zc_cu_context gpu = NULL;

    EXPECT(driver.cuDevicePrimaryCtxRetain(&gpu, zcta_context_gpu(context)) == 0);
    EXPECT(driver.cuCtxPushCurrent(gpu) == 0);
}

static void leave_gpu(zcta_context *context)
{
    zc_cu_context gpu = NULL;

    driver.cuCtxPopCurrent(&gpu);
    driver.cuDevicePrimaryCtxRelease(zcta_context_gpu(context));
}

/* Gathers and checks every byte. `send` NULL: in place. */
static void gather(zcta_context *context, zcta_team *team, zcta_window *recv, zcta_window *send,
                   uint32_t call, const zcta_call_params *params)
{
    const uint32_t rank = zcta_team_rank(team);
    unsigned char *out = zcta_window_base(recv);
    unsigned char *own = send == NULL ? out + rank * SHARE : zcta_window_base(send);

    memset(out, 0xee, (size_t)RANKS * SHARE);
    model_fill(own, call, rank, SHARE);
    EXPECT_OK(context, zcta_all_gather(team, own, out, SHARE, NULL, params));
    EXPECT(driver.cuStreamSynchronize(NULL) == 0);
    EXPECT(model_wrong(out, call, RANKS, SHARE) == 0);
}

/* ---- Results and policies ---- */

/* Two teams side by side: each communicator has its own team's policy, in its own time. */
static void two_teams(zcta_context *context, void *data)
{
    zcta_team *zero = team_with(context, ZCTA_POLICY_ZERO, "zero");
    zcta_team *fast = team_with(context, ZCTA_POLICY_DEFAULT, "fast");
    zcta_window *recv = window_of(context, MIB);
    uint64_t fallbacks = 99;

    (void)data;
    enter_gpu(context);
    for (uint32_t call = 0; call < 20; call++) {
        gather(context, zero, recv, NULL, call, NULL);
        gather(context, fast, recv, NULL, call + 100, NULL);
    }
    leave_gpu(context);
    EXPECT(path_calls(zero, "all_gather/nccl/copy-engine", &fallbacks) == 20 && fallbacks == 0);
    EXPECT(path_calls(zero, "all_gather/nccl/kernels", NULL) == 0);
    EXPECT(path_calls(fast, "all_gather/nccl/kernels", &fallbacks) == 20 && fallbacks == 0);
    EXPECT(path_calls(fast, "all_gather/nccl/copy-engine", NULL) == 0);
}

static void a_policy_belongs_to_its_team(void **state)
{
    (void)state;
    run(two_teams);
    for (int rank = 0; rank < RANKS; rank++) {
        const char *story = fake.story(rank);

        assert_non_null(strstr(story, "init:2 register gather:ce init:0 gather:sm "));
        assert_null(strstr(story, "init:1"));
        assert_null(strstr(story, "abort"));
        assert_null(strstr(story, "destroy-with-windows"));
        assert_string_equal(story + strlen(story) - strlen("deregister destroy "),
                            "deregister destroy ");
    }
    /* All ranks end their teams in the same order. */
    for (int rank = 1; rank < RANKS; rank++)
        assert_string_equal(fake.story(rank), fake.story(0));
}

/* One call of another policy than its team's gets a communicator of its own. */
static void one_call(zcta_context *context, void *data)
{
    const zcta_call_params zero = {.size = sizeof zero, .policy = ZCTA_POLICY_ZERO};
    const zcta_call_params by_nccl = {.size = sizeof by_nccl, .engine = ZCTA_ENGINE_NCCL};
    zcta_team *fast = team_with(context, ZCTA_POLICY_DEFAULT, "fast");
    zcta_window *recv = window_of(context, MIB), *send = window_of(context, MIB);

    (void)data;
    enter_gpu(context);
    gather(context, fast, recv, NULL, 1, &zero);
    gather(context, fast, recv, send, 2, NULL);
    EXPECT(path_calls(fast, "all_gather/nccl/copy-engine", NULL) == 1);
    EXPECT(path_calls(fast, "all_gather/nccl/kernels", NULL) == 1);
    /* The world leaves it to us, unless a call asks for NCCL. */
    gather(context, zcta_world(context), recv, NULL, 3, NULL);
    gather(context, zcta_world(context), recv, NULL, 4, &by_nccl);
    EXPECT(path_calls(zcta_world(context), "all_gather/ce/host-pull", NULL) == 1);
    EXPECT(path_calls(zcta_world(context), "all_gather/nccl/kernels", NULL) == 1);
    leave_gpu(context);
}

static void a_call_has_its_own_policy_and_engine(void **state)
{
    (void)state;
    run(one_call);
    assert_non_null(strstr(fake.story(0), "init:2 register gather:ce init:0 "));
}

/* Out of place the own share takes SMs: refused, a reported fall-back, or plainly done. */
static void out_of_place(zcta_context *context, void *data)
{
    zcta_team *zero = team_with(context, ZCTA_POLICY_ZERO, "zero");
    zcta_team *thrifty = team_with(context, ZCTA_POLICY_EFFICIENCY, "thrifty");
    zcta_window *recv = window_of(context, MIB), *send = window_of(context, MIB);
    uint64_t fallbacks = 0;

    (void)data;
    expect_error(
        context,
        zcta_all_gather(zero, zcta_window_base(send), zcta_window_base(recv), SHARE, NULL, NULL),
        ZCTA_ERR_POLICY, "own share");
    enter_gpu(context);
    gather(context, thrifty, recv, send, 1, NULL);
    leave_gpu(context);
    EXPECT(path_calls(thrifty, "all_gather/nccl/copy-engine", &fallbacks) == 1 && fallbacks == 1);
}

static void out_of_place_is_refused_or_reported(void **state)
{
    (void)state;
    run(out_of_place);
}

/* Some ranks find a path and others none; what they differ in is told rather than that. */
static void mix_in_place(zcta_context *context, void *data)
{
    zcta_team *zero = team_with(context, ZCTA_POLICY_ZERO, "zero");
    zcta_window *recv = window_of(context, MIB), *send = window_of(context, MIB);
    const uint32_t rank = zcta_team_rank(zero);
    char *out = zcta_window_base(recv);
    zcta_error error;

    (void)data;
    for (uint32_t odd = 0; odd < RANKS; odd++)
        for (int place = 0; place < 2; place++) {
            const bool in_place = (rank == odd) == (place == 1);
            const void *mine = in_place ? out + rank * SHARE : zcta_window_base(send);

            expect_error(context, zcta_all_gather(zero, mine, out, SHARE, NULL, NULL),
                         ZCTA_ERR_MISMATCH, "place of send");
            EXPECT_OK(context, zcta_last_error(context, &error));
            EXPECT(error.rank == odd);
        }
    expect_error(context, zcta_all_gather(zero, zcta_window_base(send), out, SHARE, NULL, NULL),
                 ZCTA_ERR_POLICY, "own share");
    enter_gpu(context);
    gather(context, zero, recv, NULL, 1, NULL);
    leave_gpu(context);
}

static void who_mixes_in_place_is_named_under_check(void **state)
{
    struct ranks_options checked = on_gpus;

    (void)state;
    checked.check = 1;
    run_as_threads_with(RANKS, &checked, mix_in_place, NULL);
}

/* ---- Versions ---- */

static void refused(zcta_context *context, void *data)
{
    const char *why = data;
    zcta_team *zero = team_with(context, ZCTA_POLICY_ZERO, "zero");
    zcta_window *recv = window_of(context, MIB);
    char *out = zcta_window_base(recv);
    zcta_report report;

    expect_error(context,
                 zcta_all_gather(zero, out + zcta_team_rank(zero) * SHARE, out, SHARE, NULL, NULL),
                 ZCTA_ERR_POLICY, why);
    EXPECT_OK(context, explain_all_gather(zero, out + zcta_team_rank(zero) * SHARE, out, SHARE,
                                          NULL, &report));
    EXPECT(report.chosen == report.path_count);
}

static void falls_back(zcta_context *context, void *data)
{
    zcta_team *thrifty = team_with(context, ZCTA_POLICY_EFFICIENCY, "thrifty");
    zcta_window *recv = window_of(context, MIB);
    uint64_t fallbacks = 0;

    (void)data;
    enter_gpu(context);
    gather(context, thrifty, recv, NULL, 1, NULL);
    leave_gpu(context);
    EXPECT(path_calls(thrifty, "all_gather/nccl/kernels", &fallbacks) == 1 && fallbacks == 1);
}

static void versions_without_copy_engines(void **state)
{
    static const struct {
        int version;
        const char *story;
    } cases[] = {{21903, "init:0 gather:sm destroy "}, {22707, "init:0 gather:sm destroy "}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fake.be(cases[i].version);
        fake.begin();
        run_as_threads_with(RANKS, &on_gpus, refused, "has no copy engines; 2.28");
        assert_string_equal(fake.story(0), "");
        run(falls_back);
        assert_string_equal(fake.story(0), cases[i].story);
    }
}

static void versions_with_copy_engines(void **state)
{
    static const int versions[] = {22800, 22809, 22902, 22907, 23006, 23203};

    (void)state;
    for (size_t i = 0; i < sizeof versions / sizeof versions[0]; i++) {
        fake.be(versions[i]);
        fake.begin();
        run(two_teams);
        assert_non_null(strstr(fake.story(0), "gather:ce"));
    }
}

static void unsupported(zcta_context *context, void *data)
{
    zcta_team *team = team_with(context, ZCTA_POLICY_DEFAULT, "fast");
    zcta_window *recv = window_of(context, MIB);
    char *out = zcta_window_base(recv);

    expect_error(context,
                 zcta_all_gather(team, out + zcta_team_rank(team) * SHARE, out, SHARE, NULL, NULL),
                 ZCTA_ERR_UNSUPPORTED, data);
}

static void a_version_that_is_too_old(void **state)
{
    (void)state;
    fake.be(21805);
    run_as_threads_with(RANKS, &on_gpus, unsupported, "NCCL is version 2.18.5; 2.19 is the oldest");
}

static void no_nccl(void **state)
{
    (void)state;
    setenv("ZEROCTA_NCCL_LIBRARY", "none", 1);
    run_as_threads_with(RANKS, &on_gpus, unsupported, "switched off by ZEROCTA_NCCL_LIBRARY");
    setenv("ZEROCTA_NCCL_LIBRARY", "/nowhere/libnccl.so", 1);
    run_as_threads_with(RANKS, &on_gpus, unsupported, "there is no NCCL here");
    unsetenv("ZEROCTA_NCCL_LIBRARY");
}

/* ---- What the environment overrides ---- */

/* A team of one. */
static zcta_team *alone_with(zcta_context *context, zcta_policy policy)
{
    const zcta_team_params params = {
        .size = sizeof params, .policy = policy, .engine = ZCTA_ENGINE_NCCL, .name = "alone"};
    const uint32_t rank = zcta_team_rank(zcta_world(context));
    zcta_team *team = NULL;

    EXPECT_OK(context, zcta_team_get(context, &rank, 1, &params, &team));
    return team;
}

static void refused_alone(zcta_context *context, void *data)
{
    zcta_team *zero = alone_with(context, ZCTA_POLICY_ZERO);
    char *out = zcta_window_base(window_of(context, MIB));

    expect_error(context, zcta_all_gather(zero, out, out, SHARE, NULL, NULL), ZCTA_ERR_POLICY,
                 data);
}

/* Its file says so, where we do not see it: the making fails, and what there is of it is aborted.
 */
static void not_waited_for(zcta_context *context, void *data)
{
    zcta_team *fast = team_with(context, ZCTA_POLICY_DEFAULT, "fast");
    char *out = zcta_window_base(window_of(context, MIB));
    zcta_error error;

    (void)data;
    EXPECT(zcta_all_gather(fast, out + zcta_team_rank(fast) * SHARE, out, SHARE, NULL, NULL) !=
           ZCTA_OK);
    EXPECT(zcta_last_error(context, &error) == ZCTA_OK);
    EXPECT(says(&error, "NCCL_COMM_BLOCKING=0 in nccl.conf"));
}

static void environment_overrides(void **state)
{
    (void)state;
    setenv("NCCL_CTA_POLICY", "1", 1);
    run_as_threads_with(RANKS, &on_gpus, refused, "NCCL_CTA_POLICY=1 in the environment");
    run(falls_back);
    unsetenv("NCCL_CTA_POLICY");
}

/* NCCL reads its variables in its own way. */
static void environment_as_nccl_reads_it(void **state)
{
    static const struct {
        const char *variable, *value, *why;
    } refuse[] = {{"NCCL_WIN_ENABLE", "0x0", "NCCL_WIN_ENABLE=0"},
                  {"NCCL_CUMEM_ENABLE", "no", "NCCL_CUMEM_ENABLE=0"},
                  {"NCCL_P2P_DISABLE", "1", "NCCL_P2P_DISABLE=1"},
                  {"NCCL_P2P_LEVEL", "LOC", "NCCL_P2P_LEVEL=LOC"},
                  {"NCCL_P2P_LEVEL", "0", "NCCL_P2P_LEVEL=LOC"},
                  {"NCCL_CTA_POLICY", "Efficiency|nonsense", "NCCL_CTA_POLICY=1"},
                  {"NCCL_CTA_POLICY", "0", "NCCL_CTA_POLICY=0"}},
      let[] = {{"NCCL_CTA_POLICY", "zero|EFFICIENCY", ""},
               {"NCCL_CTA_POLICY", "nonsense", ""},
               {"NCCL_CTA_POLICY", "9", ""},
               {"NCCL_P2P_LEVEL", "NVL", ""},
               {"NCCL_WIN_ENABLE", "", ""},
               {"NCCL_CUMEM_ENABLE", "-2", ""}};
    struct zc_nccl nccl = {.version = 22803};
    struct zc_nccl_facts facts;

    (void)state;
    for (size_t i = 0; i < sizeof refuse / sizeof refuse[0]; i++) {
        setenv(refuse[i].variable, refuse[i].value, 1);
        run_as_threads_with(1, &on_gpus, refused_alone, (void *)refuse[i].why);
        unsetenv(refuse[i].variable);
    }
    for (size_t i = 0; i < sizeof let / sizeof let[0]; i++) {
        setenv(let[i].variable, let[i].value, 1);
        zc_nccl_read_facts(&nccl, &facts);
        assert_null(facts.switch_off);
        assert_true(facts.forced_policy == -1 || facts.forced_policy == ZC_NCCL_POLICY_ZERO);
        unsetenv(let[i].variable);
    }
}

static void nccl_that_does_not_wait(void **state)
{
    const struct ranks_options options = {.device = ZCTA_DEVICE_CUDA, .may_fail_to_finalize = true};

    (void)state;
    setenv("NCCL_COMM_BLOCKING", "0", 1);
    run_as_threads_with(RANKS, &on_gpus, unsupported, "NCCL_COMM_BLOCKING=0");
    unsetenv("NCCL_COMM_BLOCKING");
    setenv("FAKE_NCCL_NOT_BLOCKING", "1", 1);
    run_as_threads_with(RANKS, &options, not_waited_for, NULL);
    unsetenv("FAKE_NCCL_NOT_BLOCKING");
    assert_int_equal(fake.alive(), 0);
}

/* The first call fails, with that sentence; the next, too. */
static void fails_at_once(zcta_context *context, void *data)
{
    zcta_team *zero = team_with(context, ZCTA_POLICY_ZERO, "zero");
    zcta_window *recv = window_of(context, MIB);
    char *out = zcta_window_base(recv);

    expect_error(context,
                 zcta_all_gather(zero, out + zcta_team_rank(zero) * SHARE, out, SHARE, NULL, NULL),
                 ZCTA_ERR_POLICY, data);
    expect_error(context,
                 zcta_all_gather(zero, out + zcta_team_rank(zero) * SHARE, out, SHARE, NULL, NULL),
                 ZCTA_ERR_POLICY, "took kernels");
}

/* What only NCCL knows of, its log tells. */
static void a_file_of_nccls_overrides(void **state)
{
    (void)state;
    setenv("FAKE_NCCL_CONF", "0", 1);
    run_as_threads_with(RANKS, &on_gpus, fails_at_once, "CTA policy 0 instead of ZERO");
    assert_null(strstr(fake.story(0), "gather"));
    run(falls_back);
    unsetenv("FAKE_NCCL_CONF");
}

/* ---- Evidence ---- */

/* All is as it should be, and NCCL takes kernels nevertheless. */
static void betrayed(zcta_context *context, void *data)
{
    zcta_team *zero = team_with(context, ZCTA_POLICY_ZERO, "zero");
    zcta_window *recv = window_of(context, MIB);
    char *out = zcta_window_base(recv), *own = out + zcta_team_rank(zero) * SHARE;

    (void)data;
    for (int i = 0; i < 2; i++)
        expect_error(context, zcta_all_gather(zero, own, out, SHARE, NULL, NULL), ZCTA_ERR_POLICY,
                     "took kernels, as its log shows");
    EXPECT(path_calls(zero, "all_gather/nccl/copy-engine", NULL) == 0);
    enter_gpu(context);
    EXPECT(driver.cuStreamSynchronize(NULL) == 0);
    leave_gpu(context);
}

static void betrayed_thriftily(zcta_context *context, void *data)
{
    zcta_team *thrifty = team_with(context, ZCTA_POLICY_EFFICIENCY, "thrifty");
    zcta_window *recv = window_of(context, MIB);
    uint64_t fallbacks = 0;

    (void)data;
    enter_gpu(context);
    gather(context, thrifty, recv, NULL, 1, NULL);
    leave_gpu(context);
    EXPECT(path_calls(thrifty, "all_gather/nccl/kernels", &fallbacks) == 1 && fallbacks == 1);
    EXPECT(path_calls(thrifty, "all_gather/nccl/copy-engine", NULL) == 0);
}

static void evidence_counts(void **state)
{
    (void)state;
    setenv("FAKE_NCCL_NO_COPY_ENGINES", "1", 1);
    run(betrayed);
    assert_non_null(strstr(fake.story(0), "gather:sym deregister"));
    run(betrayed_thriftily);
    unsetenv("FAKE_NCCL_NO_COPY_ENGINES");
}

/* A line of the log that may be another team's proves nothing; ZERO runs, and a warning is due. */
static void one_gather(zcta_context *context, void *data)
{
    zcta_team *zero = team_with(context, ZCTA_POLICY_ZERO, "zero");
    zcta_window *recv = window_of(context, MIB);

    enter_gpu(context);
    gather(context, zero, recv, NULL, 1, NULL);
    leave_gpu(context);
    EXPECT(path_calls(zero, data, NULL) == 1);
}

static void evidence_belongs_to_one_look(void **state)
{
    struct zc_nccl_look other;

    (void)state;
    zc_nccl_look_begin(&other, 0);
    run_as_threads_with(RANKS, &on_gpus, one_gather, (void *)"all_gather/nccl/unproved");
    assert_int_equal(zc_nccl_look_end(&other), ZC_EVIDENCE_MISSING);
    zc_nccl_look_begin(&other, RANKS);
    run_as_threads_with(RANKS, &on_gpus, one_gather, (void *)"all_gather/nccl/copy-engine");
    assert_int_equal(zc_nccl_look_end(&other), ZC_EVIDENCE_AGAINST);
}

/* Of a rank alone NCCL logs nothing, because there is nothing to move. */
static void alone(zcta_context *context, void *data)
{
    zcta_team *zero = alone_with(context, ZCTA_POLICY_ZERO);
    unsigned char *out = zcta_window_base(window_of(context, MIB));

    (void)data;
    enter_gpu(context);
    model_fill(out, 1, 0, SHARE);
    for (int i = 0; i < 2; i++)
        EXPECT_OK(context, zcta_all_gather(zero, out, out, SHARE, NULL, NULL));
    EXPECT(driver.cuStreamSynchronize(NULL) == 0);
    EXPECT(model_wrong(out, 1, 1, SHARE) == 0);
    leave_gpu(context);
    EXPECT(path_calls(zero, "all_gather/nccl/copy-engine", NULL) == 2);
}

static void a_rank_alone_needs_no_evidence(void **state)
{
    (void)state;
    run(alone);
}

/* Two teams on two threads of each rank, one of which has its windows come and go: each gathers as
 * it would by itself. */
struct strand {
    zcta_context *context;
    zcta_team *team;
    bool renews;
};

static void *gather_in_strand(void *data)
{
    const struct strand *strand = data;
    zc_cu_stream stream = NULL;
    zcta_window *recv = NULL;
    const uint32_t rank = zcta_team_rank(strand->team);
    unsigned char *out;

    enter_gpu(strand->context);
    EXPECT(driver.cuStreamCreate(&stream, ZC_CU_STREAM_NON_BLOCKING) == 0);
    for (uint32_t call = 0; call < 10; call++) {
        if (recv == NULL)
            EXPECT(zcta_window_alloc(strand->team, MIB, &recv) == ZCTA_OK);
        out = zcta_window_base(recv);
        memset(out, 0xee, (size_t)RANKS * SHARE);
        model_fill(out + rank * SHARE, call, rank, SHARE);
        EXPECT(zcta_all_gather(strand->team, out + rank * SHARE, out, SHARE, stream, NULL) ==
               ZCTA_OK);
        EXPECT(driver.cuStreamSynchronize(stream) == 0);
        EXPECT(model_wrong(out, call, RANKS, SHARE) == 0);
        if (strand->renews)
            EXPECT(zcta_window_free(&recv) == ZCTA_OK);
    }
    driver.cuStreamDestroy(stream);
    leave_gpu(strand->context);
    return NULL;
}

static void two_strands(zcta_context *context, void *data)
{
    struct strand strands[2];
    pthread_t other;

    (void)data;
    for (int i = 0; i < 2; i++)
        strands[i] = (struct strand){
            .context = context,
            .team = team_with(context, i == 0 ? ZCTA_POLICY_ZERO : ZCTA_POLICY_EFFICIENCY, "a"),
            .renews = i == 0};
    EXPECT(pthread_create(&other, NULL, gather_in_strand, &strands[1]) == 0);
    gather_in_strand(&strands[0]);
    pthread_join(other, NULL);
    for (int i = 0; i < 2; i++)
        EXPECT(path_calls(strands[i].team, "all_gather/nccl/copy-engine", NULL) +
                   path_calls(strands[i].team, "all_gather/nccl/unproved", NULL) ==
               10);
}

static void two_teams_on_two_threads(void **state)
{
    (void)state;
    run(two_strands);
    assert_null(strstr(fake.story(0), "gather:sm"));
}

/* ---- Windows ---- */

/* A window that goes is taken back from every communicator first; the next one is new. */
static void windows_come_and_go(zcta_context *context, void *data)
{
    zcta_team *zero = team_with(context, ZCTA_POLICY_ZERO, "zero");
    zcta_team *fast = team_with(context, ZCTA_POLICY_DEFAULT, "fast");

    (void)data;
    enter_gpu(context);
    for (uint32_t i = 0; i < 3; i++) {
        zcta_window *recv = window_of(context, MIB);

        gather(context, zero, recv, NULL, i, NULL);
        gather(context, fast, recv, NULL, i + 10, NULL);
        EXPECT_OK(context, zcta_window_free(&recv));
    }
    leave_gpu(context);
}

static void windows_are_registered_as_long_as_they_live(void **state)
{
    (void)state;
    run(windows_come_and_go);
    for (int rank = 0; rank < RANKS; rank++)
        assert_non_null(strstr(fake.story(rank),
                               "init:2 register gather:ce init:0 gather:sm deregister "
                               "register gather:ce gather:sm deregister "
                               "register gather:ce gather:sm deregister destroy destroy "));
    fake.begin();
    setenv("ZEROCTA_NCCL_SYMMETRIC", "1", 1);
    run(windows_come_and_go);
    unsetenv("ZEROCTA_NCCL_SYMMETRIC");
    for (int rank = 0; rank < RANKS; rank++)
        assert_non_null(strstr(fake.story(rank),
                               "init:2 register gather:ce init:0 register gather:sym "
                               "deregister deregister register gather:ce register gather:sym "
                               "deregister deregister register gather:ce register gather:sym "
                               "deregister deregister destroy destroy "));
}

/* Memory of ncclMemAlloc() that begins `offset` bytes into it on this rank: a window, which gathers
 * by NCCL's copy engines if that is so for all, and by its kernels in any case. */
static void gather_registered(zcta_context *context, size_t offset, const char *why)
{
    zcta_team *zero = team_with(context, ZCTA_POLICY_ZERO, "zero");
    zcta_team *thrifty = team_with(context, ZCTA_POLICY_EFFICIENCY, "thrifty");
    const char *path = why == NULL ? "all_gather/nccl/copy-engine" : "all_gather/nccl/kernels";
    const uint64_t before = path_calls(thrifty, path, NULL);
    zcta_window *recv = NULL;
    void *memory = NULL;

    enter_gpu(context);
    EXPECT(nccl_mem_alloc(&memory, 4 * MIB) == 0);
    EXPECT_OK(context,
              zcta_window_register(zcta_world(context), (char *)memory + offset, MIB, &recv));
    for (uint32_t call = 0; call < 2; call++)
        gather(context, thrifty, recv, NULL, call, NULL);
    EXPECT(path_calls(thrifty, path, NULL) == before + 2);
    if (why == NULL) {
        gather(context, zero, recv, NULL, 9, NULL);
    } else {
        char *out = zcta_window_base(recv);

        expect_error(
            context,
            zcta_all_gather(zero, out + zcta_team_rank(zero) * SHARE, out, SHARE, NULL, NULL),
            ZCTA_ERR_POLICY, why);
    }
    EXPECT_OK(context, zcta_window_free(&recv));
    EXPECT(nccl_mem_free(memory) == 0);
    leave_gpu(context);
}

static void registered_alike(zcta_context *context, void *data)
{
    (void)data;
    gather_registered(context, 0, NULL);
    gather_registered(context, 8192, NULL);
}

static void registered_unlike(zcta_context *context, void *data)
{
    (void)data;
    gather_registered(context, (size_t)zcta_team_rank(zcta_world(context)) * 4096,
                      "registered at places");
    gather_registered(context, 16, "no multiple of 4096");
}

static void memory_of_nccls_own(void **state)
{
    (void)state;
    run(registered_alike);
    assert_non_null(strstr(fake.story(0), "register gather:ce"));
    fake.begin();
    run(registered_unlike);
    assert_null(strstr(fake.story(0), "register"));
}

/* A plan settles all before; a team given back ends its communicator. */
static void plans_and_teams(zcta_context *context, void *data)
{
    zcta_window *recv = window_of(context, MIB);
    unsigned char *out = zcta_window_base(recv);
    zcta_team *zero = team_with(context, ZCTA_POLICY_ZERO, "zero");
    const uint32_t rank = zcta_team_rank(zero);
    zcta_plan *plan = NULL;

    (void)data;
    enter_gpu(context);
    EXPECT_OK(context, plan_all_gather(zero, out + rank * SHARE, out, SHARE, NULL, &plan));
    for (uint32_t call = 0; call < 3; call++) {
        memset(out, 0xee, (size_t)RANKS * SHARE);
        model_fill(out + rank * SHARE, call, rank, SHARE);
        EXPECT_OK(context, zcta_plan_run(plan, NULL));
        EXPECT_OK(context, zcta_release(plan, NULL));
        EXPECT(driver.cuStreamSynchronize(NULL) == 0);
        EXPECT(model_wrong(out, call, RANKS, SHARE) == 0);
        EXPECT_OK(context, zcta_barrier(zero, NULL));
        EXPECT(driver.cuStreamSynchronize(NULL) == 0);
    }
    EXPECT_OK(context, zcta_plan_free(&plan));
    leave_gpu(context);
    EXPECT_OK(context, zcta_team_destroy(&zero));
    EXPECT(strstr(fake.story((int)rank), "deregister destroy ") != NULL);
}

static void plans_run_and_teams_end(void **state)
{
    (void)state;
    run(plans_and_teams);
}

/* ---- Graphs ---- */

static void captured(zcta_context *context, void *data)
{
    zcta_team *zero = team_with(context, ZCTA_POLICY_ZERO, "zero");
    zcta_window *recv = window_of(context, MIB);
    unsigned char *out = zcta_window_base(recv);
    const uint32_t rank = zcta_team_rank(zero);
    zc_cu_stream stream = NULL;
    zc_cu_graph graph = NULL;

    (void)data;
    enter_gpu(context);
    EXPECT(driver.cuStreamCreate(&stream, ZC_CU_STREAM_NON_BLOCKING) == 0);
    EXPECT(driver.cuStreamBeginCapture(stream, 0) == 0);
    expect_error(context, zcta_all_gather(zero, out + rank * SHARE, out, SHARE, stream, NULL),
                 ZCTA_ERR_UNSUPPORTED, "run it once outside");
    EXPECT(driver.cuStreamEndCapture(stream, &graph) == 0);
    driver.cuGraphDestroy(graph);
    /* Nothing was set up by that, and nothing is broken. */
    gather(context, zero, recv, NULL, 1, NULL);
    driver.cuStreamDestroy(stream);
    leave_gpu(context);
}

static void the_first_run_is_not_captured(void **state)
{
    (void)state;
    run(captured);
}

/* One replay of what gathers `out`, checked. */
static void replay(zcta_context *context, zcta_team *team, zc_cu_graph_exec exec,
                   zc_cu_stream stream, unsigned char *out, uint32_t call)
{
    const uint32_t rank = zcta_team_rank(team);

    memset(out, 0xee, (size_t)RANKS * SHARE);
    model_fill(out + rank * SHARE, call, rank, SHARE);
    EXPECT_OK(context, zcta_barrier(zcta_world(context), stream));
    EXPECT(driver.cuGraphLaunch(exec, stream) == 0);
    EXPECT_OK(context, zcta_barrier(zcta_world(context), stream));
    EXPECT(driver.cuStreamSynchronize(stream) == 0);
    EXPECT(model_wrong(out, call, RANKS, SHARE) == 0);
    EXPECT_OK(context, zcta_barrier(zcta_world(context), stream));
    EXPECT(driver.cuStreamSynchronize(stream) == 0);
}

/* What has run can be captured, on one rank before the others as well; so can another call in the
 * same window. */
static void captured_later(zcta_context *context, void *data)
{
    zcta_team *zero = team_with(context, ZCTA_POLICY_ZERO, "zero");
    zcta_window *recv = window_of(context, MIB);
    unsigned char *out = zcta_window_base(recv), *other = out + RANKS * SHARE;
    const uint32_t rank = zcta_team_rank(zero);
    zc_cu_graph_exec exec = NULL;
    zc_cu_stream stream = NULL;
    zc_cu_graph graph = NULL;

    (void)data;
    gather(context, zero, recv, NULL, 1, NULL);
    enter_gpu(context);
    EXPECT(driver.cuStreamCreate(&stream, ZC_CU_STREAM_NON_BLOCKING) == 0);
    EXPECT(driver.cuStreamBeginCapture(stream, 0) == 0);
    EXPECT_OK(context, zcta_all_gather(zero, other + rank * SHARE, other, SHARE, stream, NULL));
    EXPECT(driver.cuStreamEndCapture(stream, &graph) == 0);
    driver.cuGraphDestroy(graph);
    EXPECT(driver.cuStreamBeginCapture(stream, 0) == 0);
    EXPECT_OK(context, zcta_all_gather(zero, out + rank * SHARE, out, SHARE, stream, NULL));
    EXPECT(driver.cuStreamEndCapture(stream, &graph) == 0);
    EXPECT(driver.cuGraphInstantiateWithFlags(&exec, graph, 0) == 0);
    driver.cuGraphDestroy(graph);
    for (uint32_t call = 2; call < 5; call++)
        replay(context, zero, exec, stream, out, call);
    driver.cuGraphExecDestroy(exec);
    driver.cuStreamDestroy(stream);
    leave_gpu(context);
    EXPECT(path_calls(zero, "all_gather/nccl/copy-engine", NULL) == 3);
}

static void a_later_run_is_captured_and_replays(void **state)
{
    (void)state;
    run(captured_later);
    assert_non_null(strstr(fake.story(0), "gather:ce capture:ce capture:ce "));
}

/* ---- Failure ---- */

/* Rank 1's call fails: all ranks learn of it, in NCCL's words, and go on without that team. */
/* Windows are made for its copy engines; with others under way there nothing would drain. */
static zcta_policy policy_for(const char *function)
{
    return strcmp(function, "ncclCommWindowRegister") == 0 ? ZCTA_POLICY_ZERO : ZCTA_POLICY_DEFAULT;
}

static void fails_in(zcta_context *context, void *data)
{
    const char *function = data;
    zcta_team *zero = team_with(context, policy_for(function), "zero");
    zcta_window *recv = window_of(context, MIB);
    unsigned char *out = zcta_window_base(recv);
    const uint32_t rank = zcta_team_rank(zero);
    zcta_status status;
    zcta_error error;

    EXPECT_OK(context, zcta_barrier(zcta_world(context), NULL));
    enter_gpu(context);
    EXPECT(driver.cuStreamSynchronize(NULL) == 0);
    if (rank == 0)
        fake.trip(function, 0);
    EXPECT_OK(context, zcta_barrier(zcta_world(context), NULL));
    EXPECT(driver.cuStreamSynchronize(NULL) == 0);
    status = zcta_all_gather(zero, out + rank * SHARE, out, SHARE, NULL, NULL);
    if (status == ZCTA_OK)
        status = await_failure(zero);
    EXPECT(status != ZCTA_OK);
    EXPECT(zcta_last_error(context, &error) == ZCTA_OK && error.rank < RANKS);
    EXPECT(strncmp(error.message, "rank ", 5) == 0);
    EXPECT(says(&error, "NCCL says internal error (error 3): made to fail by a test"));
    EXPECT(driver.cuStreamSynchronize(NULL) == 0);
    /* The others go on. */
    gather(context, zcta_world(context), recv, NULL, 7, NULL);
    leave_gpu(context);
}

static void a_failing_call_fails_the_team_alone(void **state)
{
    static const char *const functions[] = {"ncclGetUniqueId", "ncclCommInitRankConfig",
                                            "ncclCommWindowRegister", "ncclAllGather"};

    (void)state;
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        fake.begin();
        run_as_threads_with(RANKS, &on_gpus, fails_in, (void *)functions[i]);
        assert_int_equal(fake.alive(), 0);
    }
}

/* NCCL finds out by itself that something is broken. */
static void broken(zcta_context *context, void *data)
{
    zcta_team *zero = team_with(context, ZCTA_POLICY_ZERO, "zero");
    zcta_window *recv = window_of(context, MIB);
    zcta_error error;

    (void)data;
    enter_gpu(context);
    gather(context, zero, recv, NULL, 1, NULL);
    EXPECT_OK(context, zcta_barrier(zcta_world(context), NULL));
    EXPECT(driver.cuStreamSynchronize(NULL) == 0);
    fake.break_off(3);
    EXPECT(await_failure(zero) != ZCTA_OK);
    EXPECT(zcta_team_status(zero) != ZCTA_OK && zcta_last_error(context, &error) == ZCTA_OK);
    EXPECT(says(&error, "NCCL reports internal error (error 3)"));
    EXPECT_OK(context, zcta_barrier(zcta_world(context), NULL));
    EXPECT(driver.cuStreamSynchronize(NULL) == 0);
    gather(context, zcta_world(context), recv, NULL, 7, NULL);
    leave_gpu(context);
}

static void an_error_found_later_fails_the_team(void **state)
{
    (void)state;
    run(broken);
    assert_non_null(strstr(fake.story(0), "abort"));
}

/* A rank that does not come: the others' gathers, waiting in NCCL, are ended. */
static void absent(zcta_context *context, void *data)
{
    zcta_team *zero = team_with(context, ZCTA_POLICY_DEFAULT, "zero");
    zcta_window *recv = window_of(context, MIB);
    unsigned char *out = zcta_window_base(recv);
    const uint32_t rank = zcta_team_rank(zero);
    zcta_error error;

    (void)data;
    enter_gpu(context);
    gather(context, zero, recv, NULL, 1, NULL);
    if (rank != 3) {
        EXPECT_OK(context, zcta_all_gather(zero, out + rank * SHARE, out, SHARE, NULL, NULL));
        EXPECT(driver.cuStreamSynchronize(NULL) == 0); /* drains */
        EXPECT(await_failure(zero) == ZCTA_ERR_TIMEOUT);
        EXPECT(zcta_last_error(context, &error) == ZCTA_OK);
        EXPECT(error.rank == 3);
        EXPECT(strstr(error.message, "rank 3 ") != NULL);
        EXPECT(strstr(error.message, "did not take part") != NULL);
    } else {
        EXPECT(await_failure(zero) == ZCTA_ERR_TIMEOUT);
    }
    EXPECT(driver.cuStreamSynchronize(NULL) == 0);
    leave_gpu(context);
}

static void a_rank_that_does_not_come(void **state)
{
    (void)state;
    run_as_threads_with(RANKS, &hasty, absent, NULL);
    assert_int_equal(fake.alive(), 0);
    assert_non_null(strstr(fake.story(0), "abort"));
}

/* Nor does it come to the first gather, which sets things up: the team fails, and a new one, of the
 * same ranks, goes on. */
static void absent_at_first(zcta_context *context, void *data)
{
    zcta_team *zero = team_with(context, ZCTA_POLICY_ZERO, "zero"), *next;
    zcta_window *recv = window_of(context, MIB);
    unsigned char *out = zcta_window_base(recv);
    const uint32_t rank = zcta_team_rank(zero);
    zcta_error error;

    (void)data;
    if (rank != 3)
        expect_error(context, zcta_all_gather(zero, out + rank * SHARE, out, SHARE, NULL, NULL),
                     ZCTA_ERR_TIMEOUT, "did not come to make NCCL's communicator");
    EXPECT(await_failure(zero) == ZCTA_ERR_TIMEOUT);
    EXPECT(zcta_last_error(context, &error) == ZCTA_OK && error.rank == 3);
    expect_error(context, zcta_all_gather(zero, out + rank * SHARE, out, SHARE, NULL, NULL),
                 ZCTA_ERR_TIMEOUT, "rank 3 ");
    EXPECT_OK(context, zcta_team_destroy(&zero));
    next = team_with(context, ZCTA_POLICY_ZERO, "zero");
    enter_gpu(context);
    gather(context, next, recv, NULL, 1, NULL);
    leave_gpu(context);
}

static void a_rank_that_does_not_come_at_first(void **state)
{
    (void)state;
    run_as_threads_with(RANKS, &hasty, absent_at_first, NULL);
    assert_int_equal(fake.alive(), 0);
}

/* A call of NCCL's that hangs, in setting up and in running. */
static void hangs_in(zcta_context *context, void *data)
{
    zcta_team *zero = team_with(context, policy_for(data), "zero");
    zcta_window *recv = window_of(context, MIB);
    unsigned char *out = zcta_window_base(recv);
    const uint32_t rank = zcta_team_rank(zero);
    zcta_status status;

    if (rank == 0)
        fake.trip(data, 1);
    EXPECT_OK(context, zcta_barrier(zcta_world(context), NULL));
    enter_gpu(context);
    EXPECT(driver.cuStreamSynchronize(NULL) == 0);
    status = zcta_all_gather(zero, out + rank * SHARE, out, SHARE, NULL, NULL);
    if (status == ZCTA_OK)
        status = await_failure(zero);
    EXPECT(status != ZCTA_OK);
    EXPECT(driver.cuStreamSynchronize(NULL) == 0);
    leave_gpu(context);
}

static void a_call_that_hangs(void **state)
{
    static const char *const functions[] = {"ncclCommWindowRegister", "ncclAllGather",
                                            "ncclCommInitRankConfig", "ncclGetUniqueId"};

    (void)state;
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        fake.begin();
        run_as_threads_with(RANKS, &hasty_may_fail, hangs_in, (void *)functions[i]);
    }
}

static void one_gather_of_mine(zcta_context *context, void *data)
{
    zcta_team *fast = team_with(context, ZCTA_POLICY_DEFAULT, "fast");
    zcta_window *recv = window_of(context, MIB);

    (void)data;
    enter_gpu(context);
    gather(context, fast, recv, NULL, 1, NULL);
    leave_gpu(context);
}

/* An error that NCCL finds while the ranks already leave. */
static void broken_at_the_end(zcta_context *context, void *data)
{
    one_gather_of_mine(context, data);
    fake.break_off(3);
}

static void broken_then(zcta_context *context, void *data)
{
    zcta_team *fast = team_with(context, ZCTA_POLICY_DEFAULT, "fast");
    zcta_window *recv = window_of(context, MIB);

    (void)data;
    enter_gpu(context);
    gather(context, fast, recv, NULL, 1, NULL);
    EXPECT_OK(context, zcta_barrier(zcta_world(context), NULL));
    EXPECT(driver.cuStreamSynchronize(NULL) == 0);
    fake.break_off(3);
    EXPECT(await_failure(fast) != ZCTA_OK);
    gather(context, zcta_world(context), recv, NULL, 2, NULL);
    leave_gpu(context);
}

static void await_the_last(void)
{
    const uint64_t end = now_ns() + UINT64_C(10000000000);

    while (fake.alive() > 0 && now_ns() < end)
        sleep_ms(1);
    assert_int_equal(fake.alive(), 0);
}

/* NCCL that does not come back from ending a communicator is left behind: leaving the job takes the
 * timeout, not for ever. It frees what it has if it ever returns. */
static void an_end_that_hangs(void **state)
{
    static const struct {
        const char *function;
        rank_fn *rank;
    } cases[] = {{"ncclCommDestroy", one_gather_of_mine}, {"ncclCommAbort", broken_then}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const uint64_t begun = now_ns();

        fake.begin();
        fake.trip(cases[i].function, 1);
        run_as_threads_with(RANKS, &hasty_may_fail, cases[i].rank, NULL);
        assert_true(now_ns() - begun < SLOWNESS * UINT64_C(10000000000));
        assert_int_equal(fake.alive(), 1);
        fake.begin();
        await_the_last();
    }
}

static void an_error_found_while_leaving(void **state)
{
    const struct ranks_options options = {.device = ZCTA_DEVICE_CUDA, .may_fail_to_finalize = true};

    (void)state;
    run_as_threads_with(RANKS, &options, broken_at_the_end, NULL);
    assert_int_equal(fake.alive(), 0);
}

/* ---- Over several nodes ---- */

enum { NODE_RANKS = 4, EIGHT = 8 };

static const struct ranks_options two_nodes = {.device = ZCTA_DEVICE_CUDA,
                                               .node_ranks = NODE_RANKS};

/* Gathers shares of `bytes` on the world, checks every byte, and expects that path. */
static void gather_on_world(zcta_context *context, zcta_window *recv, zcta_window *send,
                            size_t bytes, uint32_t call, const char *path)
{
    zcta_team *world = zcta_world(context);
    const uint32_t rank = zcta_team_rank(world), count = zcta_team_rank_count(world);
    unsigned char *out = zcta_window_base(recv);
    unsigned char *own = send == NULL ? out + rank * bytes : zcta_window_base(send);
    const uint64_t before = path_calls(world, path, NULL);

    memset(out, 0xee, bytes * count);
    model_fill(own, call, rank, bytes);
    EXPECT_OK(context, zcta_all_gather(world, own, out, bytes, NULL, NULL));
    EXPECT(driver.cuStreamSynchronize(NULL) == 0);
    EXPECT(model_wrong(out, call, count, bytes) == 0);
    EXPECT(path_calls(world, path, NULL) == before + 1);
}

static void hierarchical(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context);
    const uint32_t rank = zcta_team_rank(world);
    zcta_window *recv = window_of(context, 8 * MIB), *send = window_of(context, MIB);
    const void *base = NULL;
    size_t stride = 0;

    (void)data;
    enter_gpu(context);
    for (uint32_t call = 0; call < 4; call++) {
        gather_on_world(context, recv, NULL, MIB, call, "all_gather/ce/hierarchical");
        gather_on_world(context, recv, send, MIB - 3, call + 10, "all_gather/ce/hierarchical");
        EXPECT_OK(context, zcta_barrier(world, NULL));
        gather_on_world(context, recv, NULL, 1000, call + 20, "all_gather/nccl/kernels");
    }
    leave_gpu(context);
    /* Memory of another node is out of reach, that of one's own is not. */
    for (uint32_t i = 0; i < EIGHT; i++)
        EXPECT((zcta_window_peer(recv, i) != NULL) == (i / NODE_RANKS == rank / NODE_RANKS));
    expect_error(context, zcta_window_view(recv, &base, &stride), ZCTA_ERR_UNSUPPORTED,
                 "which is on another node");
}

static void two_nodes_of_four(void **state)
{
    (void)state;
    run_as_threads_with(EIGHT, &two_nodes, hierarchical, NULL);
    assert_int_equal(fake.alive(), 0);
    /* Eight chunks' worth of lanes, but none below 256 KiB: four exchanges of one partner. */
    assert_non_null(strstr(fake.story(0), "group:2 group:2 group:2 group:2 "));
}

static void four_nodes(zcta_context *context, void *data)
{
    zcta_window *recv = window_of(context, 8 * MIB);

    (void)data;
    enter_gpu(context);
    for (uint32_t call = 0; call < 3; call++) {
        gather_on_world(context, recv, NULL, MIB, call, "all_gather/ce/hierarchical");
        EXPECT_OK(context, zcta_barrier(zcta_world(context), NULL));
    }
    leave_gpu(context);
}

static void four_nodes_of_two(void **state)
{
    const struct ranks_options options = {.device = ZCTA_DEVICE_CUDA, .node_ranks = 2};

    (void)state;
    run_as_threads_with(EIGHT, &options, four_nodes, NULL);
    assert_int_equal(fake.alive(), 0);
}

static void gather_part(zcta_context *context, zcta_team *team, unsigned char *out,
                        const char *path)
{
    const uint32_t rank = zcta_team_rank(team), count = zcta_team_rank_count(team);

    model_fill(out + rank * SHARE, 5, rank, SHARE);
    EXPECT_OK(context, zcta_all_gather(team, out + rank * SHARE, out, SHARE, NULL, NULL));
    EXPECT(driver.cuStreamSynchronize(NULL) == 0);
    EXPECT(model_wrong(out, 5, count, SHARE) == 0);
    EXPECT(path_calls(team, path, NULL) == 1);
}

/* Teams within a node need no NCCL; one that takes unequally many ranks of the nodes has only
 * NCCL's own. */
static void parts(zcta_context *context, void *data)
{
    const uint32_t rank = zcta_team_rank(zcta_world(context)), odd[3] = {0, 1, 4};
    zcta_window *recv = window_of(context, MIB);
    unsigned char *out = zcta_window_base(recv);
    zcta_team *node = NULL, *uneven = NULL;

    (void)data;
    enter_gpu(context);
    EXPECT_OK(context,
              zcta_team_split(zcta_world(context), (int32_t)(rank / NODE_RANKS), 0, NULL, &node));
    gather_part(context, node, out, "all_gather/ce/host-pull");
    if (rank == 0 || rank == 1 || rank == 4) {
        EXPECT_OK(context, zcta_team_get(context, odd, 3, NULL, &uneven));
        gather_part(context, uneven, out, "all_gather/nccl/kernels");
        expect_error(context, zcta_barrier(uneven, NULL), ZCTA_ERR_UNSUPPORTED, "equally many");
    }
    leave_gpu(context);
}

static void teams_within_nodes_and_across(void **state)
{
    (void)state;
    run_as_threads_with(EIGHT, &two_nodes, parts, NULL);
    assert_int_equal(fake.alive(), 0);
}

/* Under ZERO nothing goes between the nodes that takes SMs. */
static void strict_over_nodes(zcta_context *context, void *data)
{
    const zcta_team_params params = {.size = sizeof params, .policy = ZCTA_POLICY_ZERO};
    const uint32_t ranks[EIGHT] = {0, 1, 2, 3, 4, 5, 6, 7};
    zcta_window *recv = window_of(context, 8 * MIB);
    unsigned char *out = zcta_window_base(recv);
    zcta_team *zero = NULL;
    zcta_status status;

    EXPECT_OK(context, zcta_team_get(context, ranks, EIGHT, &params, &zero));
    enter_gpu(context);
    status = zcta_all_gather(zero, out + zcta_team_rank(zero) * MIB, out, MIB, NULL, NULL);
    if (data != NULL)
        expect_error(context, status, ZCTA_ERR_POLICY, data);
    else
        EXPECT_OK(context, status);
    EXPECT(driver.cuStreamSynchronize(NULL) == 0);
    leave_gpu(context);
}

static void zero_over_nodes(void **state)
{
    (void)state;
    run_as_threads_with(EIGHT, &two_nodes, strict_over_nodes,
                        (void *)"between the nodes NCCL takes kernels");
    fake.be(23006);
    run_as_threads_with(EIGHT, &two_nodes, strict_over_nodes, NULL);
    assert_non_null(strstr(fake.story(0), "gather:ce"));
}

/* What goes wrong in an exchange fails the team. It is the world, so the ranks keep together by
 * other means: nobody calls after the failure what should come before it, or leaves the job before
 * all know why. */
static pthread_barrier_t all_eight;

static void exchange_fails(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context);
    zcta_window *recv = window_of(context, 8 * MIB);
    unsigned char *out = zcta_window_base(recv);
    const size_t bytes = MIB; /* in chunks, of which some are under way when one fails */
    zcta_status status;
    zcta_error error;

    enter_gpu(context);
    EXPECT_OK(context, zcta_barrier(world, NULL));
    EXPECT(driver.cuStreamSynchronize(NULL) == 0);
    pthread_barrier_wait(&all_eight);
    if (zcta_team_rank(world) == 0)
        fake.trip(data, 0);
    status = zcta_all_gather(world, out + zcta_team_rank(world) * bytes, out, bytes, NULL, NULL);
    if (status == ZCTA_OK)
        status = await_failure(world);
    EXPECT(status != ZCTA_OK);
    EXPECT(zcta_last_error(context, &error) == ZCTA_OK);
    EXPECT(says(&error, "exchange between nodes: NCCL says internal error"));
    EXPECT(driver.cuStreamSynchronize(NULL) == 0);
    leave_gpu(context);
    pthread_barrier_wait(&all_eight);
}

static void a_failing_exchange_fails_the_team(void **state)
{
    struct ranks_options options = two_nodes;

    (void)state;
    options.may_fail_to_finalize = true;
    pthread_barrier_init(&all_eight, NULL, EIGHT);
    run_as_threads_with(EIGHT, &options, exchange_fails, (void *)"ncclRecv");
    pthread_barrier_destroy(&all_eight);
    assert_int_equal(fake.alive(), 0);
}

/* ---- What NCCL does not let go ---- */

/* Ordinary kernels heed an abort; copy engines and symmetric kernels do not. */
static void lose_one(zcta_context *context, void *data)
{
    const zcta_policy policy = *(const zcta_policy *)data;
    zcta_team *team = team_with(context, policy, "losing");
    const bool heedless = policy == ZCTA_POLICY_ZERO || getenv("ZEROCTA_NCCL_SYMMETRIC") != NULL;
    const uint32_t rank = zcta_team_rank(team);
    zcta_window *recv = window_of(context, MIB), *other = NULL;
    unsigned char *out = zcta_window_base(recv);
    const uint64_t begin = now_ns();
    zcta_error error;

    EXPECT_OK(context, zcta_window_alloc(team, MIB, &other));
    enter_gpu(context);
    gather(context, team, recv, NULL, 1, NULL);
    if (rank != 1)
        EXPECT_OK(context, zcta_all_gather(team, out + rank * SHARE, out, SHARE, NULL, NULL));
    EXPECT(await_failure(team) == ZCTA_ERR_TIMEOUT);
    EXPECT_OK(context, zcta_team_failure(team, &error));
    EXPECT(error.rank == 1);
    EXPECT((strstr(error.message, "this process has to end") != NULL) == (heedless && rank != 1));
    zcta_window_free(&other);
    EXPECT(other == NULL && now_ns() - begin < UINT64_C(60000000000));
    if (!heedless)
        EXPECT(driver.cuStreamSynchronize(NULL) == 0);
    leave_gpu(context);
}

static void ordinary_kernels_are_let_go(void **state)
{
    zcta_policy policy = ZCTA_POLICY_DEFAULT;

    (void)state;
    run_as_threads_with(RANKS, &hasty_may_fail, lose_one, &policy);
    assert_int_equal(fake.alive(), 0);
    assert_null(strstr(fake.story(0), "register"));
}

/* Every call returns all the same, and the sentence says what is left to do. */
static void what_heeds_no_abort_holds_up_no_call(void **state)
{
    zcta_policy policy = ZCTA_POLICY_ZERO;

    (void)state;
    run_as_threads_with(RANKS, &hasty_may_fail, lose_one, &policy);
    fake.begin();
    policy = ZCTA_POLICY_DEFAULT;
    setenv("ZEROCTA_NCCL_SYMMETRIC", "1", 1);
    run_as_threads_with(RANKS, &hasty_may_fail, lose_one, &policy);
    unsetenv("ZEROCTA_NCCL_SYMMETRIC");
    assert_non_null(strstr(fake.story(0), "register gather:sym"));
    fake.begin();
}

static void expect_reason(zcta_context *context, zcta_team *team, zcta_window *recv,
                          const char *path, bool warns)
{
    unsigned char *out = zcta_window_base(recv);
    zcta_report report;

    EXPECT_OK(context, explain_all_gather(team, out + zcta_team_rank(team) * SHARE, out, SHARE,
                                          NULL, &report));
    EXPECT(report.chosen < report.path_count);
    EXPECT(strcmp(report.paths[report.chosen].path, path) == 0);
    EXPECT((strstr(report.paths[report.chosen].reason, "this process has to end") != NULL) ==
           warns);
}

static void explain_it(zcta_context *context, void *data)
{
    zcta_window *recv = window_of(context, MIB);

    expect_reason(context, team_with(context, ZCTA_POLICY_DEFAULT, "fast"), recv, "nccl/kernels",
                  data != NULL);
    expect_reason(context, team_with(context, ZCTA_POLICY_ZERO, "zero"), recv, "nccl/copy-engine",
                  true);
}

static void explain_says_what_cannot_be_let_go(void **state)
{
    (void)state;
    run(explain_it);
    setenv("ZEROCTA_NCCL_SYMMETRIC", "1", 1);
    run_as_threads_with(RANKS, &on_gpus, explain_it, "asked for");
    unsetenv("ZEROCTA_NCCL_SYMMETRIC");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_policy_belongs_to_its_team, begin),
        cmocka_unit_test_setup(a_call_has_its_own_policy_and_engine, begin),
        cmocka_unit_test_setup(out_of_place_is_refused_or_reported, begin),
        cmocka_unit_test_setup(who_mixes_in_place_is_named_under_check, begin),
        cmocka_unit_test_setup(versions_without_copy_engines, begin),
        cmocka_unit_test_setup(versions_with_copy_engines, begin),
        cmocka_unit_test_setup(a_version_that_is_too_old, begin),
        cmocka_unit_test_setup(no_nccl, begin),
        cmocka_unit_test_setup(environment_overrides, begin),
        cmocka_unit_test_setup(environment_as_nccl_reads_it, begin),
        cmocka_unit_test_setup(nccl_that_does_not_wait, begin),
        cmocka_unit_test_setup(a_file_of_nccls_overrides, begin),
        cmocka_unit_test_setup(evidence_counts, begin),
        cmocka_unit_test_setup(evidence_belongs_to_one_look, begin),
        cmocka_unit_test_setup(a_rank_alone_needs_no_evidence, begin),
        cmocka_unit_test_setup(two_teams_on_two_threads, begin),
        cmocka_unit_test_setup(windows_are_registered_as_long_as_they_live, begin),
        cmocka_unit_test_setup(memory_of_nccls_own, begin),
        cmocka_unit_test_setup(plans_run_and_teams_end, begin),
        cmocka_unit_test_setup(the_first_run_is_not_captured, begin),
        cmocka_unit_test_setup(a_later_run_is_captured_and_replays, begin),
        cmocka_unit_test_setup(a_failing_call_fails_the_team_alone, begin),
        cmocka_unit_test_setup(an_error_found_later_fails_the_team, begin),
        cmocka_unit_test_setup(a_rank_that_does_not_come, begin),
        cmocka_unit_test_setup(a_rank_that_does_not_come_at_first, begin),
        cmocka_unit_test_setup(a_call_that_hangs, begin),
        cmocka_unit_test_setup(an_end_that_hangs, begin),
        cmocka_unit_test_setup(an_error_found_while_leaving, begin),
        cmocka_unit_test_setup(two_nodes_of_four, begin),
        cmocka_unit_test_setup(four_nodes_of_two, begin),
        cmocka_unit_test_setup(teams_within_nodes_and_across, begin),
        cmocka_unit_test_setup(zero_over_nodes, begin),
        cmocka_unit_test_setup(a_failing_exchange_fails_the_team, begin),
        cmocka_unit_test_setup(ordinary_kernels_are_let_go, begin),
        cmocka_unit_test_setup(explain_says_what_cannot_be_let_go, begin),
        cmocka_unit_test_setup(what_heeds_no_abort_holds_up_no_call, begin),
    };

    return cmocka_run_group_tests(tests, load_fake, NULL);
}
