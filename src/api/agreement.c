/* What the ranks of a team give alike in a call, how it is compared, and who differs.
 *
 * Under check everything is compared before anything runs, in a round among the ranks, so that all
 * of them are told and can go on. Without, a device that sees what its peers are in compares the
 * numbers that a run depends on, while it runs: a difference then fails the team. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "api/objects.h"

/* Each is one number. The first are those of zc_numbers_of(). */
enum field {
    AGREE_COLLECTIVE,
    AGREE_BYTES,
    AGREE_ROOT,
    AGREE_SHARES,
    AGREE_IN_PLACE, /* where all are, or none */
    AGREE_PATH,     /* follows from the arguments, unless the ranks' libraries differ */
    AGREE_WINDOW,
    AGREE_OFFSET,
    AGREE_NUMBERS,
    AGREE_STATUS = AGREE_NUMBERS, /* how the rank's own check of its arguments went */
    AGREE_POLICY,
    AGREE_ENGINE,
    AGREE_CAPTURED,
    AGREE_ROWS, /* 1: own rows are given, and still to be exchanged */
    AGREE_TO,   /* where ranks name partners: these are compared by pairs */
    AGREE_TO_BYTES,
    AGREE_FROM,
    AGREE_FROM_BYTES,
    AGREE_FIELDS
};

_Static_assert((int)AGREE_NUMBERS == (int)ZC_CALL_NUMBERS, "a program carries all of them");

static const char *const field_names[AGREE_FIELDS] = {"collective",
                                                      "bytes of a share",
                                                      "root",
                                                      "counts and offsets (their digest)",
                                                      "place of send (1: in place)",
                                                      "path",
                                                      "number of recv's window",
                                                      "offset of recv in its window",
                                                      "outcome",
                                                      "policy",
                                                      "engine",
                                                      "capture into a graph",
                                                      "rows (1: own ones, 0: a matrix, or none)",
                                                      "rank to send to",
                                                      "bytes to send",
                                                      "rank to receive from",
                                                      "bytes to receive"};

/* In which order a difference is looked for. The arguments are known of a refused call too. */
static const enum field arguments[] = {AGREE_COLLECTIVE, AGREE_BYTES,  AGREE_ROOT,
                                       AGREE_ROWS,       AGREE_SHARES, AGREE_IN_PLACE,
                                       AGREE_POLICY,     AGREE_ENGINE};
static const enum field consequences[] = {AGREE_PATH, AGREE_WINDOW, AGREE_OFFSET, AGREE_CAPTURED};

enum {
    ARGUMENTS = sizeof arguments / sizeof *arguments,
    CONSEQUENCES = sizeof consequences / sizeof *consequences
};

struct agreement {
    uint64_t fields[AGREE_FIELDS];
};

/* A window is known by its number among those of its team, and by half of that team's tag. */
static uint64_t window_number(const zcta_window *window)
{
    return window == NULL ? 0 : (window->team->group.tag & ~(uint64_t)UINT32_MAX) | window->number;
}

/* Of a call that was refused before it could be read nothing is known. */
struct zc_call_numbers zc_numbers_of(const struct zc_resolved *resolved)
{
    const struct zc_layout *layout = &resolved->asked.layout;
    const struct zc_collective *collective = layout->collective;

    if (collective == NULL)
        return (struct zc_call_numbers){0};
    return (struct zc_call_numbers){
        .at = {[AGREE_COLLECTIVE] = (uint64_t)collective->id,
               [AGREE_BYTES] = layout->bytes,
               [AGREE_ROOT] = layout->root,
               [AGREE_SHARES] = layout->bytes_of == NULL ? 0 : zc_layout_digest(layout),
               [AGREE_IN_PLACE] = resolved->in_place && (collective->traits & ZC_REPLICATES) != 0,
               [AGREE_PATH] = (uint64_t)resolved->path,
               [AGREE_WINDOW] = window_number(resolved->recv_window),
               [AGREE_OFFSET] = resolved->offset}};
}

