/* SPDX-License-Identifier: Apache-2.0
 *
 * zerocta: collectives that leave every SM to compute.
 *
 * A job is a set of ranks; each rank is a process or a thread and holds one context. Ranks form
 * teams. Memory that the ranks of a team allocate together is a symmetric window: each rank can
 * reach every other rank's part of it. A collective is turned into a plan (copies, signals and
 * waits), and the plan runs on a device: the host's shared memory, or GPU copy engines.
 *
 *     #include <zerocta/zerocta.h>
 *
 *     int main(void)
 *     {
 *         enum { BYTES = 1024 };                                 // one rank's share
 *         zcta_context *context = NULL;
 *         if (zcta_init(NULL, &context) != ZCTA_OK)              // who am I: from the environment
 *             return 1;
 *
 *         zcta_team *world = zcta_world(context);
 *         uint32_t   rank = zcta_team_rank(world), count = zcta_team_rank_count(world);
 *         zcta_window *window = NULL;
 *         zcta_status status = zcta_window_alloc(world, BYTES * count, &window);  // collective
 *
 *         if (status == ZCTA_OK) {
 *             char *all = zcta_window_base(window), *mine = all + BYTES * rank;
 *             memset(mine, (int)rank, BYTES);
 *             status = zcta_all_gather(world, mine, all, BYTES, NULL, NULL);  // in place
 *         }
 *         zcta_finalize(&context);                               // frees what is left
 *         return status != ZCTA_OK;
 *     }
 *
 * Rules that hold for every call
 *
 * - Sizes are in bytes, times in nanoseconds. Ranks in a team count from 0.
 * - «Collective» means: every rank of the team makes the same call, in the same order.
 * - Outputs are written only when the call returns ZCTA_OK. Every other status leaves a sentence of
 *   its own for zcta_last_error(), under the call's name, also where a handle was NULL.
 * - Handles belong to the context they came from. What the caller creates, the caller frees;
 *   zcta_finalize() frees the rest. A call that frees a handle sets the caller's pointer to NULL.
 * - Threads: different teams may be used by different threads at once. One team, its windows and
 *   its plans are used by one thread at a time. zcta_init() and zcta_finalize() of different
 *   contexts may run at once.
 * - Parameter structs begin with their own size: zero the struct, set `size`, set what you need.
 *   Zero means default. A struct from a newer header is accepted as long as the fields this
 *   library does not know are zero.
 * - No call waits for ever: «What may block» below says on what, and for how long. The exception
 *   is the caller's own: a host stream's callback that does not return holds up whoever waits for
 *   that stream. Whoever has waited for 5 s, or for a quarter of the deadline if that is less,
 *   says in the log for whom, once a wait.
 * - Waiting counts, copying does not: a rank's own copies may take as long as they take. But a
 *   rank whose copies are done waits for those that still copy, and that counts: if a peer's
 *   copies take longer than its own by more than the deadline, the team fails.
 * - On a GPU a deadline is told late if the program's own work holds up even a look at the GPU: by
 *   as long as that lasts, up to a quarter of the deadline. After that quarter a second CUDA
 *   context is made to look with, for a while (0.5 GiB of the GPU's memory), and the wait counts
 *   anew from the first look there: on two H100 a deadline of 3 s was told after 3.9 to 4.0 s. If
 *   the wait had lasted for a while before the look was held up, it is told that much later, so
 *   after more than two deadlines at worst.
 * - A host call that is collective ends on all ranks, or the team fails on all ranks; it is never
 *   done on some and to be tried again on others.
 * - A failed team carries the sentence of the rank that saw the cause first and told the others, so
 *   that all ranks of a host name the same rank (between hosts the first word to arrive counts);
 *   what keeps a rank itself from going on, no memory for example, it says in its own words.
 * - After fork() only the parent uses the context: in the child every call on it returns
 *   ERR_INVALID and changes nothing, also zcta_finalize(). The child may call exec() or _exit().
 *   Windows stay mapped in it, so their memory is given back when it ends.
 * - The library never calls exit(), abort() or signal(), and prints only what ZEROCTA_LOG asks for.
 * - What it leaves to the program: signals reach the program's threads only, but for those that a
 *   thread causes itself (SIGSEGV and the like); the library's threads run on the cores of the
 *   thread that made them; the locale changes no number; limits (setrlimit, control groups) are
 *   errors that name them, not the end of the process. Of descriptors it keeps only such from 3 on,
 *   closed by exec(); standard ones that are closed when zcta_init() is called stay unusable
 *   (EBADF), but nobody gets their numbers any more, unless the program opens or closes them
 *   itself. After dlclose() the library stays loaded, because its threads may run.
 *
 * What may block, on what, and for how long. «Deadline» is the team's timeout_ns. «Drain» waits
 * for the work of the team that was submitted. docs/architecture.md says more.
 *
 *   zcta_init                       the others, to connect: the deadline of joining; then rounds
 *                                   of the world: the deadline each
 *   zcta_team_get, _split,          rounds among the ranks: the deadline each
 *   zcta_window_alloc, _register,
 *   zcta_team_exchange, all under
 *   check, NCCL's first calls, all
 *   calls with own rows (zcta_call)
 *   a collective, zcta_release      with a NULL host stream: its turn behind the team's programs
 *                                   on host streams, as long as those take; then each wait: the
 *                                   deadline. With another stream: room behind 1024 others, and
 *                                   drain where a recent call that it replaces is still under way
 *   zcta_plan_free                  drain
 *   zcta_window_free,               drain; then a round, unless the team has failed: the deadline
 *   zcta_team_destroy
 *   zcta_finalize                   all that is on host streams; drain of all teams; then a round
 *                                   of the world, or, once that has failed, of the teams of those
 *                                   who are left: one deadline for all
 *   zcta_host_stream_call           room behind 1024 others
 *   zcta_host_stream_synchronize,   all that is on the stream
 *   _destroy
 *   all others                      no rank and no stream
 *
 * Drain and room last, while the team is well, as long as its streams take, and the deadline for
 * each wait in them. On a GPU they are given up when nothing has ended for two deadlines and 2 s,
 * because other work ahead in the stream does not end: then the team fails, and the memory stays
 * mapped until the process ends. Of a failed team they last no longer than a copy that is under
 * way; on a GPU until its streams have been let go, and are given up when nothing has ended for
 * 2 s and the deadline, or for 12 s if that is less. A communicator that NCCL does not end when
 * its team is given back is waited for until the deadline.
 *
 * Environment: a value that is not known is ERR_ENVIRONMENT, a ZEROCTA_ name that is not known is
 * told in the log. ZEROCTA_LOG=off|error|warn|info|debug (warn if unset) selects what goes to
 * stderr; ZEROCTA_CHECK=1 makes the ranks of a team compare their calls before each collective
 * («Rules for all of them» says what happens without); ZEROCTA_TIMEOUT=seconds is the deadline of
 * every wait for another rank, where the program sets none. For the rendezvous ZEROCTA_TOKEN is
 * the job's secret, ZEROCTA_JOB a name that the ranks of one launch share with no other (see
 * zcta_init()), ZEROCTA_PORT overrides the port, ZEROCTA_REMOTE=1 allows addresses beyond the
 * loopback, as jobs over several machines need; there ZEROCTA_ADDRESS is the address at which the
 * others reach this rank, if that is not the one by which it reaches rank 0. Host names are
 * resolved by the deadline of zcta_init(). ZEROCTA_NODE is a number from 1 on; ranks that say
 * different ones count as on different machines. A rank with ZEROCTA_P2P=0 reaches no other rank's
 * memory and none reaches its own, as GPUs without NVLink or peer access do not: its teams go
 * through the host's memory (docs/architecture.md). Where a process sees no other GPU than its own
 * (CUDA_VISIBLE_DEVICES) the library cannot ask whether they reach each other, and takes it that
 * they do. On GPUs a signal to another GPU is a 4-byte copy;
 * with ZEROCTA_SIGNALS=write those that do not follow a data copy are stream memory writes, where
 * the driver has them (before CUDA 13.1). ZEROCTA_NCCL_LIBRARY names NCCL's library, or is "none";
 * ZEROCTA_NCCL_SYMMETRIC=1, on all ranks, lets NCCL's kernels use symmetric windows, which is
 * faster for small calls, but no abort ends them: if a rank dies, the others' processes have to
 * end; ZEROCTA_TUNE_FILE names the file of `zerocta tune`. Loading NCCL sets NCCL_NVLS_ENABLE=0
 * unless it is set; see docs/nccl.md.
 */
