/* Ranks for tests, as threads of this process or as processes. */
#ifndef SUPPORT_RANKS_H
#define SUPPORT_RANKS_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "zerocta/zerocta.h"

/* What a rank does; it runs between zcta_init() and zcta_finalize(), which the support makes. */
typedef void rank_fn(zcta_context *context, void *data);

struct ranks_options {
    uint64_t timeout_ns; /* 0: 20 s */
    uint32_t check;
    bool may_fail_to_finalize; /* some rank will not be there at the end */
};

/* Runs `function` on `count` ranks and expects all of them to end well. */
void run_as_threads(uint32_t count, rank_fn *function, void *data);
void run_as_processes(uint32_t count, rank_fn *function, void *data);
void run_as_threads_with(uint32_t count, const struct ranks_options *options, rank_fn *function,
                         void *data);
void run_as_processes_with(uint32_t count, const struct ranks_options *options, rank_fn *function,
                           void *data);

/* Inside a rank: like an assert that also works in threads and children. */
#define EXPECT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: expected %s\n", __FILE__, __LINE__, #condition);               \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* Expects a status and, if `text` is not NULL, a part of the last error's sentence. */
void expect_error(zcta_context *context, zcta_status got, zcta_status wanted, const char *text);
#define EXPECT_OK(context, call) expect_error(context, call, ZCTA_OK, NULL)

/* The model: byte `i` of rank `rank`'s share in call `call`. */
static inline unsigned char model_byte(uint32_t call, uint32_t rank, size_t i)
{
    return (unsigned char)(1 + call * 101 + rank * 31 + i * 7 + (i >> 8) * 3);
}

void model_fill(unsigned char *share, uint32_t call, uint32_t rank, size_t bytes);
/* Number of wrong bytes in a gathered output. */
size_t model_wrong(const unsigned char *output, uint32_t call, uint32_t count, size_t bytes);

#endif
