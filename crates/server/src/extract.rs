//! What handlers take: the caller, ids, queries, bodies. Each refuses with a stable code.
//!
//! An id that cannot be one names nothing, so it is 404 like an id that names nothing.

use std::str::FromStr;
use std::time::Duration;

use api::{Code, routes};
use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams};
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use model::id::{
    ApprovalId, ArtifactId, EnrollTokenId, JobId, KeyId, NodeId, SandboxId, ServerId, SnapshotId,
};
use model::limits;
use serde::Serialize;
use serde::de::DeserializeOwned;
use service::{Ctx, Idempotency, ProfileRef, Who};
use sha2::{Digest as _, Sha256};

use crate::auth::Peer;
use crate::error::Error;
use crate::node_door::{Lends, Newcomer};
use crate::request::RequestId;

/// How long a body may pause. Only peers that were let in get here, so this is for broken ones.
pub(crate) const BODY_STALL: Duration = Duration::from_secs(30);
/// The longest and shortest Idempotency-Key: shorter ones collide, longer ones are not keys.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 8..=255;

/// A person or program; a node is refused.
#[derive(Debug)]
pub(crate) struct User(pub(crate) Ctx);

/// The same, with what they have shown.
#[derive(Debug)]
pub(crate) struct Caller(pub(crate) Who);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        match peer(parts)? {
            Peer::User(who) => Ok(Self(who.clone())),
            Peer::Node(_) => Err(Error::new(Code::Forbidden, "this route is not for nodes")),
        }
    }
}

/// A node; anybody else is refused.
#[derive(Debug)]
pub(crate) struct Node(pub(crate) Ctx);

impl<S: Send + Sync> FromRequestParts<S> for User {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        match peer(parts)? {
            Peer::User(who) => Ok(Self(Ctx::of(who.clone(), request_id(parts)?))),
            Peer::Node(_) => Err(Error::new(Code::Forbidden, "this route is not for nodes")),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Node {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        match peer(parts)? {
            Peer::Node(node) => {
                let shown = parts.headers.get(routes::LEASE_TOKEN);
                let shown = shown.and_then(|value| value.to_str().ok());
                let ctx = Ctx::node(node.clone(), request_id(parts)?);
                Ok(Self(ctx.showing(shown.map(str::to_owned))))
            }
            Peer::User(_) => Err(Error::new(Code::Forbidden, "this route is for nodes")),
        }
    }
}

/// Whoever wants to become a node: somebody without a certificate at the door of nodes, or a node. The token
/// in the body is what counts.
#[derive(Debug)]
pub(crate) struct Joining;

impl<S: Send + Sync> FromRequestParts<S> for Joining {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        if parts.extensions.get::<Newcomer>().is_some() {
            return Ok(Self);
        }
        match peer(parts)? {
            Peer::Node(_) => Ok(Self),
            Peer::User(_) => Err(Error::new(Code::Forbidden, "this route is for nodes")),
        }
    }
}

/// Another server on the same database.
#[derive(Debug)]
pub(crate) struct PeerServer(pub(crate) ServerId);

impl<S: Send + Sync> FromRequestParts<S> for PeerServer {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let server = parts.extensions.get::<Lends>();
        let server = server.map(|lends| lends.0.clone());
        let forbidden = || Error::new(Code::Forbidden, "this route is for servers");
        server.map(Self).ok_or_else(forbidden)
    }
}

fn peer(parts: &Parts) -> Result<&Peer, Error> {
    let missing = || Error::new(Code::Unauthenticated, "nobody is known behind this request");
    parts.extensions.get().ok_or_else(missing)
}

fn request_id(parts: &Parts) -> Result<String, Error> {
    let id = parts.extensions.get::<RequestId>();
    id.map(|id| id.as_str().to_owned())
        .ok_or_else(|| Error::internal("a request without an id"))
}

/// The job that the path names.
#[derive(Debug)]
pub(crate) struct JobOf(pub(crate) JobId);

/// The sandbox that the path names.
#[derive(Debug)]
pub(crate) struct SandboxOf(pub(crate) SandboxId);

/// The port that the path names.
#[derive(Debug)]
pub(crate) struct PortOf(pub(crate) u16);
/// The snapshot that the path names.
#[derive(Debug)]
pub(crate) struct SnapshotOf(pub(crate) SnapshotId);

/// The snapshot that the path names, by its id or its name. What can be neither names none.
#[derive(Debug)]
pub(crate) struct SnapshotNamed(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for SnapshotNamed {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        segment(parts, state, "id").await.map(Self)
    }
}

/// The artifact that the path names.
#[derive(Debug)]
pub(crate) struct ArtifactOf(pub(crate) ArtifactId);

