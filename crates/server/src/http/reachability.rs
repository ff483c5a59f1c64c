//! Whether and how a sandbox can be reached.

use std::time::Instant;

use api::sandbox::{GuestReach, HeaderReach, PortReach, ReachabilityView};
use api::{ErrorBody, routes};
use axum::Json as Answer;
use axum::extract::State;
use serde::Deserialize;

use crate::App;
use crate::convert::sandbox;
use crate::e2b::{aim, measure, wire};
use crate::error::Error;
use crate::extract::{SandboxOf, User};

/// Ports that are shown; a guest tells no more.
const PORTS_MAX: usize = 256;

/// What a guest says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    ports: Vec<u16>,
}

/// Whether the guest of a sandbox answers now, where somebody listens inside, and how to get there. Waits
/// at most five seconds for the guest.
#[utoipa::path(get, path = routes::SANDBOX_REACHABILITY, tag = "sandboxes",
    operation_id = "sandbox_reachability",
    params(("id" = String, Path, description = "The sandbox")),
    responses((status = 200, description = "How it is at this moment", body = ReachabilityView),
              (status = 404, description = "No such sandbox", body = ErrorBody)))]
pub(crate) async fn reachability(
    State(app): State<App>,
    User(ctx): User,
    SandboxOf(id): SandboxOf,
) -> Result<Answer<ReachabilityView>, Error> {
    let row = app.service.sandbox_get(&ctx, &id).await?;
    let began = Instant::now();
    let said: Option<Said> = measure::get(&app, &row, "/ports").await;
    let took_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    let guest = GuestReach {
        answers: said.is_some(),
        after_us: said.is_some().then_some(took_us),
    };
    let site = app.site.as_ref();
    let port = |port: u16| PortReach {
        port,
        url: site.map(|site| site.named(&id, port)),
    };
    let ports = said.unwrap_or_default().ports;
    let by_header = site.map(|site| HeaderReach {
        url: site.shared(),
        sandbox_header: aim::SANDBOX_ID.to_string(),
        sandbox_value: id.short().to_owned(),
        port_header: aim::SANDBOX_PORT.to_string(),
    });
    Ok(Answer(ReachabilityView {
        state: sandbox::state(&row.state),
        guest,
        ports: ports.into_iter().take(PORTS_MAX).map(port).collect(),
        envd_url: site.map(|site| site.named(&id, aim::ENVD_PORT)),
        by_header,
        by_path: site.map(|site| site.path(&id)),
        needs_traffic_token: !wire::is_open(&row),
    }))
}
