//! `cofferdam login`, `logout` and `whoami`: the device authorization grant (RFC 8628) with a provider of identities that
//! the server names.
//!
//! What a provider and a server say is not ours: addresses are asked over TLS or on loopback alone, what is shown on the
//! terminal is made harmless, and everything is bounded.

mod browser;

use crate::cli::args::{LoginArgs, Place};
use crate::cli::failure::Failure;
use crate::cli::job::when;
use crate::cli::table;
use crate::logins::{self, ANSWER_MAX, Login, Tokens, failed, name_of, now_s};
use crate::web::{Ask, Site, get, post};
use api::Code;
use api::client::Client;
use api::people::{LoginInfo, LoginProvider, Me};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// The longest wait for a person, whatever the provider allows.
const LOGIN_S_MAX: u64 = 1800;
/// How often is asked whether the person is done, in seconds: as RFC 8628 has it where nothing is said, and at most.
const INTERVAL_S: u64 = 5;
const INTERVAL_S_MAX: u64 = 60;
const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// What a provider says of itself (OpenID Connect Discovery 1.0).
#[derive(Debug, Deserialize)]
struct Provider {
    issuer: String,
    token_endpoint: String,
    authorization_endpoint: Option<String>,
    device_authorization_endpoint: Option<String>,
    revocation_endpoint: Option<String>,
}

/// What a person has to do (RFC 8628, section 3.2).
#[derive(Debug, Deserialize)]
struct Device {
    device_code: String,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    expires_in: u64,
    interval: Option<u64>,
}

/// Logs in.
pub(crate) async fn login(place: &Place, asked: LoginArgs) -> Result<ExitCode, Failure> {
    let url = server(place, asked.server.as_deref())?;
    let ca = place.ca.as_deref();
    let named = chosen(&url, ca, asked.issuer.as_deref()).await?;
    let provider = provider(&named, ca).await?;
    let tokens = match asked.browser {
        true => browser::login(&provider, &named, ca).await?,
        false => {
            let device = device(&provider, &named, ca).await?;
            show(&device);
            person(&provider, &named, &device, ca).await?
        }
    };
    let token = tokens.shown(&named.token);
    let token = token.ok_or_else(|| failed(&format!("the provider gave no {}", named.token)))?;
    // Only what the server takes is kept.
    let me = Client::new(crate::reach::with_token(&url, place, &token)?)
        .me()
        .await?;
    let login = Login {
        url: name_of(&url).to_owned(),
        client_id: named.client_id,
        token_endpoint: provider.token_endpoint,
        revocation_endpoint: provider.revocation_endpoint,
        shows: named.token,
        expires_at_s: tokens.expires_at_s(&token),
        token,
        refresh_token: tokens.refresh_token,
        ca: place.ca.clone(),
    };
    let path = logins::write(&login)?;
    table::note(&format!(
        "the login is in {}, for you alone",
        path.display()
    ));
    if place.url.as_deref().map(name_of) != Some(&*login.url) {
        table::hint(&format!("export COFFERDAM_URL={}", login.url));
    }
    print(&me, asked.json)
}

