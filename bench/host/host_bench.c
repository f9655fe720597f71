/* The host benchmark: zerocta's allgather, Open MPI's MPI_Allgather and the copy floor, in turns in
 * one program. Started by mpirun; every MPI rank is a rank of zerocta too. Reads the command line,
 * checks bytes and takes times; knows no contestant by name. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench.h"
#include "perf.h"

enum { SIZES_MAX = 32, CHECKED_CALLS = 2, CALLS_MIN = 3, IN_STEP_CALLS_MAX = 50, GROWTH = 8 };

/* A batch is so long that the moment by which the ranks leave the barrier apart does not count. */
static const double batch_us = 10000;

struct asked {
    size_t sizes[SIZES_MAX];
    uint32_t size_count, batches;
    const char *json, *command;
};

_Noreturn void bench_die(const struct bench *bench, const char *what, const char *why)
{
    fprintf(stderr, "host_bench: rank %" PRIu32 ": %s: %s\n", bench->rank, what, why);
    MPI_Abort(MPI_COMM_WORLD, 1);
    abort();
}

/* ---- Bytes ---- */

static void prepare(const struct bench *bench, const struct contestant *contestant)
{
    const size_t share = bench->share;
    char *own = contestant->own(bench), *output = contestant->output(bench);

    for (uint32_t rank = 0; rank < bench->rank_count; rank++)
        zc_pattern_poison(zc_pattern_of(rank, bench->serial), output + rank * share, 0, share);
    zc_pattern_fill(zc_pattern_of(bench->rank, bench->serial), own, 0, share);
}

static uint64_t wrong_bytes(const struct bench *bench, const struct contestant *contestant)
{
    const char *output = contestant->output(bench);
    uint64_t wrong = 0;

    for (uint32_t rank = 0; rank < bench->rank_count; rank++)
        wrong += zc_pattern_check(zc_pattern_of(rank, bench->serial), output + rank * bench->share,
                                  0, bench->share);
    return wrong;
}

/* Some calls with contents of their own, each into a poisoned output, one close behind the other.
 */
static uint64_t check_calls(struct bench *bench, const struct contestant *contestant)
{
    uint64_t wrong = 0;

    for (uint32_t call = 0; call < CHECKED_CALLS; call++) {
        prepare(bench, contestant);
        if (!contestant->waits)
            MPI_Barrier(MPI_COMM_WORLD);
        contestant->call(bench);
        if (!contestant->waits)
            MPI_Barrier(MPI_COMM_WORLD);
        wrong += wrong_bytes(bench, contestant);
        bench->serial++;
    }
    MPI_Allreduce(MPI_IN_PLACE, &wrong, 1, MPI_UINT64_T, MPI_SUM, MPI_COMM_WORLD);
    return wrong;
}

/* ---- Times ---- */

/* The same clock on all ranks, for they are on one machine. */
static double now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

/* The time of `calls` calls: from the first rank's start to the last rank's end. Where ranks share
 * cores and do not wait for each other, a rank's own time would leave out the time in which the
 * others had the core. */
