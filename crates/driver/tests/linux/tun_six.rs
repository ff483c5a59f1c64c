//! IPv6 of programs that know no proxy: the same device, the same decisions.

use crate::tun::{Outside, outside, served};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// A server on the loopback of IPv6, or nothing where this machine has none.
async fn hello6() -> Option<u16> {
    let listener = TcpListener::bind("[::1]:0").await.ok()?;
    let port = listener.local_addr().ok()?.port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            drop(stream.read(&mut head).await);
            drop(stream.write_all(b"hello").await);
        }
    });
    Some(port)
}

#[tokio::test]
async fn a_name_with_ipv6_is_reached_over_both_families_whichever_it_has_outside() {
    let world = world!();
    let served = served!(world);
    let Some(port) = hello6().await else {
        println!("skipped: this machine has no IPv6 on its loopback");
        return;
    };
    let mut outside = outside(
        &served,
        &[format!("[::1]:{port}"), format!("127.0.0.1:{port}")],
    );
    let script = format!(
        "for name in ['six.here.test', 'both.here.test', 'here.test']:\n    \
         for family in [socket.AF_INET6, socket.AF_INET]:\n        \
         try:\n            \
         to = socket.getaddrinfo(name, {port}, family, socket.SOCK_STREAM)[0][4]\n            \
         s = socket.socket(family); s.settimeout(20); s.connect(to); s.sendall(b'x')\n            \
         print(name, to[0], s.recv(9))\n        \
         except OSError as e: print(name, type(e).__name__)"
    );
    let said = outside.python(&served, &script).await;
    let expect = "six.here.test fdb3:5e1d:9a47:1::c612:101 b'hello'\nsix.here.test 198.18.1.1 b'hello'\n\
        both.here.test fdb3:5e1d:9a47:1::c612:102 b'hello'\nboth.here.test 198.18.1.2 b'hello'\n\
        here.test gaierror\nhere.test ConnectionRefusedError\n";
    assert_eq!(said, expect);
    let direct = outside.recorded();
    let reached = direct
        .iter()
        .filter(|one| one.starts_with("direct "))
        .count();
    assert_eq!(reached, 5, "{direct:?}");
    served.destroy().await;
}

async fn refusals(
    outside: &Outside,
    served: &crate::live_client::Served<'_>,
    hosts: &str,
) -> String {
    let script = format!(
        "for host in {hosts}:\n    s = socket.socket(socket.AF_INET6); s.settimeout(9); t = time.monotonic()\n    \
         print(host, errno.errorcode.get(s.connect_ex((host, 443)), 'slow'), time.monotonic() - t < 0.9)"
    );
    outside.python(served, &script).await
}

#[tokio::test]
async fn every_form_of_an_address_inside_another_is_refused_at_once_with_its_reason() {
    let world = world!();
    let served = served!(world);
    let mut outside = outside(&served, &[]);
    let hosts = "['::ffff:10.0.0.1', '64:ff9b::a00:1', '64:ff9b::a9fe:a9fe', '2002:a00:1::1', \
        '2001:0:a00:1::1', '::a00:1', 'fd00::1', 'fd00:ec2::254', 'fdb3:5e1d:9a47:1::c612:707', 'fec0::1', \
        '2001:db8::1', '4000::1']";
    let said = refusals(&outside, &served, hosts).await;
    for line in said.lines() {
        assert!(line.ends_with("ECONNREFUSED True"), "{said}");
    }
    assert_eq!(said.lines().count(), 12, "{said}");
    let recorded = outside.recorded();
    let codes: Vec<&str> = recorded
        .iter()
        .filter_map(|one| one.rsplit(' ').next())
        .collect();
    assert_eq!(
        codes,
        [
            "address_private",
            "address_translated",
            "address_translated",
            "address_translated",
            "address_translated",
            "address_translated",
            "address_private",
            "address_metadata",
            "address_private",
            "address_private",
            "address_documentation",
            "address_reserved",
        ],
        "{recorded:?}"
    );
    // The wire and everybody on it: the kernel sends nothing there.
    let said = refusals(&outside, &served, "['fe80::1', 'ff02::1', 'ff05::2']").await;
    assert!(
        !said.contains("slow") && said.lines().count() == 3,
        "{said}"
    );
    assert_eq!(outside.recorded(), [""; 0]);
    served.destroy().await;
}

#[tokio::test]
async fn datagrams_of_ipv6_are_refused_at_once_and_on_record() {
    let world = world!();
    let served = served!(world);
    let mut outside = outside(&served, &[]);
    let script = "for to in [('2606:4700::1111', 443), ('fdb3:5e1d:9a47::1', 53)]:\n    \
        s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.settimeout(5); s.connect(to); s.send(b'hello')\n    \
        try: s.recv(9)\n    except OSError as e: print(errno.errorcode[e.errno])\n\
        print(open('/proc/net/if_inet6').read().count('tun0'))";
    let said = outside.python(&served, script).await;
    assert_eq!(said, "ECONNREFUSED\nECONNREFUSED\n1\n");
    assert_eq!(
        outside.recorded_in_all(&served, 2).await,
        [
            "udp [2606:4700::1111] 443 not_carried",
            "udp [fdb3:5e1d:9a47::1] 53 not_carried",
        ]
    );
    served.destroy().await;
}
