/* Calls of every collective, with a model of what they move: which bytes must be where follows from
 * zcta_call_flow(). */
#ifndef SUPPORT_FAMILY_H
#define SUPPORT_FAMILY_H

#include "support_ranks.h"

enum { FAMILY_RANKS_MOST = 5, FAMILY_ROOM = 1 << 20, FAMILY_MARGIN = 64 };

enum family_shape { EVEN, SKEWED, ONE_HOT, SCATTERED, FAMILY_SHAPES };

/* One call on one rank, with its memory. */
struct family_call {
    zcta_collective_info info;
    zcta_call call;
    uint32_t ranks, rank;
    size_t send_bytes[FAMILY_RANKS_MOST * FAMILY_RANKS_MOST];
    size_t send_offsets[FAMILY_RANKS_MOST * FAMILY_RANKS_MOST];
    size_t recv_bytes[FAMILY_RANKS_MOST * FAMILY_RANKS_MOST];
    size_t recv_offsets[FAMILY_RANKS_MOST * FAMILY_RANKS_MOST];
    unsigned char *window; /* the output's, FAMILY_ROOM bytes */
    unsigned char *input;  /* the rank's own, FAMILY_ROOM bytes */
};

/* `number` is the root, or the distance between partners. */
void family_make(struct family_call *c, zcta_collective collective, size_t bytes,
                 enum family_shape shape, uint32_t number);
/* Puts each rank's own share, where it has one, in its place. False: the flows do not allow it. */
bool family_put_in_place(struct family_call *c);
zcta_flow family_flow(const struct family_call *c, uint32_t from, uint32_t to);

/* Fills what the rank gives in that round. */
void family_fill(const struct family_call *c, uint32_t round);
/* What came is what the flows say. */
void family_expect(const struct family_call *c, uint32_t round);
/* The same of the whole window: `expected` is what it held when the call began, and then what it
 * has to hold. Out of place only. */
void family_expect_window(const struct family_call *c, uint32_t round, unsigned char *expected);

/* Whether the number is that of a collective that moves data. */
bool family_moves(int id, uint32_t *traits);

/* NOLINTBEGIN(bugprone-macro-parentheses): a name that is declared has none */
#define FOR_EACH_COLLECTIVE(id, traits)                                                            \
    for (int id = 1; id < 64; id++)                                                                \
        if (family_moves(id, &(traits)))
/* NOLINTEND(bugprone-macro-parentheses) */

#endif
