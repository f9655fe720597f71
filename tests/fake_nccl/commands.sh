#!/usr/bin/env bash
# The commands with NCCL, on the fake NCCL and driver: what they do, not how fast.
zerocta=$1
. "$(dirname "$0")/../command/support.sh"
export ZEROCTA_TIMEOUT=20

perf() {
    run "$@" "$zerocta" perf all_gather -n 2 -b 1K -e 64K -f 64 --device cuda --threads \
        --iterations 3 --engine nccl "${given[@]}"
}
gathers() { # "the rule" PATH SMS
    check "$1: status 0" is "$status" 0
    check "$1: every byte right" says out "result: OK, 0 wrong bytes"
    check "$1: by $2" grep -qE "$2 +$3\$" "$scratch/out"
}

given=(--in-place --policy zero)
perf
gathers "ZERO in place" nccl/copy-engine 0
perf env NCCL_DEBUG=WARN
gathers "ZERO in place, the log is the user's" nccl/unproved '\?'
perf env FAKE_NCCL_VERSION=22707
check "ZERO without copy engines: status 1" is "$status" 1
check "ZERO without copy engines: why" says err "NCCL 2.27.7 has no copy engines"
perf env FAKE_CUDA_VERSION=12040
check "ZERO on an old driver: why" says err "NCCL's copy engines need 12.5"
perf env NCCL_CTA_POLICY=0
check "ZERO overridden: why" says err "NCCL_CTA_POLICY=0 in the environment"
given=(--policy zero)
perf
check "ZERO out of place: why" says err "the copy of the own share"
given=(--policy efficiency)
perf
gathers "EFFICIENCY out of place" nccl/copy-engine yes
check "EFFICIENCY out of place: reported" says err "[Fallback]"
given=(--in-place)
perf
gathers "DEFAULT" nccl/kernels yes

# shellcheck disable=SC2016
run "$zerocta" run -n 2 -- bash -c 'export ZEROCTA_NODE=$((RANK + 1)) FAKE_NCCL_VERSION=$((22803 + RANK))
    exec "$0" perf all_gather -b 1K -e 1K --device cuda --iterations 1' "$zerocta"
check "ranks with different NCCLs: status 1" is "$status" 1
check "ranks with different NCCLs: who" says err "rank 0 has NCCL 2.28.3, rank 1 has 2.28.4"

# Asked for in a call only, NCCL is compared before the first one.
# shellcheck disable=SC2016
run "$zerocta" run -n 2 -- bash -c '[ "$RANK" = 0 ] || export NCCL_P2P_DISABLE=1
    exec "$0" perf all_gather -b 1K -e 1K --device cuda --iterations 1 --in-place --engine nccl \
        --policy efficiency' "$zerocta"
check "ranks with different variables: status 1" is "$status" 1
check "ranks with different variables: who" says err "ranks 0 and 1 have different NCCL_"

run "$zerocta" explain all_gather -n 2 --engine nccl --in-place --policy zero
check "explain knows this machine's NCCL" grep -q '^choice: nccl/' "$scratch/out"
run env FAKE_NCCL_VERSION=22707 "$zerocta" explain all_gather -n 2 --engine nccl --in-place --policy zero
check "explain: what it lacks" is "$status $(tr -s ' \n' ' ' <"$scratch/out" | grep -c 'NCCL 2.27.7 has no copy engines')" "1 1"

run "$zerocta" info
check "info: the version" says out "2.28.3: engine nccl; it lacks copy engines on the NULL stream"
run env FAKE_NCCL_VERSION=22000 "$zerocta" info
check "info: an old version" says out "it lacks symmetric windows (2.27)"
run env FAKE_NCCL_VERSION=21800 "$zerocta" info
check "info: too old" says out "2.19 is the oldest"
run env NCCL_CTA_POLICY=2 NCCL_P2P_DISABLE=1 "$zerocta" info
check "info: an override" says out "NCCL_CTA_POLICY=2 in the environment overrides"
check "info: a switch" says out "NCCL_P2P_DISABLE=1 in the environment"

# Measured, kept, found again, and believed as long as nothing has changed.
export XDG_CACHE_HOME=$scratch/cache
kept=$XDG_CACHE_HOME/zerocta/tune-a-fake-GPU.txt
run "$zerocta" tune all_gather -n 2 --threads -b 1K -e 4K --iterations 2
check "tune: status 0" is "$status" 0
check "tune: says where" says out "kept in $kept"
check "tune: shows how far it is" says err "  8 of 8  all_gather, DEFAULT, out of place"
check "tune: a row for each case" is "$(grep -c '^all_gather 2 ' "$kept")" 8
run "$zerocta" tune all_gather -n 2 --threads -b 1K -e 1K --iterations 2
check "tune: measured anew" is "$(grep -c '^all_gather 2 ' "$kept")" 4

check "tune: by which zerocta" grep -q '^zerocta [0-9]' "$kept"
own=$(grep '^zerocta [0-9]' "$kept")
run env FAKE_NCCL_NO_COPY_ENGINES=1 "$zerocta" tune all_gather -n 2 --threads -b 1K -e 1K --iterations 2
check "tune where NCCL falls back: status 0" is "$status" 0
check "tune where NCCL falls back: only where SMs are allowed" \
    is "$(grep '^all_gather 2 ' "$kept" | cut -d' ' -f3 | sort -u | tr '\n' ' ')" "1 "
