/* From what a call asks for to what runs: its buffers are checked and found, a path is chosen, and
 * the path's engine prepares it. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "api/objects.h"

/* ---- Buffers ---- */

/* A call's buffers, found in the address map. */
struct buffers {
    zcta_window *recv_window, *send_window;
    uint64_t recv_offset;
    bool in_place;
};

static bool has(const struct zc_layout *layout, enum zc_collective_trait trait)
{
    return (layout->collective->traits & (unsigned)trait) != 0;
}

static zcta_status fail_call(zcta_team *team, const struct zc_asked *asked, zcta_status status,
                             const char *why)
{
    return zc_fail(team->group.diag, status, asked->call, 0, "%s", why);
}

static zcta_status check_sizes(zcta_team *team, const struct zc_asked *asked,
                               const struct zc_layout *layout)
{
    const uint64_t input = zc_layout_send_bytes(layout, team->group.self);

    if (asked->recv == NULL && layout->output > 0)
        return fail_call(team, asked, ZCTA_ERR_INVALID,
                         "recv is NULL; it names the same offset of its window on every rank, also "
                         "where nothing arrives");
    if (asked->send == NULL && input > 0)
        return fail_call(team, asked, ZCTA_ERR_INVALID, "send is NULL");
    if (asked->send == NULL && has(layout, ZC_REPLICATES))
        return fail_call(team, asked, ZCTA_ERR_INVALID,
                         "send is NULL; all ranks are in place or none is, and one with nothing to "
                         "give says so by send all the same");
    if (layout->output > UINTPTR_MAX - (uintptr_t)asked->recv ||
        input > UINTPTR_MAX - (uintptr_t)asked->send)
        return fail_call(team, asked, ZCTA_ERR_INVALID,
                         "a buffer of that size wraps around the address space");
    return ZCTA_OK;
}

static zcta_status check_place(zcta_team *team, const struct zc_asked *asked,
                               const struct zc_layout *layout, struct buffers *buffers)
{
    const enum zc_placing placing =
        zc_layout_placing(layout, team->group.self, (uintptr_t)asked->send, (uintptr_t)asked->recv);

    buffers->in_place = placing == ZC_IN_PLACE;
    if (placing == ZC_OVERLAPPING)
        return zc_fail(
            team->group.diag, ZCTA_ERR_INVALID, asked->call, 0,
            "send and recv overlap, but not so that %s is in place: there the share that "
            "a rank keeps lies in send where it goes in recv, and nothing else of the "
            "two overlaps",
            layout->collective->name);
    return ZCTA_OK;
}

static zcta_status check_window(zcta_team *team, const struct zc_asked *asked, const char *name,
                                const void *address, uint64_t bytes, enum zc_found found,
                                const zcta_window *window)
{
    if (found == ZC_PAST_END)
        return zc_fail(team->group.diag, ZCTA_ERR_NOT_IN_WINDOW, asked->call, 0,
                       "%s, %p and %" PRIu64
                       " bytes, reaches past the end of window %p (%zu bytes)",
                       name, address, bytes, zcta_window_base(window), zcta_window_bytes(window));
    if (found == ZC_NOT_FOUND)
        return zc_fail(team->group.diag, ZCTA_ERR_NOT_IN_WINDOW, asked->call, 0,
                       "%s, %p and %" PRIu64 " bytes, lies in no window; allocate it with "
                       "zcta_window_alloc() on a team that has these ranks",
                       name, address, bytes);
    return ZCTA_OK;
}

static zcta_status find_buffers(zcta_team *team, const struct zc_asked *asked,
                                const struct zc_layout *layout, struct buffers *buffers)
{
    struct zc_address_map *map = &team->context->map;
    const uint64_t input = zc_layout_send_bytes(layout, team->group.self);
    enum zc_found found;
    zcta_window *window = NULL;
    uint64_t offset = 0;
    zcta_status status;

    found = zc_map_find(map, asked->recv, layout->output, &window, &offset);
    status = check_window(team, asked, "recv", asked->recv, layout->output, found, window);
    if (status != ZCTA_OK)
        return status;
    buffers->recv_window = window;
    buffers->recv_offset = offset;
    if (input == 0)
        return ZCTA_OK;
    /* `send` may be any memory, but not run out of a window that it begins in. */
    found = zc_map_find(map, asked->send, input, &window, &offset);
    if (found == ZC_NOT_FOUND)
        return ZCTA_OK;
    buffers->send_window = window;
    return check_window(team, asked, "send", asked->send, input, found, window);
}

