//! Who may do what: one table of what can be done, and one function that reads it.
//!
//! A role says how much of its tenant's things a principal may touch. Things of the installation (nodes, servers,
//! tenants) belong to all tenants, so only the first tenant, which is whoever runs the server, may touch those.
//! A scope narrows further what one key may; it never widens.

use crate::principal::{PrincipalKind, Role};
use std::collections::BTreeSet;

/// Whose thing an action is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Realm {
    /// The tenant's own.
    Tenant,
    /// That of the whole installation: only the first tenant's people may.
    Site,
}

/// Who asks, as far as it counts for what they may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Standing {
    /// What acts.
    pub kind: PrincipalKind,
    /// With which role.
    pub role: Role,
    /// Of the first tenant, or of another one.
    pub realm: Realm,
}

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $least:ident, $realm:ident, $who:ident;)*) => {
        /// What can be done. Each method of the service names one.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Action {
            $($(#[$doc])* $name,)*
            /// To take work and to say what has become of it. No role has it.
            NodeReport,
        }

        impl Action {
            /// All but that of nodes.
            pub const ALL: &'static [Action] = &[$(Action::$name,)*];

            /// How it is written in scopes: a noun, and `read` or `write`.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Action::$name => $text,)*
                    Action::NodeReport => "node:report",
                }
            }

            fn row(self) -> (Role, Realm, For) {
                match self {
                    $(Action::$name => (Role::$least, Realm::$realm, For::$who),)*
                    Action::NodeReport => (Role::Admin, Realm::Site, For::Nodes),
                }
            }
        }
    };
}

/// Which kinds of principals may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    /// Everybody but nodes.
    All,
    /// No agent: code that a model steers must not decide who may do what, whatever role somebody gave it.
    NoAgent,
    /// People alone: what has to wait for a person is not decided by a program.
    People,
    /// Nodes alone.
    Nodes,
}

actions! {
    /// To see jobs, what they wrote and what they asked of the outside.
    JobRead = "job:read", Member, Tenant, All;
    /// To create jobs, send files for them, speak to them, cancel them.
    JobWrite = "job:write", Member, Tenant, All;
    /// To see sandboxes and what was run in them.
    SandboxRead = "sandbox:read", Member, Tenant, All;
    /// To make sandboxes, run commands in them, change them, take them away.
    SandboxWrite = "sandbox:write", Member, Tenant, All;
    /// To see snapshots.
    SnapshotRead = "snapshot:read", Member, Tenant, All;
    /// To make and give up snapshots.
    SnapshotWrite = "snapshot:write", Member, Tenant, All;
    /// To see volumes.
    VolumeRead = "volume:read", Member, Tenant, All;
    /// To make and delete volumes, and get the tokens that open them.
    VolumeWrite = "volume:write", Member, Tenant, All;
    /// To see profiles, which everybody uses, and how they are built.
    ProfileRead = "profile:read", Member, Tenant, All;
    /// To write, build and delete profiles.
    ProfileWrite = "profile:write", Operator, Tenant, All;
    /// To see policies, and what would become of a request by them.
    PolicyRead = "policy:read", Member, Tenant, All;
    /// To write and delete policies. Those of all tenants are the first one's.
    PolicyWrite = "policy:write", Admin, Tenant, NoAgent;
    /// To see what waits for a person, and what became of it.
    ApprovalRead = "approval:read", Member, Tenant, All;
    /// To say yes or no to what others ask for.
    ApprovalWrite = "approval:write", Operator, Tenant, People;
    /// To see which secrets there are. Nobody sees their values.
    SecretRead = "secret:read", Member, Tenant, All;
    /// To set and delete secrets, and see who used them.
    SecretWrite = "secret:write", Operator, Tenant, All;
    /// To set secrets whose values providers have: those give whatever the server may read, to whomever asks.
    ProviderWrite = "provider:write", Operator, Site, All;
    /// To name a directory of a node as a root file system: what is in it can be read then.
    HostRead = "host:read", Operator, Site, All;
    /// To see nodes and servers, and the counters of the whole installation.
    NodeRead = "node:read", Operator, Site, All;
    /// To let nodes in, drain them and send them away.
    NodeWrite = "node:write", Operator, Site, All;
    /// To read and check the tenant's record.
    AuditRead = "audit:read", Admin, Tenant, All;
    /// To see who is there.
    PrincipalRead = "principal:read", Admin, Tenant, All;
    /// To let people, agents and automations in, say their roles, and send them away.
    PrincipalWrite = "principal:write", Admin, Tenant, NoAgent;
    /// To see which keys there are. Nobody sees their texts.
    KeyRead = "key:read", Admin, Tenant, All;
    /// To make and take back keys.
    KeyWrite = "key:write", Admin, Tenant, NoAgent;
    /// To see quotas and what is used of them.
    QuotaRead = "quota:read", Member, Tenant, All;
    /// To say what principals may have at a time. What a tenant may have only the first one says.
    QuotaWrite = "quota:write", Admin, Tenant, NoAgent;
    /// To see tenants.
    TenantRead = "tenant:read", Admin, Site, All;
    /// To make and delete tenants.
    TenantWrite = "tenant:write", Admin, Site, NoAgent;
}

