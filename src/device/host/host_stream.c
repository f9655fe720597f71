/* Host streams: a worker thread that runs programs and callbacks in the order they were enqueued.
 */
#include "device/host/host.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/thread.h"

enum { QUEUE_ITEMS = 1024 };

/* Neither: a program that was taken back. */
struct item {
    const struct zc_program *program; /* or */
    void (*function)(void *data);
    void *data;
    uint32_t ticket;
};

struct zcta_host_stream {
    struct zc_device *device;
    zcta_host_stream *next; /* of the device's */
    pthread_t worker;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct item items[QUEUE_ITEMS]; /* a ring: nothing is allocated when work is enqueued */
    uint64_t enqueued, begun, finished;
    zcta_error failure; /* the first since the last synchronize; status OK: none */
    bool closing;
};

/* Why programs under this guard fail; status OK if they do not. */
static zcta_error failure_of(const struct zc_guard *guard)
{
    const zcta_status status =
        (zcta_status)atomic_load_explicit(&guard->failed, memory_order_acquire);

    return status != ZCTA_OK && guard->failure != NULL ? *guard->failure
                                                       : (zcta_error){.status = status};
}

/* With the stream's lock held. */
static void keep_failure(zcta_host_stream *stream, const zcta_error *failure)
{
    if (stream->failure.status == ZCTA_OK)
        stream->failure = *failure;
}

/* Returns why a program failed. */
static zcta_error run_item(struct zc_device *device, const struct item *item)
{
    zcta_error failure = {.status = ZCTA_OK};

    if (item->function != NULL)
        item->function(item->data);
    if (item->program == NULL)
        return failure;
    if (zc_host_run(device, item->program, item->ticket) != ZCTA_OK)
        failure = failure_of(item->program->guard);
    /* Another thread may wait for just this program, to free it and its team: not before this one
     * has let go of the guard. */
    pthread_mutex_lock(&device->lock);
    zc_host_finish(item->program->guard, 1);
    pthread_mutex_unlock(&device->lock);
    return failure;
}

static void *work(void *data)
{
    zcta_host_stream *stream = data;

    pthread_mutex_lock(&stream->lock);
    for (;;) {
        struct item item;
        zcta_error failure;

        while (stream->finished == stream->enqueued && !stream->closing)
            pthread_cond_wait(&stream->changed, &stream->lock);
        if (stream->finished == stream->enqueued)
            break;
        item = stream->items[stream->begun++ % QUEUE_ITEMS];
        pthread_mutex_unlock(&stream->lock);
        failure = run_item(stream->device, &item);
        pthread_mutex_lock(&stream->lock);
        keep_failure(stream, &failure);
        stream->finished++;
        pthread_cond_broadcast(&stream->changed);
    }
    pthread_mutex_unlock(&stream->lock);
    return NULL;
}

zcta_status zc_host_stream_create(struct zc_device *device, zcta_host_stream **stream)
{
    zcta_host_stream *made = calloc(1, sizeof *made);
    int error;

    if (made == NULL)
        return zc_fail(device->diag, ZCTA_ERR_NO_MEMORY, "zcta_host_stream_create", ENOMEM,
                       "out of memory");
    made->device = device;
    pthread_mutex_init(&made->lock, NULL);
    pthread_cond_init(&made->changed, NULL);
    error = zc_thread_start(&made->worker, work, made);
    if (error != 0) {
        pthread_cond_destroy(&made->changed);
        pthread_mutex_destroy(&made->lock);
        free(made);
        return zc_fail(device->diag, ZCTA_ERR_SYSTEM, "pthread_create", error,
                       "cannot start a stream's worker thread: %s%s", strerror(error),
                       error == EAGAIN ? "; raise `ulimit -u` or `ulimit -v`" : "");
    }
    pthread_mutex_lock(&device->lock);
    made->next = device->streams;
    device->streams = made;
    pthread_mutex_unlock(&device->lock);
    *stream = made;
    return ZCTA_OK;
}

