//! Attacks on the network device with the real kernel. Each begins with a sentence on what the attacker wants.

use crate::tun::{echo, guest_kib, is_given_back, outside, served};

/// Prints what happened to each thing that was tried.
const TRY: &str = r#"
def tried(what, act):
    try: print(what, act())
    except OSError as e: print(what, errno.errorcode.get(e.errno, 'timeout'))
"#;

/// The attack: a socket that makes its own packets, or speaks to something other than the internet, goes around the
/// stack and the decision.
#[tokio::test]
async fn no_socket_goes_around_the_device() {
    let world = world!();
    let served = served!(world);
    let script = r#"
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
kinds = {'raw4': (2, 3, 1), 'raw4-ip': (2, 3, 255), 'raw6': (10, 3, 58), 'raw6-ip': (10, 3, 255), 'ping': (2, 2, 1),
         'ping6': (10, 2, 58), 'packet': (17, 3, 0x300), 'packet-dgram': (17, 2, 0x300), 'vsock': (40, 1, 0),
         'vsock-dgram': (40, 2, 0), 'xdp': (44, 3, 0), 'sctp': (2, 1, 132), 'udplite': (2, 2, 136), 'dccp': (2, 6, 33),
         'tipc': (30, 1, 0), 'bluetooth': (31, 3, 0), 'can': (29, 3, 1), 'key': (15, 3, 2), 'ax25': (3, 5, 0)}
for name, kind in kinds.items():
    fd = libc.socket(*kind)
    print(name, 'open' if fd >= 0 else 'none')
"#;
    let script = format!("python3 - <<'E'{script}E");
    for said in [served.sh(&script).await.0, served.as_root(&script).await.0] {
        assert_eq!(said.matches(" none\n").count(), 19, "{said}");
    }
    served.destroy().await;
}

/// The attack: packets that name another sender, to be carried in somebody else's name or answered to somebody else.
#[tokio::test]
async fn a_forged_sender_is_not_carried() {
    let world = world!();
    let served = served!(world);
    let port = echo().await;
    let mut outside = outside(&served, &[format!("127.0.0.1:{port}")]);
    let script = format!(
        "{TRY}\n\
         def forged(family, level, option, source, to):\n    \
         s = socket.socket(family); s.settimeout(1)\n    \
         if option:\n        try: s.setsockopt(level, option, 1)\n        except OSError: pass\n    \
         s.bind((source, 0)); s.connect(to); return 'connected'\n\
         to = (socket.gethostbyname('here.test'), {port})\n\
         tried('own', lambda: forged(socket.AF_INET, 0, 0, '198.18.0.2', to))\n\
         tried('loopback', lambda: forged(socket.AF_INET, 0, 0, '127.0.0.1', to))\n\
         tried('free', lambda: forged(socket.AF_INET, 0, 15, '9.9.9.9', to))\n\
         tried('transparent', lambda: forged(socket.AF_INET, 0, 19, '9.9.9.9', to))\n\
         tried('neighbour', lambda: forged(socket.AF_INET, 0, 15, '198.18.0.3', to))\n\
         tried('loopback6', lambda: forged(socket.AF_INET6, 0, 0, '::1', ('2606:4700::1111', 443)))\n\
         tried('free6', lambda: forged(socket.AF_INET6, 41, 78, '2001:db8::9', ('2606:4700::1111', 443)))\n\
         tried('transparent6', lambda: forged(socket.AF_INET6, 41, 75, '2001:db8::9', ('2606:4700::1111', 443)))"
    );
    let said = outside.python(&served, &script).await;
    assert!(said.starts_with("own connected\n"), "{said}");
    assert_eq!(said.matches("connected").count(), 1, "{said}");
    assert_eq!(said.lines().count(), 8, "{said}");
    let recorded = outside.recorded();
    let asked = recorded.iter().filter(|one| one.starts_with("direct"));
    assert_eq!(asked.count(), 1, "{recorded:?}");
    served.destroy().await;
}

