/* Encoding, decoding and proving of what ranks send each other. Does no I/O and keeps no state. */
#include "rendezvous/wire.h"

#include <assert.h>
#include <sodium.h>
#include <string.h>

#include "rendezvous/rendezvous.h"

_Static_assert(ZC_WIRE_KEY == ZC_TOKEN_BYTES, "the job's key is the key of the hash");

/* The last byte is the version of everything in this file. */
static const uint8_t magic[8] = {'z', 'e', 'r', 'o', 'c', 't', 'a', 3};

enum {
    VERSION_AT = 7,
    GREETING_LIBRARY_AT = 12 + (int)ZC_WIRE_NONCE,
    FAILURE_CALL_AT = 8 + 4 + 4 + 8,
    FAILURE_MESSAGE_AT = FAILURE_CALL_AT + (int)sizeof(((zcta_error *)NULL)->call),
    FAILURE_MAC_AT = FAILURE_MESSAGE_AT + (int)sizeof(((zcta_error *)NULL)->message),
    HELLO_ADDRESS_AT = 8 + 4 * 4 + (int)ZC_WIRE_NONCE,
    HELLO_MAC_AT = HELLO_ADDRESS_AT + (int)ZC_WIRE_ADDRESS,
    REPLY_MAC_AT = (int)(ZC_WIRE_REPLY - ZC_WIRE_MAC),
    FRAME_MAGIC = 0x5a43,
    FRAME_HAS_FD = 1,
    FRAME_STANDS = 2,
};
_Static_assert(HELLO_MAC_AT + ZC_WIRE_MAC == ZC_WIRE_HELLO, "a hello ends with its hash");
_Static_assert(FAILURE_MAC_AT + ZC_WIRE_MAC == ZC_WIRE_FAILURE, "a failure ends with its hash");

