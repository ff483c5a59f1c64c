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
            if principal::count(tx, tenant)? >= limits::PRINCIPALS_MAX {
                let message = format!("a tenant has at most {} principals", limits::PRINCIPALS_MAX);
                let code = "too_much";
                return Err(Error::TooMuch { code, message }.into());
            }
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
            principal::delete(tx, &ctx.tenant, &row.id)?;
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
        principal: ctx.principal.clone(),
        created_at_ms: at_ms,
    })
}

/// Adds a principal with its event, in the record of its own tenant.
pub(crate) fn insert(tx: &mut Tx<'_>, ctx: &Ctx, row: &PrincipalRow) -> Result<(), StoreError> {
    principal::insert(tx, row)?;
    let data = serde_json::json!({"kind": row.kind, "role": row.role});
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