impl Action {
    /// The action of this text; `None` for another one, and for that of nodes.
    pub fn parse(text: &str) -> Option<Action> {
        let mut all = Action::ALL.iter().copied();
        all.find(|action| action.as_str() == text)
    }

    /// The smallest role that may.
    pub fn least_role(self) -> Role {
        self.row().0
    }

    /// Whose thing it is about.
    pub fn realm(self) -> Realm {
        self.row().1
    }

    /// Whether this one, in a scope, is enough for the other: who may write something may see it.
    fn covers(self, other: Action) -> bool {
        let noun = |action: Action| action.as_str().split_once(':').map_or("", |(noun, _)| noun);
        let writes = self.as_str().ends_with(":write");
        self == other || (writes && noun(self) == noun(other) && other != Action::NodeReport)
    }
}

/// Whether principals of this kind may ever do something. Where not, no role helps.
pub fn is_for(kind: PrincipalKind, action: Action) -> bool {
    let (_, _, of) = action.row();
    let is_node = kind == PrincipalKind::Node;
    match of {
        For::All => !is_node,
        For::NoAgent => !is_node && kind != PrincipalKind::Agent,
        For::People => kind == PrincipalKind::User,
        For::Nodes => is_node,
    }
}

/// Whether somebody may do something, as far as it is not about whose thing it is: that is asked of the database,
/// and what is another tenant's is not there.
pub fn may(who: Standing, action: Action) -> bool {
    if !is_for(who.kind, action) {
        return false;
    }
    let (least, realm, _) = action.row();
    let is_theirs = realm == Realm::Tenant || who.realm == Realm::Site;
    // A node has neither a role nor a tenant of its own.
    who.kind == PrincipalKind::Node || (who.role >= least && is_theirs)
}

/// What one key is narrowed to; by default to nothing, so that it may what its principal may.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scopes(Option<BTreeSet<Action>>);

impl Scopes {
    /// Those of these actions; without any, no narrowing.
    pub fn of(actions: impl IntoIterator<Item = Action>) -> Scopes {
        let actions: BTreeSet<Action> = actions.into_iter().collect();
        Scopes((!actions.is_empty()).then_some(actions))
    }

    /// Whether they leave room for this. `write` of a noun has its `read` in it.
    pub fn allow(&self, action: Action) -> bool {
        let Scopes(Some(actions)) = self else {
            return true;
        };
        actions.iter().any(|one| one.covers(action))
    }

    /// Whether whoever has these may give somebody the others: nobody gives more than they have.
    pub fn cover(&self, others: &Scopes) -> bool {
        let mut all = Action::ALL.iter();
        all.all(|action| !others.allow(*action) || self.allow(*action))
    }

