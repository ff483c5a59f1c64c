//! Tunnels: who is asked for, who is greeted, and what is no greeting.

use super::Inside;
use model::network::NetworkMode;

#[tokio::test]
async fn tunnels_lead_where_they_say() {
    let world = world!();
    let mut inside = inside!(world);
    tries!(inside:
        fronting_by_the_name_in_tls, a_greeting_without_a_name, two_names_in_a_greeting, a_second_list_of_names,
        a_name_over_two_records, a_greeting_byte_by_byte, a_hidden_name, a_hidden_name_behind_that_of_the_tunnel,
        a_nul_in_the_name, a_denied_name_in_capitals, a_denied_name_through_an_address, fronting_by_the_host_field,
        an_empty_line_before_a_request, a_method_in_small_letters,
        a_request_with_bare_line_feeds, a_space_before_the_colon_in_a_tunnel, what_only_begins_like_tls, a_greeting_without_end,
        data_before_the_answer, the_host_field_of_connect, a_tunnel_to_the_inside, a_rule_for_one_port, old_socks,
        commands_of_socks, socks_with_a_password, a_nul_in_a_name_of_socks, a_tunnel_that_outlives_its_rule);
}

/// Domain fronting: a tunnel to an allowed host, and another name in the greeting of TLS.
/// > `sni_mismatch`; the program gets an alert.
async fn fronting_by_the_name_in_tls(inside: &mut Inside<'_>) {
    let said = inside.says("print(greet(b'open.test', ECHO, hello(sni(b'other.test'))), greet(b'open.test', ECHO, hello(sni(b'open.test'))))").await;
    assert_eq!(said, "alert carried");
    let recorded = inside.recorded();
    assert!(
        recorded.contains(&"connect open.test sni_mismatch".to_owned()),
        "{recorded:?}"
    );
}

/// A greeting that names nobody, to a host behind which many are.
/// > `sni_missing`.
async fn a_greeting_without_a_name(inside: &mut Inside<'_>) {
    let said = inside.says("print(greet(b'open.test', ECHO, hello()), greet(b'open.test', ECHO, hello((43, b'\\2\\3\\4'))))").await;
    assert_eq!(said, "alert alert");
    assert!(
        inside
            .recorded()
            .contains(&"connect open.test sni_missing".to_owned())
    );
}

/// Two names in one list, of which each server takes another.
/// > `bad_greeting`.
async fn two_names_in_a_greeting(inside: &mut Inside<'_>) {
    let said = inside
        .says("print(greet(b'open.test', ECHO, hello(sni(b'open.test', b'denied.test'))))")
        .await;
    assert_eq!(said, "alert");
    assert!(
        inside
            .recorded()
            .contains(&"connect open.test bad_greeting".to_owned())
    );
}

/// The extension with the name, twice.
/// > `bad_greeting`.
async fn a_second_list_of_names(inside: &mut Inside<'_>) {
    let said = inside
        .says("print(greet(b'open.test', ECHO, hello(sni(b'open.test'), sni(b'denied.test'))))")
        .await;
    assert_eq!(said, "alert");
}

/// The greeting is divided over many records, so that no record holds the name.
/// > They are put together before they are read: `sni_mismatch`.
async fn a_name_over_two_records(inside: &mut Inside<'_>) {
    let said = inside.says("print(*[greet(b'open.test', ECHO, hello(sni(name), record=9)) for name in (b'denied.test', b'open.test')])").await;
    assert_eq!(said, "alert carried");
}

/// The greeting comes in pieces of a few bytes, so that no packet holds the name.
/// > It is waited for: `sni_mismatch`.
async fn a_greeting_byte_by_byte(inside: &mut Inside<'_>) {
    let said = inside.says("h = hello(sni(b'denied.test')); print(greet(b'open.test', ECHO, *[h[at:at + 7] for at in range(0, len(h), 7)]))").await;
    assert_eq!(said, "alert");
}

