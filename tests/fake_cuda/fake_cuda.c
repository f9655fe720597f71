/* The fake driver: what it is for stands in its header. */
#include "fake_cuda.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "device/cuda/cuda_api.h"

enum {
    OUT_OF_MEMORY = 2,
    INVALID_VALUE = 1,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    NOT_PERMITTED = 800,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    CAPTURE_ISOLATION = 905,
    NOT_READY = 600,
    PEER_UNSUPPORTED = 217,
    NOT_SUPPORTED = 801,
    GRANULARITY = 65536,
    GPUS_MOST = 16,
    STACK = 8,
    OPS_MOST = 64,
    CONNECTIONS_MOST = 32,
    STREAMS_MOST = 64,
    SLOW_BYTES = 65536,
};

/* ---- State ---- */

enum item_kind { COPY, OPS, RECORD, AWAIT, CALL, HOLD, END };

struct item {
    enum item_kind kind;
    struct item *next;
    struct item *next_waiting;
    uint64_t place; /* in its connection */
    void *to;
    const void *from;
    size_t bytes;
    struct zc_cu_event_opaque *event;
    uint64_t generation;
    unsigned op_count;
    union zc_cu_mem_op ops[OPS_MOST];
    void (*function)(void *data);
    void *data;
    int gpu;
};

/* A hardware queue, which several streams of a context share. What waits in it holds up all that
 * was enqueued behind it, in whatever stream. */
struct connection {
    unsigned streams;
    pthread_cond_t work;                 /* there is some, or it is not held up any more */
    struct item *waiting, *waiting_last; /* by place */
    uint64_t enqueued;
};

struct zc_cu_context_opaque {
    int gpu;
    bool has_queues;
    unsigned connection_count;
    struct connection connections[CONNECTIONS_MOST];
    uint64_t enqueued, done; /* in all its streams */
    bool loads;              /* a kernel: a lock of the driver's is held until all has run */
};

struct zc_cu_stream_opaque {
    pthread_t thread;
    struct zc_cu_context_opaque *context;
    struct connection *connection;
    struct item *head, *tail;
    uint64_t enqueued, done;
    unsigned long long id;
    struct zc_cu_graph_opaque *capture; /* that it takes part in */
};

struct zc_cu_event_opaque {
    uint64_t recorded, done;
    uint64_t time_ns;
    struct zc_cu_graph_opaque *capture; /* that it was recorded in last */
};

struct zc_cu_graph_opaque {
    struct item *head, *tail;
    int mode;
    uint32_t unsafe_before;
    struct zc_cu_stream_opaque *streams[STREAMS_MOST]; /* [0] began it */
    unsigned stream_count;
};

struct allocation {
    int fd, gpu, uses;
    int handle_types;
    size_t bytes;
};

/* What a fabric handle holds. In place of a domain there is /proc, where another process finds the
 * memory again. */
struct fabric_handle {
    int64_t pid;
    int64_t fd;
    char unused[48];
};

struct mapping {
    struct mapping *next;
    const char *base;
    size_t bytes;
    struct allocation *allocation; /* NULL: plain memory */
    uint32_t opened;               /* bit i: GPU i may reach it */
};

/* One lock for everything but the memory itself: this is a fake. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t moved = PTHREAD_COND_INITIALIZER;
static struct mapping *mappings;
static struct allocation *allocations[4096];
static struct zc_cu_stream_opaque default_streams[2][GPUS_MOST]; /* legacy, the thread's own */
static pthread_once_t defaults_once = PTHREAD_ONCE_INIT, settings_once = PTHREAD_ONCE_INIT;
static unsigned long long last_id = 2;
static int gpu_count, version;
static bool held[GPUS_MOST]; /* every SM, by a kernel */
static bool lacks_vmm, lacks_fd, lacks_sight, lacks_imex, has_fabric;
static bool lacks_peer, lacks_access, has_islands; /* of two GPUs each */
static struct zc_cu_context_opaque primary[GPUS_MOST];
static unsigned connections = 8; /* of contexts made from now on */
static bool denies_contexts;
static _Atomic uint64_t local_copies; /* that ran so far, within one GPU */
static _Atomic uint64_t slow_copy_ns; /* what a copy of more than SLOW_BYTES takes */
static _Atomic int64_t alive;
static _Atomic uint64_t calls, fail_at;
static _Atomic int fail_with;
static const char *_Atomic failed_name = "";

static _Thread_local zc_cu_context stack[STACK];
static _Thread_local int depth;
static _Thread_local int capture_mode; /* in which this thread's calls stand to captures */
static _Atomic uint32_t global_captures, unsafe_calls;

#define EXPORT __attribute__((visibility("default")))

EXPORT fake_cuda_fail_fn fake_cuda_fail;
EXPORT fake_cuda_calls_fn fake_cuda_calls;
EXPORT fake_cuda_failed_fn fake_cuda_failed;
EXPORT fake_cuda_alive_fn fake_cuda_alive;
EXPORT fake_cuda_local_copies_fn fake_cuda_local_copies;
EXPORT fake_cuda_set_fn fake_cuda_set;
EXPORT fake_cuda_enqueue_fn fake_cuda_enqueue;
EXPORT fake_cuda_current_fn fake_cuda_current;

void fake_cuda_fail(uint64_t after, int error)
{
    atomic_store(&failed_name, "");
    atomic_store(&fail_with, error);
    atomic_store(&calls, 0);
    atomic_store(&fail_at, after);
}

uint64_t fake_cuda_calls(void)
{
    return atomic_load(&calls);
}

const char *fake_cuda_failed(void)
{
    return atomic_load(&failed_name);
}

int64_t fake_cuda_alive(void)
{
    return atomic_load(&alive);
}

static void connect_all(unsigned count);

uint64_t fake_cuda_local_copies(void)
{
    return atomic_load(&local_copies);
}

void fake_cuda_set(const char *what, uint64_t value)
{
    if (strcmp(what, "connections") == 0)
        connect_all((unsigned)value);
    else if (strcmp(what, "contexts") == 0)
        denies_contexts = value == 0;
    else if (strcmp(what, "slow-copy-ns") == 0)
        atomic_store(&slow_copy_ns, value);
    else
        abort();
}

static int count_call(const char *name)
{
    const uint64_t number = atomic_fetch_add(&calls, 1) + 1;

    if (number != atomic_load(&fail_at))
        return 0;
    atomic_store(&failed_name, name);
    return atomic_load(&fail_with);
}

