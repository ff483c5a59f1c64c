use super::*;
use crate::network::{How, NetworkAsked, Order};
use proptest::prelude::*;

fn one(host: &str, port: Option<u16>, methods: &[&str], paths: &[&str]) -> RequestAsked {
    let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect();
    RequestAsked {
        host: host.to_owned(),
        port,
        methods: texts(methods),
        paths: texts(paths),
        set: BTreeMap::new(),
    }
}

fn set(asked: RequestAsked, name: &str) -> RequestAsked {
    let set = BTreeMap::from([(name.to_owned(), "1".to_owned())]);
    RequestAsked { set, ..asked }
}

fn read_all(requests: Vec<RequestAsked>) -> Result<NetworkRules, Vec<Invalid>> {
    NetworkRules::read(&NetworkAsked {
        requests,
        ..NetworkAsked::default()
    })
}

fn api() -> NetworkRules {
    read_all(vec![
        set(
            one("api.test", None, &["GET"], &["/v1/models", "/v1/files/*"]),
            "x-read",
        ),
        set(one("api.test", None, &["GET", "POST"], &["/v1/*"]), "x-all"),
        // It narrows nothing, and sets something.
        set(one("api.test", Some(443), &[], &[]), "x-always"),
        set(one("*.open.test", Some(8443), &[], &[]), "x-open"),
        one("*.test", None, &["PUT"], &["/v1/put"]),
    ])
    .unwrap()
}

fn ask(rules: &NetworkRules, host: &str, port: u16, method: &str, path: &str) -> String {
    let host = Host::parse(host).unwrap();
    let asked = Request {
        host: &host,
        port,
        method,
        path,
    };
    match rules.judge(asked) {
        Ok(set) => set
            .iter()
            .map(|(name, _)| *name)
            .collect::<Vec<_>>()
            .join(" "),
        Err(verdict) => verdict.denial.unwrap().code().to_owned(),
    }
}

#[test]
fn what_matches_no_rule_stays_inside_and_all_that_match_set_their_fields() {
    for (method, path, expect) in [
        ("GET", "/v1/models", "x-read x-all x-always"),
        ("GET", "/v1/models/", "x-all x-always"),
        ("POST", "/v1/models", "x-all x-always"),
        ("GET", "/v1/files/a", "x-read x-all x-always"),
        ("GET", "/v1/", "x-all x-always"),
        ("PUT", "/v1/put", "x-always"),
        ("PUT", "/v1/x", "http_rule"),
        ("GET", "/v1", "http_rule"),
        ("GET", "/v2/x", "http_rule"),
        ("DELETE", "/v1/models", "http_rule"),
        ("get", "/v1/models", "http_rule"),
        ("GET", "/v1/files/../../admin", "odd_path"),
        ("GET", "/v1/./x", "odd_path"),
        ("GET", "/v1//x", "odd_path"),
        ("GET", "//v1/x", "odd_path"),
        ("GET", "/v1/%2e%2E/x", "odd_path"),
        ("GET", "/v1/..%2fx", "odd_path"),
        ("GET", "/v1/a%252e", "odd_path"),
        // A dot for who reads escapes twice, and for who reads characters that are longer than they need be.
        ("GET", "/v1/%%32e%%32E/x", "odd_path"),
        ("GET", "/v1/%2", "odd_path"),
        ("GET", "/v1/%e0%80%AE%e0%80%ae/x", "odd_path"),
        ("GET", "/v1/%F0%80%80%ae/x", "odd_path"),
        ("GET", "/v1/a\\..\\b", "odd_path"),
        ("GET", "/v1/..;/b", "odd_path"),
        ("OPTIONS", "*", "odd_path"),
    ] {
        assert_eq!(ask(&api(), "api.test", 443, method, path), expect, "{path}");
    }
    assert_eq!(ask(&api(), "api.test", 80, "POST", "/v1/x"), "x-all");
    assert_eq!(ask(&api(), "a.open.test", 8443, "PUT", "/../x"), "x-open");
    assert_eq!(ask(&api(), "free.example", 443, "PUT", "/../x"), "");
}

#[test]
fn a_rule_is_about_its_host_and_no_other() {
    let rules = read_all(vec![
        one("api.test", None, &["GET"], &[]),
        one("*.open.test", Some(8443), &[], &[]),
        one("10.0.0.1", None, &["GET"], &[]),
    ]);
    let rules = rules.unwrap();
    for (host, port, expect) in [
        ("api.test", 443, true),
        ("API.test.", 80, true),
        ("api.test", 8443, false),
        ("x.api.test", 443, false),
        ("xapi.test", 443, false),
        ("a.open.test", 8443, true),
        ("a.b.open.test", 8443, true),
        ("open.test", 8443, false),
        ("aopen.test", 8443, false),
        ("a.open.test", 443, false),
        ("10.0.0.1", 443, true),
        ("10.0.0.2", 443, false),
    ] {
        let host = Host::parse(host).unwrap();
        assert_eq!(rules.looks_into(&host, port), expect, "{host}:{port}");
    }
}

