/* Makes, checks and maps files of shared memory; see shared_file.h. Nothing ever has a name in
 * /dev/shm, so nothing can be left behind there. */
#include "base/shared_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/memory_limits.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

#define PIECE_MOST  ((size_t)64 << 20)
#define PIECE_LEAST ((size_t)1 << 20)

/* Other ranks may be about to free what a call before this one has taken. */
#define GRACE_NS UINT64_C(200000000)

/* A file that is being given its pages. */
struct commit {
    struct zc_diag *diag;
    uint64_t timeout_ns;
    int fd;
    size_t bytes, done;
    size_t allowed; /* how far the limits were asked, and had room */
    uint32_t sharers;
    struct zc_memory_limits limits;
};

/* Kernels from 6.3 on want to know whether the file can be executed, and can be told by a sysctl to
 * refuse one that can. */
static int make_empty(void)
{
    const int fd = zc_fd_lift(memfd_create("zerocta", MFD_CLOEXEC | MFD_NOEXEC_SEAL));

    if (fd >= 0 || errno != EINVAL)
        return fd;
    return zc_fd_lift(memfd_create("zerocta", MFD_CLOEXEC | MFD_ALLOW_SEALING));
}

/* A file that grows past this limit costs the process its life (SIGXFSZ), not only the call. */
static zcta_status check_file_limit(struct zc_diag *diag, size_t bytes)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
        limit.rlim_cur >= bytes)
        return ZCTA_OK;
    return zc_fail(diag, ZCTA_ERR_SYSTEM, "memory_alloc", EFBIG,
                   "cannot allocate %zu bytes of shared memory: the limit of file sizes, which "
                   "counts here, is %" PRIu64 " bytes; raise `ulimit -f`",
                   bytes, (uint64_t)limit.rlim_cur);
}

static zcta_status refuse(const struct commit *commit, const struct zc_memory_room *room)
{
    return zc_fail(commit->diag, ZCTA_ERR_NO_MEMORY, "memory_alloc", 0,
                   "cannot allocate %zu bytes of shared memory on each of %" PRIu32
                   " ranks of this machine: with %zu of them there, %" PRIu64
                   " bytes are available %s; ask for less",
                   commit->bytes, commit->sharers, commit->done, room->left, room->what);
}

/* Committing more than there is does not fail: the kernel ends somebody instead. So it is asked
 * before each piece, and each piece counts once for each rank that does the same now: each sees
 * what the others have taken already, and all stop in time. What is refused although it would just
 * fit is less than a piece of every rank's. What cannot fit in any case is refused at once. */
static zcta_status ask_limits(struct commit *commit, size_t piece)
{
    const struct timespec pause = {.tv_nsec = 10000000};
    const uint64_t deadline = zc_deadline_in(GRACE_NS);
    struct zc_memory_room room;

    if (commit->done + piece <= commit->allowed)
        return ZCTA_OK;
    do {
        zc_memory_limits_ask(&commit->limits, &room);
        if (room.left / commit->sharers >= piece && room.left >= commit->bytes - commit->done &&
            room.most / commit->sharers >= commit->bytes) {
            commit->allowed = commit->done + piece;
            return ZCTA_OK;
        }
        nanosleep(&pause, NULL);
    } while (room.most / commit->sharers >= commit->bytes && zc_now_ns() < deadline);
    return refuse(commit, &room);
}

/* Some kernels give a piece up, and what they have of it, when a signal comes. A smaller one then
 * gets done between two signals. `since`: when the last one was done. */
static zcta_status after_failure(struct commit *commit, uint64_t since, size_t *piece)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const int error = errno;

    if (error != EINTR)
        return zc_fail(commit->diag,
                       error == ENOSPC || error == ENOMEM ? ZCTA_ERR_NO_MEMORY : ZCTA_ERR_SYSTEM,
                       "fallocate", error, "cannot commit %zu bytes of shared memory: %s",
                       commit->bytes, strerror(error));
    if (commit->timeout_ns != 0 && zc_now_ns() - since > commit->timeout_ns)
        return zc_fail(commit->diag, ZCTA_ERR_TIMEOUT, "fallocate", error,
                       "signals come so fast that no page of shared memory can be made between "
                       "two; is a timer (setitimer, timer_create) of the program's too short?");
    *piece = *piece / 2 > page ? *piece / 2 / page * page : page;
    return ZCTA_OK;
}

