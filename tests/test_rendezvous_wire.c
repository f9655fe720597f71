/* The bytes on the wire: what is sealed opens, what is changed does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "rendezvous/rendezvous.h"
#include "rendezvous/wire.h"

static const uint8_t key[ZC_WIRE_KEY] = "the key of this job, 32 bytes...";
static const uint8_t other_key[ZC_WIRE_KEY] = "the key of another, 32 bytes....";
static const uint8_t nonce[ZC_WIRE_NONCE] = "a nonce of the server, 32 bytes.";

static struct zc_hello usual_hello(void)
{
    struct zc_hello hello = {.purpose = ZC_WIRE_BOOTSTRAP,
                             .rank = 3,
                             .rank_count = 8,
                             .target = 0,
                             .address.pid = 4711,
                             .address.version = 0x10203};

    memset(hello.nonce, 7, sizeof hello.nonce);
    memset(hello.address.name, 8, sizeof hello.address.name);
    memset(hello.address.host, 9, sizeof hello.address.host);
    return hello;
}

static void a_greeting_tells_zerocta_from_others(void **state)
{
    uint8_t greeting[ZC_WIRE_GREETING];

    (void)state;
    zc_wire_greeting_make(greeting, ZC_WIRE_MESH, nonce);
    assert_int_equal(zc_wire_greeting_check(greeting, ZC_WIRE_MESH), ZC_WIRE_OK);
    assert_int_equal(zc_wire_greeting_check(greeting, ZC_WIRE_BOOTSTRAP), ZC_WIRE_FOREIGN);
    assert_int_equal(zc_wire_greeting_version(greeting), zcta_version());
    greeting[7]++;
    assert_int_equal(zc_wire_greeting_check(greeting, ZC_WIRE_MESH), ZC_WIRE_VERSION);
    assert_int_equal(zc_wire_greeting_version(greeting), zcta_version());
    greeting[0]++;
    assert_int_equal(zc_wire_greeting_check(greeting, ZC_WIRE_MESH), ZC_WIRE_FOREIGN);
}

static void a_sealed_hello_opens_to_what_it_was(void **state)
{
    const struct zc_hello hello = usual_hello();
    uint8_t greeting[ZC_WIRE_GREETING], bytes[ZC_WIRE_HELLO];
    struct zc_hello opened;

    (void)state;
    zc_wire_greeting_make(greeting, ZC_WIRE_BOOTSTRAP, nonce);
    zc_wire_hello_seal(bytes, &hello, greeting, key);
    assert_int_equal(zc_wire_hello_open(bytes, greeting, key, &opened), ZC_WIRE_OK);
    assert_int_equal(opened.purpose, hello.purpose);
    assert_int_equal(opened.rank, hello.rank);
    assert_int_equal(opened.rank_count, hello.rank_count);
    assert_int_equal(opened.target, hello.target);
    assert_int_equal(opened.address.pid, hello.address.pid);
    assert_int_equal(opened.address.version, hello.address.version);
    assert_memory_equal(opened.nonce, hello.nonce, sizeof hello.nonce);
    assert_memory_equal(opened.address.name, hello.address.name, sizeof hello.address.name);
    assert_memory_equal(opened.address.host, hello.address.host, sizeof hello.address.host);
}

static void a_hello_with_any_changed_byte_or_another_nonce_or_key_is_forged(void **state)
{
    const struct zc_hello hello = usual_hello();
    uint8_t greeting[ZC_WIRE_GREETING], bytes[ZC_WIRE_HELLO];
    struct zc_hello opened;

    (void)state;
    zc_wire_greeting_make(greeting, ZC_WIRE_BOOTSTRAP, nonce);
    zc_wire_hello_seal(bytes, &hello, greeting, key);
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] ^= 0x10;
        assert_int_equal(zc_wire_hello_open(bytes, greeting, key, &opened), ZC_WIRE_FORGED);
        bytes[i] ^= 0x10;
    }
    for (size_t i = 0; i < sizeof greeting; i++) {
        greeting[i] ^= 0x10;
        assert_int_equal(zc_wire_hello_open(bytes, greeting, key, &opened), ZC_WIRE_FORGED);
        greeting[i] ^= 0x10;
    }
    assert_int_equal(zc_wire_hello_open(bytes, greeting, other_key, &opened), ZC_WIRE_FORGED);
    assert_int_equal(zc_wire_hello_open(bytes, greeting, key, &opened), ZC_WIRE_OK);
}

static void a_proved_hello_that_makes_no_sense_is_malformed(void **state)
{
    struct zc_hello cases[5];
    uint8_t greeting[ZC_WIRE_GREETING], bytes[ZC_WIRE_HELLO];
    struct zc_hello opened;

    (void)state;
    for (size_t i = 0; i < 5; i++)
        cases[i] = usual_hello();
    cases[0].rank = 8;
    cases[1].rank_count = ZC_MAX_RANKS + 1;
    cases[2].target = 8;
    cases[3].target = cases[3].rank;
    cases[4].address.pid = -1;
    zc_wire_greeting_make(greeting, ZC_WIRE_BOOTSTRAP, nonce);
    for (size_t i = 0; i < 5; i++) {
        zc_wire_hello_seal(bytes, &cases[i], greeting, key);
        assert_int_equal(zc_wire_hello_open(bytes, greeting, key, &opened), ZC_WIRE_MALFORMED);
    }
}

static void a_reply_is_proved_unless_it_refuses_the_token(void **state)
{
    const struct zc_reply welcome = {.code = ZC_REPLY_MISSING, .rank = 5, .count = 2};
    const struct zc_reply refusal = {.code = ZC_REPLY_TOKEN};
    uint8_t session[ZC_WIRE_SESSION] = {1}, bytes[ZC_WIRE_REPLY];
    struct zc_reply opened;

    (void)state;
    zc_wire_reply_seal(bytes, &welcome, session, key);
    assert_int_equal(zc_wire_reply_open(bytes, session, key, &opened), ZC_WIRE_OK);
    assert_int_equal(opened.code, welcome.code);
    assert_int_equal(opened.rank, 5);
    assert_int_equal(opened.count, 2);
    for (size_t i = 8; i < sizeof bytes; i++) {
        bytes[i] ^= 0x40;
        assert_int_equal(zc_wire_reply_open(bytes, session, key, &opened), ZC_WIRE_FORGED);
        bytes[i] ^= 0x40;
    }
    session[0]++;
    assert_int_equal(zc_wire_reply_open(bytes, session, key, &opened), ZC_WIRE_FORGED);
    bytes[0]++;
    assert_int_equal(zc_wire_reply_open(bytes, session, key, &opened), ZC_WIRE_FOREIGN);

    zc_wire_reply_seal(bytes, &refusal, session, key);
    for (size_t i = ZC_WIRE_REPLY - ZC_WIRE_MAC; i < ZC_WIRE_REPLY; i++)
        assert_int_equal(bytes[i], 0);
    assert_int_equal(zc_wire_reply_open(bytes, session, other_key, &opened), ZC_WIRE_OK);
    assert_int_equal(opened.code, ZC_REPLY_TOKEN);
}

static void a_session_differs_with_every_nonce(void **state)
{
    uint8_t greeting[ZC_WIRE_GREETING] = {0}, hello[ZC_WIRE_HELLO] = {0};
    uint8_t first[ZC_WIRE_SESSION], second[ZC_WIRE_SESSION], third[ZC_WIRE_SESSION];

    (void)state;
    zc_wire_session(first, greeting, hello);
    greeting[20]++;
    zc_wire_session(second, greeting, hello);
    hello[30]++;
    zc_wire_session(third, greeting, hello);
    assert_memory_not_equal(first, second, sizeof first);
    assert_memory_not_equal(second, third, sizeof first);
}

static void frames_read_back_and_every_lie_in_a_header_is_seen(void **state)
{
    const struct zc_frame frame = {.kind = ZC_FRAME_EXCHANGE,
                                   .has_fd = true,
                                   .bytes = 5,
                                   .tag = UINT64_C(0x0123456789abcdef),
                                   .number = 0x01020304,
                                   .topic = 0x05060708};
    static const struct {
        size_t at;
        uint8_t value;
    } lies[] = {{0, 0}, {2, 0}, {2, ZC_FRAME_KINDS}, {2, ZC_FRAME_NOTICE}, {3, 4}, {4, 4},
                {4, 6}, {7, 1}};
    uint8_t bytes[ZC_WIRE_FRAME + 5];
    struct zc_frame read;

    (void)state;
    zc_wire_frame_encode(bytes, &frame);
    assert_int_equal(zc_wire_frame_decode(bytes, sizeof bytes, &read), ZC_WIRE_OK);
    assert_int_equal(read.kind, frame.kind);
    assert_true(read.has_fd);
    assert_int_equal(read.bytes, 5);
    assert_int_equal(read.tag, frame.tag);
    assert_int_equal(read.number, frame.number);
    assert_int_equal(read.topic, frame.topic);
    assert_false(read.stands);
    for (size_t size = 0; size < sizeof bytes; size++)
        assert_int_equal(zc_wire_frame_decode(bytes, size, &read), ZC_WIRE_MALFORMED);
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        const uint8_t true_value = bytes[lies[i].at];

        bytes[lies[i].at] = lies[i].value;
        assert_int_equal(zc_wire_frame_decode(bytes, sizeof bytes, &read), ZC_WIRE_MALFORMED);
        bytes[lies[i].at] = true_value;
    }
}

static void a_table_hash_covers_every_byte_and_the_session(void **state)
{
    uint8_t table[3 * ZC_WIRE_ADDRESS] = {0}, session[ZC_WIRE_SESSION] = {0};
    uint8_t good[ZC_WIRE_MAC], mac[ZC_WIRE_MAC];

    (void)state;
    zc_wire_table_mac(good, table, sizeof table, session, key);
    for (size_t i = 0; i < sizeof table; i++) {
        table[i] = 1;
        zc_wire_table_mac(mac, table, sizeof table, session, key);
        assert_memory_not_equal(mac, good, sizeof good);
        table[i] = 0;
    }
    session[3] = 1;
    zc_wire_table_mac(mac, table, sizeof table, session, key);
    assert_memory_not_equal(mac, good, sizeof good);
}

static void a_failure_arrives_whole_and_with_the_key_of_its_session_only(void **state)
{
    const zcta_error sent = {.status = ZCTA_ERR_SYSTEM,
                             .rank = 5,
                             .native = -7,
                             .call = "zcta_init",
                             .message = "rank 5 cannot open a socket: no more; raise `ulimit -n`"};
    const uint8_t session[ZC_WIRE_SESSION] = {1}, other_session[ZC_WIRE_SESSION] = {2};
    uint8_t bytes[ZC_WIRE_FAILURE];
    zcta_error opened = {0}, wrong = sent;

    (void)state;
    zc_wire_failure_seal(bytes, &sent, session, key);
    assert_int_equal(zc_wire_failure_open(bytes, session, key, &opened), ZC_WIRE_OK);
    assert_memory_equal(&opened, &sent, sizeof sent);
    assert_int_equal(zc_wire_failure_open(bytes, other_session, key, &opened), ZC_WIRE_FORGED);
    assert_int_equal(zc_wire_failure_open(bytes, session, other_key, &opened), ZC_WIRE_FORGED);
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] ^= 1;
        assert_int_equal(zc_wire_failure_open(bytes, session, key, &opened), ZC_WIRE_FORGED);
        bytes[i] ^= 1;
    }
    /* What is no failure, and a sentence without an end. */
    wrong.status = ZCTA_OK;
    zc_wire_failure_seal(bytes, &wrong, session, key);
    assert_int_equal(zc_wire_failure_open(bytes, session, key, &opened), ZC_WIRE_MALFORMED);
    wrong.status = (zcta_status)99;
    zc_wire_failure_seal(bytes, &wrong, session, key);
    assert_int_equal(zc_wire_failure_open(bytes, session, key, &opened), ZC_WIRE_MALFORMED);
    wrong = sent;
    memset(wrong.message, 'x', sizeof wrong.message);
    zc_wire_failure_seal(bytes, &wrong, session, key);
    assert_int_equal(zc_wire_failure_open(bytes, session, key, &opened), ZC_WIRE_OK);
    assert_int_equal(strlen(opened.message), sizeof opened.message - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failure_arrives_whole_and_with_the_key_of_its_session_only),
        cmocka_unit_test(a_greeting_tells_zerocta_from_others),
        cmocka_unit_test(a_sealed_hello_opens_to_what_it_was),
        cmocka_unit_test(a_hello_with_any_changed_byte_or_another_nonce_or_key_is_forged),
        cmocka_unit_test(a_proved_hello_that_makes_no_sense_is_malformed),
        cmocka_unit_test(a_reply_is_proved_unless_it_refuses_the_token),
        cmocka_unit_test(a_session_differs_with_every_nonce),
        cmocka_unit_test(frames_read_back_and_every_lie_in_a_header_is_seen),
        cmocka_unit_test(a_table_hash_covers_every_byte_and_the_session),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
