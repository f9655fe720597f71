/* How ranks find each other, and what each of them says when they do not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "rendezvous/handshake.h"
#include "support_mesh.h"

/* Each rank's deadline counts from its own start: where the sentence depends on whose is first,
 * rank 0 starts well before the others. */
static atomic_bool rank_0_started;

static void open_after_rank_0_body(struct mesh_rank *rank)
{
    if (rank->rank == 0)
        rank_0_started = true;
    while (!rank_0_started)
        usleep(1000);
    if (rank->rank != 0)
        usleep(300000);
    if (mesh_rank_open(rank))
        mesh_round(rank, 1, 10 * S);
    mesh_rank_close(rank);
}

static void open_body(struct mesh_rank *rank)
{
    if (mesh_rank_open(rank))
        mesh_round(rank, 1, 10 * S);
    mesh_rank_close(rank);
}

static void assert_says(const struct mesh_rank *rank, zcta_status status, uint32_t about,
                        const char *text)
{
    if (rank->status != status || strstr(rank->error.message, text) == NULL)
        fail_msg("rank %u: %s: %s", rank->rank, zcta_status_name(rank->status),
                 rank->error.message);
    assert_int_equal(rank->error.rank, about);
}

static int listen_at(const char *root, int backlog)
{
    const struct sockaddr_in address = {.sin_family = AF_INET,
                                        .sin_port = htons(mesh_root_port(root)),
                                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, backlog), 0);
    return fd;
}

static void *open_thread(void *data)
{
    mesh_rank_open(data);
    return NULL;
}

static void a_wrong_token_is_told_to_the_rank_that_has_it_at_once(void **state)
{
    struct mesh_rank ranks[3];
    char root[32];

    (void)state;
    mesh_free_root(root);
    mesh_ranks(ranks, 3, root, "right");
    ranks[2].token = "wrong";
    ranks[0].timeout_ns = ranks[1].timeout_ns = 1 * S;
    mesh_run_threads(ranks, 3, open_body);
    assert_says(&ranks[2], ZCTA_ERR_RENDEZVOUS, 2, "refused this rank's token");
    assert_non_null(strstr(ranks[2].error.message, root));
    assert_true(ranks[2].open_ns < 2 * S);
    assert_says(&ranks[0], ZCTA_ERR_TIMEOUT, 2, "rank 2 did not come");
    assert_non_null(strstr(ranks[0].error.message, "1 connections there did not prove"));
    assert_says(&ranks[1], ZCTA_ERR_TIMEOUT, 2, "rank 2 did not come");
    mesh_ranks_destroy(ranks, 3);
}

static void a_token_on_one_side_only_is_refused(void **state)
{
    struct mesh_rank ranks[2];
    char root[32];

    (void)state;
    mesh_free_root(root);
    mesh_ranks(ranks, 2, root, "secret");
    ranks[1].token = NULL;
    ranks[0].timeout_ns = 500 * MS;
    mesh_run_threads(ranks, 2, open_body);
    assert_says(&ranks[1], ZCTA_ERR_RENDEZVOUS, 1, "refused this rank's token");
    mesh_ranks_destroy(ranks, 2);
}

static void a_taken_port_is_named_with_what_to_do(void **state)
{
    struct mesh_rank ranks[1];
    char root[32];
    int fd;

    (void)state;
    mesh_free_root(root);
    fd = listen_at(root, 5);
    mesh_ranks(ranks, 1, root, "secret");
    ranks[0].count = 2;
    assert_false(mesh_rank_open(&ranks[0]));
    assert_says(&ranks[0], ZCTA_ERR_RENDEZVOUS, 0, root);
    assert_non_null(strstr(ranks[0].error.message, "Address already in use"));
    assert_non_null(strstr(ranks[0].error.message, "ZEROCTA_PORT"));
    assert_int_equal(ranks[0].error.native, EADDRINUSE);
    assert_true(ranks[0].open_ns < 2 * S);
    mesh_ranks_destroy(ranks, 1);
    close(fd);
}

