//! The way out: clients inside connect to a port of the loopback, and each connection is handed to the node over
//! a line that the node made beforehand. Nothing here reads or judges what passes; it has no rights that the
//! workload lacks, and the judge is outside.
//!
//! The port is there from the node's first line on and stays. When the node dies, clients wait for a while for the
//! next one.

use super::body::{self, Answer};
use super::failure::{Code, Failure};
use super::{ACCEPT_PAUSE, HEAD_MAX, HEAD_PATIENCE, tun};
use crate::handed::Device;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use relay::{Pipes, Share};
use std::cell::{OnceCell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Notify, Semaphore};

/// Clients that have a line or wait for one: as many as the node serves of one sandbox, and some that wait. The
/// kernel's queue holds the rest.
const CLIENTS_MAX: usize = 1280;

/// Lines that wait for a client. The node keeps one; what is more is of nodes that have died.
const LINES_MAX: usize = 8;

/// How long a client waits for a line: longer than a node takes to be started again.
const PATIENCE: Duration = Duration::from_secs(20);

/// Pipes at a time that bytes of clients are carried in: only a direction in which bytes are under way has one,
/// so that these are more than one thread can fill. With what slow readers hold, 8 MiB.
const PIPES_MAX: usize = 32;

/// What a client gets that got no line. It is HTTP to whoever spoke HTTP, and the end to everybody else.
const NO_LINE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nx-proxy-error: egress_unavailable\r\n\
    content-type: text/plain\r\ncontent-length: 64\r\nconnection: close\r\n\r\n\
    egress failed: the sandbox's node does not answer; try it again\n";

/// Lines from the node that wait for clients.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    waiting: RefCell<VecDeque<UnixStream>>,
    more: Notify,
}

impl Lines {
    fn put(&self, line: UnixStream) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= LINES_MAX {
            waiting.pop_front();
        }
        waiting.push_back(line);
        self.more.notify_one();
    }

    /// A line whose other end was told who has it, see [`guest::message::EGRESS_CLIENT`]. One that is dead is passed over.
    pub(super) async fn take(&self, who: u8) -> UnixStream {
        loop {
            let next = self.waiting.borrow_mut().pop_front();
            match next {
                None => self.more.notified().await,
                Some(mut line) => {
                    if line.write_all(&[who]).await.is_ok() {
                        return line;
                    }
                }
            }
        }
    }
}

/// The way out, once the node has opened one.
#[derive(Debug)]
pub(crate) struct Egress {
    lines: OnceCell<Rc<Lines>>,
    /// The device of programs that know no proxy, until the way out is open.
    device: RefCell<Source>,
}

/// Where the device comes from.
#[derive(Debug)]
enum Source {
    /// The launcher may still hand it over.
    Device(Device),
    /// This, or there is none.
    Known(Option<OwnedFd>),
}

impl Egress {
    /// One that is closed yet, of a sandbox that has a device or may get one.
    pub(crate) fn new(device: Device) -> Egress {
        Egress::of(Source::Device(device))
    }

    /// The same where it is known whether there is a device.
    pub(crate) fn with(device: Option<OwnedFd>) -> Egress {
        Egress::of(Source::Known(device))
    }

    fn of(source: Source) -> Egress {
        Egress {
            lines: OnceCell::new(),
            device: RefCell::new(source),
        }
    }

    /// Whether programs inside find a port.
    pub(crate) fn is_open(&self) -> bool {
        self.lines.get().is_some()
    }
}

/// Serves one connection of the node on which it brings a line, and nothing else.
pub(crate) async fn serve_line(stream: UnixStream, egress: Rc<Egress>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let egress = egress.clone();
        async move {
            let is_line = request.uri().path() == guest::message::EGRESS_PATH;
            let answered = if is_line {
                answer(&egress, request).await
            } else {
                Err(Failure::invalid("there is nothing but lines"))
            };
            Ok::<_, Infallible>(answered.unwrap_or_else(|failure| body::refused(&failure)))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    drop(connection.await);
}

/// Takes a line from the node, and opens the port if this is the first one.
pub(super) async fn answer(egress: &Egress, request: Request<Incoming>) -> Result<Answer, Failure> {
    let wanted = request.headers().get(UPGRADE);
    if wanted.is_none_or(|wanted| wanted != guest::message::EGRESS_PROTOCOL) {
        return Err(Failure::invalid("this route is for the node"));
    }
    let lines = open(egress).await?;
    tokio::task::spawn_local(async move {
        let Ok(upgraded) = hyper::upgrade::on(request).await else {
            return;
        };
        // Both callers serve such streams. The node says nothing before it is told who has the line.
        if let Ok(parts) = upgraded.downcast::<TokioIo<UnixStream>>()
            && parts.read_buf.is_empty()
        {
            lines.put(parts.io.into_inner());
        }
    });
    let mut answer = body::empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    let protocol = HeaderValue::from_static(guest::message::EGRESS_PROTOCOL);
    headers.insert(UPGRADE, protocol);
    Ok(answer)
}

async fn open(egress: &Egress) -> Result<Rc<Lines>, Failure> {
    if let Some(lines) = egress.lines.get() {
        return Ok(lines.clone());
    }
    let address = (Ipv4Addr::LOCALHOST, guest::message::EGRESS_PORT);
    let listener = TcpListener::bind(address).await.map_err(|error| {
        let why = format!("the port of the way out cannot be opened: {error}");
        Failure::new(Code::FailedPrecondition, why)
    })?;
    // Those that come at once and have to wait: a full queue would cost them a second, when TCP asks again.
    let most = i32::try_from(CLIENTS_MAX).unwrap_or(i32::MAX);
    let _ = rustix::net::listen(&listener, most);
    let lines = Rc::<Lines>::default();
    // Of two first lines at once, only one could bind.
    drop(egress.lines.set(lines.clone()));
    tokio::task::spawn_local(accept(listener, lines.clone()));
    let device = match &mut *egress.device.borrow_mut() {
        Source::Device(device) => device.take(),
        Source::Known(device) => device.take(),
    };
    if let Some(device) = device {
        tokio::task::spawn_local(tun::serve(device, lines.clone()));
    }
    Ok(lines)
}

async fn accept(listener: TcpListener, lines: Rc<Lines>) {
    let free = Arc::new(Semaphore::new(CLIENTS_MAX));
    let share = Rc::new(Share::of(Arc::new(Pipes::new(PIPES_MAX)), PIPES_MAX));
    loop {
        // The semaphore is never closed.
        let held = free.clone().acquire_owned().await.ok();
        match listener.accept().await {
            Ok((client, _)) => {
                let (lines, share) = (lines.clone(), share.clone());
                tokio::task::spawn_local(async move {
                    carry(client, &lines, &share).await;
                    drop(held);
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn carry(mut client: TcpStream, lines: &Lines, share: &Share) {
    // Who waits for the end of a small answer would wait for the kernel.
    drop(client.set_nodelay(true));
    let taking = lines.take(guest::message::EGRESS_CLIENT);
    match tokio::time::timeout(PATIENCE, taking).await {
        // However it ended, both ends are closed now.
        Ok(line) => drop(relay::both(&client, &line, share).await),
        Err(_) => drop(client.write_all(NO_LINE).await),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_without_a_line_gets_has_the_length_that_it_says() {
        let text = std::str::from_utf8(NO_LINE).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains(&format!("content-length: {}", body.len())),
            "{}",
            body.len()
        );
    }
}
