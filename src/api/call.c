/* From a call's arguments to a run: checks, choice, addresses, evidence. */
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

static zcta_status fail_call(zcta_team *team, const struct zc_call_key *key, zcta_status status,
                             const char *why)
{
    return zc_fail(team->group.diag, status, key->call, 0, "%s", why);
}

static zcta_status check_sizes(zcta_team *team, const struct zc_call_key *key)
{
    const uint64_t limit = (uint64_t)INT64_MAX / team->group.count;

    if (key->bytes > limit)
        return zc_fail(team->group.diag, ZCTA_ERR_INVALID, key->call, 0,
                       "%zu bytes a rank, times %" PRIu32 " ranks, is more than 63 bits can count",
                       key->bytes, team->group.count);
    if (key->send == NULL || key->recv == NULL)
        return fail_call(team, key, ZCTA_ERR_INVALID, "send or recv is NULL");
    if (key->bytes * team->group.count > UINTPTR_MAX - (uintptr_t)key->recv ||
        key->bytes > UINTPTR_MAX - (uintptr_t)key->send)
        return fail_call(team, key, ZCTA_ERR_INVALID,
                         "a buffer of that size wraps around the address space");
    return ZCTA_OK;
}

static zcta_status check_place(zcta_team *team, const struct zc_call_key *key,
                               struct buffers *buffers)
{
    const uintptr_t send = (uintptr_t)key->send, recv = (uintptr_t)key->recv;
    const uint64_t total = key->bytes * team->group.count;

    buffers->in_place = zc_is_in_place(team, key);
    if (!buffers->in_place && send < recv + total && recv < send + key->bytes)
        return fail_call(team, key, ZCTA_ERR_INVALID,
                         "send and recv overlap; in place means send == recv + rank * bytes");
    return ZCTA_OK;
}

static zcta_status check_window(zcta_team *team, const struct zc_call_key *key, const char *name,
                                const void *address, uint64_t bytes, enum zc_found found,
                                const zcta_window *window)
{
    if (found == ZC_PAST_END)
        return zc_fail(team->group.diag, ZCTA_ERR_NOT_IN_WINDOW, key->call, 0,
                       "%s, %p and %" PRIu64
                       " bytes, reaches past the end of window %p (%zu bytes)",
                       name, address, bytes, zcta_window_base(window), zcta_window_bytes(window));
    if (found == ZC_NOT_FOUND)
        return zc_fail(team->group.diag, ZCTA_ERR_NOT_IN_WINDOW, key->call, 0,
                       "%s, %p and %" PRIu64 " bytes, lies in no window; allocate it with "
                       "zcta_window_alloc() on a team that has these ranks",
                       name, address, bytes);
    return ZCTA_OK;
}

static zcta_status find_buffers(zcta_team *team, const struct zc_call_key *key,
                                struct buffers *buffers)
{
    struct zc_address_map *map = &team->context->map;
    const uint64_t total = key->bytes * team->group.count;
    enum zc_found found;
    zcta_window *window = NULL;
    uint64_t offset = 0;
    zcta_status status;

    found = zc_map_find(map, key->recv, total, &window, &offset);
    status = check_window(team, key, "recv", key->recv, total, found, window);
    if (status != ZCTA_OK)
        return status;
    buffers->recv_window = window;
    buffers->recv_offset = offset;
    /* `send` may be any memory, but not run out of a window that it begins in. */
    found = zc_map_find(map, key->send, key->bytes, &window, &offset);
    if (found == ZC_NOT_FOUND)
        return ZCTA_OK;
    buffers->send_window = window;
    return check_window(team, key, "send", key->send, key->bytes, found, window);
}

/* Every rank's output as mapped here: by world rank, because the window's team may be larger. */
static zcta_status locate_outputs(zcta_team *team, const struct zc_call_key *key,
                                  const struct buffers *buffers, void **outputs)
{
    const zcta_team *owner = buffers->recv_window->team;

    for (uint32_t i = 0; i < team->group.count; i++) {
        uint32_t at = 0;

        while (at < owner->group.count && owner->ranks[at] != team->ranks[i])
            at++;
        if (at == owner->group.count)
            return zc_fail_rank(team->group.diag, ZCTA_ERR_NOT_IN_WINDOW, team->ranks[i], key->call,
                                0,
                                "rank %" PRIu32 " has no part in the window of recv, which belongs "
                                "to team %s; allocate it on a team that has all these ranks",
                                team->ranks[i], zc_team_title(owner));
        if (zc_group_reaches(&team->group, i))
            outputs[i] = (char *)zcta_window_peer(buffers->recv_window, at) + buffers->recv_offset;
    }
    return ZCTA_OK;
}

