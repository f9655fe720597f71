/* The nccl engine as the network between nodes, for plans that the ce engine runs. */
#ifndef ZC_NCCL_H
#define ZC_NCCL_H

#include "engine/engine.h"

/* Makes the communicator of this rank's rail, the ranks at the same place on nodes of `node_ranks`
 * ranks, if it has not been made. Collective over the engine's team. Errors: those of
 * zc_nccl_comm_open(), and ERR_UNSUPPORTED (it would have to be made while `stream` is being
 * captured). */
zcta_status zc_nccl_join_nodes(struct zc_engine *engine, uint32_t node_ranks, zcta_stream stream);

/* What a network op's `enqueue` is; its `data` is the nccl engine, which has joined the nodes. */
zcta_status zc_nccl_transfer(const struct zc_op_network *network, zcta_stream stream);

/* Whether calls have been enqueued that NCCL's abort does not end. From any thread. */
bool zc_nccl_is_heedless(const struct zc_engine *engine);

#endif
