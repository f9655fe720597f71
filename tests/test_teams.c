/* Teams through the public interface: made once and found again, each with a policy, an engine and
 * counters of its own, overlapping and split as one likes, given back only when nothing uses them.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "support_ranks.h"

enum { RANKS = 4 };

static const uint32_t everybody[RANKS] = {0, 1, 2, 3};

static zcta_team *get(zcta_context *context, const uint32_t *ranks, uint32_t count,
                      const zcta_team_params *params)
{
    zcta_team *team = NULL;

    EXPECT_OK(context, zcta_team_get(context, ranks, count, params, &team));
    EXPECT(team != NULL);
    return team;
}

static void give_back(zcta_context *context, zcta_team *team)
{
    EXPECT_OK(context, zcta_team_destroy(&team));
    EXPECT(team == NULL);
}

static uint64_t calls_of(zcta_context *context, zcta_team *team)
{
    zcta_path_counter counters[16];
    uint32_t count = 16;
    uint64_t calls = 0;

    for (uint32_t i = 0; i < count; i++)
        counters[i].size = sizeof counters[i];
    EXPECT_OK(context, zcta_team_counters(team, counters, &count));
    for (uint32_t i = 0; i < count; i++)
        calls += counters[i].calls;
    return calls;
}

/* ---- Identity ---- */

static void find_again(zcta_context *context, void *data)
{
    static const uint32_t reversed[RANKS] = {3, 2, 1, 0};
    const zcta_team_params variants[] = {
        {.size = sizeof *variants},
        {.size = sizeof *variants, .policy = ZCTA_POLICY_ZERO},
        {.size = sizeof *variants, .policy = ZCTA_POLICY_EFFICIENCY},
        {.size = sizeof *variants, .engine = ZCTA_ENGINE_CE},
        {.size = sizeof *variants, .name = "a"},
        {.size = sizeof *variants, .name = "b"},
        {.size = sizeof *variants, .policy = ZCTA_POLICY_ZERO, .name = "b"},
    };
    enum { VARIANTS = sizeof variants / sizeof *variants };
    zcta_team *teams[VARIANTS + 1];

    (void)data;
    for (int i = 0; i < VARIANTS; i++)
        teams[i] = get(context, everybody, RANKS, &variants[i]);
    teams[VARIANTS] = get(context, reversed, RANKS, NULL);
    for (int i = 0; i <= VARIANTS; i++) {
        EXPECT(teams[i] != zcta_world(context));
        for (int j = 0; j < i; j++)
            EXPECT(teams[i] != teams[j]);
    }
    for (int i = 0; i < VARIANTS; i++) {
        EXPECT(get(context, everybody, RANKS, &variants[i]) == teams[i]);
        EXPECT(zcta_team_engine(teams[i]) == variants[i].engine);
    }
    for (int i = 0; i < VARIANTS; i++) {
        give_back(context, teams[i]);
        give_back(context, teams[i]);
    }
    give_back(context, teams[VARIANTS]);
}

static void a_team_is_found_again_by_ranks_order_policy_engine_and_name(void **state)
{
    (void)state;
    run_as_threads(RANKS, find_again, NULL);
    run_as_processes(RANKS, find_again, NULL);
}

/* What does not make a team another: parameters left out, said explicitly, or the timeout. */
static void find_equivalents(zcta_context *context, void *data)
{
    const zcta_team_params zeros = {.size = sizeof zeros};
    const zcta_team_params said = {.size = sizeof said, .policy = ZCTA_POLICY_DEFAULT};
    const zcta_team_params hurried = {.size = sizeof hurried, .timeout_ns = 1000000000};
    zcta_team *team = get(context, everybody, RANKS, NULL);

    (void)data;
    EXPECT(zcta_team_policy(team) == ZCTA_POLICY_DEFAULT);
    EXPECT(get(context, everybody, RANKS, &zeros) == team);
    EXPECT(get(context, everybody, RANKS, &said) == team);
    EXPECT(get(context, everybody, RANKS, &hurried) == team);
}

