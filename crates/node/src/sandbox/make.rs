//! How a sandbox that lives on comes to stand.

use super::record::{self, Record};
use super::{Keeper, start, trust};
use crate::inspect::{self, Looks};
use crate::job::{Broken, chain, insist};
use crate::secret::{self, Secrets};
use crate::spare::PROVISION;
use crate::way::{self, WayOut};
use crate::{Node, convert, root, snapshot, volume};
use ::egress::index;
use ::egress::inspect::Inspector;
use ::egress::inspect::rule::SecretField;
use ::egress::upstream::Password;
use api::job::Enforced;
use api::node::SandboxWork;
use api::secret::{SecretGiven, SecretUse, SecretsAsk, SecretsGiven};
use driver::driver::{Handle, Mode, Plan, Spec};
use driver::guest::message::{Serve, egress_env};
use model::id::SandboxId;
use model::limits;
use model::network::NetworkRules;
use model::spec::CODE_INTERPRETER;
use scrub::Known;
use std::sync::Arc;
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
    let rules = convert::network(&work.spec.network)?;
    let plan = plan(node, work, &rules)?;
    if let Some(earlier) = record::of(node, &work.sandbox_id) {
        super::take_away(node, &earlier.handle).await;
    }
    let mut enforcement = enforced(node, &plan, &rules);
    let write = |enforcement: &[Enforced]| {
        let record = Record::new(work, plan.handle.clone(), enforcement.to_vec());
        record::write(node, &record)
            .map_err(|error| format!("the node cannot write its records: {error}"))
    };
    write(&enforcement)?;
    node.at("node.sandbox_recorded");
    let mut secrets = secrets(node, work).await?;
    let looks = looks(node, &work.sandbox_id, (secrets.as_mut(), &rules))?;
    let standing = stand(node, &plan, (work, rules), (secrets.as_ref(), looks));
    let stood = tokio::time::timeout(PROVISION, standing).await;
    let stood = stood.map_err(|_| Broken::Silent).flatten();
    let (way, trusted) = match stood {
        Ok(stood) => stood,
        Err(error) => return Err(not_made(node, &plan.handle, &error).await),
    };
    if let Some(clause) = trusted {
        trust::say(&mut enforcement, clause);
        write(&enforcement)?;
    }
    if let Some(start) = &work.spec.start {
        start::start(node, &plan.handle, start).await?;
    }
    Ok(Made {
        enforcement,
        way,
        handle: plan.handle,
    })
}

/// How long the words of a sandbox that has ended are waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why it does not stand. One that ended before its guest could answer says more than the connection that broke.
async fn not_made(node: &Node, handle: &Handle, error: &Broken) -> String {
    let ended = tokio::time::timeout(LAST_WORDS, node.inner.driver.ended(handle)).await;
    let said = ended.ok().and_then(Result::ok);
    let said = said.and_then(|ended| ended.failure);
    let why = said.unwrap_or_else(|| chain(error));
    format!("the sandbox could not be made: {why}")
}

/// What is in force around it, the way out included.
fn enforced(node: &Node, plan: &Plan, rules: &NetworkRules) -> Vec<Enforced> {
    let mut enforced = convert::enforced(&plan.enforced);
    way::describe(&mut enforced, rules, &node.inner.host);
    enforced
}

