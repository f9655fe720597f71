/* Memory in a process that is not ours: what its machine and its control groups leave, what its
 * limits and signals allow, and what a peer may do to it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "api/objects.h"
#include "base/memory_limits.h"
#include "base/shared_file.h"
#include "support_group.h"
#include "support_ranks.h"

#define MIB ((size_t)1 << 20)

/* ---- fallocate() as some kernels have it ---- */

/* Larger pieces are given up, as if a signal came meanwhile. Test programs link with --wrap. */
static size_t interrupted_above = SIZE_MAX;

int __real_fallocate(int fd, int mode, off_t offset, off_t bytes);
int __wrap_fallocate(int fd, int mode, off_t offset, off_t bytes);

int __wrap_fallocate(int fd, int mode, off_t offset, off_t bytes)
{
    if ((size_t)bytes <= interrupted_above)
        return __real_fallocate(fd, mode, offset, bytes);
    errno = EINTR;
    return -1;
}

/* ---- A fake /proc and /sys ---- */

struct tree {
    char root[64];
};

static void make_file(const struct tree *tree, const char *name, const char *text)
{
    char path[512];
    FILE *file;

    snprintf(path, sizeof path, "%s%s", tree->root, name);
    for (char *at = path + strlen(tree->root) + 1; (at = strchr(at, '/')) != NULL; *at++ = '/') {
        *at = '\0';
        assert_true(mkdir(path, 0755) == 0 || errno == EEXIST);
    }
    file = fopen(path, "we");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static int make_tree(void **state)
{
    static struct tree tree;

    snprintf(tree.root, sizeof tree.root, "/tmp/zerocta-limits-XXXXXX");
    assert_non_null(mkdtemp(tree.root));
    make_file(&tree, "/proc/meminfo", "MemTotal: 9000000 kB\nMemAvailable:    1024 kB\n");
    *state = &tree;
    return 0;
}

static int remove_tree(void **state)
{
    const struct tree *tree = *state;
    char command[128];

    snprintf(command, sizeof command, "rm -r '%s'", tree->root);
    return system(command) == 0 ? 0 : -1; /* NOLINT(cert-env33-c): the test's own folder */
}

static void expect_left(const struct tree *tree, uint64_t bytes, const char *of)
{
    struct zc_memory_limits limits;
    struct zc_memory_room room;

    zc_memory_limits_find(&limits, tree->root);
    zc_memory_limits_ask(&limits, &room);
    assert_int_equal(room.left, bytes);
    assert_non_null(strstr(room.what, of));
    assert_in_range(room.most, bytes, UINT64_MAX);
}

static void without_groups_the_machine_counts(void **state)
{
    expect_left(*state, 1024 * 1024, "machine");
}

static void without_proc_there_is_still_a_bound(void **state)
{
    const struct tree nothing = {.root = "/nowhere"};
    struct zc_memory_limits limits;
    struct zc_memory_room room;

    (void)state;
    zc_memory_limits_find(&limits, nothing.root);
    zc_memory_limits_ask(&limits, &room);
    assert_in_range(room.left, 1, UINT64_MAX / 2);
}

static void every_group_above_a_nested_one_counts(void **state)
{
    make_file(*state, "/proc/self/cgroup", "0::/jobs/mine/step\n");
    make_file(*state, "/proc/self/mountinfo",
              "24 1 0:2 / /elsewhere rw - tmpfs tmpfs rw\n"
              "25 1 0:3 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n");
    make_file(*state, "/sys/fs/cgroup/jobs/mine/step/memory.max", "max\n");
    make_file(*state, "/sys/fs/cgroup/jobs/mine/step/memory.current", "100\n");
    make_file(*state, "/sys/fs/cgroup/jobs/mine/memory.max", "max\n");
    make_file(*state, "/sys/fs/cgroup/jobs/mine/memory.current", "100\n");
    make_file(*state, "/sys/fs/cgroup/jobs/memory.max", "5000\n");
    make_file(*state, "/sys/fs/cgroup/jobs/memory.current", "2000\n");
    expect_left(*state, 3000, "control group");
    make_file(*state, "/sys/fs/cgroup/jobs/mine/step/memory.max", "700\n");
    expect_left(*state, 600, "control group");
    /* Files that are cached go when memory is needed. */
    make_file(*state, "/sys/fs/cgroup/jobs/memory.stat", "anon 7\ninactive_file 30\nfile 5\n");
    make_file(*state, "/sys/fs/cgroup/jobs/mine/step/memory.stat",
              "anon 7\ninactive_file 30\nactive_file 20\n");
    expect_left(*state, 650, "control group");
    make_file(*state, "/sys/fs/cgroup/jobs/mine/memory.max", "50\n");
    expect_left(*state, 0, "control group");
}

static void version_1_counts_too(void **state)
{
    make_file(*state, "/proc/self/cgroup",
              "9:cpu,cpuacct:/other\n4:hugetlb,memory:/batch/7\n0::/\n");
    make_file(*state, "/proc/self/mountinfo",
              "30 1 0:9 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
              "31 1 0:4 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,hugetlb,memory\n"
              "32 1 0:5 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
    make_file(*state, "/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    make_file(*state, "/sys/fs/cgroup/memory/memory.usage_in_bytes", "4000\n");
    make_file(*state, "/sys/fs/cgroup/memory/batch/7/memory.limit_in_bytes", "900\n");
    make_file(*state, "/sys/fs/cgroup/memory/batch/7/memory.usage_in_bytes", "500\n");
    make_file(*state, "/sys/fs/cgroup/memory/batch/7/memory.stat",
              "inactive_file 1\ntotal_inactive_file 100\n");
    expect_left(*state, 500, "control group");
}

/* In a container the group's path may begin outside, or the mount show only a part. */
static void a_container_finds_its_group(void **state)
{
    make_file(*state, "/sys/fs/cgroup/memory.max", "5000\n");
    make_file(*state, "/sys/fs/cgroup/memory.current", "1000\n");
    make_file(*state, "/proc/self/cgroup", "0::/docker/abc\n");
    make_file(*state, "/proc/self/mountinfo",
              "25 1 0:3 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n");
    expect_left(*state, 4000, "control group");
    make_file(*state, "/proc/self/cgroup", "0::/../../elsewhere\n");
    make_file(*state, "/proc/self/mountinfo", "25 1 0:3 / /sys/fs/cgroup ro - cgroup2 c rw\n");
    expect_left(*state, 4000, "control group");
    make_file(*state, "/proc/self/mountinfo", "nonsense\n - cgroup2\n25 1 0:3 / - cgroup2\n");
    expect_left(*state, 1024 * 1024, "machine");
}

/* ---- A real control group ---- */

struct group {
    char folder[GROUP_PATH];
    size_t limit;
};

static void make_group(struct group *group, size_t limit)
{
    group->limit = limit;
    for (size_t version = 0; version < ZC_LIMITS_HIERARCHIES; version++)
        if (group_make(version, getpid(), limit, group->folder))
            return;
    print_message("no memory control group can be made here: not tested\n");
    skip();
}

/* Rank by rank, before any of them allocates. */
static void enter_group(zcta_context *context, const struct group *group)
{
    EXPECT(group_write(group->folder, "cgroup.procs", (uint64_t)getpid()));
    EXPECT_OK(context, zcta_barrier(zcta_world(context), NULL));
}

static void ask_for_more_than_the_group_has(zcta_context *context, void *data)
{
    const struct group *group = data;
    zcta_team *world = zcta_world(context);
    const uint32_t count = zcta_team_rank_count(world);
    zcta_window *window = NULL;

    enter_group(context, group);
    /* Each alone would find room; together they have more than the group may ever have, or more
     * than it has left. */
    for (size_t parts = 2; parts <= 4; parts += 2) {
        expect_error(context, zcta_window_alloc(world, group->limit / parts, &window),
                     ZCTA_ERR_NO_MEMORY, NULL);
        EXPECT(window == NULL);
        EXPECT_OK(context, zcta_barrier(world, NULL)); /* all ranks have given back their parts */
    }
    EXPECT_OK(context, zcta_window_alloc(world, group->limit / 2 / count, &window));
    gather_checked(context, world, zcta_window_base(window), 1000, 1);
}

static void ranks_together_stay_within_their_group(void **state)
{
    struct group group = {.limit = 0};

    (void)state;
    make_group(&group, 512 * MIB);
    run_as_processes(4, ask_for_more_than_the_group_has, &group);
    group_remove(group.folder);
}

/* ---- Several ranks at once ---- */

/* So many ranks that a piece of each is more than there is. */
static void what_all_ranks_ask_for_is_added_up(void **state)
{
    struct zc_memory_limits limits;
    struct zc_memory_room room;
    uint32_t sharers;
    int fd;

    (void)state;
    zc_memory_limits_find(&limits, "");
    zc_memory_limits_ask(&limits, &room);
    sharers = (uint32_t)(room.left / MIB * 2);
    assert_int_equal(zc_shared_file_make(NULL, MIB, 1, 0, &fd), ZCTA_OK);
    close(fd);
    assert_int_equal(zc_shared_file_make(NULL, MIB, sharers, 0, &fd), ZCTA_ERR_NO_MEMORY);
}

/* ---- Limits and signals ---- */

static void lower_file_size(uint64_t bytes)
{
    const struct rlimit limit = {.rlim_cur = bytes, .rlim_max = RLIM_INFINITY};

    EXPECT(setrlimit(RLIMIT_FSIZE, &limit) == 0);
}

static void use_small_and_large_windows(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context);
    zcta_window *small = NULL, *large = NULL;

    (void)data;
    if (zcta_team_rank(world) == 1)
        lower_file_size(MIB);
    EXPECT_OK(context, zcta_window_alloc(world, 65536, &small));
    expect_error(context, zcta_window_alloc(world, 2 * MIB, &large), ZCTA_ERR_SYSTEM,
                 zcta_team_rank(world) == 1 ? "ulimit -f" : "rank 1");
    gather_checked(context, world, zcta_window_base(small), 1000, 1);
    lower_file_size(RLIM_INFINITY);
    EXPECT_OK(context, zcta_window_alloc(world, 2 * MIB, &large));
}

static void a_limit_of_file_sizes_is_an_error(void **state)
{
    (void)state;
    run_as_processes(2, use_small_and_large_windows, NULL);
}

static void a_limit_of_file_sizes_at_the_start_is_an_error(void **state)
{
    const pid_t child = fork();

    (void)state;
    if (child == 0) {
        zcta_error error = {0};
        const zcta_init_params params = {
            .size = sizeof params, .rank_count = 1, .device = ZCTA_DEVICE_HOST, .error = &error};
        zcta_context *context = NULL;

        lower_file_size(64 << 10);
        EXPECT(zcta_init(&params, &context) == ZCTA_ERR_SYSTEM);
        EXPECT(strstr(error.message, "ulimit -f") != NULL);
        _exit(0);
    }
    assert_int_equal(wait_process(child, 60), 0);
}

static void allocate_and_gather(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context);
    zcta_window *window = NULL;
    const size_t bytes = *(const size_t *)data;

    EXPECT_OK(context, zcta_window_alloc(world, bytes, &window));
    gather_checked(context, world, zcta_window_base(window), bytes / zcta_team_rank_count(world),
                   1);
}

static void pieces_get_smaller_until_they_fit_between_two_signals(void **state)
{
    size_t bytes = 40 * MIB + 4096;

    (void)state;
    interrupted_above = 100000;
    run_as_threads(2, allocate_and_gather, &bytes);
    interrupted_above = SIZE_MAX;
}

static void signals_that_leave_no_time_end_in_a_deadline(void **state)
{
    zcta_error error = {0};
    const zcta_init_params params = {.size = sizeof params,
                                     .rank_count = 1,
                                     .device = ZCTA_DEVICE_HOST,
                                     .timeout_ns = 100000000,
                                     .error = &error};
    zcta_context *context = NULL;

    (void)state;
    interrupted_above = 0;
    assert_int_equal(zcta_init(&params, &context), ZCTA_ERR_TIMEOUT);
    interrupted_above = SIZE_MAX;
    assert_non_null(strstr(error.message, "signals"));
}

/* ---- Peers ---- */

static void try_to_shrink(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context);
    zcta_window *window = NULL;
    uint32_t found = 0;

    (void)data;
    EXPECT_OK(context, zcta_window_alloc(world, 65536, &window));
    for (int fd = 0; fd < 256; fd++) {
        char path[32], name[64] = "";

        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        if (readlink(path, name, sizeof name - 1) < 0 || strstr(name, "memfd:zerocta") == NULL)
            continue;
        found++;
        EXPECT(ftruncate(fd, 0) < 0 && errno == EPERM);
        EXPECT(ftruncate(fd, 1 << 30) < 0 && errno == EPERM);
        EXPECT(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) < 0);
    }
    EXPECT(found > 0);
    EXPECT_OK(context, zcta_barrier(world, NULL));
    gather_checked(context, world, zcta_window_base(window), 1000, 1);
}

