/* Two launches that say the same of themselves never become one job: both fail, with a sentence
 * that says so. Ranks here are processes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "support_mesh.h"
#include "support_ranks.h"

enum {
    RANKS = 3,
    INTERLEAVINGS = UNDER_THREAD_SANITIZER ? 4 : 20, /* of two launches of three ranks */
    MIXED = 77,                                      /* exit status: a round with strangers */
};

/* What a process leaves for the test, and waits for from it. */
struct outcome {
    atomic_int step, go_on;
    zcta_error error;
    uint64_t ns;
};

static struct outcome *outcomes;

static int set_up(void **state)
{
    (void)state;
    outcomes = shared_zeroed(1024 * sizeof *outcomes);
    return 0;
}

static void await(atomic_int *word, int value)
{
    for (int i = 0; *word != value; i++) {
        if (i > 60000)
            abort();
        usleep(1000);
    }
}

/* A rank of launch `shared`: gathers the launches' numbers. */
static void gather_body(struct mesh_rank *rank)
{
    const uint64_t launch = (uint64_t)(uintptr_t)rank->shared;
    uint32_t order[RANKS] = {0, 1, 2};
    uint64_t all[RANKS] = {0};
    const struct zc_exchange exchange = {.ranks = order,
                                         .count = rank->count,
                                         .tag = 1,
                                         .mine = &launch,
                                         .all = all,
                                         .bytes = sizeof launch,
                                         .fd = -1,
                                         .deadline = zc_deadline_in(60 * S),
                                         .call = "test",
                                         .what = "did not come"};

    if (!mesh_rank_open(rank))
        return;
    rank->status = zc_mesh_exchange(rank->mesh, &exchange);
    for (uint32_t i = 0; i < rank->count && rank->status == ZCTA_OK; i++)
        if (all[i] != launch)
            _exit(MIXED);
    mesh_rank_close(rank);
}

static void kept_body(struct mesh_rank *rank, struct outcome *outcome)
{
    const uint64_t begin = zc_now_ns();

    outcome->step = 1;
    gather_body(rank);
    outcome->error = rank->error;
    outcome->ns = zc_now_ns() - begin;
}

/* Bit i of `order` tells of which launch the i-th process is. */
static void start_interleaved(unsigned order, bool backwards, const char *root, const char *token,
                              struct outcome *kept, pid_t pids[2 * RANKS])
{
    uint32_t next[2] = {0, 0};

    for (int i = 0; i < 2 * RANKS; i++) {
        const unsigned launch = order >> i & 1;
        const uint32_t at = next[launch]++;
        struct mesh_rank rank;

        mesh_ranks(&rank, 1, root, token);
        rank.rank = backwards ? RANKS - 1 - at : at;
        rank.count = RANKS;
        rank.timeout_ns = 6 * S;
        rank.settle_ns = 60 * S; /* longer than any machine needs to start the others */
        rank.shared = (void *)(uintptr_t)(launch + 1); // NOLINT: a number, not a pointer
        fflush(NULL);
        pids[i] = fork();
        if (pids[i] == 0) {
            alarm(60);
            kept_body(&rank, &kept[i]);
            _exit((int)rank.status);
        }
        /* Most times each has begun before the next: the order means something. */
        for (int wait = 0; kept[i].step == 0 && wait < 20; wait++)
            usleep(1000);
        mesh_ranks_destroy(&rank, 1);
    }
}

static uint32_t count_bits(unsigned bits)
{
    uint32_t count = 0;

    for (; bits != 0; bits &= bits - 1)
        count++;
    return count;
}

