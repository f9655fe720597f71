/* zerocta perf: measures a collective and checks every byte. Here: the command line, the sizes, and
 * who the ranks are; each rank then goes its way in perf_rank.c. */
#include "perf.h"

#include <inttypes.h>
#include <stdlib.h>

#include "alone.h"
#include "collective.h"
#include "commands.h"
#include "launch.h"
#include "option_rows.h"
#include "options.h"

#define RANKS_DEFAULT   8u
#define MIN_DEFAULT     ((uint64_t)1 << 10)
#define MAX_DEFAULT     ((uint64_t)64 << 20)
#define ITERATIONS_MOST 1000000u

static const char *const peer_choices[] = {"none", "push", "nccl", "mpi", NULL};

static const struct zc_option options[] = {
    ZC_ROW_RANKS(offsetof(struct zc_perf, rank_count),
                 "how many ranks to start; 8 if not given. Under a launcher it must agree with the "
                 "launcher's number",
                 1, ZC_MAX_RANKS),
    ZC_ROW_MIN(offsetof(struct zc_perf, bytes_min), "1K"),
    ZC_ROW_MAX(offsetof(struct zc_perf, bytes_max), "64M", 1),
    ZC_ROW_FACTOR(offsetof(struct zc_perf, factor), "4"),
    ZC_ROW_ROOT(offsetof(struct zc_perf, given.root)),
    ZC_ROW_COUNTS(offsetof(struct zc_perf, given.counts)),
    ZC_ROW_IN_PLACE(offsetof(struct zc_perf, in_place)),
    ZC_ROW_THREADS(offsetof(struct zc_perf, threads)),
    ZC_ROW_POLICY(offsetof(struct zc_perf, policy)),
    ZC_ROW_ENGINE(offsetof(struct zc_perf, engine), "who may perform the calls"),
    ZC_ROW_DEVICE(offsetof(struct zc_perf, device), "where the memory is"),
    {.name = "peer",
     .argument = "PEER",
     .help = "measure others as well, in turns, on the same buffers. push: our prepared plan with "
             "early ready and, in place, bare pushes without a signal; nccl: these, and NCCL's own "
             "call, or a group of its sends and receives, by kernels, by kernels with symmetric "
             "windows, and with CTA policy ZERO; mpi: on the host, MPI's call in a job of its own, "
             "where "
             "zerocta's benchmarks have been built with an MPI",
     .kind = ZC_OPTION_CHOICE,
     .offset = offsetof(struct zc_perf, peer),
     .choices = peer_choices},
    ZC_ROW_FLAG("graph", offsetof(struct zc_perf, graph),
                "every call is a captured CUDA graph of one call, launched again and again"),
    ZC_ROW_ITERATIONS(offsetof(struct zc_perf, iterations),
                      "timings a size; if not given, 10 to 1000, as many as fit into 0.3 s",
                      ITERATIONS_MOST),
    ZC_ROW_JSON(offsetof(struct zc_perf, json.name), "the results and the machine"),
};

static const struct zc_command_line line = {
    .command = "perf",
    .synopsis = "COLLECTIVE [OPTIONS]",
    .purpose =
        "Measures a collective and checks every byte of its output. Starts its ranks itself, as "
        "processes, unless a launcher has: `zerocta run`, mpirun, torchrun, Slurm.",
    .options = options,
    .option_count = sizeof options / sizeof options[0],
    .operands_min = 1,
    .operands_max = 1,
    .operand_name = "a collective",
    .operand_words = ZC_COLLECTIVE_WORDS,
    .notes = ZC_NOTE_COLLECTIVES ZC_NOTE_SIZE
    "In place is what the flows allow: it is refused where no rank keeps a share, and where what "
    "comes from another rank would overwrite what is still to be sent. send_recv is a ring: to the "
    "next rank, from the "
    "one before.\n"
    "\n"
    "time    of one call, on its slowest rank: the median of the timings. A barrier comes "
    "before each. Calls shorter than 20 µs are timed in batches of 10 to 50 that directly "
    "follow each other, and a timing is the batch's mean.\n"
    "p99     99 of 100 timings are not longer; the longest, when there are less than 100.\n"
    "submit  the part of the time that is spent inside the call.\n"
    "algbw   the size by time\n"
    "busbw   the most that a rank sends to others, or receives from them, by time\n"
    "wrong   bytes that were not as they must be, on all ranks together. The contents differ "
    "by rank, position and call. Before the timings and after them calls with a poisoned "
    "output are checked whole, and so is what nobody may write; every timing is checked at "
    "three places of each share, and the last one whole.\n"
    "path    what ran, by the library's counters. SMs: 0, or yes if it needs some.\n",
    .exit_status = "0 if every byte was right, 1 if not or if it could not run",
};

