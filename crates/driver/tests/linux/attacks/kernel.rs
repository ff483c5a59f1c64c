//! Past the proxy: what a program asks the kernel for.

use super::{Inside, own_address};
use model::network::NetworkMode;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

#[tokio::test]
async fn the_kernel_gives_no_other_way() {
    let world = world!();
    let mut inside = inside_with_a_device!(world);
    tries!(inside:
        no_variables_of_a_proxy, a_raw_socket, a_packet_socket, a_socket_of_a_virtual_machine, ipv6_by_itself,
        ipv4_through_a_socket_of_ipv6, datagrams, quic, an_echo_of_icmp, other_transports, an_address_that_is_not_ours,
        a_route_in_the_packet, another_network_namespace, the_device_itself, the_routes, descriptors_of_the_first_process,
        sockets_of_the_machine, the_loopback_of_the_machine, settings_of_the_network, data_in_the_first_packet,
        the_resolvers_other_ports);
}

/// A program takes the variables away that name the proxy.
/// > It obeys the same rules without them.
async fn no_variables_of_a_proxy(inside: &mut Inside<'_>) {
    inside.rules(NetworkMode::Allowlist, &["open.test"], &[]);
    let script = "import urllib.request\n\
        for name in list(os.environ):\n    if 'proxy' in name.lower(): del os.environ[name]\n\
        print(urllib.request.urlopen('http://open.test:%d/' % OPEN, timeout=20).status, direct('other.test', OPEN), direct('127.0.0.2', TRAP), direct('9.9.9.9', 443))";
    assert_eq!(
        inside.says(script).await,
        "200 no such name ECONNREFUSED ECONNREFUSED"
    );
}

/// What comes of each of these calls: `open`, or that it was refused.
const TRIED: &str = "def tried(act, *more):\n    try: act(*more); return 'open'\n    except (OSError, ValueError): return 'refused'\n";

/// A socket that makes its own packets, as the workload and as root of the sandbox.
/// > Refused by the kernel for both: nobody inside has the capability.
async fn a_raw_socket(inside: &mut Inside<'_>) {
    let script = format!(
        "{TRIED}print(*[tried(socket.socket, family, socket.SOCK_RAW, protocol) for family in (socket.AF_INET, socket.AF_INET6) for protocol in (1, 6, 17, 58, 255)])"
    );
    let refused = ["refused"; 10].join(" ");
    assert_eq!(inside.says(&script).await, refused);
    assert_eq!(inside.as_root(&script).await, refused);
}

/// A socket below IP.
/// > Refused.
async fn a_packet_socket(inside: &mut Inside<'_>) {
    let script = format!(
        "{TRIED}print(*[tried(socket.socket, socket.AF_PACKET, kind, 0x300) for kind in (socket.SOCK_RAW, socket.SOCK_DGRAM)])"
    );
    assert_eq!(inside.says(&script).await, "refused refused");
    assert_eq!(inside.as_root(&script).await, "refused refused");
}

/// A socket to the hypervisor or to the machine itself, which knows no network namespace.
/// > No such socket is given.
async fn a_socket_of_a_virtual_machine(inside: &mut Inside<'_>) {
    // VSOCK, and other families that lead somewhere: TIPC, RDS, Bluetooth, CAN, XDP, AF_ALG, QIPCRTR, SMC.
    let script = format!(
        "{TRIED}print(*{{tried(socket.socket, family, kind) for family in (40, 30, 21, 31, 29, 44, 38, 42, 43) for kind in (1, 2, 3, 5)}})"
    );
    assert_eq!(inside.says(&script).await, "refused");
    assert_eq!(inside.as_root(&script).await, "refused");
}

