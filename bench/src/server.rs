//! A running `cofferdam up`, as its users see it.

use crate::command;
use crate::timing::Row;
use anyhow::{Context as _, Result};
use api::client::{Client, Endpoint, JobCreateOptions};
use api::job::{JobCreate, OutcomeKind, StateName};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

/// No request of a benchmark takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The server.
pub(crate) struct Up {
    child: Child,
    socket: PathBuf,
}

impl Drop for Up {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        // It ends its launcher too when it is asked; killed, it would leave it.
        let _ = pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::TERM));
        drop(self.child.wait());
    }
}

impl Up {
    pub(crate) async fn start(program: &Path, state: &Path, args: &[&str]) -> Result<Up> {
        let mut up = command(program);
        up.args(["up", "--no-listen"]).args(args);
        up.env("COFFERDAM_STATE", state);
        let socket = state.join("cofferdam.sock");
        let server = Up {
            child: up.spawn()?,
            socket,
        };
        let until = std::time::Instant::now() + PATIENCE;
        while std::time::Instant::now() < until {
            if server.client().health_get().await.is_ok() {
                return Ok(server);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        anyhow::bail!("the server does not answer")
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(Endpoint::Unix(self.socket.clone()))
    }

    /// Private memory of a guest whose command sleeps, and what one more sandbox adds to the launcher.
    /// The server keeps no spares, whose guests would be counted too.
    pub(crate) async fn idle_sandbox_memory(&self) -> Result<Row> {
        const SANDBOXES: u64 = 8;
        let client = self.client();
        let before = private_kib("cofferdam-jail")?;
        let mut ids = Vec::new();
        for _ in 0..SANDBOXES {
            let asked = JobCreate {
                argv: argv(&["sleep", "30"]),
                ..JobCreate::default()
            };
            ids.push(
                client
                    .job_create(&asked, &JobCreateOptions::default())
                    .await?
                    .id,
            );
        }
        for id in &ids {
            while client.job_get(id).await?.state != StateName::Running {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let launcher = private_kib("cofferdam-jail")?.saturating_sub(before) / SANDBOXES;
        let guests = private_kib("cofferdam-guest")? / SANDBOXES;
        for id in &ids {
            client.job_cancel(id).await?;
        }
        let text = format!("guest {guests} KiB, launcher {launcher} KiB");
        let total = u32::try_from(guests + launcher).unwrap_or(u32::MAX);
        Ok(Row::plain(
            "private memory of one idle sandbox, KiB",
            text,
            f64::from(total),
        )
        .target("<= 1024"))
    }
}

fn argv(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// One job from the request to its outcome in the answer.
pub(crate) async fn job(client: &Client) -> Result<()> {
    let asked = JobCreate {
        argv: argv(&["true"]),
        ..JobCreate::default()
    };
    let options = JobCreateOptions {
        wait: Some(PATIENCE),
        ..JobCreateOptions::default()
    };
    let view = client.job_create(&asked, &options).await?;
    let outcome = view.outcome.context("an outcome")?;
    anyhow::ensure!(outcome.kind == OutcomeKind::Succeeded, "{outcome:?}");
    Ok(())
}

/// Private memory of all processes that run this program from memory, in KiB.
fn private_kib(program: &str) -> Result<u64> {
    let mut total = 0;
    for entry in std::fs::read_dir("/proc")? {
        let dir = entry?.path();
        let exe = std::fs::read_link(dir.join("exe")).unwrap_or_default();
        if !exe.to_string_lossy().contains(program) {
            continue;
        }
        let rollup = std::fs::read_to_string(dir.join("smaps_rollup")).unwrap_or_default();
        for line in rollup.lines().filter(|line| line.starts_with("Private_")) {
            let kib = line
                .split_whitespace()
                .nth(1)
                .and_then(|word| word.parse::<u64>().ok());
            total += kib.unwrap_or(0);
        }
    }
    Ok(total)
}
