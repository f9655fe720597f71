/* The bytes that ranks send each other, and the keyed hashes that prove them. Pure: no I/O, no
 * allocation, no randomness; every function takes any bytes at all. All numbers are little-endian.
 *
 * Two ranks meet by the same handshake on TCP (bootstrap, and mesh between machines) and on Unix
 * sockets (mesh within a machine):
 *
 *     server -> client  greeting   magic, purpose, a fresh nonce
 *     client -> server  hello      who I am, a fresh nonce, hash over greeting and hello
 *     server -> client  reply    welcome or a refusal, hash over greeting, hello and reply
 *
 * Each hash covers the other side's nonce, so a recorded handshake proves nothing later. After it,
 * the bootstrap sends one more reply and the table or a failure, and the client then one that
 * says how it went; the mesh sends frames.
 *
 * Whatever else changes between versions: a greeting begins with the magic and the version of this
 * format and has the library's version where it has it now, so that two versions can name each
 * other. */
#ifndef ZC_WIRE_H
#define ZC_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "zerocta/zerocta.h"

#define ZC_WIRE_KEY      32u
#define ZC_WIRE_NONCE    32u
#define ZC_WIRE_MAC      32u
#define ZC_WIRE_SESSION  32u
#define ZC_WIRE_GREETING 64u
#define ZC_WIRE_ADDRESS  72u
#define ZC_WIRE_HELLO    160u
#define ZC_WIRE_REPLY    64u
#define ZC_WIRE_FAILURE  568u
#define ZC_WIRE_FRAME    24u

enum zc_wire_purpose { ZC_WIRE_BOOTSTRAP = 1, ZC_WIRE_MESH = 2, ZC_WIRE_MESH_TCP = 3 };

enum zc_wire_result {
    ZC_WIRE_OK,
    ZC_WIRE_FOREIGN,   /* not zerocta, or meant for something else */
    ZC_WIRE_VERSION,   /* zerocta with another wire version */
    ZC_WIRE_FORGED,    /* the hash does not prove the key */
    ZC_WIRE_MALFORMED, /* proved, but makes no sense */
};

/* Where a rank is found. */
struct zc_address {
    uint8_t name[16]; /* random part of its Unix socket's abstract name */
    uint8_t host[16]; /* machine and network namespace: Unix sockets reach only equal ones */
    int64_t pid;      /* as the rank sees it; for messages only */
    uint8_t ip[16];   /* IPv6, or IPv4 mapped into it: where ranks on other machines call */
    uint16_t port;    /* 0: no other machine can */
    uint32_t version; /* zcta_version() */
    uint32_t uid;     /* of its user, as the rank sees it; the kernel has the last word */
};

struct zc_hello {
    enum zc_wire_purpose purpose;
    uint32_t rank, rank_count;
    uint32_t target; /* the rank that it wants to reach */
    uint8_t nonce[ZC_WIRE_NONCE];
    struct zc_address address;
};

enum zc_reply_code {
    ZC_REPLY_WELCOME = 1,
    ZC_REPLY_TOKEN,      /* the hello was not proved; the only reply without a hash */
    ZC_REPLY_RANK_COUNT, /* count: what the server was started with */
    ZC_REPLY_DUPLICATE,  /* this rank is there already */
    ZC_REPLY_TARGET,     /* the client looks for another rank */
    ZC_REPLY_TABLE,      /* all are there, the table follows */
    ZC_REPLY_MISSING,    /* `count` ranks did not come, `rank` is the first */
    ZC_REPLY_DIED,       /* `rank` came and ended */
    ZC_REPLY_VERSION,    /* count: the server's zcta_version(), which is another */
    ZC_REPLY_READY,      /* connected to everybody; from the server: so are all others */
    ZC_REPLY_FAILED,     /* a failure follows, which ends the job for all */
    ZC_REPLY_CODES
};

struct zc_reply {
    enum zc_reply_code code;
    uint32_t rank, count;
};

enum zc_frame_kind {
    ZC_FRAME_EXCHANGE = 1, /* a rank's part in a round */
    ZC_FRAME_NOTICE,
    ZC_FRAME_FAREWELL,
    ZC_FRAME_GONE, /* tag: a rank that is lost; number: an enum zc_gone; topic: who lost it */
    ZC_FRAME_KINDS
};

/* How sure the sender of a GONE frame is. */
enum zc_gone {
    ZC_GONE_CONNECTION = 1, /* its connection to that rank has closed */
    ZC_GONE_PROCESS,        /* the kernel says that the process has ended */
    ZC_GONE_LEFT,           /* that rank has said farewell */
};

