/* The parser of command lines: values, bounds, and the exactness of both. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "options.h"

static void assert_size(const char *text, uint64_t expected)
{
    uint64_t bytes = 7;

    assert_true(zc_parse_size(text, &bytes));
    assert_int_equal(bytes, expected);
}

static void assert_no_size(const char *text)
{
    uint64_t bytes = 7;

    assert_false(zc_parse_size(text, &bytes));
    assert_int_equal(bytes, 7);
}

static void sizes_take_powers_of_1024(void **state)
{
    (void)state;
    assert_size("0", 0);
    assert_size("1000", 1000);
    assert_size("1K", 1024);
    assert_size("1k", 1024);
    assert_size("4M", 4ull << 20);
    assert_size("1G", 1ull << 30);
    assert_size("3T", 3ull << 40);
}

static void sizes_are_checked_for_overflow(void **state)
{
    (void)state;
    assert_size("18446744073709551615", UINT64_MAX);
    assert_no_size("18446744073709551616");
    assert_size("15E", 15ull << 60);
    assert_no_size("16E");
    assert_size("17179869183G", 17179869183ull << 30);
    assert_no_size("17179869184G");
}

static void what_is_not_wholly_a_size_is_none(void **state)
{
    static const char *const texts[] = {"",    " 1",   "1 ",  "-1", "+1",  "0x10", "K",
                                        "1KB", "1.5K", "1KK", "1Q", "1\n", "1e3"};

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        assert_no_size(texts[i]);
}

static void sizes_are_printed_exactly(void **state)
{
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {{0, "0"},
                 {1, "1"},
                 {1023, "1023"},
                 {1024, "1K"},
                 {1025, "1025"},
                 {1536, "1536"},
                 {1u << 20, "1M"},
                 {3ull << 40, "3T"},
                 {15ull << 60, "15E"},
                 {UINT64_MAX, "18446744073709551615"}};
    char text[ZC_SIZE_TEXT_BYTES];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_string_equal(zc_size_text(cases[i].bytes, text), cases[i].text);
}

static void assert_seconds(const char *text, uint64_t expected)
{
    uint64_t nanoseconds = 7;

    assert_true(zc_parse_seconds(text, &nanoseconds));
    assert_int_equal(nanoseconds, expected);
}

static void seconds_become_nanoseconds(void **state)
{
    (void)state;
    assert_seconds("0", 0);
    assert_seconds("2", 2000000000u);
    assert_seconds("0.5", 500000000u);
    assert_seconds("1.000000001", 1000000001u);
    assert_seconds("0.0000000009", 0);
    assert_seconds("18446744073.709551615", UINT64_MAX);
}

static void what_is_not_wholly_a_time_is_none(void **state)
{
    static const char *const texts[] = {
        "", ".5", "1.", "-1", "1s", "1..2", "18446744073.709551616", "18446744074"};
    uint64_t nanoseconds = 7;

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        assert_false(zc_parse_seconds(texts[i], &nanoseconds));
    assert_int_equal(nanoseconds, 7);
}

/* ---- Command lines ---- */

struct settings {
    bool flag, other;
    uint64_t number, size, choice;
    const char *text;
};

static const char *const colors[] = {"red", "green", "blue", NULL};

static const struct zc_option options[] = {
    {"flag", 'f', NULL, "a flag", ZC_OPTION_FLAG, offsetof(struct settings, flag), 0, 0, NULL},
    {"other", 'o', NULL, "a flag", ZC_OPTION_FLAG, offsetof(struct settings, other), 0, 0, NULL},
    {"number", 'n', "N", "a number", ZC_OPTION_NUMBER, offsetof(struct settings, number), 2, 9,
     NULL},
    {"size", 's', "SIZE", "a size", ZC_OPTION_SIZE, offsetof(struct settings, size), 0, 4096, NULL},
    {"color", 0, "COLOR", "a color", ZC_OPTION_CHOICE, offsetof(struct settings, choice), 0, 0,
     colors},
    {"text", 0, "TEXT", "a text", ZC_OPTION_TEXT, offsetof(struct settings, text), 0, 0, NULL},
};

static const struct zc_command_line line = {
    .command = "test",
    .synopsis = "[OPTIONS] WORD",
    .purpose = "Tests.",
    .options = options,
    .option_count = sizeof options / sizeof options[0],
    .operands_min = 1,
    .operands_max = 1,
    .operand_name = "a word",
};

#define PARSE(settings, first, status, ...)                                                        \
    zc_options_parse(&line, (int)(sizeof((char *[]){"test", __VA_ARGS__}) / sizeof(char *)),       \
                     (char *[]){"test", __VA_ARGS__, NULL}, settings, first, status)

static void values_reach_their_fields_and_others_keep_their_defaults(void **state)
{
    struct settings settings = {.number = 5, .size = 6, .text = "default"};
    int first, status;

    (void)state;
    assert_true(PARSE(&settings, &first, &status, "-f", "word", "--size", "4K", "--color=blue"));
    assert_true(settings.flag);
    assert_false(settings.other);
    assert_int_equal(settings.number, 5);
    assert_int_equal(settings.size, 4096);
    assert_int_equal(settings.choice, 2);
    assert_string_equal(settings.text, "default");
    assert_int_equal(status, 0);
    assert_int_equal(first, 5);
}

