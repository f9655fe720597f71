/* The verifier: which plans it takes, and the order of its work. */
#include "verify/verify.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "verify/verify_internal.h"

void zc_verify_defect(struct zc_verifier *v, const char *format, ...)
{
    va_list args;

    if (v->status != ZCTA_OK)
        return;
    v->status = ZCTA_ERR_INVALID;
    va_start(args, format);
    vsnprintf(v->text, v->text_bytes, format, args);
    va_end(args);
}

/* The pointer is copied bytewise, because its type differs from call to call. */
bool zc_verify_reserve(struct zc_verifier *v, void *array, uint32_t count, uint32_t *capacity,
                       size_t size)
{
    void *held, *grown;

    if (count < *capacity)
        return true;
    memcpy(&held, array, sizeof held);
    grown = realloc(held, (*capacity == 0 ? 4 : (size_t)*capacity * 2) * size);
    if (grown == NULL) {
        v->status = ZCTA_ERR_NO_MEMORY;
        return false;
    }
    *capacity = *capacity == 0 ? 4 : *capacity * 2;
    memcpy(array, &grown, sizeof grown);
    return true; /* cppcheck-suppress memleak ; kept through `array` */
}

void zc_verify_count_step(struct zc_verifier *v)
{
    v->steps_done++;
    zc_progress_step(v->options->progress, v->steps_done,
                     v->steps_done < v->steps_total ? v->steps_total : v->steps_done);
}

/* The requests of one call differ in nothing but the rank; in place, and how the own share gets
 * there, is the rank's own affair here. */
static bool same_request(const struct zc_request *a, const struct zc_request *b)
{
    return a->algorithm == b->algorithm && a->half == b->half &&
           a->scratch_bytes == b->scratch_bytes && a->bounce_bytes == b->bounce_bytes &&
           a->host_bytes == b->host_bytes && a->ring_bytes == b->ring_bytes &&
           a->released == b->released && a->node_ranks == b->node_ranks && a->chunks == b->chunks &&
           zc_layout_same(a->layout, b->layout);
}

/* Where ranks name their partners, each sender and its receiver must mean the same flow. */
static void check_partners(struct zc_verifier *v, uint32_t call)
{
    if ((zc_plan_of(v, call, 0)->request.layout->collective->traits & ZC_PARTNERS) == 0)
        return;
    for (uint32_t from = 0; from < v->ranks && v->status == ZCTA_OK; from++)
        for (uint32_t to = 0; to < v->ranks; to++) {
            const struct zc_layout *sender = zc_plan_of(v, call, from)->request.layout;
            const struct zc_layout *receiver = zc_plan_of(v, call, to)->request.layout;

            if (zc_flow_between(sender, from, to).bytes !=
                zc_flow_between(receiver, from, to).bytes)
                zc_verify_defect(v,
                                 "call %u: rank %u and rank %u do not mean the same flow from the "
                                 "one to the other",
                                 call, from, to);
        }
}

static void check_plan(struct zc_verifier *v, uint32_t call, uint32_t rank)
{
    const struct zc_plan *plan = zc_plan_of(v, call, rank);
    const struct zc_request *first = &zc_plan_of(v, call, 0)->request;
    char why[256];

    if (zc_plan_defect(plan, why, sizeof why) != NULL)
        zc_verify_defect(v, "call %u: %s", call, why);
    else if (plan->request.rank != rank || plan->request.layout->ranks != v->ranks ||
             !same_request(&plan->request, first))
        zc_verify_defect(v, "call %u: the plan given for rank %u is not of the same call", call,
                         rank);
    else if (zc_request_node_ranks(first) != zc_request_node_ranks(&zc_plan_of(v, 0, 0)->request))
        zc_verify_defect(v, "call %u: the ranks are on other nodes than in the first call", call);
}

static void check_plans(struct zc_verifier *v)
{
    for (uint32_t call = 0; call < v->call_count; call++)
        for (uint32_t rank = 0; rank < v->ranks && v->status == ZCTA_OK; rank++) {
            const struct zc_plan *plan = zc_plan_of(v, call, rank);

            check_plan(v, call, rank);
            v->steps_total += plan->step_count;
            if (v->lanes < plan->lane_count)
                v->lanes = plan->lane_count;
        }
    for (uint32_t call = 0; call < v->call_count && v->status == ZCTA_OK; call++)
        check_partners(v, call);
}

static void run(struct zc_verifier *v)
{
    v->entered = calloc((size_t)v->call_count * v->ranks, sizeof *v->entered);
    if (v->entered == NULL)
        v->status = ZCTA_ERR_NO_MEMORY;
    else if (zc_bytes_begin(v) && zc_execution_begin(&v->first, v, v->lanes)) {
        zc_execute(&v->first);
        zc_order_answer(v);
    }
    zc_execution_end(&v->first);
    zc_bytes_end(v);
    free(v->entered);
    free(v->questions.list);
}

zcta_status zc_verify(const struct zc_verify_call *calls, uint32_t call_count,
                      const struct zc_verify_options *options,
                      char *text, /* NOLINT(readability-non-const-parameter): kept in v */
                      size_t bytes)
{
    static const struct zc_verify_options usual = {0};
    struct zc_verifier v = {.calls = calls,
                            .call_count = call_count,
                            .ranks = call_count > 0 ? calls[0].plans[0]->request.layout->ranks : 0,
                            .lanes = 1,
                            .options = options == NULL ? &usual : options,
                            .text = text,
                            .text_bytes = bytes};

    if (v.ranks == 0)
        return ZCTA_ERR_INVALID;
    check_plans(&v);
    if (v.status == ZCTA_OK)
        run(&v);
    return v.status;
}

/* The most that one execution holds, in the order of struct zc_execution and struct zc_bytes: a
 * rank's state, its channels, two records a signal (one under way, one kept), a message
 * with what it carries, a segment for what each row of a copy writes and a mark for what it reads
 * of others', in arrays that grow by doubling. */
uint64_t zc_verify_bytes(const struct zc_plan *plan, uint32_t call_count)
{
    const uint64_t ranks = plan->request.layout->ranks, lanes = plan->lane_count;
    const uint64_t sent = sizeof(struct zc_sent_signal) + lanes * sizeof(uint32_t);
    uint64_t bytes = sizeof(struct zc_rank_state) +
                     ranks * (ZC_CHANNELS * sizeof(struct zc_channel_state) + sizeof(int32_t));

    bytes += lanes * (lanes + 1) * sizeof(uint32_t) + call_count * sizeof(uint32_t);
    for (uint32_t i = 0; i < plan->step_count; i++) {
        const struct zc_step *step = &plan->steps[i];

        if (step->kind == ZC_STEP_SIGNAL)
            bytes += 2 * sent;
        else if (step->kind == ZC_STEP_NET_SEND)
            bytes += sizeof(struct zc_message) + lanes * sizeof(uint32_t);
        if (step->kind == ZC_STEP_COPY || zc_step_is_network(step))
            bytes += 2 * step->rows * sizeof(struct zc_segment);
        if (step->kind == ZC_STEP_COPY && step->from.rank != plan->request.rank)
            bytes += 2 * sizeof(struct zc_mark);
    }
    return bytes * ranks;
}
