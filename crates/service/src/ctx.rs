//! Who asks, and whether they may.

use crate::Error;
use model::access::{self, Action, Realm, Scopes, Standing};
use model::id::{KeyId, NodeId, PrincipalId, TenantId};
use model::principal::{PrincipalKind, Role};

/// Who asks, for whom, and which request it is.
#[derive(Debug, Clone)]
pub struct Ctx {
    /// Whose things are meant. It comes from the credential, never from a request.
    pub tenant: TenantId,
    /// Who acts, for the record.
    pub principal: PrincipalId,
    /// As what.
    pub caller: Caller,
    /// The key that was shown, where it was one of the table.
    pub key: Option<KeyId>,
    /// For the log.
    pub request_id: String,
    /// What a node shows about the job or the sandbox of which it speaks.
    pub lease_token: Option<String>,
    /// They have opened the content of a volume, and see the sandbox that serves it. Nobody else does.
    pub sees_servers: bool,
}

/// As what somebody asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A person or program that asks for jobs, and what it may.
    User(Grant),
    /// A node that carries them out. The id is of the credential, never of a body.
    Node(NodeId),
    /// This process itself.
    Internal,
}

/// What somebody may.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Grant {
    /// What acts.
    pub kind: PrincipalKind,
    /// With which role.
    pub role: Role,
    /// What the credential is narrowed to.
    pub scopes: Scopes,
    /// When it ends, in milliseconds since 1970, if it does.
    pub until_ms: Option<u64>,
}

/// For whom a credential stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Who {
    /// Whose things it opens.
    pub tenant: TenantId,
    /// Who acts.
    pub principal: PrincipalId,
    /// What they may.
    pub grant: Grant,
    /// What was shown for it; nothing where it is the server's own: its socket, its token.
    pub shown: Option<Shown>,
}

/// What somebody has shown.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shown {
    /// What it is.
    pub by: ShownBy,
    /// Until when it counts, in milliseconds since 1970.
    pub expires_at_ms: Option<u64>,
}

/// Kinds of what is shown.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ShownBy {
    /// A key of the table.
    Key(KeyId),
    /// A token of the issuer of this name.
    Token(String),
    /// Nothing: this is a development whose configuration names somebody.
    Development,
}

impl Who {
    /// Whoever runs the server: they could read its files and its memory anyway.
    pub fn owner(principal: PrincipalId) -> Who {
        let grant = Grant {
            kind: PrincipalKind::User,
            role: Role::Admin,
            scopes: Scopes::default(),
            until_ms: None,
        };
        Who {
            tenant: TenantId::local(),
            principal,
            grant,
            shown: None,
        }
    }

    /// Somebody who has shown what opens this one thing, and may do no more than that.
    pub fn only(tenant: TenantId, principal: PrincipalId, role: Role, action: Action) -> Who {
        let grant = Grant {
            kind: PrincipalKind::Automation,
            role,
            scopes: Scopes::of([action]),
            until_ms: None,
        };
        Who {
            tenant,
            principal,
            grant,
            shown: None,
        }
    }
}

impl Ctx {
    /// Whoever runs the server.
    pub fn user(principal: PrincipalId, request_id: impl Into<String>) -> Ctx {
        Ctx::of(Who::owner(principal), request_id)
    }

    /// Whoever has shown a credential.
    pub fn of(who: Who, request_id: impl Into<String>) -> Ctx {
        let key = match who.shown {
            Some(Shown {
                by: ShownBy::Key(id),
                ..
            }) => Some(id),
            _ => None,
        };
        Ctx {
            tenant: who.tenant,
            principal: who.principal,
            caller: Caller::User(who.grant),
            key,
            request_id: request_id.into(),
            lease_token: None,
            sees_servers: false,
        }
    }

