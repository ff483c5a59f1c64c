//! Attacks on the index of packages: by whoever asks, and by a source that plays along.

use crate::index::{PIP, Source, file, html, json, npm, parts, pip, sha256, world, world_with};
use crate::world::{is_untouched, read_all, trap};
use egress::record::Verdict;
use tokio::io::AsyncWriteExt as _;

const WHEEL: &[u8] = b"the bytes of a wheel";
const SIX: &str = "/files/six/six-1.16.0-py3-none-any.whl";

/// Attack: a file that is another one than its page says, whole in one piece or in many.
#[tokio::test]
async fn a_file_that_is_another_one_breaks_off_before_its_last_bytes() {
    let long = vec![b'x'; 1 << 20];
    for body in [WHEEL, &long] {
        let page = format!(
            "<a href=\"/f/six-1.16.0-py3-none-any.whl#sha256={}\">",
            sha256(b"other")
        );
        let source = Source::with(&[
            ("/simple/six/", html(&page)),
            ("/f/six-1.16.0-py3-none-any.whl", file(body)),
        ])
        .await;
        let mut world = world(&source, &["six==1.16.0"], &[]);
        let answer = pip(&world, SIX).await;
        assert!(parts(&answer).1.len() < body.len());
        assert_eq!(world.next_code().await, "wrong_digest");
    }
}

/// Attack: a page that moves its links elsewhere, by `<base>`, by dots, by another scheme, or by an address of the inside.
#[tokio::test]
async fn a_link_leads_to_the_source_or_over_tls_to_a_public_address_and_never_inside() {
    let (port, trap) = trap().await;
    let digest = sha256(WHEEL);
    for (href, code) in [
        (
            format!("http://127.0.0.1:{port}/six-1.16.0-py3-none-any.whl"),
            "index_failed",
        ),
        (
            format!("https://10.0.0.1:{port}/six-1.16.0-py3-none-any.whl"),
            "address_private",
        ),
        (
            "https://169.254.169.254/six-1.16.0-py3-none-any.whl".to_owned(),
            "address_metadata",
        ),
        (
            format!("https://a.nowhere:{port}/six-1.16.0-py3-none-any.whl"),
            "unknown_name",
        ),
        (
            "git+https://a.test/six-1.16.0-py3-none-any.whl".to_owned(),
            "not_in_index",
        ),
        (
            "file:///etc/six-1.16.0-py3-none-any.whl".to_owned(),
            "not_in_index",
        ),
        (
            "https://a@b.test/six-1.16.0-py3-none-any.whl".to_owned(),
            "not_in_index",
        ),
        (
            "/f/../%2e%2e/six-1.16.0-py3-none-any.whl".to_owned(),
            "not_in_index",
        ),
    ] {
        let page = format!(
            "<base href=\"http://127.0.0.1:{port}/\"><a href=\"{href}#sha256={digest}\">x</a>"
        );
        let source = Source::with(&[("/simple/six/", html(&page))]).await;
        let mut world = world(&source, &["six==1.16.0"], &[]);
        let answer = pip(&world, SIX).await;
        assert!(
            answer.contains(&format!("x-proxy-error: {code}\r\n")),
            "{href} {answer}"
        );
        assert_eq!(world.next_code().await, code, "{href}");
    }
    // A base moves nothing: the link is read from where the page is.
    let page = format!(
        "<base href=\"http://127.0.0.1:{port}/\"><a href=\"six-1.16.0-py3-none-any.whl#sha256={digest}\">"
    );
    let source = Source::with(&[
        ("/simple/six/", html(&page)),
        ("/simple/six/six-1.16.0-py3-none-any.whl", file(WHEEL)),
    ])
    .await;
    let world = world(&source, &["six==1.16.0"], &[]);
    assert_eq!(parts(&pip(&world, SIX).await).1.as_bytes(), WHEEL);
    assert!(is_untouched(&trap).await);
}

