//! What passes through a tunnel: the first bytes of the client are looked at, the rest is carried.

use crate::decide::Refusal;
use crate::greeting::{self, Greeting};
use crate::http::HEAD_PATIENCE;
use crate::outside::Outside;
use crate::proxy::Way;
use crate::reason::Reason;
use crate::record::Recording;
use crate::target::Target;
use crate::traffic::{Counted, Reread};
use bytes::BytesMut;
use model::network::{How, NetworkRules};
use std::any::Any;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::Instant;

/// Bytes of one direction that are carried at once.
const CARRY_BYTES: usize = 64 * 1024;

/// A fatal alert, `access_denied`: RFC 8446 section 6. Who greeted in TLS learns that it was not the other side
/// that broke.
const ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

/// Carries bytes both ways until both ends have closed, one is broken, neither says anything, or the rules do not
/// allow it any more.
pub(crate) async fn carry<S>(
    way: &Way,
    target: &Target,
    (mut client, mut outside): (Reread<S>, Counted<Outside>),
    recording: &mut Recording,
) where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let traffic = outside.traffic.clone();
    let carrying = async {
        match greet(way, target, &mut client, &mut outside).await {
            Err(Some(refusal)) => {
                if matches!(refusal.reason, Reason::Rules(_) | Reason::BadGreeting) {
                    drop(client.write_all(&ALERT).await);
                }
                Some(refusal)
            }
            Err(None) => None,
            Ok(said) => {
                tokio::select! {
                    copied = copy(way, client, outside) => {
                        drop(copied);
                        None
                    }
                    refusal = cut(way, target, &said) => Some(refusal),
                }
            }
        }
    };
    let refusal = tokio::select! {
        refused = carrying => refused,
        () = traffic.idle() => None,
        refusal = way.cut(How::Tunnel, target, recording.address(), None) => Some(refusal),
    };
    if let Some(refusal) = refusal {
        recording.denied(refusal);
    }
}

/// Carries what nobody looks at: in the kernel where both ends are sockets, as they are but for drivers without
/// any, and where a proxy is spoken to in TLS.
async fn copy<S>(way: &Way, client: Reread<S>, mut outside: Counted<Outside>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let Reread { first, mut io } = client;
    outside.write_all(&first).await?;
    outside.flush().await?;
    let client = (&io as &dyn Any).downcast_ref::<UnixStream>();
    if let Some((client, outside)) = client.zip(outside.bare()) {
        return relay::both(client, &outside, way.pipes()).await;
    }
    let (there, back) = (CARRY_BYTES, CARRY_BYTES);
    let copying = tokio::io::copy_bidirectional_with_sizes(&mut io, &mut outside, there, back);
    copying.await.map(drop)
}

/// Passes on what the client says first once it was looked at, and says what it was. Meanwhile the other side may
/// speak: in many protocols it is first. An error without a reason is the end of one of them.
async fn greet<S>(
    way: &Way,
    target: &Target,
    client: &mut S,
    outside: &mut Counted<Outside>,
) -> Result<Greeting, Option<Refusal>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut first = BytesMut::new();
    let mut back = BytesMut::new();
    // Of the first, what the other side has already: a word, in a protocol in which it has to answer that.
    let mut passed = 0;
    let mut until = None;
    let ended = |_: io::Error| None;
    loop {
        let said = greeting::read(&first);
        if said != Greeting::Unfinished {
            judge(&way.rules(), target, &said)?;
            let rest = first.split_off(passed);
            outside.write_all(&rest).await.map_err(ended)?;
            outside.flush().await.map_err(ended)?;
            return Ok(said);
        }
        if greeting::says_nothing_yet(&first) {
            let rest = first.get(passed..).unwrap_or_default();
            outside.write_all(rest).await.map_err(ended)?;
            outside.flush().await.map_err(ended)?;
            passed = first.len();
        }
        if passed < first.len() && until.is_none() {
            until = Some(Instant::now() + HEAD_PATIENCE);
        }
        let patience = async {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        first.reserve(greeting::BYTES_MAX / 8);
        back.reserve(CARRY_BYTES);
        tokio::select! {
            read = client.read_buf(&mut first) => if read.map_err(ended)? == 0 {
                // It has nothing to say, and the other side may still answer. Half of a greeting is none: a server
                // that is content with it would have read what nobody has judged.
                return match passed == first.len() {
                    true => Ok(Greeting::Other),
                    false => Err(Some(Reason::BadGreeting.into())),
                };
            },
            read = outside.read_buf(&mut back) => {
                if read.map_err(ended)? == 0 {
                    return Err(None);
                }
                client.write_all_buf(&mut back).await.map_err(ended)?;
            }
            () = patience => return Err(Some(Reason::BadGreeting.into())),
        }
    }
}

/// Waits until the rules do not let such a greeting pass any more, and says why.
async fn cut(way: &Way, target: &Target, said: &Greeting) -> Refusal {
    let mut news = way.news();
    loop {
        let rules = news.borrow_and_update().rules.clone();
        if let Err(refusal) = judge(&rules, target, said) {
            return refusal;
        }
        if news.changed().await.is_err() {
            // The sender is in the way, which is borrowed here.
            return Reason::Internal.into();
        }
    }
}

fn judge(rules: &NetworkRules, target: &Target, said: &Greeting) -> Result<(), Refusal> {
    let hello = match said {
        Greeting::Unfinished | Greeting::Other => return Ok(()),
        Greeting::Bad => return Err(Reason::BadGreeting.into()),
        Greeting::Tls(hello) => hello,
        Greeting::Clear(host) if *host == target.host => return Ok(()),
        Greeting::Clear(_) => return Err(Reason::HostMismatch.into()),
    };
    let mut verdict = rules.greeting(&target.host, target.port, hello.name.as_ref());
    if hello.hides && verdict.is_allowed() {
        verdict = rules.hiding(&target.host, target.port);
    }
    Refusal::of(&verdict).map_or(Ok(()), Err)
}
