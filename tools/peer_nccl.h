/* NCCL as the peer of a measurement: the same call on the same buffers, in three ways. */
#ifndef ZC_PEER_NCCL_H
#define ZC_PEER_NCCL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "collective.h"
#include "engine/nccl/nccl_api.h"

enum zc_peer_nccl_way {
    ZC_PEER_NCCL_DEFAULT, /* kernels, buffers that NCCL knows nothing of */
    ZC_PEER_NCCL_WINDOWS, /* buffers in symmetric windows, SMs allowed */
    ZC_PEER_NCCL_ZERO,    /* the same with CTA policy ZERO: its copy engines */
    ZC_PEER_NCCL_WAYS
};

struct zc_peer_nccl;

/* Memory that is registered with each communicator that wants windows. */
struct zc_peer_nccl_memory {
    void *base; /* NULL: none */
    size_t bytes;
};

/* Loads libnccl.so.2. False after it said on stderr why not. */
bool zc_peer_nccl_load(struct zc_peer_nccl **peer);
bool zc_peer_nccl_make_id(struct zc_peer_nccl *peer, struct zc_nccl_id *id);
/* Makes the communicator of one way. Collective among the ranks that have the id. */
bool zc_peer_nccl_open(struct zc_peer_nccl *peer, enum zc_peer_nccl_way way,
                       const struct zc_nccl_id *id, uint32_t rank, uint32_t rank_count,
                       const struct zc_peer_nccl_memory memory[2]);
/* Enqueues the call, with its buffers: by NCCL's own one where it has one, else by a group of sends
 * and receives, one a flow. */
bool zc_peer_nccl_run(struct zc_peer_nccl *peer, enum zc_peer_nccl_way way, const zcta_call *call,
                      const struct zc_sized *sized, void *stream);
/* Memory of NCCL's own, and a window of it; shutting ends one way's communicator and windows. */
bool zc_peer_nccl_allocate(struct zc_peer_nccl *peer, struct zc_peer_nccl_memory *memory);
void zc_peer_nccl_free(struct zc_peer_nccl *peer, struct zc_peer_nccl_memory *memory);
bool zc_peer_nccl_register(struct zc_peer_nccl *peer, enum zc_peer_nccl_way way, int index,
                           const struct zc_peer_nccl_memory *memory);
void zc_peer_nccl_shut(struct zc_peer_nccl *peer, enum zc_peer_nccl_way way);
int zc_peer_nccl_version(const struct zc_peer_nccl *peer); /* 22803: 2.28.3 */
void zc_peer_nccl_close(struct zc_peer_nccl *peer);        /* NULL is fine */

#endif