static void no_order_of_starting_mixes_two_launches(void **state)
{
    static pid_t pids[2 * INTERLEAVINGS][2 * RANKS];
    static char roots[2 * INTERLEAVINGS][32];
    uint32_t jobs = 0;

    (void)state;
    for (unsigned order = 0; order < 1u << (2 * RANKS) && jobs < 2 * INTERLEAVINGS; order++) {
        if (count_bits(order) != RANKS)
            continue;
        for (int backwards = 0; backwards < 2; backwards++, jobs++) {
            mesh_free_root(roots[jobs]);
            start_interleaved(order, backwards != 0, roots[jobs], jobs % 4 < 2 ? NULL : "secret",
                              &outcomes[jobs * 2 * RANKS], pids[jobs]);
        }
    }
    for (uint32_t job = 0; job < jobs; job++) {
        uint32_t conflicts = 0;

        for (int i = 0; i < 2 * RANKS; i++) {
            const int status = mesh_wait_process(pids[job][i]);
            const struct outcome *kept = &outcomes[job * 2 * RANKS + (uint32_t)i];

            if (status != ZCTA_ERR_RENDEZVOUS && status != ZCTA_ERR_TIMEOUT)
                fail_msg("job %u, process %d: %d %s", job, i, status, kept->error.message);
            assert_true(kept->error.message[0] != '\0');
            conflicts += strstr(kept->error.message, "two launches use one root") != NULL;
        }
        assert_true(conflicts >= 2);
    }
}

/* Rank 0 of one launch and rank 1 of the other are all that rank 0 waits for; its own rank 1 comes
 * while it looks whether there is one. */
static void the_right_rank_may_come_after_the_wrong_one(void **state)
{
    struct mesh_rank ranks[3];
    pid_t pids[3];
    char root[32];

    (void)state;
    mesh_free_root(root);
    mesh_ranks(ranks, 3, root, "secret");
    for (int i = 0; i < 3; i++) {
        ranks[i].count = 2;
        ranks[i].rank = i != 0;
        ranks[i].settle_ns = 60 * S;
        ranks[i].timeout_ns = 60 * S;
        ranks[i].shared = (void *)(uintptr_t)(1 + (i == 1)); // NOLINT: a number
    }
    mesh_start_processes(ranks, 2, gather_body, pids);
    usleep(300000);
    mesh_start_processes(&ranks[2], 1, gather_body, &pids[2]);
    for (int i = 0; i < 3; i++)
        assert_int_equal(mesh_wait_process(pids[i]), ZCTA_ERR_RENDEZVOUS);
    mesh_ranks_destroy(ranks, 3);
}

/* The two ranks 0 of two launches meet, and both fail; the first one's other ranks come after that,
 * and need not wait for the deadline. */
static void who_comes_after_the_launches_have_met_is_told_so(void **state)
{
    struct mesh_rank ranks[2 + RANKS - 1];
    pid_t pids[2 + RANKS - 1];
    char root[32];
    int stays;

    (void)state;
    mesh_free_root(root);
    mesh_ranks(ranks, 2 + RANKS - 1, root, NULL);
    for (uint32_t i = 0; i < 2 + RANKS - 1; i++) {
        ranks[i].count = RANKS;
        ranks[i].rank = i < 2 ? 0 : i - 1;
        ranks[i].settle_ns = ranks[i].timeout_ns = 60 * S;
        ranks[i].linger_ns = 60 * S;
        ranks[i].shared = (void *)(uintptr_t)(1 + (i == 1)); // NOLINT: a number
    }
    mesh_start_processes(ranks, 2, gather_body, pids);
    /* Whichever was second does not get as far as to stay. */
    for (stays = 1; waitpid(pids[1 - stays], NULL, WNOHANG) == 0; stays = 1 - stays)
        usleep(1000);
    mesh_start_processes(&ranks[2], RANKS - 1, gather_body, &pids[2]);
    for (uint32_t i = 2; i < 2 + RANKS - 1; i++)
        assert_int_equal(mesh_wait_process(pids[i]), ZCTA_ERR_RENDEZVOUS);
    kill(pids[stays], SIGKILL);
    waitpid(pids[stays], NULL, 0);
    mesh_ranks_destroy(ranks, 2 + RANKS - 1);
}

