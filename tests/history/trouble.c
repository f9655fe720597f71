/* What the schedule does to a rank: death, a stop, a call of the system that fails. It happens
 * while the rank is in a call, or shortly after. */
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "history.h"

struct trouble {
    struct rank *rank;
    pthread_t thread;
    bool runs, fatal;
};

/* faults.c has these, if it is preloaded. */
typedef void arm_fn(const char *function, uint32_t nth, int error, bool lasting, int history,
                    uint32_t step);
typedef void disarm_fn(void);

static void find(const char *name, void *function)
{
    void *found = dlsym(RTLD_DEFAULT, name);

    if (found == NULL) {
        fprintf(stderr, "the schedule needs %s(): preload the library that has it\n", name);
        _exit(4);
    }
    memcpy(function, &found, sizeof found);
}

static void arm(struct rank *self)
{
    const char *incident = self->incident;
    char function[32];
    arm_fn *arming;

    find("history_arm", &arming);
    line_word(incident, "call", function, sizeof function);
    arming(function, (uint32_t)line_number(incident, "nth", 1),
           (int)line_number(incident, "errno", 0), line_number(incident, "lasting", 0) != 0,
           self->history, self->step);
}

static void disarm(void)
{
    disarm_fn *disarming;

    find("history_disarm", &disarming);
    disarming();
}

static void *strike(void *data)
{
    const struct trouble *trouble = data;
    const char *incident = trouble->rank->incident;
    const uint64_t delay = line_number(incident, "delay_us", 0);
    const struct timespec time = {.tv_sec = (time_t)(delay / 1000000),
                                  .tv_nsec = (long)(delay % 1000000) * 1000};

    nanosleep(&time, NULL);
    record_incident(trouble->rank);
    if (line_says(incident, "kind", "exit"))
        _exit(7);
    kill(getpid(), line_says(incident, "kind", "kill") ? SIGKILL : SIGSTOP);
    return NULL;
}

struct trouble *trouble_begin(struct rank *self)
{
    const char *incident = self->incident;
    struct trouble *trouble;

    if (incident == NULL)
        return NULL;
    if (line_says(incident, "kind", "fault"))
        arm(self);
    trouble = calloc(1, sizeof *trouble);
    if (trouble == NULL)
        _exit(4);
    trouble->rank = self;
    trouble->fatal = line_says(incident, "kind", "kill") || line_says(incident, "kind", "exit");
    trouble->runs = trouble->fatal || line_says(incident, "kind", "stop_short") ||
                    line_says(incident, "kind", "stop_long");
    if (trouble->runs && pthread_create(&trouble->thread, NULL, strike, trouble) != 0)
        _exit(4);
    return trouble;
}

void trouble_end(struct trouble *trouble)
{
    if (trouble == NULL)
        return;
    if (trouble->runs)
        pthread_join(trouble->thread, NULL);
    while (trouble->fatal)
        pause();
    if (line_says(trouble->rank->incident, "kind", "fault"))
        disarm();
    free(trouble);
}