struct zc_frame {
    enum zc_frame_kind kind;
    bool has_fd;
    bool stands;    /* EXCHANGE: replaces the sender's older ones of this tag; see zc_mesh_join() */
    uint32_t bytes; /* that follow the header */
    uint64_t tag;   /* what the round or the notice belongs to */
    uint32_t number; /* of the round among those of its tag; of a notice, its sender's */
    uint32_t topic;  /* what the round is for */
};

void zc_wire_greeting_make(uint8_t greeting[ZC_WIRE_GREETING], enum zc_wire_purpose purpose,
                           const uint8_t nonce[ZC_WIRE_NONCE]);
/* The library's version in any zerocta's greeting; 0 before there was one. */
uint32_t zc_wire_greeting_version(const uint8_t greeting[ZC_WIRE_GREETING]);
/* OK, FOREIGN or VERSION. */
enum zc_wire_result zc_wire_greeting_check(const uint8_t greeting[ZC_WIRE_GREETING],
                                           enum zc_wire_purpose purpose);

void zc_wire_hello_seal(uint8_t bytes[ZC_WIRE_HELLO], const struct zc_hello *hello,
                        const uint8_t greeting[ZC_WIRE_GREETING], const uint8_t key[ZC_WIRE_KEY]);
/* OK, FORGED or MALFORMED. Reads nothing but the hash until that is proved. */
enum zc_wire_result zc_wire_hello_open(const uint8_t bytes[ZC_WIRE_HELLO],
                                       const uint8_t greeting[ZC_WIRE_GREETING],
                                       const uint8_t key[ZC_WIRE_KEY], struct zc_hello *hello);

/* What both sides know of one handshake; later hashes cover it and so belong to that handshake. */
void zc_wire_session(uint8_t session[ZC_WIRE_SESSION], const uint8_t greeting[ZC_WIRE_GREETING],
                     const uint8_t hello[ZC_WIRE_HELLO]);

/* A TOKEN reply is sealed without a hash: who failed to prove the key learns nothing from it. */
void zc_wire_reply_seal(uint8_t bytes[ZC_WIRE_REPLY], const struct zc_reply *reply,
                        const uint8_t session[ZC_WIRE_SESSION], const uint8_t key[ZC_WIRE_KEY]);
/* OK, FOREIGN, FORGED or MALFORMED. OK with code TOKEN is not proved by anything. */
enum zc_wire_result zc_wire_reply_open(const uint8_t bytes[ZC_WIRE_REPLY],
                                       const uint8_t session[ZC_WIRE_SESSION],
                                       const uint8_t key[ZC_WIRE_KEY], struct zc_reply *reply);

void zc_wire_address_encode(uint8_t bytes[ZC_WIRE_ADDRESS], const struct zc_address *address);
/* OK or MALFORMED. */
enum zc_wire_result zc_wire_address_decode(const uint8_t bytes[ZC_WIRE_ADDRESS],
                                           struct zc_address *address);

/* What a FAILED reply is followed by: an error, whole, with a hash. */
void zc_wire_failure_seal(uint8_t bytes[ZC_WIRE_FAILURE], const zcta_error *error,
                          const uint8_t session[ZC_WIRE_SESSION], const uint8_t key[ZC_WIRE_KEY]);
/* OK, FORGED or MALFORMED. */
enum zc_wire_result zc_wire_failure_open(const uint8_t bytes[ZC_WIRE_FAILURE],
                                         const uint8_t session[ZC_WIRE_SESSION],
                                         const uint8_t key[ZC_WIRE_KEY], zcta_error *error);

/* The hash that follows a table of `bytes` bytes. */
void zc_wire_table_mac(uint8_t mac[ZC_WIRE_MAC], const void *table, size_t bytes,
                       const uint8_t session[ZC_WIRE_SESSION], const uint8_t key[ZC_WIRE_KEY]);

void zc_wire_frame_encode(uint8_t bytes[ZC_WIRE_FRAME], const struct zc_frame *frame);
/* How many bytes follow this header, as it says: any number. */
uint32_t zc_wire_frame_bytes(const uint8_t bytes[ZC_WIRE_FRAME]);
/* `bytes` is a whole message of `size` bytes, header and data. OK or MALFORMED. */
enum zc_wire_result zc_wire_frame_decode(const uint8_t *bytes, size_t size, struct zc_frame *frame);

#endif
