//! A SOCKS5 proxy outside, RFC 1928, that whatever is let out leaves through. What was decided and checked here is
//! what it is asked for: an address, never a name, so that it resolves nothing.
//!
//! Where it fails, nothing leaves by another way.

pub(crate) mod secure;

use crate::reason::Reason;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use zeroize::Zeroizing;

/// How long it may take to say whether it has connected: it tries for as long as we would.
const PATIENCE: Duration = Duration::from_secs(15);

const VERSION: u8 = 5;
const NO_LOGIN: u8 = 0;
/// RFC 1929.
const LOGIN: u8 = 2;

/// A password, which is shown to nobody.
#[derive(Clone)]
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    /// One of 1 to 255 bytes, RFC 1929.
    pub fn new(bytes: &[u8]) -> Option<Password> {
        (1..=255)
            .contains(&bytes.len())
            .then(|| Password(Zeroizing::new(bytes.to_vec())))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// Asks it for a connection to this address.
pub(crate) async fn ask<S>(
    stream: &mut S,
    to: SocketAddr,
    login: Option<(&str, &Password)>,
) -> Result<(), Reason>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let asked = tokio::time::timeout(PATIENCE, speak(stream, to, login)).await;
    match asked {
        Ok(Ok(0)) => Ok(()),
        // RFC 1928 section 6: these are about the host that was asked for.
        Ok(Ok(3..=5)) => Err(Reason::Unreachable),
        Ok(Ok(6)) => Err(Reason::ConnectTimeout),
        Ok(Ok(_) | Err(_)) | Err(_) => Err(Reason::Upstream),
    }
}

async fn speak<S>(
    stream: &mut S,
    to: SocketAddr,
    login: Option<(&str, &Password)>,
) -> io::Result<u8>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let offered = if login.is_some() { LOGIN } else { NO_LOGIN };
    stream.write_all(&[VERSION, 1, offered]).await?;
    stream.flush().await?;
    if (stream.read_u8().await?, stream.read_u8().await?) != (VERSION, offered) {
        return Err(bad());
    }
    if let Some((user, Password(password))) = login {
        let length = |bytes: usize| u8::try_from(bytes).map_err(|_| bad());
        let mut message = Zeroizing::new(vec![1, length(user.len())?]);
        message.extend_from_slice(user.as_bytes());
        message.push(length(password.len())?);
        message.extend_from_slice(password);
        stream.write_all(&message).await?;
        stream.flush().await?;
        if (stream.read_u8().await?, stream.read_u8().await?) != (1, 0) {
            return Err(bad());
        }
    }
    let mut request = vec![VERSION, 1, 0];
    match to {
        SocketAddr::V4(to) => {
            request.push(1);
            request.extend_from_slice(&to.ip().octets());
        }
        SocketAddr::V6(to) => {
            request.push(4);
            request.extend_from_slice(&to.ip().octets());
        }
    }
    request.extend_from_slice(&to.port().to_be_bytes());
    stream.write_all(&request).await?;
    stream.flush().await?;
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let [version, code, _, kind] = head;
    // Whence it connects is of no use to us, but what follows it is the other side's.
    let length = match kind {
        1 => 4,
        4 => 16,
        3 => usize::from(stream.read_u8().await?),
        _ => return Err(bad()),
    };
    let mut bound = vec![0; length + 2];
    stream.read_exact(&mut bound).await?;
    if version == VERSION {
        Ok(code)
    } else {
        Err(bad())
    }
}
