/* zerocta overlap: GEMMs beside a collective. What each does alone, and what it keeps while the
 * other runs the whole time, for ours and for each of NCCL's ways, in one run.
 *
 * Two measurements a variant and size: a fixed number of GEMMs while the collective's calls go
 * on from before the first to after the last, and a fixed number of calls while GEMMs do. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef ZC_HAVE_JANSSON
#include <jansson.h>
#endif

#include "alone.h"
#include "blas.h"
#include "collective.h"
#include "commands.h"
#include "launch.h"
#include "option_rows.h"
#include "options.h"
#include "perf.h"

enum {
    GEMMS_MOST = 40,
    CALLS_MOST = 500,
    WARM_UP = 3,
    REPEATS = 5,
    COVER_TRIES = 5,
    COVER_MOST = 900, /* a stream holds no more without making the caller wait */
    ROWS_MOST = 64,
};

#define CALLS_NS 60000000.0 /* how long the calls of one measurement take, about */

struct settings {
    struct zc_perf perf; /* first: what the bench and the threads read */
    uint64_t n;
    uint64_t with_nccl;
    bool out_of_place;
};

/* Of one size and variant; times are of one GEMM or call, the slowest rank's. */
struct row {
    const char *name;
    uint64_t bytes, moved, wrong;
    /* Beside, 0: the others ended too early to be there all the time, however many they were. */
    double gemm_alone_ns, call_alone_ns, gemm_beside_ns, call_beside_ns;
};

struct overlap {
    const struct settings *settings;
    struct zc_bench bench;
    zc_cu_stream compute;
    zc_cu_event begin[2], end[2]; /* of GEMMs, of calls */
    struct zc_blas *blas;
    struct zc_target target;
    enum zc_variant variant;
    struct row rows[ROWS_MOST];
    uint32_t row_count;
};

enum { GEMM, CALL };

/* Bare pushes, which `zerocta perf` also has, are no collective. */
static const char *const peer_choices[] = {"none", "nccl", NULL};

static const struct zc_option options[] = {
    ZC_ROW_RANKS(offsetof(struct settings, perf.rank_count),
                 "how many ranks to start, one a GPU; 2 if not given", 2, 64),
    ZC_ROW_MIN(offsetof(struct settings, perf.bytes_min), "1M"),
    ZC_ROW_MAX(offsetof(struct settings, perf.bytes_max), "1G", 1),
    ZC_ROW_FACTOR(offsetof(struct settings, perf.factor), "32"),
    ZC_ROW_ROOT(offsetof(struct settings, perf.given.root)),
    ZC_ROW_COUNTS(offsetof(struct settings, perf.given.counts)),
    ZC_ROW_NUMBER("gemm", 0, "N", offsetof(struct settings, n),
                  "the bf16 GEMMs are of N x N matrices; 8192 if not given", 128, 32768),
    ZC_ROW_FLAG("out-of-place", offsetof(struct settings, out_of_place),
                "the share that a rank keeps lies apart from its output, as it does where that "
                "cannot be otherwise"),
    ZC_ROW_POLICY(offsetof(struct settings, perf.policy)),
    ZC_ROW_THREADS(offsetof(struct settings, perf.threads)),
    {.name = "peer",
     .argument = "PEER",
     .help = "none: only ours; nccl: NCCL's ways too, which is what happens if this is not given",
     .kind = ZC_OPTION_CHOICE,
     .offset = offsetof(struct settings, with_nccl),
     .choices = peer_choices},
    ZC_ROW_JSON(offsetof(struct settings, perf.json.name), "the results"),
};

static const struct zc_command_line line = {
    .command = "overlap",
    .synopsis = "COLLECTIVE [OPTIONS]",
    .purpose =
        "Measures bf16 GEMMs (cuBLAS) and a collective alone and beside each other, for ours "
        "and for each of NCCL's ways. Needs GPUs, cuBLAS and, unless --peer is none, NCCL.",
    .options = options,
    .option_count = sizeof options / sizeof options[0],
    .operands_min = 1,
    .operands_max = 1,
    .operand_name = "a collective",
    .operand_words = ZC_COLLECTIVE_WORDS,
    .notes = ZC_NOTE_COLLECTIVES ZC_NOTE_SIZE
    "\n"
    "GEMM alone, beside   TFLOP/s of the slowest rank; beside: while calls run from before "
    "the first GEMM to after the last.\n"
    "busbw alone, beside  GB/s: the most that a rank sends to others, or receives from "
    "them, by time; beside: while GEMMs run all the time.\n"
    "-                    the others ended too early to be there all the time.\n"
    "wrong                bytes that were not as they must be, of all ranks.\n",
    .exit_status = "0 if every byte was right, 1 if not or if it could not run",
};

