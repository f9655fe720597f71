/* A collective on the command line, and the call that a rank makes for a size. What a call moves,
 * and so all sizes, is what zcta_call_flow() says of it. */
#include "collective.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guess.h"
#include "options.h"

/* Behind an output, where nobody writes. */
#define GUARD_BYTES UINT64_C(64)
/* `recv` and an input before it begin as memory of their own would. */
#define ALIGNMENT UINT64_C(4096)

enum { WEIGHT_MOST = 1 << 16 };

const zcta_collective zc_all_collectives[ZC_COLLECTIVE_COUNT] = {
#define ENTRY(name, value, symbol) ZCTA_##name,
    ZCTA_COLLECTIVE_LIST(ENTRY)
#undef ENTRY
};

/* ---- Which collective ---- */

static bool find(const char *command, const char *name, zcta_collective_info *info)
{
    struct zc_guess guess = {.given = name};
    char meant[ZC_GUESS_TEXT_BYTES];

    *info = (zcta_collective_info){.size = sizeof *info};
    if (zcta_collective_find((zcta_collective)0, name, info) == ZCTA_OK)
        return true;
    for (int i = 0; i < ZC_COLLECTIVE_COUNT; i++)
        zc_guess_try(&guess, zc_shape_of(zc_all_collectives[i]).info.name);
    zc_usage_error(command, "there is no collective '%s'%s; there are%s", name,
                   zc_guess_text(&guess, "", meant), ZC_COLLECTIVE_WORDS);
    return false;
}

struct zc_shape zc_shape_of(zcta_collective collective)
{
    struct zc_shape shape = {.info = {.size = sizeof shape.info}};

    zcta_collective_find(collective, NULL, &shape.info);
    return shape;
}

static const char *const counts_names[] = {
    [ZC_COUNTS_EVEN] = "even",
    [ZC_COUNTS_SKEWED] = "skewed",
    [ZC_COUNTS_ONE_HOT] = "one-hot",
    [ZC_COUNTS_RANDOM] = "random",
};

static bool read_counts(const char *command, const char *text, struct zc_shape *shape)
{
    static const char random[] = "random:";

    for (int i = 0; i < ZC_COUNTS_RANDOM; i++)
        if (strcmp(text, counts_names[i]) == 0) {
            shape->counts = (enum zc_counts)i;
            return true;
        }
    shape->counts = ZC_COUNTS_RANDOM;
    if (strncmp(text, random, sizeof random - 1) == 0 &&
        zc_parse_number(text + sizeof random - 1, &shape->seed))
        return true;
    zc_usage_error(command,
                   "--counts cannot be '%s'; it takes one of even, skewed, one-hot, random:SEED",
                   text);
    return false;
}

bool zc_shape_read(const char *command, const char *name, const struct zc_shape_options *given,
                   struct zc_shape *shape)
{
    *shape = (struct zc_shape){.root = 0};
    if (!find(command, name, &shape->info))
        return false;
    if (given->root != ZC_NOT_GIVEN && !zc_shape_has(shape, ZCTA_COLLECTIVE_ROOTED)) {
        zc_usage_error(command, "%s has no root; --root is for broadcast, gather and scatter",
                       name);
        return false;
    }
    if (given->counts != NULL && !zc_shape_has(shape, ZCTA_COLLECTIVE_UNEVEN)) {
        zc_usage_error(command,
                       "the shares of %s are of one size; --counts is for those that end in _v",
                       name);
        return false;
    }
    if (given->root != ZC_NOT_GIVEN)
        shape->root = (uint32_t)given->root;
    return given->counts == NULL || read_counts(command, given->counts, shape);
}

