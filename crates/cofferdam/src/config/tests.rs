use super::*;

const BOTH: &str = r#"
mode = "development"

[server]
state = "/var/lib/cofferdam"
database = "postgres://cofferdam:pass$$word@localhost/cofferdam"
lease_seconds = 60
blobs = "/srv/blobs"
name = "s"
listen = "127.0.0.1:7300"
tls = "self"
domain = "sbx.example"

[server.approvals]
webhook = "https://hooks.example/approvals"
webhook_secret_file = "/etc/webhook"
webhook_ca = "/etc/ca.pem"

[server.nodes]
listen = "127.0.0.1:7301"
names = ["control.example"]
address = "10.0.0.1:7301"
token = "${NODE_TOKEN}"

[node]
state = "/var/lib/cofferdam-node"
server = "http://127.0.0.1:7301"
token = "${NODE_TOKEN}"
name = "a"
kind = "bridge"
tags = ["gpu"]
slots = 1
sandboxes = 2
spares = 3
roots = ["debian=/srv/${NODE_TOKEN}"]
egress_allow = ["10.1.2.3"]
egress_trust = ["/etc/ca.pem"]
pip_index = "https://mirror.example/simple"
npm_registry = "https://mirror.example:8443/npm"
driver = "fake"

[dev]
principal = "user:alice"

[[issuers]]
name = "corp"
issuer = "https://id.example"
audience = "${NODE_TOKEN}"
algorithms = ["RS256", "EdDSA"]
jwks_url = "https://id.example/keys"
jwks_file = "/etc/keys"
secret_file = "/etc/secret"
ca = "/etc/ca.pem"
tenant = "acme"
tenant_claim = "org"
tenants = ["acme"]
principal_claim = "sub"
kind = "agent"
role = "member"
roles_claim = "groups"
role_max = "admin"
scopes_claim = "scp"
scopes_required = true
leeway_seconds = 1
life_max_seconds = 3600
create = true

[issuers.roles]
ops = "operator"

[issuers.login]
client_id = "cli"
scopes = ["openid"]
token = "access_token"
"#;

fn variables(name: &str) -> Option<String> {
    (name == "NODE_TOKEN").then(|| "a \"${secret}\" of 16".to_owned())
}

fn wrong(text: &str) -> String {
    parse(text, variables).unwrap_err()
}

#[test]
fn variables_are_put_into_texts_and_are_never_read_again() {
    let config = parse(BOTH, variables).unwrap();
    let node = config.node.unwrap();
    assert_eq!(node.token.as_deref(), Some("a \"${secret}\" of 16"));
    assert_eq!(node.roots, ["debian=/srv/a \"${secret}\" of 16"]);
    let server = config.server.unwrap();
    assert!(server.database.unwrap().contains("pass$word"));
    let text = |value: &str| format!("[node]\nstate = \"{value}\"\n");
    assert_eq!(
        wrong(&text("${NONE}")),
        "node.state: the variable NONE is not set"
    );
    assert!(wrong(&text("a $b")).contains("${NAME}"));
}

#[test]
fn every_key_that_is_known_can_be_written_and_is_read() {
    let config = parse(BOTH, variables).unwrap();
    let shown = toml_edit::ser::to_string_pretty(&config).unwrap();
    let again = Document::parse(shown.as_str()).unwrap();
    for (part, keys) in known::KNOWN {
        let parts = part.split('.').filter(|part| !part.is_empty());
        let table = parts.fold(again.as_item(), |item, part| {
            let item = &item[part];
            match item.is_array_of_tables() {
                true => &item[0],
                false => item,
            }
        });
        let table = table.as_table_like().unwrap();
        let mut found: Vec<&str> = table.iter().map(|(key, _)| key).collect();
        let mut known = keys.to_vec();
        found.sort_unstable();
        known.sort_unstable();
        assert_eq!(found, known, "[{part}]");
    }
}

