/* Inside the host benchmark: what its files share.
 *
 * host_bench.c reads the command line, checks bytes and takes times; variants.c is what is
 * measured, mpi_call.c the same call by MPI, in mpi_memory.c's memory; mpi_facts.c asks the MPI how
 * it is set; report.c is rank 0's table and JSON. What a call is, and which bytes must arrive, is
 * what the command has for that: tools/collective.h and contents.h. */
#ifndef ZC_HOST_BENCH_H
#define ZC_HOST_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "contents.h"
#include "mpi_call.h"
#include "zerocta/zerocta.h"

/* ---- One rank's hold on the job ---- */

struct bench {
    uint32_t rank, rank_count;
    zcta_context *context;
    zcta_team *world;
    uint64_t serial; /* of the next checked call: its contents are its own */
    /* The collective that is measured, and its memory for all sizes: windows, which the copies use
     * as well, and MPI's. */
    struct zc_shape shape;
    bool in_place;
    struct zc_arena windows, memory;
    /* The size. */
    struct zc_sized sized;
    struct zc_contents in_windows, in_memory;
    struct mpi_call mpi;
    const char **inputs; /* each rank's, as mapped here, of those that send to this one */
};

/* Says on stderr what failed and why, and ends all ranks. */
_Noreturn void bench_die(const struct bench *bench, const char *what, const char *why);
/* The same for a call of zerocta's that failed; nothing if it did not. */
void bench_check(const struct bench *bench, zcta_status status, const char *what);

/* ---- What is measured: variants.c ---- */

enum variant_index { AT_ZEROCTA, AT_MPI, AT_FLOOR, AT_STEP_FLOOR, VARIANTS };

struct variant {
    const char *key; /* in JSON */
    void (*call)(const struct bench *bench);
    bool by_mpi;  /* on MPI's memory */
    bool waits;   /* its call ends after all data for this rank has come */
    bool in_step; /* a barrier, which is not timed, before each call instead of each batch */
};

extern const struct variant variants[VARIANTS];

/* Memory for bench->shape in its place, for sizes up to that. Collective. */
void bench_open_memory(struct bench *bench, uint64_t bytes_max);
void bench_close_memory(struct bench *bench);
/* The call of that size in it. Collective. */
void bench_open_call(struct bench *bench, uint64_t bytes);
void bench_close_call(struct bench *bench);

/* ---- The MPI: mpi_facts.c ---- */

struct mpi_facts {
    const char *name; /* "Open MPI" */
    const char *key;  /* in JSON */
    char version[64];
    char single_copy[32]; /* how one process reads another's memory, "none" if it cannot */
    char yields[32];      /* whether a waiting process lets others run */
};

/* After MPI_Init(). What cannot be found is "unknown". */
void mpi_facts_read(struct mpi_facts *facts);

/* ---- Results: report.c ---- */

enum { BATCHES_MAX = 99 };

struct row {
    uint64_t bytes; /* the call's size */
    char path[32];  /* zerocta's */
    struct result {
        uint32_t calls;                 /* in each batch */
        double batches_us[BATCHES_MAX]; /* one call's time in each */
        double median_us;
        uint64_t wrong_bytes; /* all ranks' together */
    } results[VARIANTS];
};

struct report; /* NULL where a rank reports nothing: every call takes it */

/* `json` may be NULL. `command` is what to tell as the command that was run. */
struct report *report_open(const struct bench *bench, const char *json, const char *command,
                           uint32_t batches);
/* A row of what bench->shape is now. */
void report_row(struct report *report, const struct row *row);
/* False if the file could not be written; it said why. */
bool report_close(struct report *report);

#endif
