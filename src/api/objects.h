/* The objects behind the public handles, and what the files of this layer share. */
#ifndef ZC_OBJECTS_H
#define ZC_OBJECTS_H

#include <pthread.h>

#include "base/clock.h"
#include "engine/engine.h"
#include "engine/nccl/nccl.h"
#include "rendezvous/rendezvous.h"
#include "select/select.h"

/* Every window of a context, ordered by address. */
struct zc_address_map {
    pthread_rwlock_t lock;
    zcta_window **windows;
    uint32_t count, capacity;
    _Atomic uint64_t generation; /* moves when a window goes: what was looked up before is stale */
};

/* What a failure comes from. */
enum zc_cause { ZC_CAUSE_OTHER, ZC_CAUSE_END, ZC_CAUSE_LEAVE };

/* A rank that is lost: to whoever has it in common with `teller`, who says so; this rank tells for
 * itself. */
struct zc_loss {
    uint32_t rank, teller;
    bool left;
    bool unable; /* it is this rank that could not hear it any more */
};

/* A rank's latest attempt at a team that is over, and whether it had met all the others. */
struct zc_over {
    uint32_t number;
    bool joined;
};

/* Why some rank gave up a team that this rank has not begun to make: whom to name if nobody comes.
 */
struct zc_ending {
    uint64_t identity; /* 0: free */
    uint32_t rank;
    struct zc_over over;
    zcta_error failure;
};

enum { ZC_ENDINGS = 32 };

/* What a context finds out when it is first asked. */
struct zc_knowledge {
    pthread_mutex_t lock; /* guards it; loading takes its time, and nobody else waits for that */
    bool knows_nccl, knows_tuned;
    bool nccl_at_hand;   /* before anybody asked */
    struct zc_nccl nccl; /* loaded from then on */
    struct zc_nccl_facts facts;
    struct zc_tuned *tuned; /* NULL: nothing that counts here */
};

struct zcta_context {
    struct zc_diag diag;
    struct zc_job job;
    const struct zc_device_ops *ops;
    struct zc_device *device;
    struct zc_device_caps caps;
    struct zc_mesh *mesh;
    uint64_t timeout_ns;
    uint64_t join_timeout_ns; /* until all ranks are connected */
    bool check;
    struct zc_address_map map;
    pthread_mutex_t lock; /* guards what follows */
    zcta_team *world, *teams;
    uint32_t attempts; /* at any team, so far */
    uint64_t *nodes;   /* per world rank; NULL: all are on one. Set once, while joining */
    bool *reach;       /* [rank][rank]: who of one node reaches whose memory. NULL: all. Likewise */
    bool *gone;        /* per world rank: its connection has ended */
    struct zc_loss *losses; /* in the order in which they were heard of */
    uint32_t loss_count;
    struct zc_ending endings[ZC_ENDINGS]; /* the latest */
    uint32_t next_ending;
    struct zc_knowledge knowledge;
    bool finalizing; /* ranks that go now go as they should */
};

#define ZC_UNEVEN_NODES UINT32_MAX

enum { ZC_CACHE_ENTRIES = 64, ZC_NAME_BYTES = 32 };

/* What a call asks for, as it was given: what a repeated one is recognised by. */
struct zc_asked {
    const char *call; /* the public function's name, for messages */
    const void *send, *recv;
    zcta_policy policy;
    zcta_engine engine;
    struct zc_layout layout; /* nothing of it derived; its collective is NULL if there is none */
    uint64_t *arrays;        /* the layout's, owned; NULL: it has none */
    bool told;               /* the others have heard how reading it went */
};

/* A call that was checked, chosen and resolved. */
struct zc_resolved {
    struct zc_asked asked;
    struct zc_layout *layout; /* the same with what follows from it, owned; outlives `prepared` */
    bool in_place;
    uint64_t received;                /* by this rank in a run, in bytes */
    enum zc_path path, captured_path; /* in a graph it may be another one */
    const struct zc_engine_ops *ops;  /* the engine's, and its state for this team */
    struct zc_engine *engine;
    bool sms, fallback;
    bool crosses;                           /* from node to node, by NCCL */
    uint64_t offset;                        /* of recv in its window: ranks must agree on it */
    uint32_t ticket;                        /* of its latest run */
    struct zc_prepared *prepared;           /* NULL: nothing to do, on any rank */
    zcta_window *recv_window, *send_window; /* NULL if none */
    uint64_t generation;
};

struct zc_team_counters {
    _Atomic uint64_t calls, bytes, fallbacks;
};

