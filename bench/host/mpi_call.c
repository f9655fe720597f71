/* A call of zerocta's made by MPI. */
#include "mpi_call.h"

#include <mpi.h>
#include <stdlib.h>
#include <string.h>

bool mpi_call_open(const struct zc_sized *sized, const zcta_call *call, struct mpi_call *made)
{
    const uint32_t ranks = sized->ranks;

    *made = (struct mpi_call){.sized = sized, .call = *call};
    made->numbers = calloc(4 * (size_t)ranks, sizeof *made->numbers);
    made->requests = calloc(2 * (size_t)ranks, sizeof *made->requests);
    if (made->numbers == NULL || made->requests == NULL)
        return false;
    made->send_counts = made->numbers;
    made->send_places = made->numbers + ranks;
    made->recv_counts = made->numbers + 2 * (size_t)ranks;
    made->recv_places = made->numbers + 3 * (size_t)ranks;
    for (uint32_t peer = 0; peer < ranks; peer++) {
        made->send_counts[peer] = (int)sized->out[peer].bytes;
        made->send_places[peer] = (int)sized->out[peer].from_at;
        made->recv_counts[peer] = (int)sized->in[peer].bytes;
        made->recv_places[peer] = (int)sized->in[peer].to_at;
    }
    return true;
}

void mpi_call_close(struct mpi_call *made)
{
    free(made->numbers);
    free(made->requests);
    made->numbers = NULL;
    made->requests = NULL;
}

/* What this rank names as its input where it keeps a share. */
static const void *input_of(const struct mpi_call *made)
{
    return made->sized->in_place || made->sized->as_in_place ? MPI_IN_PLACE : made->call.send;
}

/* The same for its output, at the root of a scatter. */
static void *output_of(const struct mpi_call *made)
{
    return made->sized->in_place ? MPI_IN_PLACE : made->call.recv;
}

static void all_gather(const struct mpi_call *made)
{
    const int bytes = (int)made->call.bytes;

    MPI_Allgather(input_of(made), bytes, MPI_BYTE, made->call.recv, bytes, MPI_BYTE,
                  MPI_COMM_WORLD);
}

static void all_gather_v(const struct mpi_call *made)
{
    const int own = made->send_counts[made->sized->rank];

    MPI_Allgatherv(input_of(made), own, MPI_BYTE, made->call.recv, made->recv_counts,
                   made->recv_places, MPI_BYTE, MPI_COMM_WORLD);
}

static void all_to_all(const struct mpi_call *made)
{
    const int bytes = (int)made->call.bytes;

    MPI_Alltoall(made->call.send, bytes, MPI_BYTE, made->call.recv, bytes, MPI_BYTE,
                 MPI_COMM_WORLD);
}

static void all_to_all_v(const struct mpi_call *made)
{
    MPI_Alltoallv(made->call.send, made->send_counts, made->send_places, MPI_BYTE, made->call.recv,
                  made->recv_counts, made->recv_places, MPI_BYTE, MPI_COMM_WORLD);
}

/* MPI's has one buffer; where ours copies the root's share into its output, this does, too. */
static void broadcast(const struct mpi_call *made)
{
    const bool is_root = made->sized->rank == made->call.root;
    void *buffer = is_root ? (void *)(uintptr_t)made->call.send : made->call.recv;

    MPI_Bcast(buffer, (int)made->call.bytes, MPI_BYTE, (int)made->call.root, MPI_COMM_WORLD);
    if (is_root && !made->sized->in_place)
        memcpy(made->call.recv, made->call.send, made->call.bytes);
}

static void gather(const struct mpi_call *made)
{
    const int bytes = (int)made->call.bytes;

    MPI_Gather(input_of(made), bytes, MPI_BYTE, made->call.recv, bytes, MPI_BYTE,
               (int)made->call.root, MPI_COMM_WORLD);
}

