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
    uint64_t enqueued, finished;
    zcta_error failure; /* the first since the last synchronize; status OK: none */
    bool closing;
};

/* *failure gets why a program failed; its status is OK otherwise. */
static void run_item(struct zc_device *device, const struct item *item, zcta_error *failure)
{
    const struct zc_guard *guard;
    zcta_status status;

    failure->status = ZCTA_OK;
    if (item->program == NULL) {
        item->function(item->data);
        return;
    }
    guard = item->program->guard;
    status = zc_host_run(device, item->program, item->ticket);
    if (status != ZCTA_OK)
        *failure = guard->failure != NULL ? *guard->failure : (zcta_error){.status = status};
    /* Another thread may wait for just this program, to free it and its team: not before this one
     * has let go of the guard. */
    pthread_mutex_lock(&device->lock);
    zc_host_finish(item->program->guard, item->ticket);
    pthread_mutex_unlock(&device->lock);
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
        item = stream->items[stream->finished % QUEUE_ITEMS];
        pthread_mutex_unlock(&stream->lock);
        run_item(stream->device, &item, &failure);
        pthread_mutex_lock(&stream->lock);
        if (stream->failure.status == ZCTA_OK && failure.status != ZCTA_OK)
            stream->failure = failure;
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
                       "cannot start a stream's worker thread: %s", strerror(error));
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
    unlist(stream);
    pthread_mutex_lock(&stream->lock);
    stream->closing = true;
    pthread_cond_broadcast(&stream->changed);
    pthread_mutex_unlock(&stream->lock);
    pthread_join(stream->worker, NULL);
    pthread_cond_destroy(&stream->changed);
    pthread_mutex_destroy(&stream->lock);
    free(stream);
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
