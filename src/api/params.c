/* Reading arguments: parameter structs whose size may differ from ours, and what must not be NULL.
 */
#include <string.h>

#include "api/objects.h"

zcta_status zc_fail_null(struct zc_diag *diag, const char *call, const char *what)
{
    return zc_fail(diag, ZCTA_ERR_INVALID, call, 0, "%s is NULL", what);
}

zcta_status zc_check_process(const struct zc_diag *diag, const char *call)
{
    if (zc_diag_is_here(diag))
        return ZCTA_OK;
    /* Nothing of the context is touched: another thread may have held its locks when fork() came.
     */
    return zc_fail(
        NULL, ZCTA_ERR_INVALID, call, 0,
        "this process is a child, made by fork(), of the one that joined the job: only that "
        "one uses the context; the child may call exec() or _exit()");
}

zcta_status zc_check_size(struct zc_diag *diag, const char *call, size_t size)
{
    /* A size that is no multiple would cut a field in two. */
    if (size >= sizeof size && size <= ZC_PARAMS_MOST && size % sizeof size == 0)
        return ZCTA_OK;
    return zc_fail(diag, ZCTA_ERR_INVALID, call, 0,
                   "the parameters' size field is %zu; set it to sizeof of the struct", size);
}

void zc_params_write(void *given, const void *known, size_t known_bytes)
{
    size_t size;

    memcpy(&size, given, sizeof size);
    memcpy(given, known, size < known_bytes ? size : known_bytes);
    memcpy(given, &size, sizeof size);
}

zcta_status zc_params_read(struct zc_diag *diag, const char *call, const void *given, void *known,
                           size_t known_bytes)
{
    size_t size;

    memset(known, 0, known_bytes);
    if (given == NULL)
        return ZCTA_OK;
    memcpy(&size, given, sizeof size);
    if (zc_check_size(diag, call, size) != ZCTA_OK)
        return ZCTA_ERR_INVALID;
    for (size_t i = known_bytes; i < size; i++)
        if (((const unsigned char *)given)[i] != 0)
            return zc_fail(diag, ZCTA_ERR_INVALID, call, 0,
                           "the parameters set a field at byte %zu that this library, version "
                           "%d.%d.%d, does not know",
                           i, ZCTA_VERSION_MAJOR, ZCTA_VERSION_MINOR, ZCTA_VERSION_PATCH);
    memcpy(known, given, size < known_bytes ? size : known_bytes);
    return ZCTA_OK;
}