struct zcta_team {
    zcta_context *context;
    zcta_team *next;
    struct zc_group group;
    uint32_t *ranks;   /* world ranks */
    uint64_t identity; /* of its ranks, policy, engine and name */
    uint32_t attempt;  /* this rank's at such a team, among all its attempts */
    uint32_t rounds;
    /* By team rank: the attempt with which it joined, and the last one that it has said is over.
     * Guarded by the context's lock, as what follows. */
    uint32_t *attempts;
    struct zc_over *over;
    zcta_error given_up; /* why a rank gave up while this one waits to join */
    bool joined;         /* attempts[] holds */
    bool stale;          /* it does not: a rank had given up its attempt before it had joined */
    _Atomic uint32_t interrupted; /* not 0: failed or stale, so the round that is run is to end */
    bool made;    /* may be found and used; guarded by both locks: either to read, both to write */
    bool leaving; /* is being given back: its ranks may go as soon as they have said so. Guarded by
                     the context's lock */
    zcta_policy policy;
    zcta_engine engine_choice;
    bool shared_gpu;  /* some of its ranks are on one GPU */
    bool rail_shared; /* so are some of one rail, at the same place on their nodes */
    /* How many ranks make a node; 0: all are on one; ZC_UNEVEN_NODES: not equally many, or not in
     * order
     */
    uint32_t node_ranks;
    const struct zc_tuned *tuned; /* the context's, if all ranks have the same; else NULL */
    const struct zc_nccl_facts
        *nccl_facts;              /* NULL until they are compared; then the context's, or */
    struct zc_nccl_facts no_nccl; /* where the ranks have not the same */
    char name[ZC_NAME_BYTES];
    uint32_t
        uses; /* zcta_team_get() calls that are not given back; guarded by the context's lock */
    uint32_t visits; /* a window's going, which keeps the team listed; guarded likewise */
    pthread_cond_t left;
    uint32_t window_count, plan_count;
    uint32_t windows_made; /* so far: numbers them alike on all ranks */
    struct zc_guard guard;
    struct zc_engine *ce;
    pthread_mutex_t failure_lock; /* guards what follows */
    zcta_error failure;           /* status OK while the team is well */
    enum zc_cause cause;
    struct zc_engine *nccl; /* NULL until the first call that it performs */
    struct zc_resolved cache[ZC_CACHE_ENTRIES];
    struct zc_team_counters counters[ZC_COLLECTIVE_IDS][ZC_PATHS];
    zcta_plan *plans;
    zcta_window *windows;
};

struct zcta_window {
    zcta_team *team;
    zcta_window *next;
    struct zc_symmetric *memory;
    uint32_t number;             /* among the windows its team made, from 1 */
    struct zc_view view;         /* base NULL until asked for */
    _Atomic uint32_t plan_count; /* prepared plans that use it */
};

struct zcta_plan {
    zcta_team *team;
    zcta_plan *next;
    struct zc_resolved resolved;
};

/* ---- params.c ---- */

#define ZC_PARAMS_MOST 4096u /* bytes of any parameter struct */

/* Copies a caller's struct that begins with its size into one of ours.
 * Errors: ERR_INVALID (size too small, or a non-zero tail this library does not know). */
zcta_status zc_params_read(struct zc_diag *diag, const char *call, const void *given, void *known,
                           size_t known_bytes);
/* Whether a struct's size field can be one. Errors: ERR_INVALID. */
zcta_status zc_check_size(struct zc_diag *diag, const char *call, size_t size);
/* Writes ours into a caller's struct, as far as its size field, which it keeps, allows. */
void zc_params_write(void *given, const void *known, size_t known_bytes);
/* OK, or ERR_INVALID in a child that fork() has made of the process that joined the job. */
zcta_status zc_check_process(const struct zc_diag *diag, const char *call);
/* Says that `what` is NULL, and returns ERR_INVALID. `diag`: as for zc_fail(). */
zcta_status zc_fail_null(struct zc_diag *diag, const char *call, const char *what);

/* ---- places.c ---- */

/* Which rank is on which node, and reaches whose memory: by rounds of the world, which is in the
 * making. Errors: those of zc_group_exchange(), and ERR_NO_MEMORY. */
zcta_status zc_learn_places(zcta_team *world);
void zc_forget_places(zcta_context *context);

/* By world rank: whose memory that one reaches, of those on its node; NULL: everybody's. */
static inline const bool *zc_reach_of(const zcta_context *context, uint32_t rank)
{
    return context->reach == NULL ? NULL : &context->reach[(size_t)rank * context->job.rank_count];
}

