//! Measurements, each beside a peer and in one run, as ratios: absolute times of a shared machine mean
//! little, and times of two different days nothing.
//!
//! A measure and its peer take turns, call by call, so that what else the machine does hits both. Each
//! figure is given as p50, p95 and p99 of all calls; a ratio is that of the medians. The numbers that the
//! issue asks for stand beside what was measured.
//!
//! This room must never be part of the product, never time a warm path and call it cold, and never
//! leave out the calls that were slow.

mod queue;
mod server;
mod timing;

use anyhow::{Context as _, Result};
use clap::Parser;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use timing::{Figure, Row};

/// Measures Cofferdam beside bubblewrap, Podman and the bare kernel.
#[derive(Debug, Parser)]
struct Args {
    /// Calls of each measure
    #[arg(long, default_value_t = 200)]
    calls: usize,
    /// Only measures whose name contains this
    #[arg(long)]
    only: Option<String>,
}

/// Our median and that of bwrap, in milliseconds, in the line of one of our own measures, taken by this
/// program where there are a thousand more mounts.
fn below_many_mounts(calls: usize, only: &str, line: &str) -> Result<Option<(f64, f64)>> {
    const MOUNTS: usize = 1000;
    let over = tempfile::tempdir()?;
    let script = format!(
        "mount -t tmpfs none {dir} && for i in $(seq {MOUNTS}); do mkdir {dir}/$i; \
         mount --bind {dir}/$i {dir}/$i; done; exec {own} --calls {calls} --only {only}",
        dir = over.path().display(),
        own = std::env::current_exe()?.display(),
    );
    let mut unshare = command(Path::new("/usr/bin/unshare"));
    unshare
        .args(["-m", "--propagation", "private", "sh", "-c", &script])
        .stdout(Stdio::piped());
    let output = unshare.output().context("unshare, which needs root")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let row = text
        .lines()
        .find(|row| row.contains(line))
        .unwrap_or_default();
    let medians = timing::milliseconds_of(row);
    let &[ours, .., peer] = medians.as_slice() else {
        return Ok(None);
    };
    Ok(Some((ours, peer)))
}

/// What the peer does, in the same words that everybody can type.
const BWRAP: [&str; 15] = [
    "--unshare-all",
    "--ro-bind",
    "/usr",
    "/usr",
    "--symlink",
    "usr/bin",
    "/bin",
    "--symlink",
    "usr/lib64",
    "/lib64",
    "--symlink",
    "usr/lib",
    "/lib",
    "--proc",
    "/proc",
];

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let bench = Bench::new(args)?;
    print(&timing::machine());
    let mut rows = Vec::new();
    for (name, measure) in MEASURES {
        if bench
            .args
            .only
            .as_ref()
            .is_some_and(|only| !name.contains(only.as_str()))
        {
            continue;
        }
        print(&format!("measuring {name} ..."));
        rows.extend(match measure {
            Measure::Api => bench.through_the_api().await?,
            Measure::Together => bench.eight_at_a_time().await?,
            Measure::Cold => bench.cold_run()?,
            Measure::Mounts => bench.with_many_mounts()?,
            Measure::Queue => queue::on_sqlite().await?,
            Measure::Postgres => queue::on_postgres().await?,
            Measure::Memory => vec![bench.memory().await?],
            Measure::Throughput => bench.throughput()?,
        });
    }
    print(&timing::table(&rows));
    Ok(())
}

#[derive(Debug, Clone, Copy)]
enum Measure {
    Api,
    Together,
    Cold,
    Mounts,
    Queue,
    Postgres,
    Memory,
    Throughput,
}

const MEASURES: [(&str, Measure); 8] = [
    ("api", Measure::Api),
    ("together", Measure::Together),
    ("cold", Measure::Cold),
    ("mounts", Measure::Mounts),
    ("queue", Measure::Queue),
    ("postgres", Measure::Postgres),
    ("memory", Measure::Memory),
    ("throughput", Measure::Throughput),
];

#[expect(
    clippy::print_stdout,
    reason = "printing the figures is what this program is for"
)]
fn print(text: &str) {
    println!("{text}");
}

struct Bench {
    args: Args,
    program: PathBuf,
    state: tempfile::TempDir,
    bwrap: Option<PathBuf>,
    podman: bool,
}

