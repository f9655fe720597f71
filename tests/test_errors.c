/* Whatever a public call returns, it says: every error leaves its own sentence under the call's
 * name, also where a handle is NULL. The list holds every function of the header. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>

#include <cmocka.h>

#include "api/objects.h"
#include "support_ports.h"
#include "support_ranks.h"

#define MS UINT64_C(1000000)

/* Shares too large for the scratch window, so that a plan can be released. */
enum { SHARE = 40000, WINDOW = 1 << 17 };

/* What a call may be given. The other ranks of `team` do not come to it. */
struct fixture {
    zcta_context *context;
    zcta_team *team;
    zcta_window *window, *mapped; /* mapped: registered memory */
    zcta_plan *plan;
    zcta_host_stream *stream;
    char *recv;
};

/* What its team has. */
enum has { NOTHING, A_WINDOW, A_PLAN };

struct row {
    const char *call;
    zcta_status wanted;
    zcta_status (*make)(struct fixture *f);
    enum has has; /* where each row has a team of its own */
};

static char outside[WINDOW];
static const size_t one[] = {SHARE}; /* the share of a rank alone */

/* ---- Alone: what a rank can do wrong by itself ---- */

static zcta_init_params alone(void)
{
    return (zcta_init_params){
        .size = sizeof(zcta_init_params), .rank_count = 1, .device = ZCTA_DEVICE_HOST};
}

static zcta_status init_null(struct fixture *f)
{
    (void)f;
    return zcta_init(NULL, NULL);
}

static zcta_status init_bad_size(struct fixture *f)
{
    const zcta_init_params params = {.size = 3};
    zcta_context *context = NULL;

    (void)f;
    return zcta_init(&params, &context);
}

static zcta_status init_bad_environment(struct fixture *f)
{
    const zcta_init_params params = alone();
    zcta_context *context = NULL;
    zcta_status status;

    (void)f;
    setenv("ZEROCTA_TIMEOUT", "soon", 1);
    status = zcta_init(&params, &context);
    unsetenv("ZEROCTA_TIMEOUT");
    return status;
}

static zcta_status init_late(struct fixture *f)
{
    char root[32];
    zcta_init_params params = alone();
    zcta_context *context = NULL;

    (void)f;
    snprintf(root, sizeof root, "127.0.0.1:%u", free_port());
    params.rank_count = 2;
    params.root = root;
    params.timeout_ns = 100 * MS;
    return zcta_init(&params, &context);
}

static zcta_status finalize_null(struct fixture *f)
{
    (void)f;
    return zcta_finalize(NULL);
}

static zcta_status finalize_twice(struct fixture *f)
{
    zcta_context *context = NULL;

    (void)f;
    return zcta_finalize(&context);
}

static zcta_status last_error_null(struct fixture *f)
{
    return zcta_last_error(f->context, NULL);
}

static zcta_status last_error_null_twice(struct fixture *f)
{
    (void)f;
    return zcta_last_error(NULL, NULL);
}

static zcta_status alive_null(struct fixture *f)
{
    uint32_t count = 0;

    (void)f;
    return zcta_context_ranks_alive(NULL, NULL, &count);
}

static zcta_status alive_null_count(struct fixture *f)
{
    return zcta_context_ranks_alive(f->context, NULL, NULL);
}

static zcta_status get_null_context(struct fixture *f)
{
    const uint32_t rank = 0;
    zcta_team *team = NULL;

    (void)f;
    return zcta_team_get(NULL, &rank, 1, NULL, &team);
}

static zcta_status get_null_team(struct fixture *f)
{
    const uint32_t rank = 0;

    return zcta_team_get(f->context, &rank, 1, NULL, NULL);
}

static zcta_status get_unknown_rank(struct fixture *f)
{
    const uint32_t rank = 77;
    zcta_team *team = NULL;

    return zcta_team_get(f->context, &rank, 1, NULL, &team);
}

static zcta_status get_no_rank(struct fixture *f)
{
    zcta_team *team = NULL;

    return zcta_team_get(f->context, NULL, 0, NULL, &team);
}

static zcta_status get_bad_policy(struct fixture *f)
{
    const zcta_team_params params = {.size = sizeof params, .policy = 9};
    const uint32_t rank = 0;
    zcta_team *team = NULL;

    return zcta_team_get(f->context, &rank, 1, &params, &team);
}

static zcta_status split_null(struct fixture *f)
{
    zcta_team *part = NULL;

    (void)f;
    return zcta_team_split(NULL, 0, 0, NULL, &part);
}

static zcta_status split_null_part(struct fixture *f)
{
    return zcta_team_split(f->team, 0, 0, NULL, NULL);
}

static zcta_status destroy_null(struct fixture *f)
{
    (void)f;
    return zcta_team_destroy(NULL);
}

static zcta_status destroy_world(struct fixture *f)
{
    zcta_team *world = zcta_world(f->context);

    return zcta_team_destroy(&world);
}

static zcta_status destroy_busy(struct fixture *f)
{
    zcta_team *team = f->team;

    return zcta_team_destroy(&team);
}

static zcta_status status_null(struct fixture *f)
{
    (void)f;
    return zcta_team_status(NULL);
}

static zcta_status failure_null(struct fixture *f)
{
    zcta_error error;

    (void)f;
    return zcta_team_failure(NULL, &error);
}

static zcta_status failure_null_error(struct fixture *f)
{
    return zcta_team_failure(f->team, NULL);
}