static void defaults_and_the_timeout_make_no_other_team(void **state)
{
    (void)state;
    run_as_threads(RANKS, find_equivalents, NULL);
}

static void count_uses(zcta_context *context, void *data)
{
    zcta_team *team = get(context, everybody, RANKS, NULL), *again, *gone;
    zcta_window *window = NULL;

    (void)data;
    EXPECT_OK(context, zcta_window_alloc(zcta_world(context), 4096, &window));
    again = get(context, everybody, RANKS, NULL);
    gone = team;
    give_back(context, gone);
    gather_checked(context, again, zcta_window_base(window), 100, 1);
    EXPECT(calls_of(context, again) == 1);
    give_back(context, again);
    /* Made anew: its counters begin at nothing. */
    team = get(context, everybody, RANKS, NULL);
    EXPECT(calls_of(context, team) == 0);
    gather_checked(context, team, zcta_window_base(window), 100, 2);
    give_back(context, team);
}

static void a_team_lives_until_every_get_is_given_back(void **state)
{
    (void)state;
    run_as_threads(RANKS, count_uses, NULL);
    run_as_processes(RANKS, count_uses, NULL);
}

/* ---- Policy and engine ---- */

static zcta_policy policy_that_applies(zcta_context *context, zcta_team *team, void *recv,
                                       const zcta_call_params *params)
{
    zcta_report report;

    EXPECT_OK(context, explain_all_gather(team, recv, recv, 0, params, &report));
    return report.policy;
}

static void use_policies(zcta_context *context, void *data)
{
    const zcta_team_params zero = {.size = sizeof zero, .policy = ZCTA_POLICY_ZERO};
    const zcta_team_params sparing = {.size = sizeof sparing, .policy = ZCTA_POLICY_EFFICIENCY};
    zcta_team *a = get(context, everybody, RANKS, &zero), *part = NULL;
    zcta_team *b = get(context, everybody, RANKS, &sparing);
    zcta_window *window = NULL;

    (void)data;
    EXPECT_OK(context, zcta_window_alloc(zcta_world(context), 4096, &window));
    for (uint32_t call = 0; call < 30; call++) {
        gather_checked(context, a, zcta_window_base(window), 100, call);
        if (call % 3 == 0)
            gather_checked(context, b, zcta_window_base(window), 50, call);
    }
    EXPECT(calls_of(context, a) == 30 && calls_of(context, b) == 10);
    EXPECT(calls_of(context, zcta_world(context)) == 0);
    EXPECT(zcta_team_policy(a) == ZCTA_POLICY_ZERO);
    EXPECT(zcta_team_policy(b) == ZCTA_POLICY_EFFICIENCY);
    EXPECT(zcta_team_policy(zcta_world(context)) == ZCTA_POLICY_DEFAULT);
    EXPECT(policy_that_applies(context, a, zcta_window_base(window), NULL) == ZCTA_POLICY_ZERO);
    EXPECT_OK(context, zcta_team_split(a, 0, 0, NULL, &part));
    EXPECT(zcta_team_policy(part) == ZCTA_POLICY_DEFAULT);
    EXPECT(policy_that_applies(context, part, zcta_window_base(window), NULL) ==
           ZCTA_POLICY_DEFAULT);
    EXPECT(zcta_team_policy(get(context, everybody, RANKS, NULL)) == ZCTA_POLICY_DEFAULT);
}

static void two_policies_live_side_by_side_and_spread_to_nobody(void **state)
{
    (void)state;
    run_as_threads(RANKS, use_policies, NULL);
    run_as_processes(RANKS, use_policies, NULL);
}