/// The secret that the path names, by its name or its id. What can be neither names none.
#[derive(Debug)]
pub(crate) struct SecretOf(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for SecretOf {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        segment(parts, state, "name").await.map(Self)
    }
}

/// The profile that the path names, by its name or its id, perhaps with a version. What can be neither names none.
#[derive(Debug)]
pub(crate) struct ProfileOf(pub(crate) ProfileRef);

impl<S: Send + Sync> FromRequestParts<S> for ProfileOf {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        segment(parts, state, "name").await.map(Self)
    }
}

/// The name that a profile is to have; whether it can is for others to say.
#[derive(Debug)]
pub(crate) struct ProfileName(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for ProfileName {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        segment(parts, state, "name").await.map(Self)
    }
}

/// The name of a policy, perhaps with a version; whether it can be one is for others to say.
#[derive(Debug)]
pub(crate) struct PolicyName(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for PolicyName {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        segment(parts, state, "name").await.map(Self)
    }
}

/// The volume that the path names, by its name or its id. What can be neither names none.
#[derive(Debug)]
pub(crate) struct VolumeOf(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for VolumeOf {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        segment(parts, state, "name").await.map(Self)
    }
}

/// The node that the path names.
#[derive(Debug)]
pub(crate) struct NodeOf(pub(crate) NodeId);

impl<S: Send + Sync> FromRequestParts<S> for NodeOf {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        segment(parts, state, "id").await.map(Self)
    }
}

/// The enrollment token that the path names.
#[derive(Debug)]
pub(crate) struct EnrollTokenOf(pub(crate) EnrollTokenId);

impl<S: Send + Sync> FromRequestParts<S> for EnrollTokenOf {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        segment(parts, state, "id").await.map(Self)
    }
}

/// The approval that the path names.
#[derive(Debug)]
pub(crate) struct ApprovalOf(pub(crate) ApprovalId);

impl<S: Send + Sync> FromRequestParts<S> for ApprovalOf {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        segment(parts, state, "id").await.map(Self)
    }
}

/// The key that the path names.
#[derive(Debug)]
pub(crate) struct KeyOf(pub(crate) KeyId);

impl<S: Send + Sync> FromRequestParts<S> for KeyOf {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        segment(parts, state, "id").await.map(Self)
    }
}

/// The tenant or principal that the path names. What can be neither names none.
#[derive(Debug)]
pub(crate) struct NamedOf(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for NamedOf {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        segment(parts, state, "name").await.map(Self)
    }
}

