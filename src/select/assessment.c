/* What is said of a path. */
#include <stdarg.h>

#include "base/number.h"
#include "select/select.h"

void zc_because(struct zc_assessment *assessment, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    zc_format_list(assessment->reason, sizeof assessment->reason, format, args);
    va_end(args);
}
