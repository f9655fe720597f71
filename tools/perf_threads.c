/* Ranks as threads of this process. They meet through an exchange in memory; everything after that
 * is the library's, the same as between processes. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "commands.h"
#include "options.h"
#include "perf.h"

#define MEETING_SECONDS 30

/* Where all ranks place what they bring and wait for the last one. A rank that cannot come breaks
 * the meeting, so that nobody waits for it. */
struct meeting {
    pthread_mutex_t lock;
    pthread_cond_t moved;
    uint32_t rank_count;
    uint32_t arrived, leaving; /* of the round */
    uint64_t round;
    bool broken;
    char *all; /* of the round */
    size_t bytes;
};

struct rank {
    struct meeting *meeting;
    const struct zc_perf *perf;
    zc_perf_rank_fn *run;
    uint32_t rank;
    pthread_t thread;
    int status;
};

static int open_meeting(struct meeting *meeting, uint32_t rank_count)
{
    pthread_condattr_t attributes;
    int error;

    *meeting = (struct meeting){.rank_count = rank_count};
    error = pthread_mutex_init(&meeting->lock, NULL);
    if (error != 0)
        return error;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    error = pthread_cond_init(&meeting->moved, &attributes);
    pthread_condattr_destroy(&attributes);
    if (error != 0)
        pthread_mutex_destroy(&meeting->lock);
    return error;
}

static void close_meeting(struct meeting *meeting)
{
    pthread_cond_destroy(&meeting->moved);
    pthread_mutex_destroy(&meeting->lock);
    free(meeting->all);
}

static void break_meeting(struct meeting *meeting)
{
    pthread_mutex_lock(&meeting->lock);
    meeting->broken = true;
    pthread_cond_broadcast(&meeting->moved);
    pthread_mutex_unlock(&meeting->lock);
}

/* Sleeps until something moves; after the deadline the meeting is broken. */
static void wait_for_move(struct meeting *meeting, const struct timespec *deadline)
{
    if (pthread_cond_timedwait(&meeting->moved, &meeting->lock, deadline) == ETIMEDOUT) {
        meeting->broken = true;
        pthread_cond_broadcast(&meeting->moved);
    }
}

/* The caller holds the lock. */
static void arrive(struct meeting *meeting, uint32_t rank, const void *mine, size_t bytes)
{
    if (meeting->arrived == 0) {
        free(meeting->all);
        meeting->bytes = bytes;
        meeting->all = malloc(bytes * meeting->rank_count + 1);
    }
    if (meeting->all == NULL || meeting->bytes != bytes) {
        meeting->broken = true;
        pthread_cond_broadcast(&meeting->moved);
        return;
    }
    if (bytes > 0)
        memcpy(meeting->all + rank * bytes, mine, bytes);
    if (++meeting->arrived == meeting->rank_count) {
        meeting->leaving = meeting->rank_count;
        pthread_cond_broadcast(&meeting->moved);
    }
}

static int exchange(void *data, const void *mine, void *all, size_t bytes)
{
    const struct rank *self = data;
    struct meeting *meeting = self->meeting;
    struct timespec deadline;
    bool broken;

    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += MEETING_SECONDS;
    pthread_mutex_lock(&meeting->lock);
    while (meeting->leaving > 0 && !meeting->broken) /* others are still in the round before */
        wait_for_move(meeting, &deadline);
    if (!meeting->broken)
        arrive(meeting, self->rank, mine, bytes);
    while (meeting->leaving == 0 && !meeting->broken)
        wait_for_move(meeting, &deadline);
    broken = meeting->broken;
    if (!broken) {
        if (bytes > 0)
            memcpy(all, meeting->all, bytes * meeting->rank_count);
        if (--meeting->leaving == 0) {
            meeting->arrived = 0;
            pthread_cond_broadcast(&meeting->moved);
        }
    }
    pthread_mutex_unlock(&meeting->lock);
    return broken ? -1 : 0;
}

static void *rank_main(void *data)
{
    struct rank *self = data;
    const zcta_init_params params = {.size = sizeof params,
                                     .rank = self->rank,
                                     .rank_count = self->meeting->rank_count,
                                     .exchange = exchange,
                                     .exchange_data = self,
                                     .device = (zcta_device)self->perf->device};

    self->status = self->run(self->perf, &params);
    if (self->status != ZC_EXIT_OK)
        break_meeting(self->meeting);
    return NULL;
}

int zc_perf_threads(const struct zc_perf *perf, zc_perf_rank_fn *rank)
{
    const uint32_t rank_count = (uint32_t)perf->rank_count;
    struct rank *ranks = calloc(rank_count, sizeof *ranks);
    struct meeting meeting;
    int error = ENOMEM, status = ZC_EXIT_OK;
    uint32_t started = 0;

    if (ranks != NULL)
        error = open_meeting(&meeting, rank_count);
    if (error != 0) {
        free(ranks);
        return zc_failure(perf->command, "cannot prepare the ranks: %s", strerror(error));
    }
    for (; started < rank_count && error == 0; started += error == 0) {
        ranks[started] =
            (struct rank){.meeting = &meeting, .perf = perf, .run = rank, .rank = started};
        error = pthread_create(&ranks[started].thread, NULL, rank_main, &ranks[started]);
    }
    if (error != 0) {
        status = zc_failure(perf->command, "cannot start rank %u as a thread: %s", started,
                            strerror(error));
        break_meeting(&meeting);
    }
    for (uint32_t i = 0; i < started; i++) {
        pthread_join(ranks[i].thread, NULL);
        status = status == ZC_EXIT_OK ? ranks[i].status : status;
    }
    close_meeting(&meeting);
    free(ranks);
    return status;
}
