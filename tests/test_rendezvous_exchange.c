/* Rounds of the mesh: bytes, descriptors, tags, threads, notices, and what a life of it costs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "support_mesh.h"

static void rounds_body(struct mesh_rank *rank)
{
    if (!mesh_rank_open(rank))
        return;
    for (uint64_t tag = 0; tag < 50 && rank->status == ZCTA_OK; tag++)
        mesh_round(rank, tag, 10 * S);
    mesh_rank_close(rank);
}

static void assert_all_ok(const struct mesh_rank *ranks, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (ranks[i].status != ZCTA_OK)
            print_error("rank %u: %s\n", i, ranks[i].error.message);
        assert_int_equal(ranks[i].status, ZCTA_OK);
    }
}

static void everybody_gets_everybodys_bytes_as_threads(void **state)
{
    struct mesh_rank ranks[MESH_RANKS];
    char root[32];

    (void)state;
    for (uint32_t count = 1; count <= 9; count++) {
        mesh_free_root(root);
        mesh_ranks(ranks, count, root, "secret");
        mesh_run_threads(ranks, count, rounds_body);
        assert_all_ok(ranks, count);
        mesh_ranks_destroy(ranks, count);
    }
}

static void everybody_gets_everybodys_bytes_as_processes(void **state)
{
    struct mesh_rank ranks[8];
    pid_t pids[8];
    char root[32];

    (void)state;
    mesh_free_root(root);
    mesh_ranks(ranks, 8, root, NULL);
    mesh_start_processes(ranks, 8, rounds_body, pids);
    for (int i = 0; i < 8; i++)
        assert_int_equal(mesh_wait_process(pids[i]), ZCTA_OK);
    mesh_ranks_destroy(ranks, 8);
}

static void largest_body(struct mesh_rank *rank)
{
    const uint32_t order[3] = {2, 0, 1};
    uint8_t *mine = malloc(ZC_MAX_MESSAGE), *all = malloc(3 * ZC_MAX_MESSAGE);
    struct zc_exchange exchange = {.ranks = order,
                                   .count = 3,
                                   .tag = 1,
                                   .mine = mine,
                                   .all = all,
                                   .bytes = ZC_MAX_MESSAGE,
                                   .fd = -1,
                                   .deadline = zc_deadline_in(10 * S),
                                   .call = "test",
                                   .what = "did not come"};

    memset(mine, (int)rank->rank + 1, ZC_MAX_MESSAGE);
    if (mesh_rank_open(rank)) {
        for (int i = 0; i < 20 && rank->status == ZCTA_OK; i++)
            rank->status = zc_mesh_exchange(rank->mesh, &exchange);
        for (size_t i = 0; i < 3 * ZC_MAX_MESSAGE && rank->status == ZCTA_OK; i++)
            if (all[i] != order[i / ZC_MAX_MESSAGE] + 1)
                rank->status = ZCTA_ERR_MISMATCH;
        exchange.bytes = 0;
        exchange.mine = NULL;
        exchange.all = NULL;
        if (rank->status == ZCTA_OK)
            rank->status = zc_mesh_exchange(rank->mesh, &exchange);
    }
    mesh_rank_close(rank);
    free(mine);
    free(all);
}

static void the_largest_message_and_none_come_in_the_order_of_the_list(void **state)
{
    struct mesh_rank ranks[3];
    char root[32];

    (void)state;
    mesh_free_root(root);
    mesh_ranks(ranks, 3, root, "secret");
    mesh_run_threads(ranks, 3, largest_body);
    assert_all_ok(ranks, 3);
    mesh_ranks_destroy(ranks, 3);
}

/* Each rank gives a memfd whose size says whose it is. */
static void fds_body(struct mesh_rank *rank)
{
    const uint32_t order[4] = {0, 1, 2, 3};
    int fds[4];
    struct stat info;
    const struct zc_exchange exchange = {.ranks = order,
                                         .count = 4,
                                         .tag = 5,
                                         .fd = rank->rank == 2 ? -1
                                                               : memfd_create("test", MFD_CLOEXEC),
                                         .fds = fds,
                                         .deadline = zc_deadline_in(10 * S),
                                         .call = "test",
                                         .what = "did not come"};

    if (exchange.fd >= 0 && ftruncate(exchange.fd, 100 + rank->rank) != 0)
        abort();
    if (!mesh_rank_open(rank))
        goto out;
    rank->status = zc_mesh_exchange(rank->mesh, &exchange);
    for (uint32_t i = 0; i < 4 && rank->status == ZCTA_OK; i++) {
        if ((fds[i] >= 0) != (i != rank->rank && i != 2))
            rank->status = ZCTA_ERR_MISMATCH;
        if (fds[i] < 0)
            continue;
        if (fstat(fds[i], &info) != 0 || info.st_size != 100 + (off_t)i)
            rank->status = ZCTA_ERR_MISMATCH;
        close(fds[i]);
    }
out:
    mesh_rank_close(rank);
    if (exchange.fd >= 0)
        close(exchange.fd);
}

