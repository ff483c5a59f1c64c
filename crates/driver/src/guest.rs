//! Speaking with a guest: frames out, bounded frames in.

mod metrics;

pub use metrics::{Metrics, metrics};

use ::guest::message::{BadMessage, FromGuest, Serve, Stream, ToGuest, VERSION};
use ::guest::wire::{self, BadFrame, Kind};
pub use ::guest::{direct, message};
use bytes::{Bytes, BytesMut};
use hyper::header::{CONNECTION, HOST, UPGRADE};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::any::Any;
use std::fmt::Debug;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::UnixStream;

/// What a connection to a guest is made of.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + Debug + Any {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + Debug + Any> Duplex for T {}

/// A connection to a guest.
pub type GuestStream = Box<dyn Duplex>;

/// Why a connection to a guest is over.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The guest hung up: its sandbox ended, or a newer connection took over.
    #[error("read from the guest: it hung up")]
    Closed,
    /// The connection broke.
    #[error("speak with the guest")]
    Io(#[source] std::io::Error),
    /// What came was no frame.
    #[error("read a frame of the guest")]
    Frame(#[source] BadFrame),
    /// What came was no message, or ours was too long.
    #[error("read or make a message of the guest's protocol")]
    Message(#[source] BadMessage),
    /// It speaks another version of the protocol.
    #[error("speak version {VERSION} with a guest of version {theirs}")]
    Version {
        /// The guest's.
        theirs: u32,
    },
    /// It said something that has no place where it was said.
    #[error("understand what the guest said")]
    Unexpected,
}

/// What a guest sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A message.
    Message(FromGuest),
    /// Bytes of an output stream.
    Output(Stream, Bytes),
    /// Bytes of the file that was asked for.
    File(Bytes),
}

/// How much is read at once.
const READ: usize = 512 * 1024;

/// The receiving half.
#[derive(Debug)]
pub struct GuestReader {
    io: ReadHalf<GuestStream>,
    buffer: BytesMut,
}

/// The sending half.
#[derive(Debug)]
pub struct GuestWriter {
    io: WriteHalf<GuestStream>,
}

/// Divides a connection into its halves, for two tasks.
pub fn split(stream: GuestStream) -> (GuestReader, GuestWriter) {
    let (reader, writer) = tokio::io::split(stream);
    (
        GuestReader {
            io: reader,
            buffer: BytesMut::new(),
        },
        GuestWriter { io: writer },
    )
}

/// Lets the sandbox live on: after this, each new connection to its guest is HTTP/1.1, for as long as
/// it lives. May be said once, to a guest to which nothing was said before. The caller bounds the wait.
///
/// # Errors
/// [`GuestError`]; [`GuestError::Closed`] too when the guest has begun a job or serves already.
pub async fn serve(stream: GuestStream, serve: Serve) -> Result<(), GuestError> {
    let (mut reader, mut writer) = split(stream);
    let hello = ToGuest::Hello {
        version: VERSION,
        stdout: 0,
        stderr: 0,
    };
    writer.say(&hello).await?;
    match reader.next().await? {
        Incoming::Message(FromGuest::Hello {
            version: VERSION, ..
        }) => {}
        Incoming::Message(FromGuest::Hello {
            version: theirs, ..
        }) => return Err(GuestError::Version { theirs }),
        Incoming::Message(_) | Incoming::Output(..) | Incoming::File(_) => {
            return Err(GuestError::Unexpected);
        }
    }
    writer.say(&ToGuest::Serve(serve)).await?;
    match reader.next().await? {
        Incoming::Message(FromGuest::Serving) => Ok(()),
        Incoming::Message(_) | Incoming::Output(..) | Incoming::File(_) => {
            Err(GuestError::Unexpected)
        }
    }
}

/// Brings a line for a client of the sandbox's way out, on a connection of its own. The guest opens the way
/// with the first one. The caller bounds the wait.
///
/// # Errors
/// [`GuestError`]; [`GuestError::Unexpected`] when the guest cannot open it.
pub async fn egress_line(stream: GuestStream) -> Result<EgressLine, GuestError> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // Ends with the switch; or, where there is none, with the sender.
    drop(tokio::spawn(connection.with_upgrades()));
    let head = Request::get(message::EGRESS_PATH)
        .header(HOST, "guest")
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, message::EGRESS_PROTOCOL);
    let request = head.body(http_body_util::Empty::<Bytes>::new());
    let request = request.map_err(|_| GuestError::Unexpected)?;
    let answer = sender.send_request(request).await.map_err(broken)?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(GuestError::Unexpected);
    }
    let upgraded = hyper::upgrade::on(answer).await.map_err(broken)?;
    let parts = upgraded.downcast::<TokioIo<GuestStream>>();
    let parts = parts.map_err(|_| GuestError::Unexpected)?;
    Ok(EgressLine {
        first: parts.read_buf,
        io: parts.io.into_inner(),
    })
}

