/* zerocta plan: prints what each rank does in a collective, has the plans of all ranks judged by
 * the verifier, or has the simulation say how long they would take on GPUs. Runs nothing. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "collective.h"
#include "commands.h"
#include "device/cuda/cuda_device.h"
#include "engine/predict.h"
#include "option_rows.h"
#include "options.h"
#include "plan/verify.h"
#include "select/select.h"

#define NO_RANK    UINT64_MAX
#define RANKS_MOST 8192u /* nobody starts these ranks, so there may be more of them */

/* Calls that follow each other directly in a check: the second must not disturb the first, nor the
 * third one the half of the scratch window that the first used. */
enum { CHECKED_CALLS = 3 };

struct settings {
    uint64_t rank_count, bytes, rank;
    uint64_t algorithm; /* index into algorithm_choices */
    bool in_place, check, simulate, print;
    uint64_t node_ranks, chunks;
};

#define CHOICE(name, text, make, collective) text,
static const char *const algorithm_choices[] = {"auto", ZC_ALGORITHM_LIST(CHOICE) NULL};
#undef CHOICE

static const struct zc_option options[] = {
    ZC_ROW_RANKS(offsetof(struct settings, rank_count), "how many ranks take part; 8 if not given",
                 1, RANKS_MOST),
    ZC_ROW_SIZE("bytes", 0, offsetof(struct settings, bytes),
                "the whole output, all ranks' shares together; 1M if not given", 0),
    {.name = "rank",
     .argument = "RANK",
     .help = "print the plan of this rank only",
     .kind = ZC_OPTION_NUMBER,
     .offset = offsetof(struct settings, rank),
     .max = RANKS_MOST - 1},
    ZC_ROW_IN_PLACE(offsetof(struct settings, in_place)),
    {.name = "algorithm",
     .argument = "NAME",
     .help = "the algorithm; auto takes what a call would take on the host, and direct-push with "
             "--simulate",
     .kind = ZC_OPTION_CHOICE,
     .offset = offsetof(struct settings, algorithm),
     .choices = algorithm_choices},
    {.name = "node-ranks",
     .argument = "RANKS",
     .help = "the ranks are on nodes of so many, with a network between; not given: all are on one",
     .kind = ZC_OPTION_NUMBER,
     .offset = offsetof(struct settings, node_ranks),
     .min = 1,
     .max = RANKS_MOST},
    {.name = "chunks",
     .argument = "COUNT",
     .help = "over several nodes: how many chunks a share goes in; 4 if not given",
     .kind = ZC_OPTION_NUMBER,
     .offset = offsetof(struct settings, chunks),
     .min = 1,
     .max = ZC_MAX_LANES},
    {.name = "check",
     .help = "have the verifier judge all ranks' plans, of three calls in a row; prints no plan",
     .kind = ZC_OPTION_FLAG,
     .offset = offsetof(struct settings, check)},
    {.name = "simulate",
     .help = "predict time and bandwidth on GPUs whose copy engines are those of the cost model; "
             "prints no plan",
     .kind = ZC_OPTION_FLAG,
     .offset = offsetof(struct settings, simulate)},
    {.name = "print",
     .help = "print the plans even so, before --check's and --simulate's results",
     .kind = ZC_OPTION_FLAG,
     .offset = offsetof(struct settings, print)},
};

static const struct zc_command_line line = {
    .command = "plan",
    .synopsis = "all_gather [OPTIONS]",
    .purpose = "Prints what each rank copies, signals and waits for. Runs nothing.",
    .options = options,
    .option_count = sizeof options / sizeof options[0],
    .operands_min = 1,
    .operands_max = 1,
    .operand_name = "a collective",
    .notes =
        "A line is a step: its lane; copy FROM TO BYTES, where a place is rank:buffer+offset; "
        "signal or wait with the other rank and the channel; fork or join with the other lane; "
        "exchange FIRST-ROW BYTES, an allgather over the network between nodes.\n"
        "Plans are those of the host device; with --simulate those of GPUs, which have two "
        "lanes.\n",
    .exit_status = "0, 1 if --check finds a defect",
};

static int complain(zcta_status status, const char *what)
{
    return zc_failure(line.command, "%s: %s", what, zcta_status_text(status));
}

