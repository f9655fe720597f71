/* Where the ranks are: on which node each is, and whose memory each reaches. Found out once, while
 * the world is made, and the same on all ranks. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/objects.h"
#include "base/environment.h"

/* What each rank tells of itself. */
struct place {
    uint64_t domain; /* of its host; 0: none */
    uint64_t gpu_id; /* of its GPU; 0: it has none */
    uint64_t alone;  /* not 0: it is to reach nobody, and nobody it */
};

static zcta_status exchange(const zcta_team *world, const void *mine, void *all, size_t bytes)
{
    return zc_group_exchange(&world->group, "zcta_init", "did not join the job", ZC_TOPIC_PLACES,
                             mine, all, bytes);
}

static zcta_status fail_memory(const zcta_team *world)
{
    const zcta_status status =
        zc_fail(world->group.diag, ZCTA_ERR_NO_MEMORY, "zcta_init", ENOMEM, "out of memory");

    return zc_group_give_up(&world->group, status);
}

/* ---- Nodes ---- */

/* Ranks map each other's memory if they are on one host, or their hosts in one NVLink domain; a
 * host is in one only if all its ranks say so. Hosts are numbers of ranks; the domains' are hashes,
 * set apart by their highest bit. */
static void find_nodes(const zcta_context *context, const struct place *places, uint64_t *nodes)
{
    const uint32_t count = context->job.rank_count;

    for (uint32_t i = 0; i < count; i++) {
        const uint32_t host = zc_mesh_host(context->mesh, i);
        bool agreed = places[i].domain != 0;

        for (uint32_t j = 0; j < count && agreed; j++)
            agreed = zc_mesh_host(context->mesh, j) != host || places[j].domain == places[i].domain;
        nodes[i] = agreed ? places[i].domain | UINT64_C(1) << 63 : host;
    }
}

static zcta_status learn_nodes(const zcta_team *world, const struct place *places)
{
    zcta_context *context = world->context;

    if (!zc_group_has_hosts(&world->group))
        return ZCTA_OK;
    context->nodes = calloc(context->job.rank_count, sizeof *context->nodes);
    if (context->nodes == NULL)
        return fail_memory(world);
    find_nodes(context, places, context->nodes);
    return ZCTA_OK;
}

/* Nobody asks where there is but one. */
static void forget_single_node(zcta_context *context)
{
    bool several = false;

    for (uint32_t i = 0; context->nodes != NULL && i < context->job.rank_count; i++)
        several = several || context->nodes[i] != context->nodes[0];
    if (several)
        return;
    free(context->nodes);
    context->nodes = NULL;
}

/* ---- Reach ---- */

/* Whether this rank's device reaches that rank's memory, as far as is known here. Between nodes
 * nobody does, and nobody asks. */
static bool reaches(const zcta_context *context, const struct place *places, uint32_t rank)
{
    const uint32_t self = context->job.rank;

    if (rank == self || (context->nodes != NULL && context->nodes[rank] != context->nodes[self]))
        return true;
    if (places[rank].alone != 0 || places[self].alone != 0)
        return false;
    return places[rank].gpu_id == 0 ||
           zc_mesh_host(context->mesh, rank) != zc_mesh_host(context->mesh, self) ||
           context->ops->reaches(context->device, places[rank].gpu_id);
}

/* Two ranks reach each other if both say so: one that sees no other GPU than its own knows nothing.
 * True: everybody reaches everybody. */
static bool make_mutual(bool *reach, uint32_t count)
{
    bool all = true;

    for (uint32_t i = 0; i < count; i++)
        for (uint32_t j = 0; j < i; j++) {
            bool *there = &reach[(size_t)i * count + j], *back = &reach[(size_t)j * count + i];

            *there = *back = *there && *back;
            all = all && *there;
        }
    return all;
}

/* Ranks that do not reach each other have their host's memory in common: then no node is more than
 * one host. */
static void split_domains(zcta_context *context)
{
    for (uint32_t i = 0; context->nodes != NULL && i < context->job.rank_count; i++)
        context->nodes[i] = zc_mesh_host(context->mesh, i);
}

/* Who reaches whom; kept only if somebody does not. Nobody asks where it is plain. */
static zcta_status learn_reach(const zcta_team *world, const struct place *places)
{
    zcta_context *context = world->context;
    const uint32_t count = context->job.rank_count;
    bool *row = NULL, *reach = NULL, matters = false;
    zcta_status status;

    for (uint32_t i = 0; i < count; i++)
        matters = matters || places[i].gpu_id != 0 || places[i].alone != 0;
    if (!matters)
        return ZCTA_OK;
    row = calloc(count, sizeof *row);
    reach = calloc((size_t)count * count, sizeof *reach);
    if (row == NULL || reach == NULL) {
        status = fail_memory(world);
        goto out;
    }
    for (uint32_t i = 0; i < count; i++)
        row[i] = reaches(context, places, i);
    status = exchange(world, row, reach, count * sizeof *row);
    if (status == ZCTA_OK && !make_mutual(reach, count)) {
        context->reach = reach;
        reach = NULL;
        split_domains(context);
    }
out:
    free(reach);
    free(row);
    return status;
}

zcta_status zc_learn_places(zcta_team *world)
{
    zcta_context *context = world->context;
    const uint32_t count = context->job.rank_count;
    struct place mine = {.gpu_id = context->caps.gpu_id,
                         .alone = zc_environment_choice("ZEROCTA_P2P") == 0};
    struct place *places = NULL;
    zcta_status status;

    zc_forget_places(context);
    if (count == 1)
        return ZCTA_OK;
    places = calloc(count, sizeof *places);
    if (places == NULL)
        return fail_memory(world);
    /* Through the host's memory a node is one host. */
    if (zc_group_has_hosts(&world->group) && mine.alone == 0)
        mine.domain = context->ops->join_domain(context->device);
    status = exchange(world, &mine, places, sizeof mine);
    if (status == ZCTA_OK)
        status = learn_nodes(world, places);
    if (status == ZCTA_OK)
        status = learn_reach(world, places);
    forget_single_node(context);
    free(places);
    return status;
}

void zc_forget_places(zcta_context *context)
{
    free(context->nodes);
    free(context->reach);
    context->nodes = NULL;
    context->reach = NULL;
}