static zcta_status counters_null(struct fixture *f)
{
    uint32_t count = 0;

    (void)f;
    return zcta_team_counters(NULL, NULL, &count);
}

static zcta_status counters_null_count(struct fixture *f)
{
    return zcta_team_counters(f->team, NULL, NULL);
}

static zcta_status exchange_null(struct fixture *f)
{
    uint32_t word = 0;

    (void)f;
    return zcta_team_exchange(NULL, &word, &word, sizeof word);
}

static zcta_status exchange_null_mine(struct fixture *f)
{
    uint32_t word = 0;

    return zcta_team_exchange(f->team, NULL, &word, sizeof word);
}

static zcta_status exchange_too_much(struct fixture *f)
{
    return zcta_team_exchange(f->team, outside, outside, (1 << 20) + 1);
}

static zcta_status alloc_null(struct fixture *f)
{
    zcta_window *window = NULL;

    (void)f;
    return zcta_window_alloc(NULL, 1, &window);
}

static zcta_status alloc_null_window(struct fixture *f)
{
    return zcta_window_alloc(f->team, 1, NULL);
}

static zcta_status alloc_nothing(struct fixture *f)
{
    zcta_window *window = NULL;

    return zcta_window_alloc(f->team, 0, &window);
}

static zcta_status register_null(struct fixture *f)
{
    zcta_window *window = NULL;

    (void)f;
    return zcta_window_register(NULL, outside, sizeof outside, &window);
}

static zcta_status register_null_base(struct fixture *f)
{
    zcta_window *window = NULL;

    return zcta_window_register(f->team, NULL, 8, &window);
}

static zcta_status free_null(struct fixture *f)
{
    (void)f;
    return zcta_window_free(NULL);
}

static zcta_status free_used_window(struct fixture *f)
{
    zcta_window *window = f->window;

    return zcta_window_free(&window);
}

static zcta_status view_null(struct fixture *f)
{
    const void *base;
    size_t stride;

    (void)f;
    return zcta_window_view(NULL, &base, &stride);
}

static zcta_status view_null_base(struct fixture *f)
{
    size_t stride;

    return zcta_window_view(f->window, NULL, &stride);
}

static zcta_status view_registered(struct fixture *f)
{
    const void *base;
    size_t stride;

    return zcta_window_view(f->mapped, &base, &stride);
}

static zcta_status gather_null(struct fixture *f)
{
    return zcta_all_gather(NULL, f->recv, f->recv, SHARE, NULL, NULL);
}

static zcta_status gather_null_send(struct fixture *f)
{
    return zcta_all_gather(f->team, NULL, f->recv, SHARE, NULL, NULL);
}

static zcta_status gather_outside(struct fixture *f)
{
    return zcta_all_gather(f->team, f->recv, outside, SHARE, NULL, NULL);
}

static zcta_status gather_by_nccl(struct fixture *f)
{
    const zcta_call_params params = {.size = sizeof params, .engine = ZCTA_ENGINE_NCCL};

    return zcta_all_gather(f->team, f->recv, f->recv, SHARE, NULL, &params);
}

static zcta_status gather_bad_params(struct fixture *f)
{
    const zcta_call_params params = {.size = 1};

    return zcta_all_gather(f->team, f->recv, f->recv, SHARE, NULL, &params);
}

static zcta_status run_call_null(struct fixture *f)
{
    const zcta_call call = all_gather_call(f->recv, f->recv, SHARE, NULL);

    return zcta_run(NULL, &call, NULL);
}

static zcta_status run_null_call(struct fixture *f)
{
    return zcta_run(f->team, NULL, NULL);
}

static zcta_status run_unknown(struct fixture *f)
{
    const zcta_call call = {.size = sizeof call, .collective = 99};

    return zcta_run(f->team, &call, NULL);
}

/* The other collectives: without a team, and with what they in particular cannot take. */
static zcta_status all_gather_v_null(struct fixture *f)
{
    return zcta_all_gather_v(NULL, outside, f->recv, one, NULL, NULL, NULL);
}

static zcta_status all_gather_v_null_bytes(struct fixture *f)
{
    return zcta_all_gather_v(f->team, outside, f->recv, NULL, NULL, NULL, NULL);
}

static zcta_status all_to_all_null(struct fixture *f)
{
    return zcta_all_to_all(NULL, outside, f->recv, SHARE, NULL, NULL);
}

static zcta_status all_to_all_halfway(struct fixture *f)
{
    return zcta_all_to_all(f->team, f->recv + 1, f->recv, SHARE, NULL, NULL);
}

static zcta_status all_to_all_v_null(struct fixture *f)
{
    return zcta_all_to_all_v(NULL, outside, one, NULL, f->recv, one, NULL, NULL, NULL);
}

static zcta_status all_to_all_v_null_bytes(struct fixture *f)
{
    return zcta_all_to_all_v(f->team, outside, one, NULL, f->recv, NULL, NULL, NULL, NULL);
}

static zcta_status broadcast_null(struct fixture *f)
{
    return zcta_broadcast(NULL, outside, f->recv, SHARE, 0, NULL, NULL);
}

static zcta_status broadcast_bad_root(struct fixture *f)
{
    return zcta_broadcast(f->team, outside, f->recv, SHARE, 1, NULL, NULL);
}

static zcta_status gather_to_null(struct fixture *f)
{
    return zcta_gather(NULL, outside, f->recv, SHARE, 0, NULL, NULL);
}

