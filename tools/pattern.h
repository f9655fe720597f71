/* What bytes must be: they differ by rank, place and serial number of the call. Knows only memory.
 */
#ifndef ZC_PATTERN_H
#define ZC_PATTERN_H

#include <stdint.h>

/* The contents of a rank's input in one call. A part of them begins at `offset`, and `at` is where
 * that byte is. */
struct zc_pattern {
    uint64_t seed;
};

struct zc_pattern zc_pattern_of(uint32_t rank, uint64_t serial);
void zc_pattern_fill(struct zc_pattern pattern, void *at, uint64_t offset, uint64_t bytes);
/* Fills with bytes each of which is wrong, so that what nobody writes is counted to the byte. */
void zc_pattern_poison(struct zc_pattern pattern, void *at, uint64_t offset, uint64_t bytes);
/* How many bytes are wrong. */
uint64_t zc_pattern_check(struct zc_pattern pattern, const void *at, uint64_t offset,
                          uint64_t bytes);

#endif
