/* The board of one host's ranks; see board.h. */
#include "rendezvous/board.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/shared_file.h"

enum { ENTRIES = 16384 };

/* Signals may hold up the making of the file for so long. */
#define PROGRESS_NS UINT64_C(10000000000)

struct entry {
    _Atomic uint64_t subject;  /* 0: free; set once */
    _Atomic uint64_t decision; /* 0: not decided yet; set once */
};

struct zc_board {
    struct entry entries[ENTRIES];
};

zcta_status zc_board_map(struct zc_diag *diag, int fd, struct zc_board **board)
{
    zcta_status status = zc_shared_file_check(diag, fd, sizeof **board);
    void *base;

    if (status != ZCTA_OK)
        return status;
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
    int made = -1;
    zcta_status status = zc_shared_file_make(diag, sizeof **board, 1, PROGRESS_NS, &made);

    if (status == ZCTA_OK)
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
        atomic_compare_exchange_strong_explicit(&entry->decision, &decided, proposal,
                                                memory_order_acq_rel, memory_order_acquire))
        return proposal;
    return decided;
}
