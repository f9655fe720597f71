/* The machine this process runs on, as far as a reader of results wants to know it. Only reads. */
#ifndef ZC_TOOL_MACHINE_H
#define ZC_TOOL_MACHINE_H

#include <stdint.h>

struct zc_machine {
    char cpu[128];                              /* model, or "unknown" */
    char kernel[200];                           /* system, release, architecture */
    uint32_t usable_cpus;                       /* what this process may run on */
    uint32_t packages, cores, cpus, numa_nodes; /* of the machine; 0: not known */
    uint64_t memory_bytes;
    uint64_t l1d_bytes, l2_bytes, l3_bytes; /* of one core or group of cores; 0: not known */
    const char *source;                     /* where the topology comes from: "hwloc", "sysfs" */
};

void zc_machine_read(struct zc_machine *machine);

#endif
