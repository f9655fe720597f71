/* zerocta setup --grow: how joining grows with the number of ranks on this machine. Each number of
 * ranks is a job of its own, one after the other; its rank 0 prints a row of the table. The ranks
 * do nothing but join, make a team and a window, and leave. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory_limits.h"
#include "commands.h"
#include "launch.h"
#include "options.h"
#include "setup.h"

/* What one rank needs at least, for the warnings before the first job: files besides one for each
 * other rank, threads, and bytes of memory with those for each other rank. */
#define FILES_BESIDE     32u
#define THREADS_OF_RANK  2u
#define MEMORY_OF_RANK   ((uint64_t)2 << 20)
#define MEMORY_OF_A_PEER ((uint64_t)2 << 10)

/* What a rank tells the others. Moments are of the machine's one monotonic clock. */
struct figures {
    uint64_t begun, joined; /* moments: zcta_init() called, and returned */
    uint64_t team_ns, window_ns;
    uint64_t files, threads, memory_bytes;
};

struct rank {
    const struct zc_setup_grow *grow;
    zcta_context *context;
    zcta_team *world;
    uint32_t number, count;
    struct figures own;
    struct figures *all;
};

/* ---- Before ---- */

/* A number in a file of /proc: the first one behind `key` at the beginning of a line. */
static bool read_number(const char *path, const char *key, uint64_t *number)
{
    FILE *file = fopen(path, "re");
    char line[256];
    bool found = false;

    while (file != NULL && !found && fgets(line, sizeof line, file) != NULL) {
        char *end = line;

        if (strncmp(line, key, strlen(key)) == 0)
            *number = strtoull(line + strlen(key), &end, 10);
        found = end > line + strlen(key);
    }
    if (file != NULL)
        fclose(file);
    return found;
}

static void warn_limit(const struct zc_setup_grow *grow, const struct rlimit *limit,
                       uint64_t needed, const char *what, const char *option)
{
    if (limit->rlim_cur >= needed)
        return;
    fprintf(stderr,
            "zerocta %s: note: %" PRIu32 " ranks need about %" PRIu64
            " %s, and the limit is %" PRIu64 "; raise it with `ulimit %s %" PRIu64 "`%s\n",
            grow->command, grow->rank_count, needed, what, (uint64_t)limit->rlim_cur, option,
            needed, limit->rlim_max >= needed ? "" : " (as root: the hard limit is lower, too)");
}

/* Says which limits stand in the way of the largest job; the jobs below it may run all the same. */
static void warn_limits(const struct zc_setup_grow *grow)
{
    const uint64_t ranks = grow->rank_count;
    const double memory = (double)ranks * (double)(MEMORY_OF_RANK + ranks * MEMORY_OF_A_PEER) +
                          (double)ranks * (double)grow->bytes;
    struct zc_memory_limits limits;
    struct zc_memory_room room;
    struct rlimit files, threads;

    if (getrlimit(RLIMIT_NOFILE, &files) == 0)
        warn_limit(grow, &files, ranks + FILES_BESIDE, "open files in each", "-n");
    if (geteuid() != 0 && getrlimit(RLIMIT_NPROC, &threads) == 0)
        warn_limit(grow, &threads, ranks * THREADS_OF_RANK, "processes and threads", "-u");
    zc_memory_limits_find(&limits, "");
    zc_memory_limits_ask(&limits, &room);
    if ((double)room.left < memory)
        fprintf(stderr,
                "zerocta %s: note: %" PRIu32 " ranks need about %.0f"
                " MiB of memory, and %" PRIu64 " MiB are available %s\n",
                grow->command, grow->rank_count, memory / 0x1p20, room.left >> 20, room.what);
}

/* ---- The table ---- */

static void print_head(const struct zc_setup_grow *grow)
{
    printf("zerocta setup: growing jobs on this machine, a window of %" PRIu64
           " bytes on each rank\n\n"
           "%7s %10s %10s %10s %10s %7s %8s %10s\n"
           "%7s %10s %10s %10s %10s %7s %8s %10s\n",
           grow->bytes, "ranks", "start", "join", "team", "window", "files", "threads", "memory",
           "", "ms", "ms", "ms", "ms", "a rank", "a rank", "KiB a rank");
    fflush(stdout);
}

