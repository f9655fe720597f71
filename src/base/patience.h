/* Saying that one waits.
 *
 * Deadlines are long, because a rank that is late is not lost, and one that has died is seen at
 * once. So whoever waits for other ranks says so once, long before the deadline, and for whom. */
#ifndef ZC_PATIENCE_H
#define ZC_PATIENCE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/diag.h"

/* After how long a wait that may last `timeout_ns` is worth a line. */
static inline uint64_t zc_first_word_ns(uint64_t timeout_ns)
{
    const uint64_t usual = UINT64_C(5000000000);

    return timeout_ns / 4 < usual ? timeout_ns / 4 : usual;
}

/* Until when somebody waits. */
struct zc_limit {
    uint64_t at;
    bool last;
};

/* Whether the time is up. A process that was stopped, or had no CPU, finds that out late, and what
 * others sent meanwhile lies there unread: it gets a moment more to take it, and blames nobody yet.
 * So whoever looks at a clock and at what has come looks at the clock first. */
bool zc_limit_is_over(struct zc_limit *limit);

/* Logs, at level warn, that this rank has waited for `whom` ("rank 3 (pid 123)") in `where`
 * ("COLLECTIVE of team world"). Once a wait, zc_first_word_ns() after its begin. */
void zc_say_waiting(struct zc_diag *diag, const char *whom, const char *where, uint64_t waited_ns,
                    uint64_t timeout_ns);

#endif
