//! Fetches for an index: from its source, by connections of its own, checked as all are that leave.

use super::Index;
use super::link::Link;
use crate::clean;
use crate::decide::Refusal;
use crate::dial;
use crate::inspect::secure;
use crate::proxy::Way;
use crate::reason::Reason;
use crate::record::Recording;
use bytes::{Buf as _, Bytes};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HOST, HeaderMap, LOCATION,
    USER_AGENT,
};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use model::dependency::Ecosystem;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};

/// How long a page may take, from the first byte of the request to its last.
const PAGE_PATIENCE: Duration = Duration::from_secs(60);

/// Times that a source may send us on.
const REDIRECTS_MAX: usize = 3;

/// The longest head of an answer.
const HEAD_MAX: usize = 64 * 1024;

/// What is fetched.
#[derive(Debug, Clone, Copy)]
pub(super) struct What {
    /// What is asked for.
    accept: &'static str,
    /// It is compared with a digest, so that it may be anywhere.
    is_checked: bool,
    /// Its length in bytes.
    most: u64,
}

/// A page of a simple index. The largest of PyPI's has some 10 MiB.
pub(super) const SIMPLE: What = What {
    accept: "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1",
    is_checked: false,
    most: 16 << 20,
};

/// A document of a registry, in the form that is for installing.
pub(super) const DOCUMENT: What = What {
    accept: "application/vnd.npm.install-v1+json; q=1.0, application/json; q=0.8",
    is_checked: false,
    most: 64 << 20,
};

/// A file.
pub(super) const FILE: What = What {
    accept: "*/*",
    is_checked: true,
    most: super::check::FILE_MAX,
};

/// An answer that is what was asked for, as far as its head says.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) body: Incoming,
    /// In bytes, where it was said.
    pub(super) length: Option<u64>,
    /// It is in JSON.
    pub(super) is_json: bool,
    /// Where it came from in the end.
    pub(super) from: Link,
}

/// Fetches this. `of` is the package whose file it is: the fetch ends when that may not be installed any more.
pub(super) async fn get(
    way: &Way,
    ecosystem: Ecosystem,
    (link, what): (&Link, What),
    of: Option<(String, String)>,
    recording: &mut Recording,
) -> Result<Answer, Refusal> {
    let index = way.index().ok_or(Reason::Internal)?;
    let source = index.source(ecosystem);
    let mut link = link.clone();
    for _ in 0..=REDIRECTS_MAX {
        // A page is believed because of who shows it; a file because of its digest, and its names leave through TLS.
        let is_beside = link.is_beside(source);
        if !(is_beside || (what.is_checked && link.is_tls)) {
            return Err(Reason::IndexFailed.into());
        }
        let answer = ask(way, &index, (ecosystem, &link, what), of.clone(), recording).await?;
        match answer.status() {
            StatusCode::OK => return checked(answer, link, what),
            StatusCode::NOT_FOUND | StatusCode::GONE => return Err(Reason::NotInIndex.into()),
            status if status.is_redirection() => {
                let to = answer
                    .headers()
                    .get(LOCATION)
                    .and_then(|to| to.to_str().ok());
                let to = to.and_then(|to| link.join(to));
                link = to.ok_or(Reason::IndexFailed)?;
            }
            _ => return Err(Reason::IndexFailed.into()),
        }
    }
    Err(Reason::IndexFailed.into())
}

async fn ask(
    way: &Way,
    index: &Index,
    (ecosystem, link, what): (Ecosystem, &Link, What),
    of: Option<(String, String)>,
    recording: &mut Recording,
) -> Result<Response<Incoming>, Refusal> {
    let outside = dial::reach_source(way, &link.target, recording).await?;
    let asking = async {
        if link.is_tls {
            let outside = secure(index.tls()?, &link.target.host, outside).await?;
            speak(way, (ecosystem, link, what), of, outside, recording).await
        } else {
            speak(way, (ecosystem, link, what), of, outside, recording).await
        }
    };
    let mut answer = asking.await?;
    clean::response(answer.headers_mut())?;
    Ok(answer)
}

async fn speak<S>(
    way: &Way,
    (ecosystem, link, what): (Ecosystem, &Link, What),
    of: Option<(String, String)>,
    outside: S,
    recording: &Recording,
) -> Result<Response<Incoming>, Reason>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(HEAD_MAX)
        .handshake(TokioIo::new(outside))
        .await
        .map_err(|_| Reason::BadAnswer)?;
    let (traffic, cut) = (recording.traffic.clone(), way.cut_package(ecosystem, of));
    // Ends with the answer: whoever holds that is the connection of the client.
    drop(tokio::spawn(async move {
        tokio::select! {
            ended = connection => drop(ended),
            () = traffic.idle() => {}
            refusal = cut => traffic.cut(refusal),
        }
    }));
    let path = if link.path.is_empty() {
        "/"
    } else {
        link.path.as_str()
    };
    let request = Request::get(path)
        .header(HOST, link.authority())
        .header(ACCEPT, what.accept)
        // What is compressed says nothing of how long it will be.
        .header(ACCEPT_ENCODING, "identity")
        .header(USER_AGENT, "cofferdam")
        .body(String::new())
        .map_err(|_| Reason::Internal)?;
    let answered = tokio::time::timeout(PAGE_PATIENCE, sender.send_request(request)).await;
    let answered = answered.map_err(|_| Reason::AnswerTimeout)?;
    answered.map_err(|_| match recording.traffic.was_cut() {
        Some(cut) => cut.reason,
        None => Reason::BadAnswer,
    })
}

fn checked(answer: Response<Incoming>, from: Link, what: What) -> Result<Answer, Refusal> {
    let headers = answer.headers();
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    let is_plain = encodings.all(|one| one.as_bytes().eq_ignore_ascii_case(b"identity"));
    let length = length(headers);
    if !is_plain || length.is_some_and(|length| length > what.most) {
        return Err(Reason::IndexFailed.into());
    }
    let kind = headers.get(hyper::header::CONTENT_TYPE);
    let is_json = kind.is_some_and(|kind| {
        let kind = kind
            .as_bytes()
            .split(|b| *b == b';')
            .next()
            .unwrap_or_default();
        kind.trim_ascii().ends_with(b"json")
    });
    Ok(Answer {
        body: answer.into_body(),
        length,
        is_json,
        from,
    })
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// All of a page.
pub(super) async fn whole(answer: &mut Answer, what: What) -> Result<Vec<u8>, Refusal> {
    let most = usize::try_from(what.most).unwrap_or(usize::MAX);
    let reading = async {
        let mut all = Vec::new();
        while let Some(bytes) = next(&mut answer.body).await? {
            if all.len() + bytes.len() > most {
                return Err(Reason::IndexFailed);
            }
            all.extend_from_slice(bytes.chunk());
        }
        Ok(all)
    };
    let read = tokio::time::timeout(PAGE_PATIENCE, reading).await;
    Ok(read.map_err(|_| Reason::AnswerTimeout)??)
}

async fn next(body: &mut Incoming) -> Result<Option<Bytes>, Reason> {
    loop {
        let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await;
        match frame {
            None => return Ok(None),
            Some(Err(_)) => return Err(Reason::BadAnswer),
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
        }
    }
}
