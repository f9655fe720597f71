/* What somebody meant who wrote a name that there is not. */
#ifndef ZC_GUESS_H
#define ZC_GUESS_H

#include <stddef.h>

/* Of the names that were tried, the one that is nearest to what was given. */
struct zc_guess {
    const char *given;
    const char *best; /* NULL: none is near enough */
    size_t distance;
};

void zc_guess_try(struct zc_guess *guess, const char *name);

/* " (did you mean --ranks?)", with `before` in front of the name; empty if nobody can know. */
#define ZC_GUESS_TEXT_BYTES 96
const char *zc_guess_text(const struct zc_guess *guess, const char *before,
                          char text[ZC_GUESS_TEXT_BYTES]);

#endif
