/* What the commands about a collective share. */
#include "collective.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "commands.h"
#include "guess.h"
#include "options.h"

const char *const zc_policy_choices[] = {"default", "efficiency", "zero", NULL};
const char *const zc_engine_choices[] = {"auto", "ce", "nccl", NULL};
const char *const zc_device_choices[] = {"auto", "host", "cuda", NULL};

bool zc_check_collective(const char *command, const char *name)
{
    const char *known = zc_collective_name(ZC_COLLECTIVE_ALL_GATHER);
    struct zc_guess guess = {.given = name};
    char meant[ZC_GUESS_TEXT_BYTES];

    if (strcmp(name, known) == 0)
        return true;
    zc_guess_try(&guess, known);
    zc_usage_error(command, "there is no collective '%s'%s; there is %s", name,
                   zc_guess_text(&guess, "", meant), known);
    return false;
}

uint64_t zc_round_output(uint64_t bytes, uint32_t rank_count)
{
    const uint64_t over = bytes % rank_count;

    return over == 0 ? bytes : bytes + (rank_count - over);
}

uint64_t zc_share_of(const char *command, uint64_t bytes, uint32_t rank_count)
{
    const uint64_t rounded = zc_round_output(bytes, rank_count);

    if (rounded != bytes)
        fprintf(stderr,
                "zerocta %s: note: %" PRIu64 " bytes do not divide by %" PRIu32
                " ranks; rounded up to %" PRIu64 "\n",
                command, bytes, rank_count, rounded);
    return rounded / rank_count;
}

const char *zc_call_text(uint32_t rank_count, uint64_t share, bool in_place,
                         char text[ZC_CALL_TEXT_BYTES])
{
    char whole[ZC_SIZE_TEXT_BYTES];

    snprintf(text, ZC_CALL_TEXT_BYTES,
             "%s: %" PRIu32 " %s x %" PRIu64 " bytes (%s in all), %s place",
             zc_collective_name(ZC_COLLECTIVE_ALL_GATHER), rank_count,
             rank_count == 1 ? "rank" : "ranks", share, zc_size_text(share * rank_count, whole),
             in_place ? "in" : "out of");
    return text;
}

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
