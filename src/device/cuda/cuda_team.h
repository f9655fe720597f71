/* What the CUDA device keeps for a guard. The thread that submits and the watchdog share it without
 * a lock, because a submit may block in the driver until the watchdog lets a stuck stream go: what
 * both look at is atomic. */
#ifndef ZC_CUDA_TEAM_H
#define ZC_CUDA_TEAM_H

#include "device/cuda/cuda_device.h"

/* Words in pinned host memory. The GPU writes them in the order of the streams, with all that the
 * program wrote before, so that nobody has to ask the driver how far a stream has got. */
struct zc_cuda_marks {
    _Atomic uint32_t begun;    /* the ticket of the program that came to its first wait last */
    _Atomic uint32_t finished; /* the ticket of the program that ended last */
};

enum { ZC_CUDA_RUNS = 1024 }; /* under way at once; the next submit waits for the oldest */

struct zc_cuda_team {
    struct zc_device *device;
    struct zc_guard *guard;
    struct zc_cuda_team *next;
    zc_cu_stream lanes[ZC_CUDA_LANES]; /* [0] is never used: lane 0 is the caller's stream */
    zc_cu_event fork, joins[ZC_CUDA_LANES];
    struct zc_cuda_marks *marks;
    unsigned long long last_stream; /* the id of the last program's: ids are never used again */
    /* The watchdog's own. */
    uint32_t watched;  /* the ticket whose begin has been seen */
    uint64_t deadline; /* of that ticket */
    uint32_t *words;   /* room for a copy of the pad */
};

/* Takes over how far the GPU has got, and returns it. */
uint32_t zc_cuda_look(struct zc_cuda_team *team);

#endif
