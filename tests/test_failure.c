/* Ranks that die, stop, leave or never come, as processes: the others are told in time who it was,
 * all the same; they go on without it, end by themselves, and leave nothing behind. */
#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "support_ports.h"
#include "support_ranks.h"

enum { RANKS = 4, LARGE = 400000, SMALL = 64 };

#define MS UINT64_C(1000000)

/* What the ranks of a job and the test tell each other. */
struct board {
    uint32_t victim;
    size_t bytes;         /* 0: sizes change from call to call */
    zcta_status expected; /* what the survivors get */
    uint64_t patience_ns; /* how soon after the failure */
    _Atomic uint64_t failed_at;
    _Atomic uint32_t calls[RANKS];
    _Atomic uint32_t passed; /* ranks that saw all that they should */
    _Atomic uint32_t named[RANKS];
    bool quiet; /* the victim sleeps instead of calling */
};

static struct board *make_board(uint32_t victim, size_t bytes)
{
    struct board *board = shared_zeroed(sizeof *board);

    *board = (struct board){.victim = victim,
                            .bytes = bytes,
                            .expected = ZCTA_ERR_PEER,
                            .patience_ns = 1000 * MS * SLOWNESS};
    return board;
}

static zcta_team *team_without(zcta_context *context, uint32_t victim, const char *name)
{
    const zcta_team_params params = {.size = sizeof params, .name = name};
    uint32_t ranks[RANKS], count = 0;
    zcta_team *team = NULL;

    for (uint32_t rank = 0; rank < RANKS; rank++)
        if (rank != victim)
            ranks[count++] = rank;
    if (zcta_team_rank(zcta_world(context)) != victim)
        EXPECT_OK(context, zcta_team_get(context, ranks, count, &params, &team));
    return team;
}

/* A survivor after its call has failed: told who, for good; everything without the victim works. */
static void expect_named(zcta_context *context, struct board *board, zcta_status status)
{
    zcta_team *world = zcta_world(context);
    const uint64_t failed_at = atomic_load(&board->failed_at), now = now_ns();
    zcta_error error, failure;

    EXPECT(failed_at != 0 && now - failed_at < board->patience_ns);
    expect_error(context, status, board->expected, "rank ");
    EXPECT_OK(context, zcta_last_error(context, &error));
    atomic_store(&board->named[zcta_team_rank(world)], error.rank);
    EXPECT(error.rank == board->victim);
    expect_error(context, zcta_team_status(world), board->expected, error.message);
    EXPECT_OK(context, zcta_team_failure(world, &failure));
    EXPECT(failure.status == board->expected && failure.rank == board->victim);
    EXPECT(strcmp(failure.message, error.message) == 0);
    expect_error(context, zcta_barrier(world, NULL), board->expected, error.message);
}

static size_t next_bytes(const struct board *board, uint32_t call)
{
    static const size_t sizes[] = {SMALL, LARGE, 1, 20000, 16384};

    return board->bytes != 0 ? board->bytes : sizes[call % 5];
}

/* Collectives without an end, until one fails. */
static zcta_status gather_until_failure(zcta_context *context, struct board *board, void *recv)
{
    zcta_team *world = zcta_world(context);
    const uint32_t rank = zcta_team_rank(world);
    zcta_status status = ZCTA_OK;

    for (uint32_t call = 0; status == ZCTA_OK; call++) {
        const size_t bytes = next_bytes(board, call);

        if (board->quiet && rank == board->victim && call == 10) {
            atomic_store(&board->calls[rank], 1000);
            sleep_ms(20000);
        }
        status = zcta_all_gather(world, (char *)recv + rank * bytes, recv, bytes, NULL, NULL);
        atomic_fetch_add(&board->calls[rank], 1);
    }
    return status;
}

