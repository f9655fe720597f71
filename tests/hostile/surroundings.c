/* Makes surroundings; see surroundings.h. */
#include "surroundings.h"

#include <errno.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "support_group.h"
#include "support_locale.h"

#define KIB(n) ((long)(n) << 10)
#define MIB(n) ((long)(n) << 20)

enum { NOBODY = 65534 };

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

static const char *set_limit(long resource, long value)
{
    const struct rlimit limit = {.rlim_cur = (rlim_t)value, .rlim_max = (rlim_t)value};

    if (SANITIZED && (resource == RLIMIT_AS || resource == RLIMIT_DATA))
        return "a sanitizer takes the address space";
    return setrlimit((__rlimit_resource_t)resource, &limit) == 0 ? NULL : "the limit cannot be set";
}

/* So much more than now. */
static const char *limit_space(long resource, long more)
{
    FILE *file = fopen("/proc/self/statm", "re");
    char line[128] = "";
    unsigned long pages;

    if (file == NULL || fgets(line, sizeof line, file) == NULL)
        return "/proc does not tell the size";
    fclose(file);
    pages = strtoul(line, NULL, 10);
    return set_limit(resource, (long)pages * sysconf(_SC_PAGESIZE) + more);
}

/* Limits of processes do not hold root. */
static const char *become_nobody(long resource, long value)
{
    if (geteuid() != 0)
        return "not root";
    if (resource >= 0 && set_limit(resource, value) != NULL)
        return "the limit cannot be set";
    return setgid(NOBODY) == 0 && setuid(NOBODY) == 0 ? NULL : "no other user can be taken";
}

static const char *lock_memory(long bytes, long b)
{
    (void)b;
    if (SANITIZED)
        return "a sanitizer takes the address space";
    if (become_nobody(RLIMIT_MEMLOCK, bytes) != NULL)
        return "not root";
    return mlockall(MCL_FUTURE) == 0 ? NULL : "memory cannot be locked";
}

static void ignore(int number)
{
    (void)number;
}

static const char *start_timer(long which, long flags)
{
    static const int numbers[] = {
        [ITIMER_REAL] = SIGALRM, [ITIMER_VIRTUAL] = SIGVTALRM, [ITIMER_PROF] = SIGPROF};
    const struct sigaction action = {.sa_handler = ignore, .sa_flags = (int)flags};
    const struct itimerval time = {.it_interval.tv_usec = 1000, .it_value.tv_usec = 1000};

    if (sigaction(numbers[which], &action, NULL) != 0)
        return "no handler can be set";
    return setitimer((__itimer_which_t)which, &time, NULL) == 0 ? NULL : "no timer can be set";
}

/* Its signals are real-time ones: they queue, and are not merged as those of setitimer(). */
static const char *start_posix_timer(long clock, long a)
{
    const struct sigaction action = {.sa_handler = ignore};
    const struct itimerspec time = {.it_interval.tv_nsec = 1000000, .it_value.tv_nsec = 1000000};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
    timer_t timer;

    (void)a;
    if (sigaction(SIGRTMIN, &action, NULL) != 0)
        return "no handler can be set";
    return timer_create((clockid_t)clock, &event, &timer) == 0 &&
                   timer_settime(timer, 0, &time, NULL) == 0
               ? NULL
               : "no timer can be set";
}

static const char *block_all_signals(long a, long b)
{
    sigset_t all;

    (void)a, (void)b;
    sigfillset(&all);
    return sigprocmask(SIG_SETMASK, &all, NULL) == 0 ? NULL : "signals cannot be blocked";
}

static const char *set_signal(long number, long handler)
{
    return signal((int)number, handler == 0 ? SIG_DFL : SIG_IGN) != SIG_ERR ? NULL : "no signal";
}

static const char *ignore_all_signals(long a, long b)
{
    (void)a, (void)b;
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_IGN); /* which some cannot be */
    return NULL;
}

static const char *close_files(long first, long last)
{
    return close_range((unsigned)first, (unsigned)last, 0) == 0 ? NULL : "files cannot be closed";
}

static const char *bind_to_one_core(long a, long b)
{
    cpu_set_t set, one;
    size_t cpu = 0;

    (void)a, (void)b;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return "the mask cannot be read";
    while (!CPU_ISSET(cpu, &set))
        cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    return sched_setaffinity(0, sizeof one, &one) == 0 ? NULL : "the mask cannot be set";
}

static const char *mask_files(long a, long b)
{
    (void)b;
    umask((mode_t)a);
    return NULL;
}

