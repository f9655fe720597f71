/* zerocta tune: measures collectives by ours and by NCCL on this machine, for each policy, place
 * and size, and keeps the figures where the library finds them. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "alone.h"
#include "api/objects.h"
#include "collective.h"
#include "commands.h"
#include "gpu.h"
#include "launch.h"
#include "option_rows.h"
#include "options.h"
#include "perf.h"
#include "select/tuned.h"

enum { PATH_BYTES = 512 };

struct settings {
    struct zc_perf perf; /* first: what the bench and the threads read */
    struct zc_results output;
    struct zc_shape shapes[ZC_COLLECTIVE_COUNT];
    uint32_t shape_count;
};

static const struct zc_option options[] = {
    ZC_ROW_RANKS(offsetof(struct settings, perf.rank_count),
                 "how many ranks to start, one a GPU; 2 if not given", 2, 64),
    ZC_ROW_MIN(offsetof(struct settings, perf.bytes_min), "1K"),
    ZC_ROW_MAX(offsetof(struct settings, perf.bytes_max), "256M", 1),
    ZC_ROW_FACTOR(offsetof(struct settings, perf.factor), "4"),
    ZC_ROW_ITERATIONS(offsetof(struct settings, perf.iterations),
                      "timings a case; chosen by time if not given", 100000),
    ZC_ROW_THREADS(offsetof(struct settings, perf.threads)),
    {.name = "output",
     .letter = 'o',
     .argument = "FILE",
     .help =
         "where the figures go, if not to the cache folder; - is standard output, and what else "
         "is printed then goes to standard error",
     .kind = ZC_OPTION_TEXT,
     .offset = offsetof(struct settings, output.name)},
};

/* Between them stand the names of the collectives that tune takes. */
static const char notes_begin[] = "COLLECTIVE  several, or all, of";
static const char notes_end[] =
    "\n"
    "            The others are not measured: a barrier moves nothing, and where ranks name "
    "partners (send_recv) they know their own sizes only, by which they could not all choose "
    "alike.\n" ZC_NOTE_SIZE "\n"
    "The figures go to ZEROCTA_TUNE_FILE, else to XDG_CACHE_HOME or ~/.cache, in a file for "
    "each model of GPU; what it has for other collectives and numbers of ranks stays. They count "
    "for the driver, the NCCL and the zerocta that they were measured with, on one node. Without "
    "them engine auto is ce, wherever ce reaches all ranks. (One exception: on two H200, if the "
    "program has loaded NCCL before it joins, what is known of those.)\n";

/* There is room for all names. */
enum { NOTES_BYTES = sizeof notes_begin + sizeof ZC_COLLECTIVE_WORDS + sizeof notes_end };

/* Without its notes. */
static const struct zc_command_line line = {
    .command = "tune",
    .synopsis = "[COLLECTIVE...] [OPTIONS]",
    .purpose = "Measures collectives by our engine and by NCCL on this machine's GPUs, side by "
               "side, and keeps the figures; all collectives that there is a choice for, if none "
               "is named. Teams with engine auto take whichever was faster for their number of "
               "ranks, collective, policy, place and size.",
    .options = options,
    .option_count = sizeof options / sizeof options[0],
    .operands_max = ZC_COLLECTIVE_COUNT,
    .operand_name = "a collective",
    .exit_status = "0 if the figures were kept, 1 if not",
};

/* What is measured: where SMs are allowed, both places; where not, what NCCL can do without. In
 * place only where all ranks are, so that the choice may depend on it. */
static const struct {
    zcta_policy policy;
    bool in_place;
    const char *name;
} cases[] = {
    {ZCTA_POLICY_DEFAULT, true, "DEFAULT, in place"},
    {ZCTA_POLICY_EFFICIENCY, true, "EFFICIENCY, in place"},
    {ZCTA_POLICY_ZERO, true, "ZERO, in place"},
    {ZCTA_POLICY_DEFAULT, false, "DEFAULT, out of place"},
};

enum { CASES = sizeof cases / sizeof cases[0] };

struct tune {
    struct zc_perf perf; /* of the measurement under way: the bench looks here */
    struct zc_bench bench;
    const struct settings *settings;
    struct zc_tuned tuned;
    uint32_t done, total; /* measurements, for the display */
};

static bool has(const struct zc_shape *shape, enum zc_collective_trait trait)
{
    return (zc_collective_of(shape->info.collective)->traits & (unsigned)trait) != 0;
}

/* Whether there is a choice that measurements could speak for: where ranks know their own flows
 * only, their size is no fact that all agree on. */
static bool is_chosen(const struct zc_shape *shape)
{
    return !has(shape, ZC_NO_DATA) && !has(shape, ZC_PARTNERS);
}

