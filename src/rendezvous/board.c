/* The board of one host's ranks; see board.h. */
#include "rendezvous/board.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"

enum { ENTRIES = 16384, SEALS = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL };

struct entry {
    _Atomic uint64_t subject; /* 0: free; set once */
    _Atomic uint64_t verdict; /* 0: not decided yet; set once */
};

struct zc_board {
    struct entry entries[ENTRIES];
};

zcta_status zc_board_map(struct zc_diag *diag, int fd, struct zc_board **board)
{
    struct stat info;
    void *base;

    if (fstat(fd, &info) != 0 || info.st_size != (off_t)sizeof **board ||
        fcntl(fd, F_GET_SEALS) != SEALS)
        return zc_fail(
            diag, ZCTA_ERR_PEER, "zcta_init", 0,
            "the file that the ranks of this host share has another size or is not sealed: "
            "run the same zerocta on all ranks");
    base = mmap(NULL, sizeof **board, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return zc_fail(diag, errno == ENOMEM ? ZCTA_ERR_NO_MEMORY : ZCTA_ERR_SYSTEM, "mmap", errno,
                       "cannot map the %zu bytes that the ranks of this host share: %s",
                       sizeof **board, strerror(errno));
    *board = base;
    return ZCTA_OK;
}

zcta_status zc_board_create(struct zc_diag *diag, struct zc_board **board, int *fd)
{
    int made = zc_fd_lift(memfd_create("zerocta", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    zcta_status status;

    /* Committed now: a page that cannot be had later would be a SIGBUS. */
    if (made < 0 || fallocate(made, 0, 0, (off_t)sizeof **board) != 0 ||
        fcntl(made, F_ADD_SEALS, SEALS) != 0)
        status =
            zc_fail(diag, errno == ENOSPC || errno == ENOMEM ? ZCTA_ERR_NO_MEMORY : ZCTA_ERR_SYSTEM,
                    "memfd_create", errno,
                    "cannot make the %zu bytes that the ranks of this host share: %s",
                    sizeof **board, strerror(errno));
    else
        status = zc_board_map(diag, made, board);
    if (status != ZCTA_OK && made >= 0)
        close(made);
    if (status == ZCTA_OK)
        *fd = made;
    return status;
}

void zc_board_close(struct zc_board *board)
{
    if (board != NULL)
        munmap(board, sizeof *board);
}

/* The entry of a subject, taken for it if it has none; NULL: all are taken. Two ranks that look for
 * the same subject try the same entries in the same order, and an entry never changes its subject.
 */
static struct entry *find(struct zc_board *board, uint64_t subject)
{
    for (uint64_t i = 0; i < ENTRIES; i++) {
        struct entry *entry = &board->entries[(subject + i) % ENTRIES];
        uint64_t taken = 0;

        if (atomic_compare_exchange_strong_explicit(&entry->subject, &taken, subject,
                                                    memory_order_acq_rel, memory_order_acquire) ||
            taken == subject)
            return entry;
    }
    return NULL;
}

uint64_t zc_board_decide(struct zc_board *board, uint64_t subject, uint64_t proposal)
{
    struct entry *entry = board != NULL ? find(board, subject) : NULL;
    uint64_t decided = 0;

    /* Pairs with itself on the other ranks: one exchange succeeds, all others find its value. */
    if (entry == NULL ||
        atomic_compare_exchange_strong_explicit(&entry->verdict, &decided, proposal,
                                                memory_order_acq_rel, memory_order_acquire))
        return proposal;
    return decided;
}
