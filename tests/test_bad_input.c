/* Bad arguments through the public interface: each is refused with a status and a sentence, writes
 * no output, and leaves the context as good as before. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "support_ports.h"
#include "support_ranks.h"

/* Larger than any struct the library knows, as from a newer header. */
enum { NEWER = 256 };

struct buffers {
    zcta_context *context;
    zcta_team *world;
    zcta_window *window;
    char *recv;
    uint32_t rank, count;
};

static struct buffers make_buffers(zcta_context *context, size_t bytes)
{
    struct buffers b = {.context = context, .world = zcta_world(context)};

    b.rank = zcta_team_rank(b.world);
    b.count = zcta_team_rank_count(b.world);
    EXPECT_OK(context, zcta_window_alloc(b.world, bytes, &b.window));
    b.recv = zcta_window_base(b.window);
    return b;
}

/* A wrong descriptor by every way in; none of them may write its output. */
static void expect_call_refused(const struct buffers *b, const zcta_call *call, zcta_status wanted,
                                const char *text)
{
    zcta_plan *plan = NULL;
    zcta_report report, untouched;

    memset(&report, 0x5a, sizeof report);
    report.size = sizeof report;
    untouched = report;
    expect_error(b->context, zcta_run(b->world, call, NULL), wanted, text);
    expect_error(b->context, zcta_plan_make(b->world, call, &plan), wanted, text);
    EXPECT(plan == NULL);
    expect_error(b->context, zcta_explain(b->world, call, &report), wanted, text);
    /* Not a byte of it, padding included. */
    EXPECT(memcmp(&report, &untouched, /* NOLINT(bugprone-suspicious-memory-comparison) */
                  sizeof report) == 0);
    EXPECT(zcta_team_status(b->world) == ZCTA_OK);
}

/* The same wrong call with and without a descriptor. */
static void expect_refused(const struct buffers *b, const void *send, void *recv, size_t bytes,
                           const zcta_call_params *params, zcta_status wanted, const char *text)
{
    const zcta_call call = all_gather_call(send, recv, bytes, params);

    expect_error(b->context, zcta_all_gather(b->world, send, recv, bytes, NULL, params), wanted,
                 text);
    expect_call_refused(b, &call, wanted, text);
}

/* ---- NULL ---- */

static void give_null_to_context_calls(zcta_context *context, void *data)
{
    zcta_context *none = NULL;
    zcta_team *team = NULL;
    zcta_error error;
    const uint32_t rank = 0;

    (void)data;
    EXPECT(zcta_init(NULL, NULL) == ZCTA_ERR_INVALID);
    EXPECT(zcta_finalize(NULL) == ZCTA_ERR_INVALID);
    EXPECT(zcta_finalize(&none) == ZCTA_ERR_INVALID);
    EXPECT(zcta_world(NULL) == NULL);
    EXPECT(zcta_context_device(context) == ZCTA_DEVICE_HOST);
    EXPECT(zcta_context_device(NULL) == ZCTA_DEVICE_AUTO);
    EXPECT(zcta_last_error(NULL, &error) == ZCTA_OK);
    EXPECT(zcta_last_error(context, NULL) == ZCTA_ERR_INVALID);
    EXPECT(zcta_team_get(NULL, &rank, 1, NULL, &team) == ZCTA_ERR_INVALID);
    expect_error(context, zcta_team_get(context, &rank, 1, NULL, NULL), ZCTA_ERR_INVALID,
                 "team is NULL");
    EXPECT(team == NULL);
}

static void give_null_to_team_calls(zcta_context *context, void *data)
{
    zcta_team *none = NULL;
    zcta_path_counter counter = {.size = sizeof counter};
    zcta_error error;
    uint32_t count = 1;

    (void)data;
    EXPECT(zcta_team_split(NULL, 0, 0, NULL, &none) == ZCTA_ERR_INVALID);
    expect_error(context, zcta_team_split(zcta_world(context), 0, 0, NULL, NULL), ZCTA_ERR_INVALID,
                 "part is NULL");
    EXPECT(zcta_team_destroy(NULL) == ZCTA_ERR_INVALID);
    EXPECT(zcta_team_destroy(&none) == ZCTA_ERR_INVALID);
    EXPECT(zcta_team_rank(NULL) == ZCTA_NO_RANK);
    EXPECT(zcta_team_rank_count(NULL) == 0);
    EXPECT(zcta_team_world_rank(NULL, 0) == ZCTA_NO_RANK);
    EXPECT(zcta_team_world_rank(zcta_world(context), UINT32_MAX) == ZCTA_NO_RANK);
    EXPECT(zcta_team_policy(NULL) == ZCTA_POLICY_UNSET);
    EXPECT(zcta_team_engine(NULL) == ZCTA_ENGINE_AUTO);
    EXPECT(zcta_team_status(NULL) == ZCTA_ERR_INVALID);
    EXPECT(zcta_team_failure(NULL, &error) == ZCTA_ERR_INVALID);
    EXPECT(zcta_team_failure(zcta_world(context), NULL) == ZCTA_ERR_INVALID);
    EXPECT(zcta_team_failure(zcta_world(context), &error) == ZCTA_OK && error.status == ZCTA_OK);
    EXPECT(zcta_team_counters(NULL, &counter, &count) == ZCTA_ERR_INVALID && count == 1);
    expect_error(context, zcta_team_counters(zcta_world(context), &counter, NULL), ZCTA_ERR_INVALID,
                 "count is NULL");
}

