/* Who this rank is, and where the job meets: from parameters, or from the launcher's environment.
 * Opens no connection. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/environment.h"
#include "rendezvous/launchers.h"
#include "rendezvous/net.h"
#include "rendezvous/rendezvous.h"

enum { FIRST_DERIVED_PORT = 20000, DERIVED_PORTS = 12001, JOB_NAME = 100 };

/* How long rank 0 looks for a second launch with the same words before it gives out the table. */
#define SETTLE_NS UINT64_C(100000000)

/* For ranks that come after the job has failed. */
#define LINGER_NS UINT64_C(1000000000)

struct resolver {
    const zcta_init_params *params;
    struct zc_diag *diag;
    struct zc_job *job;
    struct zc_launched launched;
    const char *name; /* ZEROCTA_JOB, or NULL */
};

static bool is_set(const char *name)
{
    return getenv(name) != NULL;
}

static bool from_environment(const struct resolver *resolver)
{
    return resolver->launched.launcher != NULL;
}

/* Normalizes the host, so that all ranks name it alike, and refuses what is not loopback unless the
 * user asked for more. `from` names where the address came from. */
static zcta_status set_root(struct resolver *resolver, const char *host, uint16_t port,
                            const char *from)
{
    struct zc_job *job = resolver->job;
    const zcta_status bad = from_environment(resolver) ? ZCTA_ERR_ENVIRONMENT : ZCTA_ERR_INVALID;
    struct zc_endpoint endpoint;
    char own[256] = "";
    bool numeric;
    int length;

    (void)gethostname(own, sizeof own - 1);
    /* A launcher on one machine may give that machine's own name: no resolver is asked for it. */
    if (strcmp(host, "localhost") == 0 || (!job->remote && strcmp(host, own) == 0))
        host = "127.0.0.1";
    numeric = zc_net_resolve(host, port, &endpoint);
    if (!job->remote && !numeric)
        return zc_fail(resolver->diag, bad, "zcta_init", 0,
                       "%s gives the root's host as %.100s, which is not a numeric address; give "
                       "127.0.0.1, or set ZEROCTA_REMOTE=1 to resolve names and allow other "
                       "machines",
                       from, host);
    if (!job->remote && !zc_net_is_loopback(&endpoint))
        return zc_fail(resolver->diag, bad, "zcta_init", 0,
                       "%s gives the root's host as %.100s, which is not a loopback address; give "
                       "127.0.0.1, or set ZEROCTA_REMOTE=1 to open a port to other machines",
                       from, host);
    /* Names are resolved when the ranks meet, where there is a deadline; until then any name may be
     * another machine's. */
    if (!job->has_token && !(numeric && zc_net_is_loopback(&endpoint)))
        return zc_fail(resolver->diag, bad, "zcta_init", 0,
                       "%s gives the root's host as %.100s, which other machines can reach: set "
                       "ZEROCTA_TOKEN to the same secret on all ranks",
                       from, host);
    length = snprintf(job->root, sizeof job->root, strchr(host, ':') != NULL ? "[%s]:%u" : "%s:%u",
                      host, (unsigned)port);
    if (length >= (int)sizeof job->root)
        return zc_fail(resolver->diag, bad, "zcta_init", 0,
                       "%s gives a host name of more than 120 bytes", from);
    return ZCTA_OK;
}

static zcta_status set_root_text(struct resolver *resolver, const char *root, const char *from,
                                 uint32_t other_port)
{
    char host[sizeof resolver->job->root];
    uint16_t port;

    if (!zc_net_split(root, host, sizeof host, &port))
        return zc_fail(resolver->diag,
                       from_environment(resolver) ? ZCTA_ERR_ENVIRONMENT : ZCTA_ERR_INVALID,
                       "zcta_init", 0, "%s is %.100s, which is not host:port", from, root);
    return set_root(resolver, host, other_port != 0 ? (uint16_t)other_port : port, from);
}

