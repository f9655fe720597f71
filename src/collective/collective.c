/* The table of collectives. */
#include "collective/collective.h"

#include <string.h>

static const struct zc_collective *const collectives[ZC_COLLECTIVE_IDS] = {
#define ROW(name, value, symbol) [value] = &zc_##symbol,
    ZCTA_COLLECTIVE_LIST(ROW)
#undef ROW
};

const struct zc_collective *zc_collective_of(zcta_collective id)
{
    return (uint32_t)id < ZC_COLLECTIVE_IDS ? collectives[id] : NULL;
}

const struct zc_collective *zc_collective_named(const char *name, size_t length)
{
    for (uint32_t i = 0; i < ZC_COLLECTIVE_IDS; i++)
        if (collectives[i] != NULL && strlen(collectives[i]->name) == length &&
            memcmp(collectives[i]->name, name, length) == 0)
            return collectives[i];
    return NULL;
}