/// IPv6, where filters were written for IPv4: public, local, mapped, multicast.
/// > Carried to the same decision, and refused there: `ECONNREFUSED`.
async fn ipv6_by_itself(inside: &mut Inside<'_>) {
    let script = "for to in ('2606:4700::1111', 'fd00::1', 'fe80::1', '64:ff9b::7f00:1', '2002:7f00:1::1'):\n    \
        s = socket.socket(socket.AF_INET6); s.settimeout(5)\n    print(errno.errorcode[s.connect_ex((to, 80))])\n\
        print(open('/proc/net/if_inet6').read().count('tun0'))";
    let said = inside.says(script).await;
    let lines: Vec<&str> = said.lines().collect();
    assert!(
        lines[..5]
            .iter()
            .all(|one| ["ECONNREFUSED", "EINVAL"].contains(one)),
        "{said}"
    );
    // The device has an address of ours, and one of its link at most.
    assert!(["1", "2"].contains(&lines[5]), "{said}");
}

/// An IPv4 address through a socket of IPv6.
/// > It is IPv4 on the wire, and judged as such.
async fn ipv4_through_a_socket_of_ipv6(inside: &mut Inside<'_>) {
    let script = "for to in ('::ffff:10.0.0.1', '::ffff:169.254.169.254', '::ffff:127.0.0.9'):\n    \
        s = socket.socket(socket.AF_INET6); s.settimeout(9); print(errno.errorcode[s.connect_ex((to, TRAP))])";
    assert_eq!(inside.says(script).await, ["ECONNREFUSED"; 3].join("\n"));
    assert!(
        inside
            .recorded()
            .contains(&"direct 10.0.0.1 address_private".to_owned())
    );
}

/// Datagrams to anywhere, also to everybody on the wire.
/// > "Port unreachable" at once, or no route; nothing leaves.
async fn datagrams(inside: &mut Inside<'_>) {
    let own = own_address().map_or_else(|| "10.0.0.1".to_owned(), |own| own.to_string());
    let trap = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
    trap.set_nonblocking(true).expect("a socket");
    let port = trap.local_addr().expect("an address").port();
    let script = format!(
        "for to in ('9.9.9.9', '{own}', '10.0.0.1', '224.0.0.251', '255.255.255.255'):\n    \
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1); s.setsockopt(1, 6, 1)\n    \
         try: s.connect((to, {port})); s.send(b'x'); s.recv(9); print('heard')\n    except OSError as e: pass\n\
         print('done')"
    );
    assert_eq!(inside.says(&script).await, "done");
    assert!(trap.recv(&mut [0; 9]).is_err(), "a datagram came out");
}

/// QUIC, which carries HTTP past whoever reads TCP.
/// > Refused at once, so that clients fall back to TCP.
async fn quic(inside: &mut Inside<'_>) {
    let script = "t = time.monotonic(); s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(9)\n\
        s.connect((socket.gethostbyname('open.test'), 443)); s.send(b'\\xc3\\0\\0\\0\\1' + bytes(1195))\n\
        try: s.recv(9)\nexcept OSError as e: print(errno.errorcode[e.errno], time.monotonic() - t < 5)";
    assert_eq!(inside.says(script).await, "ECONNREFUSED True");
}

/// Data in echoes of ICMP.
/// > Nobody may make such a socket.
async fn an_echo_of_icmp(inside: &mut Inside<'_>) {
    let script = format!(
        "{TRIED}print(tried(socket.socket, socket.AF_INET, socket.SOCK_DGRAM, 1), tried(socket.socket, socket.AF_INET6, socket.SOCK_DGRAM, 58))"
    );
    assert_eq!(inside.says(&script).await, "refused refused");
}

/// Transports that no filter of TCP and UDP sees: SCTP, DCCP, UDP-Lite, multipath TCP.
/// > They are not given, or nothing but refusals comes back.
async fn other_transports(inside: &mut Inside<'_>) {
    let script = "def one(kind, protocol):\n    \
        try:\n        s = socket.socket(socket.AF_INET, kind, protocol); s.settimeout(2); s.connect(('10.0.0.1', TRAP)); s.send(b'x'); s.recv(1); return 'heard'\n    \
        except OSError: return 'refused'\n\
        print(*[one(*what) for what in ((1, 132), (5, 132), (6, 33), (2, 136), (1, 262))])";
    assert_eq!(inside.says(script).await, ["refused"; 5].join(" "));
}

