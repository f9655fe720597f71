/* What the CUDA device keeps for a guard. The thread that submits and the watchdog share it without
 * a lock, because a submit may block in the driver until the watchdog lets a stuck stream go: the
 * counters are atomic, the events' own state is the driver's. */
#ifndef ZC_CUDA_TEAM_H
#define ZC_CUDA_TEAM_H

#include "device/cuda/cuda_device.h"

/* A submitted program's beginning and end in its stream. */
struct zc_cuda_run {
    zc_cu_event begin, end;
    bool used;
};

enum { ZC_CUDA_RUNS = 64 }; /* under way at once; the next submit waits for the oldest */

struct zc_cuda_team {
    struct zc_device *device;
    struct zc_guard *guard;
    struct zc_cuda_team *next;
    zc_cu_stream lanes[ZC_CUDA_LANES]; /* [0] is never used: lane 0 is the caller's stream */
    zc_cu_event fork, joins[ZC_CUDA_LANES];
    struct zc_cuda_run runs[ZC_CUDA_RUNS]; /* ticket t is in runs[t % ZC_CUDA_RUNS] */
    zc_cu_stream last_stream;
    /* The watchdog's own. */
    uint32_t watched;  /* the ticket whose begin has been seen */
    uint64_t deadline; /* of that ticket */
    uint32_t *words;   /* room for a copy of the pad */
};

/* The guard's programs up to `ticket` have finished; whoever sees it says so. */
static inline void zc_cuda_finished(struct zc_guard *guard, uint32_t ticket)
{
    uint32_t finished = atomic_load_explicit(&guard->finished, memory_order_relaxed);

    while ((int32_t)(ticket - finished) > 0 &&
           !atomic_compare_exchange_weak_explicit(&guard->finished, &finished, ticket,
                                                  memory_order_release, memory_order_relaxed))
        continue;
}

#endif
