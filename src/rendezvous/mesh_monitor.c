/* The monitor thread: the only one that receives. Sorts frames into mailboxes, reports notices, and
 * sees a peer end. Must not wait for anything but its descriptors: what it has to say and cannot
 * send at once is kept (mesh_post.c).
 *
 * A peer ends when its connection closes. That is not when its process ends if a child of it, made
 * by fork(), has the connection too, so processes are watched as well (pidfd): each rank watches
 * the next few ranks of its host, which costs few descriptors however many there are, and tells
 * everybody. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/thread.h"
#include "rendezvous/mesh.h"
#include "rendezvous/net.h"

enum {
    FRAMES_A_TURN = 64, /* from one peer before the others are looked at */
    EVENTS_A_TURN = 64,
    LAST_TURNS = 256, /* of a peer whose process has ended, so that it can send no more */
    BUFFER = (int)(ZC_WIRE_FRAME + ZC_MAX_MESSAGE),
};

/* Who an event is about: a rank, the process of a rank, or this process. The last is told by an
 * eventfd, which always has room, so that nothing is asked of the system but what it granted
 * before. */
#define PROCESS UINT32_C(0x80000000)
#define STOP    UINT32_MAX
#define ASKED   (UINT32_MAX - 1)

/* How many ranks of its host a rank watches. */
enum { WATCHED_MOST = 8 };

static void report(struct zc_mesh *mesh, const struct zc_mesh_event *event)
{
    if (mesh->on_event != NULL)
        mesh->on_event(mesh->event_data, event);
}

/* The only place where a peer's state changes. What it sent before stays in its mailbox. */
static void end_peer(struct zc_mesh *mesh, uint32_t rank, enum zc_peer_state state, const char *why)
{
    struct zc_peer *peer = &mesh->peers[rank];
    const struct zc_mesh_event event = {.kind = state == ZC_PEER_LEFT ? ZC_MESH_LEFT : ZC_MESH_LOST,
                                        .rank = rank};

    if (peer->state != ZC_PEER_CONNECTED)
        return;
    epoll_ctl(mesh->epoll_fd, EPOLL_CTL_DEL, peer->fd, NULL);
    if (peer->pid_fd >= 0)
        close(peer->pid_fd); /* which takes it out of the epoll */
    peer->pid_fd = -1;
    if (state == ZC_PEER_LOST)
        shutdown(peer->fd, SHUT_RDWR);
    zc_log(mesh->diag, state == ZC_PEER_LEFT ? ZC_LOG_DEBUG : ZC_LOG_INFO,
           "rank %" PRIu32 " (pid %" PRId64 ") %s", rank, peer->pid, why);
    /* Before a round can fail by it: who asks then which ranks are left is told the truth. */
    report(mesh, &event);
    pthread_mutex_lock(&mesh->lock);
    peer->state = state;
    peer->why = why;
    pthread_cond_broadcast(&mesh->changed);
    pthread_mutex_unlock(&mesh->lock);
}

/* Whether this rank hears anybody: if not, those for whom it waits are not to blame. */
static void note_hearing(struct zc_mesh *mesh, int error)
{
    if (atomic_load_explicit(&mesh->deaf, memory_order_relaxed) != error)
        atomic_store_explicit(&mesh->deaf, error, memory_order_relaxed);
}

/* A message that came is not lost for want of memory: nothing else can be received either until
 * there is some. NULL: the monitor is to stop. */
static struct zc_message *make_message(struct zc_mesh *mesh, const struct zc_frame *frame,
                                       const uint8_t *data)
{
    struct zc_message *message = zc_message_create(frame, data);

    while (message == NULL && !atomic_load_explicit(&mesh->stopping, memory_order_acquire)) {
        note_hearing(mesh, ENOMEM);
        zc_net_sleep(ZC_MESH_RETRY_NS);
        message = zc_message_create(frame, data);
    }
    return message;
}

