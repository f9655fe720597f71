/* The peer of `zerocta perf --peer mpi`: measures what it is told to by MPI, size by size, the same
 * way as that command measures zerocta.
 *
 *     zerocta-mpi-NAME -n RANKS COLLECTIVE ROOT COUNTS IN_PLACE BYTES_MAX
 *
 * Started by hand it starts itself once a rank, by the mpirun of the MPI that it was built with.
 * Rank 0 then reads lines "BYTES TIMINGS CALLS" (calls in each timing) from standard input and
 * answers each with "MEDIAN_NS WRONG_BYTES". Between two of them the ranks sleep. It ends with its
 * input. */
#include <errno.h>
#include <inttypes.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "contents.h"
#include "mpi_call.h"
#include "mpi_memory.h"
#include "values.h"

enum { CHECKS = 2, TRIALS = 3, LEAST = 10, WORDS = 3, PAUSE_NS = 10000000, TAG = 1 };

#define BUDGET_NS UINT64_C(300000000) /* for the timings of one size, as `zerocta perf` has it */

struct peer {
    uint32_t rank, ranks;
    struct zc_shape shape;
    bool in_place;
    struct zc_arena arena;
    uint64_t serial;
};

struct target {
    struct zc_sized sized;
    struct zc_contents contents;
    struct mpi_call call;
};

_Noreturn static void die(const char *what)
{
    fprintf(stderr, "zerocta-mpi: %s\n", what);
    MPI_Abort(MPI_COMM_WORLD, 1);
    abort();
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- Starting ---- */

/* Becomes the mpirun that starts this program once a rank. */
static int start_ranks(char **argv)
{
    static const char *const options[] = {ZC_MPIRUN_OPTIONS};
    enum { OPTIONS = sizeof options / sizeof options[0], MORE = 16 };
    char self[4096] = "";
    char *words[OPTIONS + MORE];
    int count = 0;

    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0)
        return perror("/proc/self/exe"), 1;
    words[count++] = (char[]){ZC_MPIRUN};
    for (int i = 0; i < OPTIONS; i++)
        if (options[i][0] != '\0')
            words[count++] = (char *)(uintptr_t)options[i];
    words[count++] = argv[1];
    words[count++] = argv[2];
    words[count++] = self;
    for (int i = 1; argv[i] != NULL && count < OPTIONS + MORE - 1; i++)
        words[count++] = argv[i];
    words[count] = NULL;
    execv(words[0], words);
    fprintf(stderr, "zerocta-mpi: cannot execute %s: %s\n", words[0], strerror(errno));
    return 1;
}

static bool is_rank(void)
{
    return getenv("OMPI_COMM_WORLD_RANK") != NULL || getenv("PMI_RANK") != NULL;
}

/* ---- Measuring ---- */

static void open_target(struct peer *peer, uint64_t bytes, struct target *target)
{
    if (zc_sized_meet(mpi_exchange, NULL, &peer->shape, bytes, peer->ranks, peer->rank,
                      peer->in_place, &target->sized) != ZCTA_OK ||
        !zc_contents_open(&target->sized, &peer->arena, &target->contents) ||
        !mpi_call_open(&target->sized, &target->contents.call, &target->call))
        die("no such call, or out of memory");
}

static void close_target(struct target *target)
{
    mpi_call_close(&target->call);
    zc_contents_close(&target->contents);
    zc_sized_free(&target->sized);
}

static void check_fully(struct peer *peer, struct target *target, uint64_t *wrong)
{
    const uint64_t serial = peer->serial++;

    zc_contents_prepare(&target->contents, serial);
    mpi_call_run(&target->call);
    zc_contents_check(&target->contents, serial, wrong);
}

/* A timing: the mean of calls that directly follow each other, behind a barrier. */
static uint64_t take_time(const struct target *target, uint64_t calls)
{
    uint64_t begin;

    MPI_Barrier(MPI_COMM_WORLD);
    begin = now_ns();
    for (uint64_t i = 0; i < calls; i++)
        mpi_call_run(&target->call);
    return calls > 1 ? (now_ns() - begin) / calls : now_ns() - begin;
}

static int compare(const void *a, const void *b)
{
    const uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

    return (left > right) - (left < right);
}

static uint64_t median(uint64_t *numbers, uint64_t count)
{
    qsort(numbers, count, sizeof *numbers, compare);
    return (numbers[(count - 1) / 2] + numbers[count / 2]) / 2;
}

/* Where MPI is slower than the one for which so many were chosen, there are fewer. */
static void choose_timings(const struct target *target, uint64_t *timings, uint64_t *calls)
{
    uint64_t slowest = 1, most;

    for (int i = 0; i < TRIALS; i++) {
        const uint64_t time = take_time(target, 1);

        slowest = time > slowest ? time : slowest;
    }
    MPI_Allreduce(MPI_IN_PLACE, &slowest, 1, MPI_UINT64_T, MPI_MAX, MPI_COMM_WORLD);
    most = BUDGET_NS / slowest;
    if (*timings * *calls <= most || *timings * *calls <= LEAST)
        return;
    if (*calls > 1 && most < LEAST * *calls)
        *calls = 1;
    if (*timings > most / *calls)
        *timings = most / *calls < LEAST ? LEAST : most / *calls;
}

