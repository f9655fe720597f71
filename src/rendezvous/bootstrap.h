/* Tells every rank where every other rank is: over TCP to rank 0, or through the caller's exchange.
 * Both give the ranks a common key as well. Opens no connection that outlives it, but the port at
 * which ranks of other hosts call. */
#ifndef ZC_BOOTSTRAP_H
#define ZC_BOOTSTRAP_H

#include <stdint.h>

#include "base/diag.h"
#include "rendezvous/net.h"
#include "rendezvous/rendezvous.h"
#include "rendezvous/wire.h"

/* One rank's part in one bootstrap. */
struct zc_bootstrap {
    const struct zc_job *job;
    struct zc_diag *diag;
    uint64_t start, deadline;
    struct zc_address mine;
    int port_fd;              /* listens at mine.ip and mine.port; -1: there is none */
    struct zc_address *table; /* of rank_count entries; filled */
    uint8_t key[ZC_WIRE_KEY]; /* the key of the mesh; filled */
    struct zc_endpoint root;  /* of the TCP bootstrap */
};

/* Collective over the job; rank_count is at least 2.
 * Errors: ERR_RENDEZVOUS, ERR_TIMEOUT (names a missing rank), ERR_SYSTEM, ERR_NO_MEMORY. */
zcta_status zc_bootstrap_run(struct zc_bootstrap *bootstrap);

/* The two sides of the TCP bootstrap: rank 0, and everybody else. */
zcta_status zc_bootstrap_host(struct zc_bootstrap *bootstrap);
zcta_status zc_bootstrap_join(struct zc_bootstrap *bootstrap);

/* Fills what identifies this machine and its network namespace, as far as abstract Unix sockets
 * reach, and the job's node if it is not 0. */
void zc_bootstrap_host_id(uint8_t host[16], uint64_t node);

/* Opens this rank's port, if ranks of other hosts may call and it is not open. `here` is the
 * address that it has towards rank 0; NULL if that is not known. Errors: ERR_RENDEZVOUS,
 * ERR_SYSTEM. */
zcta_status zc_bootstrap_open_port(struct zc_bootstrap *bootstrap, const struct zc_endpoint *here);

/* Bytes of the table on the wire, hash included. */
size_t zc_bootstrap_table_bytes(const struct zc_bootstrap *bootstrap);

#endif
