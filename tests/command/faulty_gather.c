/* An allgather with faults, for the test of what measures it: `zerocta perf` is linked with this in
 * front of the library's (ld --wrap). ZEROCTA_TEST_FAULT says what goes wrong on rank 1,
 * ZEROCTA_TEST_FAULT_CALL in which call only, counted from 1; all calls if unset. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "zerocta/zerocta.h"

zcta_status __real_zcta_all_gather(zcta_team *team, const void *send, void *recv, size_t bytes,
                                   zcta_stream stream, const zcta_call_params *params);
zcta_status __wrap_zcta_all_gather(zcta_team *team, const void *send, void *recv, size_t bytes,
                                   zcta_stream stream, const zcta_call_params *params);

/* Rank 0's share does not arrive: what stood there before stands there still. */
static zcta_status lose_share(zcta_team *team, const void *send, void *recv, size_t bytes,
                              zcta_stream stream, const zcta_call_params *params)
{
    void *before = malloc(bytes);
    zcta_status status = ZCTA_ERR_NO_MEMORY;

    if (before == NULL)
        return status;
    memcpy(before, recv, bytes);
    status = __real_zcta_all_gather(team, send, recv, bytes, stream, params);
    memcpy(recv, before, bytes);
    free(before);
    return status;
}

/* Every byte is right, but stands in the other rank's place. */
static void swap_shares(char *recv, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        const char first = recv[i];

        recv[i] = recv[bytes + i];
        recv[bytes + i] = first;
    }
}

zcta_status __wrap_zcta_all_gather(zcta_team *team, const void *send, void *recv, size_t bytes,
                                   zcta_stream stream, const zcta_call_params *params)
{
    static _Atomic unsigned calls;
    const char *fault = getenv("ZEROCTA_TEST_FAULT"), *which = getenv("ZEROCTA_TEST_FAULT_CALL");
    zcta_status status;

    if (fault == NULL || zcta_team_rank(team) != 1 ||
        (atomic_fetch_add(&calls, 1) + 1 != strtoul(which != NULL ? which : "0", NULL, 10) &&
         which != NULL))
        return __real_zcta_all_gather(team, send, recv, bytes, stream, params);
    if (strcmp(fault, "lose") == 0)
        return lose_share(team, send, recv, bytes, stream, params);
    status = __real_zcta_all_gather(team, send, recv, bytes, stream, params);
    if (strcmp(fault, "flip") == 0)
        ((char *)recv)[bytes] ^= 1;
    else if (strcmp(fault, "swap") == 0)
        swap_shares(recv, bytes);
    return status;
}
