/* Both sides of the handshake of wire.h, non-blocking: an acceptor takes any number of strangers
 * and finds the ranks among them, a caller is one rank at somebody's acceptor. The same for TCP and
 * Unix sockets. Knows who a rank claims to be and that it has the key, not what becomes of it. */
#ifndef ZC_HANDSHAKE_H
#define ZC_HANDSHAKE_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rendezvous/wire.h"

/* Decides about a connection that has proved the key. Returns WELCOME, and owns `fd` from then on,
 * or a refusal. */
typedef enum zc_reply_code zc_decide_fn(void *data, int fd, const struct zc_hello *hello,
                                        const uint8_t session[ZC_WIRE_SESSION]);

/* One connection that has not proved the key: nothing of it is looked at until its hello is
 * complete, and it holds no more memory than this. */
struct zc_connection {
    int fd;
    uint64_t since;
    size_t have;
    uint8_t greeting[ZC_WIRE_GREETING];
    uint8_t hello[ZC_WIRE_HELLO];
};

struct zc_acceptor {
    int listener; /* non-blocking, the caller's */
    enum zc_wire_purpose purpose;
    uint32_t rank, rank_count; /* of the server */
    const uint8_t *key;
    zc_decide_fn *decide;
    void *decide_data;
    struct zc_connection *connections;
    uint32_t count, limit;
    uint64_t paused_until; /* the listener is left alone until then */
    uint64_t strangers;    /* that did not prove the key */
    bool starved;          /* the process or the machine ran out of descriptors at least once */
};

/* The caller has filled listener to decide_data. False: out of memory. */
bool zc_acceptor_open(struct zc_acceptor *acceptor);

/* Closes the connections that are left. A zeroed acceptor is fine. */
void zc_acceptor_close(struct zc_acceptor *acceptor);

/* This process needs a descriptor itself: drops the oldest connection, or will as soon as that one
 * has had its chance. False: there is none. Not between zc_acceptor_poll_set() and
 * zc_acceptor_serve(). */
bool zc_acceptor_relieve(struct zc_acceptor *acceptor);

/* How many entries zc_acceptor_poll_set() fills at most. */
size_t zc_acceptor_poll_limit(const struct zc_acceptor *acceptor);

/* Fills `set` and returns the number of entries; lowers *timeout_ms to when it wants to be served
 * even if none is ready. */
size_t zc_acceptor_poll_set(const struct zc_acceptor *acceptor, struct pollfd *set,
                            int *timeout_ms);

/* After poll(): reads, decides, answers, accepts, and drops who took too long. */
void zc_acceptor_serve(struct zc_acceptor *acceptor, const struct pollfd *set);

enum zc_caller_state {
    ZC_CALLER_GREETING, /* waits for the greeting */
    ZC_CALLER_REPLY,    /* waits for the reply */
    ZC_CALLER_WELCOME,  /* both sides have proved the key */
    ZC_CALLER_REFUSED,  /* see reply */
    ZC_CALLER_CLOSED,   /* the other side hung up before its reply */
    ZC_CALLER_FOREIGN,  /* what answers is not zerocta */
    ZC_CALLER_VERSION,  /* what answers is another version of zerocta */
    ZC_CALLER_FORGED,   /* what answers accepted us without having the key */
};

struct zc_caller {
    int fd;
    enum zc_caller_state state;
    const uint8_t *key;
    struct zc_hello hello;
    struct zc_reply reply;
    size_t have;
    uint8_t greeting[ZC_WIRE_GREETING];
    uint8_t answer[ZC_WIRE_REPLY];
    uint8_t session[ZC_WIRE_SESSION];
};

/* Begins on a connected socket. The nonce of `hello` is filled in. */
void zc_caller_start(struct zc_caller *caller, int fd, const struct zc_hello *hello,
                     const uint8_t *key);

/* Does what can be done now; returns the state. Wait for POLLIN while it is GREETING or REPLY. */
enum zc_caller_state zc_caller_advance(struct zc_caller *caller);

#endif
