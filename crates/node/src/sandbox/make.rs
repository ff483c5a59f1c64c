//! How a sandbox that lives on comes to stand.

use super::new_record;
use super::record;
use super::way::{self, WayOut};
use crate::job::{Broken, chain};
use crate::spare::PROVISION;
use crate::{Node, convert, snapshot};
use api::job::Enforced;
use api::node::SandboxWork;
use driver::driver::{Handle, Mode, Plan, Spec};
use driver::guest::message::Serve;
use driver::host::Root;
use model::id::SandboxId;
use model::spec::CODE_INTERPRETER;
use std::path::Path;
use std::time::Duration;

/// A sandbox whose guest answers.
pub(super) struct Made {
    pub(super) handle: Handle,
    pub(super) enforcement: Vec<Enforced>,
    /// Where one was asked for.
    pub(super) way: Option<WayOut>,
}

/// Makes it, or says why not. What an earlier try left is taken away first: nobody was told of it.
pub(super) async fn make(node: &Node, work: &SandboxWork) -> Result<Made, String> {
    let plan = plan(node, work)?;
    if let Some(earlier) = record::of(node, &work.sandbox_id) {
        super::take_away(node, &earlier.handle).await;
    }
    let record = new_record(work, &plan);
    record::write(node, &record)
        .map_err(|error| format!("the node cannot write its records: {error}"))?;
    node.at("node.sandbox_recorded");
    let stood = tokio::time::timeout(PROVISION, stand(node, &plan, work)).await;
    let stood = stood.map_err(|_| Broken::Silent).flatten();
    match stood {
        Ok(way) => Ok(Made {
            enforcement: super::enforced(work, &plan),
            way,
            handle: plan.handle,
        }),
        Err(error) => Err(format!("the sandbox could not be made: {}", chain(&error))),
    }
}

fn plan(node: &Node, work: &SandboxWork) -> Result<Plan, String> {
    let id: SandboxId = work
        .sandbox_id
        .parse()
        .map_err(|_| "no sandbox has such an id")?;
    let root = work
        .spec
        .root
        .as_ref()
        .map(|path| Root::read(Path::new(path)));
    let root = root.transpose();
    let spec = Spec {
        id,
        root: root.map_err(|error| format!("the root file system cannot be read: {error}"))?,
        limits: convert::limits(work.spec.limits),
        life: Duration::from_millis(work.life_ms),
        mode: Mode::Live {
            allow_root: work.spec.allow_root,
        },
        layers: snapshot::layers(node, &work.spec.layers)?,
    };
    let plan = node.inner.driver.plan(&spec, &node.inner.host);
    plan.map_err(|refused| {
        let clauses = refused
            .iter()
            .map(|one| format!("{}: {}", one.clause, one.why));
        clauses.collect::<Vec<_>>().join("; ")
    })
}

async fn stand(node: &Node, plan: &Plan, work: &SandboxWork) -> Result<Option<WayOut>, Broken> {
    let driver = &node.inner.driver;
    driver.start(plan).await?;
    node.at("node.sandbox_started");
    let stream = driver.connect(&plan.handle).await?;
    let proxied = work.spec.allow_internet.then(way::environment);
    // What somebody asked for by name comes last and counts.
    let env = proxied.into_iter().flatten().chain(work.spec.env.clone());
    let serve = Serve {
        confine: plan.confine.clone(),
        env: env.collect(),
        allow_root: work.spec.allow_root,
        contexts: contexts(&work.spec.profile),
    };
    driver::guest::serve(stream, serve).await?;
    if !work.spec.allow_internet {
        return Ok(None);
    }
    // Before anybody can start anything inside: no program takes the port, and none finds it closed.
    way::open(node, &plan.handle).await.map(Some)
}

/// The contexts that a profile has started from the beginning.
fn contexts(profile: &str) -> Vec<String> {
    match profile {
        CODE_INTERPRETER => vec!["python".to_owned()],
        _ => Vec::new(),
    }
}
