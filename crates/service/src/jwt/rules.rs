//! For whom a token stands, by the rules of its issuer. Pure: the signature was checked before, and the clock comes
//! from outside.

use super::text::Algorithm;
use model::access::{Action, Scopes};
use model::id::PrincipalId;
use model::principal::{PrincipalKind, Role};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The largest time that is one: the end of the year 9999.
const TIME_S_MAX: u64 = 253_402_300_799;
/// Audiences of one token.
const AUDIENCES_MAX: usize = 64;

/// Who signs tokens, and what their word counts for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// What people call it; one of a kind.
    pub name: String,
    /// The claim `iss`, byte for byte.
    pub issuer: String,
    /// What `aud` must be, or have.
    pub audience: String,
    /// How its tokens may be signed.
    pub algorithms: Vec<Algorithm>,
    /// Whose things its tokens open.
    pub tenant: TenantFrom,
    /// The claim with the name of the principal.
    pub principal_claim: String,
    /// What acts.
    pub kind: PrincipalKind,
    /// What they may.
    pub role: RoleFrom,
    /// What nobody of this issuer may more than.
    pub role_max: Role,
    /// The claim that narrows, as the scopes of a key.
    pub scopes_claim: String,
    /// Whether a token without one of our scopes is refused.
    pub needs_scope: bool,
    /// By how much clocks may differ, in seconds; at most 60.
    pub leeway_s: u64,
    /// The longest life of a token, in seconds.
    pub life_max_s: u64,
    /// Whether somebody is let in on first sight.
    pub creates: bool,
    /// How people get a token, where the command line is to know.
    pub login: Option<Login>,
}

impl Issuer {
    /// Whether a token that nobody has checked names this issuer, and us.
    pub(super) fn is_meant(&self, claims: &Map<String, Value>) -> bool {
        let named = claims.get("iss").and_then(Value::as_str);
        let audience = claims.get("aud");
        named == Some(&self.issuer) && audience.is_some_and(|aud| is_for(aud, &self.audience))
    }
}

/// What the command line is told to log in with. All of it is public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// As the provider knows the command line.
    pub client_id: String,
    /// What is asked for there.
    pub scopes: Vec<String>,
    /// Whether it is the access token that is shown here, and not the identity token.
    pub shows_access_token: bool,
}

/// Whose things a token opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TenantFrom {
    /// Those of this tenant, by its name or its id.
    Fixed(String),
    /// Those of the tenant in this claim, if it is one of these.
    Claim(String, Vec<String>),
}

/// What a token lets somebody do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleFrom {
    /// The same for all.
    Fixed(Role),
    /// The largest that the values of this claim stand for; or what those get who have none of them.
    Claim(String, BTreeMap<String, Role>, Option<Role>),
}

/// For whom a token stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stands {
    /// By its name or its id.
    pub(super) tenant: String,
    pub(super) principal: PrincipalId,
    pub(super) role: Role,
    pub(super) scopes: Scopes,
    /// The first second at which it counts.
    pub(super) from_s: u64,
    /// The first at which it does not any more.
    pub(super) until_s: u64,
}

/// Why a token does not count. Whoever is told has shown the signature of an issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Wrong {
    #[error("its `aud` is another's")]
    Audience,
    #[error("it has no `exp`, or its times are no whole seconds")]
    Times,
    #[error("it has expired")]
    Expired,
    #[error("its time has not come; look at the clocks")]
    NotYet,
    #[error("it lives longer than tokens of its issuer may")]
    Life,
    #[error("the claim for the principal is no name: 1 to 64 letters, digits and `_.@-`")]
    Principal,
    #[error("its issuer does not speak for this tenant")]
    Tenant,
    #[error("it has no role that counts here")]
    Role,
    #[error("it has no scope that counts here")]
    Scope,
}

