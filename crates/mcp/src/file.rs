//! Files: in a sandbox that lives on, and those that a job left.

use api::Code;
use api::client::Download;
use api::guest::{Contents, EntryKind};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use rmcp::model::ContentBlock;

use crate::answer::{Answer, Directory, Entry, FilePart, Written};
use crate::args::{self, Encoding};
use crate::bound::{PAGE_BYTES, page};
use crate::call::{Hand, known, user};
use crate::output::Part;
use crate::refusal::Refusal;
use crate::step::IMAGE_MAX_BYTES;

/// The longest content that is written: in base64 it still fits in a request.
const CONTENT_MAX_BYTES: usize = 1 << 20;
/// Entries of a directory that are told.
const ENTRIES_MAX: usize = 500;
/// Bytes of the names of those entries.
const ENTRIES_MAX_BYTES: usize = 32 * 1024;
/// Levels of directories.
const DEPTH_MAX: u32 = 5;
/// The longest image: as many bytes as have so many in base64.
const IMAGE_BYTES: usize = IMAGE_MAX_BYTES / 4 * 3;

pub(crate) async fn read(hand: &Hand<'_>, args: args::FileRead) -> Result<Answer, Refusal> {
    let user = user(args.user.as_deref())?;
    let work = async {
        let guest = hand.guest(&args.sandbox_id, user).await?;
        let contents = guest.read(&args.path).await?;
        let size = contents.size_bytes();
        part(
            Source::Sandbox(contents),
            size,
            args.path.clone(),
            args.offset,
        )
        .await
    };
    hand.unless_canceled(work).await
}

pub(crate) async fn artifact(hand: &Hand<'_>, args: args::ArtifactRead) -> Result<Answer, Refusal> {
    let id = known("job_id", &args.job_id)?;
    let work = async {
        let kept = hand.client().artifact_list(id).await?.artifacts;
        let Some(found) = kept.iter().find(|kept| kept.path == args.path) else {
            let paths: Vec<&str> = kept
                .iter()
                .take(32)
                .map(|kept| kept.path.as_str())
                .collect();
            let message = format!("the job kept no `{}`", args.path);
            let hint = match paths.as_slice() {
                [] => "it kept no files: name their paths in `artifacts` of `run`".to_owned(),
                paths => format!("it kept {}", paths.join(", ")),
            };
            return Err(Refusal::new(Code::NotFound, message).hint(hint));
        };
        let download = hand.client().artifact_get(id, &found.id).await?;
        let source = Source::Job(download);
        part(source, found.size_bytes, args.path.clone(), args.offset).await
    };
    hand.unless_canceled(work).await
}

/// Where bytes come from.
enum Source {
    Sandbox(Contents),
    Job(Download),
}

impl Source {
    async fn chunk(&mut self) -> Result<Option<Bytes>, Refusal> {
        Ok(match self {
            Self::Sandbox(contents) => contents.chunk().await?,
            Self::Job(download) => download.chunk().await?,
        })
    }

    async fn take(&mut self, skip: usize, most: usize) -> Result<Vec<u8>, Refusal> {
        let mut part = Part::from(skip, most);
        while let Some(bytes) = self.chunk().await? {
            if part.push(&bytes).is_break() {
                break;
            }
        }
        Ok(part.bytes)
    }
}

/// Shows a part of a file, or an image as a whole.
async fn part(mut source: Source, size: u64, path: String, offset: u64) -> Result<Answer, Refusal> {
    let at = usize::try_from(offset).unwrap_or(usize::MAX);
    let is_small = size <= IMAGE_BYTES as u64;
    let most = if offset == 0 && is_small && image_by_name(&path) {
        IMAGE_BYTES
    } else {
        PAGE_BYTES + 4
    };
    let bytes = source.take(at, most).await?;
    if let Some(kind) = image(&bytes).filter(|_| bytes.len() as u64 == size) {
        let text = format!("{path} is {kind}, {size} bytes");
        let part = FilePart {
            path,
            size_bytes: size,
            text: None,
            base64: None,
            image: Some(kind.to_owned()),
            next_offset: None,
        };
        let image = ContentBlock::image(BASE64_STANDARD.encode(&bytes), kind);
        return Ok(Answer::new(text, &part).with([image]));
    }
    Ok(shown(&bytes, size, path, offset))
}

