/* A collective on the command line: which one, with which root and which shares, and the call that
 * a rank makes for a size: its descriptor, its flows, and the memory that it needs. The size of a
 * call is the largest output or the largest input of any rank, whichever is larger.
 *
 * Knows the public header alone, so that it serves every collective there is. Runs none. */
#ifndef ZC_TOOL_COLLECTIVE_H
#define ZC_TOOL_COLLECTIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "zerocta/zerocta.h"

/* The largest size that the commands take, so that rounding up never overflows. */
#define ZC_OUTPUT_BYTES_MAX ((uint64_t)1 << 60)

/* "all_gather all_gather_v ... barrier", for help and messages. */
#define ZC_COLLECTIVE_WORD(name, value, symbol) " " #symbol
#define ZC_COLLECTIVE_WORDS                     ZCTA_COLLECTIVE_LIST(ZC_COLLECTIVE_WORD)

/* ---- Which collective ---- */

enum zc_counts { ZC_COUNTS_EVEN, ZC_COUNTS_SKEWED, ZC_COUNTS_ONE_HOT, ZC_COUNTS_RANDOM };

/* A call but for its size and its buffers. */
struct zc_shape {
    zcta_collective_info info;
    uint32_t root;
    enum zc_counts counts; /* how the shares of an uneven one differ */
    uint64_t seed;         /* of random ones */
};

/* What the command line says beside the collective's name. */
#define ZC_NOT_GIVEN UINT64_MAX
struct zc_shape_options {
    uint64_t root;      /* ZC_NOT_GIVEN: 0, where the collective has a root */
    const char *counts; /* NULL: even */
};

/* All collectives, in their order. */
#define ZC_COLLECTIVE_AT(name, value, symbol) ZC_AT_##name,
enum { ZCTA_COLLECTIVE_LIST(ZC_COLLECTIVE_AT) ZC_COLLECTIVE_COUNT };
#undef ZC_COLLECTIVE_AT
extern const zcta_collective zc_all_collectives[ZC_COLLECTIVE_COUNT];

/* The collectives of these names, or every one if the only name is "all", each as it is without
 * options. Room for ZC_COLLECTIVE_COUNT; `count` is no more. Returns how many; 0 after it was said
 * what is wrong, for ZC_EXIT_USAGE. */
uint32_t zc_shapes_read(const char *command, char *const *names, int count,
                        struct zc_shape *shapes);

/* The collective of that name with what the options say. False after it was said what is wrong, for
 * ZC_EXIT_USAGE. */
bool zc_shape_read(const char *command, const char *name, const struct zc_shape_options *given,
                   struct zc_shape *shape);
/* The root against the number of ranks. */
bool zc_shape_fits(const char *command, const struct zc_shape *shape, uint64_t rank_count);
/* The same collective as it is without options. */
struct zc_shape zc_shape_of(zcta_collective collective);

static inline bool zc_shape_has(const struct zc_shape *shape, uint32_t trait)
{
    return (shape->info.traits & trait) != 0;
}

/* "random:7", "even" */
#define ZC_COUNTS_TEXT_BYTES 32
const char *zc_counts_text(const struct zc_shape *shape, char text[ZC_COUNTS_TEXT_BYTES]);

/* NULL if some rank can make the call in place, else why none can. */
const char *zc_in_place_defect(const struct zc_shape *shape);
/* The same as an answer to --in-place. */
bool zc_check_in_place(const char *command, const struct zc_shape *shape);

/* ---- A rank's call ---- */

struct zc_sized {
    zcta_call call; /* without buffers */
    uint32_t ranks, rank;
    size_t *counts; /* the call's arrays */
    /* The same on all ranks. */
    uint64_t bytes; /* the call's size */
    uint64_t share; /* the largest flow */
    uint64_t moved; /* the most that a rank sends to others, or receives from them */
    uint64_t front; /* where `recv` begins in the memory that it needs */
    uint64_t room;  /* that memory, with some behind the output where nobody writes */
    uint64_t apart; /* what `send` needs where it does not lie in that memory; 0: nothing */
    /* This rank's own. */
    zcta_flow *out, *in; /* to and from each rank */
    uint64_t send_bytes; /* how far its input reaches */
    bool in_place;       /* its own share lies where it belongs, */
    bool as_in_place;    /* or would, were it not that the rank gives nothing */
};

/* The descriptor of rank `rank`'s call. Its size is not below `bytes`, and as near as whole shares
 * allow. Local; the call needs nothing else. False: out of memory. */
bool zc_sized_call(const struct zc_shape *shape, uint64_t bytes, uint32_t ranks, uint32_t rank,
                   struct zc_sized *sized);
/* The same with everything else, in place where the flows allow it if that is wanted. Collective:
 * the ranks tell each other numbers by `exchange`, whose result is returned where it is not OK.
 * Errors: also ERR_NO_MEMORY, ERR_INVALID (there is no such call). */
typedef zcta_status zc_exchange_fn(void *data, const void *mine, void *all, size_t bytes);
zcta_status zc_sized_meet(zc_exchange_fn *exchange, void *data, const struct zc_shape *shape,
                          uint64_t bytes, uint32_t ranks, uint32_t rank, bool in_place,
                          struct zc_sized *sized);
/* The same for this rank of a team. */
zcta_status zc_sized_make(zcta_team *team, const struct zc_shape *shape, uint64_t bytes,
                          bool in_place, struct zc_sized *sized);
void zc_sized_free(struct zc_sized *sized);

/* Where this rank's input begins in the memory of `recv`, if it is, or would be, in place. */
uint64_t zc_sized_input_at(const struct zc_sized *sized);

/* ---- Text ---- */

/* "all_gather: 8 ranks x 131072 bytes (1M in all), out of place" */
#define ZC_CALL_TEXT_BYTES 128
const char *zc_call_text(const struct zc_shape *shape, uint32_t rank_count, uint64_t share,
                         uint64_t bytes, bool in_place, char text[ZC_CALL_TEXT_BYTES]);

/* Says on stderr that a size was rounded up, if it was. */
bool zc_note_rounding(const char *command, uint64_t asked, uint64_t taken);

#endif
