/* The nearest name: the fewest letters to change, add or leave out; the beginning of a name is
 * near, too. */
#include "guess.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { NAME_MOST = 40 };

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static bool same_letter(char a, char b)
{
    return tolower((unsigned char)a) == tolower((unsigned char)b);
}

/* How many letters to change, add or leave out; lower and upper case are the same. */
static size_t distance_of(const char *a, const char *b)
{
    size_t row[NAME_MOST + 1];
    const size_t columns = strlen(b);

    for (size_t j = 0; j <= columns; j++)
        row[j] = j;
    for (size_t i = 1; a[i - 1] != '\0'; i++) {
        size_t diagonal = row[0];

        row[0] = i;
        for (size_t j = 1; j <= columns; j++) {
            const size_t changed = diagonal + !same_letter(a[i - 1], b[j - 1]);

            diagonal = row[j];
            row[j] = smaller(changed, 1 + smaller(row[j], row[j - 1]));
        }
    }
    return row[columns];
}

void zc_guess_try(struct zc_guess *guess, const char *name)
{
    const size_t given = strlen(guess->given), length = strlen(name);
    size_t distance;

    if (given < 2 || given > NAME_MOST || length > NAME_MOST)
        return;
    distance = strncasecmp(guess->given, name, given) == 0 ? 1 : distance_of(guess->given, name);
    if (distance > 1 + smaller(given, length) / 4 ||
        (guess->best != NULL && distance >= guess->distance))
        return;
    guess->best = name;
    guess->distance = distance;
}

const char *zc_guess_text(const struct zc_guess *guess, const char *before,
                          char text[ZC_GUESS_TEXT_BYTES])
{
    text[0] = '\0';
    if (guess->best != NULL)
        snprintf(text, ZC_GUESS_TEXT_BYTES, " (did you mean %s%s?)", before, guess->best);
    return text;
}
