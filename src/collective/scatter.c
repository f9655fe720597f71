/* The root has a share for every rank, itself included. */
#include "collective/collective.h"

static struct zc_flow flow(const struct zc_layout *layout, uint32_t from, uint32_t to)
{
    if (from != layout->root)
        return zc_no_flow();
    return (struct zc_flow){.from_at = to * layout->bytes, .bytes = layout->bytes};
}

const struct zc_collective zc_scatter = {
    .id = ZCTA_SCATTER,
    .name = "scatter",
    .title = "Scatter",
    .traits = ZC_ROOTED,
    .nccl = "ncclScatter",
    .nccl_since = 22800,
    .flow = flow,
};
