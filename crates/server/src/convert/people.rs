//! Tenants, principals and keys, in the words of both sides.

use api::fleet::Hidden;
use api::people::{
    self, KeyCreate, KeyList, KeyMade, KeyView, LoginInfo, LoginProvider, Me, PrincipalList,
    PrincipalView, TenantList, TenantView,
};
use model::principal::{PrincipalKind, Role};
use service::{
    KeyPage, KeyRow, Login, NewKey, PrincipalPage, PrincipalRow, ShownBy, TenantMade, TenantPage,
    TenantRow, Who,
};

pub(crate) fn kind(asked: people::PrincipalKind) -> PrincipalKind {
    match asked {
        people::PrincipalKind::User => PrincipalKind::User,
        people::PrincipalKind::Agent => PrincipalKind::Agent,
        people::PrincipalKind::Automation => PrincipalKind::Automation,
    }
}

pub(crate) fn role(asked: people::Role) -> Role {
    match asked {
        people::Role::Member => Role::Member,
        people::Role::Operator => Role::Operator,
        people::Role::Admin => Role::Admin,
    }
}

pub(crate) fn principal(row: PrincipalRow) -> PrincipalView {
    PrincipalView {
        id: row.id.to_string(),
        kind: row.kind.as_str().to_owned(),
        role: row.role.as_str().to_owned(),
        made_by: row.principal.to_string(),
        created_at_ms: row.created_at_ms,
        issuer: row.issuer,
    }
}

pub(crate) fn principals(page: PrincipalPage) -> PrincipalList {
    PrincipalList {
        principals: page.principals.into_iter().map(principal).collect(),
        next: page.next,
    }
}

pub(crate) fn new_key(asked: KeyCreate) -> NewKey {
    NewKey {
        owner: asked.principal,
        name: asked.name,
        scopes: asked.scopes,
        life_ms: asked.expires_in_s.map(|life| life.saturating_mul(1000)),
    }
}

pub(crate) fn key(row: KeyRow) -> KeyView {
    let scopes = row.scopes.texts().into_iter();
    KeyView {
        id: row.id.to_string(),
        principal: row.owner.to_string(),
        name: row.name,
        prefix: row.prefix,
        scopes: scopes.map(str::to_owned).collect(),
        made_by: row.made_by.to_string(),
        created_at_ms: row.created_at_ms,
        expires_at_ms: row.expires_at_ms,
        used_at_ms: row.used_at_ms,
    }
}

pub(crate) fn key_made(row: KeyRow, text: String) -> KeyMade {
    KeyMade {
        view: key(row),
        e2b_key: Hidden(service::e2b_form(&text)),
        key: Hidden(text),
    }
}

pub(crate) fn keys(page: KeyPage) -> KeyList {
    KeyList {
        keys: page.keys.into_iter().map(key).collect(),
        next: page.next,
    }
}

pub(crate) fn tenant(row: TenantRow) -> TenantView {
    TenantView {
        id: row.id.to_string(),
        name: row.name,
        made_by: row.principal.to_string(),
        created_at_ms: row.created_at_ms,
    }
}

pub(crate) fn tenant_made(made: TenantMade) -> people::TenantMade {
    let (row, text) = made.key;
    people::TenantMade {
        tenant: tenant(made.tenant),
        admin: principal(made.admin),
        key: key_made(row, text),
    }
}

pub(crate) fn tenants(page: TenantPage) -> TenantList {
    TenantList {
        tenants: page.tenants.into_iter().map(tenant).collect(),
        next: page.next,
    }
}

pub(crate) fn me(who: Who) -> Me {
    let expires_at_ms = who.shown.as_ref().and_then(|shown| shown.expires_at_ms);
    let (credential, credential_of) = match who.shown.map(|shown| shown.by) {
        None => ("server", None),
        Some(ShownBy::Key(id)) => ("key", Some(id.to_string())),
        Some(ShownBy::Token(issuer)) => ("token", Some(issuer)),
        Some(ShownBy::Development) => ("development", None),
    };
    let scopes = who.grant.scopes.texts().into_iter();
    Me {
        tenant: who.tenant.to_string(),
        principal: who.principal.to_string(),
        kind: who.grant.kind.as_str().to_owned(),
        role: who.grant.role.as_str().to_owned(),
        scopes: scopes.map(str::to_owned).collect(),
        credential: credential.to_owned(),
        credential_of,
        expires_at_ms,
    }
}

pub(crate) fn login(all: Vec<(String, Login)>) -> LoginInfo {
    let one = |(issuer, login): (String, Login)| LoginProvider {
        issuer,
        client_id: login.client_id,
        scopes: login.scopes,
        token: match login.shows_access_token {
            true => "access_token",
            false => "id_token",
        }
        .to_owned(),
    };
    LoginInfo {
        providers: all.into_iter().map(one).collect(),
    }
}
