/* Making symmetric memory. */
#include "engine/symmetric.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

/* What each rank tells in the first round. */
struct offer {
    uint64_t status; /* a zcta_status: how allocating went */
    uint64_t device; /* a zcta_device */
    uint64_t bytes;
    struct zc_memory_handle handle;
};

static struct zc_exchange exchange_of(const struct zc_group *group, const char *call,
                                      const char *what, uint64_t topic)
{
    return (struct zc_exchange){.ranks = group->ranks,
                                .count = group->count,
                                .tag = group->tag,
                                .topic = (uint32_t)topic,
                                .fd = -1,
                                .deadline = zc_deadline_in(group->timeout_ns),
                                .over = group->over,
                                .call = call,
                                .what = what};
}

static bool is_on_node(const struct zc_group *group, uint32_t index)
{
    return group->nodes == NULL ||
           group->nodes[group->ranks[index]] == group->nodes[group->ranks[group->self]];
}

bool zc_group_reaches(const struct zc_group *group, uint32_t index)
{
    return is_on_node(group, index) && (group->reach == NULL || group->reach[group->ranks[index]]);
}

bool zc_group_has_hosts(const struct zc_group *group)
{
    const uint32_t host = zc_mesh_host(group->mesh, group->ranks[0]);
    uint32_t at = 1;

    while (at < group->count && zc_mesh_host(group->mesh, group->ranks[at]) == host)
        at++;
    return at < group->count;
}

zcta_status zc_group_give_up(const struct zc_group *group, zcta_status status)
{
    zcta_error why;

    zc_diag_last(group->diag, &why);
    why.status = status;
    return group->broken(group->broken_data, &why);
}

/* The one place where a round of a group is run. */
static zcta_status run_round(const struct zc_group *group, struct zc_exchange *exchange,
                             bool *finished)
{
    zcta_status status;

    *finished = false;
    exchange->number = ++*group->rounds;
    exchange->finished = finished;
    status = zc_mesh_exchange(group->mesh, exchange);
    return *finished ? status : zc_group_give_up(group, status);
}

zcta_status zc_group_exchange(const struct zc_group *group, const char *call, const char *what,
                              uint64_t topic, const void *mine, void *all, size_t bytes)
{
    struct zc_exchange exchange = exchange_of(group, call, what, topic);
    bool finished;

    exchange.mine = mine;
    exchange.all = all;
    exchange.bytes = bytes;
    return run_round(group, &exchange, &finished);
}

void zc_symmetric_release(struct zc_symmetric *symmetric)
{
    if (symmetric == NULL)
        return;
    for (uint32_t i = 0; i < symmetric->count; i++)
        symmetric->ops->memory_release(symmetric->device, symmetric->parts[i]);
    free(symmetric);
}

/* How many ranks of this machine allocate as much now. */
static uint32_t count_sharers(const struct zc_group *group)
{
    const uint32_t here = zc_mesh_host(group->mesh, group->ranks[group->self]);
    uint32_t sharers = 0;

    for (uint32_t i = 0; i < group->count; i++)
        sharers += zc_mesh_host(group->mesh, group->ranks[i]) == here;
    return sharers;
}

static zcta_status allocate(const struct zc_group *group, enum zc_where where, void *base,
                            size_t bytes, const char *call, struct zc_memory **memory)
{
    if (bytes == 0)
        return zc_fail(group->diag, ZCTA_ERR_INVALID, call, 0, "a window of 0 bytes was asked for");
    if (base != NULL)
        return group->ops->memory_adopt(group->device, base, bytes, memory);
    return group->ops->memory_alloc(group->device, where, bytes, count_sharers(group), memory);
}

/* A rank that says ERR_PEER or ERR_TIMEOUT speaks of a third one: the team has failed there, and
 * does so here, for the reason on which its ranks agree. Anything else is said of a call only. */
static zcta_status conclude(const struct zc_group *group, zcta_status status)
{
    return status == ZCTA_ERR_PEER || status == ZCTA_ERR_TIMEOUT ? zc_group_give_up(group, status)
                                                                 : status;
}

/* Somebody else's failure is everybody's; one's own has been said already. */
static zcta_status first_failure(const struct zc_group *group, const char *call,
                                 const uint64_t *statuses, size_t stride, zcta_status own)
{
    if (own != ZCTA_OK)
        return conclude(group, own);
    for (uint32_t i = 0; i < group->count; i++) {
        const zcta_status status = (zcta_status)statuses[i * stride];

        if (status != ZCTA_OK) {
            zc_fail_rank(group->diag, status, group->ranks[i], call, 0,
                         "rank %u could not do its part: %s (its own message says why)",
                         group->ranks[i], zcta_status_text(status));
            return conclude(group, status);
        }
    }
    return ZCTA_OK;
}

