/* Memory for MPI's calls. */
#include "mpi_memory.h"

#include <stdlib.h>
#include <string.h>

enum { PAGE = 4096 };

static bool touched_pages(uint64_t bytes, char **memory)
{
    void *made = NULL;

    if (bytes == 0)
        return true;
    if (posix_memalign(&made, PAGE, bytes) != 0)
        return false;
    memset(made, 1, bytes);
    *memory = made;
    return true;
}

bool mpi_memory_open(const struct zc_sized *sized, struct zc_arena *arena)
{
    *arena = (struct zc_arena){.recv = NULL};
    return touched_pages(sized->room, &arena->recv) && touched_pages(sized->apart, &arena->send);
}

void mpi_memory_close(struct zc_arena *arena)
{
    free(arena->recv);
    free(arena->send);
    *arena = (struct zc_arena){.recv = NULL};
}
