/* Copying on the CPU. */
#include <string.h>

#include "device/host/host.h"

/* Stores that go past the caches need no read of the lines they fill and leave the source cached
 * for the next peer: more than twice as fast as memcpy() for outputs that no cache can hold.
 * Sanitizers do not see such stores, so they get memcpy(). */
#if defined(__SSE2__) && !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
#define ZC_STREAMING_STORES 1
#endif
#if defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer) ||                         \
    __has_feature(memory_sanitizer)
#undef ZC_STREAMING_STORES
#endif
#endif

#ifdef ZC_STREAMING_STORES

#include <emmintrin.h>

enum { LINE = 64 };

static void copy_line(char *to, const char *from)
{
    const __m128i a = _mm_loadu_si128((const __m128i *)(const void *)from);
    const __m128i b = _mm_loadu_si128((const __m128i *)(const void *)(from + 16));
    const __m128i c = _mm_loadu_si128((const __m128i *)(const void *)(from + 32));
    const __m128i d = _mm_loadu_si128((const __m128i *)(const void *)(from + 48));

    _mm_stream_si128((__m128i *)(void *)to, a);
    _mm_stream_si128((__m128i *)(void *)(to + 16), b);
    _mm_stream_si128((__m128i *)(void *)(to + 32), c);
    _mm_stream_si128((__m128i *)(void *)(to + 48), d);
}

static void copy_streamed(char *to, const char *from, size_t bytes)
{
    const size_t misaligned = (uintptr_t)to % LINE, gap = misaligned == 0 ? 0 : LINE - misaligned;
    const size_t head = gap < bytes ? gap : bytes;
    size_t done = head;

    memcpy(to, from, head);
    for (; bytes - done >= LINE; done += LINE)
        copy_line(to + done, from + done);
    memcpy(to + done, from + done, bytes - done);
    /* Streaming stores are not ordered with the signal that will follow; this orders them. */
    _mm_sfence();
}

void zc_host_copy(void *to, const void *from, size_t bytes, bool streamed)
{
    if (streamed)
        copy_streamed(to, from, bytes);
    else
        memcpy(to, from, bytes);
}

#else

void zc_host_copy(void *to, const void *from, size_t bytes, bool streamed)
{
    (void)streamed;
    memcpy(to, from, bytes);
}

#endif
