/* Layouts of every collective, for tests. */
#include "support_layouts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static uint64_t share_of(enum shape shape, uint64_t bytes, size_t index, size_t count)
{
    switch (shape) {
    case SHAPE_EVEN:
        return bytes;
    case SHAPE_SKEWED:
        return (bytes << (index % 5)) / 4;
    case SHAPE_ONE_HOT:
        return index == count / 2 ? bytes * 3 : 0;
    case SHAPE_RANDOM:
        return (index * 2654435761u >> 7) % 3 == 0 ? 0 : 1 + (index * 40503u) % (2 * bytes);
    case SHAPES:
        break;
    }
    return 0;
}

/* Places for one buffer's shares: one behind the other, or from the last to the first with gaps. */
static void place_shares(const uint64_t *bytes, size_t count, size_t stride, bool scattered,
                         uint64_t *at)
{
    uint64_t end = scattered ? 5 : 0;

    for (size_t i = 0; i < count; i++) {
        const size_t next = (scattered ? count - 1 - i : i) * stride;

        at[next] = end;
        end += bytes[next] + (scattered ? 3 : 0);
    }
}

static void fill_arrays(struct team_layouts *team, const struct zc_collective *collective,
                        uint32_t ranks, uint64_t bytes, enum shape shape)
{
    const size_t entries = zc_layout_entries(collective, ranks);
    const bool pairs = (collective->traits & ZC_BY_PAIRS) != 0, scattered = shape == SHAPE_RANDOM;
    uint64_t *sizes = team->arrays, *from = sizes + entries, *to = from + entries;

    for (size_t i = 0; i < entries; i++)
        sizes[i] = share_of(shape, bytes, i, entries);
    if (!pairs) {
        place_shares(sizes, ranks, 1, scattered, from);
        place_shares(sizes, ranks, 1, scattered, to);
        return;
    }
    for (size_t i = 0; i < ranks; i++) {
        place_shares(sizes + i * ranks, ranks, 1, scattered, from + i * ranks);
        place_shares(sizes + i, ranks, ranks, scattered, to + i);
    }
}

/* A ring in steps of `distance`; in every third one a rank that sends to nobody. */
static void choose_partners(struct zc_layout *layout, uint64_t bytes, uint32_t distance)
{
    const uint32_t ranks = layout->ranks, silent = distance % 3 == 2 ? 0 : ZCTA_NO_RANK;

    layout->to = (layout->self + distance) % ranks;
    layout->from = (layout->self + ranks - distance % ranks) % ranks;
    layout->to_bytes = bytes + layout->self;
    layout->from_bytes = bytes + layout->from;
    if (layout->self == silent) {
        layout->to = ZCTA_NO_RANK;
        layout->to_bytes = 0;
    }
    if (layout->from == silent) {
        layout->from = ZCTA_NO_RANK;
        layout->from_bytes = 0;
    }
}

void make_layouts(struct team_layouts *team, const struct zc_collective *collective, uint32_t ranks,
                  uint64_t bytes, enum shape shape, uint32_t number)
{
    const size_t entries = zc_layout_entries(collective, ranks);

    assert_true(ranks <= LAYOUT_RANKS_MOST);
    memset(team, 0, sizeof *team);
    if (entries > 0)
        fill_arrays(team, collective, ranks, bytes, shape);
    for (uint32_t rank = 0; rank < ranks; rank++) {
        struct zc_layout *layout = &team->of[rank];

        *layout = (struct zc_layout){.collective = collective,
                                     .ranks = ranks,
                                     .self = rank,
                                     .to = ZCTA_NO_RANK,
                                     .from = ZCTA_NO_RANK};
        if ((collective->traits & ZC_ROOTED) != 0)
            layout->root = number % ranks;
        if ((collective->traits & ZC_PARTNERS) != 0)
            choose_partners(layout, bytes, number);
        else if (entries == 0)
            layout->bytes = bytes;
        if (entries > 0) {
            layout->bytes_of = team->arrays;
            layout->from_at = team->arrays + entries;
            layout->to_at = team->arrays + 2 * entries;
        }
        assert_null(zc_layout_derive(layout));
    }
}

bool can_be_in_place(const struct zc_layout *layout, uint32_t rank)
{
    const struct zc_flow own = zc_flow_between(layout, rank, rank);
    const uintptr_t middle = (uintptr_t)1 << 40;

    return zc_layout_placing(layout, rank, middle + own.to_at - own.from_at, middle) == ZC_IN_PLACE;
}
