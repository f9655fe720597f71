/* The simulation's memory: ordinary memory, or mere addresses where only times are asked for. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "device/sim/sim_internal.h"

static uint32_t upper_bound(const struct zc_sim *sim, uintptr_t address)
{
    uint32_t low = 0, high = sim->memory_count;

    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;

        if ((uintptr_t)sim->memories[middle]->head.base <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static zcta_status list(struct zc_sim *sim, struct zc_sim_memory *memory)
{
    const uint32_t at = upper_bound(sim, (uintptr_t)memory->head.base);

    if (sim->memory_count == sim->memory_capacity) {
        const uint32_t capacity = sim->memory_capacity == 0 ? 64 : sim->memory_capacity * 2;
        struct zc_sim_memory **grown = realloc(sim->memories, capacity * sizeof(*grown));

        if (grown == NULL)
            return ZCTA_ERR_NO_MEMORY;
        sim->memories = grown;
        sim->memory_capacity = capacity;
    }
    memmove(sim->memories + at + 1, sim->memories + at,
            (sim->memory_count - at) * sizeof(*sim->memories));
    sim->memories[at] = memory;
    sim->memory_count++;
    zc_local_publish(&memory->local);
    return ZCTA_OK;
}

static void unlist(struct zc_sim *sim, const struct zc_sim_memory *memory)
{
    for (uint32_t i = 0; i < sim->memory_count; i++)
        if (sim->memories[i] == memory) {
            memmove(sim->memories + i, sim->memories + i + 1,
                    (sim->memory_count - i - 1) * sizeof(*sim->memories));
            sim->memory_count--;
            break;
        }
}

/* Addresses that look like memory and are never touched; parts never adjoin. */
static void *unreal_address(struct zc_sim *sim, size_t bytes)
{
    const uintptr_t address = sim->next_address;

    sim->next_address += bytes + 4096;
    return (void *)address;
}

zcta_status zc_sim_memory_alloc(struct zc_device *device, enum zc_where where, size_t bytes,
                                uint32_t sharers, struct zc_memory **memory)
{
    struct zc_sim *sim = device->sim;
    struct zc_sim_memory *made = calloc(1, sizeof *made);

    (void)sharers;
    if (made == NULL)
        goto fail;
    made->owner = device->rank;
    made->where = where;
    made->real = sim->params.moves_data;
    made->head.bytes = bytes;
    made->head.base = made->real ? calloc(1, bytes) : unreal_address(sim, bytes);
    if (made->head.base == NULL || list(sim, made) != ZCTA_OK)
        goto fail;
    *memory = &made->head;
    return ZCTA_OK;
fail:
    if (made != NULL && made->real)
        free(made->head.base);
    free(made);
    return zc_fail(&sim->diag, ZCTA_ERR_NO_MEMORY, "calloc", ENOMEM, "out of memory");
}

zcta_status zc_sim_memory_adopt(struct zc_device *device, void *base, size_t bytes,
                                struct zc_memory **memory)
{
    struct zc_sim_memory *made = calloc(1, sizeof *made);

    if (made == NULL)
        goto fail;
    made->owner = device->rank;
    made->head = (struct zc_memory){.base = base, .bytes = bytes};
    if (list(device->sim, made) != ZCTA_OK)
        goto fail;
    *memory = &made->head;
    return ZCTA_OK;
fail:
    free(made);
    return zc_fail(&device->sim->diag, ZCTA_ERR_NO_MEMORY, "calloc", ENOMEM, "out of memory");
}

zcta_status zc_sim_memory_export(struct zc_device *device, struct zc_memory *memory,
                                 struct zc_memory_handle *handle, int *fd)
{
    (void)device;
    *fd = -1;
    *handle = (struct zc_memory_handle){.bytes = memory->bytes,
                                        .local_id = ((struct zc_sim_memory *)memory)->local.id};
    return ZCTA_OK;
}

zcta_status zc_sim_memory_import(struct zc_device *device, const struct zc_memory_handle *handle,
                                 int fd, bool same_process, struct zc_memory **memory)
{
    struct zc_local_memory *local = same_process ? zc_local_take(handle->local_id) : NULL;

    (void)fd;
    if (local == NULL)
        return zc_fail(&device->sim->diag, ZCTA_ERR_UNSUPPORTED, "memory_import", 0,
                       "a simulation's memory is known only inside it");
    *memory = (struct zc_memory *)((char *)local - offsetof(struct zc_sim_memory, local));
    return ZCTA_OK;
}

void zc_sim_memory_release(struct zc_device *device, struct zc_memory *memory)
{
    struct zc_sim_memory *released = (struct zc_sim_memory *)memory;

    if (memory == NULL || !zc_local_drop(&released->local))
        return;
    unlist(device->sim, released);
    if (released->real)
        free(memory->base);
    free(released);
}

zcta_status zc_sim_view_map(struct zc_device *device, struct zc_memory *const *parts,
                            uint32_t count, struct zc_view *view)
{
    (void)parts;
    (void)count;
    (void)view;
    return zc_fail(&device->sim->diag, ZCTA_ERR_UNSUPPORTED, "zcta_window_view", 0,
                   "a simulation has no contiguous views");
}

void zc_sim_view_unmap(struct zc_device *device, const struct zc_view *view)
{
    (void)device;
    (void)view;
}

uint32_t zc_sim_owner(const struct zc_sim *sim, const void *address, uint32_t otherwise)
{
    const uint32_t at = upper_bound(sim, (uintptr_t)address);
    const struct zc_sim_memory *memory = at > 0 ? sim->memories[at - 1] : NULL;

    if (memory != NULL && (uintptr_t)address - (uintptr_t)memory->head.base < memory->head.bytes)
        return memory->where == ZC_ON_HOST ? ZC_SIM_HOST : memory->owner;
    return otherwise;
}
