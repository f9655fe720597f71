/* The GPUs' part of `zerocta info`. The driver says what a GPU can share and whom it reaches; NVML,
 * where it is, adds what only it knows: links and partitions. */
#include "info.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "device/cuda/cuda_driver.h"
#include "device/cuda/cuda_nvml.h"
#include "options.h"

/* ---- One GPU ---- */

static int attribute(const struct zc_cuda_driver *driver, zc_cu_device gpu, int which)
{
    int value = 0;

    return driver->cuDeviceGetAttribute(&value, which, gpu) == ZC_CU_SUCCESS ? value : 0;
}

static const char *yes_no(int yes)
{
    return yes ? "yes" : "no";
}

static void print_links(const struct zc_cuda_driver *driver, const struct zc_nvml *nvml,
                        zc_cu_device gpu)
{
    char bus_id[32] = "";
    unsigned links = 0, mig = 0, pending = 0;
    void *device = NULL;

    if (nvml->library == NULL ||
        driver->cuDeviceGetPCIBusId(bus_id, sizeof bus_id, gpu) != ZC_CU_SUCCESS ||
        nvml->nvmlDeviceGetHandleByPciBusId_v2(bus_id, &device) != ZC_NVML_SUCCESS) {
        zc_info_say("", "NVLinks and MIG: unknown, NVML (libnvidia-ml.so.1) does not tell");
        return;
    }
    for (unsigned link = 0; link < ZC_NVML_LINKS_MOST; link++) {
        int enabled = 0;

        links += nvml->nvmlDeviceGetNvLinkState(device, link, &enabled) == ZC_NVML_SUCCESS &&
                 enabled == ZC_NVML_ENABLED;
    }
    if (nvml->nvmlDeviceGetMigMode(device, &mig, &pending) != ZC_NVML_SUCCESS)
        mig = 0; /* GPUs without it say so by an error */
    zc_info_say("", "NVLink domain over several machines: %s",
                zc_nvml_domain(nvml, device) != 0 ? "yes" : "no");
    zc_info_say("", "%u NVLinks up; MIG %s", links,
                mig == ZC_NVML_ENABLED
                    ? "on: a partition reaches no peer, ranks on it cannot form a "
                      "team with others"
                    : "off");
}

static void print_sharing(const struct zc_cuda_driver *driver, zc_cu_device gpu)
{
    if (!attribute(driver, gpu, ZC_CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY)) {
        zc_info_say("", "shares nothing: no virtual memory management");
        return;
    }
    zc_info_say(
        "",
        "memory is shared as file descriptors: %s; as fabric handles: %s; multicast: %s (not "
        "used)",
        yes_no(attribute(driver, gpu, ZC_CU_DEVICE_ATTRIBUTE_POSIX_FD)),
        yes_no(attribute(driver, gpu, ZC_CU_DEVICE_ATTRIBUTE_FABRIC)),
        yes_no(attribute(driver, gpu, ZC_CU_DEVICE_ATTRIBUTE_MULTICAST)));
}

static void print_reach(const struct zc_cuda_driver *driver, zc_cu_device gpu, int count)
{
    char reached[128] = "", cut[128] = "";
    size_t at_reached = 0, at_cut = 0;

    for (int i = 0; i < count; i++) {
        zc_cu_device peer = 0;
        int can = 0;

        if (driver->cuDeviceGet(&peer, i) != ZC_CU_SUCCESS || peer == gpu)
            continue;
        if (driver->cuDeviceCanAccessPeer(&can, gpu, peer) == ZC_CU_SUCCESS && can)
            at_reached +=
                (size_t)snprintf(reached + at_reached, sizeof reached - at_reached, " %d", i);
        else
            at_cut += (size_t)snprintf(cut + at_cut, sizeof cut - at_cut, " %d", i);
        if (at_reached >= sizeof reached || at_cut >= sizeof cut)
            break;
    }
    if (at_reached > 0)
        zc_info_say("", "reaches the memory of GPU%s", reached);
    if (at_cut > 0)
        zc_info_say("", "cannot reach the memory of GPU%s: no team of ours over both", cut);
}

static void print_gpu(const struct zc_cuda_driver *driver, const struct zc_nvml *nvml, int ordinal,
                      int count)
{
    char title[16], name[128] = "", memory[ZC_SIZE_TEXT_BYTES];
    zc_cu_device gpu = 0;
    size_t bytes = 0;

    snprintf(title, sizeof title, "GPU %d", ordinal);
    if (driver->cuDeviceGet(&gpu, ordinal) != ZC_CU_SUCCESS ||
        driver->cuDeviceGetName(name, sizeof name, gpu) != ZC_CU_SUCCESS ||
        driver->cuDeviceTotalMem(&bytes, gpu) != ZC_CU_SUCCESS) {
        zc_info_say(title, "does not answer");
        return;
    }
    zc_info_say(title, "%s, %s, %d SMs, %d copy engines", name, zc_size_text(bytes, memory),
                attribute(driver, gpu, ZC_CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT),
                attribute(driver, gpu, ZC_CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT));
    print_links(driver, nvml, gpu);
    print_sharing(driver, gpu);
    print_reach(driver, gpu, count);
}

void zc_info_print_gpus(void)
{
    struct zc_cuda_driver driver = {0};
    char release[80] = "release unknown";
    struct zc_diag diag;
    zcta_error error;
    struct zc_nvml nvml;
    int count = 0;

    zc_diag_init(&diag);
    if (zc_cuda_driver_load(&diag, &driver) != ZCTA_OK) {
        zc_diag_last(&diag, &error);
        zc_info_say("cuda", "no: %s", error.message);
        goto out;
    }
    driver.cuDeviceGetCount(&count);
    if (zc_nvml_load(&nvml))
        nvml.nvmlSystemGetDriverVersion(release, sizeof release);
    zc_info_say("cuda", "driver for CUDA %d.%d (%s), %d GPU%s", driver.version / 1000,
                driver.version % 1000 / 10, release, count, count == 1 ? "" : "s");
    for (int i = 0; i < count; i++)
        print_gpu(&driver, &nvml, i, count);
    zc_nvml_unload(&nvml);
    zc_cuda_driver_unload(&driver);
out:
    zc_diag_destroy(&diag);
}
