/* A collective as data: what one rank copies, signals and waits for.
 *
 * Algorithms (plan_*.c) make plans, zc_verify() judges the plans of all ranks together, a device
 * runs them. This layer does no I/O, knows no device and no address: a place is (rank, buffer,
 * offset).
 *
 * Steps stand in one array; each belongs to a lane, and the steps of a lane run in the array's
 * order. Lanes run side by side. Lane 0 is the caller's stream; another lane begins where lane 0
 * forks it and has ended where lane 0 joins it, once each per plan.
 *
 * Nodes are equally many consecutive ranks that reach each other's memory; between nodes there is a
 * network. NET_SEND and NET_RECV go over it, from and into this rank's own memory. Those that stand
 * directly behind each other on a lane are one group: they go at once, and the group ends when all
 * of them have. Between two ranks the k-th NET_RECV gets what the k-th NET_SEND sends.
 *
 * Signals are counted, not named: on a channel between two ranks the k-th wait is satisfied by the
 * k-th signal, over the whole life of a team. Nothing toggles and nothing is reset. */
#ifndef ZC_PLAN_H
#define ZC_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "collective/collective.h"

#define ZC_MAX_LANES  16u
#define ZC_MAX_BLOCKS 4096u /* of a share; larger shares go in larger blocks */

/* Each list stands once: enumerator, name in the text form. */
#define ZC_STEP_LIST(X)                                                                            \
    X(COPY, "copy")                                                                                \
    X(SIGNAL, "signal")                                                                            \
    X(WAIT, "wait")                                                                                \
    X(FORK, "fork")                                                                                \
    X(JOIN, "join")                                                                                \
    X(NET_SEND, "net_send")                                                                        \
    X(NET_RECV, "net_recv")

#define ZC_BUFFER_LIST(X)                                                                          \
    X(SEND, "send")       /* the caller's input; only its own rank can address it */               \
    X(RECV, "recv")       /* the caller's output, in a window */                                   \
    X(SCRATCH, "scratch") /* the team's own window: two halves, used in turn */                    \
    X(HOST, "host")       /* the team's own host memory: two halves, and behind them a ring */

/* What a signal tells. Each channel between two ranks counts for itself. */
#define ZC_CHANNEL_LIST(X)                                                                         \
    X(READY, "ready")       /* my buffers may be written: I have entered the collective */         \
    X(DONE, "done")         /* what I had for you is there */                                      \
    X(RELEASED, "released") /* ready, said early: of a call that is still to come */               \
    X(FILLED, "filled")     /* in my host memory there is something for you */                     \
    X(EMPTIED, "emptied")   /* I have taken that from there */

/* The algorithms, in the order in which they are preferred where several would do. Each is a row,
 * struct zc_algorithm, in a file plan_*.c. */
#define ZC_ALGORITHM_LIST(X)                                                                       \
    X(SCRATCH_PULL, scratch_pull)                                                                  \
    X(HOST_PULL, host_pull)                                                                        \
    X(RECV_PULL, recv_pull)                                                                        \
    X(CHAIN, chain)                                                                                \
    X(SCATTER_ALLGATHER, scatter_allgather)                                                        \
    X(PUSH_BACK, push_back)                                                                        \
    X(DIRECT_PUSH, direct_push)                                                                    \
    X(HOST_STREAM, host_stream)                                                                    \
    X(HIERARCHICAL, hierarchical)                                                                  \
    X(FLAGS, flags)                                                                                \
    X(EARLY_READY, early_ready)

#define ZC_ENUM_2(name, text) ZC_ENUM_NAME(name),
#define ZC_ENUM_NAME(name)    ZC_STEP_##name
enum zc_step_kind { ZC_STEP_LIST(ZC_ENUM_2) ZC_STEP_KINDS };
#undef ZC_ENUM_NAME
#define ZC_ENUM_NAME(name) ZC_##name
enum zc_buffer { ZC_BUFFER_LIST(ZC_ENUM_2) ZC_BUFFERS };
#undef ZC_ENUM_NAME
#define ZC_ENUM_NAME(name) ZC_CHANNEL_##name
enum zc_channel { ZC_CHANNEL_LIST(ZC_ENUM_2) ZC_CHANNELS };
#undef ZC_ENUM_NAME
#undef ZC_ENUM_2
struct zc_place {
    uint32_t rank;
    enum zc_buffer buffer;
    uint64_t offset;
};

struct zc_step {
    enum zc_step_kind kind;
    uint32_t lane;
    uint32_t
        peer; /* SIGNAL, NET_SEND: to whom. WAIT, NET_RECV: from whom. FORK, JOIN: the other lane */
    enum zc_channel channel;
    struct zc_place from, to; /* COPY; NET_SEND: from, NET_RECV: to */
    uint64_t bytes;           /* COPY: of a row; NET_SEND, NET_RECV */
    uint32_t rows;            /* COPY */
    uint64_t stride;          /* from one row to the next, in `from` and in `to` */
};