#[test]
fn rates_that_are_not_said_are_the_defaults_and_nothing_is_no_rate() {
    let text = "[server]\nstate = \"/x\"\n[rates]\nreads = { per_second = 7, burst = 9 }\n";
    let serving = parse(text, variables).unwrap().for_server(false).unwrap();
    let server = serving.server;
    assert_eq!(server.rates.reads, model::rate::Rate::new(7, 9));
    assert_eq!(server.rates.writes, Rates::default().writes);
    let zero = text.replace("per_second = 7", "per_second = 0");
    let refused = parse(&zero, variables).unwrap().for_server(false);
    assert!(refused.unwrap_err().to_string().contains("rates.reads"));
    let misspelt = text.replace("burst", "bursts");
    assert!(wrong(&misspelt).contains("did you mean `burst`?"));
}

#[test]
fn what_is_secret_is_not_shown() {
    let config = parse(BOTH, variables).unwrap();
    let shown = toml_edit::ser::to_string_pretty(&config).unwrap();
    assert!(!shown.contains("pass"), "{shown}");
    assert_eq!(
        shown.matches("of 16").count(),
        2,
        "in the root and the audience, where nobody hides anything"
    );
    for (url, expect) in [
        ("host=/run dbname=a", "host=/run dbname=a"),
        (
            "host=/run password=a dbname=b",
            "host=/run dbname=b password=********",
        ),
        ("host=/run password='a b'", "********"),
        ("postgres://u:p@q@h/d", "postgres://u:********@h/d"),
        ("postgres://u@h/d", "postgres://u@h/d"),
        ("postgres://h/d?password=x", "********"),
    ] {
        assert_eq!(without_password(url), expect);
    }
}

#[test]
fn a_key_that_is_not_known_is_refused_with_its_place_and_the_nearest() {
    assert_eq!(
        wrong("[server]\nstate = \"/x\"\nlisen = \"127.0.0.1:1\"\n"),
        "line 3: there is no key `lisen` in [server]; did you mean `listen`?"
    );
    assert_eq!(
        wrong("[server.nodes]\nxyzzy = 1\n"),
        "line 2: there is no key `xyzzy` in [server.nodes]; known are listen, names, address, token"
    );
    assert!(wrong("[sever]\n").contains("did you mean `server`?"));
    assert!(wrong("server = 1\nserver = 2").contains("duplicate key"));
}

#[test]
fn production_refuses_what_is_for_development() {
    let server = |text: &str, dev| {
        let config = parse(text, variables).unwrap();
        config
            .for_server(dev)
            .map(drop)
            .map_err(|failure| failure.to_string())
    };
    let door = "[server]\nstate = \"/x\"\n[server.nodes]\n";
    let named = format!("{door}listen = \"0.0.0.0:1\"\nnames = [\"a\"]\n");
    assert!(server(&named, false).is_ok());
    assert!(server(&named, true).unwrap_err().contains("production"));
    let off = format!("{named}[rates]\noff = true\n");
    assert!(server(&off, false).unwrap_err().contains("production"));
    let token = format!("{named}token = \"0123456789abcdef\"\n");
    assert!(server(&token, false).unwrap_err().contains("production"));
    assert!(
        server(&format!("mode = \"development\"\n{token}"), false)
            .unwrap_err()
            .contains("loopback")
    );
    let nameless = format!("{door}listen = \"0.0.0.0:1\"\n");
    assert!(server(&nameless, false).unwrap_err().contains("names"));
    let far = |mode: &str| {
        let text = "[server]\nstate = \"/x\"\ndatabase = \"postgres://db.example/a?sslmode=";
        server(&format!("{text}{mode}\"\n"), false)
    };
    assert!(far("disable").unwrap_err().contains("not to encrypt"));
    assert!(far("what").unwrap_err().contains("sslmode"));
    assert!(
        far("verify-full&sslrootcert=/not/there")
            .unwrap_err()
            .contains("/not/there")
    );
    let node = |text: &str| {
        let config = parse(text, variables).unwrap();
        config
            .for_node(false)
            .map(drop)
            .map_err(|failure| failure.to_string())
    };
    let own = "[node]\nstate = \"/x\"\n";
    assert!(node(own).is_ok());
    assert!(
        node(&format!(
            "{own}server = [\"https://a:1\", \"https://b:1\"]\n"
        ))
        .is_ok()
    );
    assert!(
        node(&format!(
            "{own}server = [\"https://a:1\", \"http://b:1\"]\n"
        ))
        .is_err()
    );
    assert!(node(&format!("{own}server = \"http://127.0.0.1:1\"\n")).is_err());
    assert!(node(&format!("{own}token = \"x\"\n")).is_err());
    assert!(node(&format!("mode = \"development\"\n{own}")).is_err());
}

