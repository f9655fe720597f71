/* The watchers: threads that see how far the programs have got, call a deadline passed, and let go
 * every stream that waits under a failed guard.
 *
 * What counts is waiting. The clock of a wait runs while the stream stands at it, which it does
 * when the signal that the program sends last before it has arrived; so a program's own copies do
 * not count, however long they take, and every word that comes starts the next wait's clock.
 *
 * Letting go writes the awaited words: to each slot what its pending waits await, no more, because
 * a value much newer than the awaited one reads as older. A peer that is still alive may write an
 * older value over it, so it goes on until the team is given back.
 *
 * What is let go runs on: it copies what has not come, and tells the peers that it is there. So it
 * is let go only when the peers have had time to hear of the failure, which the team tells them
 * before the guard fails; who hears of it knows that what it has is worth nothing.
 *
 * Who may block on what:
 *   - Who submits may be held in the driver by whatever the program does in that context: a full
 * queue, the lock under which a kernel is loaded. So nobody waits for him. What the watchers have
 * to know of a program lies in atomic words before the driver gets the first part of it.
 *   - The near watcher copies in a stream of the program's context. That costs next to nothing, but
 * such a copy can stand behind the very wait that it shall see: streams share a few hardware queues
 * (CUDA_DEVICE_MAX_CONNECTIONS, 8 if unset), a queue goes in its order, and a context has locks in
 * the driver. So it holds no lock of ours while it is there, and nobody waits for it without end.
 *   - The far watcher looks at a clock. If the near one has been in the driver for too long, that
 * is a finding: the far one makes a context of its own, which shares neither queues nor locks with
 * the program's (50 to 170 ms and 524 MiB of the GPU's memory, so not before it is needed), and
 * does there what the near one should; windows and pads are mapped for the GPU, so in every context
 * of the process. When the near one comes back it gives the context back. If none can be made, for
 * want of memory say, teams fail by the clock.
 *   - All others who wait for a stream (a full queue of ours, drain, detach, close) read what the
 * watchers found out, and have bounds. If those pass the device is `lost`: from then on nothing is
 * unmapped or destroyed that a stuck stream may still touch, and the watchers stay. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/patience.h"
#include "base/thread.h"
#include "device/cuda/cuda_team.h"

#define MS                 UINT64_C(1000000)
#define PERIOD_NS          (10 * MS)
#define ASKED_PERIOD_NS    UINT64_C(20000)
#define CLOCK_PERIOD_NS    (50 * MS)
#define GRAPH_PERIOD_NS    (100 * MS)
#define HEARSAY_NS         (100 * MS) /* until all ranks have heard of a failure */
#define LET_GO_PATIENCE_NS (250 * MS) /* a look under a failed team */
#define LEAST_PATIENCE_NS  (100 * MS)
#define AGAIN_NS           (250 * MS) /* after no context could be made */
#define STOP_PATIENCE_NS   (2000 * MS)

enum {
    /* More signals than a captured program sends on one word, and not yet behind the first. */
    GRAPH_MOST = 0x7fff,
};

/* As waits: another library's, and one that nobody can see. */
#define IN_LIBRARY (UINT32_MAX - 1)
#define UNSEEN     UINT32_MAX

static uint32_t count_of(const struct zc_guard *guard, uint32_t slot)
{
    return atomic_load_explicit(&guard->seen[slot], memory_order_relaxed);
}

static bool is_under_way(const struct zc_cuda_team *team)
{
    return atomic_load_explicit(&team->guard->finished, memory_order_acquire) !=
           atomic_load_explicit(&team->entered, memory_order_acquire);
}

/* The index of slot `i`'s word in a view's words. */
static size_t word_index(const struct zc_guard *guard, uint32_t slot)
{
    return (guard->pad_head_bytes + slot * guard->slot_bytes) / sizeof(uint32_t);
}

static zc_cu_result read_words(const struct zc_cuda_watcher *w, void *to, zc_cu_pointer from,
                               size_t bytes)
{
    const struct zc_cuda_driver *driver = w->device->driver;
    const zc_cu_result result = driver->cuMemcpyDtoHAsync(to, from, bytes, w->stream);

    return result == ZC_CU_SUCCESS ? driver->cuStreamSynchronize(w->stream) : result;
}

