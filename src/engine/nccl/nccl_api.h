/* What we use of NCCL's interface, declared here so that one build runs with and without NCCL:
 * types, constants and the list of functions. Values and layouts are those of nccl.h; the test
 * test_nccl_abi compares them with a real nccl.h where there is one. */
#ifndef ZC_NCCL_API_H
#define ZC_NCCL_API_H

#include <limits.h>
#include <stddef.h>

typedef struct ncclComm *zc_nccl_handle;

/* CUDA's other name of the NULL stream, CU_STREAM_LEGACY. */
#define ZC_NCCL_STREAM_LEGACY ((void *)1)

struct zc_nccl_id {
    char bytes[128];
};

enum {
    ZC_NCCL_SUCCESS = 0,
    ZC_NCCL_CUDA_ERROR = 1,
    ZC_NCCL_INVALID_USAGE = 5,
    ZC_NCCL_IN_PROGRESS = 7,

    ZC_NCCL_INT8 = 0,
    ZC_NCCL_WINDOW_SYMMETRIC = 1,

    ZC_NCCL_POLICY_DEFAULT = 0,
    ZC_NCCL_POLICY_EFFICIENCY = 1,
    ZC_NCCL_POLICY_ZERO = 2,
    ZC_NCCL_POLICIES = 3, /* all of them, which are bits */

    ZC_NCCL_CONFIG_UNSET = INT_MIN,
    ZC_NCCL_CONFIG_MAGIC = (int)0xcafebeef,
};

/* A communicator's configuration as of 2.28. An older library is told an older version and as many
 * bytes as that had, see zc_nccl_config(); a newer one reads this as what it is. */
struct zc_nccl_config {
    size_t size;
    unsigned magic, version;
    int blocking, cga_cluster_size, min_ctas, max_ctas;
    const char *net_name;
    int split_share;   /* the last of 2.18 */
    int traffic_class; /* of 2.26 */
    const char *comm_name;
    int collnet, cta_policy, shrink_share;
    int nvls_ctas; /* the last of 2.27 */
    int channels_per_net_peer, nvlink_centric;
};

/* All of NCCL's calls that are a whole collective have one of two forms; which collective has one
 * is told by its row. */
typedef int zc_nccl_unrooted(const void *send, void *recv, size_t count, int type,
                             zc_nccl_handle comm, void *stream);
typedef int zc_nccl_rooted(const void *send, void *recv, size_t count, int type, int root,
                           zc_nccl_handle comm, void *stream);

/* The others: result, name, parameters, version from which it must be there. */
#define ZC_NCCL_FUNCTIONS(X)                                                                       \
    X(int, ncclGetVersion, (int *version), 0)                                                      \
    X(const char *, ncclGetErrorString, (int result), 0)                                           \
    X(const char *, ncclGetLastError, (zc_nccl_handle comm), 0)                                    \
    X(int, ncclGetUniqueId, (struct zc_nccl_id * id), 0)                                           \
    X(int, ncclCommInitRankConfig,                                                                 \
      (zc_nccl_handle * comm, int rank_count, struct zc_nccl_id id, int rank,                      \
       struct zc_nccl_config *config),                                                             \
      0)                                                                                           \
    X(int, ncclCommDestroy, (zc_nccl_handle comm), 0)                                              \
    X(int, ncclCommAbort, (zc_nccl_handle comm), 0)                                                \
    X(int, ncclCommGetAsyncError, (zc_nccl_handle comm, int *result), 0)                           \
    X(int, ncclCommCount, (zc_nccl_handle comm, int *count), 0)                                    \
    X(int, ncclGroupStart, (void), 0)                                                              \
    X(int, ncclGroupEnd, (void), 0)                                                                \
    X(int, ncclSend,                                                                               \
      (const void *send, size_t count, int type, int peer, zc_nccl_handle comm, void *stream), 0)  \
    X(int, ncclRecv,                                                                               \
      (void *recv, size_t count, int type, int peer, zc_nccl_handle comm, void *stream), 0)        \
    X(int, ncclMemAlloc, (void **memory, size_t bytes), 21900)                                     \
    X(int, ncclMemFree, (void *memory), 21900)                                                     \
    X(int, ncclCommWindowRegister,                                                                 \
      (zc_nccl_handle comm, void *base, size_t bytes, void **window, int flags), 22700)            \
    X(int, ncclCommWindowDeregister, (zc_nccl_handle comm, void *window), 22700)

#endif