    /// A node.
    pub fn node(node: NodeId, request_id: impl Into<String>) -> Ctx {
        Ctx {
            tenant: TenantId::local(),
            principal: principal(&format!("node:{node}")),
            caller: Caller::Node(node),
            key: None,
            request_id: request_id.into(),
            lease_token: None,
            sees_servers: false,
        }
    }

    /// The same, with what it shows of a lease.
    #[must_use]
    pub fn showing(mut self, token: Option<String>) -> Ctx {
        self.lease_token = token;
        self
    }

    /// This process itself, such as its loop `name`.
    pub(crate) fn internal(name: &'static str) -> Ctx {
        Ctx {
            tenant: TenantId::local(),
            principal: principal(&format!("service:{name}")),
            caller: Caller::Internal,
            key: None,
            request_id: String::new(),
            lease_token: None,
            sees_servers: true,
        }
    }

    /// Whether they may do this at all. Whose thing it is, the database says.
    ///
    /// # Errors
    /// [`Error::Forbidden`] with what is missing.
    pub fn may(&self, action: Action) -> Result<(), Error> {
        let grant = match &self.caller {
            Caller::User(grant) => grant,
            Caller::Node(_) if action == Action::NodeReport => return Ok(()),
            // Nodes carry jobs out and do not ask for any: a stolen node credential must not start work.
            Caller::Node(_) => return Err(Error::Forbidden("this is not for nodes".to_owned())),
            Caller::Internal if action == Action::NodeReport => return Err(only_nodes()),
            Caller::Internal => return Ok(()),
        };
        let realm = match self.tenant == TenantId::local() {
            true => Realm::Site,
            false => Realm::Tenant,
        };
        let standing = Standing {
            kind: grant.kind,
            role: grant.role,
            realm,
        };
        let may = access::may(standing, action);
        match may && grant.scopes.allow(action) {
            true => Ok(()),
            false => Err(missing(standing, action)),
        }
    }

    /// What only nodes may say.
    pub(crate) fn only_node(&self) -> Result<&NodeId, Error> {
        self.may(Action::NodeReport)?;
        match &self.caller {
            Caller::Node(node) => Ok(node),
            Caller::User(_) | Caller::Internal => Err(only_nodes()),
        }
    }

    /// What the caller is narrowed to: they cannot give anybody more than that.
    pub(crate) fn scopes(&self) -> Scopes {
        match &self.caller {
            Caller::User(grant) => grant.scopes.clone(),
            Caller::Node(_) | Caller::Internal => Scopes::default(),
        }
    }

    /// When what the caller has shown ends, in milliseconds since 1970: what they give anybody ends then at the
    /// latest.
    pub(crate) fn until_ms(&self) -> Option<u64> {
        match &self.caller {
            Caller::User(grant) => grant.until_ms,
            Caller::Node(_) | Caller::Internal => None,
        }
    }
}

fn only_nodes() -> Error {
    Error::Forbidden("this is only for nodes".to_owned())
}

/// What somebody would have to be.
fn missing(who: Standing, action: Action) -> Error {
    if action == Action::NodeReport {
        return only_nodes();
    }
    let least = action.least_role();
    Error::Forbidden(
        if action.realm() == Realm::Site && who.realm != Realm::Site {
            "this is of the whole installation, and only its first tenant may".to_owned()
        } else if !access::is_for(who.kind, action) {
            // Before the role: no role would help.
            not_for(action).to_owned()
        } else if who.role < least {
            format!("this needs the role `{}`", least.as_str())
        } else {
            let action = action.as_str();
            format!("the credential is narrowed, and not to `{action}`")
        },
    )
}

/// Why kinds of principals may not whatever their role is.
fn not_for(action: Action) -> &'static str {
    match action == Action::ApprovalWrite {
        true => "only people decide what waits for a person",
        false => "agents may not say who may do what",
    }
}

/// A principal of our own making: ids and names of loops have only characters that one may have.
fn principal(text: &str) -> PrincipalId {
    text.parse()
        .expect("an id of ours with a short prefix is a principal")
}
