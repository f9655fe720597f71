/* Starting threads; see thread.h. */
#include "base/thread.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>

/* The least is what our own code takes and a callback of a user may hope for. */
#define STACK_LEAST ((size_t)1 << 20)
#define STACK_MOST  ((size_t)8 << 20)

static void signals_to_block(sigset_t *set)
{
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT};

    sigfillset(set);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        sigdelset(set, own[i]);
}

/* A program with many thread-local variables needs more than the least: they lie on the stack, too.
 * Then the size that the program's own threads have is taken. */
static int create(pthread_t *thread, void *(*function)(void *data), void *data)
{
    pthread_attr_t attributes;
    size_t bytes = 0;
    int error = pthread_attr_init(&attributes);

    if (error != 0)
        return error;
    pthread_attr_getstacksize(&attributes, &bytes);
    if (bytes < STACK_LEAST || bytes > STACK_MOST)
        pthread_attr_setstacksize(&attributes, bytes < STACK_LEAST ? STACK_LEAST : STACK_MOST);
    error = pthread_create(thread, &attributes, function, data);
    pthread_attr_destroy(&attributes);
    return error == EINVAL ? pthread_create(thread, NULL, function, data) : error;
}

int zc_thread_start(pthread_t *thread, void *(*function)(void *data), void *data)
{
    sigset_t blocked, before;
    int error;

    signals_to_block(&blocked);
    pthread_sigmask(SIG_BLOCK, &blocked, &before);
    error = create(thread, function, data);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}
