//! `cofferdam sandbox`: sandboxes that live on.

use crate::cli::args::{SandboxArgs, SandboxCommand, SandboxForkArgs, SandboxNew};
use crate::cli::failure::Failure;
use crate::cli::inside;
use crate::cli::job::{clauses, row, when};
use crate::cli::net;
use crate::cli::run::{NOT_TAKEN, SLOW, root, variables};
use crate::cli::secret::uses;
use crate::cli::snapshot;
use crate::cli::table;
use crate::cli::units;
use crate::private::random_name;
use crate::signals::Signals;
use api::Code;
use api::client::{Client, ClientError, JobCreateOptions};
use api::job::LimitsAsked;
use api::sandbox::{
    OnExpiry, SandboxCreate, SandboxListQuery, SandboxPause, SandboxResume, SandboxStateName,
    SandboxTimeout, SandboxView,
};
use api::snapshot::{SandboxFork, SnapshotCreate};
use std::process::ExitCode;
use std::time::Duration;

/// How long a command waits for what it asked for: longer than a node takes for anything.
pub(super) const WAIT: Duration = Duration::from_secs(60);

/// The largest disk that is in memory wherever there is another: beyond it, a root that can be written has a file
/// system on the disk of its node.
const IN_MEMORY_MAX: u64 = 1 << 30;

/// Does what was asked about sandboxes.
pub(crate) async fn sandbox(client: &Client, args: SandboxArgs) -> Result<ExitCode, Failure> {
    let (view, json) = match args.command {
        SandboxCommand::Ls { all, limit, json } => {
            let over = [SandboxStateName::Destroyed, SandboxStateName::Failed];
            let mut states = SandboxStateName::ALL.to_vec();
            states.retain(|state| all || !over.contains(state));
            list(client, states, limit, json).await?;
            return Ok(ExitCode::SUCCESS);
        }
        SandboxCommand::Exec(args) => return inside::exec::exec(client, args).await,
        SandboxCommand::Shell(args) => return inside::shell::shell(client, args).await,
        SandboxCommand::Cp(args) => return inside::copy::copy(client, args).await,
        SandboxCommand::Port(args) => return inside::port::port(client, args).await,
        SandboxCommand::Log { id, limit, json } => {
            inside::log::log(client, known(&id)?, limit, json).await?;
            return Ok(ExitCode::SUCCESS);
        }
        SandboxCommand::Create(new) => {
            let json = new.json;
            (create(client, new, None).await?, json)
        }
        SandboxCommand::Restore { snapshot, new } => {
            let json = new.json;
            (create(client, new, Some(snapshot)).await?, json)
        }
        SandboxCommand::Snapshot { id, name, json } => {
            return copy(client, &id, name, json).await;
        }
        SandboxCommand::Fork(fork) => return split(client, fork).await,
        SandboxCommand::Recreate { id, json } => {
            let view = client.sandbox_recreate(known(&id)?, Some(WAIT)).await;
            (view.map_err(about(&id))?, json)
        }
        SandboxCommand::Get { id, json } => return get(client, &id, json).await,
        SandboxCommand::Pause {
            id,
            no_memory,
            json,
        } => (pause(client, &id, no_memory).await?, json),
        SandboxCommand::Resume {
            id,
            no_memory,
            json,
        } => (resume(client, &id, no_memory).await?, json),
        SandboxCommand::Ttl { id, time, json } => {
            let asked = SandboxTimeout {
                timeout_ms: millis(time),
            };
            let view = client.sandbox_timeout(known(&id)?, &asked).await;
            let view = view.map_err(about(&id))?;
            tell_cut(view.timeout_ms, Some(time));
            (view, json)
        }
        SandboxCommand::Net(asked) => return net::net(client, asked).await,
        SandboxCommand::Rm { id, json } => {
            let view = client.sandbox_destroy(known(&id)?, Some(WAIT)).await;
            (view.map_err(about(&id))?, json)
        }
    };
    table::print(&if json {
        table::to_json(&view)?
    } else {
        format!("{}\t{}\n", view.id, view.state.as_str())
    })?;
    let failed = view.state == SandboxStateName::Failed;
    if let Some(why) = view.reason.filter(|_| failed) {
        table::complain(&why);
    }
    Ok(ExitCode::from(u8::from(failed)))
}

async fn pause(client: &Client, id: &str, no_memory: bool) -> Result<SandboxView, Failure> {
    let memory = no_memory.then_some(false);
    let asked = SandboxPause { memory };
    let view = client.sandbox_pause(known(id)?, &asked, Some(WAIT));
    view.await.map_err(about(id))
}

