/* What follows from a collective's flows. */
#include <stdlib.h>
#include <string.h>

#include "collective/collective.h"

#define MOST ((uint64_t)INT64_MAX)

static bool has(const struct zc_layout *layout, enum zc_collective_trait trait)
{
    return (layout->collective->traits & trait) != 0;
}

size_t zc_layout_entries(const struct zc_collective *collective, uint32_t ranks)
{
    if ((collective->traits & ZC_UNEVEN) == 0)
        return 0;
    return (collective->traits & ZC_BY_PAIRS) != 0 ? (size_t)ranks * ranks : ranks;
}

/* ---- Sizes ---- */

static uint64_t end_of(uint64_t at, uint64_t bytes, uint64_t most)
{
    return bytes > 0 && at + bytes > most ? at + bytes : most;
}

uint64_t zc_layout_send_bytes(const struct zc_layout *layout, uint32_t rank)
{
    uint64_t end = 0;

    for (uint32_t to = 0; to < layout->ranks; to++) {
        const struct zc_flow flow = zc_flow_between(layout, rank, to);

        end = end_of(flow.from_at, flow.bytes, end);
    }
    return end;
}

uint64_t zc_layout_recv_bytes(const struct zc_layout *layout, uint32_t rank)
{
    uint64_t end = 0;

    for (uint32_t from = 0; from < layout->ranks; from++) {
        const struct zc_flow flow = zc_flow_between(layout, from, rank);

        end = end_of(flow.to_at, flow.bytes, end);
    }
    return end;
}

uint64_t zc_layout_received(const struct zc_layout *layout, uint32_t rank)
{
    uint64_t bytes = 0;

    for (uint32_t from = 0; from < layout->ranks; from++)
        bytes += zc_flow_between(layout, from, rank).bytes;
    return bytes;
}

bool zc_layout_is_empty(const struct zc_layout *layout)
{
    return layout->share == 0 && !has(layout, ZC_NO_DATA) && !has(layout, ZC_PARTNERS);
}

/* ---- Checks ---- */

static const char *array_defect(const struct zc_layout *layout)
{
    const size_t entries = zc_layout_entries(layout->collective, layout->ranks);
    uint64_t total = 0;

    for (size_t i = 0; i < entries; i++) {
        const uint64_t from_at = layout->from_at == NULL ? 0 : layout->from_at[i];
        const uint64_t to_at = layout->to_at == NULL ? 0 : layout->to_at[i];

        if (layout->bytes_of[i] > MOST || from_at > MOST - layout->bytes_of[i] ||
            to_at > MOST - layout->bytes_of[i] || layout->bytes_of[i] > MOST - total)
            return "the counts and offsets are more than 63 bits can count";
        total += layout->bytes_of[i];
    }
    return NULL;
}

static const char *partner_defect(const struct zc_layout *layout)
{
    const bool to_self = layout->to == layout->self, from_self = layout->from == layout->self;

    if (layout->self >= layout->ranks)
        return "the caller is no rank of the team";
    if ((layout->to != ZCTA_NO_RANK && layout->to >= layout->ranks) ||
        (layout->from != ZCTA_NO_RANK && layout->from >= layout->ranks))
        return "the partner to send to, or to receive from, is no rank of the team";
    if (layout->to_bytes > MOST || layout->from_bytes > MOST)
        return "the counts are more than 63 bits can count";
    if (to_self != from_self || (to_self && layout->to_bytes != layout->from_bytes))
        return "a rank that sends to itself receives as many bytes from itself";
    return NULL;
}

const char *zc_layout_defect(const struct zc_layout *layout)
{
    if (layout->ranks == 0)
        return "there are no ranks";
    if (has(layout, ZC_ROOTED) && layout->root >= layout->ranks)
        return "the root is no rank of the team";
    if (has(layout, ZC_PARTNERS))
        return partner_defect(layout);
    if (has(layout, ZC_UNEVEN))
        return array_defect(layout);
    if (layout->bytes > MOST / layout->ranks)
        return "the bytes of all ranks together are more than 63 bits can count";
    return NULL;
}

static int by_place(const void *left, const void *right)
{
    const struct zc_flow *a = left, *b = right;

    return a->to_at < b->to_at ? -1 : a->to_at > b->to_at;
}

/* Shares of one size lie one behind the other, so this is about those that have places. `flows` has
 * room for as many as there are ranks. */
static bool outputs_overlap(const struct zc_layout *layout, struct zc_flow *flows)
{
    for (uint32_t to = 0; to < layout->ranks; to++) {
        uint32_t count = 0;

        for (uint32_t from = 0; from < layout->ranks; from++) {
            flows[count] = zc_flow_between(layout, from, to);
            count += flows[count].bytes > 0;
        }
        qsort(flows, count, sizeof *flows, by_place);
        for (uint32_t i = 1; i < count; i++)
            if (flows[i].to_at < flows[i - 1].to_at + flows[i - 1].bytes)
                return true;
    }
    return false;
}

