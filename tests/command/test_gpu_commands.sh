#!/usr/bin/env bash
# What measures GPUs says so clearly where there is none.
zerocta=$1
. "$(dirname "$0")/support.sh"

run "$zerocta" perf all_gather -n 2 -e 1K --device host --graph
check "graphs need GPUs: status 1" is "$status" 1
check "graphs need GPUs: the sentence" says err "device cuda"
run "$zerocta" perf all_gather -n 2 -e 1K --device host --peer push
check "bare pushes need GPUs: status 1" is "$status" 1
check "bare pushes need GPUs: the sentence" says err "device cuda"

if ! ldconfig -p 2>/dev/null | grep -q 'libcuda\.so\.1 '; then
    for command in "overlap all_gather -n 2" "hostage all" "hostage broadcast gather" tune "tune all_to_all" "perf all_gather --device cuda" "setup --device cuda" \
        "setup --grow 4 --device cuda" "explain all_gather --device cuda"; do
        # shellcheck disable=SC2086
        run "$zerocta" $command
        check "$command without a driver: status 1" is "$status" 1
        check "$command without a driver: the sentence" says err "no CUDA driver here"
        check "$command without a driver: said once" is "$(lines err)" 1
        check "$command without a driver: the host is advised if that is possible" \
            is "$(grep -c 'device host' "$scratch/err")" "$(grep -c -- --device <<<"$command")"
    done
fi
for command in "overlap" "hostage"; do
    run "$zerocta" $command
    check "$command without a collective: status 2" is "$status" 2
    check "$command without a collective: which there are" says err " all_to_all_v "
done
run "$zerocta" tune barrier
check "tune, nothing to choose: status 2" is "$status" 2
check "tune, nothing to choose: said" says err "measurements decide nothing for barrier"
run "$zerocta" overlap barrier
check "overlap, nothing that moves: status 2" is "$status" 2
run "$zerocta" overlap all_gather -b 2M -e 1M
check "overlap, sizes the wrong way round: status 2" is "$status" 2

finish
