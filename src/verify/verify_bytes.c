/* The verifier: what every buffer holds, and who touched it last. An access has to come after the
 * latest write of the same bytes and, if it writes, after the reads since; then it comes after all
 * that went before as well. */
#include "verify/verify_internal.h"

#include <stdlib.h>
#include <string.h>

/* One copy's, send's or receive's access, all of its rows. It lasts from behind its views to its
 * mark. */
struct access {
    struct zc_mark mark;
    struct zc_view views[2];
    uint32_t view_count;
};

static uint32_t actor_of(const struct zc_verifier *v, const struct access *access)
{
    return access->mark.event.lane / v->lanes;
}

static struct zc_content *content_of(struct zc_verifier *v, const struct zc_place *place)
{
    return &v->bytes.contents[place->rank * ZC_BUFFERS + place->buffer];
}

/* ---- Segments ---- */

static void clear(struct zc_content *content)
{
    for (uint32_t i = 0; i < content->count; i++)
        free(content->segments[i].reads.list);
    content->count = content->latest = 0;
}

void zc_content_free(struct zc_content *content)
{
    clear(content);
    free(content->segments);
}

static bool ends_behind(const struct zc_content *content, uint32_t at, uint64_t offset)
{
    return at >= content->count ||
           content->segments[at].offset + content->segments[at].bytes > offset;
}

/* The first segment that ends behind `offset`. */
static uint32_t find(struct zc_content *content, uint64_t offset)
{
    uint32_t low = content->latest, high = low + 2;

    if (low > 0 && ends_behind(content, low - 1, offset))
        low = 0, high = content->count;
    else if (!ends_behind(content, high, offset))
        low = high, high = content->count;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;

        if (ends_behind(content, middle, offset))
            high = middle;
        else
            low = middle + 1;
    }
    content->latest = low;
    return low;
}

/* Makes room for one more segment at `at`: an empty one, for the caller to fill. */
static bool open_gap(struct zc_verifier *v, struct zc_content *content, uint32_t at)
{
    struct zc_segment *segments;

    if (!zc_verify_reserve(v, &content->segments, content->count, &content->capacity,
                           sizeof *segments))
        return false;
    segments = content->segments;
    memmove(segments + at + 1, segments + at, (content->count - at) * sizeof *segments);
    segments[at] = (struct zc_segment){.call = ZC_NO_CALL};
    content->count++;
    return true;
}

static bool copy_marks(struct zc_verifier *v, struct zc_marks *to, const struct zc_marks *from)
{
    *to = (struct zc_marks){0};
    if (from->count == 0)
        return true;
    to->list = malloc(from->count * sizeof *to->list);
    if (to->list == NULL) {
        v->status = ZCTA_ERR_NO_MEMORY;
        return false;
    }
    memcpy(to->list, from->list, from->count * sizeof *to->list);
    to->count = to->capacity = from->count;
    return true;
}

/* Splits the segment that `offset` is inside of, if there is one. Returns the first segment that
 * begins at or behind it. */
static uint32_t cut(struct zc_verifier *v, struct zc_content *content, uint64_t offset)
{
    const uint32_t at = find(content, offset);
    struct zc_segment *left, *right;
    struct zc_marks reads;

    if (at == content->count || content->segments[at].offset >= offset)
        return at;
    if (!copy_marks(v, &reads, &content->segments[at].reads))
        return at;
    if (!open_gap(v, content, at)) {
        free(reads.list);
        return at;
    }
    left = &content->segments[at];
    right = left + 1;
    *left = *right;
    left->reads = reads;
    left->bytes = offset - left->offset;
    right->offset = offset;
    right->bytes -= left->bytes;
    right->origin_offset += left->bytes;
    return at + 1;
}

/* ---- Accesses ---- */

