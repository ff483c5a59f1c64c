//! Tenants: who owns things. The first one is that of whoever runs the server, and makes the others.

use crate::error::Fail;
use crate::key::{self, Made, NewKey, tell};
use crate::{Caller, Ctx, Error, Service, page, principal, random};
use model::access::Action;
use model::id::TenantId;
use model::limits;
use model::principal::{PrincipalKind, Role, is_name};
use store::key::KeyRow;
use store::principal::PrincipalRow;
use store::tenant::{self, TenantRow};
use store::{Tx, policy, profile, sandbox, secret, snapshot, volume};

/// A page of tenants, by id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantPage {
    /// The tenants.
    pub tenants: Vec<TenantRow>,
    /// Where the next page begins; absent on the last one.
    pub next: Option<String>,
}

/// A tenant that is new, with what lets its first person in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantMade {
    /// The tenant.
    pub tenant: TenantRow,
    /// Its first admin.
    pub admin: PrincipalRow,
    /// The key of that, and its text, told once.
    pub key: (KeyRow, String),
}

impl Service {
    /// Makes a tenant with its first admin and a key for that: nobody of another tenant can let anybody in later.
    ///
    /// # Errors
    /// [`Error::Forbidden`] but for admins of the first tenant; [`Error::Invalid`]; [`Error::Conflict`] when there
    /// is one of this name; [`Error::TooMuch`].
    pub async fn tenant_create(
        &self,
        ctx: &Ctx,
        name: &str,
        admin: &str,
    ) -> Result<TenantMade, Error> {
        ctx.may(Action::TenantWrite)?;
        let now = self.now_ms();
        if !is_name(name) || name.starts_with("ten_") {
            let message = "a name has 1 to 64 letters, digits and `_.@-`, begins with a letter or digit, and not \
                           with `ten_`";
            return Err(Error::invalid("name", "invalid_argument", message));
        }
        let row = TenantRow {
            id: TenantId::from_parts(now, random()?),
            name: name.to_owned(),
            principal: ctx.principal.clone(),
            created_at_ms: now,
        };
        let admin = (PrincipalKind::User, admin, Role::Admin);
        let admin = principal::new(ctx, &row.id, admin, now)?;
        // What whoever makes it is narrowed to does not count: the key opens a tenant in which nothing is yet.
        let inside = Ctx {
            tenant: row.id.clone(),
            caller: Caller::Internal,
            ..ctx.clone()
        };
        let new_key = NewKey {
            owner: admin.id.to_string(),
            name: "first".to_owned(),
            // Else a key that ends soon would make one that never does.
            life_ms: ctx.until_ms().map(|until| until.saturating_sub(now)),
            ..NewKey::default()
        };
        let Made {
            row: first,
            digests,
            text,
        } = self.key_made(&inside, &new_key)?;
        let made = TenantMade {
            tenant: row,
            admin,
            key: (first, text),
        };
        let (ctx, inserted) = (ctx.clone(), made.clone());
        self.unit(move |tx| {
            check_free(tx, &inserted.tenant)?;
            if !tenant::insert(tx, &inserted.tenant)? {
                // Somebody else took the name since it was looked for.
                return Err(taken(&inserted.tenant).into());
            }
            let data = serde_json::json!({"name": inserted.tenant.name});
            let of = ("tenant", inserted.tenant.id.as_str());
            tell(tx, &ctx, of, "tenant.created", &data, now)?;
            principal::insert(tx, &ctx, &inserted.admin)?;
            key::insert(tx, &ctx, &inserted.key.0, &digests)
        })
        .await?;
        Ok(made)
    }

    /// Tenants by id, those after the page that ended with `after`.
    ///
    /// # Errors
    /// [`Error::Forbidden`] but for admins of the first tenant.
    pub async fn tenant_list(
        &self,
        ctx: &Ctx,
        after: Option<&str>,
        limit: u32,
    ) -> Result<TenantPage, Error> {
        ctx.may(Action::TenantRead)?;
        let (limit, after) = (
            limit.clamp(1, limits::PAGE_MAX),
            after.unwrap_or("").to_owned(),
        );
        let listed = self.look(move |tx| Ok(tenant::list(tx, &after, limit + 1)?));
        let mut tenants = listed.await?;
        let next = page::cut(&mut tenants, limit, |row| row.id.to_string());
        Ok(TenantPage { tenants, next })
    }

    /// Deletes a tenant that has nothing any more: nobody gets in from then on. What has ended goes by its own time,
    /// and its record too.
    ///
    /// # Errors
    /// [`Error::Forbidden`] but for admins of the first tenant; [`Error::NotFound`]; [`Error::Conflict`]
    /// `tenant_in_use`, also for the first tenant.
    pub async fn tenant_remove(&self, ctx: &Ctx, name_or_id: &str) -> Result<TenantRow, Error> {
        ctx.may(Action::TenantWrite)?;
        let (ctx, named, now) = (ctx.clone(), name_or_id.to_owned(), self.now_ms());
        let removed = self.unit(move |tx| {
            let row = tenant::get(tx, &named)?;
            let row = row.ok_or(Fail::Ours(Error::NotFound))?;
            if let Some(what) = what_is_left(tx, &row.id)? {
                let message = format!("the tenant has {what}");
                return Err(Error::conflict_of("tenant_in_use", message).into());
            }
            tenant::delete(tx, &row.id)?;
            let data = serde_json::json!({"name": row.name});
            let of = ("tenant", row.id.as_str());
            tell(tx, &ctx, of, "tenant.removed", &data, now)?;
            Ok(row)
        });
        let row = removed.await;
        self.keys_forget();
        row
    }
}

fn taken(new: &TenantRow) -> Error {
    Error::conflict(format!("there is a tenant `{}`", new.name))
}

fn check_free(tx: &mut Tx<'_>, new: &TenantRow) -> Result<(), Fail> {
    if tenant::get(tx, &new.name)?.is_some() {
        return Err(taken(new).into());
    }
    if tenant::count(tx)? >= limits::TENANTS_MAX {
        let message = format!("there are at most {} tenants", limits::TENANTS_MAX);
        let code = "too_much";
        return Err(Error::TooMuch { code, message }.into());
    }
    Ok(())
}

/// What would go on running, or be kept, with nobody to see it. Somebody who is let in at this moment may still make
/// something; it ends by its own time.
fn what_is_left(tx: &mut Tx<'_>, id: &TenantId) -> Result<Option<&'static str>, Fail> {
    Ok(if *id == TenantId::local() {
        Some("the server itself")
    } else if tenant::has_open_job(tx, id)? {
        Some("jobs that have not ended")
    } else if sandbox::count_live(tx, id, 1)? > 0 {
        Some("sandboxes that live")
    } else if volume::count(tx, id, 1)? > 0 {
        Some("volumes")
    } else if snapshot::count(tx, id, 1)? > 0 {
        Some("snapshots")
    } else if secret::count(tx, id, false)? + secret::count(tx, id, true)? > 0 {
        Some("secrets")
    } else if profile::count(tx, id, 1)? > 0 {
        Some("profiles")
    } else if !policy::list(tx, id)?.is_empty() {
        Some("policies")
    } else {
        None
    })
}