static zcta_status gather_bad_root(struct fixture *f)
{
    return zcta_gather(f->team, outside, f->recv, SHARE, 1, NULL, NULL);
}

static zcta_status gather_v_null(struct fixture *f)
{
    return zcta_gather_v(NULL, outside, f->recv, one, NULL, 0, NULL, NULL);
}

static zcta_status gather_v_null_bytes(struct fixture *f)
{
    return zcta_gather_v(f->team, outside, f->recv, NULL, NULL, 0, NULL, NULL);
}

static zcta_status scatter_null(struct fixture *f)
{
    return zcta_scatter(NULL, outside, f->recv, SHARE, 0, NULL, NULL);
}

static zcta_status scatter_bad_root(struct fixture *f)
{
    return zcta_scatter(f->team, outside, f->recv, SHARE, 1, NULL, NULL);
}

static zcta_status scatter_v_null(struct fixture *f)
{
    return zcta_scatter_v(NULL, outside, one, NULL, f->recv, 0, NULL, NULL);
}

static zcta_status scatter_v_null_bytes(struct fixture *f)
{
    return zcta_scatter_v(f->team, outside, NULL, NULL, f->recv, 0, NULL, NULL);
}

static zcta_status send_recv_null(struct fixture *f)
{
    return zcta_send_recv(NULL, outside, SHARE, 0, f->recv, SHARE, 0, NULL, NULL);
}

static zcta_status send_recv_bad_partner(struct fixture *f)
{
    return zcta_send_recv(f->team, outside, SHARE, 1, f->recv, SHARE, 0, NULL, NULL);
}

static zcta_status barrier_null(struct fixture *f)
{
    (void)f;
    return zcta_barrier(NULL, NULL);
}

static zcta_status find_unknown(struct fixture *f)
{
    zcta_collective_info info = {.size = sizeof info};

    (void)f;
    return zcta_collective_find(0, "all_sorts", &info);
}

static zcta_status find_null_info(struct fixture *f)
{
    (void)f;
    return zcta_collective_find(ZCTA_BARRIER, NULL, NULL);
}

static zcta_status flow_null(struct fixture *f)
{
    zcta_flow flow;

    (void)f;
    return zcta_call_flow(NULL, 1, 0, 0, 0, &flow);
}

static zcta_status flow_unknown_rank(struct fixture *f)
{
    const zcta_call call = all_gather_call(f->recv, f->recv, SHARE, NULL);
    zcta_flow flow;

    return zcta_call_flow(&call, 2, 0, 2, 0, &flow);
}

static zcta_status plan_null(struct fixture *f)
{
    zcta_plan *plan = NULL;

    return plan_all_gather(NULL, f->recv, f->recv, SHARE, NULL, &plan);
}

static zcta_status plan_null_plan(struct fixture *f)
{
    return plan_all_gather(f->team, f->recv, f->recv, SHARE, NULL, NULL);
}

static zcta_status plan_null_call(struct fixture *f)
{
    zcta_plan *plan = NULL;

    return zcta_plan_make(f->team, NULL, &plan);
}

static zcta_status plan_outside(struct fixture *f)
{
    zcta_plan *plan = NULL;

    return plan_all_gather(f->team, f->recv, outside, SHARE, NULL, &plan);
}

static zcta_status plan_by_nccl(struct fixture *f)
{
    const zcta_call_params params = {.size = sizeof params, .engine = ZCTA_ENGINE_NCCL};
    zcta_plan *plan = NULL;

    return plan_all_gather(f->team, f->recv, f->recv, SHARE, &params, &plan);
}

static zcta_status run_null(struct fixture *f)
{
    (void)f;
    return zcta_plan_run(NULL, NULL);
}

static zcta_status release_null(struct fixture *f)
{
    (void)f;
    return zcta_release(NULL, NULL);
}

static zcta_status free_null_plan(struct fixture *f)
{
    (void)f;
    return zcta_plan_free(NULL);
}

static zcta_status explain_null(struct fixture *f)
{
    zcta_report report;

    return explain_all_gather(NULL, f->recv, f->recv, SHARE, NULL, &report);
}

static zcta_status explain_null_report(struct fixture *f)
{
    return explain_all_gather(f->team, f->recv, f->recv, SHARE, NULL, NULL);
}

static zcta_status explain_null_call(struct fixture *f)
{
    zcta_report report = {.size = sizeof report};

    return zcta_explain(f->team, NULL, &report);
}

static zcta_status explain_bad_size(struct fixture *f)
{
    const zcta_call call = all_gather_call(f->recv, f->recv, SHARE, NULL);
    zcta_report report = {.size = 3};

    return zcta_explain(f->team, &call, &report);
}

static zcta_status explain_outside(struct fixture *f)
{
    zcta_report report;

    return explain_all_gather(f->team, f->recv, outside, SHARE, NULL, &report);
}

static zcta_status stream_null(struct fixture *f)
{
    zcta_host_stream *stream = NULL;

    (void)f;
    return zcta_host_stream_create(NULL, &stream);
}

static zcta_status stream_null_stream(struct fixture *f)
{
    return zcta_host_stream_create(f->context, NULL);
}

static zcta_status call_null(struct fixture *f)
{
    return zcta_host_stream_call(f->stream, NULL, NULL);
}

static zcta_status synchronize_null(struct fixture *f)
{
    (void)f;
    return zcta_host_stream_synchronize(NULL);
}

