/* One size: its bytes are checked, then its time is taken, then its bytes are checked again.
 *
 * A full check fills the own share, poisons the output and looks at all of it. It begins with no
 * barrier, because ranks that come at different times are what a collective must bear. A timing
 * begins with a barrier; before each the own share gets a stamp in three places, which must arrive
 * everywhere, and after the last one the whole output is looked at once more. */
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
    STAMPS = 3,
    STAMP_BYTES = 8,
};

/* A call shorter than this is timed in batches that are about BATCH_NS long. */
#define SHORT_NS  20000u
#define BATCH_NS  200000u
#define BUDGET_NS 300000000u /* for the timings of one size */

/* From here on an output is large: checking it takes much longer than gathering it. */
#define LARGE_BYTES ((uint64_t)256 << 20)

/* The size that is measured. */
struct size {
    struct zc_bench *bench;
    uint64_t share;
    struct zc_target target;
    /* Share and output as the CPU sees them: themselves on the host, copies that are moved on a
     * GPU. */
    char *own_view, *out_view;
};

/* ---- Contents ---- */

/* Brings a part of the share or the output from its view into place, or from its place into view.
 */
static bool place(const struct size *size, char *at, const char *view, uint64_t bytes)
{
    return size->bench->gpu == NULL || zc_gpu_put(size->bench->gpu, at, view, bytes);
}

static bool view(const struct size *size, uint64_t offset, uint64_t bytes)
{
    return size->bench->gpu == NULL ||
           zc_gpu_get(size->bench->gpu, size->out_view + offset, size->target.out + offset, bytes);
}

static bool prepare(const struct size *size, uint64_t serial)
{
    const struct zc_bench *bench = size->bench;

    for (uint32_t rank = 0; rank < bench->rank_count; rank++)
        zc_pattern_poison(zc_pattern_of(rank, serial), size->out_view + rank * size->share, 0,
                          size->share);
    zc_pattern_fill(zc_pattern_of(bench->rank, serial), size->own_view, 0, size->share);
    return place(size, size->target.out, size->out_view, size->share * bench->rank_count) &&
           place(size, size->target.own, size->own_view, size->share);
}

/* Adds the wrong bytes of the whole output. */
static bool count_wrong(const struct size *size, uint64_t serial, uint64_t *wrong)
{
    if (!view(size, 0, size->share * size->bench->rank_count))
        return false;
    for (uint32_t rank = 0; rank < size->bench->rank_count; rank++)
        *wrong += zc_pattern_check(zc_pattern_of(rank, serial), size->out_view + rank * size->share,
                                   0, size->share);
    return true;
}

/* Stamps stand at the start, in the middle and at the end of a share. */
static uint64_t stamp_offset(const struct size *size, uint32_t stamp)
{
    const uint64_t last = (size->share - 1) / STAMP_BYTES;

    return last * stamp / (STAMPS - 1) * STAMP_BYTES;
}

static uint64_t stamp_bytes(const struct size *size, uint64_t offset)
{
    const uint64_t left = size->share - offset;

    return left < STAMP_BYTES ? left : STAMP_BYTES;
}

static bool stamp(const struct size *size, uint64_t serial)
{
    const struct zc_pattern pattern = zc_pattern_of(size->bench->rank, serial);
    bool placed = true;

    for (uint32_t i = 0; i < STAMPS && placed; i++) {
        const uint64_t offset = stamp_offset(size, i), bytes = stamp_bytes(size, offset);

        zc_pattern_fill(pattern, size->own_view + offset, offset, bytes);
        placed = place(size, size->target.own + offset, size->own_view + offset, bytes);
    }
    return placed;
}

static bool count_wrong_stamps(const struct size *size, uint64_t serial, uint64_t *wrong)
{
    bool viewed = true;

    for (uint32_t rank = 0; rank < size->bench->rank_count; rank++) {
        const struct zc_pattern pattern = zc_pattern_of(rank, serial);
        const uint64_t begin = rank * size->share;

        for (uint32_t i = 0; i < STAMPS && viewed; i++) {
            const uint64_t offset = stamp_offset(size, i), bytes = stamp_bytes(size, offset);

            viewed = view(size, begin + offset, bytes);
            *wrong += zc_pattern_check(pattern, size->out_view + begin + offset, offset, bytes);
        }
    }
    return viewed;
}

/* ---- Calls ---- */

static bool barrier(const struct zc_bench *bench)
{
    return zcta_barrier(bench->world, zc_perf_stream(bench)) == ZCTA_OK;
}

static bool check_fully(const struct size *size, uint64_t *wrong)
{
    const uint64_t serial = size->bench->serial++;

    return prepare(size, serial) && zc_contestant_call(&size->target, ZC_CONTESTANT_OURS) &&
           count_wrong(size, serial, wrong);
}

