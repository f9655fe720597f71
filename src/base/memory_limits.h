/* How much memory can still be had: what the machine has left, and what the limits of the control
 * groups that this process is in leave. */
#ifndef ZC_MEMORY_LIMITS_H
#define ZC_MEMORY_LIMITS_H

#include <stddef.h>
#include <stdint.h>

enum { ZC_LIMITS_PATH = 1024, ZC_LIMITS_HIERARCHIES = 2 };

struct zc_memory_limits {
    const char *root; /* "" but in tests: what stands before /proc and /sys */
    /* Version 1's and version 2's hierarchy: where it is mounted, and our own group below it.
     * Empty where memory is not limited through it. */
    struct {
        char mount[ZC_LIMITS_PATH], group[ZC_LIMITS_PATH];
    } hierarchies[ZC_LIMITS_HIERARCHIES];
};

/* Finds this process's groups. `root` outlives the limits. */
void zc_memory_limits_find(struct zc_memory_limits *limits, const char *root);

/* In bytes. */
struct zc_memory_room {
    uint64_t left;    /* what can still be had now */
    const char *what; /* which limit that is */
    uint64_t most;    /* what could ever be had, by everybody together */
};

void zc_memory_limits_ask(const struct zc_memory_limits *limits, struct zc_memory_room *room);

#endif