static void write_words(const struct zc_cuda_watcher *w, zc_cu_pointer to, const void *from,
                        size_t bytes)
{
    const struct zc_cuda_driver *driver = w->device->driver;

    if (driver->cuMemcpyHtoDAsync(to, from, bytes, w->stream) == ZC_CU_SUCCESS)
        driver->cuStreamSynchronize(w->stream);
}

/* ---- Looking ---- */

/* Copies the pad and tells the guard how many programs have finished. False if that failed. */
static bool look(const struct zc_cuda_watcher *w, struct zc_cuda_team *team,
                 struct zc_cuda_marks *marks)
{
    struct zc_guard *guard = team->guard;
    struct zc_cuda_view *view = &team->views[w->index];
    uint32_t told = atomic_load_explicit(&guard->finished, memory_order_relaxed);
    const zc_cu_result result = read_words(w, view->words, (uintptr_t)guard->pad, guard->pad_bytes);

    atomic_store_explicit(&team->trouble, result, memory_order_release);
    if (result != ZC_CU_SUCCESS)
        return false;
    memcpy(marks, view->words, sizeof *marks);
    while ((int32_t)(marks->finished - told) > 0 &&
           !atomic_compare_exchange_weak_explicit(&guard->finished, &told, marks->finished,
                                                  memory_order_release, memory_order_relaxed))
        continue;
    return true;
}

/* Whether what was just read of that ticket is that ticket's; see struct zc_cuda_run. */
static bool is_oldest(const struct zc_cuda_team *team, uint32_t ticket)
{
    return atomic_load_explicit(&team->guard->finished, memory_order_acquire) == ticket - 1;
}

static uint32_t wait_count(const struct zc_cuda_team *team, uint32_t ticket)
{
    return atomic_load_explicit(&zc_cuda_run_of(team, ticket)->wait_count, memory_order_acquire);
}

static uint32_t slot_awaited(const struct zc_cuda_wait *wait)
{
    return atomic_load_explicit(&wait->awaited, memory_order_acquire) & UINT16_MAX;
}

static uint32_t value_awaited(const struct zc_cuda_wait *wait)
{
    return atomic_load_explicit(&wait->awaited, memory_order_acquire) & ~(uint32_t)UINT16_MAX;
}

/* The first of a program's waits, in their order, whose word has not come; the count if all have. A
 * peer's *done* is held up as this rank is if a third one has not come, and of that one *ready* is
 * missing, which is awaited before. */
static uint32_t first_missing(const struct zc_cuda_team *team, const struct zc_cuda_view *view,
                              uint32_t ticket)
{
    const uint32_t count = wait_count(team, ticket);
    uint32_t i = 0;

    for (; i < count; i++) {
        const struct zc_cuda_wait *wait = zc_cuda_wait_of(team, ticket, i);
        const uint32_t word = view->words[word_index(team->guard, slot_awaited(wait))];

        if ((int32_t)(word - value_awaited(wait)) < 0)
            break;
    }
    return i;
}

/* Whether the stream stands at that wait. What cannot be read counts as arrived. */
static bool is_reached(const struct zc_cuda_watcher *w, const struct zc_cuda_team *team,
                       uint32_t ticket, uint32_t wait, const struct zc_cuda_marks *marks)
{
    const struct zc_guard *guard = team->guard;
    const uint32_t before =
        atomic_load_explicit(&zc_cuda_wait_of(team, ticket, wait)->before, memory_order_acquire);
    const uint32_t index = before & UINT16_MAX, peer = index % guard->rank_count;
    const uint32_t slot = index - peer + guard->self; /* this rank's in the peer's pad */
    uint32_t word = 0;

    if (index == ZC_CUDA_NO_SIGNAL)
        return (int32_t)(marks->begun - ticket) >= 0;
    return guard->pads[peer] == NULL ||
           read_words(w, &word,
                      (uintptr_t)guard->pads[peer] + guard->pad_head_bytes +
                          slot * guard->slot_bytes,
                      sizeof word) != ZC_CU_SUCCESS ||
           (int32_t)(word - (before - index)) >= 0;
}

/* ---- Waiting ---- */

