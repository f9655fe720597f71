/* GPU memory: allocations of the driver's virtual memory management, which travel between processes
 * as file descriptors, and between hosts of one NVLink domain as fabric handles. What a caller
 * registers may be several of them, mapped one behind the other, as PyTorch's expandable segments
 * are. Knows nothing of programs and streams. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/shared_file.h"
#include "device/cuda/cuda_device.h"

struct piece {
    zc_cu_allocation handle;
    size_t bytes;
};

struct cuda_memory {
    struct zc_memory head; /* first: a zc_memory is its cuda_memory */
    struct zc_local_memory local;
    struct cuda_memory *next_kept;
    struct piece *pieces; /* one behind the other */
    uint32_t piece_count; /* so far: pieces of a peer's memory come one by one */
    uint32_t piece_most;
    zc_cu_pointer mapped; /* where our mapping begins; 0: the caller's memory, not mapped by us */
    size_t mapped_bytes;  /* of all pieces */
    size_t offset;        /* of head.base in them */
    int fd;               /* the latest exported piece's; -1: none yet */
    uint32_t fd_piece;
    bool has_fabric; /* can be exported for other hosts */
    bool at_host;    /* the host's: no pieces, and mapped_bytes from head.base on */
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
        "letting this GPU reach a peer's memory; where NVLink or PCIe peer access between the two "
        "is missing, as `zerocta info` shows, ZEROCTA_P2P=0 takes their ranks through the host");
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

static size_t piece_offset(const struct cuda_memory *memory, uint32_t piece)
{
    size_t offset = 0;

    for (uint32_t i = 0; i < piece; i++)
        offset += memory->pieces[i].bytes;
    return offset;
}

/* Reserves addresses for the whole. */
static zcta_status reserve(struct zc_device *device, struct cuda_memory *memory)
{
    zcta_status status;

    status = zc_cuda_status(device->driver, device->diag,
                            device->driver->cuMemAddressReserve(
                                &memory->mapped, memory->mapped_bytes, device->granularity, 0, 0),
                            "cuMemAddressReserve", "reserving addresses");
    if (status != ZCTA_OK)
        return status;
    memory->head.base = (void *)(uintptr_t)(memory->mapped + memory->offset);
    atomic_store_explicit(&memory->allowed, gpu_bit(device), memory_order_relaxed);
    return ZCTA_OK;
}

/* Maps the next piece behind those that are there, for this device. The piece is the memory's then;
 * after an error it is still the caller's. */
static zcta_status place(struct zc_device *device, struct cuda_memory *memory, struct piece piece)
{
    const zc_cu_pointer at = memory->mapped + piece_offset(memory, memory->piece_count);
    zcta_status status = zc_cuda_status(
        device->driver, device->diag, device->driver->cuMemMap(at, piece.bytes, 0, piece.handle, 0),
        "cuMemMap", "mapping GPU memory");

    if (status != ZCTA_OK)
        return status;
    status = allow(device, at, piece.bytes);
    if (status == ZCTA_OK)
        memory->pieces[memory->piece_count++] = piece;
    else
        device->driver->cuMemUnmap(at, piece.bytes);
    return status;
}

/* What a stuck stream may still touch stays until the process ends. */
static void keep(struct zc_device *device, struct cuda_memory *memory)
{
    pthread_mutex_lock(&device->lock);
    memory->next_kept = device->kept;
    device->kept = memory;
    pthread_mutex_unlock(&device->lock);
}

/* Whatever there is of it: mappings, reservation, handles, descriptor. */
static void destroy(struct zc_device *device, struct cuda_memory *memory)
{
    const struct zc_cuda_driver *driver = device->driver;

    if (atomic_load_explicit(&device->lost, memory_order_acquire)) {
        keep(device, memory);
        return;
    }
    if (memory->at_host && memory->head.base != NULL)
        zc_cuda_host_unmap(device, memory->head.base, memory->mapped_bytes);
    for (uint32_t i = 0; i < memory->piece_count; i++) {
        if (memory->mapped != 0)
            driver->cuMemUnmap(memory->mapped + piece_offset(memory, i), memory->pieces[i].bytes);
        driver->cuMemRelease(memory->pieces[i].handle);
    }
    if (memory->mapped != 0)
        driver->cuMemAddressFree(memory->mapped, memory->mapped_bytes);
    if (memory->fd >= 0)
        close(memory->fd);
    free(memory->pieces);
    free(memory);
}

static struct cuda_memory *new_memory(struct zc_device *device, size_t bytes, uint32_t piece_most)
{
    struct cuda_memory *made = calloc(1, sizeof *made);

