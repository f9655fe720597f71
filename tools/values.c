/* Numbers, sizes and times from text, and sizes to text. */
#include "values.h"

#include <stdio.h>
#include <string.h>

/* Reads digits; returns where they end, NULL if there are none or the number is too large. */
static const char *read_digits(const char *text, uint64_t *value)
{
    uint64_t number = 0;

    if (*text < '0' || *text > '9')
        return NULL;
    for (; *text >= '0' && *text <= '9'; text++) {
        if (__builtin_mul_overflow(number, 10u, &number) ||
            __builtin_add_overflow(number, (uint64_t)(*text - '0'), &number))
            return NULL;
    }
    *value = number;
    return text;
}

bool zc_parse_number(const char *text, uint64_t *value)
{
    uint64_t number;
    const char *end = read_digits(text, &number);

    if (end == NULL || *end != '\0')
        return false;
    *value = number;
    return true;
}

static const char size_letters[] = "KMGTPE";

bool zc_parse_size(const char *text, uint64_t *bytes)
{
    uint64_t number;
    const char *end = read_digits(text, &number);

    if (end == NULL)
        return false;
    if (*end != '\0') {
        const char upper = *end >= 'a' && *end <= 'z' ? (char)(*end - 'a' + 'A') : *end;
        const char *letter = strchr(size_letters, upper);

        if (letter == NULL || end[1] != '\0')
            return false;
        if (__builtin_mul_overflow(number, 1ull << (10 * (letter - size_letters + 1)), &number))
            return false;
    }
    *bytes = number;
    return true;
}

bool zc_parse_seconds(const char *text, uint64_t *nanoseconds)
{
    uint64_t number, digit_ns = 100000000;
    const char *end = read_digits(text, &number);

    if (end == NULL || __builtin_mul_overflow(number, 1000000000u, &number))
        return false;
    if (*end == '.') {
        for (end++; *end >= '0' && *end <= '9'; end++, digit_ns /= 10)
            if (__builtin_add_overflow(number, digit_ns * (uint64_t)(*end - '0'), &number))
                return false;
        if (end[-1] == '.')
            return false;
    }
    if (*end != '\0')
        return false;
    *nanoseconds = number;
    return true;
}

const char *zc_size_text(uint64_t bytes, char text[ZC_SIZE_TEXT_BYTES])
{
    char suffix[2] = "";
    size_t power = 0;

    while (bytes != 0 && bytes % 1024 == 0 && power < sizeof size_letters - 1) {
        bytes /= 1024;
        power++;
    }
    suffix[0] = power == 0 ? '\0' : size_letters[power - 1];
    snprintf(text, ZC_SIZE_TEXT_BYTES, "%llu%s", (unsigned long long)bytes, suffix);
    return text;
}
