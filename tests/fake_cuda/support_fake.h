/* Ranks as threads on the fake driver: each has a GPU, and its GPU's memory can be touched. */
#ifndef SUPPORT_FAKE_H
#define SUPPORT_FAKE_H

#include <dlfcn.h>
#include <stdatomic.h>
#include <string.h>

#include "device/cuda/cuda_driver.h"
#include "fake_cuda.h"
#include "support_ranks.h"

static struct zc_cuda_driver driver;

static inline void find_fake(void *library, const char *name, void *member)
{
    void *function = dlsym(library, name);

    EXPECT(function != NULL);
    memcpy(member, &function, sizeof function);
}

/* A group's setup; the library stays loaded. */
static inline void *open_fake(void)
{
    static struct zc_diag diag;
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);

    EXPECT(library != NULL);
    zc_diag_init(&diag);
    EXPECT(zc_cuda_driver_load(&diag, &driver) == ZCTA_OK);
    return library;
}

/* A rank's means. */
struct seat {
    zcta_context *context;
    zcta_team *world;
    uint32_t rank, count;
    zc_cu_stream stream;
    zcta_window *recv, *send;
    size_t share;
};

static inline struct seat take_seat(zcta_context *context, size_t share)
{
    struct seat s = {.context = context, .world = zcta_world(context), .share = share};
    zc_cu_context gpu = NULL;

    s.rank = zcta_team_rank(s.world);
    s.count = zcta_team_rank_count(s.world);
    EXPECT(driver.cuDevicePrimaryCtxRetain(&gpu, zcta_context_gpu(context)) == 0);
    EXPECT(driver.cuCtxPushCurrent(gpu) == 0);
    EXPECT(driver.cuStreamCreate(&s.stream, ZC_CU_STREAM_NON_BLOCKING) == 0);
    EXPECT_OK(context, zcta_window_alloc(s.world, share * s.count, &s.recv));
    EXPECT_OK(context, zcta_window_alloc(s.world, share, &s.send));
    return s;
}

static inline void synchronize(const struct seat *s)
{
    EXPECT(driver.cuStreamSynchronize(s->stream) == 0);
}

/* Windows go with the context: a rank may not be there any more to give them back with. */
static inline void leave_seat(struct seat *s)
{
    zc_cu_context gpu = NULL;

    synchronize(s);
    driver.cuStreamDestroy(s->stream);
    driver.cuCtxPopCurrent(&gpu);
    driver.cuDevicePrimaryCtxRelease(zcta_context_gpu(s->context));
}

/* The first to leave a failed job would be named by whoever has not heard of the failure yet. */
static inline void await_all(const struct seat *s, _Atomic uint32_t *arrived)
{
    atomic_fetch_add(arrived, 1);
    while (atomic_load(arrived) < s->count)
        sleep_ms(1);
}

static inline void fill_share(const struct seat *s, uint32_t call)
{
    memset(zcta_window_base(s->recv), 0xee, s->share * s->count);
    model_fill(zcta_window_base(s->send), call, s->rank, s->share);
}

static inline void expect_shares(const struct seat *s, uint32_t call)
{
    EXPECT(model_wrong(zcta_window_base(s->recv), call, s->count, s->share) == 0);
}

/* Out of place. */
static inline zcta_status gather(const struct seat *s, zcta_policy policy)
{
    const zcta_call_params params = {.size = sizeof params, .policy = policy};

    return zcta_all_gather(s->world, zcta_window_base(s->send), zcta_window_base(s->recv), s->share,
                           s->stream, &params);
}

static inline void begin_capture(const struct seat *s)
{
    EXPECT(driver.cuStreamBeginCapture(s->stream, 1) == 0);
}

static inline zc_cu_graph_exec end_capture(const struct seat *s)
{
    zc_cu_graph graph = NULL;
    zc_cu_graph_exec exec = NULL;

    EXPECT(driver.cuStreamEndCapture(s->stream, &graph) == 0);
    EXPECT(driver.cuGraphInstantiateWithFlags(&exec, graph, 0) == 0);
    driver.cuGraphDestroy(graph);
    return exec;
}

static inline void replay(const struct seat *s, zc_cu_graph_exec exec)
{
    EXPECT(driver.cuGraphLaunch(exec, s->stream) == 0);
}

#endif
