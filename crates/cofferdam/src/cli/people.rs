//! `cofferdam tenant`, `principal` and `key`: who may ask.

use crate::cli::args::{KeyCommand, Kind, PeopleCommand, PrincipalCommand, RoleArg, TenantCommand};
use crate::cli::failure::{Failure, missing};
use crate::cli::job::when;
use crate::cli::quota::quota;
use crate::cli::table;
use api::Code;
use api::client::{Client, ClientError};
use api::people::{
    KeyCreate, KeyList, KeyView, PeopleListQuery, PrincipalCreate, PrincipalKind, PrincipalList,
    PrincipalPut, PrincipalView, Role, TenantCreate, TenantList, TenantView,
};
use std::process::ExitCode;

/// Rows that are asked for at a time.
const PAGE: u32 = 500;

/// Does what was asked.
pub(crate) async fn people(client: &Client, asked: PeopleCommand) -> Result<ExitCode, Failure> {
    match asked {
        PeopleCommand::Tenant(args) => tenant(client, args.command).await,
        PeopleCommand::Principal(args) => principal(client, args.command).await,
        PeopleCommand::Key(args) => key(client, args.command).await,
        PeopleCommand::Quota(args) => quota(client, args.command).await,
    }
}

async fn tenant(client: &Client, command: TenantCommand) -> Result<ExitCode, Failure> {
    match command {
        TenantCommand::Create { name, admin, json } => {
            let admin = Some(admin);
            let made = client.tenant_create(&TenantCreate { name, admin }).await?;
            if !json {
                let (tenant, admin) = (&made.tenant.name, &made.admin.id);
                table::note(&format!(
                    "the key of {admin} of {tenant}, told this once: it lets others in"
                ));
            }
            let text = || Ok(format!("{}\n", made.key.key.0));
            print(json, &made, text)
        }
        TenantCommand::Ls { json } => {
            let all = all_pages(async |query| {
                let page = client.tenant_list(&query).await?;
                Ok((page.tenants, page.next))
            });
            let all = TenantList {
                tenants: all.await?,
                next: None,
            };
            let rows = || all.tenants.iter().map(tenant_line).collect();
            let head = ["NAME", "CREATED (UTC)", "BY", "ID"];
            print(json, &all, || Ok(table::layout(&head, rows())))
        }
        TenantCommand::Rm { name, json } => {
            let removed = client.tenant_remove(&name).await;
            let view = removed.map_err(not_removed(&name))?;
            print(json, &view, || Ok(format!("{}\n", view.name)))
        }
    }
}

async fn principal(client: &Client, command: PrincipalCommand) -> Result<ExitCode, Failure> {
    match command {
        PrincipalCommand::Create {
            name,
            kind,
            role,
            json,
        } => {
            let new = PrincipalCreate {
                kind: kind_of(kind),
                name,
                role: role_of(role),
            };
            let made = client.principal_create(&new).await;
            let view = made.map_err(|error| match error.is(Code::Conflict) {
                true => Failure::from(error).hint(
                    "`cofferdam key create` makes another key for whoever is there, \
                     `cofferdam principal set` gives it another role",
                ),
                false => error.into(),
            })?;
            print(json, &view, || Ok(format!("{}\n", view.id)))
        }
        PrincipalCommand::Ls { json } => {
            let all = all_pages(async |query| {
                let page = client.principal_list(&query).await?;
                Ok((page.principals, page.next))
            });
            let all = PrincipalList {
                principals: all.await?,
                next: None,
            };
            if !json && all.principals.is_empty() {
                table::note("there are none; `cofferdam principal create NAME` lets one in");
                return Ok(ExitCode::SUCCESS);
            }
            let rows = || all.principals.iter().map(principal_line).collect();
            let head = ["ID", "ROLE", "CREATED (UTC)", "BY"];
            print(json, &all, || Ok(table::layout(&head, rows())))
        }
        PrincipalCommand::Set { id, role, json } => {
            let role = role_of(role);
            let set = client.principal_put(&id, &PrincipalPut { role }).await;
            let hint = "`cofferdam principal ls` lists them";
            let view = set.map_err(missing("principal", &id, hint))?;
            if let Some(issuer) = view.issuer.as_deref().filter(|_| !json) {
                table::note(&format!(
                    "tokens of {issuer} say which role they have; the smaller one counts"
                ));
            }
            print(json, &view, || Ok(format!("{} {}\n", view.id, view.role)))
        }
        PrincipalCommand::Rm { id, json } => {
            let removed = client.principal_remove(&id).await;
            let hint = "`cofferdam principal ls` lists them";
            let view = removed.map_err(missing("principal", &id, hint))?;
            print(json, &view, || Ok(format!("{}\n", view.id)))
        }
    }
}