static void give_null_to_window_calls(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context);
    struct buffers b = make_buffers(context, 100);
    zcta_window *none = NULL;
    const void *view = NULL;
    size_t stride = 1;
    static char own[8];

    (void)data;
    EXPECT(zcta_window_alloc(NULL, 8, &none) == ZCTA_ERR_INVALID);
    expect_error(context, zcta_window_alloc(world, 8, NULL), ZCTA_ERR_INVALID, "window is NULL");
    EXPECT(zcta_window_register(NULL, own, 8, &none) == ZCTA_ERR_INVALID);
    expect_error(context, zcta_window_register(world, own, 8, NULL), ZCTA_ERR_INVALID, "is NULL");
    expect_error(context, zcta_window_register(world, NULL, 8, &none), ZCTA_ERR_INVALID, "is NULL");
    expect_error(context, zcta_window_register(world, own, SIZE_MAX, &none), ZCTA_ERR_INVALID,
                 "wraps around");
    expect_error(context, zcta_window_register(world, own, 0, &none), ZCTA_ERR_INVALID, "0 bytes");
    EXPECT(zcta_window_free(NULL) == ZCTA_ERR_INVALID);
    EXPECT(zcta_window_free(&none) == ZCTA_ERR_INVALID);
    EXPECT(zcta_window_base(NULL) == NULL && zcta_window_bytes(NULL) == 0);
    EXPECT(zcta_window_peer(NULL, 0) == NULL);
    EXPECT(zcta_window_peer(b.window, b.count) == NULL);
    EXPECT(zcta_window_peer(b.window, UINT32_MAX) == NULL);
    EXPECT(zcta_window_view(NULL, &view, &stride) == ZCTA_ERR_INVALID);
    expect_error(context, zcta_window_view(b.window, NULL, &stride), ZCTA_ERR_INVALID, "is NULL");
    expect_error(context, zcta_window_view(b.window, &view, NULL), ZCTA_ERR_INVALID, "is NULL");
    EXPECT(none == NULL && view == NULL && stride == 1);
}

static void give_null_to_collectives(zcta_context *context, void *data)
{
    struct buffers b = make_buffers(context, 100);
    zcta_plan *plan = NULL;
    zcta_report report = {.size = sizeof report};
    char send[8] = {0};
    const zcta_call call = all_gather_call(send, b.recv, 8, NULL);

    (void)data;
    expect_refused(&b, NULL, b.recv, 8, NULL, ZCTA_ERR_INVALID, "is NULL");
    expect_refused(&b, send, NULL, 8, NULL, ZCTA_ERR_INVALID, "is NULL");
    EXPECT(zcta_all_gather(NULL, send, b.recv, 8, NULL, NULL) == ZCTA_ERR_INVALID);
    EXPECT(zcta_barrier(NULL, NULL) == ZCTA_ERR_INVALID);
    EXPECT(zcta_run(NULL, &call, NULL) == ZCTA_ERR_INVALID);
    expect_error(context, zcta_run(b.world, NULL, NULL), ZCTA_ERR_INVALID, "call is NULL");
    EXPECT(plan_all_gather(NULL, send, b.recv, 8, NULL, &plan) == ZCTA_ERR_INVALID);
    expect_error(context, zcta_plan_make(b.world, NULL, &plan), ZCTA_ERR_INVALID, "call is NULL");
    expect_error(context, plan_all_gather(b.world, send, b.recv, 8, NULL, NULL), ZCTA_ERR_INVALID,
                 "plan is NULL");
    EXPECT(zcta_plan_run(NULL, NULL) == ZCTA_ERR_INVALID);
    EXPECT(zcta_plan_free(NULL) == ZCTA_ERR_INVALID && zcta_plan_free(&plan) == ZCTA_ERR_INVALID);
    EXPECT(explain_all_gather(NULL, send, b.recv, 8, NULL, &report) == ZCTA_ERR_INVALID);
    expect_error(context, explain_all_gather(b.world, send, b.recv, 8, NULL, NULL),
                 ZCTA_ERR_INVALID, "report is NULL");
    expect_error(context, zcta_explain(b.world, NULL, &report), ZCTA_ERR_INVALID, "call is NULL");
}

static void do_nothing(void *data)
{
    (void)data;
}

