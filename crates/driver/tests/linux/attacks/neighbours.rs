//! One sandbox against another, and one against the proxy that all share.

use super::Inside;
use model::network::NetworkMode;
use serde_json::json;

#[tokio::test]
async fn sandboxes_have_nothing_of_each_other() {
    let world = world!();
    let mut inside = inside_with_a_device!(world);
    tries!(inside:
        the_proxy_of_another_sandbox, a_listener_of_another_sandbox, the_first_process_as_a_server, an_address_of_another_sandboxes_name,
        half_open_connections, heads_that_drip, answers_that_nobody_reads, connections_to_nowhere, names_that_are_new_to_all);
}

/// The proxy's port of one sandbox is asked for by another, which has other rules, and by one that has no way out.
/// > It is on the loopback of the one alone: the other finds its own there, with its own rules, and the third nobody.
async fn the_proxy_of_another_sandbox(inside: &mut Inside<'_>) {
    let beside = inside.beside().await;
    inside.rules(NetworkMode::Allowlist, &["open.test"], &[]);
    beside.rules(NetworkMode::Allowlist, &["other.test"], &[]);
    let asks = "print(*ways(b'open.test', OPEN), *ways(b'other.test', OPEN))";
    let one = inside.says(asks).await;
    assert_eq!(one, "200 200 0 403 host_not_allowed 403 host_not_allowed 2");
    // Both have a node that brings them lines.
    let two = inside.while_served(beside.says(asks)).await;
    assert_eq!(two, "403 host_not_allowed 403 host_not_allowed 2 200 200 0");
    let reach =
        "print(*[direct(host, 3128) for host in ('198.18.0.0', '198.18.0.1', '198.18.0.2')])";
    let reached = inside.while_served(beside.says(reach)).await;
    assert!(!reached.contains("connected"), "{reached}");
    beside.end().await;
    // The first has its way out open while the third looks, which has none.
    let world = inside.served().world;
    let shut = world.serve(false).await;
    let looking = async {
        let knock = "python3 -c 'import socket; print(socket.socket().connect_ex((\"127.0.0.1\", 3128)), socket.socket().connect_ex((\"198.18.0.2\", 3128)))'";
        shut.sh(knock).await.0
    };
    let said = inside.while_served(looking).await;
    assert_eq!(said, "111 101\n");
    shut.destroy().await;
}

/// A server in one sandbox, for a program in another.
/// > Their networks have nothing in common: refused on every way.
async fn a_listener_of_another_sandbox(inside: &mut Inside<'_>) {
    let beside = inside.beside().await;
    let listens = "import socket,time; s=socket.socket(); s.bind((\"0.0.0.0\",8000)); s.listen(); print(\"ready\",flush=True); time.sleep(60)";
    let mut listening = beside
        .served()
        .start(&format!("exec python3 -c '{listens}'"))
        .await;
    listening.until("ready\n").await;
    let said = inside.says("print(*[direct(host, 8000) for host in ('127.0.0.1', '198.18.0.0', '198.18.0.1', '198.18.0.2')], *ways(b'127.0.0.1', 8000))").await;
    assert!(
        !said.contains("connected") && !said.contains("200"),
        "{said}"
    );
    beside.end().await;
}

/// The first process of the sandbox answers the node; the workload asks it to open ways or to read files.
/// > Its socket is nowhere inside.
async fn the_first_process_as_a_server(inside: &mut Inside<'_>) {
    let said = inside.sh("find / -xdev -type s 2>/dev/null | grep -v sudo.sock; for p in 49982 49983 49999; do python3 -c \"import socket; print(socket.socket().connect_ex(('127.0.0.1', $p)))\"; done").await;
    assert_eq!(said, "111\n111\n111");
}

/// An address that stands for a name in one sandbox, used in another with other rules.
/// > It stands for nothing there.
async fn an_address_of_another_sandboxes_name(inside: &mut Inside<'_>) {
    let address = inside
        .says("print(socket.gethostbyname('open.test'))")
        .await;
    let beside = inside.beside().await;
    let said = beside
        .says(&format!("print(direct('{address}', OPEN))"))
        .await;
    assert_eq!(said, "ECONNREFUSED");
    beside.end().await;
}