/* Commits all pages now: a page that cannot be had later would be a SIGBUS. */
static zcta_status commit_all(struct commit *commit)
{
    size_t most = PIECE_MOST / commit->sharers, piece;
    uint64_t since = zc_now_ns();
    zcta_status status = ZCTA_OK;

    most = most > PIECE_LEAST ? most / PIECE_LEAST * PIECE_LEAST : PIECE_LEAST;
    piece = most;
    while (commit->done < commit->bytes && status == ZCTA_OK) {
        const size_t left = commit->bytes - commit->done;

        piece = piece < left ? piece : left;
        status = ask_limits(commit, piece);
        if (status != ZCTA_OK)
            break;
        if (fallocate(commit->fd, 0, (off_t)commit->done, (off_t)piece) != 0) {
            status = after_failure(commit, since, &piece);
            continue;
        }
        commit->done += piece;
        since = zc_now_ns();
        piece = piece < most / 2 ? 2 * piece : most;
    }
    return status;
}

zcta_status zc_shared_file_make(struct zc_diag *diag, size_t bytes, uint32_t sharers,
                                uint64_t timeout_ns, int *fd)
{
    struct commit commit = {
        .diag = diag, .timeout_ns = timeout_ns, .bytes = bytes, .sharers = sharers};
    zcta_status status = check_file_limit(diag, bytes);

    if (status != ZCTA_OK)
        return status;
    commit.fd = make_empty();
    if (commit.fd < 0)
        return zc_fail(diag, ZCTA_ERR_SYSTEM, "memfd_create", errno,
                       "cannot create shared memory: %s%s", strerror(errno),
                       errno == EMFILE ? "; raise the limit of open files (ulimit -n)" : "");
    zc_memory_limits_find(&commit.limits, "");
    status = commit_all(&commit);
    /* From here on nobody who has the file can take its pages away from under the others. */
    if (status == ZCTA_OK &&
        fcntl(commit.fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        status = zc_fail(diag, ZCTA_ERR_SYSTEM, "fcntl", errno,
                         "cannot seal the size of shared memory: %s", strerror(errno));
    if (status != ZCTA_OK) {
        close(commit.fd);
        return status;
    }
    *fd = commit.fd;
    return ZCTA_OK;
}

zcta_status zc_shared_file_check(struct zc_diag *diag, int fd, uint64_t bytes)
{
    /* The seals first: a size that is sealed stays. */
    const int seals = fcntl(fd, F_GET_SEALS);
    const int error = errno;
    struct stat file;

    if (seals < 0 && error != EINVAL) /* EINVAL: a file that cannot have any */
        return zc_fail(diag, ZCTA_ERR_SYSTEM, "fcntl", error,
                       "cannot look whether a peer's memory keeps its size: %s", strerror(error));
    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0)
        return zc_fail(diag, ZCTA_ERR_PEER, "memory_import", 0,
                       "a peer sent a file that it could make smaller at any time (no seal)");
    if (fstat(fd, &file) != 0)
        return zc_fail(diag, ZCTA_ERR_SYSTEM, "fstat", errno,
                       "cannot look how large a peer's memory is: %s", strerror(errno));
    if (bytes == 0 || file.st_size < 0 || (uint64_t)file.st_size < bytes)
        return zc_fail(diag, ZCTA_ERR_PEER, "memory_import", 0,
                       "a peer sent a file of %lld bytes for memory of %" PRIu64 " bytes",
                       (long long)file.st_size, bytes);
    return ZCTA_OK;
}

/* What the program may look at if it cannot have the address space. */
static const char *mapping_advice(int error)
{
    struct rlimit limit;

    if (error == EAGAIN)
        return "; the program locks its memory (mlockall): raise `ulimit -l`";
    if (error == ENOMEM && getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        return "; raise `ulimit -v`";
    return "";
}

zcta_status zc_shared_file_map(struct zc_diag *diag, int fd, size_t bytes, void **base)
{
    /* Populated, so that no collective pays for page faults. */
    void *mapped = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);

    if (mapped == MAP_FAILED)
        return zc_fail(diag, errno == ENOMEM ? ZCTA_ERR_NO_MEMORY : ZCTA_ERR_SYSTEM, "mmap", errno,
                       "cannot map %zu bytes of shared memory: %s%s", bytes, strerror(errno),
                       mapping_advice(errno));
    *base = mapped;
    return ZCTA_OK;
}
