/* Memory of the caller's own as a window: whose GPU it lies on, and whom its owner has let in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>

#include "device/device.h"
#include "support_fake.h"

enum { SHARE = 4096, RANKS = 3 };

static const struct ranks_options on_gpus = {.device = ZCTA_DEVICE_CUDA};

static fake_cuda_fail_fn *break_at;

static int load_fake(void **state)
{
    (void)state;
    find_fake(open_fake(), "fake_cuda_fail", &break_at);
    return 0;
}

struct foreign {
    zc_cu_allocation handle;
    zc_cu_pointer at;
    size_t bytes;
};

/* On GPU `gpu`, opened to the GPUs from `first` to the one before `end`. */
static struct foreign allocate(int gpu, int first, int end)
{
    const struct zc_cu_allocation_prop prop = {.type = ZC_CU_MEM_ALLOCATION_PINNED,
                                               .handle_types = ZC_CU_MEM_HANDLE_POSIX_FD,
                                               .location = {ZC_CU_MEM_LOCATION_DEVICE, gpu}};
    struct foreign f = {.bytes = (size_t)1 << 20};

    EXPECT(driver.cuMemCreate(&f.handle, f.bytes, &prop, 0) == 0);
    EXPECT(driver.cuMemAddressReserve(&f.at, f.bytes, 0, 0, 0) == 0);
    EXPECT(driver.cuMemMap(f.at, f.bytes, 0, f.handle, 0) == 0);
    for (int i = first; i < end; i++) {
        const struct zc_cu_access access = {{ZC_CU_MEM_LOCATION_DEVICE, i},
                                            ZC_CU_MEM_ACCESS_READWRITE};

        EXPECT(driver.cuMemSetAccess(f.at, f.bytes, &access, 1) == 0);
    }
    return f;
}

static void release(const struct foreign *f)
{
    driver.cuMemUnmap(f->at, f->bytes);
    driver.cuMemAddressFree(f->at, f->bytes);
    driver.cuMemRelease(f->handle);
}

static void register_elsewhere(zcta_context *context, void *data)
{
    struct seat s = take_seat(context, SHARE);
    const int gpu = zcta_context_gpu(context), other = (gpu + 1) % RANKS;
    const struct foreign f = allocate(s.rank == 1 ? other : gpu, gpu, gpu + 1);
    zcta_window *window = NULL;
    zcta_status status;

    (void)data;
    status = zcta_window_register(s.world, (void *)(uintptr_t)f.at, SHARE, &window);
    if (s.rank == 1)
        expect_error(context, status, ZCTA_ERR_INVALID, "lies on GPU 2, but this rank's is GPU 1");
    EXPECT(status != ZCTA_OK && window == NULL);
    release(&f);
    leave_seat(&s);
}

static void memory_of_another_gpu_is_refused(void **state)
{
    (void)state;
    run_as_threads_with(RANKS, &on_gpus, register_elsewhere, NULL);
}

/* As ncclMemAlloc() makes it: open to every GPU from the beginning. */
static void register_opened(zcta_context *context, void *data)
{
    struct seat s = take_seat(context, SHARE);
    const int gpu = zcta_context_gpu(context);
    const struct foreign f =
        *(const bool *)data ? allocate(gpu, 0, RANKS) : allocate(gpu, gpu, gpu + 1);
    unsigned char *out = (void *)(uintptr_t)f.at;
    zcta_window *window = NULL;

    EXPECT_OK(context, zcta_window_register(s.world, out, (size_t)RANKS * SHARE, &window));
    model_fill(zcta_window_base(s.send), 5, s.rank, SHARE);
    EXPECT_OK(context,
              zcta_all_gather(s.world, zcta_window_base(s.send), out, SHARE, s.stream, NULL));
    synchronize(&s);
    EXPECT(model_wrong(out, 5, RANKS, SHARE) == 0);
    EXPECT_OK(context, zcta_window_free(&window));
    release(&f);
    leave_seat(&s);
}

static void memory_that_is_open_to_peers_already_is_taken(void **state)
{
    bool opened[2] = {false, true};

    (void)state;
    run_as_threads_with(RANKS, &on_gpus, register_opened, &opened[0]);
    run_as_threads_with(RANKS, &on_gpus, register_opened, &opened[1]);
}

