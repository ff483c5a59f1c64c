//! What was run in sandboxes that live on: nodes tell it, people read it.
//!
//! A command without an end in a sandbox that is over has ended with it. That is not written: it is so
//! whenever somebody looks, whoever died on the way, and an end that comes late still counts.

pub(crate) mod told;

use crate::error::Fail;
use crate::sandbox::owned;
use crate::{Ctx, Error, Service};
use model::access::Action;
use model::id::SandboxId;
use model::limits;
use store::exec::{ExecRow, Kind, Of};
use store::{Tx, exec, sandbox};

/// A fact about a command. What was asked and how it ended are JSON objects, which are kept as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecFact {
    /// It was asked for.
    Started {
        /// Its number in the sandbox.
        seq: u64,
        /// When.
        at_ms: u64,
        /// It is code in a context, and no command.
        is_step: bool,
        /// What, and by whom.
        asked: String,
    },
    /// It ended.
    Ended {
        /// The number of its start.
        of: u64,
        /// When.
        at_ms: u64,
        /// How.
        end: String,
    },
    /// Here are some missing.
    Missed {
        /// The number of the gap.
        seq: u64,
        /// When it ended.
        at_ms: u64,
        /// How many.
        count: u64,
    },
}

impl ExecFact {
    /// The number of the row that it is about.
    fn seq(&self) -> u64 {
        match self {
            ExecFact::Started { seq, .. } | ExecFact::Missed { seq, .. } => *seq,
            ExecFact::Ended { of, .. } => *of,
        }
    }

    fn is_after(&self, seq: u64) -> bool {
        self.seq() > seq
    }
}

/// A page of what was run, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecPage {
    /// The rows.
    pub rows: Vec<ExecRow>,
    /// There may be more: the next page begins after the last of these.
    pub is_full: bool,
}

/// Where a page of all sandboxes goes on: after the row of this time, sandbox and number.
pub type ExecBefore = (u64, SandboxId, u64);

impl Service {
    /// A node says what was run in a sandbox. Says how many facts were new: the same again is stored once.
    ///
    /// # Errors
    /// [`Error::LeaseToken`]; [`Error::NotFound`] for a sandbox of another node, or of none; [`Error::TooMuch`] for too
    /// many facts.
    pub async fn exec_report(
        &self,
        ctx: &Ctx,
        id: &SandboxId,
        facts: Vec<ExecFact>,
    ) -> Result<u32, Error> {
        let node = ctx.only_node()?.clone();
        if facts.len() > limits::EXEC_FACTS_MAX {
            return Err(Error::TooMuch {
                code: "too_much",
                message: format!("a report has at most {} facts", limits::EXEC_FACTS_MAX),
            });
        }
        // A node whose process is another since is given no token for what is over.
        let shows = match self.check_lease(ctx, id.as_str(), None).await {
            Err(Error::LeaseToken) => {
                self.check_process(ctx).await?;
                false
            }
            checked => checked.map(|()| true)?,
        };
        let (id, principal, at_ms) = (id.clone(), ctx.principal.clone(), self.now_ms());
        self.unit(move |tx| {
            let row = sandbox::get(tx, None, &id)?.ok_or(Fail::Ours(Error::NotFound))?;
            // Also for one that is over: the last facts come after its end.
            if row.node.as_ref() != Some(&node) {
                return Err(Error::NotYourLease.into());
            }
            if !shows && !row.state.is_over() {
                return Err(Error::LeaseToken.into());
            }
            let of = Of {
                tenant: row.tenant,
                sandbox: id.clone(),
                principal: principal.clone(),
                at_ms,
            };
            keep(tx, (&of, row.exec_base), &facts)
        })
        .await
    }