/* ---- Choice ---- */

static zcta_engine engine_of(const zcta_team *team, const struct zc_call_key *key)
{
    /* A barrier moves no data, so it is nobody's choice: signals do it on every device. */
    if (key->collective == ZC_COLLECTIVE_BARRIER)
        return ZCTA_ENGINE_AUTO;
    return key->engine == ZCTA_ENGINE_AUTO ? team->engine_choice : key->engine;
}

/* What the ranks have compared; for a call that asks for NCCL before that, what this rank has. */
static const struct zc_nccl_facts *nccl_facts_of(const zcta_team *team,
                                                 const struct zc_call_key *key)
{
    if (team->nccl_facts != NULL || key->engine != ZCTA_ENGINE_NCCL ||
        team->context->caps.unit == 0)
        return team->nccl_facts;
    return zc_know_nccl(team->context);
}

struct zc_facts zc_facts_of(const zcta_team *team, const struct zc_call_key *key, bool in_place,
                            const zcta_window *window)
{
    return (struct zc_facts){.collective = key->collective,
                             .caps = &team->context->caps,
                             .nccl = nccl_facts_of(team, key),
                             .tuned = team->tuned,
                             .rank_count = team->group.count,
                             .bytes = key->bytes,
                             .in_place = in_place,
                             .unlike_window = window != NULL && !window->memory->alike,
                             .shared_gpu = team->shared_gpu,
                             .node_ranks = team->node_ranks == ZC_UNEVEN ? 0 : team->node_ranks,
                             .uneven_nodes = team->node_ranks == ZC_UNEVEN,
                             .position_shared = team->position_shared,
                             .policy =
                                 key->policy == ZCTA_POLICY_UNSET ? team->policy : key->policy,
                             .engine = engine_of(team, key)};
}

/* The sentence of the path that would have been taken. */
static const char *telling_reason(const struct zc_facts *facts, const zcta_report *report)
{
    const bool nccl = facts->engine == ZCTA_ENGINE_NCCL;
    const char *wanted = !nccl && (facts->node_ranks != 0 || facts->uneven_nodes) ? "ce/by-nodes"
                         : !nccl                                                  ? "ce/direct-push"
                         : facts->policy == ZCTA_POLICY_DEFAULT                   ? "nccl/kernels"
                                                                : "nccl/copy-engine";

    for (uint32_t i = 0; i < report->path_count; i++)
        if (strcmp(report->paths[i].path, wanted) == 0)
            return report->paths[i].reason;
    return report->paths[0].reason;
}

static zcta_status fail_choice(zcta_team *team, const struct zc_call_key *key,
                               const struct zc_facts *facts, const zcta_report *report)
{
    const bool no_nccl =
        facts->engine == ZCTA_ENGINE_NCCL && (facts->caps->unit == 0 || facts->nccl == NULL ||
                                              facts->nccl->version == 0 || facts->shared_gpu);

    return zc_fail(team->group.diag, no_nccl ? ZCTA_ERR_UNSUPPORTED : ZCTA_ERR_POLICY, key->call, 0,
                   "no path can run: %s", telling_reason(facts, report));
}

static zcta_status check_buffers(zcta_team *team, const struct zc_call_key *key,
                                 struct buffers *buffers, void **outputs)
{
    zcta_status status = check_sizes(team, key);

    if (status == ZCTA_OK)
        status = check_place(team, key, buffers);
    if (status == ZCTA_OK)
        status = find_buffers(team, key, buffers);
    if (status == ZCTA_OK)
        status = locate_outputs(team, key, buffers, outputs);
    return status;
}

/* The engine of the path that was chosen, and what our plans need of NCCL's between nodes. */
static zcta_status take_engine(zcta_team *team, struct zc_settled *settled, struct zc_call *call)
{
    const bool nccl = (uint32_t)settled->path >= ZC_ALGORITHMS;
    struct zc_engine *engine = NULL;
    zcta_status status = ZCTA_OK;

    settled->crosses = !nccl && team->node_ranks != 0;
    if (nccl || settled->crosses)
        status = zc_team_nccl(team, &engine);
    if (settled->crosses) {
        call->exchange = zc_nccl_exchange;
        call->exchange_data = engine;
    }
    settled->ops = nccl ? &zc_engine_nccl : &zc_engine_ce;
    settled->engine = nccl ? engine : team->ce;
    return status;
}