/// Encrypted Client Hello: the name that is seen is a front's, in a tunnel to the host that is hidden behind it.
/// > The front's name is not the tunnel's: `sni_mismatch`.
async fn a_hidden_name(inside: &mut Inside<'_>) {
    let said = inside.says("print(greet(b'open.test', ECHO, hello(sni(b'cloudflare-ech.com'), (0xfe0d, bytes(200)))))").await;
    assert_eq!(said, "alert");
    assert!(
        inside
            .recorded()
            .contains(&"connect open.test sni_mismatch".to_owned())
    );
}

/// Encrypted Client Hello behind the very name of the tunnel: what is sealed is another one behind the same servers.
/// > What hides a name is refused wherever a name is kept in: `ech`; the program gets an alert.
async fn a_hidden_name_behind_that_of_the_tunnel(inside: &mut Inside<'_>) {
    let hiding = "sealed = (0xfe0d, b'\\0\\0\\1\\0\\1\\7' + sized(2, b'\\5' * 32) + sized(2, b'\\t' * 150))\n\
                  some = (sni(b'open.test'), sealed), (sealed, sni(b'open.test')), (sni(b'open.test'), sealed, sealed)\n\
                  print(*[greet(b'open.test', ECHO, hello(*way, record=r)) for way in some for r in (9, 16000)])";
    assert_eq!(inside.says(hiding).await, ["alert"; 6].join(" "));
    let recorded = inside.recorded();
    assert!(
        recorded.contains(&"connect open.test ech".to_owned()),
        "{recorded:?}"
    );
    inside.rules(NetworkMode::Allowlist, &["open.test"], &[]);
    assert_eq!(inside.says(hiding).await, ["alert"; 6].join(" "));
    // Where every name is let out there is none to hide.
    inside.rules(NetworkMode::Unrestricted, &[], &[]);
    assert_eq!(inside.says(hiding).await, ["carried"; 6].join(" "));
}

/// A NUL byte in the name of a greeting.
/// > `bad_greeting`.
async fn a_nul_in_the_name(inside: &mut Inside<'_>) {
    let said = inside.says("print(greet(b'open.test', ECHO, hello(sni(b'open.test\\0.denied.test'))), greet(b'open.test', ECHO, hello(sni(b''))))").await;
    assert_eq!(said, "alert alert");
}

/// A denied name in capital letters and with a final dot, in a greeting to an address.
/// > `host_denied`.
async fn a_denied_name_in_capitals(inside: &mut Inside<'_>) {
    let said = inside.says("print(greet(b'127.0.0.1', ECHO, hello(sni(b'X.Denied.TEST'))), greet(b'127.0.0.1', ECHO, hello(sni(b'denied.test.'))))").await;
    assert_eq!(said, "alert alert");
    assert!(
        inside
            .recorded()
            .contains(&"connect 127.0.0.1 host_denied".to_owned())
    );
}

/// A tunnel to an address, for a host that the rules deny by its name.
/// > The name in the greeting is judged: `host_denied`.
async fn a_denied_name_through_an_address(inside: &mut Inside<'_>) {
    let said = inside.says("print(greet(b'127.0.0.1', ECHO, hello(sni(b'denied.test'))), greet(b'127.0.0.1', ECHO, hello(sni(b'fine.test'))))").await;
    assert_eq!(said, "alert carried");
}

/// Fronting in clear: a tunnel to an allowed host, and a request in it for another.
/// > `host_mismatch`; nothing is sent.
async fn fronting_by_the_host_field(inside: &mut Inside<'_>) {
    let said = inside.says("print(greet(b'open.test', ECHO, b'GET / HTTP/1.1\\r\\nhost: denied.test\\r\\n\\r\\n'), greet(b'open.test', ECHO, b'GET / HTTP/1.1\\r\\nhost: open.test\\r\\nhost: denied.test\\r\\n\\r\\n'))").await;
    assert_eq!(said, "cut alert");
    assert!(
        inside
            .recorded()
            .contains(&"connect open.test host_mismatch".to_owned())
    );
}

