/* Without the check, on the host: ranks that do not make the same call never get ZCTA_OK and wrong
 * bytes. All of them are told, at once, what differs and between whom; and ranks that agree are not
 * disturbed, however far one of them runs ahead. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "support_ranks.h"

enum { RANKS = 3, SMALL = 1024, LARGE = 40000, WINDOW = 1 << 18 };

/* A call of the rank that is odd, or of one that is not. */
struct way {
    const char *name, *text; /* what the sentence says */
    zcta_status (*call)(zcta_team *team, char *recv, char *other, bool odd);
};

static zcta_status gather(zcta_team *team, char *recv, size_t bytes)
{
    return zcta_all_gather(team, recv + zcta_team_rank(team) * bytes, recv, bytes, NULL, NULL);
}

/* All of one type.
 * NOLINTBEGIN(readability-non-const-parameter) */
static zcta_status small_bytes(zcta_team *team, char *recv, char *other, bool odd)
{
    (void)other;
    return gather(team, recv, odd ? 2 * SMALL : SMALL);
}

static zcta_status large_bytes(zcta_team *team, char *recv, char *other, bool odd)
{
    (void)other;
    return gather(team, recv, odd ? LARGE + 8 : LARGE);
}

/* Paths that await other signals: only a look at the other ranks tells. */
static zcta_status bytes_of_two_paths(zcta_team *team, char *recv, char *other, bool odd)
{
    (void)other;
    return gather(team, recv, odd ? LARGE : SMALL);
}

static zcta_status place(zcta_team *team, char *recv, char *other, bool odd)
{
    return odd ? zcta_all_gather(team, other, recv, SMALL, NULL, NULL) : gather(team, recv, SMALL);
}

static zcta_status offset(zcta_team *team, char *recv, char *other, bool odd)
{
    (void)other;
    return gather(team, odd ? recv + 64 : recv, LARGE);
}

static zcta_status window(zcta_team *team, char *recv, char *other, bool odd)
{
    return gather(team, odd ? other : recv, SMALL);
}

static zcta_status collective(zcta_team *team, char *recv, char *other, bool odd)
{
    (void)other;
    return odd ? zcta_barrier(team, NULL) : gather(team, recv, LARGE);
}

static zcta_status nothing(zcta_team *team, char *recv, char *other, bool odd)
{
    (void)other;
    if (odd)
        EXPECT(gather(team, recv, 0) == ZCTA_OK);
    else
        (void)gather(team, recv, SMALL);
    return zcta_barrier(team, NULL);
}
/* NOLINTEND(readability-non-const-parameter) */

static const struct way ways[] = {
    {"small", "bytes of a share", small_bytes},
    {"large", "bytes of a share", large_bytes},
    {"paths", "bytes of a share", bytes_of_two_paths},
    {"place", "place of send", place},
    {"offset", "offset of recv", offset},
    {"window", "recv's window", window},
    {"collective", "collective", collective},
    {"nothing", "collective", nothing},
};

struct differing {
    const struct way *way;
    uint32_t odd;
};

static void differ(zcta_context *context, void *data)
{
    static const uint32_t ranks[RANKS] = {0, 1, 2};
    const zcta_team_params params = {.size = sizeof params, .name = "odd"};
    const struct differing *d = data;
    zcta_team *world = zcta_world(context), *team = NULL;
    const uint32_t rank = zcta_team_rank(world), count = zcta_team_rank_count(world);
    const uint64_t start = now_ns();
    zcta_window *first = NULL, *second = NULL;
    zcta_error error;
    char text[40];

    EXPECT_OK(context, zcta_team_get(context, ranks, count, &params, &team));
    EXPECT_OK(context, zcta_window_alloc(team, WINDOW, &first));
    EXPECT_OK(context, zcta_window_alloc(team, WINDOW, &second));
    for (uint32_t call = 0; call < 5; call++)
        gather_checked(context, team, zcta_window_base(first), call % 2 ? SMALL : LARGE, call);
    /* Nobody fails the team while another rank is still on its way out of the last call. */
    EXPECT_OK(context, zcta_barrier(world, NULL));
    snprintf(text, sizeof text, "rank %u says", d->odd);
    expect_error(
        context,
        d->way->call(team, zcta_window_base(first), zcta_window_base(second), rank == d->odd),
        ZCTA_ERR_MISMATCH, d->way->text);
    expect_error(context, zcta_team_status(team), ZCTA_ERR_MISMATCH, text);
    EXPECT_OK(context, zcta_team_failure(team, &error));
    EXPECT(error.status == ZCTA_ERR_MISMATCH && error.rank < count);
    EXPECT(count > 2 || error.rank == 1);
    /* Nobody waited for a deadline. */
    EXPECT(now_ns() - start < UINT64_C(15000000000));
    EXPECT_OK(context, zcta_barrier(world, NULL));
}

static void ranks_that_differ_are_told_so(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        for (uint32_t odd = 0; odd < RANKS; odd++)
            run_as_threads(RANKS, differ, &(struct differing){.way = &ways[i], .odd = odd});
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        run_as_processes(2, differ, &(struct differing){.way = &ways[i], .odd = 1});
}

static void differ_on_a_stream(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context);
    const size_t bytes = zcta_team_rank(world) == 0 ? SMALL : SMALL / 2;
    zcta_host_stream *stream = NULL;
    zcta_window *window = NULL;
    char *recv;

    (void)data;
    EXPECT_OK(context, zcta_window_alloc(world, WINDOW, &window));
    EXPECT_OK(context, zcta_host_stream_create(context, &stream));
    recv = zcta_window_base(window);
    EXPECT_OK(context, zcta_all_gather(world, recv + zcta_team_rank(world) * bytes, recv, bytes,
                                       stream, NULL));
    expect_error(context, zcta_host_stream_synchronize(stream), ZCTA_ERR_MISMATCH,
                 "bytes of a share");
    EXPECT_OK(context, zcta_host_stream_destroy(&stream));
}

static void ranks_that_differ_on_streams_are_told_so(void **state)
{
    (void)state;
    run_as_threads(2, differ_on_a_stream, NULL);
}

/* Each rank in turn is slow, so that the others are as far ahead as they can be. */
static void agree(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context);
    const uint32_t rank = zcta_team_rank(world), calls = UNDER_THREAD_SANITIZER ? 300 : 3000;
    zcta_window *window = NULL;
    uint32_t seed = 7;

    (void)data;
    EXPECT_OK(context, zcta_window_alloc(world, WINDOW, &window));
    for (uint32_t call = 0; call < calls; call++) {
        seed = seed * 1664525 + 1013904223;
        if (call % 64 == rank)
            sleep_ms(1);
        if ((seed >> 28) % 3 == 0)
            EXPECT_OK(context, zcta_barrier(world, NULL));
        else
            EXPECT_OK(context, gather(world, zcta_window_base(window),
                                      (seed >> 28) % 3 == 1 ? seed >> 22 & 255 : LARGE));
    }
}

static void ranks_that_agree_are_not_disturbed(void **state)
{
    (void)state;
    run_as_threads(RANKS, agree, NULL);
    run_as_processes(RANKS, agree, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_that_differ_are_told_so),
        cmocka_unit_test(ranks_that_differ_on_streams_are_told_so),
        cmocka_unit_test(ranks_that_agree_are_not_disturbed),
    };

    setenv("ZEROCTA_LOG", "error", 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
