//! Hosts that a rule reads in one way and somebody else in another.

use super::Inside;
use model::network::NetworkMode;

#[tokio::test]
async fn hosts_have_one_meaning() {
    let world = world!();
    let mut inside = inside!(world);
    tries!(inside:
        nul_in_a_host, capitals_in_a_denied_host, a_final_dot, two_final_dots, letters_of_other_scripts,
        full_width_letters, a_soft_hyphen, percent_encoded_letters, userinfo_before_a_host, an_end_of_the_authority,
        control_characters_in_a_host, a_longer_name_with_an_allowed_end, an_allowed_name_as_a_beginning,
        the_domain_of_a_wildcard, a_host_longer_than_names_are, an_odd_port);
}

/// Names for which a filter and a C library disagree: each must pass nowhere.
async fn refused_everywhere(inside: &mut Inside<'_>, hosts: &str) {
    let script =
        format!("for host in {hosts}:\n    print(*[str(said)[0] for said in ways(host, OPEN)])");
    let said = inside.says(&script).await;
    assert!(!said.is_empty());
    for line in said.lines() {
        // 400 or 403 by HTTP; by SOCKS 2 (not allowed), 8 (cannot be read) or an end of the connection.
        assert!(
            ["4 4 2", "4 4 8", "4 4 c", "4 4 N"].contains(&line),
            "{hosts}: {said}"
        );
    }
    assert_eq!(
        (inside.heard().len(), inside.asked().len()),
        (0, 0),
        "{hosts}"
    );
}

/// A NUL byte ends the name for a C library and not for a rule about its end.
/// > Refused on every way; nobody is asked for any name.
async fn nul_in_a_host(inside: &mut Inside<'_>) {
    refused_everywhere(
        inside,
        r"[b'denied.test\0.open.test', b'open.test\0', b'\0open.test']",
    )
    .await;
}

/// A denied name is written in capital letters.
/// > Names are compared in lower case: `host_denied`.
async fn capitals_in_a_denied_host(inside: &mut Inside<'_>) {
    let said = inside.says("print(*ways(b'DeNiEd.TEST', OPEN))").await;
    assert_eq!(said, "403 host_denied 403 host_denied 2");
}

/// A denied name is written with the dot of the root at its end.
/// > The dot is taken off before anything is compared: `host_denied`.
async fn a_final_dot(inside: &mut Inside<'_>) {
    let said = inside.says("print(*ways(b'denied.test.', OPEN))").await;
    assert_eq!(said, "403 host_denied 403 host_denied 2");
}

/// Two dots at the end, of which a reader takes off only one.
/// > Refused as no name.
async fn two_final_dots(inside: &mut Inside<'_>) {
    refused_everywhere(
        inside,
        "[b'denied.test..', b'denied..test', b'.denied.test']",
    )
    .await;
}

/// A name with a letter that only looks like one of a denied name's, which a translation could make the same.
/// > It is another name, in its `xn--` form, and is judged as such; by HTTP, whose targets are ASCII, it is refused.
async fn letters_of_other_scripts(inside: &mut Inside<'_>) {
    let said = inside
        .says("print(*ways('d\\u0435nied.test'.encode(), OPEN))")
        .await;
    assert_eq!(said, "400 400 0");
    let asked = inside.asked();
    assert!(
        asked.len() == 1 && asked[0].starts_with("xn--"),
        "{asked:?}"
    );
}

/// Full-width letters and dots, which some resolvers turn into the ASCII of a denied name.
/// > Refused: a letter with more than one form is in no name.
async fn full_width_letters(inside: &mut Inside<'_>) {
    let hosts = "[h.encode() for h in ('\\uff44enied.test', 'denied\\u3002test', 'denied\\uff0etest', '\\u2460.test')]";
    refused_everywhere(inside, hosts).await;
}

/// Characters that nobody sees and that resolvers leave out.
/// > Refused.
async fn a_soft_hyphen(inside: &mut Inside<'_>) {
    let hosts = "[h.encode() for h in ('de\\u00adnied.test', 'denied\\u200b.test', 'denied.test\\ufeff', 'd\\u0301enied.test')]";
    refused_everywhere(inside, hosts).await;
}

/// Letters of a denied name are percent-encoded, for a client library that decodes them.
/// > Refused: `%` is in no name.
async fn percent_encoded_letters(inside: &mut Inside<'_>) {
    refused_everywhere(
        inside,
        "[b'%64enied.test', b'denied%2etest', b'open.test%00.x']",
    )
    .await;
}