static zcta_status destroy_null_stream(struct fixture *f)
{
    (void)f;
    return zcta_host_stream_destroy(NULL);
}

static const struct row rows_alone[] = {
    {"zcta_init", ZCTA_ERR_INVALID, init_null, NOTHING},
    {"zcta_init", ZCTA_ERR_INVALID, init_bad_size, NOTHING},
    {"zcta_init", ZCTA_ERR_ENVIRONMENT, init_bad_environment, NOTHING},
    {"zcta_init", ZCTA_ERR_TIMEOUT, init_late, NOTHING},
    {"zcta_finalize", ZCTA_ERR_INVALID, finalize_null, NOTHING},
    {"zcta_finalize", ZCTA_ERR_INVALID, finalize_twice, NOTHING},
    {"zcta_last_error", ZCTA_ERR_INVALID, last_error_null, NOTHING},
    {"zcta_last_error", ZCTA_ERR_INVALID, last_error_null_twice, NOTHING},
    {"zcta_context_ranks_alive", ZCTA_ERR_INVALID, alive_null, NOTHING},
    {"zcta_context_ranks_alive", ZCTA_ERR_INVALID, alive_null_count, NOTHING},
    {"zcta_team_get", ZCTA_ERR_INVALID, get_null_context, NOTHING},
    {"zcta_team_get", ZCTA_ERR_INVALID, get_null_team, NOTHING},
    {"zcta_team_get", ZCTA_ERR_INVALID, get_unknown_rank, NOTHING},
    {"zcta_team_get", ZCTA_ERR_INVALID, get_no_rank, NOTHING},
    {"zcta_team_get", ZCTA_ERR_INVALID, get_bad_policy, NOTHING},
    {"zcta_team_split", ZCTA_ERR_INVALID, split_null, NOTHING},
    {"zcta_team_split", ZCTA_ERR_INVALID, split_null_part, NOTHING},
    {"zcta_team_destroy", ZCTA_ERR_INVALID, destroy_null, NOTHING},
    {"zcta_team_destroy", ZCTA_ERR_INVALID, destroy_world, NOTHING},
    {"zcta_team_destroy", ZCTA_ERR_BUSY, destroy_busy, NOTHING},
    {"zcta_team_status", ZCTA_ERR_INVALID, status_null, NOTHING},
    {"zcta_team_failure", ZCTA_ERR_INVALID, failure_null, NOTHING},
    {"zcta_team_failure", ZCTA_ERR_INVALID, failure_null_error, NOTHING},
    {"zcta_team_counters", ZCTA_ERR_INVALID, counters_null, NOTHING},
    {"zcta_team_counters", ZCTA_ERR_INVALID, counters_null_count, NOTHING},
    {"zcta_team_exchange", ZCTA_ERR_INVALID, exchange_null, NOTHING},
    {"zcta_team_exchange", ZCTA_ERR_INVALID, exchange_null_mine, NOTHING},
    {"zcta_team_exchange", ZCTA_ERR_INVALID, exchange_too_much, NOTHING},
    {"zcta_window_alloc", ZCTA_ERR_INVALID, alloc_null, NOTHING},
    {"zcta_window_alloc", ZCTA_ERR_INVALID, alloc_null_window, NOTHING},
    {"zcta_window_alloc", ZCTA_ERR_INVALID, alloc_nothing, NOTHING},
    {"zcta_window_register", ZCTA_ERR_INVALID, register_null, NOTHING},
    {"zcta_window_register", ZCTA_ERR_INVALID, register_null_base, NOTHING},
    {"zcta_window_free", ZCTA_ERR_INVALID, free_null, NOTHING},
    {"zcta_window_free", ZCTA_ERR_BUSY, free_used_window, NOTHING},
    {"zcta_window_view", ZCTA_ERR_INVALID, view_null, NOTHING},
    {"zcta_window_view", ZCTA_ERR_INVALID, view_null_base, NOTHING},
    {"zcta_window_view", ZCTA_ERR_UNSUPPORTED, view_registered, NOTHING},
    {"zcta_run", ZCTA_ERR_INVALID, run_call_null, NOTHING},
    {"zcta_run", ZCTA_ERR_INVALID, run_null_call, NOTHING},
    {"zcta_run", ZCTA_ERR_INVALID, run_unknown, NOTHING},
    {"zcta_all_gather", ZCTA_ERR_INVALID, gather_null, NOTHING},
    {"zcta_all_gather", ZCTA_ERR_INVALID, gather_null_send, NOTHING},
    {"zcta_all_gather", ZCTA_ERR_INVALID, gather_bad_params, NOTHING},
    {"zcta_all_gather", ZCTA_ERR_NOT_IN_WINDOW, gather_outside, NOTHING},
    {"zcta_all_gather", ZCTA_ERR_UNSUPPORTED, gather_by_nccl, NOTHING},
    {"zcta_all_gather_v", ZCTA_ERR_INVALID, all_gather_v_null, NOTHING},
    {"zcta_all_gather_v", ZCTA_ERR_INVALID, all_gather_v_null_bytes, NOTHING},
    {"zcta_all_to_all", ZCTA_ERR_INVALID, all_to_all_null, NOTHING},
    {"zcta_all_to_all", ZCTA_ERR_INVALID, all_to_all_halfway, NOTHING},
    {"zcta_all_to_all_v", ZCTA_ERR_INVALID, all_to_all_v_null, NOTHING},
    {"zcta_all_to_all_v", ZCTA_ERR_INVALID, all_to_all_v_null_bytes, NOTHING},
    {"zcta_broadcast", ZCTA_ERR_INVALID, broadcast_null, NOTHING},
    {"zcta_broadcast", ZCTA_ERR_INVALID, broadcast_bad_root, NOTHING},
    {"zcta_gather", ZCTA_ERR_INVALID, gather_to_null, NOTHING},
    {"zcta_gather", ZCTA_ERR_INVALID, gather_bad_root, NOTHING},
    {"zcta_gather_v", ZCTA_ERR_INVALID, gather_v_null, NOTHING},
    {"zcta_gather_v", ZCTA_ERR_INVALID, gather_v_null_bytes, NOTHING},
    {"zcta_scatter", ZCTA_ERR_INVALID, scatter_null, NOTHING},
    {"zcta_scatter", ZCTA_ERR_INVALID, scatter_bad_root, NOTHING},
    {"zcta_scatter_v", ZCTA_ERR_INVALID, scatter_v_null, NOTHING},
    {"zcta_scatter_v", ZCTA_ERR_INVALID, scatter_v_null_bytes, NOTHING},
    {"zcta_send_recv", ZCTA_ERR_INVALID, send_recv_null, NOTHING},
    {"zcta_send_recv", ZCTA_ERR_INVALID, send_recv_bad_partner, NOTHING},
    {"zcta_barrier", ZCTA_ERR_INVALID, barrier_null, NOTHING},
    {"zcta_collective_find", ZCTA_ERR_INVALID, find_unknown, NOTHING},
    {"zcta_collective_find", ZCTA_ERR_INVALID, find_null_info, NOTHING},
    {"zcta_call_flow", ZCTA_ERR_INVALID, flow_null, NOTHING},
    {"zcta_call_flow", ZCTA_ERR_INVALID, flow_unknown_rank, NOTHING},
    {"zcta_plan_make", ZCTA_ERR_INVALID, plan_null, NOTHING},
    {"zcta_plan_make", ZCTA_ERR_INVALID, plan_null_plan, NOTHING},
    {"zcta_plan_make", ZCTA_ERR_INVALID, plan_null_call, NOTHING},
    {"zcta_plan_make", ZCTA_ERR_NOT_IN_WINDOW, plan_outside, NOTHING},
    {"zcta_plan_make", ZCTA_ERR_UNSUPPORTED, plan_by_nccl, NOTHING},
    {"zcta_plan_run", ZCTA_ERR_INVALID, run_null, NOTHING},
    {"zcta_release", ZCTA_ERR_INVALID, release_null, NOTHING},
    {"zcta_plan_free", ZCTA_ERR_INVALID, free_null_plan, NOTHING},
    {"zcta_explain", ZCTA_ERR_INVALID, explain_null, NOTHING},
    {"zcta_explain", ZCTA_ERR_INVALID, explain_null_report, NOTHING},
    {"zcta_explain", ZCTA_ERR_INVALID, explain_null_call, NOTHING},
    {"zcta_explain", ZCTA_ERR_INVALID, explain_bad_size, NOTHING},
    {"zcta_explain", ZCTA_ERR_NOT_IN_WINDOW, explain_outside, NOTHING},
    {"zcta_host_stream_create", ZCTA_ERR_INVALID, stream_null, NOTHING},
    {"zcta_host_stream_create", ZCTA_ERR_INVALID, stream_null_stream, NOTHING},
    {"zcta_host_stream_call", ZCTA_ERR_INVALID, call_null, NOTHING},
    {"zcta_host_stream_synchronize", ZCTA_ERR_INVALID, synchronize_null, NOTHING},
    {"zcta_host_stream_destroy", ZCTA_ERR_INVALID, destroy_null_stream, NOTHING},
};

