/* Who a rank is and where the job meets: from parameters and from the environment, and what is
 * refused. What each launcher sets is in test_launchers.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rendezvous/rendezvous.h"

#define RUN                                                                                        \
    "ZEROCTA_RANK=1 ZEROCTA_RANK_COUNT=4 ZEROCTA_LOCAL_RANK=1 ZEROCTA_LOCAL_RANK_COUNT=4 "         \
    "ZEROCTA_ROOT=127.0.0.1:40000 ZEROCTA_TOKEN=abcd "
#define TORCH "RANK=2 WORLD_SIZE=4 LOCAL_RANK=0 MASTER_ADDR=127.0.0.1 MASTER_PORT=29500 "
#define OMPI                                                                                       \
    "OMPI_COMM_WORLD_RANK=3 OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_LOCAL_RANK=3 "                  \
    "OMPI_COMM_WORLD_LOCAL_SIZE=4 "

/* The environment of each test is exactly this list of NAME=value, separated by blanks. */
static void set_environment(const char *list)
{
    char *copy = strdup(list), *save = NULL;

    clearenv();
    for (char *word = strtok_r(copy, " ", &save); word != NULL; word = strtok_r(NULL, " ", &save)) {
        char *equals = strchr(word, '=');

        *equals = '\0';
        setenv(word, equals + 1, 1);
    }
    free(copy);
}

static zcta_status resolve(const char *environment, const zcta_init_params *params,
                           struct zc_job *job, zcta_error *error)
{
    const zcta_init_params none = {.size = sizeof none};
    struct zc_diag diag;
    zcta_status status;

    set_environment(environment);
    zc_diag_init(&diag);
    status = zc_job_resolve(params != NULL ? params : &none, &diag, job);
    zc_diag_last(&diag, error);
    if (status == ZCTA_OK)
        assert_int_equal(diag.rank, job->rank);
    else
        assert_int_equal(error->status, status);
    zc_diag_destroy(&diag);
    return status;
}

static struct zc_job resolve_ok(const char *environment)
{
    struct zc_job job;
    zcta_error error;

    if (resolve(environment, NULL, &job, &error) != ZCTA_OK)
        print_error("%s\n-> %s\n", environment, error.message);
    assert_int_equal(error.status, ZCTA_OK);
    return job;
}

