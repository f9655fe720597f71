/* Memory of the host that GPUs reach: a file without a name, mapped by every rank and pinned. Any
 * GPU of the machine can copy to it and from it, whatever reaches what otherwise. */
#include <sys/mman.h>
#include <unistd.h>

#include "base/shared_file.h"
#include "device/cuda/cuda_device.h"

/* A program addresses it as the CPU does. */
static zcta_status pin(struct zc_device *device, void *base, size_t bytes)
{
    const struct zc_cuda_driver *driver = device->driver;
    zc_cu_pointer seen = 0;
    zcta_status status = zc_cuda_status(
        driver, device->diag,
        driver->cuMemHostRegister(base, bytes,
                                  ZC_CU_MEM_HOST_PORTABLE | ZC_CU_MEM_HOST_REGISTER_DEVICE_MAP),
        "cuMemHostRegister", "pinning memory of the host, through which the ranks go");

    if (status != ZCTA_OK)
        return status;
    status = zc_cuda_status(driver, device->diag, driver->cuMemHostGetDevicePointer(&seen, base, 0),
                            "cuMemHostGetDevicePointer", "addressing memory of the host");
    if (status == ZCTA_OK && seen != (uintptr_t)base)
        status = zc_fail(device->diag, ZCTA_ERR_UNSUPPORTED, "cuMemHostGetDevicePointer", 0,
                         "GPU %d sees the host's memory at another address than the CPU does",
                         device->ordinal);
    if (status != ZCTA_OK)
        driver->cuMemHostUnregister(base);
    return status;
}

zcta_status zc_cuda_host_map(struct zc_device *device, int fd, size_t bytes, void **base)
{
    void *mapped = NULL;
    zcta_status status = zc_shared_file_map(device->diag, fd, bytes, &mapped);

    if (status != ZCTA_OK)
        return status;
    status = zc_cuda_enter(device);
    if (status == ZCTA_OK) {
        status = pin(device, mapped, bytes);
        zc_cuda_leave(device);
    }
    if (status != ZCTA_OK) {
        munmap(mapped, bytes);
        return status;
    }
    *base = mapped;
    return ZCTA_OK;
}

zcta_status zc_cuda_host_make(struct zc_device *device, size_t bytes, uint32_t sharers, int *fd,
                              void **base)
{
    int made = -1;
    zcta_status status =
        zc_shared_file_make(device->diag, bytes, sharers, device->timeout_ns, &made);

    if (status != ZCTA_OK)
        return status;
    status = zc_cuda_host_map(device, made, bytes, base);
    if (status != ZCTA_OK) {
        close(made);
        return status;
    }
    *fd = made;
    return ZCTA_OK;
}

void zc_cuda_host_unmap(struct zc_device *device, void *base, size_t bytes)
{
    if (zc_cuda_enter(device) == ZCTA_OK) {
        device->driver->cuMemHostUnregister(base);
        zc_cuda_leave(device);
    }
    munmap(base, bytes);
}