/// Attack: a source that sends the proxy on, to the machine itself, in circles, or to another place for its pages.
#[tokio::test]
async fn a_redirect_of_a_page_stays_with_the_source_and_of_a_file_is_checked_as_a_link_is() {
    let (port, trap) = trap().await;
    let to = |location: &str| {
        let fields = format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\n");
        (fields, Vec::new())
    };
    let page = format!(
        "<a href=\"/f/six-1.16.0-py3-none-any.whl#sha256={}\">",
        sha256(WHEEL)
    );
    for (page_to, code) in [
        (format!("http://127.0.0.1:{port}/"), "index_failed"),
        ("https://evil.test/simple/six/".to_owned(), "index_failed"),
        ("/simple/six/".to_owned(), "index_failed"),
        ("/there".to_owned(), "allowed"),
    ] {
        let source = Source::with(&[("/simple/six/", to(&page_to)), ("/there", html(&page))]).await;
        let mut world = world(&source, &["six==1.16.0"], &[]);
        drop(pip(&world, "/simple/six/").await);
        assert_eq!(world.next_code().await, code, "{page_to}");
    }
    for (file_to, code) in [
        (format!("http://127.0.0.1:{port}/"), "index_failed"),
        (format!("https://127.0.0.2:{port}/"), "address_loopback"),
        ("/f/six-1.16.0-py3-none-any.whl".to_owned(), "index_failed"),
    ] {
        let source = Source::with(&[
            ("/simple/six/", html(&page)),
            ("/f/six-1.16.0-py3-none-any.whl", to(&file_to)),
        ])
        .await;
        let mut world = world(&source, &["six==1.16.0"], &[]);
        drop(pip(&world, SIX).await);
        assert_eq!(world.next_code().await, code, "{file_to}");
    }
    assert!(is_untouched(&trap).await);
}

/// Attack: a page that is compressed although nobody asked, a bomb when it is unpacked; one without an end; one that is
/// too long by its own word.
#[tokio::test]
async fn a_page_that_is_compressed_or_too_long_is_not_read() {
    let long = vec![b' '; (16 << 20) + 1];
    let chunked = [
        format!("{:x}\r\n", long.len()).as_bytes(),
        &long,
        b"\r\n0\r\n\r\n",
    ]
    .concat();
    let head = |fields: &str| format!("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n{fields}");
    for (fields, body) in [
        (
            head("content-encoding: gzip\r\n"),
            b"\x1f\x8b\x08\0".to_vec(),
        ),
        (
            head("transfer-encoding: gzip, chunked\r\n"),
            b"0\r\n\r\n".to_vec(),
        ),
        (head("content-length: 99999999999\r\n"), Vec::new()),
        (head("transfer-encoding: chunked\r\n"), chunked),
        (head(""), b"\xff\xfe".to_vec()),
    ] {
        let source = Source::with(&[("/simple/six/", (fields.clone(), body))]).await;
        let mut world = world(&source, &["six==1.16.0"], &[]);
        assert_eq!(
            parts(&pip(&world, "/simple/six/").await).0,
            "502",
            "{fields}"
        );
        assert!(
            matches!(world.next().await.verdict, Verdict::Failed(_)),
            "{fields}"
        );
    }
}

/// Attack: a page whose links say one version by their text and another by their name, or break out of our page.
#[tokio::test]
async fn what_a_page_says_beside_the_name_of_a_file_changes_nothing() {
    let digest = sha256(WHEEL);
    let page = format!(
        "<a href=\"/f/six-6.6.6-py3-none-any.whl#sha256={digest}\">six-1.16.0-py3-none-any.whl</a>\
         <a href=\"/f/six-6.6.6-py3-none-any.whl?six-1.16.0-py3-none-any.whl#sha256={digest}\">six</a>\
         <a href=\"/six-1.16.0-py3-none-any.whl/six-6.6.6.tar.gz#sha256={digest}\">six</a>\
         <a href=\"/f/six-1.16.0+evil-py3-none-any.whl#sha256={digest}\">six</a>\
         <a href=\"/f/SIX-1.16-py3-none-any.whl#sha256={digest}\" data-requires-python='&quot;>&lt;script>'>six</a>\
         <a href=\"/f/six-1.16.0.tar.gz#sha1=00\">six</a>\
         <a href=\"/f/six-1.16.0.tar.gz#sha256={digest}\" data-requires-python=\"a\u{1}b\">six</a>\
         <a href=\"/f/six-1.16.0.tar.gz#egg=six\">six</a>"
    );
    let source = Source::with(&[("/simple/six/", html(&page))]).await;
    let world = world(&source, &["six==1.16.0"], &[]);
    let answer = pip(&world, "/simple/six/").await;
    let page = parts(&answer).1;
    assert_eq!(page.matches("<a ").count(), 1, "{page}");
    assert!(
        page.contains("SIX-1.16-py3") && page.contains("\"&quot;&gt;&lt;script&gt;\""),
        "{page}"
    );
}

