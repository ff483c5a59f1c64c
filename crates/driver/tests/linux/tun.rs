//! Programs that know no proxy: their connections and names come to the same proxy, and nothing else of theirs goes
//! anywhere. No program here has heard of port 3128.

use crate::egress::{bring, hello};
use crate::live_client::Served;
use crate::world::{DEFAULTS, World};
use driver::conformance::spec;
use driver::driver::{Driver as _, Mode as For, Spec};
use egress::proxy::{Proxy, Way};
use egress::record::{EgressRecord, Owner, Verdict};
use egress::resolve::Resolver;
use model::network::NetworkRules;
use std::io;
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// The guest tells each program of the proxy once there is one; these are not to know.
const FORGET: &str = "unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY";

/// The longest of these takes a few seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// A sandbox with a device, or the end of the test where there is none.
macro_rules! served {
    ($world:expr) => {
        served!($world, true)
    };
    ($world:expr, $way_out:expr) => {{
        if let Some(why) = &$world.host.no_tun {
            println!("skipped: {why}");
            return;
        }
        if !std::path::Path::new("/usr/bin/python3").exists() {
            println!("skipped: there is no python3 to connect with");
            return;
        }
        crate::tun::serve(&$world, $way_out).await
    }};
}
pub(crate) use served;

pub(crate) async fn serve(world: &World, way_out: bool) -> Served<'_> {
    let spec = Spec {
        mode: For::Live { allow_root: true },
        way_out,
        ..spec(DEFAULTS)
    };
    world.serve_with(spec, true).await
}

pub(crate) struct Outside {
    pub(crate) way: Way,
    records: mpsc::Receiver<EgressRecord>,
}

/// A proxy with these exceptions. `here.test` is this machine, `private.test` another one that nobody may reach.
pub(crate) fn outside(served: &Served<'_>, exceptions: &[String]) -> Outside {
    let exceptions = exceptions.iter().map(|one| one.parse().expect("one"));
    let resolver = Resolver::with(|name| {
        Box::pin(async move {
            match &*name {
                "private.test" => Ok(vec![IpAddr::from([10, 0, 0, 1])]),
                "six.here.test" => Ok(vec![IpAddr::V6(Ipv6Addr::LOCALHOST)]),
                "both.here.test" => Ok(vec![
                    IpAddr::V6(Ipv6Addr::LOCALHOST),
                    IpAddr::from([127, 0, 0, 1]),
                ]),
                name if name.ends_with("here.test") => Ok(vec![IpAddr::from([127, 0, 0, 1])]),
                _ => Err(io::ErrorKind::NotFound.into()),
            }
        })
    });
    let (proxy, records) = Proxy::new(exceptions.collect(), resolver, 4096, || 0);
    let owner = Owner {
        sandbox: served.plan.handle.id.clone(),
        job: None,
    };
    let way = proxy.way(owner, NetworkRules::all_or_nothing(true));
    Outside { way, records }
}

impl Outside {
    /// What a Python program in the sandbox says, while a node brings lines.
    pub(crate) async fn python(&self, served: &Served<'_>, script: &str) -> String {
        let script = format!(
            "{FORGET}; python3 - <<'E'\nimport errno, socket, struct, sys, time\n{script}\nE"
        );
        let running = async {
            tokio::select! {
                (said, _) = served.sh(&script) => said,
                () = async { bring(served, &self.way, usize::MAX).await } => String::new(),
            }
        };
        let said = tokio::time::timeout(PATIENCE, running).await;
        said.expect("an end in time")
    }

    /// What was recorded so far: how, whom, at which port, and why not.
    pub(crate) fn recorded(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        while let Ok(record) = self.records.try_recv() {
            all.push(in_words(record));
        }
        all
    }

    /// The same, sorted, once there are so many: programs do not wait for what is told of them.
    pub(crate) async fn recorded_in_all(
        &mut self,
        served: &Served<'_>,
        count: usize,
    ) -> Vec<String> {
        let Outside { way, records } = self;
        let mut all = Vec::new();
        let receiving = async {
            while all.len() < count {
                let record = records.recv().await;
                all.push(in_words(record.expect("a proxy")));
            }
        };
        tokio::select! {
            ended = tokio::time::timeout(PATIENCE, receiving) => ended.expect("records in time"),
            () = async { bring(served, way, usize::MAX).await } => {}
        }
        all.sort();
        all
    }
}

