//! The Connect protocol with its JSON codec: single messages, and enveloped streams of them.
//!
//! See <https://connectrpc.com/docs/protocol>. An envelope is a byte of flags, the length as big-endian
//! `u32`, and the message.

use super::body::{self, Answer, Body};
use super::failure::{Code, Failure};
use super::protojson::parse;
use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::{HeaderMap, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

/// The longest message in bytes, Connect's own default. Larger contents go through `/files`.
pub(super) const MESSAGE_MAX: usize = 4 << 20;

/// A client that sends nothing of its request for so long is gone.
pub(super) const BODY_PATIENCE: Duration = Duration::from_secs(60);

/// The same where a client sends as a person types, and says that it is there every now and then.
pub(super) const INPUT_PATIENCE: Duration = Duration::from_secs(600);

/// The flag of the last envelope.
const END: u8 = 0b10;
/// The flag of a message that was compressed, which nobody offered to take.
const COMPRESSED: u8 = 0b01;
/// The length of an envelope's head.
const HEAD: usize = 5;

/// How a stream of envelopes is typed.
const STREAM_TYPE: &str = "application/connect+json";

/// An envelope around bytes of JSON.
fn envelope(flags: u8, json: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(HEAD + json.len());
    bytes.push(flags);
    let len = u32::try_from(json.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(json);
    bytes.into()
}

/// A message in its envelope.
pub(super) fn message(value: &impl Serialize) -> Bytes {
    envelope(0, &serde_json::to_vec(value).unwrap_or_default())
}

/// The last envelope of a stream that ended as it should.
pub(super) fn end() -> Bytes {
    envelope(END, b"{}")
}

/// The last envelope of a stream that failed.
pub(super) fn end_with(failure: &Failure) -> Bytes {
    let error = serde_json::json!({"error": failure.json()});
    envelope(END, error.to_string().as_bytes())
}

/// Whether nothing may follow this envelope.
pub(super) fn is_end(envelope: &[u8]) -> bool {
    envelope.first().is_some_and(|flags| flags & END != 0)
}

/// Cuts a stream of bytes into the messages of its envelopes.
#[derive(Debug, Default)]
pub(super) struct Envelopes {
    buffer: BytesMut,
}

impl Envelopes {
    /// The next message, if all of it has come.
    ///
    /// # Errors
    /// For a message that is too long, before it has come, or compressed.
    fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let Some([flags, a, b, c, d]) = self.buffer.first_chunk::<HEAD>().copied() else {
            return Ok(None);
        };
        let len = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if len > MESSAGE_MAX {
            let why = format!("a message has at most {MESSAGE_MAX} bytes");
            return Err(Failure::new(Code::ResourceExhausted, why));
        }
        if flags & COMPRESSED != 0 {
            let why = "compressed messages are not taken";
            return Err(Failure::new(Code::Unimplemented, why));
        }
        if self.buffer.len() < HEAD + len {
            return Ok(None);
        }
        self.buffer.advance(HEAD);
        Ok(Some(self.buffer.split_to(len).freeze()))
    }
}

/// The messages of a request that is a stream.
#[derive(Debug)]
pub(super) struct Requests {
    /// None once it is let go.
    body: Option<Incoming>,
    patience: Duration,
    envelopes: Envelopes,
}

impl Requests {
    pub(super) fn new(body: Incoming, patience: Duration) -> Requests {
        let envelopes = Envelopes::default();
        Requests {
            body: Some(body),
            patience,
            envelopes,
        }
    }

    /// The next message, or none at the end.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Failure> {
        loop {
            if let Some(json) = self.envelopes.next()? {
                return parse(&json).map(Some);
            }
            let next = match &mut self.body {
                Some(body) => next_bytes(body, self.patience).await?,
                None => None,
            };
            match next {
                Some(bytes) => self.envelopes.buffer.extend_from_slice(&bytes),
                None if self.envelopes.buffer.is_empty() => return Ok(None),
                None => return Err(Failure::invalid("the stream ends inside a message")),
            }
        }
    }

    /// The only message of a request whose answer is a stream.
    pub(super) async fn only<T: DeserializeOwned>(mut self) -> Result<T, Failure> {
        let missing = || Failure::invalid("the request has no message");
        self.next().await?.ok_or_else(missing)
    }
}

/// What is left of the request, and be it its end, is taken beside the answer.
impl Drop for Requests {
    fn drop(&mut self) {
        if let Some(body) = self.body.take() {
            swallow_beside(body);
        }
    }
}

/// Takes the rest of a body beside the answer. A connection is closed when nobody does, and with it goes what
/// was said over it, and the next request of a server that believes it to be good.
pub(super) fn swallow_beside(mut body: Incoming) {
    if !hyper::body::Body::is_end_stream(&body) {
        tokio::task::spawn_local(async move { swallow(&mut body).await });
    }
}

/// The next bytes of a body, or none at its end.
pub(super) async fn next_bytes(
    body: &mut Incoming,
    patience: Duration,
) -> Result<Option<Bytes>, Failure> {
    loop {
        let frame = tokio::time::timeout(patience, body.frame()).await;
        let late = |_| Failure::new(Code::DeadlineExceeded, "the request does not go on");
        let Some(frame) = frame.map_err(late)? else {
            return Ok(None);
        };
        let frame = frame.map_err(|_| Failure::invalid("the request was cut off"))?;
        if let Ok(bytes) = frame.into_data() {
            return Ok(Some(bytes));
        }
    }
}

