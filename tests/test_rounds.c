/* Rounds among ranks: what has begun on one ends on all, or the team fails on all; what a rank gave
 * up is taken back; a death is told by whoever sees it; and whoever is blamed is to blame, on all
 * ranks. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "device/host/host.h"
#include "support_ranks.h"

#define MS UINT64_C(1000000)

enum { BYTES = 4096, MANY = 6 };

/* ---- Sends that fail ---- */

/* Of this process: from the k-th message with a descriptor on, so many fail. */
static struct {
    int first, count, seen, error;
} fault;

ssize_t __real_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags);

ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags)
{
    if (fault.count > 0 && message->msg_controllen > 0 && ++fault.seen >= fault.first &&
        fault.seen < fault.first + fault.count) {
        errno = fault.error;
        return -1;
    }
    return __real_sendmsg(fd, message, flags);
}

struct send_case {
    int error, first, count;
};

/* A caller that tries again: either it gets what it asked for, or it is told that the team is over.
 */
static void allocate_and_gather(zcta_context *context, void *data)
{
    const struct send_case *one = data;
    zcta_team *world = zcta_world(context);
    const uint32_t rank = zcta_team_rank(world), count = zcta_team_rank_count(world);
    zcta_window *window = NULL;
    zcta_status status = zcta_barrier(world, NULL); /* others may be out of it, and fail, already */

    if (rank == 0) {
        fault.error = one->error;
        fault.first = one->first;
        fault.count = one->count;
    }
    for (int attempt = 0; status == ZCTA_OK && attempt < 3; attempt++) {
        status = zcta_window_alloc(world, (size_t)BYTES * count, &window);
        if (status == ZCTA_OK)
            break;
        status = attempt < 2 ? ZCTA_OK : status;
    }
    if (status != ZCTA_OK) {
        zcta_error error;

        EXPECT_OK(context, zcta_team_failure(world, &error));
        EXPECT(error.status != ZCTA_OK && error.rank == 0);
        return;
    }
    EXPECT(one->error != EPERM || one->count < 1000);
    gather_checked(context, world, zcta_window_base(window), BYTES, 7);
}

static void run_send_cases(const struct send_case *cases, size_t count)
{
    const struct ranks_options options = {.timeout_ns = 20000 * MS, .may_fail_to_finalize = true};

    for (size_t i = 0; i < count; i++) {
        struct send_case one = cases[i];

        run_as_processes_with(3, &options, allocate_and_gather, &one);
        memset(&fault, 0, sizeof fault); /* rank 0 may be this very process */
    }
}

static void a_message_that_cannot_go_now_goes_later(void **state)
{
    static const int errors[] = {ETOOMANYREFS, ENOBUFS, ENOMEM, EAGAIN, EINTR};

    (void)state;
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        for (int first = 1; first <= 2; first++)
            run_send_cases(&(struct send_case){errors[i], first, 3}, 1);
}

static void a_message_that_cannot_go_at_all_fails_the_team_on_all_ranks(void **state)
{
    (void)state;
    for (int first = 1; first <= 2; first++)
        run_send_cases(&(struct send_case){EPERM, first, 1000000}, 1);
}

/* Only one is lost: whoever goes on, nobody takes one round's part for another's. */
static void one_lost_message_never_makes_wrong_bytes(void **state)
{
    (void)state;
    for (int first = 1; first <= 2; first++)
        run_send_cases(&(struct send_case){EPERM, first, 1}, 1);
}

/* ---- Different calls ---- */

static void call_differently(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context), *part = NULL;
    zcta_window *window = NULL;

    (void)data;
    if (zcta_team_rank(world) == 1)
        expect_error(context, zcta_team_split(world, 0, 0, NULL, &part), ZCTA_ERR_MISMATCH,
                     "makes another call");
    else
        expect_error(context, zcta_window_alloc(world, BYTES, &window), ZCTA_ERR_MISMATCH,
                     "rank 1 makes another call");
    EXPECT(part == NULL && window == NULL);
    /* All know it, so the team goes on. */
    EXPECT_OK(context, zcta_window_alloc(world, BYTES * 3, &window));
    gather_checked(context, world, zcta_window_base(window), BYTES, 1);
    EXPECT_OK(context, zcta_window_free(&window));
}

static void ranks_that_make_different_calls_are_told_so_at_once(void **state)
{
    (void)state;
    run_as_threads(3, call_differently, NULL);
}

/* ---- Attempts ---- */

