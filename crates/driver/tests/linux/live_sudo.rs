//! `sudo` for the user of a sandbox that allows root, and what a hostile one makes of it.

use crate::live_root::writable_world;
use crate::outside::{guest_and_launcher, processes_in, status};
use crate::world::until;

#[tokio::test]
async fn sudo_runs_commands_as_root_with_the_streams_and_the_exit_code() {
    let world = writable_world!();
    let served = world.serve(true).await;
    for (script, seen, code) in [
        ("sudo id -u", "0\n", 0),
        ("sudo sh -c 'exit 7'", "", 7),
        ("sudo sh -c 'kill -9 $$'", "", 137),
        ("echo in | sudo tee /etc/of-sudo", "in\n", 0),
        ("cat /etc/of-sudo; stat -c %U /etc/of-sudo", "in\nroot\n", 0),
        (
            "sudo -u user id -un; sudo -u '#33' id -u 2>&1; sudo sudo id -u",
            "user\n33\n0\n",
            0,
        ),
        ("sudo -n true && sudo -v && sudo -k && echo ok", "ok\n", 0),
        (
            "cd /tmp && sudo pwd; sudo -i pwd; sudo -s pwd",
            "/tmp\n/root\n/tmp\n",
            0,
        ),
        (
            "FOO=1 sudo printenv FOO; FOO=1 sudo -E printenv FOO; sudo FOO=2 printenv FOO",
            "1\n2\n",
            0,
        ),
        (
            "sudo sh -c 'echo $HOME $USER $SUDO_USER $SUDO_UID'; sudo -E sh -c 'echo $HOME'",
            "/root root user 1000\n/home/user\n",
            0,
        ),
        ("sudo -i echo 'a  b' '$HOME'", "a  b /root\n", 0),
        ("https_proxy=p sudo printenv https_proxy", "p\n", 0),
        (
            "sudo nothing-here",
            "sudo: nothing-here: command not found\n",
            1,
        ),
        (
            "sudo -S true 2>&1 | head -1",
            "sudo: -S is no option of the sudo of a sandbox\n",
            0,
        ),
        (
            "sudo -u nobody-here true",
            "sudo: unknown user nobody-here\n",
            1,
        ),
        (
            "sudo -- sh -c 'echo out; echo err >&2' 2>/dev/null",
            "out\n",
            0,
        ),
        (
            "/usr/local/bin/sudo id -u; ls -l /usr/bin/sudo | cut -c1-10",
            "0\n-rwxr-xr-x\n",
            0,
        ),
        (
            "sudo grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status",
            "CapEff:\t00000000000000eb\nNoNewPrivs:\t1\nSeccomp:\t2\n",
            0,
        ),
    ] {
        assert_eq!(served.sh(script).await, (seen.to_owned(), code), "{script}");
    }
    served.destroy().await;
    let without = world.serve(false).await;
    assert_ne!(without.sh("sudo -n true").await.1, 0);
    without.destroy().await;
}

#[tokio::test]
async fn a_signal_for_sudo_reaches_the_command_and_without_sudo_there_is_no_command() {
    let world = writable_world!();
    let served = world.serve(true).await;
    let script = "sudo sh -c 'trap \"echo got; exit 5\" TERM; echo up; while :; do sleep 0.05; done' > /tmp/out & p=$!
        until grep -q up /tmp/out; do sleep 0.02; done; kill -TERM $p; wait $p; echo $?; cat /tmp/out";
    let (seen, _) = served.sh(script).await;
    assert!(seen.ends_with("5\nup\ngot\n"), "{seen}");
    let script = "readlink /proc/self/ns/pid; sudo sleep 1234 & \
        until grep -qs '^sleep$' /proc/[0-9]*/comm; do sleep 0.02; done; kill -9 $!";
    let (seen, _) = served.sh(script).await;
    let pid_ns = seen.lines().next().unwrap_or_default().to_owned();
    // The guest, and the process that stands ready.
    let alone = until(|| processes_in(&pid_ns).len() == 2).await;
    assert!(alone, "{:?}", processes_in(&pid_ns));
    served.destroy().await;
}

/// Everything that the program does not do.
const HOSTILE: &str = r#"python3 - <<'E'
import socket, os, array, struct, threading
def conn():
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.settimeout(8); s.connect('/run/sudo.sock'); return s
def fds(*n): return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', n))]
def answer(s):
    try: return s.recv(100)[:1]
    except OSError as e: return repr(e)
refused = b'\x03'
def is_refused(*parts):
    s = conn()
    try: s.sendmsg(*parts)
    except OSError: return
    got = answer(s); assert got == refused, (parts, got)
is_refused([b'\xff' * 1000])
is_refused([b'\x01\x02id\x00\x01/'], fds(0, 1))
is_refused([b'\x01\x02id\x00\x01/'], fds(*([0] * 200)))
is_refused([b'\xff\xff\xff\xff\x0f'], fds(0, 1, 2))
is_refused([b'a' * 150000], fds(0, 1, 2))
s = conn(); s.close()
# What is closed last makes whoever closes it wait.
l = socket.socket(); l.bind(('127.0.0.1', 0)); l.listen(1)
t = socket.create_connection(l.getsockname()); p, _ = l.accept()
t.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 3600)); t.setblocking(False)
try:
    while True: t.send(b'x' * 65536)
except BlockingIOError: pass
s = conn(); s.sendmsg([b'junk'], fds(t.fileno(), 1, 2))
# Beside: the guest may have closed it already, and then this is who waits.
threading.Thread(target=t.close, daemon=True).start()
many = []
for i in range(3000):
    try: s = conn()
    except OSError: break
    many.append(s)
    if len(many) > 100: many.pop(0).close()
print('survived')
E"#;

/// Attack: `sudo` is asked by a program that lies, floods and never reads.
#[tokio::test]
async fn a_hostile_caller_of_sudo_holds_up_nobody_but_others_who_ask() {
    let world = writable_world!();
    let served = world.serve(true).await;
    if served.sh("python3 -c 1").await.1 != 0 {
        println!("skipped: no python3 can play the hostile caller");
        return served.destroy().await;
    }
    let pid_ns = served.sh("readlink /proc/self/ns/pid").await.0;
    let (seen, code) = served.sh(HOSTILE).await;
    assert!(code == 0 && seen.ends_with("survived\n"), "{seen}");
    assert_eq!(served.get("/health").await.status, 204);
    // Those who have said nothing lose their turn.
    assert_eq!(served.sh("sudo -n id -u").await.0, "0\n");
    let (guest, _) = guest_and_launcher(pid_ns.trim());
    assert_eq!(status(guest, "Threads").as_deref(), Some("1"));
    // The name is root's: a user can neither take it away nor put another in its place.
    let script =
        "rm -f /run/sudo.sock 2>/dev/null; mv /run/sudo.sock /tmp/x 2>/dev/null; sudo id -u";
    assert_eq!(served.sh(script).await.0, "0\n");
    // Whoever is neither the user nor root is not listened to.
    let (seen, _) = served
        .sh("sudo -u '#33' true; sudo -u www-data sudo id -u 2>&1")
        .await;
    assert!(seen.ends_with("sudo: the sandbox refuses it\n"), "{seen}");
    served.destroy().await;
}

#[tokio::test]
async fn many_ask_at_once_and_all_are_served() {
    let world = writable_world!();
    let served = world.serve(true).await;
    let script = "for i in $(seq 50); do sudo echo $i & done | wc -l; wait";
    assert_eq!(served.sh(script).await.0, "50\n");
    served.destroy().await;
}
