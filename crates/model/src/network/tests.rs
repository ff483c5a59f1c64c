use super::*;
use crate::host::Host;
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr};

fn rules(
    mode: Option<NetworkMode>,
    allow: &[&str],
    deny: &[&str],
    presets: &[&str],
) -> NetworkRules {
    let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect();
    let asked = NetworkAsked {
        mode,
        allow: texts(allow),
        deny: texts(deny),
        presets: texts(presets),
        ..NetworkAsked::default()
    };
    NetworkRules::read(&asked).unwrap()
}

fn e2b(allow: &[&str], deny: &[&str]) -> NetworkRules {
    NetworkRules {
        order: Order::AllowFirst,
        allow: allow.iter().map(|one| one.parse().unwrap()).collect(),
        ..rules(Some(NetworkMode::Unrestricted), &[], deny, &[])
    }
}

fn ask(rules: &NetworkRules, how: How<'_>, host: &str, port: u16, addresses: &[&str]) -> String {
    let host = Host::parse(host).unwrap();
    let mut addresses: Vec<IpAddr> = addresses.iter().map(|one| one.parse().unwrap()).collect();
    if let Host::Address(address) = host {
        addresses = vec![address];
    }
    let verdict = rules.after(how, &host, port, &addresses);
    let what = verdict.denial.map_or("allowed", Denial::code);
    format!("{what} by {}", verdict.rule)
}

fn tunnel(rules: &NetworkRules, host: &str, port: u16, addresses: &[&str]) -> String {
    ask(rules, How::Tunnel, host, port, addresses)
}

/// Who follows a hint to open one host must not lose what was allowed and denied before.
#[test]
fn no_denial_leads_to_a_command_that_takes_the_other_rules_away() {
    for denial in [
        Denial::NoEgress,
        Denial::Denied,
        Denial::NotAllowed,
        Denial::Opaque,
        Denial::NotReading,
        Denial::SniMismatch,
        Denial::SniMissing,
        Denial::Ech,
        Denial::HttpRule,
        Denial::OddPath,
        Denial::DependencyNotAllowed,
    ] {
        let hint = denial.hint();
        assert!(!hint.contains("sandbox net ID --"), "{hint}");
    }
    let hint = Denial::NotAllowed.hint();
    for told in ["approval ask --sandbox ID --to HOST:PORT", "all rules anew"] {
        assert!(hint.contains(told), "{hint}");
    }
}

#[test]
fn an_allowlist_lets_out_what_it_names_and_nothing_else() {
    let list = rules(
        None,
        &["a.example:443", "*.b.example", "9.9.9.0/24"],
        &[],
        &["pypi"],
    );
    assert_eq!(list.mode, NetworkMode::Allowlist);
    for (host, port, addresses, expect) in [
        (
            "A.Example.",
            443,
            &["1.1.1.1"][..],
            "allowed by allow a.example:443",
        ),
        (
            "a.example",
            80,
            &["1.1.1.1"],
            "host_not_allowed by mode allowlist",
        ),
        (
            "x.b.example",
            22,
            &["1.1.1.1"],
            "allowed by allow *.b.example",
        ),
        (
            "b.example",
            22,
            &["1.1.1.1"],
            "host_not_allowed by mode allowlist",
        ),
        ("9.9.9.9", 53, &[], "allowed by allow 9.9.9.0/24"),
        ("[::ffff:9.9.9.9]", 53, &[], "allowed by allow 9.9.9.0/24"),
        ("9.9.8.9", 53, &[], "host_not_allowed by mode allowlist"),
        // A name is allowed by its name only: otherwise it would be resolved for everybody who asks.
        (
            "c.example",
            53,
            &["9.9.9.9"],
            "host_not_allowed by mode allowlist",
        ),
        (
            "pypi.org",
            443,
            &["1.1.1.1"],
            "allowed by preset pypi: pypi.org:443",
        ),
        (
            "pypi.org",
            80,
            &["1.1.1.1"],
            "host_not_allowed by mode allowlist",
        ),
    ] {
        assert_eq!(
            tunnel(&list, host, port, addresses),
            expect,
            "{host}:{port}"
        );
    }
}

