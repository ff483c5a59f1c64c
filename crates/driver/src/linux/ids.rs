//! Which ids of the host stand behind those of a sandbox.

use crate::host::{Host, IDS_NEEDED, Ids, find_program};
use crate::linux::tree::USER;
use jail::plan::IdMap;
use model::id::SandboxId;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Stdio;

/// Where root takes ids for sandboxes from: above every real user and every range that distributions
/// hand out, below the ids that the kernel keeps for itself.
const FIRST: u32 = 0x1000_0000;
/// How many ranges of [`IDS_NEEDED`] ids fit above it.
const RANGES: u32 = 0xe000;

/// The map of one sandbox, as its launcher sees it; users and groups are mapped alike.
pub(super) fn sandbox_map(ids: &Ids, id: &SandboxId) -> Vec<IdMap> {
    match ids {
        // A range of its own, so that two sandboxes share no per-user limit of the kernel. The range
        // follows from the name's random part; should two ever meet, they still share no namespace.
        Ids::Root => {
            let text = id.as_str();
            let digits = text.get(text.len().saturating_sub(6)..).unwrap_or_default();
            let slot = u32::from_str_radix(digits, 16).unwrap_or(0) % RANGES;
            vec![IdMap {
                inside: 0,
                outside: FIRST + slot * IDS_NEEDED,
                count: IDS_NEEDED,
            }]
        }
        // 0 of the launcher's own namespace is the user; no sandbox gets that.
        Ids::Subordinate { .. } => vec![IdMap {
            inside: 0,
            outside: 1,
            count: IDS_NEEDED,
        }],
        Ids::Single => vec![IdMap {
            inside: USER,
            outside: 0,
            count: 1,
        }],
    }
}

/// The guest's user inside: root of the sandbox, unless there is only one id to be had.
pub(super) fn guest_uid(ids: &Ids) -> u32 {
    match ids {
        Ids::Root | Ids::Subordinate { .. } => 0,
        Ids::Single => USER,
    }
}

/// Maps ids for a launcher that has entered a user namespace of its own.
pub(super) fn map_launcher(pid: i32, host: &Host) -> io::Result<()> {
    match host.ids {
        Ids::Root => Ok(()),
        Ids::Subordinate { uid, gid, count } => {
            map_with("newuidmap", pid, host.uid, uid, count)?;
            map_with("newgidmap", pid, host.gid, gid, count)
        }
        Ids::Single => {
            // Without this the kernel does not let an ordinary user map a group: dropping a group can
            // open a file that denies that group (CVE-2014-8989).
            write(pid, "setgroups", "deny")?;
            write(pid, "uid_map", &format!("0 {} 1", host.uid))?;
            write(pid, "gid_map", &format!("0 {} 1", host.gid))
        }
    }
}

fn write(pid: i32, file: &str, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open(format!("/proc/{pid}/{file}"))?;
    file.write_all(text.as_bytes())
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the place that clears what a child inherits"
)]
fn map_with(tool: &str, pid: i32, own: u32, first: u32, count: u32) -> io::Result<()> {
    let path = find_program(tool).ok_or(io::ErrorKind::NotFound)?;
    let args = [pid.to_string(), "0".into(), own.to_string(), "1".into()];
    let range = ["1".to_owned(), first.to_string(), count.to_string()];
    let status = std::process::Command::new(path)
        .args(args)
        .args(range)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("{tool} failed")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_gives_each_sandbox_a_range_above_every_user() {
        let of = |random| sandbox_map(&Ids::Root, &SandboxId::from_parts(0, random))[0];
        let (one, other) = (of([0; 10]), of([7; 10]));
        assert_ne!(one.outside, other.outside);
        for map in [one, other] {
            assert!(map.outside >= FIRST && map.outside.checked_add(map.count).is_some());
        }
    }

    #[test]
    fn no_map_holds_the_id_of_the_user_unless_there_is_no_other() {
        let id = SandboxId::from_parts(0, [0; 10]);
        let ids = Ids::Subordinate {
            uid: 100_000,
            gid: 100_000,
            count: 65536,
        };
        assert!(sandbox_map(&ids, &id).iter().all(|map| map.outside > 0));
        assert_eq!(guest_uid(&ids), 0);
        assert_eq!(guest_uid(&Ids::Single), USER);
    }
}
