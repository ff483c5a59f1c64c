//! What sandboxes and jobs have asked of the outside: nodes tell it, people read it.

use crate::error::Fail;
use crate::job::until;
use crate::wake::FLOOR;
use crate::{Ctx, Error, Service, page};
use model::access::Action;
use model::exception::{Exception, FACT};
use model::id::{JobId, NodeId, SandboxId, TenantId};
use model::limits;
use model::network::{Field, Trial};
use model::node::Connectivity;
use std::collections::BTreeMap;
use std::time::Duration;
use store::egress::{EgressFilter, EgressRow, NewEgress, Owner};
use store::node::NodeRow;
use store::{Tx, egress, job, node, sandbox};
use tokio::time::Instant;

/// Nodes that are asked what is under way.
const NODES_ASKED: u32 = 1000;
/// The node's name of a record, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// How long after the end of a sandbox or a job its last records are waited for: its node gathers them for a tenth of a
/// second, and tells them beside the end.
const SETTLE: Duration = Duration::from_secs(2);

/// Which records somebody wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EgressLook {
    /// Only those with numbers above this.
    pub after: u64,
    /// At most so many, 1 to [`limits::PAGE_MAX`].
    pub limit: u32,
    /// Only these.
    pub filter: EgressFilter,
}

/// A page of records, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressPage {
    /// The records.
    pub rows: Vec<EgressRow>,
    /// Give this as `after` to read on: what was passed over by a filter is not looked at again.
    pub next: u64,
    /// There are more.
    pub more: bool,
    /// The sandbox or the job is over; its last records may still be on their way.
    pub is_over: bool,
}

impl Service {
    /// A node says what its sandboxes and jobs have asked for. What is of others is passed over: it may have been
    /// deleted since. Says how many were new: the same again is stored once.
    ///
    /// # Errors
    /// [`Error::LeaseToken`] without the name of the node's process; [`Error::TooMuch`]; [`Error::Invalid`] for a name
    /// that is too long.
    pub async fn egress_report(
        &self,
        ctx: &Ctx,
        records: Vec<(Owner, NewEgress)>,
    ) -> Result<u32, Error> {
        let node = ctx.only_node()?.clone();
        self.check_process(ctx).await?;
        let most = limits::EGRESS_RECORDS_MAX;
        if records.len() > most {
            return Err(Error::TooMuch {
                code: "too_much",
                message: format!("a report has at most {most} records"),
            });
        }
        if records
            .iter()
            .any(|(_, one)| one.name.len() > NAME_BYTES_MAX)
        {
            let message = format!("a name has at most {NAME_BYTES_MAX} bytes");
            return Err(Error::invalid("records.name", "too_long", message));
        }
        // In the order of their names, so that two reports lock rows in the same one.
        let mut of_owner: BTreeMap<String, (Owner, Vec<NewEgress>)> = BTreeMap::new();
        for (owner, new) in records {
            let name = owner.as_str().to_owned();
            of_owner
                .entry(name)
                .or_insert((owner, Vec::new()))
                .1
                .push(new);
        }
        self.unit(move |tx| {
            let mut count = 0;
            for (owner, news) in of_owner.values() {
                if node_of(tx, owner)?.as_ref() == Some(&node) {
                    count += keep(tx, owner, news)?;
                }
            }
            Ok::<_, Fail>(count)
        })
        .await
    }

