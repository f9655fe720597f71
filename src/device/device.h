/* The device contract: what memory, streams, copies and signals are made of.
 *
 * A device offers memory that other ranks can map, streams, and the running of programs: plans
 * resolved to addresses. It knows neither collectives nor teams; it is given addresses, counters
 * and a guard, and obeys them. Every entry of the table is filled by every device. */
#ifndef ZC_DEVICE_H
#define ZC_DEVICE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/diag.h"
#include "zerocta/zerocta.h"

/* ---- Programs ---- */

enum zc_op_kind { ZC_OP_COPY, ZC_OP_SIGNAL, ZC_OP_WAIT, ZC_OP_FORK, ZC_OP_JOIN, ZC_OP_NETWORK };

/* One send or receive over the network. */
struct zc_transfer {
    uint32_t peer; /* the team rank */
    bool sends;
    void *address;
    size_t bytes;
};

struct zc_op {
    enum zc_op_kind kind;
    uint32_t peer; /* SIGNAL, WAIT: the team rank. FORK, JOIN: the lane */
    union {
        struct {
            void *to;
            const void *from;
            size_t bytes;  /* of a row */
            size_t stride; /* from one row to the next, on both sides */
            uint32_t rows;
            bool streamed; /* part of an output larger than the device's stream_bytes */
        } copy;
        struct {
            void *word; /* the slot: in the peer's pad (SIGNAL) or in this rank's (WAIT) */
            void *pad;  /* the pad that holds it */
            _Atomic uint32_t *count; /* how many were sent or awaited so far; this is the next */
            _Atomic uint32_t *note;  /* SIGNAL: gets the count before this one; NULL: nobody's */
            uint32_t turn;           /* ordinal of this signal or wait on its slot: 1, 2, .. */
            bool last;               /* WAIT: the program awaits nothing more on its slot */
            bool by_write;           /* the device's own: how it sends this signal */
            bool of_host;            /* SIGNAL: what it tells of lies in the host's memory */
        } flag;
        /* Over the network: what this rank sends and receives at once. */
        struct zc_op_network {
            /* Enqueues it on the lane's stream, as another library's work, the device current. Only
             * that library can let its waits go. NULL: the device's own affair (the simulation). */
            zcta_status (*enqueue)(const struct zc_op_network *network, zcta_stream stream);
            void *data;
            const struct zc_transfer *transfers; /* the program's */
            uint32_t count;
            uint64_t bytes; /* of all of them */
        } network;
    };
};

/* Counts. One thread at a time counts, others may look (relaxed). */
static inline uint32_t zc_count_next(_Atomic uint32_t *count)
{
    const uint32_t next = atomic_load_explicit(count, memory_order_relaxed) + 1;

    atomic_store_explicit(count, next, memory_order_relaxed);
    return next;
}

/* The number of a signal or wait: the next of its channel. */
static inline uint32_t zc_op_number(const struct zc_op *op)
{
    const uint32_t number = zc_count_next(op->flag.count);

    if (op->flag.note != NULL)
        atomic_store_explicit(op->flag.note, number - 1, memory_order_relaxed);
    return number;
}

/* What all ranks of a team give alike in a call, as numbers that mean nothing to a device, which
 * only sees whether they differ. */
enum { ZC_CALL_NUMBERS = 8 };

struct zc_call_numbers {
    uint64_t at[ZC_CALL_NUMBERS];
};

/* One number for all of them. */
static inline uint64_t zc_call_digest(const struct zc_call_numbers *numbers)
{
    uint64_t digest = UINT64_C(0x9e3779b97f4a7c15);

    for (uint32_t i = 0; i < ZC_CALL_NUMBERS; i++) {
        digest = (digest ^ numbers->at[i]) * UINT64_C(0xbf58476d1ce4e5b9);
        digest ^= digest >> 29;
    }
    return digest;
}