static void ask_order(struct zc_verifier *v, const struct zc_mark *before,
                      const struct access *access, uint32_t rank)
{
    const struct zc_mark *mark = &access->mark;

    if (before->event.tick == 0)
        return;
    if (before->event.lane == mark->event.lane && before->event.tick == mark->event.tick)
        zc_verify_defect(v, "call %u: rank %u, step %u reads what it overwrites", mark->call,
                         actor_of(v, access), mark->step);
    else
        zc_order_ask(v, before->event, access->views, access->view_count,
                     (struct zc_subject){.kind = ZC_ASK_RACE,
                                         .rank = rank,
                                         .call = {before->call, mark->call},
                                         .step = {before->step, mark->step}});
}

/* Of a lane the latest read is enough, as the others come before it. */
static void add_read(struct zc_verifier *v, struct zc_marks *reads, const struct zc_mark *mark)
{
    struct zc_mark *last = reads->count > 0 ? &reads->list[reads->count - 1] : NULL;

    if (last != NULL && last->event.lane == mark->event.lane)
        *last = *mark;
    else if (zc_verify_reserve(v, &reads->list, reads->count, &reads->capacity, sizeof *mark))
        reads->list[reads->count++] = *mark;
}

/* Adds a piece behind the others that are carried, to lie `shift` further on than where it is. */
static void carry(struct zc_verifier *v, const struct zc_segment *piece, uint64_t shift)
{
    struct zc_content *carried = &v->bytes.carried;
    struct zc_segment *last = carried->count > 0 ? &carried->segments[carried->count - 1] : NULL;
    struct zc_segment added = *piece;

    added.offset += shift;
    added.written = (struct zc_mark){0};
    added.reads = (struct zc_marks){0};
    if (last != NULL && last->offset + last->bytes == added.offset &&
        last->origin == added.origin && last->call == added.call &&
        (added.call == ZC_NO_CALL || last->origin_offset + last->bytes == added.origin_offset)) {
        last->bytes += added.bytes;
        return;
    }
    if (zc_verify_reserve(v, &carried->segments, carried->count, &carried->capacity, sizeof added))
        carried->segments[carried->count++] = added;
}

/* Lets segment `at` begin at `offset`: where nobody has touched anything, up to `end` or the next.
 */
static void fill_gap(struct zc_verifier *v, struct zc_content *content, uint32_t at,
                     uint64_t offset, uint64_t end)
{
    const uint64_t next = at < content->count ? content->segments[at].offset : end;

    if (next > offset && open_gap(v, content, at)) {
        content->segments[at].offset = offset;
        content->segments[at].bytes = (next < end ? next : end) - offset;
    }
}

/* Reads; what is there is carried off, to lie `shift` further on. */
static void read_bytes(struct zc_verifier *v, const struct access *access,
                       const struct zc_place *place, uint64_t bytes, uint64_t shift)
{
    struct zc_content *content = content_of(v, place);
    const uint64_t end = place->offset + bytes;
    uint64_t offset = place->offset;
    uint32_t at;

    cut(v, content, end);
    for (at = cut(v, content, offset); offset < end && v->status != ZCTA_ERR_NO_MEMORY; at++) {
        struct zc_segment *segment;

        fill_gap(v, content, at, offset, end);
        if (v->status == ZCTA_ERR_NO_MEMORY)
            return;
        segment = &content->segments[at];
        if (access != NULL) {
            ask_order(v, &segment->written, access, place->rank);
            add_read(v, &segment->reads, &access->mark);
        }
        carry(v, segment, shift);
        offset = segment->offset + segment->bytes;
    }
}

