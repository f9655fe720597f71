/* NCCL as the peer of a measurement. Loaded at run time; what is used of its interface is declared
 * here, as NCCL 2.28 has it. */
#include "peer_nccl.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "options.h"

enum {
    OLDEST = 22800, /* the first with copy engines */
    INT8 = 0,
    WINDOW_SYMMETRIC = 1,
    POLICY_ZERO = 2,
    UNSET = INT_MIN,
};

/* ncclConfig_t of 2.28; a newer library reads as much of it as `size` and `version` say. */
struct config {
    size_t size;
    unsigned magic, version;
    int blocking, cga_cluster_size, min_ctas, max_ctas;
    const char *net_name;
    int split_share, traffic_class;
    const char *comm_name;
    int collnet, cta_policy, shrink_share, nvls_ctas, channels_per_net_peer, nvlink_centric;
};

typedef struct ncclComm *comm;

#define FUNCTIONS(X)                                                                               \
    X(ncclGetVersion, (int *version))                                                              \
    X(ncclGetErrorString, (int result))                                                            \
    X(ncclGetUniqueId, (struct zc_peer_nccl_id * id))                                              \
    X(ncclCommInitRankConfig,                                                                      \
      (comm * made, int rank_count, struct zc_peer_nccl_id id, int rank, struct config *config))   \
    X(ncclCommDestroy, (comm communicator))                                                        \
    X(ncclMemAlloc, (void **memory, size_t bytes))                                                 \
    X(ncclMemFree, (void *memory))                                                                 \
    X(ncclCommWindowRegister,                                                                      \
      (comm communicator, void *base, size_t bytes, void **window, int flags))                     \
    X(ncclCommWindowDeregister, (comm communicator, void *window))                                 \
    X(ncclAllGather,                                                                               \
      (const void *send, void *recv, size_t count, int type, comm communicator, void *stream))

struct zc_peer_nccl {
    void *library;
    int version;
    comm comms[ZC_PEER_NCCL_WAYS];
    void *windows[ZC_PEER_NCCL_WAYS][2];
#define MEMBER(name, parameters) int(*name) parameters; /* NOLINT */
    FUNCTIONS(MEMBER)
#undef MEMBER
};

static bool ok(int result, const char *what)
{
    if (result != 0)
        zc_failure("perf", "%s failed with NCCL's error %d; NCCL_DEBUG=WARN says more", what,
                   result);
    return result == 0;
}

static const struct {
    const char *name;
    size_t offset;
} functions[] = {
#define ROW(name, parameters) {#name, offsetof(struct zc_peer_nccl, name)},
    FUNCTIONS(ROW)
#undef ROW
};

static bool load_functions(struct zc_peer_nccl *nccl)
{
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        void *function = dlsym(nccl->library, functions[i].name);

        if (function == NULL) {
            zc_failure("perf", "NCCL has no %s; 2.28 is the oldest that can be compared with",
                       functions[i].name);
            return false;
        }
        memcpy((char *)nccl + functions[i].offset, &function, sizeof function);
    }
    return true;
}

bool zc_peer_nccl_load(struct zc_peer_nccl **nccl)
{
    struct zc_peer_nccl *made = calloc(1, sizeof *made);

    if (made == NULL) {
        zc_failure("perf", "out of memory");
        return false;
    }
    /* NVLink multicast can put GPUs that others share out of service: only who asks gets it. */
    setenv("NCCL_NVLS_ENABLE", "0", 0);
    made->library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (made->library == NULL) {
        zc_failure("perf", "no NCCL to compare with: %s", dlerror());
        goto fail;
    }
    if (!load_functions(made) || !ok(made->ncclGetVersion(&made->version), "ncclGetVersion"))
        goto fail;
    if (made->version < OLDEST) {
        zc_failure("perf", "NCCL is version %d; 2.28 is the oldest that can be compared with",
                   made->version);
        goto fail;
    }
    *nccl = made;
    return true;
fail:
    zc_peer_nccl_close(made);
    return false;
}

