/* Resolving a plan to addresses: the one place where (rank, buffer, offset) becomes a pointer. */
#ifndef ZC_PROGRAM_H
#define ZC_PROGRAM_H

#include "device/device.h"
#include "plan/plan.h"

/* Where things are. Arrays are indexed by team rank, counters by zc_counter_index(). */
struct zc_binding {
    const void *send;
    void *const *recv;
    void *const *scratch;
    void *const *host; /* NULL: the team has none */
    void *const *pads;
    _Atomic uint32_t *sent; /* signals sent to a rank on a channel */
    _Atomic uint32_t *seen; /* signals of a rank on a channel that were awaited */
    /* By rank: the number of this plan's latest release, less one. NULL: it has none. */
    _Atomic uint32_t *released;
    /* How what goes over the network is enqueued; NULL where the device does it itself, or the plan
     * has none. */
    zcta_status (*enqueue)(const struct zc_op_network *network, zcta_stream stream);
    void *enqueue_data;
    struct zc_call_numbers numbers;
    size_t slot_bytes, pad_head_bytes, stream_bytes;
};

static inline size_t zc_counter_index(uint32_t rank_count, uint32_t rank, enum zc_channel channel)
{
    return (size_t)channel * rank_count + rank;
}

/* Size of a pad for this many ranks. */
size_t zc_pad_bytes(uint32_t rank_count, size_t slot_bytes, size_t pad_head_bytes);

/* Makes a program of a well-formed plan. The caller frees it with zc_program_destroy(); the
 * binding's arrays of counters must outlive it. Errors: ERR_NO_MEMORY. */
zcta_status zc_program_make(const struct zc_plan *plan, const struct zc_binding *binding,
                            struct zc_guard *guard, struct zc_program **program);
void zc_program_destroy(struct zc_program *program);

#endif
