/* The report that people read: a table, and one line with the result. Prints what it is given. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "choices.h"
#include "perf.h"

void zc_perf_table_begin(const struct zc_perf *perf, const struct zc_perf_result *result)
{
    const struct zc_shape *shape = &perf->shape;
    char counts[ZC_COUNTS_TEXT_BYTES];

    printf("zerocta perf %s: %" PRIu32 " %s (%s), device %s, policy %s, engine %s",
           shape->info.name, result->rank_count, result->rank_count == 1 ? "rank" : "ranks",
           result->ranks_are, result->device, zc_policy_choices[perf->policy],
           zc_engine_choices[perf->engine]);
    if (zc_shape_has(shape, ZCTA_COLLECTIVE_ROOTED))
        printf(", root %" PRIu32, shape->root);
    if (zc_shape_has(shape, ZCTA_COLLECTIVE_UNEVEN))
        printf(", counts %s", zc_counts_text(shape, counts));
    printf("\n\n");
    printf("%11s %11s  %-5s %10s %10s %10s %9s %9s %8s  %-20s %3s\n", "bytes",
           zc_shape_has(shape, ZCTA_COLLECTIVE_UNEVEN) ? "largest" : "share", "place", "time",
           "p99", "submit", "algbw", "busbw", "wrong", "path", "SMs");
    printf("%11s %11s  %-5s  %10s  %10s  %10s %9s %9s %8s\n", "", "bytes", "", "µs", "µs", "µs",
           "GB/s", "GB/s", "bytes");
    fflush(stdout);
}

void zc_perf_table_row(const struct zc_perf *perf, const struct zc_perf_row *row)
{
    printf("%11" PRIu64 " %11" PRIu64 "  %-5s %10.1f %10.1f %10.1f %9.3f %9.3f %8" PRIu64
           "  %-20s %3s\n",
           row->bytes, row->share, perf->in_place ? "in" : "out", row->time_us, row->p99_us,
           row->submit_us, row->algbw, row->busbw, row->wrong_bytes, row->path,
           strcmp(row->path, "nccl/unproved") == 0 ? "?"
           : row->sms                              ? "yes"
                                                   : "0");
    for (uint32_t i = 0; i < row->peer_count; i++)
        printf("%23s  %-5s %10.1f %10s %10.1f %9s %9.3f %8s  %-20s %.2f x ours\n", "", "",
               row->peers[i].time_us, "", row->peers[i].submit_us, "",
               row->peers[i].time_us > 0 ? row->busbw * row->time_us / row->peers[i].time_us : 0,
               "", row->peers[i].name, row->peers[i].time_us / row->time_us);
    fflush(stdout);
}

void zc_perf_table_end(const struct zc_perf_result *result)
{
    if (result->wrong_bytes != 0)
        printf("\nresult: FAILED, %" PRIu64 " wrong bytes", result->wrong_bytes);
    else
        printf("\nresult: OK, 0 wrong bytes");
    printf(" in %" PRIu32 " %s, %" PRIu32 " %s, %s\n", result->row_count,
           result->row_count == 1 ? "size" : "sizes", result->rank_count,
           result->rank_count == 1 ? "rank" : "ranks", result->device);
    fflush(stdout);
}