static void give_null_to_streams(zcta_context *context, void *data)
{
    zcta_host_stream *stream = NULL;

    (void)data;
    EXPECT(zcta_host_stream_create(NULL, &stream) == ZCTA_ERR_INVALID && stream == NULL);
    expect_error(context, zcta_host_stream_create(context, NULL), ZCTA_ERR_INVALID,
                 "stream is NULL");
    EXPECT(zcta_host_stream_call(NULL, do_nothing, NULL) == ZCTA_ERR_INVALID);
    EXPECT(zcta_host_stream_synchronize(NULL) == ZCTA_ERR_INVALID);
    EXPECT(zcta_host_stream_destroy(NULL) == ZCTA_ERR_INVALID);
    EXPECT(zcta_host_stream_destroy(&stream) == ZCTA_ERR_INVALID);
    EXPECT_OK(context, zcta_host_stream_create(context, &stream));
    EXPECT(zcta_host_stream_call(stream, NULL, NULL) == ZCTA_ERR_INVALID);
    EXPECT_OK(context, zcta_host_stream_destroy(&stream));
    EXPECT(stream == NULL);
}

static void null_is_refused_by_every_call(void **state)
{
    (void)state;
    run_as_threads(2, give_null_to_context_calls, NULL);
    run_as_threads(2, give_null_to_team_calls, NULL);
    run_as_threads(2, give_null_to_window_calls, NULL);
    run_as_threads(2, give_null_to_collectives, NULL);
    run_as_threads(2, give_null_to_streams, NULL);
}

/* ---- Parameter structs ---- */

/* A parameter struct in memory of a newer one's size; `size` is what it says of itself. */
union newer {
    size_t size;
    zcta_init_params init;
    zcta_team_params team;
    zcta_call_params call;
    zcta_call descriptor;
    unsigned char bytes[NEWER];
};

static zcta_status init_with(const union newer *params)
{
    zcta_context *context = NULL;
    const zcta_status status = zcta_init(&params->init, &context);

    EXPECT((status == ZCTA_OK) == (context != NULL));
    if (context != NULL)
        EXPECT(zcta_finalize(&context) == ZCTA_OK);
    return status;
}

static void init_reads_only_what_the_struct_says_it_has(void **state)
{
    union newer params = {.init = {.rank_count = 1}};
    zcta_error error = {0};

    (void)state;
    assert_int_equal(init_with(&params), ZCTA_ERR_INVALID);
    params.size = sizeof(size_t) - 1;
    assert_int_equal(init_with(&params), ZCTA_ERR_INVALID);
    params.size = sizeof(size_t);
    assert_int_equal(init_with(&params), ZCTA_OK);
    /* What lies beyond the size does not count. */
    params.init.rank = 99;
    assert_int_equal(init_with(&params), ZCTA_OK);
    params.init.rank = 0;
    params.size = NEWER;
    assert_int_equal(init_with(&params), ZCTA_OK);
    params.bytes[NEWER - 1] = 1;
    assert_int_equal(init_with(&params), ZCTA_ERR_INVALID);
    params.init.error = &error;
    assert_int_equal(init_with(&params), ZCTA_ERR_INVALID);
    assert_int_equal(error.status, ZCTA_ERR_INVALID);
    assert_non_null(strstr(error.message, "byte 255"));
    params.size = SIZE_MAX;
    assert_int_equal(init_with(&params), ZCTA_ERR_INVALID);
}

static void size_team_params(zcta_context *context, void *data)
{
    static const uint32_t ranks[] = {0, 1};
    union newer params = {.team = {.size = 0, .policy = ZCTA_POLICY_ZERO}};
    zcta_team *team = NULL, *same = NULL;

    (void)data;
    expect_error(context, zcta_team_get(context, ranks, 2, &params.team, &team), ZCTA_ERR_INVALID,
                 "size field is 0");
    params.size = 5000;
    expect_error(context, zcta_team_get(context, ranks, 2, &params.team, &team), ZCTA_ERR_INVALID,
                 "size field is 5000");
    params.size = NEWER;
    params.bytes[100] = 1;
    expect_error(context, zcta_team_get(context, ranks, 2, &params.team, &team), ZCTA_ERR_INVALID,
                 "byte 100");
    EXPECT(team == NULL);
    params.bytes[100] = 0;
    EXPECT_OK(context, zcta_team_get(context, ranks, 2, &params.team, &team));
    EXPECT(zcta_team_policy(team) == ZCTA_POLICY_ZERO);
    /* An older struct, from before there was anything but its size. */
    params.size = sizeof(size_t);
    EXPECT_OK(context, zcta_team_get(context, ranks, 2, &params.team, &same));
    EXPECT(zcta_team_policy(same) == ZCTA_POLICY_DEFAULT && same != team);
}

static void choose_unknown_team_values(zcta_context *context, void *data)
{
    static const uint32_t ranks[] = {0, 1};
    static const int unknown[] = {4, -1, INT32_MAX, INT32_MIN, 256};
    zcta_team *team = NULL;

    (void)data;
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        zcta_team_params params = {.size = sizeof params};

        memcpy(&params.policy, &unknown[i], sizeof unknown[i]);
        expect_error(context, zcta_team_get(context, ranks, 2, &params, &team), ZCTA_ERR_INVALID,
                     "does not exist");
        params.policy = ZCTA_POLICY_UNSET;
        memcpy(&params.engine, &unknown[i], sizeof unknown[i]);
        expect_error(context, zcta_team_get(context, ranks, 2, &params, &team), ZCTA_ERR_INVALID,
                     "does not exist");
    }
    EXPECT(team == NULL);
}