static void the_environment_says_who_a_rank_is(void **state)
{
    static const struct {
        const char *environment, *source;
        uint32_t rank, rank_count, local_rank, local_rank_count;
        const char *root;
    } cases[] = {
        {"", "alone", 0, 1, 0, 1, ""},
        {"PATH=/bin", "alone", 0, 1, 0, 1, ""},
        {RUN, "zerocta run", 1, 4, 1, 4, "127.0.0.1:40000"},
        {RUN "RANK=1 WORLD_SIZE=4 LOCAL_RANK=1", "zerocta run", 1, 4, 1, 4, "127.0.0.1:40000"},
        {RUN "ZEROCTA_PORT=41000", "zerocta run", 1, 4, 1, 4, "127.0.0.1:41000"},
        {TORCH, "torchrun", 2, 4, 0, 4, "127.0.0.1:29500"},
        {TORCH "LOCAL_WORLD_SIZE=2", "torchrun", 2, 4, 0, 2, "127.0.0.1:29500"},
        {TORCH "TORCHELASTIC_USE_AGENT_STORE=True", "torchrun", 2, 4, 0, 4, "127.0.0.1:29501"},
        {TORCH "TORCHELASTIC_USE_AGENT_STORE=False", "torchrun", 2, 4, 0, 4, "127.0.0.1:29500"},
        {TORCH "TORCHELASTIC_USE_AGENT_STORE=True ZEROCTA_PORT=3", "torchrun", 2, 4, 0, 4,
         "127.0.0.1:3"},
        {TORCH "MASTER_ADDR=localhost", "torchrun", 2, 4, 0, 4, "127.0.0.1:29500"},
        {TORCH "MASTER_ADDR=::1", "torchrun", 2, 4, 0, 4, "[::1]:29500"},
        {TORCH "MASTER_ADDR=10.1.2.3 ZEROCTA_REMOTE=1 ZEROCTA_TOKEN=x", "torchrun", 2, 4, 0, 4,
         "10.1.2.3:29500"},
        {"RANK=0 WORLD_SIZE=1 LOCAL_RANK=0", "torchrun", 0, 1, 0, 1, ""},
        {OMPI "MASTER_ADDR=127.0.0.1 MASTER_PORT=5", "Open MPI", 3, 4, 3, 4, "127.0.0.1:5"},
        {OMPI "ZEROCTA_PORT=5", "Open MPI", 3, 4, 3, 4, "127.0.0.1:5"},
        {TORCH "MASTER_ADDR=node7.invalid ZEROCTA_REMOTE=1 ZEROCTA_TOKEN=x", "torchrun", 2, 4, 0, 4,
         "node7.invalid:29500"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct zc_job job = resolve_ok(cases[i].environment);

        assert_string_equal(job.source, cases[i].source);
        assert_int_equal(job.rank, cases[i].rank);
        assert_int_equal(job.rank_count, cases[i].rank_count);
        assert_int_equal(job.local_rank, cases[i].local_rank);
        assert_int_equal(job.local_rank_count, cases[i].local_rank_count);
        assert_string_equal(job.root, cases[i].root);
        assert_int_equal(job.listen_fd, -1);
    }
}

static void what_is_missing_or_wrong_in_the_environment_is_named(void **state)
{
    static const struct {
        const char *environment, *says;
    } cases[] = {
        {"RANK=0", "WORLD_SIZE is not set"},
        {"WORLD_SIZE=2", "RANK is not set"},
        {"RANK=0 WORLD_SIZE=2", "LOCAL_RANK is not set"},
        {"RANK=0 WORLD_SIZE=2 LOCAL_RANK=0", "MASTER_ADDR is not set"},
        {"RANK=0 WORLD_SIZE=2 LOCAL_RANK=0 MASTER_ADDR=127.0.0.1", "MASTER_PORT is not set"},
        {"RANK=0 WORLD_SIZE=2 LOCAL_RANK=0 MASTER_PORT=1", "MASTER_ADDR is not set"},
        {"RANK=x WORLD_SIZE=2 LOCAL_RANK=0", "RANK=x is not a number"},
        {"RANK=-1 WORLD_SIZE=2 LOCAL_RANK=0", "RANK=-1 is not a number"},
        {"RANK= WORLD_SIZE=2 LOCAL_RANK=0", "RANK= is not a number"},
        {"RANK=0 WORLD_SIZE=2x LOCAL_RANK=0", "WORLD_SIZE=2x is not a number from 1 to 4096"},
        {"RANK=0 WORLD_SIZE=0 LOCAL_RANK=0", "WORLD_SIZE=0 is not a number from 1 to 4096"},
        {"RANK=0 WORLD_SIZE=4097 LOCAL_RANK=0", "WORLD_SIZE=4097 is not"},
        {"RANK=0 WORLD_SIZE=18446744073709551617 LOCAL_RANK=0", "WORLD_SIZE=18446744073709551617"},
        {"RANK=2 WORLD_SIZE=2 LOCAL_RANK=0", "RANK=2 but WORLD_SIZE=2"},
        {TORCH "LOCAL_RANK=4", "LOCAL_RANK=4 is not a number from 0 to 3"},
        {TORCH "LOCAL_RANK=2 LOCAL_WORLD_SIZE=2", "LOCAL_RANK=2 but LOCAL_WORLD_SIZE=2"},
        {TORCH "LOCAL_WORLD_SIZE=8", "LOCAL_WORLD_SIZE=8 but torchrun says 4 ranks"},
        {TORCH "MASTER_PORT=0", "MASTER_PORT=0 is not a number from 1 to 65535"},
        {TORCH "MASTER_PORT=65536", "MASTER_PORT=65536 is not"},
        {TORCH "MASTER_PORT=65535 TORCHELASTIC_USE_AGENT_STORE=True", "ZEROCTA_PORT"},
        {TORCH "ZEROCTA_PORT=none", "ZEROCTA_PORT=none is not a number"},
        {TORCH "MASTER_ADDR=10.1.2.3", "10.1.2.3, which is not a loopback address"},
        {TORCH "MASTER_ADDR=10.1.2.3", "ZEROCTA_REMOTE=1"},
        {TORCH "MASTER_ADDR=node7.invalid", "node7.invalid, which is not a numeric address"},
        {TORCH "MASTER_ADDR=10.1.2.3 ZEROCTA_REMOTE=1", "set ZEROCTA_TOKEN"},
        {TORCH "MASTER_ADDR=node7.invalid ZEROCTA_REMOTE=1", "set ZEROCTA_TOKEN"},
        {TORCH "ZEROCTA_JOB=", "ZEROCTA_JOB has 0 bytes"},
        {TORCH "ZEROCTA_TOKEN=", "ZEROCTA_TOKEN is empty"},
        {"OMPI_COMM_WORLD_RANK=0", "OMPI_COMM_WORLD_SIZE is not set"},
        {"OMPI_COMM_WORLD_SIZE=2", "OMPI_COMM_WORLD_RANK is not set"},
        {OMPI, "set ZEROCTA_PORT"},
        {OMPI "MASTER_ADDR=127.0.0.1", "MASTER_PORT is not set"},
        {OMPI "MASTER_PORT=5", "MASTER_ADDR is not set"},
        {"ZEROCTA_RANK=0", "ZEROCTA_RANK_COUNT is not set"},
        {"ZEROCTA_RANK_COUNT=2", "ZEROCTA_RANK is not set"},
        {"ZEROCTA_RANK=0 ZEROCTA_RANK_COUNT=2", "ZEROCTA_LOCAL_RANK_COUNT is not set"},
        {"ZEROCTA_RANK=0 ZEROCTA_RANK_COUNT=2 ZEROCTA_LOCAL_RANK_COUNT=2",
         "ZEROCTA_LOCAL_RANK is not set"},
        {"ZEROCTA_RANK=0 ZEROCTA_RANK_COUNT=2 ZEROCTA_LOCAL_RANK_COUNT=2 ZEROCTA_LOCAL_RANK=0",
         "ZEROCTA_ROOT is not set"},
        {"ZEROCTA_RANK=0 ZEROCTA_RANK_COUNT=2 ZEROCTA_LOCAL_RANK_COUNT=2 ZEROCTA_LOCAL_RANK=0 "
         "ZEROCTA_ROOT=127.0.0.1:1",
         "ZEROCTA_TOKEN is not set"},
        {RUN "ZEROCTA_NODE=one", "ZEROCTA_NODE is 'one'"},
        {RUN "ZEROCTA_NODE=-1", "ZEROCTA_NODE is '-1'"},
        {RUN "ZEROCTA_NODE=0", "give a number from 1 on"},
        {RUN "ZEROCTA_ADDRESS=eth0", "ZEROCTA_ADDRESS is 'eth0'"},
        {RUN "ZEROCTA_ADDRESS=0.0.0.0", "the numeric address of one of this machine's"},
        {RUN "ZEROCTA_ADDRESS=::", "the numeric address of one of this machine's"},
        {RUN "ZEROCTA_ADDRESS=10.1.2.3", "set ZEROCTA_REMOTE=1"},
        {TORCH "ZEROCTA_ADDRESS=10.1.2.3 ZEROCTA_REMOTE=1", "set ZEROCTA_TOKEN"},
        {RUN "ZEROCTA_ROOT=127.0.0.1", "127.0.0.1, which is not host:port"},
        {RUN "ZEROCTA_ROOT=127.0.0.1:0", "not host:port"},
        {RUN "ZEROCTA_ROOT=127.0.0.1:65536", "not host:port"},
        {RUN "ZEROCTA_ROOT=127.0.0.1:1x", "not host:port"},
        {RUN "ZEROCTA_ROOT=::1:1", "not host:port"},
        {RUN "ZEROCTA_ROOT=:1", "not host:port"},
        {RUN "ZEROCTA_RANK=0 ZEROCTA_LISTEN_FD=999", "ZEROCTA_LISTEN_FD=999 is not a listening"},
        {RUN "ZEROCTA_RANK=0 ZEROCTA_LISTEN_FD=0", "ZEROCTA_LISTEN_FD=0 is not a listening"},
        {RUN "ZEROCTA_RANK=0 ZEROCTA_LISTEN_FD=x", "ZEROCTA_LISTEN_FD=x is not a listening"},
    };
    struct zc_job job;
    zcta_error error;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        memset(&job, 0x5a, sizeof job);
        if (resolve(cases[i].environment, NULL, &job, &error) != ZCTA_ERR_ENVIRONMENT ||
            strstr(error.message, cases[i].says) == NULL)
            fail_msg("%s\n-> %s: %s", cases[i].environment, zcta_status_name(error.status),
                     error.message);
        assert_int_equal(job.rank, 0x5a5a5a5a);
    }
}

