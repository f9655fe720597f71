/* The selector, as the pure function it is: facts in, a path and reasons out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "select/select.h"
#include "support_plans.h"

enum { SHARE = 1 << 20 };

static const struct zc_device_caps gpu = {.name = "cuda",
                                          .lanes = 2,
                                          .group_bytes = SHARE,
                                          .scratch_bytes = 65536,
                                          .gpu_id = 7,
                                          .local_copy_needs_sm = true,
                                          .model = "NVIDIA H200",
                                          .driver_version = 13000};
static const struct zc_nccl_facts nccl = {.version = 22803, .forced_policy = -1};

static struct zc_layout layout; /* of the allgather that the facts at hand are about */

static void resize(struct zc_facts *facts, uint32_t ranks, uint64_t bytes)
{
    layout = even_layout(&zc_all_gather, ranks, bytes, 0);
    facts->layout = &layout;
}

static struct zc_facts usual(void)
{
    struct zc_facts facts = {
        .caps = &gpu, .nccl = &nccl, .in_place = true, .policy = ZCTA_POLICY_DEFAULT};

    resize(&facts, 2, SHARE);
    return facts;
}

/* How many paths there are to choose from: NCCL's two besides ours. */
static uint32_t path_count(bool nodes)
{
    uint32_t count = 2;

    for (uint32_t i = 0; i < ZC_ALGORITHMS; i++)
        count += zc_algorithm_serves(zc_algorithms[i], &zc_all_gather) &&
                 !zc_has(zc_algorithms[i], ZC_OPENS) &&
                 (nodes || !zc_has(zc_algorithms[i], ZC_CROSSES));
    return count;
}

/* The chosen path's name, "" if there is none; every path has a reason either way. */
static const char *chosen(const struct zc_facts *facts)
{
    static zcta_report report;
    const struct zc_choice choice = zc_select(facts, &report);

    assert_int_equal(report.path_count, path_count(false));
    for (uint32_t i = 0; i < report.path_count; i++)
        assert_true(report.paths[i].reason[0] != '\0');
    assert_int_equal(choice.found, report.chosen < report.path_count);
    if (!choice.found)
        return "";
    assert_true(report.paths[report.chosen].possible);
    /* What ZERO is for. */
    assert_false(facts->policy == ZCTA_POLICY_ZERO && report.paths[report.chosen].sms);
    return report.paths[report.chosen].path;
}

