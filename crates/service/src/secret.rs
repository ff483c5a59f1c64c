//! Secrets: named values that jobs and sandboxes may use and nobody may read back.

mod give;
mod keep;
mod source;

pub use give::SecretGiven;
pub(crate) use keep::forget_unused;
pub(crate) use source::FetchSource;
pub use source::{Fetching, NewValue, SourceError};

use crate::create::{Idempotency, key_of, made_before};
use crate::error::Fail;
use crate::seal::{KeyError, MasterKeys};
use crate::{Ctx, Error, Service, page, random};
use model::access::Action;
use model::event::Event;
use model::id::{PrincipalId, SecretId};
use model::limits;
use model::secret::{NAME_RULE, is_secret_name, metadata_fault};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::Tx;
use store::event::{self, NewEvent};
use store::idempotency;
use store::secret::{self, SecretRow};

/// Versions that one transaction wraps anew: a few milliseconds of work.
const REWRAP_BATCH: u32 = 100;

/// A secret that somebody wants to have.
#[derive(Debug, Clone)]
pub struct NewSecret {
    /// One of a kind in the tenant.
    pub name: String,
    /// Its value, or where that is.
    pub value: NewValue,
    /// Labels.
    pub metadata: BTreeMap<String, String>,
}

/// A page of secrets, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretPage {
    /// The secrets.
    pub secrets: Vec<SecretRow>,
    /// Where the next page begins; `None` on the last one.
    pub next: Option<String>,
}

/// Where the master keys come from; asked when they are needed first.
pub(crate) type KeySource = Box<dyn Fn() -> Result<MasterKeys, KeyError> + Send + Sync>;

impl Service {
    /// Says where the master keys come from. The first word counts; without one there are no secrets.
    pub fn secret_keys_from(
        &self,
        source: impl Fn() -> Result<MasterKeys, KeyError> + Send + Sync + 'static,
    ) {
        // A second source is a mistake of whoever puts the rooms together, and changes nothing.
        drop(self.inner.key_source.set(Box::new(source)));
    }

    /// Gets the master keys, makes sure that they open all that there is, and wraps anew what an older one
    /// of them wraps. Safe to be killed anywhere: each version names the key that wraps it, and the next
    /// start with the same keys goes on.
    ///
    /// # Errors
    /// [`Error::SecretKey`], with [`KeyError::Wrong`] when a key is missing that some value needs.
    pub async fn secrets_ready(&self) -> Result<(), Error> {
        self.secret_keys().await.map(drop)
    }

    pub(crate) async fn secret_keys(&self) -> Result<&Arc<MasterKeys>, Error> {
        self.inner.keys.get_or_try_init(|| self.load_keys()).await
    }

    async fn load_keys(&self) -> Result<Arc<MasterKeys>, Error> {
        let service = self.clone();
        // A command that knows the key may take its time.
        let loaded = tokio::task::spawn_blocking(move || match service.inner.key_source.get() {
            Some(source) => source(),
            None => Err(KeyError::Unusable("there is no master key here".to_owned())),
        });
        let loaded = loaded
            .await
            .map_err(|error| Error::internal("get the master key", error))?;
        let keys = Arc::new(loaded.map_err(Error::SecretKey)?);
        let (current, most) = (keys.current.id().to_owned(), limits::PAGE_MAX);
        let sealed = self
            .look(move |tx| Ok(secret::not_of_key(tx, &current, most)?))
            .await?;
        let missing: Vec<_> = sealed
            .iter()
            .filter(|one| !keys.has(&one.sealed.key_id))
            .collect();
        if let Some(first) = missing.first() {
            return Err(Error::SecretKey(KeyError::Wrong {
                versions: missing.len(),
                sealed: first.sealed.key_id.clone(),
                given: keys.current.id().to_owned(),
            }));
        }
        if !sealed.is_empty() {
            self.rewrap(&keys).await?;
        }
        Ok(keys)
    }

    async fn rewrap(&self, keys: &Arc<MasterKeys>) -> Result<(), Error> {
        loop {
            let keys = keys.clone();
            let done = self.unit(move |tx| rewrap_some(tx, &keys)).await?;
            if done == 0 {
                return Ok(());
            }
            tracing::info!(versions = done, "wrapped with the new master key");
        }
    }

