//! `cofferdam server`: a control plane without a node, whose nodes dial in.

use crate::cli::args::{Place, ServerArgs, Up};
use crate::cli::failure::{Failure, reason};
use crate::cli::table;
use crate::compose;
use crate::config::{self, Mode, Nodes};
use crate::keys;
use crate::node_authority::{Authority, Signed};
use crate::signals::Signals;
use crate::state::State;
use crate::tcp;
use crate::up::{carry_builds, points_from, unix_listener};
use api::Code;
use api::client::Token;
use server::{Door, Links, NodeDoor, NodeProof, Tls};
use service::Service;
use std::process::ExitCode;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How often the door of nodes gets a new certificate; what it shows lives for three of these.
const SIGN_EVERY: Duration = Duration::from_secs(30 * 24 * 3600);

/// Serves until SIGTERM or Ctrl-C.
pub(crate) async fn server(place: &Place, args: &ServerArgs) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen()?;
    let (config, mode) = config::read(&args.config)?.for_server(args.dev)?;
    let place = Place {
        state: Some(config.state.clone()),
        ..place.clone()
    };
    let state = State::of(&place)?;
    state.make()?;
    let _locked = state.lock_server()?;
    state.mark_of_server()?;
    let points = points_from(std::env::var("COFFERDAM_DIE_AT").ok());
    // Connecting to a database waits for it.
    let (opening, url) = (state.clone(), config.database.clone());
    let service =
        tokio::task::spawn_blocking(move || compose::service_on(&opening, points, url.as_deref()));
    let service = service.await;
    let service = service.map_err(|error| Failure::ours("open the database", &error))??;
    keys::ready(&service).await?;
    let mut doors = vec![Door::Unix(unix_listener(&state)?)];
    table::note(&format!("listening on unix:{}", state.socket().display()));
    let door = tcp::door(&state, &door_of(&config)).await;
    doors.extend(door.map_err(|failure| {
        failure.hint("correct `listen`, `tls` or `domain` of [server]; without `listen` there is only the socket")
    })?);
    if let Some(nodes) = &config.nodes {
        doors.push(Door::Nodes(node_door(&state, &service, nodes, mode).await?));
    }
    let (links, stop) = (Links::default(), CancellationToken::new());
    tokio::spawn(carry_builds(
        service.clone(),
        links.clone(),
        stop.clone(),
        config.database.is_none(),
    ));
    let serving = tokio::spawn(server::serve(service.clone(), links, doors, stop.clone()));
    let (_running, stopped) = tokio::sync::watch::channel(false);
    tokio::spawn(service::loops::run(service, stopped));
    signals.next().await;
    tracing::info!("ending; nodes go on with what they have and dial the next server");
    stop.cancel();
    drop(serving.await);
    drop(std::fs::remove_file(state.socket()));
    drop(std::fs::remove_file(state.address()));
    Ok(ExitCode::SUCCESS)
}

/// What `up` would have been told.
fn door_of(config: &config::Server) -> Up {
    Up {
        no_listen: config.listen.is_none(),
        listen: config.listen.unwrap_or_else(|| ([127, 0, 0, 1], 0).into()),
        tls: config.tls.clone(),
        domain: config.domain.clone(),
        slots: 0,
        sandboxes: 0,
        spares: 0,
        spare_life: Duration::ZERO,
        egress_allow: Vec::new(),
        root: Vec::new(),
        egress_trust: Vec::new(),
        idle_exit: None,
        driver: String::new(),
    }
}

/// Listens for nodes.
async fn node_door(
    state: &State,
    service: &Service,
    nodes: &Nodes,
    mode: Mode,
) -> Result<NodeDoor, Failure> {
    let listener = TcpListener::bind(nodes.listen).await.map_err(|error| {
        let text = format!("failed to listen on {}: {}", nodes.listen, reason(&error));
        Failure::new(Code::InvalidArgument, text).hint("correct `listen` of [server.nodes]")
    })?;
    let at = listener.local_addr().unwrap_or(nodes.listen);
    let proof = match (mode, &nodes.token) {
        (Mode::Development, Some(token)) => {
            tracing::warn!("development: whoever knows the token of nodes is any node");
            table::note(&format!("nodes dial http://{at}"));
            NodeProof::Shared(Token::new(token.clone()))
        }
        _ => {
            let authority = Authority::open(&state.node_authority(), now_s())?;
            service.node_authority_is(authority.for_nodes());
            let tls = show(&authority.sign_door(&nodes.names, now_s())?)?;
            drop(tokio::spawn(sign_anew(
                authority,
                nodes.names.clone(),
                tls.clone(),
            )));
            table::note(&format!("nodes dial https://{at}"));
            NodeProof::Certificate(tls)
        }
    };
    Ok(NodeDoor { listener, proof })
}

fn now_s() -> u64 {
    service::Clock::system().now_ms() / 1000
}

fn show(signed: &Signed) -> Result<Tls, Failure> {
    let tls = Tls::for_nodes(signed.chain.as_bytes(), signed.key.as_bytes());
    tls.map_err(|error| Failure::ours("show a certificate to nodes", &error))
}

async fn sign_anew(authority: Authority, names: Vec<String>, tls: Tls) {
    loop {
        tokio::time::sleep(SIGN_EVERY).await;
        let signed = match authority.sign_door(&names, now_s()) {
            Ok(signed) => signed,
            Err(failure) => {
                tracing::error!(%failure, "failed to sign for the door of nodes");
                continue;
            }
        };
        if let Err(error) = tls.replace(signed.chain.as_bytes(), signed.key.as_bytes()) {
            tracing::error!(%error, "failed to show a new certificate to nodes");
        }
    }
}

#[cfg(test)]
mod tests;