/* All ranks of a job derive the same port, two jobs of one machine hardly ever do. */
static uint16_t derived_port(const struct resolver *resolver)
{
    char facts[ZC_LAUNCH_IDENTITY + 64];
    uint8_t hash[16];
    uint32_t number;

    memset(facts, 0, sizeof facts);
    snprintf(facts, sizeof facts, "port %u %s", (unsigned)geteuid(), resolver->launched.identity);
    crypto_generichash(hash, sizeof hash, (const unsigned char *)facts, sizeof facts, NULL, 0);
    number = (uint32_t)hash[0] | (uint32_t)hash[1] << 8 | (uint32_t)hash[2] << 16;
    return (uint16_t)(FIRST_DERIVED_PORT + number % DERIVED_PORTS);
}

/* The launcher has started ranks on other machines: they cannot meet at this machine's loopback,
 * unless somebody says so who plays several machines on one. */
static zcta_status check_spread(const struct resolver *resolver)
{
    const struct zc_launched *launched = &resolver->launched;
    const struct zc_job *job = resolver->job;
    const char *host = getenv("MASTER_ADDR");
    struct zc_endpoint endpoint;

    if (!launched->spread ||
        (host != NULL && (job->remote || strcmp(host, "localhost") == 0 ||
                          (zc_net_resolve(host, 0, &endpoint) && zc_net_is_loopback(&endpoint)))))
        return ZCTA_OK;
    return zc_fail(resolver->diag, ZCTA_ERR_ENVIRONMENT, "zcta_init", 0,
                   "%s has started the %" PRIu32 " ranks of this job on several machines, %" PRIu32
                   " of them on this one: set ZEROCTA_REMOTE=1, ZEROCTA_TOKEN to a secret, "
                   "MASTER_ADDR to an address of rank 0's machine and MASTER_PORT to a port that "
                   "is free there, on all ranks",
                   launched->launcher->name, launched->count, launched->local_count);
}

/* MASTER_ADDR and MASTER_PORT, or for launchers that do not set them a port of the job's own. */
static zcta_status read_master(struct resolver *resolver, uint32_t other_port)
{
    const struct zc_launcher *launcher = resolver->launched.launcher;
    const char *agent = getenv("TORCHELASTIC_USE_AGENT_STORE");
    const bool any = is_set("MASTER_ADDR") || is_set("MASTER_PORT");
    zcta_status status = check_spread(resolver);
    uint32_t port = other_port;
    const char *host, *text;

    if (status != ZCTA_OK)
        return status;
    if (launcher != &zc_launchers[ZC_LAUNCHER_TORCHRUN] && !any) {
        if (other_port == 0 && !resolver->launched.named)
            return zc_fail(resolver->diag, ZCTA_ERR_ENVIRONMENT, "zcta_init", 0,
                           "nothing in the environment of %s names this job%s%s%s, so no port can "
                           "be derived from it: set ZEROCTA_PORT to a free port on all ranks",
                           launcher->name, launcher->identity[0] != NULL ? " (" : "",
                           launcher->identity[0] != NULL ? launcher->identity[0] : "",
                           launcher->identity[0] != NULL ? " is not set)" : "");
        return set_root(resolver, "127.0.0.1",
                        other_port != 0 ? (uint16_t)other_port : derived_port(resolver),
                        launcher->name);
    }
    status = zc_launcher_need(resolver->diag, launcher, "MASTER_ADDR", &host);
    if (status == ZCTA_OK && other_port == 0)
        status = zc_launcher_need(resolver->diag, launcher, "MASTER_PORT", &text);
    if (status == ZCTA_OK && other_port == 0)
        status = zc_launcher_number(resolver->diag, "MASTER_PORT", 1, UINT16_MAX, &port);
    if (status != ZCTA_OK)
        return status;
    /* Under torchrun's agent the agent itself listens at MASTER_PORT. */
    if (other_port == 0 && agent != NULL && strcmp(agent, "True") == 0 && ++port > UINT16_MAX)
        return zc_fail(resolver->diag, ZCTA_ERR_ENVIRONMENT, "zcta_init", 0,
                       "MASTER_PORT=65535 is torchrun's own and there is no next port: set "
                       "ZEROCTA_PORT to a free port on all ranks");
    return set_root(resolver, host, (uint16_t)port, "MASTER_ADDR");
}

