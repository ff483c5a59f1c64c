//! What nodes say and ask. Who speaks is known from the connection, never from a body.

use std::time::Duration;

use api::artifact::ArtifactView;
use api::dropped::NodeDropped;
use api::egress::NodeEgress;
use api::exec::NodeExecs;
use api::network::NetworkReport;
use api::node::{
    ArtifactPutQuery, JobFinished, JobOutput, JobRelease, JobStarted, NodeHeartbeat,
    NodeHeartbeatAnswer, NodePoll, NodePollAnswer, NodeRegister, NodeRegistered, NodeUsage,
    ReportAnswer, ReportResult, SandboxReport,
};
use api::secret::{SecretsAsk, SecretsGiven};
use api::{Code, ErrorBody, routes};
use axum::Json as Answer;
use axum::extract::{Request, State};
use axum::response::Response;

use service::{Ctx, Free};

use crate::convert::{self, exec, fleet, from_wire, sandbox, secret, to_wire, volume};
use crate::error::Error;
use crate::extract::{DigestOf, JobOf, Json, Node, Query, SandboxOf, SnapshotOf};
use crate::{App, download, upload};

/// A node says that it is there, and learns what it is believed to hold.
#[utoipa::path(post, path = routes::NODE_REGISTER, tag = "node", operation_id = "node_register",
    request_body = NodeRegister,
    responses((status = 200, description = "It is known", body = NodeRegistered),
              (status = 403, description = "It is no node, or decommissioned", body = ErrorBody),
              (status = 409, description = "It speaks another protocol", body = ErrorBody)))]
pub(crate) async fn register(
    State(app): State<App>,
    Node(ctx): Node,
    Json(hello): Json<NodeRegister>,
) -> Result<Answer<NodeRegistered>, Error> {
    service::node_speaks((hello.protocol.min, hello.protocol.max))?;
    let registered = app
        .service
        .node_register(&ctx, from_wire::hello(hello))
        .await?;
    let now_ms = app.service.clock().now_ms();
    let tokens = app.service.lease_tokens_of_registered(&ctx, &registered);
    let lease_tokens = tokens.await?;
    Ok(Answer(NodeRegistered {
        lease_tokens,
        ..to_wire::registered(&ctx, registered, now_ms)
    }))
}

/// A node renews all its leases.
#[utoipa::path(post, path = routes::NODE_HEARTBEAT, tag = "node", operation_id = "node_heartbeat",
    request_body = NodeHeartbeat,
    responses((status = 200, description = "They are renewed", body = NodeHeartbeatAnswer),
              (status = 409, description = "Another process is this node now", body = ErrorBody)))]
pub(crate) async fn heartbeat(
    State(app): State<App>,
    Node(ctx): Node,
    Json(beat): Json<NodeHeartbeat>,
) -> Result<Answer<NodeHeartbeatAnswer>, Error> {
    service::node_speaks((beat.protocol.min, beat.protocol.max))?;
    let running = from_wire::job_refs(beat.running)?;
    let sandboxes = sandbox::refs_from(beat.sandboxes)?;
    let snapshots = sandbox::snapshots_from(&beat.snapshots)?;
    let volumes = volume::ids_from(&beat.volumes)?;
    let host = beat.host.map(fleet::host);
    let renewed = app
        .service
        .node_heartbeat_of(&ctx, &beat.incarnation, (&running, &sandboxes), host)
        .await?;
    // Only of the process that is this node: another one's directories are not this one's.
    let remove = app.service.snapshot_beat(&ctx, snapshots).await?;
    let remove_volumes = app.service.volume_beat(&ctx, volumes).await?;
    let lease_tokens = app.service.lease_tokens_of_beat(&ctx, &renewed).await?;
    let dropped = take_note(&app, &ctx, beat.dropped).await;
    Ok(Answer(NodeHeartbeatAnswer {
        lease_tokens,
        dropped,
        remove_snapshots: to_wire::snapshot_ids(&remove),
        remove_volumes: remove_volumes.iter().map(ToString::to_string).collect(),
        ..to_wire::renewed(renewed)
    }))
}

/// Of the reports that a node has given up, those that are in the record now. What goes wrong with it must not end
/// leases: the node tells them again.
async fn take_note(app: &App, ctx: &Ctx, dropped: Vec<NodeDropped>) -> Vec<String> {
    if dropped.is_empty() {
        return Vec::new();
    }
    let dropped = dropped.into_iter().map(from_wire::dropped).collect();
    match app.service.node_dropped(ctx, dropped).await {
        Ok(told) => told,
        Err(error) => {
            tracing::warn!(
                error = error.cause(),
                "what a node gave up is not among the events"
            );
            Vec::new()
        }
    }
}

