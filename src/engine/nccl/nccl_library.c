/* Loading NCCL. */
#include "engine/nccl/nccl_library.h"

#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/environment.h"
#include "engine/nccl/nccl_log.h"

/* ---- Versions ---- */

const char *zc_nccl_version_text(int version, char text[16])
{
    snprintf(text, 16, "%d.%d.%d", version / 10000, version / 100 % 100, version % 100);
    return text;
}

const char *zc_nccl_lacks(int version, char text[160])
{
    static const struct {
        int since;
        const char *what;
    } rows[] = {
        {ZC_NCCL_HAS_WINDOWS, "symmetric windows (2.27)"},
        {ZC_NCCL_HAS_COPY_ENGINES, "copy engines (2.28)"},
        {ZC_NCCL_HAS_NULL_STREAM, "copy engines on the NULL stream (2.29.7)"},
        {ZC_NCCL_HAS_ZERO_NETWORK, "copy engines over several nodes (2.30.6)"},
    };
    size_t at = 0;

    text[0] = '\0';
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (version < rows[i].since)
            at += (size_t)snprintf(text + at, 160 - at, "%s%s", at == 0 ? "" : ", ", rows[i].what);
    return text;
}

int zc_nccl_policy_of(int flags)
{
    return (flags & ZC_NCCL_POLICY_ZERO) != 0 ? ZC_NCCL_POLICY_ZERO : flags;
}

struct zc_nccl_config zc_nccl_config(int version, int policy)
{
    struct zc_nccl_config config = {.magic = (unsigned)ZC_NCCL_CONFIG_MAGIC,
                                    .blocking = 1,
                                    .cga_cluster_size = ZC_NCCL_CONFIG_UNSET,
                                    .min_ctas = ZC_NCCL_CONFIG_UNSET,
                                    .max_ctas = ZC_NCCL_CONFIG_UNSET,
                                    .split_share = ZC_NCCL_CONFIG_UNSET,
                                    .traffic_class = ZC_NCCL_CONFIG_UNSET,
                                    .collnet = ZC_NCCL_CONFIG_UNSET,
                                    .cta_policy = policy,
                                    .shrink_share = ZC_NCCL_CONFIG_UNSET,
                                    .nvls_ctas = ZC_NCCL_CONFIG_UNSET,
                                    .channels_per_net_peer = ZC_NCCL_CONFIG_UNSET,
                                    .nvlink_centric = ZC_NCCL_CONFIG_UNSET};

    if (version >= 22800) {
        config.version = 22800;
        config.size = sizeof config;
    } else if (version >= ZC_NCCL_HAS_POLICIES) {
        config.version = 22700;
        config.size = offsetof(struct zc_nccl_config, channels_per_net_peer);
    } else {
        config.version = 21800;
        config.size = offsetof(struct zc_nccl_config, traffic_class);
    }
    return config;
}

/* ---- Loading ---- */

static const struct {
    const char *name;
    int since;
    size_t offset;
} functions[] = {
#define ROW(result, name, parameters, since) {#name, since, offsetof(struct zc_nccl, name)},
    ZC_NCCL_FUNCTIONS(ROW)
#undef ROW
};

static const char *library_name(void)
{
    const char *name = zc_environment("ZEROCTA_NCCL_LIBRARY");

    return name == NULL || name[0] == '\0' ? "libnccl.so.2" : name;
}

/* ISO C has no cast from an object pointer to a function pointer; POSIX wants this copy to work. */
static void find_function(const struct zc_nccl *nccl, const char *name, void *to)
{
    void *function = dlsym(nccl->library, name);

    memcpy(to, &function, sizeof function);
}

static void find_own_calls(struct zc_nccl *nccl)
{
    for (uint32_t i = 0; i < ZC_COLLECTIVE_IDS; i++) {
        const struct zc_collective *collective = zc_collective_of((zcta_collective)i);

        if (collective != NULL && collective->nccl != NULL &&
            collective->nccl_since <= nccl->version)
            find_function(nccl, collective->nccl, &nccl->own_calls[i]);
    }
}

bool zc_nccl_has_own_call(const struct zc_nccl *nccl, const struct zc_collective *collective)
{
    return nccl->own_calls[collective->id] != NULL;
}

int zc_nccl_own_call(const struct zc_nccl *nccl, const struct zc_collective *collective,
                     zc_nccl_handle comm, const void *send, void *recv, size_t bytes, uint32_t root,
                     void *stream)
{
    void (*call)(void) = nccl->own_calls[collective->id];

    if ((collective->traits & ZC_ROOTED) != 0)
        return ((zc_nccl_rooted *)call)(send, recv, bytes, ZC_NCCL_INT8, (int)root, comm, stream);
    return ((zc_nccl_unrooted *)call)(send, recv, bytes, ZC_NCCL_INT8, comm, stream);
}