run env FAKE_NCCL_VERSION=22707 "$zerocta" tune all_gather -n 2 --threads -b 1K -e 1K --iterations 2
check "tune where NCCL has no copy engines: status 0" is "$status" 0
check "tune where NCCL has no copy engines: only where SMs are allowed" \
    is "$(grep '^all_gather 2 ' "$kept" | cut -d' ' -f3 | sort -u | tr '\n' ' ')" "1 "

# row CE_US NCCL_US NCCL [ZEROCTA]: what the file says of one case.
row() {
    printf 'zerocta tune 2\ngpu a fake GPU\ndriver 13000\nnccl %s\n%s\nall_gather 2 1 1 512 %s %s\n' \
        "$3" "${4-$own}" "$1" "$2" >"$kept"
}
given=(--engine auto --in-place -e 1K)
row 9.5 3.5 22803
perf
gathers "tuned for NCCL" nccl/kernels yes
row 3.5 9.5 22803
perf
gathers "tuned for ours" ce/direct-push 0
row 9.5 3.5 22700
perf
gathers "tuned with another NCCL" ce/direct-push 0
row 9.5 3.5 22803 "zerocta 1"
perf
gathers "tuned with another zerocta" ce/direct-push 0
row 9.5 3.5 22803 "# an older file does not say"
perf
gathers "tuned with an older zerocta" ce/direct-push 0
echo "nonsense" >"$kept"
perf
gathers "a file that is none" ce/direct-push 0
check "a file that is none: said" says err "line 1 is not of the form"
given=(--engine auto --in-place -e 1K --policy zero)
row 9.5 3.5 22803
perf
gathers "tuned, but for another policy" ce/direct-push 0
run "$zerocta" tune all_gather -n 2 --threads -b 1K -e 1K --iterations 2 -o "$scratch/none/at/all.txt"
check "tune: makes the folders" is "$status" 0
run "$zerocta" tune all_gather -n 2 --threads -b 1K -e 1K --iterations 2 -o /proc/none
check "tune: cannot write: status 1" is "$status" 1
check "tune: cannot write: why" says err "cannot write"
cd "$scratch" || exit 1
run "$zerocta" tune all_gather -n 2 --threads -b 1K -e 1K --iterations 2 -o -
check "tune to standard output: the figures alone" is "$(head -n 1 "$scratch/out") $(grep -c '^all_gather 2 ' "$scratch/out")" \
    "$(head -n 1 "$kept") 4"
check "tune to standard output: the summary is on standard error" says err "ce is faster in"
check "tune to standard output: no file -" no test -e -
run bash -c '"$0" tune all_gather -n 2 --threads -b 1K -e 1K --iterations 2 -o - >/dev/full' "$zerocta"
check "tune, output that is lost: status 1" is "$status" 1
check "tune, output that is lost: said" says err "cannot write standard output: No space left"
run env ZEROCTA_NCCL_LIBRARY=none "$zerocta" tune all_gather -n 2 --threads -b 1K -e 1K --iterations 2
check "tune without NCCL: status 1" is "$status" 1
check "tune without NCCL: why" says err "nothing to choose"

# Other collectives: what is kept of each, and what stays.
run "$zerocta" tune all_gather -n 2 --threads -b 1K -e 1K --iterations 2
run "$zerocta" tune broadcast all_to_all -n 2 --threads -b 1K -e 1K --iterations 2
check "tune of others: status 0" is "$status" 0
check "tune of others: what was measured" is "$(grep -cE '^(broadcast|all_to_all) 2 1 0 ' "$kept")" 2
check "tune of others: what was measured before stays" is "$(grep -c '^all_gather 2 ' "$kept")" 4
run "$zerocta" tune -n 2 --threads -b 1K -e 1K --iterations 2
check "tune of all: status 0" is "$status" 0
check "tune of all: each that there is a choice for" is \
    "$(grep -oE '^[a-z_]+ 2 1 0 ' "$kept" | cut -d' ' -f1 | sort | tr '\n' ' ')" \
    "all_gather all_gather_v all_to_all all_to_all_v broadcast gather gather_v scatter scatter_v "

# NCCL beside ours, by its own call or by sends and receives.
for collective in all_gather_v all_to_all all_to_all_v broadcast gather gather_v scatter scatter_v send_recv; do
    run "$zerocta" perf $collective -n 2 -b 1 -e 64K -f 256 --device cuda --threads --iterations 2 --peer nccl
    check "$collective beside NCCL: status 0" is "$status" 0
    check "$collective beside NCCL: every byte right" says out "result: OK, 0 wrong bytes"
    check "$collective beside NCCL: all ways" is "$(grep -cE ' nccl(-windows|-zero)? ' "$scratch/out")" 9
    run "$zerocta" perf $collective -n 2 -b 1 -e 64K -f 256 --device cuda --threads --iterations 2 --engine nccl
    check "$collective by NCCL: every byte right" says out "result: OK, 0 wrong bytes"
    check "$collective by NCCL: the path" says out nccl/kernels
done

# The same variants as on GPUs, in the same turns.
run "$zerocta" overlap all_gather -n 2 --threads -b 4K -e 4K --gemm 128
check "overlap: status 0" is "$status" 0
check "overlap: every byte right" says out "result: OK, 0 wrong bytes"
check "overlap: all variants" is "$(grep -cE '^ +4096  (zerocta|nccl)' "$scratch/out")" 4

finish