    /// What was run in a sandbox, before the one with the number `before`, of one kind or of all, the newest
    /// first.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn exec_list(
        &self,
        ctx: &Ctx,
        id: &SandboxId,
        (kind, before): (Option<Kind>, Option<u64>),
        limit: u32,
    ) -> Result<ExecPage, Error> {
        ctx.may(Action::SandboxRead)?;
        let limit = limit.clamp(1, limits::PAGE_MAX);
        let (ctx, id) = (ctx.clone(), id.clone());
        self.look(move |tx| {
            owned(tx, &ctx, &id)?;
            let rows = exec::list(tx, &id, kind, before, limit)?;
            Ok(page(rows, limit))
        })
        .await
    }

    /// What was run in all sandboxes of a tenant, of one kind, the newest first.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `sandbox:read`.
    pub async fn exec_list_all(
        &self,
        ctx: &Ctx,
        (kind, before): (Kind, Option<ExecBefore>),
        limit: u32,
    ) -> Result<ExecPage, Error> {
        ctx.may(Action::SandboxRead)?;
        let limit = limit.clamp(1, limits::PAGE_MAX);
        let tenant = ctx.tenant.clone();
        self.look(move |tx| {
            let before = before.as_ref().map(|(ms, id, seq)| (*ms, id, *seq));
            let rows = exec::of_tenant(tx, &tenant, kind, before, limit)?;
            Ok(page(rows, limit))
        })
        .await
    }
}

fn page(rows: Vec<ExecRow>, limit: u32) -> ExecPage {
    let is_full = rows.len() >= limit as usize;
    ExecPage { rows, is_full }
}

/// Numbers of a report that are further away than this from what is known are not believed. A node counts its facts,
/// so they follow each other, and what it could not keep is counted too: so many are a day of a sandbox that does
/// nothing else.
const LEAP_MAX: u64 = 1 << 20;

/// Numbers up to `base` are those of a place before this one, which its own node has told.
fn keep(tx: &mut Tx<'_>, (of, base): (&Of, u64), facts: &[ExecFact]) -> Result<u32, Fail> {
    let stored = exec::list(tx, &of.sandbox, None, None, 1)?;
    let stored = stored.first().map_or(0, |row| row.seq).max(base);
    let newest = facts.iter().map(ExecFact::seq).max();
    let newest = newest.unwrap_or(0).max(stored);
    if newest - stored > LEAP_MAX {
        let message = format!("the facts that are known end with number {stored}");
        return Err(Error::invalid("facts.seq", "invalid_argument", message).into());
    }
    // What is gone by now has been here, and is not new again.
    let gone = newest.saturating_sub(limits::RETAIN_EXECS).max(base);
    let mut new = 0;
    for fact in facts.iter().filter(|fact| fact.is_after(gone)) {
        let is_new = match fact {
            ExecFact::Started {
                seq,
                at_ms,
                is_step,
                asked,
            } => {
                let kind = if *is_step { Kind::Step } else { Kind::Exec };
                let row = ExecRow {
                    started: Some(asked.clone()),
                    ..row(of, *seq, *at_ms, kind)
                };
                exec::insert(tx, &of.tenant, &row)?
            }
            ExecFact::Ended {
                of: seq,
                at_ms,
                end,
            } => finish(tx, of, *seq, *at_ms, end)?,
            ExecFact::Missed { seq, at_ms, count } => miss(tx, of, *seq, *at_ms, *count)?,
        };
        new += u32::from(is_new);
    }
    exec::prune(tx, &of.sandbox, newest.saturating_sub(limits::RETAIN_EXECS))?;
    Ok(new)
}

/// One of which only the beginning is known.
fn row(of: &Of, seq: u64, at_ms: u64, kind: Kind) -> ExecRow {
    ExecRow {
        sandbox: of.sandbox.clone(),
        seq,
        kind,
        started_at_ms: at_ms,
        ended_at_ms: None,
        started: None,
        ended: None,
        missed: None,
        over_at_ms: None,
    }
}

fn finish(tx: &mut Tx<'_>, of: &Of, seq: u64, at_ms: u64, end: &str) -> Result<bool, Fail> {
    if !exec::end(tx, &of.sandbox, seq, at_ms, end)? {
        return Ok(false);
    }
    exec::tell(tx, of, seq, "exec.ended", end)?;
    Ok(true)
}

fn miss(tx: &mut Tx<'_>, of: &Of, seq: u64, at_ms: u64, count: u64) -> Result<bool, Fail> {
    let row = ExecRow {
        ended_at_ms: Some(at_ms),
        missed: Some(count),
        ..row(of, seq, at_ms, Kind::Missed)
    };
    if !exec::insert(tx, &of.tenant, &row)? {
        return Ok(false);
    }
    let data = serde_json::json!({ "count": count }).to_string();
    exec::tell(tx, of, seq, "exec.missed", &data)?;
    Ok(true)
}