#ifndef ZEROCTA_H
#define ZEROCTA_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define ZCTA_API __attribute__((visibility("default")))
#else
#define ZCTA_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define ZCTA_VERSION_MAJOR 0
#define ZCTA_VERSION_MINOR 2
#define ZCTA_VERSION_PATCH 0

/* ---- Status and errors ---- */

/* One X-macro lists the statuses; the values are frozen. */
#define ZCTA_STATUS_LIST(X)                                                                        \
    X(OK, 0, "success")                                                                            \
    X(ERR_INVALID, 1, "an argument is not valid")                                                  \
    X(ERR_NO_MEMORY, 2, "out of memory")                                                           \
    X(ERR_SYSTEM, 3, "the operating system refused a call")                                        \
    X(ERR_ENVIRONMENT, 4, "the launcher's environment is incomplete or contradictory")             \
    X(ERR_RENDEZVOUS, 5, "the ranks could not find each other")                                    \
    X(ERR_TIMEOUT, 6, "a deadline passed")                                                         \
    X(ERR_PEER, 7, "a rank died or left")                                                          \
    X(ERR_MISMATCH, 8, "the ranks do not agree on the call")                                       \
    X(ERR_NOT_IN_WINDOW, 9, "a buffer is not inside a window of this team")                        \
    X(ERR_POLICY, 10, "the CTA policy forbids every path that could run")                          \
    X(ERR_UNSUPPORTED, 11, "this build, device or machine cannot do that")                         \
    X(ERR_BUSY, 12, "the object is still in use")                                                  \
    X(ERR_DEVICE, 13, "a device or driver call failed")

typedef enum zcta_status {
#define ZCTA_STATUS_ENUM(name, value, text) ZCTA_##name = (value),
    ZCTA_STATUS_LIST(ZCTA_STATUS_ENUM)
#undef ZCTA_STATUS_ENUM
} zcta_status;

#define ZCTA_NO_RANK UINT32_MAX

/* What went wrong, and where. `rank` is the world rank that the message is about (the missing or
 * differing one), or the caller's own; ZCTA_NO_RANK when no rank is known yet. `native` is the
 * errno or driver code behind it, or 0. `call` is what failed: a call of this library, or the
 * system's or driver's behind it. */
