/* The selector: NCCL's paths. */
#include <inttypes.h>
#include <string.h>

#include "select/select.h"

/* Why engine auto does not take it unless there is nothing else. */
#define HEEDLESS "; if a rank dies, nobody can let it go, and this process has to end"

bool zc_nccl_cannot(const struct zc_facts *facts, struct zc_assessment *assessment)
{
    const struct zc_nccl_facts *nccl = facts->nccl;

    if (strcmp(facts->caps->name, "cuda") != 0)
        zc_because(assessment, "NCCL moves GPU memory, and this context's memory is the host's");
    else if (nccl == NULL || nccl->version == 0)
        zc_because(assessment, "%s",
                   nccl == NULL || nccl->why[0] == '\0'
                       ? "NCCL has not been loaded: give the team or the call engine nccl"
                       : nccl->why);
    else
        return false;
    return true;
}

/* The same for one communicator of all ranks. */
static bool nccl_cannot_all(const struct zc_facts *facts, struct zc_assessment *assessment)
{
    if (zc_nccl_cannot(facts, assessment))
        return true;
    if (facts->shared_gpu)
        zc_because(assessment, "some ranks share a GPU, which NCCL refuses");
    return facts->shared_gpu;
}

static void assess_copy_engines(const struct zc_facts *facts, struct zc_assessment *assessment)
{
    const struct zc_nccl_facts *nccl = facts->nccl;
    char version[16];

    assessment->sms = !facts->in_place;
    if (nccl_cannot_all(facts, assessment))
        return;
    if (!facts->layout->collective->nccl_copies)
        zc_because(assessment,
                   "NCCL's copy engines do not do that, or only with `send` in a window "
                   "on all ranks, which nobody compares");
    else if (nccl->version < ZC_NCCL_HAS_COPY_ENGINES)
        zc_because(assessment, "NCCL %s has no copy engines; 2.28 is the first that has",
                   zc_nccl_version_text(nccl->version, version));
    else if (facts->caps->driver_version < ZC_NCCL_DRIVER_OLDEST)
        zc_because(assessment, "the CUDA driver is %d.%d; NCCL's copy engines need 12.5",
                   facts->caps->driver_version / 1000, facts->caps->driver_version % 1000 / 10);
    else if (nccl->forced_policy >= 0 && nccl->forced_policy != ZC_NCCL_POLICY_ZERO)
        zc_because(assessment, "NCCL_CTA_POLICY=%d in the environment overrides the team's policy",
                   nccl->forced_policy);
    else if (nccl->switch_off != NULL)
        zc_because(assessment, "%s in the environment keeps NCCL from symmetric windows",
                   nccl->switch_off);
    else if (facts->apart)
        zc_because(assessment, "some ranks do not reach each other's memory");
    else if (facts->unlike_window)
        zc_because(assessment,
                   "recv's window was registered at places of the ranks' allocations that "
                   "differ or are no multiple of 4096; NCCL's copy engines need the same");
    else if (facts->policy == ZCTA_POLICY_DEFAULT)
        zc_because(assessment, "policy DEFAULT: NCCL takes its kernels%s",
                   nccl->forced_policy == ZC_NCCL_POLICY_ZERO
                       ? ", or not: NCCL_CTA_POLICY=2 in the environment"
                       : "");
    else if (zc_has_nodes(facts) && nccl->version < ZC_NCCL_HAS_ZERO_NETWORK)
        zc_because(assessment,
                   "NCCL %s has no copy engines over several nodes; 2.30.6 is the first",
                   zc_nccl_version_text(nccl->version, version));
    else {
        assessment->possible = assessment->wanted = true;
        zc_because(assessment, "NCCL %s with CTA policy ZERO%s" HEEDLESS,
                   zc_nccl_version_text(nccl->version, version),
                   facts->in_place ? "" : "; SMs copy the own share into its place first");
    }
}

static void assess_kernels(const struct zc_facts *facts, struct zc_assessment *assessment)
{
    const struct zc_nccl_facts *nccl = facts->nccl;
    char version[16];

    assessment->sms = true;
    if (nccl_cannot_all(facts, assessment))
        return;
    assessment->possible = assessment->wanted = true;
    zc_nccl_version_text(nccl->version, version);
    if (nccl->forced_policy > ZC_NCCL_POLICY_DEFAULT)
        zc_because(assessment,
                   "NCCL %s; NCCL_CTA_POLICY=%d in the environment overrides CTA policy DEFAULT",
                   version, nccl->forced_policy);
    else if (nccl->symmetric && nccl->version >= ZC_NCCL_HAS_WINDOWS && !facts->unlike_window &&
             !facts->apart)
        zc_because(assessment, "NCCL %s with CTA policy DEFAULT, on symmetric windows" HEEDLESS,
                   version);
    else
        zc_because(assessment, "NCCL %s with CTA policy DEFAULT", version);
}

void zc_assess_nccl(const struct zc_facts *facts, enum zc_path path,
                    struct zc_assessment *assessment)
{
    if (path == ZC_PATH_NCCL_KERNELS)
        assess_kernels(facts, assessment);
    else
        assess_copy_engines(facts, assessment);
}
