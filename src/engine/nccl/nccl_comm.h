/* One NCCL communicator of a team, with windows registered in it.
 *
 * NCCL waits for other ranks with no deadline. A thread of the communicator's own sets one: it
 * makes the communicator, so that the caller need not wait for that for ever; it watches how long
 * the team's thread is inside NCCL, and looks for errors that NCCL found later; and it aborts the
 * communicator when the team has failed, so that NCCL's kernels end. A making that never ends is
 * left to the thread, which frees what it uses if NCCL ever returns. */
#ifndef ZC_NCCL_COMM_H
#define ZC_NCCL_COMM_H

#include "collective/collective.h"
#include "engine/nccl/nccl_library.h"
#include "engine/symmetric.h"

struct zc_nccl_comm;

/* Makes the communicator with this CTA policy. Collective. `group` and `guard` outlive it.
 * Errors: ERR_MISMATCH (another version or policy on a rank, which is named), ERR_TIMEOUT,
 * ERR_PEER, ERR_DEVICE (NCCL's words), ERR_POLICY (NCCL took another policy), ERR_NO_MEMORY. */
zcta_status zc_nccl_comm_open(const struct zc_group *group, struct zc_guard *guard, int policy,
                              struct zc_nccl_comm **comm);

/* Deregisters what is registered and destroys the communicator, or aborts it if its team has
 * failed. Collective in the first case. NULL is fine. */
void zc_nccl_comm_close(struct zc_nccl_comm *comm);

/* Ends all that waits in NCCL, some time after the return. From any thread. */
void zc_nccl_comm_abort(struct zc_nccl_comm *comm);

/* Makes [base, base + bytes) known as a symmetric window; nothing if it is. Collective.
 * Errors: as open. */
zcta_status zc_nccl_comm_register(struct zc_nccl_comm *comm, void *base, size_t bytes);
/* Takes the window back, if it is one. Collective; from any thread. */
void zc_nccl_comm_deregister(struct zc_nccl_comm *comm, const void *base);
/* Whether it is known and has not been taken back. */
bool zc_nccl_comm_has_window(struct zc_nccl_comm *comm, const void *base);

/* Enqueues a collective: by NCCL's own call where it has one, else by a group of sends and
 * receives, one a flow. The device is current. Errors: ERR_DEVICE (NCCL's words), ERR_PEER (the
 * team has failed). */
zcta_status zc_nccl_comm_run(struct zc_nccl_comm *comm, const struct zc_layout *layout,
                             const void *send, void *recv, zcta_stream stream);

/* Enqueues sends and receives as one group. A peer's number in the communicator is its rank divided
 * by `ranks_each`. Errors: as above. */
zcta_status zc_nccl_comm_transfer(struct zc_nccl_comm *comm, const struct zc_transfer *transfers,
                                  uint32_t count, uint32_t ranks_each, zcta_stream stream);

#endif
