/* Opens and closes the mesh. Connecting is in mesh_connect.c, sending in mesh_post.c, receiving in
 * mesh_monitor.c, exchanging in mesh_exchange.c. */
#include "rendezvous/mesh.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "rendezvous/board.h"
#include "rendezvous/net.h"
#include "rendezvous/text.h"

/* Of the round in which the board is shared; the tags of teams are hashes. */
#define BOARD_TAG UINT64_C(2)

/* Descriptors that a rank has besides those that grow with the ranks, at the least; and what is
 * advised for the program's own. */
enum { OTHER_FILES = 9, ROUND_FILES = 64 };

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
    mesh->epoll_fd = mesh->stop_fd = mesh->claim_fd = -1;
    for (uint32_t rank = 0; rank < job->rank_count; rank++) {
        mesh->peers[rank].fd = mesh->peers[rank].pid_fd = -1;
        pthread_mutex_init(&mesh->peers[rank].post_lock, NULL);
    }
    mesh->peers[job->rank].pid = getpid();
    pthread_mutex_init(&mesh->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&mesh->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    return mesh;
}

void zc_mesh_leave_seat(struct zc_mesh *mesh)
{
    if (mesh->claim_fd >= 0)
        close(mesh->claim_fd);
    mesh->claim_fd = -1;
}

static void mesh_destroy(struct zc_mesh *mesh)
{
    if (mesh == NULL)
        return;
    zc_mesh_monitor_stop(mesh);
    zc_mesh_leave_seat(mesh);
    for (uint32_t rank = 0; rank < mesh->rank_count; rank++) {
        struct zc_peer *peer = &mesh->peers[rank];

        zc_mesh_drop_posts(peer);
        zc_stream_destroy(peer->stream);
        if (peer->fd >= 0)
            close(peer->fd);
        if (peer->pid_fd >= 0)
            close(peer->pid_fd);
        zc_mailbox_clear(&peer->mailbox);
        pthread_mutex_destroy(&peer->post_lock);
    }
    zc_board_close(mesh->board);
    pthread_cond_destroy(&mesh->changed);
    pthread_mutex_destroy(&mesh->lock);
    free(mesh->peers);
    free(mesh);
}

zcta_status zc_mesh_check_files(const struct zc_bootstrap *bootstrap, uint32_t needed)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
        limit.rlim_cur >= (rlim_t)needed + OTHER_FILES)
        return ZCTA_OK;
    return zc_fail(bootstrap->diag, ZCTA_ERR_SYSTEM, "zcta_init", EMFILE,
                   "rank %" PRIu32 " needs %" PRIu32 " open files at once to join %" PRIu32
                   " ranks, and its limit is %llu: set `ulimit -n %" PRIu32
                   "` or more where the job is "
                   "started",
                   bootstrap->job->rank, needed + OTHER_FILES, bootstrap->job->rank_count,
                   (unsigned long long)limit.rlim_cur, needed + ROUND_FILES);
}

/* This rank's address, and its listener on this host. */
static zcta_status open_own(struct zc_bootstrap *bootstrap, int *listener)
{
    const struct zc_job *job = bootstrap->job;
    zcta_status status;
    int error;

    bootstrap->table = calloc(job->rank_count, sizeof *bootstrap->table);
    if (bootstrap->table == NULL)
        return zc_fail(bootstrap->diag, ZCTA_ERR_NO_MEMORY, "zcta_init", 0,
                       "no memory for the addresses of %" PRIu32 " ranks", job->rank_count);
    randombytes_buf(bootstrap->mine.name, sizeof bootstrap->mine.name);
    zc_bootstrap_host_id(bootstrap->mine.host, job->node);
    bootstrap->mine.pid = getpid();
    bootstrap->mine.uid = geteuid();
    bootstrap->mine.version = zcta_version();
    status = zc_mesh_check_files(bootstrap, job->rank_count - 1);
    if (status != ZCTA_OK)
        return status;
    error = zc_net_listen_unix(bootstrap->mine.name, listener);
    if (error != 0)
        return zc_fail(bootstrap->diag, ZCTA_ERR_SYSTEM, "zcta_init", error,
                       "rank %" PRIu32 " cannot open a Unix socket: %s%s", job->rank,
                       strerror(error), error == EMFILE ? "; raise `ulimit -n`" : "");
    return ZCTA_OK;
}

static struct zc_bootstrap bootstrap_begin(const struct zc_job *job, uint64_t deadline,
                                           struct zc_diag *diag)
{
    const uint64_t now = zc_now_ns();