static void begin_differently(zcta_context *context, void *data)
{
    const uint32_t right[] = {0, 1, 2}, wrong[] = {0, 1, 7};
    const uint32_t rank = zcta_team_rank(zcta_world(context));
    const zcta_team_params hurried = {.size = sizeof hurried, .name = "x", .timeout_ns = 300 * MS};
    const zcta_team_params patient = {.size = sizeof patient, .name = "x"};
    zcta_team *team = NULL;

    (void)data;
    for (uint32_t i = 0; i < 3; i++) {
        const zcta_status status =
            zcta_team_get(context, i == rank ? wrong : right, 3, &hurried, &team);

        EXPECT(status == (i == rank ? ZCTA_ERR_INVALID : ZCTA_ERR_TIMEOUT));
        EXPECT_OK(context, zcta_barrier(zcta_world(context), NULL));
    }
    EXPECT_OK(context, zcta_team_get(context, right, 3, &patient, &team));
    EXPECT_OK(context, zcta_barrier(team, NULL));
    EXPECT_OK(context, zcta_team_destroy(&team));
    /* And once more from the beginning. */
    EXPECT_OK(context, zcta_team_get(context, right, 3, &patient, &team));
    EXPECT_OK(context, zcta_barrier(team, NULL));
}

static void a_refused_call_spoils_no_later_one(void **state)
{
    (void)state;
    run_as_threads(3, begin_differently, NULL);
}

static void give_up_often(zcta_context *context, void *data)
{
    const uint32_t ranks[] = {0, 1};
    zcta_team *world = zcta_world(context), *team = NULL;
    const zcta_team_params hurried = {.size = sizeof hurried, .name = "x", .timeout_ns = 5 * MS};
    uint32_t before;

    (void)data;
    EXPECT_OK(context, zcta_barrier(world, NULL));
    before = count_fds();
    for (int i = 0; i < 60 && zcta_team_rank(world) == 0; i++)
        EXPECT(zcta_team_get(context, ranks, 2, &hurried, &team) == ZCTA_ERR_TIMEOUT);
    EXPECT_OK(context, zcta_barrier(world, NULL));
    EXPECT(count_fds() == before);
    EXPECT_OK(context, zcta_team_get(context, ranks, 2, NULL, &team));
    EXPECT_OK(context, zcta_barrier(team, NULL));
}

static void what_a_rank_gave_up_leaves_nothing_with_the_others(void **state)
{
    const struct ranks_options options = {.timeout_ns = 30000 * MS};

    (void)state;
    run_as_processes_with(2, &options, give_up_often, NULL);
}

/* One rank comes when the others have long given up, twice. */
static void come_late(zcta_context *context, void *data)
{
    const uint32_t ranks[] = {0, 1, 2};
    const bool late = zcta_team_rank(zcta_world(context)) == 2;
    const zcta_team_params params = {.size = sizeof params,
                                     .timeout_ns = late ? 20000 * MS : 100 * MS};
    zcta_team *team = NULL;
    uint32_t attempts = 0;
    zcta_status status;

    (void)data;
    if (late)
        sleep_ms(350);
    do {
        status = zcta_team_get(context, ranks, 3, &params, &team);
        EXPECT(status == ZCTA_OK || status == ZCTA_ERR_TIMEOUT || status == ZCTA_ERR_PEER);
        attempts++;
    } while (status != ZCTA_OK && attempts < 300);
    EXPECT_OK(context, status);
}

static void ranks_that_try_again_meet_one_that_comes_late(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++)
        run_as_threads(3, come_late, NULL);
}

/* ---- More ranks than a process may have files ---- */

static void never_called(zcta_context *context, void *data)
{
    (void)context, (void)data;
    expectation_failed("nobody joins", __FILE__, __LINE__);
}

/* Ranks are processes here, so that the limit is theirs alone. */
static void a_limit_that_stands_in_the_way_is_told_at_once(void **state)
{
    const struct ranks_options options = {.timeout_ns = 60000 * MS, .may_fail_to_init = true};
    const uint64_t start = now_ns();
    struct rlimit before, small;
    pid_t pids[MANY];

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    small = before;
    small.rlim_cur = 16; /* for 6 ranks: 5 connections, 5 descriptors of memory, some more */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &small), 0);
    start_processes(MANY, &options, never_called, NULL, pids);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    for (uint32_t rank = 0; rank < MANY; rank++)
        assert_int_equal(wait_process(pids[rank], 60), 0);
    assert_true(now_ns() - start < 30000 * MS * SLOWNESS);
}