    /// What a sandbox has asked of the outside, after the record with the number `after`.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn sandbox_egress(
        &self,
        ctx: &Ctx,
        id: &SandboxId,
        ask: EgressLook,
    ) -> Result<EgressPage, Error> {
        ctx.may(Action::SandboxRead)?;
        self.egress_list(ctx, Owner::Sandbox(id.clone()), ask).await
    }

    /// The same of a job.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn job_egress(
        &self,
        ctx: &Ctx,
        id: &JobId,
        ask: EgressLook,
    ) -> Result<EgressPage, Error> {
        ctx.may(Action::JobRead)?;
        self.egress_list(ctx, Owner::Job(id.clone()), ask).await
    }

    /// Records as they come: waits until there are some, or the time is up. `None` when the sandbox or the job is over,
    /// and nothing has come for a moment.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn egress_wait(
        &self,
        ctx: &Ctx,
        owner: &Owner,
        mut ask: EgressLook,
        up_to: Duration,
    ) -> Result<Option<EgressPage>, Error> {
        ctx.may(to_read(owner))?;
        let until = until(up_to, limits::JOB_WAIT_MAX_MS);
        let mut over_since = None;
        loop {
            let page = self.egress_list(ctx, owner.clone(), ask.clone()).await?;
            let now = Instant::now();
            if !page.rows.is_empty() {
                return Ok(Some(page));
            }
            if page.is_over && now >= *over_since.get_or_insert(now) + SETTLE {
                return Ok(None);
            }
            // At least as long as it takes to see the end, so that whoever asks again and again does.
            if now >= until && over_since.is_none() {
                return Ok(Some(page));
            }
            ask.after = page.next;
            tokio::time::sleep(FLOOR).await;
        }
    }

    async fn egress_list(
        &self,
        ctx: &Ctx,
        owner: Owner,
        ask: EgressLook,
    ) -> Result<EgressPage, Error> {
        ctx.may(to_read(&owner))?;
        let limit = ask.limit.clamp(1, limits::PAGE_MAX);
        let (tenant, after) = (ctx.tenant.clone(), ask.after);
        self.look(move |tx| {
            let Some(is_over) = is_over(tx, &owner, &tenant)? else {
                return Err(Error::NotFound.into());
            };
            // Before they are read: what comes meanwhile is looked at next time.
            let last = egress::last(tx, &owner)?;
            // One more than is shown tells whether there are more.
            let mut rows = egress::list(tx, &owner, after, &ask.filter, limit + 1)?;
            let more = page::cut(&mut rows, limit, |_| ()).is_some();
            let shown = rows.last().map_or(after, |row| row.seq);
            Ok(EgressPage {
                rows,
                next: if more { shown } else { shown.max(last) },
                more,
                is_over,
            })
        })
        .await
    }

    /// What would become of a URL by the rules that a sandbox has now, and by what the operator of its node has opened,
    /// where these fields are in the header.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] for no URL, and for more fields than there may be.
    pub async fn sandbox_egress_test(
        &self,
        ctx: &Ctx,
        id: &SandboxId,
        (url, headers): (&str, &BTreeMap<String, String>),
    ) -> Result<Trial, Error> {
        ctx.may(Action::SandboxRead)?;
        let most = limits::REQUEST_RULE_LIST_MAX;
        if headers.len() > most {
            let message = format!("{} fields are more than {most}", headers.len());
            return Err(Error::invalid("headers", "too_many", message));
        }
        let row = self.sandbox_get(ctx, id).await?;
        let opened = match row.node.clone() {
            Some(node) => self.look(move |tx| Ok(node::get(tx, &node)?)).await?,
            None => None,
        };
        let opened: Vec<Exception> = opened.iter().flat_map(opened_by).collect();
        let fields: Vec<Field<'_>> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.trim().as_bytes()))
            .collect();
        let tried = row.rules().trial((url, &fields), &opened, &row.secrets());
        tried.map_err(|bad| {
            let message = format!("failed to {bad}");
            Error::invalid("url", "invalid_argument", message)
        })
    }
}