/* What --help says at its end, with the collectives that tune takes. */
static const char *fill_notes(char text[NOTES_BYTES])
{
    size_t at = (size_t)snprintf(text, NOTES_BYTES, "%s", notes_begin);

    for (uint32_t i = 0; i < ZC_COLLECTIVE_COUNT; i++) {
        const struct zc_shape shape = zc_shape_of(zc_all_collectives[i]);

        if (is_chosen(&shape))
            at += (size_t)snprintf(text + at, NOTES_BYTES - at, " %s", shape.info.name);
    }
    snprintf(text + at, NOTES_BYTES - at, "%s", notes_end);
    return text;
}

/* Whether the case is one of the collective's. */
static bool applies(const struct zc_shape *shape, uint32_t index)
{
    return !cases[index].in_place || has(shape, ZC_REPLICATES);
}

/* ---- Measuring ---- */

static uint32_t count_sizes(const struct zc_perf *perf)
{
    uint32_t count = 0;

    for (uint64_t bytes = 0; (bytes = zc_perf_next_size(perf, bytes)) != 0;)
        count++;
    return count;
}

/* On a terminal one line that changes, elsewhere one a case. */
static void show_progress(const struct tune *t, const char *name, uint64_t bytes, double ce_us,
                          double nccl_us)
{
    char size[ZC_SIZE_TEXT_BYTES], what[64];

    if (t->bench.rank != 0)
        return;
    snprintf(what, sizeof what, "%s, %s", t->perf.shape.info.name, name);
    fprintf(stderr, "%szerocta tune: %3" PRIu32 " of %" PRIu32 "  %-35s %8s  ce %.1f us, nccl ",
            isatty(STDERR_FILENO) ? "\r\033[K" : "", t->done, t->total, what,
            zc_size_text(bytes, size), ce_us);
    if (nccl_us > 0)
        fprintf(stderr, "%.1f us", nccl_us);
    else
        fprintf(stderr, "cannot");
    fprintf(stderr, "%s", isatty(STDERR_FILENO) && t->done < t->total ? "" : "\n");
}

/* Whether NCCL's first call shows that policy ZERO cannot be had after all. All ranks find the
 * same, and the team goes on. */
static bool is_refused(const struct tune *t, const zcta_call *call)
{
    return call->engine == ZCTA_ENGINE_NCCL && call->policy == ZCTA_POLICY_ZERO &&
           zcta_run(t->bench.world, call, t->bench.gpu->stream) == ZCTA_ERR_POLICY;
}

/* A call of NCCL's that took SMs, or may have, is none for a policy that has them avoided. */
static bool counts(const struct zc_perf *perf, const struct zc_perf_row *row)
{
    return perf->engine != ZCTA_ENGINE_NCCL || perf->policy + 1 == ZCTA_POLICY_DEFAULT ||
           (!row->sms && strcmp(row->path, "nccl/unproved") != 0);
}

/* Whether the engine has a path for the call. All ranks find the same. */
static bool is_possible(struct tune *t, uint64_t bytes, bool *possible)
{
    zcta_report report = {.size = sizeof report};
    struct zc_target target;
    bool asked = zc_target_open(&t->bench, bytes, &target);

    if (asked && zcta_explain(t->bench.world, &target.call, &report) != ZCTA_OK) {
        zc_perf_complain(&t->bench, "no choice");
        asked = false;
    }
    *possible = asked && report.chosen < report.path_count && !is_refused(t, &target.call);
    zc_target_close(&target);
    return asked;
}

/* row->time_us 0: this engine has no path for such a call. */
static bool time_engine(struct tune *t, zcta_engine engine, uint64_t bytes, struct zc_perf_row *row)
{
    bool possible;

    t->perf.engine = engine;
    *row = (struct zc_perf_row){.bytes = bytes};
    if (!is_possible(t, bytes, &possible))
        return false;
    if (!possible)
        return true;
    if (zc_perf_measure(&t->bench, bytes, row) != ZC_EXIT_OK)
        return false;
    if (row->wrong_bytes != 0) {
        zc_failure(line.command, "%" PRIu64 " wrong bytes by %s; nothing is kept", row->wrong_bytes,
                   row->path);
        return false;
    }
    row->time_us = counts(&t->perf, row) ? row->time_us : 0;
    return true;
}

static bool measure_case(struct tune *t, uint32_t index)
{
    uint64_t bytes = 0;

    t->perf.policy = (uint64_t)cases[index].policy - 1;
    while ((bytes = zc_perf_next_size(&t->perf, bytes)) != 0) {
        struct zc_perf_row ce, nccl;

        if (!time_engine(t, ZCTA_ENGINE_CE, bytes, &ce) ||
            !time_engine(t, ZCTA_ENGINE_NCCL, bytes, &nccl))
            return false;
        t->done++;
        show_progress(t, cases[index].name, bytes, ce.time_us, nccl.time_us);
        if (ce.time_us > 0 && nccl.time_us > 0 && t->tuned.row_count < ZC_TUNED_ROWS_MOST)
            t->tuned.rows[t->tuned.row_count++] =
                (struct zc_tuned_row){.collective = t->perf.shape.info.collective,
                                      .rank_count = t->bench.rank_count,
                                      .policy = cases[index].policy,
                                      .in_place = cases[index].in_place,
                                      .bytes = ce.share,
                                      .ce_us = ce.time_us,
                                      .nccl_us = nccl.time_us};
    }
    return true;
}

