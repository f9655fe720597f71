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

#include "rendezvous/net.h"
#include "rendezvous/rendezvous.h"

enum { FIRST_DERIVED_PORT = 20000, DERIVED_PORTS = 12001, IDENTITY = 256 };

/* What a launcher tells its ranks, by the names of its variables. */
struct launcher {
    const char *name;
    const char *rank, *count, *local_rank, *local_count;
    const char *identity[3]; /* the first that is set names the job */
    const char *identity_more;
    bool count_alone; /* the count without a rank is a mistake, not just an outer allocation */
    bool local_needed;
};

enum { ZEROCTA_RUN, TORCHRUN, OPEN_MPI, PMIX, SLURM, LAUNCHERS };

static const struct launcher launchers[LAUNCHERS] = {
    [ZEROCTA_RUN] = {.name = "zerocta run",
                     .rank = "ZEROCTA_RANK",
                     .count = "ZEROCTA_RANK_COUNT",
                     .local_rank = "ZEROCTA_LOCAL_RANK",
                     .local_count = "ZEROCTA_LOCAL_RANK_COUNT",
                     .count_alone = true,
                     .local_needed = true},
    [TORCHRUN] = {.name = "torchrun",
                  .rank = "RANK",
                  .count = "WORLD_SIZE",
                  .local_rank = "LOCAL_RANK",
                  .local_count = "LOCAL_WORLD_SIZE",
                  .identity = {"TORCHELASTIC_RUN_ID"},
                  .count_alone = true,
                  .local_needed = true},
    [OPEN_MPI] = {.name = "Open MPI",
                  .rank = "OMPI_COMM_WORLD_RANK",
                  .count = "OMPI_COMM_WORLD_SIZE",
                  .local_rank = "OMPI_COMM_WORLD_LOCAL_RANK",
                  .local_count = "OMPI_COMM_WORLD_LOCAL_SIZE",
                  .identity = {"PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid",
                               "OMPI_MCA_orte_hnp_uri"},
                  .count_alone = true,
                  .local_needed = true},
    [PMIX] = {.name = "PMIx",
              .rank = "PMIX_RANK",
              .count = "SLURM_NTASKS",
              .local_rank = "SLURM_LOCALID",
              .identity = {"PMIX_NAMESPACE"}},
    [SLURM] = {.name = "Slurm",
               .rank = "SLURM_PROCID",
               .count = "SLURM_NTASKS",
               .local_rank = "SLURM_LOCALID",
               .identity = {"SLURM_JOB_ID"},
               .identity_more = "SLURM_STEP_ID",
               .local_needed = true},
};

struct resolver {
    const zcta_init_params *params;
    struct zc_diag *diag;
    struct zc_job *job;
    const struct launcher *launcher; /* NULL: from parameters */
    char identity[IDENTITY];         /* the launcher's name of the job, or empty */
};

/* NULL for a variable that is not set, and for none. */
static const char *variable(const char *name)
{
    return name != NULL ? getenv(name) : NULL;
}

static bool is_set(const char *name)
{
    return variable(name) != NULL;
}

/* Digits only, at most `most`. */
static bool parse_number(const char *text, uint32_t most, uint32_t *value)
{
    uint64_t number = 0;

    if (*text == '\0')
        return false;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9')
            return false;
        number = number * 10 + (uint64_t)(*text - '0');
        if (number > most)
            return false;
    }
    *value = (uint32_t)number;
    return true;
}

/* *text is the variable's value. An error if it is not set, in the environment of a launcher that
 * sets it. */
static zcta_status need(struct resolver *resolver, const char *name, const char **text)
{
    *text = variable(name);
    if (*text != NULL)
        return ZCTA_OK;
    return zc_fail(resolver->diag, ZCTA_ERR_ENVIRONMENT, "zcta_init", 0,
                   "%s is not set, but other variables of %s are: start the program with a "
                   "launcher that sets all of them, or unset them to run one rank alone",
                   name, resolver->launcher->name);
}

static zcta_status read_number(struct resolver *resolver, const char *name, uint32_t least,
                               uint32_t most, uint32_t *value)
{
    const char *text;
    const zcta_status status = need(resolver, name, &text);

    if (status != ZCTA_OK)
        return status;
    if (!parse_number(text, most, value) || *value < least)
        return zc_fail(resolver->diag, ZCTA_ERR_ENVIRONMENT, "zcta_init", 0,
                       "%s=%.40s is not a number from %" PRIu32 " to %" PRIu32, name, text, least,
                       most);
    return ZCTA_OK;
}

/* A rank and how many there are. */
static zcta_status read_place(struct resolver *resolver, const char *rank_name,
                              const char *count_name, uint32_t *rank, uint32_t *count)
{
    zcta_status status = read_number(resolver, count_name, 1, ZC_MAX_RANKS, count);

    if (status == ZCTA_OK)
        status = read_number(resolver, rank_name, 0, UINT32_MAX - 1, rank);
    if (status == ZCTA_OK && *rank >= *count)
        status = zc_fail(resolver->diag, ZCTA_ERR_ENVIRONMENT, "zcta_init", 0,
                         "%s=%" PRIu32 " but %s=%" PRIu32
                         ": ranks count from 0 and are less than their number",
                         rank_name, *rank, count_name, *count);
    return status;
}