static zcta_status choose_and_prepare(zcta_team *team, const struct buffers *buffers,
                                      void *const *outputs, bool releasable,
                                      struct zc_settled *settled)
{
    const struct zc_facts facts =
        zc_facts_of(team, &settled->key, buffers->in_place, buffers->recv_window);
    struct zc_call call = {.send = settled->key.send,
                           .recv = outputs,
                           .window = {.base = zcta_window_base(buffers->recv_window),
                                      .bytes = zcta_window_bytes(buffers->recv_window),
                                      .alike = !facts.unlike_window},
                           .releasable = releasable,
                           .strict = facts.policy == ZCTA_POLICY_ZERO};
    zcta_report report;
    const struct zc_choice choice = zc_select(&facts, &report);
    zcta_status status;

    if (!choice.found)
        return fail_choice(team, &settled->key, &facts, &report);
    settled->path = choice.path;
    settled->sms = report.paths[report.chosen].sms != 0;
    settled->fallback = settled->sms && facts.policy == ZCTA_POLICY_EFFICIENCY;
    call.no_sm = choice.path == ZC_PATH_NCCL_NO_SM;
    call.symmetric = facts.nccl != NULL && facts.nccl->symmetric;
    call.request = zc_select_request(&facts, choice.path, team->group.self);
    call.numbers = zc_numbers_of(team, settled);
    status = take_engine(team, settled, &call);
    return status == ZCTA_OK ? settled->ops->prepare(settled->engine, &call, &settled->prepared)
                             : status;
}

zcta_status zc_settle(zcta_team *team, const struct zc_call_key *key, bool releasable,
                      struct zc_settled *settled)
{
    const bool has_buffers = key->collective != ZC_COLLECTIVE_BARRIER;
    struct zc_settled made = {.key = *key};
    struct buffers buffers = {0};
    void **outputs = NULL;
    zcta_status status = ZCTA_OK;

    /* Pairs with zc_map_remove(): read first, so that a window that goes meanwhile makes it stale.
     */
    made.generation = atomic_load_explicit(&team->context->map.generation, memory_order_acquire);
    if (has_buffers && key->bytes == 0)
        goto done;
    outputs = calloc(team->group.count, sizeof *outputs);
    if (outputs == NULL)
        return fail_call(team, key, ZCTA_ERR_NO_MEMORY, "out of memory");
    if (has_buffers)
        status = check_buffers(team, key, &buffers, outputs);
    made.recv_window = buffers.recv_window;
    made.send_window = buffers.send_window;
    made.offset = buffers.recv_offset;
    if (status == ZCTA_OK)
        status = choose_and_prepare(team, &buffers, outputs, releasable, &made);
done:
    if (status == ZCTA_OK)
        *settled = made;
    free(outputs);
    return status;
}

void zc_unsettle(zcta_team *team, struct zc_settled *settled)
{
    (void)team;
    if (settled->ops != NULL)
        settled->ops->release(settled->engine, settled->prepared);
    memset(settled, 0, sizeof *settled);
}

/* ---- Refusal ---- */

/* A collective that breaks off on one rank, for no fault of its arguments, never ends on the
 * others; and what was enqueued of it cannot be taken back. */
static void fail_if_broken(zcta_team *team, zcta_status status)
{
    if (status == ZCTA_ERR_DEVICE || status == ZCTA_ERR_NO_MEMORY || status == ZCTA_ERR_TIMEOUT ||
        status == ZCTA_ERR_PEER)
        (void)zc_group_give_up(&team->group, status);
}

/* Under check the others wait for this rank's word on the call, also when it refuses it. */
static zcta_status refuse(zcta_team *team, const struct zc_call_key *key, zcta_status status)
{
    const struct zc_settled refused = {.key = *key};

    fail_if_broken(team, status);
    if (!team->context->check || zc_team_failed(team))
        return status;
    return zc_agree(team, &refused, key->call, false, status);
}

/* ---- Running ---- */

