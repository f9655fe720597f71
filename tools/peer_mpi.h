/* MPI as the peer of a measurement on the host: a program beside this command, which the benchmarks
 * build for each MPI that they find. Rank 0 starts it and asks it for sizes; between two answers
 * its ranks sleep. */
#ifndef ZC_PEER_MPI_H
#define ZC_PEER_MPI_H

#include <stdbool.h>
#include <stdint.h>

#include "collective.h"

enum { ZC_PEER_MPIS = 2 };
extern const char *const zc_peer_mpi_names[ZC_PEER_MPIS]; /* "open-mpi", "mpich" */

struct zc_peer_mpi;

/* MPI counts in int. */
#define ZC_PEER_MPI_BYTES_MAX ((uint64_t)1 << 30)

/* Whether its program is there. */
bool zc_peer_mpi_is_built(int which);
/* Whether one of them is; otherwise says so. */
bool zc_peer_mpi_check(const char *command);

/* Starts it with so many ranks, for sizes up to `bytes_max`. False after it was said why not. */
bool zc_peer_mpi_open(const char *command, int which, const struct zc_shape *shape,
                      uint32_t rank_count, bool in_place, uint64_t bytes_max,
                      struct zc_peer_mpi **peer);
void zc_peer_mpi_close(struct zc_peer_mpi *peer); /* NULL is fine */

/* Asks for a size: so many timings, each of so many calls. */
void zc_peer_mpi_ask(struct zc_peer_mpi *peer, uint64_t bytes, uint32_t timings, uint32_t calls);

/* Waits for the answer, but not longer than that. */
enum zc_peer_mpi_state { ZC_PEER_MPI_BUSY, ZC_PEER_MPI_ANSWERED, ZC_PEER_MPI_GONE };
enum zc_peer_mpi_state zc_peer_mpi_answer(struct zc_peer_mpi *peer, int wait_ms,
                                          uint64_t *median_ns, uint64_t *wrong_bytes);

#endif