zcta_engine zc_engine_asked(const zcta_team *team, const struct zc_asked *asked)
{
    /* What moves no data is nobody's choice: signals do it on every device. */
    if (asked->layout.collective != NULL && (asked->layout.collective->traits & ZC_NO_DATA) != 0)
        return ZCTA_ENGINE_AUTO;
    return asked->engine == ZCTA_ENGINE_AUTO ? team->engine_choice : asked->engine;
}

static struct agreement agreement_of(const zcta_team *team, const struct zc_resolved *resolved,
                                     bool captured, zcta_status own)
{
    const struct zc_asked *asked = &resolved->asked;
    const struct zc_call_numbers numbers = zc_numbers_of(resolved);
    struct agreement made = {
        .fields = {[AGREE_STATUS] = (uint64_t)own,
                   [AGREE_POLICY] = (uint64_t)(asked->policy == ZCTA_POLICY_UNSET ? team->policy
                                                                                  : asked->policy),
                   [AGREE_ENGINE] = (uint64_t)zc_engine_asked(team, asked),
                   [AGREE_CAPTURED] = captured,
                   [AGREE_TO] = asked->layout.to,
                   [AGREE_TO_BYTES] = asked->layout.to_bytes,
                   [AGREE_FROM] = asked->layout.from,
                   [AGREE_FROM_BYTES] = asked->layout.from_bytes}};

    for (uint32_t i = 0; i < ZC_CALL_NUMBERS; i++)
        made.fields[i] = numbers.at[i];
    return made;
}

/* A field's value as messages have it. */
static const char *field_text(enum field field, uint64_t value, char text[40])
{
    if (field == AGREE_COLLECTIVE && zc_collective_of((zcta_collective)value) != NULL)
        return zc_collective_of((zcta_collective)value)->name;
    if (field == AGREE_PATH && value < ZC_PATHS)
        return zc_path_name((enum zc_path)value);
    if (field == AGREE_WINDOW)
        snprintf(text, 40, "%" PRIu32 " (team %08" PRIx64 ")", (uint32_t)value, value >> 32);
    else
        snprintf(text, 40, "%" PRIu64, value);
    return text;
}

/* Of the ranks that `who` lists, whose values these are, `stride` apart: says who differs from the
 * most. */
static zcta_status compare_values(zcta_team *team, const char *call, enum field field,
                                  const uint64_t *values, size_t stride, const uint32_t *who,
                                  uint32_t count)
{
    char odd_text[40], common_text[40];
    uint32_t common;
    const uint32_t odd = zc_group_outlier(values, stride, count, &common);
    const uint64_t odd_value = values[odd * stride], common_value = values[common * stride];

    if (odd_value == common_value)
        return ZCTA_OK;
    return zc_fail_rank(team->group.diag, ZCTA_ERR_MISMATCH, who[odd], call, 0,
                        "the ranks of team %s do not agree on the %s: rank %" PRIu32
                        " says %s, rank %" PRIu32 " says %s",
                        zc_team_title(team), field_names[field], who[odd],
                        field_text(field, odd_value, odd_text), who[common],
                        field_text(field, common_value, common_text));
}

/* ---- Under check ---- */

/* A rank that neither sends nor receives may name no window. */
static bool may_lack(enum field field, const struct agreement *one)
{
    return (field == AGREE_WINDOW || field == AGREE_OFFSET) && one->fields[AGREE_WINDOW] == 0;
}

/* Of the ranks that have the field. `values` and `who` have room for all. */
static zcta_status compare_field(zcta_team *team, const char *call, const struct agreement *all,
                                 enum field field, uint64_t *values, uint32_t *who)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < team->group.count; i++)
        if (!may_lack(field, &all[i])) {
            who[count] = team->ranks[i];
            values[count++] = all[i].fields[field];
        }
    return count == 0 ? ZCTA_OK : compare_values(team, call, field, values, 1, who, count);
}