/* Puts what is carried, which is to lie there, in place of [begin, end). */
static void replace(struct zc_verifier *v, struct zc_content *content, uint64_t begin, uint64_t end,
                    const struct zc_mark *mark)
{
    const struct zc_content *carried = &v->bytes.carried;
    uint32_t first, last;

    cut(v, content, end);
    first = last = cut(v, content, begin);
    while (last < content->count && content->segments[last].offset < end)
        last++;
    while (last - first < carried->count && open_gap(v, content, last))
        last++;
    if (v->status == ZCTA_ERR_NO_MEMORY)
        return;
    for (uint32_t i = first; i < last; i++)
        free(content->segments[i].reads.list);
    for (uint32_t i = 0; i < carried->count; i++) {
        content->segments[first + i] = carried->segments[i];
        content->segments[first + i].written = *mark;
    }
    first += carried->count;
    memmove(content->segments + first, content->segments + last,
            (content->count - last) * sizeof *content->segments);
    content->count -= last - first;
}

/* Memory of the team's, not of a call: the ranks may touch each other's at any time. */
static bool is_the_teams(const struct zc_place *place)
{
    return place->buffer == ZC_SCRATCH || place->buffer == ZC_HOST;
}

/* Writes what is carried. */
static void write_bytes(struct zc_verifier *v, const struct access *access,
                        const struct zc_place *place, uint64_t bytes)
{
    struct zc_content *content = content_of(v, place);
    const uint64_t end = place->offset + bytes;
    uint32_t at = find(content, place->offset);

    for (; at < content->count && content->segments[at].offset < end; at++) {
        const struct zc_segment *segment = &content->segments[at];

        /* No harm to the output, but a step too many. */
        if (is_the_teams(place) && segment->written.event.tick != 0 &&
            segment->written.call == access->mark.call && segment->reads.count == 0)
            zc_verify_defect(v, "call %u: rank %u, step %u overwrites what nobody has read",
                             access->mark.call, actor_of(v, access), access->mark.step);
        ask_order(v, &segment->written, access, place->rank);
        for (uint32_t i = 0; i < segment->reads.count; i++)
            ask_order(v, &segment->reads.list[i], access, place->rank);
    }
    if (place->buffer == ZC_RECV)
        v->bytes.written[place->rank] += bytes;
    replace(v, content, place->offset, end, &access->mark);
}

/* ---- Inside the call ---- */

/* A released output is the peers' from the release on, but for the share that is in place there. */
static bool was_released(const struct zc_verifier *v, uint32_t call, const struct zc_place *place,
                         uint64_t bytes)
{
    const struct zc_request *request = &zc_plan_of(v, call, place->rank)->request;
    const struct zc_flow own = zc_flow_between(request->layout, place->rank, place->rank);

    if (!request->released || place->buffer != ZC_RECV || call == 0 ||
        !zc_has(zc_plan_of(v, call - 1, place->rank)->request.algorithm, ZC_OPENS))
        return false;
    return !request->in_place || place->offset >= own.to_at + own.bytes ||
           place->offset + bytes <= own.to_at;
}

/* Others touch a rank's buffers when it has entered, and before it leaves. */
static void check_inside(struct zc_verifier *v, const struct access *access,
                         const struct zc_place *place, uint64_t bytes)
{
    const uint32_t call = access->mark.call, step = access->mark.step;
    const struct zc_rank_state *owner = &v->first.ranks[place->rank];
    uint32_t opened, entered;

    if (is_the_teams(place) || place->rank == actor_of(v, access))
        return;
    opened = was_released(v, call, place, bytes) ? call - 1 : call;
    entered = v->entered[(size_t)opened * v->ranks + place->rank];
    if (owner->call > call)
        zc_verify_defect(
            v, "call %u: rank %u, step %u may touch rank %u's buffer after that rank left", call,
            actor_of(v, access), step, place->rank);
    else if (entered == 0)
        zc_verify_defect(
            v, "call %u: rank %u, step %u touches rank %u's buffer before that rank has entered",
            call, actor_of(v, access), step, place->rank);
    else
        zc_order_ask(v, (struct zc_event){place->rank * v->lanes, entered}, access->views,
                     access->view_count,
                     (struct zc_subject){.kind = ZC_ASK_ENTERED,
                                         .rank = place->rank,
                                         .call = {opened, call},
                                         .step = {0, step}});
}