/// An empty line before the request in a tunnel, which servers pass over (RFC 9112, section 2.2).
/// > It is passed over here too: `host_mismatch`.
async fn an_empty_line_before_a_request(inside: &mut Inside<'_>) {
    let said = inside.says("print(*[greet(b'open.test', ECHO, more + b'GET / HTTP/1.1\\r\\nhost: denied.test\\r\\n\\r\\n') for more in (b'\\r\\n', b'\\n', b'\\r\\n\\r\\n\\n')])").await;
    assert_eq!(said, "cut cut cut");
}

/// A method in small letters, or one with signs in it, which some servers take.
/// > A method is any token: `host_mismatch`.
async fn a_method_in_small_letters(inside: &mut Inside<'_>) {
    let said = inside.says("print(*[greet(b'open.test', ECHO, method + b' / HTTP/1.1\\r\\nhost: denied.test\\r\\n\\r\\n') for method in (b'get', b'M-SEARCH', b'X' * 30)])").await;
    assert_eq!(said, "cut cut cut");
}

/// A request in a tunnel whose lines end in bare line feeds.
/// > Its end is found as servers find it: `host_mismatch`.
async fn a_request_with_bare_line_feeds(inside: &mut Inside<'_>) {
    let said = inside.says("print(greet(b'open.test', ECHO, b'GET / HTTP/1.1\\nhost: denied.test\\n\\n'), greet(b'open.test', ECHO, b'GET / HTTP/1.1\\r\\nhost: denied.test\\n\\r\\n'))").await;
    assert_eq!(said, "cut cut");
}

/// A Host field with a space before its colon, beside one that fits.
/// > It is a Host field: two are refused.
async fn a_space_before_the_colon_in_a_tunnel(inside: &mut Inside<'_>) {
    let said = inside.says("print(greet(b'open.test', ECHO, b'GET / HTTP/1.1\\r\\nhost: open.test\\r\\nhost : denied.test\\r\\n\\r\\n'), greet(b'open.test', ECHO, b'GET / HTTP/1.1\\r\\nHost\\t: denied.test\\r\\n\\r\\n'))").await;
    assert_eq!(said, "alert cut");
}

/// Bytes that begin like TLS and are something else, for a server that looks further.
/// > `bad_greeting`.
async fn what_only_begins_like_tls(inside: &mut Inside<'_>) {
    let said = inside.says("print(*[greet(b'open.test', ECHO, one) for one in (b'\\x16\\3\\1\\0\\4\\2\\0\\0\\0', b'\\x16GET / HTTP/1.1\\r\\n', b'\\x16\\3\\1\\xff\\xff', b'\\x16\\3\\1\\0\\0')])").await;
    assert_eq!(said, "alert alert alert alert");
}

/// A greeting that says it is longer than any, and goes on.
/// > `bad_greeting` at 32 KiB.
async fn a_greeting_without_end(inside: &mut Inside<'_>) {
    let said = inside.says("print(greet(b'open.test', ECHO, b'\\x16\\3\\1\\0\\5\\1\\0\\x7f\\0\\0' + b'\\x16\\3\\1\\0\\1\\0' * 6000))").await;
    // What was not read when it was closed may take the alert with it.
    assert!(["alert", "cut"].contains(&said.as_str()), "{said}");
}

/// A greeting for a denied host in one packet with the CONNECT, before anything was answered.
/// > What comes early is looked at like what comes late.
async fn data_before_the_answer(inside: &mut Inside<'_>) {
    let said = inside.says(
        "s = dial(); s.sendall(b'CONNECT open.test:%d HTTP/1.1\\r\\nhost: open.test:%d\\r\\n\\r\\n' % (ECHO, ECHO) + hello(sni(b'denied.test'))); b = b''\n\
         while True:\n    part = s.recv(9999)\n    if not part: break\n    b += part\n\
         print(b.split(b'\\r\\n\\r\\n')[1][:1])",
    ).await;
    assert_eq!(said, "b'\\x15'");
}

/// CONNECT to a denied host with an allowed one in the Host field, and the other way round.
/// > `host_mismatch`.
async fn the_host_field_of_connect(inside: &mut Inside<'_>) {
    let said = inside.says("print(connect(b'denied.test', ECHO, b'open.test')[0], connect(b'open.test', ECHO, b'open.test:1')[0])").await;
    assert_eq!(said, "400 host_mismatch 400 host_mismatch");
}

