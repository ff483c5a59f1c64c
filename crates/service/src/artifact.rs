//! Files that were kept of jobs, as those see them who asked for the jobs.

use crate::blob::opened;
use crate::error::Fail;
use crate::job::owned;
use crate::{Ctx, Error, Service};
use model::id::{ArtifactId, JobId};
use std::fs::File;
use store::artifact::{self, ArtifactRow};

impl Service {
    /// The files of a job's last attempt, by path.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn artifact_list(&self, ctx: &Ctx, id: &JobId) -> Result<Vec<ArtifactRow>, Error> {
        ctx.only_user()?;
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
        ctx.only_user()?;
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
