/* Inside the host device: programs run by hand, without contexts and teams. Counters wrap, sleepers
 * are woken, lanes run side by side, a failed guard ends everything. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "device/host/host.h"
#include "engine/program.h"
#include "support_plans.h"
#include "support_ranks.h"

enum { MAX_RANKS = 5, MAX_BYTES = 100000 };

struct rig;

/* One rank, without anything around its device. */
struct rank {
    struct rig *rig;
    uint32_t self;
    struct zc_diag diag;
    struct zc_device *device;
    struct zc_guard guard;
    struct zc_program *program;
    unsigned char *send, *recv, *scratch, *pad;
    void *pads[MAX_RANKS];
    _Atomic uint32_t sent[MAX_RANKS * ZC_CHANNELS], seen[MAX_RANKS * ZC_CHANNELS];
    _Atomic uint32_t missing; /* 1 + the peer that on_missing() was told */
    pthread_t thread;
};

struct rig {
    uint32_t count, calls;
    size_t bytes;
    bool in_place;
    uint32_t delay_us; /* longest pause before a call */
    struct rank ranks[MAX_RANKS];
};

static void on_missing(void *data, uint32_t peer)
{
    struct rank *rank = data;

    atomic_store(&rank->missing, 1 + peer);
    atomic_store_explicit(&rank->guard.failed, ZCTA_ERR_TIMEOUT, memory_order_release);
}

static void on_late(void *data, uint32_t peer, const char *call, uint64_t waited_ns)
{
    (void)data, (void)peer, (void)call, (void)waited_ns;
}

static void *aligned_zeroed(size_t bytes)
{
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);

    EXPECT(memory != NULL);
    return memset(memory, 0, (bytes + 63) / 64 * 64);
}

static void open_rank(struct rig *rig, uint32_t self)
{
    struct rank *rank = &rig->ranks[self];
    const struct zc_device_params params = {
        .diag = &rank->diag, .local_rank = self, .local_rank_count = rig->count};

    rank->rig = rig;
    rank->self = self;
    zc_diag_init(&rank->diag);
    EXPECT(zc_device_host.open(&params, &rank->device) == ZCTA_OK);
    rank->pad = aligned_zeroed(
        zc_pad_bytes(rig->count, sizeof(struct zc_host_slot), sizeof(struct zc_host_pad)));
    rank->guard = (struct zc_guard){.pad = rank->pad,
                                    .pads = rank->pads,
                                    .self = self,
                                    .pad_head_bytes = sizeof(struct zc_host_pad),
                                    .slot_bytes = sizeof(struct zc_host_slot),
                                    .slot_count = rig->count * ZC_CHANNELS,
                                    .rank_count = rig->count,
                                    .timeout_ns = UINT64_C(20000000000),
                                    .on_missing = on_missing,
                                    .on_late = on_late,
                                    .data = rank};
    rank->send = aligned_zeroed(MAX_BYTES);
    rank->recv = aligned_zeroed((size_t)MAX_BYTES * rig->count);
    rank->scratch = aligned_zeroed((size_t)2 * MAX_BYTES);
}

static void make_rig(struct rig *rig, uint32_t count)
{
    memset(rig, 0, sizeof *rig);
    rig->count = count;
    for (uint32_t i = 0; i < count; i++)
        open_rank(rig, i);
}

static void free_rig(struct rig *rig)
{
    for (uint32_t i = 0; i < rig->count; i++) {
        struct rank *rank = &rig->ranks[i];

        zc_program_destroy(rank->program);
        zc_device_host.close(rank->device);
        zc_diag_destroy(&rank->diag);
        free(rank->send);
        free(rank->recv);
        free(rank->scratch);
        free(rank->pad);
    }
}

static zcta_status try_bind(struct rank *rank, const struct zc_plan *plan)
{
    struct rig *rig = rank->rig;
    void *recv[MAX_RANKS], *scratch[MAX_RANKS];
    const struct zc_binding binding = {.send = rig->in_place ? rank->recv + rank->self * rig->bytes
                                                             : rank->send,
                                       .recv = recv,
                                       .scratch = scratch,
                                       .pads = rank->pads,
                                       .sent = rank->sent,
                                       .seen = rank->seen,
                                       .slot_bytes = sizeof(struct zc_host_slot),
                                       .pad_head_bytes = sizeof(struct zc_host_pad)};

    for (uint32_t i = 0; i < rig->count; i++) {
        recv[i] = rig->ranks[i].recv;
        scratch[i] = rig->ranks[i].scratch;
        rank->pads[i] = rig->ranks[i].pad;
    }
    zc_program_destroy(rank->program);
    EXPECT(zc_program_make(plan, &binding, &rank->guard, &rank->program) == ZCTA_OK);
    return zc_device_host.bind(rank->device, rank->program);
}

