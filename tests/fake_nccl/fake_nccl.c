/* The fake NCCL: what it is for stands in its header. */
#include "fake_nccl.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "device/cuda/cuda_api.h"
#include "engine/nccl/nccl_api.h"
#include "fake_cuda/fake_cuda.h"

enum {
    UNHANDLED = 1,
    INTERNAL = 3,
    INVALID_ARGUMENT = 4,
    INVALID_USAGE = ZC_NCCL_INVALID_USAGE,
    RANKS_MOST = 16,
    ROOMS = 256,
    OPS = 2,
    STORY = 4096,
};

/* What ranks call together, of the size of a share each. */
enum kind { ALL_GATHER, BROADCAST, ALL_TO_ALL, GATHER, SCATTER, KINDS };

/* The names they have in stories. */
static const char *const kind_names[KINDS] = {"gather", "broadcast", "alltoall", "gather-to-one",
                                              "scatter"};

#define EXPORT __attribute__((visibility("default")))

/* Every OPS-th collective, as its ranks meet in it: the counts go on from one to the next. Nobody
 * ends one before all have left it, so nobody is two ahead. */
struct op {
    const void *send[RANKS_MOST];
    uint64_t entered, left;
};

/* From one rank to another: what is sent, and how many were sent and received. */
struct pair {
    const void *send;
    uint64_t sent, received;
};

/* What the ranks of a communicator share. */
struct room {
    int count, arrived;
    bool gone[RANKS_MOST]; /* their communicators have ended, and so may have their memory */
    char *recv[KINDS][RANKS_MOST]; /* of each rank's latest call */
    struct op ops[OPS];
    struct pair pairs[RANKS_MOST][RANKS_MOST];
};

struct range {
    struct range *next;
    const char *base;
    size_t bytes;
};

struct ncclComm {
    struct room *room;
    int rank, policy, gpu;
    uint64_t collectives; /* so far */
    bool aborted, copy_engines;
    int heedless; /* collectives under way that do not look whether it is aborted */
    struct range *windows;
    struct ncclComm *next; /* among those that have ended */
};

/* One lock for everything but the bytes. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t moved = PTHREAD_COND_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct room rooms[ROOMS];
static int room_count, version, alive, async_result;
static struct ncclComm *ended; /* their memory stays: a stream may still look at it */
static const char *tripped;
static int trip_hangs;
static int begun; /* how often: what hangs is let go by the next one */
static char stories[RANKS_MOST][STORY];
static FILE *log_file;
static bool log_open, logs_info;
static fake_cuda_enqueue_fn *enqueue;
static fake_cuda_current_fn *current_gpu;

/* What it calls of the driver, by its own names. */
static struct {
#define MEMBER(name, parameters, version)                                                          \
    zc_cu_result(*name) parameters; /* NOLINT(bugprone-macro-parentheses) */
    ZC_CU_FUNCTIONS(MEMBER)
#undef MEMBER
} cuda;

/* ---- What tests say and ask ---- */

EXPORT fake_nccl_be_fn fake_nccl_be;
EXPORT fake_nccl_trip_fn fake_nccl_trip;
EXPORT fake_nccl_break_fn fake_nccl_break;
EXPORT fake_nccl_story_fn fake_nccl_story;
EXPORT fake_nccl_begin_fn fake_nccl_begin;
EXPORT fake_nccl_alive_fn fake_nccl_alive;

static void find(void *library, const char *name, void *function)
{
    void *found = dlsym(library, name);

    memcpy(function, &found, sizeof found);
}

static void start(void)
{
    const char *text = getenv("FAKE_NCCL_VERSION");
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    int (*get)(const char *, void *, int, uint64_t, int *) = NULL, found;

    version = text != NULL ? atoi(text) : 22803; /* NOLINT(cert-err34-c): a test's own */
    if (library == NULL)
        return;
    find(library, "fake_cuda_enqueue", &enqueue);
    find(library, "fake_cuda_current", &current_gpu);
    find(library, "cuGetProcAddress_v2", &get);
#define FILL(name, parameters, version) get(#name, &cuda.name, version, 0, &found);
    ZC_CU_FUNCTIONS(FILL)
#undef FILL
}

