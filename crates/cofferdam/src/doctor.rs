//! `cofferdam doctor`: what this machine can enforce, and what to do about what it cannot.

use crate::cli::args::{Doctor, Place};
use crate::cli::failure::Failure;
use crate::cli::table;
use crate::state::State;
use driver::conformance;
use driver::driver::Driver as _;
use driver::host::{Cgroups, Host, Ids};
use driver::linux::{Linger, Linux};
use model::limits;
use serde::Serialize;
use std::process::ExitCode;

/// How it is with one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// It is as it should be.
    Ok,
    /// Something is missing that jobs can do without.
    Warn,
    /// No sandbox can be made.
    Fail,
    /// It was not looked at.
    Skip,
}

/// What was found, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    found: String,
    todo: Option<&'static str>,
}

fn finding(check: &'static str, verdict: Verdict, found: impl Into<String>) -> Finding {
    Finding {
        check,
        verdict,
        found: found.into(),
        todo: None,
    }
}

impl Finding {
    fn todo(self, todo: &'static str) -> Finding {
        Finding {
            todo: Some(todo),
            ..self
        }
    }
}

/// Looks at everything and says so.
pub(crate) async fn doctor(place: &Place, asked: &Doctor) -> Result<ExitCode, Failure> {
    let host = Host::probe();
    let mut findings = vec![
        kernel(),
        namespaces(&host),
        users(&host),
        cgroups(&host),
        landlock(&host),
        seccomp(),
    ];
    findings.push(disk(place)?);
    findings.push(sandbox(&host).await);
    findings.extend(other_drivers());
    if asked.json {
        let text =
            serde_json::to_string_pretty(&findings).map_err(|error| Failure::ours(&error))?;
        table::print(&format!("{text}\n"));
    } else {
        print(&findings);
    }
    let failed = findings
        .iter()
        .any(|finding| finding.verdict == Verdict::Fail);
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn print(findings: &[Finding]) {
    let rows = findings.iter().map(|finding| {
        let verdict = match finding.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
            Verdict::Skip => "skip",
        };
        vec![
            verdict.to_owned(),
            finding.check.to_owned(),
            finding.found.clone(),
        ]
    });
    table::print(&table::layout(&["", "CHECK", "FOUND"], rows.collect()));
    for finding in findings {
        if let Some(todo) = finding.todo {
            table::hint(&format!("{}: {todo}", finding.check));
        }
    }
}

fn kernel() -> Finding {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let mut parts = release
        .split(['.', '-'])
        .filter_map(|part| part.parse::<u32>().ok());
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    let found = finding("kernel", Verdict::Ok, &release);
    if version >= (5, 14) {
        return found;
    }
    let todo =
        "use Linux 5.14 or later: mount_setattr and limits in user namespaces came until then";
    Finding {
        verdict: Verdict::Fail,
        ..found
    }
    .todo(todo)
}

fn namespaces(host: &Host) -> Finding {
    match &host.no_user_namespaces {
        None => finding("namespaces", Verdict::Ok, "user namespaces can be made"),
        Some(why) => finding("namespaces", Verdict::Fail, why).todo(
            "as root: `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` (or \
             kernel.unprivileged_userns_clone=1, or user.max_user_namespaces=15000), and keep it in \
             /etc/sysctl.d; or run as root",
        ),
    }
}

fn users(host: &Host) -> Finding {
    match host.ids {
        Ids::Root => finding(
            "users",
            Verdict::Ok,
            "root: each sandbox has ids of its own",
        ),
        Ids::Subordinate { uid, count, .. } => finding(
            "users",
            Verdict::Ok,
            format!("subordinate ids {uid} to {}", uid + count - 1),
        ),
        Ids::Single => {
            let found = "one id: the workload has the id of the user who runs the node";
            finding("users", Verdict::Warn, found).todo(
                "install `uidmap` and give the user a range: `usermod --add-subuids 100000-165535 \
                 --add-subgids 100000-165535 NAME`",
            )
        }
    }
}

fn cgroups(host: &Host) -> Finding {
    match &host.cgroups {
        Cgroups::V2 { controllers, .. } => finding(
            "cgroups",
            Verdict::Ok,
            format!("version 2: {}", controllers.join(", ")),
        ),
        Cgroups::V1 { controllers } => {
            let names: Vec<&str> = controllers.keys().map(String::as_str).collect();
            finding(
                "cgroups",
                Verdict::Ok,
                format!("version 1: {}", names.join(", ")),
            )
        }
        Cgroups::None { why } => {
            let found = format!("{why}: limits on memory and processors are refused");
            finding("cgroups", Verdict::Warn, found).todo(
                "run as root, or under systemd with `systemd-run --user --scope -p Delegate=yes`",
            )
        }
    }
}