/// A node asks for work and waits for it.
#[utoipa::path(post, path = routes::NODE_POLL, tag = "node", operation_id = "node_poll",
    request_body = NodePoll,
    responses((status = 200, description = "What there is to do", body = NodePollAnswer),
              (status = 503, description = "The server is stopping", body = ErrorBody)))]
pub(crate) async fn poll(
    State(app): State<App>,
    Node(ctx): Node,
    Json(poll): Json<NodePoll>,
) -> Result<Answer<NodePollAnswer>, Error> {
    let wait = Duration::from_millis(poll.wait_ms);
    let free = Free {
        slots: poll.free_slots,
        sandboxes: poll.free_sandboxes,
        reserved: fleet::reserved(poll.reserved),
    };
    let polling = app.service.node_poll(&ctx, &poll.incarnation, free, wait);
    let polled = app.stopping.run_until_cancelled(polling).await;
    let stopping = || Error::new(Code::Unavailable, "the server is stopping");
    let polled = polled.ok_or_else(stopping)??;
    let lease_tokens = app.service.lease_tokens_of_poll(&ctx, &polled).await?;
    Ok(Answer(NodePollAnswer {
        lease_tokens,
        ..to_wire::polled(polled)
    }))
}

/// A sandbox is ready. The command may be let go when this is answered, unless it says `cancel`.
#[utoipa::path(post, path = routes::NODE_JOB_STARTED, tag = "node",
    operation_id = "node_job_started",
    params(("id" = String, Path, description = "The job")), request_body = JobStarted,
    responses((status = 200, description = "It is known", body = ReportAnswer),
              (status = 404, description = "No job of this node", body = ErrorBody),
              (status = 409, description = "The lease is over", body = ErrorBody)))]
pub(crate) async fn started(
    State(app): State<App>,
    Node(ctx): Node,
    JobOf(id): JobOf,
    Json(report): Json<JobStarted>,
) -> Result<Answer<ReportAnswer>, Error> {
    let reported = app
        .service
        .job_started(&ctx, &id, from_wire::started(report)?)
        .await?;
    Ok(Answer(to_wire::reported(reported)))
}

/// What a job wrote. Answered means stored.
#[utoipa::path(post, path = routes::NODE_JOB_OUTPUT, tag = "node", operation_id = "node_job_output",
    params(("id" = String, Path, description = "The job")), request_body = JobOutput,
    responses((status = 200, description = "It is stored", body = ReportAnswer),
              (status = 404, description = "No job of this node", body = ErrorBody),
              (status = 409, description = "The lease is over, or other bytes are there",
               body = ErrorBody)))]
pub(crate) async fn output(
    State(app): State<App>,
    Node(ctx): Node,
    JobOf(id): JobOf,
    Json(report): Json<JobOutput>,
) -> Result<Answer<ReportAnswer>, Error> {
    let segments = from_wire::pieces(report.segments)?;
    let (epoch, attempt) = (report.epoch, report.attempt);
    let reported = app
        .service
        .job_output(&ctx, &id, epoch, attempt, segments)
        .await?;
    Ok(Answer(to_wire::reported(reported)))
}

/// How a job ended.
#[utoipa::path(post, path = routes::NODE_JOB_FINISHED, tag = "node",
    operation_id = "node_job_finished",
    params(("id" = String, Path, description = "The job")), request_body = JobFinished,
    responses((status = 200, description = "It is stored", body = ReportAnswer),
              (status = 404, description = "No job of this node", body = ErrorBody),
              (status = 409, description = "The lease is over, or it ended otherwise",
               body = ErrorBody)))]
pub(crate) async fn finished(
    State(app): State<App>,
    Node(ctx): Node,
    JobOf(id): JobOf,
    Json(report): Json<JobFinished>,
) -> Result<Answer<ReportAnswer>, Error> {
    let reported = app
        .service
        .job_finished(&ctx, &id, from_wire::finished(report)?)
        .await?;
    Ok(Answer(to_wire::reported(reported)))
}

/// A node gives a job back that it has not started.
#[utoipa::path(post, path = routes::NODE_JOB_RELEASE, tag = "node",
    operation_id = "node_job_release",
    params(("id" = String, Path, description = "The job")), request_body = JobRelease,
    responses((status = 200, description = "It waits again", body = ReportAnswer),
              (status = 404, description = "No job of this node", body = ErrorBody),
              (status = 409, description = "The lease is over, or it was let go",
               body = ErrorBody)))]
pub(crate) async fn release(
    State(app): State<App>,
    Node(ctx): Node,
    JobOf(id): JobOf,
    Json(report): Json<JobRelease>,
) -> Result<Answer<ReportAnswer>, Error> {
    let reported = app
        .service
        .job_release(&ctx, &id, report.epoch, &report.why)
        .await?;
    Ok(Answer(to_wire::reported(reported)))
}

