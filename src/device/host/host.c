/* The host device: shared memory, copies by the CPU, signals by futex. */
#include "device/host/host.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

/* Two ranks that each have a core find each other by looking; where ranks share cores, looking
 * keeps the awaited one from running. */
enum { SPIN_NS_ALONE = 50000, SPIN_NS_CROWDED = 500, YIELDS_CROWDED = 4 };

static uint32_t usable_cores(void)
{
    cpu_set_t set;

    return sched_getaffinity(0, sizeof set, &set) == 0 ? (uint32_t)CPU_COUNT(&set) : 1;
}

static zcta_status host_open(const struct zc_device_params *params, struct zc_device **device)
{
    struct zc_device *made = calloc(1, sizeof *made);
    const bool crowded = params->local_rank_count > usable_cores();

    if (made == NULL)
        return zc_fail(params->diag, ZCTA_ERR_NO_MEMORY, "zcta_init", ENOMEM, "out of memory");
    made->diag = params->diag;
    made->local_rank = params->local_rank;
    made->spin_ns = crowded ? SPIN_NS_CROWDED : SPIN_NS_ALONE;
    made->yields = crowded ? YIELDS_CROWDED : 0;
    pthread_mutex_init(&made->lock, NULL);
    *device = made;
    return ZCTA_OK;
}

static void host_close(struct zc_device *device)
{
    while (device->streams != NULL)
        zc_host_stream_destroy(device->streams);
    pthread_mutex_destroy(&device->lock);
    free(device);
}

static void host_describe(const struct zc_device *device, struct zc_device_caps *caps)
{
    (void)device;
    *caps = (struct zc_device_caps){
        .name = "host",
        .title = "Host Copy",
        .signals = "by futex",
        .lanes = 1,
        .block_bytes = (size_t)256 << 10,
        .slot_bytes = sizeof(struct zc_host_slot),
        .pad_head_bytes = sizeof(struct zc_host_pad),
        .granularity = (size_t)sysconf(_SC_PAGESIZE),
        .scratch_bytes = (size_t)64 << 10,
        .pull_small = true,
    };
}

const struct zc_device_ops zc_device_host = {
    .open = host_open,
    .close = host_close,
    .describe = host_describe,
    .memory_alloc = zc_host_memory_alloc,
    .memory_adopt = zc_host_memory_adopt,
    .memory_export = zc_host_memory_export,
    .memory_import = zc_host_memory_import,
    .memory_release = zc_host_memory_release,
    .view_map = zc_host_view_map,
    .view_unmap = zc_host_view_unmap,
    .submit = zc_host_submit,
    .wake = zc_host_wake,
    .drain = zc_host_drain,
};
