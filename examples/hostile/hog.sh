#!/bin/sh
# Takes disk space, files and memory until it is stopped, everywhere it may write.
# The caps below are far above any limit the demo asks for: who reaches one was not contained.
#
# Do not run this outside a sandbox.
set -u

DISK_CAP_MIB=512
FILES_CAP=300000
MEMORY_CAP_MIB=1024
leaks=0

writable_places() {
    for place in "$PWD" "${HOME:-/}" /tmp /var/tmp /dev/shm /run / /usr /etc /var; do
        [ -d "$place" ] && [ -w "$place" ] && (cd "$place" && pwd -P)
    done | sort -u
}

fill_disk() {
    said=$(LC_ALL=C dd if=/dev/zero of="$1/hog.dat" bs=65536 count=$((DISK_CAP_MIB * 16)) 2>&1)
    full=$?
    # "dd: error writing '/tmp/hog.dat': No space left on device"
    why=$(printf '%s\n' "$said" | head -n 1 | sed 's/.*: //')
    bytes=$(wc -c < "$1/hog.dat" 2>/dev/null || echo 0)
    rm -f "$1/hog.dat"
    if [ "$full" -eq 0 ]; then
        echo "disk in $1: LEAKED $((bytes / 1048576)) MiB and nothing stopped it"
        leaks=$((leaks + 1))
    else
        echo "disk in $1: refused after $((bytes / 1048576)) MiB ($why)"
    fi
}

fill_files() {
    mkdir -p "$1/hog.d" 2>/dev/null || return
    n=0
    # `true` and not `:`, because a failed redirection of a special builtin ends the shell.
    while [ "$n" -lt "$FILES_CAP" ] && { true > "$1/hog.d/$n"; } 2>/dev/null; do n=$((n + 1)); done
    rm -rf "$1/hog.d"
    if [ "$n" -ge "$FILES_CAP" ]; then
        echo "files in $1: LEAKED $n files and nothing stopped it"
        leaks=$((leaks + 1))
    else
        echo "files in $1: refused after $n files"
    fi
}

fill_memory() {
    awk -v cap="$MEMORY_CAP_MIB" 'BEGIN {
        text = "0123456789abcdef"
        while (length(text) < cap * 1048576) {
            text = text text
            if (length(text) >= 1048576) { printf "memory: holding %d MiB\n", length(text) / 1048576; fflush() }
        }
    }'
    status=$?
    if [ "$status" -eq 0 ]; then
        echo "memory: LEAKED $MEMORY_CAP_MIB MiB and nothing stopped it"
        leaks=$((leaks + 1))
    else
        echo "memory: refused (the program that held it ended with $status)"
    fi
}

for place in $(writable_places); do fill_disk "$place"; done
for place in $(writable_places); do fill_files "$place"; done
fill_memory

echo "hog: $leaks leaked"
[ "$leaks" -eq 0 ]