/* ---- Which plan ---- */

/* Fills `request` for all ranks. False after it said why not, with the status in *exit_status. */
static bool make_request(const struct settings *settings, struct zc_request *request,
                         int *exit_status)
{
    struct zc_device_caps caps;
    struct zc_facts facts = {.collective = ZC_COLLECTIVE_ALL_GATHER,
                             .caps = &caps,
                             .rank_count = (uint32_t)settings->rank_count,
                             .in_place = settings->in_place,
                             .policy = ZCTA_POLICY_DEFAULT};
    zcta_report report;
    enum zc_algorithm algorithm = ZC_ALGORITHM_DIRECT_PUSH;

    *exit_status = ZC_EXIT_FAILED;
    if (!zc_host_caps(line.command, facts.rank_count, &caps))
        return false;
    if (settings->simulate) {
        /* What sets a GPU apart from the host as far as plans go. */
        caps.lanes = 2;
        caps.block_bytes = 0;
        caps.group_bytes = ZC_CUDA_GROUP_BYTES;
    }
    facts.bytes = zc_share_of(line.command, settings->bytes, facts.rank_count);
    if (settings->algorithm != 0)
        algorithm = (enum zc_algorithm)(settings->algorithm - 1);
    else if (!settings->simulate)
        algorithm = (enum zc_algorithm)zc_select(&facts, &report).path;
    *exit_status = ZC_EXIT_USAGE;
    if (settings->node_ranks != 0) {
        if (settings->rank_count % settings->node_ranks != 0) {
            zc_usage_error(line.command,
                           "%" PRIu64 " ranks do not fill nodes of %" PRIu64 " (--node-ranks)",
                           settings->rank_count, settings->node_ranks);
            return false;
        }
        algorithm = settings->algorithm == 0 ? ZC_ALGORITHM_BY_NODES : algorithm;
        caps.lanes = (uint32_t)settings->chunks;
    }
    if (zc_algorithm_collective(algorithm) != facts.collective) {
        zc_usage_error(line.command, "--algorithm %s is no algorithm of %s",
                       algorithm_choices[settings->algorithm],
                       zc_collective_name(facts.collective));
        return false;
    }
    if (algorithm == ZC_ALGORITHM_SCRATCH_PULL && facts.bytes > caps.scratch_bytes) {
        zc_usage_error(line.command,
                       "%" PRIu64 " bytes a rank do not fit into the scratch window's %zu; choose "
                       "another --algorithm or fewer bytes",
                       facts.bytes, caps.scratch_bytes);
        return false;
    }
    *request = zc_select_request(&facts, (enum zc_path)algorithm, 0);
    request->node_ranks = (uint32_t)settings->node_ranks;
    request->chunks = (uint32_t)settings->chunks;
    if (algorithm != ZC_ALGORITHM_BY_NODES && zc_request_nodes(request) > 1) {
        zc_usage_error(line.command, "--algorithm %s does not go from node to node",
                       zc_algorithm_name(algorithm));
        return false;
    }
    return true;
}

/* ---- The three things to do with it ---- */

static int print_plans(const struct zc_request *common, uint32_t first, uint32_t count)
{
    for (uint32_t rank = first; rank < first + count; rank++) {
        struct zc_request request = *common;
        struct zc_plan *plan = NULL;
        zcta_status status;

        request.rank = rank;
        status = zc_plan_make(&request, &plan);
        if (status != ZCTA_OK)
            return complain(status, "cannot make the plan");
        if (rank > first)
            printf("\n");
        zc_plan_print(plan, stdout);
        zc_plan_destroy(plan);
    }
    return ZC_EXIT_OK;
}

/* Every rank's plan of every call, plans[call * rank_count + rank], as far as they could be made.
 * The scratch window's halves are used in turn. */
static zcta_status make_plans(const struct zc_request *common, struct zc_plan **plans)
{
    for (uint32_t i = 0; i < CHECKED_CALLS * common->rank_count; i++) {
        struct zc_request request = *common;
        zcta_status status;

        request.rank = i % common->rank_count;
        request.half = i / common->rank_count % 2;
        status = zc_plan_make(&request, &plans[i]);
        if (status != ZCTA_OK)
            return status;
    }
    return ZCTA_OK;
}