static void bind(struct rank *rank, const struct zc_plan *plan)
{
    EXPECT(try_bind(rank, plan) == ZCTA_OK);
}

/* Gives every rank the program of an algorithm, with two lanes where it can use them. */
static void bind_algorithm(struct rig *rig, const struct zc_algorithm *algorithm, size_t bytes,
                           bool in_place)
{
    const struct zc_layout layout = even_layout(usual_collective(algorithm), rig->count, bytes, 0);
    struct zc_request request = usual_request(algorithm, &layout, in_place);

    rig->bytes = bytes;
    rig->in_place = in_place;
    for (request.rank = 0; request.rank < rig->count; request.rank++) {
        struct zc_plan *plan = NULL;

        EXPECT(zc_plan_make(&request, &plan) == ZCTA_OK);
        bind(&rig->ranks[request.rank], plan);
        zc_plan_destroy(plan);
    }
}

static void *run_calls(void *data)
{
    struct rank *rank = data;
    const struct rig *rig = rank->rig;
    unsigned char *own = rig->in_place ? rank->recv + rank->self * rig->bytes : rank->send;
    uint32_t seed = rank->self * 7919 + 1;

    for (uint32_t call = 0; call < rig->calls; call++) {
        seed = seed * 1664525 + 1013904223;
        if (rig->delay_us > 0 && seed >> 30 == 0)
            usleep((seed >> 8) % rig->delay_us);
        model_fill(own, call, rank->self, rig->bytes);
        EXPECT(zc_device_host.submit(rank->device, rank->program, NULL) == ZCTA_OK);
        EXPECT(atomic_load(&rank->guard.failed) == ZCTA_OK);
        EXPECT(model_wrong(rank->recv, call, rig->count, rig->bytes) == 0);
    }
    return NULL;
}

static void run_rig(struct rig *rig, uint32_t calls)
{
    rig->calls = calls;
    for (uint32_t i = 0; i < rig->count; i++)
        EXPECT(pthread_create(&rig->ranks[i].thread, NULL, run_calls, &rig->ranks[i]) == 0);
    for (uint32_t i = 0; i < rig->count; i++)
        EXPECT(pthread_join(rig->ranks[i].thread, NULL) == 0);
}

/* ---- Counters ---- */

static struct zc_host_slot *slot_of(struct rank *rank, size_t index)
{
    return (struct zc_host_slot *)(rank->pad + sizeof(struct zc_host_pad)) + index;
}

/* As if 2^32 - 4 calls had been made. */
static void age(struct rig *rig)
{
    for (uint32_t i = 0; i < rig->count; i++)
        for (size_t index = 0; index < (size_t)rig->count * ZC_CHANNELS; index++) {
            atomic_store(&rig->ranks[i].sent[index], UINT32_MAX - 3);
            atomic_store(&rig->ranks[i].seen[index], UINT32_MAX - 3);
            atomic_store(&slot_of(&rig->ranks[i], index)->value, UINT32_MAX - 3);
        }
}

static void counters_wrap_around(void **state)
{
    const struct zc_algorithm *const algorithm = &zc_direct_push;
    struct rig rig;

    (void)state;
    for (int variant = 0; variant < 4; variant++) {
        make_rig(&rig, 4);
        bind_algorithm(&rig, algorithm, variant & 1 ? 5000 : 10, variant & 2);
        age(&rig);
        for (uint32_t i = 0; i < rig.count; i++) {
            /* The order of a team's programs is counted alike. */
            atomic_store(&rig.ranks[i].guard.submitted, UINT32_MAX - 2);
            atomic_store(&rig.ranks[i].guard.finished, UINT32_MAX - 2);
            rig.ranks[i].device->spin_ns = variant & 1 ? 0 : 1000;
        }
        run_rig(&rig, 20);
        for (uint32_t i = 0; i < rig.count; i++) {
            assert_int_equal(atomic_load(&slot_of(&rig.ranks[i], (i + 1) % 4)->value), 16);
            assert_int_equal(atomic_load(&rig.ranks[i].guard.finished), 17);
        }
        free_rig(&rig);
    }
}

