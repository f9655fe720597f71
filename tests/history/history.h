/* A rank of a job that follows a schedule and writes down what happened to it: what its files
 * share. The schedule is made by schedule.py, the history is judged by judge.py. */
#ifndef HISTORY_H
#define HISTORY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "zerocta/zerocta.h"

enum {
    MAX_RANKS = 8,
    MAX_OBJECTS = 256, /* teams, windows and plans of one schedule, each */
    MAX_LINES = 1024,
    MAX_OUTPUTS = 4, /* of one step */
    PERIOD = 251, /* of the model's bytes: a prime, so that no two parts of an output are alike */
    GUARD = 64,   /* bytes before and behind an output that nobody may touch */
    GUARD_BYTE = 0xee,
};

/* What the ranks of a job know of each other beside the library, in a file that all map. */
struct board {
    _Atomic uint32_t progress[MAX_RANKS]; /* steps that the rank has behind it; run reads these */
    _Atomic uint32_t fence[MAX_RANKS];    /* the last fence that the rank has come to */
    _Atomic uint32_t failed[MAX_OBJECTS]; /* whether some rank has seen this team fail */
};

struct job {
    char *text; /* the schedule; the lines point into it */
    const char *lines[MAX_LINES];
    uint32_t line_count;
    const char *head;   /* the line that tells about the job */
    const char *folder; /* for the histories */
    const char *root;   /* where the ranks meet */
    struct board *board;
    uint32_t crc_table[256];
};

struct made_window {
    zcta_window *handle;
    void *registered; /* the memory, if it is the rank's own */
};

struct made_plan {
    zcta_plan *handle;
    const char *line; /* of the step that made it */
    void *send;       /* if it is the rank's own */
    bool released;
};

struct rank {
    struct job *job;
    uint32_t number;
    int history; /* the file */
    zcta_context *context;
    zcta_team *teams[MAX_OBJECTS];
    struct made_window windows[MAX_OBJECTS];
    struct made_plan plans[MAX_OBJECTS];
    zcta_host_stream *stream;
    bool left; /* has finalized before the others */

    /* The step under way. */
    uint32_t step;
    const char *line, *incident; /* incident: NULL, or the line of this rank's */
    uint64_t ended;              /* when the call came back */
    char outputs[512];           /* hashes, as JSON */
};

/* ---- The schedule: lines of words, the first a kind, the others key=value ---- */

bool job_read(struct job *job, const char *path);
bool line_is(const char *line, const char *kind);
/* The value of `key`; `other` if there is none. */
uint64_t line_number(const char *line, const char *key, uint64_t other);
bool line_says(const char *line, const char *key, const char *value);
/* The numbers of a list such as ranks=0,2,3. Returns how many there are, at most `count`. */
uint32_t line_list(const char *line, const char *key, uint32_t *numbers, uint32_t count);
bool line_lists(const char *line, const char *key, uint32_t number);
/* Copies the value, cut if need be; "" if there is none. */
void line_word(const char *line, const char *key, char *word, size_t bytes);
/* The line that begins with `kind` and has `id`; NULL if there is none. */
const char *job_find(const struct job *job, const char *kind, uint32_t id);
/* This rank's incident in a step; NULL if there is none. */
const char *job_incident(const struct job *job, uint32_t step, uint32_t rank);

/* ---- The history: a line of JSON for each thing that happens, written at once ---- */

uint64_t now_ns(void);
void record(const struct rank *self, const char *format, ...) __attribute__((format(printf, 2, 3)));
void record_begin(struct rank *self);
void record_end(struct rank *self, zcta_status status);
void record_incident(const struct rank *self);
/* A call that the schedule wants refused, beside the step's own. */
void record_refused(const struct rank *self, zcta_status status);
void record_skip(const struct rank *self, const char *why);
/* How the rank's teams stand at the end. */
void record_teams(struct rank *self);
void record_failed_init(struct rank *self, zcta_status status, const zcta_error *failure);

/* ---- The model ---- */

void crc_prepare(uint32_t table[256]);
uint32_t crc_of(const struct job *job, const void *data, size_t bytes);
/* What rank `rank` gives in output `output` of a step. */
void model_fill(const struct job *job, void *share, uint32_t rank, uint32_t step, uint32_t output,
                size_t bytes);

/* ---- The steps ---- */

/* Performs self->line; false if something that it needs was never made here. */
bool perform(struct rank *self);
/* Frees what is the rank's own, after zcta_finalize(). */
void forget_objects(struct rank *self);

/* ---- The incidents ---- */

struct trouble; /* one under way */

/* Before the call: starts what is to happen during it. Returns NULL if nothing is. */
struct trouble *trouble_begin(struct rank *self);
/* After the call: waits until it has happened. A rank that is to die does not come back. */
void trouble_end(struct trouble *trouble);

#endif
