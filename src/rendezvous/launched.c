/* Which launcher started this rank, by the table in launchers.c. A rank that a launcher started is
 * never alone without a word, and two launchers that contradict each other are an error: nothing
 * tells which of them the user meant. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "rendezvous/launchers.h"
#include "rendezvous/rendezvous.h"

/* Slurm numbers the batch script, the interactive shell and the like downwards from here. */
enum { FIRST_SHELL_STEP = INT32_MAX, ANCESTORS = 16, STAT = 512 };

/* What one launcher's variables say. */
struct words {
    const char *rank_name, *count_name; /* NULL: not set */
    uint32_t rank, count;
    bool shell; /* of an allocation: the launcher has started no ranks here */
};

const char *zc_launcher_value(const char *const names[ZC_LAUNCHER_NAMES], const char **name)
{
    for (int i = 0; i < ZC_LAUNCHER_NAMES && names[i] != NULL; i++) {
        const char *text = getenv(names[i]);

        if (text != NULL) {
            *name = names[i];
            return text;
        }
    }
    *name = NULL;
    return NULL;
}

static const char *variable(const char *name)
{
    return name != NULL ? getenv(name) : NULL;
}

bool zc_launcher_parse(const char *text, uint32_t most, uint32_t *value)
{
    uint64_t number = 0;

    if (*text == '\0')
        return false;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9')
            return false;
        number = number * 10 + (uint64_t)(*text - '0');
        if (number > most)
            return false;
    }
    *value = (uint32_t)number;
    return true;
}

zcta_status zc_launcher_need(struct zc_diag *diag, const struct zc_launcher *launcher,
                             const char *name, const char **text)
{
    *text = variable(name);
    if (*text != NULL)
        return ZCTA_OK;
    return zc_fail(diag, ZCTA_ERR_ENVIRONMENT, "zcta_init", 0,
                   "%s is not set, but other variables of %s are: start the program with a "
                   "launcher that sets all of them, or unset them to run one rank alone",
                   name, launcher->name);
}

zcta_status zc_launcher_number(struct zc_diag *diag, const char *name, uint32_t least,
                               uint32_t most, uint32_t *value)
{
    const char *text = getenv(name);

    if (text == NULL || !zc_launcher_parse(text, most, value) || *value < least)
        return zc_fail(diag, ZCTA_ERR_ENVIRONMENT, "zcta_init", 0,
                       "%s=%.40s is not a number from %" PRIu32 " to %" PRIu32, name,
                       text != NULL ? text : "", least, most);
    return ZCTA_OK;
}

/* False in the shell of an allocation, of which the launcher has started no ranks. */
static bool is_step(const struct zc_launcher *launcher)
{
    const char *step = variable(launcher->step);
    uint32_t number;

    return launcher->step == NULL ||
           (step != NULL && zc_launcher_parse(step, FIRST_SHELL_STEP, &number));
}

static zcta_status read_words(struct zc_diag *diag, const struct zc_launcher *launcher,
                              struct words *words)
{
    zcta_status status = ZCTA_OK;

    memset(words, 0, sizeof *words);
    words->shell = !is_step(launcher);
    if (zc_launcher_value(launcher->rank, &words->rank_name) != NULL)
        status = zc_launcher_number(diag, words->rank_name, 0, UINT32_MAX - 1, &words->rank);
    if (zc_launcher_value(launcher->count, &words->count_name) != NULL && status == ZCTA_OK &&
        (words->rank_name != NULL || launcher->count_alone || launcher->step != NULL))
        status = zc_launcher_number(diag, words->count_name, 1, ZC_MAX_RANKS, &words->count);
    else
        words->count_name = NULL;
    return status;
}

static bool is_complete(const struct words *words)
{
    return !words->shell && words->rank_name != NULL && words->count_name != NULL;
}

/* Says something about this rank. */
static bool speaks(const struct words *words)
{
    return !words->shell && (words->rank_name != NULL || words->count_name != NULL);
}

/* ---- Contradictions ---- */

static bool contradicts(const struct words *ours, const struct words *other)
{
    return (other->count_name != NULL && other->count != ours->count) ||
           (other->rank_name != NULL && other->rank != ours->rank);
}

/* The other launcher started ours, which then started this rank: once on each machine, say, or in a
 * job that it gave one process. It does not count if ours says that the rank is alone. */
static bool is_outer(const struct zc_launcher *launcher, const struct words *ours,
                     const struct zc_launcher *outer, const struct words *other)
{
    const bool marked = launcher->mark == NULL || variable(launcher->mark) != NULL;
    const uint32_t each = other->count == 0 ? 0 : ours->count / other->count;

    if (ours->count == 1)
        return false;
    if (other->count == 1 || (marked && launcher->depth < outer->depth))
        return true;
    return other->rank_name != NULL && each > 0 && each * other->count == ours->count &&
           ours->rank / each == other->rank;
}

