/* Ports for tests. */
#ifndef SUPPORT_PORTS_H
#define SUPPORT_PORTS_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* A port of 127.0.0.1 that is free now, and that the system gives to nobody by itself: tests that
 * run beside this one start from other numbers. */
static inline uint16_t free_port(void)
{
    enum { FIRST = 10000, PORTS = 9000 };
    static atomic_uint calls;

    for (int tries = 0; tries < PORTS; tries++) {
        const unsigned number = (unsigned)getpid() * 61u + atomic_fetch_add(&calls, 1);
        const struct sockaddr_in address = {.sin_family = AF_INET,
                                            .sin_port = htons((uint16_t)(FIRST + number % PORTS)),
                                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        const int bound = bind(fd, (const struct sockaddr *)&address, sizeof address);

        close(fd);
        if (bound == 0)
            return (uint16_t)(FIRST + number % PORTS);
    }
    abort();
}

#endif
