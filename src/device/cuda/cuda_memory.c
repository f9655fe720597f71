/* GPU memory: allocations of the driver's virtual memory management, which travel between processes
 * as file descriptors, and between hosts of one NVLink domain as fabric handles. Knows nothing of
 * programs and streams. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "device/cuda/cuda_device.h"

struct cuda_memory {
    struct zc_memory head; /* first: a zc_memory is its cuda_memory */
    struct zc_local_memory local;
    zc_cu_allocation handle;
    zc_cu_pointer mapped; /* where our mapping begins; 0: the caller's memory, not mapped by us */
    size_t mapped_bytes;  /* of the whole allocation */
    size_t offset;        /* of head.base in the allocation */
    int fd;               /* exported; -1: not yet */
    bool has_fabric;      /* can be exported for other hosts */
    /* Bit i: GPU i may reach this mapping; the driver refuses to allow the same one twice. */
    _Atomic uint64_t allowed;
};

struct zc_cu_allocation_prop zc_cuda_allocation_prop(const struct zc_device *device)
{
    return (struct zc_cu_allocation_prop){
        .type = ZC_CU_MEM_ALLOCATION_PINNED,
        .handle_types = ZC_CU_MEM_HANDLE_POSIX_FD | (device->fabric ? ZC_CU_MEM_HANDLE_FABRIC : 0),
        .location = {.type = ZC_CU_MEM_LOCATION_DEVICE, .id = device->ordinal}};
}

static uint64_t gpu_bit(const struct zc_device *device)
{
    return UINT64_C(1) << (unsigned)device->ordinal % 64;
}

static zcta_status allow(struct zc_device *device, zc_cu_pointer at, size_t bytes)
{
    const struct zc_cu_access access = {
        .location = {.type = ZC_CU_MEM_LOCATION_DEVICE, .id = device->ordinal},
        .flags = ZC_CU_MEM_ACCESS_READWRITE};

    return zc_cuda_status(
        device->driver, device->diag, device->driver->cuMemSetAccess(at, bytes, &access, 1),
        "cuMemSetAccess",
        "letting this GPU reach a peer's memory; where NVLink or PCIe peer access "
        "between the two is missing, as `zerocta info` shows, ranks on them cannot "
        "share a team");
}

/* The same for what its owner may have opened to this GPU already, as ncclMemAlloc() does: the
 * driver refuses to open it twice. */
static zcta_status allow_once(struct zc_device *device, zc_cu_pointer at, size_t bytes)
{
    const struct zc_cu_location here = {ZC_CU_MEM_LOCATION_DEVICE, device->ordinal};
    unsigned long long flags = 0;

    if (device->driver->cuMemGetAccess(&flags, &here, at) == ZC_CU_SUCCESS &&
        flags == ZC_CU_MEM_ACCESS_READWRITE)
        return ZCTA_OK;
    return allow(device, at, bytes);
}

/* Maps the allocation behind memory->handle for this device. */
static zcta_status map(struct zc_device *device, struct cuda_memory *memory)
{
    const struct zc_cuda_driver *driver = device->driver;
    zc_cu_pointer at = 0;
    zcta_status status;

    status = zc_cuda_status(
        driver, device->diag,
        driver->cuMemAddressReserve(&at, memory->mapped_bytes, device->granularity, 0, 0),
        "cuMemAddressReserve", "reserving addresses");
    if (status != ZCTA_OK)
        return status;
    status = zc_cuda_status(driver, device->diag,
                            driver->cuMemMap(at, memory->mapped_bytes, 0, memory->handle, 0),
                            "cuMemMap", "mapping GPU memory");
    if (status != ZCTA_OK)
        goto fail_reserved;
    status = allow(device, at, memory->mapped_bytes);
    if (status != ZCTA_OK)
        goto fail_mapped;
    memory->mapped = at;
    atomic_store_explicit(&memory->allowed, gpu_bit(device), memory_order_relaxed);
    memory->head.base = (void *)(uintptr_t)(at + memory->offset);
    return ZCTA_OK;
fail_mapped:
    driver->cuMemUnmap(at, memory->mapped_bytes);
fail_reserved:
    driver->cuMemAddressFree(at, memory->mapped_bytes);
    return status;
}

