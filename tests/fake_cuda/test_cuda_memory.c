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

static int load_fake(void **state)
{
    (void)state;
    open_fake();
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
    EXPECT(zc_device_cuda.memory_alloc(device, 4096, 1, &memory) == ZCTA_OK);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_of_another_gpu_is_refused),
        cmocka_unit_test(an_exported_descriptor_is_no_standard_one),
        cmocka_unit_test(too_much_memory_is_told_in_bytes),
        cmocka_unit_test(memory_that_is_open_to_peers_already_is_taken),
    };

    return cmocka_run_group_tests(tests, load_fake, NULL);
}