static zcta_status find_functions(struct zc_diag *diag, struct zc_nccl *nccl)
{
    char text[16];

    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        void (*function)(void);

        find_function(nccl, functions[i].name, &function);
        if (function == NULL && functions[i].since <= nccl->version)
            return zc_fail(diag, ZCTA_ERR_UNSUPPORTED, "dlsym", 0,
                           "%.100s says it is NCCL %s, but has no %s", library_name(),
                           zc_nccl_version_text(nccl->version, text), functions[i].name);
        memcpy((char *)nccl + functions[i].offset, &function, sizeof function);
    }
    find_own_calls(nccl);
    return ZCTA_OK;
}

static zcta_status check_version(struct zc_diag *diag, struct zc_nccl *nccl)
{
    char text[16];

    find_function(nccl, "ncclGetVersion", &nccl->ncclGetVersion);
    if (nccl->ncclGetVersion == NULL || nccl->ncclGetVersion(&nccl->version) != ZC_NCCL_SUCCESS)
        return zc_fail(diag, ZCTA_ERR_UNSUPPORTED, "ncclGetVersion", 0,
                       "%.100s does not tell a version; it is not NCCL", library_name());
    if (nccl->version < ZC_NCCL_OLDEST)
        return zc_fail(diag, ZCTA_ERR_UNSUPPORTED, "ncclGetVersion", nccl->version,
                       "NCCL is version %s; 2.19 is the oldest that works",
                       zc_nccl_version_text(nccl->version, text));
    return ZCTA_OK;
}

zcta_status zc_nccl_load(struct zc_diag *diag, struct zc_nccl *nccl)
{
    static const char *const no_multicast[] = {"NCCL_NVLS_ENABLE=0"};
    zcta_status status;

    memset(nccl, 0, sizeof *nccl);
    if (strcmp(library_name(), "none") == 0)
        return zc_fail(diag, ZCTA_ERR_UNSUPPORTED, "dlopen", 0,
                       "NCCL is switched off by ZEROCTA_NCCL_LIBRARY=none");
    nccl->library = dlopen(library_name(), RTLD_NOW | RTLD_LOCAL);
    if (nccl->library == NULL)
        return zc_fail(diag, ZCTA_ERR_UNSUPPORTED, "dlopen", 0,
                       "there is no NCCL here (%.200s); install it, or say where it is with "
                       "ZEROCTA_NCCL_LIBRARY",
                       dlerror());
    /* Read by NCCL when it makes its first communicator. Multicast can put GPUs that others share
     * out of service: only who asks gets it. */
    zc_environment_add(no_multicast, 1);
    status = check_version(diag, nccl);
    if (status == ZCTA_OK)
        status = find_functions(diag, nccl);
    if (status == ZCTA_OK)
        zc_nccl_log_take(nccl);
    else
        zc_nccl_unload(nccl);
    return status;
}

void zc_nccl_unload(struct zc_nccl *nccl)
{
    if (nccl->library != NULL)
        dlclose(nccl->library);
    nccl->library = NULL;
    nccl->version = 0;
}

bool zc_nccl_is_at_hand(void)
{
    const char *told = zc_environment("ZEROCTA_NCCL_LIBRARY");
    void *loaded;

    if (told != NULL && told[0] != '\0')
        return strcmp(told, "none") != 0;
    loaded = dlopen(library_name(), RTLD_NOW | RTLD_NOLOAD);
    if (loaded != NULL)
        dlclose(loaded);
    return loaded != NULL;
}

/* ---- Facts ---- */

/* A variable as NCCL reads numbers; `otherwise` if it is not set or none. */
static long long number_of(const char *variable, long long otherwise)
{
    const char *text = getenv(variable);
    long long value;

    if (text == NULL || text[0] == '\0')
        return otherwise;
    errno = 0;
    value = strtoll(text, NULL, 0);
    return errno == 0 ? value : otherwise;
}

/* One name of NCCL_CTA_POLICY's, `length` long; -1 if it is none. */
static int policy_named(const char *name, size_t length)
{
    static const char *const names[] = {"DEFAULT", "EFFICIENCY", "ZERO"};

    for (int i = 0; i <= ZC_NCCL_POLICY_ZERO; i++)
        if (strlen(names[i]) == length && strncasecmp(name, names[i], length) == 0)
            return i;
    return -1;
}

/* NCCL reads one digit, or names with bars between them, of which it leaves out what it does not
 * know. */
