#!/usr/bin/env bash
# Jobs over several machines, which are network namespaces here: joining, gathering within each,
# deaths that cross, and what is said when the machines cannot reach each other. Needs root and
# iproute2; skipped (77) where namespaces cannot be made.
zerocta=$1
rank=$(dirname "$zerocta")/tests/command/machines-rank
. "$(dirname "$0")/support.sh"

tag=$$
a=zca$tag b=zcb$tag
clean() {
    ip netns del $a 2>/dev/null
    ip netns del $b 2>/dev/null
    rm -rf "$scratch"
}
trap clean EXIT

make_machines() {
    ip netns add $a && ip netns add $b &&
        ip link add zva$tag netns $a type veth peer name zvb$tag netns $b &&
        ip -n $a addr add 10.77.0.1/24 dev zva$tag && ip -n $b addr add 10.77.0.2/24 dev zvb$tag &&
        ip -n $a link set zva$tag up && ip -n $b link set zvb$tag up &&
        ip -n $a link set lo up && ip -n $b link set lo up
}
if ! make_machines >"$scratch/why" 2>&1; then
    echo "skipped: network namespaces cannot be made here: $(tail -1 "$scratch/why")"
    exit 77
fi
export ZEROCTA_TOKEN=secret ZEROCTA_TIMEOUT=10

# on MACHINE NODE PORT PROGRAM...: two ranks there, of four.
on() {
    local machine=$1 node=$2 port=$3
    shift 3
    timeout 40 ip netns exec "$machine" "$zerocta" run -n 2 --nodes 2 --node "$node" \
        --root "10.77.0.1:$port" -- "$@"
}

# both PORT PROGRAM...: on both; output of the second in $scratch/other, its status in $other.
both() {
    local other_pid
    on $b 1 "$@" >"$scratch/other" 2>&1 </dev/null &
    other_pid=$!
    run on $a 0 "$@"
    other=0
    wait $other_pid || other=$?
}

both 21001 "$zerocta" perf all_gather -b 1K -e 1K --iterations 2
check "host memory does not cross: status" is "$status" 1
check "host memory does not cross: why" says err "the ranks are on several nodes"

both 21002 "$rank"
check "gathers within each machine: status" is "$status.$other" 0.0

both 21003 "$rank" die
check "a death crosses: who, on rank 0" grep -q "rank 0 sees: rank 3 .*ended without leaving" "$scratch/out"
check "a death crosses: who, on rank 2" grep -q "rank 2 sees: rank 3 .*ended without leaving" "$scratch/other"

# A machine that is cut off without a word, while its ranks are there.
ip -n $b link set zvb$tag down
ZEROCTA_TIMEOUT=2 both 21004 "$rank"
check "no way to the root: status" is_not "$other" 0
check "no way to the root: who is missing" says err "did not come to rank 0 at 10.77.0.1:21004"
check "no way to the root: said there" grep -q "rank 0 did not answer at 10.77.0.1:21004" "$scratch/other"
ip -n $b link set zvb$tag up

run env -u ZEROCTA_TOKEN "$zerocta" run -n 2 --nodes 2 --node 0 --root 10.77.0.1:21005 -- true
check "no secret: status" is "$status" 1
check "no secret: what to set" says err "set ZEROCTA_TOKEN"
run "$zerocta" run -n 2 --nodes 2 --node 2 --root 10.77.0.1:21005 -- true
check "a node too many" says err "--node counts from 0"
run "$zerocta" run -n 2 --nodes 2 --node 1 -- true
check "no root" says err "--nodes needs --root"
run "$zerocta" run -n 2 --root 10.77.0.1:21005 -- true
check "a root without nodes" says err "--nodes"

finish
