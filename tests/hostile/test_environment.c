/* The environment and the locale of the program: every variable of ours has values that are known,
 * and numbers are the same in every language. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <string.h>

#include "base/environment.h"
#include "base/number.h"
#include "support_locale.h"
#include "support_ranks.h"

/* What zcta_init() says with `name` set to `value`; the environment is as before afterwards. */
static zcta_status init_with(const char *name, const char *value, zcta_error *error)
{
    const zcta_init_params params = {
        .size = sizeof params, .rank_count = 1, .device = ZCTA_DEVICE_HOST, .error = error};
    zcta_context *context = NULL;
    zcta_status status;

    assert_int_equal(setenv(name, value, 1), 0);
    status = zcta_init(&params, &context);
    if (status == ZCTA_OK)
        zcta_finalize(&context);
    assert_int_equal(unsetenv(name), 0);
    return status;
}

static void a_value_that_nobody_knows_is_an_error_with_those_that_are_known(void **state)
{
    static const struct {
        const char *name, *value, *known;
    } rows[] = {{"ZEROCTA_CHECK", "true", "0 or 1"},
                {"ZEROCTA_REMOTE", "yes", "0 or 1"},
                {"ZEROCTA_SIGNALS", "smoke", "copy or write"},
                {"ZEROCTA_LOG", "verbose", "off, error, warn, info or debug"},
                {"ZEROCTA_TIMEOUT", "soon", "seconds"},
                {"ZEROCTA_TIMEOUT", "0,5", "seconds"},
                {"ZEROCTA_NODE", "first", "number"}};

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        zcta_error error = {0};

        assert_int_equal(init_with(rows[i].name, rows[i].value, &error), ZCTA_ERR_ENVIRONMENT);
        assert_non_null(strstr(error.message, rows[i].name));
        assert_non_null(strstr(error.message, rows[i].value));
        assert_non_null(strstr(error.message, rows[i].known));
    }
}

static void known_values_and_empty_ones_pass(void **state)
{
    static const struct {
        const char *name, *value;
    } rows[] = {{"ZEROCTA_CHECK", "0"},      {"ZEROCTA_CHECK", "1"},    {"ZEROCTA_CHECK", ""},
                {"ZEROCTA_REMOTE", "0"},     {"ZEROCTA_LOG", "error"},  {"ZEROCTA_LOG", ""},
                {"ZEROCTA_SIGNALS", "copy"}, {"ZEROCTA_TIMEOUT", "0.5"}};

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        zcta_error error = {0};

        assert_int_equal(init_with(rows[i].name, rows[i].value, &error), ZCTA_OK);
    }
}

/* ---- Names ---- */

static void do_nothing(zcta_context *context, void *data)
{
    (void)context, (void)data;
}

/* How often `text` occurs in what three ranks log. */
static uint32_t count_in_log(const char *text)
{
    char path[] = "/tmp/zerocta-log-XXXXXX", line[1024];
    const int log = mkostemp(path, O_CLOEXEC);
    const int kept = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    uint32_t count = 0;
    FILE *file;

    assert_true(log >= 0 && kept >= 0);
    fflush(NULL);
    assert_int_equal(dup2(log, STDERR_FILENO), STDERR_FILENO);
    run_as_processes(3, do_nothing, NULL);
    assert_int_equal(dup2(kept, STDERR_FILENO), STDERR_FILENO);
    close(kept);
    assert_int_equal(lseek(log, 0, SEEK_SET), 0);
    file = fdopen(log, "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file) != NULL)
        count += strstr(line, text) != NULL;
    fclose(file);
    unlink(path);
    return count;
}

static void a_name_that_nobody_knows_is_told_once(void **state)
{
    (void)state;
    assert_int_equal(setenv("ZEROCTA_CHEK", "1", 1), 0);
    assert_int_equal(count_in_log("ZEROCTA_CHEK is set, but there is no such variable"), 1);
    assert_int_equal(unsetenv("ZEROCTA_CHEK"), 0);
    assert_int_equal(count_in_log("no such variable"), 0);
}

/* ---- Locale ---- */

static void numbers_are_the_same_in_every_language(void **state)
{
    zcta_error error = {0};
    char text[32], *end;

    (void)state;
    if (!become_german()) {
        print_message("no German locale can be made here: not tested\n");
        skip();
    }
    snprintf(text, sizeof text, "%.1f", 0.5);
    assert_string_equal(text, "0,5"); /* the program's own is untouched */
    zc_format(text, sizeof text, "%.1f", 0.5);
    assert_string_equal(text, "0.5");
    assert_true(zc_number_read("0.5", &end) == 0.5 && *end == '\0');
    snprintf(text, sizeof text, "%.1f", 0.5);
    assert_string_equal(text, "0,5");
    assert_int_equal(init_with("ZEROCTA_TIMEOUT", "0.5", &error), ZCTA_OK);
    assert_int_equal(init_with("ZEROCTA_TIMEOUT", "0,5", &error), ZCTA_ERR_ENVIRONMENT);
    setlocale(LC_ALL, "C");
}

/* ---- Variables for others ---- */

static void what_is_set_stays_and_what_was_added_goes(void **state)
{
    static const char *const entries[] = {"ADDED_A=1", "ADDED_B=2"};

    (void)state;
    assert_int_equal(setenv("ADDED_B", "mine", 1), 0);
    zc_environment_add(entries, 2);
    assert_string_equal(getenv("ADDED_A"), "1");
    assert_string_equal(getenv("ADDED_B"), "mine");
    assert_int_equal(setenv("ADDED_C", "3", 1), 0);
    zc_environment_remove(entries, 2);
    assert_null(getenv("ADDED_A"));
    assert_string_equal(getenv("ADDED_B"), "mine");
    assert_string_equal(getenv("ADDED_C"), "3");
    unsetenv("ADDED_B");
    unsetenv("ADDED_C");
}

/* Whoever is in getenv() walks the list that he found, so nothing in it changes. */
static void a_list_that_is_walked_stays_as_it_is(void **state)
{
    static const char *const entries[] = {"ADDED_A=1", "ADDED_B=2"};
    char **before = environ, *copy[4096];
    size_t count = 0;

    (void)state;
    for (; before[count] != NULL; count++)
        copy[count] = before[count];
    zc_environment_add(entries, 2);
    zc_environment_remove(entries, 2);
    for (size_t i = 0; i < count; i++)
        assert_ptr_equal(before[i], copy[i]);
    assert_null(before[count]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_value_that_nobody_knows_is_an_error_with_those_that_are_known),
        cmocka_unit_test(known_values_and_empty_ones_pass),
        cmocka_unit_test(a_name_that_nobody_knows_is_told_once),
        cmocka_unit_test(numbers_are_the_same_in_every_language),
        cmocka_unit_test(what_is_set_stays_and_what_was_added_goes),
        cmocka_unit_test(a_list_that_is_walked_stays_as_it_is),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