/* ---- The others do not come, or make another call ---- */

static zcta_status get_late(struct fixture *f)
{
    static const uint32_t ranks[] = {1, 0};
    const zcta_team_params params = {.size = sizeof params, .timeout_ns = 100 * MS};
    zcta_team *team = NULL;

    return zcta_team_get(f->context, ranks, 2, &params, &team);
}

static zcta_status split_late(struct fixture *f)
{
    zcta_team *part = NULL;

    return zcta_team_split(f->team, 0, 0, NULL, &part);
}

static zcta_status destroy_late(struct fixture *f)
{
    return zcta_team_destroy(&f->team);
}

static zcta_status status_late(struct fixture *f)
{
    (void)zcta_barrier(f->team, NULL);
    return zcta_team_status(f->team);
}

static zcta_status alloc_late(struct fixture *f)
{
    zcta_window *window = NULL;

    return zcta_window_alloc(f->team, 8, &window);
}

static zcta_status register_late(struct fixture *f)
{
    zcta_window *window = NULL;

    return zcta_window_register(f->team, outside, sizeof outside, &window);
}

static zcta_status free_late(struct fixture *f)
{
    return zcta_window_free(&f->window);
}

static zcta_status exchange_late(struct fixture *f)
{
    uint32_t word = 0, words[2];

    return zcta_team_exchange(f->team, &word, words, sizeof word);
}

static zcta_status run_call_late(struct fixture *f)
{
    const zcta_call call = all_gather_call(f->recv, f->recv, SHARE, NULL);

    return zcta_run(f->team, &call, NULL);
}

static zcta_status rows_are_late(struct fixture *f)
{
    static const size_t bytes[] = {8, 8};

    return zcta_all_to_all_v(f->team, outside, bytes, NULL, f->recv, bytes, NULL, NULL, NULL);
}

