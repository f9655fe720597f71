/* The output of the ranks: read from their pipes, cut into lines, passed on to this process's
 * standard output and error, whole lines only. Never blocks: what cannot be written waits in a
 * bounded queue, and while a queue is full its pipes are not read. */
#ifndef ZC_LAUNCH_OUTPUT_H
#define ZC_LAUNCH_OUTPUT_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum zc_channel { ZC_CHANNEL_OUT, ZC_CHANNEL_ERR, ZC_CHANNELS };

struct zc_output;

struct zc_output_style {
    bool prefix;    /* "[rank] " before each line */
    bool terminals; /* a rank's standard output is a terminal instead of a pipe, where the system
                       has one left: programs then write their lines at once */
    /* What the ranks' sentences on standard error begin with, or NULL. Of such sentences, one that
     * another rank has said before, but for the numbers in it, is only counted. */
    const char *own;
};

/* The first rank's number in the job is `first_rank`. NULL when out of memory. */
struct zc_output *zc_output_new(uint32_t first_rank, uint32_t rank_count,
                                const struct zc_output_style *style);
void zc_output_free(struct zc_output *output);

/* Opens the two pipes of a rank, or a terminal and a pipe. `writers` gets the rank's ends,
 * close-on-exec, the caller's. Returns 0 or an errno; nothing is open then. */
int zc_output_open_rank(struct zc_output *output, uint32_t rank, int writers[ZC_CHANNELS]);

/* How many entries zc_output_prepare() fills; constant. */
size_t zc_output_poll_count(const struct zc_output *output);

/* Says what to wait for, and after poll() does what can be done. */
void zc_output_prepare(const struct zc_output *output, struct pollfd *polled);
void zc_output_handle(struct zc_output *output, const struct pollfd *polled);

/* Queues what this rank has written so far, as far as there is room. */
void zc_output_drain_rank(struct zc_output *output, uint32_t rank);

/* Queues a line of the launcher's own on standard error, after what was queued before. */
void zc_output_say(struct zc_output *output, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* A line on a terminal that stands until something else is written, to show that the job goes on;
 * an empty one takes it away. Nothing happens where standard error is no terminal. */
void zc_output_show(struct zc_output *output, const char *line);

/* Says how many sentences were only counted, if any were since this was last called. */
void zc_output_say_counted(struct zc_output *output);

/* The ranks have ended: what the pipes hold now is the last that is read, so a process that left
 * its group and keeps a pipe open delays nothing. */
void zc_output_last_call(struct zc_output *output);

/* Writes what can be written at once. */
void zc_output_flush(struct zc_output *output);

/* Every pipe is closed and every queue empty. */
bool zc_output_is_done(const struct zc_output *output);

/* Why standard output can no longer be written (an errno), or 0. */
int zc_output_error(const struct zc_output *output);

#endif
