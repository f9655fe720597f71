/* Plans, run by the simulation: under thousands of interleavings the bytes are those of a model ten
 * lines long; a rank may die at any step; virtual time agrees with what was measured. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/predict.h"
#include "engine/program.h"
#include "support_plans.h"

enum { MAX_RANKS = 17, CALLS = 3, INTERLEAVINGS = 2000 };

/* A team in one simulation; everything is plain memory. */
struct rank {
    unsigned char *send, *recv, *scratch, *host;
    void *pad;
    _Atomic uint32_t sent[MAX_RANKS * ZC_CHANNELS], seen[MAX_RANKS * ZC_CHANNELS];
    struct zc_guard guard;
    struct zc_program *programs[CALLS];
    uint32_t missing; /* whom on_missing named */
};

struct team {
    struct zc_sim *sim;
    struct zc_layout layout;
    struct zc_request request;
    struct rank ranks[MAX_RANKS];
    void *recv[MAX_RANKS], *scratch[MAX_RANKS], *host[MAX_RANKS], *pads[MAX_RANKS];
};

/* The model: byte `i` of rank `rank`'s share in call `call`. */
static unsigned char share_byte(uint32_t call, uint32_t rank, uint64_t i)
{
    return (unsigned char)(1 + call * 101 + rank * 31 + i * 7 + (i >> 8) * 3);
}

static void on_missing(void *data, uint32_t peer)
{
    struct rank *rank = data;

    rank->missing = peer;
    atomic_store_explicit(&rank->guard.failed, ZCTA_ERR_TIMEOUT, memory_order_release);
}

static void make_team(struct team *team, struct zc_request request, uint64_t seed)
{
    const struct zc_sim_params params = {
        .rank_count = request.layout->ranks, .seed = seed, .moves_data = true};
    struct zc_device_caps caps;

    memset(team, 0, sizeof *team);
    team->layout = *request.layout;
    request.layout = &team->layout;
    team->request = request;
    assert_int_equal(zc_sim_create(&params, &team->sim), ZCTA_OK);
    zc_device_sim.describe(zc_sim_device(team->sim, 0), &caps);
    for (uint32_t i = 0; i < request.layout->ranks; i++) {
        struct rank *rank = &team->ranks[i];

        rank->send = calloc(1, request.layout->bytes + 1);
        rank->recv = team->recv[i] = calloc(1, request.layout->bytes * request.layout->ranks + 1);
        rank->scratch = team->scratch[i] = calloc(1, request.scratch_bytes * 2 + 1);
        rank->host = team->host[i] = calloc(1, zc_plan_buffer_bytes(&request, ZC_HOST) + 1);
        rank->pad = team->pads[i] =
            calloc(1, zc_pad_bytes(request.layout->ranks, caps.slot_bytes, caps.pad_head_bytes));
        rank->missing = ZCTA_NO_RANK;
        rank->guard.on_missing = on_missing;
        rank->guard.data = rank;
    }
    for (uint32_t i = 0; i < request.layout->ranks; i++)
        for (uint32_t call = 0; call < CALLS; call++) {
            struct rank *rank = &team->ranks[i];
            const struct zc_binding binding = {.send = rank->send,
                                               .recv = team->recv,
                                               .scratch = team->scratch,
                                               .host = team->host,
                                               .pads = team->pads,
                                               .sent = rank->sent,
                                               .seen = rank->seen,
                                               .slot_bytes = caps.slot_bytes,
                                               .pad_head_bytes = caps.pad_head_bytes};
            struct zc_plan *plan = NULL;

            request.rank = i;
            request.half = call % 2;
            assert_int_equal(zc_plan_make(&request, &plan), ZCTA_OK);
            assert_int_equal(zc_program_make(plan, &binding, &rank->guard, &rank->programs[call]),
                             ZCTA_OK);
            zc_plan_destroy(plan);
        }
}

static void free_team(struct team *team)
{
    for (uint32_t i = 0; i < team->layout.ranks; i++) {
        struct rank *rank = &team->ranks[i];

        for (uint32_t call = 0; call < CALLS; call++)
            zc_program_destroy(rank->programs[call]);
        free(rank->send);
        free(rank->recv);
        free(rank->scratch);
        free(rank->host);
        free(rank->pad);
    }
    zc_sim_destroy(team->sim);
}

static void fill_and_submit(struct team *team, uint32_t rank, uint32_t call)
{
    const uint64_t bytes = team->layout.bytes;
    struct rank *r = &team->ranks[rank];
    unsigned char *own = team->request.in_place ? r->recv + rank * bytes : r->send;

    memset(r->recv, 0xee, bytes * team->layout.ranks);
    for (uint64_t i = 0; i < bytes; i++)
        own[i] = share_byte(call, rank, i);
    assert_int_equal(zc_device_sim.submit(zc_sim_device(team->sim, rank), r->programs[call], NULL),
                     ZCTA_OK);
}

