/* The calls of a schedule. Each fills what it gives, notes that it begins, makes the call, and
 * notes what came of it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "history.h"

/* ---- What steps need ---- */

static uint64_t number(const struct rank *self, const char *key)
{
    return line_number(self->line, key, 0);
}

static uint32_t object(const struct rank *self, const char *key)
{
    const uint64_t id = line_number(self->line, key, MAX_OBJECTS);

    if (id >= MAX_OBJECTS)
        _exit(4);
    return (uint32_t)id;
}

/* The incident of this step, if it is of that kind and this rank's. */
static const char *incident_is(const struct rank *self, const char *kind)
{
    return self->incident != NULL && line_says(self->incident, "kind", kind) ? self->incident
                                                                             : NULL;
}

static bool skip(struct rank *self, const char *why)
{
    record_skip(self, why);
    return false;
}

/* The moment at which the call came back, before anything else takes time. */
static zcta_status ended(struct rank *self, zcta_status status)
{
    self->ended = now_ns();
    return status;
}

static void *take_memory(size_t bytes)
{
    void *memory = malloc(bytes + 1);

    if (memory == NULL)
        _exit(4);
    memset(memory, GUARD_BYTE, bytes + 1);
    return memory;
}

/* ---- Gathering: buffers, and what is in them afterwards ---- */

struct gather {
    zcta_team *team;
    unsigned char *base; /* of the window */
    size_t window_bytes;
    unsigned char *recv, *send;
    void *own; /* `send`, if it is memory of this rank's own */
    size_t bytes;
    uint32_t count, at, index; /* ranks, this one's place among them, output of the step */
};

/* `line` names team, window and place; the output is the index-th that it makes. */
static void place_gather(const struct rank *self, const char *line, uint32_t index,
                         struct gather *gather)
{
    const zcta_window *window = self->windows[line_number(line, "window", 0) % MAX_OBJECTS].handle;

    *gather = (struct gather){.team = self->teams[line_number(line, "team", 0) % MAX_OBJECTS],
                              .base = zcta_window_base(window),
                              .window_bytes = zcta_window_bytes(window),
                              .bytes = line_number(line, "bytes", 0),
                              .index = index};
    gather->count = zcta_team_rank_count(gather->team);
    gather->at = zcta_team_rank(gather->team);
    gather->recv =
        gather->base + line_number(line, "at", 0) + index * (gather->bytes * gather->count + GUARD);
    if (line_says(line, "place", "own"))
        gather->send = gather->recv + gather->at * gather->bytes;
    else if (line_says(line, "place", "inside"))
        gather->send = gather->base + line_number(line, "from", 0);
    else
        gather->send = gather->own = take_memory(gather->bytes);
}

static void fill_guards(const struct gather *gather)
{
    memset(gather->recv - GUARD, GUARD_BYTE, GUARD);
    memset(gather->recv + gather->bytes * gather->count, GUARD_BYTE, GUARD);
}

/* Before a call: the share, and an output in which nothing is right yet. An output that has been
 * released belongs to the peers, but for this rank's part. */
static void fill_gather(const struct rank *self, const struct gather *gather, bool released)
{
    if (!released) {
        memset(gather->recv, GUARD_BYTE, gather->bytes * gather->count);
        fill_guards(gather);
    }
    model_fill(self->job, gather->send, self->number, self->step, gather->index, gather->bytes);
}

static bool are_guarded(const unsigned char *guard)
{
    for (uint32_t i = 0; i < GUARD; i++)
        if (guard[i] != GUARD_BYTE)
            return false;
    return true;
}

/* Adds the hash of every rank's part: `["0123abcd",...,true]`, the last whether nothing was written
 * around the output. */
static void hash_output(struct rank *self, const struct gather *gather)
{
    char *text = self->outputs;
    size_t at = strlen(text);
    const size_t bytes = sizeof self->outputs;

    at += (size_t)snprintf(text + at, bytes - at, "%s[", at > 0 ? "," : "");
    for (uint32_t i = 0; i < gather->count; i++)
        at += (size_t)snprintf(text + at, bytes - at, "\"%08x\",",
                               crc_of(self->job, gather->recv + i * gather->bytes, gather->bytes));
    snprintf(text + at, bytes - at, "%s]",
             are_guarded(gather->recv - GUARD) &&
                     are_guarded(gather->recv + gather->bytes * gather->count)
                 ? "true"
                 : "false");
}