/// Attack: a document of npm with keys that are there twice, of another package, or whose version is another one inside.
#[tokio::test]
async fn a_document_that_means_two_things_means_nothing() {
    let one = |name: &str, version: &str| {
        format!(
            r#"{{"name":"{name}","version":"{version}","dist":{{"tarball":"/t","integrity":"sha512-{}"}}}}"#,
            "A".repeat(86) + "=="
        )
    };
    let good = one("a", "1.0.0");
    for (document, status) in [
        (
            format!(r#"{{"name":"a","versions":{{"1.0.0":{good}}}}}"#),
            "200",
        ),
        (
            format!(r#"{{"name":"a","versions":{{"1.0.0":{good},"1.0.0":{good}}}}}"#),
            "502",
        ),
        (
            format!(r#"{{"name":"a","versions":{{}},"versions":{{"1.0.0":{good}}}}}"#),
            "502",
        ),
        (
            format!(r#"{{"name":"a","name":"a","versions":{{"1.0.0":{good}}}}}"#),
            "502",
        ),
        (
            format!(r#"{{"name":"b","versions":{{"1.0.0":{good}}}}}"#),
            "502",
        ),
        (format!(r#"{{"versions":{{"1.0.0":{good}}}}}"#), "502"),
        (
            format!(r#"{{"name":"a","versions":{{"1.0.0":{good}}}}} x"#),
            "502",
        ),
        ("[".repeat(200_000), "502"),
        (
            format!(
                r#"{{"name":"a","x":{}1{},"versions":{{}}}}"#,
                "[".repeat(500),
                "]".repeat(500)
            ),
            "200",
        ),
    ] {
        let source = Source::with(&[("/npm/a", json(&document))]).await;
        let world = world(&source, &[], &["a==1.0.0"]);
        let answer = npm(&world, "/a").await;
        let shown: String = document.chars().take(80).collect();
        assert_eq!(parts(&answer).0, status, "{shown} {answer}");
    }
    let wrong = [
        one("a", "6.6.6"),
        one("b", "1.0.0"),
        good.replace("sha512", "sha1"),
        "7".to_owned(),
    ];
    for inner in wrong {
        let document = format!(r#"{{"name":"a","versions":{{"1.0.0":{inner}}}}}"#);
        let source = Source::with(&[("/npm/a", json(&document))]).await;
        let world = world(&source, &[], &["a==1.0.0"]);
        let answer = npm(&world, "/a").await;
        assert!(answer.contains(r#""versions":{}"#), "{inner} {answer}");
        let answer = npm(&world, "/a/-/a-1.0.0.tgz").await;
        assert!(answer.contains("not_in_index"), "{answer}");
    }
}

/// Attack: the sandbox writes to the index, or uses it to tell the source something.
#[tokio::test]
async fn nothing_is_written_to_a_source_and_nothing_is_told_to_it() {
    let mut source = Source::with(&[("/simple/six/", html(""))]).await;
    let world = world(&source, &["six==1.16.0"], &["a==1.0.0"]);
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let ask = format!(
            "{method} {PIP}/simple/six/ HTTP/1.1\r\nhost: pypi.cofferdam.internal\r\nconnection: close\r\n\
             content-length: 4\r\n\r\nabcd"
        );
        let answer = world.say(ask).await;
        assert!(answer.contains("not_in_index"), "{method} {answer}");
    }
    let publish = "PUT http://npm.cofferdam.internal/a HTTP/1.1\r\nhost: npm.cofferdam.internal\r\ncontent-length: 2\r\n\r\n{}";
    assert!(world.say(publish).await.contains("not_in_index"));
    assert_eq!(source.paths(), [""; 0]);
    let mut stream = world.connect();
    let ask = format!(
        "GET {PIP}/simple/Six/?secret=1 HTTP/1.1\r\nhost: pypi.cofferdam.internal\r\nuser-agent: secret\r\n\
         authorization: Basic secret\r\nx-secret: secret\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(ask.as_bytes()).await.expect("room");
    assert_eq!(parts(&read_all(&mut stream).await).0, "200");
    let heads = source.heads();
    assert!(
        heads.len() == 1 && heads[0].starts_with("GET /simple/six/ "),
        "{heads:?}"
    );
    assert!(!heads[0].contains("secret"), "{heads:?}");
}

/// Attack: a deny list is passed by through the index, which fetches for whoever asks.
#[tokio::test]
async fn where_the_source_itself_is_denied_or_closed_the_index_has_nothing() {
    let mut source = Source::with(&[("/simple/six/", html(""))]).await;
    let lists: (&[&str], &[&str]) = (&["six==1.16.0"], &[]);
    let world = world_with(&source, lists, &["allowed.test"], &["127.0.0.0/8"]);
    let answer = pip(&world, "/simple/six/").await;
    assert!(answer.contains("x-proxy-error: host_denied"), "{answer}");
    assert_eq!(source.paths(), [""; 0]);
}
