//! What a job asks for, and what may be wrong with it.

use crate::id::NodeId;
use crate::limits;
use crate::network::NetworkRules;
use crate::place::{Placement, Wish};
use crate::policy::PermitUse;
use crate::profile::ProfileUse;
use crate::secret::{SecretUse, check_uses, check_ways_out};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The directories of a sandbox that can be written.
pub const WRITABLE: [&str; 4] = ["/home/user", "/tmp", "/var/tmp", "/dev/shm"];

/// The directory that a command starts in when nobody says, and that relative paths start from.
pub const HOME: &str = "/home/user";

/// Profiles that this version knows.
pub const PROFILES: [&str; 1] = ["default"];

/// The profile of a sandbox that lives on whose Python waits for the first step.
pub const CODE_INTERPRETER: &str = "code-interpreter";

/// One command, with everything that was asked for and every default filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// The recipe for its sandbox.
    pub profile: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Variables over and above the clean environment.
    pub env: BTreeMap<String, String>,
    /// The directory to start in; [`HOME`] when absent.
    pub cwd: Option<String>,
    /// A root file system on the node, by its name or by its path; the programs of the node itself when
    /// absent.
    pub root: Option<String>,
    /// Wall-clock time in milliseconds.
    pub timeout_ms: u64,
    /// Limits that somebody named.
    pub limits: AskedLimits,
    /// Files put into the sandbox before the start.
    pub files: Vec<InputFile>,
    /// Files kept after the end.
    pub outputs: Vec<String>,
    /// The command waits until a client is attached to its streams.
    pub attach: bool,
    /// How often it may be started.
    pub retry: Retry,
    /// How long it may wait for a node, in milliseconds.
    pub queue_timeout_ms: Option<u64>,
    /// The only node that may take it.
    pub node: Option<NodeId>,
    /// Where it is to run; anywhere in older rows.
    #[serde(default, skip_serializing_if = "Placement::is_empty")]
    pub placement: Placement,
    /// Secrets that it uses.
    #[serde(default)]
    pub secrets: Vec<SecretUse>,
    /// What looks like a credential is taken out of its output, too.
    #[serde(default)]
    pub scrub_patterns: bool,
    /// What it may reach; nothing in older rows.
    #[serde(default)]
    pub network: NetworkRules,
    /// What it keeps of the profile that it was asked for with, if that is one of somebody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_by: Option<Box<ProfileUse>>,
    /// What it keeps of the policies that it was decided by; nothing where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permit: Option<Box<PermitUse>>,
}

/// Limits that somebody named: each is enforced, or the job is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AskedLimits {
    /// Thousandths of a processor.
    pub cpu_millis: Option<u32>,
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Bytes of storage.
    pub disk_bytes: Option<u64>,
}

/// A file put into the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputFile {
    /// Where, absolute or from [`HOME`].
    pub path: String,
    /// SHA-256 of its bytes in lower-case hexadecimal digits.
    pub digest: String,
    /// How many bytes.
    pub size_bytes: u64,
    /// Permission bits.
    pub mode: u32,
}

/// How often a job may be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// 1 says that it is not safe to run it again when nobody knows whether it ran.
    pub max_attempts: u32,
}

/// Something that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Where, such as `limits.memory_bytes`.
    pub field: String,
    /// A stable word for it.
    pub code: &'static str,
    /// For a person.
    pub message: String,
}

impl JobSpec {
    /// What its node must have; `None` when any node will do.
    pub fn wish(&self) -> Option<Wish> {
        Wish::of(&self.placement, &self.limits, false)
    }

    /// Checks everything that can be said without knowing a machine.
    ///
    /// # Errors
    /// All that is wrong, not only the first.
    pub fn validate(&self) -> Result<(), Vec<Invalid>> {
        let mut found = Findings::default();
        check_profile(&self.profile, &mut found);
        check_command(self, &mut found);
        check_limits(&self.limits, &mut found);
        check_files(self, &mut found);
        if let Some(cwd) = &self.cwd {
            check_path("cwd", cwd, &mut found);
        }
        check_root(self.root.as_deref(), &mut found);
        self.placement.check(&mut found);
        check_uses(&self.secrets, &self.env, &mut found);
        check_ways_out(&self.secrets, &self.network, &mut found);
        found.range("timeout_ms", self.timeout_ms, 1, limits::TIMEOUT_MAX_MS);
        let attempts = u64::from(self.retry.max_attempts);
        found.range(
            "retry.max_attempts",
            attempts,
            1,
            u64::from(limits::ATTEMPTS_MAX),
        );
        if let Some(wait) = self.queue_timeout_ms {
            found.range("queue_timeout_ms", wait, 1, limits::TIMEOUT_MAX_MS);
        }
        found.verdict()
    }
}

/// What was found wrong so far.
#[derive(Debug, Default)]
pub(crate) struct Findings(pub(crate) Vec<Invalid>);

