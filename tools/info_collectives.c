/* The collectives' part of `zerocta info`: what each moves, and which paths it has here. All of it
 * is asked of the library: the flows say what moves, the selector which path can run. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "alone.h"
#include "api/call_layout.h"
#include "api/objects.h"
#include "choices.h"
#include "collective.h"
#include "commands.h"
#include "info.h"
#include "options.h"

/* The calls that are asked about. */
enum { RANKS = 8, BYTES = 1024 };

enum { POLICIES = 3, PLACES = 2 };

/* ---- What moves ---- */

/* Who sends, and to whom, in a team of three whose root is rank 0. */
struct movement {
    uint32_t senders, receivers; /* ranks */
    bool alike;                  /* a rank sends the same bytes to all */
    uint32_t in_place;           /* ranks that can be */
};

static void add_rank(const struct zc_shape *shape, uint32_t rank, struct movement *movement)
{
    struct zc_layout *layout = NULL;
    struct zc_sized sized;
    bool sends = false, receives = false;

    if (zc_sized_call(shape, 3 * BYTES, 3, rank, &sized) &&
        zc_call_layout(&sized.call, 3, rank, &layout) == ZCTA_OK) {
        const struct zc_flow own = zc_flow_between(layout, rank, rank);
        const uintptr_t recv = (uintptr_t)1 << 40;

        for (uint32_t peer = 0; peer < 3; peer++) {
            const struct zc_flow out = zc_flow_between(layout, rank, peer);

            sends |= out.bytes > 0;
            receives |= zc_flow_between(layout, peer, rank).bytes > 0;
            movement->alike &= out.from_at == 0;
        }
        movement->in_place +=
            own.bytes > 0 &&
            zc_layout_placing(layout, rank, recv + own.to_at - own.from_at, recv) == ZC_IN_PLACE;
    }
    movement->senders += sends;
    movement->receivers += receives;
    zc_call_layout_free(layout);
    zc_sized_free(&sized);
}

static struct movement find_movement(const struct zc_shape *shape)
{
    struct movement movement = {.alike = true};

    for (uint32_t rank = 0; rank < 3; rank++)
        add_rank(shape, rank, &movement);
    return movement;
}

static const char *movement_text(const struct zc_shape *shape, const struct movement *movement)
{
    if (zc_shape_has(shape, ZCTA_COLLECTIVE_NO_DATA))
        return "nothing moves: nobody passes before all have come";
    if (zc_shape_has(shape, ZCTA_COLLECTIVE_PARTNERS))
        return "each rank's bytes to the rank that it names";
    if (movement->receivers == 1)
        return "every rank's share to the root";
    if (movement->senders == 1)
        return movement->alike ? "the root's share to every rank"
                               : "the root's shares, one to each rank";
    return movement->alike ? "every rank's share to every rank"
                           : "every rank's shares, one to each rank";
}

static void print_movement(const struct zc_shape *shape)
{
    const struct movement movement = find_movement(shape);
    const bool uneven = zc_shape_has(shape, ZCTA_COLLECTIVE_UNEVEN);
    const char *in_place = movement.in_place == 0   ? "never in place"
                           : movement.in_place == 1 ? "in place at the root"
                                                    : "in place on all ranks, or on none";

    char text[160];

    snprintf(text, sizeof text, "%s%s%s%s", movement_text(shape, &movement),
             uneven ? ", each of a size of its own" : "",
             zc_shape_has(shape, ZCTA_COLLECTIVE_NO_DATA) ? "" : "; ",
             zc_shape_has(shape, ZCTA_COLLECTIVE_NO_DATA) ? "" : in_place);
    printf("%-14s ", shape->info.name);
    zc_print_wrapped(text, zc_print_width(), 15, 15);
}

/* ---- Which paths ---- */

/* The selector's answers: [place][policy], out of place first. */
struct answers {
    zcta_report reports[PLACES][POLICIES];
};

static bool ask(zcta_context *context, const struct zc_shape *shape, struct answers *answers)
{
    struct zc_layout *layout = NULL;
    struct zc_sized sized;
    bool asked = false;

    if (zc_sized_call(shape, BYTES, RANKS, 0, &sized) &&
        zc_call_layout(&sized.call, RANKS, 0, &layout) == ZCTA_OK) {
        for (int place = 0; place < PLACES; place++) {
            struct zc_facts facts = zc_alone_facts(context, layout, place == 1, ZCTA_ENGINE_AUTO);

            for (int policy = 0; policy < POLICIES; policy++) {
                facts.policy = (zcta_policy)(policy + 1);
                zc_select(&facts, &answers->reports[place][policy]);
            }
        }
        asked = true;
    }
    zc_call_layout_free(layout);
    zc_sized_free(&sized);
    return asked;
}

static const char *cell(const struct answers *answers, int place, int policy, uint32_t path)
{
    const struct zcta_report_path *at = &answers->reports[place][policy].paths[path];

    return !at->possible ? "-" : at->sms ? "SMs" : "0 SMs";
}

static void print_row(const struct answers *answers, int place, const char *name, uint32_t path)
{
    printf("  %-20s %-6s", answers->reports[place][0].paths[path].path, name);
    for (int policy = 0; policy < POLICIES; policy++)
        printf(" %-*s", policy + 1 < POLICIES ? 10 : 0, cell(answers, place, policy, path));
    printf("\n");
}

/* One row, or two where it makes a difference whether the call is in place. */
static void print_path(const struct answers *answers, uint32_t path)
{
    bool differs = false;

    for (int policy = 0; policy < POLICIES; policy++)
        differs |= strcmp(cell(answers, 0, policy, path), cell(answers, 1, policy, path)) != 0;
    if (!differs) {
        print_row(answers, 0, "", path);
        return;
    }
    print_row(answers, 0, "out", path);
    print_row(answers, 1, "in", path);
}

static int print_all(zcta_context *context)
{
    printf("\ndevice %s: %d ranks, %d bytes; a path can run and needs SMs, or none (0 SMs), or "
           "cannot run (-).\n`zerocta explain COLLECTIVE` says why, and which is chosen.\n",
           context->caps.name, RANKS, BYTES);
    for (int i = 0; i < ZC_COLLECTIVE_COUNT; i++) {
        const struct zc_shape shape = zc_shape_of(zc_all_collectives[i]);
        struct answers answers;

        if (!ask(context, &shape, &answers))
            return zc_failure("info", "out of memory");
        printf("\n");
        print_movement(&shape);
        printf("  %-20s %-6s %-10s %-10s %s\n", "path", "place", zc_policy_choices[0],
               zc_policy_choices[1], zc_policy_choices[2]);
        for (uint32_t path = 0; path < answers.reports[0][0].path_count; path++)
            print_path(&answers, path);
    }
    return ZC_EXIT_OK;
}

static int print_device(zcta_device device)
{
    zcta_error error = {0};
    const zcta_init_params params = {
        .size = sizeof params, .rank_count = 1, .device = device, .error = &error};
    zcta_context *context = NULL;
    int status;

    if (zcta_init(&params, &context) != ZCTA_OK) {
        printf("\ndevice %s: no: %s\n", zc_device_choices[device], error.message);
        return device == ZCTA_DEVICE_HOST ? ZC_EXIT_FAILED : ZC_EXIT_OK;
    }
    status = print_all(context);
    zcta_finalize(&context);
    return status;
}

int zc_info_print_collectives(void)
{
    const int status = print_device(ZCTA_DEVICE_HOST);

    return status == ZC_EXIT_OK ? print_device(ZCTA_DEVICE_CUDA) : status;
}
