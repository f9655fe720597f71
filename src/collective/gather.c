/* Every rank's share comes into the root's output, in the order of the ranks. */
#include "collective/collective.h"

static struct zc_flow flow(const struct zc_layout *layout, uint32_t from, uint32_t to)
{
    if (to != layout->root)
        return zc_no_flow();
    return (struct zc_flow){.to_at = from * layout->bytes, .bytes = layout->bytes};
}

const struct zc_collective zc_gather = {
    .id = ZCTA_GATHER,
    .name = "gather",
    .title = "Gather",
    .traits = ZC_ROOTED,
    .nccl = "ncclGather",
    .nccl_since = 22800,
    .flow = flow,
};
