/* Joining and leaving a job. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/objects.h"
#include "base/environment.h"
#include "base/fd.h"
#include "base/number.h"

/* A rank that writes a checkpoint is late for minutes, and not lost; one that has died is seen at
 * once. A rank that never starts is mostly a mistake in the command line. */
enum { DEFAULT_TIMEOUT_S = 600, DEFAULT_JOIN_TIMEOUT_S = 120, MAX_TIMEOUT_S = 86400 };

/* What the environment says; 0 if it says nothing. */
static zcta_status timeout_from_environment(struct zc_diag *diag, uint64_t *timeout_ns)
{
    const char *text = zc_environment("ZEROCTA_TIMEOUT");
    char *end = NULL;
    double seconds;

    *timeout_ns = 0;
    if (text == NULL)
        return ZCTA_OK;
    seconds = zc_number_read(text, &end);
    if (end == text || *end != '\0' || !(seconds > 0.0) || seconds > MAX_TIMEOUT_S)
        return zc_fail(diag, ZCTA_ERR_ENVIRONMENT, "zcta_init", 0,
                       "ZEROCTA_TIMEOUT is '%s'; give seconds, above 0 and at most %d", text,
                       MAX_TIMEOUT_S);
    *timeout_ns = (uint64_t)(seconds * 1e9);
    return ZCTA_OK;
}

static zcta_status resolve_timeouts(zcta_context *context, uint64_t given_ns)
{
    zcta_status status = ZCTA_OK;

    if (given_ns == 0)
        status = timeout_from_environment(&context->diag, &given_ns);
    context->timeout_ns = given_ns != 0 ? given_ns : DEFAULT_TIMEOUT_S * UINT64_C(1000000000);
    context->join_timeout_ns =
        given_ns != 0 ? given_ns : DEFAULT_JOIN_TIMEOUT_S * UINT64_C(1000000000);
    return status;
}

static zcta_status resolve_parameters(zcta_context *context, zcta_init_params *params)
{
    zcta_status status = zc_environment_check(&context->diag);

    context->check = params->check != 0 || zc_environment_choice("ZEROCTA_CHECK") == 1;
    if (status == ZCTA_OK)
        status = resolve_timeouts(context, params->timeout_ns);
    if (status == ZCTA_OK)
        status = zc_job_resolve(params, &context->diag, &context->job);
    if (status != ZCTA_OK)
        return status;
    context->diag.rank = context->job.rank;
    if (context->job.local_rank == 0) /* once for all ranks of the machine */
        zc_environment_warn(&context->diag);
    context->gone = calloc(context->job.rank_count, sizeof *context->gone);
    if (context->gone == NULL)
        return zc_fail(&context->diag, ZCTA_ERR_NO_MEMORY, "zcta_init", ENOMEM, "out of memory");
    return ZCTA_OK;
}

static zcta_status open_as(zcta_context *context, const struct zc_device_ops *ops,
                           const zcta_init_params *given)
{
    const struct zc_device_params params = {.diag = &context->diag,
                                            .local_rank = context->job.local_rank,
                                            .local_rank_count = context->job.local_rank_count,
                                            .gpu = given->gpu,
                                            .timeout_ns = context->timeout_ns};
    zcta_status status = ops->open(&params, &context->device);

    if (status != ZCTA_OK)
        return status;
    context->ops = ops;
    ops->describe(context->device, &context->caps);
    return ZCTA_OK;
}

/* A GPU where there is one. That there is none, or none that can do it, is no error here, only the
 * reason for the host; what the user asks of a GPU, or a GPU that fails, is. Ranks that come to
 * different answers are told so when they make the world. */
static zcta_status open_any(zcta_context *context, const zcta_init_params *params)
{
    static const zcta_error none = {.rank = ZCTA_NO_RANK};
    const enum zc_log_level level = context->diag.level;
    zcta_error reason;
    zcta_status status;

    context->diag.level = ZC_LOG_OFF;
    status = open_as(context, &zc_device_cuda, params);
    context->diag.level = level;
    if (status != ZCTA_ERR_UNSUPPORTED || params->gpu != 0)
        return status;
    zc_diag_last(&context->diag, &reason);
    zc_diag_repeat(&context->diag, &none);
    zc_log(&context->diag, ZC_LOG_INFO, "device host, because %s", reason.message);
    return open_as(context, &zc_device_host, params);
}

static zcta_status open_device(zcta_context *context, const zcta_init_params *params)
{
    switch (params->device) {
    case ZCTA_DEVICE_AUTO:
        return open_any(context, params);
    case ZCTA_DEVICE_HOST:
        return open_as(context, &zc_device_host, params);
    case ZCTA_DEVICE_CUDA:
        return open_as(context, &zc_device_cuda, params);
    }
    return zc_fail(&context->diag, ZCTA_ERR_INVALID, "zcta_init", 0, "device %d does not exist",
                   (int)params->device);
}