static uint32_t count_equal(const uint64_t *values, size_t stride, uint32_t count, uint32_t to)
{
    uint32_t equal = 0;

    for (uint32_t i = 0; i < count; i++)
        equal += values[i * stride] == values[to * stride];
    return equal;
}

uint32_t zc_group_outlier(const uint64_t *values, size_t stride, uint32_t count, uint32_t *common)
{
    uint32_t fewest = count_equal(values, stride, count, 0), most = fewest, odd = 0;

    *common = 0;
    for (uint32_t i = 1; fewest < count && i < count; i++) {
        const uint32_t equal = count_equal(values, stride, count, i);

        /* Where as many say one thing as the other, the lower rank is the common one. */
        if (equal > most) {
            most = equal;
            *common = i;
        }
        if (equal < fewest ||
            (equal == fewest && odd == *common && values[i * stride] != values[*common * stride])) {
            fewest = equal;
            odd = i;
        }
    }
    return odd;
}

static zcta_status compare_devices(const struct zc_group *group, const char *call,
                                   const struct offer *offers)
{
    static const char *const names[] = {"another", "host", "cuda"};
    uint32_t common;
    const uint32_t odd = zc_group_outlier(&offers[0].device, sizeof *offers / sizeof(uint64_t),
                                          group->count, &common);

    if (offers[odd].device == offers[common].device)
        return ZCTA_OK;
    return zc_fail_rank(group->diag, ZCTA_ERR_MISMATCH, group->ranks[odd], call, 0,
                        "rank %u is on the %s device, rank %u on the %s device; give all ranks the "
                        "same, or see why one has no GPU",
                        group->ranks[odd], names[offers[odd].device % 3], group->ranks[common],
                        names[offers[common].device % 3]);
}

static zcta_status compare_sizes(const struct zc_group *group, const char *call,
                                 const struct offer *offers)
{
    uint32_t common;
    const uint32_t odd = zc_group_outlier(&offers[0].bytes, sizeof *offers / sizeof(uint64_t),
                                          group->count, &common);

    if (offers[odd].bytes == offers[common].bytes)
        return ZCTA_OK;
    return zc_fail_rank(group->diag, ZCTA_ERR_MISMATCH, group->ranks[odd], call, 0,
                        "rank %u asks for %" PRIu64 " bytes, rank %u for %" PRIu64
                        "; the size must be the same on all ranks",
                        group->ranks[odd], offers[odd].bytes, group->ranks[common],
                        offers[common].bytes);
}

/* What the device could not map, with the name of whose it is. Only memory that is not what its
 * owner said is the owner's fault; want of memory or of addresses is this rank's own. */
static zcta_status name_owner(const struct zc_group *group, uint32_t index, zcta_status status)
{
    const uint32_t guilty = status == ZCTA_ERR_PEER ? index : group->self;
    zcta_error error;

    zc_diag_last(group->diag, &error);
    return zc_fail_rank(group->diag, status, group->ranks[guilty], error.call, error.native,
                        "the memory of rank %" PRIu32 ": %.400s", group->ranks[index],
                        error.message);
}

/* Whether rank `index` has memory that is to be mapped here. */
static bool is_mapped(const struct zc_group *group, const struct zc_symmetric *symmetric,
                      uint32_t index)
{
    return index != group->self &&
           (symmetric->where == ZC_ON_HOST ? is_on_node(group, index)
                                           : zc_group_reaches(group, index));
}

/* The same, of another process. */
static bool comes_from_afar(const struct zc_group *group, const struct zc_symmetric *symmetric,
                            uint32_t index)
{
    return is_mapped(group, symmetric, index) &&
           !zc_mesh_same_process(group->mesh, group->ranks[index]);
}

static zcta_status map_parts(const struct zc_group *group, const struct offer *offers,
                             const int *fds, struct zc_symmetric *symmetric)
{
    zcta_status status = ZCTA_OK;

    for (uint32_t i = 0; i < group->count && status == ZCTA_OK; i++) {
        if (!is_mapped(group, symmetric, i))
            continue;
        if (offers[i].handle.bytes == symmetric->bytes)
            status = group->ops->memory_import(group->device, &offers[i].handle, fds[i],
                                               zc_mesh_same_process(group->mesh, group->ranks[i]),
                                               &symmetric->parts[i]);
        else
            status = zc_fail(group->diag, ZCTA_ERR_PEER, "memory_import", 0,
                             "a handle of %" PRIu64 " bytes came for %zu", offers[i].handle.bytes,
                             symmetric->bytes);
        if (status != ZCTA_OK)
            status = name_owner(group, i, status);
    }
    return status;
}

