/* zerocta plan: prints what each rank does in a collective, or has the plans of all ranks checked
 * or simulated (plan_check.c). Runs nothing. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "alone.h"
#include "api/call_layout.h"
#include "collective.h"
#include "commands.h"
#include "device/cuda/cuda_device.h"
#include "option_rows.h"
#include "options.h"
#include "plan_check.h"
#include "select/select.h"

#define NO_RANK    UINT64_MAX
#define RANKS_MOST 8192u /* nobody starts these ranks, so there may be more of them */
#define PAIRS_RANKS_MOST                                                                           \
    1024u /* where each pair of ranks has a share, an array grows by the square */

struct settings {
    uint64_t rank_count, bytes, rank;
    struct zc_shape_options shape;
    const char *algorithm; /* NULL or "auto": ours to choose */
    bool in_place, check, simulate, print;
    uint64_t node_ranks, chunks, calls;
};

static const struct zc_option options[] = {
    ZC_ROW_RANKS(offsetof(struct settings, rank_count), "how many ranks take part; 8 if not given",
                 1, RANKS_MOST),
    ZC_ROW_SIZE("bytes", 0, offsetof(struct settings, bytes),
                "the largest output or the largest input of a rank, whichever is larger; 1M if not "
                "given",
                0),
    ZC_ROW_ROOT(offsetof(struct settings, shape.root)),
    ZC_ROW_COUNTS(offsetof(struct settings, shape.counts)),
    {.name = "rank",
     .argument = "RANK",
     .help = "print the plan of this rank only",
     .kind = ZC_OPTION_NUMBER,
     .offset = offsetof(struct settings, rank),
     .max = RANKS_MOST - 1},
    ZC_ROW_IN_PLACE(offsetof(struct settings, in_place)),
    {.name = "algorithm",
     .argument = "NAME",
     .help = "the algorithm; auto takes what a call would take on the host, and with --simulate "
             "on GPUs",
     .kind = ZC_OPTION_TEXT,
     .offset = offsetof(struct settings, algorithm)},
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
    .synopsis = "COLLECTIVE [OPTIONS]",
    .purpose = "Prints what each rank copies, signals and waits for. Runs nothing.",
    .options = options,
    .option_count = sizeof options / sizeof options[0],
    .operands_min = 1,
    .operands_max = 1,
    .operand_name = "a collective",
    .notes =
        "A line is a step: its lane; copy FROM TO BYTES, where a place is rank:buffer+offset; "
        "signal or wait with the other rank and the channel; fork or join with the other lane; "
        "net_send or net_recv over the network between nodes, with the other rank, the place in "
        "this rank's memory, and the bytes; those directly behind each other go at once.\n"
        "Plans are those of the host device; with --simulate those of GPUs, which have two "
        "lanes.\n"
        "\n" ZC_NOTE_COLLECTIVES ZC_NOTE_SIZE,
    .exit_status = "0, 1 if --check finds a defect",
};

/* ---- Which plans ---- */

/* requests[rank], and the layouts that they point to: one for all, or one a rank. */
struct plans {
    struct zc_request *requests;
    struct zc_layout **layouts;
    uint32_t ranks, layout_count;
};

static void free_plans(struct plans *plans)
{
    for (uint32_t i = 0; plans->layouts != NULL && i < plans->layout_count; i++)
        zc_call_layout_free(plans->layouts[i]);
    free(plans->layouts);
    free(plans->requests);
}

static bool say_no_memory(void)
{
    zc_failure(line.command, "out of memory");
    return false;
}

/* One rank's layout, which may be all ranks'. */
static bool make_layout(const struct settings *settings, const struct zc_shape *shape,
                        uint32_t rank, struct zc_layout **layout)
{
    struct zc_sized sized;
    zcta_error error;
    zcta_status status;

    if (!zc_sized_call(shape, settings->bytes, (uint32_t)settings->rank_count, rank, &sized))
        return say_no_memory();
    status = zc_call_layout(&sized.call, sized.ranks, rank, layout);
    zc_sized_free(&sized);
    if (status == ZCTA_OK)
        return true;
    zcta_last_error(NULL, &error);
    zc_failure(line.command, "%s", error.message);
    return false;
}

static bool make_layouts(const struct settings *settings, const struct zc_shape *shape,
                         struct plans *plans)
{
    plans->ranks = (uint32_t)settings->rank_count;
    plans->layout_count = zc_shape_has(shape, ZCTA_COLLECTIVE_PARTNERS) ? plans->ranks : 1;
    plans->layouts = calloc(plans->layout_count, sizeof *plans->layouts);
    plans->requests = calloc(plans->ranks, sizeof *plans->requests);
    if (plans->layouts == NULL || plans->requests == NULL)
        return say_no_memory();
    for (uint32_t i = 0; i < plans->layout_count; i++)
        if (!make_layout(settings, shape, i, &plans->layouts[i]))
            return false;
    return true;
}

