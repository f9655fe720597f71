/* One size: its bytes are checked, then its time is taken, then its bytes are checked again.
 *
 * A full check fills the input, poisons the output and looks at all of it. It begins with no
 * barrier, because ranks that come at different times are what a collective must bear. A timing
 * begins with a barrier; before each the input gets a stamp in three places of each share, which
 * must arrive everywhere, and after the last one the whole output is looked at once more. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "commands.h"
#include "options.h"
#include "perf.h"

enum {
    CHECKS = 3, /* full ones before the timing, one if the output is large; and one after */
    SAMPLES_LEAST = 10,
    BATCH_LEAST = 10,
    BATCH_MOST = 50,
    MPI_WAIT_MS = 1000,
};

/* A call shorter than this is timed in batches that are about BATCH_NS long. */
#define SHORT_NS  20000u
#define BATCH_NS  200000u
#define BUDGET_NS 300000000u /* for the timings of one size */

/* From here on a call is large: checking it takes much longer than running it. */
#define LARGE_BYTES ((uint64_t)256 << 20)

/* ---- Calls ---- */

static bool barrier(const struct zc_bench *bench)
{
    return zcta_barrier(bench->world, zc_perf_stream(bench)) == ZCTA_OK;
}

static bool check_fully(const struct zc_target *target, uint64_t *wrong)
{
    const uint64_t serial = target->bench->serial++;

    return zc_contents_prepare(&target->contents, serial) &&
           zc_variant_call(target, ZC_VARIANT_OURS) &&
           zc_contents_check(&target->contents, serial, wrong);
}

static uint64_t mean_of(uint64_t ns, uint32_t batch)
{
    return batch > 1 ? ns / batch : ns;
}

/* Between two moments in the GPU's stream; the CPU's time is only that of enqueueing. */
static bool take_gpu_time(const struct zc_target *target, enum zc_variant variant, uint32_t batch,
                          uint64_t *time_ns, uint64_t *submit_ns)
{
    struct zc_gpu *gpu = target->bench->gpu;
    uint64_t begin;
    bool called = zc_gpu_mark(gpu, gpu->begin);

    begin = zc_now_ns();
    for (uint32_t i = 0; i < batch && called; i++)
        called = zc_variant_call(target, variant);
    *submit_ns = mean_of(zc_now_ns() - begin, batch);
    called = called && zc_gpu_mark(gpu, gpu->end) && zc_gpu_elapsed_ns(gpu, time_ns);
    *time_ns = mean_of(*time_ns, batch);
    return called;
}

/* Time of one call out of `batch` that directly follow each other. With the NULL stream of the host
 * a call has done its work when it returns, so the time in the call is the whole. */
static bool take_time(const struct zc_target *target, enum zc_variant variant, uint32_t batch,
                      uint64_t *time_ns, uint64_t *submit_ns)
{
    uint64_t begin, end;
    bool called = true;

    if (!barrier(target->bench))
        return false;
    if (target->bench->gpu != NULL)
        return take_gpu_time(target, variant, batch, time_ns, submit_ns);
    begin = zc_now_ns();
    for (uint32_t i = 0; i < batch && called; i++)
        called = zc_variant_call(target, variant);
    end = zc_now_ns();
    *time_ns = *submit_ns = mean_of(end - begin, batch);
    return called;
}

/* ---- Among the ranks ---- */

static void choose_samples(const struct zc_bench *bench, uint64_t call_ns, struct zc_perf_row *row)
{
    uint64_t batch, samples;

    call_ns = call_ns == 0 ? 1 : call_ns;
    batch = BATCH_NS / call_ns;
    batch = batch > BATCH_MOST ? BATCH_MOST : batch < BATCH_LEAST ? BATCH_LEAST : batch;
    row->batch = call_ns < SHORT_NS ? (uint32_t)batch : 1;
    samples = BUDGET_NS / (call_ns * row->batch);
    if (samples < SAMPLES_LEAST)
        samples = SAMPLES_LEAST;
    if (samples > bench->samples_max || bench->perf->iterations != 0)
        samples = bench->samples_max;
    row->samples = (uint32_t)samples;
}

/* Takes some times and decides from the fastest of the slowest ranks'; on all ranks alike. */
static bool calibrate(const struct zc_target *target, struct zc_perf_row *row)
{
    struct zc_bench *bench = target->bench;
    uint64_t fastest = UINT64_MAX, submit_ns;

    for (uint32_t i = 0; i < ZC_PERF_CALIBRATIONS; i++)
        if (!take_time(target, ZC_VARIANT_OURS, 1, &bench->times_ns[i], &submit_ns))
            return false;
    if (!zc_perf_agree(bench, ZC_PERF_LARGEST, bench->times_ns, ZC_PERF_CALIBRATIONS))
        return false;
    for (uint32_t i = 0; i < ZC_PERF_CALIBRATIONS; i++)
        fastest = bench->times_ns[i] < fastest ? bench->times_ns[i] : fastest;
    choose_samples(bench, fastest, row);
    return true;
}