void zc_bytes_copy(struct zc_verifier *v, const struct zc_step *step, struct zc_mark mark)
{
    const struct access access = {
        .mark = mark, .views = {zc_view_now(&v->first, mark.event.lane)}, .view_count = 1};

    for (uint32_t row = 0; row < step->rows && v->status == ZCTA_OK; row++) {
        struct zc_place from = step->from, to = step->to;

        from.offset += row * step->stride;
        to.offset += row * step->stride;
        check_inside(v, &access, &from, step->bytes);
        check_inside(v, &access, &to, step->bytes);
        v->bytes.carried.count = 0;
        read_bytes(v, &access, &from, step->bytes, to.offset - from.offset);
        write_bytes(v, &access, &to, step->bytes);
    }
}

/* ---- Over the network ---- */

void zc_bytes_take(struct zc_verifier *v, const struct zc_step *step, struct zc_message *message)
{
    const struct zc_content spare = v->bytes.carried;

    v->bytes.carried = (struct zc_content){0};
    read_bytes(v, NULL, &step->from, step->bytes, -step->from.offset);
    message->content = v->bytes.carried;
    v->bytes.carried = spare;
}

static struct zc_view begin_of(const struct zc_group *group)
{
    return (struct zc_view){.event = group->event, .own = group->clock};
}

void zc_bytes_send(struct zc_verifier *v, const struct zc_step *step, const struct zc_group *group,
                   struct zc_mark mark)
{
    const struct access access = {.mark = mark, .views = {begin_of(group)}, .view_count = 1};

    v->bytes.carried.count = 0;
    read_bytes(v, &access, &step->from, step->bytes, 0);
}

/* It comes in some time after both ranks have begun: nothing else of the group holds it up. */
void zc_bytes_receive(struct zc_verifier *v, const struct zc_step *step,
                      const struct zc_group *group, const struct zc_message *message,
                      struct zc_mark mark)
{
    const struct zc_view sent = {.event = message->event, .own = message->clock};
    const struct access access = {.mark = mark, .views = {begin_of(group), sent}, .view_count = 2};

    v->bytes.carried.count = 0;
    for (uint32_t i = 0; i < message->content.count; i++)
        carry(v, &message->content.segments[i], step->to.offset);
    write_bytes(v, &access, &step->to, step->bytes);
}

/* ---- Calls ---- */

bool zc_bytes_begin(struct zc_verifier *v)
{
    v->bytes.contents = calloc((size_t)v->ranks * ZC_BUFFERS, sizeof *v->bytes.contents);
    v->bytes.written = calloc(v->ranks, sizeof *v->bytes.written);
    if (v->bytes.contents == NULL || v->bytes.written == NULL)
        v->status = ZCTA_ERR_NO_MEMORY;
    return v->status == ZCTA_OK;
}

void zc_bytes_end(struct zc_verifier *v)
{
    for (size_t i = 0; v->bytes.contents != NULL && i < (size_t)v->ranks * ZC_BUFFERS; i++)
        zc_content_free(&v->bytes.contents[i]);
    free(v->bytes.contents);
    free(v->bytes.written);
    free(v->bytes.carried.segments);
}

/* The caller puts this part of its input into a buffer. */
static void fill(struct zc_verifier *v, uint32_t rank, uint32_t call, const struct zc_place *buffer,
                 struct zc_flow part)
{
    if (part.bytes == 0)
        return;
    v->bytes.carried.count = 0;
    carry(v,
          &(struct zc_segment){
              .bytes = part.bytes, .origin = rank, .call = call, .origin_offset = part.from_at},
          part.to_at);
    replace(v, content_of(v, buffer), part.to_at, part.to_at + part.bytes, &(struct zc_mark){0});
}

/* Between calls the caller rewrites its buffers: what was gathered before is stale now, and who
 * touched it has been looked at when the call was left. A released output is the peers' since the
 * release. */