    /// Takes a secret in, as version 1.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::Conflict`] when the name is taken; [`Error::TooMuch`];
    /// [`Error::SecretKey`].
    pub async fn secret_create(
        &self,
        ctx: &Ctx,
        new: NewSecret,
        idempotency: Option<Idempotency>,
    ) -> Result<SecretRow, Error> {
        ctx.may(Action::SecretWrite)?;
        may_name(ctx, &new.value)?;
        check_new(&new)?;
        self.check_source(&new.value).await?;
        let keys = self.secret_keys().await?.clone();
        let at_ms = self.now_ms();
        let row = SecretRow {
            id: SecretId::from_parts(at_ms, random()?),
            tenant: ctx.tenant.clone(),
            name: new.name,
            version: 1,
            revision: 1,
            metadata: new.metadata,
            source: new.value.source(),
            given: false,
            principal: ctx.principal.clone(),
            created_at_ms: at_ms,
            updated_at_ms: at_ms,
        };
        let key = idempotency.map(|asked| {
            let asked = with_tag(asked, &keys, &new.value);
            key_of(ctx, "secret.create", asked, row.id.as_str())
        });
        let value = new.value;
        self.unit(move |tx| {
            if let Some((owner, asked)) = &key
                && let Some(there) = idempotency::get(tx, owner)?
            {
                let id = made_before::<SecretId>(asked, &there)?;
                return again(tx, &row, id);
            }
            if secret::get(tx, &row.tenant, &row.name)?.is_some() {
                let message = "there is a secret of this name; a new value is a new version of it";
                return Err(Error::conflict(message).into());
            }
            if secret::count(tx, &row.tenant, false)? >= limits::SECRETS_MAX {
                return Err(too_many().into());
            }
            let sealed = value.seal(&keys, &row, 1).map_err(seal_failed)?;
            secret::insert(tx, &row, &sealed)?;
            tell(
                tx,
                &row,
                "secret.created",
                &version_of(&row),
                &row.principal,
                at_ms,
            )?;
            if let Some((owner, asked)) = &key {
                idempotency::put(tx, owner, asked, at_ms)?;
            }
            Ok(row.clone())
        })
        .await
    }

    /// Gives a secret a new value, as its next version. Jobs that were made before keep the version that
    /// they were made with; the last ten are kept.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`]; [`Error::SecretKey`].
    pub async fn secret_rotate(
        &self,
        ctx: &Ctx,
        name_or_id: &str,
        (value, metadata): (impl Into<NewValue>, Option<BTreeMap<String, String>>),
        idempotency: Option<Idempotency>,
    ) -> Result<SecretRow, Error> {
        ctx.may(Action::SecretWrite)?;
        let value = value.into();
        may_name(ctx, &value)?;
        value.check()?;
        metadata.as_ref().map_or(Ok(()), check_metadata)?;
        self.check_source(&value).await?;
        let keys = self.secret_keys().await?.clone();
        let at_ms = self.now_ms();
        let asked = idempotency.map(|asked| with_tag(asked, &keys, &value));
        let (ctx, named) = (ctx.clone(), name_or_id.to_owned());
        self.unit(move |tx| {
            let row = owned(tx, &ctx, &named)?;
            // What came with a request is named by what it is: another value under that name would pass by a yes to it.
            if row.given {
                return Err(Error::NotFound.into());
            }
            let key = asked.clone().map(|asked| {
                let operation = format!("secret.rotate:{}", row.id);
                key_of(&ctx, &operation, asked, row.id.as_str())
            });
            if let Some((owner, asked)) = &key
                && let Some(there) = idempotency::get(tx, owner)?
            {
                made_before::<SecretId>(asked, &there)?;
                return Ok(row);
            }
            let next = SecretRow {
                version: row.version + 1,
                revision: row.revision + 1,
                metadata: metadata.clone().unwrap_or_else(|| row.metadata.clone()),
                source: value.source(),
                updated_at_ms: at_ms,
                ..row.clone()
            };
            let sealed = value
                .seal(&keys, &next, next.version)
                .map_err(seal_failed)?;
            secret::update(tx, &row, &next, Some(&sealed))?;
            let first = next
                .version
                .saturating_sub(limits::SECRET_VERSIONS_KEPT - 1);
            secret::forget_before(tx, &next.id, first)?;
            tell(
                tx,
                &next,
                "secret.rotated",
                &version_of(&next),
                &ctx.principal,
                at_ms,
            )?;
            if let Some((owner, asked)) = &key {
                idempotency::put(tx, owner, asked, at_ms)?;
            }
            Ok(next)
        })
        .await
    }

