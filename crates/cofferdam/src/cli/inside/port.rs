//! `cofferdam sandbox port`: a port of a sandbox on this machine's loopback.

use crate::cli::args::SandboxPort;
use crate::cli::failure::{Failure, reason};
use crate::cli::sandbox::known;
use crate::cli::table;
use crate::signals::{Signal, Signals};
use api::Code;
use api::client::Client;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Connections at a time: half of what one sandbox takes, so that its other doors stay open.
const CONNECTIONS_MAX: usize = 128;
/// After a connection could not be taken, because descriptors ran out: they come back when others end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Carries connections until a signal comes.
pub(crate) async fn port(client: &Client, args: SandboxPort) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen()?;
    // Who is not there is said now, and not to whoever connects.
    let view = client.sandbox_get(known(&args.id)?).await;
    view.map_err(crate::cli::sandbox::about(&args.id))?;
    let (inside, here) = args.ports;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, here)).await;
    let unusable = |error: std::io::Error| {
        let message = format!("failed to listen on 127.0.0.1:{here}: {}", reason(&error));
        let failure = Failure::new(Code::InvalidArgument, message);
        failure.hint(format!("name another port, or none of yours: {inside}:0"))
    };
    let listener = listener.map_err(unusable)?;
    let address = listener.local_addr().map_err(unusable)?;
    table::print(&format!("{address}\n"))?;
    // Where the server has no TCP port, there is no such address.
    if let Ok(Some(by_path)) = client
        .sandbox_reachability(&args.id)
        .await
        .map(|how| how.by_path)
    {
        table::note(&format!(
            "with the server's token also at {by_path}{inside}/"
        ));
    }
    let carrying = carry(listener, client, &args.id, inside);
    tokio::select! {
        never = carrying => match never {},
        signal = signals.next() => match signal {
            // That is how one ends this.
            Signal::Interrupt => Ok(ExitCode::SUCCESS),
            Signal::Terminate => Err(Failure::Signaled(signal)),
        },
    }
}

async fn carry(
    listener: TcpListener,
    client: &Client,
    id: &str,
    port: u16,
) -> std::convert::Infallible {
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // More than that wait in the queue of the kernel, which is short.
        let place = free.clone().acquire_owned().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let (client, id) = (client.clone(), id.to_owned());
                drop(tokio::spawn(async move {
                    if let Err(failure) = tunnel(stream, &client, &id, port).await {
                        table::complain(&failure.to_string());
                    }
                    drop(place);
                }));
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn tunnel(mut here: TcpStream, client: &Client, id: &str, port: u16) -> Result<(), Failure> {
    // Small questions and answers alternate; Nagle's algorithm would add 40 ms to each.
    drop(here.set_nodelay(true));
    let mut inside = client.sandbox_port(id, port).await?;
    // How it ended is known to both ends.
    drop(tokio::io::copy_bidirectional(&mut here, &mut inside).await);
    Ok(())
}
