//! Which sandbox is meant, and whether it can be reached now.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use model::id::SandboxId;
use model::limits;
use model::sandbox::SandboxState;
use service::{Ctx, SandboxFilter, SandboxRow};

use super::aim::Target;
use super::keys::{self, FileQuery};
use super::proxy::Reachable;
use super::refusal::Refusal;
use super::wire;
use crate::App;
use crate::request::RequestId;

/// How long a request waits for a sandbox that is about to run: a resume takes milliseconds, and a
/// client that waits holds a connection.
const WAIT: Duration = Duration::from_secs(20);
/// Searches for the one who signed at a time. Anybody may ask, and each reads all sandboxes that run.
const SEARCHES_MAX: usize = 2;

/// Places for those who search.
pub(crate) fn searches() -> tokio::sync::Semaphore {
    tokio::sync::Semaphore::new(SEARCHES_MAX)
}

/// Why a sandbox cannot be reached.
#[derive(Debug)]
pub(crate) enum Unreachable {
    /// There is none, or it is not the caller's.
    Absent,
    /// It is over, or is being taken away.
    Over,
    /// It sleeps, and traffic does not wake it.
    Paused,
    /// Something is under way with it for too long.
    Busy(&'static str),
    /// It could not be looked up, or woken.
    Failed(service::Error),
}

impl From<service::Error> for Unreachable {
    fn from(error: service::Error) -> Self {
        if matches!(error, service::Error::NotFound) {
            Self::Absent
        } else {
            Self::Failed(error)
        }
    }
}

/// The sandbox that somebody named, if it runs, or wants to when somebody comes.
///
/// # Errors
/// 502 in the words that the clients look for; 409 for one that is under way for too long.
pub(crate) async fn reachable(app: &App, ctx: &Ctx, target: &Target) -> Result<Reachable, Refusal> {
    let absent = || Refusal::not_running(&target.id);
    let id = SandboxId::from_short(&target.id).map_err(|_| absent())?;
    sandbox(app, ctx, &id).await.map_err(|why| match why {
        Unreachable::Absent | Unreachable::Over | Unreachable::Paused => absent(),
        Unreachable::Busy(state) => {
            let message = format!("The sandbox is still transitioning: it is {state}");
            let refusal = Refusal::new(StatusCode::CONFLICT, message);
            refusal.with("sandboxId", target.id.as_str())
        }
        Unreachable::Failed(error) => error.into(),
    })
}

/// The same by its own id, for every door.
pub(crate) async fn sandbox(
    app: &App,
    ctx: &Ctx,
    id: &SandboxId,
) -> Result<Reachable, Unreachable> {
    let row = app.service.sandbox_get_recent(ctx, id).await?;
    let row = settled(app, ctx, row).await?;
    match (&row.state, &row.node) {
        (SandboxState::Ready, Some(node)) => Ok(Reachable {
            node: node.clone(),
            access_token: row.access_token.text().to_owned(),
            is_open: wire::is_open(&row),
            masked_host: wire::masked_host(&row),
            https_ports: wire::https_ports(&row),
            id: id.clone(),
            version: row.version,
        }),
        (SandboxState::Paused { .. }, _) => Err(Unreachable::Paused),
        (SandboxState::Destroying, _) => Err(Unreachable::Over),
        (state, _) if state.is_settled() => Err(Unreachable::Over),
        (state, _) => Err(Unreachable::Busy(state.name())),
    }
}

/// Waits for what is under way, and brings back what wants to be.
async fn settled(app: &App, ctx: &Ctx, row: SandboxRow) -> Result<SandboxRow, service::Error> {
    let service = &app.service;
    match row.state {
        // What answered to the traffic is not there any more where nothing but files was kept.
        SandboxState::Paused { memory: true } if row.spec.auto_resume => {
            let come = service.sandbox_connect(ctx, &row.id, (None, true), WAIT);
            Ok(come.await?)
        }
        SandboxState::Requested
        | SandboxState::Provisioning
        | SandboxState::Resuming { .. }
        | SandboxState::Snapshotting { .. }
        | SandboxState::Recreating => Ok(service.sandbox_wait(ctx, &row.id, WAIT).await?),
        SandboxState::Ready
        | SandboxState::Pausing { .. }
        | SandboxState::Paused { .. }
        | SandboxState::Destroying
        | SandboxState::Destroyed
        | SandboxState::Failed { .. } => Ok(row),
    }
}

/// Whoever comes to a sandbox by its name.
///
/// # Errors
/// 502 in the words that the clients look for.
pub(crate) async fn visitor(app: &App, target: &Target, id: &RequestId) -> Result<Ctx, Refusal> {
    let absent = || Refusal::not_running(&target.id);
    let sandbox = SandboxId::from_short(&target.id).map_err(|_| absent())?;
    match app.service.sandbox_visitor(&sandbox, id.as_str()).await {
        Err(service::Error::NotFound) => Err(absent()),
        found => Ok(found?),
    }
}

/// The sandbox with whose access token a request for a file was signed, where nothing else names it; among those
/// that these may see, or all.
///
/// # Errors
/// 401 as envd says it, when there is none; 429 when too many search.
pub(crate) async fn signer(
    app: &App,
    (mut searchers, id): (Vec<Ctx>, &RequestId),
    headers: &HeaderMap,
    file: &FileQuery,
) -> Result<Target, Refusal> {
    if file.signature.is_none() && !headers.contains_key(keys::ACCESS_TOKEN) {
        return Err(unsigned("missing signature query parameter"));
    }
    let busy = || Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too many searches at a time");
    let _place = app.searches.try_acquire().map_err(|_| busy())?;
    if searchers.is_empty() {
        searchers = app.service.sandbox_searchers(id.as_str()).await?;
    }
    for ctx in &searchers {
        if let Some(target) = signer_among(app, ctx, headers, file).await? {
            return Ok(target);
        }
    }
    Err(unsigned("invalid signature"))
}

async fn signer_among(
    app: &App,
    ctx: &Ctx,
    headers: &HeaderMap,
    file: &FileQuery,
) -> Result<Option<Target>, Refusal> {
    let mut before: Option<String> = None;
    loop {
        let filter = SandboxFilter {
            states: wire::RUNNING.into_iter().chain(wire::PAUSED).collect(),
            ..SandboxFilter::default()
        };
        let (service, page) = (&app.service, limits::PAGE_MAX);
        let page = service
            .sandbox_list(ctx, filter, before.as_deref(), page)
            .await?;
        let signed = |row: &&SandboxRow| keys::is_of(row.access_token.text(), headers, file);
        if let Some(row) = page.sandboxes.iter().find(signed) {
            return Ok(Some(Target {
                id: row.id.short().to_owned(),
                port: super::aim::ENVD_PORT,
            }));
        }
        // There are at most `SANDBOXES_MAX`, so this ends.
        before = page.next;
        if before.is_none() {
            return Ok(None);
        }
    }
}

fn unsigned(message: &str) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, message)
}