#[test]
fn a_host_with_rules_is_let_out_only_as_they_say() {
    const READS: How<'static> = How::Request {
        method: "GET",
        has_body: false,
    };
    let base = |mode, allow: &[&str], order| NetworkRules {
        mode,
        allow: allow.iter().map(|one| one.parse().unwrap()).collect(),
        order,
        ..api()
    };
    let list = base(NetworkMode::Allowlist, &["free.example"], Order::DenyFirst);
    let open = base(NetworkMode::Unrestricted, &[], Order::DenyFirst);
    let deny = NetworkRules {
        deny: vec!["api.test".parse().unwrap()],
        ..open.clone()
    };
    let e2b = NetworkRules {
        deny: vec![Entry::everything()],
        ..base(
            NetworkMode::Unrestricted,
            &["free.example"],
            Order::AllowFirst,
        )
    };
    for (rules, how, host, port, expect) in [
        (&list, READS, "api.test", 443, "allowed"),
        (&list, READS, "api.test", 80, "allowed"),
        (&list, How::Tunnel, "api.test", 443, "http_rule"),
        (&list, How::Tunnel, "api.test", 22, "http_rule"),
        (&list, READS, "api.test", 22, "http_rule"),
        (&list, How::Tunnel, "free.example", 22, "allowed"),
        (&list, How::Tunnel, "other.example", 443, "host_not_allowed"),
        (&open, How::Tunnel, "other.example", 443, "allowed"),
        (&open, How::Tunnel, "api.test", 443, "http_rule"),
        (&open, How::Tunnel, "api.test", 22, "http_rule"),
        (&open, READS, "api.test", 443, "allowed"),
        (&deny, READS, "api.test", 443, "host_denied"),
        // In E2B's lists a rule opens nothing.
        (&e2b, READS, "api.test", 443, "host_denied"),
        (&e2b, How::Tunnel, "free.example", 443, "allowed"),
    ] {
        let asked = Host::parse(host).unwrap();
        let verdict = rules.before(how, &asked, port);
        let what = verdict.denial.map_or("allowed", Denial::code);
        assert_eq!(what, expect, "{how:?} {host}:{port}");
    }
    // A name that has rules is not asked for by way of an address.
    let address = Host::parse("9.9.9.9").unwrap();
    let said = Host::parse("api.test").unwrap();
    let verdict = open.greeting(&address, 443, Some(&said));
    assert_eq!(verdict.denial, Some(Denial::HttpRule));
    // Names with rules are known where one of their ports is open.
    assert!(list.at_any_port(READS, &said).is_allowed());
}

#[test]
fn a_rule_is_read_or_refused_with_its_place() {
    let good = one(
        "API.test.",
        Some(8443),
        &["GET", "M-SEARCH"],
        &["/", "/a/*", "/*"],
    );
    let rules = read_all(vec![set(good, "x-a")]).unwrap();
    assert_eq!(rules.mode, NetworkMode::Allowlist);
    assert_eq!(
        rules.requests[0].to_string(),
        "GET,M-SEARCH https://api.test:8443/,/a/*,/*"
    );
    assert_eq!(rules.requests[0].asked().host, "api.test");
    let place = |asked: RequestAsked| {
        let found = read_all(vec![one("a.test", None, &[], &[]), asked]).unwrap_err();
        found[0].field.clone()
    };
    for host in [
        "",
        "*",
        "a.*.test",
        "a.test:80",
        "10.0.0.0/8",
        "https://a.test",
    ] {
        assert_eq!(
            place(one(host, None, &[], &[])),
            "network.rules[1].host",
            "{host}"
        );
    }
    for method in ["", "get", "GET ", "CONNECT", "GET,HEAD"] {
        let place = place(one("a.test", None, &[method], &[]));
        assert_eq!(place, "network.rules[1].methods[0]", "{method}");
    }
    for path in [
        "", "a", "/a*", "/*/a", "/a?b", "/../a", "/a//b", "/%2e", "/a b", "*",
    ] {
        let place = place(one("a.test", None, &[], &["/", path]));
        assert_eq!(place, "network.rules[1].paths[1]", "{path}");
    }
    for (name, value) in [
        ("Host", "a"),
        ("a b", "a"),
        ("x", "a\r\ny: b"),
        ("x", " a"),
        ("x", "ü"),
    ] {
        let set = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let asked = RequestAsked {
            set,
            ..one("a.test", None, &[], &[])
        };
        assert_eq!(place(asked), "network.rules[1].headers.set", "{name}");
    }
    assert_eq!(
        place(one("a.test", Some(0), &[], &[])),
        "network.rules[1].port"
    );
}

#[test]
fn rules_are_bounded_in_number_and_in_length() {
    let place = |asked: RequestAsked| {
        let found = read_all(vec![one("a.test", None, &[], &[]), asked]).unwrap_err();
        found[0].field.clone()
    };
    let many = vec![one("a.test", None, &[], &[]); limits::REQUEST_RULES_MAX + 1];
    assert_eq!(read_all(many).unwrap_err()[0].field, "network.rules");
    let long = vec!["/a"; limits::REQUEST_RULE_LIST_MAX + 1];
    assert_eq!(
        place(one("a.test", None, &[], &long)),
        "network.rules[1].paths"
    );
    let wide = format!("/{}", "a".repeat(limits::REQUEST_PATH_BYTES_MAX - 1));
    let wide = vec![wide.as_str(); 40];
    let found = read_all(vec![one("a.test", None, &[], &wide)]).unwrap_err();
    assert_eq!(found[0].field, "network.rules");
}

#[test]
fn rules_are_the_same_after_they_were_kept() {
    let text = serde_json::to_string(&api()).unwrap();
    assert_eq!(serde_json::from_str::<NetworkRules>(&text).unwrap(), api());
    // Rows of versions that knew no such rules.
    let old: NetworkRules = serde_json::from_str("{\"mode\":\"unrestricted\"}").unwrap();
    assert!(old.requests.is_empty());
}

proptest! {
    #[test]
    fn no_request_passes_that_no_rule_lets_out(
        method in "GET|HEAD|POST|PUT",
        path in "(/[a-v1.%2e]{0,4}){0,4}",
    ) {
        let rules = read_all(vec![one("a.test", None, &["GET"], &["/v1/*"])]).unwrap();
        let passes = ask(&rules, "a.test", 443, &method, &path).is_empty();
        prop_assert_eq!(passes, method == "GET" && path.starts_with("/v1/") && !is_odd(&path));
    }
}
