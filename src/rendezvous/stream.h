/* Frames over a TCP connection, with what a packet socket gives for nothing: a frame goes whole or
 * not at all, and any thread may send. One thread receives.
 *
 * TCP may take a part of a frame. The rest is then kept, at most one frame's, and goes before the
 * next; the receiving thread sends it as soon as there is room, since its epoll tells. */
#ifndef ZC_STREAM_H
#define ZC_STREAM_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rendezvous/net.h"
#include "rendezvous/wire.h"

struct zc_stream {
    int fd;               /* the owner's; -1 until it is connected */
    pthread_mutex_t lock; /* guards what follows, and the order of what is sent */
    int epoll_fd;         /* -1: nobody waits for room */
    bool wants_room;      /* the owner waits for room, too */
    uint32_t who;         /* what the epoll calls this connection */
    uint8_t *rest;        /* of a frame that has begun to go */
    size_t rest_bytes, rest_sent;

    /* The receiving thread's: the frame that is coming. */
    uint8_t head[ZC_WIRE_FRAME];
    uint8_t *frame; /* head and data; NULL until the head says how much that is */
    size_t have, wanted;
};

/* NULL: out of memory. */
struct zc_stream *zc_stream_create(void);
/* Does not close the descriptor. NULL is fine. */
void zc_stream_destroy(struct zc_stream *stream);

/* From now on whoever waits at `epoll_fd` learns that there is room, as an event of `who`. */
int zc_stream_watch(struct zc_stream *stream, int epoll_fd, uint32_t who);

/* One frame. 0 or an errno: EAGAIN when there is no room, ENOMEM, EPIPE when the connection has
 * failed in whatever way. */
int zc_stream_send(struct zc_stream *stream, const void *head, size_t head_bytes, const void *data,
                   size_t bytes);
/* Sends what was kept. 0: nothing is kept any more. EAGAIN: there is no room. EPIPE: it has failed,
 * as who reads it sees. Another errno: the system does not let it send now. */
int zc_stream_flush(struct zc_stream *stream);

/* Whether the owner wants to be told of room, as an event of the epoll, though nothing is kept
 * here.
 */
void zc_stream_want_room(struct zc_stream *stream, bool wanted);

/* The next frame; its buffer is the stream's, until the next call. */
enum zc_packet_result zc_stream_receive(struct zc_stream *stream, struct zc_packet *packet);

#endif
