/* Names of hosts. The system's resolver may take as long as it likes and cannot be called off, so
 * it is asked on a thread of its own, which nobody waits for longer than the deadline. */
#ifndef ZC_NAMES_H
#define ZC_NAMES_H

#include <stdint.h>

#include "base/diag.h"
#include "rendezvous/net.h"

/* An address of `host`, numeric or a name. Errors: ERR_RENDEZVOUS (no such name), ERR_TIMEOUT,
 * ERR_SYSTEM, ERR_NO_MEMORY. */
zcta_status zc_names_resolve(const char *host, uint16_t port, uint64_t deadline,
                             struct zc_diag *diag, struct zc_endpoint *endpoint);

#endif
