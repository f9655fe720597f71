/* NCCL's library, and what its version gives. */
#ifndef ZC_NCCL_LIBRARY_H
#define ZC_NCCL_LIBRARY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/diag.h"
#include "collective/collective.h"
#include "engine/nccl/nccl_api.h"

/* ---- What a version has ---- */

/* Versions as NCCL numbers them: 22803 for 2.28.3. */
enum {
    ZC_NCCL_OLDEST = 21900,
    ZC_NCCL_HAS_POLICIES = 22700,     /* CTAPolicy in a communicator's configuration */
    ZC_NCCL_HAS_WINDOWS = 22700,      /* symmetric windows */
    ZC_NCCL_HAS_COPY_ENGINES = 22800, /* policy ZERO, first by copy engines */
    ZC_NCCL_HAS_NULL_STREAM = 22907,  /* its copy engines work on the NULL stream */
    ZC_NCCL_HAS_ZERO_NETWORK = 23006, /* its copy engines reach over several nodes */
    ZC_NCCL_DRIVER_OLDEST = 12050,    /* of CUDA, for its copy engines */
};

/* What decides which path NCCL takes, as far as this process can tell. */
struct zc_nccl_facts {
    int version;            /* 0: there is no NCCL that could be used */
    int forced_policy;      /* by NCCL_CTA_POLICY in the environment; -1: none */
    const char *switch_off; /* the setting that keeps NCCL from its windows; NULL: none */
    bool symmetric;         /* its kernels shall have windows too: ZEROCTA_NCCL_SYMMETRIC=1 */
    char why[160];          /* version 0: the reason */
};

/* The same as ranks tell each other, because what each takes NCCL for must not differ. Plain
 * numbers, alike in every process of a job. */
struct zc_nccl_told {
    uint64_t version, policy, off, old_driver;
};

void zc_nccl_tell(const struct zc_nccl_facts *facts, int driver_version, struct zc_nccl_told *told);
/* Whether two ranks can use NCCL together; otherwise why not, as a sentence. */
bool zc_nccl_fits(const struct zc_nccl_told *first, uint32_t first_rank,
                  const struct zc_nccl_told *other, uint32_t other_rank,
                  char why[sizeof((struct zc_nccl_facts *)0)->why]);

/* "2.28.3" */
const char *zc_nccl_version_text(int version, char text[16]);
/* What the version lacks of what the engine can use, as a list; "" if nothing. */
const char *zc_nccl_lacks(int version, char text[160]);
/* What NCCL makes of a combination of policies: ZERO comes before EFFICIENCY. */
int zc_nccl_policy_of(int flags);
/* A configuration this version understands, all unset but the policy and blocking. */
struct zc_nccl_config zc_nccl_config(int version, int policy);

/* ---- The library ---- */

struct zc_nccl {
    void *library;
    int version;
#define ZC_NCCL_MEMBER(result, name, parameters, since)                                            \
    result(*name) parameters; /* NOLINT(bugprone-macro-parentheses) */
    ZC_NCCL_FUNCTIONS(ZC_NCCL_MEMBER)
#undef ZC_NCCL_MEMBER
    /* What this version has of the calls that are a whole collective, by the collective's number:
     * a zc_nccl_rooted or a zc_nccl_unrooted. */
    void (*own_calls[ZC_COLLECTIVE_IDS])(void);
};

/* Calls what NCCL has for the collective itself; `bytes` are one share's. */
int zc_nccl_own_call(const struct zc_nccl *nccl, const struct zc_collective *collective,
                     zc_nccl_handle comm, const void *send, void *recv, size_t bytes, uint32_t root,
                     void *stream);
/* Whether it has something; otherwise a group of sends and receives does the same. */
bool zc_nccl_has_own_call(const struct zc_nccl *nccl, const struct zc_collective *collective);

/* Loads libnccl.so.2, or what ZEROCTA_NCCL_LIBRARY names ("none": nothing). The first time in a
 * process it also does what only works before NCCL has begun: NVLink multicast is switched off
 * unless NCCL_NVLS_ENABLE says otherwise, and NCCL's log is taken, see nccl_log.h.
 * Errors: ERR_UNSUPPORTED (no such library, older than 2.19, switched off). */
zcta_status zc_nccl_load(struct zc_diag *diag, struct zc_nccl *nccl);
void zc_nccl_unload(struct zc_nccl *nccl);

/* Whether this process has loaded NCCL, or was told which one to load: then it costs nothing. */
bool zc_nccl_is_at_hand(void);

/* Fills the facts from a loaded library and the environment. */
void zc_nccl_read_facts(const struct zc_nccl *nccl, struct zc_nccl_facts *facts);

/* OK, or NCCL's error in NCCL's own words; `comm` may be NULL. */
zcta_status zc_nccl_status(const struct zc_nccl *nccl, struct zc_diag *diag, zc_nccl_handle comm,
                           int result, const char *what, const char *doing);

#endif
