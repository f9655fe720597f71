#!/usr/bin/env bash
# `zerocta info`: what is there, what is missing and why, and no secrets.
zerocta=$1
. "$(dirname "$0")/support.sh"

unset ZEROCTA_LOG ZEROCTA_CHECK ZEROCTA_TIMEOUT ZEROCTA_REMOTE CUDA_VISIBLE_DEVICES
unset "${!OMPI_@}" "${!PMIX_@}" "${!SLURM_@}" "${!TORCHELASTIC_@}"
# entry NAME: what is said about it, on one line.
entry() { sed -n "s/^  $1  *//p" "$scratch/out" | head -n 1; }

run "$zerocta" info
check "status 0" is "$status" 0
check "nothing on standard error" silent err
check "the version comes first" is "$(head -n 1 "$scratch/out")" "$("$zerocta" --version)"
for part in devices libraries machine limits environment; do
    check "there are $part" grep -qx "$part" "$scratch/out"
done
check "the host device is there, with the CPUs that may be used" is "$(entry host | cut -d: -f1,2 | cut -d' ' -f1,2)" "yes: $(nproc)"
check "CUDA is missing, and why" says out "cuda            no: "
check "NCCL has a version or a reason" grep -qE '^  nccl  +([0-9]+\.[0-9]+\.[0-9]+: |no: )' "$scratch/out"
check "libsodium has a version" grep -qE '^  libsodium  +[0-9]+\.[0-9]+' "$scratch/out"
check "hwloc has a version or a reason" grep -qE '^  hwloc  +([0-9]+\.|no: )' "$scratch/out"
check "jansson has a version or a reason" grep -qE '^  jansson  +([0-9]+\.|no: )' "$scratch/out"
check "the kernel is this one" is "$(entry kernel)" "$(uname -srm)"
check "the limit of open files is this shell's" is "$(entry 'open files' | cut -d, -f1)" "$(ulimit -Sn)"
check "memfd is tried" grep -qE '^  memfd  +(works|does not work)' "$scratch/out"
check "every variable is listed, with what it may say" is "$(entry ZEROCTA_LOG)" \
    "not set; it may be off, error, warn, info or debug"
check "also those that take a text" is "$(entry ZEROCTA_TUNE_FILE)" "not set"

run bash -c 'ulimit -Sn 64; exec "$0" info' "$zerocta"
check "a lower limit is seen" is "$(entry 'open files' | cut -d, -f1)" 64

run env ZEROCTA_LOG=debug ZEROCTA_TOKEN=very-secret RANK=3 "$zerocta" info
check "variables that matter are listed" is "$(entry ZEROCTA_LOG) $(entry RANK)" "debug 3"
check "a token is not shown" is "$(grep -c very-secret "$scratch/out") $(entry ZEROCTA_TOKEN)" "0 (set)"

run env ZEROCTA_CHECK=true ZEROCTA_CHEK=1 ZEROCTA_NONSENSE=1 "$zerocta" info
check "a value that nobody knows is marked" says out "true: not known, zcta_init() refuses it; it may be 0 or 1"
check "so is a misspelt variable" is "$(entry ZEROCTA_CHEK)" "there is no such variable (did you mean ZEROCTA_CHECK?)"
check "and one that nobody can guess" is "$(entry ZEROCTA_NONSENSE)" "there is no such variable"
run env FLUX_JOB_ID=f123 CUDA_VISIBLE_DEVICES=3 ZEROCTA_ADDRESS=$'a\033[2Jb' "$zerocta" info
check "launchers' variables, too" is "$(entry FLUX_JOB_ID) $(entry CUDA_VISIBLE_DEVICES)" "f123 3"
check "no value moves a terminal's cursor" is "$(entry ZEROCTA_ADDRESS)" "a?[2Jb"

run env ZEROCTA_NCCL_LIBRARY=none "$zerocta" info
check "NCCL can be switched off" says out "switched off by ZEROCTA_NCCL_LIBRARY"
run env ZEROCTA_NCCL_LIBRARY=/nowhere/libnccl.so "$zerocta" info
check "NCCL that is not there" says out "there is no NCCL here"

run "$zerocta" info --collectives
check "--collectives: status 0" is "$status" 0
check "--collectives: nothing on standard error" silent err
for collective in $("$zerocta" explain 2>&1 | sed 's/.*missing: *//; s/;.*//'); do
    check "--collectives: $collective, and what moves" grep -qE "^$collective  +[a-z]" "$scratch/out"
done
check "--collectives: which are never in place" is \
    "$(grep -B1 -E 'never in( |$)' "$scratch/out" | grep -oE '^(all|send)[a-z_]+' | tr '\n' ' ')" "all_to_all all_to_all_v send_recv "
check "--collectives: a path and its policies" grep -qxE '  ce/direct-push  +0 SMs +0 SMs +0 SMs' "$scratch/out"
check "--collectives: NCCL needs a GPU" grep -qxE '  nccl/kernels  +- +- +-' "$scratch/out"
check "--collectives: the GPU, or why there is none" grep -qE '^device cuda: ' "$scratch/out"

run "$zerocta" info more
check "an argument too many: status 2" is "$status" 2
check "one sentence" is "$(lines err)" 1

finish