/* ---- Sleeping ---- */

static void nobody_sleeps_through_a_signal(void **state)
{
    static const struct {
        const struct zc_algorithm *algorithm;
        size_t bytes;
        uint32_t delay_us, calls;
    } cases[] = {{&zc_direct_push, 8, 0, 2000},
                 {&zc_direct_push, 8, 300, 500},
                 {&zc_direct_push, 60000, 100, 100}};
    struct rig rig;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (uint32_t count = 2; count <= MAX_RANKS; count += 3) {
            make_rig(&rig, count);
            for (uint32_t rank = 0; rank < count; rank++)
                rig.ranks[rank].device->spin_ns = 0;
            rig.delay_us = cases[i].delay_us;
            bind_algorithm(&rig, cases[i].algorithm, cases[i].bytes, false);
            run_rig(&rig, cases[i].calls);
            free_rig(&rig);
        }
}

/* ---- Lanes ---- */

/* An empty plan of two lanes, to be filled by hand. */
static struct zc_plan *hand_made(uint32_t self, const struct zc_layout *layout)
{
    struct zc_request request = usual_request(&zc_direct_push, layout, false);
    struct zc_plan *plan = NULL;

    request.rank = self;
    EXPECT(zc_plan_make(&request, &plan) == ZCTA_OK);
    plan->step_count = 0;
    plan->lane_count = 2;
    return plan;
}

/* Lane 0 blocks at once, on what the peer's lane 1 sends only after its own wait has ended; so both
 * lanes of both ranks wait at the same time. */
static struct zc_plan *crossed(uint32_t self, const struct zc_layout *layout)
{
    struct zc_plan *plan = hand_made(self, layout);
    const uint64_t bytes = layout->bytes;
    const uint32_t peer = 1 - self;

    zc_plan_signal(plan, 0, peer, ZC_CHANNEL_READY);
    zc_plan_fork(plan, 1);
    zc_plan_wait(plan, 0, peer, ZC_CHANNEL_DONE);
    zc_plan_join(plan, 1);
    zc_plan_wait(plan, 1, peer, ZC_CHANNEL_READY);
    zc_plan_copy(plan, 1, zc_at(self, ZC_SEND, 0), zc_at(peer, ZC_RECV, self * bytes), bytes);
    zc_plan_copy(plan, 1, zc_at(self, ZC_SEND, 0), zc_at(self, ZC_RECV, self * bytes), bytes);
    zc_plan_signal(plan, 1, peer, ZC_CHANNEL_DONE);
    return plan;
}

static void a_blocked_lane_does_not_hold_up_the_other(void **state)
{
    const struct zc_layout layout = even_layout(&zc_all_gather, 2, 1000, 0);
    struct rig rig;

    (void)state;
    for (int sleeping = 0; sleeping < 2; sleeping++) {
        make_rig(&rig, 2);
        rig.bytes = layout.bytes;
        rig.delay_us = 200;
        for (uint32_t i = 0; i < 2; i++) {
            struct zc_plan *plan = crossed(i, &layout);

            if (sleeping)
                rig.ranks[i].device->spin_ns = 0;
            bind(&rig.ranks[i], plan);
            zc_plan_destroy(plan);
        }
        run_rig(&rig, 1000);
        free_rig(&rig);
    }
}

static void two_lanes_of_the_algorithms_give_the_right_bytes(void **state)
{
    static const size_t sizes[] = {1, 4097, 70000};
    struct rig rig;

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int in_place = 0; in_place < 2; in_place++) {
            make_rig(&rig, 3);
            bind_algorithm(&rig, &zc_direct_push, sizes[i], in_place);
            run_rig(&rig, 20);
            free_rig(&rig);
        }
}

/* ---- Failure ---- */

static void *run_in_vain(void *data)
{
    struct rank *rank = data;

    EXPECT(zc_device_host.submit(rank->device, rank->program, NULL) == ZCTA_ERR_PEER);
    return NULL;
}

