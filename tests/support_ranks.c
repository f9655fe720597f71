/* Ranks for tests, as threads of this process or as processes. */
#include "support_ranks.h"
#include "support_ports.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

static const struct ranks_options usual = {0};

static uint64_t timeout_of(const struct ranks_options *options)
{
    return options->timeout_ns != 0 ? options->timeout_ns : UINT64_C(20000000000);
}

static void run_rank(const zcta_init_params *given, const struct ranks_options *options,
                     rank_fn *function, void *data)
{
    zcta_init_params params = *given;
    zcta_context *context = NULL;
    zcta_error error = {0};
    zcta_status status;

    params.size = sizeof params;
    params.device = options->device == ZCTA_DEVICE_AUTO ? ZCTA_DEVICE_HOST : options->device;
    params.timeout_ns = timeout_of(options);
    params.check = options->check;
    if (options->node_ranks != 0)
        params.node = 1 + params.rank / options->node_ranks;
    params.error = &error;
    status = zcta_init(&params, &context);
    if (status != ZCTA_OK && options->may_fail_to_init)
        return;
    if (status != ZCTA_OK)
        fprintf(stderr, "zcta_init, rank %u: %s\n", params.rank, error.message);
    EXPECT(status == ZCTA_OK);
    function(context, data);
    status = zcta_finalize(&context);
    EXPECT(options->may_fail_to_finalize || status == ZCTA_OK);
}

/* ---- Threads ---- */

/* The caller's exchange: a board and a barrier. */
struct board {
    pthread_barrier_t barrier;
    uint32_t count;
    unsigned char *bytes;
    const struct ranks_options *options;
    rank_fn *function;
    void *data;
};

struct thread_rank {
    struct board *board;
    uint32_t rank;
};

static int exchange(void *data, const void *mine, void *all, size_t bytes)
{
    struct thread_rank *self = data;
    struct board *board = self->board;

    if (self->rank == 0)
        board->bytes = malloc(bytes * board->count);
    pthread_barrier_wait(&board->barrier);
    if (bytes > 0)
        memcpy(board->bytes + self->rank * bytes, mine, bytes);
    pthread_barrier_wait(&board->barrier);
    if (bytes > 0)
        memcpy(all, board->bytes, bytes * board->count);
    pthread_barrier_wait(&board->barrier);
    if (self->rank == 0)
        free(board->bytes);
    return 0;
}

static void *thread_main(void *data)
{
    struct thread_rank *self = data;
    zcta_init_params params = {.rank = self->rank,
                               .rank_count = self->board->count,
                               .exchange = exchange,
                               .exchange_data = self};

    run_rank(&params, self->board->options, self->board->function, self->board->data);
    return NULL;
}

void run_as_threads_with(uint32_t count, const struct ranks_options *options, rank_fn *function,
                         void *data)
{
    struct board board = {.count = count, .options = options, .function = function, .data = data};
    pthread_t *threads = calloc(count, sizeof *threads);
    struct thread_rank *ranks = calloc(count, sizeof *ranks);

    EXPECT(threads != NULL && ranks != NULL);
    EXPECT(pthread_barrier_init(&board.barrier, NULL, count) == 0);
    for (uint32_t i = 0; i < count; i++) {
        ranks[i] = (struct thread_rank){.board = &board, .rank = i};
        EXPECT(pthread_create(&threads[i], NULL, thread_main, &ranks[i]) == 0);
    }
    for (uint32_t i = 0; i < count; i++)
        EXPECT(pthread_join(threads[i], NULL) == 0);
    pthread_barrier_destroy(&board.barrier);
    free(ranks);
    free(threads);
}

void run_as_threads(uint32_t count, rank_fn *function, void *data)
{
    run_as_threads_with(count, &usual, function, data);
}

/* ---- Processes ---- */

void start_processes(uint32_t count, const struct ranks_options *options, rank_fn *function,
                     void *data, pid_t *pids)
{
    char root[32];

    snprintf(root, sizeof root, "127.0.0.1:%u", free_port());
    fflush(NULL);
    for (uint32_t i = 0; i < count; i++) {
        zcta_init_params params = {
            .rank = i, .rank_count = count, .root = root, .token = "a test's token"};

        pids[i] = fork();
        EXPECT(pids[i] >= 0);
        if (pids[i] == 0) {
            for (int fd = 0; fd <= STDERR_FILENO; fd++)
                if ((options->closed >> fd & 1) != 0)
                    close(fd);
            setenv("ZEROCTA_JOB", "a test", 0); /* nobody else is at this root */
            run_rank(&params, options, function, data);
            fflush(NULL);
            _exit(0);
        }
    }
}

int wait_process(pid_t pid, double seconds)
{
    const uint64_t end = now_ns() + (uint64_t)(seconds * 1e9);
    int status = -1;

    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (now_ns() > end) {
            fprintf(stderr, "process %d still runs after %g s\n", (int)pid, seconds);
            kill(pid, SIGKILL);
            abort();
        }
        sleep_ms(1);
    }
    return WIFSIGNALED(status) ? 256 + WTERMSIG(status) : WEXITSTATUS(status);
}

