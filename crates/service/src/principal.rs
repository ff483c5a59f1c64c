//! Letting people, agents and automations in, and sending them away.

use crate::error::Fail;
use crate::key::tell;
use crate::{Ctx, Error, Service};
use model::access::Action;
use model::id::TenantId;
use model::limits;
use model::principal::{PrincipalKind, Role};
use store::principal::{self, PrincipalRow};
use store::{StoreError, Tx};

/// A page of principals, by id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrincipalPage {
    /// The principals.
    pub principals: Vec<PrincipalRow>,
    /// Where the next page begins; absent on the last one.
    pub next: Option<String>,
}

impl Service {
    /// Lets a principal in. It can do nothing before it has a key.
    ///
    /// # Errors
    /// [`Error::Forbidden`]; [`Error::Invalid`]; [`Error::Conflict`] when there is one; [`Error::TooMuch`].
    pub async fn principal_create(
        &self,
        ctx: &Ctx,
        kind: PrincipalKind,
        name: &str,
        role: Role,
    ) -> Result<PrincipalRow, Error> {
        ctx.may(Action::PrincipalWrite)?;
        let row = new(ctx, &ctx.tenant, (kind, name, role), self.now_ms())?;
        let (ctx, inserted) = (ctx.clone(), row.clone());
        self.unit(move |tx| {
            let tenant = &inserted.tenant;
            if principal::get(tx, tenant, inserted.id.as_str())?.is_some() {
                let message = format!("there is a principal `{}`", inserted.id);
                return Err(Error::conflict(message).into());
            }
            check_room(tx, tenant)?;
            Ok(insert(tx, &ctx, &inserted)?)
        })
        .await?;
        Ok(row)
    }

    /// Principals of the tenant by id, those after the page that ended with `after`.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub async fn principal_list(
        &self,
        ctx: &Ctx,
        after: Option<&str>,
        limit: u32,
    ) -> Result<PrincipalPage, Error> {
        ctx.may(Action::PrincipalRead)?;
        let limit = limit.clamp(1, limits::PAGE_MAX);
        let (tenant, after) = (ctx.tenant.clone(), after.unwrap_or("").to_owned());
        let listed = self.look(move |tx| Ok(principal::list(tx, &tenant, &after, limit + 1)?));
        let mut principals = listed.await?;
        let more = principals.len() > limit as usize;
        principals.truncate(limit as usize);
        let last = principals.last().filter(|_| more);
        let next = last.map(|row| row.id.to_string());
        Ok(PrincipalPage { principals, next })
    }

    /// Sends a principal away: its keys are taken back. What it has made stays, and so does what was recorded.
    ///
    /// # Errors
    /// [`Error::Forbidden`]; [`Error::NotFound`].
    pub async fn principal_remove(&self, ctx: &Ctx, id: &str) -> Result<PrincipalRow, Error> {
        ctx.may(Action::PrincipalWrite)?;
        let (ctx, id, now) = (ctx.clone(), id.to_owned(), self.now_ms());
        let removed = self.unit(move |tx| {
            let row = principal::get(tx, &ctx.tenant, &id)?;
            let row = row.ok_or(Fail::Ours(Error::NotFound))?;
            principal::delete(tx, &ctx.tenant, &row.id, now)?;
            let data = serde_json::json!({"kind": row.kind, "role": row.role});
            let of = resource_id(&row);
            tell(
                tx,
                &ctx,
                ("principal", &of),
                "principal.removed",
                &data,
                now,
            )?;
            Ok(row)
        });
        let row = removed.await;
        self.keys_forget();
        row
    }
}

/// A principal that is to be.
pub(crate) fn new(
    ctx: &Ctx,
    tenant: &TenantId,
    (kind, name, role): (PrincipalKind, &str, Role),
    at_ms: u64,
) -> Result<PrincipalRow, Error> {
    let id = kind.named(name).map_err(|_| {
        let message =
            "a name has 1 to 64 letters, digits and `_.@-`, and begins with a letter or digit";
        Error::invalid("name", "invalid_argument", message)
    })?;
    Ok(PrincipalRow {
        tenant: tenant.clone(),
        id,
        kind,
        role,
        issuer: None,
        principal: ctx.principal.clone(),
        created_at_ms: at_ms,
    })
}

/// Whether a tenant may have one more. Those who were sent away are counted for themselves: that they were is kept, so
/// that no issuer of tokens lets them in again.
pub(crate) fn check_room(tx: &mut Tx<'_>, tenant: &TenantId) -> Result<(), Fail> {
    let too_much = |message: String| {
        let code = "too_much";
        Err(Error::TooMuch { code, message }.into())
    };
    if principal::count(tx, tenant)? >= limits::PRINCIPALS_MAX {
        let most = limits::PRINCIPALS_MAX;
        return too_much(format!("a tenant has at most {most} principals"));
    }
    if principal::count_removed(tx, tenant)? >= limits::PRINCIPALS_REMOVED_MAX {
        let most = limits::PRINCIPALS_REMOVED_MAX;
        return too_much(format!(
            "a tenant has sent {most} principals away: use a name again"
        ));
    }
    Ok(())
}

/// The same as [`insert`], where there may be one by now: then nothing is done, and it is not new.
pub(crate) fn insert_if_absent(
    tx: &mut Tx<'_>,
    ctx: &Ctx,
    row: &PrincipalRow,
) -> Result<bool, StoreError> {
    let is_new = principal::insert_if_absent(tx, row)?;
    if is_new {
        told(tx, ctx, row)?;
    }
    Ok(is_new)
}

/// Adds a principal with its event, in the record of its own tenant.
pub(crate) fn insert(tx: &mut Tx<'_>, ctx: &Ctx, row: &PrincipalRow) -> Result<(), StoreError> {
    principal::insert(tx, row)?;
    told(tx, ctx, row)
}

fn told(tx: &mut Tx<'_>, ctx: &Ctx, row: &PrincipalRow) -> Result<(), StoreError> {
    let mut data = serde_json::json!({"kind": row.kind, "role": row.role});
    if let Some(issuer) = &row.issuer {
        data["issuer"] = issuer.as_str().into();
    }
    let ctx = Ctx {
        tenant: row.tenant.clone(),
        ..ctx.clone()
    };
    let of = resource_id(row);
    let at_ms = row.created_at_ms;
    tell(
        tx,
        &ctx,
        ("principal", &of),
        "principal.created",
        &data,
        at_ms,
    )
}

/// Two tenants may have a principal of one name, and events are found without the tenant.
fn resource_id(row: &PrincipalRow) -> String {
    format!("{}/{}", row.tenant, row.id)
}
