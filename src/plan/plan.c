/* Making plans: the table of algorithms, appending steps, and what makes the steps of one plan well
 * formed. */
#include "plan/plan.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

static const struct {
    const char *name;
    void (*make)(struct zc_plan *plan);
    enum zc_collective collective;
} algorithms[ZC_ALGORITHMS] = {
#define ALGORITHM_ROW(name, text, make, collective)                                                \
    [ZC_ALGORITHM_##name] = {text, make, ZC_COLLECTIVE_##collective},
    ZC_ALGORITHM_LIST(ALGORITHM_ROW)
#undef ALGORITHM_ROW
};

static const struct {
    const char *name, *title;
} collectives[ZC_COLLECTIVES] = {
#define COLLECTIVE_ROW(name, text, title) [ZC_COLLECTIVE_##name] = {text, title},
    ZC_COLLECTIVE_LIST(COLLECTIVE_ROW)
#undef COLLECTIVE_ROW
};

const char *zc_collective_name(enum zc_collective collective)
{
    assert(collective < ZC_COLLECTIVES);
    return collectives[collective].name;
}

const char *zc_collective_title(enum zc_collective collective)
{
    assert(collective < ZC_COLLECTIVES);
    return collectives[collective].title;
}

const char *zc_algorithm_name(enum zc_algorithm algorithm)
{
    assert(algorithm < ZC_ALGORITHMS);
    return algorithms[algorithm].name;
}

enum zc_collective zc_algorithm_collective(enum zc_algorithm algorithm)
{
    assert(algorithm < ZC_ALGORITHMS);
    return algorithms[algorithm].collective;
}

/* A team's plans are many. */
static void trim(struct zc_plan *plan)
{
    struct zc_step *steps;

    if (plan->step_count == 0 || plan->step_count == plan->capacity)
        return;
    steps = realloc(plan->steps, plan->step_count * sizeof *steps);
    if (steps == NULL)
        return;
    plan->steps = steps;
    plan->capacity = plan->step_count;
}

zcta_status zc_plan_make(const struct zc_request *request, struct zc_plan **plan)
{
    struct zc_plan *made = NULL;
    zcta_status status = ZCTA_OK;

    if (zc_request_defect(request) != NULL)
        return ZCTA_ERR_INVALID;
    made = calloc(1, sizeof *made);
    if (made == NULL)
        return ZCTA_ERR_NO_MEMORY;
    made->request = *request;
    made->lane_count = 1;
    if (request->bytes > 0 || request->collective == ZC_COLLECTIVE_BARRIER)
        algorithms[request->algorithm].make(made);
    if (made->out_of_memory) {
        status = ZCTA_ERR_NO_MEMORY;
        goto out;
    }
    trim(made);
    *plan = made;
    made = NULL;
out:
    zc_plan_destroy(made);
    return status;
}

void zc_plan_destroy(struct zc_plan *plan)
{
    if (plan == NULL)
        return;
    free(plan->steps);
    free(plan);
}

/* ---- Appending ---- */

static void append(struct zc_plan *plan, const struct zc_step *step)
{
    if (plan->step_count == plan->capacity) {
        const uint32_t capacity = plan->capacity == 0 ? 64 : plan->capacity * 2;
        struct zc_step *steps = NULL;

        if (plan->capacity <= UINT32_MAX / 2 && !plan->out_of_memory)
            steps = realloc(plan->steps, capacity * sizeof *steps);
        if (steps == NULL) {
            plan->out_of_memory = true;
            return;
        }
        plan->steps = steps;
        plan->capacity = capacity;
    }
    plan->steps[plan->step_count++] = *step;
}

struct zc_place zc_at(uint32_t rank, enum zc_buffer buffer, uint64_t offset)
{
    return (struct zc_place){.rank = rank, .buffer = buffer, .offset = offset};
}

void zc_plan_copy(struct zc_plan *plan, uint32_t lane, struct zc_place from, struct zc_place to,
                  uint64_t bytes)
{
    zc_plan_copy_rows(plan, lane, from, to, bytes, 1, 0);
}

void zc_plan_copy_rows(struct zc_plan *plan, uint32_t lane, struct zc_place from,
                       struct zc_place to, uint64_t bytes, uint32_t rows, uint64_t stride)
{
    append(plan, &(struct zc_step){.kind = ZC_STEP_COPY,
                                   .lane = lane,
                                   .from = from,
                                   .to = to,
                                   .bytes = bytes,
                                   .rows = rows,
                                   .stride = rows == 1 ? 0 : stride});
}

void zc_plan_exchange(struct zc_plan *plan, uint32_t lane, struct zc_place to, uint64_t bytes,
                      uint64_t stride)
{
    const struct zc_request *request = &plan->request;
    struct zc_place from = to;

    from.offset += request->rank / zc_request_node_ranks(request) * stride;
    append(plan, &(struct zc_step){.kind = ZC_STEP_EXCHANGE,
                                   .lane = lane,
                                   .from = from,
                                   .to = to,
                                   .bytes = bytes,
                                   .rows = zc_request_nodes(request),
                                   .stride = stride});
}

void zc_plan_signal(struct zc_plan *plan, uint32_t lane, uint32_t peer, enum zc_channel channel)
{
    append(plan, &(struct zc_step){
                     .kind = ZC_STEP_SIGNAL, .lane = lane, .peer = peer, .channel = channel});
}

void zc_plan_wait(struct zc_plan *plan, uint32_t lane, uint32_t peer, enum zc_channel channel)
{
    append(plan,
           &(struct zc_step){.kind = ZC_STEP_WAIT, .lane = lane, .peer = peer, .channel = channel});
}

void zc_plan_fork(struct zc_plan *plan, uint32_t lane)
{
    if (lane >= plan->lane_count)
        plan->lane_count = lane + 1;
    append(plan, &(struct zc_step){.kind = ZC_STEP_FORK, .peer = lane});
}

void zc_plan_join(struct zc_plan *plan, uint32_t lane)
{
    append(plan, &(struct zc_step){.kind = ZC_STEP_JOIN, .peer = lane});
}

void zc_plan_with_node(struct zc_plan *plan, enum zc_channel channel, zc_plan_flag_fn *flag)
{
    const struct zc_request *request = &plan->request;
    const uint32_t size = zc_request_node_ranks(request), position = request->rank % size;

    for (uint32_t i = 1; i < size; i++)
        flag(plan, 0, request->rank - position + (position + i) % size, channel);
}

/* ---- Well formed in itself ---- */

/* `place` is the first of `rows` rows. */
static const char *place_defect(const struct zc_request *request, const struct zc_place *place,
                                uint64_t bytes, uint32_t rows, uint64_t stride)
{
    uint64_t room;

    if (place->rank >= request->rank_count)
        return "names a rank outside the team";
    if (place->buffer >= ZC_BUFFERS)
        return "names no buffer";
    if (place->buffer == ZC_SEND && place->rank != request->rank)
        return "touches another rank's send buffer, which has no address here";
    room = zc_plan_buffer_bytes(request, place->buffer);
    if (place->offset > room || bytes > room - place->offset)
        return "reaches past the end of a buffer";
    room -= place->offset + bytes;
    if (rows > 1 && (stride == 0 || stride < bytes || rows - 1 > room / stride))
        return "has rows that overlap or reach past the end of a buffer";
    return NULL;
}

static const char *copy_defect(const struct zc_request *request, const struct zc_step *step)
{
    const char *defect = place_defect(request, &step->from, step->bytes, step->rows, step->stride);

    if (defect == NULL)
        defect = place_defect(request, &step->to, step->bytes, step->rows, step->stride);
    if (defect == NULL && step->to.buffer == ZC_SEND)
        defect = "writes to the send buffer";
    if (defect == NULL && (step->bytes == 0 || step->rows == 0))
        defect = "copies nothing";
    if (defect == NULL && step->to.rank / zc_request_node_ranks(request) !=
                              step->from.rank / zc_request_node_ranks(request))
        defect = "copies from node to node";
    if (defect == NULL && step->to.rank / zc_request_node_ranks(request) !=
                              request->rank / zc_request_node_ranks(request))
        defect = "copies within another node";
    return defect;
}

static const char *exchange_defect(const struct zc_request *request, const struct zc_step *step)
{
    const uint32_t node = request->rank / zc_request_node_ranks(request);
    const char *defect = place_defect(request, &step->to, step->bytes, step->rows, step->stride);

    if (defect == NULL && step->rows != zc_request_nodes(request))
        defect = "has not a row for each node";
    if (defect == NULL && step->bytes == 0)
        defect = "exchanges nothing";
    if (defect == NULL &&
        (step->to.rank != request->rank || step->to.buffer == ZC_SEND ||
         step->from.rank != request->rank || step->from.buffer != step->to.buffer ||
         step->from.offset != step->to.offset + node * step->stride))
        defect = "exchanges something else than its own row in its own memory";
    return defect;
}

enum lane_state { LANE_UNUSED, LANE_RUNNING, LANE_JOINED };

static const char *fork_defect(const struct zc_step *step, uint32_t lane_count,
                               enum lane_state *lanes)
{
    if (step->lane != 0 || step->peer == 0 || step->peer >= lane_count)
        return "forks or joins a lane that lane 0 cannot";
    if (lanes[step->peer] != (step->kind == ZC_STEP_FORK ? LANE_UNUSED : LANE_RUNNING))
        return "forks a lane twice, or joins one that does not run";
    lanes[step->peer] = step->kind == ZC_STEP_FORK ? LANE_RUNNING : LANE_JOINED;
    return NULL;
}

static const char *step_defect(const struct zc_plan *plan, const struct zc_step *step,
                               enum lane_state *lanes)
{
    const struct zc_request *request = &plan->request;

    if (step->lane >= plan->lane_count || lanes[step->lane] != LANE_RUNNING)
        return "stands on a lane that does not run";
    if (request->collective == ZC_COLLECTIVE_RELEASE && step->kind != ZC_STEP_SIGNAL)
        return "does something else in a release than to signal";
    switch (step->kind) {
    case ZC_STEP_COPY:
        return copy_defect(request, step);
    case ZC_STEP_EXCHANGE:
        return exchange_defect(request, step);
    case ZC_STEP_SIGNAL:
    case ZC_STEP_WAIT:
        if (step->peer >= request->rank_count || step->peer == request->rank ||
            step->peer / zc_request_node_ranks(request) !=
                request->rank / zc_request_node_ranks(request))
            return "signals or awaits a rank that is no peer";
        return step->channel < ZC_CHANNELS ? NULL : "names no channel";
    case ZC_STEP_FORK:
    case ZC_STEP_JOIN:
        return fork_defect(step, plan->lane_count, lanes);
    case ZC_STEP_KINDS:
        break;
    }
    return "is of no known kind";
}

const char *zc_plan_defect(const struct zc_plan *plan, char *text, size_t bytes)
{
    enum lane_state lanes[ZC_MAX_LANES] = {[0] = LANE_RUNNING};
    const char *defect = zc_request_defect(&plan->request);

    if (defect == NULL && (plan->lane_count == 0 || plan->lane_count > ZC_MAX_LANES))
        defect = "the number of lanes is out of range";
    if (defect != NULL) {
        snprintf(text, bytes, "rank %u: %s", plan->request.rank, defect);
        return text;
    }
    for (uint32_t i = 0; i < plan->step_count; i++) {
        defect = step_defect(plan, &plan->steps[i], lanes);
        if (defect != NULL) {
            snprintf(text, bytes, "rank %u, step %u %s", plan->request.rank, i, defect);
            return text;
        }
    }
    for (uint32_t lane = 1; lane < plan->lane_count; lane++)
        if (lanes[lane] == LANE_RUNNING) {
            snprintf(text, bytes, "rank %u: lane %u is never joined", plan->request.rank, lane);
            return text;
        }
    return NULL;
}