/* ---- Streams ---- */

static zc_cu_stream stream_of(const struct overlap *o, int what)
{
    return what == GEMM ? o->compute : o->bench.gpu->stream;
}

static bool enqueue(struct overlap *o, int what, uint32_t count)
{
    bool enqueued = true;

    for (uint32_t i = 0; i < count && enqueued; i++)
        enqueued =
            what == GEMM ? zc_blas_multiply(o->blas) : zc_variant_call(&o->target, o->variant);
    return enqueued;
}

static bool mark(struct overlap *o, zc_cu_event event, int what)
{
    struct zc_gpu *gpu = o->bench.gpu;

    return zc_gpu_ok(gpu, gpu->driver.cuEventRecord(event, stream_of(o, what)), "cuEventRecord");
}

static bool marked(struct overlap *o, int what, uint32_t count)
{
    return mark(o, o->begin[what], what) && enqueue(o, what, count) && mark(o, o->end[what], what);
}

static bool meet(struct overlap *o)
{
    return zcta_barrier(o->bench.world, zc_perf_stream(&o->bench)) == ZCTA_OK &&
           zc_gpu_synchronize(o->bench.gpu);
}

static bool wait_for(struct overlap *o, int what)
{
    struct zc_gpu *gpu = o->bench.gpu;

    return zc_gpu_ok(gpu, gpu->driver.cuEventSynchronize(o->end[what]), "cuEventSynchronize");
}

static bool elapsed_ns(struct overlap *o, zc_cu_event from, zc_cu_event to, double *ns)
{
    struct zc_gpu *gpu = o->bench.gpu;
    float ms = 0;

    if (!zc_gpu_ok(gpu, gpu->driver.cuEventElapsedTime(&ms, from, to), "cuEventElapsedTime"))
        return false;
    *ns = (double)ms * 1e6;
    return true;
}

/* The slowest rank's. */
static bool agree(struct overlap *o, double *ns)
{
    uint64_t number = *ns < 0 ? 0 : (uint64_t)*ns;
    const bool agreed = zc_perf_agree(&o->bench, ZC_PERF_LARGEST, &number, 1);

    *ns = (double)number;
    return agreed;
}

static int compare(const void *a, const void *b)
{
    const double left = *(const double *)a, right = *(const double *)b;

    return (left > right) - (left < right);
}

/* ---- Measuring ---- */

/* Of one GEMM or call out of `count` that follow each other. */
static bool alone(struct overlap *o, int what, uint32_t count, double *ns)
{
    if (!meet(o) || !enqueue(o, what, WARM_UP) || !marked(o, what, count) || !wait_for(o, what) ||
        !elapsed_ns(o, o->begin[what], o->end[what], ns) || !agree(o, ns))
        return false;
    *ns /= count;
    return true;
}

/* The same while the other goes on, which begins before and must end after: *covered says whether
 * it did, on all ranks. GEMMs are enqueued at once; calls take so long to enqueue that a part
 * follows. */
static bool beside(struct overlap *o, int what, uint32_t count, uint32_t cover, double *ns,
                   bool *covered)
{
    const int other = 1 - what;
    const uint32_t head = what == CALL ? cover : cover / 4 + 1;
    uint64_t is_short;
    double left = 0;

    if (!meet(o) || !enqueue(o, other, head) || !marked(o, what, count) ||
        !enqueue(o, other, cover - head) || !mark(o, o->end[other], other) || !wait_for(o, what) ||
        !wait_for(o, other) || !elapsed_ns(o, o->begin[what], o->end[what], ns) ||
        !elapsed_ns(o, o->end[what], o->end[other], &left))
        return false;
    is_short = left < 0;
    if (!agree(o, ns) || !zc_perf_agree(&o->bench, ZC_PERF_LARGEST, &is_short, 1))
        return false;
    *ns /= count;
    *covered = is_short == 0;
    return true;
}

