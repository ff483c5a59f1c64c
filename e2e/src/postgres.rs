//! A PostgreSQL of the test's own, in a temporary directory, on a Unix socket only.
//!
//! A shell in a process group of its own starts it, and stops and removes it when its standard input ends, which
//! the kernel sees to however the test ends. So a test that is killed leaves nothing.

use rustix::process::Pid;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The first argument is where the programs are, the second what is set, the others are what runs them as somebody who
/// is not root.
/// It is durable, because what is tested is what survives.
const KEEPER: &str = r#"
exec 3>&1
trap '' HUP INT TERM PIPE
bin=$1; settings=$2; shift 2
dir=$(mktemp -d) && cd "$dir" || exit 1
[ $# -eq 0 ] || chown postgres "$dir"
if "$@" "$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C --no-sync &&
    "$@" "$bin/pg_ctl" -D "$dir/data" -w -t 60 -l "$dir/log" start \
        -o "-k '$dir' -c listen_addresses= $settings"
then
    echo "$dir" >&3
fi </dev/null >"$dir/said" 2>&1
exec 3>&- >/dev/null
cat
"$@" "$bin/pg_ctl" -D "$dir/data" -m immediate -w stop >/dev/null 2>&1
cd / && rm -rf "$dir"
"#;

/// What makes root somebody else.
const PREFIX: &str = "setpriv --reuid=postgres --regid=postgres --init-groups --";

/// Many tests have one at the same time, and none has much in it.
const SMALL: &str = "-c shared_buffers=16MB";

/// The server; it is stopped and removed with this.
#[derive(Debug)]
pub struct Postgres {
    dir: String,
    settings: &'static str,
    keeper: Child,
}

impl Postgres {
    /// Starts it, or says why there is none here.
    ///
    /// # Errors
    /// Why a test that needs it is skipped.
    pub fn start() -> Result<Postgres, &'static str> {
        Postgres::start_with(SMALL)
    }

    /// The same as it is when nobody sets anything.
    ///
    /// # Errors
    /// Why there is none here.
    pub fn start_as_it_comes() -> Result<Postgres, &'static str> {
        Postgres::start_with("")
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the programs of PostgreSQL get what cargo gives to a test"
    )]
    fn start_with(settings: &'static str) -> Result<Postgres, &'static str> {
        let bin = programs().ok_or("PostgreSQL is not installed")?;
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
        let prefix = PREFIX.split(' ').filter(|_| is_root);
        let mut shell = Command::new("sh");
        shell.args(["-c", KEEPER, "sh"]);
        shell.arg(bin).arg(settings).args(prefix);
        let keeper = shell
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        let mut keeper = keeper.expect("a shell starts");
        let mut said = String::new();
        let stdout = keeper.stdout.take().expect("a pipe");
        drop(BufReader::new(stdout).read_line(&mut said));
        let dir = said.trim_end().to_owned();
        assert!(Path::new(&dir).is_absolute(), "PostgreSQL did not start");
        Ok(Postgres {
            dir,
            settings,
            keeper,
        })
    }

    /// Its first process and what that has made, in this order.
    pub fn processes(&self) -> Vec<Pid> {
        let file = std::fs::read_to_string(Path::new(&self.dir).join("data/postmaster.pid"));
        let first = file.unwrap_or_default();
        let first = first.lines().next().unwrap_or_default();
        let children = std::fs::read_to_string(format!("/proc/{first}/task/{first}/children"));
        let all = format!("{first} {}", children.unwrap_or_default());
        let numbers = all.split_whitespace().filter_map(|one| one.parse().ok());
        numbers.filter_map(Pid::from_raw).collect()
    }

    /// What it has written into its log, where each deadlock is.
    pub fn said(&self) -> String {
        std::fs::read_to_string(Path::new(&self.dir).join("log")).unwrap_or_default()
    }

    /// Starts it again where it was killed.
    pub fn start_again(&self) -> bool {
        self.control(&["start"])
    }

    /// Ends all connections and starts it anew.
    pub fn restart(&self) -> bool {
        self.control(&["restart", "-m", "fast"])
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the programs of PostgreSQL get what cargo gives to a test"
    )]
    fn control(&self, what: &[&str]) -> bool {
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
        let mut words: Vec<&str> = PREFIX.split(' ').filter(|_| is_root).collect();
        let program = programs().unwrap_or_default().join("pg_ctl");
        let program = program.to_string_lossy();
        words.push(&program);
        let (first, rest) = words.split_first().expect("there is a program");
        let options = format!("-k '{}' -c listen_addresses= {}", self.dir, self.settings);
        let mut command = Command::new(first);
        command.args(rest).args(what).current_dir(&self.dir);
        command.args(["-w", "-t", "60", "-D", "data", "-l", "log", "-o", &options]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let ended = command.stderr(Stdio::null()).status();
        ended.is_ok_and(|status| status.success())
    }

    /// Another database there, with nothing in it, as a configuration names it.
    #[expect(
        clippy::disallowed_methods,
        reason = "the programs of PostgreSQL get what cargo gives to a test"
    )]
    pub fn fresh(&self) -> String {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("fresh{number}");
        let program = programs().unwrap_or_default().join("createdb");
        let mut command = Command::new(program);
        command.args(["-h", &self.dir, "-U", "postgres", &name]);
        let ended = command.stdin(Stdio::null()).status();
        assert!(ended.is_ok_and(|status| status.success()), "no {name}");
        format!("host={} user=postgres dbname={name}", self.dir)
    }

    /// As a configuration names it.
    pub fn address(&self) -> String {
        format!("host={} user=postgres dbname=postgres", self.dir)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        drop(self.keeper.wait());
    }
}

/// Where `initdb` and `pg_ctl` are: Debian keeps them out of the path, one directory for each version.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok();
    let versions = versions.into_iter().flatten().flatten();
    let mut dirs: Vec<PathBuf> = versions.map(|entry| entry.path().join("bin")).collect();
    dirs.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    dirs.extend(std::env::split_paths(&path));
    let has_both = |dir: &PathBuf| dir.join("initdb").exists() && dir.join("pg_ctl").exists();
    dirs.into_iter().find(has_both)
}