async fn key(client: &Client, command: KeyCommand) -> Result<ExitCode, Failure> {
    match command {
        KeyCommand::Create {
            principal,
            name,
            scope,
            expires,
            json,
        } => {
            let new = KeyCreate {
                principal: principal.clone(),
                name,
                scopes: scope,
                expires_in_s: expires.map(|life| life.as_secs()),
            };
            let made = client.key_create(&new).await;
            let hint =
                "`cofferdam principal ls` lists them, `cofferdam principal create` makes one";
            let made = made.map_err(missing("principal", &principal, hint))?;
            print(json, &made, || Ok(format!("{}\n", made.key.0)))
        }
        KeyCommand::Ls { json } => {
            let all = all_pages(async |query| {
                let page = client.key_list(&query).await?;
                Ok((page.keys, page.next))
            });
            let all = KeyList {
                keys: all.await?,
                next: None,
            };
            if !json && all.keys.is_empty() {
                table::note("there are none; `cofferdam key create PRINCIPAL` makes one");
                return Ok(ExitCode::SUCCESS);
            }
            let rows = || all.keys.iter().map(key_line).collect();
            let head = [
                "ID",
                "PRINCIPAL",
                "NAME",
                "BEGINS",
                "SCOPES",
                "CREATED (UTC)",
                "EXPIRES",
                "USED",
            ];
            print(json, &all, || Ok(table::layout(&head, rows())))
        }
        KeyCommand::Rm { id, json } => {
            let hint = "`cofferdam key ls` lists them, by id";
            let view = client.key_revoke(&id).await;
            let view = view.map_err(missing("key", &id, hint))?;
            print(json, &view, || Ok(format!("{}\n", view.id)))
        }
    }
}

/// What is on all pages: each ends with where the next one begins.
pub(super) async fn all_pages<T>(
    mut page: impl AsyncFnMut(PeopleListQuery) -> Result<(Vec<T>, Option<String>), ClientError>,
) -> Result<Vec<T>, Failure> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let limit = Some(PAGE);
        let (rows, next) = page(PeopleListQuery { limit, after }).await?;
        all.extend(rows);
        if next.is_none() {
            return Ok(all);
        }
        after = next;
    }
}

pub(super) fn print<T: serde::Serialize>(
    json: bool,
    value: &T,
    text: impl FnOnce() -> Result<String, Failure>,
) -> Result<ExitCode, Failure> {
    table::print(&if json {
        table::to_json(value)?
    } else {
        text()?
    })?;
    Ok(ExitCode::SUCCESS)
}

fn tenant_line(view: &TenantView) -> Vec<String> {
    vec![
        view.name.clone(),
        when(view.created_at_ms),
        view.made_by.clone(),
        view.id.clone(),
    ]
}

fn principal_line(view: &PrincipalView) -> Vec<String> {
    vec![
        view.id.clone(),
        view.role.clone(),
        when(view.created_at_ms),
        view.made_by.clone(),
    ]
}

fn key_line(view: &KeyView) -> Vec<String> {
    let time = |at: Option<u64>| at.map_or_else(|| "-".to_owned(), when);
    vec![
        view.id.clone(),
        view.principal.clone(),
        view.name.clone(),
        view.prefix.clone(),
        view.scopes.join(" "),
        when(view.created_at_ms),
        time(view.expires_at_ms),
        time(view.used_at_ms),
    ]
}

fn kind_of(kind: Kind) -> PrincipalKind {
    match kind {
        Kind::User => PrincipalKind::User,
        Kind::Agent => PrincipalKind::Agent,
        Kind::Automation => PrincipalKind::Automation,
    }
}

fn role_of(role: RoleArg) -> Role {
    match role {
        RoleArg::Member => Role::Member,
        RoleArg::Operator => Role::Operator,
        RoleArg::Admin => Role::Admin,
    }
}

fn not_removed(name: &str) -> impl Fn(ClientError) -> Failure {
    let is_first = name == "local" || name == "ten_local";
    let not_there = missing("tenant", name, "`cofferdam tenant ls` lists them");
    move |error| {
        if is_first && error.is(Code::TenantInUse) {
            let message = "the first tenant is that of the server itself";
            let failure = Failure::new(Code::TenantInUse, message);
            return failure.hint("it cannot be deleted; what is in it can");
        }
        not_there(error)
    }
}
