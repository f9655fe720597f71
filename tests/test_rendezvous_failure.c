/* A peer that dies, stops, leaves, sends garbage or floods, and a process without descriptors: each
 * is an error that names the rank, and nothing waits longer than it was told to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "rendezvous/mesh.h"
#include "rendezvous/net.h"
#include "support_mesh.h"

/* What processes report to the test. */
struct outcome {
    zcta_status status;
    zcta_error error;
    uint64_t ns;
    uint32_t lost, left;
    int ready;
};

static struct outcome *outcomes;

static void keep_outcome(struct mesh_rank *rank, uint64_t start)
{
    struct outcome *outcome = &outcomes[rank->rank];

    outcome->ns = zc_now_ns() - start;
    outcome->status = rank->status;
    outcome->error = rank->error;
}

static int set_up(void **state)
{
    (void)state;
    outcomes = mmap(NULL, MESH_RANKS * sizeof *outcomes, PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return outcomes == MAP_FAILED;
}

static void start(struct mesh_rank *ranks, uint32_t count, mesh_body *body, pid_t *pids)
{
    static char root[32];

    memset(outcomes, 0, MESH_RANKS * sizeof *outcomes);
    mesh_free_root(root);
    mesh_ranks(ranks, count, root, "secret");
    mesh_start_processes(ranks, count, body, pids);
}

static void await_ready(uint32_t rank)
{
    for (int i = 0; i < 20000 && __atomic_load_n(&outcomes[rank].ready, __ATOMIC_ACQUIRE) == 0; i++)
        usleep(500);
    assert_int_equal(outcomes[rank].ready, 1);
}

static void be_ready(const struct mesh_rank *rank)
{
    __atomic_store_n(&outcomes[rank->rank].ready, 1, __ATOMIC_RELEASE);
}

/* Rank 1 opens and stands still; the others start a round that needs it. */
static void victim_body(struct mesh_rank *rank)
{
    const uint64_t timeout = rank->shared != NULL ? 500 * MS : 20 * S;
    uint64_t begin;

    if (!mesh_rank_open(rank))
        return;
    mesh_round(rank, 1, 10 * S);
    if (rank->rank == 1) {
        be_ready(rank);
        for (;;)
            pause();
    }
    begin = zc_now_ns();
    be_ready(rank);
    mesh_round(rank, 2, timeout);
    keep_outcome(rank, begin);
    mesh_rank_close(rank);
}

static void a_killed_rank_is_named_at_once(void **state)
{
    struct mesh_rank ranks[4];
    pid_t pids[4];
    char text[64];

    (void)state;
    start(ranks, 4, victim_body, pids);
    for (uint32_t i = 0; i < 4; i++)
        await_ready(i);
    usleep(100000);
    kill(pids[1], SIGKILL);
    assert_int_equal(mesh_wait_process(pids[1]), 256 + SIGKILL);
    snprintf(text, sizeof text, "rank 1 (pid %d) ended", (int)pids[1]);
    for (uint32_t i = 0; i < 4; i++) {
        if (i == 1)
            continue;
        assert_int_equal(mesh_wait_process(pids[i]), ZCTA_ERR_PEER);
        assert_int_equal(outcomes[i].error.rank, 1);
        assert_non_null(strstr(outcomes[i].error.message, text));
        assert_string_equal(outcomes[i].error.call, "mesh_round");
        assert_true(outcomes[i].ns < 2 * S);
    }
    mesh_ranks_destroy(ranks, 4);
}

static void a_stopped_rank_is_named_at_the_deadline(void **state)
{
    struct mesh_rank ranks[4];
    pid_t pids[4];
    char root[32], text[64];

    (void)state;
    memset(outcomes, 0, MESH_RANKS * sizeof *outcomes);
    mesh_free_root(root);
    mesh_ranks(ranks, 4, root, "secret");
    for (uint32_t i = 0; i < 4; i++)
        ranks[i].shared = root;
    mesh_start_processes(ranks, 4, victim_body, pids);
    await_ready(1);
    kill(pids[1], SIGSTOP);
    snprintf(text, sizeof text, "rank 1 (pid %d) did not take part in the round", (int)pids[1]);
    for (uint32_t i = 0; i < 4; i++) {
        if (i == 1)
            continue;
        assert_int_equal(mesh_wait_process(pids[i]), ZCTA_ERR_TIMEOUT);
        assert_int_equal(outcomes[i].error.rank, 1);
        assert_non_null(strstr(outcomes[i].error.message, text));
        assert_in_range(outcomes[i].ns, 500 * MS, 4 * S);
    }
    kill(pids[1], SIGKILL);
    mesh_wait_process(pids[1]);
    mesh_ranks_destroy(ranks, 4);
}

/* Rank 0 sends to the stopped rank 1 until no more goes in. */
static void fill_body(struct mesh_rank *rank)
{
    const uint32_t order[2] = {0, 1};
    static uint8_t mine[ZC_MAX_MESSAGE], all[2 * ZC_MAX_MESSAGE];
    struct zc_exchange exchange = {.ranks = order,
                                   .count = 2,
                                   .mine = mine,
                                   .all = all,
                                   .bytes = sizeof mine,
                                   .fd = -1,
                                   .call = "test",
                                   .what = "did not come"};
    uint64_t begin;

    if (!mesh_rank_open(rank))
        return;
    if (rank->rank == 1) {
        be_ready(rank);
        for (;;)
            pause();
    }
    while (outcomes[1].ready != 2)
        usleep(1000);
    begin = zc_now_ns();
    for (exchange.tag = 0; exchange.tag < 30; exchange.tag++) {
        exchange.deadline = zc_deadline_in(20 * MS);
        mesh_rank_failed(rank, zc_mesh_exchange(rank->mesh, &exchange));
        if (rank->status != ZCTA_ERR_TIMEOUT)
            break;
    }
    for (int i = 0; i < 3; i++)
        zc_mesh_notify(rank->mesh, 1, 1, 0, mine, sizeof mine);
    mesh_rank_close(rank);
    keep_outcome(rank, begin);
}

static void a_peer_that_does_not_read_costs_no_more_than_the_deadline(void **state)
{
    struct mesh_rank ranks[2];
    pid_t pids[2];

    (void)state;
    start(ranks, 2, fill_body, pids);
    await_ready(1);
    kill(pids[1], SIGSTOP);
    __atomic_store_n(&outcomes[1].ready, 2, __ATOMIC_RELEASE);
    assert_int_equal(mesh_wait_process(pids[0]), ZCTA_ERR_TIMEOUT);
    assert_int_equal(outcomes[0].error.rank, 1);
    /* 30 rounds of 20 ms, three notices and a farewell of 100 ms. */
    assert_in_range(outcomes[0].ns, 600 * MS, 3 * S);
    kill(pids[1], SIGKILL);
    mesh_wait_process(pids[1]);
    mesh_ranks_destroy(ranks, 2);
}

/* Rank 0 leaves after the first round; rank 1 is killed by itself without a farewell. */
static void leave_body(struct mesh_rank *rank)
{
    const uint64_t begin = zc_now_ns();

    if (!mesh_rank_open(rank))
        return;
    mesh_round(rank, 1, 10 * S);
    if (rank->rank == 1)
        _exit(0);
    if (rank->rank >= 2) {
        while (rank->left[0] == 0 || rank->lost[1] == 0)
            usleep(1000);
        usleep(20000);
        outcomes[rank->rank].left = rank->left[0] * 10 + rank->left[1];
        outcomes[rank->rank].lost = rank->lost[0] * 10 + rank->lost[1];
        mesh_round(rank, 2, 10 * S);
        keep_outcome(rank, begin);
    }
    mesh_rank_close(rank);
}

static void a_farewell_is_told_from_a_death(void **state)
{
    struct mesh_rank ranks[4];
    pid_t pids[4];

    (void)state;
    start(ranks, 4, leave_body, pids);
    assert_int_equal(mesh_wait_process(pids[0]), ZCTA_OK);
    assert_int_equal(mesh_wait_process(pids[1]), ZCTA_OK);
    for (uint32_t i = 2; i < 4; i++) {
        assert_int_equal(mesh_wait_process(pids[i]), ZCTA_ERR_PEER);
        assert_int_equal(outcomes[i].left, 10);
        assert_int_equal(outcomes[i].lost, 1);
        assert_int_equal(outcomes[i].error.rank, 1); /* the death, not the farewell, is blamed */
    }
    mesh_ranks_destroy(ranks, 4);
}

/* Rank 0 sends its part of a round and dies; rank 1 looks only later. */
static void posthumous_body(struct mesh_rank *rank)
{
    const uint64_t begin = zc_now_ns();

    if (!mesh_rank_open(rank))
        return;
    if (rank->rank == 0) {
        mesh_round(rank, 5, 50 * MS);
        if (rank->status != ZCTA_ERR_TIMEOUT)
            _exit(99);
        _exit(0);
    }
    while (rank->lost[0] == 0)
        usleep(1000);
    if (mesh_round(rank, 5, 10 * S) == ZCTA_OK)
        mesh_round(rank, 6, 10 * S);
    else
        rank->status = ZCTA_ERR_INVALID;
    keep_outcome(rank, begin);
    mesh_rank_close(rank);
}

static void what_a_rank_sent_before_it_died_is_delivered_first(void **state)
{
    struct mesh_rank ranks[2];
    pid_t pids[2];

    (void)state;
    start(ranks, 2, posthumous_body, pids);
    assert_int_equal(mesh_wait_process(pids[0]), 0);
    assert_int_equal(mesh_wait_process(pids[1]), ZCTA_ERR_PEER);
    mesh_ranks_destroy(ranks, 2);
}

/* The kernel reports such a close as an error before the packets, and once only. */
static void packets_of_a_peer_that_ended_with_unread_ones_are_still_read(void **state)
{
    char text[8];
    struct zc_packet packet = {.buffer = text, .capacity = sizeof text};
    int pair[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(zc_net_send_packet(pair[0], "one", 3, "1", 1, -1), 0);
    assert_int_equal(zc_net_send_packet(pair[0], "two", 3, NULL, 0, -1), 0);
    assert_int_equal(zc_net_send_packet(pair[1], "unread", 6, NULL, 0, -1), 0);
    close(pair[0]);
    assert_int_equal(zc_net_receive_packet(pair[1], &packet), ZC_PACKET_TAKEN);
    assert_int_equal(packet.bytes, 4);
    assert_memory_equal(text, "one1", 4);
    assert_int_equal(zc_net_receive_packet(pair[1], &packet), ZC_PACKET_TAKEN);
    assert_int_equal(packet.bytes, 3);
    assert_int_equal(zc_net_receive_packet(pair[1], &packet), ZC_PACKET_END);
    close(pair[1]);
}

/* Rank 0 writes to the socket what the mesh never would. */
static void garbage_body(struct mesh_rank *rank)
{
    const uint64_t begin = zc_now_ns();
    static uint8_t bytes[ZC_WIRE_FRAME + ZC_MAX_MESSAGE + 100];
    const size_t sizes[] = {1, ZC_WIRE_FRAME, sizeof bytes};

    if (!mesh_rank_open(rank))
        return;
    if (rank->rank == 0) {
        memset(bytes, 0xab, sizeof bytes);
        for (uint32_t peer = 1; peer < 4; peer++)
            (void)send(rank->mesh->peers[peer].fd, bytes, sizes[peer - 1], MSG_NOSIGNAL);
        for (uint32_t peer = 1; peer < 4; peer++)
            while (rank->lost[peer] == 0 && rank->left[peer] == 0)
                usleep(1000);
    } else {
        mesh_round(rank, 1, 10 * S);
        while (rank->lost[0] == 0)
            usleep(1000);
        outcomes[rank->rank].lost = rank->lost[0];
        keep_outcome(rank, begin);
    }
    mesh_rank_close(rank);
}

static void a_peer_that_sends_garbage_is_lost(void **state)
{
    struct mesh_rank ranks[4];
    pid_t pids[4];

    (void)state;
    start(ranks, 4, garbage_body, pids);
    assert_int_equal(mesh_wait_process(pids[0]), ZCTA_OK);
    for (uint32_t i = 1; i < 4; i++) {
        assert_int_equal(mesh_wait_process(pids[i]), ZCTA_ERR_PEER);
        assert_int_equal(outcomes[i].lost, 1);
        assert_int_equal(outcomes[i].error.rank, 0);
        assert_non_null(strstr(outcomes[i].error.message, "sent a message that is not one"));
    }
    mesh_ranks_destroy(ranks, 4);
}

/* A descriptor where the header promises none. */
static void stowaway_body(struct mesh_rank *rank)
{
    const uint64_t begin = zc_now_ns();
    const struct zc_frame frame = {.kind = ZC_FRAME_EXCHANGE, .tag = 3};
    const int before = mesh_count_fds();
    uint8_t header[ZC_WIRE_FRAME];

    if (!mesh_rank_open(rank))
        return;
    if (rank->rank == 0) {
        zc_wire_frame_encode(header, &frame);
        zc_net_send_packet(rank->mesh->peers[1].fd, header, sizeof header, NULL, 0, 1);
        while (rank->lost[1] == 0 && rank->left[1] == 0)
            usleep(1000);
    } else {
        mesh_round(rank, 1, 10 * S);
        keep_outcome(rank, begin);
    }
    mesh_rank_close(rank);
    if (mesh_count_fds() != before)
        rank->status = ZCTA_ERR_INVALID;
}

static void a_descriptor_that_was_not_announced_is_closed_and_its_sender_lost(void **state)
{
    struct mesh_rank ranks[2];
    pid_t pids[2];

    (void)state;
    start(ranks, 2, stowaway_body, pids);
    assert_int_equal(mesh_wait_process(pids[0]), ZCTA_OK);
    assert_int_equal(mesh_wait_process(pids[1]), ZCTA_ERR_PEER);
    mesh_ranks_destroy(ranks, 2);
}

static void flood_body(struct mesh_rank *rank)
{
    const uint64_t begin = zc_now_ns();
    const uint32_t order[2] = {0, 1};
    struct zc_exchange exchange = {
        .ranks = order, .count = 2, .fd = -1, .call = "test", .what = "did not come"};

    if (!mesh_rank_open(rank))
        return;
    if (rank->rank == 0)
        for (exchange.tag = 100; rank->lost[1] == 0 && exchange.tag < 1000000; exchange.tag++)
            (void)zc_mesh_exchange(rank->mesh, &exchange);
    else
        while (rank->lost[0] == 0)
            usleep(1000);
    if (rank->rank == 1)
        mesh_round(rank, 1, 10 * S);
    keep_outcome(rank, begin);
    mesh_rank_close(rank);
}

static void a_peer_that_floods_the_mailbox_is_lost(void **state)
{
    struct mesh_rank ranks[2];
    pid_t pids[2];

    (void)state;
    start(ranks, 2, flood_body, pids);
    mesh_wait_process(pids[0]);
    assert_int_equal(mesh_wait_process(pids[1]), ZCTA_ERR_PEER);
    assert_non_null(strstr(outcomes[1].error.message, "more messages than anybody took"));
    mesh_ranks_destroy(ranks, 2);
}

/* Rank 1 has no descriptor free when one is sent to it. */
static void exhausted_body(struct mesh_rank *rank)
{
    const uint64_t begin = zc_now_ns();
    const uint32_t order[2] = {0, 1};
    int fds[2];
    const struct zc_exchange exchange = {.ranks = order,
                                         .count = 2,
                                         .tag = 3,
                                         .fd = rank->rank == 0 ? 1 : -1,
                                         .fds = fds,
                                         .deadline = zc_deadline_in(10 * S),
                                         .call = "test",
                                         .what = "did not come"};
    zcta_status status;

    if (!mesh_rank_open(rank))
        return;
    if (rank->rank == 1) {
        const struct rlimit none = {.rlim_cur = 3, .rlim_max = 3};

        setrlimit(RLIMIT_NOFILE, &none);
    }
    mesh_round(rank, 1, 10 * S);
    status = zc_mesh_exchange(rank->mesh, &exchange);
    if (status != ZCTA_OK)
        mesh_rank_failed(rank, status);
    keep_outcome(rank, begin);
    mesh_rank_close(rank);
}

static void a_lost_descriptor_is_an_error_that_says_what_to_raise(void **state)
{
    struct mesh_rank ranks[2];
    pid_t pids[2];

    (void)state;
    start(ranks, 2, exhausted_body, pids);
    assert_int_equal(mesh_wait_process(pids[0]), ZCTA_OK);
    assert_int_equal(mesh_wait_process(pids[1]), ZCTA_ERR_SYSTEM);
    assert_non_null(strstr(outcomes[1].error.message, "ulimit -n"));
    mesh_ranks_destroy(ranks, 2);
}

/* Each limit from "nothing at all" to "nearly enough": an error with the advice, never a hang, and
 * nothing left open. */
static void limited_body(struct mesh_rank *rank)
{
    const uint64_t begin = zc_now_ns();
    const int before = mesh_count_fds();

    if (rank->rank == 0) {
        /* What is open counts as well: mesh_count_fds() itself sees ".", ".." and its own. */
        const rlim_t limit = (rlim_t)(before - 3) + (rlim_t)(uintptr_t)rank->shared;
        const struct rlimit few = {.rlim_cur = limit, .rlim_max = 4096};

        setrlimit(RLIMIT_NOFILE, &few);
    }
    if (mesh_rank_open(rank))
        mesh_round(rank, 1, 10 * S);
    mesh_rank_close(rank);
    if (rank->rank == 0) {
        const struct rlimit many = {.rlim_cur = 4096, .rlim_max = 4096};

        setrlimit(RLIMIT_NOFILE, &many);
    }
    keep_outcome(rank, begin);
    outcomes[rank->rank].lost = (uint32_t)(mesh_count_fds() - before);
}

static void set_up_with_too_few_descriptors_fails_with_the_advice(void **state)
{
    struct mesh_rank ranks[4];
    pid_t pids[4];
    char root[32];
    int failed = 0;

    (void)state;
    for (uintptr_t spare = 0; spare < 12; spare++) {
        memset(outcomes, 0, MESH_RANKS * sizeof *outcomes);
        mesh_free_root(root);
        mesh_ranks(ranks, 4, root, "secret");
        for (int i = 0; i < 4; i++) {
            ranks[i].shared = (void *)spare; // NOLINT: a small number, not a pointer
            ranks[i].timeout_ns = 60 * S;
        }
        mesh_start_processes(ranks, 4, limited_body, pids);
        for (int i = 0; i < 4; i++) {
            assert_int_not_equal(mesh_wait_process(pids[i]), -1);
            /* Where it could not even listen nobody heard of it. */
            for (int j = 1; i == 0 && outcomes[0].status != ZCTA_OK && j < 4; j++)
                kill(pids[j], SIGKILL);
            assert_int_equal(outcomes[i].lost, 0);
        }
        if (outcomes[0].status != ZCTA_OK && strcmp(outcomes[0].error.call, "zcta_init") == 0) {
            failed++;
            if (strstr(outcomes[0].error.message, "ulimit -n") == NULL)
                fail_msg("spare %u: %s", (unsigned)spare, outcomes[0].error.message);
        }
        mesh_ranks_destroy(ranks, 4);
    }
    assert_in_range(failed, 3, 11);
}

/* Rank 3 has what it needs to reach rank 0, and perhaps not what it needs to reach everybody. */
static void starved_body(struct mesh_rank *rank)
{
    const uint64_t begin = zc_now_ns();

    if (rank->rank == 3) {
        const rlim_t limit = (rlim_t)(mesh_count_fds() - 3) + (rlim_t)(uintptr_t)rank->shared;
        const struct rlimit few = {.rlim_cur = limit, .rlim_max = 4096};

        setrlimit(RLIMIT_NOFILE, &few);
    }
    (void)mesh_rank_open(rank);
    keep_outcome(rank, begin);
    mesh_rank_close(rank);
}

static void a_rank_that_fails_while_it_connects_tells_all_others_why(void **state)
{
    struct mesh_rank ranks[5];
    pid_t pids[5];
    char root[32];
    int seen = 0;

    (void)state;
    for (uintptr_t spare = 1; spare < 17; spare++) {
        memset(outcomes, 0, MESH_RANKS * sizeof *outcomes);
        mesh_free_root(root);
        mesh_ranks(ranks, 5, root, "secret");
        for (int i = 0; i < 5; i++) {
            ranks[i].shared = (void *)spare; // NOLINT: a small number, not a pointer
            ranks[i].timeout_ns = 60 * S;
        }
        mesh_start_processes(ranks, 5, starved_body, pids);
        for (int i = 0; i < 5; i++)
            assert_int_not_equal(mesh_wait_process(pids[i]), -1);
        mesh_ranks_destroy(ranks, 5);
        if (strstr(outcomes[3].error.message, "rank 3 cannot open ") == NULL &&
            strstr(outcomes[3].error.message, "rank 3 needs ") == NULL)
            continue; /* it could, and what may be short behind that is another matter */
        seen += strstr(outcomes[3].error.message, "open files at once to join 5 ranks") != NULL;
        for (int i = 0; i < 5; i++) {
            assert_string_equal(outcomes[i].error.message, outcomes[3].error.message);
            assert_int_equal(outcomes[i].error.rank, 3);
            assert_int_equal(outcomes[i].status, ZCTA_ERR_SYSTEM);
            assert_true(outcomes[i].ns < 20 * S);
        }
    }
    assert_true(seen > 0);
}

static void other_user_body(struct mesh_rank *rank)
{
    const uint64_t begin = zc_now_ns();

    if (rank->rank == 3 && seteuid(65534) != 0)
        abort();
    (void)mesh_rank_open(rank);
    keep_outcome(rank, begin);
    mesh_rank_close(rank);
}

static void a_rank_of_another_user_ends_the_start_for_all_at_once(void **state)
{
    struct mesh_rank ranks[4];
    pid_t pids[4];
    static char root[32];

    (void)state;
    if (geteuid() != 0)
        skip();
    memset(outcomes, 0, MESH_RANKS * sizeof *outcomes);
    mesh_free_root(root);
    mesh_ranks(ranks, 4, root, "secret");
    for (int i = 0; i < 4; i++)
        ranks[i].timeout_ns = 60 * S;
    mesh_start_processes(ranks, 4, other_user_body, pids);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(mesh_wait_process(pids[i]), ZCTA_ERR_RENDEZVOUS);
        assert_non_null(
            strstr(outcomes[i].error.message, "rank 3 runs as user 65534, and rank 0 as user 0"));
        assert_true(outcomes[i].ns < 20 * S);
    }
    mesh_ranks_destroy(ranks, 4);
}

/* An exchange among processes, in shared memory; rank 3 ends in it after all have what it gave. */
struct shared_exchange {
    pthread_barrier_t barrier;
    uint8_t bytes[4][256];
};

static int exchange_and_die(void *data, const void *mine, void *all, size_t bytes)
{
    const struct mesh_rank *rank = data;
    struct shared_exchange *shared = rank->shared;

    memcpy(shared->bytes[rank->rank], mine, bytes);
    pthread_barrier_wait(&shared->barrier);
    for (uint32_t i = 0; i < 4; i++)
        memcpy((uint8_t *)all + i * bytes, shared->bytes[i], bytes);
    if (rank->rank == 3)
        _exit(0);
    return 0;
}

static void exchange_body(struct mesh_rank *rank)
{
    const uint64_t begin = zc_now_ns();

    (void)mesh_rank_open(rank);
    keep_outcome(rank, begin);
    mesh_rank_close(rank);
}

static void a_rank_that_ends_behind_the_callers_exchange_is_named_at_once(void **state)
{
    struct shared_exchange *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_barrierattr_t attributes;
    struct mesh_rank ranks[4];
    pid_t pids[4];

    (void)state;
    assert_true(shared != MAP_FAILED);
    pthread_barrierattr_init(&attributes);
    pthread_barrierattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_barrier_init(&shared->barrier, &attributes, 4);
    memset(outcomes, 0, MESH_RANKS * sizeof *outcomes);
    mesh_ranks(ranks, 4, NULL, NULL);
    for (int i = 0; i < 4; i++) {
        ranks[i].exchange = exchange_and_die;
        ranks[i].exchange_data = &ranks[i];
        ranks[i].shared = shared;
        ranks[i].timeout_ns = 60 * S;
    }
    mesh_start_processes(ranks, 4, exchange_body, pids);
    mesh_wait_process(pids[3]);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(mesh_wait_process(pids[i]), ZCTA_ERR_RENDEZVOUS);
        assert_non_null(
            strstr(outcomes[i].error.message, "failed or ended before all ranks were connected"));
        assert_true(outcomes[i].ns < 20 * S);
    }
    mesh_ranks_destroy(ranks, 4);
    munmap(shared, sizeof *shared);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_rank_is_named_at_once),
        cmocka_unit_test(a_stopped_rank_is_named_at_the_deadline),
        cmocka_unit_test(a_peer_that_does_not_read_costs_no_more_than_the_deadline),
        cmocka_unit_test(a_farewell_is_told_from_a_death),
        cmocka_unit_test(what_a_rank_sent_before_it_died_is_delivered_first),
        cmocka_unit_test(packets_of_a_peer_that_ended_with_unread_ones_are_still_read),
        cmocka_unit_test(a_peer_that_sends_garbage_is_lost),
        cmocka_unit_test(a_descriptor_that_was_not_announced_is_closed_and_its_sender_lost),
        cmocka_unit_test(a_peer_that_floods_the_mailbox_is_lost),
        cmocka_unit_test(a_lost_descriptor_is_an_error_that_says_what_to_raise),
        cmocka_unit_test(set_up_with_too_few_descriptors_fails_with_the_advice),
        cmocka_unit_test(a_rank_that_fails_while_it_connects_tells_all_others_why),
        cmocka_unit_test(a_rank_of_another_user_ends_the_start_for_all_at_once),
        cmocka_unit_test(a_rank_that_ends_behind_the_callers_exchange_is_named_at_once),
    };

    return cmocka_run_group_tests(tests, set_up, NULL);
}
