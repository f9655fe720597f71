/* Symmetric windows through the public interface: zeroed memory that everybody reaches, the
 * contiguous view, registered memory; and that a window which cannot be made is refused on all
 * ranks at once and leaves nothing behind. */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "support_ranks.h"

static const size_t sizes[] = {1, 100, 4095, 4096, 4097, 65536, 300001};
enum { SIZES = sizeof sizes / sizeof sizes[0] };

static size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

/* What rank 0's process has while nobody does anything. */
static uint32_t count_resources(zcta_context *context)
{
    zcta_team *world = zcta_world(context);
    uint32_t count = 0;

    EXPECT_OK(context, zcta_barrier(world, NULL));
    if (zcta_team_rank(world) == 0)
        count = count_fds() * 1000 + count_shared_mappings();
    EXPECT_OK(context, zcta_barrier(world, NULL));
    return count;
}

/* ---- Memory ---- */

static void reach_peers(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context);
    const uint32_t rank = zcta_team_rank(world), count = zcta_team_rank_count(world);

    (void)data;
    for (size_t i = 0; i < SIZES; i++) {
        zcta_window *window = NULL;
        unsigned char *base;

        EXPECT_OK(context, zcta_window_alloc(world, sizes[i], &window));
        base = zcta_window_base(window);
        EXPECT((uintptr_t)base % page_bytes() == 0);
        EXPECT(zcta_window_bytes(window) == sizes[i]);
        EXPECT(zcta_window_peer(window, rank) == base);
        for (size_t at = 0; at < sizes[i]; at++)
            EXPECT(base[at] == 0);
        EXPECT_OK(context, zcta_barrier(world, NULL));
        /* Into the first and last byte of the next rank's part. */
        memset(zcta_window_peer(window, (rank + 1) % count), (int)rank + 1, 1);
        memset((char *)zcta_window_peer(window, (rank + 1) % count) + sizes[i] - 1, (int)rank + 1,
               1);
        EXPECT_OK(context, zcta_barrier(world, NULL));
        for (uint32_t peer = 0; peer < count; peer++) {
            const unsigned char *part = zcta_window_peer(window, peer);

            EXPECT(part[0] == (peer + count - 1) % count + 1);
            EXPECT(part[sizes[i] - 1] == part[0]);
        }
        EXPECT_OK(context, zcta_window_free(&window));
        EXPECT(window == NULL);
    }
}

static void memory_is_zeroed_aligned_and_reached_by_all(void **state)
{
    (void)state;
    run_as_threads(1, reach_peers, NULL);
    run_as_threads(3, reach_peers, NULL);
    run_as_processes(3, reach_peers, NULL);
}

static void view_parts(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context);
    const uint32_t count = zcta_team_rank_count(world), rank = zcta_team_rank(world);

    (void)data;
    for (size_t i = 0; i < SIZES; i++) {
        zcta_window *window = NULL;
        const void *view = NULL, *again = NULL;
        size_t stride = 0;

        EXPECT_OK(context, zcta_window_alloc(world, sizes[i], &window));
        EXPECT_OK(context, zcta_window_view(window, &view, &stride));
        EXPECT(stride == (sizes[i] + page_bytes() - 1) / page_bytes() * page_bytes());
        EXPECT_OK(context, zcta_window_view(window, &again, &stride));
        EXPECT(again == view);
        model_fill(zcta_window_base(window), 1, rank, sizes[i]);
        EXPECT_OK(context, zcta_barrier(world, NULL));
        for (uint32_t peer = 0; peer < count; peer++)
            for (size_t at = 0; at < sizes[i]; at++)
                EXPECT(((const unsigned char *)view)[peer * stride + at] ==
                       model_byte(1, peer, at));
        EXPECT_OK(context, zcta_window_free(&window));
    }
}

static void the_view_shows_all_parts_one_behind_the_other(void **state)
{
    (void)state;
    run_as_threads(3, view_parts, NULL);
    run_as_processes(3, view_parts, NULL);
}

static void write_to_the_view(zcta_context *context, void *data)
{
    zcta_window *window = NULL;
    const void *view = NULL;
    size_t stride = 0;
    pid_t child;

    (void)data;
    EXPECT_OK(context, zcta_window_alloc(zcta_world(context), 100, &window));
    EXPECT_OK(context, zcta_window_view(window, &view, &stride));
    child = fork();
    EXPECT(child >= 0);
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        *(volatile char *)(uintptr_t)view = 1;
        _exit(0);
    }
    EXPECT(wait_process(child, 10) == 256 + SIGSEGV);
    EXPECT(*(const char *)view == 0);
}

