/* Small pieces of the sentences that the rendezvous says. */
#ifndef ZC_TEXT_H
#define ZC_TEXT_H

#include <stddef.h>
#include <stdint.h>

enum { ZC_TEXT_RANKS = 8 }; /* so many are named, and looked at, of a list; the rest is counted */

/* "rank 3", "ranks 3, 5", "ranks 1, 2, 3, 4, 5, 6, 7, 8 and 12 more". Never longer than 120. */
void zc_text_ranks(char text[120], const uint32_t *ranks, uint32_t count);

/* "0.1.0" for zcta_version()'s number; 0 is a version that did not say it. */
void zc_text_version(char text[16], uint32_t version);

/* "30 s", "2.5 s", "250 ms". */
void zc_text_seconds(char text[24], uint64_t ns);

#endif
