//! What a sandbox uses at this moment, as its guest says and as its limits allow.

use super::proxy;
use super::wire::{self, Metric};
use crate::App;
use api::guest::line::{self, Line, Patience};
use http::Request;
use http::header::{HOST, HeaderValue};
use http_body_util::{BodyExt as _, Limited};
use model::sandbox::SandboxState;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use service::SandboxRow;
use std::time::Duration;

/// A guest answers within milliseconds; one that does not is not waited for longer than a client would.
const DEADLINE: Duration = Duration::from_secs(5);
/// A dozen numbers, or some hundred ports.
const BYTES_MAX: usize = 16 * 1024;

/// What a guest says. Nothing of it is believed beyond the limits of its sandbox.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Said {
    pub(crate) cpu_used_us: u64,
    pub(crate) cpu_used_pct: f64,
    pub(crate) mem_used: u64,
    pub(crate) mem_cache: u64,
    pub(crate) disk_used: u64,
    pub(crate) disk_total: u64,
}

/// One sample, if the sandbox runs and its guest answers.
pub(crate) async fn sample(app: &App, row: &SandboxRow) -> Option<Metric> {
    let said = ask(app, row).await?;
    Some(wire::metric(row, &said, app.service.clock().now_ms()))
}

/// What its guest says of this moment.
pub(crate) async fn ask(app: &App, row: &SandboxRow) -> Option<Said> {
    get(app, row, "/metrics").await
}

/// Whether its guest answers. Of a sandbox that does not run, nobody knows.
pub(crate) async fn is_healthy(app: &App, row: &SandboxRow) -> bool {
    ask(app, row).await.is_some()
}

/// What the guest of a sandbox that runs answers at one of the routes that are for us alone.
pub(crate) async fn get<T: DeserializeOwned>(
    app: &App,
    row: &SandboxRow,
    path: &'static str,
) -> Option<T> {
    let (SandboxState::Ready, Some(node)) = (&row.state, &row.node) else {
        return None;
    };
    let stream = proxy::dial(app, node, &row.id).await.ok()?;
    let asking = async {
        let patience = Patience {
            silence: DEADLINE,
            head: DEADLINE,
        };
        let line = Line::to_guest(stream, patience).await.ok()?;
        let mut request = Request::new(line::empty());
        *request.uri_mut() = path.parse().ok()?;
        let host = HeaderValue::from_static("localhost");
        request.headers_mut().insert(HOST, host);
        let answer = line.send(request, ()).await.ok()?;
        let body = Limited::new(answer.into_response().into_body(), BYTES_MAX);
        let bytes = body.collect().await.ok()?.to_bytes();
        serde_json::from_slice(&bytes).ok()
    };
    tokio::time::timeout(DEADLINE, asking).await.ok().flatten()
}