static void missing_ranks_are_named_by_all_who_came(void **state)
{
    struct mesh_rank ranks[6];
    struct mesh_rank present[4];
    char root[32];

    (void)state;
    mesh_free_root(root);
    mesh_ranks(ranks, 6, root, "secret");
    for (int i = 0; i < 6; i++)
        ranks[i].timeout_ns = 1 * S;
    present[0] = ranks[0];
    present[1] = ranks[1];
    present[2] = ranks[2];
    present[3] = ranks[4];
    rank_0_started = false;
    mesh_run_threads(present, 4, open_after_rank_0_body);
    assert_says(&present[0], ZCTA_ERR_TIMEOUT, 3, "ranks 3, 5 did not come");
    assert_non_null(strstr(present[0].error.message, "within 1 s"));
    for (int i = 1; i < 4; i++)
        assert_says(&present[i], ZCTA_ERR_TIMEOUT, 3, "rank 3 and 1 more did not come");
    assert_in_range(present[0].open_ns, 900 * MS, 10 * S);
    mesh_ranks_destroy(ranks, 6);
}

static void a_missing_rank_0_is_named(void **state)
{
    struct mesh_rank ranks[2];
    char root[32];

    (void)state;
    mesh_free_root(root);
    mesh_ranks(ranks, 2, root, "secret");
    ranks[1].timeout_ns = 300 * MS;
    assert_false(mesh_rank_open(&ranks[1]));
    assert_says(&ranks[1], ZCTA_ERR_TIMEOUT, 0, "rank 0 did not answer at 127.0.0.1:");
    assert_non_null(strstr(ranks[1].error.message, "within 300 ms"));
    assert_in_range(ranks[1].open_ns, 290 * MS, 2 * S);
    mesh_ranks_destroy(ranks, 2);
}

static void late_body(struct mesh_rank *rank)
{
    if (rank->rank == 0)
        usleep(300000);
    open_body(rank);
}

static void rank_0_may_start_later(void **state)
{
    struct mesh_rank ranks[3];
    char root[32];

    (void)state;
    mesh_free_root(root);
    mesh_ranks(ranks, 3, root, "secret");
    mesh_run_threads(ranks, 3, late_body);
    for (int i = 0; i < 3; i++)
        assert_int_equal(ranks[i].status, ZCTA_OK);
    mesh_ranks_destroy(ranks, 3);
}

static void another_number_of_ranks_is_refused_with_both_numbers(void **state)
{
    struct mesh_rank ranks[2];
    char root[32];

    (void)state;
    mesh_free_root(root);
    mesh_ranks(ranks, 2, root, "secret");
    ranks[1].count = 5;
    ranks[0].timeout_ns = 500 * MS;
    mesh_run_threads(ranks, 2, open_body);
    assert_says(&ranks[1], ZCTA_ERR_RENDEZVOUS, 1, "started with 2 ranks, rank 1 with 5");
    mesh_ranks_destroy(ranks, 2);
}

static void two_equal_ranks_end_the_job_for_all_at_once(void **state)
{
    struct mesh_rank ranks[3];
    char root[32];

    (void)state;
    mesh_free_root(root);
    mesh_ranks(ranks, 3, root, "secret");
    ranks[2].rank = 1;
    for (int i = 0; i < 3; i++)
        ranks[i].timeout_ns = 60 * S;
    mesh_run_threads(ranks, 3, open_body);
    for (int i = 0; i < 3; i++) {
        assert_says(&ranks[i], ZCTA_ERR_RENDEZVOUS, 1, "are both rank 1 of a job at 127.0.0.1:");
        assert_true(ranks[i].open_ns < 30 * S);
    }
    mesh_ranks_destroy(ranks, 3);
}

/* Takes each connection and sends something that is not zerocta's. */
static void *foreign_server(void *data)
{
    const int listener = *(int *)data;

    for (;;) {
        const int fd = accept(listener, NULL, NULL);

        if (fd < 0)
            return NULL;
        (void)!write(fd, "HTTP/1.1 400 Bad Request, and sixty-four bytes of it in all ....\r\n",
                     66);
        close(fd);
    }
}

static void a_foreign_server_at_the_port_is_not_trusted_and_told(void **state)
{
    struct mesh_rank ranks[2];
    char root[32];
    pthread_t thread;
    int fd;

    (void)state;
    mesh_free_root(root);
    fd = listen_at(root, 100);
    pthread_create(&thread, NULL, foreign_server, &fd);
    mesh_ranks(ranks, 2, root, "secret");
    ranks[1].timeout_ns = 500 * MS;
    assert_false(mesh_rank_open(&ranks[1]));
    assert_says(&ranks[1], ZCTA_ERR_RENDEZVOUS, 0, "what answers there is not zerocta");
    assert_in_range(ranks[1].open_ns, 490 * MS, 3 * S);
    shutdown(fd, SHUT_RDWR);
    pthread_join(thread, NULL);
    close(fd);

    /* One that says nothing at all. */
    fd = listen_at(root, 100);
    ranks[1].timeout_ns = 300 * MS;
    assert_false(mesh_rank_open(&ranks[1]));
    assert_says(&ranks[1], ZCTA_ERR_RENDEZVOUS, 0, "said nothing");
    close(fd);
    mesh_ranks_destroy(ranks, 2);
}

