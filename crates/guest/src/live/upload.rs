//! `POST /files` and `POST /files/compose`: contents that are put into files.

use super::Live;
use super::body::{self, Answer};
use super::connect::{self, BODY_PATIENCE};
use super::entry::{self, ATTRIBUTE, METADATA_MAX};
use super::failure::{Code, Failure};
use super::filesystem::append;
use super::multipart::{self, Piece};
use super::path;
use super::query;
use super::tree;
use super::user::User;
use flate2::write::GzDecoder;
use hyper::body::Incoming;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Request, StatusCode};
use rustix::fs::{self, XattrFlags};
use rustix::io::Errno;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// Files of one request, so that its answer is bounded.
const PARTS_MAX: usize = 4096;
/// Files that are put together in one request.
const SOURCES_MAX: usize = 4096;
/// The longest name of an attribute is 255 bytes, and `user.e2b.` is a part of it.
const KEY_MAX: usize = 246;

/// Where content goes.
#[derive(Debug)]
struct Sink(OwnedFd);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(&self.0, bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether what comes is compressed.
#[derive(Debug)]
enum Decoder {
    Plain,
    /// What comes out goes to this buffer first.
    Gzip(Box<GzDecoder<Vec<u8>>>),
}

/// Bytes of compressed content that are taken at once: a thousand times as much may come out.
const GZIP_CHUNK: usize = 1024;

impl Decoder {
    fn of(headers: &HeaderMap) -> Result<Decoder, Failure> {
        match headers.get(CONTENT_ENCODING).map(|value| value.as_bytes()) {
            None | Some(b"identity" | b"") => Ok(Decoder::Plain),
            Some(b"gzip") => Ok(Decoder::Gzip(Box::new(GzDecoder::new(Vec::new())))),
            Some(_) => Err(Failure::invalid("the content's encoding is not known")),
        }
    }

    /// Decodes a little, and gives what came out to `take`.
    async fn feed<T: Take>(&mut self, bytes: &[u8], take: &mut T) -> Result<(), Failure> {
        let Decoder::Gzip(decoder) = self else {
            return take.take(bytes);
        };
        for piece in bytes.chunks(GZIP_CHUNK) {
            decoder.write_all(piece).map_err(|_| not_gzip())?;
            take.take(decoder.get_ref())?;
            decoder.get_mut().clear();
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn finish<T: Take>(self, take: &mut T) -> Result<(), Failure> {
        match self {
            Decoder::Plain => Ok(()),
            Decoder::Gzip(decoder) => {
                let rest = decoder.finish().map_err(|_| not_gzip())?;
                take.take(&rest)
            }
        }
    }
}

fn not_gzip() -> Failure {
    Failure::invalid("the content is not what gzip writes")
}

/// What takes decoded content.
trait Take {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure>;
}

/// All content is one file's.
#[derive(Debug)]
struct Single {
    path: String,
    sink: Sink,
}

impl Take for Single {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.sink
            .write_all(bytes)
            .map_err(|error| written(&self.path, &error))
    }
}

/// The content says which files there are.
#[derive(Debug)]
struct Several {
    user: User,
    parts: multipart::Parts,
    /// Where the only file goes, whatever it is called.
    path: Option<String>,
    metadata: Map<String, Value>,
    current: Option<Single>,
    /// Where they went: of two that go to one place the first would be lost.
    paths: BTreeSet<String>,
    done: Vec<Value>,
    over: bool,
}

impl Take for Several {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.parts.push(bytes);
        while !self.over
            && let Some(piece) = self.parts.next()?
        {
            match piece {
                Piece::Begin { field, filename } => self.begin(&field, filename)?,
                Piece::Content(bytes) => {
                    if let Some(current) = &mut self.current {
                        current.take(&bytes)?;
                    }
                }
                Piece::End => self.current = None,
                Piece::Over => self.over = true,
            }
        }
        Ok(())
    }
}

impl Several {
    fn begin(&mut self, field: &str, filename: Option<String>) -> Result<(), Failure> {
        if field != "file" {
            return Ok(()); // Its content is passed over.
        }
        if self.done.len() >= PARTS_MAX {
            let why = format!("a request has at most {PARTS_MAX} files");
            return Err(Failure::new(Code::ResourceExhausted, why));
        }
        let none = || Failure::invalid("a part has no file name");
        let asked = self.path.clone().or(filename).ok_or_else(none)?;
        if !self.paths.insert(path::resolve(&asked, self.user.home)?) {
            let why = format!("two files of one request have the path '{asked}'");
            return Err(Failure::invalid(why));
        }
        let (single, told) = open(self.user, &asked, &self.metadata)?;
        self.current = Some(single);
        self.done.push(told);
        Ok(())
    }
}

/// Opens a file to be written, with its metadata, and what is told about it.
fn open(
    user: User,
    asked: &str,
    metadata: &Map<String, Value>,
) -> Result<(Single, Value), Failure> {
    let path = path::resolve(asked, user.home)?;
    let file = user.act(|| {
        let file = tree::open_to_write(&path)?;
        let ready = user.take(&file).and_then(|()| describe(&file, metadata));
        ready.map_err(|errno| Failure::errno(&path, errno))?;
        Ok::<_, Failure>(file)
    })?;
    let mut told = json!({"path": path, "name": path::name(&path), "type": "file"});
    if let (false, Some(told)) = (metadata.is_empty(), told.as_object_mut()) {
        told.insert("metadata".to_owned(), metadata.clone().into());
    }
    let sink = Sink(file);
    Ok((Single { path, sink }, told))
}

/// Replaces the metadata of a file, where its file system keeps any.
fn describe(file: &OwnedFd, metadata: &Map<String, Value>) -> Result<(), Errno> {
    for name in entry::attributes(file) {
        fs::fremovexattr(file, &*name)?;
    }
    for (key, value) in metadata {
        let name = format!("{ATTRIBUTE}{key}");
        let value = value.as_str().unwrap_or_default();
        match fs::fsetxattr(file, &*name, value.as_bytes(), XattrFlags::empty()) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// What the head says about the file.
fn metadata(headers: &HeaderMap) -> Result<Map<String, Value>, Failure> {
    let mut found = Map::new();
    let mut total = 0;
    for (name, value) in headers {
        let Some(key) = name.as_str().strip_prefix("x-metadata-") else {
            continue;
        };
        let printable = |byte: &u8| (0x20..0x7f).contains(byte);
        let text = value
            .to_str()
            .ok()
            .filter(|text| text.as_bytes().iter().all(printable));
        let text = text.ok_or_else(|| Failure::invalid("metadata is printable ASCII"))?;
        total += key.len() + text.len();
        if key.is_empty() || key.len() > KEY_MAX || total > METADATA_MAX {
            let why = format!(
                "keys of metadata have at most {KEY_MAX} bytes, and all of it {METADATA_MAX}"
            );
            return Err(Failure::invalid(why));
        }
        found.insert(key.to_owned(), text.into());
    }
    Ok(found)
}

fn written(path: &str, error: &io::Error) -> Failure {
    let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
    Failure::errno(path, errno)
}

/// Puts the content of a request into the files that it names.
pub(super) async fn answer(live: &Live, request: Request<Incoming>) -> Result<Answer, Failure> {
    let (head, mut body) = request.into_parts();
    let answered = put(live, &head, &mut body).await;
    if answered.is_err() {
        connect::swallow(&mut body).await;
    }
    answered
}

async fn put(live: &Live, head: &Parts, body: &mut Incoming) -> Result<Answer, Failure> {
    let query = head.uri.query();
    let user = query::value(query, "username").unwrap_or_default();
    let user = User::named(&user, &live.serve)?;
    let path = query::value(query, "path").filter(|path| !path.is_empty());
    let metadata = metadata(&head.headers)?;
    let kind = head
        .headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let kind = kind.unwrap_or_default();
    let decoder = Decoder::of(&head.headers)?;
    let done = if kind.starts_with("multipart/form-data") {
        let parts = multipart::Parts::of_type(kind)?;
        let mut several = Several {
            user,
            parts,
            path,
            metadata,
            current: None,
            paths: BTreeSet::new(),
            done: Vec::new(),
            over: false,
        };
        receive(body, decoder, &mut several).await?;
        if !several.over {
            return Err(Failure::invalid("the request ends inside a part"));
        }
        several.done
    } else {
        let none = || Failure::invalid("the request names no path");
        let (mut single, told) = open(user, &path.ok_or_else(none)?, &metadata)?;
        receive(body, decoder, &mut single).await?;
        vec![told]
    };
    Ok(body::json(StatusCode::OK, &done))
}

async fn receive<T: Take>(
    body: &mut Incoming,
    mut decoder: Decoder,
    take: &mut T,
) -> Result<(), Failure> {
    while let Some(bytes) = connect::next_bytes(body, BODY_PATIENCE).await? {
        decoder.feed(&bytes, take).await?;
    }
    decoder.finish(take)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Compose {
    #[serde(alias = "sourcePaths")]
    source_paths: Vec<String>,
    destination: String,
    username: String,
}

/// Puts files together into one, and removes them.
pub(super) async fn compose(live: &Rc<Live>, body: Incoming) -> Result<Answer, Failure> {
    let asked: Compose = connect::single(body).await?;
    let user = User::named(&asked.username, &live.serve)?;
    if asked.source_paths.is_empty() || asked.source_paths.len() > SOURCES_MAX {
        let why = format!("there are 1 to {SOURCES_MAX} files to be put together");
        return Err(Failure::invalid(why));
    }
    let resolve = |path: &String| path::resolve(path, user.home);
    let sources: Vec<String> = asked
        .source_paths
        .iter()
        .map(resolve)
        .collect::<Result<_, _>>()?;
    let destination = path::resolve(&asked.destination, user.home)?;
    if sources.contains(&destination) {
        return Err(Failure::invalid("the destination is one of the sources"));
    }
    for source in &sources {
        // All are there before anything is written.
        user.act(|| tree::open_to_read(source))?;
    }
    let (single, told) = open(user, &destination, &Map::new())?;
    for source in &sources {
        let (file, _) = user.act(|| tree::open_to_read(source))?;
        let appended = append(&file, &single.sink.0).await;
        appended.map_err(|errno| Failure::errno(&destination, errno))?;
    }
    for source in &sources {
        tree::remove(user, source)?;
    }
    Ok(body::json(StatusCode::OK, &told))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&'static str, &str)]) -> Option<usize> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().unwrap());
        }
        metadata(&headers).ok().map(|found| found.len())
    }

    #[test]
    fn metadata_is_bounded_and_printable() {
        assert_eq!(
            read(&[("x-metadata-a", "1"), ("x-metadata-b", "2"), ("other", "3")]),
            Some(2)
        );
        assert_eq!(read(&[("x-metadata-a", "\u{e4}")]), None);
        assert_eq!(read(&[("x-metadata-a", &"x".repeat(METADATA_MAX))]), None);
        assert_eq!(read(&[("x-metadata-", "1")]), None);
    }
}
