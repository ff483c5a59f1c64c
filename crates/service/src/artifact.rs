//! Files that are kept of jobs.

use crate::{Ctx, Error, Service, random};
use model::id::{ArtifactId, JobId};
use std::fs::File;
use store::Tx;
use store::artifact::ArtifactRow;
use store::blob::Written;

impl Service {
    /// Files of a job's last attempt.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn artifact_list(&self, ctx: &Ctx, id: &JobId) -> Result<Vec<ArtifactRow>, Error> {
        let row = self.job_get(ctx, id).await?;
        let unit = move |tx: &mut Tx<'_>| store::artifact::list(tx, &row.id, row.attempt);
        Ok(self.inner.store.read(unit).await?)
    }

    /// One file of a job, opened.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn artifact_open(
        &self,
        ctx: &Ctx,
        job: &JobId,
        id: &ArtifactId,
    ) -> Result<(ArtifactRow, File), Error> {
        self.job_get(ctx, job).await?;
        let (job, id) = (job.clone(), id.clone());
        let unit = move |tx: &mut Tx<'_>| store::artifact::get(tx, &job, &id);
        let row = self.inner.store.read(unit).await?.ok_or(Error::NotFound)?;
        let file = self.open(&row.digest).await?;
        Ok((row, file))
    }

    /// A node keeps a file of a job that it has. The bytes were taken in before.
    ///
    /// # Errors
    /// [`Error::StaleEpoch`], [`Error::NotFound`], [`Error::Conflict`], or [`Error::WrongState`] for a
    /// job that has ended.
    pub async fn artifact_put(
        &self,
        ctx: &Ctx,
        job: &JobId,
        epoch: u64,
        file: (String, u32),
        written: &Written,
    ) -> Result<ArtifactRow, Error> {
        let row = self.holder(ctx, job).await?;
        if row.epoch != epoch {
            return Err(Error::StaleEpoch);
        }
        if row.state.lease().is_none() {
            return Err(Error::WrongState {
                state: row.state.name(),
            });
        }
        let now = self.now_ms();
        let (path, mode) = file;
        let new = ArtifactRow {
            id: ArtifactId::from_parts(now, random()?),
            job_id: row.id,
            attempt: row.attempt,
            path,
            digest: written.digest.clone(),
            size_bytes: written.size_bytes,
            mode,
            created_at_ms: now,
        };
        Ok(self
            .inner
            .store
            .write(move |tx| store::artifact::insert(tx, &new))
            .await?)
    }
}
