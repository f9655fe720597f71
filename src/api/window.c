/* Symmetric windows. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "api/objects.h"

static void link_window(zcta_window *window)
{
    window->next = window->team->windows;
    window->team->windows = window;
    window->team->window_count++;
    window->number = ++window->team->windows_made;
}

static void unlink_window(zcta_window *window)
{
    for (zcta_window **at = &window->team->windows; *at != NULL; at = &(*at)->next)
        if (*at == window) {
            *at = window->next;
            window->team->window_count--;
            break;
        }
}

static zcta_status make(zcta_team *team, void *base, size_t bytes, const char *call,
                        zcta_window **window)
{
    zcta_context *context = team->context;
    zcta_window *made = NULL;
    zcta_status status = zc_team_check(team, call);
    bool inserted = false;

    if (status != ZCTA_OK)
        return status;
    made = calloc(1, sizeof *made);
    if (made == NULL) {
        status = zc_fail(&context->diag, ZCTA_ERR_NO_MEMORY, call, ENOMEM, "out of memory");
        return zc_group_give_up(&team->group, status);
    }
    made->team = team;
    status = zc_symmetric_make(&team->group, ZC_ON_DEVICE, base, bytes, call,
                               "did not make the window", &made->memory);
    if (status != ZCTA_OK)
        goto fail;
    status = zc_map_insert(&context->map, &context->diag, made);
    inserted = status == ZCTA_OK;
    /* Memory that overlaps a window on one rank makes no window on any. */
    status = zc_group_confirm(&team->group, call, "did not make the window", status);
    if (status != ZCTA_OK)
        goto fail;
    link_window(made);
    zc_log(&context->diag, ZC_LOG_INFO,
           "window %p (%zu bytes) inserted into the address map of %" PRIu32 " ranks",
           zcta_window_base(made), bytes, team->group.count);
    *window = made;
    return ZCTA_OK;
fail:
    if (inserted)
        zc_map_remove(&context->map, made);
    zc_symmetric_release(made->memory);
    free(made);
    return status;
}

zcta_status zcta_window_alloc(zcta_team *team, size_t bytes, zcta_window **window)
{
    if (team == NULL || window == NULL)
        return zc_fail_null(team != NULL ? team->group.diag : NULL, "zcta_window_alloc",
                            team == NULL ? "team" : "window");
    return make(team, NULL, bytes, "zcta_window_alloc", window);
}

zcta_status zcta_window_register(zcta_team *team, void *base, size_t bytes, zcta_window **window)
{
    if (team == NULL)
        return zc_fail_null(NULL, "zcta_window_register", "team");
    if (window == NULL || base == NULL || bytes > UINTPTR_MAX - (uintptr_t)base)
        return zc_fail(team->group.diag, ZCTA_ERR_INVALID, "zcta_window_register", 0,
                       "window or base is NULL, or the memory wraps around the address space");
    return make(team, base, bytes, "zcta_window_register", window);
}

void zc_window_free_local(zcta_window *window)
{
    zcta_context *context = window->team->context;

    zc_map_remove(&context->map, window);
    unlink_window(window);
    if (window->view.base != NULL)
        context->ops->view_unmap(context->device, &window->view);
    zc_symmetric_release(window->memory);
    free(window);
}

zcta_status zcta_window_free(zcta_window **handle)
{
    zcta_window *window = handle == NULL ? NULL : *handle;
    zcta_status status = ZCTA_OK;
    zcta_team *team;

    if (window == NULL)
        return zc_fail_null(NULL, "zcta_window_free", "window, or what it points to,");
    team = window->team;
    status = zc_check_process(team->group.diag, "zcta_window_free");
    if (status != ZCTA_OK)
        return status;
    if (atomic_load_explicit(&window->plan_count, memory_order_acquire) > 0)
        return zc_fail(team->group.diag, ZCTA_ERR_BUSY, "zcta_window_free", 0,
                       "window %p is used by a prepared plan; free the plan first",
                       zcta_window_base(window));
    *handle = NULL;
    team->group.ops->drain(team->group.device, &team->guard);
    if (!zc_team_failed(team))
        status = zc_group_exchange(&team->group, "zcta_window_free", "did not free the window",
                                   ZC_TOPIC_FREE, NULL, NULL, 0);
    zc_teams_deregister(team->context, zcta_window_base(window));
    zc_window_free_local(window);
    return status;
}

zcta_status zcta_window_view(zcta_window *window, const void **base, size_t *stride)
{
    zcta_context *context;
    zcta_status status = ZCTA_OK;

    if (window == NULL)
        return zc_fail_null(NULL, "zcta_window_view", "window");
    context = window->team->context;
    if (base == NULL || stride == NULL)
        return zc_fail(&context->diag, ZCTA_ERR_INVALID, "zcta_window_view", 0,
                       "base or stride is NULL");
    for (uint32_t i = 0; i < window->memory->count; i++)
        if (window->memory->parts[i] == NULL)
            return zc_fail_rank(&context->diag, ZCTA_ERR_UNSUPPORTED, window->team->ranks[i],
                                "zcta_window_view", 0,
                                "this rank does not reach the memory of rank %" PRIu32
                                ", which is on another node or on a GPU without peer access, so it "
                                "is not mapped here",
                                window->team->ranks[i]);
    if (window->view.base == NULL)
        status = context->ops->view_map(context->device, window->memory->parts,
                                        window->memory->count, &window->view);
    if (status != ZCTA_OK)
        return status;
    *base = window->view.base;
    *stride = window->view.stride;
    return ZCTA_OK;
}