static void print_row(const struct rank *r)
{
    uint64_t first = UINT64_MAX, last = 0, joined = 0, memory = 0;
    struct figures most = {0};

    for (uint32_t i = 0; i < r->count; i++) {
        const struct figures *f = &r->all[i];

        first = f->begun < first ? f->begun : first;
        last = f->begun > last ? f->begun : last;
        joined = f->joined > joined ? f->joined : joined;
        most.team_ns = f->team_ns > most.team_ns ? f->team_ns : most.team_ns;
        most.window_ns = f->window_ns > most.window_ns ? f->window_ns : most.window_ns;
        most.files = f->files > most.files ? f->files : most.files;
        most.threads = f->threads > most.threads ? f->threads : most.threads;
        memory += f->memory_bytes;
    }
    printf("%7" PRIu32 " %10.1f %10.1f %10.1f %10.1f %7" PRIu64 " %8" PRIu64 " %10" PRIu64 "\n",
           r->count, (double)(last - first) / 1e6, (double)(joined - last) / 1e6,
           (double)most.team_ns / 1e6, (double)most.window_ns / 1e6, most.files, most.threads,
           memory / (r->count > 0 ? r->count : 1) >> 10);
    fflush(stdout);
}

int zc_setup_grow(const struct zc_setup_grow *grow, int argc, char **argv)
{
    uint32_t ranks = grow->rank_count < 2 ? grow->rank_count : 2;
    int status = ZC_EXIT_OK;

    warn_limits(grow);
    print_head(grow);
    while (status == ZC_EXIT_OK) {
        status = zc_launch_self(grow->command, ranks, argc, argv);
        if (status != ZC_EXIT_OK)
            zc_failure(grow->command,
                       "the job of %" PRIu32 " ranks failed; nothing larger was tried", ranks);
        if (ranks == grow->rank_count)
            break;
        ranks = ranks > grow->rank_count / 2 ? grow->rank_count : ranks * 2;
    }
    return status;
}

/* ---- One rank ---- */

static uint64_t count_files(void)
{
    DIR *folder = opendir("/proc/self/fd");
    uint64_t count = 0;

    while (folder != NULL && readdir(folder) != NULL)
        count++;
    if (folder != NULL)
        closedir(folder);
    return count < 3 ? 0 : count - 3; /* ".", "..", and the folder itself */
}

static int fail(const struct rank *r, const char *what)
{
    zcta_error error = {0};

    zcta_last_error(r->context, &error);
    return zc_failure(r->grow->command, "rank %" PRIu32 " of %" PRIu32 ", %s: %s", r->number,
                      r->count, what, error.message);
}

static bool meet(struct rank *r)
{
    return zcta_team_exchange(r->world, &r->own, r->all, sizeof r->own) == ZCTA_OK;
}

static bool make_team(struct rank *r)
{
    const zcta_team_params params = {.size = sizeof params, .name = "setup"};
    uint32_t *ranks = calloc(r->count, sizeof *ranks);
    zcta_team *team = NULL;
    const uint64_t start = zc_now_ns();
    bool made;

    for (uint32_t i = 0; ranks != NULL && i < r->count; i++)
        ranks[i] = i;
    made = ranks != NULL && zcta_team_get(r->context, ranks, r->count, &params, &team) == ZCTA_OK;
    r->own.team_ns = zc_now_ns() - start;
    free(ranks);
    return made;
}

static bool make_window(struct rank *r)
{
    zcta_window *window = NULL;
    const uint64_t start = zc_now_ns();
    const bool made = zcta_window_alloc(r->world, r->grow->bytes, &window) == ZCTA_OK;

    r->own.window_ns = zc_now_ns() - start;
    return made;
}

/* Everybody meets before each part, so that a part's time is its own. */
static int run_parts(struct rank *r)
{
    uint64_t kib = 0;

    if (!meet(r))
        return fail(r, "no first round");
    if (!make_team(r))
        return fail(r, "no team");
    if (!meet(r))
        return fail(r, "no round after the team");
    if (!make_window(r))
        return fail(r, "no window");
    r->own.files = count_files();
    read_number("/proc/self/status", "Threads:", &r->own.threads);
    if (read_number("/proc/self/smaps_rollup", "Pss:", &kib))
        r->own.memory_bytes = kib << 10;
    if (!meet(r))
        return fail(r, "no last round");
    if (r->number == 0)
        print_row(r);
    return ZC_EXIT_OK;
}

int zc_setup_grow_rank(const struct zc_setup_grow *grow)
{
    zcta_error error = {0};
    const zcta_init_params params = {
        .size = sizeof params, .device = grow->device, .error = &error};
    struct rank r = {.grow = grow, .own.begun = zc_now_ns()};
    int status;

    if (zcta_init(&params, &r.context) != ZCTA_OK)
        return zc_failure(grow->command, "%s", error.message);
    r.own.joined = zc_now_ns();
    r.world = zcta_world(r.context);
    r.number = zcta_team_rank(r.world);
    r.count = zcta_team_rank_count(r.world);
    r.all = calloc(r.count, sizeof *r.all);
    status = r.all == NULL ? zc_failure(grow->command, "out of memory") : run_parts(&r);
    if (zcta_finalize(&r.context) != ZCTA_OK && status == ZC_EXIT_OK)
        status = fail(&r, "could not leave");
    free(r.all);
    return status;
}
