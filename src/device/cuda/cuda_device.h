/* Inside the CUDA device: what its files share. */
#ifndef ZC_CUDA_DEVICE_H
#define ZC_CUDA_DEVICE_H

#include <pthread.h>

#include "device/cuda/cuda_driver.h"
#include "device/device.h"
#include "device/local_memory.h"

/* A push of this size takes 11 us; standing alone between a wait and a signal of its own costs 3.
 */
#define ZC_CUDA_GROUP_BYTES ((size_t)4 << 20)
/* A lane for the own share costs 5 to 10 us of submitting, a copy of this size within a GPU as
 * much. */
#define ZC_CUDA_LANE_BYTES ((size_t)8 << 20)

/* Of a team's host memory, on each rank. From so many ranks on small calls are faster that way than
 * by a push and a signal for each peer; see docs/performance.md. */
#define ZC_CUDA_HOST_BYTES ((size_t)1 << 20)
#define ZC_CUDA_RING_BYTES ((size_t)16 << 20)
#define ZC_CUDA_HOST_RANKS 4

enum { ZC_CUDA_LANES = 16, ZC_CUDA_EPOCHS = 65536, ZC_CUDA_BATCH = 64 };

/* The value that the k-th signal of a channel writes. A table of all such values lies in device
 * memory, so that a signal is a 4-byte copy from it; shifting makes the 16-bit count wrap where the
 * 32-bit comparison of a stream wait wraps. */
static inline uint32_t zc_cuda_epoch(uint32_t count)
{
    return count << 16;
}

/* Behind a captured program's last wait its word is put back to zero, and, with the same write, a
 * trace is left beside it, which only the watchdog takes away. */
enum { ZC_CUDA_TRACE_OFFSET = 4 };
#define ZC_CUDA_PUT_BACK (UINT64_C(1) << 32)

struct zc_cuda_team; /* what the device keeps for a guard */
struct cuda_memory;  /* cuda_memory.c's */

/* The near watcher works in the program's context, the far one in a context of its own, which it
 * makes when the near one is held up; see cuda_watch.c. */
enum { ZC_CUDA_NEAR, ZC_CUDA_FAR, ZC_CUDA_WATCHERS };

struct zc_cuda_watcher {
    struct zc_device *device;
    uint32_t index;
    pthread_t thread;
    zc_cu_context context; /* where it works; NULL: nowhere yet */
    zc_cu_stream stream;
    bool started; /* has a thread */
    /* Guarded by the device's lock. */
    uint64_t since; /* when it went to look after a team; 0: it is not in the driver */
    bool running;
};

struct zc_device {
    struct zc_diag *diag;
    const struct zc_cuda_driver *driver;
    struct zc_cuda_driver loaded; /* what `driver` points to */
    zc_cu_device gpu;
    int ordinal;
    uint64_t gpu_id;       /* of its UUID */
    zc_cu_context context; /* the GPU's primary one */
    zc_cu_stream stream;   /* the device's own: zeroing, releasing stuck waits */
    zc_cu_pointer epochs;  /* the table: entry i is zc_cuda_epoch(i) */
    struct zc_memory *epoch_memory;
    size_t granularity;
    uint64_t timeout_ns;  /* see zc_device_params */
    bool remote_writes;   /* stream writes reach another GPU's memory */
    bool wide_writes;     /* stream writes can be of 64 bits */
    bool flushes;         /* a wait can have remote writes flushed */
    bool fabric;          /* memory made now can leave for other hosts */
    _Atomic bool lost;    /* something in the driver does not end: nothing is unmapped any more */
    pthread_mutex_t lock; /* guards what follows; nobody is in the driver with it */
    pthread_cond_t changed;
    struct zc_cuda_team *teams;
    struct zc_cuda_watcher watchers[ZC_CUDA_WATCHERS];
    struct cuda_memory *kept; /* what was released since it is lost */
    uint32_t askers;          /* threads that wait for what a watcher finds out */
    zc_cu_result began;       /* the near watcher; ZC_CU_ERROR_NOT_READY: has not yet */
    bool closing;
};

/* Makes the device's context current for the calling thread, and undoes it. */
zcta_status zc_cuda_enter(struct zc_device *device);
void zc_cuda_leave(struct zc_device *device);

uint64_t zc_cuda_join_domain(struct zc_device *device);

/* What this device allocates: memory on its GPU that can leave as a file descriptor, and, in a
 * domain of several hosts, as a fabric handle. */
struct zc_cu_allocation_prop zc_cuda_allocation_prop(const struct zc_device *device);
zcta_status zc_cuda_memory_alloc(struct zc_device *device, enum zc_where where, size_t bytes,
                                 uint32_t sharers, struct zc_memory **memory);
zcta_status zc_cuda_memory_adopt(struct zc_device *device, void *base, size_t bytes,
                                 struct zc_memory **memory);
zcta_status zc_cuda_memory_export(struct zc_device *device, struct zc_memory *memory,
                                  struct zc_memory_handle *handle, int *fd);
zcta_status zc_cuda_memory_import(struct zc_device *device, const struct zc_memory_handle *handle,
                                  int fd, bool same_process, struct zc_memory **memory);
zcta_status zc_cuda_memory_export_piece(struct zc_device *device, struct zc_memory *memory,
                                        uint32_t piece, struct zc_memory_handle *handle, int *fd);
zcta_status zc_cuda_memory_import_piece(struct zc_device *device, struct zc_memory *memory,
                                        uint32_t piece, const struct zc_memory_handle *handle,
                                        int fd);
void zc_cuda_memory_release(struct zc_device *device, struct zc_memory *memory);
zcta_status zc_cuda_view_map(struct zc_device *device, struct zc_memory *const *parts,
                             uint32_t count, struct zc_view *view);
void zc_cuda_view_unmap(struct zc_device *device, const struct zc_view *view);

/* Of the host, in whole pages; *fd is the caller's. Unmapping leaves that be. */
zcta_status zc_cuda_host_make(struct zc_device *device, size_t bytes, uint32_t sharers, int *fd,
                              void **base);
zcta_status zc_cuda_host_map(struct zc_device *device, int fd, size_t bytes, void **base);
void zc_cuda_host_unmap(struct zc_device *device, void *base, size_t bytes);

zcta_status zc_cuda_attach(struct zc_device *device, struct zc_guard *guard);
void zc_cuda_detach(struct zc_device *device, struct zc_guard *guard);
zcta_status zc_cuda_bind(struct zc_device *device, struct zc_program *program);
zcta_status zc_cuda_submit(struct zc_device *device, const struct zc_program *program,
                           zcta_stream stream);
zcta_status zc_cuda_is_capturing(struct zc_device *device, zcta_stream stream, bool *capturing);
void zc_cuda_wake(struct zc_device *device, struct zc_guard *guard);
void zc_cuda_drain(struct zc_device *device, struct zc_guard *guard);

zcta_status zc_cuda_watchdog_start(struct zc_device *device);
/* Marks the device lost if a watcher does not come back from the driver. */
void zc_cuda_watchdog_stop(struct zc_device *device);
/* Begins and ends to have the watchers look without a pause. */
void zc_cuda_ask(struct zc_device *device, bool begin);

#endif
