//! Requests that two readers would read differently, and what is hidden in them.

use super::Inside;
use model::network::NetworkMode;

#[tokio::test]
async fn requests_have_one_meaning() {
    let world = world!();
    let mut inside = inside!(world);
    tries!(inside:
        a_host_field_that_names_another, two_host_fields, no_host_field, a_path_without_a_target, a_length_beside_chunks,
        two_lengths, a_length_that_is_no_number, a_coding_that_hides_chunks, a_space_before_the_colon, a_folded_line,
        a_line_end_of_its_own, a_chunk_that_lies_about_its_size, a_second_request_behind_the_first, fields_for_proxies,
        a_field_that_takes_others_away, a_switch_of_protocols, http2_without_asking, a_request_without_a_version,
        other_schemes, a_head_of_a_million_bytes, a_million_fields, a_path_of_a_million_bytes, a_write_where_only_reading_is_allowed,
        a_method_that_overrides, a_trace_of_the_proxy);
}

/// Absolute form with an allowed target, and a Host field that names another.
/// > `host_mismatch`; nothing is sent.
async fn a_host_field_that_names_another(inside: &mut Inside<'_>) {
    let said = inside.says("print(raw(b'GET http://open.test:%d/ HTTP/1.1\\r\\nhost: denied.test\\r\\n\\r\\n' % OPEN), connect(b'open.test', OPEN, b'denied.test:%d' % OPEN)[0])").await;
    assert_eq!(said, "400 host_mismatch 400 host_mismatch");
    assert_eq!(inside.heard().len(), 0);
}

/// Two Host fields, of which each server takes another.
/// > `host_mismatch`.
async fn two_host_fields(inside: &mut Inside<'_>) {
    let said = inside.says("print(get(b'open.test', OPEN, more=b'Host: denied.test\\r\\n'), get(b'open.test', OPEN, more=b'HOST: open.test:%d\\r\\n' % OPEN))").await;
    assert_eq!(said, "400 host_mismatch 400 host_mismatch");
    assert_eq!(inside.heard().len(), 0);
}

/// No Host field, so that whoever is behind chooses one.
/// > Refused in HTTP/1.1; in HTTP/1.0 the target becomes the Host field.
async fn no_host_field(inside: &mut Inside<'_>) {
    let said = inside.says("print(*[raw(b'GET http://open.test:%d/ HTTP/1.%d\\r\\n\\r\\n' % (OPEN, n)) for n in (1, 0)])").await;
    assert_eq!(said, "400 host_mismatch 200");
    assert!(inside.heard()[0].contains(&format!("\r\nhost: open.test:{}\r\n", inside.open)));
}

/// The proxy is spoken to as if it were the server.
/// > `bad_target`.
async fn a_path_without_a_target(inside: &mut Inside<'_>) {
    let said = inside.says("print(raw(b'GET / HTTP/1.1\\r\\nhost: open.test:%d\\r\\n\\r\\n' % OPEN), raw(b'OPTIONS * HTTP/1.1\\r\\nhost: open.test\\r\\n\\r\\n'))").await;
    assert_eq!(said, "400 bad_target 400 bad_target");
}

/// Smuggling: a length and chunks, for two readers that each believe another.
/// > The length is dropped, the chunks are written anew, and what follows is a request of its own that is judged.
async fn a_length_beside_chunks(inside: &mut Inside<'_>) {
    let said = inside.says(
        "for order in (b'content-length: 4\\r\\ntransfer-encoding: chunked\\r\\n', b'transfer-encoding: chunked\\r\\ncontent-length: 4\\r\\n'):\n    \
         print(get(b'open.test', OPEN, more=order, method=b'POST', body=b'1\\r\\na\\r\\n0\\r\\n\\r\\nGET http://denied.test/smuggled HTTP/1.1\\r\\nhost: denied.test\\r\\n\\r\\n'))",
    ).await;
    assert_eq!(said, "200\n200");
    for heard in inside.heard() {
        assert!(
            !heard.contains("content-length") && !heard.contains("smuggled"),
            "{heard}"
        );
        assert!(heard.ends_with("1\r\na\r\n0\r\n\r\n"), "{heard}");
    }
}

