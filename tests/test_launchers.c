/* What each launcher sets, who a rank then is, and which launchers may stand inside which. The
 * environments are those that the launchers made when they were asked for two or more ranks, with
 * what says nothing of the job left out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rendezvous/launchers.h"
#include "rendezvous/rendezvous.h"

/* Rank 1 of 2 on one machine. */
#define RUN                                                                                        \
    "ZEROCTA_RANK=1 ZEROCTA_RANK_COUNT=2 ZEROCTA_LOCAL_RANK=1 ZEROCTA_LOCAL_RANK_COUNT=2 "         \
    "ZEROCTA_ROOT=127.0.0.1:40000 ZEROCTA_TOKEN=5eed RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 "            \
    "LOCAL_WORLD_SIZE=2 GROUP_RANK=0 MASTER_ADDR=127.0.0.1 MASTER_PORT=40001 "
#define WORDS                                                                                      \
    "RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=29500 "
#define TORCHRUN                                                                                   \
    WORDS "GROUP_RANK=0 GROUP_WORLD_SIZE=1 ROLE_RANK=1 ROLE_NAME=default ROLE_WORLD_SIZE=2 "       \
          "TORCHELASTIC_RESTART_COUNT=0 TORCHELASTIC_MAX_RESTARTS=0 TORCHELASTIC_RUN_ID=none "     \
          "TORCHELASTIC_USE_AGENT_STORE=True OMP_NUM_THREADS=1 "
#define OPEN_MPI_4                                                                                 \
    "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=1 "                  \
    "OMPI_COMM_WORLD_LOCAL_SIZE=2 OMPI_COMM_WORLD_NODE_RANK=1 OMPI_MCA_ess_base_jobid=1841364993 " \
    "OMPI_MCA_orte_hnp_uri=1841364992.0;tcp://192.0.2.2:58273 PMIX_RANK=1 "                        \
    "PMIX_NAMESPACE=1841364993 PMIX_ID=1841364993.1 "
#define OPEN_MPI_5                                                                                 \
    "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=1 "                  \
    "OMPI_COMM_WORLD_LOCAL_SIZE=2 OMPI_COMM_WORLD_NODE_RANK=1 PMIX_RANK=1 "                        \
    "PMIX_NAMESPACE=prterun-vm-319@1 "
#define HYDRA "PMI_RANK=1 PMI_SIZE=2 PMI_FD=8 MPI_LOCALRANKID=1 MPI_LOCALNRANKS=2 "
#define PALS                                                                                       \
    "PALS_RANKID=1 PALS_LOCAL_RANKID=1 PALS_LOCAL_SIZE=2 PALS_NODEID=0 PALS_APID=4711 PMI_RANK=1 " \
    "PMI_SIZE=2 PMI_LOCAL_RANK=1 PMI_LOCAL_SIZE=2 "
#define FLUX                                                                                       \
    "FLUX_TASK_RANK=1 FLUX_JOB_SIZE=2 FLUX_TASK_LOCAL_ID=1 FLUX_JOB_NNODES=1 FLUX_JOB_ID=f2Zr "    \
    "PMI_RANK=1 PMI_SIZE=2 PMI_FD=16 "
#define SLURM_ALLOCATION                                                                           \
    "SLURM_JOB_ID=7 SLURM_JOBID=7 SLURM_NNODES=1 SLURM_JOB_NUM_NODES=1 SLURM_TASKS_PER_NODE=2 "    \
    "SLURM_NTASKS=2 SLURM_NPROCS=2 "
#define SLURM_BATCH SLURM_ALLOCATION "SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_GTIDS=0 "
#define SLURM_STEP                                                                                 \
    SLURM_ALLOCATION "SLURM_PROCID=1 SLURM_LOCALID=1 SLURM_NODEID=0 SLURM_GTIDS=0,1 "              \
                     "SLURM_STEP_ID=0 SLURM_STEPID=0 SLURM_STEP_NUM_TASKS=2 "                      \
                     "SLURM_STEP_NUM_NODES=1 SLURM_STEP_TASKS_PER_NODE=2 "
#define SLURM_PMI2 SLURM_STEP "PMI_RANK=1 PMI_SIZE=2 PMI_FD=13 PMI_JOBID=7.0 "
#define SLURM_PMIX SLURM_STEP "PMIX_RANK=1 PMIX_NAMESPACE=slurm.pmix.7.0 "

/* The environment of each test is exactly this list of NAME=value, separated by blanks. Of a name
 * that stands twice, the last counts. */
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

