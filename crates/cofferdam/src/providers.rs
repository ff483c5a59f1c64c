//! Providers: where values of secrets are that are not kept here. The operator names them when he starts
//! the server, because each gives whoever may set a secret what this process may read.
//!
//! A value is fetched when it is used. What was fetched is kept in memory for a short while, so that a
//! hundred jobs that begin together are one question.

mod ask;
#[cfg(test)]
mod late;
mod vault;

use model::secret::{PROVIDER_RULE, SecretSource, is_provider_name};
use service::{Fetching, SecretValue, SourceError};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use vault::Vault;

/// How long one question may take, with the wait for its turn: longer than a provider that works, shorter
/// than a person waits.
const FETCH: Duration = Duration::from_secs(15);
/// How long a value that was fetched is used again. Who changes it at its provider waits so long.
const KEPT: Duration = Duration::from_secs(30);
/// Values that are kept, of at most 64 KiB each.
const KEPT_MAX: usize = 64;
/// Questions at one time: each may be a process.
const AT_ONCE: usize = 4;
/// The longest value that is read, and one byte more, which shows that it is too long.
const READ_MAX: usize = model::limits::SECRET_VALUE_BYTES_MAX + 1;

/// One provider, as it is written on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Provider {
    name: String,
    /// As it was written, for another process of this program.
    text: String,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// Variables of this process whose names begin so.
    Env(String),
    /// Files below this directory.
    File(PathBuf),
    /// What a command prints that gets the reference as its last argument.
    Exec(Vec<String>),
    Vault(Vault),
}

impl Provider {
    /// Reads `NAME=env:PREFIX`, `NAME=file:DIRECTORY`, `NAME=exec:COMMAND` or `NAME=vault:URL`.
    pub(crate) fn parse(text: &str) -> Result<Provider, String> {
        let form = "a provider is NAME=env:PREFIX, NAME=file:DIRECTORY, NAME=exec:COMMAND or \
                    NAME=vault:URL";
        let (name, place) = text.split_once('=').ok_or(form)?;
        if !is_provider_name(name) {
            return Err(PROVIDER_RULE.to_owned());
        }
        let kind = match place.split_once(':') {
            Some(("env", prefix)) => Kind::Env(prefix.to_owned()),
            Some(("file", dir)) if dir.starts_with('/') => Kind::File(dir.into()),
            Some(("file", _)) => return Err("the directory of a provider is absolute".to_owned()),
            Some(("exec", command)) => {
                let words: Vec<_> = command.split_whitespace().map(str::to_owned).collect();
                let absolute = words.first().is_some_and(|first| first.starts_with('/'));
                if !absolute {
                    return Err("the command of a provider has an absolute path".to_owned());
                }
                Kind::Exec(words)
            }
            Some(("vault", url)) => Kind::Vault(Vault::parse(url)?),
            _ => return Err(form.to_owned()),
        };
        Ok(Provider {
            name: name.to_owned(),
            text: text.to_owned(),
            kind,
        })
    }

    async fn ask(&self, reference: String) -> Result<SecretValue, String> {
        match &self.kind {
            Kind::Env(prefix) => ask::variable(prefix, &reference),
            Kind::File(dir) => {
                let dir = dir.clone();
                blocking(move || ask::file(&dir, &reference)).await
            }
            Kind::Exec(words) => {
                let words = words.clone();
                blocking(move || ask::command(&words, &reference, ask::COMMAND)).await
            }
            Kind::Vault(vault) => vault.ask(&reference).await,
        }
    }
}

/// Asks where it may wait: on a disk, or for a process.
async fn blocking(
    ask: impl FnOnce() -> Result<SecretValue, String> + Send + 'static,
) -> Result<SecretValue, String> {
    let asked = tokio::task::spawn_blocking(ask).await;
    asked.unwrap_or_else(|_| Err("asking for it failed".to_owned()))
}

/// The same for another process of this program.
pub(crate) fn arguments(providers: &[Provider]) -> Vec<OsString> {
    let one = |one: &Provider| ["--secret-provider".into(), (&*one.text).into()];
    providers.iter().flat_map(one).collect()
}

/// All providers, and what they gave lately. Clones are the same.
#[derive(Clone)]
pub(crate) struct Providers {
    inner: Arc<Inner>,
}

struct Inner {
    by_name: BTreeMap<String, Provider>,
    kept: Mutex<HashMap<SecretSource, (Instant, SecretValue)>>,
    turns: Semaphore,
}

