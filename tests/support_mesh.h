/* Ranks for tests of the rendezvous: as threads of this process, and as processes. */
#ifndef SUPPORT_MESH_H
#define SUPPORT_MESH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/diag.h"
#include "rendezvous/rendezvous.h"

#define MS UINT64_C(1000000)
#define S  UINT64_C(1000000000)

enum { MESH_RANKS = 16 };

/* One rank. What happened is left here for the test to assert on: a rank itself asserts nothing, as
 * it may be a thread or another process. */
struct mesh_rank {
    uint32_t rank, count;
    const char *root, *token;
    uint64_t node; /* ranks of different numbers meet as if on different hosts */
    uint64_t timeout_ns;
    uint64_t linger_ns; /* rank 0 stays so long after a failure; 0: as long as it does by itself */
    uint64_t settle_ns; /* rank 0 looks for a second launch so long; 0: not at all */
    zcta_exchange_fn exchange;
    void *exchange_data;
    void *shared; /* for the test */

    struct zc_diag diag;
    struct zc_mesh *mesh;
    zcta_status status; /* of the first call that failed */
    zcta_error error;
    uint64_t open_ns; /* time in zc_mesh_open() */
    atomic_uint lost[MESH_RANKS], left[MESH_RANKS], notices[MESH_RANKS];
    _Atomic uint64_t notice_sum;
};

typedef void mesh_body(struct mesh_rank *rank);

/* "127.0.0.1:port" with a port that is free now. */
void mesh_free_root(char root[32]);
uint16_t mesh_root_port(const char *root);

/* `count` ranks with one root and token; 10 s timeout. */
void mesh_ranks(struct mesh_rank *ranks, uint32_t count, const char *root, const char *token);
void mesh_ranks_destroy(struct mesh_rank *ranks, uint32_t count);

/* Resolves and opens; false and rank->status, rank->error if that fails. */
bool mesh_rank_open(struct mesh_rank *rank);
void mesh_rank_close(struct mesh_rank *rank);

/* Keeps the diag's last error and `status` in the rank; for a call that failed. */
void mesh_rank_failed(struct mesh_rank *rank, zcta_status status);

/* Every rank gives its rank, everybody checks. Returns the status, ERR_MISMATCH for wrong bytes. */
zcta_status mesh_round(struct mesh_rank *rank, uint64_t tag, uint64_t timeout_ns);

/* Runs `body` for each rank, as threads or as processes, and waits for all. The processes' exit
 * status is their rank->status. */
void mesh_run_threads(struct mesh_rank *ranks, uint32_t count, mesh_body *body);
void mesh_start_processes(struct mesh_rank *ranks, uint32_t count, mesh_body *body, pid_t *pids);
/* Exit status, or 256 + signal. Fails the test (returns -1) if it takes more than 30 s. */
int mesh_wait_process(pid_t pid);

/* Open descriptors of this process. */
int mesh_count_fds(void);

/* A plain TCP client of the root, connected, blocking; -1 if that fails. */
int mesh_stranger(const char *root);

#endif