#[test]
fn a_lease_that_is_too_short_or_too_long_is_refused() {
    let lease = |line: &str| {
        let text = format!("[server]\nstate = \"/s\"\n{line}\n");
        let server = parse(&text, variables).unwrap().server.unwrap();
        server
            .lease()
            .map(Lease::ms)
            .map_err(|failure| failure.to_string())
    };
    assert_eq!(lease(""), Ok(300_000));
    assert_eq!(lease("lease_seconds = 2"), Ok(2000));
    for wrong in ["lease_seconds = 1", "lease_seconds = 3601"] {
        assert!(lease(wrong).unwrap_err().contains("2 to 3600"), "{wrong}");
    }
}

#[test]
fn a_value_that_cannot_be_read_is_told_with_its_key_and_line() {
    let door = "[server]\nstate = \"/x\"\nlisten = \"127.0.0.1\"\n";
    let said = wrong(door);
    assert!(said.starts_with("line 3: `server.listen`: "), "{said}");
    let said = wrong("[node]\nstate = \"/x\"\nslots = \"many\"\n");
    assert!(
        said.starts_with("line 3: `node.slots`: invalid type"),
        "{said}"
    );
    let said = wrong("\n[node]\nname = \"a\"\n");
    assert!(said.starts_with("line 2: `node`: missing field"), "{said}");
    let said = wrong("mode = \"x\"\n");
    assert!(
        said.starts_with("line 1: `mode`: unknown variant"),
        "{said}"
    );
    let said = wrong("[node]\nstate = \"/x\"\nkind = \"laptop\"\n");
    assert!(
        said.starts_with("line 3: `node.kind`: unknown variant") && said.contains("desktop"),
        "{said}"
    );
    let said = wrong("[server]\nstate = \"/x\"\n[server.nodes]\nlisten = \"${NODE_TOKEN}\"\n");
    assert!(
        said.starts_with("line 4: `server.nodes.listen`: "),
        "{said}"
    );
}

#[test]
fn values_that_cannot_be_are_refused_before_anything_is_started() {
    let refused = |text: &str| {
        let config = parse(text, variables).unwrap();
        let server = config
            .clone()
            .server
            .map(|_| config.clone().for_server(false));
        let node = config.clone().node.map(|_| config.for_node(false));
        let server = server.and_then(Result::err);
        let failure = server.or_else(|| node.and_then(Result::err));
        failure
            .map(|failure| failure.to_string())
            .unwrap_or_default()
    };
    let node = |line: &str| refused(&format!("[node]\nstate = \"/x\"\n{line}\n"));
    for fits in [
        "slots = 1",
        "slots = 1024",
        "spares = 64",
        "sandboxes = 0",
        "name = \"a\"",
        "kind = \"mobile\"",
        "tags = [\"gpu\"]\nlabels = { zone = \"a\", empty = \"\" }",
    ] {
        assert_eq!(node(fits), "", "{fits}");
    }
    for (line, key) in [
        ("slots = 0", "node.slots"),
        ("slots = 5000", "node.slots"),
        ("spares = 9999", "node.spares"),
        ("sandboxes = 1001", "node.sandboxes"),
        ("name = \"\"", "node.name"),
        ("roots = [\"a\"]", "node.roots"),
        ("egress_allow = [\"x\"]", "node.egress_allow"),
        ("egress_trust = [\"/no/such.pem\"]", "/no/such.pem"),
        (
            "pip_index = \"https://me:x@mirror.example\"",
            "node.pip_index",
        ),
        (
            "npm_registry = \"ftp://mirror.example\"",
            "node.npm_registry",
        ),
        ("server = \"https://h\"", "node.server"),
        ("tags = [\"a b\"]", "node.tags"),
        ("tags = [\"kind\"]", "node.tags"),
        ("labels = { driver = \"linux\" }", "node.labels"),
        ("labels = { zone = \"a b\" }", "node.labels"),
        ("tags = [\"a\"]\nlabels = { a = \"b\" }", "node.tags"),
        ("driver = \"none\"", "node.driver"),
    ] {
        let said = node(line);
        assert!(said.contains(key), "{line}: {said}");
    }
    let server = |line: &str| refused(&format!("[server]\nstate = \"/x\"\n{line}\n"));
    for (line, key) in [
        ("listen = \"0.0.0.0:7300\"", "server.listen"),
        ("tls = \"cert\"\ndomain = \"a.example\"", "server.tls"),
        (
            "[server.nodes]\nlisten = \"0.0.0.0:1\"\nnames = [\"http://x:7\"]",
            "server.nodes.names",
        ),
    ] {
        let said = server(line);
        assert!(said.contains(key), "{line}: {said}");
    }
    assert!(refused("[server]\nstate = \"x\"\n").contains("server.state"));
    assert!(refused("[node]\nstate = \"x\"\n").contains("node.state"));
}

