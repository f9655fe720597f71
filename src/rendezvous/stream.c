/* Frames over TCP; see stream.h. Never waits. */
#include "rendezvous/stream.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "rendezvous/rendezvous.h"

struct zc_stream *zc_stream_create(void)
{
    struct zc_stream *stream = calloc(1, sizeof *stream);

    if (stream == NULL)
        return NULL;
    stream->fd = stream->epoll_fd = -1;
    pthread_mutex_init(&stream->lock, NULL);
    return stream;
}

void zc_stream_destroy(struct zc_stream *stream)
{
    if (stream == NULL)
        return;
    pthread_mutex_destroy(&stream->lock);
    free(stream->rest);
    free(stream->frame);
    free(stream);
}

/* ---- Sending ---- */

/* With the lock held: asks to be told of room as long as something is kept. */
static void arm(const struct zc_stream *stream)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = stream->who};

    if (stream->rest != NULL || stream->wants_room)
        event.events |= EPOLLOUT;
    if (stream->epoll_fd >= 0)
        (void)epoll_ctl(stream->epoll_fd, EPOLL_CTL_MOD, stream->fd, &event);
}

void zc_stream_want_room(struct zc_stream *stream, bool wanted)
{
    pthread_mutex_lock(&stream->lock);
    if (stream->wants_room != wanted) {
        stream->wants_room = wanted;
        arm(stream);
    }
    pthread_mutex_unlock(&stream->lock);
}

int zc_stream_watch(struct zc_stream *stream, int epoll_fd, uint32_t who)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = who};
    int error;

    pthread_mutex_lock(&stream->lock);
    error = epoll_ctl(epoll_fd, EPOLL_CTL_ADD, stream->fd, &event) == 0 ? 0 : errno;
    if (error == 0) {
        stream->epoll_fd = epoll_fd;
        stream->who = who;
        arm(stream);
    }
    pthread_mutex_unlock(&stream->lock);
    return error;
}

/* How many bytes went, or minus an errno. */
static ssize_t push(const struct zc_stream *stream, struct iovec *parts, size_t count)
{
    const struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};

    for (;;) {
        const ssize_t sent = sendmsg(stream->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (sent >= 0)
            return sent;
        if (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM)
            return -errno;
        if (errno != EINTR)
            return -EPIPE;
    }
}

/* With the lock held. 0: nothing is kept any more. */
static int flush(struct zc_stream *stream)
{
    while (stream->rest != NULL) {
        struct iovec part = {.iov_base = stream->rest + stream->rest_sent,
                             .iov_len = stream->rest_bytes - stream->rest_sent};
        const ssize_t sent = push(stream, &part, 1);

        if (sent < 0)
            return (int)-sent;
        stream->rest_sent += (size_t)sent;
        if (stream->rest_sent == stream->rest_bytes) {
            free(stream->rest);
            stream->rest = NULL;
            arm(stream);
        }
    }
    return 0;
}

int zc_stream_flush(struct zc_stream *stream)
{
    int error;

    pthread_mutex_lock(&stream->lock);
    error = flush(stream);
    pthread_mutex_unlock(&stream->lock);
    return error;
}

/* With the lock held: sends what goes and keeps the rest, for which there is room in `rest`. */
static int send_or_keep(struct zc_stream *stream, const void *head, size_t head_bytes,
                        const void *data, size_t bytes, uint8_t *rest)
{
    /* sendmsg() only reads what an iovec points to. */
    struct iovec parts[2] = {{.iov_base = (void *)(uintptr_t)head, .iov_len = head_bytes},
                             {.iov_base = (void *)(uintptr_t)data, .iov_len = bytes}};
    const ssize_t sent = push(stream, parts, bytes > 0 ? 2 : 1);

    if (sent < 0)
        return (int)-sent;
    if ((size_t)sent == head_bytes + bytes)
        return 0;
    memcpy(rest, head, head_bytes);
    if (bytes > 0)
        memcpy(rest + head_bytes, data, bytes);
    stream->rest = rest;
    stream->rest_bytes = head_bytes + bytes;
    stream->rest_sent = (size_t)sent;
    arm(stream);
    return 0;
}

int zc_stream_send(struct zc_stream *stream, const void *head, size_t head_bytes, const void *data,
                   size_t bytes)
{
    /* Before anything has gone: half a frame can only be followed by its other half. */
    uint8_t *rest = malloc(head_bytes + bytes);
    int error;

    if (rest == NULL)
        return ENOMEM;
    pthread_mutex_lock(&stream->lock);
    error = flush(stream);
    if (error == 0)
        error = send_or_keep(stream, head, head_bytes, data, bytes, rest);
    if (stream->rest != rest)
        free(rest);
    pthread_mutex_unlock(&stream->lock);
    return error;
}

/* ---- Receiving ---- */

/* The head is complete: how much belongs to the frame, and room for it. */
static enum zc_packet_result begin_frame(struct zc_stream *stream)
{
    const size_t bytes = zc_wire_frame_bytes(stream->head);

    if (bytes > ZC_MAX_MESSAGE)
        return ZC_PACKET_BROKEN;
    stream->wanted = ZC_WIRE_FRAME + bytes;
    stream->frame = malloc(stream->wanted);
    /* Later, perhaps: the rest of it waits in the socket. */
    if (stream->frame == NULL)
        return ZC_PACKET_LATER;
    memcpy(stream->frame, stream->head, ZC_WIRE_FRAME);
    return ZC_PACKET_TAKEN;
}

/* Reads on until `wanted` bytes are at `bytes`. */
static enum zc_packet_result fill(struct zc_stream *stream, uint8_t *bytes, size_t wanted)
{
    while (stream->have < wanted) {
        const long got = zc_net_receive(stream->fd, bytes + stream->have, wanted - stream->have);

        if (got <= 0)
            return got < 0 ? ZC_PACKET_END : ZC_PACKET_NONE;
        stream->have += (size_t)got;
    }
    return ZC_PACKET_TAKEN;
}

enum zc_packet_result zc_stream_receive(struct zc_stream *stream, struct zc_packet *packet)
{
    enum zc_packet_result result = ZC_PACKET_TAKEN;

    if (stream->frame != NULL && stream->have == stream->wanted) { /* the one before */
        free(stream->frame);
        stream->frame = NULL;
        stream->have = 0;
    }
    if (stream->frame == NULL)
        result = fill(stream, stream->head, ZC_WIRE_FRAME);
    if (result == ZC_PACKET_TAKEN && stream->frame == NULL)
        result = begin_frame(stream);
    if (result == ZC_PACKET_TAKEN)
        result = fill(stream, stream->frame, stream->wanted);
    if (result == ZC_PACKET_TAKEN)
        *packet = (struct zc_packet){
            .buffer = stream->frame, .capacity = stream->wanted, .bytes = stream->wanted, .fd = -1};
    return result;
}
