/* The watchdog: a thread that sees how far the programs have got, calls a deadline passed,
 * and lets go every stream that waits under a failed guard. It lets go by writing the awaited
 * words; a peer that is still alive may write an older value over it, so it goes on writing until
 * the team is given back. */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/thread.h"
#include "device/cuda/cuda_team.h"

enum {
    PERIOD_MS = 10,
    /* More signals than a captured program sends on one word, and not yet behind the first. */
    GRAPH_MOST = 0x7fff,
    GRAPH_PERIOD_MS = 100,
};

static bool failed(const struct zc_guard *guard)
{
    return atomic_load_explicit(&guard->failed, memory_order_acquire) != ZCTA_OK;
}

static uint32_t count_of(const struct zc_guard *guard, uint32_t slot)
{
    return atomic_load_explicit(&guard->seen[slot], memory_order_relaxed);
}

/* The index of slot `i`'s word in team->words. */
static size_t word_index(const struct zc_guard *guard, uint32_t slot)
{
    return (guard->pad_head_bytes + slot * guard->slot_bytes) / sizeof(uint32_t);
}

/* Writes to every slot what its last wait awaits. */
static void let_go(struct zc_cuda_team *team)
{
    const struct zc_guard *guard = team->guard;
    const struct zc_cuda_driver *driver = team->device->driver;
    const size_t graph = guard->graph_offset / sizeof(uint32_t);

    memset(team->words, 0, guard->pad_bytes);
    for (uint32_t i = 0; i < guard->slot_count; i++) {
        team->words[word_index(guard, i)] = zc_cuda_epoch(count_of(guard, i));
        team->words[graph + word_index(guard, i)] = zc_cuda_epoch(GRAPH_MOST);
    }
    if (driver->cuMemcpyHtoDAsync(
            (uintptr_t)guard->pad + guard->pad_head_bytes, team->words + word_index(guard, 0),
            guard->pad_bytes - guard->pad_head_bytes, team->device->stream) == ZC_CU_SUCCESS)
        driver->cuStreamSynchronize(team->device->stream);
}

/* Whether what was just read of that ticket is that ticket's; see struct zc_cuda_run. */
static bool is_oldest(const struct zc_cuda_team *team, uint32_t ticket)
{
    return atomic_load_explicit(&team->guard->finished, memory_order_acquire) == ticket - 1;
}

/* The peer for which the watched program waits; ZCTA_NO_RANK if for none. Programs queued behind it
 * do not count: what they await cannot have come. Its waits are looked at in their order: a peer's
 * *done* is held up as this rank is if a third one has not come, and of that one *ready* is
 * missing, which is awaited before. */
static uint32_t find_missing(struct zc_cuda_team *team)
{
    const struct zc_guard *guard = team->guard;
    const struct zc_cuda_driver *driver = team->device->driver;
    const size_t run = team->watched % ZC_CUDA_RUNS;
    const uint32_t count = atomic_load_explicit(&team->runs[run].wait_count, memory_order_acquire);
    uint32_t missing = ZCTA_NO_RANK;

    if (driver->cuMemcpyDtoHAsync(team->words, (uintptr_t)guard->pad, guard->pad_bytes,
                                  team->device->stream) != ZC_CU_SUCCESS ||
        driver->cuStreamSynchronize(team->device->stream) != ZC_CU_SUCCESS)
        return ZCTA_NO_RANK;
    for (uint32_t i = 0; i < count && missing == ZCTA_NO_RANK; i++) {
        const uint32_t wait =
            atomic_load_explicit(&team->waits[run * guard->slot_count + i], memory_order_acquire);
        const uint32_t slot = wait & UINT16_MAX;

        if ((int32_t)(team->words[word_index(guard, slot)] - (wait - slot)) < 0)
            missing = slot % guard->rank_count;
    }
    return is_oldest(team, team->watched) ? missing : ZCTA_NO_RANK;
}

/* Whether the program behind those that have finished has begun. */
static bool has_begun(const struct zc_cuda_team *team, const struct zc_cuda_marks *marks)
{
    const struct zc_cuda_driver *driver = team->device->driver;
    const uint32_t ticket = marks->finished + 1;
    const struct zc_cuda_run *run = &team->runs[ticket % ZC_CUDA_RUNS];
    const zc_cu_pointer word = atomic_load_explicit(&run->word, memory_order_acquire);
    const uint32_t wanted = atomic_load_explicit(&run->value, memory_order_acquire);
    uint32_t value = 0;

    if (!is_oldest(team, ticket))
        return false;
    if (word == 0)
        return (int32_t)(marks->begun - ticket) >= 0;
    return driver->cuMemcpyDtoHAsync(&value, word, sizeof value, team->device->stream) ==
               ZC_CU_SUCCESS &&
           driver->cuStreamSynchronize(team->device->stream) == ZC_CU_SUCCESS &&
           (int32_t)(value - wanted) >= 0;
}