void fake_nccl_be(int as)
{
    pthread_once(&once, start);
    pthread_mutex_lock(&lock);
    version = as;
    pthread_mutex_unlock(&lock);
}

void fake_nccl_trip(const char *function, int hang)
{
    pthread_mutex_lock(&lock);
    tripped = function;
    trip_hangs = hang;
    pthread_mutex_unlock(&lock);
}

void fake_nccl_break(int result)
{
    pthread_mutex_lock(&lock);
    async_result = result;
    pthread_mutex_unlock(&lock);
}

const char *fake_nccl_story(int rank)
{
    return stories[rank];
}

void fake_nccl_begin(void)
{
    pthread_mutex_lock(&lock);
    memset(stories, 0, sizeof stories);
    tripped = NULL;
    async_result = 0;
    begun++;
    pthread_cond_broadcast(&moved);
    pthread_mutex_unlock(&lock);
}

int fake_nccl_alive(void)
{
    int count;

    pthread_mutex_lock(&lock);
    count = alive;
    pthread_mutex_unlock(&lock);
    return count;
}

/* Under the lock. */
__attribute__((format(printf, 2, 3))) static void tell(int rank, const char *format, ...)
{
    const size_t at = strlen(stories[rank]);
    va_list args;

    va_start(args, format);
    vsnprintf(stories[rank] + at, STORY - at, format, args);
    va_end(args);
}

/* Under the lock. 0, or how this call shall end. */
static int trip(const char *function, const struct ncclComm *comm)
{
    const int since = begun;

    if (tripped == NULL || strcmp(tripped, function) != 0)
        return 0;
    tripped = NULL;
    if (!trip_hangs)
        return INTERNAL;
    while ((comm == NULL || !comm->aborted) && begun == since)
        pthread_cond_wait(&moved, &lock);
    return INTERNAL;
}

/* ---- Its log ---- */

/* Where it goes is read from the environment when there is first something to say. Under the
 * lock. */
static void open_log(void)
{
    const char *level = getenv("NCCL_DEBUG"), *path = getenv("NCCL_DEBUG_FILE");

    log_open = true;
    logs_info = level != NULL && strcmp(level, "INFO") == 0;
    log_file = path != NULL ? fopen(path, "we") : stdout;
    if (log_file != NULL)
        setvbuf(log_file, NULL, _IOLBF, 4096);
}

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
    va_list args;

    if (!log_open)
        open_log();
    if (!logs_info || log_file == NULL)
        return;
    fprintf(log_file, "host:%d:%d [0] NCCL INFO ", (int)getpid(), (int)gettid());
    va_start(args, format);
    vfprintf(log_file, format, args);
    va_end(args);
    fputc('\n', log_file);
}

/* ---- NCCL ---- */

#define DECLARE(result, name, parameters, since)                                                   \
    EXPORT result name parameters; /* NOLINT(bugprone-macro-parentheses) */
ZC_NCCL_FUNCTIONS(DECLARE)
#undef DECLARE
EXPORT zc_nccl_unrooted ncclAllGather, ncclAlltoAll;
EXPORT zc_nccl_rooted ncclBroadcast, ncclGather, ncclScatter;

int ncclGetVersion(int *told)
{
    pthread_once(&once, start);
    pthread_mutex_lock(&lock);
    *told = version;
    pthread_mutex_unlock(&lock);
    return 0;
}

const char *ncclGetErrorString(int result)
{
    return result == INTERNAL        ? "internal error"
           : result == INVALID_USAGE ? "invalid usage"
                                     : "another error";
}

const char *ncclGetLastError(zc_nccl_handle comm)
{
    (void)comm;
    return "made to fail by a test";
}

int ncclGetUniqueId(struct zc_nccl_id *id)
{
    int result;

    pthread_mutex_lock(&lock);
    result = trip(__func__, NULL);
    memset(id, 0, sizeof *id);
    snprintf(id->bytes, sizeof id->bytes, "%d", room_count);
    if (result == 0 && room_count++ == ROOMS - 1)
        result = UNHANDLED;
    pthread_mutex_unlock(&lock);
    return result;
}

