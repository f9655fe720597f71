/* What must be in the memory of a call. */
#include "contents.h"

#include <stdlib.h>

#include "pattern.h"

enum { STAMPS = 3, STAMP_BYTES = 8 };

struct zc_piece {
    uint64_t at, bytes;
    uint32_t rank;    /* whose input it is from; ZCTA_NO_RANK: nobody may write it */
    uint64_t from_at; /* where in that */
    bool arrives;     /* from another input than that which lies here already */
};

/* ---- Memory ---- */

static zcta_status make_window(zcta_team *team, uint64_t bytes, zcta_window **window, char **base)
{
    const zcta_status status = bytes == 0 ? ZCTA_OK : zcta_window_alloc(team, bytes, window);

    *base = zcta_window_base(*window);
    return status;
}

zcta_status zc_arena_open(zcta_team *team, const struct zc_sized *sized,
                          const struct zc_mover *mover, struct zc_arena *arena)
{
    zcta_status status;

    *arena = (struct zc_arena){.mover = mover};
    if (mover != NULL) {
        arena->stage = malloc(sized->room + sized->apart);
        if (arena->stage == NULL)
            return ZCTA_ERR_NO_MEMORY;
    }
    status = make_window(team, sized->room, &arena->windows[0], &arena->recv);
    if (status == ZCTA_OK)
        status = make_window(team, sized->apart, &arena->windows[1], &arena->send);
    return status;
}

void zc_arena_close(struct zc_arena *arena)
{
    free(arena->stage);
    for (int i = 0; i < 2; i++)
        if (arena->windows[i] != NULL)
            zcta_window_free(&arena->windows[i]);
    *arena = (struct zc_arena){.recv = NULL};
}

/* ---- Where things are ---- */

/* The memory as the CPU sees it. */
static char *recv_view(const struct zc_contents *contents)
{
    return contents->arena->stage != NULL ? contents->arena->stage : contents->arena->recv;
}

static char *send_view(const struct zc_contents *contents)
{
    return contents->arena->stage != NULL ? contents->arena->stage + contents->sized->room
                                          : contents->arena->send;
}

/* The input as the CPU sees it, in place or apart. */
static char *input_view(const struct zc_contents *contents)
{
    return contents->sized->in_place ? recv_view(contents) + zc_sized_input_at(contents->sized)
                                     : send_view(contents);
}

static bool put(const struct zc_contents *contents, char *at, const char *view, uint64_t bytes)
{
    const struct zc_mover *mover = contents->arena->mover;

    return mover == NULL || bytes == 0 || mover->put(mover->data, at, view, bytes);
}

static bool get(const struct zc_contents *contents, char *view, const char *at, uint64_t bytes)
{
    const struct zc_mover *mover = contents->arena->mover;

    return mover == NULL || bytes == 0 || mover->get(mover->data, view, at, bytes);
}

static int by_place(const void *left, const void *right)
{
    const struct zc_piece *a = left, *b = right;

    return (a->at > b->at) - (a->at < b->at);
}

/* What is written, or read in place. */
static uint32_t list_shares(const struct zc_sized *sized, struct zc_piece *pieces)
{
    uint32_t count = 0;

    for (uint32_t from = 0; from < sized->ranks; from++) {
        const zcta_flow in = sized->in[from];

        if (in.bytes > 0 && !(sized->in_place && from == sized->rank))
            pieces[count++] = (struct zc_piece){.at = sized->front + in.to_at,
                                                .bytes = in.bytes,
                                                .rank = from,
                                                .from_at = in.from_at,
                                                .arrives = true};
    }
    if (sized->in_place)
        pieces[count++] = (struct zc_piece){
            .at = zc_sized_input_at(sized), .bytes = sized->send_bytes, .rank = sized->rank};
    qsort(pieces, count, sizeof *pieces, by_place);
    return count;
}

/* Puts what lies between them, which nobody may write, behind them. */
static uint32_t list_gaps(uint64_t room, struct zc_piece *pieces, uint32_t count)
{
    uint32_t all = count;
    uint64_t end = 0;

    for (uint32_t i = 0; i <= count; i++) {
        const uint64_t begin = i < count ? pieces[i].at : room;

        if (begin > end)
            pieces[all++] = (struct zc_piece){
                .at = end, .bytes = begin - end, .rank = ZCTA_NO_RANK, .from_at = end};
        end = i < count ? begin + pieces[i].bytes : end;
    }
    return all;
}

bool zc_contents_open(const struct zc_sized *sized, const struct zc_arena *arena,
                      struct zc_contents *contents)
{
    *contents = (struct zc_contents){.sized = sized, .arena = arena, .call = sized->call};
    contents->pieces = calloc(2 * ((size_t)sized->ranks + 1) + 1, sizeof *contents->pieces);
    if (contents->pieces == NULL)
        return false;
    contents->piece_count = list_shares(sized, contents->pieces);
    contents->piece_count = list_gaps(sized->room, contents->pieces, contents->piece_count);
    contents->call.recv = contents->arena->recv + sized->front;
    /* Where all ranks are to be in place, one that gives nothing says so, too. */
    if (sized->in_place || sized->as_in_place)
        contents->call.send = contents->arena->recv + zc_sized_input_at(sized);
    else
        contents->call.send = contents->arena->send;
    return true;
}

