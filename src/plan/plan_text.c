/* The text form of a plan: printed for people, parsed back for tests and tools.
 *
 *     plan COLLECTIVE direct-push ranks 2 rank 0 bytes 64 out-of-place half 0 scratch 0 lanes 2/1
 * block 0 ready now
 *     0 signal 1 ready
 *     1 copy 0:send+0 0:recv+0 64
 *
 * The header is the request, lanes being those of the device and those of the plan. What not every
 * request has follows in this order: "nodes of 8 chunks 4", "closed" (no data, for graphs),
 * "grouped", "bounced 65536" (the size of the slot), "host 65536 ring 16777216" (where there is
 * host memory: one half, and the ring), "root 3", the counts of uneven ones as "shares
 * BYTES:FROM:TO ..." in the order of the layout's arrays, and the partners as "partners TO:BYTES
 * FROM:BYTES", where - is nobody. A step line is its lane, its kind, and its operands; a copy of
 * several rows ends in "rows 3 stride 512"; of what goes over the network the line tells the other
 * rank, the place in this rank's memory, and the bytes. */
#include "plan/plan.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_2(name, text) text,
static const char *const step_names[] = {ZC_STEP_LIST(TEXT_2)};
static const char *const buffer_names[] = {ZC_BUFFER_LIST(TEXT_2)};
static const char *const channel_names[] = {ZC_CHANNEL_LIST(TEXT_2)};
static const char *const place_names[] = {"out-of-place", "in-place"};
static const char *const ready_names[] = {"now", "released"};