typedef struct zcta_error {
    zcta_status status;
    uint32_t rank;
    int64_t native;
    char call[48];
    char message[464];
} zcta_error;

/* "ZCTA_ERR_TIMEOUT" and "a deadline passed"; never NULL, static, from any thread. */
ZCTA_API const char *zcta_status_name(zcta_status status);
ZCTA_API const char *zcta_status_text(zcta_status status);

/* major << 16 | minor << 8 | patch of the library that is loaded. */
ZCTA_API uint32_t zcta_version(void);

typedef struct zcta_context zcta_context; /* one rank's membership of a job */
typedef struct zcta_team zcta_team;       /* an ordered set of ranks */
typedef struct zcta_window zcta_window;   /* symmetric memory of a team */
typedef struct zcta_plan zcta_plan;       /* a prepared collective */

/* A cudaStream_t on CUDA. On the host a zcta_host_stream, or NULL to run inside the call. */
typedef void *zcta_stream;

/* Copies the error of the calling thread's last call that failed, on this context or with a NULL
 * handle. If this thread has met none, the context's most recent one of any thread, that of a team
 * that failed meanwhile included. With a NULL context, the calling thread's. From any thread.
 * Errors: ERR_INVALID (error is NULL). With no error so far, error->status is ZCTA_OK. */
ZCTA_API zcta_status zcta_last_error(zcta_context *context, zcta_error *error);

/* ---- Context ---- */

typedef enum zcta_device {
    ZCTA_DEVICE_AUTO = 0, /* CUDA where there is a GPU that can do it, else the host */
    ZCTA_DEVICE_HOST = 1, /* shared memory, copies by the CPU */
    ZCTA_DEVICE_CUDA = 2, /* GPU memory, copies by the copy engines */
} zcta_device;

/* An allgather among the ranks of the job, given by the caller: places every rank's `bytes` bytes
 * at all + rank * bytes. Returns 0 on success. Called once inside zcta_init(), by a rank that fails
 * there too, so that the others hear of it: also if its parameters are refused, as far as their
 * size reaches. */
typedef int (*zcta_exchange_fn)(void *data, const void *mine, void *all, size_t bytes);

/* Who this rank is and how it finds the others, in this order of precedence:
 *   1. rank_count != 0 and exchange: through the caller's function;
 *   2. rank_count != 0 and root: through a TCP port that rank 0 opens at `root`
 *      ("127.0.0.1:29400");
 *   3. rank_count == 1: alone;
 *   4. rank_count == 0: the environment of `zerocta run`, torchrun, Open MPI, MPICH, Intel MPI,
 *      PALS, Flux or Slurm, see docs/launchers.md; with none of these, one rank alone. Launchers
 *      that contradict each other are an error, and so are variables that say only half. */
typedef struct zcta_init_params {
    size_t size; /* sizeof(zcta_init_params) */
    uint32_t rank;
    uint32_t rank_count;
    const char *root;  /* loopback addresses only, unless ZEROCTA_REMOTE=1 */
    const char *token; /* secret shared by the ranks; strongly advised with `root` */
    zcta_exchange_fn exchange;
    void *exchange_data;
    zcta_device device;
    uint32_t check;      /* not 0: as ZEROCTA_CHECK=1 */
    uint64_t timeout_ns; /* longest wait for a peer anywhere; 0: ZEROCTA_TIMEOUT seconds. Without
                            either 120 s until all ranks are connected, in zcta_init(), and 600 s
                            afterwards: a rank may be late, and one that has died is noticed at
                            once */
    zcta_error *error;   /* if not NULL, filled when zcta_init() fails */
    uint32_t gpu;        /* CUDA: 1 + the GPU's ordinal; 0: the one that the calling thread's
                            current CUDA context is on, else the local rank modulo the GPUs */
    uint64_t node;       /* ranks that say different numbers count as on different machines; all
                            say one, or none. 0: ZEROCTA_NODE, or none said */
} zcta_init_params;

/* Joins the job. Collective over the world. `params` may be NULL: all from the environment.
 * Ranks on different machines are connected by TCP: each listens at a port of its own meanwhile,
 * and proves the token or, through `exchange`, a key made for the job.
 * A rank that cannot join tells the others why, so that all fail at once; where it finds nobody, it
 * returns a second later for that.
 *
 * Which ranks belong together is decided by what names their launch: the launcher's name for it,
 * ZEROCTA_JOB, or a token that no other launch has. Ranks with different names never become one
 * job, in whatever order they come. Where nothing names the launch (RANK, WORLD_SIZE and MASTER_*
 * set by hand, or `root`), two launches at one root are told apart by their seats only: if two
 * processes come for one rank until 100 ms after the last seat has been taken, both launches fail.
 * A job that has formed by then, perhaps of ranks of both, goes on without the others. So name
 * the launch: set ZEROCTA_JOB.
 *
 * Errors: ERR_INVALID, ERR_ENVIRONMENT (names the missing variable), ERR_RENDEZVOUS (port taken,
 * wrong token, another version of zerocta, two processes that are the same rank), ERR_TIMEOUT
 * (names a missing rank), ERR_UNSUPPORTED (no such device), ERR_SYSTEM, ERR_NO_MEMORY. */
ZCTA_API zcta_status zcta_init(const zcta_init_params *params, zcta_context **context);

