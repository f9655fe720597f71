/* The simulation device: all ranks in one thread.
 *
 * Programs are enqueued on their ranks and run when zc_sim_run() is called: one op at a time, of a
 * lane that a seeded generator picks among those that can run, or, with virtual time, of the lane
 * that is earliest. Copies move real bytes (in two halves, so that what reads too early reads torn
 * data) unless the simulation is asked for times only. Any rank can be made to die after any number
 * of ops. The same seed gives the same run. */
#ifndef ZC_SIM_H
#define ZC_SIM_H

#include "base/progress.h"
#include "device/device.h"

/* What things cost, in virtual time. */
struct zc_sim_cost {
    const char *name;
    double copy_ns;              /* a copy's start, in a stream */
    double signal_ns;            /* sending one signal */
    double wait_ns;              /* a wait that is already true */
    double wait_more_ns;         /* one directly behind another, in the same batch */
    double crossing_ns;          /* from a signal's sending to its being seen */
    double copy_bytes_per_ns;    /* of one engine, in one direction, to a peer */
    double local_bytes_per_ns;   /* within one device */
    double host_copy_ns;         /* the start of a copy to the host or from there */
    double host_bytes_per_ns;    /* of one device, each way, while it copies the other way too */
    double exchange_ns;          /* an exchange's start, over the network */
    double network_bytes_per_ns; /* of one rank's network card, in one direction */
};

/* NVLinked H200. Where the figures come from: docs/performance.md. */
extern const struct zc_sim_cost zc_sim_cost_h200;

struct zc_sim_params {
    uint32_t rank_count;
    uint64_t seed;
    bool timed; /* virtual time; otherwise random interleaving */
    bool moves_data;
    const struct zc_sim_cost *cost; /* may be NULL if not timed */
    const struct zc_progress
        *progress; /* by steps, of no known total; NULL: nobody wants to know */
};

struct zc_sim;

/* Errors: ERR_NO_MEMORY. */
zcta_status zc_sim_create(const struct zc_sim_params *params, struct zc_sim **sim);
void zc_sim_destroy(struct zc_sim *sim); /* NULL is fine */

/* The device of one rank, for the entries of zc_device_sim. Owned by the simulation. */
struct zc_device *zc_sim_device(struct zc_sim *sim, uint32_t rank);

/* Makes the rank stop for ever after that many more of its ops. */
void zc_sim_kill(struct zc_sim *sim, uint32_t rank, uint64_t after_ops);

struct zc_sim_result {
    bool finished;    /* every living rank ran everything it was given, or its guard has failed */
    uint64_t time_ns; /* virtual time of the last op */
    uint64_t steps;   /* ops run */
    uint32_t stuck_rank, stuck_peer; /* a living rank that waits, and for whom; if not finished */
};

/* Runs until nothing can move any more. When only waits for the dead are left, it does what a
 * deadline would: calls on_missing of each guard that is stuck, then goes on. */
void zc_sim_run(struct zc_sim *sim, struct zc_sim_result *result);

extern const struct zc_device_ops zc_device_sim;

#endif
