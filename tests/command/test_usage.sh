#!/usr/bin/env bash
# Help, version, and mistakes on the command line.
zerocta=$1
. "$(dirname "$0")/support.sh"

run "$zerocta" --help
check "--help: status 0" is "$status" 0
commands=$(sed -n 's/^  \([a-z]*\) .*/\1/p' "$scratch/out")
for command in run perf info explain plan tune overlap setup hostage; do
    check "--help lists $command" grep -qx "$command" <<<"$commands"
done
run "$zerocta" --version
check "--version: status 0" is "$status" 0
check "--version prints name and number" grep -qxE 'zerocta [0-9]+\.[0-9]+\.[0-9]+' "$scratch/out"

# The options of each command, as its help must list them.
declare -A options=(
    [run]="ranks timeout keep-going grace pty no-prefix"
    [perf]="ranks min max factor root counts in-place threads policy engine device iterations peer graph json"
    [info]="collectives"
    [explain]="ranks bytes root counts policy in-place"
    [plan]="ranks bytes rank in-place check simulate node-ranks chunks"
    [hostage]="ranks max"
    [tune]="ranks min max factor iterations threads output"
    [overlap]="ranks min max factor root counts gemm out-of-place policy json"
    [setup]="ranks grow bytes rounds device nccl"
)
for command in $commands; do
    run "$zerocta" "$command" --help
    check "$command --help: status 0" is "$status" 0
    check "$command --help: nothing on standard error" silent err
    for option in ${options[$command]} help; do
        check "$command --help lists --$option" grep -qE -- "--$option( |$)" "$scratch/out"
    done
    check "$command --help tells what the exit status means" says out "Exit status: 0"
    check "$command --help fits 80 columns" is "$(awk 'length($0) > 80' "$scratch/out" | wc -l)" 0
    run "$zerocta" "$command" -h
    check "$command -h is the same" is "$status" 0
done

# What tune offers is what it takes. The second mistake keeps it from measuring.
run "$zerocta" tune --help
offered=$(sed -n '/^COLLECTIVE/,/The others are not/{ /The others are not/d; p }' "$scratch/out" | tr ' ' '\n')
reason=$(sed -n '/The others are not measured/,/^SIZE/p' "$scratch/out")
check "what a note goes on with stands below its first line" \
    is "$(grep -c '^            The others are not measured' "$scratch/out")" 1
for collective in $("$zerocta" explain 2>&1 | sed 's/.*missing: *//; s/;.*//'); do
    run "$zerocta" tune "$collective" --min 2K --max 1K
    if grep -qx "$collective" <<<"$offered"; then
        check "tune takes $collective, which it offers" says err "the smallest size"
        check "tune --help gives no reason against $collective" no grep -qw "$collective" <<<"$reason"
    else
        check "tune does not offer $collective, which it refuses" says err "decide nothing for $collective"
        check "tune --help says why $collective is not there" grep -qw "$collective" <<<"$reason"
    fi
done
check "tune offers some" grep -qx all_gather <<<"$offered"

# wrong "the rule" WORD ARGUMENTS...: status 2, nothing printed but one line that names WORD.
wrong() {
    local rule=$1 word=$2
    shift 2
    run "$zerocta" "$@"
    check "$rule: status 2" is "$status" 2
    check "$rule: one sentence" is "$(lines err)" 1
    check "$rule: which names $word" says err "$word"
    check "$rule: nothing else is printed" silent out
}

wrong "no command" "command is missing"
wrong "an unknown command" nonsense nonsense
wrong "an unknown option of the command itself" --nonsense --nonsense
for command in $commands; do
    wrong "$command, unknown long option" --nonsense "$command" --nonsense
    wrong "$command, unknown short option" -Z "$command" -Z
    wrong "$command, a value for --help" --help "$command" --help=3
done
wrong "run without a program" "program" run -n 2
wrong "run without a number" "-n" run true
wrong "zero ranks" "4096" run -n 0 true
wrong "too many ranks" "4096" run -n 4097 true
wrong "a negative number of ranks" "-1" run -n -1 true
wrong "a number that is none" "abc" run -n abc true
wrong "a number with something behind it" "3x" run -n 3x true
wrong "a number beyond 64 bits" "99999999999999999999" run -n 99999999999999999999 true
wrong "an empty value" "--ranks" run --ranks= true
wrong "a missing value" "-n" run -n
wrong "a timeout that is none" "soon" run -n 1 --timeout soon true
wrong "a timeout of zero" "--timeout" run -n 1 --timeout 0 true
wrong "a value for a flag" "--no-prefix" run -n 1 --no-prefix=yes true
wrong "a value with a newline in it" "--ranks" run -n $'1\n2' true

wrong "a shortened option" "there is no option --rank (did you mean --ranks?)" run --rank 1 -- true
wrong "a shortened option with a value" "there is no option --ran (did you mean --ranks?)" run --ran=1 -- true
wrong "a misspelt option" "did you mean --policy?" perf all_gather --polcy zero
wrong "a misspelt command" "did you mean explain?" explian
wrong "a misspelt collective" "did you mean all_gather?" plan allgather
run "$zerocta" run --nonsense true
check "nobody guesses from afar" no says err "did you mean"
run "$zerocta" explain all_gather -n 2 --policy ZERO
check "choices may be written as the documents write them" is "$status" 0
run "$zerocta" help explain
check "help COMMAND is COMMAND --help" is "$status $(head -n 1 "$scratch/out" | cut -d' ' -f1-3)" "0 usage: zerocta explain"
run "$zerocta" help
check "help is --help" is "$status $(head -n 1 "$scratch/out")" "0 usage: zerocta COMMAND [OPTIONS]"
wrong "help for nothing" "did you mean perf?" help pref
run "$zerocta" run -n1 --timeout=5 true
check "values may stand in the same word" is "$status" 0
run "$zerocta" run -n 1 echo -n --help --timeout
check "options behind the program are the program's" is "$(cat "$scratch/out")" "[0] --help --timeout"
run bash -c '"$0" --help >/dev/full' "$zerocta"
check "output that cannot be written is a failure" is "$status" 1

finish
