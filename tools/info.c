/* zerocta info: what this build and this machine have, what is missing, and why. Reads and probes;
 * starts no rank and opens no GPU. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#ifdef ZC_HAVE_HWLOC
#include <hwloc.h>
#endif
#ifdef ZC_HAVE_JANSSON
#include <jansson.h>
#endif

#include "alone.h"
#include "commands.h"
#include "engine/nccl/nccl_library.h"
#include "info.h"
#include "machine.h"
#include "options.h"

struct settings {
    bool collectives;
};

static const struct zc_option options[] = {
    {.name = "collectives",
     .help = "instead: what each collective moves, whether it can be in place, and which paths it "
             "has here, on the host and on a GPU, under which policy",
     .kind = ZC_OPTION_FLAG,
     .offset = offsetof(struct settings, collectives)},
};

static const struct zc_command_line line = {
    .command = "info",
    .synopsis = "[OPTIONS]",
    .purpose = "Says what this build and this machine have, what is missing, and why.",
    .options = options,
    .option_count = sizeof options / sizeof options[0],
};

__attribute__((format(printf, 3, 0))) static void say(const char *name, int column,
                                                      const char *format, va_list args)
{
    char text[512];

    vsnprintf(text, sizeof text, format, args);
    for (char *at = text; *at != '\0'; at++)
        if (iscntrl((unsigned char)*at))
            *at = '?';
    printf("  %-*s", column - 2, name);
    zc_print_wrapped(text, zc_print_width(), (size_t)column, (size_t)column);
}

void zc_info_say(const char *name, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    say(name, 18, format, args);
    va_end(args);
}

void zc_info_say_variable(const char *name, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    say(name, 30, format, args);
    va_end(args);
}

/* ---- Devices ---- */

static const char *size_or_unknown(uint64_t bytes, char text[ZC_SIZE_TEXT_BYTES])
{
    return bytes == 0 ? "unknown" : zc_size_text(bytes, text);
}

static void print_host(const struct zc_machine *machine)
{
    struct zc_device_caps caps;

    zc_info_say("host", "yes: %" PRIu32 " usable CPUs, %.1f GiB of memory", machine->usable_cpus,
                (double)machine->memory_bytes / (double)(1u << 30));
    if (zc_host_caps(line.command, 1, &caps)) {
        char half[ZC_SIZE_TEXT_BYTES], block[ZC_SIZE_TEXT_BYTES];

        zc_info_say("", "copies in blocks of %s, signals %s, %s of scratch a rank and call",
                    zc_size_text(caps.block_bytes, block), caps.signals,
                    zc_size_text(caps.scratch_bytes, half));
    }
}

/* ---- Libraries ---- */

static void print_nccl(void)
{
    struct zc_nccl_facts facts;
    char version[16], lacks[160];
    struct zc_nccl nccl;
    struct zc_diag diag;
    zcta_error error;

    zc_diag_init(&diag);
    if (zc_nccl_load(&diag, &nccl) != ZCTA_OK) {
        zc_diag_last(&diag, &error);
        zc_info_say("nccl", "no: %s", error.message);
        goto out;
    }
    zc_nccl_lacks(nccl.version, lacks);
    zc_info_say("nccl", "%s: engine nccl%s%s", zc_nccl_version_text(nccl.version, version),
                lacks[0] == '\0' ? "" : "; it lacks ", lacks);
    zc_nccl_read_facts(&nccl, &facts);
    if (facts.version == 0)
        zc_info_say("", "not used: %s", facts.why);
    if (facts.forced_policy >= 0)
        zc_info_say("", "NCCL_CTA_POLICY=%d in the environment overrides every team's policy",
                    facts.forced_policy);
    if (facts.switch_off != NULL)
        zc_info_say("", "%s in the environment keeps it from its copy engines", facts.switch_off);
    zc_nccl_unload(&nccl);
out:
    zc_diag_destroy(&diag);
}