static zcta_status gather_late(struct fixture *f)
{
    return zcta_all_gather(f->team, f->recv, f->recv, SHARE, NULL, NULL);
}

static zcta_status barrier_late(struct fixture *f)
{
    return zcta_barrier(f->team, NULL);
}

static zcta_status run_late(struct fixture *f)
{
    return zcta_plan_run(f->plan, NULL);
}

static zcta_status release_late(struct fixture *f)
{
    (void)zcta_barrier(f->team, NULL);
    return zcta_release(f->plan, NULL);
}

static zcta_status synchronize_late(struct fixture *f)
{
    EXPECT_OK(f->context, zcta_barrier(f->team, f->stream));
    return zcta_host_stream_synchronize(f->stream);
}

static zcta_status destroy_stream_late(struct fixture *f)
{
    EXPECT_OK(f->context, zcta_barrier(f->team, f->stream));
    return zcta_host_stream_destroy(&f->stream);
}

static zcta_status release_twice(struct fixture *f)
{
    EXPECT_OK(f->context, zcta_release(f->plan, NULL));
    return zcta_release(f->plan, NULL);
}

static const struct row rows_late[] = {
    {"zcta_team_get", ZCTA_ERR_TIMEOUT, get_late, NOTHING},
    {"zcta_team_split", ZCTA_ERR_TIMEOUT, split_late, NOTHING},
    {"zcta_team_destroy", ZCTA_ERR_TIMEOUT, destroy_late, NOTHING},
    {"zcta_team_status", ZCTA_ERR_TIMEOUT, status_late, NOTHING},
    {"zcta_window_alloc", ZCTA_ERR_TIMEOUT, alloc_late, NOTHING},
    {"zcta_window_register", ZCTA_ERR_TIMEOUT, register_late, NOTHING},
    {"zcta_window_free", ZCTA_ERR_TIMEOUT, free_late, A_WINDOW},
    {"zcta_team_exchange", ZCTA_ERR_TIMEOUT, exchange_late, NOTHING},
    {"zcta_run", ZCTA_ERR_TIMEOUT, run_call_late, A_WINDOW},
    {"zcta_all_gather", ZCTA_ERR_TIMEOUT, gather_late, A_WINDOW},
    {"zcta_all_to_all_v", ZCTA_ERR_TIMEOUT, rows_are_late, A_WINDOW},
    {"zcta_barrier", ZCTA_ERR_TIMEOUT, barrier_late, NOTHING},
    {"zcta_plan_run", ZCTA_ERR_TIMEOUT, run_late, A_PLAN},
    {"zcta_release", ZCTA_ERR_INVALID, release_twice, A_PLAN},
    {"zcta_release", ZCTA_ERR_TIMEOUT, release_late, A_PLAN},
    {"zcta_host_stream_synchronize", ZCTA_ERR_TIMEOUT, synchronize_late, NOTHING},
    {"zcta_host_stream_destroy", ZCTA_ERR_TIMEOUT, destroy_stream_late, NOTHING},
};

/* The team has failed, since a rank of it has died. */
static const struct row rows_dead[] = {
    {"zcta_team_get", ZCTA_ERR_PEER, get_late, NOTHING},
    {"zcta_team_split", ZCTA_ERR_PEER, split_late, NOTHING},
    {"zcta_team_status", ZCTA_ERR_PEER, status_late, NOTHING},
    {"zcta_window_alloc", ZCTA_ERR_PEER, alloc_late, NOTHING},
    {"zcta_window_register", ZCTA_ERR_PEER, register_late, NOTHING},
    {"zcta_team_exchange", ZCTA_ERR_PEER, exchange_late, NOTHING},
    {"zcta_run", ZCTA_ERR_PEER, run_call_late, A_WINDOW},
    {"zcta_all_gather", ZCTA_ERR_PEER, gather_late, A_WINDOW},
    {"zcta_all_to_all_v", ZCTA_ERR_PEER, rows_are_late, A_WINDOW},
    {"zcta_barrier", ZCTA_ERR_PEER, barrier_late, NOTHING},
    {"zcta_plan_run", ZCTA_ERR_PEER, run_late, A_PLAN},
    {"zcta_release", ZCTA_ERR_PEER, release_late, A_PLAN},
};

/* The caller's arguments are odd if it is rank 1. */
static zcta_status alloc_unlike(struct fixture *f)
{
    zcta_window *window = NULL;

    return zcta_window_alloc(f->team, 8 + zcta_team_rank(f->team), &window);
}

static zcta_status gather_unlike(struct fixture *f)
{
    return zcta_all_gather(f->team, outside, f->recv, SHARE + zcta_team_rank(f->team), NULL, NULL);
}

static zcta_status rows_unlike_each_other(struct fixture *f)
{
    const size_t sent[] = {8, 8}, received[] = {8 + zcta_team_rank(f->team), 8};

    return zcta_all_to_all_v(f->team, outside, sent, NULL, f->recv, received, NULL, NULL, NULL);
}

static zcta_status roots_unlike(struct fixture *f)
{
    return zcta_broadcast(f->team, outside, f->recv, SHARE, zcta_team_rank(f->team), NULL, NULL);
}

static zcta_status partners_unlike(struct fixture *f)
{
    const uint32_t from = zcta_team_rank(f->team) == 0 ? 1 : ZCTA_NO_RANK;

    return zcta_send_recv(f->team, NULL, 0, ZCTA_NO_RANK, f->recv, SHARE, from, NULL, NULL);
}

