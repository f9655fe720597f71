/* Lines from the ranks' pipes to standard output and error. Knows nothing of processes. */
#include "launch_output.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#define LINE_BYTES   65536u /* a longer line goes out in pieces of this size */
#define PREFIX_BYTES 8u     /* "[4095] " and its end */

/* One reading makes at most LINE_BYTES lines of one byte, each with its prefix. */
#define BURST_BYTES (LINE_BYTES * PREFIX_BYTES)
#define SAY_BYTES   65536u /* kept free for the launcher's own lines */
#define QUEUE_BYTES (2u * BURST_BYTES + SAY_BYTES)

/* A pipe that poll() calls writable takes this much without blocking (PIPE_BUF). */
#define WRITE_BYTES      4096u
#define WRITES_PER_ROUND 64

enum { SENTENCES = 64 }; /* different ones that are compared; further ones are passed on */

struct source {
    int fd;              /* -1: closed */
    char *line;          /* what has no newline yet; LINE_BYTES, or NULL while empty */
    size_t used;         /* of line */
    size_t readable;     /* how much may still be read */
    bool terminal, last; /* last: when there is nothing to read now, that was all */
};

struct sink {
    int fd;
    int error; /* errno of the write that failed; everything is dropped from then on */
    size_t start, used;
    char *queue; /* QUEUE_BYTES; bytes start to start + used wait */
};

/* A sentence that ranks have said, without its numbers. */
struct sentence {
    uint64_t hash;
    size_t rank; /* who said it first */
};

struct zc_output {
    uint32_t first_rank, rank_count;
    struct zc_output_style style;
    struct sink sinks[ZC_CHANNELS];
    struct source *sources; /* rank * ZC_CHANNELS + channel */
    struct sentence sentences[SENTENCES];
    size_t sentence_count, counted;
    bool shows; /* a line of zc_output_show() stands on the terminal */
};

struct zc_output *zc_output_new(uint32_t first_rank, uint32_t rank_count,
                                const struct zc_output_style *style)
{
    struct zc_output *output = calloc(1, sizeof *output);

    if (output == NULL)
        return NULL;
    output->first_rank = first_rank;
    output->rank_count = rank_count;
    output->style = *style;
    output->sources = calloc(rank_count, ZC_CHANNELS * sizeof *output->sources);
    output->sinks[ZC_CHANNEL_OUT] = (struct sink){.fd = 1, .queue = malloc(QUEUE_BYTES)};
    output->sinks[ZC_CHANNEL_ERR] = (struct sink){.fd = 2, .queue = malloc(QUEUE_BYTES)};
    if (output->sources == NULL || output->sinks[ZC_CHANNEL_OUT].queue == NULL ||
        output->sinks[ZC_CHANNEL_ERR].queue == NULL) {
        zc_output_free(output);
        return NULL;
    }
    for (size_t i = 0; i < (size_t)rank_count * ZC_CHANNELS; i++)
        output->sources[i] = (struct source){.fd = -1, .readable = SIZE_MAX};
    return output;
}

void zc_output_free(struct zc_output *output)
{
    if (output == NULL)
        return;
    for (size_t i = 0; output->sources != NULL && i < (size_t)output->rank_count * ZC_CHANNELS;
         i++) {
        if (output->sources[i].fd >= 0)
            close(output->sources[i].fd);
        free(output->sources[i].line);
    }
    for (size_t i = 0; i < ZC_CHANNELS; i++)
        free(output->sinks[i].queue);
    free(output->sources);
    free(output);
}

/* A terminal that passes on every byte as it is, and has the size of ours. Returns 0 or an errno.
 */
