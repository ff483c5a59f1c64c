//! What is inside a sandbox: its guest, and its ports. What E2B's door does for E2B's clients, this does
//! for ours, with the credential of the server in place of the sandbox's own.

use api::guest::{TUNNEL, USER};
use api::{Code, ErrorBody, routes};
use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{AUTHORIZATION, HeaderValue};
use http::request::Parts;
use model::access::Action;

use crate::App;
use crate::attach::{switching, upgrade_of};
use crate::e2b::aim::ENVD_PORT;
use crate::e2b::find::{self, Unreachable};
use crate::e2b::keys::API_KEY;
use crate::e2b::proxy::{self, Stopped};
use crate::error::Error;
use crate::extract::{PortOf, SandboxOf, User};

/// Reads from the guest of a sandbox, in E2B's protocol: `/files`, `/health`, `/metrics`, `/envs`. The
/// header `cofferdam-user` names the user inside, `user` or `root`. A sandbox that sleeps and resumes on
/// traffic is woken.
#[utoipa::path(get, path = routes::SANDBOX_GUEST_PATH, tag = "sandboxes",
    operation_id = "sandbox_guest_get",
    params(("id" = String, Path, description = "The sandbox"),
        ("*path" = String, Path, description = "What the guest serves")),
    responses((status = 200, description = "What the guest says"),
              (status = 404, description = "No such sandbox, or no such route of a guest",
               body = ErrorBody),
              (status = 409, description = "It is paused", body = ErrorBody),
              (status = 410, description = "It is over", body = ErrorBody),
              (status = 429, description = "Too many connections", body = ErrorBody),
              (status = 502, description = "The guest does not answer", body = ErrorBody)))]
pub(crate) async fn read(
    app: State<App>,
    user: User,
    id: SandboxOf,
    request: Request,
) -> Result<Response, Error> {
    pass(app, user, id, request).await
}

/// Asks the guest of a sandbox, in E2B's protocol: `process.Process`, `filesystem.Filesystem`, `/files`.
/// The header `cofferdam-user` names the user inside, `user` or `root`. A sandbox that sleeps and resumes
/// on traffic is woken.
#[utoipa::path(post, path = routes::SANDBOX_GUEST_PATH, tag = "sandboxes",
    operation_id = "sandbox_guest_post",
    params(("id" = String, Path, description = "The sandbox"),
        ("*path" = String, Path, description = "What the guest serves")),
    responses((status = 200, description = "What the guest says"),
              (status = 404, description = "No such sandbox, or no such route of a guest",
               body = ErrorBody),
              (status = 409, description = "It is paused", body = ErrorBody),
              (status = 410, description = "It is over", body = ErrorBody),
              (status = 429, description = "Too many connections", body = ErrorBody),
              (status = 502, description = "The guest does not answer", body = ErrorBody)))]
pub(crate) async fn ask(
    app: State<App>,
    user: User,
    id: SandboxOf,
    request: Request,
) -> Result<Response, Error> {
    pass(app, user, id, request).await
}

async fn pass(
    State(app): State<App>,
    User(ctx): User,
    SandboxOf(id): SandboxOf,
    request: Request,
) -> Result<Response, Error> {
    let (mut parts, body) = request.into_parts();
    aim_inside(&mut parts)?;
    let sandbox = find::sandbox(&app, &ctx, &id).await?;
    let request = Request::from_parts(parts, body);
    // Whoever is here has been let in by the server, which vouches for them.
    Ok(proxy::pass(&app, (&ctx, None), (&sandbox, ENVD_PORT), request).await?)
}

/// Makes the head into that for the guest: the rest of the path, and in place of our credential the user
/// inside, whom envd reads where the credential stood.
fn aim_inside(parts: &mut Parts) -> Result<(), Error> {
    let bad = || Error::new(Code::BadRequest, "the path cannot be one of a guest");
    let whole = parts.uri.path_and_query().ok_or_else(bad)?.as_str();
    // `/v1/sandboxes/{id}/guest/...`, as the router has seen.
    let inside = whole.splitn(6, '/').nth(5).ok_or_else(bad)?;
    parts.uri = format!("/{inside}").parse().map_err(|_| bad())?;
    parts.headers.remove(AUTHORIZATION);
    parts.headers.remove(API_KEY);
    if let Some(user) = parts.headers.remove(USER) {
        let named = BASE64_STANDARD.encode([user.as_bytes(), b":"].concat());
        let value = HeaderValue::from_str(&format!("Basic {named}")).map_err(|_| bad())?;
        parts.headers.insert(AUTHORIZATION, value);
    }
    Ok(())
}