/* What a team's programs obey. The device reads it; the team owns it. */
struct zc_guard {
    /* A zcta_status; not OK: stop at once, leave the rest undone. Set once, by the team; whoever
     * sets it then calls wake(). Release by the setter, acquire by the device. */
    _Atomic uint32_t failed;
    const zcta_error *failure; /* why, from then on; NULL: nobody says */
    /* Order among a team's programs, whatever their streams: a program takes the next ticket when
     * it is submitted and runs when `finished` has counted all earlier ones; under a failed guard
     * they may end in any order. Only the device writes `finished` (release), after the program's
     * last access; a waiter reads it with acquire. */
    _Atomic uint32_t submitted;
    _Atomic uint32_t finished;
    _Atomic uint32_t turn_sleepers, turn_bell; /* the device's: threads asleep until it rings */
    uint64_t timeout_ns;                       /* longest single wait */
    /* This rank's own pad: its slots, what has been awaited on each, and, `graph_offset` bytes
     * behind, the same slots once more for captured programs (0: no such slots). */
    void *pad;
    void *const *pads; /* every rank's, as mapped here; NULL: of a rank on another node */
    uint32_t self;     /* pads[self] == pad */
    size_t pad_bytes, pad_head_bytes, slot_bytes, graph_offset;
    /* Slot i belongs to the signals of rank i % rank_count. */
    uint32_t slot_count, rank_count;
    const _Atomic uint32_t *seen;
    bool pads_at_host; /* all of them: memory_alloc() made them ZC_ON_HOST */
    void *device_data; /* the device's, between attach() and detach() */
    /* Set by detach(): something in the device does not end, and may look at the guard as long as
     * the process lives. Its owner frees neither it nor what it points to, and does not call on. */
    bool kept;
    /* Called once a wait has lasted timeout_ns, from the thread that waits. It sets `failed`.
     * ZCTA_NO_RANK: the work of another library is late, though all ranks have begun it. */
    void (*on_missing)(void *data, uint32_t peer);
    /* Called once in a program's run, when a wait of it has lasted zc_first_word_ns(timeout_ns):
     * says for whom it waits, and changes nothing. `call` is the program's; NULL: not known. From
     * any thread, without a lock. ZCTA_NO_RANK: as for on_missing(). */
    void (*on_late)(void *data, uint32_t peer, const char *call, uint64_t waited_ns);
    /* `peer` makes another call than this rank, as far as the device can see that. It sets
     * `failed`. What each rank gives, if it is in a call of the same number: calls[rank], NULL if
     * not known.
     */
    void (*on_mismatch)(void *data, uint32_t peer, const struct zc_call_numbers *const *calls);
    /* Another library's work has broken off: `why` is a sentence. From any thread. */
    void (*on_broken)(void *data, const char *why);
    void *data;
};

static inline uint32_t zc_guard_submitted(const struct zc_guard *guard)
{
    return atomic_load_explicit(&guard->submitted, memory_order_acquire);
}

/* Whether that many programs have finished. */
static inline bool zc_guard_counted(const struct zc_guard *guard, uint32_t count)
{
    return (int32_t)(atomic_load_explicit(&guard->finished, memory_order_seq_cst) - count) >= 0;
}

/* Whether the team has failed. Pairs with the store in api/team_failure.c. */
static inline bool zc_guard_failed(const struct zc_guard *guard)
{
    return atomic_load_explicit(&guard->failed, memory_order_acquire) != ZCTA_OK;
}

/* Whether the program of that ticket has finished, so that it may be freed. Those that ended before
 * others ended under a failed guard, which can be seen by whoever sees the count. */
static inline bool zc_guard_has_finished(const struct zc_guard *guard, uint32_t ticket)
{
    return zc_guard_counted(guard, ticket) &&
           (!zc_guard_failed(guard) || zc_guard_counted(guard, zc_guard_submitted(guard)));
}

/* Whom `peer`, which this rank waits for, waits for itself, and so on: the one that all are held up
 * by. `awaited_by` tells for whom a rank waits; ZCTA_NO_RANK: for nobody. No plan has ranks wait
 * for each other in a circle; who makes other calls than the rest may. */
typedef uint32_t zc_awaited_by_fn(const void *data, uint32_t rank);

static inline uint32_t zc_guard_absent(const struct zc_guard *guard, uint32_t peer,
                                       zc_awaited_by_fn *awaited_by, const void *data)
{
    uint32_t absent = peer;

    for (uint32_t i = 0; i < guard->rank_count; i++) {
        const uint32_t next = awaited_by(data, absent);

        if (next == ZCTA_NO_RANK)
            return absent == guard->self ? peer : absent;
        absent = next;
    }
    return peer;
}

/* The ops of a lane stand together, in their order. Lane 0 begins; FORK starts another lane, JOIN
 * waits for its end. A device that cannot be sure to run lanes side by side runs the ops in the
 * order of the plan: then nothing waits for what comes later. Belongs to the engine; must outlive
 * its runs. */