/* Rank 0 of `zerocta run` inherits its listening socket, so that the port cannot be taken between
 * the launcher's choice and the rank's start. The inherited descriptor itself stays open: a later
 * context of this process finds it again. */
static zcta_status take_listener(struct resolver *resolver)
{
    const char *text = zc_environment("ZEROCTA_LISTEN_FD");
    struct zc_job *job = resolver->job;
    struct sockaddr_storage bound = {0};
    struct sockaddr_in six_or_four;
    socklen_t length = sizeof bound, int_length = sizeof(int);
    const char *colon = strrchr(job->root, ':');
    int listening = 0;
    uint32_t fd;

    if (job->rank != 0 || text == NULL)
        return ZCTA_OK;
    if (!zc_launcher_parse(text, INT32_MAX, &fd) ||
        getsockopt((int)fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &int_length) != 0 ||
        listening == 0 || getsockname((int)fd, (struct sockaddr *)&bound, &length) != 0 ||
        (bound.ss_family != AF_INET && bound.ss_family != AF_INET6))
        return zc_fail(resolver->diag, ZCTA_ERR_ENVIRONMENT, "zcta_init", errno,
                       "ZEROCTA_LISTEN_FD=%.40s is not a listening TCP socket of this process: the "
                       "launcher must pass it on open, or not set the variable",
                       text);
    /* The port stands at the same place in both families. */
    memcpy(&six_or_four, &bound, sizeof six_or_four);
    if (strtoul(colon + 1, NULL, 10) != ntohs(six_or_four.sin_port))
        return zc_fail(resolver->diag, ZCTA_ERR_ENVIRONMENT, "zcta_init", 0,
                       "ZEROCTA_LISTEN_FD=%.40s listens at port %u but the other ranks go to %s: "
                       "ZEROCTA_ROOT or ZEROCTA_PORT contradicts it",
                       text, (unsigned)ntohs(six_or_four.sin_port), job->root);
    job->listen_fd = fcntl((int)fd, F_DUPFD_CLOEXEC, 3);
    if (job->listen_fd < 0)
        return zc_fail(resolver->diag, ZCTA_ERR_SYSTEM, "zcta_init", errno,
                       "the launcher's listening socket cannot be taken over: %s; raise "
                       "`ulimit -n`",
                       strerror(errno));
    (void)fcntl((int)fd, F_SETFD, FD_CLOEXEC);
    return ZCTA_OK;
}

static zcta_status read_token(struct resolver *resolver)
{
    const char *given = resolver->params->token;
    const char *token = given != NULL ? given : zc_environment("ZEROCTA_TOKEN");
    struct zc_job *job = resolver->job;

    job->has_token = token != NULL;
    if (token == NULL)
        return ZCTA_OK;
    if (token[0] == '\0')
        return zc_fail(resolver->diag, given != NULL ? ZCTA_ERR_INVALID : ZCTA_ERR_ENVIRONMENT,
                       "zcta_init", 0, "%s is empty: give all ranks the same secret, or none",
                       given != NULL ? "the token in zcta_init_params" : "ZEROCTA_TOKEN");
    crypto_generichash(job->key, sizeof job->key, (const unsigned char *)token, strlen(token), NULL,
                       0);
    return ZCTA_OK;
}

/* ZEROCTA_JOB, a name that the user gives this launch and no other. */
static zcta_status read_name(struct resolver *resolver)
{
    resolver->name = zc_environment("ZEROCTA_JOB");
    if (resolver->name == NULL || (resolver->name[0] != '\0' && strlen(resolver->name) <= JOB_NAME))
        return ZCTA_OK;
    return zc_fail(
        resolver->diag, ZCTA_ERR_ENVIRONMENT, "zcta_init", 0,
        "ZEROCTA_JOB has %zu bytes; give each launch a name of its own, of 1 to %d bytes",
        strlen(resolver->name), (int)JOB_NAME);
}

/* The key keeps out whoever does not know the token, and another launch even if it does, as far as
 * a name tells them apart. Without a token it keeps nobody out, but two jobs never talk to each
 * other by accident. */
