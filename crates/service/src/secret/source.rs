//! Values that are kept elsewhere: a version says where, and the value is fetched when it is used.
//!
//! Providers are the operator's, and what asks them is put in by whoever composes the rooms: this room
//! speaks no protocol. A value that was fetched goes to the node and into no row.

use crate::seal::{MasterKeys, NotOpened, SecretValue};
use crate::{Error, Service};
use model::limits;
use model::secret::SecretSource;
use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use store::secret::{Sealed, SecretRow};

/// The value of a new version, or where it is.
#[derive(Clone, PartialEq, Eq)]
pub enum NewValue {
    /// To be kept here: 1 byte to 64 KiB.
    Kept(SecretValue),
    /// To be fetched from there whenever it is used.
    From(SecretSource),
}

impl fmt::Debug for NewValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NewValue::Kept(value) => write!(f, "{value:?}"),
            NewValue::From(source) => write!(f, "From({source})"),
        }
    }
}

impl From<SecretValue> for NewValue {
    fn from(value: SecretValue) -> NewValue {
        NewValue::Kept(value)
    }
}

impl NewValue {
    pub(super) fn source(&self) -> Option<SecretSource> {
        match self {
            NewValue::Kept(_) => None,
            NewValue::From(source) => Some(source.clone()),
        }
    }

    pub(super) fn seal(
        &self,
        keys: &MasterKeys,
        row: &SecretRow,
        version: u64,
    ) -> Result<Sealed, NotOpened> {
        match self {
            NewValue::Kept(value) => keys.seal(row, version, value),
            NewValue::From(source) => keys.seal_source(row, version, source),
        }
    }

    pub(super) fn tag(&self, keys: &MasterKeys) -> String {
        match self {
            NewValue::Kept(value) => keys.tag(value),
            NewValue::From(source) => format!("from:{source}"),
        }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        match self {
            NewValue::Kept(value) => {
                let most = limits::SECRET_VALUE_BYTES_MAX;
                let message = format!("a value has 1 to {most} bytes");
                let wrong = || Error::invalid("value", "invalid_argument", message);
                fits(value).then_some(()).ok_or_else(wrong)
            }
            NewValue::From(source) => match source.fault() {
                Some(rule) => Err(Error::invalid("from", "invalid_argument", rule)),
                None => Ok(()),
            },
        }
    }
}

fn fits(value: &SecretValue) -> bool {
    (1..=limits::SECRET_VALUE_BYTES_MAX).contains(&value.bytes().len())
}

/// Why a provider gave no value. Says which provider, and nothing of any value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The operator has configured no such provider.
    #[error("there is no provider `{0}`")]
    Unknown(String),
    /// It did not give one.
    #[error("the provider `{provider}` gave no value: {why}")]
    Failed {
        /// Which.
        provider: String,
        /// Why, for a person.
        why: String,
    },
}

impl SourceError {
    /// Its stable code.
    pub fn code(&self) -> &'static str {
        match self {
            SourceError::Unknown(_) => "secret_provider_unknown",
            SourceError::Failed { .. } => "secret_provider_failed",
        }
    }
}

/// A value on its way from a provider. Whoever makes it bounds its time.
pub type Fetching = Pin<Box<dyn Future<Output = Result<SecretValue, SourceError>> + Send>>;

/// What asks the providers.
pub(crate) type FetchSource = Box<dyn Fn(SecretSource) -> Fetching + Send + Sync>;

/// What was fetched for one job or sandbox.
pub(super) type Fetched = BTreeMap<SecretSource, SecretValue>;

impl Service {
    /// Says who fetches values that are kept elsewhere. The first word counts; without one there are no
    /// providers.
    pub fn secret_sources_from(
        &self,
        fetch: impl Fn(SecretSource) -> Fetching + Send + Sync + 'static,
    ) {
        // A second one is a mistake of whoever puts the rooms together, and changes nothing.
        drop(self.inner.fetch_source.set(Box::new(fetch)));
    }

    /// A new version that nobody could use is refused at once: most of them are typing errors.
    pub(super) async fn check_source(&self, value: &NewValue) -> Result<(), Error> {
        match value {
            NewValue::Kept(_) => Ok(()),
            NewValue::From(source) => {
                let needed = [("from".to_owned(), source.clone())];
                self.fetch(needed.into()).await.map(drop)
            }
        }
    }

    /// Fetches values, all at once. Each comes with the field of the request that is wrong without it.
    pub(super) async fn fetch(
        &self,
        needed: Vec<(String, SecretSource)>,
    ) -> Result<Fetched, Error> {
        let begin = |(field, source): (String, SecretSource)| {
            let fetching = self.inner.fetch_source.get();
            let fetching = fetching.map(|fetch| tokio::spawn(fetch(source.clone())));
            (field, source, fetching)
        };
        // Begun before the first is awaited.
        let begun: Vec<_> = needed.into_iter().map(begin).collect();
        let mut fetched = Fetched::new();
        for (field, source, fetching) in begun {
            let answer = match fetching {
                Some(fetching) => fetching
                    .await
                    .map_err(|error| Error::internal("fetch a secret", error))?,
                None => Err(SourceError::Unknown(source.provider.clone())),
            };
            let answer = answer.and_then(|value| match fits(&value) {
                true => Ok(value),
                false => Err(SourceError::Failed {
                    provider: source.provider.clone(),
                    why: "it is empty or longer than 65536 bytes".to_owned(),
                }),
            });
            let wrong = |error: SourceError| Error::invalid(field, error.code(), error.to_string());
            fetched.insert(source, answer.map_err(wrong)?);
        }
        Ok(fetched)
    }
}
