//! What may be wrong with a policy, each with its place in the document.

use super::{Answer, Bound, CommandsClause, FilesClause, Layer, Matter, NetworkClause, Policy};
use crate::dependency::Dependencies;
use crate::id::PrincipalId;
use crate::limits;
use crate::network::{Entry, NetworkMode};
use crate::profile::check_secret_rules;
use crate::spec::{Findings, Invalid, check_path};
use crate::volume::{VOLUME_NAME_RULE, is_volume_name};
use std::collections::BTreeSet;

const CODE: &str = "policy_invalid";

/// What may be the name of a policy: it is a part of paths, and of how a layer is written.
pub fn is_policy_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    (1..=limits::POLICY_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(plain)
        && !name.starts_with(['.', '-'])
}

impl Policy {
    /// Checks everything that can be said without knowing what there is. A module is read by whoever evaluates it.
    ///
    /// # Errors
    /// All that is wrong, not only the first.
    pub fn validate(&self) -> Result<(), Vec<Invalid>> {
        let mut found = Findings::default();
        self.check_layer(&mut found);
        if let Some(network) = &self.network {
            network.check(&mut found);
        }
        if let Some(files) = &self.files {
            files.check(&mut found);
        }
        if let Some(commands) = &self.commands {
            commands.check(&mut found);
        }
        self.check_dependencies(&mut found);
        for (bound, most) in &self.resources {
            found.range(
                &format!("resources.{}", bound.as_str()),
                *most,
                bound.least(),
                bound.most(),
            );
        }
        let sets = [
            ("drivers", &self.drivers),
            ("profiles.allow", &self.profiles.allow),
            ("profiles.roots", &self.profiles.roots),
        ];
        for (field, set) in sets {
            check_names(field, set.as_ref(), &mut found);
        }
        if let Some(drivers) = &self.drivers {
            for name in drivers.iter().filter(|name| !crate::place::is_label(name)) {
                let message = format!("`{name}` can be no label of a node");
                found.add("drivers", CODE, message);
            }
        }
        self.check_approvals(&mut found);
        check_secret_rules(self.secrets.as_deref(), &mut found);
        if self
            .rego
            .as_ref()
            .is_some_and(|text| text.len() > limits::REGO_BYTES_MAX)
        {
            let message = format!("a module has at most {} bytes", limits::REGO_BYTES_MAX);
            found.add("rego", "too_long", message);
        }
        found.verdict()
    }

    fn check_layer(&self, found: &mut Findings) {
        match (self.layer, &self.of) {
            (Layer::Principal, None) => {
                let message = "a policy for a principal says for whom it is: `of`";
                found.add("of", CODE, message);
            }
            (Layer::Principal, Some(of)) if of.parse::<PrincipalId>().is_err() => {
                found.add("of", CODE, "this can be no principal");
            }
            // It would be for nobody: all principals have their kind in front.
            (Layer::Principal, Some(of)) if !of.contains(':') => {
                let message = format!("a principal is named with its kind, such as `user:{of}`");
                found.add("of", CODE, message);
            }
            (Layer::Volume, None) => {
                let message = "a policy for a volume says for which, by its name: `of`";
                found.add("of", CODE, message);
            }
            // No volume could ever be called so: it would hold nothing.
            (Layer::Volume, Some(of)) if !is_volume_name(of) => {
                found.add("of", CODE, VOLUME_NAME_RULE);
            }
            (Layer::Global | Layer::Tenant, Some(_)) => {
                let message = "only a policy for a principal or a volume is `of` one";
                found.add("of", CODE, message);
            }
            (Layer::Principal | Layer::Volume, Some(_)) | (Layer::Global | Layer::Tenant, None) => {
            }
        }
        if self.priority > limits::POLICY_PRIORITY_MAX {
            let message = format!("must be 0 to {}", limits::POLICY_PRIORITY_MAX);
            found.add("priority", "out_of_range", message);
        }
    }

    fn check_approvals(&self, found: &mut Findings) {
        if let Some(ms) = self.approval_expires_ms {
            let (least, most) = (limits::APPROVAL_LEAST_MS, limits::APPROVAL_MS);
            found.range("approvals.expires_ms", ms, least, most);
        }
        let field = "approvals.policy_change";
        match (self.approvals.get(&Matter::PolicyChange), self.layer) {
            (Some(Answer::Forbidden), _) => {
                let message = "nobody could take this back; say `needs_approval`";
                found.add(field, CODE, message);
            }
            (Some(_), Layer::Principal | Layer::Volume) => {
                let message = "this is for a tenant, or for everybody";
                found.add(field, CODE, message);
            }
            _ => {}
        }
    }

    fn check_dependencies(&self, found: &mut Findings) {
        if let Some(clause) = &self.dependencies {
            Dependencies::read("dependencies", CODE, &clause.lists(), found);
        }
    }
}

