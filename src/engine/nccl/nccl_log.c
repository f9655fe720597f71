/* Taking and reading NCCL's log. */
#include "engine/nccl/nccl_log.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/nccl/nccl_library.h"

/* The log is the process's, so what we know of it is as well. Written once, under the lock. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool tried;
static int log_fd = -1;

static const struct {
    const char *name, *value;
} wanted[] = {{"NCCL_DEBUG", "INFO"}, {"NCCL_DEBUG_SUBSYS", "INIT,ENV,ALLOC"}};

static bool user_has_a_log(void)
{
    return getenv("NCCL_DEBUG") != NULL || getenv("NCCL_DEBUG_FILE") != NULL ||
           getenv("NCCL_DEBUG_SUBSYS") != NULL;
}

/* The descriptor stays open for the process's life: NCCL opens what it names when it likes. */
static int open_log(const struct zc_nccl *nccl)
{
    const int fd = memfd_create("zerocta: NCCL's log", MFD_CLOEXEC);
    char path[32];
    int count;

    if (fd < 0)
        return -1;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    setenv("NCCL_DEBUG_FILE", path, 1);
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
        setenv(wanted[i].name, wanted[i].value, 1);
    /* NCCL refuses this and says so: its first words, for which it opens its log. */
    nccl->ncclCommCount(NULL, &count);
    unsetenv("NCCL_DEBUG_FILE");
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
        unsetenv(wanted[i].name);
    if (lseek(fd, 0, SEEK_END) > 0)
        return fd;
    close(fd);
    return -1;
}

void zc_nccl_log_take(const struct zc_nccl *nccl)
{
    pthread_mutex_lock(&lock);
    if (!tried && !user_has_a_log())
        log_fd = open_log(nccl);
    tried = true;
    pthread_mutex_unlock(&lock);
}

bool zc_nccl_log_is_ours(void)
{
    bool ours;

    pthread_mutex_lock(&lock);
    ours = log_fd >= 0;
    pthread_mutex_unlock(&lock);
    return ours;
}

size_t zc_nccl_log_mark(void)
{
    off_t end = 0;

    pthread_mutex_lock(&lock);
    if (log_fd >= 0)
        end = lseek(log_fd, 0, SEEK_END);
    pthread_mutex_unlock(&lock);
    return end > 0 ? (size_t)end : 0;
}

static unsigned count_in(const char *log, size_t bytes, const char *text)
{
    const size_t length = strlen(text);
    const char *at = log;
    unsigned count = 0;

    while ((at = memmem(at, bytes - (size_t)(at - log), text, length)) != NULL) {
        count++;
        at += length;
    }
    return count;
}

unsigned zc_nccl_log_count(size_t mark, const char *text)
{
    const size_t end = zc_nccl_log_mark();
    unsigned count = 0;
    char *log;

    if (end <= mark)
        return 0;
    log = mmap(NULL, end, PROT_READ, MAP_SHARED, log_fd, 0);
    if (log == MAP_FAILED)
        return 0;
    count = count_in(log + mark, end - mark, text);
    munmap(log, end);
    return count;
}