/* Makes the arguments wrong in the way that `incident` says. */
static void spoil(const char *incident, struct gather *gather)
{
    if (line_says(incident, "what", "null"))
        gather->recv = NULL;
    else if (line_says(incident, "what", "outside"))
        gather->recv = (unsigned char *)gather->own;
    else if (line_says(incident, "what", "past"))
        gather->recv = gather->base + gather->window_bytes - gather->bytes;
    else if (line_says(incident, "what", "huge"))
        gather->bytes = SIZE_MAX / 2;
    else if (line_says(incident, "what", "overlap"))
        gather->send = gather->recv + gather->at * gather->bytes + 1;
    else if (line_says(incident, "what", "longer"))
        gather->bytes += 64;
}

static zcta_status call_gather(const struct rank *self, const struct gather *gather,
                               zcta_stream stream)
{
    const zcta_call_params params = {.size = sizeof params,
                                     .policy = (zcta_policy)number(self, "policy")};

    return zcta_all_gather(gather->team, gather->send, gather->recv, gather->bytes, stream,
                           &params);
}

/* A rank that first calls wrongly, is refused, and then calls rightly. */
static void refuse_first(struct rank *self, const struct gather *gather)
{
    struct gather wrong = *gather;

    if (incident_is(self, "refuse") == NULL)
        return;
    if (wrong.own == NULL)
        wrong.own = take_memory(wrong.bytes * wrong.count);
    spoil(self->incident, &wrong);
    record_incident(self);
    record_refused(self, call_gather(self, &wrong, NULL));
    if (wrong.own != gather->own)
        free(wrong.own);
}

static bool has_objects(struct rank *self, const char *line)
{
    if (self->teams[line_number(line, "team", 0) % MAX_OBJECTS] == NULL)
        return skip(self, "no team");
    if (self->windows[line_number(line, "window", 0) % MAX_OBJECTS].handle == NULL)
        return skip(self, "no window");
    return true;
}

static bool do_gather(struct rank *self)
{
    struct gather gather, called;
    zcta_status status;

    if (!has_objects(self, self->line))
        return false;
    place_gather(self, self->line, 0, &gather);
    fill_gather(self, &gather, false);
    called = gather;
    if (incident_is(self, "refuse_checked") != NULL || incident_is(self, "differ") != NULL) {
        record_incident(self);
        spoil(self->incident, &called);
    }
    refuse_first(self, &gather);
    record_begin(self);
    status = ended(self, call_gather(self, &called, NULL));
    if (status == ZCTA_OK)
        hash_output(self, &gather);
    record_end(self, status);
    free(gather.own);
    return true;
}

static bool do_barrier(struct rank *self)
{
    zcta_team *team = self->teams[object(self, "team")];

    if (team == NULL)
        return skip(self, "no team");
    record_begin(self);
    record_end(self, ended(self, zcta_barrier(team, NULL)));
    return true;
}

/* ---- Streams ---- */

static zcta_status enqueue_all(struct rank *self, struct gather *gathers, uint32_t count)
{
    zcta_status status = ZCTA_OK;

    if (self->stream == NULL)
        status = zcta_host_stream_create(self->context, &self->stream);
    for (uint32_t i = 0; i < count && status == ZCTA_OK; i++)
        status = call_gather(self, &gathers[i], self->stream);
    return status;
}

static bool do_stream(struct rank *self)
{
    const uint32_t count = (uint32_t)number(self, "count");
    struct gather gathers[MAX_OUTPUTS];
    zcta_status status, drained = ZCTA_OK;

    if (!has_objects(self, self->line))
        return false;
    for (uint32_t i = 0; i < count; i++) {
        place_gather(self, self->line, i, &gathers[i]);
        fill_gather(self, &gathers[i], false);
    }
    record_begin(self);
    status = enqueue_all(self, gathers, count);
    if (self->stream != NULL)
        drained = zcta_host_stream_synchronize(self->stream);
    status = ended(self, status != ZCTA_OK ? status : drained);
    for (uint32_t i = 0; i < count && status == ZCTA_OK; i++)
        hash_output(self, &gathers[i]);
    record_end(self, status);
    for (uint32_t i = 0; i < count; i++)
        free(gathers[i].own);
    return true;
}

/* ---- Plans ---- */

