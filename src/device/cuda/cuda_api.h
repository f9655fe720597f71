/* What we use of the CUDA driver's interface, declared here so that one build runs with and without
 * CUDA: types, constants and the list of functions. Values and layouts are those of the driver's
 * stable ABI (cuda.h of CUDA 12.5 to 13.0); tests/test_cuda_abi.c compares them with a real cuda.h
 * where there is one. */
#ifndef ZC_CUDA_API_H
#define ZC_CUDA_API_H

#include <stddef.h>
#include <stdint.h>

typedef int zc_cu_result; /* 0: success */
typedef int zc_cu_device;
typedef uint64_t zc_cu_pointer;
typedef uint64_t zc_cu_allocation;
typedef struct zc_cu_context_opaque *zc_cu_context;
typedef struct zc_cu_stream_opaque *zc_cu_stream;
typedef struct zc_cu_event_opaque *zc_cu_event;
typedef struct zc_cu_module_opaque *zc_cu_module;
typedef struct zc_cu_function_opaque *zc_cu_function;
typedef struct zc_cu_graph_opaque *zc_cu_graph;
typedef struct zc_cu_graph_exec_opaque *zc_cu_graph_exec;

enum {
    ZC_CU_SUCCESS = 0,
    ZC_CU_ERROR_OUT_OF_MEMORY = 2,
    ZC_CU_ERROR_NO_DEVICE = 100,
    ZC_CU_ERROR_NOT_READY = 600,

    ZC_CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT = 40,
    ZC_CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT = 16,
    ZC_CU_DEVICE_ATTRIBUTE_FLUSH_REMOTE_WRITES = 98,
    ZC_CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY = 102,
    ZC_CU_DEVICE_ATTRIBUTE_POSIX_FD = 103,
    ZC_CU_DEVICE_ATTRIBUTE_WIDE_MEM_OPS = 122,
    ZC_CU_DEVICE_ATTRIBUTE_FABRIC = 128,
    ZC_CU_DEVICE_ATTRIBUTE_MULTICAST = 132,

    ZC_CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL = 9,
    ZC_CU_EVENT_DISABLE_TIMING = 2,
    ZC_CU_STREAM_NON_BLOCKING = 1,
    ZC_CU_STREAM_CAPTURE_NONE = 0,
    ZC_CU_STREAM_CAPTURE_MODE_GLOBAL = 0,
    ZC_CU_STREAM_CAPTURE_MODE_RELAXED = 2,
    ZC_CU_MEM_HOST_PORTABLE = 1, /* of what is allocated, and of what is registered */
    ZC_CU_MEM_HOST_REGISTER_DEVICE_MAP = 2,
    ZC_CU_MEMORY_DEVICE = 2,

    ZC_CU_MEM_ALLOCATION_PINNED = 1,
    ZC_CU_MEM_HANDLE_POSIX_FD = 1,
    ZC_CU_MEM_HANDLE_FABRIC = 8,
    ZC_CU_MEM_LOCATION_DEVICE = 1,
    ZC_CU_MEM_ACCESS_READWRITE = 3,
    ZC_CU_MEM_GRANULARITY_RECOMMENDED = 1,

    ZC_CU_MEM_OP_WAIT_VALUE_32 = 1,
    ZC_CU_MEM_OP_WRITE_VALUE_32 = 2,
    ZC_CU_MEM_OP_WRITE_VALUE_64 = 5,
    ZC_CU_WAIT_VALUE_GEQ = 0,
    ZC_CU_WAIT_VALUE_FLUSH = 1 << 30,
    ZC_CU_WRITE_VALUE_DEFAULT = 0,
};

struct zc_cu_location {
    int type, id;
};

struct zc_cu_allocation_prop {
    int type, handle_types;
    struct zc_cu_location location;
    void *win32;
    struct {
        unsigned char compression, rdma;
        unsigned short usage;
        unsigned char reserved[4];
    } flags;
};

struct zc_cu_access {
    struct zc_cu_location location;
    int flags;
};

/* Rows of `width` bytes, `height` of them, a pitch apart on each side. */
struct zc_cu_copy_2d {
    size_t from_x, from_y;
    int from_type;
    const void *from_host;
    zc_cu_pointer from;
    void *from_array;
    size_t from_pitch;
    size_t to_x, to_y;
    int to_type;
    void *to_host;
    zc_cu_pointer to;
    void *to_array;
    size_t to_pitch;
    size_t width, height;
};

