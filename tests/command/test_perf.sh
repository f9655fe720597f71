#!/usr/bin/env bash
# `zerocta perf`: sizes, ranks as processes and as threads, the table, JSON, mistakes.
zerocta=$1
here=$(cd "$(dirname "$0")" && pwd)
. "$here/support.sh"

perf() { run "$zerocta" perf all_gather "$@"; }
# column N: that column of every row of the table, on one line.
column() { awk -v n="$1" '$1 ~ /^[0-9]+$/ { printf "%s%s", sep, $n; sep = " " }' "$scratch/out"; }
result() { tail -n 1 "$scratch/out"; }
widest() { awk '{ if (length($0) > most) most = length($0) } END { print most }' "$scratch/out"; }

# ---- A run ----

perf -n 4 -b 1K -e 64K -f 8
check "ranks as processes: status 0" is "$status" 0
check "nothing on standard error" silent err
check "sizes go from -b by -f, none above -e" is "$(column 1)" "1024 8192 65536"
check "the second column is one rank's share" is "$(column 2)" "256 2048 16384"
check "out of place unless it is asked for" is "$(column 3)" "out out out"
check "no byte is wrong" is "$(column 9)" "0 0 0"
check "no SM on the host" is "$(column 11)" "0 0 0"
check "the path is named" is "$(column 10 | tr ' ' '\n' | grep -c '^ce/')" 3
check "times are positive, p99 not below the median, submit not above the time" awk \
    '$1 ~ /^[0-9]+$/ && !($4 > 0 && $5 >= $4 && $6 <= $4) { exit 1 }' "$scratch/out"
check "algbw is bytes by time, busbw 3/4 of it" awk '
    function off(a, b) { return a > b ? a - b : b - a }
    $1 == 65536 && (off($7, $1 / $4 / 1000) > 0.02 * $7 + 0.001 || off($8, $7 * 0.75) > 0.002) { exit 1 }
    ' "$scratch/out"
check "the last line is the result" is "$(result)" \
    "result: OK, 0 wrong bytes in 3 sizes, 4 ranks, host"
check "the table fits 120 columns" less "$(widest)" 121

perf -n 3 --threads -b 1K -e 64K -f 64 --in-place
check "ranks as threads: status 0" is "$status" 0
check "in place" is "$(column 3)" "in in"
check "no byte is wrong" is "$(result)" "result: OK, 0 wrong bytes in 2 sizes, 3 ranks, host"

# ---- Every collective ----

collectives=$("$zerocta" perf 2>&1 | sed 's/.*missing: *//; s/;.*//')
check "an error lists them" is "$(wc -w <<<"$collectives")" 11
for collective in $collectives; do
    run "$zerocta" perf "$collective" -n 3 -b 1 -e 300K -f 300 --iterations 2
    check "$collective: status 0" is "$status" 0
    check "$collective: no byte is wrong" grep -q '^result: OK' <<<"$(result)"
    check "$collective: what ran is named" grep -qE '^ce/' <<<"$(column 10)"
    check "$collective: the title says which" grep -q "^zerocta perf $collective: 3 ranks" "$scratch/out"
done
for collective in all_gather_v all_to_all_v gather_v scatter_v; do
    for counts in even skewed one-hot random:1 random:2; do
        run "$zerocta" perf $collective -n 3 -b 1 -e 300K -f 300 --iterations 2 --counts $counts --threads
        check "$collective, $counts: status 0" is "$status" 0
        check "$collective, $counts: the title says so" grep -q "counts $counts" "$scratch/out"
    done
done
for collective in all_gather_v broadcast gather gather_v scatter scatter_v; do
    root=(--root 2)
    [ $collective != all_gather_v ] || root=()
    run "$zerocta" perf $collective -n 3 -b 1 -e 300K -f 300 --iterations 2 --in-place "${root[@]}"
    check "$collective in place: status 0" is "$status" 0
    check "$collective in place: the table says so" is "$(column 3 | tr ' ' '\n' | sort -u)" in
