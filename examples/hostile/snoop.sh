#!/bin/sh
# Looks for everything that is not its own: files and secrets of the person who started it, other
# processes, the kernel, devices, and the network. Prints one line per attempt and fails if
# anything leaked.
#
# The person who runs it may plant things to be found, and say where they are:
#   SNOOP_HOME  a real home directory        SNOOP_FILE    a file with a secret in it
#   SNOOP_PORT  a port open on 127.0.0.1     SNOOP_SOCKET  the name of an abstract Unix socket
#   SNOOP_WORD  a word in the command line of a process outside
# and keep in the environment, without handing it over, SNOOP_SECRET.
set -u

tried=0
leaks=0

refused() { tried=$((tried + 1)); echo "attempt $1: refused ($2)"; }
leaked() { tried=$((tried + 1)); leaks=$((leaks + 1)); echo "attempt $1: LEAKED $2"; }
untried() { echo "attempt $1: not made ($2)"; }
have() { command -v "$1" > /dev/null 2>&1; }

# The reason in a message like "head: cannot open 'x' for reading: Permission denied".
reason() { printf '%s\n' "$1" | head -n 1 | sed 's/.*: //' | cut -c 1-60; }

read_file() {
    said=$( { head -c 256 "$1" > /dev/null; } 2>&1 )
    size=$( (head -c 256 "$1" | wc -c) 2>/dev/null )
    if [ "${size:-0}" -gt 0 ]; then leaked "read $1" "its content"; else refused "read $1" "$(reason "${said:-it is empty}")"; fi
}

list_dir() {
    said=$(ls -A "$1" 2>&1)
    if [ $? -ne 0 ]; then refused "list $1" "$(reason "$said")"
    elif [ -z "$said" ]; then refused "list $1" "it is empty"
    else leaked "list $1" "$(printf '%s\n' "$said" | wc -l) names"; fi
}

# Opens for writing without writing, so that a leak does no harm either.
open_to_write() {
    if said=$( { true >> "$1"; } 2>&1 ); then leaked "write $1" "it opens"; else refused "write $1" "$(reason "$said")"; fi
}

make_file() {
    if said=$( { true > "$1"; } 2>&1 ); then rm -f "$1"; leaked "create $1" "it was made"; else refused "create $1" "$(reason "$said")"; fi
}

run_it() {
    what=$1; shift
    have "$1" || { untried "$what" "no $1 here"; return; }
    if said=$("$@" < /dev/null 2>&1); then leaked "$what" "$1 succeeded"; else refused "$what" "$(reason "${said:-it failed}")"; fi
}

# A question to the kernel in perl: exits 0 if the door opens.
ask_perl() {
    what=$1; program=$2; shift 2
    have perl || { untried "$what" "no perl here"; return; }
    if said=$(timeout 4 perl -e "$program" "$@" < /dev/null 2>&1); then leaked "$what" "it opened"; else refused "$what" "$(reason "${said:-no answer}")"; fi
}

connect_to() {
    what="connect to $1 port $2"
    if have bash; then
        if said=$(timeout 4 bash -c "exec 3<>/dev/tcp/$1/$2" 2>&1); then leaked "$what" "it answered"; else refused "$what" "$(reason "${said:-no answer}")"; fi
    else
        ask_perl "$what" 'use IO::Socket::INET; IO::Socket::INET->new(PeerAddr => $ARGV[0], PeerPort => $ARGV[1], Timeout => 3) or die "$@\n"' "$1" "$2"
    fi
}

echo "files and secrets"
read_file /etc/shadow
read_file /etc/ssh/ssh_host_ed25519_key
list_dir /root
list_dir /root/.ssh
caller=${SNOOP_HOME:-/root}
if [ "$caller" != /root ]; then
    # The sandbox has a home too, and its name may be that of the caller's.
    [ "$caller" = "${HOME:-}" ] || list_dir "$caller"
    list_dir "$caller/.ssh"
fi
[ -n "${SNOOP_FILE:-}" ] && read_file "$SNOOP_FILE"
for path in /var/lib /var/log /boot /mnt /media /srv /var/run/docker.sock /run/systemd; do
    [ -f "$path" ] && read_file "$path"
    [ -f "$path" ] || list_dir "$path"