static void note_key(struct tune *t)
{
    zcta_context *context = t->bench.context;

    memcpy(t->tuned.key.gpu, context->caps.model, sizeof t->tuned.key.gpu);
    t->tuned.key.driver_version = context->caps.driver_version;
    t->tuned.key.nccl_version = zc_load_nccl(context)->version;
    t->tuned.key.zerocta_version = zcta_version();
}

/* All cases of a collective in one place, in memory of their own. */
static int measure_place(struct tune *t, bool in_place)
{
    int status = ZC_EXIT_OK;
    bool placed = false;

    t->perf.in_place = in_place;
    for (uint32_t i = 0; i < CASES && status == ZC_EXIT_OK; i++) {
        if (cases[i].in_place != in_place || !applies(&t->perf.shape, i))
            continue;
        if (!placed)
            status = zc_bench_place(&t->bench);
        placed = true;
        if (status == ZC_EXIT_OK && !measure_case(t, i))
            status = ZC_EXIT_FAILED;
    }
    return status;
}

static int measure_all(struct tune *t, const zcta_init_params *params)
{
    int status;

    t->bench = (struct zc_bench){.perf = &t->perf};
    status = zc_bench_open(&t->bench, params);
    if (status == ZC_EXIT_OK)
        note_key(t);
    for (uint32_t i = 0; i < t->settings->shape_count && status == ZC_EXIT_OK; i++) {
        t->perf.shape = t->settings->shapes[i];
        status = measure_place(t, true);
        if (status == ZC_EXIT_OK)
            status = measure_place(t, false);
    }
    return zc_bench_close(&t->bench, status);
}

/* ---- Keeping ---- */

/* Makes the folders that the path goes through, as far as they are missing. */
static void make_folders(const char *path)
{
    char folder[PATH_BYTES];

    for (size_t i = 1; i < sizeof folder && path[i] != '\0'; i++)
        if (path[i] == '/') {
            memcpy(folder, path, i);
            folder[i] = '\0';
            mkdir(folder, 0700);
        }
}

/* Whether the row is of what is measured now. */
static bool is_measured(const struct settings *settings, const struct zc_tuned_row *row,
                        uint32_t rank_count)
{
    for (uint32_t i = 0; i < settings->shape_count; i++)
        if (settings->shapes[i].info.collective == row->collective)
            return row->rank_count == rank_count;
    return false;
}

/* What the file has for other collectives and numbers of ranks, if it was measured with the same.
 */
static void keep_others(const char *path, const struct settings *settings, struct zc_tuned *tuned,
                        uint32_t rank_count)
{
    struct zc_tuned *old = malloc(sizeof *old);
    FILE *in = fopen(path, "re");
    char why[100];

    if (old != NULL && in != NULL && zc_tuned_read(in, old, why, sizeof why) &&
        memcmp(&old->key, &tuned->key, sizeof old->key) == 0)
        for (uint32_t i = 0; i < old->row_count && tuned->row_count < ZC_TUNED_ROWS_MOST; i++)
            if (!is_measured(settings, &old->rows[i], rank_count))
                tuned->rows[tuned->row_count++] = old->rows[i];
    if (in != NULL)
        fclose(in);
    free(old);
}

/* Beside the file first, so that whoever reads it meanwhile reads the old one whole. */
static int write_file(const char *path, const struct zc_tuned *tuned)
{
    char draft[PATH_BYTES + 8];
    FILE *out;
    bool written;

    make_folders(path);
    snprintf(draft, sizeof draft, "%s.new", path);
    out = fopen(draft, "we");
    if (out == NULL)
        return zc_failure(line.command, "cannot write %s: %s", draft, strerror(errno));
    written = zc_tuned_write(out, tuned);
    if (fclose(out) != 0 || !written || rename(draft, path) != 0) {
        const int error = errno;

        unlink(draft);
        return zc_failure(line.command, "cannot write %s: %s", path, strerror(error));
    }
    return ZC_EXIT_OK;
}

static int print_figures(const struct zc_results *output, const struct zc_tuned *tuned)
{
    FILE *out = zc_results_open(output);
    const bool written = out != NULL && zc_tuned_write(out, tuned);

    return zc_results_close(line.command, output, out, written) ? ZC_EXIT_OK : ZC_EXIT_FAILED;
}