#define MAY_FAIL()                                                                                 \
    do {                                                                                           \
        const int failed_with = count_call(__func__);                                              \
        if (failed_with != 0)                                                                      \
            return failed_with;                                                                    \
    } while (0)

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- Streams ---- */

/* Word by word where that is possible: signals are words, and others look at them meanwhile. */
static void copy(void *to, const void *from, size_t bytes)
{
    if (((uintptr_t)to | (uintptr_t)from | bytes) % 4 != 0 || bytes > 65536) {
        memmove(to, from, bytes);
        return;
    }
    for (size_t i = 0; i < bytes; i += 4)
        atomic_store_explicit(
            (_Atomic uint32_t *)((char *)to + i),
            atomic_load_explicit((const _Atomic uint32_t *)((const char *)from + i),
                                 memory_order_acquire),
            memory_order_release);
}

static void run_op(const union zc_cu_mem_op *op)
{
    _Atomic uint32_t *word = (_Atomic uint32_t *)(uintptr_t)op->value.address;
    const struct timespec nap = {.tv_nsec = 20000};

    if (op->value.operation == ZC_CU_MEM_OP_WRITE_VALUE_32) {
        atomic_store_explicit(word, (uint32_t)op->value.value, memory_order_release);
        return;
    }
    if (op->value.operation == ZC_CU_MEM_OP_WRITE_VALUE_64) {
        atomic_store_explicit(word + 1, (uint32_t)(op->value.value >> 32), memory_order_release);
        atomic_store_explicit(word, (uint32_t)op->value.value, memory_order_release);
        return;
    }
    for (uint32_t look = 0; (int32_t)(atomic_load_explicit(word, memory_order_acquire) -
                                      (uint32_t)op->value.value) < 0;
         look++)
        if (look > 100)
            nanosleep(&nap, NULL);
}

static struct mapping *find_mapping(const void *address)
{
    for (struct mapping *m = mappings; m != NULL; m = m->next)
        if ((const char *)address >= m->base && (const char *)address < m->base + m->bytes)
            return m;
    return NULL;
}

/* What was measured on an H200: a copy within one GPU waits for an SM, one between two does not. */
static void await_sm(const struct item *item)
{
    const struct mapping *to, *from;
    int gpu = -1;

    pthread_mutex_lock(&lock);
    to = find_mapping(item->to);
    from = find_mapping(item->from);
    if (to != NULL && from != NULL && to->allocation != NULL && from->allocation != NULL &&
        to->allocation->gpu == from->allocation->gpu)
        gpu = to->allocation->gpu;
    atomic_fetch_add(&local_copies, gpu >= 0);
    while (gpu >= 0 && held[gpu])
        pthread_cond_wait(&moved, &lock);
    pthread_mutex_unlock(&lock);
}

static void set_held(int gpu, bool is_held)
{
    pthread_mutex_lock(&lock);
    held[gpu] = is_held;
    pthread_cond_broadcast(&moved);
    pthread_mutex_unlock(&lock);
}

/* The one kernel there is: it says that it has begun, and holds every SM until the flag is raised
 * or its time is up. */
static void run_hold(const struct item *item)
{
    const struct timespec nap = {.tv_nsec = 20000};
    const uint64_t until = now_ns() + item->generation;
    _Atomic uint32_t *flag = item->data, *begun = item->to;

    set_held(item->gpu, true);
    atomic_store_explicit(begun, 1, memory_order_release);
    while (atomic_load_explicit(flag, memory_order_acquire) == 0 && now_ns() < until)
        nanosleep(&nap, NULL);
    set_held(item->gpu, false);
}

static void be_slow(const struct item *item)
{
    const uint64_t ns = atomic_load(&slow_copy_ns);
    const struct timespec nap = {.tv_sec = (time_t)(ns / 1000000000u),
                                 .tv_nsec = (long)(ns % 1000000000u)};

    if (ns > 0 && item->bytes > SLOW_BYTES)
        nanosleep(&nap, NULL);
}

static void run_item(const struct item *item)
{
    switch (item->kind) {
    case COPY:
        await_sm(item);
        be_slow(item);
        copy(item->to, item->from, item->bytes);
        break;
    case HOLD:
        run_hold(item);
        break;
    case OPS:
        for (unsigned i = 0; i < item->op_count; i++)
            run_op(&item->ops[i]);
        break;
    case RECORD:
        pthread_mutex_lock(&lock);
        item->event->done = item->generation;
        item->event->time_ns = now_ns();
        pthread_cond_broadcast(&moved);
        pthread_mutex_unlock(&lock);
        break;
    case AWAIT:
        pthread_mutex_lock(&lock);
        while (item->event->done < item->generation)
            pthread_cond_wait(&moved, &lock);
        pthread_mutex_unlock(&lock);
        break;
    case CALL:
        item->function(item->data);
        break;
    case END:
        break;
    }
}

/* ---- Contexts and their queues ---- */

static struct zc_cu_context_opaque *current(void)
{
    return depth == 0 ? NULL : stack[depth - 1];
}

static bool waits(const struct item *item)
{
    if (item->kind == AWAIT)
        return true;
    for (unsigned i = 0; item->kind == OPS && i < item->op_count; i++)
        if (item->ops[i].value.operation == ZC_CU_MEM_OP_WAIT_VALUE_32)
            return true;
    return false;
}

/* Under the lock. The stream is the context's from then on. */
static void connect_stream(struct zc_cu_context_opaque *context, struct zc_cu_stream_opaque *stream)
{
    struct connection *least = &context->connections[0];

    if (context->connection_count == 0)
        context->connection_count = connections;
    for (unsigned i = 0; i < CONNECTIONS_MOST && !context->has_queues; i++)
        pthread_cond_init(&context->connections[i].work, NULL);
    context->has_queues = true;
    for (unsigned i = 1; i < context->connection_count; i++)
        if (context->connections[i].streams < least->streams)
            least = &context->connections[i];
    least->streams++;
    stream->context = context;
    stream->connection = least;
}

static void connect_all(unsigned count)
{
    pthread_mutex_lock(&lock);
    connections = count;
    for (int gpu = 0; gpu < gpu_count; gpu++)
        primary[gpu].connection_count = 0;
    pthread_mutex_unlock(&lock);
}

/* Under the lock. While a kernel is being loaded the context's calls stand still. */
static void await_driver(const struct zc_cu_context_opaque *context)
{
    while (context != NULL && context->loads)
        pthread_cond_wait(&moved, &lock);
}

/* Under the lock. */
static void join_queue(struct connection *connection, struct item *item)
{
    item->place = ++connection->enqueued;
    item->next_waiting = NULL;
    if (!waits(item))
        return;
    if (connection->waiting == NULL)
        connection->waiting = item;
    else
        connection->waiting_last->next_waiting = item;
    connection->waiting_last = item;
}

