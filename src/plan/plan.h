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
 * network. EXCHANGE is an allgather over it, among the ranks of equal position in their nodes: a
 * rank's own row is in its place, `from`; the rows of the others come into theirs, in `to`. It ends
 * when all of them have come to it.
 *
 * Signals are counted, not named: on a channel between two ranks the k-th wait is satisfied by the
 * k-th signal, over the whole life of a team. Nothing toggles and nothing is reset. */
#ifndef ZC_PLAN_H
#define ZC_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "zerocta/zerocta.h"

#define ZC_MAX_LANES  16u
#define ZC_MAX_BLOCKS 4096u /* of a share; larger shares go in larger blocks */

/* Each list stands once: enumerator, name in the text form. */
#define ZC_STEP_LIST(X)                                                                            \
    X(COPY, "copy")                                                                                \
    X(SIGNAL, "signal")                                                                            \
    X(WAIT, "wait")                                                                                \
    X(FORK, "fork")                                                                                \
    X(JOIN, "join")                                                                                \
    X(EXCHANGE, "exchange")

#define ZC_BUFFER_LIST(X)                                                                          \
    X(SEND, "send")       /* the caller's input; only its own rank can address it */               \
    X(RECV, "recv")       /* the caller's output, in a window */                                   \
    X(SCRATCH, "scratch") /* the team's own window: two halves, used in turn */

/* What a signal tells. Each channel between two ranks counts for itself. */
#define ZC_CHANNEL_LIST(X)                                                                         \
    X(READY, "ready")       /* my buffers may be written: I have entered the collective */         \
    X(DONE, "done")         /* what I had for you is there */                                      \
    X(RELEASED, "released") /* ready, said early: of a call that is still to come */

#define ZC_COLLECTIVE_LIST(X)                                                                      \
    X(ALL_GATHER, "all_gather", "AllGather")                                                       \
    X(BARRIER, "barrier", "Barrier")                                                               \
    X(RELEASE, "release", "Release")

/* Enumerator, name, function that makes the plan, collective it belongs to. */
#define ZC_ALGORITHM_LIST(X)                                                                       \
    X(DIRECT_PUSH, "direct-push", zc_plan_direct_push, ALL_GATHER)                                 \
    X(PUSH_BACK, "push-back", zc_plan_push_back, ALL_GATHER)                                       \
    X(SCRATCH_PULL, "scratch-pull", zc_plan_scratch_pull, ALL_GATHER)                              \
    X(BY_NODES, "by-nodes", zc_plan_by_nodes, ALL_GATHER)                                          \
    X(FLAGS, "flags", zc_plan_flags, BARRIER)                                                      \
    X(EARLY_READY, "early-ready", zc_plan_early_ready, RELEASE)

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
#define ZC_ENUM_3(name, text, title) ZC_COLLECTIVE_##name,
enum zc_collective { ZC_COLLECTIVE_LIST(ZC_ENUM_3) ZC_COLLECTIVES };
#undef ZC_ENUM_3
#define ZC_ENUM_4(name, text, make, collective) ZC_ALGORITHM_##name,
enum zc_algorithm { ZC_ALGORITHM_LIST(ZC_ENUM_4) ZC_ALGORITHMS };
#undef ZC_ENUM_4

struct zc_place {
    uint32_t rank;
    enum zc_buffer buffer;
    uint64_t offset;
};

struct zc_step {
    enum zc_step_kind kind;
    uint32_t lane;
    uint32_t peer; /* SIGNAL: to whom. WAIT: from whom. FORK, JOIN: the other lane */
    enum zc_channel channel;
    struct zc_place from, to; /* COPY, EXCHANGE */
    uint64_t bytes;           /* COPY, EXCHANGE: of a row */
    uint32_t rows;            /* COPY, EXCHANGE */
    uint64_t stride;          /* from one row to the next, in `from` and in `to` */
};

/* Everything a plan is made from. */
struct zc_request {
    enum zc_collective collective;
    enum zc_algorithm algorithm;
    uint32_t rank_count, rank;
    uint64_t bytes; /* one rank's share; rank_count * bytes fits in 63 bits */
    bool in_place;
    bool released; /* the release that came before said ready: of the algorithms that do */
    bool closed;   /* ends with a round of done, as replayed barriers must */
    bool grouped;  /* pushes stand together, behind all waits for ready and before all done */
    uint32_t half; /* of the scratch window: 0 or 1, by turns */
    uint64_t scratch_bytes; /* size of one half */
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
};

