/* Who is measured: our call, our call with early ready, bare pushes, and the peer's ways; called
 * one by one, or launched as graphs of one captured call each. */
#include "perf.h"

enum { CAPTURE_RELAXED = 2 };

const char *const zc_variant_names[ZC_VARIANTS] = {
    [ZC_VARIANT_OURS] = "zerocta",
    [ZC_VARIANT_RELEASED] = "zerocta, released",
    [ZC_VARIANT_PUSH] = "bare pushes",
    [ZC_VARIANT_NCCL] = "nccl",
    [ZC_VARIANT_NCCL_WINDOWS] = "nccl-windows",
    [ZC_VARIANT_NCCL_ZERO] = "nccl-zero",
};

void zc_variants_choose(struct zc_bench *bench)
{
    const struct zc_perf *perf = bench->perf;
    const bool moves = !zc_shape_has(&perf->shape, ZCTA_COLLECTIVE_NO_DATA);
    const bool others = perf->peer == ZC_PEER_PUSH || perf->peer == ZC_PEER_NCCL;
    uint32_t count = 0;

    bench->variants[count++] = ZC_VARIANT_OURS;
    if (others && !perf->graph)
        bench->variants[count++] = ZC_VARIANT_RELEASED;
    if (others && perf->in_place && moves)
        bench->variants[count++] = ZC_VARIANT_PUSH;
    for (int way = 0; perf->peer == ZC_PEER_NCCL && way < ZC_PEER_NCCL_WAYS; way++)
        bench->variants[count++] = (enum zc_variant)(ZC_VARIANT_NCCL + way);
    bench->variant_count = count;
}

zcta_stream zc_perf_stream(const struct zc_bench *bench)
{
    return bench->gpu == NULL ? NULL : (zcta_stream)bench->gpu->stream;
}

bool zc_target_open(struct zc_bench *bench, uint64_t bytes, struct zc_target *target)
{
    const struct zc_perf *perf = bench->perf;

    *target = (struct zc_target){.bench = bench};
    if (zc_sized_make(bench->world, &perf->shape, bytes, perf->in_place, &target->sized) !=
            ZCTA_OK ||
        !zc_contents_open(&target->sized, &bench->arena, &target->contents)) {
        zc_perf_complain(bench, "no call");
        return false;
    }
    target->call = target->contents.call;
    target->call.policy = (zcta_policy)(perf->policy + 1);
    target->call.engine = (zcta_engine)perf->engine;
    return true;
}

static bool call_ours(const struct zc_target *target)
{
    return zcta_run(target->bench->world, &target->call, zc_perf_stream(target->bench)) == ZCTA_OK;
}

static bool call_released(const struct zc_target *target)
{
    zcta_stream stream = zc_perf_stream(target->bench);

    return zcta_plan_run(target->plan, stream) == ZCTA_OK &&
           zcta_release(target->plan, stream) == ZCTA_OK;
}

/* What no call can be faster than: the pushes alone, with nothing that says when they may begin or
 * that they have arrived. */
static bool push(const struct zc_target *target)
{
    const struct zc_bench *bench = target->bench;
    const struct zc_sized *sized = &target->sized;
    struct zc_gpu *gpu = bench->gpu;
    bool pushed = true;

    for (uint32_t hop = 1; hop < bench->rank_count && pushed; hop++) {
        const uint32_t peer = (bench->rank + hop) % bench->rank_count;
        const zcta_flow flow = sized->out[peer];
        char *recv = (char *)zcta_window_peer(bench->arena.windows[0], peer) + sized->front;

        if (flow.bytes > 0)
            pushed =
                zc_gpu_ok(gpu,
                          gpu->driver.cuMemcpyAsync((uintptr_t)(recv + flow.to_at),
                                                    (uintptr_t)target->call.send + flow.from_at,
                                                    flow.bytes, gpu->stream),
                          "cuMemcpyAsync");
    }
    return pushed;
}

static bool call_nccl(const struct zc_target *target, enum zc_variant variant)
{
    return zc_peer_nccl_run(target->bench->nccl, (enum zc_peer_nccl_way)(variant - ZC_VARIANT_NCCL),
                            &target->call, &target->sized, zc_perf_stream(target->bench));
}

static bool call_eagerly(const struct zc_target *target, enum zc_variant variant)
{
    switch (variant) {
    case ZC_VARIANT_OURS:
        return call_ours(target);
    case ZC_VARIANT_RELEASED:
        return call_released(target);
    case ZC_VARIANT_PUSH:
        return push(target);
    default:
        return call_nccl(target, variant);
    }
}

bool zc_variant_call(const struct zc_target *target, enum zc_variant variant)
{
    struct zc_gpu *gpu = target->bench->gpu;
    zc_cu_graph_exec graph = target->graphs[variant];

    if (graph == NULL)
        return call_eagerly(target, variant);
    return zc_gpu_ok(gpu, gpu->driver.cuGraphLaunch(graph, gpu->stream), "cuGraphLaunch");
}

bool zc_variant_await(const struct zc_target *target, enum zc_variant variant)
{
    const struct zc_bench *bench = target->bench;

    /* Only the pushes do not know whether the peers' have arrived. */
    return variant != ZC_VARIANT_PUSH ||
           (zcta_barrier(bench->world, zc_perf_stream(bench)) == ZCTA_OK &&
            zc_gpu_synchronize(bench->gpu));
}

static bool capture(struct zc_target *target, enum zc_variant variant)
{
    struct zc_gpu *gpu = target->bench->gpu;
    const struct zc_cuda_driver *d = &gpu->driver;
    zc_cu_graph graph = NULL;
    bool captured;

    /* Once outside: what is made ready at a first call cannot be captured. */
    if (!call_eagerly(target, variant) || !zc_gpu_synchronize(gpu))
        return false;
    captured = zc_gpu_ok(gpu, d->cuStreamBeginCapture(gpu->stream, CAPTURE_RELAXED),
                         "cuStreamBeginCapture") &&
               call_eagerly(target, variant);
    captured = zc_gpu_ok(gpu, d->cuStreamEndCapture(gpu->stream, &graph), "cuStreamEndCapture") &&
               captured &&
               zc_gpu_ok(gpu, d->cuGraphInstantiateWithFlags(&target->graphs[variant], graph, 0),
                         "cuGraphInstantiateWithFlags");
    if (graph != NULL)
        d->cuGraphDestroy(graph);
    return captured;
}

bool zc_variants_open(struct zc_target *target)
{
    const struct zc_bench *bench = target->bench;
    bool opened = true;

    for (uint32_t i = 0; i < bench->variant_count && opened; i++) {
        if (bench->variants[i] == ZC_VARIANT_RELEASED)
            opened = zcta_plan_make(bench->world, &target->call, &target->plan) == ZCTA_OK;
        if (opened && bench->perf->graph)
            opened = capture(target, bench->variants[i]);
    }
    return opened;
}

void zc_target_close(struct zc_target *target)
{
    for (int i = 0; i < ZC_VARIANTS; i++)
        if (target->graphs[i] != NULL)
            target->bench->gpu->driver.cuGraphExecDestroy(target->graphs[i]);
    if (target->plan != NULL)
        zcta_plan_free(&target->plan);
    zc_contents_close(&target->contents);
    zc_sized_free(&target->sized);
}