static void a_rank_that_dies_while_others_are_awaited_ends_the_wait(void **state)
{
    struct mesh_rank ranks[4];
    pthread_t threads[2];
    char root[32];
    pid_t pid;

    (void)state;
    mesh_free_root(root);
    mesh_ranks(ranks, 4, root, "secret");
    mesh_start_processes(&ranks[2], 1, open_body, &pid);
    pthread_create(&threads[0], NULL, open_thread, &ranks[0]);
    pthread_create(&threads[1], NULL, open_thread, &ranks[1]);
    usleep(300000);
    kill(pid, SIGKILL);
    assert_int_equal(mesh_wait_process(pid), 256 + SIGKILL);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    for (int i = 0; i < 2; i++) {
        assert_says(&ranks[i], ZCTA_ERR_RENDEZVOUS, 2, "rank 2 ");
        assert_non_null(strstr(ranks[i].error.message, "ended before all ranks had come"));
        assert_true(ranks[i].open_ns < 5 * S);
    }
    mesh_ranks_destroy(ranks, 4);
}

static void a_dead_rank_0_is_seen_by_those_who_wait_for_the_table(void **state)
{
    struct mesh_rank ranks[3];
    char root[32];
    pthread_t thread;
    pid_t pid;

    (void)state;
    mesh_free_root(root);
    mesh_ranks(ranks, 3, root, "secret");
    mesh_start_processes(&ranks[0], 1, open_body, &pid);
    pthread_create(&thread, NULL, open_thread, &ranks[1]);
    usleep(300000);
    kill(pid, SIGKILL);
    mesh_wait_process(pid);
    pthread_join(thread, NULL);
    assert_says(&ranks[1], ZCTA_ERR_RENDEZVOUS, 0, "ended before all ranks had come");
    assert_true(ranks[1].open_ns < 5 * S);
    mesh_ranks_destroy(ranks, 3);
}

/* An allgather among threads, as a program might bring its own. */
struct allgather {
    pthread_barrier_t barrier;
    uint8_t bytes[MESH_RANKS][256];
    uint32_t spoil; /* this rank's bytes never arrive */
    uint32_t older; /* this rank's are those of another version of the library; 0: nobody's */
    bool rotate;    /* every rank finds its neighbour's bytes at its place */
};

struct allgather_rank {
    struct allgather *all;
    uint32_t rank, count;
    int result;
};

static int allgather(void *data, const void *mine, void *all, size_t bytes)
{
    struct allgather_rank *self = data;

    if (bytes > 256 || self->result != 0)
        return self->result;
    if (self->rank != self->all->spoil)
        memcpy(self->all->bytes[self->rank], mine, bytes);
    if (self->all->older != 0 && self->rank == self->all->older) {
        static const uint8_t version[4] = {3, 2, 1, 0};

        memcpy(self->all->bytes[self->rank] + 68, version, sizeof version);
    }
    pthread_barrier_wait(&self->all->barrier);
    for (uint32_t i = 0; i < self->count; i++)
        memcpy((uint8_t *)all + i * bytes,
               self->all->bytes[self->all->rotate ? (i + 1) % self->count : i], bytes);
    pthread_barrier_wait(&self->all->barrier);
    return 0;
}

static void run_allgather(struct mesh_rank *ranks, struct allgather *all, int result)
{
    struct allgather_rank selves[4];

    pthread_barrier_init(&all->barrier, NULL, 4);
    mesh_ranks(ranks, 4, NULL, NULL);
    for (uint32_t i = 0; i < 4; i++) {
        selves[i] = (struct allgather_rank){all, i, 4, result};
        ranks[i].exchange = allgather;
        ranks[i].exchange_data = &selves[i];
    }
    mesh_run_threads(ranks, 4, open_body);
    pthread_barrier_destroy(&all->barrier);
    mesh_ranks_destroy(ranks, 4);
}

