//! Who asks.

use crate::Error;
use model::id::{NodeId, PrincipalId, TenantId};

/// Who asks, for whom, and which request it is.
#[derive(Debug, Clone)]
pub struct Ctx {
    /// Whose things are meant.
    pub tenant: TenantId,
    /// Who acts, for the record.
    pub principal: PrincipalId,
    /// As what.
    pub caller: Caller,
    /// For the log.
    pub request_id: String,
    /// What a node shows about the job or the sandbox of which it speaks.
    pub lease_token: Option<String>,
}

/// As what somebody asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A person or program that asks for jobs.
    User,
    /// A node that carries them out. The id is of the credential, never of a body.
    Node(NodeId),
    /// This process itself.
    Internal,
}

impl Ctx {
    /// A person or program of the tenant of this machine.
    pub fn user(principal: PrincipalId, request_id: impl Into<String>) -> Ctx {
        Ctx {
            tenant: TenantId::local(),
            principal,
            caller: Caller::User,
            request_id: request_id.into(),
            lease_token: None,
        }
    }

    /// A node.
    pub fn node(node: NodeId, request_id: impl Into<String>) -> Ctx {
        Ctx {
            tenant: TenantId::local(),
            principal: principal(&format!("node:{node}")),
            caller: Caller::Node(node),
            request_id: request_id.into(),
            lease_token: None,
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
            request_id: String::new(),
            lease_token: None,
        }
    }

    /// Nodes carry jobs out and do not ask for any: a stolen node credential must not start work.
    pub(crate) fn only_user(&self) -> Result<(), Error> {
        match self.caller {
            Caller::User | Caller::Internal => Ok(()),
            Caller::Node(_) => Err(Error::Forbidden("this is not for nodes".to_owned())),
        }
    }

    /// What only nodes may say.
    pub(crate) fn only_node(&self) -> Result<&NodeId, Error> {
        match &self.caller {
            Caller::Node(node) => Ok(node),
            Caller::User | Caller::Internal => {
                Err(Error::Forbidden("this is only for nodes".to_owned()))
            }
        }
    }
}

/// A principal of our own making: ids and names of loops have only characters that one may have.
fn principal(text: &str) -> PrincipalId {
    text.parse()
        .expect("an id of ours with a short prefix is a principal")
}