static zcta_status resolve(const char *environment, struct zc_job *job, zcta_error *error)
{
    const zcta_init_params none = {.size = sizeof none};
    struct zc_diag diag;
    zcta_status status;

    set_environment(environment);
    zc_diag_init(&diag);
    status = zc_job_resolve(&none, &diag, job);
    zc_diag_last(&diag, error);
    zc_diag_destroy(&diag);
    return status;
}

static struct zc_job resolve_ok(const char *environment)
{
    struct zc_job job;
    zcta_error error;

    if (resolve(environment, &job, &error) != ZCTA_OK)
        fail_msg("%s\n-> %s", environment, error.message);
    return job;
}

static void assert_refused(const char *environment, const char *says)
{
    struct zc_job job;
    zcta_error error;

    if (resolve(environment, &job, &error) != ZCTA_ERR_ENVIRONMENT ||
        strstr(error.message, says) == NULL)
        fail_msg("%s\n-> %s: %s\nand not: %s", environment, zcta_status_name(error.status),
                 error.message, says);
}

/* Whether the launch has a name, so that rank 0 need not look for a second one. */
enum { NAMED = 0, UNNAMED = 1 };

static void every_launcher_is_understood(void **state)
{
    static const struct {
        const char *environment, *source;
        int unnamed;
    } cases[] = {
        {RUN, "zerocta run", NAMED},
        {WORDS, "torchrun", UNNAMED},
        {WORDS "ZEROCTA_JOB=mine", "torchrun", NAMED},
        {WORDS "ZEROCTA_TOKEN=x", "torchrun", UNNAMED},
        {TORCHRUN, "torchrun", UNNAMED},
        {TORCHRUN "TORCHELASTIC_RUN_ID=7e5c", "torchrun", NAMED},
        {OPEN_MPI_4, "Open MPI", NAMED},
        {OPEN_MPI_5, "Open MPI", NAMED},
        {HYDRA "ZEROCTA_PORT=6", "PMI (MPICH, Intel MPI)", UNNAMED},
        {PALS, "PMI (MPICH, Intel MPI)", NAMED},
        {FLUX, "PMI (MPICH, Intel MPI)", NAMED},
        {FLUX "PMI_RANK=1 ", "PMI (MPICH, Intel MPI)", NAMED},
        {SLURM_STEP, "Slurm", NAMED},
        {SLURM_PMI2, "PMI (MPICH, Intel MPI)", NAMED},
        {SLURM_PMIX, "Slurm", NAMED},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct zc_job job = resolve_ok(cases[i].environment);

        assert_string_equal(job.source, cases[i].source);
        if (job.rank != 1 || job.rank_count != 2 || job.local_rank != 1 ||
            job.local_rank_count != 2 || (job.settle_ns != 0) != cases[i].unnamed)
            fail_msg("%s\n-> rank %u of %u, here %u of %u, settles %u ms", cases[i].environment,
                     job.rank, job.rank_count, job.local_rank, job.local_rank_count,
                     (unsigned)(job.settle_ns / 1000000));
        assert_memory_equal(job.root, "127.0.0.1:", 10);
    }
}

static void a_rank_alone_is_alone_only_where_nobody_started_others(void **state)
{
    static const char *const alone[] = {
        "",
        "PATH=/bin HOME=/root",
        "LOCAL_RANK=0",
        "RANK=0 WORLD_SIZE=1 LOCAL_RANK=0",
        "OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=1 OMPI_COMM_WORLD_LOCAL_RANK=0 "
        "OMPI_COMM_WORLD_LOCAL_SIZE=1",
        "PMI_RANK=0 PMI_SIZE=1 MPI_LOCALRANKID=0 MPI_LOCALNRANKS=1",
        SLURM_ALLOCATION "SLURM_NTASKS=1 SLURM_NPROCS=1",
        SLURM_BATCH "SLURM_NTASKS=1 SLURM_NPROCS=1",
        "SLURM_JOB_ID=7 SLURM_PROCID=0 SLURM_LOCALID=0", /* sbatch without -n */
        SLURM_STEP "SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_STEP_NUM_TASKS=1 SLURM_NTASKS=1 "
                   "SLURM_STEP_TASKS_PER_NODE=1",
    };

    (void)state;
    for (size_t i = 0; i < sizeof alone / sizeof alone[0]; i++) {
        const struct zc_job job = resolve_ok(alone[i]);

        if (job.rank != 0 || job.rank_count != 1 || job.local_rank_count != 1)
            fail_msg("%s", alone[i]);
    }
}