impl Service {
    /// Where what a sandbox or a job has asked for is under way; `None` while no node has it.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn egress_node(&self, ctx: &Ctx, owner: Owner) -> Result<Option<NodeId>, Error> {
        ctx.may(to_read(&owner))?;
        let tenant = ctx.tenant.clone();
        self.look(move |tx| {
            if !is_of(tx, &owner, &tenant)? {
                return Err(Error::NotFound.into());
            }
            node_of(tx, &owner)
        })
        .await
    }

    /// Nodes that are heard from, whichever server holds their links.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `sandbox:read` and `job:read`.
    pub async fn egress_nodes(&self, ctx: &Ctx) -> Result<Vec<NodeId>, Error> {
        ctx.may(Action::SandboxRead)?;
        ctx.may(Action::JobRead)?;
        let nodes = self
            .look(|tx| Ok(store::node::list(tx, NODES_ASKED)?))
            .await?;
        let is_there = |row: &NodeRow| row.state.connectivity == Connectivity::Online;
        Ok(nodes
            .into_iter()
            .filter(is_there)
            .map(|row| row.id)
            .collect())
    }

    /// Those of these that the caller may see and that this node has: what it says of others is passed over.
    ///
    /// # Errors
    /// [`Error::Forbidden`] without `sandbox:read` and `job:read`.
    pub async fn egress_seen(
        &self,
        ctx: &Ctx,
        node: &NodeId,
        owners: Vec<Owner>,
    ) -> Result<Vec<Owner>, Error> {
        ctx.may(Action::SandboxRead)?;
        ctx.may(Action::JobRead)?;
        let (tenant, node) = (ctx.tenant.clone(), node.clone());
        self.look(move |tx| {
            let mut seen = Vec::new();
            for owner in &owners {
                if is_of(tx, owner, &tenant)? && node_of(tx, owner)?.as_ref() == Some(&node) {
                    seen.push(owner.clone());
                }
            }
            Ok(seen)
        })
        .await
    }
}

/// What the operator of a node opened, as it said when it registered.
fn opened_by(node: &NodeRow) -> impl Iterator<Item = Exception> {
    let facts = node.facts.iter();
    facts.filter_map(|(name, text)| name.starts_with(FACT).then(|| text.parse().ok())?)
}

/// What it takes to see what somebody has asked of the outside.
fn to_read(owner: &Owner) -> Action {
    match owner {
        Owner::Sandbox(_) => Action::SandboxRead,
        Owner::Job(_) => Action::JobRead,
    }
}

fn node_of(tx: &mut Tx<'_>, owner: &Owner) -> Result<Option<NodeId>, Fail> {
    Ok(match owner {
        Owner::Sandbox(id) => sandbox::get(tx, None, id)?.and_then(|row| row.node),
        Owner::Job(id) => job::get(tx, None, id)?.and_then(|row| row.node),
    })
}

fn is_of(tx: &mut Tx<'_>, owner: &Owner, tenant: &TenantId) -> Result<bool, Fail> {
    Ok(is_over(tx, owner, tenant)?.is_some())
}

/// Whether it has ended; `None` where the tenant has none such.
fn is_over(tx: &mut Tx<'_>, owner: &Owner, tenant: &TenantId) -> Result<Option<bool>, Fail> {
    Ok(match owner {
        Owner::Sandbox(id) => {
            let row = sandbox::get(tx, Some(tenant), id)?;
            row.map(|row| row.state.is_over())
        }
        Owner::Job(id) => {
            let row = job::get(tx, Some(tenant), id)?;
            row.map(|row| row.state.outcome().is_some())
        }
    })
}

fn keep(tx: &mut Tx<'_>, owner: &Owner, news: &[NewEgress]) -> Result<u32, Fail> {
    let first = egress::last(tx, owner)?;
    let (mut last, mut count, mut denied) = (first, 0, 0);
    for new in news {
        if egress::insert(tx, owner, last + 1, new)? {
            last += 1;
            count += 1;
            denied += u64::from(new.decision == "denied");
        }
    }
    if denied > 0 {
        egress::count_denied(tx, owner, denied)?;
    }
    if last > first {
        egress::prune(
            tx,
            owner.as_str(),
            last.saturating_sub(limits::RETAIN_EGRESS),
        )?;
    }
    Ok(count)
}