#[test]
fn what_is_denied_is_denied_also_where_it_is_allowed() {
    let list = rules(
        None,
        &["*.a.example", "10.0.0.0/8"],
        &["x.a.example", "10.1.0.0/16"],
        &[],
    );
    for (host, addresses, expect) in [
        (
            "y.a.example",
            &["1.1.1.1"][..],
            "allowed by allow *.a.example",
        ),
        (
            "x.a.example",
            &["1.1.1.1"],
            "host_denied by deny x.a.example",
        ),
        (
            "y.a.example",
            &["1.1.1.1", "10.1.0.1"],
            "host_denied by deny 10.1.0.0/16",
        ),
        ("10.1.2.3", &[], "host_denied by deny 10.1.0.0/16"),
        ("10.2.2.3", &[], "allowed by allow 10.0.0.0/8"),
    ] {
        assert_eq!(tunnel(&list, host, 443, addresses), expect, "{host}");
    }
    let open = rules(None, &[], &["*.evil.example", "1.1.1.1", "*:25"], &[]);
    assert_eq!(open.mode, NetworkMode::Unrestricted);
    for (host, port, addresses, expect) in [
        (
            "a.example",
            443,
            &["2.2.2.2"][..],
            "allowed by mode unrestricted",
        ),
        ("a.example", 25, &["2.2.2.2"], "host_denied by deny *:25"),
        (
            "a.example",
            443,
            &["2.2.2.2", "1.1.1.1"],
            "host_denied by deny 1.1.1.1",
        ),
        (
            "x.evil.example",
            443,
            &["2.2.2.2"],
            "host_denied by deny *.evil.example",
        ),
    ] {
        assert_eq!(
            tunnel(&open, host, port, addresses),
            expect,
            "{host}:{port}"
        );
    }
}

/// The cases are those of E2B's documents: allowed entries take precedence, and what neither list names passes.
#[test]
fn in_the_order_of_e2b_what_is_allowed_is_allowed_also_where_it_is_denied() {
    for (allow, deny, host, expect) in [
        (
            &["8.8.8.8"][..],
            &["*"][..],
            "8.8.8.8",
            "allowed by allow 8.8.8.8",
        ),
        (&["8.8.8.8"], &["*"], "1.1.1.1", "host_denied by deny *"),
        (
            &[],
            &["1.1.1.0/24"],
            "1.1.1.2",
            "host_denied by deny 1.1.1.0/24",
        ),
        (&[], &["1.1.1.1"], "8.8.8.8", "allowed by mode unrestricted"),
        (
            &["1.1.1.1"],
            &["1.1.1.1"],
            "1.1.1.1",
            "allowed by allow 1.1.1.1",
        ),
        (
            &["8.8.8.8"],
            &["1.1.1.1"],
            "9.9.9.9",
            "allowed by mode unrestricted",
        ),
        (&["8.8.8.8"], &[], "1.1.1.1", "allowed by mode unrestricted"),
        (&["*"], &["*"], "1.1.1.1", "allowed by allow *"),
        (
            &["a.example"],
            &["*"],
            "a.example",
            "allowed by allow a.example",
        ),
        (&["a.example"], &["*"], "b.example", "host_denied by deny *"),
        (
            &["*.a.example"],
            &["*"],
            "b.a.example",
            "allowed by allow *.a.example",
        ),
        (
            &["1.1.1.1"],
            &["1.1.1.0/24"],
            "c.example",
            "allowed by mode unrestricted",
        ),
        (
            &["9.9.9.9"],
            &["1.1.1.0/24"],
            "c.example",
            "host_denied by deny 1.1.1.0/24",
        ),
        (&["1.1.1.1"], &["*"], "c.example", "host_denied by deny *"),
    ] {
        let said = tunnel(&e2b(allow, deny), host, 443, &["1.1.1.1"]);
        assert_eq!(said, expect, "{allow:?} {deny:?} {host}");
    }
}

