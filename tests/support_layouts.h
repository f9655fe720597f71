/* Layouts of every collective, for tests: of all shapes, roots and partners. */
#ifndef SUPPORT_LAYOUTS_H
#define SUPPORT_LAYOUTS_H

#include "collective/collective.h"

enum { LAYOUT_RANKS_MOST = 17 };

enum shape {
    SHAPE_EVEN,    /* all shares of one size */
    SHAPE_SKEWED,  /* each twice as large as the one before, up to a point */
    SHAPE_ONE_HOT, /* one rank has all, the others nothing */
    SHAPE_RANDOM,  /* some empty, with gaps between them, in no order */
    SHAPES
};

/* One call's numbers on every rank, and the arrays that they point to. */
struct team_layouts {
    struct zc_layout of[LAYOUT_RANKS_MOST]; /* by rank; the same but for partners */
    uint64_t arrays[3 * LAYOUT_RANKS_MOST * LAYOUT_RANKS_MOST];
};

/* Fills in a call with shares around `bytes`, derived. Even collectives have one shape only.
 * `number` is a root, or the distance between partners, where there is such a thing. */
void make_layouts(struct team_layouts *team, const struct zc_collective *collective, uint32_t ranks,
                  uint64_t bytes, enum shape shape, uint32_t number);

/* Whether a rank can make the call in place, if the others agree. */
bool can_be_in_place(const struct zc_layout *layout, uint32_t rank);

#endif