/* Leaves the job and frees the context with everything in it. Collective over the world; ranks
 * that have died are not waited for: those who are left meet in the teams that they still have
 * together, so that none sees another leave in the middle of its last call there. Always frees,
 * whatever it returns; sets *context to NULL.
 * Errors: ERR_INVALID (NULL, or finalized before), ERR_TIMEOUT (a rank did not come), ERR_PEER. */
ZCTA_API zcta_status zcta_finalize(zcta_context **context);

/* The team of all ranks. Owned by the context. NULL for a NULL context. */
ZCTA_API zcta_team *zcta_world(zcta_context *context);

/* The device in use: HOST or CUDA; AUTO for a NULL context. */
ZCTA_API zcta_device zcta_context_device(const zcta_context *context);

/* The ordinal of the GPU in use; -1 on the host. */
ZCTA_API int32_t zcta_context_gpu(const zcta_context *context);

/* The world ranks that are alive as far as this one knows, the caller among them, ascending:
 * neither dead nor gone by zcta_finalize(). Writes up to *count of them and sets *count to how many
 * there are. `ranks` may be NULL to ask for the number. Local; from any thread.
 *
 * After a failure the survivors go on in a team of their own. A death is noticed by all at once,
 * but not in the same moment. If their lists differ, the team of a list that names a dead rank
 * fails with ERR_PEER on all that ask for it, and their next list is the others' too; those wait
 * for them. (Where no rank died, and two only lost the connection between them, all others leave
 * out both.) A rank that is late, or was stopped, is alive: if it shall stay out, all leave it out,
 * by the rank that zcta_team_failure() names.
 *
 *     uint32_t alive[64], count;
 *     zcta_status status;
 *
 *     do {
 *         count = 64;                                         // as many as the world has ranks
 *         status = zcta_context_ranks_alive(context, alive, &count);
 *         if (status == ZCTA_OK)
 *             status = zcta_team_get(context, alive, count, NULL, &team);
 *     } while (status == ZCTA_ERR_PEER);
 *
 * Errors: ERR_INVALID. */
ZCTA_API zcta_status zcta_context_ranks_alive(zcta_context *context, uint32_t *ranks,
                                              uint32_t *count);

/* ---- Teams ---- */

/* Whether a collective may use SMs. A policy belongs to one team or to one call; it is never
 * inherited and never spreads. */
typedef enum zcta_policy {
    ZCTA_POLICY_UNSET = 0,      /* a team: DEFAULT. A call: the team's */
    ZCTA_POLICY_DEFAULT = 1,    /* the fastest path, SMs allowed */
    ZCTA_POLICY_EFFICIENCY = 2, /* no SM where that is possible, else a reported fall-back */
    ZCTA_POLICY_ZERO = 3,       /* no SM, or ZCTA_ERR_POLICY and the reason */
} zcta_policy;

typedef enum zcta_engine {
    ZCTA_ENGINE_AUTO = 0, /* a team: chosen for each call. A call: the team's */
    ZCTA_ENGINE_CE = 1,   /* plans run on the device: copy engines on GPUs */
    ZCTA_ENGINE_NCCL = 2, /* NCCL 2.19 or newer, loaded at run time */
} zcta_engine;

typedef struct zcta_team_params {
    size_t size; /* sizeof(zcta_team_params) */
    zcta_policy policy;
    zcta_engine engine;
    const char *name;    /* part of the team's identity and of its log lines; at most 31 bytes */
    uint64_t timeout_ns; /* longest wait for a peer in this team; 0: the context's */
} zcta_team_params;

/* The team of these world ranks, in this order, with this policy, engine and name: made on first
 * use, the same handle afterwards. Collective over the listed ranks when it is made; the caller is
 * one of them. `params` may be NULL.
 * Errors: ERR_INVALID (unknown, duplicate or absent own rank, bad params), ERR_TIMEOUT and ERR_PEER
 * (name a rank that did not come), ERR_NO_MEMORY, ERR_SYSTEM. */
ZCTA_API zcta_status zcta_team_get(zcta_context *context, const uint32_t *ranks,
                                   uint32_t rank_count, const zcta_team_params *params,
                                   zcta_team **team);

/* Splits a team: ranks with the same color form a team, ordered by key, then by rank. A negative
 * color takes part and gets *part = NULL. Collective over `team`. Errors: as zcta_team_get(). */
ZCTA_API zcta_status zcta_team_split(zcta_team *team, int32_t color, int32_t key,
                                     const zcta_team_params *params, zcta_team **part);

/* Gives a team back. Collective over the team; sets *team to NULL. A team that failed is given back
 * without waiting for anyone.
 * Errors: ERR_INVALID (NULL, or the world), ERR_BUSY (windows or plans of it live: nothing
 * changed), ERR_TIMEOUT, ERR_PEER (given back all the same). */
ZCTA_API zcta_status zcta_team_destroy(zcta_team **team);

ZCTA_API uint32_t zcta_team_rank(const zcta_team *team); /* the caller's; ZCTA_NO_RANK for NULL */
ZCTA_API uint32_t zcta_team_rank_count(const zcta_team *team); /* 0 for NULL */
ZCTA_API uint32_t zcta_team_world_rank(const zcta_team *team,
                                       uint32_t rank);        /* ZCTA_NO_RANK: no such */
ZCTA_API zcta_policy zcta_team_policy(const zcta_team *team); /* UNSET for NULL */
ZCTA_API zcta_engine zcta_team_engine(const zcta_team *team);

