#!/usr/bin/env bash
# `zerocta perf --peer mpi`: MPI's call beside ours. Skipped (77) where its programs, which the
# benchmarks build, do not stand beside the command.
zerocta=$1
. "$(dirname "$0")/support.sh"

built=0
for mpi in open-mpi mpich; do
    [ ! -x "$(dirname "$zerocta")/zerocta-mpi-$mpi" ] || built=$((built + 1))
done
if [ $built -eq 0 ]; then
    echo "skipped: configure with -DZEROCTA_BENCH=ON"
    exit 77
fi
result() { tail -n 1 "$scratch/out"; }

for collective in $("$zerocta" perf 2>&1 | sed 's/.*missing: *//; s/;.*//'); do
    run "$zerocta" perf "$collective" -n 2 -b 64K -e 64K --iterations 2 --peer mpi
    check "$collective: status 0" is "$status" 0
    check "$collective: every byte is right" grep -q '^result: OK' <<<"$(result)"
    check "$collective: a row of each" is "$(grep -cE ' (open-mpi|mpich) ' "$scratch/out")" $built
done
run "$zerocta" perf scatter -n 2 -b 1 -e 64K -f 65536 --iterations 2 --peer mpi --in-place --threads
check "in place, ranks as threads: every byte is right" grep -q '^result: OK' <<<"$(result)"
check "in place, ranks as threads: a row of each a size" is \
    "$(grep -cE ' (open-mpi|mpich) ' "$scratch/out")" $((2 * built))
run "$zerocta" perf gather_v -n 2 -b 64K -e 64K --iterations 2 --peer mpi --root 1 --counts random:2
check "another root, other shares: every byte is right" grep -q '^result: OK' <<<"$(result)"
run "$zerocta" perf all_gather -n 2 -e 1K --iterations 2 --peer mpi --device cuda
check "not on a GPU: status 1" is "$status" 1

finish
