//! Nodes of a fleet, for operators: tokens to let them in, what is known of them, what becomes of them.

use api::fleet::{
    EnrollTokenCreate, EnrollTokenList, EnrollTokenMade, EnrollTokenView, NodeChange, NodeList,
    NodeView, ServerList,
};
use api::{ErrorBody, routes};
use axum::Json as Answer;
use axum::extract::State;
use http::StatusCode;

use crate::App;
use crate::convert::fleet;
use crate::error::Error;
use crate::extract::{EnrollTokenOf, Json, NodeOf, User};

/// Makes a token with which one machine can become a node, within the hour.
#[utoipa::path(post, path = routes::ENROLL_TOKENS, tag = "nodes",
    operation_id = "enroll_token_create", request_body = EnrollTokenCreate,
    responses((status = 201, description = "The token, told this once", body = EnrollTokenMade),
              (status = 400, description = "Nothing was made", body = ErrorBody),
              (status = 403, description = "This server takes no nodes in", body = ErrorBody),
              (status = 429, description = "There are too many", body = ErrorBody)))]
pub(crate) async fn token_create(
    State(app): State<App>,
    User(ctx): User,
    Json(asked): Json<EnrollTokenCreate>,
) -> Result<(StatusCode, Answer<EnrollTokenMade>), Error> {
    let (row, text) = app.service.enroll_token_create(&ctx, asked.labels).await?;
    let now_ms = app.service.clock().now_ms();
    Ok((StatusCode::CREATED, Answer(fleet::made(row, text, now_ms))))
}

/// Lists the newest enrollment tokens.
#[utoipa::path(get, path = routes::ENROLL_TOKENS, tag = "nodes",
    operation_id = "enroll_token_list",
    responses((status = 200, description = "The newest first", body = EnrollTokenList)))]
pub(crate) async fn token_list(
    State(app): State<App>,
    User(ctx): User,
) -> Result<Answer<EnrollTokenList>, Error> {
    let rows = app.service.enroll_token_list(&ctx).await?;
    let now_ms = app.service.clock().now_ms();
    let tokens = rows.into_iter().map(|row| fleet::token(row, now_ms));
    Ok(Answer(EnrollTokenList {
        tokens: tokens.collect(),
    }))
}

/// Takes an enrollment token back.
#[utoipa::path(delete, path = routes::ENROLL_TOKEN, tag = "nodes",
    operation_id = "enroll_token_revoke",
    params(("id" = String, Path, description = "The token's id")),
    responses((status = 200, description = "It is good for nothing now", body = EnrollTokenView),
              (status = 404, description = "No such token", body = ErrorBody),
              (status = 409, description = "It has made a node", body = ErrorBody)))]
pub(crate) async fn token_revoke(
    State(app): State<App>,
    User(ctx): User,
    EnrollTokenOf(id): EnrollTokenOf,
) -> Result<Answer<EnrollTokenView>, Error> {
    let row = app.service.enroll_token_revoke(&ctx, &id).await?;
    Ok(Answer(fleet::token(row, app.service.clock().now_ms())))
}

/// Lists nodes.
#[utoipa::path(get, path = routes::NODES, tag = "nodes", operation_id = "node_list",
    responses((status = 200, description = "By id", body = NodeList)))]
pub(crate) async fn list(
    State(app): State<App>,
    User(ctx): User,
) -> Result<Answer<NodeList>, Error> {
    let seen = app.service.node_list(&ctx).await?;
    let now_ms = app.service.clock().now_ms();
    let nodes = seen.into_iter();
    let nodes = nodes.map(|one| fleet::node(one, now_ms)).collect();
    Ok(Answer(NodeList { nodes }))
}

/// Lists servers on this database, and the links of nodes that each holds.
#[utoipa::path(get, path = routes::SERVERS, tag = "nodes", operation_id = "server_list",
    responses((status = 200, description = "The newest first", body = ServerList)))]
pub(crate) async fn servers(
    State(app): State<App>,
    User(ctx): User,
) -> Result<Answer<ServerList>, Error> {
    let seen = app.service.server_list(&ctx).await?;
    let servers = seen.into_iter().map(fleet::server).collect();
    Ok(Answer(ServerList { servers }))
}

/// A node.
#[utoipa::path(get, path = routes::NODE, tag = "nodes", operation_id = "node_get",
    params(("id" = String, Path, description = "The node")),
    responses((status = 200, description = "The node", body = NodeView),
              (status = 404, description = "No such node", body = ErrorBody)))]
pub(crate) async fn get(
    State(app): State<App>,
    User(ctx): User,
    NodeOf(id): NodeOf,
) -> Result<Answer<NodeView>, Error> {
    let seen = app.service.node_get(&ctx, &id).await?;
    Ok(Answer(fleet::node(seen, app.service.clock().now_ms())))
}

/// Says whether a node is to get work.
#[utoipa::path(post, path = routes::NODE_STATE, tag = "nodes", operation_id = "node_change",
    params(("id" = String, Path, description = "The node")), request_body = NodeChange,
    responses((status = 200, description = "The node", body = NodeView),
              (status = 404, description = "No such node", body = ErrorBody),
              (status = 409, description = "Its state does not allow this", body = ErrorBody)))]
pub(crate) async fn change(
    State(app): State<App>,
    User(ctx): User,
    NodeOf(id): NodeOf,
    Json(asked): Json<NodeChange>,
) -> Result<Answer<NodeView>, Error> {
    let seen = async {
        match fleet::order(asked.order) {
            Some(order) => app.service.node_order(&ctx, &id, order).await,
            None => app.service.node_evict(&ctx, &id).await,
        }
    };
    Ok(Answer(fleet::node(
        seen.await?,
        app.service.clock().now_ms(),
    )))
}

/// Forgets a node that was decommissioned.
#[utoipa::path(delete, path = routes::NODE, tag = "nodes", operation_id = "node_forget",
    params(("id" = String, Path, description = "The node")),
    responses((status = 200, description = "What it was", body = NodeView),
              (status = 404, description = "No such node", body = ErrorBody),
              (status = 409, description = "It was not decommissioned", body = ErrorBody)))]
pub(crate) async fn forget(
    State(app): State<App>,
    User(ctx): User,
    NodeOf(id): NodeOf,
) -> Result<Answer<NodeView>, Error> {
    let seen = app.service.node_forget(&ctx, &id).await?;
    Ok(Answer(fleet::node(seen, app.service.clock().now_ms())))
}
