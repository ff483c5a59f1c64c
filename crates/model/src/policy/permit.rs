//! What follows from all policies that apply, with who has decided each part of it.

use super::set::{Pattern, Prefix, meet, meet_texts, plain, plain_texts};
use super::{Answer, CommandsClause, DependenciesClause, Layer, LayerRef, Matter, Policy};
use crate::approval::{Asked, Yes};
use crate::dependency::{Dependencies, Ecosystem};
use crate::limits;
use crate::network::{Entry, NetworkCaps, NetworkMode, NetworkRules};
use crate::profile::SecretRule;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// An amount of which a policy may say the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Thousandths of a processor.
    CpuMillis,
    /// Bytes of memory.
    MemoryBytes,
    /// Processes and threads.
    Pids,
    /// Bytes of storage.
    DiskBytes,
    /// Milliseconds that a command may run, or a sandbox live without being extended.
    TimeoutMs,
    /// Connections to the outside at a time.
    Connections,
    /// New ones in any minute.
    PerMinute,
    /// Bytes both ways.
    NetworkBytes,
}

impl Bound {
    /// All of them.
    pub const ALL: [Bound; 8] = [
        Bound::CpuMillis,
        Bound::MemoryBytes,
        Bound::Pids,
        Bound::DiskBytes,
        Bound::TimeoutMs,
        Bound::Connections,
        Bound::PerMinute,
        Bound::NetworkBytes,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Bound::CpuMillis => "cpu_millis",
            Bound::MemoryBytes => "memory_bytes",
            Bound::Pids => "pids",
            Bound::DiskBytes => "disk_bytes",
            Bound::TimeoutMs => "timeout_ms",
            Bound::Connections => "connections",
            Bound::PerMinute => "per_minute",
            Bound::NetworkBytes => "network_bytes",
        }
    }
}

/// A part of a permit, and the layers that it is from: of an amount those that say the least, of a list all that say
/// one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided<T> {
    /// What holds.
    pub value: T,
    /// Who said so.
    pub by: BTreeSet<LayerRef>,
}

impl<T> Decided<T> {
    fn by(value: T, layer: &LayerRef) -> Decided<T> {
        let by = BTreeSet::from([layer.clone()]);
        Decided { value, by }
    }
}

/// What may be asked for, by all policies that apply. What is absent is open.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Permit {
    /// The policies that it is from, also those that decided nothing.
    pub layers: BTreeSet<LayerRef>,
    /// The volumes that those of volumes are for, by their names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<LayerRef, String>,
    /// The most that may be reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Decided<NetworkMode>>,
    /// Nothing but these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow: Option<Decided<Vec<Entry>>>,
    /// Never these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deny: Option<Decided<BTreeSet<String>>>,
    /// The most of each.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub bounds: BTreeMap<Bound, Decided<u64>>,
    /// Where files may be put.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub put: Option<Decided<BTreeSet<String>>>,
    /// Which may be taken out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub take: Option<Decided<BTreeSet<String>>>,
    /// Paths are not looked at in sandboxes that live on, and all who say something of paths know that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unchecked_files: Option<Decided<bool>>,
    /// Rules about commands, of which each counts.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub commands: BTreeMap<LayerRef, CommandsClause>,
    /// Packages that may be installed, by ecosystem, in their one form.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub dependencies: BTreeMap<String, Decided<BTreeSet<String>>>,
    /// They are held also where a network lets out more than it names, as far as is known who serves packages; and
    /// all who have a list say so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_known_indexes: Option<Decided<bool>>,
    /// Values of the label `driver`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drivers: Option<Decided<BTreeSet<String>>>,
    /// Profiles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profiles: Option<Decided<BTreeSet<String>>>,
    /// Roots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roots: Option<Decided<BTreeSet<String>>>,
    /// Whether a sandbox may have a root of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_root: Option<Decided<bool>>,
    /// Rules about secrets, of which each counts.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<LayerRef, Vec<SecretRule>>,
    /// What a person has to say yes to, or nobody may.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub approvals: BTreeMap<Matter, Decided<Answer>>,
    /// How long what waits for a person does that, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval_expires_ms: Option<Decided<u64>>,
    /// Modules that must allow it too.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub modules: BTreeSet<LayerRef>,
}

/// What a job or a sandbox keeps of the policies that it was decided by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermitUse {
    /// Which state of all policies that was. Another one is asked again before a node gets the work.
    pub stamp: u64,
    /// What followed from them.
    pub permit: Permit,
    /// A person had to say yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Asked>,
    /// A person has said yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yes: Option<Yes>,
}

