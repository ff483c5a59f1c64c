//! Secrets on their way to the node that carries out a job or a sandbox.
//!
//! A node asks for them under its lease, when it needs them: so that no value waits in a queue, is in a
//! record of the node, or goes to a node that gave the job back; and so that a node that starts again
//! while the command runs can ask once more, and goes on taking the values out of the output.

use super::source::Fetched;
use super::{seal_failed, tell};
use crate::error::Fail;
use crate::seal::{MasterKeys, SecretValue};
use crate::{Ctx, Error, Service};
use model::id::{JobId, PrincipalId, SandboxId, TenantId};
use model::secret::{SecretHow, SecretSource, SecretUse};
use serde_json::{Map, Value};
use std::sync::Arc;
use store::secret::{self, SecretRow};
use store::{StoreError, Tx};

/// A value on its way to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretGiven {
    /// Which secret.
    pub name: String,
    /// Which version.
    pub version: u64,
    /// How it is used.
    pub how: SecretHow,
    /// Its value.
    pub value: SecretValue,
}

/// For whom secrets are opened.
#[derive(Debug, Clone)]
struct User {
    tenant: TenantId,
    /// Who asked for the job or the sandbox.
    principal: PrincipalId,
    /// Who said what is used for what leaves, where that was later.
    leaving: Option<PrincipalId>,
    /// `job` or `sandbox`, and which.
    what: (&'static str, String),
    node: String,
}

impl Service {
    /// Fixes the versions of the secrets that a job or a sandbox is to use: what a job gets does not depend
    /// on how long it waits.
    ///
    /// # Errors
    /// [`Error::Invalid`] `secret_missing` for each that this tenant has not, and for a password that somebody sent in
    /// clear, unless it is used by whom it is from, and as that.
    pub(crate) async fn pin_secrets(&self, ctx: &Ctx, uses: &mut [SecretUse]) -> Result<(), Error> {
        if uses.is_empty() {
            return Ok(());
        }
        // Whoever cannot open them must not promise to.
        self.secrets_ready().await?;
        let (tenant, named) = (ctx.tenant.clone(), uses.to_vec());
        let found = self.look(move |tx| rows(tx, &tenant, &named)).await?;
        let mut wrong = Vec::new();
        let mut elsewhere = Vec::new();
        for (index, (one, row)) in uses.iter_mut().zip(found).enumerate() {
            if let Some(row) = row.filter(|row| is_for(ctx, row, &one.how)) {
                (one.id, one.version) = (Some(row.id), row.version);
                let field = format!("secrets[{index}].name");
                elsewhere.extend(row.source.map(|source| (field, source)));
            } else {
                wrong.push(model::spec::Invalid {
                    field: format!("secrets[{index}].name"),
                    code: "secret_missing",
                    message: format!("there is no secret `{}`", one.name),
                });
            }
        }
        if !wrong.is_empty() {
            return Err(Error::Invalid(wrong));
        }
        // Who asked is told now of a provider that fails, and not when the job begins. What it gives is
        // forgotten: it is asked again when the value is used.
        self.fetch(elsewhere).await.map(drop)
    }

    /// Uses as whoever asks says them: a password that came in clear is named by what it is, and it is no other request
    /// where it was forgotten and kept anew since.
    pub(crate) async fn uses_as_said(
        &self,
        ctx: &Ctx,
        uses: &[SecretUse],
    ) -> Result<Vec<SecretUse>, Error> {
        if !uses.iter().any(|one| one.how == SecretHow::Upstream) {
            return Ok(uses.to_vec());
        }
        let (tenant, uses) = (ctx.tenant.clone(), uses.to_vec());
        self.look(move |tx| {
            let mut said = uses.clone();
            for (one, row) in said.iter_mut().zip(rows(tx, &tenant, &uses)?) {
                if row.is_some_and(|row| row.given) {
                    (one.id, one.version) = (None, 0);
                }
            }
            Ok(said)
        })
        .await
    }

    /// The secrets of a job, for the node that has it at this epoch. Their use is recorded before they go.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a job of another node; [`Error::Stale`]; [`Error::Invalid`] `secret_missing`
    /// for one that was deleted meanwhile; [`Error::SecretKey`].
    pub async fn job_secrets(
        &self,
        ctx: &Ctx,
        id: &JobId,
        epoch: u64,
    ) -> Result<Vec<SecretGiven>, Error> {
        let node = ctx.only_node()?.clone();
        self.check_lease(ctx, id.as_str(), Some(epoch)).await?;
        let id = id.clone();
        self.give(move |tx| {
            let row = crate::report::spoken_for(tx, &node, &id, epoch)?;
            if row.state.lease().is_none() {
                return Err(Error::Stale.into());
            }
            let user = User {
                tenant: row.tenant.clone(),
                principal: row.principal.clone(),
                leaving: None,
                what: ("job", row.id.to_string()),
                node: node.to_string(),
            };
            Ok((user, row.spec.secrets))
        })
        .await
    }

    /// The same for a sandbox that is being made.
    ///
    /// # Errors
    /// As for a job.
    pub async fn sandbox_secrets(
        &self,
        ctx: &Ctx,
        id: &SandboxId,
        epoch: u64,
    ) -> Result<Vec<SecretGiven>, Error> {
        let node = ctx.only_node()?.clone();
        self.check_lease(ctx, id.as_str(), Some(epoch)).await?;
        let id = id.clone();
        self.give(move |tx| {
            let row = crate::sandbox::report::in_force(tx, &node, &id, epoch)?;
            if row.state.is_over() {
                return Err(Error::Stale.into());
            }
            let user = User {
                tenant: row.tenant.clone(),
                principal: row.principal.clone(),
                leaving: row.leaving.as_ref().map(|leaving| leaving.by.clone()),
                what: ("sandbox", row.id.to_string()),
                node: node.to_string(),
            };
            Ok((user, row.secrets()))
        })
        .await
    }