/* The driver gives the lowest free number to what it exports. */
static void export_with_a_closed_descriptor(zcta_context *context, void *data)
{
    const int kept = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    struct zc_memory_handle handle;
    struct zc_memory *memory = NULL;
    struct zc_device *device = NULL;
    struct zc_diag diag;
    int fd = -1;

    (void)context, (void)data;
    zc_diag_init(&diag);
    EXPECT(zc_device_cuda.open(&(struct zc_device_params){.diag = &diag, .local_rank_count = 1},
                               &device) == ZCTA_OK);
    EXPECT(zc_device_cuda.memory_alloc(device, ZC_ON_DEVICE, 4096, 1, &memory) == ZCTA_OK);
    close(STDIN_FILENO);
    EXPECT(zc_device_cuda.memory_export(device, memory, &handle, &fd) == ZCTA_OK);
    EXPECT(fd > STDERR_FILENO && fcntl(STDIN_FILENO, F_GETFD) < 0);
    EXPECT(dup2(kept, STDIN_FILENO) == STDIN_FILENO);
    close(kept);
    zc_device_cuda.memory_release(device, memory);
    zc_device_cuda.close(device);
    zc_diag_destroy(&diag);
}

static void an_exported_descriptor_is_no_standard_one(void **state)
{
    (void)state;
    run_as_threads_with(1, &on_gpus, export_with_a_closed_descriptor, NULL);
}

static void ask_for_too_much(zcta_context *context, void *data)
{
    struct seat s = take_seat(context, SHARE);
    zcta_window *window = NULL;

    (void)data;
    expect_error(context, zcta_window_alloc(s.world, (size_t)1 << 35, &window), ZCTA_ERR_NO_MEMORY,
                 " has no 34359738368 bytes left");
    leave_seat(&s);
}

static void too_much_memory_is_told_in_bytes(void **state)
{
    (void)state;
    run_as_threads_with(RANKS, &on_gpus, ask_for_too_much, NULL);
}

static struct zc_device *open_gpu(struct zc_diag *diag, uint32_t gpu)
{
    const struct zc_device_params params = {.diag = diag, .local_rank_count = 1, .gpu = 1 + gpu};
    struct zc_device *device = NULL;

    assert_int_equal(zc_device_cuda.open(&params, &device), ZCTA_OK);
    return device;
}

static bool may_reach(const struct zc_memory *memory, int gpu)
{
    const struct zc_cu_location location = {ZC_CU_MEM_LOCATION_DEVICE, gpu};
    unsigned long long flags = 0;

    return driver.cuMemGetAccess(&flags, &location, (uintptr_t)memory->base) == 0 &&
           flags == ZC_CU_MEM_ACCESS_READWRITE;
}

/* A rank that could not be let in has not been let in; the next try, of whoever on its GPU, lets it
 * in. Whatever call of the driver failed before. */
static bool try_twice(struct zc_device *owner, struct zc_device *other, uint64_t fails)
{
    struct zc_memory *memory = NULL, *first = NULL, *second = NULL;
    struct zc_memory_handle handle;
    bool failed;
    int fd = -1;

    assert_int_equal(zc_device_cuda.memory_alloc(owner, ZC_ON_DEVICE, SHARE, 1, &memory), ZCTA_OK);
    assert_int_equal(zc_device_cuda.memory_export(owner, memory, &handle, &fd), ZCTA_OK);
    break_at(fails, 719);
    failed = zc_device_cuda.memory_import(other, &handle, -1, true, &first) != ZCTA_OK;
    break_at(0, 0);
    assert_int_equal(zc_device_cuda.memory_import(other, &handle, -1, true, &second), ZCTA_OK);
    assert_true(may_reach(memory, 1));
    zc_device_cuda.memory_release(other, first);
    zc_device_cuda.memory_release(other, second);
    zc_device_cuda.memory_release(owner, memory);
    return failed;
}

static void who_could_not_be_let_in_may_try_again(void **state)
{
    enum { CALLS = 6 }; /* more than an import makes */
    struct zc_diag diag;
    struct zc_device *owner, *other;
    uint32_t failures = 0;

    (void)state;
    zc_diag_init(&diag);
    diag.level = ZC_LOG_OFF;
    owner = open_gpu(&diag, 0);
    other = open_gpu(&diag, 1);
    for (uint64_t fails = 1; fails <= CALLS; fails++)
        failures += try_twice(owner, other, fails);
    assert_in_range(failures, 2, CALLS - 1);
    zc_device_cuda.close(other);
    zc_device_cuda.close(owner);
    zc_diag_destroy(&diag);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_of_another_gpu_is_refused),
        cmocka_unit_test(an_exported_descriptor_is_no_standard_one),
        cmocka_unit_test(too_much_memory_is_told_in_bytes),
        cmocka_unit_test(memory_that_is_open_to_peers_already_is_taken),
        cmocka_unit_test(who_could_not_be_let_in_may_try_again),
    };

    return cmocka_run_group_tests(tests, load_fake, NULL);
}