/* Policy, place and engine decide as the table says. */
static void every_policy_place_and_engine(void **state)
{
    static const struct {
        zcta_policy policy;
        bool in_place;
        zcta_engine engine;
        const char *path;
    } cases[] = {
        {ZCTA_POLICY_DEFAULT, true, ZCTA_ENGINE_AUTO, "ce/direct-push"},
        {ZCTA_POLICY_DEFAULT, false, ZCTA_ENGINE_AUTO, "ce/direct-push"},
        {ZCTA_POLICY_EFFICIENCY, true, ZCTA_ENGINE_AUTO, "ce/direct-push"},
        {ZCTA_POLICY_EFFICIENCY, false, ZCTA_ENGINE_AUTO, "ce/push-back"},
        {ZCTA_POLICY_ZERO, true, ZCTA_ENGINE_AUTO, "ce/direct-push"},
        {ZCTA_POLICY_ZERO, false, ZCTA_ENGINE_CE, "ce/push-back"},
        {ZCTA_POLICY_DEFAULT, true, ZCTA_ENGINE_NCCL, "nccl/kernels"},
        {ZCTA_POLICY_DEFAULT, false, ZCTA_ENGINE_NCCL, "nccl/kernels"},
        {ZCTA_POLICY_EFFICIENCY, true, ZCTA_ENGINE_NCCL, "nccl/copy-engine"},
        {ZCTA_POLICY_EFFICIENCY, false, ZCTA_ENGINE_NCCL, "nccl/copy-engine"},
        {ZCTA_POLICY_ZERO, true, ZCTA_ENGINE_NCCL, "nccl/copy-engine"},
        {ZCTA_POLICY_ZERO, false, ZCTA_ENGINE_NCCL, ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct zc_facts facts = usual();

        facts.policy = cases[i].policy;
        facts.in_place = cases[i].in_place;
        facts.engine = cases[i].engine;
        assert_string_equal(chosen(&facts), cases[i].path);
    }
}

/* What the environment makes of NCCL's policy is said, for every policy of ours. */
static void a_policy_from_the_environment(void **state)
{
    struct zc_nccl_facts forced = nccl;
    struct zc_facts facts = usual();
    zcta_report report;

    (void)state;
    forced.forced_policy = ZC_NCCL_POLICY_ZERO;
    facts.nccl = &forced;
    facts.engine = ZCTA_ENGINE_NCCL;
    assert_string_equal(chosen(&facts), "nccl/kernels");
    zc_select(&facts, &report);
    assert_non_null(strstr(report.paths[report.chosen].reason, "NCCL_CTA_POLICY=2"));
    facts.policy = ZCTA_POLICY_ZERO;
    assert_string_equal(chosen(&facts), "nccl/copy-engine");
    forced.forced_policy = ZC_NCCL_POLICY_EFFICIENCY;
    assert_string_equal(chosen(&facts), "");
}

/* Windows that NCCL cannot find the parts of leave it its kernels, and us everything. */
static void an_unlike_window(void **state)
{
    struct zc_facts facts = usual();

    (void)state;
    facts.unlike_window = true;
    facts.policy = ZCTA_POLICY_ZERO;
    assert_string_equal(chosen(&facts), "ce/direct-push");
    facts.engine = ZCTA_ENGINE_NCCL;
    assert_string_equal(chosen(&facts), "");
    facts.policy = ZCTA_POLICY_EFFICIENCY;
    assert_string_equal(chosen(&facts), "nccl/kernels");
}

/* Two ranks on one GPU copy within it, and NCCL refuses them. */
static void a_shared_gpu_has_nothing_without_sms(void **state)
{
    struct zc_facts facts = usual();

    (void)state;
    facts.shared_gpu = true;
    assert_string_equal(chosen(&facts), "ce/direct-push");
    facts.policy = ZCTA_POLICY_ZERO;
    assert_string_equal(chosen(&facts), "");
    facts.policy = ZCTA_POLICY_DEFAULT;
    facts.engine = ZCTA_ENGINE_NCCL;
    assert_string_equal(chosen(&facts), "");
}

/* Measurements decide between the engines, of the nearest size, for as many ranks, and never for
 * SMs where the policy has them avoided. */
static void measurements_decide(void **state)
{
    static const struct zc_tuned tuned = {
        .row_count = 5,
        .rows = {{ZCTA_ALL_GATHER, 2, ZCTA_POLICY_DEFAULT, true, 1024, 10, 5},
                 {ZCTA_ALL_GATHER, 2, ZCTA_POLICY_DEFAULT, true, 1 << 24, 50, 60},
                 {ZCTA_ALL_GATHER, 2, ZCTA_POLICY_DEFAULT, false, 1024, 10, 20},
                 {ZCTA_ALL_GATHER, 2, ZCTA_POLICY_EFFICIENCY, false, 1024, 10, 5},
                 {ZCTA_ALL_GATHER, 2, ZCTA_POLICY_EFFICIENCY, true, 1024, 10, 5}},
    };
    struct zc_facts facts = usual();

    (void)state;
    facts.tuned = &tuned;
    resize(&facts, 2, 100);
    assert_string_equal(chosen(&facts), "nccl/kernels");
    resize(&facts, 2, 100000);
    assert_string_equal(chosen(&facts), "nccl/kernels");
    resize(&facts, 2, 1000000);
    assert_string_equal(chosen(&facts), "ce/direct-push");
    resize(&facts, 3, 1024);
    assert_string_equal(chosen(&facts), "ce/direct-push");
    resize(&facts, 2, 1024);
    facts.engine = ZCTA_ENGINE_CE;
    assert_string_equal(chosen(&facts), "ce/direct-push");
    facts.engine = ZCTA_ENGINE_AUTO;
    /* Whatever was measured: nobody can let NCCL's copy engines go. */
    facts.policy = ZCTA_POLICY_EFFICIENCY;
    assert_string_equal(chosen(&facts), "ce/direct-push");
    facts.in_place = false;
    assert_string_equal(chosen(&facts), "ce/push-back");
    /* Nothing to choose where NCCL is not there. */
    facts = usual();
    facts.tuned = &tuned;
    resize(&facts, 2, 1024);
    facts.nccl = NULL;
    assert_string_equal(chosen(&facts), "ce/direct-push");
}

/* The chosen path's name among all that are listed where there are several nodes; "" if none. */
static const char *chosen_over_nodes(const struct zc_facts *facts)
{
    static zcta_report report;

    if (!zc_select(facts, &report).found)
        return "";
    assert_int_equal(report.path_count, path_count(true));
    return report.paths[report.chosen].path;
}

static struct zc_facts two_nodes(void);

/* What was measured on one node says nothing of several. */
static void measurements_stay_on_their_node(void **state)
{
    static const struct zc_tuned tuned = {
        .row_count = 1, .rows = {{ZCTA_ALL_GATHER, 4, ZCTA_POLICY_DEFAULT, true, SHARE, 10, 5}}};
    struct zc_facts facts = two_nodes();

    (void)state;
    facts.tuned = &tuned;
    resize(&facts, 4, SHARE);
    assert_string_equal(chosen_over_nodes(&facts), "ce/hierarchical");
}

static struct zc_facts two_nodes(void)
{
    struct zc_facts facts = usual();

    resize(&facts, 8, SHARE);
    facts.node_ranks = 4;
    return facts;
}

/* Over several nodes: both levels, NCCL's own, or nothing. */
static void nodes_and_who_crosses_between_them(void **state)
{
    struct zc_facts facts = two_nodes();

    (void)state;
    assert_string_equal(chosen_over_nodes(&facts), "ce/hierarchical");
    resize(&facts, 8, 1000);
    assert_string_equal(chosen_over_nodes(&facts), "nccl/kernels");
    /* NCCL refuses ranks on one GPU, but those of a node are in different communicators. */
    facts.shared_gpu = true;
    assert_string_equal(chosen_over_nodes(&facts), "ce/hierarchical");
    facts.rail_shared = true;
    assert_string_equal(chosen_over_nodes(&facts), "");
    /* One rank a node has nothing to push; nodes of unequal size have no positions. */
    facts = two_nodes();
    facts.node_ranks = 1;
    assert_string_equal(chosen_over_nodes(&facts), "nccl/kernels");
    facts.node_ranks = 0;
    facts.uneven_nodes = true;
    assert_string_equal(chosen_over_nodes(&facts), "nccl/kernels");
    facts = two_nodes();
    facts.engine = ZCTA_ENGINE_NCCL;
    assert_string_equal(chosen_over_nodes(&facts), "nccl/kernels");
}

/* What the user is told where no path can run. */
static const char *told(const struct zc_facts *facts)
{
    static zcta_report report;
    const struct zc_choice choice = zc_select(facts, &report);
    char path[sizeof report.paths[0].path];

    assert_false(choice.found);
    snprintf(path, sizeof path, "%s/%s", zc_path_engine(choice.path), zc_path_name(choice.path));
    for (uint32_t i = 0; i < report.path_count; i++)
        if (strcmp(report.paths[i].path, path) == 0)
            return report.paths[i].reason;
    fail();
    return "";
}

/* Why none of our own plans does it, if engine ce was asked for. */
static void who_asks_for_our_plans_is_told_why_they_cannot_cross(void **state)
{
    const struct zc_layout broadcast = even_layout(&zc_broadcast, 8, SHARE, 0);
    struct zc_facts facts = two_nodes();

    (void)state;
    facts.engine = ZCTA_ENGINE_CE;
    facts.node_ranks = 1;
    assert_non_null(strstr(told(&facts), "a node is one rank"));
    facts.layout = &broadcast;
    assert_non_null(strstr(told(&facts), "the ranks are on several nodes"));
    facts.apart = true;
    assert_non_null(strstr(told(&facts), "the ranks are on several nodes"));
}

/* From 2.30.6 on NCCL crosses without SMs; our plans do not. */
static void nodes_without_sms(void **state)
{
    struct zc_nccl_facts newer = nccl;
    struct zc_facts facts = two_nodes();

    (void)state;
    facts.policy = ZCTA_POLICY_ZERO;
    assert_string_equal(chosen_over_nodes(&facts), "");
    newer.version = 23006;
    facts.nccl = &newer;
    assert_string_equal(chosen_over_nodes(&facts), "nccl/copy-engine");
    /* What cannot be let go is asked for, or the only way. */
    facts.policy = ZCTA_POLICY_EFFICIENCY;
    assert_string_equal(chosen_over_nodes(&facts), "ce/hierarchical");
    facts.engine = ZCTA_ENGINE_NCCL;
    assert_string_equal(chosen_over_nodes(&facts), "nccl/copy-engine");
    facts.engine = ZCTA_ENGINE_AUTO;
    facts.in_place = false;
    assert_string_equal(chosen_over_nodes(&facts), "ce/hierarchical");
    /* Between the nodes it needs none; the own share does. */
    facts.policy = ZCTA_POLICY_ZERO;
    assert_non_null(strstr(told(&facts), "between the nodes NCCL takes kernels"));
    facts.engine = ZCTA_ENGINE_NCCL;
    assert_non_null(strstr(told(&facts), "the copy of the own share"));
}

/* The figures that come with the library. */
static void two_h200(void **state)
{
    struct zc_facts facts = usual();

    (void)state;
    assert_null(zc_tuned_built_in("another"));
    facts.tuned = zc_tuned_built_in(gpu.model);
    assert_non_null(facts.tuned);
    resize(&facts, 2, 2 << 20);
    assert_string_equal(chosen(&facts), "nccl/kernels");
    resize(&facts, 2, 8 << 20);
    assert_string_equal(chosen(&facts), "ce/direct-push");
}

/* ---- The file ---- */

static bool read_text(const char *text, struct zc_tuned *tuned, char why[100])
{
    FILE *in = fmemopen((void *)text, strlen(text), "r");
    bool read;

    assert_non_null(in);
    read = zc_tuned_read(in, tuned, why, 100);
    fclose(in);
    return read;
}

static void what_is_written_is_read(void **state)
{
    const struct zc_tuned *tuned = zc_tuned_built_in("NVIDIA H200");
    static struct zc_tuned again;
    char text[4096] = "", why[100];
    FILE *out = fmemopen(text, sizeof text, "w");

    (void)state;
    assert_non_null(out);
    assert_true(zc_tuned_write(out, tuned));
    fclose(out);
    assert_true(read_text(text, &again, why));
    assert_int_equal(zc_tuned_digest(&again), zc_tuned_digest(tuned));
    again.rows[3].ce_us += 1;
    assert_int_not_equal(zc_tuned_digest(&again), zc_tuned_digest(tuned));
    assert_int_equal(zc_tuned_digest(NULL), 0);
}

static void nonsense_is_refused(void **state)
{
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"\n", "line 1 "},
        {"zerocta tune 1\n", "line 1 "},
        {"zerocta tune 2\nwhat\n", "line 2 "},
        {"zerocta tune 2\n2 1 1 512 1.0 2.0\n", "line 2 "},
        {"zerocta tune 2\nall_sorts 2 1 1 512 1.0 2.0\n", "line 2 "},
        {"zerocta tune 2\nall_gather 2 1 1 512 1.0\n", "line 2 "},
        {"zerocta tune 2\nall_gather 2 1 1 512 1.0 2.0 3.0\n", "line 2 "},
        {"zerocta tune 2\nall_gather 0 1 1 512 1.0 2.0\n", "line 2 "},
        {"zerocta tune 2\nall_gather 2 4 1 512 1.0 2.0\n", "line 2 "},
        {"zerocta tune 2\nall_gather 2 0 1 512 1.0 2.0\n", "line 2 "},
        {"zerocta tune 2\nall_gather 2 1 2 512 1.0 2.0\n", "line 2 "},
        {"zerocta tune 2\nall_gather 2 1 1 512 -1.0 2.0\n", "line 2 "},
        {"zerocta tune 2\nall_gather 2 1 1 512 nan 2.0\n", "line 2 "},
    };
    static struct zc_tuned tuned;
    char why[100];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        why[0] = '\0';
        assert_false(read_text(cases[i].text, &tuned, why));
        assert_int_equal(strncmp(why, cases[i].why, strlen(cases[i].why)), 0);
    }
}

