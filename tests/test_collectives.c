/* Each public function of a collective, called as a program calls it: every argument counts. What
 * must be where is written down here from the header's words, one line a function, so that neither
 * the library's flows nor zcta_call are needed to know it. */
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "support_ranks.h"

enum { RANKS = 4, ROOT = 2, BYTES = 300, MARGIN = 64, ROOM = 8192 };

struct bench {
    zcta_context *context;
    zcta_team *team;
    zcta_host_stream *stream;
    sem_t gate; /* holds up the stream */
    uint32_t rank, round;
    unsigned char *window, *recv; /* `recv` lies MARGIN bytes behind the window's beginning */
    unsigned char send[ROOM];
    unsigned char expected[ROOM]; /* of the whole window */
};

/* ---- Sizes and places ---- */

/* A rank's share, for all that take an entry a rank. Offsets are neither sums nor in order. */
static const size_t shares[RANKS] = {130, 0, 77, 260}, offsets[RANKS] = {500, 3, 400, 5};

/* What goes from one rank to another, for all_to_all_v, and where it lies. */
static size_t pair_bytes(uint32_t from, uint32_t to)
{
    return from == 1 && to == 3 ? 0 : (size_t)20 + 31 * from + 17 * to;
}

static size_t pair_from_at(uint32_t from, uint32_t to)
{
    return (size_t)9 + from + 200 * (RANKS - 1 - to);
}

static size_t pair_to_at(uint32_t from, uint32_t to)
{
    return (size_t)7 + 3 * to + 180 * ((from + 2) % RANKS);
}

/* Whom a rank sends to and receives from, for send_recv, and how much it sends. */
static const uint32_t partner_to[RANKS] = {2, 0, 3, ZCTA_NO_RANK};
static const uint32_t partner_from[RANKS] = {1, ZCTA_NO_RANK, 0, 2};
static const size_t partner_bytes[RANKS] = {300, 77, 1000, 0};

static size_t bytes_from_partner(uint32_t rank)
{
    return partner_from[rank] == ZCTA_NO_RANK ? 0 : partner_bytes[partner_from[rank]];
}

/* ---- The model ---- */

static unsigned char given(uint32_t round, uint32_t rank, size_t at)
{
    return (unsigned char)(1 + round * 89 + rank * 37 + at * 11 + (at >> 8) * 5);
}

/* `bytes` bytes at send + from_at of rank `from` belong at recv + to_at of this rank. */
static void expect(struct bench *b, uint32_t from, size_t from_at, size_t to_at, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        b->expected[MARGIN + to_at + i] = given(b->round, from, from_at + i);
}

/* ---- The functions ---- */

static zcta_status call_all_gather(const struct bench *b, zcta_stream stream,
                                   const zcta_call_params *params)
{
    return zcta_all_gather(b->team, b->send, b->recv, BYTES, stream, params);
}

static void expect_all_gather(struct bench *b)
{
    for (uint32_t r = 0; r < RANKS; r++)
        expect(b, r, 0, (size_t)r * BYTES, BYTES);
}

static zcta_status call_all_gather_v(const struct bench *b, zcta_stream stream,
                                     const zcta_call_params *params)
{
    return zcta_all_gather_v(b->team, b->send, b->recv, shares, offsets, stream, params);
}

static void expect_all_gather_v(struct bench *b)
{
    for (uint32_t r = 0; r < RANKS; r++)
        expect(b, r, 0, offsets[r], shares[r]);
}

static zcta_status call_all_to_all(const struct bench *b, zcta_stream stream,
                                   const zcta_call_params *params)
{
    return zcta_all_to_all(b->team, b->send, b->recv, BYTES, stream, params);
}

static void expect_all_to_all(struct bench *b)
{
    for (uint32_t r = 0; r < RANKS; r++)
        expect(b, r, (size_t)b->rank * BYTES, (size_t)r * BYTES, BYTES);
}

