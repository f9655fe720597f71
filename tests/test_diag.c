/* Whose sentence a failure carries: that of the thread that met it, whatever other threads of the
 * same context meet meanwhile. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/diag.h"

static void *fail_elsewhere(void *data)
{
    zc_fail(data, ZCTA_ERR_SYSTEM, "elsewhere", 5, "another thread's error");
    return NULL;
}

static void run_elsewhere(struct zc_diag *diag)
{
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, fail_elsewhere, diag), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

static void a_thread_finds_its_own_error(void **state)
{
    struct zc_diag diag;
    zcta_error error;

    (void)state;
    zc_diag_init(&diag);
    diag.level = ZC_LOG_OFF;
    zc_fail(&diag, ZCTA_ERR_INVALID, "here", 0, "this thread's error");
    run_elsewhere(&diag);
    zc_diag_last(&diag, &error);
    assert_int_equal(error.status, ZCTA_ERR_INVALID);
    assert_string_equal(error.message, "this thread's error");
    zc_diag_destroy(&diag);
}

static void a_thread_without_one_finds_the_contexts(void **state)
{
    struct zc_diag first, second;
    zcta_error error;

    (void)state;
    zc_diag_init(&first);
    zc_diag_init(&second);
    first.level = second.level = ZC_LOG_OFF;
    zc_fail(&first, ZCTA_ERR_INVALID, "here", 0, "of the first context");
    run_elsewhere(&second);
    zc_diag_last(&second, &error);
    assert_string_equal(error.message, "another thread's error");
    zc_diag_last(&first, &error);
    assert_string_equal(error.message, "of the first context");
    zc_diag_destroy(&first);
    zc_diag_destroy(&second);
}

/* One context ends, the next lies at the same address. */
static void an_error_does_not_outlive_its_context(void **state)
{
    struct zc_diag diag;
    zcta_error error;

    (void)state;
    zc_diag_init(&diag);
    diag.level = ZC_LOG_OFF;
    zc_fail(&diag, ZCTA_ERR_INVALID, "here", 0, "of the first context");
    zc_diag_destroy(&diag);
    zc_diag_init(&diag);
    zc_diag_last(&diag, &error);
    assert_int_equal(error.status, ZCTA_OK);
    zc_diag_destroy(&diag);
}

/* A NULL handle names no context. */
static void an_error_without_a_context_is_the_threads(void **state)
{
    struct zc_diag diag;
    zcta_error error;

    (void)state;
    zc_diag_init(&diag);
    diag.level = ZC_LOG_OFF;
    zc_fail(&diag, ZCTA_ERR_SYSTEM, "before", 0, "an older error");
    assert_int_equal(zc_fail(NULL, ZCTA_ERR_INVALID, "now", 0, "team is NULL"), ZCTA_ERR_INVALID);
    zc_diag_last(&diag, &error);
    assert_string_equal(error.message, "team is NULL");
    zc_diag_last(NULL, &error);
    assert_string_equal(error.message, "team is NULL");
    zc_diag_destroy(&diag);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thread_finds_its_own_error),
        cmocka_unit_test(a_thread_without_one_finds_the_contexts),
        cmocka_unit_test(an_error_does_not_outlive_its_context),
        cmocka_unit_test(an_error_without_a_context_is_the_threads),
    };

    return cmocka_run_group_tests_name("diag", tests, NULL, NULL);
}