/// Smuggling: two lengths.
/// > Refused; nothing is sent.
async fn two_lengths(inside: &mut Inside<'_>) {
    let said = inside.says("print(*[get(b'open.test', OPEN, more=more, method=b'POST', body=b'abcd')[:3] for more in (b'content-length: 3\\r\\ncontent-length: 4\\r\\n', b'content-length: 3, 4\\r\\n')])").await;
    assert_eq!(said, "400 400");
    assert_eq!(inside.heard().len(), 0);
}

/// Smuggling: a length with a sign, in hexadecimal digits, or beyond all numbers.
/// > Refused.
async fn a_length_that_is_no_number(inside: &mut Inside<'_>) {
    let said = inside.says("print(*[get(b'open.test', OPEN, more=b'content-length: ' + n + b'\\r\\n', method=b'POST', body=b'abcd')[:3] for n in (b'+4', b'-1', b'0x4', b'4 ', b'99999999999999999999', b'4;x')])").await;
    // Space around a value is no part of it.
    assert_eq!(said, "400 400 400 200 400 400");
    assert!(
        inside
            .heard()
            .iter()
            .all(|heard| heard.contains("content-length: 4\r\n"))
    );
}

/// Smuggling: chunks that a reader does not see, because the coding is written oddly.
/// > Refused.
async fn a_coding_that_hides_chunks(inside: &mut Inside<'_>) {
    let said = inside.says("print(*[get(b'open.test', OPEN, more=b'transfer-encoding: ' + c + b'\\r\\n', method=b'POST', body=b'0\\r\\n\\r\\n')[:1] for c in (b'xchunked', b'chunked, identity', b'gzip, chunked', b'\"chunked\"', b'identity', b'\\x0bchunked')])").await;
    assert_eq!(said, "4 4 4 4 4 4");
    assert_eq!(inside.heard().len(), 0);
}

/// Smuggling: a space between a field's name and its colon.
/// > Refused.
async fn a_space_before_the_colon(inside: &mut Inside<'_>) {
    let said = inside.says("print(get(b'open.test', OPEN, more=b'transfer-encoding : chunked\\r\\n', method=b'POST', body=b'0\\r\\n\\r\\n')[:3], get(b'open.test', OPEN, more=b'host : denied.test\\r\\n')[:3])").await;
    assert_eq!(said, "400 400");
    assert_eq!(inside.heard().len(), 0);
}

/// A field that goes on in the next line, which some read as one field and some as two.
/// > Refused.
async fn a_folded_line(inside: &mut Inside<'_>) {
    let said = inside.says("print(get(b'open.test', OPEN, more=b'x: y\\r\\n\\thost: denied.test\\r\\n')[:3], get(b'open.test', OPEN, more=b' x: y\\r\\n')[:3])").await;
    assert!(["400 400", "200 400"].contains(&said.as_str()), "{said}");
    assert!(inside.heard().iter().all(|heard| !heard.contains("\n\t")));
}

/// Header injection outwards: carriage returns and NUL bytes inside of a field's value.
/// > Refused; a line that ends in a bare line feed is read and written anew as a line.
async fn a_line_end_of_its_own(inside: &mut Inside<'_>) {
    let said = inside.says("print(*[get(b'open.test', OPEN, more=more)[:3] for more in (b'x: a\\rhost: denied.test\\r\\n', b'x: a\\0b\\r\\n', b'x\\r: a\\r\\n', b'x: a\\nhost: denied.test\\r\\n')])").await;
    assert_eq!(said, "400 400 400 400");
    assert_eq!(inside.heard().len(), 0);
}

/// Smuggling: chunk sizes that overflow, have a sign, or end in something else.
/// > The request breaks off; what comes after is no request.
async fn a_chunk_that_lies_about_its_size(inside: &mut Inside<'_>) {
    inside.says(
        "for size in (b'ffffffffffffffff1', b'-1', b'0x1', b'1\\n', b'g', b''):\n    \
         get(b'open.test', OPEN, more=b'transfer-encoding: chunked\\r\\n', method=b'POST', body=size + b'\\r\\na\\r\\n0\\r\\n\\r\\nGET http://denied.test/smuggled HTTP/1.1\\r\\nhost: denied.test\\r\\n\\r\\n')",
    ).await;
    assert!(
        inside
            .heard()
            .iter()
            .all(|heard| !heard.contains("smuggled") && !heard.contains("denied"))
    );
}

