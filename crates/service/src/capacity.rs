//! Whether any machine has what a job or a sandbox asks for. What none has is refused before anything is written: it
//! would wait for ever.

use crate::place::ever;
use crate::volume::CAN;
use crate::{Error, Service};
use model::id::NodeId;
use model::limits;
use model::node::Scheduling;
use model::place::{Placement, Wish};
use model::spec::{AskedLimits, Invalid};
use store::node::NodeRow;

/// Nodes that are looked at to find one that is large enough.
const NODES_MAX: u32 = 1000;

/// What may be written of a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Root {
    /// All of it, where the node can have that; a large storage is on the node's disk then.
    Written,
    /// Some places, which are in memory.
    Read,
}

impl Root {
    pub(crate) fn of(allow_root: bool) -> Root {
        if allow_root {
            Root::Written
        } else {
            Root::Read
        }
    }
}

impl Service {
    /// Refuses limits that no node has that may take the job or the sandbox; says why none may, where its labels
    /// are not there: one that has them may come. Without nodes nobody knows; the node says.
    pub(crate) async fn check_capacity(
        &self,
        (asked, placement): (&AskedLimits, &Placement),
        root: Root,
        pin: Option<&NodeId>,
    ) -> Result<Option<String>, Error> {
        if *asked == AskedLimits::default() && placement.is_empty() {
            return Ok(None);
        }
        let nodes = self
            .look(|tx| Ok(store::node::list(tx, NODES_MAX)?))
            .await?;
        let may = |node: &&NodeRow| {
            pin.is_none_or(|pin| *pin == node.id)
                && node.state.scheduling != Scheduling::Decommissioned
        };
        let labels = Wish {
            placement: placement.clone(),
            ..Wish::default()
        };
        let all: Vec<&NodeRow> = nodes.iter().filter(may).collect();
        let is_there = |node: &&&NodeRow| ever(&labels, &[**node]).is_none();
        let right: Vec<&NodeRow> = all.iter().filter(is_there).copied().collect();
        if right.is_empty() {
            return Ok(ever(&labels, &all).map(|why| why.to_string()));
        }
        let limits = right.iter().map(|node| beyond(node, asked, root));
        match limits.min_by_key(Vec::len) {
            Some(found) if !found.is_empty() => Err(Error::Invalid(found)),
            _ => Ok(None),
        }
    }
}

/// The limits that are beyond a machine, by what its node says about it. What it does not say bounds
/// nothing here.
fn beyond(node: &NodeRow, asked: &AskedLimits, root: Root) -> Vec<Invalid> {
    let fact = |name: &str| -> Option<u64> { node.facts.get(name)?.parse().ok() };
    let memory = fact("memory_bytes");
    let on_disk = root == Root::Written
        && asked
            .disk_bytes
            .is_some_and(|bytes| bytes > limits::DISK_IN_MEMORY_BYTES)
        && node.facts.get(CAN.0).is_some_and(|can| can == CAN.1);
    let disk = match on_disk {
        true => fact("disk_bytes"),
        false => memory.and_then(|has| left_for_disk(has, asked)),
    };
    let checks = [
        ("limits.memory_bytes", asked.memory_bytes, memory),
        ("limits.disk_bytes", asked.disk_bytes, disk),
        (
            "limits.cpu_millis",
            asked.cpu_millis.map(u64::from),
            fact("cpus").map(|cpus| cpus.saturating_mul(1000)),
        ),
    ];
    let one = |(field, asked, most): (&str, Option<u64>, Option<u64>)| {
        let (asked, most) = (asked?, most?);
        (asked > most).then(|| Invalid {
            field: field.to_owned(),
            code: "limit_beyond_machine",
            message: format!("{asked} is more than the {most} that the largest machine has for it"),
        })
    };
    checks.into_iter().filter_map(one).collect()
}

/// Storage in memory is memory, and both limits can be used in full, so it gets what the memory limit leaves. A
/// memory limit that is beyond the machine by itself says enough.
fn left_for_disk(has: u64, asked: &AskedLimits) -> Option<u64> {
    let default = limits::MEMORY_DEFAULT_BYTES.min(has / 2);
    has.checked_sub(asked.memory_bytes.unwrap_or(default))
}