/// A part of a file as text, or as base64 where it is none.
fn shown(bytes: &[u8], size: u64, path: String, offset: u64) -> Answer {
    let cut = page(bytes, 0, PAGE_BYTES);
    let end = cut.next.unwrap_or(bytes.len());
    let bytes = bytes.get(..end).unwrap_or_default();
    let next = offset.saturating_add(end as u64);
    let next_offset = (next < size && end > 0).then_some(next);
    let text = std::str::from_utf8(bytes).ok().map(str::to_owned);
    let base64 = text.is_none().then(|| BASE64_STANDARD.encode(bytes));
    let more = match next_offset {
        Some(next) => format!("\n--- {size} bytes in all; more: file with offset {next} ---"),
        None if offset > 0 => "\n--- end ---".to_owned(),
        None => String::new(),
    };
    let body = match (&text, &base64) {
        (Some(text), _) => text.clone(),
        (None, Some(base64)) => format!("(not text; in base64:)\n{base64}"),
        (None, None) => String::new(),
    };
    let value = FilePart {
        path,
        size_bytes: size,
        text,
        base64,
        image: None,
        next_offset,
    };
    Answer::new(format!("{body}{more}"), &value)
}

fn image_by_name(path: &str) -> bool {
    let ending = path.rsplit_once('.').map_or("", |(_, ending)| ending);
    let ending = ending.to_ascii_lowercase();
    ["png", "jpg", "jpeg", "gif", "webp"].contains(&ending.as_str())
}

/// What kind of image bytes are, by how they begin.
fn image(bytes: &[u8]) -> Option<&'static str> {
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        Some("image/png")
    } else if bytes.starts_with(b"\xff\xd8\xff") {
        Some("image/jpeg")
    } else if bytes.starts_with(b"GIF8") {
        Some("image/gif")
    } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        Some("image/webp")
    } else {
        None
    }
}

pub(crate) async fn write(hand: &Hand<'_>, args: args::FileWrite) -> Result<Answer, Refusal> {
    let user = user(args.user.as_deref())?;
    let bytes = decode("content", args.content, args.encoding)?;
    let size_bytes = bytes.len() as u64;
    let work = async {
        let guest = hand.guest(&args.sandbox_id, user).await?;
        let from = std::io::Cursor::new(bytes);
        Ok(guest.write(&args.path, from, Some(size_bytes)).await?)
    };
    hand.unless_canceled(work).await?;
    let written = Written {
        path: args.path,
        size_bytes,
    };
    let text = format!("wrote {size_bytes} bytes to {}", written.path);
    Ok(Answer::new(text, &written))
}

/// The bytes that an argument stands for.
pub(crate) fn decode(name: &str, content: String, encoding: Encoding) -> Result<Vec<u8>, Refusal> {
    let bytes = match encoding {
        Encoding::Text => content.into_bytes(),
        Encoding::Base64 => BASE64_STANDARD
            .decode(content)
            .map_err(|error| Refusal::argument(name, &format!("is not base64: {error}")))?,
    };
    if bytes.len() > CONTENT_MAX_BYTES {
        return Err(Refusal::argument(name, "has more than 1 MiB")
            .hint("write it in parts, or let a command in the sandbox make it"));
    }
    Ok(bytes)
}

pub(crate) async fn list(hand: &Hand<'_>, args: args::FileList) -> Result<Answer, Refusal> {
    let user = user(args.user.as_deref())?;
    let depth = args.depth.unwrap_or(1);
    if !(1..=DEPTH_MAX).contains(&depth) {
        return Err(Refusal::argument("depth", "is 1 to 5"));
    }
    let path = args.path.unwrap_or_else(|| "/home/user".to_owned());
    let work = async {
        let guest = hand.guest(&args.sandbox_id, user).await?;
        Ok(guest.list_directory(&path, depth).await?)
    };
    let entries = hand.unless_canceled(work).await?;
    Ok(directory(path.clone(), &entries))
}