static void override_policy(zcta_context *context, void *data)
{
    const zcta_call_params zero = {.size = sizeof zero, .policy = ZCTA_POLICY_ZERO};
    zcta_team *world = zcta_world(context);
    const uint32_t rank = zcta_team_rank(world);
    zcta_window *window = NULL;
    unsigned char *recv;

    (void)data;
    EXPECT_OK(context, zcta_window_alloc(world, 4096, &window));
    recv = zcta_window_base(window);
    EXPECT(policy_that_applies(context, world, recv, &zero) == ZCTA_POLICY_ZERO);
    for (uint32_t call = 0; call < 6; call++) {
        model_fill(recv + rank * 100, call, rank, 100);
        EXPECT_OK(context, zcta_all_gather(world, recv + rank * 100, recv, 100, NULL,
                                           call % 2 == 0 ? &zero : NULL));
        EXPECT(model_wrong(recv, call, RANKS, 100) == 0);
    }
    EXPECT(zcta_team_policy(world) == ZCTA_POLICY_DEFAULT);
    EXPECT(policy_that_applies(context, world, recv, NULL) == ZCTA_POLICY_DEFAULT);
}

static void a_call_overrides_the_policy_for_itself_only(void **state)
{
    (void)state;
    run_as_threads(RANKS, override_policy, NULL);
}

static void ask_for_nccl(zcta_context *context, void *data)
{
    const zcta_team_params params = {.size = sizeof params, .engine = ZCTA_ENGINE_NCCL};
    const zcta_call_params ce = {.size = sizeof ce, .engine = ZCTA_ENGINE_CE};
    const zcta_call_params nccl = {.size = sizeof nccl, .engine = ZCTA_ENGINE_NCCL};
    zcta_team *world = zcta_world(context), *team = get(context, everybody, RANKS, &params);
    zcta_window *window = NULL;
    zcta_plan *plan = NULL;
    zcta_report report;
    unsigned char *recv, *mine;

    (void)data;
    EXPECT_OK(context, zcta_window_alloc(world, 4096, &window));
    recv = zcta_window_base(window);
    mine = recv + zcta_team_rank(world) * 8;
    expect_error(context, zcta_all_gather(team, mine, recv, 8, NULL, NULL), ZCTA_ERR_UNSUPPORTED,
                 "NCCL moves GPU memory");
    expect_error(context, zcta_all_gather(world, mine, recv, 8, NULL, &nccl), ZCTA_ERR_UNSUPPORTED,
                 "NCCL moves GPU memory");
    expect_error(context, plan_all_gather(team, mine, recv, 8, NULL, &plan), ZCTA_ERR_UNSUPPORTED,
                 "NCCL moves GPU memory");
    EXPECT(plan == NULL);
    EXPECT_OK(context, explain_all_gather(team, mine, recv, 8, NULL, &report));
    EXPECT(report.chosen == report.path_count && report.path_count > 0);
    EXPECT(zcta_team_status(team) == ZCTA_OK);
    EXPECT_OK(context, zcta_all_gather(team, mine, recv, 8, NULL, &ce));
    EXPECT_OK(context, explain_all_gather(team, mine, recv, 8, &ce, &report));
    EXPECT(report.chosen < report.path_count && report.paths[report.chosen].possible == 1);
    /* A barrier moves nothing; no engine is asked for it. */
    EXPECT_OK(context, zcta_barrier(team, NULL));
}

static void nccl_without_gpus_is_refused_with_the_reason(void **state)
{
    (void)state;
    run_as_threads(RANKS, ask_for_nccl, NULL);
}

/* ---- Overlapping ---- */

/* Every subset of the ranks is a team; each rank uses all that it belongs to, in turn. */
static void overlap(zcta_context *context, void *data)
{
    const uint32_t self = zcta_team_rank(zcta_world(context));
    zcta_team *teams[1 << RANKS] = {NULL};
    zcta_window *window = NULL;

    (void)data;
    EXPECT_OK(context, zcta_window_alloc(zcta_world(context), 2 << 20, &window));
    for (uint32_t mask = 1; mask < 1 << RANKS; mask++) {
        uint32_t ranks[RANKS], count = 0;

        for (uint32_t rank = 0; rank < RANKS; rank++)
            if (mask >> rank & 1)
                ranks[count++] = rank;
        if (mask >> self & 1)
            teams[mask] = get(context, ranks, count, NULL);
    }
    for (uint32_t round = 0; round < 40; round++)
        for (uint32_t i = 1; i < 1 << RANKS; i++) {
            /* Forwards and backwards, small and large shares, a place of its own for each team. */
            const uint32_t mask = round % 2 ? (1 << RANKS) - i : i;
            const size_t bytes = round % 5 == 0 ? 16384 + mask : 100 + mask;

            if (teams[mask] != NULL)
                gather_checked(context, teams[mask],
                               (char *)zcta_window_base(window) + mask * (65536 + 1000), bytes,
                               round);
        }
    for (uint32_t mask = 1; mask < 1 << RANKS; mask++)
        if (teams[mask] != NULL)
            give_back(context, teams[mask]);
}

