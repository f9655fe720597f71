/* A team's calls that were resolved before. */
#include "api/objects.h"

/* How many neighbouring entries a call may stand in. */
enum { CACHE_WAYS = 8 };

static uint32_t cache_index(const struct zc_asked *asked)
{
    const struct zc_layout *layout = &asked->layout;
    uint64_t hash = (uintptr_t)asked->recv ^ ((uintptr_t)asked->send << 1) ^ (layout->bytes << 2) ^
                    ((uint64_t)asked->policy << 5) ^ ((uint64_t)layout->collective->id << 7) ^
                    ((uint64_t)layout->root << 11) ^ ((uint64_t)asked->engine << 17) ^
                    ((uint64_t)layout->to << 19) ^ ((uint64_t)layout->from << 27) ^
                    (layout->to_bytes << 3) ^ (layout->from_bytes << 4) ^ zc_layout_digest(layout);

    hash *= UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)(hash >> 58) % ZC_CACHE_ENTRIES;
}

static bool has_finished(const zcta_team *team, const struct zc_resolved *entry)
{
    return entry->prepared == NULL || zc_guard_has_finished(&team->guard, entry->ticket);
}

/* The entry that holds this call, or else the one that it shall replace: preferably an empty one,
 * and none whose run is still queued, as that would have to be waited for. */
static struct zc_resolved *find_entry(zcta_team *team, const struct zc_asked *asked,
                                      uint64_t generation, bool *found)
{
    const uint32_t begin = cache_index(asked);
    struct zc_resolved *idle = NULL;

    *found = true;
    for (uint32_t i = 0; i < CACHE_WAYS; i++) {
        struct zc_resolved *entry = &team->cache[(begin + i) % ZC_CACHE_ENTRIES];

        if (entry->prepared != NULL && entry->generation == generation &&
            zc_asked_same(&entry->asked, asked))
            return entry;
        if (has_finished(team, entry) && (idle == NULL || entry->prepared == NULL))
            idle = entry;
    }
    *found = false;
    return idle != NULL ? idle : &team->cache[begin];
}

zcta_status zc_cache_find(zcta_team *team, struct zc_asked *asked, struct zc_resolved **resolved)
{
    const uint64_t generation =
        atomic_load_explicit(&team->context->map.generation, memory_order_acquire);
    struct zc_resolved fresh, *entry;
    zcta_status status;
    bool found;

    entry = find_entry(team, asked, generation, &found);
    if (!found) {
        status = zc_resolve(team, asked, false, &fresh);
        if (status != ZCTA_OK)
            return status;
        if (!has_finished(team, entry))
            team->group.ops->drain(team->group.device, &team->guard);
        zc_resolved_free(entry);
        *entry = fresh;
    }
    zc_asked_free(asked);
    *resolved = entry;
    return ZCTA_OK;
}