static int no_exchange(void *data, const void *mine, void *all, size_t bytes)
{
    (void)data, (void)mine, (void)all, (void)bytes;
    return 1;
}

static void parameters_come_before_the_environment(void **state)
{
    const zcta_init_params root = {
        .size = sizeof root, .rank = 1, .rank_count = 3, .root = "localhost:77", .token = "t"};
    const zcta_init_params exchange = {.size = sizeof exchange,
                                       .rank = 2,
                                       .rank_count = 3,
                                       .root = "nonsense",
                                       .exchange = no_exchange,
                                       .exchange_data = environ};
    const zcta_init_params alone = {.size = sizeof alone, .rank_count = 1};
    struct zc_job job;
    zcta_error error;

    (void)state;
    assert_int_equal(resolve(RUN TORCH, &root, &job, &error), ZCTA_OK);
    assert_int_equal(job.rank, 1);
    assert_int_equal(job.rank_count, 3);
    assert_string_equal(job.root, "127.0.0.1:77");
    assert_true(job.has_token);
    assert_null(job.exchange);
    assert_int_equal(resolve(RUN, &exchange, &job, &error), ZCTA_OK);
    assert_int_equal(job.rank, 2);
    assert_ptr_equal(job.exchange, no_exchange);
    assert_ptr_equal(job.exchange_data, exchange.exchange_data);
    assert_string_equal(job.root, "");
    assert_int_equal(resolve(RUN, &alone, &job, &error), ZCTA_OK);
    assert_int_equal(job.rank_count, 1);
    assert_string_equal(job.root, "");
}

