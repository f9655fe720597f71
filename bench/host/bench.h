/* Inside the host benchmark: what its files share.
 *
 * host_bench.c reads the command line, checks bytes and takes times; contestants.c is what is
 * measured; open_mpi.c asks Open MPI how it is set; report.c is rank 0's table and JSON. */
#ifndef ZC_HOST_BENCH_H
#define ZC_HOST_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "zerocta/zerocta.h"

/* ---- One rank's hold on the job ---- */

struct bench {
    uint32_t rank, rank_count;
    zcta_context *context;
    zcta_team *world;
    zcta_window *send, *recv;  /* zerocta's and the floor's buffers */
    char *mpi_send, *mpi_recv; /* Open MPI's: malloc'ed, aligned alike, every page touched */
    size_t share;              /* of the configuration that is measured */
    bool in_place;
    uint64_t serial; /* of the next checked call: its contents are its own */
};

/* Says on stderr what failed and why, and ends all ranks. */
_Noreturn void bench_die(const struct bench *bench, const char *what, const char *why);

/* ---- What is measured: contestants.c ---- */

enum contestant_index { AT_ZEROCTA, AT_OPEN_MPI, AT_FLOOR, AT_STEP_FLOOR, CONTESTANTS };

struct contestant {
    const char *name;
    const char *key; /* in JSON */
    void (*call)(const struct bench *bench);
    char *(*own)(const struct bench *bench); /* where this rank's share is read from */
    char *(*output)(const struct bench *bench);
    bool waits;   /* its call ends after all ranks have begun theirs, and all data has come */
    bool in_step; /* a barrier, which is not timed, before each call instead of each batch */
};

extern const struct contestant contestants[CONTESTANTS];

/* Gives every contestant room for outputs of `bytes` bytes. Collective. */
void bench_open(struct bench *bench, size_t bytes);
void bench_close(struct bench *bench);

/* ---- Open MPI: open_mpi.c ---- */

struct open_mpi {
    char version[64];
    char single_copy[32]; /* how one process reads another's memory, "none" if it cannot */
    char yields[32];      /* whether a waiting process lets others run */
};

/* After MPI_Init(). What cannot be found is "unknown". */
void open_mpi_read(struct open_mpi *open_mpi);

/* ---- Results: report.c ---- */

enum { BATCHES_MAX = 99 };

struct row {
    size_t bytes; /* of one rank's whole output */
    bool in_place;
    char path[32]; /* zerocta's */
    struct result {
        uint32_t calls;                 /* in each batch */
        double batches_us[BATCHES_MAX]; /* one call's time in each */
        double median_us;
        uint64_t wrong_bytes; /* all ranks' together */
    } results[CONTESTANTS];
};

struct report; /* NULL where a rank reports nothing: every call takes it */

/* `json` may be NULL. `command` is what to tell as the command that was run. */
struct report *report_open(const struct bench *bench, const char *json, const char *command,
                           uint32_t batches);
void report_row(struct report *report, const struct row *row);
/* False if the file could not be written; it said why. */
bool report_close(struct report *report);

#endif
