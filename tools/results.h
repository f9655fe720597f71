/* Results that programs read: a file, or standard output under the name "-". */
#ifndef ZC_RESULTS_H
#define ZC_RESULTS_H

#include <stdbool.h>
#include <stdio.h>

/* A name, and what standard output was if the name is "-". */
struct zc_results {
    const char *name; /* NULL: no results are wanted */
    int fd;
};

bool zc_results_is_standard_output(const struct zc_results *results);

/* Before anything is printed, in the process that will write the results: for "-" standard output
 * is theirs alone from here on, and what anybody prints, libraries included, goes to standard
 * error. False after it was said why that cannot be done. */
bool zc_results_reserve(const char *command, struct zc_results *results);

/* Whether results can be written there, said before a long measurement instead of after it. */
bool zc_results_try(const char *command, const struct zc_results *results);

/* NULL, with errno, if it cannot be opened. */
FILE *zc_results_open(const struct zc_results *results);

/* Closes what zc_results_open() gave (NULL is fine). False after it was said that the results have
 * not arrived whole; `written` is what the caller's own writing came to. */
bool zc_results_close(const char *command, const struct zc_results *results, FILE *file,
                      bool written);

/* Why this build cannot write JSON, or NULL. */
const char *zc_json_missing(void);

/* Before anything is printed: tries whether JSON can be written there, unless this is a rank
 * (whoever started it has), and reserves the results in the process of a rank or of all ranks.
 * Returns an exit status, having said what is wrong. */
int zc_json_prepare(const char *command, struct zc_results *results, bool is_rank, bool threads);

/* Writes `report` and gives it back; NULL stands for one that could not be made. False after it was
 * said why not. */
struct json_t;
bool zc_json_write(const char *command, const struct zc_results *results, struct json_t *report);

#endif
