//! Who may ask: tenants, principals and keys.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::fleet::Hidden;

/// What acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PrincipalKind {
    /// A person.
    User,
    /// A program that a model steers. It never says who may do what, whatever its role.
    Agent,
    /// A program that does what somebody wrote down.
    Automation,
}

/// What a principal may do in its tenant. Each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Runs code and sees what is the tenant's.
    Member,
    /// Profiles and secrets too, and nodes in the first tenant.
    Operator,
    /// Principals, keys and the record too, and tenants in the first one.
    Admin,
}

/// Lets a principal in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PrincipalCreate {
    /// What acts.
    pub kind: PrincipalKind,
    /// 1 to 64 letters, digits and `_.@-`, of which the first is a letter or a digit.
    pub name: String,
    /// What it may.
    pub role: Role,
}

/// Changes a principal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PrincipalPut {
    /// What it may from now on.
    pub role: Role,
}

/// A principal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PrincipalView {
    /// Its kind and its name, such as `user:alice`: so it stands in the record.
    pub id: String,
    /// `user`, `agent` or `automation`.
    pub kind: String,
    /// `member`, `operator` or `admin`.
    pub role: String,
    /// Who let it in.
    pub made_by: String,
    /// When, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// The issuer of tokens that has named it first, and alone speaks for it; absent where somebody let it in by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
}

/// A page of principals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PrincipalList {
    /// By id.
    pub principals: Vec<PrincipalView>,
    /// The `after` of the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What lists of principals, keys and tenants take in the query.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PeopleListQuery {
    /// At most so many, 1 to 500; 50 when absent.
    #[serde(default)]
    pub limit: Option<u32>,
    /// The `next` of the page before.
    #[serde(default)]
    pub after: Option<String>,
}

/// Makes a key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyCreate {
    /// For which principal it stands, such as `user:alice`.
    pub principal: String,
    /// What people call it; as the name of a principal, or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What it is narrowed to, such as `job:write`, which has `job:read` in it; to nothing when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// How long it counts, in seconds, at most ten years; without an end when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_s: Option<u64>,
}

/// What is known of a key. Its text is not: only digests of it are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyView {
    /// Its name for programs.
    pub id: String,
    /// For which principal it stands.
    pub principal: String,
    /// What people call it.
    pub name: String,
    /// How its text begins.
    pub prefix: String,
    /// What it is narrowed to; to nothing when empty.
    pub scopes: Vec<String>,
    /// Who made it.
    pub made_by: String,
    /// When, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// Until when it counts; without an end when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
    /// When it was used last, give or take a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_at_ms: Option<u64>,
}

/// A new key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyMade {
    /// What is known of it from now on.
    #[serde(flatten)]
    pub view: KeyView,
    /// Its text, told once: a bearer token.
    pub key: Hidden,
    /// The same key in the form that E2B's clients take.
    pub e2b_key: Hidden,
}

/// A page of keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyList {
    /// In the order in which they were made.
    pub keys: Vec<KeyView>,
    /// The `after` of the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Makes a tenant with its first admin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantCreate {
    /// As the name of a principal, and not beginning with `ten_`.
    pub name: String,
    /// The name of its first admin, a user; `admin` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TenantView {
    /// Its name for programs.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// Who made it.
    pub made_by: String,
    /// When, in milliseconds since 1970.
    pub created_at_ms: u64,
}

/// A new tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TenantMade {
    /// The tenant.
    pub tenant: TenantView,
    /// Its first admin, who lets others in.
    pub admin: PrincipalView,
    /// The key of that.
    pub key: KeyMade,
}

/// A page of tenants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TenantList {
    /// By id.
    pub tenants: Vec<TenantView>,
    /// The `after` of the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Who is behind a credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Me {
    /// Whose things it opens: the id of a tenant.
    pub tenant: String,
    /// Who acts, such as `user:alice`; `uid:1000` for a user of the server's own machine.
    pub principal: String,
    /// `user`, `agent` or `automation`.
    pub kind: String,
    /// What it may: `member`, `operator` or `admin`.
    pub role: String,
    /// What it is narrowed to; to nothing when empty.
    pub scopes: Vec<String>,
    /// By what it came in: `server` (its socket, or its own token), `key`, `token`, or `development`.
    pub credential: String,
    /// Which key, or whose token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_of: Option<String>,
    /// Until when that counts, in milliseconds since 1970; without an end when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
}

/// With what the command line gets a token here. Nothing of it is secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LoginInfo {
    /// The providers, in the order of the configuration; none where nobody logs in.
    pub providers: Vec<LoginProvider>,
}

/// A provider of identities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LoginProvider {
    /// Its address, below which `.well-known/openid-configuration` says the others.
    pub issuer: String,
    /// As it knows the command line.
    pub client_id: String,
    /// What to ask for there.
    pub scopes: Vec<String>,
    /// Which of its tokens counts here: `id_token` or `access_token`.
    pub token: String,
}
