/* What is wrong with a call is told, before anything runs: to the caller, and under check to all
 * ranks, who says what. Afterwards the team goes on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support_ranks.h"

enum { ROOM = 4096, RANKS = 3 };

struct fixture {
    zcta_context *context;
    zcta_team *team;
    zcta_window *window;
    unsigned char *recv;
    unsigned char send[ROOM];
    uint32_t rank;
};

static void open_fixture(struct fixture *f, zcta_context *context)
{
    *f = (struct fixture){.context = context, .team = zcta_world(context)};
    EXPECT_OK(context, zcta_window_alloc(f->team, ROOM, &f->window));
    f->recv = zcta_window_base(f->window);
    f->rank = zcta_team_rank(f->team);
}

static zcta_call call_of(struct fixture *f, zcta_collective collective, size_t bytes)
{
    return (zcta_call){.size = sizeof(zcta_call),
                       .collective = collective,
                       .send = f->send,
                       .recv = f->recv,
                       .bytes = bytes};
}

/* The team still works. */
static void close_fixture(struct fixture *f)
{
    EXPECT_OK(f->context, zcta_broadcast(f->team, f->send, f->recv, 64, 1, NULL, NULL));
    EXPECT(zcta_team_status(f->team) == ZCTA_OK);
    EXPECT_OK(f->context, zcta_window_free(&f->window));
}

static void refuse(struct fixture *f, const zcta_call *call, zcta_status status, const char *why)
{
    zcta_report report = {.size = sizeof report};
    zcta_plan *plan = NULL;

    expect_error(f->context, zcta_run(f->team, call, NULL), status, why);
    expect_error(f->context, zcta_plan_make(f->team, call, &plan), status, why);
    expect_error(f->context, zcta_explain(f->team, call, &report), status, why);
    EXPECT(plan == NULL);
}

/* ---- What one rank can see ---- */

static void bad_roots(struct fixture *f)
{
    static const zcta_collective rooted[] = {ZCTA_BROADCAST, ZCTA_GATHER, ZCTA_SCATTER};

    for (size_t i = 0; i < sizeof rooted / sizeof *rooted; i++) {
        zcta_call call = call_of(f, rooted[i], 16);

        call.root = RANKS;
        refuse(f, &call, ZCTA_ERR_INVALID, "root is no rank");
        call.root = ZCTA_NO_RANK;
        refuse(f, &call, ZCTA_ERR_INVALID, "root is no rank");
    }
}

static void bad_counts(struct fixture *f)
{
    size_t counts[RANKS] = {16, 16, 16}, offsets[RANKS] = {0, 16, 32};
    zcta_call call = call_of(f, ZCTA_ALL_GATHER_V, 0);

    refuse(f, &call, ZCTA_ERR_INVALID, "recv_bytes is NULL");
    call.collective = ZCTA_SCATTER_V;
    refuse(f, &call, ZCTA_ERR_INVALID, "send_bytes is NULL");
    call.collective = ZCTA_ALL_GATHER_V;
    call.recv_bytes = (size_t[]){f->rank == 0 ? 0 : 8, 8, 8};
    call.send = f->rank == 0 ? NULL : f->send;
    if (f->rank == 0)
        refuse(f, &call, ZCTA_ERR_INVALID, "says so by send all the same");
    call.send = f->send;
    call.recv_bytes = counts;
    call.recv_offsets = offsets;
    counts[1] = SIZE_MAX - 3;
    refuse(f, &call, ZCTA_ERR_INVALID, "63 bits");
    counts[1] = 16;
    offsets[2] = SIZE_MAX / 2 - 8;
    refuse(f, &call, ZCTA_ERR_INVALID, "63 bits");
    offsets[2] = 31;
    refuse(f, &call, ZCTA_ERR_INVALID, "overlap in an output");
    offsets[2] = ROOM;
    refuse(f, &call, ZCTA_ERR_NOT_IN_WINDOW, "past the end");
    call = call_of(f, ZCTA_ALL_TO_ALL, SIZE_MAX / 4);
    refuse(f, &call, ZCTA_ERR_INVALID, "63 bits");
    call = call_of(f, ZCTA_GATHER, ROOM / RANKS + 1);
    refuse(f, &call, ZCTA_ERR_NOT_IN_WINDOW, "past the end");
}

