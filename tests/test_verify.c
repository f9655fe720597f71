/* The verifier can fail: a correct plan is broken in each possible way, and each is caught. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support_plans.h"

enum { RANKS = 5, BYTES = 96 };

struct fixture {
    struct team_plans calls[3];
    char text[256];
};

static void setup(struct fixture *f, const struct zc_algorithm *algorithm, bool in_place)
{
    const bool release = algorithm == &zc_early_ready;
    const struct zc_layout layout = even_layout(usual_collective(algorithm), RANKS, BYTES, 0);
    struct zc_request request = usual_request(algorithm, &layout, in_place);

    memset(f, 0, sizeof *f);
    for (uint32_t i = 0; i < 3; i++) {
        request.half = i % 2;
        request.released = release && i == 1;
        if (release && i == 1) /* what is released, and then runs once more without */
            request.algorithm = &zc_direct_push;
        make_plans(&f->calls[i], request);
    }
    assert_int_equal(verify_calls(f->calls, 3, f->text, sizeof f->text), ZCTA_OK);
}

static void teardown(struct fixture *f)
{
    for (uint32_t i = 0; i < 3; i++)
        free_plans(&f->calls[i]);
}

/* The step of rank `rank` in the first call that is the `skip`-th of its kind. */
static uint32_t find_step(const struct fixture *f, uint32_t rank, enum zc_step_kind kind,
                          uint32_t skip)
{
    const struct zc_plan *plan = f->calls[0].plans[rank];

    for (uint32_t i = 0; i < plan->step_count; i++)
        if (plan->steps[i].kind == kind && skip-- == 0)
            return i;
    fail_msg("no such step");
    return 0;
}

static uint32_t find_channel(const struct fixture *f, uint32_t rank, enum zc_step_kind kind,
                             enum zc_channel channel)
{
    const struct zc_plan *plan = f->calls[0].plans[rank];

    for (uint32_t i = 0; i < plan->step_count; i++)
        if (plan->steps[i].kind == kind && plan->steps[i].channel == channel)
            return i;
    fail_msg("no such step");
    return 0;
}

static void drop(struct zc_plan *plan, uint32_t at)
{
    memmove(plan->steps + at, plan->steps + at + 1,
            (plan->step_count - at - 1) * sizeof *plan->steps);
    plan->step_count--;
}

static void move(struct zc_plan *plan, uint32_t from, uint32_t to)
{
    const struct zc_step step = plan->steps[from];

    if (from < to)
        memmove(plan->steps + from, plan->steps + from + 1, (to - from) * sizeof step);
    else
        memmove(plan->steps + to + 1, plan->steps + to, (from - to) * sizeof step);
    plan->steps[to] = step;
}

static void expect_caught(struct fixture *f, const char *what)
{
    assert_int_equal(verify_calls(f->calls, 3, f->text, sizeof f->text), ZCTA_ERR_INVALID);
    if (strstr(f->text, what) == NULL)
        fail_msg("expected a defect about \"%s\", got \"%s\"", what, f->text);
    teardown(f);
}

static void a_dropped_wait_for_ready_is_caught(void **state)
{
    struct fixture f;

    (void)state;
    setup(&f, &zc_direct_push, true);
    drop(f.calls[0].plans[2], find_channel(&f, 2, ZC_STEP_WAIT, ZC_CHANNEL_READY));
    expect_caught(&f, "");
}

static void a_dropped_ready_pair_is_a_touch_before_entering(void **state)
{
    struct fixture f;
    struct zc_plan *waiter, *signaller;
    uint32_t wait;

    (void)state;
    setup(&f, &zc_direct_push, true);
    waiter = f.calls[0].plans[2];
    wait = find_channel(&f, 2, ZC_STEP_WAIT, ZC_CHANNEL_READY);
    signaller = f.calls[0].plans[waiter->steps[wait].peer];
    for (uint32_t i = 0; i < signaller->step_count; i++)
        if (signaller->steps[i].kind == ZC_STEP_SIGNAL && signaller->steps[i].peer == 2 &&
            signaller->steps[i].channel == ZC_CHANNEL_READY) {
            drop(signaller, i);
            break;
        }
    drop(waiter, wait);
    expect_caught(&f, "before that rank has entered");
}

static void a_dropped_done_pair_is_a_touch_after_leaving(void **state)
{
    struct fixture f;
    struct zc_plan *waiter, *signaller;
    uint32_t wait;

    (void)state;
    setup(&f, &zc_direct_push, true);
    waiter = f.calls[2].plans[2];
    wait = find_channel(&f, 2, ZC_STEP_WAIT, ZC_CHANNEL_DONE);
    signaller = f.calls[2].plans[waiter->steps[wait].peer];
    for (uint32_t i = 0; i < signaller->step_count; i++)
        if (signaller->steps[i].kind == ZC_STEP_SIGNAL && signaller->steps[i].peer == 2 &&
            signaller->steps[i].channel == ZC_CHANNEL_DONE) {
            drop(signaller, i);
            break;
        }
    drop(waiter, wait);
    assert_int_equal(verify_calls(f.calls, 3, f.text, sizeof f.text), ZCTA_ERR_INVALID);
    assert_true(strstr(f.text, "after that rank left") != NULL ||
                strstr(f.text, "leaves without the right bytes") != NULL);
    teardown(&f);
}

