# Launchers that are installed here start ranks for real, with the variables they set; what each of
# them sets is also in ../test_launchers.c.
zerocta=$1
. "$(dirname "$0")/support.sh"

gather() { echo "$zerocta" perf all_gather -b 1K -e 4K; }
found() { # RANKS
    is "$(grep result "$scratch/out")" "result: OK, 0 wrong bytes in 2 sizes, $1 ranks, host"
}

# starts NAME COMMAND...: the command starts RANKS=3 ranks of what follows it.
starts() {
    local name=$1
    shift
    run timeout 60 "$@" $(gather)
    check "$name: status 0" is "$status" 0
    check "$name: the ranks found each other" found 3
    run timeout 60 "$@" sh -c "exec 3>&1; $(gather)"
    check "$name: behind a shell" found 3

    # Words that somebody exported and that say something else.
    run timeout 60 env RANK=0 WORLD_SIZE=1 LOCAL_RANK=0 "$@" $(gather)
    check "$name: words that contradict it are refused" is_not "$status" 0
    check "$name: with both names" grep -q "launchers contradict .*WORLD_SIZE.*says rank . of 3" \
        "$scratch/err" "$scratch/out"

    # Two launches of one program at the same time are two jobs. (Open MPI's own two would both make
    # one folder.)
    mkdir -p "$scratch/tmp"
    TMPDIR=$scratch/tmp timeout 60 "$@" $(gather) >"$scratch/other" 2>&1 </dev/null &
    run timeout 60 "$@" $(gather)
    wait $!
    check "$name: two launches at once, the one" found 3
    cp "$scratch/other" "$scratch/out"
    check "$name: two launches at once, the other" found 3
}

as_root=()
[ "$(id -u)" -ne 0 ] || as_root=(--allow-run-as-root)
any=false
if command -v mpirun.openmpi >/dev/null; then
    any=true
    starts "Open MPI" mpirun.openmpi "${as_root[@]}" --oversubscribe -n 3
fi
if command -v mpirun.mpich >/dev/null; then
    any=true
    starts MPICH mpirun.mpich -n 3
fi
if command -v srun >/dev/null && timeout 20 srun --overcommit -n 3 true 2>/dev/null; then
    any=true
    starts Slurm srun --overcommit --overlap -n 3
    run timeout 60 salloc -n 1 env SLURM_NTASKS=2 "$zerocta" setup -n 1
    check "Slurm: nobody waits in an allocation's shell" is "$status" 0
fi
if command -v flux >/dev/null; then
    any=true
    starts Flux flux start flux run -n 3
fi
$any || {
    echo "no launcher is installed here"
    exit 77
}
finish
