//! The index of packages: what a program finds there is what its list says, whatever the source has.

use crate::direct::{connect as connect_direct, question};
use crate::world::{PATIENCE, World, is_untouched, read_all, trap};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use egress::direct::{CONNECT, DENIED, NAME, YES};
use egress::index::{Index, Sources};
use egress::inspect::Roots;
use egress::record::Verdict;
use model::network::{NetworkAsked, NetworkMode, NetworkRules};
use sha2::{Digest as _, Sha256, Sha512};
use std::collections::{BTreeMap, BTreeSet};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// A source of packages, which answers by path with these heads and bodies.
pub(crate) struct Source {
    pub(crate) port: u16,
    asked: mpsc::Receiver<String>,
}

/// Fields and a body of an answer with status 200.
pub(crate) type Page = (String, Vec<u8>);

pub(crate) fn html(body: &str) -> Page {
    let kind = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n";
    (kind.to_owned(), body.as_bytes().to_vec())
}

pub(crate) fn json(body: &str) -> Page {
    let kind = "HTTP/1.1 200 OK\r\ncontent-type: application/vnd.pypi.simple.v1+json\r\n";
    (kind.to_owned(), body.as_bytes().to_vec())
}

pub(crate) fn file(body: &[u8]) -> Page {
    ("HTTP/1.1 200 OK\r\n".to_owned(), body.to_vec())
}

impl Source {
    pub(crate) async fn with(pages: &[(&str, Page)]) -> Source {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("a port").port();
        let pages = pages
            .iter()
            .map(|(path, page)| ((*path).to_owned(), page.clone()));
        let pages: BTreeMap<String, Page> = pages.collect();
        let (tell, asked) = mpsc::channel(1_024);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => break,
                    }
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let path = head.split(' ').nth(1).unwrap_or_default();
                let none = ("HTTP/1.1 404 Not Found\r\n".to_owned(), Vec::new());
                let (fields, body) = pages.get(path).cloned().unwrap_or(none);
                drop(tell.try_send(head.clone()));
                let length = match fields.contains("content-length") || fields.contains("chunked") {
                    true => String::new(),
                    false => format!("content-length: {}\r\n", body.len()),
                };
                let answer = [
                    format!("{fields}{length}connection: close\r\n\r\n").as_bytes(),
                    &body,
                ]
                .concat();
                drop(stream.write_all(&answer).await);
            }
        });
        Source { port, asked }
    }

    /// The heads of all requests so far.
    pub(crate) fn heads(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.asked.try_recv().ok()).collect()
    }

    pub(crate) fn paths(&mut self) -> Vec<String> {
        let heads = self.heads().into_iter();
        let path = |head: String| head.split(' ').nth(1).unwrap_or_default().to_owned();
        heads.map(path).collect()
    }
}

/// A world with these lists, whose packages come from there.
pub(crate) fn world(source: &Source, pip: &[&str], npm: &[&str]) -> World {
    world_with(source, (pip, npm), &["allowed.test"], &[])
}

pub(crate) fn world_with(
    source: &Source,
    (pip, npm): (&[&str], &[&str]),
    allow: &[&str],
    deny: &[&str],
) -> World {
    world_opening(&["127.0.0.1"], source, rules((pip, npm), allow, deny))
}

/// The same where the operator has opened these addresses.
fn world_opening(opened: &[&str], source: &Source, rules: NetworkRules) -> World {
    let world = World::new(opened, rules.clone());
    let base = format!("http://127.0.0.1:{}", source.port);
    let sources = Sources {
        pip: format!("{base}/simple").parse().expect("a source"),
        npm: format!("{base}/npm/").parse().expect("a source"),
    };
    let index = Index::new(sources, || Ok(Roots::of_pem("")));
    world.proxy.serve_packages(index);
    world.way.set_rules(rules);
    world
}

