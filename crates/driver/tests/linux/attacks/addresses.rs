//! Addresses of the inside, however they are written.

use super::{Inside, own_address};
use model::network::NetworkMode;

#[tokio::test]
async fn addresses_of_the_inside_stay_closed() {
    let world = world!();
    let mut inside = inside!(world);
    tries!(inside:
        a_decimal_address, an_octal_address, a_hexadecimal_address, an_address_with_parts_left_out,
        an_ipv4_address_in_ipv6, an_address_inside_an_address, a_zone, the_unspecified_address,
        the_metadata_of_a_cloud, private_addresses_by_number, an_address_of_socks, the_nodes_own_address,
        an_address_where_only_its_name_is_allowed, the_proxys_own_port, an_address_that_is_a_name_to_others);
}

async fn odd(inside: &Inside<'_>, hosts: &str) {
    let said = inside
        .says(&format!("for host in {hosts}: print(*ways(host, TRAP))"))
        .await;
    assert!(!said.is_empty());
    for line in said.lines() {
        assert_eq!(line, "400 odd_address 400 odd_address 8", "{hosts}: {said}");
    }
}

/// Prints how each address is refused, by HTTP and by CONNECT alike.
async fn closed(inside: &Inside<'_>, hosts: &str, code: &str) {
    let said = inside
        .says(&format!("for host in {hosts}: print(*ways(host, TRAP))"))
        .await;
    assert!(!said.is_empty());
    for line in said.lines() {
        assert_eq!(line, format!("403 {code} 403 {code} 2"), "{hosts}: {said}");
    }
}

/// The loopback as one decimal number, which `inet_aton` reads.
/// > Refused as `odd_address`, and never given to a resolver.
async fn a_decimal_address(inside: &mut Inside<'_>) {
    odd(inside, "[b'2130706433', b'2852039166', b'017700000001']").await;
    assert_eq!(inside.asked().len(), 0);
}

/// The loopback in octal digits.
/// > Refused as `odd_address`.
async fn an_octal_address(inside: &mut Inside<'_>) {
    odd(
        inside,
        "[b'0177.0.0.1', b'127.0.0.01', b'0251.0376.0251.0376']",
    )
    .await;
}

/// The loopback in hexadecimal digits.
/// > Refused as `odd_address`.
async fn a_hexadecimal_address(inside: &mut Inside<'_>) {
    odd(
        inside,
        "[b'0x7f000001', b'0x7f.0.0.1', b'0X7F.0.0.0x1', b'127.0.0.0x1']",
    )
    .await;
}

/// The loopback with parts left out, which C libraries fill in.
/// > Refused as `odd_address`.
async fn an_address_with_parts_left_out(inside: &mut Inside<'_>) {
    odd(
        inside,
        "[b'127.1', b'127.0.1', b'10.1', b'1', b'127.0.0.1.1', b'256.0.0.1']",
    )
    .await;
}

/// An IPv4 address in its IPv6-mapped form.
/// > It is the IPv4 address: `address_loopback`, `address_private`.
async fn an_ipv4_address_in_ipv6(inside: &mut Inside<'_>) {
    closed(
        inside,
        "[b'[::ffff:127.0.0.1]', b'[::ffff:7f00:1]', b'[0:0:0:0:0:FFFF:7F00:0001]']",
        "address_loopback",
    )
    .await;
    closed(inside, "[b'[::ffff:10.0.0.1]']", "address_private").await;
    closed(inside, "[b'[::ffff:a9fe:a9fe]']", "address_metadata").await;
}

/// An IPv4 address inside one of NAT64, 6to4, Teredo, or an IPv4-compatible one, for a gateway that unpacks it.
/// > `address_translated`.
async fn an_address_inside_an_address(inside: &mut Inside<'_>) {
    let hosts = "[b'[64:ff9b::7f00:1]', b'[64:ff9b:1::a00:1]', b'[2002:7f00:1::]', b'[2001:0:7f00:1::]', b'[::127.0.0.1]', b'[::ffff:0:7f00:1]']";
    closed(inside, hosts, "address_translated").await;
}

/// An address with a zone, which names an interface of the node.
/// > Refused as no host.
async fn a_zone(inside: &mut Inside<'_>) {
    let said = inside.says("for host in (b'[fe80::1%lo]', b'[fe80::1%25eth0]', b'[::1%1]'): print(*[str(one)[0] for one in ways(host, TRAP)])").await;
    assert_eq!(said, "4 4 8\n4 4 8\n4 4 8");
}

