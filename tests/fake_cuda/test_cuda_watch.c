/* The watchdog on the fake driver: whom it names, and that it harms nobody. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "device/device.h"
#include "support_fake.h"

enum { SHARE = 600 };

static const struct ranks_options hasty = {.device = ZCTA_DEVICE_CUDA,
                                           .timeout_ns = SLOWNESS * UINT64_C(1000000000),
                                           .may_fail_to_finalize = true};

static fake_cuda_fail_fn *break_at;
static fake_cuda_failed_fn *failed_name;
static fake_cuda_set_fn *set;
static fake_cuda_enqueue_fn *enqueue;

static int load_fake(void **state)
{
    void *library = open_fake();

    (void)state;
    find_fake(library, "fake_cuda_fail", &break_at);
    find_fake(library, "fake_cuda_failed", &failed_name);
    find_fake(library, "fake_cuda_set", &set);
    find_fake(library, "fake_cuda_enqueue", &enqueue);
    return 0;
}

/* ---- Whom it names ---- */

struct absence {
    uint32_t absent, calls;
    zcta_policy policy;
    _Atomic uint32_t arrived;
};

static void expect_named(const struct seat *s, uint32_t rank)
{
    zcta_error error;

    EXPECT(await_failure(s->world) == ZCTA_ERR_TIMEOUT);
    EXPECT(zcta_team_status(s->world) == ZCTA_ERR_TIMEOUT);
    EXPECT_OK(s->context, zcta_last_error(s->context, &error));
    if (error.rank != rank)
        fprintf(stderr, "rank %u: %s\n", s->rank, error.message);
    EXPECT(error.rank == rank);
}

/* One rank stops calling; the others have many calls queued, and wait for each other too. */
static void stop_calling(zcta_context *context, void *data)
{
    struct absence *absence = data;
    struct seat s = take_seat(context, SHARE);
    zcta_status status = ZCTA_OK;

    for (uint32_t call = 0; call < 3; call++) {
        fill_share(&s, call);
        EXPECT_OK(context, gather(&s, absence->policy));
        synchronize(&s);
        expect_shares(&s, call);
    }
    for (uint32_t i = 0; i < absence->calls && s.rank != absence->absent && status == ZCTA_OK; i++)
        status = i % 3 == 2 ? zcta_barrier(s.world, s.stream) : gather(&s, absence->policy);
    EXPECT(status == ZCTA_OK || status == ZCTA_ERR_TIMEOUT);
    synchronize(&s);
    expect_named(&s, absence->absent);
    await_all(&s, &absence->arrived);
    leave_seat(&s);
}

static void who_stops_calling_is_named_by_all(void **state)
{
    (void)state;
    for (uint32_t absent = 0; absent < 3; absent++)
        for (uint32_t calls = 1; calls <= 7; calls += 3)
            for (int zero = 0; zero < 2; zero++) {
                struct absence absence = {absent, calls,
                                          zero ? ZCTA_POLICY_ZERO : ZCTA_POLICY_DEFAULT, 0};

                run_as_threads_with(3, &hasty, stop_calling, &absence);
            }
}

/* More than can be under way at once: the last submit waits, and the stuck stream is let go. */
static void a_full_queue_is_let_go(void **state)
{
    struct absence absence = {2, 1200, ZCTA_POLICY_DEFAULT, 0};

    (void)state;
    run_as_threads_with(3, &hasty, stop_calling, &absence);
}

/* ---- That it does not stand behind what it watches ---- */

enum { ONE_QUEUE = 1, STREAMS_BEHIND = 2, KERNEL_LOADING = 4, ALL_OF_IT = 7, STREAMS = 40 };

struct hold_up {
    int what;
    bool no_memory; /* for a context to look from */
    _Atomic uint32_t arrived;
};

