//! `cofferdam server`: a control plane without a node, whose nodes dial in. Several may be on one database.

use crate::cli::args::{Place, ServerArgs, Up};
use crate::cli::failure::{Failure, reason};
use crate::cli::table;
use crate::compose;
use crate::config::{self, Mode, Nodes, Serving};
use crate::issuers;
use crate::keys;
use crate::node_authority::{Authority, Signed, peer_name};
use crate::replica::{self, Replica};
use crate::signals::Signals;
use crate::state::State;
use crate::tcp;
use crate::up::{carry_builds, points_from, unix_listener};
use crate::webhook::Webhook;
use api::Code;
use api::client::Token;
use model::id::ServerId;
use server::{Bypass, Door, Links, NodeDoor, NodeProof, Tls};
use service::Service;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How often the door of nodes gets a new certificate; what it shows lives for three of these.
const SIGN_EVERY: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long a database that does not answer is waited for at the start, and how often it is tried.
const DATABASE: Duration = Duration::from_secs(60);
const DATABASE_PAUSE: Duration = Duration::from_secs(1);

/// Serves until SIGTERM or Ctrl-C.
pub(crate) async fn server(place: &Place, args: &ServerArgs) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen()?;
    let path = args.config.as_ref().ok_or_else(unnamed)?;
    let Serving {
        server: config,
        mode,
        issuers,
        bypass,
    } = config::read(path)?.for_server(args.dev)?;
    let place = Place {
        state: Some(config.state.clone()),
        ..place.clone()
    };
    let state = State::of(&place)?;
    state.make()?;
    let _locked = state.lock_server()?;
    state.mark_of_server()?;
    let service = open(&state, &config, &mut signals).await?;
    service.leases_are(config.lease()?);
    bound(&service, &config).await?;
    let authority = authority_of(&state, config.nodes.as_ref(), mode)?;
    if config.database.is_some() {
        let asked = (authority.as_ref(), &*args.adopt);
        replica::check_shares(&service, &state, &config, asked).await?;
    }
    keys::ready(&service).await?;
    let webhook = config.approvals.as_ref().map(Webhook::of).transpose()?;
    let webhook = webhook.flatten();
    service.place_by(config.placement);
    let (_running, stopped) = tokio::sync::watch::channel(false);
    issuers::start(&service, issuers, &stopped)?;
    let mut doors = open_doors(&state, &service, &config, bypass).await?;
    let (id, mut address) = (replica::new_id()?, None);
    if let Some(nodes) = &config.nodes {
        let door = node_door(&id, &service, nodes, authority.as_ref()).await?;
        address = nodes.address.clone().or_else(|| address_of(nodes, &door));
        doors.push(Door::Nodes(door));
    }
    let (links, stop) = (Links::default(), CancellationToken::new());
    let replica = Replica::new(id, config.name.clone(), authority, address)?;
    replica.begin(&service).await?;
    links.ask(replica.peers(&service));
    tokio::spawn(carry_builds(
        service.clone(),
        links.clone(),
        stop.clone(),
        config.database.is_none(),
    ));
    let serving = tokio::spawn(server::serve(service.clone(), links, doors, stop.clone()));
    let (hearing, heard) = (service.clone(), stopped.clone());
    tokio::spawn(async move { hearing.hear_others(heard).await });
    let keeping = tokio::spawn(replica.keep(service.clone(), stop.clone()));
    if let Some(webhook) = webhook {
        tokio::spawn(webhook.run(service.clone(), stopped.clone()));
    }
    tokio::spawn(service::loops::run(service, stopped));
    signals.next().await;
    tracing::info!("ending; nodes go on with what they have and dial the next server");
    stop.cancel();
    drop(serving.await);
    drop(keeping.await);
    drop(std::fs::remove_file(state.socket()));
    drop(std::fs::remove_file(state.address()));
    Ok(ExitCode::SUCCESS)
}

fn unnamed() -> Failure {
    let message = "failed to serve: there is no configuration";
    Failure::new(Code::InvalidArgument, message).hint("name the file with --config")
}

/// How often it may be asked, and in the record where that is not bounded.
async fn bound(service: &Service, config: &config::Server) -> Result<(), Failure> {
    service.rates_are(config.rates);
    if config.rates.off {
        tracing::warn!("development: there are no rates, and no quota counts");
        service.limits_off_note().await.map_err(replica::said)?;
    }
    Ok(())
}

