/* zerocta setup: how long it takes until two windows can be used, ours and NCCL's, in turns in the
 * same processes. The GPU's context exists before either clock starts. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "alone.h"
#include "base/clock.h"
#include "choices.h"
#include "commands.h"
#include "gpu.h"
#include "launch.h"
#include "option_rows.h"
#include "options.h"
#include "peer_nccl.h"
#include "rendezvous/rendezvous.h"
#include "setup.h"

enum { WINDOWS = 2, ROUNDS_MOST = 100 };

#define BYTES_DEFAULT_GPU  ((uint64_t)1 << 30)
#define BYTES_DEFAULT_HOST ((uint64_t)64 << 20)
#define BYTES_DEFAULT_GROW ((uint64_t)64 << 10)

/* The parts of a set-up, in their order. */
enum { JOIN, FIRST_WINDOW, SECOND_WINDOW, WHOLE, PARTS };

struct settings {
    uint64_t rank_count, grow_count, bytes, rounds, device;
    bool peer;
};

struct setup {
    const struct settings *settings;
    zcta_context *base; /* joined once: what the ranks meet on */
    zcta_team *world;
    uint32_t rank, rank_count;
    uint64_t bytes; /* of each window */
    struct zc_gpu *gpu;
    struct zc_peer_nccl *nccl;
    uint64_t *times_ns;
    struct zc_nccl_id *ids;
    double times_us[2][PARTS][ROUNDS_MOST]; /* ours, NCCL's */
    uint32_t rounds;
};

static const struct zc_option options[] = {
    ZC_ROW_RANKS(offsetof(struct settings, rank_count), "how many ranks to start; 2 if not given",
                 1, 64),
    {.name = "grow",
     .argument = "RANKS",
     .help =
         "instead: how joining grows; jobs of 2, 4, 8 and so on ranks up to so many, a row each",
     .kind = ZC_OPTION_NUMBER,
     .offset = offsetof(struct settings, grow_count),
     .min = 1,
     .max = ZC_MAX_RANKS},
    {.name = "bytes",
     .argument = "SIZE",
     .help =
         "of each window, on every rank; if not given, 1G on GPUs, 64M on the host, and 64K with "
         "--grow",
     .kind = ZC_OPTION_SIZE,
     .offset = offsetof(struct settings, bytes),
     .min = 1,
     .max = ZC_OUTPUT_BYTES_MAX},
    {.name = "rounds",
     .argument = "COUNT",
     .help = "how many times; 5 if not given",
     .kind = ZC_OPTION_NUMBER,
     .offset = offsetof(struct settings, rounds),
     .min = 1,
     .max = ROUNDS_MOST},
    ZC_ROW_DEVICE(offsetof(struct settings, device),
                  "where the memory is; with --grow the host's if not given"),
    {.name = "nccl",
     .help = "NCCL's set-up as well, in turns: a communicator with CTA policy ZERO, and two "
             "buffers of its own in symmetric windows",
     .kind = ZC_OPTION_FLAG,
     .offset = offsetof(struct settings, peer)},
};

static const struct zc_command_line line = {
    .command = "setup",
    .synopsis = "[OPTIONS]",
    .purpose = "Measures how long it takes to join a job and make two windows, again and again in "
               "processes that are there already.",
    .options = options,
    .option_count = sizeof options / sizeof options[0],
    .notes =
        "Milliseconds, medians of the rounds, the slowest rank's.\n"
        "\n"
        "With --grow, for each number of ranks:\n"
        "start    from the first rank's call of zcta_init() to the last one's\n"
        "join     from the last one's call until all have joined\n"
        "team     a further team of all ranks, on its slowest rank; window: a small one\n"
        "files    open descriptors, on the rank that has most, standard input and output included\n"
        "threads  on the rank that has most\n"
        "memory   of a rank, on average; what ranks share is divided among them\n",
    .exit_status = "0 if all could be measured, 1 if not",
};

static int complain(const struct setup *s, zcta_context *context, const char *what)
{
    zcta_error error = {0};

    zcta_last_error(context, &error);
    return zc_failure(line.command, "rank %" PRIu32 ", %s: %s", s->rank, what, error.message);
}

/* The ranks of a job that is being made meet on the one that there is. */
static int exchange(void *data, const void *mine, void *all, size_t bytes)
{
    const struct setup *s = data;

    return zcta_team_exchange(s->world, mine, all, bytes) == ZCTA_OK ? 0 : -1;
}

static bool meet(struct setup *s)
{
    const uint64_t nothing = 0;

    return zcta_team_exchange(s->world, &nothing, s->times_ns, sizeof nothing) == ZCTA_OK;
}

