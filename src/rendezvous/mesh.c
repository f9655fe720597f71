/* Opens and closes the mesh, and sends notices. Connecting is in mesh_connect.c, receiving in
 * mesh_monitor.c, exchanging in mesh_exchange.c. */
#include "rendezvous/mesh.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "rendezvous/net.h"
#include "rendezvous/text.h"

#define NOTICE_NS   UINT64_C(100000000)
#define FAREWELL_NS UINT64_C(100000000)

static struct zc_mesh *mesh_create(const struct zc_job *job, zc_mesh_event_fn *on_event,
                                   void *event_data, struct zc_diag *diag)
{
    struct zc_mesh *mesh = calloc(1, sizeof *mesh);
    pthread_condattr_t attributes;

    if (mesh == NULL)
        return NULL;
    mesh->peers = calloc(job->rank_count, sizeof *mesh->peers);
    if (mesh->peers == NULL) {
        free(mesh);
        return NULL;
    }
    mesh->rank = job->rank;
    mesh->rank_count = job->rank_count;
    mesh->diag = diag;
    mesh->on_event = on_event;
    mesh->event_data = event_data;
    mesh->epoll_fd = mesh->stop_fd = -1;
    for (uint32_t rank = 0; rank < job->rank_count; rank++)
        mesh->peers[rank].fd = -1;
    mesh->peers[job->rank].pid = getpid();
    pthread_mutex_init(&mesh->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&mesh->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    return mesh;
}

static void mesh_destroy(struct zc_mesh *mesh)
{
    if (mesh == NULL)
        return;
    zc_mesh_monitor_stop(mesh);
    for (uint32_t rank = 0; rank < mesh->rank_count; rank++) {
        zc_stream_destroy(mesh->peers[rank].stream);
        if (mesh->peers[rank].fd >= 0)
            close(mesh->peers[rank].fd);
        zc_mailbox_clear(&mesh->peers[rank].mailbox);
    }
    pthread_cond_destroy(&mesh->changed);
    pthread_mutex_destroy(&mesh->lock);
    free(mesh->peers);
    free(mesh);
}

/* This rank's address, and its listener on this host. */
static zcta_status open_own(struct zc_bootstrap *bootstrap, int *listener)
{
    const struct zc_job *job = bootstrap->job;
    int error;

    bootstrap->table = calloc(job->rank_count, sizeof *bootstrap->table);
    if (bootstrap->table == NULL)
        return zc_fail(bootstrap->diag, ZCTA_ERR_NO_MEMORY, "zcta_init", 0,
                       "no memory for the addresses of %" PRIu32 " ranks", job->rank_count);
    randombytes_buf(bootstrap->mine.name, sizeof bootstrap->mine.name);
    zc_bootstrap_host_id(bootstrap->mine.host, job->node);
    bootstrap->mine.pid = getpid();
    error = zc_net_listen_unix(bootstrap->mine.name, listener);
    if (error != 0)
        return zc_fail(bootstrap->diag, ZCTA_ERR_SYSTEM, "zcta_init", error,
                       "rank %" PRIu32 " cannot open a Unix socket: %s%s", job->rank,
                       strerror(error), error == EMFILE ? "; raise `ulimit -n`" : "");
    return ZCTA_OK;
}

static zcta_status find_and_connect(struct zc_mesh *mesh, const struct zc_job *job,
                                    uint64_t deadline)
{
    struct zc_bootstrap bootstrap = {
        .job = job, .diag = mesh->diag, .start = zc_now_ns(), .deadline = deadline, .port_fd = -1};
    int listener = -1;
    zcta_status status;

    if (bootstrap.deadline < bootstrap.start)
        bootstrap.deadline = bootstrap.start;
    status = open_own(&bootstrap, &listener);
    if (status == ZCTA_OK)
        status = zc_bootstrap_run(&bootstrap);
    else
        zc_job_decline(job->exchange, job->exchange_data, job->rank_count);
    if (status == ZCTA_OK)
        status = zc_mesh_connect(mesh, &bootstrap, listener);
    if (listener >= 0)
        close(listener);
    if (bootstrap.port_fd >= 0)
        close(bootstrap.port_fd);
    sodium_memzero(bootstrap.key, sizeof bootstrap.key);
    free(bootstrap.table);
    return status;
}

static zcta_status open_mesh(struct zc_mesh *mesh, const struct zc_job *job, uint64_t deadline)
{
    zcta_status status;

    if (job->rank_count == 1)
        return ZCTA_OK;
    if (sodium_init() < 0)
        return zc_fail(mesh->diag, ZCTA_ERR_SYSTEM, "zcta_init", 0,
                       "libsodium cannot start: the system gives no random numbers");
    status = find_and_connect(mesh, job, deadline);
    return status == ZCTA_OK ? zc_mesh_monitor_start(mesh) : status;
}

zcta_status zc_mesh_open(const struct zc_job *job, uint64_t deadline, zc_mesh_event_fn *on_event,
                         void *event_data, struct zc_diag *diag, struct zc_mesh **mesh)
{
    const uint64_t start = zc_now_ns();
    zcta_status status;

    /* Events may come from the moment the monitor runs, and their receiver uses the mesh: the
     * output is written before. */
    *mesh = mesh_create(job, on_event, event_data, diag);
    if (*mesh == NULL)
        status = zc_fail(diag, ZCTA_ERR_NO_MEMORY, "zcta_init", 0,
                         "no memory for the connections to %" PRIu32 " ranks", job->rank_count);
    else
        status = open_mesh(*mesh, job, deadline);
    if (job->listen_fd >= 0)
        close(job->listen_fd);
    if (status != ZCTA_OK) {
        mesh_destroy(*mesh);
        *mesh = NULL;
        return status;
    }
    zc_log(diag, ZC_LOG_DEBUG, "connected to %" PRIu32 " ranks in %" PRIu64 " us (%s%s%s, %s)",
           job->rank_count - 1, (zc_now_ns() - start) / 1000, job->source,
           job->root[0] != '\0' ? ", " : "", job->root,
           job->has_token ? "with a token" : "without a token");
    return ZCTA_OK;
}

int zc_mesh_send(struct zc_mesh *mesh, uint32_t rank, const struct zc_frame *frame,
                 const void *data, int pass_fd)
{
    const struct zc_peer *peer = &mesh->peers[rank];
    const int fd = peer->stream == NULL ? pass_fd : -1;
    struct zc_frame sent = *frame;
    uint8_t header[ZC_WIRE_FRAME];

    sent.has_fd = fd >= 0;
    zc_wire_frame_encode(header, &sent);
    if (peer->stream != NULL)
        return zc_stream_send(peer->stream, header, sizeof header, data, frame->bytes);
    return zc_net_send_packet(peer->fd, header, sizeof header, data, frame->bytes, fd);
}

/* All peers share one short deadline: a stopped one makes leaving no slower than that. */
static void say_farewell(struct zc_mesh *mesh)
{
    const struct zc_frame frame = {.kind = ZC_FRAME_FAREWELL};
    const uint64_t deadline = zc_deadline_in(FAREWELL_NS);

    for (uint32_t rank = 0; rank < mesh->rank_count; rank++) {
        if (rank == mesh->rank)
            continue;
        while (zc_mesh_send(mesh, rank, &frame, NULL, -1) == EAGAIN)
            if (!zc_net_wait(mesh->peers[rank].fd, POLLOUT, deadline))
                break;
    }
}

void zc_mesh_close(struct zc_mesh *mesh)
{
    if (mesh == NULL)
        return;
    if (mesh->monitor_runs)
        say_farewell(mesh);
    mesh_destroy(mesh);
}

bool zc_mesh_same_process(const struct zc_mesh *mesh, uint32_t rank)
{
    return rank < mesh->rank_count && mesh->peers[rank].stream == NULL &&
           mesh->peers[rank].pid == getpid();
}

uint32_t zc_mesh_host(const struct zc_mesh *mesh, uint32_t rank)
{
    return rank < mesh->rank_count ? mesh->peers[rank].host : rank;
}

int64_t zc_mesh_pid(const struct zc_mesh *mesh, uint32_t rank)
{
    return rank < mesh->rank_count ? mesh->peers[rank].pid : 0;
}

void zc_mesh_notify(struct zc_mesh *mesh, uint32_t rank, uint64_t tag, const void *data,
                    size_t bytes)
{
    const struct zc_frame frame = {.kind = ZC_FRAME_NOTICE, .bytes = (uint32_t)bytes, .tag = tag};
    const uint64_t deadline = zc_deadline_in(NOTICE_NS);

    assert(rank < mesh->rank_count && rank != mesh->rank && bytes <= ZC_MAX_MESSAGE);
    while (zc_mesh_send(mesh, rank, &frame, data, -1) == EAGAIN)
        if (!zc_net_wait(mesh->peers[rank].fd, POLLOUT, deadline)) {
            zc_log(mesh->diag, ZC_LOG_DEBUG,
                   "a notice to rank %" PRIu32 " was dropped: it does not read", rank);
            return;
        }
}