#[test]
fn what_is_longer_than_a_file_may_be_is_refused_and_not_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("long.toml");
    let long = format!("[node]\nstate = \"/x\"\n#{}", "x".repeat(1 << 20));
    std::fs::write(&path, long).unwrap();
    let refused = read(&path).unwrap_err().to_string();
    assert!(refused.contains("more than 1048576 bytes"), "{refused}");
    assert!(refused.contains("config_invalid"), "{refused}");
}

const ISSUER: &str = "[server]\nstate = \"/x\"\n[[issuers]]\nname = \"corp\"\nissuer = \"https://id.example\"\n\
audience = \"cofferdam\"\n";

fn issuer(lines: &str) -> String {
    let config = parse(&format!("{ISSUER}{lines}\n"), variables).unwrap();
    let served = config.for_server(false);
    served
        .map(|_| String::new())
        .unwrap_or_else(|failure| failure.to_string())
}

#[test]
fn an_issuer_whose_tokens_could_count_for_too_much_is_refused() {
    let keys = "algorithms = [\"RS256\"]\njwks_url = \"https://id.example/keys\"\n";
    let good = format!("{keys}tenant = \"acme\"\n");
    assert_eq!(issuer(&good), "");
    let roles = "roles_claim = \"groups\"\n[issuers.roles]\nops = \"operator\"";
    assert_eq!(issuer(&format!("{good}{roles}")), "");
    for (lines, key) in [
        ("leeway_seconds = 61", "issuers.leeway_seconds"),
        ("life_max_seconds = 86401", "issuers.life_max_seconds"),
        ("role = \"admin\"", "issuers.roles"),
        ("roles_claim = \"x\"", "issuers.roles_claim"),
        (
            "roles_claim = \"x\"\n[issuers.roles]\na = \"admin\"",
            "issuers.roles",
        ),
        ("[issuers.roles]\na = \"member\"", "issuers.roles_claim"),
        ("tenants = [\"a\"]", "issuers.tenant"),
        ("tenant_claim = \"org\"", "issuers.tenant"),
        ("principal_claim = \"\"", "issuers.principal_claim"),
        ("jwks_file = \"/x\"", "issuers.algorithms"),
        ("secret_file = \"/x\"", "issuers.algorithms"),
        ("[issuers.login]\nclient_id = \"a b\"", "issuers.login"),
    ] {
        let said = issuer(&format!("{good}{lines}"));
        assert!(said.contains(key), "{lines}: {said}");
    }
    for (lines, key) in [
        (
            "algorithms = [\"none\"]\njwks_url = \"https://a/k\"",
            "issuers.algorithms",
        ),
        (
            "algorithms = []\njwks_url = \"https://a/k\"",
            "issuers.algorithms",
        ),
        (
            "algorithms = [\"HS256\"]\njwks_url = \"https://a/k\"",
            "issuers.algorithms",
        ),
        (
            "algorithms = [\"HS256\", \"RS256\"]\nsecret_file = \"/s\"",
            "beside",
        ),
        (
            "algorithms = [\"RS256\"]\nsecret_file = \"/s\"",
            "issuers.algorithms",
        ),
        (
            "algorithms = [\"RS256\"]\njwks_url = \"http://a/k\"",
            "issuers.jwks_url",
        ),
        (
            "algorithms = [\"RS256\"]\njwks_file = \"k\"",
            "issuers.jwks_file",
        ),
    ] {
        let said = issuer(&format!("{lines}\ntenant = \"acme\""));
        assert!(said.contains(key), "{lines}: {said}");
    }
}

