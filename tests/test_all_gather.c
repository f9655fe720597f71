/* The allgather over host shared memory, through the public interface: every byte is right, for
 * ranks as threads and as processes, odd and zero sizes, in place and not, called and prepared. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "support_ranks.h"

static const size_t sizes[] = {1, 3, 64, 1024, 1025, 4096, 4097, 70001, 600000};
enum { SIZES = sizeof sizes / sizeof sizes[0], CALLS = 5 };

struct buffers {
    zcta_window *window;
    unsigned char *send, *recv;
    size_t bytes;
    bool in_place;
};

/* Fills, poisons, gathers by `run`, checks; several times with changing contents. */
static void gather(zcta_context *context, const struct buffers *b, zcta_plan *plan)
{
    zcta_team *world = zcta_world(context);
    const uint32_t rank = zcta_team_rank(world), count = zcta_team_rank_count(world);
    unsigned char *own = b->in_place ? b->recv + rank * b->bytes : b->send;

    for (uint32_t call = 0; call < CALLS; call++) {
        memset(b->recv, 0xee, b->bytes * count);
        model_fill(own, call, rank, b->bytes);
        if (plan != NULL)
            EXPECT_OK(context, zcta_plan_run(plan, NULL));
        else
            EXPECT_OK(context, zcta_all_gather(world, own, b->recv, b->bytes, NULL, NULL));
        EXPECT(model_wrong(b->recv, call, count, b->bytes) == 0);
    }
}

static void gather_all_sizes(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context);
    const uint32_t rank = zcta_team_rank(world), count = zcta_team_rank_count(world);
    zcta_window *window = NULL;
    struct buffers b;

    (void)data;
    EXPECT_OK(context, zcta_window_alloc(world, sizes[SIZES - 1] * count + 64, &window));
    b = (struct buffers){.window = window, .send = malloc(sizes[SIZES - 1])};
    EXPECT(b.send != NULL);
    for (int variant = 0; variant < 4; variant++)
        for (size_t i = 0; i < SIZES; i++) {
            zcta_plan *plan = NULL;

            /* An odd offset into the window: nothing needs to be aligned. */
            b.recv = (unsigned char *)zcta_window_base(window) + i;
            b.bytes = sizes[i];
            b.in_place = variant & 1;
            if (variant & 2)
                EXPECT_OK(context,
                          plan_all_gather(world, b.in_place ? b.recv + rank * b.bytes : b.send,
                                          b.recv, b.bytes, NULL, &plan));
            gather(context, &b, plan);
            if (plan != NULL)
                EXPECT_OK(context, zcta_plan_free(&plan));
        }
    free(b.send);
    EXPECT_OK(context, zcta_window_free(&window));
}

static void every_byte_is_right_with_ranks_as_threads(void **state)
{
    (void)state;
    for (uint32_t count = 1; count <= 9; count++)
        run_as_threads(count, gather_all_sizes, NULL);
}

static void every_byte_is_right_with_ranks_as_processes(void **state)
{
    static const uint32_t counts[] = {1, 2, 3, 8};

    (void)state;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        run_as_processes(counts[i], gather_all_sizes, NULL);
}

/* Many small calls without a pause, where races between directly following calls would show. */
static void gather_often(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context);
    const uint32_t rank = zcta_team_rank(world), count = zcta_team_rank_count(world);
    zcta_window *window = NULL;
    unsigned char *recv, send[64];

    (void)data;
    EXPECT_OK(context, zcta_window_alloc(world, 2 * sizeof send * count, &window));
    recv = zcta_window_base(window);
    for (uint32_t call = 0; call < 3000; call++) {
        const size_t bytes = 1 + call % sizeof send;

        model_fill(send, call, rank, bytes);
        EXPECT_OK(context, zcta_all_gather(world, send, recv, bytes, NULL, NULL));
        EXPECT(model_wrong(recv, call, count, bytes) == 0);
    }
}

static void thousands_of_calls_stay_right(void **state)
{
    (void)state;
    run_as_threads(2, gather_often, NULL);
    run_as_threads(5, gather_often, NULL);
    run_as_processes(2, gather_often, NULL);
    run_as_processes(8, gather_often, NULL);
}

static void gather_nothing(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context);
    uint32_t count = 16;

    (void)data;
    EXPECT_OK(context, zcta_all_gather(world, NULL, NULL, 0, NULL, NULL));
    EXPECT_OK(context, zcta_team_counters(world, NULL, &count));
    EXPECT(count == 0);
}

