/* zerocta explain: which path a call would take, and why not the others. Asks the selector, which
 * is what a real call asks too; runs nothing. */
#include <stdio.h>

#include "collective.h"
#include "commands.h"
#include "options.h"
#include "rendezvous/rendezvous.h"
#include "select/select.h"

struct settings {
    uint64_t rank_count, bytes;
    uint64_t policy, engine, device; /* indexes into the choices */
    bool in_place;
};

static const struct zc_option options[] = {
    {.name = "ranks",
     .letter = 'n',
     .argument = "RANKS",
     .help = "how many ranks take part; 8 if not given",
     .kind = ZC_OPTION_NUMBER,
     .offset = offsetof(struct settings, rank_count),
     .min = 1,
     .max = ZC_MAX_RANKS},
    {.name = "bytes",
     .argument = "SIZE",
     .help = "the whole output, all ranks' shares together; 1M if not given",
     .kind = ZC_OPTION_SIZE,
     .offset = offsetof(struct settings, bytes),
     .min = 1,
     .max = ZC_OUTPUT_BYTES_MAX},
    {.name = "in-place",
     .help = "each rank's share lies in its output already",
     .kind = ZC_OPTION_FLAG,
     .offset = offsetof(struct settings, in_place)},
    {.name = "policy",
     .argument = "POLICY",
     .help = "the CTA policy of the call",
     .kind = ZC_OPTION_CHOICE,
     .offset = offsetof(struct settings, policy),
     .choices = zc_policy_choices},
    {.name = "engine",
     .argument = "ENGINE",
     .help = "who may perform the call",
     .kind = ZC_OPTION_CHOICE,
     .offset = offsetof(struct settings, engine),
     .choices = zc_engine_choices},
    {.name = "device",
     .argument = "DEVICE",
     .help = "where the memory is",
     .kind = ZC_OPTION_CHOICE,
     .offset = offsetof(struct settings, device),
     .choices = zc_device_choices},
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
    .notes = "Exit status: 0 if a path can run, 1 if none can, 2 for a wrong option or value.",
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
        zc_print_wrapped(path->reason, REASON_COLUMN, REASON_COLUMN);
    }
}

int zc_command_explain(int argc, char **argv)
{
    struct settings settings = {.rank_count = 8, .bytes = (uint64_t)1 << 20};
    struct zc_device_caps caps;
    struct zc_facts facts;
    zcta_report report;
    char call[ZC_CALL_TEXT_BYTES];
    int first, status;

    if (!zc_options_parse(&line, argc, argv, &settings, &first, &status))
        return status;
    if (!zc_check_collective(line.command, argv[first]))
        return ZC_EXIT_USAGE;
    if (!zc_device_caps_of(line.command, (zcta_device)settings.device,
                           (uint32_t)settings.rank_count, &caps))
        return ZC_EXIT_FAILED;
    facts = (struct zc_facts){.collective = ZC_COLLECTIVE_ALL_GATHER,
                              .caps = &caps,
                              .rank_count = (uint32_t)settings.rank_count,
                              .in_place = settings.in_place,
                              .policy = (zcta_policy)(settings.policy + 1),
                              .engine = (zcta_engine)settings.engine};
    facts.bytes = zc_share_of(line.command, settings.bytes, facts.rank_count);
    zc_select(&facts, &report);

    printf("%s\ndevice %s, policy %s, engine %s\n\n",
           zc_call_text(facts.rank_count, facts.bytes, facts.in_place, call), caps.name,
           zc_policy_choices[settings.policy], zc_engine_choices[settings.engine]);
    print_report(&report);
    if (report.chosen < report.path_count)
        printf("\nchoice: %s\n", report.paths[report.chosen].path);
    else
        printf("\nchoice: none, the call would fail\n");
    return report.chosen < report.path_count ? ZC_EXIT_OK : ZC_EXIT_FAILED;
}