uint32_t zc_shapes_read(const char *command, char *const *names, int count, struct zc_shape *shapes)
{
    const struct zc_shape_options given = {.root = ZC_NOT_GIVEN};
    uint32_t read = 0;

    if (count == 1 && strcmp(names[0], "all") == 0)
        for (; read < ZC_COLLECTIVE_COUNT; read++)
            shapes[read] = zc_shape_of(zc_all_collectives[read]);
    else
        for (; read < (uint32_t)count; read++)
            if (!zc_shape_read(command, names[read], &given, &shapes[read]))
                return 0;
    return read;
}

bool zc_shape_fits(const char *command, const struct zc_shape *shape, uint64_t rank_count)
{
    if (shape->root < rank_count)
        return true;
    zc_usage_error(command, "--root %" PRIu32 " is not among %" PRIu64 " ranks", shape->root,
                   rank_count);
    return false;
}

const char *zc_counts_text(const struct zc_shape *shape, char text[ZC_COUNTS_TEXT_BYTES])
{
    if (shape->counts == ZC_COUNTS_RANDOM)
        snprintf(text, ZC_COUNTS_TEXT_BYTES, "random:%" PRIu64, shape->seed);
    else
        snprintf(text, ZC_COUNTS_TEXT_BYTES, "%s", counts_names[shape->counts]);
    return text;
}

/* ---- Shares ---- */

/* The rank whose share is the only one, with one-hot ones: not the root, so that something moves.
 */
static uint32_t hot_rank(const struct zc_shape *shape, uint32_t ranks)
{
    return (shape->root + 1) % ranks;
}

static uint64_t mix(uint64_t value)
{
    value += UINT64_C(0x9e3779b97f4a7c15);
    value = (value ^ value >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ value >> 27) * UINT64_C(0x94d049bb133111eb);
    return value ^ value >> 31;
}

/* How large the share of that index, from or to that rank, is beside the others. */
static uint64_t weight_of(const struct zc_shape *shape, uint32_t ranks, uint32_t rank,
                          uint64_t index)
{
    uint64_t chance;

    switch (shape->counts) {
    case ZC_COUNTS_EVEN:
        return 1;
    case ZC_COUNTS_SKEWED:
        return rank + UINT64_C(1);
    case ZC_COUNTS_ONE_HOT:
        return rank == hot_rank(shape, ranks);
    case ZC_COUNTS_RANDOM:
        break;
    }
    /* One in eight is empty, but never all of them. */
    chance = mix(mix(shape->seed) + index);
    return rank != hot_rank(shape, ranks) && chance >> 61 == 0 ? 0 : 1 + chance % WEIGHT_MOST;
}

/* bytes * weight / whole, rounded up, without leaving 64 bits. */
static uint64_t part_of(uint64_t bytes, uint64_t weight, uint64_t whole)
{
    if (whole == 0)
        return 0;
    return bytes / whole * weight + (bytes % whole * weight + whole - 1) / whole;
}

/* One share a rank, which together make the size. */
static void divide_shares(const struct zc_shape *shape, uint64_t bytes, uint32_t ranks,
                          size_t *counts)
{
    uint64_t whole = 0;

    for (uint32_t i = 0; i < ranks; i++)
        whole += weight_of(shape, ranks, i, i);
    for (uint32_t i = 0; i < ranks; i++)
        counts[i] = part_of(bytes, weight_of(shape, ranks, i, i), whole);
}

/* One a pair. The largest sum of those from one rank, or to one, is the size. */
static void divide_pairs(const struct zc_shape *shape, uint64_t bytes, uint32_t ranks,
                         size_t *counts)
{
    uint64_t whole = 0;

    for (uint32_t a = 0; a < ranks; a++) {
        uint64_t from = 0, to = 0;

        for (uint32_t b = 0; b < ranks; b++) {
            from += weight_of(shape, ranks, b, (uint64_t)a * ranks + b);
            to += weight_of(shape, ranks, a, (uint64_t)b * ranks + a);
        }
        whole = from > whole ? from : whole;
        whole = to > whole ? to : whole;
    }
    for (uint32_t from = 0; from < ranks; from++)
        for (uint32_t to = 0; to < ranks; to++) {
            const uint64_t index = (uint64_t)from * ranks + to;

            counts[index] = part_of(bytes, weight_of(shape, ranks, to, index), whole);
        }
}

