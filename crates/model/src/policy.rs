//! Policies: what may be asked for. Somebody writes documents ([`Policy`]), each for everybody, a tenant, one of its
//! principals, or whatever has one of its volumes; what follows from all that apply is a [`Permit`] (`permit`), and
//! what becomes of a request by that is decided here (`decide`).
//!
//! Layers only narrow. So the order in which they are put together changes nothing, and neither does one that is there
//! twice; property tests hold that.
//!
//! Reading order: this file, `permit`, `decide`; then `check`, `command` over `carry` and `shell`, and `set`.

mod carry;
mod check;
mod command;
mod decide;
mod permit;
mod set;
mod shell;

pub use check::is_policy_name;
pub use decide::{Decision, Kind, Refusal};
pub use permit::{Bound, Decided, Permit, PermitUse, Trace};

use crate::dependency::Ecosystem;
use crate::network::Entry;
use crate::profile::SecretRule;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// For whom a policy is. Widest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// Everybody, in all tenants.
    Global,
    /// Everybody of the tenant that wrote it.
    Tenant,
    /// One principal of that.
    Principal,
    /// Every sandbox that has a volume of that name, of the same tenant, in its files.
    Volume,
}

impl Layer {
    /// All of them.
    pub const ALL: [Layer; 4] = [
        Layer::Global,
        Layer::Tenant,
        Layer::Principal,
        Layer::Volume,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Layer::Global => "global",
            Layer::Tenant => "tenant",
            Layer::Principal => "principal",
            Layer::Volume => "volume",
        }
    }
}

/// One version of a policy, as a part of a permit. They are ordered as they are shown; what follows from them is the
/// same in any order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct LayerRef {
    /// For whom it is.
    pub layer: Layer,
    /// Where it stands among those of its layer.
    pub priority: u16,
    /// What it is called.
    pub name: String,
    /// Which version, from 1.
    pub version: u64,
}

impl fmt::Display for LayerRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (layer, priority) = (self.layer.as_str(), self.priority);
        write!(f, "{layer}/{priority}/{}@{}", self.name, self.version)
    }
}

impl From<LayerRef> for String {
    fn from(layer: LayerRef) -> String {
        layer.to_string()
    }
}

/// The text names no layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("read LAYER/PRIORITY/NAME@VERSION")]
pub struct NotALayer;

impl FromStr for LayerRef {
    type Err = NotALayer;

    fn from_str(text: &str) -> Result<LayerRef, NotALayer> {
        let mut parts = text.splitn(3, '/');
        let mut part = || parts.next().ok_or(NotALayer);
        let (layer, priority, named) = (part()?, part()?, part()?);
        let (name, version) = named.rsplit_once('@').ok_or(NotALayer)?;
        let layer = Layer::ALL.into_iter().find(|one| one.as_str() == layer);
        Ok(LayerRef {
            layer: layer.ok_or(NotALayer)?,
            priority: priority.parse().map_err(|_| NotALayer)?,
            name: name.to_owned(),
            version: version.parse().map_err(|_| NotALayer)?,
        })
    }
}

impl TryFrom<String> for LayerRef {
    type Error = NotALayer;

    fn try_from(text: String) -> Result<LayerRef, NotALayer> {
        text.parse()
    }
}

/// What one version of a policy says. What it does not say it leaves open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// For whom it is.
    pub layer: Layer,
    /// The principal, or the name of the volume, of these layers. By its name a volume that is deleted and made anew
    /// stays below it, and one that is not there yet is below it from its first day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// Where it stands among those of its layer: the lower is named first. It changes nothing that is decided.
    #[serde(default)]
    pub priority: u16,
    /// What may be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkClause>,
    /// Which files may go in and out with a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<FilesClause>,
    /// Which commands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commands: Option<CommandsClause>,
    /// Packages that may be installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dependencies: Option<DependenciesClause>,
    /// The most of each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: BTreeMap<Bound, u64>,
    /// Values that the label `driver` of a node may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drivers: Option<BTreeSet<String>>,
    /// Which profiles and roots.
    #[serde(default)]
    pub profiles: ProfilesClause,
    /// The secrets that may be used, and how; none when the list is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Vec<SecretRule>>,
    /// What a person has to say yes to, or nobody may.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub approvals: BTreeMap<Matter, Answer>,
    /// How long what needs a person's yes waits for it, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval_expires_ms: Option<u64>,
    /// A module in Rego that must allow it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rego: Option<String>,
}

impl Policy {
    /// One that says nothing.
    pub fn new(layer: Layer) -> Policy {
        Policy {
            layer,
            of: None,
            priority: 0,
            network: None,
            files: None,
            commands: None,
            dependencies: None,
            resources: BTreeMap::new(),
            drivers: None,
            profiles: ProfilesClause::default(),
            secrets: None,
            approvals: BTreeMap::new(),
            approval_expires_ms: None,
            rego: None,
        }
    }