static void what_a_launcher_leaves_out_is_named(void **state)
{
    (void)state;
    assert_refused("OMPI_COMM_WORLD_RANK=0", "OMPI_COMM_WORLD_SIZE is not set");
    assert_refused("OMPI_COMM_WORLD_SIZE=2", "OMPI_COMM_WORLD_RANK is not set");
    assert_refused("PMI_ID=1 PMI_PORT=vm:37253 MPI_LOCALNRANKS=2 MPI_LOCALRANKID=1", /* -pmi-port */
                   "PMI_SIZE is not set");
    assert_refused("FLUX_TASK_RANK=1", "FLUX_JOB_SIZE is not set");
    assert_refused("PALS_RANKID=1", "PMI_SIZE is not set");
    assert_refused("SLURM_STEP_ID=0 SLURM_PROCID=1", "SLURM_STEP_NUM_TASKS is not set");
    assert_refused("SLURM_STEP_ID=0 SLURM_PROCID=1 SLURM_NTASKS=2", "SLURM_LOCALID is not set");
    assert_refused(HYDRA, "set ZEROCTA_PORT"); /* no process of Hydra's above this test */
    assert_refused("LOCAL_RANK=1", "LOCAL_RANK is set, so this program is one of several ranks on "
                                   "this machine, but RANK is not");
    assert_refused("LOCAL_RANK=0 LOCAL_WORLD_SIZE=4", "LOCAL_WORLD_SIZE is set, so this program");
    assert_refused("OMPI_COMM_WORLD_LOCAL_SIZE=2", "but OMPI_COMM_WORLD_RANK is not");
    assert_refused("MPI_LOCALRANKID=3", "but PMI_RANK is not");
    assert_refused("PMIX_RANK=1",
                   "PMIX_RANK=1, so PMIx has started this program as one of several");
    assert_refused(SLURM_STEP "SLURM_STEP_TASKS_PER_NODE=2(x", "SLURM_STEP_TASKS_PER_NODE=2(x");
}

static void nobody_waits_in_the_shell_of_an_allocation(void **state)
{
    (void)state;
    assert_refused(SLURM_BATCH, "SLURM_NTASKS=2, but Slurm has not started this program");
    assert_refused(SLURM_BATCH, "unset SLURM_NTASKS to run one rank alone");
    assert_refused(SLURM_ALLOCATION, "Slurm has not started this program");
    assert_refused(SLURM_BATCH "SLURM_STEP_ID=4294967291", "Slurm has not started this program");
    assert_refused(SLURM_BATCH "SLURM_STEP_ID=batch", "Slurm has not started this program");
}

