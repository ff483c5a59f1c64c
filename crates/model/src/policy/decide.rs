//! What becomes of a request by a permit. Pure.
//!
//! As with profiles, whoever asks for more is refused with the clause that says so, and gets nothing less without a
//! word; what the request does not say is as much as the permit allows and the house gives anyway. Times alone are
//! cut, as those of profiles are.

use super::command::{Found, Steps};
use super::set::{Holds, Pattern, Prefix};
use super::{Answer, Bound, Decided, LayerRef, Matter, Permit};
use crate::limits;
use crate::network::{Entry, NetworkMode, NetworkRules};
use crate::place::{DRIVER, Placement};
use crate::profile::{ProfileUse, Says, check_secrets};
use crate::sandbox_spec::SandboxSpec;
use crate::secret::{SecretHow, SecretUse};
use crate::spec::{AskedLimits, Findings, Invalid, JobSpec, absolute};
use std::collections::BTreeSet;

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision<T> {
    /// It may be, as it is here.
    Allowed(T),
    /// It may not.
    Refused(Vec<Refusal>),
    /// It may be, as it is here, if a person says yes to these.
    NeedsApproval(T, Vec<Refusal>),
}

impl<T> Decision<T> {
    /// The same about another value.
    pub fn map<U>(self, with: impl FnOnce(T) -> U) -> Decision<U> {
        match self {
            Decision::Allowed(value) => Decision::Allowed(with(value)),
            Decision::Refused(all) => Decision::Refused(all),
            Decision::NeedsApproval(value, all) => Decision::NeedsApproval(with(value), all),
        }
    }
}

/// Why a request is not let through as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// In what way.
    pub kind: Kind,
    /// Which clause, as it is in a document.
    pub clause: String,
    /// The layers that have it.
    pub by: Vec<LayerRef>,
    /// For a person.
    pub why: String,
}

/// In what way a request is not let through. The first is the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It asks for more than it may.
    Refused,
    /// It may be, but for a rule that nothing here can hold.
    Unenforceable,
    /// A person has to say yes.
    NeedsApproval,
}

impl Kind {
    /// The stable code of it.
    pub fn code(self) -> &'static str {
        match self {
            Kind::Refused => "policy_refused",
            Kind::Unenforceable => "policy_unenforceable",
            Kind::NeedsApproval => "approval_needed",
        }
    }
}

impl Refusal {
    /// What a person says yes to. The names and versions of policies are not in it: another version that asks for the
    /// same asks for nothing new. The volumes are, whose policies want it: who was shown none of them, or another, has
    /// not said yes to these.
    pub fn reason(&self) -> String {
        format!("{}: {}", self.clause, self.why)
    }

    /// As something that is wrong with a request.
    pub fn invalid(&self) -> Invalid {
        let by: Vec<String> = self.by.iter().map(ToString::to_string).collect();
        // What the program itself bounds is in no layer.
        let message = match by.is_empty() {
            true => self.why.clone(),
            false => format!("{} ({})", self.why, by.join(", ")),
        };
        Invalid {
            field: self.clause.clone(),
            code: self.kind.code(),
            message,
        }
    }
}

/// What was found so far.
#[derive(Debug, Default)]
struct Told(Vec<Refusal>);

impl Told {
    fn say(
        &mut self,
        kind: Kind,
        clause: impl Into<String>,
        by: impl IntoIterator<Item = LayerRef>,
        why: impl Into<String>,
    ) {
        self.0.push(Refusal {
            kind,
            clause: clause.into(),
            by: by.into_iter().collect(),
            why: why.into(),
        });
    }

    fn refuse<T>(&mut self, clause: impl Into<String>, by: &Decided<T>, why: impl Into<String>) {
        self.say(Kind::Refused, clause, by.by.clone(), why);
    }

    /// Only what is worst counts: what would come after it is not reached.
    fn verdict<T>(self, value: T, permit: &Permit) -> Decision<T> {
        let Some(worst) = self.0.iter().map(|one| one.kind).min() else {
            return Decision::Allowed(value);
        };
        let all = self.0.into_iter();
        let worst_of: Vec<Refusal> = all.filter(|one| one.kind == worst).collect();
        match worst {
            Kind::Refused | Kind::Unenforceable => Decision::Refused(worst_of),
            Kind::NeedsApproval => {
                let asked = worst_of.into_iter();
                let asked = asked.map(|one| permit.with_volumes(one));
                Decision::NeedsApproval(value, asked.collect())
            }
        }
    }
}

