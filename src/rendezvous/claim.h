/* A rank's seat in a job, held as long as its context lives: a name in the kernel that only one
 * process of this user can have. Who comes second is told so and tells the first, so that two
 * launches which say the same of themselves both fail and never mix. Reaches as far as abstract
 * Unix sockets do, that is one machine and network namespace. */
#ifndef ZC_CLAIM_H
#define ZC_CLAIM_H

#include <errno.h>
#include <stdbool.h>

#include "base/diag.h"
#include "rendezvous/rendezvous.h"

/* The native code by which that sentence is known, wherever it was passed on to. */
enum { ZC_CLAIM_TAKEN = EADDRINUSE };

/* *fd is readable when another process may have come for the same seat; the caller's to close. It
 * is -1 where nobody has to be kept off: an earlier context of this very process has the seat, or
 * what has its name is not a rank of this user.
 * Errors: ERR_RENDEZVOUS (the seat is another process's, which has been told), ERR_SYSTEM. */
zcta_status zc_claim_take(const struct zc_job *job, struct zc_diag *diag, int *fd);

/* After *fd was readable. Errors: ERR_RENDEZVOUS (another process came for this rank's seat). */
zcta_status zc_claim_look(const struct zc_job *job, struct zc_diag *diag, int fd);

/* Two processes are the same rank of what should be one job; the sentence of whoever sees it. A pid
 * is 0 if it is not known. */
zcta_status zc_claim_fail(struct zc_diag *diag, uint32_t rank, const char *root, int64_t first,
                          int64_t second);

#endif