static void a_dropped_signal_leaves_somebody_waiting_for_ever(void **state)
{
    struct fixture f;

    (void)state;
    setup(&f, &zc_direct_push, false);
    /* In the last call, because a later one would make up for it. */
    drop(f.calls[2].plans[1], find_channel(&f, 1, ZC_STEP_SIGNAL, ZC_CHANNEL_DONE));
    expect_caught(&f, "for ever");
}

static void a_signal_too_many_is_caught(void **state)
{
    struct fixture f;

    (void)state;
    setup(&f, &zc_direct_push, false);
    zc_plan_signal(f.calls[2].plans[1], 0, 3, ZC_CHANNEL_DONE);
    expect_caught(&f, "never waited for");
}

static void a_signal_before_its_copy_is_caught(void **state)
{
    struct fixture f;
    uint32_t copy;

    (void)state;
    setup(&f, &zc_direct_push, true);
    copy = find_step(&f, 3, ZC_STEP_COPY, 1);
    move(f.calls[0].plans[3], copy + 1, copy);
    expect_caught(&f, "");
}

static void a_post_after_its_signal_is_caught(void **state)
{
    struct fixture f;

    (void)state;
    setup(&f, &zc_scratch_pull, true);
    move(f.calls[0].plans[3], find_step(&f, 3, ZC_STEP_COPY, 0),
         find_step(&f, 3, ZC_STEP_SIGNAL, RANKS - 2));
    expect_caught(&f, "");
}

static void a_copy_before_its_wait_is_caught(void **state)
{
    struct fixture f;
    uint32_t wait;

    (void)state;
    setup(&f, &zc_scratch_pull, false);
    wait = find_step(&f, 0, ZC_STEP_WAIT, 0);
    move(f.calls[0].plans[0], wait + 1, wait);
    expect_caught(&f, "");
}

static void scratch_halves_that_do_not_alternate_are_a_race(void **state)
{
    const struct zc_layout layout = even_layout(&zc_all_gather, RANKS, BYTES, 0);
    struct zc_request request = usual_request(&zc_scratch_pull, &layout, true);
    struct fixture f = {0};

    (void)state;
    for (uint32_t i = 0; i < 3; i++)
        make_plans(&f.calls[i], request);
    expect_caught(&f, "in no order");
}

static void waiting_before_signalling_is_a_deadlock(void **state)
{
    struct fixture f;

    (void)state;
    setup(&f, &zc_direct_push, true);
    for (uint32_t rank = 0; rank < RANKS; rank++)
        move(f.calls[0].plans[rank], find_channel(&f, rank, ZC_STEP_WAIT, ZC_CHANNEL_READY), 0);
    expect_caught(&f, "for ever");
}

/* ---- Over several nodes ---- */

static void setup_nodes(struct fixture *f, bool in_place)
{
    const struct zc_layout layout = even_layout(&zc_all_gather, 6, BYTES, 0);
    struct zc_request request = usual_request(&zc_hierarchical, &layout, in_place);

    memset(f, 0, sizeof *f);
    request.node_ranks = 2;
    request.chunks = 2;
    for (uint32_t i = 0; i < 3; i++)
        make_plans(&f->calls[i], request);
}

static void sends_and_receives_that_go_wrong_are_caught(void **state)
{
    struct fixture f;
    struct zc_plan *plan;

    (void)state;
    setup_nodes(&f, true);
    assert_int_equal(verify_calls(f.calls, 3, f.text, sizeof f.text), ZCTA_OK);
    teardown(&f);
    /* One side is missing. */
    setup_nodes(&f, true);
    drop(f.calls[0].plans[4], find_step(&f, 4, ZC_STEP_NET_SEND, 1));
    expect_caught(&f, "");
    setup_nodes(&f, true);
    drop(f.calls[2].plans[4], find_step(&f, 4, ZC_STEP_NET_SEND, 3));
    expect_caught(&f, "receives from rank 4, which never sends it");
    setup_nodes(&f, true);
    drop(f.calls[2].plans[4], find_step(&f, 4, ZC_STEP_NET_RECV, 3));
    expect_caught(&f, "");
    /* One of another size, and one of another call. */
    setup_nodes(&f, true);
    f.calls[0].plans[4]->steps[find_step(&f, 4, ZC_STEP_NET_SEND, 1)].bytes -= 1;
    expect_caught(&f, "bytes from rank 4, which sends it");
    setup_nodes(&f, true);
    drop(f.calls[0].plans[4], find_step(&f, 4, ZC_STEP_NET_RECV, 3));
    drop(f.calls[0].plans[0], find_step(&f, 0, ZC_STEP_NET_RECV, 0));
    expect_caught(&f, "");
    /* Pushed before the rows are there. */
    setup_nodes(&f, true);
    plan = f.calls[0].plans[3];
    move(plan, find_step(&f, 3, ZC_STEP_FORK, 0), 0);
    move(plan, find_step(&f, 3, ZC_STEP_COPY, 0), 1);
    expect_caught(&f, "");
    /* A row too few. */
    setup_nodes(&f, true);
    f.calls[0].plans[3]->steps[find_step(&f, 3, ZC_STEP_COPY, 1)].rows -= 1;
    expect_caught(&f, "without the right bytes");
    /* Rows that lie elsewhere. */
    setup_nodes(&f, true);
    f.calls[0].plans[3]->steps[find_step(&f, 3, ZC_STEP_COPY, 1)].stride -= 1;
    expect_caught(&f, "");
    /* The own share is not yet in its row. */
    setup_nodes(&f, false);
    plan = f.calls[0].plans[5];
    move(plan, find_step(&f, 5, ZC_STEP_COPY, 0), find_step(&f, 5, ZC_STEP_NET_SEND, 0));
    expect_caught(&f, "");
}

