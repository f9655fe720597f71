#!/usr/bin/env bash
# `zerocta run`: output, environment, exit status, signals, deadlines; and nothing is left behind.
zerocta=$1
. "$(dirname "$0")/support.sh"

none_left() { [ "$(count_marked)" -eq 0 ]; }

# Lets a job's ranks say that they are up, then waits for that.
up() { [ "$(ls "$scratch"/up.* 2>/dev/null | wc -l)" -eq "$1" ]; }

# ---- Output ----

run "$zerocta" run -n 3 -- sh -c 'echo "out $RANK"; echo "err $RANK" >&2'
check "all ranks well: status 0" is "$status" 0
check "each line of standard output has its rank before it" \
    is "$(sort "$scratch/out")" "$(printf '[0] out 0\n[1] out 1\n[2] out 2')"
check "standard error stays apart" \
    is "$(sort "$scratch/err")" "$(printf '[0] err 0\n[1] err 1\n[2] err 2')"

run "$zerocta" run -n 1 true
check "a program that prints nothing: nothing is printed" silent out
run "$zerocta" run -n 1 -- printf 'a\n\nunfinished'
check "an unfinished last line gets its end, an empty line stays" \
    is "$(cat "$scratch/out"; echo .)" "$(printf '[0] a\n[0] \n[0] unfinished\n.')"
run "$zerocta" run -n 2 --no-prefix -- sh -c 'echo plain'
check "--no-prefix leaves lines as they are" is "$(cat "$scratch/out")" "$(printf 'plain\nplain')"

run "$zerocta" run -n 8 -- sh -c 'i=0; while [ $i -lt 300 ]; do echo "$RANK-$RANK-$RANK-$RANK-$RANK"; i=$((i+1)); done'
check "no line is lost" is "$(lines out)" 2400
check "lines of different ranks never mix" \
    is "$(grep -cvxE '\[([0-7])\] \1-\1-\1-\1-\1' "$scratch/out")" 0

run "$zerocta" run -n 2 -- sh -c 'head -c 150000 /dev/zero | tr "\0" "x"; echo'
check "a long line comes in pieces of 64 KiB at most" \
    is "$(awk '{ n = length($2); if (n > 65536) bad++; total += n } END { print bad + 0, total }' "$scratch/out")" \
    "0 300000"
check "its pieces have their rank before them" is "$(grep -cvE '^\[[01]\] x+$' "$scratch/out")" 0

run bash -c '"$0" run -n 2 yes | head -n 1' "$zerocta"
check "a reader that goes away ends the job" says err "cannot pass output on"

run bash -c '"$0" run -n 1 -t 1 yes | sleep 4; exit ${PIPESTATUS[0]}' "$zerocta"
check "a reader that does not read cannot hold the job past its limit" is "$status" 124

# grep writes its lines at once to a terminal only. The rank ends when its first line has come out.
rm -f "$scratch/go"
(
    soon says out "[0] first" && : >"$scratch/go"
) &
run timeout 60 "$zerocta" run -n 1 --pty always -- bash -c \
    '{ echo first; until [ -e "$0/go" ]; do sleep 0.05; done; echo second; } | grep --color=never .' "$scratch"
check "on a terminal a line comes out before the rank's end" is "$status" 0
check "as it is" is "$(cat "$scratch/out")" "$(printf '[0] first\n[0] second')"
run "$zerocta" run -n 4 --pty always -- sh -c 'i=0; while [ $i -lt 300 ]; do echo "$RANK-$RANK"; i=$((i+1)); done; printf end'
check "on terminals no line is lost, nor an unfinished one" is \
    "$(grep -cxE '\[([0-3])\] \1-\1' "$scratch/out") $(grep -cxE '\[[0-3]\] end' "$scratch/out")" "1200 4"