enum zc_algorithm_trait {
    ZC_SAYS_READY = 1,      /* begins with ready, so that it can be said early */
    ZC_OPENS = 2,           /* is what says it early: moves nothing itself */
    ZC_ALTERNATES = 4,      /* uses the halves of the scratch window, or host memory, by turns */
    ZC_EAGER_ONLY = 8,      /* no graph may hold it; struct zc_verify_options proves the others */
    ZC_CLOSES = 16,         /* a graph takes it with a last round of done */
    ZC_GROUPS = 32,         /* its pushes may stand together */
    ZC_COPIES_OWN = 64,     /* a rank copies its own share within its memory, unless in place */
    ZC_BOUNCES_OWN = 128,   /* or takes it through other memory and back, if asked to */
    ZC_RETURNS_OWN = 256,   /* a peer brings it back */
    ZC_CROSSES = 512,       /* goes from node to node */
    ZC_TABLED = 2048,       /* taken where a table of measurements says so, and only there */
    ZC_USES_SCRATCH = 1024, /* inputs go through the scratch window and are pulled from there */
    ZC_USES_HOST = 4096,    /* they go through host memory: nobody touches another's buffers */
};

struct zc_request;
struct zc_plan;

struct zc_algorithm {
    const char *name;      /* "direct-push" */
    unsigned needs, lacks; /* traits that a collective must have, and must not have */
    unsigned traits;
    const char *(*cannot)(const struct zc_request *); /* NULL: it can; else why not. May be NULL */
    void (*make)(struct zc_plan *);
};

#define ZC_ENUM_ROW(name, symbol) ZC_ALGORITHM_##name,
enum { ZC_ALGORITHM_LIST(ZC_ENUM_ROW) ZC_ALGORITHMS };
#undef ZC_ENUM_ROW
#define ZC_EXTERN_ROW(name, symbol) extern const struct zc_algorithm zc_##symbol;
ZC_ALGORITHM_LIST(ZC_EXTERN_ROW)
#undef ZC_EXTERN_ROW

/* [ZC_ALGORITHM_DIRECT_PUSH] and so on. */
extern const struct zc_algorithm *const zc_algorithms[ZC_ALGORITHMS];

static inline bool zc_has(const struct zc_algorithm *algorithm, enum zc_algorithm_trait trait)
{
    return (algorithm->traits & (unsigned)trait) != 0;
}

/* Everything a plan is made from. The layout outlives the plan. */
struct zc_request {
    const struct zc_layout *layout;
    const struct zc_algorithm *algorithm;
    uint32_t rank;
    bool in_place; /* the own share lies where it belongs */
    bool bounced;  /* it goes through the next rank's bounce slot, or host memory, so that nothing
                      is copied within one rank's memory */
    bool released; /* the release that came before said ready: of the algorithms that do */
    bool closed;   /* ends with a round of done, as what moves no data must in graphs */
    bool grouped;  /* pushes stand together, behind all waits for ready and before all done */
    uint32_t half; /* of the scratch window or the host memory: 0 or 1, by turns */
    uint64_t scratch_bytes; /* size of one half */
    uint64_t bounce_bytes;  /* size of the bounce slot, which lies behind the halves */
    uint64_t host_bytes;    /* size of one half of the host memory; 0: the team has none */
    uint64_t ring_bytes;    /* size of the ring behind its halves */
    uint32_t lanes;         /* how many lanes the device runs side by side, 1 .. ZC_MAX_LANES */
    uint64_t block_bytes; /* copy in blocks of this size, every peer's before the next; 0: whole */
    uint32_t node_ranks;  /* how many ranks make a node; 0: all are on one */
    uint32_t chunks;      /* of a share, so that both levels run at once; 0: 1 */
};

struct zc_plan {
    struct zc_request request;
    uint32_t lane_count;
    uint32_t step_count, capacity;
    bool out_of_memory; /* an append failed; zc_plan_make() turns it into a status */
    struct zc_step *steps;
    struct zc_layout *parsed; /* the layout of a plan that was read from its text, with its arrays
                                 behind it; else NULL */
};

/* The row's number; of the name; ZC_ALGORITHMS: there is none. */
uint32_t zc_algorithm_number(const struct zc_algorithm *algorithm);
/* Whether it is an algorithm of the collective. */
bool zc_algorithm_serves(const struct zc_algorithm *algorithm,
                         const struct zc_collective *collective);

/* ---- Requests ---- */

/* NULL if the request names a plan, else why not. */
const char *zc_request_defect(const struct zc_request *request);

uint32_t zc_request_node_ranks(const struct zc_request *request);
uint32_t zc_request_nodes(const struct zc_request *request);

/* What goes with a call beside its own plan. It is made here, because not every field of the call's
 * request means something to another algorithm.
 * For an algorithm that says ready: what says it early, and the run that relies on that. */
struct zc_request zc_request_early_ready(const struct zc_request *call);
struct zc_request zc_request_released(const struct zc_request *call);
/* The same call as it goes into a graph; mostly the call itself. */
struct zc_request zc_request_captured(const struct zc_request *call);

