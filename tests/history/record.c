/* Writing a history. Every line is one write(), so a rank that is killed loses at most its last. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "history.h"

uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void record(const struct rank *self, const char *format, ...)
{
    char line[4096];
    va_list arguments;
    int bytes;

    va_start(arguments, format);
    bytes = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    if (bytes > (int)sizeof line - 2)
        bytes = (int)sizeof line - 2;
    line[bytes] = '\n';
    if (write(self->history, line, (size_t)bytes + 1) != bytes + 1)
        _exit(4);
}

/* A sentence as a string of JSON. */
static void quote(const char *text, char *quoted, size_t bytes)
{
    size_t at = 0;

    for (; *text != '\0' && at + 3 < bytes; text++) {
        if (*text == '"' || *text == '\\')
            quoted[at++] = '\\';
        quoted[at++] = (unsigned char)*text < ' ' ? ' ' : *text;
    }
    quoted[at] = '\0';
}

static int64_t signed_rank(uint32_t rank)
{
    return rank == ZCTA_NO_RANK ? -1 : (int64_t)rank;
}

/* `"name":[status, rank, "call", "sentence"]` */
static void print_error(const char *name, const zcta_error *error, char *text, size_t bytes)
{
    char message[2 * sizeof error->message], call[2 * sizeof error->call];

    quote(error->message, message, sizeof message);
    quote(error->call, call, sizeof call);
    snprintf(text, bytes, "\"%s\":[%d,%" PRId64 ",\"%s\",\"%s\"]", name, (int)error->status,
             signed_rank(error->rank), call, message);
}

static void print_last(const struct rank *self, zcta_status status, char *text, size_t bytes)
{
    zcta_error error = {0};

    if (status != ZCTA_OK)
        zcta_last_error(self->context, &error);
    print_error("error", &error, text, bytes);
}

/* The failure of the step's team, if it is still there. */
static void print_team(struct rank *self, char *text, size_t bytes)
{
    const uint64_t id = line_number(self->line, "team", MAX_OBJECTS);
    zcta_error error = {.rank = ZCTA_NO_RANK};

    if (id < MAX_OBJECTS && self->teams[id] != NULL)
        zcta_team_failure(self->teams[id], &error);
    snprintf(text, bytes, "\"team\":[%d,%" PRId64 "]", (int)error.status, signed_rank(error.rank));
}

void record_begin(struct rank *self)
{
    record(self, "{\"k\":%" PRIu32 ",\"begin\":%" PRIu64 "}", self->step, now_ns());
}

void record_end(struct rank *self, zcta_status status)
{
    char error[2048], team[64];

    print_last(self, status, error, sizeof error);
    print_team(self, team, sizeof team);
    record(self, "{\"k\":%" PRIu32 ",\"end\":%" PRIu64 ",\"status\":%d,%s,%s,\"outputs\":[%s]}",
           self->step, self->ended, (int)status, team, error, self->outputs);
}

void record_failed_init(struct rank *self, zcta_status status, const zcta_error *failure)
{
    char error[2048];

    print_error("error", failure, error, sizeof error);
    record(self, "{\"k\":0,\"end\":%" PRIu64 ",\"status\":%d,\"team\":[0,-1],%s,\"outputs\":[]}",
           self->ended, (int)status, error);
}

void record_incident(const struct rank *self)
{
    record(self, "{\"k\":%" PRIu32 ",\"incident\":%" PRIu64 "}", self->step, now_ns());
}

void record_refused(const struct rank *self, zcta_status status)
{
    char error[2048];

    print_last(self, status, error, sizeof error);
    record(self, "{\"k\":%" PRIu32 ",\"refused\":%" PRIu64 ",\"status\":%d,%s}", self->step,
           now_ns(), (int)status, error);
}

void record_skip(const struct rank *self, const char *why)
{
    record(self, "{\"k\":%" PRIu32 ",\"skip\":%" PRIu64 ",\"why\":\"%s\"}", self->step, now_ns(),
           why);
}

void record_teams(struct rank *self)
{
    for (uint32_t id = 0; id < MAX_OBJECTS; id++) {
        const uint64_t give_up = now_ns() + UINT64_C(10000000000);
        zcta_error failure = {0};
        char error[2048];

        if (self->teams[id] == NULL)
            continue;
        /* Where one rank has seen it fail, the others hear of it, if not at once. */
        zcta_team_failure(self->teams[id], &failure);
        while (failure.status == ZCTA_OK && atomic_load(&self->job->board->failed[id]) != 0 &&
               now_ns() < give_up) {
            usleep(1000);
            zcta_team_failure(self->teams[id], &failure);
        }
        print_error("error", &failure, error, sizeof error);
        record(self, "{\"final\":%" PRIu32 ",\"at\":%" PRIu64 ",%s}", id, now_ns(), error);
    }
}
