/* Calls of every collective, with a model of what they move. */
#include "support_family.h"

#include <string.h>

/* ---- Making calls ---- */

static size_t share_of(enum family_shape shape, size_t bytes, size_t i, size_t count)
{
    switch (shape) {
    case EVEN:
        return bytes;
    case SKEWED:
        return bytes * (1 + i % 4) / 2;
    case ONE_HOT:
        return i == count / 2 ? 2 * bytes : 0;
    case SCATTERED:
        return i % 3 == 1 ? 0 : bytes / 2 + i * 3;
    case FAMILY_SHAPES:
        break;
    }
    return 0;
}

/* One row of offsets; scattered ones go from the last to the first, with gaps. */
static void place(const size_t *bytes, size_t *offsets, uint32_t ranks, enum family_shape shape)
{
    size_t end = 0;

    for (uint32_t i = 0; i < ranks; i++) {
        const uint32_t at = shape == SCATTERED ? ranks - 1 - i : i;

        offsets[at] = end;
        end += bytes[at] + (shape == SCATTERED ? 3 : 0);
    }
}

static void fill_shares(struct family_call *c, size_t bytes, enum family_shape shape)
{
    const uint32_t n = c->ranks;
    const bool pairs = (c->info.traits & ZCTA_COLLECTIVE_BY_PAIRS) != 0;
    const uint32_t rows = pairs ? n : 1;

    for (uint32_t i = 0; i < rows * n; i++)
        c->send_bytes[i] = share_of(shape, bytes, i, (size_t)rows * n);
    for (uint32_t i = 0; i < rows * n; i++)
        c->recv_bytes[i] = pairs ? c->send_bytes[i % n * n + i / n] : c->send_bytes[i];
    for (uint32_t row = 0; row < rows; row++) {
        place(c->send_bytes + row * n, c->send_offsets + row * n, n, shape);
        place(c->recv_bytes + row * n, c->recv_offsets + row * n, n, shape);
    }
    c->call.send_bytes = c->send_bytes;
    c->call.send_offsets = c->send_offsets;
    c->call.recv_bytes = c->recv_bytes;
    c->call.recv_offsets = c->recv_offsets;
    c->call.matrix = pairs;
}

void family_make(struct family_call *c, zcta_collective collective, size_t bytes,
                 enum family_shape shape, uint32_t number)
{
    c->info = (zcta_collective_info){.size = sizeof c->info};
    EXPECT(zcta_collective_find(collective, NULL, &c->info) == ZCTA_OK);
    c->call = (zcta_call){.size = sizeof c->call,
                          .collective = collective,
                          .root = number % c->ranks,
                          .send = c->input,
                          .recv = c->window + FAMILY_MARGIN,
                          .bytes = bytes};
    if ((c->info.traits & ZCTA_COLLECTIVE_UNEVEN) != 0)
        fill_shares(c, bytes, shape);
    if ((c->info.traits & ZCTA_COLLECTIVE_PARTNERS) != 0) {
        c->call.to = (c->rank + number) % c->ranks;
        c->call.from = (c->rank + c->ranks - number % c->ranks) % c->ranks;
        c->call.from_bytes = bytes;
    }
}

zcta_flow family_flow(const struct family_call *c, uint32_t from, uint32_t to)
{
    zcta_flow flow;

    EXPECT(zcta_call_flow(&c->call, c->ranks, c->rank, from, to, &flow) == ZCTA_OK);
    return flow;
}

/* ---- The model ---- */

static unsigned char pattern(uint32_t round, uint32_t rank, size_t at)
{
    return (unsigned char)(1 + round * 89 + rank * 37 + at * 11 + (at >> 8) * 5);
}

void family_fill(const struct family_call *c, uint32_t round)
{
    unsigned char *send = (unsigned char *)(uintptr_t)c->call.send;

    for (uint32_t to = 0; to < c->ranks; to++) {
        const zcta_flow flow = family_flow(c, c->rank, to);

        for (size_t i = flow.from_at; i < flow.from_at + flow.bytes; i++)
            send[i] = pattern(round, c->rank, i);
    }
}

void family_expect_window(const struct family_call *c, uint32_t round, unsigned char *expected)
{
    for (uint32_t from = 0; from < c->ranks; from++) {
        const zcta_flow flow = family_flow(c, from, c->rank);

        for (size_t i = 0; i < flow.bytes; i++)
            expected[FAMILY_MARGIN + flow.to_at + i] = pattern(round, from, flow.from_at + i);
    }
    EXPECT(memcmp(expected, c->window, FAMILY_ROOM) == 0);
}

/* Whether the flows let `rank`'s own share lie in its place. */
static bool fits_in_place(const struct family_call *c, uint32_t rank)
{
    const zcta_flow own = family_flow(c, rank, rank);

    for (uint32_t to = 0; to < c->ranks; to++)
        for (uint32_t from = 0; from < c->ranks; from++) {
            const zcta_flow out = family_flow(c, rank, to), in = family_flow(c, from, rank);
            const size_t a = out.from_at + own.to_at, b = in.to_at + own.from_at;

            if (from != rank && a < b + in.bytes && b < a + out.bytes)
                return false;
        }
    return true;
}

bool family_put_in_place(struct family_call *c)
{
    const zcta_flow own = family_flow(c, c->rank, c->rank);

    if ((c->info.traits & ZCTA_COLLECTIVE_PARTNERS) != 0)
        return false;
    for (uint32_t rank = 0; rank < c->ranks; rank++)
        if (!fits_in_place(c, rank))
            return false;
    /* An input that begins before its own share begins before the output. */
    c->call.recv = c->window + FAMILY_ROOM / 2;
    if (own.bytes > 0 || (c->info.traits & ZCTA_COLLECTIVE_ROOTED) == 0)
        c->call.send = (unsigned char *)c->call.recv + own.to_at - own.from_at;
    return true;
}

void family_expect(const struct family_call *c, uint32_t round)
{
    const unsigned char *recv = c->call.recv;

    for (uint32_t from = 0; from < c->ranks; from++) {
        const zcta_flow flow = family_flow(c, from, c->rank);

        for (size_t i = 0; i < flow.bytes; i++)
            EXPECT(recv[flow.to_at + i] == pattern(round, from, flow.from_at + i));
    }
}

bool family_moves(int id, uint32_t *traits)
{
    zcta_collective_info info = {.size = sizeof info};

    if (zcta_collective_find((zcta_collective)id, NULL, &info) != ZCTA_OK)
        return false;
    *traits = info.traits;
    return (info.traits & ZCTA_COLLECTIVE_NO_DATA) == 0;
}
