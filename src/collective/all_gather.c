/* Every rank's share comes into every rank's output, in the order of the ranks. */
#include "collective/collective.h"

static struct zc_flow flow(const struct zc_layout *layout, uint32_t from, uint32_t to)
{
    (void)to;
    return (struct zc_flow){.to_at = from * layout->bytes, .bytes = layout->bytes};
}

const struct zc_collective zc_all_gather = {
    .id = ZCTA_ALL_GATHER,
    .name = "all_gather",
    .title = "AllGather",
    .traits = ZC_REPLICATES | ZC_SAME_FOR_ALL,
    .nccl = "ncclAllGather",
    .nccl_copies = true,
    .flow = flow,
};
