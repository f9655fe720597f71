/* A call of zerocta's made by MPI: the same flows between the same places. The ranks are those of
 * MPI_COMM_WORLD. Errors end the job, as is MPI's default. */
#ifndef ZC_MPI_CALL_H
#define ZC_MPI_CALL_H

#include <mpi.h>

#include "collective.h"
#include "peer_mpi.h" /* ZC_PEER_MPI_BYTES_MAX */

struct mpi_call {
    const struct zc_sized *sized;
    zcta_call call; /* with its buffers */
    int *numbers;   /* what the following are parts of */
    int *send_counts, *send_places, *recv_counts, *recv_places;
    MPI_Request *requests; /* two a rank */
};

/* Prepares the call, whose buffers are in it. False: out of memory; closing is fine then. */
bool mpi_call_open(const struct zc_sized *sized, const zcta_call *call, struct mpi_call *made);
void mpi_call_close(struct mpi_call *made);

void mpi_call_run(const struct mpi_call *made);

/* For zc_sized_meet(). */
zcta_status mpi_exchange(void *data, const void *mine, void *all, size_t bytes);

#endif
