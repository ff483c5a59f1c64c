#!/bin/sh
# A fork bomb, in two acts: first it counts how far it gets, then it does its worst for ever.
# Contained means: a fixed number of processes, an end at the timeout, and nothing left afterwards.
#
# Do not run this outside a sandbox.
set -u

# The subshell ends when the shell cannot fork any more; the last number is how many there were.
(
    n=0
    while [ "$n" -lt 5000 ]; do
        sleep 1000 &
        n=$((n + 1))
        echo "$!" >> pids
        echo "$n" > forked
    done
) 2> refusal
# By a builtin: there is no slot left to start `cat` in.
read -r n < forked || n=0
if [ "$n" -ge 5000 ]; then
    echo "fork bomb: LEAKED $n processes and nothing stopped it"
    exit 1
fi
read -r why < refusal || why="no reason given"
echo "fork bomb: refused after $n processes ($why)"

# Room for the second act, by builtins alone: no command can be started now.
while read -r pid; do kill "$pid"; done < pids
i=0
while [ "$i" -lt 200000 ]; do i=$((i + 1)); done

# The classic. What dies for want of a slot frees one for the others, so it never stops by itself.
bomb() { bomb | bomb & }
bomb 2>/dev/null
while :; do :; done
