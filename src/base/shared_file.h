/* Files of memory that processes share. */
#ifndef ZC_SHARED_FILE_H
#define ZC_SHARED_FILE_H

#include "base/diag.h"

/* A file of `bytes` (whole pages) with all of its pages, which nobody can make shorter or longer
 * any more. `sharers`: how many ranks of this machine, this one among them, make one as large at
 * the same time. `timeout_ns`: the longest time without progress; 0: any.
 * Errors: ERR_NO_MEMORY, ERR_SYSTEM, ERR_TIMEOUT (signals leave no time for it). */
zcta_status zc_shared_file_make(struct zc_diag *diag, size_t bytes, uint32_t sharers,
                                uint64_t timeout_ns, int *fd);

/* Whether a peer's file holds `bytes`, and will go on doing so: a mapping beyond its end would be a
 * SIGBUS. Errors: ERR_PEER. */
zcta_status zc_shared_file_check(struct zc_diag *diag, int fd, uint64_t bytes);

/* Maps that much of a file, which has it, with its pages; munmap() undoes it.
 * Errors: ERR_NO_MEMORY, ERR_SYSTEM. */
zcta_status zc_shared_file_map(struct zc_diag *diag, int fd, size_t bytes, void **base);

#endif