fn landlock(host: &Host) -> Finding {
    match host.landlock_abi {
        0 => finding("landlock", Verdict::Warn, "not in this kernel, or not enabled").todo(
            "add `landlock` to the kernel's `lsm=` parameter; without it one layer of two is missing",
        ),
        abi => finding("landlock", Verdict::Ok, format!("version {abi}")),
    }
}

fn seccomp() -> Finding {
    let text = std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail");
    match text {
        Ok(actions) if actions.contains("kill_process") => {
            finding("seccomp", Verdict::Ok, "filters can be installed")
        }
        Ok(_) | Err(_) => finding("seccomp", Verdict::Fail, "filters cannot be installed")
            .todo("use a kernel with CONFIG_SECCOMP_FILTER"),
    }
}

fn disk(place: &Place) -> Result<Finding, Failure> {
    let state = State::of(place)?;
    let there = state.dir().ancestors().find(|dir| dir.exists());
    let free = there.and_then(|dir| rustix::fs::statvfs(dir).ok());
    let Some(free) = free.map(|fs| fs.f_bavail.saturating_mul(fs.f_frsize)) else {
        return Ok(finding(
            "disk",
            Verdict::Skip,
            "the file system does not tell",
        ));
    };
    let shown = format!(
        "{} free for {}",
        crate::cli::units::show_size(free),
        state.dir().display()
    );
    if free >= limits::FREE_DISK_MIN_BYTES {
        return Ok(finding("disk", Verdict::Ok, shown));
    }
    Ok(
        finding("disk", Verdict::Fail, shown)
            .todo("free at least 1 GiB: below it no work is taken"),
    )
}

/// Makes a sandbox and runs something in it: what counts is whether that works.
async fn sandbox(host: &Host) -> Finding {
    if host.no_user_namespaces.is_some() {
        return finding("sandbox", Verdict::Skip, "not tried without namespaces");
    }
    let name = format!("cofferdam-doctor-{}", std::process::id());
    let dir = std::env::temp_dir().join(name);
    let tried = try_sandbox(host, &dir).await;
    drop(std::fs::remove_dir_all(&dir));
    match tried {
        Ok(()) => finding("sandbox", Verdict::Ok, "the driver `linux` ran a command"),
        Err(error) => finding("sandbox", Verdict::Fail, error)
            .todo("the step that failed says which part of the kernel refused"),
    }
}

async fn try_sandbox(host: &Host, dir: &std::path::Path) -> Result<(), String> {
    let linux = Linux::new(dir, host.clone(), Linger::No).map_err(|error| error.to_string())?;
    let spec = conformance::spec(model::spec::AskedLimits::default());
    let mut prepared = conformance::prepare(&linux, host, &spec)
        .await
        .map_err(|error| error.to_string())?;
    let ran = prepared
        .run(conformance::command(&["true"]))
        .await
        .map_err(|error| error.to_string())?;
    linux
        .destroy(&prepared.plan.handle)
        .await
        .map_err(|error| error.to_string())?;
    linux.quit().await;
    match ran.exited.code {
        Some(0) => Ok(()),
        _ => Err(format!("`true` ended with {:?}", ran.exited)),
    }
}

/// Ways to isolate that this version does not have yet are said to be so.
fn other_drivers() -> Vec<Finding> {
    let names = ["bubblewrap", "container", "microvm", "wasm"];
    let skip = |check| {
        finding(
            check,
            Verdict::Skip,
            "this version has the driver `linux` only",
        )
    };
    names.map(skip).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_comes_with_what_to_do() {
        let mut host = Host::probe();
        host.no_user_namespaces = Some("closed".to_owned());
        host.cgroups = Cgroups::None {
            why: "none".to_owned(),
        };
        host.landlock_abi = 0;
        host.ids = Ids::Single;
        for found in [
            namespaces(&host),
            users(&host),
            cgroups(&host),
            landlock(&host),
        ] {
            assert!(
                found.verdict != Verdict::Ok && found.todo.is_some(),
                "{found:?}"
            );
        }
    }
}
