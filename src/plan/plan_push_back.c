/* Push-back, for collectives whose shares all ranks get: direct push for devices on which a copy
 * within one rank's memory is not free of SMs. */
#include "plan/plan.h"

static const char *needs_a_neighbour(const struct zc_request *request)
{
    return request->layout->ranks == 1 ? "a rank alone has no neighbour to push its share back"
                                       : NULL;
}

/* Nobody copies its own share. The next rank, which has received it, pushes it back into its
 * owner's output, and says *done* a second time. Costs one share more on the way out and one
 * crossing. */
static void push_back(struct zc_plan *plan)
{
    const struct zc_request *request = &plan->request;
    const uint32_t ranks = request->layout->ranks, rank = request->rank;
    const uint32_t next = (rank + 1) % ranks, previous = (rank + ranks - 1) % ranks;
    const struct zc_flow theirs = zc_plan_in(plan, previous);

    zc_plan_say_ready(plan);
    zc_plan_push(plan, false);
    for (uint32_t hop = 1; hop < ranks; hop++) {
        const uint32_t peer = (rank + ranks - hop) % ranks;

        zc_plan_await_done(plan, peer);
        if (hop == 1 && theirs.bytes > 0 && !request->in_place) {
            zc_plan_copy(plan, 0, zc_at(rank, ZC_RECV, theirs.to_at),
                         zc_at(previous, ZC_RECV, theirs.to_at), theirs.bytes);
            zc_plan_signal(plan, 0, previous, ZC_CHANNEL_DONE);
        }
    }
    if (zc_plan_out(plan, rank).bytes > 0 && !request->in_place)
        zc_plan_wait(plan, 0, next, ZC_CHANNEL_DONE);
}

const struct zc_algorithm zc_push_back = {
    .name = "push-back",
    .needs = ZC_REPLICATES,
    .traits = ZC_SAYS_READY | ZC_GROUPS | ZC_RETURNS_OWN,
    .cannot = needs_a_neighbour,
    .make = push_back,
};
