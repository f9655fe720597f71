/* Every surrounding of the table, for one rank of three and for all of them, through the life of a
 * job: joining, a team, a window, gathers, the death of a rank, leaving. Each call does what it
 * should, or says in a sentence what keeps it from that; nobody is ended or gets wrong bytes; no
 * call takes more than two deadlines, and no job more than five; and a rank in usual surroundings
 * that meets an error is told of the other: by name, or by that of a rank that left because of it
 * and says so. hostile-table [PART OF A NAME]
 */
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#include "support_ports.h"
#include "support_ranks.h"
#include "surroundings.h"

enum { RANKS = 3, VICTIM = 2, BYTES = 4096, AT_ONCE = 6, TEXT = 600 };

/* In deadlines. Where a call may fail, a rank may wait for one in each of three: zcta_init(), the
 * first call that fails, and zcta_finalize(); the others are for a busy machine. With 20 busy loops
 * on two cores no call took more than 3.1 s of a deadline of 3 s, and no such job more than 4.8 s.
 * Where all must go well nobody waits for a deadline, which is long, at all. */
enum { LONGEST_CALL = 2, LONGEST_JOB = 5, LONGEST_JOB_THAT_WORKS = 2 };

/* What a cell's ranks write down, and what is found out about it; shared memory. */
struct cell {
    const struct surrounding *surrounding;
    bool all; /* or rank 1 alone */
    uint64_t timeout_ns;
    uint64_t took_ns;
    char skipped[64];
    char root[32], token[32];
    struct {
        char skipped[64];
        char failed[TEXT]; /* "zcta_init: its sentence"; empty: all went well */
        char wrong[TEXT];  /* what should never be */
        uint32_t blamed;
        uint64_t begun_ns;   /* when the call under way began */
        uint64_t longest_ns; /* of its calls */
        const char *longest; /* which */
        _Atomic bool done;   /* with everything but the death */
        bool saw_death, ended;
    } ranks[RANKS];
};

struct self {
    struct cell *cell;
    uint32_t rank;
};

static bool is_hostile(const struct cell *cell, uint32_t rank)
{
    return cell->all || rank == 1;
}

static void begin_call(const struct self *self)
{
    self->cell->ranks[self->rank].begun_ns = now_ns();
}

static void surround(const struct self *self, enum when when)
{
    const struct surrounding *surrounding = self->cell->surrounding;
    const char *why = NULL;

    if (is_hostile(self->cell, self->rank) && surrounding->when == when)
        why = surrounding->make(surrounding->a, surrounding->b);
    if (why != NULL)
        snprintf(self->cell->ranks[self->rank].skipped, 64, "%s", why);
    begin_call(self);
}

/* The next one begins right away. */
static void end_call(const struct self *self, const char *call)
{
    const uint64_t took = now_ns() - self->cell->ranks[self->rank].begun_ns;

    if (took > self->cell->ranks[self->rank].longest_ns) {
        self->cell->ranks[self->rank].longest_ns = took;
        self->cell->ranks[self->rank].longest = call;
    }
    begin_call(self);
}

/* Writes down how long a call took, and which was the first that failed. True: it has not. */
static bool went_well(const struct self *self, const char *call, zcta_status status,
                      const zcta_error *error)
{
    char *failed = self->cell->ranks[self->rank].failed;

    end_call(self, call);
    if (status == ZCTA_OK)
        return true;
    if (failed[0] == '\0') {
        snprintf(failed, TEXT, "%s: %s (%s)", call, error->message, zcta_status_name(status));
        self->cell->ranks[self->rank].blamed = error->rank;
    }
    if (error->message[0] == '\0' || error->status != status)
        snprintf(self->cell->ranks[self->rank].wrong, TEXT, "%s has no sentence", call);
    return false;
}

static bool did(const struct self *self, zcta_context *context, const char *call,
                zcta_status status)
{
    zcta_error error = {0};

    zcta_last_error(context, &error);
    return went_well(self, call, status, &error);
}

static bool gather(const struct self *self, zcta_context *context, zcta_team *team,
                   zcta_window *window, uint32_t call)
{
    const uint32_t count = zcta_team_rank_count(team), rank = zcta_team_rank(team);
    unsigned char *all = zcta_window_base(window);

    model_fill(all + rank * BYTES, call, rank, BYTES);
    if (!did(self, context, "zcta_all_gather",
             zcta_all_gather(team, all + rank * BYTES, all, BYTES, NULL, NULL)))
        return false;
    if (model_wrong(all, call, count, BYTES) != 0)
        snprintf(self->cell->ranks[self->rank].wrong, TEXT, "gather %u has wrong bytes", call);
    return did(self, context, "zcta_barrier", zcta_barrier(team, NULL));
}