async fn resume(client: &Client, id: &str, no_memory: bool) -> Result<SandboxView, Failure> {
    let memory = no_memory.then_some(false);
    let asked = SandboxResume { memory };
    let view = client.sandbox_resume(known(id)?, &asked, Some(WAIT));
    view.await.map_err(about(id))
}

async fn get(client: &Client, id: &str, json: bool) -> Result<ExitCode, Failure> {
    let view = client.sandbox_get(known(id)?).await;
    let view = view.map_err(about(id))?;
    table::print(&if json {
        table::to_json(&view)?
    } else {
        describe(&view)
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn copy(
    client: &Client,
    id: &str,
    name: Option<String>,
    json: bool,
) -> Result<ExitCode, Failure> {
    let asked = SnapshotCreate { name };
    let made = client.snapshot_create(known(id)?, &asked, Some(WAIT)).await;
    snapshot::show(&made.map_err(about(id))?, json)
}

async fn split(client: &Client, fork: SandboxForkArgs) -> Result<ExitCode, Failure> {
    let asked = SandboxFork {
        count: Some(fork.count),
        timeout_ms: fork.ttl.map(millis),
    };
    let forks = client.sandbox_fork(known(&fork.id)?, &asked).await;
    snapshot::forks(client, forks.map_err(about(&fork.id))?, fork.json).await
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// An id that can be in a path; an empty one would ask for something else.
pub(crate) fn known(id: &str) -> Result<&str, Failure> {
    if id.is_empty() {
        Err(no_sandbox(id))
    } else {
        Ok(id)
    }
}

pub(crate) fn no_sandbox(id: &str) -> Failure {
    let failure = Failure::new(Code::NotFound, format!("there is no sandbox `{id}`"));
    failure.hint("`cofferdam sandbox ls` lists the sandboxes of this server")
}

/// Names the sandbox that is not there.
pub(crate) fn about(id: &str) -> impl Fn(ClientError) -> Failure {
    move |error| {
        if error.is(Code::NotFound) {
            no_sandbox(id)
        } else {
            error.into()
        }
    }
}

async fn create(
    client: &Client,
    new: SandboxNew,
    snapshot: Option<String>,
) -> Result<SandboxView, Failure> {
    let named = snapshot.clone();
    if new.ttl == Some(Duration::ZERO) {
        let failure = Failure::new(Code::LimitZero, "--ttl must not be 0");
        return Err(failure.hint("leave it out to get 15 minutes, or say how long"));
    }
    let asked = SandboxCreate {
        name: new.name,
        profile: new.profile,
        snapshot,
        metadata: variables("--metadata", &new.metadata)?,
        env: variables("--env", &new.env)?,
        secrets: uses(&new.secret)?,
        scrub_patterns: new.scrub.is_some(),
        volumes: crate::cli::volume::uses(&new.volume)?,
        limits: LimitsAsked {
            cpu_millis: new.cpu,
            memory_bytes: new.memory,
            pids: new.pids,
            disk_bytes: new.disk,
        },
        timeout_ms: new.ttl.map(millis),
        on_expiry: match (new.pause_on_expiry, new.no_memory) {
            (true, true) => OnExpiry::PauseWithoutMemory,
            (true, false) => OnExpiry::Pause,
            (false, _) => OnExpiry::Kill,
        },
        allow_internet: new.internet,
        network: new.net.or_internet(new.internet)?,
        placement: new.placement.placement()?,
        allow_root: new.allow_root,
        root: new.root.as_deref().map(root).transpose()?,
        ..SandboxCreate::default()
    };
    if let Some(disk) = new.disk.filter(|disk| *disk > IN_MEMORY_MAX)
        && !new.allow_root
    {
        let disk = units::show_size(disk);
        table::note(&format!(
            "without --allow-root its disk of {disk} is memory, and the sandbox may take as much of it"
        ));
    }
    let made = until_made(client, &asked).await?;
    let view = made.map_err(|error| match named {
        Some(named) if error.is(Code::NotFound) => snapshot::no_snapshot(&named),
        _ => Failure::from(error),
    })?;
    tell_cut(view.timeout_ms, new.ttl);
    Ok(view)
}

/// Creates it, and waits until it can be used. Whoever does not want to wait any longer was not told its id, so that
/// it is taken away: the same key finds it, also where it was not made yet.
async fn until_made(
    client: &Client,
    asked: &SandboxCreate,
) -> Result<Result<SandboxView, ClientError>, Failure> {
    let mut signals = Signals::listen()?;
    let of_key = |wait, key: &str| JobCreateOptions {
        wait,
        idempotency_key: Some(key.to_owned()),
    };
    let key = random_name::<16>()?;
    let (waits, at_once) = (of_key(Some(WAIT), &key), of_key(None, &key));
    let mut making = std::pin::pin!(client.sandbox_create(asked, &waits));
    let mut slow = std::pin::pin!(async {
        tokio::time::sleep(SLOW).await;
        client.sandbox_create(asked, &at_once).await
    });
    let mut looked = false;
    let signal = loop {
        tokio::select! {
            made = &mut making => return Ok(made),
            seen = &mut slow, if !looked => {
                looked = true;
                if seen.is_ok_and(|view| view.state == SandboxStateName::Requested) {
                    table::note(NOT_TAKEN);
                }
            }
            signal = signals.next() => break signal,
        }
    };
    let taking_away = async {
        let view = client.sandbox_create(asked, &at_once).await?;
        client.sandbox_destroy(&view.id, None).await
    };
    tokio::select! {
        gone = taking_away => table::note(&match gone {
            Ok(view) => format!("{} is taken away", view.id),
            Err(_) => "it may have been made: `cofferdam sandbox ls` shows it".to_owned(),
        }),
        _ = signals.another() => {}
    }
    Err(Failure::Signaled(signal))
}

/// A time that is longer than may be is cut, and not refused.
pub(crate) fn tell_cut(lives_ms: u64, asked: Option<Duration>) {
    if asked.is_some_and(|asked| lives_ms < millis(asked)) {
        let lives = units::show_ms(lives_ms);
        table::note(&format!("its time was cut to {lives}, which is the most"));
    }
}

async fn list(
    client: &Client,
    states: Vec<SandboxStateName>,
    limit: u32,
    json: bool,
) -> Result<(), Failure> {
    let query = SandboxListQuery {
        states,
        limit: Some(limit),
        ..SandboxListQuery::default()
    };
    let page = client.sandbox_list(&query).await?;
    if json {
        return table::print(&table::to_json(&page)?);
    }
    if page.sandboxes.is_empty() {
        table::note("there are none; `cofferdam sandbox create` makes one");
        return Ok(());
    }
    let rows = page.sandboxes.iter().map(|one| {
        let until = one.expires_at_ms.map(when).unwrap_or_default();
        let name = one.name.clone().unwrap_or_default();
        let state = one.state.as_str();
        [
            row(&one.id, state),
            row(&when(one.created_at_ms), &until),
            vec![name],
        ]
        .concat()
    });
    let titles = ["ID", "STATE", "CREATED (UTC)", "UNTIL", "NAME"];
    table::print(&table::layout(&titles, rows.collect()))?;
    if page.next.is_some() {
        table::note("there are more; --limit shows up to 500");
    }
    Ok(())
}

fn describe(view: &SandboxView) -> String {
    let mut rows = vec![
        row("sandbox", &view.id),
        row("state", view.state.as_str()),
        row("created", &format!("{} UTC", when(view.created_at_ms))),
        row("lives for", &units::show_ms(view.timeout_ms)),
    ];
    rows.extend(view.node.as_ref().map(|node| row("node", node)));
    let until = view.expires_at_ms.map(|at| format!("{} UTC", when(at)));
    rows.extend(until.map(|until| row("until", &until)));
    let kept = view.memory_kept.map(|kept| match kept {
        true => "files and what runs",
        false => "files",
    });
    rows.extend(kept.map(|kept| row("keeps", kept)));
    rows.extend(view.name.as_ref().map(|name| row("name", name)));
    let began = view.spec.snapshot.as_ref();
    rows.extend(began.map(|snapshot| row("began with", snapshot)));
    rows.extend(net::rows(&view.network));
    if view.egress_denied > 0 {
        let denied = format!(
            "{}; see `cofferdam egress log {}`",
            view.egress_denied, view.id
        );
        rows.push(row("  denials", &denied));
    }
    rows.extend(view.reason.as_ref().map(|why| row("because", why)));
    let labels = view.metadata.iter();
    rows.extend(labels.map(|(key, value)| row(&format!("metadata {key}"), value)));
    table::layout(&["", ""], rows) + &clauses(&view.enforcement)
}