/* The collective's algorithm of that name. NULL after it was said what there is. */
static const struct zc_algorithm *find_named(const char *name,
                                             const struct zc_collective *collective)
{
    char names[160] = "";
    size_t length = 0;

    for (uint32_t i = 0; i < ZC_ALGORITHMS; i++) {
        if (!zc_algorithm_serves(zc_algorithms[i], collective) ||
            zc_has(zc_algorithms[i], ZC_OPENS))
            continue;
        if (strcmp(zc_algorithms[i]->name, name) == 0)
            return zc_algorithms[i];
        length += (size_t)snprintf(names + length, sizeof names - length, "%s%s",
                                   length == 0 ? "" : ", ", zc_algorithms[i]->name);
    }
    zc_usage_error(line.command, "--algorithm %s is no algorithm of %s; there are auto, %s", name,
                   collective->name, names);
    return NULL;
}

/* The algorithm that a call would take, on the host or, simulated, on GPUs. */
static const struct zc_algorithm *choose_algorithm(const struct settings *settings,
                                                   const struct zc_facts *facts)
{
    const struct zc_collective *collective = facts->layout->collective;
    const struct zc_algorithm *chosen = NULL;
    zcta_report report;
    struct zc_choice choice;

    for (uint32_t i = 0; chosen == NULL && settings->node_ranks != 0 && i < ZC_ALGORITHMS; i++)
        if (zc_has(zc_algorithms[i], ZC_CROSSES) &&
            zc_algorithm_serves(zc_algorithms[i], collective))
            chosen = zc_algorithms[i];
    if (chosen == NULL) {
        choice = zc_select(facts, &report);
        chosen = choice.found ? zc_algorithms[choice.path] : NULL;
    }
    if (chosen == NULL)
        zc_failure(line.command, "no path can run: %s", report.paths[0].reason);
    return chosen;
}

/* What sets a GPU apart from the host as far as plans go. */
static void be_gpu(struct zc_device_caps *caps)
{
    caps->name = "cuda";
    caps->lanes = 2;
    caps->local_copy_needs_sm = true;
    caps->pull_small = false;
    caps->lane_bytes = ZC_CUDA_LANE_BYTES;
    caps->block_bytes = 0;
    caps->group_bytes = ZC_CUDA_GROUP_BYTES;
    caps->host_bytes = ZC_CUDA_HOST_BYTES;
    caps->host_ranks = ZC_CUDA_HOST_RANKS;
    caps->ring_bytes = ZC_CUDA_RING_BYTES;
}

static bool in_place(const struct settings *settings, const struct zc_layout *layout, uint32_t rank)
{
    const struct zc_flow own = zc_flow_between(layout, rank, rank);
    const uintptr_t recv = (uintptr_t)1 << 62;

    return settings->in_place &&
           zc_layout_placing(layout, rank, recv + own.to_at - own.from_at, recv) == ZC_IN_PLACE;
}

/* Makes the requests of all ranks. False after it said why not, with the status in *exit_status. */
static bool make_requests(const struct settings *settings, struct plans *plans, int *exit_status)
{
    struct zc_device_caps caps;
    struct zc_facts facts = {.layout = plans->layouts[0],
                             .caps = &caps,
                             .in_place = settings->in_place,
                             .policy = ZCTA_POLICY_DEFAULT};
    const struct zc_algorithm *algorithm;

    *exit_status = ZC_EXIT_FAILED;
    if (!zc_host_caps(line.command, plans->ranks, &caps))
        return false;
    if (settings->simulate)
        be_gpu(&caps);
    if (settings->node_ranks != 0)
        caps.lanes = (uint32_t)settings->chunks;
    *exit_status = ZC_EXIT_USAGE;
    algorithm = settings->algorithm == NULL || strcmp(settings->algorithm, "auto") == 0
                    ? choose_algorithm(settings, &facts)
                    : find_named(settings->algorithm, facts.layout->collective);
    if (algorithm == NULL)
        return false;
    /* There the team has host memory in any case. */
    facts.apart = zc_has(algorithm, ZC_USES_HOST) &&
                  (!zc_has(algorithm, ZC_ALTERNATES) ||
                   zc_host_room_of(&caps, false, plans->ranks, false).half == 0);
    for (uint32_t rank = 0; rank < plans->ranks; rank++) {
        struct zc_request *request = &plans->requests[rank];
        const char *defect;

        facts.layout = plans->layouts[plans->layout_count == 1 ? 0 : rank];
        *request = zc_select_request(&facts, (enum zc_path)zc_algorithm_number(algorithm), rank,
                                     in_place(settings, facts.layout, rank));
        request->node_ranks = (uint32_t)settings->node_ranks;
        request->chunks = (uint32_t)settings->chunks;
        defect = zc_request_defect(request);
        if (defect != NULL) {
            zc_usage_error(line.command, "%s of this size by %s: %s",
                           facts.layout->collective->name, algorithm->name, defect);
            return false;
        }
    }
    return true;
}