static bool do_plan(struct rank *self)
{
    struct made_plan *plan = &self->plans[object(self, "plan")];
    struct gather gather;
    zcta_call call;
    zcta_status status;

    if (!has_objects(self, self->line))
        return false;
    place_gather(self, self->line, 0, &gather);
    record_begin(self);
    call = (zcta_call){.size = sizeof call,
                       .collective = ZCTA_ALL_GATHER,
                       .send = gather.send,
                       .recv = gather.recv,
                       .bytes = gather.bytes};
    status = ended(self, zcta_plan_make(gather.team, &call, &plan->handle));
    record_end(self, status);
    *plan = (struct made_plan){.handle = plan->handle, .line = self->line, .send = gather.own};
    return true;
}

/* The buffers of a plan that was made before, filled with what this step gives. */
static void place_plan(const struct rank *self, const struct made_plan *plan, struct gather *gather)
{
    place_gather(self, plan->line, 0, gather);
    if (gather->own != NULL) {
        free(gather->own);
        gather->own = NULL;
        gather->send = plan->send;
    }
}

static bool do_run(struct rank *self)
{
    struct made_plan *plan = &self->plans[object(self, "plan")];
    struct gather gather;
    zcta_status status;

    if (plan->handle == NULL)
        return skip(self, "no plan");
    place_plan(self, plan, &gather);
    fill_gather(self, &gather, plan->released);
    plan->released = false;
    record_begin(self);
    status = ended(self, zcta_plan_run(plan->handle, NULL));
    if (status == ZCTA_OK)
        hash_output(self, &gather);
    record_end(self, status);
    return true;
}

static bool do_release(struct rank *self)
{
    struct made_plan *plan = &self->plans[object(self, "plan")];
    struct gather gather;

    if (plan->handle == NULL)
        return skip(self, "no plan");
    place_plan(self, plan, &gather);
    memset(gather.recv, GUARD_BYTE, gather.bytes * gather.count);
    fill_guards(&gather);
    record_begin(self);
    record_end(self, ended(self, zcta_release(plan->handle, NULL)));
    plan->released = true;
    return true;
}

static void forget_plan(struct made_plan *plan)
{
    free(plan->send);
    *plan = (struct made_plan){0};
}

static bool do_plan_free(struct rank *self)
{
    struct made_plan *plan = &self->plans[object(self, "plan")];

    if (plan->handle == NULL)
        return skip(self, "no plan");
    record_begin(self);
    record_end(self, ended(self, zcta_plan_free(&plan->handle)));
    forget_plan(plan);
    return true;
}

/* ---- Windows ---- */

static bool do_window(struct rank *self)
{
    struct made_window *window = &self->windows[object(self, "window")];
    zcta_team *team = self->teams[object(self, "team")];
    size_t bytes = number(self, "bytes");
    zcta_status status;

    if (team == NULL)
        return skip(self, "no team");
    if (incident_is(self, "differ") != NULL) {
        bytes = line_number(self->incident, "bytes", 0);
        record_incident(self);
    }
    if (number(self, "register") != 0)
        window->registered = take_memory(bytes);
    record_begin(self);
    if (window->registered != NULL)
        status = zcta_window_register(team, window->registered, bytes, &window->handle);
    else
        status = zcta_window_alloc(team, bytes, &window->handle);
    record_end(self, ended(self, status));
    return true;
}

static bool do_window_free(struct rank *self)
{
    struct made_window *window = &self->windows[object(self, "window")];

    if (window->handle == NULL)
        return skip(self, "no window");
    record_begin(self);
    record_end(self, ended(self, zcta_window_free(&window->handle)));
    return true;
}

/* ---- Teams ---- */

static zcta_team_params params_of(const struct rank *self, uint32_t team, char *name)
{
    const char *line = job_find(self->job, "team", team);

    line_word(line, "title", name, 32);
    return (zcta_team_params){.size = sizeof(zcta_team_params),
                              .name = name,
                              .policy = (zcta_policy)line_number(line, "policy", 0)};
}

static void refuse_team_first(struct rank *self, uint32_t *ranks, uint32_t count,
                              const zcta_team_params *params)
{
    const uint32_t first = ranks[0];
    zcta_team *team = NULL;

    if (incident_is(self, "refuse") == NULL)
        return;
    ranks[0] = line_says(self->incident, "what", "twice") ? ranks[count - 1] : 99;
    record_incident(self);
    record_refused(self, zcta_team_get(self->context, ranks, count, params, &team));
    ranks[0] = first;
}