/* "Slurm says rank 0 of 4 (SLURM_PROCID, SLURM_STEP_NUM_TASKS)". */
static void describe(const struct zc_launcher *launcher, const struct words *words, char text[128])
{
    if (words->rank_name != NULL && words->count_name != NULL)
        snprintf(text, 128, "%s says rank %" PRIu32 " of %" PRIu32 " (%s, %s)", launcher->name,
                 words->rank, words->count, words->rank_name, words->count_name);
    else if (words->rank_name != NULL)
        snprintf(text, 128, "%s says rank %" PRIu32 " (%s)", launcher->name, words->rank,
                 words->rank_name);
    else
        snprintf(text, 128, "%s says %" PRIu32 " ranks (%s)", launcher->name, words->count,
                 words->count_name);
}

static zcta_status compare(struct zc_diag *diag, const struct words *all, int chosen)
{
    char ours[128], theirs[128];

    for (int i = 0; i < ZC_LAUNCHER_KINDS; i++) {
        if (i == chosen || !speaks(&all[i]) || !contradicts(&all[chosen], &all[i]) ||
            is_outer(&zc_launchers[chosen], &all[chosen], &zc_launchers[i], &all[i]))
            continue;
        describe(&zc_launchers[chosen], &all[chosen], ours);
        describe(&zc_launchers[i], &all[i], theirs);
        return zc_fail(diag, ZCTA_ERR_ENVIRONMENT, "zcta_init", 0,
                       "two launchers contradict each other: %s, but %s; unset the variables that "
                       "do not describe this job (`env -u NAME`), or set them to the same numbers",
                       ours, theirs);
    }
    return ZCTA_OK;
}

/* The name of the variable by which there are several ranks on this machine, or NULL. */
static const char *several_here(const struct zc_launcher *launcher)
{
    const char *rank_name = NULL, *count_name = NULL;
    const char *rank = zc_launcher_value(launcher->local_rank, &rank_name);
    const char *count = zc_launcher_value(launcher->local_count, &count_name);

    if (rank != NULL && strcmp(rank, "0") != 0)
        return rank_name;
    return count != NULL && strcmp(count, "1") != 0 ? count_name : NULL;
}

/* No launcher says both who this rank is and how many there are: whether that is a mistake. */
static zcta_status check_alone(struct zc_diag *diag, const struct words *all)
{
    const char *text;

    for (int i = 0; i < ZC_LAUNCHER_KINDS; i++) {
        const struct zc_launcher *launcher = &zc_launchers[i];
        const char *several = several_here(launcher);

        if (speaks(&all[i]) && all[i].rank_name == NULL)
            return zc_launcher_need(diag, launcher, launcher->rank[0], &text);
        if (speaks(&all[i]) && launcher->count[0] != NULL)
            return zc_launcher_need(diag, launcher, launcher->count[0], &text);
        if (speaks(&all[i]))
            return zc_fail(diag, ZCTA_ERR_ENVIRONMENT, "zcta_init", 0,
                           "%s=%" PRIu32 ", so %s has started this program as one of several "
                           "ranks, but no variable says how many: set ZEROCTA_PORT, RANK, "
                           "WORLD_SIZE and LOCAL_RANK, or unset %s to run one rank alone",
                           all[i].rank_name, all[i].rank, launcher->name, all[i].rank_name);
        if (!all[i].shell && several != NULL)
            return zc_fail(diag, ZCTA_ERR_ENVIRONMENT, "zcta_init", 0,
                           "%s is set, so this program is one of several ranks on this machine, "
                           "but %s is not: set it and %s, or unset %s to run one rank alone",
                           several, launcher->rank[0], launcher->count[0], several);
        if (all[i].shell && all[i].count > 1)
            return zc_fail(diag, ZCTA_ERR_ENVIRONMENT, "zcta_init", 0,
                           "%s=%" PRIu32 ", but %s has not started this program: it runs in the "
                           "shell of an allocation, where nobody starts the other ranks; start it "
                           "with srun, mpirun, torchrun or `zerocta run`, or unset %s to run one "
                           "rank alone",
                           all[i].count_name, all[i].count, launcher->name, all[i].count_name);
    }
    return ZCTA_OK;
}

/* ---- This machine ---- */

/* The entry of a list such as "4(x2),3" for machine `index`; 0: there is none, or it is no list. */
static uint32_t list_entry(const char *text, uint32_t index)
{
    while (*text != '\0') {
        char *end;
        const unsigned long value = strtoul(text, &end, 10);
        unsigned long times = 1;

        if (end == text || value == 0 || value > ZC_MAX_RANKS)
            return 0;
        if (strncmp(end, "(x", 2) == 0) {
            times = strtoul(end + 2, &end, 10);
            if (times == 0 || *end++ != ')')
                return 0;
        }
        if (*end != '\0' && *end != ',')
            return 0;
        if (index < times)
            return (uint32_t)value;
        index -= (uint32_t)times;
        text = *end == ',' ? end + 1 : end;
    }
    return 0;
}

