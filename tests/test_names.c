/* Names of hosts are resolved with a deadline, whatever the system's resolver does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dlfcn.h>
#include <netdb.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "rendezvous/names.h"
#include "support_mesh.h"

static sem_t release, released;

/* Stands before the system's: one name hangs until the test lets it go, one there is not, one is
 * the loopback. Who allows numbers only is answered at once. */
/* NOLINTNEXTLINE(readability-inconsistent-declaration-parameter-name): the system's are reserved */
int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                struct addrinfo **found)
{
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    void *symbol = dlsym(RTLD_NEXT, "getaddrinfo");
    int result;

    memcpy(&real, &symbol, sizeof real);
    if ((hints->ai_flags & AI_NUMERICHOST) != 0)
        return real(host, service, hints, found);
    if (strcmp(host, "none.test") == 0)
        return EAI_NONAME;
    if (strcmp(host, "hangs.test") != 0 && strcmp(host, "here.test") != 0)
        return real(host, service, hints, found);
    if (strcmp(host, "hangs.test") == 0)
        sem_wait(&release);
    result = real("127.0.0.1", service, hints, found);
    if (strcmp(host, "hangs.test") == 0)
        sem_post(&released);
    return result;
}

static zcta_status resolve(const char *host, uint64_t within, struct zc_endpoint *endpoint,
                           zcta_error *error)
{
    struct zc_diag diag;
    zcta_status status;

    zc_diag_init(&diag);
    status = zc_names_resolve(host, 77, zc_deadline_in(within), &diag, endpoint);
    zc_diag_last(&diag, error);
    zc_diag_destroy(&diag);
    return status;
}

static void names_and_numbers_are_resolved(void **state)
{
    static const char *const hosts[] = {"127.0.0.1", "here.test"};
    struct zc_endpoint endpoint;
    zcta_error error;
    char text[64];

    (void)state;
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        assert_int_equal(resolve(hosts[i], 20 * S, &endpoint, &error), ZCTA_OK);
        zc_net_text(&endpoint, text);
        assert_string_equal(text, "127.0.0.1:77");
    }
    assert_int_equal(resolve("none.test", 20 * S, &endpoint, &error), ZCTA_ERR_RENDEZVOUS);
    assert_non_null(strstr(error.message, "none.test cannot be resolved"));
}

static void a_resolver_that_hangs_costs_no_more_than_the_deadline(void **state)
{
    const uint64_t begin = zc_now_ns();
    struct zc_endpoint endpoint;
    zcta_error error;

    (void)state;
    assert_int_equal(resolve("hangs.test", 200 * MS, &endpoint, &error), ZCTA_ERR_TIMEOUT);
    assert_in_range(zc_now_ns() - begin, 200 * MS, 20 * S);
    assert_non_null(strstr(error.message, "hangs.test was not resolved within "));
    /* Its answer comes later and finds nobody. */
    sem_post(&release);
    sem_wait(&released);
}

/* All of zcta_init(), with the name where a rank looks for its root. */
static void a_rank_whose_root_is_not_resolved_says_so(void **state)
{
    struct mesh_rank rank;

    (void)state;
    setenv("ZEROCTA_REMOTE", "1", 1);
    mesh_ranks(&rank, 1, "hangs.test:4000", "secret");
    rank.rank = 1;
    rank.count = 2;
    rank.timeout_ns = 300 * MS;
    assert_false(mesh_rank_open(&rank));
    assert_int_equal(rank.status, ZCTA_ERR_TIMEOUT);
    assert_non_null(strstr(rank.error.message, "hangs.test was not resolved within "));
    assert_true(rank.open_ns < 20 * S);
    mesh_ranks_destroy(&rank, 1);
    unsetenv("ZEROCTA_REMOTE");
    sem_post(&release);
    sem_wait(&released);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_numbers_are_resolved),
        cmocka_unit_test(a_resolver_that_hangs_costs_no_more_than_the_deadline),
        cmocka_unit_test(a_rank_whose_root_is_not_resolved_says_so),
    };

    sem_init(&release, 0, 0);
    sem_init(&released, 0, 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
