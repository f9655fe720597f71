/* cuBLAS, loaded at run time; what is used of its interface is declared here, as 12 and 13 have it.
 */
#include "blas.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "options.h"

enum {
    TYPE_BF16 = 14,
    COMPUTE_F32 = 68,
    NO_TRANSPOSE = 0,
    ALGORITHM_DEFAULT = -1,
    MATRICES = 3,
};

struct zc_blas {
    const char *command;
    struct zc_gpu *gpu;
    int n;
    void *library, *handle;
    zc_cu_pointer matrices[MATRICES]; /* A, B, C */
    int (*create)(void **handle);
    int (*destroy)(void *handle);
    int (*set_stream)(void *handle, void *stream);
    int (*gemm)(void *handle, int trans_a, int trans_b, int m, int n, int k, const void *alpha,
                const void *a, int a_type, int a_stride, const void *b, int b_type, int b_stride,
                const void *beta, void *c, int c_type, int c_stride, int compute, int algorithm);
};

static bool find(struct zc_blas *blas, const char *name, void *member)
{
    void *function = dlsym(blas->library, name);

    if (function == NULL)
        zc_failure(blas->command, "cuBLAS has no %s", name);
    memcpy(member, &function, sizeof function);
    return function != NULL;
}

static bool load(struct zc_blas *blas)
{
    static const char *const names[] = {"libcublas.so.13", "libcublas.so.12", "libcublas.so"};

    for (size_t i = 0; i < sizeof names / sizeof names[0] && blas->library == NULL; i++)
        blas->library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (blas->library == NULL) {
        zc_failure(blas->command, "no cuBLAS to compute with: %s", dlerror());
        return false;
    }
    return find(blas, "cublasCreate_v2", &blas->create) &&
           find(blas, "cublasDestroy_v2", &blas->destroy) &&
           find(blas, "cublasSetStream_v2", &blas->set_stream) &&
           find(blas, "cublasGemmEx", &blas->gemm);
}

/* Random entries between -2 and 2: zeros would need less power, and so run faster than real work.
 */
static bool fill(struct zc_blas *blas)
{
    const size_t count = (size_t)blas->n * (size_t)blas->n;
    uint16_t *entries = malloc(count * sizeof *entries);
    uint32_t random = 12345;
    bool filled = entries != NULL;

    for (size_t i = 0; filled && i < count; i++) {
        random = random * 1664525u + 1013904223u;
        entries[i] = (uint16_t)((random >> 16 & 0x80ffu) | 0x3f00u);
    }
    for (int i = 0; i < MATRICES && filled; i++)
        filled =
            zc_gpu_ok(blas->gpu,
                      blas->gpu->driver.cuMemAlloc(&blas->matrices[i], count * sizeof *entries),
                      "cuMemAlloc") &&
            zc_gpu_put(blas->gpu, (void *)(uintptr_t)blas->matrices[i], entries,
                       count * sizeof *entries);
    free(entries);
    return filled;
}

bool zc_blas_open(const char *command, struct zc_gpu *gpu, zc_cu_stream stream, int n,
                  struct zc_blas **blas)
{
    struct zc_blas *made = calloc(1, sizeof *made);

    if (made == NULL) {
        zc_failure(command, "out of memory");
        return false;
    }
    made->command = command;
    made->gpu = gpu;
    made->n = n;
    if (!load(made) || !fill(made))
        goto fail;
    if (made->create(&made->handle) != 0 || made->set_stream(made->handle, stream) != 0) {
        zc_failure(command, "cuBLAS does not start");
        goto fail;
    }
    *blas = made;
    return true;
fail:
    zc_blas_close(made);
    return false;
}

bool zc_blas_multiply(struct zc_blas *blas)
{
    const float one = 1, zero = 0;
    const int n = blas->n;
    const int error = blas->gemm(blas->handle, NO_TRANSPOSE, NO_TRANSPOSE, n, n, n, &one,
                                 (const void *)(uintptr_t)blas->matrices[0], TYPE_BF16, n,
                                 (const void *)(uintptr_t)blas->matrices[1], TYPE_BF16, n, &zero,
                                 (void *)(uintptr_t)blas->matrices[2], TYPE_BF16, n, COMPUTE_F32,
                                 ALGORITHM_DEFAULT);

    if (error != 0)
        zc_failure(blas->command, "cublasGemmEx failed with cuBLAS's error %d", error);
    return error == 0;
}

void zc_blas_close(struct zc_blas *blas)
{
    if (blas == NULL)
        return;
    if (blas->handle != NULL)
        blas->destroy(blas->handle);
    for (int i = 0; i < MATRICES; i++)
        if (blas->matrices[i] != 0)
            blas->gpu->driver.cuMemFree(blas->matrices[i]);
    if (blas->library != NULL)
        dlclose(blas->library);
    free(blas);
}
