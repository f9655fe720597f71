#!/usr/bin/env bash
# `zerocta plan`: what is printed, the check, the simulation.
zerocta=$1
. "$(dirname "$0")/support.sh"

run timeout 200 "$zerocta" plan all_gather -n 2 --bytes 1E --check
check "the largest size ends, too" is "$status" 0

plan() { run "$zerocta" plan all_gather "$@"; }
headers() { grep -c '^plan ' "$scratch/out"; }
# value NAME: a number of the simulation's.
value() { awk -v name="$1" '$1 == name { print $2 }' "$scratch/out"; }
between() { awk -v v="$1" -v low="$2" -v high="$3" 'BEGIN { exit !(v >= low && v <= high) }'; }

# ---- Printing ----

plan -n 3 --bytes 6 --rank 1 --algorithm direct-push
check "a rank's plan, step by step" is "$(sed 1d "$scratch/out")" "0 signal 2 ready
0 signal 0 ready
0 wait 2 ready
0 copy 1:send+0 2:recv+2 2
0 signal 2 done
0 wait 0 ready
0 copy 1:send+0 0:recv+2 2
0 signal 0 done
0 copy 1:send+0 1:recv+2 2
0 wait 0 done
0 wait 2 done"
plan -n 3 --bytes 6 --rank 1 --algorithm direct-push --in-place
check "in place there is no own copy" is "$(grep -c 'copy 1:recv+2 1:' "$scratch/out")" 0
check "and the share is read from the output" says out "copy 1:recv+2 2:recv+2 2"
plan -n 5 --bytes 1M
check "without --rank every rank's plan" is "$(headers)" 5
plan -n 2 --bytes 64M --rank 0
check "a large call's algorithm is the selector's" says out "plan all_gather direct-push"
plan -n 2 --bytes 1K --rank 0
check "a small call's too" says out "plan all_gather scratch-pull"
plan -n 7 --bytes 100 --rank 6
check "what does not divide is rounded up" says out "bytes 15"
check "with a note" says err "rounded up, 100 to 105"
for what in --simulate --check "--rank 1"; do
    # shellcheck disable=SC2086 # two words
    run "$zerocta" plan barrier -n 4 $what
    check "plan barrier $what: status 0" is "$status" 0
    check "plan barrier $what: no size is rounded where nothing moves" silent err
done

# ---- Checking ----

for ranks in 1 2 3 8 17; do
    for bytes in 0 1 1000 1M; do
        plan -n $ranks --bytes $bytes --check
        check "$ranks ranks, $bytes bytes: the plans are correct" grep -q '^check: OK' "$scratch/out"
        plan -n $ranks --bytes $bytes --check --in-place
        check "$ranks ranks, $bytes bytes in place: too" grep -q '^check: OK' "$scratch/out"
    done
done
plan -n 3 --bytes 1K --check --calls 7
check "as many calls in a row as are asked for" says out "of 3 ranks in 7 calls in a row"
plan -n 384 --bytes 384K --check
check "hundreds of ranks are checked" says out "check: OK"
check "with nothing about it where nobody looks on" silent err
plan -n 8192 --bytes 128G --algorithm direct-push --check
check "what no machine has room for: status 1" is "$status" 1
check "it is said beforehand, with what it takes and what there is" \
    grep -q 'of 8192 ranks takes about [0-9.]* GiB of memory, and [0-9.]* GiB are left' "$scratch/err"
check "and nothing is claimed" silent out
plan -n 8192 --bytes 128G --algorithm direct-push --check --simulate
check "so it is with both" is "$status" 1
plan -n 2 --bytes 1K --check
check "a check prints no plan" is "$(headers)" 0
plan -n 2 --bytes 1K --check --algorithm scratch-pull --print
check "unless it is asked for" is "$(headers)" 2
check "which comes first" is "$(tail -n 1 "$scratch/out" | cut -c 1-9)" "check: OK"

for collective in $("$zerocta" explain 2>&1 | sed 's/.*missing: *//; s/;.*//'); do
    for bytes in 1 1000 1M; do
        run "$zerocta" plan "$collective" -n 5 --bytes $bytes --check
        check "$collective, $bytes bytes: the plans are correct" grep -q '^check: OK' "$scratch/out"
    done
done
for counts in skewed one-hot random:3; do
    for collective in all_gather_v all_to_all_v gather_v scatter_v; do
        run "$zerocta" plan $collective -n 5 --bytes 100K --counts $counts --check
        check "$collective, $counts: the plans are correct" grep -q '^check: OK' "$scratch/out"
    done
done

# ---- Simulating ----

plan -n 72 --bytes 1G --simulate
check "72 GPUs: status 0" is "$status" 0
check "one GPU's output cannot come faster than its links" between "$(value algbw)" 100 500
check "busbw is algbw * 71/72" awk -v a="$(value algbw)" -v b="$(value busbw)" \
    'BEGIN { d = a * 71 / 72 - b; exit !(d < 0.2 && d > -0.2) }'
time_1g=$(value time)
plan -n 72 --bytes 256M --simulate
check "a quarter of the bytes takes less time" between "$(value time)" 1 "$time_1g"
plan -n 2 --bytes 1G --simulate --in-place
check "two H200 reach what was measured: 385 to 395 GB/s a direction" between "$(value busbw)" 350 400
plan -n 8 --bytes 1M --simulate --check
check "both at once" is "$status $(grep -c -e '^check: OK' -e '^simulated' "$scratch/out")" "0 2"

# ---- Over several nodes ----

plan -n 12 --node-ranks 4 --bytes 48K --check
check "3 nodes of 4: proved" says out "check: OK"
plan -n 64 --node-ranks 8 --bytes 512M --in-place --chunks 1 --simulate
whole=$(value time)
plan -n 64 --node-ranks 8 --bytes 512M --in-place --chunks 8 --simulate
check "in chunks both levels run at once" between "$(value time)" 1 "$(awk -v t="$whole" 'BEGIN { print t * 0.8 }')"
plan -n 1024 --node-ranks 8 --bytes 1G --in-place --chunks 4 --simulate
check "128 nodes of 8: status 0" is "$status" 0
check "128 nodes of 8: no faster than the network cards" between "$(value algbw)" 100 384

# ---- Mistakes ----

wrong() {
    local word=$1
    shift
    run "$zerocta" plan "$@"
    check "plan $*: status 2" is "$status" 2
    check "plan $*: one sentence" is "$(lines err)" 1
    check "plan $*: which names $word" says err "$word"
    check "plan $*: nothing is printed" silent out
}
wrong collective
wrong reduce reduce
wrong --root broadcast -n 4 --root 4
wrong --counts gather --counts skewed
wrong all_to_all all_to_all --in-place
wrong --rank all_gather -n 4 --rank 4
wrong --ranks all_gather -n 0
wrong --bytes all_gather --bytes 1.5M
wrong --algorithm all_gather --algorithm ring
wrong --node-ranks all_gather -n 6 --bytes 6K --node-ranks 4
wrong direct-push all_gather -n 6 --bytes 6K --node-ranks 3 --algorithm direct-push
wrong flags all_gather --algorithm flags
wrong scratch all_gather --bytes 1G --algorithm scratch-pull

finish
