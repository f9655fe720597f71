/* What takes long tells how far it has got. */
#ifndef ZC_PROGRESS_H
#define ZC_PROGRESS_H

#include <stddef.h>
#include <stdint.h>

/* `tell` is called now and then, with as much of the whole as is known by then. */
struct zc_progress {
    void (*tell)(void *data, uint64_t done, uint64_t total);
    void *data;
};

/* For loops: tells once in many steps. NULL: nobody wants to know. */
static inline void zc_progress_step(const struct zc_progress *progress, uint64_t done,
                                    uint64_t total)
{
    if (progress != NULL && done % 65536 == 0)
        progress->tell(progress->data, done, total);
}

#endif