/* One member of the driver's union; both kinds of operation share it. */
union zc_cu_mem_op {
    struct {
        int operation;
        zc_cu_pointer address;
        uint64_t value; /* of a 32-bit operation the low bits count */
        unsigned flags;
        zc_cu_pointer alias;
    } value;
    uint64_t pad[6];
};

/* name in the driver, member of the table, result, parameters, version asked of
 * cuGetProcAddress() */
#define ZC_CU_FUNCTIONS(X)                                                                         \
    X(cuInit, (unsigned flags), 2000)                                                              \
    X(cuDriverGetVersion, (int *version), 2020)                                                    \
    X(cuGetErrorString, (zc_cu_result error, const char **text), 6000)                             \
    X(cuDeviceGetCount, (int *count), 2000)                                                        \
    X(cuDeviceGet, (zc_cu_device * device, int ordinal), 2000)                                     \
    X(cuDeviceGetName, (char *name, int bytes, zc_cu_device device), 2000)                         \
    X(cuDeviceGetAttribute, (int *value, int attribute, zc_cu_device device), 2000)                \
    X(cuDeviceGetUuid, (void *uuid, zc_cu_device device), 11040)                                   \
    X(cuDeviceTotalMem, (size_t * bytes, zc_cu_device device), 3020)                               \
    X(cuDeviceGetPCIBusId, (char *bus_id, int bytes, zc_cu_device device), 4010)                   \
    X(cuDeviceCanAccessPeer, (int *can, zc_cu_device device, zc_cu_device peer), 4000)             \
    X(cuDevicePrimaryCtxRetain, (zc_cu_context * context, zc_cu_device device), 7000)              \
    X(cuDevicePrimaryCtxRelease, (zc_cu_device device), 11000)                                     \
    X(cuCtxCreate, (zc_cu_context * context, unsigned flags, zc_cu_device device), 3020)           \
    X(cuCtxDestroy, (zc_cu_context context), 4000)                                                 \
    X(cuCtxGetCurrent, (zc_cu_context * context), 4000)                                            \
    X(cuCtxGetDevice, (zc_cu_device * device), 2000)                                               \
    X(cuCtxPushCurrent, (zc_cu_context context), 4000)                                             \
    X(cuCtxPopCurrent, (zc_cu_context * context), 4000)                                            \
    X(cuMemGetAllocationGranularity,                                                               \
      (size_t * bytes, const struct zc_cu_allocation_prop *prop, int option), 10020)               \
    X(cuMemCreate,                                                                                 \
      (zc_cu_allocation * handle, size_t bytes, const struct zc_cu_allocation_prop *prop,          \
       unsigned long long flags),                                                                  \
      10020)                                                                                       \
    X(cuMemRelease, (zc_cu_allocation handle), 10020)                                              \
    X(cuMemAddressReserve,                                                                         \
      (zc_cu_pointer * pointer, size_t bytes, size_t alignment, zc_cu_pointer address,             \
       unsigned long long flags),                                                                  \
      10020)                                                                                       \
    X(cuMemAddressFree, (zc_cu_pointer pointer, size_t bytes), 10020)                              \
    X(cuMemMap,                                                                                    \
      (zc_cu_pointer pointer, size_t bytes, size_t offset, zc_cu_allocation handle,                \
       unsigned long long flags),                                                                  \
      10020)                                                                                       \
    X(cuMemUnmap, (zc_cu_pointer pointer, size_t bytes), 10020)                                    \
    X(cuMemSetAccess,                                                                              \
      (zc_cu_pointer pointer, size_t bytes, const struct zc_cu_access *access, size_t count),      \
      10020)                                                                                       \
    X(cuMemGetAccess,                                                                              \
      (unsigned long long *flags, const struct zc_cu_location *location, zc_cu_pointer pointer),   \
      10020)                                                                                       \
    X(cuMemExportToShareableHandle,                                                                \
      (void *shareable, zc_cu_allocation handle, int type, unsigned long long flags), 10020)       \
    X(cuMemImportFromShareableHandle, (zc_cu_allocation * handle, void *shareable, int type),      \
      10020)                                                                                       \
    X(cuMemRetainAllocationHandle, (zc_cu_allocation * handle, void *address), 11000)              \
    X(cuMemGetAllocationPropertiesFromHandle,                                                      \
      (struct zc_cu_allocation_prop * prop, zc_cu_allocation handle), 10020)                       \
    X(cuMemGetAddressRange, (zc_cu_pointer * base, size_t * bytes, zc_cu_pointer pointer), 3020)   \
    X(cuPointerGetAttribute, (void *value, int attribute, zc_cu_pointer pointer), 4000)            \
    X(cuMemsetD8Async, (zc_cu_pointer to, unsigned char value, size_t bytes, zc_cu_stream stream), \
      3020)                                                                                        \
    X(cuMemcpyHtoDAsync, (zc_cu_pointer to, const void *from, size_t bytes, zc_cu_stream stream),  \
      3020)                                                                                        \
    X(cuMemcpyDtoHAsync, (void *to, zc_cu_pointer from, size_t bytes, zc_cu_stream stream), 3020)  \
    X(cuMemcpyAsync, (zc_cu_pointer to, zc_cu_pointer from, size_t bytes, zc_cu_stream stream),    \
      4000)                                                                                        \
    X(cuMemcpy2DAsync, (const struct zc_cu_copy_2d *copy, zc_cu_stream stream), 3020)              \
    X(cuStreamCreate, (zc_cu_stream * stream, unsigned flags), 2000)                               \
    X(cuStreamDestroy, (zc_cu_stream stream), 4000)                                                \
    X(cuStreamSynchronize, (zc_cu_stream stream), 2000)                                            \
    X(cuStreamQuery, (zc_cu_stream stream), 2000)                                                  \
    X(cuStreamGetId, (zc_cu_stream stream, unsigned long long *id), 12000)                         \
    X(cuStreamIsCapturing, (zc_cu_stream stream, int *status), 10000)                              \
    X(cuStreamWaitEvent, (zc_cu_stream stream, zc_cu_event event, unsigned flags), 3020)           \
    X(cuStreamBatchMemOp,                                                                          \
      (zc_cu_stream stream, unsigned count, union zc_cu_mem_op *ops, unsigned flags), 11070)       \
    X(cuEventCreate, (zc_cu_event * event, unsigned flags), 2000)                                  \
    X(cuEventDestroy, (zc_cu_event event), 4000)                                                   \
    X(cuEventRecord, (zc_cu_event event, zc_cu_stream stream), 2000)                               \
    X(cuEventQuery, (zc_cu_event event), 2000)                                                     \
    X(cuEventSynchronize, (zc_cu_event event), 2000)                                               \
    X(cuEventElapsedTime, (float *ms, zc_cu_event begin, zc_cu_event end), 2000)                   \
    X(cuMemAlloc, (zc_cu_pointer * pointer, size_t bytes), 3020)                                   \
    X(cuMemFree, (zc_cu_pointer pointer), 3020)                                                    \
    X(cuMemHostAlloc, (void **pointer, size_t bytes, unsigned flags), 2020)                        \
    X(cuMemHostRegister, (void *pointer, size_t bytes, unsigned flags), 6050)                      \
    X(cuMemHostUnregister, (void *pointer), 4000)                                                  \
    X(cuMemHostGetDevicePointer, (zc_cu_pointer * seen, void *pointer, unsigned flags), 3020)      \
    X(cuMemFreeHost, (void *pointer), 2000)                                                        \
    X(cuModuleLoadData, (zc_cu_module * module, const void *image), 2000)                          \
    X(cuModuleUnload, (zc_cu_module module), 2000)                                                 \
    X(cuModuleGetFunction, (zc_cu_function * function, zc_cu_module module, const char *name),     \
      2000)                                                                                        \
    X(cuLaunchKernel,                                                                              \
      (zc_cu_function function, unsigned grid_x, unsigned grid_y, unsigned grid_z,                 \
       unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,                \
       zc_cu_stream stream, void **parameters, void **extra),                                      \
      4000)                                                                                        \
    X(cuThreadExchangeStreamCaptureMode, (int *mode), 10010)                                       \
    X(cuStreamBeginCapture, (zc_cu_stream stream, int mode), 10010)                                \
    X(cuStreamEndCapture, (zc_cu_stream stream, zc_cu_graph * graph), 10000)                       \
    X(cuGraphInstantiateWithFlags,                                                                 \
      (zc_cu_graph_exec * exec, zc_cu_graph graph, unsigned long long flags), 11040)               \
    X(cuGraphLaunch, (zc_cu_graph_exec exec, zc_cu_stream stream), 10000)                          \
    X(cuGraphExecDestroy, (zc_cu_graph_exec exec), 10000)                                          \
    X(cuGraphDestroy, (zc_cu_graph graph), 10000)

#endif
