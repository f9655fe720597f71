#include "plan_check.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/memory_limits.h"
#include "collective.h"
#include "commands.h"
#include "engine/predict.h"
#include "options.h"
#include "verify/verify.h"

/* ---- How far it is ---- */

#define QUIET_NS   UINT64_C(1000000000) /* what takes no longer shows nothing */
#define BETWEEN_NS UINT64_C(200000000)

struct show {
    const char *what; /* "checking the plans" */
    uint64_t next;    /* when to show again */
    bool shown;
};

static struct show begin_show(const char *what)
{
    return (struct show){.what = what, .next = zc_now_ns() + QUIET_NS};
}

static void tell(void *data, uint64_t done, uint64_t total)
{
    struct show *show = data;
    const uint64_t now = zc_now_ns();

    if (now < show->next || !isatty(STDERR_FILENO))
        return;
    show->next = now + BETWEEN_NS;
    show->shown = true;
    fprintf(stderr, "\r\033[K%s: %" PRIu64 " %%", show->what, total == 0 ? 0 : done * 100 / total);
}

static void end_show(const struct show *show)
{
    if (show->shown)
        fprintf(stderr, "\r\033[K");
}

/* ---- Whether it fits ---- */

static int complain(const char *command, zcta_status status, const char *what)
{
    return zc_failure(command, "%s: %s", what, zcta_status_text(status));
}

/* Otherwise the kernel would end this process, or another one, in the middle of it. */
static int check_room(const char *command, const char *what, uint32_t ranks, uint64_t bytes)
{
    struct zc_memory_limits limits;
    struct zc_memory_room room;

    zc_memory_limits_find(&limits, "");
    zc_memory_limits_ask(&limits, &room);
    if (bytes <= room.left)
        return ZC_EXIT_OK;
    return zc_failure(command,
                      "%s of %" PRIu32
                      " ranks takes about %.1f GiB of memory, and %.1f GiB are left "
                      "(%s); take fewer ranks, or fewer bytes where they go in blocks",
                      what, ranks, (double)bytes / 0x1p30, (double)room.left / 0x1p30, room.what);
}

static uint64_t plan_bytes(const struct zc_plan *plan)
{
    return sizeof *plan + plan->step_count * sizeof *plan->steps;
}

/* ---- Check ---- */

/* The plans of all ranks, plans[half * rank_count + rank]. The calls share them: one set, or one
 * for each half of the scratch window where these are used by turns. */
struct sets {
    struct zc_plan **plans;
    uint32_t count, ranks;
};

static void free_sets(struct sets *sets)
{
    for (size_t i = 0; sets->plans != NULL && i < (size_t)sets->count * sets->ranks; i++)
        zc_plan_destroy(sets->plans[i]);
    free(sets->plans);
}

static zcta_status make_sets(const struct zc_request *requests, struct sets *sets,
                             const struct zc_progress *progress)
{
    const size_t all = (size_t)sets->count * sets->ranks;
    zcta_status status = ZCTA_OK;

    sets->plans = calloc(all, sizeof *sets->plans);
    if (sets->plans == NULL)
        return ZCTA_ERR_NO_MEMORY;
    for (size_t i = 0; i < all && status == ZCTA_OK; i++) {
        struct zc_request request = requests[i % sets->ranks];

        request.half = (uint32_t)(i / sets->ranks);
        status = zc_plan_make(&request, &sets->plans[i]);
        progress->tell(progress->data, i, all);
    }
    return status;
}

static int verify(const char *command, const struct zc_request *request, const struct sets *sets,
                  uint32_t call_count, const struct zc_progress *progress)
{
    const struct zc_verify_options options = {.progress = progress};
    struct zc_verify_call *calls = calloc(call_count, sizeof *calls);
    char text[256] = "";
    uint64_t steps = 0;
    zcta_status status = ZCTA_ERR_NO_MEMORY;

    for (uint32_t i = 0; i < call_count && calls != NULL; i++) {
        calls[i].plans =
            (const struct zc_plan *const *)sets->plans + (size_t)(i % sets->count) * sets->ranks;
        for (uint32_t rank = 0; rank < sets->ranks; rank++)
            steps += calls[i].plans[rank]->step_count;
    }
    if (calls != NULL)
        status = zc_verify(calls, call_count, &options, text, sizeof text);
    free(calls);
    end_show(progress->data);
    if (status == ZCTA_ERR_INVALID) {
        printf("check: FAILED, %s\n", text);
        return ZC_EXIT_FAILED;
    }
    if (status != ZCTA_OK)
        return complain(command, status, "cannot check the plans");
    printf("check: OK, %" PRIu64 " steps of %" PRIu32 " %s in %" PRIu32 " calls in a row (%s)\n",
           steps, sets->ranks, sets->ranks == 1 ? "rank" : "ranks", call_count,
           request->algorithm->name);
    return ZC_EXIT_OK;
}

