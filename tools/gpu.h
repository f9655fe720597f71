/* The GPU under a context, for the commands: moving bytes to and from windows, a stream, times.
 * Uses the driver beside the library, which has its own table of it. */
#ifndef ZC_TOOL_GPU_H
#define ZC_TOOL_GPU_H

#include "contents.h"
#include "device/cuda/cuda_driver.h"
#include "zerocta/zerocta.h"

struct zc_gpu {
    struct zc_diag diag;
    struct zc_cuda_driver driver;
    zc_cu_device device;
    zc_cu_context context; /* primary; current in the thread that opened it */
    zc_cu_stream stream;   /* what collectives are enqueued on */
    zc_cu_event begin, end;
};

/* Opens the GPU with this ordinal. False after it said on stderr why not. */
bool zc_gpu_open(const char *command, int ordinal, struct zc_gpu **gpu);
void zc_gpu_close(struct zc_gpu *gpu); /* NULL is fine */

/* Copies, and waits for the copy. */
bool zc_gpu_put(struct zc_gpu *gpu, void *device, const void *host, size_t bytes);
bool zc_gpu_get(struct zc_gpu *gpu, void *host, const void *device, size_t bytes);

/* The same for contents.h, with the GPU as data; the caller keeps `gpu`. */
struct zc_mover zc_gpu_mover(struct zc_gpu *gpu);

/* Marks a moment in the stream; the time between both once the stream got there. */
bool zc_gpu_mark(struct zc_gpu *gpu, zc_cu_event event);
bool zc_gpu_elapsed_ns(struct zc_gpu *gpu, uint64_t *ns);
bool zc_gpu_synchronize(struct zc_gpu *gpu);

/* True if the driver took it; else it has been said on stderr. */
bool zc_gpu_ok(struct zc_gpu *gpu, zc_cu_result result, const char *what);

#endif
