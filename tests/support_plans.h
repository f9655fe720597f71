/* Plans of a whole team, for tests. */
#ifndef SUPPORT_PLANS_H
#define SUPPORT_PLANS_H

#include "plan/verify.h"

enum { SUPPORT_MAX_RANKS = 128 };

/* One call of all ranks. */
struct team_plans {
    uint32_t count;
    struct zc_plan *plans[SUPPORT_MAX_RANKS];
};

/* A request with everything usual: half 0, room for the share in the scratch window. */
struct zc_request usual_request(enum zc_algorithm algorithm, uint32_t ranks, uint64_t bytes,
                                bool in_place);

void make_plans(struct team_plans *team, struct zc_request request);
void free_plans(struct team_plans *team);

/* Runs the verifier on calls that follow each other; of small teams in both of its ways, which must
 * come to the same verdict. */
zcta_status verify_calls(const struct team_plans *calls, uint32_t call_count, char *text,
                         size_t bytes);
/* The same for calls that are replayed from graphs. */
zcta_status verify_replayed(const struct team_plans *calls, uint32_t call_count, char *text,
                            size_t bytes);

#endif
