//! How a machine becomes a node, stays one, and opens its links.

use api::fleet::{NodeEnroll, NodeEnrolled, NodeLinkQuery, NodeRenew};
use api::link::{LinkClass, UPGRADE};
use api::{Code, ErrorBody, routes};
use axum::Json as Answer;
use axum::extract::{Request, State};
use axum::response::Response;
use hyper_util::rt::TokioIo;
use model::id::NodeId;
use std::time::Duration;

use crate::attach::{switching, upgrade_of};
use crate::convert::fleet;
use crate::error::Error;
use crate::extract::{Joining, Node, Query, ShortJson};
use crate::node_door::ShownBy;
use crate::peers::LinkNote;
use crate::{App, links};

/// How often it is looked whether the certificate still counts with which a link was opened.
const LOOK: Duration = Duration::from_secs(15);

/// Makes a node of the machine that has an enrollment token.
#[utoipa::path(post, path = routes::NODE_ENROLL, tag = "node", operation_id = "node_enroll",
    request_body = NodeEnroll,
    responses((status = 200, description = "It is a node", body = NodeEnrolled),
              (status = 400, description = "The request is wrong", body = ErrorBody),
              (status = 401, description = "The token is good for nothing", body = ErrorBody),
              (status = 409, description = "The token has made another node", body = ErrorBody)))]
pub(crate) async fn enroll(
    State(app): State<App>,
    Joining: Joining,
    ShortJson(asked): ShortJson<NodeEnroll>,
) -> Result<Answer<NodeEnrolled>, Error> {
    let NodeEnroll { token, name, csr } = asked;
    let enrolled = app.service.node_enroll(&token.0, &name, &csr).await?;
    Ok(Answer(fleet::enrolled(enrolled)))
}

/// Gives a node another certificate, before the one that it has ends.
#[utoipa::path(post, path = routes::NODE_RENEW, tag = "node", operation_id = "node_renew",
    request_body = NodeRenew,
    responses((status = 200, description = "The certificate", body = NodeEnrolled),
              (status = 400, description = "The request is wrong", body = ErrorBody),
              (status = 429, description = "It has too many", body = ErrorBody)))]
pub(crate) async fn renew(
    State(app): State<App>,
    Node(ctx): Node,
    ShortJson(asked): ShortJson<NodeRenew>,
) -> Result<Answer<NodeEnrolled>, Error> {
    let enrolled = app.service.node_renew(&ctx, &asked.csr).await?;
    Ok(Answer(fleet::enrolled(enrolled)))
}

/// Opens a link: after the upgrade it is HTTP/2, on which the server is the client.
#[utoipa::path(get, path = routes::NODE_LINK, tag = "node", operation_id = "node_link",
    params(NodeLinkQuery),
    responses((status = 101, description = "HTTP/2 follows, the other way round"),
              (status = 400, description = "There is no such class", body = ErrorBody),
              (status = 426, description = "The upgrade is missing", body = ErrorBody)))]
pub(crate) async fn link(
    State(app): State<App>,
    Node(ctx): Node,
    Query(query): Query<NodeLinkQuery>,
    mut request: Request,
) -> Result<Response, Error> {
    let class = LinkClass::parse(&query.class);
    let wrong = || Error::field(Code::InvalidArgument, "class", "is `interactive` or `bulk`");
    let class = class.ok_or_else(wrong)?;
    let upgrade = upgrade_of(&mut request, UPGRADE)?;
    let shown = request.extensions().get::<ShownBy>().cloned();
    let service::Caller::Node(node) = ctx.caller else {
        return Err(Error::new(Code::Forbidden, "this route is for nodes"));
    };
    let tasks = app.tasks.clone();
    drop(tasks.spawn(async move {
        let Ok(io) = upgrade.await else { return };
        let carrying = links::carry(&app.links, node.clone(), class, TokioIo::new(io));
        let mut note = LinkNote::new(&node, class);
        tokio::select! {
            // First, so that the link is there when the row says so.
            biased;
            end = carrying => tracing::info!(%node, class = class.as_str(), %end, "a link has ended"),
            () = distrusted(&app, &node, shown) => {}
            () = app.stopping.cancelled() => {}
            () = note.write(&app) => {}
        }
        // At the end of this server one row says so for all its links.
        if !app.stopping.is_cancelled() {
            note.over(&app).await;
        }
    }));
    Ok(switching(UPGRADE))
}

/// Returns when the certificate does not count any more. A database that does not answer says nothing.
async fn distrusted(app: &App, node: &NodeId, shown: Option<ShownBy>) {
    let Some(ShownBy(shown)) = shown else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(LOOK).await;
        match shown.node(app).await {
            Err(error) if error.code() != Code::Unavailable => {
                tracing::warn!(%node, code = %error.code(), "a link is closed");
                return;
            }
            Ok(_) | Err(_) => {}
        }
    }
}