/* Alone and beside in turns, so that the GPU's clock is the same for both; medians. */
static bool compare_both(struct overlap *o, int what, uint32_t count, double cover,
                         double *alone_ns, double *beside_ns)
{
    double times[2][REPEATS];
    bool covered = false;

    for (int i = 0, tries = 0; i < REPEATS; i += covered, tries++) {
        const double wanted = cover < COVER_MOST ? cover : COVER_MOST;

        if (tries == REPEATS + COVER_TRIES) {
            *alone_ns = times[0][0];
            *beside_ns = 0;
            return true;
        }
        if (!alone(o, what, count, &times[0][i]) ||
            !beside(o, what, count, (uint32_t)wanted + 2, &times[1][i], &covered))
            return false;
        if (!covered)
            cover *= 4; /* a collective that waits for SMs may take many times longer */
    }
    for (int i = 0; i < 2; i++)
        qsort(times[i], REPEATS, sizeof *times[i], compare);
    *alone_ns = times[0][REPEATS / 2];
    *beside_ns = times[1][REPEATS / 2];
    return true;
}

static uint32_t within(double wanted, uint32_t least, uint32_t most)
{
    return wanted < least ? least : wanted > most ? most : (uint32_t)wanted;
}

static bool count_wrong(struct overlap *o, uint64_t serial, uint64_t *wrong)
{
    return zc_contents_check(&o->target.contents, serial, wrong) &&
           zc_perf_agree(&o->bench, ZC_PERF_SUM, wrong, 1);
}

static bool measure(struct overlap *o, struct row *row)
{
    const uint64_t serial = o->bench.serial++;
    double call_ns, gemm_ns;
    uint32_t calls, gemms;

    if (!zc_contents_prepare(&o->target.contents, serial) || !alone(o, CALL, 5, &call_ns) ||
        !alone(o, GEMM, 5, &gemm_ns))
        return false;
    /* So few GEMMs that the calls that cover them fit into a stream. */
    calls = within(CALLS_NS / call_ns, 5, CALLS_MOST);
    gemms = within(COVER_MOST / 2.0 * call_ns / gemm_ns, 2, GEMMS_MOST);
    return compare_both(o, GEMM, gemms, 1.6 * gemms * gemm_ns / call_ns, &row->gemm_alone_ns,
                        &row->gemm_beside_ns) &&
           compare_both(o, CALL, calls, 1.6 * calls * call_ns / gemm_ns, &row->call_alone_ns,
                        &row->call_beside_ns) &&
           count_wrong(o, serial, &row->wrong);
}

/* ---- Report ---- */

static double tflops(const struct overlap *o, double ns)
{
    const double n = (double)o->settings->n;

    return 2 * n * n * n / ns / 1e3;
}

static double busbw(const struct row *row, double ns)
{
    return (double)row->moved / ns;
}

static void print_head(const struct overlap *o)
{
    printf("zerocta overlap: %" PRIu32 " ranks, %" PRIu64 " x %" PRIu64
           " bf16 GEMMs, %s %s, our policy %s\n\n",
           o->bench.rank_count, o->settings->n, o->settings->n, o->settings->perf.shape.info.name,
           o->settings->perf.in_place ? "in place" : "out of place",
           zc_policy_choices[o->settings->perf.policy]);
    printf("%11s  %-17s %10s %10s %7s %10s %10s %7s %8s\n%11s  %-17s %10s %10s %7s %10s %10s %7s "
           "%8s\n",
           "bytes", "by", "GEMM", "GEMM", "kept", "busbw", "busbw", "kept", "wrong", "", "",
           "alone", "beside", "", "alone", "beside", "", "bytes");
}

/* A rate beside, and how much of the one alone that is; dashes if it was not measured. */
static void print_beside(double rate, double kept, double beside_ns)
{
    if (beside_ns > 0)
        printf(" %10.1f %6.1f%%", rate, 100 * kept);
    else
        printf(" %10s %7s", "-", "-");
}

