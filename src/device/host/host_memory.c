/* The host's memory: files without a name, mapped by every rank. Knows nothing of programs and
 * streams. */
#include "device/host/host.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/shared_file.h"

enum kind { OWNED, ADOPTED, MAPPED };

struct host_memory {
    struct zc_memory head; /* first: a zc_memory is its host_memory */
    struct zc_local_memory local;
    enum kind kind;
    size_t mapped_bytes; /* whole pages */
    int fd;              /* of OWNED; -1 otherwise */
};

static size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

/* `bytes` in whole pages; 0 if that overflows. */
static size_t whole_pages(size_t bytes)
{
    const size_t page = page_bytes();

    return bytes > SIZE_MAX - (page - 1) ? 0 : (bytes + page - 1) / page * page;
}

static zcta_status map(struct zc_device *device, int fd, size_t bytes, struct host_memory *memory)
{
    zcta_status status = zc_shared_file_map(device->diag, fd, bytes, &memory->head.base);

    if (status != ZCTA_OK)
        return status;
    memory->mapped_bytes = whole_pages(bytes);
    memory->head.bytes = bytes;
    return ZCTA_OK;
}

zcta_status zc_host_memory_alloc(struct zc_device *device, enum zc_where where, size_t bytes,
                                 uint32_t sharers, struct zc_memory **memory)
{
    const size_t mapped = whole_pages(bytes);
    struct host_memory *made = NULL;
    zcta_status status;

    (void)where;
    if (mapped == 0 || mapped > INT64_MAX)
        return zc_fail(
            device->diag, ZCTA_ERR_NO_MEMORY, "memory_alloc", 0,
            "cannot allocate %zu bytes of shared memory: nowhere so many bytes are available",
            bytes);
    made = calloc(1, sizeof *made);
    if (made == NULL)
        return zc_fail(device->diag, ZCTA_ERR_NO_MEMORY, "calloc", ENOMEM, "out of memory");
    made->kind = OWNED;
    made->fd = -1;
    status = zc_shared_file_make(device->diag, mapped, sharers, device->timeout_ns, &made->fd);
    if (status != ZCTA_OK)
        goto fail;
    status = map(device, made->fd, bytes, made);
    if (status != ZCTA_OK)
        goto fail_file;
    zc_local_publish(&made->local);
    *memory = &made->head;
    return ZCTA_OK;
fail_file:
    close(made->fd);
fail:
    free(made);
    return status;
}

zcta_status zc_host_memory_adopt(struct zc_device *device, void *base, size_t bytes,
                                 struct zc_memory **memory)
{
    struct host_memory *made = calloc(1, sizeof *made);

    if (made == NULL)
        return zc_fail(device->diag, ZCTA_ERR_NO_MEMORY, "calloc", ENOMEM, "out of memory");
    made->kind = ADOPTED;
    made->fd = -1;
    made->head = (struct zc_memory){.base = base, .bytes = bytes};
    zc_local_publish(&made->local);
    *memory = &made->head;
    return ZCTA_OK;
}

zcta_status zc_host_memory_export(struct zc_device *device, struct zc_memory *memory,
                                  struct zc_memory_handle *handle, int *fd)
{
    const struct host_memory *exported = (struct host_memory *)memory;

    (void)device;
    *fd = exported->fd;
    *handle = (struct zc_memory_handle){
        .bytes = memory->bytes, .local_id = exported->local.id, .has_fd = exported->fd >= 0};
    return ZCTA_OK;
}

static zcta_status import_local(struct zc_device *device, const struct zc_memory_handle *handle,
                                struct zc_memory **memory)
{
    struct zc_local_memory *local = zc_local_take(handle->local_id);

    if (local == NULL)
        return zc_fail(device->diag, ZCTA_ERR_PEER, "memory_import", 0,
                       "a rank of this process freed its memory before it could be shared");
    *memory = (struct zc_memory *)((char *)local - offsetof(struct host_memory, local));
    return ZCTA_OK;
}

zcta_status zc_host_memory_import(struct zc_device *device, const struct zc_memory_handle *handle,
                                  int fd, bool same_process, struct zc_memory **memory)
{
    struct host_memory *made = NULL;
    zcta_status status;

    if (same_process)
        return import_local(device, handle, memory);
    if (handle->has_fd == 0 || fd < 0)
        return zc_fail(
            device->diag, ZCTA_ERR_UNSUPPORTED, "memory_import", 0,
            "memory of another process cannot be mapped after the fact; allocate it with "
            "zcta_window_alloc(), or run the ranks as threads of one process");
    status = zc_shared_file_check(device->diag, fd, handle->bytes);
    if (status != ZCTA_OK)
        return status;
    made = calloc(1, sizeof *made);
    if (made == NULL)
        return zc_fail(device->diag, ZCTA_ERR_NO_MEMORY, "calloc", ENOMEM, "out of memory");
    made->kind = MAPPED;
    made->fd = -1;
    status = map(device, fd, handle->bytes, made);
    if (status != ZCTA_OK)
        goto fail;
    zc_local_publish(&made->local);
    *memory = &made->head;
    return ZCTA_OK;
fail:
    free(made);
    return status;
}

void zc_host_memory_release(struct zc_device *device, struct zc_memory *memory)
{
    struct host_memory *released = (struct host_memory *)memory;

    (void)device;
    if (memory == NULL || !zc_local_drop(&released->local))
        return;
    if (released->kind != ADOPTED)
        munmap(memory->base, released->mapped_bytes);
    if (released->fd >= 0)
        close(released->fd);
    free(released);
}

/* mremap() of a shared mapping with an old size of 0 makes a second mapping of the same pages, so a
 * view needs no file descriptors to be kept. */
static zcta_status place_part(struct zc_device *device, struct zc_memory *part, char *at,
                              size_t stride)
{
    if (((struct host_memory *)part)->kind == ADOPTED)
        return zc_fail(device->diag, ZCTA_ERR_UNSUPPORTED, "zcta_window_view", 0,
                       "registered memory has no contiguous view; allocate the window with "
                       "zcta_window_alloc()");
    if (mremap(part->base, 0, stride, MREMAP_MAYMOVE | MREMAP_FIXED, at) == MAP_FAILED ||
        mprotect(at, stride, PROT_READ) != 0)
        return zc_fail(device->diag, ZCTA_ERR_SYSTEM, "zcta_window_view", errno,
                       "cannot map the view: %s", strerror(errno));
    return ZCTA_OK;
}

zcta_status zc_host_view_map(struct zc_device *device, struct zc_memory *const *parts,
                             uint32_t count, struct zc_view *view)
{
    const size_t stride = whole_pages(parts[0]->bytes);
    char *base = MAP_FAILED;
    zcta_status status = ZCTA_OK;

    if (stride <= SIZE_MAX / count)
        base = mmap(NULL, stride * count, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                    -1, 0);
    if (base == MAP_FAILED)
        return zc_fail(device->diag, ZCTA_ERR_SYSTEM, "zcta_window_view", errno,
                       "no %" PRIu32 " x %zu bytes of address space for the view: %s", count,
                       stride, strerror(errno));
    for (uint32_t i = 0; i < count && status == ZCTA_OK; i++)
        status = place_part(device, parts[i], base + i * stride, stride);
    if (status != ZCTA_OK) {
        munmap(base, stride * count);
        return status;
    }
    *view = (struct zc_view){.base = base, .bytes = stride * count, .stride = stride};
    return ZCTA_OK;
}

void zc_host_view_unmap(struct zc_device *device, const struct zc_view *view)
{
    (void)device;
    munmap((void *)(uintptr_t)view->base, view->bytes);
}
