/* NVML, loaded at run time: what only it knows of GPUs. Values and layouts are those of nvml.h.
 * Starting it takes milliseconds, so it is loaded only where something hangs on it. */
#ifndef ZC_CUDA_NVML_H
#define ZC_CUDA_NVML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    ZC_NVML_SUCCESS = 0,
    ZC_NVML_ENABLED = 1,
    ZC_NVML_LINKS_MOST = 36,
    ZC_NVML_FABRIC_COMPLETED = 3,
};

/* Version 2 of the driver's nvmlGpuFabricInfoV_t. */
struct zc_nvml_fabric {
    unsigned version;
    unsigned char cluster[16]; /* all zero: a machine by itself */
    int status;                /* of the registration, once that is completed */
    unsigned clique;
    unsigned char state;
    unsigned health;
};
#define ZC_NVML_FABRIC_VERSION ((unsigned)(sizeof(struct zc_nvml_fabric) | 2u << 24))

/* name, parameters, whether an NVML without it will do */
#define ZC_NVML_FUNCTIONS(X)                                                                       \
    X(nvmlInit_v2, (void), false)                                                                  \
    X(nvmlShutdown, (void), false)                                                                 \
    X(nvmlSystemGetDriverVersion, (char *version, unsigned bytes), false)                          \
    X(nvmlDeviceGetHandleByPciBusId_v2, (const char *bus_id, void **device), false)                \
    X(nvmlDeviceGetNvLinkState, (void *device, unsigned link, int *enabled), false)                \
    X(nvmlDeviceGetMigMode, (void *device, unsigned *current, unsigned *pending), false)           \
    X(nvmlDeviceGetGpuFabricInfoV, (void *device, struct zc_nvml_fabric *info), true)

struct zc_nvml {
    void *library;                                                        /* NULL: it is not here */
#define ZC_NVML_MEMBER(name, parameters, optional) int(*name) parameters; /* NOLINT */
    ZC_NVML_FUNCTIONS(ZC_NVML_MEMBER)
#undef ZC_NVML_MEMBER
};

/* Loads and starts it. False: it is not here, and nvml->library is NULL. */
bool zc_nvml_load(struct zc_nvml *nvml);
void zc_nvml_unload(struct zc_nvml *nvml); /* not loaded is fine */

/* Tells NVLink domains apart that reach over several hosts; 0: the GPU is in none. `device` is
 * NVML's. */
uint64_t zc_nvml_domain(const struct zc_nvml *nvml, void *device);

#endif