/// Forgets a login.
pub(crate) async fn logout(
    place: &Place,
    named: Option<&str>,
    json: bool,
) -> Result<ExitCode, Failure> {
    let url = server(place, named)?;
    let Some(login) = logins::forget(&url) else {
        let failure = Failure::new(Code::NotFound, format!("there is no login at {url}"));
        return Err(failure.hint("`cofferdam login` makes one"));
    };
    let mut is_revoked = false;
    if let (Some(endpoint), Some(token)) = (&login.revocation_endpoint, &login.refresh_token) {
        let form = [
            ("token", token.as_str()),
            ("token_type_hint", "refresh_token"),
            ("client_id", login.client_id.as_str()),
        ];
        let ask = Ask {
            ca: login.ca.as_deref(),
            most: ANSWER_MAX,
        };
        let answer = post(endpoint, &form, ask).await;
        is_revoked = answer.is_ok_and(|answer| answer.status == 200);
        if !is_revoked {
            table::note(
                "the provider did not take the refresh token back; it may count there still",
            );
        }
    }
    let text = match json {
        true => table::to_json(&serde_json::json!({"url": login.url, "revoked": is_revoked}))?,
        false => format!("{}\n", login.url),
    };
    table::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Says who we are.
pub(crate) async fn whoami(client: &Client, json: bool) -> Result<ExitCode, Failure> {
    print(&client.me().await?, json)
}

fn print(me: &Me, json: bool) -> Result<ExitCode, Failure> {
    let text = match json {
        true => table::to_json(me)?,
        false => {
            let line = |name: &str, value: String| vec![name.to_owned(), value];
            let by = match &me.credential_of {
                Some(of) => format!("{} {of}", me.credential),
                None => me.credential.clone(),
            };
            let until = me.expires_at_ms.map_or_else(|| "-".to_owned(), when);
            let scopes = match me.scopes.is_empty() {
                true => "-".to_owned(),
                false => me.scopes.join(" "),
            };
            let rows = vec![
                line("PRINCIPAL", me.principal.clone()),
                line("TENANT", me.tenant.clone()),
                line("ROLE", me.role.clone()),
                line("SCOPES", scopes),
                line("BY", by),
                line("UNTIL (UTC)", until),
            ];
            table::layout(&["", ""], rows)
        }
    };
    table::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The server of a login. In the clear, whoever is on the way could have the token; its own socket knows us already.
fn server(place: &Place, named: Option<&str>) -> Result<String, Failure> {
    let url = named.or(place.url.as_deref());
    let refused = |message: String| {
        let failure = Failure::new(Code::InvalidArgument, message);
        failure
            .hint("name a server with --url https://HOST[:PORT]; http:// is for this machine alone")
    };
    let url = url.ok_or_else(|| refused("there is no server named".to_owned()))?;
    let site = Site::parse(url);
    site.map_err(|why| refused(format!("failed to use `{url}`: {why}")))?;
    Ok(name_of(url).to_owned())
}

async fn asked<T: DeserializeOwned>(url: &str, ca: Option<&Path>) -> Result<T, Failure> {
    let most = ANSWER_MAX;
    let body = get(url, Ask { ca, most }).await;
    let body = body.map_err(|why| failed(&format!("{url}: {why}")))?;
    let read = serde_json::from_slice(&body);
    read.map_err(|_| failed(&format!("{url}: it answered something else")))
}

/// The provider that the server names, or that of several which was asked for.
async fn chosen(
    url: &str,
    ca: Option<&Path>,
    issuer: Option<&str>,
) -> Result<LoginProvider, Failure> {
    let info: LoginInfo = asked(&format!("{url}{}", api::routes::LOGIN), ca).await?;
    let is_asked = |one: &LoginProvider| issuer.is_none_or(|issuer| one.issuer == issuer);
    let mut fitting = info.providers.into_iter().filter(is_asked);
    let (first, second) = (fitting.next(), fitting.next());
    match (first, second) {
        (Some(one), None) => Ok(one),
        (None, _) => {
            let failure = failed("the server names no such provider");
            Err(failure.hint("ask who runs it for a key: `cofferdam key create`"))
        }
        (Some(one), Some(other)) => {
            let message = format!(
                "there are {}, {} and perhaps more",
                one.issuer, other.issuer
            );
            Err(failed(&message).hint("name one with --issuer"))
        }
    }
}

/// Asks a provider for its addresses. Those of one that is asked over TLS are, too.
async fn provider(named: &LoginProvider, ca: Option<&Path>) -> Result<Provider, Failure> {
    let base = named.issuer.trim_end_matches('/');
    let url = format!("{base}/.well-known/openid-configuration");
    let provider: Provider = asked(&url, ca).await?;
    // Else one provider could speak for another (RFC 8414, section 3.3).
    if provider.issuer != named.issuer {
        return Err(failed(&format!("{url} is of another issuer")));
    }
    let endpoints = [
        Some(&provider.token_endpoint),
        provider.authorization_endpoint.as_ref(),
        provider.device_authorization_endpoint.as_ref(),
        provider.revocation_endpoint.as_ref(),
    ];
    for endpoint in endpoints.into_iter().flatten() {
        let is_as_safe = endpoint.starts_with("https://") || named.issuer.starts_with("http://");
        if !is_as_safe || Site::parse(endpoint).is_err() {
            return Err(failed("the provider has an address that is not https"));
        }
    }
    Ok(provider)
}

async fn device(
    provider: &Provider,
    named: &LoginProvider,
    ca: Option<&Path>,
) -> Result<Device, Failure> {
    let endpoint = provider.device_authorization_endpoint.as_deref();
    let missing = || failed("the provider has no logins by code (RFC 8628)");
    let endpoint = endpoint.ok_or_else(|| missing().hint("try it with --browser"))?;
    let scopes = named.scopes.join(" ");
    let form = [
        ("client_id", named.client_id.as_str()),
        ("scope", scopes.as_str()),
    ];
    let most = ANSWER_MAX;
    let answer = post(endpoint, &form, Ask { ca, most }).await;
    let answer = answer.map_err(|why| failed(&format!("{endpoint}: {why}")))?;
    let read = serde_json::from_slice(&answer.body);
    read.map_err(|_| failed(&format!("{endpoint}: it answered HTTP {}", answer.status)))
}

/// Says what to do. The terminal's own characters are taken out where it is written.
fn show(device: &Device) {
    table::note(&format!(
        "open {} in a browser, and type the code {}",
        device.verification_uri, device.user_code
    ));
    if let Some(whole) = &device.verification_uri_complete {
        table::note(&format!("or open {whole}, if it shows the same code"));
    }
}

/// Asks until the person has said yes or no, or has had the time for it.
async fn person(
    provider: &Provider,
    named: &LoginProvider,
    device: &Device,
    ca: Option<&Path>,
) -> Result<Tokens, Failure> {
    let until_s = now_s().saturating_add(device.expires_in.min(LOGIN_S_MAX));
    let mut interval_s = device.interval.unwrap_or(INTERVAL_S);
    let form = [
        ("grant_type", DEVICE_GRANT),
        ("device_code", device.device_code.as_str()),
        ("client_id", named.client_id.as_str()),
    ];
    let most = ANSWER_MAX;
    while now_s() < until_s {
        interval_s = interval_s.clamp(1, INTERVAL_S_MAX);
        tokio::time::sleep(Duration::from_secs(interval_s)).await;
        let Ok(answer) = post(&provider.token_endpoint, &form, Ask { ca, most }).await else {
            // Section 3.5: one that does not answer is asked less often.
            interval_s = interval_s.saturating_mul(2);
            continue;
        };
        let tokens = Tokens::read(&answer)?;
        match tokens.error.as_deref() {
            None if answer.status == 200 => return Ok(tokens),
            Some("authorization_pending") => {}
            Some("slow_down") => interval_s = interval_s.saturating_add(INTERVAL_S),
            Some("access_denied") => return Err(failed("the provider says no")),
            Some("expired_token") => break,
            Some(other) => {
                let known: String = other.chars().take(64).collect();
                return Err(failed(&format!("the provider says `{known}`")));
            }
            None => {
                return Err(failed(&format!(
                    "the provider answered HTTP {}",
                    answer.status
                )));
            }
        }
    }
    Err(failed("the time in which the code could be typed is over"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_logs_in_over_the_clear_beyond_this_machine() {
        let place = Place::default();
        for good in [
            "https://c.example",
            "https://c.example:7300/",
            "http://127.0.0.1:7300",
        ] {
            assert!(server(&place, Some(good)).is_ok(), "{good}");
        }
        for bad in [
            "http://c.example:7300",
            "http://10.0.0.1:1",
            "unix:/x",
            "c.example",
        ] {
            assert!(server(&place, Some(bad)).is_err(), "{bad}");
        }
        assert!(server(&place, None).is_err());
    }
}