/* Every rank's output as mapped here: by world rank, because the window's team may be larger. */
static zcta_status locate_outputs(zcta_team *team, const struct zc_asked *asked,
                                  const struct buffers *buffers, void **outputs)
{
    const zcta_team *owner = buffers->recv_window->team;

    for (uint32_t i = 0; i < team->group.count; i++) {
        uint32_t at = 0;

        while (at < owner->group.count && owner->ranks[at] != team->ranks[i])
            at++;
        if (at == owner->group.count)
            return zc_fail_rank(team->group.diag, ZCTA_ERR_NOT_IN_WINDOW, team->ranks[i],
                                asked->call, 0,
                                "rank %" PRIu32 " has no part in the window of recv, which belongs "
                                "to team %s; allocate it on a team that has all these ranks",
                                team->ranks[i], zc_team_title(owner));
        if (zc_group_reaches(&team->group, i))
            outputs[i] = (char *)zcta_window_peer(buffers->recv_window, at) + buffers->recv_offset;
    }
    return ZCTA_OK;
}

/* Memory for `outputs` is the caller's: one address a rank. */
static zcta_status check_buffers(zcta_team *team, const struct zc_asked *asked,
                                 const struct zc_layout *layout, struct buffers *buffers,
                                 void **outputs)
{
    zcta_status status;

    /* Where ranks know their own flows only, those that have none name the same place as the others
     * all the same. */
    if (layout->output == 0 && (!has(layout, ZC_PARTNERS) || asked->recv == NULL))
        return ZCTA_OK;
    status = check_sizes(team, asked, layout);
    if (status == ZCTA_OK)
        status = check_place(team, asked, layout, buffers);
    if (status == ZCTA_OK)
        status = find_buffers(team, asked, layout, buffers);
    if (status == ZCTA_OK)
        status = locate_outputs(team, asked, buffers, outputs);
    return status;
}

/* ---- Choice ---- */

/* What the ranks have compared; for a call that asks for NCCL before that, what this rank has. */
static const struct zc_nccl_facts *nccl_facts_of(const zcta_team *team,
                                                 const struct zc_asked *asked)
{
    if (team->nccl_facts != NULL || asked->engine != ZCTA_ENGINE_NCCL ||
        team->context->caps.gpu_id == 0)
        return team->nccl_facts;
    return zc_load_nccl(team->context);
}

struct zc_facts zc_facts_of(const zcta_team *team, const struct zc_asked *asked,
                            const struct zc_layout *layout, bool in_place,
                            const zcta_window *window)
{
    return (struct zc_facts){
        .layout = layout,
        .caps = &team->context->caps,
        .nccl = nccl_facts_of(team, asked),
        .tuned = team->tuned,
        .in_place = in_place && has(layout, ZC_REPLICATES),
        .unlike_window = window != NULL && !window->memory->same_layout,
        .shared_gpu = team->shared_gpu,
        .apart = team->group.apart,
        .several_hosts = zc_group_has_hosts(&team->group),
        .node_ranks = team->node_ranks == ZC_UNEVEN_NODES ? 0 : team->node_ranks,
        .uneven_nodes = team->node_ranks == ZC_UNEVEN_NODES,
        .rail_shared = team->rail_shared,
        .policy = asked->policy == ZCTA_POLICY_UNSET ? team->policy : asked->policy,
        .engine = zc_engine_asked(team, asked)};
}

static zcta_status fail_choice(zcta_team *team, const struct zc_asked *asked,
                               const struct zc_facts *facts, const zcta_report *report,
                               enum zc_path telling)
{
    /* Policy DEFAULT forbids nothing. */
    const bool unsupported =
        facts->policy == ZCTA_POLICY_DEFAULT ||
        (facts->engine == ZCTA_ENGINE_NCCL && (facts->caps->gpu_id == 0 || facts->nccl == NULL ||
                                               facts->nccl->version == 0 || facts->shared_gpu));
    char path[sizeof report->paths[0].path];
    uint32_t at = 0;

    snprintf(path, sizeof path, "%s/%s", zc_path_engine(telling), zc_path_name(telling));
    while (at + 1 < report->path_count && strcmp(report->paths[at].path, path) != 0)
        at++;
    return zc_fail(team->group.diag, unsupported ? ZCTA_ERR_UNSUPPORTED : ZCTA_ERR_POLICY,
                   asked->call, 0, "no path can run: %s", report->paths[at].reason);
}

/* The engine of the path that was chosen, and what our plans need of NCCL's between nodes. */
static zcta_status take_engine(zcta_team *team, struct zc_resolved *resolved, struct zc_call *call)
{
    const bool nccl = zc_path_is_nccl(resolved->path);
    struct zc_engine *engine = NULL;
    zcta_status status = ZCTA_OK;

    resolved->crosses = !nccl && team->node_ranks != 0;
    if (nccl || resolved->crosses)
        status = zc_team_nccl(team, &engine);
    if (resolved->crosses) {
        call->enqueue = zc_nccl_transfer;
        call->enqueue_data = engine;
    }
    resolved->ops = nccl ? &zc_engine_nccl : &zc_engine_ce;
    resolved->engine = nccl ? engine : team->ce;
    return status;
}