/* ---- The network goes from rank to rank ---- */

/* Three nodes of two ranks. Ranks 0, 2 and 4 exchange rows, and ranks 1, 3 and 5. */
enum { NODE_RANKS = 2, NODES = 3, ROW = 8 };

static struct zc_step copy_step(struct zc_place from, struct zc_place to)
{
    return (struct zc_step){.kind = ZC_STEP_COPY, .from = from, .to = to, .bytes = ROW, .rows = 1};
}

static struct zc_step flag_step(enum zc_step_kind kind, uint32_t peer)
{
    return (struct zc_step){.kind = kind, .peer = peer, .channel = ZC_CHANNEL_DONE};
}

/* In the scratch window, a row a node; `hop` nodes further on, or back. */
static struct zc_step net_step(enum zc_step_kind kind, uint32_t rank, uint32_t hop)
{
    const uint32_t ranks = NODES * NODE_RANKS, away = hop * NODE_RANKS;
    const bool sends = kind == ZC_STEP_NET_SEND;
    const uint32_t peer = (rank + (sends ? away : ranks - away)) % ranks;
    const uint32_t row = (sends ? rank : peer) / NODE_RANKS;
    const struct zc_place place = zc_at(rank, ZC_SCRATCH, (uint64_t)row * ROW);

    return (struct zc_step){
        .kind = kind, .peer = peer, .from = place, .to = place, .bytes = ROW, .rows = 1};
}

#define EXCHANGE(rank)                                                                             \
    net_step(ZC_STEP_NET_SEND, rank, 1), net_step(ZC_STEP_NET_RECV, rank, 1),                      \
        net_step(ZC_STEP_NET_SEND, rank, 2), net_step(ZC_STEP_NET_RECV, rank, 2)

/* Puts steps in front of a plan's own. */
static void put_first(struct zc_plan *plan, const struct zc_step *steps, uint32_t count)
{
    struct zc_step *grown = realloc(plan->steps, (plan->step_count + count) * sizeof *plan->steps);

    assert_non_null(grown);
    memmove(grown + count, grown, plan->step_count * sizeof *grown);
    memcpy(grown, steps, count * sizeof *grown);
    plan->steps = grown;
    plan->step_count += count;
    plan->capacity = plan->step_count;
}

#define PUT_FIRST(plan, ...)                                                                       \
    put_first(plan, (const struct zc_step[]){__VA_ARGS__},                                         \
              sizeof((const struct zc_step[]){__VA_ARGS__}) / sizeof(struct zc_step))

static void setup_rows(struct fixture *f)
{
    const struct zc_layout layout = even_layout(&zc_all_gather, NODES * NODE_RANKS, ROW, 0);
    struct zc_request request = usual_request(&zc_hierarchical, &layout, false);

    memset(f, 0, sizeof *f);
    request.node_ranks = NODE_RANKS;
    request.scratch_bytes = 64;
    for (uint32_t i = 0; i < 3; i++)
        make_plans(&f->calls[i], request);
}

/* Rank 1 reads where rank 2's row comes into rank 0's memory, and exchanges its own only after
 * that. Rank 4 waits for rank 5, which that exchange lets go; but rank 2's row does not wait for
 * rank 4.
 */
static void a_row_that_comes_in_before_all_have_come_is_a_race(void **state)
{
    const struct zc_place theirs = zc_at(0, ZC_SCRATCH, ROW), mine = zc_at(1, ZC_SCRATCH, 32);
    struct fixture f = {0};
    struct zc_plan **plans = f.calls[0].plans;

    (void)state;
    setup_rows(&f);
    PUT_FIRST(plans[0], EXCHANGE(0));
    PUT_FIRST(plans[1], copy_step(theirs, mine), EXCHANGE(1));
    PUT_FIRST(plans[2], EXCHANGE(2));
    PUT_FIRST(plans[3], EXCHANGE(3));
    PUT_FIRST(plans[4], flag_step(ZC_STEP_WAIT, 5), EXCHANGE(4));
    PUT_FIRST(plans[5], EXCHANGE(5), flag_step(ZC_STEP_SIGNAL, 4));
    expect_caught(&f, "same bytes of rank 0 in no order");
    /* Told by rank 1, rank 0 comes when that has been read. */
    setup_rows(&f);
    PUT_FIRST(plans[0], flag_step(ZC_STEP_WAIT, 1), EXCHANGE(0));
    PUT_FIRST(plans[1], copy_step(theirs, mine), flag_step(ZC_STEP_SIGNAL, 0), EXCHANGE(1));
    for (uint32_t rank = 2; rank < NODES * NODE_RANKS; rank++)
        PUT_FIRST(plans[rank], EXCHANGE(rank));
    assert_int_equal(verify_calls(f.calls, 3, f.text, sizeof f.text), ZCTA_OK);
    teardown(&f);
}