static zcta_status call_all_to_all_v(const struct bench *b, zcta_stream stream,
                                     const zcta_call_params *params)
{
    size_t send_bytes[RANKS], send_offsets[RANKS], recv_bytes[RANKS], recv_offsets[RANKS];

    for (uint32_t peer = 0; peer < RANKS; peer++) {
        send_bytes[peer] = pair_bytes(b->rank, peer);
        send_offsets[peer] = pair_from_at(b->rank, peer);
        recv_bytes[peer] = pair_bytes(peer, b->rank);
        recv_offsets[peer] = pair_to_at(peer, b->rank);
    }
    return zcta_all_to_all_v(b->team, b->send, send_bytes, send_offsets, b->recv, recv_bytes,
                             recv_offsets, stream, params);
}

static void expect_all_to_all_v(struct bench *b)
{
    for (uint32_t r = 0; r < RANKS; r++)
        expect(b, r, pair_from_at(r, b->rank), pair_to_at(r, b->rank), pair_bytes(r, b->rank));
}

static zcta_status call_broadcast(const struct bench *b, zcta_stream stream,
                                  const zcta_call_params *params)
{
    return zcta_broadcast(b->team, b->send, b->recv, BYTES, ROOT, stream, params);
}

static void expect_broadcast(struct bench *b)
{
    expect(b, ROOT, 0, 0, BYTES);
}

static zcta_status call_gather(const struct bench *b, zcta_stream stream,
                               const zcta_call_params *params)
{
    return zcta_gather(b->team, b->send, b->recv, BYTES, ROOT, stream, params);
}

static void expect_gather(struct bench *b)
{
    for (uint32_t r = 0; r < RANKS && b->rank == ROOT; r++)
        expect(b, r, 0, (size_t)r * BYTES, BYTES);
}

static zcta_status call_gather_v(const struct bench *b, zcta_stream stream,
                                 const zcta_call_params *params)
{
    return zcta_gather_v(b->team, b->send, b->recv, shares, offsets, ROOT, stream, params);
}

static void expect_gather_v(struct bench *b)
{
    for (uint32_t r = 0; r < RANKS && b->rank == ROOT; r++)
        expect(b, r, 0, offsets[r], shares[r]);
}

static zcta_status call_scatter(const struct bench *b, zcta_stream stream,
                                const zcta_call_params *params)
{
    return zcta_scatter(b->team, b->send, b->recv, BYTES, ROOT, stream, params);
}

static void expect_scatter(struct bench *b)
{
    expect(b, ROOT, (size_t)b->rank * BYTES, 0, BYTES);
}

static zcta_status call_scatter_v(const struct bench *b, zcta_stream stream,
                                  const zcta_call_params *params)
{
    return zcta_scatter_v(b->team, b->send, shares, offsets, b->recv, ROOT, stream, params);
}

static void expect_scatter_v(struct bench *b)
{
    expect(b, ROOT, offsets[b->rank], 0, shares[b->rank]);
}

static zcta_status call_send_recv(const struct bench *b, zcta_stream stream,
                                  const zcta_call_params *params)
{
    return zcta_send_recv(b->team, b->send, partner_bytes[b->rank], partner_to[b->rank], b->recv,
                          bytes_from_partner(b->rank), partner_from[b->rank], stream, params);
}

static void expect_send_recv(struct bench *b)
{
    if (partner_from[b->rank] != ZCTA_NO_RANK)
        expect(b, partner_from[b->rank], 0, 0, bytes_from_partner(b->rank));
}

static const struct function {
    const char *name;
    zcta_status (*call)(const struct bench *b, zcta_stream stream, const zcta_call_params *params);
    void (*model)(struct bench *b);
} functions[] = {
    {"zcta_all_gather", call_all_gather, expect_all_gather},
    {"zcta_all_gather_v", call_all_gather_v, expect_all_gather_v},
    {"zcta_all_to_all", call_all_to_all, expect_all_to_all},
    {"zcta_all_to_all_v", call_all_to_all_v, expect_all_to_all_v},
    {"zcta_broadcast", call_broadcast, expect_broadcast},
    {"zcta_gather", call_gather, expect_gather},
    {"zcta_gather_v", call_gather_v, expect_gather_v},
    {"zcta_scatter", call_scatter, expect_scatter},
    {"zcta_scatter_v", call_scatter_v, expect_scatter_v},
    {"zcta_send_recv", call_send_recv, expect_send_recv},
};

