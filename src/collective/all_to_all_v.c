/* Every rank has a share for every rank; each has its size and its places. */
#include "collective/collective.h"

static struct zc_flow flow(const struct zc_layout *layout, uint32_t from, uint32_t to)
{
    const size_t pair = (size_t)from * layout->ranks + to;

    return (struct zc_flow){.from_at = layout->from_at[pair],
                            .to_at = layout->to_at[pair],
                            .bytes = layout->bytes_of[pair]};
}

const struct zc_collective zc_all_to_all_v = {
    .id = ZCTA_ALL_TO_ALL_V,
    .name = "all_to_all_v",
    .title = "AllToAllV",
    .traits = ZC_UNEVEN | ZC_BY_PAIRS | ZC_FROM_PLACES | ZC_TO_PLACES,
    .flow = flow,
};
