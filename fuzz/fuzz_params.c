/* Parameter structs, sizes, buffers and the launcher's environment, as a caller or a launcher might
 * get them wrong. Everything runs on one rank alone. The first byte selects what is fuzzed. */
#include <string.h>
#include <unistd.h>

#include "fuzz.h"
#include "rendezvous/rendezvous.h"
#include "zerocta/zerocta.h"

enum { LARGEST_STRUCT = 4096, WINDOW = 5000, STRING = 64 };

/* Takes bytes off the front of the input; zeros once it is used up. */
struct input {
    const uint8_t *at;
    size_t left;
};

static void take(struct input *input, void *to, size_t bytes)
{
    const size_t given = bytes < input->left ? bytes : input->left;

    memset(to, 0, bytes);
    if (given > 0)
        memcpy(to, input->at, given);
    input->at += given;
    input->left -= given;
}

static void take_string(struct input *input, char text[STRING])
{
    uint8_t length;

    take(input, &length, 1);
    take(input, text, STRING);
    text[length % STRING] = '\0';
}

/* A struct of any size a caller may claim; the memory behind it is always there. */
union any_struct {
    size_t size;
    zcta_init_params init;
    zcta_team_params team;
    zcta_call_params call;
    unsigned char bytes[LARGEST_STRUCT];
};

static void take_struct(struct input *input, union any_struct *any)
{
    uint16_t size;

    memset(any, 0, sizeof *any);
    take(input, &size, sizeof size);
    take(input, any->bytes + sizeof any->size, 256);
    any->size = size;
}

static void set_pointer(void *field, const void *value)
{
    memcpy(field, &value, sizeof value);
}

static void fuzz_init(struct input *input)
{
    union any_struct any;
    char token[STRING], timeout[STRING];
    zcta_context *context = NULL;
    zcta_error error = {0};
    uint8_t has;

    take(input, &has, 1);
    take_string(input, token);
    take_string(input, timeout);
    take_struct(input, &any);
    set_pointer(&any.init.root, NULL);
    set_pointer(&any.init.token, has & 1 ? token : NULL);
    set_pointer(&any.init.error, has & 2 ? &error : NULL);
    any.init.exchange = NULL;
    any.init.exchange_data = NULL;
    if (any.init.device == ZCTA_DEVICE_AUTO || any.init.device == ZCTA_DEVICE_CUDA)
        any.init.device = ZCTA_DEVICE_HOST;
    /* A struct that ends before its device leaves the choice to the library: no GPU here. */
    if (any.size < offsetof(zcta_init_params, device) + sizeof any.init.device &&
        any.size >= sizeof any.size)
        return;
    if (has & 4)
        setenv("ZEROCTA_TIMEOUT", timeout, 1);
    if (zcta_init(&any.init, &context) == ZCTA_OK) {
        FUZZ_REQUIRE(context != NULL && zcta_team_rank_count(zcta_world(context)) == 1);
        FUZZ_REQUIRE(zcta_finalize(&context) == ZCTA_OK);
    } else {
        FUZZ_REQUIRE(context == NULL);
        FUZZ_REQUIRE(any.size < sizeof any.init || any.init.error == NULL ||
                     error.message[0] != '\0');
    }
    unsetenv("ZEROCTA_TIMEOUT");
}

static zcta_context *one_rank(void)
{
    const zcta_init_params params = {
        .size = sizeof params, .rank_count = 1, .device = ZCTA_DEVICE_HOST};
    zcta_context *context = NULL;

    FUZZ_REQUIRE(zcta_init(&params, &context) == ZCTA_OK);
    return context;
}

static void fuzz_team(struct input *input)
{
    zcta_context *context = one_rank();
    zcta_team *team = NULL;
    union any_struct any;
    char name[STRING];
    uint32_t ranks[4], count;
    uint8_t has;

    take(input, &has, 1);
    take(input, ranks, sizeof ranks);
    take(input, &count, sizeof count);
    take_string(input, name);
    take_struct(input, &any);
    set_pointer(&any.team.name, has & 1 ? name : NULL);
    if (has & 2)
        memset(ranks, 0, sizeof ranks);
    if (has & 4 || count > 4)
        count = 1;
    if (zcta_team_get(context, has & 8 ? NULL : ranks, count, &any.team, &team) == ZCTA_OK) {
        FUZZ_REQUIRE(zcta_team_policy(team) >= ZCTA_POLICY_DEFAULT &&
                     zcta_team_policy(team) <= ZCTA_POLICY_ZERO);
        FUZZ_REQUIRE(zcta_team_rank(team) == 0 && zcta_team_rank_count(team) == 1);
        FUZZ_REQUIRE(zcta_barrier(team, NULL) == ZCTA_OK);
        FUZZ_REQUIRE(zcta_team_destroy(&team) == ZCTA_OK);
    } else {
        FUZZ_REQUIRE(team == NULL);
    }
    FUZZ_REQUIRE(zcta_finalize(&context) == ZCTA_OK);
}