/* Under the lock. */
static void leave_queue(struct connection *connection, const struct item *item)
{
    struct item *before = NULL, *at = connection->waiting;

    while (at != NULL && at != item) {
        before = at;
        at = at->next_waiting;
    }
    if (at == NULL)
        return;
    if (before == NULL)
        connection->waiting = at->next_waiting;
    else
        before->next_waiting = at->next_waiting;
    if (connection->waiting_last == at)
        connection->waiting_last = before;
}

static bool is_held_up(const struct zc_cu_stream_opaque *stream, const struct item *item)
{
    const struct item *first = stream->connection->waiting;

    return first != NULL && first->place < item->place;
}

static void *serve(void *data)
{
    struct zc_cu_stream_opaque *stream = data;
    bool ended = false;

    while (!ended) {
        struct item *item;

        pthread_mutex_lock(&lock);
        while (stream->head == NULL || is_held_up(stream, stream->head))
            pthread_cond_wait(&stream->connection->work, &lock);
        item = stream->head;
        pthread_mutex_unlock(&lock);
        run_item(item);
        ended = item->kind == END;
        pthread_mutex_lock(&lock);
        leave_queue(stream->connection, item);
        stream->head = item->next;
        stream->done++;
        stream->context->done++;
        if (waits(item))
            pthread_cond_broadcast(&stream->connection->work);
        pthread_cond_broadcast(&moved);
        pthread_mutex_unlock(&lock);
        free(item);
    }
    pthread_mutex_lock(&lock);
    stream->connection->streams--;
    pthread_mutex_unlock(&lock);
    free(stream);
    return NULL;
}

static int start_stream(struct zc_cu_context_opaque *context, struct zc_cu_stream_opaque *stream)
{
    pthread_attr_t detached;
    int error;

    pthread_mutex_lock(&lock);
    stream->id = ++last_id;
    connect_stream(context, stream);
    pthread_mutex_unlock(&lock);
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    error = pthread_create(&stream->thread, &detached, serve, stream);
    pthread_attr_destroy(&detached);
    return error == 0 ? 0 : OUT_OF_MEMORY;
}

static void start_defaults(void)
{
    for (int kind = 0; kind < 2; kind++)
        for (int gpu = 0; gpu < gpu_count; gpu++)
            start_stream(&primary[gpu], &default_streams[kind][gpu]);
}

static struct zc_cu_stream_opaque *resolve(zc_cu_stream stream)
{
    const int gpu = current() == NULL ? 0 : current()->gpu;

    pthread_once(&defaults_once, start_defaults);
    return (uintptr_t)stream > 2 ? stream : &default_streams[(uintptr_t)stream == 2][gpu];
}

static void append(struct item **head, struct item **tail, struct item *item)
{
    if (*head == NULL)
        *head = item;
    else
        (*tail)->next = item;
    *tail = item;
}

static int enqueue(zc_cu_stream handle, const struct item *given)
{
    struct item *item = malloc(sizeof *item);
    struct zc_cu_stream_opaque *stream = resolve(handle);

    if (item == NULL)
        return OUT_OF_MEMORY;
    *item = *given;
    item->next = NULL;
    pthread_mutex_lock(&lock);
    if (stream->capture != NULL) {
        append(&stream->capture->head, &stream->capture->tail, item);
    } else {
        await_driver(stream->context);
        join_queue(stream->connection, item);
        append(&stream->head, &stream->tail, item);
        stream->enqueued++;
        stream->context->enqueued++;
        pthread_cond_broadcast(&stream->connection->work);
    }
    pthread_mutex_unlock(&lock);
    return 0;
}

int fake_cuda_enqueue(void *stream, void (*function)(void *data), void *data)
{
    return enqueue(stream, &(struct item){.kind = CALL, .function = function, .data = data});
}

int fake_cuda_current(void)
{
    return current() == NULL ? -1 : current()->gpu;
}

/* A call that is forbidden while any thread captures in the usual mode, and breaks that capture. */
static int unsafe(void)
{
    if (capture_mode == ZC_CU_STREAM_CAPTURE_MODE_RELAXED || atomic_load(&global_captures) == 0)
        return 0;
    atomic_fetch_add(&unsafe_calls, 1);
    return CAPTURE_UNSUPPORTED;
}

static int synchronize(zc_cu_stream handle)
{
    struct zc_cu_stream_opaque *stream = resolve(handle);
    uint64_t until;

    pthread_mutex_lock(&lock);
    await_driver(stream->context);
    until = stream->enqueued;
    while (stream->done < until)
        pthread_cond_wait(&moved, &lock);
    pthread_mutex_unlock(&lock);
    return 0;
}

static zc_cu_result cuStreamCreate(zc_cu_stream *stream, unsigned flags)
{
    struct zc_cu_stream_opaque *made = calloc(1, sizeof *made);

    (void)flags;
    if (made == NULL)
        return OUT_OF_MEMORY;
    if (count_call("cuStreamCreate") != 0 || current() == NULL ||
        start_stream(current(), made) != 0) {
        free(made);
        return OUT_OF_MEMORY;
    }
    atomic_fetch_add(&alive, 1);
    *stream = made;
    return 0;
}

static zc_cu_result cuStreamDestroy(zc_cu_stream stream)
{
    atomic_fetch_sub(&alive, 1);
    return enqueue(stream, &(struct item){.kind = END});
}

static zc_cu_result cuStreamSynchronize(zc_cu_stream stream)
{
    MAY_FAIL();
    return synchronize(stream);
}

static zc_cu_result cuStreamQuery(zc_cu_stream handle)
{
    struct zc_cu_stream_opaque *stream = resolve(handle);
    bool done;

    MAY_FAIL();
    pthread_mutex_lock(&lock);
    done = stream->done == stream->enqueued;
    pthread_mutex_unlock(&lock);
    return done ? 0 : NOT_READY;
}

static zc_cu_result cuStreamGetId(zc_cu_stream stream, unsigned long long *id)
{
    MAY_FAIL();
    *id = resolve(stream)->id;
    return 0;
}

static zc_cu_result cuStreamIsCapturing(zc_cu_stream stream, int *status)
{
    MAY_FAIL();
    pthread_mutex_lock(&lock);
    *status = resolve(stream)->capture != NULL;
    pthread_mutex_unlock(&lock);
    return 0;
}

