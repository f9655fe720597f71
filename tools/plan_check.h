/* What `zerocta plan` does with the plans of all ranks. Each says beforehand if this machine has
 * not the memory for it, shows on a terminal how far it is, prints its result, and returns the
 * command's exit status. */
#ifndef ZC_PLAN_CHECK_H
#define ZC_PLAN_CHECK_H

#include "plan/plan.h"

/* Has the verifier check so many calls in a row. requests[rank] is what each rank does; `half` is
 * chosen here. */
int zc_plan_check(const char *command, const struct zc_request *requests, uint32_t calls);

/* Has the simulation say how long one call takes on GPUs. */
int zc_plan_simulate(const char *command, const struct zc_request *requests);

#endif