/* OK, or why the team failed; the context's last error then names the rank. A failed team stays
 * failed: outputs of unfinished collectives are undefined, later calls return the same status, and
 * teams without the missing rank go on. From any thread. */
ZCTA_API zcta_status zcta_team_status(zcta_team *team);

/* The same as a sentence, of this team alone: the context's last error may be another team's by
 * now, if several fail at once. While the team is well, error->status is ZCTA_OK. From any thread.
 * Errors: ERR_INVALID (a NULL argument). */
ZCTA_API zcta_status zcta_team_failure(zcta_team *team, zcta_error *error);

/* How often each path has run in this team. */
typedef struct zcta_path_counter {
    size_t size;   /* sizeof(zcta_path_counter), set in each before the call */
    char path[48]; /* "all_gather/ce/direct-push" */
    uint64_t calls;
    uint64_t bytes;     /* that came into this rank's outputs, summed over the calls */
    uint64_t fallbacks; /* calls under EFFICIENCY that had to use SMs */
} zcta_path_counter;

/* Lists what has run: writes up to *count counters and sets *count to how many there are.
 * `counters` may be NULL to ask for the number. Errors: ERR_INVALID. */
ZCTA_API zcta_status zcta_team_counters(zcta_team *team, zcta_path_counter *counters,
                                        uint32_t *count);

/* Bytes among the ranks, over the sockets that connect them, no device involved: places every
 * rank's `bytes` bytes at all + rank * bytes. Collective; `bytes` is the same on all ranks, 64 KiB
 * at most; returns when all ranks' bytes are there. With 0 bytes the ranks meet all the same, and
 * `mine` and `all` may be NULL. For addresses, names and counts, not for data: it takes tens of
 * microseconds and more.
 * Errors: ERR_INVALID, ERR_MISMATCH (other ranks give another size, or make another call),
 * ERR_TIMEOUT and ERR_PEER (the team has failed), ERR_NO_MEMORY, ERR_SYSTEM. */
ZCTA_API zcta_status zcta_team_exchange(zcta_team *team, const void *mine, void *all, size_t bytes);

/* ---- Symmetric windows ---- */

/* Allocates `bytes` on every rank of the team and maps everybody's part. Collective; the sizes are
 * compared. The memory is zeroed, aligned to a page at least, and committed: it cannot run out
 * later. Usable by every team whose ranks all belong to this one.
 * Errors: ERR_INVALID (0 bytes), ERR_MISMATCH (names the rank that asks for another size),
 * ERR_NO_MEMORY (more than the machine can give), ERR_SYSTEM, ERR_TIMEOUT and ERR_PEER (the team
 * has failed). A rank's failure to allocate is reported on all ranks; nothing is left behind on
 * any.
 */
ZCTA_API zcta_status zcta_window_alloc(zcta_team *team, size_t bytes, zcta_window **window);

/* Makes a window of memory that the caller already has; it must outlive the window. Collective.
 * On the host only ranks of one process can register memory: another process cannot map it after
 * the fact. With GPUs it must lie on this rank's and come from cuMemCreate() with file descriptors
 * as a handle type, as that of ncclMemAlloc() and of PyTorch's expandable segments does; it may be
 * several allocations, mapped one behind the other, on each rank its own way. After a failure of
 * the team, ranks that are threads leave it mapped until all of them have finalized.
 * Errors: as zcta_window_alloc(), ERR_UNSUPPORTED. */
ZCTA_API zcta_status zcta_window_register(zcta_team *team, void *base, size_t bytes,
                                          zcta_window **window);

/* Frees the window, after every rank of the team has called it. Collective; sets *window to NULL.
 * Waits for work of the window's own team; that of other teams that use it has finished before, and
 * no other thread calls for a team that has gathered into it by NCCL until this call returns,
 * because there NCCL forgets it, in the same order on all ranks. A window of a failed team is freed
 * without waiting for anyone, or for what its streams have not begun. Errors: ERR_INVALID,
 * ERR_TIMEOUT, ERR_PEER (freed all the same), ERR_BUSY (a prepared plan uses it: nothing changed).
 */
ZCTA_API zcta_status zcta_window_free(zcta_window **window);

ZCTA_API void *zcta_window_base(const zcta_window *window);   /* this rank's part; NULL for NULL */
ZCTA_API size_t zcta_window_bytes(const zcta_window *window); /* one rank's part; 0 for NULL */
/* That rank's part, mapped here; `rank` counts in the window's team. NULL if there is none, or if
 * this rank does not reach it: it is on another node, or on a GPU without peer access to this one.
 */
ZCTA_API void *zcta_window_peer(const zcta_window *window, uint32_t rank);

/* The contiguous view: all ranks' parts one behind the other, *stride bytes apart (the part's size
 * rounded up to a page), to read everybody's data with no copy. Local; made on the first call,
 * owned by the window. Errors: ERR_INVALID, ERR_UNSUPPORTED (registered memory, unless it is one
 * whole allocation on a GPU, or ranks whose memory this one does not reach), ERR_SYSTEM. */
ZCTA_API zcta_status zcta_window_view(zcta_window *window, const void **base, size_t *stride);

/* ---- Collectives ---- */

