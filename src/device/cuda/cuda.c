/* The CUDA device: opening a GPU, what it can do, and the device table. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/environment.h"
#include "device/cuda/cuda_team.h"

/* The GPU of the calling thread's current context, if it has one, as CUDA's own libraries choose;
 * else one for each local rank, in turn. */
static zcta_status choose_gpu(struct zc_device *device, const struct zc_device_params *params)
{
    const struct zc_cuda_driver *driver = device->driver;
    zc_cu_context current = NULL;
    zc_cu_device gpu = 0;
    int count = 0;
    zcta_status status;

    status = zc_cuda_status(driver, device->diag, driver->cuDeviceGetCount(&count),
                            "cuDeviceGetCount", "counting GPUs");
    if (status != ZCTA_OK)
        return status;
    if (params->gpu > (uint32_t)count)
        return zc_fail(device->diag, ZCTA_ERR_INVALID, "zcta_init", 0,
                       "GPU %u was asked for, but this process sees GPUs 0 to %d; look at "
                       "CUDA_VISIBLE_DEVICES",
                       params->gpu - 1, count - 1);
    device->ordinal = (int)(params->local_rank % (uint32_t)count);
    if (params->gpu > 0)
        device->ordinal = (int)params->gpu - 1;
    else if (driver->cuCtxGetCurrent(&current) == ZC_CU_SUCCESS && current != NULL &&
             driver->cuCtxGetDevice(&gpu) == ZC_CU_SUCCESS)
        device->ordinal = gpu;
    return zc_cuda_status(driver, device->diag, driver->cuDeviceGet(&device->gpu, device->ordinal),
                          "cuDeviceGet", "opening the GPU");
}

static zcta_status check_gpu(struct zc_device *device)
{
    static const struct {
        int attribute;
        const char *what;
    } needed[] = {
        {ZC_CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY, "virtual memory management"},
        {ZC_CU_DEVICE_ATTRIBUTE_POSIX_FD, "memory handles that are file descriptors"},
    };

    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
        int has = 0;

        if (device->driver->cuDeviceGetAttribute(&has, needed[i].attribute, device->gpu) !=
                ZC_CU_SUCCESS ||
            has == 0)
            return zc_fail(
                device->diag, ZCTA_ERR_UNSUPPORTED, "cuDeviceGetAttribute", 0,
                "GPU %d has no %s, which windows are made of; a MIG instance or a virtual "
                "GPU may lack it",
                device->ordinal, needed[i].what);
    }
    return ZCTA_OK;
}

/* Sixteen random bytes; folded into eight they still tell the GPUs of a job apart. */
static zcta_status find_gpu_id(struct zc_device *device)
{
    uint64_t uuid[2] = {0};
    const zcta_status status = zc_cuda_status(device->driver, device->diag,
                                              device->driver->cuDeviceGetUuid(uuid, device->gpu),
                                              "cuDeviceGetUuid", "asking for the GPU's identity");

    device->gpu_id = uuid[0] ^ uuid[1];
    return status;
}

static bool reaches(const struct zc_cuda_driver *driver, zc_cu_device from, zc_cu_device to)
{
    int can = 0;

    return driver->cuDeviceCanAccessPeer(&can, from, to) != ZC_CU_SUCCESS || can != 0;
}

/* Of a GPU that this process cannot see nothing is known. */
static bool cuda_reaches(struct zc_device *device, uint64_t gpu_id)
{
    const struct zc_cuda_driver *driver = device->driver;
    int count = 0;

    if (gpu_id == device->gpu_id || driver->cuDeviceGetCount(&count) != ZC_CU_SUCCESS)
        return true;
    for (int i = 0; i < count; i++) {
        uint64_t uuid[2] = {0};
        zc_cu_device gpu = 0;

        if (driver->cuDeviceGet(&gpu, i) == ZC_CU_SUCCESS &&
            driver->cuDeviceGetUuid(uuid, gpu) == ZC_CU_SUCCESS && (uuid[0] ^ uuid[1]) == gpu_id)
            return reaches(driver, device->gpu, gpu);
    }
    return true;
}

