/* The GPU under a context, for the commands. */
#include "gpu.h"

#include <stdio.h>
#include <stdlib.h>

#include "commands.h"
#include "options.h"

bool zc_gpu_ok(struct zc_gpu *gpu, zc_cu_result result, const char *what)
{
    zcta_error error;

    if (zc_cuda_status(&gpu->driver, &gpu->diag, result, what, "the GPU") == ZCTA_OK)
        return true;
    zc_diag_last(&gpu->diag, &error);
    fprintf(stderr, "zerocta: %s: %s\n", error.call, error.message);
    return false;
}

static bool open_context(struct zc_gpu *gpu, int ordinal)
{
    const struct zc_cuda_driver *d = &gpu->driver;

    return zc_gpu_ok(gpu, d->cuDeviceGet(&gpu->device, ordinal), "cuDeviceGet") &&
           zc_gpu_ok(gpu, d->cuDevicePrimaryCtxRetain(&gpu->context, gpu->device),
                     "cuDevicePrimaryCtxRetain") &&
           zc_gpu_ok(gpu, d->cuCtxPushCurrent(gpu->context), "cuCtxPushCurrent") &&
           zc_gpu_ok(gpu, d->cuStreamCreate(&gpu->stream, ZC_CU_STREAM_NON_BLOCKING),
                     "cuStreamCreate") &&
           zc_gpu_ok(gpu, d->cuEventCreate(&gpu->begin, 0), "cuEventCreate") &&
           zc_gpu_ok(gpu, d->cuEventCreate(&gpu->end, 0), "cuEventCreate");
}

bool zc_gpu_open(const char *command, int ordinal, struct zc_gpu **gpu)
{
    struct zc_gpu *made = calloc(1, sizeof *made);
    zcta_error error;

    if (made == NULL) {
        zc_failure(command, "out of memory");
        return false;
    }
    zc_diag_init(&made->diag);
    if (zc_cuda_driver_load(&made->diag, &made->driver) != ZCTA_OK) {
        zc_diag_last(&made->diag, &error);
        zc_failure(command, "%s", error.message);
        goto fail;
    }
    if (!open_context(made, ordinal))
        goto fail;
    *gpu = made;
    return true;
fail:
    zc_gpu_close(made);
    return false;
}

void zc_gpu_close(struct zc_gpu *gpu)
{
    zc_cu_context popped;

    if (gpu == NULL)
        return;
    if (gpu->end != NULL)
        gpu->driver.cuEventDestroy(gpu->end);
    if (gpu->begin != NULL)
        gpu->driver.cuEventDestroy(gpu->begin);
    if (gpu->stream != NULL)
        gpu->driver.cuStreamDestroy(gpu->stream);
    if (gpu->context != NULL) {
        gpu->driver.cuCtxPopCurrent(&popped);
        gpu->driver.cuDevicePrimaryCtxRelease(gpu->device);
    }
    zc_cuda_driver_unload(&gpu->driver);
    zc_diag_destroy(&gpu->diag);
    free(gpu);
}

bool zc_gpu_synchronize(struct zc_gpu *gpu)
{
    return zc_gpu_ok(gpu, gpu->driver.cuStreamSynchronize(gpu->stream), "cuStreamSynchronize");
}

bool zc_gpu_put(struct zc_gpu *gpu, void *device, const void *host, size_t bytes)
{
    return zc_gpu_ok(gpu,
                     gpu->driver.cuMemcpyHtoDAsync((uintptr_t)device, host, bytes, gpu->stream),
                     "cuMemcpyHtoDAsync") &&
           zc_gpu_synchronize(gpu);
}

bool zc_gpu_get(struct zc_gpu *gpu, void *host, const void *device, size_t bytes)
{
    return zc_gpu_ok(gpu,
                     gpu->driver.cuMemcpyDtoHAsync(host, (uintptr_t)device, bytes, gpu->stream),
                     "cuMemcpyDtoHAsync") &&
           zc_gpu_synchronize(gpu);
}

static bool put_by(void *data, void *device, const void *host, size_t bytes)
{
    return zc_gpu_put(data, device, host, bytes);
}

static bool get_by(void *data, void *host, const void *device, size_t bytes)
{
    return zc_gpu_get(data, host, device, bytes);
}

struct zc_mover zc_gpu_mover(struct zc_gpu *gpu)
{
    return (struct zc_mover){.put = put_by, .get = get_by, .data = gpu};
}

bool zc_gpu_mark(struct zc_gpu *gpu, zc_cu_event event)
{
    return zc_gpu_ok(gpu, gpu->driver.cuEventRecord(event, gpu->stream), "cuEventRecord");
}

bool zc_gpu_elapsed_ns(struct zc_gpu *gpu, uint64_t *ns)
{
    float ms = 0;

    if (!zc_gpu_ok(gpu, gpu->driver.cuEventSynchronize(gpu->end), "cuEventSynchronize") ||
        !zc_gpu_ok(gpu, gpu->driver.cuEventElapsedTime(&ms, gpu->begin, gpu->end),
                   "cuEventElapsedTime"))
        return false;
    *ns = (uint64_t)((double)ms * 1e6);
    return true;
}