impl Permit {
    /// What becomes of a job.
    pub fn job(&self, mut spec: JobSpec, says: Says) -> Decision<JobSpec> {
        let mut told = Told::default();
        self.profile(&spec.profile, spec.made_by.as_deref(), &mut told);
        self.root(spec.root.as_deref(), &mut told);
        spec.network = self.reach(&spec.network, says, &mut told);
        spec.limits = self.limits(spec.limits, &mut told);
        spec.placement = self.placement(spec.placement, &mut told);
        self.uses(&spec.secrets, &mut told);
        let put = spec.files.iter().map(|file| file.path.as_str());
        check_paths("files.put", self.put.as_ref(), put, &mut told);
        let taken = spec.outputs.iter().map(String::as_str);
        check_paths("files.take", self.take.as_ref(), taken, &mut told);
        self.command(|| Found::of(&spec.argv), &mut told);
        self.matters((&spec.network, false, &spec.secrets), &mut told);
        spec.timeout_ms = self.within(spec.timeout_ms);
        told.verdict(spec, self)
    }

    /// What becomes of a sandbox that lives on, and how long it lives.
    pub fn sandbox(
        &self,
        (mut spec, ttl_ms): (SandboxSpec, u64),
        says: Says,
    ) -> Decision<(SandboxSpec, u64)> {
        let mut told = Told::default();
        self.profile(&spec.profile, spec.made_by.as_deref(), &mut told);
        self.root(spec.root.as_deref(), &mut told);
        spec.network = self.reach(&spec.network, says, &mut told);
        spec.limits = self.limits(spec.limits, &mut told);
        spec.placement = self.placement(spec.placement, &mut told);
        self.uses(&spec.secrets, &mut told);
        if let Some(never) = self.allow_root.as_ref().filter(|is| !is.value)
            && spec.allow_root
        {
            told.refuse(
                "profiles.allow_root",
                never,
                "a root of its own is not allowed",
            );
        }
        self.unchecked(&mut told);
        let start = spec.defaults.start.iter();
        for text in start
            .flat_map(|start| [&start.command, &start.ready])
            .flatten()
        {
            self.command(|| Found::of_script(text), &mut told);
        }
        let asks = (&spec.network, spec.allow_root, spec.secrets.as_slice());
        self.matters(asks, &mut told);
        let ttl_ms = self.within(ttl_ms);
        told.verdict((spec, ttl_ms), self)
    }

    /// What becomes of other rules for a sandbox that is there, and of secrets for what leaves by them.
    pub fn network(
        &self,
        (asked, secrets): (&NetworkRules, &[SecretUse]),
    ) -> Decision<NetworkRules> {
        let mut told = Told::default();
        let says = Says {
            network: true,
            timeout: true,
        };
        let rules = self.reach(asked, says, &mut told);
        self.uses(secrets, &mut told);
        self.matters((&rules, false, secrets), &mut told);
        told.verdict(rules, self)
    }

    /// The same, with the volumes whose policies want the yes. All else that a person reads is the same for every
    /// volume and for none, so that a yes for a session would be good for volumes that nobody was shown.
    fn with_volumes(&self, mut one: Refusal) -> Refusal {
        let names = one.by.iter().filter_map(|by| self.volumes.get(by));
        let names: BTreeSet<&str> = names.map(String::as_str).collect();
        let names: Vec<&str> = names.into_iter().collect();
        if !names.is_empty() {
            // Without backticks: between those, `Policy::without` looks for patterns of commands.
            let names = names.join(" and the volume ");
            one.why = format!("{}, with the volume {names}", one.why);
        }
        one
    }

    fn profile(&self, own: &str, made_by: Option<&ProfileUse>, told: &mut Told) {
        let name = made_by.map_or(own, |made_by| made_by.name.as_str());
        check_name("profiles.allow", self.profiles.as_ref(), name, told);
    }

    fn root(&self, root: Option<&str>, told: &mut Told) {
        if let Some(root) = root {
            check_name("profiles.roots", self.roots.as_ref(), root, told);
        }
    }

    /// What may be reached, and which packages may be installed from there.
    fn reach(&self, asked: &NetworkRules, says: Says, told: &mut Told) -> NetworkRules {
        let mut rules = self.network_below(asked, says, told);
        if rules.has_way_out() {
            rules.dependencies = rules.dependencies.and(&self.dependencies());
        }
        rules
    }