static int keep(struct tune *t, const struct settings *settings, uint32_t rank_count)
{
    char found[PATH_BYTES];
    const char *path = settings->output.name;
    int status;

    if (path == NULL && !zc_tuned_path(t->tuned.key.gpu, found, sizeof found))
        return zc_failure(line.command, "there is no home folder to keep the figures in; name a "
                                        "file with --output");
    path = path == NULL ? found : path;
    keep_others(path, settings, &t->tuned, rank_count);
    status = write_file(path, &t->tuned);
    if (status == ZC_EXIT_OK)
        printf("kept in %s\n", path);
    return status;
}

static int conclude(struct tune *t, const struct settings *settings, uint32_t rank_count)
{
    uint32_t for_nccl = 0;

    if (t->tuned.row_count == 0)
        return zc_failure(line.command, "NCCL can perform none of these calls here, so there is "
                                        "nothing to choose; `zerocta explain --engine nccl` says "
                                        "why");
    for (uint32_t i = 0; i < t->tuned.row_count; i++)
        for_nccl += t->tuned.rows[i].nccl_us < t->tuned.rows[i].ce_us;
    printf("%" PRIu32 " ranks on %s: ce is faster in %" PRIu32 " of %" PRIu32
           " cases, nccl in %" PRIu32 "\n",
           rank_count, t->tuned.key.gpu, t->tuned.row_count - for_nccl, t->tuned.row_count,
           for_nccl);
    return zc_results_is_standard_output(&settings->output)
               ? print_figures(&settings->output, &t->tuned)
               : keep(t, settings, rank_count);
}

/* ---- The command ---- */

static int run_rank(const struct zc_perf *perf, const zcta_init_params *params)
{
    const struct settings *settings = (const struct settings *)perf;
    struct tune *t = calloc(1, sizeof *t);
    int status;

    if (t == NULL)
        return zc_failure(line.command, "out of memory");
    t->perf = *perf;
    t->settings = settings;
    for (uint32_t i = 0; i < settings->shape_count; i++)
        for (uint32_t j = 0; j < CASES; j++)
            t->total += applies(&settings->shapes[i], j) ? count_sizes(perf) : 0;
    status = measure_all(t, params);
    if (status == ZC_EXIT_OK && t->bench.rank == 0)
        status = conclude(t, settings, t->bench.rank_count);
    free(t);
    return status;
}

/* The collectives that are named, else all that there is a choice for. */
static bool read_shapes(char **names, int count, struct settings *settings)
{
    static char all[] = "all";
    uint32_t read = 0, kept = 0;

    read = zc_shapes_read(line.command, count > 0 ? names : (char *[]){all}, count > 0 ? count : 1,
                          settings->shapes);
    for (uint32_t i = 0; i < read; i++) {
        if (is_chosen(&settings->shapes[i]))
            settings->shapes[kept++] = settings->shapes[i];
        else if (count > 1 || (count == 1 && strcmp(names[0], all) != 0)) {
            zc_usage_error(line.command, "measurements decide nothing for %s",
                           settings->shapes[i].info.name);
            return false;
        }
    }
    settings->shape_count = kept;
    return kept > 0;
}

int zc_command_tune(int argc, char **argv)
{
    struct settings settings = {.perf = {.command = line.command,
                                         .rank_count = 2,
                                         .bytes_min = (uint64_t)1 << 10,
                                         .bytes_max = (uint64_t)256 << 20,
                                         .factor = 4,
                                         .device = ZCTA_DEVICE_CUDA,
                                         .argc = argc,
                                         .argv = argv}};
    const zcta_init_params params = {.size = sizeof params, .device = ZCTA_DEVICE_CUDA};
    struct zc_command_line whole = line;
    char notes_text[NOTES_BYTES];
    int first, status;

    whole.notes = fill_notes(notes_text);
    if (!zc_options_parse(&whole, argc, argv, &settings, &first, &status))
        return status;
    if (!read_shapes(argv + first, argc - first, &settings))
        return ZC_EXIT_USAGE;
    settings.perf.shape = settings.shapes[0];
    if (settings.perf.bytes_min > settings.perf.bytes_max)
        return zc_usage_error(line.command, "the smallest size is larger than the largest");
    if ((zc_launch_is_rank() || settings.perf.threads) &&
        !zc_results_reserve(line.command, &settings.output))
        return ZC_EXIT_FAILED;
    if (zc_launch_is_rank())
        return run_rank(&settings.perf, &params);
    status = zc_try_device(line.command, ZCTA_DEVICE_CUDA, "");
    if (status != ZC_EXIT_OK)
        return status;
    return settings.perf.threads
               ? zc_perf_threads(&settings.perf, run_rank)
               : zc_launch_self(line.command, (uint32_t)settings.perf.rank_count, argc, argv);
}