/* Tells the others for whom this rank waits, or that it does not. */
static void tell_wait(const struct zc_cuda_watcher *w, struct zc_cuda_team *team, uint32_t awaited)
{
    team->views[w->index].told = awaited != 0;
    write_words(w, zc_cuda_mark(team, offsetof(struct zc_cuda_marks, awaits)), &awaited,
                sizeof awaited);
}

/* Who looks, and at whose pads. */
struct look {
    const struct zc_cuda_watcher *watcher;
    const struct zc_guard *guard;
};

/* See zc_guard_absent(); as far as can be seen. What the rank awaited before has come. */
static uint32_t awaited_by(const void *data, uint32_t rank)
{
    const struct look *look = data;
    const struct zc_cuda_watcher *w = look->watcher;
    const struct zc_guard *guard = look->guard;
    struct zc_cuda_marks marks;
    uint32_t slot, word;

    if (guard->pads[rank] == NULL ||
        read_words(w, &marks, (uintptr_t)guard->pads[rank], sizeof marks) != ZC_CU_SUCCESS ||
        marks.awaits == 0)
        return ZCTA_NO_RANK;
    slot = marks.awaits & UINT16_MAX;
    if (slot >= guard->slot_count ||
        read_words(w, &word,
                   (uintptr_t)guard->pads[rank] + guard->pad_head_bytes + slot * guard->slot_bytes,
                   sizeof word) != ZC_CU_SUCCESS ||
        (int32_t)(word - (marks.awaits - slot)) >= 0)
        return ZCTA_NO_RANK;
    return slot % guard->rank_count;
}

/* Starts the clock unless it runs for this wait already. */
static void stand_at(struct zc_cuda_view *view, uint32_t ticket, uint32_t wait)
{
    if (view->since != 0 && view->ticket == ticket && view->wait == wait)
        return;
    view->said = view->said && view->ticket == ticket;
    view->ticket = ticket;
    view->wait = wait;
    view->since = zc_now_ns();
}

static uint64_t waited_ns(const struct zc_cuda_view *view)
{
    return view->looked > view->since ? view->looked - view->since : 0;
}

/* Once a program. */
static void say_late(const struct zc_cuda_team *team, struct zc_cuda_view *view, uint32_t peer)
{
    const struct zc_guard *guard = team->guard;
    const char *call =
        atomic_load_explicit(&zc_cuda_run_of(team, view->ticket)->call, memory_order_acquire);

    if (view->said || waited_ns(view) < zc_first_word_ns(guard->timeout_ns))
        return;
    view->said = true;
    if (is_oldest(team, view->ticket) && !zc_guard_failed(guard))
        guard->on_late(guard->data, peer, call, waited_ns(view));
}

/* Where another library waits, no slot tells for whom; but all ranks submit the same programs, and
 * mark where they begin one that such a library waits in, so whoever has not begun this one is
 * missing. ZCTA_NO_RANK if all that can be seen from here have. */
static uint32_t find_absent(const struct zc_cuda_watcher *w, const struct zc_cuda_team *team,
                            uint32_t ticket)
{
    const struct zc_guard *guard = team->guard;

    for (uint32_t i = 0; i < guard->rank_count; i++) {
        struct zc_cuda_marks marks;

        if (i != guard->self && guard->pads[i] != NULL &&
            read_words(w, &marks, (uintptr_t)guard->pads[i], sizeof marks) == ZC_CU_SUCCESS &&
            (int32_t)(marks.begun - ticket) < 0)
            return i;
    }
    return ZCTA_NO_RANK;
}

/* The other library waits in vain for nobody who can be seen from here. Ranks of other nodes may
 * see who it is: they get some more time to say so. */
static bool is_hopeless(const struct zc_cuda_team *team, const struct zc_cuda_view *view)
{
    const uint64_t timeout = team->guard->timeout_ns;
    const uint64_t copying =
        atomic_load_explicit(&zc_cuda_run_of(team, view->ticket)->copying_ns, memory_order_acquire);

    return zc_after_ns(zc_after_ns(view->since, timeout + timeout / 4), copying) <= view->looked;
}