fn in_words(record: EgressRecord) -> String {
    let why = match record.verdict {
        Verdict::Allowed => "allowed",
        Verdict::Denied(reason) | Verdict::Failed(reason) => reason.code(),
    };
    let host = record.host.map(|host| host.to_string()).unwrap_or_default();
    let how = record.method.as_str();
    format!("{how} {host} {} {why}", record.port)
}

/// The address by which this machine would reach the world.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

/// A server that sends everything back, and ends when the client does.
pub(crate) async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                drop(tokio::io::copy(&mut from, &mut to).await);
            });
        }
    });
    port
}

#[tokio::test]
async fn a_program_reaches_what_is_allowed_by_name_and_by_address() {
    let world = world!();
    let served = served!(world);
    let port = hello().await;
    let mut open = vec![format!("127.0.0.1:{port}")];
    let mut urls = vec![format!("http://here.test:{port}/")];
    if let Some(own) = own_address() {
        open.push(format!("{own}:{port}"));
        urls.push(format!("http://{own}:{port}/"));
    }
    let mut outside = outside(&served, &open);
    for url in urls {
        let get = format!("import urllib.request\nprint(urllib.request.urlopen('{url}').read())");
        assert_eq!(outside.python(&served, &get).await, "b'hello'\n", "{url}");
        if std::path::Path::new("/usr/bin/curl").exists() {
            let get = format!("import os\nos.execvp('curl', ['curl', '-sS', '{url}'])");
            assert_eq!(outside.python(&served, &get).await, "hello", "{url}");
        }
    }
    let recorded = outside.recorded();
    assert_eq!(recorded[0], "dns here.test 0 allowed");
    assert_eq!(recorded[1], format!("direct here.test {port} allowed"));
    served.destroy().await;
}

#[tokio::test]
async fn what_is_not_allowed_is_refused_at_once_and_recorded() {
    let world = world!();
    let served = served!(world);
    let mut outside = outside(&served, &[]);
    let script = "for host in ['10.1.2.3', '169.254.169.254', '192.0.2.9', '198.18.0.1', '198.18.7.7', 'private.test']:\n    \
        s = socket.socket(); t = time.monotonic()\n    \
        print(host, errno.errorcode[s.connect_ex((host, 80))], time.monotonic() - t < 0.9)";
    let said = outside.python(&served, script).await;
    for line in said.lines() {
        assert!(line.ends_with("ECONNREFUSED True"), "{said}");
    }
    assert_eq!(said.lines().count(), 6);
    assert_eq!(
        outside.recorded(),
        [
            "direct 10.1.2.3 80 address_private",
            "direct 169.254.169.254 80 address_metadata",
            "direct 192.0.2.9 80 address_documentation",
            "direct 198.18.7.7 80 address_documentation",
            "dns private.test 0 allowed",
            "direct private.test 80 address_private",
        ]
    );
    served.destroy().await;
}

#[tokio::test]
async fn datagrams_are_refused_at_once_and_raw_and_packet_sockets_are_not_to_be_had() {
    let world = world!();
    let served = served!(world);
    let mut outside = outside(&served, &[]);
    let script = "for to in [('9.9.9.9', 443), ('9.9.9.9', 53), ('198.18.0.1', 5353)]:\n    \
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); s.connect(to); s.send(b'hello')\n    \
        try: s.recv(9)\n    except OSError as e: print(errno.errorcode[e.errno])\n\
        for family, kind, protocol in [(socket.AF_INET, socket.SOCK_RAW, 1), (socket.AF_INET, socket.SOCK_RAW, 255), \
        (socket.AF_PACKET, socket.SOCK_RAW, 0x300), (socket.AF_PACKET, socket.SOCK_DGRAM, 0x300)]:\n    \
        try: socket.socket(family, kind, protocol); print('open')\n    except OSError as e: print('none')";
    let said = outside.python(&served, script).await;
    let refused = "ECONNREFUSED\n".repeat(3);
    let none = "none\n".repeat(4);
    assert_eq!(said, format!("{refused}{none}"));
    assert_eq!(
        outside.recorded_in_all(&served, 3).await,
        [
            "udp 198.18.0.1 5353 not_carried",
            "udp 9.9.9.9 443 not_carried",
            "udp 9.9.9.9 53 not_carried",
        ]
    );
    served.destroy().await;
}