static zcta_status compare_fields(zcta_team *team, const char *call, const struct agreement *all,
                                  const enum field *fields, uint32_t count)
{
    uint64_t *values = calloc(team->group.count, sizeof *values);
    uint32_t *who = calloc(team->group.count, sizeof *who);
    zcta_status status = ZCTA_OK;

    if (values == NULL || who == NULL)
        status = zc_fail(team->group.diag, ZCTA_ERR_NO_MEMORY, call, ENOMEM, "out of memory");
    for (uint32_t i = 0; i < count && status == ZCTA_OK; i++)
        status = compare_field(team, call, all, fields[i], values, who);
    free(who);
    free(values);
    return status;
}

/* The arguments were fine, but no path could run. That follows from what the ranks compare, so that
 * a difference there is the better reason. */
static bool found_no_path(zcta_status outcome)
{
    return outcome == ZCTA_ERR_POLICY || outcome == ZCTA_ERR_UNSUPPORTED;
}

/* A rank that refused its call runs nothing, so nobody can. */
static zcta_status compare_outcomes(zcta_team *team, const char *call, const struct agreement *all,
                                    bool no_path)
{
    for (uint32_t i = 0; i < team->group.count; i++) {
        const zcta_status outcome = (zcta_status)all[i].fields[AGREE_STATUS];

        if (outcome != ZCTA_OK && found_no_path(outcome) == no_path)
            return zc_fail_rank(
                team->group.diag, ZCTA_ERR_MISMATCH, team->ranks[i], call, 0,
                "rank %" PRIu32 " refused %s: %s (its own message says why)", team->ranks[i],
                no_path ? "this call" : "its arguments of this call", zcta_status_text(outcome));
    }
    return ZCTA_OK;
}

static zcta_status fail_partners(zcta_team *team, const char *call, uint32_t from, uint32_t to,
                                 uint64_t sent, uint64_t received)
{
    return zc_fail_rank(team->group.diag, ZCTA_ERR_MISMATCH, team->ranks[to], call, 0,
                        "rank %" PRIu32 " sends %" PRIu64 " bytes to rank %" PRIu32
                        ", which receives %" PRIu64 " from it",
                        team->ranks[from], sent, team->ranks[to], received);
}

/* What one rank sends to another is what that one receives from it. */
static zcta_status compare_partners(zcta_team *team, const char *call, const struct agreement *all)
{
    for (uint32_t rank = 0; rank < team->group.count; rank++) {
        const uint64_t *own = all[rank].fields;
        const uint64_t to = own[AGREE_TO], from = own[AGREE_FROM];

        if (to < team->group.count && own[AGREE_TO_BYTES] > 0 &&
            (all[to].fields[AGREE_FROM] != rank ||
             all[to].fields[AGREE_FROM_BYTES] != own[AGREE_TO_BYTES]))
            return fail_partners(
                team, call, rank, (uint32_t)to, own[AGREE_TO_BYTES],
                all[to].fields[AGREE_FROM] == rank ? all[to].fields[AGREE_FROM_BYTES] : 0);
        if (from < team->group.count && own[AGREE_FROM_BYTES] > 0 &&
            (all[from].fields[AGREE_TO] != rank || all[from].fields[AGREE_TO_BYTES] == 0))
            return fail_partners(team, call, (uint32_t)from, rank, 0, own[AGREE_FROM_BYTES]);
    }
    return ZCTA_OK;
}

/* A rank that has refused its own arguments has said what is wrong with them. */
static zcta_status compare(zcta_team *team, const char *call, const struct agreement *all,
                           zcta_status own)
{
    zcta_status status = compare_outcomes(team, call, all, false);

    if (status == ZCTA_OK)
        status = compare_fields(team, call, all, arguments, ARGUMENTS);
    if (status == ZCTA_OK)
        status = compare_partners(team, call, all);
    if (status == ZCTA_OK && own != ZCTA_OK)
        return own;
    if (status == ZCTA_OK)
        status = compare_outcomes(team, call, all, true);
    if (status == ZCTA_OK)
        status = compare_fields(team, call, all, consequences, CONSEQUENCES);
    return status;
}

