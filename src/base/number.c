/* Reads and writes numbers in the C locale; see number.h. */
#include "base/number.h"

#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>

/* Of the calling thread alone; (locale_t)0 if there is no memory for it. The C library keeps the C
 * locale at hand, so this allocates nothing. */
static locale_t enter(locale_t *plain)
{
    const int error = errno;

    *plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    errno = error;
    return *plain == (locale_t)0 ? (locale_t)0 : uselocale(*plain);
}

static void leave(locale_t before, locale_t plain)
{
    if (plain == (locale_t)0)
        return;
    uselocale(before);
    freelocale(plain);
}

double zc_number_read(const char *text, char **end)
{
    locale_t plain;
    const locale_t before = enter(&plain);
    const double value = strtod(text, end);

    leave(before, plain);
    return value;
}

int zc_format_list(char *text, size_t bytes, const char *format, va_list args)
{
    locale_t plain;
    const locale_t before = enter(&plain);
    const int length = vsnprintf(text, bytes, format, args);

    leave(before, plain);
    return length;
}

int zc_format(char *text, size_t bytes, const char *format, ...)
{
    va_list args;
    int length;

    va_start(args, format);
    length = zc_format_list(text, bytes, format, args);
    va_end(args);
    return length;
}