static void survive(zcta_context *context, void *data)
{
    struct board *board = data;
    zcta_team *before = team_without(context, board->victim, "before"), *after;
    zcta_window *window = NULL;
    zcta_status status;

    EXPECT_OK(context, zcta_window_alloc(zcta_world(context), LARGE * RANKS, &window));
    status = gather_until_failure(context, board, zcta_window_base(window));
    /* Only a victim that was stopped and goes on gets here. */
    if (before == NULL) {
        EXPECT(status == ZCTA_ERR_TIMEOUT || status == ZCTA_ERR_PEER);
        atomic_fetch_add(&board->passed, 1);
        return;
    }
    expect_named(context, board, status);
    after = team_without(context, board->victim, "after");
    for (uint32_t call = 0; call < 5; call++) {
        gather_checked(context, before, zcta_window_base(window), SMALL, call);
        gather_checked(context, after, zcta_window_base(window), LARGE, call);
    }
    EXPECT_OK(context, zcta_team_destroy(&after));
    EXPECT_OK(context, zcta_window_free(&window));
    atomic_fetch_add(&board->passed, 1);
}

static const struct ranks_options bereaved = {.may_fail_to_finalize = true};

/* Waits until the victim has made `calls` calls. */
static void await_calls(struct board *board, uint32_t calls)
{
    const uint64_t end = now_ns() + 20000 * MS;

    while (atomic_load(&board->calls[board->victim]) < calls)
        EXPECT(now_ns() < end);
}

static void strike(struct board *board, pid_t victim, int signal_number)
{
    atomic_store(&board->failed_at, now_ns());
    EXPECT(kill(victim, signal_number) == 0);
}

static void kill_one(struct board *board, uint32_t calls, uint32_t delay_us)
{
    pid_t pids[RANKS];

    start_processes(RANKS, &bereaved, survive, board, pids);
    await_calls(board, calls);
    usleep(delay_us);
    strike(board, pids[board->victim], SIGKILL);
    for (uint32_t rank = 0; rank < RANKS; rank++)
        EXPECT(wait_process(pids[rank], 30) == (rank == board->victim ? 256 + SIGKILL : 0));
    EXPECT(atomic_load(&board->passed) == RANKS - 1);
    munmap(board, sizeof *board);
}

/* ---- Killed ---- */

static void a_rank_killed_among_large_copies_is_named_at_once(void **state)
{
    (void)state;
    kill_one(make_board(2, LARGE), 20, 700);
}

static void a_rank_killed_among_small_calls_is_named_at_once(void **state)
{
    (void)state;
    kill_one(make_board(0, SMALL), 500, 100);
}

/* The others have long gone to sleep when it happens. */
static void a_rank_killed_while_the_others_sleep_is_named_at_once(void **state)
{
    struct board *board = make_board(1, SMALL);

    (void)state;
    board->quiet = true;
    kill_one(board, 1000, 200000);
}

static void ranks_killed_at_random_moments_are_named_at_once(void **state)
{
    uint32_t seed = 12345;

    (void)state;
    for (uint32_t i = 0; i < (UNDER_THREAD_SANITIZER ? 5 : 30); i++) {
        seed = seed * 1664525 + 1013904223;
        kill_one(make_board(seed >> 28 & 3, 0), 1 + (seed >> 20 & 31), seed >> 8 & 2047);
    }
}

/* ---- Stopped ---- */

static void stop_one(uint32_t victim, size_t bytes, uint32_t calls, uint32_t delay_us)
{
    const struct ranks_options hurried = {.may_fail_to_finalize = true,
                                          .timeout_ns = 2000 * MS * SLOWNESS};
    struct board *board = make_board(victim, bytes);
    pid_t pids[RANKS];

    board->expected = ZCTA_ERR_TIMEOUT;
    board->patience_ns = 20000 * MS * SLOWNESS;
    start_processes(RANKS, &hurried, survive, board, pids);
    await_calls(board, calls);
    usleep(delay_us);
    strike(board, pids[victim], SIGSTOP);
    for (uint32_t rank = 0; rank < RANKS; rank++)
        if (rank != victim)
            EXPECT(wait_process(pids[rank], 30) == 0);
    EXPECT(atomic_load(&board->passed) == RANKS - 1);
    EXPECT(kill(pids[victim], SIGCONT) == 0);
    EXPECT(wait_process(pids[victim], 30) == 0);
    EXPECT(atomic_load(&board->passed) == RANKS);
    munmap(board, sizeof *board);
}

