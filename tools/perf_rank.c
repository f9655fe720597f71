/* One rank's way through all sizes: joins the job, makes its memory once for the largest size,
 * measures, and if it is rank 0 reports. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "choices.h"
#include "collective.h"
#include "commands.h"
#include "options.h"
#include "perf.h"

enum { SAMPLES_MOST = 1000, ROUND_NUMBERS = 1024 };

int zc_perf_complain(const struct zc_bench *bench, const char *what)
{
    zcta_error error = {0};

    /* What went wrong outside the library has been said where it did. */
    if (zcta_last_error(bench->context, &error) != ZCTA_OK || error.status == ZCTA_OK)
        return zc_failure(bench->perf->command, "rank %" PRIu32 ", %s", bench->rank, what);
    return zc_failure(bench->perf->command, "rank %" PRIu32 ", %s: %s (%s)", bench->rank, what,
                      error.message, zcta_status_name(error.status));
}

/* ---- Joining ---- */

static int join(struct zc_bench *bench, const zcta_init_params *given)
{
    zcta_error error = {0};
    zcta_init_params params = *given;

    params.error = &error;
    if (zcta_init(&params, &bench->context) != ZCTA_OK)
        return zc_failure(bench->perf->command, "%s (%s)", error.message,
                          zcta_status_name(error.status));
    bench->world = zcta_world(bench->context);
    bench->rank = zcta_team_rank(bench->world);
    bench->rank_count = zcta_team_rank_count(bench->world);
    if (bench->perf->rank_count == 0 || bench->perf->rank_count == bench->rank_count)
        return ZC_EXIT_OK;
    if (bench->rank == 0)
        zc_usage_error(bench->perf->command,
                       "-n is %" PRIu64 ", but the launcher has started %" PRIu32
                       " ranks; leave -n away or make them agree",
                       bench->perf->rank_count, bench->rank_count);
    return ZC_EXIT_USAGE;
}

/* What is asked of a team of so many ranks. */
static int check_shape(const struct zc_bench *bench)
{
    const struct zc_shape *shape = &bench->perf->shape;

    if (shape->root < bench->rank_count)
        return ZC_EXIT_OK;
    if (bench->rank == 0)
        zc_shape_fits(bench->perf->command, shape, bench->rank_count);
    return ZC_EXIT_USAGE;
}

static int open_gpu(struct zc_bench *bench)
{
    const int gpu = zcta_context_gpu(bench->context);

    return gpu < 0 || zc_gpu_open(bench->perf->command, gpu, &bench->gpu) ? ZC_EXIT_OK
                                                                          : ZC_EXIT_FAILED;
}

int zc_bench_place(struct zc_bench *bench)
{
    const struct zc_perf *perf = bench->perf;
    struct zc_sized sized;
    int status = ZC_EXIT_OK;

    zc_arena_close(&bench->arena);
    if (zc_sized_make(bench->world, &perf->shape, perf->bytes_max, perf->in_place, &sized) !=
        ZCTA_OK)
        return zc_perf_complain(bench, "no call");
    bench->mover = zc_gpu_mover(bench->gpu);
    if (zc_arena_open(bench->world, &sized, bench->gpu != NULL ? &bench->mover : NULL,
                      &bench->arena) != ZCTA_OK)
        status = zc_perf_complain(bench, "no memory for inputs and outputs");
    zc_sized_free(&sized);
    return status;
}

static int make_room(struct zc_bench *bench)
{
    const struct zc_perf *perf = bench->perf;

    bench->samples_max =
        perf->iterations != 0 ? (uint32_t)perf->iterations : (uint32_t)SAMPLES_MOST;
    zc_variants_choose(bench);
    bench->times_ns = calloc(
        (size_t)bench->samples_max * bench->variant_count + ZC_PERF_CALIBRATIONS, sizeof(uint64_t));
    bench->submits_ns = calloc((size_t)bench->samples_max * bench->variant_count, sizeof(uint64_t));
    bench->told = calloc((size_t)bench->rank_count * ROUND_NUMBERS, sizeof(uint64_t));
    if (bench->times_ns == NULL || bench->submits_ns == NULL || bench->told == NULL)
        return zc_failure(bench->perf->command, "rank %" PRIu32 ": out of memory", bench->rank);
    return ZC_EXIT_OK;
}

