/* What bytes must be: a word of the pattern is a mix of its seed and its position, cheap enough to
 * fill and check gigabytes. */
#include "pattern.h"

#include <string.h>

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

/* The part of a word that a part of the pattern begins or ends with: bytes [from, to) of it. */
static void fill_word(uint64_t value, char *at, uint64_t from, uint64_t to)
{
    char bytes[WORD];

    memcpy(bytes, &value, WORD);
    memcpy(at, bytes + from, to - from);
}

/* How much of a part that begins at `offset` is the rest of a word that began before it. */
static uint64_t head_of(uint64_t offset, uint64_t bytes)
{
    const uint64_t rest = offset % WORD == 0 ? 0 : WORD - offset % WORD;

    return rest < bytes ? rest : bytes;
}

/* Words are XORed with `flip`: 0 leaves them, all ones makes every byte wrong. */
static void fill(struct zc_pattern pattern, void *at, uint64_t offset, uint64_t bytes,
                 uint64_t flip)
{
    const uint64_t head = head_of(offset, bytes), first = (offset + head) / WORD;
    const uint64_t words = (bytes - head) / WORD, rest = (bytes - head) % WORD;
    char *to = at;
    uint64_t value;

    if (head > 0)
        fill_word(word_at(pattern, offset / WORD) ^ flip, to, offset % WORD, offset % WORD + head);
    to += head;
    for (uint64_t i = 0; i < words; i++) {
        value = word_at(pattern, first + i) ^ flip;
        memcpy(to + i * WORD, &value, WORD);
    }
    if (rest > 0)
        fill_word(word_at(pattern, first + words) ^ flip, to + words * WORD, 0, rest);
}

void zc_pattern_fill(struct zc_pattern pattern, void *at, uint64_t offset, uint64_t bytes)
{
    fill(pattern, at, offset, bytes, 0);
}

void zc_pattern_poison(struct zc_pattern pattern, void *at, uint64_t offset, uint64_t bytes)
{
    fill(pattern, at, offset, bytes, UINT64_MAX);
}

/* The bits that differ in a word. */
static uint64_t difference(struct zc_pattern pattern, const char *from, uint64_t index)
{
    uint64_t found;

    memcpy(&found, from, WORD);
    return found ^ word_at(pattern, index);
}

/* The same for bytes [begin, end) of the word, which are at `from`. */
static uint64_t part_difference(struct zc_pattern pattern, const char *from, uint64_t index,
                                uint64_t begin, uint64_t end)
{
    const uint64_t expected = word_at(pattern, index);
    char bytes[WORD];
    uint64_t found;

    memcpy(bytes, &expected, WORD);
    memcpy(bytes + begin, from, end - begin);
    memcpy(&found, bytes, WORD);
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
        any |= difference(pattern, from + i * WORD, first + i);
    if (any == 0)
        return 0;
    for (uint64_t i = 0; i < words; i++)
        wrong += count_bytes(difference(pattern, from + i * WORD, first + i));
    return wrong;
}

uint64_t zc_pattern_check(struct zc_pattern pattern, const void *at, uint64_t offset,
                          uint64_t bytes)
{
    const uint64_t head = head_of(offset, bytes), first = (offset + head) / WORD;
    const uint64_t words = (bytes - head) / WORD, rest = (bytes - head) % WORD;
    const char *from = at;
    uint64_t wrong = 0;

    if (head > 0)
        wrong += count_bytes(
            part_difference(pattern, from, offset / WORD, offset % WORD, offset % WORD + head));
    from += head;
    for (uint64_t i = 0; i < words; i += BLOCK_WORDS) {
        const uint64_t left = words - i;

        wrong += check_block(pattern, from + i * WORD, first + i,
                             left < BLOCK_WORDS ? left : BLOCK_WORDS);
    }
    if (rest > 0)
        wrong += count_bytes(part_difference(pattern, from + words * WORD, first + words, 0, rest));
    return wrong;
}
