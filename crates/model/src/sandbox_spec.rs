//! What a sandbox that lives on is asked to be, and what may be wrong with it.

use crate::id::{NodeId, SnapshotId};
use crate::limits;
use crate::network::NetworkRules;
use crate::place::{Placement, Wish};
use crate::policy::PermitUse;
use crate::profile::ProfileUse;
use crate::secret::{SecretUse, check_uses, check_ways_out};
use crate::spec::{
    AskedLimits, CODE_INTERPRETER, Findings, Invalid, check_env_names, check_limits, check_profile,
    check_root,
};
use crate::volume::{VOLUME_PROFILE, VolumeMount, check_mounts};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// A sandbox that lives on, with everything that was asked for and every default filled in. What can be
/// changed or searched for is beside it on the row: metadata, and the time to live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own, and has its own name in the API"
)]
pub struct SandboxSpec {
    /// The recipe.
    pub profile: String,
    /// It is one of our own, which serves the content of a volume: for no policy, and for nobody to see. Nothing that
    /// somebody asks for has this, whatever its profile is called.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub serves_volume: bool,
    /// For people; several may have the same.
    pub name: Option<String>,
    /// Variables of every command in it, over and above the clean environment.
    pub env: BTreeMap<String, String>,
    /// A root file system on the node, by its name or by its path; the programs of the node itself when
    /// absent.
    pub root: Option<String>,
    /// Which one had that name when the sandbox was asked for: layers fit on no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_identity: Option<String>,
    /// Limits that somebody named, for everything in it together.
    pub limits: AskedLimits,
    /// What it may reach, as it was asked for at first. Older rows say only whether there is a network.
    #[serde(default, alias = "allow_internet")]
    pub network: NetworkRules,
    /// Commands and files may be asked for as its own root, who is nobody outside.
    #[serde(default)]
    pub allow_root: bool,
    /// What happens when its time is over.
    pub on_expiry: OnExpiry,
    /// Whoever wants to reach it while it is paused brings it back.
    pub auto_resume: bool,
    /// How long it may wait for a node, in milliseconds.
    pub queue_timeout_ms: u64,
    /// The only node that may take it.
    pub node: Option<NodeId>,
    /// Where it is to be; anywhere in older rows.
    #[serde(default, skip_serializing_if = "Placement::is_empty")]
    pub placement: Placement,
    /// Secrets that it uses.
    #[serde(default)]
    pub secrets: Vec<SecretUse>,
    /// What looks like a credential is taken out of what is told of its commands, terminals and contexts, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub scrub_patterns: bool,
    /// What it begins with: snapshots that stand on each other, the oldest first. The last one is the one
    /// that was asked for, and the others are what that one stands on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<SnapshotId>,
    /// Volumes in its files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeMount>,
    /// What holds where nobody says anything else, as the recipe has it that it was made by.
    #[serde(default)]
    pub defaults: Defaults,
    /// What it keeps of the profile that it was asked for with, if that is one of somebody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_by: Option<Box<ProfileUse>>,
    /// What it keeps of the policies that it was decided by; nothing where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permit: Option<Box<PermitUse>>,
}

/// What holds in a sandbox for commands that do not say, and what is started with it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Defaults {
    /// As whom; `user` when absent.
    pub user: Option<String>,
    /// Where; the user's home when absent.
    pub workdir: Option<String>,
    /// What is started with the sandbox, before anybody gets it.
    pub start: Option<StartCommand>,
}

/// What is started with a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartCommand {
    /// What a shell reads. It may run for as long as the sandbox lives; `None` where there is only something to
    /// be waited for.
    pub command: Option<String>,
    /// Succeeds when it is ready; it is ready at once when absent.
    pub ready: Option<String>,
}

/// How long a ready command waits that does nothing else (`sleep 20`), as E2B's SDKs write one for the `CMD` of a
/// Dockerfile and for `wait_for_timeout`. It knows nothing of what was started; `None` for any that might.
pub fn only_waits(ready: &str) -> Option<Duration> {
    let seconds = ready.trim().strip_prefix("sleep ")?.trim();
    // What `sleep` reads beyond this, such as `1h` and `inf`, is waited for as any other command.
    let is_plain = seconds.len() <= 9 && seconds.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let seconds: f64 = is_plain.then(|| seconds.parse().ok())??;
    Duration::try_from_secs_f64(seconds).ok()
}

