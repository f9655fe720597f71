/* MPI as the peer of a measurement. What is said to its program, and what it answers, stands in
 * bench/host/mpi_peer.c. */
#include "peer_mpi.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "options.h"

enum { ANSWER_BYTES = 64, PATH_BYTES = 4096, ENVIRONMENT_MOST = 4096 };

const char *const zc_peer_mpi_names[ZC_PEER_MPIS] = {"open-mpi", "mpich"};

struct zc_peer_mpi {
    pid_t pid;
    int to, from; /* its standard input and output */
    char answer[ANSWER_BYTES];
    size_t length; /* of what has come of it */
};

/* ---- Starting ---- */

/* Its program stands in the same folder as this one. */
static bool find_program(int which, char path[PATH_BYTES])
{
    const ssize_t length = readlink("/proc/self/exe", path, PATH_BYTES - 1);
    char *end;

    if (length <= 0)
        return false;
    path[length] = '\0';
    end = strrchr(path, '/');
    if (end == NULL || PATH_BYTES - (end - path) < 64)
        return false;
    snprintf(end, (size_t)(PATH_BYTES - (end - path)), "/zerocta-mpi-%s", zc_peer_mpi_names[which]);
    return access(path, X_OK) == 0;
}

bool zc_peer_mpi_is_built(int which)
{
    char path[PATH_BYTES];

    return find_program(which, path);
}

bool zc_peer_mpi_check(const char *command)
{
    for (int i = 0; i < ZC_PEER_MPIS; i++)
        if (zc_peer_mpi_is_built(i))
            return true;
    zc_failure(command, "there is no MPI to compare with: no zerocta-mpi-open-mpi or "
                        "zerocta-mpi-mpich beside this command; -DZEROCTA_BENCH=ON builds them");
    return false;
}

/* What an mpirun above this process has set would make its ranks believe that they are that one's.
 */
static bool is_launchers(const char *variable)
{
    static const char *const prefixes[] = {"OMPI_", "PMIX_", "PMI_", "HYDRA_", "MPI_", "MPIR_"};

    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++)
        if (strncmp(variable, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    return false;
}

static void copy_environment(char *copy[ENVIRONMENT_MOST])
{
    size_t count = 0;

    for (char **at = environ; at != NULL && *at != NULL && count < ENVIRONMENT_MOST - 1; at++)
        if (!is_launchers(*at))
            copy[count++] = *at;
    copy[count] = NULL;
}

/* Its standard input and output become pipes of ours. Returns 0 or an errno. */
static int spawn(const char *path, char *const argv[], struct zc_peer_mpi *peer)
{
    char **environment = calloc(ENVIRONMENT_MOST, sizeof *environment);
    posix_spawn_file_actions_t actions;
    int to[2] = {-1, -1}, from[2] = {-1, -1};
    int error = environment == NULL ? ENOMEM : 0;

    if (error == 0 && (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0))
        error = errno;
    if (error == 0) {
        copy_environment(environment);
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, to[0], STDIN_FILENO);
        posix_spawn_file_actions_adddup2(&actions, from[1], STDOUT_FILENO);
        error = posix_spawn(&peer->pid, path, &actions, NULL, argv, environment);
        posix_spawn_file_actions_destroy(&actions);
    }
    free(environment);
    if (to[0] >= 0)
        close(to[0]);
    if (from[1] >= 0)
        close(from[1]);
    peer->to = to[1];
    peer->from = from[0];
    return error;
}

bool zc_peer_mpi_open(const char *command, int which, const struct zc_shape *shape,
                      uint32_t rank_count, bool in_place, uint64_t bytes_max,
                      struct zc_peer_mpi **peer)
{
    struct zc_peer_mpi *made = calloc(1, sizeof *made);
    char path[PATH_BYTES], ranks[16], root[16] = "-", counts[ZC_COUNTS_TEXT_BYTES] = "-", bytes[24];
    char place[4], name[64], option[] = "-n";
    char *const argv[] = {path, option, ranks, name, root, counts, place, bytes, NULL};
    int error = ENOMEM;

    snprintf(place, sizeof place, "%s", in_place ? "in" : "out");
    snprintf(name, sizeof name, "%s", shape->info.name);
    snprintf(ranks, sizeof ranks, "%" PRIu32, rank_count);
    snprintf(bytes, sizeof bytes, "%" PRIu64, bytes_max);
    if (zc_shape_has(shape, ZCTA_COLLECTIVE_ROOTED))
        snprintf(root, sizeof root, "%" PRIu32, shape->root);
    if (zc_shape_has(shape, ZCTA_COLLECTIVE_UNEVEN))
        zc_counts_text(shape, counts);
    if (made != NULL)
        error = find_program(which, path) ? spawn(path, argv, made) : ENOENT;
    if (error == 0) {
        *peer = made;
        return true;
    }
    zc_failure(command, "cannot start the program of %s: %s", zc_peer_mpi_names[which],
               strerror(error));
    free(made);
    return false;
}

void zc_peer_mpi_close(struct zc_peer_mpi *peer)
{
    if (peer == NULL)
        return;
    close(peer->to);
    close(peer->from);
    while (waitpid(peer->pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    free(peer);
}

/* ---- Asking ---- */

void zc_peer_mpi_ask(struct zc_peer_mpi *peer, uint64_t bytes, uint32_t timings, uint32_t calls)
{
    /* If it cannot be told it has gone, which the answer tells. */
    dprintf(peer->to, "%" PRIu64 " %" PRIu32 " %" PRIu32 "\n", bytes, timings, calls);
    peer->length = 0;
}

/* What has come, to the end of the line; false if nothing more will. */
static bool read_more(struct zc_peer_mpi *peer)
{
    const size_t room = sizeof peer->answer - 1 - peer->length;
    const ssize_t got = read(peer->from, peer->answer + peer->length, room);

    if (got > 0)
        peer->length += (size_t)got;
    peer->answer[peer->length] = '\0';
    return got > 0 || (got < 0 && errno == EINTR);
}

/* "MEDIAN_NS WRONG_BYTES", a line of it. */
static bool read_answer(char *line, uint64_t *median_ns, uint64_t *wrong_bytes)
{
    char *second = strchr(line, ' ');

    if (second == NULL)
        return false;
    *second++ = '\0';
    second[strcspn(second, "\n")] = '\0';
    return zc_parse_number(line, median_ns) && zc_parse_number(second, wrong_bytes);
}

enum zc_peer_mpi_state zc_peer_mpi_answer(struct zc_peer_mpi *peer, int wait_ms,
                                          uint64_t *median_ns, uint64_t *wrong_bytes)
{
    struct pollfd polled = {.fd = peer->from, .events = POLLIN};

    if (poll(&polled, 1, wait_ms) <= 0)
        return ZC_PEER_MPI_BUSY;
    if (!read_more(peer))
        return ZC_PEER_MPI_GONE;
    if (strchr(peer->answer, '\n') == NULL)
        return peer->length + 1 < sizeof peer->answer ? ZC_PEER_MPI_BUSY : ZC_PEER_MPI_GONE;
    return read_answer(peer->answer, median_ns, wrong_bytes) ? ZC_PEER_MPI_ANSWERED
                                                             : ZC_PEER_MPI_GONE;
}