static bool agree_on_some(struct zc_bench *bench, enum zc_perf_combine combine, uint64_t *numbers,
                          uint32_t count)
{
    if (zcta_team_exchange(bench->world, numbers, bench->told, count * sizeof *numbers) != ZCTA_OK)
        return false;
    memcpy(numbers, bench->told, count * sizeof *numbers);
    for (uint32_t rank = 1; rank < bench->rank_count; rank++)
        for (uint32_t i = 0; i < count; i++) {
            const uint64_t told = bench->told[(size_t)rank * count + i];

            if (combine == ZC_PERF_SUM)
                numbers[i] += told;
            else if (numbers[i] < told)
                numbers[i] = told;
        }
    return true;
}

bool zc_perf_agree(struct zc_bench *bench, enum zc_perf_combine combine, uint64_t *numbers,
                   uint32_t count)
{
    bool agreed = true;

    for (uint32_t done = 0; done < count && agreed; done += ROUND_NUMBERS) {
        const uint32_t left = count - done;

        agreed = agree_on_some(bench, combine, numbers + done,
                               left < ROUND_NUMBERS ? left : ROUND_NUMBERS);
    }
    return agreed;
}

/* NCCL, on the very same memory. Rank 0's id goes to all over the sockets between the ranks. */
static bool open_nccl(struct zc_bench *bench)
{
    const zcta_window *recv = bench->arena.windows[0], *send = bench->arena.windows[1];
    const struct zc_peer_nccl_memory memory[2] = {
        {zcta_window_base(recv), zcta_window_bytes(recv)},
        {zcta_window_base(send), zcta_window_bytes(send)}};
    struct zc_nccl_id *ids = (struct zc_nccl_id *)bench->told;
    struct zc_nccl_id id = {{0}};
    bool opened = zc_peer_nccl_load(&bench->nccl);

    for (int way = 0; way < ZC_PEER_NCCL_WAYS && opened; way++)
        opened = zc_peer_nccl_make_id(bench->nccl, &id) &&
                 zcta_team_exchange(bench->world, &id, ids, sizeof id) == ZCTA_OK &&
                 zc_peer_nccl_open(bench->nccl, (enum zc_peer_nccl_way)way, &ids[0], bench->rank,
                                   bench->rank_count, memory);
    return opened;
}

/* The programs of all MPIs that there are, by rank 0. */
static bool open_mpi(struct zc_bench *bench)
{
    const struct zc_perf *perf = bench->perf;
    bool opened = zc_peer_mpi_check(perf->command);

    for (int i = 0; i < ZC_PEER_MPIS && opened && bench->rank == 0; i++)
        if (zc_peer_mpi_is_built(i))
            opened = zc_peer_mpi_open(perf->command, i, &perf->shape, bench->rank_count,
                                      perf->in_place, perf->bytes_max, &bench->mpi[i]);
    return opened;
}

int zc_bench_open_peer(struct zc_bench *bench)
{
    bool opened = true;

    if (bench->perf->peer == ZC_PEER_NCCL)
        opened = open_nccl(bench);
    if (bench->perf->peer == ZC_PEER_MPI)
        opened = open_mpi(bench);
    return opened ? ZC_EXIT_OK : ZC_EXIT_FAILED;
}

/* ---- Sizes ---- */

/* The same size again that another one was rounded up to is left out. */
static int measure_size(struct zc_bench *bench, uint64_t bytes, struct zc_perf_result *result,
                        bool *noted)
{
    struct zc_perf_row *row = &result->rows[result->row_count];
    const uint64_t previous = result->row_count > 0 ? row[-1].bytes : 0;
    int status = ZC_EXIT_OK;

    assert(result->row_count < ZC_PERF_SIZES);
    if (bytes > 0 && bytes <= previous)
        return ZC_EXIT_OK;
    status = zc_perf_measure(bench, bytes, row);
    if (status != ZC_EXIT_OK)
        return status;
    result->row_count++;
    result->wrong_bytes += row->wrong_bytes;
    if (bench->rank == 0 && !*noted)
        *noted = zc_note_rounding(bench->perf->command, bytes, row->bytes);
    if (bench->rank == 0)
        zc_perf_table_row(bench->perf, row);
    return ZC_EXIT_OK;
}

