//! `GET /health` for programs inside, which wait at the port of the contexts until there are some.
//!
//! Nothing else is answered here: a program of the workload runs code by running it.

use super::super::body::{self, Answer, Body};
use super::super::{ACCEPT_PAUSE, HEAD_MAX, HEAD_PATIENCE, Live};
use super::PORT;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Those who ask at a time. The kernel's queue holds the rest.
const ASKERS_MAX: usize = 8;

/// Opens the port, once. A sandbox in which that cannot be has none, and its contexts all the same.
pub(super) fn listen(live: &Rc<Live>) {
    if live.contexts.is_open() {
        return;
    }
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
    let bound = std::net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    });
    if let Ok(listener) = bound {
        live.contexts.is_open.set(true);
        tokio::task::spawn_local(accept(listener));
    }
}

async fn accept(listener: TcpListener) {
    let free = Arc::new(Semaphore::new(ASKERS_MAX));
    loop {
        // The semaphore is never closed.
        let held = free.clone().acquire_owned().await.ok();
        match listener.accept().await {
            Ok((asker, _)) => {
                tokio::task::spawn_local(async move {
                    serve(asker).await;
                    drop(held);
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn serve(asker: TcpStream) {
    let service = service_fn(async |request| Ok::<_, Infallible>(answer(&request)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(HEAD_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(asker), service);
    // One who is slow to take a line takes it within the time of a head, or not.
    drop(tokio::time::timeout(HEAD_PATIENCE, connection).await);
}

fn answer(request: &Request<Incoming>) -> Answer {
    let (status, said) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/health") => (StatusCode::OK, "OK"),
        _ => (
            StatusCode::NOT_FOUND,
            "from inside the sandbox there is only GET /health here",
        ),
    };
    body::of_type(
        status,
        "text/plain; charset=utf-8",
        Body::Whole(Some(said.into())),
    )
}