static void overlapping_teams_take_turns(void **state)
{
    (void)state;
    run_as_threads(RANKS, overlap, NULL);
    run_as_processes(RANKS, overlap, NULL);
}

static void reverse(zcta_context *context, void *data)
{
    static const uint32_t ranks[] = {3, 1, 0};
    zcta_window *window = NULL, *own = NULL;
    zcta_team *team;

    (void)data;
    EXPECT_OK(context, zcta_window_alloc(zcta_world(context), 1 << 18, &window));
    if (zcta_team_rank(zcta_world(context)) == 2)
        return;
    team = get(context, ranks, 3, NULL);
    for (uint32_t i = 0; i < 3; i++)
        EXPECT(zcta_team_world_rank(team, i) == ranks[i]);
    EXPECT(zcta_team_world_rank(team, 3) == ZCTA_NO_RANK);
    EXPECT(ranks[zcta_team_rank(team)] == zcta_team_rank(zcta_world(context)));
    EXPECT(zcta_team_rank_count(team) == 3);
    EXPECT_OK(context, zcta_window_alloc(team, 1 << 18, &own));
    for (uint32_t call = 0; call < 20; call++) {
        gather_checked(context, team, (char *)zcta_window_base(window) + call, 1000 * call + 1,
                       call);
        gather_checked(context, team, (char *)zcta_window_base(own) + call, 999 * call + 1, call);
    }
    /* A window's parts are numbered as its team's ranks. */
    memset(zcta_window_base(own), 7, 8);
    ((char *)zcta_window_base(own))[0] = (char)zcta_team_rank(team);
    EXPECT_OK(context, zcta_barrier(team, NULL));
    for (uint32_t i = 0; i < 3; i++)
        EXPECT(*(char *)zcta_window_peer(own, i) == (char)i);
    EXPECT(zcta_window_peer(own, 3) == NULL);
    EXPECT_OK(context, zcta_barrier(team, NULL));
}

static void a_team_orders_its_ranks_as_listed(void **state)
{
    (void)state;
    run_as_threads(RANKS, reverse, NULL);
    run_as_processes(RANKS, reverse, NULL);
}

static void use_too_small_a_window(zcta_context *context, void *data)
{
    static const uint32_t ranks[] = {0, 1};
    zcta_team *world = zcta_world(context), *team;
    zcta_window *window = NULL;
    zcta_error error;
    char *recv;

    (void)data;
    if (zcta_team_rank(world) < 2) {
        team = get(context, ranks, 2, NULL);
        EXPECT_OK(context, zcta_window_alloc(team, 4096, &window));
        recv = zcta_window_base(window);
        expect_error(context,
                     zcta_all_gather(world, recv + 8 * zcta_team_rank(world), recv, 8, NULL, NULL),
                     ZCTA_ERR_NOT_IN_WINDOW, "rank 2 has no part in the window");
        EXPECT_OK(context, zcta_last_error(context, &error));
        EXPECT(error.rank == 2);
        gather_checked(context, team, recv, 8, 0);
    }
    EXPECT_OK(context, zcta_barrier(world, NULL));
}

static void a_window_serves_only_teams_within_its_own(void **state)
{
    (void)state;
    run_as_threads(RANKS, use_too_small_a_window, NULL);
}

/* ---- Splitting ---- */