/* A collective is its flows: between any two ranks there is at most one, the bytes that go from the
 * one's `send` to the other's `recv`. The list says which; r is any rank.
 *
 *   all_gather     r's `bytes` bytes at recv + r * bytes, on every rank
 *   all_gather_v   r's recv_bytes[r] bytes at recv + recv_offsets[r], on every rank
 *   all_to_all     the `bytes` bytes at send + p * bytes of rank r at recv + r * bytes of rank p
 *   all_to_all_v   the same, each pair with a size and places of its own
 *   broadcast      the root's `bytes` bytes at recv, on every rank, the root included
 *   gather         r's `bytes` bytes at recv + r * bytes of the root
 *   gather_v       r's recv_bytes[r] bytes at recv + recv_offsets[r] of the root
 *   scatter        the `bytes` bytes at send + r * bytes of the root at recv of rank r
 *   scatter_v      the send_bytes[r] bytes at send + send_offsets[r] of the root at recv of rank r
 *   send_recv      `bytes` bytes at send to rank `to`, from_bytes bytes from rank `from` at recv
 *   barrier        nothing: nobody passes before everybody has come
 *
 * One X-macro lists them: enumerator, value, name. The values are frozen. */
#define ZCTA_COLLECTIVE_LIST(X)                                                                    \
    X(ALL_GATHER, 1, all_gather)                                                                   \
    X(ALL_GATHER_V, 2, all_gather_v)                                                               \
    X(ALL_TO_ALL, 3, all_to_all)                                                                   \
    X(ALL_TO_ALL_V, 4, all_to_all_v)                                                               \
    X(BROADCAST, 5, broadcast)                                                                     \
    X(GATHER, 6, gather)                                                                           \
    X(GATHER_V, 7, gather_v)                                                                       \
    X(SCATTER, 8, scatter)                                                                         \
    X(SCATTER_V, 9, scatter_v)                                                                     \
    X(SEND_RECV, 10, send_recv)                                                                    \
    X(BARRIER, 11, barrier)

typedef enum zcta_collective {
#define ZCTA_COLLECTIVE_ENUM(name, value, symbol) ZCTA_##name = (value),
    ZCTA_COLLECTIVE_LIST(ZCTA_COLLECTIVE_ENUM)
#undef ZCTA_COLLECTIVE_ENUM
} zcta_collective;

/* One call. Zero it, set `size`, set what the collective takes; it ignores what it does not. */
typedef struct zcta_call {
    size_t size; /* sizeof(zcta_call) */
    zcta_collective collective;
    zcta_policy policy; /* for this call; UNSET: the team's */
    zcta_engine engine; /* for this call; AUTO: the team's */
    uint32_t root;      /* broadcast, gather(_v), scatter(_v) */
    const void *send;
    void *recv;
    size_t bytes; /* of one share, where all are equal; send_recv: what goes to `to` */
    /* The uneven ones, in bytes, offsets counted from send and recv. all_gather_v and gather_v take
     * recv_bytes and recv_offsets, scatter_v takes send_bytes and send_offsets: an entry a rank,
     * all entries on every rank, the same on all. Offsets may be NULL: the shares lie one behind
     * the other. Shares may be empty, and must not overlap in an output.
     * all_to_all_v: this rank's own rows, an entry a peer, where one's send_bytes for the other is
     * the other's recv_bytes. Where a rank's bytes go in the others' outputs must be known to it
     * beforehand, so such a call, and preparing and explaining one, meets the other ranks over the
     * sockets first, which takes tens of microseconds and more. With `matrix` set nobody meets:
     * then all four are the rows of all ranks one behind the other, rank * rank_count + peer,
     * the same on all ranks. There recv_bytes may be NULL, because send_bytes says the same; if it
     * is given, the two are compared. */
    const size_t *send_bytes, *send_offsets, *recv_bytes, *recv_offsets;
    uint32_t matrix;
    uint32_t to, from; /* send_recv; ZCTA_NO_RANK: nobody */
    size_t from_bytes; /* send_recv: what comes from `from` */
} zcta_call;

/* ## Rules for all of them
 *
 * Collective: every rank of the team makes the same call; `bytes`, `root`, `policy`, `engine` and
 * the shares of uneven ones are the same on all ranks. Shares of 0 bytes are fine.
 *
 * `recv` lies in a window whose team contains this one, at the same offset on all ranks, also on
 * ranks that get nothing, and the largest output of any rank fits in behind it. (If nobody gets
 * anything, it may be NULL.) `send` is any memory of this rank that the device can read; a rank
 * that gives nothing may pass NULL, but not to all_gather_v. Memory is the caller's; it must stay
 * valid and, but for reading `send`, untouched until the collective has finished.
 *
 * In place means that the share that a rank keeps, from itself to itself, lies in `send` where it
 * goes in `recv`: recv + rank * bytes == send for an allgather, send + root * bytes == recv for the
 * root of a scatter. Any other overlap is an error; so all_to_all is never in place. Each rank may
 * call in place or not as it likes, but not so in all_gather and all_gather_v: there all ranks call
 * in place, or none does, as the way that is taken may depend on it; a rank whose share is empty
 * says so by its `send` all the same.
 *
 * Ranks that do not make the same call (another collective, root, window, offset, place, other
 * sizes, or partners that do not name each other) are told so under check (ZEROCTA_CHECK=1) before
 * anything runs, and can go on. Without it the host device notices while the call runs, and the
 * team fails with ERR_MISMATCH on all ranks; partners that do not name each other wait until the
 * deadline. GPUs do not notice: if both calls take the same path, they return ZCTA_OK and leave
 * wrong contents; if not, the ranks wait for each other until the deadline. So develop with the
 * check.
 *
 * By NCCL's copy engines, which engine nccl with policy EFFICIENCY or ZERO asks for, work that
 * waits for a rank that has died cannot be let go: all calls return, but this process has to end.
 * By NCCL the first run of a policy or into a window sets things up with the other ranks: it cannot
 * be captured into a graph.
 *
 * The work is ordered in `stream`; with a NULL host stream it is done when the call returns.
 * Captured into a CUDA graph, on all ranks alike, it may be replayed any number of times, between
 * calls that are not captured. Replays run where the program launches them: it orders those of one
 * team among themselves and behind its other calls, and lets them end before it frees what they
 * use. Collectives of one team are ordered among themselves, also across streams.
 *
 * Errors: ERR_INVALID, ERR_NOT_IN_WINDOW, ERR_POLICY, ERR_UNSUPPORTED (engine), ERR_MISMATCH,
 * ERR_TIMEOUT and ERR_PEER (the team has failed), ERR_NO_MEMORY, ERR_DEVICE. */

