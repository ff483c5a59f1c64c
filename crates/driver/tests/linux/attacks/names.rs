//! Names that lead inside, names that change, and names that carry data.

use super::{Inside, own_address};
use egress::resolve::Resolver;
use model::network::NetworkMode;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

/// Who knows names here: what is asked for is kept, and some names have addresses that nobody should have.
pub(super) fn resolver(asked: &Arc<Mutex<Vec<String>>>) -> Resolver {
    let asked = asked.clone();
    Resolver::with(move |name| {
        let mut asked = asked.lock().expect("a list");
        let before = asked.iter().filter(|one| **one == name).count();
        asked.push(name.clone());
        let found = addresses(&name, before);
        Box::pin(async move {
            let read = |text: &str| text.parse::<IpAddr>().expect("an address");
            match found {
                Found::Nobody => Err(io::ErrorKind::NotFound.into()),
                Found::These(all) => Ok(all.split(' ').map(read).collect()),
                Found::Own => Ok(own_address().into_iter().collect()),
                Found::Many => Ok((0..65).map(|n| IpAddr::from([9, 9, 9, n])).collect()),
            }
        })
    })
}

enum Found {
    Nobody,
    These(&'static str),
    Own,
    Many,
}

fn addresses(name: &str, before: usize) -> Found {
    Found::These(match name {
        "private.test" => "10.0.0.1",
        "home.test" => "192.168.0.1",
        "link.test" => "169.254.7.7",
        "metadata.test" => "169.254.169.254",
        "shared.test" => "100.64.0.1",
        "multicast.test" => "239.1.1.1",
        "broadcast.test" => "255.255.255.255",
        "unspecified.test" => "0.0.0.0",
        "reserved.test" => "240.0.0.1",
        "documentation.test" => "203.0.113.1",
        "six.test" => "::1",
        "local.test" => "fd00::1",
        "wire.test" => "fe80::1",
        "mapped.test" => "::ffff:127.0.0.1",
        "packed.test" => "64:ff9b::7f00:1",
        "mixed.test" => "9.9.9.9 10.0.0.1",
        "own.test" => return Found::Own,
        "many.test" => return Found::Many,
        // What is open when it is looked at, and the inside when it is used.
        "rebind.test" if before > 0 => "10.0.0.1",
        _ if name.ends_with(".test") => "127.0.0.1",
        "localhost" => "127.0.0.1",
        _ => return Found::Nobody,
    })
}

#[tokio::test]
async fn names_lead_nowhere_else() {
    let world = world!();
    let mut inside = inside_with_a_device!(world);
    tries!(inside:
        a_name_of_the_loopback, a_name_of_a_private_network, a_name_of_the_wire, a_name_of_the_metadata,
        a_name_of_a_carriers_network, a_name_of_many_at_once, a_name_of_no_address, a_name_of_reserved_addresses,
        a_name_of_ipv6_of_the_inside, a_name_of_an_address_in_disguise, a_name_of_the_node, one_closed_address_among_open_ones,
        more_addresses_than_are_looked_at, a_name_that_changes_between_the_check_and_the_dial,
        a_name_that_changes_between_its_question_and_the_connection, another_name_of_a_denied_address,
        a_guessed_address_of_a_name, a_question_that_carries_data, data_in_many_short_labels, questions_without_end,
        answers_that_carry_data,
        a_question_to_another_resolver, dns_over_https, dns_over_tls, a_denied_name_as_a_message);
}

/// By HTTP, CONNECT, SOCKS, and for a program that knows no proxy.
async fn closed(inside: &Inside<'_>, names: &[&str], code: &str) {
    for name in names {
        let said = inside
            .says(&format!(
                "print(*ways(b'{name}', TRAP), direct('{name}', TRAP))"
            ))
            .await;
        assert_eq!(
            said,
            format!("403 {code} 403 {code} 2 ECONNREFUSED"),
            "{name}"
        );
    }
}

/// A name whose address is the machine itself.
/// > `address_loopback`; nothing is dialled.
async fn a_name_of_the_loopback(inside: &mut Inside<'_>) {
    closed(inside, &["any.test"], "address_loopback").await;
}

/// A name whose address is in somebody's own network.
/// > `address_private`.
async fn a_name_of_a_private_network(inside: &mut Inside<'_>) {
    closed(
        inside,
        &["private.test", "home.test", "local.test"],
        "address_private",
    )
    .await;
}

/// A name whose address is on the node's own wire.
/// > `address_link_local`.
async fn a_name_of_the_wire(inside: &mut Inside<'_>) {
    closed(inside, &["link.test", "wire.test"], "address_link_local").await;
}

/// A name whose address is where a cloud answers with credentials.
/// > `address_metadata`.
async fn a_name_of_the_metadata(inside: &mut Inside<'_>) {
    closed(inside, &["metadata.test"], "address_metadata").await;
}

/// A name whose address is behind a carrier's translation.
/// > `address_shared`.
async fn a_name_of_a_carriers_network(inside: &mut Inside<'_>) {
    closed(inside, &["shared.test"], "address_shared").await;
}

/// A name whose address is a group or everybody on the wire.
/// > `address_multicast`, `address_broadcast`.
async fn a_name_of_many_at_once(inside: &mut Inside<'_>) {
    closed(inside, &["multicast.test"], "address_multicast").await;
    closed(inside, &["broadcast.test"], "address_broadcast").await;
}

/// A name whose address is none, which kernels take for the machine.
/// > `address_unspecified`.
async fn a_name_of_no_address(inside: &mut Inside<'_>) {
    closed(inside, &["unspecified.test"], "address_unspecified").await;
}

/// A name whose address nobody was given, or which is for documents.
/// > `address_reserved`, `address_documentation`.
async fn a_name_of_reserved_addresses(inside: &mut Inside<'_>) {
    closed(inside, &["reserved.test"], "address_reserved").await;
    closed(inside, &["documentation.test"], "address_documentation").await;
}

/// A name that has an address of the inside in IPv6 only, where filters know IPv4.
/// > `address_loopback`.
async fn a_name_of_ipv6_of_the_inside(inside: &mut Inside<'_>) {
    closed(inside, &["six.test"], "address_loopback").await;
}

/// A name whose address is an IPv4 address of the inside as IPv6.
/// > `address_loopback`, `address_translated`.
async fn a_name_of_an_address_in_disguise(inside: &mut Inside<'_>) {
    closed(inside, &["mapped.test"], "address_loopback").await;
    closed(inside, &["packed.test"], "address_translated").await;
}

/// A name whose address is one of the node's own.
/// > `address_node`, or what else it is.
async fn a_name_of_the_node(inside: &mut Inside<'_>) {
    if own_address().is_none() {
        return;
    }
    let said = inside
        .says("print(*ways(b'own.test', TRAP), direct('own.test', TRAP))")
        .await;
    assert!(
        said.starts_with("403 address_") && said.ends_with(" 2 ECONNREFUSED"),
        "{said}"
    );
}

/// A name with a public address, and a private one in case the first does not answer.
/// > One closed address closes the name: `address_private`.
async fn one_closed_address_among_open_ones(inside: &mut Inside<'_>) {
    closed(inside, &["mixed.test"], "address_private").await;
}

/// A name with so many addresses that a check stops before the one that counts.
/// > A name with more than 64 is refused as a whole.
async fn more_addresses_than_are_looked_at(inside: &mut Inside<'_>) {
    let said = inside.says("print(*ways(b'many.test', TRAP))").await;
    assert_eq!(said, "502 unknown_name 502 unknown_name 4");
}

/// Rebinding: a name has an open address when it is checked, and one of the inside a moment later.
/// > It is resolved once, and what was checked is dialled; the next request is checked anew.
async fn a_name_that_changes_between_the_check_and_the_dial(inside: &mut Inside<'_>) {
    for way in [
        "get(b'rebind.test', OPEN)",
        "connect(b'rebind.test', OPEN)[0]",
    ] {
        drop(inside.asked());
        let said = inside.says(&format!("print({way}, {way})")).await;
        assert_eq!(said, "200 403 address_private");
        assert_eq!(inside.asked(), ["rebind.test", "rebind.test"]);
    }
}

/// Rebinding for a program that knows no proxy: the name is open when DNS is asked, and of the inside when it connects.
/// > The address that the program got stands for the name; who connects to it is judged by what the name has then.
async fn a_name_that_changes_between_its_question_and_the_connection(inside: &mut Inside<'_>) {
    drop(inside.asked());
    let said = inside
        .says("a = socket.gethostbyname('rebind.test'); print(a.startswith('198.18.'), direct(a, OPEN))")
        .await;
    assert_eq!(said, "True ECONNREFUSED");
    assert_eq!(inside.asked().len(), 2);
    let recorded = inside.recorded();
    assert!(
        recorded.contains(&"direct rebind.test address_private".to_owned()),
        "{recorded:?}"
    );
}

/// A denied network is reached by a name that nobody denied.
/// > An address in `deny` is for every name that has it: `host_denied`.
async fn another_name_of_a_denied_address(inside: &mut Inside<'_>) {
    inside.rules(NetworkMode::Unrestricted, &[], &["127.0.0.0/8"]);
    let said = inside
        .says("print(*ways(b'open.test', OPEN), direct('open.test', OPEN))")
        .await;
    assert_eq!(said, "403 host_denied 403 host_denied 2 ECONNREFUSED");
}

/// Addresses of names are counted through, for those that nobody asked for here.
/// > They stand for nothing: refused.
async fn a_guessed_address_of_a_name(inside: &mut Inside<'_>) {
    let said = inside.says("print(*[direct('198.18.%d.%d' % at, OPEN) for at in ((1, 250), (2, 1), (9, 9), (0, 2))])").await;
    assert_eq!(said, "ECONNREFUSED ECONNREFUSED ECONNREFUSED ECONNREFUSED");
}

/// DNS tunnelling: a file in the labels of names.
/// > `name_carries_data`; nobody outside is asked.
async fn a_question_that_carries_data(inside: &mut Inside<'_>) {
    drop(inside.asked());
    let said = inside
        .says(
            "import base64\n\
         data = base64.b32encode(bytes(range(7, 127, 3)) * 2).decode().lower().rstrip('=')\n\
         name = '.'.join(data[at:at + 40] for at in range(0, 120, 40)) + '.x.test'\n\
         print(direct(name, OPEN), *ways(name.encode(), OPEN))",
        )
        .await;
    assert_eq!(
        said,
        "no such name 403 name_carries_data 403 name_carries_data 2"
    );
    assert_eq!(inside.asked().len(), 0);
}

/// DNS tunnelling: a file in names of many labels, each so short that it may be a name.
/// > All labels together are looked at as one: `name_carries_data`; nobody outside is asked.
async fn data_in_many_short_labels(inside: &mut Inside<'_>) {
    drop(inside.asked());
    let said = inside
        .says(
            "import base64\n\
         data = base64.b32encode(bytes(range(7, 127))).decode().lower().rstrip('=')\n\
         for width in (15, 4, 1):\n    \
             some = [data[at:at + width] for at in range(0, 180, width)][:230 // (width + 1)]\n    \
             name = '.'.join(some) + '.x.test'\n    \
             print(direct(name, OPEN), *ways(name.encode(), OPEN))",
        )
        .await;
    assert_eq!(
        said,
        ["no such name 403 name_carries_data 403 name_carries_data 2"; 3].join("\n")
    );
    assert_eq!(inside.asked().len(), 0);
}

/// DNS tunnelling: a few bytes in each of very many names.
/// > So many new names in a minute, on all ways together: `too_many_names`.
async fn questions_without_end(inside: &mut Inside<'_>) {
    drop(inside.asked());
    let said = inside
        .says("print([get(b'n%d.test' % n, OPEN)[:3] for n in range(310)].count('503') >= 10)")
        .await;
    assert_eq!(said, "True");
    assert!(inside.asked().len() <= 300);
    // The rest of the group is another minute's, as far as the proxy knows.
    inside.start_a_minute();
}

/// DNS tunnelling: answers that hold data, of which TXT, NULL and CNAME hold most.
/// > Only addresses are answered, and those are ours: `NOTIMP`, and the question goes nowhere.
async fn answers_that_carry_data(inside: &mut Inside<'_>) {
    drop(inside.asked());
    let said = inside.says(
        "def ask(kind):\n    \
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(9)\n    \
         s.sendto(b'\\x12\\x34\\1\\0\\0\\1' + bytes(6) + b'\\4open\\4test\\0' + struct.pack('>HH', kind, 1), ('198.18.0.1', 53))\n    \
         a = s.recv(999); return a[3] & 15, a[7]\n\
         print(*[ask(kind) for kind in (16, 10, 5, 2, 33, 255)])",
    ).await;
    assert_eq!(said, ["(4, 0)"; 6].join(" "));
    assert_eq!(inside.asked().len(), 0);
}

/// A resolver of the attacker's own is asked, over UDP and TCP.
/// > UDP is refused at once; TCP is a connection like any other, and one to the inside is refused.
async fn a_question_to_another_resolver(inside: &mut Inside<'_>) {
    let said = inside.says(
        "for to in (('9.9.9.9', 53), ('127.0.0.53', 53), ('10.0.0.2', 53)):\n    \
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5)\n    \
         try: s.connect(to); s.send(b'\\0' * 17); s.recv(9)\n    except OSError as e: print(errno.errorcode.get(e.errno))\n\
         print(direct('10.0.0.2', 53))",
    ).await;
    assert_eq!(
        said,
        "ECONNREFUSED\nECONNREFUSED\nECONNREFUSED\nECONNREFUSED"
    );
}

/// DNS over HTTPS by the name and by the address of a public resolver, where neither is on the list.
/// > `host_not_allowed`; QUIC to it is refused as all UDP is.
async fn dns_over_https(inside: &mut Inside<'_>) {
    inside.rules(NetworkMode::Allowlist, &["open.test"], &[]);
    let said = inside.says(
        "print(*ways(b'dns.google', 443), *ways(b'8.8.8.8', 443), direct('8.8.8.8', 443))\n\
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); s.connect(('8.8.8.8', 443)); s.send(b'\\xc0' * 1200)\n\
         try: s.recv(9)\nexcept OSError as e: print(errno.errorcode.get(e.errno))",
    ).await;
    let denied = "403 host_not_allowed 403 host_not_allowed 2";
    assert_eq!(
        said,
        format!("{denied} {denied} ECONNREFUSED\nECONNREFUSED")
    );
}

/// DNS over TLS to a public resolver that is not on the list.
/// > `host_not_allowed`.
async fn dns_over_tls(inside: &mut Inside<'_>) {
    inside.rules(NetworkMode::Allowlist, &["open.test"], &[]);
    let said = inside
        .says("print(direct('1.1.1.1', 853), socks(bytes([1, 1, 1, 1]), 853, kind=1))")
        .await;
    assert_eq!(said, "ECONNREFUSED 2");
}

/// A name that is denied anyway is asked for, because whoever owns it hears the question.
/// > It is refused before anybody is asked.
async fn a_denied_name_as_a_message(inside: &mut Inside<'_>) {
    drop(inside.asked());
    let said = inside
        .says("print(*ways(b'secret.denied.test', OPEN), direct('secret.denied.test', OPEN))")
        .await;
    assert_eq!(said, "403 host_denied 403 host_denied 2 no such name");
    assert_eq!(inside.asked().len(), 0);
}
