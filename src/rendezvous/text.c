/* Lists of ranks and durations in words. */
#include "rendezvous/text.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/number.h"

void zc_text_ranks(char text[120], const uint32_t *ranks, uint32_t count)
{
    const uint32_t named = count <= ZC_TEXT_RANKS ? count : ZC_TEXT_RANKS;
    int length = snprintf(text, 120, count == 1 ? "rank" : "ranks");

    for (uint32_t i = 0; i < named; i++)
        length += snprintf(text + length, 120 - (size_t)length, "%s%" PRIu32, i == 0 ? " " : ", ",
                           ranks[i]);
    if (count > named)
        snprintf(text + length, 120 - (size_t)length, " and %" PRIu32 " more", count - named);
}

void zc_text_version(char text[16], uint32_t version)
{
    if (version == 0)
        snprintf(text, 16, "unknown");
    else
        snprintf(text, 16, "%u.%u.%u", (unsigned)(version >> 16 & 0xfff),
                 (unsigned)(version >> 8 & 0xff), (unsigned)(version & 0xff));
}

void zc_text_seconds(char text[24], uint64_t ns)
{
    const uint64_t ms = (ns + 500000) / 1000000;

    if (ms < 1000)
        snprintf(text, 24, "%" PRIu64 " ms", ms);
    else if (ms % 1000 < 50)
        snprintf(text, 24, "%" PRIu64 " s", ms / 1000);
    else
        zc_format(text, 24, "%.1f s", (double)ms / 1e3);
}
