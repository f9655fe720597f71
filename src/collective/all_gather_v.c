/* Every rank's share comes into every rank's output; each has its size and place. */
#include "collective/collective.h"

static struct zc_flow flow(const struct zc_layout *layout, uint32_t from, uint32_t to)
{
    (void)to;
    return (struct zc_flow){.to_at = layout->to_at[from], .bytes = layout->bytes_of[from]};
}

const struct zc_collective zc_all_gather_v = {
    .id = ZCTA_ALL_GATHER_V,
    .name = "all_gather_v",
    .title = "AllGatherV",
    .traits = ZC_UNEVEN | ZC_TO_PLACES | ZC_REPLICATES | ZC_SAME_FOR_ALL,
    .flow = flow,
};