/* Rank 1 hears, by way of ranks 2 and 3, that rank 0 has begun its group, but not that it has
 * ended: rank 0's row may still be on its way to rank 4. */
static void a_row_that_is_overwritten_while_it_is_sent_is_a_race(void **state)
{
    const struct zc_place mine = zc_at(1, ZC_SCRATCH, 32), theirs = zc_at(0, ZC_SCRATCH, 0);
    struct fixture f = {0};
    struct zc_plan **plans = f.calls[0].plans;

    (void)state;
    setup_rows(&f);
    PUT_FIRST(plans[0], EXCHANGE(0));
    PUT_FIRST(plans[1], EXCHANGE(1), copy_step(mine, theirs));
    PUT_FIRST(plans[2], EXCHANGE(2), flag_step(ZC_STEP_SIGNAL, 3));
    PUT_FIRST(plans[3], flag_step(ZC_STEP_WAIT, 2), EXCHANGE(3));
    PUT_FIRST(plans[4], EXCHANGE(4));
    PUT_FIRST(plans[5], EXCHANGE(5));
    expect_caught(&f, "same bytes of rank 0 in no order");
    /* Told by rank 0 that it has ended. */
    setup_rows(&f);
    PUT_FIRST(plans[0], EXCHANGE(0), flag_step(ZC_STEP_SIGNAL, 1));
    PUT_FIRST(plans[1], EXCHANGE(1), flag_step(ZC_STEP_WAIT, 0), copy_step(mine, theirs));
    for (uint32_t rank = 2; rank < NODES * NODE_RANKS; rank++)
        PUT_FIRST(plans[rank], EXCHANGE(rank));
    assert_int_equal(verify_calls(f.calls, 3, f.text, sizeof f.text), ZCTA_OK);
    teardown(&f);
}

/* What rank 1 tells behind its send to rank 3 is no word from rank 3. What rank 3 itself tells
 * behind its receive is. */
static void a_send_that_has_ended_tells_nothing_of_its_receiver(void **state)
{
    const struct zc_place row = zc_at(3, ZC_SCRATCH, 0), mine = zc_at(2, ZC_SCRATCH, 32);
    struct fixture f = {0};
    struct zc_plan **plans = f.calls[0].plans;

    (void)state;
    /* Rank 3 writes before it receives; rank 2 reads that, told by rank 1 by way of rank 0. */
    setup_rows(&f);
    PUT_FIRST(plans[1], net_step(ZC_STEP_NET_SEND, 1, 1), flag_step(ZC_STEP_SIGNAL, 0));
    PUT_FIRST(plans[3], copy_step(zc_at(3, ZC_SEND, 0), zc_at(3, ZC_SCRATCH, 32)),
              net_step(ZC_STEP_NET_RECV, 3, 1));
    PUT_FIRST(plans[0], flag_step(ZC_STEP_WAIT, 1), net_step(ZC_STEP_NET_SEND, 0, 1));
    PUT_FIRST(plans[2], net_step(ZC_STEP_NET_RECV, 2, 1),
              copy_step(zc_at(3, ZC_SCRATCH, 32), zc_at(2, ZC_SCRATCH, 40)));
    expect_caught(&f, "same bytes of rank 3 in no order");
    /* Rank 2 reads the row that rank 3 has received, told by rank 3. */
    setup_rows(&f);
    PUT_FIRST(plans[1], net_step(ZC_STEP_NET_SEND, 1, 1));
    PUT_FIRST(plans[3], net_step(ZC_STEP_NET_RECV, 3, 1), flag_step(ZC_STEP_SIGNAL, 2));
    PUT_FIRST(plans[2], flag_step(ZC_STEP_WAIT, 3), copy_step(row, mine));
    assert_int_equal(verify_calls(f.calls, 3, f.text, sizeof f.text), ZCTA_OK);
    teardown(&f);
}

