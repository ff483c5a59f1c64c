//! Logins of this user at servers: what providers of identities have given, kept for this user alone, and renewed before
//! it ends.

use crate::cli::failure::Failure;
use crate::private::{Locked, lock, private_dir, write_private};
use crate::web::{Answer, Ask, post};
use api::Code;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// An answer with tokens has some KiB.
pub(crate) const ANSWER_MAX: usize = 64 * 1024;
/// The longest life of a token that is believed of a provider.
const LIFE_S_MAX: u64 = 24 * 3600;
/// How long before its end a token is renewed: longer than a request takes.
const RENEW_BEFORE_S: u64 = 60;
/// How often, and how long apart, it is looked whether another command has renewed it.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(100);

/// What a login has brought.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Login {
    /// The server.
    pub(crate) url: String,
    pub(crate) client_id: String,
    pub(crate) token_endpoint: String,
    #[serde(default)]
    pub(crate) revocation_endpoint: Option<String>,
    /// Which of the provider's tokens counts at the server.
    pub(crate) shows: String,
    /// That token.
    pub(crate) token: String,
    #[serde(default)]
    pub(crate) refresh_token: Option<String>,
    /// In seconds since 1970.
    pub(crate) expires_at_s: u64,
    /// Whom to trust in place of those that this machine trusts.
    #[serde(default)]
    pub(crate) ca: Option<PathBuf>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({})", self.url)
    }
}

/// Tokens, or why there are none, as a provider answers them (RFC 6749, sections 5.1 and 5.2).
#[derive(Default, Deserialize)]
pub(crate) struct Tokens {
    pub(crate) access_token: Option<String>,
    pub(crate) id_token: Option<String>,
    pub(crate) refresh_token: Option<String>,
    pub(crate) expires_in: Option<u64>,
    pub(crate) error: Option<String>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokens({:?})", self.error)
    }
}

impl Tokens {
    pub(crate) fn read(answer: &Answer) -> Result<Tokens, Failure> {
        let read = serde_json::from_slice(&answer.body);
        // The body is not repeated: it may have a token.
        read.map_err(|_| failed(&format!("the provider answered HTTP {}", answer.status)))
    }

    /// The one that is shown to the server.
    pub(crate) fn shown(&self, shows: &str) -> Option<String> {
        let token = match shows {
            "access_token" => &self.access_token,
            _ => &self.id_token,
        };
        let is_header = |token: &&String| token.bytes().all(|byte| byte.is_ascii_graphic());
        token.as_ref().filter(is_header).cloned()
    }

    /// When the one that is shown ends, in seconds since 1970. `expires_in` is the life of the access token (RFC 6749,
    /// section 5.1): what the other one says of itself counts where that is earlier, and for nothing but when to renew
    /// it.
    pub(crate) fn expires_at_s(&self, shown: &str) -> u64 {
        let life = self.expires_in.unwrap_or(300).min(LIFE_S_MAX);
        let said = now_s().saturating_add(life);
        ends_s(shown).map_or(said, |end| end.min(said))
    }
}

/// When a token says that it ends (RFC 7519, section 4.1.4), without a look at its signature; nothing where it is of a
/// kind that says nothing.
fn ends_s(token: &str) -> Option<u64> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    claims.get("exp")?.as_u64()
}

pub(crate) fn failed(why: &str) -> Failure {
    Failure::new(Code::LoginFailed, format!("failed to log in: {why}"))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the command line has no clock of ours; when a token ends is said in this time"
)]
pub(crate) fn now_s() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

/// A server by the one name under which its login is kept.
pub(crate) fn name_of(url: &str) -> &str {
    url.trim_end_matches('/')
}