/// What happens to a sandbox when its time to live is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnExpiry {
    /// It is taken away.
    #[default]
    Kill,
    /// It is paused.
    Pause,
    /// It is paused, and what runs in it ends: only its files are kept.
    PauseWithoutMemory,
}

impl OnExpiry {
    /// Whether it is paused, and then whether what runs in it is kept.
    pub fn pause(self) -> Option<bool> {
        match self {
            OnExpiry::Kill => None,
            OnExpiry::Pause => Some(true),
            OnExpiry::PauseWithoutMemory => Some(false),
        }
    }
}

/// The secret that opens the door of a sandbox's guest. Shown by no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken(String);

impl AccessToken {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> AccessToken {
        AccessToken(text.into())
    }

    /// The secret.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken(..)")
    }
}

/// A time to live that is within its bound: one that is too long is cut.
pub fn cut_ttl(ttl_ms: u64) -> u64 {
    ttl_ms.min(limits::SANDBOX_TTL_MAX_MS)
}

impl SandboxSpec {
    /// What its node must have; `None` when any node will do.
    pub fn wish(&self) -> Option<Wish> {
        Wish::of(&self.placement, &self.limits, self.allow_root)
    }

    /// The snapshot that it begins with.
    pub fn snapshot(&self) -> Option<&SnapshotId> {
        self.layers.last()
    }

    /// Checks everything that can be said without knowing a machine.
    ///
    /// # Errors
    /// All that is wrong, not only the first.
    pub fn validate(&self, metadata: &BTreeMap<String, String>) -> Result<(), Vec<Invalid>> {
        let mut found = Findings::default();
        let is_ours = self.serves_volume && self.profile == VOLUME_PROFILE;
        if self.profile != CODE_INTERPRETER && !is_ours {
            check_profile(&self.profile, &mut found);
        }
        check_env(&self.env, &mut found);
        check_limits(&self.limits, &mut found);
        check_root(self.root.as_deref(), &mut found);
        check_uses(&self.secrets, &self.env, &mut found);
        check_mounts(&self.volumes, &mut found);
        if !self.volumes.is_empty() && !self.allow_root {
            let message =
                "only a sandbox that allows root has files of its own to put volumes into";
            found.add("volumes", "invalid_argument", message);
        }
        check_ways_out(&self.secrets, &self.network, &mut found);
        check_name(self.name.as_deref(), &mut found);
        check_metadata(metadata, &mut found);
        let (wait, most) = (self.queue_timeout_ms, limits::TIMEOUT_MAX_MS);
        found.range("queue_timeout_ms", wait, 1, most);
        self.placement.check(&mut found);
        found.verdict()
    }
}

pub(crate) fn check_env(env: &BTreeMap<String, String>, found: &mut Findings) {
    check_env_names(env, found);
    let texts = || env.iter().flat_map(|(name, value)| [name, value]);
    let bytes: usize = texts().map(String::len).sum();
    if bytes > limits::ARGV_BYTES_MAX {
        let message = format!("{bytes} bytes of environment are too many");
        found.add("env", "too_long", message);
    }
    if texts().any(|text| text.contains('\0')) {
        found.add("env", "nul_byte", "the environment must not contain NUL");
    }
}

fn check_name(name: Option<&str>, found: &mut Findings) {
    let Some(name) = name else { return };
    let most = limits::SANDBOX_NAME_BYTES_MAX;
    if name.is_empty() || name.len() > most || name.chars().any(char::is_control) {
        let message = format!("a name has 1 to {most} bytes and no control characters");
        found.add("name", "sandbox_name", message);
    }
}

fn check_metadata(metadata: &BTreeMap<String, String>, found: &mut Findings) {
    found.count("metadata", metadata.len(), limits::METADATA_MAX);
    for key in metadata.keys().filter(|key| !is_metadata_key(key)) {
        let message = "a key is 1 to 64 of letters, digits and `_-./: `, and begins with a letter, \
                       a digit or `_`";
        found.add(format!("metadata.{key}"), "metadata_key", message);
    }
    let texts = metadata.iter().flat_map(|(key, value)| [key, value]);
    let bytes: usize = texts.map(String::len).sum();
    if bytes > limits::METADATA_BYTES_MAX {
        let message = format!("{bytes} bytes of metadata are too many");
        found.add("metadata", "too_long", message);
    }
    if metadata.values().any(|value| value.contains('\0')) {
        found.add("metadata", "nul_byte", "metadata must not contain NUL");
    }
}