static void bad_matrix(struct fixture *f)
{
    size_t sends[RANKS * RANKS] = {0}, receives[RANKS * RANKS] = {0};
    zcta_call call = call_of(f, ZCTA_ALL_TO_ALL_V, 0);

    call.matrix = 1;
    refuse(f, &call, ZCTA_ERR_INVALID, "send_bytes is NULL");
    call.recv_bytes = receives;
    refuse(f, &call, ZCTA_ERR_INVALID, "send_bytes is NULL");
    call.send_bytes = sends;
    sends[0 * RANKS + 2] = 8;
    receives[2 * RANKS + 0] = 9;
    refuse(f, &call, ZCTA_ERR_INVALID, "rank 0 sends 8 bytes to rank 2, which expects 9");
}

static void bad_partners(struct fixture *f)
{
    zcta_call call = call_of(f, ZCTA_SEND_RECV, 16);

    call.to = RANKS;
    call.from = ZCTA_NO_RANK;
    refuse(f, &call, ZCTA_ERR_INVALID, "no rank of the team");
    call.to = f->rank;
    refuse(f, &call, ZCTA_ERR_INVALID, "sends to itself");
    call.from = f->rank;
    call.from_bytes = 15;
    refuse(f, &call, ZCTA_ERR_INVALID, "sends to itself");
}

static void bad_places(struct fixture *f)
{
    zcta_call call = call_of(f, ZCTA_ALL_TO_ALL, 16);

    call.send = f->recv;
    refuse(f, &call, ZCTA_ERR_INVALID, "overlap");
    call.send = f->recv + 2 * 16;
    refuse(f, &call, ZCTA_ERR_INVALID, "overlap");
    call = call_of(f, ZCTA_ALL_GATHER, 16);
    call.send = f->recv + 16 * f->rank + 1;
    refuse(f, &call, ZCTA_ERR_INVALID, "overlap");
    call = call_of(f, ZCTA_SCATTER, 16);
    call.root = f->rank;
    call.send = f->recv;
    if (f->rank != 0)
        refuse(f, &call, ZCTA_ERR_INVALID, "overlap");
    call = call_of(f, ZCTA_BROADCAST, 16);
    call.recv = NULL;
    refuse(f, &call, ZCTA_ERR_INVALID, "recv is NULL");
    call.recv = f->recv;
    call.root = f->rank;
    call.send = NULL;
    refuse(f, &call, ZCTA_ERR_INVALID, "send is NULL");
    call.send = f->send;
    call.recv = f->send + ROOM / 2;
    refuse(f, &call, ZCTA_ERR_NOT_IN_WINDOW, "lies in no window");
}

/* In place a rank's own share is read from `recv`: what it gives to another is part of that share
 * or apart from it. Each rank is its own root, for none of these calls runs. */
static void bad_inputs(struct fixture *f)
{
    size_t bytes[RANKS] = {16, 16, 16}, offsets[RANKS] = {0};
    size_t *own_bytes = &bytes[f->rank], *own_offset = &offsets[f->rank];
    zcta_report report = {.size = sizeof report};
    zcta_call call = call_of(f, ZCTA_SCATTER_V, 0);
    const char *why = "overlap, but not so that scatter_v is in place";

    call.root = f->rank;
    call.send_bytes = bytes;
    call.send_offsets = offsets;
    *own_offset = 8; /* the others' shares end in it */
    EXPECT_OK(f->context, zcta_explain(f->team, &call, &report));
    call.send = f->recv;
    call.recv = f->recv + 8;
    refuse(f, &call, ZCTA_ERR_INVALID, why);
    *own_bytes = 8; /* it is the end of theirs */
    refuse(f, &call, ZCTA_ERR_INVALID, why);
    *own_offset = 16; /* it lies behind them */
    call.recv = f->recv + 16;
    EXPECT_OK(f->context, zcta_explain(f->team, &call, &report));
    *own_offset = 0; /* they lie in it */
    *own_bytes = 32;
    call.recv = f->recv;
    EXPECT_OK(f->context, zcta_explain(f->team, &call, &report));
}

