/* The public functions, one a collective: each fills a descriptor. They have the parameters that
 * users know, so some have many.
 * NOLINTBEGIN(readability-function-size) */
#include "api/objects.h"

/* The descriptor of a call with these parameters. */
static zcta_status begin(zcta_team *team, const char *name, zcta_collective collective,
                         const zcta_call_params *given, zcta_call *call)
{
    zcta_call_params params;
    zcta_status status;

    *call = (zcta_call){.size = sizeof *call, .collective = collective};
    if (team == NULL)
        return zc_fail_null(NULL, name, "team");
    status = zc_check_process(team->group.diag, name);
    if (status != ZCTA_OK)
        return status;
    status = zc_params_read(team->group.diag, name, given, &params, sizeof params);
    call->policy = params.policy;
    call->engine = params.engine;
    return status;
}

/* Where even the parameters are wrong, the others hear of it all the same. */
static zcta_status finish(zcta_team *team, const char *name, const zcta_call *call,
                          zcta_stream stream, zcta_status status)
{
    const struct zc_asked refused = {.call = name};

    if (status == ZCTA_OK)
        return zc_call_run(team, name, call, stream);
    return team == NULL || !zc_diag_is_here(team->group.diag)
               ? status
               : zc_run_refuse(team, &refused, status);
}

zcta_status zcta_all_gather(zcta_team *team, const void *send, void *recv, size_t bytes,
                            zcta_stream stream, const zcta_call_params *params)
{
    static const char name[] = "zcta_all_gather";
    zcta_call call;
    const zcta_status status = begin(team, name, ZCTA_ALL_GATHER, params, &call);

    call.send = send;
    call.recv = recv;
    call.bytes = bytes;
    return finish(team, name, &call, stream, status);
}

zcta_status zcta_all_gather_v(zcta_team *team, const void *send, void *recv,
                              const size_t *recv_bytes, const size_t *recv_offsets,
                              zcta_stream stream, const zcta_call_params *params)
{
    static const char name[] = "zcta_all_gather_v";
    zcta_call call;
    const zcta_status status = begin(team, name, ZCTA_ALL_GATHER_V, params, &call);

    call.send = send;
    call.recv = recv;
    call.recv_bytes = recv_bytes;
    call.recv_offsets = recv_offsets;
    return finish(team, name, &call, stream, status);
}

zcta_status zcta_all_to_all(zcta_team *team, const void *send, void *recv, size_t bytes,
                            zcta_stream stream, const zcta_call_params *params)
{
    static const char name[] = "zcta_all_to_all";
    zcta_call call;
    const zcta_status status = begin(team, name, ZCTA_ALL_TO_ALL, params, &call);

    call.send = send;
    call.recv = recv;
    call.bytes = bytes;
    return finish(team, name, &call, stream, status);
}

zcta_status zcta_all_to_all_v(zcta_team *team, const void *send, const size_t *send_bytes,
                              const size_t *send_offsets, void *recv, const size_t *recv_bytes,
                              const size_t *recv_offsets, zcta_stream stream,
                              const zcta_call_params *params)
{
    static const char name[] = "zcta_all_to_all_v";
    zcta_call call;
    const zcta_status status = begin(team, name, ZCTA_ALL_TO_ALL_V, params, &call);

    call.send = send;
    call.send_bytes = send_bytes;
    call.send_offsets = send_offsets;
    call.recv = recv;
    call.recv_bytes = recv_bytes;
    call.recv_offsets = recv_offsets;
    return finish(team, name, &call, stream, status);
}

zcta_status zcta_broadcast(zcta_team *team, const void *send, void *recv, size_t bytes,
                           uint32_t root, zcta_stream stream, const zcta_call_params *params)
{
    static const char name[] = "zcta_broadcast";
    zcta_call call;
    const zcta_status status = begin(team, name, ZCTA_BROADCAST, params, &call);

    call.send = send;
    call.recv = recv;
    call.bytes = bytes;
    call.root = root;
    return finish(team, name, &call, stream, status);
}

zcta_status zcta_gather(zcta_team *team, const void *send, void *recv, size_t bytes, uint32_t root,
                        zcta_stream stream, const zcta_call_params *params)
{
    static const char name[] = "zcta_gather";
    zcta_call call;
    const zcta_status status = begin(team, name, ZCTA_GATHER, params, &call);

    call.send = send;
    call.recv = recv;
    call.bytes = bytes;
    call.root = root;
    return finish(team, name, &call, stream, status);
}

zcta_status zcta_gather_v(zcta_team *team, const void *send, void *recv, const size_t *recv_bytes,
                          const size_t *recv_offsets, uint32_t root, zcta_stream stream,
                          const zcta_call_params *params)
{
    static const char name[] = "zcta_gather_v";
    zcta_call call;
    const zcta_status status = begin(team, name, ZCTA_GATHER_V, params, &call);

    call.send = send;
    call.recv = recv;
    call.recv_bytes = recv_bytes;
    call.recv_offsets = recv_offsets;
    call.root = root;
    return finish(team, name, &call, stream, status);
}

zcta_status zcta_scatter(zcta_team *team, const void *send, void *recv, size_t bytes, uint32_t root,
                         zcta_stream stream, const zcta_call_params *params)
{
    static const char name[] = "zcta_scatter";
    zcta_call call;
    const zcta_status status = begin(team, name, ZCTA_SCATTER, params, &call);

    call.send = send;
    call.recv = recv;
    call.bytes = bytes;
    call.root = root;
    return finish(team, name, &call, stream, status);
}

zcta_status zcta_scatter_v(zcta_team *team, const void *send, const size_t *send_bytes,
                           const size_t *send_offsets, void *recv, uint32_t root,
                           zcta_stream stream, const zcta_call_params *params)
{
    static const char name[] = "zcta_scatter_v";
    zcta_call call;
    const zcta_status status = begin(team, name, ZCTA_SCATTER_V, params, &call);

    call.send = send;
    call.send_bytes = send_bytes;
    call.send_offsets = send_offsets;
    call.recv = recv;
    call.root = root;
    return finish(team, name, &call, stream, status);
}

zcta_status zcta_send_recv(zcta_team *team, const void *send, size_t send_bytes, uint32_t to,
                           void *recv, size_t recv_bytes, uint32_t from, zcta_stream stream,
                           const zcta_call_params *params)
{
    static const char name[] = "zcta_send_recv";
    zcta_call call;
    const zcta_status status = begin(team, name, ZCTA_SEND_RECV, params, &call);

    call.send = send;
    call.bytes = send_bytes;
    call.to = to;
    call.recv = recv;
    call.from_bytes = recv_bytes;
    call.from = from;
    return finish(team, name, &call, stream, status);
}

zcta_status zcta_barrier(zcta_team *team, zcta_stream stream)
{
    const zcta_call call = {.size = sizeof call, .collective = ZCTA_BARRIER};

    return zc_call_run(team, "zcta_barrier", &call, stream);
}
/* NOLINTEND(readability-function-size) */
