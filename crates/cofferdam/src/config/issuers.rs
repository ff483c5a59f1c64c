//! Whose tokens count, as it is written in a configuration, and whether that can be.

use super::valid::wrong;
use crate::cli::failure::Failure;
use crate::web::Site;
use model::principal::{PrincipalKind, Role, is_name};
use serde::{Deserialize, Serialize};
use service::{Algorithm, ISSUERS_MAX, RoleFrom, TenantFrom};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Tenants, values of roles and scopes of one issuer.
const LIST_MAX: usize = 100;
/// The longest name of an issuer, an audience or a claim.
const TEXT_BYTES_MAX: usize = 512;
/// Clocks of machines that are kept right differ by less.
const LEEWAY_S_MAX: u64 = 60;
/// A day: a token cannot be taken back, but by sending its principal away.
const LIFE_S_MAX: u64 = 24 * 3600;

/// Who signs tokens.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Issuer {
    /// What people call it.
    pub(crate) name: String,
    /// The claim `iss`.
    pub(crate) issuer: String,
    /// What the claim `aud` must be, or have.
    pub(crate) audience: String,
    /// Of `RS256`, `ES256`, `EdDSA`; or `HS256` alone.
    pub(crate) algorithms: Vec<String>,
    /// Where its public keys are.
    #[serde(default)]
    pub(crate) jwks_url: Option<String>,
    #[serde(default)]
    pub(crate) jwks_file: Option<PathBuf>,
    /// Where the secret of `HS256` is.
    #[serde(default)]
    pub(crate) secret_file: Option<PathBuf>,
    /// Certificates in place of those that this machine trusts, for `jwks_url`.
    #[serde(default)]
    pub(crate) ca: Option<PathBuf>,
    #[serde(default)]
    pub(crate) tenant: Option<String>,
    #[serde(default)]
    pub(crate) tenant_claim: Option<String>,
    #[serde(default)]
    pub(crate) tenants: Vec<String>,
    #[serde(default = "principal_claim")]
    pub(crate) principal_claim: String,
    #[serde(default = "kind")]
    pub(crate) kind: PrincipalKind,
    #[serde(default)]
    pub(crate) role: Option<Role>,
    #[serde(default)]
    pub(crate) roles_claim: Option<String>,
    #[serde(default = "role_max")]
    pub(crate) role_max: Role,
    #[serde(default = "scopes_claim")]
    pub(crate) scopes_claim: String,
    #[serde(default)]
    pub(crate) scopes_required: bool,
    #[serde(default = "leeway")]
    pub(crate) leeway_seconds: u64,
    #[serde(default = "life")]
    pub(crate) life_max_seconds: u64,
    /// Whether somebody is let in on first sight.
    #[serde(default)]
    pub(crate) create: bool,
    /// What values of `roles_claim` stand for.
    #[serde(default)]
    pub(crate) roles: BTreeMap<String, Role>,
    /// With what the command line gets a token.
    pub(crate) login: Option<Login>,
}

/// With what the command line gets a token of an issuer.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Login {
    pub(crate) client_id: String,
    #[serde(default = "login_scopes")]
    pub(crate) scopes: Vec<String>,
    #[serde(default)]
    pub(crate) token: TokenShown,
}

/// Which token of a login is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TokenShown {
    /// That which says who somebody is, and whose audience is the client.
    #[default]
    IdToken,
    /// That which is made for an API.
    AccessToken,
}

/// Where keys of an issuer are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeysAt {
    Url(String, Option<PathBuf>),
    File(PathBuf),
    Secret(PathBuf),
}

fn principal_claim() -> String {
    "sub".to_owned()
}

fn kind() -> PrincipalKind {
    PrincipalKind::User
}

fn role_max() -> Role {
    Role::Operator
}

fn scopes_claim() -> String {
    "scope".to_owned()
}

fn leeway() -> u64 {
    30
}

fn life() -> u64 {
    LIFE_S_MAX
}

