/* Symmetric memory: a part on every rank of a group, each part mapped by every rank.
 * Made in two rounds: everybody allocates and tells, everybody maps and confirms. So either all
 * ranks have it or none. */
#ifndef ZC_SYMMETRIC_H
#define ZC_SYMMETRIC_H

#include "device/device.h"
#include "rendezvous/rendezvous.h"

/* The ranks of a team, as seen by this rank, and how they talk. */
struct zc_group {
    struct zc_mesh *mesh;
    const struct zc_device_ops *ops;
    struct zc_device *device;
    struct zc_diag *diag;
    const uint32_t *ranks; /* world ranks in the team's order; outlives the group */
    const uint64_t *nodes; /* by world rank; NULL: all are on one */
    const bool *reach; /* by world rank: whose device memory this rank maps; NULL: everybody's on
                          its node */
    bool apart;        /* on some node some ranks do not reach each other: the same on all ranks */
    uint32_t count, self;
    uint64_t tag;                 /* identifies the team on the mesh */
    uint32_t *rounds;             /* how many rounds the group has begun: they are numbered */
    const _Atomic uint32_t *over; /* not 0: no round is waited for any more. NULL: all are, to the
                                     deadline */
    uint64_t timeout_ns;
    /* A round could not begin here or has broken off, for this reason, and the others may be in it:
     * makes the team fail on all its ranks, and returns the status with which it failed. */
    zcta_status (*broken)(void *data, const zcta_error *why);
    void *broken_data;
};

/* The rule of rounds. A collective call of the host's is one round or several. A round that has
 * begun on one rank ends on all of them, or the team fails on all of them: there is no third way,
 * and no rank tries a round again that another may have finished. What a rank cannot do, but can
 * say, it says inside the round. The functions below keep that rule; their callers pass statuses
 * on. */

struct zc_symmetric {
    const struct zc_device_ops *ops;
    struct zc_device *device;
    enum zc_where where;
    uint32_t count;
    size_t bytes;              /* of one part */
    bool same_layout;          /* every part lies at the same page of an allocation of one size */
    struct zc_memory *parts[]; /* NULL: of a rank that this one does not reach */
};

/* Whether this rank maps the device memory of the group's rank `index`. */
bool zc_group_reaches(const struct zc_group *group, uint32_t index);
/* Whether its ranks are on several hosts. */
bool zc_group_has_hosts(const struct zc_group *group);

/* Allocates `bytes` on every rank, or shares memory the caller has (`base` not NULL, ZC_ON_DEVICE).
 * With the host, all ranks of a node map each other's part.
 * Collective. `call` and `what` are for messages: "zcta_window_alloc", "the window".
 * Errors: ERR_INVALID (0 bytes), ERR_MISMATCH (names the rank with another size), and whatever
 * failed on any rank, on all of them. */
zcta_status zc_symmetric_make(const struct zc_group *group, enum zc_where where, void *base,
                              size_t bytes, const char *call, const char *what,
                              struct zc_symmetric **made);
void zc_symmetric_release(struct zc_symmetric *symmetric); /* local; NULL is fine */

/* A round of the group on the mesh: everybody's `bytes` bytes, no descriptors.
 * `topic` says what it is for: ranks that meet for different things get ERR_MISMATCH.
 * Errors: those of zc_mesh_exchange(); all but ERR_MISMATCH have failed the team. */
zcta_status zc_group_exchange(const struct zc_group *group, const char *call, const char *what,
                              uint64_t topic, const void *mine, void *all, size_t bytes);

/* A round that tells everybody whether all went well: `own` if that is not OK, else the first
 * status of another rank that is not. Errors: those of zc_mesh_exchange() and of the ranks. */
zcta_status zc_group_confirm(const struct zc_group *group, const char *call, const char *what,
                             zcta_status own);

/* Instead of a round that cannot begin here, for want of memory say: the calling thread's last
 * error, with this status, fails the team on all ranks. Returns the status with which it failed. */
zcta_status zc_group_give_up(const struct zc_group *group, zcta_status status);

/* Of `count` values, `stride` apart, the index of one that the fewest ranks have, and in *common of
 * one that the most have. Both have the same value if all ranks agree; all ranks find the same. */
uint32_t zc_group_outlier(const uint64_t *values, size_t stride, uint32_t count, uint32_t *common);

/* Topics of rounds. */
enum {
    ZC_TOPIC_MEMORY = 1,
    ZC_TOPIC_CONFIRM,
    ZC_TOPIC_FREE,
    ZC_TOPIC_SPLIT,
    ZC_TOPIC_CHECK,
    ZC_TOPIC_PLACES,
    ZC_TOPIC_FACTS,
    ZC_TOPIC_NCCL,
    ZC_TOPIC_ROWS,
    ZC_TOPIC_USER
};

#endif