struct zc_program {
    struct zc_guard *guard;
    const char *call; /* its name, for messages; static */
    struct zc_call_numbers numbers;
    uint64_t digest;     /* of them */
    bool eager_only;     /* capturing it into a graph is refused */
    uint32_t wait_count; /* the device's: of its ops, counted by bind() */
    uint32_t lane_count;
    uint32_t *lane_begin; /* lane_count + 1 indexes into ops */
    struct zc_op *ops;
    uint8_t *order; /* the plan's: whose lane's op comes next; NULL: there is one lane */
    struct zc_transfer *transfers; /* those of its network ops, one behind the other */
    uint32_t transfer_count;
};

/* ---- Memory ---- */

/* Where memory lies: with the device that allocates it, where other devices may not reach it, or
 * with the host, where all of the machine do. A device that is the host knows no difference. */
enum zc_where { ZC_ON_DEVICE, ZC_ON_HOST };

/* The head of every device's memory object. */
struct zc_memory {
    void *base;
    size_t bytes;
};

enum { ZC_FABRIC_HANDLE_BYTES = 64, ZC_MEMORY_PIECES_MOST = 16384 };

/* What travels to a peer that shall map the memory, together with a file descriptor if there is
 * one. Plain bytes, the same layout in every process of a job. */
struct zc_memory_handle {
    uint64_t bytes;
    uint64_t local_id; /* finds the memory again in the process that made it; see local_memory.h */
    uint64_t has_fd;
    uint64_t offset,
        mapped_bytes; /* where it lies in what the descriptor stands for; 0: all of it */
    /* Memory of a caller's may be made of several allocations, each with a handle. The first one's
     * says how many (0 or 1: it is the only one) and how large all are; piece_bytes is its own. */
    uint64_t pieces, piece_bytes;
    uint64_t at_host; /* the host's, not a device's */
    uint64_t has_fabric;
    uint8_t fabric[ZC_FABRIC_HANDLE_BYTES]; /* for peers on other hosts, instead of a descriptor */
};

/* ---- Capabilities ---- */

struct zc_device_caps {
    const char *name;      /* "host" */
    const char *title;     /* of its copies in log lines: "Host Copy", "Copy Engine" */
    const char *signals;   /* how signals are made: "by futex" */
    uint32_t lanes;        /* lanes that really run side by side */
    size_t lane_bytes;     /* an own share up to this size is not worth a lane of its own */
    size_t block_bytes;    /* copies are best made in blocks of this size; 0: whole */
    size_t group_bytes;    /* up to shares of this size a plan's pushes stand together; 0: never */
    size_t stream_bytes;   /* larger outputs are written past the caches; 0: none */
    size_t slot_bytes;     /* distance of two slots of a pad */
    size_t pad_head_bytes; /* before the first slot */
    size_t scratch_bytes;  /* one half of a team's scratch window */
    size_t bounce_bytes;   /* the slot behind them, for own shares that go out and back; 0: none */
    size_t host_bytes;     /* one half of a team's host memory, where it has some */
    uint32_t host_ranks;   /* from so many ranks on a team has some in any case; 0: never */
    size_t ring_bytes;     /* the ring behind the halves, where the ranks do not reach each other */
    uint64_t gpu_id;  /* tells GPUs apart, across processes; 0: there is nothing to tell apart */
    int32_t gpu;      /* the GPU's ordinal, where there is one */
    bool graph_slots; /* programs can be captured; pads have a second set of slots */
    bool local_copy_needs_sm; /* a copy within one device occupies SMs */
    bool pull_small;          /* reading from a peer is as good as writing to it */
    bool runs_at_once; /* what submit() was given on the default stream has run when it returns */
    char model[64];    /* of the GPU; "" on the host */
    int32_t driver_version; /* CUDA's, 13000 for 13.0; 0: there is none */
};

struct zc_device;
struct zc_view {
    const void *base;
    size_t bytes, stride;
};

struct zc_device_params {
    struct zc_diag *diag; /* outlives the device */
    uint32_t local_rank;  /* among the ranks of this machine */
    uint32_t local_rank_count;
    uint32_t gpu;        /* 1 + the ordinal of the GPU; 0: the device's choice */
    uint64_t timeout_ns; /* longest time without progress; 0: any */
};

/* Streams are zcta_stream; NULL is the device's default. No entry is called with a NULL object
 * unless it says so. Errors are said through the device's diag. */
struct zc_device_ops {
    zcta_device kind; /* ranks of a team must be of one kind */
    zcta_status (*open)(const struct zc_device_params *params, struct zc_device **device);
    void (*close)(struct zc_device *device); /* every memory and stream is gone before */
    void (*describe)(const struct zc_device *device, struct zc_device_caps *caps);