int ncclCommCount(zc_nccl_handle comm, int *count) /* NOLINT(readability-non-const-parameter) */
{
    (void)count;
    pthread_mutex_lock(&lock);
    if (comm == NULL)
        say("CommCount : comm argument is NULL");
    pthread_mutex_unlock(&lock);
    return INVALID_ARGUMENT;
}

/* What this version knows of a configuration, and what it says of that, in NCCL's order and words.
 * FAKE_NCCL_CONF is an override that only NCCL knows of, as from its nccl.conf; so is
 * FAKE_NCCL_NOT_BLOCKING. */
static int policy_of(const struct zc_nccl_config *config)
{
    const char *forced = getenv("NCCL_CTA_POLICY");
    int policy = 0;

    if (version < 22700)
        return 0;
    if (config->size > offsetof(struct zc_nccl_config, cta_policy) &&
        config->cta_policy != ZC_NCCL_CONFIG_UNSET) {
        policy = config->cta_policy;
        say("Comm config CTA policy flags set to %d", policy);
    }
    if (forced == NULL)
        forced = getenv("FAKE_NCCL_CONF");
    if (forced != NULL) {
        policy = atoi(forced); /* NOLINT(cert-err34-c): a test's own */
        say("Comm config CTAPolicy reset to NCCL_CTA_POLICY=%d", policy);
    }
    return policy;
}

int ncclCommInitRankConfig(zc_nccl_handle *made, int rank_count, struct zc_nccl_id id, int rank,
                           struct zc_nccl_config *config)
{
    struct ncclComm *comm = calloc(1, sizeof *comm);
    struct room *room;
    int result;

    pthread_mutex_lock(&lock);
    if (comm == NULL || config->magic != (unsigned)ZC_NCCL_CONFIG_MAGIC ||
        (int)config->version > version || config->blocking != 1 || current_gpu() < 0) {
        result = INVALID_ARGUMENT;
        goto out;
    }
    *comm = (struct ncclComm){.rank = rank, .gpu = current_gpu(), .policy = policy_of(config)};
    comm->room = room = &rooms[atoi(id.bytes)]; /* NOLINT(cert-err34-c): of ncclGetUniqueId() */
    room->count = rank_count;
    result = trip(__func__, comm);
    if (result != 0)
        goto out;
    if (getenv("FAKE_NCCL_NOT_BLOCKING") != NULL) {
        alive++;
        *made = comm;
        pthread_mutex_unlock(&lock);
        return ZC_NCCL_IN_PROGRESS;
    }
    room->arrived++;
    pthread_cond_broadcast(&moved);
    while (room->arrived < rank_count)
        pthread_cond_wait(&moved, &lock);
    tell(rank, "init:%d ", comm->policy);
    alive++;
    *made = comm;
out:
    pthread_mutex_unlock(&lock);
    if (result != 0)
        free(comm);
    return result;
}

static void end_comm(struct ncclComm *comm, const char *function, const char *how)
{
    pthread_mutex_lock(&lock);
    trip(function, comm);
    tell(comm->rank, "%s ", how);
    comm->aborted = true; /* whoever still waits in it goes on */
    comm->room->gone[comm->rank] = true;
    alive--;
    comm->next = ended;
    ended = comm;
    pthread_cond_broadcast(&moved);
    pthread_mutex_unlock(&lock);
}

int ncclCommDestroy(zc_nccl_handle comm)
{
    end_comm(comm, __func__, comm->windows == NULL ? "destroy" : "destroy-with-windows");
    return 0;
}

/* Waits for the streams, as NCCL does, also for what does not heed it. */
int ncclCommAbort(zc_nccl_handle comm)
{
    int since;

    end_comm(comm, __func__, "abort");
    pthread_mutex_lock(&lock);
    since = begun;
    while (comm->heedless > 0 && begun == since)
        pthread_cond_wait(&moved, &lock);
    pthread_mutex_unlock(&lock);
    return 0;
}

int ncclCommGetAsyncError(zc_nccl_handle comm, int *result)
{
    (void)comm;
    pthread_mutex_lock(&lock);
    *result = async_result;
    pthread_mutex_unlock(&lock);
    return 0;
}