static void split(zcta_context *context, void *data)
{
    static const int32_t keys[RANKS] = {INT32_MAX, 5, INT32_MIN, 5};
    zcta_team *world = zcta_world(context), *part = (zcta_team *)&keys;
    const uint32_t rank = zcta_team_rank(world);
    zcta_window *window = NULL;

    (void)data;
    EXPECT_OK(context, zcta_window_alloc(world, 4096, &window));
    /* Ties keep the order of ranks. */
    EXPECT_OK(context, zcta_team_split(world, 7, keys[rank], NULL, &part));
    EXPECT(zcta_team_rank_count(part) == RANKS);
    EXPECT(zcta_team_world_rank(part, 0) == 2 && zcta_team_world_rank(part, 1) == 1);
    EXPECT(zcta_team_world_rank(part, 2) == 3 && zcta_team_world_rank(part, 3) == 0);
    gather_checked(context, part, zcta_window_base(window), 64, 0);
    give_back(context, part);

    EXPECT_OK(context, zcta_team_split(world, (int32_t)(rank % 2), -(int32_t)rank, NULL, &part));
    EXPECT(zcta_team_rank_count(part) == 2);
    EXPECT(zcta_team_world_rank(part, 0) == rank % 2 + 2);
    EXPECT(zcta_team_world_rank(part, 1) == rank % 2);
    gather_checked(context, part, zcta_window_base(window), 64, 1);

    /* Of a split part, again. */
    EXPECT_OK(context, zcta_team_split(part, (int32_t)rank, 0, NULL, &part));
    EXPECT(zcta_team_rank_count(part) == 1 && zcta_team_rank(part) == 0);
    EXPECT(zcta_team_world_rank(part, 0) == rank);
    gather_checked(context, part, zcta_window_base(window), 64, 2);
}

static void split_makes_a_team_for_each_color_ordered_by_key(void **state)
{
    (void)state;
    run_as_threads(RANKS, split, NULL);
    run_as_processes(RANKS, split, NULL);
}

static void stay_out(zcta_context *context, void *data)
{
    const uint32_t rank = zcta_team_rank(zcta_world(context));
    zcta_team *part = zcta_world(context);

    (void)data;
    EXPECT_OK(context,
              zcta_team_split(zcta_world(context), rank == 1 ? -1 : INT32_MAX, 0, NULL, &part));
    EXPECT((rank == 1) == (part == NULL));
    if (part != NULL) {
        EXPECT(zcta_team_rank_count(part) == RANKS - 1);
        EXPECT_OK(context, zcta_barrier(part, NULL));
    }
    EXPECT_OK(context, zcta_team_split(zcta_world(context), INT32_MIN, 0, NULL, &part));
    EXPECT(part == NULL);
}

static void a_negative_color_takes_part_and_gets_no_team(void **state)
{
    (void)state;
    run_as_threads(RANKS, stay_out, NULL);
}

/* ---- Two threads of a rank ---- */

struct worker {
    zcta_context *context;
    zcta_team *team;
    char *recv;
    pthread_t thread;
};

static void *use_team(void *data)
{
    struct worker *worker = data;

    for (uint32_t call = 0; call < 200; call++) {
        zcta_window *window = NULL;

        gather_checked(worker->context, worker->team, worker->recv, call % 10 == 0 ? 20000 : 100,
                       call);
        if (call % 50 == 0) {
            EXPECT_OK(worker->context, zcta_window_alloc(worker->team, 5000, &window));
            gather_checked(worker->context, worker->team, zcta_window_base(window), 100, call);
            EXPECT_OK(worker->context, zcta_window_free(&window));
        }
    }
    return NULL;
}

static void use_two_teams_at_once(zcta_context *context, void *data)
{
    static const char *const names[] = {"left", "right"};
    struct worker workers[2];
    zcta_window *window = NULL;

    (void)data;
    EXPECT_OK(context, zcta_window_alloc(zcta_world(context), 1 << 18, &window));
    for (int i = 0; i < 2; i++) {
        const zcta_team_params params = {.size = sizeof params, .name = names[i]};

        workers[i] = (struct worker){.context = context,
                                     .team = get(context, everybody, 3, &params),
                                     .recv = (char *)zcta_window_base(window) + i * 100000};
    }
    for (int i = 0; i < 2; i++)
        EXPECT(pthread_create(&workers[i].thread, NULL, use_team, &workers[i]) == 0);
    for (int i = 0; i < 2; i++)
        EXPECT(pthread_join(workers[i].thread, NULL) == 0);
}

