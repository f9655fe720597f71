/* Who the ranks are, and how they exchange bytes and file descriptors.
 *
 * A job is resolved once (job.c: parameters, callbacks, environment). Bootstrap then tells every
 * rank every other rank's sockets (bootstrap.c: over TCP to rank 0, or the caller's exchange).
 * The mesh is one connection between each two ranks, a Unix socket on one host and TCP between
 * hosts; a monitor thread reads all of them, keeps what arrives until somebody asks for it, and
 * sees at once when a peer's process ends. A host is what Unix sockets reach: a machine and a
 * network namespace.
 * Knows nothing of teams, windows or devices. */
#ifndef ZC_RENDEZVOUS_H
#define ZC_RENDEZVOUS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/diag.h"
#include "zerocta/zerocta.h"

#define ZC_MAX_RANKS   4096u
#define ZC_MAX_MESSAGE 65536u /* bytes of one exchange message or notice */
#define ZC_TOKEN_BYTES 32u    /* the key of the keyed hash, derived from the token's text */

struct zc_job {
    uint32_t rank, rank_count;
    uint32_t local_rank, local_rank_count;
    char root[128];   /* "host:port"; empty when alone or through callbacks */
    char address[48]; /* at which other hosts reach this rank; empty: to be found out */
    uint64_t node;    /* ranks that say different numbers count as on different hosts */
    int listen_fd;    /* rank 0: a listening socket handed over by the launcher, or -1 */
    bool remote;      /* addresses beyond loopback are allowed */
    bool has_token;   /* false: the key is derived from public facts of the job */
    uint8_t key[ZC_TOKEN_BYTES];
    uint64_t settle_ns; /* 0: the launch has a name, so that no other has the same key */
    bool nameless;      /* and nothing else keeps a second launch from the address */
    uint64_t linger_ns; /* how long rank 0 stays after a failure, to tell ranks that come late */
    zcta_exchange_fn exchange;
    void *exchange_data;
    const char *source; /* "zerocta run", "torchrun", "Open MPI", "parameters", ... */
};

/* Resolves who this rank is, as zcta_init_params says. `params` is valid and not NULL. Sets
 * diag->rank. *job is written only on success; then its listen_fd is the caller's until
 * zc_mesh_open().
 * Errors: ERR_INVALID, ERR_ENVIRONMENT (names the variable that is missing or contradicts). */
zcta_status zc_job_resolve(const zcta_init_params *params, struct zc_diag *diag,
                           struct zc_job *job);

/* For a rank that cannot join and does not know more of its job: the others are in the caller's
 * exchange, or will be, and would wait there for ever. Does nothing where there is no such
 * exchange.
 */
void zc_job_decline(zcta_exchange_fn exchange, void *exchange_data, uint32_t rank_count);

/* The same for a rank that knows its job, instead of zc_mesh_open(): tells the others the thread's
 * last error, through the exchange that there is no such rank. Where they are not there to be told,
 * it waits for them a second at most. The job's listen_fd is consumed. */
void zc_mesh_decline(const struct zc_job *job, struct zc_diag *diag);

struct zc_mesh;

enum zc_mesh_event_kind {
    ZC_MESH_LOST,   /* the peer's connection closed without a farewell, or sent garbage */
    ZC_MESH_LEFT,   /* the peer said farewell (zc_mesh_close) */
    ZC_MESH_NOTICE, /* the peer sent a notice */
    ZC_MESH_TOLD,   /* the peer has lost another rank */
    ZC_MESH_UNABLE, /* the system lets this rank hear the peer no more, which is its own affair */
};

struct zc_mesh_event {
    enum zc_mesh_event_kind kind;
    uint32_t rank;    /* the peer it came from */
    uint32_t gone;    /* TOLD: which */
    bool left;        /* TOLD: it said farewell */
    uint64_t tag;     /* of a notice */
    uint32_t number;  /* of a notice */
    const void *data; /* of a notice; valid during the call */
    size_t bytes;
};

/* Called on the monitor thread, one event at a time; must not wait or call zc_mesh_exchange(). */
typedef void zc_mesh_event_fn(void *data, const struct zc_mesh_event *event);

/* Bootstraps and connects. Collective over the job. The job's listen_fd is consumed, whatever is
 * returned. Events may come before it returns; *mesh is set by then, and NULL again on an error.
 * Errors: ERR_RENDEZVOUS, ERR_TIMEOUT (names a missing rank), ERR_SYSTEM, ERR_NO_MEMORY. */
zcta_status zc_mesh_open(const struct zc_job *job, uint64_t deadline, zc_mesh_event_fn *on_event,
                         void *event_data, struct zc_diag *diag, struct zc_mesh **mesh);