static void tell_first_use(zcta_team *team, const struct zc_settled *settled, enum zc_path path)
{
    struct zc_diag *diag = team->group.diag;
    const bool nccl = (uint32_t)path >= ZC_ALGORITHMS;

    zc_log(diag, ZC_LOG_INFO, "%s [%s]: %" PRIu32 " ranks x %zu bytes, %s, signals %s, %s",
           zc_collective_title(settled->key.collective), nccl ? "NCCL" : team->context->caps.title,
           team->group.count, settled->key.bytes, zc_path_name(path),
           nccl ? "NCCL's" : team->context->caps.signals,
           path == ZC_PATH_NCCL_KERNELS ? "SMs"
           : settled->crosses           ? "SMs between the nodes"
           : settled->sms               ? "SMs for the own share"
                                        : "0 SMs");
    if (settled->fallback)
        zc_log(diag, ZC_LOG_WARN, "%s [Fallback]: %s", zc_collective_title(settled->key.collective),
               path == ZC_PATH_NCCL_KERNELS ? "NCCL takes its kernels"
               : settled->crosses           ? "NCCL takes its kernels between the nodes"
                                            : "the copy within this rank's device needs SMs");
}

/* What ran, which is what was chosen unless the engine knows better. */
static enum zc_path path_run(const struct zc_settled *settled)
{
    if (settled->path != ZC_PATH_NCCL_NO_SM)
        return settled->path;
    switch (settled->ops->evidence(settled->engine, settled->prepared)) {
    case ZC_EVIDENCE_AGAINST:
        return ZC_PATH_NCCL_KERNELS;
    case ZC_EVIDENCE_MISSING:
        return ZC_PATH_NCCL_UNPROVED;
    default:
        return settled->path;
    }
}

static void count_run(zcta_team *team, const struct zc_settled *settled)
{
    const enum zc_path path = path_run(settled);
    struct zc_team_counters *counters = &team->counters[path];

    if (atomic_fetch_add_explicit(&counters->calls, 1, memory_order_relaxed) == 0)
        tell_first_use(team, settled, path);
    atomic_fetch_add_explicit(&counters->bytes, settled->key.bytes * team->group.count,
                              memory_order_relaxed);
    if (settled->fallback || path != settled->path)
        atomic_fetch_add_explicit(&counters->fallbacks, path != ZC_PATH_NCCL_UNPROVED,
                                  memory_order_relaxed);
}

/* Before a run or a release: whether it is to go on. */
static zcta_status begin(zcta_team *team, const struct zc_settled *settled, const char *call,
                         zcta_stream stream)
{
    const struct zc_group *group = &team->group;
    zcta_status status = zc_team_check(team, call);
    bool captured = false;

    if (status != ZCTA_OK || !team->context->check)
        return status;
    status = group->ops->is_capturing(group->device, stream, &captured);
    return zc_agree(team, settled, call, captured, status);
}

static zcta_status end(zcta_team *team, struct zc_settled *settled, const char *call,
                       zcta_stream stream, zcta_status status)
{
    const bool ran = stream == NULL && team->group.ops->kind == ZCTA_DEVICE_HOST;
    zcta_status failure;

    settled->ticket = zc_guard_submitted(&team->guard);
    /* What has been done is done, though the team may have failed by now. */
    if (ran && status == ZCTA_OK)
        return ZCTA_OK;
    fail_if_broken(team, status);
    /* Why the team failed says more than what that led to here. */
    failure = zc_team_check(team, call);
    return failure == ZCTA_OK ? status : failure;
}

zcta_status zc_run_settled(zcta_team *team, struct zc_settled *settled, const char *call,
                           zcta_stream stream)
{
    zcta_status status = begin(team, settled, call, stream);

    if (status != ZCTA_OK || settled->prepared == NULL)
        return status;
    if (settled->crosses)
        status = zc_nccl_join_nodes(team->nccl, team->node_ranks, stream);
    if (status == ZCTA_OK)
        status = settled->ops->run(settled->engine, settled->prepared, stream);
    if (status == ZCTA_OK)
        count_run(team, settled);
    return end(team, settled, call, stream, status);
}

/* ---- Cache ---- */

/* How many neighbouring entries a call may stand in. */
enum { CACHE_WAYS = 8 };

static uint32_t cache_index(const struct zc_call_key *key)
{
    uint64_t hash = (uintptr_t)key->recv ^ ((uintptr_t)key->send << 1) ^ (key->bytes << 2) ^
                    ((uint64_t)key->policy << 5) ^ ((uint64_t)key->collective << 7);

    hash *= UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)(hash >> 58) % ZC_CACHE_ENTRIES;
}

