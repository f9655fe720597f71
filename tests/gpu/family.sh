#!/usr/bin/env bash
# Every collective on GPUs: eager and as graphs, with SMs and without, with the last rank as root and
# with uneven shares, out of place and, where it is allowed, in place. perf checks every byte of every
# output. Skipped (77) without two GPUs, unless ZEROCTA_TEST_RANKS says how many ranks share what there
# is.
. "$(dirname "$0")/../command/support.sh"

zerocta=$1
ranks=${ZEROCTA_TEST_RANKS:-$("$zerocta" info | grep -cE '^ +GPU [0-9]')}
[ "$ranks" -ge 2 ] || exit 77

# perf COLLECTIVE OPTION...: three sizes.
perf() {
    local options=(-n "$ranks" --device cuda -b 1K -e 16M -f 128 --iterations 5)
    case $1 in
    broadcast | gather* | scatter*) options+=(--root $((ranks - 1))) ;;
    esac
    case $1 in
    *_v) options+=(--counts skewed) ;;
    esac
    run timeout 60 "$zerocta" perf "$@" "${options[@]}"
    check "$*: status 0" is "$status" 0
    check "$*: every byte" says out "result: OK, 0 wrong bytes"
}

for collective in all_gather all_gather_v all_to_all all_to_all_v broadcast gather gather_v scatter scatter_v send_recv; do
    perf $collective --policy zero
    perf $collective --policy zero --graph
    perf $collective --graph
    case $collective in
    all_gather* | broadcast | gather* | scatter*) perf $collective --policy zero --graph --in-place ;;
    esac
done
finish
