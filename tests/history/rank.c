/* history-rank FOLDER PROCESS ROOT: the ranks of one process of a job. Follows FOLDER/schedule and
 * writes FOLDER/history.RANK and, for what the process has left at its end, FOLDER/left.PROCESS. */
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "history.h"

/* ---- What a process has ---- */

struct possessions {
    uint32_t files, threads, mappings;
};

static uint32_t count_entries(const char *folder)
{
    DIR *directory = opendir(folder);
    uint32_t count = 0;

    while (directory != NULL && readdir(directory) != NULL)
        count++;
    if (directory != NULL)
        closedir(directory);
    return count;
}

static uint32_t count_mappings(void)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[512];
    uint32_t count = 0;

    while (maps != NULL && fgets(line, sizeof line, maps) != NULL)
        count += strstr(line, "memfd:zerocta") != NULL;
    if (maps != NULL)
        fclose(maps);
    return count;
}

static struct possessions look(void)
{
    return (struct possessions){.files = count_entries("/proc/self/fd"),
                                .threads = count_entries("/proc/self/task"),
                                .mappings = count_mappings()};
}

static void *end_at_once(void *data)
{
    return data;
}

/* Sanitizers start a thread of their own beside a program's first. */
static struct possessions look_before(void)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, end_at_once, NULL) == 0)
        pthread_join(thread, NULL);
    return look();
}

/* A thread that has been joined is seen in /proc for a moment yet. */
static struct possessions look_after(const struct possessions *before)
{
    struct possessions after = look();

    for (uint32_t tries = 0; tries < 2000 && after.threads > before->threads; tries++) {
        usleep(1000);
        after = look();
    }
    return after;
}

/* ---- One rank ---- */

static int open_file(const struct job *job, const char *name, uint32_t number, int flags)
{
    char path[512];
    int fd;

    snprintf(path, sizeof path, "%s/%s.%" PRIu32, job->folder, name, number);
    fd = open(path, O_CREAT | O_CLOEXEC | flags, 0644);
    if (fd < 0) {
        perror(path);
        _exit(4);
    }
    return fd;
}

/* Step 0. */
static bool join(struct rank *self)
{
    const struct job *job = self->job;
    zcta_error error = {0};
    const zcta_init_params params = {
        .size = sizeof params,
        .rank = self->number,
        .rank_count = (uint32_t)line_number(job->head, "rank_count", 0),
        .root = job->root,
        .token = "a history's token",
        .device = ZCTA_DEVICE_HOST,
        .check = (uint32_t)line_number(job->head, "check", 0),
        .timeout_ns = line_number(job->head, "deadline_ms", 0) * 1000000,
        .error = &error,
    };
    struct trouble *trouble;
    zcta_status status;

    self->line = job->head;
    self->incident = job_incident(job, 0, self->number);
    record_begin(self);
    trouble = trouble_begin(self);
    status = zcta_init(&params, &self->context);
    self->ended = now_ns();
    trouble_end(trouble);
    if (status == ZCTA_OK)
        record_end(self, status);
    else
        record_failed_init(self, status, &error);
    self->teams[0] = zcta_world(self->context);
    return status == ZCTA_OK;
}

static void follow(struct rank *self, const char *line)
{
    struct trouble *trouble;

    self->line = line;
    self->step = (uint32_t)line_number(line, "k", 0);
    self->incident = job_incident(self->job, self->step, self->number);
    self->outputs[0] = '\0';
    if (self->incident != NULL && line_says(self->incident, "kind", "absent")) {
        record_incident(self);
        return;
    }
    trouble = trouble_begin(self);
    perform(self);
    trouble_end(trouble);
    atomic_store(&self->job->board->progress[self->number], self->step);
}

