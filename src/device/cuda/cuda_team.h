/* What the CUDA device keeps for a guard. The thread that submits and the watchdog share it without
 * a lock, because a submit may block in the driver until the watchdog lets a stuck stream go: what
 * both look at is atomic. */
#ifndef ZC_CUDA_TEAM_H
#define ZC_CUDA_TEAM_H

#include "device/cuda/cuda_device.h"

/* The head of a rank's own pad. The streams write it in their order, each word with all that the
 * program did before it, so that a submit need not ask the driver how far a stream has got. In GPU
 * memory, because a stream write to host memory takes 1.5 us longer. */
struct zc_cuda_marks {
    uint32_t begun; /* the ticket of the latest program that began with a wait or has exchanged */
    uint32_t unused[3];
    uint32_t finished; /* the ticket of the program that ended last */
    uint32_t unused_too[3];
};

enum { ZC_CUDA_RUNS = 1024 }; /* under way at once; the next submit waits for the oldest */

/* What the watchdog has to know of a submitted program. It sees that it has begun when its first
 * signal has arrived, or, where a wait comes first, when `begun` has been marked.
 *
 * Who submits never overwrites a program that is under way: with the new one at most ZC_CUDA_RUNS
 * are, so the slot's last program has finished. The watchdog may be reading that one nevertheless,
 * since it looked a moment earlier. Then it sees `finished` move and drops what it has read: stores
 * are releases, which come after `finished` was found to have moved, and loads are acquires. */
struct zc_cuda_run {
    _Atomic zc_cu_pointer word; /* in a peer's pad; 0: look at the mark */
    _Atomic uint32_t value;
    _Atomic uint32_t wait_count;
    _Atomic bool calls; /* another library does its waiting */
};

struct zc_cuda_team {
    struct zc_device *device;
    struct zc_guard *guard;
    struct zc_cuda_team *next;
    zc_cu_stream lanes[ZC_CUDA_LANES]; /* [0] is never used: lane 0 is the caller's stream */
    zc_cu_event fork, joins[ZC_CUDA_LANES];
    struct zc_cuda_run *runs; /* ticket t is in runs[t % ZC_CUDA_RUNS] */
    /* What ticket t waits for, in order: slot_count entries from waits[t % ZC_CUDA_RUNS *
     * slot_count] on, each the awaited value with the slot's index in its low 16 bits. */
    _Atomic uint32_t *waits;
    unsigned long long last_stream; /* the id of the last program's: ids are never used again */
    _Atomic bool has_graphs;        /* that may be replayed, and whose deadline the words tell */
    /* The watchdog's own. */
    uint32_t watched;                    /* the ticket whose begin has been seen */
    uint64_t deadline;                   /* of that ticket */
    uint32_t *words;                     /* room for a copy of the pad */
    uint64_t graph_look, graph_deadline; /* when replays are looked at next; and of those */
    bool *awaited;                       /* by rank: this rank's first signal lies in its pad */
    bool *came;                          /* by rank: a first signal of it lies in some pad */
};

static inline zc_cu_pointer zc_cuda_mark(const struct zc_cuda_team *team, size_t offset)
{
    return (uintptr_t)team->guard->pad + offset;
}

/* Asks how far the GPU has got, and tells the guard. The context is current. */
zcta_status zc_cuda_look(struct zc_cuda_team *team, struct zc_cuda_marks *marks);

#endif