void zc_contents_close(struct zc_contents *contents)
{
    free(contents->pieces);
    contents->pieces = NULL;
}

/* ---- The whole ---- */

static struct zc_pattern own_pattern(const struct zc_contents *contents, uint64_t serial)
{
    return zc_pattern_of(contents->sized->rank, serial);
}

bool zc_contents_prepare(const struct zc_contents *contents, uint64_t serial)
{
    const struct zc_sized *sized = contents->sized;
    char *view = recv_view(contents);

    for (uint32_t i = 0; i < contents->piece_count; i++) {
        const struct zc_piece *piece = &contents->pieces[i];
        const struct zc_pattern pattern = zc_pattern_of(piece->rank, serial);

        if (piece->arrives)
            zc_pattern_poison(pattern, view + piece->at, piece->from_at, piece->bytes);
        else
            zc_pattern_fill(pattern, view + piece->at, piece->from_at, piece->bytes);
    }
    if (!sized->in_place && sized->send_bytes > 0)
        zc_pattern_fill(own_pattern(contents, serial), input_view(contents), 0, sized->send_bytes);
    return put(contents, contents->arena->recv, view, sized->room) &&
           (sized->in_place ||
            put(contents, contents->arena->send, send_view(contents), sized->send_bytes));
}

bool zc_contents_check(const struct zc_contents *contents, uint64_t serial, uint64_t *wrong)
{
    const struct zc_sized *sized = contents->sized;
    char *view = recv_view(contents);

    if (!get(contents, view, contents->arena->recv, sized->room) ||
        (!sized->in_place &&
         !get(contents, send_view(contents), contents->arena->send, sized->send_bytes)))
        return false;
    for (uint32_t i = 0; i < contents->piece_count; i++) {
        const struct zc_piece *piece = &contents->pieces[i];

        *wrong += zc_pattern_check(zc_pattern_of(piece->rank, serial), view + piece->at,
                                   piece->from_at, piece->bytes);
    }
    if (!sized->in_place && sized->send_bytes > 0)
        *wrong += zc_pattern_check(own_pattern(contents, serial), input_view(contents), 0,
                                   sized->send_bytes);
    return true;
}

/* ---- Stamps ---- */

/* Where a stamp of a share begins, counted from the share's beginning, and how long it is. */
static uint64_t stamp_offset(uint64_t share, uint32_t stamp)
{
    const uint64_t last = (share - 1) / STAMP_BYTES;

    return last * stamp / (STAMPS - 1) * STAMP_BYTES;
}

static uint64_t stamp_bytes(uint64_t share, uint64_t offset)
{
    const uint64_t left = share - offset;

    return left < STAMP_BYTES ? left : STAMP_BYTES;
}

/* Several ranks may get the same share: it is stamped once. */
static bool is_stamped(const struct zc_sized *sized, uint32_t to)
{
    return to > 0 && sized->out[to].from_at == sized->out[to - 1].from_at &&
           sized->out[to].bytes == sized->out[to - 1].bytes;
}

static bool stamp_share(const struct zc_contents *contents, zcta_flow flow, uint64_t serial)
{
    char *view = input_view(contents) + flow.from_at;
    char *at = (char *)(uintptr_t)contents->call.send + flow.from_at;
    bool placed = true;

    for (uint32_t i = 0; i < STAMPS && placed; i++) {
        const uint64_t offset = stamp_offset(flow.bytes, i);
        const uint64_t bytes = stamp_bytes(flow.bytes, offset);

        zc_pattern_fill(own_pattern(contents, serial), view + offset, flow.from_at + offset, bytes);
        placed = put(contents, at + offset, view + offset, bytes);
    }
    return placed;
}

bool zc_contents_stamp(const struct zc_contents *contents, uint64_t serial)
{
    const struct zc_sized *sized = contents->sized;
    bool placed = true;

    for (uint32_t to = 0; to < sized->ranks && placed; to++)
        if (sized->out[to].bytes > 0 && !is_stamped(sized, to))
            placed = stamp_share(contents, sized->out[to], serial);
    return placed;
}

bool zc_contents_check_stamps(const struct zc_contents *contents, uint64_t serial, uint64_t *wrong)
{
    const struct zc_sized *sized = contents->sized;
    bool viewed = true;

    for (uint32_t from = 0; from < sized->ranks; from++) {
        const struct zc_pattern pattern = zc_pattern_of(from, serial);
        const zcta_flow in = sized->in[from];
        const uint64_t begin = sized->front + in.to_at;

        for (uint32_t i = 0; i < STAMPS && in.bytes > 0 && viewed; i++) {
            const uint64_t offset = stamp_offset(in.bytes, i);
            const uint64_t bytes = stamp_bytes(in.bytes, offset);
            char *view = recv_view(contents) + begin + offset;

            viewed = get(contents, view, contents->arena->recv + begin + offset, bytes);
            *wrong += zc_pattern_check(pattern, view, in.from_at + offset, bytes);
        }
    }
    return viewed;
}
