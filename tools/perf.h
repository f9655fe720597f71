/* Inside `zerocta perf`: what its files share.
 *
 * perf.c reads the command line and decides who the ranks are; perf_threads.c makes them threads.
 * perf_rank.c is one rank's way through all sizes, perf_measure.c one size of it, whose bytes
 * contents.c makes and checks; perf_variants.c are those that are measured. perf_table.c and
 * perf_json.c are rank 0's report. */
#ifndef ZC_PERF_H
#define ZC_PERF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "collective.h"
#include "contents.h"
#include "gpu.h"
#include "peer_mpi.h"
#include "peer_nccl.h"
#include "results.h"
#include "zerocta/zerocta.h"

enum zc_variant {
    ZC_VARIANT_OURS,
    ZC_VARIANT_RELEASED, /* ours, prepared, with early ready */
    ZC_VARIANT_PUSH,     /* pushes without a signal */
    ZC_VARIANT_NCCL,     /* and its other ways, as in enum zc_peer_nccl_way */
    ZC_VARIANT_NCCL_WINDOWS,
    ZC_VARIANT_NCCL_ZERO,
    ZC_VARIANTS
};

/* ---- What was asked for: perf.c ---- */

enum zc_peer { ZC_PEER_NONE, ZC_PEER_PUSH, ZC_PEER_NCCL, ZC_PEER_MPI };

struct zc_perf {
    const char *command;           /* for messages: "perf" */
    uint64_t rank_count;           /* 0: not given */
    struct zc_shape shape;         /* of the call */
    struct zc_shape_options given; /* what `shape` is read from */
    uint64_t bytes_min, bytes_max;
    uint64_t factor;                 /* from one size to the next */
    uint64_t policy, engine, device; /* indexes into the choices */
    uint64_t peer;                   /* an enum zc_peer */
    uint64_t iterations;             /* timings a size; 0: chosen by time */
    bool in_place, threads, graph;
    struct zc_results json;
    int argc; /* the command line, for the record */
    char **argv;
};

/* The next size after `bytes`, or 0 when there is none; the first one after 0. Not rounded. */
uint64_t zc_perf_next_size(const struct zc_perf *perf, uint64_t bytes);

/* ---- Results ---- */

struct zc_perf_row {
    uint64_t bytes, share;   /* the size, and the largest share */
    uint32_t samples, batch; /* timings, and calls in each */
    /* Of one call, slowest rank of each timing: the median, the 99th percentile, the fastest. */
    double time_us, p99_us, min_us;
    double submit_us;     /* the part of the median spent inside the call */
    double algbw, busbw;  /* GB/s */
    uint64_t wrong_bytes; /* all ranks' together */
    char path[32];        /* "ce/direct-push" */
    bool sms;
    /* The peer's, on the same buffers in the same run: medians of its slowest rank. */
    uint32_t peer_count;
    struct {
        const char *name;
        double time_us, submit_us;
    } peers[ZC_VARIANTS + ZC_PEER_MPIS];
};

/* How many sizes there can be: from 1 byte to ZC_OUTPUT_BYTES_MAX, doubled each time. */
#define ZC_PERF_SIZES 61u

struct zc_perf_result {
    uint32_t rank_count;
    const char *device;
    const char *ranks_are; /* "processes" or "threads" */
    struct zc_perf_row rows[ZC_PERF_SIZES];
    uint32_t row_count;
    uint64_t wrong_bytes;
};

void zc_perf_table_begin(const struct zc_perf *perf, const struct zc_perf_result *result);
void zc_perf_table_row(const struct zc_perf *perf, const struct zc_perf_row *row);
void zc_perf_table_end(const struct zc_perf_result *result);

/* False after it said on stderr why the results could not be written. */
bool zc_perf_json_write(const struct zc_perf *perf, const struct zc_perf_result *result);

/* ---- Ranks: perf_rank.c, perf_measure.c, perf_threads.c ---- */

#define ZC_PERF_CALIBRATIONS 3u /* timings that decide how many there will be */

