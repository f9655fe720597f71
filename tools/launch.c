/* The launcher's event loop: signals, the ends of ranks, deadlines and output, in one poll(). */
#include "launch.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "commands.h"
#include "launch_output.h"
#include "launch_spawn.h"
#include "options.h"

#define EXIT_TIMEOUT        124
#define EXIT_NOT_EXECUTABLE 126
#define EXIT_NOT_FOUND      127
#define EXIT_SIGNAL         128

#define SECOND_NS    1000000000u
#define GRACE_NS     (1u * SECOND_NS) /* for the others to say what they saw of a rank's end */
#define TERM_NS      (5u * SECOND_NS) /* from SIGTERM to SIGKILL */
#define KILL_NS      (10u * SECOND_NS)
#define FLUSH_NS     (1u * SECOND_NS) /* for the last output, once the time limit has passed */
#define LAST_CALL_MS 20
#define LOOK_MS      500 /* a child's end is noticed after this, whatever became of its signal */

/* Files that the launcher has open besides two pipes per rank, generously. */
#define FILES_BESIDE_PIPES 32u

/* How far the ending of the job has come; only advance() goes from one to the next. */
enum phase {
    PHASE_RUN,
    PHASE_GRACE, /* a rank has failed, the others may end by themselves */
    PHASE_TERM,  /* SIGTERM was sent */
    PHASE_KILL,  /* SIGKILL was sent */
    PHASE_OVER,  /* not even SIGKILL ended a rank, or nobody wants to wait */
};

struct job {
    const struct zc_launch *launch;
    struct zc_spawn spawn;
    struct zc_output *output;
    struct pollfd *polled; /* the signal fd, then those of the output */
    pid_t *pids;           /* of rank r; 0 once it has ended */
    uint32_t live;
    enum phase phase;
    uint64_t deadline;   /* of the phase */
    uint64_t time_limit; /* of the job */
    int status;
    bool failed; /* `status` is settled */
    uint32_t interrupts;
    int signal_fd;
    sigset_t signals;
    struct sigaction child_action;
};

/* Signals that end a program are counted: who sends a second one does not want to wait. */
static const int ending_signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
static const int other_signals[] = {SIGUSR1, SIGUSR2, SIGTSTP, SIGCONT};

int zc_launch_self(const char *command, uint32_t rank_count, int argc, char **argv)
{
    char **words = calloc((size_t)argc + 2, sizeof *words);
    char self[4096] = "/proc/self/exe";
    const ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    int status;

    if (words == NULL)
        return zc_failure(command, "out of memory");
    if (length > 0)
        self[length] = '\0';
    words[0] = self;
    memcpy(words + 1, argv, (size_t)argc * sizeof *words);
    status = zc_launch_run(
        &(struct zc_launch){.command = command, .rank_count = rank_count, .argv = words});
    free(words);
    return status;
}

