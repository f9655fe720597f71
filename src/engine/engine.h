/* Engines: who performs a collective. An engine of a team prepares calls once and runs them often.
 * It does not choose (that is the selector's) and does not check the caller's arguments. */
#ifndef ZC_ENGINE_H
#define ZC_ENGINE_H

#include "engine/symmetric.h"
#include "plan/plan.h"

/* One collective call with its addresses. */
struct zc_call {
    struct zc_request request; /* `half` is the engine's */
    const void *send;
    void *const *recv; /* every rank's output, as mapped here; only read while preparing */
    bool releasable;   /* say_ready() may come */
};

struct zc_engine;   /* an engine's state for one team */
struct zc_prepared; /* a call, ready to run */

struct zc_engine_ops {
    const char *name;
    /* Collective over the group. The guard outlives the engine; the engine sets its pad. */
    zcta_status (*open)(const struct zc_group *group, struct zc_guard *guard,
                        struct zc_engine **engine);
    void (*close)(struct zc_engine *engine); /* NULL is fine; nothing runs any more */
    /* Local. Errors: ERR_NO_MEMORY, ERR_INVALID (a request that names no plan). */
    zcta_status (*prepare)(struct zc_engine *engine, const struct zc_call *call,
                           struct zc_prepared **prepared);
    /* Enqueues; allocates nothing. */
    zcta_status (*run)(struct zc_engine *engine, struct zc_prepared *prepared, zcta_stream stream);
    /* Enqueues this rank's word that the next run may write its output, where the path has a use
     * for it. Errors: ERR_INVALID (said already, and not run since). */
    zcta_status (*say_ready)(struct zc_engine *engine, struct zc_prepared *prepared,
                             zcta_stream stream);
    void (*release)(struct zc_engine *engine,
                    struct zc_prepared *prepared); /* has finished; NULL is fine */
};

extern const struct zc_engine_ops zc_engine_ce;

#endif