    /// The same, without what these reasons are about ([`Refusal::reason`]); `None` where it says nothing of that. It is
    /// wider, so that somebody has to read it before it counts.
    pub fn without(&self, reasons: &BTreeSet<String>) -> Option<Policy> {
        let mut less = self.clone();
        let begins = |with: &str| reasons.iter().any(|one| one.starts_with(with));
        less.approvals
            .retain(|matter, _| !begins(&format!("approvals.{}: ", matter.as_str())));
        if let Some(commands) = &mut less.commands {
            let said = || reasons.iter().filter(|one| one.starts_with("commands: "));
            let is_named =
                |pattern: &String| said().any(|one| one.contains(&format!("`{pattern}`")));
            commands.approve.retain(|pattern| !is_named(pattern));
        }
        (less != *self).then_some(less)
    }

    /// Whether it counts for this principal of its tenant, where these volumes are wanted, by their names.
    pub fn is_for(&self, principal: &str, volumes: &BTreeSet<String>) -> bool {
        match self.layer {
            Layer::Global | Layer::Tenant => true,
            Layer::Principal => self.of.as_deref() == Some(principal),
            Layer::Volume => self.of.as_ref().is_some_and(|of| volumes.contains(of)),
        }
    }
}

/// What may be reached.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkClause {
    /// The most; as the lists have it when absent.
    pub mode: Option<crate::network::NetworkMode>,
    /// Nothing but these, by name.
    pub allow: Option<Vec<Entry>>,
    /// Never these.
    pub deny: Vec<Entry>,
}

/// Which files may go in and out with a request: paths, and all below them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FilesClause {
    /// Where files may be put.
    pub put: Option<BTreeSet<String>>,
    /// Which may be taken out.
    pub take: Option<BTreeSet<String>>,
    /// Sandboxes that live on, where nobody looks at paths, may be had all the same.
    pub unchecked_in_sandboxes: bool,
}

/// Which commands. A guard rail and no wall: whoever can start an interpreter can start anything.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CommandsClause {
    /// Never these.
    pub forbid: Vec<String>,
    /// These only after a person has said yes.
    pub approve: Vec<String>,
    /// Nothing but these.
    pub allow: Option<Vec<String>>,
    /// Commands of a shell may not be joined, substituted or redirected.
    pub no_operators: bool,
    /// Sandboxes that live on, where nobody reads commands, may be had all the same.
    pub unchecked_in_sandboxes: bool,
}

/// Packages that may be installed, as `NAME==VERSION`. An ecosystem without a list is held to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DependenciesClause {
    /// Python packages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pip: Option<BTreeSet<String>>,
    /// JavaScript packages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub npm: Option<BTreeSet<String>>,
    /// A network that lets out more than it names may be had all the same: who serves packages and is known is closed
    /// there, and who is not known is not.
    pub only_known_indexes: bool,
}

impl DependenciesClause {
    /// Its lists, by the name of the ecosystem.
    pub(crate) fn lists(&self) -> BTreeMap<String, BTreeSet<String>> {
        let lists = [(Ecosystem::Pip, &self.pip), (Ecosystem::Npm, &self.npm)].into_iter();
        let lists = lists.filter_map(|(ecosystem, list)| Some((ecosystem, list.clone()?)));
        lists
            .map(|(ecosystem, list)| (ecosystem.to_string(), list))
            .collect()
    }
}

/// Which profiles and roots; patterns are names, perhaps with a `*` at the end.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ProfilesClause {
    /// Profiles by name.
    pub allow: Option<BTreeSet<String>>,
    /// Root file systems by name. The programs of the node are there in any case.
    pub roots: Option<BTreeSet<String>>,
    /// Sandboxes may have a root of their own; as it is asked when absent.
    pub allow_root: Option<bool>,
}

/// What somebody may have to say yes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Matter {
    /// Everything public is to be reached.
    NetworkUnrestricted,
    /// A sandbox is to have a root of its own.
    AllowRoot,
    /// A secret is to be used.
    Secrets,
    /// A policy is to be written or deleted.
    PolicyChange,
}

impl Matter {
    /// All of them.
    pub const ALL: [Matter; 4] = [
        Matter::NetworkUnrestricted,
        Matter::AllowRoot,
        Matter::Secrets,
        Matter::PolicyChange,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Matter::NetworkUnrestricted => "network_unrestricted",
            Matter::AllowRoot => "allow_root",
            Matter::Secrets => "secrets",
            Matter::PolicyChange => "policy_change",
        }
    }
}

/// What is said to a matter. The later is the stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Nobody is asked.
    Skip,
    /// A person is.
    NeedsApproval,
    /// Never.
    Forbidden,
}

impl Answer {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Answer::Skip => "skip",
            Answer::NeedsApproval => "needs_approval",
            Answer::Forbidden => "forbidden",
        }
    }
}
