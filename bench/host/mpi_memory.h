/* Memory for MPI's calls: the caller's own, aligned to pages, every page touched. */
#ifndef ZC_MPI_MEMORY_H
#define ZC_MPI_MEMORY_H

#include "contents.h"

/* Room for this call and every smaller one of its shape. False: out of memory. */
bool mpi_memory_open(const struct zc_sized *sized, struct zc_arena *arena);
void mpi_memory_close(struct zc_arena *arena);

#endif