const struct zc_diag *zc_host_stream_diag(const zcta_host_stream *stream)
{
    return stream->device->diag;
}

static void enqueue(zcta_host_stream *stream, struct item item)
{
    pthread_mutex_lock(&stream->lock);
    while (stream->enqueued - stream->finished == QUEUE_ITEMS)
        pthread_cond_wait(&stream->changed, &stream->lock);
    stream->items[stream->enqueued % QUEUE_ITEMS] = item;
    stream->enqueued++;
    pthread_cond_broadcast(&stream->changed);
    pthread_mutex_unlock(&stream->lock);
}

void zc_host_stream_enqueue(zcta_host_stream *stream, const struct zc_program *program,
                            uint32_t ticket)
{
    enqueue(stream, (struct item){.program = program, .ticket = ticket});
}

void zc_host_stream_call(zcta_host_stream *stream, void (*function)(void *data), void *data)
{
    enqueue(stream, (struct item){.function = function, .data = data});
}

zcta_status zc_host_stream_synchronize(zcta_host_stream *stream, const char *call)
{
    uint64_t target;
    zcta_error failure;

    pthread_mutex_lock(&stream->lock);
    target = stream->enqueued;
    while (stream->finished < target)
        pthread_cond_wait(&stream->changed, &stream->lock);
    failure = stream->failure;
    stream->failure.status = ZCTA_OK;
    pthread_mutex_unlock(&stream->lock);
    if (failure.status == ZCTA_OK)
        return ZCTA_OK;
    snprintf(failure.call, sizeof failure.call, "%s", call);
    zc_diag_repeat(stream->device->diag, &failure);
    return failure.status;
}

static void unlist(zcta_host_stream *stream)
{
    struct zc_device *device = stream->device;

    pthread_mutex_lock(&device->lock);
    for (zcta_host_stream **at = &device->streams; *at != NULL; at = &(*at)->next)
        if (*at == stream) {
            *at = stream->next;
            break;
        }
    pthread_mutex_unlock(&device->lock);
}

void zc_host_stream_destroy(zcta_host_stream *stream)
{
    pthread_mutex_lock(&stream->lock);
    stream->closing = true;
    pthread_cond_broadcast(&stream->changed);
    pthread_mutex_unlock(&stream->lock);
    pthread_join(stream->worker, NULL);
    unlist(stream); /* until then programs on it can be taken back */
    pthread_cond_destroy(&stream->changed);
    pthread_mutex_destroy(&stream->lock);
    free(stream);
}

/* How many there were. */
static uint32_t drop(zcta_host_stream *stream, const struct zc_guard *guard)
{
    const zcta_error failure = failure_of(guard);
    uint32_t dropped = 0;

    pthread_mutex_lock(&stream->lock);
    for (uint64_t i = stream->begun; i < stream->enqueued; i++) {
        struct item *item = &stream->items[i % QUEUE_ITEMS];

        if (item->program == NULL || item->program->guard != guard)
            continue;
        *item = (struct item){.program = NULL};
        keep_failure(stream, &failure);
        dropped++;
    }
    pthread_mutex_unlock(&stream->lock);
    return dropped;
}

void zc_host_streams_drop(struct zc_device *device, struct zc_guard *guard)
{
    uint32_t dropped = 0;

    pthread_mutex_lock(&device->lock);
    for (zcta_host_stream *stream = device->streams; stream != NULL; stream = stream->next)
        dropped += drop(stream, guard);
    if (dropped > 0)
        zc_host_finish(guard, dropped);
    pthread_mutex_unlock(&device->lock);
}

void zc_host_streams_end(struct zc_device *device)
{
    zcta_host_stream *first;

    do {
        pthread_mutex_lock(&device->lock);
        first = device->streams;
        pthread_mutex_unlock(&device->lock);
        if (first != NULL)
            zc_host_stream_destroy(first);
    } while (first != NULL);
}
