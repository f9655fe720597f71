/* A library to be preloaded: the k-th call of a function by the library under test fails, once or
 * from then on. Calls by others pass. Tells when it strikes, in the history of who armed it. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))
#define CALLER   __builtin_return_address(0)

static struct {
    _Atomic bool on;
    char function[32];
    _Atomic uint32_t calls;
    uint32_t nth, step;
    int error, history;
    bool lasting;
} armed;

EXPORTED void history_arm(const char *function, uint32_t nth, int error, bool lasting, int history,
                          uint32_t step);
EXPORTED void history_disarm(void);

void history_arm(const char *function, uint32_t nth, int error, bool lasting, int history,
                 uint32_t step)
{
    snprintf(armed.function, sizeof armed.function, "%s", function);
    armed.nth = nth;
    armed.error = error;
    armed.lasting = lasting;
    armed.history = history;
    armed.step = step;
    atomic_store(&armed.calls, 0);
    atomic_store(&armed.on, true);
}

void history_disarm(void)
{
    atomic_store(&armed.on, false);
}

static bool by_the_library(void *caller)
{
    Dl_info about;

    return dladdr(caller, &about) != 0 && strstr(about.dli_fname, "libzerocta.so") != NULL;
}

static void tell(uint32_t call)
{
    struct timespec now;
    char line[160];
    int bytes;

    clock_gettime(CLOCK_MONOTONIC, &now);
    bytes = snprintf(line, sizeof line,
                     "{\"k\":%" PRIu32 ",\"incident\":%" PRIu64 ",\"what\":\"call %" PRIu32
                     " of %s() fails\"}\n",
                     armed.step, (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec, call,
                     armed.function);
    if (write(armed.history, line, (size_t)bytes) != bytes)
        _exit(4);
}

static bool strikes(const char *function, void *caller)
{
    uint32_t call;

    if (!atomic_load(&armed.on) || strcmp(armed.function, function) != 0 || !by_the_library(caller))
        return false;
    call = atomic_fetch_add(&armed.calls, 1) + 1;
    if (call < armed.nth || (call > armed.nth && !armed.lasting))
        return false;
    if (call == armed.nth)
        tell(call);
    errno = armed.error;
    return true;
}

static void find(const char *name, void *function)
{
    void *found = dlsym(RTLD_NEXT, name);

    memcpy(function, &found, sizeof found);
}

/* The C library names its parameters otherwise.
 * NOLINTBEGIN(readability-inconsistent-declaration-parameter-name) */

/* ---- Sockets ---- */

EXPORTED ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    ssize_t (*real)(int, const struct msghdr *, int);

    find("sendmsg", &real);
    return strikes("sendmsg", CALLER) ? -1 : real(fd, message, flags);
}

EXPORTED ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    ssize_t (*real)(int, struct msghdr *, int);

    find("recvmsg", &real);
    return strikes("recvmsg", CALLER) ? -1 : real(fd, message, flags);
}

EXPORTED int connect(int fd, __CONST_SOCKADDR_ARG address, socklen_t bytes)
{
    int (*real)(int, __CONST_SOCKADDR_ARG, socklen_t);

    find("connect", &real);
    return strikes("connect", CALLER) ? -1 : real(fd, address, bytes);
}

EXPORTED int accept4(int fd, __SOCKADDR_ARG address, socklen_t *bytes, int flags)
{
    int (*real)(int, __SOCKADDR_ARG, socklen_t *, int);

    find("accept4", &real);
    return strikes("accept4", CALLER) ? -1 : real(fd, address, bytes, flags);
}

EXPORTED int socket(int family, int type, int protocol)
{
    int (*real)(int, int, int);

    find("socket", &real);
    return strikes("socket", CALLER) ? -1 : real(family, type, protocol);
}

EXPORTED int epoll_wait(int fd, struct epoll_event *events, int count, int timeout)
{
    int (*real)(int, struct epoll_event *, int, int);

    find("epoll_wait", &real);
    return strikes("epoll_wait", CALLER) ? -1 : real(fd, events, count, timeout);
}

EXPORTED int epoll_ctl(int fd, int what, int which, struct epoll_event *event)
{
    int (*real)(int, int, int, struct epoll_event *);

    find("epoll_ctl", &real);
    return strikes("epoll_ctl", CALLER) ? -1 : real(fd, what, which, event);
}

/* ---- Memory ---- */

EXPORTED void *mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    void *(*real)(void *, size_t, int, int, int, off_t);

    find("mmap", &real);
    return strikes("mmap", CALLER) ? MAP_FAILED : real(at, bytes, protection, flags, fd, offset);
}

EXPORTED void *mremap(void *old, size_t old_bytes, size_t bytes, int flags, ...)
{
    void *(*real)(void *, size_t, size_t, int, ...);
    va_list arguments;
    void *at;

    va_start(arguments, flags);
    at = flags & MREMAP_FIXED ? va_arg(arguments, void *) : NULL;
    va_end(arguments);
    find("mremap", &real);
    return strikes("mremap", CALLER) ? MAP_FAILED : real(old, old_bytes, bytes, flags, at);
}

EXPORTED int fallocate(int fd, int mode, off_t offset, off_t bytes)
{
    int (*real)(int, int, off_t, off_t);

    find("fallocate", &real);
    return strikes("fallocate", CALLER) ? -1 : real(fd, mode, offset, bytes);
}

EXPORTED int memfd_create(const char *name, unsigned flags)
{
    int (*real)(const char *, unsigned);

    find("memfd_create", &real);
    return strikes("memfd_create", CALLER) ? -1 : real(name, flags);
}

/* dlsym() allocates, so the allocator is not asked for by name. */
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *old, size_t bytes);

EXPORTED void *malloc(size_t bytes)
{
    return strikes("malloc", CALLER) ? NULL : __libc_malloc(bytes);
}

EXPORTED void *calloc(size_t count, size_t bytes)
{
    return strikes("calloc", CALLER) ? NULL : __libc_calloc(count, bytes);
}

EXPORTED void *realloc(void *old, size_t bytes)
{
    return strikes("realloc", CALLER) ? NULL : __libc_realloc(old, bytes);
}

/* ---- Threads ---- */

EXPORTED int pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                            void *(*function)(void *), void *data)
{
    int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

    find("pthread_create", &real);
    return strikes("pthread_create", CALLER) ? armed.error
                                             : real(thread, attributes, function, data);
}
/* NOLINTEND(readability-inconsistent-declaration-parameter-name) */
