/* Loading NVML. */
#include "device/cuda/cuda_nvml.h"

#include <dlfcn.h>
#include <string.h>

static const struct {
    const char *name;
    size_t offset;
    bool optional;
} functions[] = {
#define ROW(name, parameters, optional) {#name, offsetof(struct zc_nvml, name), optional},
    ZC_NVML_FUNCTIONS(ROW)
#undef ROW
};

bool zc_nvml_load(struct zc_nvml *nvml)
{
    bool loaded;

    memset(nvml, 0, sizeof *nvml);
    nvml->library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    loaded = nvml->library != NULL;
    for (size_t i = 0; i < sizeof functions / sizeof functions[0] && loaded; i++) {
        void *function = dlsym(nvml->library, functions[i].name);

        loaded = function != NULL || functions[i].optional;
        /* ISO C has no cast from an object pointer to a function pointer; POSIX wants this copy to
         * work. */
        memcpy((char *)nvml + functions[i].offset, &function, sizeof function);
    }
    loaded = loaded && nvml->nvmlInit_v2() == ZC_NVML_SUCCESS;
    if (!loaded && nvml->library != NULL)
        dlclose(nvml->library);
    if (!loaded)
        nvml->library = NULL;
    return loaded;
}

void zc_nvml_unload(struct zc_nvml *nvml)
{
    if (nvml->library == NULL)
        return;
    nvml->nvmlShutdown();
    dlclose(nvml->library);
    nvml->library = NULL;
}

uint64_t zc_nvml_domain(const struct zc_nvml *nvml, void *device)
{
    struct zc_nvml_fabric info = {.version = ZC_NVML_FABRIC_VERSION};
    uint64_t halves[2];

    if (nvml->nvmlDeviceGetGpuFabricInfoV == NULL ||
        nvml->nvmlDeviceGetGpuFabricInfoV(device, &info) != ZC_NVML_SUCCESS ||
        info.state != ZC_NVML_FABRIC_COMPLETED || info.status != ZC_NVML_SUCCESS)
        return 0;
    memcpy(halves, info.cluster, sizeof halves);
    if (halves[0] == 0 && halves[1] == 0)
        return 0;
    /* Sixteen random bytes and a small number. */
    return halves[0] ^ halves[1] ^ (info.clique + UINT64_C(1)) * UINT64_C(0x9e3779b97f4a7c15);
}
