/* What `zerocta overlap` uses of cuBLAS, made up: a GEMM is a pause in its stream. */
#include <dlfcn.h>
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

static struct {
    void *stream;
} the_handle;

static fake_cuda_enqueue_fn *enqueue;

int cublasCreate_v2(void **handle)
{
    void *cuda = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    void *function = cuda == NULL ? NULL : dlsym(cuda, "fake_cuda_enqueue");

    memcpy(&enqueue, &function, sizeof function);
    *handle = &the_handle;
    return enqueue == NULL;
}

int cublasDestroy_v2(void *handle)
{
    return handle != &the_handle;
}

int cublasSetStream_v2(void *handle, void *stream)
{
    the_handle.stream = stream;
    return handle != &the_handle;
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
    (void)trans_a, (void)trans_b, (void)m, (void)n, (void)k, (void)alpha, (void)a, (void)a_type;
    (void)a_stride, (void)b, (void)b_type, (void)b_stride, (void)beta, (void)c, (void)c_type;
    (void)c_stride, (void)compute, (void)algorithm;
    return handle != &the_handle || enqueue(the_handle.stream, pause_for_gemm, NULL) != 0;
}