static void measure(struct peer *peer, const uint64_t asked[WORDS])
{
    uint64_t timings = asked[1], calls = asked[2];
    uint64_t *times = calloc(timings, sizeof *times), wrong = 0;
    struct target target;

    if (times == NULL)
        die("out of memory");
    open_target(peer, asked[0], &target);
    for (int i = 0; i < CHECKS; i++)
        check_fully(peer, &target, &wrong);
    choose_timings(&target, &timings, &calls);
    zc_contents_prepare(&target.contents, peer->serial);
    for (uint64_t i = 0; i < timings; i++) {
        zc_contents_stamp(&target.contents, ++peer->serial);
        times[i] = take_time(&target, calls);
        zc_contents_check_stamps(&target.contents, peer->serial, &wrong);
    }
    peer->serial++;
    check_fully(peer, &target, &wrong);
    close_target(&target);
    MPI_Allreduce(MPI_IN_PLACE, times, (int)timings, MPI_UINT64_T, MPI_MAX, MPI_COMM_WORLD);
    MPI_Allreduce(MPI_IN_PLACE, &wrong, 1, MPI_UINT64_T, MPI_SUM, MPI_COMM_WORLD);
    if (peer->rank == 0)
        printf("%" PRIu64 " %" PRIu64 "\n", median(times, timings), wrong);
    free(times);
}

/* ---- Being told ---- */

/* Rank 0's next line; false at the end of it. */
static bool read_line(uint64_t asked[WORDS])
{
    char line[128], *rest = line;
    int count = 0;

    if (fgets(line, sizeof line, stdin) == NULL)
        return false;
    line[strcspn(line, "\n")] = '\0';
    for (char *word; (word = strsep(&rest, " ")) != NULL; count++)
        if (count == WORDS || !zc_parse_number(word, &asked[count]))
            return false;
    return count == WORDS && asked[1] > 0 && asked[2] > 0;
}

/* Waiting in MPI takes the core that others measure on, so the other ranks look now and then. */
static void hear(uint64_t asked[WORDS])
{
    const struct timespec pause = {.tv_nsec = PAUSE_NS};
    int there = 0;

    while (MPI_Iprobe(0, TAG, MPI_COMM_WORLD, &there, MPI_STATUS_IGNORE) == MPI_SUCCESS && !there)
        nanosleep(&pause, NULL);
    MPI_Recv(asked, WORDS, MPI_UINT64_T, 0, TAG, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
}

static bool next(const struct peer *peer, uint64_t asked[WORDS])
{
    if (peer->rank != 0) {
        hear(asked);
        return asked[1] != 0;
    }
    if (!read_line(asked))
        asked[1] = 0;
    for (uint32_t rank = 1; rank < peer->ranks; rank++)
        MPI_Send(asked, WORDS, MPI_UINT64_T, (int)rank, TAG, MPI_COMM_WORLD);
    return asked[1] != 0;
}

static void open_memory(struct peer *peer, uint64_t bytes)
{
    struct target largest;

    if (bytes > ZC_PEER_MPI_BYTES_MAX)
        die("MPI counts in int: 1G is the largest size");
    if (zc_sized_meet(mpi_exchange, NULL, &peer->shape, bytes, peer->ranks, peer->rank,
                      peer->in_place, &largest.sized) != ZCTA_OK ||
        !mpi_memory_open(&largest.sized, &peer->arena))
        die("no such call, or out of memory");
    zc_sized_free(&largest.sized);
}

/* "-" stands for what the collective does not take. False after it was said what is wrong. */
static bool read_arguments(int argc, char **argv, struct peer *peer, uint64_t *bytes_max)
{
    struct zc_shape_options given = {.root = ZC_NOT_GIVEN};

    if (argc != 8 || strcmp(argv[1], "-n") != 0 || !zc_parse_number(argv[7], bytes_max) ||
        (strcmp(argv[4], "-") != 0 && !zc_parse_number(argv[4], &given.root))) {
        fprintf(stderr, "usage: zerocta-mpi -n RANKS COLLECTIVE ROOT COUNTS IN_PLACE BYTES_MAX\n");
        return false;
    }
    given.counts = strcmp(argv[5], "-") == 0 ? NULL : argv[5];
    peer->in_place = strcmp(argv[6], "in") == 0;
    return zc_shape_read("perf", argv[3], &given, &peer->shape);
}

int main(int argc, char **argv)
{
    struct peer peer = {.rank = 0};
    uint64_t asked[WORDS] = {0}, bytes_max;
    int rank, ranks;

    if (!read_arguments(argc, argv, &peer, &bytes_max))
        return 2;
    if (!is_rank())
        return start_ranks(argv);
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    peer.rank = (uint32_t)rank;
    peer.ranks = (uint32_t)ranks;
    setvbuf(stdout, NULL, _IOLBF, 0);
    open_memory(&peer, bytes_max);
    while (next(&peer, asked))
        measure(&peer, asked);
    mpi_memory_close(&peer.arena);
    MPI_Finalize();
    return 0;
}