/// The logic over the database of the configuration. One that does not answer yet is waited for: it may be started with
/// this machine, or anew, and whoever starts us again at once would give up before it is there.
async fn open(
    state: &State,
    config: &config::Server,
    signals: &mut Signals,
) -> Result<Service, Failure> {
    let until = Instant::now() + DATABASE;
    let mut is_said = false;
    loop {
        let points = points_from(std::env::var("COFFERDAM_DIE_AT").ok());
        let (opening, url) = (state.clone(), config.database.clone());
        let blobs = replica::blobs_of(config, state);
        // Connecting to a database waits for it.
        let opening = tokio::task::spawn_blocking(move || {
            compose::service_on(&opening, points, url.as_deref(), &blobs)
        });
        let opened = opening.await;
        let opened = opened.map_err(|error| Failure::ours("open the database", &error))?;
        let failure = match opened {
            Err(failure) if failure.is(Code::Unavailable) && Instant::now() < until => failure,
            opened => return opened,
        };
        if !std::mem::replace(&mut is_said, true) {
            let seconds = DATABASE.as_secs();
            table::note(&format!("{failure}; it is tried for {seconds} s"));
        }
        tokio::select! {
            () = tokio::time::sleep(DATABASE_PAUSE) => {}
            signal = signals.next() => return Err(Failure::Signaled(signal)),
        }
    }
}

/// The doors of those who ask: the socket, and the port if there is one.
async fn open_doors(
    state: &State,
    service: &Service,
    config: &config::Server,
    bypass: Option<Bypass>,
) -> Result<Vec<Door>, Failure> {
    let mut doors = vec![Door::Unix(unix_listener(state)?)];
    table::note(&format!("listening on unix:{}", state.socket().display()));
    if let Some(bypass) = &bypass {
        tell_bypass(service, bypass, config).await?;
    }
    let door = tcp::door(state, &door_of(config), bypass).await;
    doors.extend(door.map_err(|failure| {
        failure.hint("correct `listen`, `tls` or `domain` of [server]; without `listen` there is only the socket")
    })?);
    Ok(doors)
}

/// That somebody comes in without a credential stands in the record before anybody does.
async fn tell_bypass(
    service: &Service,
    bypass: &Bypass,
    config: &config::Server,
) -> Result<(), Failure> {
    let Bypass { tenant, principal } = bypass;
    let listen = config.listen.map(|listen| listen.to_string());
    let listen = listen.unwrap_or_default();
    let told = service.bypass_begins(tenant, principal, &listen);
    told.await
        .map_err(|error| Failure::ours("write the bypass down", &error))?;
    tracing::warn!("development: whoever reaches the port comes in as {principal}");
    table::note(&format!(
        "development: requests without a credential are {principal}"
    ));
    Ok(())
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
        pip_index: String::new(),
        npm_registry: String::new(),
        idle_exit: None,
        driver: String::new(),
    }
}

/// Who signs what nodes and other servers believe; nobody in development, where there is nothing to believe.
fn authority_of(
    state: &State,
    nodes: Option<&Nodes>,
    mode: Mode,
) -> Result<Option<Authority>, Failure> {
    let is_wanted = nodes.is_some_and(|nodes| mode == Mode::Production || nodes.token.is_none());
    let path = state.dir().join("node-authority.json");
    let opened = is_wanted.then(|| Authority::open(&path, now_s()));
    opened.transpose()
}

/// Where other servers dial this one, where nobody says: by the first name that nodes have for it.
fn address_of(nodes: &Nodes, door: &NodeDoor) -> Option<String> {
    let (name, port) = (nodes.names.first()?, door.address()?.port());
    Some(match name.contains(':') {
        true => format!("[{name}]:{port}"),
        false => format!("{name}:{port}"),
    })
}

/// Listens for nodes, and for other servers.
async fn node_door(
    id: &ServerId,
    service: &Service,
    nodes: &Nodes,
    authority: Option<&Authority>,
) -> Result<NodeDoor, Failure> {
    let listener = TcpListener::bind(nodes.listen).await.map_err(|error| {
        let text = format!("failed to listen on {}: {}", nodes.listen, reason(&error));
        Failure::new(Code::InvalidArgument, text).hint("correct `listen` of [server.nodes]")
    })?;
    let at = listener.local_addr().unwrap_or(nodes.listen);
    let proof = match (authority, &nodes.token) {
        (None, Some(token)) => {
            tracing::warn!("development: whoever knows the token of nodes is any node");
            table::note(&format!("nodes dial http://{at}"));
            NodeProof::Shared(Token::new(token.clone()))
        }
        // A configuration without either was refused.
        (None, None) => {
            let message = "the door of nodes has neither an authority nor a token";
            return Err(Failure::new(Code::ConfigInvalid, message));
        }
        (Some(authority), _) => {
            service.node_authority_is(authority.for_nodes());
            let mut names = nodes.names.clone();
            names.push(peer_name(id));
            let tls = show(&authority.sign_door(&names, now_s())?)?;
            drop(tokio::spawn(sign_anew(
                authority.clone(),
                names,
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
mod peers_tests;
#[cfg(test)]
mod refused_tests;
#[cfg(test)]
mod tests;