    /* The job has several hosts: what tells apart the domains, hosts in which ranks can map each
     * other's memory; 0: it reaches no further than its host. Memory made from then on can leave
     * for the whole domain. */
    uint64_t (*join_domain)(struct zc_device *device);

    /* Whether this device reaches the memory of the one whose caps.gpu_id that is, on this machine;
     * true too if that cannot be told. */
    bool (*reaches)(struct zc_device *device, uint64_t gpu_id);

    /* Zeroed and committed. `sharers`: how many ranks of this machine, this one among them,
     * allocate as much at the same time. Errors: ERR_NO_MEMORY, ERR_SYSTEM, ERR_TIMEOUT,
     * ERR_DEVICE. */
    zcta_status (*memory_alloc)(struct zc_device *device, enum zc_where where, size_t bytes,
                                uint32_t sharers, struct zc_memory **memory);
    /* Memory of the caller's. Errors: ERR_UNSUPPORTED and those of memory_alloc. */
    zcta_status (*memory_adopt)(struct zc_device *device, void *base, size_t bytes,
                                struct zc_memory **memory);
    /* *fd stays the memory's; -1 if there is none. */
    zcta_status (*memory_export)(struct zc_device *device, struct zc_memory *memory,
                                 struct zc_memory_handle *handle, int *fd);
    /* Maps a peer's memory. `fd` stays the caller's, -1 if none came; `same_process` is the
     * kernel's word on where the handle came from. */
    zcta_status (*memory_import)(struct zc_device *device, const struct zc_memory_handle *handle,
                                 int fd, bool same_process, struct zc_memory **memory);
    /* The further pieces, from 1 on, in their order; what is imported is whole with the last.
     * Imported memory of this process's own needs none. */
    zcta_status (*memory_export_piece)(struct zc_device *device, struct zc_memory *memory,
                                       uint32_t piece, struct zc_memory_handle *handle, int *fd);
    zcta_status (*memory_import_piece)(struct zc_device *device, struct zc_memory *memory,
                                       uint32_t piece, const struct zc_memory_handle *handle,
                                       int fd);
    void (*memory_release)(struct zc_device *device, struct zc_memory *memory); /* NULL is fine */

    /* Maps the parts one behind the other, read only. Errors: ERR_UNSUPPORTED, ERR_SYSTEM. */
    zcta_status (*view_map)(struct zc_device *device, struct zc_memory *const *parts,
                            uint32_t count, struct zc_view *view);
    void (*view_unmap)(struct zc_device *device, const struct zc_view *view);

    /* A guard whose pad is set begins and ends to be used. detach() comes when nothing runs, or
     * after a drain() that gave up; see zc_guard.kept. */
    zcta_status (*attach)(struct zc_device *device, struct zc_guard *guard);
    void (*detach)(struct zc_device *device, struct zc_guard *guard);
    /* Makes a program ready to be submitted, once: whatever must be asked or allocated, now. */
    zcta_status (*bind)(struct zc_device *device, struct zc_program *program);

    /* Enqueues a program and returns; on a stream that runs in the caller it has finished then.
     * Allocates nothing. What goes wrong inside the program is the guard's affair; the returned
     * status tells of enqueueing, and, where the program has run in the caller, whether it has done
     * all that it was to do, whatever became of the team meanwhile. */
    zcta_status (*submit)(struct zc_device *device, const struct zc_program *program,
                          zcta_stream stream);
    /* Makes the device current to the calling thread, as another library's calls expect it, and
     * undoes that. A thread that ends need not leave. */
    zcta_status (*enter)(struct zc_device *device);
    void (*leave)(struct zc_device *device);
    /* Whether what is submitted to the stream now goes into a graph. */
    zcta_status (*is_capturing)(struct zc_device *device, zcta_stream stream, bool *capturing);
    /* The guard has failed: every wait under it ends soon. From any thread. */
    void (*wake)(struct zc_device *device, struct zc_guard *guard);
    /* Waits until every submitted program under the guard has finished: as long as the streams take
     * to reach them, and each wait in them no longer than the timeout. A host stream is held up by
     * callbacks only, which are the user's; once the guard has failed, what it has not begun is
     * taken back. On a GPU, if for about twice the timeout nothing has finished, the guard fails,
     * and what the programs use stays until the process ends, though it be freed. */
    void (*drain)(struct zc_device *device, struct zc_guard *guard);
};

extern const struct zc_device_ops zc_device_host;
extern const struct zc_device_ops zc_device_cuda;

#endif
