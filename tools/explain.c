/* zerocta explain: which path a call would take, and why not the others. Asks the selector, which
 * is what a real call asks too; runs nothing. */
#include <stdio.h>

#include "alone.h"
#include "api/call_layout.h"
#include "api/objects.h"
#include "collective.h"
#include "commands.h"
#include "option_rows.h"
#include "options.h"
#include "select/select.h"

struct settings {
    struct zc_shape shape;
    struct zc_shape_options given;
    uint64_t rank_count, bytes;
    uint64_t policy, engine, device; /* indexes into the choices */
    bool in_place;
};

static const struct zc_option options[] = {
    ZC_ROW_RANKS(offsetof(struct settings, rank_count), "how many ranks take part; 8 if not given",
                 1, ZC_MAX_RANKS),
    ZC_ROW_SIZE("bytes", 0, offsetof(struct settings, bytes), "the call's size; 1M if not given",
                1),
    ZC_ROW_ROOT(offsetof(struct settings, given.root)),
    ZC_ROW_COUNTS(offsetof(struct settings, given.counts)),
    ZC_ROW_IN_PLACE(offsetof(struct settings, in_place)),
    ZC_ROW_POLICY(offsetof(struct settings, policy)),
    ZC_ROW_ENGINE(offsetof(struct settings, engine), "who may perform the call"),
    ZC_ROW_DEVICE(offsetof(struct settings, device), "where the memory is"),
};

static const struct zc_command_line line = {
    .command = "explain",
    .synopsis = "COLLECTIVE [OPTIONS]",
    .purpose = "Says which path a call would take here, and for each path that is not chosen the "
               "reason. Runs nothing.",
    .options = options,
    .option_count = sizeof options / sizeof options[0],
    .operands_min = 1,
    .operands_max = 1,
    .operand_name = "a collective",
    .operand_words = ZC_COLLECTIVE_WORDS,
    .notes = ZC_NOTE_COLLECTIVES ZC_NOTE_SIZE,
    .exit_status = "0 if a path can run, 1 if none can",
};

static void print_report(const zcta_report *report)
{
    enum { REASON_COLUMN = 39 };

    printf("  %-20s %-10s %-3s  %s\n", "path", "", "SMs", "reason");
    for (uint32_t i = 0; i < report->path_count; i++) {
        const struct zcta_report_path *path = &report->paths[i];
        const char *word = "not chosen";

        if (i == report->chosen)
            word = "chosen";
        else if (!path->possible)
            word = "cannot run";
        printf("  %-20s %-10s %-3s  ", path->path, word, path->sms ? "yes" : "0");
        zc_print_wrapped(path->reason, zc_print_width(), REASON_COLUMN, REASON_COLUMN);
    }
}

/* Asks the selector what it would be asked by a call of a team of so many ranks, each on a device
 * like this one. */
static zcta_report ask(zcta_context *context, const struct settings *settings,
                       const struct zc_layout *layout)
{
    struct zc_facts facts =
        zc_alone_facts(context, layout, settings->in_place, (zcta_engine)settings->engine);
    zcta_report report;

    facts.policy = (zcta_policy)(settings->policy + 1);
    if (facts.engine == ZCTA_ENGINE_AUTO)
        facts.tuned = zc_load_tuned(context);
    zc_select(&facts, &report);
    return report;
}

/* NULL after it was said why there is none. */
static struct zc_layout *make_layout(const struct settings *settings)
{
    struct zc_layout *layout = NULL;
    zcta_error error = {0};
    struct zc_sized sized;

    if (!zc_sized_call(&settings->shape, settings->bytes, (uint32_t)settings->rank_count, 0,
                       &sized)) {
        zc_failure(line.command, "out of memory");
    } else if (zc_call_layout(&sized.call, sized.ranks, 0, &layout) != ZCTA_OK) {
        zcta_last_error(NULL, &error);
        zc_failure(line.command, "%s", error.message);
    }
    zc_sized_free(&sized);
    return layout;
}

static void print_choice(const struct settings *settings, const struct zc_layout *layout,
                         const char *device, const zcta_report *report)
{
    const uint64_t bytes = layout->input > layout->output ? layout->input : layout->output;
    char call[ZC_CALL_TEXT_BYTES];

    if (!zc_shape_has(&settings->shape, ZCTA_COLLECTIVE_NO_DATA))
        zc_note_rounding(line.command, settings->bytes, bytes);
    printf("%s\ndevice %s, policy %s, engine %s\n\n",
           zc_call_text(&settings->shape, layout->ranks, layout->share, bytes, settings->in_place,
                        call),
           device, zc_policy_choices[settings->policy], zc_engine_choices[settings->engine]);
    print_report(report);
    if (report->chosen < report->path_count)
        printf("\nchoice: %s\n", report->paths[report->chosen].path);
    else
        printf("\nchoice: none, the call would fail\n");
}

static int explain(zcta_context *context, const struct settings *settings)
{
    struct zc_layout *layout = make_layout(settings);
    zcta_report report;

    if (layout == NULL)
        return ZC_EXIT_FAILED;
    report = ask(context, settings, layout);
    print_choice(settings, layout, context->caps.name, &report);
    zc_call_layout_free(layout);
    return report.chosen < report.path_count ? ZC_EXIT_OK : ZC_EXIT_FAILED;
}

int zc_command_explain(int argc, char **argv)
{
    struct settings settings = {
        .given = {.root = ZC_NOT_GIVEN}, .rank_count = 8, .bytes = (uint64_t)1 << 20};
    zcta_context *context;
    int first, status;

    if (!zc_options_parse(&line, argc, argv, &settings, &first, &status))
        return status;
    if (!zc_shape_read(line.command, argv[first], &settings.given, &settings.shape) ||
        !zc_shape_fits(line.command, &settings.shape, settings.rank_count) ||
        (settings.in_place && !zc_check_in_place(line.command, &settings.shape)))
        return ZC_EXIT_USAGE;
    context = zc_open_alone(line.command, (zcta_device)settings.device, ZC_ADVISE_HOST);
    if (context == NULL)
        return ZC_EXIT_FAILED;
    status = explain(context, &settings);
    zcta_finalize(&context);
    return status;
}
