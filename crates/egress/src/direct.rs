//! What a guest asks for programs that know no proxy: whether there is a name, and a connection.
//!
//! One question on each connection: a byte that says which, the port in two bytes, the higher first, and the host
//! with its length before it, in text. The answer is one byte, and after [`YES`] to [`CONNECT`] all that follows
//! is the program's. A guest can ask for nothing here that a program could not ask the proxy for.

use crate::dial::{known, reach};
use crate::host::Host;
use crate::http::HEAD_PATIENCE;
use crate::proxy::{Way, carry};
use crate::reason::Reason;
use crate::record::Method;
use crate::target::Target;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Connect to the host at the port.
pub const CONNECT: u8 = 1;
/// Say whether there is such a name, and whether a connection to it could be let out. The port is 0.
pub const RESOLVE: u8 = 2;

/// It is so, or the connection stands.
pub const YES: u8 = 0;
/// A rule says no.
pub const DENIED: u8 = 1;
/// Nobody knows the name.
pub const UNKNOWN: u8 = 2;
/// It came to nothing; another time it may not.
pub const FAILED: u8 = 3;

/// Serves one connection to its end.
pub(crate) async fn serve<S>(way: &Way, mut client: S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let asked = tokio::time::timeout(HEAD_PATIENCE, ask(&mut client)).await;
    // No question, or none in time: not our guest.
    let Ok(Ok((kind, port, host))) = asked else {
        return way.record(Method::Direct).refused(Reason::BadTarget);
    };
    let connects = kind == CONNECT;
    let how = if connects {
        Method::Direct
    } else {
        Method::Dns
    };
    let mut recording = way.record(how);
    let host = Host::parse(&host).map_err(Reason::BadHost);
    let target = match host {
        Ok(host) if connects == (port != 0) => Ok(Target { host, port }),
        Ok(_) => Err(Reason::BadTarget),
        Err(reason) => Err(reason),
    };
    let answered = match target {
        Ok(target) if connects => reach(way, &target, &mut recording).await.map(Some),
        Ok(target) => known(way, &target, &mut recording).await.map(|()| None),
        Err(reason) => {
            recording.refused(reason);
            Err(reason)
        }
    };
    let code = answered
        .as_ref()
        .map_or_else(|reason| answer(*reason), |_| YES);
    if client.write_all(&[code]).await.is_ok()
        && let Ok(Some(outside)) = answered
    {
        carry(client, outside).await;
    }
}

async fn ask<S: AsyncRead + Unpin>(client: &mut S) -> io::Result<(u8, u16, String)> {
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let kind = client.read_u8().await?;
    if !matches!(kind, CONNECT | RESOLVE) {
        return Err(bad());
    }
    let port = client.read_u16().await?;
    let mut host = vec![0; usize::from(client.read_u8().await?)];
    client.read_exact(&mut host).await?;
    Ok((kind, port, String::from_utf8(host).map_err(|_| bad())?))
}

fn answer(reason: Reason) -> u8 {
    if matches!(reason, Reason::UnknownName | Reason::BadHost(_)) {
        UNKNOWN
    } else if reason.is_denial() {
        DENIED
    } else {
        FAILED
    }
}
