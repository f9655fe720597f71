/* The barrier: everybody tells everybody, and waits for everybody. */
#include "plan/plan.h"

void zc_plan_flags(struct zc_plan *plan)
{
    const uint32_t ranks = plan->request.rank_count, rank = plan->request.rank;

    for (uint32_t step = 1; step < ranks; step++)
        zc_plan_signal(plan, 0, (rank + step) % ranks, ZC_CHANNEL_READY);
    for (uint32_t step = 1; step < ranks; step++)
        zc_plan_wait(plan, 0, (rank + ranks - step) % ranks, ZC_CHANNEL_READY);
}
