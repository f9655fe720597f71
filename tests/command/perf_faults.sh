#!/usr/bin/env bash
# `zerocta perf` must see a call that goes wrong. Gets a build of the command whose calls have the
# faults of faulty_call.c, all of them on rank 1.
#
# 2 ranks, shares of 128 KiB, one timing: calls 1 to 3 are full checks, 4 to 6 calibrate, 7 and what
# directly follows are timed, the last is a full check.
zerocta=$1
. "$(dirname "$0")/support.sh"

faulty() { faulty_call all_gather "$@"; }
faulty_call() {
    local collective=$1 fault=$2 call=$3
    shift 3
    run env ZEROCTA_TEST_FAULT="$fault" ${call:+ZEROCTA_TEST_FAULT_CALL=$call} "$zerocta" \
        perf "$collective" -n 2 -b 256K -e 256K --iterations 1 "$@"
}
wrong_bytes() { awk '$1 == 262144 { print $9 }' "$scratch/out"; }
result() { tail -n 1 "$scratch/out"; }
seen() {
    check "$1: status 1" is "$status" 1
    check "$1: the result says so" grep -q '^result: FAILED, ' <<<"$(result)"
}

faulty none ""
check "without a fault all is well" is "$status $(wrong_bytes)" "0 0"

faulty lose ""
seen "a share that does not arrive"
check "its bytes are counted exactly: 5 checks of the whole, 3 stamps of 8 bytes" \
    is "$(wrong_bytes)" $((5 * 131072 + 24))
check "the result has the sum" is "$(result)" \
    "result: FAILED, $((5 * 131072 + 24)) wrong bytes in 1 size, 2 ranks, host"
faulty lose "" --in-place
seen "in place"
check "in place they are counted as exactly" is "$(wrong_bytes)" $((5 * 131072 + 24))
faulty lose "" --threads
seen "ranks as threads"

faulty flip ""
seen "one bit in one byte"
check "that byte is counted where it was looked at: 5 times whole, once as a stamp" \
    is "$(wrong_bytes)" 6
faulty swap ""
seen "shares in each other's place"

for call in 1 2 3; do
    faulty lose $call
    seen "a fault in check $call only"
    check "which is one share" is "$(wrong_bytes)" 131072
done
faulty flip 6
check "a fault where nobody looks is not invented" is "$status $(wrong_bytes)" "0 0"
run env ZEROCTA_TEST_FAULT=flip ZEROCTA_TEST_FAULT_CALL=9 "$zerocta" \
    perf all_gather -n 2 -b 8M -e 8M --iterations 5
check "one timing of several that goes wrong is seen: status 1" is "$status" 1
check "at its stamp" grep -q '^result: FAILED, 1 wrong bytes' "$scratch/out"

# What every other collective loses, writes behind its output or does to its input is seen as well.
for collective in all_gather_v all_to_all all_to_all_v broadcast gather gather_v scatter scatter_v send_recv; do
    case $collective in
    gather*) options=(--root 1) ;;
    *) options=() ;;
    esac
    share=131072
    case $collective in broadcast | send_recv) share=262144 ;; esac
    faulty_call $collective none "" "${options[@]}"
    check "$collective without a fault" is "$status $(wrong_bytes)" "0 0"
    faulty_call $collective lose 2 "${options[@]}"
    seen "$collective: a share that does not arrive"
    check "$collective: which is one share" is "$(wrong_bytes)" $share
done
for collective in broadcast scatter scatter_v send_recv; do
    faulty_call $collective stray 2
    seen "$collective: a byte behind the output"
    check "$collective: which is one byte" is "$(wrong_bytes)" 1
done
for collective in all_gather all_to_all gather; do
    faulty_call $collective input 2
    seen "$collective: an input that does not stay as it was"
    check "$collective: which is one byte" is "$(wrong_bytes)" 1
done

finish
