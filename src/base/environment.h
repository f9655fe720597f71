/* The environment variables of this project, with what each may say. All that the library reads
 * under its own name it reads here; launchers' variables are rendezvous/launched.c's. */
#ifndef ZC_ENVIRONMENT_H
#define ZC_ENVIRONMENT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/diag.h"

/* The value of one of the table's variables; NULL if it is unset. */
const char *zc_environment(const char *name);

/* Of a variable that takes one of several values, which one it has, from 0 on in the table's order;
 * -1 if it is unset or empty, or its value is none of these. */
int zc_environment_choice(const char *name);

/* Errors: ERR_ENVIRONMENT, if a variable has a value that nobody knows. */
zcta_status zc_environment_check(struct zc_diag *diag);

/* One line in the log for each variable that has our prefix and is none of ours. */
void zc_environment_warn(struct zc_diag *diag);

/* The table, for who prints it: the variable at `index`, from 0 on, NULL behind the last. `values`
 * gets what it may say, and is empty if that is text or a number. */
enum { ZC_ENVIRONMENT_VALUES = 96 };
const char *zc_environment_at(size_t index, char values[ZC_ENVIRONMENT_VALUES]);

/* Whether an entry "NAME=value" has our prefix and is no variable of ours. */
bool zc_environment_is_unknown(const char *entry);

/* Sets variables for a library that reads them, "NAME=value", those that are set excepted. Other
 * threads may be reading meanwhile, whom libc's own way would pull the list away from: they find
 * the old list or the new one, and what they find stays, also when this library is closed. */
void zc_environment_add(const char *const *entries, size_t count);

/* Takes away what has just these values. */
void zc_environment_remove(const char *const *entries, size_t count);

#endif