static void two_launchers_that_contradict_each_other_are_named(void **state)
{
    static const struct {
        const char *environment, *one, *other;
    } cases[] = {
        {OPEN_MPI_4 "RANK=0 WORLD_SIZE=1 LOCAL_RANK=0",
         "torchrun says rank 0 of 1 (RANK, WORLD_SIZE)",
         "Open MPI says rank 1 of 2 (OMPI_COMM_WORLD_RANK, OMPI_COMM_WORLD_SIZE)"},
        {HYDRA "RANK=0 WORLD_SIZE=1 LOCAL_RANK=0", "(RANK, WORLD_SIZE)", "(PMI_RANK, PMI_SIZE)"},
        {SLURM_STEP "WORLD_SIZE=8", "Slurm says rank 1 of 2 (SLURM_PROCID, SLURM_STEP_NUM_TASKS)",
         "torchrun says 8 ranks (WORLD_SIZE)"},
        {OPEN_MPI_4 "RANK=0", "Open MPI says rank 1 of 2", "torchrun says rank 0 (RANK)"},
        {OPEN_MPI_4 "PMI_RANK=0 PMI_SIZE=4 MPI_LOCALRANKID=0 MPI_LOCALNRANKS=4",
         "Open MPI says rank 1 of 2", "says rank 0 of 4 (PMI_RANK, PMI_SIZE)"},
        {RUN "RANK=0", "zerocta run says rank 1 of 2", "torchrun says rank 0 of 2"},
        {SLURM_STEP "RANK=1 WORLD_SIZE=5 LOCAL_RANK=1", "torchrun says rank 1 of 5",
         "Slurm says rank 1 of 2"},
        {TORCHRUN "RANK=0 WORLD_SIZE=1 LOCAL_RANK=0 LOCAL_WORLD_SIZE=1 " SLURM_STEP,
         "torchrun says rank 0 of 1", "Slurm says rank 1 of 2"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_refused(cases[i].environment, cases[i].one);
        assert_refused(cases[i].environment, cases[i].other);
        assert_refused(cases[i].environment, "two launchers contradict each other");
    }
}

static void a_launcher_may_stand_inside_another(void **state)
{
    static const struct {
        const char *environment;
        uint32_t rank, rank_count;
    } cases[] = {
        {SLURM_BATCH WORDS, 1, 2},
        {SLURM_ALLOCATION OPEN_MPI_4, 1, 2},
        {SLURM_BATCH HYDRA "ZEROCTA_PORT=6", 1, 2},
        {SLURM_STEP WORDS, 1, 2},
        {SLURM_STEP "WORLD_SIZE=2", 1, 2},
        {SLURM_STEP "RANK=1 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=29500", 1, 2},
        /* srun starts a torchrun on each of two machines, which start four ranks each; their order
         * is torchrun's own. */
        {SLURM_STEP TORCHRUN "RANK=2 WORLD_SIZE=8 LOCAL_RANK=2 LOCAL_WORLD_SIZE=4", 2, 8},
        /* The same by a launcher that leaves no mark. */
        {SLURM_STEP WORDS "RANK=6 WORLD_SIZE=8 LOCAL_RANK=2 LOCAL_WORLD_SIZE=4", 6, 8},
        /* srun or mpirun -n 1. */
        {SLURM_STEP WORDS "SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_STEP_NUM_TASKS=1", 1, 2},
        {SLURM_STEP OPEN_MPI_5 "SLURM_STEP_NUM_TASKS=3 SLURM_PROCID=2 SLURM_LOCALID=2", 1, 2},
        {SLURM_PMI2 RUN "SLURM_STEP_NUM_TASKS=3 PMI_SIZE=3 PMI_RANK=2 SLURM_PROCID=2", 1, 2},
        {FLUX OPEN_MPI_5 "FLUX_JOB_SIZE=5 FLUX_TASK_RANK=4 PMI_RANK=4 PMI_SIZE=1", 1, 2},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct zc_job job = resolve_ok(cases[i].environment);

        if (job.rank != cases[i].rank || job.rank_count != cases[i].rank_count)
            fail_msg("%s\n-> rank %u of %u", cases[i].environment, job.rank, job.rank_count);
    }
}

static void ranks_on_several_machines_are_told_what_they_need(void **state)
{
    static const char *const spread[] = {
        OPEN_MPI_4 "OMPI_COMM_WORLD_LOCAL_SIZE=1 OMPI_COMM_WORLD_LOCAL_RANK=0",
        OPEN_MPI_4 "OMPI_COMM_WORLD_LOCAL_SIZE=1 OMPI_COMM_WORLD_LOCAL_RANK=0 ZEROCTA_REMOTE=1",
        OPEN_MPI_4 "OMPI_COMM_WORLD_LOCAL_SIZE=1 OMPI_COMM_WORLD_LOCAL_RANK=0 MASTER_ADDR=n1 "
                   "MASTER_PORT=5",
        HYDRA "MPI_LOCALNRANKS=1 MPI_LOCALRANKID=0",
        SLURM_STEP "SLURM_LOCALID=0 SLURM_NODEID=1 SLURM_STEP_NUM_NODES=2 "
                   "SLURM_STEP_TASKS_PER_NODE=1(x2)",
        FLUX "FLUX_JOB_NNODES=2 FLUX_TASK_LOCAL_ID=0",
        PALS "PALS_LOCAL_SIZE=1 PALS_LOCAL_RANKID=0 PMI_LOCAL_SIZE=1 PMI_LOCAL_RANK=0",
    };
    struct zc_job job;

    (void)state;
    for (size_t i = 0; i < sizeof spread / sizeof spread[0]; i++) {
        assert_refused(spread[i], "has started the 2 ranks of this job on several machines");
        assert_refused(spread[i], "set ZEROCTA_REMOTE=1, ZEROCTA_TOKEN to a secret, MASTER_ADDR");
    }
    job = resolve_ok(SLURM_STEP "SLURM_STEP_NUM_TASKS=9 SLURM_PROCID=8 SLURM_LOCALID=2 "
                                "SLURM_NODEID=2 SLURM_STEP_NUM_NODES=3 "
                                "SLURM_STEP_TASKS_PER_NODE=3(x3) MASTER_ADDR=10.0.0.1 "
                                "MASTER_PORT=5 ZEROCTA_REMOTE=1 ZEROCTA_TOKEN=x");
    assert_int_equal(job.local_rank_count, 3);
    assert_string_equal(job.root, "10.0.0.1:5");
    job = resolve_ok(SLURM_STEP "SLURM_STEP_NUM_TASKS=9 SLURM_PROCID=8 SLURM_LOCALID=0 "
                                "SLURM_NODEID=2 SLURM_STEP_TASKS_PER_NODE=4(x2),1 "
                                "MASTER_ADDR=localhost MASTER_PORT=5");
    assert_int_equal(job.local_rank_count, 1);
    /* Two machines played on one, as torchrun can. */
    resolve_ok(WORDS "LOCAL_RANK=0 LOCAL_WORLD_SIZE=1");
}

static bool same_key(const char *first, const char *second)
{
    const struct zc_job a = resolve_ok(first), b = resolve_ok(second);

    return memcmp(a.key, b.key, sizeof a.key) == 0;
}

#define TOKEN "ZEROCTA_TOKEN=x MASTER_ADDR=127.0.0.1 MASTER_PORT=5 "

static void the_name_of_a_launch_is_part_of_the_key(void **state)
{
    static const struct {
        const char *environment, *other_launch;
    } cases[] = {
        {TORCHRUN, "TORCHELASTIC_RUN_ID=8"},
        {TORCHRUN, "TORCHELASTIC_RESTART_COUNT=1"},
        {OPEN_MPI_4, "PMIX_NAMESPACE=1841364994"},
        {OPEN_MPI_5, "PMIX_NAMESPACE=prterun-vm-319@2"},
        {PALS, "PALS_APID=4712"},
        {FLUX, "FLUX_JOB_ID=f2Zs"},
        {SLURM_STEP, "SLURM_JOB_ID=8"},
        {SLURM_STEP, "SLURM_STEP_ID=1"},
        {SLURM_STEP, "SLURM_RESTART_COUNT=1"},
        {SLURM_STEP WORDS, "SLURM_STEP_ID=1"},
        {WORDS, "ZEROCTA_JOB=b"},
    };
    char other[2048], with_token[2200], other_with_token[2200];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        snprintf(other, sizeof other, "%s%s ", cases[i].environment, cases[i].other_launch);
        snprintf(with_token, sizeof with_token, "%s" TOKEN, cases[i].environment);
        snprintf(other_with_token, sizeof other_with_token, "%s" TOKEN, other);
        if (same_key(cases[i].environment, other))
            fail_msg("the same key: %s", other);
        if (same_key(with_token, other_with_token))
            fail_msg("the same key: %s", other_with_token);
    }
    assert_true(same_key(SLURM_STEP, SLURM_STEP "SLURM_PROCID=0 SLURM_LOCALID=0"));
    assert_true(same_key(TORCHRUN, TORCHRUN "RANK=0 LOCAL_RANK=0 ROLE_RANK=0"));
    /* Torchrun's own order of ranks, one on each machine that srun started one on. */
    assert_true(
        same_key(TORCHRUN SLURM_STEP, TORCHRUN SLURM_STEP "SLURM_PROCID=0 SLURM_LOCALID=0"));
}

