/* Reading a call's descriptor: from zcta_call to a layout. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "api/call_layout.h"
#include "api/objects.h"

_Static_assert(sizeof(size_t) == sizeof(uint64_t), "sizes travel as they are");

static bool has(const struct zc_collective *collective, enum zc_collective_trait trait)
{
    return (collective->traits & (unsigned)trait) != 0;
}

void zc_asked_free(struct zc_asked *asked)
{
    free(asked->arrays);
    asked->arrays = NULL;
}

bool zc_asked_same(const struct zc_asked *a, const struct zc_asked *b)
{
    return a->send == b->send && a->recv == b->recv && a->policy == b->policy &&
           a->engine == b->engine && zc_layout_same(&a->layout, &b->layout) &&
           a->layout.to == b->layout.to && a->layout.from == b->layout.from &&
           a->layout.to_bytes == b->layout.to_bytes && a->layout.from_bytes == b->layout.from_bytes;
}

/* Who makes the call: a rank of a team, or nobody who could meet others. */
struct caller {
    struct zc_diag *diag;
    zcta_team *team; /* NULL: nobody */
    uint32_t ranks, self;
};

/* As messages have it. */
static uint32_t world_rank(const struct caller *caller, uint32_t rank)
{
    return caller->team == NULL ? rank : caller->team->ranks[rank];
}

/* ---- Arrays ---- */

/* Room for the layout's three arrays. */
static zcta_status make_arrays(const struct caller *caller, struct zc_asked *asked)
{
    const size_t entries = zc_layout_entries(asked->layout.collective, asked->layout.ranks);

    asked->arrays = calloc(3 * entries, sizeof *asked->arrays);
    if (asked->arrays == NULL)
        return zc_fail(caller->diag, ZCTA_ERR_NO_MEMORY, asked->call, ENOMEM, "out of memory");
    asked->layout.bytes_of = asked->arrays;
    asked->layout.from_at = asked->arrays + entries;
    asked->layout.to_at = asked->arrays + 2 * entries;
    return ZCTA_OK;
}

static zcta_status fail_null_array(const struct caller *caller, const struct zc_asked *asked,
                                   const char *name)
{
    return zc_fail(caller->diag, ZCTA_ERR_INVALID, asked->call, 0, "%s is NULL", name);
}

/* One row of offsets: those given, or the shares lie one behind the other. */
static void place(uint64_t *at, const size_t *offsets, const size_t *bytes, uint32_t ranks)
{
    uint64_t end = 0;

    for (uint32_t i = 0; i < ranks; i++) {
        at[i] = offsets == NULL ? end : offsets[i];
        end += bytes[i];
    }
}

/* Every rank gives every rank's share. */
static zcta_status read_shares(const struct caller *caller, const zcta_call *given,
                               struct zc_asked *asked)
{
    const uint32_t ranks = asked->layout.ranks;
    const bool in_outputs = has(asked->layout.collective, ZC_TO_PLACES);
    const size_t *bytes = in_outputs ? given->recv_bytes : given->send_bytes;
    const size_t *offsets = in_outputs ? given->recv_offsets : given->send_offsets;

    if (bytes == NULL)
        return fail_null_array(caller, asked, in_outputs ? "recv_bytes" : "send_bytes");
    memcpy(asked->arrays, bytes, ranks * sizeof *bytes);
    place(asked->arrays + (in_outputs ? 2 : 1) * (size_t)ranks, offsets, bytes, ranks);
    return ZCTA_OK;
}

/* ---- Pairs ---- */

/* One rank's rows, as they travel. */
struct rows {
    uint64_t *send_bytes, *send_at, *recv_bytes, *recv_at; /* [ranks] each */
};

static struct rows rows_at(uint64_t *numbers, uint32_t ranks)
{
    return (struct rows){numbers, numbers + ranks, numbers + 2 * (size_t)ranks,
                         numbers + 3 * (size_t)ranks};
}