/* Whatever the moment at which the guard fails: the program ends, and what came after is undone. */
static void a_failed_guard_ends_a_program_that_waits(void **state)
{
    struct rig rig;

    (void)state;
    make_rig(&rig, 2);
    bind_algorithm(&rig, &zc_direct_push, 100, false);
    for (uint32_t i = 0; i < 300; i++) {
        struct rank *rank = &rig.ranks[0];

        rank->device->spin_ns = i % 2 ? 0 : 20000;
        memset(rank->send, 1, 100);
        atomic_store(&rank->guard.failed, ZCTA_OK);
        EXPECT(pthread_create(&rank->thread, NULL, run_in_vain, rank) == 0);
        if (i % 3 != 0)
            usleep(i);
        atomic_store_explicit(&rank->guard.failed, ZCTA_ERR_PEER, memory_order_release);
        zc_device_host.wake(rank->device, &rank->guard);
        EXPECT(pthread_join(rank->thread, NULL) == 0);
        EXPECT(rig.ranks[1].recv[0] == 0 && atomic_load(&rank->missing) == 0);
    }
    assert_int_equal(atomic_load(&rig.ranks[0].guard.finished), 300);
    free_rig(&rig);
}

static void programs_behind_a_failed_one_end_undone(void **state)
{
    zcta_host_stream *stream = NULL;
    struct rank *rank;
    struct rig rig;
    const uint64_t start = now_ns();

    (void)state;
    make_rig(&rig, 2);
    rank = &rig.ranks[0];
    bind_algorithm(&rig, &zc_direct_push, 100, false);
    rank->guard.timeout_ns = 100000000;
    assert_int_equal(zc_host_stream_create(rank->device, &stream), ZCTA_OK);
    for (int i = 0; i < 50; i++)
        assert_int_equal(zc_device_host.submit(rank->device, rank->program, stream), ZCTA_OK);
    zc_device_host.drain(rank->device, &rank->guard);
    /* One timeout for all of them, and the peer that was missing is named. */
    assert_true(now_ns() - start < UINT64_C(2000000000) * SLOWNESS);
    assert_int_equal(atomic_load(&rank->missing), 1 + 1);
    assert_int_equal(zc_host_stream_synchronize(stream, "test"), ZCTA_ERR_TIMEOUT);
    assert_int_equal(zc_host_stream_synchronize(stream, "test"), ZCTA_OK);
    zc_host_stream_destroy(stream);
    free_rig(&rig);
}

/* ---- The list of this process's memories ---- */

static void local_memory_is_found_while_somebody_holds_it(void **state)
{
    struct zc_local_memory a = {0}, b = {0}, c = {0};
    uint64_t old;

    (void)state;
    zc_local_publish(&a);
    zc_local_publish(&b);
    zc_local_publish(&c);
    assert_true(a.id != 0 && a.id != b.id && b.id != c.id && a.id != c.id);
    assert_ptr_equal(zc_local_take(b.id), &b);
    assert_false(zc_local_drop(&b));
    assert_true(zc_local_drop(&b));
    assert_null(zc_local_take(b.id));
    assert_null(zc_local_take(0));
    assert_null(zc_local_take(UINT64_MAX));
    assert_ptr_equal(zc_local_take(a.id), &a);
    old = b.id;
    zc_local_publish(&b);
    assert_true(b.id != old);
    assert_null(zc_local_take(old));
    assert_false(zc_local_drop(&a));
    assert_true(zc_local_drop(&a) && zc_local_drop(&c) && zc_local_drop(&b));
}

/* Memory of one rank, taken and let go of by others while its owner does. */
static void *take_and_drop(void *data)
{
    struct zc_memory_handle handle;
    struct rank *rank = data;
    int fd;

    for (int i = 0; i < 200; i++) {
        struct zc_memory *own = NULL, *again = NULL;

        EXPECT(zc_device_host.memory_alloc(rank->device, ZC_ON_DEVICE, 5000, 1, &own) == ZCTA_OK);
        EXPECT(zc_device_host.memory_export(rank->device, own, &handle, &fd) == ZCTA_OK && fd >= 0);
        EXPECT(zc_device_host.memory_import(rank->device, &handle, fd, true, &again) == ZCTA_OK);
        EXPECT(again == own);
        zc_device_host.memory_release(rank->device, own);
        ((char *)again->base)[4999] = 1;
        zc_device_host.memory_release(rank->device, again);
        EXPECT(zc_device_host.memory_import(rank->device, &handle, -1, true, &again) ==
               ZCTA_ERR_PEER);
    }
    return NULL;
}

