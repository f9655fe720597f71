#!/usr/bin/env bash
# A command whose output does not arrive says so and fails, whatever is in the way.
zerocta=$1
here=$(cd "$(dirname "$0")" && pwd)
. "$here/support.sh"

# A reader that has gone before anything is written.
into_nobody() {
    mkfifo "$scratch/fifo" 2>/dev/null
    exec 7<>"$scratch/fifo" 8>"$scratch/fifo"
    exec 7<&-
    run_status=0
    "$@" >&8 2>"$scratch/err" </dev/null || run_status=$?
    exec 8>&-
}
into_full() { run_status=0; "$@" >/dev/full 2>"$scratch/err" </dev/null || run_status=$?; }
into_closed() { run_status=0; "$@" 2>"$scratch/err" </dev/null >&- || run_status=$?; }

lost() {
    local way
    for way in nobody full closed; do
        "into_$way" timeout 60 "$zerocta" "$@"
        check "$*, output into $way: status 1" is "$run_status" 1
        check "$*, output into $way: said" grep -qE '^zerocta[ a-z]*: cannot (write to standard output|pass output on)' "$scratch/err"
    done
}
lost --help
lost --version
for command in run perf info explain plan tune overlap setup hostage; do
    lost "$command" --help
done
lost info
lost explain all_gather
lost plan all_gather -n 64
lost plan all_gather -n 2 --bytes 1K --check
lost perf all_gather -n 2 -e 1K --iterations 1
lost perf all_gather -n 2 -e 1K --iterations 1 --threads
lost setup -n 2 --bytes 64K --rounds 1 --device host
lost setup --grow 2
lost run -n 2 -- echo words

# Nothing printed is nothing lost.
for way in nobody full closed; do
    "into_$way" "$zerocta" run -n 2 -- true
    check "nothing to print, output into $way: status 0" is "$run_status" 0
done

# Closed standard files are nobody else's: none of them is a rank's memory or connection.
run bash -c '"$0" run -n 2 --no-prefix -- sh -c "readlink /proc/\$\$/fd/0 >&2" <&-' "$zerocta"
check "a closed standard input is an empty one" is "$(sort -u "$scratch/err")" /dev/null
run bash -c '"$0" perf all_gather -n 2 -e 1K --threads --iterations 1 2>&-' "$zerocta"
check "a closed standard error costs nothing" is "$status" 0

# ---- Results that programs read ----

if "$zerocta" info | grep -q '^  jansson  *no:'; then
    finish
fi
json() { cmake -DFILE="$scratch/out" "-DKEYS=$1" -P "$here/json_get.cmake" 2>&1; }
small=(perf all_gather -n 2 -b 1K -e 4K --iterations 1)
mkdir "$scratch/folder"
cd "$scratch/folder" || exit 1
for way in "" --threads; do
    # shellcheck disable=SC2086
    run "$zerocta" "${small[@]}" $way --json -
    check "--json - $way: status 0" is "$status" 0
    check "--json - $way: standard output is JSON alone" is "$(head -c 1 "$scratch/out")$(tail -n 1 "$scratch/out")" "{}"
    check "--json - $way: which can be read" is "$(json result) $(json 'rows;1;bytes')" "OK 4096"
    check "--json - $way: the table is on standard error" says err "result: OK"
done
run "$zerocta" run -n 2 --no-prefix -- "$zerocta" perf all_gather -b 1K -e 4K --iterations 1 --json -
check "under a launcher, too" is "$(json result)" OK
run bash -c '"$0" "$@" --json - 2>&-' "$zerocta" "${small[@]}"
check "without a standard error, too" is "$status $(json result)" "0 OK"
check "there is no file -" is "$(ls -A)" ""
for way in nobody full closed; do
    "into_$way" "$zerocta" "${small[@]}" --json -
    check "--json - into $way: status 1" is "$run_status" 1
    check "--json - into $way: said" grep -qE 'cannot (write standard output|pass output on)' "$scratch/err"
done
run "$zerocta" "${small[@]}" --json /dev/full
check "--json onto a full disk: status 1" is "$status" 1
check "--json onto a full disk: said" says err "cannot write /dev/full: No space left"

finish