static void descriptors_come_with_the_bytes(void **state)
{
    struct mesh_rank ranks[4];
    pid_t pids[4];
    char root[32];
    const int before = mesh_count_fds();

    (void)state;
    mesh_free_root(root);
    mesh_ranks(ranks, 4, root, "secret");
    mesh_run_threads(ranks, 4, fds_body);
    assert_all_ok(ranks, 4);
    mesh_ranks_destroy(ranks, 4);
    assert_int_equal(mesh_count_fds(), before);

    mesh_ranks(ranks, 4, root, "secret");
    mesh_start_processes(ranks, 4, fds_body, pids);
    for (int i = 0; i < 4; i++)
        assert_int_equal(mesh_wait_process(pids[i]), ZCTA_OK);
    mesh_ranks_destroy(ranks, 4);
}

/* Everybody sends a descriptor that nobody asks for, in rounds that not everybody finishes. */
static void unclaimed_body(struct mesh_rank *rank)
{
    const uint32_t order[2] = {0, 1};
    const int fd = memfd_create("test", MFD_CLOEXEC);
    struct zc_exchange exchange = {.ranks = order,
                                   .count = 2,
                                   .fd = fd,
                                   .deadline = zc_deadline_in(10 * S),
                                   .call = "test",
                                   .what = "did not come"};

    if (mesh_rank_open(rank)) {
        rank->status = zc_mesh_exchange(rank->mesh, &exchange);
        if (rank->rank == 0) {
            exchange.tag = 77;
            exchange.deadline = zc_deadline_in(20 * MS);
            if (zc_mesh_exchange(rank->mesh, &exchange) != ZCTA_ERR_TIMEOUT)
                rank->status = ZCTA_ERR_MISMATCH;
        }
        mesh_round(rank, 78, 10 * S);
    }
    mesh_rank_close(rank);
    close(fd);
}

static void descriptors_that_nobody_claims_are_closed(void **state)
{
    struct mesh_rank ranks[2];
    char root[32];
    const int before = mesh_count_fds();

    (void)state;
    mesh_free_root(root);
    mesh_ranks(ranks, 2, root, "secret");
    mesh_run_threads(ranks, 2, unclaimed_body);
    assert_all_ok(ranks, 2);
    mesh_ranks_destroy(ranks, 2);
    assert_int_equal(mesh_count_fds(), before);
}

struct tag_thread {
    struct mesh_rank *rank;
    uint64_t tag;
    zcta_status status;
};

static void *tag_thread_main(void *data)
{
    struct tag_thread *thread = data;

    for (uint64_t i = 0; i < 100 && thread->status == ZCTA_OK; i++)
        thread->status = mesh_round(thread->rank, thread->tag, 10 * S);
    return NULL;
}

/* Four threads a rank, started in another order on each. */
static void concurrent_body(struct mesh_rank *rank)
{
    pthread_t threads[4];
    struct tag_thread tags[4];

    if (mesh_rank_open(rank)) {
        for (uint32_t i = 0; i < 4; i++) {
            tags[i] = (struct tag_thread){.rank = rank, .tag = (i + rank->rank) % 4};
            pthread_create(&threads[i], NULL, tag_thread_main, &tags[i]);
        }
        for (uint32_t i = 0; i < 4; i++) {
            pthread_join(threads[i], NULL);
            if (tags[i].status != ZCTA_OK)
                rank->status = tags[i].status;
        }
    }
    mesh_rank_close(rank);
}

static void threads_run_rounds_with_different_tags_at_once(void **state)
{
    struct mesh_rank ranks[4];
    char root[32];

    (void)state;
    mesh_free_root(root);
    mesh_ranks(ranks, 4, root, "secret");
    mesh_run_threads(ranks, 4, concurrent_body);
    assert_all_ok(ranks, 4);
    mesh_ranks_destroy(ranks, 4);
}

/* Rank 0 sends the rounds 1, 2, 3 before it looks at any answer: threads that stand still. Rank 1
 * takes them in the order 3, 1, 2. */