fn login_scopes() -> Vec<String> {
    vec!["openid".to_owned(), "offline_access".to_owned()]
}

/// The issuers as the service takes them, each with where its keys are. Refuses the first that cannot be.
pub(super) fn read(all: &[Issuer]) -> Result<Vec<(service::Issuer, KeysAt)>, Failure> {
    if all.len() > ISSUERS_MAX {
        let why = format!("are {} and not at most {ISSUERS_MAX}", all.len());
        return Err(wrong("issuers", &why));
    }
    for (number, one) in all.iter().enumerate() {
        let mut before = all.iter().take(number);
        if before.any(|other| other.name == one.name || other.issuer == one.issuer) {
            let why = format!("has `{}` twice, by `name` or `issuer`", one.name);
            return Err(wrong("issuers", &why));
        }
    }
    all.iter().map(Issuer::read).collect()
}

impl Issuer {
    fn read(&self) -> Result<(service::Issuer, KeysAt), Failure> {
        if !is_name(&self.name) {
            let why = "is no name: 1 to 64 letters, digits and `_.@-`";
            return Err(wrong("issuers.name", why));
        }
        self.check_texts()?;
        self.between("leeway_seconds", self.leeway_seconds, 0, LEEWAY_S_MAX)?;
        self.between("life_max_seconds", self.life_max_seconds, 60, LIFE_S_MAX)?;
        if !matches!(
            self.kind,
            PrincipalKind::User | PrincipalKind::Agent | PrincipalKind::Automation
        ) {
            return Err(self.wrong("kind", "is neither `user`, `agent` nor `automation`"));
        }
        let algorithms = self.algorithms()?;
        let keys = self.keys(&algorithms)?;
        let issuer = service::Issuer {
            name: self.name.clone(),
            issuer: self.issuer.clone(),
            audience: self.audience.clone(),
            algorithms,
            tenant: self.tenant_from()?,
            principal_claim: self.principal_claim.clone(),
            kind: self.kind,
            role: self.role_from()?,
            role_max: self.role_max,
            scopes_claim: self.scopes_claim.clone(),
            needs_scope: self.scopes_required,
            leeway_s: self.leeway_seconds,
            life_max_s: self.life_max_seconds,
            creates: self.create,
            login: self.login()?,
        };
        Ok((issuer, keys))
    }

    fn wrong(&self, key: &str, why: &str) -> Failure {
        wrong(
            &format!("issuers.{key}"),
            &format!("of `{}` {why}", self.name),
        )
    }

    fn between(&self, key: &str, value: u64, least: u64, most: u64) -> Result<(), Failure> {
        if (least..=most).contains(&value) {
            return Ok(());
        }
        Err(self.wrong(key, &format!("is {value} and not {least} to {most}")))
    }

    fn check_texts(&self) -> Result<(), Failure> {
        let claim = |text: &Option<String>| text.clone().unwrap_or_else(|| "x".to_owned());
        for (key, text) in [
            ("issuer", &self.issuer),
            ("audience", &self.audience),
            ("principal_claim", &self.principal_claim),
            ("scopes_claim", &self.scopes_claim),
            ("tenant_claim", &claim(&self.tenant_claim)),
            ("roles_claim", &claim(&self.roles_claim)),
        ] {
            if text.is_empty() || text.len() > TEXT_BYTES_MAX {
                let why = format!("has {} bytes and not 1 to {TEXT_BYTES_MAX}", text.len());
                return Err(self.wrong(key, &why));
            }
        }
        Ok(())
    }

    fn algorithms(&self) -> Result<Vec<Algorithm>, Failure> {
        let known = Algorithm::ALL.map(Algorithm::as_str).join(", ");
        let mut all = Vec::new();
        for text in &self.algorithms {
            let Some(one) = Algorithm::parse(text) else {
                return Err(self.wrong("algorithms", &format!("has `{text}`; known are {known}")));
            };
            if !all.contains(&one) {
                all.push(one);
            }
        }
        match all.is_empty() {
            true => Err(self.wrong("algorithms", &format!("are none; known are {known}"))),
            false => Ok(all),
        }
    }