static zcta_status make_world(zcta_context *context)
{
    const zcta_team_params params = {.size = sizeof params, .name = "world"};
    uint32_t *ranks = calloc(context->job.rank_count, sizeof *ranks);
    zcta_status status;

    if (ranks == NULL)
        return zc_fail(&context->diag, ZCTA_ERR_NO_MEMORY, "zcta_init", ENOMEM, "out of memory");
    for (uint32_t i = 0; i < context->job.rank_count; i++)
        ranks[i] = i;
    status = zc_team_make(context, ranks, context->job.rank_count, &params, &context->world);
    free(ranks);
    return status;
}

static void free_plans(zcta_team *team)
{
    while (team->plans != NULL) {
        zcta_plan *plan = team->plans;

        zcta_plan_free(&plan);
    }
}

/* Frees everything, however much of it exists. The teams go before the mesh, over which NCCL's
 * threads and the device's watchdog tell what goes wrong; its events find only teams that are
 * listed, and a team is taken off the list before it is freed. */
static void free_context(zcta_context *context)
{
    for (zcta_team *team = context->teams; team != NULL; team = team->next)
        free_plans(team);
    zc_teams_end_nccl(context);
    for (zcta_team *team = context->teams; team != NULL; team = team->next)
        while (team->windows != NULL)
            zc_window_free_local(team->windows);
    while (context->teams != NULL)
        zc_team_free(context->teams);
    zc_mesh_close(context->mesh);
    if (context->device != NULL)
        context->ops->close(context->device);
    zc_unload_all(context);
    zc_map_destroy(&context->map);
    pthread_mutex_destroy(&context->knowledge.lock);
    pthread_mutex_destroy(&context->lock);
    free(context->gone);
    free(context->losses);
    zc_forget_places(context);
    zc_diag_destroy(&context->diag);
    free(context);
}

/* *met tells whether this rank got as far as to meet the others, who then know how it went. */
static zcta_status start(zcta_context *context, zcta_init_params *params, bool *met)
{
    zcta_status status = resolve_parameters(context, params);

    if (status == ZCTA_OK)
        status = open_device(context, params);
    if (status != ZCTA_OK)
        return status;
    *met = true;
    status = zc_mesh_open(&context->job, zc_deadline_in(context->join_timeout_ns), zc_team_event,
                          context, &context->diag, &context->mesh);
    if (status == ZCTA_OK)
        status = make_world(context);
    return status;
}

/* The caller's parameters as far as their size reaches, whatever is wrong with the rest. */
static zcta_init_params trusted(const zcta_init_params *given)
{
    zcta_init_params known = {0};
    size_t size = 0;

    if (given != NULL)
        memcpy(&size, given, sizeof size);
    size -= size % sizeof size; /* no half field */
    if (size >= sizeof size)
        memcpy(&known, given, size < sizeof known ? size : sizeof known);
    if (size > ZC_PARAMS_MOST)
        known.exchange = NULL; /* hardly a size: nothing of the struct is to be called */
    return known;
}

/* This rank will not come: tells those who wait for it. `context` is NULL if there is none. */
static void decline(zcta_context *context, const zcta_init_params *known)
{
    if (context != NULL && context->job.rank_count > 1)
        zc_mesh_decline(&context->job, &context->diag);
    else
        zc_job_decline(known->exchange, known->exchange_data, known->rank_count);
}

/* There is no context that could keep an error. */
static zcta_status fail_early(zcta_context **context, const zcta_init_params *known)
{
    const uint32_t rank = known->rank_count > 0 ? known->rank : ZCTA_NO_RANK;
    const zcta_status status = context == NULL ? zc_fail_null(NULL, "zcta_init", "context")
                                               : zc_fail_rank(NULL, ZCTA_ERR_NO_MEMORY, rank,
                                                              "zcta_init", ENOMEM, "out of memory");

    decline(NULL, known);
    if (known->error != NULL)
        zc_diag_last(NULL, known->error);
    return status;
}

zcta_status zcta_init(const zcta_init_params *given, zcta_context **context)
{
    const zcta_init_params known = trusted(given);
    zcta_context *made = NULL;
    zcta_init_params params;
    zcta_status status;
    bool met = false;

    made = context == NULL ? NULL : calloc(1, sizeof *made);
    if (made == NULL)
        return fail_early(context, &known);
    zc_fd_hold_standard();
    zc_diag_init(&made->diag);
    pthread_mutex_init(&made->lock, NULL);
    pthread_mutex_init(&made->knowledge.lock, NULL);
    made->job.listen_fd = -1;
    status = zc_map_init(&made->map, &made->diag);
    if (status == ZCTA_OK)
        status = zc_params_read(&made->diag, "zcta_init", given, &params, sizeof params);
    if (status == ZCTA_OK)
        status = start(made, &params, &met);
    if (status != ZCTA_OK)
        goto fail;
    *context = made;
    return ZCTA_OK;
fail:
    if (!met)
        decline(made, &known);
    if (known.error != NULL)
        zc_diag_last(&made->diag, known.error);
    free_context(made);
    return status;
}