static void a_stopped_rank_is_named_by_all_after_the_timeout(void **state)
{
    uint32_t seed = 99;

    (void)state;
    stop_one(3, LARGE, 20, 300);
    for (uint32_t i = 0; i < (UNDER_THREAD_SANITIZER ? 1 : 3); i++) {
        seed = seed * 1664525 + 1013904223;
        stop_one(seed >> 28 & 3, i % 2 ? SMALL : LARGE, 5 + (seed >> 20 & 63), seed >> 8 & 2047);
    }
}

/* ---- Leaving ---- */

static void leave_early(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context);
    struct board *board = data;
    zcta_status status;
    zcta_error error;

    EXPECT_OK(context, zcta_barrier(world, NULL));
    if (zcta_team_rank(world) == board->victim)
        return;
    status = zcta_barrier(world, NULL);
    EXPECT(status == ZCTA_ERR_TIMEOUT || status == ZCTA_ERR_PEER);
    EXPECT_OK(context, zcta_last_error(context, &error));
    EXPECT(error.rank == board->victim && error.status == status);
    atomic_fetch_add(&board->passed, 1);
}

static void a_rank_that_finalizes_early_is_named_within_the_timeout(void **state)
{
    const struct ranks_options hurried = {.may_fail_to_finalize = true,
                                          .timeout_ns = 1500 * MS * SLOWNESS};
    struct board *board = make_board(1, 0);
    const uint64_t start = now_ns();

    (void)state;
    run_as_processes_with(RANKS, &hurried, leave_early, board);
    assert_int_equal(atomic_load(&board->passed), RANKS - 1);
    run_as_threads_with(RANKS, &hurried, leave_early, board);
    assert_int_equal(atomic_load(&board->passed), 2 * (RANKS - 1));
    assert_true(now_ns() - start < 20000 * MS * SLOWNESS);
    munmap(board, sizeof *board);
}

/* exit() without a zcta_finalize() is a death like any other. */
static void exit_early(zcta_context *context, void *data)
{
    struct board *board = data;

    EXPECT_OK(context, zcta_barrier(zcta_world(context), NULL));
    atomic_fetch_add(&board->calls[0], 1);
    if (zcta_team_rank(zcta_world(context)) == board->victim) {
        while (atomic_load(&board->calls[0]) < RANKS)
            sleep_ms(1);
        atomic_store(&board->failed_at, now_ns());
        _exit(0);
    }
    expect_named(context, board, zcta_barrier(zcta_world(context), NULL));
    atomic_fetch_add(&board->passed, 1);
}

static void a_rank_that_exits_without_a_word_is_named_at_once(void **state)
{
    struct board *board = make_board(0, 0);

    (void)state;
    run_as_processes_with(RANKS, &bereaved, exit_early, board);
    assert_int_equal(atomic_load(&board->passed), RANKS - 1);
    munmap(board, sizeof *board);
}

/* ---- Held up by somebody else ---- */

/* Rank 1 does not call. The root waits for it, and the others, if they do not have it all by then,
 * for the root; all name rank 1. */
static void broadcast_without_one(zcta_context *context, void *data)
{
    struct board *board = data;
    zcta_team *world = zcta_world(context);
    zcta_window *window = NULL;
    zcta_error failure;
    unsigned char *recv;
    zcta_status status = ZCTA_OK;

    EXPECT_OK(context, zcta_window_alloc(world, LARGE, &window));
    recv = zcta_window_base(window);
    if (zcta_team_rank(world) != board->victim)
        status = zcta_broadcast(world, recv, recv, board->bytes, 0, NULL, NULL);
    EXPECT(status == ZCTA_ERR_TIMEOUT || (status == ZCTA_OK && zcta_team_rank(world) != 0));
    EXPECT(await_failure(world) == ZCTA_ERR_TIMEOUT);
    EXPECT_OK(context, zcta_team_failure(world, &failure));
    EXPECT(failure.rank == board->victim);
    /* Who leaves first would be named by who has not heard yet. */
    atomic_fetch_add(&board->passed, 1);
    while (atomic_load(&board->passed) < RANKS)
        sleep_ms(1);
}

