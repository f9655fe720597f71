/* What every rank gives in every step, and the hash of it. judge.py computes the same. */
#include <string.h>

#include "history.h"

void crc_prepare(uint32_t table[256])
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t value = i;

        for (uint32_t bit = 0; bit < 8; bit++)
            value = value >> 1 ^ (value & 1 ? UINT32_C(0xedb88320) : 0);
        table[i] = value;
    }
}

uint32_t crc_of(const struct job *job, const void *data, size_t bytes)
{
    const unsigned char *at = data;
    uint32_t value = UINT32_MAX;

    for (size_t i = 0; i < bytes; i++)
        value = value >> 8 ^ job->crc_table[(value ^ at[i]) & 0xff];
    return value ^ UINT32_MAX;
}

/* splitmix64 */
static uint64_t next_word(uint64_t *state)
{
    uint64_t word = *state += UINT64_C(0x9e3779b97f4a7c15);

    word = (word ^ word >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    word = (word ^ word >> 27) * UINT64_C(0x94d049bb133111eb);
    return word ^ word >> 31;
}

void model_fill(const struct job *job, void *share, uint32_t rank, uint32_t step, uint32_t output,
                size_t bytes)
{
    uint64_t state = line_number(job->head, "seed", 0) << 32 | rank << 24 | step << 8 | output;
    unsigned char *to = share, period[PERIOD + 8];

    for (size_t at = 0; at < PERIOD; at += 8) {
        const uint64_t word = next_word(&state);

        for (size_t i = 0; i < 8; i++)
            period[at + i] = (unsigned char)(word >> 8 * i);
    }
    for (size_t at = 0; at < bytes; at += PERIOD)
        memcpy(to + at, period, bytes - at < PERIOD ? bytes - at : PERIOD);
}