/* As NCCL does it: an allocation of its own, that can leave the process, and whose handle stays. */
int ncclMemAlloc(void **memory, size_t bytes)
{
    struct zc_cu_allocation_prop prop = {.type = ZC_CU_MEM_ALLOCATION_PINNED,
                                         .handle_types = ZC_CU_MEM_HANDLE_POSIX_FD,
                                         .location = {.type = ZC_CU_MEM_LOCATION_DEVICE}};
    const struct zc_cu_access access = {
        .location = {.type = ZC_CU_MEM_LOCATION_DEVICE, .id = current_gpu()},
        .flags = ZC_CU_MEM_ACCESS_READWRITE};
    zc_cu_allocation handle;
    zc_cu_pointer at = 0;
    size_t unit = 0;

    prop.location.id = current_gpu();
    if (cuda.cuMemGetAllocationGranularity(&unit, &prop, 0) != 0)
        return UNHANDLED;
    bytes = (bytes + unit - 1) / unit * unit;
    if (cuda.cuMemCreate(&handle, bytes, &prop, 0) != 0)
        return UNHANDLED;
    if (cuda.cuMemAddressReserve(&at, bytes, unit, 0, 0) != 0 ||
        cuda.cuMemMap(at, bytes, 0, handle, 0) != 0 ||
        cuda.cuMemSetAccess(at, bytes, &access, 1) != 0)
        return UNHANDLED;
    *memory = (void *)(uintptr_t)at;
    return 0;
}

int ncclMemFree(void *memory)
{
    zc_cu_allocation handle;
    zc_cu_pointer at = 0;
    size_t bytes = 0;

    if (cuda.cuMemGetAddressRange(&at, &bytes, (uintptr_t)memory) != 0 ||
        cuda.cuMemRetainAllocationHandle(&handle, memory) != 0)
        return INVALID_ARGUMENT;
    cuda.cuMemRelease(handle);
    cuda.cuMemRelease(handle);
    cuda.cuMemUnmap(at, bytes);
    cuda.cuMemAddressFree(at, bytes);
    return 0;
}

/* NCCL wants windows to begin at a page of their allocation. */
static bool begins_at_a_page(const void *base)
{
    zc_cu_pointer at = 0;
    size_t bytes = 0;

    return cuda.cuMemGetAddressRange(&at, &bytes, (uintptr_t)base) == 0 &&
           ((uintptr_t)base - at) % 4096 == 0;
}