impl PermitUse {
    /// Whether it has to be decided again before a node gets the work, now that all policies are in this state. Where
    /// there is none any more, what was decided by some stays within them.
    pub fn is_stale(permit: Option<&PermitUse>, now: Option<u64>) -> bool {
        now.is_some_and(|now| permit.is_none_or(|permit| permit.stamp != now))
    }

    /// The time from which on it may wait for a node, in milliseconds since 1970: before a person has said yes nobody
    /// could take it.
    pub fn waits_since(permit: Option<&PermitUse>, created_at_ms: u64) -> u64 {
        let yes = permit.and_then(|permit| permit.yes.as_ref());
        yes.map_or(created_at_ms, |yes| yes.at_ms.max(created_at_ms))
    }
}

/// One part of a permit, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Which clause, as it is in a document.
    pub clause: String,
    /// What holds.
    pub value: String,
    /// Who said so.
    pub by: Vec<LayerRef>,
}

impl Permit {
    /// What follows from one policy alone.
    pub fn of(layer: &LayerRef, policy: &Policy) -> Permit {
        let bounds = policy.resources.iter();
        let mut permit = Permit {
            layers: BTreeSet::from([layer.clone()]),
            volumes: policy
                .of
                .iter()
                .filter(|_| policy.layer == Layer::Volume)
                .map(|name| (layer.clone(), name.clone()))
                .collect(),
            bounds: bounds
                .map(|(bound, most)| (*bound, Decided::by(*most, layer)))
                .collect(),
            dependencies: policy
                .dependencies
                .as_ref()
                .map(packages)
                .unwrap_or_default()
                .into_iter()
                .map(|(ecosystem, list)| (ecosystem, Decided::by(list, layer)))
                .collect(),
            only_known_indexes: policy
                .dependencies
                .as_ref()
                .map(|clause| Decided::by(clause.only_known_indexes, layer)),
            drivers: policy.drivers.clone().map(|set| Decided::by(set, layer)),
            allow_root: policy.profiles.allow_root.map(|is| Decided::by(is, layer)),
            approvals: policy
                .approvals
                .iter()
                .map(|(matter, answer)| (*matter, Decided::by(*answer, layer)))
                .collect(),
            modules: policy.rego.iter().map(|_| layer.clone()).collect(),
            ..Permit::default()
        };
        let texts = |set: &BTreeSet<String>, read: fn(&BTreeSet<String>) -> BTreeSet<String>| {
            Decided::by(read(set), layer)
        };
        let names = |set: &BTreeSet<String>| texts(set, |set| plain_texts(Pattern, set));
        let paths = |set: &BTreeSet<String>| texts(set, |set| plain_texts(Prefix, set));
        let expires = policy.approval_expires_ms;
        permit.approval_expires_ms = expires.map(|ms| Decided::by(ms, layer));
        permit.profiles = policy.profiles.allow.as_ref().map(names);
        permit.roots = policy.profiles.roots.as_ref().map(names);
        if let Some(network) = &policy.network {
            permit.mode = network.mode.map(|mode| Decided::by(mode, layer));
            let allow = network.allow.as_ref();
            permit.allow =
                allow.map(|list| Decided::by(plain(list.iter().cloned().collect()), layer));
            let deny: BTreeSet<String> = network.deny.iter().map(ToString::to_string).collect();
            permit.deny = (!deny.is_empty()).then(|| Decided::by(deny, layer));
        }
        if let Some(files) = &policy.files {
            permit.put = files.put.as_ref().map(paths);
            permit.take = files.take.as_ref().map(paths);
            permit.unchecked_files = Some(Decided::by(files.unchecked_in_sandboxes, layer));
        }
        let mine = |clause: &CommandsClause| (layer.clone(), clause.clone());
        permit.commands = policy.commands.iter().map(mine).collect();
        let secrets = policy.secrets.iter();
        permit.secrets = secrets
            .map(|rules| (layer.clone(), rules.clone()))
            .collect();
        permit
    }

