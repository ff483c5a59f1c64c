//! `GET /files`: a regular file, or a part of it; compressed on the way, if the client likes that.

use super::body::{self, Answer, Body};
use super::failure::Failure;
use super::path;
use super::tree;
use super::user::User;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_RANGE,
    HeaderValue, IF_RANGE, RANGE, VARY,
};
use hyper::{HeaderMap, StatusCode};
use rustix::io::Errno;
use std::io::{self, Write as _};
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
    /// All of a file of this size.
    pub(super) fn whole(file: OwnedFd, size: u64) -> Download {
        Download {
            file,
            at: 0,
            left: size,
        }
    }

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

/// The same, compressed.
pub(super) struct Gzip {
    download: Download,
    /// What comes out waits here; nothing once the end was written.
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl std::fmt::Debug for Gzip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Gzip").field(&self.download).finish()
    }
}

impl Gzip {
    fn new(download: Download) -> Gzip {
        // The fastest: whoever wants it small can do that inside.
        let encoder = GzEncoder::new(Vec::new(), Compression::fast());
        Gzip {
            download,
            encoder: Some(encoder),
        }
    }

    /// What comes of the next bytes, which may be none: what compresses well yields little.
    pub(super) fn read(&mut self) -> io::Result<Option<Bytes>> {
        let Some(encoder) = &mut self.encoder else {
            return Ok(None);
        };
        if let Some(bytes) = self.download.read()? {
            encoder.write_all(&bytes)?;
            return Ok(Some(std::mem::take(encoder.get_mut()).into()));
        }
        let rest = self.encoder.take().map(GzEncoder::finish).transpose()?;
        Ok(rest.map(Bytes::from))
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

/// How content is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Identity,
    Gzip,
    /// The client takes neither.
    Neither,
}

/// What an `Accept-Encoding` header means (RFC 9110, 12.5.3). Compression is only for those who name it and
/// no other: clients that list all that they know, as their libraries do by themselves, would wait ten times
/// as long for a large file, because one processor compresses more slowly than the way carries.
fn coding(accepted: Option<&str>) -> Coding {
    let weight = |wanted: &str| {
        accepted.unwrap_or_default().split(',').find_map(|one| {
            let (name, weight) = one.split_once(';').unwrap_or((one, "q=1"));
            let weight = weight.trim().strip_prefix("q=").map(str::trim);
            let weight = weight.and_then(|weight| weight.parse::<f32>().ok());
            (name.trim().eq_ignore_ascii_case(wanted)).then_some(weight.unwrap_or(1.0))
        })
    };
    let gzip = weight("gzip").or_else(|| weight("x-gzip"));
    let any = weight("*");
    let identity = weight("identity").or_else(|| any.filter(|any| *any == 0.0));
    let names = accepted.unwrap_or_default().split(',');
    let mut names = names.map(|one| one.split(';').next().unwrap_or_default().trim());
    let own = |name: &str| ["gzip", "x-gzip", "identity", "*", ""].contains(&name);
    let is_wish = names.all(|name| own(&name.to_ascii_lowercase()));
    match (gzip, identity) {
        (Some(gzip), identity) if is_wish && gzip > 0.0 && gzip >= identity.unwrap_or(0.0) => {
            Coding::Gzip
        }
        (_, Some(0.0)) if gzip.or(any).is_some_and(|gzip| gzip > 0.0) => Coding::Gzip,
        (_, Some(0.0)) => Coding::Neither,
        _ => Coding::Identity,
    }
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
    let coding = coding(header(ACCEPT_ENCODING));
    if coding == Coding::Neither {
        return Ok(body::empty(StatusCode::NOT_ACCEPTABLE));
    }
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    // A part is one of the content as it is sent, and what it would be of a compressed one nobody knows.
    // Nothing tells whether a file has changed, so that `If-Range` never holds (RFC 9110, 13.1.5).
    let is_whole = coding == Coding::Gzip || headers.contains_key(IF_RANGE);
    let range = header(RANGE).filter(|_| !is_whole);
    let (status, from, to) = match part(range, size) {
        Part::All => (StatusCode::OK, 0, size),
        Part::Of(from, to) => (StatusCode::PARTIAL_CONTENT, from, to),
        Part::Beyond => (StatusCode::RANGE_NOT_SATISFIABLE, 0, 0),
    };
    let left = to - from;
    let download = Download {
        file,
        at: from,
        left,
    };
    let content = match coding {
        Coding::Gzip => Body::Gzip(Gzip::new(download)),
        Coding::Identity | Coding::Neither => Body::File(download),
    };
    let mut answer = body::of_type(status, "application/octet-stream", content);
    let head = answer.headers_mut();
    head.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    if coding == Coding::Gzip {
        head.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    } else {
        head.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    }
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
    fn content_is_compressed_for_those_who_name_it() {
        for (accepted, expected) in [
            (None, Coding::Identity),
            (Some(""), Coding::Identity),
            (Some("*"), Coding::Identity),
            (Some("br, deflate"), Coding::Identity),
            (Some("identity, *;q=0"), Coding::Identity),
            (Some("gzip;q=0.5, identity"), Coding::Identity),
            (Some("gzip;q=0"), Coding::Identity),
            (Some("gzip"), Coding::Gzip),
            (Some("GZIP;q=0.8"), Coding::Gzip),
            (Some("br, gzip, identity;q=0"), Coding::Gzip),
            // What HTTP libraries send when nobody says anything.
            (Some("gzip, deflate"), Coding::Identity),
            (Some("br;q=1, gzip;q=0.8, *;q=0.1"), Coding::Identity),
            (Some("gzip, identity;q=0"), Coding::Gzip),
            (Some("gzip;q=1, *;q=0"), Coding::Gzip),
            (Some("identity;q=0, *"), Coding::Gzip),
            (Some("identity;q=0"), Coding::Neither),
            (Some("gzip;q=0, identity;q=0"), Coding::Neither),
            (Some("br, *;q=0"), Coding::Neither),
        ] {
            assert_eq!(coding(accepted), expected, "{accepted:?}");
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
