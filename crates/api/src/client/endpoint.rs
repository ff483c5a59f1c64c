//! Where a server is, and dialling it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;

use crate::attach::BUFFER_BYTES;

/// Hands the server its end of a new in-memory connection.
pub type MemoryDialer = mpsc::Sender<DuplexStream>;

/// A bearer token. Its text appears in no log and no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Wraps the text of a token.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for whoever checks it or sends it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Where a server is.
#[derive(Debug, Clone)]
pub enum Endpoint {
    /// A Unix socket; the server knows us by our uid.
    Unix(PathBuf),
    /// A TCP port; the server knows us by the token.
    Tcp {
        /// `host:port`, as it is dialled and as it stands in the Host header.
        authority: String,
        /// The credential.
        token: Token,
    },
    /// A server in this process.
    Memory(MemoryDialer),
    /// A server that is dialled in a way of its own, which says who we are: TLS with a certificate.
    Dialed {
        /// `host:port`, as it stands in the Host header.
        authority: String,
        /// Opens connections.
        dialer: Arc<dyn Dial>,
        /// The credential, where the connection itself does not say who we are.
        token: Option<Token>,
    },
}

/// Opens connections to one server.
pub trait Dial: fmt::Debug + Send + Sync {
    /// Opens one.
    fn dial(&self) -> Dialing;
}

/// A connection on its way.
pub type Dialing = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>>;

/// A URL that does not name a server.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadUrl {
    /// Neither `http://` nor `unix:`.
    #[error("use `{0}` as an address: only http://host:port and unix:/path are known")]
    Scheme(String),
    /// TCP without a token.
    #[error("use `{0}` without a token")]
    TokenMissing(String),
    /// Something that cannot stand in a header, or is not `host:port`.
    #[error("use `{0}` as `host:port`")]
    Authority(String),
}

impl Endpoint {
    /// What is shown with each request.
    pub(crate) fn token(&self) -> Option<&Token> {
        match self {
            Self::Tcp { token, .. } => Some(token),
            Self::Dialed { token, .. } => token.as_ref(),
            Self::Unix(_) | Self::Memory(_) => None,
        }
    }

    /// Reads `http://host:port` or `unix:/path` (also `unix:///path`).
    ///
    /// # Errors
    /// [`BadUrl`] says what is wrong with it.
    pub fn parse(url: &str, token: Option<Token>) -> Result<Self, BadUrl> {
        if let Some(path) = url.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let Some(authority) = url.strip_prefix("http://") else {
            return Err(BadUrl::Scheme(url.to_owned()));
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let port = authority
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse::<u16>().ok());
        let parsed = authority.parse::<http::uri::Authority>();
        if port.is_none() || authority.contains('@') || parsed.is_err() {
            return Err(BadUrl::Authority(authority.to_owned()));
        }
        match token {
            Some(token) => Ok(Self::Tcp {
                authority: authority.to_owned(),
                token,
            }),
            None => Err(BadUrl::TokenMissing(url.to_owned())),
        }
    }

    /// The value of the Host header.
    pub(crate) fn host(&self) -> &str {
        match self {
            Self::Unix(_) | Self::Memory(_) => "localhost",
            Self::Tcp { authority, .. } | Self::Dialed { authority, .. } => authority,
        }
    }

    /// Opens a connection.
    pub(crate) async fn dial(&self) -> io::Result<TokioIo<Box<dyn Stream>>> {
        Ok(TokioIo::new(match self {
            Self::Unix(path) => Box::new(UnixStream::connect(path).await?),
            Self::Tcp { authority, .. } => {
                let stream = TcpStream::connect(authority).await?;
                // Small requests and answers alternate; Nagle's algorithm would add 40 ms to each.
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Self::Memory(dialer) => Box::new(dial_memory(dialer).await?),
            Self::Dialed { dialer, .. } => dialer.dial().await?,
        }))
    }
}

async fn dial_memory(dialer: &MemoryDialer) -> io::Result<DuplexStream> {
    let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
    let gone = |_| io::Error::new(io::ErrorKind::ConnectionRefused, "the server has stopped");
    dialer.send(theirs).await.map_err(gone)?;
    Ok(ours)
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { authority, .. } => write!(f, "http://{authority}"),
            Self::Memory(_) => f.write_str("the server in this process"),
            Self::Dialed { authority, .. } => write!(f, "https://{authority}"),
        }
    }
}

/// What every kind of connection can do.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_wrong_ones_say_why() {
        let token = || Some(Token::new("t"));
        let show = |url: &str, token| Endpoint::parse(url, token).map(|e| e.to_string());
        assert_eq!(
            show("http://127.0.0.1:7300/", token()),
            Ok("http://127.0.0.1:7300".into())
        );
        assert_eq!(
            show("http://[::1]:7300", token()),
            Ok("http://[::1]:7300".into())
        );
        assert_eq!(
            show("unix:///run/c.sock", None),
            Ok("unix:/run/c.sock".into())
        );
        assert_eq!(
            show("unix:/run/c.sock", None),
            Ok("unix:/run/c.sock".into())
        );
        for url in [
            "http://a b:1",
            "http://host",
            "http://u@h:1",
            "http://h:1/path",
            "http://:x",
        ] {
            assert!(
                matches!(show(url, token()), Err(BadUrl::Authority(_))),
                "{url}"
            );
        }
        assert!(matches!(
            show("https://h:1", token()),
            Err(BadUrl::Scheme(_))
        ));
        assert!(matches!(
            show("http://h:1", None),
            Err(BadUrl::TokenMissing(_))
        ));
    }

    #[test]
    fn a_token_is_not_shown() {
        assert_eq!(format!("{:?}", Token::new("secret")), "Token(..)");
    }
}
