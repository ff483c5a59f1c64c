//! Teams and keys as E2B's clients ask for them: there is one owner, and one key, which is made from the
//! token of the server and cannot be made or taken back here.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json as Answer};
use http::StatusCode;
use serde_json::json;
use service::Ctx;

use super::keys::Keys;
use super::refusal::Refusal;
use super::wire::{self, TEMPLATES};
use crate::App;

/// The owner, as a UUID, which is what clients take for a team.
const TEAM: &str = "00000000-0000-4000-8000-000000000001";
/// The key, as one.
const KEY: &str = "00000000-0000-4000-8000-000000000002";
/// Digits of a key that are shown, so that a person can tell which one it is.
const SHOWN: usize = 4;

/// What opens the control plane, for whoever has shown it; over a connection that says itself who is
/// there, there is none to tell.
#[derive(Debug, Clone)]
pub(crate) struct Shown(pub(crate) Option<Keys>);

/// The one team, with the key that its members have.
pub(crate) async fn teams(Extension(Shown(keys)): Extension<Shown>) -> Response {
    let api_key = keys.as_ref().map_or("", Keys::api_key);
    let team = json!({"teamID": TEAM, "name": "cofferdam", "apiKey": api_key, "isDefault": true});
    Answer(json!([team])).into_response()
}

/// The one key, of which the beginning is shown.
pub(crate) async fn keys(Extension(Shown(keys)): Extension<Shown>) -> Response {
    let one = |keys: Keys| {
        let (prefix, digits) = keys.api_key().split_at(PREFIX.len());
        let mask = json!({
            "prefix": prefix,
            "valueLength": digits.len(),
            "maskedValuePrefix": digits.get(..SHOWN).unwrap_or_default(),
            "maskedValueSuffix": "",
        });
        // When the token was made nobody has written down.
        json!({"id": KEY, "name": "cofferdam", "mask": mask, "createdAt": wire::time(0)})
    };
    let keys: Vec<_> = keys.into_iter().map(one).collect();
    Answer(keys).into_response()
}

/// What every key begins with.
const PREFIX: &str = "e2b_";

/// Why there is no other key.
pub(crate) async fn no_keys() -> Refusal {
    let message = "Cofferdam does not make or take back API keys: there is one, made from the token of the \
                   server; `cofferdam env e2b` prints it, and a new token makes a new one";
    Refusal::new(StatusCode::NOT_IMPLEMENTED, message)
}

/// The templates that are there from the start, and the root file systems that the operator has given.
pub(crate) async fn default_templates(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
) -> Result<Response, Refusal> {
    let one = |name: &str| {
        json!({
            "templateID": name,
            "aliases": [name],
            "names": [name],
            "buildID": "00000000-0000-0000-0000-000000000000",
            "cpuCount": 1,
            "memoryMB": model::limits::MEMORY_DEFAULT_BYTES >> 20,
            "public": true,
            "isDefault": true,
            "createdAt": wire::time(0),
            "updatedAt": wire::time(0),
            "createdBy": null,
        })
    };
    let roots = app.service.root_list(&ctx).await?;
    let roots = roots.iter().map(|root| root.name.as_str());
    let roots = roots.filter(|name| !TEMPLATES.contains(name));
    let templates: Vec<_> = TEMPLATES.into_iter().chain(roots).map(one).collect();
    Ok(Answer(templates).into_response())
}
