//! `cofferdam node`: the nodes of a fleet.

use crate::cli::args::{NodeCommand, ServerCommand};
use crate::cli::failure::Failure;
use crate::cli::job::{row, when};
use crate::cli::table;
use crate::cli::units::{show_cpus, show_size};
use api::Code;
use api::client::{Client, ClientError};
use api::fleet::{
    EnrollTokenCreate, EnrollTokenView, NodeBusy, NodeHost, NodeLeftovers, NodeOrder, NodeView,
    ServerView,
};
use model::place::KIND;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

/// How often it is looked whether a node is empty.
const LOOK: Duration = Duration::from_millis(500);

/// Does what was asked about nodes.
pub(crate) async fn node(client: &Client, command: NodeCommand) -> Result<ExitCode, Failure> {
    let (id, order) = match command {
        NodeCommand::Ls { json } => return list(client, json).await,
        NodeCommand::Get { id, json } => {
            return get(client, &id_of(client, &id).await?, json).await;
        }
        NodeCommand::EnrollToken { ls: true, json, .. } => return tokens(client, json).await,
        NodeCommand::EnrollToken {
            revoke: Some(id),
            json,
            ..
        } => return revoke_token(client, &id, json).await,
        NodeCommand::EnrollToken {
            label, tag, json, ..
        } => return token(client, given(&label, &tag)?, json).await,
        // They speak to no server of this machine, so they were done before.
        NodeCommand::Enroll { .. } | NodeCommand::Reap { .. } | NodeCommand::Tape { .. } => {
            return Ok(ExitCode::SUCCESS);
        }
        NodeCommand::Cordon { id } => (id, NodeOrder::Cordon),
        NodeCommand::Uncordon { id } => (id, NodeOrder::Uncordon),
        NodeCommand::Drain {
            id,
            no_wait,
            deadline,
        } => return drain(client, &id_of(client, &id).await?, no_wait, deadline).await,
        NodeCommand::Decommission { id } => (id, NodeOrder::Decommission),
        NodeCommand::Rm { id } => {
            let id = id_of(client, &id).await?;
            let view = client.node_forget(&id).await.map_err(about(&id))?;
            table::print(&format!("{}\n", view.id))?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    let id = id_of(client, &id).await?;
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

const HEAD: [&str; 10] = [
    "NAME",
    "KIND",
    "IS",
    "GETS WORK",
    "JOBS",
    "SANDBOXES",
    "VERSION",
    "TAGS",
    "LABELS",
    "ID",
];

fn line(view: &NodeView) -> Vec<String> {
    vec![
        view.name.clone(),
        view.kind.clone().unwrap_or_default(),
        view.connectivity.clone(),
        view.scheduling.clone(),
        format!("{}/{}", view.jobs, view.slots),
        view.sandboxes.to_string(),
        version(view, " (old)"),
        view.tags.join(" "),
        shown_labels(view).join(" "),
        view.id.clone(),
    ]
}

/// The version of its program, and `old` where the server has a newer one.
fn version(view: &NodeView, old: &str) -> String {
    let old = if view.upgrade_available { old } else { "" };
    let version = view.version.as_deref();
    version.map_or_else(String::new, |version| format!("{version}{old}"))
}

/// The labels that are not shown by themselves: neither its tags nor its kind.
fn own_labels(view: &NodeView) -> impl Iterator<Item = (&String, &String)> {
    let labels = view.labels.iter();
    labels.filter(move |(key, value)| !value.is_empty() && (*key != KIND || view.kind.is_none()))
}

fn shown_labels(view: &NodeView) -> Vec<String> {
    own_labels(view).map(label_of).collect()
}

fn label_of((key, value): (&String, &String)) -> String {
    match value.is_empty() {
        true => key.clone(),
        false => format!("{key}={value}"),
    }
}

async fn list(client: &Client, json: bool) -> Result<ExitCode, Failure> {
    let list = client.node_list().await?;
    if !json && list.nodes.is_empty() {
        table::note("there are none; docs/fleet.md says how a machine becomes one");
        return Ok(ExitCode::SUCCESS);
    }
    table::print(&if json {
        table::to_json(&list)?
    } else {
        table::layout(&HEAD, list.nodes.iter().map(line).collect())
    })?;
    if let Some(left) = left_on(&list.nodes).filter(|_| !json) {
        table::note(&left);
    }
    Ok(ExitCode::SUCCESS)
}

async fn get(client: &Client, id: &str, json: bool) -> Result<ExitCode, Failure> {
    let view = client.node_get(id).await.map_err(about(id))?;
    table::print(&if json {
        table::to_json(&view)?
    } else {
        table::layout(&["", ""], facts(&view))
    })?;
    Ok(ExitCode::SUCCESS)
}

/// All that is known of one node.
fn facts(view: &NodeView) -> Vec<Vec<String>> {
    let mut rows = vec![
        row("node", &view.id),
        row("name", &view.name),
        row("kind", view.kind.as_deref().unwrap_or_default()),
        row("is", &view.connectivity),
        row("gets work", &view.scheduling),
        row("jobs", &format!("{} of {}", view.jobs, view.slots)),
        row("sandboxes", &view.sandboxes.to_string()),
    ];
    let times = [
        ("enrolled", view.enrolled_at_ms),
        ("leases until", view.lease_expires_at_ms),
    ];
    for (name, at) in times {
        rows.extend(at.map(|at| row(name, &format!("{} UTC", when(at)))));
    }
    if view.version.is_some() {
        rows.push(row("version", &version(view, ", older than the server")));
    }
    if view.failures > 0 {
        rows.push(row("failures", &view.failures.to_string()));
    }
    match &view.host {
        Some(host) => rows.extend(machine(host)),
        // Before its first heartbeat.
        None => rows.push(row("drivers", &view.drivers.join(" "))),
    }
    if !view.tags.is_empty() {
        rows.push(row("tags", &view.tags.join(" ")));
    }
    let (labels, facts) = (own_labels(view), view.facts.iter());
    rows.extend(labels.map(|(key, value)| row(&format!("label {key}"), value)));
    rows.extend(facts.map(|(key, value)| row(&format!("  {key}"), value)));
    rows
}

/// What its last heartbeat said of its machine; what it refuses first.
fn machine(host: &NodeHost) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    rows.extend(host.refuses.as_ref().map(|why| row("refuses work", why)));
    rows.extend(host.drivers.iter().map(|driver| {
        let is = match (&driver.why, driver.healthy) {
            (_, true) => "works".to_owned(),
            (Some(why), false) => format!("fails: {why}"),
            (None, false) => "fails".to_owned(),
        };
        row(&format!("driver {}", driver.name), &is)
    }));
    let of = |free, all| format!("{} free of {}", show_size(free), show_size(all));
    let load = match &host.busy {
        Some(busy) => {
            let all = [host.load_milli, busy.load_5_milli, busy.load_15_milli];
            format!("{} over 1, 5 and 15 min", all.map(show_cpus).join(", "))
        }
        None => show_cpus(host.load_milli),
    };
    let reserved = &host.reserved;
    let limits = format!(
        "{} of memory, {} of disk",
        show_size(reserved.memory_bytes),
        show_size(reserved.disk_bytes)
    );
    rows.extend([
        row("kernel", &host.kernel),
        row("processors", &format!("{}, load {load}", host.cpus)),
        row("memory", &of(host.memory_free_bytes, host.memory_bytes)),
        row("disk", &of(host.disk_free_bytes, host.disk_bytes)),
        row("limits name", &limits),
    ]);
    rows.extend(host.busy.iter().flat_map(busy));
    rows.extend(host.leftovers.iter().filter_map(left_behind));
    rows
}

/// What earlier nodes have left there, if anything was seen.
fn left_behind(found: &NodeLeftovers) -> Option<Vec<String>> {
    let more = if found.partial { " at least" } else { "" };
    let all = format!("{}{more}, {}", found.count, show_size(found.bytes));
    let said = format!("{all}; `cofferdam node reap` there lists it");
    (found.count > 0).then(|| row("left behind", &said))
}

/// What is said below a list of nodes on which something is left behind.
fn left_on(nodes: &[NodeView]) -> Option<String> {
    let host = |node: &NodeView| node.host.as_ref().and_then(|host| host.leftovers);
    let found = nodes.iter().filter_map(host);
    let found: Vec<NodeLeftovers> = found.filter(|found| found.count > 0).collect();
    let bytes = found.iter().map(|found| found.bytes);
    let bytes = show_size(bytes.fold(0, u64::saturating_add));
    (!found.is_empty()).then(|| {
        format!(
            "{} of these nodes have {bytes} left behind by earlier ones: `cofferdam node get NAME`",
            found.len()
        )
    })
}

/// What runs there by the node's own count, and what waits.
fn busy(busy: &NodeBusy) -> Vec<Vec<String>> {
    let runs = format!(
        "{} jobs, {} sandboxes, {} spare; {} threads on the machine",
        busy.jobs, busy.sandboxes, busy.spares, busy.threads
    );
    let percent = |milli: u32| format!("{}.{} %", milli / 10, milli % 10);
    let mut rows = vec![row("runs", &runs)];
    rows.extend(busy.pressure.map(|pressure| {
        let [cpu, memory, io] =
            [pressure.cpu_milli, pressure.memory_milli, pressure.io_milli].map(percent);
        let waits = format!("{cpu} for processors, {memory} for memory, {io} for disks");
        row("waits", &waits)
    }));
    rows
}

/// The id of a node that was named by its id, or by a name that no other has.
async fn id_of(client: &Client, named: &str) -> Result<String, Failure> {
    if named.starts_with("node_") {
        return Ok(named.to_owned());
    }
    let nodes = client.node_list().await?.nodes;
    let mut of_name = nodes.into_iter().filter(|node| node.name == named);
    match (of_name.next(), of_name.next()) {
        (Some(one), None) => Ok(one.id),
        (Some(_), Some(_)) => {
            let message = format!("several nodes are called `{named}`");
            let failure = Failure::new(Code::InvalidArgument, message);
            Err(failure.hint("name it by its id: `cofferdam node ls`"))
        }
        (None, _) => Err(no_node(named)),
    }
}

fn no_node(named: &str) -> Failure {
    let failure = Failure::new(Code::NotFound, format!("there is no node `{named}`"));
    failure.hint("`cofferdam node ls` lists the nodes that there are")
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
    let mut said = String::new();
    // Somebody may have said `uncordon` meanwhile: then nobody waits for the end of a drain.
    while !no_wait && view.scheduling == "draining" && view.jobs + view.sandboxes > 0 {
        let waits = waiting(&view);
        if said != waits {
            table::note(&waits);
            said = waits;
        }
        tokio::time::sleep(LOOK).await;
        // Again and again: what could not be ended at one moment can be at another.
        let is_over = deadline.is_some_and(|deadline| began.elapsed() >= deadline);
        view = match is_over {
            true => client.node_change(id, NodeOrder::Evict).await,
            false => client.node_get(id).await,
        }
        .map_err(about(id))?;
    }
    let is_empty = view.jobs + view.sandboxes == 0;
    let state = match view.scheduling.as_str() {
        "draining" if is_empty => "drained",
        other => other,
    };
    table::print(&format!("{} {state}\n", view.id))?;
    Ok(ExitCode::SUCCESS)
}

/// What a drain waits for.
fn waiting(view: &NodeView) -> String {
    let of = |count: u32, one: &str, more: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{count} {more}"),
    };
    let jobs = of(view.jobs, "job", "jobs");
    let sandboxes = of(view.sandboxes, "sandbox", "sandboxes");
    format!(
        "waiting for {jobs} and {sandboxes} to end; Ctrl-C stops only the waiting, and `cofferdam node uncordon \
         {}` the drain",
        view.id
    )
}

async fn tokens(client: &Client, json: bool) -> Result<ExitCode, Failure> {
    let list = client.enroll_token_list().await?;
    if !json && list.tokens.is_empty() {
        table::note("there are none; `cofferdam node enroll-token` makes one");
        return Ok(ExitCode::SUCCESS);
    }
    let head = ["ID", "STATE", "CREATED (UTC)", "NODE", "LABELS"];
    table::print(&if json {
        table::to_json(&list)?
    } else {
        table::layout(&head, list.tokens.iter().map(token_line).collect())
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn revoke_token(client: &Client, id: &str, json: bool) -> Result<ExitCode, Failure> {
    let view = client.enroll_token_revoke(id).await.map_err(|error| {
        if !error.is(Code::NotFound) {
            return Failure::from(error);
        }
        let failure = Failure::new(
            Code::NotFound,
            format!("there is no enrollment token `{id}`"),
        );
        failure.hint("`cofferdam node enroll-token --ls` lists them, by id")
    })?;
    table::print(&if json {
        table::to_json(&view)?
    } else {
        format!("{} {}\n", view.id, view.state)
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn token(
    client: &Client,
    labels: BTreeMap<String, String>,
    json: bool,
) -> Result<ExitCode, Failure> {
    let made = client
        .enroll_token_create(&EnrollTokenCreate { labels })
        .await
        .map_err(|error| match error.is(Code::Forbidden) {
            true => Failure::from(error).hint(
                "`cofferdam server` with [server.nodes] takes nodes in; `cofferdam up` has one of its own",
            ),
            false => error.into(),
        })?;
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
        view.labels
            .iter()
            .map(label_of)
            .collect::<Vec<_>>()
            .join(" "),
    ]
}

/// Labels, and tags, which are labels without a value.
fn given(labels: &[String], tags: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let mut all = labels
        .iter()
        .map(|label| pair(label))
        .collect::<Result<BTreeMap<_, _>, _>>()?;
    for tag in tags {
        if tag.is_empty() || tag.contains('=') {
            let message = format!("--tag takes a name, and not `{tag}`");
            return Err(
                Failure::new(Code::InvalidArgument, message).hint("--label takes KEY=VALUE")
            );
        }
        if all.insert(tag.clone(), String::new()).is_some() {
            let message = format!("`{tag}` was given twice");
            return Err(Failure::new(Code::InvalidArgument, message));
        }
    }
    Ok(all)
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
        no_node(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::fleet::{NodeDriver, NodePressure, NodeReserved};

    fn node() -> NodeView {
        NodeView {
            id: "node_1".to_owned(),
            name: "one".to_owned(),
            connectivity: "online".to_owned(),
            scheduling: "active".to_owned(),
            version: None,
            upgrade_available: false,
            kind: Some("server".to_owned()),
            slots: 4,
            jobs: 1,
            sandboxes: 0,
            drivers: vec!["linux".to_owned()],
            labels: BTreeMap::new(),
            tags: Vec::new(),
            failures: 0,
            host: None,
            facts: BTreeMap::new(),
            lease_expires_at_ms: None,
            enrolled_at_ms: None,
        }
    }

    fn shown(view: &NodeView) -> Vec<String> {
        let rows = facts(view).into_iter().skip(7);
        rows.map(|row| row.join(": ")).collect()
    }

    #[test]
    fn a_node_is_shown_with_its_machine_what_it_refuses_and_what_it_has_lost() {
        assert_eq!(shown(&node()), ["drivers: linux"]);
        let driver = |name: &str, why: Option<&str>| NodeDriver {
            name: name.to_owned(),
            healthy: why.is_none(),
            why: why.map(str::to_owned),
        };
        let host = NodeHost {
            kernel: "6.1".to_owned(),
            cpus: 2,
            load_milli: 1500,
            memory_bytes: 4 << 30,
            memory_free_bytes: 1 << 30,
            disk_bytes: 10 << 30,
            disk_free_bytes: 512 << 20,
            reserved: NodeReserved {
                memory_bytes: 256 << 20,
                disk_bytes: 0,
            },
            busy: None,
            leftovers: None,
            drivers: vec![driver("linux", None), driver("microvm", Some("no kvm"))],
            refuses: Some("the disk is full".to_owned()),
        };
        let view = NodeView {
            failures: 3,
            host: Some(host),
            ..node()
        };
        let expect = [
            "failures: 3",
            "refuses work: the disk is full",
            "driver linux: works",
            "driver microvm: fails: no kvm",
            "kernel: 6.1",
            "processors: 2, load 1.5",
            "memory: 1 GiB free of 4 GiB",
            "disk: 512 MiB free of 10 GiB",
            "limits name: 256 MiB of memory, 0 B of disk",
        ];
        assert_eq!(shown(&view), expect);
    }

    #[test]
    fn a_busy_machine_is_shown_with_what_runs_and_what_waits() {
        let pressure = NodePressure {
            cpu_milli: 12,
            memory_milli: 0,
            io_milli: 1000,
        };
        let mut host = NodeHost {
            load_milli: 1250,
            busy: Some(NodeBusy {
                load_5_milli: 600,
                load_15_milli: 0,
                threads: 345,
                jobs: 1,
                sandboxes: 2,
                spares: 3,
                pressure: Some(pressure),
            }),
            ..NodeHost::default()
        };
        let shown = |host: &NodeHost| -> Vec<String> {
            let rows = machine(host).into_iter();
            rows.map(|row| row.join(": ")).collect()
        };
        let rows = shown(&host);
        let load = "processors: 0, load 1.25, 0.6, 0 over 1, 5 and 15 min".to_owned();
        assert!(rows.contains(&load), "{rows:?}");
        let expect = [
            "runs: 1 jobs, 2 sandboxes, 3 spare; 345 threads on the machine",
            "waits: 1.2 % for processors, 0.0 % for memory, 100.0 % for disks",
        ];
        assert_eq!(rows[rows.len() - 2..], expect);
        host.busy = Some(NodeBusy::default());
        let last = shown(&host).pop().unwrap();
        assert_eq!(
            last,
            "runs: 0 jobs, 0 sandboxes, 0 spare; 0 threads on the machine"
        );
    }

    #[test]
    fn what_is_left_behind_is_shown_where_something_is() {
        let with = |count, partial| {
            let found = NodeLeftovers {
                count,
                bytes: 3 << 30,
                at_ms: 0,
                partial,
            };
            let host = NodeHost {
                leftovers: Some(found),
                ..NodeHost::default()
            };
            NodeView {
                host: Some(host),
                ..node()
            }
        };
        let last = |view: &NodeView| shown(view).pop().unwrap_or_default();
        assert_eq!(
            last(&with(2, false)),
            "left behind: 2, 3 GiB; `cofferdam node reap` there lists it"
        );
        assert!(last(&with(2, true)).starts_with("left behind: 2 at least, 3 GiB;"));
        assert!(last(&with(0, true)).starts_with("limits name: "));
        assert_eq!(left_on(&[with(0, false), node()]), None);
        let said = left_on(&[with(1, false), node(), with(2, true)]).unwrap();
        assert!(
            said.starts_with("2 of these nodes have 6 GiB left behind"),
            "{said}"
        );
    }

    #[test]
    fn tags_and_the_kind_are_shown_apart_from_labels() {
        let labels = [("gpu", ""), ("kind", "bridge"), ("zone", "a")];
        let view = NodeView {
            kind: Some("bridge".to_owned()),
            labels: labels
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            tags: vec!["gpu".to_owned()],
            ..node()
        };
        let expect = [
            "one", "bridge", "online", "active", "1/4", "0", "", "gpu", "zone=a", "node_1",
        ];
        assert_eq!(line(&view), expect);
        assert_eq!(HEAD.len(), expect.len());
        let rows = ["drivers: linux", "tags: gpu", "label zone: a"];
        assert_eq!(shown(&view), rows);
    }

    #[test]
    fn a_node_whose_program_is_older_than_the_servers_is_shown_as_such() {
        let now = NodeView {
            version: Some("0.0.1".to_owned()),
            ..node()
        };
        assert_eq!(line(&now)[6], "0.0.1");
        assert_eq!(shown(&now), ["version: 0.0.1", "drivers: linux"]);
        let old = NodeView {
            upgrade_available: true,
            ..now
        };
        assert_eq!((HEAD[6], &*line(&old)[6]), ("VERSION", "0.0.1 (old)"));
        let said = "version: 0.0.1, older than the server";
        assert_eq!(shown(&old), [said, "drivers: linux"]);
    }

    #[test]
    fn a_token_is_given_labels_and_tags_and_nothing_twice() {
        let texts =
            |all: &[&str]| -> Vec<String> { all.iter().map(|&one| one.to_owned()).collect() };
        let all = given(&texts(&["zone=a"]), &texts(&["gpu"])).unwrap();
        let expect =
            [("gpu", ""), ("zone", "a")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(all, BTreeMap::from(expect));
        let wrong: [(&[&str], &[&str]); 5] = [
            (&["gpu=a"], &["gpu"]),
            (&[], &["gpu", "gpu"]),
            (&[], &["a=b"]),
            (&[], &[""]),
            (&["gpu"], &[]),
        ];
        for (labels, tags) in wrong {
            assert!(
                given(&texts(labels), &texts(tags)).is_err(),
                "{labels:?} {tags:?}"
            );
        }
    }
}