static bool is_library_late(const struct zc_cuda_watcher *w, const struct zc_cuda_team *team,
                            uint32_t ticket, const struct zc_cuda_marks *marks, uint32_t *missing)
{
    struct zc_cuda_view *view = (struct zc_cuda_view *)&team->views[w->index];
    const uint64_t timeout = team->guard->timeout_ns;

    if ((int32_t)(marks->begun - ticket) < 0)
        return false;
    stand_at(view, ticket, IN_LIBRARY);
    if (waited_ns(view) < (view->said ? timeout : zc_first_word_ns(timeout)))
        return false;
    *missing = find_absent(w, team, ticket);
    if (*missing != ZCTA_NO_RANK)
        say_late(team, view, *missing);
    return waited_ns(view) >= timeout && is_oldest(team, ticket) &&
           (*missing != ZCTA_NO_RANK || is_hopeless(team, view));
}

/* The same of a wait of ours, at which the stream stands. */
static bool is_wait_late(const struct zc_cuda_watcher *w, struct zc_cuda_team *team,
                         uint32_t ticket, uint32_t wait, uint32_t awaited, uint32_t *missing)
{
    struct zc_cuda_view *view = &team->views[w->index];
    const struct zc_guard *guard = team->guard;
    const uint64_t timeout = guard->timeout_ns;

    if (view->told && (view->ticket != ticket || view->wait != wait))
        tell_wait(w, team, 0);
    stand_at(view, ticket, wait);
    if (waited_ns(view) < (view->told ? timeout : zc_first_word_ns(timeout)))
        return false;
    if (!view->told)
        tell_wait(w, team, awaited);
    *missing = zc_guard_absent(guard, (awaited & UINT16_MAX) % guard->rank_count, awaited_by,
                               &(struct look){w, guard});
    say_late(team, view, *missing);
    return waited_ns(view) >= timeout;
}

/* True if the oldest program waits in vain; *missing is the peer, or ZCTA_NO_RANK. Programs queued
 * behind it do not count: what they await cannot have come. */
static bool is_late(const struct zc_cuda_watcher *w, struct zc_cuda_team *team, uint32_t *missing)
{
    struct zc_cuda_view *view = &team->views[w->index];
    struct zc_cuda_marks marks;
    uint32_t ticket, wait, awaited;

    if (!look(w, team, &marks))
        return false;
    ticket = marks.finished + 1;
    if ((int32_t)(atomic_load_explicit(&team->entered, memory_order_acquire) - ticket) < 0)
        return false;
    if (atomic_load_explicit(&zc_cuda_run_of(team, ticket)->calls, memory_order_acquire))
        return is_library_late(w, team, ticket, &marks, missing);
    wait = first_missing(team, view, ticket);
    if (wait == wait_count(team, ticket) || !is_reached(w, team, ticket, wait, &marks)) {
        view->since = 0;
        if (view->told)
            tell_wait(w, team, 0);
        return false;
    }
    awaited =
        atomic_load_explicit(&zc_cuda_wait_of(team, ticket, wait)->awaited, memory_order_acquire);
    return is_oldest(team, ticket) && is_wait_late(w, team, ticket, wait, awaited, missing);
}

/* ---- Replays ---- */

/* A replay takes no ticket, and its values are the same each time. What tells of it are
 *   - the signals that lie with ranks which have not awaited them: their senders have a replay
 * under way. Who signals all others before it waits is seen by whoever has not come yet;
 *   - the mark of all who do not;
 *   - the traces that a program leaves where it puts a word back behind its last wait for it.
 * This rank's replay stands still if it is under way at every look and leaves no trace meanwhile;
 * and it waits in vain if at every look some rank had none under way. Which collective that is, and
 * who tells whom what in it, does not matter. */

static zc_cu_pointer graph_slot(const struct zc_guard *guard, uint32_t owner, uint32_t slot)
{
    return (uintptr_t)guard->pads[owner] + guard->pad_head_bytes + guard->graph_offset +
           slot * guard->slot_bytes;
}

/* A rank's words of captured programs, into the view. False if they cannot be seen. */
static bool read_graph_words(const struct zc_cuda_watcher *w, const struct zc_cuda_team *team,
                             uint32_t owner)
{
    const struct zc_guard *guard = team->guard;

    return read_words(w, team->views[w->index].words, graph_slot(guard, owner, 0),
                      guard->slot_count * guard->slot_bytes) == ZC_CU_SUCCESS;
}