static zcta_status read_local_place(struct resolver *resolver)
{
    const struct launcher *launcher = resolver->launcher;
    struct zc_job *job = resolver->job;
    zcta_status status = ZCTA_OK;
    const char *text;

    job->local_rank = job->rank;
    job->local_rank_count = job->rank_count;
    if (is_set(launcher->local_count)) {
        status = read_place(resolver, launcher->local_rank, launcher->local_count, &job->local_rank,
                            &job->local_rank_count);
        if (status == ZCTA_OK && job->local_rank_count > job->rank_count)
            status = zc_fail(resolver->diag, ZCTA_ERR_ENVIRONMENT, "zcta_init", 0,
                             "%s=%" PRIu32 " but %s=%" PRIu32
                             ": one machine cannot have more ranks than the job",
                             launcher->local_count, job->local_rank_count, launcher->count,
                             job->rank_count);
        return status;
    }
    if (launcher == &launchers[ZEROCTA_RUN])
        return need(resolver, launcher->local_count, &text);
    if (launcher->local_needed || is_set(launcher->local_rank))
        status =
            read_number(resolver, launcher->local_rank, 0, job->rank_count - 1, &job->local_rank);
    return status;
}

static void read_identity(struct resolver *resolver)
{
    const struct launcher *launcher = resolver->launcher;
    const char *more = variable(launcher->identity_more);

    for (size_t i = 0; i < sizeof launcher->identity / sizeof *launcher->identity; i++) {
        const char *text = variable(launcher->identity[i]);

        if (text == NULL)
            continue;
        snprintf(resolver->identity, sizeof resolver->identity, "%s.%s", text,
                 more != NULL ? more : "");
        return;
    }
}

/* Normalizes the host, so that all ranks name it alike, and refuses what is not loopback unless the
 * user asked for more. `from` names where the address came from. */
static zcta_status set_root(struct resolver *resolver, const char *host, uint16_t port,
                            const char *from)
{
    struct zc_job *job = resolver->job;
    const zcta_status bad = resolver->launcher != NULL ? ZCTA_ERR_ENVIRONMENT : ZCTA_ERR_INVALID;
    struct zc_endpoint endpoint;
    char own[256] = "";
    int length;

    (void)gethostname(own, sizeof own - 1);
    /* A launcher on one machine may give that machine's own name: no resolver is asked for it. */
    if (strcmp(host, "localhost") == 0 || (!job->remote && strcmp(host, own) == 0))
        host = "127.0.0.1";
    if (!zc_net_resolve(host, port, job->remote, &endpoint))
        return zc_fail(resolver->diag, bad, "zcta_init", 0,
                       "%s gives the root's host as %.100s, which is %s", from, host,
                       job->remote ? "a name that cannot be resolved"
                                   : "not a numeric address; give 127.0.0.1, or set "
                                     "ZEROCTA_REMOTE=1 to resolve names and allow other machines");
    if (!job->remote && !zc_net_is_loopback(&endpoint))
        return zc_fail(resolver->diag, bad, "zcta_init", 0,
                       "%s gives the root's host as %.100s, which is not a loopback address; give "
                       "127.0.0.1, or set ZEROCTA_REMOTE=1 to open a port to other machines",
                       from, host);
    if (!job->has_token && !zc_net_is_loopback(&endpoint))
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
                       resolver->launcher != NULL ? ZCTA_ERR_ENVIRONMENT : ZCTA_ERR_INVALID,
                       "zcta_init", 0, "%s is %.100s, which is not host:port", from, root);
    return set_root(resolver, host, other_port != 0 ? (uint16_t)other_port : port, from);
}

/* All ranks of a job derive the same port, two jobs of one machine hardly ever do. */
static uint16_t derived_port(const struct resolver *resolver)
{
    char facts[IDENTITY + 64];
    uint8_t hash[16];
    uint32_t number;

    memset(facts, 0, sizeof facts);
    snprintf(facts, sizeof facts, "port %u %s", (unsigned)geteuid(), resolver->identity);
    crypto_generichash(hash, sizeof hash, (const unsigned char *)facts, sizeof facts, NULL, 0);
    number = (uint32_t)hash[0] | (uint32_t)hash[1] << 8 | (uint32_t)hash[2] << 16;
    return (uint16_t)(FIRST_DERIVED_PORT + number % DERIVED_PORTS);
}

