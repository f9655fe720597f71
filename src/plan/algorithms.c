/* The table of algorithms, and how a request becomes a plan by one of them. The only file that
 * knows them all. */
#include <stdlib.h>

#include "plan/plan.h"

const struct zc_algorithm *const zc_algorithms[ZC_ALGORITHMS] = {
#define ROW(name, symbol) [ZC_ALGORITHM_##name] = &zc_##symbol,
    ZC_ALGORITHM_LIST(ROW)
#undef ROW
};

uint32_t zc_algorithm_number(const struct zc_algorithm *algorithm)
{
    uint32_t number = 0;

    while (number < ZC_ALGORITHMS && zc_algorithms[number] != algorithm)
        number++;
    return number;
}

/* A team's plans are many. */
static void trim(struct zc_plan *plan)
{
    struct zc_step *steps;

    if (plan->step_count == 0 || plan->step_count == plan->capacity)
        return;
    steps = realloc(plan->steps, plan->step_count * sizeof *steps);
    if (steps == NULL)
        return;
    plan->steps = steps;
    plan->capacity = plan->step_count;
}

zcta_status zc_plan_make(const struct zc_request *request, struct zc_plan **plan)
{
    struct zc_plan *made = NULL;
    zcta_status status = ZCTA_OK;

    if (zc_request_defect(request) != NULL)
        return ZCTA_ERR_INVALID;
    made = calloc(1, sizeof *made);
    if (made == NULL)
        return ZCTA_ERR_NO_MEMORY;
    made->request = *request;
    made->lane_count = 1;
    if (!zc_layout_is_empty(request->layout))
        request->algorithm->make(made);
    if (made->out_of_memory) {
        status = ZCTA_ERR_NO_MEMORY;
        goto out;
    }
    trim(made);
    *plan = made;
    made = NULL;
out:
    zc_plan_destroy(made);
    return status;
}

/* ---- What goes with a call ---- */

/* A release has nothing of the algorithm of the call that it is for. */
struct zc_request zc_request_early_ready(const struct zc_request *call)
{
    return (struct zc_request){.layout = call->layout,
                               .algorithm = &zc_early_ready,
                               .rank = call->rank,
                               .in_place = call->in_place,
                               .lanes = 1};
}

struct zc_request zc_request_released(const struct zc_request *call)
{
    struct zc_request run = *call;

    run.released = true;
    return run;
}

/* The words of captured programs are put back, so that a rank must not leave one before its peers
 * have put back theirs: what it sends next would be lost. Collectives that move data end with
 * *done* from whoever was told *ready*. The verifier proves it. What goes through host memory and
 * cannot be captured goes another way there; and it goes on one lane, because a graph's branches
 * may come to stand in one hardware queue in any order, and the way in waits for the way out. */
struct zc_request zc_request_captured(const struct zc_request *call)
{
    struct zc_request captured = *call;

    captured.closed = zc_has(call->algorithm, ZC_CLOSES);
    if (zc_has(call->algorithm, ZC_USES_HOST) && zc_has(call->algorithm, ZC_EAGER_ONLY))
        captured.algorithm = call->ring_bytes > 0 ? &zc_host_stream : &zc_direct_push;
    if (zc_has(captured.algorithm, ZC_USES_HOST))
        captured.lanes = 1;
    return captured;
}