static void team_params_are_checked(void **state)
{
    (void)state;
    run_as_threads(2, size_team_params, NULL);
    run_as_threads(2, choose_unknown_team_values, NULL);
}

static void check_call_params(zcta_context *context, void *data)
{
    struct buffers b = make_buffers(context, 100);
    union newer params = {.call = {.size = 0}};
    char send[8] = {0};
    static const int unknown[] = {4, -1, INT32_MAX, INT32_MIN};

    (void)data;
    expect_error(context, zcta_all_gather(b.world, send, b.recv, 8, NULL, &params.call),
                 ZCTA_ERR_INVALID, "size field is 0");
    params.size = NEWER;
    params.bytes[NEWER - 1] = 7;
    expect_error(context, zcta_all_gather(b.world, send, b.recv, 8, NULL, &params.call),
                 ZCTA_ERR_INVALID, "byte 255");
    /* Also a call that does nothing has its arguments checked. */
    expect_error(context, zcta_all_gather(b.world, send, b.recv, 0, NULL, &params.call),
                 ZCTA_ERR_INVALID, "byte 255");
    params.bytes[NEWER - 1] = 0;
    EXPECT_OK(context, zcta_all_gather(b.world, send, b.recv, 8, NULL, &params.call));
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        zcta_call_params bad = {.size = sizeof bad};

        memcpy(&bad.policy, &unknown[i], sizeof unknown[i]);
        expect_refused(&b, send, b.recv, 8, &bad, ZCTA_ERR_INVALID, "does not exist");
        bad.policy = ZCTA_POLICY_UNSET;
        memcpy(&bad.engine, &unknown[i], sizeof unknown[i]);
        expect_refused(&b, send, b.recv, 8, &bad, ZCTA_ERR_INVALID, "does not exist");
    }
}

static void check_descriptors(zcta_context *context, void *data)
{
    struct buffers b = make_buffers(context, 100);
    union newer given = {.bytes = {0}};
    char send[8] = {0};
    static const int unknown[] = {0, ZCTA_BARRIER + 1, -1, INT32_MAX, INT32_MIN};

    (void)data;
    given.descriptor = all_gather_call(send, b.recv, 8, NULL);
    given.size = 0;
    expect_call_refused(&b, &given.descriptor, ZCTA_ERR_INVALID, "size field is 0");
    given.size = NEWER;
    given.bytes[NEWER - 1] = 7;
    expect_call_refused(&b, &given.descriptor, ZCTA_ERR_INVALID, "byte 255");
    /* Also a call that does nothing has its arguments checked. */
    given.descriptor.bytes = 0;
    expect_call_refused(&b, &given.descriptor, ZCTA_ERR_INVALID, "byte 255");
    given.bytes[NEWER - 1] = 0;
    given.descriptor.bytes = 8;
    EXPECT_OK(context, zcta_run(b.world, &given.descriptor, NULL));
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        memcpy(&given.descriptor.collective, &unknown[i], sizeof unknown[i]);
        expect_call_refused(&b, &given.descriptor, ZCTA_ERR_INVALID, "does not exist");
    }
}

static void call_params_are_checked(void **state)
{
    (void)state;
    run_as_threads(2, check_call_params, NULL);
    run_as_threads(2, check_descriptors, NULL);
}

/* ---- Buffers ---- */

static void place_buffers_wrongly(zcta_context *context, void *data)
{
    struct buffers b = make_buffers(context, 1000);
    zcta_window *window = NULL;
    char outside[3000] = {0}, *other;

    (void)data;
    EXPECT_OK(context, zcta_window_alloc(b.world, 50, &window));
    other = zcta_window_base(window);
    expect_refused(&b, outside, outside + 1000, 8, NULL, ZCTA_ERR_NOT_IN_WINDOW, "recv, 0x");
    expect_refused(&b, outside, outside + 1000, 8, NULL, ZCTA_ERR_NOT_IN_WINDOW,
                   "lies in no window");
    expect_refused(&b, outside, b.recv, 334, NULL, ZCTA_ERR_NOT_IN_WINDOW, "reaches past the end");
    expect_refused(&b, outside, b.recv + 2, 333, NULL, ZCTA_ERR_NOT_IN_WINDOW,
                   "reaches past the end");
    expect_refused(&b, other + 45, b.recv, 6, NULL, ZCTA_ERR_NOT_IN_WINDOW, "send, 0x");
    expect_refused(&b, other + 45, b.recv, 6, NULL, ZCTA_ERR_NOT_IN_WINDOW, "reaches past the end");
    EXPECT_OK(context, zcta_all_gather(b.world, other + 44, b.recv, 6, NULL, NULL));
    EXPECT_OK(context, zcta_all_gather(b.world, outside, b.recv + 1, 333, NULL, NULL));
}

