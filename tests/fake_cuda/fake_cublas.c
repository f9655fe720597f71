/* What `zerocta overlap` uses of cuBLAS, made up: a GEMM is a pause in its stream. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fake_cuda.h"

#define EXPORT __attribute__((visibility("default")))

EXPORT int cublasCreate_v2(void **handle);
EXPORT int cublasDestroy_v2(void *handle);
EXPORT int cublasSetStream_v2(void *handle, void *stream);
EXPORT int cublasGemmEx(void *handle, int trans_a, int trans_b, int m, int n, int k,
                        const void *alpha, const void *a, int a_type, int a_stride, const void *b,
                        int b_type, int b_stride, const void *beta, void *c, int c_type,
                        int c_stride, int compute, int algorithm);

struct blas {
    void *stream;
    fake_cuda_enqueue_fn *enqueue;
};

int cublasCreate_v2(void **handle)
{
    void *cuda = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    void *function = cuda == NULL ? NULL : dlsym(cuda, "fake_cuda_enqueue");
    struct blas *blas = calloc(1, sizeof *blas);

    if (blas == NULL || function == NULL) {
        free(blas);
        return 1;
    }
    memcpy(&blas->enqueue, &function, sizeof function);
    *handle = blas;
    return 0;
}

int cublasDestroy_v2(void *handle)
{
    free(handle);
    return 0;
}

int cublasSetStream_v2(void *handle, void *stream)
{
    struct blas *blas = handle;

    blas->stream = stream;
    return 0;
}

static void pause_for_gemm(void *data)
{
    const struct timespec pause = {.tv_nsec = 200000};

    (void)data;
    nanosleep(&pause, NULL);
}

/* NOLINTNEXTLINE(readability-function-size): cuBLAS's own parameters. */
int cublasGemmEx(void *handle, int trans_a, int trans_b, int m, int n, int k, const void *alpha,
                 const void *a, int a_type, int a_stride, const void *b, int b_type, int b_stride,
                 const void *beta, void *c, int c_type, int c_stride, int compute, int algorithm)
{
    const struct blas *blas = handle;

    (void)trans_a, (void)trans_b, (void)m, (void)n, (void)k, (void)alpha, (void)a, (void)a_type;
    (void)a_stride, (void)b, (void)b_type, (void)b_stride, (void)beta, (void)c, (void)c_type;
    (void)c_stride, (void)compute, (void)algorithm;
    return blas->enqueue(blas->stream, pause_for_gemm, NULL);
}