static void wrong_parameters_are_refused(void **state)
{
    static const struct {
        zcta_init_params params;
        const char *says;
    } cases[] = {
        {{.rank = 3, .rank_count = 3, .root = "127.0.0.1:1"}, "rank is 3 but rank_count is 3"},
        {{.rank_count = 4097, .root = "127.0.0.1:1"}, "more than the 4096 ranks"},
        {{.rank_count = 2}, "neither root nor exchange"},
        {{.rank_count = 2, .root = "127.0.0.1"}, "not host:port"},
        {{.rank_count = 2, .root = "10.0.0.1:5"}, "not a loopback address"},
        {{.rank_count = 2, .root = "127.0.0.1:1", .token = ""}, "is empty"},
        {{.root = "127.0.0.1:1"}, "rank_count is 0"},
        {{.rank = 1}, "rank_count is 0"},
        {{.exchange = no_exchange}, "rank_count is 0"},
    };
    struct zc_job job;
    zcta_error error;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (resolve("", &cases[i].params, &job, &error) != ZCTA_ERR_INVALID ||
            strstr(error.message, cases[i].says) == NULL)
            fail_msg("case %zu: %s: %s", i, zcta_status_name(error.status), error.message);
}

static bool same_key(const char *first, const char *second)
{
    const struct zc_job a = resolve_ok(first), b = resolve_ok(second);

    return memcmp(a.key, b.key, sizeof a.key) == 0;
}