    /// Gives secrets to whoever `who` says may have them. Where a value is kept elsewhere, it is fetched
    /// between two transactions, because a provider may take seconds; the second asks again who may.
    async fn give(
        &self,
        who: impl Fn(&mut Tx<'_>) -> Result<(User, Vec<SecretUse>), Fail> + Clone + Send + 'static,
    ) -> Result<Vec<SecretGiven>, Error> {
        let keys = self.secret_keys().await?.clone();
        let at_ms = self.now_ms();
        let mut fetched = Arc::new(Fetched::new());
        loop {
            let (keys, who, had) = (keys.clone(), who.clone(), fetched.clone());
            let given = self.unit(move |tx| {
                let (user, uses) = who(tx)?;
                give(tx, (&keys, &had), &user, &uses, at_ms)
            });
            match given.await? {
                Given::All(given) => return Ok(given),
                // Versions are what they are, so all are there after one round.
                Given::Needs(needed) if fetched.is_empty() => {
                    fetched = Arc::new(self.fetch(needed).await?);
                }
                Given::Needs(_) => return Err(Error::Stale),
            }
        }
    }
}

/// What came of giving.
enum Given {
    All(Vec<SecretGiven>),
    /// These must be fetched first, and nothing was written. Each with its field.
    Needs(Vec<(String, SecretSource)>),
}

/// Whether a secret is there for this caller and this use. A password that came with a request in clear was said to one
/// proxy, by somebody who gave nobody a secret by that.
fn is_for(ctx: &Ctx, row: &SecretRow, how: &SecretHow) -> bool {
    !row.given || (row.principal == ctx.principal && *how == SecretHow::Upstream)
}

fn rows(
    tx: &mut Tx<'_>,
    tenant: &TenantId,
    uses: &[SecretUse],
) -> Result<Vec<Option<SecretRow>>, Fail> {
    let row = |one: &SecretUse| secret::get(tx, tenant, &one.name);
    Ok(uses.iter().map(row).collect::<Result<_, _>>()?)
}

/// The secret that was meant, if it is still there: not another of its name.
fn meant(tx: &mut Tx<'_>, user: &User, used: &SecretUse) -> Result<Option<SecretRow>, StoreError> {
    match &used.id {
        Some(id) => secret::get(tx, &user.tenant, id.as_str()),
        None => Ok(None),
    }
}

/// Opens all of them, or none; only then is anything written.
fn give(
    tx: &mut Tx<'_>,
    (keys, fetched): (&MasterKeys, &Fetched),
    user: &User,
    uses: &[SecretUse],
    at_ms: u64,
) -> Result<Given, Fail> {
    let (mut given, mut needed, mut sources) = (Vec::new(), Vec::new(), Vec::new());
    for (index, one) in uses.iter().enumerate() {
        let field = format!("secrets[{index}].name");
        let gone = || {
            let message = format!("version {} of `{}` is gone", one.version, one.name);
            Error::invalid(field.clone(), "secret_missing", message)
        };
        let row = meant(tx, user, one)?.ok_or_else(gone)?;
        let sealed = secret::version(tx, &row.id, one.version)?.ok_or_else(gone)?;
        let (value, source) = if sealed.is_source {
            let source = keys.open_source(&row, one.version, &sealed);
            let source = source.map_err(seal_failed)?;
            let Some(value) = fetched.get(&source) else {
                needed.push((field, source));
                continue;
            };
            (value.clone(), Some(source))
        } else {
            let value = keys.open(&row, one.version, &sealed).map_err(seal_failed)?;
            (value, None)
        };
        sources.push(source);
        given.push(SecretGiven {
            name: one.name.clone(),
            version: one.version,
            how: one.how.clone(),
            value,
        });
    }
    if !needed.is_empty() {
        return Ok(Given::Needs(needed));
    }
    for (one, source) in uses.iter().zip(&sources) {
        // Read again: one secret may be used in two ways, and its revision has moved then.
        if let Some(row) = meant(tx, user, one)? {
            say_used(tx, &row, user, (one, source.as_ref()), at_ms)?;
        }
    }
    Ok(Given::All(given))
}

fn say_used(
    tx: &mut Tx<'_>,
    row: &SecretRow,
    user: &User,
    (used, source): (&SecretUse, Option<&SecretSource>),
    at_ms: u64,
) -> Result<(), Fail> {
    let next = SecretRow {
        revision: row.revision + 1,
        ..row.clone()
    };
    secret::update(tx, row, &next, None)?;
    let mut data = Map::new();
    data.insert("name".to_owned(), (*row.name).into());
    data.insert("version".to_owned(), used.version.into());
    data.insert("how".to_owned(), used.how.name().into());
    if let Some(source) = source {
        data.insert("from".to_owned(), source.to_string().into());
    }
    data.insert(user.what.0.to_owned(), (*user.what.1).into());
    data.insert("node".to_owned(), (*user.node).into());
    let data = Value::Object(data).to_string();
    let later = user.leaving.as_ref().filter(|_| used.how.leaves());
    let principal = later.unwrap_or(&user.principal);
    tell(tx, &next, "secret.used", &data, principal, at_ms)
}
