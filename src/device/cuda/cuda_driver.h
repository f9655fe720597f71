/* The CUDA driver, loaded at run time: a table of its functions. */
#ifndef ZC_CUDA_DRIVER_H
#define ZC_CUDA_DRIVER_H

#include "base/diag.h"
#include "device/cuda/cuda_api.h"

struct zc_cuda_driver {
#define ZC_CU_MEMBER(name, parameters, version) zc_cu_result(*name) parameters; /* NOLINT */
    ZC_CU_FUNCTIONS(ZC_CU_MEMBER)
#undef ZC_CU_MEMBER
    int version; /* 13000: 13.0 */
    void *library;
};

/* Loads libcuda.so.1 and starts it.
 * Errors: ERR_UNSUPPORTED (no driver, one too old, or no GPU; the sentence says which). */
zcta_status zc_cuda_driver_load(struct zc_diag *diag, struct zc_cuda_driver *driver);
void zc_cuda_driver_unload(struct zc_cuda_driver *driver);

/* OK, or the failure said: `what` is the driver's function, `doing` what it was called for. */
zcta_status zc_cuda_status(const struct zc_cuda_driver *driver, struct zc_diag *diag,
                           zc_cu_result result, const char *what, const char *doing);

#endif
