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
    for (uint32_t number = 0; number < ZC_ALGORITHMS; number++)
        for (int in_place = 0; in_place < 2; in_place++) {
            const struct zc_algorithm *algorithm = zc_algorithms[number];
            const struct zc_layout layout = even_layout(usual_collective(algorithm), 6, 1000, 0);
            struct zc_request request = usual_request(algorithm, &layout, in_place);
            struct zc_plan *plan = NULL, *parsed = NULL;
            size_t length = 0, again = 0;
            char *text, *second, why[128] = "";

            request.rank = 3;
            request.block_bytes = 300;
            request.closed = algorithm == &zc_flags;
            request.grouped = algorithm == &zc_direct_push;
            assert_int_equal(zc_plan_make(&request, &plan), ZCTA_OK);
            text = print(plan, &length);
            if (zc_plan_parse(text, length, &parsed, why, sizeof why) != ZCTA_OK)
                fail_msg("%s%s", text, why);
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
    const struct zc_layout layout = even_layout(&zc_all_gather, 2, 64, 0);
    struct zc_request request = usual_request(&zc_direct_push, &layout, false);
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
    const struct zc_layout layout = even_layout(&zc_all_gather, 4, 64, 0);
    struct zc_request request = usual_request(&zc_hierarchical, &layout, true);
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
    assert_string_equal(
        text, "plan all_gather hierarchical ranks 4 rank 3 bytes 64 in-place half 0 scratch "
              "0 lanes 2/2 block 0 ready now nodes of 2 chunks 2\n"
              "0 signal 2 ready\n"
              "0 net_send 1 recv+192 32\n"
              "0 net_recv 1 recv+64 32\n"
              "0 wait 2 ready\n"
              "0 fork 1\n"
              "1 copy 3:recv+64 2:recv+64 32 rows 2 stride 128\n"
              "0 net_send 1 recv+224 32\n"
              "0 net_recv 1 recv+96 32\n"
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

/* What not every request has stands at the end of the header. */
static void what_only_some_requests_have_is_parsed_back(void **state)
{
    static const char *const texts[] = {
        "plan barrier flags ranks 2 rank 0 bytes 0 out-of-place half 0 scratch 0 lanes 1/1 block 0 "
        "ready now closed\n",
        "plan all_gather push-back ranks 3 rank 0 bytes 64 out-of-place half 0 scratch 0 lanes 1/1 "
        "block 0 ready released grouped\n",
        "plan all_gather early-ready ranks 2 rank 0 bytes 64 in-place half 0 scratch 0 lanes 1/1 "
        "block 0 ready now\n0 signal 1 released\n",
        "plan scatter direct-push ranks 2 rank 1 bytes 64 out-of-place half 0 scratch 8 lanes 1/1 "
        "block 0 ready now bounced 32 root 1\n0 copy 1:send+64 0:scratch+16 32\n",
        "plan gather host-stream ranks 2 rank 1 bytes 8 out-of-place half 0 scratch 0 lanes 1/1 "
        "block 0 ready now bounced 0 host 64 ring 32 root 0\n0 copy 1:send+0 1:host+128 8\n"
        "0 signal 0 filled\n0 wait 0 emptied\n",
        "plan all_gather_v direct-push ranks 2 rank 1 bytes 0 in-place half 0 scratch 0 lanes 1/1 "
        "block 0 ready now shares 1:0:0 7:0:9\n",
        "plan send_recv direct-push ranks 4 rank 1 bytes 0 out-of-place half 0 scratch 0 lanes 1/1 "
        "block 0 ready now partners 3:12 -:0\n0 copy 1:send+4 3:recv+4 8\n",
    };

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct zc_plan *plan = NULL;
        size_t length = 0;
        char *text, why[256] = "";

        if (zc_plan_parse(texts[i], strlen(texts[i]), &plan, why, sizeof why) != ZCTA_OK)
            fail_msg("%s%s", texts[i], why);
        text = print(plan, &length);
        assert_string_equal(text, texts[i]);
        free(text);
        zc_plan_destroy(plan);
    }
}

#define NODES                                                                                      \
    "plan all_gather hierarchical ranks 4 rank 3 bytes 64 in-place half 0 scratch 0 lanes 1/1 "    \
    "block "                                                                                       \
    "0 ready now nodes of 2 chunks 1\n"

/* Up to what not every request has. */
#define COMMON(collective)                                                                         \
    "plan " collective " direct-push ranks 2 rank 0 bytes 0 out-of-place half 0 scratch 0 lanes "  \
    "1/1 block 0 ready now"

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
        {"plan release early-ready ranks 2 rank 0 bytes 0 in-place half 0 scratch 0 lanes 1/1 "
         "block "
         "0 ready now\n",
         "line 1: expected a collective"},
        {COMMON("all_sorts") "\n", "line 1: expected a collective"},
        {COMMON("broadcast") "\n", "line 1: expected  root "},
        {COMMON("broadcast") " root 2\n", "line 1: the root is no rank"},
        {COMMON("all_gather_v") " shares 1:0:0\n", "line 1: expected"},
        {COMMON("all_gather_v") " shares 2:0:0 1:0:1\n", "line 1: two shares overlap"},
        {COMMON("all_gather_v") " shares 1:0:0 9223372036854775807:0:1\n", "63 bits"},
        {COMMON("send_recv") " partners 2:8 -:0\n", "line 1: the partner"},
        {COMMON("send_recv") " partners 0:8 -:0\n", "line 1: a rank that sends to itself"},
        {COMMON("all_gather") " bounced 0\n", "no room there"},
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
        {HEADER "0 copy 0:send+1 1:recv+0 64\n", "past the end"},
        {HEADER "0 copy 0:recv+0 1:recv+0 8 rows 3 stride 61\n", "past the end"},
        {HEADER "0 copy 0:recv+0 1:recv+0 8 rows 3 stride 4\n", "overlap"},
        {HEADER "0 copy 0:recv+0 1:recv+0 8 rows 0 stride 0\n", "copies nothing"},
        {HEADER "0 copy 0:recv+0 1:recv+0 0 rows 2 stride 0\n", "overlap"},
        {NODES "0 copy 3:recv+0 1:recv+0 8\n", "from node to node"},
        {NODES "0 copy 1:recv+0 0:recv+0 8\n", "within another node"},
        {NODES "0 signal 1 ready\n", "no peer"},
        {NODES "0 net_send 1 recv+0 64\n0 net_recv recv+0 64\n", "line 3"},
        {NODES "0 net_send 2 recv+0 64\n", "no rank of another node"},
        {NODES "0 net_send 4 recv+0 64\n", "no rank of another node"},
        {NODES "0 net_recv 1 recv+193 64\n", "past the end"},
        {NODES "0 net_recv 1 recv+0 0\n", "sends or receives nothing"},
        {NODES "0 net_recv 1 send+0 8\n", "writes to the send buffer"},
        {HEADER "0 net_send 1 send+0 8\n", "no rank of another node"},
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
        cmocka_unit_test(what_only_some_requests_have_is_parsed_back),
        cmocka_unit_test(what_is_no_plan_is_refused_with_the_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