/* True if a program that has begun has lasted too long. */
static bool is_late(struct zc_cuda_team *team)
{
    const struct zc_guard *guard = team->guard;
    const uint32_t submitted = zc_guard_submitted(guard);
    struct zc_cuda_marks marks;

    if (atomic_load_explicit(&guard->finished, memory_order_relaxed) == submitted ||
        zc_cuda_look(team, &marks) != ZCTA_OK || (int32_t)(submitted - marks.finished) <= 0)
        return false;
    if (team->watched != marks.finished + 1) {
        if (!has_begun(team, &marks))
            return false;
        team->watched = marks.finished + 1;
        team->deadline = zc_deadline_in(guard->timeout_ns);
    }
    return zc_time_left_ns(team->deadline) == 0;
}

/* Where another library waits, no slot tells for whom; but all ranks submit the same programs, and
 * mark where they begin one that such a library waits in, so whoever has not begun this one is
 * missing. ZCTA_NO_RANK if all that can be seen from here have. */
static uint32_t find_absent(const struct zc_cuda_team *team)
{
    const struct zc_guard *guard = team->guard;
    const struct zc_cuda_driver *driver = team->device->driver;

    for (uint32_t i = 0; i < guard->rank_count; i++) {
        struct zc_cuda_marks marks;

        if (i == guard->self || guard->pads[i] == NULL ||
            driver->cuMemcpyDtoHAsync(&marks, (uintptr_t)guard->pads[i], sizeof marks,
                                      team->device->stream) != ZC_CU_SUCCESS ||
            driver->cuStreamSynchronize(team->device->stream) != ZC_CU_SUCCESS)
            continue;
        if ((int32_t)(marks.begun - team->watched) < 0)
            return i;
    }
    return ZCTA_NO_RANK;
}

/* The other library waits in vain for nobody who can be seen from here. Ranks of other nodes may
 * see who it is: they get some more time to say so. */
static bool is_hopeless(const struct zc_cuda_team *team)
{
    return zc_time_left_ns(team->deadline + team->guard->timeout_ns / 4) == 0;
}

/* ---- Replays ---- */

/* A replay takes no ticket; what it leaves are the graph words. A peer is absent if this rank's
 * first signal lies in its pad, not yet awaited, and no signal of its own lies in anybody's: a peer
 * that has begun and waits has one lying with the rank that it waits for. But between two looks it
 * may have come and gone again, so this rank's own replays must have stood still too. */

/* Notes whose first signals lie in `owner`'s pad. False if that could not be seen. */
static bool look_at_firsts(struct zc_cuda_team *team, uint32_t owner)
{
    const struct zc_guard *guard = team->guard;
    const struct zc_cuda_driver *driver = team->device->driver;
    const size_t stride = guard->slot_bytes / sizeof(uint32_t);

    if (driver->cuMemcpyDtoHAsync(
            team->words,
            (uintptr_t)guard->pads[owner] + guard->pad_head_bytes + guard->graph_offset,
            guard->rank_count * guard->slot_bytes, team->device->stream) != ZC_CU_SUCCESS ||
        driver->cuStreamSynchronize(team->device->stream) != ZC_CU_SUCCESS)
        return false;
    for (uint32_t i = 0; i < guard->rank_count; i++)
        team->came[i] = team->came[i] || team->words[i * stride] != 0;
    team->awaited[owner] = owner != guard->self && team->words[guard->self * stride] != 0;
    return true;
}

/* ZCTA_NO_RANK: nobody is absent, or this rank does not wait. */
static uint32_t find_not_replaying(struct zc_cuda_team *team)
{
    const struct zc_guard *guard = team->guard;

    memset(team->came, 0, guard->rank_count * sizeof *team->came);
    for (uint32_t i = 0; i < guard->rank_count; i++)
        if (!look_at_firsts(team, i))
            return ZCTA_NO_RANK;
    for (uint32_t i = 0; i < guard->rank_count; i++)
        if (team->awaited[i] && !team->came[i])
            return i;
    return ZCTA_NO_RANK;
}

/* Whether this rank has awaited the first signal of one peer since the last look, as every captured
 * program does. The trace of that is taken away; if one is left meanwhile it may go with it, but
 * then there was one before. */
static bool has_moved(struct zc_cuda_team *team)
{
    const struct zc_guard *guard = team->guard;
    const struct zc_cuda_driver *driver = team->device->driver;
    const uint32_t none = 0, next = (guard->self + 1) % guard->rank_count;
    const zc_cu_pointer trace = (uintptr_t)guard->pad + guard->pad_head_bytes +
                                guard->graph_offset + next * guard->slot_bytes +
                                ZC_CUDA_TRACE_OFFSET;
    uint32_t found = 0;

    if (driver->cuMemcpyDtoHAsync(&found, trace, sizeof found, team->device->stream) !=
            ZC_CU_SUCCESS ||
        driver->cuStreamSynchronize(team->device->stream) != ZC_CU_SUCCESS)
        return true; /* for all that is known */
    if (found == 0)
        return false;
    if (driver->cuMemcpyHtoDAsync(trace, &none, sizeof none, team->device->stream) == ZC_CU_SUCCESS)
        driver->cuStreamSynchronize(team->device->stream);
    return true;
}

