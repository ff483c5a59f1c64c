//! `cofferdam snapshot`: saved file systems of sandboxes.

use crate::cli::args::{SnapshotArgs, SnapshotCommand};
use crate::cli::failure::Failure;
use crate::cli::job::{row, when};
use crate::cli::sandbox::WAIT;
use crate::cli::table;
use crate::cli::units;
use api::Code;
use api::client::{Client, ClientError};
use api::sandbox::SandboxStateName;
use api::snapshot::{ForkList, SnapshotListQuery, SnapshotStateName, SnapshotView};
use std::process::ExitCode;

/// Does what was asked about snapshots.
pub(crate) async fn snapshot(client: &Client, args: SnapshotArgs) -> Result<ExitCode, Failure> {
    match args.command {
        SnapshotCommand::Ls {
            sandbox,
            name,
            limit,
            json,
        } => {
            let query = SnapshotListQuery {
                sandbox,
                name,
                limit: Some(limit),
                before: None,
            };
            list(client, &query, json).await?;
            Ok(ExitCode::SUCCESS)
        }
        SnapshotCommand::Get { id, json } => {
            let view = client.snapshot_get(known(&id)?).await;
            let view = view.map_err(about(&id))?;
            if json {
                return show(&view, json);
            }
            table::print(&describe(&view))?;
            Ok(ExitCode::SUCCESS)
        }
        SnapshotCommand::Rm { id, json } => {
            let view = client.snapshot_delete(known(&id)?).await;
            show(&view.map_err(about(&id))?, json)
        }
    }
}

/// An id that can be in a path; an empty one would ask for something else.
fn known(id: &str) -> Result<&str, Failure> {
    if id.is_empty() {
        Err(no_snapshot(id))
    } else {
        Ok(id)
    }
}

pub(super) fn no_snapshot(id: &str) -> Failure {
    let failure = Failure::new(Code::NotFound, format!("there is no snapshot `{id}`"));
    failure.hint("`cofferdam snapshot ls` lists the snapshots of this server")
}

/// Names the snapshot that is not there.
fn about(id: &str) -> impl Fn(ClientError) -> Failure {
    move |error| {
        if error.is(Code::NotFound) {
            no_snapshot(id)
        } else {
            error.into()
        }
    }
}

/// Prints a snapshot. One that failed is a failure.
pub(super) fn show(view: &SnapshotView, json: bool) -> Result<ExitCode, Failure> {
    table::print(&if json {
        table::to_json(view)?
    } else {
        format!("{}\t{}\n", view.id, view.state.as_str())
    })?;
    let failed = view.state == SnapshotStateName::Failed;
    if let Some(why) = view.reason.as_ref().filter(|_| failed) {
        table::complain(why);
    }
    Ok(ExitCode::from(u8::from(failed)))
}

/// Waits for each of a fork and prints them. Fails when one of them did not come to be.
pub(super) async fn forks(
    client: &Client,
    mut list: ForkList,
    json: bool,
) -> Result<ExitCode, Failure> {
    let mut failed = false;
    let mut rows = Vec::new();
    for fork in &mut list.forks {
        if let Some(sandbox) = &mut fork.sandbox {
            **sandbox = client.sandbox_wait(&sandbox.id, WAIT).await?;
            failed |= sandbox.state != SandboxStateName::Ready;
            rows.push(row(&sandbox.id, sandbox.state.as_str()));
        }
        if let Some(error) = fork.error.as_ref().filter(|_| !json) {
            table::complain(&error.message);
        }
        failed |= fork.error.is_some();
    }
    table::print(&if json {
        table::to_json(&list)?
    } else {
        table::layout(&["ID", "STATE"], rows)
    })?;
    Ok(ExitCode::from(u8::from(failed)))
}

async fn list(client: &Client, query: &SnapshotListQuery, json: bool) -> Result<(), Failure> {
    let page = client.snapshot_list(query).await?;
    if json {
        return table::print(&table::to_json(&page)?);
    }
    if page.snapshots.is_empty() {
        table::note("there are none; `cofferdam sandbox snapshot` makes one");
        return Ok(());
    }
    let rows = page.snapshots.iter().map(|one| {
        let size = one.size_bytes.map(units::show_size).unwrap_or_default();
        let name = one.name.clone().unwrap_or_default();
        [
            row(&one.id, one.state.as_str()),
            row(&when(one.created_at_ms), &size),
            row(&one.sandbox, &name),
        ]
        .concat()
    });
    let titles = ["ID", "STATE", "CREATED (UTC)", "SIZE", "SANDBOX", "NAME"];
    table::print(&table::layout(&titles, rows.collect()))?;
    if page.next.is_some() {
        table::note("there are more; --limit shows up to 500");
    }
    Ok(())
}

fn describe(view: &SnapshotView) -> String {
    let mut rows = vec![
        row("snapshot", &view.id),
        row("state", view.state.as_str()),
        row("keeps", "files"),
        row("created", &format!("{} UTC", when(view.created_at_ms))),
        row("sandbox", &view.sandbox),
        row("node", &view.node),
    ];
    let size = view.size_bytes.map(units::show_size);
    rows.extend(size.map(|size| row("size", &size)));
    rows.extend(view.name.as_ref().map(|name| row("name", name)));
    rows.extend(view.parents.iter().map(|id| row("stands on", id)));
    rows.extend(view.reason.as_ref().map(|why| row("because", why)));
    table::layout(&["", ""], rows)
}
