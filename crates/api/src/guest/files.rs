//! Files of a sandbox, read and written from inside it by its guest.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use tokio::io::AsyncRead;

use super::error::plain;
use super::line::{Patience, Rest, empty};
use super::{ANSWER_DEADLINE, Guest, GuestError};
use crate::client::STALL_DEADLINE;
use crate::client::body::RequestBody;
use crate::routes;

/// How contents are typed that are one file's.
const CONTENTS_TYPE: &str = "application/octet-stream";

/// A file of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its last name, without control characters.
    pub name: String,
    /// Its absolute path, without control characters.
    pub path: String,
    /// What it is; of a link, what it leads to.
    pub kind: EntryKind,
    /// How long it is.
    pub size_bytes: u64,
    /// Its permissions, the lower nine bits.
    pub mode: u32,
    /// It is a link.
    pub is_link: bool,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Anything else, and a link that leads nowhere.
    Other,
}

impl Guest {
    /// The bytes of a regular file, or of what a link leads to.
    ///
    /// # Errors
    /// [`GuestError`]; `Refused` with `not_found`, or `invalid_argument` for a directory.
    pub async fn read(self, path: &str) -> Result<Contents, GuestError> {
        let path = self.files_path(path);
        let request = self.request(Method::GET, &path, CONTENTS_TYPE, empty())?;
        let sending = tokio::time::timeout(ANSWER_DEADLINE, self.send(request));
        let answer = sending
            .await
            .map_err(|_| GuestError::Late(ANSWER_DEADLINE))??;
        let body = answer.into_body();
        // Without a length, a file that was cut off looks like a whole one.
        let no_length = || GuestError::Protocol("contents without a length".to_owned());
        let left = body.size_hint().exact().ok_or_else(no_length)?;
        Ok(Contents {
            body,
            size_bytes: left,
            left,
        })
    }

    /// Puts bytes into a file, which is made with its directories or replaced. With a size, the reader
    /// must yield exactly so many; the guest's own quota bounds what has none.
    ///
    /// # Errors
    /// [`GuestError`]; `Refused` with `resource_exhausted` when there is no room, `Source` when the
    /// reader fails or ends early. What was there before may be gone then.
    pub async fn write(
        self,
        path: &str,
        from: impl AsyncRead + Send + 'static,
        size_bytes: Option<u64>,
    ) -> Result<(), GuestError> {
        let path = self.files_path(path);
        let body = RequestBody::reader(from, size_bytes);
        let body = body.map_err(Into::into).boxed_unsync();
        let request = self.request(Method::POST, &path, CONTENTS_TYPE, body)?;
        let IgnoredAny = self.json(request, Patience::USUAL.head).await?;
        Ok(())
    }

    fn files_path(&self, path: &str) -> String {
        let query = [
            ("path", Some(path.to_owned())),
            ("username", self.user.clone()),
        ];
        format!("/files{}", routes::query(&query))
    }

    /// What is at a path.
    ///
    /// # Errors
    /// [`GuestError`]; `Refused` with `not_found`.
    pub async fn stat(self, path: &str) -> Result<Entry, GuestError> {
        let stat: Stat = self.of_path("Stat", &json!({"path": path})).await?;
        Ok(stat.entry.entry())
    }

    /// What is in a directory, and `depth - 1` levels below it.
    ///
    /// # Errors
    /// [`GuestError`]; `Refused` with `not_found`, or `invalid_argument` for what is no directory.
    pub async fn list_directory(self, path: &str, depth: u32) -> Result<Vec<Entry>, GuestError> {
        let message = json!({"path": path, "depth": depth});
        let listing: Listing = self.of_path("ListDir", &message).await?;
        Ok(listing.entries.into_iter().map(Said::entry).collect())
    }

    /// Makes a directory and those above it.
    ///
    /// # Errors
    /// [`GuestError`]; `Refused` with `already_exists`.
    pub async fn make_directory(self, path: &str) -> Result<(), GuestError> {
        let IgnoredAny = self.of_path("MakeDir", &json!({"path": path})).await?;
        Ok(())
    }

    /// Takes away what is at a path, with all that is in it.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn remove(self, path: &str) -> Result<(), GuestError> {
        let IgnoredAny = self.of_path("Remove", &json!({"path": path})).await?;
        Ok(())
    }

    async fn of_path<T: serde::de::DeserializeOwned>(
        self,
        method: &str,
        message: &Value,
    ) -> Result<T, GuestError> {
        let method = format!("/filesystem.Filesystem/{method}");
        self.call(&method, message, ANSWER_DEADLINE).await
    }
}

/// The bytes of a file, as they come.
#[derive(Debug)]
pub struct Contents {
    body: Rest<()>,
    size_bytes: u64,
    left: u64,
}

impl Contents {
    /// How many bytes there are. The guest says so, and gives no more and no fewer without an error; how
    /// many of them anybody wants is not its decision.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// The next bytes; `None` after the last.
    ///
    /// # Errors
    /// `Late` when nothing comes for [`STALL_DEADLINE`], `Closed` when it ends before its length. Then
    /// what was read is not the whole.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, GuestError> {
        const LATE: Duration = STALL_DEADLINE;
        let deadline = tokio::time::Instant::now() + LATE;
        while self.left > 0 {
            let frame = tokio::time::timeout_at(deadline, self.body.frame()).await;
            let frame = frame.map_err(|_| GuestError::Late(LATE))?;
            let Some(Ok(frame)) = frame else {
                return Err(GuestError::Closed);
            };
            if let Ok(bytes) = frame.into_data() {
                self.left = self.left.saturating_sub(bytes.len() as u64);
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Stat {
    entry: Said,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Listing {
    entries: Vec<Said>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Said {
    name: String,
    path: String,
    r#type: String,
    #[serde(deserialize_with = "number")]
    size: u64,
    mode: u32,
    is_symlink: bool,
}

/// A long number, which JSON from Protocol Buffers has as a text.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let value = Value::deserialize(from)?;
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
    number.ok_or_else(|| serde::de::Error::custom("has a size that is no number"))
}

impl Said {
    fn entry(self) -> Entry {
        Entry {
            name: plain(&self.name),
            path: plain(&self.path),
            kind: match self.r#type.as_str() {
                "FILE_TYPE_FILE" => EntryKind::File,
                "FILE_TYPE_DIRECTORY" => EntryKind::Directory,
                _ => EntryKind::Other,
            },
            size_bytes: self.size,
            mode: self.mode & 0o777,
            is_link: self.is_symlink,
        }
    }
}
