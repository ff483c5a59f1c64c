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
        ..RequestAsked::default()
    }
}

/// The same with fields that it requires, `NAME:VALUE`, and refuses.
fn about(asked: RequestAsked, require: &[&str], refuse: &[&str]) -> RequestAsked {
    let pair = |text: &&str| {
        let (name, value) = text.split_once(':').unwrap();
        (name.to_owned(), value.to_owned())
    };
    RequestAsked {
        require: require.iter().map(pair).collect(),
        refuse: refuse.iter().map(ToString::to_string).collect(),
        ..asked
    }
}

fn fields<'f>(texts: &[&'f str]) -> Vec<Field<'f>> {
    let pair = |text: &&'f str| {
        let (name, value) = text.split_once(':').unwrap();
        (name, value.as_bytes())
    };
    texts.iter().map(pair).collect()
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
        fields: &[],
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

fn leaves(rules: &NetworkRules, method: &str, path: &str, sent: &[&str]) -> Result<(), String> {
    let host = Host::parse("api.test").unwrap();
    let fields = fields(sent);
    let asked = Request {
        host: &host,
        port: 443,
        method,
        path,
        fields: &fields,
    };
    let judged = rules.judge(asked).map(drop);
    judged.map_err(|verdict| verdict.rule.to_string())
}

#[test]
fn a_field_that_is_required_or_refused_narrows_as_a_method_does() {
    let rules = read_all(vec![
        about(
            one("api.test", None, &["POST"], &["/v1/*"]),
            &["Content-Type:application/json"],
            &["authorization", "x-api-key"],
        ),
        one("api.test", None, &["GET"], &[]),
    ])
    .unwrap();
    let json = "content-type:application/json";
    let post = "rule POST api.test/v1/* (requires Content-Type; refuses authorization, x-api-key)";
    for (method, path, sent, expect) in [
        ("GET", "/v1/a", &["authorization:a"][..], ""),
        ("POST", "/v1/a", &[json], ""),
        (
            "POST",
            "/v1/a",
            &["content_type:application/json", "x:1"],
            "",
        ),
        ("POST", "/v1/a", &[], post),
        ("POST", "/v1/a", &["content-type:text/plain"], post),
        ("POST", "/v1/a", &[json, "Content_Type:text/plain"], post),
        ("POST", "/v1/a", &[json, "X_API_KEY:"], post),
        ("POST", "/v2/a", &[json], post),
        ("PUT", "/v2/a", &[], post),
    ] {
        let told = leaves(&rules, method, path, sent).err();
        assert_eq!(told.unwrap_or_default(), expect, "{method} {path} {sent:?}");
    }
}

#[test]
fn a_rule_about_all_requests_holds_beside_those_that_let_some_out() {
    let refusing = about(one("api.test", None, &[], &[]), &[], &["authorization"]);
    let alone = read_all(vec![refusing.clone()]).unwrap();
    let beside = read_all(vec![one("api.test", None, &["GET"], &[]), refusing]).unwrap();
    let refused = Err("rule api.test (refuses authorization)".to_owned());
    for rules in [&alone, &beside] {
        assert_eq!(leaves(rules, "GET", "/", &["x:1"]), Ok(()));
        assert_eq!(leaves(rules, "GET", "/", &["Authorization:"]), refused);
    }
    assert_eq!(leaves(&alone, "POST", "/", &[]), Ok(()));
    let get = Err("rule GET api.test".to_owned());
    assert_eq!(leaves(&beside, "POST", "/", &[]), get);
    // It narrows: nobody passes it by where nobody can look, or at another port.
    let host = Host::parse("api.test").unwrap();
    for port in [443, 22] {
        let verdict = alone.before(How::Tunnel, &host, port);
        assert_eq!(verdict.denial, Some(Denial::HttpRule));
    }
    assert!(!alone.requests[0].only_sets());
}

#[test]
fn fields_of_rules_are_read_or_refused_with_their_place() {
    let long = "a".repeat(limits::REQUEST_FIELD_NAME_BYTES_MAX + 1);
    let long_name = format!("{long}:a");
    let wide = format!("x:{}", "a".repeat(limits::REQUEST_FIELD_BYTES_MAX + 1));
    for (required, refused, place) in [
        ("Host:a", &[][..], "require.Host"),
        ("content_length:1", &[], "require.content_length"),
        ("Proxy-Authorization:*", &[], "require.Proxy-Authorization"),
        (
            "transfer-encoding:chunked",
            &[],
            "require.transfer-encoding",
        ),
        ("expect:100-continue", &[], "require.expect"),
        (":a", &[], "require"),
        ("a b:a", &[], "require"),
        (long_name.as_str(), &[], "require"),
        ("x:", &[], "require.x"),
        ("x: a", &[], "require.x"),
        ("x:a\r\ny: b", &[], "require.x"),
        ("x:ü", &[], "require.x"),
        (wide.as_str(), &[], "require.x"),
        ("x-key:*", &["X_Key"], "require.x-key"),
        ("x:*", &["te"], "refuse[0]"),
        ("x:*", &["y", "Upgrade"], "refuse[1]"),
        ("x:*", &[""], "refuse[0]"),
        ("x:*", &["a\r\nb"], "refuse[0]"),
        ("x:*", &[long.as_str()], "refuse[0]"),
    ] {
        let asked = about(one("a.test", None, &[], &[]), &[required], refused);
        let found = read_all(vec![asked]).unwrap_err();
        assert_eq!(found.len(), 1, "{found:?}");
        let place = format!("network.rules[0].headers.{place}");
        assert_eq!((&found[0].field, found[0].code), (&place, CODE));
    }
}