static void put(uint8_t *at, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get(const uint8_t *at, size_t bytes)
{
    uint64_t value = 0;

    for (size_t i = 0; i < bytes; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

static uint32_t get32(const uint8_t *at)
{
    return (uint32_t)get(at, 4);
}

/* The label keeps a hash made for one purpose from serving another. */
static void keyed_hash(uint8_t mac[ZC_WIRE_MAC], const uint8_t *key, uint8_t label,
                       const uint8_t *first, size_t first_bytes, const uint8_t *second,
                       size_t second_bytes)
{
    crypto_generichash_state state;

    crypto_generichash_init(&state, key, key != NULL ? ZC_WIRE_KEY : 0, ZC_WIRE_MAC);
    crypto_generichash_update(&state, &label, 1);
    crypto_generichash_update(&state, first, first_bytes);
    crypto_generichash_update(&state, second, second_bytes);
    crypto_generichash_final(&state, mac, ZC_WIRE_MAC);
}

void zc_wire_greeting_make(uint8_t greeting[ZC_WIRE_GREETING], enum zc_wire_purpose purpose,
                           const uint8_t nonce[ZC_WIRE_NONCE])
{
    memset(greeting, 0, ZC_WIRE_GREETING);
    memcpy(greeting, magic, sizeof magic);
    put(greeting + 8, purpose, 4);
    memcpy(greeting + 12, nonce, ZC_WIRE_NONCE);
    put(greeting + GREETING_LIBRARY_AT, zcta_version(), 4);
}

uint32_t zc_wire_greeting_version(const uint8_t greeting[ZC_WIRE_GREETING])
{
    return get32(greeting + GREETING_LIBRARY_AT);
}

enum zc_wire_result zc_wire_greeting_check(const uint8_t greeting[ZC_WIRE_GREETING],
                                           enum zc_wire_purpose purpose)
{
    if (memcmp(greeting, magic, VERSION_AT) != 0)
        return ZC_WIRE_FOREIGN;
    if (greeting[VERSION_AT] != magic[VERSION_AT])
        return ZC_WIRE_VERSION;
    return get32(greeting + 8) == (uint32_t)purpose ? ZC_WIRE_OK : ZC_WIRE_FOREIGN;
}

void zc_wire_hello_seal(uint8_t bytes[ZC_WIRE_HELLO], const struct zc_hello *hello,
                        const uint8_t greeting[ZC_WIRE_GREETING], const uint8_t key[ZC_WIRE_KEY])
{
    memcpy(bytes, magic, sizeof magic);
    put(bytes + 8, hello->purpose, 4);
    put(bytes + 12, hello->rank, 4);
    put(bytes + 16, hello->rank_count, 4);
    put(bytes + 20, hello->target, 4);
    memcpy(bytes + 24, hello->nonce, ZC_WIRE_NONCE);
    zc_wire_address_encode(bytes + HELLO_ADDRESS_AT, &hello->address);
    keyed_hash(bytes + HELLO_MAC_AT, key, 'h', greeting, ZC_WIRE_GREETING, bytes, HELLO_MAC_AT);
}

enum zc_wire_result zc_wire_hello_open(const uint8_t bytes[ZC_WIRE_HELLO],
                                       const uint8_t greeting[ZC_WIRE_GREETING],
                                       const uint8_t key[ZC_WIRE_KEY], struct zc_hello *hello)
{
    struct zc_hello read = {0};
    uint8_t mac[ZC_WIRE_MAC];
    uint32_t purpose;

    keyed_hash(mac, key, 'h', greeting, ZC_WIRE_GREETING, bytes, HELLO_MAC_AT);
    if (sodium_memcmp(mac, bytes + HELLO_MAC_AT, ZC_WIRE_MAC) != 0)
        return ZC_WIRE_FORGED;
    purpose = get32(bytes + 8);
    if (memcmp(bytes, magic, sizeof magic) != 0 ||
        (purpose != ZC_WIRE_BOOTSTRAP && purpose != ZC_WIRE_MESH && purpose != ZC_WIRE_MESH_TCP))
        return ZC_WIRE_MALFORMED;
    read.purpose = (enum zc_wire_purpose)purpose;
    read.rank = get32(bytes + 12);
    read.rank_count = get32(bytes + 16);
    read.target = get32(bytes + 20);
    memcpy(read.nonce, bytes + 24, ZC_WIRE_NONCE);
    if (read.rank_count == 0 || read.rank_count > ZC_MAX_RANKS || read.rank >= read.rank_count ||
        read.target >= read.rank_count || read.target == read.rank)
        return ZC_WIRE_MALFORMED;
    if (zc_wire_address_decode(bytes + HELLO_ADDRESS_AT, &read.address) != ZC_WIRE_OK)
        return ZC_WIRE_MALFORMED;
    *hello = read;
    return ZC_WIRE_OK;
}

void zc_wire_session(uint8_t session[ZC_WIRE_SESSION], const uint8_t greeting[ZC_WIRE_GREETING],
                     const uint8_t hello[ZC_WIRE_HELLO])
{
    _Static_assert(ZC_WIRE_SESSION == ZC_WIRE_MAC, "a session is a hash");
    keyed_hash(session, NULL, 's', greeting, ZC_WIRE_GREETING, hello, ZC_WIRE_HELLO);
}

void zc_wire_reply_seal(uint8_t bytes[ZC_WIRE_REPLY], const struct zc_reply *reply,
                        const uint8_t session[ZC_WIRE_SESSION], const uint8_t key[ZC_WIRE_KEY])
{
    memset(bytes, 0, ZC_WIRE_REPLY);
    memcpy(bytes, magic, sizeof magic);
    put(bytes + 8, reply->code, 4);
    put(bytes + 12, reply->rank, 4);
    put(bytes + 16, reply->count, 4);
    if (reply->code != ZC_REPLY_TOKEN)
        keyed_hash(bytes + REPLY_MAC_AT, key, 'v', session, ZC_WIRE_SESSION, bytes, REPLY_MAC_AT);
}

enum zc_wire_result zc_wire_reply_open(const uint8_t bytes[ZC_WIRE_REPLY],
                                       const uint8_t session[ZC_WIRE_SESSION],
                                       const uint8_t key[ZC_WIRE_KEY], struct zc_reply *reply)
{
    uint8_t mac[ZC_WIRE_MAC];
    uint32_t code;

    if (memcmp(bytes, magic, sizeof magic) != 0)
        return ZC_WIRE_FOREIGN;
    code = get32(bytes + 8);
    if (code == ZC_REPLY_TOKEN) {
        *reply = (struct zc_reply){.code = ZC_REPLY_TOKEN};
        return ZC_WIRE_OK;
    }
    keyed_hash(mac, key, 'v', session, ZC_WIRE_SESSION, bytes, REPLY_MAC_AT);
    if (sodium_memcmp(mac, bytes + REPLY_MAC_AT, ZC_WIRE_MAC) != 0)
        return ZC_WIRE_FORGED;
    if (code < ZC_REPLY_WELCOME || code >= ZC_REPLY_CODES)
        return ZC_WIRE_MALFORMED;
    *reply = (struct zc_reply){
        .code = (enum zc_reply_code)code, .rank = get32(bytes + 12), .count = get32(bytes + 16)};
    return ZC_WIRE_OK;
}

void zc_wire_address_encode(uint8_t bytes[ZC_WIRE_ADDRESS], const struct zc_address *address)
{
    memset(bytes, 0, ZC_WIRE_ADDRESS);
    memcpy(bytes, magic, sizeof magic);
    memcpy(bytes + 8, address->name, sizeof address->name);
    memcpy(bytes + 24, address->host, sizeof address->host);
    put(bytes + 40, (uint64_t)address->pid, 4);
    put(bytes + 44, address->uid, 4);
    memcpy(bytes + 48, address->ip, sizeof address->ip);
    put(bytes + 64, address->port, 4);
    put(bytes + 68, address->version, 4);
}

enum zc_wire_result zc_wire_address_decode(const uint8_t bytes[ZC_WIRE_ADDRESS],
                                           struct zc_address *address)
{
    const uint64_t pid = get(bytes + 40, 4), port = get(bytes + 64, 4);

    if (memcmp(bytes, magic, sizeof magic) != 0 || pid > INT32_MAX || port > UINT16_MAX)
        return ZC_WIRE_MALFORMED;
    memcpy(address->name, bytes + 8, sizeof address->name);
    memcpy(address->host, bytes + 24, sizeof address->host);
    address->pid = (int64_t)pid;
    memcpy(address->ip, bytes + 48, sizeof address->ip);
    address->port = (uint16_t)port;
    address->version = get32(bytes + 68);
    address->uid = get32(bytes + 44);
    return ZC_WIRE_OK;
}

void zc_wire_failure_seal(uint8_t bytes[ZC_WIRE_FAILURE], const zcta_error *error,
                          const uint8_t session[ZC_WIRE_SESSION], const uint8_t key[ZC_WIRE_KEY])
{
    memset(bytes, 0, ZC_WIRE_FAILURE);
    memcpy(bytes, magic, sizeof magic);
    put(bytes + 8, error->status, 4);
    put(bytes + 12, error->rank, 4);
    put(bytes + 16, (uint64_t)error->native, 8);
    memcpy(bytes + FAILURE_CALL_AT, error->call, strnlen(error->call, sizeof error->call - 1));
    memcpy(bytes + FAILURE_MESSAGE_AT, error->message,
           strnlen(error->message, sizeof error->message - 1));
    keyed_hash(bytes + FAILURE_MAC_AT, key, 'f', session, ZC_WIRE_SESSION, bytes, FAILURE_MAC_AT);
}

enum zc_wire_result zc_wire_failure_open(const uint8_t bytes[ZC_WIRE_FAILURE],
                                         const uint8_t session[ZC_WIRE_SESSION],
                                         const uint8_t key[ZC_WIRE_KEY], zcta_error *error)
{
    zcta_error read = {0};
    uint8_t mac[ZC_WIRE_MAC];

    keyed_hash(mac, key, 'f', session, ZC_WIRE_SESSION, bytes, FAILURE_MAC_AT);
    if (sodium_memcmp(mac, bytes + FAILURE_MAC_AT, ZC_WIRE_MAC) != 0)
        return ZC_WIRE_FORGED;
    if (memcmp(bytes, magic, sizeof magic) != 0 || get32(bytes + 8) == ZCTA_OK ||
        get32(bytes + 8) > ZCTA_ERR_DEVICE || bytes[FAILURE_MESSAGE_AT - 1] != 0 ||
        bytes[FAILURE_MAC_AT - 1] != 0)
        return ZC_WIRE_MALFORMED;
    read.status = (zcta_status)get32(bytes + 8);
    read.rank = get32(bytes + 12);
    read.native = (int64_t)get(bytes + 16, 8);
    memcpy(read.call, bytes + FAILURE_CALL_AT, sizeof read.call);
    memcpy(read.message, bytes + FAILURE_MESSAGE_AT, sizeof read.message);
    *error = read;
    return ZC_WIRE_OK;
}

void zc_wire_table_mac(uint8_t mac[ZC_WIRE_MAC], const void *table, size_t bytes,
                       const uint8_t session[ZC_WIRE_SESSION], const uint8_t key[ZC_WIRE_KEY])
{
    keyed_hash(mac, key, 't', session, ZC_WIRE_SESSION, table, bytes);
}

void zc_wire_frame_encode(uint8_t bytes[ZC_WIRE_FRAME], const struct zc_frame *frame)
{
    assert(frame->bytes <= ZC_MAX_MESSAGE);
    memset(bytes, 0, ZC_WIRE_FRAME);
    put(bytes, FRAME_MAGIC, 2);
    bytes[2] = (uint8_t)frame->kind;
    bytes[3] = (uint8_t)((frame->has_fd ? FRAME_HAS_FD : 0) | (frame->stands ? FRAME_STANDS : 0));
    put(bytes + 4, frame->bytes, 4);
    put(bytes + 8, frame->tag, 8);
    put(bytes + 16, frame->number, 4);
    put(bytes + 20, frame->topic, 4);
}

uint32_t zc_wire_frame_bytes(const uint8_t bytes[ZC_WIRE_FRAME])
{
    return get32(bytes + 4);
}

enum zc_wire_result zc_wire_frame_decode(const uint8_t *bytes, size_t size, struct zc_frame *frame)
{
    if (size < ZC_WIRE_FRAME || get(bytes, 2) != FRAME_MAGIC)
        return ZC_WIRE_MALFORMED;
    if (bytes[2] < ZC_FRAME_EXCHANGE || bytes[2] >= ZC_FRAME_KINDS ||
        bytes[3] > (FRAME_HAS_FD | FRAME_STANDS))
        return ZC_WIRE_MALFORMED;
    if (bytes[3] != 0 && bytes[2] != ZC_FRAME_EXCHANGE)
        return ZC_WIRE_MALFORMED;
    if (get32(bytes + 4) > ZC_MAX_MESSAGE || get32(bytes + 4) != size - ZC_WIRE_FRAME)
        return ZC_WIRE_MALFORMED;
    *frame = (struct zc_frame){
        .kind = (enum zc_frame_kind)bytes[2],
        .has_fd = (bytes[3] & FRAME_HAS_FD) != 0,
        .stands = (bytes[3] & FRAME_STANDS) != 0,
        .bytes = get32(bytes + 4),
        .tag = get(bytes + 8, 8),
        .number = get32(bytes + 16),
        .topic = get32(bytes + 20),
    };
    return ZC_WIRE_OK;
}