/* One rank's hold on the job. */
struct zc_bench {
    const struct zc_perf *perf;
    zcta_context *context;
    zcta_team *world;
    uint32_t rank, rank_count;
    struct zc_arena arena; /* for all sizes */
    struct zc_mover mover; /* the GPU's */
    uint32_t samples_max;
    struct zc_gpu *gpu;                    /* NULL on the host */
    struct zc_peer_nccl *nccl;             /* NULL: no peer */
    struct zc_peer_mpi *mpi[ZC_PEER_MPIS]; /* rank 0's; NULL: not this one */
    enum zc_variant variants[ZC_VARIANTS]; /* in turns; the first is ours */
    uint32_t variant_count;
    uint64_t *times_ns, *submits_ns; /* this rank's, samples_max of each variant */
    uint64_t *told;                  /* what all ranks told last: room for a round */
    uint64_t serial;                 /* of the next call: its contents are its own */
};

/* Joins the job and opens the GPU. Collective. Returns an exit status; closing is fine after a
 * failure, and passes its status on. */
int zc_bench_open(struct zc_bench *bench, const zcta_init_params *params);
int zc_bench_close(struct zc_bench *bench, int status);
/* Makes the memory for perf->shape in its place, instead of what was there. Collective. Returns an
 * exit status. */
int zc_bench_place(struct zc_bench *bench);
/* Opens the peer, on that memory. Collective. Returns an exit status. */
int zc_bench_open_peer(struct zc_bench *bench);

/* Joins the job as `params` says, measures all sizes, leaves. Returns the exit status. */
int zc_perf_rank(const struct zc_perf *perf, const zcta_init_params *params);

/* Says on stderr what the context's last error was; returns ZC_EXIT_FAILED. */
int zc_perf_complain(const struct zc_bench *bench, const char *what);

/* Everybody tells `count` numbers, and each becomes the largest of all ranks', or their sum. Goes
 * over the sockets between the ranks, not through what is measured. Collective. */
enum zc_perf_combine { ZC_PERF_LARGEST, ZC_PERF_SUM };
bool zc_perf_agree(struct zc_bench *bench, enum zc_perf_combine combine, uint64_t *numbers,
                   uint32_t count);

/* Measures one size and checks its bytes. Returns an exit status, having said why if it is not 0;
 * wrong bytes are no failure here. All but the path of *row is the same on all ranks. */
int zc_perf_measure(struct zc_bench *bench, uint64_t bytes, struct zc_perf_row *row);

/* ---- Variants: perf_variants.c ---- */

/* What they do. */
struct zc_target {
    struct zc_bench *bench;
    struct zc_sized sized;
    struct zc_contents contents;
    zcta_call call;                       /* ours */
    zcta_plan *plan;                      /* of the released one */
    zc_cu_graph_exec graphs[ZC_VARIANTS]; /* of one call each, under --graph */
};

extern const char *const zc_variant_names[ZC_VARIANTS];

/* The call of perf->shape with that size, in the bench's memory. Collective. False after it was
 * said why not; closing is fine then. */
bool zc_target_open(struct zc_bench *bench, uint64_t bytes, struct zc_target *target);
void zc_target_close(struct zc_target *target);

zcta_stream zc_perf_stream(const struct zc_bench *bench);

/* Who takes part, by what was asked for. */
void zc_variants_choose(struct zc_bench *bench);
/* Prepares plans and graphs, which close with the target. Collective. */
bool zc_variants_open(struct zc_target *target);
bool zc_variant_call(const struct zc_target *target, enum zc_variant variant);
/* After its calls: until what the others sent has arrived. Collective. */
bool zc_variant_await(const struct zc_target *target, enum zc_variant variant);

/* What a rank of a command does from joining to leaving. Returns its exit status. */
typedef int zc_perf_rank_fn(const struct zc_perf *perf, const zcta_init_params *params);

/* Runs perf->rank_count ranks as threads of this process. Returns the exit status. */
int zc_perf_threads(const struct zc_perf *perf, zc_perf_rank_fn *rank);

#endif