/// One file that is to be kept, at most 1 GiB.
#[utoipa::path(put, path = routes::NODE_JOB_ARTIFACTS, tag = "node",
    operation_id = "node_artifact_put",
    params(("id" = String, Path, description = "The job"), ArtifactPutQuery),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, description = "It is kept", body = ArtifactView),
              (status = 404, description = "No job of this node", body = ErrorBody),
              (status = 409, description = "The lease is over, or another file is there",
               body = ErrorBody),
              (status = 413, description = "It is too large", body = ErrorBody)))]
pub(crate) async fn artifact(
    State(app): State<App>,
    Node(ctx): Node,
    JobOf(id): JobOf,
    Query(query): Query<ArtifactPutQuery>,
    request: Request,
) -> Result<Answer<ArtifactView>, Error> {
    let written = upload::take_in(&app, &ctx, request).await?;
    let row = app
        .service
        .artifact_put(&ctx, &id, from_wire::artifact(query, written))
        .await?;
    Ok(Answer(to_wire::artifact(row)))
}

/// What has become of a sandbox that lives on.
#[utoipa::path(post, path = routes::NODE_SANDBOX_REPORT, tag = "node",
    operation_id = "node_sandbox_report",
    params(("id" = String, Path, description = "The sandbox")), request_body = SandboxReport,
    responses((status = 200, description = "It is stored", body = ReportAnswer),
              (status = 404, description = "No sandbox of this node", body = ErrorBody),
              (status = 409, description = "It is not about the last order, or was not ordered",
               body = ErrorBody)))]
pub(crate) async fn sandbox_report(
    State(app): State<App>,
    Node(ctx): Node,
    SandboxOf(id): SandboxOf,
    Json(report): Json<SandboxReport>,
) -> Result<Answer<ReportAnswer>, Error> {
    let said = sandbox::said(report.what);
    let host = report.host.map(fleet::host_change);
    let reported = app
        .service
        .sandbox_report(&ctx, &id, report.epoch, said, host);
    Ok(Answer(to_wire::reported(reported.await?)))
}

/// The secrets of a job. Their use is recorded.
#[utoipa::path(post, path = routes::NODE_JOB_SECRETS, tag = "node",
    operation_id = "node_job_secrets",
    params(("id" = String, Path, description = "The job")), request_body = SecretsAsk,
    responses((status = 200, description = "Their values", body = SecretsGiven),
              (status = 400, description = "One is gone", body = ErrorBody),
              (status = 404, description = "No job of this node", body = ErrorBody),
              (status = 409, description = "The lease is over", body = ErrorBody)))]
pub(crate) async fn job_secrets(
    State(app): State<App>,
    Node(ctx): Node,
    JobOf(id): JobOf,
    Json(ask): Json<SecretsAsk>,
) -> Result<Answer<SecretsGiven>, Error> {
    let given = app.service.job_secrets(&ctx, &id, ask.epoch).await?;
    Ok(Answer(secret::given(given)))
}

/// The secrets of a sandbox. Their use is recorded.
#[utoipa::path(post, path = routes::NODE_SANDBOX_SECRETS, tag = "node",
    operation_id = "node_sandbox_secrets",
    params(("id" = String, Path, description = "The sandbox")), request_body = SecretsAsk,
    responses((status = 200, description = "Their values", body = SecretsGiven),
              (status = 400, description = "One is gone", body = ErrorBody),
              (status = 404, description = "No sandbox of this node", body = ErrorBody),
              (status = 409, description = "It is not of the last order", body = ErrorBody)))]
pub(crate) async fn sandbox_secrets(
    State(app): State<App>,
    Node(ctx): Node,
    SandboxOf(id): SandboxOf,
    Json(ask): Json<SecretsAsk>,
) -> Result<Answer<SecretsGiven>, Error> {
    let given = app.service.sandbox_secrets(&ctx, &id, ask.epoch).await?;
    Ok(Answer(secret::given(given)))
}

/// What a node's sandboxes used.
#[utoipa::path(post, path = routes::NODE_USAGE, tag = "node", operation_id = "node_usage",
    request_body = NodeUsage,
    responses((status = 200, description = "It is stored", body = ReportAnswer),
              (status = 400, description = "It is too much at once", body = ErrorBody)))]
pub(crate) async fn usage(
    State(app): State<App>,
    Node(ctx): Node,
    Json(usage): Json<NodeUsage>,
) -> Result<Answer<ReportAnswer>, Error> {
    let seen = convert::usage::seen(usage)?;
    app.service.sandbox_usage_report(&ctx, seen).await?;
    let heard = service::Report {
        duplicate: false,
        cancel: false,
    };
    Ok(Answer(to_wire::reported(heard)))
}

