/* One rank's way through all sizes: joins the job, makes its windows once for the largest size,
 * measures, and if it is rank 0 reports. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/objects.h"
#include "collective.h"
#include "commands.h"
#include "launch.h"
#include "options.h"
#include "perf.h"

/* Rounds of numbers, apart from the library's own. */
#define TOPIC 100u

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

/* Collective: each rank gets the same answer. */
static int make_windows(struct zc_bench *bench)
{
    const struct zc_perf *perf = bench->perf;
    const uint64_t whole = zc_round_output(perf->bytes_max, bench->rank_count);
    const uint64_t share = whole / bench->rank_count;

    if (zcta_window_alloc(bench->world, whole, &bench->recv) != ZCTA_OK)
        return zc_perf_complain(bench, "no window for the output");
    if (!perf->in_place && zcta_window_alloc(bench->world, share, &bench->send) != ZCTA_OK)
        return zc_perf_complain(bench, "no window for the input");
    return ZC_EXIT_OK;
}

/* On a GPU bytes are made and checked in the CPU's memory. */
static int open_gpu(struct zc_bench *bench)
{
    const uint64_t whole = zc_round_output(bench->perf->bytes_max, bench->rank_count);

    if (zcta_context_gpu(bench->context) < 0)
        return ZC_EXIT_OK;
    bench->stage = malloc(whole + whole / bench->rank_count);
    if (bench->stage == NULL)
        return zc_failure(bench->perf->command, "rank %" PRIu32 ": out of memory", bench->rank);
    return zc_gpu_open(bench->perf->command, zcta_context_gpu(bench->context), &bench->gpu)
               ? ZC_EXIT_OK
               : ZC_EXIT_FAILED;
}

static int make_room(struct zc_bench *bench)
{
    const struct zc_perf *perf = bench->perf;

    bench->samples_max =
        perf->iterations != 0 ? (uint32_t)perf->iterations : (uint32_t)SAMPLES_MOST;
    zc_contestants_choose(bench);
    bench->times_ns =
        calloc((size_t)bench->samples_max * bench->contestant_count + ZC_PERF_CALIBRATIONS,
               sizeof(uint64_t));
    bench->submits_ns =
        calloc((size_t)bench->samples_max * bench->contestant_count, sizeof(uint64_t));
    bench->told = calloc((size_t)bench->rank_count * ROUND_NUMBERS, sizeof(uint64_t));
    if (bench->times_ns == NULL || bench->submits_ns == NULL || bench->told == NULL)
        return zc_failure(bench->perf->command, "rank %" PRIu32 ": out of memory", bench->rank);
    return ZC_EXIT_OK;
}

static bool agree_on_some(struct zc_bench *bench, enum zc_perf_combine combine, uint64_t *numbers,
                          uint32_t count)
{
    if (zc_group_exchange(&bench->world->group, "zerocta perf", "told no times", TOPIC, numbers,
                          bench->told, count * sizeof *numbers) != ZCTA_OK)
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

/* NCCL, on the very same windows. Rank 0's id goes to all over the sockets between the ranks. */
static int open_peer(struct zc_bench *bench)
{
    const struct zc_peer_nccl_memory memory[2] = {
        {zcta_window_base(bench->recv), zcta_window_bytes(bench->recv)},
        {zcta_window_base(bench->send), zcta_window_bytes(bench->send)}};
    struct zc_nccl_id *ids = (struct zc_nccl_id *)bench->told;
    struct zc_nccl_id id = {{0}};
    bool opened;

    opened = zc_peer_nccl_load(&bench->nccl);
    for (int way = 0; way < ZC_PEER_NCCL_WAYS && opened; way++)
        opened = zc_peer_nccl_make_id(bench->nccl, &id) &&
                 zc_group_exchange(&bench->world->group, "zerocta perf", "opened no NCCL", TOPIC,
                                   &id, ids, sizeof id) == ZCTA_OK &&
                 zc_peer_nccl_open(bench->nccl, (enum zc_peer_nccl_way)way, &ids[0], bench->rank,
                                   bench->rank_count, memory);
    return opened ? ZC_EXIT_OK : ZC_EXIT_FAILED;
}

/* ---- Sizes ---- */

/* Rank 0 says once that sizes are rounded, with the first that is. */
static void note_rounding(const struct zc_bench *bench)
{
    const struct zc_perf *perf = bench->perf;
    uint64_t bytes = 0;

    while ((bytes = zc_perf_next_size(perf, bytes)) != 0) {
        const uint64_t rounded = zc_round_output(bytes, bench->rank_count);

        if (rounded == bytes)
            continue;
        fprintf(stderr,
                "zerocta perf: note: sizes that do not divide by %" PRIu32
                " ranks are rounded up, %" PRIu64 " to %" PRIu64 "\n",
                bench->rank_count, bytes, rounded);
        return;
    }
}

static int measure_all(struct zc_bench *bench, struct zc_perf_result *result)
{
    const struct zc_perf *perf = bench->perf;
    uint64_t bytes = 0, previous = 0;

    while ((bytes = zc_perf_next_size(perf, bytes)) != 0) {
        const uint64_t rounded = zc_round_output(bytes, bench->rank_count);
        struct zc_perf_row *row = &result->rows[result->row_count];
        int status;

        if (rounded == previous)
            continue;
        assert(result->row_count < ZC_PERF_SIZES);
        previous = rounded;
        status = zc_perf_measure(bench, rounded / bench->rank_count, row);
        if (status != ZC_EXIT_OK)
            return status;
        result->row_count++;
        result->wrong_bytes += row->wrong_bytes;
        if (bench->rank == 0)
            zc_perf_table_row(perf, row);
    }
    return ZC_EXIT_OK;
}

int zc_bench_open(struct zc_bench *bench, const zcta_init_params *params)
{
    const struct zc_perf *perf = bench->perf;
    int status = join(bench, params);

    if (status == ZC_EXIT_OK)
        status = make_room(bench);
    if (status == ZC_EXIT_OK)
        status = open_gpu(bench);
    if (status == ZC_EXIT_OK)
        status = make_windows(bench);
    if (status == ZC_EXIT_OK && bench->gpu == NULL && (perf->peer != ZC_PEER_NONE || perf->graph))
        status = zc_failure(perf->command, "graphs, bare pushes and NCCL are of GPUs; --graph and "
                                           "--peer need --device cuda");
    if (status == ZC_EXIT_OK && perf->peer == ZC_PEER_NCCL)
        status = open_peer(bench);
    return status;
}

int zc_bench_close(struct zc_bench *bench, int status)
{
    free(bench->times_ns);
    free(bench->submits_ns);
    free(bench->told);
    free(bench->stage);
    if (bench->gpu != NULL)
        zc_gpu_synchronize(bench->gpu);
    zc_peer_nccl_close(bench->nccl);
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
    if (bench->rank == 0) {
        note_rounding(bench);
        zc_perf_table_begin(perf, result);
    }
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
        status = run(&bench, &result);
    return zc_bench_close(&bench, status);
}