/* Where the buffers lie and how large they are; what fits is copied, and nothing else. */
static void fuzz_call(struct input *input)
{
    zcta_context *context = one_rank();
    zcta_window *window = NULL;
    union any_struct any;
    uint64_t bytes;
    uint16_t recv_at, send_at;
    uint8_t has;
    char *base, *send;
    zcta_status status;
    bool fits, apart;

    take(input, &has, 1);
    take(input, &bytes, sizeof bytes);
    take(input, &recv_at, sizeof recv_at);
    take(input, &send_at, sizeof send_at);
    take_struct(input, &any);
    if (has & 1)
        bytes %= WINDOW + 100;
    recv_at %= WINDOW + 10;
    send_at %= WINDOW + 10;
    FUZZ_REQUIRE(zcta_window_alloc(zcta_world(context), WINDOW, &window) == ZCTA_OK);
    base = zcta_window_base(window);
    send = base + send_at;
    status = zcta_all_gather(zcta_world(context), send, base + recv_at, bytes, NULL,
                             has & 2 ? &any.call : NULL);
    fits = bytes <= WINDOW && recv_at + bytes <= WINDOW && recv_at < WINDOW;
    apart = send_at == recv_at || send_at + bytes <= recv_at || recv_at + bytes <= send_at;
    FUZZ_REQUIRE(status != ZCTA_OK || bytes == 0 || (fits && apart));
    FUZZ_REQUIRE(status == ZCTA_OK || has & 2 || !fits || !apart || send_at + bytes > WINDOW);
    FUZZ_REQUIRE(zcta_finalize(&context) == ZCTA_OK);
}

/* The variables that launchers set, with any values. Only resolved; nothing connects. */
static void fuzz_environment(struct input *input)
{
    static const char *const names[] = {"ZEROCTA_RANK",
                                        "ZEROCTA_RANK_COUNT",
                                        "ZEROCTA_LOCAL_RANK",
                                        "ZEROCTA_LOCAL_RANK_COUNT",
                                        "ZEROCTA_ROOT",
                                        "ZEROCTA_TOKEN",
                                        "ZEROCTA_PORT",
                                        "RANK",
                                        "WORLD_SIZE",
                                        "LOCAL_RANK",
                                        "LOCAL_WORLD_SIZE",
                                        "MASTER_ADDR",
                                        "MASTER_PORT",
                                        "TORCHELASTIC_USE_AGENT_STORE",
                                        "OMPI_COMM_WORLD_RANK",
                                        "OMPI_COMM_WORLD_SIZE",
                                        "OMPI_COMM_WORLD_LOCAL_RANK",
                                        "PMIX_RANK",
                                        "PMIX_NAMESPACE",
                                        "SLURM_PROCID",
                                        "SLURM_NTASKS",
                                        "SLURM_LOCALID",
                                        "SLURM_JOB_ID",
                                        "SLURM_STEP_ID",
                                        "SLURM_STEP_NUM_TASKS",
                                        "SLURM_STEP_TASKS_PER_NODE",
                                        "SLURM_STEP_NUM_NODES",
                                        "SLURM_NODEID",
                                        "OMPI_COMM_WORLD_LOCAL_SIZE",
                                        "TORCHELASTIC_RUN_ID",
                                        "PMI_RANK",
                                        "PMI_ID",
                                        "PMI_SIZE",
                                        "MPI_LOCALRANKID",
                                        "MPI_LOCALNRANKS",
                                        "PALS_RANKID",
                                        "FLUX_TASK_RANK",
                                        "FLUX_JOB_SIZE",
                                        "FLUX_JOB_NNODES",
                                        "ZEROCTA_JOB"};
    enum { NAMES = sizeof names / sizeof *names };
    const zcta_init_params params = {.size = sizeof params};
    struct zc_diag diag;
    struct zc_job job = {0};
    char value[STRING];
    uint8_t index;

    while (input->left > 0) {
        take(input, &index, 1);
        take_string(input, value);
        setenv(names[index % NAMES], value, 1);
    }
    zc_diag_init(&diag);
    if (zc_job_resolve(&params, &diag, &job) == ZCTA_OK) {
        FUZZ_REQUIRE(job.rank < job.rank_count && job.rank_count <= ZC_MAX_RANKS);
        FUZZ_REQUIRE(job.local_rank_count >= 1 && job.local_rank_count <= job.rank_count);
        FUZZ_REQUIRE(job.rank_count == 1 || job.root[0] != '\0');
        if (job.listen_fd >= 0)
            close(job.listen_fd);
    } else {
        FUZZ_REQUIRE(diag.last.message[0] != '\0' && job.rank_count == 0);
    }
    zc_diag_destroy(&diag);
    for (int i = 0; i < NAMES; i++)
        unsetenv(names[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static void (*const targets[])(struct input *) = {fuzz_init, fuzz_team, fuzz_call,
                                                      fuzz_environment};
    struct input input = {data, bytes};
    uint8_t target;

    setenv("ZEROCTA_LOG", "off", 1);
    take(&input, &target, 1);
    targets[target % (sizeof targets / sizeof *targets)](&input);
    return 0;
}