/* Whether a captured program of this rank's has passed a wait since the last look. The traces are
 * taken away; if one is left meanwhile it may go with the one before, and then there was one. */
static bool has_moved(const struct zc_cuda_watcher *w, const struct zc_cuda_team *team)
{
    const struct zc_guard *guard = team->guard;
    const uint32_t *words = team->views[w->index].words, none = 0;
    const size_t stride = guard->slot_bytes / sizeof(uint32_t);
    bool moved = false;

    if (!read_graph_words(w, team, guard->self))
        return true; /* for all that is known */
    for (uint32_t i = 0; i < guard->slot_count; i++)
        if (words[i * stride + ZC_CUDA_TRACE_OFFSET / sizeof(uint32_t)] != 0) {
            write_words(w, graph_slot(guard, guard->self, i) + ZC_CUDA_TRACE_OFFSET, &none,
                        sizeof none);
            moved = true;
        }
    return moved;
}

/* Notes what lies with a rank, and whether that one is marked. False if it cannot be seen. */
static bool look_at_rank(const struct zc_cuda_watcher *w, const struct zc_cuda_team *team,
                         uint32_t rank)
{
    const struct zc_guard *guard = team->guard;
    const struct zc_cuda_view *view = &team->views[w->index];
    const size_t stride = guard->slot_bytes / sizeof(uint32_t);
    struct zc_cuda_marks marks;

    if (read_words(w, &marks, (uintptr_t)guard->pads[rank], sizeof marks) != ZC_CU_SUCCESS ||
        !read_graph_words(w, team, rank))
        return false;
    view->marked[rank] = marks.replaying != 0;
    view->came[rank] |= view->marked[rank];
    view->visited[rank] = false;
    for (uint32_t i = 0; i < guard->slot_count; i++)
        if (view->words[i * stride] != 0) {
            view->came[i % guard->rank_count] = true;
            view->visited[rank] = true;
        }
    return true;
}

/* Of the ranks without a replay under way one with which a signal lies. Where this rank is marked,
 * so are the others, and it may be one that nobody has come to yet. ZCTA_NO_RANK: none is seen to
 * have none under way, or this rank has not. */
static uint32_t find_not_replaying(const struct zc_cuda_watcher *w, const struct zc_cuda_team *team)
{
    const struct zc_guard *guard = team->guard;
    const struct zc_cuda_view *view = &team->views[w->index];
    uint32_t idle = ZCTA_NO_RANK;

    memset(view->came, 0, guard->rank_count * sizeof *view->came);
    memset(view->marked, 0, guard->rank_count * sizeof *view->marked);
    for (uint32_t i = 0; i < guard->rank_count; i++)
        if (!look_at_rank(w, team, i))
            return ZCTA_NO_RANK;
    for (uint32_t i = 0; i < guard->rank_count && view->came[guard->self]; i++) {
        if (view->came[i])
            continue;
        if (view->visited[i])
            return i;
        idle = idle == ZCTA_NO_RANK ? i : idle;
    }
    return view->marked[guard->self] ? idle : ZCTA_NO_RANK;
}

/* True if a replay has stood still for as long as a wait may take, and what its own copies may take
 * besides, and a rank was absent at every look. */
static bool is_replay_late(const struct zc_cuda_watcher *w, struct zc_cuda_team *team,
                           uint32_t *absent)
{
    struct zc_cuda_view *view = &team->views[w->index];
    const uint64_t timeout = team->guard->timeout_ns;
    const uint64_t copying = atomic_load_explicit(&team->replay_copying_ns, memory_order_relaxed);

    if (!atomic_load_explicit(&team->has_graphs, memory_order_relaxed) ||
        zc_time_left_ns(view->graph_look) > 0)
        return false;
    view->graph_look =
        zc_deadline_in(timeout / 4 < GRAPH_PERIOD_NS ? timeout / 4 : GRAPH_PERIOD_NS);
    *absent = has_moved(w, team) ? ZCTA_NO_RANK : find_not_replaying(w, team);
    if (*absent == ZCTA_NO_RANK || view->graph_deadline == 0)
        view->graph_deadline = zc_after_ns(zc_deadline_in(timeout), copying);
    return view->graph_deadline <= view->looked;
}

/* ---- Letting go ---- */