impl Findings {
    /// Nothing is wrong, or all of this.
    pub(crate) fn verdict(self) -> Result<(), Vec<Invalid>> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(self.0)
        }
    }

    pub(crate) fn add(
        &mut self,
        field: impl Into<String>,
        code: &'static str,
        message: impl Into<String>,
    ) {
        self.0.push(Invalid {
            field: field.into(),
            code,
            message: message.into(),
        });
    }

    pub(crate) fn range(&mut self, field: &str, value: u64, least: u64, most: u64) {
        if value == 0 {
            self.add(field, "limit_zero", "must not be 0");
        } else if value < least || value > most {
            self.add(
                field,
                "out_of_range",
                format!("must be between {least} and {most}"),
            );
        }
    }

    pub(crate) fn count(&mut self, field: &str, count: usize, most: usize) {
        if count > most {
            self.add(field, "too_many", format!("{count} are more than {most}"));
        }
    }
}

/// The recipe is one that this version knows.
pub(crate) fn check_profile(profile: &str, found: &mut Findings) {
    if !PROFILES.contains(&profile) {
        let message = "there is no such profile; this version knows `default`";
        found.add("profile", "unknown_profile", message);
    }
}

/// A root is one that an operator has given a name, or a directory of the node, which starts at the node's
/// own root.
pub(crate) fn check_root(root: Option<&str>, found: &mut Findings) {
    match root {
        Some(path) if path.starts_with('/') => check_path("root", path, found),
        Some(name) => {
            if let Err(error) = name.parse::<crate::root::RootName>() {
                found.add("root", "root_name", error.to_string());
            }
        }
        None => {}
    }
}

fn check_command(spec: &JobSpec, found: &mut Findings) {
    if spec.argv.first().is_none_or(String::is_empty) {
        found.add("argv", "argv_empty", "there is no program to run");
    }
    found.count("argv", spec.argv.len(), limits::ARGV_MAX);
    let pairs = spec.env.iter().flat_map(|(key, value)| [key, value]);
    let bytes: usize = spec.argv.iter().chain(pairs.clone()).map(String::len).sum();
    if bytes > limits::ARGV_BYTES_MAX {
        let message = format!("{bytes} bytes of arguments and environment are too many");
        found.add("argv", "too_long", message);
    }
    if spec
        .argv
        .iter()
        .chain(pairs)
        .any(|text| text.contains('\0'))
    {
        found.add(
            "argv",
            "nul_byte",
            "arguments and environment must not contain NUL",
        );
    }
    check_env_names(&spec.env, found);
}

/// The names of variables, and their number.
pub(crate) fn check_env_names(env: &BTreeMap<String, String>, found: &mut Findings) {
    found.count("env", env.len(), limits::ENV_MAX);
    for name in env.keys() {
        if name.is_empty() || name.contains('=') {
            found.add(
                format!("env.{name}"),
                "env_name",
                "not a name for a variable",
            );
        }
    }
}

/// The limits that were named, without knowing a machine.
pub(crate) fn check_limits(asked: &AskedLimits, found: &mut Findings) {
    let pairs = [
        (
            "limits.cpu_millis",
            asked.cpu_millis.map(u64::from),
            limits::CPU_MIN_MILLIS.into(),
        ),
        (
            "limits.memory_bytes",
            asked.memory_bytes,
            limits::MEMORY_MIN_BYTES,
        ),
        ("limits.pids", asked.pids.map(u64::from), 1),
        (
            "limits.disk_bytes",
            asked.disk_bytes,
            limits::DISK_MIN_BYTES,
        ),
    ];
    for (field, value, least) in pairs {
        let most = if field == "limits.pids" {
            limits::PIDS_MAX.into()
        } else {
            u64::MAX >> 16
        };
        if let Some(value) = value {
            found.range(field, value, least, most);
        }
    }
}

fn check_files(spec: &JobSpec, found: &mut Findings) {
    found.count("files", spec.files.len(), limits::FILES_MAX);
    found.count("outputs", spec.outputs.len(), limits::OUTPUTS_MAX);
    let mut seen = std::collections::BTreeSet::new();
    for (index, file) in spec.files.iter().enumerate() {
        let field = format!("files[{index}].path");
        check_path(&field, &file.path, found);
        let place = absolute(&file.path);
        let inside = |dir: &str| place.strip_prefix(dir).is_some_and(is_below);
        if !WRITABLE.into_iter().any(inside) {
            let message = format!("files can be put below {}", WRITABLE.join(", "));
            found.add(&field, "path_not_writable", message);
        }
        if !seen.insert(place) {
            found.add(&field, "duplicate_path", "two files have this path");
        }
        let digest = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if file.digest.len() != 64 || !file.digest.bytes().all(digest) {
            found.add(
                format!("files[{index}].digest"),
                "digest",
                "not a SHA-256 digest",
            );
        }
        if file.size_bytes > limits::FILE_BYTES_MAX {
            found.add(
                format!("files[{index}].size_bytes"),
                "too_long",
                "the file is too large",
            );
        }
        if file.mode > 0o777 {
            found.add(
                format!("files[{index}].mode"),
                "out_of_range",
                "only permission bits",
            );
        }
    }
    for (index, path) in spec.outputs.iter().enumerate() {
        check_path(&format!("outputs[{index}]"), path, found);
    }
}