static void print_step(const struct zc_step *step, FILE *out)
{
    const struct zc_place *place;

    fprintf(out, "%" PRIu32 " %s", step->lane, step_names[step->kind]);
    switch (step->kind) {
    case ZC_STEP_COPY:
        fprintf(out, " %" PRIu32 ":%s+%" PRIu64 " %" PRIu32 ":%s+%" PRIu64 " %" PRIu64,
                step->from.rank, buffer_names[step->from.buffer], step->from.offset, step->to.rank,
                buffer_names[step->to.buffer], step->to.offset, step->bytes);
        if (step->rows != 1)
            fprintf(out, " rows %" PRIu32 " stride %" PRIu64, step->rows, step->stride);
        break;
    case ZC_STEP_NET_SEND:
    case ZC_STEP_NET_RECV:
        place = step->kind == ZC_STEP_NET_SEND ? &step->from : &step->to;
        fprintf(out, " %" PRIu32 " %s+%" PRIu64 " %" PRIu64, step->peer,
                buffer_names[place->buffer], place->offset, step->bytes);
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

static uint64_t entry(const uint64_t *array, size_t i)
{
    return array == NULL ? 0 : array[i];
}

static void print_partner(uint32_t rank, uint64_t bytes, FILE *out)
{
    if (rank == ZCTA_NO_RANK)
        fprintf(out, " -:%" PRIu64, bytes);
    else
        fprintf(out, " %" PRIu32 ":%" PRIu64, rank, bytes);
}

static void print_layout(const struct zc_layout *layout, FILE *out)
{
    const size_t entries = zc_layout_entries(layout->collective, layout->ranks);

    if ((layout->collective->traits & ZC_ROOTED) != 0)
        fprintf(out, " root %" PRIu32, layout->root);
    if (entries > 0)
        fprintf(out, " shares");
    for (size_t i = 0; i < entries; i++)
        fprintf(out, " %" PRIu64 ":%" PRIu64 ":%" PRIu64, entry(layout->bytes_of, i),
                entry(layout->from_at, i), entry(layout->to_at, i));
    if ((layout->collective->traits & ZC_PARTNERS) != 0) {
        fprintf(out, " partners");
        print_partner(layout->to, layout->to_bytes, out);
        print_partner(layout->from, layout->from_bytes, out);
    }
}

void zc_plan_print(const struct zc_plan *plan, FILE *out)
{
    const struct zc_request *request = &plan->request;

    fprintf(out,
            "plan %s %s ranks %" PRIu32 " rank %" PRIu32 " bytes %" PRIu64 " %s half %" PRIu32
            " scratch %" PRIu64 " lanes %" PRIu32 "/%" PRIu32 " block %" PRIu64 " ready %s",
            request->layout->collective->name, request->algorithm->name, request->layout->ranks,
            request->rank, request->layout->bytes, place_names[request->in_place], request->half,
            request->scratch_bytes, request->lanes, plan->lane_count, request->block_bytes,
            ready_names[request->released]);
    if (request->node_ranks != 0)
        fprintf(out, " nodes of %" PRIu32 " chunks %" PRIu32, request->node_ranks, request->chunks);
    if (request->closed)
        fprintf(out, " closed");
    if (request->grouped)
        fprintf(out, " grouped");
    if (request->bounced)
        fprintf(out, " bounced %" PRIu64, request->bounce_bytes);
    if (request->host_bytes != 0 || request->ring_bytes != 0)
        fprintf(out, " host %" PRIu64 " ring %" PRIu64, request->host_bytes, request->ring_bytes);
    print_layout(request->layout, out);
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
    } else if (zc_step_is_network(&step)) {
        step.peer = number32(reader);
        expect(reader, " ");
        step.from = step.to = own_place(reader, request);
        expect(reader, " ");
        step.bytes = number(reader, INT64_MAX);
        step.rows = 1;
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

/* The word that stands here, up to the next space. */
static size_t word(const struct reader *reader)
{
    size_t length = 0;

    while (reader->at + length < reader->end && reader->at[length] != ' ' &&
           reader->at[length] != '\n')
        length++;
    return length;
}

static const struct zc_collective *parse_collective(struct reader *reader)
{
    const size_t length = word(reader);
    const struct zc_collective *found = zc_collective_named(reader->at, length);

    if (found == NULL && reader->wanted == NULL)
        reader->wanted = "a collective";
    reader->at += length;
    return found;
}

static const struct zc_algorithm *parse_algorithm(struct reader *reader)
{
    const size_t length = word(reader);

    for (uint32_t i = 0; i < ZC_ALGORITHMS; i++)
        if (strlen(zc_algorithms[i]->name) == length &&
            memcmp(reader->at, zc_algorithms[i]->name, length) == 0) {
            reader->at += length;
            return zc_algorithms[i];
        }
    if (reader->wanted == NULL)
        reader->wanted = "an algorithm";
    return NULL;
}

/* The arrays lie behind the layout; an entry takes five characters at least, so that a short text
 * cannot ask for much memory. */
static bool make_layout(struct reader *reader, struct zc_plan *plan,
                        const struct zc_collective *collective, uint32_t ranks)
{
    const size_t entries = zc_layout_entries(collective, ranks);
    uint64_t *arrays;

    if (entries > (size_t)(reader->end - reader->at) / 5) {
        reader->wanted = "as many shares as the ranks need";
        return false;
    }
    plan->parsed = calloc(1, sizeof *plan->parsed + 3 * entries * sizeof *arrays);
    if (plan->parsed == NULL)
        return false;
    arrays = (uint64_t *)(plan->parsed + 1);
    *plan->parsed = (struct zc_layout){.collective = collective,
                                       .ranks = ranks,
                                       .to = ZCTA_NO_RANK,
                                       .from = ZCTA_NO_RANK,
                                       .bytes_of = entries == 0 ? NULL : arrays,
                                       .from_at = entries == 0 ? NULL : arrays + entries,
                                       .to_at = entries == 0 ? NULL : arrays + 2 * entries};
    plan->request.layout = plan->parsed;
    return true;
}

static void parse_shares(struct reader *reader, struct zc_layout *layout)
{
    const size_t entries = zc_layout_entries(layout->collective, layout->ranks);
    uint64_t *arrays = (uint64_t *)(layout + 1);

    if (entries > 0)
        expect(reader, " shares");
    for (size_t i = 0; i < entries && reader->wanted == NULL; i++) {
        expect(reader, " ");
        arrays[i] = number(reader, INT64_MAX);
        expect(reader, ":");
        arrays[entries + i] = number(reader, INT64_MAX);
        expect(reader, ":");
        arrays[2 * entries + i] = number(reader, INT64_MAX);
    }
}

static void parse_partner(struct reader *reader, uint32_t *rank, uint64_t *bytes)
{
    expect(reader, " ");
    *rank = match(reader, "-") ? ZCTA_NO_RANK : number32(reader);
    expect(reader, ":");
    *bytes = number(reader, INT64_MAX);
}

static void parse_layout(struct reader *reader, struct zc_layout *layout)
{
    if ((layout->collective->traits & ZC_ROOTED) != 0) {
        expect(reader, " root ");
        layout->root = number32(reader);
    }
    parse_shares(reader, layout);
    if ((layout->collective->traits & ZC_PARTNERS) != 0) {
        expect(reader, " partners");
        parse_partner(reader, &layout->to, &layout->to_bytes);
        parse_partner(reader, &layout->from, &layout->from_bytes);
    }
}

static void parse_options(struct reader *reader, struct zc_request *request)
{
    if (match(reader, " nodes of ")) {
        request->node_ranks = number32(reader);
        expect(reader, " chunks ");
        request->chunks = number32(reader);
    }
    request->closed = match(reader, " closed");
    request->grouped = match(reader, " grouped");
    request->bounced = match(reader, " bounced ");
    if (request->bounced)
        request->bounce_bytes = number(reader, INT64_MAX);
    if (match(reader, " host ")) {
        request->host_bytes = number(reader, INT64_MAX);
        expect(reader, " ring ");
        request->ring_bytes = number(reader, INT64_MAX);
    }
}

/* False: there is no memory for it, or it is wrong and the reader knows. */
static bool parse_header(struct reader *reader, struct zc_plan *plan)
{
    struct zc_request *request = &plan->request;
    const struct zc_collective *collective;
    uint32_t ranks;

    expect(reader, "plan ");
    collective = parse_collective(reader);
    expect(reader, " ");
    request->algorithm = parse_algorithm(reader);
    expect(reader, " ranks ");
    ranks = number32(reader);
    if (reader->wanted != NULL || !make_layout(reader, plan, collective, ranks))
        return false;
    expect(reader, " rank ");
    request->rank = plan->parsed->self = number32(reader);
    expect(reader, " bytes ");
    plan->parsed->bytes = number(reader, INT64_MAX);
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
    parse_options(reader, request);
    parse_layout(reader, plan->parsed);
    expect(reader, "\n");
    return reader->wanted == NULL;
}

/* Steps are counted before they are kept: one line each. */
static uint32_t count_lines(const char *source, size_t length)
{
    uint32_t lines = 0;

    for (size_t i = 0; i < length; i++)
        lines += source[i] == '\n';
    return lines;
}

/* Deriving takes the square of the ranks' number, which a few digits of text can make large. */
#define PARSED_RANKS_MOST 8192u

static const char *layout_defect(struct zc_layout *layout)
{
    return layout->ranks > PARSED_RANKS_MOST ? "more ranks than a plan's text may have"
                                             : zc_layout_derive(layout);
}

static zcta_status parse_into(struct zc_plan *plan, const char *source, size_t length, char *text,
                              size_t bytes)
{
    struct reader reader = {.at = source, .end = source + length};
    const char *defect;
    uint32_t line = 1;

    if (!parse_header(&reader, plan) && reader.wanted == NULL)
        return ZCTA_ERR_NO_MEMORY;
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
    defect = layout_defect(plan->parsed);
    if (defect != NULL) {
        snprintf(text, bytes, "line 1: %s", defect);
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