/* ---- What to do with it ---- */

static int print_plans(const struct plans *plans, uint32_t first, uint32_t count)
{
    for (uint32_t rank = first; rank < first + count; rank++) {
        struct zc_plan *plan = NULL;
        zcta_status status = zc_plan_make(&plans->requests[rank], &plan);

        if (status != ZCTA_OK)
            return zc_failure(line.command, "cannot make the plan: %s", zcta_status_text(status));
        if (rank > first)
            printf("\n");
        zc_plan_print(plan, stdout);
        zc_plan_destroy(plan);
    }
    return ZC_EXIT_OK;
}

static void note_rounding(const struct settings *settings, const struct plans *plans)
{
    uint64_t size = 0;

    for (uint32_t i = 0; i < plans->layout_count; i++) {
        const struct zc_layout *layout = plans->layouts[i];
        const uint64_t larger = layout->input > layout->output ? layout->input : layout->output;

        size = larger > size ? larger : size;
    }
    zc_note_rounding(line.command, settings->bytes, size);
}

static int use_plans(const struct settings *settings, const struct plans *plans)
{
    const bool one = settings->rank != NO_RANK;
    int status = ZC_EXIT_OK;

    if (one || settings->print || (!settings->check && !settings->simulate))
        status = print_plans(plans, one ? (uint32_t)settings->rank : 0, one ? 1 : plans->ranks);
    if (status == ZC_EXIT_OK && settings->check)
        status = zc_plan_check(line.command, plans->requests, (uint32_t)settings->calls);
    if (status == ZC_EXIT_OK && settings->simulate)
        status = zc_plan_simulate(line.command, plans->requests);
    return status;
}

/* False after it was said what is wrong. */
static bool check_settings(const struct settings *settings, const struct zc_shape *shape)
{
    if (settings->rank != NO_RANK && settings->rank >= settings->rank_count)
        zc_usage_error(line.command,
                       "--rank %" PRIu64 " is not among %" PRIu64 " ranks, which count from 0",
                       settings->rank, settings->rank_count);
    else if (settings->node_ranks != 0 && settings->rank_count % settings->node_ranks != 0)
        zc_usage_error(line.command,
                       "%" PRIu64 " ranks do not fill nodes of %" PRIu64 " (--node-ranks)",
                       settings->rank_count, settings->node_ranks);
    else if (zc_shape_has(shape, ZCTA_COLLECTIVE_BY_PAIRS) &&
             settings->rank_count > PAIRS_RANKS_MOST)
        zc_usage_error(line.command, "%s has a share for each pair of ranks; take %u ranks at most",
                       shape->info.name, PAIRS_RANKS_MOST);
    else
        return zc_shape_fits(line.command, shape, settings->rank_count) &&
               (!settings->in_place || zc_check_in_place(line.command, shape));
    return false;
}

int zc_command_plan(int argc, char **argv)
{
    struct settings settings = {.rank_count = 8,
                                .bytes = (uint64_t)1 << 20,
                                .rank = NO_RANK,
                                .shape = {.root = ZC_NOT_GIVEN},
                                .chunks = 4,
                                .calls = 3};
    struct plans plans = {0};
    struct zc_shape shape;
    int first, status;

    if (!zc_options_parse(&line, argc, argv, &settings, &first, &status))
        return status;
    if (!zc_shape_read(line.command, argv[first], &settings.shape, &shape) ||
        !check_settings(&settings, &shape))
        return ZC_EXIT_USAGE;
    status = ZC_EXIT_FAILED;
    if (make_layouts(&settings, &shape, &plans) && make_requests(&settings, &plans, &status)) {
        if (!zc_shape_has(&shape, ZCTA_COLLECTIVE_NO_DATA))
            note_rounding(&settings, &plans);
        status = use_plans(&settings, &plans);
    }
    free_plans(&plans);
    return status;
}
