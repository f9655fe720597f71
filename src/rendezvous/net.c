/* Sockets with deadlines; see net.h. Must not wait anywhere without a bound. */
#include "rendezvous/net.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"

enum { BACKLOG = 4096, UNIX_PREFIX = 9 };

int zc_net_poll_ms(uint64_t deadline, int most_ms)
{
    const uint64_t left = zc_time_left_ns(deadline);

    if (left / 1000000u >= (uint64_t)most_ms)
        return most_ms;
    return (int)((left + 999999u) / 1000000u);
}

int zc_net_poll(struct pollfd *set, size_t count, int timeout_ms)
{
    int ready = poll(set, (nfds_t)count, timeout_ms);

    /* An interrupted poll reads as "nothing ready": every caller looks at its deadline next. */
    if (ready < 0)
        for (size_t i = 0; i < count; i++)
            set[i].revents = 0;
    return ready;
}

bool zc_net_wait(int fd, short events, uint64_t deadline)
{
    for (;;) {
        struct pollfd one = {.fd = fd, .events = events};

        if (zc_net_poll(&one, 1, zc_net_poll_ms(deadline, 60000)) > 0)
            return true;
        if (zc_time_left_ns(deadline) == 0)
            return false;
    }
}

void zc_net_sleep(uint64_t ns)
{
    struct timespec time = {.tv_sec = (time_t)(ns / 1000000000u),
                            .tv_nsec = (long)(ns % 1000000000u)};

    while (nanosleep(&time, &time) != 0 && errno == EINTR)
        continue;
}

bool zc_net_split(const char *root, char *host, size_t host_size, uint16_t *port)
{
    const char *colon = strrchr(root, ':');
    const char *first = root;
    size_t length;
    char *end;
    unsigned long number;

    if (colon == NULL || colon[1] < '0' || colon[1] > '9')
        return false;
    number = strtoul(colon + 1, &end, 10);
    if (*end != '\0' || number == 0 || number > UINT16_MAX)
        return false;
    length = (size_t)(colon - root);
    if (length >= 2 && root[0] == '[' && colon[-1] == ']') {
        first++;
        length -= 2;
    } else if (memchr(root, ':', length) != NULL) {
        return false;
    }
    if (length == 0 || length >= host_size)
        return false;
    memcpy(host, first, length);
    host[length] = '\0';
    *port = (uint16_t)number;
    return true;
}

bool zc_net_resolve(const char *host, uint16_t port, struct zc_endpoint *endpoint)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_NUMERICSERV | AI_NUMERICHOST};
    struct addrinfo *found = NULL;
    char service[8];

    snprintf(service, sizeof service, "%u", (unsigned)port);
    if (getaddrinfo(host, service, &hints, &found) != 0)
        return false;
    memcpy(&endpoint->address, found->ai_addr, found->ai_addrlen);
    endpoint->length = found->ai_addrlen;
    freeaddrinfo(found);
    return true;
}

bool zc_net_is_loopback(const struct zc_endpoint *endpoint)
{
    struct sockaddr_in four;
    struct sockaddr_in6 six;

    switch (endpoint->address.ss_family) {
    case AF_INET:
        memcpy(&four, &endpoint->address, sizeof four);
        return ntohl(four.sin_addr.s_addr) >> 24 == 127;
    case AF_INET6:
        memcpy(&six, &endpoint->address, sizeof six);
        return IN6_IS_ADDR_LOOPBACK(&six.sin6_addr) ||
               (IN6_IS_ADDR_V4MAPPED(&six.sin6_addr) && six.sin6_addr.s6_addr[12] == 127);
    default:
        return false;
    }
}

bool zc_net_is_any(const struct zc_endpoint *endpoint)
{
    static const uint8_t four[16] = {[10] = 0xff, [11] = 0xff};
    uint8_t ip[16];
    uint16_t port;

    zc_net_pack(endpoint, ip, &port);
    return memcmp(ip, four, sizeof four) == 0 || memcmp(ip, &in6addr_any, sizeof ip) == 0;
}

void zc_net_pack(const struct zc_endpoint *endpoint, uint8_t ip[16], uint16_t *port)
{
    struct sockaddr_in four;
    struct sockaddr_in6 six;

    if (endpoint->address.ss_family == AF_INET6) {
        memcpy(&six, &endpoint->address, sizeof six);
        memcpy(ip, &six.sin6_addr, 16);
        *port = ntohs(six.sin6_port);
        return;
    }
    memcpy(&four, &endpoint->address, sizeof four);
    memset(ip, 0, 10);
    memset(ip + 10, 0xff, 2);
    memcpy(ip + 12, &four.sin_addr, 4);
    *port = ntohs(four.sin_port);
}