new_mark
run timeout 60 "$zerocta" run -n 1 --pty always -- bash -c 'setsid sleep 300 & echo "pid $!"'
check "a process that left its group and keeps the terminal delays nothing" is "$status" 0
kill "$(sed -n 's/.*pid //p' "$scratch/out")"
run "$zerocta" run -n 1 -- sh -c '[ -t 1 ] || echo pipe'
check "where standard output is none, a rank's is none" says out pipe
if command -v script >/dev/null; then
    run script -qec "$zerocta run -n 1 -- sh -c '[ -t 1 ] && echo terminal'" /dev/null
    check "where standard output is a terminal, a rank's is one" says out "[0] terminal"
    run script -qec "$zerocta run -n 1 --pty never -- sh -c '[ -t 1 ] || echo pipe'" /dev/null
    check "unless that is not wanted" says out "[0] pipe"
fi

run bash -c 'echo question | "$0" run -n 2 cat' "$zerocta"
check "rank 0 reads standard input, the others none" is "$(cat "$scratch/out")" "[0] question"

# ---- Environment ----

run "$zerocta" run -n 2 -- sh -c 'echo "$RANK $WORLD_SIZE $LOCAL_RANK $LOCAL_WORLD_SIZE $GROUP_RANK $MASTER_ADDR"'
check "torchrun's variables" \
    is "$(sort "$scratch/out")" "$(printf '[0] 0 2 0 2 0 127.0.0.1\n[1] 1 2 1 2 0 127.0.0.1')"
run "$zerocta" run -n 2 -- sh -c 'echo "$ZEROCTA_RANK $ZEROCTA_RANK_COUNT $ZEROCTA_LOCAL_RANK $ZEROCTA_LOCAL_RANK_COUNT"'
check "zerocta's variables" is "$(sort "$scratch/out")" "$(printf '[0] 0 2 0 2\n[1] 1 2 1 2')"
run env ZEROCTA_LISTEN_FD=7 "$zerocta" run -n 3 --no-prefix -- sh -c 'echo "${ZEROCTA_LISTEN_FD-none}"'
check "only rank 0 gets the listening socket" is "$(grep -c none "$scratch/out")" 2
run "$zerocta" run -n 1 --no-prefix -- bash -c \
    'exec 5<>/dev/tcp/${ZEROCTA_ROOT/:/\/} && readlink /proc/self/fd/$ZEROCTA_LISTEN_FD'
check "ZEROCTA_ROOT can be connected to at once, and the socket is inherited" says out socket:
run "$zerocta" run -n 2 --no-prefix -- sh -c 'echo $ZEROCTA_TOKEN $ZEROCTA_ROOT'
check "the token is 32 bytes in hex, the same for all" \
    is "$(grep -cE '^[0-9a-f]{64} ' "$scratch/out") $(sort -u "$scratch/out" | wc -l)" "2 1"
first_token=$(head -n 1 "$scratch/out")
run "$zerocta" run -n 1 --no-prefix -- sh -c 'echo $ZEROCTA_TOKEN $ZEROCTA_ROOT'
check "each job has a token of its own" is_not "$(cat "$scratch/out")" "$first_token"
list_files='for fd in /proc/$$/fd/*; do
    [ "${fd##*/}" = "${ZEROCTA_LISTEN_FD-none}" ] || echo "${fd##*/}"
done'
run sh -c "$list_files"
files_before=$(sort -nu "$scratch/out")
run "$zerocta" run -n 2 --no-prefix -- sh -c "$list_files"
check "no rank inherits a file of the launcher's" is "$(sort -nu "$scratch/out")" "$files_before"
run "$zerocta" run -n 1 --no-prefix -- sh -c "$(printf 'kill -PIPE $$; sleep 1')"
check "a rank's signals are as they were before: SIGPIPE ends it" is "$status" 141

# ---- Exit status ----

