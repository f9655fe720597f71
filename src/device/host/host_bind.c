/* Binding of the host's worker threads to cores. */
#include "device/host/host_bind.h"

#ifdef ZC_HAVE_HWLOC

#include <hwloc.h>
#include <unistd.h>

void zc_host_bind_worker(uint32_t local_rank)
{
    hwloc_topology_t topology;
    hwloc_obj_t core;
    int count;

    /* Without it hwloc finds no cores, and says so on stderr, which is the caller's. */
    if (access("/sys/devices/system/cpu", F_OK) != 0 || hwloc_topology_init(&topology) != 0)
        return;
    /* By default hwloc leaves out what this process may not use. */
    if (hwloc_topology_load(topology) == 0) {
        count = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE);
        core = count <= 0
                   ? NULL
                   : hwloc_get_obj_by_type(topology, HWLOC_OBJ_CORE, local_rank % (unsigned)count);
        if (core != NULL)
            hwloc_set_cpubind(topology, core->cpuset, HWLOC_CPUBIND_THREAD);
    }
    hwloc_topology_destroy(topology);
}

#else

void zc_host_bind_worker(uint32_t local_rank)
{
    (void)local_rank;
}

#endif