/* Whoever receives before it sends waits for one who does the same; at once it is no matter. */
static void who_receives_first_waits_for_ever(void **state)
{
    const struct zc_step copies[] = {
        copy_step(zc_at(0, ZC_SEND, 0), zc_at(0, ZC_SCRATCH, 32)),
        copy_step(zc_at(2, ZC_SEND, 0), zc_at(2, ZC_SCRATCH, 32)),
    };
    struct zc_step to_two = net_step(ZC_STEP_NET_SEND, 0, 1);
    struct zc_step from_two = net_step(ZC_STEP_NET_RECV, 0, 2);
    struct zc_step to_zero = net_step(ZC_STEP_NET_SEND, 2, 2);
    struct zc_step from_zero = net_step(ZC_STEP_NET_RECV, 2, 1);
    struct fixture f = {0};
    struct zc_plan **plans = f.calls[0].plans;

    (void)state;
    setup_rows(&f);
    PUT_FIRST(plans[0], from_two, copies[0], to_two);
    PUT_FIRST(plans[2], from_zero, copies[1], to_zero);
    expect_caught(&f, "rank 0, step 0 receives from rank 2, which never sends it");
    setup_rows(&f);
    PUT_FIRST(plans[0], from_two, to_two, copies[0]);
    PUT_FIRST(plans[2], from_zero, to_zero, copies[1]);
    assert_int_equal(verify_calls(f.calls, 3, f.text, sizeof f.text), ZCTA_OK);
    teardown(&f);
}

/* A barrier's groups carry nothing that anybody reads. */
static void setup_barrier(struct fixture *f)
{
    const struct zc_layout layout = even_layout(&zc_barrier, NODES * NODE_RANKS, 0, 0);
    struct zc_request request = usual_request(&zc_flags, &layout, false);

    memset(f, 0, sizeof *f);
    request.node_ranks = NODE_RANKS;
    request.scratch_bytes = 64;
    for (uint32_t i = 0; i < 3; i++)
        make_plans(&f->calls[i], request);
}

static void a_send_that_nobody_receives_is_caught(void **state)
{
    struct fixture f;

    (void)state;
    setup_barrier(&f);
    drop(f.calls[0].plans[4], find_step(&f, 4, ZC_STEP_NET_RECV, 0));
    expect_caught(&f, "call 1: rank 4 receives what rank 2 sends in call 0");
    setup_barrier(&f);
    drop(f.calls[2].plans[4], find_step(&f, 4, ZC_STEP_NET_RECV, 0));
    expect_caught(&f, "sends to rank 4, which never receives it");
}

/* NCCL takes a communicator's groups one after the other. */
static void a_rank_is_on_the_network_in_one_lane_at_a_time(void **state)
{
    struct fixture f;

    (void)state;
    setup_nodes(&f, true);
    for (uint32_t rank = 0; rank < 6; rank++) {
        struct zc_plan *plan = f.calls[0].plans[rank];
        const uint32_t fork = find_step(&f, rank, ZC_STEP_FORK, 0);

        for (uint32_t i = 0; i < fork; i++)
            if (zc_step_is_network(&plan->steps[i]))
                plan->steps[i].lane = 1;
        move(plan, fork, 0);
    }
    expect_caught(&f, "on the network in two lanes at once");
}

static void calls_on_other_nodes_are_no_calls_of_one_team(void **state)
{
    struct fixture f;

    (void)state;
    setup_rows(&f);
    for (uint32_t rank = 0; rank < NODES * NODE_RANKS; rank++)
        f.calls[1].plans[rank]->request.node_ranks = NODES;
    expect_caught(&f, "");
}

static void a_shifted_offset_is_caught(void **state)
{
    struct fixture f;

    (void)state;
    setup(&f, &zc_direct_push, false);
    f.calls[0].plans[1]->steps[find_step(&f, 1, ZC_STEP_COPY, 1)].to.offset -= 1;
    expect_caught(&f, "");
    setup(&f, &zc_direct_push, true);
    f.calls[0].plans[1]->steps[find_step(&f, 1, ZC_STEP_COPY, 1)].from.offset += 1;
    expect_caught(&f, "in no order");
}

static void a_copy_that_is_too_short_is_caught(void **state)
{
    struct fixture f;

    (void)state;
    setup(&f, &zc_direct_push, true);
    f.calls[1].plans[1]->steps[find_step(&f, 1, ZC_STEP_COPY, 0)].bytes -= 1;
    expect_caught(&f, "without the right bytes");
}

static void a_copy_out_of_bounds_is_caught(void **state)
{
    struct fixture f;

    (void)state;
    setup(&f, &zc_direct_push, true);
    f.calls[0].plans[1]->steps[find_step(&f, 1, ZC_STEP_COPY, 0)].to.offset = RANKS * BYTES - 1;
    expect_caught(&f, "past the end");
    setup(&f, &zc_direct_push, true);
    f.calls[0].plans[1]->steps[find_step(&f, 1, ZC_STEP_COPY, 0)].to.offset = UINT64_MAX;
    expect_caught(&f, "past the end");
}

static void a_copy_to_the_wrong_rank_is_caught(void **state)
{
    struct fixture f;
    struct zc_step *step;

    (void)state;
    setup(&f, &zc_direct_push, true);
    step = &f.calls[0].plans[1]->steps[find_step(&f, 1, ZC_STEP_COPY, 0)];
    step->to.rank = (step->to.rank + 1) % RANKS;
    expect_caught(&f, "");
}

