//! Which node gets a job or a sandbox: decided here, from values, and nowhere else.
//!
//! Nodes ask for work, so that the question is mostly "may this one have it now", with the others in view.
//! Where several ask at one time, [`order`] says whom to give it to first.

use crate::limits;
use crate::node::NodeKind;
use crate::spec::{AskedLimits, Findings};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// The label that says where a node stands, such as `eu/berlin/r7`.
pub const LOCATION: &str = "location";

/// Labels, by their names.
pub type Labels = BTreeMap<String, String>;

/// Where somebody wants a job or a sandbox to be.
#[derive(Debug, Clone, PartialEq, Eq, Default, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Placement {
    /// Labels that its node must have. One without a value is a tag, and met by that tag alone.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub on: Labels,
    /// Labels that its node should have. Others get it where no such node can have it, or did not take it in
    /// [`limits::PREFER_MS`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub prefer: Labels,
    /// Where its node must stand: there, or below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
}

impl Placement {
    /// Whether nothing was asked for.
    pub fn is_empty(&self) -> bool {
        self.on.is_empty() && self.prefer.is_empty() && self.location.is_none()
    }

    /// What this does not say is as it is in `mine`, label by label.
    #[must_use]
    pub fn over(self, mine: &Placement) -> Placement {
        let join = |mine: &Labels, theirs: Labels| {
            let mut all = mine.clone();
            all.extend(theirs);
            all
        };
        Placement {
            on: join(&mine.on, self.on),
            prefer: join(&mine.prefer, self.prefer),
            location: self.location.or_else(|| mine.location.clone()),
        }
    }

    /// Checks what can be said without knowing a node.
    pub(crate) fn check(&self, found: &mut Findings) {
        let count = self.on.len() + self.prefer.len();
        found.count("placement", count, limits::PLACEMENT_LABELS_MAX);
        let pairs = [("on", &self.on), ("prefer", &self.prefer)];
        for (part, (key, value)) in pairs
            .into_iter()
            .flat_map(|(part, labels)| labels.iter().map(move |pair| (part, pair)))
        {
            if !is_label(key) || !(value.is_empty() || is_label(value)) {
                let message = "a label is of at most 63 letters, digits and - _ . / on each side";
                found.add(format!("placement.{part}"), "invalid_argument", message);
            }
        }
        if self
            .location
            .as_deref()
            .is_some_and(|place| !is_label(place))
        {
            let message = "a location is of at most 63 letters, digits and - _ . /";
            found.add("placement.location", "invalid_argument", message);
        }
    }
}

/// The label of a node that says what it isolates with. Each node has it of itself.
pub const DRIVER: &str = "driver";

/// The label of a node that says what [kind](NodeKind) of machine it is. Each node has it of itself.
pub const KIND: &str = "kind";

/// Labels that each node has of itself, so that nobody gives them.
pub const OF_ITSELF: [&str; 2] = [DRIVER, KIND];

/// The labels of a node with its kind. What came before nodes said one is a server, whatever it was called.
#[must_use]
pub fn with_kind(mut labels: Labels) -> Labels {
    let said = labels.get(KIND).and_then(|kind| NodeKind::parse(kind));
    let kind = said.unwrap_or_default().as_str();
    labels.insert(KIND.to_owned(), kind.to_owned());
    labels
}

/// The labels without a value: tags.
pub fn tags(labels: &Labels) -> impl Iterator<Item = &str> {
    let tags = labels.iter().filter(|(_, value)| value.is_empty());
    tags.map(|(key, _)| key.as_str())
}

/// Whether a text can be one side of a label. What is in an index is bounded by this.
pub fn is_label(text: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
    (1..=limits::LABEL_BYTES_MAX).contains(&text.len()) && text.bytes().all(good)
}

/// What a node must have for a job or a sandbox. What wants nothing of it has none, and goes anywhere.
#[derive(Debug, Clone, PartialEq, Eq, Default, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Wish {
    /// Where.
    #[serde(flatten)]
    pub placement: Placement,
    /// Limits that somebody named: the processors in thousandths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u32>,
    /// Bytes of memory, those of storage that is in memory too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Bytes of storage on the node's disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
}

impl Wish {
    /// What follows from a request; `on_disk` says whether much storage is on the disk there and not in memory.
    pub fn of(placement: &Placement, asked: &AskedLimits, on_disk: bool) -> Option<Wish> {
        let on_disk = on_disk
            && asked
                .disk_bytes
                .is_some_and(|bytes| bytes > limits::DISK_IN_MEMORY_BYTES);
        let in_memory = asked.disk_bytes.filter(|_| !on_disk);
        let wish = Wish {
            placement: placement.clone(),
            cpu_millis: asked.cpu_millis,
            memory_bytes: match (asked.memory_bytes, in_memory) {
                (None, None) => None,
                (memory, disk) => Some(memory.unwrap_or(0).saturating_add(disk.unwrap_or(0))),
            },
            disk_bytes: asked.disk_bytes.filter(|_| on_disk),
        };
        (wish != Wish::default()).then_some(wish)
    }
}