/// How long the rest of a body is taken that nobody wants: a client that is cut off while it sends
/// never reads why.
const SWALLOW: Duration = Duration::from_secs(30);

/// Takes the rest of a body to its end. Whoever sends for longer is cut off.
pub(super) async fn swallow(body: &mut Incoming) {
    let taken = async { while let Ok(Some(_)) = next_bytes(body, SWALLOW).await {} };
    drop(tokio::time::timeout(SWALLOW, taken).await);
}

/// The message of a request that has one and is no stream.
pub(super) async fn single<T: DeserializeOwned>(mut body: Incoming) -> Result<T, Failure> {
    part(&mut body).await
}

/// The same from a body that stays the caller's.
pub(super) async fn part<T: DeserializeOwned>(body: &mut Incoming) -> Result<T, Failure> {
    parse(&whole(body, MESSAGE_MAX).await?)
}

/// A body of at most `most` bytes.
pub(super) async fn whole(body: &mut Incoming, most: usize) -> Result<BytesMut, Failure> {
    let mut all = BytesMut::new();
    while let Some(bytes) = next_bytes(body, BODY_PATIENCE).await? {
        if all.len() + bytes.len() > most {
            swallow(body).await;
            let why = format!("a message has at most {most} bytes");
            return Err(Failure::new(Code::ResourceExhausted, why));
        }
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}

/// The answer to a request that is no stream.
pub(super) fn unary(result: Result<serde_json::Value, Failure>) -> Answer {
    match result {
        Ok(value) => body::json(StatusCode::OK, &value),
        Err(failure) => {
            // Connect knows no 507, and clients would take it for a proxy's.
            let status = if failure.code == Code::NoSpace {
                Code::ResourceExhausted.status()
            } else {
                failure.code.status()
            };
            body::json(status, &failure.json())
        }
    }
}

/// The answer to a request that is answered with a stream; a failure is its only envelope.
pub(super) fn streaming(result: Result<Body, Failure>) -> Answer {
    let body = result.unwrap_or_else(|failure| Body::Whole(Some(end_with(&failure))));
    body::of_type(StatusCode::OK, STREAM_TYPE, body)
}

/// Whether the request is a stream, by its type.
pub(super) fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with(STREAM_TYPE))
}

/// How long the answer may take, if the request says so.
pub(super) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Failure> {
    let bad = || Failure::invalid("connect-timeout-ms is not a number of at most 10 digits");
    let Some(value) = headers.get("connect-timeout-ms") else {
        return Ok(None);
    };
    let value = value.to_str().ok().filter(|value| value.len() <= 10);
    let millis: u64 = value.ok_or_else(bad)?.parse().map_err(|_| bad())?;
    Ok((millis > 0).then(|| Duration::from_millis(millis)))
}

/// The silence after which a stream says that it is alive, in seconds, when nobody says.
const KEEPALIVE_DEFAULT: u64 = 90;
/// No client gains from more.
const KEEPALIVE_MAX: u64 = 3600;

/// The silence after which the answer's stream says that it is alive.
pub(super) fn keepalive(headers: &HeaderMap) -> Duration {
    let value = headers.get("keepalive-ping-interval");
    let value = value.and_then(|value| value.to_str().ok()?.parse().ok());
    let seconds: u64 = value.unwrap_or(KEEPALIVE_DEFAULT);
    Duration::from_secs(seconds.clamp(1, KEEPALIVE_MAX))
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(bytes: &[u8], at: usize) -> Vec<Bytes> {
        let mut envelopes = Envelopes::default();
        let mut found = Vec::new();
        for piece in bytes.chunks(at) {
            envelopes.buffer.extend_from_slice(piece);
            while let Some(message) = envelopes.next().unwrap() {
                found.push(message);
            }
        }
        found
    }

    #[test]
    fn messages_come_out_whole_however_they_are_cut() {
        let bytes = [
            envelope(0, b"{\"a\":1}"),
            envelope(0, b""),
            envelope(0, b"{}"),
        ]
        .concat();
        for at in 1..bytes.len() {
            assert_eq!(cut(&bytes, at), [&b"{\"a\":1}"[..], b"", b"{}"], "{at}");
        }
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_before_it_comes() {
        let mut envelopes = Envelopes::default();
        envelopes.buffer.extend_from_slice(&[0, 255, 255, 255, 255]);
        let refused = envelopes.next().unwrap_err();
        assert_eq!(refused.code, Code::ResourceExhausted);
    }

    #[test]
    fn a_compressed_message_is_refused() {
        let mut envelopes = Envelopes::default();
        envelopes
            .buffer
            .extend_from_slice(&envelope(COMPRESSED, b"x"));
        assert_eq!(envelopes.next().unwrap_err().code, Code::Unimplemented);
    }

    #[test]
    fn a_failure_is_the_last_envelope() {
        let bytes = end_with(&Failure::new(Code::NotFound, "no"));
        assert_eq!(bytes[0], END);
        let json: serde_json::Value = serde_json::from_slice(&bytes[HEAD..]).unwrap();
        assert_eq!(json["error"]["code"], "not_found");
    }

    #[test]
    fn the_time_that_a_request_gives_is_read() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("connect-timeout-ms", text.parse().unwrap());
            timeout(&headers)
        };
        assert_eq!(of("1500"), Ok(Some(Duration::from_millis(1500))));
        assert_eq!(of("0"), Ok(None));
        assert!(of("-1").is_err() && of("soon").is_err() && of("12345678901").is_err());
    }
}
