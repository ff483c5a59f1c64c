//! What is under way to the outside now. It is in no table: nodes are asked, over their links.

use std::collections::HashSet;
use std::time::Duration;

use api::attach::{BUFFER_BYTES, LinkOpen, LinkTarget};
use api::egress::{
    CONNECTIONS_BYTES_MAX, CONNECTIONS_MAX, EgressConnectionList, EgressConnectionQuery,
    NodeConnections,
};
use api::{Code, ErrorBody, routes};
use axum::Json as Answer;
use axum::extract::State;
use futures_util::StreamExt as _;
use futures_util::stream;
use model::id::NodeId;
use service::{Ctx, EgressOwner};
use tokio::io::AsyncReadExt as _;

use crate::App;
use crate::convert::{egress, from_wire};
use crate::error::Error;
use crate::extract::{JobOf, Query, SandboxOf, User};

/// How long a node may take: it only reads its memory.
const PATIENCE: Duration = Duration::from_secs(5);
/// Nodes that are asked at a time, each of which may say [`CONNECTIONS_BYTES_MAX`].
const ASKED_AT_ONCE: usize = 4;

/// What is under way to the outside of a sandbox now, the oldest first.
#[utoipa::path(get, path = routes::SANDBOX_CONNECTIONS, tag = "sandboxes",
    operation_id = "sandbox_egress_connections",
    params(("id" = String, Path, description = "The sandbox"), EgressConnectionQuery),
    responses((status = 200, description = "What is under way", body = EgressConnectionList),
              (status = 404, description = "No such sandbox", body = ErrorBody),
              (status = 503, description = "Its node does not answer", body = ErrorBody)))]
pub(crate) async fn of_sandbox(
    State(app): State<App>,
    User(ctx): User,
    SandboxOf(id): SandboxOf,
    Query(query): Query<EgressConnectionQuery>,
) -> Result<Answer<EgressConnectionList>, Error> {
    of_one(&app, &ctx, EgressOwner::Sandbox(id), &query).await
}

/// What is under way to the outside of a job now, the oldest first.
#[utoipa::path(get, path = routes::JOB_CONNECTIONS, tag = "jobs", operation_id = "job_egress_connections",
    params(("id" = String, Path, description = "The job"), EgressConnectionQuery),
    responses((status = 200, description = "What is under way", body = EgressConnectionList),
              (status = 404, description = "No such job", body = ErrorBody),
              (status = 503, description = "Its node does not answer", body = ErrorBody)))]
pub(crate) async fn of_job(
    State(app): State<App>,
    User(ctx): User,
    JobOf(id): JobOf,
    Query(query): Query<EgressConnectionQuery>,
) -> Result<Answer<EgressConnectionList>, Error> {
    of_one(&app, &ctx, EgressOwner::Job(id), &query).await
}

/// What is under way to the outside of all sandboxes and jobs now, the oldest first. Nodes that do not answer are
/// named; what nodes have that are away is not known.
#[utoipa::path(get, path = routes::CONNECTIONS, tag = "sandboxes", operation_id = "egress_connections",
    params(EgressConnectionQuery),
    responses((status = 200, description = "What is under way", body = EgressConnectionList)))]
pub(crate) async fn of_all(
    State(app): State<App>,
    User(ctx): User,
    Query(query): Query<EgressConnectionQuery>,
) -> Result<Answer<EgressConnectionList>, Error> {
    let limit = from_wire::page_limit(query.limit)?;
    let mut list = EgressConnectionList::default();
    let nodes = app.service.egress_nodes(&ctx).await?;
    let asking = nodes.into_iter().map(|node| {
        let app = &app;
        async move {
            let told = ask(app, &node, None).await;
            (node, told)
        }
    });
    let mut asking = stream::iter(asking).buffer_unordered(ASKED_AT_ONCE);
    while let Some((node, told)) = asking.next().await {
        match told {
            Some(told) => {
                seen(&app, &ctx, &node, told, &mut list).await?;
                cut(&mut list, limit);
            }
            None => list.silent_nodes.push(node.to_string()),
        }
    }
    Ok(Answer(list))
}

async fn of_one(
    app: &App,
    ctx: &Ctx,
    owner: EgressOwner,
    query: &EgressConnectionQuery,
) -> Result<Answer<EgressConnectionList>, Error> {
    let limit = from_wire::page_limit(query.limit)?;
    let mut list = EgressConnectionList::default();
    let Some(node) = app.service.egress_node(ctx, owner.clone()).await? else {
        return Ok(Answer(list));
    };
    let told = ask(app, &node, Some(owner.as_str().to_owned())).await;
    let Some(mut told) = told else {
        let message = "the node of it does not say what is under way";
        return Err(Error::new(Code::Unavailable, message));
    };
    let is_of =
        |one: &api::egress::EgressConnection| egress::owner(one).is_ok_and(|of| of == owner);
    told.connections.retain(is_of);
    seen(app, ctx, &node, told, &mut list).await?;
    cut(&mut list, limit);
    Ok(Answer(list))
}

/// What a node says, or nothing where it does not answer, not in time, or with what cannot be read.
async fn ask(app: &App, node: &NodeId, of: Option<String>) -> Option<NodeConnections> {
    let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
    let open = LinkOpen {
        target: LinkTarget::Connections { of },
        io: theirs,
    };
    app.links.open(node, open).await.ok()?;
    let mut said = Vec::new();
    let mut ours = ours.take(CONNECTIONS_BYTES_MAX);
    let reading = tokio::time::timeout(PATIENCE, ours.read_to_end(&mut said));
    reading.await.ok()?.ok()?;
    // What is longer than the bound is cut, and no JSON then.
    let told: NodeConnections = serde_json::from_slice(&said).ok()?;
    let is_bounded = told.connections.len() <= CONNECTIONS_MAX;
    (is_bounded && told.connections.iter().all(egress::is_short)).then_some(told)
}

/// Adds what the caller may see.
async fn seen(
    app: &App,
    ctx: &Ctx,
    node: &NodeId,
    told: NodeConnections,
    list: &mut EgressConnectionList,
) -> Result<(), Error> {
    let owners = told
        .connections
        .iter()
        .filter_map(|one| egress::owner(one).ok());
    let owners: HashSet<EgressOwner> = owners.collect();
    let owners = owners.into_iter().collect();
    let seen: HashSet<EgressOwner> = app
        .service
        .egress_seen(ctx, node, owners)
        .await?
        .into_iter()
        .collect();
    let known = told.connections.into_iter();
    let known = known.filter(|one| egress::owner(one).is_ok_and(|owner| seen.contains(&owner)));
    list.connections.extend(known);
    list.more |= told.more;
    Ok(())
}

/// The oldest stay.
fn cut(list: &mut EgressConnectionList, limit: u32) {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    list.connections
        .sort_by_key(|one| std::cmp::Reverse(one.age_ms));
    list.more |= list.connections.len() > limit;
    list.connections.truncate(limit);
}