/* One timing of one variant; its stamps must arrive. */
static bool time_one(const struct zc_target *target, const struct zc_perf_row *row, uint32_t turn,
                     uint32_t sample, uint64_t serial, uint64_t *wrong)
{
    const struct zc_bench *bench = target->bench;
    const size_t at = (size_t)turn * bench->samples_max + sample;
    const enum zc_variant variant = bench->variants[turn];

    return zc_contents_stamp(&target->contents, serial) &&
           take_time(target, variant, row->batch, &bench->times_ns[at], &bench->submits_ns[at]) &&
           zc_variant_await(target, variant) &&
           zc_contents_check_stamps(&target->contents, serial, wrong);
}

/* The variants take turns. */
static bool time_all(const struct zc_target *target, const struct zc_perf_row *row, uint64_t *wrong)
{
    struct zc_bench *bench = target->bench;
    const uint64_t last = bench->serial, timings = (uint64_t)row->samples * bench->variant_count;

    /* The last stamp restores the pattern that the share had before the first. */
    if (!zc_contents_prepare(&target->contents, last))
        return false;
    for (uint64_t i = 0; i < timings; i++)
        if (!time_one(target, row, (uint32_t)(i % bench->variant_count),
                      (uint32_t)(i / bench->variant_count), i + 1 == timings ? last : last + 1 + i,
                      wrong))
            return false;
    bench->serial += timings + 1;
    return zc_contents_check(&target->contents, last, wrong);
}

/* ---- Statistics ---- */

static int compare(const void *a, const void *b)
{
    const uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

    return (left > right) - (left < right);
}

static double median_us(const uint64_t *sorted, uint32_t count)
{
    const uint32_t lower = (count - 1) / 2, upper = count / 2;

    return ((double)sorted[lower] + (double)sorted[upper]) / 2e3;
}

/* The numbers are the slowest rank's of each timing by now. */
static void summarize(const struct zc_bench *bench, uint64_t moved, struct zc_perf_row *row)
{
    uint64_t *const times_ns = bench->times_ns;
    const uint32_t count = row->samples;
    const uint64_t p99 = ((uint64_t)count * 99 + 99) / 100 - 1;

    qsort(bench->submits_ns, count, sizeof *bench->submits_ns, compare);
    row->submit_us = median_us(bench->submits_ns, count);
    qsort(times_ns, count, sizeof *times_ns, compare);
    row->time_us = median_us(times_ns, count);
    row->min_us = (double)times_ns[0] / 1e3;
    row->p99_us = (double)times_ns[p99] / 1e3;
    if (row->time_us > 0) {
        row->algbw = (double)row->bytes / row->time_us / 1e3;
        row->busbw = (double)moved / row->time_us / 1e3;
    }
}

/* One variant's numbers become the slowest rank's of each timing. */
static bool agree_on_times(struct zc_bench *bench, uint32_t variant, uint32_t samples)
{
    const size_t at = (size_t)variant * bench->samples_max;

    return zc_perf_agree(bench, ZC_PERF_LARGEST, bench->times_ns + at, samples) &&
           zc_perf_agree(bench, ZC_PERF_LARGEST, bench->submits_ns + at, samples);
}

static double median_of(uint64_t *numbers, uint32_t count)
{
    qsort(numbers, count, sizeof *numbers, compare);
    return median_us(numbers, count);
}

/* All ranks' numbers together. */
static int conclude(struct zc_bench *bench, uint64_t moved, struct zc_perf_row *row)
{
    bool agreed = zc_perf_agree(bench, ZC_PERF_SUM, &row->wrong_bytes, 1);

    for (uint32_t i = 0; i < bench->variant_count && agreed; i++)
        agreed = agree_on_times(bench, i, row->samples);
    if (!agreed)
        return zc_perf_complain(bench, "no times of the other ranks");
    summarize(bench, moved, row);
    row->peer_count = bench->variant_count - 1;
    for (uint32_t i = 0; i < row->peer_count; i++) {
        const size_t at = (size_t)(i + 1) * bench->samples_max;

        row->peers[i].name = zc_variant_names[bench->variants[i + 1]];
        row->peers[i].time_us = median_of(bench->times_ns + at, row->samples);
        row->peers[i].submit_us = median_of(bench->submits_ns + at, row->samples);
    }
    return ZC_EXIT_OK;
}

/* ---- MPI ---- */

/* Asks one of them. The other ranks wait for rank 0 in short rounds, which no deadline ends. */
static bool ask_mpi(struct zc_bench *bench, int which, const struct zc_target *target,
                    struct zc_perf_row *row)
{
    uint64_t told[3] = {ZC_PEER_MPI_BUSY, 0, 0}; /* the state, the median, wrong bytes */
    struct zc_peer_mpi *peer = bench->mpi[which];