static void ranks_meet_through_the_callers_exchange(void **state)
{
    struct mesh_rank ranks[4];
    struct allgather all = {.spoil = ZCTA_NO_RANK};

    (void)state;
    run_allgather(ranks, &all, 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(ranks[i].status, ZCTA_OK);
}

static void ranks_of_different_versions_name_both(void **state)
{
    struct mesh_rank ranks[4];
    struct allgather all = {.spoil = ZCTA_NO_RANK, .older = 2};

    (void)state;
    run_allgather(ranks, &all, 0);
    for (uint32_t i = 0; i < 4; i++)
        assert_says(&ranks[i], ZCTA_ERR_RENDEZVOUS, 2,
                    "rank 2 runs zerocta 1.2.3 and rank 0 runs zerocta "
                    "0.");
}

/* A rank of another version comes to rank 0: it is told, and so are all others. */
static void *other_version_thread(void *data)
{
    struct mesh_rank *rank = data;
    struct zc_hello hello = {.purpose = ZC_WIRE_BOOTSTRAP,
                             .rank = 2,
                             .rank_count = 3,
                             .address = {.pid = 1, .version = 0x10203}};
    const zcta_init_params params = {
        .size = sizeof params, .rank = 2, .rank_count = 3, .root = rank->root, .token = "secret"};
    struct zc_caller caller;
    struct zc_job job;
    int fd;

    if (zc_job_resolve(&params, &rank->diag, &job) != ZCTA_OK)
        return NULL;
    while ((fd = mesh_stranger(rank->root)) < 0)
        usleep(1000);
    zc_caller_start(&caller, fd, &hello, job.key);
    while (zc_caller_advance(&caller) == ZC_CALLER_GREETING || caller.state == ZC_CALLER_REPLY)
        usleep(1000);
    if (caller.state == ZC_CALLER_REFUSED && caller.reply.code == ZC_REPLY_VERSION &&
        caller.reply.count == zcta_version())
        rank->status = ZCTA_ERR_MISMATCH;
    close(fd);
    return NULL;
}

static void a_rank_of_another_version_is_refused_and_named_to_all(void **state)
{
    struct mesh_rank ranks[3];
    pthread_t threads[3];
    char root[32];

    (void)state;
    mesh_free_root(root);
    mesh_ranks(ranks, 3, root, "secret");
    for (int i = 0; i < 3; i++) {
        ranks[i].timeout_ns = 60 * S;
        pthread_create(&threads[i], NULL, i == 2 ? other_version_thread : open_thread, &ranks[i]);
    }
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(ranks[2].status, ZCTA_ERR_MISMATCH);
    /* Rank 1 has heard it from rank 0, or came when that had gone. */
    assert_says(&ranks[0], ZCTA_ERR_RENDEZVOUS, 2, "rank 2 runs zerocta 1.2.3 and rank 0 runs ");
    mesh_ranks_destroy(ranks, 3);
}

/* A greeting of another format, from a version that says which it is. */
static void *other_format_server(void *data)
{
    const uint8_t nonce[ZC_WIRE_NONCE] = {0};
    uint8_t greeting[ZC_WIRE_GREETING];
    const int fd = accept(*(int *)data, NULL, NULL);

    zc_wire_greeting_make(greeting, ZC_WIRE_BOOTSTRAP, nonce);
    greeting[7]++;
    greeting[44] = 7;
    greeting[45] = 8;
    greeting[46] = 9;
    (void)!write(fd, greeting, sizeof greeting);
    close(fd);
    return NULL;
}

static void another_format_is_named_by_its_version(void **state)
{
    struct mesh_rank ranks[2];
    char root[32];
    pthread_t thread;
    int fd;

    (void)state;
    mesh_free_root(root);
    fd = listen_at(root, 5);
    pthread_create(&thread, NULL, other_format_server, &fd);
    mesh_ranks(ranks, 2, root, "secret");
    assert_false(mesh_rank_open(&ranks[1]));
    assert_says(&ranks[1], ZCTA_ERR_RENDEZVOUS, 1, "is zerocta 9.8.7 and rank 1 runs zerocta 0.");
    pthread_join(thread, NULL);
    close(fd);
    mesh_ranks_destroy(ranks, 2);
}

static void an_exchange_that_fails_or_lies_is_an_error_on_every_rank(void **state)
{
    struct mesh_rank ranks[4];
    struct allgather none = {.spoil = 2}, rotated = {.spoil = ZCTA_NO_RANK, .rotate = true};

    (void)state;
    run_allgather(ranks, &none, 0);
    for (uint32_t i = 0; i < 4; i++)
        assert_says(&ranks[i], ZCTA_ERR_RENDEZVOUS, 2, "no address of rank 2");
    run_allgather(ranks, &rotated, 0);
    for (uint32_t i = 0; i < 4; i++)
        assert_says(&ranks[i], ZCTA_ERR_RENDEZVOUS, i, "other bytes than rank");
    run_allgather(ranks, &none, 42);
    for (uint32_t i = 0; i < 4; i++) {
        assert_says(&ranks[i], ZCTA_ERR_RENDEZVOUS, i, "returned 42");
        assert_int_equal(ranks[i].error.native, 42);
    }
}

/* Rank 0 with the launcher's socket: the others may come before it looks. */
static void listener_body(struct mesh_rank *rank)
{
    const zcta_init_params none = {.size = sizeof none};
    struct zc_job job;
    char text[16];

    if (rank->rank != 0) {
        open_body(rank);
        return;
    }
    usleep(100000);
    snprintf(text, sizeof text, "%d", *(int *)rank->shared);
    setenv("ZEROCTA_RANK", "0", 1);
    setenv("ZEROCTA_RANK_COUNT", "3", 1);
    setenv("ZEROCTA_LOCAL_RANK", "0", 1);
    setenv("ZEROCTA_LOCAL_RANK_COUNT", "3", 1);
    setenv("ZEROCTA_ROOT", rank->root, 1);
    setenv("ZEROCTA_TOKEN", "secret", 1);
    setenv("ZEROCTA_LISTEN_FD", text, 1);
    rank->status = zc_job_resolve(&none, &rank->diag, &job);
    if (rank->status == ZCTA_OK && job.listen_fd < 0)
        rank->status = ZCTA_ERR_INVALID;
    if (rank->status == ZCTA_OK)
        rank->status =
            zc_mesh_open(&job, zc_deadline_in(10 * S), NULL, NULL, &rank->diag, &rank->mesh);
    if (rank->status == ZCTA_OK)
        mesh_round(rank, 1, 10 * S);
    mesh_rank_close(rank);
}

static void rank_0_listens_on_the_socket_that_its_launcher_opened(void **state)
{
    struct mesh_rank ranks[3];
    char root[32];
    pid_t pids[3];
    int fd;

    (void)state;
    mesh_free_root(root);
    fd = listen_at(root, 100);
    mesh_ranks(ranks, 3, root, "secret");
    ranks[0].shared = &fd;
    mesh_start_processes(ranks, 3, listener_body, pids);
    for (int i = 0; i < 3; i++)
        assert_int_equal(mesh_wait_process(pids[i]), ZCTA_OK);
    close(fd);
    mesh_ranks_destroy(ranks, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wrong_token_is_told_to_the_rank_that_has_it_at_once),
        cmocka_unit_test(a_token_on_one_side_only_is_refused),
        cmocka_unit_test(a_taken_port_is_named_with_what_to_do),
        cmocka_unit_test(missing_ranks_are_named_by_all_who_came),
        cmocka_unit_test(a_missing_rank_0_is_named),
        cmocka_unit_test(rank_0_may_start_later),
        cmocka_unit_test(another_number_of_ranks_is_refused_with_both_numbers),
        cmocka_unit_test(two_equal_ranks_end_the_job_for_all_at_once),
        cmocka_unit_test(a_foreign_server_at_the_port_is_not_trusted_and_told),
        cmocka_unit_test(a_rank_that_dies_while_others_are_awaited_ends_the_wait),
        cmocka_unit_test(a_dead_rank_0_is_seen_by_those_who_wait_for_the_table),
        cmocka_unit_test(ranks_meet_through_the_callers_exchange),
        cmocka_unit_test(ranks_of_different_versions_name_both),
        cmocka_unit_test(a_rank_of_another_version_is_refused_and_named_to_all),
        cmocka_unit_test(another_format_is_named_by_its_version),
        cmocka_unit_test(an_exchange_that_fails_or_lies_is_an_error_on_every_rank),
        cmocka_unit_test(rank_0_listens_on_the_socket_that_its_launcher_opened),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
