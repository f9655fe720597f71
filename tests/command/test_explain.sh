#!/usr/bin/env bash
# `zerocta explain`: one path is chosen, every other has its reason.
zerocta=$1
. "$(dirname "$0")/support.sh"

explain() { run "$zerocta" explain all_gather "$@"; }
choice() { sed -n 's/^choice: //p' "$scratch/out"; }
result_of() { awk -v path="$1" '$1 == path { print $2 == "chosen" ? $2 : $2 " " $3 }' "$scratch/out"; }

explain -n 8 --bytes 64M
check "a large call: status 0" is "$status" 0
check "takes direct-push" is "$(choice)" ce/direct-push
check "which the list shows as chosen" is "$(result_of ce/direct-push)" chosen
check "the scratch window cannot hold it" is "$(result_of ce/scratch-pull)" "cannot run"
check "and the reason is given" says out "do not fit into the scratch"
check "NCCL has its reason too" is "$(result_of nccl/kernels)" "cannot run"
check "the call is repeated in words" says out "8 ranks x 8388608 bytes (64M in all), out of place"

explain -n 8 --bytes 1K --in-place
check "a small call takes scratch-pull" is "$(choice)" ce/scratch-pull
check "direct-push could run, but is not chosen" is "$(result_of ce/direct-push)" "not chosen"
check "in place" says out "in place"

explain -n 8 --bytes 1M --policy zero
check "policy zero has a path on the host" is "$status" 0
check "the policy is shown" says out "policy zero"

explain -n 3 --bytes 1000
check "what does not divide is rounded up" says out "3 ranks x 334 bytes"
check "with a note" says err "rounded up, 1000 to 1002"

run "$zerocta" explain broadcast -n 4 --root 3 --bytes 1M
check "another collective: what the call is" says out "broadcast: 4 ranks x 1048576 bytes (1M in all), out of place"
check "another collective: status 0" is "$status" 0
run "$zerocta" explain all_to_all_v -n 4 --counts one-hot --bytes 1M
check "uneven shares: the largest" says out "4 ranks x at most 262144 bytes (1M in all)"
run "$zerocta" explain barrier
check "a barrier has flags" is "$(choice)" ce/flags
for collective in $("$zerocta" explain 2>&1 | sed 's/.*missing: *//; s/;.*//'); do
    run "$zerocta" explain "$collective" --bytes 64M
    check "$collective: a path is chosen" grep -q '^choice: ce/' "$scratch/out"
done

explain --engine nccl
check "no path can run: status 1" is "$status" 1
check "and the choice is none" says out "choice: none"
explain --device cuda
check "a device that is not there: status 1" is "$status" 1
check "one sentence says so" is "$(lines err)" 1
if ! ldconfig -p 2>/dev/null | grep -q 'libcuda\.so\.1 '; then
    check "and what is missing, and what to do" grep -q "no CUDA driver here.*--device host" "$scratch/err"
fi

wrong() {
    run "$zerocta" explain "$@"
    check "explain $*: status 2" is "$status" 2
    check "explain $*: one sentence" is "$(lines err)" 1
    check "explain $*: nothing is printed" silent out
}
wrong
wrong reduce
wrong all_gather -n 0
wrong all_to_all --in-place
wrong gather --root 8
wrong gather --counts even
wrong all_gather --bytes 0
wrong all_gather --bytes many
wrong all_gather --policy none
wrong all_gather --device disk

finish
