/* The files behind the host's shared memory. */
#ifndef ZC_HOST_FILE_H
#define ZC_HOST_FILE_H

#include "device/device.h"

/* A file of `bytes` (whole pages) with all of its pages, which nobody can make shorter or longer
 * any more. `sharers`: how many ranks of this machine, this one among them, make one as large at
 * the same time. Errors: ERR_NO_MEMORY, ERR_SYSTEM, ERR_TIMEOUT (signals leave no time for it). */
zcta_status zc_host_file_make(struct zc_device *device, size_t bytes, uint32_t sharers, int *fd);

/* Whether a peer's file holds `bytes`, and will go on doing so: a mapping beyond its end would be a
 * SIGBUS. Errors: ERR_PEER. */
zcta_status zc_host_file_check(struct zc_device *device, int fd, uint64_t bytes);

#endif
