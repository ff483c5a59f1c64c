//! What handlers take: the caller, ids, queries, bodies. Each refuses with a stable code.
//!
//! An id that cannot be one names nothing, so it is 404 like an id that names nothing.

use std::str::FromStr;
use std::time::Duration;

use api::{Code, routes};
use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams};
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use model::id::NodeId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use service::{Ctx, Kind};
use sha2::{Digest as _, Sha256};

use crate::auth::Peer;
use crate::error::Error;
use crate::request::RequestId;

/// How long a body may pause. Only peers that were let in get here, so this is for broken ones.
pub(crate) const BODY_STALL: Duration = Duration::from_secs(30);
/// The longest and shortest Idempotency-Key: shorter ones collide, longer ones are not keys.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 8..=255;

/// A person or program; a node is refused.
#[derive(Debug)]
pub(crate) struct User(pub(crate) Ctx);

/// A node; anybody else is refused.
#[derive(Debug)]
pub(crate) struct Node(pub(crate) Ctx, pub(crate) NodeId);

impl<S: Send + Sync> FromRequestParts<S> for User {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        match peer(parts)? {
            Peer::User(principal) => {
                let request_id = request_id(parts)?;
                Ok(Self(Ctx::local(principal.clone(), Kind::User, request_id)))
            }
            Peer::Node(_) => Err(Error::new(Code::Forbidden, "this route is not for nodes")),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Node {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        match peer(parts)? {
            Peer::Node(node) => {
                let request_id = request_id(parts)?;
                Ok(Self(Ctx::node(node.clone(), request_id), node.clone()))
            }
            Peer::User(_) => Err(Error::new(Code::Forbidden, "this route is for nodes")),
        }
    }
}

fn peer(parts: &Parts) -> Result<&Peer, Error> {
    let missing = || Error::new(Code::Unauthenticated, "nobody is known behind this request");
    parts.extensions.get().ok_or_else(missing)
}

fn request_id(parts: &Parts) -> Result<String, Error> {
    let id = parts.extensions.get::<RequestId>();
    id.map(|id| id.as_str().to_owned()).ok_or_else(|| Error::internal("a request without an id"))
}

/// The `{id}` of the path.
#[derive(Debug)]
pub(crate) struct Id<T>(pub(crate) T);

/// The `{artifact_id}` of the path.
#[derive(Debug)]
pub(crate) struct ArtifactIdOf<T>(pub(crate) T);

/// The `{digest}` of the path.
#[derive(Debug)]
pub(crate) struct Digest(pub(crate) String);

impl<S: Send + Sync, T: FromStr> FromRequestParts<S> for Id<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        segment(parts, state, "id").await.map(Self)
    }
}

impl<S: Send + Sync, T: FromStr> FromRequestParts<S> for ArtifactIdOf<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        segment(parts, state, "artifact_id").await.map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Digest {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let digest: String = segment(parts, state, "digest").await?;
        let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if digest.len() == 64 && digest.bytes().all(hex) {
            Ok(Self(digest))
        } else {
            Err(Error::not_found())
        }
    }
}

async fn segment<S: Send + Sync, T: FromStr>(
    parts: &mut Parts,
    state: &S,
    name: &str,
) -> Result<T, Error> {
    let params = RawPathParams::from_request_parts(parts, state).await;
    let params = params.map_err(|_| Error::not_found())?;
    let found = params.iter().find(|(key, _)| *key == name).map(|(_, value)| value);
    found.and_then(|text| text.parse().ok()).ok_or_else(Error::not_found)
}

/// The query, with every parameter known.
#[derive(Debug)]
pub(crate) struct Query<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        match axum::extract::Query::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(error) => Err(bad_query(&error.body_text())),
        }
    }
}

/// The text is `Failed to deserialize query string: <field>: <what>` or without the field.
fn bad_query(text: &str) -> Error {
    let what = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(text);
    let unknown = what.contains("unknown field `");
    let code = if unknown { Code::UnknownField } else { Code::InvalidArgument };
    let (field, message) = what.split_once(": ").unwrap_or(("query", what));
    let field = if unknown { between_backticks(what) } else { field };
    Error::field(code, field, message)
}

fn between_backticks(text: &str) -> &str {
    text.split('`').nth(1).unwrap_or_default()
}

/// A JSON body of at most [`model::limits::REQUEST_BODY_MAX_BYTES`], with every field known.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Error;

    async fn from_request(request: Request<Body>, _: &S) -> Result<Self, Error> {
        let bytes = read_body(request).await?;
        let mut json = serde_json::Deserializer::from_slice(&bytes);
        let value = serde_path_to_error::deserialize(&mut json).map_err(bad_field)?;
        json.end().map_err(|error| Error::new(Code::MalformedJson, error.to_string()))?;
        Ok(Self(value))
    }
}

async fn read_body(request: Request<Body>) -> Result<bytes::Bytes, Error> {
    check_length(request.headers(), limits::REQUEST_BODY_MAX_BYTES)?;
    let body = Limited::new(request.into_body(), limits::REQUEST_BODY_MAX_BYTES).collect();
    match tokio::time::timeout(BODY_STALL, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(too_large(limits::REQUEST_BODY_MAX_BYTES))
        }
        Ok(Err(_)) => Err(Error::new(Code::BadRequest, "the body broke off")),
        Err(_) => Err(Error::new(Code::BodyTimeout, "the body did not arrive in time")),
    }
}
