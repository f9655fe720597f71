/* What is measured: zerocta's allgather, Open MPI's, and the copy floor, each with its buffers.
 * Takes no times and checks no bytes. */
#include <mpi.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

enum { PAGE = 4096 };

static char *part_of(const struct bench *bench, char *recv, uint32_t rank)
{
    return recv + rank * bench->share;
}

/* ---- zerocta ---- */

static void check(const struct bench *bench, zcta_status status, const char *what)
{
    zcta_error error = {0};

    if (status == ZCTA_OK)
        return;
    zcta_last_error(bench->context, &error);
    bench_die(bench, what, error.message);
}

static char *zerocta_output(const struct bench *bench)
{
    return zcta_window_base(bench->recv);
}

static char *zerocta_own(const struct bench *bench)
{
    return bench->in_place ? part_of(bench, zerocta_output(bench), bench->rank)
                           : zcta_window_base(bench->send);
}

static void zerocta_call(const struct bench *bench)
{
    check(bench,
          zcta_all_gather(bench->world, zerocta_own(bench), zerocta_output(bench), bench->share,
                          NULL, NULL),
          "zcta_all_gather");
}

/* ---- Open MPI ---- */

static char *open_mpi_output(const struct bench *bench)
{
    return bench->mpi_recv;
}

static char *open_mpi_own(const struct bench *bench)
{
    return bench->in_place ? part_of(bench, bench->mpi_recv, bench->rank) : bench->mpi_send;
}

/* Errors end the job: that is MPI's default. */
static void open_mpi_call(const struct bench *bench)
{
    const int share = (int)bench->share;

    MPI_Allgather(bench->in_place ? MPI_IN_PLACE : bench->mpi_send, share, MPI_BYTE,
                  bench->mpi_recv, share, MPI_BYTE, MPI_COMM_WORLD);
}

/* ---- The copy floor ---- */

/* Every rank reads every rank's own share where it lies, and writes its output: zerocta's buffers
 * and exactly the bytes that an allgather must move, with nobody waiting for anybody. Where ranks
 * share a core, each then runs many calls before another has its turn, and copies what its caches
 * still hold. In step the ranks begin every call together, as those of an allgather do, and find
 * in the caches what the others left there. */
static void floor_call(const struct bench *bench)
{
    char *output = zerocta_output(bench);

    for (uint32_t step = bench->in_place ? 1 : 0; step < bench->rank_count; step++) {
        const uint32_t peer = (bench->rank + step) % bench->rank_count;
        char *from = bench->in_place ? part_of(bench, zcta_window_peer(bench->recv, peer), peer)
                                     : zcta_window_peer(bench->send, peer);

        memcpy(part_of(bench, output, peer), from, bench->share);
    }
}

const struct contestant contestants[CONTESTANTS] = {
    [AT_ZEROCTA] = {"zerocta", "zerocta", zerocta_call, zerocta_own, zerocta_output, true, false},
    [AT_OPEN_MPI] = {"Open MPI", "open_mpi", open_mpi_call, open_mpi_own, open_mpi_output, true,
                     false},
    [AT_FLOOR] = {"floor", "floor", floor_call, zerocta_own, zerocta_output, false, false},
    [AT_STEP_FLOOR] = {"floor in step", "step_floor", floor_call, zerocta_own, zerocta_output,
                       false, true},
};

/* ---- Buffers ---- */

static char *touched_pages(const struct bench *bench, size_t bytes)
{
    void *memory = NULL;

    if (posix_memalign(&memory, PAGE, bytes) != 0)
        bench_die(bench, "posix_memalign", "out of memory");
    memset(memory, 1, bytes);
    return memory;
}

void bench_open(struct bench *bench, size_t bytes)
{
    const size_t share = bytes / bench->rank_count;

    check(bench, zcta_window_alloc(bench->world, bytes, &bench->recv), "zcta_window_alloc");
    check(bench, zcta_window_alloc(bench->world, share, &bench->send), "zcta_window_alloc");
    bench->mpi_recv = touched_pages(bench, bytes);
    bench->mpi_send = touched_pages(bench, share);
}

void bench_close(struct bench *bench)
{
    check(bench, zcta_window_free(&bench->recv), "zcta_window_free");
    check(bench, zcta_window_free(&bench->send), "zcta_window_free");
    free(bench->mpi_recv);
    free(bench->mpi_send);
}
