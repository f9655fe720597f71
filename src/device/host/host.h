/* Inside the host device: what its files share. */
#ifndef ZC_HOST_H
#define ZC_HOST_H

#include "device/device.h"
#include "device/local_memory.h"

#include <pthread.h>

struct zc_device {
    struct zc_diag *diag;
    uint64_t timeout_ns;       /* see zc_device_params */
    uint64_t spin_ns;          /* how long a wait looks before it sleeps */
    uint64_t look_ns;          /* how much of that without letting others run in between */
    size_t stream_bytes;       /* see zc_device_caps */
    pthread_mutex_t lock;      /* guards streams; held by a worker while it finishes a program */
    zcta_host_stream *streams; /* all that live; closing the device ends them */
};

enum { ZC_HOST_DIGESTS = 4 };

/* One word of a pad, alone in its cache line. */
struct zc_host_slot {
    _Alignas(64) _Atomic uint32_t value; /* signals received so far */
    _Atomic uint32_t armed;              /* 1: the owner sleeps for this slot; ring its bell */
    /* Of the calls that the latest signals belong to: that of signal n at n % ZC_HOST_DIGESTS. */
    _Atomic uint64_t digests[ZC_HOST_DIGESTS];
};

/* The call that the pad's owner is in, for others to look at. `check` tells whether what was read
 * belongs together. */
struct zc_host_call {
    _Alignas(64) _Atomic uint64_t check, ticket;
    _Atomic uint64_t numbers[ZC_CALL_NUMBERS];
};

/* What stands before the slots. */
struct zc_host_pad {
    _Alignas(64) _Atomic uint32_t bell; /* futex on which the pad's owner sleeps */
    /* For whom its owner sleeps: the number of the signal, and, in the low half, 1 + its slot. 0:
     * it does not. */
    _Atomic uint64_t awaits;
    struct zc_host_call call;
};

/* Memory: see device.h. */
zcta_status zc_host_memory_alloc(struct zc_device *device, enum zc_where where, size_t bytes,
                                 uint32_t sharers, struct zc_memory **memory);
zcta_status zc_host_memory_adopt(struct zc_device *device, void *base, size_t bytes,
                                 struct zc_memory **memory);
zcta_status zc_host_memory_export(struct zc_device *device, struct zc_memory *memory,
                                  struct zc_memory_handle *handle, int *fd);
zcta_status zc_host_memory_import(struct zc_device *device, const struct zc_memory_handle *handle,
                                  int fd, bool same_process, struct zc_memory **memory);
void zc_host_memory_release(struct zc_device *device, struct zc_memory *memory);
zcta_status zc_host_view_map(struct zc_device *device, struct zc_memory *const *parts,
                             uint32_t count, struct zc_view *view);
void zc_host_view_unmap(struct zc_device *device, const struct zc_view *view);

/* Nothing to prepare: the pad is all the host needs; a program that it cannot run is refused. */
zcta_status zc_host_attach(struct zc_device *device, struct zc_guard *guard);
void zc_host_detach(struct zc_device *device, struct zc_guard *guard);
zcta_status zc_host_bind(struct zc_device *device, struct zc_program *program);

/* Runs a program here and now, once its turn has come; returns the guard's status. The caller then
 * finishes it: from there on the program and its team may be freed. */
zcta_status zc_host_run(struct zc_device *device, const struct zc_program *program,
                        uint32_t ticket);
void zc_host_finish(struct zc_guard *guard, uint32_t count); /* of programs that have ended */
/* Waits until so many have, and, unless that does not matter, no longer than the team is well. */
void zc_host_await_turn(struct zc_guard *guard, uint32_t count, bool though_failed);
void zc_host_wake(struct zc_device *device, struct zc_guard *guard);

/* Streams: the host's own API, reached through zcta_host_stream_*(). */
zcta_status zc_host_stream_create(struct zc_device *device, zcta_host_stream **stream);
const struct zc_diag *zc_host_stream_diag(const zcta_host_stream *stream);
void zc_host_stream_enqueue(zcta_host_stream *stream, const struct zc_program *program,
                            uint32_t ticket);
void zc_host_stream_call(zcta_host_stream *stream, void (*function)(void *data), void *data);
/* Repeats the first failure's sentence, as one of `call`. */
zcta_status zc_host_stream_synchronize(zcta_host_stream *stream, const char *call);
void zc_host_stream_destroy(zcta_host_stream *stream);
void zc_host_streams_end(struct zc_device *device); /* destroys all that live */
/* Takes back, and counts as finished, the programs under a failed guard that no stream has begun.
 */
void zc_host_streams_drop(struct zc_device *device, struct zc_guard *guard);

/* Copies; `streamed`: with stores that go past the caches. */
void zc_host_copy(void *to, const void *from, size_t bytes, bool streamed);

/* Sleeps while *word == value, at most until `deadline`. `shared`: between processes. */
void zc_host_futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t deadline, bool shared);
void zc_host_futex_wake(_Atomic uint32_t *word, bool shared);

#endif
