/* The table of surroundings: what a process that is not ours may look like. */
#ifndef SURROUNDINGS_H
#define SURROUNDINGS_H

#include <stdbool.h>

enum when {
    BEFORE_INIT,
    AFTER_INIT,  /* between zcta_init() and the first call on a team */
    AFTER_CALLS, /* between two gathers */
};

struct surrounding {
    const char *name;
    /* Makes it for the calling process. NULL, or why it cannot be made here. */
    const char *(*make)(long a, long b);
    long a, b;
    enum when when;
    bool works; /* everything must go well in it; otherwise an error sentence is fine, too */
};

extern const struct surrounding surroundings[];
extern const unsigned surrounding_count;

#endif
