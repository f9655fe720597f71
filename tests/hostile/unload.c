/* A program that closes the library while it is in a job. The library stays, and so do its threads.
 *   hostile-unload LIBRARY */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "zerocta/zerocta.h"

struct calls {
    zcta_status (*init)(const zcta_init_params *params, zcta_context **context);
    zcta_status (*finalize)(zcta_context **context);
    zcta_status (*stream_create)(zcta_context *context, zcta_host_stream **stream);
    zcta_status (*stream_call)(zcta_host_stream *stream, void (*function)(void *data), void *data);
    zcta_status (*stream_destroy)(zcta_host_stream **stream);
};

static void find(void *library, const char *name, void *call)
{
    void *symbol = dlsym(library, name);

    if (symbol == NULL) {
        fprintf(stderr, "%s is not there\n", name);
        exit(1);
    }
    memcpy(call, &symbol, sizeof symbol);
}

static void answer(void *data)
{
    *(int *)data = 42;
}

int main(int argc, char **argv)
{
    const zcta_init_params params = {
        .size = sizeof params, .rank_count = 1, .device = ZCTA_DEVICE_HOST};
    void *library = argc == 2 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    zcta_host_stream *stream = NULL;
    zcta_context *context = NULL;
    struct calls calls;
    int answered = 0;

    if (library == NULL) {
        fprintf(stderr, "cannot load the library: %s\n", dlerror());
        return 1;
    }
    find(library, "zcta_init", &calls.init);
    find(library, "zcta_finalize", &calls.finalize);
    find(library, "zcta_host_stream_create", &calls.stream_create);
    find(library, "zcta_host_stream_call", &calls.stream_call);
    find(library, "zcta_host_stream_destroy", &calls.stream_destroy);
    if (calls.init(&params, &context) != ZCTA_OK ||
        calls.stream_create(context, &stream) != ZCTA_OK)
        return 1;
    dlclose(library);
    /* The worker sleeps in the library's code, and wakes there. */
    if (calls.stream_call(stream, answer, &answered) != ZCTA_OK ||
        calls.stream_destroy(&stream) != ZCTA_OK || answered != 42)
        return 1;
    if (dlopen(argv[1], RTLD_NOW | RTLD_NOLOAD) == NULL) {
        fprintf(stderr, "the library was unloaded\n");
        return 1;
    }
    return calls.finalize(&context) != ZCTA_OK;
}