/// What a token says by the rules of its issuer, at this second.
pub(super) fn decide(
    issuer: &Issuer,
    claims: &Map<String, Value>,
    now_s: u64,
) -> Result<Stands, Wrong> {
    let audience = claims.get("aud").ok_or(Wrong::Audience)?;
    if !is_for(audience, &issuer.audience) {
        return Err(Wrong::Audience);
    }
    let (from_s, until_s) = times(issuer, claims, now_s)?;
    let name = claim(claims, &issuer.principal_claim).and_then(Value::as_str);
    let named = name.and_then(|name| issuer.kind.named(name).ok());
    Ok(Stands {
        tenant: tenant(issuer, claims).ok_or(Wrong::Tenant)?,
        principal: named.ok_or(Wrong::Principal)?,
        role: role(issuer, claims).ok_or(Wrong::Role)?,
        scopes: scopes(issuer, claims).ok_or(Wrong::Scope)?,
        from_s,
        until_s,
    })
}

/// A claim by its name, or, where that begins with `/`, by where it is (RFC 6901).
fn claim<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c Value> {
    let Some(path) = name.strip_prefix('/') else {
        return claims.get(name);
    };
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    let first = claims.get(&first.replace("~1", "/").replace("~0", "~"))?;
    match rest {
        "" => Some(first),
        rest => first.pointer(&format!("/{rest}")),
    }
}

fn is_for(audience: &Value, wanted: &str) -> bool {
    match audience {
        Value::String(one) => one == wanted,
        Value::Array(all) => {
            all.len() <= AUDIENCES_MAX
                && all.iter().all(Value::is_string)
                && all.iter().any(|one| one == wanted)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
    }
}

/// From when to when it counts, if that is now.
fn times(issuer: &Issuer, claims: &Map<String, Value>, now_s: u64) -> Result<(u64, u64), Wrong> {
    let time = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(value) => {
            let time = value.as_u64().filter(|time| *time <= TIME_S_MAX);
            time.map(Some).ok_or(Wrong::Times)
        }
    };
    let (exp, nbf, iat) = (time("exp")?, time("nbf")?, time("iat")?);
    let exp = exp.ok_or(Wrong::Times)?;
    let (from, until) = (nbf.max(iat).unwrap_or(0), exp);
    let from = from.saturating_sub(issuer.leeway_s);
    if now_s < from {
        return Err(Wrong::NotYet);
    }
    if now_s >= until.saturating_add(issuer.leeway_s) {
        return Err(Wrong::Expired);
    }
    // From when it was made, and from now too: whoever signs may say any time.
    let life = exp.saturating_sub(iat.unwrap_or(now_s));
    let left = exp.saturating_sub(now_s);
    if life > issuer.life_max_s || left > issuer.life_max_s.saturating_add(issuer.leeway_s) {
        return Err(Wrong::Life);
    }
    Ok((from, until.saturating_add(issuer.leeway_s)))
}

fn tenant(issuer: &Issuer, claims: &Map<String, Value>) -> Option<String> {
    match &issuer.tenant {
        TenantFrom::Fixed(tenant) => Some(tenant.clone()),
        TenantFrom::Claim(name, allowed) => {
            let said = claim(claims, name)?.as_str()?;
            let mut allowed = allowed.iter();
            allowed.find(|tenant| *tenant == said).cloned()
        }
    }
}

fn role(issuer: &Issuer, claims: &Map<String, Value>) -> Option<Role> {
    let role = match &issuer.role {
        RoleFrom::Fixed(role) => *role,
        RoleFrom::Claim(name, map, others) => {
            let said = claim(claims, name).map(texts).unwrap_or_default();
            let known = said.iter().filter_map(|text| map.get(*text).copied());
            known.max().or(*others)?
        }
    };
    Some(role.min(issuer.role_max))
}

fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(one) => vec![one],
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    }
}

/// What it is narrowed to. One that names scopes of the form of ours, and none of ours, was to be narrow: it is not
/// taken for one that is not narrowed.
fn scopes(issuer: &Issuer, claims: &Map<String, Value>) -> Option<Scopes> {
    let said = claim(claims, &issuer.scopes_claim)
        .map(texts)
        .unwrap_or_default();
    let words: Vec<&str> = said.iter().flat_map(|text| text.split(' ')).collect();
    let is_like_ours = |word: &&str| word.ends_with(":read") || word.ends_with(":write");
    let is_narrow = issuer.needs_scope || words.iter().any(is_like_ours);
    let known: Vec<Action> = words
        .iter()
        .filter_map(|word| Action::parse(word))
        .collect();
    if is_narrow && known.is_empty() {
        return None;
    }
    Some(Scopes::of(known))
}