static zcta_status agree(zcta_team *team, const struct agreement *mine, const char *call,
                         zcta_status own)
{
    struct agreement *all = calloc(team->group.count, sizeof *all);
    zcta_error said;
    zcta_status status;

    zc_diag_last(team->group.diag, &said);
    if (all == NULL) {
        status = zc_fail(team->group.diag, ZCTA_ERR_NO_MEMORY, call, ENOMEM, "out of memory");
        return zc_group_give_up(&team->group, status);
    }
    status = zc_group_exchange(&team->group, call, "made no call to compare", ZC_TOPIC_CHECK, mine,
                               all, sizeof *mine);
    if (own != ZCTA_OK && !found_no_path(own)) {
        status = own;
        zc_diag_repeat(team->group.diag, &said);
    } else if (status == ZCTA_OK)
        status = compare(team, call, all, own);
    free(all);
    return status;
}

zcta_status zc_agree(zcta_team *team, const struct zc_resolved *resolved, const char *call,
                     bool captured, zcta_status own)
{
    const struct agreement mine = agreement_of(team, resolved, captured, own);

    return agree(team, &mine, call, own);
}

zcta_status zc_agree_on_rows(zcta_team *team, const struct zc_asked *asked, zcta_status own)
{
    struct zc_resolved unresolved = {.asked = *asked};
    struct agreement mine;

    unresolved.asked.layout.bytes_of = NULL; /* nothing is in the arrays yet */
    mine = agreement_of(team, &unresolved, false, own);
    mine.fields[AGREE_ROWS] = 1;
    return agree(team, &mine, asked->call, own);
}

/* ---- While it runs ---- */

/* The first number that differs among the ranks whose calls are known. OK if none does. */
static zcta_status compare_known(zcta_team *team, const struct zc_call_numbers *const *calls,
                                 uint64_t *values, uint32_t *who)
{
    const struct zc_collective *collective =
        zc_collective_of((zcta_collective)calls[team->group.self]->at[AGREE_COLLECTIVE]);
    const char *name = collective == NULL ? "collective" : collective->name;
    zcta_status status = ZCTA_OK;

    for (uint32_t field = 0; field < ZC_CALL_NUMBERS && status == ZCTA_OK; field++) {
        uint32_t known = 0;

        for (uint32_t i = 0; i < team->group.count; i++)
            if (calls[i] != NULL) {
                who[known] = team->ranks[i];
                values[known++] = calls[i]->at[field];
            }
        status = compare_values(team, name, (enum field)field, values, 1, who, known);
    }
    return status;
}

void zc_on_mismatch(void *data, uint32_t peer, const struct zc_call_numbers *const *calls)
{
    zcta_team *team = data;
    uint64_t *values = calloc(team->group.count, sizeof *values);
    uint32_t *who = calloc(team->group.count, sizeof *who);
    zcta_status status = ZCTA_OK;
    zcta_error failure;

    if (values != NULL && who != NULL && calls != NULL && calls[team->group.self] != NULL)
        status = compare_known(team, calls, values, who);
    /* The peer is not in this call any more, or has not said yet what it gives. */
    if (status == ZCTA_OK)
        zc_fail_rank(team->group.diag, ZCTA_ERR_MISMATCH, team->ranks[peer], "collective", 0,
                     "ranks %" PRIu32 " and %" PRIu32 " of team %s do not make the same call; "
                     "ZEROCTA_CHECK=1 tells what differs",
                     team->ranks[team->group.self], team->ranks[peer], zc_team_title(team));
    zc_diag_last(team->group.diag, &failure);
    zc_team_fail(team, &failure);
    free(who);
    free(values);
}
