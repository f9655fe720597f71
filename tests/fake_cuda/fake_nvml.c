/* What `zerocta info` asks NVML, made up: every GPU has 18 links, of which 16 are up. */
#include <stdio.h>
#include <stdlib.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, LINKS = 18, UP = 16 };

#define EXPORT __attribute__((visibility("default")))

EXPORT int nvmlInit_v2(void);
EXPORT int nvmlShutdown(void);
EXPORT int nvmlSystemGetDriverVersion(char *version, unsigned bytes);
EXPORT int nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, const void **device);
EXPORT int nvmlDeviceGetNvLinkState(const void *device, unsigned link, int *enabled);
EXPORT int nvmlDeviceGetMigMode(const void *device, unsigned *current, unsigned *pending);

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