/* With the context's lock held. */
static bool has_lost_one(const zcta_team *team)
{
    bool lost = false;

    for (uint32_t i = 0; i < team->group.count; i++)
        lost = lost || team->context->gone[team->ranks[i]];
    return lost;
}

/* The team with the lowest tag above `after` that is well: all its ranks find the same order. */
static zcta_team *next_team(zcta_context *context, uint64_t after)
{
    zcta_team *next = NULL;

    pthread_mutex_lock(&context->lock);
    for (zcta_team *team = context->teams; team != NULL; team = team->next)
        if (team != context->world && team->group.tag > after && !zc_team_failed(team) &&
            !has_lost_one(team) && (next == NULL || team->group.tag < next->group.tag))
            next = team;
    pthread_mutex_unlock(&context->lock);
    return next;
}

static zcta_status meet(const zcta_team *team, uint64_t deadline)
{
    struct zc_group group = team->group;

    group.timeout_ns = zc_time_left_ns(deadline);
    return zc_group_exchange(&group, "zcta_finalize", "did not finalize", ZC_TOPIC_FREE, NULL, NULL,
                             0);
}

/* In the teams that those who are left have together. OK, or ERR_TIMEOUT. */
static zcta_status meet_survivors(zcta_context *context, uint64_t deadline)
{
    zcta_status met = ZCTA_OK;

    for (zcta_team *team = next_team(context, 0); team != NULL && met != ZCTA_ERR_TIMEOUT;
         team = next_team(context, team->group.tag))
        met = meet(team, deadline);
    return met == ZCTA_ERR_TIMEOUT ? met : ZCTA_OK;
}

/* Everybody comes before anybody goes, so that nobody mistakes a leave for a loss. Where the world
 * has failed, or fails meanwhile, the survivors meet. */
static zcta_status meet_all(zcta_context *context)
{
    const uint64_t deadline = zc_deadline_in(context->world->group.timeout_ns);
    zcta_status status;

    if (zc_team_failed(context->world))
        return meet_survivors(context, deadline);
    status = meet(context->world, deadline);
    if (status != ZCTA_OK && status != ZCTA_ERR_TIMEOUT)
        (void)meet_survivors(context, deadline);
    return status;
}

zcta_status zcta_finalize(zcta_context **handle)
{
    zcta_context *context = handle == NULL ? NULL : *handle;
    zcta_status status;

    if (context == NULL)
        return zc_fail_null(NULL, "zcta_finalize", "context, or what it points to,");
    *handle = NULL;
    /* What a child has of its parent's context is the parent's: it does not leave the job for it.
     */
    if (!zc_diag_is_here(&context->diag))
        return zc_check_process(&context->diag, "zcta_finalize");
    /* Callbacks among the queued work may use windows, and call collectives: all of it runs first.
     */
    zc_streams_end(context);
    for (zcta_team *team = context->teams; team != NULL; team = team->next)
        context->ops->drain(context->device, &team->guard);
    pthread_mutex_lock(&context->lock);
    context->finalizing = true;
    pthread_mutex_unlock(&context->lock);
    zc_mesh_leave_seat(context->mesh);
    status = meet_all(context);
    free_context(context);
    return status;
}

zcta_team *zcta_world(zcta_context *context)
{
    return context == NULL ? NULL : context->world;
}

zcta_device zcta_context_device(const zcta_context *context)
{
    return context == NULL ? ZCTA_DEVICE_AUTO : context->ops->kind;
}

int32_t zcta_context_gpu(const zcta_context *context)
{
    return context == NULL || context->ops->kind != ZCTA_DEVICE_CUDA ? -1 : context->caps.gpu;
}

zcta_status zcta_context_ranks_alive(zcta_context *context, uint32_t *ranks, uint32_t *count)
{
    uint32_t alive = 0;

    if (context == NULL || count == NULL)
        return zc_fail_null(context != NULL ? &context->diag : NULL, "zcta_context_ranks_alive",
                            context == NULL ? "context" : "count");
    if (!zc_diag_is_here(&context->diag))
        return zc_check_process(&context->diag, "zcta_context_ranks_alive");
    pthread_mutex_lock(&context->lock);
    for (uint32_t rank = 0; rank < context->job.rank_count; rank++) {
        if (context->gone[rank] || zc_team_is_lost(context, rank))
            continue;
        if (ranks != NULL && alive < *count)
            ranks[alive] = rank;
        alive++;
    }
    pthread_mutex_unlock(&context->lock);
    *count = alive;
    return ZCTA_OK;
}

zcta_status zcta_last_error(zcta_context *context, zcta_error *error)
{
    if (error == NULL)
        return zc_fail_null(context != NULL ? &context->diag : NULL, "zcta_last_error", "error");
    zc_diag_last(context != NULL ? &context->diag : NULL, error);
    return ZCTA_OK;
}