static const char *place_defect(const struct zc_layout *layout)
{
    struct zc_flow *flows;
    bool overlap;

    if (!has(layout, ZC_UNEVEN) || layout->to_at == NULL)
        return NULL;
    flows = calloc(layout->ranks, sizeof *flows);
    if (flows == NULL)
        return "there is no memory to check the offsets";
    overlap = outputs_overlap(layout, flows);
    free(flows);
    return overlap ? "two shares overlap in an output: look at the counts and offsets" : NULL;
}

const char *zc_layout_derive(struct zc_layout *layout)
{
    const char *defect = zc_layout_defect(layout);

    if (defect == NULL)
        defect = place_defect(layout);
    if (defect != NULL)
        return defect;
    layout->share = layout->input = layout->sent = layout->output = layout->own = 0;
    for (uint32_t from = 0; from < layout->ranks; from++)
        for (uint32_t to = 0; to < layout->ranks; to++) {
            const struct zc_flow flow = zc_flow_between(layout, from, to);

            layout->share = end_of(0, flow.bytes, layout->share);
            layout->input = end_of(flow.from_at, flow.bytes, layout->input);
            layout->output = end_of(flow.to_at, flow.bytes, layout->output);
            if (from != to)
                layout->sent = end_of(flow.from_at, flow.bytes, layout->sent);
            else
                layout->own = end_of(0, flow.bytes, layout->own);
        }
    return NULL;
}

/* ---- Whether ranks agree ---- */

static bool same_array(const uint64_t *a, const uint64_t *b, size_t entries)
{
    if (a == NULL || b == NULL)
        return a == b;
    return memcmp(a, b, entries * sizeof *a) == 0;
}

bool zc_layout_same(const struct zc_layout *a, const struct zc_layout *b)
{
    const size_t entries = zc_layout_entries(a->collective, a->ranks);

    return a == b ||
           (a->collective == b->collective && a->ranks == b->ranks && a->root == b->root &&
            a->bytes == b->bytes && same_array(a->bytes_of, b->bytes_of, entries) &&
            same_array(a->from_at, b->from_at, entries) && same_array(a->to_at, b->to_at, entries));
}

static uint64_t mix(uint64_t digest, const uint64_t *array, size_t entries)
{
    for (size_t i = 0; array != NULL && i < entries; i++) {
        digest = (digest ^ array[i]) * UINT64_C(0xbf58476d1ce4e5b9);
        digest ^= digest >> 29;
    }
    return digest;
}

uint64_t zc_layout_digest(const struct zc_layout *layout)
{
    const size_t entries = zc_layout_entries(layout->collective, layout->ranks);
    uint64_t digest = UINT64_C(0x9e3779b97f4a7c15);

    if (entries == 0)
        return 0;
    digest = mix(digest, layout->bytes_of, entries);
    digest = mix(digest ^ 1, layout->from_at, entries);
    return mix(digest ^ 2, layout->to_at, entries);
}

/* ---- In place ---- */

static bool meet(uintptr_t a, uint64_t a_bytes, uintptr_t b, uint64_t b_bytes)
{
    return a_bytes > 0 && b_bytes > 0 && a < b + b_bytes && b < a + a_bytes;
}

/* Whether what `rank` reads of its own share and of others' shares is one or is apart: then a plan
 * can say of each from which buffer it comes. */
static bool own_share_is_whole(const struct zc_layout *layout, uint32_t rank)
{
    const struct zc_flow own = zc_flow_between(layout, rank, rank);

    for (uint32_t to = 0; to < layout->ranks; to++) {
        const struct zc_flow flow = zc_flow_between(layout, rank, to);
        const bool inside =
            flow.from_at >= own.from_at && flow.from_at + flow.bytes <= own.from_at + own.bytes;

        if (!inside && meet(flow.from_at, flow.bytes, own.from_at, own.bytes))
            return false;
    }
    return true;
}

enum zc_placing zc_layout_placing(const struct zc_layout *layout, uint32_t rank, uintptr_t send,
                                  uintptr_t recv)
{
    const struct zc_flow own = zc_flow_between(layout, rank, rank);
    const uint64_t input = zc_layout_send_bytes(layout, rank);
    const bool in_place = send + own.from_at == recv + own.to_at;

    for (uint32_t from = 0; from < layout->ranks; from++) {
        const struct zc_flow flow = zc_flow_between(layout, from, rank);

        if (!(in_place && from == rank) && meet(send, input, recv + flow.to_at, flow.bytes))
            return ZC_OVERLAPPING;
    }
    if (!in_place)
        return ZC_OUT_OF_PLACE;
    return own_share_is_whole(layout, rank) ? ZC_IN_PLACE : ZC_OVERLAPPING;
}