static void who_holds_up_all_is_named(void **state)
{
    static const size_t sizes[] = {SMALL, 30000, LARGE};
    const struct ranks_options hasty = {.timeout_ns = 300 * MS, .may_fail_to_finalize = true};

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct board *board = make_board(1, sizes[i]);

        run_as_processes_with(RANKS, &hasty, broadcast_without_one, board);
        munmap(board, sizeof *board);
    }
}

/* ---- Leaving after a failure that was handled ---- */

/* When each survivor leaves, in steps of 60 ms, and whether it gives its team back before. */
struct farewell {
    uint32_t steps[RANKS];
    bool destroy;
    FILE *words; /* what the survivors log after they have handled the failure */
    _Atomic uint32_t joined, through;
};

static void handle_and_leave(zcta_context *context, void *data)
{
    struct farewell *f = data;
    const uint32_t rank = zcta_team_rank(zcta_world(context));
    zcta_window *window = NULL;
    zcta_team *team;

    atomic_fetch_add(&f->joined, 1);
    while (atomic_load(&f->joined) < RANKS)
        sleep_ms(1);
    if (rank == RANKS - 1)
        raise(SIGKILL);
    EXPECT(await_failure(zcta_world(context)) == ZCTA_ERR_PEER);
    team = team_without(context, RANKS - 1, "survivors");
    EXPECT_OK(context, zcta_window_alloc(team, LARGE * RANKS, &window));
    gather_checked(context, team, zcta_window_base(window), LARGE, 1);
    EXPECT(dup2(fileno(f->words), STDERR_FILENO) == STDERR_FILENO);
    /* All are through with the team before anybody leaves. */
    atomic_fetch_add(&f->through, 1);
    while (atomic_load(&f->through) < RANKS - 1)
        sleep_ms(1);
    if (f->destroy) {
        EXPECT_OK(context, zcta_window_free(&window));
        EXPECT_OK(context, zcta_team_destroy(&team));
    }
    sleep_ms(60 * f->steps[rank]);
}

static void leaving_after_a_handled_failure_is_silent(void **state)
{
    static const uint32_t orders[][RANKS] = {{0, 1, 2}, {2, 1, 0}, {1, 0, 1}, {0, 0, 0}};
    const char *level = getenv("ZEROCTA_LOG");
    char before[16];
    char line[600] = "";

    (void)state;
    snprintf(before, sizeof before, "%s", level);
    setenv("ZEROCTA_LOG", "warn", 1);
    for (size_t i = 0; i < 2 * sizeof orders / sizeof *orders; i++) {
        struct farewell *f = shared_zeroed(sizeof *f);

        memcpy(f->steps, orders[i / 2], sizeof f->steps);
        f->destroy = i % 2 == 1;
        f->words = tmpfile();
        assert_non_null(f->words);
        run_as_processes_with(RANKS, &bereaved, handle_and_leave, f);
        rewind(f->words);
        if (fgets(line, sizeof line, f->words) != NULL)
            fail_msg("order %zu: %s", i, line);
        fclose(f->words);
        munmap(f, sizeof *f);
    }
    setenv("ZEROCTA_LOG", before, 1);
}

/* ---- The living ---- */

struct mourners {
    bool dies[RANKS];
    _Atomic uint32_t joined, passed;
};

/* As the header shows it. */
static zcta_status get_team_of_the_living(zcta_context *context, zcta_team **team)
{
    uint32_t alive[RANKS], count;
    zcta_status status;

    do {
        count = RANKS;
        status = zcta_context_ranks_alive(context, alive, &count);
        if (status == ZCTA_OK)
            status = zcta_team_get(context, alive, count, NULL, team);
    } while (status == ZCTA_ERR_PEER);
    return status;
}