static void the_view_cannot_be_written(void **state)
{
    (void)state;
    run_as_processes(1, write_to_the_view, NULL);
}

/* ---- Registered memory ---- */

static void register_and_gather(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context);
    const uint32_t count = zcta_team_rank_count(world);
    const size_t bytes = 40000;
    unsigned char *own = malloc(bytes * count + 1);
    zcta_window *window = NULL;
    const void *view = NULL;
    size_t stride;

    (void)data;
    EXPECT(own != NULL);
    EXPECT_OK(context, zcta_window_register(world, own + 1, bytes * count, &window));
    EXPECT(zcta_window_base(window) == own + 1);
    gather_checked(context, world, own + 1, 100, 1);
    gather_checked(context, world, own + 1, bytes, 2);
    expect_error(context, zcta_window_view(window, &view, &stride), ZCTA_ERR_UNSUPPORTED,
                 "registered memory has no contiguous view");
    EXPECT(view == NULL);
    EXPECT_OK(context, zcta_window_free(&window));
    free(own);
}

static void threads_register_memory_they_have(void **state)
{
    (void)state;
    run_as_threads(4, register_and_gather, NULL);
    run_as_processes(1, register_and_gather, NULL);
}

static void register_between_processes(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context);
    static char own[4096];
    zcta_window *window = NULL;
    uint32_t before;

    (void)data;
    before = count_resources(context);
    expect_error(context, zcta_window_register(world, own, sizeof own, &window),
                 ZCTA_ERR_UNSUPPORTED, NULL);
    EXPECT(window == NULL && count_resources(context) == before);
    EXPECT_OK(context, zcta_window_alloc(world, 4096, &window));
    gather_checked(context, world, zcta_window_base(window), 100, 1);
}

static void processes_cannot_register_memory_and_all_are_told(void **state)
{
    (void)state;
    run_as_processes(3, register_between_processes, NULL);
}

/* Whether all ranks' memory overlaps or only one's: nobody gets the window. */
static void register_overlapping(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context);
    const uint32_t rank = zcta_team_rank(world);
    zcta_window *window = NULL, *second = NULL, *allocated = NULL;
    char *own = malloc(12288);

    (void)data;
    EXPECT(own != NULL);
    EXPECT_OK(context, zcta_window_register(world, own + 1000, 1000, &window));
    EXPECT_OK(context, zcta_window_alloc(world, 5000, &allocated));
    for (int i = 0; i < 4; i++) {
        char *const begins[] = {own + 1, own + 1000, own + 1999, own + 1500};

        expect_error(context, zcta_window_register(world, begins[i], 1000, &second),
                     ZCTA_ERR_INVALID, "overlaps");
        EXPECT(second == NULL);
    }
    expect_error(context, zcta_window_register(world, own, 3000, &second), ZCTA_ERR_INVALID,
                 "overlaps");
    expect_error(
        context,
        zcta_window_register(world, (char *)zcta_window_base(allocated) + 4999, 1, &second),
        ZCTA_ERR_INVALID, "overlaps");
    expect_error(context,
                 zcta_window_register(world, rank == 1 ? own + 1500 : own + 4000, 1000, &second),
                 ZCTA_ERR_INVALID, rank == 1 ? "overlaps" : "rank 1 ");
    EXPECT(second == NULL);
    /* Neighbours do not overlap. */
    EXPECT_OK(context, zcta_window_register(world, own, 1000, &second));
    EXPECT_OK(context, zcta_window_free(&second));
    EXPECT_OK(context, zcta_window_register(world, own + 2000, 1000, &second));
    gather_checked(context, world, own + 1000, 10, 1);
    gather_checked(context, world, own + 2000, 10, 2);
    EXPECT_OK(context, zcta_window_free(&second));
    EXPECT_OK(context, zcta_window_free(&window));
    free(own);
}

static void overlapping_registrations_are_refused_on_all_ranks(void **state)
{
    (void)state;
    run_as_threads(3, register_overlapping, NULL);
}

/* ---- Refused on all ranks ---- */

static void differ_in_size(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context);
    const uint32_t rank = zcta_team_rank(world), count = zcta_team_rank_count(world);
    zcta_window *window = NULL;
    zcta_error error;
    const uint32_t before = count_resources(context);

    (void)data;
    for (uint32_t odd = 0; odd < count; odd++) {
        expect_error(context, zcta_window_alloc(world, rank == odd ? 4097 : 4096, &window),
                     ZCTA_ERR_MISMATCH, "4097");
        EXPECT_OK(context, zcta_last_error(context, &error));
        EXPECT(error.rank == odd);
        EXPECT(window == NULL);
    }
    EXPECT(count_resources(context) == before);
    EXPECT_OK(context, zcta_window_alloc(world, 4096, &window));
    gather_checked(context, world, zcta_window_base(window), 100, 1);
}

