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
#include "launch_job.h"
#include "options.h"

#define FLUSH_NS     UINT64_C(1000000000) /* for the last output, once the time limit has passed */
#define SHOW_NS      UINT64_C(1000000000) /* between two lines that show that a job goes on */
#define LAST_CALL_MS 20
#define LOOK_MS      500 /* a child's end is noticed after this, whatever became of its signal */

/* Files that the launcher has open besides two pipes per rank, generously. */
#define FILES_BESIDE_PIPES 32u

static const int passed_on[] = {ZC_ENDING_SIGNALS, SIGUSR1, SIGUSR2, SIGTSTP, SIGCONT};

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
    status = zc_launch_run(&(struct zc_launch){
        .command = command, .rank_count = rank_count, .argv = words, .own = true});
    free(words);
    return status;
}

/* ---- Signals ---- */

static void handle_signals(struct zc_job *job)
{
    struct signalfd_siginfo info;

    while (read(job->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo != SIGCHLD) {
            zc_job_pass_on(job, (int)info.ssi_signo);
            continue;
        }
        /* Of several ends that came together the kernel keeps the first one's pid: that rank
         * failed first. */
        zc_job_reap(job, (pid_t)info.ssi_pid);
        while (zc_job_reap(job, 0))
            ;
    }
}

static int open_signals(struct zc_job *job)
{
    const struct sigaction ignore = {.sa_handler = SIG_IGN};
    const struct sigaction child = {.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDSTOP};

    sigemptyset(&job->signals);
    sigaddset(&job->signals, SIGCHLD);
    for (size_t i = 0; i < sizeof passed_on / sizeof passed_on[0]; i++)
        sigaddset(&job->signals, passed_on[i]);
    if (sigaction(SIGPIPE, &ignore, &job->spawn.pipe_action) != 0 ||
        sigaction(SIGCHLD, &child, &job->child_action) != 0 ||
        sigprocmask(SIG_BLOCK, &job->signals, &job->spawn.signal_mask) != 0)
        return errno;
    job->signal_fd = signalfd(-1, &job->signals, SFD_CLOEXEC | SFD_NONBLOCK);
    return job->signal_fd < 0 ? errno : 0;
}

/* ---- The loop ---- */

static int poll_timeout_ms(const struct zc_job *job)
{
    uint64_t left = zc_time_left_ns(job->deadline);

    if (job->live == 0)
        return LAST_CALL_MS;
    if (job->phase == ZC_PHASE_RUN)
        left = zc_time_left_ns(job->time_limit);
    if (left > LOOK_MS * UINT64_C(1000000))
        return LOOK_MS;
    return (int)((left + 999999u) / 1000000u);
}

static void check_output(struct zc_job *job)
{
    const int error = zc_output_error(job->output);

    if (error == 0 || job->failed)
        return;
    zc_output_say(job->output, "zerocta %s: cannot pass output on: %s; ending the job",
                  job->launch->command, strerror(error));
    zc_job_set_status(job, ZC_EXIT_FAILED);
    if (job->live > 0)
        zc_job_enter(job, ZC_PHASE_TERM);
}

/* A reader that pauses may take its time, but not past a limit that was asked for. */
static void give_up_output(struct zc_job *job)
{
    zc_job_set_status(job, ZC_EXIT_TIMEOUT);
    zc_job_enter(job, ZC_PHASE_OVER);
}

/* A command of ours that measures for a while shows that it does. */
static void show_progress(struct zc_job *job)
{
    const uint64_t now = zc_now_ns();
    char line[96];

    if (!job->launch->own || job->live == 0 || now < job->shown + SHOW_NS)
        return;
    job->shown = now;
    snprintf(line, sizeof line, "%s%u rank%s, %u s", job->own, job->launch->rank_count,
             job->launch->rank_count == 1 ? "" : "s",
             (unsigned)((now - job->started) / UINT64_C(1000000000)));
    zc_output_show(job->output, line);
}

/* All is over and written, but perhaps for the last word. */
static bool is_done(struct zc_job *job)
{
    if (job->live > 0 || !zc_output_is_done(job->output))
        return false;
    zc_output_say_counted(job->output);
    return zc_output_is_done(job->output);
}