    /// What follows from several. No order of them, and none that is there twice, changes it.
    pub fn merge<'p>(layers: impl IntoIterator<Item = &'p (LayerRef, Policy)>) -> Permit {
        let each = layers.into_iter();
        let each = each.map(|(layer, policy)| Permit::of(layer, policy));
        each.fold(Permit::default(), Permit::and)
    }

    /// What both let through.
    #[must_use]
    pub fn and(self, other: Permit) -> Permit {
        let names = |a: &BTreeSet<String>, b: &BTreeSet<String>| few(meet_texts(Pattern, a, b));
        let paths = |a: &BTreeSet<String>, b: &BTreeSet<String>| few(meet_texts(Prefix, a, b));
        let same = |a: &BTreeSet<String>, b: &BTreeSet<String>| a & b;
        Permit {
            layers: &self.layers | &other.layers,
            volumes: joined(self.volumes, other.volumes),
            mode: either(self.mode, other.mode, |a, b| {
                lesser(a, b, |mode| rank(*mode))
            }),
            allow: either(self.allow, other.allow, |a, b| {
                both(a, b, |a, b| few(meet(a, b)))
            }),
            deny: either(self.deny, other.deny, |a, b| both(a, b, |a, b| a | b)),
            bounds: each(self.bounds, other.bounds, |a, b| lesser(a, b, |most| *most)),
            put: either(self.put, other.put, |a, b| both(a, b, paths)),
            take: either(self.take, other.take, |a, b| both(a, b, paths)),
            unchecked_files: either(self.unchecked_files, other.unchecked_files, |a, b| {
                lesser(a, b, |is| *is)
            }),
            commands: joined(self.commands, other.commands),
            dependencies: each(self.dependencies, other.dependencies, |a, b| {
                both(a, b, same)
            }),
            only_known_indexes: either(
                self.only_known_indexes,
                other.only_known_indexes,
                |a, b| lesser(a, b, |is| *is),
            ),
            drivers: either(self.drivers, other.drivers, |a, b| both(a, b, same)),
            profiles: either(self.profiles, other.profiles, |a, b| both(a, b, names)),
            roots: either(self.roots, other.roots, |a, b| both(a, b, names)),
            allow_root: either(self.allow_root, other.allow_root, |a, b| {
                lesser(a, b, |is| *is)
            }),
            secrets: joined(self.secrets, other.secrets),
            approvals: each(self.approvals, other.approvals, |a, b| {
                lesser(a, b, |answer| std::cmp::Reverse(*answer))
            }),
            approval_expires_ms: either(
                self.approval_expires_ms,
                other.approval_expires_ms,
                |a, b| lesser(a, b, |ms| *ms),
            ),
            modules: &self.modules | &other.modules,
        }
    }

    /// The most that may be reached, as rules; `None` where nobody says anything.
    pub fn ceiling(&self) -> Option<NetworkRules> {
        let cap = |bound: Bound| self.bounds.get(&bound).map(|most| most.value);
        let small = |bound| cap(bound).and_then(|most| u32::try_from(most).ok());
        let caps = NetworkCaps {
            connections: small(Bound::Connections),
            per_minute: small(Bound::PerMinute),
            bytes: cap(Bound::NetworkBytes),
        };
        if self.mode.is_none()
            && self.allow.is_none()
            && self.deny.is_none()
            && caps == NetworkCaps::default()
        {
            return None;
        }
        let mode = self.mode.as_ref().map(|mode| mode.value);
        let mode = match (mode.unwrap_or(NetworkMode::Unrestricted), &self.allow) {
            // A list with nothing in it lets nothing out.
            (_, Some(list)) if list.value.is_empty() => NetworkMode::None,
            (NetworkMode::Unrestricted, Some(_)) => NetworkMode::Allowlist,
            (mode, _) => mode,
        };
        if mode == NetworkMode::None {
            return Some(NetworkRules::default());
        }
        let deny = self.deny.iter().flat_map(|deny| &deny.value);
        let allow = self.allow.as_ref().map(|list| list.value.clone());
        Some(NetworkRules {
            mode,
            allow: allow.unwrap_or_default(),
            deny: deny.filter_map(|entry| entry.parse().ok()).collect(),
            caps,
            ..NetworkRules::default()
        })
    }

    /// What may be installed. An entry that an older version let in and that cannot be read is in no index.
    pub fn dependencies(&self) -> Dependencies {
        let lists = self.dependencies.iter();
        let lists = lists.filter_map(|(ecosystem, list)| {
            Some((Ecosystem::parse(ecosystem)?, list.value.clone()))
        });
        lists.collect::<BTreeMap<_, _>>().into()
    }

    /// The longest time, in milliseconds.
    pub fn within(&self, asked_ms: u64) -> u64 {
        let most = self.bounds.get(&Bound::TimeoutMs);
        most.map_or(asked_ms, |most| asked_ms.min(most.value))
    }

    /// How long something waits for a person, in milliseconds.
    pub fn approval_ms(&self) -> u64 {
        let said = self.approval_expires_ms.as_ref();
        said.map_or(limits::APPROVAL_MS, |said| said.value)
    }

    /// Whether a policy is written only after another person has said yes, and the layers that want that.
    pub fn policy_change(&self) -> Option<&Decided<Answer>> {
        let said = self.approvals.get(&Matter::PolicyChange);
        said.filter(|said| said.value != Answer::Skip)
    }

    /// Who decided what.
    pub fn trace(&self) -> Vec<Trace> {
        let mut all = Vec::new();
        let mut say = |clause: &str, value: String, by: &BTreeSet<LayerRef>| {
            all.push(Trace {
                clause: clause.to_owned(),
                value,
                by: by.iter().cloned().collect(),
            });
        };
        if let Some(mode) = &self.mode {
            say("network.mode", mode.value.to_string(), &mode.by);
        }
        if let Some(list) = &self.allow {
            let entries: Vec<String> = list.value.iter().map(ToString::to_string).collect();
            say("network.allow", entries.join(" "), &list.by);
        }
        for (bound, most) in &self.bounds {
            let clause = format!("resources.{}", bound.as_str());
            say(&clause, most.value.to_string(), &most.by);
        }
        let sets = [
            ("network.deny", &self.deny),
            ("files.put", &self.put),
            ("files.take", &self.take),
            ("drivers", &self.drivers),
            ("profiles.allow", &self.profiles),
            ("profiles.roots", &self.roots),
        ];
        let sets = sets.into_iter();
        for (clause, set) in sets.filter_map(|(clause, set)| Some((clause, set.as_ref()?))) {
            say(clause, spaced(&set.value), &set.by);
        }
        for (ecosystem, set) in &self.dependencies {
            say(
                &format!("dependencies.{ecosystem}"),
                spaced(&set.value),
                &set.by,
            );
        }
        if let Some(is) = &self.allow_root {
            say("profiles.allow_root", is.value.to_string(), &is.by);
        }
        for (matter, answer) in &self.approvals {
            let clause = format!("approvals.{}", matter.as_str());
            say(&clause, answer.value.as_str().to_owned(), &answer.by);
        }
        if let Some(ms) = &self.approval_expires_ms {
            say("approvals.expires_ms", ms.value.to_string(), &ms.by);
        }
        let each = [
            ("commands", self.commands.keys().collect::<BTreeSet<_>>()),
            ("secrets", self.secrets.keys().collect()),
            ("rego", self.modules.iter().collect()),
        ];
        for (clause, by) in each.into_iter().filter(|(_, by)| !by.is_empty()) {
            let by: BTreeSet<LayerRef> = by.into_iter().cloned().collect();
            say(clause, "each of these counts".to_owned(), &by);
        }
        all
    }
}

