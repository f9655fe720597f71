/* What the bytes must be: a word of the pattern is a mix of its seed and its position, cheap enough
 * to fill and check gigabytes. Knows only memory. */
#include <assert.h>
#include <string.h>

#include "perf.h"

#define STEP UINT64_C(0x9e3779b97f4a7c15) /* odd, so no position repeats within 2^64 words */
#define MIX  UINT64_C(0xd6e8feb86659fd93)

enum { WORD = 8, BLOCK_WORDS = 64 };

static uint64_t mix(uint64_t value)
{
    value ^= value >> 32;
    value *= MIX;
    value ^= value >> 29;
    return value;
}

struct zc_pattern zc_pattern_of(uint32_t rank, uint64_t serial)
{
    return (struct zc_pattern){.seed = mix(mix((uint64_t)rank * STEP + 1) + serial * STEP)};
}

static uint64_t word_at(struct zc_pattern pattern, uint64_t index)
{
    return mix(pattern.seed + index * STEP);
}

/* Words are XORed with `flip`: 0 leaves them, all ones makes every byte wrong. */
static void fill(struct zc_pattern pattern, void *at, uint64_t offset, uint64_t bytes,
                 uint64_t flip)
{
    const uint64_t first = offset / WORD, words = bytes / WORD, rest = bytes % WORD;
    char *to = at;
    uint64_t value;

    assert(offset % WORD == 0);
    for (uint64_t i = 0; i < words; i++) {
        value = word_at(pattern, first + i) ^ flip;
        memcpy(to + i * WORD, &value, WORD);
    }
    value = word_at(pattern, first + words) ^ flip;
    memcpy(to + words * WORD, &value, rest);
}

void zc_pattern_fill(struct zc_pattern pattern, void *at, uint64_t offset, uint64_t bytes)
{
    fill(pattern, at, offset, bytes, 0);
}

void zc_pattern_poison(struct zc_pattern pattern, void *at, uint64_t offset, uint64_t bytes)
{
    fill(pattern, at, offset, bytes, UINT64_MAX);
}

/* The bits that differ in up to one word. */
static uint64_t difference(struct zc_pattern pattern, const char *from, uint64_t index,
                           uint64_t bytes)
{
    const uint64_t expected = word_at(pattern, index);
    uint64_t found = expected;

    memcpy(&found, from, bytes);
    return found ^ expected;
}

static uint64_t count_bytes(uint64_t bits)
{
    uint64_t count = 0;

    for (; bits != 0; bits >>= 8)
        count += (bits & 255u) != 0;
    return count;
}

/* First whether anything in the block is wrong, which is nearly always all there is to know. */
static uint64_t check_block(struct zc_pattern pattern, const char *from, uint64_t first,
                            uint64_t words)
{
    uint64_t any = 0, wrong = 0;

    for (uint64_t i = 0; i < words; i++)
        any |= difference(pattern, from + i * WORD, first + i, WORD);
    if (any == 0)
        return 0;
    for (uint64_t i = 0; i < words; i++)
        wrong += count_bytes(difference(pattern, from + i * WORD, first + i, WORD));
    return wrong;
}

uint64_t zc_pattern_check(struct zc_pattern pattern, const void *at, uint64_t offset,
                          uint64_t bytes)
{
    const uint64_t first = offset / WORD, words = bytes / WORD, rest = bytes % WORD;
    const char *from = at;
    uint64_t wrong = 0;

    assert(offset % WORD == 0);
    for (uint64_t i = 0; i < words; i += BLOCK_WORDS) {
        const uint64_t left = words - i;

        wrong += check_block(pattern, from + i * WORD, first + i,
                             left < BLOCK_WORDS ? left : BLOCK_WORDS);
    }
    return wrong + count_bytes(difference(pattern, from + words * WORD, first + words, rest));
}