bool zc_peer_nccl_make_id(struct zc_peer_nccl *nccl, struct zc_peer_nccl_id *id)
{
    return ok(nccl->ncclGetUniqueId(id), "ncclGetUniqueId");
}

bool zc_peer_nccl_open(struct zc_peer_nccl *nccl, enum zc_peer_nccl_way way,
                       const struct zc_peer_nccl_id *id, uint32_t rank, uint32_t rank_count,
                       const struct zc_peer_nccl_memory memory[2])
{
    struct config config = {.size = sizeof config,
                            .magic = 0xcafebeef,
                            .version = OLDEST,
                            .blocking = UNSET,
                            .cga_cluster_size = UNSET,
                            .min_ctas = UNSET,
                            .max_ctas = UNSET,
                            .split_share = UNSET,
                            .traffic_class = UNSET,
                            .collnet = UNSET,
                            .cta_policy = way == ZC_PEER_NCCL_ZERO ? POLICY_ZERO : UNSET,
                            .shrink_share = UNSET,
                            .nvls_ctas = UNSET,
                            .channels_per_net_peer = UNSET,
                            .nvlink_centric = UNSET};
    bool opened = ok(
        nccl->ncclCommInitRankConfig(&nccl->comms[way], (int)rank_count, *id, (int)rank, &config),
        "ncclCommInitRankConfig");

    for (int i = 0; i < 2 && opened && way != ZC_PEER_NCCL_DEFAULT; i++)
        if (memory[i].base != NULL)
            opened = zc_peer_nccl_register(nccl, way, i, &memory[i]);
    return opened;
}

bool zc_peer_nccl_register(struct zc_peer_nccl *nccl, enum zc_peer_nccl_way way, int index,
                           const struct zc_peer_nccl_memory *memory)
{
    return ok(nccl->ncclCommWindowRegister(nccl->comms[way], memory->base, memory->bytes,
                                           &nccl->windows[way][index], WINDOW_SYMMETRIC),
              "ncclCommWindowRegister");
}

bool zc_peer_nccl_allocate(struct zc_peer_nccl *nccl, struct zc_peer_nccl_memory *memory)
{
    return ok(nccl->ncclMemAlloc(&memory->base, memory->bytes), "ncclMemAlloc");
}

void zc_peer_nccl_free(struct zc_peer_nccl *nccl, struct zc_peer_nccl_memory *memory)
{
    if (memory->base != NULL)
        nccl->ncclMemFree(memory->base);
    memory->base = NULL;
}

bool zc_peer_nccl_all_gather(struct zc_peer_nccl *nccl, enum zc_peer_nccl_way way, const void *send,
                             void *recv, size_t bytes, void *stream)
{
    return ok(nccl->ncclAllGather(send, recv, bytes, INT8, nccl->comms[way], stream),
              "ncclAllGather");
}

int zc_peer_nccl_version(const struct zc_peer_nccl *nccl)
{
    return nccl->version;
}

void zc_peer_nccl_shut(struct zc_peer_nccl *nccl, enum zc_peer_nccl_way way)
{
    for (int i = 0; i < 2; i++) {
        if (nccl->windows[way][i] != NULL)
            nccl->ncclCommWindowDeregister(nccl->comms[way], nccl->windows[way][i]);
        nccl->windows[way][i] = NULL;
    }
    if (nccl->comms[way] != NULL)
        nccl->ncclCommDestroy(nccl->comms[way]);
    nccl->comms[way] = NULL;
}

void zc_peer_nccl_close(struct zc_peer_nccl *nccl)
{
    if (nccl == NULL)
        return;
    for (int way = 0; way < ZC_PEER_NCCL_WAYS; way++)
        zc_peer_nccl_shut(nccl, (enum zc_peer_nccl_way)way);
    if (nccl->library != NULL)
        dlclose(nccl->library);
    free(nccl);
}
