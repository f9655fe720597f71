/* Where results go that programs read. */
#include "results.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#ifdef ZC_HAVE_JANSSON
#include <jansson.h>
#endif

#include "base/fd.h"
#include "commands.h"
#include "options.h"

bool zc_results_is_standard_output(const struct zc_results *results)
{
    return results->name != NULL && strcmp(results->name, "-") == 0;
}

static const char *place(const struct zc_results *results)
{
    return zc_results_is_standard_output(results) ? "standard output" : results->name;
}

bool zc_results_reserve(const char *command, struct zc_results *results)
{
    int other = STDERR_FILENO;

    if (!zc_results_is_standard_output(results))
        return true;
    results->fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    if (zc_fd_is_closed(STDERR_FILENO))
        other = open("/dev/null", O_WRONLY | O_CLOEXEC); /* nobody wants to see it */
    if (results->fd >= 0 && dup2(other, STDOUT_FILENO) == STDOUT_FILENO)
        return true;
    zc_failure(command, "cannot keep standard output for the results: %s", strerror(errno));
    return false;
}

bool zc_results_try(const char *command, const struct zc_results *results)
{
    int fd;

    if (results->name == NULL || zc_results_is_standard_output(results))
        return true;
    fd = open(results->name, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (fd >= 0) {
        close(fd);
        return true;
    }
    zc_failure(command, "cannot write %s: %s", results->name, strerror(errno));
    return false;
}

FILE *zc_results_open(const struct zc_results *results)
{
    return zc_results_is_standard_output(results) ? fdopen(results->fd, "w")
                                                  : fopen(results->name, "we");
}

bool zc_results_close(const char *command, const struct zc_results *results, FILE *file,
                      bool written)
{
    int error = errno;

    if (file != NULL && fclose(file) != 0) {
        error = errno;
        written = false;
    }
    if (!written)
        zc_failure(command, "cannot write %s: %s", place(results), strerror(error));
    return written;
}

int zc_json_prepare(const char *command, struct zc_results *results, bool is_rank, bool threads)
{
    if (results->name == NULL)
        return ZC_EXIT_OK;
    if (zc_json_missing() != NULL)
        return zc_usage_error(command, "%s", zc_json_missing());
    if (!is_rank && !zc_results_try(command, results))
        return ZC_EXIT_FAILED;
    if ((is_rank || threads) && !zc_results_reserve(command, results))
        return ZC_EXIT_FAILED;
    return ZC_EXIT_OK;
}

#ifdef ZC_HAVE_JANSSON

const char *zc_json_missing(void)
{
    return NULL;
}

bool zc_json_write(const char *command, const struct zc_results *results, struct json_t *report)
{
    FILE *file = NULL;
    bool written = false;

    errno = ENOMEM;
    if (report != NULL)
        file = zc_results_open(results);
    if (file != NULL)
        written = json_dumpf(report, file, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) == 0 &&
                  fputc('\n', file) != EOF;
    written = zc_results_close(command, results, file, written);
    json_decref(report);
    return written;
}

#else

const char *zc_json_missing(void)
{
    return "--json needs the jansson library, which was not found when this was built";
}

bool zc_json_write(const char *command, const struct zc_results *results, struct json_t *report)
{
    (void)report;
    zc_failure(command, "cannot write %s: %s", place(results), zc_json_missing());
    return false;
}

#endif
