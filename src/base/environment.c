/* The table of variables; see environment.h. */
#include "base/environment.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PREFIX "ZEROCTA_"

enum { VALUES_MOST = 6 };

/* Without values a variable takes text or a number, and who reads it judges it. */
static const struct variable {
    const char *name;
    const char *values[VALUES_MOST];
} variables[] = {
    {"ZEROCTA_LOG", {"off", "error", "warn", "info", "debug"}},
    {"ZEROCTA_CHECK", {"0", "1"}},
    {"ZEROCTA_TIMEOUT", {NULL}},
    {"ZEROCTA_TOKEN", {NULL}},
    {"ZEROCTA_JOB", {NULL}},
    {"ZEROCTA_PORT", {NULL}},
    {"ZEROCTA_REMOTE", {"0", "1"}},
    {"ZEROCTA_ADDRESS", {NULL}},
    {"ZEROCTA_NODE", {NULL}},
    {"ZEROCTA_P2P", {"0", "1"}},
    {"ZEROCTA_SIGNALS", {"copy", "write"}},
    {"ZEROCTA_NCCL_LIBRARY", {NULL}},
    {"ZEROCTA_NCCL_SYMMETRIC", {"0", "1"}},
    {"ZEROCTA_TUNE_FILE", {NULL}},
    /* These are set by `zerocta run`. */
    {"ZEROCTA_ROOT", {NULL}},
    {"ZEROCTA_RANK", {NULL}},
    {"ZEROCTA_RANK_COUNT", {NULL}},
    {"ZEROCTA_LOCAL_RANK", {NULL}},
    {"ZEROCTA_LOCAL_RANK_COUNT", {NULL}},
    {"ZEROCTA_LISTEN_FD", {NULL}},
};
enum { VARIABLES = sizeof variables / sizeof variables[0] };

static const struct variable *find(const char *name, size_t length)
{
    for (size_t i = 0; i < VARIABLES; i++)
        if (strlen(variables[i].name) == length && strncmp(variables[i].name, name, length) == 0)
            return &variables[i];
    return NULL;
}

const char *zc_environment(const char *name)
{
    assert(find(name, strlen(name)) != NULL);
    return getenv(name);
}

int zc_environment_choice(const char *name)
{
    const struct variable *variable = find(name, strlen(name));
    const char *text = zc_environment(name);

    assert(variable->values[0] != NULL);
    for (int i = 0; text != NULL && i < VALUES_MOST && variable->values[i] != NULL; i++)
        if (strcmp(variable->values[i], text) == 0)
            return i;
    return -1;
}

/* "off, error, warn, info or debug" */
static void list_values(const struct variable *variable, char text[ZC_ENVIRONMENT_VALUES])
{
    size_t length = 0;

    text[0] = '\0';
    for (size_t i = 0; i < VALUES_MOST && variable->values[i] != NULL; i++) {
        const bool last = i + 1 == VALUES_MOST || variable->values[i + 1] == NULL;

        length += (size_t)snprintf(text + length, ZC_ENVIRONMENT_VALUES - length, "%s%s",
                                   i == 0 ? "" : (last ? " or " : ", "), variable->values[i]);
        assert(length < ZC_ENVIRONMENT_VALUES);
    }
}

zcta_status zc_environment_check(struct zc_diag *diag)
{
    for (size_t i = 0; i < VARIABLES; i++) {
        const char *text = zc_environment(variables[i].name);
        char values[ZC_ENVIRONMENT_VALUES];

        if (text == NULL || text[0] == '\0' || variables[i].values[0] == NULL ||
            zc_environment_choice(variables[i].name) >= 0)
            continue;
        list_values(&variables[i], values);
        return zc_fail(diag, ZCTA_ERR_ENVIRONMENT, "zcta_init", 0,
                       "%s is \"%.40s\"; it may be %s, or unset", variables[i].name, text, values);
    }
    return ZCTA_OK;
}

const char *zc_environment_at(size_t index, char values[ZC_ENVIRONMENT_VALUES])
{
    if (index >= VARIABLES)
        return NULL;
    list_values(&variables[index], values);
    return variables[index].name;
}

bool zc_environment_is_unknown(const char *entry)
{
    static const char tests[] = PREFIX "TEST_"; /* of our own tests */

    return strncmp(entry, PREFIX, strlen(PREFIX)) == 0 &&
           strncmp(entry, tests, strlen(tests)) != 0 && find(entry, strcspn(entry, "=")) == NULL;
}

void zc_environment_warn(struct zc_diag *diag)
{
    char known[512];
    size_t length = 0;

    for (size_t i = 0; i < VARIABLES; i++)
        length += (size_t)snprintf(known + length, sizeof known - length, "%s%s",
                                   i == 0 ? "" : ", ", variables[i].name);
    assert(length < sizeof known);
    for (char **at = environ; at != NULL && *at != NULL; at++) {
        const size_t name = strcspn(*at, "=");

        if (zc_environment_is_unknown(*at))
            zc_log(diag, ZC_LOG_WARN, "%.*s is set, but there is no such variable; there are %s",
                   (int)(name < 60 ? name : 60), *at, known);
    }
}

/* ---- Variables for others ---- */

/* A list that was the process's environment, or is. Somebody may still walk it, or use what it
 * found there, so it stays. */
struct list {
    struct list *next;
    char *entries[];
};

static struct list *_Atomic lists;

static bool is_one_of(const char *entry, const char *const *entries, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(entry, entries[i]) == 0)
            return true;
    return false;
}

static bool is_set(char *const *list, const char *entry)
{
    const size_t name = strcspn(entry, "=") + 1;

    for (; list != NULL && *list != NULL; list++)
        if (strncmp(*list, entry, name) == 0)
            return true;
    return false;
}

/* Room for what there is and `more`; NULL without memory. */
static struct list *new_list(char *const *now, size_t more)
{
    size_t count = 0;
    struct list *made;

    while (now != NULL && now[count] != NULL)
        count++;
    made = calloc(1, sizeof *made + (count + more + 1) * sizeof *made->entries);
    if (made == NULL)
        return NULL;
    made->next = atomic_load_explicit(&lists, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&lists, &made->next, made, memory_order_relaxed,
                                                  memory_order_relaxed))
        continue;
    return made;
}

static void publish(struct list *list)
{
    __atomic_store_n(&environ, list->entries, __ATOMIC_RELEASE);
}

void zc_environment_add(const char *const *entries, size_t count)
{
    char **now = __atomic_load_n(&environ, __ATOMIC_ACQUIRE);
    struct list *list = new_list(now, count);
    size_t at = 0;

    if (list == NULL)
        return;
    while (now != NULL && now[at] != NULL) {
        list->entries[at] = now[at];
        at++;
    }
    for (size_t i = 0; i < count; i++) {
        char *entry = is_set(now, entries[i]) ? NULL : strdup(entries[i]);

        if (entry != NULL)
            list->entries[at++] = entry;
    }
    publish(list);
}

void zc_environment_remove(const char *const *entries, size_t count)
{
    char **now = __atomic_load_n(&environ, __ATOMIC_ACQUIRE);
    struct list *list = new_list(now, 0);
    size_t at = 0;

    if (list == NULL)
        return;
    for (; now != NULL && *now != NULL; now++)
        if (!is_one_of(*now, entries, count))
            list->entries[at++] = *now;
    publish(list);
}