static int measure_all(struct zc_bench *bench, struct zc_perf_result *result)
{
    const struct zc_perf *perf = bench->perf;
    uint64_t bytes = 0;
    bool noted = false;
    int status = ZC_EXIT_OK;

    if (zc_shape_has(&perf->shape, ZCTA_COLLECTIVE_NO_DATA))
        return measure_size(bench, 0, result, &noted);
    while (status == ZC_EXIT_OK && (bytes = zc_perf_next_size(perf, bytes)) != 0)
        status = measure_size(bench, bytes, result, &noted);
    return status;
}

/* Whether what was asked for is of the device. */
static int check_peer(const struct zc_bench *bench)
{
    const struct zc_perf *perf = bench->perf;
    const bool of_gpus = perf->peer == ZC_PEER_PUSH || perf->peer == ZC_PEER_NCCL || perf->graph;

    if (bench->gpu == NULL && of_gpus)
        return zc_failure(perf->command, "graphs, bare pushes and NCCL are of GPUs; --graph and "
                                         "--peer push or nccl need --device cuda");
    if (bench->gpu != NULL && perf->peer == ZC_PEER_MPI)
        return zc_failure(perf->command,
                          "MPI is compared in the host's memory; --peer mpi needs --device host");
    return ZC_EXIT_OK;
}

int zc_bench_open(struct zc_bench *bench, const zcta_init_params *params)
{
    int status = join(bench, params);

    if (status == ZC_EXIT_OK)
        status = check_shape(bench);
    if (status == ZC_EXIT_OK)
        status = make_room(bench);
    if (status == ZC_EXIT_OK)
        status = open_gpu(bench);
    if (status == ZC_EXIT_OK)
        status = check_peer(bench);
    return status;
}

int zc_bench_close(struct zc_bench *bench, int status)
{
    free(bench->times_ns);
    free(bench->submits_ns);
    free(bench->told);
    if (bench->gpu != NULL)
        zc_gpu_synchronize(bench->gpu);
    zc_peer_nccl_close(bench->nccl);
    for (int i = 0; i < ZC_PEER_MPIS; i++)
        zc_peer_mpi_close(bench->mpi[i]);
    free(bench->arena.stage); /* the windows go with the context */
    if (bench->context != NULL && zcta_finalize(&bench->context) != ZCTA_OK && status == ZC_EXIT_OK)
        status =
            zc_failure(bench->perf->command,
                       "rank %" PRIu32 ": another rank did not leave with this one", bench->rank);
    zc_gpu_close(bench->gpu);
    return status;
}

static int run(struct zc_bench *bench, struct zc_perf_result *result)
{
    const struct zc_perf *perf = bench->perf;
    int status;

    result->rank_count = bench->rank_count;
    result->device = zc_device_choices[zcta_context_device(bench->context)];
    if (bench->rank == 0)
        zc_perf_table_begin(perf, result);
    status = measure_all(bench, result);
    if (status != ZC_EXIT_OK)
        return status;
    if (bench->rank == 0 && perf->json.name != NULL && !zc_perf_json_write(perf, result))
        status = ZC_EXIT_FAILED;
    if (bench->rank == 0)
        zc_perf_table_end(result);
    return result->wrong_bytes == 0 ? status : ZC_EXIT_FAILED;
}

int zc_perf_rank(const struct zc_perf *perf, const zcta_init_params *params)
{
    struct zc_bench bench = {.perf = perf};
    struct zc_perf_result result = {.ranks_are = perf->threads ? "threads" : "processes"};
    int status = zc_bench_open(&bench, params);

    if (status == ZC_EXIT_OK)
        status = zc_bench_place(&bench);
    if (status == ZC_EXIT_OK)
        status = zc_bench_open_peer(&bench);
    if (status == ZC_EXIT_OK)
        status = run(&bench, &result);
    return zc_bench_close(&bench, status);
}
