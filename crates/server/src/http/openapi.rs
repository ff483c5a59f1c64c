//! The description of this interface, made from the code that serves it.

use std::sync::OnceLock;

use api::error::{ErrorBody, ErrorDetail};
use api::routes;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Components, SecurityRequirement};

use crate::error::Error;

#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Cofferdam",
        description = "Runs code that nobody has reason to trust, and keeps a record of what it \
                       did. Every error answer is an `ErrorBody`; its codes are in docs/errors/.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    components(schemas(ErrorBody, ErrorDetail)),
    tags(
        (name = "jobs", description = "One command in a sandbox of its own."),
        (name = "sandboxes", description = "Sandboxes that live on."),
        (name = "volumes", description = "Named directories that outlive sandboxes."),
        (name = "policies", description = "What may be asked for: layers that only narrow each other."),
        (name = "approvals", description = "What waits for a person, and what they say."),
        (name = "profiles", description = "Named recipes for sandboxes and jobs, version by version."),
        (name = "secrets", description = "Named values that sandboxes may use and nobody may read back."),
        (name = "snapshots", description = "Saved file systems of sandboxes."),
        (name = "blobs", description = "Bytes by their digest."),
        (name = "mcp", description = "Tools for models, by the Model Context Protocol."),
        (name = "nodes", description = "The machines of a fleet, for operators."),
        (name = "people", description = "Tenants, principals and keys, for admins."),
        (name = "node", description = "What nodes say and ask. People are refused here."),
        (name = "server", description = "The server itself."),
    ),
)]
struct Preamble;

/// What the document says before the routes.
pub(super) fn preamble() -> utoipa::openapi::OpenApi {
    let mut document = Preamble::openapi();
    let components = document.components.get_or_insert_with(Components::new);
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    components.add_security_scheme("token", bearer);
    document.security = Some(vec![SecurityRequirement::new(
        "token",
        Vec::<String>::new(),
    )]);
    document
}

/// The whole document.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    super::routes().into_openapi()
}

/// This interface as an OpenAPI document.
#[utoipa::path(get, path = routes::OPENAPI, tag = "server",
    responses((status = 200, description = "The document", body = serde_json::Value)))]
pub(crate) async fn openapi() -> Result<([(http::HeaderName, &'static str); 1], Bytes), Error> {
    // Written once: it is the same for every request, and nobody asks for it in most runs.
    static JSON: OnceLock<Bytes> = OnceLock::new();
    if JSON.get().is_none() {
        let json = serde_json::to_vec_pretty(&document()).map_err(Error::internal)?;
        drop(JSON.set(Bytes::from(json)));
    }
    let json = JSON.get().cloned().unwrap_or_default();
    Ok(([(CONTENT_TYPE, "application/json")], json))
}