/* ---- address_map.c ---- */

enum zc_found { ZC_FOUND, ZC_NOT_FOUND, ZC_PAST_END };

zcta_status zc_map_init(struct zc_address_map *map, struct zc_diag *diag);
void zc_map_destroy(struct zc_address_map *map);
zcta_status zc_map_insert(struct zc_address_map *map, struct zc_diag *diag, zcta_window *window);
void zc_map_remove(struct zc_address_map *map, zcta_window *window);
/* Finds the window that holds `address`, by start and length. */
enum zc_found zc_map_find(struct zc_address_map *map, const void *address, uint64_t bytes,
                          zcta_window **window, uint64_t *offset);

/* ---- team_make.c ---- */

/* Makes the team and lists it. Collective over the ranks, which are checked. */
zcta_status zc_team_make(zcta_context *context, const uint32_t *ranks, uint32_t count,
                         const zcta_team_params *given, zcta_team **team);
void zc_team_free(zcta_team *team); /* local; nothing runs any more */

/* ---- team_failure.c ---- */

/* Its name for messages. */
const char *zc_team_title(const zcta_team *team);

/* Fails the team, the first time only, and tells the other ranks, also what one of them told us.
 * Waits for nothing; from any thread. */
void zc_team_fail(zcta_team *team, const zcta_error *failure);
/* The same as a group's broken(). */
zcta_status zc_team_broken(void *data, const zcta_error *why);
/* Under the context's lock: what is known of others' attempts at such a team, and that they are
 * over and done with. */
void zc_team_notice_endings(zcta_team *team);
void zc_team_forget_endings(zcta_context *context, uint64_t identity);
/* Under the context's lock: whether some rank has lost that one. */
bool zc_team_is_lost(const zcta_context *context, uint32_t rank);
/* Under the context's lock: fails the team if it lacks a rank that was lost before, and, once it is
 * as good as made, one that left. */
void zc_team_notice_losses(zcta_team *team, bool made);
/* Tells the other ranks that this one's attempt at the team is over; status OK: without a failure.
 */
void zc_team_tell(const zcta_team *team, const zcta_error *failure);
/* If another rank had given up the attempt with which this one joined: it is as before it joined,
 * and may join again. False if not so, or if the team has failed. */
bool zc_team_go_back(zcta_team *team);
/* Tells them that this one could not begin, for the calling thread's last error. */
void zc_team_refuse(zcta_context *context, const uint32_t *ranks, uint32_t count,
                    uint64_t identity);
/* What the guard calls; see struct zc_guard. */
void zc_team_on_missing(void *data, uint32_t peer);
void zc_team_on_late(void *data, uint32_t peer, const char *call, uint64_t waited_ns);
void zc_team_on_broken(void *data, const char *why);

static inline bool zc_team_failed(const zcta_team *team)
{
    return zc_guard_failed(&team->guard);
}

/* OK, or the team's failure, which then is the last error again, as one of `call`. */
zcta_status zc_team_check(zcta_team *team, const char *call);

/* The mesh's events: peers that go, and peers' word that a team has failed. */
void zc_team_event(void *data, const struct zc_mesh_event *event);

/* ---- knowledge.c ---- */

/* NCCL, loaded if it has not been; its version is 0 if there is none. Owned by the context. */
const struct zc_nccl_facts *zc_load_nccl(zcta_context *context);
/* The measurements that hold for this machine; NULL if there are none. Owned by the context. */
const struct zc_tuned *zc_load_tuned(zcta_context *context);
void zc_unload_all(zcta_context *context);

/* ---- team_nccl.c ---- */

/* What the paths are chosen from, and may differ between ranks: all must know what all have. */
struct zc_rank_facts {
    uint64_t gpu_id, tuned;
    struct zc_nccl_told nccl;
};

/* What this rank has of NCCL, which is loaded for that. */
void zc_team_read_nccl(const zcta_team *team, struct zc_rank_facts *mine);
/* One NCCL for all, or none for all: judges every rank's facts. */
void zc_team_compare_facts(zcta_team *team, const struct zc_rank_facts *facts);
void zc_team_close_nccl(zcta_team *team);

/* Before a call that asks for NCCL: compares what the ranks have of it, unless that was done when
 * the team was made. Collective the first time. Errors: ERR_TIMEOUT and ERR_PEER (the team has
 * failed), ERR_NO_MEMORY. */
