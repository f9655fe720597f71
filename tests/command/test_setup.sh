#!/usr/bin/env bash
# `zerocta setup` on the host: rounds in one job, and jobs that grow.
zerocta=$1
. "$(dirname "$0")/support.sh"

run "$zerocta" setup -n 3 --bytes 64K --rounds 2 --device host
check "rounds: status 0" is "$status" 0
check "rounds: a row of times" grep -qE '^zerocta +[0-9.]+ ms' "$scratch/out"
check "rounds: what they take is said" says out "3 ranks, device host, two windows of 64K on each (384K in all), 2 rounds"
run "$zerocta" setup -n 2 --rounds 1 --device host
check "rounds: on the host no more than 64M if nothing is asked for" says out "two windows of 64M on each (256M in all)"
run "$zerocta" setup -n 5 --bytes 100T --device host
check "what does not fit: status 1" is "$status" 1
check "what does not fit: one rank says it, the others are counted" \
    is "$(grep -c 'cannot allocate' "$scratch/err") $(grep -c '^zerocta setup: 4 more such lines of other ranks are not shown' "$scratch/err")" "1 1"
if command -v script >/dev/null; then
    script -qefc "$zerocta perf all_gather -n 2 -f 2 --iterations 1000000" "$scratch/terminal" >/dev/null 2>&1 </dev/null &
    terminal=$!
    check "on a terminal a long measurement shows that it goes on" \
        soon grep -qE 'zerocta perf: 2 ranks, [1-9][0-9]* s' "$scratch/terminal"
    kill "$terminal"
    wait "$terminal" 2>/dev/null
fi
run "$zerocta" setup -n 2 --bytes 64K --rounds 1 --device host --nccl
check "beside NCCL it needs GPUs: status 1" is "$status" 1
check "beside NCCL it needs GPUs: the sentence" says err "device cuda"

# column N: that column of every row of the growing jobs, on one line.
column() { awk -v n="$1" '$1 ~ /^[0-9]+$/ { printf "%s%s", sep, $n; sep = " " }' "$scratch/out"; }

run "$zerocta" setup --grow 6
check "growing: status 0" is "$status" 0
check "growing: nothing on standard error" silent err
check "growing: twice as many each time, up to the number" is "$(column 1)" "2 4 6"
check "growing: times, files, threads and memory in every row" awk \
    '$1 ~ /^[0-9]+$/ && !($2 >= 0 && $3 > 0 && $4 > 0 && $5 > 0 && $6 > $1 && $7 >= 1 && $8 > 0) { exit 1 }' \
    "$scratch/out"
run "$zerocta" setup --grow 1
check "growing: one rank is a job, too" is "$status $(column 1)" "0 1"

run bash -c 'ulimit -Sn 40; exec "$0" setup --grow 64' "$zerocta"
check "a limit in the way: said before the first job" \
    is "$(head -n 1 "$scratch/err" | grep -c 'note: 64 ranks need about .* open files')" 1
check "a limit in the way: with what to do" says err "ulimit -n"
check "a limit in the way: the jobs below it run" is "$(column 1 | cut -c 1-5)" "2 4 8"
check "a limit in the way: status 1" is "$status" 1
check "a limit in the way: which number failed" grep -q "the job of .* ranks failed; nothing larger" "$scratch/err"

run bash -c 'ulimit -Sn 40; exec "$0" setup --grow 64 --bytes 1E' "$zerocta"
check "so is memory that there is not" says err "note: 64 ranks need about"
check "with what there is" grep -q 'MiB of memory, and [0-9]* MiB are available of' "$scratch/err"

run "$zerocta" setup --grow 2 --nccl
check "growing beside NCCL: status 2" is "$status" 2
check "growing beside NCCL: one sentence" is "$(lines err)" 1

finish