impl Bench {
    fn new(args: Args) -> Result<Bench> {
        let own = std::env::current_exe()?;
        let program = own.with_file_name("cofferdam");
        anyhow::ensure!(
            program.exists(),
            "build it first: cargo build --release -p cofferdam"
        );
        let bwrap = Some(PathBuf::from("/usr/bin/bwrap")).filter(|path| path.exists());
        let podman = Path::new("/usr/bin/podman").exists();
        Ok(Bench {
            args,
            program,
            state: place()?,
            bwrap,
            podman,
        })
    }

    /// One job through the HTTP API of a running server, beside one bubblewrap and one bare process.
    async fn through_the_api(&self) -> Result<Vec<Row>> {
        let server = server::Up::start(&self.program, self.state.path(), &[]).await?;
        let client = server.client();
        let (mut ours, mut peer, mut bare) =
            (Figure::default(), Figure::default(), Figure::default());
        server::job(&client).await?;
        for _ in 0..self.args.calls {
            let start = Instant::now();
            server::job(&client).await?;
            ours.add(start.elapsed());
            settle();
            if let Some(bwrap) = &self.bwrap {
                peer.add(time(command(bwrap).args(BWRAP).arg("true"))?);
                settle();
            }
            bare.add(time(&mut command(Path::new("/usr/bin/true")))?);
        }
        let mut rows = vec![
            Row::ratio(
                "request to outcome of `true` through the API",
                &ours,
                "bwrap",
                &peer,
            )
            .target("<= 0.6"),
            Row::ratio(
                "  the same beside a bare fork and exec",
                &ours,
                "true",
                &bare,
            ),
        ];
        if self.podman {
            let mut podman = Figure::default();
            let args = ["run", "--rm", "--network=none", "--rootfs", "/", "true"];
            for _ in 0..5 {
                podman.add(time(command(Path::new("/usr/bin/podman")).args(args))?);
            }
            rows.push(Row::ratio(
                "  the same beside podman run",
                &ours,
                "podman",
                &podman,
            ));
        }
        Ok(rows)
    }

    /// Outcomes per second with eight requests under way all the time.
    async fn eight_at_a_time(&self) -> Result<Vec<Row>> {
        const AT_ONCE: usize = 8;
        let server = server::Up::start(&self.program, self.state.path(), &[]).await?;
        let each = self.args.calls.div_ceil(AT_ONCE).max(10);
        let mut ratios = Vec::new();
        for _ in 0..3 {
            let start = Instant::now();
            let tasks: Vec<_> = (0..AT_ONCE)
                .map(|_| {
                    let client = server.client();
                    tokio::spawn(async move {
                        for _ in 0..each {
                            server::job(&client).await?;
                        }
                        anyhow::Ok(())
                    })
                })
                .collect();
            for task in tasks {
                task.await??;
            }
            let ours = per_second(AT_ONCE * each, start.elapsed());
            let peer = self.bwraps_at_once(AT_ONCE, each)?;
            ratios.push((ours, peer));
        }
        ratios.sort_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
        let (ours, peer) = ratios.get(1).copied().unwrap_or((0.0, 1.0));
        let text = format!("{ours:.0}/s beside {peer:.0}/s of bwrap");
        Ok(vec![
            Row::plain("outcomes per second, 8 at a time", text, ours / peer).target(">= 3"),
        ])
    }