/// An allowed name stands before an `@`, the real target after it, or the other way round.
/// > Refused: nobody logs in by an authority.
async fn userinfo_before_a_host(inside: &mut Inside<'_>) {
    refused_everywhere(
        inside,
        "[b'open.test@denied.test', b'denied.test@open.test', b'u:p@open.test']",
    )
    .await;
}

/// Characters that end a host for one parser and not for another.
/// > Refused.
async fn an_end_of_the_authority(inside: &mut Inside<'_>) {
    let said = inside.says(
        r"for host in (b'denied.test\\.open.test', b'denied.test\\@open.test', b'open.test;denied.test', b'open.test,denied.test'): print(*ways(host, OPEN))",
    ).await;
    assert!(!said.contains("200") && !said.contains(" 0"), "{said}");
    // What follows a `#` or a `?` is no part of the host for anybody here.
    let said = inside
        .says("print(get(b'denied.test#.open.test', OPEN), get(b'denied.test?.open.test', OPEN))")
        .await;
    assert!(!said.contains("200"), "{said}");
    assert_eq!(inside.heard().len(), 0);
}

/// Tabs, spaces, line ends and deletes inside of a name.
/// > Refused.
async fn control_characters_in_a_host(inside: &mut Inside<'_>) {
    refused_everywhere(inside, r"[b'open.test\x7f', b'open\x01.test', b'open.te\tst', b'open.test\x0b', b'\x1b[0mopen.test']").await;
}

/// A name that somebody registered because it ends like an allowed one.
/// > Whole labels are compared: `host_not_allowed`, and the name is not resolved.
async fn a_longer_name_with_an_allowed_end(inside: &mut Inside<'_>) {
    inside.rules(NetworkMode::Allowlist, &["open.test", "*.wild.test"], &[]);
    let said = inside
        .says("print(ways(b'evilopen.test', OPEN), ways(b'notwild.test', OPEN))")
        .await;
    let denied = "('403 host_not_allowed', '403 host_not_allowed', 2)";
    assert_eq!(said, format!("{denied} {denied}"));
    assert_eq!(inside.asked().len(), 0);
}

/// A name that begins with an allowed one and belongs to somebody else.
/// > `host_not_allowed`.
async fn an_allowed_name_as_a_beginning(inside: &mut Inside<'_>) {
    inside.rules(NetworkMode::Allowlist, &["open.test"], &[]);
    let said = inside
        .says("print(*ways(b'open.test.evil.test', OPEN), *ways(b'x.open.test', OPEN)[:1])")
        .await;
    assert_eq!(
        said,
        "403 host_not_allowed 403 host_not_allowed 2 403 host_not_allowed"
    );
}

/// The domain itself where only the names below it are allowed.
/// > `host_not_allowed`; a name below it passes.
async fn the_domain_of_a_wildcard(inside: &mut Inside<'_>) {
    inside.rules(NetworkMode::Allowlist, &["*.wild.test"], &[]);
    let said = inside
        .says("print(*ways(b'wild.test', OPEN)); print(get(b'a.b.wild.test', OPEN))")
        .await;
    assert_eq!(said, "403 host_not_allowed 403 host_not_allowed 2\n200");
}

/// Names and labels longer than DNS has, for a buffer somewhere.
/// > Refused.
async fn a_host_longer_than_names_are(inside: &mut Inside<'_>) {
    refused_everywhere(inside, "[b'x' * 64 + b'.test', b'a.' * 125 + b'test']").await;
}

/// Ports that are read differently: 0, one that wraps around, a sign, a leading zero.
/// > Refused.
async fn an_odd_port(inside: &mut Inside<'_>) {
    let said = inside.says(
        "for port in (b'0', b'65536', b'%d' % (65536 + OPEN), b'+%d' % OPEN, b'0%d' % OPEN, b'', b'80x', b'-1'):\n    \
         a = b'open.test:' + port\n    \
         print(raw(b'GET http://' + a + b'/ HTTP/1.1\\r\\nhost: ' + a + b'\\r\\n\\r\\n')[:1], raw(b'CONNECT ' + a + b' HTTP/1.1\\r\\nhost: ' + a + b'\\r\\n\\r\\n')[:1])\n\
         print(socks(b'open.test', 0))",
    ).await;
    assert_eq!(said, format!("{}8", "4 4\n".repeat(8)));
    assert_eq!(inside.heard().len(), 0);
}
