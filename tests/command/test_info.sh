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
check "with nothing set, that is said" says out "none of the variables"

run bash -c 'ulimit -Sn 64; exec "$0" info' "$zerocta"
check "a lower limit is seen" is "$(entry 'open files' | cut -d, -f1)" 64

run env ZEROCTA_LOG=debug ZEROCTA_TOKEN=very-secret RANK=3 "$zerocta" info
check "variables that matter are listed" is "$(entry ZEROCTA_LOG) $(entry RANK)" "debug 3"
check "a token is not shown" is "$(grep -c very-secret "$scratch/out") $(entry ZEROCTA_TOKEN)" "0 (set)"

run env ZEROCTA_NCCL_LIBRARY=none "$zerocta" info
check "NCCL can be switched off" says out "switched off by ZEROCTA_NCCL_LIBRARY"
run env ZEROCTA_NCCL_LIBRARY=/nowhere/libnccl.so "$zerocta" info
check "NCCL that is not there" says out "there is no NCCL here"

run "$zerocta" info more
check "an argument too many: status 2" is "$status" 2
check "one sentence" is "$(lines err)" 1

finish