static void buffers_outside_their_windows_are_refused(void **state)
{
    (void)state;
    run_as_threads(3, place_buffers_wrongly, NULL);
}

static void overlap_buffers(zcta_context *context, void *data)
{
    struct buffers b = make_buffers(context, 1000);
    char *const own = b.recv + b.rank * 100;

    (void)data;
    expect_refused(&b, own + 1, b.recv, 100, NULL, ZCTA_ERR_INVALID, "overlap");
    if (b.rank > 0)
        expect_refused(&b, own - 1, b.recv, 100, NULL, ZCTA_ERR_INVALID, "overlap");
    expect_refused(&b, b.recv + 299, b.recv, 100, NULL, ZCTA_ERR_INVALID, "overlap");
    expect_refused(&b, b.recv, b.recv + 99, 100, NULL, ZCTA_ERR_INVALID, "overlap");
    expect_refused(&b, b.recv + (b.rank + 1) % 3 * 100, b.recv, 100, NULL, ZCTA_ERR_INVALID,
                   "overlap");
    /* Neighbours on either side, and in place. */
    EXPECT_OK(context, zcta_all_gather(b.world, b.recv + 300, b.recv, 100, NULL, NULL));
    EXPECT_OK(context, zcta_all_gather(b.world, b.recv, b.recv + 100, 100, NULL, NULL));
    EXPECT_OK(context, zcta_all_gather(b.world, own, b.recv, 100, NULL, NULL));
}

static void send_and_recv_may_not_overlap_but_in_place(void **state)
{
    (void)state;
    run_as_threads(3, overlap_buffers, NULL);
}

static void gather_huge_sizes(zcta_context *context, void *data)
{
    static const size_t huge[] = {SIZE_MAX,         SIZE_MAX - 1,     SIZE_MAX - 4095,
                                  SIZE_MAX / 2,     SIZE_MAX / 2 + 1, SIZE_MAX / 3,
                                  SIZE_MAX / 3 + 1, INT64_MAX / 3 + 1};
    static char send[8];
    struct buffers b = make_buffers(context, 1000);

    (void)data;
    for (size_t i = 0; i < sizeof huge / sizeof *huge; i++) {
        expect_refused(&b, send, b.recv, huge[i], NULL, ZCTA_ERR_INVALID, "63 bits");
        expect_refused(&b, b.recv, b.recv, huge[i], NULL, ZCTA_ERR_INVALID, "63 bits");
    }
    expect_refused(&b, (char *)UINTPTR_MAX, b.recv, 8, NULL, ZCTA_ERR_INVALID, "wraps around");
    expect_refused(&b, send, (char *)UINTPTR_MAX - 8, 8, NULL, ZCTA_ERR_INVALID, "wraps around");
    expect_refused(&b, send, b.recv, (size_t)1 << 40, NULL, ZCTA_ERR_NOT_IN_WINDOW,
                   "reaches past the end");
}

static void sizes_near_the_largest_do_not_wrap(void **state)
{
    (void)state;
    run_as_threads(3, gather_huge_sizes, NULL);
}

static void explain_nothing(zcta_context *context, void *data)
{
    zcta_report report;

    (void)data;
    EXPECT_OK(context, explain_all_gather(zcta_world(context), NULL, NULL, 0, NULL, &report));
    EXPECT(report.path_count > 0 && report.path_count <= ZCTA_REPORT_PATHS);
    for (uint32_t i = 0; i < report.path_count; i++)
        EXPECT(report.paths[i].reason[0] != '\0' && report.paths[i].path[0] != '\0');
}

static void explain_gives_every_path_a_reason(void **state)
{
    (void)state;
    run_as_threads(2, explain_nothing, NULL);
}

static void count_into_short_arrays(zcta_context *context, void *data)
{
    struct buffers b = make_buffers(context, 100);
    zcta_path_counter counters[2];
    uint32_t all = 0, count = 1;

    (void)data;
    EXPECT_OK(context, zcta_team_counters(b.world, NULL, &all));
    EXPECT(all == 0);
    EXPECT_OK(context, zcta_all_gather(b.world, b.recv, b.recv, 100, NULL, NULL));
    EXPECT_OK(context, zcta_barrier(b.world, NULL));
    EXPECT_OK(context, zcta_team_counters(b.world, NULL, &all));
    EXPECT(all == 2);
    memset(counters, 0x5a, sizeof counters);
    counters[0].size = counters[1].size = sizeof counters[0];
    EXPECT_OK(context, zcta_team_counters(b.world, counters, &count));
    EXPECT(count == all);
    EXPECT(counters[0].path[0] != 0x5a && counters[1].path[0] == 0x5a);
    count = 0;
    EXPECT_OK(context, zcta_team_counters(b.world, counters, &count));
    EXPECT(count == all && counters[1].path[0] == 0x5a);
    counters[0].size = 3;
    expect_error(context, zcta_team_counters(b.world, counters, &count), ZCTA_ERR_INVALID,
                 "size field is 3");
}