    fn bwraps_at_once(&self, at_once: usize, each: usize) -> Result<f64> {
        let Some(bwrap) = self.bwrap.clone() else {
            return Ok(f64::NAN);
        };
        let start = Instant::now();
        let threads: Vec<_> = (0..at_once)
            .map(|_| {
                let bwrap = bwrap.clone();
                std::thread::spawn(move || {
                    for _ in 0..each {
                        time(command(&bwrap).args(BWRAP).arg("true"))?;
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        for thread in threads {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        }
        Ok(per_second(at_once * each, start.elapsed()))
    }

    /// The whole process of `cofferdam run -- true`, with no server.
    fn cold_run(&self) -> Result<Vec<Row>> {
        let state = place()?;
        let (ours, peer) = self.cold_beside_bwrap(state.path(), self.args.calls)?;
        Ok(vec![
            Row::ratio(
                "`cofferdam run -- true`, whole process",
                &ours,
                "bwrap",
                &peer,
            )
            .target("<= 2.0"),
        ])
    }

    fn cold_beside_bwrap(&self, state: &Path, calls: usize) -> Result<(Figure, Figure)> {
        let (mut ours, mut peer) = (Figure::default(), Figure::default());
        for call in 0..=calls {
            let took = time(
                command(&self.program)
                    .args(["run", "--", "true"])
                    .env("COFFERDAM_STATE", state),
            )?;
            settle();
            let peers = match &self.bwrap {
                Some(bwrap) => time(command(bwrap).args(BWRAP).arg("true"))?,
                None => Duration::ZERO,
            };
            settle();
            // The first makes the database.
            if call > 0 {
                ours.add(took);
                peer.add(peers);
            }
        }
        Ok((ours, peer))
    }

    /// The same with a thousand more mounts on the machine, in a mount namespace of this program's own.
    fn with_many_mounts(&self) -> Result<Vec<Row>> {
        let state = place()?;
        let calls = self.args.calls.div_ceil(2);
        let (without, peer_without) = self.cold_beside_bwrap(state.path(), calls)?;
        let many = |only, line| below_many_mounts(calls, only, line);
        let (Some((ours, peer)), Some((api, api_peer))) = (
            many("cold", "whole process")?,
            many("api", "through the API")?,
        ) else {
            return Ok(vec![Row::plain(
                "with 1,000 more mounts",
                "not measured".to_owned(),
                f64::NAN,
            )]);
        };
        let base = without.median().as_secs_f64() * 1000.0;
        let peer_base = peer_without.median().as_secs_f64() * 1000.0;
        let text = format!("{base:.1} ms -> {ours:.1} ms; bwrap {peer_base:.1} ms -> {peer:.1} ms");
        let through = format!("p50 {api:.2} ms; bwrap p50 {api_peer:.2} ms");
        Ok(vec![
            Row::plain("`cofferdam run` with 1,000 more mounts", text, ours / base)
                .target("<= 1.3"),
            Row::plain(
                "request through the API with 1,000 more mounts",
                through,
                api / api_peer,
            ),
        ])
    }

    /// Private memory of what one idle sandbox adds: its guest, and its part of the launcher.
    async fn memory(&self) -> Result<Row> {
        let server =
            server::Up::start(&self.program, self.state.path(), &["--spares", "0"]).await?;
        server.idle_sandbox_memory().await
    }

    /// Bytes per second from a command to whoever reads the program's standard output.
    fn throughput(&self) -> Result<Vec<Row>> {
        const BYTES: u64 = 2 << 30;
        let state = place()?;
        let script = format!("head -c {BYTES} /dev/zero");
        let mut best = Vec::new();
        for _ in 0..3 {
            let mut run = command(&self.program);
            run.args(["run", "--", "sh", "-c", &script])
                .env("COFFERDAM_STATE", state.path());
            best.push(megabytes(BYTES, swallow(&mut run)?));
        }
        best.sort_by(f64::total_cmp);
        let mut bare = command(Path::new("/bin/sh"));
        bare.args(["-c", &script]);
        let peer = megabytes(BYTES, swallow(&mut bare)?);
        let ours = best.get(1).copied().unwrap_or_default();
        let text = format!("{ours:.0} MB/s (a bare pipe: {peer:.0} MB/s)");
        Ok(vec![
            Row::plain("output from a job to the client", text, ours).target(">= 300 MB/s"),
        ])
    }
}

/// A state directory, which is for one user alone.
fn place() -> Result<tempfile::TempDir> {
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    Ok(tempfile::Builder::new().permissions(private).tempdir()?)
}

fn per_second(count: usize, took: Duration) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / took.as_secs_f64()
}

fn megabytes(bytes: u64, took: Duration) -> f64 {
    f64::from(u32::try_from(bytes / 1_000_000).unwrap_or(u32::MAX)) / took.as_secs_f64()
}

/// A command with nothing of ours in its environment but a path.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the place that clears what a child inherits"
)]
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", "/nonexistent")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// The time from before the start of a process to after its end.
fn time(command: &mut Command) -> Result<Duration> {
    let start = Instant::now();
    let status = command.status()?;
    let took = start.elapsed();
    anyhow::ensure!(status.success(), "{command:?} failed: {status}");
    Ok(took)
}

/// Lets what a call leaves behind be finished, by us as by the kernel, so that no measure pays for the
/// one before it: taking a sandbox away and making the next spare one goes on after the answer. What
/// all of it costs together is what the outcomes per second show.
fn settle() {
    std::thread::sleep(Duration::from_millis(15));
}

/// Reads all that a command prints.
fn swallow(command: &mut Command) -> Result<Duration> {
    let start = Instant::now();
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut stdout = child.stdout.take().context("a pipe")?;
    let mut buffer = vec![0; 1 << 20];
    while std::io::Read::read(&mut stdout, &mut buffer)? > 0 {}
    anyhow::ensure!(child.wait()?.success(), "{command:?} failed");
    Ok(start.elapsed())
}