/* Notes a part's time: the slowest rank's. */
static bool note(struct setup *s, int whose, int part, uint64_t ns)
{
    uint64_t slowest = 0;

    if (zcta_team_exchange(s->world, &ns, s->times_ns, sizeof ns) != ZCTA_OK)
        return false;
    for (uint32_t i = 0; i < s->rank_count; i++)
        slowest = s->times_ns[i] > slowest ? s->times_ns[i] : slowest;
    s->times_us[whose][part][s->rounds] = (double)slowest / 1e3;
    return true;
}

static bool note_parts(struct setup *s, int whose, const uint64_t moments[PARTS])
{
    return note(s, whose, JOIN, moments[1] - moments[0]) &&
           note(s, whose, FIRST_WINDOW, moments[2] - moments[1]) &&
           note(s, whose, SECOND_WINDOW, moments[3] - moments[2]) &&
           note(s, whose, WHOLE, moments[3] - moments[0]);
}

static bool set_up_ours(struct setup *s)
{
    zcta_error error = {0};
    const zcta_init_params params = {.size = sizeof params,
                                     .rank = s->rank,
                                     .rank_count = s->rank_count,
                                     .device = zcta_context_device(s->base),
                                     .gpu = (uint32_t)(zcta_context_gpu(s->base) + 1),
                                     .exchange = exchange,
                                     .exchange_data = s,
                                     .error = &error};
    zcta_context *context = NULL;
    zcta_window *windows[WINDOWS] = {NULL};
    uint64_t moments[PARTS];
    bool made;

    moments[0] = zc_now_ns();
    if (zcta_init(&params, &context) != ZCTA_OK)
        return zc_failure(line.command, "%s", error.message), false;
    moments[1] = zc_now_ns();
    made = zcta_window_alloc(zcta_world(context), s->bytes, &windows[0]) == ZCTA_OK;
    moments[2] = zc_now_ns();
    made = made && zcta_window_alloc(zcta_world(context), s->bytes, &windows[1]) == ZCTA_OK;
    moments[3] = zc_now_ns();
    if (!made)
        complain(s, context, "no window");
    made = zcta_finalize(&context) == ZCTA_OK && made;
    return made && note_parts(s, 0, moments);
}

static bool set_up_nccl(struct setup *s)
{
    struct zc_nccl_id id = {{0}};
    struct zc_peer_nccl_memory memory[WINDOWS] = {{.base = NULL}};
    uint64_t moments[PARTS];
    bool made;

    moments[0] = zc_now_ns();
    made =
        (s->rank != 0 || zc_peer_nccl_make_id(s->nccl, &id)) &&
        zcta_team_exchange(s->world, &id, s->ids, sizeof id) == ZCTA_OK &&
        zc_peer_nccl_open(s->nccl, ZC_PEER_NCCL_ZERO, &s->ids[0], s->rank, s->rank_count, memory);
    moments[1] = zc_now_ns();
    for (int i = 0; i < WINDOWS && made; i++) {
        memory[i].bytes = s->bytes;
        made = zc_peer_nccl_allocate(s->nccl, &memory[i]) &&
               zc_peer_nccl_register(s->nccl, ZC_PEER_NCCL_ZERO, i, &memory[i]);
        moments[2 + i] = zc_now_ns();
    }
    zc_peer_nccl_shut(s->nccl, ZC_PEER_NCCL_ZERO);
    for (int i = 0; i < WINDOWS; i++)
        zc_peer_nccl_free(s->nccl, &memory[i]);
    return made && note_parts(s, 1, moments);
}

/* ---- Report ---- */

static int compare(const void *a, const void *b)
{
    const double left = *(const double *)a, right = *(const double *)b;

    return (left > right) - (left < right);
}

static double median_ms(struct setup *s, int whose, int part)
{
    double *times = s->times_us[whose][part];

    qsort(times, s->rounds, sizeof *times, compare);
    return times[s->rounds / 2] / 1e3;
}

/* Before the rounds: what they will take. */
static void announce(const struct setup *s)
{
    char each[ZC_SIZE_TEXT_BYTES], whole[ZC_SIZE_TEXT_BYTES];

    printf("zerocta setup: %" PRIu32 " ranks, device %s, two windows of %s on each (%s in all), "
           "%" PRIu64 " round%s\n\n",
           s->rank_count, zc_device_choices[zcta_context_device(s->base)],
           zc_size_text(s->bytes, each), zc_size_text(WINDOWS * s->bytes * s->rank_count, whole),
           s->settings->rounds, s->settings->rounds == 1 ? "" : "s");
    fflush(stdout);
}