/* ---- What all ranks find out together ---- */

static _Thread_local bool no_memory;

zcta_status __real_zc_host_memory_alloc(struct zc_device *device, enum zc_where where, size_t bytes,
                                        uint32_t sharers, struct zc_memory **memory);
zcta_status __wrap_zc_host_memory_alloc(struct zc_device *device, enum zc_where where, size_t bytes,
                                        uint32_t sharers, struct zc_memory **memory);

zcta_status __wrap_zc_host_memory_alloc(struct zc_device *device, enum zc_where where, size_t bytes,
                                        uint32_t sharers, struct zc_memory **memory)
{
    if (no_memory)
        return zc_fail(device->diag, ZCTA_ERR_NO_MEMORY, "memory_alloc", 0, "none is left");
    return __real_zc_host_memory_alloc(device, where, bytes, sharers, memory);
}

static void allocate_on_some(zcta_context *context, void *data)
{
    const uint32_t failing = *(const uint32_t *)data;
    zcta_team *world = zcta_world(context), *part = NULL;
    const uint32_t rank = zcta_team_rank(world);
    zcta_window *window = NULL;

    for (int i = 0; i < 20; i++) {
        no_memory = (failing >> rank & 1) != 0;
        expect_error(context, zcta_team_split(world, 0, 0, NULL, &part), ZCTA_ERR_NO_MEMORY,
                     no_memory ? "none is left" : "its own message says why");
        expect_error(context, zcta_window_alloc(world, BYTES, &window), ZCTA_ERR_NO_MEMORY,
                     no_memory ? "none is left" : "its own message says why");
        no_memory = false;
    }
    EXPECT_OK(context, zcta_team_split(world, 0, 0, NULL, &part));
    EXPECT_OK(context, zcta_barrier(part, NULL));
}

/* Nobody waits, nothing fails but the call, and it can be made again. */
static void one_ranks_want_of_memory_is_every_ranks_answer(void **state)
{
    const uint64_t start = now_ns();
    uint32_t failing;

    (void)state;
    for (failing = 1; failing < 8; failing++)
        run_as_threads(3, allocate_on_some, &failing);
    assert_true(now_ns() - start < 60000 * MS * SLOWNESS);
}

/* ---- A failure that comes early ---- */

static _Thread_local uint32_t
    slow_ms; /* how long this rank takes to make its part of a team ready */

zcta_status __real_zc_host_attach(struct zc_device *device, struct zc_guard *guard);
zcta_status __wrap_zc_host_attach(struct zc_device *device, struct zc_guard *guard);

zcta_status __wrap_zc_host_attach(struct zc_device *device, struct zc_guard *guard)
{
    if (slow_ms > 0)
        sleep_ms(slow_ms);
    return __real_zc_host_attach(device, guard);
}

/* Rank 0 has made the team and given it up before rank 1 has made its own end of it ready. */
static void fail_before_it_is_made(zcta_context *context, void *data)
{
    const uint32_t ranks[] = {0, 1}, rank = zcta_team_rank(zcta_world(context));
    const zcta_team_params params = {
        .size = sizeof params, .name = "x", .timeout_ns = rank == 0 ? 100 * MS : 60000 * MS};
    zcta_team *team = NULL;
    zcta_error error;
    zcta_status status;

    (void)data;
    slow_ms = rank == 1 ? 400 : 0;
    status = zcta_team_get(context, ranks, 2, &params, &team);
    slow_ms = 0;
    if (status == ZCTA_OK)
        status = zcta_barrier(team, NULL);
    if (status == ZCTA_OK)
        status = zcta_barrier(team, NULL);
    EXPECT(status == ZCTA_ERR_TIMEOUT || status == ZCTA_ERR_PEER);
    EXPECT_OK(context, zcta_last_error(context, &error));
    EXPECT(error.rank == 1);
}

static void a_team_that_fails_while_it_is_made_fails_on_all_ranks(void **state)
{
    const struct ranks_options options = {.timeout_ns = 60000 * MS};
    const uint64_t start = now_ns();

    (void)state;
    run_as_threads_with(2, &options, fail_before_it_is_made, NULL);
    assert_true(now_ns() - start < 20000 * MS * SLOWNESS);
}

/* ---- Deaths ---- */

enum { TEAMS = 500, CROWD = 8, TEAMS_A_CALL = 10 };