    /// A secret and public keys do not go together: who has published a key could sign with it as a secret.
    fn keys(&self, algorithms: &[Algorithm]) -> Result<KeysAt, Failure> {
        let is_secret = algorithms.contains(&Algorithm::Hs256);
        if is_secret && algorithms.len() > 1 {
            return Err(self.wrong("algorithms", "has HS256 beside others"));
        }
        let absolute = |key: &str, path: &Path| match path.is_absolute() {
            true => Ok(()),
            false => Err(self.wrong(key, "does not begin with /")),
        };
        if let Some(ca) = &self.ca {
            absolute("ca", ca)?;
        }
        match (&self.jwks_url, &self.jwks_file, &self.secret_file) {
            (Some(url), None, None) if !is_secret => {
                let site = Site::parse(url);
                site.map_err(|why| self.wrong("jwks_url", &format!("cannot be used: {why}")))?;
                Ok(KeysAt::Url(url.clone(), self.ca.clone()))
            }
            (None, Some(path), None) if !is_secret => {
                absolute("jwks_file", path)?;
                Ok(KeysAt::File(path.clone()))
            }
            (None, None, Some(path)) if is_secret => {
                absolute("secret_file", path)?;
                Ok(KeysAt::Secret(path.clone()))
            }
            _ => Err(self.wrong(
                "algorithms",
                "take one of `jwks_url` and `jwks_file`, and HS256 takes `secret_file`",
            )),
        }
    }

    fn tenant_from(&self) -> Result<TenantFrom, Failure> {
        match (&self.tenant, &self.tenant_claim) {
            (Some(tenant), None) if self.tenants.is_empty() => {
                Ok(TenantFrom::Fixed(tenant.clone()))
            }
            (None, Some(claim)) if (1..=LIST_MAX).contains(&self.tenants.len()) => {
                Ok(TenantFrom::Claim(claim.clone(), self.tenants.clone()))
            }
            (None, Some(_)) => {
                Err(self.wrong("tenants", "names 1 to 100 tenants for which it may speak"))
            }
            _ => Err(self.wrong(
                "tenant",
                "or `tenant_claim` with `tenants`: one of them is needed",
            )),
        }
    }

    fn role_from(&self) -> Result<RoleFrom, Failure> {
        let mut all = self.role.iter().chain(self.roles.values());
        if self.roles.len() > LIST_MAX || all.any(|role| *role > self.role_max) {
            let why = "are at most 100, and none is more than `role_max`";
            return Err(self.wrong("roles", why));
        }
        match &self.roles_claim {
            None if self.roles.is_empty() => Ok(RoleFrom::Fixed(self.role.unwrap_or(Role::Member))),
            Some(claim) if !self.roles.is_empty() => Ok(RoleFrom::Claim(
                claim.clone(),
                self.roles.clone(),
                self.role,
            )),
            _ => Err(self.wrong("roles_claim", "and [issuers.roles] go together")),
        }
    }

    fn login(&self) -> Result<Option<service::Login>, Failure> {
        let Some(login) = &self.login else {
            return Ok(None);
        };
        let site = Site::parse(&self.issuer);
        site.map_err(|why| self.wrong("issuer", &format!("has a `login`: {why}")))?;
        let plain = |text: &String| {
            let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
            is_plain && !text.is_empty() && text.len() <= TEXT_BYTES_MAX
        };
        let fits = plain(&login.client_id) && login.scopes.iter().all(plain);
        if !fits || login.scopes.len() > LIST_MAX {
            return Err(self.wrong("login", "has a `client_id` or `scopes` that cannot be"));
        }
        Ok(Some(service::Login {
            client_id: login.client_id.clone(),
            scopes: login.scopes.clone(),
            shows_access_token: login.token == TokenShown::AccessToken,
        }))
    }
}
