/* How a job ends: ranks that fail, signals from outside, deadlines; and what is said about it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "commands.h"
#include "launch_job.h"

#define SECOND_NS    UINT64_C(1000000000)
#define GRACE_NS     (1 * SECOND_NS) /* if not given: for the others to say what they saw */
#define TERM_NS      (5 * SECOND_NS) /* from SIGTERM to SIGKILL */
#define KILL_NS      (10 * SECOND_NS)
#define LATE_NS      (5 * SECOND_NS) /* after an end, until those that still run are named; then */
#define LATE_MOST_NS (600 * SECOND_NS) /* after twice as long each time, at most this */

void zc_job_signal(const struct zc_job *job, int signal_number)
{
    for (uint32_t rank = 0; rank < job->launch->rank_count; rank++)
        if (job->pids[rank] != 0)
            kill(-job->pids[rank], signal_number);
}

/* Those that live. */
static const char *live_ranks(struct zc_job *job, char text[ZC_RANKS_TEXT_BYTES])
{
    for (uint32_t rank = 0; rank < job->launch->rank_count; rank++)
        job->named[rank] = job->pids[rank] != 0;
    return zc_ranks_text(job->named, job->launch->rank_count, zc_spawn_job_rank(&job->spawn, 0),
                         text);
}

static uint64_t grace_ns(const struct zc_job *job)
{
    return job->launch->grace_ns == 0 ? GRACE_NS : job->launch->grace_ns;
}

void zc_job_enter(struct zc_job *job, enum zc_phase phase)
{
    const uint64_t limits[] = {[ZC_PHASE_RUN] = UINT64_MAX,
                               [ZC_PHASE_GRACE] = grace_ns(job),
                               [ZC_PHASE_TERM] = TERM_NS,
                               [ZC_PHASE_KILL] = KILL_NS,
                               [ZC_PHASE_OVER] = 0};

    job->phase = phase;
    job->deadline = zc_deadline_in(limits[phase]);
    if (phase == ZC_PHASE_TERM) {
        zc_job_signal(job, SIGTERM);
        zc_job_signal(job, SIGCONT); /* a stopped process takes its SIGTERM only then */
    } else if (phase == ZC_PHASE_KILL) {
        zc_job_signal(job, SIGKILL);
    }
}

/* The next word about those that still run comes so long after now. */
static void expect_ends(struct zc_job *job, uint64_t word_ns)
{
    job->word_ns = word_ns;
    job->next_word = zc_deadline_in(word_ns);
}

void zc_job_set_status(struct zc_job *job, int status)
{
    if (job->failed)
        return;
    job->failed = true;
    job->status = status;
}

static void say_unkillable(struct zc_job *job)
{
    for (uint32_t rank = 0; rank < job->launch->rank_count; rank++)
        if (job->pids[rank] != 0)
            zc_output_say(job->output,
                          "zerocta %s: rank %u (process %d) does not end even after SIGKILL; "
                          "left behind",
                          job->launch->command, zc_spawn_job_rank(&job->spawn, rank),
                          (int)job->pids[rank]);
}

/* ", of which rank 3 is stopped (SIGCONT lets it go on)", or nothing. */
static const char *stopped_ranks(struct zc_job *job, char text[256])
{
    char ranks[ZC_RANKS_TEXT_BYTES];
    uint32_t count = 0;

    for (uint32_t rank = 0; rank < job->launch->rank_count; rank++) {
        job->named[rank] = job->pids[rank] != 0 && zc_process_is_stopped(job->pids[rank]);
        count += job->named[rank];
    }
    zc_ranks_text(job->named, job->launch->rank_count, zc_spawn_job_rank(&job->spawn, 0), ranks);
    text[0] = '\0';
    if (count > 0)
        snprintf(text, 256, "; %s %s stopped, SIGCONT lets %s go on", ranks,
                 count == 1 ? "is" : "are", count == 1 ? "it" : "them");
    return text;
}

/* Once some have ended, or all were asked to, those that have not are named from time to time: one
 * may be stopped, or wait for what will not come. */
static void name_late_ranks(struct zc_job *job)
{
    const uint32_t ended = job->launch->rank_count - job->live;
    char ranks[ZC_RANKS_TEXT_BYTES], stopped[256];

    if (job->phase != ZC_PHASE_RUN || zc_now_ns() < job->next_word ||
        (ended == 0 && job->interrupts == 0))
        return;
    zc_output_say(job->output, "zerocta %s: %s still run%s, %u of %u %s ended%s%s",
                  job->launch->command, live_ranks(job, ranks), job->live == 1 ? "s" : "", ended,
                  job->launch->rank_count, ended == 1 ? "has" : "have", stopped_ranks(job, stopped),
                  job->interrupts > 0 ? "; one more signal kills the rest" : "");
    expect_ends(job, job->word_ns < LATE_MOST_NS / 2 ? 2 * job->word_ns : LATE_MOST_NS);
}

/* The time limit of the whole job has passed. */
static void end_late_job(struct zc_job *job)
{
    char ranks[ZC_RANKS_TEXT_BYTES];

    zc_output_say(
        job->output, "zerocta %s: the job has not ended after %.9g s (--timeout); ending %s",
        job->launch->command, (double)job->launch->timeout_ns / SECOND_NS, live_ranks(job, ranks));
    zc_job_set_status(job, ZC_EXIT_TIMEOUT);
    zc_job_enter(job, ZC_PHASE_TERM);
}

