/* Binding of the host's worker threads to cores, by hwloc where the build has it. */
#ifndef ZC_HOST_BIND_H
#define ZC_HOST_BIND_H

#include <stdint.h>

/* Binds the calling thread to the core that belongs to this local rank, among those this process
 * may use. Best effort: an unbound worker is slower, not wrong. */
void zc_host_bind_worker(uint32_t local_rank);

#endif
