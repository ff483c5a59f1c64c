//! Volumes: named directories that outlive sandboxes, and how a sandbox has one in its files.
//!
//! ```text
//! created ─▶ deleting ─▶ deleted        deleting waits until no sandbox has it and its node has nothing of it
//! ```

use crate::id::VolumeId;
use crate::limits;
use crate::spec::Findings;
use serde::{Deserialize, Serialize};

/// The profile of the sandbox that serves the content of a volume; nobody else may ask for it.
pub const VOLUME_PROFILE: &str = "volume";

/// Where that sandbox has it.
pub const VOLUME_DIR: &str = "/volume";

/// Where a volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeState {
    /// Sandboxes can have it.
    Created,
    /// No sandbox may begin with it any more; its bytes go when none has it.
    Deleting,
    /// Nothing of it is left but this record.
    Deleted,
}

/// What happens to a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeEvent {
    /// Somebody wants it gone.
    Delete,
    /// Its node has nothing of it.
    Deleted,
}

impl VolumeState {
    /// All of them.
    pub const ALL: [VolumeState; 3] = [
        VolumeState::Created,
        VolumeState::Deleting,
        VolumeState::Deleted,
    ];

    /// The name in records.
    pub fn name(self) -> &'static str {
        match self {
            VolumeState::Created => "created",
            VolumeState::Deleting => "deleting",
            VolumeState::Deleted => "deleted",
        }
    }

    /// The state that follows `event`; `None` where nothing does. Pure.
    pub fn step(self, event: VolumeEvent) -> Option<VolumeState> {
        match (self, event) {
            (VolumeState::Created, VolumeEvent::Delete) => Some(VolumeState::Deleting),
            (VolumeState::Deleting, VolumeEvent::Deleted) => Some(VolumeState::Deleted),
            // A node that has nothing of a volume yet has not lost it: it makes it when it is needed.
            (VolumeState::Created, VolumeEvent::Deleted)
            | (VolumeState::Deleting, VolumeEvent::Delete)
            | (VolumeState::Deleted, VolumeEvent::Delete | VolumeEvent::Deleted) => None,
        }
    }
}

/// A volume in the files of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMount {
    /// Which.
    pub name: String,
    /// Which, whatever is called so later; fixed when the sandbox was made.
    #[serde(default)]
    pub id: Option<VolumeId>,
    /// Where: absolute, without `.` and `..`.
    pub path: String,
    /// It is only read there.
    #[serde(default)]
    pub read_only: bool,
    /// What it holds at most; fixed with the id.
    #[serde(default)]
    pub size_bytes: u64,
    /// No sandbox had it when this one was asked for, so that its node may have nothing of it yet.
    #[serde(default)]
    pub is_new: bool,
}

/// Whether a volume may have this name: E2B's rule, with a bound; and it is no id, so that what names a
/// volume names one.
pub fn is_volume_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
    (1..=limits::VOLUME_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(plain)
        && name.parse::<VolumeId>().is_err()
}

/// What [`is_volume_name`] asks for.
pub const VOLUME_NAME_RULE: &str =
    "a name is 1 to 128 of letters, digits, `_` and `-`, and no id of a volume";

/// What the system inside needs at its place: the kernel's files, devices, and what the guest and the
/// node put there.
const TAKEN: [&str; 5] = ["/proc", "/dev", "/sys", "/run", "/etc"];

/// Where volumes may be: no path that leads anywhere else than it says, over nothing that the system inside
/// needs, and none within another.
pub(crate) fn check_mounts(mounts: &[VolumeMount], found: &mut Findings) {
    found.count("volumes", mounts.len(), limits::VOLUME_MOUNTS_MAX);
    for (index, mount) in mounts.iter().enumerate() {
        let field = format!("volumes[{index}]");
        if !is_volume_name(&mount.name) {
            found.add(format!("{field}.name"), "volume_name", VOLUME_NAME_RULE);
        }
        if let Some(why) = path_fault(&mount.path) {
            found.add(format!("{field}.path"), "volume_path", why);
        }
        let mut before = mounts.iter().take(index);
        let overlaps = |other: &VolumeMount| {
            is_within(&mount.path, &other.path) || is_within(&other.path, &mount.path)
        };
        if before.any(overlaps) {
            let message = "another volume is there, above it or below it";
            found.add(format!("{field}.path"), "duplicate_path", message);
        }
    }
}