/// Asks the resolver with bytes of its own, over UDP or TCP, and prints the code and the last four bytes of
/// each answer.
const RAW: &str = r#"
def ask(name, kind, tcp=False):
    q = b'\x12\x34\x01\x00\x00\x01' + bytes(6)
    for label in name.split('.'): q += bytes([len(label)]) + label.encode()
    q += b'\0' + struct.pack('>HH', kind, 1)
    if tcp:
        s = socket.create_connection(('198.18.0.1', 53), 9); s.sendall(struct.pack('>H', len(q)) + q)
        n, = struct.unpack('>H', s.recv(2)); a = s.recv(n)
    else:
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(9)
        s.sendto(q, ('198.18.0.1', 53)); a, _ = s.recvfrom(999)
    print(name, kind, a[3] & 15, socket.inet_ntoa(a[-4:]) if a[7] else '-')
"#;

#[tokio::test]
async fn names_have_addresses_of_the_sandboxes_own_or_none() {
    let world = world!();
    let served = served!(world);
    let mut outside = outside(&served, &[]);
    let script = format!(
        "{RAW}\n\
         for kind in (1, 28, 65, 15, 16, 33, 255): ask('here.test', kind)\n\
         ask('here.test', 1, True); ask('Also.Here.TEST', 1); ask('gone.test', 1); ask('gone.test', 28)\n\
         ask('localhost', 1); ask('1.1.18.198.in-addr.arpa', 12); ask('1.2.3.4', 1); ask('x' * 40 + '.' + \
         'abcdefghijklmnopqrstuvwxyz234567' + '.' + 'zyxwvutsrqponmlkjihgfedcba765432x' + '.here.test', 1)\n\
         try: socket.getaddrinfo('gone.test', 80)\nexcept socket.gaierror as e: print(e.errno == socket.EAI_NONAME)"
    );
    let said = outside.python(&served, &script).await;
    let expect = "here.test 1 0 198.18.1.1\nhere.test 28 0 -\nhere.test 65 0 -\nhere.test 15 4 -\n\
        here.test 16 4 -\nhere.test 33 4 -\nhere.test 255 4 -\nhere.test 1 0 198.18.1.1\n\
        Also.Here.TEST 1 0 198.18.1.2\ngone.test 1 3 -\ngone.test 28 3 -\nlocalhost 1 0 127.0.0.1\n\
        1.1.18.198.in-addr.arpa 12 3 -\n1.2.3.4 1 0 198.18.1.3\n";
    assert!(said.starts_with(expect), "{said}");
    assert!(said.ends_with("5 -\nTrue\n"), "{said}");
    let recorded = outside.recorded();
    assert_eq!(
        recorded[..2],
        ["dns here.test 0 allowed", "dns also.here.test 0 allowed"]
    );
    assert!(recorded.contains(&"dns gone.test 0 unknown_name".to_owned()));
    assert!(
        recorded
            .iter()
            .any(|one| one.ends_with("name_carries_data")),
        "{recorded:?}"
    );
    served.destroy().await;
}

/// Tries all that a program could do to the device, as the user and as the root of the sandbox.
pub(crate) async fn cannot_touch(served: &Served<'_>) {
    let script = r#"
import errno, fcntl, os, socket, struct
def tried(what, act):
    try: act(); print(what, 'done')
    except OSError as e: print(what, 'refused')
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
request = struct.pack('16sH22x', b'tun0', 0)
tried('open', lambda: os.open('/dev/net/tun', os.O_RDWR))
tried('mknod', lambda: os.mknod('/tmp/tun', 0o20666, os.makedev(10, 200)))
tried('down', lambda: fcntl.ioctl(s, 0x8914, request))
tried('mtu', lambda: fcntl.ioctl(s, 0x8922, struct.pack('16si20x', b'tun0', 1500)))
tried('address', lambda: fcntl.ioctl(s, 0x8916, struct.pack('16sHH4s16x', b'tun0', 2, 0, bytes([9, 9, 9, 9]))))
tried('route', lambda: fcntl.ioctl(s, 0x890B, bytes(120)))
def ask():
    n = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    n.send(struct.pack('IHHIIBBBBI', 24, 21, 0x605, 1, 0, 2, 32, 0, 0, 2) + b'')
    code, = struct.unpack('i', n.recv(99)[16:20])
    if code: raise OSError(-code, '')
tried('netlink', ask)
tried('bind', lambda: s.setsockopt(socket.SOL_IP, 19, 1))
tried('tty', lambda: os.open('/proc/1/fd/4', os.O_RDWR))
print(open('/proc/net/route').read().count('tun0'), sorted(socket.if_nameindex()) == [(1, 'lo'), (2, 'tun0')])
"#;
    let script = format!("python3 - <<'E'{script}E");
    let names = [
        "open", "mknod", "down", "mtu", "address", "route", "netlink", "bind", "tty",
    ];
    let refused: String = names.map(|name| format!("{name} refused\n")).concat();
    let expect = format!("{refused}1 True\n");
    assert_eq!(served.sh(&script).await.0, expect);
    let as_root = served.as_root(&script).await;
    assert_eq!(as_root.0, expect);
}