/* Returns NULL, or why the peer cannot be kept. */
static const char *keep_message(struct zc_mesh *mesh, uint32_t rank, const struct zc_frame *frame,
                                const uint8_t *data, int fd)
{
    struct zc_message *message = make_message(mesh, frame, data);
    bool kept;

    if (message == NULL) {
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    message->fd = fd;
    message->fd_lost = frame->has_fd && fd < 0;
    pthread_mutex_lock(&mesh->lock);
    kept = zc_mailbox_put(&mesh->peers[rank].mailbox, message);
    if (kept)
        pthread_cond_broadcast(&mesh->changed);
    pthread_mutex_unlock(&mesh->lock);
    if (!kept)
        zc_message_destroy(message);
    return kept ? NULL : "sent more messages than anybody took";
}

static void serve_peer(struct zc_mesh *mesh, uint32_t rank, void *buffer);

/* The peer's process has ended. What it had sent before is still taken. */
static void end_process(struct zc_mesh *mesh, uint32_t rank, void *buffer)
{
    struct zc_peer *peer = &mesh->peers[rank];

    peer->process_ended = true;
    for (int turn = 0; turn < LAST_TURNS && peer->state == ZC_PEER_CONNECTED; turn++)
        serve_peer(mesh, rank, buffer);
    end_peer(mesh, rank, ZC_PEER_LOST, "ended");
}

/* A peer has lost another one. That it knows of the process is as good as knowing it here; of its
 * own connection that says nothing about this rank's. */
static void hear_of_gone(struct zc_mesh *mesh, uint32_t rank, const struct zc_frame *frame,
                         void *buffer)
{
    const struct zc_mesh_event event = {.kind = ZC_MESH_TOLD,
                                        .rank = frame->topic,
                                        .gone = (uint32_t)frame->tag,
                                        .left = frame->number == ZC_GONE_LEFT};

    if (frame->tag >= mesh->rank_count || frame->topic >= mesh->rank_count ||
        event.gone == mesh->rank || event.gone == rank || event.rank == mesh->rank)
        return;
    if (frame->number == ZC_GONE_PROCESS)
        end_process(mesh, event.gone, buffer);
    report(mesh, &event);
}

/* Handles one packet, which may lie in the buffer. False: the peer has been ended by it. */
static bool take_packet(struct zc_mesh *mesh, uint32_t rank, const struct zc_packet *packet,
                        void *buffer)
{
    const uint8_t *bytes = packet->buffer, *data = bytes + ZC_WIRE_FRAME;
    const char *wrong = "sent a message that is not one";
    struct zc_frame frame;

    if (zc_wire_frame_decode(bytes, packet->bytes, &frame) != ZC_WIRE_OK ||
        (packet->fd >= 0 && !frame.has_fd)) {
        if (packet->fd >= 0)
            close(packet->fd);
        end_peer(mesh, rank, ZC_PEER_LOST, wrong);
        return false;
    }
    switch (frame.kind) {
    case ZC_FRAME_EXCHANGE:
        wrong = keep_message(mesh, rank, &frame, data, packet->fd);
        if (wrong != NULL)
            end_peer(mesh, rank, ZC_PEER_LOST, wrong);
        return wrong == NULL;
    case ZC_FRAME_NOTICE:
        report(mesh, &(struct zc_mesh_event){.kind = ZC_MESH_NOTICE,
                                             .rank = rank,
                                             .tag = frame.tag,
                                             .number = frame.number,
                                             .data = data,
                                             .bytes = frame.bytes});
        return true;
    case ZC_FRAME_FAREWELL:
        end_peer(mesh, rank, ZC_PEER_LEFT, "left the job");
        return false;
    case ZC_FRAME_GONE:
        hear_of_gone(mesh, rank, &frame, buffer);
        return true;
    case ZC_FRAME_KINDS:
        break;
    }
    return true;
}

static void serve_peer(struct zc_mesh *mesh, uint32_t rank, void *buffer)
{
    const struct zc_peer *peer = &mesh->peers[rank];
    struct zc_packet packet = {.buffer = buffer, .capacity = BUFFER};

    for (int turn = 0; turn < FRAMES_A_TURN; turn++) {
        const enum zc_packet_result result = peer->stream != NULL
                                                 ? zc_stream_receive(peer->stream, &packet)
                                                 : zc_net_receive_packet(peer->fd, &packet);

        note_hearing(mesh, result == ZC_PACKET_LATER ? ENOMEM : 0);
        switch (result) {
        case ZC_PACKET_LATER:
            zc_net_sleep(ZC_MESH_RETRY_NS);
            return;
        case ZC_PACKET_TAKEN:
            if (!take_packet(mesh, rank, &packet, buffer))
                return;
            break;
        case ZC_PACKET_NONE:
            return;
        case ZC_PACKET_END:
            end_peer(mesh, rank, ZC_PEER_LOST, "ended");
            return;
        case ZC_PACKET_UNABLE:
            report(mesh, &(struct zc_mesh_event){.kind = ZC_MESH_UNABLE, .rank = rank});
            end_peer(mesh, rank, ZC_PEER_LOST, "cannot be heard here");
            return;
        case ZC_PACKET_BROKEN:
            end_peer(mesh, rank, ZC_PEER_LOST, "sent a message that is not one");
            return;
        }
    }
}

/* Its sockets would say at once again that there is room. */
static bool is_refused(int error)
{
    return error != 0 && error != EAGAIN;
}

/* The buffer that zc_mesh_monitor_start() allocated follows the mesh into the thread. */
struct monitor_start {
    struct zc_mesh *mesh;
    uint8_t buffer[BUFFER];
};

/* ---- Questions ---- */

static bool wait_for_room(const struct zc_mesh *mesh, uint32_t who, bool wait)
{
    struct epoll_event event = {.events = EPOLLIN | (wait ? EPOLLOUT : 0), .data.u32 = who};

    return epoll_ctl(mesh->epoll_fd, EPOLL_CTL_MOD, mesh->stop_fd, &event) == 0;
}

uint32_t zc_mesh_ask_monitor(struct zc_mesh *mesh)
{
    const uint32_t asked = atomic_fetch_add_explicit(&mesh->asked, 1, memory_order_seq_cst) + 1;

    if (!mesh->monitor_runs || !wait_for_room(mesh, ASKED, true))
        atomic_store_explicit(&mesh->answered, asked, memory_order_relaxed);
    return asked;
}

bool zc_mesh_has_answered(struct zc_mesh *mesh, uint32_t asked)
{
    return (int32_t)(atomic_load_explicit(&mesh->answered, memory_order_relaxed) - asked) >= 0;
}

/* Nothing was there any more after that was asked. The event is put off first: who asks after that
 * puts it on again, and who asked before is seen by the next look at `asked`. */
static void answer(struct zc_mesh *mesh, uint32_t asked)
{
    wait_for_room(mesh, STOP, false);
    pthread_mutex_lock(&mesh->lock);
    atomic_store_explicit(&mesh->answered, asked, memory_order_relaxed);
    pthread_cond_broadcast(&mesh->changed);
    pthread_mutex_unlock(&mesh->lock);
}

/* ---- The thread ---- */

static void *monitor_main(void *data)
{
    struct monitor_start *start = data;
    struct zc_mesh *mesh = start->mesh;
    struct epoll_event events[EVENTS_A_TURN];
    bool stop = false;

    while (!stop && !atomic_load_explicit(&mesh->stopping, memory_order_acquire)) {
        const uint32_t asked = atomic_load_explicit(&mesh->asked, memory_order_seq_cst);
        const bool open = !zc_mesh_has_answered(mesh, asked);
        const int count = epoll_wait(mesh->epoll_fd, events, EVENTS_A_TURN, open ? 0 : -1);
        bool idle = count >= 0;

        for (int i = 0; i < count; i++) {
            const uint32_t who = events[i].data.u32;

            if (who == ASKED)
                continue;
            idle = false;

            if (who == STOP) {
                stop = true;
                break;
            }
            if ((who & PROCESS) != 0) {
                end_process(mesh, who & ~PROCESS, start->buffer);
                continue;
            }
            if ((events[i].events & EPOLLOUT) != 0 && is_refused(zc_mesh_flush(mesh, who)))
                zc_net_sleep(ZC_MESH_RETRY_NS);
            serve_peer(mesh, who, start->buffer);
        }
        if (idle && open)
            answer(mesh, asked);
        /* The system may let it go on later; until then this thread says why it hears nothing. */
        if (count < 0 && errno != EINTR) {
            note_hearing(mesh, errno);
            zc_net_sleep(ZC_MESH_RETRY_NS);
        }
    }
    free(start);
    return NULL;
}

static int watch(struct zc_mesh *mesh, int fd, uint32_t who)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = who};

    return epoll_ctl(mesh->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : errno;
}

