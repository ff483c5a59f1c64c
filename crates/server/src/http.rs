//! The routes, one file per noun; the node protocol is in [`crate::node_api`].
//!
//! Every route is mounted by [`routes`], which builds the OpenAPI document from the same list, so
//! that there is no route without a description and none without the tests that read it.

pub(crate) mod approval;
pub(crate) mod artifact;
pub(crate) mod audit;
pub(crate) mod blob;
pub(crate) mod connections;
pub(crate) mod egress;
pub(crate) mod fleet;
mod guest;
pub(crate) mod health;
pub(crate) mod job;
pub(crate) mod log;
pub(crate) mod mcp;
pub(crate) mod openapi;
pub(crate) mod people;
pub(crate) mod policy;
mod port;
pub(crate) mod profile;
pub(crate) mod quota;
pub(crate) mod reachability;
pub(crate) mod recorded;
pub(crate) mod sandbox;
pub(crate) mod secret;
pub(crate) mod snapshot;
mod sse;
pub(crate) mod usage;
pub(crate) mod volume;

use api::Code;
use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{self, Next};
use axum::response::Response;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes as paths;

use crate::error::Error;
use crate::{App, attach, node_api, node_join, peers};

pub use openapi::document;

/// Everything that can be asked for.
pub(crate) fn router(app: App) -> Router {
    let (router, _) = routes().split_for_parts();
    router
        .route_layer(middleware::from_fn(remember_route))
        .fallback(async || Error::new(Code::NotFound, "there is no such route"))
        .method_not_allowed_fallback(async || {
            Error::new(
                Code::MethodNotAllowed,
                "the route exists, but not with this method",
            )
        })
        .with_state(app)
}

fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(openapi::preamble())
        .routes(paths!(job::create, job::list))
        .routes(paths!(job::get))
        .routes(paths!(job::cancel))
        .routes(paths!(job::events))
        .routes(paths!(log::logs))
        .routes(paths!(artifact::list))
        .routes(paths!(artifact::get))
        .routes(paths!(attach::attach))
        .routes(paths!(blob::create))
        .routes(paths!(sandbox::create, sandbox::list))
        .routes(paths!(sandbox::get, sandbox::destroy))
        .routes(paths!(sandbox::timeout))
        .routes(paths!(sandbox::set_network))
        .routes(paths!(sandbox::pause))
        .routes(paths!(sandbox::resume))
        .routes(paths!(sandbox::connect))
        .routes(paths!(sandbox::recreate))
        .routes(paths!(
            port::get,
            port::post,
            port::put,
            port::patch,
            port::delete
        ))
        .route(api::routes::SANDBOX_PORT_ROOT, port::root())
        .routes(paths!(sandbox::events))
        .routes(paths!(secret::create, secret::list))
        .routes(paths!(secret::get, secret::delete))
        .routes(paths!(secret::rotate))
        .routes(paths!(secret::events))
        .merge(policies())
        .routes(paths!(profile::list))
        .routes(paths!(profile::put, profile::get, profile::delete))
        .routes(paths!(profile::versions))
        .routes(paths!(volume::create, volume::list))
        .routes(paths!(volume::get, volume::delete))
        .routes(paths!(guest::read, guest::ask))
        .routes(paths!(guest::port))
        .routes(paths!(usage::usage))
        .routes(paths!(reachability::reachability))
        .routes(paths!(snapshot::create))
        .routes(paths!(snapshot::fork))
        .routes(paths!(snapshot::list))
        .routes(paths!(snapshot::get, snapshot::delete))
        .routes(paths!(sandbox::jobs))
        .routes(paths!(egress::of_sandbox))
        .routes(paths!(egress::of_job))
        .routes(paths!(egress::test))
        .routes(paths!(audit::list))
        .routes(paths!(audit::check))
        .routes(paths!(connections::of_sandbox))
        .routes(paths!(connections::of_job))
        .routes(paths!(connections::of_all))
        .routes(paths!(fleet::token_create, fleet::token_list))
        .routes(paths!(fleet::token_revoke))
        .routes(paths!(fleet::list))
        .routes(paths!(fleet::get, fleet::forget))
        .routes(paths!(fleet::change))
        .routes(paths!(fleet::servers))
        .merge(of_people())
        .merge(of_nodes())
        .routes(paths!(mcp::get, mcp::post, mcp::delete))
        .routes(paths!(health::healthz))
        .routes(paths!(health::readyz))
        .routes(paths!(health::metrics))
        .routes(paths!(openapi::openapi))
}

/// Who may ask, for admins.
fn of_people() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(paths!(people::tenant_create, people::tenant_list))
        .routes(paths!(people::tenant_remove))
        .routes(paths!(people::principal_create, people::principal_list))
        .routes(paths!(people::principal_put, people::principal_remove))
        .routes(paths!(people::key_create, people::key_list))
        .routes(paths!(people::key_revoke))
        .routes(paths!(people::me))
        .routes(paths!(people::login))
        .routes(paths!(quota::list))
        .routes(paths!(quota::put, quota::remove))
}

/// What may be asked for, and what a person is asked for.
fn policies() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(paths!(policy::list))
        .routes(paths!(policy::test))
        .routes(paths!(policy::put, policy::get, policy::delete))
        .routes(paths!(policy::versions))
        .routes(paths!(policy::of_job))
        .routes(paths!(policy::of_sandbox))
        .routes(paths!(approval::create, approval::list))
        .routes(paths!(approval::get, approval::revoke))
        .routes(paths!(approval::decide))
}

/// What nodes ask, and machines that want to be some.
fn of_nodes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(paths!(node_join::enroll))
        .routes(paths!(node_join::renew))
        .routes(paths!(node_join::link))
        .routes(paths!(peers::link))
        .routes(paths!(node_api::register))
        .routes(paths!(node_api::heartbeat))
        .routes(paths!(node_api::poll))
        .routes(paths!(node_api::started))
        .routes(paths!(node_api::output))
        .routes(paths!(node_api::finished))
        .routes(paths!(node_api::release))
        .routes(paths!(node_api::artifact))
        .routes(paths!(node_api::sandbox_report))
        .routes(paths!(node_api::sandbox_network))
        .routes(paths!(node_api::job_secrets))
        .routes(paths!(node_api::sandbox_secrets))
        .routes(paths!(node_api::usage))
        .routes(paths!(node_api::egress_report))
        .routes(paths!(node_api::snapshot_removed))
        .routes(paths!(node_api::sandbox_execs))
        .routes(paths!(node_api::blob))
}

/// Lets the metrics, which are outside the router, see which route it chose.
pub(crate) async fn remember_route(route: MatchedPath, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.extensions_mut().insert(route);
    response
}