#[tokio::test]
async fn the_workload_cannot_touch_the_device_its_routes_or_its_addresses() {
    let world = world!();
    let served = served!(world);
    cannot_touch(&served).await;
    served.destroy().await;
}

#[tokio::test]
async fn a_thousand_connections_at_once_all_get_their_own_bytes_back() {
    let world = world!();
    let served = served!(world);
    let port = echo().await;
    let outside = outside(&served, &[format!("127.0.0.1:{port}")]);
    let before = guest_kib(&served).await;
    let script = format!(
        "to = (socket.gethostbyname('here.test'), {port})\n\
         all = [socket.socket() for _ in range(1000)]\n\
         for s in all: s.setblocking(False); s.connect_ex(to)\n\
         for s in all: s.settimeout(30)\n\
         for n, s in enumerate(all): s.sendall(b'%05d' % n * 200)\n\
         ok = 0\n\
         for n, s in enumerate(all):\n    got = b''\n    while len(got) < 1000: got += s.recv(1000)\n    \
         ok += got == b'%05d' % n * 200\n\
         for s in all: s.close()\n\
         print(ok)"
    );
    for _ in 0..2 {
        assert_eq!(outside.python(&served, &script).await, "1000\n");
    }
    // What connections took is given back when the last of them has ended.
    is_given_back(&served, before + 8192).await;
    served.destroy().await;
}

