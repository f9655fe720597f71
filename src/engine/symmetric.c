/* Making symmetric memory. */
#include "engine/symmetric.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

/* What each rank tells in the first round. */
struct offer {
    uint64_t status; /* a zcta_status: how allocating went */
    uint64_t bytes;
    struct zc_memory_handle handle;
};

static struct zc_exchange exchange_of(const struct zc_group *group, const char *call,
                                      const char *what, uint64_t topic)
{
    return (struct zc_exchange){.ranks = group->ranks,
                                .count = group->count,
                                /* Odd multiplier: topics of one team never share a tag. */
                                .tag = group->tag + topic * UINT64_C(0x9e3779b97f4a7c15),
                                .fd = -1,
                                .deadline = zc_deadline_in(group->timeout_ns),
                                .call = call,
                                .what = what};
}

zcta_status zc_group_exchange(const struct zc_group *group, const char *call, const char *what,
                              uint64_t topic, const void *mine, void *all, size_t bytes)
{
    struct zc_exchange exchange = exchange_of(group, call, what, topic);

    exchange.mine = mine;
    exchange.all = all;
    exchange.bytes = bytes;
    return zc_mesh_exchange(group->mesh, &exchange);
}

void zc_symmetric_release(struct zc_symmetric *symmetric)
{
    if (symmetric == NULL)
        return;
    for (uint32_t i = 0; i < symmetric->count; i++)
        symmetric->ops->memory_release(symmetric->device, symmetric->parts[i]);
    free(symmetric);
}

static zcta_status allocate(const struct zc_group *group, void *base, size_t bytes,
                            const char *call, struct zc_memory **memory)
{
    if (bytes == 0)
        return zc_fail(group->diag, ZCTA_ERR_INVALID, call, 0, "a window of 0 bytes was asked for");
    if (base != NULL)
        return group->ops->memory_adopt(group->device, base, bytes, memory);
    return group->ops->memory_alloc(group->device, bytes, memory);
}

/* Somebody else's failure is everybody's; one's own has been said already. */
static zcta_status first_failure(const struct zc_group *group, const char *call,
                                 const uint64_t *statuses, size_t stride, zcta_status own)
{
    if (own != ZCTA_OK)
        return own;
    for (uint32_t i = 0; i < group->count; i++) {
        const zcta_status status = (zcta_status)statuses[i * stride];

        if (status != ZCTA_OK)
            return zc_fail_rank(group->diag, status, group->ranks[i], call, 0,
                                "rank %u could not do its part: %s (its own message says why)",
                                group->ranks[i], zcta_status_text(status));
    }
    return ZCTA_OK;
}

static zcta_status compare_sizes(const struct zc_group *group, const char *call,
                                 const struct offer *offers)
{
    const uint64_t mine = offers[group->self].bytes;

    for (uint32_t i = 0; i < group->count; i++)
        if (offers[i].bytes != mine)
            return zc_fail_rank(group->diag, ZCTA_ERR_MISMATCH, group->ranks[i], call, 0,
                                "rank %u asks for %" PRIu64 " bytes, rank %u for %" PRIu64
                                "; the size must be the same on all ranks",
                                group->ranks[i], offers[i].bytes, group->ranks[group->self], mine);
    return ZCTA_OK;
}

static zcta_status map_parts(const struct zc_group *group, const struct offer *offers,
                             const int *fds, struct zc_symmetric *symmetric)
{
    zcta_status status = ZCTA_OK;

    for (uint32_t i = 0; i < group->count && status == ZCTA_OK; i++) {
        if (i == group->self)
            continue;
        status = group->ops->memory_import(group->device, &offers[i].handle, fds[i],
                                           zc_mesh_same_process(group->mesh, group->ranks[i]),
                                           &symmetric->parts[i]);
    }
    return status;
}

/* First round: everybody's offers and descriptors. */
static zcta_status tell(const struct zc_group *group, const char *call, const char *what,
                        zcta_status status, struct zc_memory *own, struct offer *offers, int *fds)
{
    struct zc_exchange exchange = exchange_of(group, call, what, ZC_TOPIC_MEMORY);
    struct offer mine = {.status = (uint64_t)status, .bytes = offers[group->self].bytes};

    if (own != NULL)
        mine.status = (uint64_t)group->ops->memory_export(own, &mine.handle, &exchange.fd);
    exchange.mine = &mine;
    exchange.all = offers;
    exchange.bytes = sizeof mine;
    exchange.fds = fds;
    return zc_mesh_exchange(group->mesh, &exchange);
}

/* Second round: nobody goes on before everybody has mapped everything. */
static zcta_status confirm(const struct zc_group *group, const char *call, const char *what,
                           zcta_status own)
{
    uint64_t *statuses = calloc(group->count, sizeof *statuses);
    const uint64_t mine = (uint64_t)own;
    zcta_status status;

    if (statuses == NULL)
        return zc_fail(group->diag, ZCTA_ERR_NO_MEMORY, call, ENOMEM, "out of memory");
    status = zc_group_exchange(group, call, what, ZC_TOPIC_CONFIRM, &mine, statuses, sizeof mine);
    if (status == ZCTA_OK)
        status = first_failure(group, call, statuses, 1, own);
    free(statuses);
    return status;
}

zcta_status zc_symmetric_make(const struct zc_group *group, void *base, size_t bytes,
                              const char *call, const char *what, struct zc_symmetric **made)
{
    struct zc_symmetric *symmetric =
        calloc(1, sizeof *symmetric + group->count * sizeof *symmetric->parts);
    struct offer *offers = calloc(group->count, sizeof *offers);
    int *fds = malloc(group->count * sizeof *fds);
    uint32_t open_fds = 0;
    zcta_status status, own;

    if (symmetric == NULL || offers == NULL || fds == NULL) {
        status = zc_fail(group->diag, ZCTA_ERR_NO_MEMORY, call, ENOMEM, "out of memory");
        goto out;
    }
    *symmetric = (struct zc_symmetric){
        .ops = group->ops, .device = group->device, .count = group->count, .bytes = bytes};
    for (open_fds = 0; open_fds < group->count; open_fds++)
        fds[open_fds] = -1;
    offers[group->self].bytes = bytes;
    own = allocate(group, base, bytes, call, &symmetric->parts[group->self]);
    status = tell(group, call, what, own, symmetric->parts[group->self], offers, fds);
    if (status != ZCTA_OK)
        goto out;
    status = first_failure(group, call, &offers[0].status, sizeof *offers / sizeof(uint64_t), own);
    if (status == ZCTA_OK)
        status = compare_sizes(group, call, offers);
    if (status != ZCTA_OK)
        goto out;
    status = confirm(group, call, what, map_parts(group, offers, fds, symmetric));
    if (status != ZCTA_OK)
        goto out;
    *made = symmetric;
    symmetric = NULL;
out:
    for (uint32_t i = 0; i < open_fds; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    free(fds);
    free(offers);
    zc_symmetric_release(symmetric);
    return status;
}
