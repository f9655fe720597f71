/* Every way to ask for an allgather: number of ranks x policy x size around each threshold x in
 * place or not x eager, planned, or planned and released. What the selector asks for with the
 * capabilities of a real device makes plans that the verifier accepts, and what is run on the
 * fake driver gathers the right bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "api/objects.h"
#include "device/cuda/cuda_device.h"
#include "support_fake.h"
#include "support_plans.h"

static int load_fake(void **state)
{
    (void)state;
    open_fake();
    return 0;
}

/* ---- Selected and prepared, all ranks in one thread ---- */

enum { RANKS_MOST = 9 };

struct sizes {
    uint64_t bytes[32];
    uint32_t count;
};

static void add(struct sizes *sizes, uint64_t bytes)
{
    for (uint32_t i = 0; i < sizes->count; i++)
        if (sizes->bytes[i] == bytes)
            return;
    assert_in_range(sizes->count, 0, sizeof sizes->bytes / sizeof *sizes->bytes - 1);
    sizes->bytes[sizes->count++] = bytes;
}

static void add_around(struct sizes *sizes, uint64_t threshold)
{
    for (uint64_t i = 0; i < 3 && threshold > 0; i++)
        add(sizes, threshold - 1 + i);
}

/* Which path the selector takes, if any, in place and under policy DEFAULT. */
static uint32_t path_at(const struct zc_device_caps *caps, uint32_t ranks, uint64_t bytes)
{
    const struct zc_layout layout = even_layout(&zc_all_gather, ranks, bytes, 0);
    const struct zc_facts facts = {
        .layout = &layout, .caps = caps, .in_place = true, .policy = ZCTA_POLICY_DEFAULT};
    zcta_report report;

    return (uint32_t)zc_select(&facts, &report).path;
}

/* The last size of the path that is taken at `below`, where another one is taken at `above`. */
static uint64_t find_turn(const struct zc_device_caps *caps, uint32_t ranks, uint64_t below,
                          uint64_t above)
{
    const uint32_t path = path_at(caps, ranks, below);

    while (above - below > 1) {
        const uint64_t middle = below + (above - below) / 2;

        if (path_at(caps, ranks, middle) == path)
            below = middle;
        else
            above = middle;
    }
    return below;
}

/* Where the selector turns to another path, whatever its table says. */
static void add_turns(struct sizes *sizes, const struct zc_device_caps *caps)
{
    const uint64_t most = UINT64_C(1) << 30;
    uint32_t turns = 0;

    for (uint32_t ranks = 1; ranks <= RANKS_MOST; ranks++)
        for (uint64_t bytes = 1; bytes < most; bytes *= 2)
            if (path_at(caps, ranks, bytes) != path_at(caps, ranks, bytes * 2)) {
                add_around(sizes, find_turn(caps, ranks, bytes, bytes * 2));
                turns++;
            }
    assert_true(turns > 0);
}

/* Every number at which a choice may turn. */
static struct sizes sizes_of(const struct zc_device_caps *caps)
{
    struct sizes sizes = {.bytes = {1, 600}, .count = 2};

    add_around(&sizes, caps->group_bytes);
    add_around(&sizes, caps->scratch_bytes);
    add_around(&sizes, caps->block_bytes);
    add_turns(&sizes, caps);
    return sizes;
}

typedef zcta_status verify_fn(const struct team_plans *calls, uint32_t call_count, char *text,
                              size_t bytes);

/* Calls in a row, as the engine runs them. */
static void expect_right(const struct zc_request *requests, uint32_t count, verify_fn *verify,
                         const char *what)
{
    struct team_plans teams[6];
    char text[256] = "";

    for (uint32_t i = 0; i < count; i++) {
        const char *defect = zc_request_defect(&requests[i]);

        if (defect != NULL)
            fail_msg("%s: %s, %u ranks, %llu bytes: %s", what, requests[i].algorithm->name,
                     requests[i].layout->ranks, (unsigned long long)requests[i].layout->bytes,
                     defect);
        make_plans(&teams[i], requests[i]);
    }
    if (verify(teams, count, text, sizeof text) != ZCTA_OK)
        fail_msg("%s: %s, %u ranks, %llu bytes: %s", what, requests[0].algorithm->name,
                 requests[0].layout->ranks, (unsigned long long)requests[0].layout->bytes, text);
    for (uint32_t i = 0; i < count; i++)
        free_plans(&teams[i]);
}

static void expect_prepared_right(struct zc_request call)
{
    const struct zc_request captured = zc_request_captured(&call);
    const struct zc_request early = zc_request_early_ready(&call);
    const struct zc_request released = zc_request_released(&call);
    struct zc_request second = call;

    second.half = zc_has(call.algorithm, ZC_ALTERNATES);
    expect_right((struct zc_request[]){call, second, call}, 3, verify_calls, "eager");
    if (!zc_has(call.algorithm, ZC_EAGER_ONLY))
        expect_right((struct zc_request[]){captured, captured, captured}, 3, verify_replayed,
                     "captured");
    if (zc_has(call.algorithm, ZC_SAYS_READY))
        expect_right((struct zc_request[]){call, early, released, early, released, call}, 6,
                     verify_calls, "released");
}