ZCTA_API zcta_status zcta_run(zcta_team *team, const zcta_call *call, zcta_stream stream);

/* The same, a function for each. `params` may be NULL. */
typedef struct zcta_call_params {
    size_t size;        /* sizeof(zcta_call_params) */
    zcta_policy policy; /* for this call; UNSET: the team's */
    zcta_engine engine; /* for this call; AUTO: the team's */
} zcta_call_params;

/* `bytes`: one rank's share. */
ZCTA_API zcta_status zcta_all_gather(zcta_team *team, const void *send, void *recv, size_t bytes,
                                     zcta_stream stream, const zcta_call_params *params);
ZCTA_API zcta_status zcta_all_gather_v(zcta_team *team, const void *send, void *recv,
                                       const size_t *recv_bytes, const size_t *recv_offsets,
                                       zcta_stream stream, const zcta_call_params *params);
/* `bytes`: one block. */
ZCTA_API zcta_status zcta_all_to_all(zcta_team *team, const void *send, void *recv, size_t bytes,
                                     zcta_stream stream, const zcta_call_params *params);
/* This rank's rows: see zcta_call. */
ZCTA_API zcta_status zcta_all_to_all_v(zcta_team *team, const void *send, const size_t *send_bytes,
                                       const size_t *send_offsets, void *recv,
                                       const size_t *recv_bytes, const size_t *recv_offsets,
                                       zcta_stream stream, const zcta_call_params *params);
ZCTA_API zcta_status zcta_broadcast(zcta_team *team, const void *send, void *recv, size_t bytes,
                                    uint32_t root, zcta_stream stream,
                                    const zcta_call_params *params);
/* `bytes`: one rank's share. */
ZCTA_API zcta_status zcta_gather(zcta_team *team, const void *send, void *recv, size_t bytes,
                                 uint32_t root, zcta_stream stream, const zcta_call_params *params);
ZCTA_API zcta_status zcta_gather_v(zcta_team *team, const void *send, void *recv,
                                   const size_t *recv_bytes, const size_t *recv_offsets,
                                   uint32_t root, zcta_stream stream,
                                   const zcta_call_params *params);
/* `bytes`: one rank's share. */
ZCTA_API zcta_status zcta_scatter(zcta_team *team, const void *send, void *recv, size_t bytes,
                                  uint32_t root, zcta_stream stream,
                                  const zcta_call_params *params);
ZCTA_API zcta_status zcta_scatter_v(zcta_team *team, const void *send, const size_t *send_bytes,
                                    const size_t *send_offsets, void *recv, uint32_t root,
                                    zcta_stream stream, const zcta_call_params *params);
/* Every rank of the team calls; who sends to nobody, or receives from nobody, says
 * ZCTA_NO_RANK. */
ZCTA_API zcta_status zcta_send_recv(zcta_team *team, const void *send, size_t send_bytes,
                                    uint32_t to, void *recv, size_t recv_bytes, uint32_t from,
                                    zcta_stream stream, const zcta_call_params *params);

/* No rank's stream passes it before every rank's stream has reached it. Policy ZERO forbids it over
 * several nodes, where it needs NCCL's kernels. */
ZCTA_API zcta_status zcta_barrier(zcta_team *team, zcta_stream stream);

/* ---- What is known of collectives ---- */

enum {
    ZCTA_COLLECTIVE_UNEVEN = 1,   /* it takes the arrays of zcta_call */
    ZCTA_COLLECTIVE_BY_PAIRS = 2, /* with an entry for each pair of ranks */
    ZCTA_COLLECTIVE_ROOTED = 4,   /* it takes `root` */
    ZCTA_COLLECTIVE_PARTNERS = 8, /* it takes `to` and `from` */
    ZCTA_COLLECTIVE_NO_DATA = 16, /* nothing moves */
};

typedef struct zcta_collective_info {
    size_t size; /* sizeof(zcta_collective_info), set before the call */
    zcta_collective collective;
    const char *name;  /* "all_gather"; static */
    const char *title; /* "AllGather"; static */
    uint32_t traits;   /* of the above */
} zcta_collective_info;

/* What is known of the collective of that number, or of that name if `name` is not NULL. From any
 * thread. Errors: ERR_INVALID (there is none, or a bad size). */