static void use(const struct self *self, zcta_context *context)
{
    zcta_team *world = zcta_world(context), *part = NULL;
    zcta_window *window = NULL, *later = NULL;
    zcta_host_stream *stream = NULL;
    const void *view;
    size_t stride;

    surround(self, AFTER_INIT);
    if (!did(self, context, "zcta_team_split", zcta_team_split(world, 0, 0, NULL, &part)) ||
        !did(self, context, "zcta_window_alloc",
             zcta_window_alloc(world, BYTES * RANKS, &window)) ||
        !gather(self, context, world, window, 1) || !gather(self, context, part, window, 2))
        return;
    surround(self, AFTER_CALLS);
    /* What is refused here does not keep the rest from working. */
    did(self, context, "zcta_window_view", zcta_window_view(window, &view, &stride));
    if (did(self, context, "zcta_host_stream_create", zcta_host_stream_create(context, &stream)))
        did(self, context, "zcta_host_stream_destroy", zcta_host_stream_destroy(&stream));
    did(self, context, "zcta_window_alloc", zcta_window_alloc(world, 3 * BYTES * RANKS, &later));
    if (!gather(self, context, world, window, 3))
        return;
    self->cell->ranks[self->rank].done = true;
    if (self->rank == VICTIM)
        return;
    while (zcta_team_status(world) == ZCTA_OK)
        sleep_ms(1);
    self->cell->ranks[self->rank].saw_death = true;
}

/* Until the others have come as far, or have failed. */
static void await_others(const struct cell *cell)
{
    for (uint32_t rank = 0; rank < VICTIM; rank++)
        while (!cell->ranks[rank].done && !cell->ranks[rank].ended)
            sleep_ms(1);
}

static void live(const struct self *self)
{
    struct cell *cell = self->cell;
    zcta_error error = {0};
    const zcta_init_params params = {.size = sizeof params,
                                     .rank = self->rank,
                                     .rank_count = RANKS,
                                     .root = cell->root,
                                     .token = cell->token,
                                     .device = ZCTA_DEVICE_HOST,
                                     .timeout_ns = cell->timeout_ns,
                                     .error = &error};
    zcta_context *context = NULL;

    surround(self, BEFORE_INIT);
    if (went_well(self, "zcta_init", zcta_init(&params, &context), &error)) {
        use(self, context);
        if (self->rank == VICTIM && cell->ranks[VICTIM].failed[0] == '\0') {
            await_others(cell);
            cell->ranks[VICTIM].ended = true;
            kill(getpid(), SIGKILL); /* raise() needs a call that may be denied */
        }
        begin_call(self);
        did(self, NULL, "zcta_finalize", zcta_finalize(&context));
    }
    cell->ranks[self->rank].ended = true;
    _exit(0);
}

/* ---- Judging ---- */

static int complain(const struct cell *cell, uint32_t rank, const char *what, const char *text)
{
    printf("FAILED: %s, on %s: rank %u %s%s%s\n", cell->surrounding->name,
           cell->all ? "all ranks" : "rank 1", rank, what, text[0] == '\0' ? "" : ": ", text);
    return 1;
}

/* Whether what `rank` says leads to rank 1, maybe by way of another that says so. */
static bool leads_to_cause(const struct cell *cell, uint32_t rank)
{
    for (uint32_t steps = 0; steps < RANKS && rank < RANKS; steps++) {
        if (cell->ranks[rank].blamed == 1 || strstr(cell->ranks[rank].failed, "rank 1") != NULL)
            return true;
        rank = cell->ranks[rank].blamed;
    }
    return false;
}

static int judge_rank(const struct cell *cell, uint32_t rank, int status)
{
    const bool killed = WIFSIGNALED(status);
    const char *failed = cell->ranks[rank].failed;
    char number[32];

    if (killed && rank == VICTIM && WTERMSIG(status) == SIGKILL && cell->ranks[rank].ended)
        return 0;
    snprintf(number, sizeof number, "%d", killed ? WTERMSIG(status) : WEXITSTATUS(status));
    if (killed || WEXITSTATUS(status) != 0 || !cell->ranks[rank].ended)
        return complain(cell, rank, killed ? "was ended by signal" : "ended with status", number);
    if (cell->ranks[rank].wrong[0] != '\0')
        return complain(cell, rank, "is wrong", cell->ranks[rank].wrong);
    if (cell->ranks[rank].longest_ns > LONGEST_CALL * cell->timeout_ns)
        return complain(cell, rank, "took too long in", cell->ranks[rank].longest);
    if (failed[0] == '\0')
        return cell->ranks[rank].saw_death || rank == VICTIM
                   ? 0
                   : complain(cell, rank, "did not see rank 2 end", "");
    if (cell->surrounding->works)
        return complain(cell, rank, "could not", failed);
    if (!is_hostile(cell, rank) && !leads_to_cause(cell, rank))
        return complain(cell, rank, "does not name rank 1", failed);
    return 0;
}

