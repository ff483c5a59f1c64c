//! What one version of a profile says, and what may be wrong with it.

use crate::id::{BuildId, ProfileId};
use crate::limits;
use crate::network::{Entry, NetworkRules, Order};
use crate::place::Placement;
use crate::root::RootName;
use crate::sandbox_spec::{StartCommand, check_env};
use crate::secret::is_secret_name;
use crate::snapshot::SnapshotName;
use crate::spec::{AskedLimits, Findings, Invalid, check_limits, check_path};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The user that commands run as where nobody says.
pub(super) const USER: &str = "user";
/// The sandbox's own root.
const ROOT_USER: &str = "root";

/// What a profile says for its sandboxes and jobs. What it does not say is as it is without a profile, but for
/// secrets as variables: those are let in only by a profile that says so.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ProfileSpec {
    /// What its sandboxes begin with; the programs of the node when absent.
    pub base: Option<ProfileBase>,
    /// Limits where the request names none.
    pub limits: AskedLimits,
    /// How long a sandbox lives, or a job runs, where the request does not say, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// The longest, in milliseconds: what is longer is cut.
    pub timeout_max_ms: Option<u64>,
    /// Variables; those of the request go over them.
    pub env: BTreeMap<String, String>,
    /// Where commands start that do not say.
    pub workdir: Option<String>,
    /// As whom, in a sandbox that lives on.
    pub user: Option<String>,
    /// Commands and files may be asked for as the sandbox's own root.
    pub allow_root: bool,
    /// Started with each sandbox that lives on.
    pub start: Option<StartCommand>,
    /// What its sandboxes may reach where the request does not say, and the most that it may ask for.
    pub network: Option<NetworkRules>,
    /// Where its sandboxes and jobs are to be.
    #[serde(skip_serializing_if = "Placement::is_empty")]
    pub placement: Placement,
    /// The secrets that may be used, and how. All when absent, but none as a variable.
    pub secrets: Option<Vec<SecretRule>>,
}

/// What sandboxes of a profile begin with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProfileBase {
    /// A root file system that an operator has given, by its name, or a directory of the node.
    Root(String),
    /// A snapshot, by its id or its name.
    Snapshot(String),
    /// A profile that builds have made, by its id or its name, perhaps with a tag.
    Template(String),
}

/// Secrets that a profile lets in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRule {
    /// Which; `*` for all.
    pub name: String,
    /// In which ways.
    pub ways: Vec<SecretWay>,
    /// As a header: to which hosts; to all when there are none.
    #[serde(default)]
    pub hosts: Vec<Entry>,
}

/// How a secret may get into a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretWay {
    /// As a file.
    File,
    /// As a variable.
    Env,
    /// As a header of what goes out.
    Header,
}

impl SecretWay {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            SecretWay::File => "file",
            SecretWay::Env => "env",
            SecretWay::Header => "header",
        }
    }
}

/// What a sandbox or a job keeps of the profile that it was asked for with. A later version changes nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileUse {
    /// Which profile.
    pub id: ProfileId,
    /// What it was called then.
    pub name: String,
    /// The version that somebody wrote; 0 for one that builds have made.
    pub version: u64,
    /// The build, of one that builds have made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildId>,
    /// The longest time to live, also later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_max_ms: Option<u64>,
    /// What was asked for, where that was longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_asked_ms: Option<u64>,
    /// The most that it may reach, also later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkRules>,
    /// The secrets that it may ever use. Rows of older builds have none, and get no others than they have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Vec<SecretRule>>,
}

impl ProfileUse {
    /// A time that is within the longest one; what was asked for is remembered where it is cut.
    pub fn cut(&mut self, asked_ms: u64) -> u64 {
        let cut = self.within(asked_ms);
        self.timeout_asked_ms = (cut < asked_ms).then_some(asked_ms);
        cut
    }