/// Whether a neighbour is served at once while this goes on, and this sandbox again afterwards.
async fn neighbour_is_served(inside: &Inside<'_>, attack: &str) {
    let beside = inside.beside().await;
    let script = format!(
        "cd /tmp; exec python3 -u - <<'E'\nfrom attack import *\nOPEN, ECHO, TRAP = {}, {}, {}\n{attack}\nprint('ready')\ntime.sleep(300)\nE",
        inside.open, inside.echo, inside.trap
    );
    let mut attacking = inside.served().start(&script).await;
    let pid = attacking.pid().await;
    let said = inside.while_served(async {
        attacking.until("ready\n").await;
        beside.says("t = time.monotonic(); print(get(b'open.test', OPEN), connect(b'open.test', ECHO)[0], direct('open.test', OPEN), time.monotonic() - t < 5)").await
    });
    assert_eq!(said.await, "200 200 connected True", "{attack}");
    beside.end().await;
    // By whoever started it: programs of one sandbox may not signal each other.
    let kill = json!({"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"});
    let killed = inside.served().call("process.Process/SendSignal", kill);
    killed.await.expect("a process to kill");
    let again = inside.says("print(get(b'open.test', OPEN))").await;
    assert_eq!(again, "200", "{attack}");
}

/// A flood of connections to the proxy that say nothing.
/// > A sandbox has 1,024 at a time and more wait; its neighbour is served at once, and it itself when they end.
async fn half_open_connections(inside: &mut Inside<'_>) {
    neighbour_is_served(inside, "all = []\nfor n in range(3000):\n    try:\n        s = socket.socket(); s.setblocking(False); s.connect_ex(PROXY); all.append(s)\n    except OSError: break").await;
}

/// Slow drip: hundreds of heads that come a byte at a time and never end.
/// > Nobody else waits for them. That each is given up in time, `a_head_that_drips_or_never_comes_is_given_up` shows.
async fn heads_that_drip(inside: &mut Inside<'_>) {
    neighbour_is_served(inside, "all = []\nfor n in range(400):\n    try:\n        s = dial(); s.sendall(b'GET http://open.test/ HTTP/1.1\\r\\nx: '); all.append(s)\n    except OSError: break\n\
        for _ in range(3):\n    for s in all: s.sendall(b'y')\n    time.sleep(0.05)").await;
}

/// Much is asked for and nothing is read.
/// > What waits is bounded for each connection, and the server outside waits with it.
async fn answers_that_nobody_reads(inside: &mut Inside<'_>) {
    neighbour_is_served(inside, "all = []\nfor n in range(60):\n    said, s = connect(b'open.test', ECHO)\n    s.setblocking(False); all.append(s)\n    \
        try:\n        while True: s.send(b'\\1' + b'x' * 65536)\n    except OSError: pass").await;
}

/// A flood of connections by programs that know no proxy, to addresses where nobody answers.
/// > They have a bound of their own, and the neighbour has its own.
async fn connections_to_nowhere(inside: &mut Inside<'_>) {
    neighbour_is_served(inside, "all = []\nfor n in range(3000):\n    try:\n        s = socket.socket(); s.setblocking(False); s.connect_ex(('10.0.%d.%d' % (n // 250, n % 250), 80)); all.append(s)\n    except OSError: break").await;
}

/// Names are asked for without end, so that nobody else's are resolved.
/// > A sandbox has eight questions at a time and 300 new names in a minute.
async fn names_that_are_new_to_all(inside: &mut Inside<'_>) {
    neighbour_is_served(inside, "d = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); d.setblocking(False)\nfor n in range(5000):\n    \
        try: d.sendto(b'\\x12\\x34\\1\\0\\0\\1' + bytes(6) + b'\\5m%04d\\4test\\0\\0\\1\\0\\1' % n, ('198.18.0.1', 53))\n    except OSError: pass").await;
    inside.start_a_minute();
}