static zc_cu_result cuStreamBatchMemOp(zc_cu_stream stream, unsigned count, union zc_cu_mem_op *ops,
                                       unsigned flags)
{
    struct item item = {.kind = OPS, .op_count = count};

    MAY_FAIL();
    if (count > OPS_MOST || flags != 0)
        return INVALID_VALUE;
    memcpy(item.ops, ops, count * sizeof *ops);
    return enqueue(stream, &item);
}

static zc_cu_result cuMemcpyAsync(zc_cu_pointer to, zc_cu_pointer from, size_t bytes,
                                  zc_cu_stream stream)
{
    MAY_FAIL();
    return enqueue(stream, &(struct item){.kind = COPY,
                                          .to = (void *)(uintptr_t)to,
                                          .from = (const void *)(uintptr_t)from,
                                          .bytes = bytes});
}

static zc_cu_result cuMemcpy2DAsync(const struct zc_cu_copy_2d *rows, zc_cu_stream stream)
{
    int error = 0;

    MAY_FAIL();
    if (rows->from_type != ZC_CU_MEMORY_DEVICE || rows->to_type != ZC_CU_MEMORY_DEVICE ||
        rows->width > rows->from_pitch || rows->width > rows->to_pitch)
        return INVALID_VALUE;
    for (size_t i = 0; i < rows->height && error == 0; i++)
        error = enqueue(
            stream,
            &(struct item){.kind = COPY,
                           .to = (void *)(uintptr_t)(rows->to + i * rows->to_pitch),
                           .from = (const void *)(uintptr_t)(rows->from + i * rows->from_pitch),
                           .bytes = rows->width});
    return error;
}

/* Memory that is not pinned is copied before the call returns. */
static zc_cu_result cuMemcpyHtoDAsync(zc_cu_pointer to, const void *from, size_t bytes,
                                      zc_cu_stream stream)
{
    int error;

    MAY_FAIL();
    error = unsafe();
    if (error != 0)
        return error;
    error = enqueue(
        stream,
        &(struct item){.kind = COPY, .to = (void *)(uintptr_t)to, .from = from, .bytes = bytes});
    return error == 0 ? synchronize(stream) : error;
}

static zc_cu_result cuMemcpyDtoHAsync(void *to, zc_cu_pointer from, size_t bytes,
                                      zc_cu_stream stream)
{
    int error;

    MAY_FAIL();
    error = unsafe();
    if (error != 0)
        return error;
    error = enqueue(
        stream, &(struct item){
                    .kind = COPY, .to = to, .from = (const void *)(uintptr_t)from, .bytes = bytes});
    return error == 0 ? synchronize(stream) : error;
}

static zc_cu_result cuMemsetD8Async(zc_cu_pointer to, unsigned char value, size_t bytes,
                                    zc_cu_stream stream)
{
    int error;

    MAY_FAIL();
    error = synchronize(stream);
    memset((void *)(uintptr_t)to, value, bytes);
    return error;
}

/* ---- Events ---- */

static zc_cu_result cuEventCreate(zc_cu_event *event, unsigned flags)
{
    (void)flags;
    MAY_FAIL();
    *event = calloc(1, sizeof **event);
    atomic_fetch_add(&alive, *event != NULL);
    return *event == NULL ? OUT_OF_MEMORY : 0;
}

/* What is still queued may use it, so it stays; the process is a test's. */
static zc_cu_result cuEventDestroy(zc_cu_event event)
{
    static struct zc_cu_event_opaque *_Atomic kept[65536];
    static _Atomic uint32_t count;

    atomic_fetch_sub(&alive, 1);
    free(atomic_exchange(&kept[atomic_fetch_add(&count, 1) % 65536], event));
    return 0;
}

static zc_cu_result cuEventRecord(zc_cu_event event, zc_cu_stream stream)
{
    struct item item = {.kind = RECORD, .event = event};

    MAY_FAIL();
    pthread_mutex_lock(&lock);
    event->capture = resolve(stream)->capture;
    if (event->capture == NULL)
        item.generation = ++event->recorded;
    pthread_mutex_unlock(&lock);
    return enqueue(stream, &item);
}

/* Under the lock. A stream that waits for an event of a capture takes part in it; one that does
 * must not wait for anything outside. */
static int join_capture(struct zc_cu_stream_opaque *stream, const struct zc_cu_event_opaque *event)
{
    struct zc_cu_graph_opaque *capture = event->capture;

    if (stream->capture != capture && stream->capture != NULL)
        return CAPTURE_ISOLATION;
    if (stream->capture != NULL || capture == NULL)
        return 0;
    if (capture->stream_count == STREAMS_MOST)
        return INVALID_VALUE;
    capture->streams[capture->stream_count++] = stream;
    stream->capture = capture;
    return 0;
}

static zc_cu_result cuStreamWaitEvent(zc_cu_stream stream, zc_cu_event event, unsigned flags)
{
    struct item item = {.kind = AWAIT, .event = event};
    int error;

    (void)flags;
    MAY_FAIL();
    pthread_mutex_lock(&lock);
    item.generation = event->recorded;
    error = join_capture(resolve(stream), event);
    pthread_mutex_unlock(&lock);
    return error == 0 ? enqueue(stream, &item) : error;
}

static zc_cu_result cuEventQuery(zc_cu_event event)
{
    bool done;

    MAY_FAIL();
    pthread_mutex_lock(&lock);
    done = event->done >= event->recorded;
    pthread_mutex_unlock(&lock);
    return done ? 0 : NOT_READY;
}

static zc_cu_result cuEventSynchronize(zc_cu_event event)
{
    MAY_FAIL();
    pthread_mutex_lock(&lock);
    while (event->done < event->recorded)
        pthread_cond_wait(&moved, &lock);
    pthread_mutex_unlock(&lock);
    return 0;
}

static zc_cu_result cuEventElapsedTime(float *ms, zc_cu_event begin, zc_cu_event end)
{
    MAY_FAIL();
    pthread_mutex_lock(&lock);
    *ms = (float)((double)(int64_t)(end->time_ns - begin->time_ns) / 1e6);
    pthread_mutex_unlock(&lock);
    return 0;
}

/* ---- Graphs: what was captured, in the order of capture ---- */

static zc_cu_result cuThreadExchangeStreamCaptureMode(int *mode)
{
    const int before = capture_mode;

    MAY_FAIL();
    capture_mode = *mode;
    *mode = before;
    return 0;
}