static zcta_status barrier_unlike(struct fixture *f)
{
    if (zcta_team_rank(f->team) == 0)
        return zcta_barrier(f->team, NULL);
    (void)zcta_all_gather(f->team, outside, f->recv, SHARE, NULL, NULL);
    return ZCTA_ERR_MISMATCH;
}

static zcta_status run_unlike(struct fixture *f)
{
    if (zcta_team_rank(f->team) == 0)
        return zcta_plan_run(f->plan, NULL);
    (void)zcta_barrier(f->team, NULL);
    return ZCTA_ERR_MISMATCH;
}

static zcta_status release_unlike(struct fixture *f)
{
    if (zcta_team_rank(f->team) == 0)
        return zcta_release(f->plan, NULL);
    (void)zcta_barrier(f->team, NULL);
    return ZCTA_ERR_MISMATCH;
}

static const struct row rows_unlike[] = {
    {"zcta_window_alloc", ZCTA_ERR_MISMATCH, alloc_unlike, NOTHING},
    {"zcta_all_gather", ZCTA_ERR_MISMATCH, gather_unlike, NOTHING},
    {"zcta_all_to_all_v", ZCTA_ERR_MISMATCH, rows_unlike_each_other, NOTHING},
    {"zcta_broadcast", ZCTA_ERR_MISMATCH, roots_unlike, NOTHING},
    {"zcta_send_recv", ZCTA_ERR_MISMATCH, partners_unlike, NOTHING},
    {"zcta_barrier", ZCTA_ERR_MISMATCH, barrier_unlike, NOTHING},
    {"zcta_plan_run", ZCTA_ERR_MISMATCH, run_unlike, NOTHING},
    {"zcta_release", ZCTA_ERR_MISMATCH, release_unlike, NOTHING},
};

/* ---- How each is judged ---- */

static zcta_status an_older_error(zcta_context *context)
{
    const uint32_t rank = 4711;
    zcta_team *team = NULL;

    return zcta_team_get(context, &rank, 1, NULL, &team);
}

static void expect_sentence(const struct row *row, struct fixture *f)
{
    zcta_error before, after, threads;
    zcta_status status;

    EXPECT(an_older_error(f->context) == ZCTA_ERR_INVALID);
    EXPECT_OK(f->context, zcta_last_error(f->context, &before));
    status = row->make(f);
    EXPECT_OK(f->context, zcta_last_error(f->context, &threads));
    EXPECT_OK(f->context, zcta_last_error(NULL, &after));
    if (status != row->wanted || after.status != status || strcmp(after.call, row->call) != 0 ||
        strcmp(after.message, before.message) == 0)
        fprintf(stderr, "%s: %s, wanted %s; %s: '%s'\n", row->call, zcta_status_name(status),
                zcta_status_name(row->wanted), after.call, after.message);
    EXPECT(status == row->wanted);
    EXPECT(after.status == status);
    EXPECT(strcmp(after.call, row->call) == 0);
    EXPECT(after.message[0] != '\0' && strcmp(after.message, before.message) != 0);
    /* zcta_init() has no context of its own any more. */
    EXPECT(strcmp(row->call, "zcta_init") == 0 || strcmp(threads.message, after.message) == 0);
}

/* Everything that a row may use, of a team of its own. */
static struct fixture make_fixture(zcta_context *context, const char *name, enum has has)
{
    const zcta_team_params params = {.size = sizeof params, .name = name};
    const uint32_t ranks[] = {0, 1};
    struct fixture f = {.context = context};

    EXPECT_OK(context, zcta_team_get(context, ranks, zcta_team_rank_count(zcta_world(context)),
                                     &params, &f.team));
    EXPECT_OK(context, zcta_host_stream_create(context, &f.stream));
    if (has == NOTHING)
        return f;
    EXPECT_OK(context, zcta_window_alloc(f.team, WINDOW, &f.window));
    f.recv = zcta_window_base(f.window);
    if (has == A_PLAN)
        EXPECT_OK(context, plan_all_gather(f.team, outside, f.recv, SHARE, NULL, &f.plan));
    return f;
}

static void err_alone(zcta_context *context, void *data)
{
    struct fixture f = make_fixture(context, "alone", A_PLAN);
    char *own = aligned_alloc(4096, 4096);

    (void)data;
    EXPECT_OK(context, zcta_window_register(f.team, own, 4096, &f.mapped));
    for (size_t i = 0; i < sizeof rows_alone / sizeof *rows_alone; i++)
        expect_sentence(&rows_alone[i], &f);
    EXPECT_OK(context, zcta_window_free(&f.mapped));
    free(own);
}

static void what_a_rank_does_wrong_is_said(void **state)
{
    (void)state;
    run_as_threads(1, err_alone, NULL);
}

/* Rank 1 waits for rank 0 to have made all its calls. */
static void meet(_Atomic uint32_t *done, uint32_t rank)
{
    const uint64_t end = now_ns() + 60000 * MS;

    if (rank == 0)
        atomic_store(done, 1);
    while (atomic_load(done) == 0 && now_ns() < end)
        sleep_ms(1);
}