static void bytes_written_twice_are_caught(void **state)
{
    struct fixture f;
    struct zc_plan *plan;
    uint32_t copy;

    (void)state;
    setup(&f, &zc_direct_push, true);
    plan = f.calls[0].plans[1];
    copy = find_step(&f, 1, ZC_STEP_COPY, 2);
    /* The signal behind the copy gives its place: everybody has been told before. */
    plan->steps[copy - 1] = plan->steps[copy];
    plan->steps[copy - 1].bytes = 1;
    expect_caught(&f, "");
}

static void stale_bytes_of_the_call_before_are_caught(void **state)
{
    struct fixture f;
    struct zc_step *pull;

    (void)state;
    setup(&f, &zc_scratch_pull, true);
    /* Rank 0 fetches from the half of the call before. */
    pull = &f.calls[1].plans[0]->steps[find_step(&f, 0, ZC_STEP_COPY, 1)];
    assert_int_equal(pull->from.buffer, ZC_SCRATCH);
    pull->from.offset -= BYTES;
    expect_caught(&f, "");
}

static void a_write_to_the_send_buffer_is_caught(void **state)
{
    struct fixture f;
    struct zc_step *step;

    (void)state;
    setup(&f, &zc_direct_push, false);
    step = &f.calls[0].plans[1]->steps[find_step(&f, 1, ZC_STEP_COPY, 0)];
    step->to = step->from;
    expect_caught(&f, "writes to the send buffer");
}

static void another_ranks_send_buffer_is_out_of_reach(void **state)
{
    struct fixture f;

    (void)state;
    setup(&f, &zc_direct_push, false);
    f.calls[0].plans[1]->steps[find_step(&f, 1, ZC_STEP_COPY, 0)].from.rank = 2;
    expect_caught(&f, "another rank's send buffer");
}

/* In place the own share is in the output, and the send buffer has only what others get. */
static void a_share_in_place_is_not_in_the_send_buffer(void **state)
{
    struct fixture f;

    (void)state;
    setup(&f, &zc_direct_push, true);
    f.calls[0].plans[1]->steps[find_step(&f, 1, ZC_STEP_COPY, 0)].from = zc_at(1, ZC_SEND, 0);
    expect_caught(&f, "without the right bytes");
}

static void a_lane_without_join_is_caught(void **state)
{
    struct fixture f;

    (void)state;
    setup(&f, &zc_direct_push, false);
    drop(f.calls[0].plans[4], find_step(&f, 4, ZC_STEP_JOIN, 0));
    expect_caught(&f, "never joined");
}

static void a_lane_without_fork_is_caught(void **state)
{
    struct fixture f;

    (void)state;
    setup(&f, &zc_direct_push, false);
    drop(f.calls[0].plans[4], find_step(&f, 4, ZC_STEP_FORK, 0));
    expect_caught(&f, "lane that does not run");
}

static void a_signal_on_another_lane_than_its_copy_is_caught(void **state)
{
    struct fixture f;
    uint32_t signal;

    (void)state;
    setup(&f, &zc_direct_push, false);
    signal = find_channel(&f, 4, ZC_STEP_SIGNAL, ZC_CHANNEL_DONE);
    f.calls[0].plans[4]->steps[signal].lane = 1;
    expect_caught(&f, "");
}

static void a_barrier_that_lets_somebody_through_is_caught(void **state)
{
    struct fixture f;
    struct zc_plan *plan;

    (void)state;
    setup(&f, &zc_flags, false);
    /* Ranks 0 and 1 do not wait for each other. */
    for (uint32_t rank = 0; rank < 2; rank++) {
        plan = f.calls[2].plans[rank];
        for (uint32_t i = plan->step_count; i-- > 0;)
            if (plan->steps[i].peer == 1 - rank)
                drop(plan, i);
    }
    expect_caught(&f, "");
}

static void plans_of_different_calls_are_caught(void **state)
{
    const struct zc_layout another = even_layout(&zc_all_gather, RANKS, BYTES + 8, 0);
    struct fixture f;

    (void)state;
    setup(&f, &zc_direct_push, true);
    f.calls[1].plans[3]->request.layout = &another;
    expect_caught(&f, "not of the same call");
}

/* Nobody writes into an output whose release it has not awaited, or that was not released at all.
 */
static void a_released_call_that_awaits_no_release_is_caught(void **state)
{
    struct fixture f;
    struct zc_plan *writer, *owner;
    uint32_t peer;

    (void)state;
    setup(&f, &zc_early_ready, true);
    writer = f.calls[1].plans[2];
    assert_int_equal(writer->steps[0].channel, ZC_CHANNEL_RELEASED);
    peer = writer->steps[0].peer;
    drop(writer, 0);
    owner = f.calls[0].plans[peer];
    for (uint32_t i = 0; i < owner->step_count; i++)
        if (owner->steps[i].peer == 2) {
            drop(owner, i);
            break;
        }
    expect_caught(&f, "before that rank has entered");
}

