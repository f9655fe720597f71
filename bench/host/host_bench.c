/* The host benchmark: zerocta's collectives, MPI's and the copy floor, in turns in one program.
 * Started by mpirun; every MPI rank is a rank of zerocta too. Reads the command line, checks bytes
 * and takes times; knows no variant by name. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench.h"
#include "values.h"

enum { SIZES_MAX = 32, CHECKED_CALLS = 2, CALLS_MIN = 3, IN_STEP_CALLS_MAX = 50, GROWTH = 8 };

/* A batch is so long that the moment by which the ranks leave the barrier apart does not count. */
static const double batch_us = 10000;

/* Where the waiting ranks of an MPI spin and outnumber the cores, a large call takes many seconds:
 * after a size at which it takes longer than this, larger ones are left out. */
static const double mpi_us_most = 250000;

struct asked {
    struct zc_shape shapes[ZC_COLLECTIVE_COUNT];
    uint64_t sizes[SIZES_MAX];
    uint32_t shape_count, size_count, batches;
    const char *json, *command;
};

_Noreturn void bench_die(const struct bench *bench, const char *what, const char *why)
{
    fprintf(stderr, "host_bench: rank %" PRIu32 ": %s: %s\n", bench->rank, what, why);
    MPI_Abort(MPI_COMM_WORLD, 1);
    abort();
}

/* ---- Bytes ---- */

/* What the ranks tell each other, and where they meet, goes over zerocta, whose waiting ranks let
 * others run: where those of an MPI spin, a rank that has still to do what is measured may find no
 * core for a while, and every variant would pay for that. */
static void barrier(const struct bench *bench)
{
    bench_check(bench, zcta_barrier(bench->world, NULL), "zcta_barrier");
}

static uint64_t sum(const struct bench *bench, uint64_t number)
{
    uint64_t *all = calloc(bench->rank_count, sizeof *all), whole = 0;

    if (all == NULL)
        bench_die(bench, "numbers of all ranks", "out of memory");
    bench_check(bench, zcta_team_exchange(bench->world, &number, all, sizeof number),
                "zcta_team_exchange");
    for (uint32_t rank = 0; rank < bench->rank_count; rank++)
        whole += all[rank];
    free(all);
    return whole;
}

/* Some calls with contents of their own, each into a poisoned output, one close behind the other.
 */
static uint64_t check_calls(struct bench *bench, const struct variant *variant)
{
    const struct zc_contents *contents = variant->by_mpi ? &bench->in_memory : &bench->in_windows;
    uint64_t wrong = 0;

    for (uint32_t call = 0; call < CHECKED_CALLS; call++) {
        zc_contents_prepare(contents, bench->serial);
        if (!variant->waits)
            barrier(bench);
        variant->call(bench);
        if (!variant->waits)
            barrier(bench);
        zc_contents_check(contents, bench->serial, &wrong);
        bench->serial++;
    }
    return sum(bench, wrong);
}

/* ---- Times ---- */

/* The same clock on all ranks, for they are on one machine. */
static double now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

struct span {
    double begin, end;
};

/* From the first rank's beginning to the last rank's end. */
static double longest(const struct bench *bench, struct span mine)
{
    struct span *all = calloc(bench->rank_count, sizeof *all), whole = mine;

    if (all == NULL)
        bench_die(bench, "times of all ranks", "out of memory");
    bench_check(bench, zcta_team_exchange(bench->world, &mine, all, sizeof mine),
                "zcta_team_exchange");
    for (uint32_t rank = 0; rank < bench->rank_count; rank++) {
        whole.begin = all[rank].begin < whole.begin ? all[rank].begin : whole.begin;
        whole.end = all[rank].end > whole.end ? all[rank].end : whole.end;
    }
    free(all);
    return whole.end - whole.begin;
}

/* The time of `calls` calls: from the first rank's start to the last rank's end. Where ranks share
 * cores and do not wait for each other, a rank's own time would leave out the time in which the
 * others had the core. */