/// What a machine has. What its node does not say bounds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Capacity {
    /// Thousandths of a processor.
    pub cpu_millis: Option<u64>,
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Bytes of storage on disk.
    pub disk_bytes: Option<u64>,
}

/// What is named by the limits of what a node has already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reserved {
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bytes of storage on disk.
    pub disk_bytes: u64,
}

impl Reserved {
    /// With one more.
    pub fn add(&mut self, wish: &Wish) {
        let sum = |has: u64, more: Option<u64>| has.saturating_add(more.unwrap_or(0));
        self.memory_bytes = sum(self.memory_bytes, wish.memory_bytes);
        self.disk_bytes = sum(self.disk_bytes, wish.disk_bytes);
    }
}

/// A node that might get something.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Candidate {
    /// Its labels.
    pub labels: Labels,
    /// What its machine has.
    pub capacity: Capacity,
    /// What of that is named by limits.
    pub reserved: Reserved,
    /// It is here, renews its leases, and nobody has closed it.
    pub gets_work: bool,
    /// It says that it can make sandboxes now.
    pub healthy: bool,
    /// How much it has failed lately.
    pub trouble: u32,
    /// Slots that are taken, and all of them.
    pub slots: (u32, u32),
}

/// Why a node does not get something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// Of a label that must be there: its name and value.
    Label(String, String),
    /// It stands somewhere else.
    Location(String),
    /// Its machine is too small: for which limit.
    Small(&'static str),
    /// It is closed or silent.
    Closed,
    /// It cannot make sandboxes now.
    Unhealthy,
    /// What it has takes too much of this.
    Taken(&'static str),
    /// All its slots are taken.
    Full,
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unfit::Label(key, value) if value.is_empty() => write!(f, "no node has the tag {key}"),
            Unfit::Label(key, value) => write!(f, "no node has the label {key}={value}"),
            Unfit::Location(place) => write!(f, "no node stands in {place}"),
            Unfit::Small(what) => write!(f, "no node has so much {what}"),
            Unfit::Closed => write!(f, "the nodes that could take it are closed or silent"),
            Unfit::Unhealthy => write!(f, "the nodes that could take it cannot make sandboxes now"),
            Unfit::Taken(what) => write!(f, "the {what} of the nodes that could take it is taken"),
            Unfit::Full => write!(f, "the nodes that could take it are full"),
        }
    }
}

/// Whom to give something to first, where several nodes could have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The emptiest first, so that what a node's end takes with it is little.
    #[default]
    Spread,
    /// The fullest first, so that others become empty and can be given back.
    Pack,
}

fn has(labels: &Labels, wanted: &Labels) -> Option<Unfit> {
    let missing = wanted
        .iter()
        .find(|(key, value)| labels.get(*key) != Some(*value));
    missing.map(|(key, value)| Unfit::Label(key.clone(), value.clone()))
}

/// Whether `place` is `wanted` or below it. By whole parts: `eu/berlin` is not in `eu/ber`.
pub(crate) fn is_in(place: &str, wanted: &str) -> bool {
    let wanted = wanted.trim_matches('/');
    let rest = place.trim_matches('/').strip_prefix(wanted);
    rest.is_some_and(|rest| wanted.is_empty() || rest.is_empty() || rest.starts_with('/'))
}

/// Why a node could never have it, whatever else it has.
pub fn never(wish: &Wish, node: &Candidate) -> Option<Unfit> {
    if let Some(why) = has(&node.labels, &wish.placement.on) {
        return Some(why);
    }
    if let Some(wanted) = &wish.placement.location
        && !node
            .labels
            .get(LOCATION)
            .is_some_and(|place| is_in(place, wanted))
    {
        return Some(Unfit::Location(wanted.clone()));
    }
    let beyond = |asked: Option<u64>, most: Option<u64>| {
        asked.is_some_and(|asked| most.is_some_and(|most| asked > most))
    };
    let most = node.capacity;
    [
        ("memory", wish.memory_bytes, most.memory_bytes),
        ("disk", wish.disk_bytes, most.disk_bytes),
        ("processor", wish.cpu_millis.map(u64::from), most.cpu_millis),
    ]
    .into_iter()
    .find(|(_, asked, most)| beyond(*asked, *most))
    .map(|(what, ..)| Unfit::Small(what))
}

/// Why a node cannot have it now; `None` when it can.
///
/// A limit that somebody named is a cap, and few use all of theirs, so that [`limits::OVERCOMMIT`] times the
/// memory and the disk of a machine can be named. Processors are shared by the kernel and never used up.
pub fn unfit(wish: &Wish, node: &Candidate) -> Option<Unfit> {
    if let Some(why) = never(wish, node) {
        return Some(why);
    }
    if !node.gets_work {
        return Some(Unfit::Closed);
    }
    if !node.healthy {
        return Some(Unfit::Unhealthy);
    }
    let taken = |asked: Option<u64>, reserved: u64, most: Option<u64>| {
        let most = most.unwrap_or(u64::MAX).saturating_mul(limits::OVERCOMMIT);
        asked.is_some_and(|asked| reserved.saturating_add(asked) > most)
    };
    let (most, has) = (node.capacity, node.reserved);
    if taken(wish.memory_bytes, has.memory_bytes, most.memory_bytes) {
        return Some(Unfit::Taken("memory"));
    }
    if taken(wish.disk_bytes, has.disk_bytes, most.disk_bytes) {
        return Some(Unfit::Taken("disk"));
    }
    let (used, all) = node.slots;
    (used >= all).then_some(Unfit::Full)
}

