/* Where windows lie, and the context's address map: which window holds an address. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/objects.h"

void *zcta_window_base(const zcta_window *window)
{
    return window == NULL ? NULL : window->memory->parts[window->team->group.self]->base;
}

size_t zcta_window_bytes(const zcta_window *window)
{
    return window == NULL ? 0 : window->memory->bytes;
}

void *zcta_window_peer(const zcta_window *window, uint32_t rank)
{
    const struct zc_memory *part =
        window == NULL || rank >= window->memory->count ? NULL : window->memory->parts[rank];

    return part == NULL ? NULL : part->base;
}

/* ---- The map ---- */

zcta_status zc_map_init(struct zc_address_map *map, struct zc_diag *diag)
{
    const int error = pthread_rwlock_init(&map->lock, NULL);

    return error == 0 ? ZCTA_OK
                      : zc_fail(diag, ZCTA_ERR_SYSTEM, "pthread_rwlock_init", error, "%s",
                                strerror(error));
}

void zc_map_destroy(struct zc_address_map *map)
{
    free(map->windows);
    pthread_rwlock_destroy(&map->lock);
}

static uintptr_t begin_of(const zcta_window *window)
{
    return (uintptr_t)zcta_window_base(window);
}

/* Index of the first window that begins after `address`. */
static uint32_t upper_bound(const struct zc_address_map *map, uintptr_t address)
{
    uint32_t low = 0, high = map->count;

    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;

        if (begin_of(map->windows[middle]) <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool grow(struct zc_address_map *map)
{
    const uint32_t capacity = map->capacity == 0 ? 16 : map->capacity * 2;
    zcta_window **windows;

    if (map->count < map->capacity)
        return true;
    windows = realloc(map->windows, capacity * sizeof(*windows));
    if (windows == NULL)
        return false;
    map->windows = windows;
    map->capacity = capacity;
    return true;
}

zcta_status zc_map_insert(struct zc_address_map *map, struct zc_diag *diag, zcta_window *window)
{
    const uintptr_t begin = begin_of(window);
    zcta_status status = ZCTA_OK;
    uint32_t at;

    pthread_rwlock_wrlock(&map->lock);
    at = upper_bound(map, begin);
    if ((at > 0 &&
         begin - begin_of(map->windows[at - 1]) < zcta_window_bytes(map->windows[at - 1])) ||
        (at < map->count && begin_of(map->windows[at]) - begin < zcta_window_bytes(window))) {
        status = zc_fail(diag, ZCTA_ERR_INVALID, "zcta_window_register", 0,
                         "%p (%zu bytes) overlaps a window that exists already",
                         zcta_window_base(window), zcta_window_bytes(window));
        goto out;
    }
    if (!grow(map)) {
        status = zc_fail(diag, ZCTA_ERR_NO_MEMORY, "realloc", ENOMEM, "out of memory");
        goto out;
    }
    memmove(map->windows + at + 1, map->windows + at, (map->count - at) * sizeof(*map->windows));
    map->windows[at] = window;
    map->count++;
out:
    pthread_rwlock_unlock(&map->lock);
    return status;
}

void zc_map_remove(struct zc_address_map *map, zcta_window *window)
{
    pthread_rwlock_wrlock(&map->lock);
    for (uint32_t i = 0; i < map->count; i++)
        if (map->windows[i] == window) {
            memmove(map->windows + i, map->windows + i + 1,
                    (map->count - i - 1) * sizeof(*map->windows));
            map->count--;
            /* Pairs with the load in the call cache: entries resolved before are not used again. */
            atomic_fetch_add_explicit(&map->generation, 1, memory_order_release);
            break;
        }
    pthread_rwlock_unlock(&map->lock);
}

enum zc_found zc_map_find(struct zc_address_map *map, const void *address, uint64_t bytes,
                          zcta_window **window, uint64_t *offset)
{
    enum zc_found found = ZC_NOT_FOUND;
    uint32_t at;

    pthread_rwlock_rdlock(&map->lock);
    at = upper_bound(map, (uintptr_t)address);
    if (at > 0) {
        zcta_window *candidate = map->windows[at - 1];
        const uint64_t distance = (uintptr_t)address - begin_of(candidate);
        const uint64_t size = zcta_window_bytes(candidate);

        if (distance < size) {
            found = bytes <= size - distance ? ZC_FOUND : ZC_PAST_END;
            *window = candidate;
            *offset = distance;
        }
    }
    pthread_rwlock_unlock(&map->lock);
    return found;
}
