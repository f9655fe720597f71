/* Starts one rank: its environment, its file descriptors, its process group. */
#ifndef ZC_LAUNCH_SPAWN_H
#define ZC_LAUNCH_SPAWN_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "launch_output.h"

/* What all ranks of a job share, and what the launcher changed in itself and a rank gets back. */
struct zc_spawn {
    char *const *argv;
    uint32_t rank_count; /* on this machine */
    uint32_t nodes, node;
    int listen_fd;  /* bound to `root` and listening; handed to rank 0. -1: on several machines */
    char root[160]; /* "127.0.0.1:29400" */
    char master_address[128], master_port[8];
    char token[65]; /* several machines: empty, the user's stays */
    sigset_t signal_mask;
    struct sigaction pipe_action;
    struct rlimit files;
};

/* Opens the listening socket, finds a free port for MASTER_PORT, draws the token; over several
 * machines all of that is the user's, and MASTER_PORT the one behind the root's. Returns 0 or an
 * errno, and then *what says what could not be done. */
int zc_spawn_open(struct zc_spawn *spawn, const char **what);
void zc_spawn_close(struct zc_spawn *spawn);

/* The number in the job of this machine's rank `rank`. */
uint32_t zc_spawn_job_rank(const struct zc_spawn *spawn, uint32_t rank);

/* Starts a rank of this machine, which is the leader of its own process group and ends with this
 * process. Returns 0 once its program runs, else an errno; *executed then says whether it was the
 * program that could not be executed (true) or the process that could not be made (false). */
int zc_spawn_rank(const struct zc_spawn *spawn, uint32_t rank, const int writers[ZC_CHANNELS],
                  pid_t *pid, bool *executed);

#endif