static void two_threads_use_two_teams_at_once(void **state)
{
    (void)state;
    run_as_threads(3, use_two_teams_at_once, NULL);
    run_as_processes(3, use_two_teams_at_once, NULL);
}

/* Each thread makes, uses and gives back teams of its own, while the other does the same. */
static void *make_teams(void *data)
{
    struct worker *worker = data;

    for (uint32_t call = 0; call < 15; call++) {
        const zcta_team_params params = {.size = sizeof params, .name = worker->recv};
        zcta_team *team = get(worker->context, everybody, 2, &params);

        EXPECT_OK(worker->context, zcta_barrier(team, NULL));
        give_back(worker->context, team);
    }
    return NULL;
}

static void make_teams_at_once(zcta_context *context, void *data)
{
    static char names[2][8] = {"left", "right"};
    struct worker workers[2];

    (void)data;
    for (int i = 0; i < 2; i++) {
        workers[i] = (struct worker){.context = context, .recv = names[i]};
        EXPECT(pthread_create(&workers[i].thread, NULL, make_teams, &workers[i]) == 0);
    }
    for (int i = 0; i < 2; i++)
        EXPECT(pthread_join(workers[i].thread, NULL) == 0);
}

static void two_threads_make_and_give_back_teams_at_once(void **state)
{
    (void)state;
    run_as_threads(2, make_teams_at_once, NULL);
    run_as_processes(2, make_teams_at_once, NULL);
}

/* ---- Giving back ---- */

static void destroy_too_early(zcta_context *context, void *data)
{
    zcta_team *team = get(context, everybody, RANKS, NULL), *handle = team;
    zcta_window *window = NULL, *free_window;
    zcta_plan *plan = NULL;
    unsigned char *recv;

    (void)data;
    EXPECT_OK(context, zcta_window_alloc(team, 4096, &window));
    expect_error(context, zcta_team_destroy(&handle), ZCTA_ERR_BUSY, "1 windows and 0 plans");
    EXPECT(handle == team);
    recv = zcta_window_base(window);
    gather_checked(context, team, recv, 100, 0);
    EXPECT_OK(context,
              plan_all_gather(team, recv + 100 * zcta_team_rank(team), recv, 100, NULL, &plan));
    free_window = window;
    expect_error(context, zcta_window_free(&free_window), ZCTA_ERR_BUSY, "prepared plan");
    EXPECT(free_window == window);
    EXPECT_OK(context, zcta_plan_run(plan, NULL));
    expect_error(context, zcta_team_destroy(&handle), ZCTA_ERR_BUSY, "1 windows and 1 plans");
    EXPECT(handle == team && zcta_team_status(team) == ZCTA_OK);
    EXPECT_OK(context, zcta_plan_free(&plan));
    EXPECT_OK(context, zcta_window_free(&window));
    give_back(context, team);
}

static void a_team_with_live_windows_or_plans_stays_as_it_is(void **state)
{
    (void)state;
    run_as_threads(RANKS, destroy_too_early, NULL);
    run_as_processes(RANKS, destroy_too_early, NULL);
}

/* A plan of one team keeps the window of another busy. */
static void free_a_foreign_window(zcta_context *context, void *data)
{
    zcta_team *team = get(context, everybody, RANKS, NULL);
    zcta_window *window = NULL;
    zcta_plan *plan = NULL;
    unsigned char *recv;

    (void)data;
    EXPECT_OK(context, zcta_window_alloc(zcta_world(context), 4096, &window));
    recv = zcta_window_base(window);
    EXPECT_OK(context,
              plan_all_gather(team, recv + 10 * zcta_team_rank(team), recv, 10, NULL, &plan));
    expect_error(context, zcta_window_free(&window), ZCTA_ERR_BUSY, "prepared plan");
    EXPECT(window != NULL);
    EXPECT_OK(context, zcta_plan_free(&plan));
    EXPECT_OK(context, zcta_window_free(&window));
}

