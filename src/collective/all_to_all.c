/* Every rank has a share for every rank: a transpose of blocks. */
#include "collective/collective.h"

static struct zc_flow flow(const struct zc_layout *layout, uint32_t from, uint32_t to)
{
    return (struct zc_flow){
        .from_at = to * layout->bytes, .to_at = from * layout->bytes, .bytes = layout->bytes};
}

const struct zc_collective zc_all_to_all = {
    .id = ZCTA_ALL_TO_ALL,
    .name = "all_to_all",
    .title = "AllToAll",
    .traits = 0,
    .nccl = "ncclAlltoAll",
    .nccl_since = 22800,
    .flow = flow,
};