static void fill_rows(const zcta_call *given, size_t row, uint32_t ranks, struct rows *rows)
{
    const size_t at = row * ranks;
    const size_t *received = given->recv_bytes;

    memcpy(rows->send_bytes, given->send_bytes + at, ranks * sizeof(uint64_t));
    for (uint32_t i = 0; i < ranks; i++)
        rows->recv_bytes[i] =
            received != NULL ? received[at + i] : given->send_bytes[(size_t)i * ranks + row];
    place(rows->send_at, given->send_offsets == NULL ? NULL : given->send_offsets + at,
          (const size_t *)rows->send_bytes, ranks);
    place(rows->recv_at, given->recv_offsets == NULL ? NULL : given->recv_offsets + at,
          (const size_t *)rows->recv_bytes, ranks);
}

/* Puts the rows of rank `rank` into the layout's arrays. */
static void spread_rows(struct zc_asked *asked, uint32_t rank, const struct rows *rows)
{
    const size_t ranks = asked->layout.ranks, entries = ranks * ranks;

    for (size_t peer = 0; peer < ranks; peer++) {
        asked->arrays[rank * ranks + peer] = rows->send_bytes[peer];
        asked->arrays[entries + rank * ranks + peer] = rows->send_at[peer];
        asked->arrays[2 * entries + peer * ranks + rank] = rows->recv_at[peer];
    }
}

/* Once all send_bytes are in: whether this rank's recv_bytes say the same; `error` if not. */
static zcta_status compare_rows(const struct caller *caller, const struct zc_asked *asked,
                                uint32_t rank, const struct rows *rows, zcta_status error)
{
    const size_t ranks = asked->layout.ranks;

    for (uint32_t peer = 0; peer < ranks; peer++) {
        const uint64_t sent = asked->arrays[peer * ranks + rank];

        if (rows->recv_bytes[peer] != sent)
            return zc_fail_rank(caller->diag, error, world_rank(caller, rank), asked->call, 0,
                                "rank %" PRIu32 " sends %" PRIu64 " bytes to rank %" PRIu32
                                ", which expects %" PRIu64 " from it",
                                world_rank(caller, peer), sent, world_rank(caller, rank),
                                rows->recv_bytes[peer]);
    }
    return ZCTA_OK;
}

static zcta_status read_matrix(const struct caller *caller, const zcta_call *given,
                               struct zc_asked *asked)
{
    const uint32_t ranks = asked->layout.ranks;
    uint64_t *numbers;
    struct rows rows;
    zcta_status status = ZCTA_OK;

    if (given->send_bytes == NULL)
        return fail_null_array(caller, asked, "send_bytes");
    numbers = calloc(4 * (size_t)ranks, sizeof *numbers);
    if (numbers == NULL)
        return zc_fail(caller->diag, ZCTA_ERR_NO_MEMORY, asked->call, ENOMEM, "out of memory");
    rows = rows_at(numbers, ranks);
    for (uint32_t i = 0; i < ranks; i++) {
        fill_rows(given, i, ranks, &rows);
        spread_rows(asked, i, &rows);
    }
    for (uint32_t i = 0; i < ranks && status == ZCTA_OK; i++) {
        fill_rows(given, i, ranks, &rows);
        status = compare_rows(caller, asked, i, &rows, ZCTA_ERR_INVALID);
    }
    free(numbers);
    return status;
}

/* What travels: how this rank's own check went, then its rows. All ranks come, whatever theirs
 * says, and hear the same. */
static zcta_status meet(const struct caller *caller, struct zc_asked *asked, uint64_t *mine,
                        uint64_t *all)
{
    zcta_team *team = caller->team;
    const uint32_t ranks = asked->layout.ranks;
    const size_t length = 1 + 4 * (size_t)ranks;
    const zcta_status own = (zcta_status)mine[0];
    zcta_error said;
    zcta_status status;

    zc_diag_last(team->group.diag, &said);
    status = zc_group_exchange(&team->group, asked->call, "gave no rows", ZC_TOPIC_ROWS, mine, all,
                               length * sizeof *mine);
    if (status != ZCTA_OK)
        return status;
    if (own != ZCTA_OK) {
        zc_diag_repeat(team->group.diag, &said);
        return own;
    }
    for (uint32_t i = 0; i < ranks; i++) {
        const struct rows rows = rows_at(all + i * length + 1, ranks);

        if (all[i * length] != ZCTA_OK)
            return zc_fail_rank(
                team->group.diag, ZCTA_ERR_MISMATCH, team->ranks[i], asked->call, 0,
                "rank %" PRIu32
                " refused its arguments of this call: %s (its own message says why)",
                team->ranks[i], zcta_status_text((zcta_status)all[i * length]));
        spread_rows(asked, i, &rows);
    }
    for (uint32_t i = 0; i < ranks && status == ZCTA_OK; i++) {
        const struct rows rows = rows_at(all + i * length + 1, ranks);

        status = compare_rows(caller, asked, i, &rows, ZCTA_ERR_MISMATCH);
    }
    return status;
}

