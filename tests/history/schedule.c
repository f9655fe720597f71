/* Reading a schedule. Its lines are trusted: schedule.py wrote them. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "history.h"

static char *read_file(const char *path)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat about = {0};
    char *text = NULL;
    ssize_t got = 0;

    if (fd < 0)
        return NULL;
    if (fstat(fd, &about) == 0)
        text = calloc(1, (size_t)about.st_size + 1);
    if (text != NULL)
        got = read(fd, text, (size_t)about.st_size);
    close(fd);
    if (text == NULL || got == about.st_size)
        return text;
    free(text);
    return NULL;
}

bool job_read(struct job *job, const char *path)
{
    job->text = read_file(path);
    if (job->text == NULL)
        return false;
    for (char *line = strtok(job->text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        if (job->line_count == MAX_LINES)
            return false;
        if (line_is(line, "job"))
            job->head = line;
        job->lines[job->line_count++] = line;
    }
    return job->head != NULL;
}

bool line_is(const char *line, const char *kind)
{
    const size_t bytes = strlen(kind);

    return strncmp(line, kind, bytes) == 0 && (line[bytes] == ' ' || line[bytes] == '\0');
}

/* The value of a key, not yet cut off at its end. */
static const char *find_value(const char *line, const char *key)
{
    const size_t bytes = strlen(key);

    for (const char *at = strchr(line, ' '); at != NULL; at = strchr(at, ' ')) {
        at++;
        if (strncmp(at, key, bytes) == 0 && at[bytes] == '=')
            return at + bytes + 1;
    }
    return NULL;
}

uint64_t line_number(const char *line, const char *key, uint64_t other)
{
    const char *value = find_value(line, key);

    return value == NULL ? other : strtoull(value, NULL, 10);
}

void line_word(const char *line, const char *key, char *word, size_t bytes)
{
    const char *value = find_value(line, key);
    size_t length = value == NULL ? 0 : strcspn(value, " ");

    length = length < bytes ? length : bytes - 1;
    if (length > 0)
        memcpy(word, value, length);
    word[length] = '\0';
}

bool line_says(const char *line, const char *key, const char *value)
{
    char word[64];

    line_word(line, key, word, sizeof word);
    return strcmp(word, value) == 0;
}

uint32_t line_list(const char *line, const char *key, uint32_t *numbers, uint32_t count)
{
    const char *value = find_value(line, key);
    uint32_t found = 0;
    char *end;

    while (value != NULL && *value >= '0' && *value <= '9' && found < count) {
        numbers[found++] = (uint32_t)strtoul(value, &end, 10);
        value = *end == ',' ? end + 1 : NULL;
    }
    return found;
}

bool line_lists(const char *line, const char *key, uint32_t number)
{
    uint32_t numbers[MAX_OBJECTS];
    const uint32_t count = line_list(line, key, numbers, MAX_OBJECTS);

    for (uint32_t i = 0; i < count; i++)
        if (numbers[i] == number)
            return true;
    return false;
}

const char *job_find(const struct job *job, const char *kind, uint32_t id)
{
    for (uint32_t i = 0; i < job->line_count; i++)
        if (line_is(job->lines[i], kind) && line_number(job->lines[i], "id", UINT32_MAX) == id)
            return job->lines[i];
    return NULL;
}

const char *job_incident(const struct job *job, uint32_t step, uint32_t rank)
{
    for (uint32_t i = 0; i < job->line_count; i++)
        if (line_is(job->lines[i], "incident") &&
            line_number(job->lines[i], "k", UINT32_MAX) == step &&
            line_number(job->lines[i], "rank", UINT32_MAX) == rank)
            return job->lines[i];
    return NULL;
}