static zc_cu_result cuStreamBeginCapture(zc_cu_stream handle, int mode)
{
    struct zc_cu_stream_opaque *stream = resolve(handle);
    struct zc_cu_graph_opaque *made;

    MAY_FAIL();
    if (stream->capture != NULL)
        return INVALID_VALUE;
    made = calloc(1, sizeof *made);
    if (made == NULL)
        return OUT_OF_MEMORY;
    made->mode = mode;
    made->unsafe_before = atomic_load(&unsafe_calls);
    made->streams[made->stream_count++] = stream;
    pthread_mutex_lock(&lock);
    stream->capture = made;
    pthread_mutex_unlock(&lock);
    if (mode == ZC_CU_STREAM_CAPTURE_MODE_GLOBAL)
        atomic_fetch_add(&global_captures, 1);
    return 0;
}

static zc_cu_result cuGraphDestroy(zc_cu_graph graph);

static zc_cu_result cuStreamEndCapture(zc_cu_stream handle, zc_cu_graph *graph)
{
    struct zc_cu_stream_opaque *stream = resolve(handle);
    struct zc_cu_graph_opaque *ended = stream->capture;

    *graph = NULL;
    if (ended == NULL || ended->streams[0] != stream)
        return INVALID_VALUE;
    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < ended->stream_count; i++)
        ended->streams[i]->capture = NULL;
    pthread_mutex_unlock(&lock);
    if (ended->mode == ZC_CU_STREAM_CAPTURE_MODE_GLOBAL) {
        atomic_fetch_sub(&global_captures, 1);
        if (atomic_load(&unsafe_calls) != ended->unsafe_before) {
            cuGraphDestroy(ended);
            return CAPTURE_INVALIDATED;
        }
    }
    *graph = ended;
    return 0;
}

static zc_cu_result cuGraphInstantiateWithFlags(zc_cu_graph_exec *exec, zc_cu_graph graph,
                                                unsigned long long flags)
{
    struct zc_cu_graph_opaque *made;

    (void)flags;
    MAY_FAIL();
    made = calloc(1, sizeof *made);
    for (const struct item *item = graph->head; made != NULL && item != NULL; item = item->next) {
        struct item *again = malloc(sizeof *again);

        *again = *item;
        again->next = NULL;
        append(&made->head, &made->tail, again);
    }
    *exec = (zc_cu_graph_exec)(void *)made;
    return made == NULL ? OUT_OF_MEMORY : 0;
}

static zc_cu_result cuGraphLaunch(zc_cu_graph_exec exec, zc_cu_stream stream)
{
    const struct zc_cu_graph_opaque *graph = (const void *)exec;
    int error = 0;

    MAY_FAIL();
    for (const struct item *item = graph->head; item != NULL && error == 0; item = item->next)
        if (item->kind == COPY || item->kind == OPS || item->kind == CALL)
            error = enqueue(stream, item);
    return error;
}

static zc_cu_result cuGraphDestroy(zc_cu_graph graph)
{
    while (graph->head != NULL) {
        struct item *item = graph->head;

        graph->head = item->next;
        free(item);
    }
    free(graph);
    return 0;
}

static zc_cu_result cuGraphExecDestroy(zc_cu_graph_exec exec)
{
    return cuGraphDestroy((zc_cu_graph)(void *)exec);
}

/* ---- GPUs and contexts ---- */

static int setting(const char *name, int usual)
{
    const char *text = getenv(name);

    return text == NULL ? usual : (int)strtol(text, NULL, 10);
}

static bool lacks(const char *what)
{
    const char *text = getenv("FAKE_CUDA_LACKS");

    return text != NULL && strstr(text, what) != NULL;
}

static void read_settings(void)
{
    gpu_count = setting("FAKE_CUDA_GPUS", 2);
    version = setting("FAKE_CUDA_VERSION", 13000);
    lacks_vmm = lacks("vmm");
    lacks_fd = lacks("fd");
    lacks_peer = lacks("peer");
    lacks_access = lacks_peer || lacks("access"); /* though it looked as if there were */
    has_islands = lacks("islands");
    lacks_sight = lacks("sight");
    lacks_imex = lacks("imex");
    has_fabric = setting("FAKE_CUDA_FABRIC", 0) == 1;
    connections = (unsigned)setting("CUDA_DEVICE_MAX_CONNECTIONS", 8);
    for (int gpu = 0; gpu < GPUS_MOST; gpu++)
        primary[gpu].gpu = gpu;
}

static zc_cu_result cuInit(unsigned flags)
{
    (void)flags;
    MAY_FAIL();
    pthread_once(&settings_once, read_settings);
    return setting("FAKE_CUDA_INIT", 0);
}

static zc_cu_result cuDriverGetVersion(int *number)
{
    MAY_FAIL();
    *number = version;
    return 0;
}

static zc_cu_result cuGetErrorString(zc_cu_result error, const char **text)
{
    *text = error == OUT_OF_MEMORY      ? "out of memory"
            : error == PEER_UNSUPPORTED ? "peer access is not supported between these two devices"
                                        : "a fake error";
    return 0;
}

static zc_cu_result cuDeviceGetCount(int *count)
{
    MAY_FAIL();
    *count = gpu_count;
    return 0;
}

static zc_cu_result cuDeviceGet(zc_cu_device *device, int ordinal)
{
    MAY_FAIL();
    *device = ordinal;
    return ordinal < gpu_count ? 0 : INVALID_DEVICE;
}

static zc_cu_result cuDeviceGetName(char *name, int bytes, zc_cu_device device)
{
    (void)device;
    MAY_FAIL();
    strncpy(name, "a fake GPU", (size_t)bytes);
    return 0;
}

static zc_cu_result cuDeviceGetAttribute(int *value, int attribute, zc_cu_device device)
{
    (void)device;
    MAY_FAIL();
    *value = attribute == ZC_CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY ? !lacks_vmm
             : attribute == ZC_CU_DEVICE_ATTRIBUTE_POSIX_FD     ? !lacks_fd
             : attribute == ZC_CU_DEVICE_ATTRIBUTE_FABRIC       ? has_fabric
                                                                : 1;
    return 0;
}

static zc_cu_result cuDeviceGetUuid(void *uuid, zc_cu_device device)
{
    MAY_FAIL();
    memset(uuid, 0, 16);
    *(char *)uuid = (char)(device + 1);
    return 0;
}

static zc_cu_result cuDeviceTotalMem(size_t *bytes, zc_cu_device device)
{
    (void)device;
    MAY_FAIL();
    *bytes = (size_t)1 << 30;
    return 0;
}

static zc_cu_result cuDeviceGetPCIBusId(char *bus_id, int bytes, zc_cu_device device)
{
    MAY_FAIL();
    snprintf(bus_id, (size_t)bytes, "0000:%02x:00.0", device);
    return 0;
}

