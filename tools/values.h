/* Values in text: numbers, sizes such as 4K, times in seconds. */
#ifndef ZC_VALUES_H
#define ZC_VALUES_H

#include <stdbool.h>
#include <stdint.h>

/* Each takes the whole text or nothing, checks for overflow, and writes
 * its output only on success. */
bool zc_parse_number(const char *text, uint64_t *value);
bool zc_parse_size(const char *text, uint64_t *bytes);
bool zc_parse_seconds(const char *text, uint64_t *nanoseconds);

/* "4K" where that is exact, else "4097"; `text` gets at most 24 bytes. */
#define ZC_SIZE_TEXT_BYTES 24
const char *zc_size_text(uint64_t bytes, char text[ZC_SIZE_TEXT_BYTES]);

#endif