static void memory_lives_until_the_last_rank_lets_go(void **state)
{
    struct rig rig;

    (void)state;
    make_rig(&rig, 3);
    for (uint32_t i = 0; i < 3; i++)
        EXPECT(pthread_create(&rig.ranks[i].thread, NULL, take_and_drop, &rig.ranks[i]) == 0);
    for (uint32_t i = 0; i < 3; i++)
        EXPECT(pthread_join(rig.ranks[i].thread, NULL) == 0);
    free_rig(&rig);
}

/* What a peer says of its memory is not believed: the file must be there, and large enough. */
static void a_handle_that_lies_maps_nothing(void **state)
{
    struct zc_memory *own = NULL, *mapped = NULL;
    struct zc_memory_handle handle, lie;
    struct rig rig;
    int fd;

    (void)state;
    make_rig(&rig, 1);
    EXPECT(zc_device_host.memory_alloc(rig.ranks[0].device, ZC_ON_DEVICE, 5000, 1, &own) ==
           ZCTA_OK);
    EXPECT(zc_device_host.memory_export(rig.ranks[0].device, own, &handle, &fd) == ZCTA_OK);
    for (int i = 0; i < 5; i++) {
        static const uint64_t sizes[] = {0, 8193, UINT64_MAX, (uint64_t)1 << 63, 1 << 30};

        lie = handle;
        lie.bytes = sizes[i];
        assert_int_not_equal(
            zc_device_host.memory_import(rig.ranks[0].device, &lie, fd, false, &mapped), ZCTA_OK);
    }
    assert_int_not_equal(
        zc_device_host.memory_import(rig.ranks[0].device, &handle, -1, false, &mapped), ZCTA_OK);
    assert_null(mapped);
    assert_int_equal(zc_device_host.memory_import(rig.ranks[0].device, &handle, fd, false, &mapped),
                     ZCTA_OK);
    assert_true(mapped != own && mapped->base != own->base);
    ((char *)mapped->base)[4999] = 7;
    assert_int_equal(((char *)own->base)[4999], 7);
    zc_device_host.memory_release(rig.ranks[0].device, mapped);
    zc_device_host.memory_release(rig.ranks[0].device, own);
    free_rig(&rig);
}

/* Nothing moves the host's memory over a network, and nobody may believe that something has. */
static void a_plan_over_a_network_is_refused(void **state)
{
    const struct zc_layout layout = even_layout(&zc_all_gather, 2, 64, 0);
    struct zc_request request = usual_request(&zc_hierarchical, &layout, true);
    struct zc_plan *plan = NULL;
    zcta_error error;
    struct rig rig;

    (void)state;
    make_rig(&rig, 2);
    rig.bytes = 64;
    rig.in_place = true;
    request.node_ranks = 1;
    assert_int_equal(zc_plan_make(&request, &plan), ZCTA_OK);
    assert_int_equal(try_bind(&rig.ranks[0], plan), ZCTA_ERR_UNSUPPORTED);
    zc_diag_last(&rig.ranks[0].diag, &error);
    assert_int_equal(error.status, ZCTA_ERR_UNSUPPORTED);
    assert_string_equal(error.call, "all_gather");
    zc_plan_destroy(plan);
    free_rig(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counters_wrap_around),
        cmocka_unit_test(nobody_sleeps_through_a_signal),
        cmocka_unit_test(a_blocked_lane_does_not_hold_up_the_other),
        cmocka_unit_test(two_lanes_of_the_algorithms_give_the_right_bytes),
        cmocka_unit_test(a_failed_guard_ends_a_program_that_waits),
        cmocka_unit_test(programs_behind_a_failed_one_end_undone),
        cmocka_unit_test(local_memory_is_found_while_somebody_holds_it),
        cmocka_unit_test(memory_lives_until_the_last_rank_lets_go),
        cmocka_unit_test(a_handle_that_lies_maps_nothing),
        cmocka_unit_test(a_plan_over_a_network_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
