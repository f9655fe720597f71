/* What the launcher's sentences are made of. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "launch_text.h"

static void assert_ranks(const char *pattern, uint32_t first, const char *expected)
{
    char text[ZC_RANKS_TEXT_BYTES];
    bool which[64] = {false};
    const uint32_t count = (uint32_t)strlen(pattern);

    for (uint32_t i = 0; i < count; i++)
        which[i] = pattern[i] == 'x';
    assert_string_equal(zc_ranks_text(which, count, first, text), expected);
}

static void ranks_are_listed_with_runs_in_short(void **state)
{
    (void)state;
    assert_ranks("x", 0, "rank 0");
    assert_ranks("...x", 0, "rank 3");
    assert_ranks("...x", 8, "rank 11");
    assert_ranks("xx", 0, "ranks 0 and 1");
    assert_ranks("x.x.x", 0, "ranks 0, 2 and 4");
    assert_ranks("xxx", 0, "ranks 0 to 2");
    assert_ranks("xxx..x", 4, "ranks 4 to 6 and 9");
    assert_ranks("x.xxxx.xx", 0, "ranks 0, 2 to 5, 7 and 8");
}

static void a_long_list_ends_with_dots(void **state)
{
    enum { RANKS = 4096 };
    char text[ZC_RANKS_TEXT_BYTES];
    bool which[RANKS];
    size_t length;

    (void)state;
    for (int i = 0; i < RANKS; i++)
        which[i] = i % 2 == 1;
    length = strlen(zc_ranks_text(which, RANKS, 60000, text));
    assert_in_range(length, ZC_RANKS_TEXT_BYTES / 2, ZC_RANKS_TEXT_BYTES - 1);
    assert_string_equal(text + length - 5, ", ...");
}

static void ends_are_told_by_their_name(void **state)
{
    siginfo_t end = {.si_code = CLD_EXITED};
    char text[ZC_END_TEXT_BYTES];

    (void)state;
    end.si_status = 7;
    assert_string_equal(zc_end_text(3, &end, text), "rank 3 exited with status 7");
    end.si_code = CLD_KILLED;
    end.si_status = SIGSEGV;
    assert_string_equal(zc_end_text(4095, &end, text), "rank 4095 was killed by SIGSEGV");
    end.si_code = CLD_DUMPED;
    assert_string_equal(zc_end_text(0, &end, text), "rank 0 was killed by SIGSEGV (core dumped)");
    end.si_code = CLD_KILLED;
    end.si_status = SIGRTMIN + 3;
    assert_non_null(strstr(zc_end_text(0, &end, text), "killed by signal "));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_are_listed_with_runs_in_short),
        cmocka_unit_test(a_long_list_ends_with_dots),
        cmocka_unit_test(ends_are_told_by_their_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