static zcta_status choose_and_prepare(zcta_team *team, const struct buffers *buffers,
                                      void *const *outputs, bool releasable,
                                      struct zc_resolved *resolved)
{
    const struct zc_facts facts = zc_facts_of(team, &resolved->asked, resolved->layout,
                                              buffers->in_place, buffers->recv_window);
    struct zc_call call = {.send = resolved->asked.send,
                           .recv = outputs,
                           .window = {.base = zcta_window_base(buffers->recv_window),
                                      .bytes = zcta_window_bytes(buffers->recv_window),
                                      .same_layout = !facts.unlike_window},
                           .releasable = releasable,
                           .strict = facts.policy == ZCTA_POLICY_ZERO};
    zcta_report report;
    const struct zc_choice choice = zc_select(&facts, &report);
    zcta_status status;

    if (!choice.found)
        return fail_choice(team, &resolved->asked, &facts, &report, choice.path);
    resolved->path = choice.path;
    resolved->sms = report.paths[report.chosen].sms != 0;
    resolved->fallback = resolved->sms && facts.policy == ZCTA_POLICY_EFFICIENCY;
    call.no_sm = choice.path == ZC_PATH_NCCL_NO_SM;
    call.symmetric = facts.nccl != NULL && facts.nccl->symmetric && !facts.apart;
    call.request = zc_select_request(&facts, choice.path, team->group.self, buffers->in_place);
    resolved->captured_path =
        zc_path_is_nccl(choice.path)
            ? choice.path
            : (enum zc_path)zc_algorithm_number(zc_request_captured(&call.request).algorithm);
    call.numbers = zc_numbers_of(resolved);
    status = take_engine(team, resolved, &call);
    return status == ZCTA_OK ? resolved->ops->prepare(resolved->engine, &call, &resolved->prepared)
                             : status;
}

/* ---- The whole ---- */

/* The layout with all that follows from it. The arrays stay those of *asked. */
static zcta_status derive(zcta_team *team, const struct zc_asked *asked, struct zc_layout **layout)
{
    struct zc_layout *made = malloc(sizeof *made);
    const char *defect;

    if (made == NULL)
        return fail_call(team, asked, ZCTA_ERR_NO_MEMORY, "out of memory");
    *made = asked->layout;
    defect = zc_layout_derive(made);
    if (defect != NULL) {
        free(made);
        return fail_call(team, asked, ZCTA_ERR_INVALID, defect);
    }
    *layout = made;
    return ZCTA_OK;
}

zcta_status zc_resolve(zcta_team *team, struct zc_asked *asked, bool releasable,
                       struct zc_resolved *resolved)
{
    struct zc_resolved made = {.asked = *asked};
    struct buffers buffers = {0};
    void **outputs = calloc(team->group.count, sizeof *outputs);
    zcta_status status = ZCTA_OK;

    /* Pairs with zc_map_remove(): read first, so that a window that goes meanwhile makes it stale.
     */
    made.generation = atomic_load_explicit(&team->context->map.generation, memory_order_acquire);
    if (outputs == NULL)
        status = fail_call(team, asked, ZCTA_ERR_NO_MEMORY, "out of memory");
    if (status == ZCTA_OK)
        status = derive(team, asked, &made.layout);
    if (status == ZCTA_OK && made.layout != NULL)
        status = check_buffers(team, asked, made.layout, &buffers, outputs);
    if (status != ZCTA_OK || made.layout == NULL)
        goto fail;
    made.recv_window = buffers.recv_window;
    made.send_window = buffers.send_window;
    made.offset = buffers.recv_offset;
    made.in_place = buffers.in_place;
    made.received = zc_layout_received(made.layout, team->group.self);
    if (!zc_layout_is_empty(made.layout))
        status = choose_and_prepare(team, &buffers, outputs, releasable, &made);
    if (status != ZCTA_OK)
        goto fail;
    free(outputs);
    asked->arrays = NULL;
    *resolved = made;
    return ZCTA_OK;
fail:
    free(outputs);
    free(made.layout);
    return status;
}

void zc_resolved_free(struct zc_resolved *resolved)
{
    if (resolved->ops != NULL)
        resolved->ops->release(resolved->engine, resolved->prepared);
    free(resolved->layout);
    zc_asked_free(&resolved->asked);
    memset(resolved, 0, sizeof *resolved);
}

zcta_status zc_explain(zcta_team *team, const struct zc_asked *asked, zcta_report *report)
{
    struct buffers buffers = {0};
    struct zc_layout *layout = NULL;
    void **outputs = calloc(team->group.count, sizeof *outputs);
    zcta_status status = ZCTA_OK;

    if (outputs == NULL)
        status = fail_call(team, asked, ZCTA_ERR_NO_MEMORY, "out of memory");
    if (status == ZCTA_OK)
        status = derive(team, asked, &layout);
    if (status == ZCTA_OK && layout != NULL)
        status = check_buffers(team, asked, layout, &buffers, outputs);
    if (status == ZCTA_OK && layout != NULL) {
        const struct zc_facts facts =
            zc_facts_of(team, asked, layout, buffers.in_place, buffers.recv_window);

        zc_select(&facts, report);
    }
    free(layout);
    free(outputs);
    return status;
}