static void derive_key(const struct resolver *resolver)
{
    const char *name = resolver->name != NULL ? resolver->name : "";
    struct zc_job *job = resolver->job;
    char facts[ZC_LAUNCH_IDENTITY + JOB_NAME + 256];
    uint8_t token[sizeof job->key];

    memset(facts, 0, sizeof facts);
    if (job->has_token)
        snprintf(facts, sizeof facts, "token %s%s %s", resolver->name != NULL ? "job " : "", name,
                 resolver->launched.identity);
    else
        snprintf(facts, sizeof facts, "key %u %u %s %s%s %s", (unsigned)geteuid(), job->rank_count,
                 job->root, resolver->name != NULL ? "job " : "", name,
                 resolver->launched.identity);
    memcpy(token, job->key, sizeof token);
    crypto_generichash(job->key, sizeof job->key, (const unsigned char *)facts, sizeof facts, token,
                       job->has_token ? sizeof token : 0);
    sodium_memzero(token, sizeof token);
    job->linger_ns = LINGER_NS;
    job->settle_ns = resolver->name != NULL || resolver->launched.named ? 0 : SETTLE_NS;
    /* torchrun's agent holds the address while its ranks run, which no second one can. */
    job->nameless = job->settle_ns != 0 && getenv(zc_launchers[ZC_LAUNCHER_TORCHRUN].mark) == NULL;
}

static zcta_status resolve_environment(struct resolver *resolver)
{
    const struct zc_launched *launched = &resolver->launched;
    const struct zc_launcher *launcher = launched->launcher;
    struct zc_job *job = resolver->job;
    zcta_status status = ZCTA_OK;
    uint32_t port = 0;
    const char *root, *token;

    job->source = launcher->name;
    job->rank = launched->rank;
    job->rank_count = launched->count;
    job->local_rank = launched->local_rank;
    job->local_rank_count = launched->local_count;
    if (job->rank_count == 1)
        return ZCTA_OK;
    if (is_set("ZEROCTA_PORT"))
        status = zc_launcher_number(resolver->diag, "ZEROCTA_PORT", 1, UINT16_MAX, &port);
    if (status != ZCTA_OK)
        return status;
    if (launcher != &zc_launchers[ZC_LAUNCHER_RUN])
        return read_master(resolver, port);
    status = zc_launcher_need(resolver->diag, launcher, "ZEROCTA_ROOT", &root);
    if (status == ZCTA_OK && !job->has_token)
        status = zc_launcher_need(resolver->diag, launcher, "ZEROCTA_TOKEN", &token);
    if (status == ZCTA_OK)
        status = set_root_text(resolver, root, "ZEROCTA_ROOT", port);
    if (status == ZCTA_OK)
        status = take_listener(resolver);
    return status;
}

static zcta_status resolve_params(struct resolver *resolver)
{
    const zcta_init_params *params = resolver->params;
    struct zc_job *job = resolver->job;

    job->source = params->exchange != NULL ? "exchange function" : "parameters";
    if (params->rank_count > ZC_MAX_RANKS)
        return zc_fail(resolver->diag, ZCTA_ERR_INVALID, "zcta_init", 0,
                       "rank_count is %" PRIu32 ", more than the %u ranks a job can have",
                       params->rank_count, ZC_MAX_RANKS);
    if (params->rank >= params->rank_count)
        return zc_fail(resolver->diag, ZCTA_ERR_INVALID, "zcta_init", 0,
                       "rank is %" PRIu32 " but rank_count is %" PRIu32
                       ": ranks count from 0 and are less than their number",
                       params->rank, params->rank_count);
    job->rank = job->local_rank = params->rank;
    job->rank_count = job->local_rank_count = params->rank_count;
    if (params->rank_count == 1)
        return ZCTA_OK;
    if (params->exchange != NULL) {
        job->exchange = params->exchange;
        job->exchange_data = params->exchange_data;
        return ZCTA_OK;
    }
    if (params->root == NULL)
        return zc_fail(resolver->diag, ZCTA_ERR_INVALID, "zcta_init", 0,
                       "rank_count is %" PRIu32 " but neither root nor exchange is given: the "
                       "ranks cannot find each other",
                       params->rank_count);
    return set_root_text(resolver, params->root, "root in zcta_init_params", 0);
}

