/* Signals, ends and ranks in words. */
#include "launch_text.h"

#include <stdio.h>
#include <string.h>

static const struct {
    int number;
    const char *name;
} signal_names[] = {
#define NAME(name)                                                                                 \
    {                                                                                              \
        name, #name                                                                                \
    }
    NAME(SIGHUP),  NAME(SIGINT),  NAME(SIGQUIT), NAME(SIGILL),    NAME(SIGTRAP), NAME(SIGABRT),
    NAME(SIGBUS),  NAME(SIGFPE),  NAME(SIGKILL), NAME(SIGUSR1),   NAME(SIGSEGV), NAME(SIGUSR2),
    NAME(SIGPIPE), NAME(SIGALRM), NAME(SIGTERM), NAME(SIGXCPU),   NAME(SIGXFSZ), NAME(SIGPROF),
    NAME(SIGSYS),  NAME(SIGIO),   NAME(SIGPWR),  NAME(SIGVTALRM),
#undef NAME
};

const char *zc_signal_text(int signal_number, char text[ZC_SIGNAL_TEXT_BYTES])
{
    for (size_t i = 0; i < sizeof signal_names / sizeof signal_names[0]; i++)
        if (signal_names[i].number == signal_number) {
            snprintf(text, ZC_SIGNAL_TEXT_BYTES, "%s", signal_names[i].name);
            return text;
        }
    snprintf(text, ZC_SIGNAL_TEXT_BYTES, "signal %d", signal_number);
    return text;
}

const char *zc_end_text(uint32_t rank, const siginfo_t *end, char text[ZC_END_TEXT_BYTES])
{
    char name[ZC_SIGNAL_TEXT_BYTES];

    if (end->si_code == CLD_EXITED)
        snprintf(text, ZC_END_TEXT_BYTES, "rank %u exited with status %d", rank, end->si_status);
    else
        snprintf(text, ZC_END_TEXT_BYTES, "rank %u was killed by %s%s", rank,
                 zc_signal_text(end->si_status, name),
                 end->si_code == CLD_DUMPED ? " (core dumped)" : "");
    return text;
}

/* The end of the run of ranks that begins at `at`. */
static uint32_t run_end(const bool *which, uint32_t count, uint32_t at)
{
    while (at + 1 < count && which[at + 1])
        at++;
    return at;
}

const char *zc_ranks_text(const bool *which, uint32_t count, uint32_t first,
                          char text[ZC_RANKS_TEXT_BYTES])
{
    enum { ROOM_FOR_ONE = 32 };
    uint32_t total = 0, told = 0, end;
    size_t used;

    for (uint32_t i = 0; i < count; i++)
        total += which[i];
    used = (size_t)snprintf(text, ZC_RANKS_TEXT_BYTES, total == 1 ? "rank" : "ranks");
    for (uint32_t i = 0; i < count; i = end + 1) {
        const char *before = " ";

        end = i;
        if (!which[i])
            continue;
        if (ZC_RANKS_TEXT_BYTES - used < ROOM_FOR_ONE) {
            snprintf(text + used, ZC_RANKS_TEXT_BYTES - used, ", ...");
            break;
        }
        end = run_end(which, count, i);
        end = end == i + 1 ? i : end; /* two in a row are told as two */
        if (told > 0)
            before = told + (end - i + 1) == total ? " and " : ", ";
        told += end - i + 1;
        used +=
            (size_t)snprintf(text + used, ZC_RANKS_TEXT_BYTES - used, "%s%u", before, first + i);
        if (end > i)
            used +=
                (size_t)snprintf(text + used, ZC_RANKS_TEXT_BYTES - used, " to %u", first + end);
    }
    return text;
}

bool zc_process_is_stopped(pid_t pid)
{
    char path[32], text[512];
    const char *state;
    size_t used = 0;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    file = fopen(path, "re");
    if (file == NULL)
        return false;
    used = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[used] = '\0';
    /* "4711 (name) T ...": the name may hold anything. */
    state = strrchr(text, ')');
    return state != NULL && (strncmp(state, ") T", 3) == 0 || strncmp(state, ") t", 3) == 0);
}