static void formed_body(struct mesh_rank *rank)
{
    struct outcome *mine = &outcomes[rank->rank];

    if (!mesh_rank_open(rank))
        return;
    mine->step = 1;
    await(&mine->go_on, 1);
    mesh_rank_close(rank);
}

/* `late` is rank 1 of a job whose ranks are there already, or were. */
static zcta_status try_again(const char *root, struct mesh_rank *late)
{
    mesh_ranks(late, 1, root, "secret");
    late->rank = 1;
    late->count = 2;
    late->timeout_ns = 500 * MS;
    return mesh_rank_open(late) ? ZCTA_OK : late->status;
}

static void a_survivor_of_an_earlier_launch_is_seen(void **state)
{
    struct mesh_rank ranks[2], late;
    pid_t pids[2];
    char root[32], text[32];

    (void)state;
    memset(outcomes, 0, 8 * sizeof *outcomes);
    mesh_free_root(root);
    mesh_ranks(ranks, 2, root, "secret");
    mesh_start_processes(ranks, 2, formed_body, pids);
    await(&outcomes[0].step, 1);
    await(&outcomes[1].step, 1);
    assert_int_equal(try_again(root, &late), ZCTA_ERR_RENDEZVOUS);
    assert_non_null(strstr(late.error.message, "are both rank 1 of a job at"));
    snprintf(text, sizeof text, "%d and %d", (int)pids[1], (int)getpid());
    assert_non_null(strstr(late.error.message, text));
    mesh_ranks_destroy(&late, 1);
    /* Once it is gone its seat is free: what is missing then is rank 0. */
    outcomes[0].go_on = outcomes[1].go_on = 1;
    mesh_wait_process(pids[0]);
    mesh_wait_process(pids[1]);
    assert_int_equal(try_again(root, &late), ZCTA_ERR_TIMEOUT);
    mesh_ranks_destroy(&late, 1);
    mesh_ranks_destroy(ranks, 2);
}

/* Ends, and leaves a child that has all its descriptors. */
static void leave_child_body(struct mesh_rank *rank)
{
    struct outcome *mine = &outcomes[rank->rank];
    pid_t child;

    if (!mesh_rank_open(rank))
        return;
    child = fork();
    if (child == 0) {
        alarm(60);
        await(&mine->go_on, 1);
        mine->step = 2;
        _exit(0);
    }
    mine->step = 1;
    _exit(0);
}

static void a_child_that_was_left_behind_is_no_rank(void **state)
{
    struct mesh_rank ranks[2], late;
    pid_t pids[2];
    char root[32];

    (void)state;
    memset(outcomes, 0, 8 * sizeof *outcomes);
    mesh_free_root(root);
    mesh_ranks(ranks, 2, root, "secret");
    mesh_start_processes(ranks, 2, leave_child_body, pids);
    mesh_wait_process(pids[0]);
    mesh_wait_process(pids[1]);
    assert_int_equal(outcomes[1].step, 1);
    assert_int_equal(try_again(root, &late), ZCTA_ERR_TIMEOUT);
    mesh_ranks_destroy(&late, 1);
    outcomes[0].go_on = outcomes[1].go_on = 1;
    await(&outcomes[0].step, 2);
    await(&outcomes[1].step, 2);
    mesh_ranks_destroy(ranks, 2);
}

/* Job after job at one root; each process is another rank every time. */
static void successive_body(struct mesh_rank *rank)
{
    enum { JOBS = 20 };

    for (uint32_t i = 0; i < JOBS && rank->status == ZCTA_OK; i++) {
        const zcta_init_params params = {.size = sizeof params,
                                         .rank = (rank->rank + i) % RANKS,
                                         .rank_count = RANKS,
                                         .root = rank->root,
                                         .token = i % 2 == 0 ? NULL : "secret",
                                         .device = ZCTA_DEVICE_HOST,
                                         .timeout_ns = 30 * S,
                                         .error = &rank->error};
        zcta_context *context = NULL;

        rank->status = zcta_init(&params, &context);
        if (rank->status == ZCTA_OK)
            rank->status = zcta_finalize(&context);
    }
    if (rank->status != ZCTA_OK)
        print_error("rank %u: %s\n", rank->rank, rank->error.message);
}

