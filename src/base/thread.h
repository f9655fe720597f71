/* Threads of ours in a process that is not. */
#ifndef ZC_THREAD_H
#define ZC_THREAD_H

#include <pthread.h>

/* Starts a thread that the program's signals do not reach: handlers are for the program's threads.
 * Those that a thread causes itself (SIGSEGV, SIGBUS, SIGSYS and the like) stay open, because a
 * program may handle them: it is ended at once where they are blocked. The stack is as large as the
 * program's threads have it, within bounds: a program's limit of stacks may be a few KiB, or so
 * much that there is no room for one. Returns 0 or an errno. */
int zc_thread_start(pthread_t *thread, void *(*function)(void *data), void *data);

#endif
