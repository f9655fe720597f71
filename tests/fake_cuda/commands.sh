#!/usr/bin/env bash
# The commands that need GPUs, on the fake driver: what they do, not how fast.
zerocta=$1
. "$(dirname "$0")/../command/support.sh"
export ZEROCTA_TIMEOUT=20

small=(perf all_gather -n 2 -b 1K -e 64K -f 64 --device cuda --iterations 3)
for given in "" "--in-place" "--in-place --peer push" "--peer push" "--policy zero" "--graph" "--in-place --graph --peer push"; do
    # shellcheck disable=SC2086
    run "$zerocta" "${small[@]}" $given
    check "perf $given: status 0" is "$status" 0
    check "perf $given: every byte right" grep -q "result: OK, 0 wrong bytes" "$scratch/out"
done
run "$zerocta" "${small[@]}" --policy zero
check "perf under ZERO out of place: pushed back" grep -q "ce/push-back *0" "$scratch/out"
run "$zerocta" perf all_gather -n 2 -b 1K -e 1K --device cuda --threads --iterations 2
check "ranks as threads, a GPU each: status 0" is "$status" 0
run "$zerocta" perf all_gather -n 3 -b 1K -e 1K --device cuda --threads --iterations 2
check "ranks as threads on one GPU: status 1" is "$status" 1
check "ranks as threads on one GPU: the sentence" says err "threads of one process"
run "$zerocta" setup -n 2 --bytes 1M --rounds 2 --device cuda
check "setup: status 0" is "$status" 0

# Every other collective, by copies of the copy engines and captured.
for collective in all_gather_v all_to_all all_to_all_v broadcast gather gather_v scatter scatter_v send_recv; do
    for given in "" "--policy zero" "--graph --peer push"; do
        # shellcheck disable=SC2086
        run env FAKE_CUDA_GPUS=3 "$zerocta" perf $collective -n 3 -b 1 -e 64K -f 256 --device cuda --iterations 2 $given
        check "perf $collective $given: status 0" is "$status" 0
        check "perf $collective $given: every byte right" grep -q "result: OK, 0 wrong bytes" "$scratch/out"
        [ "$given" != "--policy zero" ] ||
            check "perf $collective under ZERO: no SM" no grep -q ' yes$' "$scratch/out"
    done
done
for collective in all_gather_v broadcast gather gather_v scatter scatter_v; do
    run env FAKE_CUDA_GPUS=3 "$zerocta" perf $collective -n 3 -b 1 -e 64K -f 256 --device cuda --iterations 2 --in-place --peer push
    check "perf $collective in place: every byte right" grep -q "result: OK, 0 wrong bytes" "$scratch/out"
done
for collective in all_gather_v all_to_all_v gather_v scatter_v; do
    run env FAKE_CUDA_GPUS=3 "$zerocta" perf $collective -n 3 -b 1 -e 64K -f 256 --device cuda --iterations 2 --counts random:5
    check "perf $collective, random shares: every byte right" grep -q "result: OK, 0 wrong bytes" "$scratch/out"
done
run "$zerocta" perf barrier -n 2 --device cuda --iterations 2
check "perf barrier: status 0" is "$status" 0

# What the machine has, and what it lacks.
run "$zerocta" info
check "info: status 0" is "$status" 0
check "info: the driver" says out "(999.1), 2 GPUs"
check "info: links" says out "16 NVLinks up; MIG off"
check "info: sharing" says out "shared as file descriptors: yes"
check "info: reach" says out "reaches the memory of GPU 1"
run env FAKE_CUDA_LACKS=peer FAKE_NVML_MIG=1 "$zerocta" info
check "info: no reach" says out "cannot reach the memory of GPU 1"
check "info: MIG" says out "MIG on"

run "$zerocta" explain all_gather -n 2 --policy zero
check "explain: what there is" says out "device cuda"
check "explain: as on GPUs" says out "choice: ce/push-back"
run "$zerocta" explain all_gather -n 2 --policy zero --device host
check "explain: another device if that is wanted" says out "device host"

# What a GPU or a driver lacks is said.
lacking() { # "the rule" WORD VARIABLE=VALUE...
    local rule=$1 word=$2
    shift 2
    run env "$@" "$zerocta" perf all_gather -n 2 -b 1K -e 1K --device cuda --iterations 1
    check "$rule: status 1" is "$status" 1
    check "$rule: the sentence" says err "$word"
}
lacking "no GPU" "there is no GPU" FAKE_CUDA_GPUS=0
lacking "no GPU for the driver either" "there is no GPU, or CUDA_VISIBLE_DEVICES hides all" FAKE_CUDA_INIT=100
lacking "a driver that does not start" "does not start: a fake error (CUDA error 802)" FAKE_CUDA_INIT=802
lacking "a peer's GPU that is hidden" "must be visible to this process too (look at CUDA_VISIBLE_DEVICES;" FAKE_CUDA_LACKS=sight
lacking "a driver that is too old" "the oldest that works" FAKE_CUDA_VERSION=11080
lacking "a GPU without virtual memory management" "virtual memory management" FAKE_CUDA_LACKS=vmm
lacking "a GPU whose memory has no descriptors" "file descriptors" FAKE_CUDA_LACKS=fd
lacking "GPUs without the access they seemed to have" "peer access" FAKE_CUDA_LACKS=access
lacking "GPUs without the access they seemed to have: whose" "the memory of rank " FAKE_CUDA_LACKS=access
lacking "signals that do not exist" "ZEROCTA_SIGNALS" ZEROCTA_SIGNALS=smoke
lacking "signals that this driver does not have" "13.1" ZEROCTA_SIGNALS=write FAKE_CUDA_VERSION=13010