static bool do_team(struct rank *self)
{
    const uint32_t team = object(self, "team");
    uint32_t ranks[MAX_RANKS];
    const uint32_t count = line_list(job_find(self->job, "team", team), "ranks", ranks, MAX_RANKS);
    char name[32];
    const zcta_team_params params = params_of(self, team, name);

    refuse_team_first(self, ranks, count, &params);
    record_begin(self);
    record_end(
        self, ended(self, zcta_team_get(self->context, ranks, count, &params, &self->teams[team])));
    return true;
}

/* The part that has this rank, and its place there; the color of those who are in none is -1. */
static uint32_t find_part(const struct rank *self, int32_t *color, int32_t *key)
{
    uint32_t parts[MAX_RANKS], ranks[MAX_RANKS];
    const uint32_t count = line_list(self->line, "parts", parts, MAX_RANKS);

    for (uint32_t part = 0; part < count; part++) {
        const uint32_t in =
            line_list(job_find(self->job, "team", parts[part]), "ranks", ranks, MAX_RANKS);

        for (uint32_t i = 0; i < in; i++)
            if (ranks[i] == self->number) {
                *color = (int32_t)part;
                *key = (int32_t)i;
                return parts[part];
            }
    }
    *color = -1;
    *key = 0;
    return MAX_OBJECTS;
}

static bool do_split(struct rank *self)
{
    zcta_team *team = self->teams[object(self, "team")], *made = NULL;
    int32_t color, key;
    const uint32_t part = find_part(self, &color, &key);
    zcta_team_params params = {.size = sizeof params};
    char name[32];
    zcta_status status;

    if (team == NULL)
        return skip(self, "no team");
    if (part < MAX_OBJECTS)
        params = params_of(self, part, name);
    record_begin(self);
    status = ended(self, zcta_team_split(team, color, key, &params, &made));
    if (part < MAX_OBJECTS)
        self->teams[part] = made;
    record_end(self, status);
    return true;
}

static bool do_destroy(struct rank *self)
{
    zcta_team **team = &self->teams[object(self, "team")];

    if (*team == NULL)
        return skip(self, "no team");
    record_begin(self);
    record_end(self, ended(self, zcta_team_destroy(team)));
    return true;
}

/* ---- Beside the library ---- */

/* Waits for the ranks of the step without a call of the library. */
static bool do_fence(struct rank *self)
{
    const uint64_t give_up = now_ns() + UINT64_C(120000000000);
    uint32_t ranks[MAX_RANKS];
    const uint32_t count = line_list(self->line, "ranks", ranks, MAX_RANKS);

    atomic_store(&self->job->board->fence[self->number], self->step);
    for (uint32_t i = 0; i < count; i++)
        while (atomic_load(&self->job->board->fence[ranks[i]]) < self->step) {
            if (now_ns() > give_up) {
                record_skip(self, "the others did not come to a fence");
                _exit(5);
            }
            usleep(500);
        }
    return true;
}

/* Tells the others which teams this rank has seen fail. */
static bool do_mark(struct rank *self)
{
    for (uint32_t id = 0; id < MAX_OBJECTS; id++) {
        zcta_error failure = {0};

        if (self->teams[id] != NULL)
            zcta_team_failure(self->teams[id], &failure);
        if (failure.status != ZCTA_OK)
            atomic_store(&self->job->board->failed[id], 1);
    }
    return true;
}

static bool do_final(struct rank *self)
{
    record_teams(self);
    return true;
}

static bool do_leave(struct rank *self)
{
    record_incident(self);
    record_begin(self);
    self->left = true;
    record_end(self, ended(self, zcta_finalize(&self->context)));
    return true;
}

static const struct {
    const char *op;
    bool (*perform)(struct rank *self);
} ops[] = {
    {"gather", do_gather},
    {"barrier", do_barrier},
    {"stream", do_stream},
    {"plan", do_plan},
    {"run", do_run},
    {"release", do_release},
    {"window", do_window},
    {"window_free", do_window_free},
    {"plan_free", do_plan_free},
    {"team", do_team},
    {"split", do_split},
    {"destroy", do_destroy},
    {"fence", do_fence},
    {"leave", do_leave},
    {"final", do_final},
    {"mark", do_mark},
};

bool perform(struct rank *self)
{
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (line_says(self->line, "op", ops[i].op))
            return ops[i].perform(self);
    fprintf(stderr, "no such step: %s\n", self->line);
    _exit(4);
}

void forget_objects(struct rank *self)
{
    for (uint32_t i = 0; i < MAX_OBJECTS; i++) {
        forget_plan(&self->plans[i]);
        free(self->windows[i].registered);
    }
}
