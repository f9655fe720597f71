/* Starts the ranks of a job on this machine and watches over them until the last has ended. Other
 * machines start theirs themselves. Knows nothing of the library: any program can be a rank. */
#ifndef ZC_LAUNCH_H
#define ZC_LAUNCH_H

#include <stdbool.h>
#include <stdint.h>

struct zc_launch {
    const char *command; /* for messages: "run" */
    uint32_t rank_count; /* on this machine */
    uint32_t nodes;      /* machines, with as many ranks each; 0 or 1: only this one */
    uint32_t node;       /* which of them this is, from 0 */
    const char *root;    /* several: where rank 0 listens, "host:port" */
    char *const *argv;   /* program and arguments, NULL at the end; looked up in PATH */
    bool prefix;         /* "[rank] " before each line of output */
    bool own;            /* the program is this very command: what its ranks say alike is said once,
                            and a terminal shows that the job goes on */
    bool keep_going;     /* a rank that fails ends no other */
    bool terminals;      /* a rank's standard output is a terminal of its own, not a pipe */
    uint64_t grace_ns;   /* from the first failure until the others are ended; 0: a second */
    uint64_t timeout_ns; /* 0: none */
};

/* Runs the job and returns the exit status for this process: 0 when every rank returned 0; the
 * status of the first rank that failed, 128 + signal if a signal ended it; 124 after the timeout;
 * 127 when the program does not exist, 126 when it cannot be executed; 1 when the job could not be
 * started. Says on stderr what happened unless it is 0. No rank is left when it returns.
 * Only for a process with one thread; signals are handled by the launcher meanwhile. */
int zc_launch_run(const struct zc_launch *launch);

/* Starts this very command again, once for each rank, with the given argv (argv[0] is the command's
 * name) and no prefixes. Returns the exit status, as zc_launch_run() does. */
int zc_launch_self(const char *command, uint32_t rank_count, int argc, char **argv);

/* True when this process was started as a rank by some launcher: it should not start others. */
bool zc_launch_is_rank(void);

#endif