/// As much of a directory as there is room for.
fn directory(path: String, entries: &[api::guest::Entry]) -> Answer {
    let mut bytes = 0;
    let told: Vec<Entry> = entries
        .iter()
        .take(ENTRIES_MAX)
        .take_while(|entry| {
            bytes += entry.path.len();
            bytes <= ENTRIES_MAX_BYTES
        })
        .map(told)
        .collect();
    let left_out = entries.len() - told.len();
    let mut lines: Vec<String> = told
        .iter()
        .map(|entry| match entry.kind.as_str() {
            "directory" => format!("{}/", entry.path),
            _ => format!("{} ({} bytes)", entry.path, entry.size_bytes),
        })
        .collect();
    if lines.is_empty() {
        lines.push(format!("{path} is empty"));
    }
    if left_out > 0 {
        lines.push(format!(
            "[... {left_out} entries left out; list a directory below ...]"
        ));
    }
    let value = Directory {
        path,
        entries: told,
        left_out: (left_out > 0).then_some(left_out),
    };
    Answer::new(lines.join("\n"), &value)
}

fn told(entry: &api::guest::Entry) -> Entry {
    let kind = match entry.kind {
        EntryKind::File => "file",
        EntryKind::Directory => "directory",
        EntryKind::Other => "other",
    };
    Entry {
        path: entry.path.clone(),
        kind: kind.to_owned(),
        size_bytes: entry.size_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(answer: Answer) -> serde_json::Value {
        answer.into_result().structured_content.unwrap()
    }

    #[test]
    fn text_is_text_in_pages_and_all_else_is_base64() {
        let long = "\u{e4}".repeat(PAGE_BYTES);
        let first = value(shown(
            &long.as_bytes()[..PAGE_BYTES + 4],
            long.len() as u64,
            "a".to_owned(),
            0,
        ));
        assert_eq!(first["next_offset"], PAGE_BYTES);
        assert_eq!(first["text"].as_str().unwrap().len(), PAGE_BYTES);
        let last = value(shown(b"end", 10, "a".to_owned(), 7));
        assert_eq!(
            (&last["text"], last.get("next_offset")),
            (&"end".into(), None)
        );
        let bytes = value(shown(b"\xff\xfe", 2, "a".to_owned(), 0));
        assert_eq!(
            (&bytes["base64"], bytes.get("text")),
            (&"//4=".into(), None)
        );
        let beyond = value(shown(b"", 2, "a".to_owned(), 9));
        assert_eq!(beyond.get("next_offset"), None);
    }

    #[test]
    fn an_image_is_known_by_how_it_begins() {
        assert_eq!(image(b"\x89PNG\r\n\x1a\nrest"), Some("image/png"));
        assert_eq!(image(b"RIFF1234WEBP"), Some("image/webp"));
        assert_eq!(image(b"RIFF"), None);
        assert!(image_by_name("a/b.JPG") && !image_by_name("png"));
    }

    #[test]
    fn a_large_directory_is_told_in_part() {
        let entry = |n: usize| api::guest::Entry {
            name: n.to_string(),
            path: format!("/home/user/{n}"),
            kind: EntryKind::File,
            size_bytes: 1,
            mode: 0o644,
            is_link: false,
        };
        let many: Vec<_> = (0..2000).map(entry).collect();
        let told = value(directory("/home/user".to_owned(), &many));
        assert_eq!(
            (told["entries"].as_array().unwrap().len(), &told["left_out"]),
            (500, &1500.into())
        );
        let empty = directory("/x".to_owned(), &[]).into_result();
        assert_eq!(empty.content[0].as_text().unwrap().text, "/x is empty");
    }
}
