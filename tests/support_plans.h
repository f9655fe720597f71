/* Plans of a whole team, for tests. */
#ifndef SUPPORT_PLANS_H
#define SUPPORT_PLANS_H

#include "verify/verify.h"

enum { SUPPORT_MAX_RANKS = 128 };

/* One call of all ranks. The plans point at the layout, so it stays where it is. */
struct team_plans {
    uint32_t count;
    struct zc_layout layout;
    struct zc_plan *plans[SUPPORT_MAX_RANKS];
};

/* The layout of a call whose shares are all equal, derived. `root` counts where the collective has
 * one. */
struct zc_layout even_layout(const struct zc_collective *collective, uint32_t ranks, uint64_t bytes,
                             uint32_t root);

/* The one that an algorithm is tried with: the allgather if it serves that, else the first that it
 * serves. */
const struct zc_collective *usual_collective(const struct zc_algorithm *algorithm);

/* A request with everything usual: half 0, room for the input in the scratch window. The layout
 * outlives it. */
struct zc_request usual_request(const struct zc_algorithm *algorithm,
                                const struct zc_layout *layout, bool in_place);

/* The plans do not need the request's layout any more. */
void make_plans(struct team_plans *team, struct zc_request request);
void free_plans(struct team_plans *team);

/* Runs the verifier on calls that follow each other; of small teams in both of its ways, which must
 * come to the same result. */
zcta_status verify_calls(const struct team_plans *calls, uint32_t call_count, char *text,
                         size_t bytes);
/* The same for calls that are replayed from graphs. */
zcta_status verify_replayed(const struct team_plans *calls, uint32_t call_count, char *text,
                            size_t bytes);

#endif
