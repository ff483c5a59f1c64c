//! `cofferdam node`: a node whose control plane is elsewhere.

use crate::cli::args::{NodeRun, Place};
use crate::cli::failure::Failure;
use crate::cli::table;
use crate::compose;
use crate::config::{self, Mode};
use crate::identity::{self, Identity};
use crate::reap;
use crate::roots;
use crate::signals::Signals;
use crate::state::State;
use crate::tape;
use crate::up::{check_trust, exceptions, hostname, points_from, sources, warm_up};
use api::Code;
use api::attach::LinkOpen;
use api::client::{Client, Endpoint, Token};
use driver::host::Host;
use model::id::NodeId;
use node::{Config, Node};
use std::process::ExitCode;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Streams that wait to be handed to their jobs and sandboxes.
const LINK_QUEUE: usize = 256;
/// How a node ends that was decommissioned, so that its supervisor does not start it again: `EX_CONFIG` of
/// `sysexits.h`.
const SENT_AWAY: u8 = 78;
/// How long a spare sandbox is kept unused.
const SPARE_LIFE: Duration = Duration::from_secs(600);

/// Works until SIGTERM or Ctrl-C. Sandboxes that run then are found again at the next start.
pub(crate) async fn run(place: &Place, args: &NodeRun) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen()?;
    let path = args.config.as_ref().ok_or_else(|| {
        let message = "failed to start a node: it has no configuration";
        Failure::new(Code::InvalidArgument, message).hint("name the file with --config")
    })?;
    let (config, mode) = config::read(path)?.for_node(args.dev)?;
    let (egress_allow, trust) = (
        exceptions(&config.egress_allow)?,
        config.egress_trust.clone(),
    );
    check_trust(&trust)?;
    let packages_from = sources(config.pip_index.as_ref(), config.npm_registry.as_ref())?;
    let place = Place {
        state: Some(config.state.clone()),
        ..place.clone()
    };
    let state = State::of(&place)?;
    state.make()?;
    let _locked = state.lock_server()?;
    let (id, client) = who(&state, &config, mode)?;
    let client = client.with_tape(tape::keep(&state));
    let _node_locked = state.lock_node(&id)?;
    let host = Host::probe();
    let roots = roots::all(&state, &config.roots, &host)?;
    let dir = state.node(&id);
    let (driver, linux) = compose::driver(&config.driver, &dir, &host)?;
    warm_up(linux, config.sandboxes > 0, &roots);
    let (takes, linked) = mpsc::channel(LINK_QUEUE);
    let heard: std::sync::Arc<tokio::sync::Notify> = std::sync::Arc::default();
    let linking = tokio::spawn(node::keep_links(client.clone(), takes, heard.clone()));
    table::note(&format!(
        "this is {id}; its server is {}",
        client.endpoint()
    ));
    let config = Config {
        // First, while the configuration is whole.
        labels: config.all_labels(),
        name: config.name.unwrap_or_else(hostname),
        incarnation: crate::state::new_node_id()?.to_string(),
        kind: config.kind,
        slots: config.slots,
        sandboxes: config.sandboxes,
        spares: config.spares,
        spare_life: SPARE_LIFE,
        egress_allow,
        roots,
        egress_trust: trust,
        packages_from,
        dir,
        heard,
        points: points_from(std::env::var("COFFERDAM_DIE_AT").ok()),
    };
    let node = Node::new(config, client, driver, host.clone());
    reap::tell(&node, &state, host);
    let told = work(&node, linked, &mut signals).await;
    linking.abort();
    Ok(match told {
        Told::ToEnd => ExitCode::SUCCESS,
        Told::SentAway => {
            let _ = sent_away(&id).report(false);
            ExitCode::from(SENT_AWAY)
        }
    })
}

/// Why a node ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// By a signal: the next process goes on.
    ToEnd,
    /// By a server, for good.
    SentAway,
}

/// Works until it is told to end, and ends in peace; a second signal ends it at once.
async fn work(node: &Node, links: mpsc::Receiver<LinkOpen>, signals: &mut Signals) -> Told {
    let stop = CancellationToken::new();
    let (working, stopping) = (node.clone(), stop.clone());
    let mut working = tokio::spawn(async move { working.run(links, stopping).await });
    let told = tokio::select! {
        _ = signals.next() => Told::ToEnd,
        () = node.dismissed() => Told::SentAway,
    };
    if told == Told::ToEnd {
        tracing::info!("ending; sandboxes that run are found again at the next start");
    }
    stop.cancel();
    let ending = async {
        drop((&mut working).await);
        if told == Told::SentAway {
            node.abandon().await;
        }
    };
    tokio::select! {
        () = ending => {}
        _ = signals.another() => {}
    }
    told
}

fn sent_away(id: &NodeId) -> Failure {
    let message = format!(
        "{id} was decommissioned: no server takes its word, and what it had was taken away"
    );
    Failure::new(Code::CertificateRevoked, message).hint(
        "to make another node of this machine, remove identity.json in its state directory and `cofferdam node enroll` it",
    )
}

/// Which node this is, and its client.
fn who(state: &State, config: &config::Node, mode: Mode) -> Result<(NodeId, Client), Failure> {
    if let (Mode::Development, [server], Some(token)) = (mode, &*config.server, &config.token) {
        let id = state.own_node()?;
        let token = server::shared_token(&id, &Token::new(token.clone()));
        let endpoint = Endpoint::parse(server, Some(token));
        let bad = |error| Failure::new(Code::ConfigInvalid, format!("failed to {error}"));
        return Ok((id, Client::new(endpoint.map_err(bad)?)));
    }
    let identity = Identity::known(state)?.ok_or_else(|| {
        let message = "failed to start the node: this machine was not enrolled";
        // On the command line the other users of this machine could read the token.
        let hint = format!(
            "`COFFERDAM_TOKEN=cfn_... cofferdam --state {} node enroll --server https://HOST:PORT` makes it a node; \
             `cofferdam node enroll-token` on the server makes a token",
            state.dir().display()
        );
        Failure::new(Code::StateUnusable, message).hint(hint)
    })?;
    let mut servers: Vec<&str> = config.server.iter().map(String::as_str).collect();
    if servers.is_empty() {
        servers.push(&identity.server);
    }
    let dialer = identity.dialer_of(&servers)?;
    let id = identity.node.clone();
    drop(tokio::spawn(identity::keep_certificate(
        state.clone(),
        identity,
        dialer.clone(),
    )));
    Ok((id, identity::client(dialer)))
}

/// Becomes a node.
pub(crate) async fn enroll(
    place: &Place,
    server: &str,
    name: Option<String>,
) -> Result<ExitCode, Failure> {
    let token = place.token.as_deref().ok_or_else(|| {
        let failure = Failure::new(Code::InvalidArgument, "the enrollment token is missing");
        failure.hint(
            "put it into COFFERDAM_TOKEN; `cofferdam node enroll-token` on the server makes one",
        )
    })?;
    let state = State::of(place)?;
    state.make()?;
    if let Some(known) = Identity::known(&state)? {
        let message = format!(
            "this machine is {} already, of {}",
            known.node, known.server
        );
        let failure = Failure::new(Code::Conflict, message);
        let hint =
            "another --state makes another node; remove identity.json there to forget this one";
        return Err(failure.hint(hint));
    }
    let name = name.unwrap_or_else(hostname);
    let identity = Identity::enroll(&state, server, token, &name).await?;
    table::print(&format!("{}\n", identity.node))?;
    Ok(ExitCode::SUCCESS)
}
