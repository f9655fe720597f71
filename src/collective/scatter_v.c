/* The root has a share for every rank; each has its size and its place. */
#include "collective/collective.h"

static struct zc_flow flow(const struct zc_layout *layout, uint32_t from, uint32_t to)
{
    if (from != layout->root)
        return zc_no_flow();
    return (struct zc_flow){.from_at = layout->from_at[to], .bytes = layout->bytes_of[to]};
}

const struct zc_collective zc_scatter_v = {
    .id = ZCTA_SCATTER_V,
    .name = "scatter_v",
    .title = "ScatterV",
    .traits = ZC_ROOTED | ZC_UNEVEN | ZC_FROM_PLACES,
    .flow = flow,
};