/// The digest that the path names.
#[derive(Debug)]
pub(crate) struct DigestOf(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for JobOf {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        segment(parts, state, "id").await.map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for SandboxOf {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        segment(parts, state, "id").await.map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PortOf {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let port: std::num::NonZeroU16 = segment(parts, state, "port").await?;
        Ok(Self(port.get()))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for SnapshotOf {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        segment(parts, state, "id").await.map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ArtifactOf {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        segment(parts, state, "artifact_id").await.map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for DigestOf {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let digest: String = segment(parts, state, "digest").await?;
        let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let fits = digest.len() == 64 && digest.bytes().all(hex);
        if fits {
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
    let found = params
        .iter()
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value);
    found
        .and_then(|text| text.parse().ok())
        .ok_or_else(Error::not_found)
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

/// The text is `Failed to deserialize query string: <field>: <what>`, or without the field.
fn bad_query(text: &str) -> Error {
    let what = text
        .strip_prefix("Failed to deserialize query string: ")
        .unwrap_or(text);
    match what.split_once(": ") {
        Some((field, message)) => wrong(field, message),
        None => wrong("", what),
    }
}

/// Names the field, also where serde names it only in its sentence.
fn wrong(field: &str, message: &str) -> Error {
    let named = |start: &str| {
        let (name, _) = message.strip_prefix(start)?.split_once('`')?;
        Some(join(field, name))
    };
    if let Some(field) = named("unknown field `") {
        return Error::field(Code::UnknownField, &field, message);
    }
    let inside = named("missing field `").or_else(|| named("duplicate field `"));
    Error::field(
        Code::InvalidArgument,
        inside.as_deref().unwrap_or(field),
        message,
    )
}

/// `limits` and `memory` are `limits.memory`; the root has no name, and serde may have added the
/// name already.
fn join(field: &str, name: &str) -> String {
    let parent = field.trim_end_matches('?').trim_end_matches('.');
    if parent.is_empty() {
        name.to_owned()
    } else if parent == name || parent.ends_with(&format!(".{name}")) {
        parent.to_owned()
    } else {
        format!("{parent}.{name}")
    }
}

/// A JSON body of at most [`limits::BODY_BYTES_MAX`], with every field known.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Error;

    async fn from_request(request: Request<Body>, _: &S) -> Result<Self, Error> {
        read_json(&read_body(request).await?).map(Self)
    }
}

/// The same with at most [`limits::SHORT_BODY_BYTES_MAX`], where somebody asks of whom nothing is known.
#[derive(Debug)]
pub(crate) struct ShortJson<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for ShortJson<T> {
    type Rejection = Error;

    async fn from_request(request: Request<Body>, _: &S) -> Result<Self, Error> {
        read_json(&read_body_of(request, limits::SHORT_BODY_BYTES_MAX).await?).map(Self)
    }
}

/// The same for a route that is also asked without a body, which says nothing then.
#[derive(Debug)]
pub(crate) struct JsonOrNone<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for JsonOrNone<T> {
    type Rejection = Error;

    async fn from_request(request: Request<Body>, _: &S) -> Result<Self, Error> {
        let bytes = read_body(request).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        read_json(&bytes).map(Self)
    }
}

fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    // serde would take the fields of a list in their order, which nobody documents.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(wrong("", "expected an object and not a list"));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(bad_json)?;
    json.end()
        .map_err(|error| Error::new(Code::MalformedJson, error.to_string()))?;
    Ok(value)
}

fn bad_json(error: serde_path_to_error::Error<serde_json::Error>) -> Error {
    let path = error.path().to_string();
    // The body itself has no name; the library writes a dot for it.
    let path = if path == "." { "" } else { &path };
    let inner = error.into_inner();
    match inner.classify() {
        serde_json::error::Category::Data => wrong(path, &inner.to_string()),
        serde_json::error::Category::Syntax
        | serde_json::error::Category::Eof
        | serde_json::error::Category::Io => Error::new(Code::MalformedJson, inner.to_string()),
    }
}

/// At most [`limits::BODY_BYTES_MAX`] of a body.
pub(crate) async fn read_body(request: Request<Body>) -> Result<Bytes, Error> {
    read_body_of(request, limits::BODY_BYTES_MAX).await
}

async fn read_body_of(request: Request<Body>, most: usize) -> Result<Bytes, Error> {
    check_length(request.headers(), most as u64)?;
    let read = Limited::new(request.into_body(), most).collect();
    match tokio::time::timeout(BODY_STALL, read).await {
        Ok(Ok(read)) => Ok(read.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(most as u64)),
        Ok(Err(_)) => Err(broken_off()),
        Err(_) => Err(stalled()),
    }
}

/// Refuses a body that says itself that it is too large, before a byte of it is read.
pub(crate) fn check_length(headers: &HeaderMap, most: u64) -> Result<(), Error> {
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok());
    let length = length.and_then(|length| length.parse::<u64>().ok());
    if length.is_some_and(|length| length > most) {
        Err(too_large(most))
    } else {
        Ok(())
    }
}

pub(crate) fn too_large(most: u64) -> Error {
    Error::new(
        Code::BodyTooLarge,
        format!("the body is larger than {most} bytes"),
    )
}

pub(crate) fn broken_off() -> Error {
    Error::new(Code::BadRequest, "the body broke off")
}

pub(crate) fn stalled() -> Error {
    Error::new(Code::BodyTimeout, "the body did not arrive in time")
}

/// The Idempotency-Key of a create, if it has one.
#[derive(Debug)]
pub(crate) struct Key(Option<String>);

impl Key {
    /// Binds the key to a request: two texts of the same request are the same, `wait` is no part.
    pub(crate) fn of(self, request: &impl Serialize) -> Result<Option<Idempotency>, Error> {
        let Some(key) = self.0 else { return Ok(None) };
        let text = serde_json::to_vec(request).map_err(Error::internal)?;
        let digest = Sha256::digest(text);
        let request_hash = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Some(Idempotency { key, request_hash }))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Key {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        let mut keys = parts.headers.get_all(routes::IDEMPOTENCY_KEY).iter();
        let Some(key) = keys.next() else {
            return Ok(Self(None));
        };
        match key.to_str() {
            Ok(key)
                if KEY_BYTES.contains(&key.len())
                    && key.bytes().all(plain)
                    && keys.next().is_none() =>
            {
                Ok(Self(Some(key.to_owned())))
            }
            _ => {
                let message = "an Idempotency-Key is 8 to 255 of A-Z, a-z, 0-9, `_` and `-`";
                Err(Error::field(
                    Code::InvalidArgument,
                    "Idempotency-Key",
                    message,
                ))
            }
        }
    }
}