static void counters_are_written_only_as_far_as_there_is_room(void **state)
{
    (void)state;
    run_as_threads(1, count_into_short_arrays, NULL);
}

/* ---- One rank ---- */

static void gather_alone(zcta_context *context, void *data)
{
    struct buffers b = make_buffers(context, 200000);
    static const size_t sizes[] = {1, 1024, 1025, 200000};
    unsigned char *send = malloc(200000);

    (void)data;
    EXPECT(send != NULL && b.count == 1 && b.rank == 0);
    for (uint32_t i = 0; i < 4; i++) {
        model_fill(send, i, 0, sizes[i]);
        EXPECT_OK(context, zcta_all_gather(b.world, send, b.recv, sizes[i], NULL, NULL));
        EXPECT(model_wrong((unsigned char *)b.recv, i, 1, sizes[i]) == 0);
        gather_checked(context, b.world, b.recv, sizes[i], i + 10);
    }
    free(send);
}

static void one_rank_alone_copies(void **state)
{
    (void)state;
    run_as_threads(1, gather_alone, NULL);
}

/* ---- Init and finalize ---- */

static zcta_status init_failing(zcta_init_params params, zcta_error *error)
{
    zcta_context *untouched = (zcta_context *)error, *context = untouched;
    zcta_status status;

    memset(error, 0, sizeof *error);
    params.size = sizeof params;
    params.error = error;
    status = zcta_init(&params, &context);
    EXPECT(context == untouched);
    EXPECT(error->status == status);
    EXPECT(error->call[0] != '\0');
    EXPECT(strlen(error->message) > 10);
    return status;
}

static void init_says_what_is_wrong_with_its_parameters(void **state)
{
    zcta_error error;

    (void)state;
    assert_int_equal(init_failing((zcta_init_params){.rank = 1, .rank_count = 1}, &error),
                     ZCTA_ERR_INVALID);
    assert_int_equal(init_failing((zcta_init_params){.rank_count = 2}, &error), ZCTA_ERR_INVALID);
    assert_int_equal(init_failing((zcta_init_params){.rank_count = UINT32_MAX}, &error),
                     ZCTA_ERR_INVALID);
    assert_int_equal(init_failing((zcta_init_params){.rank = 1}, &error), ZCTA_ERR_INVALID);
    assert_int_equal(
        init_failing((zcta_init_params){.rank_count = 1, .device = (zcta_device)77}, &error),
        ZCTA_ERR_INVALID);
    setenv("CUDA_VISIBLE_DEVICES", "-1", 1); /* also where there are GPUs */
    assert_int_equal(init_failing((zcta_init_params){.rank_count = 2, .root = "nowhere"}, &error),
                     ZCTA_ERR_INVALID);
}

/* Two ranks that meet through the caller's exchange. */
struct pair {
    pthread_barrier_t barrier;
    unsigned char bytes[2][256];
};

struct half {
    struct pair *pair;
    uint32_t rank;
    zcta_device device;
    zcta_error error;
};

static int exchange_halves(void *data, const void *mine, void *all, size_t bytes)
{
    struct half *self = data;

    EXPECT(bytes <= sizeof self->pair->bytes[0]);
    memcpy(self->pair->bytes[self->rank], mine, bytes);
    pthread_barrier_wait(&self->pair->barrier);
    for (size_t i = 0; i < 2; i++)
        memcpy((char *)all + i * bytes, self->pair->bytes[i], bytes);
    return 0;
}

static void *init_half(void *data)
{
    struct half *self = data;

    (void)init_failing((zcta_init_params){.rank = self->rank,
                                          .rank_count = 2,
                                          .device = self->device,
                                          .timeout_ns = UINT64_C(20000000000),
                                          .exchange = exchange_halves,
                                          .exchange_data = self},
                       &self->error);
    return NULL;
}

static void the_others_hear_of_a_rank_that_cannot_join(void **state)
{
    struct pair pair = {0};
    struct half halves[] = {{.pair = &pair, .rank = 0, .device = ZCTA_DEVICE_HOST},
                            {.pair = &pair, .rank = 1, .device = (zcta_device)77}};
    pthread_t thread;

    (void)state;
    assert_int_equal(pthread_barrier_init(&pair.barrier, NULL, 2), 0);
    assert_int_equal(pthread_create(&thread, NULL, init_half, &halves[1]), 0);
    init_half(&halves[0]);
    assert_int_equal(pthread_join(thread, NULL), 0);
    pthread_barrier_destroy(&pair.barrier);
    assert_int_equal(halves[1].error.status, ZCTA_ERR_INVALID);
    assert_int_equal(halves[0].error.status, ZCTA_ERR_RENDEZVOUS);
    assert_int_equal(halves[0].error.rank, 1);
    assert_non_null(strstr(halves[0].error.message, "rank 1: it cannot join"));
}

static int count_exchange(void *data, const void *mine, void *all, size_t bytes)
{
    (void)mine, (void)all, (void)bytes;
    ++*(int *)data;
    return 1;
}