static inline bool zc_step_is_network(const struct zc_step *step)
{
    return step->kind == ZC_STEP_NET_SEND || step->kind == ZC_STEP_NET_RECV;
}

/* Of two steps that follow each other on a lane, whether they are of one group. */
static inline bool zc_steps_are_grouped(const struct zc_step *first, const struct zc_step *second)
{
    return zc_step_is_network(first) && zc_step_is_network(second);
}

/* ---- Plans ---- */

/* Makes the plan of one rank. The caller frees it.
 * Errors: ERR_INVALID (a request that names no plan), ERR_NO_MEMORY. */
zcta_status zc_plan_make(const struct zc_request *request, struct zc_plan **plan);
void zc_plan_destroy(struct zc_plan *plan);

/* Size of a buffer as the plan may address it, on whichever rank it is largest. */
uint64_t zc_plan_buffer_bytes(const struct zc_request *request, enum zc_buffer buffer);

/* NULL if the plan is well formed in itself (lanes, ranks, bounds), else the reason, in `text`. */
const char *zc_plan_defect(const struct zc_plan *plan, char *text, size_t bytes);

/* ---- For algorithms: append a step ---- */

/* This rank's flow to a peer, and from it. */
struct zc_flow zc_plan_out(const struct zc_plan *plan, uint32_t peer);
struct zc_flow zc_plan_in(const struct zc_plan *plan, uint32_t peer);
/* Where this rank's input is read from `at` on. */
struct zc_place zc_plan_input(const struct zc_plan *plan, uint64_t at);
/* In which blocks flows are copied: the device's, or larger ones where there would be too many. */
uint64_t zc_plan_block(const struct zc_plan *plan);
/* The own share, or that part of it, into its place, unless it is in place. */
void zc_plan_copy_own(struct zc_plan *plan, uint32_t lane, uint64_t offset, uint64_t bytes);
/* The whole of it on lane 1, if it is to be copied at all and the device has such a lane; true if
 * so. The caller joins that lane. */
bool zc_plan_copy_own_aside(struct zc_plan *plan);
/* The whole of it through the neighbour's bounce slot. */
void zc_plan_bounce_own(struct zc_plan *plan);
/* The whole of it, in whichever way the request says, unless it goes aside. */
void zc_plan_finish_own(struct zc_plan *plan, bool aside);

struct zc_place zc_at(uint32_t rank, enum zc_buffer buffer, uint64_t offset);
void zc_plan_copy(struct zc_plan *plan, uint32_t lane, struct zc_place from, struct zc_place to,
                  uint64_t bytes);
/* `rows` pieces of `bytes` bytes, each `stride` behind the one before, on both sides. */
void zc_plan_copy_rows(struct zc_plan *plan, uint32_t lane, struct zc_place from,
                       struct zc_place to, uint64_t bytes, uint32_t rows, uint64_t stride);
/* A group: this rank's row goes to every rank of its place on another node, and theirs come in.
 * `at` is the place of the first node's row in this rank's own buffer, `stride` the distance of
 * rows. */
void zc_plan_exchange_rows(struct zc_plan *plan, uint32_t lane, struct zc_place at, uint64_t bytes,
                           uint64_t stride);
void zc_plan_signal(struct zc_plan *plan, uint32_t lane, uint32_t peer, enum zc_channel channel);
void zc_plan_wait(struct zc_plan *plan, uint32_t lane, uint32_t peer, enum zc_channel channel);
/* On lane 0, to or from every other rank of this rank's node: the next one first. */
typedef void zc_plan_flag_fn(struct zc_plan *plan, uint32_t lane, uint32_t peer,
                             enum zc_channel channel);
void zc_plan_with_node(struct zc_plan *plan, enum zc_channel channel, zc_plan_flag_fn *flag);
void zc_plan_fork(struct zc_plan *plan, uint32_t lane);
void zc_plan_join(struct zc_plan *plan, uint32_t lane);

/* Ready, to every rank that has something for this one, unless it was said early. */
void zc_plan_say_ready(struct zc_plan *plan);
/* Every flow of this rank's to another goes straight into that rank's output, as soon as it is
 * ready, and done tells it. In blocks, each peer's before the next; before that the own share's, if
 * `own`. */
void zc_plan_push(struct zc_plan *plan, bool own);
/* Waits for what a peer pushes, if it does. */
void zc_plan_await_done(struct zc_plan *plan, uint32_t peer);

/* ---- Text form ---- */

/* One header line, then one line a step; zc_plan_parse() reads what this prints. */
void zc_plan_print(const struct zc_plan *plan, FILE *out);

/* Errors: ERR_INVALID (`text` then says which line and why), ERR_NO_MEMORY. The plan that comes out
 * is well formed in itself. */
zcta_status zc_plan_parse(const char *source, size_t length, struct zc_plan **plan, char *text,
                          size_t bytes);

#endif
