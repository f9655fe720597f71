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

struct zc_nccl;

/* Takes the log if it can be had; once per process, from any thread. */
void zc_nccl_log_take(const struct zc_nccl *nccl);

/* Whether the log is ours to read. */
bool zc_nccl_log_is_ours(void);

/* Where the log ends now. */
size_t zc_nccl_log_mark(void);

/* How often `text` stands in what was logged since the mark. */
unsigned zc_nccl_log_count(size_t mark, const char *text);

#endif
