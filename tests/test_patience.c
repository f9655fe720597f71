/* Ranks that are late are waited for; whoever waits says for whom, once, long before the deadline.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>

#include <cmocka.h>

#include "api/objects.h"
#include "base/patience.h"
#include "support_ports.h"
#include "support_ranks.h"

#define S UINT64_C(1000000000)

static void the_first_word_comes_early(void **state)
{
    (void)state;
    assert_int_equal(zc_first_word_ns(600 * S), 5 * S);
    assert_int_equal(zc_first_word_ns(20 * S), 5 * S);
    assert_int_equal(zc_first_word_ns(8 * S), 2 * S);
}

static void a_late_rank_has_ten_minutes(void **state)
{
    const zcta_init_params params = {
        .size = sizeof params, .rank_count = 1, .device = ZCTA_DEVICE_HOST};
    zcta_context *context = NULL;

    (void)state;
    unsetenv("ZEROCTA_TIMEOUT");
    assert_int_equal(zcta_init(&params, &context), ZCTA_OK);
    assert_int_equal(context->timeout_ns, 600 * S);
    assert_int_equal(context->join_timeout_ns, 120 * S);
    assert_int_equal(zcta_finalize(&context), ZCTA_OK);
    setenv("ZEROCTA_TIMEOUT", "7", 1);
    assert_int_equal(zcta_init(&params, &context), ZCTA_OK);
    assert_int_equal(context->timeout_ns, 7 * S);
    assert_int_equal(context->join_timeout_ns, 7 * S);
    assert_int_equal(zcta_finalize(&context), ZCTA_OK);
    unsetenv("ZEROCTA_TIMEOUT");
}

/* ---- What is said ---- */

static const struct ranks_options patient = {.timeout_ns = 8 * S};

/* Rank 0's standard error goes into a file that everybody reads. */
struct board {
    FILE *words;
    zcta_status (*call)(zcta_context *context);
};

static size_t read_words(const struct board *board, char *text, size_t bytes)
{
    const ssize_t got = pread(fileno(board->words), text, bytes - 1, 0);

    text[got > 0 ? got : 0] = '\0';
    return got > 0 ? (size_t)got : 0;
}

/* Comes when rank 0 has said that it waits, and some time after that. */
static void come_late(const struct board *board)
{
    const uint64_t end = now_ns() + 7 * S;
    char text[1000];

    while (read_words(board, text, sizeof text) == 0 && now_ns() < end)
        sleep_ms(5);
    sleep_ms(300);
}

static void wait_and_say(zcta_context *context, void *data)
{
    const struct board *board = data;
    zcta_team *world = zcta_world(context);

    if (zcta_team_rank(world) == 0)
        EXPECT(dup2(fileno(board->words), STDERR_FILENO) == STDERR_FILENO);
    else
        come_late(board);
    EXPECT_OK(context, board->call(context));
    EXPECT_OK(context, zcta_barrier(world, NULL));
}

static void expect_words(zcta_status (*call)(zcta_context *context), const char *begin,
                         const char *end)
{
    struct board board = {.words = tmpfile(), .call = call};
    char text[1000];
    size_t length;

    assert_non_null(board.words);
    run_as_processes_with(2, &patient, wait_and_say, &board);
    length = read_words(&board, text, sizeof text);
    fclose(board.words);
    if (strncmp(text, begin, strlen(begin)) != 0 || strstr(text, end) == NULL)
        fprintf(stderr, "wanted '%s ... %s' in '%s'\n", begin, end, text);
    assert_int_equal(strncmp(text, begin, strlen(begin)), 0);
    assert_non_null(strstr(text, end));
    /* One line, and nothing after it. */
    assert_ptr_equal(strchr(text, '\n'), text + length - 1);
}

static zcta_status call_barrier(zcta_context *context)
{
    return zcta_barrier(zcta_world(context), NULL);
}

static void who_waits_in_a_collective_says_so_once(void **state)
{
    (void)state;
    setenv("ZEROCTA_LOG", "warn", 1);
    expect_words(call_barrier, "zerocta rank 0: has waited 2", " in barrier of team world; ");
}

static zcta_status call_window_alloc(zcta_context *context)
{
    zcta_window *window = NULL;

    return zcta_window_alloc(zcta_world(context), 100, &window);
}

static void who_waits_in_a_round_says_so_once(void **state)
{
    (void)state;
    setenv("ZEROCTA_LOG", "warn", 1);
    expect_words(call_window_alloc, "zerocta rank 0: has waited 2", " in zcta_window_alloc; ");
}

/* ---- Joining ---- */

struct joining {
    char root[32];
    struct board board;
    uint32_t late;
};

static void join_late(struct joining *joining, uint32_t rank)
{
    const zcta_init_params params = {.size = sizeof params,
                                     .rank = rank,
                                     .rank_count = 2,
                                     .root = joining->root,
                                     .token = "a test's token",
                                     .device = ZCTA_DEVICE_HOST,
                                     .timeout_ns = 8 * S};
    zcta_context *context = NULL;

    if (rank == joining->late)
        come_late(&joining->board);
    else
        EXPECT(dup2(fileno(joining->board.words), STDERR_FILENO) == STDERR_FILENO);
    EXPECT(zcta_init(&params, &context) == ZCTA_OK);
    EXPECT(zcta_finalize(&context) == ZCTA_OK);
}

static void expect_words_while_joining(uint32_t late, const char *begin, const char *end)
{
    struct joining joining = {.board = {.words = tmpfile()}, .late = late};
    pid_t pids[2];
    char text[1000];

    assert_non_null(joining.board.words);
    snprintf(joining.root, sizeof joining.root, "127.0.0.1:%u", free_port());
    fflush(NULL);
    for (uint32_t rank = 0; rank < 2; rank++) {
        pids[rank] = fork();
        assert_true(pids[rank] >= 0);
        if (pids[rank] == 0) {
            join_late(&joining, rank);
            _exit(0);
        }
    }
    for (uint32_t rank = 0; rank < 2; rank++)
        assert_int_equal(wait_process(pids[rank], 60), 0);
    read_words(&joining.board, text, sizeof text);
    fclose(joining.board.words);
    if (strncmp(text, begin, strlen(begin)) != 0 || strstr(text, end) == NULL)
        fprintf(stderr, "wanted '%s ... %s' in '%s'\n", begin, end, text);
    assert_int_equal(strncmp(text, begin, strlen(begin)), 0);
    assert_non_null(strstr(text, end));
}

static void who_waits_for_others_to_join_says_so(void **state)
{
    (void)state;
    setenv("ZEROCTA_LOG", "warn", 1);
    expect_words_while_joining(1, "zerocta rank 0: has waited 2", "for rank 1 in zcta_init; ");
    expect_words_while_joining(0, "zerocta rank 1: has waited 2", "for rank 0 at 127.0.0.1:");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_word_comes_early),
        cmocka_unit_test(a_late_rank_has_ten_minutes),
        cmocka_unit_test(who_waits_in_a_collective_says_so_once),
        cmocka_unit_test(who_waits_in_a_round_says_so_once),
        cmocka_unit_test(who_waits_for_others_to_join_says_so),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
