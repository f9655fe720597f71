/* Chooses how the addresses travel, and does it through the caller's exchange if there is one.
 * The TCP bootstrap is in bootstrap_host.c and bootstrap_join.c. */
#include "rendezvous/bootstrap.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "rendezvous/claim.h"
#include "rendezvous/names.h"
#include "rendezvous/text.h"

enum { RECORD = (int)(ZC_WIRE_ADDRESS + ZC_WIRE_KEY), ROOM = 128 };

#define DECLINE_NS UINT64_C(1000000000)

void zc_bootstrap_host_id(uint8_t host[16], uint64_t node)
{
    struct {
        char boot[64];
        char name[64];
        uint64_t device, inode, node;
    } facts;
    struct stat space;
    const int fd = zc_fd_lift(open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC));

    memset(&facts, 0, sizeof facts);
    if (fd >= 0) {
        if (read(fd, facts.boot, sizeof facts.boot - 1) < 0)
            facts.boot[0] = '\0';
        close(fd);
    }
    if (facts.boot[0] == '\0')
        (void)gethostname(facts.name, sizeof facts.name - 1);
    if (stat("/proc/self/ns/net", &space) == 0) {
        facts.device = space.st_dev;
        facts.inode = space.st_ino;
    }
    facts.node = node;
    crypto_generichash(host, 16, (const unsigned char *)&facts, sizeof facts, NULL, 0);
}

/* Where other hosts may reach this rank: as the user says, else as rank 0 does, else by whatever
 * interface there is; but not beyond the loopback unless the user allows that. */
static bool own_endpoint(const struct zc_job *job, const struct zc_endpoint *here,
                         struct zc_endpoint *endpoint)
{
    uint8_t ip[16];
    uint16_t port;

    if (job->address[0] != '\0')
        return zc_net_resolve(job->address, 0, endpoint);
    if (here != NULL && !zc_net_is_any(here)) {
        zc_net_pack(here, ip, &port);
        zc_net_unpack(ip, 0, endpoint);
        return true;
    }
    return job->remote ? zc_net_own_address(endpoint) : zc_net_resolve("127.0.0.1", 0, endpoint);
}

zcta_status zc_bootstrap_open_port(struct zc_bootstrap *bootstrap, const struct zc_endpoint *here)
{
    const struct zc_job *job = bootstrap->job;
    struct zc_endpoint endpoint;
    char text[64];
    int error;

    /* Without these all ranks are on one host, or cannot be joined; and without a secret anybody
     * could take a seat, as no kernel vouches for who calls. */
    if (bootstrap->declines || bootstrap->port_fd >= 0 || (!job->remote && job->node == 0) ||
        (!job->has_token && job->exchange == NULL))
        return ZCTA_OK;
    /* A machine without a network: if ranks are on others it is said when that is known. */
    if (!own_endpoint(job, here, &endpoint))
        return ZCTA_OK;
    error = zc_net_listen_tcp(&endpoint, &bootstrap->port_fd);
    if (error == 0 && !zc_net_here(bootstrap->port_fd, &endpoint))
        error = errno;
    zc_net_text(&endpoint, text);
    if (error != 0)
        return zc_fail(bootstrap->diag,
                       error == EMFILE || error == ENFILE ? ZCTA_ERR_SYSTEM : ZCTA_ERR_RENDEZVOUS,
                       "zcta_init", error,
                       "rank %" PRIu32 " cannot listen at %s for ranks on other machines: %s; %s",
                       job->rank, text, strerror(error),
                       error == EMFILE || error == ENFILE
                           ? "raise `ulimit -n`"
                           : "set ZEROCTA_ADDRESS to an address of this machine");
    zc_net_pack(&endpoint, bootstrap->mine.ip, &bootstrap->mine.port);
    return ZCTA_OK;
}

size_t zc_bootstrap_table_bytes(const struct zc_bootstrap *bootstrap)
{
    return (size_t)bootstrap->job->rank_count * ZC_WIRE_ADDRESS + ZC_WIRE_MAC;
}

