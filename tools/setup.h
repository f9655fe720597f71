/* What the two ways of `zerocta setup` share: rounds in one job, and jobs that grow. */
#ifndef ZC_SETUP_H
#define ZC_SETUP_H

#include <stdint.h>

#include "zerocta/zerocta.h"

struct zc_setup_grow {
    const char *command;
    uint32_t rank_count; /* the largest job */
    uint64_t bytes;      /* of the window, on every rank */
    zcta_device device;
};

/* Starts jobs of 2, 4, 8 and so on ranks, up to the largest, with this very command line; each
 * prints a row. Returns the exit status: that of the first job that failed. */
int zc_setup_grow(const struct zc_setup_grow *grow, int argc, char **argv);

/* One rank of such a job. */
int zc_setup_grow_rank(const struct zc_setup_grow *grow);

#endif