uint64_t zc_perf_next_size(const struct zc_perf *perf, uint64_t bytes)
{
    if (bytes == 0)
        return perf->bytes_min;
    return bytes > perf->bytes_max / perf->factor ? 0 : bytes * perf->factor;
}

/* What was not given follows what was. */
static bool resolve_sizes(struct zc_perf *perf)
{
    if (perf->bytes_min == 0)
        perf->bytes_min =
            perf->bytes_max != 0 && perf->bytes_max < MIN_DEFAULT ? perf->bytes_max : MIN_DEFAULT;
    if (perf->bytes_max == 0)
        perf->bytes_max = perf->bytes_min > MAX_DEFAULT ? perf->bytes_min : MAX_DEFAULT;
    if (perf->bytes_min <= perf->bytes_max)
        return true;
    zc_usage_error(line.command,
                   "the smallest size (-b, %" PRIu64 ") is larger than the largest (-e, %" PRIu64
                   ")",
                   perf->bytes_min, perf->bytes_max);
    return false;
}

int zc_command_perf(int argc, char **argv)
{
    struct zc_perf perf = {.command = line.command,
                           .given = {.root = ZC_NOT_GIVEN},
                           .factor = 4,
                           .argc = argc,
                           .argv = argv};
    const bool launched = zc_launch_is_rank();
    int first, status;

    if (!zc_options_parse(&line, argc, argv, &perf, &first, &status))
        return status;
    if (!launched && perf.rank_count == 0)
        perf.rank_count = RANKS_DEFAULT;
    if (!zc_shape_read(line.command, argv[first], &perf.given, &perf.shape) ||
        !resolve_sizes(&perf) ||
        (perf.rank_count != 0 && !zc_shape_fits(line.command, &perf.shape, perf.rank_count)) ||
        (perf.in_place && !zc_check_in_place(line.command, &perf.shape)))
        return ZC_EXIT_USAGE;
    if (perf.peer == ZC_PEER_MPI && perf.bytes_max > ZC_PEER_MPI_BYTES_MAX)
        return zc_usage_error(line.command, "MPI counts in int: with --peer mpi -e is 1G at most");
    if (perf.peer == ZC_PEER_MPI && !launched && !zc_peer_mpi_check(line.command))
        return ZC_EXIT_FAILED;
    if (launched && perf.threads)
        return zc_usage_error(line.command, "--threads makes the ranks itself, but a launcher has "
                                            "started this process as one");
    status = zc_json_prepare(line.command, &perf.json, launched, perf.threads);
    if (status != ZC_EXIT_OK)
        return status;
    if (launched)
        return zc_perf_rank(&perf, &(zcta_init_params){.size = sizeof(zcta_init_params),
                                                       .device = (zcta_device)perf.device});
    /* Said once, not by every rank. */
    if (perf.device != ZCTA_DEVICE_AUTO)
        status = zc_try_device(line.command, (zcta_device)perf.device, ZC_ADVISE_HOST);
    if (status != ZC_EXIT_OK)
        return status;
    return perf.threads ? zc_perf_threads(&perf, zc_perf_rank)
                        : zc_launch_self(line.command, (uint32_t)perf.rank_count, argc, argv);
}