/// A tunnel to the inside, to ports of things that are no web.
/// > Refused by its address, whatever the port.
async fn a_tunnel_to_the_inside(inside: &mut Inside<'_>) {
    let said = inside
        .says("print(*[connect(b'any.test', port)[0] for port in (22, 25, 2375, 6379, TRAP)])")
        .await;
    assert_eq!(said, ["403 address_loopback"; 5].join(" "));
}

/// A tunnel to another port of a host that is allowed at one.
/// > `host_not_allowed`.
async fn a_rule_for_one_port(inside: &mut Inside<'_>) {
    inside.rules(
        NetworkMode::Allowlist,
        &[&format!("open.test:{}", inside.open)],
        &[],
    );
    let said = inside.says("print(connect(b'open.test', ECHO)[0], socks(b'open.test', ECHO), connect(b'open.test', OPEN)[0])").await;
    assert_eq!(said, "403 host_not_allowed 2 200");
}

/// SOCKS4 and SOCKS4a, in which no rule is asked by a proxy that knows only SOCKS5.
/// > No SOCKS5 and no HTTP: refused.
async fn old_socks(inside: &mut Inside<'_>) {
    let said = inside.says("print(*[raw(b'\\4\\1' + struct.pack('>H', TRAP) + a)[:1] for a in (b'\\x7f\\0\\0\\1\\0', b'\\0\\0\\0\\1\\0any.test\\0')])").await;
    assert!(["4 4", "n n"].contains(&said.as_str()), "{said}");
}

/// SOCKS5 is asked to listen, or to carry datagrams.
/// > Reply 7.
async fn commands_of_socks(inside: &mut Inside<'_>) {
    let said = inside
        .says("print(*[socks(b'open.test', ECHO, command=c) for c in (2, 3, 0, 255)])")
        .await;
    assert_eq!(said, "7 7 7 7");
}

/// SOCKS5 with nothing but a password to offer, or with a list of methods that never ends.
/// > 255, and the connection is closed.
async fn socks_with_a_password(inside: &mut Inside<'_>) {
    let said = inside
        .says(
            "s = dial(); s.sendall(b'\\5\\1\\2'); print(s.recv(9), s.recv(9))\n\
         s = dial(); s.sendall(b'\\5\\0'); print(s.recv(9), s.recv(9))\n\
         s = dial(); s.sendall(b'\\5\\xff' + b'\\2' * 255); print(s.recv(9), s.recv(9))",
        )
        .await;
    let expect = r"b'\x05\xff' b''";
    assert_eq!(said, [expect; 3].join("\n"));
}

/// A NUL byte in the name that SOCKS asks for, where a length says how long it is.
/// > Reply 8.
async fn a_nul_in_a_name_of_socks(inside: &mut Inside<'_>) {
    let said = inside.says("print(socks(b'open.test\\0.denied.test', ECHO), socks(b'', ECHO), socks(b'open.test', 0))").await;
    assert_eq!(said, "8 8 8");
}

/// A tunnel that was opened while it was allowed, kept for later.
/// > It is cut when the rules do not allow it any more.
async fn a_tunnel_that_outlives_its_rule(inside: &mut Inside<'_>) {
    let script = "cd /tmp; python3 -u - <<'E'\nfrom attack import *\nsaid, s = connect(b'open.test', ECHO)\ns.sendall(b'\\1one'); print(said, s.recv(9))\n\
                  print('kept')\ns.settimeout(20); print(s.recv(9))\nE";
    let script = script.replace("ECHO", &inside.echo.to_string());
    let mut process = inside.served().start(&script).await;
    let said = inside.while_served(async {
        let first = process.until("kept\n").await;
        inside.rules(NetworkMode::Unrestricted, &[], &["open.test"]);
        let (last, _) = process.end().await;
        first + &last
    });
    assert_eq!(said.await, "200 b'\\x01one'\nkept\nb''\n");
}