static int judge(const struct zc_request *request, struct zc_plan *const *plans)
{
    struct zc_verify_call calls[CHECKED_CALLS];
    char text[256] = "";
    uint64_t steps = 0;
    zcta_status status;

    for (uint32_t i = 0; i < CHECKED_CALLS; i++)
        calls[i].plans = (const struct zc_plan *const *)plans + (size_t)i * request->rank_count;
    for (uint32_t i = 0; i < CHECKED_CALLS * request->rank_count; i++)
        steps += plans[i]->step_count;
    status = zc_verify(calls, CHECKED_CALLS, NULL, text, sizeof text);
    if (status == ZCTA_ERR_INVALID) {
        printf("check: FAILED, %s\n", text);
        return ZC_EXIT_FAILED;
    }
    if (status != ZCTA_OK)
        return complain(status, "cannot check the plans");
    printf("check: OK, %" PRIu64 " steps of %" PRIu32 " %s in %d calls in a row (%s)\n", steps,
           request->rank_count, request->rank_count == 1 ? "rank" : "ranks", CHECKED_CALLS,
           zc_algorithm_name(request->algorithm));
    return ZC_EXIT_OK;
}

static int check(const struct zc_request *request)
{
    const size_t count = (size_t)CHECKED_CALLS * request->rank_count;
    struct zc_plan **plans = calloc(count, sizeof *plans);
    zcta_status status = ZCTA_ERR_NO_MEMORY;
    int exit_status;

    if (plans != NULL)
        status = make_plans(request, plans);
    if (status == ZCTA_OK)
        exit_status = judge(request, plans);
    else
        exit_status = complain(status, "cannot make the plans");
    for (size_t i = 0; plans != NULL && i < count; i++)
        zc_plan_destroy(plans[i]);
    free(plans);
    return exit_status;
}

static int simulate(const struct zc_request *request)
{
    const double ranks = request->rank_count;
    struct zc_prediction prediction;
    char call[ZC_CALL_TEXT_BYTES];
    const zcta_status status = zc_predict(request, &zc_sim_cost_h200, &prediction);
    double bandwidth = 0;

    if (status != ZCTA_OK)
        return complain(status, "cannot simulate the plans");
    if (prediction.time_ns > 0)
        bandwidth = (double)request->bytes * ranks / (double)prediction.time_ns;
    printf("simulated %s, %s\n"
           "  cost model  %12s\n"
           "  time        %12.1f µs\n"
           "  algbw       %12.1f GB/s\n"
           "  busbw       %12.1f GB/s\n"
           "  steps       %12" PRIu64 "\n",
           zc_call_text(request->rank_count, request->bytes, request->in_place, call),
           zc_algorithm_name(request->algorithm), zc_sim_cost_h200.name,
           (double)prediction.time_ns / 1e3, bandwidth, bandwidth * (ranks - 1) / ranks,
           prediction.steps);
    return ZC_EXIT_OK;
}

int zc_command_plan(int argc, char **argv)
{
    struct settings settings = {
        .rank_count = 8, .bytes = (uint64_t)1 << 20, .rank = NO_RANK, .chunks = 4};
    struct zc_request request;
    bool one;
    int first, status;

    if (!zc_options_parse(&line, argc, argv, &settings, &first, &status))
        return status;
    if (!zc_check_collective(line.command, argv[first]))
        return ZC_EXIT_USAGE;
    one = settings.rank != NO_RANK;
    if (one && settings.rank >= settings.rank_count)
        return zc_usage_error(
            line.command, "--rank %" PRIu64 " is not among %" PRIu64 " ranks, which count from 0",
            settings.rank, settings.rank_count);
    if (!make_request(&settings, &request, &status))
        return status;
    if (one || settings.print || (!settings.check && !settings.simulate))
        status =
            print_plans(&request, one ? (uint32_t)settings.rank : 0, one ? 1 : request.rank_count);
    else
        status = ZC_EXIT_OK;
    if (status == ZC_EXIT_OK && settings.check)
        status = check(&request);
    if (status == ZC_EXIT_OK && settings.simulate)
        status = simulate(&request);
    return status;
}
