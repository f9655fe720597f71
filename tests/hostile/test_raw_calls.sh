#!/usr/bin/env bash
# Looks through the library's sources for calls that bypass what holds in a process that is not ours.
#   test_raw_calls.sh ROOT
set -uo pipefail
cd "$1/src" || exit 1
failures=0

# forbid "the rule" FILES-TO-LEAVE-OUT WRAPPER REGEX: no call that matches, unless it stands directly
# inside WRAPPER(...).
forbid() {
    local rule=$1 except=$2 wrapper=$3 calls=$4 file found
    while IFS= read -r file; do
        found=$(sed -zE "s/\b$wrapper\((\s*)($calls)\(/\1(/g" "$file" | grep -nE "(^|[^A-Za-z0-9_>.])($calls)\(")
        if [ -n "$found" ]; then
            failures=$((failures + 1))
            echo "FAILED: $rule"
            sed "s|^|  src/$file:|" <<<"$found"
        fi
    done < <(grep -rlE --include='*.[ch]' "\b($calls)\(" | grep -vxE "$except" | sort)
}

# forbid_text "the rule" FILES-TO-LEAVE-OUT REGEX: nothing that matches.
forbid_text() {
    local rule=$1 except=$2 found
    found=$(grep -rnE --include='*.[ch]' "$3" | grep -vE "^($except):")
    if [ -n "$found" ]; then
        failures=$((failures + 1))
        echo "FAILED: $rule"
        sed "s|^|  src/|" <<<"$found"
    fi
}

makers='socket|socketpair|accept|accept4|memfd_create|memfd_secret|epoll_create|epoll_create1'
makers+='|eventfd|signalfd|timerfd_create|inotify_init1?|open|openat|open64|creat|pidfd_open|pidfd_getfd'
makers+='|dup|dup2|dup3|mkstemp|mkostemp|shm_open|userfaultfd|syscall\(SYS_(pidfd|memfd|open)[a-z_0-9]*'
forbid "a call that makes a descriptor stands inside zc_fd_lift()" 'base/fd\.[ch]' zc_fd_lift "$makers"
streams='fopen|fopen64|fdopen|opendir|fdopendir|tmpfile|popen|pipe|pipe2'
forbid "files are opened by zc_fd_read_file(), pipes and folders are not used" 'base/fd\.[ch]' none "$streams"
forbid "descriptors are received in net.c alone, and copied above the standard ones" \
    'rendezvous/net\.c' none 'recvmsg|recvmmsg'
forbid_text "fcntl(F_DUPFD) has a lower bound above the standard descriptors" none \
    'F_DUPFD(_CLOEXEC)?, *([0-2]|STD[A-Z]*_FILENO)\)'
forbid_text "our variables are read through the table of base/environment.c" 'base/environment\.c' \
    'getenv\("ZEROCTA_'
forbid_text "numbers are read and written as in the C locale" 'base/number\.[ch]' \
    '\b(strtod|strtof|strtold|atof)\(|[^_]printf\([^"]*"[^"]*%[-+0-9.*]*[aefgAEFG]'
forbid "shared memory is made by zc_shared_file_make()" 'base/shared_file\.c|engine/nccl/nccl_log\.c' none \
    'memfd_create|shm_open'
forbid "the environment is changed by zc_environment_add(): other threads may be in getenv()" none none \
    'setenv|unsetenv|putenv|clearenv'
forbid "threads are started by zc_thread_start()" 'base/thread\.c' none 'pthread_create|thrd_create'

[ $failures -eq 0 ] && echo "no call bypasses the rules"
exit $((failures > 0))