bool zc_launch_is_rank(void)
{
    static const char *const names[] = {"ZEROCTA_RANK",         "RANK",      "WORLD_SIZE",
                                        "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (getenv(names[i]) != NULL)
            return true;
    return false;
}

/* ---- Ending ---- */

static void signal_all(const struct job *job, int signal_number)
{
    for (uint32_t rank = 0; rank < job->launch->rank_count; rank++)
        if (job->pids[rank] != 0)
            kill(-job->pids[rank], signal_number);
}

static void enter(struct job *job, enum phase phase)
{
    static const uint64_t limits[] = {[PHASE_RUN] = UINT64_MAX,
                                      [PHASE_GRACE] = GRACE_NS,
                                      [PHASE_TERM] = TERM_NS,
                                      [PHASE_KILL] = KILL_NS,
                                      [PHASE_OVER] = 0};

    job->phase = phase;
    job->deadline = zc_deadline_in(limits[phase]);
    if (phase == PHASE_TERM) {
        signal_all(job, SIGTERM);
        signal_all(job, SIGCONT); /* a stopped process takes its SIGTERM only then */
    } else if (phase == PHASE_KILL) {
        signal_all(job, SIGKILL);
    }
}

/* The first failure settles the status. */
static void settle(struct job *job, int status)
{
    if (job->failed)
        return;
    job->failed = true;
    job->status = status;
}

static void say_unkillable(struct job *job)
{
    for (uint32_t rank = 0; rank < job->launch->rank_count; rank++)
        if (job->pids[rank] != 0)
            zc_output_say(job->output,
                          "zerocta %s: rank %u (process %d) does not end even after SIGKILL; "
                          "left behind",
                          job->launch->command, zc_spawn_job_rank(&job->spawn, rank),
                          (int)job->pids[rank]);
}

/* Moves to the next phase when a deadline has passed. */
static void advance(struct job *job)
{
    if (job->phase == PHASE_RUN && zc_now_ns() >= job->time_limit) {
        zc_output_say(job->output,
                      "zerocta %s: the job has not ended after %.9g s (--timeout); ending it",
                      job->launch->command, (double)job->launch->timeout_ns / SECOND_NS);
        settle(job, EXIT_TIMEOUT);
        enter(job, PHASE_TERM);
        return;
    }
    if (job->phase == PHASE_OVER || zc_now_ns() < job->deadline)
        return;
    if (job->phase == PHASE_KILL) {
        say_unkillable(job);
        settle(job, ZC_EXIT_FAILED);
    }
    enter(job, job->phase + 1);
}

static void describe_end(struct job *job, uint32_t local_rank, const siginfo_t *end)
{
    const uint32_t rank = zc_spawn_job_rank(&job->spawn, local_rank);
    const char *rest = job->live > 0 && job->phase == PHASE_RUN ? "; ending the others" : "";

    if (end->si_code == CLD_EXITED)
        zc_output_say(job->output, "zerocta %s: rank %u exited with status %d%s",
                      job->launch->command, rank, end->si_status, rest);
    else
        zc_output_say(job->output, "zerocta %s: rank %u was ended by signal %d (%s)%s",
                      job->launch->command, rank, end->si_status, strsignal(end->si_status), rest);
}

/* `end` is a rank that waits to be reaped. */
static void reap_rank(struct job *job, uint32_t rank, const siginfo_t *end)
{
    const pid_t pid = job->pids[rank];

    /* What the rank left in its group ends with it. The group's number is safe to use as long as
     * the rank has not been reaped. */
    kill(-pid, SIGKILL);
    waitpid(pid, NULL, 0);
    job->pids[rank] = 0;
    job->live--;
    if ((end->si_code == CLD_EXITED && end->si_status == 0) || job->failed)
        return;
    zc_output_drain_rank(job->output, rank);
    describe_end(job, rank, end);
    settle(job, end->si_code == CLD_EXITED ? end->si_status : EXIT_SIGNAL + end->si_status);
    if (job->phase == PHASE_RUN)
        enter(job, PHASE_GRACE);
}

/* Reaps one ended child, of any pid if `pid` is 0. Returns false if there is none. */
static bool reap_child(struct job *job, pid_t pid)
{
    siginfo_t end = {0};

    if (waitid(pid == 0 ? P_ALL : P_PID, (id_t)pid, &end, WEXITED | WNOHANG | WNOWAIT) != 0 ||
        end.si_pid == 0)
        return false;
    for (uint32_t rank = 0; rank < job->launch->rank_count; rank++) {
        if (job->pids[rank] == end.si_pid) {
            reap_rank(job, rank, &end);
            return true;
        }
    }
    /* A child of whatever program this process was before it became the launcher. */
    waitpid(end.si_pid, NULL, 0);
    return true;
}

/* ---- Signals ---- */

static bool is_ending(int signal_number)
{
    for (size_t i = 0; i < sizeof ending_signals / sizeof ending_signals[0]; i++)
        if (ending_signals[i] == signal_number)
            return true;
    return false;
}

static void pass_on(struct job *job, int signal_number)
{
    signal_all(job, signal_number);
    if (signal_number == SIGTSTP)
        raise(SIGSTOP);
    if (!is_ending(signal_number))
        return;
    if (++job->interrupts == 1 && job->live > 0)
        return;
    settle(job, EXIT_SIGNAL + signal_number);
    if (job->live == 0)
        enter(job, PHASE_OVER);
    else if (job->phase < PHASE_KILL)
        enter(job, job->phase < PHASE_TERM ? PHASE_TERM : PHASE_KILL);
}

static void handle_signals(struct job *job)
{
    struct signalfd_siginfo info;

    while (read(job->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo != SIGCHLD) {
            pass_on(job, (int)info.ssi_signo);
            continue;
        }
        /* Of several ends that came together the kernel keeps the first one's pid: that rank
         * failed first. */
        reap_child(job, (pid_t)info.ssi_pid);
        while (reap_child(job, 0))
            ;
    }
}

static int open_signals(struct job *job)
{
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    const struct sigaction child = {.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDSTOP};

    sigemptyset(&job->signals);
    sigaddset(&job->signals, SIGCHLD);
    for (size_t i = 0; i < sizeof ending_signals / sizeof ending_signals[0]; i++)
        sigaddset(&job->signals, ending_signals[i]);
    for (size_t i = 0; i < sizeof other_signals / sizeof other_signals[0]; i++)
        sigaddset(&job->signals, other_signals[i]);
    if (sigaction(SIGPIPE, &ignore, &job->spawn.pipe_action) != 0 ||
        sigaction(SIGCHLD, &child, &job->child_action) != 0 ||
        sigprocmask(SIG_BLOCK, &job->signals, &job->spawn.signal_mask) != 0)
        return errno;
    job->signal_fd = signalfd(-1, &job->signals, SFD_CLOEXEC | SFD_NONBLOCK);
    return job->signal_fd < 0 ? errno : 0;
}

/* ---- The loop ---- */

static int poll_timeout_ms(const struct job *job)
{
    uint64_t left = zc_time_left_ns(job->deadline);

    if (job->live == 0)
        return LAST_CALL_MS;
    if (job->phase == PHASE_RUN)
        left = zc_time_left_ns(job->time_limit);
    if (left > LOOK_MS * UINT64_C(1000000))
        return LOOK_MS;
    return (int)((left + 999999u) / 1000000u);
}

static void check_output(struct job *job)
{
    const int error = zc_output_error(job->output);

    if (error == 0 || job->failed)
        return;
    zc_output_say(job->output, "zerocta %s: cannot pass output on: %s; ending the job",
                  job->launch->command, strerror(error));
    settle(job, ZC_EXIT_FAILED);
    if (job->live > 0)
        enter(job, PHASE_TERM);
}

/* A reader that pauses may take its time, but not past a limit that was asked for. */
static void give_up_output(struct job *job)
{
    settle(job, EXIT_TIMEOUT);
    enter(job, PHASE_OVER);
}

/* Runs until the ranks have ended and their output is out. */
static void watch(struct job *job)
{
    const size_t count = 1 + zc_output_poll_count(job->output);
    bool last_call = false;
    int events;

    while (job->phase != PHASE_OVER) {
        if (job->live == 0 && !last_call) {
            last_call = true;
            job->deadline = zc_deadline_in(FLUSH_NS);
            zc_output_last_call(job->output);
        }
        if (job->live == 0 && zc_output_is_done(job->output))
            return;
        job->polled[0] = (struct pollfd){.fd = job->signal_fd, .events = POLLIN};
        zc_output_prepare(job->output, job->polled + 1);
        events = poll(job->polled, count, poll_timeout_ms(job));
        if (events < 0)
            continue; /* EINTR; and without memory the kernel may have some next time */
        /* A thread that a library started before the signals were blocked may have taken one. */
        while (events == 0 && reap_child(job, 0))
            continue;
        zc_output_handle(job->output, job->polled + 1);
        check_output(job);
        if (job->polled[0].revents != 0)
            handle_signals(job);
        if (job->live > 0)
            advance(job);
        else if (zc_now_ns() >= job->time_limit && zc_now_ns() >= job->deadline)
            give_up_output(job);
    }
    zc_output_flush(job->output);
}

/* ---- Starting ---- */

static bool allow_files(struct job *job)
{
    const rlim_t needed = 2 * (rlim_t)job->launch->rank_count + FILES_BESIDE_PIPES;
    struct rlimit files = {0};

    if (getrlimit(RLIMIT_NOFILE, &files) != 0) {
        zc_failure(job->launch->command, "cannot read the limit of open files: %s",
                   strerror(errno));
        return false;
    }
    job->spawn.files = files;
    if (files.rlim_cur >= needed)
        return true;
    files.rlim_cur = needed;
    if (files.rlim_max >= needed && setrlimit(RLIMIT_NOFILE, &files) == 0)
        return true;
    zc_failure(job->launch->command,
               "%u ranks need %llu open files here and the hard limit is %llu; raise it "
               "(ulimit -Hn) or start fewer ranks",
               job->launch->rank_count, (unsigned long long)needed,
               (unsigned long long)files.rlim_max);
    return false;
}

static int complain_start(const struct job *job, uint32_t rank, bool executed, int error)
{
    if (!executed)
        return zc_failure(job->launch->command, "cannot start rank %u: %s",
                          zc_spawn_job_rank(&job->spawn, rank), strerror(error));
    zc_failure(job->launch->command, "cannot execute '%s': %s", job->launch->argv[0],
               strerror(error));
    return error == ENOENT || error == ENOTDIR ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
}

/* Starts every rank or none. Returns 0, or the exit status after it said why. */
static int start_ranks(struct job *job)
{
    for (uint32_t rank = 0; rank < job->launch->rank_count; rank++) {
        int writers[ZC_CHANNELS];
        bool executed = false;
        int error = zc_output_open_rank(job->output, rank, writers);

        if (error == 0) {
            error = zc_spawn_rank(&job->spawn, rank, writers, &job->pids[rank], &executed);
            close(writers[ZC_CHANNEL_OUT]);
            close(writers[ZC_CHANNEL_ERR]);
        }
        if (error != 0)
            return complain_start(job, rank, executed, error);
        job->live++;
        if (rank == 0)
            zc_spawn_close(&job->spawn);
    }
    return 0;
}

static int cannot(const struct job *job, const char *what, int error)
{
    zc_failure(job->launch->command, "cannot %s: %s", what, strerror(error));
    return ZC_EXIT_FAILED;
}

/* Returns 0, or the exit status after it said why. */
static int prepare(struct job *job)
{
    const char *what;
    int error = open_signals(job);

    if (error != 0)
        return cannot(job, "take signals", error);
    if (!allow_files(job))
        return ZC_EXIT_FAILED;
    job->pids = calloc(job->launch->rank_count, sizeof *job->pids);
    job->output = zc_output_new(zc_spawn_job_rank(&job->spawn, 0), job->launch->rank_count,
                                job->launch->prefix);
    if (job->pids == NULL || job->output == NULL)
        return cannot(job, "start the job", ENOMEM);
    job->polled = calloc(1 + zc_output_poll_count(job->output), sizeof *job->polled);
    if (job->polled == NULL)
        return cannot(job, "start the job", ENOMEM);
    error = zc_spawn_open(&job->spawn, &what);
    return error == 0 ? 0 : cannot(job, what, error);
}

/* After a start that failed half way. */
static void kill_started(struct job *job)
{
    if (job->pids == NULL)
        return;
    signal_all(job, SIGKILL);
    for (uint32_t rank = 0; rank < job->launch->rank_count; rank++)
        if (job->pids[rank] != 0)
            waitpid(job->pids[rank], NULL, 0);
}

static void close_job(struct job *job)
{
    zc_spawn_close(&job->spawn);
    zc_output_free(job->output);
    free(job->polled);
    free(job->pids);
    if (job->signal_fd < 0)
        return;
    close(job->signal_fd);
    setrlimit(RLIMIT_NOFILE, &job->spawn.files);
    sigaction(SIGPIPE, &job->spawn.pipe_action, NULL);
    sigaction(SIGCHLD, &job->child_action, NULL);
    sigprocmask(SIG_SETMASK, &job->spawn.signal_mask, NULL);
}

int zc_launch_run(const struct zc_launch *launch)
{
    struct job job = {.launch = launch,
                      .signal_fd = -1,
                      .deadline = UINT64_MAX,
                      .time_limit = launch->timeout_ns == 0 ? UINT64_MAX
                                                            : zc_deadline_in(launch->timeout_ns)};
    int status;

    assert(launch->rank_count > 0 && launch->argv[0] != NULL);
    job.spawn = (struct zc_spawn){.argv = launch->argv,
                                  .rank_count = launch->rank_count,
                                  .nodes = launch->nodes == 0 ? 1 : launch->nodes,
                                  .node = launch->node,
                                  .listen_fd = -1};
    if (launch->root != NULL)
        snprintf(job.spawn.root, sizeof job.spawn.root, "%s", launch->root);
    status = prepare(&job);
    if (status == 0)
        status = start_ranks(&job);
    if (status == 0) {
        watch(&job);
        status = job.status;
    } else {
        kill_started(&job);
    }
    close_job(&job);
    return status;
}
