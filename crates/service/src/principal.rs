//! Letting people, agents and automations in, saying what they may, and sending them away.

use crate::error::Fail;
use crate::key::tell;
use crate::{Ctx, Error, Service, page};
use model::access::{Action, Scopes};
use model::id::TenantId;
use model::limits;
use model::principal::{PrincipalKind, Role};
use store::principal::{self, PrincipalRow};
use store::{StoreError, Tx, tenant};

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
                return Err(taken(&inserted).into());
            }
            check_room(tx, tenant)?;
            insert(tx, &ctx, &inserted)
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
        let next = page::cut(&mut principals, limit, |row| row.id.to_string());
        Ok(PrincipalPage { principals, next })
    }

    /// Gives a principal another role. This server goes by it from then on, others after a second. The same one again
    /// changes nothing, and is no event.
    ///
    /// Of one whom an issuer of tokens has named this is the bound: its tokens still say which role they have, and the
    /// smaller one counts.
    ///
    /// # Errors
    /// [`Error::Forbidden`], also for a larger role by a credential that is narrowed; [`Error::NotFound`];
    /// [`Error::Conflict`] for the last admin of a tenant that is not the first: nobody could let anybody in then.
    pub async fn principal_set(
        &self,
        ctx: &Ctx,
        id: &str,
        role: Role,
    ) -> Result<PrincipalRow, Error> {
        ctx.may(Action::PrincipalWrite)?;
        let (ctx, id, now) = (ctx.clone(), id.to_owned(), self.now_ms());
        let set = self.unit(move |tx| {
            let row = alone(tx, &ctx.tenant, &id)?;
            if row.role == role {
                return Ok(row);
            }
            check_raise(&ctx, row.role, role)?;
            if role < Role::Admin {
                check_not_last(tx, &row)?;
            }
            if !principal::set_role(tx, &row, role)? {
                return Err(Error::conflict(format!("`{id}` was changed just now")).into());
            }
            told_role(tx, &ctx, &row, role, now)?;
            Ok(PrincipalRow { role, ..row })
        });
        let row = set.await;
        // Also when it is not known whether it happened.
        self.keys_forget();
        row
    }

    /// Sends a principal away: its keys are taken back. What it has made stays, and so does what was recorded.
    ///
    /// # Errors
    /// [`Error::Forbidden`]; [`Error::NotFound`]; [`Error::Conflict`] for the last admin of a tenant that is not the
    /// first: nobody could let anybody in after that.
    pub async fn principal_remove(&self, ctx: &Ctx, id: &str) -> Result<PrincipalRow, Error> {
        ctx.may(Action::PrincipalWrite)?;
        let (ctx, id, now) = (ctx.clone(), id.to_owned(), self.now_ms());
        let removed = self.unit(move |tx| {
            let row = alone(tx, &ctx.tenant, &id)?;
            check_not_last(tx, &row)?;
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

/// A principal, while nobody else of its tenant is given a role or sent away until this transaction ends. Else two
/// admins who send each other away at once would both be gone; and so would somebody who is made an admin while they
/// are sent away, after another admin was made less because of them.
fn alone(tx: &mut Tx<'_>, tenant: &TenantId, id: &str) -> Result<PrincipalRow, Fail> {
    tenant::alone(tx, tenant)?;
    let row = principal::get(tx, tenant, id)?;
    row.ok_or(Fail::Ours(Error::NotFound))
}

/// Whoever has a narrowed credential gives nobody more: keys of that principal that are narrowed to nothing, perhaps in
/// the hands of whoever asks, would do what this credential may not.
fn check_raise(ctx: &Ctx, from: Role, to: Role) -> Result<(), Error> {
    if to <= from || ctx.scopes().cover(&Scopes::default()) {
        return Ok(());
    }
    let message = "your own credential is narrowed: it makes nobody's role larger";
    Err(Error::Forbidden(message.to_owned()))
}

/// Refuses to send away, or to make less, the last one who may let others in. The first tenant has whoever runs the
/// server. Its caller holds the tenant with [`alone`].
fn check_not_last(tx: &mut Tx<'_>, row: &PrincipalRow) -> Result<(), Fail> {
    let lets_in = row.role == Role::Admin && row.kind != PrincipalKind::Agent;
    if !lets_in || row.tenant == TenantId::local() {
        return Ok(());
    }
    if principal::has_other_admin(tx, &row.tenant, &row.id)? {
        return Ok(());
    }
    let message = format!(
        "`{}` is the last admin of the tenant, and nobody could let anybody in any more; make another admin first",
        row.id
    );
    Err(Error::conflict(message).into())
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

/// The same as [`insert`], where there may be one by now, or no tenant any more: then nothing is done, and it is not
/// new.
pub(crate) fn insert_if_absent(
    tx: &mut Tx<'_>,
    ctx: &Ctx,
    row: &PrincipalRow,
) -> Result<bool, StoreError> {
    let is_new = principal::insert(tx, row)?;
    if is_new {
        told(tx, ctx, row)?;
    }
    Ok(is_new)
}

/// Adds a principal with its event, in the record of its own tenant.
pub(crate) fn insert(tx: &mut Tx<'_>, ctx: &Ctx, row: &PrincipalRow) -> Result<(), Fail> {
    // A key of a tenant that was just deleted is still believed for a second.
    if !tenant::stays(tx, &row.tenant)? {
        return Err(Error::NotFound.into());
    }
    if !principal::insert(tx, row)? {
        // Two were asked for at once.
        return Err(taken(row).into());
    }
    Ok(told(tx, ctx, row)?)
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
    let of = ("principal", &*of);
    let at_ms = row.created_at_ms;
    tell(tx, &ctx, of, "principal.created", &data, at_ms)
}

fn told_role(
    tx: &mut Tx<'_>,
    ctx: &Ctx,
    row: &PrincipalRow,
    to: Role,
    at_ms: u64,
) -> Result<(), StoreError> {
    let data = serde_json::json!({"kind": row.kind, "from": row.role, "to": to});
    let of = resource_id(row);
    let of = ("principal", &*of);
    tell(tx, ctx, of, "principal.role_changed", &data, at_ms)
}

fn taken(row: &PrincipalRow) -> Error {
    Error::conflict(format!("there is a principal `{}`", row.id))
}

/// Two tenants may have a principal of one name, and events are found without the tenant.
fn resource_id(row: &PrincipalRow) -> String {
    format!("{}/{}", row.tenant, row.id)
}
