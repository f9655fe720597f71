/* The declarations in cuda_api.h against NVIDIA's own: values, sizes and places. */
#include <cuda.h>
#include <stddef.h>
#include <stdio.h>

#include "device/cuda/cuda_api.h"
#include "device/device.h"

#define SAME(ours, theirs)                                                                         \
    _Static_assert((long long)(ours) == (long long)(theirs), #ours " is not " #theirs)

SAME(ZC_CU_SUCCESS, CUDA_SUCCESS);
SAME(ZC_CU_ERROR_OUT_OF_MEMORY, CUDA_ERROR_OUT_OF_MEMORY);
SAME(ZC_CU_ERROR_NO_DEVICE, CUDA_ERROR_NO_DEVICE);
SAME(ZC_CU_ERROR_NOT_READY, CUDA_ERROR_NOT_READY);
SAME(ZC_CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT, CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT);
SAME(ZC_CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
SAME(ZC_CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY,
     CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED);
SAME(ZC_CU_DEVICE_ATTRIBUTE_POSIX_FD,
     CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED);
SAME(ZC_CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL);
SAME(ZC_CU_EVENT_DISABLE_TIMING, CU_EVENT_DISABLE_TIMING);
SAME(ZC_CU_STREAM_NON_BLOCKING, CU_STREAM_NON_BLOCKING);
SAME(ZC_CU_STREAM_CAPTURE_NONE, CU_STREAM_CAPTURE_STATUS_NONE);
SAME(ZC_CU_STREAM_CAPTURE_MODE_GLOBAL, CU_STREAM_CAPTURE_MODE_GLOBAL);
SAME(ZC_CU_STREAM_CAPTURE_MODE_RELAXED, CU_STREAM_CAPTURE_MODE_RELAXED);
SAME(ZC_CU_MEM_HOST_PORTABLE, CU_MEMHOSTALLOC_PORTABLE);
SAME(ZC_CU_MEM_HOST_PORTABLE, CU_MEMHOSTREGISTER_PORTABLE);
SAME(ZC_CU_MEM_HOST_REGISTER_DEVICE_MAP, CU_MEMHOSTREGISTER_DEVICEMAP);
SAME(ZC_CU_MEM_ALLOCATION_PINNED, CU_MEM_ALLOCATION_TYPE_PINNED);
SAME(ZC_CU_DEVICE_ATTRIBUTE_FABRIC, CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_FABRIC_SUPPORTED);
SAME(ZC_CU_DEVICE_ATTRIBUTE_MULTICAST, CU_DEVICE_ATTRIBUTE_MULTICAST_SUPPORTED);
SAME(ZC_CU_MEM_HANDLE_POSIX_FD, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
SAME(ZC_CU_MEM_HANDLE_FABRIC, CU_MEM_HANDLE_TYPE_FABRIC);
SAME(ZC_FABRIC_HANDLE_BYTES, sizeof(CUmemFabricHandle));
SAME(ZC_CU_MEM_LOCATION_DEVICE, CU_MEM_LOCATION_TYPE_DEVICE);
SAME(ZC_CU_MEM_ACCESS_READWRITE, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
SAME(ZC_CU_MEM_GRANULARITY_RECOMMENDED, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED);
SAME(ZC_CU_MEM_OP_WAIT_VALUE_32, CU_STREAM_MEM_OP_WAIT_VALUE_32);
SAME(ZC_CU_MEM_OP_WRITE_VALUE_32, CU_STREAM_MEM_OP_WRITE_VALUE_32);
SAME(ZC_CU_MEM_OP_WRITE_VALUE_64, CU_STREAM_MEM_OP_WRITE_VALUE_64);
SAME(ZC_CU_DEVICE_ATTRIBUTE_WIDE_MEM_OPS, CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS);
SAME(ZC_CU_WAIT_VALUE_GEQ, CU_STREAM_WAIT_VALUE_GEQ);
SAME(ZC_CU_WAIT_VALUE_FLUSH, CU_STREAM_WAIT_VALUE_FLUSH);
SAME(ZC_CU_DEVICE_ATTRIBUTE_FLUSH_REMOTE_WRITES, CU_DEVICE_ATTRIBUTE_CAN_FLUSH_REMOTE_WRITES);
SAME(ZC_CU_WRITE_VALUE_DEFAULT, CU_STREAM_WRITE_VALUE_DEFAULT);

SAME(sizeof(zc_cu_device), sizeof(CUdevice));
SAME(sizeof(zc_cu_pointer), sizeof(CUdeviceptr));
SAME(sizeof(zc_cu_allocation), sizeof(CUmemGenericAllocationHandle));
SAME(sizeof(struct zc_cu_location), sizeof(CUmemLocation));
SAME(sizeof(struct zc_cu_allocation_prop), sizeof(CUmemAllocationProp));
SAME(offsetof(struct zc_cu_allocation_prop, handle_types),
     offsetof(CUmemAllocationProp, requestedHandleTypes));
SAME(offsetof(struct zc_cu_allocation_prop, location), offsetof(CUmemAllocationProp, location));
SAME(offsetof(struct zc_cu_allocation_prop, flags), offsetof(CUmemAllocationProp, allocFlags));
SAME(sizeof(struct zc_cu_access), sizeof(CUmemAccessDesc));
SAME(offsetof(struct zc_cu_access, flags), offsetof(CUmemAccessDesc, flags));
SAME(sizeof(union zc_cu_mem_op), sizeof(CUstreamBatchMemOpParams));
SAME(offsetof(union zc_cu_mem_op, value.address),
     offsetof(CUstreamBatchMemOpParams, waitValue.address));
SAME(offsetof(union zc_cu_mem_op, value.value),
     offsetof(CUstreamBatchMemOpParams, waitValue.value));
SAME(offsetof(union zc_cu_mem_op, value.flags),
     offsetof(CUstreamBatchMemOpParams, waitValue.flags));
SAME(offsetof(union zc_cu_mem_op, value.alias),
     offsetof(CUstreamBatchMemOpParams, waitValue.alias));
SAME(offsetof(union zc_cu_mem_op, value.address),
     offsetof(CUstreamBatchMemOpParams, writeValue.address));
SAME(offsetof(union zc_cu_mem_op, value.value),
     offsetof(CUstreamBatchMemOpParams, writeValue.value));

SAME(ZC_CU_MEMORY_DEVICE, CU_MEMORYTYPE_DEVICE);
SAME(sizeof(struct zc_cu_copy_2d), sizeof(CUDA_MEMCPY2D));
SAME(offsetof(struct zc_cu_copy_2d, from_type), offsetof(CUDA_MEMCPY2D, srcMemoryType));
SAME(offsetof(struct zc_cu_copy_2d, from), offsetof(CUDA_MEMCPY2D, srcDevice));
SAME(offsetof(struct zc_cu_copy_2d, from_pitch), offsetof(CUDA_MEMCPY2D, srcPitch));
SAME(offsetof(struct zc_cu_copy_2d, to_type), offsetof(CUDA_MEMCPY2D, dstMemoryType));
SAME(offsetof(struct zc_cu_copy_2d, to), offsetof(CUDA_MEMCPY2D, dstDevice));
SAME(offsetof(struct zc_cu_copy_2d, to_pitch), offsetof(CUDA_MEMCPY2D, dstPitch));
SAME(offsetof(struct zc_cu_copy_2d, width), offsetof(CUDA_MEMCPY2D, WidthInBytes));
SAME(offsetof(struct zc_cu_copy_2d, height), offsetof(CUDA_MEMCPY2D, Height));

int main(void)
{
    puts("as in cuda.h: all of it was compared when this was compiled");
    return 0;
}