static void go_on_with_the_living(zcta_context *context, void *data)
{
    struct mourners *m = data;
    const uint32_t rank = zcta_team_rank(zcta_world(context));
    uint32_t alive[RANKS] = {99, 99, 99, 99}, count = 0, expected = 0;
    zcta_window *window = NULL;
    zcta_team *team = NULL;

    EXPECT_OK(context, zcta_context_ranks_alive(context, NULL, &count));
    EXPECT(count <= RANKS);
    atomic_fetch_add(&m->joined, 1);
    while (atomic_load(&m->joined) < RANKS)
        sleep_ms(1);
    if (m->dies[rank])
        raise(SIGKILL);
    EXPECT(await_failure(zcta_world(context)) == ZCTA_ERR_PEER);
    EXPECT_OK(context, get_team_of_the_living(context, &team));
    for (uint32_t i = 0; i < RANKS; i++)
        if (!m->dies[i])
            EXPECT(zcta_team_world_rank(team, expected++) == i);
    EXPECT(zcta_team_rank_count(team) == expected);
    EXPECT_OK(context, zcta_window_alloc(team, LARGE * RANKS, &window));
    gather_checked(context, team, zcta_window_base(window), LARGE, 1);
    /* Room for one: the first, and how many there are. */
    count = 1;
    EXPECT_OK(context, zcta_context_ranks_alive(context, alive, &count));
    EXPECT(alive[1] == 99 && !m->dies[alive[0]] && count <= expected);
    atomic_fetch_add(&m->passed, 1);
}

static void survivors_find_each_other(void **state)
{
    static const bool deaths[][RANKS] = {
        {false, false, false, true}, {true, false, false, false}, {false, true, true, false}};

    (void)state;
    for (uint32_t i = 0; i < (UNDER_THREAD_SANITIZER ? 3 : 12); i++) {
        struct mourners *m = shared_zeroed(sizeof *m);
        uint32_t living = 0;

        memcpy(m->dies, deaths[i % 3], sizeof m->dies);
        for (uint32_t rank = 0; rank < RANKS; rank++)
            living += !m->dies[rank];
        run_as_processes_with(RANKS, &bereaved, go_on_with_the_living, m);
        assert_int_equal(atomic_load(&m->passed), living);
        munmap(m, sizeof *m);
    }
}

static void list_alone(zcta_context *context, void *data)
{
    uint32_t alive[2] = {99, 99}, count = 2;

    (void)data;
    EXPECT_OK(context, zcta_context_ranks_alive(context, alive, &count));
    EXPECT(count == 1 && alive[0] == 0 && alive[1] == 99);
}

static void a_rank_alone_is_alive(void **state)
{
    (void)state;
    run_as_threads(1, list_alone, NULL);
}

/* ---- During set-up ---- */

typedef zcta_status set_up(zcta_context *context);

static zcta_status set_up_window(zcta_context *context)
{
    zcta_window *window = NULL;
    const zcta_status status = zcta_window_alloc(zcta_world(context), 1 << 20, &window);

    EXPECT(window == NULL);
    return status;
}

static zcta_status set_up_team(zcta_context *context)
{
    static const uint32_t ranks[RANKS] = {3, 2, 1, 0};
    zcta_team *team = NULL;
    const zcta_status status = zcta_team_get(context, ranks, RANKS, NULL, &team);

    EXPECT(team == NULL);
    return status;
}

static zcta_status set_up_part(zcta_context *context)
{
    zcta_team *team = NULL;
    const zcta_status status = zcta_team_split(zcta_world(context), 0, 0, NULL, &team);

    EXPECT(team == NULL);
    return status;
}

struct set_up_board {
    struct board board;
    set_up *call;
    _Atomic uint32_t ready;
};

