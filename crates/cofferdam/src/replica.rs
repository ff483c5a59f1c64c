//! What a server is among others on the same database: its name, what it shows them, how it asks them, and that it has
//! what all must have alike.

use crate::cli::failure::{Failure, reason};
use crate::config;
use crate::dial::{Dialer, Trust};
use crate::identity::client;
use crate::node_authority::{Authority, ServerSigned, digest, peer_name};
use crate::private::random_name;
use crate::state::State;
use crate::up::hostname;
use api::Code;
use api::client::Client;
use model::id::ServerId;
use model::limits;
use server::Peers;
use service::{Blobs, LinkHeld, ServerHello, Service, Share};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often it gets a new certificate; one lives for three of these.
const SIGN_EVERY: Duration = Duration::from_secs(30 * 24 * 3600);

/// A server, for others. Clones are the same.
#[derive(Clone)]
pub(crate) struct Replica {
    hello: ServerHello,
    /// Without one, in development or without a door for nodes, nobody asks it and it asks nobody.
    authority: Option<Authority>,
    signed: Arc<RwLock<Option<ServerSigned>>>,
}

fn now_ms() -> u64 {
    service::Clock::system().now_ms()
}

/// The id of a process that serves.
pub(crate) fn new_id() -> Result<ServerId, Failure> {
    let mut random = [0; 10];
    let failed = |error: getrandom::Error| Failure::new(Code::Internal, error.to_string());
    getrandom::fill(&mut random).map_err(failed)?;
    Ok(ServerId::from_parts(now_ms(), random))
}

impl Replica {
    pub(crate) fn new(
        id: ServerId,
        name: Option<String>,
        authority: Option<Authority>,
        address: Option<String>,
    ) -> Result<Replica, Failure> {
        let signed = authority
            .as_ref()
            .map(|own| own.sign_server(&id, now_ms() / 1000));
        let signed = signed.transpose()?;
        Ok(Replica {
            hello: ServerHello {
                id,
                name: name.unwrap_or_else(hostname),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                address: address.filter(|_| authority.is_some()),
                certificate: signed.as_ref().map(|signed| signed.fingerprint.clone()),
                started_at_ms: now_ms(),
            },
            authority,
            signed: Arc::new(RwLock::new(signed)),
        })
    }

    /// How it asks other servers for links.
    pub(crate) fn peers(&self, service: &Service) -> Peers {
        let own = self.clone();
        Peers::new(self.hello.id.clone(), service.clone(), move |held| {
            own.dial(held)
        })
    }

    pub(crate) fn dial(&self, held: &LinkHeld) -> Option<Client> {
        let (authority, address) = (self.authority.as_ref()?, held.server.address.as_ref()?);
        let signed = self
            .signed
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()?;
        let trust = Trust::Authority(authority.certificate().to_owned());
        let own = (signed.certificate, signed.key);
        let dialer = Dialer::named(address, &peer_name(&held.server.id), trust, own);
        dialer
            .map(client)
            .map_err(|failure| tracing::warn!(%failure))
            .ok()
    }

    /// Says once that it is there.
    pub(crate) async fn beat(&self, service: &Service) -> Result<(), Failure> {
        service.server_beat(&self.hello).await.map_err(said)
    }

    /// The same for the first time. A database that went away again since it was opened is there for one of the next:
    /// whoever starts this server again would only wait for it too.
    pub(crate) async fn begin(&self, service: &Service) -> Result<(), Failure> {
        match self.beat(service).await {
            Err(failure) if failure.is(Code::Unavailable) => {
                tracing::warn!(%failure, "failed to say that this server is there; it is said again");
                Ok(())
            }
            said => said,
        }
    }

    /// Says again and again that it is there, until `stop`; then that it is not.
    pub(crate) async fn keep(mut self, service: Service, stop: CancellationToken) {
        let beats = Duration::from_millis(limits::SERVER_BEAT_MS);
        let mut sign_at = tokio::time::Instant::now() + SIGN_EVERY;
        while stop
            .run_until_cancelled(tokio::time::sleep(beats))
            .await
            .is_some()
        {
            let new = match tokio::time::Instant::now() >= sign_at {
                true => self.sign_anew(),
                false => None,
            };
            if let Err(failure) = self.beat(&service).await {
                tracing::warn!(%failure, "failed to say that this server is there");
            } else if new.is_some() {
                // Only now: before the row has it, it opens nothing.
                *self.signed.write().unwrap_or_else(PoisonError::into_inner) = new;
                sign_at = tokio::time::Instant::now() + SIGN_EVERY;
            }
        }
        if let Err(error) = service.server_gone(&self.hello.id).await {
            tracing::debug!(
                error = error.cause(),
                "failed to say goodbye; others see it in a while"
            );
        }
    }

    fn sign_anew(&mut self) -> Option<ServerSigned> {
        let signed = self
            .authority
            .as_ref()?
            .sign_server(&self.hello.id, now_ms() / 1000);
        let signed = signed.map_err(|failure| tracing::error!(%failure)).ok()?;
        self.hello.certificate = Some(signed.fingerprint.clone());
        Some(signed)
    }
}

pub(crate) fn said(error: service::Error) -> Failure {
    let code = Code::parse(error.code()).unwrap_or(Code::Internal);
    Failure::new(code, error.to_string())
}

/// Compares what this server has with what all on its database must have; or, where the operator says so, writes that
/// it is this from now on. Before anything is served, sealed or signed: with another key values would be sealed that
/// the others cannot open.
pub(crate) async fn check_shares(
    service: &Service,
    state: &State,
    config: &config::Server,
    (authority, adopt): (Option<&Authority>, &[String]),
) -> Result<(), Failure> {
    let mut has = vec![
        (Share::Blobs, blobs_mark(&blobs_of(config, state))?),
        (Share::SecretKey, secret_key_id(state)?),
    ];
    if let Some(authority) = authority {
        has.push((Share::NodeAuthority, authority.fingerprint().to_owned()));
    }
    if config.listen.is_some() {
        let text = format!("cofferdam token: {}", state.token()?);
        has.push((Share::Token, digest(text.as_bytes())));
    }
    for (what, value) in has {
        if adopt.iter().any(|name| name == what.as_str()) {
            service.server_adopt(what, &value).await.map_err(said)?;
        }
        service.server_shares(what, &value).await.map_err(|error| {
            let hint = match what {
                Share::Blobs => {
                    "name the directory of the others as `blobs` of [server]".to_owned()
                }
                Share::NodeAuthority | Share::SecretKey | Share::Token => {
                    format!(
                        "copy the {} of the others; docs/fleet.md says how",
                        what.as_str()
                    )
                }
            };
            said(error).hint(hint)
        })?;
    }
    Ok(())
}

/// Where the blobs are.
pub(crate) fn blobs_of(config: &config::Server, state: &State) -> PathBuf {
    config.blobs.clone().unwrap_or_else(|| state.blobs())
}

fn blobs_mark(dir: &std::path::Path) -> Result<String, Failure> {
    let failed = |error: std::io::Error| {
        let text = format!(
            "failed to read the mark of {}: {}",
            dir.display(),
            reason(&error)
        );
        Failure::new(Code::StateUnusable, text)
    };
    let blobs = Blobs::open(dir).map_err(failed)?;
    blobs.mark(&random_name::<16>()?).map_err(failed)
}

fn secret_key_id(state: &State) -> Result<String, Failure> {
    let keys = state.keys().load(state.dir());
    let keys = keys.map_err(|error| said(service::Error::SecretKey(error)))?;
    Ok(keys.current.id().to_owned())
}
