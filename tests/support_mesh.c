/* Ranks as threads and as processes; see support_mesh.h. */
#include "support_mesh.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "support_ports.h"

void mesh_free_root(char root[32])
{
    snprintf(root, 32, "127.0.0.1:%u", free_port());
}

uint16_t mesh_root_port(const char *root)
{
    return (uint16_t)strtoul(strrchr(root, ':') + 1, NULL, 10);
}

void mesh_ranks(struct mesh_rank *ranks, uint32_t count, const char *root, const char *token)
{
    memset(ranks, 0, count * sizeof *ranks);
    for (uint32_t i = 0; i < count; i++) {
        ranks[i].rank = i;
        ranks[i].count = count;
        ranks[i].root = root;
        ranks[i].token = token;
        ranks[i].timeout_ns = 10 * S;
        zc_diag_init(&ranks[i].diag);
    }
}

void mesh_ranks_destroy(struct mesh_rank *ranks, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        zc_diag_destroy(&ranks[i].diag);
}

static void on_event(void *data, const struct zc_mesh_event *event)
{
    struct mesh_rank *rank = data;
    const uint8_t *bytes = event->data;

    switch (event->kind) {
    case ZC_MESH_LOST:
        rank->lost[event->rank]++;
        break;
    case ZC_MESH_LEFT:
        rank->left[event->rank]++;
        break;
    case ZC_MESH_TOLD:
    case ZC_MESH_UNABLE:
        break;
    case ZC_MESH_NOTICE:
        for (size_t i = 0; i < event->bytes; i++)
            rank->notice_sum += bytes[i] + event->tag;
        rank->notices[event->rank]++;
        break;
    }
}

void mesh_rank_failed(struct mesh_rank *rank, zcta_status status)
{
    rank->status = status;
    zc_diag_last(&rank->diag, &rank->error);
}

bool mesh_rank_open(struct mesh_rank *rank)
{
    const zcta_init_params params = {.size = sizeof params,
                                     .rank = rank->rank,
                                     .rank_count = rank->count,
                                     .root = rank->root,
                                     .token = rank->token,
                                     .node = rank->node,
                                     .exchange = rank->exchange,
                                     .exchange_data = rank->exchange_data};
    const uint64_t start = zc_now_ns();
    struct zc_job job;
    zcta_status status = zc_job_resolve(&params, &rank->diag, &job);

    job.settle_ns = rank->settle_ns;
    if (rank->linger_ns != 0)
        job.linger_ns = rank->linger_ns;
    if (status == ZCTA_OK)
        status = zc_mesh_open(&job, zc_deadline_in(rank->timeout_ns), on_event, rank, &rank->diag,
                              &rank->mesh);
    rank->open_ns = zc_now_ns() - start;
    if (status != ZCTA_OK)
        mesh_rank_failed(rank, status);
    return status == ZCTA_OK;
}

void mesh_rank_close(struct mesh_rank *rank)
{
    zc_mesh_close(rank->mesh);
    rank->mesh = NULL;
}

zcta_status mesh_round(struct mesh_rank *rank, uint64_t tag, uint64_t timeout_ns)
{
    uint32_t ranks[MESH_RANKS];
    uint64_t mine = tag * 1000 + rank->rank, all[MESH_RANKS] = {0};
    const struct zc_exchange exchange = {.ranks = ranks,
                                         .count = rank->count,
                                         .tag = tag,
                                         .mine = &mine,
                                         .all = all,
                                         .bytes = sizeof mine,
                                         .fd = -1,
                                         .deadline = zc_deadline_in(timeout_ns),
                                         .call = "mesh_round",
                                         .what = "did not take part in the round"};
    zcta_status status;

    for (uint32_t i = 0; i < rank->count; i++)
        ranks[i] = i;
    status = zc_mesh_exchange(rank->mesh, &exchange);
    if (status != ZCTA_OK) {
        mesh_rank_failed(rank, status);
        return status;
    }
    for (uint32_t i = 0; i < rank->count; i++)
        if (all[i] != tag * 1000 + i)
            return rank->status = ZCTA_ERR_MISMATCH;
    return ZCTA_OK;
}

struct thread_start {
    struct mesh_rank *rank;
    mesh_body *body;
};

static void *thread_main(void *data)
{
    struct thread_start *start = data;

    start->body(start->rank);
    return NULL;
}

void mesh_run_threads(struct mesh_rank *ranks, uint32_t count, mesh_body *body)
{
    pthread_t threads[MESH_RANKS];
    struct thread_start starts[MESH_RANKS];

    for (uint32_t i = 0; i < count; i++) {
        starts[i] = (struct thread_start){&ranks[i], body};
        if (pthread_create(&threads[i], NULL, thread_main, &starts[i]) != 0)
            abort();
    }
    for (uint32_t i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

void mesh_start_processes(struct mesh_rank *ranks, uint32_t count, mesh_body *body, pid_t *pids)
{
    fflush(NULL);
    for (uint32_t i = 0; i < count; i++) {
        pids[i] = fork();
        if (pids[i] < 0)
            abort();
        if (pids[i] == 0) {
            /* A test that fails leaves nobody behind. */
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            alarm(60);
            body(&ranks[i]);
            _exit((int)ranks[i].status);
        }
    }
}

int mesh_wait_process(pid_t pid)
{
    const uint64_t deadline = zc_deadline_in(30 * S);
    int status;

    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (zc_time_left_ns(deadline) == 0) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            return -1;
        }
        usleep(1000);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

int mesh_count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int count = 0;

    if (dir == NULL)
        abort();
    while (readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count;
}

int mesh_stranger(const char *root)
{
    const struct sockaddr_in address = {.sin_family = AF_INET,
                                        .sin_port = htons(mesh_root_port(root)),
                                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}