static void a_released_call_without_a_release_is_caught(void **state)
{
    struct fixture f;

    (void)state;
    setup(&f, &zc_early_ready, false);
    for (uint32_t rank = 0; rank < RANKS; rank++)
        f.calls[0].plans[rank]->step_count = 0;
    expect_caught(&f, "for ever");
}

/* A release gives the output away, but not the share that its owner may fill until the run. */
static void a_share_in_place_that_is_read_before_its_run_is_caught(void **state)
{
    struct fixture f;
    struct zc_plan *reader, *owner;

    (void)state;
    setup(&f, &zc_early_ready, true);
    /* Rank 1 fetches rank 0's share as soon as that has released, instead of being given it. */
    reader = f.calls[1].plans[1];
    owner = f.calls[1].plans[0];
    for (uint32_t i = 0; i < owner->step_count; i++)
        if (owner->steps[i].kind == ZC_STEP_COPY && owner->steps[i].to.rank == 1) {
            const struct zc_step fetch = owner->steps[i];

            drop(owner, i);
            for (uint32_t j = 0; j < reader->step_count; j++)
                if (reader->steps[j].kind == ZC_STEP_COPY && reader->steps[j].to.rank == 0) {
                    zc_plan_copy(reader, 0, fetch.from, fetch.to, fetch.bytes);
                    move(reader, reader->step_count - 1, j);
                    break;
                }
            break;
        }
    expect_caught(&f, "touches rank 0's buffer before that rank has entered");
}

static void a_release_that_copies_is_caught(void **state)
{
    struct fixture f;

    (void)state;
    setup(&f, &zc_early_ready, true);
    zc_plan_copy(f.calls[0].plans[1], 0, zc_at(1, ZC_RECV, BYTES), zc_at(0, ZC_RECV, BYTES), BYTES);
    expect_caught(&f, "in a release");
}

/* ---- Replayed from graphs ---- */

static void setup_replays(struct fixture *f)
{
    const struct zc_layout layout = even_layout(&zc_barrier, RANKS, 0, 0);
    const struct zc_request barrier = usual_request(&zc_flags, &layout, false);

    memset(f, 0, sizeof *f);
    for (uint32_t i = 0; i < 3; i++)
        make_plans(&f->calls[i], zc_request_captured(&barrier));
    assert_int_equal(verify_replayed(f->calls, 3, f->text, sizeof f->text), ZCTA_OK);
}

/* All is well but for the replay. */
static void expect_caught_replayed(struct fixture *f, const char *what)
{
    assert_int_equal(verify_calls(f->calls, 3, f->text, sizeof f->text), ZCTA_OK);
    assert_int_equal(verify_replayed(f->calls, 3, f->text, sizeof f->text), ZCTA_ERR_INVALID);
    if (strstr(f->text, what) == NULL)
        fail_msg("expected a defect about \"%s\", got \"%s\"", what, f->text);
    teardown(f);
}

/* The closing round of a barrier comes behind the waits for ready, not before them. */
static void a_closing_round_that_is_told_too_early_does_not_replay(void **state)
{
    struct fixture f;

    (void)state;
    setup_replays(&f);
    for (uint32_t call = 0; call < 3; call++) {
        struct zc_plan *plan = f.calls[call].plans[2];

        for (uint32_t i = 0; i < plan->step_count; i++)
            if (plan->steps[i].kind == ZC_STEP_SIGNAL && plan->steps[i].channel == ZC_CHANNEL_DONE)
                move(plan, i, 0);
    }
    expect_caught_replayed(&f, "put back after that");
}

/* Counted on, a signal may be sent a call before it is awaited; replayed, its value is gone. */
static void a_signal_for_the_next_call_does_not_replay(void **state)
{
    struct fixture f;
    struct zc_plan *plan;

    (void)state;
    setup_replays(&f);
    plan = f.calls[1].plans[2];
    for (uint32_t i = 0; i < plan->step_count; i++)
        if (plan->steps[i].kind == ZC_STEP_SIGNAL && plan->steps[i].channel == ZC_CHANNEL_DONE) {
            zc_plan_signal(f.calls[0].plans[2], 0, plan->steps[i].peer, ZC_CHANNEL_DONE);
            drop(plan, i);
            break;
        }
    expect_caught_replayed(&f, "awaits a signal that rank 2 sent in call 0");
}

/* Whatever single step is moved in one rank's plan of every call: if it still is a barrier, it may
 * be one that does not replay; that is found for some of them, and never for the plan as it was. */
static void some_moved_steps_are_caught_by_the_rule_of_replays_alone(void **state)
{
    const uint32_t steps = 4 * (RANKS - 1);
    uint32_t caught = 0;

    (void)state;
    for (uint32_t from = 0; from < steps; from++)
        for (uint32_t to = 0; to < steps; to++) {
            struct fixture f;

            setup_replays(&f);
            for (uint32_t call = 0; call < 3; call++)
                move(f.calls[call].plans[1], from, to);
            caught += verify_calls(f.calls, 3, f.text, sizeof f.text) == ZCTA_OK &&
                      verify_replayed(f.calls, 3, f.text, sizeof f.text) == ZCTA_ERR_INVALID;
            teardown(&f);
        }
    assert_in_range(caught, 1, steps * steps - steps);
}