new_mark
run "$zerocta" run -n 4 -- sh -c '[ $RANK = 2 ] && exit 7; exec sleep 60'
check "the status is that of the rank that failed" is "$status" 7
check "the rank that failed is named" says err "rank 2 exited with status 7; the others have 1 s to end by themselves"
check "and who is ended, after how long" says err "ending ranks 0, 1 and 3, which still run 1 s after rank 2 exited with status 7"
check "and nothing else is said" is "$(lines err)" 2
check "the others have ended" soon none_left

run "$zerocta" run -n 4 -- sh -c '[ $RANK = 1 ] && exit 5; sleep 0.3; exit 6'
check "the first failure wins" is "$status" 5
run "$zerocta" run -n 4 -- sh -c '[ $RANK = 1 ] && exit 5; sleep 0.3; echo "rank 1 is missing"'
check "the others have a moment to say what they saw" \
    is "$(grep -c 'rank 1 is missing' "$scratch/out")" 3
run "$zerocta" run -n 2 -- sh -c '[ $RANK = 1 ] && kill -KILL $$; exec sleep 60'
check "128 + signal when a signal ended the rank" is "$status" 137
check "the signal is named" says err "rank 1 was killed by SIGKILL"
run "$zerocta" run -n 2 --grace 0.2 -- sh -c '[ $RANK = 0 ] && kill -SEGV $$; exec sleep 60'
check "another signal, and another grace" says err "ending rank 1, which still runs 0.2 s after rank 0 was killed by SIGSEGV"
run "$zerocta" run -n 2 --grace 600 -- sh -c '[ $RANK = 0 ] && exit 3; sleep 0.3; exit 0'
check "the grace is over when the others have ended" is "$status $(grep -c ending "$scratch/err")" "3 0"

new_mark
run "$zerocta" run -n 4 --keep-going -- sh -c '[ $RANK = 1 ] && kill -KILL $$; sleep 2; echo "on $RANK"; [ $RANK = 3 ] && exit 4; exit 0'
check "--keep-going: the others run on" is "$(sort "$scratch/out")" "$(printf '[0] on 0\n[2] on 2\n[3] on 3')"
check "--keep-going: the first failure is the status" is "$status" 137
check "--keep-going: every end is told" is \
    "$(grep -c -e 'rank 1 was killed by SIGKILL; 3 still run' -e 'rank 3 exited with status 4' "$scratch/err")" 2
check "--keep-going: nobody is ended" is "$(grep -c ending "$scratch/err")" 0
check "--keep-going: nothing is left" soon none_left
run "$zerocta" run -n 2 -- sh -c 'echo "last words $RANK" >&2; [ $RANK = 1 ] && exit 3; exec sleep 60'
check "what a rank said comes before the news of its end" is \
    "$(grep -n -e 'last words 1' -e 'exited with' "$scratch/err" | cut -d: -f1 | sort -nc && echo in order)" "in order"

new_mark
started=$SECONDS
run "$zerocta" run -n 2 -- bash -c 'trap "" TERM; [ $RANK = 1 ] && exit 4; while :; do sleep 0.1; done'
took=$((SECONDS - started))
check "a rank that ignores SIGTERM gets SIGKILL" is "$status" 4
check "which is said" says err "killing rank 0, which still runs 5 s after SIGTERM"
check "after five seconds, not for ever" less $took 60
check "and not before" less 4 $took
check "and is gone" soon none_left

new_mark
run "$zerocta" run -n 2 -- sh -c 'sleep 60 & exit 0'
check "what a rank leaves in its process group ends with it" soon none_left
new_mark
run "$zerocta" run -n 2 -- bash -c '[ $RANK = 0 ] && exit 9; kill -STOP $$; sleep 60'
check "a stopped rank is ended too" is "$status" 9
check "and is gone as well" soon none_left

# Some have ended, one has not: it is waited for, and named.
: >"$scratch/err"
"$zerocta" run -n 3 -- bash -c '[ $RANK = 1 ] && echo $BASHPID >"$0/stopped" && kill -STOP $BASHPID; exit 0' \
    "$scratch" >"$scratch/out" 2>"$scratch/err" </dev/null &
