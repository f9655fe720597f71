/* Everything that a rank reads from a socket: greetings, hellos, verdicts, addresses, failures,
 * frames. The first byte chooses; a hello and a reply come raw, and again with a right hash, so
 * that what stands behind the proof is reached too. */
#include <string.h>

#include "fuzz.h"
#include "rendezvous/rendezvous.h"
#include "rendezvous/wire.h"

static const uint8_t key[ZC_WIRE_KEY] = {1, 2, 3};

/* The first `wanted` bytes of the input, padded with zeros. */
static void take(uint8_t *to, size_t wanted, const uint8_t *data, size_t bytes)
{
    memset(to, 0, wanted);
    memcpy(to, data, bytes < wanted ? bytes : wanted);
}

static void check_greeting(const uint8_t *data, size_t bytes)
{
    uint8_t greeting[ZC_WIRE_GREETING];

    take(greeting, sizeof greeting, data, bytes);
    FUZZ_REQUIRE(zc_wire_greeting_check(greeting, ZC_WIRE_MESH) != ZC_WIRE_OK ||
                 zc_wire_greeting_check(greeting, ZC_WIRE_BOOTSTRAP) != ZC_WIRE_OK);
}

/* No input can carry a right hash by chance, and what is opened seals to the same bytes. */
static void check_hello(const uint8_t *data, size_t bytes)
{
    uint8_t greeting[ZC_WIRE_GREETING] = {0}, raw[ZC_WIRE_HELLO], again[ZC_WIRE_HELLO];
    struct zc_hello hello = {0};

    take(raw, sizeof raw, data, bytes);
    FUZZ_REQUIRE(zc_wire_hello_open(raw, greeting, key, &hello) == ZC_WIRE_FORGED);
    FUZZ_REQUIRE(hello.rank_count == 0);

    hello.purpose = raw[0] & 1 ? ZC_WIRE_MESH : ZC_WIRE_BOOTSTRAP;
    memcpy(&hello.rank, raw + 1, 4);
    memcpy(&hello.rank_count, raw + 5, 4);
    memcpy(&hello.target, raw + 9, 4);
    memcpy(hello.nonce, raw + 13, sizeof hello.nonce);
    memcpy(&hello.address.pid, raw + 45, 8);
    zc_wire_hello_seal(again, &hello, greeting, key);
    if (zc_wire_hello_open(again, greeting, key, &hello) != ZC_WIRE_OK)
        return;
    FUZZ_REQUIRE(hello.rank < hello.rank_count && hello.rank_count <= ZC_MAX_RANKS);
    FUZZ_REQUIRE(hello.target < hello.rank_count && hello.target != hello.rank);
    FUZZ_REQUIRE(hello.address.pid >= 0);
    zc_wire_hello_seal(raw, &hello, greeting, key);
    FUZZ_REQUIRE(memcmp(raw, again, sizeof raw) == 0);
}

static void check_reply(const uint8_t *data, size_t bytes)
{
    uint8_t session[ZC_WIRE_SESSION] = {0}, raw[ZC_WIRE_REPLY];
    struct zc_reply reply = {0};
    uint32_t code;

    take(raw, sizeof raw, data, bytes);
    if (zc_wire_reply_open(raw, session, key, &reply) == ZC_WIRE_OK)
        FUZZ_REQUIRE(reply.code == ZC_REPLY_TOKEN); /* the one that needs no proof */
    memcpy(&code, raw, 4);
    reply = (struct zc_reply){.code = (enum zc_reply_code)code, .rank = 3, .count = 4};
    zc_wire_reply_seal(raw, &reply, session, key);
    if (zc_wire_reply_open(raw, session, key, &reply) == ZC_WIRE_OK)
        FUZZ_REQUIRE(reply.code >= ZC_REPLY_WELCOME && reply.code < ZC_REPLY_CODES);
}

static void check_address(const uint8_t *data, size_t bytes)
{
    uint8_t raw[ZC_WIRE_ADDRESS], again[ZC_WIRE_ADDRESS];
    struct zc_address address;

    take(raw, sizeof raw, data, bytes);
    if (zc_wire_address_decode(raw, &address) != ZC_WIRE_OK)
        return;
    FUZZ_REQUIRE(address.pid >= 0);
    zc_wire_address_encode(again, &address);
    FUZZ_REQUIRE(memcmp(raw, again, sizeof raw) == 0);
}

static void check_failure(const uint8_t *data, size_t bytes)
{
    uint8_t session[ZC_WIRE_SESSION] = {0}, raw[ZC_WIRE_FAILURE];
    zcta_error error = {0};

    take(raw, sizeof raw, data, bytes);
    FUZZ_REQUIRE(zc_wire_failure_open(raw, session, key, &error) == ZC_WIRE_FORGED);
    memcpy(&error, raw, sizeof error < sizeof raw ? sizeof error : sizeof raw);
    zc_wire_failure_seal(raw, &error, session, key);
    if (zc_wire_failure_open(raw, session, key, &error) != ZC_WIRE_OK)
        return;
    FUZZ_REQUIRE(error.status != ZCTA_OK && strlen(zcta_status_name(error.status)) > 0);
    FUZZ_REQUIRE(strnlen(error.call, sizeof error.call) < sizeof error.call);
    FUZZ_REQUIRE(strnlen(error.message, sizeof error.message) < sizeof error.message);
}

static void check_frame(const uint8_t *data, size_t bytes)
{
    uint8_t again[ZC_WIRE_FRAME];
    struct zc_frame frame;

    if (zc_wire_frame_decode(data, bytes, &frame) != ZC_WIRE_OK)
        return;
    FUZZ_REQUIRE(frame.bytes == bytes - ZC_WIRE_FRAME && frame.bytes <= ZC_MAX_MESSAGE);
    zc_wire_frame_encode(again, &frame);
    FUZZ_REQUIRE(memcmp(data, again, sizeof again) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes == 0)
        return 0;
    switch (data[0] % 6) {
    case 0:
        check_greeting(data + 1, bytes - 1);
        break;
    case 1:
        check_hello(data + 1, bytes - 1);
        break;
    case 2:
        check_reply(data + 1, bytes - 1);
        break;
    case 3:
        check_address(data + 1, bytes - 1);
        break;
    case 4:
        check_frame(data + 1, bytes - 1);
        break;
    case 5:
        check_failure(data + 1, bytes - 1);
        break;
    }
    return 0;
}
