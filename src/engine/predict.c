/* Predicting a collective's time by simulating all ranks. */
#include "engine/predict.h"

#include <stdlib.h>

#include "engine/program.h"

/* All ranks of the simulated team. Arrays of pointers are indexed by rank. */
struct team {
    struct zc_sim *sim;
    uint32_t count;
    struct zc_device_caps caps;
    struct zc_memory **send, **recv, **scratch, **host;
    void **recv_bases, **scratch_bases, **host_bases, **pads;
    _Atomic uint32_t *sent, *seen; /* [rank][channel][peer] */
    struct zc_guard *guards;
    struct zc_program **programs;
};

static void release(struct team *team)
{
    for (uint32_t i = 0; i < team->count; i++) {
        struct zc_device *device = team->sim == NULL ? NULL : zc_sim_device(team->sim, i);

        if (team->programs != NULL)
            zc_program_destroy(team->programs[i]);
        if (team->pads != NULL)
            free(team->pads[i]);
        if (team->send != NULL)
            zc_device_sim.memory_release(device, team->send[i]);
        if (team->recv != NULL)
            zc_device_sim.memory_release(device, team->recv[i]);
        if (team->scratch != NULL)
            zc_device_sim.memory_release(device, team->scratch[i]);
        if (team->host != NULL)
            zc_device_sim.memory_release(device, team->host[i]);
    }
    zc_sim_destroy(team->sim);
    free(team->send);
    free(team->recv);
    free(team->scratch);
    free(team->host);
    free(team->recv_bases);
    free(team->scratch_bases);
    free(team->host_bases);
    free(team->pads);
    free(team->sent);
    free(team->seen);
    free(team->guards);
    free(team->programs);
}

static zcta_status allocate(struct team *team)
{
    const size_t count = team->count;

    team->send = calloc(count, sizeof(*team->send));
    team->recv = calloc(count, sizeof(*team->recv));
    team->scratch = calloc(count, sizeof(*team->scratch));
    team->host = calloc(count, sizeof(*team->host));
    team->recv_bases = calloc(count, sizeof(*team->recv_bases));
    team->scratch_bases = calloc(count, sizeof(*team->scratch_bases));
    team->host_bases = calloc(count, sizeof(*team->host_bases));
    team->pads = calloc(count, sizeof(*team->pads));
    team->sent = calloc(count * count * ZC_CHANNELS, sizeof(*team->sent));
    team->seen = calloc(count * count * ZC_CHANNELS, sizeof(*team->seen));
    team->guards = calloc(count, sizeof(*team->guards));
    team->programs = calloc(count, sizeof(*team->programs));
    if (team->send == NULL || team->recv == NULL || team->scratch == NULL || team->host == NULL ||
        team->recv_bases == NULL || team->scratch_bases == NULL || team->host_bases == NULL ||
        team->pads == NULL || team->sent == NULL || team->seen == NULL || team->guards == NULL ||
        team->programs == NULL)
        return ZCTA_ERR_NO_MEMORY;
    return ZCTA_OK;
}

static zcta_status give(struct team *team, const struct zc_request *request, uint32_t rank,
                        enum zc_buffer buffer, struct zc_memory **memory)
{
    return zc_device_sim.memory_alloc(zc_sim_device(team->sim, rank),
                                      buffer == ZC_HOST ? ZC_ON_HOST : ZC_ON_DEVICE,
                                      zc_plan_buffer_bytes(request, buffer) + 1, 1, memory);
}

/* One rank's buffers: mere addresses but for the pad, whose slots are counted in. */
static zcta_status give_memory(struct team *team, const struct zc_request *request, uint32_t rank)
{
    zcta_status status = give(team, request, rank, ZC_SEND, &team->send[rank]);

    if (status == ZCTA_OK)
        status = give(team, request, rank, ZC_RECV, &team->recv[rank]);
    if (status == ZCTA_OK)
        status = give(team, request, rank, ZC_SCRATCH, &team->scratch[rank]);
    if (status == ZCTA_OK)
        status = give(team, request, rank, ZC_HOST, &team->host[rank]);
    if (status != ZCTA_OK)
        return status;
    team->recv_bases[rank] = team->recv[rank]->base;
    team->scratch_bases[rank] = team->scratch[rank]->base;
    team->host_bases[rank] = team->host[rank]->base;
    team->pads[rank] =
        calloc(1, zc_pad_bytes(team->count, team->caps.slot_bytes, team->caps.pad_head_bytes));
    return team->pads[rank] == NULL ? ZCTA_ERR_NO_MEMORY : ZCTA_OK;
}