static bool same_key(const struct zc_call_key *a, const struct zc_call_key *b)
{
    return a->send == b->send && a->recv == b->recv && a->bytes == b->bytes &&
           a->policy == b->policy && a->engine == b->engine && a->collective == b->collective;
}

static bool has_finished(const zcta_team *team, const struct zc_settled *entry)
{
    return entry->prepared == NULL || zc_guard_has_finished(&team->guard, entry->ticket);
}

/* The entry that holds this call, or else the one that it shall replace: preferably none whose run
 * is still queued, as that would have to be waited for. */
static struct zc_settled *find_entry(zcta_team *team, const struct zc_call_key *key,
                                     uint64_t generation, bool *found)
{
    const uint32_t begin = cache_index(key);
    struct zc_settled *idle = NULL;

    *found = true;
    for (uint32_t i = 0; i < CACHE_WAYS; i++) {
        struct zc_settled *entry = &team->cache[(begin + i) % ZC_CACHE_ENTRIES];

        if (entry->prepared != NULL && entry->generation == generation &&
            same_key(&entry->key, key))
            return entry;
        if (idle == NULL && has_finished(team, entry))
            idle = entry;
    }
    *found = false;
    return idle != NULL ? idle : &team->cache[begin];
}

/* Finds a settled call, or settles it in place of another one in the cache. */
static zcta_status find_or_settle(zcta_team *team, const struct zc_call_key *key,
                                  struct zc_settled **settled)
{
    const uint64_t generation =
        atomic_load_explicit(&team->context->map.generation, memory_order_acquire);
    struct zc_settled fresh, *entry;
    zcta_status status;
    bool found;

    entry = find_entry(team, key, generation, &found);
    if (!found) {
        status = zc_settle(team, key, false, &fresh);
        if (status != ZCTA_OK)
            return status;
        if (!has_finished(team, entry))
            team->group.ops->drain(team->group.device, &team->guard);
        zc_unsettle(team, entry);
        *entry = fresh;
    }
    *settled = entry;
    return ZCTA_OK;
}

/* ---- Public ---- */

static zcta_status read_call(zcta_team *team, const zcta_call_params *given,
                             struct zc_call_key *key)
{
    zcta_call_params params;
    zcta_status status;

    if (given == NULL)
        return ZCTA_OK;
    status = zc_params_read(team->group.diag, key->call, given, &params, sizeof params);
    if (status != ZCTA_OK)
        return status;
    if ((uint32_t)params.policy > ZCTA_POLICY_ZERO || (uint32_t)params.engine > ZCTA_ENGINE_NCCL)
        return zc_fail(team->group.diag, ZCTA_ERR_INVALID, key->call, 0,
                       "policy %d or engine %d does not exist", (int)params.policy,
                       (int)params.engine);
    key->policy = params.policy;
    key->engine = params.engine;
    return ZCTA_OK;
}

zcta_status zcta_all_gather(zcta_team *team, const void *send, void *recv, size_t bytes,
                            zcta_stream stream, const zcta_call_params *params)
{
    struct zc_call_key key = {
        .call = "zcta_all_gather", .send = send, .recv = recv, .bytes = bytes};
    struct zc_settled *settled = NULL;
    zcta_status status;

    if (team == NULL)
        return zc_fail_null(NULL, key.call, "team");
    status = read_call(team, params, &key);
    if (status == ZCTA_OK && key.engine == ZCTA_ENGINE_NCCL)
        status = zc_team_compare_nccl(team);
    if (status == ZCTA_OK)
        status = find_or_settle(team, &key, &settled);
    return status == ZCTA_OK ? zc_run_settled(team, settled, key.call, stream)
                             : refuse(team, &key, status);
}

zcta_status zcta_barrier(zcta_team *team, zcta_stream stream)
{
    const struct zc_call_key key = {.call = "zcta_barrier", .collective = ZC_COLLECTIVE_BARRIER};
    struct zc_settled *settled = NULL;
    zcta_status status;

    if (team == NULL)
        return zc_fail_null(NULL, key.call, "team");
    status = find_or_settle(team, &key, &settled);
    return status == ZCTA_OK ? zc_run_settled(team, settled, key.call, stream)
                             : refuse(team, &key, status);
}

static void count_window_plans(const struct zc_settled *settled, uint32_t change)
{
    if (settled->recv_window != NULL)
        atomic_fetch_add_explicit(&settled->recv_window->plan_count, change, memory_order_acq_rel);
    if (settled->send_window != NULL)
        atomic_fetch_add_explicit(&settled->send_window->plan_count, change, memory_order_acq_rel);
}