    if (made != NULL)
        made->pieces = calloc(piece_most, sizeof *made->pieces);
    if (made == NULL || made->pieces == NULL) {
        zc_fail(device->diag, ZCTA_ERR_NO_MEMORY, "calloc", ENOMEM, "out of memory");
        free(made);
        return NULL;
    }
    made->head.bytes = bytes;
    made->piece_most = piece_most;
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
    struct piece whole = {.bytes = memory->mapped_bytes};
    const zc_cu_result made = device->driver->cuMemCreate(&whole.handle, whole.bytes, &prop, 0);
    zcta_status status;

    if (made == ZC_CU_ERROR_OUT_OF_MEMORY)
        return zc_fail(device->diag, ZCTA_ERR_NO_MEMORY, "cuMemCreate", made,
                       "GPU %d has no %zu bytes left; ask for less, or see with nvidia-smi who "
                       "holds its memory",
                       device->ordinal, whole.bytes);
    status =
        zc_cuda_status(device->driver, device->diag, made, "cuMemCreate", "allocating GPU memory");
    if (status != ZCTA_OK)
        return status;
    status = reserve(device, memory);
    if (status == ZCTA_OK)
        status = place(device, memory, whole);
    if (status != ZCTA_OK) {
        device->driver->cuMemRelease(whole.handle);
        return status;
    }
    memory->has_fabric = device->fabric;
    return zero(device, memory);
}

static zcta_status create_on_device(struct zc_device *device, struct cuda_memory *memory)
{
    zcta_status status = zc_cuda_enter(device);

    if (status != ZCTA_OK)
        return status;
    status = create(device, memory);
    zc_cuda_leave(device);
    return status;
}