done
# busbw TIMES_ALGBW COLLECTIVE...: what the flows of 4 ranks make it.
busbw() {
    local times=$1
    shift
    run "$zerocta" perf "$@" -n 4 -b 1M -e 1M --iterations 3
    check "$1: busbw is $times times algbw" awk -v t="$times" \
        '$1 == 1048576 { d = $7 * t - $8; exit !(d < 0.02 * $8 && d > -0.02 * $8) }' "$scratch/out"
}
busbw 1 broadcast # what goes to all alike has to go out once
busbw 0.75 gather
busbw 0.75 scatter
busbw 0.75 all_to_all
busbw 1 send_recv
busbw 0.9 all_gather_v --counts skewed # rank 0, whose share is a tenth, gets all the others'
run "$zerocta" perf barrier -n 2 --iterations 3
check "a barrier moves nothing" is "$(column 1) $(column 8)" "0 0.000"

# ---- Launchers ----

port=$((20000 + $$ % 10000))
torch() { env RANK="$1" WORLD_SIZE=2 LOCAL_RANK="$1" MASTER_ADDR=127.0.0.1 MASTER_PORT=$port \
    "$zerocta" perf all_gather -b 1K -e 4K; }
torch 1 >"$scratch/rank1" 2>&1 &
run torch 0
wait $! && check "torchrun's variables: rank 1's status 0" true
check "torchrun's variables: status 0" is "$status" 0
check "torchrun's variables: the ranks found each other" is "$(result)" \
    "result: OK, 0 wrong bytes in 2 sizes, 2 ranks, host"
perf -n 1 -e 4K
check "one rank: a local copy" is "$(result)" "result: OK, 0 wrong bytes in 2 sizes, 1 rank, host"
check "which moves nothing between ranks" is "$(column 8)" "0.000 0.000"

perf -n 2 -b 64K -e 64K --iterations 3 --policy zero --engine ce --device host
check "policy, engine, device and iterations are taken" is "$status" 0
check "the table says which policy and engine" says out "policy zero, engine ce"

# ---- Sizes ----

perf -n 3 -b 1 -e 40 -f 2 --iterations 2
check "what does not divide is rounded up, and no size comes twice" is "$(column 1)" "3 6 9 18 33"
check "with one note" is "$(lines err)" 1
check "which says from what to what" says err "1 to 3"
check "shares of any size arrive" is "$status" 0
perf -n 2 -b 100M --iterations 1
check "-b above the default of -e: one size" is "$(column 1)" 104857600
perf -n 2 -e 512 --iterations 1
check "-e below the default of -b: one size" is "$(column 1)" 512

# ---- JSON ----

json() { cmake -DFILE="$scratch/results.json" "-DKEYS=$1" -P "$here/json_get.cmake" 2>&1; }
perf -n 2 -b 1K -e 16K -f 4 --json "$scratch/results.json"
if "$zerocta" info | grep -q '^  jansson  *no:'; then
    check "--json without the library: refused" is "$status" 2
    check "with one sentence" is "$(lines err)" 1
else
    check "--json: status 0" is "$status" 0
    check "the table is there all the same" is "$(column 1)" "1024 4096 16384"
    check "JSON has the table's rows" is "$(json 'rows;0;bytes') $(json 'rows;1;bytes') $(json 'rows;2;bytes')" \
        "1024 4096 16384"
    for key in bytes_per_rank in_place time_us p99_us submit_us algbw_GBps busbw_GBps wrong_bytes \
        path sms timings calls_per_timing; do
        check "a row has $key" no is "$(json "rows;0;$key" | grep -c 'CMake Error')" 1
    done
    check "the path is the table's" is "$(json 'rows;2;path')" "$(column 10 | cut -d' ' -f3)"
    check "JSON has the result" is "$(json result) $(json wrong_bytes)" "OK 0"
    check "JSON has the ranks" is "$(json ranks) $(json ranks_are)" "2 processes"
    for key in cpu kernel usable_cpus cores memory_bytes; do
        check "the machine has $key" no is "$(json "machine;$key" | grep -c 'CMake Error')" 1
    done
    check "JSON has the collective" is "$(json collective)" all_gather
    check "JSON has the command" is "$(json 'command;0') $(json 'command;1')" "zerocta perf"
    check "JSON has the library's version" is "zerocta $(json version)" "$("$zerocta" --version)"
    perf -n 2 -e 1K --json "$scratch/no/such/folder"
    check "a file that cannot be written: status 1" is "$status" 1
    check "said before anything is measured" silent out
    check "with one sentence" is "$(lines err)" 1
