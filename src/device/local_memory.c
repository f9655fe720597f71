/* The list of this process's shareable memories. */
#include "device/local_memory.h"

#include <assert.h>
#include <pthread.h>
#include <stddef.h>

static struct {
    pthread_mutex_t lock;
    struct zc_local_memory *first;
    uint64_t last_id;
} list = {.lock = PTHREAD_MUTEX_INITIALIZER};

void zc_local_publish(struct zc_local_memory *memory)
{
    pthread_mutex_lock(&list.lock);
    memory->id = ++list.last_id;
    memory->references = 1;
    memory->next = list.first;
    list.first = memory;
    pthread_mutex_unlock(&list.lock);
}

struct zc_local_memory *zc_local_take(uint64_t id)
{
    struct zc_local_memory *memory;

    pthread_mutex_lock(&list.lock);
    for (memory = list.first; memory != NULL && memory->id != id; memory = memory->next)
        continue;
    if (memory != NULL)
        memory->references++;
    pthread_mutex_unlock(&list.lock);
    return memory;
}

_Bool zc_local_drop(struct zc_local_memory *memory)
{
    struct zc_local_memory **at = &list.first;
    _Bool last;

    pthread_mutex_lock(&list.lock);
    assert(memory->references > 0);
    last = --memory->references == 0;
    while (last && *at != memory)
        at = &(*at)->next;
    if (last)
        *at = memory->next;
    pthread_mutex_unlock(&list.lock);
    return last;
}
