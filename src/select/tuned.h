/* What `zerocta tune` measured on this machine: which engine is faster for which call.
 *
 * A small text file in the user's cache folder, one for each model of GPU. It counts as long as the
 * driver, NCCL and zerocta are those it was measured with. */
#ifndef ZC_TUNED_H
#define ZC_TUNED_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "zerocta/zerocta.h"

enum { ZC_TUNED_ROWS_MOST = 512 };

/* One measured case: median times of a call in microseconds. */
struct zc_tuned_row {
    zcta_collective collective;
    uint32_t rank_count;
    zcta_policy policy;
    bool in_place;
    uint64_t bytes; /* one rank's share */
    double ce_us, nccl_us;
};

/* What the figures hold for. */
struct zc_tuned_key {
    char gpu[64];
    int driver_version, nccl_version;
    uint32_t zerocta_version; /* zcta_version() */
};

struct zc_tuned {
    struct zc_tuned_key key;
    uint32_t row_count;
    struct zc_tuned_row rows[ZC_TUNED_ROWS_MOST];
};

/* The file's path: ZEROCTA_TUNE_FILE, or one in XDG_CACHE_HOME or ~/.cache. False: there is no home
 * to find it in. */
bool zc_tuned_path(const char *gpu, char *path, size_t bytes);

/* What was measured for this model of GPU before the library was made; NULL if nothing was. */
const struct zc_tuned *zc_tuned_built_in(const char *gpu);

/* Reads what zc_tuned_write() writes. False: `why` says which line and what is wrong with it. */
bool zc_tuned_read(FILE *in, struct zc_tuned *tuned, char *why, size_t bytes);
bool zc_tuned_write(FILE *out, const struct zc_tuned *tuned);

/* Whether NCCL is the faster one: by the row that is nearest in size among those of the collective,
 * of as many ranks, the same policy and place. *row is that row; NULL if there is none, and then
 * false. */
bool zc_tuned_prefers_nccl(const struct zc_tuned *tuned, zcta_collective collective,
                           uint32_t rank_count, zcta_policy policy, bool in_place, uint64_t bytes,
                           const struct zc_tuned_row **row);

/* Tells tables apart. */
uint64_t zc_tuned_digest(const struct zc_tuned *tuned);

#endif