    fn network_below(&self, asked: &NetworkRules, says: Says, told: &mut Told) -> NetworkRules {
        let Some(ceiling) = self.ceiling() else {
            return asked.clone();
        };
        match asked.below(&ceiling) {
            Ok(rules) => rules,
            // Nobody has asked for what a door gives where nothing is said.
            Err(_) if !says.network => ceiling,
            Err(found) => {
                for one in found {
                    let by = self.who_limits(&one.field);
                    told.say(Kind::Refused, one.field, by, of_policy(&one.message));
                }
                NetworkRules::default()
            }
        }
    }

    /// The layers that say something of a part of a network.
    fn who_limits(&self, field: &str) -> BTreeSet<LayerRef> {
        let mut by = BTreeSet::new();
        if field.starts_with("network.limits") {
            let bounds = [Bound::Connections, Bound::PerMinute, Bound::NetworkBytes];
            let all = bounds.iter().filter_map(|bound| self.bounds.get(bound));
            by.extend(all.flat_map(|most| most.by.clone()));
        } else {
            by.extend(self.mode.iter().flat_map(|mode| mode.by.clone()));
            by.extend(self.allow.iter().flat_map(|list| list.by.clone()));
            by.extend(self.deny.iter().flat_map(|list| list.by.clone()));
        }
        by
    }

    /// A limit that nobody names is as everywhere, if that is not more. It is named then, so that it is enforced
    /// or refused.
    fn limits(&self, asked: AskedLimits, told: &mut Told) -> AskedLimits {
        let mut within = |bound: Bound, asked: Option<u64>, default: u64| {
            let Some(most) = self.bounds.get(&bound) else {
                return asked;
            };
            if asked.is_some_and(|asked| asked > most.value) {
                let why = format!("at most {} is allowed", most.value);
                told.refuse(format!("resources.{}", bound.as_str()), most, why);
            }
            asked.or_else(|| Some(default.min(most.value)))
        };
        let small = |limit: Option<u64>| limit.and_then(|limit| u32::try_from(limit).ok());
        let cpu = asked.cpu_millis.map(u64::from);
        let pids = asked.pids.map(u64::from);
        AskedLimits {
            cpu_millis: small(within(
                Bound::CpuMillis,
                cpu,
                limits::CPU_DEFAULT_MILLIS.into(),
            )),
            memory_bytes: within(
                Bound::MemoryBytes,
                asked.memory_bytes,
                limits::MEMORY_DEFAULT_BYTES,
            ),
            pids: small(within(Bound::Pids, pids, limits::PIDS_DEFAULT.into())),
            disk_bytes: within(
                Bound::DiskBytes,
                asked.disk_bytes,
                limits::DISK_DEFAULT_BYTES,
            ),
        }
    }

    /// Nodes have a label that says what they isolate with. A placement can ask for one.
    fn placement(&self, mut asked: Placement, told: &mut Told) -> Placement {
        let Some(drivers) = &self.drivers else {
            return asked;
        };
        let named: Vec<&String> = drivers.value.iter().collect();
        match (asked.on.get(DRIVER), named.as_slice()) {
            (Some(asked), _) if drivers.value.contains(asked) => {}
            (Some(asked), _) => {
                let why = format!("the driver `{asked}` is not among those that are allowed");
                told.refuse("drivers", drivers, why);
            }
            (None, []) => told.refuse("drivers", drivers, "no driver is left that all allow"),
            (None, [one]) => {
                asked.on.insert(DRIVER.to_owned(), (*one).clone());
            }
            (None, _) => {
                let why = "several drivers are allowed: ask for one of them, as a node with the label `driver`";
                told.refuse("drivers", drivers, why);
            }
        }
        asked
    }

    fn uses(&self, uses: &[SecretUse], told: &mut Told) {
        for (layer, rules) in &self.secrets {
            let mut found = Findings::default();
            check_secrets(rules, uses, &mut found);
            for one in found.0 {
                let why = of_policy(&one.message);
                told.say(Kind::Refused, one.field, [layer.clone()], why);
            }
        }
    }

    fn command(&self, found: impl FnOnce() -> Found, told: &mut Told) {
        if self.commands.is_empty() {
            return;
        }
        // Read once, and compared with a bound for all layers together: they are of several people.
        let (found, mut steps) = (found(), Steps::default());
        for (layer, clause) in &self.commands {
            let (answer, why) = clause.answer(&found, &mut steps);
            let kind = match answer {
                Answer::Skip => continue,
                Answer::NeedsApproval => Kind::NeedsApproval,
                Answer::Forbidden => Kind::Refused,
            };
            told.say(kind, "commands", [layer.clone()], why);
        }
    }