/* Each slot gets the newest value that is not so far ahead of what its oldest pending wait awaits
 * that it would read as behind it. What is awaited further ahead has its turn when that is gone. */
static void add_awaited(const struct zc_cuda_team *team, const struct zc_cuda_view *view,
                        uint32_t ticket)
{
    const uint32_t count = wait_count(team, ticket);

    for (uint32_t i = 0; i < count; i++) {
        const struct zc_cuda_wait *wait = zc_cuda_wait_of(team, ticket, i);
        const uint32_t slot = slot_awaited(wait), value = value_awaited(wait);
        uint32_t *word = &view->words[word_index(team->guard, slot)];

        if (!view->pending[slot])
            *word = view->oldest[slot] = value;
        else if ((int32_t)(value - view->oldest[slot]) > (int32_t)(*word - view->oldest[slot]))
            *word = value;
        view->pending[slot] = true;
    }
}

/* Whether the failure is old enough. */
static bool have_heard(struct zc_cuda_view *view)
{
    if (view->let_go_at == 0)
        view->let_go_at = zc_deadline_in(HEARSAY_NS);
    return zc_time_left_ns(view->let_go_at) == 0;
}

/* Writes to every slot what its pending waits await; where there are none, what was awaited last.
 */
static void let_go(const struct zc_cuda_watcher *w, const struct zc_cuda_team *team)
{
    const struct zc_guard *guard = team->guard;
    const struct zc_cuda_view *view = &team->views[w->index];
    const size_t graph = guard->graph_offset / sizeof(uint32_t);
    const uint32_t finished = atomic_load_explicit(&guard->finished, memory_order_acquire);
    const uint32_t entered = atomic_load_explicit(&team->entered, memory_order_acquire);

    memset(view->words, 0, guard->pad_bytes);
    memset(view->pending, 0, guard->slot_count * sizeof *view->pending);
    for (uint32_t i = 0; i < guard->slot_count; i++) {
        view->words[word_index(guard, i)] = zc_cuda_epoch(count_of(guard, i));
        view->words[graph + word_index(guard, i)] = zc_cuda_epoch(GRAPH_MOST);
    }
    for (uint32_t ticket = finished + 1; (int32_t)(entered - ticket) >= 0; ticket++)
        add_awaited(team, view, ticket);
    write_words(w, (uintptr_t)guard->pad + guard->pad_head_bytes,
                view->words + word_index(guard, 0), guard->pad_bytes - guard->pad_head_bytes);
}

/* ---- One team ---- */

/* The team's owner may be told something, which can take its time; false if it goes. */
static bool leave_driver(struct zc_cuda_watcher *w, const struct zc_cuda_team *team)
{
    bool stays;

    pthread_mutex_lock(&w->device->lock);
    w->since = 0;
    stays = !team->leaving;
    pthread_mutex_unlock(&w->device->lock);
    return stays;
}

static void tend(struct zc_cuda_watcher *w, struct zc_cuda_team *team)
{
    struct zc_guard *guard = team->guard;
    struct zc_cuda_marks marks;
    uint32_t missing = ZCTA_NO_RANK;

    if (zc_guard_failed(guard)) {
        if (is_under_way(team))
            look(w, team, &marks);
        if (have_heard(&team->views[w->index]))
            let_go(w, team);
        return;
    }
    if (!is_replay_late(w, team, &missing) && !(is_under_way(team) && is_late(w, team, &missing)))
        return;
    if (leave_driver(w, team))
        guard->on_missing(guard->data, missing);
}

/* Where nobody can look: the near watcher is held, and there is no other context. */
static void tend_blindly(struct zc_cuda_watcher *w, struct zc_cuda_team *team)
{
    struct zc_guard *guard = team->guard;
    struct zc_cuda_view *view = &team->views[w->index];
    char why[320];

    stand_at(view, atomic_load_explicit(&guard->finished, memory_order_acquire) + 1, UNSEEN);
    if (!leave_driver(w, team) || zc_guard_failed(guard) || !is_under_way(team) ||
        waited_ns(view) < guard->timeout_ns)
        return;
    snprintf(why, sizeof why,
             "the GPU has not said for %.3g s how far a collective has got, because other work "
             "holds up all that goes to it, and there was no room for a second CUDA context "
             "(about 0.5 GiB) to look with",
             (double)guard->timeout_ns / 1e9);
    guard->on_broken(guard->data, why);
}

