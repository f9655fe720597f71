/* The selector: which engine and way perform a call, and why. A pure function of facts that all
 * ranks of a team agree on, so that all choose alike; a local fact (such as whether `send` lies in
 * a window) must never enter. What the caller decides about its own call, bytes and in place or
 * not, the header demands of all ranks alike, and the agreement check compares it.
 * zcta_explain_*() prints what this decides. */
#ifndef ZC_SELECT_H
#define ZC_SELECT_H

#include "device/device.h"
#include "engine/nccl/nccl_library.h"
#include "plan/plan.h"
#include "select/tuned.h"

/* A path is an engine and its way. Those of the ce engine are its algorithms. */
enum zc_path {
    ZC_PATH_NCCL_NO_SM = ZC_ALGORITHMS, /* NCCL's copy engines, with proof */
    ZC_PATH_NCCL_UNPROVED,              /* the same; NCCL's log was not there to prove it */
    ZC_PATH_NCCL_KERNELS,
    ZC_PATHS
};

const char *zc_path_engine(enum zc_path path); /* "ce" */
const char *zc_path_name(enum zc_path path);   /* "direct-push" */
enum zc_collective zc_path_collective(enum zc_path path);

struct zc_facts {
    enum zc_collective collective;
    const struct zc_device_caps *caps;
    const struct zc_nccl_facts *nccl;
    const struct zc_tuned *tuned; /* what was measured on this machine; NULL: nothing */
    uint32_t rank_count;
    uint64_t bytes; /* one rank's share */
    bool in_place;
    bool unlike_window;   /* recv's parts lie at different places of the ranks' allocations */
    bool shared_gpu;      /* some of the ranks are on one GPU */
    uint32_t node_ranks;  /* how many make a node; 0: all are on one */
    bool uneven_nodes;    /* they are not equally many, or not in order */
    bool position_shared; /* some of equal position on their nodes are on one GPU */
    zcta_policy policy;   /* the one that applies; not UNSET */
    zcta_engine engine;   /* AUTO or the one that was asked for */
};

struct zc_choice {
    bool found;
    enum zc_path path;
};

/* Decides. `report` gets every path with its reason; its `chosen` agrees with the choice. */
struct zc_choice zc_select(const struct zc_facts *facts, zcta_report *report);

/* The request that the chosen path's plan is made from; `half` is left 0. For NCCL's paths it says
 * what is wanted, and names no algorithm. */
struct zc_request zc_select_request(const struct zc_facts *facts, enum zc_path path, uint32_t rank);

#endif
