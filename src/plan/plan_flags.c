/* Flags, for what moves no data: everybody tells everybody, and waits for everybody. */
#include "plan/plan.h"

enum { CARRIED_BYTES = 8 }; /* by a group that only has to take place */

static void finish(struct zc_plan *plan)
{
    zc_plan_with_node(plan, ZC_CHANNEL_DONE, zc_plan_signal);
    zc_plan_with_node(plan, ZC_CHANNEL_DONE, zc_plan_wait);
}

/* Over several nodes: when all of a node are there, one word each goes over the network; when that
 * has come back, all of the node are told. */
static void cross_nodes(struct zc_plan *plan)
{
    const struct zc_request *request = &plan->request;

    zc_plan_exchange_rows(plan, 0,
                          zc_at(request->rank, ZC_SCRATCH, request->half * request->scratch_bytes),
                          CARRIED_BYTES, CARRIED_BYTES);
    finish(plan);
}

static void raise_flags(struct zc_plan *plan)
{
    zc_plan_with_node(plan, ZC_CHANNEL_READY, zc_plan_signal);
    zc_plan_with_node(plan, ZC_CHANNEL_READY, zc_plan_wait);
    if (zc_request_nodes(&plan->request) > 1)
        cross_nodes(plan);
    else if (plan->request.closed)
        finish(plan);
}

const struct zc_algorithm zc_flags = {
    .name = "flags",
    .needs = ZC_NO_DATA,
    .traits = ZC_CROSSES | ZC_CLOSES,
    .make = raise_flags,
};
