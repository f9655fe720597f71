/* The line of whoever waits, and when it has waited long enough. */
#include "base/patience.h"

#include "base/clock.h"

#define FOUND_LATE_NS  UINT64_C(10000000)
#define SECOND_LOOK_NS UINT64_C(50000000)

bool zc_limit_is_over(struct zc_limit *limit)
{
    const uint64_t now = zc_now_ns();

    if (now < limit->at)
        return false;
    if (limit->last || now - limit->at < FOUND_LATE_NS)
        return true;
    limit->last = true;
    limit->at = now + SECOND_LOOK_NS;
    return false;
}

void zc_say_waiting(struct zc_diag *diag, const char *whom, const char *where, uint64_t waited_ns,
                    uint64_t timeout_ns)
{
    zc_log(diag, ZC_LOG_WARN, "has waited %.3g s for %s in %s; the deadline is %.4g s",
           (double)waited_ns / 1e9, whom, where, (double)timeout_ns / 1e9);
}
