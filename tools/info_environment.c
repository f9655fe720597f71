/* The environment's part of `zerocta info`: every variable of ours, with what it may say, and of
 * launchers and other libraries what is set and heeded. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/environment.h"
#include "guess.h"
#include "info.h"
#include "rendezvous/launchers.h"

enum { NAMES_MOST = 128 };

static bool is_secret(const char *name)
{
    return strcmp(name, "ZEROCTA_TOKEN") == 0;
}

/* One variable of ours. `values` is what it may say, empty if anything. */
static void print_ours(const char *name, const char *values)
{
    const char *value = getenv(name);
    const bool limited = values[0] != '\0';

    if (value == NULL || value[0] == '\0')
        zc_info_say_variable(name, "not set%s%s", limited ? "; it may be " : "", values);
    else if (limited && zc_environment_choice(name) < 0)
        zc_info_say_variable(name, "%s: not known, zcta_init() refuses it; it may be %s", value,
                             values);
    else
        zc_info_say_variable(name, "%s", is_secret(name) ? "(set)" : value);
}

static void print_unknown(const char *entry)
{
    char name[64], values[ZC_ENVIRONMENT_VALUES], meant[ZC_GUESS_TEXT_BYTES];
    struct zc_guess guess = {.given = name};
    const char *known;

    snprintf(name, sizeof name, "%.*s", (int)strcspn(entry, "="), entry);
    for (size_t i = 0; (known = zc_environment_at(i, values)) != NULL; i++)
        zc_guess_try(&guess, known);
    zc_info_say_variable(name, "there is no such variable%s", zc_guess_text(&guess, "", meant));
}

/* ---- Other people's variables ---- */

/* Names that have been printed. */
struct names {
    const char *list[NAMES_MOST];
    size_t count;
};

static void print_set(struct names *names, const char *name)
{
    if (name == NULL || getenv(name) == NULL || strncmp(name, "ZEROCTA_", 8) == 0)
        return;
    for (size_t i = 0; i < names->count; i++)
        if (strcmp(names->list[i], name) == 0)
            return;
    if (names->count < NAMES_MOST)
        names->list[names->count++] = name;
    zc_info_say_variable(name, "%s", getenv(name));
}

static void print_launchers(struct names *names)
{
    for (int kind = 0; kind < ZC_LAUNCHER_KINDS; kind++) {
        const struct zc_launcher *l = &zc_launchers[kind];

        for (int i = 0; i < ZC_LAUNCHER_NAMES; i++) {
            print_set(names, l->rank[i]);
            print_set(names, l->count[i]);
            print_set(names, l->local_rank[i]);
            print_set(names, l->local_count[i]);
            print_set(names, l->identity[i]);
            print_set(names, l->attempt[i]);
        }
        print_set(names, l->machine);
        print_set(names, l->machines);
        print_set(names, l->mark);
        print_set(names, l->step);
    }
}

void zc_info_print_environment(void)
{
    static const char *const others[] = {"MASTER_ADDR",          "MASTER_PORT",
                                         "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_MAX_CONNECTIONS",
                                         "NCCL_CTA_POLICY",      "NCCL_NVLS_ENABLE"};
    char values[ZC_ENVIRONMENT_VALUES];
    struct names names = {.count = 0};
    const char *name;

    for (size_t i = 0; (name = zc_environment_at(i, values)) != NULL; i++)
        print_ours(name, values);
    for (char **at = environ; at != NULL && *at != NULL; at++)
        if (zc_environment_is_unknown(*at))
            print_unknown(*at);
    print_launchers(&names);
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        print_set(&names, others[i]);
}