static void call_without_the_other(zcta_context *context, void *data)
{
    enum { ROWS = sizeof rows_late / sizeof *rows_late };
    const uint32_t rank = zcta_team_rank(zcta_world(context));
    struct fixture fixtures[ROWS];
    char name[16];

    for (size_t i = 0; i < ROWS; i++) {
        snprintf(name, sizeof name, "team %zu", i);
        fixtures[i] = make_fixture(context, name, rows_late[i].has);
        /* Only from here on, so that making it depends on nobody's speed. */
        fixtures[i].team->guard.timeout_ns = fixtures[i].team->group.timeout_ns = 100 * MS;
    }
    for (size_t i = 0; i < ROWS && rank == 0; i++)
        expect_sentence(&rows_late[i], &fixtures[i]);
    meet(data, rank);
}

static void what_comes_of_a_late_rank_is_said(void **state)
{
    _Atomic uint32_t done = 0;

    (void)state;
    run_as_threads(2, call_without_the_other, &done);
}

static const struct ranks_options bereaved = {.may_fail_to_finalize = true};

static void call_with_the_dead(zcta_context *context, void *data)
{
    struct fixture f = make_fixture(context, "dead", A_PLAN);

    meet(data, zcta_team_rank(f.team));
    if (zcta_team_rank(f.team) == 1)
        raise(SIGKILL);
    EXPECT(await_failure(f.team) == ZCTA_ERR_PEER);
    for (size_t i = 0; i < sizeof rows_dead / sizeof *rows_dead; i++)
        expect_sentence(&rows_dead[i], &f);
}

static void what_comes_of_a_dead_rank_is_said(void **state)
{
    (void)state;
    run_as_processes_with(2, &bereaved, call_with_the_dead, shared_zeroed(64));
}

static const struct ranks_options checked = {.check = 1};

static void call_otherwise(zcta_context *context, void *data)
{
    struct fixture f = make_fixture(context, "checked", A_PLAN);

    (void)data;
    for (size_t i = 0; i < sizeof rows_unlike / sizeof *rows_unlike; i++)
        if (zcta_team_rank(f.team) == 0)
            expect_sentence(&rows_unlike[i], &f);
        else
            (void)rows_unlike[i].make(&f);
}

static void what_ranks_disagree_on_is_said(void **state)
{
    (void)state;
    run_as_threads_with(2, &checked, call_otherwise, NULL);
}

/* Rank 1 never finalizes. */
static void finalize_alone(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context);
    zcta_error error;

    (void)data;
    EXPECT_OK(context, zcta_barrier(world, NULL));
    if (zcta_team_rank(world) == 1)
        for (;;)
            sleep_ms(1000);
    world->group.timeout_ns = 100 * MS;
    EXPECT(zcta_finalize(&context) == ZCTA_ERR_TIMEOUT && context == NULL);
    EXPECT(zcta_last_error(NULL, &error) == ZCTA_OK && error.status == ZCTA_ERR_TIMEOUT);
    EXPECT(strcmp(error.call, "zcta_finalize") == 0 && strstr(error.message, "rank 1") != NULL);
    _exit(0);
}

static void a_rank_that_does_not_finalize_is_said(void **state)
{
    pid_t pids[2];

    (void)state;
    start_processes(2, &bereaved, finalize_alone, NULL, pids);
    assert_int_equal(wait_process(pids[0], 60), 0);
    assert_int_equal(kill(pids[1], SIGKILL), 0);
    assert_int_equal(wait_process(pids[1], 60), 256 + SIGKILL);
}

/* ---- Whether the list holds everything ---- */

/* Returns a value, or cannot fail. */
static const char *const values[] = {
    "zcta_status_name",     "zcta_status_text", "zcta_version",     "zcta_world",
    "zcta_context_device",  "zcta_context_gpu", "zcta_team_rank",   "zcta_team_rank_count",
    "zcta_team_world_rank", "zcta_team_policy", "zcta_team_engine", "zcta_window_base",
    "zcta_window_bytes",    "zcta_window_peer"};

static bool is_listed(const char *name)
{
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        if (strcmp(values[i], name) == 0)
            return true;
    for (size_t i = 0; i < sizeof rows_alone / sizeof *rows_alone; i++)
        if (strcmp(rows_alone[i].call, name) == 0)
            return true;
    return false;
}

static void the_list_holds_every_function(void **state)
{
    FILE *header = fopen(ZC_PUBLIC_HEADER, "re");
    char line[512], name[64];
    uint32_t found = 0;

    (void)state;
    assert_non_null(header);
    while (fgets(line, sizeof line, header) != NULL) {
        const char *at = strncmp(line, "ZCTA_API ", 9) == 0 ? strchr(line, '(') : NULL;
        size_t length = 0;

        if (at == NULL)
            continue;
        while (at > line && (at[-1] == '_' || (at[-1] >= 'a' && at[-1] <= 'z')))
            at--, length++;
        snprintf(name, sizeof name, "%.*s", (int)length, at);
        if (!is_listed(name))
            fprintf(stderr, "%s is in no list of this test\n", name);
        assert_true(is_listed(name));
        found++;
    }
    fclose(header);
    assert_true(found > 30);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_list_holds_every_function),
        cmocka_unit_test(what_a_rank_does_wrong_is_said),
        cmocka_unit_test(what_comes_of_a_late_rank_is_said),
        cmocka_unit_test(what_comes_of_a_dead_rank_is_said),
        cmocka_unit_test(what_ranks_disagree_on_is_said),
        cmocka_unit_test(a_rank_that_does_not_finalize_is_said),
    };

    setenv("ZEROCTA_LOG", "error", 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