static void unmap(struct zc_device *device, struct cuda_memory *memory)
{
    if (memory->mapped == 0)
        return;
    device->driver->cuMemUnmap(memory->mapped, memory->mapped_bytes);
    device->driver->cuMemAddressFree(memory->mapped, memory->mapped_bytes);
}

static struct cuda_memory *new_memory(struct zc_device *device, size_t bytes)
{
    struct cuda_memory *made = calloc(1, sizeof *made);

    if (made == NULL) {
        zc_fail(device->diag, ZCTA_ERR_NO_MEMORY, "calloc", ENOMEM, "out of memory");
        return NULL;
    }
    made->head.bytes = bytes;
    made->fd = -1;
    return made;
}

static zcta_status zero(struct zc_device *device, const struct cuda_memory *memory)
{
    const struct zc_cuda_driver *driver = device->driver;
    zcta_status status;

    status = zc_cuda_status(
        driver, device->diag,
        driver->cuMemsetD8Async(memory->mapped, 0, memory->mapped_bytes, device->stream),
        "cuMemsetD8Async", "zeroing GPU memory");
    if (status == ZCTA_OK)
        status = zc_cuda_status(driver, device->diag, driver->cuStreamSynchronize(device->stream),
                                "cuStreamSynchronize", "zeroing GPU memory");
    return status;
}

static zcta_status create(struct zc_device *device, struct cuda_memory *memory)
{
    const struct zc_cu_allocation_prop prop = zc_cuda_allocation_prop(device);
    const zc_cu_result made =
        device->driver->cuMemCreate(&memory->handle, memory->mapped_bytes, &prop, 0);
    zcta_status status;

    if (made == ZC_CU_ERROR_OUT_OF_MEMORY)
        return zc_fail(device->diag, ZCTA_ERR_NO_MEMORY, "cuMemCreate", made,
                       "GPU %d has no %zu bytes left; ask for less, or see with nvidia-smi who "
                       "holds its memory",
                       device->ordinal, memory->mapped_bytes);
    status =
        zc_cuda_status(device->driver, device->diag, made, "cuMemCreate", "allocating GPU memory");
    if (status != ZCTA_OK)
        return status;
    status = map(device, memory);
    if (status != ZCTA_OK)
        goto fail_created;
    status = zero(device, memory);
    if (status != ZCTA_OK)
        goto fail_mapped;
    memory->has_fabric = device->fabric;
    return ZCTA_OK;
fail_mapped:
    unmap(device, memory);
fail_created:
    device->driver->cuMemRelease(memory->handle);
    return status;
}

zcta_status zc_cuda_memory_alloc(struct zc_device *device, size_t bytes, struct zc_memory **memory)
{
    const size_t unit = device->granularity;
    struct cuda_memory *made = NULL;
    zcta_status status;

    if (bytes > SIZE_MAX / 2 - unit)
        return zc_fail(device->diag, ZCTA_ERR_NO_MEMORY, "memory_alloc", 0,
                       "no GPU has %zu bytes; ask for less", bytes);
    made = new_memory(device, bytes);
    if (made == NULL)
        return ZCTA_ERR_NO_MEMORY;
    made->mapped_bytes = (bytes + unit - 1) / unit * unit;
    status = zc_cuda_enter(device);
    if (status != ZCTA_OK)
        goto fail;
    status = create(device, made);
    zc_cuda_leave(device);
    if (status != ZCTA_OK)
        goto fail;
    zc_local_publish(&made->local);
    *memory = &made->head;
    return ZCTA_OK;
fail:
    free(made);
    return status;
}

