/* What we ask NVML, made up: every GPU has 18 links, of which 16 are up. With FAKE_NVML_CLUSTER, a
 * number, it is in an NVLink domain, and in the clique that FAKE_NVML_CLIQUE says, a digit for each
 * GPU. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, LINKS = 18, UP = 16, COMPLETED = 3 };

/* Version 2 of nvmlGpuFabricInfoV_t. */
struct fabric_info {
    unsigned version;
    unsigned char cluster[16];
    int status;
    unsigned clique;
    unsigned char state;
    unsigned health;
};

#define EXPORT __attribute__((visibility("default")))

EXPORT int nvmlInit_v2(void);
EXPORT int nvmlShutdown(void);
EXPORT int nvmlSystemGetDriverVersion(char *version, unsigned bytes);
EXPORT int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, const void **device);
EXPORT int nvmlDeviceGetNvLinkState(const void *device, unsigned link, int *enabled);
EXPORT int nvmlDeviceGetMigMode(const void *device, unsigned *current, unsigned *pending);
EXPORT int nvmlDeviceGetGpuFabricInfoV(const void *device, struct fabric_info *info);

int nvmlInit_v2(void)
{
    return SUCCESS;
}

int nvmlShutdown(void)
{
    return SUCCESS;
}

int nvmlSystemGetDriverVersion(char *version, unsigned bytes)
{
    snprintf(version, bytes, "999.1");
    return SUCCESS;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, const void **device)
{
    *device = bus_id;
    return SUCCESS;
}

int nvmlDeviceGetNvLinkState(const void *device, unsigned link, int *enabled)
{
    (void)device;
    *enabled = link < UP;
    return link < LINKS ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetMigMode(const void *device, unsigned *current, unsigned *pending)
{
    (void)device;
    *current = *pending = getenv("FAKE_NVML_MIG") != NULL;
    return SUCCESS;
}

/* `device` is the bus id, whose second number is the GPU's. */
int nvmlDeviceGetGpuFabricInfoV(const void *device, struct fabric_info *info)
{
    const char *cluster = getenv("FAKE_NVML_CLUSTER"), *cliques = getenv("FAKE_NVML_CLIQUE");
    const size_t gpu = strtoul((const char *)device + 5, NULL, 16);
    const unsigned version = info->version;

    if (version != (sizeof *info | 2u << 24))
        return NOT_SUPPORTED;
    memset(info, 0, sizeof *info);
    info->version = version;
    info->state = COMPLETED;
    if (cluster != NULL)
        info->cluster[0] = (unsigned char)strtoul(cluster, NULL, 10);
    if (cliques != NULL && gpu < strlen(cliques))
        info->clique = (unsigned)(cliques[gpu] - '0');
    return SUCCESS;
}
