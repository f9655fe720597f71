/* Tells every rank where every other rank is: over TCP to rank 0, or through the caller's exchange.
 * Both give the ranks a common key as well. What it opens is closed when the mesh stands, but for
 * the claim on this rank's seat.
 *
 * bootstrap.c chooses the way and has what the two ends of it, bootstrap_host.c and
 * bootstrap_join.c, have in common. */
#ifndef ZC_BOOTSTRAP_H
#define ZC_BOOTSTRAP_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/diag.h"
#include "rendezvous/net.h"
#include "rendezvous/rendezvous.h"
#include "rendezvous/wire.h"

/* A connection between rank 0 and another rank, as long as not all ranks have connected. */
struct zc_line {
    int fd; /* -1: closed */
    uint32_t rank;
    bool
        ready; /* rank 0's: the other end has connected to everybody. Else: this rank has said so */
    uint8_t session[ZC_WIRE_SESSION];
};

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
    int claim_fd;             /* see claim.h; -1: there is none */
    struct zc_line *lines;    /* rank 0: to all others; else to rank 0 */
    uint32_t line_count;      /* 0: no TCP bootstrap, or it has not come so far */
    uint32_t awaited;         /* of them have not said that all is ready at their end */
    uint64_t look_at;
    bool unheard;       /* it failed by itself, and the others do not know */
    bool declines;      /* this rank cannot join, and only says so */
    zcta_status failed; /* why, if it does */
};

/* Collective over the job; rank_count is at least 2. Whatever it returns, zc_bootstrap_end().
 * Errors: ERR_RENDEZVOUS, ERR_TIMEOUT (names a missing rank), ERR_SYSTEM, ERR_NO_MEMORY. */
zcta_status zc_bootstrap_run(struct zc_bootstrap *bootstrap);

/* Instead of it, for a rank that cannot join; the thread's last error says why, and stays. */
void zc_bootstrap_decline(struct zc_bootstrap *bootstrap);

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

/* ---- Between the table and the mesh: bootstrap_news.c ---- */

/* For who connects to the others meanwhile: what is to be polled beside that, at most so many
 * entries. `connected`: there is nothing else to do. */
size_t zc_bootstrap_poll_limit(const struct zc_bootstrap *bootstrap);
size_t zc_bootstrap_poll_set(struct zc_bootstrap *bootstrap, bool connected, struct pollfd *set,
                             int *timeout_ms);
/* After poll(). Errors: another rank's, in its words; ERR_RENDEZVOUS (it ended; or another process
 * came for this rank's seat). */
zcta_status zc_bootstrap_serve(struct zc_bootstrap *bootstrap, const struct pollfd *set);

/* False until all ranks have connected to everybody. */
bool zc_bootstrap_is_settled(const struct zc_bootstrap *bootstrap);
/* `status` is an error of this rank about another one, which may know better why: returns what rank
 * 0 tells of it, if that comes soon. */
zcta_status zc_bootstrap_better_word(struct zc_bootstrap *bootstrap, zcta_status status);
/* The deadline has passed, and it is not. */
zcta_status zc_bootstrap_fail_awaited(const struct zc_bootstrap *bootstrap);

/* Tells the others how it went, with the thread's last error unless status is OK, and closes. */
void zc_bootstrap_end(struct zc_bootstrap *bootstrap, zcta_status status);

/* Waits until `fd` is readable, or `until`. Errors: ERR_RENDEZVOUS (another process came for this
 * rank's seat). */
zcta_status zc_bootstrap_wait(struct zc_bootstrap *bootstrap, int fd, uint64_t until);

zcta_status zc_bootstrap_open_lines(struct zc_bootstrap *bootstrap, uint32_t count);

/* Two ranks run different versions of the library. */
zcta_status zc_bootstrap_fail_version(const struct zc_bootstrap *bootstrap, uint32_t rank,
                                      uint32_t theirs, uint32_t of_rank_0);

/* Says another rank's error, in its words. */
zcta_status zc_bootstrap_fail_as(const struct zc_bootstrap *bootstrap, const zcta_error *error);

enum zc_news { ZC_NEWS_END, ZC_NEWS_READY, ZC_NEWS_FAILED };

/* One message of a line that is readable; END for its end and for whatever is none. */
enum zc_news zc_line_hear(const struct zc_line *line, const uint8_t key[ZC_WIRE_KEY],
                          zcta_error *error);
/* `error` NULL: connected to everybody. */
void zc_line_tell(const struct zc_line *line, const uint8_t key[ZC_WIRE_KEY],
                  const zcta_error *error);

/* Bytes of the table on the wire, hash included. */
size_t zc_bootstrap_table_bytes(const struct zc_bootstrap *bootstrap);

#endif