    /// The same, without a word.
    pub fn within(&self, asked_ms: u64) -> u64 {
        asked_ms.min(self.timeout_max_ms.unwrap_or(u64::MAX))
    }
}

impl ProfileSpec {
    /// Checks everything that can be said without knowing what there is.
    ///
    /// # Errors
    /// All that is wrong, not only the first.
    pub fn validate(&self) -> Result<(), Vec<Invalid>> {
        let mut found = Findings::default();
        check_base(self.base.as_ref(), &mut found);
        check_limits(&self.limits, &mut found);
        check_times(self, &mut found);
        check_env(&self.env, &mut found);
        self.placement.check(&mut found);
        if let Some(workdir) = &self.workdir {
            check_path("workdir", workdir, &mut found);
            if !workdir.starts_with('/') {
                found.add("workdir", "path_malformed", "the path begins with `/`");
            }
        }
        check_user(self, &mut found);
        for (field, text) in self
            .start
            .iter()
            .flat_map(|start| [("start", &start.command), ("ready", &start.ready)])
        {
            if let Some(text) = text {
                super::check_text(field, text, limits::START_BYTES_MAX, &mut found);
            }
        }
        if self
            .network
            .as_ref()
            .is_some_and(|rules| rules.order == Order::AllowFirst)
        {
            let message = "the rules of a profile are of the order `deny_first`: others could not be narrowed";
            found.add("network.order", "network_rules", message);
        }
        if self
            .network
            .as_ref()
            .is_some_and(|rules| !rules.profile_requests.is_empty())
        {
            let message = "a profile has `rules`; these hold beside those of whoever asks for it";
            found.add("network.profile_rules", "network_rules", message);
        }
        check_secret_rules(self.secrets.as_deref(), &mut found);
        found.verdict()
    }
}

fn check_base(base: Option<&ProfileBase>, found: &mut Findings) {
    match base {
        Some(ProfileBase::Root(path)) if path.starts_with('/') => {
            check_path("base.root", path, found);
        }
        Some(ProfileBase::Root(name)) => {
            if let Err(error) = name.parse::<RootName>() {
                found.add("base.root", "root_name", error.to_string());
            }
        }
        Some(ProfileBase::Snapshot(name)) => check_name("base.snapshot", name, found),
        Some(ProfileBase::Template(name)) => check_name("base.template", name, found),
        None => {}
    }
}

fn check_name(field: &str, name: &str, found: &mut Findings) {
    // Ids have capital letters.
    if let Err(error) = name.to_lowercase().parse::<SnapshotName>() {
        found.add(field, "invalid_argument", error.to_string());
    }
}

fn check_times(spec: &ProfileSpec, found: &mut Findings) {
    let most = limits::SANDBOX_TTL_MAX_MS;
    for (field, value) in [
        ("timeout_ms", spec.timeout_ms),
        ("timeout_max_ms", spec.timeout_max_ms),
    ] {
        if let Some(value) = value {
            found.range(field, value, 1, most);
        }
    }
    if let (Some(default), Some(most)) = (spec.timeout_ms, spec.timeout_max_ms)
        && default > most
    {
        let message = "the default must not be longer than `timeout_max_ms`";
        found.add("timeout_ms", "out_of_range", message);
    }
}

fn check_user(spec: &ProfileSpec, found: &mut Findings) {
    let Some(user) = &spec.user else { return };
    if user.contains(':') || !super::is_owner(user) {
        found.add("user", "invalid_argument", "not a name for a user");
    }
    if user == ROOT_USER && !spec.allow_root {
        let message = "`root` needs `allow_root`";
        found.add("user", "invalid_argument", message);
    }
}