struct deaths {
    uint32_t victims[2];
    _Atomic uint32_t ready, named[MANY];
};

/* While the teams with the dead rank fail, one without it works. */
static void fail_beside(zcta_context *context, zcta_team **teams, zcta_team *without,
                        zcta_window *window)
{
    for (uint32_t i = 0; i < TEAMS; i++) {
        if (i % TEAMS_A_CALL == 0) {
            gather_checked(context, without, zcta_window_base(window), BYTES, i);
            EXPECT_OK(context, zcta_barrier(without, NULL));
        }
        EXPECT(await_failure(teams[i]) == ZCTA_ERR_PEER);
    }
}

static void lose_many(zcta_context *context, void *data)
{
    const struct deaths *deaths = data;
    const uint32_t rank = zcta_team_rank(zcta_world(context));
    const uint32_t all[CROWD] = {0, 1, 2, 3, 4, 5, 6, 7};
    zcta_team **teams = calloc(TEAMS, sizeof *teams), *without = NULL;
    zcta_window *window = NULL;
    uint64_t begin;

    EXPECT(teams != NULL);
    for (uint32_t i = 0; i < TEAMS; i++) {
        char name[16];
        const zcta_team_params params = {.size = sizeof params, .name = name};

        snprintf(name, sizeof name, "t%u", i);
        EXPECT_OK(context, zcta_team_get(context, all, CROWD, &params, &teams[i]));
    }
    if (rank < CROWD - 1) {
        EXPECT_OK(context, zcta_team_get(context, all, CROWD - 1, NULL, &without));
        EXPECT_OK(context, zcta_window_alloc(without, (size_t)BYTES * CROWD, &window));
    }
    EXPECT_OK(context, zcta_barrier(zcta_world(context), NULL));
    if (rank == deaths->victims[0])
        raise(SIGKILL);
    begin = now_ns();
    fail_beside(context, teams, without, window);
    /* Far above what it takes, far below what it takes to tell each of them to everybody in turn,
     * or to let the calls of the other team wait for that. */
    EXPECT(now_ns() - begin < 5000 * MS * SLOWNESS);
    free(teams);
}

static void one_death_fails_hundreds_of_teams_together(void **state)
{
    const struct ranks_options options = {.timeout_ns = 120000 * MS, .may_fail_to_finalize = true};
    struct deaths deaths = {.victims = {CROWD - 1, CROWD - 1}};
    pid_t pids[CROWD];

    (void)state;
    start_processes(CROWD, &options, lose_many, &deaths, pids);
    for (uint32_t rank = 0; rank < CROWD; rank++)
        assert_int_equal(wait_process(pids[rank], 120), rank == CROWD - 1 ? 256 + SIGKILL : 0);
}

static void name_one(zcta_context *context, void *data)
{
    struct deaths *deaths = data;
    zcta_team *world = zcta_world(context);
    const uint32_t rank = zcta_team_rank(world);
    zcta_error error;

    EXPECT_OK(context, zcta_barrier(world, NULL));
    atomic_fetch_add(&deaths->ready, 1);
    if (rank == deaths->victims[0] || rank == deaths->victims[1])
        for (;;)
            pause();
    EXPECT(await_failure(world) == ZCTA_ERR_PEER);
    EXPECT_OK(context, zcta_team_failure(world, &error));
    atomic_store(&deaths->named[rank], error.rank);
}

/* Two die at once: either may be named, but by all the same. */
static void two_deaths_at_once_have_one_culprit(void **state)
{
    const struct ranks_options options = {.timeout_ns = 60000 * MS, .may_fail_to_finalize = true};

    (void)state;
    for (uint32_t i = 0; i < (UNDER_THREAD_SANITIZER ? 3 : 12); i++) {
        struct deaths *deaths = shared_zeroed(sizeof *deaths);
        uint32_t named = ZCTA_NO_RANK;
        pid_t pids[MANY];

        deaths->victims[0] = i % MANY;
        deaths->victims[1] = (i + 1 + i / MANY) % MANY;
        start_processes(MANY, &options, name_one, deaths, pids);
        while (atomic_load(&deaths->ready) < MANY)
            sleep_ms(1);
        kill(pids[deaths->victims[0]], SIGKILL);
        kill(pids[deaths->victims[1]], SIGKILL);
        for (uint32_t rank = 0; rank < MANY; rank++) {
            const bool dead = rank == deaths->victims[0] || rank == deaths->victims[1];

            assert_int_equal(wait_process(pids[rank], 60), dead ? 256 + SIGKILL : 0);
            if (dead)
                continue;
            if (named == ZCTA_NO_RANK)
                named = deaths->named[rank];
            assert_int_equal(deaths->named[rank], named);
        }
        assert_true(named == deaths->victims[0] || named == deaths->victims[1]);
        munmap(deaths, sizeof *deaths);
    }
}