static double time_calls(const struct bench *bench, const struct contestant *contestant,
                         uint32_t calls)
{
    double ends[2]; /* the start, negative, so that one reduction finds both */

    MPI_Barrier(MPI_COMM_WORLD);
    ends[0] = -now_us();
    for (uint32_t call = 0; call < calls; call++)
        contestant->call(bench);
    ends[1] = now_us();
    MPI_Allreduce(MPI_IN_PLACE, ends, 2, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    return ends[1] + ends[0];
}

/* One call's time in a batch of so many. */
static double time_batch(const struct bench *bench, const struct contestant *contestant,
                         uint32_t calls)
{
    double sum = 0;

    if (!contestant->in_step)
        return time_calls(bench, contestant, calls) / calls;
    for (uint32_t call = 0; call < calls; call++)
        sum += time_calls(bench, contestant, 1);
    return sum / calls;
}

/* How many calls make a batch. It is the warm-up as well. The same on all ranks, as the times are.
 */
static uint32_t calls_per_batch(const struct bench *bench, const struct contestant *contestant)
{
    uint32_t calls = CALLS_MIN;

    for (;;) {
        const double call_us = time_batch(bench, contestant, calls);
        const double fitting = batch_us / (call_us > 0.01 ? call_us : 0.01);
        const double wanted =
            contestant->in_step && fitting > IN_STEP_CALLS_MAX ? IN_STEP_CALLS_MAX : fitting;

        if (calls >= wanted)
            return wanted > CALLS_MIN ? (uint32_t)wanted + 1 : CALLS_MIN;
        calls = wanted < (double)calls * GROWTH ? (uint32_t)wanted + 1 : calls * GROWTH;
    }
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(const double *values, uint32_t count)
{
    double sorted[BATCHES_MAX];

    memcpy(sorted, values, count * sizeof *values);
    qsort(sorted, count, sizeof *sorted, compare);
    return count % 2 == 1 ? sorted[count / 2] : (sorted[count / 2 - 1] + sorted[count / 2]) / 2;
}

/* The batches take turns, there and back, so that nobody always follows the same one. */
static void time_in_turns(const struct bench *bench, uint32_t batches, struct row *row)
{
    for (uint32_t batch = 0; batch < batches; batch++)
        for (uint32_t turn = 0; turn < CONTESTANTS; turn++) {
            const uint32_t i = batch % 2 == 0 ? turn : CONTESTANTS - 1 - turn;
            struct result *result = &row->results[i];

            result->batches_us[batch] = time_batch(bench, &contestants[i], result->calls);
        }
    for (uint32_t i = 0; i < CONTESTANTS; i++)
        row->results[i].median_us = median(row->results[i].batches_us, batches);
}

static void name_path(const struct bench *bench, struct row *row)
{
    const struct contestant *zerocta = &contestants[AT_ZEROCTA];
    zcta_report report;

    if (zcta_explain_all_gather(bench->world, zerocta->own(bench), zerocta->output(bench),
                                bench->share, NULL, &report) == ZCTA_OK &&
        report.chosen < report.path_count)
        memcpy(row->path, report.paths[report.chosen].path, sizeof row->path);
}

/* Bytes are checked before and after the times are taken. */
static uint64_t measure(struct bench *bench, uint32_t batches, struct row *row)
{
    uint64_t wrong = 0;

    bench->share = row->bytes / bench->rank_count;
    bench->in_place = row->in_place;
    name_path(bench, row);
    for (uint32_t i = 0; i < CONTESTANTS; i++) {
        row->results[i].wrong_bytes = check_calls(bench, &contestants[i]);
        row->results[i].calls = calls_per_batch(bench, &contestants[i]);
    }
    time_in_turns(bench, batches, row);
    for (uint32_t i = 0; i < CONTESTANTS; i++) {
        row->results[i].wrong_bytes += check_calls(bench, &contestants[i]);
        wrong += row->results[i].wrong_bytes;
    }
    return wrong;
}

/* ---- Command line ---- */

static const char help[] =
    "Usage: mpirun -n RANKS host_bench [OPTION]...\n"
    "Measures zerocta's allgather, Open MPI's and plain copies in turns; bench/host/run runs it.\n"
    "\n"
    "  --sizes LIST     bytes of a rank's whole output, such as 1K,64K,4M\n"
    "  --batches N      batches of each contestant (9)\n"
    "  --json FILE      write all times there\n"
    "  --command TEXT   what to record as the command that was run\n"
    "  --help\n";

static bool parse_number(const char *text, char **end, uint64_t max, uint64_t *number)
{
    uint32_t shift = 0;

    errno = 0;
    *number = strtoull(text, end, 10);
    if (errno != 0 || *end == text || text[0] == '-')
        return false;
    if (**end == 'K' || **end == 'M' || **end == 'G') {
        shift = **end == 'K' ? 10 : **end == 'M' ? 20 : 30;
        ++*end;
    }
    if (*number == 0 || *number > max >> shift)
        return false;
    *number <<= shift;
    return true;
}

/* At most 1 GiB, so that a share fits into MPI's int. */
static bool parse_sizes(const char *text, struct asked *asked)
{
    uint64_t bytes;
    char *end;

    for (asked->size_count = 0; asked->size_count < SIZES_MAX; text = end + 1) {
        if (!parse_number(text, &end, UINT64_C(1) << 30, &bytes))
            return false;
        asked->sizes[asked->size_count++] = bytes;
        if (*end != ',')
            return *end == '\0';
    }
    return false;
}

/* False after it said what is wrong. */
static bool parse(int argc, char **argv, struct asked *asked)
{
    static const struct option options[] = {
        {"sizes", required_argument, NULL, 's'}, {"batches", required_argument, NULL, 'b'},
        {"json", required_argument, NULL, 'j'},  {"command", required_argument, NULL, 'c'},
        {"help", no_argument, NULL, 'h'},        {0}};
    uint64_t batches = 9;
    bool good = parse_sizes("1K,4K,16K,64K,256K,1M,4M,16M,64M,256M", asked);
    char *end = NULL;
    int option;

    asked->command = argv[0];
    while (good && (option = getopt_long(argc, argv, "", options, NULL)) != -1)
        switch (option) {
        case 's':
            good = parse_sizes(optarg, asked);
            break;
        case 'b':
            good = parse_number(optarg, &end, BATCHES_MAX, &batches) && *end == '\0';
            break;
        case 'j':
            asked->json = optarg;
            break;
        case 'c':
            asked->command = optarg;
            break;
        case 'h':
            fputs(help, stdout);
            exit(0);
        default:
            good = false;
        }
    asked->batches = (uint32_t)batches;
    if (!good || optind < argc)
        fprintf(stderr, "host_bench: a wrong option or value; see --help\n");
    return good && optind == argc;
}

/* ---- One run ---- */

static void join(struct bench *bench)
{
    zcta_error error = {0};
    const zcta_init_params params = {
        .size = sizeof params, .device = ZCTA_DEVICE_HOST, .error = &error};
    int rank, count;

    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &count);
    bench->rank = (uint32_t)rank;
    bench->rank_count = (uint32_t)count;
    if (zcta_init(&params, &bench->context) != ZCTA_OK)
        bench_die(bench, "zcta_init", error.message);
    bench->world = zcta_world(bench->context);
    if (zcta_team_rank(bench->world) != bench->rank ||
        zcta_team_rank_count(bench->world) != bench->rank_count)
        bench_die(bench, "zcta_init",
                  "found another rank or number of ranks than MPI; run it with "
                  "mpirun and nothing in between");
}

static size_t largest(const struct bench *bench, const struct asked *asked)
{
    size_t bytes = 0;

    for (uint32_t i = 0; i < asked->size_count; i++) {
        if (asked->sizes[i] % bench->rank_count != 0)
            bench_die(bench, "--sizes", "every size must divide by the number of ranks");
        if (asked->sizes[i] > bytes)
            bytes = asked->sizes[i];
    }
    return bytes;
}

static uint64_t measure_all(struct bench *bench, const struct asked *asked, struct report *report)
{
    uint64_t wrong = 0;

    for (uint32_t place = 0; place < 2; place++)
        for (uint32_t i = 0; i < asked->size_count; i++) {
            struct row row = {.bytes = asked->sizes[i], .in_place = place == 1};

            wrong += measure(bench, asked->batches, &row);
            report_row(report, &row);
        }
    return wrong;
}

int main(int argc, char **argv)
{
    struct asked asked = {0};
    struct bench bench = {0};
    struct report *report = NULL;
    uint64_t wrong;
    bool written;

    if (!parse(argc, argv, &asked))
        return 2;
    MPI_Init(&argc, &argv);
    join(&bench);
    bench_open(&bench, largest(&bench, &asked));
    if (bench.rank == 0)
        report = report_open(&bench, asked.json, asked.command, asked.batches);
    wrong = measure_all(&bench, &asked, report);
    written = report_close(report);
    bench_close(&bench);
    zcta_finalize(&bench.context);
    MPI_Finalize();
    return wrong == 0 && written ? 0 : 1;
}