impl Providers {
    pub(crate) fn new(providers: &[Provider]) -> Providers {
        let by_name = providers
            .iter()
            .map(|one| (one.name.clone(), one.clone()))
            .collect();
        Providers {
            inner: Arc::new(Inner {
                by_name,
                kept: Mutex::default(),
                turns: Semaphore::new(AT_ONCE),
            }),
        }
    }

    /// The value that a source has now, or had a moment ago.
    pub(crate) fn fetch(&self, source: SecretSource) -> Fetching {
        let providers = self.clone();
        Box::pin(async move {
            let Some(provider) = providers.inner.by_name.get(&source.provider) else {
                return Err(SourceError::Unknown(source.provider));
            };
            let asking = providers.ask(provider, &source);
            let asked = tokio::time::timeout(FETCH, asking).await;
            let asked = asked.unwrap_or_else(|_| Err("it did not answer in 15 s".to_owned()));
            asked.map_err(|why| SourceError::Failed {
                provider: source.provider,
                why,
            })
        })
    }

    async fn ask(&self, provider: &Provider, source: &SecretSource) -> Result<SecretValue, String> {
        // Who waits for a turn finds what the one before it was told.
        let turn = self.inner.turns.acquire().await;
        let _turn = turn.map_err(|_| "the server ends".to_owned())?;
        if let Some(value) = self.kept().get(source).and_then(fresh) {
            return Ok(value);
        }
        let value = provider.ask(source.reference.clone()).await?;
        if (1..READ_MAX).contains(&value.bytes().len()) {
            self.keep(source.clone(), value.clone());
        }
        Ok(value)
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<SecretSource, (Instant, SecretValue)>> {
        // Each statement under the lock leaves the map whole.
        let kept = self.inner.kept.lock();
        kept.unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a value for a while, and then has it leave memory even if nobody asks again.
    fn keep(&self, source: SecretSource, value: SecretValue) {
        let mut kept = self.kept();
        if kept.len() >= KEPT_MAX {
            return;
        }
        kept.insert(source, (Instant::now(), value));
        let inner = Arc::downgrade(&self.inner);
        tokio::spawn(async move {
            tokio::time::sleep(KEPT).await;
            if let Some(inner) = inner.upgrade() {
                let mut kept = inner.kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.retain(|_, (since, _)| since.elapsed() < KEPT);
            }
        });
    }
}

fn fresh((since, value): &(Instant, SecretValue)) -> Option<SecretValue> {
    (since.elapsed() < KEPT).then(|| value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(provider: &str, reference: &str) -> SecretSource {
        SecretSource {
            provider: provider.to_owned(),
            reference: reference.to_owned(),
        }
    }

    #[test]
    fn a_provider_is_read_and_what_is_none_is_refused_with_the_reason() {
        for good in [
            "env=env:CI_",
            "all=env:",
            "run=file:/run/secrets",
            "op=exec:/usr/bin/op read",
            "v-1=vault:https://vault.example:8200/kv?token=file:/run/token",
        ] {
            let provider = Provider::parse(good).unwrap();
            assert_eq!(arguments(&[provider]), ["--secret-provider", good]);
        }
        for (bad, why) in [
            ("env:X", "NAME=env"),
            ("=env:X", "name"),
            ("A=env:X", "name"),
            ("a=", "NAME=env"),
            ("a=other:x", "NAME=env"),
            ("a=file:relative", "absolute"),
            ("a=exec:", "absolute"),
            ("a=exec:op read", "absolute"),
            ("a=vault:ftp://x", "https"),
        ] {
            let error = Provider::parse(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_is_asked_for_once_in_a_while_and_then_leaves_memory() {
        let dir = tempfile::tempdir().unwrap();
        let written = |text: &str| std::fs::write(dir.path().join("a"), text).unwrap();
        let provider = Provider::parse(&format!("f=file:{}", dir.path().display())).unwrap();
        let providers = Providers::new(&[provider]);
        let fetch = async || providers.fetch(source("f", "a")).await.unwrap();
        written("one");
        assert_eq!(fetch().await.bytes(), b"one");
        written("two");
        assert_eq!(fetch().await.bytes(), b"one");
        tokio::time::sleep(KEPT + Duration::from_secs(1)).await;
        assert!(providers.kept().is_empty());
        assert_eq!(fetch().await.bytes(), b"two");
        let error = providers.fetch(source("g", "a")).await.unwrap_err();
        assert_eq!(error, SourceError::Unknown("g".to_owned()));
        let error = providers.fetch(source("f", "none")).await.unwrap_err();
        assert_eq!(error.code(), "secret_provider_failed");
        assert!(error.to_string().contains("`f`"), "{error}");
    }
}
