/* A large job of an ordinary user, with the limits that a shell gives: 1024 open files, no rights
 * of root's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <grp.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "support_ranks.h"

enum {
    NOBODY = 65534,
    RANKS = UNDER_THREAD_SANITIZER ? 8
            : SLOWNESS > 1         ? 16
                                   : 64,
    PART = 8, /* ranks of a smaller team */
    FILES = 1024,
    BYTES = 1000,
    SKIPPED = 77,
};

/* Root becomes somebody else, whose processes are his own as if he had started them by exec().
 * False: here it cannot, as in a container that has no other user. */
static bool become_ordinary(void)
{
    struct rlimit files;

    EXPECT(getrlimit(RLIMIT_NOFILE, &files) == 0);
    files.rlim_cur = files.rlim_max < FILES ? files.rlim_max : FILES;
    EXPECT(setrlimit(RLIMIT_NOFILE, &files) == 0);
    if (geteuid() != 0)
        return true;
    return setgroups(0, NULL) == 0 && setgid(NOBODY) == 0 && setuid(NOBODY) == 0 &&
           prctl(PR_SET_DUMPABLE, 1) == 0;
}

static void gather_on(zcta_context *context, zcta_team *team)
{
    const size_t bytes = (size_t)BYTES * zcta_team_rank_count(team);
    zcta_window *window = NULL;

    EXPECT_OK(context, zcta_window_alloc(team, bytes, &window));
    for (uint32_t call = 0; call < 3; call++) {
        gather_checked(context, team, zcta_window_base(window), BYTES, call);
        EXPECT_OK(context, zcta_barrier(team, NULL));
    }
    EXPECT_OK(context, zcta_window_free(&window));
}

/* The world, neighbours, those that are as far in other neighbourhoods, and all in another order.
 */
static void use_everything(zcta_context *context, void *data)
{
    zcta_team *world = zcta_world(context), *near = NULL, *far = NULL, *turned = NULL;
    const uint32_t rank = zcta_team_rank(world);

    (void)data;
    EXPECT(geteuid() != 0 && zcta_team_rank_count(world) == RANKS);
    EXPECT_OK(context, zcta_team_split(world, (int32_t)(rank / PART), 0, NULL, &near));
    EXPECT_OK(context, zcta_team_split(world, (int32_t)(rank % PART), 0, NULL, &far));
    EXPECT_OK(context, zcta_team_split(world, 0, -(int32_t)rank, NULL, &turned));
    EXPECT(zcta_team_rank_count(near) == PART && zcta_team_rank_count(far) == RANKS / PART);
    EXPECT(zcta_team_rank(turned) == RANKS - 1 - rank);
    gather_on(context, world);
    gather_on(context, near);
    gather_on(context, far);
    gather_on(context, turned);
    EXPECT_OK(context, zcta_team_destroy(&far));
    gather_on(context, world);
}

static void a_large_job_runs_as_it_does_for_root(void **state)
{
    const struct ranks_options options = {.timeout_ns = UINT64_C(120000000000)};
    const pid_t user = fork();
    int status;

    (void)state;
    if (user == 0) {
        if (!become_ordinary())
            _exit(SKIPPED);
        run_as_processes_with(RANKS, &options, use_everything, NULL);
        fflush(NULL);
        _exit(0);
    }
    status = wait_process(user, 200);
    if (status == SKIPPED) {
        print_message("no other user can be taken here: not tested\n");
        skip();
    }
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_large_job_runs_as_it_does_for_root),
    };

    return cmocka_run_group_tests_name("ordinary user", tests, NULL, NULL);
}
