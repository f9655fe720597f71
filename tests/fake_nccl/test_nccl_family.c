/* Every collective by NCCL, on the fake one: by its own call where it has one, else by sends and
 * receives in a group; in place and not, also captured and replayed; on one node and over several.
 * What cannot be done there is refused with its reason. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "collective/collective.h"
#include "engine/nccl/nccl_library.h"
#include "fake_cuda/support_fake.h"
#include "fake_nccl.h"
#include "plan/plan.h"
#include "support_family.h"

enum { RANKS = 4 };

/* What NCCL there is, where the ranks are, and how they call. */
struct manner {
    int version;
    uint32_t ranks, node_ranks; /* how many are on a node; 0: all are on one */
    zcta_policy policy;
    zcta_engine engine;
};

static fake_nccl_be_fn *be;
static fake_nccl_story_fn *story;
static fake_nccl_begin_fn *begin;
static fake_nccl_alive_fn *alive;

static int load_fakes(void **state)
{
    void *library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);

    (void)state;
    assert_non_null(library);
    find_fake(library, "fake_nccl_be", &be);
    find_fake(library, "fake_nccl_story", &story);
    find_fake(library, "fake_nccl_begin", &begin);
    find_fake(library, "fake_nccl_alive", &alive);
    open_fake();
    return 0;
}

/* NCCL's copy engines do one collective, and over several nodes only since some version. */
static bool has_copy_engines(const struct manner *manner, int id)
{
    const int since = manner->node_ranks == 0 ? ZC_NCCL_HAS_COPY_ENGINES : ZC_NCCL_HAS_ZERO_NETWORK;

    return manner->policy != ZCTA_POLICY_DEFAULT && manner->version >= since &&
           zc_collective_of((zcta_collective)id)->nccl_copies;
}

/* No kernel has run under ZERO, and copy engines where they can. */
static void expect_policy_kept(const struct manner *manner)
{
    for (uint32_t rank = 0; rank < manner->ranks; rank++) {
        assert_int_equal(strstr(story((int)rank), "gather:ce") != NULL,
                         has_copy_engines(manner, ZCTA_ALL_GATHER));
        assert_true(manner->policy != ZCTA_POLICY_ZERO || strstr(story((int)rank), ":sm") == NULL);
    }
}

static void run_with(const struct manner *manner, rank_fn *function)
{
    const struct ranks_options options = {.device = ZCTA_DEVICE_CUDA,
                                          .node_ranks = manner->node_ranks};

    be(manner->version);
    begin();
    run_as_threads_with(manner->ranks, &options, function, (void *)manner);
    assert_int_equal(alive(), 0);
    expect_policy_kept(manner);
}

/* A rank's call and its place on its GPU. */
struct bench {
    const struct manner *manner;
    struct seat seat;
    struct family_call call;
    uint32_t round;
};

static void open_bench(struct bench *b, zcta_context *context, const struct manner *manner)
{
    *b = (struct bench){.manner = manner, .seat = take_seat(context, FAMILY_ROOM)};
    b->call = (struct family_call){.ranks = b->seat.count,
                                   .rank = b->seat.rank,
                                   .window = zcta_window_base(b->seat.recv),
                                   .input = zcta_window_base(b->seat.send)};
}

/* Nodes of unequal size have no barrier. */
static bool is_uneven(const struct manner *manner)
{
    return manner->node_ranks != 0 && manner->ranks % manner->node_ranks != 0;
}

/* All ranks have filled, or are through. */
static void meet(const struct bench *b)
{
    uint32_t mine = 0, all[RANKS];

    if (!is_uneven(b->manner)) {
        EXPECT_OK(b->seat.context, zcta_barrier(b->seat.world, b->seat.stream));
        return;
    }
    synchronize(&b->seat);
    EXPECT_OK(b->seat.context, zcta_team_exchange(b->seat.world, &mine, all, sizeof mine));
}

static void run_round(struct bench *b, zc_cu_graph_exec exec)
{
    const uint32_t round = b->round++;

    memset(b->call.window, 0xee, FAMILY_ROOM);
    family_fill(&b->call, round);
    meet(b);
    if (exec != NULL)
        replay(&b->seat, exec);
    else
        EXPECT_OK(b->seat.context, zcta_run(b->seat.world, &b->call.call, b->seat.stream));
    meet(b);
    synchronize(&b->seat);
    family_expect(&b->call, round);
}

