//! Answers from outside that are made to hurt whoever is inside, or to lead further.

use super::Inside;

/// What the server says, by the path.
pub(super) fn answer(path: &str) -> Vec<u8> {
    let ok = "HTTP/1.1 200 OK\r\n";
    let own = "content-length: 2\r\n\r\nok";
    let text = match path {
        "/metadata" => "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/latest/\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "/loopback" => "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "/name" => "HTTP/1.1 301 Moved\r\nlocation: http://private.test/\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "/split" => format!("{ok}{own}{ok}content-length: 8\r\n\r\nsmuggled"),
        "/return" => format!("{ok}x: a\rset-cookie: b\r\n{own}"),
        "/nul" => format!("{ok}x: a\0b\r\n{own}"),
        "/lengths" => format!("{ok}content-length: 2\r\ncontent-length: 3\r\n\r\nok!"),
        "/both" => format!("{ok}content-length: 40\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        "/coding" => format!("{ok}transfer-encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        "/word" => format!("{ok}x-proxy-error: host_denied\r\nproxy-authenticate: Basic\r\n{own}"),
        "/password" => "HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic realm=x\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "/big" => format!("{ok}x: {}\r\n{own}", "y".repeat(1_000_000)),
        "/many" => format!("{ok}{}{own}", "x: y\r\n".repeat(5000)),
        "/early" => format!("{}{ok}{own}", "HTTP/1.1 100 Continue\r\n\r\n".repeat(3)),
        "/endless" => "HTTP/1.1 100 Continue\r\n\r\n".repeat(100_000),
        "/none" => "SSH-2.0-OpenSSH\r\n\r\n".to_owned(),
        "/nothing" => String::new(),
        "/switch" => "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n".to_owned(),
        "/between" => format!("{ok}connection: x-own\r\nx-own: 1\r\nkeep-alive: timeout=5\r\nupgrade: h2c\r\n{own}"),
        _ => format!("{ok}{own}"),
    };
    text.into_bytes()
}

#[tokio::test]
async fn answers_do_no_harm() {
    let world = world!();
    let mut inside = inside!(world);
    tries!(inside:
        a_redirect_to_the_metadata, a_redirect_to_the_loopback, a_redirect_to_a_private_name, an_answer_behind_the_answer,
        a_field_that_becomes_two, two_lengths_of_an_answer, a_length_beside_chunks_of_an_answer, a_coding_of_an_answer,
        a_denial_that_is_not_ours, a_question_for_the_proxys_password, an_answer_of_a_million_bytes_before_it_begins,
        answers_before_the_answer, what_is_no_answer, fields_between_neighbours);
}

/// Follows redirects as programs do, and prints the status and the word of the last answer.
async fn follows(inside: &Inside<'_>, path: &str) -> String {
    let script = format!(
        "import urllib.request\nfor name in ('no_proxy', 'NO_PROXY'): os.environ.pop(name, None)\n\
         o = urllib.request.build_opener(urllib.request.ProxyHandler({{'http': 'http://127.0.0.1:3128'}}))\n\
         try: print(o.open('http://open.test:%d{path}' % OPEN, timeout=30).status)\n\
         except urllib.error.HTTPError as e: print(e.code, e.headers.get('x-proxy-error'))"
    );
    inside.says(&script).await
}

/// An allowed server sends the client on to where a cloud answers with credentials.
/// > The client goes there itself, and is refused: `address_metadata`.
async fn a_redirect_to_the_metadata(inside: &mut Inside<'_>) {
    assert_eq!(follows(inside, "/metadata").await, "403 address_metadata");
}

/// An allowed server sends the client on to the machine itself.
/// > `address_loopback`.
async fn a_redirect_to_the_loopback(inside: &mut Inside<'_>) {
    assert_eq!(follows(inside, "/loopback").await, "403 address_loopback");
}

/// An allowed server sends the client on to a name of the inside.
/// > `address_private`.
async fn a_redirect_to_a_private_name(inside: &mut Inside<'_>) {
    assert_eq!(follows(inside, "/name").await, "403 address_private");
}

/// Response splitting: a second answer behind the first, for the client's next request.
/// > Each request has a connection of its own outside; what is left over on it is dropped.
async fn an_answer_behind_the_answer(inside: &mut Inside<'_>) {
    let said = inside.says(
        "s = dial(); b = b''\n\
         for path in (b'split', b''): s.sendall(b'GET http://open.test:%d/%s HTTP/1.1\\r\\nhost: open.test:%d\\r\\n\\r\\n' % (OPEN, path, OPEN))\n\
         while b.count(b'\\r\\n\\r\\nok') < 2:\n    part = s.recv(9999)\n    if not part: break\n    b += part\n\
         print(b.count(b'HTTP/1.1 200'), b.count(b'smuggled'))",
    ).await;
    assert_eq!(said, "2 0");
}

/// Header injection inwards: a carriage return or a NUL byte in a field of an answer.
/// > `bad_answer`.
async fn a_field_that_becomes_two(inside: &mut Inside<'_>) {
    let said = inside
        .says("print(get(b'open.test', OPEN, b'/return'), get(b'open.test', OPEN, b'/nul'))")
        .await;
    assert_eq!(said, "502 bad_answer 502 bad_answer");
}

/// An answer with two lengths, for a client that believes the other one.
/// > `bad_answer`.
async fn two_lengths_of_an_answer(inside: &mut Inside<'_>) {
    assert_eq!(
        inside
            .says("print(get(b'open.test', OPEN, b'/lengths'))")
            .await,
        "502 bad_answer"
    );
}

/// An answer with a length and chunks.
/// > The length is dropped, and the body is what the chunks hold.
async fn a_length_beside_chunks_of_an_answer(inside: &mut Inside<'_>) {
    let said = inside.says(
        "s = dial(); s.sendall(b'GET http://open.test:%d/both HTTP/1.1\\r\\nhost: open.test:%d\\r\\nconnection: close\\r\\n\\r\\n' % (OPEN, OPEN)); b = b''\n\
         while True:\n    part = s.recv(9999)\n    if not part: break\n    b += part\n\
         print(b.count(b'content-length'), b.endswith(b'2\\r\\nok\\r\\n0\\r\\n\\r\\n'))",
    ).await;
    assert_eq!(said, "0 True");
}

/// An answer in a coding that the proxy does not read, so that its end is anybody's guess.
/// > `bad_answer`.
async fn a_coding_of_an_answer(inside: &mut Inside<'_>) {
    assert_eq!(
        inside
            .says("print(get(b'open.test', OPEN, b'/coding'))")
            .await,
        "502 bad_answer"
    );
}

/// A server that says a denial in the proxy's name.
/// > The field is taken out: denials are ours to give.
async fn a_denial_that_is_not_ours(inside: &mut Inside<'_>) {
    assert_eq!(
        inside
            .says("print(get(b'open.test', OPEN, b'/word'))")
            .await,
        "200"
    );
}

/// A server that asks for the password of the proxy.
/// > The question is taken out of the answer.
async fn a_question_for_the_proxys_password(inside: &mut Inside<'_>) {
    let said = inside.says(
        "s = dial(); s.sendall(b'GET http://open.test:%d/password HTTP/1.1\\r\\nhost: open.test:%d\\r\\nconnection: close\\r\\n\\r\\n' % (OPEN, OPEN))\n\
         print(b'proxy-authenticate' in s.recv(9999).lower())",
    ).await;
    assert_eq!(said, "False");
}

/// An answer with a field of a million bytes, or very many fields.
/// > `bad_answer` after 64 KiB and a hundred fields.
async fn an_answer_of_a_million_bytes_before_it_begins(inside: &mut Inside<'_>) {
    let said = inside
        .says("print(get(b'open.test', OPEN, b'/big'), get(b'open.test', OPEN, b'/many'))")
        .await;
    assert_eq!(said, "502 bad_answer 502 bad_answer");
}

/// Interim answers, a few and without end.
/// > A few are read and dropped; without an answer behind them it is `bad_answer`.
async fn answers_before_the_answer(inside: &mut Inside<'_>) {
    let said = inside
        .says("print(get(b'open.test', OPEN, b'/early'), get(b'open.test', OPEN, b'/endless'))")
        .await;
    assert_eq!(said, "200 502 bad_answer");
}

/// Another protocol, or nothing at all, where an answer should be.
/// > `bad_answer`; nothing of it is passed on.
async fn what_is_no_answer(inside: &mut Inside<'_>) {
    let said = inside
        .says("print(get(b'open.test', OPEN, b'/none'), get(b'open.test', OPEN, b'/nothing'))")
        .await;
    assert_eq!(said, "502 bad_answer 502 bad_answer");
}

/// Fields of an answer that are for the proxy alone, or name others to be dropped.
/// > They come no further.
async fn fields_between_neighbours(inside: &mut Inside<'_>) {
    let said = inside.says(
        "s = dial(); s.sendall(b'GET http://open.test:%d/between HTTP/1.1\\r\\nhost: open.test:%d\\r\\nconnection: close\\r\\n\\r\\n' % (OPEN, OPEN))\n\
         a = s.recv(9999).lower(); print(*[name in a for name in (b'x-own', b'keep-alive:', b'upgrade')])",
    ).await;
    assert_eq!(said, "False False False");
}