    /// What is known of a secret, by its name or its id.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn secret_get(&self, ctx: &Ctx, name_or_id: &str) -> Result<SecretRow, Error> {
        ctx.may(Action::SecretRead)?;
        let (ctx, named) = (ctx.clone(), name_or_id.to_owned());
        self.look(move |tx| owned(tx, &ctx, &named)).await
    }

    /// Secrets by name, those after the name `after`.
    ///
    /// # Errors
    /// [`Error`] of the database.
    pub async fn secret_list(
        &self,
        ctx: &Ctx,
        after: Option<&str>,
        limit: u32,
    ) -> Result<SecretPage, Error> {
        ctx.may(Action::SecretRead)?;
        let limit = limit.clamp(1, limits::PAGE_MAX);
        let (tenant, after) = (ctx.tenant.clone(), after.unwrap_or("").to_owned());
        let mut secrets = self
            .look(move |tx| Ok(secret::list(tx, &tenant, &after, limit + 1)?))
            .await?;
        let next = page::cut(&mut secrets, limit, |row| row.name.clone());
        Ok(SecretPage { secrets, next })
    }

    /// Deletes a secret with all versions of its value. A job that waits with it will be refused.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn secret_delete(&self, ctx: &Ctx, name_or_id: &str) -> Result<SecretRow, Error> {
        ctx.may(Action::SecretWrite)?;
        let at_ms = self.now_ms();
        let (ctx, named) = (ctx.clone(), name_or_id.to_owned());
        self.unit(move |tx| {
            let row = owned(tx, &ctx, &named)?;
            secret::delete(tx, &row)?;
            let last = SecretRow {
                revision: row.revision + 1,
                ..row
            };
            tell(
                tx,
                &last,
                "secret.deleted",
                &version_of(&last),
                &ctx.principal,
                at_ms,
            )?;
            Ok(last)
        })
        .await
    }

    /// What happened to a secret, and who used it, after the event of version `after`.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn secret_events(
        &self,
        ctx: &Ctx,
        name_or_id: &str,
        after: u64,
        limit: u32,
    ) -> Result<Vec<Event>, Error> {
        ctx.may(Action::SecretWrite)?;
        let limit = limit.clamp(1, limits::PAGE_MAX);
        let (ctx, named) = (ctx.clone(), name_or_id.to_owned());
        self.look(move |tx| {
            let row = owned(tx, &ctx, &named)?;
            Ok(event::list(tx, "secret", row.id.as_str(), after, limit)?)
        })
        .await
    }
}

fn rewrap_some(tx: &mut Tx<'_>, keys: &MasterKeys) -> Result<usize, Fail> {
    let some = secret::not_of_key(tx, keys.current.id(), REWRAP_BATCH)?;
    for one in &some {
        let wrapped = keys.rewrap(&one.secret, one.version, &one.sealed);
        secret::rewrap(tx, one, keys.current.id(), &wrapped.map_err(seal_failed)?)?;
    }
    Ok(some.len())
}

/// A provider gives whatever the server may read, to whoever names it.
fn may_name(ctx: &Ctx, value: &NewValue) -> Result<(), Error> {
    match value.source() {
        Some(_) => ctx.may(Action::ProviderWrite),
        None => Ok(()),
    }
}

/// The secret, if it is this tenant's.
fn owned(tx: &mut Tx<'_>, ctx: &Ctx, name_or_id: &str) -> Result<SecretRow, Fail> {
    // What can be neither is not looked for: PostgreSQL has no text with NUL.
    let can_be = is_secret_name(name_or_id) || name_or_id.parse::<SecretId>().is_ok();
    let row = match can_be {
        true => secret::get(tx, &ctx.tenant, name_or_id)?,
        false => None,
    };
    row.ok_or(Fail::Ours(Error::NotFound))
}

/// What an earlier request with the same key made.
fn again(tx: &mut Tx<'_>, asked: &SecretRow, id: Option<SecretId>) -> Result<SecretRow, Fail> {
    let there = match id {
        Some(id) => secret::get(tx, &asked.tenant, id.as_str())?,
        None => None,
    };
    let gone = || Error::mismatch("what the key was used for is gone");
    Ok(there.ok_or_else(gone)?)
}

/// Events of a secret count by its row's revision.
fn tell(
    tx: &mut Tx<'_>,
    row: &SecretRow,
    kind: &str,
    data: &str,
    principal: &PrincipalId,
    at_ms: u64,
) -> Result<(), Fail> {
    let new = NewEvent {
        tenant: &row.tenant,
        resource: "secret",
        resource_id: row.id.as_str(),
        version: row.revision,
        kind,
        data,
        principal,
        at_ms,
    };
    Ok(event::append(tx, &new)?)
}

fn version_of(row: &SecretRow) -> String {
    let mut data = Map::new();
    data.insert("name".to_owned(), (*row.name).into());
    data.insert("version".to_owned(), row.version.into());
    if let Some(source) = &row.source {
        data.insert("from".to_owned(), source.to_string().into());
    }
    Value::Object(data).to_string()
}

/// The value is part of the request, and its hash must not be one that can be tried out.
fn with_tag(asked: Idempotency, keys: &MasterKeys, value: &NewValue) -> Idempotency {
    Idempotency {
        request_hash: format!("{}:{}", asked.request_hash, value.tag(keys)),
        ..asked
    }
}

fn seal_failed(error: crate::seal::NotOpened) -> Fail {
    Fail::Ours(Error::internal("seal or open a secret", error))
}

fn too_many() -> Error {
    Error::TooMuch {
        code: "too_much",
        message: format!("there are {} secrets already", limits::SECRETS_MAX),
    }
}

fn check_new(new: &NewSecret) -> Result<(), Error> {
    if !is_secret_name(&new.name) {
        return Err(Error::invalid("name", "invalid_argument", NAME_RULE));
    }
    new.value.check()?;
    check_metadata(&new.metadata)
}

fn check_metadata(metadata: &BTreeMap<String, String>) -> Result<(), Error> {
    match metadata_fault(metadata) {
        Some(rule) => Err(Error::invalid("metadata", "invalid_argument", rule)),
        None => Ok(()),
    }
}