/* `own`: how the check of the rest of the call went. */
static zcta_status read_own_rows(const struct caller *caller, const zcta_call *given,
                                 struct zc_asked *asked, zcta_status own)
{
    zcta_team *team = caller->team;
    const uint32_t ranks = asked->layout.ranks;
    const size_t length = 1 + 4 * (size_t)ranks;
    uint64_t *mine = calloc((1 + (size_t)ranks) * length, sizeof *mine);
    zcta_status status = zc_team_check(team, asked->call);
    struct rows rows;

    if (status == ZCTA_OK && length * sizeof *mine > ZC_MAX_MESSAGE)
        status = zc_fail(caller->diag, ZCTA_ERR_UNSUPPORTED, asked->call, 0,
                         "the own rows of %" PRIu32 " ranks are too long to be exchanged; set "
                         "`matrix` and give all rows",
                         ranks);
    asked->told = status == ZCTA_OK;
    if (status == ZCTA_OK && team->context->check)
        status = zc_agree_on_rows(team, asked, own);
    if (status != ZCTA_OK)
        goto out;
    if (mine == NULL) {
        status =
            zc_fail(team->group.diag, ZCTA_ERR_NO_MEMORY, asked->call, ENOMEM, "out of memory");
        return zc_group_give_up(&team->group, status);
    }
    if (own != ZCTA_OK) {
        mine[0] = (uint64_t)own;
    } else if (given->send_bytes == NULL || given->recv_bytes == NULL) {
        mine[0] = (uint64_t)fail_null_array(
            caller, asked, given->send_bytes == NULL ? "send_bytes" : "recv_bytes");
    } else {
        rows = rows_at(mine + 1, ranks);
        fill_rows(given, 0, ranks, &rows);
    }
    status = meet(caller, asked, mine, mine + length);
out:
    free(mine);
    return status;
}

/* ---- The descriptor ---- */

static zcta_status read_uneven(const struct caller *caller, const zcta_call *given,
                               struct zc_asked *asked, zcta_status own)
{
    const bool meets =
        has(asked->layout.collective, ZC_BY_PAIRS) && given->matrix == 0 && caller->team != NULL;
    zcta_status status = make_arrays(caller, asked);

    if (status != ZCTA_OK)
        return status;
    if (meets)
        return read_own_rows(caller, given, asked, own);
    if (own != ZCTA_OK)
        return own;
    if (!has(asked->layout.collective, ZC_BY_PAIRS))
        return read_shares(caller, given, asked);
    if (given->matrix != 0)
        return read_matrix(caller, given, asked);
    return zc_fail(caller->diag, ZCTA_ERR_INVALID, asked->call, 0,
                   "this rank's rows alone do not say what the others give; set `matrix`");
}

/* What the collective does not take stays as it is in all calls, so that calls compare. */
static void read_numbers(const struct caller *caller, const zcta_call *given,
                         struct zc_layout *layout)
{
    layout->ranks = caller->ranks;
    layout->self = caller->self;
    layout->to = layout->from = ZCTA_NO_RANK;
    if (has(layout->collective, ZC_ROOTED))
        layout->root = given->root;
    if (has(layout->collective, ZC_PARTNERS)) {
        layout->to = given->to;
        layout->from = given->from;
        layout->to_bytes = given->to == ZCTA_NO_RANK ? 0 : given->bytes;
        layout->from_bytes = given->from == ZCTA_NO_RANK ? 0 : given->from_bytes;
    } else if (!has(layout->collective, ZC_UNEVEN) && !has(layout->collective, ZC_NO_DATA)) {
        layout->bytes = given->bytes;
    }
}

static zcta_status read_call(const struct caller *caller, const char *name, const zcta_call *given,
                             struct zc_asked *asked)
{
    zcta_call call;
    zcta_status status;