/* Between two moments in the GPU's stream; the CPU's time is only that of enqueueing. */
static bool take_gpu_time(const struct size *size, enum zc_contestant contestant, uint32_t batch,
                          uint64_t *time_ns, uint64_t *submit_ns)
{
    struct zc_gpu *gpu = size->bench->gpu;
    uint64_t begin;
    bool called = zc_gpu_mark(gpu, gpu->begin);

    begin = zc_now_ns();
    for (uint32_t i = 0; i < batch && called; i++)
        called = zc_contestant_call(&size->target, contestant);
    *submit_ns = (zc_now_ns() - begin) / batch;
    called = called && zc_gpu_mark(gpu, gpu->end) && zc_gpu_elapsed_ns(gpu, time_ns);
    *time_ns /= batch;
    return called;
}

/* Time of one call out of `batch` that directly follow each other. With the NULL stream of the host
 * a call has done its work when it returns, so the time in the call is the whole. */
static bool take_time(const struct size *size, enum zc_contestant contestant, uint32_t batch,
                      uint64_t *time_ns, uint64_t *submit_ns)
{
    uint64_t begin, end;
    bool called = true;

    if (!barrier(size->bench))
        return false;
    if (size->bench->gpu != NULL)
        return take_gpu_time(size, contestant, batch, time_ns, submit_ns);
    begin = zc_now_ns();
    for (uint32_t i = 0; i < batch && called; i++)
        called = zc_contestant_call(&size->target, contestant);
    end = zc_now_ns();
    *time_ns = *submit_ns = batch > 1 ? (end - begin) / batch : end - begin;
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
static bool calibrate(const struct size *size, struct zc_perf_row *row)
{
    struct zc_bench *bench = size->bench;
    uint64_t fastest = UINT64_MAX, submit_ns;

    for (uint32_t i = 0; i < ZC_PERF_CALIBRATIONS; i++)
        if (!take_time(size, ZC_CONTESTANT_OURS, 1, &bench->times_ns[i], &submit_ns))
            return false;
    if (!zc_perf_agree(bench, ZC_PERF_LARGEST, bench->times_ns, ZC_PERF_CALIBRATIONS))
        return false;
    for (uint32_t i = 0; i < ZC_PERF_CALIBRATIONS; i++)
        fastest = bench->times_ns[i] < fastest ? bench->times_ns[i] : fastest;
    choose_samples(bench, fastest, row);
    return true;
}

/* One timing of one contestant; its stamps must arrive. */
static bool time_one(const struct size *size, const struct zc_perf_row *row, uint32_t turn,
                     uint32_t sample, uint64_t serial, uint64_t *wrong)
{
    const struct zc_bench *bench = size->bench;
    const size_t at = (size_t)turn * bench->samples_max + sample;
    const enum zc_contestant contestant = bench->contestants[turn];

    return stamp(size, serial) &&
           take_time(size, contestant, row->batch, &bench->times_ns[at], &bench->submits_ns[at]) &&
           zc_contestant_settle(&size->target, contestant) &&
           count_wrong_stamps(size, serial, wrong);
}

/* The contestants take turns. */
static bool time_all(const struct size *size, const struct zc_perf_row *row, uint64_t *wrong)
{
    struct zc_bench *bench = size->bench;
    const uint64_t last = bench->serial, timings = (uint64_t)row->samples * bench->contestant_count;

    /* The last stamp restores the pattern that the share had before the first. */
    if (!prepare(size, last))
        return false;
    for (uint64_t i = 0; i < timings; i++)
        if (!time_one(size, row, (uint32_t)(i % bench->contestant_count),
                      (uint32_t)(i / bench->contestant_count),
                      i + 1 == timings ? last : last + 1 + i, wrong))
            return false;
    bench->serial += timings + 1;
    return count_wrong(size, last, wrong);
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
static void summarize(const struct zc_bench *bench, struct zc_perf_row *row)
{
    uint64_t *const times_ns = bench->times_ns;
    const double ranks = bench->rank_count;
    const uint32_t count = row->samples;
    const uint64_t p99 = ((uint64_t)count * 99 + 99) / 100 - 1;

    qsort(bench->submits_ns, count, sizeof *bench->submits_ns, compare);
    row->submit_us = median_us(bench->submits_ns, count);
    qsort(times_ns, count, sizeof *times_ns, compare);
    row->time_us = median_us(times_ns, count);
    row->min_us = (double)times_ns[0] / 1e3;
    row->p99_us = (double)times_ns[p99] / 1e3;
    if (row->time_us > 0)
        row->algbw = (double)row->bytes / row->time_us / 1e3;
    row->busbw = row->algbw * (ranks - 1) / ranks;
}

/* One contestant's numbers become the slowest rank's of each timing. */
static bool agree_on_times(struct zc_bench *bench, uint32_t contestant, uint32_t samples)
{
    const size_t at = (size_t)contestant * bench->samples_max;

    return zc_perf_agree(bench, ZC_PERF_LARGEST, bench->times_ns + at, samples) &&
           zc_perf_agree(bench, ZC_PERF_LARGEST, bench->submits_ns + at, samples);
}

static double median_of(uint64_t *numbers, uint32_t count)
{
    qsort(numbers, count, sizeof *numbers, compare);
    return median_us(numbers, count);
}

/* All ranks' numbers together. */
static int conclude(struct zc_bench *bench, struct zc_perf_row *row)
{
    bool agreed = zc_perf_agree(bench, ZC_PERF_SUM, &row->wrong_bytes, 1);

    for (uint32_t i = 0; i < bench->contestant_count && agreed; i++)
        agreed = agree_on_times(bench, i, row->samples);
    if (!agreed)
        return zc_perf_complain(bench, "no times of the other ranks");
    summarize(bench, row);
    row->peer_count = bench->contestant_count - 1;
    for (uint32_t i = 0; i < row->peer_count; i++) {
        const size_t at = (size_t)(i + 1) * bench->samples_max;

        row->peers[i].name = zc_contestant_names[bench->contestants[i + 1]];
        row->peers[i].time_us = median_of(bench->times_ns + at, row->samples);
        row->peers[i].submit_us = median_of(bench->submits_ns + at, row->samples);
    }
    return ZC_EXIT_OK;
}

/* ---- Path ---- */

static int complain_no_path(const struct zc_bench *bench, const zcta_report *report)
{
    for (uint32_t i = 0; bench->rank == 0 && i < report->path_count; i++)
        zc_failure("perf", "%s cannot run: %s", report->paths[i].path, report->paths[i].reason);
    return ZC_EXIT_FAILED;
}

enum { COUNTERS = 32 };

static void read_counters(const struct zc_bench *bench, zcta_path_counter counters[COUNTERS])
{
    uint32_t count = COUNTERS;

    memset(counters, 0, COUNTERS * sizeof *counters);
    zcta_team_counters(bench->world, counters, &count);
}

/* What has run is what the counters say, not what was announced. Two paths are joined by a plus. */
static void find_path(const zcta_path_counter *before, const zcta_path_counter *after,
                      const zcta_report *report, struct zc_perf_row *row)
{
    static const char prefix[] = "all_gather/";

    for (uint32_t i = 0; i < COUNTERS; i++) {
        const char *name = after[i].path + sizeof prefix - 1;
        const size_t used = strlen(row->path);

        if (after[i].calls == before[i].calls ||
            strncmp(after[i].path, prefix, sizeof prefix - 1) != 0)
            continue;
        snprintf(row->path + used, sizeof row->path - used, "%s%s", used > 0 ? "+" : "", name);
        for (uint32_t j = 0; j < report->path_count; j++)
            row->sms |= strcmp(report->paths[j].path, name) == 0 && report->paths[j].sms != 0;
    }
}

/* Where things are for shares of this size. */
static struct size place_size(struct zc_bench *bench, uint64_t share)
{
    char *out = zcta_window_base(bench->recv);
    struct size size = {.bench = bench, .share = share};

    size.target = (struct zc_target){.bench = bench,
                                     .share = share,
                                     .out = out,
                                     .own = bench->send != NULL ? zcta_window_base(bench->send)
                                                                : out + bench->rank * share};
    size.out_view = bench->stage != NULL ? bench->stage : out;
    size.own_view = bench->stage == NULL  ? size.target.own
                    : bench->send != NULL ? bench->stage + share * bench->rank_count
                                          : bench->stage + bench->rank * share;
    return size;
}

static bool check_and_time(struct size *size, struct zc_perf_row *row)
{
    const uint32_t checks = row->bytes < LARGE_BYTES ? CHECKS : 1;
    bool ran = zc_contestants_open(&size->target);

    for (uint32_t i = 0; i < checks && ran; i++)
        ran = check_fully(size, &row->wrong_bytes);
    ran = ran && calibrate(size, row) && time_all(size, row, &row->wrong_bytes) &&
          check_fully(size, &row->wrong_bytes);
    zc_contestants_close(&size->target);
    return ran;
}

int zc_perf_measure(struct zc_bench *bench, uint64_t share, struct zc_perf_row *row)
{
    const zcta_call_params params = zc_perf_call_params(bench->perf);
    struct size size = place_size(bench, share);
    struct zc_perf_row made = {.bytes = share * bench->rank_count, .share = share};
    zcta_path_counter before[COUNTERS], after[COUNTERS];
    zcta_report report;
    int status;

    if (zcta_explain_all_gather(bench->world, size.target.own, size.target.out, share, &params,
                                &report) != ZCTA_OK)
        return zc_perf_complain(bench, "no choice");
    if (report.chosen >= report.path_count)
        return complain_no_path(bench, &report);
    read_counters(bench, before);
    if (!check_and_time(&size, &made))
        return zc_perf_complain(bench, "no allgather");
    read_counters(bench, after);
    find_path(before, after, &report, &made);
    status = conclude(bench, &made);
    if (status == ZC_EXIT_OK)
        *row = made;
    return status;
}
