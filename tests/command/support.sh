# For the tests of the command: counted checks, and a scratch folder that goes away.
# A script sources this, calls check functions, and ends with `finish`.
set -uo pipefail

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
checks=0
failures=0

# What a launcher above the test set must not make our ranks think they are somebody else's.
unset RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE GROUP_RANK MASTER_ADDR MASTER_PORT
unset ZEROCTA_RANK ZEROCTA_RANK_COUNT ZEROCTA_LOCAL_RANK ZEROCTA_LOCAL_RANK_COUNT
unset ZEROCTA_ROOT ZEROCTA_TOKEN ZEROCTA_LISTEN_FD

# check "the rule" COMMAND...: the command must succeed.
check() {
    local rule=$1
    shift
    checks=$((checks + 1))
    if ! "$@"; then
        failures=$((failures + 1))
        echo "FAILED: $rule"
        echo "  check: $*"
        for stream in out err; do
            [ -s "$scratch/$stream" ] && sed "s/^/  $stream: /" "$scratch/$stream" | head -20
        done
    fi
}

# run COMMAND...: keeps its output in $scratch/out and err, its exit status in $status.
run() {
    status=0
    "$@" >"$scratch/out" 2>"$scratch/err" </dev/null || status=$?
}

is() { [ "$1" = "$2" ]; }
is_not() { [ "$1" != "$2" ]; }
less() { [ "$1" -lt "$2" ]; }
lines() { wc -l <"$scratch/$1"; }
says() { grep -qF -- "$2" "$scratch/$1"; }
silent() { [ ! -s "$scratch/$1" ]; }
no() { ! "$@"; }

# A mark that finds a job's processes again, whoever their parent is by then.
new_mark() {
    mark=zerocta-test-$$-$RANDOM$RANDOM
    export ZEROCTA_TEST_MARK=$mark
}
count_marked() {
    local found
    found=$(env -u ZEROCTA_TEST_MARK grep -lszx -- "ZEROCTA_TEST_MARK=$mark" /proc/[0-9]*/environ)
    grep -c . <<<"$found"
}

# soon COMMAND...: true as soon as the command is, false after ten seconds.
soon() {
    local tries
    for tries in $(seq 200); do
        "$@" && return 0
        sleep 0.05
    done
    return 1
}

finish() {
    echo "$((checks - failures)) of $checks checks passed"
    [ "$failures" -eq 0 ] && [ "$checks" -gt 0 ]
    exit
}