static void try_all_requests(const struct zc_device_caps *caps)
{
    const struct sizes sizes = sizes_of(caps);
    struct zc_facts facts = {.caps = caps};
    zcta_report report;
    uint32_t refused = 0, alone = 0;

    for (uint32_t ranks = 1; ranks <= RANKS_MOST; ranks++)
        for (uint32_t variant = 0; variant < sizes.count * 6; variant++) {
            const struct zc_layout layout =
                even_layout(&zc_all_gather, ranks, sizes.bytes[variant / 6], 0);
            struct zc_choice choice;

            facts.layout = &layout;
            facts.policy = (zcta_policy)(ZCTA_POLICY_DEFAULT + variant % 6 / 2);
            facts.in_place = variant % 2 == 0;
            choice = zc_select(&facts, &report);
            if (choice.found)
                expect_prepared_right(zc_select_request(&facts, choice.path, 0, facts.in_place));
            refused += !choice.found;
            alone += ranks == 1 && facts.policy == ZCTA_POLICY_ZERO && !facts.in_place;
        }
    /* Alone and out of place somebody has to copy the own share. */
    assert_int_equal(refused, caps->local_copy_needs_sm ? alone : 0);
}

static void note_caps(zcta_context *context, void *data)
{
    *(struct zc_device_caps *)data = context->caps;
}

static void what_is_selected_can_be_prepared(void **state)
{
    struct ranks_options options = {.device = ZCTA_DEVICE_HOST};
    struct zc_device_caps caps;

    (void)state;
    run_as_threads_with(1, &options, note_caps, &caps);
    try_all_requests(&caps);
    options.device = ZCTA_DEVICE_CUDA;
    run_as_threads_with(1, &options, note_caps, &caps);
    assert_true(caps.group_bytes > 0);
    try_all_requests(&caps);
}

/* ---- Run ---- */

enum way { EAGER, PLANNED, RELEASED, WAYS };

static zcta_status run_planned(const struct seat *s, const void *mine,
                               const zcta_call_params *params, bool released)
{
    zcta_plan *plan = NULL;
    zcta_status status =
        plan_all_gather(s->world, mine, zcta_window_base(s->recv), s->share, params, &plan);

    if (status == ZCTA_OK && released)
        status = zcta_release(plan, s->stream);
    if (status == ZCTA_OK)
        status = zcta_plan_run(plan, s->stream);
    if (plan != NULL)
        zcta_plan_free(&plan);
    return status;
}

static void gather_one_way(const struct seat *s, zcta_policy policy, bool in_place, enum way way,
                           uint32_t call)
{
    const zcta_call_params params = {.size = sizeof params, .policy = policy};
    const bool possible = policy != ZCTA_POLICY_ZERO || in_place || s->count > 1;
    unsigned char *recv = zcta_window_base(s->recv);
    unsigned char *mine = in_place ? recv + s->rank * s->share : zcta_window_base(s->send);
    zcta_status status;

    memset(recv, 0xee, s->share * s->count);
    model_fill(mine, call, s->rank, s->share);
    if (way == EAGER)
        status = zcta_all_gather(s->world, mine, recv, s->share, s->stream, &params);
    else
        status = run_planned(s, mine, &params, way == RELEASED);
    expect_error(s->context, status, possible ? ZCTA_OK : ZCTA_ERR_POLICY, NULL);
    synchronize(s);
    EXPECT(!possible || model_wrong(recv, call, s->count, s->share) == 0);
    /* Nobody fills its buffers before all have looked. */
    EXPECT_OK(s->context, zcta_barrier(s->world, s->stream));
    synchronize(s);
}

static void gather_every_way(zcta_context *context, void *data)
{
    struct seat s = take_seat(context, *(const size_t *)data);
    uint32_t call = 0;

    for (int policy = ZCTA_POLICY_DEFAULT; policy <= ZCTA_POLICY_ZERO; policy++)
        for (int in_place = 0; in_place < 2; in_place++)
            for (int way = 0; way < WAYS; way++)
                gather_one_way(&s, (zcta_policy)policy, in_place, (enum way)way, ++call);
    leave_seat(&s);
}

static void gather_with(uint32_t ranks, size_t share)
{
    const struct ranks_options options = {.device = ZCTA_DEVICE_CUDA};

    run_as_threads_with(ranks, &options, gather_every_way, &share);
}

static void every_way_gathers_the_right_bytes(void **state)
{
    (void)state;
    for (uint32_t ranks = 1; ranks <= 4; ranks++) {
        gather_with(ranks, 1);
        gather_with(ranks, 600);
    }
    gather_with(3, ZC_CUDA_GROUP_BYTES);
    gather_with(3, ZC_CUDA_GROUP_BYTES + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_selected_can_be_prepared),
        cmocka_unit_test(every_way_gathers_the_right_bytes),
    };

    return cmocka_run_group_tests(tests, load_fake, NULL);
}