static void nobody_can_take_pages_away_from_others(void **state)
{
    (void)state;
    run_as_processes(2, try_to_shrink, NULL);
}

static void a_file_that_is_not_sealed_is_not_mapped(void **state)
{
    const struct zc_memory_handle handle = {.bytes = 8192, .has_fd = 1};
    struct zc_memory *mapped = NULL;
    struct zc_device *device = NULL;
    struct zc_diag diag;
    int fd = memfd_create("a peer's", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    (void)state;
    zc_diag_init(&diag);
    assert_int_equal(zc_device_host.open(
                         &(struct zc_device_params){.diag = &diag, .local_rank_count = 1}, &device),
                     ZCTA_OK);
    assert_int_equal(ftruncate(fd, 8192), 0);
    assert_int_equal(zc_device_host.memory_import(device, &handle, fd, false, &mapped),
                     ZCTA_ERR_PEER);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    assert_int_equal(zc_device_host.memory_import(device, &handle, fd, false, &mapped), ZCTA_OK);
    zc_device_host.memory_release(device, mapped);
    close(fd);
    /* No file that lies anywhere is one of memory. */
    fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    assert_int_equal(zc_device_host.memory_import(device, &handle, fd, false, &mapped),
                     ZCTA_ERR_PEER);
    close(fd);
    zc_device_host.close(device);
    zc_diag_destroy(&diag);
}

/* Says that its memory is smaller than agreed, and sends such a file. */
static zcta_status export_less(struct zc_device *device, struct zc_memory *memory,
                               struct zc_memory_handle *handle, int *fd)
{
    const zcta_status status = zc_device_host.memory_export(device, memory, handle, fd);

    handle->bytes -= 4096;
    return status;
}

static void share_less(zcta_context *context, void *data)
{
    struct zc_device_ops ops = zc_device_host;
    struct zc_group group = zcta_world(context)->group;
    struct zc_symmetric *made = NULL;

    (void)data;
    group.ops = &ops;
    if (group.self == 1)
        ops.memory_export = export_less;
    expect_error(context,
                 zc_symmetric_make(&group, ZC_ON_DEVICE, NULL, 8192, "test", "the memory", &made),
                 ZCTA_ERR_PEER, NULL);
    EXPECT(made == NULL);
}

static void a_peer_s_memory_is_as_large_as_agreed(void **state)
{
    (void)state;
    run_as_processes(2, share_less, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(without_groups_the_machine_counts, make_tree, remove_tree),
        cmocka_unit_test(without_proc_there_is_still_a_bound),
        cmocka_unit_test_setup_teardown(every_group_above_a_nested_one_counts, make_tree,
                                        remove_tree),
        cmocka_unit_test_setup_teardown(version_1_counts_too, make_tree, remove_tree),
        cmocka_unit_test_setup_teardown(a_container_finds_its_group, make_tree, remove_tree),
        cmocka_unit_test(ranks_together_stay_within_their_group),
        cmocka_unit_test(what_all_ranks_ask_for_is_added_up),
        cmocka_unit_test(a_limit_of_file_sizes_is_an_error),
        cmocka_unit_test(a_limit_of_file_sizes_at_the_start_is_an_error),
        cmocka_unit_test(pieces_get_smaller_until_they_fit_between_two_signals),
        cmocka_unit_test(signals_that_leave_no_time_end_in_a_deadline),
        cmocka_unit_test(nobody_can_take_pages_away_from_others),
        cmocka_unit_test(a_file_that_is_not_sealed_is_not_mapped),
        cmocka_unit_test(a_peer_s_memory_is_as_large_as_agreed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