static zcta_status find_granularity(struct zc_device *device)
{
    const struct zc_cu_allocation_prop prop = zc_cuda_allocation_prop(device);

    return zc_cuda_status(device->driver, device->diag,
                          device->driver->cuMemGetAllocationGranularity(
                              &device->granularity, &prop, ZC_CU_MEM_GRANULARITY_RECOMMENDED),
                          "cuMemGetAllocationGranularity", "asking for the page size");
}

/* The table of all values that a signal can write. */
static zcta_status make_epochs(struct zc_device *device)
{
    uint32_t *values = malloc(ZC_CUDA_EPOCHS * sizeof *values);
    zcta_status status;

    if (values == NULL)
        return zc_fail(device->diag, ZCTA_ERR_NO_MEMORY, "malloc", ENOMEM, "out of memory");
    for (uint32_t i = 0; i < ZC_CUDA_EPOCHS; i++)
        values[i] = zc_cuda_epoch(i);
    status = zc_cuda_memory_alloc(device, ZC_ON_DEVICE, ZC_CUDA_EPOCHS * sizeof *values, 1,
                                  &device->epoch_memory);
    if (status != ZCTA_OK)
        goto out;
    device->epochs = (uintptr_t)device->epoch_memory->base;
    status =
        zc_cuda_status(device->driver, device->diag,
                       device->driver->cuMemcpyHtoDAsync(
                           device->epochs, values, ZC_CUDA_EPOCHS * sizeof *values, device->stream),
                       "cuMemcpyHtoDAsync", "preparing signals");
    if (status == ZCTA_OK)
        status = zc_cuda_status(device->driver, device->diag,
                                device->driver->cuStreamSynchronize(device->stream),
                                "cuStreamSynchronize", "preparing signals");
out:
    free(values);
    return status;
}

/* Copies unless asked: a stream write to another GPU's memory was the slower signal wherever it was
 * measured, and from CUDA 13.1 on it is documented as unsupported (NVIDIA/nccl issue 2052). */
static zcta_status choose_signals(struct zc_device *device)
{
    const bool supported = device->driver->version < 13010;

    device->remote_writes = zc_environment_choice("ZEROCTA_SIGNALS") == 1;
    if (device->remote_writes && !supported)
        return zc_fail(device->diag, ZCTA_ERR_UNSUPPORTED, "zcta_init", device->driver->version,
                       "ZEROCTA_SIGNALS is write, but from CUDA 13.1 on a stream cannot write to "
                       "another GPU's memory; unset it");
    return ZCTA_OK;
}

static bool has_attribute(const struct zc_device *device, int attribute)
{
    int has = 0;

    return device->driver->cuDeviceGetAttribute(&has, attribute, device->gpu) == ZC_CU_SUCCESS &&
           has != 0;
}

static zcta_status start(struct zc_device *device)
{
    zcta_status status = zc_cuda_enter(device);

    if (status != ZCTA_OK)
        return status;
    status =
        zc_cuda_status(device->driver, device->diag,
                       device->driver->cuStreamCreate(&device->stream, ZC_CU_STREAM_NON_BLOCKING),
                       "cuStreamCreate", "opening the GPU");
    if (status == ZCTA_OK)
        status = find_gpu_id(device);
    if (status == ZCTA_OK)
        status = find_granularity(device);
    if (status == ZCTA_OK)
        status = make_epochs(device);
    device->wide_writes = has_attribute(device, ZC_CU_DEVICE_ATTRIBUTE_WIDE_MEM_OPS);
    device->flushes = has_attribute(device, ZC_CU_DEVICE_ATTRIBUTE_FLUSH_REMOTE_WRITES);
    zc_cuda_leave(device);
    return status == ZCTA_OK ? zc_cuda_watchdog_start(device) : status;
}

/* What is lost is left to the process, its watchers too: whatever would be destroyed here may be in
 * use, and the driver might wait for that. */
