/* What the driver's calls cost that a collective is made of: CPU time of the call, and GPU time of
 * what it enqueues, each by itself and in the sequences of a two-rank allgather. Two GPUs, one
 * process. Prints one line a case. */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "device/cuda/cuda_driver.h"
#include "device/device.h"

enum { CALLS = 200, BATCHES = 15 };

struct bench {
    struct zc_diag diag;
    struct zc_cuda_driver d;
    zc_cu_context context;
    zc_cu_stream stream;
    zc_cu_event begin, end;
    zc_cu_pointer own, peer; /* on GPU 0, on GPU 1 */
    zc_cu_pointer host;      /* pinned */
    zc_cu_graph_exec exec;
};

#define MUST(call)                                                                                 \
    do {                                                                                           \
        const zc_cu_result result = (call);                                                        \
        if (result != 0) {                                                                         \
            fprintf(stderr, "%s: CUDA error %d\n", #call, result);                                 \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static union zc_cu_mem_op op(int operation, zc_cu_pointer address, uint32_t value)
{
    return (union zc_cu_mem_op){
        .value = {.operation = operation, .address = address, .value = value}};
}

static void mem_ops(struct bench *b, unsigned writes, unsigned waits, zc_cu_pointer to)
{
    union zc_cu_mem_op ops[16];
    unsigned count = 0;

    for (unsigned i = 0; i < writes; i++)
        ops[count++] = op(ZC_CU_MEM_OP_WRITE_VALUE_32, to + 64 + 16 * i, 1);
    for (unsigned i = 0; i < waits; i++)
        ops[count++] = op(ZC_CU_MEM_OP_WAIT_VALUE_32, b->own + 4096, 0);
    MUST(b->d.cuStreamBatchMemOp(b->stream, count, ops, 0));
}

static void push_pop(struct bench *b)
{
    zc_cu_context popped;

    MUST(b->d.cuCtxPushCurrent(b->context));
    MUST(b->d.cuCtxPopCurrent(&popped));
}
static void get_current(struct bench *b)
{
    zc_cu_context current;

    MUST(b->d.cuCtxGetCurrent(&current));
}
static void is_capturing(struct bench *b)
{
    int status;

    MUST(b->d.cuStreamIsCapturing(b->stream, &status));
}
static void get_id(struct bench *b)
{
    unsigned long long id;

    MUST(b->d.cuStreamGetId(b->stream, &id));
}
static void record(struct bench *b)
{
    MUST(b->d.cuEventRecord(b->end, b->stream));
}
static void copy_4(struct bench *b)
{
    MUST(b->d.cuMemcpyAsync(b->peer, b->own, 4, b->stream));
}
static void copy_1k(struct bench *b)
{
    MUST(b->d.cuMemcpyAsync(b->peer + 8192, b->own + 8192, 1024, b->stream));
}
static void copy_local(struct bench *b)
{
    MUST(b->d.cuMemcpyAsync(b->own + 16384, b->own + 8192, 1024, b->stream));
}
static void write_1(struct bench *b)
{
    mem_ops(b, 1, 0, b->own);
}
static void write_peer(struct bench *b)
{
    mem_ops(b, 1, 0, b->peer);
}
static void write_host(struct bench *b)
{
    mem_ops(b, 1, 0, b->host);
}
static void wait_1(struct bench *b)
{
    mem_ops(b, 0, 1, b->own);
}
static void write_2_wait_1(struct bench *b)
{
    mem_ops(b, 2, 1, b->own);
}
static void write_7_wait_7(struct bench *b)
{
    mem_ops(b, 7, 7, b->own);
}
static void copy_signal(struct bench *b)
{
    copy_1k(b);
    copy_4(b);
}
static void sequence_marks(struct bench *b)
{
    union zc_cu_mem_op ops[3];

    ops[0] = op(ZC_CU_MEM_OP_WRITE_VALUE_32, b->peer + 64, 1);
    ops[1] = op(ZC_CU_MEM_OP_WRITE_VALUE_32, b->host, 1);
    ops[2] = op(ZC_CU_MEM_OP_WAIT_VALUE_32, b->own + 4096, 0);
    MUST(b->d.cuStreamBatchMemOp(b->stream, 3, ops, 0));
    copy_signal(b);
    ops[0] = op(ZC_CU_MEM_OP_WAIT_VALUE_32, b->own + 4096, 0);
    ops[1] = op(ZC_CU_MEM_OP_WRITE_VALUE_32, b->host + 64, 1);
    MUST(b->d.cuStreamBatchMemOp(b->stream, 2, ops, 0));
}
static void sequence_bare(struct bench *b)
{
    mem_ops(b, 1, 1, b->peer);
    copy_signal(b);
    wait_1(b);
}
static void sequence_copies(struct bench *b)
{
    copy_4(b);
    wait_1(b);
    copy_signal(b);
    wait_1(b);
}
static void sequence_released(struct bench *b)
{
    wait_1(b);
    copy_signal(b);
    wait_1(b);
}
static void sequence_own_last(struct bench *b)
{
    mem_ops(b, 1, 1, b->peer);
    copy_signal(b);
    copy_local(b);
    wait_1(b);
}
static void graph(struct bench *b)
{
    MUST(b->d.cuGraphLaunch(b->exec, b->stream));
}

static const struct {
    const char *name;
    void (*run)(struct bench *b);
} cases[] = {
    {"push and pop the context", push_pop},
    {"ask for the current context", get_current},
    {"ask whether the stream is captured", is_capturing},
    {"ask for the stream's id", get_id},
    {"record an event", record},
    {"copy 4 bytes to the peer", copy_4},
    {"copy 1 KiB to the peer", copy_1k},
    {"copy 1 KiB within the GPU", copy_local},
    {"write here", write_1},
    {"write to the peer", write_peer},
    {"write to pinned host memory", write_host},
    {"wait, already true", wait_1},
    {"2 writes and a wait in a batch", write_2_wait_1},
    {"7 writes and 7 waits in a batch", write_7_wait_7},
    {"copy 1 KiB and 4 bytes", copy_signal},
    {"allgather: ready by write, no marks", sequence_bare},
    {"allgather: ready by write, marks", sequence_marks},
    {"allgather: ready by copy, no marks", sequence_copies},
    {"allgather: released", sequence_released},
    {"allgather: own share last on the lane", sequence_own_last},
    {"allgather with marks, as a graph", graph},
};

static int by_value(const void *left, const void *right)
{
    const double a = *(const double *)left, b = *(const double *)right;

    return (a > b) - (a < b);
}

static void measure(struct bench *b, size_t which)
{
    double cpu[BATCHES], gpu[BATCHES];

    for (int batch = 0; batch < BATCHES; batch++) {
        uint64_t start, spent;
        float ms = 0;

        MUST(b->d.cuEventRecord(b->begin, b->stream));
        start = zc_now_ns();
        for (int i = 0; i < CALLS; i++)
            cases[which].run(b);
        spent = zc_now_ns() - start;
        MUST(b->d.cuEventRecord(b->end, b->stream));
        MUST(b->d.cuEventSynchronize(b->end));
        MUST(b->d.cuEventElapsedTime(&ms, b->begin, b->end));
        cpu[batch] = (double)spent / CALLS / 1e3;
        gpu[batch] = (double)ms * 1e3 / CALLS;
    }
    qsort(cpu, BATCHES, sizeof *cpu, by_value);
    qsort(gpu, BATCHES, sizeof *gpu, by_value);
    printf("%-38s %8.2f %8.2f\n", cases[which].name, cpu[BATCHES / 2], gpu[BATCHES / 2]);
}

static void capture(struct bench *b)
{
    zc_cu_graph made;

    MUST(b->d.cuStreamBeginCapture(b->stream, 2));
    sequence_marks(b);
    MUST(b->d.cuStreamEndCapture(b->stream, &made));
    MUST(b->d.cuGraphInstantiateWithFlags(&b->exec, made, 0));
    MUST(b->d.cuGraphDestroy(made));
}

/* A device's memory, as seen by GPU 0. */
static zc_cu_pointer allocate(struct bench *b, struct zc_device *first, uint32_t gpu)
{
    const struct zc_device_params params = {
        .diag = &b->diag, .gpu = gpu + 1, .local_rank_count = 1};
    struct zc_device *device = first;
    struct zc_memory_handle handle;
    struct zc_memory *made, *seen;
    int fd;

    if (gpu > 0 && zc_device_cuda.open(&params, &device) != ZCTA_OK)
        exit(1);
    if (zc_device_cuda.memory_alloc(device, ZC_ON_DEVICE, 1 << 20, 1, &made) != ZCTA_OK)
        exit(1);
    if (gpu == 0)
        return (uintptr_t)made->base;
    if (zc_device_cuda.memory_export(device, made, &handle, &fd) != ZCTA_OK ||
        zc_device_cuda.memory_import(first, &handle, fd, true, &seen) != ZCTA_OK)
        exit(1);
    return (uintptr_t)seen->base;
}

int main(void)
{
    struct bench b = {.stream = NULL};
    const struct zc_device_params params = {.diag = &b.diag, .gpu = 1, .local_rank_count = 1};
    struct zc_device *device;
    zc_cu_device gpu;
    void *host;

    zc_diag_init(&b.diag);
    if (zc_cuda_driver_load(&b.diag, &b.d) != ZCTA_OK ||
        zc_device_cuda.open(&params, &device) != ZCTA_OK)
        return 1;
    MUST(b.d.cuDeviceGet(&gpu, 0));
    MUST(b.d.cuDevicePrimaryCtxRetain(&b.context, gpu));
    MUST(b.d.cuCtxPushCurrent(b.context));
    MUST(b.d.cuStreamCreate(&b.stream, ZC_CU_STREAM_NON_BLOCKING));
    MUST(b.d.cuEventCreate(&b.begin, 0));
    MUST(b.d.cuEventCreate(&b.end, 0));
    MUST(b.d.cuMemHostAlloc(&host, 4096, ZC_CU_MEM_HOST_PORTABLE));
    b.host = (uintptr_t)host;
    b.own = allocate(&b, device, 0);
    b.peer = allocate(&b, device, 1);
    capture(&b);
    printf("%-38s %8s %8s\n", "us a call, medians", "CPU", "GPU");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        measure(&b, i);
    return 0;
}