static bool grouped(const struct zc_facts *facts, enum zc_path path)
{
    return zc_select_request(facts, path, 0, facts->in_place).grouped;
}

/* Where there are several peers, shares are small and the device gains by it. */
static void small_pushes_to_several_peers_are_grouped(void **state)
{
    const enum zc_path direct_push = (enum zc_path)ZC_ALGORITHM_DIRECT_PUSH;
    struct zc_facts facts = usual();

    (void)state;
    resize(&facts, 3, SHARE);
    assert_true(grouped(&facts, direct_push));
    assert_true(grouped(&facts, (enum zc_path)ZC_ALGORITHM_PUSH_BACK));
    assert_false(grouped(&facts, (enum zc_path)ZC_ALGORITHM_SCRATCH_PULL));
    resize(&facts, 3, SHARE + 1);
    assert_false(grouped(&facts, direct_push));
    resize(&facts, 2, SHARE);
    assert_false(grouped(&facts, direct_push));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_pushes_to_several_peers_are_grouped),
        cmocka_unit_test(every_policy_place_and_engine),
        cmocka_unit_test(a_policy_from_the_environment),
        cmocka_unit_test(an_unlike_window),
        cmocka_unit_test(a_shared_gpu_has_nothing_without_sms),
        cmocka_unit_test(measurements_decide),
        cmocka_unit_test(measurements_stay_on_their_node),
        cmocka_unit_test(nodes_and_who_crosses_between_them),
        cmocka_unit_test(nodes_without_sms),
        cmocka_unit_test(who_asks_for_our_plans_is_told_why_they_cannot_cross),
        cmocka_unit_test(two_h200),
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(nonsense_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
