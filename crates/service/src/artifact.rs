//! Files that are kept of jobs: as nodes bring them, and as those see them who asked for the jobs.

use crate::blob::opened;
use crate::error::Fail;
use crate::job::owned;
use crate::quota::admit;
use crate::report::in_force;
use crate::{Ctx, Error, Service, random};
use model::access::Action;
use model::id::{ArtifactId, JobId};
use model::limits;
use std::fs::File;
use store::artifact::{self, ArtifactRow};

/// A file that a node keeps of a job; its bytes are a blob already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewArtifact {
    /// Of the lease.
    pub epoch: u64,
    /// Which attempt.
    pub attempt: u32,
    /// Where it was, inside the sandbox.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// SHA-256 of its bytes.
    pub digest: String,
    /// How many.
    pub size_bytes: u64,
}

impl Service {
    /// A node keeps a file of a job.
    ///
    /// # Errors
    /// [`Error::Stale`]; [`Error::Conflict`] for other bytes at the same path; [`Error::Invalid`];
    /// [`Error::TooMuch`] `quota_exceeded`.
    pub async fn artifact_put(
        &self,
        ctx: &Ctx,
        id: &JobId,
        new: NewArtifact,
    ) -> Result<ArtifactRow, Error> {
        let node = ctx.only_node()?.clone();
        self.check_lease(ctx, id.as_str(), Some(new.epoch)).await?;
        check_artifact(&new)?;
        let at_ms = self.now_ms();
        let row = ArtifactRow {
            id: ArtifactId::from_parts(at_ms, random()?),
            job_id: id.clone(),
            attempt: new.attempt,
            path: new.path,
            digest: new.digest,
            size_bytes: new.size_bytes,
            mode: new.mode,
            created_at_ms: at_ms,
        };
        let _gate = self.inner.blob_gate.lock().await;
        self.check_blob(&row.digest).await?;
        let book = self.inner.quotas.clone();
        self.unit(move |tx| {
            let job = in_force(tx, &node, &row.job_id, new.epoch, new.attempt)?;
            let there = artifact::list(tx, &job.id, job.attempt)?;
            check_room(&there, &row)?;
            if !there.iter().any(|there| there.path == row.path) {
                admit::artifact(tx, &book, &job, row.size_bytes)?;
            }
            Ok(artifact::insert(tx, &row, (&job.tenant, &job.principal))?)
        })
        .await
    }

    /// The files of a job's last attempt, by path.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn artifact_list(&self, ctx: &Ctx, id: &JobId) -> Result<Vec<ArtifactRow>, Error> {
        ctx.may(Action::JobRead)?;
        let (ctx, id) = (ctx.clone(), id.clone());
        self.look(move |tx| {
            let row = owned(tx, &ctx, &id)?;
            Ok(artifact::list(tx, &id, row.attempt)?)
        })
        .await
    }

    /// One file of a job, open for reading.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn artifact_open(
        &self,
        ctx: &Ctx,
        id: &JobId,
        artifact: &ArtifactId,
    ) -> Result<(ArtifactRow, File), Error> {
        ctx.may(Action::JobRead)?;
        let (ctx, id, artifact) = (ctx.clone(), id.clone(), artifact.clone());
        let row = self
            .look(move |tx| {
                owned(tx, &ctx, &id)?;
                let row = artifact::get(tx, &id, &artifact)?;
                row.ok_or(Fail::Ours(Error::NotFound))
            })
            .await?;
        let file = opened(&self.inner.blobs, &row.digest).await?;
        Ok((row, file))
    }
}

/// A node keeps no more than was asked for; one that does must not fill the disk.
fn check_room(there: &[ArtifactRow], new: &ArtifactRow) -> Result<(), Error> {
    if there.iter().any(|there| there.path == new.path) {
        return Ok(());
    }
    if there.len() >= limits::OUTPUTS_MAX {
        let message = format!("a job keeps at most {} files", limits::OUTPUTS_MAX);
        return Err(Error::invalid("path", "too_many", message));
    }
    let kept: u64 = there.iter().map(|there| there.size_bytes).sum();
    if kept.saturating_add(new.size_bytes) > limits::ARTIFACT_TOTAL_BYTES_MAX {
        let most = limits::ARTIFACT_TOTAL_BYTES_MAX;
        let message = format!("a job keeps at most {most} bytes of files");
        return Err(Error::invalid("path", "too_long", message));
    }
    Ok(())
}

fn check_artifact(new: &NewArtifact) -> Result<(), Error> {
    if new.path.is_empty() || new.path.len() > limits::PATH_BYTES_MAX || new.path.contains('\0') {
        let message = "not a path";
        return Err(Error::invalid("path", "invalid_argument", message));
    }
    if new.mode > 0o777 {
        let message = "only permission bits";
        return Err(Error::invalid("mode", "out_of_range", message));
    }
    Ok(())
}
