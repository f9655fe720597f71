/* A program that starts with standard descriptors closed: none of ours takes their place, so what
 * it prints hits nothing of ours. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "rendezvous/net.h"
#include "support_ranks.h"

enum { BYTES = 4096, SUBSETS = 8, STANDARD = 3 };

struct closed {
    uint32_t subset; /* bit i: descriptor i */
};

/* Behind the number stands no file of ours: at most what keeps its place. */
static bool holds_nothing(int fd)
{
    char path[32], name[64];
    ssize_t length;

    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    length = readlink(path, name, sizeof name);
    return length < 0 || (length == 1 && name[0] == '/');
}

/* What was closed is as good as closed, and printing there is the program's own failure. */
static void expect_none_taken(uint32_t subset)
{
    static const char text[] = "what a program prints when its output is closed\n";
    char byte[1];

    for (int fd = 0; fd < STANDARD; fd++)
        if ((subset >> fd & 1) != 0) {
            errno = 0;
            EXPECT(write(fd, text, sizeof text) < 0 && errno == EBADF);
            EXPECT(read(fd, byte, sizeof byte) < 0 && errno == EBADF);
            EXPECT(holds_nothing(fd));
        }
    if ((subset >> STDOUT_FILENO & 1) != 0) {
        printf("%s", text);
        EXPECT(fflush(stdout) != 0);
        clearerr(stdout);
    }
}

static void use_everything(zcta_context *context, void *data)
{
    const struct closed *closed = data;
    zcta_team *world = zcta_world(context), *part = NULL;
    zcta_host_stream *stream = NULL;
    zcta_window *window = NULL;
    const void *view;
    size_t stride;

    expect_none_taken(closed->subset);
    EXPECT_OK(context, zcta_window_alloc(world, BYTES * zcta_team_rank_count(world), &window));
    expect_none_taken(closed->subset);
    EXPECT_OK(context, zcta_window_view(window, &view, &stride));
    EXPECT_OK(context, zcta_team_split(world, 0, 0, NULL, &part));
    EXPECT_OK(context, zcta_host_stream_create(context, &stream));
    expect_none_taken(closed->subset);
    for (uint32_t call = 0; call < 3; call++) {
        gather_checked(context, world, zcta_window_base(window), BYTES, call);
        gather_checked(context, part, zcta_window_base(window), BYTES, call);
        expect_none_taken(closed->subset);
    }
    EXPECT_OK(context, zcta_host_stream_destroy(&stream));
    expect_none_taken(closed->subset);
}

static void run_with_each_subset(uint32_t rank_count)
{
    for (uint32_t subset = 0; subset < SUBSETS; subset++) {
        struct closed closed = {.subset = subset};
        const struct ranks_options options = {.closed = subset};

        run_as_processes_with(rank_count, &options, use_everything, &closed);
    }
}

static void one_rank_takes_no_standard_descriptor(void **state)
{
    (void)state;
    run_with_each_subset(1);
}

static void three_ranks_take_no_standard_descriptor(void **state)
{
    (void)state;
    run_with_each_subset(3);
}

/* Nothing keeps the places of what is closed later. Between two collectives nothing is being
 * received. */
static void close_and_use(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context);
    zcta_window *windows[3] = {NULL};

    (void)data;
    for (int fd = 0; fd < STANDARD; fd++)
        close(fd);
    for (uint32_t call = 0; call < STANDARD; call++) {
        EXPECT_OK(context,
                  zcta_window_alloc(world, BYTES * zcta_team_rank_count(world), &windows[call]));
        gather_checked(context, world, zcta_window_base(windows[call]), BYTES, call);
        for (int fd = 0; fd < STANDARD; fd++)
            EXPECT(holds_nothing(fd));
        EXPECT_OK(context, zcta_barrier(world, NULL));
    }
}

static void descriptors_that_are_closed_later_are_not_taken(void **state)
{
    (void)state;
    run_as_processes(3, close_and_use, NULL);
}

