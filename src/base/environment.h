/* The environment variables of this project, with what each may say. All that the library reads
 * under its own name it reads here; launchers' variables are rendezvous/launched.c's. */
#ifndef ZC_ENVIRONMENT_H
#define ZC_ENVIRONMENT_H

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

#endif