zcta_status zcta_plan_all_gather(zcta_team *team, const void *send, void *recv, size_t bytes,
                                 const zcta_call_params *params, zcta_plan **plan)
{
    struct zc_call_key key = {
        .call = "zcta_plan_all_gather", .send = send, .recv = recv, .bytes = bytes};
    zcta_plan *made = NULL;
    zcta_status status;

    if (team == NULL || plan == NULL)
        return zc_fail_null(team != NULL ? team->group.diag : NULL, key.call,
                            team == NULL ? "team" : "plan");
    status = read_call(team, params, &key);
    if (status != ZCTA_OK)
        return status;
    made = calloc(1, sizeof *made);
    if (made == NULL)
        return fail_call(team, &key, ZCTA_ERR_NO_MEMORY, "out of memory");
    made->team = team;
    status = zc_settle(team, &key, true, &made->settled);
    if (status != ZCTA_OK)
        goto fail;
    count_window_plans(&made->settled, 1);
    made->next = team->plans;
    team->plans = made;
    team->plan_count++;
    *plan = made;
    return ZCTA_OK;
fail:
    free(made);
    return status;
}

zcta_status zcta_plan_run(zcta_plan *plan, zcta_stream stream)
{
    return plan == NULL ? zc_fail_null(NULL, "zcta_plan_run", "plan")
                        : zc_run_settled(plan->team, &plan->settled, "zcta_plan_run", stream);
}

zcta_status zcta_release(zcta_plan *plan, zcta_stream stream)
{
    static const char call[] = "zcta_release";
    struct zc_settled release;
    zcta_status status;

    if (plan == NULL)
        return zc_fail_null(NULL, call, "plan");
    release = plan->settled;
    release.key.collective = ZC_COLLECTIVE_RELEASE;
    release.path = (enum zc_path)ZC_ALGORITHM_EARLY_READY;
    release.sms = release.fallback = false;
    status = begin(plan->team, &release, call, stream);
    if (status != ZCTA_OK || release.prepared == NULL)
        return status;
    status = release.ops->say_ready(release.engine, release.prepared, stream);
    if (status == ZCTA_OK)
        count_run(plan->team, &release);
    return end(plan->team, &plan->settled, call, stream, status);
}

zcta_status zcta_plan_free(zcta_plan **handle)
{
    zcta_plan *plan = handle == NULL ? NULL : *handle;
    zcta_team *team;

    if (plan == NULL)
        return zc_fail_null(NULL, "zcta_plan_free", "plan, or what it points to,");
    team = plan->team;
    if (!zc_diag_is_here(team->group.diag))
        return zc_check_process(team->group.diag, "zcta_plan_free");
    *handle = NULL;
    team->group.ops->drain(team->group.device, &team->guard);
    for (zcta_plan **at = &team->plans; *at != NULL; at = &(*at)->next)
        if (*at == plan) {
            *at = plan->next;
            team->plan_count--;
            break;
        }
    count_window_plans(&plan->settled, UINT32_MAX);
    zc_unsettle(team, &plan->settled);
    free(plan);
    return ZCTA_OK;
}

zcta_status zcta_explain_all_gather(zcta_team *team, const void *send, void *recv, size_t bytes,
                                    const zcta_call_params *params, zcta_report *report)
{
    struct zc_call_key key = {
        .call = "zcta_explain_all_gather", .send = send, .recv = recv, .bytes = bytes};
    struct buffers buffers = {0};
    void **outputs = NULL;
    zcta_report made;
    zcta_status status;

    if (team == NULL || report == NULL)
        return zc_fail_null(team != NULL ? team->group.diag : NULL, key.call,
                            team == NULL ? "team" : "report");
    status = read_call(team, params, &key);
    if (status != ZCTA_OK)
        return status;
    outputs = calloc(team->group.count, sizeof *outputs);
    if (outputs == NULL)
        return fail_call(team, &key, ZCTA_ERR_NO_MEMORY, "out of memory");
    if (bytes > 0)
        status = check_buffers(team, &key, &buffers, outputs);
    if (status == ZCTA_OK) {
        const struct zc_facts facts =
            zc_facts_of(team, &key, buffers.in_place, buffers.recv_window);

        zc_select(&facts, &made);
        *report = made;
    }
    free(outputs);
    return status;
}