static void different_sizes_are_refused_and_all_name_the_odd_rank(void **state)
{
    (void)state;
    run_as_threads(4, differ_in_size, NULL);
    run_as_processes(4, differ_in_size, NULL);
}

static void ask_for_nothing(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context);
    zcta_window *window = NULL;
    zcta_error error;

    (void)data;
    expect_error(context, zcta_window_alloc(world, 0, &window), ZCTA_ERR_INVALID, "0 bytes");
    expect_error(context, zcta_window_alloc(world, zcta_team_rank(world) == 1 ? 0 : 64, &window),
                 ZCTA_ERR_INVALID, NULL);
    EXPECT_OK(context, zcta_last_error(context, &error));
    EXPECT(error.rank == 1 && window == NULL);
    EXPECT_OK(context, zcta_window_alloc(world, 64, &window));
}

static void zero_bytes_on_one_rank_are_refused_on_all(void **state)
{
    (void)state;
    run_as_threads(3, ask_for_nothing, NULL);
    run_as_processes(3, ask_for_nothing, NULL);
}

static void ask_for_too_much(zcta_context *context, void *data)
{
    const size_t machine = (size_t)sysconf(_SC_PHYS_PAGES) * page_bytes();
    const size_t huge[] = {(size_t)1 << 60,  SIZE_MAX,          SIZE_MAX - page_bytes() + 1,
                           SIZE_MAX / 2 + 1, (size_t)INT64_MAX, machine + ((size_t)1 << 40)};
    zcta_team *world = zcta_world(context);
    zcta_window *window = NULL;
    zcta_error error;
    const uint32_t before = count_resources(context);
    const uint64_t start = now_ns();

    (void)data;
    for (size_t i = 0; i < sizeof huge / sizeof *huge; i++) {
        expect_error(context, zcta_window_alloc(world, huge[i], &window), ZCTA_ERR_NO_MEMORY,
                     "bytes are available");
        EXPECT(window == NULL);
    }
    /* One rank's failure is everybody's. */
    expect_error(context,
                 zcta_window_alloc(world, zcta_team_rank(world) == 1 ? SIZE_MAX : 4096, &window),
                 ZCTA_ERR_NO_MEMORY, NULL);
    EXPECT_OK(context, zcta_last_error(context, &error));
    EXPECT(error.rank == 1 && window == NULL);
    EXPECT(now_ns() - start < UINT64_C(5000000000) * SLOWNESS);
    EXPECT(count_resources(context) == before);
    EXPECT_OK(context, zcta_window_alloc(world, 4096, &window));
    gather_checked(context, world, zcta_window_base(window), 100, 1);
}

static void more_than_the_machine_has_is_refused_at_once_and_leaves_nothing(void **state)
{
    (void)state;
    run_as_threads(3, ask_for_too_much, NULL);
    run_as_processes(3, ask_for_too_much, NULL);
}

/* Rank 0 has only `spare` descriptors left. */
static zcta_status alloc_with_spare_descriptors(zcta_team *world, int spare, zcta_window **window)
{
    struct rlimit before, low;
    const int next = dup(STDERR_FILENO);
    zcta_status status;

    EXPECT(next >= 0 && close(next) == 0 && getrlimit(RLIMIT_NOFILE, &before) == 0);
    low = before;
    low.rlim_cur = (rlim_t)next + (rlim_t)spare;
    if (zcta_team_rank(world) == 0)
        EXPECT(setrlimit(RLIMIT_NOFILE, &low) == 0);
    status = zcta_window_alloc(world, 4096, window);
    EXPECT(setrlimit(RLIMIT_NOFILE, &before) == 0);
    return status;
}

static void run_out_of_descriptors(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context);
    _Atomic uint32_t *failures = data;
    const uint32_t before = count_resources(context), count = zcta_team_rank_count(world);

    for (int spare = 0; spare < 6; spare++) {
        zcta_window *window = NULL;
        const uint64_t start = now_ns();
        const zcta_status status = alloc_with_spare_descriptors(world, spare, &window);

        expect_error(context, status, status == ZCTA_OK ? ZCTA_OK : ZCTA_ERR_SYSTEM, NULL);
        EXPECT(now_ns() - start < UINT64_C(5000000000) * SLOWNESS);
        failures[spare] += status != ZCTA_OK;
        EXPECT(count_resources(context) == before || status == ZCTA_OK);
        EXPECT(failures[spare] == 0 || failures[spare] == count);
        EXPECT(zcta_team_status(world) == ZCTA_OK);
        if (status == ZCTA_OK) {
            gather_checked(context, world, zcta_window_base(window), 100, 1);
            EXPECT_OK(context, zcta_window_free(&window));
        }
        EXPECT(count_resources(context) == before);
    }
    EXPECT(failures[0] == count && failures[5] == 0);
}

