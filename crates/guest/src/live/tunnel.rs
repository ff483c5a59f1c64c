//! `CONNECT host:port`: bytes both ways to whoever listens inside the sandbox.

use super::Live;
use super::body::{self, Answer};
use super::context;
use super::facts::By;
use super::failure::{Code, Failure};
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::TcpStream;

/// Tunnels at a time: as many as connections, since each has been one.
const TUNNELS_MAX: usize = super::CONNECTIONS_MAX;

/// Bytes of one direction that wait for the other end.
const BUFFER: usize = 16 * 1024;

/// On a loopback an answer comes at once, unless whoever listens takes no connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// The addresses that a name means, and no name means one that is not the sandbox's own loopback.
fn addresses(host: &str) -> &'static [IpAddr] {
    const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
    match host {
        "localhost" => &[V4, V6],
        "127.0.0.1" => &[V4],
        "::1" | "[::1]" => &[V6],
        _ => &[],
    }
}

/// Connects to the port, and gives the connection to the client.
pub(super) async fn answer(live: &Rc<Live>, request: Request<Incoming>) -> Result<Answer, Failure> {
    let target = request.uri().authority();
    let bad = || Failure::invalid("a tunnel leads to a host and a port");
    let target = target.ok_or_else(bad)?;
    let port = target.port_u16().ok_or_else(bad)?;
    let slot = live.tunnels.clone();
    if Rc::strong_count(&slot) > TUNNELS_MAX + 1 {
        let why = format!("there are {TUNNELS_MAX} tunnels already");
        return Err(Failure::new(Code::ResourceExhausted, why));
    }
    let addresses = addresses(target.host());
    if addresses.is_empty() {
        let why = format!("a tunnel leads to localhost, not to '{}'", target.host());
        return Err(Failure::new(Code::PermissionDenied, why));
    }
    // Whoever may speak to a port inside must not speak in the sandbox's name outside.
    if port == guest::message::EGRESS_PORT && live.egress.is_open() {
        let why = "that port is the sandbox's way out, and nobody's way in";
        return Err(Failure::new(Code::PermissionDenied, why));
    }
    let is_open = port == context::PORT && live.contexts.is_open();
    let stream = if is_open {
        Err(Closed::ToAll)
    } else {
        connect(addresses, port).await
    };
    let is_ours = port == context::PORT && matches!(stream, Err(Closed::ToAll));
    let closed = |_| {
        let why = format!("the sandbox is running but port is not open: {port}");
        Failure::new(Code::Unavailable, why)
    };
    let mut stream = match stream {
        Err(_) if is_ours => None,
        stream => Some(stream.map_err(closed)?),
    };
    let by = By::of(request.headers());
    let live = live.clone();
    tokio::task::spawn_local(async move {
        match (hyper::upgrade::on(request).await, &mut stream) {
            (Ok(client), Some(stream)) => {
                let mut client = TokioIo::new(client);
                // However it ended, both ends are closed now.
                drop(copy_bidirectional_with_sizes(&mut client, stream, BUFFER, BUFFER).await);
            }
            (Ok(client), None) => context::serve(live, client, by).await,
            (Err(_), _) => {} // The client is gone.
        }
        drop(slot);
    });
    Ok(body::empty(StatusCode::OK))
}

/// Why there is no connection.
#[derive(Debug)]
enum Closed {
    /// Nobody listens.
    ToAll,
    /// Somebody does, and takes no connection.
    ToUs,
}

async fn connect(addresses: &[IpAddr], port: u16) -> Result<TcpStream, Closed> {
    let mut closed = Closed::ToAll;
    for address in addresses {
        let connecting = TcpStream::connect((*address, port));
        match tokio::time::timeout(PATIENCE, connecting).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(_)) => {}
            Err(_) => closed = Closed::ToUs,
        }
    }
    Err(closed)
}