pub(crate) fn rules((pip, npm): (&[&str], &[&str]), allow: &[&str], deny: &[&str]) -> NetworkRules {
    let texts = |all: &[&str]| all.iter().map(ToString::to_string).collect();
    let set = |all: &[&str]| all.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    let asked = NetworkAsked {
        mode: Some(NetworkMode::Allowlist),
        allow: texts(allow),
        deny: texts(deny),
        dependencies: [("pip".to_owned(), set(pip)), ("npm".to_owned(), set(npm))].into(),
        ..NetworkAsked::default()
    };
    NetworkRules::read(&asked).expect("sound rules")
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn sri(bytes: &[u8]) -> String {
    format!("sha512-{}", STANDARD.encode(Sha512::digest(bytes)))
}

pub(crate) const PIP: &str = "http://pypi.cofferdam.internal";
pub(crate) const NPM: &str = "http://npm.cofferdam.internal";

pub(crate) async fn pip(world: &World, path: &str) -> String {
    world.get(&format!("{PIP}{path}")).await
}

pub(crate) async fn npm(world: &World, path: &str) -> String {
    world.get(&format!("{NPM}{path}")).await
}

/// The status, and what is behind the head.
pub(crate) fn parts(answer: &str) -> (&str, &str) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    (head.split(' ').nth(1).unwrap_or_default(), body)
}

const WHEEL: &[u8] = b"the bytes of a wheel";

fn links() -> String {
    let digest = sha256(WHEEL);
    format!(
        "<!DOCTYPE html><html><body>\n\
         <a href=\"../../packages/six-1.16.0-py3-none-any.whl#sha256={digest}\" data-requires-python=\"&gt;=3.6\">six</a>\n\
         <a href=\"/packages/six-1.15.0-py3-none-any.whl#sha256={digest}\">six</a>\n\
         <a href=\"/packages/six-1.16.0.tar.gz#sha256={digest}\">six</a>\n\
         <a href=\"/packages/six-1.16.0.zip\">no digest</a></body></html>"
    )
}

#[tokio::test]
async fn a_page_of_pip_has_the_listed_versions_alone_in_both_forms_and_a_file_is_passed_on() {
    let mut source = Source::with(&[
        ("/simple/six/", html(&links())),
        ("/packages/six-1.16.0-py3-none-any.whl", file(WHEEL)),
    ])
    .await;
    let mut world = world(&source, &["Six==1.16"], &[]);
    let answer = pip(&world, "/simple/SIX/").await;
    let (status, page) = parts(&answer);
    assert_eq!(status, "200", "{answer}");
    let whl = "/files/six/six-1.16.0-py3-none-any.whl";
    let digest = sha256(WHEEL);
    let link = format!("<a href=\"{whl}#sha256={digest}\" data-requires-python=\"&gt;=3.6\">");
    assert!(page.contains(&link), "{page}");
    assert!(page.contains("six-1.16.0.tar.gz"), "{page}");
    assert!(!page.contains("1.15") && !page.contains(".zip"), "{page}");
    let record = world.next().await;
    assert_eq!(record.verdict, Verdict::Allowed);
    assert_eq!(record.rule.as_deref(), Some("dependencies.pip: six"));
    assert_eq!(record.host.unwrap().to_string(), "pypi.cofferdam.internal");
    assert_eq!(record.address.unwrap().port(), source.port);
    let mut stream = world.connect();
    let ask = format!(
        "GET {PIP}/simple/six/ HTTP/1.1\r\nhost: pypi.cofferdam.internal\r\nconnection: close\r\n\
         accept: application/vnd.pypi.simple.v1+json, text/html;q=0.1\r\ncookie: secret\r\n\r\n"
    );
    stream.write_all(ask.as_bytes()).await.expect("room");
    let answer = read_all(&mut stream).await;
    let page: serde_json::Value = serde_json::from_str(parts(&answer).1).expect("a page in JSON");
    assert_eq!(page["meta"]["api-version"], "1.0");
    assert_eq!(page["files"][0]["url"], whl);
    assert_eq!(page["files"][0]["hashes"]["sha256"], digest.as_str());
    assert_eq!(page["files"][0]["requires-python"], ">=3.6");
    let answer = pip(&world, whl).await;
    assert_eq!(parts(&answer).1.as_bytes(), WHEEL, "{answer}");
    drop((world.next().await, world.next_code().await));
    // What was read stays known, and nothing of a request of the sandbox leaves.
    let heads = source.heads();
    assert_eq!(heads.len(), 2, "{heads:?}");
    assert!(
        heads
            .iter()
            .all(|head| !head.contains("secret") && head.contains("identity"))
    );
    let answer = pip(&world, "/simple/").await;
    assert!(
        parts(&answer).1.contains("href=\"/simple/six/\""),
        "{answer}"
    );
}