impl NetworkClause {
    fn check(&self, found: &mut Findings) {
        let lists = [
            ("network.allow", self.allow.as_deref().unwrap_or_default()),
            ("network.deny", &self.deny),
        ];
        for (field, list) in lists {
            found.count(field, list.len(), limits::POLICY_ENTRIES_MAX);
        }
        let allow = self.allow.as_deref().unwrap_or_default();
        let is_literal = |entry: &Entry| !entry.is_name();
        for (index, entry) in allow.iter().enumerate() {
            if is_literal(entry) && !entry.is_any_host() {
                let message = format!(
                    "`{entry}` is an address, which says nothing of who answers there: allow a name, or deny the address"
                );
                found.add(format!("network.allow[{index}]"), CODE, message);
            }
        }
        let is_list = matches!(
            self.mode,
            None | Some(NetworkMode::Allowlist | NetworkMode::ReadOnly)
        );
        if self.allow.is_some() && !is_list {
            let message =
                "a list goes with `allowlist` or `read-only`: in this mode it would change nothing";
            found.add("network.allow", CODE, message);
        }
        if self.mode == Some(NetworkMode::Allowlist) && self.allow.is_none() {
            let message = "mode `allowlist` needs the list; for nothing there is `none`";
            found.add("network.allow", CODE, message);
        }
    }
}

impl FilesClause {
    fn check(&self, found: &mut Findings) {
        for (field, set) in [("files.put", &self.put), ("files.take", &self.take)] {
            let Some(set) = set else { continue };
            check_entries(field, set.iter(), found);
            for path in set {
                let is_plain = path == "/" || !path.ends_with('/') && !path.contains("//");
                if !path.starts_with('/') || !is_plain {
                    let message =
                        format!("`{path}` is no absolute path without a slash at its end");
                    found.add(field, CODE, message);
                } else if path != "/" {
                    check_path(field, path, found);
                }
            }
        }
    }
}

impl CommandsClause {
    fn check(&self, found: &mut Findings) {
        let lists = [
            ("commands.forbid", self.forbid.as_slice()),
            ("commands.approve", self.approve.as_slice()),
            ("commands.allow", self.allow.as_deref().unwrap_or_default()),
        ];
        for (field, list) in lists {
            check_entries(field, list.iter(), found);
        }
    }
}

fn check_names(field: &str, set: Option<&BTreeSet<String>>, found: &mut Findings) {
    let Some(set) = set else { return };
    check_entries(field, set.iter(), found);
    let is_wrong = |name: &&String| {
        let name = name.strip_suffix('*').unwrap_or(name);
        name.contains('*')
    };
    for name in set.iter().filter(is_wrong) {
        let message = format!("`{name}` has a `*` that is not at its end");
        found.add(field, CODE, message);
    }
}

fn check_entries<'e>(
    field: &str,
    entries: impl ExactSizeIterator<Item = &'e String>,
    found: &mut Findings,
) {
    found.count(field, entries.len(), limits::POLICY_ENTRIES_MAX);
    for entry in entries.take(limits::POLICY_ENTRIES_MAX) {
        let fits = (1..=limits::POLICY_ENTRY_BYTES_MAX).contains(&entry.len());
        if !fits || entry.trim() != entry || entry.chars().any(char::is_control) {
            let most = limits::POLICY_ENTRY_BYTES_MAX;
            let message = format!("an entry has 1 to {most} bytes, and nothing around it");
            found.add(field, CODE, message);
        }
    }
}

impl Bound {
    /// The lowest: less could be asked for by nobody.
    fn least(self) -> u64 {
        match self {
            Bound::CpuMillis => limits::CPU_MIN_MILLIS.into(),
            Bound::MemoryBytes => limits::MEMORY_MIN_BYTES,
            Bound::DiskBytes => limits::DISK_MIN_BYTES,
            Bound::Pids
            | Bound::TimeoutMs
            | Bound::Connections
            | Bound::PerMinute
            | Bound::NetworkBytes => 1,
        }
    }

