//! `cofferdam doctor`: what this machine can enforce, and what to do about what it cannot.

mod advice;

use crate::cli::args::{Doctor, Place};
use crate::cli::failure::Failure;
use crate::cli::table;
use crate::compose;
use crate::state::State;
use api::client::JobCreateOptions;
use api::job::{JobCreate, JobView, OutcomeKind};
use driver::host::{Cgroups, Host, Ids};
use model::limits;
use serde::Serialize;
use std::process::ExitCode;
use std::time::Duration;

/// How long a command that does nothing may take: a machine that swaps needs seconds.
const PATIENCE: Duration = Duration::from_secs(60);

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
    todo: Option<String>,
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
    fn todo(self, todo: impl Into<String>) -> Finding {
        Finding {
            todo: Some(todo.into()),
            ..self
        }
    }
}

/// Looks at everything and says so.
pub(crate) async fn doctor(place: &Place, asked: &Doctor) -> Result<ExitCode, Failure> {
    let host = Host::probe();
    let state = State::of(place).and_then(|state| state.make().map(|()| state));
    let mut findings = vec![
        kernel(),
        namespaces(&host),
        users(&host),
        cgroups(&host),
        landlock(&host),
        tun(&host),
        seccomp(),
        volumes(&host),
        directory(&state),
    ];
    findings.extend(state.as_ref().map(disk));
    findings.push(sandbox(&host, state.as_ref().ok()).await);
    findings.extend(other_drivers());
    if asked.json {
        table::print(&table::to_json(&findings)?)?;
    } else {
        print(&findings)?;
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

fn print(findings: &[Finding]) -> Result<(), Failure> {
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
    table::print(&table::layout(&["", "CHECK", "FOUND"], rows.collect()))?;
    for finding in findings {
        if let Some(todo) = &finding.todo {
            table::hint(&format!("{}: {todo}", finding.check));
        }
    }
    Ok(())
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
        Some(why) => finding("namespaces", Verdict::Fail, why).todo(advice::namespaces(why)),
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

fn tun(host: &Host) -> Finding {
    match &host.no_tun {
        None => finding("tun", Verdict::Ok, "programs need not know the proxy"),
        Some(why) => {
            let found = format!("{why}: sandboxes with a way out have the proxy only");
            finding("tun", Verdict::Warn, found)
                .todo("`modprobe tun`, give a container the device, or let the node's user open it")
        }
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

fn volumes(host: &Host) -> Finding {
    let missing = host.no_volumes.as_ref();
    match missing.or(host.no_writable_root.as_ref()) {
        None => finding("volumes", Verdict::Ok, "can be kept"),
        Some(why) => finding("volumes", Verdict::Warn, format!("cannot be kept: {why}")),
    }
}

fn directory(state: &Result<State, Failure>) -> Finding {
    match state {
        Ok(state) => finding("state", Verdict::Ok, state.dir().display().to_string()),
        Err(failure) => {
            let body = failure.body();
            let found = body.map(|body| body.message.clone()).unwrap_or_default();
            let todo = body.map(|body| body.hint.clone()).unwrap_or_default();
            finding("state", Verdict::Fail, found).todo(todo)
        }
    }
}

fn disk(state: &State) -> Finding {
    let Ok(free) = rustix::fs::statvfs(state.dir()) else {
        let found = "the file system of the state directory does not tell";
        return finding("disk", Verdict::Skip, found);
    };
    let free = free.f_bavail.saturating_mul(free.f_frsize);
    let shown = format!("{} free for the state", crate::cli::units::show_size(free));
    if free >= limits::FREE_DISK_MIN_BYTES {
        return finding("disk", Verdict::Ok, shown);
    }
    finding("disk", Verdict::Fail, shown).todo("free at least 1 GiB: below it no work is taken")
}

/// Makes a sandbox and runs something in it: what counts is whether that works.
async fn sandbox(host: &Host, state: Option<&State>) -> Finding {
    if host.no_user_namespaces.is_some() {
        return finding("sandbox", Verdict::Skip, "not tried without namespaces");
    }
    let Some(state) = state else {
        return finding(
            "sandbox",
            Verdict::Skip,
            "not tried without a state directory",
        );
    };
    let why = match try_sandbox(state).await {
        Ok(view) => match &view.outcome {
            Some(end) if end.kind == OutcomeKind::Succeeded => {
                return finding("sandbox", Verdict::Ok, "the driver `linux` ran a command");
            }
            outcome => {
                let why = outcome.as_ref().and_then(|end| end.why.clone());
                let why = why.or(view.detail);
                why.unwrap_or_else(|| "`true` did not end well in it".to_owned())
            }
        },
        Err(failure) => {
            let body = failure.body();
            body.map(|body| body.message.clone()).unwrap_or_default()
        }
    };
    let todo = advice::sandbox(host.uid != 0);
    finding("sandbox", Verdict::Fail, why).todo(todo)
}

/// A job as any other, on a state of its own, so that it is not among the user's. That lies where a node
/// has its files: new, so that nobody can have put anything there, and swept if we are killed.
async fn try_sandbox(state: &State) -> Result<JobView, Failure> {
    let (node, _locked) = state.new_node()?;
    let dir = state.node(&node);
    let scratch = State::at(&dir.join("state"));
    scratch.make()?;
    let ran = run_nothing(&scratch).await;
    // What is in the way of that is swept by the next command.
    drop(std::fs::remove_dir_all(&dir));
    ran
}

async fn run_nothing(scratch: &State) -> Result<JobView, Failure> {
    let (client, here) = compose::start_here(scratch, compose::ONE_JOB, None).await?;
    let job = JobCreate {
        argv: vec!["true".to_owned()],
        node: Some(here.node()),
        ..JobCreate::default()
    };
    let options = JobCreateOptions {
        wait: Some(PATIENCE),
        ..JobCreateOptions::default()
    };
    let ran = client.job_create(&job, &options).await;
    here.leave().await;
    Ok(ran?)
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
        host.no_tun = Some("not there".to_owned());
        host.ids = Ids::Single;
        for found in [
            namespaces(&host),
            users(&host),
            cgroups(&host),
            landlock(&host),
            tun(&host),
        ] {
            assert!(
                found.verdict != Verdict::Ok && found.todo.is_some(),
                "{found:?}"
            );
        }
    }

    #[test]
    fn a_state_directory_that_is_not_ours_alone_is_found() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(dir.path(), open).unwrap();
        let state = State::at(dir.path());
        let found = directory(&state.make().map(|()| state));
        assert_eq!(found.verdict, Verdict::Fail);
        assert!(found.todo.is_some_and(|todo| todo.contains("chmod 700")));
    }
}
