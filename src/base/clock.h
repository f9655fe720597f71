/* Monotonic time and deadlines, in nanoseconds. */
#ifndef ZC_CLOCK_H
#define ZC_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t zc_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* The moment `timeout_ns` after `start`; saturates, so a huge timeout is simply far away. */
static inline uint64_t zc_after_ns(uint64_t start, uint64_t timeout_ns)
{
    return timeout_ns > UINT64_MAX - start ? UINT64_MAX : start + timeout_ns;
}

static inline uint64_t zc_deadline_in(uint64_t timeout_ns)
{
    return zc_after_ns(zc_now_ns(), timeout_ns);
}

/* Time left until `deadline`; 0 once it has passed. */
static inline uint64_t zc_time_left_ns(uint64_t deadline)
{
    const uint64_t now = zc_now_ns();

    return now < deadline ? deadline - now : 0;
}

#endif
