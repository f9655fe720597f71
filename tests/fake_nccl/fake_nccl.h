/* An NCCL for tests, built as libnccl.so.2: the nccl engine and its tests run on it without a GPU,
 * on the fake CUDA driver. Its ranks are threads of one process. It moves right bytes, waits
 * for its ranks as NCCL does, logs what NCCL logs, and takes the way that NCCL of its version would
 * take. What it does in windows, by copy engines or by symmetric kernels, no abort ends, and the
 * abort waits for it; the next fake_nccl_begin() ends it. Nothing of it says how fast NCCL is.
 *
 * Its version is 22803, or what FAKE_NCCL_VERSION says when it is first asked. A test in the same
 * process finds what follows with dlsym(). */
#ifndef FAKE_NCCL_H
#define FAKE_NCCL_H

/* As which version it speaks from now on. */
typedef void fake_nccl_be_fn(int version);
/* The next call of this name fails with NCCL's error 3, or hangs until its communicator is aborted
 * or the next fake_nccl_begin(); NULL: none does. */
typedef void fake_nccl_trip_fn(const char *function, int hang);
/* NCCL finds an error by itself, on all communicators. */
typedef void fake_nccl_break_fn(int result);
/* What happened on a rank since the last fake_nccl_begin(), as words with a blank behind each:
 * "init:2 register gather:ce deregister destroy " where 2 is the policy; "sym" and "sm" are
 * kernels.
 * ncclBroadcast(), ncclAlltoAll(), ncclGather() and ncclScatter() are "broadcast", "alltoall",
 * "gather-to-one" and "scatter"; "group:4" is a group of four sends and receives. */
typedef const char *fake_nccl_story_fn(int rank);
typedef void fake_nccl_begin_fn(void);
/* Communicators that are alive. */
typedef int fake_nccl_alive_fn(void);

#endif