    return (struct zc_bootstrap){.job = job,
                                 .diag = diag,
                                 .start = now,
                                 .deadline = deadline > now ? deadline : now,
                                 .port_fd = -1,
                                 .claim_fd = -1};
}

static void close_if_open(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* Closes all that the bootstrap does not leave to the mesh. */
static void bootstrap_finish(struct zc_bootstrap *bootstrap, int listener, zcta_status status)
{
    zc_bootstrap_end(bootstrap, status);
    close_if_open(&listener);
    close_if_open(&bootstrap->port_fd);
    sodium_memzero(bootstrap->key, sizeof bootstrap->key);
    free(bootstrap->table);
}

static zcta_status find_and_connect(struct zc_mesh *mesh, const struct zc_job *job,
                                    uint64_t deadline)
{
    struct zc_bootstrap bootstrap = bootstrap_begin(job, deadline, mesh->diag);
    int listener = -1;
    zcta_status status = open_own(&bootstrap, &listener);

    bootstrap.unheard = status != ZCTA_OK;
    if (status == ZCTA_OK)
        status = zc_bootstrap_run(&bootstrap);
    if (status == ZCTA_OK) {
        status = zc_mesh_connect(mesh, &bootstrap, listener);
    } else if (bootstrap.unheard) {
        /* Descriptors may be what it has none of, and one is needed to say so. */
        close_if_open(&listener);
        close_if_open(&bootstrap.claim_fd);
        zc_bootstrap_decline(&bootstrap);
    }
    mesh->claim_fd = bootstrap.claim_fd;
    bootstrap_finish(&bootstrap, listener, status);
    return status;
}

void zc_mesh_decline(const struct zc_job *job, struct zc_diag *diag)
{
    struct zc_bootstrap bootstrap = bootstrap_begin(job, UINT64_MAX, diag);
    zcta_error why;
    int listener = -1;

    zc_diag_last(diag, &why);
    (void)open_own(&bootstrap, &listener);
    zc_diag_repeat(diag, &why);
    zc_bootstrap_decline(&bootstrap);
    bootstrap_finish(&bootstrap, listener, why.status);
    if (job->listen_fd >= 0)
        close(job->listen_fd);
}

/* Everybody's descriptor of a board, from the lowest rank of this host. A star of messages: each
 * rank meets that one, and that one all.
 * NOLINTNEXTLINE(readability-non-const-parameter): the exchange fills it */
static zcta_status share_board(struct zc_mesh *mesh, uint32_t *ranks, int *fds, uint64_t *statuses,
                               uint64_t deadline)
{
    const uint32_t first = zc_mesh_host(mesh, mesh->rank);
    struct zc_exchange exchange = {.ranks = ranks,
                                   .tag = BOARD_TAG,
                                   .all = statuses,
                                   .bytes = sizeof *statuses,
                                   .fd = -1,
                                   .fds = fds,
                                   .deadline = deadline,
                                   .call = "zcta_init",
                                   .what = "did not join the job"};
    zcta_status status = ZCTA_OK, met;
    zcta_error why = {0};
    uint64_t mine;
    uint32_t at = 0;

    if (first == mesh->rank)
        status = zc_board_create(mesh->diag, &mesh->board, &exchange.fd);
    if (status != ZCTA_OK)
        zc_diag_last(mesh->diag, &why);
    mine = (uint64_t)status | (uint64_t)why.native << 32;
    exchange.mine = &mine;
    for (uint32_t rank = 0; rank < mesh->rank_count; rank++)
        if (rank == mesh->rank || rank == first ||
            (first == mesh->rank && zc_mesh_host(mesh, rank) == first))
            ranks[exchange.count++] = rank;
    met = zc_mesh_exchange(mesh, &exchange);
    if (status == ZCTA_OK)
        status = met;
    if (status != ZCTA_OK)
        goto out;
    while (ranks[at] != first)
        at++;
    if (first != mesh->rank && statuses[at] != ZCTA_OK)
        status = zc_fail_rank(mesh->diag, (zcta_status)(statuses[at] & UINT32_MAX), first,
                              "zcta_init", (int64_t)(statuses[at] >> 32),
                              "rank %" PRIu32 " could not make the memory that the ranks of this "
                              "host share: %s; its own output says more",
                              first, strerror((int)(statuses[at] >> 32)));
    else if (first != mesh->rank)
        status = zc_board_map(mesh->diag, fds[at], &mesh->board);
    for (uint32_t i = 0; i < exchange.count; i++)
        if (fds[i] >= 0)
            close(fds[i]);
out:
    if (exchange.fd >= 0)
        close(exchange.fd);
    return status;
}

static zcta_status open_board(struct zc_mesh *mesh, uint64_t deadline)
{
    uint32_t *ranks = calloc(mesh->rank_count, sizeof *ranks);
    uint64_t *statuses = calloc(mesh->rank_count, sizeof *statuses);
    int *fds = calloc(mesh->rank_count, sizeof *fds);
    zcta_status status;

    if (ranks == NULL || statuses == NULL || fds == NULL)
        status = zc_fail(mesh->diag, ZCTA_ERR_NO_MEMORY, "zcta_init", ENOMEM,
                         "no memory to meet the ranks of this host");
    else
        status = share_board(mesh, ranks, fds, statuses, deadline);
    free(fds);
    free(statuses);
    free(ranks);
    return status;
}

static zcta_status open_mesh(struct zc_mesh *mesh, const struct zc_job *job, uint64_t deadline)
{
    zcta_status status;

    if (job->rank_count == 1)
        return ZCTA_OK;
    status = find_and_connect(mesh, job, deadline);
    if (status == ZCTA_OK)
        status = zc_mesh_monitor_start(mesh);
    return status == ZCTA_OK ? open_board(mesh, deadline) : status;
}

zcta_status zc_mesh_open(const struct zc_job *job, uint64_t deadline, zc_mesh_event_fn *on_event,
                         void *event_data, struct zc_diag *diag, struct zc_mesh **mesh)
{
    const uint64_t start = zc_now_ns();
    zcta_status status;

    /* Events may come from the moment the monitor runs, and their receiver uses the mesh: the
     * output is written before. */
    *mesh = mesh_create(job, on_event, event_data, diag);
    if (*mesh == NULL) {
        status = zc_fail(diag, ZCTA_ERR_NO_MEMORY, "zcta_init", 0,
                         "no memory for the connections to %" PRIu32 " ranks", job->rank_count);
        zc_mesh_decline(job, diag);
        return status;
    }
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

/* A socket that has room is no reason to go on after the deadline: the system may refuse. */
static void send_rest(struct zc_mesh *mesh, uint32_t rank, uint64_t deadline)
{
    int error = zc_mesh_flush(mesh, rank);

    while (error != 0 && zc_time_left_ns(deadline) > 0) {
        if (error == EAGAIN)
            zc_net_wait(mesh->peers[rank].fd, POLLOUT, deadline);
        else
            zc_net_sleep(ZC_MESH_RETRY_NS);
        error = zc_mesh_flush(mesh, rank);
    }
}

/* All peers share one short deadline: a stopped one makes leaving no slower than that. A connection
 * that holds back what was said before says the farewell after it. */
static void say_farewell(struct zc_mesh *mesh)
{
    const struct zc_frame frame = {.kind = ZC_FRAME_FAREWELL};
    const uint64_t deadline = zc_deadline_in(FAREWELL_NS);

    for (uint32_t rank = 0; rank < mesh->rank_count; rank++)
        if (rank != mesh->rank)
            zc_mesh_post(mesh, rank, &frame, NULL);
    for (uint32_t rank = 0; rank < mesh->rank_count; rank++)
        if (rank != mesh->rank)
            send_rest(mesh, rank, deadline);
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

uint64_t zc_mesh_decide(struct zc_mesh *mesh, uint64_t subject, uint64_t proposal)
{
    return zc_board_decide(mesh->board, subject, proposal);
}

void zc_mesh_drop(struct zc_mesh *mesh, uint32_t rank, uint64_t tag, uint32_t last)
{
    pthread_mutex_lock(&mesh->lock);
    zc_mailbox_drop(&mesh->peers[rank].mailbox, tag, last);
    pthread_mutex_unlock(&mesh->lock);
}

void zc_mesh_wake(struct zc_mesh *mesh)
{
    pthread_mutex_lock(&mesh->lock);
    pthread_cond_broadcast(&mesh->changed);
    pthread_mutex_unlock(&mesh->lock);
}

uint32_t zc_mesh_host(const struct zc_mesh *mesh, uint32_t rank)
{
    return rank < mesh->rank_count ? mesh->peers[rank].host : rank;
}

int64_t zc_mesh_pid(const struct zc_mesh *mesh, uint32_t rank)
{
    return rank < mesh->rank_count ? mesh->peers[rank].pid : 0;
}