#[test]
fn an_issuer_that_is_there_twice_or_names_its_tenants_nowhere_is_refused() {
    let keys = "algorithms = [\"RS256\"]\njwks_url = \"https://id.example/keys\"\n";
    let good = format!("{keys}tenant = \"acme\"\n");
    let said = issuer(&format!("{keys}tenant_claim = \"org\""));
    assert!(said.contains("issuers.tenants"), "{said}");
    let twice = format!(
        "{good}[[issuers]]\nname = \"other\"\nissuer = \"https://id.example\"\naudience = \"b\"\n{good}"
    );
    assert!(issuer(&twice).contains("twice"), "{}", issuer(&twice));
    let unknown = format!("{ISSUER}rolls_claim = \"x\"\n");
    let said = wrong(&unknown);
    assert!(
        said.contains("in [issuers]; did you mean `roles_claim`?"),
        "{said}"
    );
}

#[test]
fn only_a_development_on_loopback_lets_in_who_shows_nothing() {
    let server = |mode: &str, rest: &str| {
        let text = format!(
            "{mode}\n[dev]\nprincipal = \"user:alice\"\n[server]\nstate = \"/x\"\n{rest}\n"
        );
        let served = parse(&text, variables).unwrap().for_server(false);
        served
            .map(|serving| serving.bypass.map(|bypass| bypass.principal.to_string()))
            .map_err(|failure| failure.to_string())
    };
    let (dev, here) = ("mode = \"development\"", "listen = \"127.0.0.1:1\"");
    assert_eq!(server(dev, here), Ok(Some("user:alice".to_owned())));
    let refused = server("", here).unwrap_err();
    assert!(refused.contains("development_only"), "{refused}");
    for rest in ["", "listen = \"0.0.0.0:1\"\ntls = \"self\""] {
        let refused = server(dev, rest).unwrap_err();
        assert!(refused.contains("dev.principal"), "{refused}");
    }
    let named = |name: &str| {
        let text =
            format!("{dev}\n[dev]\nprincipal = \"{name}\"\n[server]\nstate = \"/x\"\n{here}\n");
        parse(&text, variables).unwrap().for_server(false).is_ok()
    };
    for bad in [
        "alice",
        "uid:0",
        "node:x",
        "user:",
        "service:start",
        "user:a b",
    ] {
        assert!(!named(bad), "{bad}");
    }
}

#[test]
fn a_node_is_a_server_until_it_says_otherwise_and_tags_are_labels_without_a_value() {
    let read = |text: &str| parse(text, variables).unwrap().node.unwrap();
    let plain = read("[node]\nstate = \"/x\"\n");
    assert_eq!(plain.kind, NodeKind::Server);
    assert!(plain.all_labels().is_empty());
    let node = read("[node]\nstate = \"/x\"\ntags = [\"gpu\"]\nlabels = { zone = \"a\" }\n");
    let expect = [("gpu", ""), ("zone", "a")];
    let expect = expect.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(node.all_labels(), Labels::from(expect));
    let shown = toml_edit::ser::to_string_pretty(&parse(BOTH, variables).unwrap()).unwrap();
    assert!(shown.contains("kind = \"bridge\""), "{shown}");
}
