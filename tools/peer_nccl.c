/* NCCL as the peer of a measurement: used as a program would use it, without our engine. */
#include "peer_nccl.h"

#include <stdio.h>
#include <stdlib.h>

#include "collective/collective.h"
#include "commands.h"
#include "engine/nccl/nccl_library.h"
#include "options.h"

struct zc_peer_nccl {
    struct zc_diag diag;
    struct zc_nccl nccl;
    zc_nccl_handle comms[ZC_PEER_NCCL_WAYS];
    void *windows[ZC_PEER_NCCL_WAYS][2];
};

static bool ok(struct zc_peer_nccl *peer, int result, const char *what)
{
    zcta_error error;

    if (zc_nccl_status(&peer->nccl, &peer->diag, NULL, result, what, what) == ZCTA_OK)
        return true;
    zc_diag_last(&peer->diag, &error);
    zc_failure("perf", "%s", error.message);
    return false;
}

bool zc_peer_nccl_load(struct zc_peer_nccl **peer)
{
    struct zc_peer_nccl *made = calloc(1, sizeof *made);
    char version[16];
    zcta_error error;

    if (made == NULL) {
        zc_failure("perf", "out of memory");
        return false;
    }
    zc_diag_init(&made->diag);
    if (zc_nccl_load(&made->diag, &made->nccl) != ZCTA_OK) {
        zc_diag_last(&made->diag, &error);
        zc_failure("perf", "no NCCL to compare with: %s", error.message);
        goto fail;
    }
    if (made->nccl.version < ZC_NCCL_HAS_COPY_ENGINES) {
        zc_failure("perf", "NCCL is version %s; 2.28 is the oldest that can be compared with",
                   zc_nccl_version_text(made->nccl.version, version));
        goto fail;
    }
    *peer = made;
    return true;
fail:
    zc_peer_nccl_close(made);
    return false;
}

bool zc_peer_nccl_make_id(struct zc_peer_nccl *peer, struct zc_nccl_id *id)
{
    return ok(peer, peer->nccl.ncclGetUniqueId(id), "ncclGetUniqueId");
}

bool zc_peer_nccl_open(struct zc_peer_nccl *peer, enum zc_peer_nccl_way way,
                       const struct zc_nccl_id *id, uint32_t rank, uint32_t rank_count,
                       const struct zc_peer_nccl_memory memory[2])
{
    struct zc_nccl_config config = zc_nccl_config(
        peer->nccl.version, way == ZC_PEER_NCCL_ZERO ? ZC_NCCL_POLICY_ZERO : ZC_NCCL_CONFIG_UNSET);
    bool opened = ok(peer,
                     peer->nccl.ncclCommInitRankConfig(&peer->comms[way], (int)rank_count, *id,
                                                       (int)rank, &config),
                     "ncclCommInitRankConfig");

    for (int i = 0; i < 2 && opened && way != ZC_PEER_NCCL_DEFAULT; i++)
        if (memory[i].base != NULL)
            opened = zc_peer_nccl_register(peer, way, i, &memory[i]);
    return opened;
}

bool zc_peer_nccl_register(struct zc_peer_nccl *peer, enum zc_peer_nccl_way way, int index,
                           const struct zc_peer_nccl_memory *memory)
{
    return ok(peer,
              peer->nccl.ncclCommWindowRegister(peer->comms[way], memory->base, memory->bytes,
                                                &peer->windows[way][index],
                                                ZC_NCCL_WINDOW_SYMMETRIC),
              "ncclCommWindowRegister");
}

bool zc_peer_nccl_allocate(struct zc_peer_nccl *peer, struct zc_peer_nccl_memory *memory)
{
    return ok(peer, peer->nccl.ncclMemAlloc(&memory->base, memory->bytes), "ncclMemAlloc");
}

void zc_peer_nccl_free(struct zc_peer_nccl *peer, struct zc_peer_nccl_memory *memory)
{
    if (memory->base != NULL)
        peer->nccl.ncclMemFree(memory->base);
    memory->base = NULL;
}

/* What follows is a program's own use of NCCL, and not the engine's, which is measured against it.
 */

/* To one peer and from one, which may be this rank: what is in place there stays where it is. */
static int run_flows(const struct zc_nccl *nccl, zc_nccl_handle comm, const zcta_call *call,
                     const struct zc_sized *sized, uint32_t to, uint32_t from, void *stream)
{
    const zcta_flow out = sized->out[to], in = sized->in[from];
    int result = ZC_NCCL_SUCCESS;

    if (to == sized->rank && sized->in_place)
        return result;
    if (out.bytes > 0)
        result = nccl->ncclSend((const char *)call->send + out.from_at, out.bytes, ZC_NCCL_INT8,
                                (int)to, comm, stream);
    if (result == ZC_NCCL_SUCCESS && in.bytes > 0)
        result = nccl->ncclRecv((char *)call->recv + in.to_at, in.bytes, ZC_NCCL_INT8, (int)from,
                                comm, stream);
    return result;
}

/* The group is ended whatever happened in it. */
static int run_group(const struct zc_nccl *nccl, zc_nccl_handle comm, const zcta_call *call,
                     const struct zc_sized *sized, void *stream)
{
    const uint32_t ranks = sized->ranks, self = sized->rank;
    int result = nccl->ncclGroupStart(), ended;

    if (result != ZC_NCCL_SUCCESS)
        return result;
    for (uint32_t hop = 0; hop < ranks && result == ZC_NCCL_SUCCESS; hop++)
        result = run_flows(nccl, comm, call, sized, (self + hop) % ranks,
                           (self + ranks - hop) % ranks, stream);
    ended = nccl->ncclGroupEnd();
    return result == ZC_NCCL_SUCCESS ? ended : result;
}

bool zc_peer_nccl_run(struct zc_peer_nccl *peer, enum zc_peer_nccl_way way, const zcta_call *call,
                      const struct zc_sized *sized, void *stream)
{
    const struct zc_collective *collective = zc_collective_of(call->collective);
    zc_nccl_handle comm = peer->comms[way];

    if (zc_nccl_has_own_call(&peer->nccl, collective))
        return ok(peer,
                  zc_nccl_own_call(&peer->nccl, collective, comm, call->send, call->recv,
                                   call->bytes, call->root, stream),
                  collective->nccl);
    return ok(peer, run_group(&peer->nccl, comm, call, sized, stream), "ncclGroupEnd");
}

int zc_peer_nccl_version(const struct zc_peer_nccl *peer)
{
    return peer->nccl.version;
}

void zc_peer_nccl_shut(struct zc_peer_nccl *peer, enum zc_peer_nccl_way way)
{
    for (int i = 0; i < 2; i++) {
        if (peer->windows[way][i] != NULL)
            peer->nccl.ncclCommWindowDeregister(peer->comms[way], peer->windows[way][i]);
        peer->windows[way][i] = NULL;
    }
    if (peer->comms[way] != NULL)
        peer->nccl.ncclCommDestroy(peer->comms[way]);
    peer->comms[way] = NULL;
}

void zc_peer_nccl_close(struct zc_peer_nccl *peer)
{
    if (peer == NULL)
        return;
    for (int way = 0; way < ZC_PEER_NCCL_WAYS; way++)
        zc_peer_nccl_shut(peer, (enum zc_peer_nccl_way)way);
    zc_nccl_unload(&peer->nccl);
    zc_diag_destroy(&peer->diag);
    free(peer);
}