static pid_t start_rank(struct cell *cell, uint32_t rank)
{
    const pid_t pid = fork();

    EXPECT(pid >= 0);
    if (pid == 0) {
        const struct self self = {.cell = cell, .rank = rank};

        live(&self);
    }
    return pid;
}

/* False: it runs too long, and is ended. */
static bool await_rank(pid_t pid, uint64_t end, int *status)
{
    while (waitpid(pid, status, WNOHANG) == 0) {
        if (now_ns() > end) {
            kill(pid, SIGKILL);
            waitpid(pid, status, 0);
            return false;
        }
        sleep_ms(2);
    }
    return true;
}

static int judge(struct cell *cell, const bool *in_time, const int *statuses)
{
    int complaints = 0;

    for (uint32_t rank = 0; rank < RANKS; rank++)
        if (cell->ranks[rank].skipped[0] != '\0') {
            memcpy(cell->skipped, cell->ranks[rank].skipped, sizeof cell->skipped);
            return 0;
        }
    for (uint32_t rank = 0; rank < RANKS; rank++)
        complaints += in_time[rank] ? judge_rank(cell, rank, statuses[rank])
                                    : complain(cell, rank, "hangs", "");
    return complaints;
}

static void show(const struct cell *cell)
{
    printf("%-34s %-3s took %.2f s\n", cell->surrounding->name, cell->all ? "all" : "one",
           (double)cell->took_ns / 1e9);
    for (uint32_t rank = 0; rank < RANKS; rank++)
        printf("  rank %u: %.2f s in %s; %s\n", rank, (double)cell->ranks[rank].longest_ns / 1e9,
               cell->ranks[rank].longest == NULL ? "no call" : cell->ranks[rank].longest,
               cell->ranks[rank].failed);
}

/* Runs in a process of its own. The exit status is the number of complaints. */
static int run_cell(struct cell *cell)
{
    const uint64_t deadlines = cell->surrounding->works ? LONGEST_JOB_THAT_WORKS : LONGEST_JOB;
    const uint64_t begin = now_ns(), end = begin + deadlines * cell->timeout_ns;
    bool in_time[RANKS];
    pid_t pids[RANKS];
    int statuses[RANKS], complaints;

    for (uint32_t rank = 0; rank < RANKS; rank++)
        pids[rank] = start_rank(cell, rank);
    for (uint32_t rank = 0; rank < RANKS; rank++)
        in_time[rank] = await_rank(pids[rank], end, &statuses[rank]);
    cell->took_ns = now_ns() - begin;
    complaints = judge(cell, in_time, statuses);
    if (getenv("ZEROCTA_TEST_SHOW") != NULL)
        show(cell);
    fflush(stdout);
    return complaints;
}

static void prepare_cell(struct cell *cell, uint32_t index)
{
    cell->surrounding = &surroundings[index / 2];
    cell->all = index % 2 == 1;
    /* Where everything must go well, being slow is no reason for it not to. */
    cell->timeout_ns = (cell->surrounding->works ? 40u : 3u) * UINT64_C(1000000000) * SLOWNESS;
    snprintf(cell->root, sizeof cell->root, "127.0.0.1:%u", free_port());
    snprintf(cell->token, sizeof cell->token, "cell %u", index);
}

/* One more has ended; its complaints. */
static int await_cell(void)
{
    int status = 0;

    EXPECT(wait(&status) > 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/* What was not tested, each surrounding once. Returns the number of cells. */
static uint32_t print_skipped(const struct cell *cells, uint32_t count)
{
    uint32_t skipped = 0;

    for (uint32_t i = 0; i < count; i++) {
        const bool again = i > 0 && cells[i - 1].surrounding == cells[i].surrounding &&
                           cells[i - 1].skipped[0] != '\0';

        if (cells[i].skipped[0] == '\0')
            continue;
        skipped++;
        if (!again)
            printf("skipped: %s: %s\n", cells[i].surrounding->name, cells[i].skipped);
    }
    return skipped;
}

int main(int argc, char **argv)
{
    struct cell *cells = shared_zeroed(2 * surrounding_count * sizeof *cells);
    uint32_t running = 0, count = 0, skipped;
    int complaints = 0;

    /* Their failures are expected; the log would say so many times. */
    setenv("ZEROCTA_LOG", "off", 1);
    for (uint32_t index = 0; index < 2 * surrounding_count; index++) {
        if (argc > 1 && strstr(surroundings[index / 2].name, argv[1]) == NULL)
            continue;
        if (running == AT_ONCE) {
            complaints += await_cell();
            running--;
        }
        prepare_cell(&cells[count], index);
        fflush(NULL);
        if (fork() == 0)
            _exit(run_cell(&cells[count]));
        count++;
        running++;
    }
    for (; running > 0; running--)
        complaints += await_cell();
    skipped = print_skipped(cells, count);
    printf("%u cells: %u run, %u skipped, %d complaints\n", count, count - skipped, skipped,
           complaints);
    return complaints > 0;
}