static void print_libraries(void)
{
    zc_info_say("libsodium", "%s: token and keyed hash", sodium_version_string());
#ifdef ZC_HAVE_HWLOC
    zc_info_say("hwloc", "%s: topology of the machine", HWLOC_VERSION);
#else
    zc_info_say("hwloc", "no: not found when this was built; the topology is read from sysfs");
#endif
#ifdef ZC_HAVE_JANSSON
    zc_info_say("jansson", "%s: `zerocta perf --json`", JANSSON_VERSION);
#else
    zc_info_say("jansson", "no: not found when this was built; `zerocta perf` cannot write JSON");
#endif
    print_nccl();
}

/* ---- Topology ---- */

static void print_topology(const struct zc_machine *machine)
{
    char l1d[ZC_SIZE_TEXT_BYTES], l2[ZC_SIZE_TEXT_BYTES], l3[ZC_SIZE_TEXT_BYTES];

    zc_info_say("cpu", "%s", machine->cpu);
    zc_info_say("kernel", "%s", machine->kernel);
    if (machine->cpus == 0)
        zc_info_say("topology", "unknown: %s does not tell", machine->source);
    else
        zc_info_say("topology",
                    "%" PRIu32 " package%s, %" PRIu32 " cores, %" PRIu32
                    " hardware threads, %" PRIu32 " NUMA node%s (from %s)",
                    machine->packages, machine->packages == 1 ? "" : "s", machine->cores,
                    machine->cpus, machine->numa_nodes, machine->numa_nodes == 1 ? "" : "s",
                    machine->source);
    zc_info_say("caches", "L1d %s, L2 %s, L3 %s", size_or_unknown(machine->l1d_bytes, l1d),
                size_or_unknown(machine->l2_bytes, l2), size_or_unknown(machine->l3_bytes, l3));
}

/* ---- Limits ---- */

/* Does what a window does: makes shared memory that has a file descriptor, and writes to it. */
static void print_memfd(void)
{
    const size_t bytes = 1u << 16;
    const int fd = memfd_create("zerocta info", MFD_CLOEXEC);
    void *base = MAP_FAILED;

    if (fd >= 0 && ftruncate(fd, (off_t)bytes) == 0)
        base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        zc_info_say("memfd", "does not work: %s; windows of the host device cannot be made",
                    strerror(errno));
    } else {
        memset(base, 1, bytes);
        munmap(base, bytes);
        zc_info_say("memfd", "works: windows of the host device");
    }
    if (fd >= 0)
        close(fd);
}

static void print_limit(const char *name, const struct rlimit *limit, const char *what)
{
    char soft[32] = "unlimited", hard[32] = "unlimited";

    if (limit->rlim_cur != RLIM_INFINITY)
        snprintf(soft, sizeof soft, "%" PRIuMAX, (uintmax_t)limit->rlim_cur);
    if (limit->rlim_max != RLIM_INFINITY)
        snprintf(hard, sizeof hard, "%" PRIuMAX, (uintmax_t)limit->rlim_max);
    zc_info_say(name, "%s, at most %s: %s", soft, hard, what);
}

static void print_limits(void)
{
    struct rlimit limit;

    print_memfd();
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        print_limit("open files", &limit,
                    "a rank has one for each other rank, and one for each window");
    if (getrlimit(RLIMIT_AS, &limit) == 0)
        print_limit("address space", &limit, "a rank maps every rank's part of a window");
}

int zc_command_info(int argc, char **argv)
{
    const uint32_t version = zcta_version();
    struct settings settings = {.collectives = false};
    struct zc_machine machine;
    int first, status;

    if (!zc_options_parse(&line, argc, argv, &settings, &first, &status))
        return status;
    if (settings.collectives) {
        printf("zerocta %u.%u.%u\n", version >> 16, version >> 8 & 255u, version & 255u);
        return zc_info_print_collectives();
    }
    zc_machine_read(&machine);
    printf("zerocta %u.%u.%u\n\ndevices\n", version >> 16, version >> 8 & 255u, version & 255u);
    print_host(&machine);
    zc_info_print_gpus();
    printf("\nmachine\n");
    print_topology(&machine);
    printf("\nlimits\n");
    print_limits();
    printf("\nenvironment\n");
    zc_info_print_environment();
    /* Last, because loading NCCL sets some of its environment. */
    printf("\nlibraries\n");
    print_libraries();
    return ZC_EXIT_OK;
}
