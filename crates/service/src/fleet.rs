//! Nodes as an operator sees them, and what is to become of them.

mod evict;

use crate::change::Note;
use crate::enroll::tell;
use crate::error::Fail;
use crate::node::note_node;
use crate::{Ctx, Error, Service};
use model::access::Action;
use model::id::NodeId;
use model::node::{Connectivity, NodeEvent, NodeState, Scheduling};
use std::collections::BTreeMap;
use store::Tx;
use store::enroll::{self, EnrollmentRow};
use store::node::{self, NodeRow};

/// Nodes that are listed.
const NODES_SHOWN: u32 = 1000;

/// A node, from what it said and from what is known of how it was let in: one of the two may be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSeen {
    /// Which.
    pub id: NodeId,
    /// How it was let in; `None` for the node of `up`.
    pub enrollment: Option<EnrollmentRow>,
    /// What it said; `None` before it came.
    pub row: Option<NodeRow>,
    /// Jobs and sandboxes that it has.
    pub load: (u64, u64),
}

impl NodeSeen {
    /// Whether it is there, and whether it gets work.
    #[must_use]
    pub fn state(&self) -> NodeState {
        let gone = |row: &EnrollmentRow| row.decommissioned_at_ms.is_some();
        let is_gone = self.enrollment.as_ref().is_some_and(gone);
        let pending = NodeState {
            connectivity: Connectivity::Pending,
            scheduling: Scheduling::Active,
        };
        let state = self.row.as_ref().map_or(pending, |row| row.state);
        if is_gone {
            let scheduling = Scheduling::Decommissioned;
            return NodeState {
                scheduling,
                ..state
            };
        }
        state
    }
}

/// What an operator wants of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeOrder {
    /// Nothing new, for now.
    Cordon,
    /// New work again.
    Uncordon,
    /// Nothing new; what it has goes on to its end.
    Drain,
    /// It is not believed any more.
    Decommission,
}

impl NodeOrder {
    /// The event of the machine of states, and the one that is written.
    fn events(self) -> (NodeEvent, &'static str) {
        match self {
            NodeOrder::Cordon => (NodeEvent::Cordon, "node.cordoned"),
            NodeOrder::Uncordon => (NodeEvent::Uncordon, "node.uncordoned"),
            NodeOrder::Drain => (NodeEvent::Drain, "node.draining"),
            NodeOrder::Decommission => (NodeEvent::Decommission, "node.decommissioned"),
        }
    }
}

impl Service {
    /// All nodes, by id.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and its like.
    pub async fn node_list(&self, ctx: &Ctx) -> Result<Vec<NodeSeen>, Error> {
        ctx.may(Action::NodeRead)?;
        self.look(|tx| {
            let mut all: BTreeMap<NodeId, (Option<EnrollmentRow>, Option<NodeRow>)> =
                BTreeMap::new();
            for row in node::list(tx, NODES_SHOWN)? {
                let id = row.id.clone();
                all.entry(id).or_default().1 = Some(row);
            }
            for row in enroll::list(tx, NODES_SHOWN)? {
                let id = row.node.clone();
                all.entry(id).or_default().0 = Some(row);
            }
            let mut seen = Vec::new();
            for (id, (enrollment, row)) in all.into_iter().take(NODES_SHOWN as usize) {
                let load = enroll::load_of(tx, &id)?;
                seen.push(NodeSeen {
                    id,
                    enrollment,
                    row,
                    load,
                });
            }
            Ok(seen)
        })
        .await
    }

    /// One node.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn node_get(&self, ctx: &Ctx, id: &NodeId) -> Result<NodeSeen, Error> {
        ctx.may(Action::NodeRead)?;
        let id = id.clone();
        self.look(move |tx| seen(tx, &id)).await
    }

    /// Does with a node what an operator wants.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] where its state does not allow it, such as one that was decommissioned.
    pub async fn node_order(
        &self,
        ctx: &Ctx,
        id: &NodeId,
        order: NodeOrder,
    ) -> Result<NodeSeen, Error> {
        ctx.may(Action::NodeWrite)?;
        let (id, note) = (id.clone(), Note::new(ctx, self.now_ms()));
        let seen = self.unit(move |tx| {
            let before = seen(tx, &id)?;
            change(tx, &before, order, &note)?;
            seen(tx, &id)
        });
        let seen = seen.await?;
        let scheduling = seen.state().scheduling;
        tracing::info!(node = %seen.id, ?order, ?scheduling, "an operator has ordered this of a node");
        // What waits may be for it now; and its own polls hear of what became of it, also those for no work.
        self.wake().queue();
        self.wake().node(&seen.id);
        Ok(seen)
    }

    /// Forgets a node that was decommissioned. What it had, or what waits for it alone, is judged lost.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] for one that was not decommissioned.
    pub async fn node_forget(&self, ctx: &Ctx, id: &NodeId) -> Result<NodeSeen, Error> {
        ctx.may(Action::NodeWrite)?;
        let seen = self.node_get(ctx, id).await?;
        if seen.state().scheduling != Scheduling::Decommissioned {
            return Err(Error::conflict("decommission it first"));
        }
        // First what it had: if the process ends before the last line, it can be forgotten again.
        self.node_gone(&Ctx::node(id.clone(), ctx.request_id.clone()))
            .await?;
        let (id, note) = (id.clone(), Note::new(ctx, self.now_ms()));
        self.unit(move |tx| {
            enroll::delete(tx, &id)?;
            store::server::forget_links(tx, &id)?;
            let none = serde_json::json!({});
            Ok(tell(
                tx,
                ("node", id.as_str()),
                "node.forgotten",
                &none,
                &note,
            )?)
        })
        .await?;
        Ok(seen)
    }
}

fn seen(tx: &mut Tx<'_>, id: &NodeId) -> Result<NodeSeen, Fail> {
    let (enrollment, row) = (enroll::get(tx, id)?, node::get(tx, id)?);
    if enrollment.is_none() && row.is_none() {
        return Err(Error::NotFound.into());
    }
    Ok(NodeSeen {
        id: id.clone(),
        enrollment,
        row,
        load: enroll::load_of(tx, id)?,
    })
}

fn change(tx: &mut Tx<'_>, seen: &NodeSeen, order: NodeOrder, note: &Note) -> Result<(), Fail> {
    let (event, kind) = order.events();
    let state = seen.state();
    let next = state.step(event);
    let next = next.ok_or_else(|| Error::conflict("its state does not allow this any more"))?;
    if next == state {
        return Ok(());
    }
    if order == NodeOrder::Decommission {
        enroll::decommission(tx, &seen.id, note.at_ms)?;
    }
    match &seen.row {
        Some(row) => {
            node::move_to(tx, row, next)?;
            note_node(tx, row, kind, note)
        }
        // It has not come yet, so that there is nothing to close.
        None if order == NodeOrder::Decommission => {
            let none = serde_json::json!({});
            Ok(tell(tx, ("node", seen.id.as_str()), kind, &none, note)?)
        }
        None => Err(Error::conflict("the node has not come yet").into()),
    }
}