/* Streams of the program's that wait for the gather. */
static void queue_behind(const struct seat *s, zc_cu_stream *streams)
{
    zc_cu_event event = NULL;

    EXPECT(driver.cuEventCreate(&event, ZC_CU_EVENT_DISABLE_TIMING) == 0);
    EXPECT(driver.cuEventRecord(event, s->stream) == 0);
    for (uint32_t i = 0; i < STREAMS; i++) {
        EXPECT(driver.cuStreamCreate(&streams[i], ZC_CU_STREAM_NON_BLOCKING) == 0);
        EXPECT(driver.cuStreamWaitEvent(streams[i], event, 0) == 0);
    }
    driver.cuEventDestroy(event);
}

/* CUDA loads a kernel when it is first launched, and waits for the context then. */
static void *launch(void *data)
{
    static const char image[] = ".entry late()";
    const struct seat *s = data;
    zc_cu_context gpu = NULL;
    zc_cu_module module = NULL;
    zc_cu_function late = NULL;

    EXPECT(driver.cuDevicePrimaryCtxRetain(&gpu, zcta_context_gpu(s->context)) == 0);
    EXPECT(driver.cuCtxPushCurrent(gpu) == 0);
    EXPECT(driver.cuModuleLoadData(&module, image) == 0);
    EXPECT(driver.cuModuleGetFunction(&late, module, "late") == 0);
    EXPECT(driver.cuLaunchKernel(late, 1, 1, 1, 1, 1, 1, 0, (zc_cu_stream)2, NULL, NULL) == 0);
    driver.cuModuleUnload(module);
    driver.cuCtxPopCurrent(&gpu);
    driver.cuDevicePrimaryCtxRelease(zcta_context_gpu(s->context));
    return NULL;
}

static void expect_blind(const struct seat *s)
{
    zcta_error error;

    EXPECT(await_failure(s->world) == ZCTA_ERR_DEVICE);
    EXPECT_OK(s->context, zcta_team_failure(s->world, &error));
    EXPECT(strstr(error.message, "second CUDA context") != NULL);
    set("contexts", 1); /* so that this test can end */
}

static void gather_in_vain(const struct hold_up *hold_up, const struct seat *s)
{
    zc_cu_stream streams[STREAMS] = {NULL};
    pthread_t launcher;

    EXPECT_OK(s->context, gather(s, ZCTA_POLICY_ZERO));
    if ((hold_up->what & STREAMS_BEHIND) != 0)
        queue_behind(s, streams);
    if ((hold_up->what & KERNEL_LOADING) != 0)
        EXPECT(pthread_create(&launcher, NULL, launch, (void *)s) == 0);
    if (hold_up->no_memory)
        expect_blind(s);
    else
        expect_named(s, 1);
    synchronize(s);
    if ((hold_up->what & KERNEL_LOADING) != 0)
        EXPECT(pthread_join(launcher, NULL) == 0);
    for (uint32_t i = 0; i < STREAMS; i++)
        if (streams[i] != NULL) {
            EXPECT(driver.cuStreamSynchronize(streams[i]) == 0);
            driver.cuStreamDestroy(streams[i]);
        }
}

static void be_held_up(zcta_context *context, void *data)
{
    struct hold_up *hold_up = data;
    struct seat s = take_seat(context, SHARE);

    EXPECT_OK(context, zcta_barrier(s.world, s.stream));
    synchronize(&s);
    if (s.rank == 0)
        gather_in_vain(hold_up, &s);
    else
        EXPECT(await_failure(s.world) != ZCTA_OK);
    await_all(&s, &hold_up->arrived);
    leave_seat(&s);
}

static void run_held_up(struct hold_up hold_up)
{
    set("connections", (hold_up.what & ONE_QUEUE) != 0 ? 1 : 8);
    set("contexts", !hold_up.no_memory);
    run_as_threads_with(2, &hasty, be_held_up, &hold_up);
    set("connections", 8);
    set("contexts", 1);
}

static void one_hardware_queue_for_all_streams(void **state)
{
    (void)state;
    run_held_up((struct hold_up){.what = ONE_QUEUE});
}

static void many_streams_that_wait_for_the_stuck_one(void **state)
{
    (void)state;
    run_held_up((struct hold_up){.what = STREAMS_BEHIND});
}

