/* Saying that one waits.
 *
 * Deadlines are long, because a rank that is late is not lost, and one that has died is seen at
 * once. So whoever waits for other ranks says so once, long before the deadline, and for whom. */
#ifndef ZC_PATIENCE_H
#define ZC_PATIENCE_H

#include <stdint.h>

#include "base/diag.h"

/* After how long a wait that may last `timeout_ns` is worth a line. */
static inline uint64_t zc_first_word_ns(uint64_t timeout_ns)
{
    const uint64_t usual = UINT64_C(5000000000);

    return timeout_ns / 4 < usual ? timeout_ns / 4 : usual;
}

/* Logs, at level warn, that this rank has waited for `whom` ("rank 3 (pid 123)") in `where`
 * ("all_gather of team world"). Once a wait, zc_first_word_ns() after its begin. */
void zc_say_waiting(struct zc_diag *diag, const char *whom, const char *where, uint64_t waited_ns,
                    uint64_t timeout_ns);

#endif