/* Says farewell to every peer, stops the monitor (no event afterwards), closes. NULL is fine. */
void zc_mesh_close(struct zc_mesh *mesh);

/* This rank has said that it will leave: another process may be the same rank of the next job at
 * this root. Otherwise that is so from zc_mesh_close() on. */
void zc_mesh_leave_seat(struct zc_mesh *mesh);

/* World rank `rank` runs in this very process (as told by the kernel, not by the peer). */
bool zc_mesh_same_process(const struct zc_mesh *mesh, uint32_t rank);

/* Tells hosts apart: the lowest world rank on the host of world rank `rank`. */
uint32_t zc_mesh_host(const struct zc_mesh *mesh, uint32_t rank);

/* The pid of that rank, for messages; 0 if unknown. */
int64_t zc_mesh_pid(const struct zc_mesh *mesh, uint32_t rank);

/* One round among `count` world ranks, the caller among them: everybody gives `bytes` bytes and
 * perhaps one file descriptor, and gets everybody's, in the order of `ranks`.
 * The same round has the same `tag` and `number` on all its ranks. Numbers grow: what is left of an
 * earlier round is dropped, never taken for a part of this one, and a part that was lost is
 * noticed. Threads may run rounds with different tags at once. */
struct zc_exchange {
    const uint32_t *ranks;
    uint32_t count;
    uint64_t tag;
    uint32_t number;
    uint32_t topic; /* what the round is for: ranks that meet for different things are told so */
    const void *mine;
    void *all;    /* bytes * count */
    size_t bytes; /* the same on all ranks, at most ZC_MAX_MESSAGE; 0: they only meet */
    int fd;       /* sent to everybody on this host and still the caller's afterwards; -1: none */
    bool fd_afar; /* not to ranks of this very process, which need none */
    int *fds;     /* NULL: none wanted. else count entries, -1 where none came (from other hosts,
                     say, and for the caller itself); the caller owns what is in it on success */
    uint64_t since, deadline;     /* since: when the waiting began; 0: now */
    const _Atomic uint32_t *over; /* not 0: nobody waits any more. NULL: there is no such word */
    const char *call;             /* for messages: "zcta_window_alloc" */
    const char *what;             /* for messages: "did not join team world" */
    bool *finished; /* NULL, or set: whether every rank's part came here and this rank's went to
                       all. If not, the others may wait for what never comes: the caller sees to it
                       that they hear of it. An error of a finished round is this rank's alone, but
                       for ERR_MISMATCH, which all ranks of it get. */
};

/* Errors: ERR_TIMEOUT, ERR_PEER (each names the rank in the last error, but for the ERR_PEER of a
 * round that is over), ERR_MISMATCH (a peer sent another number of bytes, or for another topic),
 * ERR_SYSTEM, ERR_NO_MEMORY. On error no fd is kept. */
zcta_status zc_mesh_exchange(struct zc_mesh *mesh, const struct zc_exchange *exchange);

/* The round with which ranks begin what they may have to begin again, each at its own time. What a
 * rank says stands with the others, in place of what it said under this tag before, until they drop
 * it; the round ends when all ranks' words stand here at one moment, and leaves them standing.
 * `number` is the caller's own. No descriptors. Errors: as zc_mesh_exchange(). */
zcta_status zc_mesh_join(struct zc_mesh *mesh, const struct zc_exchange *exchange);

/* Drops what `rank` has sent under this tag with numbers up to `last` and nobody has taken. */
void zc_mesh_drop(struct zc_mesh *mesh, uint32_t rank, uint64_t tag, uint32_t last);

/* Those who wait in rounds look again, at what `over` says. */
void zc_mesh_wake(struct zc_mesh *mesh);

/* Tells `rank`, whose event function gets it. Never waits; a rank that cannot be told loses the
 * connection. From any thread, the monitor's included. */
void zc_mesh_notify(struct zc_mesh *mesh, uint32_t rank, uint64_t tag, uint32_t number,
                    const void *data, size_t bytes);

/* Tells everybody that `teller`, this rank or another that told it, has lost `gone`, which said
 * farewell (`left`) or not, so that nobody takes what this rank does next for the cause. On the
 * monitor thread. */
void zc_mesh_tell_gone(struct zc_mesh *mesh, uint32_t gone, uint32_t teller, bool left);

/* Of all ranks of this host, the first proposal for a subject wins; see zc_board_decide(). */
uint64_t zc_mesh_decide(struct zc_mesh *mesh, uint64_t subject, uint64_t proposal);

#endif