void zc_bytes_enter(struct zc_verifier *v, uint32_t rank, uint32_t call)
{
    const struct zc_request *request = &zc_plan_of(v, call, rank)->request;
    const struct zc_place send = zc_at(rank, ZC_SEND, 0), recv = zc_at(rank, ZC_RECV, 0);
    const struct zc_flow own = zc_flow_between(request->layout, rank, rank);
    const uint64_t input = zc_layout_send_bytes(request->layout, rank);

    clear(content_of(v, &send));
    if (!request->released) {
        clear(content_of(v, &recv));
        v->bytes.written[rank] = 0;
    }
    if (request->in_place) {
        fill(v, rank, call, &send, (struct zc_flow){.bytes = own.from_at});
        fill(v, rank, call, &send,
             (struct zc_flow){.from_at = own.from_at + own.bytes,
                              .to_at = own.from_at + own.bytes,
                              .bytes = input - own.from_at - own.bytes});
        fill(v, rank, call, &recv, own);
    } else {
        fill(v, rank, call, &send, (struct zc_flow){.bytes = input});
    }
}

static void check_left(struct zc_verifier *v, const struct zc_mark *mark, uint32_t rank,
                       uint32_t call, const struct zc_view *leaving)
{
    if (mark->event.tick != 0 && mark->call == call && mark->event.lane / v->lanes != rank)
        zc_order_ask(
            v, mark->event, leaving, 1,
            (struct zc_subject){
                .kind = ZC_ASK_LEFT, .rank = rank, .call = {call, call}, .step = {mark->step, 0}});
}

/* Whether these bytes of the output are the flow's. */
static bool holds(struct zc_content *recv, const struct zc_flow *flow, uint32_t from, uint32_t call)
{
    const uint64_t end = flow->to_at + flow->bytes;
    uint64_t at = flow->to_at;

    for (uint32_t i = find(recv, at); i < recv->count && at < end; i++) {
        const struct zc_segment *s = &recv->segments[i];

        if (s->offset > at || s->call != call || s->origin != from ||
            s->origin_offset + (at - s->offset) != flow->from_at + (at - flow->to_at))
            break;
        at = s->offset + s->bytes;
    }
    return at >= end;
}

/* Every flow in its place, nothing of it written twice, and nothing else written. */
static void check_output(struct zc_verifier *v, const struct zc_request *request,
                         struct zc_content *recv, uint32_t call)
{
    uint64_t owed = 0;

    for (uint32_t from = 0; from < v->ranks; from++) {
        const struct zc_flow flow = zc_flow_between(request->layout, from, request->rank);

        if (!holds(recv, &flow, from, call))
            zc_verify_defect(v,
                             "call %u: rank %u leaves without the right bytes of rank %u's share",
                             call, request->rank, from);
        owed += request->in_place && from == request->rank ? 0 : flow.bytes;
    }
    if (v->bytes.written[request->rank] != owed)
        zc_verify_defect(v,
                         "call %u: rank %u's output is written more than once, or more of it than "
                         "its own",
                         call, request->rank);
}

void zc_bytes_leave(struct zc_verifier *v, uint32_t rank, uint32_t call)
{
    const struct zc_request *request = &zc_plan_of(v, call, rank)->request;
    const struct zc_view leaving = zc_view_now(&v->first, rank * v->lanes);
    const struct zc_place place = zc_at(rank, ZC_RECV, 0);
    struct zc_content *recv = content_of(v, &place);

    for (uint32_t i = 0; i < recv->count; i++) {
        const struct zc_segment *segment = &recv->segments[i];

        check_left(v, &segment->written, rank, call, &leaving);
        for (uint32_t j = 0; j < segment->reads.count; j++)
            check_left(v, &segment->reads.list[j], rank, call, &leaving);
    }
    if (!zc_has(request->algorithm, ZC_OPENS))
        check_output(v, request, recv, call);
}