static zcta_status read_node(struct resolver *resolver)
{
    const char *text = zc_environment("ZEROCTA_NODE");
    char *end = NULL;

    resolver->job->node = resolver->params->node;
    if (resolver->job->node != 0 || text == NULL)
        return ZCTA_OK;
    errno = 0;
    resolver->job->node = strtoull(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || text[0] == '-' || resolver->job->node == 0)
        return zc_fail(resolver->diag, ZCTA_ERR_ENVIRONMENT, "zcta_init", 0,
                       "ZEROCTA_NODE is '%.40s'; give a number from 1 on, the same on all ranks of "
                       "a node",
                       text);
    return ZCTA_OK;
}

/* An address beyond the loopback needs what the root's needs: a permission, and a secret. */
static zcta_status read_address(struct resolver *resolver)
{
    const char *text = zc_environment("ZEROCTA_ADDRESS");
    struct zc_job *job = resolver->job;
    struct zc_endpoint endpoint;

    if (text == NULL)
        return ZCTA_OK;
    if (strlen(text) >= sizeof job->address || !zc_net_resolve(text, 0, &endpoint) ||
        zc_net_is_any(&endpoint))
        return zc_fail(resolver->diag, ZCTA_ERR_ENVIRONMENT, "zcta_init", 0,
                       "ZEROCTA_ADDRESS is '%.60s'; give the numeric address of one of this "
                       "machine's interfaces",
                       text);
    if (!zc_net_is_loopback(&endpoint) && !job->remote)
        return zc_fail(resolver->diag, ZCTA_ERR_ENVIRONMENT, "zcta_init", 0,
                       "ZEROCTA_ADDRESS is %s, which other machines can reach: set "
                       "ZEROCTA_REMOTE=1 to allow that",
                       text);
    if (!zc_net_is_loopback(&endpoint) && !job->has_token && resolver->params->exchange == NULL)
        return zc_fail(
            resolver->diag, ZCTA_ERR_ENVIRONMENT, "zcta_init", 0,
            "ZEROCTA_ADDRESS is %s, which other machines can reach: set ZEROCTA_TOKEN to "
            "the same secret on all ranks",
            text);
    memcpy(job->address, text, strlen(text) + 1);
    return ZCTA_OK;
}

zcta_status zc_job_resolve(const zcta_init_params *params, struct zc_diag *diag, struct zc_job *job)
{
    struct zc_job found = {
        .rank_count = 1, .local_rank_count = 1, .listen_fd = -1, .source = "alone"};
    struct resolver resolver = {.params = params, .diag = diag, .job = &found};
    zcta_status status;

    if (sodium_init() < 0)
        return zc_fail(diag, ZCTA_ERR_SYSTEM, "zcta_init", 0,
                       "libsodium cannot start: the system gives no random numbers");
    if (params->rank_count == 0 &&
        (params->rank != 0 || params->root != NULL || params->exchange != NULL))
        return zc_fail(diag, ZCTA_ERR_INVALID, "zcta_init", 0,
                       "rank, root or exchange is given but rank_count is 0: set rank_count, or "
                       "none of them to take all from the environment");
    found.remote = zc_environment_choice("ZEROCTA_REMOTE") == 1;
    status = read_token(&resolver);
    if (status == ZCTA_OK)
        status = read_name(&resolver);
    if (status == ZCTA_OK && params->rank_count == 0)
        status = zc_launched_find(diag, &resolver.launched);
    if (status == ZCTA_OK)
        status = read_node(&resolver);
    if (status == ZCTA_OK && params->rank_count != 0)
        status = resolve_params(&resolver);
    else if (status == ZCTA_OK && from_environment(&resolver))
        status = resolve_environment(&resolver);
    if (status == ZCTA_OK && found.rank_count > 1)
        status = read_address(&resolver);
    if (status != ZCTA_OK)
        goto out;
    derive_key(&resolver);
    diag->rank = found.rank;
    *job = found;
out:
    sodium_memzero(&found, sizeof found);
    return status;
}
