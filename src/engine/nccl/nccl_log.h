/* NCCL's log as evidence: it alone tells whether NCCL took the copy engines, and which CTA policy a
 * communicator really has.
 *
 * NCCL's log is one per process, and NCCL reads where it goes when it first has something to say.
 * If that is still to come and the user has not asked for a log himself, it goes to memory of ours,
 * at the level and for the subsystems that carry the evidence; the environment is put back
 * afterwards. Otherwise nothing is known, and nothing is changed. */
#ifndef ZC_NCCL_LOG_H
#define ZC_NCCL_LOG_H

#include <stdbool.h>
#include <stddef.h>

#include "engine/engine.h"

struct zc_nccl;

/* Takes the log if it can be had; once per process, from any thread. */
void zc_nccl_log_take(const struct zc_nccl *nccl);

/* Whether the log is ours to read. */
bool zc_nccl_log_is_ours(void);

/* Where the log ends now. */
size_t zc_nccl_log_mark(void);

/* How often `text` stands in what was logged since the mark. */
unsigned zc_nccl_log_count(size_t mark, const char *text);

/* A look at what NCCL says while a communicator runs by copy engines for the first time, on the
 * thread that enqueues it. The line names the communicator's rank and nothing else, so looks of
 * equal rank that are open at once cannot tell whose a line is. */
struct zc_nccl_look {
    struct zc_nccl_look *next; /* among those that are open */
    uint32_t rank;
    size_t mark;
    bool crowded; /* another one of its rank was open meanwhile */
};

void zc_nccl_look_begin(struct zc_nccl_look *look, uint32_t rank);
/* MISSING where the log is not ours, or the line may be another look's. */
enum zc_evidence zc_nccl_look_end(struct zc_nccl_look *look);

#endif