static void a_kernel_that_is_loaded_meanwhile(void **state)
{
    (void)state;
    run_held_up((struct hold_up){.what = KERNEL_LOADING});
    run_held_up((struct hold_up){.what = ALL_OF_IT});
}

/* Nobody is named, but nobody waits for ever either. */
static void no_memory_to_look_with(void **state)
{
    (void)state;
    run_held_up((struct hold_up){.what = ONE_QUEUE, .no_memory = true});
}

/* ---- What counts is waiting ---- */

static void copy_slowly(zcta_context *context, void *data)
{
    struct seat s = take_seat(context, (size_t)128 << 10);

    (void)data;
    for (uint32_t call = 0; call < 2; call++) {
        fill_share(&s, call);
        EXPECT_OK(context, gather(&s, call == 0 ? ZCTA_POLICY_DEFAULT : ZCTA_POLICY_ZERO));
        synchronize(&s);
        expect_shares(&s, call);
    }
    EXPECT_OK(context, zcta_team_status(s.world));
    leave_seat(&s);
}

static void copies_may_take_longer_than_a_wait(void **state)
{
    const struct ranks_options options = {.device = ZCTA_DEVICE_CUDA,
                                          .timeout_ns = SLOWNESS * UINT64_C(1000000000)};

    (void)state;
    set("slow-copy-ns", 2 * options.timeout_ns);
    run_as_threads_with(2, &options, copy_slowly, NULL);
    set("slow-copy-ns", 0);
}

/* ---- Streams that do not come to their collectives ---- */

static _Atomic bool opened[2];

static void wait_at_door(void *data)
{
    while (!atomic_load((_Atomic bool *)data))
        sleep_ms(1);
}

/* Work of the program's own is ahead of the gather. Every call returns; and what was enqueued runs
 * into nothing that has gone when the stream comes to it. */
static void never_reach(zcta_context *context, void *data)
{
    struct seat s = take_seat(context, SHARE);
    const uint64_t begin = now_ns();
    zcta_window *window = NULL;
    zcta_error error;

    (void)data;
    EXPECT_OK(context, zcta_window_alloc(s.world, SHARE * s.count, &window));
    EXPECT(enqueue(s.stream, wait_at_door, (void *)&opened[s.rank]) == 0);
    EXPECT_OK(context, zcta_all_gather(s.world, zcta_window_base(s.send), zcta_window_base(window),
                                       SHARE, s.stream, NULL));
    zcta_window_free(&window);
    EXPECT(window == NULL && zcta_team_status(s.world) != ZCTA_OK);
    EXPECT_OK(context, zcta_team_failure(s.world, &error));
    /* Both see it; whose word counts is decided between them. */
    EXPECT(strstr(error.message, "other work ahead of it") != NULL ||
           strstr(error.message, "as another rank saw first") != NULL);
    EXPECT(now_ns() - begin < UINT64_C(60000000000));
    *(zc_cu_stream *)((char *)data + s.rank * sizeof(zc_cu_stream)) = s.stream;
}

static void a_stream_that_never_comes_to_its_collective(void **state)
{
    zc_cu_stream streams[2];

    (void)state;
    run_as_threads_with(2, &hasty, never_reach, streams);
    for (int i = 0; i < 2; i++) {
        atomic_store(&opened[i], true);
        assert_int_equal(driver.cuStreamSynchronize(streams[i]), 0);
    }
}

/* ---- That it harms nobody ---- */

/* Rank 0's watchdog looks at a gather that waits for rank 1, while rank 0 captures. */
static void capture_meanwhile(zcta_context *context, void *data)
{
    _Atomic bool *captured = data;
    struct seat s = take_seat(context, SHARE);
    zc_cu_graph graph = NULL;

    if (s.rank == 0) {
        EXPECT_OK(context, gather(&s, ZCTA_POLICY_DEFAULT));
        EXPECT(driver.cuStreamBeginCapture(s.stream, ZC_CU_STREAM_CAPTURE_MODE_GLOBAL) == 0);
        sleep_ms(100);
        EXPECT(driver.cuStreamEndCapture(s.stream, &graph) == 0);
        driver.cuGraphDestroy(graph);
        atomic_store(captured, true);
    }
    while (!atomic_load(captured))
        sleep_ms(1);
    if (s.rank != 0)
        EXPECT_OK(context, gather(&s, ZCTA_POLICY_DEFAULT));
    synchronize(&s);
    EXPECT_OK(context, zcta_team_status(s.world));
    leave_seat(&s);
}