/// Adds variables to what each process of a sandbox that lives on finds in its environment from now on, unless it
/// has them already. The connection is used up.
///
/// # Errors
/// [`GuestError`]; [`GuestError::Unexpected`] when the guest does not take them.
pub async fn add_env(stream: GuestStream, env: Vec<(String, String)>) -> Result<(), GuestError> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // Ends with the sender.
    drop(tokio::spawn(connection));
    let body = serde_json::to_vec(&env).map_err(|_| GuestError::Unexpected)?;
    let head = Request::post(message::ENV_PATH).header(HOST, "guest");
    let request = head.body(http_body_util::Full::new(Bytes::from(body)));
    let request = request.map_err(|_| GuestError::Unexpected)?;
    let answer = sender.send_request(request).await.map_err(broken)?;
    if answer.status() == StatusCode::NO_CONTENT {
        Ok(())
    } else {
        Err(GuestError::Unexpected)
    }
}

fn broken(error: hyper::Error) -> GuestError {
    GuestError::Io(std::io::Error::other(error))
}

/// A connection that waits for a client inside.
#[derive(Debug)]
pub struct EgressLine {
    /// What came with the answer to the request.
    first: Bytes,
    io: GuestStream,
}

impl EgressLine {
    /// Waits until somebody inside has it; what it reads and writes then is theirs.
    ///
    /// # Errors
    /// [`GuestError::Closed`] when the sandbox has ended.
    pub async fn client(self) -> Result<EgressClient, GuestError> {
        let EgressLine { mut first, mut io } = self;
        let who = match first.split_to(first.len().min(1)).first() {
            Some(who) => *who,
            None => io.read_u8().await.map_err(|_| GuestError::Closed)?,
        };
        match who {
            message::EGRESS_CLIENT => Ok(EgressClient::Proxied(first, io)),
            message::EGRESS_DIRECT => Ok(EgressClient::Direct(first, io)),
            _ => Err(GuestError::Unexpected),
        }
    }
}

/// Who has a line, with the first bytes of it that were read already.
#[derive(Debug)]
pub enum EgressClient {
    /// A program that speaks to a proxy.
    Proxied(Bytes, GuestStream),
    /// The guest, for a program that does not.
    Direct(Bytes, GuestStream),
}

/// The socket that the connection is, if it is one.
///
/// # Errors
/// The connection as it was, where it is none.
pub fn socket(stream: GuestStream) -> Result<UnixStream, GuestStream> {
    let any: &dyn Any = &*stream;
    if !any.is::<UnixStream>() {
        return Err(stream);
    }
    let any: Box<dyn Any> = stream;
    Ok(*any.downcast().expect("its type was looked at"))
}

