/* Every rank's share comes into the root's output; each has its size and place. */
#include "collective/collective.h"

static struct zc_flow flow(const struct zc_layout *layout, uint32_t from, uint32_t to)
{
    if (to != layout->root)
        return zc_no_flow();
    return (struct zc_flow){.to_at = layout->to_at[from], .bytes = layout->bytes_of[from]};
}

const struct zc_collective zc_gather_v = {
    .id = ZCTA_GATHER_V,
    .name = "gather_v",
    .title = "GatherV",
    .traits = ZC_ROOTED | ZC_UNEVEN | ZC_TO_PLACES,
    .flow = flow,
};