void zc_net_unpack(const uint8_t ip[16], uint16_t port, struct zc_endpoint *endpoint)
{
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(port)};

    memset(endpoint, 0, sizeof *endpoint);
    memcpy(&six.sin6_addr, ip, 16);
    memcpy(&four.sin_addr, ip + 12, 4);
    if (IN6_IS_ADDR_V4MAPPED(&six.sin6_addr)) {
        memcpy(&endpoint->address, &four, sizeof four);
        endpoint->length = sizeof four;
    } else {
        memcpy(&endpoint->address, &six, sizeof six);
        endpoint->length = sizeof six;
    }
}

void zc_net_text(const struct zc_endpoint *endpoint, char text[64])
{
    const bool six = endpoint->address.ss_family == AF_INET6;
    char host[INET6_ADDRSTRLEN] = "?";
    uint8_t ip[16];
    uint16_t port;

    zc_net_pack(endpoint, ip, &port);
    inet_ntop(six ? AF_INET6 : AF_INET, six ? ip : ip + 12, host, sizeof host);
    snprintf(text, 64, six ? "[%s]:%u" : "%s:%u", host, (unsigned)port);
}

bool zc_net_here(int fd, struct zc_endpoint *endpoint)
{
    memset(endpoint, 0, sizeof *endpoint);
    endpoint->length = sizeof endpoint->address;
    return getsockname(fd, (struct sockaddr *)&endpoint->address, &endpoint->length) == 0 &&
           (endpoint->address.ss_family == AF_INET || endpoint->address.ss_family == AF_INET6);
}

/* Bridges of containers and virtual machines have the same address on every machine. */
static bool is_bridge(const char *name)
{
    return strncmp(name, "docker", 6) == 0 || strncmp(name, "virbr", 5) == 0;
}

static bool is_usable(const struct ifaddrs *at, int family)
{
    struct sockaddr_in6 six;

    if (at->ifa_addr == NULL || at->ifa_addr->sa_family != family ||
        (at->ifa_flags & IFF_UP) == 0 || (at->ifa_flags & IFF_LOOPBACK) != 0 ||
        is_bridge(at->ifa_name))
        return false;
    if (family == AF_INET)
        return true;
    memcpy(&six, at->ifa_addr, sizeof six);
    return !IN6_IS_ADDR_LINKLOCAL(&six.sin6_addr);
}

bool zc_net_own_address(struct zc_endpoint *endpoint)
{
    static const struct {
        int family;
        socklen_t length;
    } kinds[] = {{AF_INET, sizeof(struct sockaddr_in)}, {AF_INET6, sizeof(struct sockaddr_in6)}};
    struct ifaddrs *all = NULL;
    bool found = false;

    if (getifaddrs(&all) != 0)
        return false;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        for (const struct ifaddrs *at = all; at != NULL && !found; at = at->ifa_next)
            if (is_usable(at, kinds[i].family)) {
                memset(endpoint, 0, sizeof *endpoint);
                endpoint->length = kinds[i].length;
                memcpy(&endpoint->address, at->ifa_addr, endpoint->length);
                found = true;
            }
    freeifaddrs(all);
    return found;
}

