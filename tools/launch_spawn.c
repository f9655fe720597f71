/* One rank's process, from fork to exec. */
#include "launch_spawn.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"

#define TOKEN_BYTES 32

/* High enough to be in no script's way: shells and their users redirect low numbers by hand. */
#define LISTEN_FD_MIN 100

/* Binds a socket to a free port of the loopback address. Returns it, or -1 with errno. */
static int bind_free_port(uint16_t *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -1;
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) != 0) {
        const int error = errno;

        close(fd);
        errno = error;
        return -1;
    }
    *port = ntohs(address.sin_port);
    return fd;
}

static int draw_token(char text[2 * TOKEN_BYTES + 1])
{
    unsigned char bytes[TOKEN_BYTES];
    ssize_t count;

    do
        count = getrandom(bytes, sizeof bytes, 0);
    while (count < 0 && errno == EINTR);
    if (count != (ssize_t)sizeof bytes)
        return count < 0 ? errno : EIO;
    for (size_t i = 0; i < sizeof bytes; i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    return 0;
}

uint32_t zc_spawn_job_rank(const struct zc_spawn *spawn, uint32_t rank)
{
    return spawn->node * spawn->rank_count + rank;
}

/* "host:port" or "[v6]:port": the address, and the port behind this one. */
static int split_root(struct zc_spawn *spawn)
{
    const char *colon = strrchr(spawn->root, ':');
    char *end = NULL;
    const unsigned long port = colon == NULL ? 0 : strtoul(colon + 1, &end, 10);
    const bool brackets = spawn->root[0] == '[';
    const size_t host = colon == NULL ? 0 : (size_t)(colon - spawn->root) - (brackets ? 2 : 0);

    if (port == 0 || port >= 65535 || *end != '\0' || host == 0 ||
        host >= sizeof spawn->master_address)
        return EINVAL;
    memcpy(spawn->master_address, spawn->root + (brackets ? 1 : 0), host);
    spawn->master_address[host] = '\0';
    snprintf(spawn->master_port, sizeof spawn->master_port, "%lu", port + 1);
    return 0;
}

int zc_spawn_open(struct zc_spawn *spawn, const char **what)
{
    uint16_t port;
    int fd, error;

    spawn->listen_fd = -1;
    *what = "use that root";
    if (spawn->nodes > 1)
        return split_root(spawn);
    snprintf(spawn->master_address, sizeof spawn->master_address, "127.0.0.1");
    *what = "make a listening socket on 127.0.0.1";
    fd = bind_free_port(&port);
    if (fd < 0)
        return errno;
    spawn->listen_fd = fcntl(fd, F_DUPFD_CLOEXEC, LISTEN_FD_MIN);
    if (spawn->listen_fd >= 0)
        close(fd);
    else
        spawn->listen_fd = fd;
    if (listen(spawn->listen_fd, SOMAXCONN) != 0)
        return errno;
    snprintf(spawn->root, sizeof spawn->root, "127.0.0.1:%u", port);

    /* Programs open MASTER_PORT themselves, so it can only be a port that was free just now. */
    *what = "find a free port on 127.0.0.1";
    fd = bind_free_port(&port);
    if (fd < 0)
        return errno;
    close(fd);
    snprintf(spawn->master_port, sizeof spawn->master_port, "%u", port);

    *what = "get random bytes for the job's token";
    error = draw_token(spawn->token);
    return error;
}

void zc_spawn_close(struct zc_spawn *spawn)
{
    if (spawn->listen_fd >= 0)
        close(spawn->listen_fd);
    spawn->listen_fd = -1;
}

/* ---- In the new process ---- */

/* setenv() allocates, which is fine here: the launcher has one thread, so no lock is held. */
static int set_number(const char *name, uint32_t value)
{
    char text[16];

    snprintf(text, sizeof text, "%u", value);
    return setenv(name, text, 1);
}

static int set_environment(const struct zc_spawn *spawn, uint32_t rank)
{
    static const char *const prefixes[] = {"", "ZEROCTA_"};
    static const char *const counts[] = {"WORLD_SIZE", "ZEROCTA_RANK_COUNT"};
    static const char *const local_counts[] = {"LOCAL_WORLD_SIZE", "ZEROCTA_LOCAL_RANK_COUNT"};
    char name[32];
    int failed = 0;

    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "%sRANK", prefixes[i]);
        failed |= set_number(name, zc_spawn_job_rank(spawn, rank));
        snprintf(name, sizeof name, "%sLOCAL_RANK", prefixes[i]);
        failed |= set_number(name, rank);
        failed |= set_number(counts[i], spawn->nodes * spawn->rank_count);
        failed |= set_number(local_counts[i], spawn->rank_count);
    }
    failed |= set_number("GROUP_RANK", spawn->node);
    failed |= setenv("MASTER_ADDR", spawn->master_address, 1);
    failed |= setenv("MASTER_PORT", spawn->master_port, 1);
    failed |= setenv("ZEROCTA_ROOT", spawn->root, 1);
    if (spawn->token[0] != '\0')
        failed |= setenv("ZEROCTA_TOKEN", spawn->token, 1);
    if (spawn->nodes > 1)
        failed |= setenv("ZEROCTA_REMOTE", "1", 1);
    /* It would move the ranks away from the socket that rank 0 inherits. */
    failed |= unsetenv("ZEROCTA_PORT");
    if (rank == 0 && spawn->listen_fd >= 0)
        failed |= set_number("ZEROCTA_LISTEN_FD", (uint32_t)spawn->listen_fd);
    else
        failed |= unsetenv("ZEROCTA_LISTEN_FD");
    return failed;
}

