//! Issuers of tokens: where their keys are had, at the start and from then on.

use crate::cli::failure::{Failure, reason};
use crate::config::KeysAt;
use crate::keys::KeyPlace;
use crate::web::{Ask, get};
use api::Code;
use service::{Issuer, JWKS_BYTES_MAX, JwtKeys, Service};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use tokio::sync::watch;

/// Says to the service whose tokens count, and keeps their keys. A secret or a file of keys that cannot be used is refused at
/// the start; an address that does not answer is asked again.
pub(crate) fn start(
    service: &Service,
    issuers: Vec<(Issuer, KeysAt)>,
    stopped: &watch::Receiver<bool>,
) -> Result<(), Failure> {
    let mut known = Vec::new();
    let mut kept = Vec::new();
    for (issuer, at) in issuers {
        let keys = keys_at(&issuer, &at)?;
        if keys.is_none() {
            kept.push((issuer.name.clone(), at));
        }
        known.push((issuer, keys));
    }
    service.issuers_are(known);
    for (name, at) in kept {
        let (service, stopped) = (service.clone(), stopped.clone());
        tokio::spawn(async move {
            let fetch = || fetched(at.clone());
            service.issuer_keys_keep(&name, fetch, stopped).await;
        });
    }
    Ok(())
}

/// Whether those that are in files can be used, as at the start.
///
/// # Errors
/// [`Code::ConfigInvalid`] with the key of the configuration.
pub(crate) fn check(issuers: &[(Issuer, KeysAt)]) -> Result<(), Failure> {
    issuers
        .iter()
        .try_for_each(|(issuer, at)| keys_at(issuer, at).map(drop))
}

/// A secret, which is read once. Keys that are looked up again are only looked at.
fn keys_at(issuer: &Issuer, at: &KeysAt) -> Result<Option<JwtKeys>, Failure> {
    match at {
        KeysAt::Secret(path) => secret(path).map(Some),
        KeysAt::File(path) => {
            let failed = |why: &str| unusable("jwks_file", path, why);
            let text = file(path).map_err(|why| failed(&why))?;
            let keys = JwtKeys::parse(&text, &issuer.algorithms);
            drop(keys.map_err(|error| failed(&error.to_string()))?);
            Ok(None)
        }
        KeysAt::Url(..) => Ok(None),
    }
}

async fn fetched(at: KeysAt) -> Result<Vec<u8>, String> {
    match at {
        KeysAt::Url(url, ca) => {
            let ask = Ask {
                ca: ca.as_deref(),
                most: JWKS_BYTES_MAX,
            };
            get(&url, ask).await
        }
        KeysAt::File(path) => file_later(path).await,
        KeysAt::Secret(_) => Err("a secret is read once".to_owned()),
    }
}

async fn file_later(path: PathBuf) -> Result<Vec<u8>, String> {
    let read = tokio::task::spawn_blocking(move || file(&path)).await;
    read.map_err(|error| error.to_string())?
}

fn file(path: &Path) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    // One byte more, to see that there is more.
    let most = u64::try_from(JWKS_BYTES_MAX).unwrap_or(u64::MAX) + 1;
    let opened = std::fs::File::open(path);
    let read = opened.and_then(|file| file.take(most).read_to_end(&mut text));
    read.map(|_| text).map_err(|error| reason(&error))
}

/// Nobody else may read it: whoever can, signs tokens.
fn secret(path: &Path) -> Result<JwtKeys, Failure> {
    let read = KeyPlace::File(path.to_owned()).read();
    let failed = |why: &str| unusable("secret_file", path, why);
    let value = read.map_err(|error| failed(&error.to_string()))?;
    // An editor ends a file with it.
    let bytes = value.bytes();
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    JwtKeys::secret(bytes).map_err(|error| failed(&error.to_string()))
}

fn unusable(key: &str, path: &Path, why: &str) -> Failure {
    let place = path.display();
    let message = format!("`issuers.{key}`: failed to use the keys in {place}: {why}");
    Failure::new(Code::ConfigInvalid, message)
        .hint("correct [[issuers]] of the configuration, or the file")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_secret_that_others_read_or_that_is_short_is_refused_and_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let write = |text: &str, mode: u32| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            secret(&path)
                .map(drop)
                .map_err(|failure| failure.to_string())
        };
        let canary = "canary-".repeat(8);
        assert_eq!(write(&format!("{canary}\n"), 0o600), Ok(()));
        for refused in [write(&canary, 0o644), write("canary-short", 0o600)] {
            let said = refused.unwrap_err();
            assert!(!said.contains("canary"), "{said}");
        }
    }

    #[test]
    fn a_secret_that_is_too_long_is_refused_and_not_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let is_good = |length: usize, end: &str| {
            std::fs::write(&path, "s".repeat(length) + end).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            secret(&path).is_ok()
        };
        assert!(is_good(1024, "") && is_good(1024, "\n"));
        for length in [1025, 2000, 8000] {
            assert!(!is_good(length, "") && !is_good(length, "\n"), "{length}");
        }
    }

    #[test]
    fn a_file_of_keys_is_read_to_its_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        std::fs::write(&path, vec![b' '; JWKS_BYTES_MAX + 10]).unwrap();
        assert_eq!(file(&path).unwrap().len(), JWKS_BYTES_MAX + 1);
        assert!(file(&dir.path().join("none")).is_err());
    }
}