int zc_plan_check(const char *command, const struct zc_request *requests, uint32_t calls)
{
    const bool alternates = zc_has(requests->algorithm, ZC_ALTERNATES);
    struct sets sets = {.count = alternates && calls > 1 ? 2 : 1, .ranks = requests->layout->ranks};
    struct show show = begin_show("checking the plans");
    const struct zc_progress progress = {.tell = tell, .data = &show};
    struct zc_plan *first = NULL;
    zcta_status status = zc_plan_make(requests, &first);
    int exit_status;

    if (status != ZCTA_OK)
        return complain(command, status, "cannot make the plans");
    exit_status = check_room(command, "checking the plans", sets.ranks,
                             (uint64_t)sets.count * sets.ranks * plan_bytes(first) +
                                 zc_verify_bytes(first, calls));
    zc_plan_destroy(first);
    if (exit_status != ZC_EXIT_OK)
        return exit_status;
    status = make_sets(requests, &sets, &progress);
    if (status == ZCTA_OK)
        exit_status = verify(command, requests, &sets, calls, &progress);
    else
        exit_status = complain(command, status, "cannot make the plans");
    free_sets(&sets);
    return exit_status;
}

/* ---- Simulation ---- */

/* "broadcast: 8 ranks, shares of up to 131072 bytes, out of place" */
static const char *call_text(const struct zc_request *request, char text[ZC_CALL_TEXT_BYTES])
{
    const struct zc_layout *layout = request->layout;

    snprintf(text, ZC_CALL_TEXT_BYTES,
             "%s: %" PRIu32 " %s, shares of %s%" PRIu64 " bytes, %s place",
             layout->collective->name, layout->ranks, layout->ranks == 1 ? "rank" : "ranks",
             (layout->collective->traits & ZC_UNEVEN) != 0 ? "up to " : "", layout->share,
             request->in_place ? "in" : "out of");
    return text;
}

/* The most that a rank has to get out to others, or gets from them; what it gives to all alike has
 * to go out once. */
static uint64_t most_carried(const struct zc_request *requests)
{
    const uint32_t ranks = requests->layout->ranks;
    const bool alike = (requests->layout->collective->traits & ZC_SAME_FOR_ALL) != 0;
    uint64_t most = 0;

    for (uint32_t rank = 0; rank < ranks; rank++) {
        const struct zc_layout *layout = requests[rank].layout;
        uint64_t out = 0, in = 0;

        for (uint32_t peer = 0; peer < ranks; peer++) {
            if (peer != rank && (out == 0 || !alike))
                out += zc_flow_between(layout, rank, peer).bytes;
            in += peer == rank ? 0 : zc_flow_between(layout, peer, rank).bytes;
        }
        most = out > most ? out : most;
        most = in > most ? in : most;
    }
    return most;
}

static void print_prediction(const struct zc_request *requests,
                             const struct zc_prediction *prediction)
{
    const struct zc_layout *layout = requests->layout;
    const uint64_t size = layout->output > layout->input ? layout->output : layout->input;
    const double time = prediction->time_ns > 0 ? (double)prediction->time_ns : 1;
    char call[ZC_CALL_TEXT_BYTES];

    printf("simulated %s, %s\n"
           "  cost model  %12s\n"
           "  time        %12.1f µs\n"
           "  algbw       %12.1f GB/s\n"
           "  busbw       %12.1f GB/s\n"
           "  steps       %12" PRIu64 "\n",
           call_text(requests, call), requests->algorithm->name, zc_sim_cost_h200.name,
           (double)prediction->time_ns / 1e3, (double)size / time,
           (double)most_carried(requests) / time, prediction->steps);
}

int zc_plan_simulate(const char *command, const struct zc_request *requests)
{
    struct show show = begin_show("simulating");
    const struct zc_progress progress = {.tell = tell, .data = &show};
    struct zc_prediction prediction;
    struct zc_plan *first = NULL;
    zcta_status status = zc_plan_make(requests, &first);
    int exit_status;

    if (status != ZCTA_OK)
        return complain(command, status, "cannot make the plans");
    exit_status = check_room(command, "simulating the plans", requests->layout->ranks,
                             zc_predict_bytes(first));
    zc_plan_destroy(first);
    if (exit_status != ZC_EXIT_OK)
        return exit_status;
    status = zc_predict(requests, &zc_sim_cost_h200, &progress, &prediction);
    end_show(&show);
    if (status != ZCTA_OK)
        return complain(command, status, "cannot simulate the plans");
    print_prediction(requests, &prediction);
    return ZC_EXIT_OK;
}
