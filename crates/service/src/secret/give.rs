//! Secrets on their way to the node that carries out a job or a sandbox.
//!
//! A node asks for them under its lease, when it needs them: so that no value waits in a queue, is in a
//! record of the node, or goes to a node that gave the job back; and so that a node that starts again
//! while the command runs can ask once more, and goes on taking the values out of the output.

use super::{seal_failed, tell};
use crate::error::Fail;
use crate::seal::{MasterKeys, SecretValue};
use crate::{Ctx, Error, Service};
use model::id::{JobId, PrincipalId, SandboxId, TenantId};
use model::secret::{SecretHow, SecretUse};
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
    /// `job` or `sandbox`, and which.
    what: (&'static str, String),
    node: String,
}

impl Service {
    /// Fixes the versions of the secrets that a job or a sandbox is to use: what a job gets does not depend
    /// on how long it waits.
    ///
    /// # Errors
    /// [`Error::Invalid`] `secret_missing` for each that this tenant has not.
    pub(crate) async fn pin_secrets(&self, ctx: &Ctx, uses: &mut [SecretUse]) -> Result<(), Error> {
        if uses.is_empty() {
            return Ok(());
        }
        // Whoever cannot open them must not promise to.
        self.secrets_ready().await?;
        let (tenant, named) = (ctx.tenant.clone(), uses.to_vec());
        let found = self.look(move |tx| rows(tx, &tenant, &named)).await?;
        let mut wrong = Vec::new();
        for (index, (one, row)) in uses.iter_mut().zip(found).enumerate() {
            if let Some(row) = row {
                (one.id, one.version) = (Some(row.id), row.version);
            } else {
                wrong.push(model::spec::Invalid {
                    field: format!("secrets[{index}].name"),
                    code: "secret_missing",
                    message: "there is no such secret".to_owned(),
                });
            }
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(Error::Invalid(wrong))
        }
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
        let keys = self.secret_keys().await?.clone();
        let (id, at_ms) = (id.clone(), self.now_ms());
        self.unit(move |tx| {
            let row = crate::report::spoken_for(tx, &node, &id, epoch)?;
            if row.state.lease().is_none() {
                return Err(Error::Stale.into());
            }
            let user = User {
                tenant: row.tenant.clone(),
                principal: row.principal.clone(),
                what: ("job", row.id.to_string()),
                node: node.to_string(),
            };
            give(tx, &keys, &user, &row.spec.secrets, at_ms)
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
        let keys = self.secret_keys().await?.clone();
        let (id, at_ms) = (id.clone(), self.now_ms());
        self.unit(move |tx| {
            let row = crate::sandbox::report::in_force(tx, &node, &id, epoch)?;
            if row.state.is_over() {
                return Err(Error::Stale.into());
            }
            let user = User {
                tenant: row.tenant.clone(),
                principal: row.principal.clone(),
                what: ("sandbox", row.id.to_string()),
                node: node.to_string(),
            };
            give(tx, &keys, &user, &row.spec.secrets, at_ms)
        })
        .await
    }
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
    keys: &Arc<MasterKeys>,
    user: &User,
    uses: &[SecretUse],
    at_ms: u64,
) -> Result<Vec<SecretGiven>, Fail> {
    let mut given = Vec::new();
    for (index, one) in uses.iter().enumerate() {
        let gone = || {
            let message = format!("version {} of `{}` is gone", one.version, one.name);
            Error::invalid(format!("secrets[{index}].name"), "secret_missing", message)
        };
        let row = meant(tx, user, one)?.ok_or_else(gone)?;
        let sealed = secret::version(tx, &row.id, one.version)?.ok_or_else(gone)?;
        let value = keys.open(&row, one.version, &sealed).map_err(seal_failed)?;
        let (name, version, how) = (one.name.clone(), one.version, one.how.clone());
        given.push(SecretGiven {
            name,
            version,
            how,
            value,
        });
    }
    for one in uses {
        // Read again: one secret may be used in two ways, and its revision has moved then.
        if let Some(row) = meant(tx, user, one)? {
            say_used(tx, &row, user, one, at_ms)?;
        }
    }
    Ok(given)
}

fn say_used(
    tx: &mut Tx<'_>,
    row: &SecretRow,
    user: &User,
    used: &SecretUse,
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
    data.insert(user.what.0.to_owned(), (*user.what.1).into());
    data.insert("node".to_owned(), (*user.node).into());
    let data = Value::Object(data).to_string();
    tell(tx, &next, "secret.used", &data, &user.principal, at_ms)
}