/// A second request to a denied host on a connection whose first was allowed.
/// > Each is judged anew, and has a connection of its own outside.
async fn a_second_request_behind_the_first(inside: &mut Inside<'_>) {
    let said = inside.says(
        "s = dial(); one = b'GET http://open.test:%d/ HTTP/1.1\\r\\nhost: open.test:%d\\r\\n\\r\\n' % (OPEN, OPEN)\n\
         s.sendall(one + one[:-2].replace(b'open.test', b'denied.test') + b'connection: close\\r\\n\\r\\n'); b = b''\n\
         while True:\n    part = s.recv(9999)\n    if not part: break\n    b += part\n\
         print(b.count(b'HTTP/1.1 200'), b.count(b'x-proxy-error: host_denied'))",
    ).await;
    assert_eq!(said, "1 1");
    assert_eq!(inside.heard().len(), 1);
}

/// Fields that are for a proxy, with credentials for the next one.
/// > They go no further.
async fn fields_for_proxies(inside: &mut Inside<'_>) {
    let said = inside.says("print(get(b'open.test', OPEN, more=b'proxy-authorization: Basic eDp5\\r\\nproxy-connection: keep-alive\\r\\nkeep-alive: timeout=5\\r\\nte: trailers\\r\\n'))").await;
    assert_eq!(said, "200");
    let heard = inside.heard().concat().to_ascii_lowercase();
    assert!(
        !heard.contains("proxy-") && !heard.contains("keep-alive:") && !heard.contains("\nte:"),
        "{heard}"
    );
}

/// `Connection` names Host and Content-Length, so that a careful proxy takes them away.
/// > Those two stay.
async fn a_field_that_takes_others_away(inside: &mut Inside<'_>) {
    let said = inside.says("print(raw(b'POST http://open.test:%d/ HTTP/1.1\\r\\nhost: open.test:%d\\r\\nconnection: close, host, content-length, x-a\\r\\nx-a: b\\r\\ncontent-length: 4\\r\\n\\r\\nabcd' % (OPEN, OPEN)))").await;
    assert_eq!(said, "200");
    let heard = inside.heard().concat();
    assert!(
        heard.contains("host: open.test")
            && heard.contains("content-length: 4")
            && !heard.contains("x-a"),
        "{heard}"
    );
}

/// A WebSocket upgrade, or one to HTTP/2, after which nobody reads requests any more.
/// > The fields go no further, and a server that switches all the same is refused: `bad_answer`.
async fn a_switch_of_protocols(inside: &mut Inside<'_>) {
    let said = inside.says(
        "for to in (b'websocket', b'h2c'):\n    \
         more = b'upgrade: ' + to + b'\\r\\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n'\n    \
         print(get(b'open.test', OPEN, b'/switch', more=more), get(b'open.test', OPEN, more=more))",
    ).await;
    assert_eq!(said, "502 bad_answer 200\n502 bad_answer 200");
    assert!(
        inside
            .heard()
            .iter()
            .all(|heard| !heard.contains("upgrade:"))
    );
}

/// HTTP/2 from the first byte, which this proxy does not read.
/// > Refused.
async fn http2_without_asking(inside: &mut Inside<'_>) {
    let said = inside
        .says("print(raw(b'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n' + bytes(9))[:3])")
        .await;
    assert!(["400", "not", "505"].contains(&said.as_str()), "{said}");
}

/// A request of HTTP/0.9, or of a version that nobody knows.
/// > Refused.
async fn a_request_without_a_version(inside: &mut Inside<'_>) {
    let said = inside.says("print(*[raw(line % OPEN)[:1] for line in (b'GET http://open.test:%d/\\r\\n\\r\\n', b'GET http://open.test:%d/ HTTP/9.9\\r\\nhost: x\\r\\n\\r\\n', b'GET http://open.test:%d/ http/1.1\\r\\nhost: x\\r\\n\\r\\n')])").await;
    assert!(
        said.split(' ').all(|one| ["4", "5", "n"].contains(&one)),
        "{said}"
    );
    assert_eq!(inside.heard().len(), 0);
}