/// Rules about secrets, in a profile or a policy.
pub(crate) fn check_secret_rules(rules: Option<&[SecretRule]>, found: &mut Findings) {
    let rules = rules.unwrap_or_default();
    found.count("secrets", rules.len(), limits::PROFILE_SECRETS_MAX);
    for (index, rule) in rules.iter().enumerate().take(limits::PROFILE_SECRETS_MAX) {
        let field = format!("secrets[{index}]");
        if rule.name != "*" && !is_secret_name(&rule.name) {
            let message = "the name of a secret, or `*` for all";
            found.add(format!("{field}.name"), "secret_name", message);
        }
        if rule.ways.is_empty() {
            let message = "a secret is let in as `file`, `env` or `header`";
            found.add(format!("{field}.as"), "invalid_argument", message);
        }
        let hosts = format!("{field}.hosts");
        found.count(&hosts, rule.hosts.len(), limits::PROFILE_SECRET_HOSTS_MAX);
        if !rule.hosts.is_empty() && !rule.ways.contains(&SecretWay::Header) {
            let message = "hosts are for secrets that are let in as `header`";
            found.add(hosts, "invalid_argument", message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(change: impl FnOnce(&mut ProfileSpec)) -> Vec<(String, &'static str)> {
        let mut spec = ProfileSpec::default();
        change(&mut spec);
        let found = spec.validate().err().unwrap_or_default();
        found.into_iter().map(|one| (one.field, one.code)).collect()
    }

    fn rule(name: &str, ways: &[SecretWay], hosts: &[&str]) -> SecretRule {
        SecretRule {
            name: name.to_owned(),
            ways: ways.to_vec(),
            hosts: hosts.iter().map(|host| host.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn what_is_wrong_with_a_profile_is_said_with_its_place() {
        use SecretWay as W;
        assert_eq!(codes(|_| {}), []);
        assert_eq!(
            codes(|s| {
                s.base = Some(ProfileBase::Template("team/env:v1".to_owned()));
                s.user = Some("root".to_owned());
                s.allow_root = true;
                s.workdir = Some("/srv".to_owned());
                s.secrets = Some(vec![
                    rule("*", &[W::Env], &[]),
                    rule("A", &[W::Header], &["*.a.test"]),
                ]);
            }),
            []
        );
        let base = |base| codes(|s| s.base = Some(base));
        let bad = |field: &str, code| vec![(field.to_owned(), code)];
        assert_eq!(
            base(ProfileBase::Root("../x".to_owned())),
            bad("base.root", "root_name")
        );
        assert_eq!(
            base(ProfileBase::Root("/a/../b".to_owned())),
            bad("base.root", "path_escapes")
        );
        assert_eq!(
            base(ProfileBase::Snapshot("a b".to_owned())),
            bad("base.snapshot", "invalid_argument")
        );
        assert_eq!(
            codes(|s| s.timeout_ms = Some(0)),
            bad("timeout_ms", "limit_zero")
        );
        let longer = codes(|s| (s.timeout_ms, s.timeout_max_ms) = (Some(2), Some(1)));
        assert_eq!(longer, bad("timeout_ms", "out_of_range"));
        assert_eq!(
            codes(|s| s.workdir = Some("a".to_owned())),
            bad("workdir", "path_malformed")
        );
        assert_eq!(
            codes(|s| s.user = Some("root".to_owned())),
            bad("user", "invalid_argument")
        );
        assert_eq!(
            codes(|s| s.user = Some("a:b".to_owned())),
            bad("user", "invalid_argument")
        );
        let secret = |one| codes(|s| s.secrets = Some(vec![one]));
        assert_eq!(
            secret(rule("../a", &[W::File], &[])),
            bad("secrets[0].name", "secret_name")
        );
        assert_eq!(
            secret(rule("a", &[], &[])),
            bad("secrets[0].as", "invalid_argument")
        );
        let hosts = rule("a", &[W::File], &["a.test"]);
        assert_eq!(secret(hosts), bad("secrets[0].hosts", "invalid_argument"));
        let first = NetworkRules {
            order: Order::AllowFirst,
            ..NetworkRules::all_or_nothing(true)
        };
        assert_eq!(
            codes(|s| s.network = Some(first)),
            bad("network.order", "network_rules")
        );
    }
}
