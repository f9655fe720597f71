/* bf16 GEMMs by cuBLAS, loaded at run time: the work that a collective must not slow. */
#ifndef ZC_TOOL_BLAS_H
#define ZC_TOOL_BLAS_H

#include "gpu.h"

struct zc_blas;

/* C = A * B of n x n bf16 matrices with random entries, fp32 inside, on `stream`. The GPU's context
 * is current. False after it said on stderr why not. */
bool zc_blas_open(const char *command, struct zc_gpu *gpu, zc_cu_stream stream, int n,
                  struct zc_blas **blas);
bool zc_blas_multiply(struct zc_blas *blas); /* enqueues one */
void zc_blas_close(struct zc_blas *blas);    /* NULL is fine; nothing runs any more */

#endif