/* One further piece of every rank's memory that has one. What goes wrong with a piece does not keep
 * this rank from the others' rounds; only a broken round does. A rank that cannot give its piece
 * sends none, and says why in the end. */
static zcta_status share_piece(const struct zc_group *group, const char *call, const char *what,
                               uint32_t piece, const struct offer *offers,
                               struct zc_symmetric *symmetric, zcta_status *outcome)
{
    struct zc_exchange exchange = exchange_of(group, call, what, ZC_TOPIC_MEMORY);
    struct zc_memory_handle mine = {0};
    struct zc_memory_handle *handles = calloc(group->count, sizeof *handles);
    int *fds = calloc(group->count, sizeof *fds);
    bool finished = false;
    zcta_status status;

    if (handles == NULL || fds == NULL) {
        status = zc_fail(group->diag, ZCTA_ERR_NO_MEMORY, call, ENOMEM, "out of memory");
        status = zc_group_give_up(group, status);
        goto out;
    }
    if (piece < offers[group->self].handle.pieces && *outcome == ZCTA_OK)
        *outcome = group->ops->memory_export_piece(group->device, symmetric->parts[group->self],
                                                   piece, &mine, &exchange.fd);
    exchange.mine = &mine;
    exchange.all = handles;
    exchange.bytes = sizeof mine;
    exchange.fds = fds;
    exchange.fd_afar = true;
    status = run_round(group, &exchange, &finished);
    if (status != ZCTA_OK && finished) {
        *outcome = *outcome == ZCTA_OK ? status : *outcome;
        status = ZCTA_OK;
        goto out;
    }
    for (uint32_t i = 0; i < group->count && status == ZCTA_OK; i++) {
        if (*outcome == ZCTA_OK && comes_from_afar(group, symmetric, i) &&
            piece < offers[i].handle.pieces && handles[i].piece_bytes > 0) {
            *outcome = group->ops->memory_import_piece(group->device, symmetric->parts[i], piece,
                                                       &handles[i], fds[i]);
            if (*outcome != ZCTA_OK)
                *outcome = name_owner(group, i, *outcome);
        }
        if (fds[i] >= 0)
            close(fds[i]);
    }
out:
    free(fds);
    free(handles);
    return status;
}

/* As many rounds as the memory of most pieces needs. */
static zcta_status share_pieces(const struct zc_group *group, const char *call, const char *what,
                                const struct offer *offers, struct zc_symmetric *symmetric,
                                zcta_status *outcome)
{
    uint64_t most = 1;
    zcta_status status = ZCTA_OK;

    for (uint32_t i = 0; i < group->count; i++)
        most = offers[i].handle.pieces > most ? offers[i].handle.pieces : most;
    if (most > ZC_MEMORY_PIECES_MOST)
        return zc_fail(group->diag, ZCTA_ERR_PEER, call, 0,
                       "a rank says that its memory is in %" PRIu64 " pieces", most);
    for (uint32_t piece = 1; piece < most && status == ZCTA_OK; piece++)
        status = share_piece(group, call, what, piece, offers, symmetric, outcome);
    return status;
}

/* Whether an address in one part tells where its like is in the other ranks' allocations, for those
 * who know only these. All ranks find the same. */
static bool have_same_layout(const struct offer *offers, uint32_t count)
{
    enum { PAGE = 4096 };
    const struct zc_memory_handle *first = &offers[0].handle;

    for (uint32_t i = 1; i < count; i++)
        if (offers[i].handle.offset != first->offset ||
            offers[i].handle.mapped_bytes != first->mapped_bytes || offers[i].handle.pieces > 1)
            return false;
    return first->offset % PAGE == 0 && first->pieces <= 1;
}

static void close_all(int *fds, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
        fds[i] = -1;
    }
}

/* First round: everybody's offers and descriptors. Unless it is finished nothing of them is
 * compared.
 */