/// Waits until the guest has no more than so many KiB.
pub(crate) async fn is_given_back(served: &Served<'_>, most: u64) {
    let start = std::time::Instant::now();
    loop {
        let now = guest_kib(served).await;
        if now < most {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{now} KiB, of {most}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Private memory of the guest in KiB.
pub(crate) async fn guest_kib(served: &Served<'_>) -> u64 {
    let (pid, _) = served.sh("readlink /proc/self/ns/net").await;
    let mut kib = 0;
    for process in std::fs::read_dir("/proc").expect("proc").flatten() {
        let at = process.path();
        let net = std::fs::read_link(at.join("ns/net")).unwrap_or_default();
        let program = std::fs::read_link(at.join("exe")).unwrap_or_default();
        if net.to_string_lossy() == pid.trim() && program.to_string_lossy().contains("guest") {
            let text = std::fs::read_to_string(at.join("smaps_rollup")).unwrap_or_default();
            let lines = text.lines().filter(|line| line.starts_with("Private_"));
            let numbers =
                lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
            kib = numbers.sum::<u64>().max(kib);
        }
    }
    kib
}

#[tokio::test]
async fn much_is_carried_whole_both_ways_and_to_slow_readers_and_each_end_ends_by_itself() {
    let world = world!();
    let served = served!(world);
    let port = echo().await;
    let outside = outside(&served, &[format!("127.0.0.1:{port}")]);
    let script = format!(
        "import hashlib, os, threading\n\
         s = socket.create_connection(('here.test', {port}), 30)\n\
         data = os.urandom(1 << 20) * 32\n\
         def send(): s.sendall(data); s.shutdown(socket.SHUT_WR)\n\
         t = threading.Thread(target=send); t.start()\n\
         time.sleep(1)\n\
         h = hashlib.sha256(); n = 0\n\
         while True:\n    part = s.recv(1 << 20)\n    if not part: break\n    h.update(part); n += len(part)\n\
         t.join(); print(n == len(data), h.digest() == hashlib.sha256(data).digest())"
    );
    assert_eq!(outside.python(&served, &script).await, "True True\n");
    served.destroy().await;
}

#[tokio::test]
async fn a_reset_ends_a_connection_and_a_first_packet_may_carry_data() {
    let world = world!();
    let served = served!(world);
    let port = echo().await;
    let outside = outside(&served, &[format!("127.0.0.1:{port}")]);
    let script = format!(
        "for _ in range(50):\n    s = socket.create_connection(('here.test', {port}), 30); s.sendall(b'x' * 9999)\n    \
         s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); s.close()\n\
         to = (socket.gethostbyname('here.test'), {port})\n\
         s = socket.socket(); s.setsockopt(6, 36, 1)\n\
         print(s.sendto(b'early', 0x20000000, to)); s.settimeout(30)\n\
         got = b''\n\
         while len(got) < 5: got += s.recv(5)\n\
         print(got)"
    );
    assert_eq!(outside.python(&served, &script).await, "5\nb'early'\n");
    served.destroy().await;
}

#[tokio::test]
async fn floods_of_connections_names_and_datagrams_pass_and_leave_nothing() {
    let world = world!();
    let served = served!(world);
    let port = echo().await;
    let outside = outside(&served, &[format!("127.0.0.1:{port}")]);
    let before = guest_kib(&served).await;
    let script = format!(
        "all = []\n\
         for n in range(3000):\n    s = socket.socket(); s.setblocking(False); all.append(s)\n    \
         s.connect_ex(('10.0.0.%d' % (n % 250), 1 + n // 250))\n\
         d = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); d.setblocking(False)\n\
         for n in range(20000):\n    try: d.sendto(b'x' * 900, ('9.9.9.9', 443 if n % 2 else 53))\n    except OSError: pass\n\
         q = b'\\x12\\x34\\x01\\0\\0\\x01' + bytes(6)\n\
         for n in range(9000):\n    name = b'm%04d' % n\n    try: d.sendto(q + b'\\5' + name + b'\\4gone\\4test\\0\\0\\1\\0\\1', ('198.18.0.1', 53))\n    except OSError: pass\n\
         for s in all: s.close()\n\
         until = time.monotonic() + 40\n\
         while time.monotonic() < until:\n    try: s = socket.create_connection(('here.test', {port}), 5); break\n    except OSError: pass\n\
         s.sendall(b'alive'); print(s.recv(5))"
    );
    assert_eq!(outside.python(&served, &script).await, "b'alive'\n");
    is_given_back(&served, before + 8192).await;
    served.destroy().await;
}

#[tokio::test]
async fn new_names_are_so_many_in_a_minute_and_known_ones_go_on() {
    let world = world!();
    let served = served!(world);
    let outside = outside(&served, &[]);
    let script =
        format!("{RAW}\nfor n in range(302): ask('n%d.here.test' % n, 1)\nask('n0.here.test', 1)");
    let said = outside.python(&served, &script).await;
    let codes: Vec<&str> = said
        .lines()
        .filter_map(|line| line.split(' ').nth(2))
        .collect();
    let expect = [&["0"; 300][..], &["2"; 2], &["0"]].concat();
    assert_eq!(codes, expect, "{said}");
    served.destroy().await;
}

#[tokio::test]
async fn a_connection_outlives_a_pause_and_new_ones_outlive_a_node() {
    let world = world!();
    let served = served!(world);
    let port = echo().await;
    let first = outside(&served, &[format!("127.0.0.1:{port}")]);
    let script = format!(
        "python3 -u - <<'E'\nimport socket\ns = socket.create_connection(('here.test', {port}), 30)\n\
         print('connected'); s.sendall(b'x' * (1 << 20)); n = 0\nwhile n < 1 << 20: n += len(s.recv(1 << 16))\n\
         print('carried')\nE"
    );
    let mut process = served.start(&script).await;
    let handle = &served.plan.handle;
    let pausing = async {
        process.until("connected\n").await;
        // Where nothing can be paused, the rest is tried all the same.
        let paused = world.linux.pause(handle, true).await.is_ok();
        if paused {
            world.linux.pause(handle, false).await.expect("to go on");
        }
        process.until("carried\n").await
    };
    let carried = tokio::select! {
        said = pausing => said,
        () = bring(&served, &first.way, usize::MAX) => String::new(),
    };
    assert_eq!(carried, "carried\n");
    // The node is gone, with its lines; another one brings its own.
    drop(first);
    let second = outside(&served, &[format!("127.0.0.1:{port}")]);
    let script = format!(
        "s = socket.create_connection(('here.test', {port}), 30); s.sendall(b'again'); print(s.recv(5))"
    );
    assert_eq!(second.python(&served, &script).await, "b'again'\n");
    served.destroy().await;
}

#[tokio::test]
async fn without_a_device_on_the_machine_there_is_the_proxy_and_the_clause_says_so() {
    let mut world = world!();
    world.host.no_tun = Some("taken away for the test".to_owned());
    let served = serve(&world, true).await;
    let clause = served
        .plan
        .enforced
        .iter()
        .find(|one| one.clause == "network");
    let how = &clause.expect("a clause").how;
    assert!(
        how.contains("only for programs that know a proxy (taken away"),
        "{how}"
    );
    let (said, _) = served
        .sh("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '")
        .await;
    assert_eq!(said, "lo\n");
    served.destroy().await;
}