/* Whatever is wrong with this rank's parameters, the others are in the exchange. */
static void a_rank_whose_parameters_are_refused_still_takes_part_in_the_exchange(void **state)
{
    struct {
        zcta_init_params params;
        uint64_t newer;
    } given;
    static const struct {
        const char *what;
        uint64_t newer;
        size_t size;
        zcta_init_params params;
        const char *environment;
        int calls;
    } cases[] = {
        {"a field of a newer header", 1, sizeof given, {.rank_count = 2}, NULL, 1},
        {"a size that cuts a field", 0, sizeof(zcta_init_params) - 4, {.rank_count = 2}, NULL, 1},
        {"a size that is none", 0, 1u << 20, {.rank_count = 2}, NULL, 0},
        {"a device that is none", 0, 0, {.rank_count = 2, .device = (zcta_device)77}, NULL, 1},
        {"a rank that is none", 0, 0, {.rank_count = 2, .rank = 2}, NULL, 1},
        {"an empty token", 0, 0, {.rank_count = 2, .token = ""}, NULL, 1},
        {"a time that is none", 0, 0, {.rank_count = 2}, "ZEROCTA_TIMEOUT", 1},
        {"a node that is none", 0, 0, {.rank_count = 2}, "ZEROCTA_NODE", 1},
        {"one rank", 1, sizeof given, {.rank_count = 1}, NULL, 0},
    };
    zcta_context *context = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int calls = 0;

        memset(&given, 0, sizeof given);
        given.params = cases[i].params;
        given.params.size = cases[i].size != 0 ? cases[i].size : sizeof given.params;
        given.params.exchange = count_exchange;
        given.params.exchange_data = &calls;
        given.newer = cases[i].newer;
        if (cases[i].environment != NULL)
            setenv(cases[i].environment, "nothing", 1);
        assert_int_not_equal(zcta_init(&given.params, &context), ZCTA_OK);
        if (cases[i].environment != NULL)
            unsetenv(cases[i].environment);
        if (calls != cases[i].calls)
            fail_msg("%s: %d calls", cases[i].what, calls);
    }
    memset(&given, 0, sizeof given);
    given.params = (zcta_init_params){.size = sizeof given.params, .rank_count = 2};
    int calls = 0;
    given.params.exchange = count_exchange;
    given.params.exchange_data = &calls;
    assert_int_equal(zcta_init(&given.params, NULL), ZCTA_ERR_INVALID);
    assert_int_equal(calls, 1);
}

/* The same where the ranks meet at a root: each rank in turn cannot join, and all others have its
 * sentence. */
struct member {
    const char *root;
    uint32_t rank, refused;
    zcta_error error;
};

static void *init_member(void *data)
{
    struct member *self = data;

    (void)init_failing((zcta_init_params){.rank = self->rank,
                                          .rank_count = 3,
                                          .root = self->root,
                                          .token = "secret",
                                          .device = self->rank == self->refused ? (zcta_device)77
                                                                                : ZCTA_DEVICE_HOST,
                                          .timeout_ns = UINT64_C(60000000000)},
                       &self->error);
    return NULL;
}

static void the_others_at_a_root_hear_why_a_rank_cannot_join(void **state)
{
    (void)state;
    for (uint32_t refused = 1; refused < 3; refused++) {
        struct member members[3];
        pthread_t threads[3];
        char root[32];
        uint64_t begin = now_ns();

        snprintf(root, sizeof root, "127.0.0.1:%u", free_port());
        for (uint32_t i = 0; i < 3; i++) {
            members[i] = (struct member){.root = root, .rank = i, .refused = refused};
            assert_int_equal(pthread_create(&threads[i], NULL, init_member, &members[i]), 0);
        }
        for (uint32_t i = 0; i < 3; i++)
            pthread_join(threads[i], NULL);
        assert_true(now_ns() - begin < UINT64_C(30000000000));
        for (uint32_t i = 0; i < 3; i++) {
            assert_int_equal(members[i].error.status, ZCTA_ERR_INVALID);
            assert_int_equal(members[i].error.rank, refused);
            assert_non_null(strstr(members[i].error.message, "device 77 does not exist"));
        }
    }
}

static void a_machine_without_gpus_says_so(void **state)
{
    const zcta_init_params params = {
        .size = sizeof params, .rank_count = 1, .device = ZCTA_DEVICE_CUDA};
    zcta_context *context = NULL;
    zcta_error error;

    (void)state;
    if (zcta_init(&params, &context) == ZCTA_OK) {
        assert_int_equal(zcta_finalize(&context), ZCTA_OK);
        skip();
    }
    assert_int_equal(init_failing(params, &error), ZCTA_ERR_UNSUPPORTED);
}