/// The attack: packets in pieces, with headers between, or longer than any, so that what is looked at is not what is
/// carried, or so that whoever puts them together breaks.
#[tokio::test]
async fn pieces_headers_between_and_lengths_of_every_kind_break_nothing() {
    let world = world!();
    let served = served!(world);
    let port = echo().await;
    let mut outside = outside(&served, &[format!("127.0.0.1:{port}")]);
    let script = format!(
        "{TRY}\n\
         def six(kind=socket.SOCK_DGRAM): s = socket.socket(socket.AF_INET6, kind); s.settimeout(2); return s\n\
         def answer(s, data, to):\n    s.connect(to); s.send(data); return s.recv(9)\n\
         def pieces():\n    s = six(); s.setsockopt(41, 24, 1280); return answer(s, b'x' * 9000, ('2606:4700::1', 443))\n\
         def routed(kind):\n    s = six(kind); s.setsockopt(41, 57, bytes([0, 2, 4, 0, 0, 0, 0, 0]) + bytes([0x26, 6] + [0] * 13 + [7])); \
         return answer(s, b'x', ('2606:4700::2', 443))\n\
         def option(level, name):\n    s = six(); s.setsockopt(level, name, bytes(8)); return 'set'\n\
         tried('pieces', pieces)\n\
         tried('routed', lambda: routed(socket.SOCK_DGRAM)); tried('routed-tcp', lambda: routed(socket.SOCK_STREAM))\n\
         tried('hop', lambda: option(41, 54)); tried('dst', lambda: option(41, 59)); tried('rthdrdst', lambda: option(41, 55))\n\
         d = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); d.settimeout(2)\n\
         tried('longest', lambda: answer(d, b'x' * 65507, ('9.9.9.9', 443)))\n\
         tried('too-long', lambda: answer(d, b'x' * 65508, ('9.9.9.9', 443)))\n\
         tried('longest6', lambda: answer(six(), b'x' * 65487, ('2606:4700::3', 443)))\n\
         q = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); q.settimeout(1)\n\
         tried('question', lambda: answer(q, b'x' * 65507, ('198.18.0.1', 53)))\n\
         tried('nothing', lambda: answer(q, b'', ('198.18.0.1', 53)))\n\
         s = socket.create_connection(('here.test', {port}), 9); s.sendall(b'alive'); print(s.recv(5))"
    );
    let said = outside.python(&served, &script).await;
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 12, "{said}");
    // Nothing of these was answered by anybody.
    assert_eq!(said.matches("b'").count(), 1, "{said}");
    for (line, expect) in [
        (lines[3], "hop EPERM"),
        (lines[4], "dst EPERM"),
        (lines[5], "rthdrdst EPERM"),
        (lines[6], "longest ECONNREFUSED"),
        (lines[7], "too-long EMSGSIZE"),
        (lines[8], "longest6 ECONNREFUSED"),
        (lines[9], "question timeout"),
        (lines[11], "b'alive'"),
    ] {
        assert_eq!(line, expect, "{said}");
    }
    // The name, the connection, and at least three datagrams; some kernels refuse routing headers themselves.
    let recorded = outside.recorded_in_all(&served, 5).await;
    let refused = recorded.iter().filter(|one| one.ends_with(" not_carried"));
    assert!(refused.count() >= 3, "{recorded:?}");
    served.destroy().await;
}

/// The attack: connections that are begun and never spoken on, so many that there is no place for others or that the
/// guest grows.
#[tokio::test]
async fn half_open_connections_are_bounded_and_their_places_come_back() {
    let world = world!();
    let served = served!(world);
    let port = echo().await;
    let outside = outside(&served, &[format!("127.0.0.1:{port}")]);
    let before = guest_kib(&served).await;
    let script = format!(
        "to = (socket.gethostbyname('here.test'), {port})\n\
         for _ in range(2):\n    all = []\n    \
         for n in range(1500):\n        s = socket.socket(); s.setblocking(False); s.connect_ex(to); all.append(s)\n    \
         for n in range(1500):\n        s = socket.socket(socket.AF_INET6); s.setblocking(False); \
         s.connect_ex(('2001:db8::%x' % n, 443)); all.append(s)\n    \
         time.sleep(2)\n    \
         for s in all: s.close()\n\
         until = time.monotonic() + 40\n\
         while time.monotonic() < until:\n    \
         try: s = socket.create_connection(to, 5); s.sendall(b'alive'); print(s.recv(5)); break\n    \
         except OSError: pass"
    );
    assert_eq!(outside.python(&served, &script).await, "b'alive'\n");
    is_given_back(&served, before + 12_288).await;
    served.destroy().await;
}

/// The attack: questions that are cut, endless, or many in one stream, to whoever answers names over TCP.
#[tokio::test]
async fn questions_over_tcp_that_make_no_sense_end_their_connection_and_nothing_else() {
    let world = world!();
    let served = served!(world);
    let outside = outside(&served, &[]);
    let script = "q = b'\\x12\\x34\\x01\\0\\0\\1' + bytes(6) + b'\\4here\\4test\\0\\0\\1\\0\\1'\n\
        whole = struct.pack('>H', len(q)) + q\n\
        def say(data):\n    s = socket.create_connection(('198.18.0.1', 53), 9); s.settimeout(15)\n    \
        got = b''\n    \
        try:\n        s.sendall(data); s.shutdown(1)\n        while True:\n            part = s.recv(9999)\n            if not part: return got\n            got += part\n    \
        except OSError: return got\n\
        print(len(say(whole)) > len(whole), len(say(whole * 20)) > 20 * len(whole))\n\
        for data in [b'', b'\\0', b'\\xff\\xff' + bytes(70000), b'\\0\\0', whole[:-3], struct.pack('>H', 12) + bytes([0x12, 0x34, 0x81] + [0] * 9), \
        struct.pack('>H', len(q)) + q[:12] + b'\\xc0\\x0c' + q[14:]]:\n    print(len(say(data)) < 40)\n\
        idle = [socket.create_connection(('198.18.0.1', 53), 9) for _ in range(16)]\n\
        try: socket.create_connection(('198.18.0.1', 53), 9); print('more')\n\
        except OSError: print('bounded')\n\
        print(socket.gethostbyname('here.test'))";
    let said = outside.python(&served, script).await;
    let expect = format!("True True\n{}bounded\n198.18.1.1\n", "True\n".repeat(7));
    assert_eq!(said, expect);
    served.destroy().await;
}