static void the_key_is_the_token_or_the_identity_of_the_job(void **state)
{
    (void)state;
    assert_true(same_key(TORCH, TORCH "RANK=3"));
    assert_true(same_key(TORCH, TORCH "MASTER_ADDR=localhost"));
    assert_false(same_key(TORCH, TORCH "TORCHELASTIC_RUN_ID=7"));
    assert_false(same_key(TORCH, TORCH "MASTER_PORT=29501"));
    assert_false(same_key(TORCH, TORCH "WORLD_SIZE=5"));
    assert_false(same_key(TORCH, TORCH "ZEROCTA_TOKEN=a"));
    assert_false(same_key(TORCH "ZEROCTA_TOKEN=b", TORCH "ZEROCTA_TOKEN=a"));
    assert_false(same_key(TORCH "ZEROCTA_JOB=a", TORCH));
    assert_false(same_key(TORCH "ZEROCTA_JOB=a", TORCH "ZEROCTA_JOB=b"));
    assert_false(
        same_key(TORCH "ZEROCTA_TOKEN=a ZEROCTA_JOB=a", TORCH "ZEROCTA_TOKEN=a ZEROCTA_JOB=b"));
    assert_true(same_key(TORCH "ZEROCTA_TOKEN=a", OMPI "ZEROCTA_PORT=1 ZEROCTA_TOKEN=a"));
    assert_true(resolve_ok(TORCH "ZEROCTA_TOKEN=a").has_token);
    assert_false(resolve_ok(TORCH).has_token);
}

static unsigned long derived_port(const char *environment)
{
    const struct zc_job job = resolve_ok(environment);
    const unsigned long port = strtoul(strrchr(job.root, ':') + 1, NULL, 10);

    assert_memory_equal(job.root, "127.0.0.1:", 10);
    assert_in_range(port, 20000, 32000);
    return port;
}

static void jobs_without_a_port_derive_one_of_their_own(void **state)
{
    (void)state;
    assert_int_equal(derived_port(OMPI "PMIX_NAMESPACE=41"),
                     derived_port(OMPI "OMPI_COMM_WORLD_RANK=0 PMIX_NAMESPACE=41"));
    assert_int_not_equal(derived_port(OMPI "PMIX_NAMESPACE=41"),
                         derived_port(OMPI "PMIX_NAMESPACE=42"));
    derived_port(OMPI "OMPI_MCA_ess_base_jobid=41");
    derived_port(OMPI "OMPI_MCA_orte_hnp_uri=41.0;tcp://1.2.3.4:5");
}

static void an_inherited_listening_socket_is_taken_over(void **state)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    char environment[512];
    struct zc_job job;
    zcta_error error;

    (void)state;
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    snprintf(environment, sizeof environment,
             RUN "ZEROCTA_RANK=0 ZEROCTA_LISTEN_FD=%d ZEROCTA_ROOT=127.0.0.1:%u", fd,
             ntohs(address.sin_port));
    assert_int_equal(resolve(environment, NULL, &job, &error), ZCTA_ERR_ENVIRONMENT);
    assert_non_null(strstr(error.message, "not a listening TCP socket"));

    assert_int_equal(listen(fd, 5), 0);
    assert_int_equal(resolve(environment, NULL, &job, &error), ZCTA_OK);
    assert_true(job.listen_fd >= 0);
    assert_int_equal(fcntl(job.listen_fd, F_GETFD), FD_CLOEXEC);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    close(job.listen_fd);

    /* A later context of the same process finds it again. */
    assert_int_equal(resolve(environment, NULL, &job, &error), ZCTA_OK);
    close(job.listen_fd);

    strncat(environment, " ZEROCTA_PORT=1", sizeof environment - strlen(environment) - 1);
    assert_int_equal(resolve(environment, NULL, &job, &error), ZCTA_ERR_ENVIRONMENT);
    assert_non_null(strstr(error.message, "contradicts"));

    strncat(environment, " ZEROCTA_RANK=1", sizeof environment - strlen(environment) - 1);
    assert_int_equal(resolve(environment, NULL, &job, &error), ZCTA_OK);
    assert_int_equal(job.listen_fd, -1);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_environment_says_who_a_rank_is),
        cmocka_unit_test(what_is_missing_or_wrong_in_the_environment_is_named),
        cmocka_unit_test(parameters_come_before_the_environment),
        cmocka_unit_test(wrong_parameters_are_refused),
        cmocka_unit_test(the_key_is_the_token_or_the_identity_of_the_job),
        cmocka_unit_test(jobs_without_a_port_derive_one_of_their_own),
        cmocka_unit_test(an_inherited_listening_socket_is_taken_over),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