static void make_call(struct bench *b, int id, uint32_t number)
{
    family_make(&b->call, (zcta_collective)id, 1 + number * 700,
                (enum family_shape)(number % FAMILY_SHAPES), number);
    b->call.call.engine = b->manner->engine;
    b->call.call.policy = b->manner->policy;
}

/* ---- Right bytes ---- */

/* Expects the next round on that way, told as a fall-back or not. */
static void run_on_path(struct bench *b, const char *way, bool falls_back)
{
    uint64_t before, fallbacks_before, fallbacks;
    char path[64];

    snprintf(path, sizeof path, "%s/%s", b->call.info.name, way);
    before = path_calls(b->seat.world, path, &fallbacks_before);
    run_round(b, NULL);
    EXPECT(path_calls(b->seat.world, path, &fallbacks) == before + 1);
    EXPECT(fallbacks == fallbacks_before + falls_back);
}

static void run_one(struct bench *b, int id)
{
    const bool copies = has_copy_engines(b->manner, id);
    const bool thrifty = b->manner->policy == ZCTA_POLICY_EFFICIENCY;
    const char *way = copies ? "nccl/copy-engine" : "nccl/kernels";

    for (uint32_t number = 0; number < RANKS; number++) {
        make_call(b, id, number);
        run_on_path(b, way, thrifty);
        if (family_put_in_place(&b->call))
            run_on_path(b, way, thrifty && !copies);
    }
}

static void run_all(zcta_context *context, void *data)
{
    struct bench b;
    uint32_t traits;

    open_bench(&b, context, data);
    FOR_EACH_COLLECTIVE(id, traits)
    run_one(&b, id);
    leave_seat(&b.seat);
}

static void every_collective_moves_the_right_bytes(void **state)
{
    static const char *const own[] = {"alltoall:sm", "gather-to-one:sm", "scatter:sm"};
    struct manner manner = {.version = 22803,
                            .ranks = RANKS,
                            .policy = ZCTA_POLICY_EFFICIENCY,
                            .engine = ZCTA_ENGINE_NCCL};

    (void)state;
    run_with(&manner, run_all);
    manner.policy = ZCTA_POLICY_DEFAULT;
    run_with(&manner, run_all);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        assert_non_null(strstr(story(0), own[i]));
    assert_non_null(strstr(story(0), "broadcast:sm"));
    /* Before 2.28 NCCL has no call for these. */
    manner.version = 22707;
    run_with(&manner, run_all);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        assert_null(strstr(story(0), own[i]));
    assert_non_null(strstr(story(0), "broadcast:sm"));
    assert_non_null(strstr(story(0), "group:"));
}

/* Two nodes of two, four of one, and, of three ranks, one of two and one of one. */
static void over_nodes(struct manner manner, rank_fn *function)
{
    manner.ranks = RANKS;
    for (manner.node_ranks = 1; manner.node_ranks <= 2; manner.node_ranks++)
        run_with(&manner, function);
    manner.ranks = 3;
    manner.node_ranks = 2;
    run_with(&manner, function);
}

static void every_collective_moves_the_right_bytes_over_nodes(void **state)
{
    static const int versions[] = {22707, 22803, ZC_NCCL_HAS_ZERO_NETWORK};

    (void)state;
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++)
        for (int policy = ZCTA_POLICY_DEFAULT; policy <= ZCTA_POLICY_EFFICIENCY; policy++)
            over_nodes((struct manner){.version = versions[i],
                                       .policy = (zcta_policy)policy,
                                       .engine = ZCTA_ENGINE_NCCL},
                       run_all);
    /* Nobody has to ask for it. */
    over_nodes((struct manner){.version = 22803, .policy = ZCTA_POLICY_DEFAULT}, run_all);
}

/* ---- Replayed ---- */

static void capture_all(zcta_context *context, void *data)
{
    struct bench b;
    uint32_t traits;

    open_bench(&b, context, data);
    FOR_EACH_COLLECTIVE(id, traits)
    {
        zc_cu_graph_exec exec;

        make_call(&b, id, 1);
        run_round(&b, NULL);
        begin_capture(&b.seat);
        EXPECT_OK(context, zcta_run(b.seat.world, &b.call.call, b.seat.stream));
        exec = end_capture(&b.seat);
        for (uint32_t i = 0; i < 3; i++)
            run_round(&b, exec);
        driver.cuGraphExecDestroy(exec);
    }
    leave_seat(&b.seat);
}