/* On a GPU `sharers` does not matter: the driver refuses what is not there. */
zcta_status zc_cuda_memory_alloc(struct zc_device *device, enum zc_where where, size_t bytes,
                                 uint32_t sharers, struct zc_memory **memory)
{
    const size_t unit = device->granularity;
    struct cuda_memory *made = NULL;
    zcta_status status;

    if (bytes > SIZE_MAX / 2 - unit)
        return zc_fail(device->diag, ZCTA_ERR_NO_MEMORY, "memory_alloc", 0,
                       "no GPU has %zu bytes; ask for less", bytes);
    made = new_memory(device, bytes, 1);
    if (made == NULL)
        return ZCTA_ERR_NO_MEMORY;
    made->mapped_bytes = (bytes + unit - 1) / unit * unit;
    made->at_host = where == ZC_ON_HOST;
    status = made->at_host ? zc_cuda_host_make(device, made->mapped_bytes, sharers, &made->fd,
                                               &made->head.base)
                           : create_on_device(device, made);
    if (status != ZCTA_OK) {
        destroy(device, made);
        return status;
    }
    zc_local_publish(&made->local);
    *memory = &made->head;
    return ZCTA_OK;
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

/* The allocation that `at` lies in, if it can be shared, and where its mapping begins. */
static zcta_status retain(struct zc_device *device, struct cuda_memory *memory, zc_cu_pointer at,
                          zc_cu_pointer *begin, struct piece *piece)
{
    const struct zc_cuda_driver *driver = device->driver;
    void *address = (void *)(uintptr_t)at;
    struct zc_cu_allocation_prop prop = {0};
    zcta_status status;

    if (driver->cuMemRetainAllocationHandle(&piece->handle, address) != ZC_CU_SUCCESS)
        return zc_fail(
            device->diag, ZCTA_ERR_UNSUPPORTED, "cuMemRetainAllocationHandle", 0,
            "%p was not allocated with cuMemCreate(), so it cannot be shared; cudaMalloc() "
            "memory cannot: use zcta_window_alloc(), ncclMemAlloc(), or PyTorch's "
            "expandable segments",
            address);
    status = zc_cuda_status(
        driver, device->diag, driver->cuMemGetAllocationPropertiesFromHandle(&prop, piece->handle),
        "cuMemGetAllocationPropertiesFromHandle", "asking what the memory to register is");
    if (status == ZCTA_OK)
        status = check_foreign(device, address, &prop);
    if (status == ZCTA_OK &&
        (driver->cuMemGetAddressRange(begin, &piece->bytes, at) != ZC_CU_SUCCESS ||
         at - *begin >= piece->bytes))
        status = zc_fail(device->diag, ZCTA_ERR_DEVICE, "cuMemGetAddressRange", 0,
                         "the driver does not tell how far the memory at %p reaches", address);
    if (status != ZCTA_OK)
        driver->cuMemRelease(piece->handle);
    memory->has_fabric = memory->has_fabric && (prop.handle_types & ZC_CU_MEM_HANDLE_FABRIC) != 0;
    return status;
}

static bool add_piece(struct cuda_memory *memory, struct piece piece)
{
    enum { STEP = 64 };

    if (memory->piece_count == memory->piece_most) {
        const size_t most = (size_t)memory->piece_count + STEP;
        struct piece *grown = realloc(memory->pieces, most * sizeof *grown);

        if (grown == NULL)
            return false;
        memory->pieces = grown;
        memory->piece_most = (uint32_t)most;
    }
    memory->pieces[memory->piece_count++] = piece;
    memory->mapped_bytes += piece.bytes;
    return true;
}

/* The allocations behind [base, base + bytes), which may be several. */
static zcta_status retain_all(struct zc_device *device, void *base, struct cuda_memory *memory)
{
    const zc_cu_pointer end = (uintptr_t)base + memory->head.bytes;
    zc_cu_pointer at = (uintptr_t)base, begin = 0;
    zcta_status status = ZCTA_OK;

    memory->has_fabric = device->fabric;
    while (at < end && status == ZCTA_OK) {
        struct piece piece = {0};

        status = retain(device, memory, at, &begin, &piece);
        if (status != ZCTA_OK)
            break;
        if (memory->piece_count == 0)
            memory->offset = at - begin;
        if (memory->piece_count == ZC_MEMORY_PIECES_MOST || !add_piece(memory, piece)) {
            device->driver->cuMemRelease(piece.handle);
            status = zc_fail(device->diag, ZCTA_ERR_NO_MEMORY, "zcta_window_register", ENOMEM,
                             "%p and %zu bytes are in too many allocations to keep; register less",
                             base, memory->head.bytes);
        }
        at = begin + piece.bytes;
    }
    if (status != ZCTA_OK && memory->piece_count > 0)
        status = zc_fail(device->diag, status, "zcta_window_register", 0,
                         "of %p and %zu bytes only the first %zu can be shared; register no more "
                         "than was allocated",
                         base, memory->head.bytes, memory->mapped_bytes - memory->offset);
    memory->head.base = base;
    atomic_store_explicit(&memory->allowed, gpu_bit(device), memory_order_relaxed);
    return status;
}

zcta_status zc_cuda_memory_adopt(struct zc_device *device, void *base, size_t bytes,
                                 struct zc_memory **memory)
{
    struct cuda_memory *made;
    zcta_status status;

    if (bytes > UINTPTR_MAX - (uintptr_t)base)
        return zc_fail(device->diag, ZCTA_ERR_INVALID, "zcta_window_register", 0,
                       "%p and %zu bytes wrap around the address space", base, bytes);
    made = new_memory(device, bytes, 1);
    if (made == NULL)
        return ZCTA_ERR_NO_MEMORY;
    status = zc_cuda_enter(device);
    if (status == ZCTA_OK) {
        status = retain_all(device, base, made);
        zc_cuda_leave(device);
    }
    if (status != ZCTA_OK) {
        destroy(device, made);
        return status;
    }
    zc_local_publish(&made->local);
    *memory = &made->head;
    return ZCTA_OK;
}

/* The driver's descriptor for a piece, kept off the standard ones. */
static zcta_status export_fd(const struct zc_device *device, struct cuda_memory *memory,
                             zc_cu_allocation allocation)
{
    const struct zc_cuda_driver *driver = device->driver;
    int fd = -1;
    zcta_status status = zc_cuda_status(
        driver, device->diag,
        driver->cuMemExportToShareableHandle(&fd, allocation, ZC_CU_MEM_HANDLE_POSIX_FD, 0),
        "cuMemExportToShareableHandle", "sharing GPU memory with the other ranks");

    if (status != ZCTA_OK)
        return status;
    memory->fd = zc_fd_lift(fd);
    if (memory->fd < 0)
        return zc_fail(device->diag, ZCTA_ERR_SYSTEM, "fcntl", errno,
                       "no descriptor for GPU memory: %s; raise `ulimit -n`", strerror(errno));
    return ZCTA_OK;
}

/* A descriptor is open for one piece at a time: there may be many. */
static zcta_status export_piece(struct zc_device *device, struct cuda_memory *memory,
                                uint32_t piece, struct zc_memory_handle *handle, int *fd)
{
    const struct zc_cuda_driver *driver = device->driver;
    const zc_cu_allocation allocation = memory->pieces[piece].handle;
    zcta_status status = ZCTA_OK;

    if (memory->fd >= 0 && memory->fd_piece != piece) {
        close(memory->fd);
        memory->fd = -1;
    }
    memory->fd_piece = piece;
    if (memory->fd < 0)
        status = export_fd(device, memory, allocation);
    if (status == ZCTA_OK && memory->has_fabric)
        status = zc_cuda_status(driver, device->diag,
                                driver->cuMemExportToShareableHandle(handle->fabric, allocation,
                                                                     ZC_CU_MEM_HANDLE_FABRIC, 0),
                                "cuMemExportToShareableHandle",
                                "sharing GPU memory with ranks on other hosts");
    if (status != ZCTA_OK)
        return status;
    *fd = memory->fd;
    handle->has_fd = 1;
    handle->has_fabric = memory->has_fabric;
    handle->piece_bytes = memory->pieces[piece].bytes;
    return ZCTA_OK;
}

zcta_status zc_cuda_memory_export(struct zc_device *device, struct zc_memory *memory,
                                  struct zc_memory_handle *handle, int *fd)
{
    struct cuda_memory *exported = (struct cuda_memory *)memory;

    *handle = (struct zc_memory_handle){.bytes = memory->bytes,
                                        .local_id = exported->local.id,
                                        .offset = exported->offset,
                                        .mapped_bytes = exported->mapped_bytes,
                                        .pieces = exported->piece_count,
                                        .at_host = exported->at_host};
    if (!exported->at_host)
        return export_piece(device, exported, 0, handle, fd);
    handle->has_fd = 1;
    *fd = exported->fd;
    return ZCTA_OK;
}

zcta_status zc_cuda_memory_export_piece(struct zc_device *device, struct zc_memory *memory,
                                        uint32_t piece, struct zc_memory_handle *handle, int *fd)
{
    *handle = (struct zc_memory_handle){0};
    return export_piece(device, (struct cuda_memory *)memory, piece, handle, fd);
}

/* Lets this device in to memory of another rank of this process. */
static zcta_status allow_pieces(struct zc_device *device, const struct cuda_memory *memory)
{
    const zc_cu_pointer begin = (uintptr_t)memory->head.base - memory->offset;
    zcta_status status = ZCTA_OK;

    for (uint32_t i = 0; i < memory->piece_count && status == ZCTA_OK; i++)
        status = allow_once(device, begin + piece_offset(memory, i), memory->pieces[i].bytes);
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
    /* Ranks on one GPU share its right; the round that confirms comes after all of them. The host's
     * memory is every GPU's. */
    if (!shared->at_host &&
        (atomic_fetch_or_explicit(&shared->allowed, gpu_bit(device), memory_order_relaxed) &
         gpu_bit(device)) == 0)
        status = allow_pieces(device, shared);
    if (status != ZCTA_OK) {
        atomic_fetch_and_explicit(&shared->allowed, ~gpu_bit(device), memory_order_relaxed);
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

/* Opens the next piece of a peer's memory and maps it. */
static zcta_status take_piece(struct zc_device *device, struct cuda_memory *memory,
                              const struct zc_memory_handle *handle, int fd)
{
    const size_t left = memory->mapped_bytes - piece_offset(memory, memory->piece_count);
    const bool last = memory->piece_count + 1 == memory->piece_most;
    struct piece piece = {.bytes = handle->piece_bytes};
    zcta_status status;

    if (memory->piece_count == memory->piece_most || handle->has_fd == 0 || piece.bytes == 0 ||
        piece.bytes > left || (last && piece.bytes != left))
        return zc_fail(device->diag, ZCTA_ERR_PEER, "memory_import", 0,
                       "a peer sent a handle that makes no sense");
    if (fd < 0 && handle->has_fabric == 0)
        return zc_fail(device->diag, ZCTA_ERR_UNSUPPORTED, "memory_import", 0,
                       "it was allocated without a fabric handle as a handle type, so only ranks "
                       "on its own host can map it; use zcta_window_alloc()");
    status = zc_cuda_status(
        device->driver, device->diag, open_handle(device, handle, fd, &piece.handle),
        "cuMemImportFromShareableHandle",
        "opening a peer's GPU memory, for which the peer's GPU must be visible to "
        "this process too (look at CUDA_VISIBLE_DEVICES; or set ZEROCTA_P2P=0, which "
        "takes the ranks through the host)");
    if (status != ZCTA_OK)
        return status;
    status = place(device, memory, piece);
    if (status != ZCTA_OK)
        device->driver->cuMemRelease(piece.handle);
    return status;
}

static zcta_status import_remote(struct zc_device *device, const struct zc_memory_handle *handle,
                                 int fd, struct zc_memory **memory)
{
    struct cuda_memory *made = NULL;
    zcta_status status;

    if (handle->pieces > ZC_MEMORY_PIECES_MOST || handle->bytes == 0 ||
        handle->offset > handle->mapped_bytes ||
        handle->bytes > handle->mapped_bytes - handle->offset)
        return zc_fail(device->diag, ZCTA_ERR_PEER, "memory_import", 0,
                       "a peer sent a handle that makes no sense");
    made = new_memory(device, handle->bytes, handle->pieces == 0 ? 1 : (uint32_t)handle->pieces);
    if (made == NULL)
        return ZCTA_ERR_NO_MEMORY;
    made->mapped_bytes = handle->mapped_bytes;
    made->offset = handle->offset;
    status = reserve(device, made);
    if (status == ZCTA_OK)
        status = take_piece(device, made, handle, fd);
    if (status != ZCTA_OK) {
        destroy(device, made);
        return status;
    }
    zc_local_publish(&made->local);
    *memory = &made->head;
    return ZCTA_OK;
}

/* The host's memory, which has no pieces. */
static zcta_status import_host(struct zc_device *device, const struct zc_memory_handle *handle,
                               int fd, struct zc_memory **memory)
{
    struct cuda_memory *made = NULL;
    zcta_status status;

    if (fd < 0 || handle->bytes == 0 || handle->bytes > handle->mapped_bytes ||
        handle->mapped_bytes > SIZE_MAX / 2)
        return zc_fail(device->diag, ZCTA_ERR_PEER, "memory_import", 0,
                       "a peer sent a handle that makes no sense");
    status = zc_shared_file_check(device->diag, fd, handle->mapped_bytes);
    if (status != ZCTA_OK)
        return status;
    made = new_memory(device, handle->bytes, 1);
    if (made == NULL)
        return ZCTA_ERR_NO_MEMORY;
    made->at_host = true;
    made->mapped_bytes = handle->mapped_bytes;
    status = zc_cuda_host_map(device, fd, made->mapped_bytes, &made->head.base);
    if (status != ZCTA_OK) {
        destroy(device, made);
        return status;
    }
    zc_local_publish(&made->local);
    *memory = &made->head;
    return ZCTA_OK;
}

zcta_status zc_cuda_memory_import_piece(struct zc_device *device, struct zc_memory *memory,
                                        uint32_t piece, const struct zc_memory_handle *handle,
                                        int fd)
{
    struct cuda_memory *taken = (struct cuda_memory *)memory;
    zcta_status status;

    if (piece != taken->piece_count)
        return zc_fail(device->diag, ZCTA_ERR_PEER, "memory_import", 0,
                       "a peer's memory comes out of order");
    status = zc_cuda_enter(device);
    if (status != ZCTA_OK)
        return status;
    status = take_piece(device, taken, handle, fd);
    zc_cuda_leave(device);
    return status;
}

zcta_status zc_cuda_memory_import(struct zc_device *device, const struct zc_memory_handle *handle,
                                  int fd, bool same_process, struct zc_memory **memory)
{
    zcta_status status;

    if (handle->at_host != 0 && !same_process)
        return import_host(device, handle, fd, memory);
    status = zc_cuda_enter(device);
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
    destroy(device, released);
}

static zcta_status place_part(struct zc_device *device, const struct zc_memory *part,
                              zc_cu_pointer at, size_t stride)
{
    const struct cuda_memory *memory = (const struct cuda_memory *)part;
    zcta_status status;

    if (memory->offset != 0 || memory->mapped_bytes != stride || memory->piece_count != 1)
        return zc_fail(
            device->diag, ZCTA_ERR_UNSUPPORTED, "zcta_window_view", 0,
            "registered memory that is only a part of its allocation, or several, has no "
            "contiguous view");
    status = zc_cuda_status(device->driver, device->diag,
                            device->driver->cuMemMap(at, stride, 0, memory->pieces[0].handle, 0),
                            "cuMemMap", "mapping the view");
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

    if (atomic_load_explicit(&device->lost, memory_order_acquire))
        return;
    for (size_t done = 0; done < view->bytes; done += view->stride)
        device->driver->cuMemUnmap(at + done, view->stride);
    device->driver->cuMemAddressFree(at, view->bytes);
}