#[test]
fn read_only_reads_in_clear_and_does_nothing_else() {
    let read = |rules: &NetworkRules, method, has_body| {
        ask(
            rules,
            How::Request { method, has_body },
            "a.example",
            80,
            &["1.1.1.1"],
        )
    };
    let open = rules(Some(NetworkMode::ReadOnly), &[], &["*.evil.example"], &[]);
    assert_eq!(read(&open, "GET", false), "allowed by mode read-only");
    assert_eq!(read(&open, "HEAD", false), "allowed by mode read-only");
    for (method, has_body) in [
        ("POST", true),
        ("POST", false),
        ("GET", true),
        ("get", false),
        ("OPTIONS", false),
    ] {
        assert_eq!(
            read(&open, method, has_body),
            "read_only_method by mode read-only",
            "{method}"
        );
    }
    assert_eq!(
        tunnel(&open, "a.example", 443, &["1.1.1.1"]),
        "read_only_tunnel by mode read-only"
    );
    let some = rules(Some(NetworkMode::ReadOnly), &["b.example"], &[], &[]);
    assert_eq!(
        read(&some, "GET", false),
        "host_not_allowed by mode read-only"
    );
}

#[test]
fn without_a_network_nothing_is_let_out() {
    let none = NetworkRules::default();
    assert_eq!(
        tunnel(&none, "a.example", 443, &["1.1.1.1"]),
        "no_egress by mode none"
    );
    assert!(!none.has_way_out());
}

#[test]
fn the_tls_greeting_names_the_host_that_was_asked_for() {
    let says = |rules: &NetworkRules, asked: &str, said: Option<&str>| {
        let asked = Host::parse(asked).unwrap();
        let said = said.map(|said| Host::parse(said).unwrap());
        let verdict = rules.greeting(&asked, 443, said.as_ref());
        verdict.denial.map_or("allowed", Denial::code)
    };
    let list = rules(None, &["a.example", "9.9.9.9"], &["*.evil.example"], &[]);
    for (asked, said, expect) in [
        ("a.example", Some("a.example"), "allowed"),
        ("a.example", Some("A.EXAMPLE"), "allowed"),
        ("a.example", Some("b.example"), "sni_mismatch"),
        ("a.example", Some("9.9.9.9"), "sni_mismatch"),
        ("a.example", None, "sni_missing"),
        ("9.9.9.9", None, "allowed"),
        ("9.9.9.9", Some("b.example"), "allowed"),
        ("9.9.9.9", Some("x.evil.example"), "host_denied"),
    ] {
        assert_eq!(says(&list, asked, said), expect, "{asked} {said:?}");
    }
    let e2b = e2b(&["9.9.9.9"], &["*"]);
    assert_eq!(says(&e2b, "9.9.9.9", Some("b.example")), "allowed");
}

