/* Ranks of one job on several hosts: TCP between those, Unix sockets within each. The hosts are
 * told apart by number here; tests/command/test_machines.sh has network namespaces. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "support_mesh.h"

/* Rank r is on host r % hosts, so that neighbours are apart. */
static void spread(struct mesh_rank *ranks, uint32_t count, uint32_t hosts, const char *root)
{
    mesh_ranks(ranks, count, root, "secret");
    for (uint32_t i = 0; i < count; i++)
        ranks[i].node = 1 + i % hosts;
}

static void assert_all_ok(const struct mesh_rank *ranks, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (ranks[i].status != ZCTA_OK)
            print_message("rank %u: %s\n", i, ranks[i].error.message);
        assert_int_equal(ranks[i].status, ZCTA_OK);
    }
}

/* Ranks that all end well. */
static void run_well(uint32_t count, uint32_t hosts, mesh_body *body)
{
    struct mesh_rank ranks[MESH_RANKS];
    char root[32];

    mesh_free_root(root);
    spread(ranks, count, hosts, root);
    for (uint32_t i = 0; i < count; i++)
        ranks[i].shared = &hosts;
    mesh_run_threads(ranks, count, body);
    assert_all_ok(ranks, count);
    mesh_ranks_destroy(ranks, count);
}

static void rounds_body(struct mesh_rank *rank)
{
    const uint32_t hosts = *(const uint32_t *)rank->shared;

    if (!mesh_rank_open(rank))
        return;
    for (uint32_t i = 0; i < rank->count; i++)
        if (zc_mesh_host(rank->mesh, i) != i % hosts || zc_mesh_pid(rank->mesh, i) != getpid() ||
            zc_mesh_same_process(rank->mesh, i) != (i % hosts == rank->rank % hosts))
            rank->status = ZCTA_ERR_MISMATCH;
    for (uint64_t tag = 0; tag < 200 && rank->status == ZCTA_OK; tag++)
        mesh_round(rank, tag, 10 * S);
    mesh_rank_close(rank);
}

static void everybody_meets_everybody_whatever_the_host(void **state)
{
    static const uint32_t cases[][2] = {{2, 2}, {4, 2}, {8, 4}, {9, 3}, {12, 5}};
    const int before = mesh_count_fds();

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        run_well(cases[i][0], cases[i][1], rounds_body);
    assert_int_equal(mesh_count_fds(), before);
}

/* The largest messages, in both directions at once, in many rounds at once: TCP takes them in
 * pieces. Descriptors come from one's own host only. */
static void large_body(struct mesh_rank *rank)
{
    uint32_t list[MESH_RANKS];
    unsigned char *mine = malloc(ZC_MAX_MESSAGE), *all = malloc(ZC_MAX_MESSAGE * MESH_RANKS);
    int fds[MESH_RANKS], pipe_fds[2] = {-1, -1};

    if (mine == NULL || all == NULL || pipe(pipe_fds) != 0 || !mesh_rank_open(rank))
        abort();
    for (uint32_t i = 0; i < rank->count; i++)
        list[i] = i;
    for (uint64_t tag = 1; tag <= 40 && rank->status == ZCTA_OK; tag++) {
        const struct zc_exchange exchange = {.ranks = list,
                                             .count = rank->count,
                                             .tag = tag,
                                             .mine = mine,
                                             .all = all,
                                             .bytes = ZC_MAX_MESSAGE,
                                             .fd = pipe_fds[0],
                                             .fds = fds,
                                             .deadline = zc_deadline_in(20 * S),
                                             .call = "test",
                                             .what = "did not come"};

        memset(mine, (int)(tag * 16 + rank->rank), ZC_MAX_MESSAGE);
        if (zc_mesh_exchange(rank->mesh, &exchange) != ZCTA_OK) {
            mesh_rank_failed(rank, ZCTA_ERR_PEER);
            break;
        }
        for (uint32_t i = 0; i < rank->count; i++) {
            memset(mine, (int)(tag * 16 + i), ZC_MAX_MESSAGE);
            if (memcmp(all + (size_t)i * ZC_MAX_MESSAGE, mine, ZC_MAX_MESSAGE) != 0 ||
                (fds[i] >= 0) != (i != rank->rank && i % 2 == rank->rank % 2))
                rank->status = ZCTA_ERR_MISMATCH;
            if (fds[i] >= 0)
                close(fds[i]);
        }
    }
    mesh_rank_close(rank);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    free(mine);
    free(all);
}

static void the_largest_messages_come_whole_and_descriptors_stay_on_their_host(void **state)
{
    (void)state;
    run_well(4, 2, large_body);
}

/* ---- What goes wrong ---- */

static void victim_body(struct mesh_rank *rank)
{
    if (!mesh_rank_open(rank) || mesh_round(rank, 1, 10 * S) != ZCTA_OK)
        return;
    if (rank->rank == 3)
        raise(SIGKILL);
    if (mesh_round(rank, 2, 10 * S) != ZCTA_ERR_PEER || rank->error.rank != 3)
        rank->status = ZCTA_ERR_MISMATCH;
    else
        rank->status = ZCTA_OK;
    mesh_rank_close(rank);
}

static void a_killed_rank_is_named_at_once_on_every_host(void **state)
{
    const uint64_t start = zc_now_ns();
    struct mesh_rank ranks[4];
    pid_t pids[4];
    char root[32];

    (void)state;
    mesh_free_root(root);
    spread(ranks, 4, 2, root);
    mesh_start_processes(ranks, 4, victim_body, pids);
    for (int i = 0; i < 3; i++)
        assert_int_equal(mesh_wait_process(pids[i]), ZCTA_OK);
    assert_int_equal(mesh_wait_process(pids[3]), 256 + SIGKILL);
    assert_true(zc_now_ns() - start < 8 * S);
    mesh_ranks_destroy(ranks, 4);
}

static void leaver_body(struct mesh_rank *rank)
{
    if (!mesh_rank_open(rank) || mesh_round(rank, 1, 10 * S) != ZCTA_OK)
        return;
    for (uint32_t wait = 0; rank->rank == 1 && wait < 500 && rank->left[0] == 0; wait++)
        usleep(10000);
    if (rank->rank == 1 && (rank->left[0] != 1 || rank->lost[0] != 0))
        rank->status = ZCTA_ERR_MISMATCH;
    mesh_rank_close(rank);
}

static void a_farewell_is_no_loss(void **state)
{
    (void)state;
    run_well(2, 2, leaver_body);
}

static void open_body(struct mesh_rank *rank)
{
    if (mesh_rank_open(rank))
        mesh_rank_close(rank);
}

/* One says a host's number, the other does not know that it needs a port. */
static void a_rank_without_a_port_is_told_what_to_set(void **state)
{
    struct mesh_rank ranks[2];
    char root[32];

    (void)state;
    mesh_free_root(root);
    spread(ranks, 2, 2, root);
    ranks[1].node = 0;
    mesh_run_threads(ranks, 2, open_body);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(ranks[i].status, ZCTA_ERR_RENDEZVOUS);
        assert_non_null(strstr(ranks[i].error.message, "ZEROCTA_REMOTE=1"));
        assert_string_equal(ranks[i].error.message, ranks[0].error.message);
    }
    mesh_ranks_destroy(ranks, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everybody_meets_everybody_whatever_the_host),
        cmocka_unit_test(the_largest_messages_come_whole_and_descriptors_stay_on_their_host),
        cmocka_unit_test(a_killed_rank_is_named_at_once_on_every_host),
        cmocka_unit_test(a_farewell_is_no_loss),
        cmocka_unit_test(a_rank_without_a_port_is_told_what_to_set),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
