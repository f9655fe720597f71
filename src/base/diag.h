/* Diagnostics of one context: its last error and its log. Whoever decides that something is an
 * error says it here, once; callers pass the status up untouched. */
#ifndef ZC_DIAG_H
#define ZC_DIAG_H

#include <pthread.h>
#include <stdbool.h>

#include "zerocta/zerocta.h"

enum zc_log_level { ZC_LOG_OFF, ZC_LOG_ERROR, ZC_LOG_WARN, ZC_LOG_INFO, ZC_LOG_DEBUG };

struct zc_diag {
    pthread_mutex_t lock;
    zcta_error last;
    uint32_t rank; /* the caller's world rank; ZCTA_NO_RANK until it is known */
    enum zc_log_level level;
};

/* Reads ZEROCTA_LOG. An unknown level reads as the default, warn. */
void zc_diag_init(struct zc_diag *diag);
void zc_diag_destroy(struct zc_diag *diag);

/* Records an error about the caller's own rank and returns `status`. `native`: errno, driver code
 * or 0. The sentence says what, why and what to do; it needs no newline. */
zcta_status zc_fail(struct zc_diag *diag, zcta_status status, const char *call, int64_t native,
                    const char *format, ...) __attribute__((format(printf, 5, 6)));

/* The same about another rank. */
zcta_status zc_fail_rank(struct zc_diag *diag, zcta_status status, uint32_t rank, const char *call,
                         int64_t native, const char *format, ...)
    __attribute__((format(printf, 6, 7)));

/* Copies the last error out. */
void zc_diag_last(struct zc_diag *diag, zcta_error *error);

/* Makes `error` the last one again, for a status that was decided earlier (a failed team's). */
void zc_diag_repeat(struct zc_diag *diag, const zcta_error *error);

/* One line on stderr, "zerocta rank 3: ...", if `level` is switched on. */
void zc_log(struct zc_diag *diag, enum zc_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
