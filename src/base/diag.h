/* Diagnostics of one context: its errors and its log. Whoever decides that something is an error
 * says it here, once; callers pass the status up untouched.
 *
 * An error is kept twice: as the context's most recent one, whichever thread met it, and as the
 * calling thread's own, as errno is. Whoever builds on what a call has just said reads the latter:
 * by then another thread may have met an error of its own in the same context.
 *
 * How much is logged is told by the environment, and what is wrong there is told here: these two
 * files need each other. */
#ifndef ZC_DIAG_H
#define ZC_DIAG_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "zerocta/zerocta.h"

enum zc_log_level { ZC_LOG_OFF, ZC_LOG_ERROR, ZC_LOG_WARN, ZC_LOG_INFO, ZC_LOG_DEBUG };

struct zc_diag {
    uint64_t id; /* no two diags of a process have the same, also one after the other; never 0 */
    pthread_mutex_t lock;
    zcta_error last; /* of any thread; guarded by the lock */
    uint32_t rank;   /* the caller's world rank; ZCTA_NO_RANK until it is known */
    enum zc_log_level level;
    _Atomic uint32_t *here; /* 1, and 0 in a child that fork() has made of this process; NULL where
                               the kernel cannot tell (before 4.14) */
};

/* Whether this is the process in which the context lives, and not a child of it. Costs one load. */
static inline bool zc_diag_is_here(const struct zc_diag *diag)
{
    return diag->here == NULL || atomic_load_explicit(diag->here, memory_order_relaxed) != 0;
}

/* Reads ZEROCTA_LOG. An unknown level reads as the default, warn. */
void zc_diag_init(struct zc_diag *diag);
void zc_diag_destroy(struct zc_diag *diag);

/* Records an error about the caller's own rank and returns `status`. `native`: errno, driver code
 * or 0. The sentence says what, why and what to do; it needs no newline. `diag` is NULL where no
 * context is known, as with a NULL handle: then only the thread has it, and nothing is logged. */
zcta_status zc_fail(struct zc_diag *diag, zcta_status status, const char *call, int64_t native,
                    const char *format, ...) __attribute__((format(printf, 5, 6)));

/* The same about another rank. */
zcta_status zc_fail_rank(struct zc_diag *diag, zcta_status status, uint32_t rank, const char *call,
                         int64_t native, const char *format, ...)
    __attribute__((format(printf, 6, 7)));

/* The calling thread's last error, if it belongs to this context or to none; else the context's
 * most recent one; status OK if there is none. With a NULL diag the calling thread's, whatever it
 * was. */
void zc_diag_last(struct zc_diag *diag, zcta_error *error);

/* Makes `error` the last one again, for a status that was decided earlier (a failed team's). A
 * status of OK takes the last one away. */
void zc_diag_repeat(struct zc_diag *diag, const zcta_error *error);

/* Makes `error` the context's most recent one, not the calling thread's: news from a thread of the
 * library's own. */
void zc_diag_post(struct zc_diag *diag, const zcta_error *error);

/* One line on stderr, "zerocta rank 3: ...", if `level` is switched on. */
void zc_log(struct zc_diag *diag, enum zc_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