static void print_row(const struct overlap *o, const struct row *row)
{
    printf("%11" PRIu64 "  %-17s %10.1f", row->bytes, row->name, tflops(o, row->gemm_alone_ns));
    print_beside(tflops(o, row->gemm_beside_ns), row->gemm_alone_ns / row->gemm_beside_ns,
                 row->gemm_beside_ns);
    printf(" %10.1f", busbw(row, row->call_alone_ns));
    print_beside(busbw(row, row->call_beside_ns), row->call_alone_ns / row->call_beside_ns,
                 row->call_beside_ns);
    printf(" %8" PRIu64 "\n", row->wrong);
    fflush(stdout);
}

#ifdef ZC_HAVE_JANSSON
static json_t *number_or_null(double number, double beside_ns)
{
    return beside_ns > 0 ? json_real(number) : json_null();
}
#endif

static bool write_json(const struct overlap *o)
{
    struct json_t *report = NULL;
#ifdef ZC_HAVE_JANSSON
    json_t *rows = json_array();

    for (uint32_t i = 0; i < o->row_count; i++) {
        const struct row *row = &o->rows[i];

        json_array_append_new(
            rows, json_pack("{s:I, s:s, s:f, s:o, s:f, s:o, s:I}", "bytes", (json_int_t)row->bytes,
                            "by", row->name, "gemm_alone_tflops", tflops(o, row->gemm_alone_ns),
                            "gemm_beside_tflops",
                            number_or_null(tflops(o, row->gemm_beside_ns), row->gemm_beside_ns),
                            "busbw_alone_GBps", busbw(row, row->call_alone_ns), "busbw_beside_GBps",
                            number_or_null(busbw(row, row->call_beside_ns), row->call_beside_ns),
                            "wrong_bytes", (json_int_t)row->wrong));
    }
    report =
        json_pack("{s:s, s:I, s:I, s:b, s:s, s:i, s:o}", "collective",
                  o->settings->perf.shape.info.name, "ranks", (json_int_t)o->bench.rank_count,
                  "gemm", (json_int_t)o->settings->n, "in_place", (int)o->settings->perf.in_place,
                  "policy", zc_policy_choices[o->settings->perf.policy], "nccl_version",
                  o->bench.nccl == NULL ? 0 : zc_peer_nccl_version(o->bench.nccl), "rows", rows);
#endif
    return zc_json_write(line.command, &o->settings->perf.json, report);
}

/* ---- One rank ---- */

static bool prepare(struct overlap *o)
{
    struct zc_gpu *gpu = o->bench.gpu;
    bool prepared = zc_gpu_ok(
        gpu, gpu->driver.cuStreamCreate(&o->compute, ZC_CU_STREAM_NON_BLOCKING), "cuStreamCreate");

    for (int i = 0; i < 2 && prepared; i++)
        prepared = zc_gpu_ok(gpu, gpu->driver.cuEventCreate(&o->begin[i], 0), "cuEventCreate") &&
                   zc_gpu_ok(gpu, gpu->driver.cuEventCreate(&o->end[i], 0), "cuEventCreate");
    return prepared && zc_blas_open(line.command, gpu, o->compute, (int)o->settings->n, &o->blas);
}

static void release(struct overlap *o)
{
    struct zc_gpu *gpu = o->bench.gpu;

    zc_blas_close(o->blas);
    if (gpu == NULL)
        return;
    for (int i = 0; i < 2; i++) {
        if (o->begin[i] != NULL)
            gpu->driver.cuEventDestroy(o->begin[i]);
        if (o->end[i] != NULL)
            gpu->driver.cuEventDestroy(o->end[i]);
    }
    if (o->compute != NULL)
        gpu->driver.cuStreamDestroy(o->compute);
}

static bool measure_variants(struct overlap *o)
{
    struct zc_bench *bench = &o->bench;
    bool measured = true;

    for (uint32_t i = 0; i < bench->variant_count && measured; i++) {
        struct row *row = &o->rows[o->row_count];

        o->variant = bench->variants[i];
        /* A release belongs to one run before the next, and bare pushes are no collective. */
        if (o->variant == ZC_VARIANT_RELEASED || o->variant == ZC_VARIANT_PUSH ||
            o->row_count == ROWS_MOST)
            continue;
        *row = (struct row){.name = zc_variant_names[o->variant],
                            .bytes = o->target.sized.bytes,
                            .moved = o->target.sized.moved};
        measured = measure(o, row);
        o->row_count += measured;
        if (measured && bench->rank == 0)
            print_row(o, row);
    }
    return measured;
}

