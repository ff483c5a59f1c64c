//! Which sandbox is meant, and whether it can be reached now.

use http::HeaderMap;
use service::Ctx;

use super::aim::Target;
use super::keys::FileQuery;
use super::proxy::Reachable;
use super::refusal::Refusal;
use crate::App;

/// The sandbox that somebody named, if it runs.
///
/// # Errors
/// 502 in the words that the clients look for.
pub(crate) async fn reachable(_: &App, _: &Ctx, target: &Target) -> Result<Reachable, Refusal> {
    Err(Refusal::not_running(&target.id))
}

/// The sandbox with whose secret a request for a file was signed.
///
/// # Errors
/// 401 as envd says it, when there is none.
pub(crate) async fn signer(
    _: &App,
    _: &Ctx,
    _: &HeaderMap,
    _: &FileQuery,
) -> Result<Target, Refusal> {
    Err(Refusal::new(
        http::StatusCode::UNAUTHORIZED,
        "invalid signature",
    ))
}