/// The lists of a clause, each package in its one form.
fn packages(clause: &DependenciesClause) -> BTreeMap<String, BTreeSet<String>> {
    let mut lists = clause.lists();
    for (ecosystem, list) in &mut lists {
        let ecosystem = Ecosystem::parse(ecosystem);
        let plain = |one: &String| ecosystem.and_then(|ecosystem| ecosystem.read(one));
        *list = list
            .iter()
            .map(|one| plain(one).unwrap_or_else(|| one.clone()))
            .collect();
    }
    lists
}

fn spaced(set: &BTreeSet<String>) -> String {
    set.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// How much a mode lets out. Below a list, reading is less.
fn rank(mode: NetworkMode) -> u8 {
    match mode {
        NetworkMode::None => 0,
        NetworkMode::ReadOnly => 1,
        NetworkMode::Allowlist => 2,
        NetworkMode::Unrestricted => 3,
    }
}

fn either<T>(one: Option<T>, other: Option<T>, join: impl FnOnce(T, T) -> T) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(join(one, other)),
        (one, other) => one.or(other),
    }
}

fn each<K: Ord, T>(
    one: BTreeMap<K, T>,
    other: BTreeMap<K, T>,
    join: impl Fn(T, T) -> T,
) -> BTreeMap<K, T> {
    let mut all = one;
    for (key, theirs) in other {
        let joined = match all.remove(&key) {
            Some(mine) => join(mine, theirs),
            None => theirs,
        };
        all.insert(key, joined);
    }
    all
}

fn joined<T>(one: BTreeMap<LayerRef, T>, other: BTreeMap<LayerRef, T>) -> BTreeMap<LayerRef, T> {
    let mut all = one;
    all.extend(other);
    all
}

/// The lesser of the two; both have said it where they are equal.
fn lesser<T, K: Ord>(one: Decided<T>, other: Decided<T>, key: impl Fn(&T) -> K) -> Decided<T> {
    match key(&one.value).cmp(&key(&other.value)) {
        std::cmp::Ordering::Less => one,
        std::cmp::Ordering::Greater => other,
        std::cmp::Ordering::Equal => Decided {
            by: &one.by | &other.by,
            value: one.value,
        },
    }
}

fn both<T>(one: Decided<T>, other: Decided<T>, meet: impl Fn(&T, &T) -> T) -> Decided<T> {
    Decided {
        value: meet(&one.value, &other.value),
        by: &one.by | &other.by,
    }
}

/// A list that would be too long lets nothing through.
fn few<L: Default + IntoIterator>(list: L) -> L
where
    for<'l> &'l L: IntoIterator,
{
    let is_long = (&list).into_iter().count() > limits::PERMIT_ENTRIES_MAX;
    if is_long { L::default() } else { list }
}