static void without_descriptors_all_ranks_are_told_and_can_go_on(void **state)
{
    _Atomic uint32_t *failures = shared_zeroed(4096);

    (void)state;
    run_as_processes(3, run_out_of_descriptors, (void *)failures);
    munmap((void *)failures, 4096);
}

static void alloc_late(zcta_context *context, void *data)
{
    static const uint32_t ranks[] = {0, 1, 2};
    const zcta_team_params params = {.size = sizeof params, .timeout_ns = 200000000 * SLOWNESS};
    zcta_team *world = zcta_world(context), *team = NULL;
    zcta_window *window = NULL;
    zcta_status status;

    (void)data;
    EXPECT_OK(context, zcta_team_get(context, ranks, 3, &params, &team));
    if (zcta_team_rank(world) == 2)
        sleep_ms(500 * SLOWNESS);
    status = zcta_window_alloc(team, 4096, &window);
    expect_error(context, status, ZCTA_ERR_TIMEOUT, "rank 2 ");
    EXPECT(window == NULL && await_failure(team) == ZCTA_ERR_TIMEOUT);
    EXPECT_OK(context, zcta_barrier(world, NULL));
    expect_error(context, zcta_window_alloc(team, 4096, &window), ZCTA_ERR_TIMEOUT, "rank 2 ");
    EXPECT_OK(context, zcta_team_destroy(&team));
    EXPECT_OK(context, zcta_team_get(context, ranks, 3, &params, &team));
    EXPECT_OK(context, zcta_window_alloc(team, 4096, &window));
    for (uint32_t call = 0; call < 5; call++)
        gather_checked(context, team, zcta_window_base(window), 100, call);
}

static void a_rank_that_comes_too_late_fails_the_team_for_all(void **state)
{
    (void)state;
    run_as_threads(3, alloc_late, NULL);
    run_as_processes(3, alloc_late, NULL);
}

/* ---- The address map ---- */

static zcta_status look_up(zcta_context *context, const char *recv, size_t bytes)
{
    static const char send[20000];
    zcta_report report;

    return explain_all_gather(zcta_world(context), send, (void *)(uintptr_t)recv, bytes, NULL,
                              &report);
}

static void check_boundaries(zcta_context *context, zcta_window *window)
{
    const char *base = zcta_window_base(window);
    const size_t bytes = zcta_window_bytes(window);

    EXPECT_OK(context, look_up(context, base, bytes));
    EXPECT_OK(context, look_up(context, base + bytes - 1, 1));
    expect_error(context, look_up(context, base, bytes + 1), ZCTA_ERR_NOT_IN_WINDOW,
                 "reaches past the end");
    expect_error(context, look_up(context, base + bytes - 1, 2), ZCTA_ERR_NOT_IN_WINDOW,
                 "reaches past the end");
    expect_error(context, look_up(context, base + bytes, 1), ZCTA_ERR_NOT_IN_WINDOW,
                 "lies in no window");
    expect_error(context, look_up(context, base - 1, 1), ZCTA_ERR_NOT_IN_WINDOW,
                 "lies in no window");
}

enum { MANY = 300 };

static void map_many(zcta_context *context, void *data)
{
    static const uint32_t step = 7; /* shares no factor with MANY: a fixed shuffle */
    zcta_window *windows[MANY] = {NULL};

    (void)data;
    for (uint32_t i = 0; i < MANY; i++)
        EXPECT_OK(context, zcta_window_alloc(zcta_world(context), 1 + i * 37 % 12000, &windows[i]));
    for (uint32_t i = 0; i < MANY; i++)
        check_boundaries(context, windows[i]);
    for (uint32_t i = 0; i < MANY; i++) {
        zcta_window **window = &windows[i * step % MANY];
        const char *base = zcta_window_base(*window);

        EXPECT_OK(context, zcta_window_free(window));
        expect_error(context, look_up(context, base, 1), ZCTA_ERR_NOT_IN_WINDOW,
                     "lies in no window");
        if (i % 50 == 0)
            for (uint32_t j = i + 1; j < MANY; j++)
                check_boundaries(context, windows[j * step % MANY]);
    }
}

