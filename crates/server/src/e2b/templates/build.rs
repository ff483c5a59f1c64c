//! Builds of templates: asked for, given their files, begun, watched.

use axum::extract::{Path, RawQuery, Request, State};
use axum::response::IntoResponse as _;
use axum::{Extension, Json as Answer};
use http::header::{HOST, HeaderMap};
use http::{StatusCode, Uri};
use model::id::BuildId;
use serde_json::json;
use service::{BuildRow, Ctx, Level, LogQuery};

use super::wire::{self, NewBuild, Start};
use super::{named, refused};
use crate::App;
use crate::e2b::account::Shown;
use crate::e2b::control::{Answered, CreateKey, Lenient};
use crate::e2b::keys::Upload;
use crate::e2b::query::pairs;
use crate::e2b::refusal::Refusal;
use crate::upload;

/// Entries of a log in one answer: E2B's bound, which its clients count on.
const LOGS_MAX: u32 = 100;
/// How long an archive may be sent after its place was asked for. The clients give up after an hour.
const UPLOAD_S: u64 = 2 * 3600;

pub(super) async fn create(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    CreateKey(key): CreateKey,
    Lenient(asked): Lenient<NewBuild>,
) -> Answered {
    let key = key.of(&asked)?;
    let made = app.service.build_create(&ctx, asked.ask()?, key).await;
    let (profile, build) = made.map_err(|error| refused("", error))?;
    Ok((
        StatusCode::ACCEPTED,
        Answer(wire::requested(&profile, &build)),
    )
        .into_response())
}

/// What the first clients did: they sent an image to a registry.
pub(super) async fn no_images() -> Refusal {
    Refusal::not_here(
        "builds from an image that is sent to a registry; builds of steps are at /v3/templates",
    )
}

/// Whether files are here, and where to send them.
pub(super) async fn files(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    Extension(shown): Extension<Shown>,
    Path((id, hash)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
) -> Answered {
    let profile = app.service.profile_get(&ctx, &named(&id)?).await;
    profile.map_err(|error| refused(&id, error))?;
    let present = app.service.build_file(&ctx, &hash).await?.is_some();
    let path = uri.path();
    let (tenant, principal) = (shown.who.tenant.as_str(), shown.who.principal.as_str());
    let query = shown.keys.and_then(|keys| {
        let expires_s = app.service.clock().now_ms() / 1000 + UPLOAD_S;
        let template = path.strip_prefix("/templates/")?.split_once("/files/")?.0;
        let hash = &hash;
        let upload = Upload {
            template,
            hash,
            expires_s,
            tenant,
            principal,
        };
        let signature = keys.upload_signature(&upload);
        Some(format!(
            "?expires={expires_s}&tenant={tenant}&principal={principal}&signature={signature}"
        ))
    });
    // The door has made sure that it is one of ours.
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let scheme = app.site.as_ref().map_or("http", |site| site.scheme());
    let (host, query) = (host.unwrap_or("localhost"), query.unwrap_or_default());
    let url = format!("{scheme}://{host}{path}{query}");
    let answer = json!({"present": present, "url": url});
    Ok((StatusCode::CREATED, Answer(answer)).into_response())
}

/// Takes an archive in. Nothing looks into it on this side.
pub(super) async fn upload(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    Path((id, hash)): Path<(String, String)>,
    request: Request,
) -> Answered {
    let profile = app.service.profile_get(&ctx, &named(&id)?).await;
    profile.map_err(|error| refused(&id, error))?;
    if !model::profile::is_files_name(&hash) {
        return Err(Refusal::bad(
            "files are named by 64 hexadecimal digits in small letters",
        ));
    }
    let written = upload::take_in(&app, &ctx, request).await?;
    app.service.build_file_put(&ctx, &hash, &written).await?;
    Ok(StatusCode::OK.into_response())
}

pub(super) async fn begin(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    Path((id, build)): Path<(String, String)>,
    Lenient(start): Lenient<Start>,
) -> Answered {
    let profile = named(&id)?;
    let build_id = build_id(&build)?;
    let recipe = start.recipe()?;
    let begun = app
        .service
        .build_begin(&ctx, (&profile, &build_id), recipe)
        .await;
    begun.map_err(|error| no_build(&build, error))?;
    Ok(StatusCode::ACCEPTED.into_response())
}

pub(super) async fn status(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    Path(path): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Answered {
    let query = log_query(query.as_deref())?;
    // The state first: entries that come after the look at it are for the next one, and none comes after a build
    // is over.
    let row = find(&app, &ctx, &path).await?;
    let entries = app.service.build_logs(&row, query).await?;
    Ok(Answer(wire::info(&row, &entries)).into_response())
}

pub(super) async fn logs(
    State(app): State<App>,
    Extension(ctx): Extension<Ctx>,
    Path(path): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Answered {
    let query = log_query(query.as_deref())?;
    let row = find(&app, &ctx, &path).await?;
    let entries = app.service.build_logs(&row, query).await?;
    let entries: Vec<_> = entries.iter().map(wire::entry).collect();
    Ok(Answer(json!({"logs": entries})).into_response())
}

async fn find(app: &App, ctx: &Ctx, (id, build): &(String, String)) -> Result<BuildRow, Refusal> {
    let row = app
        .service
        .build_get(ctx, &named(id)?, &build_id(build)?)
        .await;
    row.map_err(|error| no_build(build, error))
}

fn build_id(text: &str) -> Result<BuildId, Refusal> {
    BuildId::from_uuid(text).map_err(|_| no_build(text, service::Error::NotFound))
}

fn no_build(text: &str, error: service::Error) -> Refusal {
    if !matches!(error, service::Error::NotFound) {
        return error.into();
    }
    let shown: String = text
        .chars()
        .take(model::limits::PROFILE_BYTES_MAX)
        .collect();
    Refusal::new(
        StatusCode::NOT_FOUND,
        format!("build \"{shown}\" was not found"),
    )
}

/// Which entries are asked for. Without a level those that say what happens.
fn log_query(query: Option<&str>) -> Result<LogQuery, Refusal> {
    let mut asked = LogQuery {
        level: Level::Info,
        offset: 0,
        limit: LOGS_MAX,
        backward: false,
        from_ms: None,
    };
    for (name, text) in pairs(query)? {
        let number = || -> Result<u64, Refusal> {
            let wrong = |_| Refusal::bad(format!("{name}: not a number"));
            text.parse().map_err(wrong)
        };
        match name.as_str() {
            "logsOffset" => asked.offset = number()?.min(model::limits::BUILD_LOGS_MAX),
            "limit" => {
                let limit = u32::try_from(number()?).unwrap_or(LOGS_MAX);
                asked.limit = limit.clamp(1, LOGS_MAX);
            }
            "cursor" => asked.from_ms = Some(number()?.min(u64::MAX >> 1)),
            "direction" => asked.backward = text == "backward",
            "level" => {
                let wrong = || Refusal::bad("level: debug, info, warn or error");
                asked.level = wire::level_of(&text).ok_or_else(wrong)?;
            }
            _ => {}
        }
    }
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_asked_for_in_pieces() {
        let asked = log_query(Some(
            "logsOffset=7&limit=9999&level=debug&direction=backward",
        ))
        .unwrap();
        assert_eq!(
            (asked.offset, asked.limit, asked.level),
            (7, LOGS_MAX, Level::Debug)
        );
        assert!(asked.backward);
        assert_eq!(log_query(None).unwrap().level, Level::Info);
        assert!(log_query(Some("level=loud")).is_err() && log_query(Some("limit=x")).is_err());
    }
}
