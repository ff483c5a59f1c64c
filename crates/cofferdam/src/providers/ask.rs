//! Providers on this machine: variables, files and commands. What they say when they fail is not passed
//! on, because a value could be in it.

use super::READ_MAX;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::process::{Pid, Signal, kill_process_group};
use service::SecretValue;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long a command may take.
pub(super) const COMMAND: Duration = Duration::from_secs(10);
/// How often a command is looked at that has said all and is still there.
const LOOK: Duration = Duration::from_millis(5);
/// Where a command finds others, whatever the server was started with.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A variable of this process.
pub(super) fn variable(prefix: &str, reference: &str) -> Result<SecretValue, String> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if !reference.bytes().all(is_plain) {
        return Err("a variable is letters, digits and `_`".to_owned());
    }
    let name = format!("{prefix}{reference}");
    let text = std::env::var_os(&name).ok_or_else(|| format!("{name} is not set"))?;
    Ok(SecretValue::new(text.into_vec()))
}

/// A file below a directory, as it is. Links are followed as long as they stay below it, which is how
/// mounted secrets of Kubernetes are made.
pub(super) fn file(dir: &Path, reference: &str) -> Result<SecretValue, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", dir.join(reference).display());
    let root = File::open(dir).map_err(failed)?;
    // Not blocking: a pipe without a writer would hold us for ever.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let opened = openat2(&root, reference, flags, Mode::empty(), beneath);
    let file = File::from(opened.map_err(|errno| failed(errno.into()))?);
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(format!("{} is no file", dir.join(reference).display()));
    }
    read(file).map_err(failed)
}

fn read(from: impl Read) -> std::io::Result<SecretValue> {
    // So large that it never moves, which would leave a copy behind.
    let mut bytes = Vec::with_capacity(2 * READ_MAX);
    from.take(READ_MAX as u64).read_to_end(&mut bytes)?;
    Ok(SecretValue::new(bytes))
}

/// What a command prints, without the newline at its end. It gets no shell, nothing of our environment but
/// `HOME`, and no more time than this; [`COMMAND`] but in tests.
#[expect(
    clippy::disallowed_methods,
    reason = "whoever starts the server names the command; its environment is cleared here"
)]
pub(super) fn command(
    words: &[String],
    reference: &str,
    most: Duration,
) -> Result<SecretValue, String> {
    let (program, arguments) = words.split_first().ok_or("there is no command")?;
    let failed = |error: std::io::Error| format!("`{program}`: {error}");
    let mut command = std::process::Command::new(program);
    let home = std::env::var_os("HOME").map(|home| ("HOME".into(), home));
    let fixed = [("PATH", PATH), ("LANG", "C.UTF-8")].map(|(k, v)| (k.into(), v.into()));
    let env: Vec<(std::ffi::OsString, std::ffi::OsString)> =
        fixed.into_iter().chain(home).collect();
    command
        .args(arguments)
        .arg(reference)
        .env_clear()
        .envs(env)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0);
    let until = Instant::now() + most;
    let late = || format!("`{program}` did not end in {} s", most.as_secs());
    let mut child = command.spawn().map_err(failed)?;
    let Some(out) = child.stdout.take() else {
        return Err("it has no output".to_owned());
    };
    let (tell, told) = mpsc::channel();
    // Of its own, because a grandchild may hold the pipe for longer than we wait.
    std::thread::spawn(move || drop(tell.send(read(out))));
    let Ok(text) = told.recv_timeout(most) else {
        // The command may be over, and what it has started holds the pipe: nothing of it is left.
        kill(&mut child).map_err(failed)?;
        return Err(late());
    };
    match ended(&mut child, until).map_err(failed)? {
        Some(status) if status.success() => text.map(without_newline).map_err(failed),
        Some(status) => Err(format!("`{program}` failed: {status}")),
        None => Err(late()),
    }
}

/// How it ended, or nothing: then it and what it has started are killed.
fn ended(child: &mut Child, until: Instant) -> std::io::Result<Option<std::process::ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= until {
            break;
        }
        std::thread::sleep(LOOK);
    }
    kill(child)?;
    Ok(None)
}

/// Kills it and what it has started, as far as that is still of its group.
fn kill(child: &mut Child) -> std::io::Result<()> {
    // It was not waited for yet, so the number is still its own.
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // One that has ended by itself in between is waited for next.
        let _ = kill_process_group(pid, Signal::KILL);
    }
    child.wait().map(drop)
}