/* True if a replay has stood still for as long as a wait may take, and a rank was absent at every
 * look. */
static bool is_replay_late(struct zc_cuda_team *team, uint32_t *absent)
{
    const uint64_t usual = GRAPH_PERIOD_MS * UINT64_C(1000000);
    const uint64_t timeout = team->guard->timeout_ns;

    if (!atomic_load_explicit(&team->has_graphs, memory_order_relaxed) ||
        zc_time_left_ns(team->graph_look) > 0)
        return false;
    team->graph_look = zc_deadline_in(timeout / 4 < usual ? timeout / 4 : usual);
    *absent = has_moved(team) ? ZCTA_NO_RANK : find_not_replaying(team);
    if (*absent == ZCTA_NO_RANK || team->graph_deadline == 0)
        team->graph_deadline = zc_deadline_in(timeout);
    return zc_time_left_ns(team->graph_deadline) == 0;
}

/* ---- The thread ---- */

/* Looks after one team. True if it waits in vain; *missing is the peer, or ZCTA_NO_RANK. */
static bool tend(struct zc_cuda_team *team, uint32_t *missing)
{
    if (failed(team->guard)) {
        let_go(team);
        return false;
    }
    if (is_replay_late(team, missing))
        return true;
    if (!is_late(team))
        return false;
    if (atomic_load_explicit(&team->runs[team->watched % ZC_CUDA_RUNS].calls,
                             memory_order_acquire)) {
        *missing = find_absent(team);
        return is_oldest(team, team->watched) && (*missing != ZCTA_NO_RANK || is_hopeless(team));
    }
    *missing = find_missing(team);
    return *missing != ZCTA_NO_RANK;
}

/* Without the lock: failing the team takes it, to wake this thread. */
static void report(struct zc_cuda_team *team, uint32_t missing)
{
    struct zc_device *device = team->device;

    device->reported = team;
    pthread_mutex_unlock(&device->lock);
    team->guard->on_missing(team->guard->data, missing);
    pthread_mutex_lock(&device->lock);
    device->reported = NULL;
    pthread_cond_broadcast(&device->changed); /* its owner may be waiting to give it back */
}

/* Until a team is reported: the list may be another one then. */
static void tend_all(struct zc_device *device)
{
    for (struct zc_cuda_team *team = device->teams; team != NULL; team = team->next) {
        uint32_t missing;

        if (tend(team, &missing)) {
            report(team, missing);
            return;
        }
    }
}

static void nap(struct zc_device *device)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += PERIOD_MS * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000L;
    }
    pthread_cond_timedwait(&device->changed, &device->lock, &until);
}

/* While any thread captures a graph in the usual mode, the copies this thread makes are forbidden
 * to all threads, and would break that capture; it has a stream of its own, which nobody captures,
 * and says so. */
static zc_cu_result settle_thread(const struct zc_device *device)
{
    int mode = ZC_CU_STREAM_CAPTURE_MODE_RELAXED;
    const zc_cu_result result = device->driver->cuCtxPushCurrent(device->context);

    return result == ZC_CU_SUCCESS ? device->driver->cuThreadExchangeStreamCaptureMode(&mode)
                                   : result;
}

static void *watch(void *data)
{
    struct zc_device *device = data;
    const zc_cu_result began = settle_thread(device);

    pthread_mutex_lock(&device->lock);
    device->began = began;
    pthread_cond_broadcast(&device->changed);
    while (began == ZC_CU_SUCCESS && !device->closing) {
        tend_all(device);
        nap(device);
    }
    pthread_mutex_unlock(&device->lock);
    return NULL;
}

static zc_cu_result await_begin(struct zc_device *device)
{
    zc_cu_result began;

    pthread_mutex_lock(&device->lock);
    while (device->began == ZC_CU_ERROR_NOT_READY)
        pthread_cond_wait(&device->changed, &device->lock);
    began = device->began;
    pthread_mutex_unlock(&device->lock);
    return began;
}

zcta_status zc_cuda_watchdog_start(struct zc_device *device)
{
    int error;

    device->began = ZC_CU_ERROR_NOT_READY;
    error = zc_thread_start(&device->watchdog, watch, device);
    if (error != 0)
        return zc_fail(device->diag, ZCTA_ERR_SYSTEM, "pthread_create", error,
                       "cannot start the watchdog thread: %s", strerror(error));
    device->watching = true;
    return zc_cuda_status(device->driver, device->diag, await_begin(device), "zcta_init",
                          "starting the watchdog thread");
}

void zc_cuda_watchdog_stop(struct zc_device *device)
{
    if (!device->watching)
        return;
    pthread_mutex_lock(&device->lock);
    device->closing = true;
    pthread_cond_broadcast(&device->changed);
    pthread_mutex_unlock(&device->lock);
    pthread_join(device->watchdog, NULL);
    device->watching = false;
}