/* ---- Flows ---- */

/* The arrays of this rank's flows, in one piece. */
static zcta_status read_flows(struct zc_sized *sized)
{
    const uint32_t self = sized->rank;
    zcta_status status = ZCTA_OK;

    sized->out = calloc(2 * (size_t)sized->ranks, sizeof *sized->out);
    if (sized->out == NULL)
        return ZCTA_ERR_NO_MEMORY;
    sized->in = sized->out + sized->ranks;
    for (uint32_t peer = 0; peer < sized->ranks && status == ZCTA_OK; peer++) {
        zcta_flow *out = &sized->out[peer], *in = &sized->in[peer];

        status = zcta_call_flow(&sized->call, sized->ranks, self, self, peer, out);
        if (status == ZCTA_OK)
            status = zcta_call_flow(&sized->call, sized->ranks, self, peer, self, in);
        if (status == ZCTA_OK && out->bytes > 0 && out->from_at + out->bytes > sized->send_bytes)
            sized->send_bytes = out->from_at + out->bytes;
    }
    return status;
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static bool overlap(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
    return a_bytes > 0 && b_bytes > 0 && a < b + b_bytes && b < a + a_bytes;
}

/* Whether this rank can call in place: nothing that comes from another may lie where something lies
 * that is still to be sent. Places are counted from `from_at` of the own share before `recv`. */
static bool may_be_in_place(const struct zc_sized *sized)
{
    const zcta_flow own = sized->out[sized->rank];

    if (own.bytes == 0)
        return false;
    for (uint32_t from = 0; from < sized->ranks; from++)
        if (from != sized->rank &&
            overlap(own.to_at, sized->send_bytes, sized->in[from].to_at + own.from_at,
                    sized->in[from].bytes))
            return false;
    return true;
}

/* Whether the size is made of one share a rank, or of one share: seen in the smallest team. */
static uint32_t shares_of(const struct zc_shape *shape, uint32_t ranks)
{
    struct zc_sized two = {
        .call = {.size = sizeof two.call, .collective = shape->info.collective, .bytes = 1},
        .ranks = 2};
    uint64_t received = 0;
    bool parts = false;

    if (zc_shape_has(shape, ZCTA_COLLECTIVE_PARTNERS) || read_flows(&two) != ZCTA_OK)
        goto out;
    for (uint32_t i = 0; i < 2; i++)
        received += two.in[i].bytes;
    parts = received > 1 || two.send_bytes > 1;
out:
    free(two.out);
    return parts ? ranks : 1;
}

const char *zc_in_place_defect(const struct zc_shape *shape)
{
    struct zc_shape small = *shape;
    bool has_own = false, can = false;

    small.root = 0;
    for (uint32_t rank = 0; rank < 3 && !can; rank++) {
        struct zc_sized sized;

        if (zc_sized_call(&small, 3 << 10, 3, rank, &sized) && read_flows(&sized) == ZCTA_OK) {
            has_own |= sized.out[rank].bytes > 0;
            can = may_be_in_place(&sized);
        }
        zc_sized_free(&sized);
    }
    return can       ? NULL
           : has_own ? "what comes from another rank would overwrite what is still to be sent"
                     : "no rank sends itself anything";
}

bool zc_check_in_place(const char *command, const struct zc_shape *shape)
{
    const char *defect = zc_in_place_defect(shape);

    if (defect != NULL)
        zc_usage_error(command, "%s cannot be called in place (--in-place): %s", shape->info.name,
                       defect);
    return defect == NULL;
}

/* ---- A rank's call ---- */

static void fill_call(const struct zc_shape *shape, uint64_t bytes, struct zc_sized *sized)
{
    zcta_call *call = &sized->call;
    const uint32_t ranks = sized->ranks, rank = sized->rank;

    *call = (zcta_call){
        .size = sizeof *call, .collective = shape->info.collective, .root = shape->root};
    if (zc_shape_has(shape, ZCTA_COLLECTIVE_UNEVEN)) {
        if (zc_shape_has(shape, ZCTA_COLLECTIVE_BY_PAIRS))
            divide_pairs(shape, bytes, ranks, sized->counts);
        else
            divide_shares(shape, bytes, ranks, sized->counts);
        call->send_bytes = sized->counts;
        call->recv_bytes = zc_shape_has(shape, ZCTA_COLLECTIVE_BY_PAIRS) ? NULL : sized->counts;
        call->matrix = zc_shape_has(shape, ZCTA_COLLECTIVE_BY_PAIRS);
        return;
    }
    if (!zc_shape_has(shape, ZCTA_COLLECTIVE_NO_DATA))
        call->bytes = part_of(bytes, 1, shares_of(shape, ranks));
    if (zc_shape_has(shape, ZCTA_COLLECTIVE_PARTNERS)) {
        call->to = (rank + 1) % ranks;
        call->from = (rank + ranks - 1) % ranks;
        call->from_bytes = call->bytes;
    }
}

bool zc_sized_call(const struct zc_shape *shape, uint64_t bytes, uint32_t ranks, uint32_t rank,
                   struct zc_sized *sized)
{
    const size_t entries =
        zc_shape_has(shape, ZCTA_COLLECTIVE_BY_PAIRS) ? (size_t)ranks * ranks : ranks;

    *sized = (struct zc_sized){.ranks = ranks, .rank = rank};
    if (zc_shape_has(shape, ZCTA_COLLECTIVE_UNEVEN)) {
        sized->counts = calloc(entries, sizeof *sized->counts);
        if (sized->counts == NULL)
            return false;
    }
    fill_call(shape, bytes, sized);
    return true;
}

/* What the ranks tell each other: of each number the largest counts. */
struct told {
    uint64_t input, output, share, moved;
    uint64_t front; /* how far an input in place begins before `recv` */
    uint64_t reach; /* how far it goes from there */
    uint64_t apart;
};

enum { TOLD = sizeof(struct told) / sizeof(uint64_t) };

/* Whether what a peer gets goes to an earlier one, too: it has to go out once only. */
static bool is_given_twice(const struct zc_sized *sized, uint32_t peer)
{
    for (uint32_t earlier = 0; earlier < peer; earlier++)
        if (earlier != sized->rank && sized->out[earlier].bytes > 0 &&
            sized->out[earlier].from_at == sized->out[peer].from_at &&
            sized->out[earlier].bytes == sized->out[peer].bytes)
            return true;
    return false;
}

static struct told tell(const struct zc_sized *sized)
{
    const zcta_flow own = sized->out[sized->rank];
    struct told told = {.input = sized->send_bytes};
    uint64_t sent = 0, received = 0;

    for (uint32_t peer = 0; peer < sized->ranks; peer++) {
        const zcta_flow out = sized->out[peer], in = sized->in[peer];

        told.share = larger(told.share, larger(out.bytes, in.bytes));
        if (in.bytes > 0)
            told.output = larger(told.output, in.to_at + in.bytes);
        sent += peer != sized->rank && !is_given_twice(sized, peer) ? out.bytes : 0;
        received += peer != sized->rank ? in.bytes : 0;
    }
    told.moved = larger(sent, received);
    if (!sized->in_place) {
        told.apart = sized->send_bytes;
        return told;
    }
    told.front = own.from_at > own.to_at ? own.from_at - own.to_at : 0;
    told.reach = own.to_at + (sized->send_bytes - own.from_at);
    return told;
}

static zcta_status agree(zc_exchange_fn *exchange, void *data, struct zc_sized *sized)
{
    struct told mine = tell(sized), most = {0};
    struct told *all = calloc(sized->ranks, sizeof *all);
    zcta_status status;

    if (all == NULL)
        return ZCTA_ERR_NO_MEMORY;
    status = exchange(data, &mine, all, sizeof mine);
    for (uint32_t rank = 0; rank < sized->ranks && status == ZCTA_OK; rank++)
        for (int i = 0; i < TOLD; i++)
            ((uint64_t *)&most)[i] = larger(((uint64_t *)&most)[i], ((uint64_t *)&all[rank])[i]);
    free(all);
    sized->bytes = larger(most.input, most.output);
    sized->share = most.share;
    sized->moved = most.moved;
    sized->front = (most.front + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    sized->room = sized->front + larger(most.output, most.reach) + GUARD_BYTES;
    sized->apart = most.apart;
    return status;
}

zcta_status zc_sized_meet(zc_exchange_fn *exchange, void *data, const struct zc_shape *shape,
                          uint64_t bytes, uint32_t ranks, uint32_t rank, bool in_place,
                          struct zc_sized *sized)
{
    zcta_status status = ZCTA_ERR_NO_MEMORY;

    if (zc_sized_call(shape, bytes, ranks, rank, sized))
        status = read_flows(sized);
    if (status == ZCTA_OK) {
        sized->in_place = in_place && may_be_in_place(sized);
        sized->as_in_place = in_place && sized->send_bytes == 0;
        status = agree(exchange, data, sized);
    }
    if (status != ZCTA_OK)
        zc_sized_free(sized);
    return status;
}

static zcta_status exchange_in_team(void *data, const void *mine, void *all, size_t bytes)
{
    return zcta_team_exchange(data, mine, all, bytes);
}

zcta_status zc_sized_make(zcta_team *team, const struct zc_shape *shape, uint64_t bytes,
                          bool in_place, struct zc_sized *sized)
{
    return zc_sized_meet(exchange_in_team, team, shape, bytes, zcta_team_rank_count(team),
                         zcta_team_rank(team), in_place, sized);
}

void zc_sized_free(struct zc_sized *sized)
{
    free(sized->counts);
    free(sized->out);
    *sized = (struct zc_sized){.ranks = 0};
}

uint64_t zc_sized_input_at(const struct zc_sized *sized)
{
    const zcta_flow own = sized->out[sized->rank];

    return sized->front + own.to_at - own.from_at;
}

/* ---- Text ---- */

const char *zc_call_text(const struct zc_shape *shape, uint32_t rank_count, uint64_t share,
                         uint64_t bytes, bool in_place, char text[ZC_CALL_TEXT_BYTES])
{
    const char *most = zc_shape_has(shape, ZCTA_COLLECTIVE_UNEVEN) ? "at most " : "";
    char whole[ZC_SIZE_TEXT_BYTES];

    if (zc_shape_has(shape, ZCTA_COLLECTIVE_NO_DATA))
        snprintf(text, ZC_CALL_TEXT_BYTES, "%s: %" PRIu32 " %s", shape->info.name, rank_count,
                 rank_count == 1 ? "rank" : "ranks");
    else
        snprintf(text, ZC_CALL_TEXT_BYTES,
                 "%s: %" PRIu32 " %s x %s%" PRIu64 " bytes (%s in all), %s place", shape->info.name,
                 rank_count, rank_count == 1 ? "rank" : "ranks", most, share,
                 zc_size_text(bytes, whole), in_place ? "in" : "out of");
    return text;
}

bool zc_note_rounding(const char *command, uint64_t asked, uint64_t taken)
{
    if (asked == taken)
        return false;
    fprintf(stderr,
            "zerocta %s: note: sizes that are no whole shares are rounded up, %" PRIu64
            " to %" PRIu64 "\n",
            command, asked, taken);
    return true;
}
