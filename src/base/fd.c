/* Keeps our descriptors off the standard ones; see fd.h. */
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

void zc_fd_hold_standard(void)
{
    int fd;

    do
        fd = open("/", O_PATH | O_CLOEXEC);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

int zc_fd_lift(int fd)
{
    int lifted, error;

    if (fd < 0 || fd > STDERR_FILENO)
        return fd;
    lifted = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    error = errno;
    close(fd);
    errno = error;
    return lifted;
}

FILE *zc_fd_read_file(const char *path)
{
    const int fd = zc_fd_lift(open(path, O_RDONLY | O_CLOEXEC));
    FILE *file;
    int error;

    if (fd < 0)
        return NULL;
    file = fdopen(fd, "r");
    if (file == NULL) {
        error = errno;
        close(fd);
        errno = error;
    }
    return file;
}
