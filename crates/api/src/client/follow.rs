//! Streams of server-sent events that are followed to their end, or on from where a connection broke.

use http::Method;
use http::header::{ACCEPT, HeaderValue};

use super::body::Download;
use super::sse::SseParser;
use super::{Client, ClientError};

/// What an event of a stream says.
pub(super) enum Told<E> {
    /// Something, with its number.
    One(E, u64),
    /// That it is the last.
    End(E),
}

/// Reads an event by its name and its data; nothing where a newer server has sent it.
type Read<E> = fn(&str, &str) -> serde_json::Result<Option<Told<E>>>;

/// What is being followed.
#[derive(Debug)]
pub struct Follow<E> {
    client: Client,
    download: Download,
    parser: SseParser,
    last_seq: Option<u64>,
    ended: bool,
    read: Read<E>,
}

impl Client {
    /// Follows what is behind a path, from that number on.
    pub(super) async fn follow<E>(
        &self,
        path: String,
        after: Option<u64>,
        read: Read<E>,
    ) -> Result<Follow<E>, ClientError> {
        let mut call = self.call(Method::GET, path);
        call.headers = vec![(ACCEPT, HeaderValue::from_static("text/event-stream"))];
        let download = self.download(call).await?;
        Ok(Follow {
            client: self.clone(),
            download,
            parser: SseParser::default(),
            last_seq: after,
            ended: false,
            read,
        })
    }
}

impl<E> Follow<E> {
    /// Where to follow on (as `after`) when the connection broke.
    #[must_use]
    pub fn last_seq(&self) -> Option<u64> {
        self.last_seq
    }

    /// What happens next; `None` when the stream is over. Over without an event that says so means that the server
    /// went away: follow again from [`Self::last_seq`].
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn next(&mut self) -> Result<Option<E>, ClientError> {
        while !self.ended {
            if let Some(event) = self.parser.next_event() {
                let told = (self.read)(&event.name, &event.data);
                match told
                    .map_err(|error| self.client.protocol(format!("an event that {error}")))?
                {
                    Some(Told::One(one, seq)) => {
                        self.last_seq = Some(seq);
                        return Ok(Some(one));
                    }
                    Some(Told::End(end)) => {
                        self.ended = true;
                        return Ok(Some(end));
                    }
                    None => continue,
                }
            }
            let Some(bytes) = self.download.chunk().await? else {
                break;
            };
            if !self.parser.push(&bytes) {
                return Err(self.client.protocol("an event of unreasonable size"));
            }
        }
        Ok(None)
    }
}