static void the_last_of_equal_options_counts(void **state)
{
    struct settings settings = {0};
    int first, status;

    (void)state;
    assert_true(PARSE(&settings, &first, &status, "-n2", "-n3", "word"));
    assert_int_equal(settings.number, 3);
}

static void values_outside_their_bounds_are_refused(void **state)
{
    struct settings settings = {.number = 5};
    int first, status = 0;

    (void)state;
    assert_false(PARSE(&settings, &first, &status, "-n", "1", "word"));
    assert_int_equal(status, 2);
    assert_false(PARSE(&settings, &first, &status, "-n", "10", "word"));
    assert_false(PARSE(&settings, &first, &status, "--size", "4097", "word"));
    assert_false(PARSE(&settings, &first, &status, "--color", "yellow", "word"));
    assert_false(PARSE(&settings, &first, &status, "--text", "", "word"));
    assert_int_equal(settings.number, 5);
    assert_true(PARSE(&settings, &first, &status, "-n", "2", "word"));
    assert_true(PARSE(&settings, &first, &status, "-n", "9", "word"));
}

static void operands_are_counted(void **state)
{
    struct settings settings = {0};
    int first, status = 0;

    (void)state;
    assert_false(PARSE(&settings, &first, &status, "-f"));
    assert_int_equal(status, 2);
    assert_false(PARSE(&settings, &first, &status, "one", "two"));
    assert_int_equal(status, 2);
    assert_true(PARSE(&settings, &first, &status, "--", "-f"));
    assert_false(settings.other);
}

/* Names count whole, so that a new option never changes what a command line means. */
static void shortened_options_are_refused(void **state)
{
    struct settings settings = {.number = 5};
    int first, status = 0;

    (void)state;
    assert_false(PARSE(&settings, &first, &status, "--num", "3", "word"));
    assert_int_equal(status, 2);
    assert_false(PARSE(&settings, &first, &status, "--num=3", "word"));
    assert_false(PARSE(&settings, &first, &status, "--numbers=3", "word"));
    assert_int_equal(settings.number, 5);
}

static void options_stand_anywhere_and_operands_keep_their_order(void **state)
{
    struct zc_command_line several = line;
    struct settings settings = {0};
    char *argv[] = {"test", "one", "-n", "3", "two", "-fo", "-", "--text=-x", "--", "-n", NULL};
    int first, status;

    (void)state;
    several.operands_max = 9;
    assert_true(zc_options_parse(&several, 10, argv, &settings, &first, &status));
    assert_int_equal(settings.number, 3);
    assert_true(settings.flag && settings.other);
    assert_string_equal(settings.text, "-x");
    assert_int_equal(first, 6);
    assert_string_equal(argv[6], "one");
    assert_string_equal(argv[7], "two");
    assert_string_equal(argv[8], "-");
    assert_string_equal(argv[9], "-n");
}

static void options_behind_another_program_are_its_own(void **state)
{
    struct zc_command_line starter = line;
    struct settings settings = {0};
    char *argv[] = {"test", "-f", "program", "-n", "3", NULL};
    int first, status;

    (void)state;
    starter.operands_max = 9;
    starter.stop_at_operand = true;
    assert_true(zc_options_parse(&starter, 5, argv, &settings, &first, &status));
    assert_int_equal(first, 2);
    assert_int_equal(settings.number, 0);
}

static void values_that_are_missing_are_said(void **state)
{
    struct settings settings = {0};
    int first, status = 0;

    (void)state;
    assert_false(PARSE(&settings, &first, &status, "word", "-n"));
    assert_false(PARSE(&settings, &first, &status, "word", "--number"));
    assert_false(PARSE(&settings, &first, &status, "word", "-fn"));
    assert_false(PARSE(&settings, &first, &status, "word", "--flag=yes"));
    assert_int_equal(status, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_take_powers_of_1024),
        cmocka_unit_test(sizes_are_checked_for_overflow),
        cmocka_unit_test(what_is_not_wholly_a_size_is_none),
        cmocka_unit_test(sizes_are_printed_exactly),
        cmocka_unit_test(seconds_become_nanoseconds),
        cmocka_unit_test(what_is_not_wholly_a_time_is_none),
        cmocka_unit_test(values_reach_their_fields_and_others_keep_their_defaults),
        cmocka_unit_test(the_last_of_equal_options_counts),
        cmocka_unit_test(values_outside_their_bounds_are_refused),
        cmocka_unit_test(operands_are_counted),
        cmocka_unit_test(shortened_options_are_refused),
        cmocka_unit_test(options_stand_anywhere_and_operands_keep_their_order),
        cmocka_unit_test(options_behind_another_program_are_its_own),
        cmocka_unit_test(values_that_are_missing_are_said),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
