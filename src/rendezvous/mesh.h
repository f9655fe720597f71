/* The inside of the mesh, shared by the files mesh*.c.
 *
 * Unix sockets carry sequential packets: a frame arrives whole or not at all, so any thread may
 * send on any socket without a lock. A stream does the same for TCP, see stream.h. Only the monitor
 * thread receives. `lock` guards what the monitor and the callers share, and is never held while
 * anything is sent or an event function runs. */
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

struct zc_peer {
    int fd; /* open from zc_mesh_open() to zc_mesh_close(), so that senders need no lock; -1: self
             */
    int64_t pid;
    uint32_t host;             /* see zc_mesh_host() */
    struct zc_stream *stream;  /* to a peer on another host; NULL: it is on this one */
    enum zc_peer_state state;  /* under lock */
    const char *why;           /* under lock: "ended", "left the job"; static text */
    struct zc_mailbox mailbox; /* under lock */
};

struct zc_mesh {
    uint32_t rank, rank_count;
    struct zc_peer *peers; /* rank_count of them */
    struct zc_diag *diag;
    zc_mesh_event_fn *on_event;
    void *event_data;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* a letter came or a peer's state changed; on CLOCK_MONOTONIC */
    pthread_t monitor;
    bool monitor_runs;
    int epoll_fd, stop_fd;
};

/* Connects this rank to all others; `table` and `key` come from the bootstrap, `listener` is this
 * rank's Unix listener. Fills peers[], but for what arrives later. mesh_connect.c */
zcta_status zc_mesh_connect(struct zc_mesh *mesh, const struct zc_bootstrap *bootstrap,
                            int listener);

/* Sends a frame, with `pass_fd` unless that is -1 or the peer is on another host. 0 or an errno:
 * EAGAIN when there is no room; see also zc_net_send_packet() and zc_stream_send(). From any
 * thread. */
int zc_mesh_send(struct zc_mesh *mesh, uint32_t rank, const struct zc_frame *frame,
                 const void *data, int pass_fd);

/* mesh_monitor.c. Stopping is final and may be called without a start. */
zcta_status zc_mesh_monitor_start(struct zc_mesh *mesh);
void zc_mesh_monitor_stop(struct zc_mesh *mesh);

#endif
