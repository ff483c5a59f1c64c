//! Names that programs ask for: over UDP, as the system's resolver does, and over TCP.

use super::Tun;
use super::ask::{self, Said};
use super::dns::{self, Code, Found};
use super::packet;
use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::OnceCell;

/// Questions at a time, of which the node answers eight at once. More are not answered; programs ask again.
const QUESTIONS_MAX: usize = 128;

/// Connections over which questions come, at a time: programs use them for answers that are long, and there are
/// none.
pub(super) const ASKERS_MAX: usize = 16;

/// How long such a connection may say nothing.
const ASKER_PATIENCE: Duration = Duration::from_secs(10);

/// The longest question over TCP in bytes; see `packet`.
const QUESTION_MAX: u16 = 1024;

/// Names that the node is being asked about, so that the two questions which every program asks at once are one.
pub(super) type Asking = HashMap<String, Rc<OnceCell<Said>>>;

/// Answers a datagram when there is an answer.
pub(super) fn answer_datagram(tun: &Rc<Tun>, from: SocketAddrV4, question: Vec<u8>) {
    if tun.questions.get() >= QUESTIONS_MAX {
        return;
    }
    tun.questions.set(tun.questions.get() + 1);
    let tun = tun.clone();
    tokio::task::spawn_local(async move {
        if let Some(answer) = answer(&tun, &question).await {
            tun.send(&packet::datagram(from, &answer));
        }
        tun.questions.set(tun.questions.get() - 1);
    });
}

/// Serves one connection, a question after the other, each with its length before it (RFC 1035 section 4.2.2).
pub(super) async fn serve(tun: &Tun, mut stream: DuplexStream) {
    loop {
        let reading = async {
            let length = stream.read_u16().await.ok()?;
            let mut question = vec![0; usize::from(length.min(QUESTION_MAX))];
            stream.read_exact(&mut question).await.ok()?;
            (length <= QUESTION_MAX).then_some(question)
        };
        let Ok(Some(question)) = tokio::time::timeout(ASKER_PATIENCE, reading).await else {
            return;
        };
        let Some(answer) = answer(tun, &question).await else {
            return;
        };
        let length = u16::try_from(answer.len()).unwrap_or(0).to_be_bytes();
        let answer = [&length[..], &answer].concat();
        let writing = tokio::time::timeout(ASKER_PATIENCE, stream.write_all(&answer));
        if !matches!(writing.await, Ok(Ok(()))) {
            return;
        }
    }
}

async fn answer(tun: &Tun, question: &[u8]) -> Option<Vec<u8>> {
    match dns::read(question) {
        Ok(question) => {
            let found = find(tun, &question.name).await;
            Some(question.answer(found))
        }
        Err(answer) => answer,
    }
}

/// The addresses of a name: the node says whether there are any, and they are given here.
async fn find(tun: &Tun, name: &str) -> Result<Found, Code> {
    // RFC 6761 section 6.3: it is never anybody else's.
    if name == "localhost" || name.ends_with(".localhost") {
        return Ok(Found {
            address: Ipv4Addr::LOCALHOST,
            address6: Some(Ipv6Addr::LOCALHOST),
        });
    }
    let known = tun.names.borrow_mut().known(name, tun.now_s());
    if let Some(found) = known {
        return Ok(found);
    }
    let asking = tun
        .asking
        .borrow_mut()
        .entry(name.to_owned())
        .or_default()
        .clone();
    let said = *asking.get_or_init(|| ask::resolve(&tun.lines, name)).await;
    tun.asking.borrow_mut().remove(name);
    match said {
        // All are used up: it is there and cannot be reached this way.
        Said::Yes | Said::Both => tun
            .names
            .borrow_mut()
            .give(name, said == Said::Both, tun.now_s())
            .ok_or(Code::Refused),
        Said::Denied => Err(Code::Refused),
        Said::Unknown => Err(Code::NoSuchName),
        Said::Failed => Err(Code::Failed),
    }
}