/* Whatever single step is dropped from one rank's plan, somebody notices. */
static void every_single_dropped_step_is_caught(void **state)
{
    (void)state;
    for (uint32_t algorithm = 0; algorithm < ZC_ALGORITHMS; algorithm++)
        for (int in_place = 0; in_place < 2; in_place++) {
            struct fixture f;
            uint32_t steps;

            setup(&f, zc_algorithms[algorithm], in_place);
            steps = f.calls[1].plans[2]->step_count;
            teardown(&f);
            for (uint32_t i = 0; i < steps; i++) {
                setup(&f, zc_algorithms[algorithm], in_place);
                drop(f.calls[1].plans[2], i);
                expect_caught(&f, "");
            }
        }
}

/* Single-bit slips in a copy are caught too. */
static void every_slip_in_a_copy_is_caught(void **state)
{
    (void)state;
    for (uint32_t algorithm = 0; algorithm < ZC_ALGORITHM_FLAGS; algorithm++)
        for (uint32_t field = 0; field < 3; field++)
            for (uint32_t bit = 0; bit < 7; bit++) {
                const uint64_t flip = UINT64_C(1) << bit;
                struct zc_step *step;
                struct fixture f;

                setup(&f, zc_algorithms[algorithm], true);
                step = &f.calls[1].plans[2]->steps[find_step(&f, 2, ZC_STEP_COPY, 0)];
                if (field == 0)
                    step->from.offset ^= flip;
                else if (field == 1)
                    step->to.offset ^= flip;
                else
                    step->bytes ^= flip;
                expect_caught(&f, "");
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_dropped_wait_for_ready_is_caught),
        cmocka_unit_test(a_dropped_ready_pair_is_a_touch_before_entering),
        cmocka_unit_test(a_dropped_done_pair_is_a_touch_after_leaving),
        cmocka_unit_test(a_dropped_signal_leaves_somebody_waiting_for_ever),
        cmocka_unit_test(a_signal_too_many_is_caught),
        cmocka_unit_test(a_signal_before_its_copy_is_caught),
        cmocka_unit_test(a_post_after_its_signal_is_caught),
        cmocka_unit_test(a_copy_before_its_wait_is_caught),
        cmocka_unit_test(scratch_halves_that_do_not_alternate_are_a_race),
        cmocka_unit_test(waiting_before_signalling_is_a_deadlock),
        cmocka_unit_test(sends_and_receives_that_go_wrong_are_caught),
        cmocka_unit_test(a_shifted_offset_is_caught),
        cmocka_unit_test(a_copy_that_is_too_short_is_caught),
        cmocka_unit_test(a_copy_out_of_bounds_is_caught),
        cmocka_unit_test(a_copy_to_the_wrong_rank_is_caught),
        cmocka_unit_test(bytes_written_twice_are_caught),
        cmocka_unit_test(stale_bytes_of_the_call_before_are_caught),
        cmocka_unit_test(a_write_to_the_send_buffer_is_caught),
        cmocka_unit_test(another_ranks_send_buffer_is_out_of_reach),
        cmocka_unit_test(a_share_in_place_is_not_in_the_send_buffer),
        cmocka_unit_test(a_lane_without_join_is_caught),
        cmocka_unit_test(a_lane_without_fork_is_caught),
        cmocka_unit_test(a_signal_on_another_lane_than_its_copy_is_caught),
        cmocka_unit_test(a_barrier_that_lets_somebody_through_is_caught),
        cmocka_unit_test(plans_of_different_calls_are_caught),
        cmocka_unit_test(a_released_call_that_awaits_no_release_is_caught),
        cmocka_unit_test(a_released_call_without_a_release_is_caught),
        cmocka_unit_test(a_row_that_comes_in_before_all_have_come_is_a_race),
        cmocka_unit_test(a_row_that_is_overwritten_while_it_is_sent_is_a_race),
        cmocka_unit_test(a_send_that_has_ended_tells_nothing_of_its_receiver),
        cmocka_unit_test(who_receives_first_waits_for_ever),
        cmocka_unit_test(a_send_that_nobody_receives_is_caught),
        cmocka_unit_test(a_rank_is_on_the_network_in_one_lane_at_a_time),
        cmocka_unit_test(calls_on_other_nodes_are_no_calls_of_one_team),
        cmocka_unit_test(a_share_in_place_that_is_read_before_its_run_is_caught),
        cmocka_unit_test(a_release_that_copies_is_caught),
        cmocka_unit_test(a_closing_round_that_is_told_too_early_does_not_replay),
        cmocka_unit_test(a_signal_for_the_next_call_does_not_replay),
        cmocka_unit_test(some_moved_steps_are_caught_by_the_rule_of_replays_alone),
        cmocka_unit_test(every_single_dropped_step_is_caught),
        cmocka_unit_test(every_slip_in_a_copy_is_caught),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