/* MASTER_ADDR and MASTER_PORT, or for launchers that do not set them a port of the job's own. */
static zcta_status read_master(struct resolver *resolver, uint32_t other_port)
{
    const struct launcher *launcher = resolver->launcher;
    const char *agent = getenv("TORCHELASTIC_USE_AGENT_STORE");
    const bool any = is_set("MASTER_ADDR") || is_set("MASTER_PORT");
    zcta_status status;
    uint32_t port = other_port;
    const char *host;

    if (launcher != &launchers[TORCHRUN] && !any) {
        if (other_port == 0 && resolver->identity[0] == '\0')
            return zc_fail(resolver->diag, ZCTA_ERR_ENVIRONMENT, "zcta_init", 0,
                           "%s names no job (%s is not set), so no port can be derived from it: "
                           "set ZEROCTA_PORT to a free port on all ranks",
                           launcher->name, launcher->identity[0]);
        return set_root(resolver, "127.0.0.1",
                        other_port != 0 ? (uint16_t)other_port : derived_port(resolver),
                        launcher->name);
    }
    status = need(resolver, "MASTER_ADDR", &host);
    if (status == ZCTA_OK && other_port == 0)
        status = read_number(resolver, "MASTER_PORT", 1, UINT16_MAX, &port);
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
    const char *text = getenv("ZEROCTA_LISTEN_FD");
    struct zc_job *job = resolver->job;
    struct sockaddr_storage bound = {0};
    struct sockaddr_in six_or_four;
    socklen_t length = sizeof bound, int_length = sizeof(int);
    const char *colon = strrchr(job->root, ':');
    int listening = 0;
    uint32_t fd;

    if (job->rank != 0 || text == NULL)
        return ZCTA_OK;
    if (!parse_number(text, INT32_MAX, &fd) ||
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
    const char *token = given != NULL ? given : getenv("ZEROCTA_TOKEN");
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

/* Without a token the key keeps nobody out, but two jobs never talk to each other by accident. */
static void derive_key(const struct resolver *resolver)
{
    struct zc_job *job = resolver->job;
    char facts[IDENTITY + 256];

    memset(facts, 0, sizeof facts);
    snprintf(facts, sizeof facts, "key %u %u %s %s", (unsigned)geteuid(), job->rank_count,
             job->root, resolver->identity);
    crypto_generichash(job->key, sizeof job->key, (const unsigned char *)facts, sizeof facts, NULL,
                       0);
}

static zcta_status resolve_environment(struct resolver *resolver)
{
    const struct launcher *launcher = resolver->launcher;
    struct zc_job *job = resolver->job;
    uint32_t port = 0;
    const char *root, *token;
    zcta_status status =
        read_place(resolver, launcher->rank, launcher->count, &job->rank, &job->rank_count);

    job->source = launcher->name;
    if (status == ZCTA_OK)
        status = read_local_place(resolver);
    if (status != ZCTA_OK || job->rank_count == 1)
        return status;
    read_identity(resolver);
    if (is_set("ZEROCTA_PORT"))
        status = read_number(resolver, "ZEROCTA_PORT", 1, UINT16_MAX, &port);
    if (status != ZCTA_OK)
        return status;
    if (launcher != &launchers[ZEROCTA_RUN])
        return read_master(resolver, port);
    status = need(resolver, "ZEROCTA_ROOT", &root);
    if (status == ZCTA_OK && !job->has_token)
        status = need(resolver, "ZEROCTA_TOKEN", &token);
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

static const struct launcher *find_launcher(void)
{
    for (int i = 0; i < LAUNCHERS; i++)
        if (is_set(launchers[i].rank) || (launchers[i].count_alone && is_set(launchers[i].count)))
            return &launchers[i];
    return NULL;
}

static zcta_status read_node(struct resolver *resolver)
{
    const char *text = getenv("ZEROCTA_NODE");
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
    const char *text = getenv("ZEROCTA_ADDRESS");
    struct zc_job *job = resolver->job;
    struct zc_endpoint endpoint;

    if (text == NULL)
        return ZCTA_OK;
    if (strlen(text) >= sizeof job->address || !zc_net_resolve(text, 0, false, &endpoint) ||
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
    const char *remote = getenv("ZEROCTA_REMOTE");
    zcta_status status;

    if (sodium_init() < 0)
        return zc_fail(diag, ZCTA_ERR_SYSTEM, "zcta_init", 0,
                       "libsodium cannot start: the system gives no random numbers");
    if (params->rank_count == 0 &&
        (params->rank != 0 || params->root != NULL || params->exchange != NULL))
        return zc_fail(diag, ZCTA_ERR_INVALID, "zcta_init", 0,
                       "rank, root or exchange is given but rank_count is 0: set rank_count, or "
                       "none of them to take all from the environment");
    if (params->rank_count == 0)
        resolver.launcher = find_launcher();
    found.remote = remote != NULL && strcmp(remote, "1") == 0;
    status = read_token(&resolver);
    if (status == ZCTA_OK)
        status = read_node(&resolver);
    if (status == ZCTA_OK && params->rank_count != 0)
        status = resolve_params(&resolver);
    else if (status == ZCTA_OK && resolver.launcher != NULL)
        status = resolve_environment(&resolver);
    if (status == ZCTA_OK && found.rank_count > 1)
        status = read_address(&resolver);
    if (status != ZCTA_OK)
        goto out;
    if (!found.has_token)
        derive_key(&resolver);
    diag->rank = found.rank;
    *job = found;
out:
    sodium_memzero(&found, sizeof found);
    return status;
}