    *asked = (struct zc_asked){.call = name};
    status = zc_params_read(caller->diag, name, given, &call, sizeof call);
    if (status != ZCTA_OK)
        return status;
    asked->layout.collective = zc_collective_of(call.collective);
    if (asked->layout.collective == NULL)
        return zc_fail(caller->diag, ZCTA_ERR_INVALID, name, 0, "collective %d does not exist",
                       (int)call.collective);
    if ((uint32_t)call.policy > ZCTA_POLICY_ZERO || (uint32_t)call.engine > ZCTA_ENGINE_NCCL)
        status =
            zc_fail(caller->diag, ZCTA_ERR_INVALID, name, 0,
                    "policy %d or engine %d does not exist", (int)call.policy, (int)call.engine);
    asked->policy = call.policy;
    asked->engine = call.engine;
    if (!has(asked->layout.collective, ZC_NO_DATA)) {
        asked->send = call.send;
        asked->recv = call.recv;
    }
    read_numbers(caller, &call, &asked->layout);
    return has(asked->layout.collective, ZC_UNEVEN) ? read_uneven(caller, &call, asked, status)
                                                    : status;
}

zcta_status zc_call_read(zcta_team *team, const char *name, const zcta_call *given,
                         struct zc_asked *asked)
{
    const struct caller caller = {.diag = team->group.diag,
                                  .team = team,
                                  .ranks = team->group.count,
                                  .self = team->group.self};

    return read_call(&caller, name, given, asked);
}

/* ---- Calls that nobody makes ---- */

zcta_status zc_call_layout(const zcta_call *call, uint32_t ranks, uint32_t self,
                           struct zc_layout **layout)
{
    static const char name[] = "zcta_call";
    const struct caller caller = {.ranks = ranks, .self = self};
    struct zc_asked asked = {.call = name};
    struct zc_layout *made = NULL;
    const char *defect = NULL;
    zcta_status status = read_call(&caller, name, call, &asked);

    if (status != ZCTA_OK)
        goto out;
    made = malloc(sizeof *made);
    if (made == NULL) {
        status = zc_fail(NULL, ZCTA_ERR_NO_MEMORY, name, ENOMEM, "out of memory");
        goto out;
    }
    *made = asked.layout;
    defect = zc_layout_derive(made);
    if (defect != NULL) {
        status = zc_fail(NULL, ZCTA_ERR_INVALID, name, 0, "%s", defect);
        goto out;
    }
    asked.arrays = NULL;
    *layout = made;
    made = NULL;
out:
    free(made);
    zc_asked_free(&asked);
    return status;
}

/* The arrays are one piece of memory, which the first one begins. */
void zc_call_layout_free(struct zc_layout *layout)
{
    if (layout == NULL)
        return;
    free((void *)(uintptr_t)layout->bytes_of);
    free(layout);
}

zcta_status zcta_call_flow(const zcta_call *call, uint32_t rank_count, uint32_t self, uint32_t from,
                           uint32_t to, zcta_flow *flow)
{
    static const char name[] = "zcta_call_flow";
    const struct caller caller = {.ranks = rank_count, .self = self};
    struct zc_asked asked = {.call = name};
    const char *defect;
    zcta_status status;

    if (call == NULL || flow == NULL)
        return zc_fail_null(NULL, name, call == NULL ? "call" : "flow");
    if (self >= rank_count || from >= rank_count || to >= rank_count)
        return zc_fail(NULL, ZCTA_ERR_INVALID, name, 0,
                       "rank %" PRIu32 ", %" PRIu32 " or %" PRIu32 " is not among %" PRIu32
                       " ranks",
                       self, from, to, rank_count);
    status = read_call(&caller, name, call, &asked);
    defect = status == ZCTA_OK ? zc_layout_defect(&asked.layout) : NULL;
    if (defect != NULL)
        status = zc_fail(NULL, ZCTA_ERR_INVALID, name, 0, "%s", defect);
    if (status == ZCTA_OK) {
        const struct zc_flow found = zc_flow_between(&asked.layout, from, to);

        *flow = (zcta_flow){found.from_at, found.to_at, found.bytes};
    }
    zc_asked_free(&asked);
    return status;
}
