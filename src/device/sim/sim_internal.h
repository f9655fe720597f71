/* Inside the simulation: what its files share. */
#ifndef ZC_SIM_INTERNAL_H
#define ZC_SIM_INTERNAL_H

#include "device/local_memory.h"
#include "device/sim/sim.h"

enum { ZC_SIM_MAX_LANES = 16 };

/* A slot of a pad. */
struct zc_sim_slot {
    uint32_t value;
    uint32_t waiter; /* timed: 1 + the global lane that is parked for it; 0: none */
    double at;       /* timed: when the latest value arrived */
};

struct zc_sim_memory {
    struct zc_memory head; /* first: a zc_memory is its zc_sim_memory */
    struct zc_local_memory local;
    uint32_t owner; /* rank */
    enum zc_where where;
    bool real; /* false: addresses that nobody touches */
};

/* What one rank has sent to another, until that one takes it. */
struct zc_sim_message {
    struct zc_sim_message *next;
    uint32_t from;
    double time;
    char *data; /* where data moves: a copy, as the network takes it. NULL: none could be made */
};

struct zc_sim_lane {
    uint32_t next;
    bool running;
    bool queued;      /* timed: stands in the heap */
    bool half_copied; /* the first half of the copy at `next` has been made */
    double time;
};

/* One rank; the device that zc_device_sim is given. */
struct zc_device {
    struct zc_sim *sim;
    uint32_t rank;
    const struct zc_program **queue; /* submitted and not yet finished, from `head` */
    uint32_t head, count, capacity;
    bool started; /* the program at `head` has begun */
    struct zc_sim_lane lanes[ZC_SIM_MAX_LANES];
    uint64_t ops_left;   /* until it dies */
    double time;         /* when its last program ended */
    double out_free;     /* timed: when its engine towards peers is free */
    double in_free;      /* timed: when its link from peers is free */
    double host_free[2]; /* timed: when its way to the host is free, and that from the host */
    bool in_group;       /* it has begun what it sends and receives at once, on lane `group_lane` */
    uint32_t group_lane;
    uint32_t unmet;               /* of these, how many the other side has not begun */
    struct zc_sim_message *inbox; /* in the order of sending */
    struct zc_sim_message **inbox_end;
};

/* Lanes by time, the earliest first: a binary heap of global lanes. */
struct zc_sim_heap {
    uint32_t *lanes;
    uint32_t count;
};

struct zc_sim {
    struct zc_sim_params params;
    struct zc_diag diag;
    struct zc_device *ranks;
    struct zc_sim_memory **memories; /* by address */
    uint32_t memory_count, memory_capacity;
    uintptr_t next_address; /* of memory that is not real */
    uint64_t random;
    uint64_t steps;
    double end;
    struct zc_sim_heap heap;
    int32_t *ahead; /* [from][to]: sends begun over the network, less receives begun */
};

/* sim_memory.c */
zcta_status zc_sim_memory_alloc(struct zc_device *device, enum zc_where where, size_t bytes,
                                uint32_t sharers, struct zc_memory **memory);
zcta_status zc_sim_memory_adopt(struct zc_device *device, void *base, size_t bytes,
                                struct zc_memory **memory);
zcta_status zc_sim_memory_export(struct zc_device *device, struct zc_memory *memory,
                                 struct zc_memory_handle *handle, int *fd);
zcta_status zc_sim_memory_import(struct zc_device *device, const struct zc_memory_handle *handle,
                                 int fd, bool same_process, struct zc_memory **memory);
void zc_sim_memory_release(struct zc_device *device, struct zc_memory *memory);
zcta_status zc_sim_view_map(struct zc_device *device, struct zc_memory *const *parts,
                            uint32_t count, struct zc_view *view);
void zc_sim_view_unmap(struct zc_device *device, const struct zc_view *view);
/* Whose memory an address lies in: a rank, or ZC_SIM_HOST; `otherwise` if it is no memory of the
 * simulation's. */
#define ZC_SIM_HOST UINT32_MAX
uint32_t zc_sim_owner(const struct zc_sim *sim, const void *address, uint32_t otherwise);

/* sim_run.c */
zcta_status zc_sim_submit(struct zc_device *device, const struct zc_program *program,
                          zcta_stream stream);
/* What was sent to the rank, and not taken. */
void zc_sim_drop_messages(struct zc_device *device);
void zc_sim_wake(struct zc_device *device, struct zc_guard *guard);
void zc_sim_drain(struct zc_device *device, struct zc_guard *guard);

#endif
