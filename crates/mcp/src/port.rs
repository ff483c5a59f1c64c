//! `port`: where a port of a sandbox can be reached.

use api::Code;
use api::client::Client;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio_util::task::AbortOnDropHandle;

use crate::answer::{Address, Answer};
use crate::args;
use crate::call::{Hand, known};
use crate::refusal::Refusal;

/// Ports that one session has open.
const LISTENERS_MAX: usize = 32;
/// Connections at a time to one of them: a quarter of what a sandbox takes.
const CONNECTIONS_MAX: usize = 64;
/// After a connection could not be taken, because descriptors ran out: they come back when others end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Listeners on the loopback of this machine, which end with the session.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    open: Mutex<HashMap<(String, u16), Open>>,
}

#[derive(Debug)]
struct Open {
    here: u16,
    task: AbortOnDropHandle<()>,
}

pub(crate) async fn port(hand: &Hand<'_>, args: args::Port) -> Result<Answer, Refusal> {
    let id = known("sandbox_id", &args.sandbox_id)?;
    if args.port == 0 {
        return Err(Refusal::argument("port", "is 1 to 65535"));
    }
    let work = async {
        match hand.call.tools.listeners() {
            Some(listeners) => here(hand, listeners, id, args.port).await,
            None => by_server(hand, id, args.port).await,
        }
    };
    let address = hand.unless_canceled(work).await?;
    let text = format!("{}\nnote: {}", address.url, address.note);
    Ok(Answer::new(text, &address))
}

/// A listener of our own, which carries connections to the port.
async fn here(
    hand: &Hand<'_>,
    listeners: &Listeners,
    id: &str,
    port: u16,
) -> Result<Address, Refusal> {
    // Who is not there, and where nobody listens, is said now, and not to whoever connects.
    drop(hand.client().sandbox_port(id, port).await?);
    let here = listeners.open(hand.client(), id, port).await?;
    Ok(Address {
        url: format!("http://127.0.0.1:{here}"),
        note: "on this machine only, until this session or the sandbox ends".to_owned(),
    })
}

/// The address by which the server is found from outside.
async fn by_server(hand: &Hand<'_>, id: &str, port: u16) -> Result<Address, Refusal> {
    let reach = hand.client().sandbox_reachability(id).await?;
    let Some(found) = reach.ports.iter().find(|known| known.port == port) else {
        return Err(Refusal::new(
            Code::PortClosed,
            "nobody listens at this port",
        ));
    };
    let Some(url) = found.url.clone() else {
        let message = "the server has no TCP port through which it could be reached";
        return Err(Refusal::new(Code::Conflict, message)
            .hint("`curl` in the sandbox reaches it; a person can use `cofferdam sandbox port`"));
    };
    let needs_token = if reach.needs_traffic_token {
        "needs the header e2b-traffic-access-token; "
    } else {
        ""
    };
    let note = format!("{needs_token}for whoever knows this name, until the sandbox ends");
    Ok(Address { url, note })
}

impl Listeners {
    /// The port here that leads there; the same for the same.
    async fn open(&self, client: &Client, id: &str, port: u16) -> Result<u16, Refusal> {
        let mut open = self.open.lock().await;
        open.retain(|_, one| !one.task.is_finished());
        let key = (id.to_owned(), port);
        if let Some(there) = open.get(&key) {
            return Ok(there.here);
        }
        if open.len() >= LISTENERS_MAX {
            let message = format!("{LISTENERS_MAX} ports are open already");
            let hint = "destroy a sandbox whose ports are not needed";
            return Err(Refusal::new(Code::TooMuch, message).hint(hint));
        }
        let failed = |error: std::io::Error| {
            let message = format!("failed to listen on 127.0.0.1: {}", error.kind());
            Refusal::new(Code::Unavailable, message)
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .map_err(failed)?;
        let here = listener.local_addr().map_err(failed)?.port();
        let task = tokio::spawn(carry(listener, client.clone(), key.clone()));
        let task = AbortOnDropHandle::new(task);
        open.insert(key, Open { here, task });
        Ok(here)
    }
}

/// Carries connections until the sandbox is no more.
async fn carry(listener: TcpListener, client: Client, (id, port): (String, u16)) {
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let gone = Arc::new(tokio::sync::Notify::new());
    loop {
        // More than that wait in the queue of the kernel, which is short.
        let Ok(place) = free.clone().acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = gone.notified() => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (client, id, gone) = (client.clone(), id.clone(), gone.clone());
        drop(tokio::spawn(async move {
            if !tunnel(stream, &client, &id, port).await {
                gone.notify_one();
            }
            drop(place);
        }));
    }
}

/// Carries one connection. Says whether the sandbox may still be there.
async fn tunnel(mut here: TcpStream, client: &Client, id: &str, port: u16) -> bool {
    // Small questions and answers alternate; Nagle's algorithm would add 40 ms to each.
    drop(here.set_nodelay(true));
    match client.sandbox_port(id, port).await {
        Ok(mut inside) => {
            // How it ended is known to both ends.
            drop(tokio::io::copy_bidirectional(&mut here, &mut inside).await);
            true
        }
        Err(error) => !error.is(Code::SandboxGone) && !error.is(Code::NotFound),
    }
}
