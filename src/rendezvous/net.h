/* Sockets with deadlines. Every descriptor made here is non-blocking and closed on exec; every call
 * survives EINTR and raises no SIGPIPE. Knows addresses and bytes, not what they mean. */
#ifndef ZC_NET_H
#define ZC_NET_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

struct zc_endpoint {
    struct sockaddr_storage address;
    socklen_t length;
};

/* Time left until `deadline` for poll(): rounded up, at most `most_ms`. */
int zc_net_poll_ms(uint64_t deadline, int most_ms);

/* poll() that goes on after EINTR; with the result of poll(). */
int zc_net_poll(struct pollfd *set, size_t count, int timeout_ms);

/* Waits until `fd` is ready for `events` or has failed. False: the deadline passed first. */
bool zc_net_wait(int fd, short events, uint64_t deadline);

void zc_net_sleep(uint64_t ns);

/* Splits "host:port" or "[v6]:port". False if it is neither. */
bool zc_net_split(const char *root, char *host, size_t host_size, uint16_t *port);

/* Numeric addresses only: nobody is asked. For names see names.h. */
bool zc_net_resolve(const char *host, uint16_t port, struct zc_endpoint *endpoint);
bool zc_net_is_loopback(const struct zc_endpoint *endpoint);
bool zc_net_is_any(const struct zc_endpoint *endpoint); /* every address of this machine */

/* An endpoint as 16 bytes of IPv6, IPv4 mapped into it, and a port; and back. */
void zc_net_pack(const struct zc_endpoint *endpoint, uint8_t ip[16], uint16_t *port);
void zc_net_unpack(const uint8_t ip[16], uint16_t port, struct zc_endpoint *endpoint);
/* "10.0.0.1:29400", "[fe80::1]:29400". */
void zc_net_text(const struct zc_endpoint *endpoint, char text[64]);

/* This end's address. False: the socket has none. */
bool zc_net_here(int fd, struct zc_endpoint *endpoint);
/* An address by which other machines may reach this one: the first of an interface that is up.
 * False: there is only the loopback. */
bool zc_net_own_address(struct zc_endpoint *endpoint);

/* 0 and *fd, or an errno. */
int zc_net_listen_tcp(const struct zc_endpoint *endpoint, int *fd);
int zc_net_connect_tcp(const struct zc_endpoint *endpoint, uint64_t deadline, int *fd);
/* Begins to connect and does not wait; zc_net_error() tells if it failed since. */
int zc_net_start_tcp(const struct zc_endpoint *endpoint, int *fd);
int zc_net_error(int fd);
/* For a connection that lives long: small messages go at once, and a machine that is gone without a
 * word is noticed within half a minute. */
void zc_net_configure_tcp(int fd);
/* Unix sequential-packet sockets in the abstract namespace; `name` has 16 random bytes. */
int zc_net_listen_unix(const uint8_t name[16], int *fd);
int zc_net_connect_unix(const uint8_t name[16], int *fd);
/* The same from a socket with a name, which the other end finds as soon as it accepts. */
int zc_net_connect_unix_as(const uint8_t own[16], const uint8_t name[16], int *fd);
/* False: the other end of a Unix socket has no such name. */
bool zc_net_peer_name(int fd, uint8_t name[16]);

/* What the kernel says of the process at the other end of a Unix socket. */
bool zc_net_peer(int fd, int64_t *pid, uint32_t *uid);

/* What has arrived: its bytes, 0 for nothing yet, -1 when the other end closed or failed. */
long zc_net_receive(int fd, void *data, size_t bytes);

/* All at once or not at all; for small messages on a socket with room. */
bool zc_net_send_small(int fd, const void *data, size_t bytes);

/* All `bytes`, by the deadline. 0 or an errno: ETIMEDOUT, ECONNRESET when the other end closed. */
int zc_net_write(int fd, const void *data, size_t bytes, uint64_t deadline);
int zc_net_read(int fd, void *data, size_t bytes, uint64_t deadline);

/* One packet of `header` and `data`, with `pass_fd` unless -1. Whole or not at all: packets of
 * several threads on one socket never mix. 0 or an errno, EAGAIN when there is no room. */
int zc_net_send_packet(int fd, const void *header, size_t header_bytes, const void *data,
                       size_t bytes, int pass_fd);

enum zc_packet_result {
    ZC_PACKET_TAKEN,
    ZC_PACKET_NONE,   /* nothing there yet */
    ZC_PACKET_END,    /* the other end closed, everything it sent has been read */
    ZC_PACKET_LATER,  /* there may be something, and this process has no memory for it just now */
    ZC_PACKET_UNABLE, /* the system does not let this process receive */
    ZC_PACKET_BROKEN, /* longer than the buffer, or with more than one descriptor */
};

struct zc_packet {
    void *buffer;
    size_t capacity;
    size_t bytes;
    int fd; /* that came with it, or -1; the caller's */
};

enum zc_packet_result zc_net_receive_packet(int fd, struct zc_packet *packet);

#endif