fn without_newline(value: SecretValue) -> SecretValue {
    match value.bytes().strip_suffix(b"\n") {
        Some(rest) => SecretValue::new(rest.to_vec()),
        None => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_variable_is_only_one_with_the_prefix() {
        let home = std::env::var("HOME").unwrap();
        assert_eq!(variable("HO", "ME").unwrap().bytes(), home.as_bytes());
        for (prefix, reference) in [("X_", "HOME"), ("", "NO_SUCH_VARIABLE"), ("", "A=B")] {
            assert!(variable(prefix, reference).is_err(), "{prefix}{reference}");
        }
    }

    #[test]
    fn a_file_is_below_the_directory_and_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("..data")).unwrap();
        std::fs::write(root.join("..data/key"), "value\n").unwrap();
        std::fs::write(dir.path().join("outside"), "canary").unwrap();
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, root.join(name)).unwrap();
        link("..data/key", "key");
        link("../outside", "up");
        link("/etc/hostname", "absolute");
        link("/proc/self/environ", "magic");
        let pipe = root.join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        for good in ["..data/key", "key"] {
            assert_eq!(file(&root, good).unwrap().bytes(), b"value\n");
        }
        for bad in [
            "../outside",
            "up",
            "absolute",
            "magic",
            "pipe",
            "..data",
            "none",
            "/etc/hostname",
        ] {
            let error = file(&root, bad).unwrap_err();
            assert!(!error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn a_command_gets_the_reference_and_a_clean_environment() {
        let said = |text: &str, reference: &str| {
            let value = command(&words(text), reference, COMMAND);
            value.map(|value| String::from_utf8(value.bytes().to_vec()).unwrap())
        };
        assert_eq!(said("/bin/echo -n", "a b;$(c)"), Ok("a b;$(c)".to_owned()));
        assert_eq!(said("/bin/echo", "one\n"), Ok("one\n".to_owned()));
        let env = said("/usr/bin/env -u HOME", "env").unwrap();
        assert_eq!(env, format!("LANG=C.UTF-8\nPATH={PATH}"));
        for bad in ["/bin/false", "/no/such/program"] {
            assert!(said(bad, "x").is_err(), "{bad}");
        }
        // It writes for ever, and ends when nobody reads.
        let much = command(&words("/usr/bin/yes"), "x", COMMAND);
        assert!(much.is_err() || much.unwrap().bytes().len() == READ_MAX);
    }

    #[test]
    fn what_a_command_says_when_it_fails_is_not_passed_on() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("s");
        std::fs::write(&script, "echo canary; echo canary >&2; exit 3").unwrap();
        let words = words(&format!("/bin/sh {}", script.display()));
        let error = command(&words, "x", COMMAND).unwrap_err();
        assert!(error.contains("3") && !error.contains("canary"), "{error}");
    }

    /// Whether a process does anything. One that was killed is there until whoever has it now asks.
    fn runs(pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z ") && !stat.contains(") X "))
    }

    /// Runs a script that writes down numbers of processes and takes longer than it may; all of them end.
    fn is_killed(script: &str, processes: usize) {
        let dir = tempfile::tempdir().unwrap();
        let (file, pids) = (dir.path().join("s"), dir.path().join("pids"));
        std::fs::write(&file, script).unwrap();
        let words = words(&format!("/bin/sh {}", file.display()));
        let reference = pids.display().to_string();
        let begun = Instant::now();
        let error = command(&words, &reference, Duration::from_secs(2)).unwrap_err();
        assert_eq!(error, "`/bin/sh` did not end in 2 s");
        assert!(begun.elapsed() < COMMAND, "{:?}", begun.elapsed());
        let pids = std::fs::read_to_string(pids).unwrap();
        let pids: Vec<&str> = pids.split_whitespace().collect();
        assert_eq!(pids.len(), processes, "{pids:?}");
        // A signal takes a moment.
        let until = Instant::now() + COMMAND;
        while pids.iter().any(|pid| runs(pid)) {
            assert!(Instant::now() < until, "{pids:?} still run");
            std::thread::sleep(LOOK);
        }
    }

    #[test]
    fn a_command_that_hangs_is_killed_with_all_that_it_has_started() {
        is_killed(
            "sh -c 'sleep 1000 & echo $! $$ >> \"$0\"; wait' \"$1\" & echo $! $$ >> \"$1\"; wait",
            4,
        );
    }

    #[test]
    fn what_a_command_leaves_behind_that_holds_its_output_is_killed_though_the_command_is_over() {
        is_killed("sleep 1000 & echo $! > \"$1\"", 1);
    }

    #[test]
    fn a_command_that_has_closed_its_output_and_hangs_is_killed_too() {
        is_killed("exec > \"$1\"; sleep 1000 & echo $! $$; wait", 2);
    }
}
