#!/usr/bin/env bash
# The commands with NCCL, on the made-up NCCL and driver: what they do, not how fast.
zerocta=$1
. "$(dirname "$0")/../command/support.sh"
export ZEROCTA_TIMEOUT=20

perf() {
    run "$@" "$zerocta" perf all_gather -n 2 -b 1K -e 64K -f 64 --device cuda --threads \
        --iterations 3 --engine nccl "${given[@]}"
}
gathers() { # "the rule" PATH SMS
    check "$1: status 0" is "$status" 0
    check "$1: every byte right" says out "verdict: OK, 0 wrong bytes"
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

run "$zerocta" info
check "info: the version" says out "2.28.3: engine nccl; it lacks copy engines on the NULL stream"
run env FAKE_NCCL_VERSION=22000 "$zerocta" info
check "info: an old version" says out "it lacks symmetric windows (2.27)"
run env FAKE_NCCL_VERSION=21800 "$zerocta" info
check "info: too old" says out "2.19 is the oldest"
run env NCCL_CTA_POLICY=2 NCCL_P2P_DISABLE=1 "$zerocta" info
check "info: an override" says out "NCCL_CTA_POLICY=2 in the environment overrides"
check "info: a switch" says out "NCCL_P2P_DISABLE in the environment"

finish