static int forced_policy(void)
{
    const char *text = getenv("NCCL_CTA_POLICY");
    int flags = -1;

    if (text == NULL)
        return -1;
    if (text[0] >= '0' && text[0] <= '9')
        return text[0] <= '2' ? text[0] - '0' : -1;
    while (*text != '\0') {
        const size_t length = strcspn(text, "|");
        const int policy = policy_named(text, length);

        if (policy >= 0)
            flags = flags < 0 ? policy : flags | policy;
        text += length + (text[length] == '|');
    }
    return flags < 0 ? -1 : zc_nccl_policy_of(flags);
}

/* Without these NCCL has no symmetric memory, and so no copy engines. */
static const char *switched_off(void)
{
    const char *level = getenv("NCCL_P2P_LEVEL");

    if (number_of("NCCL_WIN_ENABLE", 1) == 0)
        return "NCCL_WIN_ENABLE=0";
    /* -2 is NCCL's own choice. */
    if (number_of("NCCL_CUMEM_ENABLE", -2) == 0 || number_of("NCCL_CUMEM_ENABLE", -2) == -1)
        return "NCCL_CUMEM_ENABLE=0";
    if (number_of("NCCL_P2P_DISABLE", 0) == 1)
        return "NCCL_P2P_DISABLE=1";
    if (level != NULL && (strcmp(level, "LOC") == 0 ||
                          (level[0] >= '0' && level[0] <= '9' && strtol(level, NULL, 0) == 0)))
        return "NCCL_P2P_LEVEL=LOC";
    return NULL;
}

void zc_nccl_read_facts(const struct zc_nccl *nccl, struct zc_nccl_facts *facts)
{
    *facts =
        (struct zc_nccl_facts){.version = nccl->version,
                               .forced_policy = forced_policy(),
                               .switch_off = switched_off(),
                               .symmetric = zc_environment_choice("ZEROCTA_NCCL_SYMMETRIC") == 1};
    /* It comes before what a communicator is told, and nothing here expects a call that has not
     * done what it was asked when it returns. */
    if (number_of("NCCL_COMM_BLOCKING", 1) == 0) {
        facts->version = 0;
        snprintf(facts->why, sizeof facts->why,
                 "NCCL_COMM_BLOCKING=0 in the environment has NCCL's calls return before they are "
                 "done; unset it");
    }
}

zcta_status zc_nccl_status(const struct zc_nccl *nccl, struct zc_diag *diag, zc_nccl_handle comm,
                           int result, const char *what, const char *doing)
{
    const char *more;

    if (result == ZC_NCCL_SUCCESS)
        return ZCTA_OK;
    more = nccl->ncclGetLastError(comm);
    return zc_fail(diag, ZCTA_ERR_DEVICE, what, result, "%s: NCCL says %.100s (error %d)%s%.200s",
                   doing, nccl->ncclGetErrorString(result), result,
                   more == NULL || more[0] == '\0' ? "" : ": ", more == NULL ? "" : more);
}

/* ---- Among ranks ---- */

void zc_nccl_tell(const struct zc_nccl_facts *facts, int driver_version, struct zc_nccl_told *told)
{
    *told =
        (struct zc_nccl_told){.version = (uint64_t)facts->version,
                              .policy = (uint64_t)(uint32_t)facts->forced_policy,
                              .off = (facts->switch_off != NULL) | (uint64_t)facts->symmetric << 1,
                              .old_driver = driver_version < ZC_NCCL_DRIVER_OLDEST};
}

bool zc_nccl_fits(const struct zc_nccl_told *first, uint32_t first_rank,
                  const struct zc_nccl_told *other, uint32_t other_rank,
                  char why[sizeof((struct zc_nccl_facts *)0)->why])
{
    enum { WHY = sizeof((struct zc_nccl_facts *)0)->why };
    char mine[16], theirs[16];

    if (other->version != first->version)
        snprintf(why, WHY,
                 "rank %" PRIu32 " has NCCL %s, rank %" PRIu32
                 " has %s (0.0.0: none that can be used); make them alike",
                 first_rank, zc_nccl_version_text((int)first->version, mine), other_rank,
                 zc_nccl_version_text((int)other->version, theirs));
    else if (other->old_driver != first->old_driver || other->policy != first->policy ||
             other->off != first->off)
        snprintf(why, WHY, "ranks %" PRIu32 " and %" PRIu32 " have different %s; make them alike",
                 first_rank, other_rank,
                 other->old_driver != first->old_driver
                     ? "CUDA drivers, one older than 12.5 and one not"
                     : "NCCL_* variables, or ZEROCTA_NCCL_SYMMETRIC");
    else
        return true;
    return false;
}