/* ---- Children ---- */

struct bereaved {
    _Atomic uint32_t ready;
    _Atomic pid_t child;
};

/* The last rank leaves a child behind that has its connections open, and ends. */
static void leave_a_child(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context);
    const uint32_t rank = zcta_team_rank(world);
    struct bereaved *bereaved = data;

    atomic_fetch_add(&bereaved->ready, 1);
    if (rank == 2) {
        pid_t made;

        while (atomic_load(&bereaved->ready) < 3)
            sleep_ms(1);
        made = fork();

        if (made == 0) {
            for (;;)
                pause();
        }
        EXPECT(made > 0);
        atomic_store(&bereaved->child, made);
        raise(SIGKILL);
    }
    EXPECT(await_failure(world) == ZCTA_ERR_PEER);
}

static void a_death_is_seen_while_a_child_of_the_dead_lives(void **state)
{
    const struct ranks_options options = {.timeout_ns = 60000 * MS, .may_fail_to_finalize = true};
    struct bereaved *bereaved = shared_zeroed(sizeof *bereaved);
    pid_t pids[3];

    (void)state;
    start_processes(3, &options, leave_a_child, bereaved, pids);
    for (uint32_t rank = 0; rank < 3; rank++)
        assert_int_equal(wait_process(pids[rank], 40), rank == 2 ? 256 + SIGKILL : 0);
    assert_int_equal(kill(atomic_load(&bereaved->child), SIGKILL), 0);
    munmap(bereaved, sizeof *bereaved);
}

/* A child finalizes what it inherited, as a destructor would; its parent stays in the job. */
static void finalize_in_a_child(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context);
    zcta_window *window = NULL;
    int status = 0;
    pid_t child;

    (void)data;
    EXPECT_OK(context, zcta_window_alloc(world, BYTES * 3, &window));
    child = fork();
    if (child == 0) {
        zcta_error error;
        zcta_team *again = world;
        zcta_window *inherited = window;

        alarm(30);
        if (zcta_barrier(world, NULL) != ZCTA_ERR_INVALID ||
            zcta_window_free(&inherited) != ZCTA_ERR_INVALID ||
            zcta_team_destroy(&again) != ZCTA_ERR_INVALID ||
            zcta_last_error(context, &error) != ZCTA_OK || strstr(error.message, "fork()") == NULL)
            _exit(1);
        _exit(zcta_finalize(&context) == ZCTA_ERR_INVALID ? 0 : 2);
    }
    EXPECT(child > 0 && waitpid(child, &status, 0) == child);
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    gather_checked(context, world, zcta_window_base(window), BYTES, 3);
}

static void a_child_cannot_take_its_parent_out_of_the_job(void **state)
{
    (void)state;
    run_as_processes(3, finalize_in_a_child, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_that_cannot_go_now_goes_later),
        cmocka_unit_test(a_message_that_cannot_go_at_all_fails_the_team_on_all_ranks),
        cmocka_unit_test(one_lost_message_never_makes_wrong_bytes),
        cmocka_unit_test(ranks_that_make_different_calls_are_told_so_at_once),
        cmocka_unit_test(a_refused_call_spoils_no_later_one),
        cmocka_unit_test(what_a_rank_gave_up_leaves_nothing_with_the_others),
        cmocka_unit_test(ranks_that_try_again_meet_one_that_comes_late),
        cmocka_unit_test(a_limit_that_stands_in_the_way_is_told_at_once),
        cmocka_unit_test(one_ranks_want_of_memory_is_every_ranks_answer),
        cmocka_unit_test(a_team_that_fails_while_it_is_made_fails_on_all_ranks),
        cmocka_unit_test(one_death_fails_hundreds_of_teams_together),
        cmocka_unit_test(two_deaths_at_once_have_one_culprit),
        cmocka_unit_test(a_death_is_seen_while_a_child_of_the_dead_lives),
        cmocka_unit_test(a_child_cannot_take_its_parent_out_of_the_job),
    };

    return cmocka_run_group_tests_name("rounds", tests, NULL, NULL);
}
