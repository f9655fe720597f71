/* Numbers in text, as in every other program's: a locale of the program's with a decimal comma
 * changes neither how they are read nor how they are written. */
#ifndef ZC_NUMBER_H
#define ZC_NUMBER_H

#include <stdarg.h>
#include <stddef.h>

/* strtod() with a decimal point. */
double zc_number_read(const char *text, char **end);

/* snprintf() and vsnprintf() with a decimal point. */
int zc_format(char *text, size_t bytes, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int zc_format_list(char *text, size_t bytes, const char *format, va_list args)
    __attribute__((format(printf, 3, 0)));

#endif
