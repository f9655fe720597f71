/* The text form of a plan: printed for people, parsed back for tests and tools.
 *
 *     plan all_gather direct-push ranks 2 rank 0 bytes 64 out-of-place half 0 scratch 0 lanes 2/1
 * block 0 ready now
 *     0 signal 1 ready
 *     1 copy 0:send+0 0:recv+0 64
 *
 * The header is the request, lanes being those of the device and those of the plan; over several
 * nodes it ends in "nodes of 8 chunks 4", that of a barrier for graphs in "closed", and that of
 * pushes that stand together in "grouped". A step line
 * is its lane, its kind, and its operands; a copy of several rows ends in "rows 3 stride 512", and
 * an exchange is told by its first row. */
#include "plan/plan.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_2(name, text)                   text,
#define TEXT_3(name, text, title)            text,
#define TEXT_4(name, text, make, collective) text,
static const char *const step_names[] = {ZC_STEP_LIST(TEXT_2)};
static const char *const buffer_names[] = {ZC_BUFFER_LIST(TEXT_2)};
static const char *const channel_names[] = {ZC_CHANNEL_LIST(TEXT_2)};
static const char *const collective_names[] = {ZC_COLLECTIVE_LIST(TEXT_3)};
static const char *const algorithm_names[] = {ZC_ALGORITHM_LIST(TEXT_4)};
static const char *const place_names[] = {"out-of-place", "in-place"};
static const char *const ready_names[] = {"now", "released"};

static void print_step(const struct zc_step *step, FILE *out)
{
    fprintf(out, "%" PRIu32 " %s", step->lane, step_names[step->kind]);
    switch (step->kind) {
    case ZC_STEP_COPY:
        fprintf(out, " %" PRIu32 ":%s+%" PRIu64 " %" PRIu32 ":%s+%" PRIu64 " %" PRIu64,
                step->from.rank, buffer_names[step->from.buffer], step->from.offset, step->to.rank,
                buffer_names[step->to.buffer], step->to.offset, step->bytes);
        if (step->rows != 1)
            fprintf(out, " rows %" PRIu32 " stride %" PRIu64, step->rows, step->stride);
        break;
    case ZC_STEP_EXCHANGE:
        fprintf(out, " %s+%" PRIu64 " %" PRIu64 " rows %" PRIu32 " stride %" PRIu64,
                buffer_names[step->to.buffer], step->to.offset, step->bytes, step->rows,
                step->stride);
        break;
    case ZC_STEP_SIGNAL:
    case ZC_STEP_WAIT:
        fprintf(out, " %" PRIu32 " %s", step->peer, channel_names[step->channel]);
        break;
    case ZC_STEP_FORK:
    case ZC_STEP_JOIN:
        fprintf(out, " %" PRIu32, step->peer);
        break;
    case ZC_STEP_KINDS:
        break;
    }
    fputc('\n', out);
}

void zc_plan_print(const struct zc_plan *plan, FILE *out)
{
    const struct zc_request *request = &plan->request;

    fprintf(out,
            "plan %s %s ranks %" PRIu32 " rank %" PRIu32 " bytes %" PRIu64 " %s half %" PRIu32
            " scratch %" PRIu64 " lanes %" PRIu32 "/%" PRIu32 " block %" PRIu64 " ready %s",
            collective_names[request->collective], algorithm_names[request->algorithm],
            request->rank_count, request->rank, request->bytes, place_names[request->in_place],
            request->half, request->scratch_bytes, request->lanes, plan->lane_count,
            request->block_bytes, ready_names[request->released]);
    if (request->node_ranks != 0)
        fprintf(out, " nodes of %" PRIu32 " chunks %" PRIu32, request->node_ranks, request->chunks);
    if (request->closed)
        fprintf(out, " closed");
    if (request->grouped)
        fprintf(out, " grouped");
    fputc('\n', out);
    for (uint32_t i = 0; i < plan->step_count; i++)
        print_step(&plan->steps[i], out);
}

/* ---- Parsing ---- */

/* A cursor that remembers the first thing that did not fit; later reads then do nothing. */
struct reader {
    const char *at, *end;
    const char *wanted;
};

static bool match(struct reader *reader, const char *text)
{
    const size_t length = strlen(text);

    if (reader->wanted != NULL || (size_t)(reader->end - reader->at) < length ||
        memcmp(reader->at, text, length) != 0)
        return false;
    reader->at += length;
    return true;
}

static void expect(struct reader *reader, const char *text)
{
    if (!match(reader, text) && reader->wanted == NULL)
        reader->wanted = text;
}

static uint64_t number(struct reader *reader, uint64_t most)
{
    const char *begin = reader->at;
    uint64_t value = 0;

    while (reader->wanted == NULL && reader->at < reader->end && *reader->at >= '0' &&
           *reader->at <= '9') {
        const uint64_t digit = (uint64_t)(*reader->at - '0');

        if (value > (most - digit) / 10) {
            reader->wanted = "a smaller number";
            return 0;
        }
        value = value * 10 + digit;
        reader->at++;
    }
    if (reader->at == begin && reader->wanted == NULL)
        reader->wanted = "a number";
    return value;
}

static uint32_t number32(struct reader *reader)
{
    return (uint32_t)number(reader, UINT32_MAX);
}

/* The longest name that stands here, as an index. */
static uint32_t name(struct reader *reader, const char *const *names, size_t count,
                     const char *wanted)
{
    for (uint32_t i = 0; i < count; i++)
        if (match(reader, names[i]))
            return i;
    if (reader->wanted == NULL)
        reader->wanted = wanted;
    return 0;
}

#define NAME(reader, names, wanted) name(reader, names, sizeof(names) / sizeof((names)[0]), wanted)

