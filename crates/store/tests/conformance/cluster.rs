//! A PostgreSQL of the test's own, in a temporary directory, on a Unix socket only.
//!
//! A shell that is not in the test's process group starts it, and stops and removes it when its standard
//! input ends, which the kernel sees to however the test ends. So a test that is killed leaves nothing.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use postgres::{Client, NoTls};

use crate::db::{Db, Place};

/// The first argument is where the programs are, the others are what runs them as somebody who is not
/// root. Durability is off: nobody will see this database again.
const KEEPER: &str = r#"
trap '' HUP INT TERM PIPE
bin=$1; shift
dir=$(mktemp -d) && cd "$dir" || exit 1
[ $# -eq 0 ] || chown postgres "$dir"
if "$@" "$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C --no-sync &&
    "$@" "$bin/pg_ctl" -D "$dir/data" -w -t 60 -l "$dir/log" start -o "-k '$dir' \
        -c listen_addresses= -c fsync=off -c full_page_writes=off -c max_connections=200 \
        -c deadlock_timeout=200ms -c shared_buffers=32MB $COFFERDAM_TEST_OPTIONS"
then
    echo "$dir" >&3
else
    cat "$dir"/said "$dir"/log >&3
fi </dev/null >"$dir/said" 2>&1
exec 3>&-
cat >/dev/null
"$@" "$bin/pg_ctl" -D "$dir/data" -m immediate -w stop >/dev/null 2>&1
cd / && rm -rf "$dir"
"#;

/// The server; it is stopped and removed with this.
#[derive(Debug)]
pub(crate) struct Cluster {
    dir: String,
    keeper: Child,
    databases: AtomicU32,
}

impl Cluster {
    /// Starts it, or says why there is none here.
    pub(crate) fn start() -> Result<Cluster, &'static str> {
        Cluster::start_with("")
    }

    /// The same with more options of `postgres`.
    pub(crate) fn start_with(options: &str) -> Result<Cluster, &'static str> {
        let bin = programs().ok_or("PostgreSQL is not installed")?;
        let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
        let prefix = "setpriv --reuid=postgres --regid=postgres --init-groups --";
        let prefix = prefix.split(' ').filter(|_| is_root);
        #[expect(
            clippy::disallowed_methods,
            reason = "the programs of PostgreSQL get what cargo gives to a test"
        )]
        let mut shell = Command::new("sh");
        let script = format!("exec 3>&1\n{KEEPER}");
        shell.args(["-c", &script, "sh"]).arg(bin).args(prefix);
        let keeper = shell
            .env("COFFERDAM_TEST_OPTIONS", options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        let mut keeper = keeper.unwrap();
        let mut said = String::new();
        let mut lines = BufReader::new(keeper.stdout.take().unwrap());
        lines.read_line(&mut said).unwrap();
        let dir = said.trim_end().to_owned();
        let cluster = Cluster {
            dir,
            keeper,
            databases: AtomicU32::new(0),
        };
        let is_up = Path::new(&cluster.dir).is_absolute();
        assert!(is_up, "PostgreSQL did not start: {said}{:?}", lines.lines());
        Ok(cluster)
    }

    /// A new database. Its text is sorted as in English where nothing else is said, which is not how
    /// SQLite sorts.
    pub(crate) fn database(&self) -> Place {
        let name = format!("case_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let english = "TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'";
        let mut admin = Client::connect(&self.url("postgres"), NoTls).unwrap();
        // Before version 15 there was no such choice.
        admin
            .batch_execute(&format!("CREATE DATABASE {name} {english}"))
            .or_else(|_| admin.batch_execute(&format!("CREATE DATABASE {name}")))
            .unwrap();
        Place::Postgres(self.url(&name))
    }

    fn url(&self, database: &str) -> String {
        format!("host={} user=postgres dbname={database}", self.dir)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        drop(self.keeper.wait());
    }
}

/// A connection beside those of the store.
pub(crate) fn client(db: &Db) -> Client {
    let Place::Postgres(url) = &db.place else {
        panic!("{:?}", db.place)
    };
    Client::connect(url, NoTls).unwrap()
}

/// Where `initdb` and `pg_ctl` are: Debian keeps them out of the path, one directory for each version.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok();
    let versions = versions.into_iter().flatten().flatten();
    let mut dirs: Vec<PathBuf> = versions.map(|entry| entry.path().join("bin")).collect();
    dirs.sort();
    dirs.extend(std::env::split_paths(&path));
    let has_both = |dir: &PathBuf| dir.join("initdb").exists() && dir.join("pg_ctl").exists();
    dirs.into_iter().find(has_both)
}
