//! What sandboxes use over time, as their nodes see it.

use super::owned;
use crate::{Ctx, Error, Service};
use model::access::Action;
use model::id::SandboxId;
use model::limits;
use model::usage::{UsagePoint, UsageSpan, spans};
use store::usage;

/// Sandboxes that are written at once: others wait for it.
const AT_ONCE: usize = 100;

/// What a node has seen of one sandbox; the times are its own, before this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The sandbox.
    pub id: SandboxId,
    /// Each with its age in milliseconds in place of a time, the oldest first.
    pub points: Vec<UsagePoint>,
}

impl Service {
    /// A node says what its sandboxes used. What it says of others, or of too long ago, is passed over.
    ///
    /// # Errors
    /// [`Error::LeaseToken`] without the name of the node's process; [`Error::Invalid`] for too much at once.
    pub async fn sandbox_usage_report(&self, ctx: &Ctx, seen: Vec<Seen>) -> Result<(), Error> {
        let node = ctx.only_node()?.clone();
        self.check_process(ctx).await?;
        check(&seen)?;
        let now = self.now_ms();
        for some in seen.chunks(AT_ONCE) {
            let some: Vec<Seen> = some.iter().map(|seen| seen.at(now)).collect();
            let node = node.clone();
            let write = move |tx: &mut store::Tx<'_>| {
                for seen in &some {
                    usage::append(tx, &node, &seen.id, &seen.points)?;
                }
                Ok(())
            };
            self.unit(write).await?;
        }
        Ok(())
    }

    /// What a sandbox used between two times, in at most [`limits::USAGE_SHOWN_MAX`] spans; `now`, if
    /// somebody has looked, is the newest moment.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn sandbox_usage(
        &self,
        ctx: &Ctx,
        id: &SandboxId,
        (from_ms, to_ms): (u64, u64),
        now: Option<UsagePoint>,
    ) -> Result<Vec<UsageSpan>, Error> {
        ctx.may(Action::SandboxRead)?;
        let (ctx, id) = (ctx.clone(), id.clone());
        let points = self.look(move |tx| {
            owned(tx, &ctx, &id)?;
            Ok(usage::list(tx, &id, from_ms, to_ms)?)
        });
        let mut points = points.await?;
        points.extend(now.filter(|now| (from_ms..=to_ms).contains(&now.at_ms)));
        Ok(spans(points, limits::USAGE_SHOWN_MAX as usize))
    }
}

impl Seen {
    /// With times in place of ages.
    fn at(&self, now: u64) -> Seen {
        let young = |point: &&UsagePoint| point.at_ms <= limits::USAGE_AGE_MAX_MS;
        let points = self.points.iter().filter(young);
        let points = points.map(|point| UsagePoint {
            at_ms: now.saturating_sub(point.at_ms),
            ..*point
        });
        Seen {
            id: self.id.clone(),
            points: points.collect(),
        }
    }
}

fn check(seen: &[Seen]) -> Result<(), Error> {
    let many = seen.len() > limits::NODE_SANDBOXES_MAX as usize;
    let long = |seen: &Seen| seen.points.len() > limits::USAGE_POINTS_MAX;
    if many || seen.iter().any(long) {
        let message = "a node may say less at once";
        return Err(Error::invalid("sandboxes", "too_many", message));
    }
    Ok(())
}