static struct zc_place place(struct reader *reader)
{
    struct zc_place place = {0};

    place.rank = number32(reader);
    expect(reader, ":");
    place.buffer = (enum zc_buffer)NAME(reader, buffer_names, "a buffer");
    expect(reader, "+");
    place.offset = number(reader, INT64_MAX);
    return place;
}

/* In this rank's own memory. */
static struct zc_place own_place(struct reader *reader, const struct zc_request *request)
{
    struct zc_place place = {.rank = request->rank};

    place.buffer = (enum zc_buffer)NAME(reader, buffer_names, "a buffer");
    expect(reader, "+");
    place.offset = number(reader, INT64_MAX);
    return place;
}

static uint64_t own_node(const struct zc_request *request)
{
    return request->node_ranks == 0 ? 0 : request->rank / request->node_ranks;
}

static void rows(struct reader *reader, struct zc_step *step)
{
    step->rows = number32(reader);
    expect(reader, " stride ");
    step->stride = number(reader, INT64_MAX / 4096);
}

static struct zc_step parse_step(struct reader *reader, const struct zc_request *request)
{
    struct zc_step step = {0};

    step.lane = number32(reader);
    expect(reader, " ");
    step.kind = (enum zc_step_kind)NAME(reader, step_names, "a kind of step");
    expect(reader, " ");
    if (step.kind == ZC_STEP_COPY) {
        step.from = place(reader);
        expect(reader, " ");
        step.to = place(reader);
        expect(reader, " ");
        step.bytes = number(reader, INT64_MAX);
        step.rows = 1;
        if (match(reader, " rows "))
            rows(reader, &step);
    } else if (step.kind == ZC_STEP_EXCHANGE) {
        step.to = own_place(reader, request);
        expect(reader, " ");
        step.bytes = number(reader, INT64_MAX);
        expect(reader, " rows ");
        rows(reader, &step);
        step.from = step.to;
        step.from.offset += own_node(request) * step.stride;
    } else {
        step.peer = number32(reader);
    }
    if (step.kind == ZC_STEP_SIGNAL || step.kind == ZC_STEP_WAIT) {
        expect(reader, " ");
        step.channel = (enum zc_channel)NAME(reader, channel_names, "a channel");
    }
    expect(reader, "\n");
    return step;
}

static void parse_header(struct reader *reader, struct zc_plan *plan)
{
    struct zc_request *request = &plan->request;

    expect(reader, "plan ");
    request->collective = (enum zc_collective)NAME(reader, collective_names, "a collective");
    expect(reader, " ");
    request->algorithm = (enum zc_algorithm)NAME(reader, algorithm_names, "an algorithm");
    expect(reader, " ranks ");
    request->rank_count = number32(reader);
    expect(reader, " rank ");
    request->rank = number32(reader);
    expect(reader, " bytes ");
    request->bytes = number(reader, INT64_MAX);
    expect(reader, " ");
    request->in_place = NAME(reader, place_names, "in-place or out-of-place") == 1;
    expect(reader, " half ");
    request->half = number32(reader);
    expect(reader, " scratch ");
    request->scratch_bytes = number(reader, INT64_MAX);
    expect(reader, " lanes ");
    request->lanes = number32(reader);
    expect(reader, "/");
    plan->lane_count = number32(reader);
    expect(reader, " block ");
    request->block_bytes = number(reader, INT64_MAX);
    expect(reader, " ready ");
    request->released = NAME(reader, ready_names, "now or released") == 1;
    if (match(reader, " nodes of ")) {
        request->node_ranks = number32(reader);
        expect(reader, " chunks ");
        request->chunks = number32(reader);
    }
    request->closed = match(reader, " closed");
    request->grouped = match(reader, " grouped");
    expect(reader, "\n");
}

/* Steps are counted before they are kept: one line each. */
static uint32_t count_lines(const char *source, size_t length)
{
    uint32_t lines = 0;

    for (size_t i = 0; i < length; i++)
        lines += source[i] == '\n';
    return lines;
}

static zcta_status parse_into(struct zc_plan *plan, const char *source, size_t length, char *text,
                              size_t bytes)
{
    struct reader reader = {.at = source, .end = source + length};
    uint32_t line = 1;

    parse_header(&reader, plan);
    while (reader.wanted == NULL && reader.at < reader.end) {
        line++;
        plan->steps[plan->step_count] = parse_step(&reader, &plan->request);
        plan->step_count += reader.wanted == NULL;
    }
    if (reader.wanted != NULL) {
        snprintf(text, bytes, "line %" PRIu32 ": expected %s", line,
                 strcmp(reader.wanted, "\n") == 0 ? "the end of the line" : reader.wanted);
        return ZCTA_ERR_INVALID;
    }
    return zc_plan_defect(plan, text, bytes) == NULL ? ZCTA_OK : ZCTA_ERR_INVALID;
}

zcta_status zc_plan_parse(const char *source, size_t length, struct zc_plan **plan, char *text,
                          size_t bytes)
{
    struct zc_plan *parsed = calloc(1, sizeof *parsed);
    zcta_status status = ZCTA_ERR_NO_MEMORY;

    if (length > (size_t)1 << 31) {
        snprintf(text, bytes, "a plan's text is at most 2 GiB");
        status = ZCTA_ERR_INVALID;
        goto out;
    }
    if (parsed == NULL)
        goto out;
    parsed->capacity = count_lines(source, length) + 1;
    parsed->steps = calloc(parsed->capacity, sizeof *parsed->steps);
    if (parsed->steps == NULL)
        goto out;
    status = parse_into(parsed, source, length, text, bytes);
    if (status != ZCTA_OK)
        goto out;
    *plan = parsed;
    parsed = NULL;
out:
    zc_plan_destroy(parsed);
    return status;
}