done
if [ -n "${SNOOP_SECRET:-}" ]; then leaked "find the caller's environment" "SNOOP_SECRET is set"; else refused "find the caller's environment" "the variable is not there"; fi
extra=0
# By the shell alone: what it starts another program with would be one more descriptor.
for fd in "/proc/$$/fd"/*; do
    case "${fd##*/}" in [012]) continue ;; esac
    if [ -e "$fd" ] && ! [ "$fd" -ef "$0" ]; then extra=$((extra + 1)); name=${fd##*/}; fi
done
if [ "$extra" -gt 0 ]; then leaked "find an inherited descriptor" "$name"; else refused "find an inherited descriptor" "only the three of its own"; fi

echo "processes"
seen=0
found=""
for process in /proc/[0-9]*; do
    seen=$((seen + 1))
    # Its own command line may have the word too.
    [ "${process##*/}" = "$$" ] && continue
    line=$(tr '\000' ' ' 2>/dev/null < "$process/cmdline") || continue
    case "$line" in *"${SNOOP_WORD:-no word was given}"*) found=${process##*/} ;; esac
done
if [ -n "$found" ]; then leaked "find a process of the host" "number $found"; else refused "find a process of the host" "it is not among the $seen here"; fi
if [ "$seen" -gt 8 ]; then leaked "count processes" "$seen are visible"; else refused "count processes" "$seen are visible, the guest and these"; fi
read_file /proc/1/environ
read_file /proc/1/mem
list_dir /proc/1/fd
list_dir /proc/1/root
run_it "enter the namespaces of process 1" nsenter -t 1 -m -- true

echo "kernel and devices"
read_file /proc/kcore
read_file /proc/kmsg
read_file /dev/kmsg
read_file /dev/mem
run_it "read the kernel log" dmesg
address=$(head -n 1 /proc/kallsyms 2>/dev/null | cut -d ' ' -f 1)
case "$address" in *[1-9a-f]*) leaked "read kernel addresses" "$address" ;; *) refused "read kernel addresses" "hidden" ;; esac
open_to_write /proc/sysrq-trigger
open_to_write /proc/sys/kernel/core_pattern
open_to_write /proc/sys/vm/drop_caches
writable=$(find /sys /proc/sys -type f -writable 2>/dev/null | head -n 1)
if [ -n "$writable" ]; then leaked "find a kernel setting to change" "$writable"; else refused "find a kernel setting to change" "none can be written"; fi
disk=$(find /dev -type b 2>/dev/null | head -n 1)
if [ -n "$disk" ]; then leaked "find a disk" "$disk"; else refused "find a disk" "no block device is here"; fi
run_it "make a device" mknod "${TMPDIR:-/tmp}/snoop.disk" b 8 0
run_it "mount a file system" mount -t tmpfs none /mnt
run_it "make a user namespace of its own" unshare --user --map-root-user true
run_it "change the root" chroot / true
run_it "become root" su root -c true
rights=$(sed -n 's/^CapEff:[^0-9a-f]*//p' /proc/self/status 2>/dev/null)
case "$rights" in *[1-9a-f]*) leaked "hold a capability" "$rights" ;; *) refused "hold a capability" "it has none" ;; esac
make_file /usr/bin/snoop-was-here
make_file /etc/snoop-was-here
make_file /snoop-was-here

echo "network"
cards=$(sed -n 's/^ *\([^ :]*\):.*/\1/p' /proc/net/dev 2>/dev/null | grep -v '^lo$' | tr '\n' ' ')
if [ -n "$cards" ]; then leaked "find a network interface" "$cards"; else refused "find a network interface" "at most loopback is here"; fi
connect_to 127.0.0.1 "${SNOOP_PORT:-22}"
connect_to 1.1.1.1 53
connect_to 169.254.169.254 80
run_it "resolve a name" getent hosts debian.org
ask_perl "connect to a Unix socket of the host" \
    'socket(my $s, 1, 1, 0) or die "$!\n"; connect($s, pack("S a*", 1, "\0$ARGV[0]")) or die "$!\n"' "${SNOOP_SOCKET:-/org/freedesktop/systemd1}"
ask_perl "listen to all traffic (packet socket)" 'socket(my $s, 17, 3, 768) or die "$!\n"'
ask_perl "reach the hypervisor (vsock)" 'socket(my $s, 40, 1, 0) or die "$!\n"'

echo "snoop: $tried attempts, $leaks leaked"
[ "$leaks" -eq 0 ]
