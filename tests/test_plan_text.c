/* The text form: what is printed is parsed back to the same plan, what is not a plan is refused
 * with the line and the reason. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support_plans.h"

static char *print(const struct zc_plan *plan, size_t *length)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, length);

    assert_non_null(out);
    zc_plan_print(plan, out);
    fclose(out);
    return text;
}

static void what_is_printed_is_parsed_back(void **state)
{
    (void)state;
    for (uint32_t algorithm = 0; algorithm < ZC_ALGORITHMS; algorithm++)
        for (int in_place = 0; in_place < 2; in_place++) {
            struct zc_request request =
                usual_request((enum zc_algorithm)algorithm, 6, 1000, in_place);
            struct zc_plan *plan = NULL, *parsed = NULL;
            size_t length = 0, again = 0;
            char *text, *second, why[128] = "";

            request.rank = 3;
            request.block_bytes = 300;
            request.closed = algorithm == ZC_ALGORITHM_FLAGS;
            request.grouped = algorithm == ZC_ALGORITHM_DIRECT_PUSH;
            assert_int_equal(zc_plan_make(&request, &plan), ZCTA_OK);
            text = print(plan, &length);
            assert_int_equal(zc_plan_parse(text, length, &parsed, why, sizeof why), ZCTA_OK);
            assert_int_equal(parsed->step_count, plan->step_count);
            second = print(parsed, &again);
            assert_string_equal(text, second);
            free(text);
            free(second);
            zc_plan_destroy(plan);
            zc_plan_destroy(parsed);
        }
}

static void the_form_is_what_the_documents_show(void **state)
{
    struct zc_request request = usual_request(ZC_ALGORITHM_DIRECT_PUSH, 2, 64, false);
    struct zc_plan *plan = NULL;
    size_t length = 0;
    char *text;

    (void)state;
    request.scratch_bytes = 0;
    assert_int_equal(zc_plan_make(&request, &plan), ZCTA_OK);
    text = print(plan, &length);
    assert_string_equal(
        text, "plan all_gather direct-push ranks 2 rank 0 bytes 64 out-of-place half 0 scratch 0 "
              "lanes 2/2 block 0 ready now\n"
              "0 signal 1 ready\n"
              "0 fork 1\n"
              "1 copy 0:send+0 0:recv+0 64\n"
              "0 wait 1 ready\n"
              "0 copy 0:send+0 1:recv+0 64\n"
              "0 signal 1 done\n"
              "0 wait 1 done\n"
              "0 join 1\n");
    free(text);
    zc_plan_destroy(plan);
}

static void plans_over_nodes_have_a_form_too(void **state)
{
    struct zc_request request = usual_request(ZC_ALGORITHM_BY_NODES, 4, 64, true);
    struct zc_plan *plan = NULL, *parsed = NULL;
    size_t length = 0;
    char *text, *again, why[256] = "";

    (void)state;
    request.rank = 3;
    request.scratch_bytes = 0;
    request.node_ranks = 2;
    request.chunks = 2;
    assert_int_equal(zc_plan_make(&request, &plan), ZCTA_OK);
    text = print(plan, &length);
    assert_string_equal(text,
                        "plan all_gather by-nodes ranks 4 rank 3 bytes 64 in-place half 0 scratch "
                        "0 lanes 2/2 block 0 ready now nodes of 2 chunks 2\n"
                        "0 signal 2 ready\n"
                        "0 exchange recv+64 32 rows 2 stride 128\n"
                        "0 wait 2 ready\n"
                        "0 fork 1\n"
                        "1 copy 3:recv+64 2:recv+64 32 rows 2 stride 128\n"
                        "0 exchange recv+96 32 rows 2 stride 128\n"
                        "0 copy 3:recv+96 2:recv+96 32 rows 2 stride 128\n"
                        "0 join 1\n"
                        "0 signal 2 done\n"
                        "0 wait 2 done\n");
    assert_int_equal(zc_plan_parse(text, length, &parsed, why, sizeof why), ZCTA_OK);
    again = print(parsed, &length);
    assert_string_equal(again, text);
    free(again);
    free(text);
    zc_plan_destroy(parsed);
    zc_plan_destroy(plan);
}

#define NODES                                                                                      \
    "plan all_gather by-nodes ranks 4 rank 3 bytes 64 in-place half 0 scratch 0 lanes 1/1 block "  \
    "0 ready now nodes of 2 chunks 1\n"

#define HEADER                                                                                     \
    "plan all_gather direct-push ranks 2 rank 0 bytes 64 in-place half 0 scratch 0 lanes 1/1 "     \
    "block 0 ready now\n"

static void what_is_no_plan_is_refused_with_the_line(void **state)
{
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"", "line 1"},
        {"plan", "line 1"},
        {"plan all_gather flags ranks 2 rank 0 bytes 0 in-place half 0 scratch 0 lanes 1/1 block "
         "0 ready now\n",
         "another collective"},
        {HEADER "0 hop 1\n", "line 2: expected a kind of step"},
        {HEADER "0 signal 1 ready\n0 wait 1 never\n", "line 3: expected a channel"},
        {HEADER "0 signal 1 ready", "line 2: expected the end of the line"},
        {HEADER "0 signal 99999999999 ready\n", "a smaller number"},
        {HEADER "0 signal 2 ready\n", "no peer"},
        {HEADER "0 signal 0 ready\n", "no peer"},
        {HEADER "1 signal 1 ready\n", "does not run"},
        {HEADER "0 copy 0:recv+0 1:recv+65 64\n", "past the end"},
        {HEADER "0 copy 0:recv+0 1:recv+0 0\n", "copies nothing"},
        {HEADER "0 fork 1\n", "lane 0 cannot"},
        {HEADER "0 copy 0:send+0 1:recv+0 1\n", "past the end"},
        {HEADER "0 copy 0:recv+0 1:recv+0 8 rows 3 stride 61\n", "past the end"},
        {HEADER "0 copy 0:recv+0 1:recv+0 8 rows 3 stride 4\n", "overlap"},
        {HEADER "0 copy 0:recv+0 1:recv+0 8 rows 0 stride 0\n", "copies nothing"},
        {HEADER "0 copy 0:recv+0 1:recv+0 0 rows 2 stride 0\n", "overlap"},
        {NODES "0 copy 3:recv+0 1:recv+0 8\n", "from node to node"},
        {NODES "0 copy 1:recv+0 0:recv+0 8\n", "within another node"},
        {NODES "0 signal 1 ready\n", "no peer"},
        {NODES "0 exchange recv+0 64 rows 2 stride 128\n0 exchange recv+0 64\n", "line 3"},
        {NODES "0 exchange recv+0 64 rows 3 stride 64\n", "a row for each node"},
        {NODES "0 exchange recv+64 64 rows 2 stride 192\n", "past the end"},
        {NODES "0 exchange recv+0 0 rows 2 stride 128\n", "exchanges nothing"},
        {NODES "0 exchange scratch+0 0 rows 2 stride 128\n", "past the end"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct zc_plan *plan = NULL;
        char why[256] = "";

        assert_int_equal(
            zc_plan_parse(cases[i].text, strlen(cases[i].text), &plan, why, sizeof why),
            ZCTA_ERR_INVALID);
        assert_null(plan);
        if (strstr(why, cases[i].why) == NULL)
            fail_msg("case %zu: expected \"%s\", got \"%s\"", i, cases[i].why, why);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_printed_is_parsed_back),
        cmocka_unit_test(the_form_is_what_the_documents_show),
        cmocka_unit_test(plans_over_nodes_have_a_form_too),
        cmocka_unit_test(what_is_no_plan_is_refused_with_the_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