static void set_up_without_one(zcta_context *context, void *data)
{
    struct set_up_board *board = data;
    zcta_error error;

    atomic_fetch_add(&board->ready, 1);
    if (zcta_team_rank(zcta_world(context)) == board->board.victim) {
        while (atomic_load(&board->ready) < RANKS)
            sleep_ms(1);
        sleep_ms(30);
        atomic_store(&board->board.failed_at, now_ns());
        raise(SIGKILL);
    }
    expect_error(context, board->call(context), ZCTA_ERR_PEER, NULL);
    EXPECT_OK(context, zcta_last_error(context, &error));
    if (error.rank != board->board.victim)
        fprintf(stderr, "rank %u names rank %u: %s\n", zcta_team_rank(zcta_world(context)),
                error.rank, error.message);
    EXPECT(error.rank == board->board.victim);
    EXPECT(now_ns() - atomic_load(&board->board.failed_at) < 10000 * MS * SLOWNESS);
    atomic_fetch_add(&board->board.passed, 1);
}

static void a_rank_killed_during_set_up_is_named_at_once(void **state)
{
    static set_up *const calls[] = {set_up_window, set_up_team, set_up_part};

    (void)state;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        struct set_up_board *board = shared_zeroed(sizeof *board);

        *board = (struct set_up_board){.board = {.victim = (uint32_t)i}, .call = calls[i]};
        run_as_processes_with(RANKS, &bereaved, set_up_without_one, board);
        assert_int_equal(atomic_load(&board->board.passed), RANKS - 1);
        munmap(board, sizeof *board);
    }
}

/* ---- During zcta_init() ---- */

struct init_board {
    char root[32];
    uint32_t victim;
    uint64_t timeout_ns;
    _Atomic uint32_t passed;
};

static void init_without_one(struct init_board *board, uint32_t rank)
{
    zcta_error error = {0};
    const zcta_init_params params = {.size = sizeof params,
                                     .rank = rank,
                                     .rank_count = RANKS,
                                     .root = board->root,
                                     .token = "a test's token",
                                     .timeout_ns = board->timeout_ns,
                                     .error = &error};
    const uint64_t start = now_ns();
    zcta_context *context = NULL;
    const zcta_status status = zcta_init(&params, &context);

    EXPECT(context == NULL && status == error.status);
    EXPECT(status == ZCTA_ERR_TIMEOUT || status == ZCTA_ERR_PEER || status == ZCTA_ERR_RENDEZVOUS);
    if (error.rank != board->victim)
        fprintf(stderr, "rank %u names rank %u: %s\n", rank, error.rank, error.message);
    EXPECT(error.rank == board->victim);
    EXPECT(now_ns() - start < board->timeout_ns + 10000 * MS * SLOWNESS);
    atomic_fetch_add(&board->passed, 1);
}

static void a_rank_that_never_comes_to_init_is_named_by_all(void **state)
{
    static const uint32_t victims[] = {0, 2};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct init_board *board = shared_zeroed(sizeof *board);
        pid_t pids[RANKS] = {0};

        board->victim = victims[i];
        board->timeout_ns = 2000 * MS * SLOWNESS;
        snprintf(board->root, sizeof board->root, "127.0.0.1:%u", free_port());
        fflush(NULL);
        for (uint32_t rank = 0; rank < RANKS; rank++) {
            if (rank == board->victim)
                continue;
            pids[rank] = fork();
            assert_true(pids[rank] >= 0);
            if (pids[rank] == 0) {
                init_without_one(board, rank);
                _exit(0);
            }
        }
        for (uint32_t rank = 0; rank < RANKS; rank++)
            if (rank != board->victim)
                assert_int_equal(wait_process(pids[rank], 20), 0);
        assert_int_equal(atomic_load(&board->passed), RANKS - 1);
        munmap(board, sizeof *board);
    }
}

static void come_and_go(zcta_context *context, void *data)
{
    (void)data;
    (void)zcta_barrier(zcta_world(context), NULL);
}

