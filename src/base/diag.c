/* Errors and log lines of one context. */
#include "base/diag.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/environment.h"
#include "base/number.h"

/* The calling thread's last error and the diag that it belongs to (0: none). The one thing besides
 * errno that belongs to a thread and to no object. */
static _Thread_local struct {
    uint64_t id;
    zcta_error error;
} own = {.error = {.rank = ZCTA_NO_RANK}};

/* In the order of the table of variables. */
static enum zc_log_level level_from_environment(void)
{
    const int level = zc_environment_choice("ZEROCTA_LOG");

    return level < 0 ? ZC_LOG_WARN : (enum zc_log_level)level;
}

/* A page that the kernel empties in children. */
static _Atomic uint32_t *mark_process(void)
{
    const size_t bytes = (size_t)sysconf(_SC_PAGESIZE);
    void *page = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (page == MAP_FAILED)
        return NULL;
    if (madvise(page, bytes, MADV_WIPEONFORK) != 0) {
        munmap(page, bytes);
        return NULL;
    }
    atomic_init((_Atomic uint32_t *)page, 1);
    return page;
}

void zc_diag_init(struct zc_diag *diag)
{
    memset(diag, 0, sizeof *diag);
    /* What stood at this address before was made at another time. */
    diag->id = zc_now_ns() ^ (uintptr_t)diag << 16;
    diag->id += diag->id == 0;
    pthread_mutex_init(&diag->lock, NULL);
    diag->rank = ZCTA_NO_RANK;
    diag->last.rank = ZCTA_NO_RANK;
    diag->level = level_from_environment();
    diag->here = mark_process();
}

void zc_diag_destroy(struct zc_diag *diag)
{
    if (diag->here != NULL)
        munmap(diag->here, (size_t)sysconf(_SC_PAGESIZE));
    pthread_mutex_destroy(&diag->lock);
}

__attribute__((format(printf, 6, 0))) static zcta_status record(struct zc_diag *diag,
                                                                zcta_status status, uint32_t rank,
                                                                const char *call, int64_t native,
                                                                const char *format, va_list args)
{
    zcta_error error = {.status = status, .rank = rank, .native = native};

    snprintf(error.call, sizeof error.call, "%s", call);
    zc_format_list(error.message, sizeof error.message, format, args);
    zc_diag_repeat(diag, &error);
    if (diag != NULL)
        zc_log(diag, ZC_LOG_INFO, "%s: %s (%s)", error.call, error.message,
               zcta_status_name(status));
    return status;
}

zcta_status zc_fail(struct zc_diag *diag, zcta_status status, const char *call, int64_t native,
                    const char *format, ...)
{
    va_list args;

    va_start(args, format);
    record(diag, status, diag != NULL ? diag->rank : ZCTA_NO_RANK, call, native, format, args);
    va_end(args);
    return status;
}

zcta_status zc_fail_rank(struct zc_diag *diag, zcta_status status, uint32_t rank, const char *call,
                         int64_t native, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    record(diag, status, rank, call, native, format, args);
    va_end(args);
    return status;
}

void zc_diag_last(struct zc_diag *diag, zcta_error *error)
{
    *error = own.error;
    if (diag == NULL || (own.error.status != ZCTA_OK && (own.id == diag->id || own.id == 0)))
        return;
    pthread_mutex_lock(&diag->lock);
    *error = diag->last;
    pthread_mutex_unlock(&diag->lock);
}

void zc_diag_post(struct zc_diag *diag, const zcta_error *error)
{
    pthread_mutex_lock(&diag->lock);
    diag->last = *error;
    pthread_mutex_unlock(&diag->lock);
}

void zc_diag_repeat(struct zc_diag *diag, const zcta_error *error)
{
    own.id = diag != NULL ? diag->id : 0;
    own.error = *error;
    if (diag != NULL)
        zc_diag_post(diag, error);
}

void zc_log(struct zc_diag *diag, enum zc_log_level level, const char *format, ...)
{
    char line[768], whole[sizeof line + 32];
    va_list args;

    if (level > diag->level)
        return;
    va_start(args, format);
    zc_format_list(line, sizeof line, format, args);
    va_end(args);
    if (diag->rank == ZCTA_NO_RANK)
        snprintf(whole, sizeof whole, "zerocta: %s\n", line);
    else
        snprintf(whole, sizeof whole, "zerocta rank %" PRIu32 ": %s\n", diag->rank, line);
    /* In one piece, so that lines of several ranks do not mix: fprintf() may write several. */
    fputs(whole, stderr);
}
