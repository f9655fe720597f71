/* Memory that ranks of one process share by its address.
 *
 * Ranks that are threads of one process need no second mapping of a peer's memory, and tools such
 * as ThreadSanitizer only understand what they do if they share addresses. A handle that travelled
 * through a socket must not be trusted with a pointer, though: its owner may have let go of the
 * memory meanwhile. So the memories of the process are listed, and an importer takes a reference
 * only to what is still in the list. The list is the library's one piece of process-wide state,
 * because it describes the process. */
#ifndef ZC_LOCAL_MEMORY_H
#define ZC_LOCAL_MEMORY_H

#include <stdint.h>

struct zc_local_memory {
    uint64_t id; /* never 0, never used twice by this process */
    uint32_t references;
    struct zc_local_memory *next;
};

/* Lists the memory with one reference. */
void zc_local_publish(struct zc_local_memory *memory);

/* Takes one more reference to the memory listed as `id`; NULL if there is none. */
struct zc_local_memory *zc_local_take(uint64_t id);

/* Gives a reference back; true if it was the last: the memory is unlisted and the caller's to free.
 */
_Bool zc_local_drop(struct zc_local_memory *memory);

#endif
