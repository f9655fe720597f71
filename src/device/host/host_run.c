/* Running programs on the CPU: the lanes of a program take turns in one thread.
 *
 * Who waits for what: a WAIT ends when its slot's value has counted far enough; the value is stored
 * by the peer's SIGNAL. A thread that goes to sleep first arms every slot it is blocked on, then
 * looks at the values once more; a signaller stores the value, then looks whether the slot is
 * armed. All four accesses are sequentially consistent, so one of the two sees the other, and the
 * bell, read before arming, keeps the wake-up from being missed.
 *
 * Whether two ranks make the same call is seen in two ways, both beside what is read anyway.
 *
 * A signal leaves its call's digest in the slot, before the value that counts it; the waiter
 * compares after it has seen the value. It looks for signal n, and the sender may have run ahead
 * and sent later ones: nobody ends a collective before every other rank has begun it, so that a
 * sender is in the awaited call or in the one after it, and has sent as many signals more as these
 * two have on that slot, mostly one. (Releases run ahead by as many as there are plans.) So a slot
 * holds the digests of the last four. That of n is overwritten by signal n + 4, whose digest is
 * stored with release after the value n + 3: a waiter that reads it, with acquire, and then finds a
 * value below n + 3 has read its own. Otherwise it compares nothing; the call's other signals tell.
 *
 * Ranks whose calls differ so much that they await each other's signals on different slots compare
 * none. So a rank that begins a program writes into the head of its own pad which one it is, and
 * what it gives; and one that is about to sleep looks there at the rank it waits for. Two that fall
 * asleep at the same moment may miss each other's; they look again when they are due to speak up.
 */
#include "device/host/host.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/patience.h"

enum { MAX_LANES = 16, SPINS_PER_CLOCK = 64 };

struct run {
    struct zc_device *device;
    const struct zc_program *program;
    uint32_t ticket;
    uint32_t next[MAX_LANES];
    bool running[MAX_LANES];
    bool said;       /* that it waits */
    bool mismatched; /* a signal came that is of another call */
};

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

void zc_host_futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t deadline, bool shared)
{
    const struct timespec until = {.tv_sec = (time_t)(deadline / 1000000000u),
                                   .tv_nsec = (long)(deadline % 1000000000u)};

    /* WAIT_BITSET, because its timeout is absolute, on the monotonic clock. */
    syscall(SYS_futex, word, FUTEX_WAIT_BITSET | (shared ? 0 : FUTEX_PRIVATE_FLAG), value,
            deadline / 1000000000u > INT_MAX ? NULL : &until, NULL, FUTEX_BITSET_MATCH_ANY);
}

void zc_host_futex_wake(_Atomic uint32_t *word, bool shared)
{
    syscall(SYS_futex, word, FUTEX_WAKE | (shared ? 0 : FUTEX_PRIVATE_FLAG), INT_MAX, NULL, NULL,
            0);
}

/* ---- Signals ---- */

static void ring(struct zc_host_pad *pad)
{
    atomic_fetch_add_explicit(&pad->bell, 1, memory_order_seq_cst);
    zc_host_futex_wake(&pad->bell, true);
}

static void raise_signal(const struct zc_program *program, const struct zc_op *op)
{
    struct zc_host_slot *slot = op->flag.word;
    const uint32_t number = zc_op_number(op);

    /* Pairs with is_same_call(). */
    atomic_store_explicit(&slot->digests[number % ZC_HOST_DIGESTS], program->digest,
                          memory_order_release);
    /* Also the release that publishes this thread's copies; pairs with reached(). */
    atomic_store_explicit(&slot->value, number, memory_order_seq_cst);
    if (atomic_load_explicit(&slot->armed, memory_order_seq_cst) != 0 &&
        atomic_exchange_explicit(&slot->armed, 0, memory_order_seq_cst) != 0)
        ring(op->flag.pad);
}

/* Compared cyclically: the counters may wrap. Pairs with the store in raise_signal(). */
static bool reached(const struct zc_op *op)
{
    struct zc_host_slot *slot = op->flag.word;
    const uint32_t value = atomic_load_explicit(&slot->value, memory_order_seq_cst);

    const uint32_t seen = atomic_load_explicit(op->flag.count, memory_order_relaxed);

    return (int32_t)(value - (seen + 1)) >= 0;
}

/* Whether signal `number`, which has come, belongs to a call like this one, as far as that can be
 * seen. Pairs with the release in raise_signal(). */