/* How many ranks `launcher` has started on this machine; 0 if it does not say so. */
static zcta_status read_local_count(struct zc_diag *diag, const struct zc_launcher *launcher,
                                    const struct zc_launched *launched, uint32_t *count)
{
    const char *machine = variable(launcher->machine), *machines = variable(launcher->machines);
    const char *name, *text = zc_launcher_value(launcher->local_count, &name);
    uint32_t index = 0;

    *count = 0;
    if (text == NULL) {
        if (machines != NULL && strcmp(machines, "1") == 0)
            *count = launched->count;
        return ZCTA_OK;
    }
    if (machine != NULL && !zc_launcher_parse(machine, ZC_MAX_RANKS, &index))
        return zc_launcher_number(diag, launcher->machine, 0, ZC_MAX_RANKS, &index);
    *count = list_entry(text, index);
    if (*count == 0)
        return zc_launcher_number(diag, name, 1, ZC_MAX_RANKS, count);
    if (*count > launched->count)
        return zc_fail(diag, ZCTA_ERR_ENVIRONMENT, "zcta_init", 0,
                       "%s=%" PRIu32 " but %s says %" PRIu32
                       " ranks: one machine cannot have more ranks than the job",
                       name, *count, launcher->name, launched->count);
    return ZCTA_OK;
}

static zcta_status read_local_rank(struct zc_diag *diag, const struct zc_launcher *launcher,
                                   struct zc_launched *launched)
{
    const char *name, *text = zc_launcher_value(launcher->local_rank, &name);
    const char *count_name = NULL;
    zcta_status status;

    if (text == NULL)
        return zc_launcher_need(diag, launcher, launcher->local_rank[0], &text);
    status = zc_launcher_number(diag, name, 0, launched->count - 1, &launched->local_rank);
    if (status != ZCTA_OK || launched->local_rank < launched->local_count)
        return status;
    (void)zc_launcher_value(launcher->local_count, &count_name);
    return zc_fail(diag, ZCTA_ERR_ENVIRONMENT, "zcta_init", 0,
                   "%s=%" PRIu32 " but %s=%" PRIu32
                   ": ranks count from 0 and are less than their number",
                   name, launched->local_rank, count_name != NULL ? count_name : "their number",
                   launched->local_count);
}

static bool says_local(const struct zc_launcher *launcher)
{
    const char *name;

    return zc_launcher_value(launcher->local_rank, &name) != NULL ||
           zc_launcher_value(launcher->local_count, &name) != NULL;
}

/* The launcher that tells this rank's place on its machine: the chosen one, or else one that says
 * the same rank of the same number. */
static const struct zc_launcher *find_local(const struct words *all, int chosen)
{
    for (int i = 0; i < ZC_LAUNCHER_KINDS && !says_local(&zc_launchers[chosen]); i++)
        if (is_complete(&all[i]) && !contradicts(&all[chosen], &all[i]) &&
            says_local(&zc_launchers[i]))
            return &zc_launchers[i];
    return &zc_launchers[chosen];
}

static zcta_status read_local(struct zc_diag *diag, const struct words *all, int chosen,
                              struct zc_launched *launched)
{
    const struct zc_launcher *launcher = find_local(all, chosen);
    const char *machines = variable(launcher->machines), *text;
    zcta_status status = read_local_count(diag, launcher, launched, &launched->local_count);

    launched->spread = (launched->local_count > 0 && launched->local_count < launched->count) ||
                       (machines != NULL && strcmp(machines, "1") != 0);
    launched->local_rank = launched->rank;
    if (status == ZCTA_OK && launched->local_count == 0) {
        launched->local_count = launched->count;
        if (launcher == &zc_launchers[ZC_LAUNCHER_RUN])
            return zc_launcher_need(diag, launcher, launcher->local_count[0], &text);
    }
    if (status == ZCTA_OK && (launcher->local_needed || says_local(launcher)))
        status = read_local_rank(diag, launcher, launched);
    return status;
}

/* ---- The launch ---- */

