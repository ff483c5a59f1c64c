//! Who acts: what kind a principal is, and which role it has.

use crate::id::{IdError, PrincipalId};
use serde::{Deserialize, Serialize};

/// The longest name of a principal, a tenant or a key: it stands in a column of a table.
pub const NAME_BYTES_MAX: usize = 64;

/// What acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrincipalKind {
    /// A person.
    User,
    /// A program that a model steers. It is never let to say who may do what.
    Agent,
    /// A program that does what somebody wrote down.
    Automation,
    /// A machine that runs jobs. It is enrolled, and has no role.
    Node,
}

impl PrincipalKind {
    /// Those that can be made.
    pub const ALL: [PrincipalKind; 3] = [
        PrincipalKind::User,
        PrincipalKind::Agent,
        PrincipalKind::Automation,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            PrincipalKind::User => "user",
            PrincipalKind::Agent => "agent",
            PrincipalKind::Automation => "automation",
            PrincipalKind::Node => "node",
        }
    }

    /// The kind of this word; `None` for another word, and for nodes, which are enrolled.
    pub fn parse(text: &str) -> Option<PrincipalKind> {
        let mut all = PrincipalKind::ALL.into_iter();
        all.find(|kind| kind.as_str() == text)
    }

    /// The principal of this kind and name, such as `user:alice`. So nobody can be given a name that stands for a
    /// user of the machine (`uid:`), a node or a part of the server.
    ///
    /// # Errors
    /// [`IdError`] for a name that is none.
    pub fn named(self, name: &str) -> Result<PrincipalId, IdError> {
        if !is_name(name) {
            return Err(IdError { prefix: "" });
        }
        format!("{}:{name}", self.as_str()).parse()
    }
}

/// Whether this is a user of the machine that the server runs on: whoever runs it. [`PrincipalKind::named`] gives
/// nobody such a name.
pub fn is_owner(id: &PrincipalId) -> bool {
    id.as_str().starts_with("uid:")
}

/// Whether this is a program that somebody let in, by its name: the kind of a principal is part of that and stays.
pub fn is_program(id: &PrincipalId) -> bool {
    let kind = id.as_str().split_once(':').map(|(kind, _)| kind);
    match kind.and_then(PrincipalKind::parse) {
        Some(PrincipalKind::Agent | PrincipalKind::Automation) => true,
        Some(PrincipalKind::User | PrincipalKind::Node) | None => false,
    }
}

/// What a principal may do in its tenant. Each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Runs code and sees what is the tenant's.
    Member,
    /// Says with what it is run: profiles, secrets, and in the first tenant nodes.
    Operator,
    /// Says who may: principals and keys. Reads the record.
    Admin,
}

impl Role {
    /// All of them, the smallest first.
    pub const ALL: [Role; 3] = [Role::Member, Role::Operator, Role::Admin];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Member => "member",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }

    /// The role of this word.
    pub fn parse(text: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

/// Whether this can be the name of a principal, a tenant or a key: 1 to 64 letters, digits and `_.@-`, of which the
/// first is a letter or a digit.
pub fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.@-".contains(&byte);
    let first = text.bytes().next();
    text.len() <= NAME_BYTES_MAX
        && first.is_some_and(|byte| byte.is_ascii_alphanumeric())
        && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_named_like_a_user_of_the_machine_a_node_or_a_loop() {
        let named = PrincipalKind::User.named("alice@example.com").unwrap();
        assert_eq!(named.as_str(), "user:alice@example.com");
        let long = "a".repeat(NAME_BYTES_MAX + 1);
        for bad in ["", "uid:0", "node:x", "a b", "-a", ".", "a/b", "ä", &long] {
            assert!(PrincipalKind::User.named(bad).is_err(), "{bad}");
        }
        assert!(PrincipalKind::Agent.named(&long[1..]).is_ok());
    }

    #[test]
    fn a_program_is_known_by_its_name() {
        for kind in PrincipalKind::ALL {
            let named = kind.named("x").unwrap();
            assert_eq!(is_program(&named), kind != PrincipalKind::User, "{named}");
        }
        for other in ["uid:1000", "node:x", "agents"] {
            assert!(!is_program(&other.parse().unwrap()), "{other}");
        }
    }

    #[test]
    fn words_read_back_and_nodes_cannot_be_made() {
        for kind in PrincipalKind::ALL {
            assert_eq!(PrincipalKind::parse(kind.as_str()), Some(kind));
        }
        assert_eq!(PrincipalKind::parse("node"), None);
        for role in Role::ALL {
            assert_eq!(Role::parse(role.as_str()), Some(role));
        }
        assert_eq!(Role::parse("root"), None);
    }
}
