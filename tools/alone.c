/* A device opened by a process alone. */
#include "alone.h"

#include <errno.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api/objects.h"
#include "base/environment.h"
#include "choices.h"
#include "commands.h"
#include "device/cuda/cuda_driver.h"
#include "options.h"

bool zc_host_caps(const char *command, uint32_t rank_count, struct zc_device_caps *caps)
{
    struct zc_device *opened = NULL;
    struct zc_diag diag;
    zcta_error error;
    zcta_status status;

    zc_diag_init(&diag);
    status = zc_device_host.open(
        &(struct zc_device_params){.diag = &diag, .local_rank_count = rank_count}, &opened);
    if (status == ZCTA_OK) {
        zc_device_host.describe(opened, caps);
        zc_device_host.close(opened);
    } else {
        zc_diag_last(&diag, &error);
        zc_failure(command, "%s", error.message);
    }
    zc_diag_destroy(&diag);
    return status == ZCTA_OK;
}

zcta_context *zc_open_alone(const char *command, zcta_device device, const char *advice)
{
    zcta_error error = {0};
    const zcta_init_params params = {
        .size = sizeof params, .rank_count = 1, .device = device, .error = &error};
    zcta_context *context = NULL;

    if (zcta_init(&params, &context) == ZCTA_OK)
        return context;
    zc_failure(command, "no %s device: %s%s", zc_device_choices[device], error.message,
               device == ZCTA_DEVICE_CUDA ? advice : "");
    return NULL;
}

static bool reaches(const struct zc_cuda_driver *driver, int from, int to)
{
    zc_cu_device gpu = 0, peer = 0;
    int can = 0;

    return driver->cuDeviceGet(&gpu, from) != ZC_CU_SUCCESS ||
           driver->cuDeviceGet(&peer, to) != ZC_CU_SUCCESS ||
           driver->cuDeviceCanAccessPeer(&can, gpu, peer) != ZC_CU_SUCCESS || can != 0;
}

/* Whether GPUs 0 to count - 1 reach each other; those that are not seen here count as if they did.
 */
static bool are_joined(const struct zc_cuda_driver *driver, uint32_t count)
{
    bool joined = true;
    int seen = 0;

    if (driver->cuDeviceGetCount(&seen) != ZC_CU_SUCCESS)
        return true;
    for (int i = 0; i < seen && (uint32_t)i < count; i++)
        for (int j = 0; j < i && joined; j++)
            joined = reaches(driver, i, j) && reaches(driver, j, i);
    return joined;
}

/* Whether so many ranks, on GPUs 0, 1 and so on, would not all reach each other's memory. */
static bool is_apart(const zcta_context *context, uint32_t rank_count)
{
    struct zc_cuda_driver driver;
    struct zc_diag diag;
    bool apart = rank_count > 1 && zc_environment_choice("ZEROCTA_P2P") == 0;

    if (apart || zcta_context_device(context) != ZCTA_DEVICE_CUDA)
        return apart;
    zc_diag_init(&diag);
    if (zc_cuda_driver_load(&diag, &driver) == ZCTA_OK) {
        apart = !are_joined(&driver, rank_count);
        zc_cuda_driver_unload(&driver);
    }
    zc_diag_destroy(&diag);
    return apart;
}

struct zc_facts zc_alone_facts(zcta_context *context, const struct zc_layout *layout, bool in_place,
                               zcta_engine engine)
{
    const bool gpus = zcta_context_device(context) == ZCTA_DEVICE_CUDA;
    const bool agreed = (layout->collective->traits & ZC_REPLICATES) != 0;

    return (struct zc_facts){.layout = layout,
                             .caps = &context->caps,
                             .nccl =
                                 gpus && engine != ZCTA_ENGINE_CE ? zc_load_nccl(context) : NULL,
                             .in_place = in_place && agreed,
                             .apart = is_apart(context, layout->ranks),
                             .policy = ZCTA_POLICY_DEFAULT,
                             .engine = engine};
}

static int open_once(const char *command, zcta_device device, const char *advice)
{
    zcta_context *context = zc_open_alone(command, device, advice);

    if (context == NULL)
        return ZC_EXIT_FAILED;
    zcta_finalize(&context);
    return ZC_EXIT_OK;
}

int zc_try_device(const char *command, zcta_device device, const char *advice)
{
    const pid_t child = fork();
    int status = 0;

    if (child < 0)
        return zc_failure(command, "cannot start a process: %s", strerror(errno));
    if (child == 0)
        _exit(open_once(command, device, advice));
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        continue;
    return WIFEXITED(status) ? WEXITSTATUS(status) : ZC_EXIT_FAILED;
}