/* Whether an allocation of the caller's is what peers can map and this rank's copies serve. */
static zcta_status check_foreign(struct zc_device *device, const void *base,
                                 const struct zc_cu_allocation_prop *prop)
{
    if ((prop->handle_types & ZC_CU_MEM_HANDLE_POSIX_FD) == 0)
        return zc_fail(device->diag, ZCTA_ERR_UNSUPPORTED, "cuMemGetAllocationPropertiesFromHandle",
                       prop->handle_types,
                       "%p was allocated without a POSIX file descriptor as a handle type, so it "
                       "cannot be shared between processes",
                       base);
    if (prop->location.type != ZC_CU_MEM_LOCATION_DEVICE)
        return zc_fail(device->diag, ZCTA_ERR_UNSUPPORTED, "cuMemGetAllocationPropertiesFromHandle",
                       prop->location.type,
                       "%p is not GPU memory; register memory on GPU %d, which is this rank's",
                       base, device->ordinal);
    if (prop->location.id != device->ordinal)
        return zc_fail(device->diag, ZCTA_ERR_INVALID, "cuMemGetAllocationPropertiesFromHandle",
                       prop->location.id,
                       "%p lies on GPU %d, but this rank's is GPU %d; register memory there, or "
                       "name the other GPU in zcta_init()",
                       base, prop->location.id, device->ordinal);
    return ZCTA_OK;
}

/* The allocation behind a pointer of the caller's, if it can be shared. */
static zcta_status retain(struct zc_device *device, void *base, struct cuda_memory *memory)
{
    const struct zc_cuda_driver *driver = device->driver;
    struct zc_cu_allocation_prop prop = {0};
    zc_cu_pointer begin = 0;
    size_t size = 0;
    zcta_status status;

    if (driver->cuMemRetainAllocationHandle(&memory->handle, base) != ZC_CU_SUCCESS)
        return zc_fail(
            device->diag, ZCTA_ERR_UNSUPPORTED, "cuMemRetainAllocationHandle", 0,
            "%p was not allocated with cuMemCreate(), so it cannot be shared; cudaMalloc() "
            "memory cannot: use zcta_window_alloc(), ncclMemAlloc(), or PyTorch's "
            "expandable segments",
            base);
    status = zc_cuda_status(
        driver, device->diag, driver->cuMemGetAllocationPropertiesFromHandle(&prop, memory->handle),
        "cuMemGetAllocationPropertiesFromHandle", "asking what the memory to register is");
    if (status == ZCTA_OK)
        status = check_foreign(device, base, &prop);
    if (status != ZCTA_OK) {
        driver->cuMemRelease(memory->handle);
        return status;
    }
    if (driver->cuMemGetAddressRange(&begin, &size, (uintptr_t)base) != ZC_CU_SUCCESS ||
        (uintptr_t)base - begin > size || memory->head.bytes > size - ((uintptr_t)base - begin)) {
        driver->cuMemRelease(memory->handle);
        return zc_fail(
            device->diag, ZCTA_ERR_INVALID, "cuMemGetAddressRange", 0,
            "%p and %zu bytes reach past the end of one allocation (%zu bytes); register "
            "each allocation by itself",
            base, memory->head.bytes, size);
    }
    atomic_store_explicit(&memory->allowed, gpu_bit(device), memory_order_relaxed);
    memory->has_fabric = device->fabric && (prop.handle_types & ZC_CU_MEM_HANDLE_FABRIC) != 0;
    memory->offset = (uintptr_t)base - begin;
    memory->mapped_bytes = size;
    memory->head.base = base;
    return ZCTA_OK;
}

zcta_status zc_cuda_memory_adopt(struct zc_device *device, void *base, size_t bytes,
                                 struct zc_memory **memory)
{
    struct cuda_memory *made = new_memory(device, bytes);
    zcta_status status;

    if (made == NULL)
        return ZCTA_ERR_NO_MEMORY;
    status = zc_cuda_enter(device);
    if (status != ZCTA_OK)
        goto fail;
    status = retain(device, base, made);
    zc_cuda_leave(device);
    if (status != ZCTA_OK)
        goto fail;
    zc_local_publish(&made->local);
    *memory = &made->head;
    return ZCTA_OK;
fail:
    free(made);
    return status;
}

zcta_status zc_cuda_memory_export(struct zc_device *device, struct zc_memory *memory,
                                  struct zc_memory_handle *handle, int *fd)
{
    struct cuda_memory *exported = (struct cuda_memory *)memory;
    zcta_status status = ZCTA_OK;