int zc_net_listen_tcp(const struct zc_endpoint *endpoint, int *fd)
{
    const int on = 1;
    const int made = zc_fd_lift(
        socket(endpoint->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    int error;

    if (made < 0)
        return errno;
    /* A port that an earlier job has just left is free for us; one that listens is not. */
    setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(made, (const struct sockaddr *)&endpoint->address, endpoint->length) != 0 ||
        listen(made, BACKLOG) != 0) {
        error = errno;
        close(made);
        return error;
    }
    *fd = made;
    return 0;
}

/* On loopback a connect to a port where nobody listens can meet itself. */
static bool met_itself(int fd)
{
    struct sockaddr_storage here = {0}, there = {0};
    socklen_t here_length = sizeof here, there_length = sizeof there;

    if (getsockname(fd, (struct sockaddr *)&here, &here_length) != 0 ||
        getpeername(fd, (struct sockaddr *)&there, &there_length) != 0)
        return true;
    return here_length == there_length && memcmp(&here, &there, here_length) == 0;
}

int zc_net_connect_tcp(const struct zc_endpoint *endpoint, uint64_t deadline, int *fd)
{
    const int on = 1;
    const int made = zc_fd_lift(
        socket(endpoint->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    int error = 0;
    socklen_t length = sizeof error;

    if (made < 0)
        return errno;
    setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(made, (const struct sockaddr *)&endpoint->address, endpoint->length) != 0)
        error = errno;
    if (error == EINPROGRESS || error == EINTR) {
        if (!zc_net_wait(made, POLLOUT, deadline))
            error = ETIMEDOUT;
        else if (getsockopt(made, SOL_SOCKET, SO_ERROR, &error, &length) != 0)
            error = errno;
    }
    if (error == 0 && met_itself(made))
        error = ECONNREFUSED;
    if (error != 0) {
        close(made);
        return error;
    }
    *fd = made;
    return 0;
}

int zc_net_start_tcp(const struct zc_endpoint *endpoint, int *fd)
{
    const int made = zc_fd_lift(
        socket(endpoint->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    int error = 0;

    if (made < 0)
        return errno;
    if (connect(made, (const struct sockaddr *)&endpoint->address, endpoint->length) != 0)
        error = errno;
    if (error != 0 && error != EINPROGRESS && error != EINTR) {
        close(made);
        return error;
    }
    *fd = made;
    return 0;
}

int zc_net_error(int fd)
{
    int error = 0;
    socklen_t length = sizeof error;

    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0 ? errno : error;
}

void zc_net_configure_tcp(int fd)
{
    static const struct {
        int level, name, value;
    } rows[] = {{IPPROTO_TCP, TCP_NODELAY, 1},   {SOL_SOCKET, SO_KEEPALIVE, 1},
                {IPPROTO_TCP, TCP_KEEPIDLE, 10}, {IPPROTO_TCP, TCP_KEEPINTVL, 5},
                {IPPROTO_TCP, TCP_KEEPCNT, 3},   {IPPROTO_TCP, TCP_USER_TIMEOUT, 25000}};

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        setsockopt(fd, rows[i].level, rows[i].name, &rows[i].value, sizeof rows[i].value);
}

static socklen_t unix_address(const uint8_t name[16], struct sockaddr_un *address)
{
    static const char digits[] = "0123456789abcdef";
    /* A leading zero byte makes the name abstract: no file is left behind. */
    static const char prefix[UNIX_PREFIX + 1] = "\0zerocta-";
    size_t length = UNIX_PREFIX;

    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(address->sun_path, prefix, UNIX_PREFIX);
    for (size_t i = 0; i < 16; i++) {
        address->sun_path[length++] = digits[name[i] >> 4];
        address->sun_path[length++] = digits[name[i] & 15];
    }
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
}

/* `own` and `name` may be NULL: then it is not bound, or listens instead of connecting. */
static int unix_socket(const uint8_t own[16], const uint8_t name[16], int *fd)
{
    struct sockaddr_un here, there;
    const int made = zc_fd_lift(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    bool done = true;

    if (made < 0)
        return errno;
    if (own != NULL) {
        const socklen_t length = unix_address(own, &here);

        done = bind(made, (struct sockaddr *)&here, length) == 0;
    }
    if (done && name != NULL) {
        const socklen_t length = unix_address(name, &there);

        done = connect(made, (struct sockaddr *)&there, length) == 0;
    } else if (done) {
        done = listen(made, BACKLOG) == 0;
    }
    if (!done) {
        const int error = errno;

        close(made);
        return error;
    }
    *fd = made;
    return 0;
}

int zc_net_listen_unix(const uint8_t name[16], int *fd)
{
    return unix_socket(name, NULL, fd);
}

int zc_net_connect_unix(const uint8_t name[16], int *fd)
{
    return unix_socket(NULL, name, fd);
}

int zc_net_connect_unix_as(const uint8_t own[16], const uint8_t name[16], int *fd)
{
    return unix_socket(own, name, fd);
}

bool zc_net_peer_name(int fd, uint8_t name[16])
{
    static const uint8_t none[16];
    struct sockaddr_un there = {0}, like;
    const socklen_t expected = unix_address(none, &like);
    socklen_t length = sizeof there;

    if (getpeername(fd, (struct sockaddr *)&there, &length) != 0 || length != expected ||
        memcmp(there.sun_path, like.sun_path, UNIX_PREFIX) != 0)
        return false;
    for (size_t i = 0; i < 16; i++) {
        const char digits[3] = {there.sun_path[UNIX_PREFIX + 2 * i],
                                there.sun_path[UNIX_PREFIX + 2 * i + 1], '\0'};
        char *end;

        name[i] = (uint8_t)strtoul(digits, &end, 16);
        if (end != digits + 2)
            return false;
    }
    return true;
}

bool zc_net_peer(int fd, int64_t *pid, uint32_t *uid)
{
    struct ucred cred;
    socklen_t length = sizeof cred;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &length) != 0)
        return false;
    *pid = cred.pid;
    *uid = cred.uid;
    return true;
}

long zc_net_receive(int fd, void *data, size_t bytes)
{
    for (;;) {
        const ssize_t got = recv(fd, data, bytes, MSG_DONTWAIT);

        if (got > 0)
            return got;
        if (got == 0)
            return -1;
        if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOMEM || errno == ENOBUFS)
            return 0;
        if (errno != EINTR)
            return -1;
    }
}

bool zc_net_send_small(int fd, const void *data, size_t bytes)
{
    ssize_t sent;

    do
        sent = send(fd, data, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent == (ssize_t)bytes;
}

int zc_net_write(int fd, const void *data, size_t bytes, uint64_t deadline)
{
    const char *at = data;

    while (bytes > 0) {
        const ssize_t sent = send(fd, at, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (sent > 0) {
            at += sent;
            bytes -= (size_t)sent;
        } else if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            if (!zc_net_wait(fd, POLLOUT, deadline))
                return ETIMEDOUT;
        } else if (sent < 0 && errno != EINTR) {
            return errno;
        }
    }
    return 0;
}

int zc_net_read(int fd, void *data, size_t bytes, uint64_t deadline)
{
    char *at = data;

    while (bytes > 0) {
        const long got = zc_net_receive(fd, at, bytes);

        if (got < 0)
            return ECONNRESET;
        if (got == 0 && !zc_net_wait(fd, POLLIN, deadline))
            return ETIMEDOUT;
        at += got;
        bytes -= (size_t)got;
    }
    return 0;
}

int zc_net_send_packet(int fd, const void *header, size_t header_bytes, const void *data,
                       size_t bytes, int pass_fd)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    /* sendmsg() only reads what an iovec points to. */
    struct iovec parts[2] = {{.iov_base = (void *)(uintptr_t)header, .iov_len = header_bytes},
                             {.iov_base = (void *)(uintptr_t)data, .iov_len = bytes}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = bytes > 0 ? 2 : 1};

    if (pass_fd >= 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(rights), &pass_fd, sizeof pass_fd);
    }
    for (;;) {
        if (sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
            return 0;
        if (errno == EWOULDBLOCK)
            return EAGAIN;
        if (errno != EINTR)
            return errno;
    }
}

/* Keeps the first descriptor in packet->fd, -1 if there is no room for it above the standard ones,
 * and closes the others. Returns how many came. */
static size_t take_fds(struct msghdr *message, struct zc_packet *packet)
{
    size_t count = 0;

    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part != NULL;
         part = CMSG_NXTHDR(message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t at = 0; CMSG_LEN(at + sizeof(int)) <= part->cmsg_len; at += sizeof(int)) {
            int fd;

            memcpy(&fd, CMSG_DATA(part) + at, sizeof fd);
            if (count++ == 0)
                packet->fd = zc_fd_lift(fd);
            else
                close(fd);
        }
    }
    return count;
}

/* What says that the other end has gone, and not that something is wrong with this one. */
static bool is_end(int error)
{
    return error == ECONNRESET || error == EPIPE || error == ENOTCONN || error == ETIMEDOUT ||
           error == EHOSTUNREACH || error == ENETUNREACH || error == ECONNREFUSED;
}

enum zc_packet_result zc_net_receive_packet(int fd, struct zc_packet *packet)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(2 * sizeof(int))];
    } control;
    bool reset = false;

    packet->fd = -1;
    for (;;) {
        struct iovec part = {.iov_base = packet->buffer, .iov_len = packet->capacity};
        struct msghdr message = {.msg_iov = &part,
                                 .msg_iovlen = 1,
                                 .msg_control = control.bytes,
                                 .msg_controllen = sizeof control.bytes};
        const ssize_t got = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

        if (got > 0) {
            const size_t fds = take_fds(&message, packet);

            packet->bytes = (size_t)got;
            if (fds <= 1 && (message.msg_flags & MSG_TRUNC) == 0)
                return ZC_PACKET_TAKEN;
            if (packet->fd >= 0)
                close(packet->fd);
            packet->fd = -1;
            return ZC_PACKET_BROKEN;
        }
        /* Where there is no memory just now the packet stays where it is. */
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return ZC_PACKET_NONE;
        if (got < 0 && (errno == ENOMEM || errno == ENOBUFS))
            return ZC_PACKET_LATER;
        if (got < 0 && errno != EINTR && !is_end(errno))
            return ZC_PACKET_UNABLE;
        /* A peer that closes with unread packets of ours shows up as one ECONNRESET before the
         * packets that it had sent: those are still there to be read. */
        if (got == 0 || (errno != EINTR && (errno != ECONNRESET || reset)))
            return ZC_PACKET_END;
        reset = errno == ECONNRESET;
    }
}