static void a_plan_of_a_sub_team_keeps_the_window_busy(void **state)
{
    (void)state;
    run_as_threads(RANKS, free_a_foreign_window, NULL);
}

static void destroy_the_world(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context), *handle = world, *none = NULL;

    (void)data;
    expect_error(context, zcta_team_destroy(&handle), ZCTA_ERR_INVALID, "zcta_finalize()");
    EXPECT(handle == world);
    EXPECT(zcta_team_destroy(&none) == ZCTA_ERR_INVALID);
    EXPECT_OK(context, zcta_barrier(world, NULL));
}

static void the_world_is_not_given_back(void **state)
{
    (void)state;
    run_as_threads(2, destroy_the_world, NULL);
}

/* ---- Bad arguments ---- */

static void list_ranks_wrongly(zcta_context *context, void *data)
{
    const uint32_t unknown[] = {0, 1, 4}, twice[] = {0, 1, 2, 3, 0}, far[] = {UINT32_MAX};
    const uint32_t self = zcta_team_rank(zcta_world(context)), other[] = {(self + 1) % RANKS};
    const uint32_t both[] = {self, self};
    zcta_team *untouched = zcta_world(context), *team = untouched;

    (void)data;
    expect_error(context, zcta_team_get(context, unknown, 3, NULL, &team), ZCTA_ERR_INVALID,
                 "rank 4 is unknown");
    expect_error(context, zcta_team_get(context, far, 1, NULL, &team), ZCTA_ERR_INVALID,
                 "is unknown");
    expect_error(context, zcta_team_get(context, twice, 5, NULL, &team), ZCTA_ERR_INVALID, "not 5");
    expect_error(context, zcta_team_get(context, both, 2, NULL, &team), ZCTA_ERR_INVALID,
                 "is listed twice");
    expect_error(context, zcta_team_get(context, other, 1, NULL, &team), ZCTA_ERR_INVALID,
                 "is not in the list");
    expect_error(context, zcta_team_get(context, everybody, 0, NULL, &team), ZCTA_ERR_INVALID,
                 "not 0");
    expect_error(context, zcta_team_get(context, NULL, 2, NULL, &team), ZCTA_ERR_INVALID, NULL);
    EXPECT(team == untouched);
}

static void bad_lists_of_ranks_are_refused_by_name(void **state)
{
    (void)state;
    run_as_threads(RANKS, list_ranks_wrongly, NULL);
}

static void name_teams(zcta_context *context, void *data)
{
    static const char longest[] = "0123456789012345678901234567890";
    const zcta_team_params good = {.size = sizeof good, .name = longest};
    const zcta_team_params bad = {.size = sizeof bad, .name = "01234567890123456789012345678901"};
    zcta_team *team = NULL, *untouched = NULL;

    (void)data;
    EXPECT(strlen(good.name) == 31 && strlen(bad.name) == 32);
    team = get(context, everybody, 2, &good);
    EXPECT(get(context, everybody, 2, &good) == team);
    expect_error(context, zcta_team_get(context, everybody, 2, &bad, &untouched), ZCTA_ERR_INVALID,
                 "at most 31 bytes");
    EXPECT(untouched == NULL);
}

static void a_name_has_31_bytes_at_most(void **state)
{
    (void)state;
    run_as_threads(2, name_teams, NULL);
}

/* ---- Time ---- */