/// Where a user's programs keep configuration (the XDG base directory specification).
fn dir(var: impl Fn(&'static str) -> Option<std::ffi::OsString>) -> Option<PathBuf> {
    let named = var("XDG_CONFIG_HOME").map(PathBuf::from);
    let home = || Some(PathBuf::from(var("HOME")?).join(".config"));
    let config = named.filter(|dir| dir.is_absolute()).or_else(home)?;
    Some(config.join("cofferdam").join("logins"))
}

fn path_of(dir: &Path, url: &str) -> PathBuf {
    let digest = Sha256::digest(name_of(url));
    let name: String = digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    dir.join(format!("{name}.json"))
}

/// The file of a server's login, wherever it is.
fn path(url: &str) -> Option<PathBuf> {
    Some(path_of(&dir(std::env::var_os)?, url))
}

/// Writes a login, for this user alone.
pub(crate) fn write(login: &Login) -> Result<PathBuf, Failure> {
    let missing = || failed("there is no home directory to keep it in");
    let path = path(&login.url).ok_or_else(missing)?;
    private_dir(path.parent().ok_or_else(missing)?)?;
    write_at(&path, login)?;
    Ok(path)
}

fn write_at(path: &Path, login: &Login) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(login);
    let text = text.map_err(|error| Failure::ours("write a login", &error))?;
    write_private(path, &text)
}

