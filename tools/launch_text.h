/* What the launcher's sentences are made of: signals, ends and ranks, in words. */
#ifndef ZC_LAUNCH_TEXT_H
#define ZC_LAUNCH_TEXT_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* "SIGSEGV", or "signal 42" for one without a name. */
#define ZC_SIGNAL_TEXT_BYTES 24
const char *zc_signal_text(int signal_number, char text[ZC_SIGNAL_TEXT_BYTES]);

/* "rank 3 exited with status 7", "rank 3 was killed by SIGSEGV (core dumped)". */
#define ZC_END_TEXT_BYTES 96
const char *zc_end_text(uint32_t rank, const siginfo_t *end, char text[ZC_END_TEXT_BYTES]);

/* "rank 4", "ranks 0 to 3, 5 and 7": those of `count` ranks for which `which` holds, counted from
 * `first`. What does not fit is left out, which three dots say. */
#define ZC_RANKS_TEXT_BYTES 160
const char *zc_ranks_text(const bool *which, uint32_t count, uint32_t first,
                          char text[ZC_RANKS_TEXT_BYTES]);

/* Whether the process is stopped, by a signal or a debugger. */
bool zc_process_is_stopped(pid_t pid);

#endif
