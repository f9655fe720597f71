#!/usr/bin/env bash
# The worked example of docs/architecture.md is built and run: a collective from its file and its row
# alone. usage: new_collective.sh SOURCE-DIRECTORY
set -euo pipefail

source_dir=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What the page shows: its first block that has the given line, without the fences.
block() {
    awk -v wanted="$1" '
        /^```/ { if (open && found) exit; open = !open; text = ""; found = 0; next }
        open { text = text $0 "\n"; if (index($0, wanted)) found = 1 }
        END { if (found) printf "%s", text; else exit 1 }' "$source_dir/docs/architecture.md"
}

mkdir "$work/tree"
tar -C "$source_dir" --exclude='./build*' --exclude=./.git -cf - . |
    tar -C "$work/tree" -xf -
cd "$work/tree"
block 'const struct zc_collective zc_ring_shift' >src/collective/ring_shift.c
row=$(block 'X(RING_SHIFT')
last=$(grep -n 'X(BARRIER, 11, barrier)' include/zerocta/zerocta.h | cut -d: -f1)
sed -i "${last}s/\$/ \\\\/" include/zerocta/zerocta.h
sed -i "${last}a\\$row" include/zerocta/zerocta.h

cmake -S . -B build -G "${ZEROCTA_TEST_GENERATOR:-Unix Makefiles}" -DCMAKE_BUILD_TYPE=Debug \
    -DZEROCTA_WERROR=ON -DZEROCTA_EXAMPLES=OFF >cmake.log
targets=(zerocta-cli)
faked=
if grep -q '^CMOCKA_FOUND:INTERNAL=1' build/CMakeCache.txt; then
    targets+=(test_family test_family_plans test_sim test_cuda_family test_nccl_family)
    faked=1
fi
cmake --build build --parallel 2 --target "${targets[@]}" >build.log 2>&1 || {
    tail -n 40 build.log
    exit 1
}
zerocta=build/zerocta

"$zerocta" plan ring_shift -n 5 --root 2 --check | grep 'check: OK'
"$zerocta" plan ring_shift -n 8 --root 3 --bytes 16M --simulate | grep 'busbw'
"$zerocta" plan ring_shift -n 3 --root 1 --bytes 96 --rank 0 | grep 'plan ring_shift'
"$zerocta" explain ring_shift --device host -n 2 --root 1 | grep 'ce/direct-push'
"$zerocta" perf ring_shift --device host -n 3 --root 2 -b 1K -e 256K --iterations 20 | grep 'ring_shift'
if [ -n "$faked" ]; then
    ./build/tests/test_family
    ./build/tests/test_family_plans
    ./build/tests/test_sim
    ctest --test-dir build -R '^test_(cuda|nccl)_family$' --no-tests=error --output-on-failure
    LD_LIBRARY_PATH=$PWD/build/tests/fake_cuda ZEROCTA_NCCL_LIBRARY=none FAKE_CUDA_GPUS=3 \
        "$zerocta" hostage ring_shift -n 3 --max 64K | grep 'zero .*finishes with every SM held'
fi
echo "a new collective: OK"