/* Rank 0 reads what the launcher was given, unless that is nothing or a terminal: a process group
 * in the background that reads from its terminal is stopped. */
static int set_files(const struct zc_spawn *spawn, uint32_t rank, const int writers[ZC_CHANNELS])
{
    if (rank != 0 || isatty(STDIN_FILENO) || zc_fd_is_closed(STDIN_FILENO)) {
        const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

        if (null < 0 || dup2(null, STDIN_FILENO) < 0)
            return -1;
    }
    if (dup2(writers[ZC_CHANNEL_OUT], STDOUT_FILENO) < 0 ||
        dup2(writers[ZC_CHANNEL_ERR], STDERR_FILENO) < 0)
        return -1;
    if (rank == 0 && spawn->listen_fd >= 0 && fcntl(spawn->listen_fd, F_SETFD, 0) != 0)
        return -1;
    return setrlimit(RLIMIT_NOFILE, &spawn->files);
}

static int set_process(const struct zc_spawn *spawn, pid_t launcher)
{
    if (setpgid(0, 0) != 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        return -1;
    /* A launcher that died before the line above will send no signal any more. */
    if (getppid() != launcher)
        _exit(1);
    if (sigaction(SIGPIPE, &spawn->pipe_action, NULL) != 0)
        return -1;
    return sigprocmask(SIG_SETMASK, &spawn->signal_mask, NULL);
}

struct report {
    int error;
    bool executed;
};

static _Noreturn void become_rank(const struct zc_spawn *spawn, uint32_t rank,
                                  const int writers[ZC_CHANNELS], int report_fd, pid_t launcher)
{
    struct report report = {0};

    if (set_process(spawn, launcher) == 0 && set_environment(spawn, rank) == 0 &&
        set_files(spawn, rank, writers) == 0) {
        report.executed = true;
        execvp(spawn->argv[0], spawn->argv);
    }
    report.error = errno;
    /* Smaller than PIPE_BUF into an empty pipe: whole or not at all; without it the launcher sees
     * a rank that failed with status 1. */
    if (write(report_fd, &report, sizeof report) < 0)
        _exit(1);
    _exit(1);
}

/* ---- In the launcher ---- */

int zc_spawn_rank(const struct zc_spawn *spawn, uint32_t rank, const int writers[ZC_CHANNELS],
                  pid_t *pid, bool *executed)
{
    const pid_t launcher = getpid();
    struct report report = {0};
    int ends[2];
    ssize_t count;
    pid_t child;

    assert(rank < spawn->rank_count);
    *executed = false;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return errno;
    child = fork();
    if (child == 0)
        become_rank(spawn, rank, writers, ends[1], launcher);
    if (child < 0) {
        report.error = errno;
        close(ends[0]);
        close(ends[1]);
        return report.error;
    }
    /* The exec closes the other end, so nothing to read means that the program runs. */
    close(ends[1]);
    do
        count = read(ends[0], &report, sizeof report);
    while (count < 0 && errno == EINTR);
    close(ends[0]);
    if (count != (ssize_t)sizeof report) {
        *pid = child;
        return 0;
    }
    waitpid(child, NULL, 0);
    *executed = report.executed;
    return report.error;
}
