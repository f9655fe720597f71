/* Memory control groups for tests, below the caller's own group or, where that may not have any, as
 * version 2 forbids for a group with processes, below one around it. */
#ifndef SUPPORT_GROUP_H
#define SUPPORT_GROUP_H

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include "base/memory_limits.h"
#include "support_ranks.h"

/* Versions count as in zc_memory_limits: 0 is version 1. */
enum { GROUP_PATH = 3 * ZC_LIMITS_PATH };

static inline bool group_write(const char *folder, const char *name, uint64_t number)
{
    char path[GROUP_PATH + 32];
    FILE *file;
    bool written;

    snprintf(path, sizeof path, "%s/%s", folder, name);
    file = fopen(path, "we");
    if (file == NULL)
        return false;
    written = fprintf(file, "%llu\n", (unsigned long long)number) > 0;
    return fclose(file) == 0 && written;
}

/* Makes a group for process `pid` with this limit. False: not of this version, or not by us. */
static inline bool group_make(size_t version, pid_t pid, uint64_t limit, char folder[GROUP_PATH])
{
    static const char *const names[] = {"memory.limit_in_bytes", "memory.max"};
    struct zc_memory_limits limits;
    char *group, *end;

    zc_memory_limits_find(&limits, "");
    if (limits.hierarchies[version].mount[0] == '\0')
        return false;
    group = limits.hierarchies[version].group;
    do {
        end = strrchr(group, '/');
        snprintf(folder, GROUP_PATH, "%s%s/zerocta-test-%d", limits.hierarchies[version].mount,
                 group, (int)pid);
        if (mkdir(folder, 0755) == 0) {
            if (group_write(folder, names[version], limit))
                return true;
            rmdir(folder);
        }
        if (end != NULL)
            *end = '\0';
    } while (end != NULL);
    return false;
}

/* The group's last process has ended, but the group may not know it yet. */
static inline void group_remove(const char *folder)
{
    for (int tries = 0; rmdir(folder) != 0 && errno == EBUSY && tries < 500; tries++)
        sleep_ms(10);
}

#endif