impl GuestReader {
    /// The next frame. Safe to drop while it waits: nothing read is lost.
    ///
    /// # Errors
    /// [`GuestError`]; the connection is over then.
    pub async fn next(&mut self) -> Result<Incoming, GuestError> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(frame);
            }
            // Room for whole frames, so that output is not read in crumbs.
            self.buffer.reserve(READ);
            match self.io.read_buf(&mut self.buffer).await {
                Ok(0) => return Err(GuestError::Closed),
                Ok(_) => {}
                Err(error) => return Err(GuestError::Io(error)),
            }
        }
    }

    fn take(&mut self) -> Result<Option<Incoming>, GuestError> {
        let Some(head) = self.buffer.first_chunk::<{ wire::HEAD }>() else {
            return Ok(None);
        };
        let (kind, len) = wire::parse_head(*head).map_err(GuestError::Frame)?;
        if self.buffer.len() < wire::HEAD + len {
            return Ok(None);
        }
        let mut frame = self.buffer.split_to(wire::HEAD + len).freeze();
        let payload = frame.split_off(wire::HEAD);
        match kind {
            Kind::Control => {
                let message = message::parse(&payload).map_err(GuestError::Message)?;
                Ok(Some(Incoming::Message(message)))
            }
            Kind::Stdout => Ok(Some(Incoming::Output(Stream::Stdout, payload))),
            Kind::Stderr => Ok(Some(Incoming::Output(Stream::Stderr, payload))),
            Kind::File => Ok(Some(Incoming::File(payload))),
            Kind::Stdin => Err(GuestError::Frame(BadFrame::UnknownKind(kind.byte()))),
        }
    }
}

impl GuestWriter {
    /// Sends a message.
    ///
    /// # Errors
    /// [`GuestError`] when it is too long or the connection broke.
    pub async fn say(&mut self, message: &ToGuest) -> Result<(), GuestError> {
        let frame = message::frame(message).map_err(GuestError::Message)?;
        self.io.write_all(&frame).await.map_err(GuestError::Io)
    }

    /// Sends bytes of the standard input. The caller keeps within the guest's window.
    ///
    /// # Errors
    /// [`GuestError`] when the connection broke.
    pub async fn stdin(&mut self, bytes: &[u8]) -> Result<(), GuestError> {
        self.bytes(Kind::Stdin, bytes).await
    }

    /// Sends bytes of the file that was announced.
    ///
    /// # Errors
    /// [`GuestError`] when the connection broke.
    pub async fn file(&mut self, bytes: &[u8]) -> Result<(), GuestError> {
        self.bytes(Kind::File, bytes).await
    }

    async fn bytes(&mut self, kind: Kind, bytes: &[u8]) -> Result<(), GuestError> {
        for piece in bytes.chunks(wire::FRAME_MAX) {
            let head = wire::head(kind, piece.len());
            self.io.write_all(&head).await.map_err(GuestError::Io)?;
            self.io.write_all(piece).await.map_err(GuestError::Io)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_arrive_whole_however_they_are_cut() {
        let (ours, mut theirs) = tokio::io::duplex(7);
        let (mut reader, _writer) = split(Box::new(ours));
        let send = tokio::spawn(async move {
            theirs
                .write_all(&wire::head(Kind::Stdout, 10))
                .await
                .unwrap();
            theirs.write_all(b"0123456789").await.unwrap();
            theirs
                .write_all(&message::frame(&FromGuest::PutDone).unwrap())
                .await
                .unwrap();
        });
        let bytes = Bytes::from_static(b"0123456789");
        assert_eq!(
            reader.next().await.unwrap(),
            Incoming::Output(Stream::Stdout, bytes)
        );
        assert_eq!(
            reader.next().await.unwrap(),
            Incoming::Message(FromGuest::PutDone)
        );
        send.await.unwrap();
        assert!(matches!(reader.next().await, Err(GuestError::Closed)));
    }

    #[tokio::test]
    async fn a_hostile_length_is_refused_before_it_is_allocated() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let (mut reader, _writer) = split(Box::new(ours));
        theirs
            .write_all(&[0, 0, 0, 0, 255, 255, 255, 255])
            .await
            .unwrap();
        assert!(matches!(
            reader.next().await,
            Err(GuestError::Frame(BadFrame::TooLong(_)))
        ));
    }
}