/// What is left of a path after a directory's name says that it is something in that directory.
fn is_below(rest: &str) -> bool {
    rest.starts_with('/') && rest.len() > 1
}

/// Where a path of the sandbox leads, if it starts from [`HOME`] when it is relative.
pub fn absolute(path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{HOME}/{path}")
    }
}

/// A path that is taken apart by nobody but the kernel inside the sandbox is still refused when it
/// climbs: what looks like one place and means another is a mistake or an attack.
pub(crate) fn check_path(field: &str, path: &str, found: &mut Findings) {
    if path.is_empty() {
        found.add(field, "path_empty", "the path is empty");
    }
    if path.contains('\0') {
        found.add(field, "nul_byte", "the path contains NUL");
    }
    let long = path
        .split('/')
        .any(|part| part.len() > limits::NAME_BYTES_MAX);
    if long || path.len() > limits::PATH_BYTES_MAX {
        found.add(field, "too_long", "the path is too long");
    }
    if path.split('/').any(|part| part == ".." || part == ".") {
        found.add(
            field,
            "path_escapes",
            "the path must not contain `.` or `..`",
        );
    }
    if path.len() > 1 && (path.ends_with('/') || path.contains("//")) {
        found.add(field, "path_malformed", "the path has an empty part");
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn spec() -> JobSpec {
        JobSpec {
            profile: "default".to_owned(),
            argv: vec!["true".to_owned()],
            env: BTreeMap::new(),
            cwd: None,
            root: None,
            timeout_ms: 1000,
            limits: AskedLimits::default(),
            files: Vec::new(),
            outputs: Vec::new(),
            attach: false,
            retry: Retry { max_attempts: 1 },
            queue_timeout_ms: None,
            placement: crate::place::Placement::default(),
            node: None,
            secrets: Vec::new(),
            scrub_patterns: false,
            network: NetworkRules::default(),
            made_by: None,
            permit: None,
        }
    }

    fn file(path: &str) -> InputFile {
        InputFile {
            path: path.to_owned(),
            digest: "0".repeat(64),
            size_bytes: 1,
            mode: 0o644,
        }
    }

    fn codes(change: impl FnOnce(&mut JobSpec)) -> Vec<&'static str> {
        let mut spec = spec();
        change(&mut spec);
        spec.validate()
            .err()
            .unwrap_or_default()
            .into_iter()
            .map(|found| found.code)
            .collect()
    }

    #[test]
    fn a_plain_job_has_nothing_wrong() {
        assert_eq!(spec().validate(), Ok(()));
        assert!(codes(|s| s.files = vec![file("a.csv"), file("/tmp/b/c")]).is_empty());
    }

    #[test]
    fn a_file_may_not_leave_the_writable_places() {
        for path in ["../x", "/home/user/../../etc/passwd", "a/./b"] {
            assert_eq!(
                codes(|s| s.files = vec![file(path)])[0],
                "path_escapes",
                "{path}"
            );
        }
        for path in ["/etc/passwd", "/tmp", "/tmpx/y", "/home/user"] {
            assert_eq!(
                codes(|s| s.files = vec![file(path)]),
                ["path_not_writable"],
                "{path}"
            );
        }
        assert_eq!(
            codes(|s| s.files = vec![file("a"), file("/home/user/a")]),
            ["duplicate_path"]
        );
        assert_eq!(codes(|s| s.files = vec![file("a/")])[0], "path_malformed");
    }

    #[test]
    fn a_limit_of_zero_is_refused_by_name() {
        let zero = AskedLimits {
            cpu_millis: Some(0),
            memory_bytes: Some(0),
            pids: Some(0),
            disk_bytes: Some(0),
        };
        assert_eq!(codes(|s| s.limits = zero), ["limit_zero"; 4]);
        assert_eq!(codes(|s| s.timeout_ms = 0), ["limit_zero"]);
        assert_eq!(codes(|s| s.timeout_ms = u64::MAX), ["out_of_range"]);
        assert_eq!(codes(|s| s.retry.max_attempts = 11), ["out_of_range"]);
    }

    #[test]
    fn a_broken_command_is_refused() {
        assert_eq!(codes(|s| s.argv.clear()), ["argv_empty"]);
        assert_eq!(codes(|s| s.argv.push("a\0b".to_owned())), ["nul_byte"]);
        assert_eq!(codes(|s| s.argv.push("x".repeat(200_000))), ["too_long"]);
        assert_eq!(codes(|s| s.argv = vec!["x".to_owned(); 2000]), ["too_many"]);
        assert_eq!(
            codes(|s| drop(s.env.insert("A=B".to_owned(), String::new()))),
            ["env_name"]
        );
        assert_eq!(
            codes(|s| s.profile = "other".to_owned()),
            ["unknown_profile"]
        );
        assert_eq!(codes(|s| s.root = Some("./rel".to_owned())), ["root_name"]);
        assert!(codes(|s| s.root = Some("ubuntu:22.04".to_owned())).is_empty());
    }
}