    /// The highest that may be written: what a request may ask for at most.
    fn most(self) -> u64 {
        match self {
            Bound::TimeoutMs => limits::TIMEOUT_MAX_MS,
            Bound::Pids => limits::PIDS_MAX.into(),
            Bound::CpuMillis | Bound::PerMinute => u32::MAX.into(),
            Bound::Connections => limits::NETWORK_CONNECTIONS_MAX,
            Bound::MemoryBytes | Bound::DiskBytes | Bound::NetworkBytes => u64::MAX >> 16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::DependenciesClause;
    use super::*;
    use crate::id::VolumeId;

    fn fields(change: impl FnOnce(&mut Policy)) -> Vec<String> {
        let mut policy = Policy::new(Layer::Tenant);
        change(&mut policy);
        let found = policy.validate().err().unwrap_or_default();
        found.into_iter().map(|one| one.field).collect()
    }

    fn texts<T: FromIterator<String>>(all: &[&str]) -> T {
        all.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_wrong_with_a_policy_is_said_with_its_place() {
        assert_eq!(fields(|_| {}), [""; 0]);
        let network = |allow: &[&str]| {
            let allow = allow.iter().map(|one| one.parse().unwrap()).collect();
            fields(|p| {
                p.network = Some(NetworkClause {
                    allow: Some(allow),
                    ..NetworkClause::default()
                });
            })
        };
        assert_eq!(network(&["a.test:443", "*.b.test", "*:443"]), [""; 0]);
        assert_eq!(
            network(&["a.test", "1.2.3.4", "::1"]),
            ["network.allow[1]", "network.allow[2]"]
        );
        assert!("a.test:0".parse::<Entry>().is_err());
        let open = NetworkClause {
            mode: Some(NetworkMode::Unrestricted),
            allow: Some(Vec::new()),
            ..NetworkClause::default()
        };
        assert_eq!(fields(|p| p.network = Some(open)), ["network.allow"]);
        for wrong in ["tmp", "/tmp/", "/tmp//a", "/a/../b"] {
            let put = FilesClause {
                put: Some(texts(&[wrong])),
                ..FilesClause::default()
            };
            assert_eq!(fields(|p| p.files = Some(put)), ["files.put"], "{wrong}");
        }
        assert_eq!(fields(|p| p.layer = Layer::Principal), ["of"]);
        assert_eq!(fields(|p| p.of = Some("user:a".to_owned())), ["of"]);
        let of =
            |text: &str| fields(|p| (p.layer, p.of) = (Layer::Principal, Some(text.to_owned())));
        assert_eq!(
            (of("alice"), of("user:alice")),
            (vec!["of".to_owned()], Vec::new())
        );
        assert_eq!(fields(|p| p.priority = 1001), ["priority"]);
        assert_eq!(
            fields(|p| p.resources = [(Bound::Pids, 0)].into()),
            ["resources.pids"]
        );
        let many = (0..300).map(|n| n.to_string()).collect();
        assert_eq!(fields(|p| p.drivers = Some(many)), ["drivers"]);
        assert_eq!(
            fields(|p| p.profiles.allow = Some(texts(&["a*b"]))),
            ["profiles.allow"]
        );
        let empty = CommandsClause {
            forbid: texts(&[""]),
            ..CommandsClause::default()
        };
        assert_eq!(fields(|p| p.commands = Some(empty)), ["commands.forbid"]);
    }

    #[test]
    fn a_policy_of_a_volume_names_one_and_says_nothing_of_who_changes_policies() {
        assert_eq!(fields(|p| p.layer = Layer::Volume), ["of"]);
        let of = |text: &str| fields(|p| (p.layer, p.of) = (Layer::Volume, Some(text.to_owned())));
        assert_eq!(of("Customer-data_1"), [""; 0]);
        for wrong in ["", "a b", "a/b", "a.b", "user:a", &"x".repeat(129)] {
            assert_eq!(of(wrong), ["of"], "{wrong}");
        }
        assert_eq!(of(&VolumeId::from_parts(1, [7; 10]).to_string()), ["of"]);
        let change = [(Matter::PolicyChange, Answer::NeedsApproval)];
        for (layer, of) in [(Layer::Principal, "user:a"), (Layer::Volume, "data")] {
            let found = fields(|p| {
                (p.layer, p.of) = (layer, Some(of.to_owned()));
                p.approvals = change.into();
            });
            assert_eq!(found, ["approvals.policy_change"], "{of}");
        }
    }

    #[test]
    fn a_package_that_is_not_one_exact_version_is_said_with_its_place() {
        let packages = |pip: &str, npm: &str| {
            let clause = DependenciesClause {
                pip: Some(texts(&[pip])),
                npm: Some(texts(&[npm])),
                only_known_indexes: false,
            };
            fields(|p| p.dependencies = Some(clause))
        };
        assert_eq!(packages("requests==2.32.0", "@types/node==20.0.0"), [""; 0]);
        for (pip, npm) in [
            ("requests>=2", "lodash@4.17.21"),
            ("requests==2.*", "lodash==4"),
            ("requests===2", "lodash==latest"),
            ("requests ==2", "Lo dash==4.17.21"),
        ] {
            let both = ["dependencies.npm", "dependencies.pip"];
            assert_eq!(packages(pip, npm), both, "{pip} {npm}");
        }
    }

    #[test]
    fn a_name_of_a_policy_fits_into_a_path_and_a_layer() {
        for good in ["a", "team.data-1"] {
            assert!(is_policy_name(good), "{good}");
        }
        for bad in ["", "A", "a/b", "a@1", ".a", "-a", &"x".repeat(65)] {
            assert!(!is_policy_name(bad), "{bad}");
        }
    }
}