#[tokio::test]
async fn a_page_in_json_is_read_like_one_in_html() {
    let digest = sha256(WHEEL);
    let page = format!(
        r#"{{"meta":{{"api-version":"1.1"}},"name":"six","versions":["1.16.0"],"files":[
            {{"filename":"six-1.16.0-py3-none-any.whl","url":"/packages/a","hashes":{{"sha256":"{digest}","md5":"x"}},
              "requires-python":null,"yanked":"broken","core-metadata":{{"sha256":"{digest}"}}}},
            {{"filename":"six-1.16.0.tar.gz","url":"/packages/b","hashes":{{"md5":"00"}}}},
            {{"filename":"six-2.0.tar.gz","url":"/packages/c","hashes":{{"sha256":"{digest}"}}}}]}}"#
    );
    let source = Source::with(&[("/simple/six/", json(&page)), ("/packages/a", file(WHEEL))]).await;
    let world = world(&source, &["six==1.16.0"], &[]);
    let answer = pip(&world, "/simple/six/").await;
    let page = parts(&answer).1;
    assert!(
        page.contains("data-yanked") && page.matches("<a ").count() == 1,
        "{answer}"
    );
    let answer = pip(&world, "/files/six/six-1.16.0-py3-none-any.whl").await;
    assert_eq!(parts(&answer).1.as_bytes(), WHEEL);
}

fn document() -> String {
    let (good, other) = (sri(WHEEL), sri(b"other"));
    format!(
        r#"{{"name":"@a/b","dist-tags":{{"latest":"2.0.0","old":"1.0.0"}},"modified":"x","versions":{{
            "1.0.0":{{"name":"@a/b","version":"1.0.0","dependencies":{{"c":"^1"}},
                "dist":{{"tarball":"http://127.0.0.1:1/x.tgz","integrity":"{other}"}}}},
            "1.0.1":{{"name":"@a/b","version":"1.0.1","dependencies":{{"c":"^1"}},
                "dist":{{"tarball":"/npm/@a/b/-/b-1.0.1.tgz","shasum":"0","integrity":"{good} sha1-AAAA"}}}},
            "2.0.0":{{"name":"@a/b","version":"2.0.0","dist":{{"tarball":"/x","integrity":"{other}"}}}}}}}}"#
    )
}

#[tokio::test]
async fn a_document_of_npm_has_the_listed_versions_alone_and_its_files_come_through_us() {
    let mut source = Source::with(&[
        ("/npm/@a%2fb", json(&document())),
        ("/npm/@a/b/-/b-1.0.1.tgz", file(WHEEL)),
    ])
    .await;
    let mut world = world(&source, &[], &["@a/b==1.0.1"]);
    for path in ["/@a%2fb", "/@a/b"] {
        let answer = npm(&world, path).await;
        let page: serde_json::Value = serde_json::from_str(parts(&answer).1).expect("JSON");
        let versions: Vec<&String> = page["versions"].as_object().unwrap().keys().collect();
        assert_eq!(versions, ["1.0.1"]);
        assert_eq!(page["dist-tags"], serde_json::json!({"latest": "1.0.1"}));
        let dist = &page["versions"]["1.0.1"]["dist"];
        assert_eq!(dist["tarball"], format!("{NPM}/@a/b/-/b-1.0.1.tgz"));
        assert_eq!(dist["integrity"], sri(WHEEL));
        assert!(dist.get("shasum").is_none());
        assert_eq!(page["versions"]["1.0.1"]["dependencies"]["c"], "^1");
        assert_eq!(world.next_code().await, "allowed");
    }
    let answer = npm(&world, "/@a/b/-/b-1.0.1.tgz").await;
    assert_eq!(parts(&answer).1.as_bytes(), WHEEL, "{answer}");
    let record = world.next().await;
    assert_eq!(
        record.rule.as_deref(),
        Some("dependencies.npm: @a/b==1.0.1")
    );
    assert_eq!(source.paths(), ["/npm/@a%2fb", "/npm/@a/b/-/b-1.0.1.tgz"]);
}

