/* Sending on the mesh. A frame goes at once or not at all; what must go though nobody may wait for
 * it, notices above all, is kept until there is room, and the monitor sends it then. Frames to one
 * peer keep their order, whichever way they go. Must not wait for anything. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "rendezvous/mesh.h"
#include "rendezvous/net.h"

/* A peer that reads nothing for so long is not waited for: it sees this rank end instead. */
enum { POSTS_MOST = 8192 };

struct zc_post {
    struct zc_post *next;
    struct zc_frame frame;
    uint8_t data[];
};

static int send_now(const struct zc_peer *peer, const struct zc_frame *frame, const void *data,
                    int pass_fd)
{
    const int fd = peer->stream == NULL ? pass_fd : -1;
    struct zc_frame sent = *frame;
    uint8_t header[ZC_WIRE_FRAME];

    sent.has_fd = fd >= 0;
    zc_wire_frame_encode(header, &sent);
    if (peer->stream != NULL)
        return zc_stream_send(peer->stream, header, sizeof header, data, frame->bytes);
    return zc_net_send_packet(peer->fd, header, sizeof header, data, frame->bytes, fd);
}

bool zc_mesh_is_later(int error)
{
    return error == EAGAIN || error == ENOBUFS || error == ENOMEM || error == ETOOMANYREFS;
}

bool zc_mesh_is_gone(int error)
{
    return error == EPIPE || error == ECONNRESET || error == ENOTCONN || error == ECONNREFUSED;
}

/* With the post lock held. */
static void drop_first(struct zc_peer *peer)
{
    struct zc_post *post = peer->first_post;

    peer->first_post = post->next;
    peer->post_count--;
    free(post);
}

/* With the post lock held: sends what is kept. 0, or why the rest has to wait. */
static int send_kept(struct zc_peer *peer)
{
    int error = 0;

    while (peer->first_post != NULL && !zc_mesh_is_later(error)) {
        error = send_now(peer, &peer->first_post->frame, peer->first_post->data, -1);
        if (!zc_mesh_is_later(error))
            drop_first(peer);
    }
    return peer->first_post != NULL ? error : 0;
}

int zc_mesh_send(struct zc_mesh *mesh, uint32_t rank, const struct zc_frame *frame,
                 const void *data, int pass_fd)
{
    struct zc_peer *peer = &mesh->peers[rank];
    int error;

    pthread_mutex_lock(&peer->post_lock);
    error = send_kept(peer);
    if (error == 0)
        error = send_now(peer, frame, data, pass_fd);
    pthread_mutex_unlock(&peer->post_lock);
    return error;
}

/* With the post lock held: the monitor is told of room as long as something is kept. */
static void arm(struct zc_mesh *mesh, uint32_t rank)
{
    struct zc_peer *peer = &mesh->peers[rank];
    const bool more = peer->first_post != NULL;
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = rank};

    if (peer->stream != NULL) {
        zc_stream_want_room(peer->stream, more);
        return;
    }
    if (more)
        event.events |= EPOLLOUT;
    (void)epoll_ctl(mesh->epoll_fd, EPOLL_CTL_MOD, peer->fd, &event);
}

/* With the post lock held. False: there is no room or no memory for it. */
static bool keep(struct zc_peer *peer, const struct zc_frame *frame, const void *data)
{
    struct zc_post *post;

    if (peer->post_count >= POSTS_MOST)
        return false;
    post = malloc(sizeof *post + frame->bytes);
    if (post == NULL)
        return false;
    post->next = NULL;
    post->frame = *frame;
    if (frame->bytes > 0)
        memcpy(post->data, data, frame->bytes);
    if (peer->first_post == NULL)
        peer->first_post = post;
    else
        peer->last_post->next = post;
    peer->last_post = post;
    peer->post_count++;
    return true;
}

/* A peer that cannot be told must not go on as if nothing had happened: the connection ends. */
static void cut(const struct zc_mesh *mesh, uint32_t rank)
{
    zc_log(mesh->diag, ZC_LOG_WARN,
           "rank %" PRIu32 " cannot be told what happened here; its connection is closed", rank);
    shutdown(mesh->peers[rank].fd, SHUT_RDWR);
}

void zc_mesh_post(struct zc_mesh *mesh, uint32_t rank, const struct zc_frame *frame,
                  const void *data)
{
    struct zc_peer *peer = &mesh->peers[rank];
    int error;

    pthread_mutex_lock(&peer->post_lock);
    error = send_kept(peer);
    if (error == 0)
        error = send_now(peer, frame, data, -1);
    if (zc_mesh_is_later(error)) {
        error = keep(peer, frame, data) ? 0 : ENOBUFS;
        arm(mesh, rank);
    }
    pthread_mutex_unlock(&peer->post_lock);
    if (error != 0 && !zc_mesh_is_gone(error))
        cut(mesh, rank);
}

int zc_mesh_flush(struct zc_mesh *mesh, uint32_t rank)
{
    struct zc_peer *peer = &mesh->peers[rank];
    int error;

    pthread_mutex_lock(&peer->post_lock);
    error = send_kept(peer);
    if (error == 0 && peer->stream != NULL)
        error = zc_stream_flush(peer->stream);
    arm(mesh, rank);
    pthread_mutex_unlock(&peer->post_lock);
    return zc_mesh_is_gone(error) ? 0 : error;
}

void zc_mesh_drop_posts(struct zc_peer *peer)
{
    while (peer->first_post != NULL)
        drop_first(peer);
}

void zc_mesh_notify(struct zc_mesh *mesh, uint32_t rank, uint64_t tag, uint32_t number,
                    const void *data, size_t bytes)
{
    const struct zc_frame frame = {
        .kind = ZC_FRAME_NOTICE, .bytes = (uint32_t)bytes, .tag = tag, .number = number};

    zc_mesh_post(mesh, rank, &frame, data);
}

void zc_mesh_tell_gone(struct zc_mesh *mesh, uint32_t gone, uint32_t teller, bool left)
{
    const enum zc_gone how = left                              ? ZC_GONE_LEFT
                             : mesh->peers[gone].process_ended ? ZC_GONE_PROCESS
                                                               : ZC_GONE_CONNECTION;
    const struct zc_frame frame = {
        .kind = ZC_FRAME_GONE, .tag = gone, .number = how, .topic = teller};

    for (uint32_t rank = 0; rank < mesh->rank_count; rank++)
        if (rank != mesh->rank && rank != gone && rank != teller)
            zc_mesh_post(mesh, rank, &frame, NULL);
}
