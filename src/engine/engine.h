/* Engines: who performs a collective. An engine of a team prepares calls once and runs them often.
 * It does not choose (that is the selector's) and does not check the caller's arguments. */
#ifndef ZC_ENGINE_H
#define ZC_ENGINE_H

#include "engine/symmetric.h"
#include "plan/plan.h"

/* This rank's part of a window. */
struct zc_region {
    void *base;
    size_t bytes;
    bool same_layout; /* it lies where the others' parts do, see struct zc_symmetric */
};

/* How much host memory a team has, on each rank: two halves, and a ring behind them. */
struct zc_host_room {
    size_t half, ring;
};

/* By facts that all its ranks agree on; `apart`: see struct zc_group. */
struct zc_host_room zc_host_room_of(const struct zc_device_caps *caps, bool apart, uint32_t ranks,
                                    bool several_hosts);

/* One collective call with its addresses. */
struct zc_call {
    struct zc_request request; /* `half` is the engine's */
    const void *send;
    void *const *recv;       /* every rank's output, as mapped here; only read while preparing */
    struct zc_region window; /* that the output lies in */
    struct zc_call_numbers numbers;
    /* How a plan over several nodes goes over the network; NULL: the plan stays on one. */
    zcta_status (*enqueue)(const struct zc_op_network *network, zcta_stream stream);
    void *enqueue_data;
    bool releasable; /* say_ready() may come */
    bool no_sm;      /* an engine that has two ways takes the one without SMs */
    bool strict;     /* or refuses to run: policy ZERO */
    bool symmetric;  /* NCCL's kernels may use the window, though nobody can let them go */
};

/* Whether what ran is what was chosen, where the engine cannot know by itself. */
enum zc_evidence {
    ZC_EVIDENCE_SURE,     /* our own plan, or kernels as chosen */
    ZC_EVIDENCE_CAPTURED, /* the plan that goes into a graph in place of that one, the last time */
    ZC_EVIDENCE_PROVED,   /* no SM, as somebody else's word has it */
    ZC_EVIDENCE_MISSING,  /* nobody tells */
    ZC_EVIDENCE_AGAINST,  /* SMs after all */
};

struct zc_engine;   /* an engine's state for one team */
struct zc_prepared; /* a call, ready to run */

struct zc_engine_ops {
    const char *name;
    /* The guard outlives the engine. The ce engine's sets its pad, and is collective over the
     * group; the nccl engine's is local. */
    zcta_status (*open)(const struct zc_group *group, struct zc_guard *guard,
                        struct zc_engine **engine);
    /* Nothing runs any more. The nccl engine's is collective unless the team has failed. NULL is
     * fine. */
    void (*close)(struct zc_engine *engine);
    /* Local. Errors: ERR_NO_MEMORY, ERR_INVALID (a request that names no plan). */
    zcta_status (*prepare)(struct zc_engine *engine, const struct zc_call *call,
                           struct zc_prepared **prepared);
    /* Enqueues; allocates nothing but, in the nccl engine, the first time. Errors: ERR_DEVICE and
     * ERR_NO_MEMORY, after which the team is broken; of the nccl engine also ERR_POLICY (NCCL took
     * SMs), ERR_UNSUPPORTED (the first run is being captured) and ERR_MISMATCH. */
    zcta_status (*run)(struct zc_engine *engine, struct zc_prepared *prepared, zcta_stream stream);
    /* What is known of the runs so far. */
    enum zc_evidence (*evidence)(const struct zc_engine *engine,
                                 const struct zc_prepared *prepared);
    /* Enqueues this rank's word that the next run may write its output, where the path has a use
     * for it; *said tells whether it has. Errors: ERR_INVALID (said already, and not run since). */
    zcta_status (*say_ready)(struct zc_engine *engine, struct zc_prepared *prepared,
                             zcta_stream stream, bool *said);
    void (*release)(struct zc_engine *engine,
                    struct zc_prepared *prepared); /* has finished; NULL is fine */
    /* The window whose part here begins at `base` goes. Collective like its going; from any thread.
     */
    void (*deregister)(struct zc_engine *engine, const void *base);
    /* The team has failed: end what the device cannot let go. Returns at once; from any thread. */
    void (*abort)(struct zc_engine *engine);
};

extern const struct zc_engine_ops zc_engine_ce;
extern const struct zc_engine_ops zc_engine_nccl;

#endif