/// Attack: a package that is not on the list, another version of one that is, or a file of one past the page.
#[tokio::test]
async fn what_is_not_on_the_list_is_denied_with_its_name_and_version_and_nobody_outside_is_asked() {
    let mut source = Source::with(&[]).await;
    let mut world = world(&source, &["six==1.16.0"], &["lodash==4.17.21"]);
    for (answer, rule) in [
        (
            pip(&world, "/simple/evil/").await,
            "dependencies.pip: `evil` is in no version in the list",
        ),
        (
            pip(&world, "/files/six/six-1.15.0.tar.gz").await,
            "dependencies.pip: `six==1.15` is not in the list",
        ),
        (
            pip(&world, "/files/six/six-1.16.0+local-py3-none-any.whl").await,
            "dependencies.pip: `six==1.16+local` is not in the list",
        ),
        (
            pip(&world, "/files/six/six-1!1.16.0.tar.gz").await,
            "dependencies.pip: `six==1!1.16` is not in the list",
        ),
        (
            npm(&world, "/lodash-es").await,
            "dependencies.npm: `lodash-es` is in no version in the list",
        ),
        (
            npm(&world, "/lodash/-/lodash-4.17.20.tgz").await,
            "dependencies.npm: `lodash==4.17.20` is not in the list",
        ),
    ] {
        assert_eq!(parts(&answer).0, "403", "{answer}");
        assert!(
            answer.contains("x-proxy-error: dependency_not_allowed\r\n"),
            "{answer}"
        );
        assert!(
            answer.contains(rule) && answer.contains("NAME==VERSION"),
            "{answer}"
        );
        assert_eq!(world.next().await.rule.as_deref(), Some(rule));
    }
    for path in [
        "/",
        "/simple/six/../evil/",
        "/simple/six/evil/",
        "/packages/six-1.16.0.tar.gz",
    ] {
        let answer = pip(&world, path).await;
        assert!(
            answer.contains("x-proxy-error: not_in_index\r\n"),
            "{path} {answer}"
        );
        assert_eq!(world.next_code().await, "not_in_index");
    }
    assert_eq!(source.paths(), [""; 0]);
}

#[tokio::test]
async fn a_source_that_nobody_opened_is_named_in_the_record_and_not_to_the_program() {
    let mut source = Source::with(&[("/simple/six/", html(&links()))]).await;
    let rules = rules((&["six==1.16.0"], &[]), &["allowed.test"], &[]);
    let mut world = world_opening(&[], &source, rules);
    let answer = pip(&world, "/simple/six/").await;
    assert_eq!(parts(&answer).0, "403", "{answer}");
    assert!(
        answer.contains("x-proxy-error: address_loopback\r\n"),
        "{answer}"
    );
    assert!(!answer.contains("127.0.0.1"), "{answer}");
    let record = world.next().await;
    let named = format!("source 127.0.0.1:{}", source.port);
    assert_eq!(record.rule, Some(named));
    assert_eq!(record.host.unwrap().to_string(), "pypi.cofferdam.internal");
    assert_eq!(source.paths(), [""; 0]);
}

/// Attack: who serves all packages is asked for by name, by a tunnel, by DNS, and by whoever knows no proxy.
#[tokio::test]
async fn who_serves_all_packages_is_closed_on_every_way_also_where_a_list_allows_it() {
    let (port, trap) = trap().await;
    let source = Source::with(&[]).await;
    let hosts = ["pypi.org", "files.pythonhosted.org", "registry.npmjs.org"];
    let mut world = world_with(&source, (&["six==1.16.0"], &["a==1.0.0"]), &hosts, &[]);
    for host in hosts.iter().copied().chain(["PyPI.org.", "127.0.0.1"]) {
        let asked = format!("{host}:{port}");
        let answer = world.get(&format!("http://{asked}/")).await;
        assert!(
            answer.contains("x-proxy-error: dependency_not_allowed"),
            "{host} {answer}"
        );
        let record = world.next().await;
        assert!(record.rule.unwrap().starts_with("dependencies."));
        let tunnel = format!("CONNECT {asked} HTTP/1.1\r\nhost: {asked}\r\n\r\n");
        let answer = world.say(tunnel).await;
        assert!(
            answer.contains("x-proxy-error: dependency_not_allowed"),
            "{host} {answer}"
        );
        assert_eq!(world.next_code().await, "dependency_not_allowed");
        for (kind, port) in [(NAME, 0), (CONNECT, port)] {
            let mut stream = connect_direct(&world);
            let question = question(kind, port, host.as_bytes());
            stream.write_all(&question).await.expect("room");
            assert_eq!(stream.read_u8().await.expect("an answer"), DENIED, "{host}");
            assert_eq!(world.next_code().await, "dependency_not_allowed");
        }
    }
    assert!(is_untouched(&trap).await);
}