#[test]
fn fields_of_rules_are_bounded_in_number_and_in_length() {
    let names: Vec<String> = (0..=limits::REQUEST_RULE_LIST_MAX)
        .map(|number| format!("x-{number}"))
        .collect();
    let required = names.iter().map(|name| (name.clone(), "1".to_owned()));
    let require = RequestAsked {
        require: required.collect(),
        ..one("a.test", None, &[], &[])
    };
    let refuse = RequestAsked {
        refuse: names,
        ..one("a.test", None, &[], &[])
    };
    for (asked, place) in [
        (require, "network.rules[0].headers.require"),
        (refuse, "network.rules[0].headers.refuse"),
    ] {
        let found = read_all(vec![asked]).unwrap_err();
        let first = (found[0].field.as_str(), found[0].code);
        assert_eq!(first, (place, "too_many"));
    }
    let name = "a".repeat(limits::REQUEST_FIELD_NAME_BYTES_MAX);
    let long = RequestAsked {
        refuse: vec![name; limits::REQUEST_RULE_LIST_MAX],
        ..one("a.test", None, &[], &[])
    };
    let found = read_all(vec![long; 5]).unwrap_err();
    assert_eq!(found[0].field, "network.rules");
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
    // And of those that knew no fields but the ones that are set.
    let old = r#"{"mode":"allowlist","requests":[{"host":"a.test","port":443,"methods":["GET"],"set":{"x":"1"}}]}"#;
    let old: NetworkRules = serde_json::from_str(old).unwrap();
    let asked = set(one("a.test", Some(443), &["GET"], &[]), "x");
    assert_eq!(old.requests, read_all(vec![asked]).unwrap().requests);
}

/// A rule of `api.test`, with or without methods, paths and fields.
fn any_asked() -> impl Strategy<Value = RequestAsked> {
    let methods = prop::sample::select(vec![&[][..], &["GET"], &["GET", "POST"]]);
    let paths = prop::sample::select(vec![&[][..], &["/v1/*"], &["/v1/a"]]);
    let require = prop::sample::select(vec![&[][..], &[], &["x-a:1"], &["X_A:*", "x-b:2"]]);
    let refuse = prop::sample::select(vec![&[][..], &[], &["x-c"], &["X_C", "x-d"]]);
    let all = (methods, paths, require, refuse);
    all.prop_map(|(methods, paths, require, refuse)| {
        let rule = one("api.test", None, methods, paths);
        about(rule, require, refuse)
    })
}

/// Fields as a client may send them: none, one, several of one name in several ways to write it.
fn any_sent() -> impl Strategy<Value = Vec<&'static str>> {
    let one = prop::sample::select(vec![
        "x-a:1", "X_A:1", "x-a:2", "x-a:", "x-b:2", "x_b:3", "x-c:", "X-C:1", "x.c:1", "x-d:1",
    ]);
    prop::collection::vec(one, 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]
    #[test]
    fn a_rule_that_says_more_of_fields_lets_out_nothing_more(
        rules in prop::collection::vec(any_asked(), 1..4),
        at in any::<prop::sample::Index>(),
        require in prop::sample::select(vec![&[][..], &["x-a:1"], &["x_b:*"]]),
        refuse in prop::sample::select(vec![&[][..], &["x-d"], &["X-D", "x_e"]]),
        sent in any_sent(),
        method in prop::sample::select(vec!["GET", "POST", "PUT"]),
        path in prop::sample::select(vec!["/", "/v1/a", "/v1/b", "/v1/../a"]),
    ) {
        let mut narrower = rules.clone();
        let more = about(RequestAsked::default(), require, refuse);
        let rule = &mut narrower[at.index(rules.len())];
        for (name, value) in more.require {
            rule.require.entry(name).or_insert(value);
        }
        rule.refuse.extend(more.refuse);
        let (before, after) = (read_all(rules).unwrap(), read_all(narrower).unwrap());
        if leaves(&after, method, path, &sent).is_ok() {
            prop_assert!(leaves(&before, method, path, &sent).is_ok(), "{:?}", after);
        }
    }

    #[test]
    fn rules_about_fields_are_shown_as_they_are_read(asked in any_asked()) {
        let rules = read_all(vec![asked.clone()]).unwrap();
        prop_assert_eq!(rules.requests[0].asked(), asked);
        let kept = serde_json::to_string(&rules).unwrap();
        prop_assert_eq!(serde_json::from_str::<NetworkRules>(&kept).unwrap(), rules);
    }

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