static void a_timeout_that_is_none_is_refused(void **state)
{
    static const char *const bad[] = {"",    "soon", "-1",   "0",      "1s",
                                      "nan", "inf",  "1e99", "100000", "0x"};
    static const char *const good[] = {"1", "0.5", "86400"};
    zcta_init_params params = {.size = sizeof params, .rank_count = 1};
    zcta_context *context = NULL;
    zcta_error error;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        setenv("ZEROCTA_TIMEOUT", bad[i], 1);
        assert_int_equal(init_failing(params, &error), ZCTA_ERR_ENVIRONMENT);
        assert_non_null(strstr(error.message, "ZEROCTA_TIMEOUT"));
    }
    /* A timeout that was given needs no variable. */
    params.timeout_ns = 1000000000;
    assert_int_equal(zcta_init(&params, &context), ZCTA_OK);
    assert_int_equal(zcta_finalize(&context), ZCTA_OK);
    params.timeout_ns = 0;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        setenv("ZEROCTA_TIMEOUT", good[i], 1);
        assert_int_equal(zcta_init(&params, &context), ZCTA_OK);
        assert_int_equal(zcta_finalize(&context), ZCTA_OK);
    }
    unsetenv("ZEROCTA_TIMEOUT");
}

static void a_second_finalize_is_refused(void **state)
{
    zcta_context *context = NULL;

    (void)state;
    assert_int_equal(zcta_init(NULL, &context), ZCTA_OK);
    assert_int_equal(zcta_finalize(&context), ZCTA_OK);
    assert_null(context);
    assert_int_equal(zcta_finalize(&context), ZCTA_ERR_INVALID);
}

/* ---- Errors ---- */

static void read_errors(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context), *team = NULL;
    const uint32_t self = zcta_team_rank(world), unknown = 7;
    zcta_window *window = NULL;
    zcta_error error;

    (void)data;
    memset(&error, 0x5a, sizeof error);
    EXPECT_OK(context, zcta_last_error(context, &error));
    EXPECT(error.status == ZCTA_OK);
    EXPECT(zcta_team_get(context, &unknown, 1, NULL, &team) == ZCTA_ERR_INVALID);
    EXPECT_OK(context, zcta_last_error(context, &error));
    EXPECT(error.status == ZCTA_ERR_INVALID && error.rank == self && error.native == 0);
    EXPECT(strcmp(error.call, "zcta_team_get") == 0);
    EXPECT(strstr(error.message, "rank 7 is unknown") != NULL);
    /* The most recent one stays, whatever succeeds afterwards. */
    EXPECT_OK(context, zcta_window_alloc(world, 100, &window));
    EXPECT_OK(context, zcta_last_error(context, &error));
    EXPECT(strcmp(error.call, "zcta_team_get") == 0);
    EXPECT(zcta_window_alloc(world, SIZE_MAX, &window) == ZCTA_ERR_NO_MEMORY);
    EXPECT_OK(context, zcta_last_error(context, &error));
    EXPECT(error.status == ZCTA_ERR_NO_MEMORY && error.rank == self);
}

static void the_last_error_tells_status_call_rank_and_why(void **state)
{
    (void)state;
    run_as_threads(3, read_errors, NULL);
}

static void every_status_has_a_name_and_a_text(void **state)
{
    (void)state;
    assert_string_equal(zcta_status_name(ZCTA_ERR_TIMEOUT), "ZCTA_ERR_TIMEOUT");
    assert_string_equal(zcta_status_text(ZCTA_ERR_TIMEOUT), "a deadline passed");
    for (int status = -1; status < 20; status++) {
        assert_non_null(zcta_status_name((zcta_status)status));
        assert_non_null(zcta_status_text((zcta_status)status));
    }
    assert_int_equal(ZCTA_ERR_DEVICE, 13);
    assert_int_equal(zcta_version(), 0 << 16 | 2 << 8 | 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(null_is_refused_by_every_call),
        cmocka_unit_test(init_reads_only_what_the_struct_says_it_has),
        cmocka_unit_test(team_params_are_checked),
        cmocka_unit_test(call_params_are_checked),
        cmocka_unit_test(buffers_outside_their_windows_are_refused),
        cmocka_unit_test(send_and_recv_may_not_overlap_but_in_place),
        cmocka_unit_test(sizes_near_the_largest_do_not_wrap),
        cmocka_unit_test(explain_gives_every_path_a_reason),
        cmocka_unit_test(counters_are_written_only_as_far_as_there_is_room),
        cmocka_unit_test(one_rank_alone_copies),
        cmocka_unit_test(init_says_what_is_wrong_with_its_parameters),
        cmocka_unit_test(the_others_hear_of_a_rank_that_cannot_join),
        cmocka_unit_test(a_rank_whose_parameters_are_refused_still_takes_part_in_the_exchange),
        cmocka_unit_test(the_others_at_a_root_hear_why_a_rank_cannot_join),
        cmocka_unit_test(a_machine_without_gpus_says_so),
        cmocka_unit_test(a_timeout_that_is_none_is_refused),
        cmocka_unit_test(a_second_finalize_is_refused),
        cmocka_unit_test(the_last_error_tells_status_call_rank_and_why),
        cmocka_unit_test(every_status_has_a_name_and_a_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