/// Whether metadata can have this key. A list is searched for `"key":"value"` in the text of the map, so a
/// key must not begin with a sign that stands between two texts of a map.
pub fn is_metadata_key(key: &str) -> bool {
    let first = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    let other = |b: u8| b.is_ascii_alphanumeric() || b"_-./: ".contains(&b);
    key.len() <= limits::METADATA_KEY_BYTES_MAX
        && key.as_bytes().first().is_some_and(first)
        && key.bytes().all(other)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn spec() -> SandboxSpec {
        SandboxSpec {
            profile: "default".to_owned(),
            serves_volume: false,
            name: None,
            env: BTreeMap::new(),
            root: None,
            root_identity: None,
            limits: AskedLimits::default(),
            network: NetworkRules::default(),
            allow_root: false,
            on_expiry: OnExpiry::Kill,
            auto_resume: false,
            queue_timeout_ms: 1000,
            placement: crate::place::Placement::default(),
            node: None,
            secrets: Vec::new(),
            scrub_patterns: false,
            layers: Vec::new(),
            volumes: Vec::new(),
            defaults: Defaults::default(),
            made_by: None,
            permit: None,
        }
    }

    fn codes(
        change: impl FnOnce(&mut SandboxSpec, &mut BTreeMap<String, String>),
    ) -> Vec<&'static str> {
        let (mut spec, mut metadata) = (spec(), BTreeMap::new());
        change(&mut spec, &mut metadata);
        let found = spec.validate(&metadata).err().unwrap_or_default();
        found.into_iter().map(|found| found.code).collect()
    }

    fn entry(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn a_plain_sandbox_has_nothing_wrong() {
        assert!(codes(|_, _| {}).is_empty());
        assert!(
            codes(|_, m| m.extend([entry("user id", "\"ö\","), entry("a.b/c", "")])).is_empty()
        );
    }

    #[test]
    fn what_is_too_much_or_cannot_be_is_refused_by_name() {
        let long = "x".repeat(limits::METADATA_BYTES_MAX);
        assert_eq!(
            codes(|s, _| s.profile = "p".to_owned()),
            ["unknown_profile"]
        );
        assert!(codes(|s, _| s.profile = CODE_INTERPRETER.to_owned()).is_empty());
        assert_eq!(codes(|s, _| s.queue_timeout_ms = 0), ["limit_zero"]);
        assert_eq!(codes(|s, _| s.name = Some(String::new())), ["sandbox_name"]);
        assert_eq!(codes(|s, _| s.env.extend([entry("A=B", "")])), ["env_name"]);
        assert_eq!(codes(|s, _| s.env.extend([entry("A", "\0")])), ["nul_byte"]);
        assert_eq!(codes(|_, m| m.extend([entry(",k", "v")])), ["metadata_key"]);
        assert_eq!(codes(|_, m| m.extend([entry("", "v")])), ["metadata_key"]);
        assert_eq!(codes(|_, m| m.extend([entry("k", &long)])), ["too_long"]);
        assert_eq!(codes(|_, m| m.extend([entry("k", "\0")])), ["nul_byte"]);
        let many = (0..=limits::METADATA_MAX).map(|n| entry(&n.to_string(), ""));
        assert_eq!(codes(|_, m| m.extend(many)), ["too_many"]);
    }

    #[test]
    fn only_a_plain_sleep_is_a_ready_command_that_knows_nothing() {
        let seconds = |ready: &str| only_waits(ready).map(|time| time.as_secs_f64());
        assert_eq!(seconds("sleep 20"), Some(20.0));
        assert_eq!(seconds(" sleep  0.3\n"), Some(0.3));
        for other in [
            "sleep",
            "sleep ",
            "sleep -1",
            "sleep 1h",
            "sleep inf",
            "sleep 1e3",
            "sleep 1 2",
            "sleep .",
            "sleep 1; true",
            "sleep 1 && curl localhost",
            "sleepy 1",
            "true",
            "sleep 99999999999999999999",
        ] {
            assert_eq!(seconds(other), None, "{other}");
        }
    }

    #[test]
    fn a_secret_is_not_shown_and_a_long_life_is_cut() {
        let token = AccessToken::new("secret");
        assert_eq!(format!("{token:?}"), "AccessToken(..)");
        assert_eq!(cut_ttl(u64::MAX), limits::SANDBOX_TTL_MAX_MS);
        assert_eq!(cut_ttl(1), 1);
    }
}
