/* NVLink domains over several hosts: whether this GPU is in one, and can share its memory there.
 * Asked only when a job has several hosts. */
#include "device/cuda/cuda_device.h"
#include "device/cuda/cuda_nvml.h"

static uint64_t ask_nvml(const struct zc_device *device)
{
    struct zc_nvml nvml;
    char bus_id[32] = "";
    void *handle = NULL;
    uint64_t domain = 0;

    if (!zc_nvml_load(&nvml))
        return 0;
    if (device->driver->cuDeviceGetPCIBusId(bus_id, sizeof bus_id, device->gpu) == ZC_CU_SUCCESS &&
        nvml.nvmlDeviceGetHandleByPciBusId_v2(bus_id, &handle) == ZC_NVML_SUCCESS)
        domain = zc_nvml_domain(&nvml, handle);
    zc_nvml_unload(&nvml);
    return domain;
}

/* A GPU that could may still not be allowed to: the handles need the service that manages the
 * domain, and its channel in this container. Only trying tells. */
static zc_cu_result try_handle(const struct zc_device *device)
{
    const struct zc_cuda_driver *driver = device->driver;
    struct zc_cu_allocation_prop prop = zc_cuda_allocation_prop(device);
    unsigned char handle[ZC_FABRIC_HANDLE_BYTES];
    zc_cu_allocation made;
    zc_cu_result result;

    prop.handle_types = ZC_CU_MEM_HANDLE_POSIX_FD | ZC_CU_MEM_HANDLE_FABRIC;
    result = driver->cuMemCreate(&made, device->granularity, &prop, 0);
    if (result != ZC_CU_SUCCESS)
        return result;
    result = driver->cuMemExportToShareableHandle(handle, made, ZC_CU_MEM_HANDLE_FABRIC, 0);
    driver->cuMemRelease(made);
    return result;
}

uint64_t zc_cuda_join_domain(struct zc_device *device)
{
    uint64_t domain = 0;
    zc_cu_result result;
    int supported = 0;

    if (device->driver->cuDeviceGetAttribute(&supported, ZC_CU_DEVICE_ATTRIBUTE_FABRIC,
                                             device->gpu) == ZC_CU_SUCCESS &&
        supported)
        domain = ask_nvml(device);
    if (domain == 0 || zc_cuda_enter(device) != ZCTA_OK)
        return 0;
    result = try_handle(device);
    zc_cuda_leave(device);
    device->fabric = result == ZC_CU_SUCCESS;
    if (!device->fabric)
        zc_log(device->diag, ZC_LOG_WARN,
               "GPU %d is in an NVLink domain of several machines, but its memory cannot be shared "
               "there (CUDA error %d): see that the IMEX service runs and that this process has "
               "its channel in /dev/nvidia-caps-imex-channels",
               device->ordinal, result);
    return device->fabric ? domain : 0;
}
