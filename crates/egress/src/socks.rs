//! SOCKS5, RFC 1928: CONNECT by name or address, without a password.

use crate::dial::reach;
use crate::http::HEAD_PATIENCE;
use crate::inspect;
use crate::proxy::Way;
use crate::reason::Reason;
use crate::record::{Method, Recording};
use crate::target::Target;
use crate::traffic::Reread;
use crate::tunnel::carry;
use model::host::Host;
use model::network::How;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The version, which is the first byte of a client.
pub(crate) const VERSION: u8 = 5;

const CONNECT: u8 = 1;
const NO_PASSWORD: u8 = 0;
const NO_METHOD: u8 = 0xff;

/// Serves one connection to its end.
pub(crate) async fn serve<S>(way: &Way, mut client: Reread<S>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut recording = way.record(Method::Socks);
    let asked = tokio::time::timeout(HEAD_PATIENCE, ask(&mut client)).await;
    // No SOCKS, or none in time.
    let Ok(Ok(asked)) = asked else {
        recording.denied(Reason::BadTarget.into());
        return;
    };
    if let Ok(target) = &asked
        && way.looks_into(target)
    {
        return look_into(way, target.clone(), client, recording).await;
    }
    let reached = match asked {
        Ok(target) => reach(way, How::Tunnel, &target, &mut recording)
            .await
            .map(|outside| (target, outside)),
        Err(reason) => Err(recording.denied(reason.into())),
    };
    let code = reached
        .as_ref()
        .map_or_else(|refusal| reply(refusal.reason), |_| 0);
    if client.write_all(&said(code)).await.is_ok()
        && let Ok((target, outside)) = reached
    {
        carry(way, &target, (client, outside), &mut recording).await;
    }
}

/// A reply. The address that was bound is of no use to anybody; zeros say so.
fn said(code: u8) -> [u8; 10] {
    [VERSION, code, 0, 1, 0, 0, 0, 0, 0, 0]
}

/// A tunnel to a host whose requests are judged one by one, when they come.
async fn look_into<S>(way: &Way, target: Target, mut client: S, mut recording: Recording)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let begun = inspect::begin(way, &target, &mut recording);
    let code = begun
        .as_ref()
        .map_or_else(|refusal| reply(refusal.reason), |()| 0);
    if client.write_all(&said(code)).await.is_ok() && begun.is_ok() {
        inspect::serve(way, target, client, recording).await;
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
        Reason::Rules(_)
        | Reason::Closed(_)
        | Reason::OwnAddress
        | Reason::TooFast
        | Reason::TooMuch
        | Reason::ClearSecret
        | Reason::NameCarriesData
        | Reason::NotCarried
        | Reason::BadGreeting => 2,
        Reason::UnknownName | Reason::ResolveTimeout => 4,
        Reason::Unreachable => 5,
        Reason::ConnectTimeout => 6,
        Reason::BadCommand => 7,
        Reason::BadTarget | Reason::BadHost(_) => 8,
        Reason::HostMismatch
        | Reason::ClientTls
        | Reason::OutsideTls
        | Reason::BadRequest
        | Reason::BadCoding
        | Reason::BadScheme
        | Reason::TooMany
        | Reason::TooManyNames
        | Reason::BadAnswer
        | Reason::Upstream
        | Reason::AnswerTimeout
        | Reason::NotInIndex
        | Reason::IndexFailed
        | Reason::WrongDigest
        | Reason::Internal => 1,
    }
}
