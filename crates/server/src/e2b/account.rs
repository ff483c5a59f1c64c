//! Teams and keys as E2B's clients ask for them: the one team and the one key of whoever asks. Keys are made and
//! taken back by `/v1/keys`.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json as Answer};
use http::StatusCode;
use http::request::Parts;
use serde_json::json;
use service::{Ctx, Who};

use super::keys::{self, Keys};
use super::refusal::Refusal;
use super::shown_key;
use super::wire::{self, TEMPLATES};
use crate::App;
use crate::auth::Visitor;

/// The owner, as a UUID, which is what clients take for a team.
const TEAM: &str = "00000000-0000-4000-8000-000000000001";
/// The key, as one.
const KEY: &str = "00000000-0000-4000-8000-000000000002";
/// Digits of a key that are shown, so that a person can tell which one it is.
const SHOWN: usize = 4;

/// What opens the control plane, for whoever has shown it; over a connection that says itself who is
/// there, there is none to tell.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    /// Those of the server, to sign with.
    pub(crate) keys: Option<Keys>,
    /// The key, as E2B's clients take it.
    api_key: Option<String>,
    pub(crate) who: Who,
}

impl Shown {
    pub(crate) fn of(visitor: &Visitor, parts: &Parts, who: &Who) -> Self {
        let keys = visitor.keys().cloned();
        let sent = shown_key(parts).and_then(|sent| std::str::from_utf8(sent).ok());
        // What an issuer has signed has no form for these clients.
        let sent = sent.filter(|sent| keys.is_some() && !service::is_jwt_text(sent));
        let api_key = sent.map(|sent| {
            let is_short = sent.starts_with(PREFIX);
            if is_short {
                sent.to_owned()
            } else {
                keys::api_key(sent)
            }
        });
        Self {
            keys,
            api_key,
            who: who.clone(),
        }
    }
}

/// The one team, with the key that its members have.
pub(crate) async fn teams(Extension(shown): Extension<Shown>) -> Response {
    let api_key = shown.api_key.unwrap_or_default();
    let team = json!({"teamID": TEAM, "name": "cofferdam", "apiKey": api_key, "isDefault": true});
    Answer(json!([team])).into_response()
}

/// The one key, of which the beginning is shown.
pub(crate) async fn keys(Extension(shown): Extension<Shown>) -> Response {
    let one = |key: String| {
        let digits = key.strip_prefix(PREFIX).unwrap_or_default();
        let mask = json!({
            "prefix": PREFIX,
            "valueLength": digits.len(),
            "maskedValuePrefix": digits.get(..SHOWN).unwrap_or_default(),
            "maskedValueSuffix": "",
        });
        // When the token was made nobody has written down.
        json!({"id": KEY, "name": "cofferdam", "mask": mask, "createdAt": wire::time(0)})
    };
    let keys: Vec<_> = shown.api_key.into_iter().map(one).collect();
    Answer(keys).into_response()
}

/// What every key begins with.
const PREFIX: &str = "e2b_";

/// Why there is no other key.
pub(crate) async fn no_keys() -> Refusal {
    let message = "API keys are not made or taken back here; `cofferdam key create` makes one, and answers the form \
                   of it that E2B's clients take";
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
