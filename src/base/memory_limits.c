/* Reads what the kernel says of memory; see memory_limits.h. Allocates nothing that lasts. */
#include "base/memory_limits.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>

#include "base/fd.h"

/* What differs between the two versions of control groups. */
static const struct {
    const char *type;                        /* of its mount */
    const char *limit, *usage;               /* files */
    const char *inactive_file, *active_file; /* in memory.stat: what is given back when needed */
} versions[ZC_LIMITS_HIERARCHIES] = {
    {"cgroup", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ",
     "total_active_file "},
    {"cgroup2", "memory.max", "memory.current", "inactive_file ", "active_file "},
};
enum { VERSION_1, VERSION_2 };

/* A number from a file such as /proc/meminfo or a group's: what follows `key`, or UINT64_MAX. */
static uint64_t number_in_file(const char *root, const char *folder, const char *name,
                               const char *key)
{
    char path[3 * ZC_LIMITS_PATH];
    uint64_t value = UINT64_MAX;
    char line[256];
    FILE *file;

    if (snprintf(path, sizeof path, "%s%s/%s", root, folder, name) >= (int)sizeof path)
        return UINT64_MAX;
    file = zc_fd_read_file(path);
    while (file != NULL && value == UINT64_MAX && fgets(line, sizeof line, file) != NULL) {
        const char *digits = line + strlen(key);
        char *end = NULL;

        if (strncmp(line, key, strlen(key)) == 0)
            value = strtoull(digits, &end, 10);
        if (end == digits) /* "max": there is no number */
            value = UINT64_MAX;
    }
    if (file != NULL)
        fclose(file);
    return value;
}

/* ---- Finding the groups ---- */

/* Whether `word` is one of the words of `list`, which commas separate. */
static bool has_word(const char *list, const char *word)
{
    const size_t length = strlen(word);
    const char *at = list;

    while (at != NULL) {
        if (strncmp(at, word, length) == 0 && (at[length] == ',' || at[length] == '\0'))
            return true;
        at = strchr(at, ',');
        if (at != NULL)
            at++;
    }
    return false;
}

/* The group's path in each hierarchy, as /proc/self/cgroup names it: "4:memory:/a/b", "0::/a". */
static void read_groups(struct zc_memory_limits *limits)
{
    char path[ZC_LIMITS_PATH], *line = NULL;
    size_t capacity = 0;
    FILE *file;

    snprintf(path, sizeof path, "%s/proc/self/cgroup", limits->root);
    file = zc_fd_read_file(path);
    while (file != NULL && getline(&line, &capacity, file) > 0) {
        char *controllers = strchr(line, ':');
        char *group = controllers == NULL ? NULL : strchr(controllers + 1, ':');
        size_t version;

        if (group == NULL)
            continue;
        *group++ = '\0';
        group[strcspn(group, "\n")] = '\0';
        version = controllers[1] == '\0' ? VERSION_2 : VERSION_1;
        if (version == VERSION_1 && !has_word(controllers + 1, "memory"))
            continue;
        if (strlen(group) < ZC_LIMITS_PATH)
            memcpy(limits->hierarchies[version].group, group, strlen(group) + 1);
    }
    free(line);
    if (file != NULL)
        fclose(file);
}

/* What of the group's path lies below what is mounted; NULL if it lies elsewhere. */
static const char *path_below(const char *group, const char *mounted)
{
    const size_t length = strcmp(mounted, "/") == 0 ? 0 : strlen(mounted);

    if (strncmp(group, mounted, length) != 0 || (group[length] != '/' && group[length] != '\0') ||
        strstr(group, "/..") != NULL)
        return NULL;
    return group + length;
}

/* One line of mountinfo: "35 31 0:32 /mounted /at rw shared:1 - cgroup cgroup rw,memory". The first
 * mount that shows the group counts; from one that does not, its top is all that can be seen. */