/// A packet with somebody else's address as its own.
/// > An address that is not the sandbox's cannot be bound, and the right to do it all the same is nobody's.
async fn an_address_that_is_not_ours(inside: &mut Inside<'_>) {
    let script = format!(
        "{TRIED}s = socket.socket(); u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         print(tried(s.bind, ('9.9.9.9', 1234)), tried(u.bind, ('10.0.0.9', 1234)), tried(s.setsockopt, 0, 19, 1), tried(u.setsockopt, 1, 36, 7), tried(s.setsockopt, 1, 25, b'lo\\0'))"
    );
    let said = inside.says(&script).await;
    assert!(
        said.starts_with("refused refused refused refused"),
        "{said}"
    );
}

/// Source routing: a packet that says by itself whom it passes.
/// > The connection is judged by where it is for; the options go nowhere.
async fn a_route_in_the_packet(inside: &mut Inside<'_>) {
    let script = "s = socket.socket(); s.settimeout(9)\n\
        try: s.setsockopt(0, 4, b'\\x83\\x0b\\x04\\x0a\\0\\0\\1\\x0a\\0\\0\\2\\0')\nexcept OSError: pass\n\
        try: s.connect(('9.9.9.9', TRAP)); print('connected')\nexcept OSError as e: print('refused')";
    inside.rules(NetworkMode::Allowlist, &["open.test"], &[]);
    assert_eq!(inside.says(script).await, "refused");
}

/// A network namespace of the attacker's own, with interfaces and rights of his own.
/// > Namespaces are not made inside.
async fn another_network_namespace(inside: &mut Inside<'_>) {
    let script = format!(
        "{TRIED}import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n\
         def flags(n):\n    if libc.unshare(n): raise OSError(ctypes.get_errno(), '')\n\
         def enter(path):\n    f = os.open(path, os.O_RDONLY)\n    if libc.setns(f, 0x40000000): raise OSError(ctypes.get_errno(), '')\n\
         print(*[tried(flags, n) for n in (0x40000000, 0x10000000, 0x50000000)], tried(enter, '/proc/1/ns/net'), tried(enter, '/proc/self/ns/net'))"
    );
    let refused = ["refused"; 5].join(" ");
    assert_eq!(inside.says(&script).await, refused);
    assert_eq!(inside.as_root(&script).await, refused);
}

/// The device that packets go to is opened, or another one is made.
/// > There is no such file, and nobody may make one.
async fn the_device_itself(inside: &mut Inside<'_>) {
    let script = format!(
        "{TRIED}print(tried(os.open, '/dev/net/tun', os.O_RDWR), tried(os.mknod, '/tmp/tun', 0o20666, os.makedev(10, 200)), tried(os.mknod, '/tmp/mem', 0o20666, os.makedev(1, 1)))"
    );
    assert_eq!(inside.says(&script).await, "refused refused refused");
    assert_eq!(inside.as_root(&script).await, "refused refused refused");
}

/// Routes, addresses and interfaces are changed, by ioctl and by netlink.
/// > Refused for everybody inside, root included.
async fn the_routes(inside: &mut Inside<'_>) {
    let script = format!(
        "{TRIED}import fcntl\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         def link(kind):\n    n = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0); n.settimeout(5)\n    \
         n.send(struct.pack('IHHII', 16 + 16, kind, 0x605, 1, 0) + bytes(16)); code, = struct.unpack('i', n.recv(99)[16:20])\n    \
         if code: raise OSError(-code, '')\n\
         down = struct.pack('16sH22x', b'tun0', 0)\n\
         print(tried(fcntl.ioctl, s, 0x8914, down), tried(fcntl.ioctl, s, 0x890B, bytes(120)), *[tried(link, kind) for kind in (16, 20, 24, 28, 32)])"
    );
    let refused = ["refused"; 7].join(" ");
    assert_eq!(inside.says(&script).await, refused);
    assert_eq!(inside.as_root(&script).await, refused);
}