launcher=$!
check "those that still run are named, and what holds them" soon says err \
    "rank 1 still runs, 2 of 3 have ended; rank 1 is stopped, SIGCONT lets it go on"
kill -CONT "$(cat "$scratch/stopped")"
wait "$launcher"
check "they are waited for" is "$?" 0

run "$zerocta" run -n 2 -- no-such-program-anywhere
check "127 when the program does not exist" is "$status" 127
check "one sentence says so" is "$(lines err)" 1
check "which names it" says err no-such-program-anywhere
run "$zerocta" run -n 2 -- /
check "126 when it cannot be executed" is "$status" 126

# ---- Deadlines ----

new_mark
started=$SECONDS
run "$zerocta" run -n 3 --timeout 0.5 -- sleep 60
check "124 after the timeout" is "$status" 124
check "which is said" says err "has not ended after 0.5 s (--timeout); ending ranks 0 to 2"
check "and comes in time" less $((SECONDS - started)) 5
check "and leaves nothing" soon none_left
run "$zerocta" run -n 2 --timeout 30 -- true
check "a job that ends in time is not touched by its timeout" is "$status" 0

# ---- Signals ----

# A shell's background job ignores INT and QUIT unless that is undone.
start_waiting() {
    rm -f "$scratch"/up.*
    new_mark
    env --default-signal "$zerocta" run -n 3 -- bash -c "$1" "$scratch" >"$scratch/out" 2>"$scratch/err" </dev/null &
    launcher=$!
    soon up 3
}

for signal in INT TERM HUP QUIT USR1 USR2; do
    start_waiting "trap 'echo got $signal; exit 0' $signal; : >\"\$0/up.\$RANK\"; while :; do sleep 0.05; done"
    kill -"$signal" "$launcher"
    wait "$launcher"
    check "SIG$signal reaches the ranks, which may end well" is "$?" 0
    check "every one of them" is "$(grep -c "got $signal" "$scratch/out")" 3
    case $signal in
    INT) check "an interrupt is told" says err "interrupted (SIGINT); ending 3 ranks; once more kills them" ;;
    USR*) check "SIG$signal is nothing to tell" no says err zerocta ;;
    *) check "SIG$signal is told" says err "told to end (SIG$signal); ending 3 ranks" ;;
    esac
done

start_waiting ': >"$0/up.$RANK"; exec sleep 60'
kill -TERM "$launcher"
wait "$launcher"
check "ranks ended by a signal that was passed on: 128 + signal" is "$?" 143
check "their ends are no news" is "$(lines err)" 1
check "and none is left" soon none_left

start_waiting 'trap "" INT TERM; : >"$0/up.$RANK"; while :; do sleep 0.1; done'
kill -INT "$launcher"
sleep 0.3
check "one interrupt leaves the ending to the ranks" kill -0 "$launcher"
kill -INT "$launcher"
wait "$launcher"
check "a second one kills those that ignore it" is "$?" 130
check "which is said" says err "interrupted again (SIGINT); killing ranks 0 to 2"
check "all of them" soon none_left

start_waiting ': >"$0/up.$RANK"; exec sleep 60'
kill -KILL "$launcher"
wait "$launcher" 2>/dev/null
check "the ranks end with a launcher that is killed" soon none_left

# ---- Limits ----

new_mark
run bash -c 'ulimit -n 40; exec "$0" run -n 64 true' "$zerocta"
check "too few files: status 1" is "$status" 1
check "one sentence that names the limit" is "$(lines err) $(grep -c 'hard limit is 40' "$scratch/err")" "1 1"
run bash -c 'ulimit -Sn 40; exec "$0" run -n 64 --no-prefix -- sh -c "ulimit -n"' "$zerocta"
check "a soft limit is raised, and a rank gets back the one that was" is "$(sort -u "$scratch/out")" 40
run "$zerocta" run -n 200 true
check "hundreds of ranks" is "$status" 0
check "nothing is left of any" soon none_left

finish
