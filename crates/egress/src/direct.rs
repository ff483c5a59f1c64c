//! What a guest asks for programs that know no proxy: whether there is a name, and a connection; and what it tells,
//! that something else was refused.
//!
//! One question on each connection: a byte that says which, the port in two bytes, the higher first, and the host
//! with its length before it, in text. The answer is one byte, and after [`YES`] to [`CONNECT`] all that follows
//! is the program's. A guest can ask for nothing here that a program could not ask the proxy for.

use crate::decide::Refusal;
use crate::dial::{Families, known, reach};
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
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Connect to the host at the port.
pub const CONNECT: u8 = 1;
/// Say whether there is such a name, and whether a connection to it could be let out. The port is 0.
pub const RESOLVE: u8 = 2;

/// As [`RESOLVE`], and whether it has an address of IPv6 that could be dialled.
pub const NAME: u8 = 3;
/// A datagram to the host at the port was refused, which is to be recorded.
pub const DATAGRAM: u8 = 4;
/// The same of a ping or of another protocol; the port is 0.
pub const OTHER: u8 = 5;

/// It is so, or the connection stands.
pub const YES: u8 = 0;
/// A rule says no.
pub const DENIED: u8 = 1;
/// Nobody knows the name.
pub const UNKNOWN: u8 = 2;
/// It came to nothing; another time it may not.
pub const FAILED: u8 = 3;
/// To [`NAME`]: it is so, and it has such an address.
pub const BOTH: u8 = 4;

/// How long a program may keep what the guest says of a name, in seconds.
pub const TTL_S: u32 = 60;

/// Serves one connection to its end.
pub(crate) async fn serve<S>(way: &Way, mut client: Reread<S>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let asked = tokio::time::timeout(HEAD_PATIENCE, ask(&mut client)).await;
    // No question, or none in time: not our guest.
    let Ok(Ok((kind, port, host))) = asked else {
        way.record(Method::Direct).denied(Reason::BadTarget.into());
        return;
    };
    let (how, has_port) = match kind {
        CONNECT => (Method::Direct, port != 0),
        DATAGRAM => (Method::Udp, true),
        OTHER => (Method::Icmp, port == 0),
        _ => (Method::Dns, port == 0),
    };
    let mut recording = way.record(how);
    let target = match Host::parse(&host) {
        Ok(host) if has_port => Target { host, port },
        Ok(_) => return refuse(client, Reason::BadTarget, recording).await,
        Err(bad) => return refuse(client, Reason::BadHost(bad), recording).await,
    };
    if how != Method::Direct {
        recording.asks(&target);
    }
    if matches!(how, Method::Udp | Method::Icmp) {
        refuse(client, Reason::NotCarried, recording).await;
    } else if how == Method::Dns {
        let found = known(way, &target.host, &mut recording).await;
        let yes = match found {
            Ok(Families::Both) if kind == NAME => BOTH,
            _ => YES,
        };
        // Whoever asked may be gone; it is recorded all the same.
        drop(say_as(&mut client, yes, &found.map(drop)).await);
    } else if way.looks_into(&target) {
        look_into(way, target, client, recording).await;
    } else {
        tunnel(way, target, client, recording).await;
    }
}

async fn refuse<S: AsyncWrite + Unpin>(mut client: S, reason: Reason, mut recording: Recording) {
    let refused = Err(recording.denied(reason.into()));
    drop(say(&mut client, &refused).await);
}

/// A connection of which only the first bytes are looked at.
async fn tunnel<S>(way: &Way, target: Target, mut client: Reread<S>, mut recording: Recording)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (answered, outside) = match reach(way, How::Tunnel, &target, &mut recording).await {
        Ok(outside) => (Ok(()), Some(outside)),
        Err(refusal) => (Err(refusal), None),
    };
    if say(&mut client, &answered).await.is_ok()
        && let Some(outside) = outside
    {
        carry(way, &target, (client, outside), &mut recording).await;
    }
}

/// A connection to a host whose requests are judged one by one, when they come.
async fn look_into<S>(way: &Way, target: Target, mut client: S, mut recording: Recording)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let begun = inspect::begin(way, &target, &mut recording);
    if say(&mut client, &begun).await.is_ok() && begun.is_ok() {
        inspect::serve(way, target, client, recording).await;
    }
}

async fn say<S: AsyncWrite + Unpin>(client: &mut S, found: &Result<(), Refusal>) -> io::Result<()> {
    say_as(client, YES, found).await
}

async fn say_as<S: AsyncWrite + Unpin>(
    client: &mut S,
    yes: u8,
    found: &Result<(), Refusal>,
) -> io::Result<()> {
    let code = found
        .as_ref()
        .map_or_else(|refusal| answer(refusal.reason), |()| yes);
    client.write_all(&[code]).await
}

async fn ask<S: AsyncRead + Unpin>(client: &mut S) -> io::Result<(u8, u16, String)> {
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let kind = client.read_u8().await?;
    if !matches!(kind, CONNECT | RESOLVE | NAME | DATAGRAM | OTHER) {
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