    if (exported->fd < 0)
        status = zc_cuda_status(device->driver, device->diag,
                                device->driver->cuMemExportToShareableHandle(
                                    &exported->fd, exported->handle, ZC_CU_MEM_HANDLE_POSIX_FD, 0),
                                "cuMemExportToShareableHandle",
                                "sharing GPU memory with the other ranks");
    if (status != ZCTA_OK)
        return status;
    *fd = exported->fd;
    *handle = (struct zc_memory_handle){.bytes = memory->bytes,
                                        .local_id = exported->local.id,
                                        .has_fd = 1,
                                        .offset = exported->offset,
                                        .mapped_bytes = exported->mapped_bytes,
                                        .has_fabric = exported->has_fabric};
    if (exported->has_fabric)
        status = zc_cuda_status(device->driver, device->diag,
                                device->driver->cuMemExportToShareableHandle(
                                    handle->fabric, exported->handle, ZC_CU_MEM_HANDLE_FABRIC, 0),
                                "cuMemExportToShareableHandle",
                                "sharing GPU memory with ranks on other hosts");
    return status;
}

/* Ranks of one process share the address; this rank's GPU only has to be let in. */
static zcta_status import_local(struct zc_device *device, const struct zc_memory_handle *handle,
                                struct zc_memory **memory)
{
    struct zc_local_memory *local = zc_local_take(handle->local_id);
    struct cuda_memory *shared;
    zcta_status status = ZCTA_OK;

    if (local == NULL)
        return zc_fail(device->diag, ZCTA_ERR_PEER, "memory_import", 0,
                       "a rank of this process freed its memory before it could be shared");
    shared = (struct cuda_memory *)((char *)local - offsetof(struct cuda_memory, local));
    /* Ranks on one GPU share its right; the round that confirms comes after all of them. */
    if ((atomic_fetch_or_explicit(&shared->allowed, gpu_bit(device), memory_order_relaxed) &
         gpu_bit(device)) != 0)
        status = ZCTA_OK;
    else if (shared->mapped != 0)
        status = allow(device, shared->mapped, shared->mapped_bytes);
    else
        status =
            allow_once(device, (uintptr_t)shared->head.base - shared->offset, shared->mapped_bytes);
    if (status != ZCTA_OK) {
        zc_cuda_memory_release(device, &shared->head);
        return status;
    }
    *memory = &shared->head;
    return ZCTA_OK;
}

/* By its descriptor, or, from another host, from where none comes, by its fabric handle. */
static zc_cu_result open_handle(struct zc_device *device, const struct zc_memory_handle *handle,
                                int fd, zc_cu_allocation *opened)
{
    struct zc_memory_handle copy = *handle; /* the driver wants it writable */

    if (fd >= 0)
        return device->driver->cuMemImportFromShareableHandle(opened, (void *)(intptr_t)fd,
                                                              ZC_CU_MEM_HANDLE_POSIX_FD);
    return device->driver->cuMemImportFromShareableHandle(opened, copy.fabric,
                                                          ZC_CU_MEM_HANDLE_FABRIC);
}

static zcta_status import_remote(struct zc_device *device, const struct zc_memory_handle *handle,
                                 int fd, struct zc_memory **memory)
{
    struct cuda_memory *made = NULL;
    zcta_status status;

    if (handle->has_fd == 0 || handle->bytes == 0 || handle->offset > handle->mapped_bytes ||
        handle->bytes > handle->mapped_bytes - handle->offset)
        return zc_fail(device->diag, ZCTA_ERR_PEER, "memory_import", 0,
                       "a peer sent a handle that makes no sense");
    if (fd < 0 && handle->has_fabric == 0)
        return zc_fail(device->diag, ZCTA_ERR_UNSUPPORTED, "memory_import", 0,
                       "it was allocated without a fabric handle as a handle type, so only ranks "
                       "on its own host can map it; use zcta_window_alloc()");
    made = new_memory(device, handle->bytes);
    if (made == NULL)
        return ZCTA_ERR_NO_MEMORY;
    made->mapped_bytes = handle->mapped_bytes;
    made->offset = handle->offset;
    status =
        zc_cuda_status(device->driver, device->diag, open_handle(device, handle, fd, &made->handle),
                       "cuMemImportFromShareableHandle",
                       "opening a peer's GPU memory, for which the peer's GPU must be visible to "
                       "this process too (look at CUDA_VISIBLE_DEVICES)");
    if (status != ZCTA_OK)
        goto fail;
    status = map(device, made);
    if (status != ZCTA_OK)
        goto fail_imported;
    zc_local_publish(&made->local);
    *memory = &made->head;
    return ZCTA_OK;
fail_imported:
    device->driver->cuMemRelease(made->handle);
fail:
    free(made);
    return status;
}