/* The pid of `pid`'s parent, its own start and its name, from /proc; 0: not to be had. */
static int64_t read_process(int64_t pid, uint64_t *start, char name[64])
{
    char path[48], text[STAT], *at;
    long long parent = 0;
    unsigned long long since = 0;
    ssize_t got = -1;
    int fd;

    snprintf(path, sizeof path, "/proc/%" PRId64 "/stat", pid);
    fd = zc_fd_lift(open(path, O_RDONLY | O_CLOEXEC));
    if (fd >= 0) {
        got = read(fd, text, sizeof text - 1);
        close(fd);
    }
    if (got <= 0)
        return 0;
    text[got] = '\0';
    /* pid (name) state parent … start is the 22nd; a name may hold blanks and brackets. */
    at = strrchr(text, ')');
    if (at == NULL || strchr(text, '(') == NULL)
        return 0;
    *at = '\0';
    snprintf(name, 64, "%.63s", strchr(text, '(') + 1);
    /* NOLINTNEXTLINE(cert-err34-c): the kernel writes numbers that fit */
    if (sscanf(at + 2,
               "%*c %lld %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu",
               &parent, &since) != 2)
        return 0;
    *start = since;
    return parent;
}

/* The nearest ancestor of that name, as a text that no other process has. */
static bool find_ancestor(const char *wanted, char text[64])
{
    int64_t pid = getppid();

    for (int i = 0; i < ANCESTORS && pid > 1; i++) {
        char name[64];
        uint64_t start = 0;
        const int64_t parent = read_process(pid, &start, name);

        if (parent != 0 && strcmp(name, wanted) == 0) {
            snprintf(text, 64, "%" PRId64 "@%" PRIu64, pid, start);
            return true;
        }
        pid = parent;
    }
    return false;
}

static void add_identity(struct zc_launched *launched, const char *name, const char *value)
{
    const size_t used = strlen(launched->identity);

    snprintf(launched->identity + used, sizeof launched->identity - used, "%s=%.100s ", name,
             value);
}

/* All that tells this launch from others. Only what is the same on all ranks may be asked here, and
 * that is how many ranks a launcher says there are, but not which. */
static void read_identity(const struct words *all, int chosen, struct zc_launched *launched)
{
    /* Over several machines the token is the user's, who may use it again. */
    launched->named = chosen == ZC_LAUNCHER_RUN && !launched->spread;
    for (int i = 0; i < ZC_LAUNCHER_KINDS; i++) {
        const struct zc_launcher *launcher = &zc_launchers[i];
        const char *name, *value = zc_launcher_value(launcher->identity, &name);
        char ancestor[64];

        if (!speaks(&all[i]) || all[i].count != launched->count)
            continue;
        if (value != NULL &&
            (launcher->no_identity == NULL || strcmp(value, launcher->no_identity) != 0)) {
            add_identity(launched, name, value);
            launched->named = true;
        } else if (launcher->ancestor != NULL && !launched->spread &&
                   find_ancestor(launcher->ancestor, ancestor)) {
            add_identity(launched, launcher->ancestor, ancestor);
            launched->named = true;
        }
        for (int j = 0; j < ZC_LAUNCHER_NAMES && launcher->attempt[j] != NULL; j++)
            if (getenv(launcher->attempt[j]) != NULL)
                add_identity(launched, launcher->attempt[j], getenv(launcher->attempt[j]));
    }
}

zcta_status zc_launched_find(struct zc_diag *diag, struct zc_launched *launched)
{
    struct words all[ZC_LAUNCHER_KINDS];
    struct zc_launched found = {.count = 1, .local_count = 0};
    zcta_status status = ZCTA_OK;
    int chosen = -1;

    for (int i = 0; i < ZC_LAUNCHER_KINDS && status == ZCTA_OK; i++) {
        status = read_words(diag, &zc_launchers[i], &all[i]);
        if (chosen < 0 && is_complete(&all[i]))
            chosen = i;
    }
    if (status == ZCTA_OK && chosen < 0) {
        status = check_alone(diag, all);
        found.local_count = 1;
    } else if (status == ZCTA_OK) {
        found.launcher = &zc_launchers[chosen];
        found.rank = all[chosen].rank;
        found.count = all[chosen].count;
        if (found.rank >= found.count)
            status =
                zc_fail(diag, ZCTA_ERR_ENVIRONMENT, "zcta_init", 0,
                        "%s=%" PRIu32 " but %s=%" PRIu32
                        ": ranks count from 0 and are less than their number",
                        all[chosen].rank_name, found.rank, all[chosen].count_name, found.count);
        if (status == ZCTA_OK)
            status = compare(diag, all, chosen);
        if (status == ZCTA_OK)
            status = read_local(diag, all, chosen, &found);
        if (status == ZCTA_OK)
            read_identity(all, chosen, &found);
    }
    if (status == ZCTA_OK)
        *launched = found;
    return status;
}

bool zc_launched_as_rank(void)
{
    for (int i = 0; i < ZC_LAUNCHER_KINDS; i++) {
        const struct zc_launcher *launcher = &zc_launchers[i];
        const char *name;

        if (is_step(launcher) &&
            (zc_launcher_value(launcher->rank, &name) != NULL ||
             (launcher->count_alone && zc_launcher_value(launcher->count, &name) != NULL)))
            return true;
    }
    return false;
}