static bool needs_watch(const struct zc_cuda_team *team)
{
    return (!team->leaving || team->guard->kept) &&
           (is_under_way(team) || atomic_load_explicit(&team->has_graphs, memory_order_relaxed));
}

/* The lock is held, but not while a team is visited: that one stays where it is meanwhile. */
static void visit_all(struct zc_cuda_watcher *w,
                      void (*visit)(struct zc_cuda_watcher *w, struct zc_cuda_team *team))
{
    struct zc_device *device = w->device;

    for (struct zc_cuda_team *team = device->teams; team != NULL; team = team->next) {
        if (!needs_watch(team))
            continue;
        team->visitors++;
        w->since = team->views[w->index].looked = zc_now_ns();
        pthread_mutex_unlock(&device->lock);
        visit(w, team);
        pthread_mutex_lock(&device->lock);
        w->since = 0;
        team->visitors--;
        if (team->leaving)
            pthread_cond_broadcast(&device->changed);
    }
}

static void nap(struct zc_device *device, uint64_t ns)
{
    const uint64_t until_ns = zc_deadline_in(ns);
    const struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000u),
                                   .tv_nsec = (long)(until_ns % 1000000000u)};

    pthread_cond_timedwait(&device->changed, &device->lock, &until);
}

static uint64_t period_of(const struct zc_device *device)
{
    return device->askers > 0 ? ASKED_PERIOD_NS : PERIOD_NS;
}

/* ---- The near watcher ---- */

/* While any thread captures a graph in the usual mode, the copies this thread makes are forbidden
 * to all threads, and would break that capture; it has a stream of its own, which nobody captures,
 * and says so. */
static zc_cu_result allow_copies(const struct zc_device *device)
{
    int mode = ZC_CU_STREAM_CAPTURE_MODE_RELAXED;

    return device->driver->cuThreadExchangeStreamCaptureMode(&mode);
}

static void end_watcher(struct zc_cuda_watcher *w)
{
    w->running = false;
    pthread_cond_broadcast(&w->device->changed);
    pthread_mutex_unlock(&w->device->lock);
}

static void *watch(void *data)
{
    struct zc_cuda_watcher *w = data;
    struct zc_device *device = w->device;
    zc_cu_result began = device->driver->cuCtxPushCurrent(w->context);

    if (began == ZC_CU_SUCCESS)
        began = allow_copies(device);
    pthread_mutex_lock(&device->lock);
    device->began = began;
    pthread_cond_broadcast(&device->changed);
    while (began == ZC_CU_SUCCESS && !device->closing) {
        visit_all(w, tend);
        nap(device, period_of(device));
    }
    end_watcher(w);
    return NULL;
}

/* ---- The far watcher ---- */

/* How long a look may take; before the quarter of a deadline has passed, no team needs a better
 * one. */
static uint64_t patience_ns(const struct zc_device *device)
{
    uint64_t least = UINT64_MAX;

    for (const struct zc_cuda_team *team = device->teams; team != NULL; team = team->next) {
        const uint64_t quarter = team->guard->timeout_ns / 4;
        const uint64_t wanted = zc_guard_failed(team->guard)  ? LET_GO_PATIENCE_NS
                                : quarter > LEAST_PATIENCE_NS ? quarter
                                                              : LEAST_PATIENCE_NS;

        if (needs_watch(team) && wanted < least)
            least = wanted;
    }
    return least;
}

/* The near watcher has been in the driver for this long; 0: it is not there. */
static uint64_t held_ns(const struct zc_device *device)
{
    const uint64_t since = device->watchers[ZC_CUDA_NEAR].since;

    return since == 0 ? 0 : zc_now_ns() - since;
}

static bool is_needed(const struct zc_device *device)
{
    const uint64_t held = held_ns(device);

    return !device->closing && held > 0 && held > patience_ns(device);
}

static void close_context(struct zc_cuda_watcher *w)
{
    const struct zc_cuda_driver *driver = w->device->driver;

    if (w->stream != NULL)
        driver->cuStreamDestroy(w->stream);
    if (w->context != NULL)
        driver->cuCtxDestroy(w->context);
    w->stream = NULL;
    w->context = NULL;
}