fn path_fault(path: &str) -> Option<&'static str> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    if path.len() > limits::VOLUME_PATH_BYTES_MAX || path.chars().any(char::is_control) {
        return Some("the path is too long, or has control characters");
    }
    match path.strip_prefix('/') {
        Some(below) if below.split('/').all(plain) => {}
        _ => {
            return Some(
                "the path must be absolute, below `/`, without `.`, `..` and double slashes",
            );
        }
    }
    let top = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/var"];
    if top.contains(&path) || TAKEN.iter().any(|taken| is_within(path, taken)) {
        return Some("the system inside needs what is there");
    }
    None
}

/// Whether a path is another or below it.
fn is_within(path: &str, other: &str) -> bool {
    path.strip_prefix(other)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    fn mount(name: &str, path: &str) -> VolumeMount {
        VolumeMount {
            name: name.to_owned(),
            id: None,
            path: path.to_owned(),
            read_only: false,
            size_bytes: 0,
            is_new: false,
        }
    }

    fn codes(mounts: &[VolumeMount]) -> Vec<&'static str> {
        let mut found = Findings::default();
        check_mounts(mounts, &mut found);
        found.0.into_iter().map(|one| one.code).collect()
    }

    #[test]
    fn the_whole_table_of_a_volume_is_as_reviewed() {
        let mut table = String::new();
        for state in VolumeState::ALL {
            for event in [VolumeEvent::Delete, VolumeEvent::Deleted] {
                let next = state.step(event).map(VolumeState::name);
                writeln!(table, "{} + {event:?} => {next:?}", state.name()).unwrap();
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn a_volume_is_called_as_e2b_allows() {
        for name in ["a", "my-volume_1", "-", "A0", &"x".repeat(128)] {
            assert!(is_volume_name(name), "{name}");
        }
        let id = VolumeId::from_parts(1, [0; 10]).to_string();
        for name in ["", "a b", "a/b", "a.b", "ä", "a\n", &id, &"x".repeat(129)] {
            assert!(!is_volume_name(name), "{name}");
        }
    }

    #[test]
    fn a_volume_is_over_nothing_that_the_system_inside_needs_and_leads_nowhere_else() {
        for path in [
            "/data",
            "/mnt/data",
            "/home/user",
            "/home/user/a b",
            "/tmp/x",
            "/var/lib/x",
            "/usr/local/x",
            "/developer",
            "/procs/x",
        ] {
            assert_eq!(codes(&[mount("v", path)]), [""; 0], "{path}");
        }
        let long = format!("/{}", "x".repeat(limits::VOLUME_PATH_BYTES_MAX));
        for path in [
            "",
            "/",
            "data",
            "./data",
            "/data/",
            "//data",
            "/data/../x",
            "/..",
            "/data/./x",
            "/proc",
            "/proc/self",
            "/dev",
            "/dev/shm",
            "/sys",
            "/run/x",
            "/etc",
            "/etc/x",
            "/usr",
            "/var",
            "/lib64",
            "/da\nta",
            "/da\0ta",
            &long,
        ] {
            assert_eq!(codes(&[mount("v", path)]), ["volume_path"], "{path:?}");
        }
    }

    #[test]
    fn volumes_of_one_sandbox_do_not_cover_each_other() {
        assert_eq!(codes(&[mount("a", "/a"), mount("a", "/ab")]), [""; 0]);
        for (one, other) in [("/a", "/a"), ("/a", "/a/b"), ("/a/b", "/a")] {
            let found = codes(&[mount("a", one), mount("b", other)]);
            assert_eq!(found, ["duplicate_path"], "{one} {other}");
        }
        let many: Vec<_> = (0..=limits::VOLUME_MOUNTS_MAX)
            .map(|n| mount("v", &format!("/v{n}")))
            .collect();
        assert_eq!(codes(&many), ["too_many"]);
        assert_eq!(codes(&[mount("a b", "/a")]), ["volume_name"]);
    }
}