static bool is_same_call(const struct zc_program *program, const struct zc_op *op, uint32_t number)
{
    struct zc_host_slot *slot = op->flag.word;
    const uint64_t digest =
        atomic_load_explicit(&slot->digests[number % ZC_HOST_DIGESTS], memory_order_acquire);
    const uint32_t value = atomic_load_explicit(&slot->value, memory_order_relaxed);

    return digest == program->digest || value - number >= ZC_HOST_DIGESTS - 1;
}

/* ---- What the others are in ---- */

static uint64_t check_of(uint64_t digest, uint64_t ticket)
{
    return digest + (ticket + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

/* Tells the others which call this rank is in. */
static void tell_call(const struct zc_program *program, uint32_t ticket)
{
    struct zc_host_call *call = &((struct zc_host_pad *)program->guard->pad)->call;

    for (uint32_t i = 0; i < ZC_CALL_NUMBERS; i++)
        atomic_store_explicit(&call->numbers[i], program->numbers.at[i], memory_order_relaxed);
    atomic_store_explicit(&call->ticket, ticket, memory_order_relaxed);
    atomic_store_explicit(&call->check, check_of(program->digest, ticket), memory_order_relaxed);
}

/* What rank `index` gives in the call of that ticket; false if it is in another one, or just writes
 * what it is in. */
static bool read_call(const struct zc_guard *guard, uint32_t index, uint32_t ticket,
                      struct zc_call_numbers *numbers)
{
    struct zc_host_pad *pad = guard->pads[index];
    struct zc_host_call *call = &pad->call;

    for (uint32_t i = 0; i < ZC_CALL_NUMBERS; i++)
        numbers->at[i] = atomic_load_explicit(&call->numbers[i], memory_order_relaxed);
    return atomic_load_explicit(&call->ticket, memory_order_relaxed) == ticket &&
           atomic_load_explicit(&call->check, memory_order_relaxed) ==
               check_of(zc_call_digest(numbers), ticket);
}

/* Fails the team, with what all ranks give that can be seen to be in this call. Once a team, so it
 * may allocate. */
static void report_mismatch(struct run *run, uint32_t peer)
{
    const struct zc_guard *guard = run->program->guard;
    const uint32_t count = guard->rank_count;
    struct zc_call_numbers *numbers = calloc(count, sizeof *numbers);
    const struct zc_call_numbers **calls = calloc(count, sizeof *calls);

    for (uint32_t i = 0; i < count && numbers != NULL && calls != NULL; i++)
        if (read_call(guard, i, run->ticket, &numbers[i]))
            calls[i] = &numbers[i];
    run->mismatched = true;
    guard->on_mismatch(guard->data, peer, numbers != NULL ? calls : NULL);
    free(calls);
    free(numbers);
}

/* ---- Lanes ---- */

static bool lane_ended(const struct run *run, uint32_t lane)
{
    return run->next[lane] == run->program->lane_begin[lane + 1];
}

static const struct zc_op *lane_op(const struct run *run, uint32_t lane)
{
    return &run->program->ops[run->next[lane]];
}

/* Performs the lane's next op if that needs no waiting. */
static bool step(struct run *run, uint32_t lane)
{
    const struct zc_op *op = lane_op(run, lane);
    bool same = true;

    switch (op->kind) {
    case ZC_OP_COPY:
        for (uint32_t row = 0; row < op->copy.rows; row++)
            zc_host_copy((char *)op->copy.to + row * op->copy.stride,
                         (const char *)op->copy.from + row * op->copy.stride, op->copy.bytes,
                         op->copy.streamed);
        break;
    case ZC_OP_SIGNAL:
        raise_signal(run->program, op);
        break;
    case ZC_OP_WAIT:
        if (!reached(op))
            return false;
        same = is_same_call(run->program, op, zc_op_number(op));
        break;
    case ZC_OP_FORK:
        run->running[op->peer] = true;
        break;
    case ZC_OP_JOIN:
        if (!lane_ended(run, op->peer))
            return false;
        break;
    case ZC_OP_NETWORK:
        assert(false && "zc_host_bind() refuses such programs");
        return false;
    }
    run->next[lane]++;
    if (!same)
        report_mismatch(run, op->peer);
    return true;
}

/* Once the team has failed a program moves and tells nothing any more, but what it waits for may
 * have come: then it has done all that it was to do. */
static bool may_step(const struct run *run, uint32_t lane)
{
    const enum zc_op_kind kind = lane_op(run, lane)->kind;

    return !zc_guard_failed(run->program->guard) || (kind != ZC_OP_COPY && kind != ZC_OP_SIGNAL);
}

/* Runs every lane as far as it goes; true if anything moved. */
static bool advance(struct run *run)
{
    bool moved = false;

    for (uint32_t lane = 0; lane < run->program->lane_count; lane++)
        while (run->running[lane] && !lane_ended(run, lane) && may_step(run, lane) &&
               step(run, lane))
            moved = true;
    return moved;
}

/* ---- Waiting ---- */

static const struct zc_op *blocked_wait(const struct run *run, uint32_t lane)
{
    if (!run->running[lane] || lane_ended(run, lane) || lane_op(run, lane)->kind != ZC_OP_WAIT)
        return NULL;
    return lane_op(run, lane);
}

/* Whether waiting is over: some lane can go on, or the team has failed. */
static bool released(const struct run *run)
{
    for (uint32_t lane = 0; lane < run->program->lane_count; lane++) {
        const struct zc_op *op = blocked_wait(run, lane);

        if (op != NULL && reached(op))
            return true;
    }
    return zc_guard_failed(run->program->guard);
}

static void arm(const struct run *run, uint32_t value)
{
    for (uint32_t lane = 0; lane < run->program->lane_count; lane++) {
        const struct zc_op *op = blocked_wait(run, lane);

        if (op != NULL)
            atomic_store_explicit(&((struct zc_host_slot *)op->flag.word)->armed, value,
                                  memory_order_seq_cst);
    }
}

/* Looks closely at first; then the awaited rank may be waiting for this very core, and every look
 * is followed by a yield. */
static bool spin(const struct run *run)
{
    const uint64_t begin = zc_now_ns();
    uint64_t passed = 0;

    do {
        const bool closely = passed < run->device->look_ns;

        for (uint32_t i = 0; i < (closely ? SPINS_PER_CLOCK : 1); i++) {
            if (released(run))
                return true;
            relax();
        }
        if (!closely)
            sched_yield();
        passed = zc_now_ns() - begin;
    } while (passed < run->device->spin_ns);
    return released(run);
}

/* What the first blocked lane waits for. */
static const struct zc_op *awaited(const struct run *run)
{
    const struct zc_op *op = NULL;

    for (uint32_t lane = 0; lane < run->program->lane_count && op == NULL; lane++)
        op = blocked_wait(run, lane);
    assert(op != NULL && "lane 0 has not ended, and cannot go on");
    return op;
}

/* Tells the others for whom this rank waits. */
static void tell_wait(const struct run *run)
{
    const struct zc_guard *guard = run->program->guard;
    struct zc_host_pad *pad = guard->pad;
    const struct zc_op *op = awaited(run);
    const size_t place = (uintptr_t)op->flag.word - (uintptr_t)pad - guard->pad_head_bytes;
    const uint32_t number = atomic_load_explicit(op->flag.count, memory_order_relaxed) + 1;

    atomic_store_explicit(&pad->awaits, (uint64_t)number << 32 | (place / guard->slot_bytes + 1),
                          memory_order_release);
}

/* The rank for which that one waits; ZCTA_NO_RANK if for nobody. What it awaited before has come.
 */
static uint32_t awaited_by(const void *data, uint32_t rank)
{
    const struct zc_guard *guard = data;
    struct zc_host_pad *pad = guard->pads[rank];
    const uint64_t awaits = atomic_load_explicit(&pad->awaits, memory_order_acquire);
    const uint32_t slot = (uint32_t)awaits - 1, number = (uint32_t)(awaits >> 32);
    const struct zc_host_slot *word;

    if (awaits == 0 || slot >= guard->slot_count)
        return ZCTA_NO_RANK;
    word = (void *)((char *)pad + guard->pad_head_bytes + slot * guard->slot_bytes);
    return (int32_t)(atomic_load_explicit(&word->value, memory_order_acquire) - number) >= 0
               ? ZCTA_NO_RANK
               : slot % guard->rank_count;
}

/* Looks what the awaited rank is in, speaks up when it is time for that, and gives up at the
 * deadline. Returns until when to sleep. */
static uint64_t be_patient(struct run *run, uint64_t start, uint64_t waited)
{
    struct zc_guard *guard = run->program->guard;
    const uint64_t first_word = zc_first_word_ns(guard->timeout_ns);
    const uint32_t peer = awaited(run)->peer;
    struct zc_call_numbers numbers;

    if (read_call(guard, peer, run->ticket, &numbers) &&
        zc_call_digest(&numbers) != run->program->digest)
        report_mismatch(run, peer);
    else if (waited >= guard->timeout_ns)
        guard->on_missing(guard->data, zc_guard_absent(guard, peer, awaited_by, guard));
    else if (waited >= first_word && !run->said) {
        run->said = true;
        guard->on_late(guard->data, zc_guard_absent(guard, peer, awaited_by, guard),
                       run->program->call, waited);
    }
    return zc_after_ns(start, run->said ? guard->timeout_ns : first_word);
}

/* Every lane is blocked: look for a while, then sleep until one is not, or until the deadline. */
static void block(struct run *run)
{
    struct zc_host_pad *pad = run->program->guard->pad;
    uint64_t start;

    if (spin(run))
        return;
    start = zc_now_ns();
    for (;;) {
        const uint32_t bell = atomic_load_explicit(&pad->bell, memory_order_seq_cst);
        const uint64_t waited = zc_now_ns() - start; /* before the look, which may find it over */
        uint64_t until;

        arm(run, 1);
        if (released(run))
            break;
        tell_wait(run);
        until = be_patient(run, start, waited);
        zc_host_futex_wait(&pad->bell, bell, until, true);
    }
    arm(run, 0);
    atomic_store_explicit(&pad->awaits, 0, memory_order_release);
}

/* ---- Turns ---- */

/* A program waits for those before it, and drain() for all of them. While the team is well they end
 * once their streams have reached them, as the user's callbacks let them, and no wait in them is
 * longer than the timeout. Once the team has failed nobody waits for a turn any more, and drain()
 * takes back what no stream has reached. So this waits for the bell alone: finish() rings it, and
 * wake(), which comes after the failure can be seen. */

static bool turn_came(struct zc_guard *guard, uint32_t count, bool though_failed)
{
    return zc_guard_counted(guard, count) || (!though_failed && zc_guard_failed(guard));
}

/* Whether a sleeper is there and whether it can go on are looked at in an order that is the same
 * for all, so one of the two sides sees the other. */
void zc_host_await_turn(struct zc_guard *guard, uint32_t count, bool though_failed)
{
    if (turn_came(guard, count, though_failed))
        return;
    atomic_fetch_add_explicit(&guard->turn_sleepers, 1, memory_order_seq_cst);
    for (;;) {
        const uint32_t bell = atomic_load_explicit(&guard->turn_bell, memory_order_seq_cst);

        if (turn_came(guard, count, though_failed))
            break;
        zc_host_futex_wait(&guard->turn_bell, bell, UINT64_MAX, false);
    }
    atomic_fetch_sub_explicit(&guard->turn_sleepers, 1, memory_order_seq_cst);
}

static void ring_turn(struct zc_guard *guard)
{
    if (atomic_load_explicit(&guard->turn_sleepers, memory_order_seq_cst) == 0)
        return;
    atomic_fetch_add_explicit(&guard->turn_bell, 1, memory_order_seq_cst);
    zc_host_futex_wake(&guard->turn_bell, false);
}

void zc_host_finish(struct zc_guard *guard, uint32_t count)
{
    atomic_fetch_add_explicit(&guard->finished, count, memory_order_seq_cst);
    ring_turn(guard);
}

zcta_status zc_host_run(struct zc_device *device, const struct zc_program *program, uint32_t ticket)
{
    struct zc_guard *guard = program->guard;
    struct run run = {
        .device = device, .program = program, .ticket = ticket, .running = {[0] = true}};
    bool over = false;

    assert(program->lane_count <= MAX_LANES);
    for (uint32_t lane = 0; lane < program->lane_count; lane++)
        run.next[lane] = program->lane_begin[lane];
    zc_host_await_turn(guard, ticket - 1, false);
    if (!zc_guard_failed(guard))
        tell_call(program, ticket);
    while (!lane_ended(&run, 0) && !over) {
        over = zc_guard_failed(guard); /* before the look, which may find that all has come */
        if (!advance(&run) && !over)
            block(&run);
    }
    return lane_ended(&run, 0) && !run.mismatched
               ? ZCTA_OK
               : (zcta_status)atomic_load_explicit(&guard->failed, memory_order_acquire);
}

void zc_host_wake(struct zc_device *device, struct zc_guard *guard)
{
    (void)device;
    ring(guard->pad);
    ring_turn(guard);
}

zcta_status zc_host_attach(struct zc_device *device, struct zc_guard *guard)
{
    (void)device;
    (void)guard;
    return ZCTA_OK;
}

void zc_host_detach(struct zc_device *device, struct zc_guard *guard)
{
    (void)device;
    (void)guard;
}

/* No library but this one moves the host's memory. */
zcta_status zc_host_bind(struct zc_device *device, struct zc_program *program)
{
    for (uint32_t i = 0; i < program->lane_begin[program->lane_count]; i++)
        if (program->ops[i].kind == ZC_OP_NETWORK)
            return zc_fail(device->diag, ZCTA_ERR_UNSUPPORTED, program->call, 0,
                           "the plan of this %s exchanges over a network, which the host device "
                           "has no library for; use GPUs, or a team whose ranks are on one machine",
                           program->call);
    return ZCTA_OK;
}
