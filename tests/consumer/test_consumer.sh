#!/usr/bin/env bash
# Installs the built tree into a folder of its own, moves it, and builds a C and a C++ program
# against it, through pkg-config and through find_package(); runs them; looks at what is exported.
# With "static" it first builds a tree of its own, whose library is static.
#   test_consumer.sh SOURCE BUILD CC CMAKE [static]
set -euo pipefail
source_dir=$1 build_dir=$2 cc=$3 cmake=$4 kind=${5-shared}

if ! cxx=$(command -v "${CXX:-c++}"); then
    echo "no C++ compiler: skipped"
    exit 77
fi
unset RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE ZEROCTA_RANK ZEROCTA_RANK_COUNT ZEROCTA_ROOT
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

if [ "$kind" = static ]; then
    echo "-- a static library"
    "$cmake" -S "$source_dir" -B "$scratch/static" -G Ninja -DCMAKE_C_COMPILER="$cc" \
        -DBUILD_SHARED_LIBS=OFF -DZEROCTA_TOOLS=OFF -DZEROCTA_EXAMPLES=OFF -DZEROCTA_TESTS=OFF \
        -DCMAKE_BUILD_TYPE=Debug >"$scratch/configure.log"
    "$cmake" --build "$scratch/static" >"$scratch/build.log" || { cat "$scratch/build.log"; exit 1; }
    build_dir=$scratch/static
fi
"$cmake" --install "$build_dir" --prefix "$scratch/first" >"$scratch/install.log"
# An installed tree names no folder of its own, so it works from anywhere.
mv "$scratch/first" "$scratch/prefix"
prefix=$scratch/prefix
command=$prefix/bin/zerocta
if [ "$kind" = static ]; then
    command=$2/zerocta # the static tree was built without one, to be quick
    name=libzerocta.a own='^zc(ta)?_' symbols=(nm --defined-only --extern-only)
else
    name=libzerocta.so.0 own='^zcta_' symbols=(nm -D --defined-only)
fi
library=$(find "$prefix" -name "$name")
libdir=$(dirname "$library")
[ -n "$library" ] || { echo "$name was not installed"; exit 1; }
if [ "$kind" = static ] && [ -n "$(find "$prefix" -name '*.so*')" ]; then
    echo "a shared library was installed as well"
    exit 1
fi

echo "-- exported symbols"
exported=$("${symbols[@]}" "$library" | awk 'NF == 3 { sub(/@.*/, "", $3); print $3 }' |
    grep -vx 'ZEROCTA_[0-9]*')
if grep -vE "$own" <<<"$exported"; then
    echo "these symbols are exported and do not begin as ours do"
    exit 1
fi
# Every call in the header is there.
declared=$(sed -n 's/^ZCTA_API .*[ *]\(zcta_[a-z_]*\)(.*/\1/p' "$prefix/include/zerocta/zerocta.h")
[ "$(wc -l <<<"$declared")" -gt 30 ]
missing=$(comm -23 <(sort -u <<<"$declared") <(sort -u <<<"$exported"))
if [ -n "$missing" ]; then
    echo "declared but not exported:" $missing
    exit 1
fi

# four_ranks PROGRAM: every rank must say that nothing is wrong.
four_ranks() {
    local output
    output=$("$command" run -n 4 --timeout 60 -- "$@")
    echo "$output"
    [ "$(grep -cE 'rank [0-3] of 4: .*\b0 wrong$' <<<"$output")" -eq 4 ]
}

echo "-- pkg-config"
export PKG_CONFIG_PATH=$libdir/pkgconfig
[ "$(pkg-config --modversion zerocta)" = "$("$command" --version | cut -d' ' -f2)" ]
flags=$(pkg-config --cflags --libs zerocta)
"$cc" -std=c99 -Wall -Wextra -Wpedantic -Werror "$source_dir/examples/all_gather.c" $flags \
    -o "$scratch/pc_c"
"$cxx" -std=c++11 -Wall -Wextra -Wpedantic -Werror "$source_dir/tests/consumer/consumer.cpp" $flags \
    -o "$scratch/pc_cpp"
LD_LIBRARY_PATH=$libdir four_ranks "$scratch/pc_c"
LD_LIBRARY_PATH=$libdir four_ranks "$scratch/pc_cpp"

echo "-- find_package"
"$cmake" -S "$source_dir/tests/consumer/project" -B "$scratch/build" -G Ninja \
    -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_COMPILER="$cc" -DCMAKE_CXX_COMPILER="$cxx" \
    -DEXAMPLES_DIR="$source_dir/examples" >"$scratch/configure.log"
"$cmake" --build "$scratch/build" >"$scratch/build.log" || { cat "$scratch/build.log"; exit 1; }
four_ranks "$scratch/build/consumer_c"
four_ranks "$scratch/build/consumer_cpp"

echo "-- the examples on their own"
"$cmake" -S "$source_dir/examples" -B "$scratch/examples" -G Ninja -DCMAKE_PREFIX_PATH="$prefix" \
    -DCMAKE_C_COMPILER="$cc" >"$scratch/configure.log"
"$cmake" --build "$scratch/examples" >"$scratch/build.log" || { cat "$scratch/build.log"; exit 1; }
four_ranks "$scratch/examples/all_gather"