static void jobs_may_follow_each_other_at_one_root(void **state)
{
    struct mesh_rank ranks[RANKS];
    pid_t pids[RANKS];
    char root[32];

    (void)state;
    mesh_free_root(root);
    for (int named = 0; named < 2; named++) {
        if (named)
            setenv("ZEROCTA_JOB", "test", 1);
        mesh_ranks(ranks, RANKS, root, NULL);
        mesh_start_processes(ranks, RANKS, successive_body, pids);
        for (int i = 0; i < RANKS; i++)
            assert_int_equal(mesh_wait_process(pids[i]), ZCTA_OK);
        mesh_ranks_destroy(ranks, RANKS);
    }
    unsetenv("ZEROCTA_JOB");
}

/* Two contexts of one process, both alive. */
static void twice_body(struct mesh_rank *rank)
{
    struct mesh_rank second = *rank;

    if (!mesh_rank_open(rank))
        return;
    zc_diag_init(&second.diag);
    if (mesh_rank_open(&second))
        mesh_round(&second, 1, 30 * S);
    rank->status = second.status;
    mesh_rank_close(&second);
    zc_diag_destroy(&second.diag);
    mesh_rank_close(rank);
}

static void a_process_may_join_twice(void **state)
{
    struct mesh_rank ranks[RANKS];
    pid_t pids[RANKS];
    char root[32];

    (void)state;
    mesh_free_root(root);
    mesh_ranks(ranks, RANKS, root, NULL);
    mesh_start_processes(ranks, RANKS, twice_body, pids);
    for (int i = 0; i < RANKS; i++)
        assert_int_equal(mesh_wait_process(pids[i]), ZCTA_OK);
    mesh_ranks_destroy(ranks, RANKS);
}

static void two_launches_with_names_of_their_own_do_not_meet(void **state)
{
    struct mesh_rank ranks[2][2];
    pid_t pids[2][2];
    char roots[2][32];

    (void)state;
    mesh_free_root(roots[0]);
    mesh_free_root(roots[1]);
    for (int launch = 0; launch < 2; launch++) {
        setenv("ZEROCTA_JOB", launch == 0 ? "first" : "second", 1);
        mesh_ranks(ranks[launch], 2, roots[launch], "secret");
        for (int i = 0; i < 2; i++)
            ranks[launch][i].shared = (void *)(uintptr_t)(launch + 1); // NOLINT: a number
        mesh_start_processes(ranks[launch], 2, gather_body, pids[launch]);
    }
    for (int launch = 0; launch < 2; launch++) {
        for (int i = 0; i < 2; i++)
            assert_int_equal(mesh_wait_process(pids[launch][i]), ZCTA_OK);
        mesh_ranks_destroy(ranks[launch], 2);
    }
    unsetenv("ZEROCTA_JOB");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_order_of_starting_mixes_two_launches),
        cmocka_unit_test(the_right_rank_may_come_after_the_wrong_one),
        cmocka_unit_test(who_comes_after_the_launches_have_met_is_told_so),
        cmocka_unit_test(a_survivor_of_an_earlier_launch_is_seen),
        cmocka_unit_test(a_child_that_was_left_behind_is_no_rank),
        cmocka_unit_test(jobs_may_follow_each_other_at_one_root),
        cmocka_unit_test(a_process_may_join_twice),
        cmocka_unit_test(two_launches_with_names_of_their_own_do_not_meet),
    };

    return cmocka_run_group_tests(tests, set_up, NULL);
}