/// No address at all, which kernels take for the machine itself.
/// > `address_unspecified`.
async fn the_unspecified_address(inside: &mut Inside<'_>) {
    closed(
        inside,
        "[b'0.0.0.0', b'[::]', b'[::ffff:0.0.0.0]']",
        "address_unspecified",
    )
    .await;
}

/// Where clouds answer with credentials of the machine, Azure's address that looks public included.
/// > `address_metadata`.
async fn the_metadata_of_a_cloud(inside: &mut Inside<'_>) {
    let hosts = "[b'169.254.169.254', b'169.254.170.2', b'100.100.100.200', b'168.63.129.16', b'[fd00:ec2::254]']";
    closed(inside, hosts, "address_metadata").await;
}

/// Every other kind of address that is not the internet, by its number.
/// > Refused, each by its own code.
async fn private_addresses_by_number(inside: &mut Inside<'_>) {
    for (hosts, code) in [
        (
            "[b'10.0.0.1', b'172.31.255.1', b'192.168.1.1', b'[fd12::1]', b'[fec0::1]']",
            "address_private",
        ),
        ("[b'169.254.1.1', b'[fe80::1]']", "address_link_local"),
        ("[b'100.64.0.1']", "address_shared"),
        ("[b'224.0.0.251', b'[ff02::1]']", "address_multicast"),
        ("[b'255.255.255.255']", "address_broadcast"),
        (
            "[b'192.0.2.1', b'198.18.0.1', b'[2001:db8::1]']",
            "address_documentation",
        ),
        (
            "[b'240.0.0.1', b'0.1.2.3', b'[4000::1]']",
            "address_reserved",
        ),
        ("[b'127.255.0.9', b'[::1]']", "address_loopback"),
    ] {
        closed(inside, hosts, code).await;
    }
}

/// An address as the bytes of SOCKS, which no parser of text looks at.
/// > Judged like any other: reply 2.
async fn an_address_of_socks(inside: &mut Inside<'_>) {
    let said = inside.says(
        "four = [bytes([127, 0, 0, 1]), bytes([10, 0, 0, 1]), bytes(4)]\n\
         six = [bytes(15) + b'\\1', bytes(10) + b'\\xff\\xff\\x7f\\0\\0\\1', b'\\0\\x64\\xff\\x9b' + bytes(8) + b'\\x7f\\0\\0\\1']\n\
         print(*[socks(one, TRAP, kind=1) for one in four], *[socks(one, TRAP, kind=4) for one in six])",
    ).await;
    assert_eq!(said, "2 2 2 2 2 2");
}

/// The address by which the node itself is reached.
/// > `address_node`, or what else it is; never dialled.
async fn the_nodes_own_address(inside: &mut Inside<'_>) {
    let Some(own) = own_address() else { return };
    let said = inside.says(&format!("print(*ways(b'{own}', TRAP))")).await;
    assert!(
        said.starts_with("403 address_") && said.ends_with(" 2"),
        "{said}"
    );
}

/// The address of a name that is allowed, asked for by number, past the rule about the name.
/// > `host_not_allowed`.
async fn an_address_where_only_its_name_is_allowed(inside: &mut Inside<'_>) {
    inside.rules(NetworkMode::Allowlist, &["open.test"], &[]);
    let said = inside
        .says("print(*ways(b'127.0.0.1', OPEN), get(b'open.test', OPEN))")
        .await;
    assert_eq!(said, "403 host_not_allowed 403 host_not_allowed 2 200");
}

/// The proxy is asked to connect to itself, for a loop or for somebody else's rules.
/// > That port is only on loopbacks inside of sandboxes: `address_loopback`.
async fn the_proxys_own_port(inside: &mut Inside<'_>) {
    let said = inside
        .says("print(*ways(b'127.0.0.1', 3128), *ways(b'localhost', 3128))")
        .await;
    assert_eq!(
        said,
        "403 address_loopback 403 address_loopback 2 403 address_loopback 403 address_loopback 2"
    );
}

/// A name whose last label is a number, which is an address for whoever reads only the end.
/// > Refused as `odd_address`.
async fn an_address_that_is_a_name_to_others(inside: &mut Inside<'_>) {
    odd(inside, "[b'open.test.1', b'a.0x1', b'open.127']").await;
}
