/* Every collective by NCCL, on the fake one: by its own call where it has one, else by sends and
 * receives in a group; in place and not, also captured and replayed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fake_cuda/support_fake.h"
#include "fake_nccl.h"
#include "support_family.h"

enum { RANKS = 4 };

static const struct ranks_options on_gpus = {.device = ZCTA_DEVICE_CUDA};
static fake_nccl_be_fn *be;
static fake_nccl_story_fn *story;
static fake_nccl_begin_fn *begin;

static int load_fakes(void **state)
{
    void *library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);

    (void)state;
    assert_non_null(library);
    find_fake(library, "fake_nccl_be", &be);
    find_fake(library, "fake_nccl_story", &story);
    find_fake(library, "fake_nccl_begin", &begin);
    open_fake();
    return 0;
}

/* A rank's call and its place on its GPU. */
struct bench {
    struct seat seat;
    struct family_call call;
};

static void open_bench(struct bench *b, zcta_context *context)
{
    b->seat = take_seat(context, FAMILY_ROOM);
    b->call = (struct family_call){.ranks = b->seat.count,
                                   .rank = b->seat.rank,
                                   .window = zcta_window_base(b->seat.recv),
                                   .input = zcta_window_base(b->seat.send)};
}

static void run_round(struct bench *b, uint32_t round, zc_cu_graph_exec exec)
{
    memset(b->call.window, 0xee, FAMILY_ROOM);
    family_fill(&b->call, round);
    EXPECT_OK(b->seat.context, zcta_barrier(b->seat.world, b->seat.stream));
    if (exec != NULL)
        replay(&b->seat, exec);
    else
        EXPECT_OK(b->seat.context, zcta_run(b->seat.world, &b->call.call, b->seat.stream));
    EXPECT_OK(b->seat.context, zcta_barrier(b->seat.world, b->seat.stream));
    synchronize(&b->seat);
    family_expect(&b->call, round);
}

static zc_cu_graph_exec capture(const struct bench *b)
{
    begin_capture(&b->seat);
    EXPECT_OK(b->seat.context, zcta_run(b->seat.world, &b->call.call, b->seat.stream));
    return end_capture(&b->seat);
}

/* The policy is the call's; NCCL is what runs it. */
static void make_call(struct bench *b, int id, uint32_t number, const zcta_policy *policy)
{
    family_make(&b->call, (zcta_collective)id, 1 + number * 700,
                (enum family_shape)(number % FAMILY_SHAPES), number);
    b->call.call.engine = ZCTA_ENGINE_NCCL;
    b->call.call.policy = *policy;
}

static void run_one(struct bench *b, int id, const zcta_policy *policy)
{
    uint32_t ran = 0;
    char path[64];

    for (uint32_t number = 0; number < RANKS; number++) {
        make_call(b, id, number, policy);
        run_round(b, ran++, NULL);
        if (family_put_in_place(&b->call))
            run_round(b, ran++, NULL);
    }
    snprintf(path, sizeof path, "%s/nccl/kernels", b->call.info.name);
    EXPECT(*policy != ZCTA_POLICY_DEFAULT || path_calls(b->seat.world, path, NULL) == ran);
}

static void run_all(zcta_context *context, void *data)
{
    struct bench b;
    uint32_t traits;

    open_bench(&b, context);
    FOR_EACH_COLLECTIVE(id, traits)
    run_one(&b, id, data);
    leave_seat(&b.seat);
}

static void with_version(int version, rank_fn *function, zcta_policy policy)
{
    be(version);
    begin();
    run_as_threads_with(RANKS, &on_gpus, function, &policy);
}

static void every_collective_moves_the_right_bytes(void **state)
{
    static const char *const own[] = {"alltoall:sm", "gather-to-one:sm", "scatter:sm"};

    (void)state;
    with_version(22803, run_all, ZCTA_POLICY_EFFICIENCY);
    with_version(22803, run_all, ZCTA_POLICY_DEFAULT);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        assert_non_null(strstr(story(0), own[i]));
    assert_non_null(strstr(story(0), "broadcast:sm"));
    /* Before 2.28 NCCL has no call for these. */
    with_version(22707, run_all, ZCTA_POLICY_DEFAULT);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        assert_null(strstr(story(0), own[i]));
    assert_non_null(strstr(story(0), "broadcast:sm"));
    assert_non_null(strstr(story(0), "group:"));
}

static void capture_all(zcta_context *context, void *data)
{
    struct bench b;
    uint32_t traits;

    open_bench(&b, context);
    FOR_EACH_COLLECTIVE(id, traits)
    {
        zc_cu_graph_exec exec;

        make_call(&b, id, 1, data);
        run_round(&b, 0, NULL);
        exec = capture(&b);
        for (uint32_t round = 1; round < 4; round++)
            run_round(&b, round, exec);
        driver.cuGraphExecDestroy(exec);
    }
    leave_seat(&b.seat);
}

static void every_collective_can_be_replayed(void **state)
{
    (void)state;
    with_version(22803, capture_all, ZCTA_POLICY_DEFAULT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_collective_moves_the_right_bytes),
        cmocka_unit_test(every_collective_can_be_replayed),
    };

    return cmocka_run_group_tests(tests, load_fakes, NULL);
}
