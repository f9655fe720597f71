/* The host device: shared memory, copies by the CPU, signals by futex. */
#include "device/host/host.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* Ranks that each have a core find each other by looking. Where ranks share cores, looking keeps
 * the awaited one from running: there each look is followed by a yield. */
enum { LOOK_NS_ALONE = 5000, LOOK_NS_CROWDED = 0, SPIN_NS = 50000 };

/* Of the machine, not of this process: a launcher binds each rank to a core of its own, and what
 * the ranks have together is what counts. */
static uint32_t machine_cores(void)
{
    const long online = sysconf(_SC_NPROCESSORS_ONLN);

    return online > 0 ? (uint32_t)online : 1;
}

/* How large an output may be while all local ranks' outputs, and their shares, which together are
 * as large as one more output, still fit into the last cache. */
static size_t stream_bytes(uint32_t local_rank_count)
{
    const long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);

    return (cache > 0 ? (size_t)cache : (size_t)8 << 20) / (local_rank_count + 1);
}

static zcta_status host_open(const struct zc_device_params *params, struct zc_device **device)
{
    struct zc_device *made = calloc(1, sizeof *made);
    const bool crowded = params->local_rank_count > machine_cores();

    if (made == NULL)
        return zc_fail(params->diag, ZCTA_ERR_NO_MEMORY, "zcta_init", ENOMEM, "out of memory");
    made->diag = params->diag;
    made->timeout_ns = params->timeout_ns;
    made->look_ns = crowded ? LOOK_NS_CROWDED : LOOK_NS_ALONE;
    made->spin_ns = SPIN_NS;
    made->stream_bytes = stream_bytes(params->local_rank_count);
    pthread_mutex_init(&made->lock, NULL);
    *device = made;
    return ZCTA_OK;
}

static void host_close(struct zc_device *device)
{
    zc_host_streams_end(device);
    pthread_mutex_destroy(&device->lock);
    free(device);
}

static void host_describe(const struct zc_device *device, struct zc_device_caps *caps)
{
    *caps = (struct zc_device_caps){
        .name = "host",
        .title = "Host Copy",
        .signals = "by futex",
        .lanes = 1,
        .block_bytes = (size_t)64 << 10,
        .stream_bytes = device->stream_bytes,
        .slot_bytes = sizeof(struct zc_host_slot),
        .pad_head_bytes = sizeof(struct zc_host_pad),
        .scratch_bytes = (size_t)64 << 10,
        .host_bytes = (size_t)64 << 10,
        .ring_bytes = (size_t)1 << 20,
        .pull_small = true,
        .runs_at_once = true,
    };
}

/* Memory is in one piece here. */
static zcta_status host_export_piece(struct zc_device *device, struct zc_memory *memory,
                                     uint32_t piece, struct zc_memory_handle *handle, int *fd)
{
    (void)device, (void)memory, (void)piece, (void)handle;
    *fd = -1;
    return ZCTA_ERR_UNSUPPORTED;
}

static zcta_status host_import_piece(struct zc_device *device, struct zc_memory *memory,
                                     uint32_t piece, const struct zc_memory_handle *handle, int fd)
{
    (void)device, (void)memory, (void)piece, (void)handle, (void)fd;
    return ZCTA_ERR_UNSUPPORTED;
}

/* Memory of one host is no other's. */
static uint64_t host_join_domain(struct zc_device *device)
{
    (void)device;
    return 0;
}

static bool host_reaches(struct zc_device *device, uint64_t gpu_id)
{
    (void)device, (void)gpu_id;
    return true;
}

static zcta_status host_enter(struct zc_device *device)
{
    (void)device;
    return ZCTA_OK;
}

static void host_leave(struct zc_device *device)
{
    (void)device;
}

static zcta_status host_is_capturing(struct zc_device *device, zcta_stream stream, bool *capturing)
{
    (void)device, (void)stream;
    *capturing = false;
    return ZCTA_OK;
}

static zcta_status host_submit(struct zc_device *device, const struct zc_program *program,
                               zcta_stream stream)
{
    const uint32_t ticket = zc_count_next(&program->guard->submitted);
    zcta_status status = ZCTA_OK;

    if (stream == NULL) {
        status = zc_host_run(device, program, ticket);
        zc_host_finish(program->guard, 1);
    } else {
        zc_host_stream_enqueue(stream, program, ticket);
    }
    return status;
}

static void host_drain(struct zc_device *device, struct zc_guard *guard)
{
    const uint32_t submitted = zc_guard_submitted(guard);

    zc_host_await_turn(guard, submitted, false);
    if (zc_guard_failed(guard))
        zc_host_streams_drop(device, guard);
    zc_host_await_turn(guard, submitted, true);
    /* A worker that has just finished the last program may still look at the guard, which the
     * caller may be about to free; see run_item(). */
    pthread_mutex_lock(&device->lock);
    pthread_mutex_unlock(&device->lock);
}

const struct zc_device_ops zc_device_host = {
    .kind = ZCTA_DEVICE_HOST,
    .open = host_open,
    .close = host_close,
    .describe = host_describe,
    .join_domain = host_join_domain,
    .reaches = host_reaches,
    .memory_alloc = zc_host_memory_alloc,
    .memory_adopt = zc_host_memory_adopt,
    .memory_export = zc_host_memory_export,
    .memory_import = zc_host_memory_import,
    .memory_export_piece = host_export_piece,
    .memory_import_piece = host_import_piece,
    .memory_release = zc_host_memory_release,
    .view_map = zc_host_view_map,
    .view_unmap = zc_host_view_unmap,
    .attach = zc_host_attach,
    .detach = zc_host_detach,
    .bind = zc_host_bind,
    .submit = host_submit,
    .enter = host_enter,
    .leave = host_leave,
    .is_capturing = host_is_capturing,
    .wake = zc_host_wake,
    .drain = host_drain,
};
