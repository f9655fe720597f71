/* Each rank sends to one rank and receives from one; each knows its own two flows only. */
#include "collective/collective.h"

static struct zc_flow flow(const struct zc_layout *layout, uint32_t from, uint32_t to)
{
    if (from == layout->self && to == layout->to)
        return (struct zc_flow){.bytes = layout->to_bytes};
    if (to == layout->self && from == layout->from)
        return (struct zc_flow){.bytes = layout->from_bytes};
    return zc_no_flow();
}

const struct zc_collective zc_send_recv = {
    .id = ZCTA_SEND_RECV,
    .name = "send_recv",
    .title = "SendRecv",
    .traits = ZC_PARTNERS,
    .flow = flow,
};