ZCTA_API zcta_status zcta_collective_find(zcta_collective collective, const char *name,
                                          zcta_collective_info *info);

/* `bytes` bytes at from_at in the sender's `send` come to to_at in the receiver's `recv`. */
typedef struct zcta_flow {
    uint64_t from_at, to_at, bytes; /* 0 bytes: there is no flow */
} zcta_flow;

/* What a call moves from rank `from` to rank `to` if a team of so many ranks makes it. Rows of
 * all_to_all_v only with `matrix`; of send_recv the flows of rank `self`. Local; from any thread.
 * Errors: ERR_INVALID. */
ZCTA_API zcta_status zcta_call_flow(const zcta_call *call, uint32_t rank_count, uint32_t self,
                                    uint32_t from, uint32_t to, zcta_flow *flow);

/* ---- Prepared plans ---- */

/* Prepares a call to be run many times: all checks, choices and addresses are decided here, and a
 * run allocates nothing. Local (all_to_all_v: see zcta_call), but every rank must run the same
 * plans in the same order. The call and its arrays are the caller's again when this returns.
 * One that asks for NCCL needs a team that was made with engine nccl, or has run a call by it.
 * Errors: as zcta_run(). The caller frees the plan before its windows. */
ZCTA_API zcta_status zcta_plan_make(zcta_team *team, const zcta_call *call, zcta_plan **plan);

/* Collective. Errors: ERR_INVALID, ERR_MISMATCH, ERR_TIMEOUT, ERR_PEER, ERR_DEVICE; by NCCL also
 * ERR_POLICY, ERR_UNSUPPORTED (the first run is being captured) and ERR_NO_MEMORY. */
ZCTA_API zcta_status zcta_plan_run(zcta_plan *plan, zcta_stream stream);

/* Tells the peers that this rank has, in `stream`, finished with the plan's output: the next
 * zcta_plan_run() of the plan then finds it free and needs one crossing between the GPUs instead of
 * two. Collective, like a run: all ranks release the same plan, once between two runs of it, or
 * none does. From then until that run the output is the peers' to write; only this rank's own share
 * may be filled meanwhile. On a path that waits for nobody's buffer it does nothing.
 * It cannot be captured into a graph, nor can the run that follows it: values in a graph are fixed.
 * Errors: ERR_INVALID (released already and not run since), ERR_UNSUPPORTED (the stream is being
 * captured), ERR_MISMATCH (under check), ERR_TIMEOUT, ERR_PEER, ERR_DEVICE. */
ZCTA_API zcta_status zcta_release(zcta_plan *plan, zcta_stream stream);

/* Local; waits for runs that are under way; sets *plan to NULL. Errors: ERR_INVALID. */
ZCTA_API zcta_status zcta_plan_free(zcta_plan **plan);

/* ---- Explaining a choice ---- */

#define ZCTA_REPORT_PATHS 16

/* Every path that exists for a collective, whether it was chosen, and the reason either way. */
typedef struct zcta_report {
    size_t size;         /* sizeof(zcta_report), set before the call */
    uint32_t path_count; /* how many there are; those that do not fit are left out */
    uint32_t chosen;     /* index into paths; path_count if none can run */
    zcta_policy policy;  /* the one that applied */
    struct zcta_report_path {
        char path[32];     /* "ce/direct-push" */
        uint32_t sms;      /* 1: it needs SMs */
        uint32_t possible; /* 0: it cannot run here */
        char reason[184];
    } paths[ZCTA_REPORT_PATHS];
} zcta_report;

/* Decides as zcta_run() would, and runs nothing. Local (all_to_all_v: see zcta_call). Returns OK
 * also when no path can run: report->chosen says so. Errors: ERR_INVALID, ERR_NOT_IN_WINDOW,
 * ERR_NO_MEMORY; with own rows also ERR_MISMATCH, ERR_TIMEOUT and ERR_PEER. */
ZCTA_API zcta_status zcta_explain(zcta_team *team, const zcta_call *call, zcta_report *report);

/* ---- Streams of the host device ---- */

/* A worker thread that runs collectives and callbacks in order. */
typedef struct zcta_host_stream zcta_host_stream;

/* Errors: ERR_INVALID, ERR_UNSUPPORTED (a CUDA context), ERR_SYSTEM, ERR_NO_MEMORY. */
ZCTA_API zcta_status zcta_host_stream_create(zcta_context *context, zcta_host_stream **stream);

/* Runs function(data) on the worker, after what was enqueued before. It must not enqueue on or wait
 * for its own stream. While it has not returned, nothing behind it runs, and other ranks wait for
 * collectives of this rank behind it, until their deadline. With 1024 entries enqueued that have
 * not run, the next call that enqueues waits for room. Errors: ERR_INVALID. */
ZCTA_API zcta_status zcta_host_stream_call(zcta_host_stream *stream, void (*function)(void *data),
                                           void *data);

/* Waits until everything enqueued so far has finished or failed. Returns the first failure since
 * the last synchronize. Errors: ERR_INVALID, and those of the collectives. */
ZCTA_API zcta_status zcta_host_stream_synchronize(zcta_host_stream *stream);

/* Synchronizes, then frees; sets *stream to NULL. Errors: as synchronize. */
ZCTA_API zcta_status zcta_host_stream_destroy(zcta_host_stream **stream);

#ifdef __cplusplus
}
#endif

#endif
