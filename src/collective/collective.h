/* What a collective is: its flows. Knows ranks and numbers, nothing else.
 *
 * Between any two ranks there is at most one flow: the bytes that go from one rank's input to
 * another's output. So a collective is one pure function and one row, in a file of its own, listed
 * in ZCTA_COLLECTIVE_LIST. What follows from the flows is derived in layout.c: how large inputs and
 * outputs are, what in place means, whether the numbers of a call make sense. Algorithms (plan/)
 * bring the flows about, the verifier judges by them whether they did. */
#ifndef ZC_COLLECTIVE_H
#define ZC_COLLECTIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "zerocta/zerocta.h"

/* `bytes` bytes at `from_at` in the sender's input come to `to_at` in the receiver's output. No
 * bytes: there is no flow. */
struct zc_flow {
    uint64_t from_at, to_at, bytes;
};

enum zc_collective_trait {
    /* Those that zcta_collective_find() tells. */
    ZC_UNEVEN = ZCTA_COLLECTIVE_UNEVEN,     /* each share has a size and a place of its own */
    ZC_BY_PAIRS = ZCTA_COLLECTIVE_BY_PAIRS, /* of the uneven: a share for each pair of ranks */
    ZC_ROOTED = ZCTA_COLLECTIVE_ROOTED,     /* the root gives or gets more than the others */
    ZC_PARTNERS = ZCTA_COLLECTIVE_PARTNERS, /* each rank names only whom it sends to and whom it
                                               receives from */
    ZC_NO_DATA = ZCTA_COLLECTIVE_NO_DATA,   /* only the meeting counts */
    /* And those that it does not. */
    ZC_FROM_PLACES = 64,   /* of the uneven: shares have places in an input, */
    ZC_TO_PLACES = 128,    /* and in an output */
    ZC_SAME_FOR_ALL = 256, /* what a rank gives, it gives to every rank alike, itself included */
    /* What a rank keeps, every other rank gets as well, at the same place. A peer can bring it
     * back, so the way may depend on the place: all ranks call in place, or none does. */
    ZC_REPLICATES = 32,
};

struct zc_layout;

struct zc_collective {
    zcta_collective id;
    const char *name;  /* "all_gather" */
    const char *title; /* "AllGather" */
    unsigned traits;
    /* The call that NCCL has for it, if there is one, and from which version on; a root goes behind
     * the type. And whether its copy engines do that with no more than the output in a window. */
    const char *nccl;
    int nccl_since;
    bool nccl_copies;
    struct zc_flow (*flow)(const struct zc_layout *layout, uint32_t from, uint32_t to);
};

/* One call's numbers; whoever makes a layout keeps it unchanged as long as anybody uses it. They
 * are the same on all ranks but for `self` and, where ranks name partners, these: a rank then knows
 * no other flows than its own. */
struct zc_layout {
    const struct zc_collective *collective;
    uint32_t ranks;
    uint32_t self;  /* whose call it is, where ranks name partners */
    uint32_t root;  /* where one is */
    uint64_t bytes; /* of a share, where all are equal */
    /* Where they are not: [ranks], or [from * ranks + to] by pairs. Those that the collective does
     * not use are NULL. */
    const uint64_t *bytes_of, *from_at, *to_at;
    uint32_t to, from; /* the partners; ZCTA_NO_RANK: none */
    uint64_t to_bytes, from_bytes;
    /* Derived by zc_layout_derive(): the largest flow (0: nothing moves), and how far the inputs
     * and outputs reach at most, on whichever rank; `sent` is of an input what others get, `own`
     * the largest flow of a rank to itself. */
    uint64_t share, input, sent, output, own;
};

/* The table's row; NULL: there is none of that number, or of that name. */
const struct zc_collective *zc_collective_of(zcta_collective id);
const struct zc_collective *zc_collective_named(const char *name, size_t length);

static inline struct zc_flow zc_flow_between(const struct zc_layout *layout, uint32_t from,
                                             uint32_t to)
{
    return layout->collective->flow(layout, from, to);
}

/* What the flow function gives where nothing flows. */
static inline struct zc_flow zc_no_flow(void)
{
    return (struct zc_flow){0};
}

/* NULL, or why the numbers of a call make no sense; whether shares overlap takes more, and is
 * looked at by zc_layout_derive(). */
const char *zc_layout_defect(const struct zc_layout *layout);
/* Checks the numbers and fills in what is derived of them. NULL, or why they make no sense: more
 * bytes than 63 bits count, a root or partner that is no rank, shares that overlap in an output. */
const char *zc_layout_derive(struct zc_layout *layout);

/* Whether there is nothing to do for any rank, nor to wait for, as all ranks know. */
bool zc_layout_is_empty(const struct zc_layout *layout);
/* How far `rank`'s input and output reach. */
uint64_t zc_layout_send_bytes(const struct zc_layout *layout, uint32_t rank);
uint64_t zc_layout_recv_bytes(const struct zc_layout *layout, uint32_t rank);
/* What comes into `rank`'s output in all. */
uint64_t zc_layout_received(const struct zc_layout *layout, uint32_t rank);

/* Whether two ranks' layouts are of one call: all that has to be the same is. */
bool zc_layout_same(const struct zc_layout *a, const struct zc_layout *b);
/* A number for all that has to be the same beside the collective, the root and `bytes`: 0 where
 * there is nothing else. */
uint64_t zc_layout_digest(const struct zc_layout *layout);
/* How many entries each of the arrays has; 0: there are none. */
size_t zc_layout_entries(const struct zc_collective *collective, uint32_t ranks);

enum zc_placing {
    ZC_OUT_OF_PLACE,
    ZC_IN_PLACE,   /* the rank's own share lies where it belongs */
    ZC_OVERLAPPING /* input and output overlap in another way */
};

/* How `rank`'s buffers, given as addresses, lie to each other. */
enum zc_placing zc_layout_placing(const struct zc_layout *layout, uint32_t rank, uintptr_t send,
                                  uintptr_t recv);

/* The rows count from 1. */
#define ZC_NUMBER_ROW(name, value, symbol) ZC_NUMBER_OF_##name,
enum { ZC_NUMBER_OF_NONE, ZCTA_COLLECTIVE_LIST(ZC_NUMBER_ROW) ZC_COLLECTIVE_IDS };
#undef ZC_NUMBER_ROW
#define ZC_COLLECTIVE_ROW(name, value, symbol) extern const struct zc_collective zc_##symbol;
ZCTA_COLLECTIVE_LIST(ZC_COLLECTIVE_ROW)
#undef ZC_COLLECTIVE_ROW

#endif