static void it_breaks_no_capture(void **state)
{
    static const struct ranks_options patient = {.device = ZCTA_DEVICE_CUDA};
    _Atomic bool captured = false;

    (void)state;
    run_as_threads_with(2, &patient, capture_meanwhile, &captured);
}

/* ---- Below the library: a device, and a team of two of which one does not exist ---- */

struct lonely {
    struct zc_diag diag;
    struct zc_device *device;
    struct zc_memory *pad;
    void *pads[2];
    struct zc_guard guard;
    _Atomic uint32_t count, seen[6];
    struct zc_op op;
    uint32_t lane_begin[2];
    struct zc_program program;
    _Atomic bool telling, told;
};

static void take_note(void *data, uint32_t peer)
{
    struct lonely *l = data;

    assert_int_equal(peer, 1);
    atomic_store(&l->telling, true);
    sleep_ms(100);
    atomic_store(&l->guard.failed, ZCTA_ERR_TIMEOUT);
    zc_device_cuda.wake(l->device, &l->guard);
    atomic_store(&l->told, true);
}

static void say_nothing(void *data, uint32_t peer, const char *call, uint64_t waited_ns)
{
    (void)data, (void)peer, (void)call, (void)waited_ns;
}

static struct zc_device *open_device(struct zc_diag *diag)
{
    const struct zc_device_params params = {.diag = diag, .local_rank_count = 1};
    struct zc_device *device = NULL;

    zc_diag_init(diag);
    diag->level = ZC_LOG_OFF;
    return zc_device_cuda.open(&params, &device) == ZCTA_OK ? device : NULL;
}

static void set_up(struct lonely *l)
{
    const size_t slot = 16, slots = 6, head = 32;

    l->device = open_device(&l->diag);
    assert_non_null(l->device);
    assert_int_equal(zc_device_cuda.memory_alloc(l->device, ZC_ON_DEVICE, 4096, 1, &l->pad),
                     ZCTA_OK);
    l->pads[0] = l->pad->base;
    l->guard.timeout_ns = 50000000;
    l->guard.pad = l->pad->base;
    l->guard.pads = l->pads;
    l->guard.pad_bytes = 4096;
    l->guard.pad_head_bytes = head;
    l->guard.slot_bytes = slot;
    l->guard.graph_offset = slot * slots;
    l->guard.slot_count = (uint32_t)slots;
    l->guard.rank_count = 2;
    l->guard.seen = l->seen;
    l->guard.on_missing = take_note;
    l->guard.on_late = say_nothing;
    l->guard.data = l;
    assert_int_equal(zc_device_cuda.attach(l->device, &l->guard), ZCTA_OK);
    l->op = (struct zc_op){.kind = ZC_OP_WAIT, .peer = 1};
    l->op.flag.word = (char *)l->pad->base + head + slot;
    l->op.flag.pad = l->pad->base;
    l->op.flag.count = &l->seen[1];
    l->op.flag.turn = 1;
    l->op.flag.last = true;
    l->lane_begin[1] = 1;
    l->program = (struct zc_program){
        .guard = &l->guard, .lane_count = 1, .lane_begin = l->lane_begin, .ops = &l->op};
    assert_int_equal(zc_device_cuda.bind(l->device, &l->program), ZCTA_OK);
}

/* What is awaited may be much older than what was awaited last on that slot, so old that the latter
 * would read as not yet come. */