/* Nobody is killed without a word. */
static void say_next_phase(struct zc_job *job)
{
    const bool one = job->live == 1;
    char ranks[ZC_RANKS_TEXT_BYTES];

    live_ranks(job, ranks);
    if (job->phase == ZC_PHASE_GRACE)
        zc_output_say(job->output, "zerocta %s: ending %s, which still run%s %.9g s after %s",
                      job->launch->command, ranks, one ? "s" : "",
                      (double)grace_ns(job) / SECOND_NS, job->first_failure);
    else if (job->phase == ZC_PHASE_TERM)
        zc_output_say(job->output, "zerocta %s: killing %s, which still run%s %u s after SIGTERM",
                      job->launch->command, ranks, one ? "s" : "", (unsigned)(TERM_NS / SECOND_NS));
}

void zc_job_advance(struct zc_job *job)
{
    name_late_ranks(job);
    if (job->phase == ZC_PHASE_RUN && zc_now_ns() >= job->time_limit) {
        end_late_job(job);
        return;
    }
    if (job->phase == ZC_PHASE_OVER || zc_now_ns() < job->deadline)
        return;
    say_next_phase(job);
    if (job->phase == ZC_PHASE_KILL) {
        say_unkillable(job);
        zc_job_set_status(job, ZC_EXIT_FAILED);
    }
    zc_job_enter(job, job->phase + 1);
}

/* What becomes of the others now that a rank has failed. */
static const char *outlook(const struct zc_job *job, char text[96])
{
    text[0] = '\0';
    if (job->live == 0 || job->phase != ZC_PHASE_RUN)
        return text;
    if (job->launch->keep_going)
        snprintf(text, 96, "; %u still run", job->live);
    else
        snprintf(text, 96, "; the others have %.9g s to end by themselves",
                 (double)grace_ns(job) / SECOND_NS);
    return text;
}

static bool is_ending(int signal_number)
{
    static const int ending_signals[] = {ZC_ENDING_SIGNALS};

    for (size_t i = 0; i < sizeof ending_signals / sizeof ending_signals[0]; i++)
        if (ending_signals[i] == signal_number)
            return true;
    return false;
}

/* Ends that the launcher or its user brought about are no news, nor what follows from the first
 * failure; a signal of the rank's own is. */
static bool is_news(const struct zc_job *job, const siginfo_t *end)
{
    const bool ours = end->si_status == SIGTERM || end->si_status == SIGKILL;

    if (end->si_code == CLD_EXITED)
        return job->interrupts == 0 && (!job->failed || job->launch->keep_going);
    if (ours && job->phase > ZC_PHASE_GRACE)
        return false;
    return job->interrupts == 0 || !is_ending(end->si_status);
}

static void note_failure(struct zc_job *job, uint32_t local_rank, const siginfo_t *end)
{
    char text[ZC_END_TEXT_BYTES], rest[96];

    zc_end_text(zc_spawn_job_rank(&job->spawn, local_rank), end, text);
    if (is_news(job, end)) {
        zc_output_drain_rank(job->output, local_rank);
        zc_output_say(job->output, "zerocta %s: %s%s", job->launch->command, text,
                      outlook(job, rest));
    }
    zc_job_set_status(job, end->si_code == CLD_EXITED ? end->si_status
                                                      : ZC_EXIT_SIGNAL + end->si_status);
    if (job->first_failure[0] == '\0')
        snprintf(job->first_failure, sizeof job->first_failure, "%s", text);
    if (job->phase == ZC_PHASE_RUN && !job->launch->keep_going)
        zc_job_enter(job, ZC_PHASE_GRACE);
}

/* `end` is a rank that waits to be reaped. */
static void reap_rank(struct zc_job *job, uint32_t rank, const siginfo_t *end)
{
    const pid_t pid = job->pids[rank];

    /* What the rank left in its group ends with it. The group's number is safe to use as long as
     * the rank has not been reaped. */
    kill(-pid, SIGKILL);
    waitpid(pid, NULL, 0);
    job->pids[rank] = 0;
    job->live--;
    expect_ends(job, LATE_NS);
    if (end->si_code == CLD_EXITED && end->si_status == 0)
        return;
    note_failure(job, rank, end);
}

bool zc_job_reap(struct zc_job *job, pid_t pid)
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

/* The user wants the job to end: the ranks may do so by themselves, unless that is said again. */
static void interrupt(struct zc_job *job, int signal_number)
{
    char name[ZC_SIGNAL_TEXT_BYTES], ranks[ZC_RANKS_TEXT_BYTES];
    const char *how = signal_number == SIGINT ? "interrupted" : "told to end";

    zc_signal_text(signal_number, name);
    if (++job->interrupts == 1 && job->live > 0) {
        zc_output_say(job->output, "zerocta %s: %s (%s); ending %u rank%s; once more kills them",
                      job->launch->command, how, name, job->live, job->live == 1 ? "" : "s");
        expect_ends(job, LATE_NS);
        return;
    }
    zc_job_set_status(job, ZC_EXIT_SIGNAL + signal_number);
    if (job->live == 0) {
        zc_job_enter(job, ZC_PHASE_OVER);
    } else if (job->phase < ZC_PHASE_KILL) {
        zc_output_say(job->output, "zerocta %s: %s again (%s); killing %s", job->launch->command,
                      how, name, live_ranks(job, ranks));
        zc_job_enter(job, ZC_PHASE_KILL);
    }
}

void zc_job_pass_on(struct zc_job *job, int signal_number)
{
    zc_job_signal(job, signal_number);
    if (signal_number == SIGTSTP)
        raise(SIGSTOP);
    if (is_ending(signal_number))
        interrupt(job, signal_number);
}
