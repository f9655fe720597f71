/* Loading the CUDA driver. */
#include "device/cuda/cuda_driver.h"

#include <dlfcn.h>
#include <string.h>

enum { OLDEST_VERSION = 12000 };

typedef zc_cu_result get_proc_address(const char *symbol, void **function, int version,
                                      uint64_t flags, int *found);

/* ISO C has no cast from an object pointer to a function pointer; POSIX wants this copy to work. */
static void set_function(void *member, void *function)
{
    memcpy(member, &function, sizeof function);
}

static zcta_status load_function(struct zc_diag *diag, get_proc_address *get, const char *name,
                                 int version, void *member)
{
    void *function = NULL;
    int found = 0;

    if (get(name, &function, version, 0, &found) != ZC_CU_SUCCESS || function == NULL)
        return zc_fail(diag, ZCTA_ERR_UNSUPPORTED, "cuGetProcAddress", found,
                       "the CUDA driver has no %s; install driver 525 or newer", name);
    set_function(member, function);
    return ZCTA_OK;
}

static const struct {
    const char *name;
    int version;
    size_t offset;
} functions[] = {
#define ROW(name, parameters, version) {#name, version, offsetof(struct zc_cuda_driver, name)},
    ZC_CU_FUNCTIONS(ROW)
#undef ROW
};

static zcta_status load_functions(struct zc_diag *diag, struct zc_cuda_driver *driver)
{
    void *symbol = dlsym(driver->library, "cuGetProcAddress_v2");
    get_proc_address *get = NULL;
    zcta_status status = ZCTA_OK;

    if (symbol == NULL)
        return zc_fail(diag, ZCTA_ERR_UNSUPPORTED, "dlsym", 0,
                       "the CUDA driver is older than 12.0; install driver 525 or newer");
    set_function(&get, symbol);
    for (size_t i = 0; i < sizeof functions / sizeof functions[0] && status == ZCTA_OK; i++)
        status = load_function(diag, get, functions[i].name, functions[i].version,
                               (char *)driver + functions[i].offset);
    return status;
}

static const char *text_of(const struct zc_cuda_driver *driver, zc_cu_result result)
{
    const char *text = NULL;

    if (driver->cuGetErrorString == NULL ||
        driver->cuGetErrorString(result, &text) != ZC_CU_SUCCESS || text == NULL)
        text = "an error without a text";
    return text;
}

static zcta_status no_gpu(struct zc_diag *diag, const char *what, zc_cu_result result)
{
    return zc_fail(diag, ZCTA_ERR_UNSUPPORTED, what, result,
                   "there is no GPU, or CUDA_VISIBLE_DEVICES hides all");
}

static zcta_status start(struct zc_diag *diag, struct zc_cuda_driver *driver)
{
    const char *what = "cuInit";
    zc_cu_result result = driver->cuInit(0);
    int count = 0;

    if (result == ZC_CU_SUCCESS) {
        what = "cuDriverGetVersion";
        result = driver->cuDriverGetVersion(&driver->version);
    }
    if (result == ZC_CU_SUCCESS) {
        what = "cuDeviceGetCount";
        result = driver->cuDeviceGetCount(&count);
    }
    if (result == ZC_CU_ERROR_NO_DEVICE)
        return no_gpu(diag, what, result);
    if (result != ZC_CU_SUCCESS)
        return zc_fail(diag, ZCTA_ERR_UNSUPPORTED, what, result,
                       "the CUDA driver is there but does not start: %s (CUDA error %d); see "
                       "nvidia-smi",
                       text_of(driver, result), result);
    if (driver->version < OLDEST_VERSION)
        return zc_fail(
            diag, ZCTA_ERR_UNSUPPORTED, "cuDriverGetVersion", driver->version,
            "the CUDA driver is version %d.%d; 12.0 (driver 525) is the oldest that works",
            driver->version / 1000, driver->version % 1000 / 10);
    if (count == 0)
        return no_gpu(diag, what, result);
    return ZCTA_OK;
}

zcta_status zc_cuda_driver_load(struct zc_diag *diag, struct zc_cuda_driver *driver)
{
    zcta_status status;

    memset(driver, 0, sizeof *driver);
    driver->library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (driver->library == NULL)
        return zc_fail(diag, ZCTA_ERR_UNSUPPORTED, "dlopen", 0,
                       "there is no CUDA driver here (%s); NVIDIA's driver package has it",
                       dlerror());
    status = load_functions(diag, driver);
    if (status == ZCTA_OK)
        status = start(diag, driver);
    if (status != ZCTA_OK)
        zc_cuda_driver_unload(driver);
    return status;
}

void zc_cuda_driver_unload(struct zc_cuda_driver *driver)
{
    if (driver->library != NULL)
        dlclose(driver->library);
    driver->library = NULL;
}

zcta_status zc_cuda_status(const struct zc_cuda_driver *driver, struct zc_diag *diag,
                           zc_cu_result result, const char *what, const char *doing)
{
    if (result == ZC_CU_SUCCESS)
        return ZCTA_OK;
    return zc_fail(diag, result == ZC_CU_ERROR_OUT_OF_MEMORY ? ZCTA_ERR_NO_MEMORY : ZCTA_ERR_DEVICE,
                   what, result, "%s: %s (CUDA error %d)", doing, text_of(driver, result), result);
}
