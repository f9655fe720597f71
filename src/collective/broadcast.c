/* The root's share comes into every rank's output, its own included. */
#include "collective/collective.h"

static struct zc_flow flow(const struct zc_layout *layout, uint32_t from, uint32_t to)
{
    (void)to;
    return (struct zc_flow){.bytes = from == layout->root ? layout->bytes : 0};
}

const struct zc_collective zc_broadcast = {
    .id = ZCTA_BROADCAST,
    .name = "broadcast",
    .title = "Broadcast",
    .traits = ZC_ROOTED | ZC_SAME_FOR_ALL,
    .nccl = "ncclBroadcast",
    .flow = flow,
};
