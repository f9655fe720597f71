/* The line of whoever waits. */
#include "base/patience.h"

void zc_say_waiting(struct zc_diag *diag, const char *whom, const char *where, uint64_t waited_ns,
                    uint64_t timeout_ns)
{
    zc_log(diag, ZC_LOG_WARN, "has waited %.3g s for %s in %s; the deadline is %.4g s",
           (double)waited_ns / 1e9, whom, where, (double)timeout_ns / 1e9);
}