static void bad_descriptors(struct fixture *f)
{
    struct {
        zcta_call call;
        size_t newer[2];
    } large = {.call = call_of(f, ZCTA_ALL_GATHER, 16)};
    zcta_call call = call_of(f, (zcta_collective)0, 16);
    zcta_collective_info info = {.size = 0};
    zcta_report report = {.size = 0};

    refuse(f, &call, ZCTA_ERR_INVALID, "collective 0 does not exist");
    call.collective = (zcta_collective)4711;
    refuse(f, &call, ZCTA_ERR_INVALID, "collective 4711 does not exist");
    call = call_of(f, ZCTA_ALL_GATHER, 16);
    call.policy = (zcta_policy)17;
    refuse(f, &call, ZCTA_ERR_INVALID, "does not exist");
    call.policy = ZCTA_POLICY_UNSET;
    call.size = 0;
    refuse(f, &call, ZCTA_ERR_INVALID, "size field is 0");
    call.size = sizeof call - 1;
    refuse(f, &call, ZCTA_ERR_INVALID, "size field");
    large.call.size = sizeof large;
    large.newer[1] = 1;
    refuse(f, &large.call, ZCTA_ERR_INVALID, "does not know");
    expect_error(NULL, zcta_run(NULL, &call, NULL), ZCTA_ERR_INVALID, "team is NULL");
    expect_error(f->context, zcta_run(f->team, NULL, NULL), ZCTA_ERR_INVALID, "call is NULL");
    call = call_of(f, ZCTA_ALL_GATHER, 16);
    expect_error(f->context, zcta_explain(f->team, &call, &report), ZCTA_ERR_INVALID, "size field");
    expect_error(NULL, zcta_collective_find(ZCTA_GATHER, NULL, &info), ZCTA_ERR_INVALID, "size");
    info.size = sizeof info;
    expect_error(NULL, zcta_collective_find(0, "all_gathr", &info), ZCTA_ERR_INVALID, "all_gathr");
}

/* A descriptor from an older header, which had fewer fields, and one from a newer one, whose new
 * fields are zero, are as good as ours. */
static void other_descriptors(struct fixture *f)
{
    struct {
        zcta_call call;
        size_t newer[2];
    } large = {.call = call_of(f, ZCTA_ALL_GATHER, 16)};
    zcta_call small = call_of(f, ZCTA_ALL_GATHER, 16);

    small.size = offsetof(zcta_call, send_bytes);
    EXPECT_OK(f->context, zcta_run(f->team, &small, NULL));
    large.call.size = sizeof large;
    EXPECT_OK(f->context, zcta_run(f->team, &large.call, NULL));
}

static void alone(zcta_context *context, void *data)
{
    struct fixture f;

    (void)data;
    open_fixture(&f, context);
    bad_roots(&f);
    bad_counts(&f);
    bad_matrix(&f);
    bad_partners(&f);
    bad_places(&f);
    bad_inputs(&f);
    bad_descriptors(&f);
    other_descriptors(&f);
    close_fixture(&f);
}

static void the_caller_is_told(void **state)
{
    (void)state;
    run_as_threads(RANKS, alone, NULL);
}

/* ---- What only the comparison shows ---- */

static void run_differing(struct fixture *f, const zcta_call *call, const char *why)
{
    expect_error(f->context, zcta_run(f->team, call, NULL), ZCTA_ERR_MISMATCH, why);
}