/// Nothing of a snapshot is left on this node.
#[utoipa::path(post, path = routes::NODE_SNAPSHOT_REMOVED, tag = "node",
    operation_id = "node_snapshot_removed",
    params(("id" = String, Path, description = "The snapshot")),
    responses((status = 200, description = "It is stored", body = ReportAnswer),
              (status = 404, description = "No snapshot of this node", body = ErrorBody),
              (status = 409, description = "It was not to be removed", body = ErrorBody)))]
pub(crate) async fn snapshot_removed(
    State(app): State<App>,
    Node(ctx): Node,
    SnapshotOf(id): SnapshotOf,
) -> Result<Answer<ReportAnswer>, Error> {
    app.service.snapshot_removed(&ctx, &id).await?;
    Ok(Answer(to_wire::reported(service::Report::default())))
}

/// What sandboxes and jobs of a node have asked of the outside.
#[utoipa::path(post, path = routes::NODE_EGRESS, tag = "node", operation_id = "node_egress",
    request_body = NodeEgress,
    responses((status = 200, description = "It is stored", body = ReportAnswer),
              (status = 400, description = "Not records", body = ErrorBody),
              (status = 429, description = "Too many records", body = ErrorBody)))]
pub(crate) async fn egress_report(
    State(app): State<App>,
    Node(ctx): Node,
    Json(report): Json<NodeEgress>,
) -> Result<Answer<ReportAnswer>, Error> {
    let records = convert::egress::records(report.records)?;
    let new = app.service.egress_report(&ctx, records).await?;
    Ok(Answer(ReportAnswer {
        result: if new > 0 {
            ReportResult::Accepted
        } else {
            ReportResult::Duplicate
        },
        cancel: false,
    }))
}

/// Rules of a network are in force, or cannot be put in force.
#[utoipa::path(post, path = routes::NODE_SANDBOX_NETWORK, tag = "node",
    operation_id = "node_sandbox_network",
    params(("id" = String, Path, description = "The sandbox")), request_body = NetworkReport,
    responses((status = 200, description = "It is known", body = ReportAnswer),
              (status = 404, description = "No sandbox of this node", body = ErrorBody)))]
pub(crate) async fn sandbox_network(
    State(app): State<App>,
    Node(ctx): Node,
    SandboxOf(id): SandboxOf,
    Json(report): Json<NetworkReport>,
) -> Result<Answer<ReportAnswer>, Error> {
    let said = convert::network::said(report)?;
    let reported = app.service.sandbox_network_report(&ctx, &id, said).await?;
    Ok(Answer(to_wire::reported(reported)))
}

/// What was run in a sandbox that lives on.
#[utoipa::path(post, path = routes::NODE_SANDBOX_EXECS, tag = "node",
    operation_id = "node_sandbox_execs",
    params(("id" = String, Path, description = "The sandbox")), request_body = NodeExecs,
    responses((status = 200, description = "It is stored", body = ReportAnswer),
              (status = 404, description = "No sandbox of this node", body = ErrorBody),
              (status = 429, description = "Too many facts", body = ErrorBody)))]
pub(crate) async fn sandbox_execs(
    State(app): State<App>,
    Node(ctx): Node,
    SandboxOf(id): SandboxOf,
    Json(report): Json<NodeExecs>,
) -> Result<Answer<ReportAnswer>, Error> {
    let last = report.facts.iter().map(api::exec::ExecFact::seq).max();
    let facts = exec::facts(report.facts)?;
    let new = app.service.exec_report(&ctx, &id, facts).await?;
    app.service.exec_stored(&id, last.unwrap_or(0));
    Ok(Answer(ReportAnswer {
        result: if new > 0 {
            ReportResult::Accepted
        } else {
            ReportResult::Duplicate
        },
        cancel: false,
    }))
}

/// The bytes of an input file.
#[utoipa::path(get, path = routes::NODE_BLOB, tag = "node", operation_id = "node_blob_get",
    params(("digest" = String, Path, description = "Their SHA-256")),
    responses((status = 200, description = "The bytes", body = Vec<u8>,
               content_type = "application/octet-stream"),
              (status = 404, description = "There are none", body = ErrorBody)))]
pub(crate) async fn blob(
    State(app): State<App>,
    Node(ctx): Node,
    DigestOf(digest): DigestOf,
) -> Result<Response, Error> {
    let file = app.service.blob_open(&ctx, &digest).await?;
    let size_bytes = file.metadata().map_err(Error::internal)?.len();
    Ok(download::file(file, size_bytes))
}