int ncclCommWindowRegister(zc_nccl_handle comm, void *base, size_t bytes, void **window, int flags)
{
    struct range *range = calloc(1, sizeof *range);
    int result;

    pthread_mutex_lock(&lock);
    result = range == NULL || flags != ZC_NCCL_WINDOW_SYMMETRIC || current_gpu() != comm->gpu ||
                     !begins_at_a_page(base)
                 ? INVALID_ARGUMENT
                 : trip(__func__, comm);
    if (result == 0) {
        *range = (struct range){.next = comm->windows, .base = base, .bytes = bytes};
        comm->windows = range;
        *window = range;
        tell(comm->rank, "register ");
        say("Inserted window %p into address map", base);
    } else {
        free(range);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int ncclCommWindowDeregister(zc_nccl_handle comm, void *window)
{
    int result = INVALID_ARGUMENT;

    pthread_mutex_lock(&lock);
    for (struct range **at = &comm->windows; *at != NULL; at = &(*at)->next)
        if (*at == window) {
            *at = (*at)->next;
            free(window);
            tell(comm->rank, "deregister ");
            result = 0;
            break;
        }
    pthread_mutex_unlock(&lock);
    return result;
}

static bool in_window(const struct ncclComm *comm, const void *at, size_t bytes)
{
    for (const struct range *range = comm->windows; range != NULL; range = range->next)
        if ((const char *)at >= range->base &&
            (const char *)at + bytes <= range->base + range->bytes)
            return true;
    return false;
}

static bool is_capturing(void *stream)
{
    int status = ZC_CU_STREAM_CAPTURE_NONE;

    return cuda.cuStreamIsCapturing(stream, &status) == 0 && status != ZC_CU_STREAM_CAPTURE_NONE;
}

/* One rank's part of a collective, as its stream runs it. */
struct job {
    enum kind kind;
    bool heedless; /* by copy engines or symmetric kernels: no abort ends it */
    struct ncclComm *comm;
    uint64_t number;
    int root;
    const char *send;
    char *recv;
    size_t bytes; /* of a share */
};

/* Whether a share goes from one rank to another, and from where in the one's input to where in the
 * other's output. */
static bool flows(const struct job *job, int from, int to, size_t *from_at, size_t *to_at)
{
    const size_t fan_out = (size_t)to * job->bytes, fan_in = (size_t)from * job->bytes;

    *from_at = job->kind == ALL_TO_ALL || job->kind == SCATTER ? fan_out : 0;
    *to_at = job->kind == BROADCAST || job->kind == SCATTER ? 0 : fan_in;
    switch (job->kind) {
    case BROADCAST:
    case SCATTER:
        return from == job->root;
    case GATHER:
        return to == job->root;
    case ALL_GATHER:
    case ALL_TO_ALL:
    case KINDS:
        break;
    }
    return true;
}

/* How far this rank's buffers reach. */
static void extents(const struct job *job, size_t *sent, size_t *received)
{
    const int self = job->comm->rank;
    size_t from_at, to_at;

    *sent = *received = 0;
    for (int peer = 0; peer < job->comm->room->count; peer++) {
        if (flows(job, self, peer, &from_at, &to_at) && from_at + job->bytes > *sent)
            *sent = from_at + job->bytes;
        if (flows(job, peer, self, &from_at, &to_at) && to_at + job->bytes > *received)
            *received = to_at + job->bytes;
    }
}

/* Counts up and waits until all have; false: aborted. Under the lock. */
static bool meet(const struct job *job, uint64_t *counter)
{
    const struct ncclComm *comm = job->comm;
    const uint64_t all = (job->number / OPS + 1) * (uint64_t)comm->room->count;

    const int since = begun;

    ++*counter;
    pthread_cond_broadcast(&moved);
    while (*counter < all && (job->heedless ? begun == since : !comm->aborted))
        pthread_cond_wait(&moved, &lock);
    return *counter >= all;
}

static void run_collective(void *data)
{
    struct job *job = data;
    const struct ncclComm *comm = job->comm;
    struct op *op = &comm->room->ops[job->number % OPS];
    size_t from_at, to_at;
    bool met;

    pthread_mutex_lock(&lock);
    op->send[comm->rank] = job->send;
    met = meet(job, &op->entered);
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < comm->room->count && met; i++)
        if (flows(job, i, comm->rank, &from_at, &to_at) &&
            job->recv + to_at != (const char *)op->send[i] + from_at)
            memcpy(job->recv + to_at, (const char *)op->send[i] + from_at, job->bytes);
    pthread_mutex_lock(&lock);
    if (met)
        meet(job, &op->left);
    job->comm->heedless -= job->heedless;
    pthread_cond_broadcast(&moved);
    pthread_mutex_unlock(&lock);
    free(job);
}

/* ---- From rank to rank, in groups ---- */

enum { TRANSFERS_MOST = 2 * RANKS_MOST }; /* to and from each rank, the own one included */

struct transfer {
    bool receives;
    int peer;
    void *at;
    size_t bytes;
};

struct group {
    struct ncclComm *comm;
    void *stream;
    bool captured;
    struct group *next; /* among those that were captured: a graph may still replay them */
    int count;
    struct transfer transfers[TRANSFERS_MOST];
};

static struct group *captured_groups;
static _Thread_local struct group *open_group;

/* Under the lock. */
static void await(const struct ncclComm *comm, const uint64_t *counter, uint64_t wanted)
{
    while (*counter < wanted && !comm->aborted)
        pthread_cond_wait(&moved, &lock);
}

static void run_group(void *data)
{
    struct group *group = data;
    const struct ncclComm *comm = group->comm;
    struct pair(*pairs)[RANKS_MOST] = comm->room->pairs;

    pthread_mutex_lock(&lock);
    for (int i = 0; i < group->count; i++)
        if (!group->transfers[i].receives) {
            struct pair *pair = &pairs[comm->rank][group->transfers[i].peer];

            pair->send = group->transfers[i].at;
            pair->sent++;
        }
    pthread_cond_broadcast(&moved);
    for (int i = 0; i < group->count; i++)
        if (group->transfers[i].receives) {
            struct pair *pair = &pairs[group->transfers[i].peer][comm->rank];

            await(comm, &pair->sent, pair->received + 1);
            if (!comm->aborted && !comm->room->gone[group->transfers[i].peer])
                memcpy(group->transfers[i].at, pair->send, group->transfers[i].bytes);
            pair->received++;
            pthread_cond_broadcast(&moved);
        }
    for (int i = 0; i < group->count; i++)
        if (!group->transfers[i].receives)
            await(comm, &pairs[comm->rank][group->transfers[i].peer].received,
                  pairs[comm->rank][group->transfers[i].peer].sent);
    if (!group->captured)
        free(group);
    pthread_mutex_unlock(&lock);
}

int ncclGroupStart(void)
{
    open_group = calloc(1, sizeof *open_group);
    return open_group != NULL ? 0 : UNHANDLED;
}

static int transfer(zc_nccl_handle comm, struct transfer transfer, void *stream)
{
    struct group *group = open_group;
    int result;

    pthread_mutex_lock(&lock);
    result = trip(transfer.receives ? "ncclRecv" : "ncclSend", comm);
    if (result == 0 && (group == NULL || group->count == TRANSFERS_MOST || transfer.peer < 0 ||
                        transfer.peer >= comm->room->count || current_gpu() != comm->gpu))
        result = INVALID_ARGUMENT;
    pthread_mutex_unlock(&lock);
    if (result != 0)
        return result;
    group->comm = comm;
    group->stream = stream;
    group->transfers[group->count++] = transfer;
    return 0;
}

int ncclSend(const void *send, size_t count, int type, int peer, zc_nccl_handle comm, void *stream)
{
    return type == ZC_NCCL_INT8
               ? transfer(comm, (struct transfer){.peer = peer, .at = (void *)send, .bytes = count},
                          stream)
               : INVALID_ARGUMENT;
}

int ncclRecv(void *recv, size_t count, int type, int peer, zc_nccl_handle comm, void *stream)
{
    return type == ZC_NCCL_INT8
               ? transfer(
                     comm,
                     (struct transfer){.receives = true, .peer = peer, .at = recv, .bytes = count},
                     stream)
               : INVALID_ARGUMENT;
}

int ncclGroupEnd(void)
{
    struct group *group = open_group;

    open_group = NULL;
    if (group == NULL)
        return INVALID_USAGE;
    if (group->count == 0) {
        free(group);
        return 0;
    }
    group->captured = is_capturing(group->stream);
    pthread_mutex_lock(&lock);
    tell(group->comm->rank, "group:%d ", group->count);
    if (group->captured) {
        group->next = captured_groups;
        captured_groups = group;
    }
    pthread_mutex_unlock(&lock);
    return enqueue(group->stream, run_group, group) == 0 ? 0 : UNHANDLED;
}

/* ---- Collectives ---- */

/* Which way NCCL of this version takes, and what it says of it. Under the lock. */
static bool takes_copy_engines(struct ncclComm *comm, const struct job *job)
{
    size_t sent, received;
    bool takes;

    extents(job, &sent, &received);
    takes = job->kind != BROADCAST && comm->room->count > 1 &&
            comm->policy == ZC_NCCL_POLICY_ZERO && version >= 22800 &&
            getenv("FAKE_NCCL_NO_COPY_ENGINES") == NULL && in_window(comm, job->recv, received) &&
            ((version >= 22902 && job->kind == ALL_GATHER) || in_window(comm, job->send, sent));
    if (takes && !comm->copy_engines)
        say("Init CE, rank %d baseUCSymReadyPtr 0x1, baseUCSymComplPtr 0x2, seq num 0", comm->rank);
    comm->copy_engines |= takes;
    return takes;
}

/* Of these NCCL has symmetric kernels for the allgather only. */
static bool is_symmetric(const struct ncclComm *comm, const struct job *job)
{
    return job->kind == ALL_GATHER && comm->room->count > 1 && version >= 22700 &&
           in_window(comm, job->recv, job->bytes * (size_t)comm->room->count) &&
           in_window(comm, job->send, job->bytes);
}

/* What a graph replays: the own shares into the outputs, which are those of the call before. */
static int push_captured(const struct job *job, void *stream)
{
    const struct ncclComm *comm = job->comm;
    size_t from_at, to_at;
    int result = 0;

    for (int i = 0; i < comm->room->count && result == 0; i++) {
        char *const recv = comm->room->recv[job->kind][i];

        if (flows(job, comm->rank, i, &from_at, &to_at) && recv + to_at != job->send + from_at)
            result = cuda.cuMemcpyAsync((uintptr_t)recv + to_at, (uintptr_t)job->send + from_at,
                                        job->bytes, stream);
    }
    return result;
}

/* Under the lock: what the call comes to; 0: it may be enqueued. */
static int begin_collective(struct job *job, const char *function, int type, bool captured,
                            void *stream)
{
    struct ncclComm *comm = job->comm;
    bool takes;
    int result;

    if (type != ZC_NCCL_INT8 || current_gpu() != comm->gpu || job->root < 0 ||
        job->root >= comm->room->count)
        return INVALID_ARGUMENT;
    result = trip(function, comm);
    if (result != 0)
        return result;
    takes = takes_copy_engines(comm, job);
    job->heedless = takes || is_symmetric(comm, job);
    if (takes && stream == NULL && version < 22907)
        return INVALID_USAGE;
    tell(comm->rank, "%s:%s ", captured ? "capture" : kind_names[job->kind],
         takes           ? "ce"
         : job->heedless ? "sym"
                         : "sm");
    if (captured)
        return push_captured(job, stream) == 0 ? 0 : UNHANDLED;
    comm->heedless += job->heedless;
    job->number = comm->collectives++;
    comm->room->recv[job->kind][comm->rank] = job->recv;
    return 0;
}

static int collective(struct job given, const char *function, int since, int type, void *stream)
{
    const bool captured = is_capturing(stream);
    struct job *job = malloc(sizeof *job);
    int result;

    if (job == NULL)
        return UNHANDLED;
    *job = given;
    pthread_mutex_lock(&lock);
    result =
        version < since ? INVALID_USAGE : begin_collective(job, function, type, captured, stream);
    pthread_mutex_unlock(&lock);
    if (result == 0 && !captured)
        result = enqueue(stream, run_collective, job) == 0 ? 0 : UNHANDLED;
    if (result != 0 || captured)
        free(job);
    return result;
}

int ncclAllGather(const void *send, void *recv, size_t count, int type, zc_nccl_handle comm,
                  void *stream)
{
    return collective(
        (struct job){.kind = ALL_GATHER, .comm = comm, .send = send, .recv = recv, .bytes = count},
        __func__, 0, type, stream);
}

int ncclBroadcast(const void *send, void *recv, size_t count, int type, int root,
                  zc_nccl_handle comm, void *stream)
{
    return collective((struct job){.kind = BROADCAST,
                                   .comm = comm,
                                   .root = root,
                                   .send = send,
                                   .recv = recv,
                                   .bytes = count},
                      __func__, 0, type, stream);
}

int ncclAlltoAll(const void *send, void *recv, size_t count, int type, zc_nccl_handle comm,
                 void *stream)
{
    return collective(
        (struct job){.kind = ALL_TO_ALL, .comm = comm, .send = send, .recv = recv, .bytes = count},
        __func__, 22800, type, stream);
}

int ncclGather(const void *send, void *recv, size_t count, int type, int root, zc_nccl_handle comm,
               void *stream)
{
    return collective(
        (struct job){
            .kind = GATHER, .comm = comm, .root = root, .send = send, .recv = recv, .bytes = count},
        __func__, 22800, type, stream);
}

int ncclScatter(const void *send, void *recv, size_t count, int type, int root, zc_nccl_handle comm,
                void *stream)
{
    return collective((struct job){.kind = SCATTER,
                                   .comm = comm,
                                   .root = root,
                                   .send = send,
                                   .recv = recv,
                                   .bytes = count},
                      __func__, 22800, type, stream);
}