/// Connects to a port in a sandbox. After the upgrade the connection is that of whoever listens there;
/// it is cut when nothing moves on it for ten to twenty minutes.
#[utoipa::path(get, path = routes::SANDBOX_PORT, tag = "sandboxes", operation_id = "sandbox_port",
    params(("id" = String, Path, description = "The sandbox"),
        ("port" = u16, Path, description = "The port")),
    responses((status = 101, description = "Bytes follow, both ways"),
              (status = 404, description = "No such sandbox or port", body = ErrorBody),
              (status = 409, description = "It is paused", body = ErrorBody),
              (status = 410, description = "It is over", body = ErrorBody),
              (status = 426, description = "The upgrade is missing", body = ErrorBody),
              (status = 429, description = "Too many connections", body = ErrorBody),
              (status = 502, description = "Nobody listens there, or the guest does not answer",
               body = ErrorBody)))]
pub(crate) async fn port(
    State(app): State<App>,
    User(ctx): User,
    SandboxOf(id): SandboxOf,
    PortOf(port): PortOf,
    mut request: Request,
) -> Result<Response, Error> {
    ctx.may(Action::SandboxWrite)?;
    let upgrade = upgrade_of(&mut request, TUNNEL)?;
    let sandbox = find::sandbox(&app, &ctx, &id).await?;
    let (tunnel, place) = proxy::tunnel(&app, &ctx, (&sandbox, port)).await?;
    let stopping = app.stopping.clone();
    drop(app.tasks.spawn(async move {
        stopping.run_until_cancelled(tunnel.carry(upgrade)).await;
        drop(place);
    }));
    Ok(switching(TUNNEL))
}

impl From<Unreachable> for Error {
    fn from(why: Unreachable) -> Self {
        match why {
            Unreachable::Absent => Self::not_found(),
            Unreachable::Over => Self::new(Code::SandboxGone, "the sandbox is over"),
            Unreachable::Paused => Self::new(Code::SandboxPaused, "the sandbox is paused"),
            Unreachable::Busy(state) => {
                Self::new(Code::Conflict, format!("the sandbox is {state}"))
            }
            Unreachable::Failed(error) => error.into(),
        }
    }
}

impl From<Stopped> for Error {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Hidden => Self::new(Code::NotFound, "a guest has no such route"),
            Stopped::Locked(refusal) => Self::new(Code::Forbidden, refusal.to_string()),
            Stopped::Full => Self::new(Code::TooMuch, "too many connections to the sandbox"),
            Stopped::Closed => Self::new(Code::PortClosed, "nobody listens at this port"),
            Stopped::Silent => {
                let message = "the guest of the sandbox does not answer";
                Self::new(Code::GuestUnavailable, message)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(target: &str, user: Option<&str>, expect: &str, credential: Option<&str>) {
        let mut request = http::Request::get(target).header(AUTHORIZATION, "Bearer ours");
        if let Some(user) = user {
            request = request.header(USER, user);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        aim_inside(&mut parts).unwrap();
        let sent = parts.headers.get(AUTHORIZATION);
        let sent = sent.map(|value| value.to_str().unwrap());
        assert_eq!((parts.uri.to_string().as_str(), sent), (expect, credential));
        assert!(!parts.headers.contains_key(USER));
    }

    #[test]
    fn the_guest_sees_its_own_path_and_user_and_nothing_of_our_credential() {
        let base = "/v1/sandboxes/sbx_1/guest";
        check(
            &format!("{base}/files?path=a%2Fb"),
            None,
            "/files?path=a%2Fb",
            None,
        );
        let call = format!("{base}/process.Process/Start");
        let root = Some("Basic cm9vdDo=");
        check(&call, Some("root"), "/process.Process/Start", root);
        check(&format!("{base}//x"), None, "//x", None);
    }
}