static void order_body(struct mesh_rank *rank)
{
    pthread_t threads[3];
    struct tag_thread tags[3];

    if (!mesh_rank_open(rank))
        return;
    if (rank->rank == 0) {
        for (uint32_t i = 0; i < 3; i++) {
            tags[i] = (struct tag_thread){.rank = rank, .tag = i + 1};
            pthread_create(&threads[i], NULL, tag_thread_main, &tags[i]);
        }
        for (uint32_t i = 0; i < 3; i++)
            pthread_join(threads[i], NULL);
        for (uint32_t i = 0; i < 3; i++)
            rank->status = tags[i].status != ZCTA_OK ? tags[i].status : rank->status;
    } else {
        static const uint64_t order[3] = {3, 1, 2};

        for (uint32_t i = 0; i < 3; i++)
            for (int k = 0; k < 100 && rank->status == ZCTA_OK; k++)
                mesh_round(rank, order[i], 10 * S);
    }
    mesh_rank_close(rank);
}

static void rounds_are_found_by_tag_whatever_came_first(void **state)
{
    struct mesh_rank ranks[2];
    char root[32];

    (void)state;
    mesh_free_root(root);
    mesh_ranks(ranks, 2, root, "secret");
    mesh_run_threads(ranks, 2, order_body);
    assert_all_ok(ranks, 2);
    mesh_ranks_destroy(ranks, 2);
}

static void mismatch_body(struct mesh_rank *rank)
{
    const uint32_t order[2] = {0, 1};
    uint8_t mine[16] = {0}, all[32];
    const struct zc_exchange exchange = {.ranks = order,
                                         .count = 2,
                                         .tag = 9,
                                         .mine = mine,
                                         .all = all,
                                         .bytes = rank->rank == 0 ? 8 : 16,
                                         .fd = -1,
                                         .deadline = zc_deadline_in(10 * S),
                                         .call = "test_call",
                                         .what = "did not come"};

    if (mesh_rank_open(rank))
        mesh_rank_failed(rank, zc_mesh_exchange(rank->mesh, &exchange));
    mesh_rank_close(rank);
}

static void another_number_of_bytes_is_a_mismatch_that_names_the_rank(void **state)
{
    struct mesh_rank ranks[2];
    char root[32];

    (void)state;
    mesh_free_root(root);
    mesh_ranks(ranks, 2, root, "secret");
    mesh_run_threads(ranks, 2, mismatch_body);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(ranks[i].status, ZCTA_ERR_MISMATCH);
        assert_int_equal(ranks[i].error.rank, 1 - i);
        assert_string_equal(ranks[i].error.call, "test_call");
    }
    assert_non_null(strstr(ranks[0].error.message, "rank 1 sent 16 bytes where rank 0 sent 8"));
    mesh_ranks_destroy(ranks, 2);
}

static void notice_body(struct mesh_rank *rank)
{
    const uint8_t bytes[3] = {1, 2, 3};

    if (mesh_rank_open(rank)) {
        if (rank->rank == 0)
            for (int i = 0; i < 200; i++)
                zc_mesh_notify(rank->mesh, 1, 10, 0, bytes, sizeof bytes);
        /* What was sent before a round has arrived when the round has. */
        mesh_round(rank, 1, 10 * S);
    }
    mesh_rank_close(rank);
}

static void notices_reach_the_event_function_in_full(void **state)
{
    struct mesh_rank ranks[3];
    char root[32];

    (void)state;
    mesh_free_root(root);
    mesh_ranks(ranks, 3, root, "secret");
    mesh_run_threads(ranks, 3, notice_body);
    assert_all_ok(ranks, 3);
    assert_int_equal(ranks[1].notices[0], 200);
    assert_int_equal(ranks[1].notice_sum, 200 * (1 + 2 + 3 + 3 * 10));
    assert_int_equal(ranks[2].notices[0], 0);
    mesh_ranks_destroy(ranks, 3);
}

static void process_body(struct mesh_rank *rank)
{
    const bool threads = rank->shared != NULL;

    if (!mesh_rank_open(rank))
        return;
    for (uint32_t i = 0; i < rank->count; i++) {
        const bool same = zc_mesh_same_process(rank->mesh, i);

        if (same != (threads || i == rank->rank) || zc_mesh_pid(rank->mesh, i) <= 0)
            rank->status = ZCTA_ERR_MISMATCH;
    }
    mesh_round(rank, 1, 10 * S);
    mesh_rank_close(rank);
}

static void the_kernel_tells_who_is_in_the_same_process(void **state)
{
    struct mesh_rank ranks[3];
    pid_t pids[3];
    char root[32];

    (void)state;
    mesh_free_root(root);
    mesh_ranks(ranks, 3, root, "secret");
    for (uint32_t i = 0; i < 3; i++)
        ranks[i].shared = root;
    mesh_run_threads(ranks, 3, process_body);
    assert_all_ok(ranks, 3);
    for (uint32_t i = 0; i < 3; i++)
        ranks[i].shared = NULL;
    mesh_start_processes(ranks, 3, process_body, pids);
    for (int i = 0; i < 3; i++)
        assert_int_equal(mesh_wait_process(pids[i]), ZCTA_OK);
    mesh_ranks_destroy(ranks, 3);
}

