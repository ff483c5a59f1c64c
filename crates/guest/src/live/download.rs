//! `GET /files`: a regular file, or a part of it.

use super::body::{self, Answer, Body};
use super::failure::Failure;
use super::path;
use super::tree;
use super::user::User;
use bytes::Bytes;
use hyper::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_RANGE, HeaderValue, RANGE,
};
use hyper::{HeaderMap, StatusCode};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;

/// Bytes that are read at once: other requests have their turn between.
const CHUNK: u64 = 128 * 1024;

/// The bytes of a file that are still to be sent.
#[derive(Debug)]
pub(super) struct Download {
    file: OwnedFd,
    at: u64,
    pub(super) left: u64,
}

impl Download {
    /// The next bytes. A file that has shrunk cannot be sent as it was promised.
    pub(super) fn read(&mut self) -> io::Result<Option<Bytes>> {
        if self.left == 0 {
            return Ok(None);
        }
        let most = self.left.min(CHUNK);
        let mut bytes = vec![0; usize::try_from(most).unwrap_or(0)];
        let n = rustix::io::pread(&self.file, &mut bytes, self.at)?;
        if n == 0 {
            return Err(Errno::IO.into());
        }
        bytes.truncate(n);
        self.at += n as u64;
        self.left -= n as u64;
        Ok(Some(bytes.into()))
    }
}

/// Which bytes are asked for.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    All,
    /// From, to behind the last.
    Of(u64, u64),
    /// None that there are.
    Beyond,
}

/// What a `Range` header means for a file of this size. Several ranges, or what is none, are the whole.
fn part(range: Option<&str>, size: u64) -> Part {
    let asked = range.and_then(|range| range.strip_prefix("bytes="));
    let Some((from, to)) = asked.and_then(|asked| asked.trim().split_once('-')) else {
        return Part::All;
    };
    match (from.trim().parse::<u64>(), to.trim().parse::<u64>()) {
        (Ok(from), _) if from >= size => Part::Beyond,
        (Ok(from), Ok(to)) if to >= from => Part::Of(from, to.saturating_add(1).min(size)),
        (Ok(from), Err(_)) if to.trim().is_empty() => Part::Of(from, size),
        (Err(_), Ok(0)) if from.trim().is_empty() => Part::Beyond,
        (Err(_), Ok(last)) if from.trim().is_empty() => Part::Of(size.saturating_sub(last), size),
        _ => Part::All,
    }
}

/// Whether the client refuses content as it is.
fn refuses_identity(accepted: Option<&str>) -> bool {
    let Some(accepted) = accepted else {
        return false;
    };
    let refused = |wanted: &str| {
        accepted.split(',').find_map(|one| {
            let (name, weight) = one.split_once(';').unwrap_or((one, "q=1"));
            let weight = weight.trim().strip_prefix("q=").map(str::trim);
            let none = weight.is_some_and(|weight| weight.parse() == Ok(0.0_f32));
            (name.trim() == wanted).then_some(none)
        })
    };
    refused("identity")
        .or_else(|| refused("*"))
        .unwrap_or(false)
}

/// How a browser is told the name, by RFC 6266.
fn disposition(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte);
    if name.bytes().all(plain) {
        return format!("inline; filename={name}");
    }
    let escape = |byte: u8| {
        if plain(byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    let escaped: String = name.bytes().map(escape).collect();
    format!("inline; filename*=utf-8''{escaped}")
}

/// Answers with the file at a path.
pub(super) fn answer(user: User, asked: &str, headers: &HeaderMap) -> Result<Answer, Failure> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let path = path::resolve(asked, user.home)?;
    if let Some(setting) = user.act(|| tree::read_setting(&path)) {
        let content = Body::Whole(Some(setting?.into()));
        return Ok(body::of_type(
            StatusCode::OK,
            "application/octet-stream",
            content,
        ));
    }
    let (file, stat) = user.act(|| tree::open_to_read(&path))?;
    if refuses_identity(header(ACCEPT_ENCODING)) {
        return Ok(body::empty(StatusCode::NOT_ACCEPTABLE));
    }
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let (status, from, to) = match part(header(RANGE), size) {
        Part::All => (StatusCode::OK, 0, size),
        Part::Of(from, to) => (StatusCode::PARTIAL_CONTENT, from, to),
        Part::Beyond => (StatusCode::RANGE_NOT_SATISFIABLE, 0, 0),
    };
    let left = to - from;
    let content = Body::File(Download {
        file,
        at: from,
        left,
    });
    let mut answer = body::of_type(status, "application/octet-stream", content);
    let head = answer.headers_mut();
    head.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let range = match status {
        StatusCode::PARTIAL_CONTENT => {
            Some(format!("bytes {from}-{}/{size}", to.saturating_sub(1)))
        }
        StatusCode::RANGE_NOT_SATISFIABLE => Some(format!("bytes */{size}")),
        _ => None,
    };
    let texts = [
        (CONTENT_RANGE, range),
        (CONTENT_DISPOSITION, Some(disposition(path::name(&path)))),
    ];
    for (name, text) in texts {
        if let Some(value) = text.and_then(|text| HeaderValue::from_str(&text).ok()) {
            head.insert(name, value);
        }
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_cut_to_what_there_is() {
        for (range, expected) in [
            (None, Part::All),
            (Some("bytes=0-3"), Part::Of(0, 4)),
            (Some("bytes=8-99"), Part::Of(8, 10)),
            (Some("bytes=4-"), Part::Of(4, 10)),
            (Some("bytes=-3"), Part::Of(7, 10)),
            (Some("bytes=-30"), Part::Of(0, 10)),
            (Some("bytes=-0"), Part::Beyond),
            (Some("bytes=10-"), Part::Beyond),
            (Some("bytes=5-4"), Part::All),
            (Some("bytes=0-1,4-5"), Part::All),
            (Some("lines=1-2"), Part::All),
            (Some("bytes=0-18446744073709551615"), Part::Of(0, 10)),
        ] {
            assert_eq!(part(range, 10), expected, "{range:?}");
        }
    }

    #[test]
    fn a_client_may_refuse_content_as_it_is() {
        for (accepted, refused) in [
            ("gzip", false),
            ("gzip, identity;q=0", true),
            ("gzip;q=1, *;q=0", true),
            ("identity, *;q=0", false),
        ] {
            assert_eq!(refuses_identity(Some(accepted)), refused, "{accepted}");
        }
    }

    #[test]
    fn a_name_is_told_without_breaking_the_header() {
        assert_eq!(disposition("a.txt"), "inline; filename=a.txt");
        assert_eq!(
            disposition("a \"b\"\r\n"),
            "inline; filename*=utf-8''a%20%22b%22%0D%0A"
        );
    }
}