# GPUs that do not reach each other go through the host, and what that needs is no SM.
apart() { # "the rule" VARIABLE=VALUE
    run env "$2" "$zerocta" perf all_to_all -n 2 -b 1K -e 8M --device cuda --iterations 1 --policy zero
    check "$1: status 0" is "$status" 0
    check "$1: small ones" says out "ce/host-pull"
    check "$1: large ones" says out "ce/host-stream"
    check "$1: nothing wrong" says out "result: OK, 0 wrong bytes"
    run env "$2" "$zerocta" explain broadcast -n 2 --device cuda
    check "$1: explained" says out "some ranks do not reach each other's memory"
    run env FAKE_CUDA_GPUS=3 "$2" "$zerocta" hostage all -n 3 --max 1K
    check "$1: hostage" is "$(grep -c 'zero .*finishes with every SM held' "$scratch/out")" 18
}
apart "no peer access" FAKE_CUDA_LACKS=peer
apart "peer access forbidden" ZEROCTA_P2P=0

# GPUs 0 and 1 reach each other, 2 and 3 do: of two ranks nobody is apart, of three somebody is.
apart_of() {
    FAKE_CUDA_GPUS=4 FAKE_CUDA_LACKS=islands "$zerocta" explain broadcast -n "$1" --device cuda |
        grep -c "some ranks do not reach each other's memory"
}
check "two ranks within an island" is "$(apart_of 2)" 0
check "three ranks, two of them within one" is "$(($(apart_of 3) > 0))" 1

# The model of the driver knows which copies wait for an SM that a kernel holds.
run env FAKE_CUDA_GPUS=3 "$zerocta" hostage all_gather -n 3 --max 64K
check "hostage: status 0" is "$status" 0
check "hostage: result" says out "result: OK, what is to need no SM needs none"
check "hostage: ZERO out of place" is "$(grep -c 'out    zero .*ce/push-back .*finishes with every SM held' "$scratch/out")" 2
check "hostage: DEFAULT out of place" is "$(grep -c 'out    default .*ce/direct-push .*waits for an SM' "$scratch/out")" 2
run env FAKE_CUDA_GPUS=3 "$zerocta" hostage all -n 3 --max 1K
check "hostage, every collective: status 0" is "$status" 0
check "hostage, every collective: ZERO" is "$(grep -c 'zero .*finishes with every SM held' "$scratch/out")" 18
check "hostage, every collective: a barrier" says out "barrier"

run "$zerocta" hostage all_gather -n 2 --max 1K --engine nccl
check "hostage, nothing to run: status 1" is "$status" 1
check "hostage, nothing to run: said" says out "result: nothing could run"

for given in "" "--out-of-place --policy zero"; do
    # shellcheck disable=SC2086
    run "$zerocta" overlap all_gather -n 2 -b 4K -e 128K --gemm 128 --peer none --json "$scratch/json" $given
    check "overlap $given: status 0" is "$status" 0
    check "overlap $given: every byte right" says out "result: OK, 0 wrong bytes"
    check "overlap $given: a row for each size" is "$(grep -c '"by"' "$scratch/json")" 2
done
run "$zerocta" overlap all_to_all -n 2 -b 4K -e 4K --gemm 128 --peer none
check "overlap of another collective: every byte right" says out "result: OK, 0 wrong bytes"
check "overlap of another collective: out of place, as it must" says out "all_to_all out of place"
run "$zerocta" overlap all_gather -n 2 -b 4K -e 4K --gemm 128 --peer none --json -
check "overlap --json -: standard output is JSON alone" is "$(head -c 1 "$scratch/out")$(tail -n 1 "$scratch/out")" "{}"
check "overlap --json -: the table is on standard error" says err "result: OK"
run bash -c '"$0" overlap all_gather -n 2 -b 4K -e 4K --gemm 128 --peer none >/dev/full' "$zerocta"
check "overlap, output that is lost: status 1" is "$status" 1
run bash -c '"$0" hostage all_gather -n 2 --max 1K >/dev/full' "$zerocta"
check "hostage, output that is lost: status 1" is "$status" 1
check "hostage, output that is lost: said" says err "cannot pass output on"

finish