static void differing(zcta_context *context, void *data)
{
    size_t counts[RANKS] = {16, 16, 16}, offsets[RANKS] = {0, 16, 32};
    struct fixture f;
    zcta_call call;

    (void)data;
    open_fixture(&f, context);
    call = call_of(&f, ZCTA_GATHER, 16);
    call.root = f.rank == 2 ? 1 : 0;
    run_differing(&f, &call, "do not agree on the root: rank 2 says 1, rank 0 says 0");
    call.root = 0;
    call.bytes = f.rank == 1 ? 32 : 16;
    run_differing(&f, &call, "rank 1 says 32");
    call = call_of(&f, f.rank == 0 ? ZCTA_BROADCAST : ZCTA_SCATTER, 16);
    run_differing(&f, &call, "rank 0 says broadcast");
    call = call_of(&f, ZCTA_ALL_GATHER_V, 0);
    call.recv_bytes = counts;
    call.recv_offsets = offsets;
    counts[0] -= f.rank == 2;
    run_differing(&f, &call, "counts and offsets (their digest): rank 2");
    counts[0] = 16;
    offsets[2] += f.rank == 1;
    run_differing(&f, &call, "counts and offsets (their digest): rank 1");
    offsets[2] = 32;
    EXPECT_OK(context, zcta_run(f.team, &call, NULL));
    close_fixture(&f);
}

static void partners_differ(zcta_context *context, void *data)
{
    struct fixture f;
    zcta_call call;

    (void)data;
    open_fixture(&f, context);
    call = call_of(&f, ZCTA_SEND_RECV, 16);
    call.to = (f.rank + 1) % RANKS;
    call.from = (f.rank + 2) % RANKS;
    call.from_bytes = f.rank == 2 ? 15 : 16;
    run_differing(&f, &call, "rank 1 sends 16 bytes to rank 2, which receives 15");
    call.from_bytes = 16;
    call.to = f.rank == 1 ? 0 : call.to;
    run_differing(&f, &call, "rank 1 sends 16 bytes to rank 0, which receives 0");
    call.to = f.rank == 1 ? ZCTA_NO_RANK : call.to;
    run_differing(&f, &call, "rank 1 sends 0 bytes to rank 2, which receives 16");
    call.to = (f.rank + 1) % RANKS;
    call.bytes = f.rank == 1 ? 0 : 16;
    run_differing(&f, &call, "rank 1 sends 0 bytes to rank 2, which receives 16");
    call.bytes = 16;
    EXPECT_OK(context, zcta_run(f.team, &call, NULL));
    /* Who has nothing to do need not name the others' window. */
    call.to = call.from = f.rank == 2 ? ZCTA_NO_RANK : 1 - f.rank;
    call.recv = f.rank == 2 ? NULL : f.recv;
    EXPECT_OK(context, zcta_run(f.team, &call, NULL));
    close_fixture(&f);
}

/* Rows are exchanged in a round of their own, which nobody must wait for in vain, nor take for
 * another one. */
static void only_some_give_rows(zcta_context *context, void *data)
{
    size_t sends[RANKS] = {8, 8, 8}, receives[RANKS] = {8, 8, 8};
    struct fixture f;
    zcta_call rows, other;

    (void)data;
    open_fixture(&f, context);
    rows = call_of(&f, ZCTA_ALL_TO_ALL_V, 0);
    rows.send_bytes = sends;
    rows.recv_bytes = receives;
    other = call_of(&f, ZCTA_ALL_TO_ALL, 8);
    run_differing(&f, f.rank == 0 ? &rows : &other, "rank 0 says all_to_all_v");
    EXPECT_OK(context, zcta_run(f.team, &rows, NULL));
    other = rows;
    other.policy = (zcta_policy)17;
    expect_error(context, zcta_run(f.team, f.rank == 1 ? &other : &rows, NULL),
                 f.rank == 1 ? ZCTA_ERR_INVALID : ZCTA_ERR_MISMATCH,
                 f.rank == 1 ? "does not exist" : "rank 1 refused its arguments");
    EXPECT_OK(context, zcta_run(f.team, &rows, NULL));
    expect_error(context, zcta_run(f.team, f.rank == 2 ? NULL : &rows, NULL),
                 f.rank == 2 ? ZCTA_ERR_INVALID : ZCTA_ERR_MISMATCH,
                 f.rank == 2 ? "call is NULL" : "rank 2 refused its arguments");
    EXPECT_OK(context, zcta_run(f.team, &rows, NULL));
    close_fixture(&f);
}