/* What a rank gives that cannot join. */
static const uint8_t declined[RECORD];

/* Has room for many ranks without asking for memory, which may be what this rank has none of. */
void zc_job_decline(zcta_exchange_fn exchange, void *exchange_data, uint32_t rank_count)
{
    uint8_t room[ROOM * RECORD], *all = room;

    if (exchange == NULL || rank_count < 2 || rank_count > ZC_MAX_RANKS)
        return;
    if (rank_count > ROOM)
        all = calloc(rank_count, RECORD);
    if (all == NULL)
        return;
    (void)exchange(exchange_data, declined, all, RECORD);
    sodium_memzero(all, (size_t)rank_count * RECORD);
    if (all != room)
        free(all);
}

zcta_status zc_bootstrap_fail_version(const struct zc_bootstrap *bootstrap, uint32_t rank,
                                      uint32_t theirs, uint32_t of_rank_0)
{
    char version[16], first[16];

    zc_text_version(version, theirs);
    zc_text_version(first, of_rank_0);
    return zc_fail_rank(bootstrap->diag, ZCTA_ERR_RENDEZVOUS, rank, "zcta_init", 0,
                        "rank %" PRIu32 " runs zerocta %s and rank 0 runs zerocta %s: run the same "
                        "version on all ranks",
                        rank, version, first);
}

/* All ranks see the same table and say the same. */
static zcta_status check_versions(const struct zc_bootstrap *bootstrap)
{
    const struct zc_address *table = bootstrap->table;

    for (uint32_t rank = 1; rank < bootstrap->job->rank_count; rank++)
        if (table[rank].version != table[0].version)
            return zc_bootstrap_fail_version(bootstrap, rank, table[rank].version,
                                             table[0].version);
    return ZCTA_OK;
}

/* Rank 0's record carries a fresh key: whoever takes part in the caller's exchange belongs to the
 * job, and nobody else learns it. */
static zcta_status run_exchange(struct zc_bootstrap *bootstrap)
{
    const struct zc_job *job = bootstrap->job;
    uint8_t mine[RECORD] = {0};
    uint8_t *all = calloc(job->rank_count, RECORD);
    zcta_status status = ZCTA_OK;
    int result;

    if (all == NULL)
        return zc_fail(bootstrap->diag, ZCTA_ERR_NO_MEMORY, "zcta_init", 0,
                       "no memory for the addresses of %" PRIu32 " ranks", job->rank_count);
    zc_wire_address_encode(mine, &bootstrap->mine);
    if (job->rank == 0)
        randombytes_buf(mine + ZC_WIRE_ADDRESS, ZC_WIRE_KEY);
    result = job->exchange(job->exchange_data, mine, all, RECORD);
    if (result != 0)
        status = zc_fail(bootstrap->diag, ZCTA_ERR_RENDEZVOUS, "zcta_init", result,
                         "the exchange function given in zcta_init_params returned %d on rank "
                         "%" PRIu32 ", so the ranks' addresses are not known",
                         result, job->rank);
    for (uint32_t rank = 0; status == ZCTA_OK && rank < job->rank_count; rank++)
        if (memcmp(all + (size_t)rank * RECORD, declined, RECORD) == 0)
            status =
                zc_fail_rank(bootstrap->diag, ZCTA_ERR_RENDEZVOUS, rank, "zcta_init", 0,
                             "there is no address of rank %" PRIu32 ": it cannot join, and its "
                             "own output says why, or the exchange function given in "
                             "zcta_init_params did not place its bytes at all + rank * bytes",
                             rank);
        else if (zc_wire_address_decode(all + (size_t)rank * RECORD, &bootstrap->table[rank]) !=
                 ZC_WIRE_OK)
            status = zc_fail_rank(bootstrap->diag, ZCTA_ERR_RENDEZVOUS, rank, "zcta_init", 0,
                                  "the exchange function given in zcta_init_params left no address "
                                  "of rank %" PRIu32 ": it must place every rank's bytes at "
                                  "all + rank * bytes, and all ranks must run the same zerocta",
                                  rank);
    if (status == ZCTA_OK)
        status = check_versions(bootstrap);
    if (status == ZCTA_OK && memcmp(all + (size_t)job->rank * RECORD, mine, RECORD) != 0)
        status = zc_fail(bootstrap->diag, ZCTA_ERR_RENDEZVOUS, "zcta_init", 0,
                         "the exchange function given in zcta_init_params placed other bytes than "
                         "rank %" PRIu32 "'s at its place: check that the rank numbers of "
                         "zcta_init_params are those of the exchange",
                         job->rank);
    if (status == ZCTA_OK)
        memcpy(bootstrap->key, all + ZC_WIRE_ADDRESS, ZC_WIRE_KEY);
    sodium_memzero(mine, sizeof mine);
    sodium_memzero(all, (size_t)job->rank_count * RECORD);
    free(all);
    return status;
}

