/* The host's memory: memfd, mapped by every rank. Nothing ever has a name in /dev/shm, so nothing
 * can be left behind there. Knows nothing of programs and streams. */
#include "device/host/host.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"

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

/* A number from a file such as /proc/meminfo or a cgroup's: what follows `key`, or UINT64_MAX. */
static uint64_t number_in_file(const char *path, const char *key)
{
    FILE *file = zc_fd_read_file(path);
    char line[256];
    uint64_t value = UINT64_MAX;

    while (file != NULL && value == UINT64_MAX && fgets(line, sizeof line, file) != NULL) {
        const char *digits = line + strlen(key);
        char *end = NULL;

        if (strncmp(line, key, strlen(key)) == 0)
            value = strtoull(digits, &end, 10);
        if (end == digits) /* "max": there is no number */
            value = UINT64_MAX;
    }
    if (file != NULL)
        fclose(file);
    return value;
}

/* What the machine and this container can still give. Committing more does not fail: the kernel
 * kills somebody instead, so it must be asked before. */
static uint64_t available_bytes(void)
{
    const uint64_t kib = number_in_file("/proc/meminfo", "MemAvailable:");
    const uint64_t limit = number_in_file("/sys/fs/cgroup/memory.max", "");
    const uint64_t used = number_in_file("/sys/fs/cgroup/memory.current", "");
    const uint64_t machine = kib > UINT64_MAX / 1024 ? UINT64_MAX : kib * 1024;
    uint64_t container = UINT64_MAX;

    if (limit != UINT64_MAX && used != UINT64_MAX)
        container = limit > used ? limit - used : 0;
    return machine < container ? machine : container;
}

/* Commits all pages now: a page that cannot be had later would be a SIGBUS. */
static int commit(int fd, size_t bytes)
{
    int result;

    do
        result = fallocate(fd, 0, 0, (off_t)bytes);
    while (result != 0 && errno == EINTR);
    return result;
}

static zcta_status map(struct zc_device *device, int fd, size_t bytes, struct host_memory *memory)
{
    void *base = MAP_FAILED;

    memory->mapped_bytes = whole_pages(bytes);
    /* Populated, so that no collective pays for page faults. */
    base =
        mmap(NULL, memory->mapped_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (base == MAP_FAILED)
        return zc_fail(device->diag, errno == ENOMEM ? ZCTA_ERR_NO_MEMORY : ZCTA_ERR_SYSTEM, "mmap",
                       errno, "cannot map %zu bytes of shared memory: %s", bytes, strerror(errno));
    memory->head.base = base;
    memory->head.bytes = bytes;
    return ZCTA_OK;
}

static zcta_status create_file(struct zc_device *device, size_t bytes, int *fd)
{
    int made = zc_fd_lift(memfd_create("zerocta", MFD_CLOEXEC));
    int error;

    if (made < 0)
        return zc_fail(device->diag, ZCTA_ERR_SYSTEM, "memfd_create", errno,
                       "cannot create shared memory: %s%s", strerror(errno),
                       errno == EMFILE ? "; raise the limit of open files (ulimit -n)" : "");
    if (commit(made, bytes) != 0) {
        error = errno;
        close(made);
        return zc_fail(device->diag, ZCTA_ERR_NO_MEMORY, "fallocate", error,
                       "cannot commit %zu bytes of shared memory: %s", bytes, strerror(error));
    }
    *fd = made;
    return ZCTA_OK;
}

zcta_status zc_host_memory_alloc(struct zc_device *device, size_t bytes, struct zc_memory **memory)
{
    const size_t mapped = whole_pages(bytes);
    const uint64_t available = available_bytes();
    struct host_memory *made = NULL;
    zcta_status status;

    if (mapped == 0 || mapped > INT64_MAX || mapped > available)
        return zc_fail(device->diag, ZCTA_ERR_NO_MEMORY, "memory_alloc", 0,
                       "cannot allocate %zu bytes of shared memory: %" PRIu64
                       " bytes are available; ask for less",
                       bytes, available);
    made = calloc(1, sizeof *made);
    if (made == NULL)
        return zc_fail(device->diag, ZCTA_ERR_NO_MEMORY, "calloc", ENOMEM, "out of memory");
    made->kind = OWNED;
    made->fd = -1;
    status = create_file(device, mapped, &made->fd);
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

/* A peer's word on the size is checked against the file: a mapping past its end would be a SIGBUS.
 */
static zcta_status check_file(struct zc_device *device, int fd, uint64_t bytes)
{
    const off_t file_bytes = lseek(fd, 0, SEEK_END);

    if (file_bytes < 0 || bytes == 0 || (uint64_t)file_bytes < bytes)
        return zc_fail(device->diag, ZCTA_ERR_PEER, "memory_import", 0,
                       "a peer sent a file of %lld bytes for memory of %" PRIu64 " bytes",
                       (long long)file_bytes, bytes);
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
    status = check_file(device, fd, handle->bytes);
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