static void cuda_close(struct zc_device *device)
{
    if (!atomic_load_explicit(&device->lost, memory_order_acquire))
        zc_cuda_watchdog_stop(device);
    if (atomic_load_explicit(&device->lost, memory_order_acquire))
        return;
    if (device->context != NULL) {
        zc_cuda_memory_release(device, device->epoch_memory);
        if (device->stream != NULL)
            device->driver->cuStreamDestroy(device->stream);
        device->driver->cuDevicePrimaryCtxRelease(device->gpu);
    }
    pthread_cond_destroy(&device->changed);
    pthread_mutex_destroy(&device->lock);
    zc_cuda_driver_unload(&device->loaded);
    free(device);
}

static void init_lock(struct zc_device *device)
{
    pthread_condattr_t attributes;

    pthread_mutex_init(&device->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&device->changed, &attributes);
    pthread_condattr_destroy(&attributes);
}

static zcta_status cuda_open(const struct zc_device_params *params, struct zc_device **device)
{
    struct zc_device *made = calloc(1, sizeof *made);
    zcta_status status;

    if (made == NULL)
        return zc_fail(params->diag, ZCTA_ERR_NO_MEMORY, "zcta_init", ENOMEM, "out of memory");
    made->diag = params->diag;
    made->timeout_ns = params->timeout_ns;
    made->driver = &made->loaded;
    init_lock(made);
    status = zc_cuda_driver_load(made->diag, &made->loaded);
    if (status == ZCTA_OK)
        status = choose_signals(made);
    if (status == ZCTA_OK)
        status = choose_gpu(made, params);
    if (status == ZCTA_OK)
        status = check_gpu(made);
    if (status == ZCTA_OK)
        status = zc_cuda_status(made->driver, made->diag,
                                made->driver->cuDevicePrimaryCtxRetain(&made->context, made->gpu),
                                "cuDevicePrimaryCtxRetain", "opening the GPU");
    if (status == ZCTA_OK)
        status = start(made);
    if (status != ZCTA_OK)
        goto fail;
    *device = made;
    return ZCTA_OK;
fail:
    cuda_close(made);
    return status;
}

static void cuda_describe(const struct zc_device *device, struct zc_device_caps *caps)
{
    *caps = (struct zc_device_caps){
        .name = "cuda",
        .title = "Copy Engine",
        .signals = device->remote_writes ? "by write and by copy" : "by copy",
        .lanes = ZC_CUDA_LANES,
        .lane_bytes = ZC_CUDA_LANE_BYTES,
        .group_bytes = ZC_CUDA_GROUP_BYTES,
        .slot_bytes = 16,
        .pad_head_bytes = sizeof(struct zc_cuda_marks),
        .scratch_bytes = (size_t)64 << 10,
        .bounce_bytes = (size_t)4 << 20,
        .host_bytes = ZC_CUDA_HOST_BYTES,
        .host_ranks = ZC_CUDA_HOST_RANKS,
        .ring_bytes = ZC_CUDA_RING_BYTES,
        .local_copy_needs_sm = true,
        .gpu = device->ordinal,
        .gpu_id = device->gpu_id,
        .driver_version = device->driver->version,
        .graph_slots = true,
    };
    device->driver->cuDeviceGetName(caps->model, (int)sizeof caps->model, device->gpu);
}

const struct zc_device_ops zc_device_cuda = {
    .kind = ZCTA_DEVICE_CUDA,
    .open = cuda_open,
    .close = cuda_close,
    .describe = cuda_describe,
    .join_domain = zc_cuda_join_domain,
    .reaches = cuda_reaches,
    .memory_alloc = zc_cuda_memory_alloc,
    .memory_adopt = zc_cuda_memory_adopt,
    .memory_export = zc_cuda_memory_export,
    .memory_import = zc_cuda_memory_import,
    .memory_export_piece = zc_cuda_memory_export_piece,
    .memory_import_piece = zc_cuda_memory_import_piece,
    .memory_release = zc_cuda_memory_release,
    .view_map = zc_cuda_view_map,
    .view_unmap = zc_cuda_view_unmap,
    .attach = zc_cuda_attach,
    .detach = zc_cuda_detach,
    .bind = zc_cuda_bind,
    .submit = zc_cuda_submit,
    .enter = zc_cuda_enter,
    .leave = zc_cuda_leave,
    .is_capturing = zc_cuda_is_capturing,
    .wake = zc_cuda_wake,
    .drain = zc_cuda_drain,
};