static void zero_bytes_are_fine_and_nothing_happens(void **state)
{
    (void)state;
    run_as_threads(3, gather_nothing, NULL);
}

static uint32_t came;
static pthread_mutex_t came_lock = PTHREAD_MUTEX_INITIALIZER;

static void meet(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context);
    const uint32_t count = zcta_team_rank_count(world);

    (void)data;
    for (uint32_t round = 1; round <= 100; round++) {
        pthread_mutex_lock(&came_lock);
        came++;
        pthread_mutex_unlock(&came_lock);
        EXPECT_OK(context, zcta_barrier(world, NULL));
        pthread_mutex_lock(&came_lock);
        EXPECT(came >= round * count);
        pthread_mutex_unlock(&came_lock);
        EXPECT_OK(context, zcta_barrier(world, NULL));
    }
}

static void nobody_passes_a_barrier_alone(void **state)
{
    (void)state;
    came = 0;
    run_as_threads(6, meet, NULL);
}

/* What ran is counted, by path; the paths are those that explain had named. */
static void count_paths(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context);
    const uint32_t rank = zcta_team_rank(world), count = zcta_team_rank_count(world);
    static const size_t share[] = {64, 1 << 20};
    zcta_window *window = NULL;
    unsigned char *recv;

    (void)data;
    EXPECT_OK(context, zcta_window_alloc(world, share[1] * count, &window));
    recv = zcta_window_base(window);
    for (int i = 0; i < 2; i++) {
        zcta_path_counter counters[2] = {{.size = sizeof *counters}, {.size = sizeof *counters}};
        uint32_t counter_count = 2, hits = 0;
        zcta_report report;
        char wanted[64];

        EXPECT_OK(context,
                  explain_all_gather(world, recv + rank * share[i], recv, share[i], NULL, &report));
        EXPECT(report.chosen < report.path_count && report.paths[report.chosen].sms == 0);
        snprintf(wanted, sizeof wanted, "all_gather/%s", report.paths[report.chosen].path);
        for (int call = 0; call < 3; call++)
            EXPECT_OK(context,
                      zcta_all_gather(world, recv + rank * share[i], recv, share[i], NULL, NULL));
        EXPECT_OK(context, zcta_team_counters(world, counters, &counter_count));
        EXPECT(counter_count == (uint32_t)i + 1);
        for (uint32_t c = 0; c < counter_count; c++)
            if (strcmp(counters[c].path, wanted) == 0) {
                hits++;
                EXPECT(counters[c].calls == 3 && counters[c].bytes == 3 * share[i] * count);
            }
        EXPECT(hits == 1);
    }
}

static void every_path_is_counted_as_explained(void **state)
{
    (void)state;
    run_as_threads(3, count_paths, NULL);
}

/* A window that goes takes along what was remembered of it: the same address may come again. */
static void reuse_addresses(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context);
    const uint32_t rank = zcta_team_rank(world), count = zcta_team_rank_count(world);

    (void)data;
    for (uint32_t call = 0; call < 20; call++) {
        const size_t bytes = 5000;
        zcta_window *window = NULL;
        unsigned char *recv;

        EXPECT_OK(context, zcta_window_alloc(world, bytes * count + call * 4096, &window));
        recv = zcta_window_base(window);
        model_fill(recv + rank * bytes, call, rank, bytes);
        EXPECT_OK(context, zcta_all_gather(world, recv + rank * bytes, recv, bytes, NULL, NULL));
        EXPECT(model_wrong(recv, call, count, bytes) == 0);
        EXPECT_OK(context, zcta_window_free(&window));
    }
}

static void a_new_window_at_an_old_address_is_a_new_window(void **state)
{
    (void)state;
    run_as_threads(4, reuse_addresses, NULL);
    run_as_processes(4, reuse_addresses, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_is_right_with_ranks_as_threads),
        cmocka_unit_test(every_byte_is_right_with_ranks_as_processes),
        cmocka_unit_test(thousands_of_calls_stay_right),
        cmocka_unit_test(zero_bytes_are_fine_and_nothing_happens),
        cmocka_unit_test(nobody_passes_a_barrier_alone),
        cmocka_unit_test(every_path_is_counted_as_explained),
        cmocka_unit_test(a_new_window_at_an_old_address_is_a_new_window),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