static void rows_differ(zcta_context *context, void *data)
{
    size_t sends[RANKS] = {8, 8, 8}, receives[RANKS] = {8, 8, 8};
    struct fixture f;
    zcta_call call;

    (void)data;
    open_fixture(&f, context);
    call = call_of(&f, ZCTA_ALL_TO_ALL_V, 0);
    call.send_bytes = sends;
    call.recv_bytes = receives;
    receives[0] += f.rank == 1;
    run_differing(&f, &call, "rank 0 sends 8 bytes to rank 1, which expects 9");
    receives[0] = 8;
    if (f.rank == 2)
        call.recv_bytes = NULL;
    expect_error(f.context, zcta_run(f.team, &call, NULL),
                 f.rank == 2 ? ZCTA_ERR_INVALID : ZCTA_ERR_MISMATCH,
                 f.rank == 2 ? "recv_bytes is NULL" : "rank 2 refused its arguments");
    call.recv_bytes = receives;
    EXPECT_OK(context, zcta_run(f.team, &call, NULL));
    close_fixture(&f);
}

static void all_are_told_who_differs(void **state)
{
    const struct ranks_options options = {.check = 1};

    (void)state;
    run_as_threads_with(RANKS, &options, differing, NULL);
    run_as_threads_with(RANKS, &options, partners_differ, NULL);
    run_as_threads_with(RANKS, &options, rows_differ, NULL);
    run_as_threads_with(RANKS, &options, only_some_give_rows, NULL);
}

/* Rows are compared whether there is a check or not, as the ranks meet for them anyway. */
static void rows_are_always_compared(void **state)
{
    (void)state;
    run_as_threads(RANKS, rows_differ, NULL);
}

static void another_root(zcta_context *context, void *data)
{
    const zcta_team_params params = {.size = sizeof params, .name = "odd"};
    zcta_team *team = NULL;
    struct fixture f;
    zcta_status status;

    (void)data;
    open_fixture(&f, context);
    EXPECT_OK(context, zcta_team_split(f.team, 0, 0, &params, &team));
    /* Nobody fails the team while another rank is still on its way out of its making. */
    EXPECT_OK(context, zcta_barrier(f.team, NULL));
    status = zcta_broadcast(team, f.send, f.recv, 16, f.rank == 2, NULL, NULL);
    if (status == ZCTA_OK)
        status = await_failure(team);
    EXPECT(status == ZCTA_ERR_MISMATCH);
}

/* Without it the host notices while the call runs. */
static void the_host_notices(void **state)
{
    (void)state;
    run_as_threads(RANKS, another_root, NULL);
}

/* ---- Exchange ---- */

static void exchange(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context);
    const uint32_t rank = zcta_team_rank(world);
    uint32_t all[RANKS] = {0}, mine = 100 + rank;

    (void)data;
    for (uint32_t round = 0; round < 5; round++) {
        mine += round;
        EXPECT_OK(context, zcta_team_exchange(world, &mine, all, sizeof mine));
        for (uint32_t i = 0; i < RANKS; i++)
            EXPECT(all[i] == mine - rank + i);
    }
    expect_error(context, zcta_team_exchange(world, NULL, all, 4), ZCTA_ERR_INVALID,
                 "mine is NULL");
    expect_error(context, zcta_team_exchange(world, &mine, NULL, 4), ZCTA_ERR_INVALID,
                 "all is NULL");
    expect_error(context, zcta_team_exchange(world, &mine, all, ((size_t)1 << 20) + 1),
                 ZCTA_ERR_INVALID, "move data with a collective");
    expect_error(NULL, zcta_team_exchange(NULL, &mine, all, 4), ZCTA_ERR_INVALID, "team is NULL");
}