zcta_status zc_team_compare_nccl(zcta_team *team, const char *call);
/* The team's engine, opened if it has not been. Errors: ERR_UNSUPPORTED, ERR_NO_MEMORY. */
zcta_status zc_team_nccl(zcta_team *team, struct zc_engine **engine);
/* For all teams of the context, in an order that all ranks share: the window goes; the engines
 * end. */
void zc_teams_deregister(zcta_context *context, const void *base);
void zc_teams_end_nccl(zcta_context *context);

/* ---- window.c ---- */

void zc_window_free_local(zcta_window *window);

/* ---- host_stream.c ---- */

/* Ends the context's host streams, once everything enqueued on them has run. */
void zc_streams_end(zcta_context *context);

/* ---- agreement.c ---- */

/* The engine that applies. */
zcta_engine zc_engine_asked(const zcta_team *team, const struct zc_asked *asked);
/* What all ranks of the team give alike in a call that was checked and chosen. */
struct zc_call_numbers zc_numbers_of(const struct zc_resolved *resolved);
/* Under check, before a run: compares the call among the ranks, in a round. `own` is how this
 * rank's own check went, which the others hear; it is returned if it says more than a difference
 * does. Errors: ERR_MISMATCH, ERR_TIMEOUT and ERR_PEER (the team has failed), ERR_NO_MEMORY. */
zcta_status zc_agree(zcta_team *team, const struct zc_resolved *resolved, const char *call,
                     bool captured, zcta_status own);
/* The same of calls whose ranks give their own rows, before these are exchanged: whoever makes
 * another call has one round with the others, and all are in step again. */
zcta_status zc_agree_on_rows(zcta_team *team, const struct zc_asked *asked, zcta_status own);
/* The guard's: fails the team, whose ranks are in different calls. */
void zc_on_mismatch(void *data, uint32_t peer, const struct zc_call_numbers *const *calls);

/* ---- call.c ---- */

/* Runs a call for the public function `name`. */
zcta_status zc_call_run(zcta_team *team, const char *name, const zcta_call *call,
                        zcta_stream stream);

/* ---- call_read.c ---- */

/* Reads a call's descriptor. Where ranks give their own rows only it meets the others, who must all
 * come. On success, and on failure too, zc_asked_free() frees what is in *asked.
 * Errors: ERR_INVALID, ERR_NO_MEMORY; of own rows also ERR_MISMATCH, ERR_TIMEOUT and ERR_PEER. */
zcta_status zc_call_read(zcta_team *team, const char *name, const zcta_call *given,
                         struct zc_asked *asked);
void zc_asked_free(struct zc_asked *asked);
/* Whether two calls are one and the same. */
bool zc_asked_same(const struct zc_asked *a, const struct zc_asked *b);

/* ---- call_resolve.c ---- */

/* What the path is chosen from, but for the layout. `window` is recv's; NULL where it does not
 * matter. */
struct zc_facts zc_facts_of(const zcta_team *team, const struct zc_asked *asked,
                            const struct zc_layout *layout, bool in_place,
                            const zcta_window *window);

/* Checks, chooses and resolves a call, which may be `releasable`. On success *resolved owns what is
 * in *asked, and the caller what is in *resolved. */
zcta_status zc_resolve(zcta_team *team, struct zc_asked *asked, bool releasable,
                       struct zc_resolved *resolved);
void zc_resolved_free(struct zc_resolved *resolved);
/* The checks and the choice alone. */
zcta_status zc_explain(zcta_team *team, const struct zc_asked *asked, zcta_report *report);

/* ---- call_cache.c ---- */

/* Finds a call that was resolved before, or resolves it in place of another one. On success it
 * takes what is in *asked; *resolved is the team's. */
zcta_status zc_cache_find(zcta_team *team, struct zc_asked *asked, struct zc_resolved **resolved);

/* ---- call_run.c ---- */

/* Before a run or a release: whether it is to go on. */
zcta_status zc_run_begin(zcta_team *team, const struct zc_resolved *resolved, const char *call,
                         zcta_stream stream);
/* Runs it, for the public function `call`: agreement check, engine, counters, evidence. */
zcta_status zc_run_resolved(zcta_team *team, struct zc_resolved *resolved, const char *call,
                            zcta_stream stream);
void zc_run_count(zcta_team *team, const struct zc_resolved *resolved);
/* After it: what the caller hears. */
zcta_status zc_run_end(zcta_team *team, struct zc_resolved *resolved, const char *call,
                       zcta_stream stream, zcta_status status);
/* Under check the others wait for this rank's word on the call, also when it refuses it. */
zcta_status zc_run_refuse(zcta_team *team, const struct zc_asked *asked, zcta_status status);

#endif