/* Killed at any moment of zcta_init(): the others get in or out within the timeout. */
static void a_rank_killed_inside_init_holds_nobody_up(void **state)
{
    const struct ranks_options options = {
        .may_fail_to_init = true, .may_fail_to_finalize = true, .timeout_ns = 2000 * MS * SLOWNESS};
    uint32_t seed = 4711;

    (void)state;
    for (uint32_t i = 0; i < (UNDER_THREAD_SANITIZER ? 2 : 8); i++) {
        pid_t pids[RANKS];

        seed = seed * 1664525 + 1013904223;
        start_processes(RANKS, &options, come_and_go, NULL, pids);
        usleep(seed >> 16 & 8191);
        assert_int_equal(kill(pids[seed >> 30], SIGKILL), 0);
        for (uint32_t rank = 0; rank < RANKS; rank++) {
            const int status = wait_process(pids[rank], 20);

            assert_true(status == 0 || (rank == seed >> 30 && status == 256 + SIGKILL));
        }
    }
}

/* ---- Nothing is left ---- */

static void miss_a_call(zcta_context *context, void *data)
{
    static const uint32_t ranks[] = {0, 1, 2};
    zcta_team *world = zcta_world(context), *team = NULL;
    zcta_window *window = NULL;
    zcta_host_stream *stream = NULL;
    zcta_plan *plan = NULL;
    char *recv;

    (void)data;
    EXPECT_OK(context, zcta_team_get(context, ranks, 3, NULL, &team));
    EXPECT_OK(context, zcta_window_alloc(team, 3 * LARGE, &window));
    EXPECT_OK(context, zcta_host_stream_create(context, &stream));
    recv = zcta_window_base(window);
    EXPECT_OK(context,
              plan_all_gather(team, recv + LARGE * zcta_team_rank(team), recv, LARGE, NULL, &plan));
    if (zcta_team_rank(world) != 1) {
        EXPECT_OK(context, zcta_plan_run(plan, stream));
        EXPECT(zcta_barrier(world, NULL) == ZCTA_ERR_TIMEOUT);
    } else {
        sleep_ms(600 * SLOWNESS);
    }
    /* Everything is left to zcta_finalize(), with a failed plan still on the stream. */
}

static uint32_t count_named_memory(void)
{
    DIR *directory = opendir("/dev/shm");
    struct dirent *entry;
    uint32_t count = 0;

    while (directory != NULL && (entry = readdir(directory)) != NULL)
        count += strstr(entry->d_name, "zerocta") != NULL;
    if (directory != NULL)
        closedir(directory);
    return count;
}

static void a_failed_job_leaves_no_descriptor_mapping_or_process(void **state)
{
    const struct ranks_options hurried = {.may_fail_to_finalize = true,
                                          .timeout_ns = 1500 * MS * SLOWNESS};
    const uint32_t fds = count_fds(), mappings = count_shared_mappings();

    (void)state;
    run_as_threads_with(3, &hurried, miss_a_call, NULL);
    assert_int_equal(count_fds(), fds);
    assert_int_equal(count_shared_mappings(), mappings);
    assert_int_equal(count_named_memory(), 0);
    /* No child is left, of this test or of any before. */
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rank_killed_among_large_copies_is_named_at_once),
        cmocka_unit_test(a_rank_killed_among_small_calls_is_named_at_once),
        cmocka_unit_test(a_rank_killed_while_the_others_sleep_is_named_at_once),
        cmocka_unit_test(ranks_killed_at_random_moments_are_named_at_once),
        cmocka_unit_test(a_stopped_rank_is_named_by_all_after_the_timeout),
        cmocka_unit_test(a_rank_that_finalizes_early_is_named_within_the_timeout),
        cmocka_unit_test(a_rank_that_exits_without_a_word_is_named_at_once),
        cmocka_unit_test(who_holds_up_all_is_named),
        cmocka_unit_test(leaving_after_a_handled_failure_is_silent),
        cmocka_unit_test(survivors_find_each_other),
        cmocka_unit_test(a_rank_alone_is_alive),
        cmocka_unit_test(a_rank_killed_during_set_up_is_named_at_once),
        cmocka_unit_test(a_rank_that_never_comes_to_init_is_named_by_all),
        cmocka_unit_test(a_rank_killed_inside_init_holds_nobody_up),
        cmocka_unit_test(a_failed_job_leaves_no_descriptor_mapping_or_process),
    };

    setenv("ZEROCTA_LOG", "error", 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