void run_as_processes_with(uint32_t count, const struct ranks_options *options, rank_fn *function,
                           void *data)
{
    pid_t *pids = calloc(count, sizeof *pids);

    EXPECT(pids != NULL);
    start_processes(count, options, function, data, pids);
    for (uint32_t i = 0; i < count; i++) {
        const int status = wait_process(pids[i], 120);

        EXPECT(status == 0 || (options->may_fail_to_finalize && status == 256 + SIGKILL));
    }
    free(pids);
}

void run_as_processes(uint32_t count, rank_fn *function, void *data)
{
    run_as_processes_with(count, &usual, function, data);
}

/* ---- Expectations ---- */

uint64_t path_calls(zcta_team *team, const char *path, uint64_t *fallbacks)
{
    enum { MOST = 32 };
    zcta_path_counter counters[MOST];
    uint32_t count = MOST;

    for (uint32_t i = 0; i < MOST; i++)
        counters[i].size = sizeof counters[i];
    EXPECT(zcta_team_counters(team, counters, &count) == ZCTA_OK && count <= MOST);
    if (fallbacks != NULL)
        *fallbacks = 0;
    for (uint32_t i = 0; i < count; i++)
        if (strcmp(counters[i].path, path) == 0) {
            if (fallbacks != NULL)
                *fallbacks = counters[i].fallbacks;
            return counters[i].calls;
        }
    return 0;
}

bool are_kept_apart(void)
{
    const char *text = getenv("ZEROCTA_P2P");

    return text != NULL && strcmp(text, "0") == 0;
}

void expect_error(zcta_context *context, zcta_status got, zcta_status wanted, const char *text)
{
    zcta_error error = {0};

    zcta_last_error(context, &error);
    if (got != wanted)
        fprintf(stderr, "got %s, wanted %s; last error: %s\n", zcta_status_name(got),
                zcta_status_name(wanted), error.message);
    EXPECT(got == wanted);
    if (text != NULL && strstr(error.message, text) == NULL)
        fprintf(stderr, "wanted \"%s\" in \"%s\"\n", text, error.message);
    EXPECT(text == NULL || (error.status == wanted && strstr(error.message, text) != NULL));
}

zcta_status await_failure(zcta_team *team)
{
    const uint64_t end = now_ns() + UINT64_C(10000000000);

    while (zcta_team_status(team) == ZCTA_OK && now_ns() < end)
        sleep_ms(1);
    return zcta_team_status(team);
}

void expectation_failed(const char *condition, const char *file, int line)
{
    fprintf(stderr, "%s:%d: expected %s\n", file, line, condition);
    abort();
}

/* ---- Calls ---- */

zcta_call all_gather_call(const void *send, void *recv, size_t bytes,
                          const zcta_call_params *params)
{
    zcta_call call = {.size = sizeof call,
                      .collective = ZCTA_ALL_GATHER,
                      .send = send,
                      .recv = recv,
                      .bytes = bytes};

    if (params != NULL) {
        call.policy = params->policy;
        call.engine = params->engine;
    }
    return call;
}

zcta_status plan_all_gather(zcta_team *team, const void *send, void *recv, size_t bytes,
                            const zcta_call_params *params, zcta_plan **plan)
{
    const zcta_call call = all_gather_call(send, recv, bytes, params);

    return zcta_plan_make(team, &call, plan);
}

zcta_status explain_all_gather(zcta_team *team, const void *send, void *recv, size_t bytes,
                               const zcta_call_params *params, zcta_report *report)
{
    const zcta_call call = all_gather_call(send, recv, bytes, params);

    if (report != NULL)
        report->size = sizeof *report;
    return zcta_explain(team, &call, report);
}

/* ---- The model ---- */

void model_fill(unsigned char *share, uint32_t call, uint32_t rank, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        share[i] = model_byte(call, rank, i);
}

size_t model_wrong(const unsigned char *output, uint32_t call, uint32_t count, size_t bytes)
{
    size_t wrong = 0;

    for (uint32_t rank = 0; rank < count; rank++)
        for (size_t i = 0; i < bytes; i++)
            wrong += output[rank * bytes + i] != model_byte(call, rank, i);
    return wrong;
}

void gather_checked(zcta_context *context, zcta_team *team, void *recv, size_t bytes, uint32_t call)
{
    const uint32_t rank = zcta_team_rank(team), count = zcta_team_rank_count(team);
    unsigned char *mine = (unsigned char *)recv + rank * bytes;

    memset(recv, 0xee, bytes * count);
    model_fill(mine, call, rank, bytes);
    EXPECT_OK(context, zcta_all_gather(team, mine, recv, bytes, NULL, NULL));
    EXPECT(model_wrong(recv, call, count, bytes) == 0);
}

/* ---- What a process has ---- */

void *shared_zeroed(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    EXPECT(memory != MAP_FAILED);
    return memory;
}

uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void sleep_ms(uint32_t ms)
{
    const struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

    nanosleep(&time, NULL);
}

uint32_t count_fds(void)
{
    DIR *directory = opendir("/proc/self/fd");
    uint32_t count = 0;

    EXPECT(directory != NULL);
    while (readdir(directory) != NULL)
        count++;
    closedir(directory);
    return count;
}

uint32_t count_shared_mappings(void)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[512];
    uint32_t count = 0;

    EXPECT(maps != NULL);
    while (fgets(line, sizeof line, maps) != NULL)
        count += strstr(line, "memfd:zerocta") != NULL;
    fclose(maps);
    return count;
}