    if (peer != NULL)
        zc_peer_mpi_ask(peer, target->sized.bytes, row->samples, row->batch);
    while (told[0] == ZC_PEER_MPI_BUSY) {
        if (peer != NULL)
            told[0] = zc_peer_mpi_answer(peer, MPI_WAIT_MS, &told[1], &told[2]);
        if (!zc_perf_agree(bench, ZC_PERF_LARGEST, told, 3))
            return false;
    }
    if (told[0] == ZC_PEER_MPI_GONE && bench->rank == 0)
        zc_failure(bench->perf->command, "the program of %s has ended", zc_peer_mpi_names[which]);
    row->peers[row->peer_count].name = zc_peer_mpi_names[which];
    row->peers[row->peer_count].time_us = row->peers[row->peer_count].submit_us =
        (double)told[1] / 1e3;
    row->peer_count++;
    row->wrong_bytes += told[2];
    return told[0] == ZC_PEER_MPI_ANSWERED;
}

static int ask_mpis(const struct zc_target *target, struct zc_perf_row *row)
{
    struct zc_bench *bench = target->bench;

    for (int i = 0; i < ZC_PEER_MPIS && bench->perf->peer == ZC_PEER_MPI; i++)
        if (zc_peer_mpi_is_built(i) && !ask_mpi(bench, i, target, row))
            return ZC_EXIT_FAILED;
    return ZC_EXIT_OK;
}

/* ---- Path ---- */

static int complain_no_path(const struct zc_bench *bench, const zcta_report *report)
{
    for (uint32_t i = 0; bench->rank == 0 && i < report->path_count; i++)
        zc_failure("perf", "%s cannot run: %s", report->paths[i].path, report->paths[i].reason);
    return ZC_EXIT_FAILED;
}

enum { COUNTERS = 64 };

static void read_counters(const struct zc_bench *bench, zcta_path_counter counters[COUNTERS])
{
    uint32_t count = COUNTERS;

    memset(counters, 0, COUNTERS * sizeof *counters);
    for (uint32_t i = 0; i < COUNTERS; i++)
        counters[i].size = sizeof counters[i];
    zcta_team_counters(bench->world, counters, &count);
}

/* How often a path had run: only what has run is listed, so places differ from time to time. */
static uint64_t calls_of(const zcta_path_counter *counters, const char *path)
{
    for (uint32_t i = 0; i < COUNTERS; i++)
        if (strcmp(counters[i].path, path) == 0)
            return counters[i].calls;
    return 0;
}

/* What has run is what the counters say, not what was announced. Two paths are joined by a plus. */
static void find_path(const zcta_path_counter *before, const zcta_path_counter *after,
                      const char *collective, const zcta_report *report, struct zc_perf_row *row)
{
    /* What a release runs, not the call. */
    static const char release[] = "ce/early-ready";
    const size_t prefix = strlen(collective);

    for (uint32_t i = 0; i < COUNTERS; i++) {
        const char *name = after[i].path + prefix + 1;
        const size_t used = strlen(row->path);

        if (strncmp(after[i].path, collective, prefix) != 0 || after[i].path[prefix] != '/' ||
            strcmp(name, release) == 0 || after[i].calls == calls_of(before, after[i].path))
            continue;
        snprintf(row->path + used, sizeof row->path - used, "%s%s", used > 0 ? "+" : "", name);
        for (uint32_t j = 0; j < report->path_count; j++)
            row->sms |= strcmp(report->paths[j].path, name) == 0 && report->paths[j].sms != 0;
    }
}

static bool check_and_time(struct zc_target *target, struct zc_perf_row *row)
{
    const uint32_t checks = row->bytes < LARGE_BYTES ? CHECKS : 1;
    bool ran = zc_variants_open(target);

    for (uint32_t i = 0; i < checks && ran; i++)
        ran = check_fully(target, &row->wrong_bytes);
    return ran && calibrate(target, row) && time_all(target, row, &row->wrong_bytes) &&
           check_fully(target, &row->wrong_bytes);
}

static int measure(struct zc_target *target, struct zc_perf_row *row)
{
    struct zc_bench *bench = target->bench;
    zcta_path_counter before[COUNTERS], after[COUNTERS];
    zcta_report report = {.size = sizeof report};
    int status;

    row->bytes = target->sized.bytes;
    row->share = target->sized.share;
    if (zcta_explain(bench->world, &target->call, &report) != ZCTA_OK)
        return zc_perf_complain(bench, "no choice");
    if (report.chosen >= report.path_count)
        return complain_no_path(bench, &report);
    read_counters(bench, before);
    if (!check_and_time(target, row))
        return zc_perf_complain(bench, "the call broke off");
    read_counters(bench, after);
    find_path(before, after, bench->perf->shape.info.name, &report, row);
    status = conclude(bench, target->sized.moved, row);
    return status == ZC_EXIT_OK ? ask_mpis(target, row) : status;
}

int zc_perf_measure(struct zc_bench *bench, uint64_t bytes, struct zc_perf_row *row)
{
    struct zc_perf_row made = {.bytes = 0};
    struct zc_target target;
    int status = ZC_EXIT_FAILED;

    if (zc_target_open(bench, bytes, &target))
        status = measure(&target, &made);
    zc_target_close(&target);
    if (status == ZC_EXIT_OK)
        *row = made;
    return status;
}
