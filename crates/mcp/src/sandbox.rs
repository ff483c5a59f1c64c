//! Sandboxes that live on: made, listed, given more time, destroyed.

use api::Code;
use api::client::JobCreateOptions;
use api::sandbox::{
    SandboxConnect, SandboxCreate, SandboxListQuery, SandboxStateName, SandboxView,
};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::answer::{Answer, Sandbox, Sandboxes};
use crate::args;
use crate::bound::cut;
use crate::call::{Hand, known};
use crate::refusal::Refusal;
use crate::run::limits;

/// How long a call waits for a sandbox: longer than a node takes for anything.
const WAIT: Duration = Duration::from_secs(60);
/// How long a sandbox may wait for a node: nobody waits longer for a tool.
const QUEUE_MS: u64 = 60_000;
/// How long one lives when nobody says.
const TTL_DEFAULT_S: u32 = 900;
/// The longest life.
const TTL_MAX_S: u32 = 86_400;
/// Sandboxes of one page.
const PAGE: u32 = 50;
/// Says who made it.
const MADE_BY: (&str, &str) = ("made_by", "mcp");

pub(crate) async fn create(hand: &Hand<'_>, args: args::SandboxCreate) -> Result<Answer, Refusal> {
    // Where nobody says, the profile may.
    let is_said = args.ttl_s.is_some() || args.profile.is_none();
    let timeout_ms = ttl_ms(args.ttl_s.unwrap_or(TTL_DEFAULT_S))?;
    let asked = SandboxCreate {
        name: args.name,
        metadata: [MADE_BY]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        env: args.env,
        limits: limits(args.limits),
        allow_internet: args.internet,
        allow_root: args.root,
        timeout_ms: Some(timeout_ms).filter(|_| is_said),
        profile: args.profile,
        queue_timeout_ms: Some(QUEUE_MS),
        node: hand.way.node.clone(),
        ..SandboxCreate::default()
    };
    let options = JobCreateOptions {
        wait: Some(WAIT),
        idempotency_key: None,
    };
    // Waited for even when it is not wanted any more: its id is needed to take it away.
    let view = hand.client().sandbox_create(&asked, &options).await?;
    if hand.call.is_canceled() {
        // Nobody would know its id; its time to live ends it if this cannot be said.
        drop(hand.client().sandbox_destroy(&view.id, None).await);
        return Err(Refusal::canceled());
    }
    match view.state {
        SandboxStateName::Ready => Ok(answer(&view)),
        SandboxStateName::Failed | SandboxStateName::Destroyed => Err(fell(&view)),
        SandboxStateName::Requested
        | SandboxStateName::Provisioning
        | SandboxStateName::Pausing
        | SandboxStateName::Paused
        | SandboxStateName::Resuming
        | SandboxStateName::Snapshotting
        | SandboxStateName::Recreating
        | SandboxStateName::Destroying => {
            let message = format!(
                "{} is not ready yet; it is {}",
                view.id,
                view.state.as_str()
            );
            Err(Refusal::new(Code::NoCapacity, message)
                .hint("look with sandbox_list in a moment, or destroy one that is not needed"))
        }
    }
}

fn fell(view: &SandboxView) -> Refusal {
    let why = view.reason.as_deref().unwrap_or("nobody knows why");
    Refusal::new(
        Code::DriverFailed,
        format!("the sandbox could not be made: {}", cut(why, 1024)),
    )
    .hint("ask for less; if it stays so, a person finds out with `cofferdam doctor`")
}

fn ttl_ms(seconds: u32) -> Result<u64, Refusal> {
    if (1..=TTL_MAX_S).contains(&seconds) {
        return Ok(u64::from(seconds) * 1000);
    }
    Err(Refusal::argument("ttl_s", "is 1 to 86400"))
}

pub(crate) async fn list(hand: &Hand<'_>, args: args::SandboxList) -> Result<Answer, Refusal> {
    let over = [SandboxStateName::Destroyed, SandboxStateName::Failed];
    let mut states = SandboxStateName::ALL.to_vec();
    states.retain(|state| args.all || !over.contains(state));
    let query = SandboxListQuery {
        states,
        limit: Some(PAGE),
        before: args.cursor,
        ..SandboxListQuery::default()
    };
    let asking = async { Ok(hand.client().sandbox_list(&query).await?) };
    let page = hand.unless_canceled(asking).await?;
    let listed = Sandboxes {
        sandboxes: page.sandboxes.iter().map(told).collect(),
        cursor: page.next,
    };
    let mut lines: Vec<String> = listed.sandboxes.iter().map(Sandbox::line).collect();
    if lines.is_empty() {
        lines.push("there are no sandboxes; sandbox_create makes one".to_owned());
    }
    if let Some(cursor) = &listed.cursor {
        lines.push(format!("more: sandbox_list with cursor {cursor}"));
    }
    Ok(Answer::new(lines.join("\n"), &listed))
}

pub(crate) async fn extend(hand: &Hand<'_>, args: args::SandboxExtend) -> Result<Answer, Refusal> {
    let id = known("sandbox_id", &args.sandbox_id)?;
    let asked = SandboxConnect {
        timeout_ms: Some(ttl_ms(args.ttl_s)?),
        memory: None,
    };
    let asking = async {
        Ok(hand
            .client()
            .sandbox_connect(id, &asked, Some(WAIT))
            .await?)
    };
    Ok(answer(&hand.unless_canceled(asking).await?))
}

pub(crate) async fn destroy(
    hand: &Hand<'_>,
    args: args::SandboxDestroy,
) -> Result<Answer, Refusal> {
    let id = known("sandbox_id", &args.sandbox_id)?;
    // Nobody waits for the end: nothing in it can be used any more.
    let view = hand.client().sandbox_destroy(id, None).await?;
    Ok(answer(&view))
}

fn answer(view: &SandboxView) -> Answer {
    let told = told(view);
    Answer::new(told.line(), &told)
}

fn told(view: &SandboxView) -> Sandbox {
    Sandbox {
        sandbox_id: view.id.clone(),
        state: view.state.as_str().to_owned(),
        name: view.name.as_deref().map(|name| cut(name, 128)),
        expires_in_s: view.expires_at_ms.map(seconds_until),
        internet: view.spec.allow_internet,
        root: view.spec.allow_root,
        reason: view.reason.as_deref().map(|reason| cut(reason, 512)),
    }
}

/// By our own clock, which for a server elsewhere is only about right.
#[expect(
    clippy::disallowed_methods,
    reason = "it is shown, and nothing is decided by it"
)]
fn seconds_until(at_ms: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
    at_ms.saturating_sub(now_ms).div_ceil(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_a_second_to_a_day() {
        assert_eq!(ttl_ms(1).unwrap(), 1000);
        assert_eq!(ttl_ms(86_400).unwrap(), 86_400_000);
        assert!(ttl_ms(0).is_err() && ttl_ms(86_401).is_err());
        assert_eq!(seconds_until(0), 0);
    }
}
