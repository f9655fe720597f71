/* Taking and reading NCCL's log. */
#include "engine/nccl/nccl_log.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/environment.h"
#include "base/fd.h"
#include "engine/nccl/nccl_library.h"

/* The log is the process's, so what we know of it is as well. Written once, under the lock. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool tried;
static int log_fd = -1;
static struct zc_nccl_look *looks; /* that are open */

static bool user_has_a_log(void)
{
    return getenv("NCCL_DEBUG") != NULL || getenv("NCCL_DEBUG_FILE") != NULL ||
           getenv("NCCL_DEBUG_SUBSYS") != NULL;
}

/* The descriptor stays open for the process's life: NCCL opens what it names when it likes. */
static int open_log(const struct zc_nccl *nccl)
{
    const int fd = zc_fd_lift(memfd_create("zerocta: NCCL's log", MFD_CLOEXEC));
    char file[64];
    const char *const wanted[] = {"NCCL_DEBUG=INFO", "NCCL_DEBUG_SUBSYS=INIT,ENV,ALLOC", file};
    const size_t wanted_count = sizeof wanted / sizeof wanted[0];
    int count;

    if (fd < 0)
        return -1;
    snprintf(file, sizeof file, "NCCL_DEBUG_FILE=/proc/self/fd/%d", fd);
    zc_environment_add(wanted, wanted_count);
    /* NCCL refuses this and says so: its first words, for which it opens its log. */
    nccl->ncclCommCount(NULL, &count);
    zc_environment_remove(wanted, wanted_count);
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

/* ---- Looks ---- */

void zc_nccl_look_begin(struct zc_nccl_look *look, uint32_t rank)
{
    *look = (struct zc_nccl_look){.rank = rank, .mark = zc_nccl_log_mark()};
    pthread_mutex_lock(&lock);
    for (struct zc_nccl_look *other = looks; other != NULL; other = other->next)
        if (other->rank == rank)
            look->crowded = other->crowded = true;
    look->next = looks;
    looks = look;
    pthread_mutex_unlock(&lock);
}

/* Reads first: what begins afterwards can only take the proof away. */
enum zc_evidence zc_nccl_look_end(struct zc_nccl_look *look)
{
    struct zc_nccl_look **at = &looks;
    char line[40];
    bool seen, crowded;

    snprintf(line, sizeof line, "Init CE, rank %" PRIu32 " ", look->rank);
    seen = zc_nccl_log_count(look->mark, line) > 0;
    pthread_mutex_lock(&lock);
    while (*at != look)
        at = &(*at)->next;
    *at = look->next;
    crowded = look->crowded;
    pthread_mutex_unlock(&lock);
    if (!zc_nccl_log_is_ours() || (seen && crowded))
        return ZC_EVIDENCE_MISSING;
    return seen ? ZC_EVIDENCE_PROVED : ZC_EVIDENCE_AGAINST;
}