static void come_too_late(zcta_context *context, void *data)
{
    const zcta_team_params params = {.size = sizeof params, .timeout_ns = 300000000 * SLOWNESS};
    zcta_team *world = zcta_world(context), *team = get(context, everybody, RANKS, &params);
    const uint64_t start = now_ns();
    zcta_error error;

    (void)data;
    if (zcta_team_rank(world) != 1) {
        expect_error(context, zcta_barrier(team, NULL), ZCTA_ERR_TIMEOUT, "rank 1 ");
        EXPECT(now_ns() - start < UINT64_C(3000000000) * SLOWNESS);
    }
    EXPECT_OK(context, zcta_barrier(world, NULL));
    expect_error(context, await_failure(team), ZCTA_ERR_TIMEOUT, "rank 1 ");
    expect_error(context, zcta_barrier(team, NULL), ZCTA_ERR_TIMEOUT, "rank 1 ");
    EXPECT_OK(context, zcta_last_error(context, &error));
    EXPECT(error.rank == 1);
    EXPECT(zcta_team_status(world) == ZCTA_OK);
    EXPECT_OK(context, zcta_team_destroy(&team));
}

static void a_teams_own_timeout_fails_that_team_alone(void **state)
{
    (void)state;
    run_as_threads(RANKS, come_too_late, NULL);
    run_as_processes(RANKS, come_too_late, NULL);
}

/* What is left of an attempt that one rank missed must not mix with the next attempt: either that
 * works with everybody's new memory, or it fails. */
static void miss_the_first_attempt(zcta_context *context, void *data)
{
    const zcta_team_params params = {.size = sizeof params, .timeout_ns = 200000000 * SLOWNESS};
    const uint32_t rank = zcta_team_rank(zcta_world(context));
    zcta_window *window = NULL;
    zcta_team *team = NULL;
    zcta_status status;

    (void)data;
    EXPECT_OK(context, zcta_window_alloc(zcta_world(context), 4096, &window));
    if (rank == 2)
        sleep_ms(500 * SLOWNESS);
    status = zcta_team_get(context, everybody, 3, &params, &team);
    EXPECT(status == ZCTA_ERR_TIMEOUT || status == ZCTA_ERR_PEER || status == ZCTA_ERR_MISMATCH);
    EXPECT(team == NULL);
    EXPECT_OK(context, zcta_barrier(zcta_world(context), NULL));
    status = zcta_team_get(context, everybody, 3, &params, &team);
    EXPECT_OK(context, status);
    for (uint32_t call = 0; call < 10; call++)
        gather_checked(context, team, zcta_window_base(window), 100, call);
}

static void a_rank_that_missed_a_team_can_make_it_with_the_others_later(void **state)
{
    (void)state;
    run_as_threads(3, miss_the_first_attempt, NULL);
    run_as_processes(3, miss_the_first_attempt, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_team_is_found_again_by_ranks_order_policy_engine_and_name),
        cmocka_unit_test(defaults_and_the_timeout_make_no_other_team),
        cmocka_unit_test(a_team_lives_until_every_get_is_given_back),
        cmocka_unit_test(two_policies_live_side_by_side_and_spread_to_nobody),
        cmocka_unit_test(a_call_overrides_the_policy_for_itself_only),
        cmocka_unit_test(nccl_without_gpus_is_refused_with_the_reason),
        cmocka_unit_test(overlapping_teams_take_turns),
        cmocka_unit_test(a_team_orders_its_ranks_as_listed),
        cmocka_unit_test(a_window_serves_only_teams_within_its_own),
        cmocka_unit_test(split_makes_a_team_for_each_color_ordered_by_key),
        cmocka_unit_test(a_negative_color_takes_part_and_gets_no_team),
        cmocka_unit_test(two_threads_use_two_teams_at_once),
        cmocka_unit_test(two_threads_make_and_give_back_teams_at_once),
        cmocka_unit_test(a_team_with_live_windows_or_plans_stays_as_it_is),
        cmocka_unit_test(a_plan_of_a_sub_team_keeps_the_window_busy),
        cmocka_unit_test(the_world_is_not_given_back),
        cmocka_unit_test(bad_lists_of_ranks_are_refused_by_name),
        cmocka_unit_test(a_name_has_31_bytes_at_most),
        cmocka_unit_test(a_teams_own_timeout_fails_that_team_alone),
        cmocka_unit_test(a_rank_that_missed_a_team_can_make_it_with_the_others_later),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