/// Schemes for which other proxies have a client: files, FTP, gopher, https.
/// > `bad_scheme`.
async fn other_schemes(inside: &mut Inside<'_>) {
    let said = inside.says("print(*[raw(b'GET ' + s + b'://open.test:%d/ HTTP/1.1\\r\\nhost: open.test:%d\\r\\n\\r\\n' % (OPEN, OPEN)) for s in (b'ftp', b'gopher', b'https', b'ws', b'unix')], raw(b'GET file:///etc/passwd HTTP/1.1\\r\\nhost: x\\r\\n\\r\\n')[:1])").await;
    assert_eq!(said, format!("{}4", "400 bad_scheme ".repeat(5)));
}

/// One field of a million bytes.
/// > Refused after 64 KiB with 431, which may be lost with the rest that nobody reads.
async fn a_head_of_a_million_bytes(inside: &mut Inside<'_>) {
    let said = inside
        .says("print(get(b'open.test', OPEN, more=b'x: ' + b'y' * 1000000 + b'\\r\\n')[:3])")
        .await;
    assert!(["431", "not"].contains(&said.as_str()), "{said}");
    assert_eq!(inside.heard().len(), 0);
}

/// Very many small fields.
/// > Refused after a hundred with 431.
async fn a_million_fields(inside: &mut Inside<'_>) {
    let said = inside.says("print(get(b'open.test', OPEN, more=b'x: y\\r\\n' * 200)[:3], get(b'open.test', OPEN, more=b'x: y\\r\\n' * 170000)[:3])").await;
    assert!(said.starts_with("431 "), "{said}");
    assert_eq!(inside.heard().len(), 0);
}

/// A path of a million bytes.
/// > Refused after 64 KiB; nothing is sent.
async fn a_path_of_a_million_bytes(inside: &mut Inside<'_>) {
    let said = inside
        .says("print(get(b'open.test', OPEN, b'/' + b'y' * 1000000)[:3])")
        .await;
    assert!(["431", "414", "not"].contains(&said.as_str()), "{said}");
    assert_eq!(inside.heard().len(), 0);
}

/// A request that writes, or a tunnel in which nobody sees what is written, where only reading is allowed.
/// > `read_only_method`, `read_only_tunnel`; so it is for a GET with a body.
async fn a_write_where_only_reading_is_allowed(inside: &mut Inside<'_>) {
    inside.rules(NetworkMode::ReadOnly, &[], &[]);
    let said = inside.says(
        "print(*[get(b'open.test', OPEN, method=m) for m in (b'POST', b'PUT', b'DELETE', b'PATCH', b'get', b'GETX')])\n\
         print(get(b'open.test', OPEN, more=b'content-length: 4\\r\\n', body=b'abcd'), get(b'open.test', OPEN, more=b'transfer-encoding: chunked\\r\\n', body=b'1\\r\\na\\r\\n0\\r\\n\\r\\n'))\n\
         print(connect(b'open.test', OPEN)[0], socks(b'open.test', OPEN), get(b'open.test', OPEN))",
    ).await;
    let method = "403 read_only_method";
    assert_eq!(
        said,
        format!(
            "{}\n{method} {method}\n403 read_only_tunnel 2 200",
            [method; 6].join(" ")
        )
    );
}

/// A GET that asks the server to take it for a DELETE.
/// > The method that such a field names is the one that counts: `read_only_method`.
async fn a_method_that_overrides(inside: &mut Inside<'_>) {
    inside.rules(NetworkMode::ReadOnly, &[], &[]);
    let said = inside.says("print(get(b'open.test', OPEN, more=b'x-http-method-override: DELETE\\r\\n'), get(b'open.test', OPEN, more=b'X-METHOD-OVERRIDE: put\\r\\n'))").await;
    assert_eq!(said, "403 read_only_method 403 read_only_method");
    assert_eq!(inside.heard().len(), 0);
}

/// TRACE, to read what a proxy has added to a request.
/// > It is answered by the server alone, and the proxy adds nothing that was not the client's own.
async fn a_trace_of_the_proxy(inside: &mut Inside<'_>) {
    inside
        .says("get(b'open.test', OPEN, method=b'TRACE', more=b'max-forwards: 0\\r\\n')")
        .await;
    let heard = inside.heard().concat().to_ascii_lowercase();
    assert!(
        !heard.contains("\nvia:") && !heard.contains("forwarded") && !heard.contains("127.0.0.1"),
        "{heard}"
    );
}
