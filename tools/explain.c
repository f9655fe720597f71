/* zerocta explain: which path a call would take, and why not the others. Asks the selector, which
 * is what a real call asks too; runs nothing. */
#include <stdio.h>

#include "api/objects.h"
#include "collective.h"
#include "commands.h"
#include "option_rows.h"
#include "options.h"
#include "rendezvous/rendezvous.h"
#include "select/select.h"

struct settings {
    uint64_t rank_count, bytes;
    uint64_t policy, engine, device; /* indexes into the choices */
    bool in_place;
};

static const struct zc_option options[] = {
    ZC_ROW_RANKS(offsetof(struct settings, rank_count), "how many ranks take part; 8 if not given",
                 1, ZC_MAX_RANKS),
    ZC_ROW_SIZE("bytes", 0, offsetof(struct settings, bytes),
                "the whole output, all ranks' shares together; 1M if not given", 1),
    ZC_ROW_IN_PLACE(offsetof(struct settings, in_place)),
    ZC_ROW_POLICY(offsetof(struct settings, policy)),
    ZC_ROW_ENGINE(offsetof(struct settings, engine), "who may perform the call"),
    ZC_ROW_DEVICE(offsetof(struct settings, device), "where the memory is"),
};

static const struct zc_command_line line = {
    .command = "explain",
    .synopsis = "all_gather [OPTIONS]",
    .purpose = "Says which path a call would take here, and for each path that is not chosen the "
               "reason. Runs nothing.",
    .options = options,
    .option_count = sizeof options / sizeof options[0],
    .operands_min = 1,
    .operands_max = 1,
    .operand_name = "a collective",
    .exit_status = "0 if a path can run, 1 if none can",
};

static void print_report(const zcta_report *report)
{
    enum { REASON_COLUMN = 35 };

    printf("  %-16s %-10s %-3s  %s\n", "path", "", "SMs", "reason");
    for (uint32_t i = 0; i < report->path_count; i++) {
        const struct zcta_report_path *path = &report->paths[i];
        const char *verdict = "not chosen";

        if (i == report->chosen)
            verdict = "chosen";
        else if (!path->possible)
            verdict = "cannot run";
        printf("  %-16s %-10s %-3s  ", path->path, verdict, path->sms ? "yes" : "0");
        zc_print_wrapped(path->reason, zc_print_width(), REASON_COLUMN, REASON_COLUMN);
    }
}

/* Asks the selector what it would be asked by a call of a team of so many ranks, each on a device
 * like this one. */
static zcta_report ask(zcta_context *context, const struct settings *settings, uint64_t share)
{
    const zcta_engine engine = (zcta_engine)settings->engine;
    const bool gpus = zcta_context_device(context) == ZCTA_DEVICE_CUDA;
    const struct zc_facts facts = {
        .collective = ZC_COLLECTIVE_ALL_GATHER,
        .caps = &context->caps,
        .nccl = gpus && engine != ZCTA_ENGINE_CE ? zc_know_nccl(context) : NULL,
        .tuned = engine == ZCTA_ENGINE_AUTO ? zc_know_tuned(context) : NULL,
        .rank_count = (uint32_t)settings->rank_count,
        .bytes = share,
        .in_place = settings->in_place,
        .policy = (zcta_policy)(settings->policy + 1),
        .engine = engine};
    zcta_report report;

    zc_select(&facts, &report);
    return report;
}

int zc_command_explain(int argc, char **argv)
{
    struct settings settings = {.rank_count = 8, .bytes = (uint64_t)1 << 20};
    zcta_context *context;
    zcta_report report;
    char call[ZC_CALL_TEXT_BYTES];
    uint64_t share;
    int first, status;

    if (!zc_options_parse(&line, argc, argv, &settings, &first, &status))
        return status;
    if (!zc_check_collective(line.command, argv[first]))
        return ZC_EXIT_USAGE;
    context = zc_open_alone(line.command, (zcta_device)settings.device, ZC_ADVISE_HOST);
    if (context == NULL)
        return ZC_EXIT_FAILED;
    share = zc_share_of(line.command, settings.bytes, (uint32_t)settings.rank_count);
    report = ask(context, &settings, share);
    printf("%s\ndevice %s, policy %s, engine %s\n\n",
           zc_call_text((uint32_t)settings.rank_count, share, settings.in_place, call),
           context->caps.name, zc_policy_choices[settings.policy],
           zc_engine_choices[settings.engine]);
    print_report(&report);
    if (report.chosen < report.path_count)
        printf("\nchoice: %s\n", report.paths[report.chosen].path);
    else
        printf("\nchoice: none, the call would fail\n");
    zcta_finalize(&context);
    return report.chosen < report.path_count ? ZC_EXIT_OK : ZC_EXIT_FAILED;
}