/// Whether it is one of the nodes that were preferred.
pub fn preferred(wish: &Wish, node: &Candidate) -> bool {
    has(&node.labels, &wish.placement.prefer).is_none()
}

/// Who can have it now, the best first, as places in `nodes`: those that were preferred, then those that have
/// failed less, then by how full they are. Among equals the order of `nodes` stays.
pub fn order(wish: &Wish, strategy: Strategy, nodes: &[Candidate]) -> Vec<usize> {
    let mut fit: Vec<usize> = (0..nodes.len())
        .filter(|at| nodes.get(*at).is_some_and(|one| unfit(wish, one).is_none()))
        .collect();
    fit.sort_by_key(|at| nodes.get(*at).map(|one| rank(wish, strategy, one)));
    fit
}

/// The first of [`order`], without a list of all. Only those that are preferred count.
pub fn best<'n>(
    wish: &Wish,
    strategy: Strategy,
    nodes: impl Iterator<Item = &'n Candidate>,
) -> Option<usize> {
    nodes
        .enumerate()
        .filter(|(_, one)| unfit(wish, one).is_none() && preferred(wish, one))
        .min_by_key(|(_, one)| rank(wish, strategy, one))
        .map(|(at, _)| at)
}

/// What comes first is less.
fn rank(wish: &Wish, strategy: Strategy, node: &Candidate) -> (bool, u32, u64, Reverse<u64>) {
    let (used, all) = node.slots;
    // In thousandths, so that nodes of different sizes compare.
    let full = u64::from(used) * 1000 / u64::from(all.max(1));
    let (spread, pack) = match strategy {
        Strategy::Spread => (full, 0),
        Strategy::Pack => (0, full),
    };
    (!preferred(wish, node), node.trouble, spread, Reverse(pack))
}

/// Whether a node that could have it leaves it to others: they were preferred, and can have it too, and it has
/// not waited long.
pub fn leaves_it(wish: &Wish, node: &Candidate, others: &[Candidate], waited_ms: u64) -> bool {
    !preferred(wish, node)
        && waited_ms < limits::PREFER_MS
        && others
            .iter()
            .any(|other| preferred(wish, other) && unfit(wish, other).is_none())
}

/// Why nobody takes it, by the node that is closest to it: what waiting changes is closer than what it does not.
/// `None` when one can have it now.
pub fn why_not(wish: &Wish, nodes: &[Candidate]) -> Option<Unfit> {
    let closeness = |why: &Unfit| match why {
        Unfit::Full => 0,
        Unfit::Taken(_) => 1,
        Unfit::Unhealthy => 2,
        Unfit::Closed => 3,
        Unfit::Small(_) => 4,
        Unfit::Location(_) => 5,
        Unfit::Label(..) => 6,
    };
    let mut closest: Option<Unfit> = None;
    for node in nodes {
        let why = unfit(wish, node)?;
        let closer = closest
            .as_ref()
            .is_none_or(|there| closeness(&why) < closeness(there));
        if closer {
            closest = Some(why);
        }
    }
    Some(closest.unwrap_or(Unfit::Closed))
}

/// How much a node has failed lately. It halves with each [`limits::TROUBLE_HALF_MS`], and with each job that
/// goes well nothing is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Trouble {
    /// In thousandths of a failure, at that time.
    pub score: u32,
    /// When it was counted.
    pub at_ms: u64,
}

impl Trouble {
    /// What is left of it.
    #[must_use]
    pub fn now(self, now_ms: u64) -> Trouble {
        let halves = now_ms.saturating_sub(self.at_ms) / limits::TROUBLE_HALF_MS;
        let score = self.score.checked_shr(u32::try_from(halves).unwrap_or(32));
        Trouble {
            score: score.unwrap_or(0),
            // Time that is not a whole half counts for the next one.
            at_ms: self.at_ms.saturating_add(halves * limits::TROUBLE_HALF_MS),
        }
    }

    /// With one more: something was lost that it had.
    #[must_use]
    pub fn failed(self, now_ms: u64) -> Trouble {
        let before = self.now(now_ms);
        Trouble {
            score: before.score.saturating_add(1000).min(limits::TROUBLE_MAX),
            at_ms: if before.score == 0 {
                now_ms
            } else {
                before.at_ms
            },
        }
    }

    /// Whole failures that are left.
    pub fn count(self, now_ms: u64) -> u32 {
        self.now(now_ms).score / 1000
    }
}

/// How many of its free slots a node gets that has failed so often: all after one or two, which may be chance,
/// then half for each. At last one at a time, so that it can show that it is well again.
pub fn share(free: u32, trouble: u32) -> u32 {
    let halves = trouble.saturating_sub(2);
    free.checked_shr(halves).unwrap_or(0).max(free.min(1))
}

#[cfg(test)]
mod tests;