static void gather_v(const struct mpi_call *made)
{
    MPI_Gatherv(input_of(made), made->send_counts[made->call.root], MPI_BYTE, made->call.recv,
                made->recv_counts, made->recv_places, MPI_BYTE, (int)made->call.root,
                MPI_COMM_WORLD);
}

static void scatter(const struct mpi_call *made)
{
    const int bytes = (int)made->call.bytes;

    MPI_Scatter(made->call.send, bytes, MPI_BYTE, output_of(made), bytes, MPI_BYTE,
                (int)made->call.root, MPI_COMM_WORLD);
}

static void scatter_v(const struct mpi_call *made)
{
    MPI_Scatterv(made->call.send, made->send_counts, made->send_places, MPI_BYTE, output_of(made),
                 made->recv_counts[made->call.root], MPI_BYTE, (int)made->call.root,
                 MPI_COMM_WORLD);
}

static void send_recv(const struct mpi_call *made)
{
    const zcta_call *call = &made->call;

    MPI_Sendrecv(call->send, (int)call->bytes, MPI_BYTE, (int)call->to, 0, call->recv,
                 (int)call->from_bytes, MPI_BYTE, (int)call->from, 0, MPI_COMM_WORLD,
                 MPI_STATUS_IGNORE);
}

static void barrier(const struct mpi_call *made)
{
    (void)made;
    MPI_Barrier(MPI_COMM_WORLD);
}

/* By messages, one a flow, where MPI has no call for it. */
static void by_flows(const struct mpi_call *made)
{
    const struct zc_sized *sized = made->sized;
    const char *input = made->call.send;
    char *output = made->call.recv;
    int count = 0;

    for (uint32_t hop = 1; hop < sized->ranks; hop++) {
        const uint32_t to = (sized->rank + hop) % sized->ranks;
        const uint32_t from = (sized->rank + sized->ranks - hop) % sized->ranks;
        const zcta_flow out = sized->out[to], in = sized->in[from];

        if (in.bytes > 0)
            MPI_Irecv(output + in.to_at, (int)in.bytes, MPI_BYTE, (int)from, 0, MPI_COMM_WORLD,
                      &made->requests[count++]);
        if (out.bytes > 0)
            MPI_Isend(input + out.from_at, (int)out.bytes, MPI_BYTE, (int)to, 0, MPI_COMM_WORLD,
                      &made->requests[count++]);
    }
    if (sized->in[sized->rank].bytes > 0 && !sized->in_place)
        memcpy(output + sized->in[sized->rank].to_at, input + sized->in[sized->rank].from_at,
               sized->in[sized->rank].bytes);
    for (int i = 0; i < count; i++)
        MPI_Wait(&made->requests[i], MPI_STATUS_IGNORE);
}

/* By the collective's number. */
static void (*const calls[])(const struct mpi_call *made) = {
    [ZCTA_ALL_GATHER] = all_gather, [ZCTA_ALL_GATHER_V] = all_gather_v,
    [ZCTA_ALL_TO_ALL] = all_to_all, [ZCTA_ALL_TO_ALL_V] = all_to_all_v,
    [ZCTA_BROADCAST] = broadcast,   [ZCTA_GATHER] = gather,
    [ZCTA_GATHER_V] = gather_v,     [ZCTA_SCATTER] = scatter,
    [ZCTA_SCATTER_V] = scatter_v,   [ZCTA_SEND_RECV] = send_recv,
    [ZCTA_BARRIER] = barrier,
};

void mpi_call_run(const struct mpi_call *made)
{
    const size_t number = made->call.collective;

    if (number < sizeof calls / sizeof calls[0] && calls[number] != NULL)
        calls[number](made);
    else
        by_flows(made);
}

zcta_status mpi_exchange(void *data, const void *mine, void *all, size_t bytes)
{
    (void)data;
    MPI_Allgather(mine, (int)bytes, MPI_BYTE, all, (int)bytes, MPI_BYTE, MPI_COMM_WORLD);
    return ZCTA_OK;
}