static void expect_gathered(const struct team *team, uint32_t rank, uint32_t call)
{
    const uint64_t bytes = team->layout.bytes;

    for (uint32_t origin = 0; origin < team->layout.ranks; origin++)
        for (uint64_t i = 0; i < bytes; i++)
            if (team->ranks[rank].recv[origin * bytes + i] != share_byte(call, origin, i))
                fail_msg("%s, %u ranks, %llu bytes, call %u: rank %u has a wrong byte %llu of %u's",
                         team->request.algorithm->name, team->layout.ranks,
                         (unsigned long long)bytes, call, rank, (unsigned long long)i, origin);
}

/* Ranks refill and re-enter one by one, in an order of the seed's, while others still run. */
static void run_calls(struct team *team, uint64_t seed)
{
    struct zc_sim_result result;

    for (uint32_t call = 0; call < CALLS; call++) {
        for (uint32_t i = 0; i < team->layout.ranks; i++) {
            fill_and_submit(team, (uint32_t)((i + seed) % team->layout.ranks), call);
            if (i + 1 < team->layout.ranks && (seed >> i) % 2 == 0) {
                for (uint32_t r = 0; r < team->layout.ranks; r++)
                    team->ranks[r].guard.on_missing = NULL; /* not yet a deadline */
                zc_sim_run(team->sim, &result);
            }
        }
        zc_sim_run(team->sim, &result);
        assert_true(result.finished);
        for (uint32_t i = 0; i < team->layout.ranks; i++)
            expect_gathered(team, i, call);
    }
}

/* The ranks of a node: one of the numbers that divide the ranks. */
static uint32_t some_divisor(uint32_t ranks, uint64_t draw)
{
    uint32_t divisor = 1 + (uint32_t)(draw % ranks);

    while (ranks % divisor != 0)
        divisor--;
    return divisor;
}

/* The algorithms whose outputs the model knows: the draw-th of them, NULL behind the last. */
static const struct zc_algorithm *gathering(uint32_t draw)
{
    for (uint32_t i = 0; i < ZC_ALGORITHMS; i++)
        if (zc_algorithm_serves(zc_algorithms[i], &zc_all_gather) &&
            !zc_has(zc_algorithms[i], ZC_OPENS) && draw-- == 0)
            return zc_algorithms[i];
    return NULL;
}

static uint32_t count_gathering(void)
{
    uint32_t count = 0;

    while (gathering(count) != NULL)
        count++;
    return count;
}

static bool pushes(const struct zc_algorithm *algorithm)
{
    return zc_has(algorithm, ZC_GROUPS);
}

static void bytes_are_right_under_any_interleaving(void **state)
{
    static const uint64_t sizes[] = {1, 2, 33, 1000};
    const uint32_t algorithms = count_gathering();

    (void)state;
    if (algorithms == 0) {
        fail();
        return;
    }
    for (uint64_t seed = 0; seed < INTERLEAVINGS; seed++) {
        const struct zc_layout layout = even_layout(
            &zc_all_gather, 2 + (uint32_t)(seed / 3 % (MAX_RANKS - 1)), sizes[seed / 7 % 4], 0);
        struct zc_request request =
            usual_request(gathering((uint32_t)(seed % algorithms)), &layout, seed / 5 % 2 == 0);
        struct team team;

        request.lanes = 1 + seed / 7 % 2;
        request.block_bytes = seed / 11 % 2 == 0 ? 0 : 10;
        request.grouped = pushes(request.algorithm) && seed / 19 % 2 == 0;
        if (request.algorithm == &zc_hierarchical) {
            request.node_ranks = some_divisor(layout.ranks, seed / 13);
            request.chunks = 1 + (uint32_t)(seed / 17 % 3);
            request.lanes = request.chunks;
        }
        make_team(&team, request, seed);
        run_calls(&team, seed);
        free_team(&team);
    }
}

static void the_same_seed_gives_the_same_run(void **state)
{
    const struct zc_layout layout = even_layout(&zc_all_gather, 5, 64, 0);
    uint64_t steps[2];

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct zc_sim_result result;
        struct team team;

        make_team(&team, usual_request(&zc_direct_push, &layout, true), 42);
        zc_sim_kill(team.sim, 3, 7);
        for (uint32_t r = 0; r < 5; r++)
            fill_and_submit(&team, r, 0);
        zc_sim_run(team.sim, &result);
        steps[i] = result.steps;
        free_team(&team);
    }
    assert_int_equal(steps[0], steps[1]);
}

/* One rank dies after `ops` of its ops; the others end, and whoever fails names somebody who is
 * dead or has failed of the dead one. Returns whether anybody was affected. */