#[tokio::test]
async fn a_program_that_knows_no_proxy_finds_the_index_by_its_name() {
    let source = Source::with(&[("/simple/six/", html(&links()))]).await;
    let mut world = world(&source, &["six==1.16.0"], &[]);
    let host = b"pypi.cofferdam.internal";
    let mut stream = connect_direct(&world);
    stream
        .write_all(&question(NAME, 0, host))
        .await
        .expect("room");
    assert_eq!(stream.read_u8().await.expect("an answer"), YES);
    assert_eq!(world.next_code().await, "allowed");
    let mut stream = connect_direct(&world);
    stream
        .write_all(&question(CONNECT, 80, host))
        .await
        .expect("room");
    assert_eq!(stream.read_u8().await.expect("an answer"), YES);
    let ask =
        "GET /simple/six/ HTTP/1.1\r\nhost: pypi.cofferdam.internal\r\nconnection: close\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.expect("room");
    let answer = tokio::time::timeout(PATIENCE, read_all(&mut stream))
        .await
        .expect("an answer");
    assert_eq!(parts(&answer).0, "200", "{answer}");
    let tunnel =
        "CONNECT pypi.cofferdam.internal:443 HTTP/1.1\r\nhost: pypi.cofferdam.internal:443\r\n\r\n";
    assert!(world.say(tunnel).await.contains("host_not_allowed"));
}

#[tokio::test]
async fn rules_that_come_later_hold_at_once_for_the_index_and_for_tunnels() {
    let source = Source::with(&[("/simple/six/", html(&links()))]).await;
    let mut world = world(&source, &["six==1.16.0"], &[]);
    assert_eq!(parts(&pip(&world, "/simple/six/").await).0, "200");
    world
        .way
        .set_rules(rules((&["six==1.15.0"], &[]), &["allowed.test"], &[]));
    let answer = pip(&world, "/simple/six/").await;
    assert!(
        answer.contains("1.15.0") && !answer.contains("1.16.0"),
        "{answer}"
    );
    world
        .way
        .set_rules(rules((&[], &[]), &["allowed.test"], &[]));
    assert_eq!(parts(&pip(&world, "/simple/six/").await).0, "403");
    drop((world.next().await, world.next().await, world.next().await));
}

/// Attack: A program asks for one page twenty times at once, to have the source asked as often by us.
#[tokio::test]
async fn of_many_at_once_that_want_one_page_two_ask_the_source() {
    let mut source = Source::with(&[("/simple/six/", html(&links()))]).await;
    let mut world = world(&source, &["Six==1.16"], &[]);
    let head = format!(
        "GET {PIP}/simple/six/ HTTP/1.1\r\nhost: pypi.cofferdam.internal\r\nconnection: close\r\n\r\n"
    );
    let mut streams: Vec<_> = (0..20).map(|_| world.connect()).collect();
    for stream in &mut streams {
        stream.write_all(head.as_bytes()).await.expect("room");
    }
    let records = async {
        for _ in 0..20 {
            assert_eq!(world.next().await.verdict, Verdict::Allowed);
        }
    };
    let answers = async {
        for mut stream in streams {
            let answer = read_all(&mut stream).await;
            assert_eq!(parts(&answer).0, "200", "{answer}");
        }
    };
    tokio::join!(records, answers);
    // As many as a sandbox may have open at once (`PAGES_OF_SANDBOX_MAX`).
    let paths = source.paths();
    assert!((1..=2).contains(&paths.len()), "{paths:?}");
}