/* The address of job->root. */
static zcta_status find_root(struct zc_bootstrap *bootstrap)
{
    const struct zc_job *job = bootstrap->job;
    char host[sizeof job->root];
    uint16_t port;

    if (!zc_net_split(job->root, host, sizeof host, &port))
        return zc_fail(bootstrap->diag, ZCTA_ERR_RENDEZVOUS, "zcta_init", 0,
                       "the root's address %s is not host:port", job->root);
    return zc_names_resolve(host, port, bootstrap->deadline, bootstrap->diag, &bootstrap->root);
}

static zcta_status run_tcp(struct zc_bootstrap *bootstrap)
{
    const struct zc_job *job = bootstrap->job;
    zcta_status status;

    memcpy(bootstrap->key, job->key, sizeof bootstrap->key);
    status = zc_claim_take(job, bootstrap->diag, &bootstrap->claim_fd);
    if (status == ZCTA_OK)
        status = find_root(bootstrap);
    if (status == ZCTA_OK)
        status = job->rank == 0 ? zc_bootstrap_host(bootstrap) : zc_bootstrap_join(bootstrap);
    bootstrap->unheard = bootstrap->line_count == 0 || bootstrap->lines[0].fd < 0;
    bootstrap->unheard = bootstrap->unheard && job->rank != 0 &&
                         (status == ZCTA_ERR_SYSTEM || status == ZCTA_ERR_NO_MEMORY);
    return status;
}

zcta_status zc_bootstrap_run(struct zc_bootstrap *bootstrap)
{
    const struct zc_job *job = bootstrap->job;
    zcta_status status;

    if (job->exchange == NULL)
        return run_tcp(bootstrap);
    status = zc_bootstrap_open_port(bootstrap, NULL);
    if (status == ZCTA_OK)
        return run_exchange(bootstrap);
    bootstrap->unheard = true;
    return status;
}

void zc_bootstrap_decline(struct zc_bootstrap *bootstrap)
{
    const struct zc_job *job = bootstrap->job;
    const uint64_t soon = zc_deadline_in(DECLINE_NS);
    zcta_error why;

    zc_diag_last(bootstrap->diag, &why);
    if (job->exchange != NULL) {
        zc_job_decline(job->exchange, job->exchange_data, job->rank_count);
    } else if (job->root[0] != '\0' && bootstrap->table != NULL && sodium_init() >= 0) {
        if (bootstrap->deadline > soon)
            bootstrap->deadline = soon;
        bootstrap->declines = true;
        bootstrap->failed = why.status;
        memcpy(bootstrap->key, job->key, sizeof bootstrap->key);
        if (find_root(bootstrap) == ZCTA_OK) {
            zc_diag_repeat(bootstrap->diag, &why);
            (void)(job->rank == 0 ? zc_bootstrap_host(bootstrap) : zc_bootstrap_join(bootstrap));
        }
    }
    zc_diag_repeat(bootstrap->diag, &why);
}