/// With Encrypted Client Hello the name that is seen is whichever the client likes.
#[test]
fn a_greeting_that_may_hide_a_name_passes_only_where_no_name_is_kept_in() {
    use NetworkMode::Unrestricted;
    let list = |allow: &[&str], deny: &[&str]| rules(None, allow, deny, &[]);
    let open = |deny: &[&str]| rules(Some(Unrestricted), &[], deny, &[]);
    for (rules, asked, expect) in [
        (list(&["a.example"], &[]), "a.example", "ech"),
        (list(&["*.example:443"], &[]), "a.example", "ech"),
        (rules(None, &[], &[], &["pypi"]), "pypi.org", "ech"),
        // A star lets every name out, an address every name at it; but for those that are denied.
        (list(&["*"], &[]), "a.example", "allowed"),
        (list(&["a.example", "*:443"], &[]), "a.example", "allowed"),
        (list(&["*"], &["b.example"]), "a.example", "ech"),
        (list(&["*"], &["b.example:80"]), "a.example", "allowed"),
        (list(&["*"], &["10.0.0.0/8"]), "a.example", "allowed"),
        (list(&["a.example", "9.9.9.9"], &[]), "9.9.9.9", "allowed"),
        (list(&["9.9.9.0/24"], &["*.b.example"]), "9.9.9.9", "ech"),
        (open(&[]), "a.example", "allowed"),
        (open(&["10.0.0.0/8"]), "a.example", "allowed"),
        (open(&["*.b.example"]), "a.example", "ech"),
        (open(&["*.b.example"]), "9.9.9.9", "ech"),
        (open(&["b.example:80"]), "a.example", "allowed"),
        // E2B's lists: what is allowed counts before what is denied.
        (e2b(&["a.example"], &["*"]), "a.example", "ech"),
        (e2b(&["a.example"], &["0.0.0.0/0"]), "a.example", "ech"),
        (e2b(&["a.example"], &[]), "a.example", "allowed"),
        (e2b(&["9.9.9.9"], &["*"]), "9.9.9.9", "allowed"),
        (e2b(&["9.9.9.9"], &["b.example"]), "a.example", "ech"),
        (e2b(&["9.9.9.9"], &["10.0.0.0/8"]), "a.example", "allowed"),
    ] {
        let host = Host::parse(asked).unwrap();
        let verdict = rules.hiding(&host, 443);
        let what = verdict.denial.map_or("allowed", Denial::code);
        assert_eq!(what, expect, "{asked} by {rules:?}");
    }
}

#[test]
fn rules_that_do_not_go_together_are_refused_with_their_place() {
    let refused = |mode, allow: &[&str], deny: &[&str], presets: &[&str]| {
        let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        let asked = NetworkAsked {
            mode,
            allow: texts(allow),
            deny: texts(deny),
            presets: texts(presets),
            ..NetworkAsked::default()
        };
        let found = NetworkRules::read(&asked).err().unwrap_or_default();
        let found: Vec<String> = found
            .iter()
            .map(|one| format!("{} {}", one.field, one.code))
            .collect();
        found.join(", ")
    };
    use NetworkMode as M;
    assert_eq!(
        refused(Some(M::Allowlist), &[], &[], &[]),
        "network.allow network_rules"
    );
    assert_eq!(
        refused(Some(M::None), &["a.example"], &[], &[]),
        "network.mode network_rules"
    );
    assert_eq!(
        refused(Some(M::Unrestricted), &["a.example"], &[], &[]),
        "network.allow network_rules"
    );
    assert_eq!(
        refused(None, &["a.example", "a.*.b"], &["x:0"], &[]),
        "network.allow[1] network_rules, network.deny[0] network_rules"
    );
    assert_eq!(
        refused(None, &[], &[], &["pipy"]),
        "network.presets[0] network_rules"
    );
    let many = vec!["a.example"; limits::NETWORK_ENTRIES_MAX + 1];
    assert_eq!(refused(None, &many, &[], &[]), "network.allow too_many");
    assert_eq!(refused(None, &many[1..], &[], &[]), "");
    let caps = NetworkCaps {
        connections: Some(0),
        ..NetworkCaps::default()
    };
    let asked = NetworkAsked {
        mode: Some(M::Unrestricted),
        caps,
        ..NetworkAsked::default()
    };
    let found = NetworkRules::read(&asked).unwrap_err();
    assert_eq!(
        (found[0].field.as_str(), found[0].code),
        ("network.limits.connections", "limit_zero")
    );
}

