/* Strangers at the job's port and at its Unix sockets neither end a job nor delay it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "rendezvous/handshake.h"
#include "rendezvous/net.h"
#include "support_mesh.h"

enum { STRANGERS = 1000, RANKS = 8 };

static void open_body(struct mesh_rank *rank)
{
    if (mesh_rank_open(rank))
        mesh_round(rank, 1, 10 * S);
    mesh_rank_close(rank);
}

/* Rank 0 is there first, so that strangers can be there before the other ranks. */
struct early {
    struct mesh_rank *rank;
    pthread_t thread;
};

static void *early_main(void *data)
{
    open_body(data);
    return NULL;
}

static void start_rank_0(struct early *early, struct mesh_rank *ranks)
{
    int fd = -1;

    early->rank = &ranks[0];
    assert_int_equal(pthread_create(&early->thread, NULL, early_main, &ranks[0]), 0);
    for (int i = 0; i < 1000 && fd < 0; i++, usleep(1000))
        fd = mesh_stranger(ranks[0].root);
    assert_true(fd >= 0);
    close(fd);
}

/* The other ranks come now; all must be through soon. */
static void finish_job(struct early *early, struct mesh_rank *ranks)
{
    uint64_t slowest = 0;

    mesh_run_threads(&ranks[1], RANKS - 1, open_body);
    pthread_join(early->thread, NULL);
    for (int i = 0; i < RANKS; i++) {
        if (ranks[i].status != ZCTA_OK)
            fail_msg("rank %d: %s", i, ranks[i].error.message);
        if (i > 0 && ranks[i].open_ns > slowest)
            slowest = ranks[i].open_ns;
    }
    print_message("8 ranks beside the strangers: %.1f ms\n", (double)slowest / 1e6);
    assert_true(slowest < 2 * S);
    mesh_ranks_destroy(ranks, RANKS);
}

static void a_thousand_idle_connections_delay_nobody(void **state)
{
    struct mesh_rank ranks[RANKS];
    struct early early;
    static int fds[STRANGERS];
    struct rlimit limit;
    char root[32];

    (void)state;
    /* Both ends of every connection are in this process. */
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_cur < 4096 && limit.rlim_max >= 4096) {
        limit.rlim_cur = 4096;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    }
    if (limit.rlim_cur < 4096)
        skip();
    mesh_free_root(root);
    mesh_ranks(ranks, RANKS, root, "secret");
    start_rank_0(&early, ranks);
    for (int i = 0; i < STRANGERS; i++) {
        fds[i] = mesh_stranger(root);
        assert_true(fds[i] >= 0);
    }
    finish_job(&early, ranks);
    for (int i = 0; i < STRANGERS; i++)
        close(fds[i]);
}

/* Half of what a rank would say, and then nothing. */
static void connections_that_stop_in_the_middle_delay_nobody(void **state)
{
    struct mesh_rank ranks[RANKS];
    struct early early;
    int fds[100];
    uint8_t half[100];
    char root[32];

    (void)state;
    memset(half, 'z', sizeof half);
    mesh_free_root(root);
    mesh_ranks(ranks, RANKS, root, "secret");
    start_rank_0(&early, ranks);
    for (int i = 0; i < 100; i++) {
        fds[i] = mesh_stranger(root);
        assert_true(fds[i] >= 0);
        assert_int_equal(send(fds[i], half, (size_t)i, MSG_NOSIGNAL), i);
    }
    finish_job(&early, ranks);
    for (int i = 0; i < 100; i++)
        close(fds[i]);
}

struct attack {
    const char *root;
    atomic_bool stop;
    atomic_uint connections;
    bool endless;
};

static void *attack_main(void *data)
{
    struct attack *attack = data;
    uint8_t bytes[65536];
    unsigned seed = 1;

    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(rand_r(&seed) >> 3);
    while (!attack->stop) {
        const int fd = mesh_stranger(attack->root);

        if (fd < 0) {
            usleep(1000);
            continue;
        }
        attack->connections++;
        if (attack->endless)
            while (!attack->stop && send(fd, bytes, sizeof bytes, MSG_NOSIGNAL) > 0)
                continue;
        else
            (void)send(fd, bytes, 1 + (size_t)rand_r(&seed) % 400, MSG_NOSIGNAL);
        close(fd);
    }
    return NULL;
}

static void job_under_attack(bool endless)
{
    struct mesh_rank ranks[RANKS];
    struct early early;
    struct attack attack = {.endless = endless};
    pthread_t threads[2];
    char root[32];

    mesh_free_root(root);
    attack.root = root;
    mesh_ranks(ranks, RANKS, root, "secret");
    start_rank_0(&early, ranks);
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, attack_main, &attack);
    while (attack.connections < 100)
        usleep(1000);
    finish_job(&early, ranks);
    attack.stop = true;
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
}

static void random_bytes_delay_nobody(void **state)
{
    (void)state;
    job_under_attack(false);
}

static void an_endless_stream_delays_nobody(void **state)
{
    (void)state;
    job_under_attack(true);
}