/* A process whose number is not known here, of another pid namespace say, cannot be watched, nor
 * one on a kernel before 5.3: its connection has to tell. */
static void watch_process(struct zc_mesh *mesh, uint32_t rank)
{
    struct zc_peer *peer = &mesh->peers[rank];

    if (peer->pid <= 0)
        return;
    peer->pid_fd = zc_fd_lift((int)syscall(SYS_pidfd_open, (pid_t)peer->pid, 0));
    if (peer->pid_fd >= 0 && watch(mesh, peer->pid_fd, rank | PROCESS) != 0) {
        close(peer->pid_fd);
        peer->pid_fd = -1;
    }
}

static void watch_processes(struct zc_mesh *mesh)
{
    int watched = 0;

    for (uint32_t i = 1; i < mesh->rank_count && watched < WATCHED_MOST; i++) {
        const uint32_t rank = (mesh->rank + i) % mesh->rank_count;

        if (mesh->peers[rank].stream != NULL || zc_mesh_same_process(mesh, rank))
            continue;
        watch_process(mesh, rank);
        watched++;
    }
}

static int watch_all(struct zc_mesh *mesh)
{
    int error = 0;

    mesh->epoll_fd = zc_fd_lift(epoll_create1(EPOLL_CLOEXEC));
    if (mesh->epoll_fd < 0)
        return errno;
    mesh->stop_fd = zc_fd_lift(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (mesh->stop_fd < 0)
        return errno;
    error = watch(mesh, mesh->stop_fd, STOP);
    for (uint32_t rank = 0; error == 0 && rank < mesh->rank_count; rank++)
        if (mesh->peers[rank].stream != NULL)
            error = zc_stream_watch(mesh->peers[rank].stream, mesh->epoll_fd, rank);
        else if (rank != mesh->rank)
            error = watch(mesh, mesh->peers[rank].fd, rank);
    if (error == 0)
        watch_processes(mesh);
    return error;
}

zcta_status zc_mesh_monitor_start(struct zc_mesh *mesh)
{
    struct monitor_start *start = malloc(sizeof *start);
    int error;

    if (start == NULL)
        return zc_fail(mesh->diag, ZCTA_ERR_NO_MEMORY, "zcta_init", 0,
                       "no memory for the monitor thread's buffer");
    start->mesh = mesh;
    error = watch_all(mesh);
    if (error == 0)
        error = zc_thread_start(&mesh->monitor, monitor_main, start);
    if (error != 0) {
        free(start);
        return zc_fail(mesh->diag, ZCTA_ERR_SYSTEM, "zcta_init", error,
                       "the thread that watches the other ranks cannot start: %s%s",
                       strerror(error),
                       error == EMFILE || error == ENFILE ? "; raise `ulimit -n`"
                       : error == EAGAIN                  ? "; raise `ulimit -u`"
                       : error == ENOMEM                  ? "; raise `ulimit -v`"
                                                          : "");
    }
    mesh->monitor_runs = true;
    return ZCTA_OK;
}

void zc_mesh_monitor_stop(struct zc_mesh *mesh)
{
    if (mesh->monitor_runs) {
        atomic_store_explicit(&mesh->stopping, true, memory_order_release);
        (void)wait_for_room(mesh, STOP, true);
        pthread_join(mesh->monitor, NULL);
        mesh->monitor_runs = false;
    }
    if (mesh->epoll_fd >= 0)
        close(mesh->epoll_fd);
    if (mesh->stop_fd >= 0)
        close(mesh->stop_fd);
    mesh->epoll_fd = mesh->stop_fd = -1;
}