static void every_collective_can_be_replayed(void **state)
{
    const struct manner manner = {.version = 22803,
                                  .ranks = RANKS,
                                  .policy = ZCTA_POLICY_DEFAULT,
                                  .engine = ZCTA_ENGINE_NCCL};

    (void)state;
    run_with(&manner, capture_all);
    over_nodes(manner, capture_all);
}

/* ---- Refused ---- */

/* The way that NCCL's copy engines, asked for by policy ZERO, cannot go. */
static const char *why_not_zero(const struct manner *manner, int id)
{
    struct manner zero = *manner;

    zero.version = INT_MAX;
    if (!has_copy_engines(&zero, id))
        return "NCCL's copy engines do not do that";
    if (manner->version < ZC_NCCL_HAS_COPY_ENGINES)
        return "has no copy engines; 2.28 is the first that has";
    if (!has_copy_engines(manner, id))
        return "has no copy engines over several nodes; 2.30.6 is the first";
    return "the copy of the own share within its GPU needs SMs";
}

static void expect_refused(const struct bench *b, zcta_status status, const char *why)
{
    expect_error(b->seat.context, zcta_run(b->seat.world, &b->call.call, b->seat.stream), status,
                 why);
}

/* Out of place nothing can be done without SMs. */
static void refuse_all(zcta_context *context, void *data)
{
    struct bench b;
    uint32_t traits;

    open_bench(&b, context, data);
    FOR_EACH_COLLECTIVE(id, traits)
    for (uint32_t number = 0; number < RANKS; number++) {
        const char *why = why_not_zero(b.manner, id);

        make_call(&b, id, number);
        expect_refused(&b, ZCTA_ERR_POLICY, why);
        if (!family_put_in_place(&b.call))
            continue;
        if (has_copy_engines(b.manner, id))
            run_on_path(&b, "nccl/copy-engine", false);
        else
            expect_refused(&b, ZCTA_ERR_POLICY, why);
    }
    leave_seat(&b.seat);
}

static void zero_is_refused_where_nccl_needs_sms(void **state)
{
    static const int versions[] = {22707, 22803, ZC_NCCL_HAS_ZERO_NETWORK};

    (void)state;
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
        const struct manner manner = {.version = versions[i],
                                      .ranks = RANKS,
                                      .policy = ZCTA_POLICY_ZERO,
                                      .engine = ZCTA_ENGINE_NCCL};

        run_with(&manner, refuse_all);
        over_nodes(manner, refuse_all);
    }
}

/* Why none of our own plans does it; NULL: one does. */
static const char *why_not_ce(const struct manner *manner, int id)
{
    if (!zc_algorithm_serves(&zc_hierarchical, zc_collective_of((zcta_collective)id)))
        return "the ranks are on several nodes, and do not reach each other's memory";
    if (is_uneven(manner))
        return "the nodes have not equally many ranks each";
    return manner->node_ranks == 1 ? "a node is one rank, so there is nothing to push" : NULL;
}

static void run_by_ce(zcta_context *context, void *data)
{
    struct bench b;
    uint32_t traits;

    open_bench(&b, context, data);
    if (is_uneven(b.manner))
        expect_error(context, zcta_barrier(b.seat.world, b.seat.stream), ZCTA_ERR_UNSUPPORTED,
                     "the nodes have not equally many ranks each");
    FOR_EACH_COLLECTIVE(id, traits)
    for (uint32_t number = 0; number < RANKS; number++) {
        const char *why = why_not_ce(b.manner, id);
        uint32_t places = 0;

        make_call(&b, id, number);
        do {
            if (why == NULL)
                run_on_path(&b, "ce/hierarchical", false);
            else
                expect_refused(&b, ZCTA_ERR_UNSUPPORTED, why);
        } while (places++ == 0 && family_put_in_place(&b.call));
    }
    leave_seat(&b.seat);
}

/* With the engine that was asked for, or not at all. */
static void our_own_plans_cross_nodes_or_say_why_not(void **state)
{
    (void)state;
    over_nodes(
        (struct manner){.version = 22803, .policy = ZCTA_POLICY_DEFAULT, .engine = ZCTA_ENGINE_CE},
        run_by_ce);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_collective_moves_the_right_bytes),
        cmocka_unit_test(every_collective_moves_the_right_bytes_over_nodes),
        cmocka_unit_test(every_collective_can_be_replayed),
        cmocka_unit_test(zero_is_refused_where_nccl_needs_sms),
        cmocka_unit_test(our_own_plans_cross_nodes_or_say_why_not),
    };

    return cmocka_run_group_tests(tests, load_fakes, NULL);
}
