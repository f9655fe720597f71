/* What the CUDA device keeps for a guard. The thread that submits and the watchers share it without
 * a lock, because a submit may block in the driver until a watcher lets a stuck stream go: what
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
    uint32_t replaying; /* not 0 while a captured program waits that had not signalled all before */
    uint32_t barrier;   /* written for its being written alone */
    /* The value that the rank has long awaited, and in its low 16 bits the slot: written by a
     * watcher. 0: none. */
    uint32_t awaits;
    uint32_t unused_also;
};

/* One wait of a program, as a watcher has to know it: the awaited value with the slot's index in
 * its low 16 bits, and the same of the last signal that the program sends before it, whose index
 * counts channels and peers as a pad's slots do. ZC_CUDA_NO_SIGNAL: there is none, and the mark
 * tells that the program has begun. */
struct zc_cuda_wait {
    _Atomic uint32_t awaited, before;
};
#define ZC_CUDA_NO_SIGNAL UINT16_MAX

enum { ZC_CUDA_RUNS = 1024 }; /* under way at once; the next submit waits for the oldest */

/* What a watcher has to know of a submitted program besides its waits.
 *
 * Who submits never overwrites a program that is under way: with the new one at most ZC_CUDA_RUNS
 * are, and their waits have room, so what was there has finished. A watcher may be reading that one
 * nevertheless, since it looked a moment earlier. Then it sees `finished` move and drops what it
 * has read: stores are releases, which come after `finished` was found to have moved, and loads are
 * acquires. */
struct zc_cuda_run {
    const char *_Atomic call;
    _Atomic uint64_t first_wait; /* of all waits that were ever noted; see zc_cuda_wait_of() */
    _Atomic uint32_t wait_count;
    _Atomic bool calls;          /* another library does its waiting */
    _Atomic uint64_t copying_ns; /* what that library may take for the bytes, whatever it waits */
};

/* What one watcher has seen of a team; nobody else touches it. */
struct zc_cuda_view {
    uint32_t *words; /* a copy of the pad, or what is written over it */
    /* The wait at which the stream stands, since when, and whether that has been said. */
    uint32_t ticket, wait;
    uint64_t since;
    uint64_t looked; /* when this look began. A look may be held up: a wait that it finds is as old
                        as its end, and one that it finds again has lasted until its begin */
    bool said;
    bool told;                           /* the others, for whom this rank waits */
    uint64_t let_go_at;                  /* once it was seen to have failed */
    uint32_t *oldest;                    /* by slot: what the oldest pending wait awaits */
    bool *pending;                       /* by slot: there is one */
    uint64_t graph_look, graph_deadline; /* when replays are looked at next; and of those */
    bool *visited; /* by rank: a signal lies with it that it has not awaited */
    bool *came;    /* by rank: it has a replay under way */
    bool *marked;  /* by rank: as its mark says */
};

struct zc_cuda_team {
    struct zc_device *device;
    struct zc_guard *guard;
    struct zc_cuda_team *next;
    /* Captured programs have lanes and events of their own, so that an eager one can be submitted
     * while a capture is under way. Lane 0 is the caller's stream: [..][0] is never used. */
    zc_cu_stream lanes[2][ZC_CUDA_LANES];
    zc_cu_event fork[2], joins[2][ZC_CUDA_LANES];
    /* The latest program that may be in a stream, as a whole or in part; the guard's `submitted`
     * follows when all of it is. */
    _Atomic uint32_t entered;
    struct zc_cuda_run *runs;       /* ticket t is in runs[t % ZC_CUDA_RUNS] */
    struct zc_cuda_wait *waits;     /* what they wait for, in their order: the oldest give way */
    uint32_t waits_room;            /* entries of waits; no program has more */
    uint64_t waits_noted;           /* so far; who submits alone looks at it */
    unsigned long long last_stream; /* the id of the last program's: ids are never used again */
    _Atomic bool has_graphs;        /* that may be replayed, and whose deadline the marks tell */
    _Atomic uint64_t replay_copying_ns; /* what the copies of one of them may take */
    _Atomic int trouble;                /* why the latest look failed; 0: it did not */
    struct zc_cuda_view views[ZC_CUDA_WATCHERS];
    /* Guarded by the device's lock. */
    uint32_t visitors; /* watchers that look after it */
    bool leaving;
};

static inline struct zc_cuda_run *zc_cuda_run_of(const struct zc_cuda_team *team, uint32_t ticket)
{
    return &team->runs[ticket % ZC_CUDA_RUNS];
}

/* The i-th wait of that program. */
static inline struct zc_cuda_wait *zc_cuda_wait_of(const struct zc_cuda_team *team, uint32_t ticket,
                                                   uint32_t i)
{
    const uint64_t first =
        atomic_load_explicit(&zc_cuda_run_of(team, ticket)->first_wait, memory_order_acquire);

    return &team->waits[(first + i) % team->waits_room];
}

static inline zc_cu_pointer zc_cuda_mark(const struct zc_cuda_team *team, size_t offset)
{
    return (uintptr_t)team->guard->pad + offset;
}

#endif
