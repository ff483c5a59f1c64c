//! `cofferdam node`: the nodes of a fleet.

use crate::cli::args::{NodeCommand, ServerCommand};
use crate::cli::failure::Failure;
use crate::cli::job::when;
use crate::cli::table;
use api::Code;
use api::client::{Client, ClientError};
use api::fleet::{EnrollTokenCreate, EnrollTokenView, NodeOrder, NodeView, ServerView};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

/// How often it is looked whether a node is empty.
const LOOK: Duration = Duration::from_millis(500);

/// Does what was asked about nodes.
pub(crate) async fn node(client: &Client, command: NodeCommand) -> Result<ExitCode, Failure> {
    let (id, order) = match command {
        NodeCommand::Ls { json } => return list(client, json).await,
        NodeCommand::Get { id, json } => return get(client, &id, json).await,
        NodeCommand::EnrollToken { ls: true, json, .. } => return tokens(client, json).await,
        NodeCommand::EnrollToken {
            revoke: Some(id),
            json,
            ..
        } => return revoke_token(client, &id, json).await,
        NodeCommand::EnrollToken { label, json, .. } => return token(client, &label, json).await,
        // It speaks to no server of this machine, so it was done before.
        NodeCommand::Enroll { .. } => return Ok(ExitCode::SUCCESS),
        NodeCommand::Cordon { id } => (id, NodeOrder::Cordon),
        NodeCommand::Uncordon { id } => (id, NodeOrder::Uncordon),
        NodeCommand::Drain {
            id,
            no_wait,
            deadline,
        } => return drain(client, &id, no_wait, deadline).await,
        NodeCommand::Decommission { id } => (id, NodeOrder::Decommission),
        NodeCommand::Rm { id } => {
            let view = client.node_forget(&id).await.map_err(about(&id))?;
            table::print(&format!("{}\n", view.id))?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    let view = client.node_change(&id, order).await.map_err(about(&id))?;
    table::print(&format!("{} {}\n", view.id, view.scheduling))?;
    Ok(ExitCode::SUCCESS)
}

/// Does what was asked about servers.
pub(crate) async fn server(client: &Client, command: &ServerCommand) -> Result<ExitCode, Failure> {
    let ServerCommand::Ls { json } = command;
    let list = client.server_list().await?;
    let head = ["NAME", "IS", "HEARD", "STARTED", "LINKS", "ADDRESS", "ID"];
    table::print(&if *json {
        table::to_json(&list)?
    } else {
        table::layout(&head, list.servers.iter().map(server_line).collect())
    })?;
    Ok(ExitCode::SUCCESS)
}

fn server_line(view: &ServerView) -> Vec<String> {
    let is = if view.heard { "there" } else { "silent" };
    vec![
        view.name.clone(),
        is.to_owned(),
        when(view.heard_at_ms),
        when(view.started_at_ms),
        view.links.len().to_string(),
        view.address.clone().unwrap_or_default(),
        view.id.clone(),
    ]
}

const HEAD: [&str; 7] = [
    "NAME",
    "IS",
    "GETS WORK",
    "JOBS",
    "SANDBOXES",
    "LABELS",
    "ID",
];

fn line(view: &NodeView) -> Vec<String> {
    let label = |(key, value): (&String, &String)| format!("{key}={value}");
    let labels: Vec<String> = view.labels.iter().map(label).collect();
    vec![
        view.name.clone(),
        view.connectivity.clone(),
        view.scheduling.clone(),
        format!("{}/{}", view.jobs, view.slots),
        view.sandboxes.to_string(),
        labels.join(" "),
        view.id.clone(),
    ]
}

async fn list(client: &Client, json: bool) -> Result<ExitCode, Failure> {
    let list = client.node_list().await?;
    table::print(&if json {
        table::to_json(&list)?
    } else {
        table::layout(&HEAD, list.nodes.iter().map(line).collect())
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn get(client: &Client, id: &str, json: bool) -> Result<ExitCode, Failure> {
    let view = client.node_get(id).await.map_err(about(id))?;
    table::print(&if json {
        table::to_json(&view)?
    } else {
        table::layout(&HEAD, vec![line(&view)])
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn drain(
    client: &Client,
    id: &str,
    no_wait: bool,
    deadline: Option<Duration>,
) -> Result<ExitCode, Failure> {
    let began = tokio::time::Instant::now();
    let mut view = client
        .node_change(id, NodeOrder::Drain)
        .await
        .map_err(about(id))?;
    while !no_wait && view.jobs + view.sandboxes > 0 {
        tokio::time::sleep(LOOK).await;
        // Again and again: what could not be ended at one moment can be at another.
        let is_over = deadline.is_some_and(|deadline| began.elapsed() >= deadline);
        view = match is_over {
            true => client.node_change(id, NodeOrder::Evict).await,
            false => client.node_get(id).await,
        }
        .map_err(about(id))?;
    }
    table::print(&format!("{} {}\n", view.id, view.scheduling))?;
    Ok(ExitCode::SUCCESS)
}

async fn tokens(client: &Client, json: bool) -> Result<ExitCode, Failure> {
    let list = client.enroll_token_list().await?;
    let head = ["ID", "STATE", "CREATED", "NODE"];
    table::print(&if json {
        table::to_json(&list)?
    } else {
        table::layout(&head, list.tokens.iter().map(token_line).collect())
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn revoke_token(client: &Client, id: &str, json: bool) -> Result<ExitCode, Failure> {
    let view = client.enroll_token_revoke(id).await?;
    table::print(&if json {
        table::to_json(&view)?
    } else {
        format!("{} {}\n", view.id, view.state)
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn token(client: &Client, labels: &[String], json: bool) -> Result<ExitCode, Failure> {
    let labels = labels.iter().map(|label| pair(label));
    let labels = labels.collect::<Result<BTreeMap<_, _>, _>>()?;
    let made = client
        .enroll_token_create(&EnrollTokenCreate { labels })
        .await?;
    table::print(&if json {
        table::to_json(&made)?
    } else {
        format!("{}\n", made.token.0)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn token_line(view: &EnrollTokenView) -> Vec<String> {
    vec![
        view.id.clone(),
        view.state.clone(),
        when(view.created_at_ms),
        view.node.clone().unwrap_or_default(),
    ]
}

fn pair(label: &str) -> Result<(String, String), Failure> {
    let pair = label.split_once('=');
    let pair = pair.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let wrong = || {
        Failure::new(
            Code::InvalidArgument,
            format!("--label takes KEY=VALUE, and not `{label}`"),
        )
    };
    pair.ok_or_else(wrong)
}

fn about(id: &str) -> impl Fn(ClientError) -> Failure {
    move |error| {
        if !error.is(Code::NotFound) {
            return error.into();
        }
        let failure = Failure::new(Code::NotFound, format!("there is no node `{id}`"));
        failure.hint("`cofferdam node ls` lists the nodes that there are")
    }
}