static zc_cu_result cuDeviceCanAccessPeer(int *can, zc_cu_device device, zc_cu_device peer)
{
    MAY_FAIL();
    *can = device != peer && !lacks_peer && (!has_islands || device / 2 == peer / 2);
    return 0;
}

static zc_cu_result cuDevicePrimaryCtxRetain(zc_cu_context *context, zc_cu_device device)
{
    MAY_FAIL();
    *context = &primary[device];
    atomic_fetch_add(&alive, 1);
    return 0;
}

/* Current to the calling thread, as the driver does it. */
static zc_cu_result cuCtxCreate(zc_cu_context *context, unsigned flags, zc_cu_device device)
{
    struct zc_cu_context_opaque *made;

    (void)flags;
    MAY_FAIL();
    if (denies_contexts || depth == STACK)
        return OUT_OF_MEMORY;
    made = calloc(1, sizeof *made);
    if (made == NULL)
        return OUT_OF_MEMORY;
    made->gpu = device;
    atomic_fetch_add(&alive, 1);
    stack[depth++] = made;
    *context = made;
    return 0;
}

/* Its streams have been destroyed, though they may not have ended: it stays. */
static zc_cu_result cuCtxDestroy(zc_cu_context context)
{
    static struct zc_cu_context_opaque *_Atomic kept[1024];
    static _Atomic uint32_t count;

    if (current() == context)
        depth--;
    atomic_fetch_sub(&alive, 1);
    free(atomic_exchange(&kept[atomic_fetch_add(&count, 1) % 1024], context));
    return 0;
}

static zc_cu_result cuDevicePrimaryCtxRelease(zc_cu_device device)
{
    (void)device;
    atomic_fetch_sub(&alive, 1);
    return 0;
}

static zc_cu_result cuCtxGetCurrent(zc_cu_context *context)
{
    MAY_FAIL();
    *context = depth == 0 ? NULL : stack[depth - 1];
    return 0;
}

static zc_cu_result cuCtxGetDevice(zc_cu_device *device)
{
    MAY_FAIL();
    if (depth == 0)
        return INVALID_CONTEXT;
    *device = current()->gpu;
    return 0;
}

static zc_cu_result cuCtxPushCurrent(zc_cu_context context)
{
    MAY_FAIL();
    if (depth == STACK)
        return INVALID_CONTEXT;
    stack[depth++] = context;
    return 0;
}

static zc_cu_result cuCtxPopCurrent(zc_cu_context *context)
{
    if (depth == 0)
        return INVALID_CONTEXT;
    *context = stack[--depth];
    return 0;
}

/* ---- Memory ---- */

static void add_mapping(const char *base, size_t bytes, struct allocation *allocation)
{
    struct mapping *made = malloc(sizeof *made);

    *made =
        (struct mapping){.next = mappings, .base = base, .bytes = bytes, .allocation = allocation};
    mappings = made;
    atomic_fetch_add(&alive, 1);
}

static bool drop_mapping(const char *base)
{
    for (struct mapping **at = &mappings; *at != NULL; at = &(*at)->next)
        if ((*at)->base == base) {
            struct mapping *dropped = *at;

            *at = dropped->next;
            free(dropped);
            atomic_fetch_sub(&alive, 1);
            return true;
        }
    return false;
}

static zc_cu_result cuMemGetAllocationGranularity(size_t *bytes,
                                                  const struct zc_cu_allocation_prop *prop,
                                                  int option)
{
    (void)prop, (void)option;
    MAY_FAIL();
    *bytes = GRANULARITY;
    return 0;
}

static int new_handle(struct allocation made, zc_cu_allocation *handle)
{
    int error = OUT_OF_MEMORY;

    pthread_mutex_lock(&lock);
    for (size_t i = 1; i < sizeof allocations / sizeof allocations[0]; i++)
        if (allocations[i] == NULL) {
            allocations[i] = malloc(sizeof made);
            *allocations[i] = made;
            *handle = i;
            atomic_fetch_add(&alive, 1);
            error = 0;
            break;
        }
    pthread_mutex_unlock(&lock);
    return error;
}

/* The inode tells whose memory a descriptor is: odd bytes of the file's size would not. */
static zc_cu_result cuMemCreate(zc_cu_allocation *handle, size_t bytes,
                                const struct zc_cu_allocation_prop *prop, unsigned long long flags)
{
    struct allocation made = {
        .bytes = bytes, .gpu = prop->location.id, .uses = 1, .handle_types = prop->handle_types};
    char name[16] = "fake-gpu-0";

    (void)flags;
    MAY_FAIL();
    if (bytes % GRANULARITY != 0)
        return INVALID_VALUE;
    if ((made.handle_types & ZC_CU_MEM_HANDLE_FABRIC) != 0 && !has_fabric)
        return NOT_SUPPORTED;
    if (bytes > (size_t)1 << 34)
        return OUT_OF_MEMORY;
    name[9] = (char)('0' + made.gpu);
    made.fd = memfd_create(name, MFD_CLOEXEC);
    if (made.fd < 0 || ftruncate(made.fd, (off_t)bytes) != 0)
        return OUT_OF_MEMORY;
    return new_handle(made, handle);
}

static zc_cu_result cuMemRelease(zc_cu_allocation handle)
{
    pthread_mutex_lock(&lock);
    if (--allocations[handle]->uses == 0) {
        close(allocations[handle]->fd);
        free(allocations[handle]);
        allocations[handle] = NULL;
        atomic_fetch_sub(&alive, 1);
    }
    pthread_mutex_unlock(&lock);
    return 0;
}

static zc_cu_result cuMemAddressReserve(zc_cu_pointer *pointer, size_t bytes, size_t alignment,
                                        zc_cu_pointer address, unsigned long long flags)
{
    void *at;

    (void)alignment, (void)address, (void)flags;
    MAY_FAIL();
    at = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return OUT_OF_MEMORY;
    atomic_fetch_add(&alive, 1);
    *pointer = (uintptr_t)at;
    return 0;
}

static zc_cu_result cuMemAddressFree(zc_cu_pointer pointer, size_t bytes)
{
    atomic_fetch_sub(&alive, 1);
    return munmap((void *)(uintptr_t)pointer, bytes) == 0 ? 0 : INVALID_VALUE;
}