static int open_terminal(int ends[2])
{
    char name[64];
    struct termios mode;
    struct winsize size;
    int error;

    ends[0] = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (ends[0] < 0)
        return errno;
    ends[1] = -1;
    if (grantpt(ends[0]) == 0 && unlockpt(ends[0]) == 0 &&
        ptsname_r(ends[0], name, sizeof name) == 0)
        ends[1] = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (ends[1] >= 0 && tcgetattr(ends[1], &mode) == 0) {
        cfmakeraw(&mode);
        if (tcsetattr(ends[1], TCSANOW, &mode) == 0) {
            if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0)
                ioctl(ends[1], TIOCSWINSZ, &size);
            return 0;
        }
    }
    error = errno;
    if (ends[1] >= 0)
        close(ends[1]);
    close(ends[0]);
    return error;
}

static int open_channel(struct zc_output *output, size_t index, int *writer)
{
    struct source *source = &output->sources[index];
    int ends[2] = {-1, -1};

    source->terminal = output->style.terminals && index % ZC_CHANNELS == ZC_CHANNEL_OUT &&
                       open_terminal(ends) == 0;
    if (!source->terminal && pipe2(ends, O_CLOEXEC) != 0)
        return errno;
    /* Only this end: the rank's must block as an ordinary pipe does. */
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    source->fd = ends[0];
    *writer = ends[1];
    return 0;
}

int zc_output_open_rank(struct zc_output *output, uint32_t rank, int writers[ZC_CHANNELS])
{
    const size_t first = (size_t)rank * ZC_CHANNELS;

    for (size_t i = 0; i < ZC_CHANNELS; i++) {
        const int error = open_channel(output, first + i, &writers[i]);

        if (error == 0)
            continue;
        while (i-- > 0) {
            close(writers[i]);
            close(output->sources[first + i].fd);
            output->sources[first + i].fd = -1;
        }
        return error;
    }
    return 0;
}

/* ---- Queues ---- */

static size_t sink_room(const struct sink *sink)
{
    return QUEUE_BYTES - sink->used;
}

static bool sink_takes_burst(const struct sink *sink)
{
    return sink->error != 0 || sink_room(sink) >= BURST_BYTES + SAY_BYTES;
}

static void sink_append(struct sink *sink, const char *data, size_t bytes)
{
    if (sink->error != 0)
        return;
    assert(bytes <= sink_room(sink));
    if (QUEUE_BYTES - sink->start - sink->used < bytes) {
        memmove(sink->queue, sink->queue + sink->start, sink->used);
        sink->start = 0;
    }
    memcpy(sink->queue + sink->start + sink->used, data, bytes);
    sink->used += bytes;
}

static void sink_write(struct sink *sink)
{
    for (int round = 0; round < WRITES_PER_ROUND && sink->used > 0; round++) {
        struct pollfd polled = {.fd = sink->fd, .events = POLLOUT};
        const size_t bytes = sink->used < WRITE_BYTES ? sink->used : WRITE_BYTES;
        ssize_t written;

        /* The file may block, and it is not ours to make it not block: others use it too. */
        if (poll(&polled, 1, 0) <= 0)
            return;
        written = write(sink->fd, sink->queue + sink->start, bytes);
        if (written < 0 && (errno == EINTR || errno == EAGAIN))
            return;
        if (written < 0) {
            sink->error = errno;
            sink->used = 0;
            return;
        }
        sink->start += (size_t)written;
        sink->used -= (size_t)written;
    }
    if (sink->used == 0)
        sink->start = 0;
}

void zc_output_say(struct zc_output *output, const char *format, ...)
{
    struct sink *sink = &output->sinks[ZC_CHANNEL_ERR];
    char line[1024];
    va_list args;
    size_t bytes;

    va_start(args, format);
    vsnprintf(line, sizeof line - 1, format, args);
    va_end(args);
    bytes = strlen(line);
    line[bytes++] = '\n';
    if (bytes <= sink_room(sink))
        sink_append(sink, line, bytes);
}

/* ---- Lines ---- */

/* FNV-1a of all but the digits. */
static uint64_t hash_of(const char *line, size_t bytes)
{
    uint64_t hash = UINT64_C(14695981039346656037);

    for (size_t i = 0; i < bytes; i++)
        if (line[i] < '0' || line[i] > '9')
            hash = (hash ^ (unsigned char)line[i]) * UINT64_C(1099511628211);
    return hash;
}