fi

# ---- Launchers ----

run "$zerocta" run -n 3 --no-prefix -- "$zerocta" perf all_gather -b 3K -e 3K
check "under a launcher: its ranks" is "$(result)" \
    "result: OK, 0 wrong bytes in 1 size, 3 ranks, host"
run "$zerocta" run -n 3 -- "$zerocta" perf all_gather -n 3 -b 3K -e 3K
check "-n that agrees with the launcher's" is "$status" 0
run "$zerocta" run -n 3 -- "$zerocta" perf all_gather -n 4 -b 3K -e 3K
check "-n that does not: status 2" is "$status" 2
check "which names both" says err "-n is 4, but the launcher has started 3 ranks"
run env RANK=0 WORLD_SIZE=2 "$zerocta" perf all_gather --threads
check "threads under a launcher: status 2" is "$status" 2
run env WORLD_SIZE=2 "$zerocta" perf all_gather -e 1K
check "half of a launcher's environment: status 1" is "$status" 1
check "which names the missing variable" says err "RANK"

# MPI beside ours is in test_perf_mpi.sh, where it is built.
mkdir "$scratch/alone"
cp "$zerocta" "$scratch/alone/zerocta"
run "$scratch/alone/zerocta" perf all_gather -n 2 -e 1K --peer mpi
check "no MPI is there: status 1" is "$status" 1
check "no MPI is there: one sentence" is "$(lines err)" 1
check "no MPI is there: what builds it" says err "-DZEROCTA_BENCH=ON"

# ---- What cannot run ----

perf -n 2 -e 1K --engine nccl
check "an engine that is not there: status 1" is "$status" 1
check "its reason is given" says err "nccl/kernels cannot run: NCCL moves GPU memory"
perf -n 2 -e 1K --device cuda
check "a device that is not there: status 1" is "$status" 1
check "said once, not once a rank" is "$(lines err)" 1

# ---- Mistakes ----

wrong() {
    local rule=$1 word=$2
    shift 2
    run "$zerocta" perf "$@"
    check "$rule: status 2" is "$status" 2
    check "$rule: one sentence" is "$(lines err)" 1
    check "$rule: which names $word" says err "$word"
    check "$rule: nothing is printed" silent out
}
wrong "no collective" "collective"
wrong "an unknown collective" "no_such" no_such
wrong "no collective: which there are" " all_to_all_v "
wrong "an unknown collective: which there are" " all_to_all_v " no_such
wrong "two collectives" "unexpected" all_gather all_gather
wrong "in place, what is overwritten before it is sent" "would overwrite what is still to be sent" all_to_all --in-place
wrong "in place, where no rank keeps anything" "sends itself" send_recv --in-place
wrong "a root where there is none" "has no root" all_gather --root 1
wrong "a root that is no rank" "not among 4 ranks" broadcast -n 4 --root 4
wrong "shares where all are equal" "of one size" all_gather --counts skewed
wrong "shares of an unknown kind" "random:SEED" all_gather_v --counts some
wrong "random shares without a seed" "random:SEED" all_gather_v --counts random
wrong "zero ranks" "--ranks" all_gather -n 0
wrong "a size that is none" "1X" all_gather -b 1X
wrong "a size of zero" "--min" all_gather -b 0
wrong "a size beyond what can be counted" "--max" all_gather -e 8E
wrong "min above max" "larger" all_gather -b 2K -e 1K
wrong "a factor that does not grow" "--factor" all_gather -f 1
wrong "zero iterations" "--iterations" all_gather --iterations 0
wrong "an unknown policy" "efficiency" all_gather --policy fast
wrong "an unknown engine" "nccl" all_gather --engine mpi
wrong "an unknown device" "host" all_gather --device tpu
wrong "more than MPI counts" "1G at most" all_gather -e 2G --peer mpi
wrong "an empty file name" "--json" all_gather --json=

finish