/* With so few descriptors that the strangers use them up, rank 0 lets strangers go. */
static void rank_0_short_of_descriptors_prefers_the_ranks(void **state)
{
    struct mesh_rank ranks[RANKS];
    const struct rlimit few = {.rlim_cur = 64, .rlim_max = 64};
    static int fds[200];
    char root[32];
    pid_t pid;

    (void)state;
    mesh_free_root(root);
    mesh_ranks(ranks, RANKS, root, "secret");
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        setrlimit(RLIMIT_NOFILE, &few);
        open_body(&ranks[0]);
        _exit((int)ranks[0].status);
    }
    for (int i = 0; i < 200; i++) {
        while ((fds[i] = mesh_stranger(root)) < 0)
            usleep(1000);
    }
    mesh_run_threads(&ranks[1], RANKS - 1, open_body);
    assert_int_equal(mesh_wait_process(pid), ZCTA_OK);
    for (int i = 1; i < RANKS; i++) {
        if (ranks[i].status != ZCTA_OK)
            fail_msg("rank %d: %s", i, ranks[i].error.message);
        assert_true(ranks[i].open_ns < 2 * S);
    }
    for (int i = 0; i < 200; i++)
        close(fds[i]);
    mesh_ranks_destroy(ranks, RANKS);
}

/* Reads the names of all abstract sockets of zerocta, as any process of the machine can, and sits
 * down at each of them. */
struct squatters {
    atomic_bool stop;
    atomic_uint count;
    int fds[512];
};

static void squat(struct squatters *squatters, const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const size_t length = strlen(name);
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    memcpy(address.sun_path + 1, name, length);
    if (connect(fd, (struct sockaddr *)&address,
                (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length)) == 0 &&
        squatters->count < 512) {
        (void)send(fd, name, length, MSG_NOSIGNAL);
        squatters->fds[squatters->count++] = fd;
    } else {
        close(fd);
    }
}

static void *squatter_main(void *data)
{
    struct squatters *squatters = data;
    char line[512];

    while (!squatters->stop) {
        FILE *file = fopen("/proc/net/unix", "r");

        while (file != NULL && fgets(line, sizeof line, file) != NULL) {
            char *at = strstr(line, "@zerocta-");

            if (at == NULL)
                continue;
            at[strcspn(at, "\n")] = '\0';
            squat(squatters, at + 1);
        }
        if (file != NULL)
            fclose(file);
        usleep(200);
    }
    return NULL;
}

static void strangers_at_the_unix_sockets_delay_nobody(void **state)
{
    static struct squatters squatters;
    struct mesh_rank ranks[RANKS];
    struct early early;
    pthread_t thread;
    char root[32];

    (void)state;
    mesh_free_root(root);
    mesh_ranks(ranks, RANKS, root, "secret");
    start_rank_0(&early, ranks);
    pthread_create(&thread, NULL, squatter_main, &squatters);
    while (squatters.count < 20)
        usleep(1000);
    finish_job(&early, ranks);
    squatters.stop = true;
    pthread_join(thread, NULL);
    for (uint32_t i = 0; i < squatters.count; i++)
        close(squatters.fds[i]);
}

/* A recorded hello, played back on a new connection. */
static void a_replayed_hello_proves_nothing(void **state)
{
    struct mesh_rank ranks[RANKS];
    struct early early;
    const zcta_init_params params = {
        .size = sizeof params, .rank = 5, .rank_count = RANKS, .token = "secret"};
    struct zc_hello hello = {.purpose = ZC_WIRE_BOOTSTRAP, .rank = 5, .rank_count = RANKS};
    uint8_t greeting[ZC_WIRE_GREETING], bytes[ZC_WIRE_HELLO], answer[ZC_WIRE_REPLY];
    zcta_init_params with_root = params;
    struct zc_reply reply;
    struct zc_job job;
    char root[32];
    int fd;

    (void)state;
    mesh_free_root(root);
    mesh_ranks(ranks, RANKS, root, "secret");
    with_root.root = root;
    assert_int_equal(zc_job_resolve(&with_root, &ranks[5].diag, &job), ZCTA_OK);
    start_rank_0(&early, ranks);
    fd = mesh_stranger(root);
    assert_int_equal(zc_net_read(fd, greeting, sizeof greeting, zc_deadline_in(5 * S)), 0);
    zc_wire_hello_seal(bytes, &hello, greeting, job.key);
    close(fd);

    fd = mesh_stranger(root);
    assert_int_equal(zc_net_read(fd, greeting, sizeof greeting, zc_deadline_in(5 * S)), 0);
    assert_int_equal(zc_net_write(fd, bytes, sizeof bytes, zc_deadline_in(5 * S)), 0);
    assert_int_equal(zc_net_read(fd, answer, sizeof answer, zc_deadline_in(5 * S)), 0);
    assert_int_equal(zc_wire_reply_open(answer, answer, job.key, &reply), ZC_WIRE_OK);
    assert_int_equal(reply.code, ZC_REPLY_TOKEN);
    close(fd);
    finish_job(&early, ranks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thousand_idle_connections_delay_nobody),
        cmocka_unit_test(connections_that_stop_in_the_middle_delay_nobody),
        cmocka_unit_test(random_bytes_delay_nobody),
        cmocka_unit_test(an_endless_stream_delays_nobody),
        cmocka_unit_test(rank_0_short_of_descriptors_prefers_the_ranks),
        cmocka_unit_test(strangers_at_the_unix_sockets_delay_nobody),
        cmocka_unit_test(a_replayed_hello_proves_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