/* Runs until the ranks have ended and their output is out. */
static void watch(struct zc_job *job)
{
    const size_t count = 1 + zc_output_poll_count(job->output);
    bool last_call = false;
    int events;

    while (job->phase != ZC_PHASE_OVER) {
        if (job->live == 0 && !last_call) {
            last_call = true;
            job->deadline = zc_deadline_in(FLUSH_NS);
            zc_output_last_call(job->output);
        }
        if (is_done(job))
            break;
        job->polled[0] = (struct pollfd){.fd = job->signal_fd, .events = POLLIN};
        zc_output_prepare(job->output, job->polled + 1);
        events = poll(job->polled, count, poll_timeout_ms(job));
        if (events < 0)
            continue; /* EINTR; and without memory the kernel may have some next time */
        /* A thread that a library started before the signals were blocked may have taken one. */
        while (events == 0 && zc_job_reap(job, 0))
            continue;
        zc_output_handle(job->output, job->polled + 1);
        check_output(job);
        show_progress(job);
        if (job->polled[0].revents != 0)
            handle_signals(job);
        if (job->live > 0)
            zc_job_advance(job);
        else if (zc_now_ns() >= job->time_limit && zc_now_ns() >= job->deadline)
            give_up_output(job);
    }
    zc_output_flush(job->output);
    zc_output_show(job->output, "");
}

/* ---- Starting ---- */

static bool allow_files(struct zc_job *job)
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

static int complain_start(const struct zc_job *job, uint32_t rank, bool executed, int error)
{
    if (!executed)
        return zc_failure(job->launch->command, "cannot start rank %u: %s",
                          zc_spawn_job_rank(&job->spawn, rank), strerror(error));
    zc_failure(job->launch->command, "cannot execute '%s': %s", job->launch->argv[0],
               strerror(error));
    return error == ENOENT || error == ENOTDIR ? ZC_EXIT_NOT_FOUND : ZC_EXIT_NOT_EXECUTABLE;
}

/* Starts every rank or none. Returns 0, or the exit status after it said why. */
static int start_ranks(struct zc_job *job)
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

static int cannot(const struct zc_job *job, const char *what, int error)
{
    zc_failure(job->launch->command, "cannot %s: %s", what, strerror(error));
    return ZC_EXIT_FAILED;
}

/* Returns 0, or the exit status after it said why. */
static int prepare(struct zc_job *job)
{
    const char *what;
    int error = open_signals(job);

    if (error != 0)
        return cannot(job, "take signals", error);
    if (!allow_files(job))
        return ZC_EXIT_FAILED;
    job->pids = calloc(job->launch->rank_count, sizeof *job->pids);
    job->named = calloc(job->launch->rank_count, sizeof *job->named);
    snprintf(job->own, sizeof job->own, "zerocta %s: ", job->launch->command);
    job->output =
        zc_output_new(zc_spawn_job_rank(&job->spawn, 0), job->launch->rank_count,
                      &(struct zc_output_style){.prefix = job->launch->prefix,
                                                .terminals = job->launch->terminals,
                                                .own = job->launch->own ? job->own : NULL});
    if (job->pids == NULL || job->named == NULL || job->output == NULL)
        return cannot(job, "start the job", ENOMEM);
    job->polled = calloc(1 + zc_output_poll_count(job->output), sizeof *job->polled);
    if (job->polled == NULL)
        return cannot(job, "start the job", ENOMEM);
    error = zc_spawn_open(&job->spawn, &what);
    return error == 0 ? 0 : cannot(job, what, error);
}

/* After a start that failed half way. */
static void kill_started(struct zc_job *job)
{
    if (job->pids == NULL)
        return;
    zc_job_signal(job, SIGKILL);
    for (uint32_t rank = 0; rank < job->launch->rank_count; rank++)
        if (job->pids[rank] != 0)
            waitpid(job->pids[rank], NULL, 0);
}

static void close_job(struct zc_job *job)
{
    zc_spawn_close(&job->spawn);
    zc_output_free(job->output);
    free(job->polled);
    free(job->pids);
    free(job->named);
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
    struct zc_job job = {
        .launch = launch,
        .signal_fd = -1,
        .started = zc_now_ns(),
        .shown = zc_now_ns(),
        .deadline = UINT64_MAX,
        .time_limit = launch->timeout_ns == 0 ? UINT64_MAX : zc_deadline_in(launch->timeout_ns)};
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
