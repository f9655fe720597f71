/* A job that is under way, inside the launcher: what launch.c, which starts the ranks and waits for
 * events, shares with launch_end.c, which decides how the job ends and says so. */
#ifndef ZC_LAUNCH_JOB_H
#define ZC_LAUNCH_JOB_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "launch.h"
#include "launch_output.h"
#include "launch_spawn.h"
#include "launch_text.h"

#define ZC_EXIT_TIMEOUT        124
#define ZC_EXIT_NOT_EXECUTABLE 126
#define ZC_EXIT_NOT_FOUND      127
#define ZC_EXIT_SIGNAL         128

/* How far the ending of the job has come. */
enum zc_phase {
    ZC_PHASE_RUN,
    ZC_PHASE_GRACE, /* a rank has failed, the others may end by themselves */
    ZC_PHASE_TERM,  /* SIGTERM was sent */
    ZC_PHASE_KILL,  /* SIGKILL was sent */
    ZC_PHASE_OVER,  /* not even SIGKILL ended a rank, or nobody wants to wait */
};

struct zc_job {
    const struct zc_launch *launch;
    struct zc_spawn spawn;
    struct zc_output *output;
    char own[32];          /* "zerocta perf: " */
    struct pollfd *polled; /* the signal fd, then those of the output */
    pid_t *pids;           /* of rank r; 0 once it has ended */
    uint32_t live;
    enum zc_phase phase;
    uint64_t deadline;           /* of the phase */
    uint64_t started, shown;     /* moments: when the job began, and when that was last shown */
    uint64_t time_limit;         /* of the job */
    uint64_t next_word, word_ns; /* when to name those that still run, and again after so long */
    int status;
    bool failed;                           /* `status` is settled */
    char first_failure[ZC_END_TEXT_BYTES]; /* of a rank; empty: none has failed */
    uint32_t interrupts;
    bool *named; /* of rank r: for zc_ranks_text() */
    int signal_fd;
    sigset_t signals;
    struct sigaction child_action;
};

/* Signals that end a program are counted: who sends a second one does not want to wait. */
#define ZC_ENDING_SIGNALS SIGINT, SIGTERM, SIGHUP, SIGQUIT

/* To every rank that lives, and what it has started in its process group. */
void zc_job_signal(const struct zc_job *job, int signal_number);

/* A signal that this process got: passes it on; one that ends programs is an interrupt. */
void zc_job_pass_on(struct zc_job *job, int signal_number);

/* Reaps one ended child, of any pid if `pid` is 0. Returns false if there is none. */
bool zc_job_reap(struct zc_job *job, pid_t pid);

/* What the clock asks for: the next phase once a deadline has passed, a word about late ranks. */
void zc_job_advance(struct zc_job *job);

void zc_job_enter(struct zc_job *job, enum zc_phase phase);

/* The first failure settles the status. */
void zc_job_set_status(struct zc_job *job, int status);

#endif