static void report(struct setup *s, double first_ms)
{
    static const char *const names[] = {"zerocta", "nccl"};

    printf("%-9s %10s %10s %10s %10s\n", "", "join", "window", "window", "whole");
    for (int i = 0; i < (s->nccl != NULL ? 2 : 1); i++)
        printf("%-9s %8.2f ms %8.2f ms %8.2f ms %8.2f ms\n", names[i], median_ms(s, i, JOIN),
               median_ms(s, i, FIRST_WINDOW), median_ms(s, i, SECOND_WINDOW),
               median_ms(s, i, WHOLE));
    printf(
        "\nThe very first zcta_init() of these processes, with the launcher's rendezvous and the\n"
        "start of the device: %.2f ms on rank 0.\n",
        first_ms);
}

/* ---- One rank ---- */

static int run_rounds(struct setup *s, double first_ms)
{
    bool done = true;

    if (zcta_context_gpu(s->base) >= 0 &&
        !zc_gpu_open(line.command, zcta_context_gpu(s->base), &s->gpu))
        return ZC_EXIT_FAILED;
    if (s->settings->peer && s->gpu == NULL)
        return zc_failure(line.command, "NCCL moves GPU memory; --nccl needs --device cuda");
    if (s->settings->peer && !zc_peer_nccl_load(&s->nccl))
        return ZC_EXIT_FAILED;
    if (s->rank == 0)
        announce(s);
    while (s->rounds < s->settings->rounds && done) {
        done = meet(s) && set_up_ours(s) && meet(s) && (s->nccl == NULL || set_up_nccl(s));
        s->rounds += done;
    }
    if (done && s->rank == 0)
        report(s, first_ms);
    return done ? ZC_EXIT_OK : ZC_EXIT_FAILED;
}

static int run_rank(const struct settings *settings)
{
    zcta_error error = {0};
    const zcta_init_params params = {
        .size = sizeof params, .device = (zcta_device)settings->device, .error = &error};
    struct setup *s = calloc(1, sizeof *s);
    const uint64_t start = zc_now_ns();
    int status = ZC_EXIT_FAILED;

    if (s == NULL)
        return zc_failure(line.command, "out of memory");
    s->settings = settings;
    if (zcta_init(&params, &s->base) != ZCTA_OK) {
        zc_failure(line.command, "%s", error.message);
        goto out;
    }
    s->world = zcta_world(s->base);
    s->rank = zcta_team_rank(s->world);
    s->rank_count = zcta_team_rank_count(s->world);
    s->bytes = s->settings->bytes != 0          ? s->settings->bytes
               : zcta_context_gpu(s->base) >= 0 ? BYTES_DEFAULT_GPU
                                                : BYTES_DEFAULT_HOST;
    s->times_ns = calloc(s->rank_count, sizeof *s->times_ns);
    s->ids = calloc(s->rank_count, sizeof *s->ids);
    status = s->times_ns != NULL && s->ids != NULL
                 ? run_rounds(s, (double)(zc_now_ns() - start) / 1e6)
                 : zc_failure(line.command, "out of memory");
    zc_peer_nccl_close(s->nccl);
    if (zcta_finalize(&s->base) != ZCTA_OK)
        status = ZC_EXIT_FAILED;
    zc_gpu_close(s->gpu);
out:
    free(s->times_ns);
    free(s->ids);
    free(s);
    return status;
}

static int grow_jobs(const struct settings *settings, int argc, char **argv)
{
    const struct zc_setup_grow grow = {
        .command = line.command,
        .rank_count = (uint32_t)settings->grow_count,
        .bytes = settings->bytes == 0 ? BYTES_DEFAULT_GROW : settings->bytes,
        .device = settings->device == ZCTA_DEVICE_AUTO ? ZCTA_DEVICE_HOST
                                                       : (zcta_device)settings->device};
    int status;

    if (settings->peer)
        return zc_usage_error(line.command, "--nccl is for rounds of one job; it goes not with "
                                            "--grow");
    if (zc_launch_is_rank())
        return zc_setup_grow_rank(&grow);
    status = zc_try_device(line.command, grow.device, ZC_ADVISE_HOST);
    return status == ZC_EXIT_OK ? zc_setup_grow(&grow, argc, argv) : status;
}

int zc_command_setup(int argc, char **argv)
{
    struct settings settings = {.rank_count = 2, .rounds = 5};
    int first, status;

    if (!zc_options_parse(&line, argc, argv, &settings, &first, &status))
        return status;
    if (settings.grow_count != 0)
        return grow_jobs(&settings, argc, argv);
    if (zc_launch_is_rank())
        return run_rank(&settings);
    if (settings.device != ZCTA_DEVICE_AUTO)
        status = zc_try_device(line.command, (zcta_device)settings.device, ZC_ADVISE_HOST);
    if (status != ZC_EXIT_OK)
        return status;
    return zc_launch_self(line.command, (uint32_t)settings.rank_count, argc, argv);
}