static void every_boundary_of_many_windows_is_found(void **state)
{
    struct rlimit limit;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    run_as_threads(1, map_many, NULL);
}

static void use_many(zcta_context *context, void *data)
{
    enum { WINDOWS = 100 };
    zcta_team *world = zcta_world(context);
    zcta_window *windows[WINDOWS] = {NULL};

    (void)data;
    for (uint32_t i = 0; i < WINDOWS; i++)
        EXPECT_OK(context, zcta_window_alloc(world, 1000, &windows[i]));
    /* More windows than the cache of settled calls has entries, over and over. */
    for (uint32_t call = 0; call < 3 * WINDOWS; call++)
        gather_checked(context, world, zcta_window_base(windows[call % WINDOWS]), 300, call);
    for (uint32_t i = 0; i < WINDOWS; i += 2)
        EXPECT_OK(context, zcta_window_free(&windows[i]));
    for (uint32_t i = 1; i < WINDOWS; i += 2)
        gather_checked(context, world, zcta_window_base(windows[i]), 300, i);
}

static void many_windows_are_used_in_turn(void **state)
{
    (void)state;
    run_as_threads(3, use_many, NULL);
    run_as_processes(3, use_many, NULL);
}

/* What was remembered of a call goes with its window. */
static void call_again_after_free(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context);
    zcta_window *window = NULL;
    char *recv, *own;

    (void)data;
    EXPECT_OK(context, zcta_window_alloc(world, 4096, &window));
    recv = zcta_window_base(window);
    own = recv + 100 * zcta_team_rank(world);
    gather_checked(context, world, recv, 100, 1);
    EXPECT_OK(context, zcta_window_free(&window));
    expect_error(context, zcta_all_gather(world, own, recv, 100, NULL, NULL),
                 ZCTA_ERR_NOT_IN_WINDOW, "lies in no window");
}

static void the_same_call_after_its_window_is_gone_is_refused(void **state)
{
    (void)state;
    run_as_threads(3, call_again_after_free, NULL);
    run_as_processes(3, call_again_after_free, NULL);
}

/* ---- /dev/shm ---- */

static void gather_large(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context);
    zcta_window *window = NULL;

    (void)data;
    EXPECT_OK(context, zcta_window_alloc(world, 4 << 20, &window));
    gather_checked(context, world, zcta_window_base(window), 1 << 20, 1);
}

/* False if this process may not make mounts of its own. */
static bool fill_shm(void)
{
    char page[4096] = {1};
    int fd;

    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("none", "/dev/shm", "tmpfs", 0, "size=4096") != 0)
        return false;
    fd = open("/dev/shm/fill", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    EXPECT(fd >= 0 && write(fd, page, sizeof page) == (ssize_t)sizeof page);
    EXPECT(write(fd, page, 1) < 0);
    close(fd);
    return true;
}

static void a_full_dev_shm_makes_no_difference(void **state)
{
    enum { SKIPPED = 77 };
    pid_t child;
    int result;

    (void)state;
    fflush(NULL);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (!fill_shm())
            _exit(SKIPPED);
        run_as_processes(3, gather_large, NULL);
        _exit(0);
    }
    result = wait_process(child, 60);
    if (result == SKIPPED)
        skip();
    assert_int_equal(result, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_zeroed_aligned_and_reached_by_all),
        cmocka_unit_test(the_view_shows_all_parts_one_behind_the_other),
        cmocka_unit_test(the_view_cannot_be_written),
        cmocka_unit_test(threads_register_memory_they_have),
        cmocka_unit_test(processes_cannot_register_memory_and_all_are_told),
        cmocka_unit_test(overlapping_registrations_are_refused_on_all_ranks),
        cmocka_unit_test(different_sizes_are_refused_and_all_name_the_odd_rank),
        cmocka_unit_test(zero_bytes_on_one_rank_are_refused_on_all),
        cmocka_unit_test(more_than_the_machine_has_is_refused_at_once_and_leaves_nothing),
        cmocka_unit_test(without_descriptors_all_ranks_are_told_and_can_go_on),
        cmocka_unit_test(a_rank_that_comes_too_late_fails_the_team_for_all),
        cmocka_unit_test(every_boundary_of_many_windows_is_found),
        cmocka_unit_test(many_windows_are_used_in_turn),
        cmocka_unit_test(the_same_call_after_its_window_is_gone_is_refused),
        cmocka_unit_test(a_full_dev_shm_makes_no_difference),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