/* Current to this thread from then on. */
static bool open_context(struct zc_cuda_watcher *w)
{
    const struct zc_cuda_driver *driver = w->device->driver;

    if (driver->cuCtxCreate(&w->context, 0, w->device->gpu) == ZC_CU_SUCCESS &&
        allow_copies(w->device) == ZC_CU_SUCCESS &&
        driver->cuStreamCreate(&w->stream, ZC_CU_STREAM_NON_BLOCKING) == ZC_CU_SUCCESS)
        return true;
    close_context(w);
    return false;
}

static void stand_in(struct zc_cuda_watcher *w)
{
    struct zc_device *device = w->device;

    while (is_needed(device)) {
        visit_all(w, tend);
        nap(device, period_of(device));
    }
}

static void *watch_the_watcher(void *data)
{
    struct zc_cuda_watcher *w = data;
    struct zc_device *device = w->device;

    pthread_mutex_lock(&device->lock);
    while (!device->closing) {
        bool opened;

        if (!is_needed(device)) {
            nap(device, CLOCK_PERIOD_NS);
            continue;
        }
        pthread_mutex_unlock(&device->lock);
        opened = open_context(w);
        pthread_mutex_lock(&device->lock);
        if (opened) {
            stand_in(w);
            pthread_mutex_unlock(&device->lock);
            close_context(w);
            pthread_mutex_lock(&device->lock);
        } else {
            visit_all(w, tend_blindly);
            nap(device, AGAIN_NS);
        }
    }
    end_watcher(w);
    return NULL;
}

/* ---- Starting and stopping ---- */

static zcta_status start_thread(struct zc_cuda_watcher *w, void *(*function)(void *data))
{
    int error;

    w->running = true;
    error = zc_thread_start(&w->thread, function, w);
    w->started = error == 0;
    if (w->started)
        return ZCTA_OK;
    w->running = false;
    return zc_fail(w->device->diag, ZCTA_ERR_SYSTEM, "pthread_create", error,
                   "cannot start a watchdog thread: %s", strerror(error));
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
    struct zc_cuda_watcher *near = &device->watchers[ZC_CUDA_NEAR];
    struct zc_cuda_watcher *far = &device->watchers[ZC_CUDA_FAR];
    zcta_status status;

    *near = (struct zc_cuda_watcher){.device = device,
                                     .index = ZC_CUDA_NEAR,
                                     .context = device->context,
                                     .stream = device->stream};
    *far = (struct zc_cuda_watcher){.device = device, .index = ZC_CUDA_FAR};
    device->began = ZC_CU_ERROR_NOT_READY;
    status = start_thread(near, watch);
    if (status == ZCTA_OK)
        status = zc_cuda_status(device->driver, device->diag, await_begin(device), "zcta_init",
                                "starting the watchdog thread");
    if (status == ZCTA_OK)
        status = start_thread(far, watch_the_watcher);
    return status;
}

void zc_cuda_watchdog_stop(struct zc_device *device)
{
    const uint64_t deadline = zc_deadline_in(STOP_PATIENCE_NS);
    bool running = true;

    pthread_mutex_lock(&device->lock);
    device->closing = true;
    pthread_cond_broadcast(&device->changed);
    while (running && zc_time_left_ns(deadline) > 0) {
        running = device->watchers[ZC_CUDA_NEAR].running || device->watchers[ZC_CUDA_FAR].running;
        if (running)
            nap(device, zc_time_left_ns(deadline));
    }
    pthread_mutex_unlock(&device->lock);
    if (running)
        atomic_store_explicit(&device->lost, true, memory_order_release);
    for (uint32_t i = 0; i < ZC_CUDA_WATCHERS; i++)
        if (device->watchers[i].started && !running)
            pthread_join(device->watchers[i].thread, NULL);
        else if (device->watchers[i].started)
            pthread_detach(device->watchers[i].thread);
}

void zc_cuda_ask(struct zc_device *device, bool begin)
{
    pthread_mutex_lock(&device->lock);
    device->askers += begin ? 1 : UINT32_MAX;
    pthread_cond_broadcast(&device->changed);
    pthread_mutex_unlock(&device->lock);
}
