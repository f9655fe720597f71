/* A call with faults, for the test of what measures it: `zerocta perf` is linked with this in front
 * of the library's (ld --wrap). ZEROCTA_TEST_FAULT says what goes wrong on rank 1,
 * ZEROCTA_TEST_FAULT_CALL in which call only, counted from 1; all calls if unset. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "zerocta/zerocta.h"

zcta_status __real_zcta_run(zcta_team *team, const zcta_call *call, zcta_stream stream);
zcta_status __wrap_zcta_run(zcta_team *team, const zcta_call *call, zcta_stream stream);

/* Where rank 0's share comes to in this rank's output. */
static zcta_flow from_rank_0(zcta_team *team, const zcta_call *call)
{
    zcta_flow flow = {0};

    zcta_call_flow(call, zcta_team_rank_count(team), 1, 0, 1, &flow);
    return flow;
}

/* Rank 0's share does not arrive: what stood there before stands there still. */
static zcta_status lose_share(zcta_team *team, const zcta_call *call, zcta_stream stream)
{
    const zcta_flow flow = from_rank_0(team, call);
    char *at = (char *)call->recv + flow.to_at;
    void *before = malloc(flow.bytes);
    zcta_status status = ZCTA_ERR_NO_MEMORY;

    if (before == NULL)
        return status;
    memcpy(before, at, flow.bytes);
    status = __real_zcta_run(team, call, stream);
    memcpy(at, before, flow.bytes);
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

zcta_status __wrap_zcta_run(zcta_team *team, const zcta_call *call, zcta_stream stream)
{
    static _Atomic unsigned calls;
    const char *fault = getenv("ZEROCTA_TEST_FAULT"), *which = getenv("ZEROCTA_TEST_FAULT_CALL");
    const zcta_flow flow = from_rank_0(team, call);
    char *recv = call->recv;
    zcta_status status;

    if (fault == NULL || zcta_team_rank(team) != 1 ||
        (atomic_fetch_add(&calls, 1) + 1 != strtoul(which != NULL ? which : "0", NULL, 10) &&
         which != NULL))
        return __real_zcta_run(team, call, stream);
    if (strcmp(fault, "lose") == 0)
        return lose_share(team, call, stream);
    status = __real_zcta_run(team, call, stream);
    if (strcmp(fault, "flip") == 0)
        recv[flow.to_at + flow.bytes - 1] ^= 1;
    else if (strcmp(fault, "stray") == 0)
        recv[flow.to_at + flow.bytes] ^= 1;
    else if (strcmp(fault, "input") == 0)
        ((char *)(uintptr_t)call->send)[0] ^= 1;
    else if (strcmp(fault, "swap") == 0)
        swap_shares(recv, call->bytes);
    return status;
}