    /// In a sandbox that lives on nobody reads commands or paths, and who wrote the rule has to have known that.
    fn unchecked(&self, told: &mut Told) {
        let why = "a sandbox that lives on takes commands and files without asking; say \
                   `unchecked_in_sandboxes` in the clause if that is meant, or run jobs";
        for (layer, clause) in &self.commands {
            if !clause.unchecked_in_sandboxes {
                told.say(Kind::Unenforceable, "commands", [layer.clone()], why);
            }
        }
        if let Some(is) = self.unchecked_files.as_ref().filter(|is| !is.value)
            && (self.put.is_some() || self.take.is_some())
        {
            told.say(Kind::Unenforceable, "files", is.by.clone(), why);
        }
    }

    fn matters(
        &self,
        (network, allow_root, secrets): (&NetworkRules, bool, &[SecretUse]),
        told: &mut Told,
    ) {
        let is_known = self.only_known_indexes.as_ref().is_some_and(|is| is.value);
        for (ecosystem, list) in &self.dependencies {
            if network.has_way_out() && !network.names_all() && !is_known {
                let why = "a network that lets out addresses, or whatever it does not name, lets out others that \
                           serve packages; ask for an allow list of names, or say `only_known_indexes` in the \
                           clause if that is meant";
                let clause = format!("dependencies.{ecosystem}");
                told.say(Kind::Unenforceable, clause, list.by.clone(), why);
            }
        }
        for (matter, answer) in &self.approvals {
            let asked = match matter {
                Matter::NetworkUnrestricted if is_unrestricted(network) => {
                    vec!["this".to_owned()]
                }
                Matter::AllowRoot if allow_root => vec!["this".to_owned()],
                Matter::Secrets => secrets.iter().map(named).collect(),
                Matter::NetworkUnrestricted | Matter::AllowRoot | Matter::PolicyChange => continue,
            };
            for what in asked {
                let (kind, why) = match answer.value {
                    Answer::NeedsApproval => {
                        let why = format!("a person has to say yes to {what}");
                        (Kind::NeedsApproval, why)
                    }
                    Answer::Forbidden => (Kind::Refused, format!("{what} is forbidden")),
                    Answer::Skip => continue,
                };
                let clause = format!("approvals.{}", matter.as_str());
                told.say(kind, clause, answer.by.clone(), why);
            }
        }
    }
}

/// What a check that profiles have too says, where a policy does.
fn of_policy(message: &str) -> String {
    message.replace("the profile", "the policy")
}

/// Whether everything public is to be reached: by the mode, or by a list that names all hosts or a large part of all
/// addresses.
fn is_unrestricted(network: &NetworkRules) -> bool {
    let share: u64 = network.allow.iter().map(Entry::share).sum();
    network.mode == NetworkMode::Unrestricted || share > limits::NETWORK_SHARE_MAX
}

/// A secret, and where it goes: who says yes to one host has not said yes to another.
fn named(one: &SecretUse) -> String {
    let name = &one.name;
    match &one.how {
        SecretHow::File => format!("the secret `{name}` as a file"),
        SecretHow::Env { var } => format!("the secret `{name}` as the variable `{var}`"),
        SecretHow::Header {
            host,
            header,
            format,
        } => {
            format!("the secret `{name}` for `{host}`, as the field `{header}: {format}`")
        }
        SecretHow::Upstream => format!("the secret `{name}` for the proxy"),
    }
}

fn check_name(clause: &str, set: Option<&Decided<BTreeSet<String>>>, name: &str, told: &mut Told) {
    let Some(set) = set else { return };
    let asked = Pattern(name.to_owned());
    let mut patterns = set.value.iter().cloned().map(Pattern);
    if !patterns.any(|pattern| pattern.holds(&asked)) {
        told.refuse(
            clause,
            set,
            format!("`{name}` is not among those that are allowed"),
        );
    }
}

fn check_paths<'p>(
    clause: &str,
    set: Option<&Decided<BTreeSet<String>>>,
    paths: impl Iterator<Item = &'p str>,
    told: &mut Told,
) {
    let Some(set) = set else { return };
    for path in paths {
        let whole = absolute(path);
        let climbs = whole.split('/').any(|part| part == ".." || part == ".");
        let whole = Prefix(whole);
        let mut prefixes = set.value.iter().cloned().map(Prefix);
        if climbs || !prefixes.any(|prefix| prefix.holds(&whole)) {
            told.refuse(
                clause,
                set,
                format!("`{path}` is not below a path that is allowed"),
            );
        }
    }
}

#[cfg(test)]
mod tests;
