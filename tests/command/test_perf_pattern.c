/* The bytes that `zerocta perf` writes and expects: no mistake of a call must look right. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "pattern.h"

enum { BYTES = 5003 }; /* no multiple of anything */

static void what_was_filled_is_right(void **state)
{
    const struct zc_pattern pattern = zc_pattern_of(3, 7);
    char share[BYTES];

    (void)state;
    for (uint64_t bytes = 0; bytes <= BYTES; bytes += bytes < 20 ? 1 : 711) {
        zc_pattern_fill(pattern, share, 0, bytes);
        assert_int_equal(zc_pattern_check(pattern, share, 0, bytes), 0);
    }
}

static void fill_writes_no_byte_beyond(void **state)
{
    char share[64];

    (void)state;
    for (uint64_t bytes = 0; bytes < sizeof share; bytes++) {
        memset(share, 0x5a, sizeof share);
        zc_pattern_fill(zc_pattern_of(0, 0), share, 0, bytes);
        for (uint64_t i = bytes; i < sizeof share; i++)
            assert_int_equal(share[i], 0x5a);
    }
}

static void every_poisoned_byte_is_wrong(void **state)
{
    const struct zc_pattern pattern = zc_pattern_of(1, 2);
    char share[BYTES];

    (void)state;
    zc_pattern_poison(pattern, share, 0, BYTES);
    assert_int_equal(zc_pattern_check(pattern, share, 0, BYTES), BYTES);
}

static void each_single_wrong_bit_is_one_wrong_byte(void **state)
{
    const struct zc_pattern pattern = zc_pattern_of(5, 1);
    char share[BYTES];

    (void)state;
    zc_pattern_fill(pattern, share, 0, BYTES);
    for (uint64_t i = 0; i < BYTES; i++) {
        share[i] = (char)(share[i] ^ (1 << i % 8));
        assert_int_equal(zc_pattern_check(pattern, share, 0, BYTES), 1);
        share[i] = (char)(share[i] ^ (1 << i % 8));
    }
}

/* Random bytes agree in one of 256 places. */
static void assert_other(struct zc_pattern pattern, const char *share, uint64_t bytes)
{
    assert_true(zc_pattern_check(pattern, share, 0, bytes) > bytes * 9 / 10);
}

static void contents_differ_by_rank_and_by_call(void **state)
{
    char share[BYTES];

    (void)state;
    for (uint32_t rank = 0; rank < 9; rank++) {
        for (uint64_t serial = 0; serial < 9; serial++) {
            zc_pattern_fill(zc_pattern_of(rank, serial), share, 0, BYTES);
            assert_other(zc_pattern_of(rank + 1, serial), share, BYTES);
            assert_other(zc_pattern_of(rank, serial + 1), share, BYTES);
            assert_other(zc_pattern_of(rank + 1, serial + 1), share, BYTES);
            assert_other(zc_pattern_of((uint32_t)serial, rank + 10), share, BYTES);
        }
    }
}

static void contents_differ_by_position(void **state)
{
    const struct zc_pattern pattern = zc_pattern_of(2, 2);
    char share[BYTES];

    (void)state;
    zc_pattern_fill(pattern, share, 0, BYTES);
    for (uint64_t shift = 1; shift <= 4096; shift *= 2)
        assert_other(pattern, share + shift, BYTES - shift);
}

/* A part of the pattern may begin anywhere in it, and lie anywhere. */
static void parts_may_begin_at_any_place(void **state)
{
    const struct zc_pattern pattern = zc_pattern_of(4, 9);
    char whole[256], part[256 + 8];

    (void)state;
    zc_pattern_fill(pattern, whole, 0, sizeof whole);
    for (uint64_t from = 0; from < 20; from++)
        for (uint64_t bytes = 0; bytes < 40; bytes++) {
            memset(part, 0x5a, sizeof part);
            zc_pattern_fill(pattern, part + 3, from, bytes);
            assert_memory_equal(part + 3, whole + from, bytes);
            assert_int_equal(part[2], 0x5a);
            assert_int_equal(part[3 + bytes], 0x5a);
            assert_int_equal(zc_pattern_check(pattern, part + 3, from, bytes), 0);
            zc_pattern_poison(pattern, part + 3, from, bytes);
            assert_int_equal(zc_pattern_check(pattern, part + 3, from, bytes), bytes);
        }
}

static void parts_are_those_of_the_whole(void **state)
{
    const struct zc_pattern pattern = zc_pattern_of(4, 9);
    char share[BYTES];

    (void)state;
    zc_pattern_fill(pattern, share, 0, 1000);
    zc_pattern_fill(pattern, share + 1000, 1000, BYTES - 1000);
    assert_int_equal(zc_pattern_check(pattern, share, 0, BYTES), 0);
    assert_int_equal(zc_pattern_check(pattern, share + 2000, 2000, 808), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_filled_is_right),
        cmocka_unit_test(fill_writes_no_byte_beyond),
        cmocka_unit_test(every_poisoned_byte_is_wrong),
        cmocka_unit_test(each_single_wrong_bit_is_one_wrong_byte),
        cmocka_unit_test(contents_differ_by_rank_and_by_call),
        cmocka_unit_test(contents_differ_by_position),
        cmocka_unit_test(parts_are_those_of_the_whole),
        cmocka_unit_test(parts_may_begin_at_any_place),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