/// The login at a server, if there is one that nobody else can have written or read.
fn read_at(path: &Path) -> Option<Login> {
    let meta = std::fs::symlink_metadata(path).ok()?;
    let own = rustix::process::geteuid().as_raw();
    if !meta.is_file() || meta.uid() != own || meta.mode() & 0o077 != 0 {
        return None;
    }
    let text = std::fs::read(path).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Forgets the login at a server, and says what it was.
pub(crate) fn forget(url: &str) -> Option<Login> {
    let path = path(url)?;
    let login = read_at(&path);
    drop(std::fs::remove_file(&path));
    drop(std::fs::remove_file(path.with_extension("lock")));
    login
}

/// The token to show to a server, renewed where it is about to end; nothing without a login there.
pub(crate) async fn token(url: &str) -> Result<Option<String>, Failure> {
    match path(url) {
        Some(path) => token_at(&path).await,
        None => Ok(None),
    }
}

async fn token_at(path: &Path) -> Result<Option<String>, Failure> {
    for _ in 0..TRIES {
        let Some(login) = read_at(path) else {
            return Ok(None);
        };
        if now_s().saturating_add(RENEW_BEFORE_S) < login.expires_at_s {
            return Ok(Some(login.token));
        }
        // A provider may take a refresh token once: two commands that begin together must not both show it.
        let Some(held) = lock(&path.with_extension("lock"))? else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        return renewed(path, &held).await;
    }
    Err(failed("another command renews the login and does not end"))
}

/// Renews what is there now: whoever had the lock before may have done it.
async fn renewed(path: &Path, _held: &Locked) -> Result<Option<String>, Failure> {
    let Some(mut login) = read_at(path) else {
        return Ok(None);
    };
    if now_s().saturating_add(RENEW_BEFORE_S) < login.expires_at_s {
        return Ok(Some(login.token));
    }
    let over = |why: &str| {
        let hint = format!("log in again: cofferdam login --url {}", login.url);
        failed(why).hint(hint)
    };
    let Some(refresh) = login.refresh_token.clone() else {
        return match now_s() < login.expires_at_s {
            true => Ok(Some(login.token)),
            false => Err(over(
                "the login has ended, and the provider gave nothing to renew it",
            )),
        };
    };
    let form = [
        ("grant_type", "refresh_token"),
        ("refresh_token", refresh.as_str()),
        ("client_id", login.client_id.as_str()),
    ];
    let ask = Ask {
        ca: login.ca.as_deref(),
        most: ANSWER_MAX,
    };
    let answer = post(&login.token_endpoint, &form, ask).await;
    let answer = answer.map_err(|why| failed(&format!("the provider: {why}")));
    let tokens = match answer.and_then(|answer| Tokens::read(&answer)) {
        Ok(tokens) => tokens,
        // It may be there again before this one ends.
        Err(_) if now_s() < login.expires_at_s => return Ok(Some(login.token)),
        Err(failure) => return Err(failure),
    };
    let Some(token) = tokens
        .shown(&login.shows)
        .filter(|_| tokens.error.is_none())
    else {
        return Err(over("the provider does not renew the login"));
    };
    login.expires_at_s = tokens.expires_at_s(&token);
    login.token.clone_from(&token);
    // One that is not told again goes on to count.
    login.refresh_token = tokens.refresh_token.or(login.refresh_token);
    write_at(path, &login)?;
    Ok(Some(token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn login(expires_at_s: u64) -> Login {
        Login {
            url: "https://a.example".to_owned(),
            client_id: "cli".to_owned(),
            token_endpoint: "http://127.0.0.1:1/token".to_owned(),
            revocation_endpoint: None,
            shows: "id_token".to_owned(),
            token: "canary".to_owned(),
            refresh_token: None,
            expires_at_s,
            ca: None,
        }
    }

    #[tokio::test]
    async fn a_login_is_for_this_user_alone_and_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = path_of(dir.path(), "https://a.example/");
        assert_eq!(path, path_of(dir.path(), "https://a.example"));
        assert_eq!(token_at(&path).await.unwrap(), None);
        write_at(&path, &login(now_s() + 600)).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(token_at(&path).await.unwrap().as_deref(), Some("canary"));
        // One that others could have written is none.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(token_at(&path).await.unwrap(), None);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        write_at(&path, &login(now_s() + 5)).unwrap();
        assert_eq!(token_at(&path).await.unwrap().as_deref(), Some("canary"));
        write_at(&path, &login(now_s())).unwrap();
        let over = token_at(&path).await.unwrap_err().to_string();
        assert!(
            over.contains("cofferdam login --url https://a.example"),
            "{over}"
        );
        assert!(!format!("{:?}", login(0)).contains("canary"));
    }

    #[test]
    fn logins_are_where_the_user_keeps_configuration() {
        let home = |name: &'static str| (name == "HOME").then(|| "/home/ada".into());
        assert_eq!(dir(home), Some("/home/ada/.config/cofferdam/logins".into()));
        let named = |name: &'static str| (name == "XDG_CONFIG_HOME").then(|| "/c".into());
        assert_eq!(dir(named), Some("/c/cofferdam/logins".into()));
        assert_eq!(dir(|_| None), None);
    }

    #[test]
    fn only_the_token_that_counts_is_shown_and_only_if_it_is_one() {
        let tokens: Tokens = serde_json::from_str(
            r#"{"access_token":"a","id_token":"b\r\nx","expires_in":99999999,"other":1}"#,
        )
        .unwrap();
        assert_eq!(tokens.shown("access_token").as_deref(), Some("a"));
        assert_eq!(tokens.shown("id_token"), None);
        assert!(tokens.expires_at_s("a") <= now_s() + LIFE_S_MAX);
    }

    #[test]
    fn a_token_ends_when_it_says_so_itself_and_never_later_than_the_provider_says() {
        let tokens: Tokens = serde_json::from_str(r#"{"expires_in":3600}"#).unwrap();
        let token = |claims: &str| format!("x.{}.y", URL_SAFE_NO_PAD.encode(claims));
        let now = now_s();
        let soon = token(&format!(r#"{{"exp":{}}}"#, now + 90));
        assert_eq!(tokens.expires_at_s(&soon), now + 90);
        let late = token(&format!(r#"{{"exp":{}}}"#, now + 90_000));
        for shown in [
            &*late,
            "opaque",
            "a.%.b",
            &*token("{}"),
            &*token(r#"{"exp":"x"}"#),
        ] {
            let end = tokens.expires_at_s(shown);
            assert!((now + 3600..now + 3700).contains(&end), "{shown}: {end}");
        }
    }

    #[tokio::test]
    async fn a_provider_that_does_not_answer_takes_nothing_that_still_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = path_of(dir.path(), "https://a.example");
        let with = |expires_at_s| Login {
            refresh_token: Some("r1".to_owned()),
            ..login(expires_at_s)
        };
        write_at(&path, &with(now_s() + 40)).unwrap();
        assert_eq!(token_at(&path).await.unwrap().as_deref(), Some("canary"));
        write_at(&path, &with(now_s())).unwrap();
        let gone = token_at(&path).await.unwrap_err().to_string();
        assert!(gone.contains("the provider: "), "{gone}");
    }
}