fn plan(node: &Node, work: &SandboxWork, rules: &NetworkRules) -> Result<Plan, String> {
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
        way_out: rules.has_way_out(),
        layers: snapshot::layers(node, &work.spec.layers)?,
        volumes: volume::of(node, &work.spec.volumes)?,
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
    let mut given = ask(node, &work.sandbox_id, work.epoch).await?;
    // Others may have come for what leaves meanwhile; they are for the rules that came with them.
    given
        .secrets
        .retain(|one| work.spec.secrets.contains(&used(one)));
    let secrets = secret::of(given)?;
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

async fn ask(node: &Node, id: &str, epoch: u64) -> Result<SecretsGiven, String> {
    let ask = SecretsAsk { epoch };
    let client = &node.inner.client;
    let asking = insist(|| client.node_sandbox_secrets(id, ask));
    let answer = tokio::time::timeout(PROVISION, asking).await;
    let answer = answer.map_err(|_| "its secrets cannot be had: nobody answers".to_owned())?;
    answer.map_err(|error| format!("its secrets cannot be had: {}", error.body().message))
}

/// The same for a sandbox that stands, by the order that was carried out last.
async fn ask_again(node: &Node, id: &str) -> Result<SecretsGiven, String> {
    let order = |keeper: &Keeper| keeper.orders.borrow().epoch();
    let epoch = node.kept().get(id).map(order);
    ask(node, id, epoch.ok_or("it is not taken up yet")?).await
}

fn used(given: &SecretGiven) -> SecretUse {
    SecretUse {
        name: given.name.clone(),
        version: Some(given.version),
        how: given.how.clone(),
    }
}

/// The values of these secrets for what leaves, of a sandbox that stands.
///
/// # Errors
/// They cannot be had, or they are others by now: then newer rules are on their way.
pub(super) async fn leaving(
    node: &Node,
    id: &str,
    wanted: &[SecretUse],
) -> Result<Secrets, String> {
    let mut given = ask_again(node, id).await?;
    given.secrets.retain(|one| wanted.contains(&used(one)));
    if given.secrets.len() < wanted.len() {
        return Err("its secrets are others by now".to_owned());
    }
    secret::of(given)
}

/// What looks into its HTTPS, where there are rules about requests or secrets for what leaves.
fn looks(
    node: &Node,
    id: &str,
    (secrets, rules): (Option<&mut Secrets>, &NetworkRules),
) -> Result<Option<Looks>, String> {
    let taken = secrets.map(|secrets| {
        let fields = std::mem::take(&mut secrets.fields);
        (fields, secrets.password.take(), secrets.sent.clone())
    });
    let (fields, password, sent) = taken.unwrap_or_default();
    if fields.is_empty() && password.is_none() && !rules.needs_trust() {
        return Ok(None);
    }
    look(node, id, (fields, password, sent)).map(Some)
}

/// What looks into its HTTPS, with the authority that it has or a new one.
pub(super) fn look(
    node: &Node,
    id: &str,
    (fields, password, sent): (Vec<SecretField>, Option<Password>, Option<Arc<Known>>),
) -> Result<Looks, String> {
    let dir = record::dir_of(node, id).ok_or("no sandbox has such an id")?;
    let looks = inspect::open(node, &dir, fields, sent)?;
    Ok(Looks {
        inspector: looks.inspector.with_password(password),
        ..looks
    })
}

/// The same again for a sandbox that stands, as soon as its secrets can be had. Until then nothing is let out:
/// without them its requests would leave unjudged.
pub(super) async fn look_again(node: Node, id: String) -> Inspector {
    let mut pause = Duration::from_millis(100);
    let mut said = String::new();
    loop {
        // Read anew each time: other rules may be in force by now.
        let looks = leaving_again(&node, &id)
            .await
            .and_then(|secrets| look(&node, &id, (secrets.fields, secrets.password, secrets.sent)));
        match looks {
            Ok(looks) => return looks.inspector,
            // Once for each reason: a version that is gone does not come back, and this goes on.
            Err(why) if why != said => {
                tracing::warn!(sandbox.id = id, why, "secrets cannot be had again yet");
                said = why;
            }
            Err(_) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(30));
    }
}

/// Those that are in force by its record. One of an older build does not say which: all that there are.
async fn leaving_again(node: &Node, id: &str) -> Result<Secrets, String> {
    if let Some(wanted) = record::leaving_of(node, id) {
        return leaving(node, id, &wanted).await;
    }
    let secrets = secret::of(ask_again(node, id).await?)?;
    if secrets.fields.is_empty() && secrets.password.is_none() {
        return Err("a sandbox has lost its secrets".to_owned());
    }
    Ok(secrets)
}

/// Starts it and sets it up. Says whom its programs trust, where that is more than the machine does.
async fn stand(
    node: &Node,
    plan: &Plan,
    (work, rules): (&SandboxWork, NetworkRules),
    (secrets, looks): (Option<&Secrets>, Option<Looks>),
) -> Result<(Option<WayOut>, Option<Enforced>), Broken> {
    let driver = &node.inner.driver;
    driver.start(plan).await?;
    node.at("node.sandbox_started");
    let stream = driver.connect(&plan.handle).await?;
    let proxied = rules.has_way_out().then(egress_env);
    // What somebody asked for by name comes last and counts.
    let trusted = looks.as_ref().map(|_| inspect::environment());
    let env = proxied.into_iter().flatten();
    let env = env.chain(trusted.into_iter().flatten());
    let env = env.chain(index::environment(&rules.dependencies));
    let env = env.chain(work.spec.env.clone());
    let mut serve = Serve {
        confine: plan.confine.clone(),
        env: env.collect(),
        allow_root: work.spec.allow_root,
        contexts: contexts(&work.spec.profile),
        files: Vec::new(),
        secrets: Vec::new(),
        scrub_patterns: work.spec.scrub_patterns,
        user: work.spec.user.clone().unwrap_or_default(),
        workdir: work.spec.workdir.clone().unwrap_or_default(),
    };
    if let Some(secrets) = secrets {
        secrets.add_to(&mut serve);
    }
    driver::guest::serve(stream, serve).await?;
    let trusted = match &looks {
        Some(looks) => trust::put(node, &plan.handle, looks).await?,
        None => None,
    };
    if !rules.has_way_out() {
        return Ok((None, trusted));
    }
    // Before anybody can start anything inside: no program takes the port, and none finds it closed.
    let inspector = looks.map(|looks| looks.inspector);
    let way = way::open(node, &plan.handle, None, (rules, inspector)).await?;
    Ok((Some(way), trusted))
}

/// The contexts that a profile has started from the beginning.
fn contexts(profile: &str) -> Vec<String> {
    match profile {
        CODE_INTERPRETER => vec!["python".to_owned()],
        _ => Vec::new(),
    }
}
