/* The library's threads: the program's signals do not reach them, and neither its limit of stacks
 * nor its thread-local variables keep them from running. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>

#include "base/thread.h"
#include "support_ranks.h"

static void *read_mask(void *data)
{
    pthread_sigmask(SIG_SETMASK, NULL, data);
    return NULL;
}

static void signals_are_for_the_program_s_threads(void **state)
{
    sigset_t before, after, thread_s;
    pthread_t thread;

    (void)state;
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    assert_int_equal(zc_thread_start(&thread, read_mask, &thread_s), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    for (int number = 1; number < SIGRTMIN; number++)
        assert_int_equal(sigismember(&before, number), sigismember(&after, number));
    assert_true(sigismember(&thread_s, SIGINT) && sigismember(&thread_s, SIGPROF) &&
                sigismember(&thread_s, SIGTERM) && sigismember(&thread_s, SIGUSR1));
    /* Where these are blocked, a program that handles them is ended instead. */
    assert_false(sigismember(&thread_s, SIGSEGV) || sigismember(&thread_s, SIGBUS) ||
                 sigismember(&thread_s, SIGSYS) || sigismember(&thread_s, SIGFPE));
}

/* As much as a callback may take. */
static void *use_stack(void *data)
{
    char block[512 << 10];

    memset(block, (int)(size_t)data, sizeof block);
    return block[sizeof block - 1] == 0 ? data : NULL;
}

static void expect_thread_with_stack(size_t program_s)
{
    pthread_attr_t attributes;
    pthread_t thread;

    assert_int_equal(pthread_attr_init(&attributes), 0);
    assert_int_equal(pthread_attr_setstacksize(&attributes, program_s), 0);
    assert_int_equal(pthread_setattr_default_np(&attributes), 0);
    assert_int_equal(zc_thread_start(&thread, use_stack, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    pthread_attr_destroy(&attributes);
}

static void a_stack_is_neither_tiny_nor_huge(void **state)
{
    pthread_attr_t usual;
    size_t bytes;

    (void)state;
    assert_int_equal(pthread_getattr_default_np(&usual), 0);
    assert_int_equal(pthread_attr_getstacksize(&usual, &bytes), 0);
    expect_thread_with_stack(64 << 10);
    expect_thread_with_stack((size_t)1 << 46); /* more than there are addresses */
    assert_int_equal(pthread_setattr_default_np(&usual), 0);
    pthread_attr_destroy(&usual);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(signals_are_for_the_program_s_threads),
        cmocka_unit_test(a_stack_is_neither_tiny_nor_huge),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