zcta_status zc_cuda_memory_import(struct zc_device *device, const struct zc_memory_handle *handle,
                                  int fd, bool same_process, struct zc_memory **memory)
{
    zcta_status status = zc_cuda_enter(device);

    if (status != ZCTA_OK)
        return status;
    status = same_process ? import_local(device, handle, memory)
                          : import_remote(device, handle, fd, memory);
    zc_cuda_leave(device);
    return status;
}

void zc_cuda_memory_release(struct zc_device *device, struct zc_memory *memory)
{
    struct cuda_memory *released = (struct cuda_memory *)memory;

    if (memory == NULL || !zc_local_drop(&released->local))
        return;
    unmap(device, released);
    device->driver->cuMemRelease(released->handle);
    if (released->fd >= 0)
        close(released->fd);
    free(released);
}

static zcta_status place_part(struct zc_device *device, const struct zc_memory *part,
                              zc_cu_pointer at, size_t stride)
{
    const struct cuda_memory *memory = (const struct cuda_memory *)part;
    zcta_status status;

    if (memory->offset != 0 || memory->mapped_bytes != stride)
        return zc_fail(device->diag, ZCTA_ERR_UNSUPPORTED, "zcta_window_view", 0,
                       "registered memory that is only a part of its allocation has no contiguous "
                       "view");
    status = zc_cuda_status(device->driver, device->diag,
                            device->driver->cuMemMap(at, stride, 0, memory->handle, 0), "cuMemMap",
                            "mapping the view");
    if (status == ZCTA_OK) {
        status = allow(device, at, stride);
        if (status != ZCTA_OK)
            device->driver->cuMemUnmap(at, stride);
    }
    return status;
}

static zcta_status map_view(struct zc_device *device, struct zc_memory *const *parts,
                            uint32_t count, struct zc_view *view)
{
    const size_t stride = ((const struct cuda_memory *)parts[0])->mapped_bytes;
    zc_cu_pointer at = 0;
    uint32_t placed = 0;
    zcta_status status;

    status = zc_cuda_status(
        device->driver, device->diag,
        device->driver->cuMemAddressReserve(&at, stride * count, device->granularity, 0, 0),
        "cuMemAddressReserve", "reserving addresses for the view");
    if (status != ZCTA_OK)
        return status;
    while (placed < count && status == ZCTA_OK) {
        status = place_part(device, parts[placed], at + placed * stride, stride);
        placed += status == ZCTA_OK;
    }
    if (status != ZCTA_OK)
        goto fail;
    *view = (struct zc_view){
        .base = (const void *)(uintptr_t)at, .bytes = stride * count, .stride = stride};
    return ZCTA_OK;
fail:
    for (uint32_t i = 0; i < placed; i++)
        device->driver->cuMemUnmap(at + i * stride, stride);
    device->driver->cuMemAddressFree(at, stride * count);
    return status;
}

zcta_status zc_cuda_view_map(struct zc_device *device, struct zc_memory *const *parts,
                             uint32_t count, struct zc_view *view)
{
    zcta_status status = zc_cuda_enter(device);

    if (status != ZCTA_OK)
        return status;
    status = map_view(device, parts, count, view);
    zc_cuda_leave(device);
    return status;
}

void zc_cuda_view_unmap(struct zc_device *device, const struct zc_view *view)
{
    const zc_cu_pointer at = (uintptr_t)view->base;

    for (size_t done = 0; done < view->bytes; done += view->stride)
        device->driver->cuMemUnmap(at + done, view->stride);
    device->driver->cuMemAddressFree(at, view->bytes);
}