/* Whether another rank has said this before; notes who says it first. */
static bool is_said(struct zc_output *output, size_t index, const char *line, size_t bytes)
{
    const char *own = output->style.own;
    const size_t rank = index / ZC_CHANNELS;
    uint64_t hash;

    if (own == NULL || index % ZC_CHANNELS != ZC_CHANNEL_ERR || bytes < strlen(own) ||
        memcmp(line, own, strlen(own)) != 0)
        return false;
    hash = hash_of(line, bytes);
    for (size_t i = 0; i < output->sentence_count; i++)
        if (output->sentences[i].hash == hash)
            return output->sentences[i].rank != rank;
    if (output->sentence_count < SENTENCES)
        output->sentences[output->sentence_count++] = (struct sentence){hash, rank};
    return false;
}

static void emit(struct zc_output *output, size_t index, const char *line, size_t bytes)
{
    struct sink *sink = &output->sinks[index % ZC_CHANNELS];
    char prefix[16];
    const int length =
        snprintf(prefix, sizeof prefix, "[%zu] ", output->first_rank + index / ZC_CHANNELS);

    if (is_said(output, index, line, bytes)) {
        output->counted++;
        return;
    }
    if (output->style.prefix)
        sink_append(sink, prefix, (size_t)length);
    sink_append(sink, line, bytes);
    if (bytes == 0 || line[bytes - 1] != '\n')
        sink_append(sink, "\n", 1);
}

/* Passes complete lines on; keeps the rest unless it fills the buffer or `flush` is set. */
static void cut_lines(struct zc_output *output, size_t index, bool flush)
{
    struct source *source = &output->sources[index];
    size_t start = 0;
    const char *newline;

    while ((newline = memchr(source->line + start, '\n', source->used - start)) != NULL) {
        const size_t bytes = (size_t)(newline - source->line) - start + 1;

        emit(output, index, source->line + start, bytes);
        start += bytes;
    }
    source->used -= start;
    memmove(source->line, source->line + start, source->used);
    if (source->used == LINE_BYTES || (flush && source->used > 0)) {
        emit(output, index, source->line, source->used);
        source->used = 0;
    }
}

/* The caller has seen that the queue takes a burst: an unfinished line goes out here. */
static void source_close(struct zc_output *output, size_t index)
{
    struct source *source = &output->sources[index];

    if (source->used > 0)
        cut_lines(output, index, true);
    close(source->fd);
    source->fd = -1;
    free(source->line);
    source->line = NULL;
}

/* Reads once. Returns false when there is nothing more to get for now. */
static bool source_read(struct zc_output *output, size_t index)
{
    struct source *source = &output->sources[index];
    size_t bytes;
    ssize_t count;

    if (source->fd < 0 || !sink_takes_burst(&output->sinks[index % ZC_CHANNELS]))
        return false;
    if (source->line == NULL && (source->line = malloc(LINE_BYTES)) == NULL) {
        output->sinks[ZC_CHANNEL_OUT].error = ENOMEM;
        return false;
    }
    bytes = LINE_BYTES - source->used;
    if (bytes > source->readable)
        bytes = source->readable;
    count = bytes == 0 ? 0 : read(source->fd, source->line + source->used, bytes);
    if (count < 0 && (errno == EINTR || (errno == EAGAIN && !source->last)))
        return false;
    if (count <= 0) { /* EIO: a terminal that nobody writes to any more */
        source_close(output, index);
        return false;
    }
    source->used += (size_t)count;
    if (source->readable != SIZE_MAX)
        source->readable -= (size_t)count;
    cut_lines(output, index, false);
    if (source->used == 0) {
        free(source->line);
        source->line = NULL;
    }
    return true;
}

void zc_output_drain_rank(struct zc_output *output, uint32_t rank)
{
    /* A pipe holds a few readings at most; a process that keeps writing must not hold us here. */
    for (size_t i = 0; i < ZC_CHANNELS; i++)
        for (int readings = 0; readings < 32; readings++)
            if (!source_read(output, (size_t)rank * ZC_CHANNELS + i))
                break;
}

