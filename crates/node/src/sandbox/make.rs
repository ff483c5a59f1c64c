//! How a sandbox that lives on comes to stand.

use super::new_record;
use super::record;
use super::way::{self, WayOut};
use crate::job::{Broken, chain, insist};
use crate::secret::{self, Secrets};
use crate::spare::PROVISION;
use crate::{Node, convert, root, snapshot};
use api::job::Enforced;
use api::node::SandboxWork;
use api::secret::SecretsAsk;
use driver::driver::{Handle, Mode, Plan, Spec};
use driver::guest::message::{Serve, SmallFile};
use model::id::SandboxId;
use model::limits;
use model::spec::CODE_INTERPRETER;
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
    let secrets = secrets(node, work).await?;
    let standing = stand(node, &plan, work, secrets.as_ref());
    let stood = tokio::time::timeout(PROVISION, standing).await;
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
    let identity = work.spec.root_identity.as_deref();
    let spec = Spec {
        id,
        root: root::find(node, work.spec.root.as_deref(), identity)?,
        limits: convert::limits(work.spec.limits),
        life: Duration::from_millis(work.life_ms),
        mode: Mode::Live {
            allow_root: work.spec.allow_root,
        },
        way_out: work.spec.allow_internet,
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

/// The values that it uses. Together they go to the guest in one frame.
async fn secrets(node: &Node, work: &SandboxWork) -> Result<Option<Secrets>, String> {
    if work.spec.secrets.is_empty() {
        return Ok(None);
    }
    let ask = SecretsAsk { epoch: work.epoch };
    let client = &node.inner.client;
    let asking = insist(|| client.node_sandbox_secrets(&work.sandbox_id, ask));
    let answer = tokio::time::timeout(PROVISION, asking).await;
    let answer = answer.map_err(|_| "its secrets cannot be had: nobody answers".to_owned())?;
    let secrets = secret::read(answer)?;
    let env = secrets.env.iter().map(|(_, value)| value.len());
    let bytes: usize = secrets
        .files
        .iter()
        .map(|(_, bytes)| bytes.len())
        .chain(env)
        .sum();
    if bytes > limits::SECRET_VALUE_BYTES_MAX {
        return Err("its secrets are more than 64 KiB together".to_owned());
    }
    Ok(Some(secrets))
}

async fn stand(
    node: &Node,
    plan: &Plan,
    work: &SandboxWork,
    secrets: Option<&Secrets>,
) -> Result<Option<WayOut>, Broken> {
    let driver = &node.inner.driver;
    driver.start(plan).await?;
    node.at("node.sandbox_started");
    let stream = driver.connect(&plan.handle).await?;
    let given = secrets.iter().flat_map(|secrets| &secrets.env);
    let given = given.map(|(name, value)| (name.clone(), String::clone(value)));
    let files = secrets.iter().flat_map(|secrets| &secrets.files);
    let files = files.map(|(path, bytes)| SmallFile {
        path: path.clone(),
        mode: secret::MODE,
        bytes: bytes.to_vec(),
    });
    let proxied = work.spec.allow_internet.then(way::environment);
    // What somebody asked for by name comes last and counts.
    let env = proxied.into_iter().flatten().chain(work.spec.env.clone());
    let serve = Serve {
        confine: plan.confine.clone(),
        env: env.chain(given).collect(),
        allow_root: work.spec.allow_root,
        contexts: contexts(&work.spec.profile),
        files: files.collect(),
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