/// The descriptors of the first process, of which one is the device and one leads to the node.
/// > They are not shown to anybody inside.
async fn descriptors_of_the_first_process(inside: &mut Inside<'_>) {
    let script = format!(
        "{TRIED}import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n\
         def take(n):\n    p = libc.syscall(434, 1, 0)\n    if p < 0 or libc.syscall(438, p, n, 0) < 0: raise OSError(ctypes.get_errno(), '')\n\
         print(*{{tried(os.open, '/proc/1/fd/%d' % n, os.O_RDWR) for n in range(12)}}, *{{tried(take, n) for n in range(12)}}, tried(os.listdir, '/proc/1/fd'), tried(os.open, '/proc/1/mem', os.O_RDONLY))"
    );
    assert_eq!(
        inside.says(&script).await,
        "refused refused refused refused"
    );
}

/// Unix sockets of the machine and of the node, by path and in the abstract namespace.
/// > None is seen, and none answers.
async fn sockets_of_the_machine(inside: &mut Inside<'_>) {
    let name = format!("cofferdam-attack-{}", inside.trap);
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let _listener = UnixListener::bind_addr(&address).expect("a socket");
    let script = format!(
        "{TRIED}s = socket.socket(socket.AF_UNIX)\nprint(tried(s.connect, '\\0{name}'))\n\
         print(*[line.split()[-1] for line in open('/proc/net/unix').read().splitlines()[1:] if len(line.split()) > 7 and not line.endswith('sudo.sock')])\n\
         print(*[tried(s.connect, path) for path in ('/run/docker.sock', '/var/run/dbus/system_bus_socket', '/run/systemd/private')])"
    );
    assert_eq!(
        inside.says(&script).await,
        "refused\n\nrefused refused refused"
    );
}

/// What listens on the loopback of the machine is asked for on the loopback.
/// > That of the sandbox is another one: nobody is there.
async fn the_loopback_of_the_machine(inside: &mut Inside<'_>) {
    let said = inside.says("print(direct('127.0.0.1', TRAP), direct('127.0.0.1', OPEN), direct('localhost', TRAP), direct('0.0.0.0', TRAP))").await;
    assert_eq!(said, ["ECONNREFUSED"; 4].join(" "));
    assert_eq!(inside.heard().len(), 0);
}

/// Settings of the kernel that would open a way: forwarding, redirects, who may ping.
/// > `/proc/sys` cannot be written.
async fn settings_of_the_network(inside: &mut Inside<'_>) {
    let script = format!(
        "{TRIED}print(*{{tried(os.open, '/proc/sys/net/ipv4/' + name, os.O_WRONLY) for name in ('ip_forward', 'conf/all/accept_redirects', 'conf/all/route_localnet', 'ping_group_range', 'ip_unprivileged_port_start')}})"
    );
    assert_eq!(inside.says(&script).await, "refused");
    assert_eq!(inside.as_root(&script).await, "refused");
}

/// TCP Fast Open: data in the packet that asks for a connection, before anybody could judge it.
/// > The connection is judged first; to a denied host it comes to nothing.
async fn data_in_the_first_packet(inside: &mut Inside<'_>) {
    let script = "s = socket.socket()\ntry: s.sendto(b'early', 0x20000000, ('10.0.0.1', TRAP)); print(s.recv(9))\n\
        except OSError as e: print(errno.errorcode.get(e.errno))";
    assert_eq!(inside.says(script).await, "ECONNREFUSED");
}

/// Other ports of the address at which names are answered, behind which is the first process.
/// > Refused.
async fn the_resolvers_other_ports(inside: &mut Inside<'_>) {
    let said = inside.says("print(*[direct('198.18.0.1', port) for port in (22, 80, 3128, 49983, 49999)], direct('198.18.0.0', 53))").await;
    assert_eq!(said, ["ECONNREFUSED"; 6].join(" "));
}
