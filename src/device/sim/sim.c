/* The simulation: making it, its ranks, its cost model and its device table. */
#include <stdlib.h>

#include "device/sim/sim_internal.h"

/* Two NVLinked H200, driver 580.159.04; docs/performance.md tells which are measured. */
const struct zc_sim_cost zc_sim_cost_h200 = {
    .name = "H200, NVLink",
    .copy_ns = 2300,
    .signal_ns = 2000,
    .wait_ns = 1800,
    .wait_more_ns = 450,
    .crossing_ns = 500,
    .copy_bytes_per_ns = 388,
    .local_bytes_per_ns = 1500,
    .host_copy_ns = 2600,
    .host_bytes_per_ns = 41,
    .exchange_ns = 20000,
    .network_bytes_per_ns = 48,
};

zcta_status zc_sim_create(const struct zc_sim_params *params, struct zc_sim **sim)
{
    struct zc_sim *made = calloc(1, sizeof *made);

    if (made == NULL)
        return ZCTA_ERR_NO_MEMORY;
    zc_diag_init(&made->diag);
    made->params = *params;
    made->random = params->seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    made->next_address = (uintptr_t)1 << 44;
    made->ranks = calloc(params->rank_count, sizeof *made->ranks);
    made->heap.lanes =
        calloc((size_t)params->rank_count * ZC_SIM_MAX_LANES, sizeof *made->heap.lanes);
    made->ahead = calloc((size_t)params->rank_count * params->rank_count, sizeof *made->ahead);
    if (made->ranks == NULL || made->heap.lanes == NULL || made->ahead == NULL) {
        zc_sim_destroy(made);
        return ZCTA_ERR_NO_MEMORY;
    }
    for (uint32_t i = 0; i < params->rank_count; i++) {
        made->ranks[i].sim = made;
        made->ranks[i].rank = i;
        made->ranks[i].ops_left = UINT64_MAX;
        made->ranks[i].inbox_end = &made->ranks[i].inbox;
    }
    *sim = made;
    return ZCTA_OK;
}

void zc_sim_destroy(struct zc_sim *sim)
{
    if (sim == NULL)
        return;
    for (uint32_t i = 0; sim->ranks != NULL && i < sim->params.rank_count; i++) {
        free(sim->ranks[i].queue);
        zc_sim_drop_messages(&sim->ranks[i]);
    }
    free(sim->ranks);
    free(sim->heap.lanes);
    free(sim->ahead);
    free(sim->memories);
    zc_diag_destroy(&sim->diag);
    free(sim);
}

struct zc_device *zc_sim_device(struct zc_sim *sim, uint32_t rank)
{
    return &sim->ranks[rank];
}

void zc_sim_kill(struct zc_sim *sim, uint32_t rank, uint64_t after_ops)
{
    sim->ranks[rank].ops_left = after_ops;
}

/* A simulated rank alone is one of a simulation of one. */
static zcta_status sim_open(const struct zc_device_params *params, struct zc_device **device)
{
    const struct zc_sim_params alone = {.rank_count = 1, .moves_data = true};
    struct zc_sim *sim = NULL;

    if (zc_sim_create(&alone, &sim) != ZCTA_OK)
        return zc_fail(params->diag, ZCTA_ERR_NO_MEMORY, "open", 0, "out of memory");
    *device = zc_sim_device(sim, 0);
    return ZCTA_OK;
}

static void sim_close(struct zc_device *device)
{
    zc_sim_destroy(device->sim);
}

static void sim_describe(const struct zc_device *device, struct zc_device_caps *caps)
{
    (void)device;
    *caps = (struct zc_device_caps){
        .name = "sim",
        .title = "Simulation",
        .signals = "in memory",
        .lanes = 2,
        .slot_bytes = sizeof(struct zc_sim_slot),
        .pad_head_bytes = 0,
        .scratch_bytes = (size_t)64 << 10,
        .bounce_bytes = (size_t)4 << 20,
        .host_bytes = (size_t)1 << 20,
        .ring_bytes = (size_t)16 << 20,
        .pull_small = true,
    };
}

static zcta_status sim_attach(struct zc_device *device, struct zc_guard *guard)
{
    (void)device;
    (void)guard;
    return ZCTA_OK;
}

static void sim_detach(struct zc_device *device, struct zc_guard *guard)
{
    (void)device;
    (void)guard;
}

static zcta_status sim_bind(struct zc_device *device, struct zc_program *program)
{
    (void)device;
    (void)program;
    return ZCTA_OK;
}

/* Memory is in one piece here. */
static zcta_status sim_export_piece(struct zc_device *device, struct zc_memory *memory,
                                    uint32_t piece, struct zc_memory_handle *handle, int *fd)
{
    (void)device, (void)memory, (void)piece, (void)handle;
    *fd = -1;
    return ZCTA_ERR_UNSUPPORTED;
}

static zcta_status sim_import_piece(struct zc_device *device, struct zc_memory *memory,
                                    uint32_t piece, const struct zc_memory_handle *handle, int fd)
{
    (void)device, (void)memory, (void)piece, (void)handle, (void)fd;
    return ZCTA_ERR_UNSUPPORTED;
}

static uint64_t sim_join_domain(struct zc_device *device)
{
    (void)device;
    return 0;
}

static bool sim_reaches(struct zc_device *device, uint64_t gpu_id)
{
    (void)device, (void)gpu_id;
    return true;
}

static zcta_status sim_enter(struct zc_device *device)
{
    (void)device;
    return ZCTA_OK;
}

static void sim_leave(struct zc_device *device)
{
    (void)device;
}

static zcta_status sim_is_capturing(struct zc_device *device, zcta_stream stream, bool *capturing)
{
    (void)device, (void)stream;
    *capturing = false;
    return ZCTA_OK;
}

const struct zc_device_ops zc_device_sim = {
    .kind = ZCTA_DEVICE_AUTO,
    .open = sim_open,
    .close = sim_close,
    .describe = sim_describe,
    .join_domain = sim_join_domain,
    .reaches = sim_reaches,
    .memory_alloc = zc_sim_memory_alloc,
    .memory_adopt = zc_sim_memory_adopt,
    .memory_export = zc_sim_memory_export,
    .memory_import = zc_sim_memory_import,
    .memory_export_piece = sim_export_piece,
    .memory_import_piece = sim_import_piece,
    .memory_release = zc_sim_memory_release,
    .view_map = zc_sim_view_map,
    .view_unmap = zc_sim_view_unmap,
    .attach = sim_attach,
    .detach = sim_detach,
    .bind = sim_bind,
    .submit = zc_sim_submit,
    .enter = sim_enter,
    .leave = sim_leave,
    .is_capturing = sim_is_capturing,
    .wake = zc_sim_wake,
    .drain = zc_sim_drain,
};
