/* What is measured: zerocta's call, MPI's, and the copy floor, each with its buffers. Takes no
 * times and checks no bytes. */
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "mpi_memory.h"

void bench_check(const struct bench *bench, zcta_status status, const char *what)
{
    zcta_error error = {0};

    if (status == ZCTA_OK)
        return;
    zcta_last_error(bench->context, &error);
    bench_die(bench, what, error.message);
}

static void zerocta_call(const struct bench *bench)
{
    bench_check(bench, zcta_run(bench->world, &bench->in_windows.call, NULL), "zcta_run");
}

static void mpi_calls(const struct bench *bench)
{
    mpi_call_run(&bench->mpi);
}

/* Where a rank's input lies, as mapped here. In place it lies in its output's window, so that its
 * own share is where it belongs. */
static const char *input_of(const struct bench *bench, uint32_t rank)
{
    const struct zc_sized *sized = &bench->sized;
    zcta_flow own = {0};

    zcta_call_flow(&sized->call, sized->ranks, bench->rank, rank, rank, &own);
    if (!bench->in_place || own.bytes == 0)
        return zcta_window_peer(bench->windows.windows[1], rank);
    return (const char *)zcta_window_peer(bench->windows.windows[0], rank) + sized->front +
           own.to_at - own.from_at;
}

/* Every rank reads what comes to it where it lies, and writes its output: zerocta's buffers and
 * exactly the bytes that the call must move, with nobody waiting for anybody. Where ranks share a
 * core, each then runs many calls before another has its turn, and copies what its caches still
 * hold. In step the ranks begin every call together, as those of a collective do, and find in the
 * caches what the others left there. */
static void floor_call(const struct bench *bench)
{
    const struct zc_sized *sized = &bench->sized;
    char *output = bench->in_windows.call.recv;

    for (uint32_t hop = sized->in_place ? 1 : 0; hop < bench->rank_count; hop++) {
        const uint32_t peer = (bench->rank + hop) % bench->rank_count;
        const zcta_flow in = sized->in[peer];

        if (in.bytes > 0)
            memcpy(output + in.to_at, bench->inputs[peer] + in.from_at, in.bytes);
    }
}

const struct variant variants[VARIANTS] = {
    [AT_ZEROCTA] = {"zerocta", zerocta_call, false, true, false},
    [AT_MPI] = {"mpi", mpi_calls, true, true, false},
    [AT_FLOOR] = {"floor", floor_call, false, false, false},
    [AT_STEP_FLOOR] = {"step_floor", floor_call, false, false, true},
};

/* ---- Memory ---- */

void bench_open_memory(struct bench *bench, uint64_t bytes_max)
{
    struct zc_sized sized;

    bench_check(bench,
                zc_sized_make(bench->world, &bench->shape, bytes_max, bench->in_place, &sized),
                "the call");
    bench_check(bench, zc_arena_open(bench->world, &sized, NULL, &bench->windows), "windows");
    if (!mpi_memory_open(&sized, &bench->memory))
        bench_die(bench, "memory for MPI", "out of memory");
    zc_sized_free(&sized);
}

void bench_close_memory(struct bench *bench)
{
    zc_arena_close(&bench->windows);
    mpi_memory_close(&bench->memory);
}

void bench_open_call(struct bench *bench, uint64_t bytes)
{
    bench_check(bench,
                zc_sized_make(bench->world, &bench->shape, bytes, bench->in_place, &bench->sized),
                "the call");
    bench->inputs = calloc(bench->rank_count, sizeof *bench->inputs);
    if (bench->inputs == NULL ||
        !zc_contents_open(&bench->sized, &bench->windows, &bench->in_windows) ||
        !zc_contents_open(&bench->sized, &bench->memory, &bench->in_memory) ||
        !mpi_call_open(&bench->sized, &bench->in_memory.call, &bench->mpi))
        bench_die(bench, "the call", "out of memory");
    for (uint32_t rank = 0; rank < bench->rank_count; rank++)
        if (bench->sized.in[rank].bytes > 0)
            bench->inputs[rank] = input_of(bench, rank);
}

void bench_close_call(struct bench *bench)
{
    mpi_call_close(&bench->mpi);
    zc_contents_close(&bench->in_memory);
    zc_contents_close(&bench->in_windows);
    zc_sized_free(&bench->sized);
    free(bench->inputs);
}
