//! What was run in sandboxes that live on: nodes tell it, people read it.
//!
//! A command without an end in a sandbox that is over has ended with it. That is not written: it is so
//! whenever somebody looks, whoever died on the way, and an end that comes late still counts.

pub(crate) mod told;

use crate::error::Fail;
use crate::{Ctx, Error, Service};
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
    /// [`Error::NotFound`] for a sandbox of another node, or of none; [`Error::Invalid`] for too many facts.
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
        let (id, principal, at_ms) = (id.clone(), ctx.principal.clone(), self.now_ms());
        self.unit(move |tx| {
            let row = sandbox::get(tx, None, &id)?.ok_or(Fail::Ours(Error::NotFound))?;
            // Also for one that is over: the last facts come after its end.
            if row.node.as_ref() != Some(&node) {
                return Err(Error::NotYourLease.into());
            }
            let of = Of {
                tenant: row.tenant,
                sandbox: id.clone(),
                principal: principal.clone(),
                at_ms,
            };
            keep(tx, &of, &facts)
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
        ctx.only_user()?;
        let limit = limit.clamp(1, limits::PAGE_MAX);
        let (tenant, id) = (ctx.tenant.clone(), id.clone());
        self.look(move |tx| {
            let row = sandbox::get(tx, Some(&tenant), &id)?;
            row.ok_or(Fail::Ours(Error::NotFound))?;
            let rows = exec::list(tx, &id, kind, before, limit)?;
            Ok(page(rows, limit))
        })
        .await
    }

    /// What was run in all sandboxes of a tenant, of one kind, the newest first.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for a node.
    pub async fn exec_list_all(
        &self,
        ctx: &Ctx,
        (kind, before): (Kind, Option<ExecBefore>),
        limit: u32,
    ) -> Result<ExecPage, Error> {
        ctx.only_user()?;
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

fn keep(tx: &mut Tx<'_>, of: &Of, facts: &[ExecFact]) -> Result<u32, Fail> {
    let (mut new, mut newest) = (0, 0);
    for fact in facts {
        let (seq, is_new) = match fact {
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
                (*seq, exec::insert(tx, &of.tenant, &row)?)
            }
            ExecFact::Ended {
                of: seq,
                at_ms,
                end,
            } => (*seq, finish(tx, of, *seq, *at_ms, end)?),
            ExecFact::Missed { seq, at_ms, count } => (*seq, miss(tx, of, *seq, *at_ms, *count)?),
        };
        new += u32::from(is_new);
        newest = newest.max(seq);
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
