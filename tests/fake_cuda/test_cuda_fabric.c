/* Ranks on several hosts whose GPUs are in one NVLink domain: they are one node, and map each
 * other's memory by fabric handles. Ranks as processes, told to be on different hosts; no memory of
 * another host comes as a descriptor. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "api/objects.h"
#include "support_fake.h"

enum { RANKS = 4, HOST_RANKS = 2, SHARE = 5000 };

static const struct ranks_options two_hosts = {.device = ZCTA_DEVICE_CUDA,
                                               .node_ranks = HOST_RANKS};

/* The settings are read where a rank starts, so this process must not load the driver. */
static int begin(void **state)
{
    (void)state;
    setenv("FAKE_CUDA_FABRIC", "1", 1);
    setenv("FAKE_NVML_CLUSTER", "7", 1);
    setenv("FAKE_NVML_CLIQUE", "0000", 1);
    unsetenv("FAKE_CUDA_LACKS");
    return 0;
}

/* ---- One domain ---- */

static void gather_across(zcta_context *context, void *data)
{
    struct seat s;

    (void)data;
    open_fake();
    s = take_seat(context, SHARE);
    EXPECT(context->nodes == NULL);
    EXPECT(zc_mesh_host(context->mesh, 0) != zc_mesh_host(context->mesh, HOST_RANKS));
    for (uint32_t i = 0; i < RANKS; i++)
        EXPECT(zcta_window_peer(s.recv, i) != NULL);
    for (uint32_t call = 0; call < 20; call++) {
        fill_share(&s, call);
        EXPECT_OK(context, gather(&s, call % 2 ? ZCTA_POLICY_DEFAULT : ZCTA_POLICY_ZERO));
        EXPECT_OK(context, zcta_barrier(s.world, s.stream));
        synchronize(&s);
        expect_shares(&s, call);
    }
    EXPECT(path_calls(s.world, "all_gather/ce/direct-push", NULL) == 10);
    EXPECT(path_calls(s.world, "all_gather/ce/push-back", NULL) == 10);
    leave_seat(&s);
}

static void hosts_of_one_domain_are_one_node(void **state)
{
    (void)state;
    run_as_processes_with(RANKS, &two_hosts, gather_across, NULL);
}

/* Memory of the caller's own that was made for one host only. */
static void register_for_one_host(zcta_context *context, void *data)
{
    struct zc_cu_allocation_prop prop = {
        .type = ZC_CU_MEM_ALLOCATION_PINNED,
        .handle_types = ZC_CU_MEM_HANDLE_POSIX_FD,
        .location = {ZC_CU_MEM_LOCATION_DEVICE, zcta_context_gpu(context)}};
    const struct zc_cu_access access = {prop.location, ZC_CU_MEM_ACCESS_READWRITE};
    const size_t bytes = (size_t)1 << 20;
    zc_cu_allocation handle = 0;
    zc_cu_pointer at = 0;
    zcta_window *window = NULL;
    struct seat s;

    (void)data;
    open_fake();
    s = take_seat(context, SHARE);
    EXPECT(driver.cuMemCreate(&handle, bytes, &prop, 0) == 0);
    EXPECT(driver.cuMemAddressReserve(&at, bytes, 0, 0, 0) == 0);
    EXPECT(driver.cuMemMap(at, bytes, 0, handle, 0) == 0);
    EXPECT(driver.cuMemSetAccess(at, bytes, &access, 1) == 0);
    expect_error(
        context,
        zcta_window_register(s.world, (void *)(uintptr_t)at, (size_t)RANKS * SHARE, &window),
        ZCTA_ERR_UNSUPPORTED, "without a fabric handle");
    driver.cuMemUnmap(at, bytes);
    driver.cuMemAddressFree(at, bytes);
    driver.cuMemRelease(handle);
    leave_seat(&s);
}

static void memory_for_one_host_is_refused(void **state)
{
    (void)state;
    run_as_processes_with(RANKS, &two_hosts, register_for_one_host, NULL);
}

/* ---- No common domain ---- */

static void expect_two_nodes(zcta_context *context, void *data)
{
    (void)data;
    EXPECT(context->nodes != NULL);
    for (uint32_t i = 0; i < RANKS; i++)
        EXPECT((context->nodes[i] == context->nodes[0]) == (i < HOST_RANKS));
    EXPECT(context->nodes[2] == context->nodes[3]);
}

static void cliques_are_nodes(void **state)
{
    (void)state;
    setenv("FAKE_NVML_CLIQUE", "0011", 1);
    run_as_processes_with(RANKS, &two_hosts, expect_two_nodes, NULL);
}

static void gpus_outside_of_domains_are_nodes_by_host(void **state)
{
    (void)state;
    unsetenv("FAKE_NVML_CLUSTER");
    run_as_processes_with(RANKS, &two_hosts, expect_two_nodes, NULL);
}

/* Runs the ranks with their standard error in a file, and gives what they wrote. */
static char *overhear(rank_fn *function)
{
    static char heard[16384];
    const int before = dup(STDERR_FILENO);
    FILE *file = tmpfile();
    size_t length;

    assert_true(before >= 0 && file != NULL);
    assert_true(dup2(fileno(file), STDERR_FILENO) >= 0);
    run_as_processes_with(RANKS, &two_hosts, function, NULL);
    assert_true(dup2(before, STDERR_FILENO) >= 0);
    close(before);
    rewind(file);
    length = fread(heard, 1, sizeof heard - 1, file);
    heard[length] = '\0';
    fclose(file);
    return heard;
}

static void without_imex_hosts_are_nodes_and_that_is_said(void **state)
{
    const char *heard;

    (void)state;
    setenv("FAKE_CUDA_LACKS", "imex", 1);
    heard = overhear(expect_two_nodes);
    assert_non_null(strstr(heard,
                           "GPU 3 is in an NVLink domain of several machines, but its memory "
                           "cannot be shared there (CUDA error 800): see that the IMEX"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(hosts_of_one_domain_are_one_node, begin),
        cmocka_unit_test_setup(memory_for_one_host_is_refused, begin),
        cmocka_unit_test_setup(cliques_are_nodes, begin),
        cmocka_unit_test_setup(gpus_outside_of_domains_are_nodes_by_host, begin),
        cmocka_unit_test_setup(without_imex_hosts_are_nodes_and_that_is_said, begin),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
