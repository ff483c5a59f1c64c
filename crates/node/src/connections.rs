//! What is under way to the outside now, for whoever asks over the link of this node. It is written down nowhere.

use crate::Node;
use ::egress::record::Owner;
use ::egress::under_way::Connection;
use api::egress::{CONNECTIONS_MAX, EgressConnection, EgressDecision, NodeConnections};
use std::time::Duration;
use tokio::io::{AsyncWriteExt as _, DuplexStream};

/// How long whoever has asked may take to read the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers on a stream, and closes it.
pub(crate) fn tell(node: &Node, of: Option<String>, mut io: DuplexStream) {
    let told = node.clone();
    node.inner.tasks.spawn(async move {
        let telling = async {
            let said = serde_json::to_vec(&under_way(&told, of.as_deref()));
            io.write_all(&said.unwrap_or_default()).await?;
            io.shutdown().await
        };
        // Whoever has asked may be gone; who reads slowly is cut, and sees half of the JSON.
        drop(tokio::time::timeout(PATIENCE, telling).await);
    });
}

fn under_way(node: &Node, of: Option<&str>) -> NodeConnections {
    let is_meant = |owner: &Owner| of.is_none_or(|id| is_of(owner, id));
    let (connections, more) = node.inner.egress.under_way(is_meant, CONNECTIONS_MAX);
    NodeConnections {
        connections: connections.into_iter().map(on_the_wire).collect(),
        more,
    }
}

/// The sandbox that a job has brought is not one that can be asked for.
fn is_of(owner: &Owner, id: &str) -> bool {
    match &owner.job {
        Some(job) => job.as_str() == id,
        None => owner.sandbox.as_str() == id,
    }
}

fn on_the_wire(one: Connection) -> EgressConnection {
    EgressConnection {
        at_ms: one.at_ms,
        age_ms: one.age_ms,
        sandbox_id: one.owner.sandbox.to_string(),
        job_id: one.owner.job.map(|job| job.to_string()),
        method: one.method.as_str().to_owned(),
        host: one.host.to_string(),
        port: one.port,
        address: one.address.map(|address| address.to_string()),
        decision: one.is_allowed.then_some(EgressDecision::Allowed),
        rule: one.rule,
        bytes_out: one.bytes_out,
        bytes_in: one.bytes_in,
    }
}