#[test]
fn rules_are_stored_and_those_of_older_rows_are_understood() {
    let list = rules(
        None,
        &["a.example:443", "*.b.example"],
        &["10.0.0.0/8"],
        &["pypi"],
    );
    let text = serde_json::to_string(&list).unwrap();
    assert_eq!(serde_json::from_str::<NetworkRules>(&text).unwrap(), list);
    let open: NetworkRules = serde_json::from_str("true").unwrap();
    assert_eq!(open, NetworkRules::all_or_nothing(true));
    assert!(
        !serde_json::from_str::<NetworkRules>("false")
            .unwrap()
            .has_way_out()
    );
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let text = prop_oneof![
        "[a-c]\\.example",
        "\\*\\.[a-c]\\.example",
        "[0-3]\\.0\\.0\\.0/8",
        Just("*".to_owned()),
        "[a-c]\\.example:(80|443)",
    ];
    text.prop_map(|text| text.parse().unwrap())
}

fn any_host() -> impl Strategy<Value = String> {
    prop_oneof!["([x-z]\\.)?[a-c]\\.example", "[0-4]\\.0\\.0\\.1"]
}

proptest! {
    #[test]
    fn deny_first_means_that_nothing_that_a_deny_entry_names_passes(
        mode in proptest::sample::select(&NetworkMode::ALL[..]),
        allow in proptest::collection::vec(any_entry(), 0..4),
        deny in proptest::collection::vec(any_entry(), 0..4),
        host in any_host(),
        port in proptest::sample::select(&[80_u16, 443][..]),
        address: u32,
    ) {
        let rules = NetworkRules { mode, allow, deny, ..NetworkRules::default() };
        let host = Host::parse(&host).unwrap();
        let address = IpAddr::V4(Ipv4Addr::from_bits(address));
        let addresses = match host { Host::Address(one) => vec![one], Host::Name(_) => vec![address] };
        for how in [How::Tunnel, How::Request { method: "GET", has_body: false }] {
            let verdict = rules.after(how, &host, port, &addresses);
            if verdict.is_allowed() {
                prop_assert!(!rules.deny.iter().any(|entry| entry.names(&host, port)));
                prop_assert!(!rules.deny.iter().any(|entry| addresses.iter().any(|one| entry.holds(*one, port))));
                prop_assert!(mode != NetworkMode::None);
                prop_assert!(mode != NetworkMode::Allowlist || rules.allow.iter().any(|entry| entry.names(&host, port)));
            }
            // What is refused without addresses is refused with any.
            if !rules.before(how, &host, port).is_allowed() {
                prop_assert!(!verdict.is_allowed());
            }
        }
    }

    #[test]
    fn one_more_entry_in_deny_never_lets_more_out(
        allow in proptest::collection::vec(any_entry(), 1..4),
        deny in proptest::collection::vec(any_entry(), 0..3),
        more in any_entry(),
        host in any_host(),
        order in proptest::sample::select(&[Order::DenyFirst, Order::AllowFirst][..]),
    ) {
        let few = NetworkRules { mode: NetworkMode::Unrestricted, allow, deny, order, ..NetworkRules::default() };
        let mut many = few.clone();
        many.deny.push(more);
        let host = Host::parse(&host).unwrap();
        let addresses = [IpAddr::V4(Ipv4Addr::new(2, 0, 0, 7))];
        let passes = |rules: &NetworkRules| rules.after(How::Tunnel, &host, 443, &addresses).is_allowed();
        prop_assert!(!passes(&many) || passes(&few));
    }

    #[test]
    fn a_host_is_denied_at_any_port_when_it_is_at_each(
        mode in proptest::sample::select(&NetworkMode::ALL[..]),
        allow in proptest::collection::vec(any_entry(), 0..4),
        deny in proptest::collection::vec(any_entry(), 0..4),
        order in proptest::sample::select(&[Order::DenyFirst, Order::AllowFirst][..]),
        host in any_host(),
    ) {
        let rules = NetworkRules { mode, allow, deny, order, ..NetworkRules::default() };
        let host = Host::parse(&host).unwrap();
        for how in [How::Tunnel, How::Request { method: "GET", has_body: false }] {
            // The entries are about these two ports or about all.
            let one = [80, 443, 8080].iter().any(|port| rules.before(how, &host, *port).is_allowed());
            prop_assert_eq!(rules.at_any_port(how, &host).is_allowed(), one);
        }
    }
}