    /// As they are written; empty where nothing is narrowed.
    pub fn texts(&self) -> Vec<&'static str> {
        let actions = self.0.iter().flatten();
        actions.map(|action| action.as_str()).collect()
    }

    /// Reads what [`Scopes::texts`] wrote.
    ///
    /// # Errors
    /// The first text that is no action.
    pub fn parse<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Scopes, &'t str> {
        let read = |text| Action::parse(text).ok_or(text);
        let actions: Result<Vec<Action>, &str> = texts.into_iter().map(read).collect();
        Ok(Scopes::of(actions?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    const KINDS: [PrincipalKind; 4] = [
        PrincipalKind::User,
        PrincipalKind::Agent,
        PrincipalKind::Automation,
        PrincipalKind::Node,
    ];

    fn all_standings() -> Vec<Standing> {
        let mut all = Vec::new();
        for kind in KINDS {
            for role in Role::ALL {
                for realm in [Realm::Site, Realm::Tenant] {
                    all.push(Standing { kind, role, realm });
                }
            }
        }
        all
    }

    fn all_actions() -> Vec<Action> {
        let all = Action::ALL.iter().copied();
        all.chain([Action::NodeReport]).collect()
    }

    #[test]
    fn the_whole_table_is_as_it_was_read_last() {
        let mut text = String::new();
        for action in all_actions() {
            let may = all_standings().into_iter().filter(|who| may(*who, action));
            let names = may.map(|who| {
                let place = match who.realm {
                    Realm::Site => "first",
                    Realm::Tenant => "other",
                };
                format!("{}/{}/{place}", who.kind.as_str(), who.role.as_str())
            });
            let names: Vec<String> = names.collect();
            writeln!(text, "{}: {}", action.as_str(), names.join(" ")).unwrap();
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_larger_role_may_all_that_a_smaller_one_may() {
        for who in all_standings() {
            for action in all_actions() {
                let larger = Role::ALL.into_iter().filter(|role| *role >= who.role);
                for role in larger {
                    assert!(
                        !may(who, action) || may(Standing { role, ..who }, action),
                        "{who:?} {action:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn whom_an_action_is_not_for_no_role_helps_and_all_others_one_does() {
        let admins = all_standings().into_iter();
        let admins = admins.filter(|who| who.role == Role::Admin && who.realm == Realm::Site);
        for who in admins {
            for action in all_actions() {
                let ever = is_for(who.kind, action);
                assert_eq!(may(who, action), ever, "{who:?} {action:?}");
            }
        }
    }

    #[test]
    fn nobody_of_another_tenant_touches_what_is_the_installations() {
        for who in all_standings() {
            for action in all_actions() {
                let is_ours = action.realm() == Realm::Site && who.kind != PrincipalKind::Node;
                if is_ours && who.realm == Realm::Tenant {
                    assert!(!may(who, action), "{who:?} {action:?}");
                }
            }
        }
    }

    #[test]
    fn scopes_narrow_and_write_has_read_in_it() {
        let scopes = Scopes::parse(["job:write", "sandbox:read"]).unwrap();
        for (action, allowed) in [
            (Action::JobWrite, true),
            (Action::JobRead, true),
            (Action::SandboxRead, true),
            (Action::SandboxWrite, false),
            (Action::KeyWrite, false),
            (Action::NodeReport, false),
        ] {
            assert_eq!(scopes.allow(action), allowed, "{action:?}");
        }
        assert!(!Scopes::of([Action::NodeWrite]).allow(Action::NodeReport));
        let again = Scopes::parse(scopes.texts());
        assert_eq!(again, Ok(scopes.clone()));
        assert!(Scopes::default().cover(&scopes) && !scopes.cover(&Scopes::default()));
        assert!(scopes.cover(&Scopes::of([Action::JobRead])));
        for bad in ["", "job", "job:", "node:report", "*"] {
            assert_eq!(Scopes::parse([bad]), Err(bad));
        }
    }
}