static double time_calls(const struct bench *bench, const struct variant *variant, uint32_t calls)
{
    struct span mine;

    barrier(bench);
    mine.begin = now_us();
    for (uint32_t call = 0; call < calls; call++)
        variant->call(bench);
    mine.end = now_us();
    return longest(bench, mine);
}

/* One call's time in a batch of so many. */
static double time_batch(const struct bench *bench, const struct variant *variant, uint32_t calls)
{
    double sum = 0;

    if (!variant->in_step)
        return time_calls(bench, variant, calls) / calls;
    for (uint32_t call = 0; call < calls; call++)
        sum += time_calls(bench, variant, 1);
    return sum / calls;
}

/* How many calls make a batch. It is the warm-up as well. The same on all ranks, as the times are.
 */
static uint32_t calls_per_batch(const struct bench *bench, const struct variant *variant)
{
    uint32_t calls = CALLS_MIN;

    for (;;) {
        const double call_us = time_batch(bench, variant, calls);
        const double fitting = batch_us / (call_us > 0.01 ? call_us : 0.01);
        const double wanted =
            variant->in_step && fitting > IN_STEP_CALLS_MAX ? IN_STEP_CALLS_MAX : fitting;

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
        for (uint32_t turn = 0; turn < VARIANTS; turn++) {
            const uint32_t i = batch % 2 == 0 ? turn : VARIANTS - 1 - turn;
            struct result *result = &row->results[i];

            result->batches_us[batch] = time_batch(bench, &variants[i], result->calls);
        }
    for (uint32_t i = 0; i < VARIANTS; i++)
        row->results[i].median_us = median(row->results[i].batches_us, batches);
}

static void name_path(const struct bench *bench, struct row *row)
{
    zcta_report report = {.size = sizeof report};

    if (zcta_explain(bench->world, &bench->in_windows.call, &report) == ZCTA_OK &&
        report.chosen < report.path_count)
        memcpy(row->path, report.paths[report.chosen].path, sizeof row->path);
}

/* Bytes are checked before and after the times are taken. */
static uint64_t measure(struct bench *bench, uint32_t batches, struct row *row)
{
    uint64_t wrong = 0;

    row->bytes = bench->sized.bytes;
    name_path(bench, row);
    for (uint32_t i = 0; i < VARIANTS; i++) {
        row->results[i].wrong_bytes = check_calls(bench, &variants[i]);
        row->results[i].calls = calls_per_batch(bench, &variants[i]);
    }
    time_in_turns(bench, batches, row);
    for (uint32_t i = 0; i < VARIANTS; i++) {
        row->results[i].wrong_bytes += check_calls(bench, &variants[i]);
        wrong += row->results[i].wrong_bytes;
    }
    return wrong;
}

/* ---- Command line ---- */

static const char help[] =
    "Usage: mpirun -n RANKS host_bench [OPTION]...\n"
    "Measures zerocta's collectives, MPI's and plain copies in turns; bench/host/run runs it.\n"
    "\n"
    "  --collectives LIST  such as all_gather,broadcast; all that move data if not given\n"
    "  --sizes LIST        bytes of the largest output or input of a rank, such as 1K,64K,4M\n"
    "  --batches N         batches of each variant (9)\n"
    "  --json FILE         write all times there\n"
    "  --command TEXT      what to record as the command that was run\n"
    "  --help\n";

/* The next word of a list with commas; NULL at its end. */
static char *next_word(char **list)
{
    char *word = *list;

    if (word == NULL)
        return NULL;
    *list = strchr(word, ',');
    if (*list != NULL)
        *(*list)++ = '\0';
    return word;
}

static bool parse_sizes(char *list, struct asked *asked)
{
    bool good = true;
    char *word;

    asked->size_count = 0;
    while (good && (word = next_word(&list)) != NULL) {
        good = asked->size_count < SIZES_MAX &&
               zc_parse_size(word, &asked->sizes[asked->size_count]) &&
               asked->sizes[asked->size_count] > 0 &&
               asked->sizes[asked->size_count] <= ZC_PEER_MPI_BYTES_MAX;
        asked->size_count++;
    }
    return good && asked->size_count > 0;
}

static bool parse_collectives(char *list, struct asked *asked)
{
    const struct zc_shape_options given = {.root = ZC_NOT_GIVEN};
    bool good = true;
    char *word;

    asked->shape_count = 0;
    while (good && (word = next_word(&list)) != NULL)
        good = asked->shape_count < ZC_COLLECTIVE_COUNT &&
               zc_shape_read("host_bench", word, &given, &asked->shapes[asked->shape_count++]);
    return good && asked->shape_count > 0;
}

/* All that move data. */
static void take_all_collectives(struct asked *asked)
{
    for (int i = 0; i < ZC_COLLECTIVE_COUNT; i++) {
        const struct zc_shape shape = zc_shape_of(zc_all_collectives[i]);

        if (!zc_shape_has(&shape, ZCTA_COLLECTIVE_NO_DATA))
            asked->shapes[asked->shape_count++] = shape;
    }
}

/* False after it said what is wrong. */
static bool parse(int argc, char **argv, struct asked *asked)
{
    static const struct option options[] = {{"collectives", required_argument, NULL, 'C'},
                                            {"sizes", required_argument, NULL, 's'},
                                            {"batches", required_argument, NULL, 'b'},
                                            {"json", required_argument, NULL, 'j'},
                                            {"command", required_argument, NULL, 'c'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    uint64_t batches = 9;
    char sizes[] = "1K,4K,16K,64K,256K,1M,4M,16M,64M";
    bool good = parse_sizes(sizes, asked);
    int option;

    asked->command = argv[0];
    take_all_collectives(asked);
    while (good && (option = getopt_long(argc, argv, "", options, NULL)) != -1)
        switch (option) {
        case 'C':
            good = parse_collectives(optarg, asked);
            break;
        case 's':
            good = parse_sizes(optarg, asked);
            break;
        case 'b':
            good = zc_parse_number(optarg, &batches) && batches > 0 && batches <= BATCHES_MAX;
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

static uint64_t largest(const struct asked *asked)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < asked->size_count; i++)
        bytes = asked->sizes[i] > bytes ? asked->sizes[i] : bytes;
    return bytes;
}

/* All sizes of a collective in one place. */
static uint64_t measure_sizes(struct bench *bench, const struct asked *asked, struct report *report)
{
    double mpi_us = 0;
    uint64_t wrong = 0;

    bench_open_memory(bench, largest(asked));
    for (uint32_t i = 0; i < asked->size_count && mpi_us <= mpi_us_most; i++) {
        struct row row = {.bytes = 0};

        bench_open_call(bench, asked->sizes[i]);
        wrong += measure(bench, asked->batches, &row);
        report_row(report, &row);
        mpi_us = row.results[AT_MPI].median_us; /* the same on all ranks, as the times are */
        bench_close_call(bench);
    }
    bench_close_memory(bench);
    return wrong;
}

static uint64_t measure_all(struct bench *bench, const struct asked *asked, struct report *report)
{
    uint64_t wrong = 0;

    for (uint32_t i = 0; i < asked->shape_count; i++)
        for (int place = 0; place < 2; place++) {
            bench->shape = asked->shapes[i];
            bench->in_place = place == 1;
            if (!bench->in_place || zc_in_place_defect(&bench->shape) == NULL)
                wrong += measure_sizes(bench, asked, report);
        }
    return wrong;
}

int main(int argc, char **argv)
{
    struct asked asked = {.batches = 0};
    struct bench bench = {.rank = 0};
    struct report *report = NULL;
    uint64_t wrong;
    bool written;

    if (!parse(argc, argv, &asked))
        return 2;
    MPI_Init(&argc, &argv);
    join(&bench);
    if (bench.rank == 0)
        report = report_open(&bench, asked.json, asked.command, asked.batches);
    wrong = measure_all(&bench, &asked, report);
    written = report_close(report);
    zcta_finalize(&bench.context);
    MPI_Finalize();
    return wrong == 0 && written ? 0 : 1;
}