static bool measure_size(struct overlap *o, uint64_t bytes)
{
    const bool measured = zc_target_open(&o->bench, bytes, &o->target) && measure_variants(o);

    zc_target_close(&o->target);
    return measured;
}

static int run_sizes(struct overlap *o)
{
    uint64_t bytes = 0, wrong = 0;

    if (o->bench.rank == 0)
        print_head(o);
    while ((bytes = zc_perf_next_size(&o->settings->perf, bytes)) != 0)
        if (!measure_size(o, bytes))
            return zc_perf_complain(&o->bench, "the measurement broke off");
    for (uint32_t i = 0; i < o->row_count; i++)
        wrong += o->rows[i].wrong;
    if (o->bench.rank == 0)
        printf("\nresult: %s, %" PRIu64 " wrong bytes\n", wrong == 0 ? "OK" : "FAILED", wrong);
    if (o->bench.rank == 0 && o->settings->perf.json.name != NULL && !write_json(o))
        return ZC_EXIT_FAILED;
    return wrong == 0 ? ZC_EXIT_OK : ZC_EXIT_FAILED;
}

static int run_rank(const struct zc_perf *perf, const zcta_init_params *params)
{
    struct overlap *o = calloc(1, sizeof *o);
    int status;

    if (o == NULL)
        return zc_failure(line.command, "out of memory");
    o->settings = (const struct settings *)perf;
    o->bench.perf = perf;
    status = zc_bench_open(&o->bench, params);
    if (status == ZC_EXIT_OK)
        status = zc_bench_place(&o->bench);
    if (status == ZC_EXIT_OK)
        status = zc_bench_open_peer(&o->bench);
    if (status == ZC_EXIT_OK)
        status = prepare(o) ? run_sizes(o) : ZC_EXIT_FAILED;
    release(o);
    status = zc_bench_close(&o->bench, status);
    free(o);
    return status;
}

/* Into settings->perf what follows from the rest of the options. */
static bool read_settings(const char *collective, struct settings *settings)
{
    struct zc_perf *perf = &settings->perf;

    if (!zc_shape_read(line.command, collective, &perf->given, &perf->shape) ||
        !zc_shape_fits(line.command, &perf->shape, perf->rank_count))
        return false;
    perf->in_place = !settings->out_of_place && zc_in_place_defect(&perf->shape) == NULL;
    perf->peer = settings->with_nccl != 0 ? ZC_PEER_NCCL : ZC_PEER_NONE;
    if (zc_shape_has(&perf->shape, ZCTA_COLLECTIVE_NO_DATA))
        zc_usage_error(line.command, "%s moves nothing that could go on beside GEMMs", collective);
    else if (perf->bytes_min > perf->bytes_max)
        zc_usage_error(line.command, "the smallest size is larger than the largest");
    else
        return true;
    return false;
}

int zc_command_overlap(int argc, char **argv)
{
    struct settings settings = {.perf = {.command = line.command,
                                         .given = {.root = ZC_NOT_GIVEN},
                                         .rank_count = 2,
                                         .bytes_min = (uint64_t)1 << 20,
                                         .bytes_max = (uint64_t)1 << 30,
                                         .factor = 32,
                                         .device = ZCTA_DEVICE_CUDA,
                                         .argc = argc,
                                         .argv = argv},
                                .with_nccl = 1,
                                .n = 8192};
    const zcta_init_params params = {.size = sizeof params, .device = ZCTA_DEVICE_CUDA};
    int first, status;

    if (!zc_options_parse(&line, argc, argv, &settings, &first, &status))
        return status;
    if (!read_settings(argv[first], &settings))
        return ZC_EXIT_USAGE;
    status = zc_json_prepare(line.command, &settings.perf.json, zc_launch_is_rank(),
                             settings.perf.threads);
    if (status != ZC_EXIT_OK)
        return status;
    if (zc_launch_is_rank())
        return run_rank(&settings.perf, &params);
    status = zc_try_device(line.command, ZCTA_DEVICE_CUDA, "");
    if (status != ZC_EXIT_OK)
        return status;
    return settings.perf.threads
               ? zc_perf_threads(&settings.perf, run_rank)
               : zc_launch_self(line.command, (uint32_t)settings.perf.rank_count, argc, argv);
}
