/* The memory of a rank's call, and what must be in it: inputs are filled with a pattern that
 * differs by rank, place and serial number of the call; what arrives is compared with the sender's,
 * and what nobody may write with what it was before. On a GPU bytes are made and compared in the
 * CPU's memory, and moved. Knows the public header alone. Runs no collective. */
#ifndef ZC_CONTENTS_H
#define ZC_CONTENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "collective.h"

/* Moves bytes between a GPU's memory and the CPU's. False after it was said why it cannot. */
struct zc_mover {
    bool (*put)(void *data, void *device, const void *host, size_t bytes);
    bool (*get)(void *data, void *host, const void *device, size_t bytes);
    void *data;
};

/* The memory for calls: the same for all sizes. */
struct zc_arena {
    char *recv, *send; /* `send`: of inputs that are not in place; NULL: there are none */
    const struct zc_mover *mover; /* NULL: the CPU reaches it itself */
    char *stage;                  /* else both in the CPU's memory */
    zcta_window *windows[2];      /* what it is made of; NULL: the caller's own memory */
};

/* Windows with room for this call and for every smaller one of its shape. Collective; `mover` may
 * be NULL. The library's errors. */
zcta_status zc_arena_open(zcta_team *team, const struct zc_sized *sized,
                          const struct zc_mover *mover, struct zc_arena *arena);
/* Frees them. Collective. */
void zc_arena_close(struct zc_arena *arena);

/* A part of the memory and whose bytes it holds when the call is over. */
struct zc_piece;

struct zc_contents {
    const struct zc_sized *sized;
    const struct zc_arena *arena;
    struct zc_piece *pieces; /* of recv's memory, in their order */
    uint32_t piece_count;
    zcta_call call; /* with its buffers */
};

/* Where the call is in the memory. `sized` and `arena` must stay. False: out of memory. */
bool zc_contents_open(const struct zc_sized *sized, const struct zc_arena *arena,
                      struct zc_contents *contents);
void zc_contents_close(struct zc_contents *contents);

/* The others return false after it was said why bytes could not be moved. Serial numbers are the
 * same on all ranks; what is counted is added to *wrong.
 *
 * Before a call: fills the input; every byte that is to be written is wrong, and what nobody may
 * write is known. After it: looks at all of that, and at the input. */
bool zc_contents_prepare(const struct zc_contents *contents, uint64_t serial);
bool zc_contents_check(const struct zc_contents *contents, uint64_t serial, uint64_t *wrong);

/* The same at the start, in the middle and at the end of each share alone. */
bool zc_contents_stamp(const struct zc_contents *contents, uint64_t serial);
bool zc_contents_check_stamps(const struct zc_contents *contents, uint64_t serial, uint64_t *wrong);

#endif