enum { FUNCTIONS = sizeof functions / sizeof *functions };

/* ---- Calling ---- */

/* A round's contents are its own. */
static void fill(struct bench *b)
{
    b->round++;
    for (size_t i = 0; i < ROOM; i++)
        b->send[i] = given(b->round, b->rank, i);
    memset(b->window, (int)(0x55 + b->round), ROOM);
    memcpy(b->expected, b->window, ROOM);
}

/* The window holds what it has to, all else is as it was, and so is what the rank gave. */
static void check(const struct bench *b)
{
    EXPECT(memcmp(b->window, b->expected, ROOM) == 0);
    for (size_t i = 0; i < ROOM; i++)
        EXPECT(b->send[i] == given(b->round, b->rank, i));
}

static void run_in_the_call(struct bench *b, const struct function *f)
{
    fill(b);
    EXPECT_OK(b->context, f->call(b, NULL, NULL));
    f->model(b);
    check(b);
}

static void wait_at_gate(void *data)
{
    sem_wait(data);
}

/* Nothing moves before the stream gets there. */
static void run_on_a_stream(struct bench *b, const struct function *f)
{
    const zcta_call_params params = {
        .size = sizeof params, .policy = ZCTA_POLICY_ZERO, .engine = ZCTA_ENGINE_CE};

    fill(b);
    EXPECT_OK(b->context, zcta_host_stream_call(b->stream, wait_at_gate, &b->gate));
    EXPECT_OK(b->context, f->call(b, b->stream, &params));
    check(b);
    sem_post(&b->gate);
    EXPECT_OK(b->context, zcta_host_stream_synchronize(b->stream));
    f->model(b);
    check(b);
}

static void refuse(struct bench *b, const struct function *f, const zcta_call_params *params,
                   zcta_status status, const char *why)
{
    zcta_error error;

    fill(b);
    expect_error(b->context, f->call(b, NULL, params), status, why);
    EXPECT_OK(b->context, zcta_last_error(b->context, &error));
    EXPECT(strcmp(error.call, f->name) == 0);
    check(b);
}

/* What the parameters ask for counts, as it shows where it cannot be had. */
static void refuse_params(struct bench *b, const struct function *f)
{
    const zcta_call_params engine = {.size = sizeof engine, .engine = ZCTA_ENGINE_NCCL};
    const zcta_call_params policy = {.size = sizeof policy, .policy = (zcta_policy)17};

    refuse(b, f, &engine, ZCTA_ERR_UNSUPPORTED, "NCCL moves GPU memory");
    refuse(b, f, &policy, ZCTA_ERR_INVALID, "policy 17");
}

static void call_all(zcta_context *context, void *data)
{
    struct bench b = {.context = context, .team = zcta_world(context)};
    zcta_window *window = NULL;

    (void)data;
    EXPECT(sem_init(&b.gate, 0, 0) == 0);
    EXPECT_OK(context, zcta_host_stream_create(context, &b.stream));
    EXPECT_OK(context, zcta_window_alloc(b.team, ROOM, &window));
    b.rank = zcta_team_rank(b.team);
    b.window = zcta_window_base(window);
    b.recv = b.window + MARGIN;
    for (size_t i = 0; i < FUNCTIONS; i++) {
        run_in_the_call(&b, &functions[i]);
        run_on_a_stream(&b, &functions[i]);
        refuse_params(&b, &functions[i]);
    }
    EXPECT_OK(context, zcta_window_free(&window));
    EXPECT_OK(context, zcta_host_stream_destroy(&b.stream));
    sem_destroy(&b.gate);
}

static void every_argument_of_every_function_counts(void **state)
{
    const struct ranks_options checked = {.check = 1};

    (void)state;
    run_as_threads(RANKS, call_all, NULL);
    run_as_threads_with(RANKS, &checked, call_all, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_argument_of_every_function_counts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