static void leave(struct rank *self)
{
    zcta_status status;

    self->step = UINT32_MAX;
    self->line = "step op=finalize";
    self->outputs[0] = '\0';
    if (self->number % 2 == 0 && self->stream != NULL)
        zcta_host_stream_destroy(&self->stream);
    record_begin(self);
    status = zcta_finalize(&self->context);
    self->ended = now_ns();
    record_end(self, status);
}

/* Whether the schedule kills the process of this rank, by whichever of its ranks. */
static bool is_to_die(const struct rank *self)
{
    for (uint32_t i = 0; i < self->job->line_count; i++) {
        const char *line = self->job->lines[i];

        if (line_is(line, "incident") &&
            (line_says(line, "kind", "kill") || line_says(line, "kind", "exit")) &&
            line_lists(line, "guilty", self->number))
            return true;
    }
    return false;
}

static void *rank_main(void *data)
{
    struct rank *self = data;
    const struct job *job = self->job;

    if (!join(self))
        return NULL;
    for (uint32_t i = 0; i < job->line_count && !self->left; i++)
        if (line_is(job->lines[i], "step") && line_lists(job->lines[i], "ranks", self->number))
            follow(self, job->lines[i]);
    while (!self->left && is_to_die(self))
        pause();
    if (!self->left)
        leave(self);
    forget_objects(self);
    return NULL;
}

/* ---- The process ---- */

static void map_board(struct job *job)
{
    const int fd = open_file(job, "board", 0, O_RDWR);
    void *at = MAP_FAILED;

    if (ftruncate(fd, sizeof(struct board)) == 0)
        at = mmap(NULL, sizeof(struct board), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        _exit(4);
    job->board = at;
    close(fd);
}

static void run_ranks(struct job *job, const uint32_t *numbers, uint32_t count)
{
    struct rank *ranks = calloc(count, sizeof *ranks);
    pthread_t threads[MAX_RANKS];

    if (ranks == NULL)
        _exit(4);
    for (uint32_t i = 0; i < count; i++) {
        ranks[i].job = job;
        ranks[i].number = numbers[i];
        ranks[i].history = open_file(job, "history", numbers[i], O_WRONLY | O_APPEND | O_TRUNC);
    }
    for (uint32_t i = 1; i < count; i++)
        if (pthread_create(&threads[i], NULL, rank_main, &ranks[i]) != 0)
            _exit(4);
    rank_main(&ranks[0]);
    for (uint32_t i = 1; i < count; i++)
        pthread_join(threads[i], NULL);
    for (uint32_t i = 0; i < count; i++)
        close(ranks[i].history);
    free(ranks);
}

int main(int argc, char **argv)
{
    struct job job = {.folder = argc == 4 ? argv[1] : NULL, .root = argc == 4 ? argv[3] : NULL};
    uint32_t numbers[MAX_RANKS], count;
    struct possessions before, after;
    char path[512];
    int left;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    snprintf(path, sizeof path, "%s/schedule", argc == 4 ? argv[1] : "");
    if (argc != 4 || !job_read(&job, path)) {
        fprintf(stderr, "usage: history-rank FOLDER PROCESS ROOT, and %s is a schedule\n", path);
        return 2;
    }
    count = line_list(job_find(&job, "process", (uint32_t)strtoul(argv[2], NULL, 10)), "ranks",
                      numbers, MAX_RANKS);
    crc_prepare(job.crc_table);
    map_board(&job);
    left = open_file(&job, "left", (uint32_t)strtoul(argv[2], NULL, 10), O_WRONLY | O_TRUNC);
    before = look_before();
    run_ranks(&job, numbers, count);
    after = look_after(&before);
    dprintf(left,
            "{\"files\":[%" PRIu32 ",%" PRIu32 "],\"threads\":[%" PRIu32 ",%" PRIu32
            "],\"mappings\":[%" PRIu32 ",%" PRIu32 "]}\n",
            before.files, after.files, before.threads, after.threads, before.mappings,
            after.mappings);
    close(left);
    munmap(job.board, sizeof(struct board));
    free(job.text);
    return 0;
}