static bool die_after(const struct zc_request *request, uint32_t victim, uint64_t ops,
                      uint64_t seed)
{
    struct zc_sim_result result;
    struct team team;
    bool affected = false;

    make_team(&team, *request, seed);
    zc_sim_kill(team.sim, victim, ops);
    for (uint32_t rank = 0; rank < request->layout->ranks; rank++)
        fill_and_submit(&team, rank, 0);
    zc_sim_run(team.sim, &result);
    assert_true(result.finished);
    for (uint32_t rank = 0; rank < request->layout->ranks; rank++) {
        const struct rank *r = &team.ranks[rank];

        if (rank == victim)
            continue;
        if (atomic_load(&r->guard.failed) == ZCTA_OK) {
            expect_gathered(&team, rank, 0);
            continue;
        }
        affected = true;
        assert_true(r->missing == victim || atomic_load(&team.ranks[r->missing].guard.failed));
    }
    free_team(&team);
    return affected;
}

static void a_rank_may_die_at_any_step(void **state)
{
    const struct zc_layout layout = even_layout(&zc_all_gather, 6, 48, 0);

    (void)state;
    for (uint32_t algorithm = 0; gathering(algorithm) != NULL; algorithm++)
        for (uint64_t seed = 1; seed < 20; seed++) {
            struct zc_request request = usual_request(gathering(algorithm), &layout, seed % 2);
            uint64_t ops = 0;

            request.grouped = pushes(request.algorithm) && seed % 3 == 0;
            while (die_after(&request, (uint32_t)(seed % 6), ops, seed))
                ops++;
            /* Having done its whole part, a rank may die without harming anybody. */
            assert_in_range(ops, 5, 60);
        }
}

static void the_dead_one_is_named_when_it_never_came(void **state)
{
    const struct zc_layout layout = even_layout(&zc_all_gather, 6, 48, 0);

    (void)state;
    for (uint64_t seed = 1; seed < 50; seed++) {
        struct zc_sim_result result;
        struct team team;

        make_team(&team, usual_request(&zc_direct_push, &layout, true), seed);
        zc_sim_kill(team.sim, 4, 0);
        for (uint32_t rank = 0; rank < 6; rank++)
            fill_and_submit(&team, rank, 0);
        zc_sim_run(team.sim, &result);
        assert_true(result.finished);
        for (uint32_t rank = 0; rank < 6; rank++)
            assert_int_equal(team.ranks[rank].missing, rank == 4 ? ZCTA_NO_RANK : 4);
        free_team(&team);
    }
}

/* Of a call that all ranks make alike. */
static zcta_status predict(struct zc_request request, struct zc_prediction *prediction)
{
    struct zc_request *requests = calloc(request.layout->ranks, sizeof *requests);
    zcta_status status;

    assert_non_null(requests);
    for (; request.rank < request.layout->ranks; request.rank++)
        requests[request.rank] = request;
    status = zc_predict(requests, &zc_sim_cost_h200, NULL, prediction);
    free(requests);
    return status;
}

/* Rough prototypes of the same plan on two NVLinked H200 took these times, in microseconds. */
static void virtual_time_is_near_what_was_measured(void **state)
{
    static const struct {
        uint64_t total;
        double measured_us;
    } rows[] = {
        {1024, 10.7}, {262144, 11.4}, {4194304, 16.6}, {67108864, 101.9}, {1073741824, 1384.0}};

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct zc_layout layout = even_layout(&zc_all_gather, 2, rows[i].total / 2, 0);
        struct zc_prediction prediction;
        double us;

        assert_int_equal(predict(usual_request(&zc_direct_push, &layout, true), &prediction),
                         ZCTA_OK);
        us = (double)prediction.time_ns / 1e3;
        if (us < rows[i].measured_us * 0.85 || us > rows[i].measured_us * 1.15)
            fail_msg("%llu bytes: predicted %.1f us, measured %.1f us",
                     (unsigned long long)rows[i].total, us, rows[i].measured_us);
    }
}

static void large_teams_are_simulated(void **state)
{
    const struct zc_layout large = even_layout(&zc_all_gather, 72, (UINT64_C(1) << 30) / 72, 0);
    const struct zc_layout larger = even_layout(&zc_all_gather, 300, 1000, 0);
    struct zc_prediction prediction;
    double gb_per_s;

    (void)state;
    assert_int_equal(predict(usual_request(&zc_direct_push, &large, true), &prediction), ZCTA_OK);
    gb_per_s = (double)large.bytes * 71 / (double)prediction.time_ns;
    assert_true(gb_per_s > 300 && gb_per_s < zc_sim_cost_h200.copy_bytes_per_ns);
    assert_int_equal(predict(usual_request(&zc_direct_push, &larger, true), &prediction), ZCTA_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_right_under_any_interleaving),
        cmocka_unit_test(the_same_seed_gives_the_same_run),
        cmocka_unit_test(a_rank_may_die_at_any_step),
        cmocka_unit_test(the_dead_one_is_named_when_it_never_came),
        cmocka_unit_test(virtual_time_is_near_what_was_measured),
        cmocka_unit_test(large_teams_are_simulated),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