static const char *small_stacks(long bytes, long b)
{
    pthread_attr_t attributes;

    (void)b;
    if (pthread_attr_init(&attributes) != 0 ||
        pthread_attr_setstacksize(&attributes, (size_t)bytes) != 0 ||
        pthread_setattr_default_np(&attributes) != 0)
        return "the size of stacks cannot be set";
    return NULL;
}

/* The folder is gone before it is the root, so it cannot be left behind. */
static const char *leave_root(long a, long b)
{
    char folder[] = "/tmp/zerocta-root-XXXXXX";

    (void)a, (void)b;
    if (mkdtemp(folder) == NULL || chdir(folder) != 0 || rmdir(folder) != 0 || chroot(".") != 0)
        return "no other root can be taken";
    return NULL;
}

static const char *new_namespace(long flags, long b)
{
    (void)b;
    return unshare((int)flags) == 0 ? NULL : "no namespace can be made";
}

/* A process of a new namespace of processes is a child; this one ends as the child does. */
static const char *new_pid_namespace(long a, long b)
{
    pid_t child;
    int status = 0;

    (void)a, (void)b;
    if (unshare(CLONE_NEWPID) != 0)
        return "no namespace can be made";
    child = fork();
    if (child < 0)
        return "no process can be made";
    if (child == 0)
        return NULL;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) {
        signal(WTERMSIG(status), SIG_DFL);
        kill(getpid(), WTERMSIG(status));
    }
    _exit(WEXITSTATUS(status));
}

static const char *cover(long which, long b)
{
    static const char *const folders[] = {"/proc", "/sys", "/dev", "/tmp"};

    (void)b;
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("none", folders[which], "tmpfs", 0, "size=4096") != 0)
        return "no namespace can be made";
    return NULL;
}

/* A child outlives the process, which may be killed, and removes the group after it. */
static bool keep_group(const char *folder)
{
    const pid_t member = getpid(), keeper = fork();

    if (keeper != 0)
        return keeper > 0;
    while (getppid() == member)
        sleep_ms(5);
    group_remove(folder);
    _exit(0);
}

static const char *enter_group(long version, long limit)
{
    char folder[GROUP_PATH];

    if (SANITIZED && limit < MIB(64))
        return "a sanitizer takes memory of its own";
    if (!group_make((size_t)version, getpid(), (uint64_t)limit, folder))
        return version == 0 ? "no memory group of version 1 can be made"
                            : "no memory group of version 2 can be made";
    if (!keep_group(folder)) {
        group_remove(folder);
        return "no process can be made";
    }
    return group_write(folder, "cgroup.procs", (uint64_t)getpid()) ? NULL : "nobody is let in";
}

static const char *speak_german(long a, long b)
{
    (void)a, (void)b;
    return become_german() ? NULL : "no German locale can be made";
}

static const char *clear_environment(long a, long b)
{
    (void)a, (void)b;
    return clearenv() == 0 ? NULL : "the environment cannot be cleared";
}

/* One call of the system's fails always. */
static const char *deny(long number, long error)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {.len = sizeof filter / sizeof filter[0], .filter = filter};

    if (SANITIZED &&
        (number == SYS_sched_getaffinity || number == SYS_mmap || number == SYS_munmap))
        return "a sanitizer ends the process without it";
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) != 0)
        return "no filter of system calls can be set";
    return NULL;
}

