/* The selector: which engine and algorithm perform a call, and why. A pure function of facts that
 * all ranks of a team agree on, so that all choose alike; a local fact (such as whether `send` lies
 * in a window) must never enter. zcta_explain() prints what this decides.
 *
 * Each engine assesses its own paths: assess_ce.c, assess_nccl.c. */
#ifndef ZC_SELECT_H
#define ZC_SELECT_H

#include "engine/engine.h"
#include "engine/nccl/nccl_library.h"
#include "plan/plan.h"
#include "select/tuned.h"

/* A path is an engine and its algorithm, numbered: the ce engine's as its algorithms are, then
 * NCCL's. */
enum zc_path {
    ZC_PATH_NCCL_NO_SM = ZC_ALGORITHMS, /* NCCL's copy engines, with proof */
    ZC_PATH_NCCL_UNPROVED,              /* the same; NCCL's log was not there to prove it */
    ZC_PATH_NCCL_KERNELS,
    ZC_PATHS
};

static inline bool zc_path_is_nccl(enum zc_path path)
{
    return (uint32_t)path >= ZC_ALGORITHMS;
}

const char *zc_path_engine(enum zc_path path); /* "ce" */
const char *zc_path_name(enum zc_path path);   /* "direct-push" */

struct zc_facts {
    const struct zc_layout *layout;
    const struct zc_device_caps *caps;
    const struct zc_nccl_facts *nccl;
    const struct zc_tuned *tuned; /* what was measured on this machine; NULL: nothing */
    bool in_place;                /* only where the ranks agree on it: ZC_REPLICATES */
    bool unlike_window;  /* recv's parts lie at different places of the ranks' allocations */
    bool shared_gpu;     /* some of the ranks are on one GPU */
    bool apart;          /* some on one node do not reach each other's memory */
    bool several_hosts;  /* the ranks are on several, be they one node or not */
    uint32_t node_ranks; /* how many make a node; 0: all are on one */
    bool uneven_nodes;   /* they are not equally many, or not in order */
    bool rail_shared;    /* some of one rail, at the same place on their nodes, are on one GPU */
    zcta_policy policy;  /* the one that applies; not UNSET */
    zcta_engine engine;  /* AUTO or the one that was asked for */
};

struct zc_choice {
    bool found;
    enum zc_path path; /* if none was found, the one whose reason tells why */
};

/* Decides. `report` gets every path with its reason; its `chosen` agrees with the choice. */
struct zc_choice zc_select(const struct zc_facts *facts, zcta_report *report);

/* The request that the chosen path's plan is made from, for a rank whose own share lies in place or
 * not; `half` is left 0. For NCCL's paths it says what is wanted, and names no algorithm. */
struct zc_request zc_select_request(const struct zc_facts *facts, enum zc_path path, uint32_t rank,
                                    bool in_place);

/* ---- Between the files of this folder ---- */

/* How much host memory the team has. */
static inline struct zc_host_room zc_facts_room(const struct zc_facts *facts)
{
    return zc_host_room_of(facts->caps, facts->apart, facts->layout->ranks, facts->several_hosts);
}

/* Below that a network's chunk costs more than it saves; not measured yet. */
#define ZC_LEAST_CHUNK ((uint64_t)256 << 10)

/* Whether a path can run at all; the reason if not, or why one would want it. */
struct zc_assessment {
    bool possible, wanted, sms;
    char reason[sizeof((struct zcta_report_path *)0)->reason];
};

__attribute__((format(printf, 2, 3))) void zc_because(struct zc_assessment *assessment,
                                                      const char *format, ...);

/* There are several nodes, between which nobody reaches another's memory. */
static inline bool zc_has_nodes(const struct zc_facts *facts)
{
    return facts->node_ranks != 0 || facts->uneven_nodes;
}

void zc_assess_ce(const struct zc_facts *facts, const struct zc_algorithm *algorithm,
                  struct zc_assessment *assessment);
/* Whether the own share goes through a neighbour, so that no SM copies it. */
bool zc_ce_bounces(const struct zc_facts *facts, const struct zc_algorithm *algorithm);
void zc_assess_nccl(const struct zc_facts *facts, enum zc_path path,
                    struct zc_assessment *assessment);
/* What keeps NCCL from moving this team's data at all; false if nothing does. */
bool zc_nccl_cannot(const struct zc_facts *facts, struct zc_assessment *assessment);

#endif
