/* The table of variables; see environment.h. */
#include "base/environment.h"

#include <assert.h>
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
static void list_values(const struct variable *variable, char text[96])
{
    size_t length = 0;

    text[0] = '\0';
    for (size_t i = 0; i < VALUES_MOST && variable->values[i] != NULL; i++) {
        const bool last = i + 1 == VALUES_MOST || variable->values[i + 1] == NULL;

        length += (size_t)snprintf(text + length, 96 - length, "%s%s",
                                   i == 0 ? "" : (last ? " or " : ", "), variable->values[i]);
        assert(length < 96);
    }
}

zcta_status zc_environment_check(struct zc_diag *diag)
{
    for (size_t i = 0; i < VARIABLES; i++) {
        const char *text = zc_environment(variables[i].name);
        char values[96];

        if (text == NULL || text[0] == '\0' || variables[i].values[0] == NULL ||
            zc_environment_choice(variables[i].name) >= 0)
            continue;
        list_values(&variables[i], values);
        return zc_fail(diag, ZCTA_ERR_ENVIRONMENT, "zcta_init", 0,
                       "%s is \"%.40s\"; it may be %s, or unset", variables[i].name, text, values);
    }
    return ZCTA_OK;
}

void zc_environment_warn(struct zc_diag *diag)
{
    static const char tests[] = PREFIX "TEST_"; /* of our own tests */
    char known[512];
    size_t length = 0;

    for (size_t i = 0; i < VARIABLES; i++)
        length += (size_t)snprintf(known + length, sizeof known - length, "%s%s",
                                   i == 0 ? "" : ", ", variables[i].name);
    assert(length < sizeof known);
    for (char **at = environ; at != NULL && *at != NULL; at++) {
        const size_t name = strcspn(*at, "=");

        if (strncmp(*at, PREFIX, strlen(PREFIX)) == 0 && find(*at, name) == NULL &&
            strncmp(*at, tests, strlen(tests)) != 0)
            zc_log(diag, ZC_LOG_WARN, "%.*s is set, but there is no such variable; there are %s",
                   (int)(name < 60 ? name : 60), *at, known);
    }
}