/* The log has nowhere to go, and goes nowhere. */
static void a_log_without_stderr_is_dropped(void **state)
{
    struct closed closed = {.subset = SUBSETS - 1};
    const struct ranks_options options = {.closed = SUBSETS - 1};

    (void)state;
    setenv("ZEROCTA_LOG", "debug", 1);
    run_as_processes_with(3, &options, use_everything, &closed);
    unsetenv("ZEROCTA_LOG");
}

/* ---- The helper ---- */

/* Runs in a child, so that the test keeps its own descriptors. */
static void in_child(void (*function)(void))
{
    const pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0) {
        close(STDIN_FILENO);
        function();
        _exit(0);
    }
    assert_int_equal(wait_process(child, 60), 0);
}

static void lift_moves_what_is_low(void)
{
    const int low = open("/dev/null", O_RDONLY | O_CLOEXEC);
    const int high = zc_fd_lift(low);

    EXPECT(low == STDIN_FILENO && high > STDERR_FILENO);
    EXPECT(fcntl(low, F_GETFD) < 0);
    EXPECT((fcntl(high, F_GETFD) & FD_CLOEXEC) != 0);
    EXPECT(zc_fd_lift(high) == high);
}

static void lift_keeps_the_error(void)
{
    errno = ENOENT;
    EXPECT(zc_fd_lift(-1) == -1 && errno == ENOENT);
    EXPECT(zc_fd_read_file("/nowhere") == NULL && errno == ENOENT);
}

static void holding_takes_only_what_is_closed(void)
{
    const int flags = fcntl(STDOUT_FILENO, F_GETFL);

    zc_fd_hold_standard();
    zc_fd_hold_standard();
    EXPECT((fcntl(STDIN_FILENO, F_GETFL) & O_PATH) != 0);
    EXPECT((fcntl(STDIN_FILENO, F_GETFD) & FD_CLOEXEC) != 0);
    EXPECT(fcntl(STDOUT_FILENO, F_GETFL) == flags);
}

static void lift_without_room_leaves_nothing_open(void)
{
    int last = open("/dev/null", O_RDONLY), low;

    while (last >= 0)
        last = open("/dev/null", O_RDONLY);
    close(STDIN_FILENO);
    low = open("/dev/null", O_RDONLY);
    EXPECT(low == STDIN_FILENO);
    EXPECT(zc_fd_lift(low) == -1 && errno == EMFILE);
    EXPECT(fcntl(low, F_GETFD) < 0);
}

/* A file descriptor that a peer sends comes in at the lowest number. */
static void a_received_descriptor_is_lifted(void)
{
    char text[] = "x", buffer[8];
    struct zc_packet packet = {.buffer = buffer, .capacity = sizeof buffer};
    int ends[2];

    EXPECT(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) == 0);
    EXPECT(zc_net_send_packet(ends[1], text, 1, NULL, 0, ends[1]) == 0);
    close(STDOUT_FILENO);
    EXPECT(zc_net_receive_packet(ends[0], &packet) == ZC_PACKET_TAKEN);
    EXPECT(packet.fd > STDERR_FILENO && fcntl(STDOUT_FILENO, F_GETFD) < 0);
}

static void a_fresh_descriptor_is_moved_above_the_standard_ones(void **state)
{
    (void)state;
    in_child(lift_moves_what_is_low);
    in_child(holding_takes_only_what_is_closed);
    in_child(lift_keeps_the_error);
    in_child(lift_without_room_leaves_nothing_open);
    in_child(a_received_descriptor_is_lifted);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fresh_descriptor_is_moved_above_the_standard_ones),
        cmocka_unit_test(one_rank_takes_no_standard_descriptor),
        cmocka_unit_test(three_ranks_take_no_standard_descriptor),
        cmocka_unit_test(descriptors_that_are_closed_later_are_not_taken),
        cmocka_unit_test(a_log_without_stderr_is_dropped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
