/* A CUDA driver for tests, built as libcuda.so.1: the CUDA device, the tools and their tests run on
 * it without a GPU, in one process or in many. GPU memory is memory files mapped at addresses that
 * are reserved first, as the driver does it; each stream is a thread that runs its work in order.
 * Nothing of it says how fast a GPU is. As with a real driver the streams of a context share a few
 * hardware queues, and what waits in one holds up what other streams have behind it there; a kernel
 * that is launched for the first time is loaded then, which waits for the whole context and keeps
 * other calls from it; what a stream gets while it is captured does not run.
 *
 * Settings, read once at cuInit(): FAKE_CUDA_GPUS (2), FAKE_CUDA_VERSION (13000), FAKE_CUDA_INIT,
 * which is the error of cuInit() itself, and FAKE_CUDA_LACKS, any of "vmm", "fd", "peer", "sight"
 * (of another process's GPU), "imex"; CUDA_DEVICE_MAX_CONNECTIONS (8); and FAKE_CUDA_FABRIC=1:
 * memory can leave as fabric handles. A test in the same process finds what follows with dlsym().
 */
#ifndef FAKE_CUDA_H
#define FAKE_CUDA_H

#include <stdint.h>

/* Of the calls that can fail, the next `after`-th fails once with `error`; 0: none does. */
typedef void fake_cuda_fail_fn(uint64_t after, int error);
/* How many such calls there were since then. */
typedef uint64_t fake_cuda_calls_fn(void);
/* The name of the one that was made to fail; "" if none has been. */
typedef const char *fake_cuda_failed_fn(void);
/* Allocations, mappings, reservations, streams, events, pinned memory and retained contexts that
 * are alive in this process. */
typedef int64_t fake_cuda_alive_fn(void);
/* How many copies within one GPU have run so far. */
typedef uint64_t fake_cuda_local_copies_fn(void);
/* "connections": how many hardware queues a context has for streams made from now on; "contexts":
 * 0: none can be made for want of memory; "slow-copy-ns": what a copy of more than 64 KiB takes. */
typedef void fake_cuda_set_fn(const char *what, uint64_t value);
/* For the fake NCCL: runs function(data) in the stream, if that is captured in every replay, and
 * says which GPU is current to the calling thread, -1 for none. */
typedef int fake_cuda_enqueue_fn(void *stream, void (*function)(void *data), void *data);
typedef int fake_cuda_current_fn(void);

#endif
