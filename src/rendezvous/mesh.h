/* The inside of the mesh, shared by the files mesh*.c: one object, a file a theme. mesh.c opens and
 * closes it by calling the others, which ask it what it knows of the peers.
 *
 * Unix sockets carry sequential packets: a frame arrives whole or not at all. A stream does the
 * same for TCP, see stream.h. Any thread may send; only the monitor thread receives, and it never
 * waits for room: what cannot go at once is kept, see mesh_post.c. `lock` guards what the monitor
 * and the callers share, and is never held while anything is sent or an event function runs. */
#ifndef ZC_MESH_H
#define ZC_MESH_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "rendezvous/bootstrap.h"
#include "rendezvous/mailbox.h"
#include "rendezvous/rendezvous.h"
#include "rendezvous/stream.h"
#include "rendezvous/wire.h"

enum zc_peer_state { ZC_PEER_CONNECTED, ZC_PEER_LEFT, ZC_PEER_LOST };

struct zc_post; /* a frame that waits for room */
struct zc_board;

struct zc_peer {
    int fd; /* open from zc_mesh_open() to zc_mesh_close(), so that senders need no lock; -1: self
             */
    int64_t pid;
    int pid_fd;                /* becomes readable when its process ends; -1: not watched */
    bool process_ended;        /* the monitor's: so the kernel, or a rank that watches it, says */
    uint32_t host;             /* see zc_mesh_host() */
    struct zc_stream *stream;  /* to a peer on another host; NULL: it is on this one */
    enum zc_peer_state state;  /* under lock */
    const char *why;           /* under lock: "ended", "left the job"; static text */
    struct zc_mailbox mailbox; /* under lock */
    pthread_mutex_t post_lock; /* guards what follows, and the order of what is sent */
    struct zc_post *first_post, *last_post;
    uint32_t post_count;
};

struct zc_mesh {
    uint32_t rank, rank_count;
    struct zc_peer *peers; /* rank_count of them */
    struct zc_diag *diag;
    zc_mesh_event_fn *on_event;
    void *event_data;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* a message came or a peer's state changed; on CLOCK_MONOTONIC */
    pthread_t monitor;
    bool monitor_runs;
    _Atomic bool stopping;
    _Atomic int
        deaf; /* why the monitor could receive nothing when it last tried, an errno; else 0 */
    /* Whoever is about to blame a rank for what has not come asks the monitor first, which answers
     * when it has taken all that is there. Both count up; written under lock. */
    _Atomic uint32_t asked, answered;
    int epoll_fd, stop_fd;
    struct zc_board *board; /* of this host's ranks; NULL: this rank is alone on it */
    int claim_fd;           /* this rank's seat, see claim.h; -1: there is none */
};

/* Whether this process may have so many descriptors for the job at once, besides a few. Said before
 * any of them is missing, since a job that runs out of them on its way tells less. Errors:
 * ERR_SYSTEM. */
zcta_status zc_mesh_check_files(const struct zc_bootstrap *bootstrap, uint32_t needed);

/* Connects this rank to all others; `table` and `key` come from the bootstrap, `listener` is this
 * rank's Unix listener. Fills peers[], but for what arrives later. mesh_connect.c */
zcta_status zc_mesh_connect(struct zc_mesh *mesh, struct zc_bootstrap *bootstrap, int listener);

/* mesh_post.c. Sends a frame, with `pass_fd` unless that is -1 or the peer is on another host. 0 or
 * an errno; see also zc_net_send_packet() and zc_stream_send(). From any thread. */
int zc_mesh_send(struct zc_mesh *mesh, uint32_t rank, const struct zc_frame *frame,
                 const void *data, int pass_fd);
/* How long what the system refuses is left alone. */
#define ZC_MESH_RETRY_NS UINT64_C(1000000)

/* Whether that errno means that the frame can go later, or that the peer is gone. */
bool zc_mesh_is_later(int error);
bool zc_mesh_is_gone(int error);
/* Sends a frame now or as soon as there is room; never waits. From any thread. */
void zc_mesh_post(struct zc_mesh *mesh, uint32_t rank, const struct zc_frame *frame,
                  const void *data);
/* Sends what is kept. 0: nothing is kept any more, or nobody is there. EAGAIN: there is no room,
 * and the socket tells when there is. Another errno: the system refuses it though there is room; it
 * is to be left alone for a moment. */
int zc_mesh_flush(struct zc_mesh *mesh, uint32_t rank);
void zc_mesh_drop_posts(struct zc_peer *peer);

/* mesh_monitor.c. Stopping is final and may be called without a start. */
zcta_status zc_mesh_monitor_start(struct zc_mesh *mesh);
void zc_mesh_monitor_stop(struct zc_mesh *mesh);
/* With the lock held. Returns what `answered` will have reached when all that others have sent by
 * now has been taken; `changed` tells of it. */
uint32_t zc_mesh_ask_monitor(struct zc_mesh *mesh);
bool zc_mesh_has_answered(struct zc_mesh *mesh, uint32_t asked);

#endif