static void one_rank_alone_opens_nothing(void **state)
{
    struct mesh_rank ranks[1];
    const int before = mesh_count_fds();

    (void)state;
    mesh_ranks(ranks, 1, NULL, NULL);
    assert_true(mesh_rank_open(&ranks[0]));
    assert_int_equal(mesh_count_fds(), before);
    assert_int_equal(mesh_round(&ranks[0], 1, 0), ZCTA_OK);
    assert_true(zc_mesh_same_process(ranks[0].mesh, 0));
    mesh_rank_close(&ranks[0]);
    mesh_ranks_destroy(ranks, 1);
    zc_mesh_close(NULL);
}

static void timed_body(struct mesh_rank *rank)
{
    mesh_rank_open(rank);
    if (rank->mesh != NULL)
        mesh_round(rank, 1, 10 * S);
    mesh_rank_close(rank);
    if (rank->shared != NULL)
        *((uint64_t *)rank->shared + rank->rank) = rank->open_ns;
}

static int compare(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* Prints the median of several jobs' slowest ranks; the bound is loose, for sanitizers and busy
 * machines. */
static void eight_ranks_find_each_other_in_milliseconds(void **state)
{
    enum { JOBS = 15 };
    struct mesh_rank ranks[8];
    uint64_t slowest[2][JOBS] = {{0}};
    uint64_t *times = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pids[8];
    char root[32];

    (void)state;
    assert_ptr_not_equal(times, MAP_FAILED);
    for (int job = 0; job < 2 * JOBS; job++) {
        uint64_t *slow = &slowest[job & 1][job / 2];

        mesh_free_root(root);
        mesh_ranks(ranks, 8, root, "secret");
        for (uint32_t i = 0; i < 8; i++)
            ranks[i].shared = times;
        if (job & 1) {
            mesh_run_threads(ranks, 8, timed_body);
            assert_all_ok(ranks, 8);
        } else {
            mesh_start_processes(ranks, 8, timed_body, pids);
            for (int i = 0; i < 8; i++)
                assert_int_equal(mesh_wait_process(pids[i]), ZCTA_OK);
        }
        for (int i = 0; i < 8; i++)
            *slow = times[i] > *slow ? times[i] : *slow;
        mesh_ranks_destroy(ranks, 8);
    }
    munmap(times, 4096);
    for (int kind = 0; kind < 2; kind++) {
        uint64_t *times_of_kind = slowest[kind], median;

        qsort(times_of_kind, JOBS, sizeof *times_of_kind, compare);
        median = times_of_kind[JOBS / 2];
        print_message("8 ranks as %s: set up in %" PRIu64 " us (median of %d jobs, slowest rank), "
                      "worst %" PRIu64 " us\n",
                      kind ? "threads" : "processes", median / 1000, JOBS,
                      times_of_kind[JOBS - 1] / 1000);
        assert_true(median < 1 * S);
    }
}

static void nothing_stays_open_after_close(void **state)
{
    struct mesh_rank ranks[8];
    char root[32];
    const int before = mesh_count_fds();

    (void)state;
    for (int job = 0; job < 5; job++) {
        mesh_free_root(root);
        mesh_ranks(ranks, 8, root, "secret");
        mesh_run_threads(ranks, 8, rounds_body);
        assert_all_ok(ranks, 8);
        mesh_ranks_destroy(ranks, 8);
    }
    assert_int_equal(mesh_count_fds(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everybody_gets_everybodys_bytes_as_threads),
        cmocka_unit_test(everybody_gets_everybodys_bytes_as_processes),
        cmocka_unit_test(the_largest_message_and_none_come_in_the_order_of_the_list),
        cmocka_unit_test(descriptors_come_with_the_bytes),
        cmocka_unit_test(descriptors_that_nobody_claims_are_closed),
        cmocka_unit_test(threads_run_rounds_with_different_tags_at_once),
        cmocka_unit_test(rounds_are_found_by_tag_whatever_came_first),
        cmocka_unit_test(another_number_of_bytes_is_a_mismatch_that_names_the_rank),
        cmocka_unit_test(notices_reach_the_event_function_in_full),
        cmocka_unit_test(the_kernel_tells_who_is_in_the_same_process),
        cmocka_unit_test(one_rank_alone_opens_nothing),
        cmocka_unit_test(eight_ranks_find_each_other_in_milliseconds),
        cmocka_unit_test(nothing_stays_open_after_close),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
