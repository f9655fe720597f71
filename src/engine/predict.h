/* Predicting a collective: its plans, for all ranks, run by the simulation device in virtual time.
 * Tells how long GPUs with the cost model's properties would take. Moves no data. */
#ifndef ZC_PREDICT_H
#define ZC_PREDICT_H

#include "device/sim/sim.h"
#include "plan/plan.h"

struct zc_prediction {
    uint64_t time_ns; /* from the first rank's entering until the last rank's leaving */
    uint64_t steps;   /* of all ranks together */
};

/* requests[rank] says what each rank does. `progress` may be NULL.
 * Errors: ERR_INVALID (a request that names no plan, or plans that get stuck), ERR_NO_MEMORY. */
zcta_status zc_predict(const struct zc_request *requests, const struct zc_sim_cost *cost,
                       const struct zc_progress *progress, struct zc_prediction *prediction);

/* About how much memory that takes, if every rank has a plan like this one. */
uint64_t zc_predict_bytes(const struct zc_plan *plan);

#endif
