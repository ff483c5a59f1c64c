//! `cofferdam tenant`, `principal` and `key`: who may ask.

use crate::cli::args::{KeyCommand, Kind, PeopleCommand, PrincipalCommand, RoleArg, TenantCommand};
use crate::cli::failure::Failure;
use crate::cli::job::when;
use crate::cli::quota::quota;
use crate::cli::table;
use api::Code;
use api::client::{Client, ClientError};
use api::people::{
    KeyCreate, KeyList, KeyView, PeopleListQuery, PrincipalCreate, PrincipalKind, PrincipalList,
    PrincipalView, Role, TenantCreate, TenantList, TenantView,
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
            let mut all = TenantList {
                tenants: Vec::new(),
                next: None,
            };
            loop {
                let page = client.tenant_list(&page(all.next.take())).await?;
                all.tenants.extend(page.tenants);
                all.next = page.next;
                if all.next.is_none() {
                    break;
                }
            }
            let rows = || all.tenants.iter().map(tenant_line).collect();
            let head = ["NAME", "CREATED (UTC)", "BY", "ID"];
            print(json, &all, || Ok(table::layout(&head, rows())))
        }
        TenantCommand::Rm { name, json } => {
            let removed = client.tenant_remove(&name).await;
            let hint = "`cofferdam tenant ls` lists them";
            let view = removed.map_err(about("tenant", &name, hint))?;
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
            let view = client.principal_create(&new).await?;
            print(json, &view, || Ok(format!("{}\n", view.id)))
        }
        PrincipalCommand::Ls { json } => {
            let mut all = PrincipalList {
                principals: Vec::new(),
                next: None,
            };
            loop {
                let page = client.principal_list(&page(all.next.take())).await?;
                all.principals.extend(page.principals);
                all.next = page.next;
                if all.next.is_none() {
                    break;
                }
            }
            if !json && all.principals.is_empty() {
                table::note("there are none; `cofferdam principal create NAME` lets one in");
                return Ok(ExitCode::SUCCESS);
            }
            let rows = || all.principals.iter().map(principal_line).collect();
            let head = ["ID", "ROLE", "CREATED (UTC)", "BY"];
            print(json, &all, || Ok(table::layout(&head, rows())))
        }
        PrincipalCommand::Rm { id, json } => {
            let removed = client.principal_remove(&id).await;
            let hint = "`cofferdam principal ls` lists them";
            let view = removed.map_err(about("principal", &id, hint))?;
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
            let made = made.map_err(about("principal", &principal, hint))?;
            print(json, &made, || Ok(format!("{}\n", made.key.0)))
        }
        KeyCommand::Ls { json } => {
            let mut all = KeyList {
                keys: Vec::new(),
                next: None,
            };
            loop {
                let page = client.key_list(&page(all.next.take())).await?;
                all.keys.extend(page.keys);
                all.next = page.next;
                if all.next.is_none() {
                    break;
                }
            }
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
            let view = view.map_err(about("key", &id, hint))?;
            print(json, &view, || Ok(format!("{}\n", view.id)))
        }
    }
}

pub(super) fn page(after: Option<String>) -> PeopleListQuery {
    PeopleListQuery {
        limit: Some(PAGE),
        after,
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

pub(super) fn about(noun: &str, name: &str, hint: &str) -> impl Fn(ClientError) -> Failure {
    let (message, hint) = (format!("there is no {noun} `{name}`"), hint.to_owned());
    move |error| {
        if !error.is(Code::NotFound) {
            return error.into();
        }
        Failure::new(Code::NotFound, message.clone()).hint(hint.clone())
    }
}
