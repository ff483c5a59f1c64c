//! SOCKS5, RFC 1928: CONNECT by name or address, without a password.

use crate::dial::reach;
use crate::host::Host;
use crate::http::HEAD_PATIENCE;
use crate::proxy::{Way, carry};
use crate::reason::Reason;
use crate::record::Method;
use crate::target::Target;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The version, which is the first byte of a client.
pub(crate) const VERSION: u8 = 5;

const CONNECT: u8 = 1;
const NO_PASSWORD: u8 = 0;
const NO_METHOD: u8 = 0xff;

/// Serves one connection to its end.
pub(crate) async fn serve<S>(way: &Way, mut client: S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut recording = way.record(Method::Socks);
    let asked = tokio::time::timeout(HEAD_PATIENCE, ask(&mut client)).await;
    // No SOCKS, or none in time.
    let Ok(Ok(asked)) = asked else {
        return recording.refused(Reason::BadTarget);
    };
    let reached = match asked {
        Ok(target) => reach(way, &target, &mut recording).await,
        Err(reason) => {
            recording.refused(reason);
            Err(reason)
        }
    };
    let code = reached.as_ref().map_or_else(|reason| reply(*reason), |_| 0);
    // The address that was bound is of no use to anybody; zeros say so.
    let said = [VERSION, code, 0, 1, 0, 0, 0, 0, 0, 0];
    if client.write_all(&said).await.is_ok()
        && let Ok(outside) = reached
    {
        carry(client, outside).await;
    }
}

/// The greeting and the request. The outer error is one of the stream, the inner one has an answer.
async fn ask<S>(client: &mut S) -> io::Result<Result<Target, Reason>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let (version, count) = (client.read_u8().await?, client.read_u8().await?);
    let mut methods = vec![0; usize::from(count)];
    client.read_exact(&mut methods).await?;
    if version != VERSION {
        return Err(bad());
    }
    if !methods.contains(&NO_PASSWORD) {
        client.write_all(&[VERSION, NO_METHOD]).await?;
        return Err(bad());
    }
    client.write_all(&[VERSION, NO_PASSWORD]).await?;
    let mut head = [0; 4];
    client.read_exact(&mut head).await?;
    let [version, command, _, kind] = head;
    if version != VERSION {
        return Err(bad());
    }
    let host = match kind {
        1 => Ok(Host::of_address(
            Ipv4Addr::from_bits(client.read_u32().await?).into(),
        )),
        4 => Ok(Host::of_address(
            Ipv6Addr::from_bits(client.read_u128().await?).into(),
        )),
        3 => {
            let mut name = vec![0; usize::from(client.read_u8().await?)];
            client.read_exact(&mut name).await?;
            let name = String::from_utf8(name).map_err(|_| bad())?;
            Host::parse(&name).map_err(Reason::BadHost)
        }
        _ => return Ok(Err(Reason::BadTarget)),
    };
    let port = client.read_u16().await?;
    if command != CONNECT {
        return Ok(Err(Reason::BadCommand));
    }
    if port == 0 {
        return Ok(Err(Reason::BadTarget));
    }
    Ok(host.map(|host| Target { host, port }))
}

/// RFC 1928 section 6.
fn reply(reason: Reason) -> u8 {
    match reason {
        Reason::NoEgress | Reason::Closed(_) | Reason::OwnAddress | Reason::NameCarriesData => 2,
        Reason::UnknownName | Reason::ResolveTimeout => 4,
        Reason::Unreachable => 5,
        Reason::ConnectTimeout => 6,
        Reason::BadCommand => 7,
        Reason::BadTarget | Reason::BadHost(_) => 8,
        Reason::HostMismatch
        | Reason::BadCoding
        | Reason::BadScheme
        | Reason::TooMany
        | Reason::TooManyNames
        | Reason::BadAnswer
        | Reason::AnswerTimeout
        | Reason::Internal => 1,
    }
}