static void bytes_among_the_ranks(void **state)
{
    (void)state;
    run_as_threads(RANKS, exchange, NULL);
    run_as_processes(RANKS, exchange, NULL);
}

/* `data` counts the ranks that have come. */
static void exchange_nothing(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context);
    unsigned char outside = 7;
    atomic_uint *come = data;

    if (zcta_team_rank(world) == 1)
        sleep_ms(50);
    atomic_fetch_add(come, 1);
    EXPECT_OK(context, zcta_team_exchange(world, NULL, NULL, 0));
    EXPECT(atomic_load(come) == RANKS);
    EXPECT_OK(context, zcta_team_exchange(world, &outside, &outside, 0));
    EXPECT(outside == 7);
    expect_error(NULL, zcta_team_exchange(NULL, NULL, NULL, 0), ZCTA_ERR_INVALID, "team is NULL");
}

static void ranks_without_bytes_meet_all_the_same(void **state)
{
    atomic_uint come = 0;

    (void)state;
    run_as_threads(RANKS, exchange_nothing, &come);
}

/* Rank 2 gives nothing, and then rank 2 alone something. All are told, none gets anything, and they
 * go on. */
static void exchange_unlike(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context);
    const uint32_t rank = zcta_team_rank(world);
    uint32_t all[RANKS] = {7, 7, 7}, mine = 100 + rank;

    (void)data;
    expect_error(context,
                 zcta_team_exchange(world, rank == 2 ? NULL : &mine, rank == 2 ? NULL : all,
                                    rank == 2 ? 0 : sizeof mine),
                 ZCTA_ERR_MISMATCH,
                 rank == 2 ? " sent 4 bytes where rank 2 sent 0"
                           : "rank 2 sent 0 bytes where rank");
    expect_error(context, zcta_team_exchange(world, &mine, all, rank == 2 ? sizeof mine : 0),
                 ZCTA_ERR_MISMATCH,
                 rank == 2 ? " sent 0 bytes where rank 2 sent 4"
                           : "rank 2 sent 4 bytes where rank");
    for (uint32_t i = 0; i < RANKS; i++)
        EXPECT(all[i] == 7);
    EXPECT_OK(context, zcta_team_exchange(world, &mine, all, sizeof mine));
    for (uint32_t i = 0; i < RANKS; i++)
        EXPECT(all[i] == 100 + i);
}

static void no_bytes_against_some_are_a_mismatch(void **state)
{
    (void)state;
    run_as_threads(RANKS, exchange_unlike, NULL);
}

/* What is refused is refused at once: only one rank asks for it. */
static void exchange_most(zcta_context *context, void *data)
{
    enum { MOST = 64 << 10 };
    zcta_team *world = zcta_world(context);
    const uint32_t rank = zcta_team_rank(world);
    unsigned char *mine = malloc(MOST + 1), *all = malloc((size_t)RANKS * (MOST + 1));

    (void)data;
    EXPECT(mine != NULL && all != NULL);
    if (rank == 1)
        expect_error(context, zcta_team_exchange(world, mine, all, MOST + 1), ZCTA_ERR_INVALID,
                     "65537 bytes a rank are more than 65536");
    model_fill(mine, 0, rank, MOST);
    EXPECT_OK(context, zcta_team_exchange(world, mine, all, MOST));
    EXPECT(model_wrong(all, 0, RANKS, MOST) == 0);
    free(all);
    free(mine);
}

static void an_exchange_takes_64_kib_and_no_more(void **state)
{
    (void)state;
    run_as_threads(RANKS, exchange_most, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_caller_is_told),
        cmocka_unit_test(all_are_told_who_differs),
        cmocka_unit_test(rows_are_always_compared),
        cmocka_unit_test(the_host_notices),
        cmocka_unit_test(bytes_among_the_ranks),
        cmocka_unit_test(ranks_without_bytes_meet_all_the_same),
        cmocka_unit_test(no_bytes_against_some_are_a_mismatch),
        cmocka_unit_test(an_exchange_takes_64_kib_and_no_more),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
