//! What can be seen of a sandbox from outside, and what else a test does outside.

use driver::host::{Cgroups, Host};
use model::id::SandboxId;
use std::path::PathBuf;
use std::process::Command;

/// The processes of this machine that are in a pid namespace, the first process of it first.
pub(crate) fn processes_in(pid_ns: &str) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").expect("proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let inside = |pid: &i32| link(*pid, "ns/pid").is_some_and(|ns| ns == pid_ns);
    let mut found: Vec<i32> = pids.filter(inside).collect();
    found.sort_by_key(|pid| inner_pid(*pid));
    found
}

/// The number that a process has in the innermost of its pid namespaces.
fn inner_pid(pid: i32) -> i32 {
    let numbers = status(pid, "NSpid").unwrap_or_default();
    let last = numbers.split_whitespace().last();
    last.and_then(|n| n.parse().ok()).unwrap_or(i32::MAX)
}

/// The guest of a pid namespace and the launcher that started it. Tests kill them, so this makes sure
/// that they are ours and no process of the machine, whatever is broken.
pub(crate) fn guest_and_launcher(pid_ns: &str) -> (i32, i32) {
    let all = processes_in(pid_ns);
    let guest = *all.first().expect("a process in the sandbox");
    assert_eq!(inner_pid(guest), 1, "{all:?}");
    let launcher = status(guest, "PPid").and_then(|pid| pid.parse().ok());
    let launcher = launcher.expect("a parent");
    for (pid, program) in [(guest, "cofferdam-guest"), (launcher, "cofferdam-jail")] {
        let runs = link(pid, "exe").unwrap_or_default();
        assert!(runs.contains(program), "{pid} is no {program}: {runs}");
    }
    (guest, launcher)
}

/// A line of `/proc/<pid>/status`.
pub(crate) fn status(pid: i32, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines().find_map(|line| field(line, key))
}

fn field(line: &str, key: &str) -> Option<String> {
    let (name, value) = line.split_once(':')?;
    (name == key).then(|| value.trim().to_owned())
}

/// A line of the text of a `status` file that was read inside.
pub(crate) fn line(status: &str, key: &str) -> String {
    let found = status.lines().find_map(|line| field(line, key));
    found.unwrap_or_else(|| format!("no line {key}"))
}

/// What a link below `/proc/<pid>` says.
pub(crate) fn link(pid: i32, name: &str) -> Option<String> {
    let to = std::fs::read_link(format!("/proc/{pid}/{name}")).ok()?;
    Some(to.display().to_string())
}

/// What the descriptors of a process are.
pub(crate) fn descriptors(pid: i32) -> Vec<String> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors");
    let links = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links.map(|to| to.display().to_string()).collect()
}

/// The control groups that a sandbox has.
pub(crate) fn groups(host: &Host, id: &SandboxId) -> Vec<PathBuf> {
    let parents: Vec<PathBuf> = match &host.cgroups {
        Cgroups::None { .. } => Vec::new(),
        Cgroups::V1 { controllers } => controllers.values().cloned().collect(),
        Cgroups::V2 { base, .. } => vec![base.clone()],
    };
    let dirs = parents.into_iter().map(|parent| parent.join(id.as_str()));
    dirs.filter(|dir| dir.exists()).collect()
}

/// How often a sandbox wanted more of the processor than its limit.
pub(crate) fn times_throttled(host: &Host, id: &SandboxId) -> u64 {
    let stats = groups(host, id).into_iter().map(|dir| dir.join("cpu.stat"));
    let texts = stats.filter_map(|file| std::fs::read_to_string(file).ok());
    let number = |line: &str| line.strip_prefix("nr_throttled ")?.parse::<u64>().ok();
    texts
        .flat_map(|text| text.lines().filter_map(number).collect::<Vec<_>>())
        .sum()
}

/// Whether limits of this controller are held by a control group here.
pub(crate) fn has_controller(host: &Host, name: &str) -> bool {
    match &host.cgroups {
        Cgroups::None { .. } => false,
        Cgroups::V1 { controllers } => controllers.contains_key(name),
        Cgroups::V2 { controllers, .. } => controllers.iter().any(|one| one == name),
    }
}

/// This machine without a controller.
pub(crate) fn without_controller(host: &Host, name: &str) -> Host {
    let mut host = host.clone();
    match &mut host.cgroups {
        Cgroups::None { .. } => {}
        Cgroups::V1 { controllers } => drop(controllers.remove(name)),
        Cgroups::V2 { controllers, .. } => controllers.retain(|one| one != name),
    }
    host
}

/// A program outside the sandboxes, with nothing but a path in its environment.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the place that clears what a child inherits"
)]
pub(crate) fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env_clear().env(
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    );
    command
}