static void the_tools_see_a_rank_where_the_library_does(void **state)
{
    static const char *const ranks[] = {RUN,  WORDS,      OPEN_MPI_4,     HYDRA,        PALS,
                                        FLUX, SLURM_STEP, "WORLD_SIZE=2", "PMIX_RANK=0"};
    static const char *const none[] = {"", SLURM_BATCH, SLURM_ALLOCATION};

    (void)state;
    for (size_t i = 0; i < sizeof ranks / sizeof ranks[0]; i++) {
        set_environment(ranks[i]);
        assert_true(zc_launched_as_rank());
    }
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        set_environment(none[i]);
        assert_false(zc_launched_as_rank());
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_launcher_is_understood),
        cmocka_unit_test(a_rank_alone_is_alone_only_where_nobody_started_others),
        cmocka_unit_test(what_a_launcher_leaves_out_is_named),
        cmocka_unit_test(nobody_waits_in_the_shell_of_an_allocation),
        cmocka_unit_test(two_launchers_that_contradict_each_other_are_named),
        cmocka_unit_test(a_launcher_may_stand_inside_another),
        cmocka_unit_test(ranks_on_several_machines_are_told_what_they_need),
        cmocka_unit_test(the_name_of_a_launch_is_part_of_the_key),
        cmocka_unit_test(the_tools_see_a_rank_where_the_library_does),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