static void read_mount(struct zc_memory_limits *limits, const char *line)
{
    char mounted[ZC_LIMITS_PATH], at[ZC_LIMITS_PATH], type[16], options[ZC_LIMITS_PATH];
    const char *rest = strstr(line, " - ");

    if (rest == NULL || sscanf(line, "%*s %*s %*s %1023s %1023s", mounted, at) != 2 ||
        sscanf(rest, " - %15s %*s %1023s", type, options) != 2)
        return;
    for (size_t version = 0; version < ZC_LIMITS_HIERARCHIES; version++) {
        char *group = limits->hierarchies[version].group;
        char *mount = limits->hierarchies[version].mount;
        const char *below = path_below(group, mounted);

        if (strcmp(type, versions[version].type) != 0 || mount[0] != '\0' ||
            (version == VERSION_1 && !has_word(options, "memory")))
            continue;
        memmove(group, below == NULL ? "" : below, below == NULL ? 1 : strlen(below) + 1);
        memcpy(mount, at, strlen(at) + 1);
    }
}

void zc_memory_limits_find(struct zc_memory_limits *limits, const char *root)
{
    char path[ZC_LIMITS_PATH], *line = NULL;
    size_t capacity = 0;
    FILE *file;

    memset(limits, 0, sizeof *limits);
    limits->root = root;
    read_groups(limits);
    snprintf(path, sizeof path, "%s/proc/self/mountinfo", root);
    file = zc_fd_read_file(path);
    while (file != NULL && getline(&line, &capacity, file) > 0)
        read_mount(limits, line);
    free(line);
    if (file != NULL)
        fclose(file);
}

/* ---- Asking ---- */

/* Without /proc nothing tells what is free; then nobody gets more than there is at all. */
static void ask_machine(const char *root, struct zc_memory_room *room)
{
    const uint64_t kib = number_in_file(root, "/proc", "meminfo", "MemAvailable:");
    struct sysinfo machine;

    room->what = "of the machine's memory";
    room->most =
        sysinfo(&machine) == 0 ? (uint64_t)machine.totalram * machine.mem_unit : UINT64_MAX;
    room->left = kib <= UINT64_MAX / 1024 ? kib * 1024 : room->most;
}

/* Cached files count as used, and go when memory is needed. */
static uint64_t cached_files(const char *root, const char *folder, size_t version)
{
    const char *const keys[] = {versions[version].inactive_file, versions[version].active_file};
    uint64_t sum = 0;

    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const uint64_t bytes = number_in_file(root, folder, "memory.stat", keys[i]);

        sum += bytes == UINT64_MAX ? 0 : bytes;
    }
    return sum;
}

/* How much is cached takes the kernel long to tell: only asked if it matters. */
static void ask_group(const char *root, const char *folder, size_t version,
                      struct zc_memory_room *room)
{
    const uint64_t limit = number_in_file(root, folder, versions[version].limit, "");
    uint64_t used, cached, left;

    if (limit > UINT64_MAX / 4) /* none: version 1 writes a huge number */
        return;
    room->most = limit < room->most ? limit : room->most;
    used = number_in_file(root, folder, versions[version].usage, "");
    if (used == UINT64_MAX || (limit > used && limit - used >= room->left))
        return;
    cached = cached_files(root, folder, version);
    used = used > cached ? used - cached : 0;
    left = limit > used ? limit - used : 0;
    if (left >= room->left)
        return;
    room->left = left;
    room->what = "of what the memory limit of this container or control group allows";
}

/* Our own group and those around it: every one of them counts. */
static void ask_groups(const struct zc_memory_limits *limits, size_t version,
                       struct zc_memory_room *room)
{
    const char *mount = limits->hierarchies[version].mount;
    char folder[2 * ZC_LIMITS_PATH];
    char *end;

    if (mount[0] == '\0')
        return;
    snprintf(folder, sizeof folder, "%s%s", mount, limits->hierarchies[version].group);
    do {
        ask_group(limits->root, folder, version, room);
        end = strrchr(folder, '/');
        if (end != NULL)
            *end = '\0';
    } while (end != NULL && strlen(folder) >= strlen(mount));
}

void zc_memory_limits_ask(const struct zc_memory_limits *limits, struct zc_memory_room *room)
{
    ask_machine(limits->root, room);
    for (size_t version = 0; version < ZC_LIMITS_HIERARCHIES; version++)
        ask_groups(limits, version, room);
}