static zcta_status tell(const struct zc_group *group, const char *call, const char *what,
                        zcta_status status, struct zc_memory *own, struct offer *offers, int *fds,
                        bool *finished)
{
    struct zc_exchange exchange = exchange_of(group, call, what, ZC_TOPIC_MEMORY);
    struct offer mine = {
        .status = (uint64_t)status, .device = group->ops->kind, .bytes = offers[group->self].bytes};

    if (own != NULL)
        mine.status =
            (uint64_t)group->ops->memory_export(group->device, own, &mine.handle, &exchange.fd);
    exchange.mine = &mine;
    exchange.all = offers;
    exchange.bytes = sizeof mine;
    exchange.fds = fds;
    exchange.fd_afar = true;
    return run_round(group, &exchange, finished);
}

zcta_status zc_group_confirm(const struct zc_group *group, const char *call, const char *what,
                             zcta_status own)
{
    uint64_t *statuses = calloc(group->count, sizeof *statuses);
    const uint64_t mine = (uint64_t)own;
    zcta_status status;

    if (statuses == NULL) {
        status = zc_fail(group->diag, ZCTA_ERR_NO_MEMORY, call, ENOMEM, "out of memory");
        return zc_group_give_up(group, status);
    }
    status = zc_group_exchange(group, call, what, ZC_TOPIC_CONFIRM, &mine, statuses, sizeof mine);
    if (status == ZCTA_OK)
        status = first_failure(group, call, statuses, 1, own);
    free(statuses);
    return status;
}

/* Makes this rank's part and learns of everybody else's; *told is how that went. All ranks return
 * OK, or none does. */
static zcta_status collect_offers(const struct zc_group *group, struct zc_symmetric *symmetric,
                                  void *base, const char *call, const char *what,
                                  struct offer *offers, int *fds, zcta_status *told)
{
    struct zc_memory **part = &symmetric->parts[group->self];
    zcta_status own = allocate(group, symmetric->where, base, symmetric->bytes, call, part), status;
    bool finished = false;
    zcta_error said;

    zc_diag_last(group->diag, &said);
    *told = tell(group, call, what, own, *part, offers, fds, &finished);
    status =
        !finished || *told == ZCTA_ERR_MISMATCH
            ? *told
            : first_failure(group, call, &offers[0].status, sizeof *offers / sizeof(uint64_t), own);
    if (status == ZCTA_OK)
        status = compare_devices(group, call, offers);
    if (status == ZCTA_OK)
        status = compare_sizes(group, call, offers);
    /* Whatever became of the round, this rank's own trouble is what its caller has to know. */
    if (own != ZCTA_OK) {
        status = own;
        zc_diag_repeat(group->diag, &said);
    }
    return status;
}

zcta_status zc_symmetric_make(const struct zc_group *group, enum zc_where where, void *base,
                              size_t bytes, const char *call, const char *what,
                              struct zc_symmetric **made)
{
    struct zc_symmetric *symmetric =
        calloc(1, sizeof *symmetric + group->count * sizeof *symmetric->parts);
    struct offer *offers = calloc(group->count, sizeof *offers);
    int *fds = malloc(group->count * sizeof *fds);
    uint32_t open_fds = 0;
    zcta_status status, told;

    if (symmetric == NULL || offers == NULL || fds == NULL) {
        status = zc_fail(group->diag, ZCTA_ERR_NO_MEMORY, call, ENOMEM, "out of memory");
        status = zc_group_give_up(group, status);
        goto out;
    }
    *symmetric = (struct zc_symmetric){.ops = group->ops,
                                       .device = group->device,
                                       .where = where,
                                       .count = group->count,
                                       .bytes = bytes};
    for (open_fds = 0; open_fds < group->count; open_fds++)
        fds[open_fds] = -1;
    for (uint32_t i = 0; i < group->count; i++)
        offers[i].bytes = bytes; /* until told otherwise */
    status = collect_offers(group, symmetric, base, call, what, offers, fds, &told);
    if (status != ZCTA_OK)
        goto out;
    symmetric->same_layout = have_same_layout(offers, group->count);
    /* Nobody goes on before everybody has mapped everything. A rank that could not take what the
     * others sent says so here. */
    if (told == ZCTA_OK)
        told = map_parts(group, offers, fds, symmetric);
    close_all(fds, group->count);
    status = share_pieces(group, call, what, offers, symmetric, &told);
    if (status == ZCTA_OK)
        status = zc_group_confirm(group, call, what, told);
    if (status != ZCTA_OK)
        goto out;
    *made = symmetric;
    symmetric = NULL;
out:
    close_all(fds, open_fds);
    free(fds);
    free(offers);
    zc_symmetric_release(symmetric);
    return status;
}
