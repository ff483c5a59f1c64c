//! Who asks.

use crate::Error;
use model::id::{NodeId, PrincipalId, TenantId};
use store::job::JobRow;

/// What kind of caller it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A person or a program.
    User,
    /// A node, which was let in as just this one.
    Node(NodeId),
    /// This process itself.
    Internal,
}

/// Who asks, made once at the edge.
#[derive(Debug, Clone)]
pub struct Ctx {
    /// Whose things it may see.
    pub tenant: TenantId,
    /// Who it is.
    pub principal: PrincipalId,
    /// Of what kind.
    pub kind: Kind,
    /// The request's name in logs.
    pub request_id: String,
}

impl Ctx {
    /// Somebody on the machine that serves only itself.
    pub fn local(principal: PrincipalId, kind: Kind, request_id: String) -> Ctx {
        Ctx {
            tenant: TenantId::local(),
            principal,
            kind,
            request_id,
        }
    }

    /// A node.
    pub fn node(node: NodeId, request_id: String) -> Ctx {
        let principal = internal(&format!("node:{node}"));
        Ctx {
            tenant: TenantId::local(),
            principal,
            kind: Kind::Node(node),
            request_id,
        }
    }

    /// A loop of this process.
    pub(crate) fn internal(name: &str) -> Ctx {
        Ctx {
            tenant: TenantId::local(),
            principal: internal(&format!("internal:{name}")),
            kind: Kind::Internal,
            request_id: String::new(),
        }
    }

    /// A person or a program, of any role there is.
    pub(crate) fn user(&self) -> Result<&TenantId, Error> {
        match self.kind {
            Kind::User | Kind::Internal => Ok(&self.tenant),
            Kind::Node(_) => Err(Error::Forbidden),
        }
    }

    /// A node.
    pub(crate) fn this_node(&self) -> Result<&NodeId, Error> {
        match &self.kind {
            Kind::Node(node) => Ok(node),
            Kind::User | Kind::Internal => Err(Error::Forbidden),
        }
    }

    /// The node that has, or had last, this job. To any other there is no such job.
    pub(crate) fn holder_of(&self, row: &JobRow) -> Result<(), Error> {
        let ours = row
            .node
            .as_ref()
            .is_some_and(|node| self.kind == Kind::Node(node.clone()));
        if ours { Ok(()) } else { Err(Error::NotFound) }
    }
}

/// A principal whose text is made here of parts that are known to fit.
fn internal(text: &str) -> PrincipalId {
    text.parse().unwrap_or_else(|_| fallback())
}

fn fallback() -> PrincipalId {
    "internal".parse().expect("a fixed word is a principal")
}
