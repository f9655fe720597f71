/* The verifier: checks the plans of all ranks together. What it proves stands at zc_verify(); how,
 * in verify_internal.h. */
#ifndef ZC_VERIFY_H
#define ZC_VERIFY_H

#include "base/progress.h"
#include "plan/plan.h"

/* The plans of all ranks for one call: plans[rank]. Calls may share plans. */
struct zc_verify_call {
    const struct zc_plan *const *plans;
};

struct zc_verify_options {
    /* The calls are replayed from graphs, where a signal has the same value each time and its word
     * goes back to zero behind the last wait for it in a call. So it is also proved that each wait
     * has its signal in the same call, and that a word's first signal in a call comes after its
     * last wait in the calls before. */
    bool replayed;
    /* Every question of order is answered by clocks: the slow way to the same result, for tests.
     */
    bool by_clocks;
    const struct zc_progress *progress; /* by steps; NULL: nobody wants to know */
};

/* Checks `call_count` collectives that directly follow each other on the same buffers.
 * It proves that every wait has its signal and every signal its wait; that nothing can deadlock;
 * that no two accesses to the same bytes, one of them a write, are unordered; that a rank's buffers
 * are touched by others only between its entering and its leaving the call; that every output byte
 * is written exactly once, from the right source byte; and that all is in bounds.
 * A released collective is entered, by its output, where the release directly before it is: what
 * peers write after that is its own. Its share in place is still the caller's until the run enters.
 * `options` may be NULL.
 * Returns OK if all of that holds, ERR_INVALID with the first defect in `text`, or ERR_NO_MEMORY.
 */
zcta_status zc_verify(const struct zc_verify_call *calls, uint32_t call_count,
                      const struct zc_verify_options *options, char *text, size_t bytes);

/* About how much memory zc_verify() takes, besides the plans, for calls in which every rank has a
 * plan like this one. */
uint64_t zc_verify_bytes(const struct zc_plan *plan, uint32_t call_count);

#endif
