/* The machine: /proc, uname() and sysconf(); the topology from hwloc where it was built in, else
 * from sysfs. What cannot be found stays 0. */
#include "machine.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#ifdef ZC_HAVE_HWLOC
#include <hwloc.h>
#else
#include <stdbool.h>
#endif

static void read_cpu_model(struct zc_machine *machine)
{
    FILE *file = fopen("/proc/cpuinfo", "re");
    char line[256];

    snprintf(machine->cpu, sizeof machine->cpu, "unknown");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        const char *value = strchr(line, ':');

        if (strncmp(line, "model name", 10) != 0 || value == NULL)
            continue;
        value += 1 + strspn(value + 1, " ");
        snprintf(machine->cpu, sizeof machine->cpu, "%.*s", (int)strcspn(value, "\n"), value);
        break;
    }
    if (file != NULL)
        fclose(file);
}

static void read_system(struct zc_machine *machine)
{
    struct utsname name;
    cpu_set_t usable;
    const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);

    if (uname(&name) == 0)
        snprintf(machine->kernel, sizeof machine->kernel, "%s %s %s", name.sysname, name.release,
                 name.machine);
    machine->usable_cpus = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
    if (sched_getaffinity(0, sizeof usable, &usable) == 0)
        machine->usable_cpus = (uint32_t)CPU_COUNT(&usable);
    if (pages > 0 && page > 0)
        machine->memory_bytes = (uint64_t)pages * (uint64_t)page;
}

#ifdef ZC_HAVE_HWLOC

static uint32_t count_type(hwloc_topology_t topology, hwloc_obj_type_t type)
{
    const int count = hwloc_get_nbobjs_by_type(topology, type);

    return count > 0 ? (uint32_t)count : 0;
}

static uint64_t cache_bytes(hwloc_topology_t topology, hwloc_obj_type_t type)
{
    hwloc_obj_t cache = hwloc_get_obj_by_type(topology, type, 0);

    return cache != NULL ? cache->attr->cache.size : 0;
}

static void read_topology(struct zc_machine *machine)
{
    hwloc_topology_t topology;

    machine->source = "hwloc";
    /* Without it hwloc finds nothing, and says so on stderr. */
    if (access("/sys/devices/system/cpu", F_OK) != 0 || hwloc_topology_init(&topology) != 0)
        return;
    if (hwloc_topology_load(topology) == 0) {
        machine->packages = count_type(topology, HWLOC_OBJ_PACKAGE);
        machine->cores = count_type(topology, HWLOC_OBJ_CORE);
        machine->cpus = count_type(topology, HWLOC_OBJ_PU);
        machine->numa_nodes = count_type(topology, HWLOC_OBJ_NUMANODE);
        machine->l1d_bytes = cache_bytes(topology, HWLOC_OBJ_L1CACHE);
        machine->l2_bytes = cache_bytes(topology, HWLOC_OBJ_L2CACHE);
        machine->l3_bytes = cache_bytes(topology, HWLOC_OBJ_L3CACHE);
    }
    hwloc_topology_destroy(topology);
}

#else

/* The first line of a file, without its end. */
static bool read_line(const char *path, char *text, size_t bytes)
{
    FILE *file = fopen(path, "re");
    bool read;

    if (file == NULL)
        return false;
    read = fgets(text, (int)bytes, file) != NULL;
    fclose(file);
    if (read)
        text[strcspn(text, "\n")] = '\0';
    return read;
}

#define CPU_FOLDER "/sys/devices/system/cpu/"

/* "2M" as in sysfs. */
static uint64_t parse_cache_size(const char *text)
{
    unsigned long long number = 0;
    char unit = 0;

    if (sscanf(text, "%llu%c", &number, &unit) < 1)
        return 0;
    return number << (unit == 'K' ? 10 : unit == 'M' ? 20 : 0);
}

static void read_cache(struct zc_machine *machine, int index)
{
    uint64_t *const sizes[] = {&machine->l1d_bytes, &machine->l2_bytes, &machine->l3_bytes};
    char path[96], level[16], type[32], size[32];

    snprintf(path, sizeof path, CPU_FOLDER "cpu0/cache/index%d/level", index);
    if (!read_line(path, level, sizeof level))
        return;
    snprintf(path, sizeof path, CPU_FOLDER "cpu0/cache/index%d/type", index);
    if (!read_line(path, type, sizeof type) || strcmp(type, "Instruction") == 0)
        return;
    snprintf(path, sizeof path, CPU_FOLDER "cpu0/cache/index%d/size", index);
    if (read_line(path, size, sizeof size) && level[0] >= '1' && level[0] <= '3')
        *sizes[level[0] - '1'] = parse_cache_size(size);
}

/* Counts the distinct (package, core) pairs: each is counted at its first CPU. */
static void count_cores(struct zc_machine *machine)
{
    char path[96], text[64];

    for (unsigned cpu = 0; cpu < 4096; cpu++) {
        unsigned first = 0;

        snprintf(path, sizeof path, CPU_FOLDER "cpu%u/topology/thread_siblings_list", cpu);
        if (!read_line(path, text, sizeof text))
            break;
        machine->cpus++;
        machine->cores += sscanf(text, "%u", &first) == 1 && first == cpu;
        snprintf(path, sizeof path, CPU_FOLDER "cpu%u/topology/core_siblings_list", cpu);
        machine->packages +=
            read_line(path, text, sizeof text) && sscanf(text, "%u", &first) == 1 && first == cpu;
    }
}

static void read_topology(struct zc_machine *machine)
{
    char path[96];

    machine->source = "sysfs";
    count_cores(machine);
    for (int index = 0; index < 8; index++)
        read_cache(machine, index);
    for (machine->numa_nodes = 0; machine->numa_nodes < 1024; machine->numa_nodes++) {
        snprintf(path, sizeof path, "/sys/devices/system/node/node%u", machine->numa_nodes);
        if (access(path, F_OK) != 0)
            break;
    }
}

#endif

void zc_machine_read(struct zc_machine *machine)
{
    memset(machine, 0, sizeof *machine);
    read_cpu_model(machine);
    read_system(machine);
    read_topology(machine);
}