static void what_is_awaited_since_long_ago_is_let_go(void **state)
{
    struct lonely *l = calloc(1, sizeof *l);
    zc_cu_stream stream = NULL;

    (void)state;
    assert_non_null(l);
    set_up(l);
    l->op.flag.count = &l->count;
    for (uint32_t newest = 1; newest < 200000; newest += 32767) {
        atomic_store(&l->guard.failed, ZCTA_OK);
        atomic_store(&l->count, 0);
        atomic_store((_Atomic uint32_t *)l->op.flag.word, 0);
        atomic_store(&l->seen[1], newest);
        assert_int_equal(zc_device_cuda.enter(l->device), ZCTA_OK);
        assert_int_equal(driver.cuStreamCreate(&stream, ZC_CU_STREAM_NON_BLOCKING), 0);
        assert_int_equal(zc_device_cuda.submit(l->device, &l->program, (zcta_stream)stream),
                         ZCTA_OK);
        zc_device_cuda.drain(l->device, &l->guard);
        assert_int_equal(driver.cuStreamQuery(stream), 0);
        driver.cuStreamDestroy(stream);
        zc_device_cuda.leave(l->device);
    }
    zc_device_cuda.detach(l->device, &l->guard);
    assert_false(l->guard.kept);
    zc_device_cuda.memory_release(l->device, l->pad);
    zc_device_cuda.close(l->device);
    free(l);
}

/* What on_missing() is given lives at least as long as that call. */
static void a_team_is_not_given_back_while_it_is_reported(void **state)
{
    struct lonely *l = calloc(1, sizeof *l);
    zc_cu_stream stream = NULL;

    (void)state;
    assert_non_null(l);
    set_up(l);
    assert_int_equal(zc_device_cuda.enter(l->device), ZCTA_OK);
    assert_int_equal(driver.cuStreamCreate(&stream, ZC_CU_STREAM_NON_BLOCKING), 0);
    assert_int_equal(zc_device_cuda.submit(l->device, &l->program, (zcta_stream)stream), ZCTA_OK);
    while (!atomic_load(&l->telling))
        sleep_ms(1);
    /* As if the peer came after all: nothing is under way any more. */
    atomic_store((_Atomic uint32_t *)l->op.flag.word, 1u << 16);
    zc_device_cuda.drain(l->device, &l->guard);
    zc_device_cuda.detach(l->device, &l->guard);
    assert_true(atomic_load(&l->told));
    driver.cuStreamDestroy(stream);
    zc_device_cuda.leave(l->device);
    zc_device_cuda.memory_release(l->device, l->pad);
    zc_device_cuda.close(l->device);
    free(l);
}

/* Without it no deadline would ever pass. */
static void a_device_without_a_watchdog_does_not_open(void **state)
{
    static const char *const its_own[] = {"cuCtxPushCurrent", "cuThreadExchangeStreamCaptureMode"};
    uint32_t failed = 0;
    const char *name;
    uint64_t k = 1;

    (void)state;
    do {
        struct zc_diag diag;
        struct zc_device *device;

        break_at(k++, 719);
        device = open_device(&diag);
        name = failed_name();
        for (size_t i = 0; i < sizeof its_own / sizeof its_own[0]; i++)
            if (strcmp(name, its_own[i]) == 0) {
                assert_null(device);
                assert_non_null(strstr(diag.last.message, "719"));
                failed++;
            }
        if (device != NULL)
            zc_device_cuda.close(device);
    } while (name[0] != '\0');
    break_at(0, 0);
    assert_true(failed >= 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_stops_calling_is_named_by_all),
        cmocka_unit_test(a_full_queue_is_let_go),
        cmocka_unit_test(one_hardware_queue_for_all_streams),
        cmocka_unit_test(many_streams_that_wait_for_the_stuck_one),
        cmocka_unit_test(a_kernel_that_is_loaded_meanwhile),
        cmocka_unit_test(no_memory_to_look_with),
        cmocka_unit_test(copies_may_take_longer_than_a_wait),
        cmocka_unit_test(what_is_awaited_since_long_ago_is_let_go),
        cmocka_unit_test(it_breaks_no_capture),
        cmocka_unit_test(a_team_is_not_given_back_while_it_is_reported),
        cmocka_unit_test(a_device_without_a_watchdog_does_not_open),
        cmocka_unit_test(a_stream_that_never_comes_to_its_collective),
    };

    return cmocka_run_group_tests(tests, load_fake, NULL);
}