#define DENY(call, w)                                                                              \
    {"no " #call " (EPERM)", deny, SYS_##call, EPERM, BEFORE_INIT, w},                             \
    {                                                                                              \
        "no " #call " (ENOSYS)", deny, SYS_##call, ENOSYS, BEFORE_INIT, w                          \
    }
#define DENY_LATER(call)                                                                           \
    {                                                                                              \
        "no " #call " after init", deny, SYS_##call, EPERM, AFTER_INIT, false                      \
    }

const struct surrounding surroundings[] = {
    {"nothing special", mask_files, 022, 0, BEFORE_INIT, true},
    {"4 open files", set_limit, RLIMIT_NOFILE, 4, BEFORE_INIT, false},
    {"9 open files", set_limit, RLIMIT_NOFILE, 9, BEFORE_INIT, false},
    {"14 open files", set_limit, RLIMIT_NOFILE, 14, BEFORE_INIT, false},
    {"20 open files", set_limit, RLIMIT_NOFILE, 20, BEFORE_INIT, false},
    {"3 open files after init", set_limit, RLIMIT_NOFILE, 3, AFTER_INIT, false},
    {"3 open files after calls", set_limit, RLIMIT_NOFILE, 3, AFTER_CALLS, false},
    {"1 MiB more of addresses", limit_space, RLIMIT_AS, MIB(1), BEFORE_INIT, false},
    {"12 MiB more of addresses", limit_space, RLIMIT_AS, MIB(12), BEFORE_INIT, false},
    {"no more addresses after init", limit_space, RLIMIT_AS, 0, AFTER_INIT, false},
    {"no more addresses after calls", limit_space, RLIMIT_AS, 0, AFTER_CALLS, false},
    {"no data", set_limit, RLIMIT_DATA, 0, BEFORE_INIT, false},
    {"no data after calls", set_limit, RLIMIT_DATA, 0, AFTER_CALLS, false},
    {"files of 0 bytes", set_limit, RLIMIT_FSIZE, 0, BEFORE_INIT, false},
    {"files of 64 KiB", set_limit, RLIMIT_FSIZE, KIB(64), BEFORE_INIT, false},
    {"files of 0 bytes after init", set_limit, RLIMIT_FSIZE, 0, AFTER_INIT, false},
    {"no cores", set_limit, RLIMIT_CORE, 0, BEFORE_INIT, true},
    {"no locked memory", set_limit, RLIMIT_MEMLOCK, 0, BEFORE_INIT, true},
    {"all memory locked, little allowed", lock_memory, MIB(1), 0, BEFORE_INIT, false},
    {"all memory locked after init", lock_memory, KIB(64), 0, AFTER_INIT, false},
    {"a stack of 128 KiB", set_limit, RLIMIT_STACK, KIB(128), BEFORE_INIT, true},
    {"a stack without a limit", set_limit, RLIMIT_STACK, -1, BEFORE_INIT, true},
    {"no resident memory", set_limit, RLIMIT_RSS, 0, BEFORE_INIT, true},
    {"no queued signals", set_limit, RLIMIT_SIGPENDING, 0, BEFORE_INIT, true},
    {"no message queues", set_limit, RLIMIT_MSGQUEUE, 0, BEFORE_INIT, true},
    {"no file locks", set_limit, RLIMIT_LOCKS, 0, BEFORE_INIT, true},
    {"no real-time priority", set_limit, RLIMIT_RTPRIO, 0, BEFORE_INIT, true},
    {"another user", become_nobody, -1, 0, BEFORE_INIT, false},
    {"another user after init", become_nobody, -1, 0, AFTER_INIT, false},
    {"no threads", become_nobody, RLIMIT_NPROC, 0, BEFORE_INIT, false},
    {"no threads after init", become_nobody, RLIMIT_NPROC, 0, AFTER_INIT, false},
    {"stacks of 16 KiB", small_stacks, KIB(16), 0, BEFORE_INIT, true},
    {"stacks of 64 TiB", small_stacks, (long)1 << 46, 0, BEFORE_INIT, true},
    {"a timer", start_timer, ITIMER_REAL, 0, BEFORE_INIT, true},
    {"a timer that restarts calls", start_timer, ITIMER_REAL, SA_RESTART, BEFORE_INIT, true},
    {"a profiler's timer", start_timer, ITIMER_PROF, 0, BEFORE_INIT, true},
    {"a timer of the program's own time", start_timer, ITIMER_VIRTUAL, 0, BEFORE_INIT, true},
    {"a timer whose signals queue", start_posix_timer, CLOCK_MONOTONIC, 0, BEFORE_INIT, true},
    {"all signals blocked", block_all_signals, 0, 0, BEFORE_INIT, true},
    {"SIGPIPE ignored", set_signal, SIGPIPE, 1, BEFORE_INIT, true},
    {"SIGPIPE ends", set_signal, SIGPIPE, 0, BEFORE_INIT, true},
    {"SIGCHLD ignored", set_signal, SIGCHLD, 1, BEFORE_INIT, true},
    {"all signals ignored", ignore_all_signals, 0, 0, BEFORE_INIT, true},
    {"closed standard input", close_files, 0, 0, BEFORE_INIT, true},
    {"closed standard output", close_files, 1, 1, BEFORE_INIT, true},
    {"closed standard error", close_files, 2, 2, BEFORE_INIT, true},
    {"closed standard files", close_files, 0, 2, BEFORE_INIT, true},
    {"all files closed", close_files, 0, INT_MAX, BEFORE_INIT, true},
    {"standard files closed after init", close_files, 0, 2, AFTER_INIT, true},
    {"one core", bind_to_one_core, 0, 0, BEFORE_INIT, true},
    {"numbers with a comma", speak_german, 0, 0, BEFORE_INIT, true},
    {"numbers with a comma after init", speak_german, 0, 0, AFTER_INIT, true},
    {"no environment", clear_environment, 0, 0, BEFORE_INIT, true},
    {"umask 0777", mask_files, 0777, 0, BEFORE_INIT, true},
    {"a memory group (version 1) of 64 MiB", enter_group, 0, MIB(64), BEFORE_INIT, true},
    {"a memory group (version 1) of 4 MiB", enter_group, 0, MIB(4), BEFORE_INIT, false},
    {"a memory group (version 1) of 1 MiB", enter_group, 0, MIB(1), BEFORE_INIT, false},
    {"a memory group (version 1) of 128 KiB after init", enter_group, 0, KIB(128), AFTER_INIT,
     false},
    {"a memory group (version 2) of 64 MiB", enter_group, 1, MIB(64), BEFORE_INIT, true},
    {"a memory group (version 2) of 4 MiB", enter_group, 1, MIB(4), BEFORE_INIT, false},
    {"a memory group (version 2) of 1 MiB", enter_group, 1, MIB(1), BEFORE_INIT, false},
    {"a memory group (version 2) of 128 KiB after init", enter_group, 1, KIB(128), AFTER_INIT,
     false},
    {"an empty root", leave_root, 0, 0, BEFORE_INIT, false},
    {"an empty root after init", leave_root, 0, 0, AFTER_INIT, false},
    {"a namespace of processes", new_pid_namespace, 0, 0, BEFORE_INIT, false},
    {"a namespace of networks", new_namespace, CLONE_NEWNET, 0, BEFORE_INIT, false},
    {"a namespace of networks after init", new_namespace, CLONE_NEWNET, 0, AFTER_INIT, true},
    {"a namespace of IPC", new_namespace, CLONE_NEWIPC, 0, BEFORE_INIT, true},
    {"a namespace of users", new_namespace, CLONE_NEWUSER, 0, BEFORE_INIT, false},
    {"a namespace of host names", new_namespace, CLONE_NEWUTS, 0, BEFORE_INIT, true},
    {"no /proc", cover, 0, 0, BEFORE_INIT, false},
    {"no /proc after init", cover, 0, 0, AFTER_INIT, false},
    {"no /sys", cover, 1, 0, BEFORE_INIT, true},
    {"no /dev", cover, 2, 0, BEFORE_INIT, true},
    {"no /tmp", cover, 3, 0, BEFORE_INIT, true},
    DENY(write, false),
    DENY(mmap, false),
    DENY(munmap, false),
    DENY(mprotect, false),
    DENY(memfd_create, false),
    DENY(fallocate, false),
    DENY(fcntl, false),
    DENY(ftruncate, true),
    DENY(mremap, false),
    DENY(socket, false),
    DENY(socketpair, true),
    DENY(bind, false),
    DENY(listen, false),
    DENY(connect, false),
    DENY(accept4, false),
    DENY(getsockname, false),
    DENY(getpeername, false),
    DENY(shutdown, true),
    DENY(getsockopt, false),
    DENY(setsockopt, false),
    DENY(sendmsg, false),
    DENY(recvmsg, false),
    DENY(sendto, false),
    DENY(recvfrom, false),
    DENY(read, false),
    DENY(poll, false),
    DENY(epoll_create1, false),
    DENY(epoll_ctl, false),
    DENY(epoll_wait, false),
    DENY(eventfd2, false),
    DENY(pidfd_open, false),
    DENY(getrandom, false),
    DENY(openat, false),
    DENY(newfstatat, false),
    DENY(prlimit64, false),
    DENY(sched_setaffinity, true),
    DENY(sched_getaffinity, true),
    DENY(sched_yield, true),
    DENY(clock_nanosleep, true),
    DENY(rt_sigprocmask, false),
    DENY(rt_sigaction, true),
    DENY(gettid, true),
    DENY(madvise, true),
    DENY(uname, true),
    DENY(sysinfo, true),
    DENY(readlink, true),
    DENY(prctl, true),
    DENY(membarrier, true),
    /* Anything but ENOSYS the C library takes for a refusal of the thread. */
    {"no clone3 (EPERM)", deny, SYS_clone3, EPERM, BEFORE_INIT, false},
    {"no clone3 (ENOSYS)", deny, SYS_clone3, ENOSYS, BEFORE_INIT, true},
    DENY_LATER(memfd_create),
    DENY_LATER(fallocate),
    DENY_LATER(sendmsg),
    DENY_LATER(recvmsg),
    DENY_LATER(mremap),
    DENY_LATER(mmap),
    DENY_LATER(openat),
};
const unsigned surrounding_count = sizeof surroundings / sizeof surroundings[0];
