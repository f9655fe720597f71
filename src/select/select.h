/* The selector: which engine and algorithm perform a call, and why. A pure function of facts that
 * all ranks of a team agree on, so that all choose alike; a local fact (such as whether `send` lies
 * in a window) must never enter. zcta_explain_*() prints what this decides. */
#ifndef ZC_SELECT_H
#define ZC_SELECT_H

#include "device/device.h"
#include "plan/plan.h"

struct zc_facts {
    enum zc_collective collective;
    const struct zc_device_caps *caps;
    uint32_t rank_count;
    uint64_t bytes; /* one rank's share */
    bool in_place;
    bool shared_gpu;    /* some of the ranks are on one GPU */
    zcta_policy policy; /* the one that applies; not UNSET */
    zcta_engine engine; /* AUTO or the one that was asked for */
};

struct zc_choice {
    bool found;
    enum zc_algorithm algorithm;
};

/* Decides. `report` gets every path with its reason; its `chosen` agrees with the choice. */
struct zc_choice zc_select(const struct zc_facts *facts, zcta_report *report);

/* The request that the chosen algorithm's plan is made from; `half` is left 0. */
struct zc_request zc_select_request(const struct zc_facts *facts, enum zc_algorithm algorithm,
                                    uint32_t rank);

#endif
