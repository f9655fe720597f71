/* zerocta plan: prints what each rank does in a collective, or has the plans of all ranks checked
 * or simulated (plan_check.c). Runs nothing. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "collective.h"
#include "commands.h"
#include "device/cuda/cuda_device.h"
#include "option_rows.h"
#include "options.h"
#include "plan_check.h"
#include "select/select.h"

#define NO_RANK    UINT64_MAX
#define RANKS_MOST 8192u /* nobody starts these ranks, so there may be more of them */

struct settings {
    uint64_t rank_count, bytes, rank;
    uint64_t algorithm; /* index into algorithm_choices */
    bool in_place, check, simulate, print;
    uint64_t node_ranks, chunks, calls;
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
     .help = "have the verifier check all ranks' plans, of some calls in a row; prints no plan",
     .kind = ZC_OPTION_FLAG,
     .offset = offsetof(struct settings, check)},
    {.name = "calls",
     .argument = "COUNT",
     .help =
         "how many calls in a row --check takes; 3 if not given: the second must not disturb the "
         "first, nor the third the half of the scratch window that the first used",
     .kind = ZC_OPTION_NUMBER,
     .offset = offsetof(struct settings, calls),
     .min = 1,
     .max = 1024},
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

/* ---- What to do with it ---- */

static int print_plans(const struct zc_request *common, uint32_t first, uint32_t count)
{
    for (uint32_t rank = first; rank < first + count; rank++) {
        struct zc_request request = *common;
        struct zc_plan *plan = NULL;
        zcta_status status;

        request.rank = rank;
        status = zc_plan_make(&request, &plan);
        if (status != ZCTA_OK)
            return zc_failure(line.command, "cannot make the plan: %s", zcta_status_text(status));
        if (rank > first)
            printf("\n");
        zc_plan_print(plan, stdout);
        zc_plan_destroy(plan);
    }
    return ZC_EXIT_OK;
}

int zc_command_plan(int argc, char **argv)
{
    struct settings settings = {
        .rank_count = 8, .bytes = (uint64_t)1 << 20, .rank = NO_RANK, .chunks = 4, .calls = 3};
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
        status = zc_plan_check(line.command, &request, (uint32_t)settings.calls);
    if (status == ZC_EXIT_OK && settings.simulate)
        status = zc_plan_simulate(line.command, &request);
    return status;
}
