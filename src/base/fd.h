/* Descriptors of ours, and the standard ones. A program may have started with descriptors 0, 1 or 2
 * closed, or close them later: then the kernel gives their numbers to the next file that anybody
 * opens, and what the program prints goes into it. So two things hold:
 * - while we run, no closed standard descriptor is free to be given away: zc_fd_hold_standard();
 * - no descriptor of ours stays below 3, wherever it comes from: every call that makes or receives
 *   one stands inside zc_fd_lift(). tests/hostile/test_raw_calls.sh looks for calls that do not. */
#ifndef ZC_FD_H
#define ZC_FD_H

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>

/* Takes the numbers of standard descriptors that are closed, for the life of the process: also the
 * driver's and other libraries' files must not get them. What takes them can be neither read nor
 * written (O_PATH), so using them is the same error as before, and exec() closes it. */
void zc_fd_hold_standard(void);

/* Whether a standard descriptor was closed: its number has been taken as above, or is free. */
static inline bool zc_fd_is_closed(int fd)
{
    const int flags = fcntl(fd, F_GETFL);

    return flags < 0 || (flags & O_PATH) != 0;
}

/* Takes a fresh descriptor and returns it, or its copy above the standard ones with the original
 * closed. The result is closed by exec() in either case. -1 if `fd` is negative, or if there is no
 * room: errno then says why, and nothing stays open. */
int zc_fd_lift(int fd);

/* A file to be read, as fopen(path, "r") gives it. NULL with errno if there is none. */
FILE *zc_fd_read_file(const char *path);

#endif