const char *zc_collective_name(enum zc_collective collective);  /* "all_gather" */
const char *zc_collective_title(enum zc_collective collective); /* "AllGather" */
const char *zc_algorithm_name(enum zc_algorithm algorithm);     /* "direct-push" */
enum zc_collective zc_algorithm_collective(enum zc_algorithm algorithm);

/* ---- Requests ---- */

/* NULL if the request names a plan, else why not. */
const char *zc_request_defect(const struct zc_request *request);

uint32_t zc_request_node_ranks(const struct zc_request *request);
uint32_t zc_request_nodes(const struct zc_request *request);

/* Whether the algorithm begins with ready, so that a release can take that over. */
bool zc_algorithm_says_ready(enum zc_algorithm algorithm);

/* Whether calls use the halves of the scratch window by turns. */
bool zc_algorithm_alternates(enum zc_algorithm algorithm);

/* Whether a graph may hold plans of the algorithm: see struct zc_verify_options, which proves it.
 */
bool zc_algorithm_replays(enum zc_algorithm algorithm);

/* Of what goes with a call beside its own plan. Whoever needs one makes it here, because not every
 * field of the call's request means something to another algorithm.
 * Of an algorithm that says ready: what says it early, and the run that relies on that. */
struct zc_request zc_request_early_ready(const struct zc_request *call);
struct zc_request zc_request_released(const struct zc_request *call);
/* The same call as it goes into a graph; mostly the call itself. */
struct zc_request zc_request_captured(const struct zc_request *call);

/* ---- Plans ---- */

/* Makes the plan of one rank. The caller frees it.
 * Errors: ERR_INVALID (a request that names no plan), ERR_NO_MEMORY. */
zcta_status zc_plan_make(const struct zc_request *request, struct zc_plan **plan);
void zc_plan_destroy(struct zc_plan *plan);

/* Size of a buffer as the plan may address it. */
uint64_t zc_plan_buffer_bytes(const struct zc_request *request, enum zc_buffer buffer);

/* NULL if the plan is well formed in itself (lanes, ranks, bounds), else the reason, in `text`. */
const char *zc_plan_defect(const struct zc_plan *plan, char *text, size_t bytes);

/* ---- For algorithms: append a step ---- */

struct zc_place zc_at(uint32_t rank, enum zc_buffer buffer, uint64_t offset);
void zc_plan_copy(struct zc_plan *plan, uint32_t lane, struct zc_place from, struct zc_place to,
                  uint64_t bytes);
/* `rows` pieces of `bytes` bytes, each `stride` behind the one before, on both sides. */
void zc_plan_copy_rows(struct zc_plan *plan, uint32_t lane, struct zc_place from,
                       struct zc_place to, uint64_t bytes, uint32_t rows, uint64_t stride);
/* `to` is the place of the first node's row in this rank's own buffer. */
void zc_plan_exchange(struct zc_plan *plan, uint32_t lane, struct zc_place to, uint64_t bytes,
                      uint64_t stride);
void zc_plan_signal(struct zc_plan *plan, uint32_t lane, uint32_t peer, enum zc_channel channel);
void zc_plan_wait(struct zc_plan *plan, uint32_t lane, uint32_t peer, enum zc_channel channel);
/* On lane 0, to or from every other rank of this rank's node: the next one first. */
typedef void zc_plan_flag_fn(struct zc_plan *plan, uint32_t lane, uint32_t peer,
                             enum zc_channel channel);
void zc_plan_with_node(struct zc_plan *plan, enum zc_channel channel, zc_plan_flag_fn *flag);
void zc_plan_fork(struct zc_plan *plan, uint32_t lane);
void zc_plan_join(struct zc_plan *plan, uint32_t lane);

void zc_plan_direct_push(struct zc_plan *plan);
void zc_plan_push_back(struct zc_plan *plan);
void zc_plan_scratch_pull(struct zc_plan *plan);
void zc_plan_by_nodes(struct zc_plan *plan);
void zc_plan_flags(struct zc_plan *plan);
void zc_plan_early_ready(struct zc_plan *plan);

/* ---- Text form ---- */

/* One header line, then one line a step; zc_plan_parse() reads what this prints. */
void zc_plan_print(const struct zc_plan *plan, FILE *out);

/* Errors: ERR_INVALID (`text` then says which line and why), ERR_NO_MEMORY. The plan that comes out
 * is well formed in itself. */
zcta_status zc_plan_parse(const char *source, size_t length, struct zc_plan **plan, char *text,
                          size_t bytes);

#endif