static zc_cu_result cuMemMap(zc_cu_pointer pointer, size_t bytes, size_t offset,
                             zc_cu_allocation handle, unsigned long long flags)
{
    (void)flags;
    MAY_FAIL();
    if (mmap((void *)(uintptr_t)pointer, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
             allocations[handle]->fd, (off_t)offset) == MAP_FAILED)
        return OUT_OF_MEMORY;
    pthread_mutex_lock(&lock);
    add_mapping((char *)(uintptr_t)pointer, bytes, allocations[handle]);
    pthread_mutex_unlock(&lock);
    return 0;
}

static zc_cu_result cuMemUnmap(zc_cu_pointer pointer, size_t bytes)
{
    bool was;

    pthread_mutex_lock(&lock);
    was = drop_mapping((char *)(uintptr_t)pointer);
    pthread_mutex_unlock(&lock);
    if (!was || mmap((void *)(uintptr_t)pointer, bytes, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
        return INVALID_VALUE;
    return 0;
}

static bool may_reach(int gpu, int owner)
{
    return gpu == owner || (!lacks_access && (!has_islands || gpu / 2 == owner / 2));
}

/* Nothing is opened twice to the same GPU. */
static zc_cu_result cuMemSetAccess(zc_cu_pointer pointer, size_t bytes,
                                   const struct zc_cu_access *access, size_t count)
{
    const uint32_t bit = 1u << access->location.id;
    struct mapping *mapping;
    int error = 0;

    (void)bytes, (void)count;
    MAY_FAIL();
    pthread_mutex_lock(&lock);
    mapping = find_mapping((void *)(uintptr_t)pointer);
    if (mapping == NULL || !may_reach(access->location.id, mapping->allocation->gpu))
        error = PEER_UNSUPPORTED;
    else if ((mapping->opened & bit) != 0)
        error = INVALID_VALUE;
    else
        mapping->opened |= bit;
    pthread_mutex_unlock(&lock);
    return error;
}

static zc_cu_result cuMemGetAccess(unsigned long long *flags, const struct zc_cu_location *location,
                                   zc_cu_pointer pointer)
{
    const struct mapping *mapping;

    MAY_FAIL();
    pthread_mutex_lock(&lock);
    mapping = find_mapping((void *)(uintptr_t)pointer);
    *flags = mapping != NULL && (mapping->opened & 1u << location->id) != 0
                 ? ZC_CU_MEM_ACCESS_READWRITE
                 : 0;
    pthread_mutex_unlock(&lock);
    return mapping == NULL ? INVALID_VALUE : 0;
}

static int export_fabric(const struct allocation *allocation, void *shareable)
{
    const struct fabric_handle handle = {.pid = getpid(), .fd = allocation->fd};

    if (lacks_imex)
        return NOT_PERMITTED;
    memcpy(shareable, &handle, sizeof handle);
    return 0;
}

static zc_cu_result cuMemExportToShareableHandle(void *shareable, zc_cu_allocation handle, int type,
                                                 unsigned long long flags)
{
    int fd;

    (void)flags;
    MAY_FAIL();
    if ((allocations[handle]->handle_types & type) == 0)
        return INVALID_VALUE;
    if (type == ZC_CU_MEM_HANDLE_FABRIC)
        return export_fabric(allocations[handle], shareable);
    fd = dup(allocations[handle]->fd);
    if (fd < 0)
        return OUT_OF_MEMORY;
    memcpy(shareable, &fd, sizeof fd);
    return 0;
}

/* The GPU stands in the file's name. */
static int gpu_of(int fd)
{
    char path[64], target[64] = "";
    const char *found;

    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (readlink(path, target, sizeof target - 1) < 0)
        return 0;
    found = strstr(target, "fake-gpu-");
    return found == NULL ? 0 : found[9] - '0';
}

static int open_fabric(const void *shareable)
{
    struct fabric_handle handle;
    char path[64];

    memcpy(&handle, shareable, sizeof handle);
    snprintf(path, sizeof path, "/proc/%lld/fd/%lld", (long long)handle.pid, (long long)handle.fd);
    return open(path, O_RDWR | O_CLOEXEC);
}

static zc_cu_result cuMemImportFromShareableHandle(zc_cu_allocation *handle, void *shareable,
                                                   int type)
{
    struct allocation made = {.uses = 1, .handle_types = type};
    struct stat about;

    MAY_FAIL();
    if (lacks_sight)
        return INVALID_DEVICE;
    made.fd =
        type == ZC_CU_MEM_HANDLE_FABRIC ? open_fabric(shareable) : dup((int)(intptr_t)shareable);
    if (made.fd < 0 || fstat(made.fd, &about) != 0)
        return INVALID_VALUE;
    made.bytes = (size_t)about.st_size;
    made.gpu = gpu_of(made.fd);
    return new_handle(made, handle);
}

static zc_cu_result cuMemRetainAllocationHandle(zc_cu_allocation *handle, void *address)
{
    const struct mapping *mapping;
    int error = INVALID_VALUE;

    MAY_FAIL();
    pthread_mutex_lock(&lock);
    mapping = find_mapping(address);
    for (size_t i = 1; mapping != NULL && mapping->allocation != NULL &&
                       i < sizeof allocations / sizeof allocations[0];
         i++)
        if (allocations[i] == mapping->allocation) {
            allocations[i]->uses++;
            *handle = i;
            error = 0;
            break;
        }
    pthread_mutex_unlock(&lock);
    return error;
}

static zc_cu_result cuMemGetAllocationPropertiesFromHandle(struct zc_cu_allocation_prop *prop,
                                                           zc_cu_allocation handle)
{
    MAY_FAIL();
    *prop = (struct zc_cu_allocation_prop){
        .type = ZC_CU_MEM_ALLOCATION_PINNED,
        .location = {ZC_CU_MEM_LOCATION_DEVICE, allocations[handle]->gpu},
        .handle_types = allocations[handle]->handle_types};
    return 0;
}

static zc_cu_result cuMemGetAddressRange(zc_cu_pointer *base, size_t *bytes, zc_cu_pointer pointer)
{
    const struct mapping *mapping;

    MAY_FAIL();
    pthread_mutex_lock(&lock);
    mapping = find_mapping((void *)(uintptr_t)pointer);
    if (mapping != NULL) {
        *base = (uintptr_t)mapping->base;
        *bytes = mapping->bytes;
    }
    pthread_mutex_unlock(&lock);
    return mapping == NULL ? INVALID_VALUE : 0;
}

static zc_cu_result cuPointerGetAttribute(void *value, int attribute, zc_cu_pointer pointer)
{
    const struct mapping *mapping;
    int gpu = 0;

    (void)attribute;
    MAY_FAIL();
    pthread_mutex_lock(&lock);
    mapping = find_mapping((void *)(uintptr_t)pointer);
    if (mapping != NULL && mapping->allocation != NULL)
        gpu = mapping->allocation->gpu;
    pthread_mutex_unlock(&lock);
    memcpy(value, &gpu, sizeof gpu);
    return mapping == NULL ? INVALID_VALUE : 0;
}

static zc_cu_result cuMemAlloc(zc_cu_pointer *pointer, size_t bytes)
{
    void *made;

    MAY_FAIL();
    made = calloc(1, bytes);
    if (made == NULL)
        return OUT_OF_MEMORY;
    pthread_mutex_lock(&lock);
    add_mapping(made, bytes, NULL);
    pthread_mutex_unlock(&lock);
    *pointer = (uintptr_t)made;
    return 0;
}

static zc_cu_result cuMemFree(zc_cu_pointer pointer)
{
    pthread_mutex_lock(&lock);
    drop_mapping((char *)(uintptr_t)pointer);
    pthread_mutex_unlock(&lock);
    free((void *)(uintptr_t)pointer);
    return 0;
}

static zc_cu_result cuMemHostAlloc(void **pointer, size_t bytes, unsigned flags)
{
    (void)flags;
    MAY_FAIL();
    *pointer = calloc(1, bytes);
    atomic_fetch_add(&alive, *pointer != NULL);
    return *pointer == NULL ? OUT_OF_MEMORY : 0;
}

static zc_cu_result cuMemHostRegister(void *pointer, size_t bytes, unsigned flags)
{
    (void)flags;
    MAY_FAIL();
    pthread_mutex_lock(&lock);
    add_mapping(pointer, bytes, NULL);
    pthread_mutex_unlock(&lock);
    return 0;
}

static zc_cu_result cuMemHostUnregister(void *pointer)
{
    bool was;

    pthread_mutex_lock(&lock);
    was = drop_mapping(pointer);
    pthread_mutex_unlock(&lock);
    return was ? 0 : INVALID_VALUE;
}

static zc_cu_result cuMemHostGetDevicePointer(zc_cu_pointer *seen, void *pointer, unsigned flags)
{
    (void)flags;
    MAY_FAIL();
    *seen = (uintptr_t)pointer;
    return 0;
}

static zc_cu_result cuMemFreeHost(void *pointer)
{
    atomic_fetch_sub(&alive, 1);
    free(pointer);
    return 0;
}

/* ---- Kernels: there is one that holds the SMs, all others do nothing ---- */

struct zc_cu_module_opaque {
    char text[4096];
};

struct zc_cu_function_opaque {
    bool holds;
    bool loaded; /* CUDA loads a kernel when it is first launched */
};

static zc_cu_result cuModuleLoadData(zc_cu_module *module, const void *image)
{
    struct zc_cu_module_opaque *made;

    MAY_FAIL();
    made = calloc(1, sizeof *made);
    if (made == NULL)
        return OUT_OF_MEMORY;
    strncpy(made->text, image, sizeof made->text - 1);
    *module = made;
    return strstr(made->text, ".entry ") != NULL ? 0 : NOT_SUPPORTED;
}

static zc_cu_result cuModuleUnload(zc_cu_module module)
{
    free(module);
    return 0;
}

/* Functions stay: what is queued may be one. */
static zc_cu_result cuModuleGetFunction(zc_cu_function *function, zc_cu_module module,
                                        const char *name)
{
    static struct zc_cu_function_opaque functions[256];
    static _Atomic uint32_t count;
    char entry[64];

    MAY_FAIL();
    snprintf(entry, sizeof entry, ".entry %s(", name);
    if (strstr(module->text, entry) == NULL)
        return INVALID_VALUE;
    *function = &functions[atomic_fetch_add(&count, 1) % 256];
    **function = (struct zc_cu_function_opaque){.holds = strcmp(name, "hold") == 0};
    return 0;
}

/* What was seen on an H100: loading waits for all that the context has been given, and meanwhile
 * keeps everybody else from giving it more. */
static void load(struct zc_cu_context_opaque *context, struct zc_cu_function_opaque *function)
{
    uint64_t until;

    pthread_mutex_lock(&lock);
    await_driver(context);
    context->loads = true;
    until = context->enqueued;
    while (context->done < until)
        pthread_cond_wait(&moved, &lock);
    context->loads = false;
    function->loaded = true;
    pthread_cond_broadcast(&moved);
    pthread_mutex_unlock(&lock);
}

static void do_nothing(void *data)
{
    (void)data;
}

/* NOLINTNEXTLINE(readability-function-size): the driver's own parameters. */
static zc_cu_result cuLaunchKernel(zc_cu_function function, unsigned grid_x, unsigned grid_y,
                                   unsigned grid_z, unsigned block_x, unsigned block_y,
                                   unsigned block_z, unsigned shared_bytes, zc_cu_stream stream,
                                   void **parameters, void **extra)
{
    uint64_t flag, begun, limit;

    (void)grid_x, (void)grid_y, (void)grid_z, (void)block_x, (void)block_y;
    (void)block_z, (void)shared_bytes, (void)extra;
    MAY_FAIL();
    if (current() == NULL)
        return INVALID_VALUE;
    if (!function->holds) {
        if (!function->loaded)
            load(current(), function);
        return enqueue(stream, &(struct item){.kind = CALL, .function = do_nothing});
    }
    memcpy(&flag, parameters[0], sizeof flag);
    memcpy(&begun, parameters[1], sizeof begun);
    memcpy(&limit, parameters[2], sizeof limit);
    return enqueue(stream, &(struct item){.kind = HOLD,
                                          .data = (void *)(uintptr_t)flag,
                                          .to = (void *)(uintptr_t)begun,
                                          .generation = limit,
                                          .gpu = current()->gpu});
}

/* ---- The table ---- */

EXPORT zc_cu_result cuGetProcAddress_v2(const char *symbol, void **function, int cuda_version,
                                        uint64_t flags, int *found);

zc_cu_result cuGetProcAddress_v2(const char *symbol, void **function, int cuda_version,
                                 uint64_t flags, int *found)
{
    static const struct {
        const char *name;
        int since;
        void (*address)(void);
    } table[] = {
#define ROW(name, parameters, since) {#name, since, (void (*)(void))(name)},
        ZC_CU_FUNCTIONS(ROW)
#undef ROW
    };

    (void)flags;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (strcmp(symbol, table[i].name) == 0 && cuda_version == table[i].since) {
            memcpy(function, &table[i].address, sizeof *function);
            if (found != NULL)
                *found = 0;
            return 0;
        }
    if (found != NULL)
        *found = 1;
    return NOT_SUPPORTED;
}