/* ---- The event loop's part ---- */

size_t zc_output_poll_count(const struct zc_output *output)
{
    return ZC_CHANNELS + (size_t)output->rank_count * ZC_CHANNELS;
}

void zc_output_prepare(const struct zc_output *output, struct pollfd *polled)
{
    for (size_t i = 0; i < ZC_CHANNELS; i++) {
        const struct sink *sink = &output->sinks[i];

        polled[i] = (struct pollfd){.fd = sink->used > 0 ? sink->fd : -1, .events = POLLOUT};
    }
    for (size_t i = 0; i < (size_t)output->rank_count * ZC_CHANNELS; i++) {
        const bool wanted = sink_takes_burst(&output->sinks[i % ZC_CHANNELS]);

        polled[ZC_CHANNELS + i] =
            (struct pollfd){.fd = wanted ? output->sources[i].fd : -1, .events = POLLIN};
    }
}

void zc_output_handle(struct zc_output *output, const struct pollfd *polled)
{
    for (size_t i = 0; i < (size_t)output->rank_count * ZC_CHANNELS; i++)
        if (polled[ZC_CHANNELS + i].revents != 0 || output->sources[i].last)
            source_read(output, i);
    zc_output_flush(output);
}

/* To the terminal past the queue, which is empty when a line is shown, and so little that it is
 * taken at once. */
static void draw(struct zc_output *output, const char *line)
{
    char text[128];
    const int bytes = snprintf(text, sizeof text, "\r\033[K%s", line);

    output->shows = line[0] != '\0';
    if (write(STDERR_FILENO, text, (size_t)bytes) < 0)
        output->shows = false;
}

void zc_output_show(struct zc_output *output, const char *line)
{
    struct pollfd polled = {.fd = STDERR_FILENO, .events = POLLOUT};

    if ((line[0] == '\0' && !output->shows) || !isatty(STDERR_FILENO) ||
        output->sinks[ZC_CHANNEL_ERR].used > 0 || poll(&polled, 1, 0) <= 0)
        return;
    draw(output, line);
}

void zc_output_say_counted(struct zc_output *output)
{
    if (output->counted > 0)
        zc_output_say(output, "%s%zu more such line%s of other ranks %s not shown",
                      output->style.own, output->counted, output->counted == 1 ? "" : "s",
                      output->counted == 1 ? "is" : "are");
    output->counted = 0;
}

void zc_output_flush(struct zc_output *output)
{
    if (output->shows &&
        output->sinks[ZC_CHANNEL_OUT].used + output->sinks[ZC_CHANNEL_ERR].used > 0)
        draw(output, "");
    for (size_t i = 0; i < ZC_CHANNELS; i++)
        sink_write(&output->sinks[i]);
}

void zc_output_last_call(struct zc_output *output)
{
    for (size_t i = 0; i < (size_t)output->rank_count * ZC_CHANNELS; i++) {
        struct source *source = &output->sources[i];
        int waiting = 0;

        if (source->fd < 0)
            continue;
        /* A terminal does not count what is on its way; there, a line is all that is waited for. */
        if (source->terminal)
            waiting = LINE_BYTES;
        else if (ioctl(source->fd, FIONREAD, &waiting) != 0)
            waiting = 0;
        source->readable = (size_t)waiting;
        source->last = true;
    }
}

bool zc_output_is_done(const struct zc_output *output)
{
    for (size_t i = 0; i < ZC_CHANNELS; i++)
        if (output->sinks[i].used > 0)
            return false;
    for (size_t i = 0; i < (size_t)output->rank_count * ZC_CHANNELS; i++)
        if (output->sources[i].fd >= 0)
            return false;
    return true;
}

int zc_output_error(const struct zc_output *output)
{
    return output->sinks[ZC_CHANNEL_OUT].error;
}