static zcta_status give_program(struct team *team, const struct zc_request *request, uint32_t rank)
{
    const size_t counters = (size_t)rank * team->count * ZC_CHANNELS;
    const struct zc_binding binding = {.send = team->send[rank]->base,
                                       .recv = team->recv_bases,
                                       .scratch = team->scratch_bases,
                                       .host = team->host_bases,
                                       .pads = team->pads,
                                       .sent = team->sent + counters,
                                       .seen = team->seen + counters,
                                       .slot_bytes = team->caps.slot_bytes,
                                       .pad_head_bytes = team->caps.pad_head_bytes};
    struct zc_plan *plan = NULL;
    zcta_status status;

    status = zc_plan_make(request, &plan);
    if (status == ZCTA_OK)
        status = zc_program_make(plan, &binding, &team->guards[rank], &team->programs[rank]);
    if (status == ZCTA_OK)
        status = zc_device_sim.submit(zc_sim_device(team->sim, rank), team->programs[rank], NULL);
    zc_plan_destroy(plan);
    return status;
}

/* Half of the way is making the programs. */
struct way {
    const struct zc_progress *progress;
    uint64_t made;
};

static void tell_run(void *data, uint64_t done, uint64_t total)
{
    const struct way *way = data;

    (void)total;
    way->progress->tell(way->progress->data, way->made + done, way->made * 2);
}

static zcta_status give_programs(struct team *team, const struct zc_request *requests,
                                 struct way *way)
{
    zcta_status status = ZCTA_OK;

    for (uint32_t i = 0; i < team->count && status == ZCTA_OK; i++) {
        status = give_program(team, &requests[i], i);
        if (status != ZCTA_OK)
            break;
        way->made += team->programs[i]->lane_begin[team->programs[i]->lane_count];
        if (way->progress != NULL)
            way->progress->tell(way->progress->data, way->made,
                                way->made / (i + 1) * 2 * team->count);
    }
    return status;
}

zcta_status zc_predict(const struct zc_request *requests, const struct zc_sim_cost *cost,
                       const struct zc_progress *progress, struct zc_prediction *prediction)
{
    struct way way = {.progress = progress};
    const struct zc_progress run = {.tell = tell_run, .data = &way};
    const struct zc_sim_params params = {.rank_count = requests->layout->ranks,
                                         .timed = true,
                                         .cost = cost,
                                         .progress = progress == NULL ? NULL : &run};
    struct team team = {.count = requests->layout->ranks};
    struct zc_sim_result result = {0};
    zcta_status status;

    for (uint32_t i = 0; i < team.count; i++)
        if (requests[i].rank != i || zc_request_defect(&requests[i]) != NULL)
            return ZCTA_ERR_INVALID;
    status = allocate(&team);
    if (status == ZCTA_OK)
        status = zc_sim_create(&params, &team.sim);
    if (status != ZCTA_OK)
        goto out;
    zc_device_sim.describe(zc_sim_device(team.sim, 0), &team.caps);
    for (uint32_t i = 0; i < team.count && status == ZCTA_OK; i++)
        status = give_memory(&team, &requests[i], i);
    if (status == ZCTA_OK)
        status = give_programs(&team, requests, &way);
    if (status != ZCTA_OK)
        goto out;
    zc_sim_run(team.sim, &result);
    if (!result.finished) {
        status = ZCTA_ERR_INVALID;
        goto out;
    }
    *prediction = (struct zc_prediction){.time_ns = result.time_ns, .steps = result.steps};
out:
    release(&team);
    return status;
}

/* A rank's program, made from its plan; its counters and its pad, as far as they are touched. */
uint64_t zc_predict_bytes(const struct zc_plan *plan)
{
    enum { PAGE = 4096, WORD = 16 };
    const uint64_t ranks = plan->request.layout->ranks;
    const uint64_t slots = ranks * ZC_CHANNELS * (2 * sizeof(uint32_t) + WORD);
    uint64_t touched = 0;

    for (uint32_t i = 0; i < plan->step_count; i++)
        touched += plan->steps[i].kind == ZC_STEP_SIGNAL ? 3 * PAGE : 0;
    return ranks * (plan->step_count * sizeof(struct zc_op) + (slots < touched ? slots : touched) +
                    PAGE) +
           plan->step_count * sizeof(struct zc_step);
}
